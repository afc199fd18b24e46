// SPDX-License-Identifier: Apache-2.0

package resources

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/name"
)

const deleteGroupKind = "resources.deleteGroup"

type deleteGroupArgs struct {
	Group string `json:"group"`
}

func deleteGroupSpec(c arm.Change[group]) job.Spec {
	return job.Spec{Kind: deleteGroupKind, Args: deleteGroupArgs{Group: c.ID.String()}}
}

// deleteGroup deletes what is in the group, one root resource with its children in each transaction, and then the group. A second run
// goes on where the first one stopped. If a resource refuses to go, the group stays, usable again, and the operation fails with that refusal.
func deleteGroup(ctx context.Context, e *arm.Engine, j *job.Job) (any, error) {
	var args deleteGroupArgs
	if err := j.Decode(&args); err != nil {
		return nil, err
	}
	id, err := name.ParseResourceID(args.Group)
	if err != nil {
		return nil, err
	}
	var caller identity.Caller
	if err := json.Unmarshal(j.Caller, &caller); err != nil {
		return nil, fmt.Errorf("caller of the job: %w", err)
	}
	for {
		done, err := deleteNext(ctx, e, caller, j, id)
		if err == nil && done {
			return nil, nil
		}
		if err == nil {
			continue
		}
		if f := fault.From(err); f.Status() < 500 {
			return nil, reopen(ctx, e, caller, j, id, err)
		}
		return nil, err
	}
}

// deleteNext takes the next root resource of the group out, and the group itself once it is empty; done says that the group is gone.
func deleteNext(ctx context.Context, e *arm.Engine, caller identity.Caller, j *job.Job, id name.ResourceID) (done bool, err error) {
	err = e.Write(ctx, caller, j.Correlation, func(tx *arm.Tx) error {
		if err := j.Mine(tx.Meta()); err != nil {
			return err
		}
		next, found, err := tx.FirstBelow(id)
		if err != nil {
			return err
		}
		if done = !found; done {
			return tx.Remove(id)
		}
		return tx.Delete(next.Root())
	})
	return done, err
}

// reopen ends the state Deleting of a group that could not be emptied.
func reopen(ctx context.Context, e *arm.Engine, caller identity.Caller, j *job.Job, id name.ResourceID, why error) error {
	err := e.Write(ctx, caller, j.Correlation, func(tx *arm.Tx) error { return tx.SetState(id, "") })
	if err != nil {
		return fmt.Errorf("%w (while handling: %w)", err, why)
	}
	return why
}
