// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/meta"
	"github.com/embargo-registry/embargo/network"
)

// checkPath, under a registry's name, tells a caller how it is seen.
const checkPath = "/embargo/network/check"

// Seen is how a caller is seen by a registry. A registry that does not exist is answered as one that admits nobody, so that it tells nothing of others.
type Seen struct {
	Zone     string `json:"zone"`
	Address  string `json:"address"`
	Admitted bool   `json:"admitted"`
	Rule     string `json:"rule"`
	Why      string `json:"why"`
}

// listenerRule admits who comes by a private listener.
const listenerRule = "privateListeners"

// checked answers checkPath, and hands everything else on to next.
func (s *Server) checked(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != checkPath || r.Method != http.MethodGet {
			next.ServeHTTP(w, r)
			return
		}
		row, peer, err := s.asked(r)
		if err != nil && !errors.Is(err, meta.ErrNotFound) {
			s.log.Error("network check", "error", err)
			reply(w, http.StatusInternalServerError, map[string]string{"error": "The registry's rules could not be read."})
			return
		}
		v := seen(row, err == nil, peer)
		label, _, _ := strings.Cut(row.LoginServer, ".")
		if t := s.hosts.Lookup(r.Host); v.Rule == listenerRule && t.Registry != "" && t.Registry != label {
			v.Admitted, v.Why = false, fmt.Sprintf("The connection came by a private listener of the registry '%s', which serves that one under any name.", row.Name)
		}
		reply(w, http.StatusOK, v)
	})
}

// asked is the row of the registry that a request is for, and the connection that it came on. Errors: meta.ErrNotFound.
func (s *Server) asked(r *http.Request) (row meta.RegistryRow, peer *network.Peer, err error) {
	name, peer := s.locate()(r)
	err = s.db.Read(r.Context(), func(tx *meta.Tx) (err error) {
		if peer.Kind == network.Private {
			row, err = tx.RegistryByName(name)
		} else {
			row, err = tx.RegistryByLabel(name)
		}
		return err
	})
	return row, peer, err
}

// regional refuses requests for a data host of a region that the registry is not in. Whom the network does not let in is told by next what everybody is told.
func (s *Server) regional(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t, peer := s.hosts.Lookup(r.Host), s.doors.Peer(r)
		if t.Role != network.DataHost || peer.Kind == network.Private && peer.Endpoint == "" { // a static listener serves its registry under any name
			next.ServeHTTP(w, r)
			return
		}
		row, there, err := s.region(r.Context(), t)
		switch {
		case errors.Is(err, meta.ErrNotFound) || err == nil && network.Enter(row, peer) != nil:
			next.ServeHTTP(w, r)
		case err != nil:
			s.log.Error("a registry's regions could not be read", "registry", t.Registry, "error", err)
			refuse(w, t.Role, fault.New(fault.Unavailable, "The registry's regions could not be read. Try again in a moment."))
		case !there:
			why := fmt.Sprintf("Nothing is served here under the host '%s': the registry '%s' has no data endpoint in the region '%s'.", clip(r.Host), t.Registry, t.Region)
			s.refusedAt(peer, "host", why)
			refuse(w, t.Role, fault.New(fault.MisdirectedRequest, "%s", why))
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// seen says what Enter decides, and why.
func seen(row meta.RegistryRow, there bool, p *network.Peer) Seen {
	v := Seen{Zone: p.Zone.String(), Address: p.Addr.Addr().String(), Admitted: there && network.Enter(row, p) == nil}
	switch {
	case v.Admitted && p.Endpoint != "":
		v.Rule, v.Why = "privateEndpointConnections", "The connection came by a private endpoint that the registry has approved."
	case v.Admitted && p.Kind == network.Private:
		v.Rule, v.Why = listenerRule, "The connection came by a private listener of the registry."
	case v.Admitted && row.DefaultDeny:
		v.Rule, v.Why = "networkRuleSet.ipRules", "The address is in a rule of the registry."
	case v.Admitted:
		v.Rule, v.Why = "publicNetworkAccess", "The registry is open to the public network."
	case p.Kind == network.Private:
		v.Rule, v.Why = "privateEndpointConnections", "The connection came by a private door that the registry has not approved, or there is no such registry."
	default:
		v.Rule, v.Why = "publicNetworkAccess", "The public network may not reach the registry, or the address is in none of its rules, or there is no such registry."
	}
	return v
}
