// SPDX-License-Identifier: Apache-2.0

// Package managed is the managed identity that several types of the namespace carry. It is shown and stored; no token is issued for it.
package managed

import "strings"

// Identity is a resource's managed identity, in Azure's shape.
type Identity struct {
	PrincipalID string           `json:"principalId" arm:"readonly,omitempty"`
	TenantID    string           `json:"tenantId" arm:"readonly,omitempty"`
	Type        string           `json:"type" enum:"None|SystemAssigned|UserAssigned|SystemAssigned, UserAssigned" stance:"echo" doc:"An identity that is shown; no token is issued for it."`
	Assigned    map[string]*User `json:"userAssignedIdentities" arm:"omitempty" stance:"echo"`
}

// User is an entry of userAssignedIdentities.
type User struct {
	PrincipalID string `json:"principalId" arm:"readonly,omitempty"`
	ClientID    string `json:"clientId" arm:"readonly,omitempty"`
}

// Fill gives an identity its ids and keeps those that it had. None is no identity.
func Fill(want, was *Identity, tenant string, newID func() string) *Identity {
	if want == nil || want.Type == "None" || want.Type == "" {
		return nil
	}
	if strings.Contains(want.Type, "SystemAssigned") {
		want.TenantID = tenant
		if was != nil && was.PrincipalID != "" {
			want.PrincipalID = was.PrincipalID
		} else {
			want.PrincipalID = newID()
		}
	} else {
		want.TenantID, want.PrincipalID = "", ""
	}
	if !strings.Contains(want.Type, "UserAssigned") {
		want.Assigned = nil
	}
	for id, u := range want.Assigned {
		if u == nil {
			u = &User{}
			want.Assigned[id] = u
		}
		if was != nil && was.Assigned[id] != nil {
			*u = *was.Assigned[id]
		} else if u.PrincipalID == "" {
			u.PrincipalID, u.ClientID = newID(), newID()
		}
	}
	return want
}

// Lower shows the type as the service does, its first letter small. A nil Identity stays nil.
func (i *Identity) Lower() {
	if i != nil && i.Type != "" {
		i.Type = strings.ToLower(i.Type[:1]) + i.Type[1:]
	}
}
