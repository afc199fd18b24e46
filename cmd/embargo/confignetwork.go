// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/embargo-registry/embargo/server"
)

type upstreamRegistry struct {
	Host      string   `yaml:"host"`
	At        string   `yaml:"at"`
	Tokens    []string `yaml:"tokens"`
	Redirects []string `yaml:"redirects"`
	Inside    bool     `yaml:"inside"`
}

type privateListener struct {
	Address       string   `yaml:"address"`
	Registry      string   `yaml:"registry"`
	TLS           *bool    `yaml:"tls"`
	TLSTerminated bool     `yaml:"tlsTerminated"`
	Clients       []string `yaml:"clients"`
}

// prefixes reads addresses and CIDR ranges.
func prefixes(texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, t := range texts {
		p, err := netip.ParsePrefix(t)
		if a, addrErr := netip.ParseAddr(t); addrErr == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("%q is neither an address nor a CIDR range", t)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

type virtualNetwork struct {
	ID            string            `yaml:"id"`
	Door          string            `yaml:"door"`
	Port          int               `yaml:"port"`
	TLS           *bool             `yaml:"tls"`
	TLSTerminated bool              `yaml:"tlsTerminated"`
	Interfaces    []string          `yaml:"interfaces"`
	Clients       []string          `yaml:"clients"`
	Listen        string            `yaml:"listen"`
	From          []string          `yaml:"from"`
	Links         map[string]string `yaml:"links"`
	ProxyListen   string            `yaml:"proxyListen"`
}

func putNetworks(s *settings, v []virtualNetwork) error {
	s.server.VirtualNetworks = nil
	for i, n := range v {
		clients, err := prefixes(n.Clients)
		if err != nil {
			return fmt.Errorf("entry %d: clients: %w", i+1, err)
		}
		from, err := prefixes(n.From)
		if err != nil {
			return fmt.Errorf("entry %d: from: %w", i+1, err)
		}
		s.server.VirtualNetworks = append(s.server.VirtualNetworks, server.VirtualNetwork{ID: n.ID, Door: n.Door, Port: n.Port, TLS: n.TLS == nil || *n.TLS, TLSTerminated: n.TLSTerminated,
			Interfaces: n.Interfaces, Clients: clients, Listen: n.Listen, From: from, Links: n.Links, ProxyListen: n.ProxyListen})
	}
	return nil
}

type dnsServer struct {
	Listen   string   `yaml:"listen"`
	Public   []string `yaml:"public"`
	Networks []struct {
		Network string `yaml:"network"`
		Listen  string `yaml:"listen"`
	} `yaml:"networks"`
	TTL string `yaml:"ttl"`
}

func putDNS(s *settings, v dnsServer) error {
	d := server.DNS{Listen: v.Listen}
	for _, p := range v.Public {
		a, err := netip.ParseAddr(p)
		if err != nil || a.Zone() != "" {
			return fmt.Errorf("public: %q is no address", p)
		}
		d.Public = append(d.Public, a.Unmap())
	}
	for _, n := range v.Networks {
		d.Networks = append(d.Networks, server.DNSNetwork{Network: n.Network, Listen: n.Listen})
	}
	if v.TTL != "" {
		ttl, err := time.ParseDuration(v.TTL)
		if err != nil || ttl < time.Second {
			return fmt.Errorf("ttl: %q is no duration of a second or more, such as 10s", v.TTL)
		}
		d.TTL = ttl
	}
	s.server.DNS = d
	return nil
}
