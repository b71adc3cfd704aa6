package hostname

import (
	"net"
	"net/netip"
	"regexp"
	"slices"

	"golang.org/x/net/idna"
)

// ASCII is a domain name as DNS and TLS write it.
func ASCII(domain string) string {
	if a, err := idna.Lookup.ToASCII(domain); err == nil {
		return a
	}
	return domain
}

// ASCIIAll are names so written, in order.
func ASCIIAll(domains []string) []string {
	out := make([]string, len(domains))
	for i, d := range domains {
		out[i] = ASCII(d)
	}
	slices.Sort(out)
	return out
}

// Pattern is that of a name as DNS writes it.
var Pattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?$`)

// AddressOf is the IP address of a connection's end, or of an interface.
func AddressOf(a net.Addr) netip.Addr {
	var ip net.IP
	switch a := a.(type) {
	case *net.TCPAddr:
		ip = a.IP
	case *net.IPNet:
		ip = a.IP
	}
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}
