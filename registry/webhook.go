// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"errors"
	"net/http"

	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/oci"
	"github.com/embargo-registry/embargo/webhook"
)

// mediaHelm is the configuration of a Helm chart. Source: Helm, "OCI-based registries".
const mediaHelm = "application/vnd.cncf.helm.config.v1+json"

// eventOf begins an event of a call's registry.
func eventOf(c oci.Call, method string, repo name.Repository) webhook.Event {
	return webhook.Event{Registry: c.Registry.ID, Host: c.Registry.LoginServer, Repository: repo, Method: method, Correlation: c.Correlation, UserAgent: c.UserAgent}
}

// about completes an event by the manifest that it is about, as its repository holds it, and returns the type of its configuration.
func about(tx *meta.Tx, repository string, d name.Digest, e *webhook.Event) (config string, err error) {
	e.Digest = d
	err = tx.Row(`SELECT media_type, size, config_media_type FROM manifests WHERE repository = $1 AND digest = $2`, repository, string(d)).Scan(&e.MediaType, &e.Size, &config)
	return config, err
}

// tellPush tells webhooks that a manifest was pushed, once for each of its new tags.
func tellPush(tx *meta.Tx, repository string, d name.Digest, tags []name.Tag, e webhook.Event) error {
	if any, err := webhook.Any(tx, e.Registry); err != nil || !any {
		return err
	}
	config, err := about(tx, repository, d, &e)
	if err != nil {
		return err
	}
	if len(tags) == 0 {
		tags = []name.Tag{""}
	}
	var state string
	if err := tx.Row(`SELECT quarantine FROM manifests WHERE repository = $1 AND digest = $2`, repository, string(d)).Scan(&state); err != nil {
		return err
	}
	for _, e.Tag = range tags {
		if held(state) {
			e.Action = webhook.Quarantine
			if err := webhook.Raise(tx, e); err != nil {
				return err
			}
			continue
		}
		if err := raise(tx, e, config, webhook.Push, webhook.ChartPush); err != nil {
			return err
		}
	}
	return nil
}

// tellDelete tells webhooks that a manifest goes, before it does: its tags decide whose scope it is in.
func tellDelete(tx *meta.Tx, repository string, d name.Digest, e webhook.Event) error {
	if any, err := webhook.Any(tx, e.Registry); err != nil || !any {
		return err
	}
	config, err := about(tx, repository, d, &e)
	if err != nil {
		return err
	}
	rows, err := tx.Query(`SELECT name FROM tags WHERE repository = $1 AND digest = $2 ORDER BY name`, repository, string(d))
	if err != nil {
		return err
	}
	for rows.Next() {
		var t name.Tag
		if err := rows.Scan(&t); err != nil {
			return errors.Join(err, rows.Close())
		}
		e.Tags = append(e.Tags, t)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	return raise(tx, e, config, webhook.Delete, webhook.ChartDelete)
}

// raise has an event told under its action and, of a Helm chart, under the charts' own besides.
func raise(tx *meta.Tx, e webhook.Event, config, action, chart string) error {
	e.Action = action
	err := webhook.Raise(tx, e)
	if err == nil && config == mediaHelm {
		e.Action = chart
		err = webhook.Raise(tx, e)
	}
	return err
}

// tellRepositoryDelete tells webhooks that a repository went with all it held.
func tellRepositoryDelete(tx *meta.Tx, c oci.Call, repo name.Repository, gone oci.Deleted) error {
	e := eventOf(c, http.MethodDelete, repo)
	e.Action, e.Tags = webhook.Delete, gone.Tags
	return webhook.Raise(tx, e)
}

// tell tells webhooks of the target what an import has put there; one without tags put it under its digest.
func (p *importer) tell(tx *meta.Tx, repository string, repo name.Repository, tags ...name.Tag) error {
	return tellPush(tx, repository, p.root.Digest, tags, webhook.Event{Registry: p.Target, Host: p.target.LoginServer, Repository: repo, Method: http.MethodPost, Correlation: p.correlation})
}
