// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// pair is one attribute of a distinguished name as text.
type pair struct{ word, text string }

// split reads a distinguished name of single-valued parts in the text form of RFC 4514.
func split(subject string) ([]pair, error) {
	var parts []pair
	for rest := subject; ; {
		word, after, ok := strings.Cut(rest, "=")
		if !ok {
			return nil, fmt.Errorf("%.60q is no attribute: it must be TYPE=value", strings.TrimSpace(rest))
		}
		text, more, err := value(after)
		if err != nil {
			return nil, err
		}
		parts = append(parts, pair{strings.TrimSpace(word), text})
		if more == "" {
			return parts, nil
		}
		rest = more[1:]
	}
}

// value reads a value up to a comma that is not escaped, and gives what follows, the comma included.
func value(s string) (text, rest string, err error) {
	s = strings.TrimLeft(s, " ")
	if strings.HasPrefix(s, "#") {
		return "", "", errors.New("a value in hexadecimal form (#…) is not taken")
	}
	var b strings.Builder
	kept := 0 // how much of b must not be trimmed: escaped spaces are the value's own
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case ',':
			return b.String()[:max(kept, len(strings.TrimRight(b.String(), " ")))], s[i:], nil
		case '+', '"', ';', '<', '>', 0:
			return "", "", fmt.Errorf("the character %q must be escaped with a backslash; a part with two attributes (A=…+B=…) is not taken", c)
		case '\\':
			char, n, err := escaped(s[i+1:])
			if err != nil {
				return "", "", err
			}
			b.WriteByte(char)
			i += n
			kept = b.Len()
		default:
			b.WriteByte(c)
		}
	}
	return b.String()[:max(kept, len(strings.TrimRight(b.String(), " ")))], "", nil
}

// escaped reads what follows a backslash: a special character, or two hexadecimal digits.
func escaped(s string) (byte, int, error) {
	if s != "" && strings.IndexByte(` "#+,;<=>\`, s[0]) >= 0 {
		return s[0], 1, nil
	}
	if len(s) >= 2 {
		if b, err := hex.DecodeString(s[:2]); err == nil {
			return b[0], 2, nil
		}
	}
	return 0, 0, errors.New("a backslash must stand before a special character or two hexadecimal digits")
}
