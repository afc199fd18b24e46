// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// version is a well-formed api-version: a date, in the GA or the preview lane.
type version struct {
	date    string // 2021-06-01
	preview bool
}

func (v version) String() string {
	if v.preview {
		return v.date + "-preview"
	}
	return v.date
}

// parseVersion reads an api-version. The suffix may be in any case, as ARM takes it.
func parseVersion(s string) (version, bool) {
	v := version{date: s}
	if len(s) == len("2006-01-02-preview") && strings.EqualFold(s[10:], "-preview") {
		v = version{date: s[:10], preview: true}
	}
	if len(v.date) != 10 {
		return version{}, false
	}
	if _, err := time.Parse(time.DateOnly, v.date); err != nil {
		return version{}, false
	}
	return v, true
}

// shape is what a request's api-version can express: the declared version it is served as, or everything.
type shape struct {
	version
	all bool
}

// wholeShape expresses every member, in any lane: storage, hooks and namespaces of one shape use it.
var wholeShape = shape{all: true}

// ranges are the api-versions that can express something; none means all that the parent has.
type ranges []versionRange

type versionRange struct {
	preview  bool
	from, to string // dates, "" is open
}

// parseRanges reads the grammar of the `api` tag: ranges "A..B" joined by semicolons.
func parseRanges(s string) (ranges, error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	var rs ranges
	for part := range strings.SplitSeq(s, ";") {
		from, to, ok := strings.Cut(strings.TrimSpace(part), "..")
		if !ok {
			return nil, fmt.Errorf("api range %q: it must be A..B, A.. or ..B", part)
		}
		var r versionRange
		first := true
		for i, bound := range []string{strings.TrimSpace(from), strings.TrimSpace(to)} {
			if bound == "" {
				continue
			}
			v, ok := parseVersion(bound)
			if !ok {
				return nil, fmt.Errorf("api range %q: %q is no api-version", part, bound)
			}
			if !first && v.preview != r.preview {
				return nil, fmt.Errorf("api range %q: both bounds must be in one lane", part)
			}
			first = false
			r.preview = v.preview
			if i == 0 {
				r.from = v.date
			} else {
				r.to = v.date
			}
		}
		if first {
			return nil, fmt.Errorf("api range %q has no bound", part)
		}
		rs = append(rs, r)
	}
	return rs, nil
}

// hold reports whether the shape lies in the ranges.
func (rs ranges) hold(s shape) bool {
	if s.all || len(rs) == 0 {
		return true
	}
	return slices.ContainsFunc(rs, func(r versionRange) bool {
		return r.preview == s.preview && (r.from == "" || s.date >= r.from) && (r.to == "" || s.date <= r.to)
	})
}

// since reports whether a version of a namespace of one shape is not older than the first of the ranges, whatever its lane.
func (rs ranges) since(v version) bool {
	return len(rs) == 0 || slices.ContainsFunc(rs, func(r versionRange) bool { return v.date >= r.from })
}

func (rs ranges) String() string {
	var parts []string
	for _, r := range rs {
		suffix := ""
		if r.preview {
			suffix = "-preview"
		}
		from, to := r.from, r.to
		if from != "" {
			from += suffix
		}
		if to != "" {
			to += suffix
		}
		parts = append(parts, from+".."+to)
	}
	return strings.Join(parts, "; ")
}

// served are a namespace's versions, compiled.
type served struct {
	known []version // ascending by date, GA before preview of one day
	newer bool
	since string // date; "" when the known versions have their own shapes
}

func compileVersions(v Versions) (served, error) {
	var s served
	for _, text := range v.List {
		known, ok := parseVersion(text)
		if !ok {
			return s, fmt.Errorf("%q is no api-version", text)
		}
		s.known = append(s.known, known)
	}
	slices.SortFunc(s.known, func(a, b version) int { return strings.Compare(a.String(), b.String()) })
	s.newer = v.Newer
	if v.Since != "" {
		first, ok := parseVersion(v.Since)
		if !ok {
			return s, fmt.Errorf("%q is no api-version", v.Since)
		}
		s.since = first.date
		if len(s.known) == 0 {
			s.known = []version{first}
		}
	}
	if len(s.known) == 0 {
		return s, fmt.Errorf("no api-versions: List or Since must be set")
	}
	return s, nil
}

// resolve gives the shape in which v is served. A version newer than all known ones has the newest shape; one that is newer
// than its lane only has the newest shape of its lane.
func (s served) resolve(v version) (shape, bool) {
	if s.since != "" {
		return wholeShape, v.date >= s.since
	}
	if slices.Contains(s.known, v) {
		return shape{version: v}, true
	}
	if !s.newer {
		return shape{}, false
	}
	if last := s.known[len(s.known)-1]; v.date > last.date {
		return shape{version: last}, true
	}
	var newest version
	for _, k := range s.known {
		if k.preview == v.preview {
			newest = k
		}
	}
	if newest.date != "" && v.date > newest.date {
		return shape{version: newest}, true
	}
	return shape{}, false
}

// within are the known versions that the ranges hold, newest first.
func (s served) within(rs ranges) []string {
	var out []string
	for _, k := range slices.Backward(s.known) {
		if s.since != "" || rs.hold(shape{version: k}) {
			out = append(out, k.String())
		}
	}
	return out
}
