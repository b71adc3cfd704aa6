package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"

	"otrproxy/config"
	"otrproxy/proxy/causes"
	"otrproxy/proxy/hostname"
	"otrproxy/proxy/leg"
	"otrproxy/stanza"
)

// Namespaces of stream features.
const (
	NSRegisterFeature = "http://jabber.org/features/iq-register"
	NSChannelBinding  = "urn:xmpp:sasl-cb:0"
)

// An Leg is the leg to a server: secured, checked, and ready for a login.
type Leg struct {
	Domain   config.Domain
	Place    string // where it is, for people
	Conn     *tls.Conn
	Wire     *leg.Wire // below it
	In       *leg.Inlet
	Scan     *stanza.Scanner
	held     config.Pin // which the server satisfied; zero for a CA, or DNS
	Features *stanza.Stanza
	Unhook   func() bool // it ends with the proxy no more
}

// HangUp closes the connection.
func (u *Leg) HangUp() {
	u.Conn.Close()
	u.Unhook()
}

// Pin is the pin that the server satisfied, "" for none.
func (u *Leg) Pin() string {
	if u.held == (config.Pin{}) {
		return ""
	}
	return u.held.String()
}

// Dial connects to a domain's server for an account, secures the connection and checks
// the certificate. Nothing of the client has been sent when it returns. Account is "" where
// it is not known yet.
func (sv *Servers) Dial(ctx context.Context, d config.Domain, account string) (*Leg, *causes.Failure) {
	if f := sv.refused(d.Name); f != nil {
		return nil, f
	}
	there, moved := sv.whereTo(ctx, d, account)
	u, f := sv.Connect(ctx, there, account)
	if f != nil && moved && f.Cause != causes.FailPin && f.Cause != causes.FailCertificate {
		u, f = sv.Connect(ctx, d, account)
	}
	if f != nil {
		sv.Failed(f.Cause)
		sv.remember(d.Name, f)
		return nil, f
	}
	sv.pardon(d.Name)
	sv.Bell.Changed()
	return u, nil
}

// Acquaint remembers what a server has presented, once it has let somebody in: names that
// nobody has an account at are not worth a pin.
func (sv *Servers) Acquaint(u *Leg) (f *causes.Failure) {
	if u.held, f = sv.acquainted(u.Domain, u.Conn.ConnectionState().PeerCertificates[0], u.held); f != nil {
		sv.Failed(f.Cause)
		sv.remember(u.Domain.Name, f)
	}
	return f
}

// Connect follows a server that sends its clients elsewhere, over the checked connection
// only, to where the same checks hold.
func (sv *Servers) Connect(ctx context.Context, d config.Domain, account string) (u *Leg, f *causes.Failure) {
	home := d
	for range maxHops + 1 {
		f = sv.reach(ctx, d, account, func(conn net.Conn, t Target) (f *causes.Failure) {
			u, f = sv.secure(ctx, conn, d, t)
			return f
		})
		if f == nil {
			return u, nil
		}
		there := SentBy(f)
		if there == nil {
			return nil, f
		}
		to, refused := sv.mayFollow(ctx, home, *there)
		if refused != nil {
			return nil, refused
		}
		d = Only(d, to)
	}
	return nil, causes.New(causes.FailProtocol, f, "The server of %s sends its clients from one place to the next; after %d of them the connection was given up.", d.Name, maxHops+1)
}

// Presented is what a domain's server presents, looked at and not trusted: nothing is
// sent to it but what TLS needs.
func (sv *Servers) Presented(ctx context.Context, d config.Domain) (cs tls.ConnectionState, at Target, f *causes.Failure) {
	f = sv.reach(ctx, d, "", func(conn net.Conn, t Target) *causes.Failure {
		defer conn.Close()
		at = t
		if !t.direct {
			if f := sv.startTLS(conn, d); f != nil {
				return f
			}
		}
		cfg := &tls.Config{ServerName: hostname.ASCII(d.Name), InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}
		if t.direct {
			cfg.NextProtos = []string{"xmpp-client"}
		}
		c := tls.Client(conn, cfg)
		if err := c.Handshake(); err != nil {
			return noTLS(d, err)
		}
		if cs = c.ConnectionState(); len(cs.PeerCertificates) == 0 {
			return causes.New(causes.FailTLS, nil, "The server of %s presented no certificate.", d.Name)
		}
		return nil
	})
	return cs, at, f
}

// secure takes a connection to where a stream over checked TLS has shown its features.
func (sv *Servers) secure(ctx context.Context, conn net.Conn, d config.Domain, t Target) (*Leg, *causes.Failure) {
	u := &Leg{Domain: d, Place: t.Addr()}
	if d.Via != "" {
		u.Place += " through " + d.Via
	}
	if !t.direct {
		if f := sv.startTLS(conn, d); f != nil {
			return nil, f
		}
	}
	said, refused := sv.SaysDNS(ctx, d, t)
	if refused != nil {
		return nil, refused
	}
	cfg := &tls.Config{
		ServerName:         hostname.ASCII(d.Name), // the JID's domain, never the SRV target (RFC 6120 section 13.7.2.1)
		InsecureSkipVerify: true,                   // checkServer decides, on resumption as well
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
	u.Wire = leg.NewWire(conn)
	u.Wire.Records = true
	u.Conn = tls.Client(u.Wire, cfg)
	if err := u.Conn.Handshake(); err != nil {
		if refused != nil {
			return nil, refused
		}
		return nil, noTLS(d, err)
	}
	u.ExpectStream(stanza.Limits{Bytes: 128 << 10}) // no more than features, and forms to register with, before the login
	if f := u.OpenStream(stanza.Header{To: d.Name}); f != nil {
		return nil, f
	}
	return u, nil
}

func noTLS(d config.Domain, err error) *causes.Failure {
	older := ""
	if strings.Contains(err.Error(), "protocol version") {
		older = " It speaks only versions of TLS that are broken; ask the people who run it for TLS 1.2 or 1.3."
	}
	return causes.New(causes.FailTLS, err, "No TLS connection to the server of %s: %v.%s", d.Name, err, older)
}

// startTLS asks for TLS on a plain stream (RFC 6120 section 5). Features seen here
// are forgotten.
func (sv *Servers) startTLS(conn net.Conn, d config.Domain) *causes.Failure {
	scan := stanza.NewScanner(conn, stanza.Limits{Bytes: 64 << 10})
	plain := &Leg{Domain: d, Scan: scan}
	if _, err := conn.Write(stanza.Header{To: d.Name}.AppendTo(nil)); err != nil {
		return Lost(d, err)
	}
	if f := plain.readHeader(); f != nil {
		return f
	}
	st, f := plain.Next()
	if f != nil {
		return f
	}
	if !st.Is(stanza.NSStream, "features") {
		return causes.New(causes.FailProtocol, nil, "The server of %s did not offer its features.", d.Name)
	}
	if _, ok := st.Root().Child(stanza.NSTLS, "starttls"); !ok {
		return causes.New(causes.FailStripped, nil, "The server of %s offers no encryption (STARTTLS), or somebody on the way has removed the offer; nothing was sent.", d.Name)
	}
	if _, err := io.WriteString(conn, "<starttls xmlns='"+stanza.NSTLS+"'/>"); err != nil {
		return Lost(d, err)
	}
	if st, f = plain.Next(); f != nil {
		return f
	}
	if !st.Is(stanza.NSTLS, "proceed") {
		return causes.New(causes.FailTLS, nil, "The server of %s offered encryption (STARTTLS) and then refused it.", d.Name)
	}
	if len(scan.Buffered()) > 0 {
		return causes.New(causes.FailInjected, nil, "The server of %s sent something in clear behind its answer to STARTTLS, which somebody on the way may have put there; nothing was sent.", d.Name)
	}
	return nil
}

// Lost is a connection that the server has closed.
func Lost(d config.Domain, err error) *causes.Failure {
	return causes.New(causes.FailTCP, err, "The server of %s closed the connection: %v.", d.Name, causes.Short(err))
}

// ExpectStream begins to read a new stream.
func (u *Leg) ExpectStream(lim stanza.Limits) {
	u.In = leg.NewInlet(u.Conn, u.Wire)
	u.Scan = stanza.NewScanner(u.In, lim)
}

// OpenStream sends a stream header over TLS and reads the server's and its features.
func (u *Leg) OpenStream(h stanza.Header) *causes.Failure {
	if _, err := u.Conn.Write(h.AppendTo(nil)); err != nil {
		return Lost(u.Domain, err)
	}
	if f := u.readHeader(); f != nil {
		return f
	}
	st, f := u.Next()
	if f != nil {
		return f
	}
	if !st.Is(stanza.NSStream, "features") {
		return causes.New(causes.FailProtocol, nil, "The server of %s did not offer its features.", u.Domain.Name)
	}
	u.Features = st.Clone()
	return nil
}

func (u *Leg) readHeader() *causes.Failure {
	st, err := u.Scan.Next()
	if err != nil {
		return u.broken(err)
	}
	if st.Kind != stanza.KindHeader {
		return causes.New(causes.FailProtocol, nil, "The server of %s does not speak XMPP.", u.Domain.Name)
	}
	return nil
}

// Next returns the next element; a stream error is a failure that carries what
// the server says.
func (u *Leg) Next() (*stanza.Stanza, *causes.Failure) {
	for {
		st, err := u.Scan.Next()
		switch {
		case err != nil:
			return nil, u.broken(err)
		case st.Kind == stanza.KindSpace:
			continue
		case st.Kind == stanza.KindClose:
			return nil, causes.New(causes.FailProtocol, nil, "The server of %s ended the connection.", u.Domain.Name)
		case st.Is(stanza.NSStream, "error"):
			cond, text := StreamError(st)
			cause := causes.FailProtocol
			if cond == "host-unknown" {
				cause = causes.FailDomain
			}
			f := causes.New(cause, nil, "The server of %s refused the connection: %s.", u.Domain.Name, cond+text)
			f.Quoted = text
			switch to := SentTo(st); {
			case to == nil:
			case u.Conn != nil:
				f.Err = &moved{to: *to}
			default:
				f.Text = "The server of " + u.Domain.Name + " sends its clients elsewhere before the connection is encrypted, where anybody on the way could say so; it was not followed."
			}
			return nil, f
		}
		return st, nil
	}
}

func (u *Leg) broken(err error) *causes.Failure {
	var se *stanza.SyntaxError
	switch {
	case errors.As(err, &se):
		f := causes.New(causes.FailProtocol, err, "The server of %s sent something that is not XMPP: %s.", u.Domain.Name, se.Reason)
		f.Quoted = se.Quoted
		return f
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return causes.New(causes.FailTCP, err, "The server of %s closed the connection.", u.Domain.Name)
	}
	return Lost(u.Domain, err)
}

// StreamError is the condition of a stream error and its text in brackets.
func StreamError(st *stanza.Stanza) (condition, text string) {
	for c := range st.Root().Children() {
		if string(c.NS()) != stanza.NSStreams {
			continue
		}
		if string(c.Local()) == "text" {
			if t := c.Text(); t != "" {
				text = " (" + causes.OneLine(t) + ")"
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
