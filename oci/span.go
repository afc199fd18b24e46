// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"strconv"
	"strings"
)

// span is n bytes from off.
type span struct{ off, n int64 }

// outcome of reading a Range header.
type rangeKind int

const (
	rangeWhole rangeKind = iota // no range, or one that is ignored: the whole content is the answer
	rangePart
	rangeUnsatisfiable
)

// parseRange reads a Range header for content of size bytes. It is pure. One range of bytes, open or suffix ranges included, is honoured.
// Several ranges, another unit and bad syntax are ignored, as RFC 9110 allows: the whole content is the answer.
// Source: RFC 9110, sections 14.1.2 and 14.2.
func parseRange(header string, size int64) (span, rangeKind) {
	whole := span{0, size}
	unit, set, ok := strings.Cut(header, "=")
	if !ok || !strings.EqualFold(strings.TrimSpace(unit), "bytes") || strings.Contains(set, ",") {
		return whole, rangeWhole
	}
	from, to, ok := strings.Cut(strings.Trim(set, " \t"), "-")
	if !ok {
		return whole, rangeWhole
	}
	if from == "" {
		n, ok := number(to)
		switch {
		case !ok:
			return whole, rangeWhole
		case n == 0 || size == 0:
			return span{}, rangeUnsatisfiable
		}
		n = min(n, size)
		return span{size - n, n}, rangePart
	}
	first, ok := number(from)
	if !ok {
		return whole, rangeWhole
	}
	end := size - 1
	if to != "" {
		last, ok := number(to)
		if !ok || last < first {
			return whole, rangeWhole
		}
		end = min(end, last)
	}
	if first >= size {
		return span{}, rangeUnsatisfiable
	}
	return span{first, end - first + 1}, rangePart
}

// parseContentRange reads the Content-Range of a chunk: "<first>-<last>" as the distribution protocol writes it, or RFC 9110's
// "bytes <first>-<last>/<size or *>". It is pure.
// Source: OCI distribution 1.1, section "Pushing a blob in chunks".
func parseContentRange(header string) (span, bool) {
	s := strings.TrimSpace(header)
	if len(s) > 5 && strings.EqualFold(s[:5], "bytes") && (s[5] == ' ' || s[5] == '=') {
		s = strings.TrimSpace(s[6:])
	}
	if body, size, ok := strings.Cut(s, "/"); ok {
		if _, good := number(size); !good && size != "*" {
			return span{}, false
		}
		s = body
	}
	from, to, ok := strings.Cut(s, "-")
	if !ok {
		return span{}, false
	}
	first, ok1 := number(from)
	last, ok2 := number(to)
	if !ok1 || !ok2 || last < first || last-first+1 <= 0 {
		return span{}, false
	}
	return span{first, last - first + 1}, true
}

// number reads digits alone: no sign, no space.
func number(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}
