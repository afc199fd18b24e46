// SPDX-License-Identifier: Apache-2.0

package network

import "strings"

// MemberHost is the host name that a member of a private endpoint stands for: of "registry" the login server itself, of "registry_data_<region>" the data
// endpoint of that region; "" of what is no member. It is pure: zones, listeners and the DNS server take names from here.
func MemberHost(loginServer, member string) string {
	loginServer, member = strings.ToLower(loginServer), strings.ToLower(member)
	if member == "registry" {
		return loginServer
	}
	region, ok := strings.CutPrefix(member, "registry_data_")
	label, suffix, dotted := strings.Cut(loginServer, ".")
	if !ok || !dotted || region == "" {
		return ""
	}
	return label + "." + region + ".data." + suffix
}
