// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"errors"
	"net"
	"strings"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// MostRules is how many cache rules a registry may have. Source: ACR, "Artifact cache", limitations.
const MostRules = 1000

// Pattern is one side of a cache rule: a repository, or all below a prefix.
type Pattern struct {
	// Prefix is the repository, or of a wildcard what stands before the star: "library/", or "" for all.
	Prefix string
	Wild   bool
}

// covers tells whether a repository is meant, and what the star stands for.
func (p Pattern) covers(repo string) (star string, ok bool) {
	if !p.Wild {
		return "", repo == p.Prefix
	}
	star, ok = strings.CutPrefix(repo, p.Prefix)
	return star, ok && star != ""
}

// Overlaps tells whether two targets exclude each other: the same repository, or wildcards of which one lies in the other. A single repository may lie in a wildcard and
// goes before it.
func (p Pattern) Overlaps(q Pattern) bool {
	if p.Wild != q.Wild {
		return false
	}
	if !p.Wild {
		return p.Prefix == q.Prefix
	}
	return strings.HasPrefix(p.Prefix, q.Prefix) || strings.HasPrefix(q.Prefix, p.Prefix)
}

func parsePattern(text string) (Pattern, bool) {
	if text == "*" {
		return Pattern{Wild: true}, true
	}
	repo, wild := strings.CutSuffix(text, "/*")
	parsed, err := name.ParseRepository(repo)
	if err != nil || string(parsed) != repo {
		return Pattern{}, false
	}
	if wild {
		return Pattern{repo + "/", true}, true
	}
	return Pattern{Prefix: repo}, true
}

// ParseSource reads a rule's source: docker.io/library/nginx, docker.io/library/*, or host/*. Errors: InvalidParameter.
func ParseSource(text string) (host string, p Pattern, err error) {
	host, rest, _ := strings.Cut(text, "/")
	p, ok := parsePattern(rest)
	if !ok || !hostLike(host) {
		return "", Pattern{}, fault.New(fault.InvalidParameter, "The sourceRepository %.200q is not a login server and a repository, such as docker.io/library/nginx, docker.io/library/* or mcr.example/*.", text).
			At("properties.sourceRepository")
	}
	if host == dockerHub && !strings.Contains(strings.TrimSuffix(p.Prefix, "/"), "/") && !p.Wild {
		return "", Pattern{}, fault.New(fault.InvalidParameter, "The sourceRepository %s does not exist at docker.io, whose own images lie in library: it is docker.io/library/%s.", text, p.Prefix).
			At("properties.sourceRepository")
	}
	return host, p, nil
}

// hostLike: a host name with a dot, or localhost, or an address; with or without a port; in lower case.
func hostLike(host string) bool {
	bare := host
	if h, port, err := net.SplitHostPort(host); err == nil {
		if port == "" || strings.Trim(port, "0123456789") != "" {
			return false
		}
		bare = h
	}
	known := strings.Contains(bare, ".") || bare == "localhost" || strings.Contains(bare, ":")
	return known && strings.Trim(bare, "abcdefghijklmnopqrstuvwxyz0123456789.-:") == "" && !strings.HasPrefix(bare, ".")
}

// ParseTarget reads a rule's target: nginx, library/* or *. Errors: InvalidParameter.
func ParseTarget(text string) (Pattern, error) {
	p, ok := parsePattern(text)
	if !ok {
		return p, fault.New(fault.InvalidParameter, "The targetRepository %.200q is not a repository, such as nginx, library/* or *.", text).At("properties.targetRepository")
	}
	return p, nil
}

// Rule says where a repository's content comes from when the registry has none.
type Rule struct {
	// ID is its identity, Registry that of its registry, Resource its ARM id.
	ID, Registry, Resource string
	// Source and Target are as given.
	Source, Target string
	// Credentials is the ARM id of its credential set in lower case, "" for none.
	Credentials string
}

const ruleColumns = `id, registry, resource_id, source, target, credential_set`

func scanRule(scan func(...any) error) (r Rule, err error) {
	err = scan(&r.ID, &r.Registry, &r.Resource, &r.Source, &r.Target, &r.Credentials)
	return r, err
}

// FindRule reads a rule by its ARM id, in any casing. Errors: meta.ErrNotFound.
func FindRule(tx *meta.Tx, resource string) (Rule, error) {
	return scanRule(tx.Row(`SELECT `+ruleColumns+` FROM cache_rules WHERE resource_key = $1`, strings.ToLower(resource)).Scan)
}

// PutRule writes a rule. Its identity is r.ID, made by the caller.
func PutRule(tx *meta.Tx, r Rule) error {
	_, err := tx.Exec(`INSERT INTO cache_rules (`+ruleColumns+`, resource_key) VALUES ($1, $2, $3, $4, $5, $6, $7)
 ON CONFLICT (id) DO UPDATE SET source = excluded.source, target = excluded.target, credential_set = excluded.credential_set`,
		r.ID, r.Registry, r.Resource, r.Source, r.Target, strings.ToLower(r.Credentials), strings.ToLower(r.Resource))
	return err
}

// RemoveRule takes a rule away. What came by it stays.
func RemoveRule(tx *meta.Tx, resource string) error {
	_, err := tx.Exec(`DELETE FROM cache_rules WHERE resource_key = $1`, strings.ToLower(resource))
	return err
}

// Origin is where a repository's content comes from by a rule.
type Origin struct {
	Rule
	// Host is the upstream, Repository its name there.
	Host       string
	Repository name.Repository
}

// OriginOf finds the rule for a repository: one for it alone goes before a wildcard. Errors: meta.ErrNotFound.
func OriginOf(tx *meta.Tx, registry string, repo name.Repository) (Origin, error) {
	rows, err := tx.Query(`SELECT `+ruleColumns+` FROM cache_rules WHERE registry = $1`, registry)
	if err != nil {
		return Origin{}, err
	}
	var found Origin
	for rows.Next() {
		r, err := scanRule(rows.Scan)
		if err != nil {
			return Origin{}, errors.Join(err, rows.Close())
		}
		if o, wild, ok := r.origin(repo); ok && (found.Host == "" || !wild) {
			found = o
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return Origin{}, err
	}
	if found.Host == "" {
		return found, meta.ErrNotFound
	}
	return found, nil
}

func (r Rule) origin(repo name.Repository) (o Origin, wild, ok bool) {
	target, _ := parsePattern(r.Target) // both sides were read when the rule was made
	host, source, err := ParseSource(r.Source)
	star, ok := target.covers(string(repo))
	if err != nil || !ok {
		return Origin{}, false, false
	}
	at, err := name.ParseRepository(source.Prefix + star)
	return Origin{r, host, at}, target.Wild, err == nil
}
