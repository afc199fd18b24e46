// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/name"
)

// The shapes of what was deleted. Source: ACR, /acr/v1/_deleted as the Azure CLI reads it.
type (
	deletedManifestBody struct {
		Digest       name.Digest `json:"digest"`
		MediaType    string      `json:"mediaType"`
		ImageSize    int64       `json:"imageSize"`
		Architecture string      `json:"architecture,omitempty"`
		OS           string      `json:"os,omitempty"`
		Created      time.Time   `json:"createdTime"`
		Deleted      time.Time   `json:"deletedAt"`
	}
	deletedTagBody struct {
		Tag     name.Tag    `json:"tag"`
		Digest  name.Digest `json:"digest"`
		Deleted time.Time   `json:"deletedAt"`
	}
)

func (x *exchange) deletedCatalog() error {
	last, n, err := x.page()
	if err != nil {
		return err
	}
	list, more, err := x.s.o.Registry.DeletedRepositories(x.r.Context(), x.call, last, n)
	if err != nil {
		return err
	}
	x.next("/acr/v1/_deleted/_catalog", list, n, more)
	return x.json(http.StatusOK, struct {
		Repositories []string `json:"repositories"`
	}{some(list)})
}

func (x *exchange) deletedManifests() error {
	p, err := x.acrPage()
	if err != nil {
		return err
	}
	list, more, err := x.s.o.Registry.DeletedManifests(x.r.Context(), x.call, x.at.repository, p)
	if err != nil {
		return err
	}
	bodies := make([]deletedManifestBody, len(list))
	for i, m := range list {
		bodies[i] = deletedManifestBody{m.Digest, m.MediaType, max(m.ImageSize, m.Size), m.Architecture, m.OS, m.Created, m.Deleted}
	}
	if more && len(list) > 0 {
		x.acrNextOf("/acr/v1/_deleted/"+string(x.at.repository)+"/_manifests", string(list[len(list)-1].Digest), p)
	}
	return x.json(http.StatusOK, struct {
		Registry  string                `json:"registry"`
		ImageName string                `json:"imageName"`
		Manifests []deletedManifestBody `json:"manifests"`
	}{x.call.Registry.LoginServer, string(x.at.repository), bodies})
}

func (x *exchange) deletedTags() error {
	p, err := x.acrPage()
	if err != nil {
		return err
	}
	list, more, err := x.s.o.Registry.DeletedTags(x.r.Context(), x.call, x.at.repository, p)
	if err != nil {
		return err
	}
	bodies := make([]deletedTagBody, len(list))
	for i, t := range list {
		bodies[i] = deletedTagBody{t.Name, t.Digest, t.Deleted}
	}
	if more && len(list) > 0 {
		last := list[len(list)-1]
		x.acrNextOf("/acr/v1/_deleted/"+string(x.at.repository)+"/_tags", string(last.Name)+"@"+string(last.Digest), p)
	}
	return x.json(http.StatusOK, struct {
		Registry  string           `json:"registry"`
		ImageName string           `json:"imageName"`
		Tags      []deletedTagBody `json:"tags"`
	}{x.call.Registry.LoginServer, string(x.at.repository), bodies})
}

// restore brings a deleted manifest back, under the tag of the body if it names one.
func (x *exchange) restore() error {
	content, err := io.ReadAll(io.LimitReader(x.r.Body, formLimit+1))
	if err != nil {
		return fault.Or(err, fault.New(fault.BadRequest, "The body broke off."))
	}
	var b struct {
		Tag string `json:"tag"`
	}
	if len(content) > formLimit || len(content) > 0 && json.Unmarshal(content, &b) != nil {
		return fault.New(fault.BadRequest, "The body must be a JSON object that may have a tag.")
	}
	to := name.Reference{Repository: x.at.repository, Digest: x.at.digest}
	if b.Tag != "" {
		if to.Tag, err = name.ParseTag(b.Tag); err != nil {
			return err
		}
	}
	if err := x.s.o.Registry.Restore(x.r.Context(), x.call, to, strings.EqualFold(x.r.URL.Query().Get("force"), "true")); err != nil {
		return err
	}
	return x.showManifest()
}
