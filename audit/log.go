// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/embargo-registry/embargo/meta"
)

const (
	// batchLimit is how many records one commit takes at the most.
	batchLimit = 512
	// waitLimit is how many records may wait in the queue; notes beyond it wait beside it.
	waitLimit = 1 << 14
)

// Options configure a Log.
type Options struct {
	DB *meta.DB
	// Node is the name under which this process numbers its records.
	Node string
	// Log gets what could not be recorded; nil discards.
	Log *slog.Logger
	// Count hears of each record once it is durable, for metrics; nil: nobody counts. It returns at once.
	Count func(r Record)
}

// Log is the record. It is safe for concurrent use.
type Log struct {
	db   *meta.DB
	node string
	log  *slog.Logger
	tell func(r Record)
	seq  atomic.Int64

	in   chan *entry
	done chan struct{}

	// senders are those on their way into the queue. They wait for room without the lock: the collector needs it, and a note must never hold up its
	// caller, who may be within a transaction that the collector waits for.
	senders sync.WaitGroup

	mu     sync.RWMutex
	closed bool
	failed error
	ending atomic.Bool // nothing is counted any more

	// flushes give what was counted (Often).
	often   sync.Mutex
	flushes []func() []Record
}

type entry struct {
	record *Record
	reply  chan error // nil: nobody waits
	// written hears whether it is durable; nil: nobody does.
	written func(error)
}

var errClosed = errors.New("audit: the log is closed")

// New opens the log and goes on with the node's numbers.
func New(ctx context.Context, o Options) (*Log, error) {
	if o.DB == nil || o.Node == "" {
		return nil, errors.New("audit: a log needs a database and a node's name")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Count == nil {
		o.Count = func(Record) {}
	}
	l := &Log{db: o.DB, node: o.Node, log: o.Log, tell: o.Count, in: make(chan *entry, waitLimit), done: make(chan struct{})}
	var last int64
	err := o.DB.Read(ctx, func(tx *meta.Tx) error {
		return tx.Row(`SELECT COALESCE(MAX(node_seq), 0) FROM audit WHERE node = $1`, o.Node).Scan(&last)
	})
	if err != nil {
		return nil, err
	}
	l.seq.Store(last)
	go l.collect()
	go l.count()
	return l, nil
}

// Append records r in the transaction of the change that it tells of.
func (l *Log) Append(tx *meta.Tx, r Record) error { return l.append(tx, []*Record{&r}) }

// rowsAtOnce is how many records one statement inserts.
const rowsAtOnce = 32

const insertOne = `INSERT INTO audit (node, node_seq, time_us, leaf) VALUES ($1, $2, $3, $4)`

var insertMany = func() string {
	var b strings.Builder
	b.WriteString(insertOne)
	for i := 1; i < rowsAtOnce; i++ {
		fmt.Fprintf(&b, ", ($%d, $%d, $%d, $%d)", 4*i+1, 4*i+2, 4*i+3, 4*i+4)
	}
	return b.String()
}()

func (l *Log) append(tx *meta.Tx, all []*Record) error {
	tx.OnCommit(func() {
		for _, r := range all {
			l.tell(*r)
		}
	})
	for all := all; len(all) > 0; {
		n, query := 1, insertOne
		if len(all) >= rowsAtOnce {
			n, query = rowsAtOnce, insertMany
		}
		args := make([]any, 0, 4*n)
		for _, r := range all[:n] {
			seq := l.seq.Add(1)
			bytes, err := canonical(l.node, seq, tx.Now(), r)
			if err != nil {
				return err
			}
			args = append(args, l.node, seq, meta.Micros(tx.Now()), bytes)
		}
		if _, err := tx.Exec(query, args...); err != nil {
			return err
		}
		all = all[n:]
	}
	tx.Ring(topic)
	return nil
}

// Decide records r and returns when it is durable. Callers that come together share one commit.
func (l *Log) Decide(ctx context.Context, r Record) error {
	e := &entry{record: &r, reply: make(chan error, 1)}
	if err := l.send(ctx, e); err != nil {
		return err
	}
	select {
	case err := <-e.reply:
		return err
	case <-ctx.Done():
		// Whether it was recorded is not known here, so nothing may follow from it.
		return ctx.Err()
	}
}

// Soon records r and returns when it waits in the queue of the next commit; written hears once whether it became durable. While the newest records could not be written it waits as
// Decide does, so that nothing follows from what can't be recorded. After an error written hears nothing.
func (l *Log) Soon(ctx context.Context, r Record, written func(error)) error {
	if l.Healthy() != nil {
		err := l.Decide(ctx, r)
		if err == nil {
			written(nil)
		}
		return err
	}
	return l.send(ctx, &entry{record: &r, written: written})
}

// send puts an entry into the queue, when there is room.
func (l *Log) send(ctx context.Context, e *entry) error {
	l.mu.RLock()
	if l.closed {
		l.mu.RUnlock()
		return errClosed
	}
	l.senders.Add(1)
	l.mu.RUnlock()
	defer l.senders.Done()
	select {
	case l.in <- e:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Note records r soon and does not wait for it; Close does. What can't be recorded shows in the log and in Healthy.
func (l *Log) Note(r Record) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		l.log.Error("a record came after the audit log was closed", "action", r.Action, "outcome", string(r.Outcome), "resource", r.Resource)
		return
	}
	e := &entry{record: &r}
	select {
	case l.in <- e:
	default:
		l.senders.Go(func() { l.in <- e })
	}
}

// Healthy is nil when the newest records could be written.
func (l *Log) Healthy() error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.failed
}

// Waiting is the number of records that wait to be written.
func (l *Log) Waiting() int { return len(l.in) }

// count records, from time to time, what was counted.
func (l *Log) count() {
	tick := time.NewTicker(oftenPause)
	defer tick.Stop()
	for {
		select {
		case <-l.done:
			return
		case <-tick.C:
			l.counted()
		}
	}
}

func (l *Log) counted() {
	l.often.Lock() // to the end: Close must not come between what is taken out of a count and its record
	defer l.often.Unlock()
	for _, flush := range l.flushes {
		for i, r := range flush() {
			if i%atOnce == atOnce-1 {
				l.letPass()
			}
			l.Note(r)
		}
	}
}

// atOnce is how many counted records are put into the queue at a time, so that a decision, for which a pull waits, has few of them before it.
const atOnce = 64

// letPass waits a moment, at the most, until the queue is short, unless the log is being closed.
func (l *Log) letPass() {
	for range 20 {
		if l.ending.Load() || len(l.in) < atOnce {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// Close records what waits and ends the log; the caller stops asking it before.
func (l *Log) Close() error {
	l.ending.Store(true)
	l.counted()
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	l.mu.Unlock()
	if first {
		l.senders.Wait()
		close(l.in)
	}
	<-l.done
	return l.Healthy()
}

// collect is the one writer of decisions and notes: it takes all that wait into one transaction.
func (l *Log) collect() {
	defer close(l.done)
	var batch []*entry
	var records []*Record
	for first := range l.in {
		clear(batch) // of what was written
		batch = append(batch[:0], first)
	more:
		for len(batch) < batchLimit {
			select {
			case e, ok := <-l.in:
				if !ok {
					break more
				}
				batch = append(batch, e)
			default:
				break more
			}
		}
		records = records[:0]
		for _, e := range batch {
			records = append(records, e.record)
		}
		err := l.db.Write(context.Background(), func(tx *meta.Tx) error {
			return l.append(tx, records)
		})
		l.answer(batch, err)
	}
}

func (l *Log) answer(batch []*entry, err error) {
	l.mu.Lock()
	l.failed = err
	l.mu.Unlock()
	if err != nil {
		l.log.Error("records could not be written to the audit", "count", len(batch), "err", err)
	}
	for _, e := range batch {
		if e.reply != nil {
			e.reply <- err
		}
		if e.written != nil {
			e.written(err)
		}
	}
}

// topic is what followers listen to.
const topic = "audit"

// pollOthers is how often a follower looks for records that another node wrote.
const pollOthers = 2 * time.Second
