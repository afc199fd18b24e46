// SPDX-License-Identifier: Apache-2.0

// Package authority is the HTTP side of identity on the management hosts: OpenID discovery, keys, the token endpoint in its three families of
// paths (/adfs, /{tenant}/oauth2/v2.0, /{tenant}/oauth2), the cloud metadata by which clients find the installation, and the endpoint
// of managed identities.
//
// It hides OAuth's forms, its errors and the differences between the families. It promises that it builds URLs only from a configured name, that a secret
// stands in no log, answer or record, and that every grant, given or refused, is told to Options.Login. It refuses hosts that are not
// the installation's, tenants that are not its own, audiences that nothing here accepts, and interactive flows.
package authority
