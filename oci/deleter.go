// SPDX-License-Identifier: Apache-2.0

package oci

import "net/http"

// deleteManifest deletes a manifest by digest, or a tag alone.
func (x *exchange) deleteManifest() error {
	var err error
	if x.at.digest != "" {
		err = x.s.o.Registry.DeleteManifest(x.r.Context(), x.call, x.at.repository, x.at.digest)
	} else {
		err = x.s.o.Registry.DeleteTag(x.r.Context(), x.call, x.at.repository, x.at.tag)
	}
	if err != nil {
		return err
	}
	return x.empty(http.StatusAccepted)
}

func (x *exchange) deleteBlob() error {
	if err := x.s.o.Registry.DeleteBlob(x.r.Context(), x.call, x.at.repository, x.at.digest); err != nil {
		return err
	}
	return x.empty(http.StatusAccepted)
}
