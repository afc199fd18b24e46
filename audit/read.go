// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/meta"
)

// Query chooses records. Zero members choose all.
type Query struct {
	// Since is inclusive, Until exclusive.
	Since, Until time.Time
	// Kind, Outcome, Route and Action are compared whole, Action without regard to case.
	Kind    Kind
	Outcome Outcome
	Route   string
	Action  string
	// Resource chooses what lies at or below this ARM id; Registry is a registry's identity.
	Resource, Registry string
	// Repository, Digest and Caller (id or name) are compared whole.
	Repository, Digest, Caller string
	// Limit is the most records to return; 0 is 100. The newest are chosen; they come oldest first.
	Limit int
	// After goes on behind a position, oldest first, and then Limit takes the oldest.
	After *Position
}

const pageRows = 512

func (q Query) matches(e Entry) bool {
	same := func(want, got string) bool { return want == "" || want == got }
	return same(string(q.Kind), string(e.Kind)) && same(string(q.Outcome), string(e.Outcome)) && same(q.Route, e.Route) &&
		(q.Action == "" || strings.EqualFold(q.Action, e.Action)) && same(q.Registry, e.Registry) &&
		same(q.Repository, e.Repository) && same(q.Digest, e.Digest) &&
		(q.Caller == "" || q.Caller == e.Caller.ID || q.Caller == e.Caller.Name) && below(q.Resource, e.Resource)
}

func below(scope, resource string) bool {
	s, r := strings.ToLower(strings.TrimRight(scope, "/")), strings.ToLower(resource)
	return s == "" || r == s || strings.HasPrefix(r, s+"/")
}

// Read gives the records that a query chooses, oldest first.
func (l *Log) Read(ctx context.Context, q Query) ([]Entry, error) {
	limit := q.Limit
	if limit <= 0 {
		limit = 100
	}
	var found []Entry
	err := l.db.Read(ctx, func(tx *meta.Tx) error {
		found = nil
		from := cursor{}
		if q.After != nil {
			from = cursor{meta.Micros(q.After.Time), q.After.Node, q.After.Seq, true}
		}
		for {
			page, next, err := l.page(tx, q, from)
			if err != nil {
				return err
			}
			for _, e := range page {
				if q.matches(e) {
					found = append(found, e)
				}
				if len(found) == limit {
					return nil
				}
			}
			if !next.set {
				return nil
			}
			from = next
		}
	})
	if q.After == nil {
		slices.Reverse(found)
	}
	return found, err
}

// cursor is where a page ended.
type cursor struct {
	us   int64
	node string
	seq  int64
	set  bool
}

// page reads up to pageRows records beyond from: newest first, or oldest first when the query goes on behind a position.
func (l *Log) page(tx *meta.Tx, q Query, from cursor) ([]Entry, cursor, error) {
	until := int64(1<<63 - 1)
	if !q.Until.IsZero() {
		until = meta.Micros(q.Until)
	}
	compare, order := "<", "DESC"
	if q.After != nil {
		compare, order = ">", "ASC"
	}
	text := `SELECT node, node_seq, time_us, leaf FROM audit WHERE time_us >= $1 AND time_us < $2`
	args := []any{meta.Micros(q.Since), until}
	if from.set {
		text += ` AND (time_us, node, node_seq) ` + compare + ` ($3, $4, $5)`
		args = append(args, from.us, from.node, from.seq)
	}
	text += ` ORDER BY time_us ` + order + `, node ` + order + `, node_seq ` + order + fmt.Sprintf(` LIMIT %d`, pageRows)
	rows, err := tx.Query(text, args...)
	if err != nil {
		return nil, cursor{}, err
	}
	defer rows.Close()
	var page []Entry
	var next cursor
	for rows.Next() {
		var e Entry
		if err := rows.Scan(&next.node, &next.seq, &next.us, &e.Leaf); err != nil {
			return nil, cursor{}, err
		}
		if err := json.Unmarshal(e.Leaf, &e.Record); err != nil {
			return nil, cursor{}, fmt.Errorf("audit: the leaf %s/%d is damaged: %w", next.node, next.seq, err)
		}
		e.Position = Position{meta.FromMicros(next.us), next.node, next.seq}
		page = append(page, e)
	}
	next.set = len(page) == pageRows
	return page, next, rows.Err()
}

// settle is how far behind the newest instant a follower looks again: a transaction that began earlier may commit later.
const settle = 5 * time.Second

// Follow gives the records that Read gives, then those that come, until ctx ends or fn fails. Each comes once; behind a position (After) none is left
// out, so Limit counts for nothing there.
func (l *Log) Follow(ctx context.Context, q Query, fn func(Entry) error) error {
	news, leave := l.db.Listen(topic)
	defer leave()
	if q.After != nil {
		q.Limit = noLimit
	}
	mark, err := l.newest(ctx)
	if err != nil {
		return stopped(ctx, err)
	}
	before, err := l.since(ctx, q, mark.Add(-settle))
	if err != nil {
		return stopped(ctx, err)
	}
	fresh, err := l.Read(ctx, q)
	if err != nil {
		return stopped(ctx, err)
	}
	// What was there and is not among the fresh was cut off by the query, not missed.
	seen := map[Position]struct{}{}
	for _, e := range before {
		seen[e.Position] = struct{}{}
	}
	for _, e := range fresh {
		delete(seen, e.Position)
	}
	tick := time.NewTicker(pollOthers)
	defer tick.Stop()
	for {
		given, err := giveNew(seen, fresh, fn)
		if err != nil {
			return err
		}
		if !given {
			select {
			case <-ctx.Done():
				return nil
			case <-news:
			case <-tick.C:
			}
		}
		for p := range seen {
			if p.Time.Before(mark.Add(-2 * settle)) {
				delete(seen, p)
			}
		}
		from := mark.Add(-settle)
		if mark, err = l.newest(ctx); err == nil {
			fresh, err = l.since(ctx, q, from)
		}
		if err != nil {
			return stopped(ctx, err)
		}
	}
}

const noLimit = 1 << 30

// since reads all that a query chooses from an instant on.
func (l *Log) since(ctx context.Context, q Query, from time.Time) ([]Entry, error) {
	if from.After(q.Since) {
		q.Since = from
	}
	q.Limit, q.After = noLimit, &Position{Time: from}
	return l.Read(ctx, q)
}

// giveNew gives the entries that were not given before and reports whether there were any.
func giveNew(seen map[Position]struct{}, entries []Entry, fn func(Entry) error) (given bool, err error) {
	for _, e := range entries {
		if _, dup := seen[e.Position]; dup {
			continue
		}
		seen[e.Position] = struct{}{}
		given = true
		if err := fn(e); err != nil {
			return given, err
		}
	}
	return given, nil
}

// stopped: a reader whose context ended has ended, not failed.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// newest is the time of the newest record, zero of an empty log.
func (l *Log) newest(ctx context.Context) (time.Time, error) {
	var us int64
	err := l.db.Read(ctx, func(tx *meta.Tx) error {
		return tx.Row(`SELECT COALESCE(MAX(time_us), 0) FROM audit`).Scan(&us)
	})
	return time.UnixMicro(us).UTC(), err
}
