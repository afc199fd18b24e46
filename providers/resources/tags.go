// SPDX-License-Identifier: Apache-2.0

package resources

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"strings"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

func tagRoutes() []arm.Route {
	const path = "{scope}/providers/Microsoft.Resources/tags/default"
	return []arm.Route{
		{Method: http.MethodGet, Path: path, Right: "Microsoft.Resources/tags/read", Do: getTags},
		{Method: http.MethodPut, Path: path, Right: "Microsoft.Resources/tags/write", Writes: true, Do: putTags},
		{Method: http.MethodPatch, Path: path, Right: "Microsoft.Resources/tags/write", Writes: true, Do: patchTags},
		{Method: http.MethodDelete, Path: path, Right: "Microsoft.Resources/tags/delete", Writes: true, Do: deleteTags},
	}
}

// tagsBody is the tags of a scope as a resource. Source: ARM, "Tags" API.
type tagsBody struct {
	ID         string         `json:"id"`
	Type       string         `json:"type"`
	Name       string         `json:"name"`
	Properties tagsProperties `json:"properties"`
}

type tagsProperties struct {
	Tags map[string]string `json:"tags"`
}

type tagsRequest struct {
	Operation  string         `json:"operation"`
	Properties tagsProperties `json:"properties"`
}

// tagsOf reads the tags of a subscription, a group or a resource, and its canonical id.
func tagsOf(tx *arm.Tx, scope name.ResourceID) (name.ResourceID, map[string]string, error) {
	if scope.IsRoot() {
		return scope, nil, fault.New(fault.BadRequest, "The tenant has no tags.")
	}
	if !scope.IsResource() && scope.ResourceGroup() == "" {
		tags := map[string]string{}
		text, err := readTags(tx.Meta(), scope.Key())
		if errors.Is(err, meta.ErrNotFound) {
			return scope, tags, nil
		}
		if err == nil {
			err = json.Unmarshal([]byte(text), &tags)
		}
		return scope, tags, err
	}
	r, err := tx.Find(scope)
	if err != nil {
		return scope, nil, err
	}
	var d document
	err = r.Document.Decode(&d)
	if d.Tags == nil {
		d.Tags = map[string]string{}
	}
	return r.ID, d.Tags, err
}

func setTags(tx *arm.Tx, scope name.ResourceID, tags map[string]string) error {
	if err := fault.Join(arm.CheckTags(tags)); err != nil {
		return err
	}
	if scope.IsResource() || scope.ResourceGroup() != "" {
		return tx.SetTags(scope, tags)
	}
	data, err := json.Marshal(tags)
	if err != nil {
		return err
	}
	_, err = tx.Meta().Exec("INSERT INTO scope_tags (scope, tags) VALUES ($1, $2) ON CONFLICT (scope) DO UPDATE SET tags = $2", scope.Key(), string(data))
	if err != nil {
		return err
	}
	return tx.RecordAction("Microsoft.Resources/tags/write", scope)
}

func answerTags(id name.ResourceID, tags map[string]string) arm.Answer {
	return arm.Answer{Body: tagsBody{ID: strings.TrimSuffix(id.String(), "/") + "/providers/Microsoft.Resources/tags/default", Type: "Microsoft.Resources/tags", Name: "default", Properties: tagsProperties{tags}}}
}

func getTags(tx *arm.Tx, c *arm.RouteCall) (arm.Answer, error) {
	id, tags, err := tagsOf(tx, c.Scope)
	return answerTags(id, tags), err
}

func putTags(tx *arm.Tx, c *arm.RouteCall) (arm.Answer, error) {
	return change(tx, c, func(req tagsRequest, _ map[string]string) (map[string]string, error) { return req.Properties.Tags, nil })
}

func patchTags(tx *arm.Tx, c *arm.RouteCall) (arm.Answer, error) {
	return change(tx, c, func(req tagsRequest, now map[string]string) (map[string]string, error) {
		given := req.Properties.Tags
		switch strings.ToLower(req.Operation) {
		case "replace":
			return given, nil
		case "merge":
			for k, v := range given {
				maps.DeleteFunc(now, func(old, _ string) bool { return strings.EqualFold(old, k) })
				now[k] = v
			}
			return now, nil
		case "delete":
			for k, v := range given {
				maps.DeleteFunc(now, func(old, value string) bool { return strings.EqualFold(old, k) && value == v })
			}
			return now, nil
		}
		return nil, fault.New(fault.InvalidParameter, "The operation '%s' is none of: Merge, Replace, Delete.", req.Operation).At("operation")
	})
}

// change reads the request, lets edit make the new tags of the old, and stores them.
func change(tx *arm.Tx, c *arm.RouteCall, edit func(tagsRequest, map[string]string) (map[string]string, error)) (arm.Answer, error) {
	var req tagsRequest
	if err := c.Decode(&req); err != nil {
		return arm.Answer{}, err
	}
	if err := tx.Lock(c.Scope); err != nil {
		return arm.Answer{}, err
	}
	id, now, err := tagsOf(tx, c.Scope)
	if err != nil {
		return arm.Answer{}, err
	}
	want, err := edit(req, now)
	if err != nil {
		return arm.Answer{}, err
	}
	if want == nil {
		want = map[string]string{}
	}
	return answerTags(id, want), setTags(tx, id, want)
}

func deleteTags(tx *arm.Tx, c *arm.RouteCall) (arm.Answer, error) {
	id, _, err := tagsOf(tx, c.Scope)
	if err != nil {
		return arm.Answer{}, err
	}
	return arm.Answer{}, setTags(tx, id, map[string]string{})
}
