package config

import (
	"net/netip"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/net/idna"
)

// Where devices of the household reach this machine: names and addresses that clients may
// check our certificate against, each in the form in which it is compared.
func (c *Config) names(n *yaml.Node) error {
	c.Names = nil
	seen := map[string]bool{}
	return each(n, "names", func(n *yaml.Node) error {
		var s string
		if err := text(n, &s); err != nil {
			return err
		}
		name, ok := hostName(s)
		if !ok {
			return at(n, "%q is neither the name nor the address of a machine, such as otrproxy.lan or 192.168.1.2; a port does not belong to it", s)
		}
		if seen[name] {
			return at(n, "%q is listed twice", s)
		}
		seen[name] = true
		c.Names = append(c.Names, name)
		return nil
	})
}

// hostName is a machine's name as DNS writes it, or its address.
func hostName(s string) (string, bool) {
	if ip, err := netip.ParseAddr(s); err == nil {
		ip = ip.Unmap()
		return ip.String(), ip.Zone() == "" && !ip.IsUnspecified() && !ip.IsMulticast()
	}
	name, err := idna.Lookup.ToASCII(strings.TrimSuffix(s, "."))
	if err != nil || name == "" || len(name) > 253 || strings.ContainsAny(name, "/@ *:%[]_") || allDigits(name[strings.LastIndexByte(name, '.')+1:]) {
		return "", false
	}
	return name, true
}

// allDigits tells what was meant for an address: no top-level domain is a number.
func allDigits(s string) bool { return strings.Trim(s, "0123456789") == "" }
