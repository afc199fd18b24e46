// SPDX-License-Identifier: Apache-2.0

// Package fault holds the one error that a client of Embargo may see.
//
// A Fault has a Kind, which is a row of one table (HTTP status, ARM code, OCI code), and a message written for the person
// who reads it: what was refused, which rule on which resource refused it, and what to do next. The cause goes to the log
// through Because and is never part of the message. An error that is not a Fault becomes Internal: its text stays inside.
// Only the packages arm, oci and identity/authority turn a Fault into an HTTP answer.
package fault

import (
	"errors"
	"fmt"
	"time"
)

// Fault is an error that may be shown to a client. Build it with New and the methods that follow; the zero Fault is Internal.
type Fault struct {
	Kind    Kind
	Message string
	// Target is the JSON path (for example properties.policies.exportPolicy.status) or the resource that the fault is about.
	Target string
	// Details are the faults found together with this one.
	Details []*Fault
	// Data is additional, protocol-specific detail that an OCI error carries in its member "detail". It must marshal to JSON.
	Data any
	// RetryAfter is sent as the Retry-After header (whole seconds) when it is positive.
	RetryAfter time.Duration

	cause error
}

// New makes a Fault of the given kind; format and args make its message.
func New(kind Kind, format string, args ...any) *Fault {
	return &Fault{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// At returns the fault with its target set.
func (f *Fault) At(target string) *Fault { f.Target = target; return f }

// Because returns the fault with the cause that the log shows. The client never sees it.
func (f *Fault) Because(err error) *Fault { f.cause = err; return f }

// With returns the fault with further details.
func (f *Fault) With(details ...*Fault) *Fault {
	f.Details = append(f.Details, details...)
	return f
}

// Carrying returns the fault with protocol-specific detail (the member "detail" of an OCI error).
func (f *Fault) Carrying(data any) *Fault { f.Data = data; return f }

// Error is the text for logs: kind, target, message and cause.
func (f *Fault) Error() string {
	s := f.Kind.ARM() + ": " + f.Message
	if f.Target != "" {
		s += " (" + f.Target + ")"
	}
	if f.cause != nil {
		s += ": " + f.cause.Error()
	}
	return s
}

// Unwrap gives the cause.
func (f *Fault) Unwrap() error { return f.cause }

// Status is the HTTP status of the fault's kind.
func (f *Fault) Status() int { return f.Kind.Status() }

// From finds the Fault in err. An error without one becomes an Internal fault that keeps err as its cause; nil stays nil.
func From(err error) *Fault {
	if err == nil {
		return nil
	}
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	return New(Internal, "The server met an unexpected condition. The log has the cause under this request's id.").Because(err)
}

// Beside is err with what went wrong while it was cleaned up after, which the log alone shows.
func Beside(err, cleanup error) error {
	if cleanup == nil {
		return err
	}
	f := From(err)
	return f.Because(errors.Join(f.cause, cleanup))
}

// Or is the Fault in err (a body that stalled says so itself), or f because of err where there is none.
func Or(err error, f *Fault) *Fault {
	var own *Fault
	if errors.As(err, &own) {
		return own
	}
	return f.Because(err)
}

// Is reports whether err holds a Fault of the given kind.
func Is(err error, kind Kind) bool {
	var f *Fault
	return errors.As(err, &f) && f.Kind == kind
}

// Join makes one error of all faults found: nil of none, the fault itself of one, and of several a fault of the first's kind
// that names their number and has each as a detail.
func Join(faults []*Fault) error {
	switch len(faults) {
	case 0:
		return nil
	case 1:
		return faults[0]
	}
	return New(faults[0].Kind, "%s (and %d more: see the details)", faults[0].Message, len(faults)-1).
		At(faults[0].Target).With(faults...)
}
