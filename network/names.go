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

// Members are what a private endpoint of a registry has an address for each: the registry itself, and the data endpoints of its home and of its further regions, in any casing and with or
// without spaces.
func Members(home string, further ...string) []string {
	all := []string{"registry"}
	for _, region := range append([]string{home}, further...) {
		all = append(all, "registry_data_"+strings.ToLower(strings.ReplaceAll(region, " ", "")))
	}
	return all
}
