// SPDX-License-Identifier: Apache-2.0

// Package redact keeps secrets out of logs. Handler stands before every log handler of the program: what is a secret by its type, by the name it is logged
// under, or by its form, is replaced. It promises nothing about a secret that looks like any other text; such ones get the type Secret where they are made.
package redact

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// Gone stands where a secret was.
const Gone = "[redacted]"

// Secret is a text that prints itself nowhere. string(s) is the text.
type Secret string

// String is Gone.
func (Secret) String() string { return Gone }

// GoString is Gone.
func (Secret) GoString() string { return Gone }

// Format writes Gone whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, Gone) }

// LogValue is Gone.
func (Secret) LogValue() slog.Value { return slog.StringValue(Gone) }

// MarshalText is Gone, and so is what encoding/json makes of it.
func (Secret) MarshalText() ([]byte, error) { return []byte(Gone), nil }

// names are those under which only secrets are logged, without case, hyphens and underscores.
var names = map[string]bool{
	"authorization": true, "proxyauthorization": true, "wwwauthenticate": false, "cookie": true, "setcookie": true, "xmsauthorizationauxiliary": true,
	"password": true, "passwd": true, "pwd": true, "secret": true, "clientsecret": true, "token": true, "accesstoken": true, "refreshtoken": true, "idtoken": true,
	"apikey": true, "privatekey": true, "sas": true, "sig": true, "signature": true, "assertion": true, "clientassertion": true, "credential": true, "credentials": true,
}

func secretName(name string) bool {
	var plain [24]byte
	n := 0
	for i := range len(name) {
		c := name[i]
		switch {
		case c == '-' || c == '_':
			continue
		case n == len(plain):
			return false
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		}
		plain[n] = c
		n++
	}
	return names[string(plain[:n])]
}

// form is how secrets look in a text. The first group is what stays, and the second, if there is one, too.
type form struct {
	*regexp.Regexp
	// random: what looks like a word is none.
	random bool
}

var forms = []form{
	{regexp.MustCompile(`(?s)(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)`), false},
	{regexp.MustCompile(`()AGE-SECRET-KEY-1[0-9A-Za-z]+`), false},
	{regexp.MustCompile(`(?i)(\b(?:bearer|basic|negotiate)(?:\s+|%20|\+))[A-Za-z0-9+/=_.~%-]{4,}`), true},
	{regexp.MustCompile(`()\beyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*)*`), false},
	{regexp.MustCompile(`(://[^/\s:@"']*:)[^\s"'/]*(@)`), false},
	{regexp.MustCompile(`(?i)((?:\b|_|%3f|%26)(?:sig|signature|password|passwd|pwd|client_?secret|secret|(?:access_?|refresh_?|id_?|security-)?token|(?:client_)?assertion|api_?key|x-amz-signature|x-amz-credential)(?:["']?(?:=|%3d)|["']\s*:\s*["']?))[^&\s"',;}<>]+`), false},
	{regexp.MustCompile(`([?&](?:code|se|sp|spr|sv|sr|skoid|sktid|ske|sks)=)[^&\s"']+`), false},
}

// suspicious reports whether a text has anything that one of the forms needs; most texts of a log have nothing.
func suspicious(s string) bool {
	for i := range len(s) {
		switch s[i] {
		case '=':
			return true
		case '%':
			if strings.HasPrefix(s[i:], "%3") {
				return true
			}
		case ':':
			if rest := s[i+1:]; strings.HasPrefix(rest, "//") || strings.ContainsAny(rest, `"'`) {
				return true
			}
		case 'J':
			if strings.HasSuffix(s[:i], "ey") {
				return true
			}
		case 'Y':
			if strings.HasSuffix(s[:i], "AGE-SECRET-KE") {
				return true
			}
		case 'B':
			if strings.HasSuffix(s[:i], "-----") {
				return true
			}
		case ' ', '+', '\t': // after bearer, basic, negotiate
			if i > 0 && strings.IndexByte("rRcCeE", s[i-1]) >= 0 {
				return true
			}
		}
	}
	return false
}

// innocent: no secret is so short, and none lacks what its form needs.
func innocent(s string) bool { return len(s) < 6 || !suspicious(s) }

// Text is s without the secrets that are known by their form.
func Text(s string) string {
	if innocent(s) {
		return s
	}
	for _, f := range forms {
		keep := "${1}" + Gone
		if f.NumSubexp() == 2 {
			keep += "${2}"
		}
		if !f.random {
			s = f.ReplaceAllString(s, keep)
			continue
		}
		s = f.ReplaceAllStringFunc(s, func(found string) string {
			kept := f.FindStringSubmatch(found)[1]
			if !strings.ContainsAny(found[len(kept):], "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ=") {
				return found
			}
			return kept + Gone
		})
	}
	return s
}

// Handler hands records on to inner without their secrets.
func Handler(inner slog.Handler) slog.Handler { return handler{inner} }

type handler struct{ inner slog.Handler }

func (h handler) Enabled(ctx context.Context, l slog.Level) bool { return h.inner.Enabled(ctx, l) }

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	pure := innocent(r.Message)
	r.Attrs(func(a slog.Attr) bool {
		pure = pure && plain(a)
		return pure
	})
	if pure { // as most are
		return h.inner.Handle(ctx, r)
	}
	clean := slog.NewRecord(r.Time, r.Level, Text(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		clean.AddAttrs(attr(a))
		return true
	})
	return h.inner.Handle(ctx, clean)
}

func (h handler) WithAttrs(as []slog.Attr) slog.Handler {
	clean := make([]slog.Attr, len(as))
	for i, a := range as {
		clean[i] = attr(a)
	}
	return handler{h.inner.WithAttrs(clean)}
}

func (h handler) WithGroup(name string) slog.Handler { return handler{h.inner.WithGroup(name)} }

// plain reports whether attr would leave a as it is, where that is quickly known.
func plain(a slog.Attr) bool {
	if secretName(a.Key) {
		return false
	}
	switch a.Value.Kind() {
	case slog.KindString:
		return innocent(a.Value.String())
	case slog.KindBool, slog.KindInt64, slog.KindUint64, slog.KindFloat64, slog.KindDuration, slog.KindTime:
		return true
	}
	return false
}

func attr(a slog.Attr) slog.Attr {
	if secretName(a.Key) {
		return slog.String(a.Key, Gone)
	}
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindString:
		return slog.String(a.Key, Text(v.String()))
	case slog.KindGroup:
		members := v.Group()
		clean := make([]slog.Attr, len(members))
		for i, m := range members {
			clean[i] = attr(m)
		}
		return slog.Attr{Key: a.Key, Value: slog.GroupValue(clean...)}
	case slog.KindAny:
		return slog.Any(a.Key, value(v.Any()))
	}
	return a
}

// value cleans what slog has no kind for. What holds nothing to clean stays as it is, so that JSON shows its shape.
func value(v any) any {
	switch v := v.(type) {
	case nil:
		return nil
	case error:
		return Text(v.Error())
	case http.Header:
		return header(v)
	case *http.Request:
		if v == nil {
			return nil
		}
		return Text(v.Method + " " + v.URL.String())
	case *url.URL:
		return Text(v.String())
	case url.URL:
		return Text(v.String())
	case url.Values:
		return header(v)
	case []byte:
		return Text(string(v))
	case []string:
		out := make([]string, len(v))
		for i := range v {
			out[i] = Text(v[i])
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = value(v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, m := range v {
			if out[k] = value(m); secretName(k) {
				out[k] = Gone
			}
		}
		return out
	case string:
		return Text(v)
	}
	// A struct, or a map of another kind: shown as text when its text holds a secret by its form.
	plain := fmt.Sprintf("%+v", v)
	if clean := Text(plain); clean != plain {
		return clean
	}
	return v
}

// header cleans what has several values under a name.
func header(h map[string][]string) map[string]any {
	out := make(map[string]any, len(h))
	for name, values := range h {
		if out[name] = value(values); secretName(name) {
			out[name] = Gone
		}
	}
	return out
}
