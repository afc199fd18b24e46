// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// pageLimit is the most entries of a page; a client that wants more follows Link.
const pageLimit = 1000

// page reads n and last. n is pageLimit when it is absent or larger. Errors: PaginationInvalid.
func (x *exchange) page() (last string, n int, err error) {
	q := x.r.URL.Query()
	n = pageLimit
	if q.Has("n") {
		v, ok := number(q.Get("n"))
		if !ok {
			return "", 0, fault.New(fault.PaginationInvalid, "n must be a whole number of entries, not %q.", clip(q.Get("n")))
		}
		n = int(min(v, pageLimit))
	}
	if last = q.Get("last"); strings.IndexByte(last, 0) >= 0 || !utf8.ValidString(last) {
		return "", 0, fault.New(fault.PaginationInvalid, "last must be the last entry of a page, not %q.", clip(last))
	}
	return last, n, nil
}

// next links to the page behind list.
func (x *exchange) next(path string, list []string, n int, more bool) {
	if more && len(list) > 0 {
		x.link(path, url.Values{"last": {list[len(list)-1]}, "n": {strconv.Itoa(n)}})
	}
}

func (x *exchange) tags() error {
	last, n, err := x.page()
	if err != nil {
		return err
	}
	list, more, err := x.s.o.Registry.Tags(x.r.Context(), x.call, x.at.repository, last, n)
	if err != nil {
		return err
	}
	x.next("/v2/"+string(x.at.repository)+"/tags/list", list, n, more)
	return x.json(http.StatusOK, struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{string(x.at.repository), some(list)})
}

// catalog lists the repositories that the caller may read. The token's own scope is the catalog, so the question is put to the caller's
// rights without the token's narrowing.
func (x *exchange) catalog() error {
	last, n, err := x.page()
	if err != nil {
		return err
	}
	whole := x.call.Caller
	whole.Access, whole.Narrowed = nil, false
	list, more, err := x.s.o.Registry.Repositories(x.r.Context(), x.call, last, n, func(tx *meta.Tx, repo name.Repository) (bool, error) {
		for _, verb := range []string{"pull", "metadata_read"} {
			if ok, err := x.may(tx, whole, "repository", string(repo), verb); ok || err != nil {
				return ok, err
			}
		}
		return false, nil
	})
	if err != nil {
		return err
	}
	path := "/v2/_catalog"
	if x.at.kind == kindAcrCatalog {
		path = "/acr/v1/_catalog"
	}
	x.next(path, list, n, more)
	return x.json(http.StatusOK, struct {
		Repositories []string `json:"repositories"`
	}{some(list)})
}

// some makes an empty list of none: the protocol's lists are never null.
func some(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
