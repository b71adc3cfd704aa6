package proxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"otrproxy/config"
	"otrproxy/otrlayer"
	"otrproxy/stanza"
)

// Namespaces of stream features.
const (
	nsRegisterFeature = "http://jabber.org/features/iq-register"
	nsSASLBinding     = "urn:xmpp:sasl-cb:0"
)

// An upstream is the leg to a server: secured, checked, and ready for a login.
type upstream struct {
	domain   config.Domain
	conn     *tls.Conn
	in       *inlet
	scan     *stanza.Scanner
	held     string // the pin that the server satisfied, "" for a CA
	features *stanza.Stanza
}

// A target is one place to try.
type target struct {
	host     string
	port     uint16
	direct   bool
	priority uint16
}

func (t target) addr() string { return net.JoinHostPort(t.host, strconv.Itoa(int(t.port))) }

// targets finds where a domain's server is (RFC 6120 section 3.2, XEP-0368).
func (p *Proxy) targets(ctx context.Context, d config.Domain) ([]target, *Failure) {
	if d.Connect != "" {
		host, port, _ := net.SplitHostPort(d.Connect)
		n, _ := strconv.Atoi(port)
		direct := d.TLS == config.TLSDirect || d.TLS == config.TLSAuto && n == 5223
		return []target{{host: host, port: uint16(n), direct: direct}}, nil
	}
	var out []target
	none := false
	for _, s := range []struct {
		service string
		direct  bool
		unless  config.TLSMode
	}{{"xmpps-client", true, config.TLSStartTLS}, {"xmpp-client", false, config.TLSDirect}} {
		if d.TLS == s.unless {
			continue
		}
		_, records, err := p.resolver.LookupSRV(ctx, s.service, "tcp", ascii(d.Name))
		if err != nil {
			var dns *net.DNSError
			if errors.As(err, &dns) && !dns.IsNotFound {
				p.log.Debug("SRV lookup failed", "domain", p.name(d.Name), "timeout", dns.IsTimeout, "temporary", dns.IsTemporary)
			}
			continue
		}
		for _, r := range records {
			if r.Target == "." || r.Target == "" {
				none = true
				continue
			}
			out = append(out, target{strings.TrimSuffix(r.Target, "."), r.Port, s.direct, r.Priority})
		}
	}
	// Both services in one order; within a priority LookupSRV has drawn by weight.
	slices.SortStableFunc(out, func(a, b target) int { return cmp.Compare(a.priority, b.priority) })
	if len(out) > 0 {
		return out, nil
	}
	if none {
		return nil, fail(FailDNS, nil, "%s says in DNS that it has no XMPP service.", d.Name)
	}
	t := target{host: ascii(d.Name), port: 5222}
	if d.TLS == config.TLSDirect {
		t.port, t.direct = 5223, true
	}
	return []target{t}, nil
}

const dialLimit = 10 * time.Second // for one address

// dial connects to a domain's server, secures the connection and checks the
// certificate. Nothing of the client has been sent when it returns.
func (p *Proxy) dial(ctx context.Context, d config.Domain) (*upstream, *Failure) {
	if f := p.refused(d.Name); f != nil {
		return nil, f
	}
	u, f := p.connect(ctx, d)
	if f != nil {
		p.metrics.upstreamFailed(f.Cause)
		p.remember(d.Name, f)
		return nil, f
	}
	p.mu.Lock()
	delete(p.refusals, d.Name)
	p.mu.Unlock()
	p.changed()
	return u, nil
}

func (p *Proxy) connect(ctx context.Context, d config.Domain) (u *upstream, f *Failure) {
	f = p.reach(ctx, d, func(conn net.Conn, t target) (f *Failure) {
		u, f = p.secure(conn, d, t.direct)
		return f
	})
	if f != nil {
		return nil, f
	}
	return u, nil
}

// reach connects to the first place of a domain's server that answers, and has it used.
// The connection is closed where that fails.
func (p *Proxy) reach(ctx context.Context, d config.Domain, use func(net.Conn, target) *Failure) *Failure {
	places, f := p.targets(ctx, d)
	if f != nil {
		return f
	}
	for _, t := range places {
		dctx, cancel := context.WithTimeout(ctx, dialLimit)
		conn, err := p.opt.Dial(dctx, "tcp", t.addr())
		cancel()
		if err != nil {
			var dns *net.DNSError
			switch {
			case errors.As(err, &dns):
				f = fail(FailDNS, err, "The server of %s was not found: there is no host %s. Check the spelling of the domain, or set connect for it in the configuration.", d.Name, t.host)
			case ctx.Err() != nil:
				return fail(FailTimeout, err, "The server of %s did not answer in time.", d.Name)
			default:
				f = fail(FailTCP, err, "The server of %s cannot be reached at %s: %v. It may be down, or this machine may be offline.", d.Name, t.addr(), short(err))
			}
			continue // to the next place; what a server does wrong ends the search
		}
		if p.listensAt(conn) {
			conn.Close()
			return fail(FailTCP, nil, "The name of the server of %s leads to %s, where otrproxy itself listens. Set \"connect\" for the domain in the configuration to where the server is.", d.Name, t.addr())
		}
		stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })
		f := use(conn, t)
		if !stop() && f == nil {
			f = fail(FailTimeout, ctx.Err(), "The server of %s did not answer in time.", d.Name)
		}
		if f != nil {
			conn.Close()
			if ctx.Err() != nil && f.Cause != FailTimeout {
				f = fail(FailTimeout, f, "The server of %s did not answer in time.", d.Name)
			}
			return f
		}
		return nil
	}
	return f
}

// listensAt reports whether a connection leads back to this very program: it would
// connect to itself without end.
func (p *Proxy) listensAt(conn net.Conn) bool {
	there, ok := conn.RemoteAddr().(*net.TCPAddr)
	here, ok2 := conn.LocalAddr().(*net.TCPAddr)
	if !ok || !ok2 {
		return false
	}
	for _, a := range p.Addrs() {
		if own, ok := a.(*net.TCPAddr); ok && own.Port == there.Port && (own.IP.Equal(there.IP) || own.IP.IsUnspecified() && there.IP.Equal(here.IP)) {
			return true
		}
	}
	return false
}

// presented is what a domain's server presents, looked at and not trusted: nothing is
// sent to it but what TLS needs.
func (p *Proxy) presented(ctx context.Context, d config.Domain) (cs tls.ConnectionState, address string, f *Failure) {
	f = p.reach(ctx, d, func(conn net.Conn, t target) *Failure {
		defer conn.Close()
		address = t.addr()
		if !t.direct {
			if f := p.startTLS(conn, d); f != nil {
				return f
			}
		}
		cfg := &tls.Config{ServerName: ascii(d.Name), InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}
		if t.direct {
			cfg.NextProtos = []string{"xmpp-client"}
		}
		c := tls.Client(conn, cfg)
		if err := c.Handshake(); err != nil {
			return fail(FailTLS, err, "No TLS connection to the server of %s: %v.", d.Name, err)
		}
		if cs = c.ConnectionState(); len(cs.PeerCertificates) == 0 {
			return fail(FailTLS, nil, "The server of %s presented no certificate.", d.Name)
		}
		return nil
	})
	return cs, address, f
}

// short is an error of the net package without the addresses, which are said already.
func short(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err.Error()
	}
	return err.Error()
}

// secure takes a connection to where a stream over checked TLS has shown its features.
func (p *Proxy) secure(conn net.Conn, d config.Domain, direct bool) (*upstream, *Failure) {
	u := &upstream{domain: d}
	if !direct {
		if f := p.startTLS(conn, d); f != nil {
			return nil, f
		}
	}
	var refused *Failure
	cfg := &tls.Config{
		ServerName:         ascii(d.Name), // the JID's domain, never the SRV target (RFC 6120 section 13.7.2.1)
		InsecureSkipVerify: true,          // checkServer decides, on resumption as well
		MinVersion:         tls.VersionTLS12,
		VerifyConnection: func(cs tls.ConnectionState) error {
			u.held, refused = p.checkServer(d, cs)
			if refused != nil {
				return refused
			}
			return nil
		},
	}
	if direct {
		cfg.NextProtos = []string{"xmpp-client"}
	}
	u.conn = tls.Client(conn, cfg)
	if err := u.conn.Handshake(); err != nil {
		if refused != nil {
			return nil, refused
		}
		return nil, fail(FailTLS, err, "No TLS connection to the server of %s: %v.", d.Name, err)
	}
	u.expectStream(p.serverLimits())
	if f := u.openStream(stanza.Header{To: d.Name}); f != nil {
		return nil, f
	}
	return u, nil
}

// startTLS asks for TLS on a plain stream (RFC 6120 section 5). Features seen here
// are forgotten.
func (p *Proxy) startTLS(conn net.Conn, d config.Domain) *Failure {
	scan := stanza.NewScanner(conn, stanza.Limits{Bytes: 64 << 10})
	plain := &upstream{domain: d, scan: scan}
	if _, err := conn.Write(stanza.Header{To: d.Name}.AppendTo(nil)); err != nil {
		return lost(d, err)
	}
	if f := plain.readHeader(); f != nil {
		return f
	}
	st, f := plain.read()
	if f != nil {
		return f
	}
	if !st.Is(stanza.NSStream, "features") {
		return fail(FailProtocol, nil, "The server of %s did not offer its features.", d.Name)
	}
	if _, ok := st.Root().Child(stanza.NSTLS, "starttls"); !ok {
		return fail(FailStripped, nil, "The server of %s offers no encryption (STARTTLS), or somebody on the way has removed the offer; nothing was sent.", d.Name)
	}
	if _, err := io.WriteString(conn, "<starttls xmlns='"+stanza.NSTLS+"'/>"); err != nil {
		return lost(d, err)
	}
	if st, f = plain.read(); f != nil {
		return f
	}
	if !st.Is(stanza.NSTLS, "proceed") {
		return fail(FailTLS, nil, "The server of %s offered encryption (STARTTLS) and then refused it.", d.Name)
	}
	if len(scan.Buffered()) > 0 {
		return fail(FailInjected, nil, "The server of %s sent something in clear behind its answer to STARTTLS, which somebody on the way may have put there; nothing was sent.", d.Name)
	}
	return nil
}

func lost(d config.Domain, err error) *Failure {
	return fail(FailTCP, err, "The server of %s closed the connection: %v.", d.Name, short(err))
}

// expectStream begins to read a new stream.
func (u *upstream) expectStream(lim stanza.Limits) {
	u.in = &inlet{conn: u.conn}
	u.scan = stanza.NewScanner(u.in, lim)
}

// openStream sends a stream header over TLS and reads the server's and its features.
func (u *upstream) openStream(h stanza.Header) *Failure {
	if _, err := u.conn.Write(h.AppendTo(nil)); err != nil {
		return lost(u.domain, err)
	}
	if f := u.readHeader(); f != nil {
		return f
	}
	st, f := u.read()
	if f != nil {
		return f
	}
	if !st.Is(stanza.NSStream, "features") {
		return fail(FailProtocol, nil, "The server of %s did not offer its features.", u.domain.Name)
	}
	u.features = st.Clone()
	return nil
}

func (u *upstream) readHeader() *Failure {
	st, err := u.scan.Next()
	if err != nil {
		return u.broken(err)
	}
	if st.Kind != stanza.KindHeader {
		return fail(FailProtocol, nil, "The server of %s does not speak XMPP.", u.domain.Name)
	}
	return nil
}

// read returns the next element; a stream error is a failure that carries what
// the server says.
func (u *upstream) read() (*stanza.Stanza, *Failure) {
	for {
		st, err := u.scan.Next()
		switch {
		case err != nil:
			return nil, u.broken(err)
		case st.Kind == stanza.KindSpace:
			continue
		case st.Kind == stanza.KindClose:
			return nil, fail(FailProtocol, nil, "The server of %s ended the connection.", u.domain.Name)
		case st.Is(stanza.NSStream, "error"):
			cond, text := streamError(st)
			cause := FailProtocol
			if cond == "host-unknown" {
				cause = FailDomain
			}
			f := fail(cause, nil, "The server of %s refused the connection: %s.", u.domain.Name, cond+text)
			f.Quoted = text
			return nil, f
		}
		return st, nil
	}
}

func (u *upstream) broken(err error) *Failure {
	var se *stanza.SyntaxError
	switch {
	case errors.As(err, &se):
		f := fail(FailProtocol, err, "The server of %s sent something that is not XMPP: %s.", u.domain.Name, se.Reason)
		f.Quoted = se.Quoted
		return f
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fail(FailTCP, err, "The server of %s closed the connection.", u.domain.Name)
	}
	return lost(u.domain, err)
}

// streamError is the condition of a stream error and its text in brackets.
func streamError(st *stanza.Stanza) (condition, text string) {
	for c := range st.Root().Children() {
		if string(c.NS()) != stanza.NSStreams {
			continue
		}
		if string(c.Local()) == "text" {
			if t := c.Text(); t != "" {
				text = " (" + oneLine(t) + ")"
			}
		} else if l := string(c.Local()); condition == "" && streamConditions[l] {
			condition = l
		}
	}
	if condition == "" {
		condition = "undefined-condition"
	}
	return condition, text
}

// streamConditions are those of RFC 6120 section 4.9.3 that say nothing but themselves.
var streamConditions = map[string]bool{"bad-format": true, "bad-namespace-prefix": true, "conflict": true, "connection-timeout": true, "host-gone": true,
	"host-unknown": true, "improper-addressing": true, "internal-server-error": true, "invalid-from": true, "invalid-namespace": true, "invalid-xml": true,
	"not-authorized": true, "not-well-formed": true, "policy-violation": true, "remote-connection-failed": true, "reset": true, "resource-constraint": true,
	"restricted-xml": true, "system-shutdown": true, "unsupported-encoding": true, "unsupported-feature": true, "unsupported-stanza-type": true, "unsupported-version": true}

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

func (p *Proxy) refused(domain string) *Failure {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.refusals[domain]; r != nil && time.Now().Before(r.until) {
		return r.f
	}
	return nil
}

// concerns reports whether a domain is one of the household's: the configuration names
// it, something of it is pinned, or there is an account. Anybody on this machine can have
// others dialled.
func (p *Proxy) concerns(domain string) bool {
	_, configured := p.Config().Domains[domain]
	return configured || len(p.pins.of(domain)) > 0 ||
		slices.ContainsFunc(otrlayer.Accounts(p.state.Dir), func(jid string) bool { return bareDomain(jid) == domain })
}

func (p *Proxy) remember(domain string, f *Failure) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !f.Cause.certificate() {
		return
	}
	r := p.refusals[domain]
	if r == nil {
		if len(p.refusals) > 1000 {
			clear(p.refusals)
		}
		r = &refusal{pause: firstPause}
		p.refusals[domain] = r
	}
	if (r.f == nil || r.f.Presented != f.Presented) && p.concerns(domain) {
		defer p.happened(EventServerRefused, "", domain)
	}
	r.f, r.until = f, time.Now().Add(r.pause)
	r.pause = min(2*r.pause, longestPause)
}

// forgive forgets refusals, after a person has changed what is trusted.
func (p *Proxy) forgive() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.refusals)
}
