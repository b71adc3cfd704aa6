package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"

	"otrproxy/config"
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
	place    string // where it is, for people
	conn     *tls.Conn
	wire     *wire // below it
	in       *inlet
	scan     *stanza.Scanner
	held     config.Pin // which the server satisfied; zero for a CA, or DNS
	features *stanza.Stanza
	unhook   func() bool // it ends with the proxy no more
}

// hangUp closes the connection.
func (u *upstream) hangUp() {
	u.conn.Close()
	u.unhook()
}

// pin is the pin that the server satisfied, "" for none.
func (u *upstream) pin() string {
	if u.held == (config.Pin{}) {
		return ""
	}
	return u.held.String()
}

// dial connects to a domain's server for an account, secures the connection and checks
// the certificate. Nothing of the client has been sent when it returns. Account is "" where
// it is not known yet.
func (sv *servers) dial(ctx context.Context, d config.Domain, account string) (*upstream, *Failure) {
	if f := sv.refused(d.Name); f != nil {
		return nil, f
	}
	there, moved := sv.whereTo(ctx, d, account)
	u, f := sv.connect(ctx, there, account)
	if f != nil && moved && f.Cause != FailPin && f.Cause != FailCertificate {
		u, f = sv.connect(ctx, d, account)
	}
	if f != nil {
		sv.failed(f.Cause)
		sv.remember(d.Name, f)
		return nil, f
	}
	sv.pardon(d.Name)
	sv.bell.changed()
	return u, nil
}

// acquaint remembers what a server has presented, once it has let somebody in: names that
// nobody has an account at are not worth a pin.
func (sv *servers) acquaint(u *upstream) (f *Failure) {
	if u.held, f = sv.acquainted(u.domain, u.conn.ConnectionState().PeerCertificates[0], u.held); f != nil {
		sv.failed(f.Cause)
		sv.remember(u.domain.Name, f)
	}
	return f
}

// connect follows a server that sends its clients elsewhere, over the checked connection
// only, to where the same checks hold.
func (sv *servers) connect(ctx context.Context, d config.Domain, account string) (u *upstream, f *Failure) {
	home := d
	for range maxHops + 1 {
		f = sv.reach(ctx, d, account, func(conn net.Conn, t target) (f *Failure) {
			u, f = sv.secure(ctx, conn, d, t)
			return f
		})
		if f == nil {
			return u, nil
		}
		there := sentBy(f)
		if there == nil {
			return nil, f
		}
		to, refused := sv.mayFollow(ctx, home, *there)
		if refused != nil {
			return nil, refused
		}
		d = only(d, to)
	}
	return nil, fail(FailProtocol, f, "The server of %s sends its clients from one place to the next; after %d of them the connection was given up.", d.Name, maxHops+1)
}

// presented is what a domain's server presents, looked at and not trusted: nothing is
// sent to it but what TLS needs.
func (sv *servers) presented(ctx context.Context, d config.Domain) (cs tls.ConnectionState, at target, f *Failure) {
	f = sv.reach(ctx, d, "", func(conn net.Conn, t target) *Failure {
		defer conn.Close()
		at = t
		if !t.direct {
			if f := sv.startTLS(conn, d); f != nil {
				return f
			}
		}
		cfg := &tls.Config{ServerName: ascii(d.Name), InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}
		if t.direct {
			cfg.NextProtos = []string{"xmpp-client"}
		}
		c := tls.Client(conn, cfg)
		if err := c.Handshake(); err != nil {
			return noTLS(d, err)
		}
		if cs = c.ConnectionState(); len(cs.PeerCertificates) == 0 {
			return fail(FailTLS, nil, "The server of %s presented no certificate.", d.Name)
		}
		return nil
	})
	return cs, at, f
}

// secure takes a connection to where a stream over checked TLS has shown its features.
func (sv *servers) secure(ctx context.Context, conn net.Conn, d config.Domain, t target) (*upstream, *Failure) {
	u := &upstream{domain: d, place: t.addr()}
	if d.Via != "" {
		u.place += " through " + d.Via
	}
	if !t.direct {
		if f := sv.startTLS(conn, d); f != nil {
			return nil, f
		}
	}
	said, refused := sv.saysDNS(ctx, d, t)
	if refused != nil {
		return nil, refused
	}
	cfg := &tls.Config{
		ServerName:         ascii(d.Name), // the JID's domain, never the SRV target (RFC 6120 section 13.7.2.1)
		InsecureSkipVerify: true,          // checkServer decides, on resumption as well
		MinVersion:         tls.VersionTLS12,
		// What is written at once leaves in as few records as it fits into.
		DynamicRecordSizingDisabled: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			u.held, refused = sv.checkServer(d, cs, said)
			if refused != nil {
				return refused
			}
			return nil
		},
	}
	if t.direct {
		cfg.NextProtos = []string{"xmpp-client"}
	}
	u.wire = newWire(conn)
	u.wire.records = true
	u.conn = tls.Client(u.wire, cfg)
	if err := u.conn.Handshake(); err != nil {
		if refused != nil {
			return nil, refused
		}
		return nil, noTLS(d, err)
	}
	u.expectStream(stanza.Limits{Bytes: 128 << 10}) // no more than features, and forms to register with, before the login
	if f := u.openStream(stanza.Header{To: d.Name}); f != nil {
		return nil, f
	}
	return u, nil
}

func noTLS(d config.Domain, err error) *Failure {
	older := ""
	if strings.Contains(err.Error(), "protocol version") {
		older = " It speaks only versions of TLS that are broken; ask the people who run it for TLS 1.2 or 1.3."
	}
	return fail(FailTLS, err, "No TLS connection to the server of %s: %v.%s", d.Name, err, older)
}

// startTLS asks for TLS on a plain stream (RFC 6120 section 5). Features seen here
// are forgotten.
func (sv *servers) startTLS(conn net.Conn, d config.Domain) *Failure {
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
	u.in = newInlet(u.conn, u.wire)
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
			switch to := sentTo(st); {
			case to == nil:
			case u.conn != nil:
				f.Err = &moved{to: *to}
			default:
				f.Text = "The server of " + u.domain.Name + " sends its clients elsewhere before the connection is encrypted, where anybody on the way could say so; it was not followed."
			}
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
