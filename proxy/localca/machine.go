package localca

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"otrproxy/config"
	"otrproxy/proxy/hostname"
)

// By which names and addresses clients reach this machine. Some clients check our
// certificate against these and not against the domain, so they stand in it as far as the
// local CA may sign for them.

// What means something within one network only: public CAs must not vouch for these, and
// nobody reaches another household by them. With them, whoever steals the CA's key can play
// a device of the household's own network to those who trust the CA, and nothing on the
// Internet besides the configured domains.
var (
	homeNames  = []string{"localhost", "lan", "local", "home.arpa", "internal"} // RFC 6761, 6762, 8375, and two that are used the same way
	homeRanges = []netip.Prefix{
		netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"),
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"), // RFC 1918
		netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fd00::/8"), // RFC 3927, 4193
	}
)

// constraints are what a new CA may sign for: the household's domains, this machine's
// names, and whatever is within a household anyway.
func constraints(domains, names []string) (dns []string, ranges []*net.IPNet) {
	dns = append(hostname.ASCIIAll(domains), homeNames...)
	for _, r := range homeRanges {
		ranges = append(ranges, ipNet(r))
	}
	for _, name := range names {
		ip, err := netip.ParseAddr(name)
		switch {
		case err == nil && !slices.ContainsFunc(homeRanges, func(r netip.Prefix) bool { return r.Contains(ip) }):
			ranges = append(ranges, ipNet(netip.PrefixFrom(ip, ip.BitLen())))
		case err != nil && !below(name, dns):
			dns = append(dns, name)
		}
	}
	return dns, ranges
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// below reports whether a name is one of others, or below one (RFC 5280 section 4.2.1.10).
func below(name string, others []string) bool {
	return slices.ContainsFunc(others, func(o string) bool { return name == o || strings.HasSuffix(name, "."+o) })
}

// Constrained reports whether the CA may sign for some names only.
func (a *Authority) Constrained() bool { return len(a.Cert.PermittedDNSDomains) > 0 }

// permitted are those of names and addresses that the CA may sign for.
func (a *Authority) permitted(names []string) (out []string) {
	for _, name := range names {
		ip := net.ParseIP(name)
		if !a.Constrained() ||
			ip == nil && below(hostname.ASCII(name), a.Cert.PermittedDNSDomains) ||
			ip != nil && slices.ContainsFunc(a.Cert.PermittedIPRanges, func(r *net.IPNet) bool { return r.Contains(ip) }) {
			out = append(out, name)
		}
	}
	return out
}

// standIn reports whether a certificate has all of some names and addresses.
func standIn(cert *x509.Certificate, names []string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return cert.VerifyHostname(name) != nil })
}

// subjects are names and addresses as they stand in a certificate, each once.
func subjects(names []string) (dns []string, ips []net.IP) {
	seen := map[string]bool{}
	for _, name := range names {
		if seen[name] {
			continue
		}
		seen[name] = true
		if ip := net.ParseIP(name); ip != nil {
			ips = append(ips, ip)
		} else {
			dns = append(dns, name)
		}
	}
	return dns, ips
}

// A Machine is this machine as clients reach it: by its names and addresses, and with
// certificates of the local CA.
type Machine struct {
	Config func() *config.Config
	CA     *Authority

	mu  sync.Mutex
	Own []string // this machine's addresses, as far as they are known
}

// Leaf is the certificate shown for a domain to who came to an address of ours.
//
// Which addresses this machine has changes, and a client that was told to trust one
// certificate asks again about the next. So a certificate has all of them when it is made,
// and is made anew only when it lacks the one by which somebody has come.
func (m *Machine) Leaf(domain string, at net.Addr) (*tls.Certificate, error) {
	must := m.Names()
	if ip := hostname.AddressOf(at); m.learn(ip) {
		must = append(must, ip.String())
	}
	return m.CA.leaf(domain, must, m.interfaces)
}

// maxOwn bounds what is learned of this machine's addresses.
const maxOwn = 64

// learn notes an address of this machine by which somebody has come, and reports whether it
// is one of those that a certificate should have. The system is asked at the start only: a
// confined process may not. What is not private is not learned, it may be where a transparent
// proxy's client wanted to go.
func (m *Machine) learn(ip netip.Addr) bool {
	if !ip.IsValid() || ip.IsLoopback() || ip.IsUnspecified() || !slices.ContainsFunc(m.Config().Listen, wildcard) {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	known := slices.Contains(m.Own, ip.String())
	if !known && ip.IsPrivate() && len(m.Own) < maxOwn {
		m.Own, known = append(m.Own, ip.String()), true
	}
	return known
}

// Names are those by which this machine is known to be reached: the configured ones, and
// what is listened on.
func (m *Machine) Names() []string {
	cfg := m.Config()
	names := slices.Clone(cfg.Names)
	for _, addr := range cfg.Listen {
		host, _, _ := net.SplitHostPort(addr)
		if ip, err := netip.ParseAddr(host); err == nil {
			host = ip.Unmap().String()
			if ip.IsUnspecified() || ip.IsLoopback() || ip.Zone() != "" {
				continue
			}
		}
		if host = strings.ToLower(host); host != "" && host != "localhost" && !slices.Contains(names, host) {
			names = append(names, host)
		}
	}
	return names
}

// interfaces are this machine's addresses, where all of them are listened on.
func (m *Machine) interfaces() []string {
	if !slices.ContainsFunc(m.Config().Listen, wildcard) {
		return nil
	}
	return m.addresses()
}

// addresses are this machine's addresses that others can reach, as far as they are known.
func (m *Machine) addresses() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.Own)
}

// MachineAddresses asks the system for this machine's addresses that others can reach.
func MachineAddresses() (out []string) {
	addrs, _ := net.InterfaceAddrs() // without them, the configured names are what there is
	for _, a := range addrs {
		if ip := hostname.AddressOf(a); ip.IsGlobalUnicast() || ip.Is4() && ip.IsLinkLocalUnicast() { // IPv6's are nothing without a zone
			out = append(out, ip.String())
		}
	}
	return out
}

// wildcard reports whether an address to listen on stands for all of this machine's.
func wildcard(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip, perr := netip.ParseAddr(host)
	return err == nil && (host == "" || perr == nil && ip.IsUnspecified())
}

// OwnHost reports whether a name is one of this machine's rather than a domain's:
// some clients put the host they connect to into SNI.
func (m *Machine) OwnHost(name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == "localhost" || net.ParseIP(name) != nil {
		return true
	}
	cfg := m.Config()
	_, domain := cfg.Domains[name]
	return !domain && slices.Contains(m.Names(), name)
}

// What the page for devices (package welcome) shows of this machine, and what a person at
// the machine itself compares it with.

// Reached are the host:port by which devices reach something that listens here: by the
// configured names, else by the addresses.
func (m *Machine) Reached(at net.Addr) (out []string) {
	t, ok := at.(*net.TCPAddr)
	if !ok {
		return nil
	}
	port, ip := strconv.Itoa(t.Port), hostname.AddressOf(at)
	hosts := m.Config().Names
	switch {
	case ip.IsLoopback() || len(hosts) == 0 && !ip.IsUnspecified():
		hosts = []string{ip.String()}
	case len(hosts) == 0:
		hosts = m.addresses()
		slices.SortStableFunc(hosts, func(a, b string) int { return strings.Count(a, ":") - strings.Count(b, ":") }) // the short ones first
	}
	for _, h := range hosts {
		if x, err := netip.ParseAddr(h); err != nil || !ip.IsUnspecified() || ip.Is6() || x.Is4() {
			out = append(out, net.JoinHostPort(h, port))
		}
	}
	return out
}
