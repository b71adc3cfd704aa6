package negotiate

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"

	"mellium.im/xmpp/jid"

	"otrproxy/config"
	"otrproxy/proxy/accounts"
	"otrproxy/proxy/address"
	"otrproxy/proxy/causes"
	"otrproxy/proxy/journal"
	"otrproxy/proxy/leg"
	"otrproxy/proxy/listen"
	"otrproxy/proxy/localca"
	"otrproxy/proxy/metrics"
	"otrproxy/proxy/relay"
	"otrproxy/proxy/sasl"
	"otrproxy/proxy/upstream"
	"otrproxy/stanza"
)

// A Negotiator has clients log in, up to their sessions.
type Negotiator struct {
	Config   func() *config.Config
	Log      *journal.Journal
	Context  context.Context // ends with the proxy
	Relay    *relay.Relay
	Servers  *upstream.Servers
	Logins   *sasl.Logins
	Accounts *accounts.Set
	Machine  *localca.Machine
	Gate     *listen.Gate
	Metrics  *metrics.Metrics
}

// A client is the leg to a client until its login. One goroutine owns it.
type client struct {
	*listen.Caller
	n        *Negotiator
	in       *leg.Inlet
	scan     *stanza.Scanner
	domain   config.Domain
	from     string         // bare JID, where the client's stream says whose it is
	id       string         // of our stream
	entered  string         // the mechanism it has logged in with here
	last     string         // our last word in that
	failures int            // of logins
	stranger *sasl.Stranger // it has logged in with another password than the one known here
	first    bool           // with the first one that is known here
	seat     *accounts.Seat // its place among the account's sessions
	epoch    int            // how often the administrator had said whose the account is
	password [32]byte       // with which it has logged in, as this run remembers it; zero for a proof

	up       *upstream.Leg // nil until it is needed
	asked    *sasl.Server  // the login there
	upFor    string        // whose connection it is, "" for nobody's or everybody's
	upBy     *config.Config
	deadline time.Time // for the end of the login
}

// errEnded says that the client has been told all there is to tell.
var errEnded = errors.New("negotiation ended")

// Negotiate takes a client from its first stream header to its session; nil where it
// comes to none.
//
// The server is connected to and checked as soon as the domain is known, before
// any byte of the client goes up; what the client is offered depends on it. Through a
// SOCKS proxy that waits until the account is known.
func (n *Negotiator) Negotiate(who *listen.Caller) (s *relay.Session) {
	c := &client{Caller: who, n: n}
	c.deadline = time.Now().Add(c.n.Config().Limits.Login)
	ctx, cancel := context.WithDeadline(c.n.Context, c.deadline)
	defer cancel()
	if err := c.header(); err != nil {
		return nil
	}
	defer func() {
		if s == nil {
			c.n.Accounts.Leave(&c.seat)
			c.hangUp()
		}
	}()
	if c.domain.Via == "" {
		if f := c.reach(ctx, ""); f != nil {
			c.failed(f)
			return nil
		}
	}
	if err := c.offer(); err != nil {
		return nil
	}
	account, how, err := c.login(ctx)
	if err != nil {
		c.timedOut(err)
		return nil
	}
	if s, err = c.restart(account, how); err != nil {
		c.timedOut(err)
		return nil
	}
	return s
}

// reach connects to the server, for an account where each has a way of its own: what was
// nobody's, such as the way of a request to register, is not an account's afterwards.
func (c *client) reach(ctx context.Context, account string) *causes.Failure {
	cfg := c.n.Config() // what was reached and checked as an earlier one said does not count
	d, ok := cfg.Domain(c.domain.Name)
	if !ok {
		return causes.New(causes.FailDomain, nil, "This otrproxy does not serve %s any more.", c.domain.Name)
	}
	if c.domain = d; d.Via == "" {
		account = ""
	}
	if c.up != nil && c.upFor == account && c.upBy == cfg {
		return nil
	}
	c.hangUp()
	u, f := c.n.Servers.Dial(ctx, c.domain, account)
	if f != nil {
		return f
	}
	u.Conn.SetDeadline(c.deadline)
	u.Unhook = context.AfterFunc(c.n.Context, func() { u.Conn.NetConn().Close() })
	c.up, c.upFor, c.upBy = u, account, cfg
	return nil
}

// hangUp closes the connection to the server.
func (c *client) hangUp() {
	if c.up != nil {
		c.up.HangUp()
		c.up = nil
	}
}

// header reads the client's stream header and finds the domain.
func (c *client) header() error {
	c.in = leg.NewInlet(c.Conn, c.Wire)
	c.scan = stanza.NewScanner(c.in, c.n.clientLimits())
	st, err := c.scan.Next()
	if err != nil {
		c.refuse(err)
		return errEnded
	}
	to := stanza.HeaderOf(st).To
	name, err := address.Domain(to)
	if err != nil {
		c.streamError("host-unknown", "The stream header names no domain; set the account's domain in the client.")
		return errEnded
	}
	if c.domain.Name != "" && name != c.domain.Name {
		c.streamError("host-unknown", "The domain changed during the login.")
		return errEnded
	}
	d, ok := c.n.Config().Domain(name)
	if !ok {
		c.n.Metrics.UpstreamFailed(causes.FailDomain)
		c.n.Log.Info("a client asked for a domain that is not configured", "domain", name)
		c.streamError("host-unknown", "This otrproxy does not serve "+name+"; add it under domains in its configuration.")
		return errEnded
	}
	if c.SNI != "" && !c.n.Machine.OwnHost(c.SNI) {
		if sni, err := address.Domain(c.SNI); err != nil || sni != name {
			c.streamError("host-unknown", "TLS was set up for "+c.SNI+" and the stream is for "+name+".")
			return errEnded
		}
	}
	c.domain = d
	if from, err := jid.Parse(stanza.HeaderOf(st).From); err == nil && from.Localpart() != "" && from.Domainpart() == name {
		c.from = from.Bare().String()
	}
	return nil
}

// open is our header, once for each stream.
func (c *client) open(declared []byte) []byte {
	c.id = leg.NewID()
	return stanza.Header{From: c.domain.Name, ID: c.id, Lang: "en", Declared: declared}.AppendTo(nil)
}

// streamError ends a stream with a sentence for the person, opening it first
// where that has not been done.
func (c *client) streamError(condition, text string) {
	var b []byte
	if c.id == "" {
		b = c.open(nil)
	}
	c.Raw.SetWriteDeadline(time.Now().Add(5 * time.Second))
	c.Conn.Write(stanza.AppendStreamError(b, condition, text))
	leg.Drain(c.Raw, c.Conn)
}

// refuse answers a stream that breaks the rules.
func (c *client) refuse(err error) {
	var se *stanza.SyntaxError
	if errors.As(err, &se) {
		c.n.Log.Info("a client sent what XMPP forbids", "condition", se.Condition, "why", se.Unquoted())
		c.streamError(se.Condition, "otrproxy: the client sent "+se.Reason+".")
		return
	}
	c.timedOut(err)
}

// timedOut answers a client that took too long to log in.
func (c *client) timedOut(err error) {
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		c.streamError("connection-timeout", "No login within "+c.n.Config().Limits.Login.String()+".")
	}
}

// failed tells of a server that cannot be used.
func (c *client) failed(f *causes.Failure) {
	c.n.Log.Warn("no connection to a server", "domain", c.domain.Name, "cause", f.Cause, "why", c.n.Log.Redact(f))
	c.streamError(f.Cause.Condition(), f.Text)
	c.n.Relay.TurnedAway.Note(c.domain.Name, f)
}

func blank(b []byte) bool { return strings.TrimSpace(string(b)) == "" }

// next reads the client's next element.
func (c *client) next() (*stanza.Stanza, error) {
	for {
		st, err := c.scan.Next()
		if err != nil {
			c.refuse(err)
			return nil, errEnded
		}
		switch st.Kind {
		case stanza.KindSpace:
			continue
		case stanza.KindClose:
			c.Conn.Write([]byte(stanza.StreamClose))
			return nil, errEnded
		}
		return st, nil
	}
}

func (n *Negotiator) clientLimits() stanza.Limits {
	return stanza.Limits{Bytes: n.Config().Limits.Stanza}
}

// serverLimits are wider: rosters and archives come in large pieces.
func (n *Negotiator) serverLimits() stanza.Limits {
	return stanza.Limits{Bytes: max(4<<20, 4*n.Config().Limits.Stanza), Elements: 1 << 17}
}
