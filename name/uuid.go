// SPDX-License-Identifier: Apache-2.0

package name

import "encoding/hex"

// UUID is the text of a UUID of version 4 with these random bits. Source: RFC 9562, section 5.4. It is made for every request.
func UUID(random [16]byte) string {
	b := random
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	text := make([]byte, 0, 36)
	for _, part := range [][]byte{b[:4], b[4:6], b[6:8], b[8:10], b[10:]} {
		if len(text) > 0 {
			text = append(text, '-')
		}
		text = hex.AppendEncode(text, part)
	}
	return string(text)
}
