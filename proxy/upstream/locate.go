package upstream

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"otrproxy/config"
	"otrproxy/proxy/causes"
	"otrproxy/proxy/hostname"
	"otrproxy/stanza"
)

// A Target is one place to try.
type Target struct {
	Host     string // as DNS writes it
	Port     uint16
	direct   bool // TLS from the first byte (XEP-0368)
	priority uint16
	weight   uint16
}

// Addr is host:port.
func (t Target) Addr() string { return net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port))) }

// String is the place as people read it.
func (t Target) String() string {
	if t.direct {
		return t.Addr() + " (direct TLS)"
	}
	return t.Addr() + " (STARTTLS)"
}

// maxPlaces are tried of those that DNS names: who writes there does not have us knock at
// thousands of doors.
const maxPlaces = 20

// Ports of XMPP clients where nothing else is said.
const (
	portSTARTTLS  = 5222
	portDirectTLS = 5223
)

// Targets finds where a domain's server is (RFC 6120 section 3.2, XEP-0368).
func (sv *Servers) Targets(ctx context.Context, d config.Domain) ([]Target, *causes.Failure) {
	if d.Via == "" && (onion(d.Connect) || d.Connect == "" && onion(d.Name)) {
		return nil, causes.New(causes.FailDNS, nil, "%s is reached through Tor only. Set via for it in the configuration, such as via: socks5://127.0.0.1:9050.", d.Name)
	}
	if d.Connect != "" {
		host, port, _ := net.SplitHostPort(d.Connect)
		n, _ := strconv.Atoi(port)
		direct := d.TLS == config.TLSDirect || d.TLS == config.TLSAuto && n == portDirectTLS
		return []Target{{Host: hostname.ASCII(host), Port: uint16(n), direct: direct}}, nil
	}
	if d.Via != "" {
		return itself(d), nil // DNS would tell others who talks to whom, and a SOCKS proxy has no SRV records
	}
	found, none, f := sv.lookup(ctx, d)
	if f != nil {
		return nil, f
	}
	if len(found) > 0 {
		found = inOrder(found)
		return found[:min(len(found), maxPlaces)], nil
	}
	if none {
		return nil, causes.New(causes.FailDNS, nil, "%s says in DNS that it has no XMPP service.", d.Name)
	}
	return itself(d)[:1], nil
}

// itself is the host of the domain's own name: what is left where DNS names no other
// (RFC 6120 section 3.2.2), on both ports where DNS could not be asked.
func itself(d config.Domain) (out []Target) {
	if d.TLS != config.TLSDirect {
		out = append(out, Target{Host: hostname.ASCII(d.Name), Port: portSTARTTLS})
	}
	if d.TLS != config.TLSStartTLS {
		out = append(out, Target{Host: hostname.ASCII(d.Name), Port: portDirectTLS, direct: true})
	}
	return out
}

// onion reports whether a host, with a port or without, is one of Tor's own (RFC 7686),
// which must not be looked for in DNS.
func onion(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.HasSuffix(strings.ToLower(strings.TrimSuffix(hostname.ASCII(host), ".")), ".onion")
}

// lookup asks DNS for both services at once. None reports that DNS says there is no such
// service: its only record is the root (RFC 2782). Where DNS is to say who the server is,
// it must have signed what it says (RFC 7673 section 3.1).
func (sv *Servers) lookup(ctx context.Context, d config.Domain) (found []Target, none bool, f *causes.Failure) {
	type answer struct {
		records []*net.SRV
		err     error
	}
	ask := func(service string) (a answer) {
		if d.Trust != config.TrustDANE {
			_, a.records, a.err = sv.resolver.LookupSRV(ctx, service, "tcp", hostname.ASCII(d.Name))
			return a
		}
		secure := false
		if a.records, secure, a.err = sv.dns().SecureSRV(ctx, service, d.Name); a.err == nil && !secure {
			a.err = errors.New("its records in DNS are not signed")
		}
		return a
	}
	var direct, starttls answer
	var wg sync.WaitGroup
	if d.TLS != config.TLSStartTLS {
		wg.Go(func() { direct = ask("xmpps-client") })
	}
	if d.TLS != config.TLSDirect {
		wg.Go(func() { starttls = ask("xmpp-client") })
	}
	wg.Wait()
	for i, a := range []answer{direct, starttls} {
		overTLS := i == 0
		var dns *net.DNSError
		switch {
		case a.err == nil:
		case d.Trust == config.TrustDANE:
			return nil, false, causes.New(causes.FailDNS, a.err, "The server of %s cannot be found in a way that is signed, as trust: dane demands: %v. Set another trust, or connect, for the domain in the configuration.", d.Name, a.err)
		case errors.As(a.err, &dns) && !dns.IsNotFound:
			sv.log.Debug("SRV lookup failed", "domain", d.Name, "timeout", dns.IsTimeout, "temporary", dns.IsTemporary)
		}
		for _, r := range a.records {
			if r.Target == "." || r.Target == "" {
				none = none || !overTLS || d.TLS == config.TLSDirect
				continue
			}
			if r.Port == 0 {
				continue
			}
			found = append(found, Target{strings.TrimSuffix(r.Target, "."), r.Port, overTLS, r.Priority, r.Weight})
		}
	}
	return found, none, nil
}

// inOrder puts places into the order in which they are tried: by priority, and within
// one drawn by weight (RFC 2782), both services as one (XEP-0368 section 3).
func inOrder(found []Target) (out []Target) {
	slices.SortStableFunc(found, func(a, b Target) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.weight, b.weight))
	})
	for len(found) > 0 {
		same := 0
		total := 0
		for same < len(found) && found[same].priority == found[0].priority {
			total += int(found[same].weight)
			same++
		}
		pick, at := rand.IntN(total+1), 0
		for sum := int(found[0].weight); sum < pick; sum += int(found[at].weight) {
			at++
		}
		out = append(out, found[at])
		found = slices.Delete(found, at, at+1)
	}
	return out
}

// elsewhere is where a server sends its clients (RFC 6120 section 4.9.3.19): a host, and
// maybe a port.
var elsewhere = regexp.MustCompile(`^(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?))(?::([0-9]{1,5}))?$`)

// SentTo reads where a stream error sends its clients; nil where it does not.
func SentTo(st *stanza.Stanza) *Target {
	el, ok := st.Root().Child(stanza.NSStreams, "see-other-host")
	if !ok {
		return nil
	}
	return parseElsewhere(el.Text())
}

func parseElsewhere(text string) *Target {
	m := elsewhere.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return nil
	}
	t := &Target{Host: m[1] + m[2], Port: portSTARTTLS}
	if m[3] != "" {
		n, err := strconv.ParseUint(m[3], 10, 16)
		if err != nil || n == 0 {
			return nil
		}
		t.Port = uint16(n)
	}
	t.direct = t.Port == portDirectTLS
	return t
}

// mayFollow checks where a server sends us. It may be anywhere but on this machine or in its
// networks, where a server that lies would have us look around; but for a server that the
// configuration itself places there. The place is returned as it was looked up, so that it is
// not another one a moment later; with DANE by its name, which DNS has signed.
func (sv *Servers) mayFollow(ctx context.Context, d config.Domain, t Target) (Target, *causes.Failure) {
	refused := func(where string) *causes.Failure {
		f := causes.New(causes.FailProtocol, nil, "The server of %s sends its clients to %s, which is %s; it was not followed. If that is right, set \"connect\" for the domain in the configuration.", d.Name, t.Addr(), where)
		f.Host = t.Host
		return f
	}
	if dubious(t.Host) {
		return t, refused("no name or address of a machine")
	}
	found := sv.addressesOf(ctx, d, t.Host)
	if len(found) == 0 && d.Via == "" && d.Trust != config.TrustDANE { // looked up once more, it could be anywhere
		return t, refused("not to be found")
	}
	home := map[string]bool{}
	if configured := sv.config().Domains[d.Name].Connect; configured != "" {
		if host, _, err := net.SplitHostPort(configured); err == nil {
			for _, ip := range sv.addressesOf(ctx, d, host) {
				home[inside(ip)] = true
			}
		}
	}
	for _, ip := range found {
		if where := inside(ip); where != "" && !home[where] {
			return t, refused(where)
		}
	}
	if len(found) > 0 && d.Trust != config.TrustDANE && d.Via == "" {
		i := max(0, slices.IndexFunc(found, func(ip netip.Addr) bool { return ip.Unmap().Is4() })) // which more networks have a way to
		t.Host = found[i].String()
	}
	return t, nil
}

// addressesOf are a host's addresses; none where they cannot be had, or are not to be looked
// for from here.
func (sv *Servers) addressesOf(ctx context.Context, d config.Domain, host string) []netip.Addr {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}
	}
	if host = strings.ToLower(strings.TrimSuffix(host, ".")); host == "localhost" || strings.HasSuffix(host, ".localhost") { // RFC 6761 section 6.3
		return []netip.Addr{netip.IPv6Loopback()}
	}
	if d.Via != "" {
		return nil
	}
	found, _ := sv.resolver.LookupNetIP(ctx, "ip", host)
	return found
}

// dubious reports whether a host is a number that some take for an address in another
// notation: 127.1, 2130706433, 0x7f000001.
func dubious(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return false
	}
	last := strings.TrimSuffix(host, ".")
	last = last[strings.LastIndexByte(last, '.')+1:]
	_, err := strconv.ParseUint(last, 0, 64)
	return err == nil || strings.HasPrefix(strings.ToLower(last), "0x")
}

// shared are addresses that networks use inside (RFC 6598).
var shared = netip.MustParsePrefix("100.64.0.0/10")

// inside says what an address is that is not out in the Internet; "" for one that is.
func inside(ip netip.Addr) string {
	ip = ip.Unmap()
	switch {
	case ip.IsLoopback(), ip.IsUnspecified():
		return "an address of this machine"
	case ip.IsPrivate(), ip.IsLinkLocalUnicast(), ip.Is4() && shared.Contains(ip):
		return "an address of its own network"
	case !ip.IsGlobalUnicast():
		return "no address of a machine"
	}
	return ""
}

// Only is a domain whose server is looked for in one place.
func Only(d config.Domain, t Target) config.Domain {
	d.Connect, d.TLS = t.Addr(), config.TLSStartTLS
	if t.direct {
		d.TLS = config.TLSDirect
	}
	return d
}

const (
	maxHops   = 3           // from one server to the next
	movedLife = time.Minute // for which a server's word is kept that its clients are to come elsewhere
)

// A moved is where a server has sent its client. One that was logged in comes back to us, and
// the next connection goes there; only that one.
type moved struct {
	to    Target
	until time.Time
}

func (m *moved) Error() string { return "the server sends its clients to " + m.to.Addr() }

// SentBy is where a failure sends the client; nil where it does not.
func SentBy(f *causes.Failure) *Target {
	m, ok := f.Err.(*moved) // not one inside another failure: that there was no time left, say
	if !ok {
		return nil
	}
	return &m.to
}

// moves are kept by domain; where accounts are kept apart, by account, too: else a server
// could tell by where somebody comes that two belong together.
func moveKey(d config.Domain, account string) string {
	if d.Via == "" {
		return d.Name
	}
	return d.Name + "/" + account
}

// Move notes where a server has sent an account's client; nil for nowhere.
func (sv *Servers) Move(d config.Domain, account string, t *Target) {
	if t == nil {
		return
	}
	sv.mu.Lock()
	defer sv.mu.Unlock()
	if len(sv.moves) > 1000 {
		clear(sv.moves)
	}
	sv.moves[moveKey(d, account)] = moved{*t, time.Now().Add(movedLife)}
}

// whereTo is a domain as the next connection finds it, and whether its server has moved
// us there.
func (sv *Servers) whereTo(ctx context.Context, d config.Domain, account string) (there config.Domain, moved bool) {
	sv.mu.Lock()
	key := moveKey(d, account)
	m, ok := sv.moves[key]
	delete(sv.moves, key)
	sv.mu.Unlock()
	if !ok || time.Now().After(m.until) {
		return d, false
	}
	to, f := sv.mayFollow(ctx, d, m.to)
	if f != nil {
		sv.log.Warn("a server sends its clients where it has nothing to say", "domain", d.Name, "why", sv.log.Redact(f))
		return d, false
	}
	return Only(d, to), true
}

// Serves reports whether a place is that of a server people may log in to.
func (sv *Servers) Serves(ctx context.Context, host string, port int) bool {
	host = spelled(host)
	at := net.JoinHostPort(host, strconv.Itoa(port))
	usual := port == portSTARTTLS || port == portDirectTLS
	domains := sv.config().Domains
	if len(domains) == 0 {
		return usual
	}
	for name, d := range domains {
		if usual && (host == hostname.ASCII(name) || strings.HasSuffix(host, "."+hostname.ASCII(name))) {
			return true
		}
		if h, n, err := net.SplitHostPort(d.Connect); err == nil && net.JoinHostPort(spelled(h), n) == at {
			return true
		}
	}
	if !hostname.Pattern.MatchString(host) || net.ParseIP(host) != nil {
		return false // no record of DNS could name it
	}
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	for _, d := range domains { // the client may have asked DNS itself
		if d.Via != "" || d.Connect != "" || d.Trust == config.TrustDANE {
			continue
		}
		if found, _, f := sv.lookup(ctx, d); f == nil && slices.ContainsFunc(found, func(t Target) bool { return t.Port == uint16(port) && spelled(t.Host) == host }) {
			return true
		}
	}
	return false
}

// spelled is a host as it is compared.
func spelled(host string) string {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().String()
	}
	return hostname.ASCII(strings.TrimSuffix(strings.ToLower(host), "."))
}
