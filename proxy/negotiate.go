package proxy

import (
	"context"
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

// A negotiator has clients log in, up to their sessions.
type negotiator struct {
	config   func() *config.Config
	log      *journal
	ctx      context.Context // ends with the proxy
	relay    *relay
	servers  *servers
	logins   *logins
	accounts *accountSet
	machine  *machine
	gate     *gate
	metrics  *metrics
}

// A client is the leg to a client until its login. One goroutine owns it.
type client struct {
	*caller
	n        *negotiator
	in       *inlet
	scan     *stanza.Scanner
	domain   config.Domain
	from     string    // bare JID, where the client's stream says whose it is
	id       string    // of our stream
	entered  string    // the mechanism it has logged in with here
	last     string    // our last word in that
	failures int       // of logins
	stranger *stranger // it has logged in with another password than the one known here
	first    bool      // with the first one that is known here
	seat     *seat     // its place among the account's sessions
	epoch    int       // how often the administrator had said whose the account is
	password [32]byte  // with which it has logged in, as this run remembers it; zero for a proof

	up       *upstream // nil until it is needed
	asked    *server   // the login there
	upFor    string    // whose connection it is, "" for nobody's or everybody's
	upBy     *config.Config
	deadline time.Time // for the end of the login
}

// errEnded says that the client has been told all there is to tell.
var errEnded = errors.New("negotiation ended")

const maxLogins = 5 // attempts on one connection

// negotiate takes a client from its first stream header to its session; nil where it
// comes to none.
//
// The server is connected to and checked as soon as the domain is known, before
// any byte of the client goes up; what the client is offered depends on it. Through a
// SOCKS proxy that waits until the account is known.
func (n *negotiator) negotiate(who *caller) (s *session) {
	c := &client{caller: who, n: n}
	c.deadline = time.Now().Add(c.n.config().Limits.Login)
	ctx, cancel := context.WithDeadline(c.n.ctx, c.deadline)
	defer cancel()
	if err := c.header(); err != nil {
		return nil
	}
	defer func() {
		if s == nil {
			c.n.accounts.leave(&c.seat)
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
func (c *client) reach(ctx context.Context, account string) *Failure {
	cfg := c.n.config() // what was reached and checked as an earlier one said does not count
	d, ok := cfg.Domain(c.domain.Name)
	if !ok {
		return fail(FailDomain, nil, "This otrproxy does not serve %s any more.", c.domain.Name)
	}
	if c.domain = d; d.Via == "" {
		account = ""
	}
	if c.up != nil && c.upFor == account && c.upBy == cfg {
		return nil
	}
	c.hangUp()
	u, f := c.n.servers.dial(ctx, c.domain, account)
	if f != nil {
		return f
	}
	u.conn.SetDeadline(c.deadline)
	u.unhook = context.AfterFunc(c.n.ctx, func() { u.conn.NetConn().Close() })
	c.up, c.upFor, c.upBy = u, account, cfg
	return nil
}

// hangUp closes the connection to the server.
func (c *client) hangUp() {
	if c.up != nil {
		c.up.hangUp()
		c.up = nil
	}
}

// header reads the client's stream header and finds the domain.
func (c *client) header() error {
	c.in = newInlet(c.conn, c.wire)
	c.scan = stanza.NewScanner(c.in, c.n.clientLimits())
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
	d, ok := c.n.config().Domain(name)
	if !ok {
		c.n.metrics.upstreamFailed(FailDomain)
		c.n.log.Info("a client asked for a domain that is not configured", "domain", name)
		c.streamError("host-unknown", "This otrproxy does not serve "+name+"; add it under domains in its configuration.")
		return errEnded
	}
	if c.sni != "" && !c.n.machine.ownHost(c.sni) {
		if sni, err := domainName(c.sni); err != nil || sni != name {
			c.streamError("host-unknown", "TLS was set up for "+c.sni+" and the stream is for "+name+".")
			return errEnded
		}
	}
	c.domain = d
	if from, err := jid.Parse(stanza.HeaderOf(st).From); err == nil && from.Localpart() != "" && from.Domainpart() == name {
		c.from = from.Bare().String()
	}
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

// open is our header, once for each stream.
func (c *client) open(declared []byte) []byte {
	c.id = newID()
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
		c.n.log.Info("a client sent what XMPP forbids", "condition", se.Condition, "why", se.Unquoted())
		c.streamError(se.Condition, "otrproxy: the client sent "+se.Reason+".")
		return
	}
	c.timedOut(err)
}

// timedOut answers a client that took too long to log in.
func (c *client) timedOut(err error) {
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		c.streamError("connection-timeout", "No login within "+c.n.config().Limits.Login.String()+".")
	}
}

// failed tells of a server that cannot be used.
func (c *client) failed(f *Failure) {
	c.n.log.Warn("no connection to a server", "domain", c.domain.Name, "cause", f.Cause, "why", c.n.log.redact(f))
	c.streamError(f.Cause.condition(), f.Text)
	c.n.relay.turnedAway.note(c.domain.Name, f)
}

// offer sends our header and the features before the login, and does STARTTLS.
func (c *client) offer() error {
	for {
		b := append(c.open(nil), "<stream:features>"...)
		if !c.tls && !c.webbed {
			b = append(b, "<starttls xmlns='"+stanza.NSTLS+"'>"...)
			if !c.local {
				b = append(b, "<required/>"...)
			}
			b = append(b, "</starttls>"...)
		}
		if c.tls || c.local {
			b = c.appendMechanisms(b)
			if c.registers() {
				b = append(b, "<register xmlns='"+nsRegisterFeature+"'/>"...)
			}
		}
		if _, err := c.conn.Write(append(b, "</stream:features>"...)); err != nil {
			return err
		}
		if c.tls || c.webbed {
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
			c.n.log.Warn("a client sent bytes in clear behind STARTTLS")
			c.streamError("policy-violation", "otrproxy: there were bytes behind the request for STARTTLS, which somebody may have put there.")
			return errEnded
		}
		if _, err := c.conn.Write([]byte("<proceed xmlns='" + stanza.NSTLS + "'/>")); err != nil {
			return err
		}
		if err := c.secure(c.domain.Name); err != nil {
			c.n.log.Info("a client's TLS handshake failed", "err", err)
			return err
		}
		c.entry, c.id = c.by+"starttls", ""
		if err := c.header(); err != nil {
			return err
		}
	}
}

// appendMechanisms offers the ways to log in here: PLAIN, and for enrolled accounts
// SCRAM, over TLS bound to it (with its kinds, XEP-0440).
func (c *client) appendMechanisms(b []byte) []byte {
	b = append(b, "<mechanisms xmlns='"+stanza.NSSASL+"'>"...)
	bindings := c.bindings()
	names := c.n.logins.provers(c.domain.Name, c.from, c.place())
	if len(bindings) > 0 {
		for _, name := range names {
			b = append(b, "<mechanism>"+name+"-PLUS</mechanism>"...)
		}
	}
	for _, name := range append(names, "PLAIN") {
		b = append(b, "<mechanism>"+name+"</mechanism>"...)
	}
	b = append(b, "</mechanisms>"...)
	if len(names) == 0 || len(bindings) == 0 {
		return b
	}
	b = append(b, "<sasl-channel-binding xmlns='"+nsSASLBinding+"'>"...)
	for _, x := range bindings {
		b = append(b, "<channel-binding type='"+x.Type+"'/>"...)
	}
	return append(b, "</sasl-channel-binding>"...)
}

// registers reports whether accounts can be made (XEP-0077): where the server is not
// reached yet, that shows when somebody asks.
func (c *client) registers() bool {
	if c.up == nil {
		return true
	}
	_, ok := c.up.features.Root().Child(nsRegisterFeature, "register")
	return ok
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
func (c *client) login(ctx context.Context) (account *otrlayer.Account, how string, err error) {
	for {
		st, err := c.next()
		if err != nil {
			return nil, "", err
		}
		root := st.Root()
		switch {
		case st.Is(stanza.NSSASL, "auth"):
			account, how, err := c.auth(ctx, root.Attr("mechanism"), root.Text())
			if err != nil || account != nil {
				return account, how, err
			}
		case st.Is(stanza.NSClient, "iq"):
			if err := c.register(ctx, st); err != nil {
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

// again tells a client that a login has failed, and leaves the stream open for another
// try, up to maxLogins.
func (c *client) again(condition, text string) error {
	c.n.log.Debug("a client's login was refused", "domain", c.domain.Name, "entry", c.entry, "condition", condition)
	c.saslFailure(condition, text)
	if c.failures++; c.failures >= maxLogins {
		c.streamError("policy-violation", "Too many failed logins.")
		return errEnded
	}
	return nil
}

// broken tells a client of a login that failed for another reason than the server's own
// refusal; another try makes no sense then.
func (c *client) broken(condition string, f *Failure) error {
	c.saslFailure(condition, f.Text)
	c.streamError(f.Cause.condition(), f.Text)
	c.n.relay.turnedAway.note(c.domain.Name, f)
	return errEnded
}

// A claim is who a client says it is, and what proves it.
type claim struct {
	account string // bare JID
	secret  secret
	last    string // what proves us to the client once it is let in
}

// auth handles one login of the client. Account is nil for a failure of which the client
// was told, and that leaves it another try.
func (c *client) auth(ctx context.Context, mech, initial string) (account *otrlayer.Account, how string, err error) {
	var who *claim
	known := mech == "PLAIN" || mechanismOf(mech) != nil
	if known && strings.TrimSpace(initial) == "" {
		if _, err := c.conn.Write([]byte("<challenge xmlns='" + stanza.NSSASL + "'/>")); err != nil {
			return nil, "", err
		}
	}
	switch {
	case mech == "PLAIN":
		who, err = c.plain(initial)
	case known:
		who, err = c.prove(mech, initial)
	default:
		err = c.again("invalid-mechanism", "PLAIN is offered here, and SCRAM for accounts that are enrolled; the connection to the server uses the strongest there is.")
	}
	if who == nil {
		return nil, "", err
	}
	if how, err = c.admitted(ctx, who); how == "" {
		return nil, "", err
	}
	if account, err = c.n.accounts.account(who.account); err == nil {
		c.last = who.last
		return account, how, nil
	}
	return nil, "", c.noFiles(who.account, err)
}

// noFiles tells of an account whose files cannot be used.
func (c *client) noFiles(account string, err error) error {
	if errors.Is(err, otrlayer.ErrLocked) {
		err = errLocked()
	}
	c.n.metrics.upstreamFailed(FailState)
	c.n.log.Error("an account's files cannot be used", "account", c.n.log.name(account), "err", strings.ReplaceAll(err.Error(), account, c.n.log.name(account)))
	return c.broken("temporary-auth-failure", fail(FailState, err, "otrproxy cannot use the files of this account: %v.", err))
}

// localpart is a user's name: some clients send the whole JID.
func (c *client) localpart(user string) string {
	if local, domain, ok := strings.Cut(user, "@"); ok && strings.EqualFold(domain, c.domain.Name) {
		return local
	}
	return user
}

// claimed checks what a client says of itself: whose account it is.
func (c *client) claimed(user, authzid string, s secret) (*claim, error) {
	bare, err := jid.New(user, c.domain.Name, "")
	if err != nil {
		return nil, c.again("not-authorized", "This is not a valid user name.")
	}
	if authzid != "" {
		if z, err := jid.Parse(authzid); err != nil || !z.Bare().Equal(bare) {
			return nil, c.again("invalid-authzid", "")
		}
	}
	return &claim{account: bare.String(), secret: s}, nil
}

// plain takes a client's name and password (RFC 4616).
func (c *client) plain(initial string) (*claim, error) {
	b, err := c.response(initial)
	if err != nil || b == nil {
		return nil, err
	}
	authzid, creds, ok := parsePlain(b)
	if !ok {
		return nil, c.again("malformed-request", "")
	}
	c.entered, creds.user = "PLAIN", c.localpart(creds.user)
	return c.claimed(creds.user, authzid, creds)
}

// response reads what a client answers in a login: initial where it was sent along
// already, else its next element. Nil with no error is a failure that it was told of.
func (c *client) response(initial string) ([]byte, error) {
	if initial = strings.TrimSpace(initial); initial == "" {
		st, err := c.next()
		if err != nil {
			return nil, err
		}
		if st.Is(stanza.NSSASL, "abort") {
			return nil, c.again("aborted", "")
		}
		if !st.Is(stanza.NSSASL, "response") {
			return nil, c.again("malformed-request", "")
		}
		initial = strings.TrimSpace(st.Root().Text())
	}
	b, err := base64.StdEncoding.DecodeString(initial)
	if err != nil {
		return nil, c.again("incorrect-encoding", "")
	}
	return b, nil
}

// admitted logs in to the server with what the client has shown, and returns how; "" for a
// failure of which the client was told.
func (c *client) admitted(ctx context.Context, who *claim) (how string, err error) {
	if f := c.welcome(who.account); f != nil {
		c.n.log.Info("an account was refused", "account", c.n.log.name(who.account), "cause", f.Cause)
		return "", c.broken("temporary-auth-failure", f)
	}
	creds, plain := who.secret.plain()
	var t *try
	if plain { // proofs have been counted already
		c.password = c.n.logins.passwords.sum(who.account, creds.password)
		if c.n.logins.passwords.isRefused(c.password) {
			c.n.metrics.refused(RefusedLogins)
			return "", c.again("not-authorized", refusedPassword)
		}
		if t = c.n.logins.guesses.turn(ctx, guessed{who.account, c.place()}, c.password, c.patience()); t == nil {
			c.n.metrics.refused(RefusedLogins)
			return "", c.again("temporary-auth-failure", tooManyTries)
		}
		defer t.over()
	}
	least, _, err := c.n.logins.least(who.account)
	if err != nil {
		return "", c.noFiles(who.account, err)
	}
	le := &loginError{condition: "temporary-auth-failure"}
	if le.failure = c.reach(ctx, who.account); le.failure == nil {
		c.asked = &server{upstream: c.up}
		how, le = c.asked.login(who.secret, least)
	}
	if le == nil {
		return c.letIn(who.account, how, creds, t)
	}
	f := le.failure
	switch {
	case le.gone != "":
		f.Text += " Log in again; where the client has no other way, enrol the account anew: otrproxy login enroll " + who.account
		c.n.logins.without(who.account, le.gone)
	case le.stale:
		f.Text += " Log in with the password once, if the client can, and confirm that it was you; or enrol the account anew: otrproxy login enroll " + who.account
		c.n.logins.stale(who.account)
		c.n.logins.offerPlain(c.place(), who.account)
	case f.Cause == FailDowngrade:
		c.n.logins.fellBehind(who.account, f)
	}
	if c.up != nil { // else it was counted already
		c.n.metrics.upstreamFailed(f.Cause)
	}
	c.n.log.Info("a login failed", "account", c.n.log.name(who.account), "cause", f.Cause, "why", c.n.log.redact(f, who.account))
	if !le.refused {
		return "", c.broken(le.condition, f)
	}
	if plain && le.word == "not-authorized" { // the server would hold it against everybody who comes from here
		t.wrong()
	}
	return "", c.again(le.condition, f.Text)
}

// patience is how long a client waits for its turn to try a password.
func (c *client) patience() time.Duration { return time.Until(c.deadline) / 2 }

// letIn gives a client whom the server has let in its place, and says what it is worth here.
// A proof has no try.
func (c *client) letIn(account, how string, creds credentials, t *try) (string, error) {
	if f := c.n.servers.acquaint(c.up); f != nil {
		return "", c.broken("temporary-auth-failure", f)
	}
	limits := c.n.config().Limits
	if !c.n.gate.settle(c.visitor, limits) {
		c.n.metrics.refused(RefusedSessions)
		return "", c.broken("temporary-auth-failure", fail(FailLimit, nil, "%s", refusals[RefusedSessions]))
	}
	var f *Failure
	if c.seat, f = c.n.accounts.sit(account, limits); f != nil { // what follows is undone when it is left
		return "", c.broken("temporary-auth-failure", f)
	}
	a, err := c.n.accounts.account(account)
	if err != nil {
		return "", c.noFiles(account, err)
	}
	c.epoch = c.n.logins.passwords.epoch(account)
	who := known
	if t != nil {
		if who, err = c.n.logins.recognise(account, creds); err != nil {
			return "", c.noFiles(account, err)
		}
	}
	if who == strange {
		st, fresh, out := c.n.logins.strange(a, how, c.host(), creds, c.asked)
		if fresh {
			c.n.relay.tellOfStranger(st)
		}
		if fresh || out == tooMany { // whoever guesses what is known here sees whether it was
			t.sum = [32]byte{}
			t.wrong()
		}
		switch out {
		case isPerson:
			who = known
		case unwanted:
			return "", c.broken("not-authorized", fail(FailAccess, nil, "%s", refusedPassword))
		case tooMany:
			c.n.metrics.refused(RefusedLogins)
			return "", c.broken("temporary-auth-failure", fail(FailLimit, nil, "Several logins with other passwords than the one known here wait already. Where you are logged in, write login confirm or login refuse to otrproxy.localhost; or ask the administrator."))
		}
		c.stranger = st
	}
	if who == strange {
		if f := c.n.accounts.reseat(c.seat, true, limits.PerAccount); f != nil {
			return "", c.broken("temporary-auth-failure", f)
		}
		return how, nil
	}
	c.first = who == first
	c.n.accounts.onceMade(account, func() {
		c.n.logins.admitted(account, how, nil)
		if err := c.n.machine.ca.keep(bareDomain(account)); err != nil {
			c.n.log.Warn("the certificate that clients are shown could not be kept", "domain", bareDomain(account))
		}
	})
	if t != nil {
		t.right()
		asked := c.asked
		c.n.logins.inStep(account, func() *enrolment { return asked.enrolment(creds, how) })
		c.n.logins.keepsFirst(account, creds.password)
	}
	return how, nil
}

// welcome is why an account may not be used, or not once more; nil where it may.
func (c *client) welcome(account string) *Failure {
	cfg := c.n.config()
	if ok, why := cfg.MayUse(account, addressOf(c.raw.RemoteAddr())); !ok {
		c.n.metrics.refused(RefusedAccess)
		return fail(FailAccess, nil, "This otrproxy does not serve %s here: %s.", account, strings.TrimSuffix(why, "."))
	}
	return c.n.accounts.mayCome(account, cfg.Limits)
}

// register passes one request of in-band registration to the server, over the
// checked connection, and its answer back.
func (c *client) register(ctx context.Context, st *stanza.Stanza) error {
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
	if f := c.reach(ctx, ""); f != nil {
		c.failed(f)
		return errEnded
	}
	u := c.up
	if !c.registers() {
		_, err := c.conn.Write(stanza.AppendError(nil, "iq", c.domain.Name, "", id, stanza.Error{Type: "cancel", Condition: "service-unavailable", Text: "The server of " + c.domain.Name + " makes no accounts for those who ask."}))
		return err
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
func (c *client) restart(account *otrlayer.Account, how string) (*session, error) {
	u := c.up
	if !blank(c.scan.Buffered()) {
		c.streamError("policy-violation", "otrproxy: there were bytes behind the login, before its answer.")
		return nil, errEnded
	}
	success := "<success xmlns='" + stanza.NSSASL + "'/>"
	if c.last != "" {
		success = "<success xmlns='" + stanza.NSSASL + "'>" + base64.StdEncoding.EncodeToString([]byte(c.last)) + "</success>"
	}
	if _, err := c.conn.Write([]byte(success)); err != nil {
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
	u.expectStream(c.n.serverLimits())
	if f := u.openStream(stanza.Header{To: c.domain.Name, Declared: c.scan.Declared()}); f != nil {
		c.n.servers.move(c.domain, account.JID(), sentBy(f))
		c.failed(f)
		return nil, errEnded
	}
	// From here on the outboxes set deadlines, for each write.
	c.raw.SetDeadline(time.Time{})
	u.conn.SetDeadline(time.Time{})
	s := newSession(c.n.relay, c.arrival(account, how))
	b := append(c.open(u.scan.Declared()), "<stream:features>"...)
	b = appendFeatures(b, u.features)
	u.features = nil // of no more use, and sessions are many
	s.opens(append(b, "</stream:features>"...))
	return s, nil
}

// arrival is what the session is to know of the client and its login.
func (c *client) arrival(account *otrlayer.Account, how string) arrival {
	return arrival{account: account, host: c.host(), place: c.place(), entry: c.entry, entered: c.entered, how: how, tlsVersion: c.tlsVersion, conn: c.conn, wire: c.wire, in: c.in, scan: c.scan, up: c.up,
		stranger: c.stranger, first: c.first, password: c.password, seat: c.seat, epoch: c.epoch}
}

func (n *negotiator) clientLimits() stanza.Limits {
	return stanza.Limits{Bytes: n.config().Limits.Stanza}
}

// serverLimits are wider: rosters and archives come in large pieces.
func (n *negotiator) serverLimits() stanza.Limits {
	return stanza.Limits{Bytes: max(4<<20, 4*n.config().Limits.Stanza), Elements: 1 << 17}
}
