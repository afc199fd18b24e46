// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/identity"
	"github.com/embargo-registry/embargo/job"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/name"
)

// operationURL is where a client follows an operation on a resource: …/providers/{namespace}/locations/{LOCATION}/{kind}/{operation}.
func (rq *request) operationURL(tx *Tx, id name.ResourceID, kind, op string) string {
	location := "GLOBAL"
	root := id.Root()
	if r := tx.e.types[strings.ToLower(root.Type())]; r != nil {
		if s, err := tx.e.load(tx, r, root); err == nil && s.text("location") != "" {
			location = strings.ToUpper(s.text("location"))
		}
	}
	if !id.IsResource() {
		return rq.base() + "/subscriptions/" + id.Subscription() + "/operationresults/" + op + rq.versionQuery()
	}
	scope := ""
	if id.Subscription() != "" {
		scope = "/subscriptions/" + id.Subscription()
	}
	return rq.base() + scope + "/providers/" + id.Namespace() + "/locations/" + location + "/" + kind + "/" + op + rq.versionQuery()
}

// operation serves the two ways to follow an operation: under the resource (…/operationStatuses/{op}) and under a location.
func (rq *request) operation(id name.ResourceID) (bool, error) {
	kind := strings.ToLower(id.Type()[strings.LastIndexByte(id.Type(), '/')+1:])
	if kind != "operationstatuses" && kind != "operationresults" || !id.IsResource() {
		return false, nil
	}
	if rq.r.Method != http.MethodGet {
		return true, rq.notAllowed("GET")
	}
	if kind == "operationresults" {
		return true, rq.operationResult(id, id.Name())
	}
	return true, rq.operationStatus(id, id.Name())
}

// state reads an operation that belongs to the subscription of the path, and that the caller began or may see.
func (rq *request) state(id name.ResourceID, op string) (job.State, error) {
	var st job.State
	if rq.query["api-version"] == "" {
		return st, fault.New(fault.MissingAPIVersion, "The api-version query parameter (?api-version=) is required for all requests.")
	}
	if _, ok := parseVersion(rq.query["api-version"]); !ok {
		return st, fault.New(fault.InvalidAPIVersion, "The api-version '%s' is invalid.", clip(rq.query["api-version"]))
	}
	absent := fault.New(fault.OperationNotFound, "The operation '%s' could not be found.", clip(op))
	err := rq.inTx(false, func(tx *Tx) error {
		var err error
		st, err = job.Get(tx.m, op)
		if errors.Is(err, meta.ErrNotFound) {
			return absent
		}
		if err != nil {
			return err
		}
		subject, err := name.ParseResourceID(st.Subject)
		if err != nil || !strings.EqualFold(subject.Subscription(), id.Subscription()) {
			return absent
		}
		var began identity.Caller
		if json.Unmarshal(st.Caller, &began) == nil && began.ID == rq.caller.ID && began.ID != "" {
			return nil
		}
		return tx.Must(tx.e.rightOf(subject)+"/read", subject)
	})
	return st, err
}

// operationResult serves the Location of a 202: 202 while it runs, then 200, or the fault that ended it.
// Source: ARM RPC, "Asynchronous operations".
func (rq *request) operationResult(id name.ResourceID, op string) error {
	st, err := rq.state(id, op)
	if err != nil {
		return err
	}
	switch st.Status {
	case job.Succeeded:
		body := []byte(`{"status":"Succeeded"}`)
		if len(st.Result) > 0 && string(st.Result) != "null" {
			body = st.Result
		}
		return rq.send(reply{status: http.StatusOK, body: body})
	case job.Failed, job.Canceled:
		rq.provider = true
		return endedBy(st)
	}
	return rq.send(reply{status: http.StatusAccepted, body: []byte(`{"status":"Accepted"}`),
		header: map[string]string{"Location": rq.base() + rq.r.URL.RequestURI(), "Retry-After": "1"}})
}

// endedBy is the fault of a failed operation. Its kind is found by its code; an unknown code is a 400.
func endedBy(st job.State) error {
	if st.Status == job.Canceled && st.FaultCode == "" {
		return fault.New(fault.OperationCanceled, "The operation was canceled.")
	}
	return fault.New(kindOf(st.FaultCode), "%s", st.FaultMessage)
}

// kindOf is the first kind that has an ARM code.
func kindOf(code string) fault.Kind {
	for k := fault.Internal; k <= fault.StorageFull; k++ {
		if k.ARM() == code {
			return k
		}
	}
	return fault.BadRequest
}

// statusBody is the answer of operationStatuses.
type statusBody struct {
	ID        string     `json:"id,omitempty"`
	Name      string     `json:"name,omitempty"`
	Status    string     `json:"status"`
	StartTime string     `json:"startTime,omitempty"`
	EndTime   string     `json:"endTime,omitempty"`
	Percent   int        `json:"percentComplete,omitempty"`
	Error     *errorInfo `json:"error,omitempty"`
}

// operationStatus serves Azure-AsyncOperation: always 200 with the status in the body.
func (rq *request) operationStatus(id name.ResourceID, op string) error {
	st, err := rq.state(id, op)
	if err != nil {
		return err
	}
	body := statusBody{ID: id.String(), Name: op, Percent: st.Percent}
	header := map[string]string{}
	switch st.Status {
	case job.Succeeded:
		body.Status = "Succeeded"
	case job.Failed:
		body.Status, body.Error = "Failed", envelopeOf(fault.From(endedBy(st)))
	case job.Canceled:
		body.Status, body.Error = "Canceled", envelopeOf(fault.From(endedBy(st)))
	default:
		body.Status = "InProgress"
		header["Retry-After"] = "1"
	}
	data, err := marshal(body)
	if err != nil {
		return err
	}
	return rq.send(reply{status: http.StatusOK, header: header, body: data})
}
