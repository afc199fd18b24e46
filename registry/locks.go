// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"strings"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/oci"
)

// locks are what is forbidden of a repository, a tag or a manifest, as the database keeps it.
type locks int64

const (
	noDelete locks = 1 << iota
	noWrite
	noList
	noRead
)

// locksOf and attributes turn one form into the other.
func locksOf(a oci.Attributes) (l locks) {
	for _, v := range []struct {
		may bool
		not locks
	}{{a.Delete, noDelete}, {a.Write, noWrite}, {a.List, noList}, {a.Read, noRead}} {
		if !v.may {
			l |= v.not
		}
	}
	return l
}

func (l locks) attributes() oci.Attributes {
	return oci.Attributes{Delete: l&noDelete == 0, Write: l&noWrite == 0, List: l&noList == 0, Read: l&noRead == 0}
}

// forbids refuses what a lock of something forbids; what names it for people.
func (l locks) forbids(not locks, what string) error {
	hit := l & not
	if hit == 0 {
		return nil
	}
	var names []string
	for _, v := range []struct {
		bit  locks
		name string
	}{{noDelete, "deleteEnabled"}, {noWrite, "writeEnabled"}, {noList, "listEnabled"}, {noRead, "readEnabled"}} {
		if hit&v.bit != 0 {
			names = append(names, v.name)
		}
	}
	return fault.New(fault.Unsupported, "The operation is disallowed on this registry, repository or image: %s of %s is false. "+
		"Who may write metadata can set it to true (az acr repository update).", strings.Join(names, " and "), what).
		Carrying(map[string]string{"locked": what})
}

// noChange is what keeps a thing from being deleted: what may not be written may not be deleted either.
const noChange = noDelete | noWrite

func repositoryCalled(repo name.Repository) string { return "the repository '" + string(repo) + "'" }
func tagCalled(repo name.Repository, t name.Tag) string {
	return "the tag '" + string(repo) + ":" + string(t) + "'"
}
func manifestCalled(repo name.Repository, d name.Digest) string {
	return "the manifest '" + string(repo) + "@" + string(d) + "'"
}
