package proxy

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net"
	"strings"
	"time"

	"mellium.im/xmpp/jid"

	"otrproxy/config"
	"otrproxy/otrlayer"
	"otrproxy/stanza"
)

// A client is the leg to a client until its login.
type client struct {
	p          *Proxy
	raw        net.Conn // the TCP connection
	conn       net.Conn // what is spoken over: raw, or TLS
	local      bool     // both ends on this machine
	tls        bool
	tlsVersion string
	sni        string
	entry      string // plain, starttls or direct
	in         *inlet
	scan       *stanza.Scanner
	domain     config.Domain
	id         string // of our stream
	failures   int
}

// errEnded says that the client has been told all there is to tell.
var errEnded = errors.New("negotiation ended")

const maxLogins = 5 // attempts on one connection

// negotiate takes a client from its first stream header to the end of its
// session.
//
// The server is connected to and checked as soon as the domain is known, before
// any byte of the client goes up; what the client is offered depends on it.
func (c *client) negotiate() {
	deadline := time.Now().Add(c.p.Config().Limits.Login)
	ctx, cancel := context.WithDeadline(c.p.ctx, deadline)
	defer cancel()
	if err := c.header(); err != nil {
		return
	}
	u, f := c.p.dial(ctx, c.domain)
	if f != nil {
		c.failed(f)
		return
	}
	defer u.conn.Close()
	u.conn.SetDeadline(deadline)
	ended := context.AfterFunc(c.p.ctx, func() { u.conn.NetConn().Close() })
	defer ended()
	if err := c.offer(u); err != nil {
		return
	}
	account, how, err := c.login(u)
	if err != nil {
		c.timedOut(err)
		return
	}
	s, err := c.restart(u, account, how)
	if err != nil {
		c.timedOut(err)
		return
	}
	s.relay()
}

// header reads the client's stream header and finds the domain.
func (c *client) header() error {
	c.in = &inlet{conn: c.conn}
	c.scan = stanza.NewScanner(c.in, c.p.clientLimits())
	st, err := c.scan.Next()
	if err != nil {
		c.refuse(err)
		return errEnded
	}
	to := stanza.HeaderOf(st).To
	name, err := domainName(to)
	if err != nil {
		c.streamError("host-unknown", "The stream header names no domain; set the account's domain in the client.")
		return errEnded
	}
	if c.domain.Name != "" && name != c.domain.Name {
		c.streamError("host-unknown", "The domain changed during the login.")
		return errEnded
	}
	d, ok := c.p.Config().Domain(name)
	if !ok {
		c.p.metrics.upstreamFailed(FailDomain)
		c.p.log.Info("a client asked for a domain that is not configured", "domain", c.p.name(name))
		c.streamError("host-unknown", "This otrproxy does not serve "+name+"; add it under domains in its configuration.")
		return errEnded
	}
	if c.sni != "" && !ownHost(c.sni) {
		if sni, err := domainName(c.sni); err != nil || sni != name {
			c.streamError("host-unknown", "TLS was set up for "+c.sni+" and the stream is for "+name+".")
			return errEnded
		}
	}
	c.domain = d
	return nil
}

func domainName(s string) (string, error) {
	j, err := jid.Parse(s)
	if err != nil {
		return "", err
	}
	if j.Localpart() != "" || j.Resourcepart() != "" || j.Domainpart() == "" {
		return "", errors.New("not a domain")
	}
	return j.Domainpart(), nil
}

func streamID() string {
	var b [12]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// open is our header, once for each stream.
func (c *client) open(declared []byte) []byte {
	c.id = streamID()
	return stanza.Header{From: c.domain.Name, ID: c.id, Lang: "en", Declared: declared}.AppendTo(nil)
}

// streamError ends a stream with a sentence for the person, opening it first
// where that has not been done.
func (c *client) streamError(condition, text string) {
	var b []byte
	if c.id == "" {
		b = c.open(nil)
	}
	c.raw.SetWriteDeadline(time.Now().Add(5 * time.Second))
	c.conn.Write(stanza.AppendStreamError(b, condition, text))
	drain(c.raw, c.conn)
}

// drain lets a client read our last words: closing with unread input would reset
// the connection under them.
func drain(raw, conn net.Conn) {
	raw.SetReadDeadline(time.Now().Add(time.Second))
	halfClose(conn)
	var b [4096]byte
	for range 64 {
		if _, err := raw.Read(b[:]); err != nil {
			return
		}
	}
}

// refuse answers a stream that breaks the rules.
func (c *client) refuse(err error) {
	var se *stanza.SyntaxError
	if errors.As(err, &se) {
		c.p.log.Info("a client sent what XMPP forbids", "condition", se.Condition, "why", se.Unquoted())
		c.streamError(se.Condition, "otrproxy: the client sent "+se.Reason+".")
		return
	}
	c.timedOut(err)
}

// timedOut answers a client that took too long to log in.
func (c *client) timedOut(err error) {
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		c.streamError("connection-timeout", "No login within "+c.p.Config().Limits.Login.String()+".")
	}
}

// failed tells of a server that cannot be used.
func (c *client) failed(f *Failure) {
	c.p.log.Warn("no connection to a server", "domain", c.p.name(c.domain.Name), "cause", f.Cause, "why", c.p.redact(f, c.domain.Name))
	c.streamError(f.Cause.condition(), f.Text)
}

// redact is a failure's text as it may stand in the log.
func (p *Proxy) redact(f *Failure, domain string) string {
	text := f.Text
	if f.Quoted != "" {
		text = strings.ReplaceAll(text, f.Quoted, "")
	}
	return strings.NewReplacer(domain, p.name(domain), ascii(domain), p.name(domain)).Replace(text)
}

// offer sends our header and the features before the login, and does STARTTLS.
func (c *client) offer(u *upstream) error {
	for {
		b := append(c.open(nil), "<stream:features>"...)
		if !c.tls {
			b = append(b, "<starttls xmlns='"+stanza.NSTLS+"'>"...)
			if !c.local {
				b = append(b, "<required/>"...)
			}
			b = append(b, "</starttls>"...)
		}
		if c.tls || c.local {
			b = append(b, "<mechanisms xmlns='"+stanza.NSSASL+"'><mechanism>PLAIN</mechanism></mechanisms>"...)
			if _, ok := u.features.Root().Child(nsRegisterFeature, "register"); ok {
				b = append(b, "<register xmlns='"+nsRegisterFeature+"'/>"...)
			}
		}
		if _, err := c.conn.Write(append(b, "</stream:features>"...)); err != nil {
			return err
		}
		if c.tls {
			return nil
		}
		st, err := c.next()
		if err != nil {
			return err
		}
		if !st.Is(stanza.NSTLS, "starttls") {
			if !c.local {
				c.streamError("policy-violation", "This address speaks TLS only; turn on encryption in the client.")
				return errEnded
			}
			c.scan.Unread()
			return nil
		}
		if !blank(c.scan.Buffered()) {
			c.p.log.Warn("a client sent bytes in clear behind STARTTLS")
			c.streamError("policy-violation", "otrproxy: there were bytes behind the request for STARTTLS, which somebody may have put there.")
			return errEnded
		}
		if _, err := c.conn.Write([]byte("<proceed xmlns='" + stanza.NSTLS + "'/>")); err != nil {
			return err
		}
		if err := c.secure(c.raw, c.domain.Name); err != nil {
			c.p.log.Info("a client's TLS handshake failed", "err", err)
			return err
		}
		c.entry, c.id = "starttls", ""
		if err := c.header(); err != nil {
			return err
		}
	}
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
			c.conn.Write([]byte(stanza.StreamClose))
			return nil, errEnded
		}
		return st, nil
	}
}

// login takes the client's credentials and uses them upstream. Requests to
// register a new account (XEP-0077) are passed on before it.
func (c *client) login(u *upstream) (account *otrlayer.Account, how string, err error) {
	for {
		st, err := c.next()
		if err != nil {
			return nil, "", err
		}
		root := st.Root()
		switch {
		case st.Is(stanza.NSSASL, "auth"):
			account, how, err := c.auth(u, root.Attr("mechanism"), root.Text())
			if err != nil || account != nil {
				return account, how, err
			}
		case st.Is(stanza.NSClient, "iq"):
			if err := c.register(u, st); err != nil {
				return nil, "", err
			}
		case st.Is(stanza.NSSASL, "abort"):
			c.saslFailure("aborted", "")
		default:
			c.streamError("not-authorized", "Log in first.")
			return nil, "", errEnded
		}
	}
}

func (c *client) saslFailure(condition, text string) {
	b := []byte("<failure xmlns='" + stanza.NSSASL + "'><" + condition + "/>")
	if text != "" {
		b = append(stanza.AppendEscaped(append(b, "<text xml:lang='en'>"...), text), "</text>"...)
	}
	c.conn.Write(append(b, "</failure>"...))
}

// auth handles one login of the client. Anything but success leaves the stream
// open for another try, up to maxLogins; account is nil then.
func (c *client) auth(u *upstream, mech, initial string) (account *otrlayer.Account, how string, err error) {
	// Another try makes sense only after the server's own refusal.
	over := func(le *loginError) (*otrlayer.Account, string, error) {
		c.saslFailure(le.condition, le.failure.Text)
		c.streamError(le.failure.Cause.condition(), le.failure.Text)
		return nil, "", errEnded
	}
	again := func(condition, text string) (*otrlayer.Account, string, error) {
		c.saslFailure(condition, text)
		if c.failures++; c.failures >= maxLogins {
			c.streamError("policy-violation", "Too many failed logins.")
			return nil, "", errEnded
		}
		return nil, "", nil
	}
	if mech != "PLAIN" {
		return again("invalid-mechanism", "Only PLAIN is offered here; the connection to the server uses the strongest there is.")
	}
	if strings.TrimSpace(initial) == "" {
		if _, err := c.conn.Write([]byte("<challenge xmlns='" + stanza.NSSASL + "'/>")); err != nil {
			return nil, "", err
		}
		st, err := c.next()
		if err != nil {
			return nil, "", err
		}
		if st.Is(stanza.NSSASL, "abort") {
			return again("aborted", "")
		}
		if !st.Is(stanza.NSSASL, "response") {
			return again("malformed-request", "")
		}
		initial = st.Root().Text()
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(initial))
	if err != nil {
		return again("incorrect-encoding", "")
	}
	authzid, creds, ok := parsePlain(b)
	if !ok {
		return again("malformed-request", "")
	}
	// Some clients send the whole JID as the user name.
	if user, domain, ok := strings.Cut(creds.user, "@"); ok && strings.EqualFold(domain, c.domain.Name) {
		creds.user = user
	}
	bare, err := jid.New(creds.user, c.domain.Name, "")
	if err != nil {
		return again("not-authorized", "This is not a valid user name.")
	}
	if authzid != "" {
		if z, err := jid.Parse(authzid); err != nil || !z.Bare().Equal(bare) {
			return again("invalid-authzid", "")
		}
	}
	_, mustBind := c.p.bound.Load(bare.String())
	how, le := u.login(creds, mustBind)
	if le != nil {
		c.p.metrics.upstreamFailed(le.failure.Cause)
		c.p.log.Info("a login failed", "account", c.p.name(bare.String()), "cause", le.failure.Cause, "why", c.p.redact(le.failure, c.domain.Name))
		if !le.refused {
			return over(le)
		}
		return again(le.condition, le.failure.Text)
	}
	if strings.Contains(how, "-PLUS") {
		c.p.bound.Store(bare.String(), true)
	}
	account, err = c.p.account(bare.String())
	if errors.Is(err, otrlayer.ErrLocked) {
		err = c.p.locked()
	}
	if err == nil {
		account.Prepare()
		if err := c.p.ca.keep(c.domain.Name); err != nil {
			c.p.log.Warn("the certificate that clients are shown could not be kept", "domain", c.p.name(c.domain.Name))
		}
	} else {
		c.p.metrics.upstreamFailed(FailState)
		c.p.log.Error("an account's files cannot be used", "account", c.p.name(bare.String()), "err", strings.ReplaceAll(err.Error(), bare.String(), c.p.name(bare.String())))
		c.saslFailure("temporary-auth-failure", err.Error())
		c.streamError("internal-server-error", "otrproxy cannot use the files of this account: "+err.Error()+".")
		return nil, "", errEnded
	}
	return account, how, nil
}

// register passes one request of in-band registration to the server, over the
// checked connection, and its answer back.
func (c *client) register(u *upstream, st *stanza.Stanza) error {
	if _, ok := st.Root().Child("jabber:iq:register", "query"); !ok {
		c.streamError("not-authorized", "Log in first.")
		return errEnded
	}
	id := st.Root().Attr("id")
	raw := st.Raw
	if d := c.scan.Declared(); len(d) > 0 { // this early stream does not carry the client's declarations
		e := st.Edit()
		e.Declare(st.Root(), d)
		raw = e.AppendTo(nil)
	}
	if _, err := u.conn.Write(raw); err != nil {
		c.failed(lost(c.domain, err))
		return errEnded
	}
	for {
		answer, f := u.read()
		if f != nil {
			c.failed(f)
			return errEnded
		}
		if answer.Is(stanza.NSClient, "iq") && answer.Root().Attr("id") == id {
			_, err := c.conn.Write(answer.Raw)
			return err
		}
	}
}

// restart opens both streams anew after the login (RFC 6120 section 6.4.6). The
// declarations in each header travel with it to the other side, for the stanzas'
// meaning depends on them.
func (c *client) restart(u *upstream, account *otrlayer.Account, how string) (*session, error) {
	if !blank(c.scan.Buffered()) {
		c.streamError("policy-violation", "otrproxy: there were bytes behind the login, before its answer.")
		return nil, errEnded
	}
	if _, err := c.conn.Write([]byte("<success xmlns='" + stanza.NSSASL + "'/>")); err != nil {
		return nil, err
	}
	if len(u.scan.Buffered()) > 0 {
		c.id = ""
		c.failed(fail(FailProtocol, nil, "The server of %s sent something behind the end of the login.", c.domain.Name))
		return nil, errEnded
	}
	c.id = ""
	if err := c.header(); err != nil {
		return nil, err
	}
	u.expectStream(c.p.serverLimits())
	if f := u.openStream(stanza.Header{To: c.domain.Name, Declared: c.scan.Declared()}); f != nil {
		c.failed(f)
		return nil, errEnded
	}
	// From here on the outboxes set deadlines, for each write.
	c.raw.SetDeadline(time.Time{})
	u.conn.SetDeadline(time.Time{})
	s := newSession(c, u, account, how)
	b := append(c.open(u.scan.Declared()), "<stream:features>"...)
	b = appendFeatures(b, u.features)
	s.client.queue(append(b, "</stream:features>"...))
	s.client.flush()
	return s, nil
}
