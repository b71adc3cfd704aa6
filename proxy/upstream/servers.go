package upstream

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"net"
	"sync"
	"time"

	"otrproxy/config"
	"otrproxy/proxy/causes"
	"otrproxy/proxy/dnssec"
	"otrproxy/proxy/journal"
	"otrproxy/proxy/notify"
)

// Servers is what is known of the servers that people log in to, and the way to them: where they
// are, what they are held to, and what they have presented.
type Servers struct {
	config     func() *config.Config
	log        *journal.Journal
	resolver   *net.Resolver
	dns        func() *dnssec.Resolver // as the machine is set now
	dialer     func(ctx context.Context, network, addr string) (net.Conn, error)
	roots      *x509.CertPool    // nil for the system's
	LocalCA    *x509.Certificate // our own, which vouches for no server; nil for none
	Pins       *Pins
	Ours       func() []net.Addr        // where otrproxy itself listens
	Household  func(domain string) bool // somebody has an account there
	Failed     func(causes.Cause)       // is told of connections that were not made
	Bell       *notify.Bell             // nil for who only looks
	TellAdmins func(text string)        // what is theirs to decide
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

// New finds servers by what the machine is set to, unless by says otherwise.
func New(cfg func() *config.Config, log *journal.Journal, pins *Pins, by Network) *Servers {
	sv := &Servers{config: cfg, log: log, resolver: by.Resolver, dns: dnssec.System, dialer: by.Dial, roots: by.Roots, Pins: pins, Ours: func() []net.Addr { return nil }, Household: func(string) bool { return false }, Failed: func(causes.Cause) {}, TellAdmins: func(string) {},
		refusals: map[string]*refusal{}, certificates: map[string]*certificateSeen{}, moves: map[string]moved{}}
	if sv.resolver == nil {
		sv.resolver = net.DefaultResolver
	}
	if by.DNSSEC != "" {
		v := dnssec.New(true, by.DNSSEC)
		sv.dns = func() *dnssec.Resolver { return v }
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
	f     *causes.Failure
	until time.Time
	pause time.Duration
}

const (
	firstPause   = time.Second
	longestPause = 30 * time.Second
)

func (sv *Servers) refused(domain string) *causes.Failure {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	if r := sv.refusals[domain]; r != nil && time.Now().Before(r.until) {
		return r.f
	}
	return nil
}

// Concerns reports whether a domain is one of the household's: the configuration names
// it, something of it is pinned, or there is an account. Anybody on this machine can have
// others dialled.
func (sv *Servers) Concerns(domain string) bool {
	_, configured := sv.config().Domains[domain]
	return configured || len(sv.Pins.Of(domain)) > 0 || sv.Household(domain)
}

func (sv *Servers) remember(domain string, f *causes.Failure) {
	if !f.Cause.Certificate() {
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
	fresh := r.f == nil || PresentedPin(r.f) != PresentedPin(f)
	r.f, r.until = f, time.Now().Add(r.pause)
	r.pause = min(2*r.pause, longestPause)
	sv.mu.Unlock()
	if fresh && sv.Concerns(domain) {
		sv.Bell.Happened(notify.EventServerRefused, "", domain)
		sv.TellAdmins(f.Text)
	}
}

// Unforgiven are the refusals that nothing has changed about yet, by domain.
func (sv *Servers) Unforgiven() map[string]*causes.Failure {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	out := map[string]*causes.Failure{}
	for domain, r := range sv.refusals {
		out[domain] = r.f
	}
	return out
}

// pardon forgets the refusal of a server that has satisfied us since.
func (sv *Servers) pardon(domain string) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	delete(sv.refusals, domain)
}

// Forgive forgets refusals, after a person has changed what is trusted.
func (sv *Servers) Forgive() {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	clear(sv.refusals)
}

// PresentedPin is the pin of the certificate that was refused, "" for none.
func PresentedPin(f *causes.Failure) string {
	if f.Cert == nil {
		return ""
	}
	leaf, _ := PinsOf(f.Cert)
	return leaf.String()
}
