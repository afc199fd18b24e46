// SPDX-License-Identifier: Apache-2.0

package virtualnetworks

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/embargo-registry/embargo/arm"
	"github.com/embargo-registry/embargo/fault"
	"github.com/embargo-registry/embargo/name"
	"github.com/embargo-registry/embargo/providers/network/space"
)

const securityGroups = "Microsoft.Network/networkSecurityGroups"

var subnetName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9_.\-]{0,78}[a-zA-Z0-9_])?$`)

// admit judges the final state of a network, its subnets included.
func admit(w arm.World, c arm.Change[document]) []*fault.Fault {
	if c.Want == nil {
		return nil
	}
	a := admission{w: w, id: c.ID, was: c.Was}
	if len(c.Want.Properties.Space.Prefixes) == 0 {
		a.refuse(fault.New(fault.InvalidParameter, "The virtual network '%s' has no address prefix: give addressSpace.addressPrefixes at least one.", c.ID.Name()), "properties.addressSpace.addressPrefixes")
	}
	for i, text := range c.Want.Properties.Space.Prefixes {
		at := fmt.Sprintf("properties.addressSpace.addressPrefixes[%d]", i)
		p, f := space.Prefix(text, c.ID.String())
		if f == nil && overlaps(p, a.space) {
			f = fault.New(fault.InvalidParameter, "The address prefix %s of the virtual network '%s' overlaps with another one of it.", p, c.ID.Name())
		}
		// What the network had before there was this rule does not keep it from being written.
		if f == nil && (c.Was == nil || !slices.Contains(c.Was.Properties.Space.Prefixes, text)) {
			f = space.Usable(p, c.ID.String())
		}
		if f == nil {
			a.space = append(a.space, p)
		}
		a.refuse(f, at)
	}
	for i := range c.Want.Properties.Subnets {
		a.subnet(&c.Want.Properties.Subnets[i], fmt.Sprintf("properties.subnets[%d]", i))
	}
	return a.faults
}

type admission struct {
	w      arm.World
	id     name.ResourceID
	was    *document
	space  []netip.Prefix // of the network
	taken  []netip.Prefix // by the subnets before
	names  []string
	faults []*fault.Fault
}

func (a *admission) refuse(f *fault.Fault, at string) {
	if f != nil {
		a.faults = append(a.faults, f.At(at))
	}
}

func (a *admission) subnet(s *subnet, at string) {
	if !subnetName.MatchString(s.Name) {
		a.refuse(fault.New(fault.InvalidResourceName, "Resource name '%.100s' is invalid. A subnet's name has 1 to 80 letters, digits, '_', '.' and '-', begins with a letter or digit and does not end with '.' or '-'.", s.Name), at+".name")
		return
	}
	for _, n := range a.names {
		if strings.EqualFold(n, s.Name) {
			a.refuse(fault.New(fault.InvalidParameter, "The virtual network '%s' has the subnet '%s' twice.", a.id.Name(), s.Name), at+".name")
			return
		}
	}
	a.names = append(a.names, s.Name)
	a.refuse(a.prefix(s), at+".properties.addressPrefix")
	// A group that has been deleted since does not keep the network from being written.
	if g := newGroup(a.was, a.id, s); g != nil {
		id, err := name.ParseResourceID(g.ID)
		if err != nil || !strings.EqualFold(id.Type(), securityGroups) || !a.w.Get(id, nil) {
			a.refuse(noGroup(g.ID, a.id.Child("subnets", s.Name).String()), at+".properties.networkSecurityGroup.id")
		}
	}
}

func (a *admission) prefix(s *subnet) *fault.Fault {
	id, network := a.id.Child("subnets", s.Name), a.id.Name()
	if one := s.Properties; one.Prefix != "" && len(one.Prefixes) > 0 && one.Prefixes[0] != one.Prefix {
		return fault.New(fault.InvalidParameter, "The subnet '%s' has two prefixes, %.50s and %.50s: give one of addressPrefix and addressPrefixes.", s.Name, one.Prefix, one.Prefixes[0])
	}
	if s.prefix() == "" {
		return fault.New(fault.InvalidParameter, "The subnet '%s' has no address prefix: give addressPrefix.", s.Name)
	}
	p, f := space.Prefix(s.prefix(), id.String())
	switch {
	case f != nil:
		return f
	case p.Bits() < space.Shortest || p.Bits() > space.Longest:
		return fault.New(fault.SubnetOutside, "Subnet '%s' is not valid in virtual network '%s': its prefix %s has %d bits, and a subnet's has %d to %d.", s.Name, network, p, p.Bits(), space.Shortest, space.Longest)
	case !space.Within(p, a.space):
		return fault.New(fault.SubnetOutside, "Subnet '%s' is not valid in virtual network '%s': its prefix %s is outside the network's address space.", s.Name, network, p)
	case overlaps(p, a.taken):
		return fault.New(fault.SubnetsOverlap, "Subnet '%s' is not valid because its IP address range overlaps with that of an existing subnet in virtual network '%s'.", s.Name, network)
	}
	a.taken = append(a.taken, p)
	return nil
}

func overlaps(p netip.Prefix, all []netip.Prefix) bool {
	for _, o := range all {
		if o.Overlaps(p) {
			return true
		}
	}
	return false
}
