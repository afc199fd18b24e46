// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// The shapes of ACR's own interface. Source: ACR data plane, api-version 2021-07-01.
type (
	attributesBody struct {
		Delete            bool   `json:"deleteEnabled"`
		Write             bool   `json:"writeEnabled"`
		Read              bool   `json:"readEnabled"`
		List              bool   `json:"listEnabled"`
		Quarantine        string `json:"quarantineState,omitempty"`
		QuarantineDetails string `json:"quarantineDetails,omitempty"`
	}
	repositoryBody struct {
		Registry   string         `json:"registry"`
		ImageName  string         `json:"imageName"`
		Created    time.Time      `json:"createdTime"`
		Updated    time.Time      `json:"lastUpdateTime"`
		Manifests  int64          `json:"manifestCount"`
		Tags       int64          `json:"tagCount"`
		Attributes attributesBody `json:"changeableAttributes"`
	}
	tagBody struct {
		Name       name.Tag       `json:"name"`
		Digest     name.Digest    `json:"digest"`
		Created    time.Time      `json:"createdTime"`
		Updated    time.Time      `json:"lastUpdateTime"`
		Signed     bool           `json:"signed"`
		Attributes attributesBody `json:"changeableAttributes"`
	}
	manifestBody struct {
		Digest          name.Digest     `json:"digest"`
		ImageSize       int64           `json:"imageSize"`
		Created         time.Time       `json:"createdTime"`
		Updated         time.Time       `json:"lastUpdateTime"`
		Architecture    string          `json:"architecture,omitempty"`
		OS              string          `json:"os,omitempty"`
		MediaType       string          `json:"mediaType"`
		ConfigMediaType string          `json:"configMediaType,omitempty"`
		ArtifactType    string          `json:"artifactType,omitempty"`
		Tags            []name.Tag      `json:"tags,omitempty"`
		References      []referenceBody `json:"references,omitempty"`
		Attributes      attributesBody  `json:"changeableAttributes"`
	}
	referenceBody struct {
		Digest       name.Digest `json:"digest"`
		Architecture string      `json:"architecture"`
		OS           string      `json:"os"`
	}
	// itemBody is what stands around one thing of a repository, or a list of them.
	itemBody struct {
		Registry  string          `json:"registry"`
		ImageName string          `json:"imageName"`
		Tag       *tagBody        `json:"tag,omitempty"`
		Tags      *[]tagBody      `json:"tags,omitempty"`
		Manifest  *manifestBody   `json:"manifest,omitempty"`
		Manifests *[]manifestBody `json:"manifests,omitempty"`
	}
)

func (a Attributes) body() attributesBody {
	return attributesBody{Delete: a.Delete, Write: a.Write, Read: a.Read, List: a.List}
}

func (t Tag) body() tagBody {
	return tagBody{t.Name, t.Digest, t.Created, t.Updated, false, t.Attributes.body()}
}

func (m Manifest) body() manifestBody {
	b := manifestBody{m.Digest, m.ImageSize, m.Created, m.Updated, m.Architecture, m.OS, m.MediaType, m.ConfigMediaType, m.ArtifactType, m.Tags, nil, m.Attributes.body()}
	b.Attributes.Quarantine, b.Attributes.QuarantineDetails = m.Quarantine, m.QuarantineDetails
	for _, r := range m.References {
		b.References = append(b.References, referenceBody(r))
	}
	return b
}

func (x *exchange) item() itemBody {
	return itemBody{Registry: x.call.Registry.LoginServer, ImageName: string(x.at.repository)}
}

func (x *exchange) showRepository() error {
	r, err := x.s.o.Registry.DescribeRepository(x.r.Context(), x.call, x.at.repository)
	if err != nil {
		return err
	}
	return x.json(http.StatusOK, repositoryBody{x.call.Registry.LoginServer, string(x.at.repository), r.Created, r.Updated, r.Manifests, r.Tags, r.Attributes.body()})
}

func (x *exchange) showTag() error {
	t, err := x.s.o.Registry.DescribeTag(x.r.Context(), x.call, x.at.repository, x.at.tag)
	if err != nil {
		return err
	}
	all, b := x.item(), t.body()
	all.Tag = &b
	return x.json(http.StatusOK, all)
}

func (x *exchange) showManifest() error {
	m, err := x.s.o.Registry.DescribeManifest(x.r.Context(), x.call, x.at.repository, x.at.digest)
	if err != nil {
		return err
	}
	all, b := x.item(), m.body()
	all.Manifest = &b
	return x.json(http.StatusOK, all)
}

func (x *exchange) listTags() error {
	p, err := x.acrPage()
	if err != nil {
		return err
	}
	list, more, err := x.s.o.Registry.ListTags(x.r.Context(), x.call, x.at.repository, p)
	if err != nil {
		return err
	}
	bodies := make([]tagBody, len(list))
	for i, t := range list {
		bodies[i] = t.body()
	}
	if more && len(list) > 0 {
		last := list[len(list)-1]
		x.acrNext("/_tags", string(last.Name), last.Updated, p)
	}
	all := x.item()
	all.Tags = &bodies
	return x.json(http.StatusOK, all)
}

func (x *exchange) listManifests() error {
	p, err := x.acrPage()
	if err != nil {
		return err
	}
	list, more, err := x.s.o.Registry.ListManifests(x.r.Context(), x.call, x.at.repository, p)
	if err != nil {
		return err
	}
	bodies := make([]manifestBody, len(list))
	for i, m := range list {
		bodies[i] = m.body()
	}
	if more && len(list) > 0 {
		last := list[len(list)-1]
		x.acrNext("/_manifests", string(last.Digest), last.Updated, p)
	}
	all := x.item()
	all.Manifests = &bodies
	return x.json(http.StatusOK, all)
}

// orders are the values of orderby.
var orders = map[string]Order{"": ByName, "none": ByName, "timeasc": OldestFirst, "timedesc": NewestFirst}

// acrPage reads n, last, orderby and digest. n is 100 when it is absent. Errors: PaginationInvalid, DigestInvalid.
func (x *exchange) acrPage() (Page, error) {
	q := x.r.URL.Query()
	last, n, err := x.page()
	if err != nil {
		return Page{}, err
	}
	p := Page{Last: last, N: n}
	if !q.Has("n") {
		p.N = 100
	}
	order, ok := orders[q.Get("orderby")]
	if !ok {
		return p, fault.New(fault.PaginationInvalid, "orderby must be timeasc, timedesc or none, not %q.", clip(q.Get("orderby")))
	}
	if p.Order = order; order != ByName {
		p.Last, p.At = position(last)
	}
	if d := q.Get("digest"); d != "" {
		p.Digest, err = name.ParseDigest(d)
	}
	return p, err
}

// position reads last of a list that is ordered by time: the name alone, as a client may know it, or with its time in microseconds behind an @, as links have it.
func position(last string) (name string, at time.Time) {
	if i := strings.LastIndexByte(last, '@'); i >= 0 {
		if us, err := strconv.ParseInt(last[i+1:], 10, 64); err == nil && us > 0 {
			return last[:i], meta.FromMicros(us)
		}
	}
	return last, time.Time{}
}

// acrNext links to the page behind last, which was changed at that time.
func (x *exchange) acrNext(list, last string, at time.Time, p Page) {
	if p.Order != ByName {
		last += "@" + strconv.FormatInt(meta.Micros(at), 10)
	}
	x.acrNextOf("/acr/v1/"+string(x.at.repository)+list, last, p)
}

func (x *exchange) acrNextOf(path, last string, p Page) {
	q := url.Values{"last": {last}, "n": {strconv.Itoa(p.N)}}
	for _, name := range []string{"orderby", "digest", "api-version"} {
		if v := x.r.URL.Query().Get(name); v != "" {
			q.Set(name, v)
		}
	}
	x.link(path, q)
}

// changeBody is what a PATCH may change; what it does not name stays.
type changeBody struct {
	Delete *bool `json:"deleteEnabled"`
	Write  *bool `json:"writeEnabled"`
	Read   *bool `json:"readEnabled"`
	List   *bool `json:"listEnabled"`

	Quarantine        *string `json:"quarantineState"`
	QuarantineDetails *string `json:"quarantineDetails"`
}

// changeAttributes sets locks and answers as the look at the thing does, or, who may not look at it, with its repository's name alone.
func (x *exchange) changeAttributes() error {
	content, err := io.ReadAll(io.LimitReader(x.r.Body, formLimit+1))
	if err != nil {
		return fault.Or(err, fault.New(fault.BadRequest, "The body broke off."))
	}
	var b changeBody
	if len(content) > formLimit || json.Unmarshal(content, &b) != nil {
		return fault.New(fault.BadRequest, "The body must be a JSON object with deleteEnabled, writeEnabled, readEnabled or listEnabled, each true or false.")
	}
	change := Change{b.Delete, b.Write, b.List, b.Read, b.Quarantine, b.QuarantineDetails}
	if err := x.mayChange(change); err != nil {
		return err
	}
	if err := x.s.o.Registry.SetAttributes(x.r.Context(), x.call, x.at.reference(), change); err != nil {
		return err
	}
	looks := false
	err = x.s.o.DB.Read(x.r.Context(), func(tx *meta.Tx) (err error) {
		for _, verb := range []string{"metadata_write", "metadata_read"} { // who may lock sees what was locked: clients ask for no more
			if looks, err = x.may(tx, x.call.Caller, "repository", string(x.at.repository), verb); looks || err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case !looks:
		return x.json(http.StatusOK, x.item())
	}
	switch x.at.kind {
	case kindAcrTag:
		return x.showTag()
	case kindAcrManifest:
		return x.showManifest()
	}
	return x.showRepository()
}

// mayChange asks for the rights to a change: locks take the right to write metadata, the state of quarantine the right to content in quarantine. A token's scope must have
// metadata_write for both.
func (x *exchange) mayChange(c Change) error {
	quarantine := c.Quarantine != nil || c.QuarantineDetails != nil
	if quarantine && x.at.kind != kindAcrManifest {
		return fault.New(fault.BadRequest, "quarantineState and quarantineDetails are of a manifest: change them at /acr/v1/%s/_manifests/{digest}.", x.at.repository)
	}
	if s := c.Quarantine; s != nil && *s != Quarantined && *s != Passed && *s != Failed {
		return fault.New(fault.BadRequest, "quarantineState must be Quarantined, Passed or Failed, not %q.", clip(*s))
	}
	locks := c.Delete != nil || c.Write != nil || c.List != nil || c.Read != nil || !quarantine
	return x.s.o.DB.Read(x.r.Context(), func(tx *meta.Tx) error {
		if quarantine {
			ok, err := x.s.o.Identity.CanQuarantine(tx, x.call.Caller, x.call.Registry, true)
			if err != nil {
				return err
			}
			if !ok {
				return fault.New(fault.Denied, "requested access to the resource is denied: to change the state of quarantine takes the role AcrQuarantineWriter, or one that has its rights").Carrying(x.wanted(toMark))
			}
			if !x.call.Caller.Within(x.at.repository, identity.MetadataWrite) {
				return x.challenge(toMark, "insufficient_scope", nil)
			}
		}
		if locks {
			return x.need(tx, toMark)
		}
		return nil
	})
}

func (x *exchange) deleteRepository() error {
	gone, err := x.s.o.Registry.DeleteRepository(x.r.Context(), x.call, x.at.repository)
	if err != nil {
		return err
	}
	if gone.Tags == nil {
		gone.Tags = []name.Tag{}
	}
	return x.json(http.StatusAccepted, struct {
		Manifests []name.Digest `json:"manifestsDeleted"`
		Tags      []name.Tag    `json:"tagsDeleted"`
	}{gone.Manifests, gone.Tags})
}
