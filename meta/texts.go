// SPDX-License-Identifier: Apache-2.0

package meta

import (
	"strings"
	"unicode/utf8"

	"github.com/embargo-registry/embargo/fault"
)

// keepable refuses what PostgreSQL keeps as no text: what has a NUL or is not in UTF-8. SQLite would take it, but both are to answer alike, and a copy of one is to be restorable into the other.
// Nothing here has such a name, so what asks for one is refused as well. Errors: BadRequest.
func keepable(args []any) error {
	for _, a := range args {
		if s, ok := a.(string); ok && (strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s)) {
			return fault.New(fault.BadRequest, "A text of the request holds a NUL character or is not in UTF-8. Nothing here has such a name and none can be stored: send it without.")
		}
	}
	return nil
}
