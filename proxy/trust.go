package proxy

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"net"
	"sync"
	"time"

	"otrproxy/config"
)

// servers is what is known of the servers that people log in to, and the way to them: where they
// are, what they are held to, and what they have presented.
type servers struct {
	config     func() *config.Config
	log        *journal
	resolver   *net.Resolver
	dns        func() *validating // as the machine is set now
	dialer     func(ctx context.Context, network, addr string) (net.Conn, error)
	roots      *x509.CertPool    // nil for the system's
	localCA    *x509.Certificate // our own, which vouches for no server; nil for none
	pins       *pinStore
	ours       func() []net.Addr        // where otrproxy itself listens
	household  func(domain string) bool // somebody has an account there
	failed     func(FailureCause)       // is told of connections that were not made
	bell       *bell                    // nil for who only looks
	tellAdmins func(text string)        // what is theirs to decide
	circuits   [32]byte                 // by which accounts differ towards SOCKS proxies; set once

	mu           sync.Mutex // guards the rest
	refusals     map[string]*refusal
	certificates map[string]*certificateSeen // last seen, by domain
	moves        map[string]moved            // where servers have sent their clients
}

// A Network is how servers are found and reached; its zero value is the machine's own way.
type Network struct {
	Roots    *x509.CertPool // CAs for trust "ca" and first use; nil for the system's
	Resolver *net.Resolver  // nil for the system's
	DNSSEC   string         // host:port of a DNS server on this machine that validates; "" for what the system has
	Dial     func(ctx context.Context, network, addr string) (net.Conn, error)
}

// newServers finds servers by what the machine is set to, unless by says otherwise.
func newServers(cfg func() *config.Config, log *journal, pins *pinStore, by Network) *servers {
	sv := &servers{config: cfg, log: log, resolver: by.Resolver, dns: systemResolver, dialer: by.Dial, roots: by.Roots, pins: pins, ours: func() []net.Addr { return nil }, household: func(string) bool { return false }, failed: func(FailureCause) {}, tellAdmins: func(string) {},
		refusals: map[string]*refusal{}, certificates: map[string]*certificateSeen{}, moves: map[string]moved{}}
	if sv.resolver == nil {
		sv.resolver = net.DefaultResolver
	}
	if by.DNSSEC != "" {
		v := newValidating(true, by.DNSSEC)
		sv.dns = func() *validating { return v }
	}
	if sv.dialer == nil {
		sv.dialer = (&net.Dialer{Resolver: sv.resolver}).DialContext
	}
	rand.Read(sv.circuits[:])
	return sv
}

// A refusal is a certificate that was refused a moment ago: a client that tries
// again and again is answered without dialling.
type refusal struct {
	f     *Failure
	until time.Time
	pause time.Duration
}

const (
	firstPause   = time.Second
	longestPause = 30 * time.Second
)

func (sv *servers) refused(domain string) *Failure {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	if r := sv.refusals[domain]; r != nil && time.Now().Before(r.until) {
		return r.f
	}
	return nil
}

// concerns reports whether a domain is one of the household's: the configuration names
// it, something of it is pinned, or there is an account. Anybody on this machine can have
// others dialled.
func (sv *servers) concerns(domain string) bool {
	_, configured := sv.config().Domains[domain]
	return configured || len(sv.pins.of(domain)) > 0 || sv.household(domain)
}

func (sv *servers) remember(domain string, f *Failure) {
	if !f.Cause.certificate() {
		return
	}
	sv.mu.Lock()
	r := sv.refusals[domain]
	if r == nil {
		if len(sv.refusals) > 1000 {
			clear(sv.refusals)
		}
		r = &refusal{pause: firstPause}
		sv.refusals[domain] = r
	}
	fresh := r.f == nil || presentedPin(r.f) != presentedPin(f)
	r.f, r.until = f, time.Now().Add(r.pause)
	r.pause = min(2*r.pause, longestPause)
	sv.mu.Unlock()
	if fresh && sv.concerns(domain) {
		sv.bell.happened(EventServerRefused, "", domain)
		sv.tellAdmins(f.Text)
	}
}

// unforgiven are the refusals that nothing has changed about yet, by domain.
func (sv *servers) unforgiven() map[string]*Failure {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	out := map[string]*Failure{}
	for domain, r := range sv.refusals {
		out[domain] = r.f
	}
	return out
}

// pardon forgets the refusal of a server that has satisfied us since.
func (sv *servers) pardon(domain string) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	delete(sv.refusals, domain)
}

// forgive forgets refusals, after a person has changed what is trusted.
func (sv *servers) forgive() {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	clear(sv.refusals)
}

// presentedPin is the pin of the certificate that was refused, "" for none.
func presentedPin(f *Failure) string {
	if f.cert == nil {
		return ""
	}
	leaf, _ := pinsOf(f.cert)
	return leaf.String()
}
