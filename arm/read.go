// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/embargo-registry/embargo/fault"
)

// Limits of a request's body.
const (
	maxBody  = 4 << 20
	maxDepth = 64
)

// ParseJSON reads one JSON value strictly: into map[string]any, []any, string, json.Number, bool and nil. A byte order mark is
// passed over. It refuses with InvalidRequestContent, and the JSON path: duplicate members, bytes that are not UTF-8, nesting
// deeper than 64, anything after the value, more than 4 MiB.
func ParseJSON(data []byte) (any, error) {
	if len(data) > maxBody {
		return nil, tooLong()
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if !utf8.Valid(data) {
		return nil, invalidContent("", "it is not UTF-8, from byte %d on", firstInvalid(data))
	}
	r := &reader{dec: json.NewDecoder(bytes.NewReader(data))}
	r.dec.UseNumber()
	v, err := r.value("", 0)
	if err != nil {
		return nil, err
	}
	if _, err := r.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, invalidContent("", "something follows the JSON value at byte %d", r.dec.InputOffset())
	}
	return v, nil
}

func tooLong() *fault.Fault {
	return invalidContent("", "it is longer than 4 MiB (%d bytes), the most that is read", maxBody)
}

func firstInvalid(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(data)
}

func invalidContent(path, format string, args ...any) *fault.Fault {
	f := fault.New(fault.InvalidRequestContent, "The request content was invalid and could not be deserialized: %s.", fmt.Sprintf(format, args...))
	if path != "" {
		f.Message += " Path '" + path + "'."
		f.Target = path
	}
	return f
}

// reader walks the tokens of encoding/json, which checks the syntax; what it lets pass is refused here.
type reader struct{ dec *json.Decoder }

func (r *reader) token(path string) (json.Token, error) {
	tok, err := r.dec.Token()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, invalidContent(path, "it ends before the JSON value does")
	case err != nil:
		return nil, invalidContent(path, "it is not JSON near byte %d", r.dec.InputOffset()).Because(err)
	}
	return tok, nil
}

func (r *reader) value(path string, depth int) (any, error) {
	tok, err := r.token(path)
	if err != nil {
		return nil, err
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return tok, nil
	}
	if depth >= maxDepth {
		return nil, invalidContent(clip(path), "it is nested deeper than %d", maxDepth)
	}
	if delim == '[' {
		return r.array(path, depth)
	}
	return r.object(path, depth)
}

func (r *reader) array(path string, depth int) (any, error) {
	list := []any{}
	for r.dec.More() {
		v, err := r.value(fmt.Sprintf("%s[%d]", path, len(list)), depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	_, err := r.token(path)
	return list, err
}

func (r *reader) object(path string, depth int) (any, error) {
	object := map[string]any{}
	for r.dec.More() {
		tok, err := r.token(path)
		if err != nil {
			return nil, err
		}
		key, ok := tok.(string)
		if !ok {
			return nil, invalidContent(path, "a member's name is not a string")
		}
		at := join(path, key)
		if _, twice := object[key]; twice {
			return nil, invalidContent(clip(at), "a member is given twice")
		}
		if object[key], err = r.value(at, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := r.token(path)
	return object, err
}

// join appends a member's name to a JSON path.
func join(path, member string) string {
	if path == "" {
		return member
	}
	return path + "." + member
}

// clip shortens text that came from outside for a message.
func clip(s string) string {
	if len(s) > 200 {
		return strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}
