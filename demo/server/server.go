// Package server is an XMPP server in memory, for tests and for the demo: STARTTLS
// and direct TLS on one port, SCRAM with channel binding, resource binding,
// routing, an offline store and faults on demand. It records every byte that
// clients send it, before and inside TLS.
package server

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/xdg-go/scram"

	"otrproxy/stanza"
)

// Config says what the server is like.
type Config struct {
	Domain     string
	Users      map[string]string // localpart to password
	Cert       *tls.Certificate  // nil: a fresh self-signed one
	Mechanisms []string          // nil: SCRAM-SHA-256-PLUS and SCRAM-SHA-256
	Bindings   bool              // announce channel bindings (XEP-0440)
	MaxTLS     uint16            // 0: what Go has
	Curves     []tls.CurveID     // nil: what Go has
	Forget     bool              // do not record what is received
	Strangers  bool              // nobody hears of anybody's presence
	Listener   net.Listener      // nil: a free port of the loopback interface
	// Fate says what becomes of a message of somebody; nil for delivery.
	Fate func(from string, m *stanza.Stanza) Fate
	// Script has the stream behind the login instead of the server; nil for the server.
	Script func(net.Conn)
	Faults Faults
}

// A Fate is what becomes of a message.
type Fate int

// What becomes of what is sent.
const (
	Deliver Fate = iota
	Bounce       // it comes back as an error
	Lose
)

// NoAnswer begins the ids of requests that the server does nothing about.
const NoAnswer = "unanswered"

// Faults make the server misbehave.
type Faults struct {
	NoSTARTTLS    bool   // the offer is stripped
	BehindProceed string // bytes in clear behind <proceed/>
	BadSignature  bool   // the server cannot prove itself
	Iterations    int    // of PBKDF2, instead of 4096
	Challenge     string // instead of the first challenge
	InsteadOfAll  string // sent instead of the first header
	Silent        bool   // accepts and says nothing
	BehindLogin   string // bytes inside TLS behind <success/>
	BadDowngrade  bool   // a wrong XEP-0474 hash
	NoCounting    bool   // XEP-0198 is not offered
	NoPings       bool   // they are not answered
	SilentFrom    string // nothing is answered any more from then on: "login", or "bind"
	Forgetful     bool   // sessions cannot be resumed
	Unconfirmed   bool   // it does not say what it has taken, until a session is resumed
	FreshSalts    bool   // each login has another one, as ejabberd does where it keeps passwords as they are
}

// A Server runs until Close.
type Server struct {
	cfg  Config
	cert tls.Certificate
	l    net.Listener
	wg   sync.WaitGroup

	mu        sync.Mutex
	changed   sync.Cond
	received  []byte
	sessions  map[*session]bool
	offline   map[string][][]byte // by localpart
	conns     map[net.Conn]bool
	accepted  int
	resumable int
	closed    bool
	creds     map[string]scram.StoredCredentials
}

// Start listens on a free port of the loopback interface.
func Start(cfg Config) (*Server, error) { return StartOn("127.0.0.1:0", cfg) }

// StartOn listens on an address.
func StartOn(addr string, cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, sessions: map[*session]bool{}, offline: map[string][][]byte{}, conns: map[net.Conn]bool{}, creds: map[string]scram.StoredCredentials{}}
	s.changed.L = &s.mu
	if cfg.Cert != nil {
		s.cert = *cfg.Cert
	} else {
		c, err := SelfSigned(cfg.Domain)
		if err != nil {
			return nil, err
		}
		s.cert = c
	}
	if s.cfg.Mechanisms == nil {
		s.cfg.Mechanisms = []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"}
	}
	l := cfg.Listener
	if l == nil {
		var err error
		if l, err = net.Listen("tcp", addr); err != nil {
			return nil, err
		}
	}
	s.l = l
	s.wg.Go(s.accept)
	return s, nil
}

// SelfSigned makes a self-signed certificate for a name.
func SelfSigned(name string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// Addr is where the server listens.
func (s *Server) Addr() string { return s.l.Addr().String() }

// Certificate is what the server presents.
func (s *Server) Certificate() *x509.Certificate {
	c, _ := x509.ParseCertificate(s.certificate().Certificate[0])
	return c
}

// Pin is the server's certificate as a pin.
func (s *Server) Pin() string {
	return fmt.Sprintf("sha256:%X", sha256.Sum256(s.certificate().Certificate[0]))
}

// SetCertificate has the server present another certificate from the next connection on.
func (s *Server) SetCertificate(c *tls.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cert = *c
}

// TLS is what the server secures connections with.
func (s *Server) TLS() tls.Certificate { return s.certificate() }

func (s *Server) certificate() tls.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cert
}

// SetFaults changes the faults for connections to come.
func (s *Server) SetFaults(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg.Faults = f
}

// Received is every byte clients have sent, in the order of arrival, TLS taken off.
func (s *Server) Received() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.received)
}

// Accepted counts the connections so far.
func (s *Server) Accepted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}

// Online reports whether somebody is connected and has sent presence.
func (s *Server) Online(user string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.available(user)) > 0
}

// Wait waits until a condition over what was received holds; false after ten
// seconds.
func (s *Server) Wait(cond func(received []byte) bool) bool {
	timeout := time.AfterFunc(10*time.Second, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.changed.Broadcast()
	})
	defer timeout.Stop()
	deadline := time.Now().Add(10 * time.Second)
	s.mu.Lock()
	defer s.mu.Unlock()
	for !cond(s.received) {
		if !time.Now().Before(deadline) {
			return false
		}
		s.changed.Wait()
	}
	return true
}

// Cut closes all client connections without a word.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
}

// Send writes bytes to every session of a user, as they are.
func (s *Server) Send(user, raw string) {
	var to []*session
	s.mu.Lock()
	for x := range s.sessions {
		if x.user == user {
			to = append(to, x)
		}
	}
	s.mu.Unlock()
	for _, x := range to {
		x.write([]byte(raw))
	}
}

// Close ends the server and all connections.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.l.Close()
	s.wg.Wait()
}

func (s *Server) accept() {
	for {
		c, err := s.l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.accepted++
		if s.closed {
			c.Close()
		}
		s.conns[c] = true
		s.mu.Unlock()
		s.wg.Go(func() {
			s.serve(c)
			c.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		})
	}
}

// recorded notes what is read through it.
type recorded struct {
	net.Conn
	s     *Server
	first []byte
	quiet bool // TLS records, noted after decryption
}

func (r *recorded) Read(b []byte) (int, error) {
	if len(r.first) > 0 {
		n := copy(b, r.first)
		r.first = r.first[n:]
		r.note(b[:n])
		return n, nil
	}
	n, err := r.Conn.Read(b)
	r.note(b[:n])
	return n, err
}

func (r *recorded) note(b []byte) {
	if r.quiet || len(b) == 0 || r.s.cfg.Forget {
		return
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.s.received = append(r.s.received, b...)
	r.s.changed.Broadcast()
}

type session struct {
	s        *Server
	conn     net.Conn
	tls      *tls.Conn
	scan     *stanza.Scanner
	faults   Faults
	user     string
	resource string
	present  bool
	sm       *counted // nil until the client asks for it
	ended    bool     // the client has ended the stream
	done     chan struct{}

	outMu sync.Mutex
}

func (x *session) write(b []byte) {
	x.outMu.Lock()
	defer x.outMu.Unlock()
	x.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	x.conn.Write(b)
}

// deliver writes stanzas to a client, and keeps them until it says that it has them.
func (x *session) deliver(b []byte) {
	x.outMu.Lock()
	defer x.outMu.Unlock()
	if sm := x.sm; sm != nil {
		sends, asks := sm.keep(b)
		if !sends {
			return
		}
		if asks {
			b = append(slices.Clip(b), askTaken...)
		}
	}
	x.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	x.conn.Write(b)
}

func (x *session) full() string { return x.user + "@" + x.s.cfg.Domain + "/" + x.resource }

func (s *Server) serve(c net.Conn) {
	s.mu.Lock()
	faults := s.cfg.Faults
	s.mu.Unlock()
	x := &session{s: s, faults: faults, done: make(chan struct{})}
	defer close(x.done)
	if faults.Silent {
		var b [1]byte
		for {
			if _, err := c.Read(b[:]); err != nil {
				return
			}
		}
	}
	var first [1]byte
	if _, err := c.Read(first[:]); err != nil {
		return
	}
	if first[0] == 0x16 {
		if x.secure(&recorded{Conn: c, s: s, first: first[:], quiet: true}) != nil {
			return
		}
	} else {
		x.conn = &recorded{Conn: c, s: s, first: first[:]}
	}
	defer s.leave(x)
	for x.stream() {
	}
}

func (x *session) secure(c *recorded) error {
	t := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{x.s.certificate()}, MaxVersion: x.s.cfg.MaxTLS, CurvePreferences: x.s.cfg.Curves, NextProtos: []string{"xmpp-client"}})
	if err := t.Handshake(); err != nil {
		return err
	}
	x.tls = t
	x.conn = &recorded{Conn: t, s: x.s}
	return nil
}

// stream serves one stream up to its restart; false ends the connection.
func (x *session) stream() bool {
	if x.user != "" && x.s.cfg.Script != nil {
		x.s.cfg.Script(x.conn)
		return false
	}
	x.scan = stanza.NewScanner(x.conn, stanza.Limits{Bytes: 4 << 20})
	h, err := x.scan.Next()
	if err != nil {
		return false
	}
	declared := x.scan.Declared()
	_ = h
	if x.faults.InsteadOfAll != "" {
		x.write([]byte(x.faults.InsteadOfAll))
		return false
	}
	var id [8]byte
	rand.Read(id[:])
	b := stanza.Header{From: x.s.cfg.Domain, ID: fmt.Sprintf("%x", id), Declared: declared}.AppendTo(nil)
	x.write(append(b, x.features()...))
	for {
		st, err := x.scan.Next()
		if err != nil || st.Kind == stanza.KindClose {
			if err == nil {
				x.ended = true
				x.s.leave(x) // before the client reads that the stream is over
				x.write([]byte(stanza.StreamClose))
			}
			return false
		}
		if st.Kind == stanza.KindSpace {
			continue
		}
		if from := x.faults.SilentFrom; from == "login" && x.user != "" || from == "bind" && x.resource != "" {
			continue
		}
		switch {
		case st.Is(stanza.NSTLS, "starttls") && x.tls == nil && !x.faults.NoSTARTTLS:
			x.write([]byte("<proceed xmlns='" + stanza.NSTLS + "'/>" + x.faults.BehindProceed))
			return x.secure(&recorded{Conn: x.conn.(*recorded).Conn, s: x.s, quiet: true}) == nil
		case st.Is(stanza.NSSASL, "auth"):
			if x.login(st.Root().Attr("mechanism"), st.Root().Text()) {
				x.write([]byte(x.faults.BehindLogin))
				return true
			}
		case string(st.Root().NS()) == stanza.NSClient && x.user == "":
			x.register(st)
		case string(st.Root().NS()) == stanza.NSClient:
			if x.sm != nil {
				x.sm.received.Add(1)
			}
			x.stanza(st)
		case string(st.Root().NS()) == nsSM:
			x.count(st.Root())
		}
	}
}

func (x *session) features() string {
	f, sm := "<stream:features>", "<sm xmlns='"+nsSM+"'/>"
	if x.faults.NoCounting {
		sm = ""
	}
	switch {
	case x.user != "":
		f += "<bind xmlns='" + stanza.NSBind + "'><required/></bind><session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>" +
			sm + "<compression xmlns='http://jabber.org/features/compress'><method>zlib</method></compression><csi xmlns='urn:xmpp:csi:0'/>" +
			"<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>100000</max-bytes></limits>"
	default:
		if x.tls == nil && !x.faults.NoSTARTTLS {
			f += "<starttls xmlns='" + stanza.NSTLS + "'/>"
		}
		f += "<mechanisms xmlns='" + stanza.NSSASL + "'>"
		for _, m := range x.s.cfg.Mechanisms {
			if x.tls != nil || !strings.HasSuffix(m, "-PLUS") {
				f += "<mechanism>" + m + "</mechanism>"
			}
		}
		f += "</mechanisms><register xmlns='http://jabber.org/features/iq-register'/>"
		if x.tls != nil && x.s.cfg.Bindings {
			f += "<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'>"
			for _, b := range x.bindings() {
				f += "<channel-binding type='" + string(b.Type) + "'/>"
			}
			f += "</sasl-channel-binding>"
		}
	}
	return f + "</stream:features>"
}

func (x *session) bindings() (out []scram.ChannelBinding) {
	cs := x.tls.ConnectionState()
	if cs.Version == tls.VersionTLS13 {
		if b, err := scram.NewTLSExporterBinding(&cs); err == nil {
			out = append(out, b)
		}
	} else if len(cs.TLSUnique) > 0 {
		out = append(out, scram.NewTLSUniqueBinding(cs.TLSUnique))
	}
	end := scram.ChannelBinding{Type: scram.ChannelBindingTLSServerEndpoint}
	sum := sha256.Sum256(x.s.certificate().Certificate[0])
	end.Data = sum[:]
	return append(out, end)
}

// salt is another one for each password, as with real servers.
func salt(user, password string) string {
	sum := sha256.Sum256([]byte(user + "\x00" + password))
	return string(sum[:16])
}

func (x *session) fail(condition string) bool {
	x.write([]byte("<failure xmlns='" + stanza.NSSASL + "'><" + condition + "/></failure>"))
	return false
}

func (s *Server) password(user string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.cfg.Users[user]
	return p, ok
}

func (x *session) login(mech, initial string) bool {
	if !slices.Contains(x.s.cfg.Mechanisms, mech) {
		return x.fail("invalid-mechanism")
	}
	b, err := base64.StdEncoding.DecodeString(initial)
	if err != nil {
		return x.fail("incorrect-encoding")
	}
	if mech == "PLAIN" {
		part := bytes.Split(b, []byte{0})
		if len(part) != 3 {
			return x.fail("malformed-request")
		}
		if p, ok := x.s.password(string(part[1])); !ok || p != string(part[2]) {
			return x.fail("not-authorized")
		}
		x.user = string(part[1])
		x.write([]byte("<success xmlns='" + stanza.NSSASL + "'/>"))
		return true
	}
	fcn := map[string]scram.HashGeneratorFcn{"SCRAM-SHA-1": scram.SHA1, "SCRAM-SHA-256": scram.SHA256, "SCRAM-SHA-512": scram.SHA512}[strings.TrimSuffix(mech, "-PLUS")]
	if fcn == nil {
		return x.fail("invalid-mechanism")
	}
	iters := 4096
	if x.faults.Iterations != 0 {
		iters = x.faults.Iterations
	}
	srv, err := fcn.NewServer(func(user string) (scram.StoredCredentials, error) {
		p, ok := x.s.password(user)
		if !ok {
			return scram.StoredCredentials{}, fmt.Errorf("no such user")
		}
		key := strings.TrimSuffix(mech, "-PLUS") + user + p
		x.s.mu.Lock()
		defer x.s.mu.Unlock()
		if c, ok := x.s.creds[key]; ok && iters == 4096 && !x.faults.FreshSalts {
			return c, nil
		}
		cl, err := fcn.NewClientUnprepped(user, p, "")
		if err != nil {
			return scram.StoredCredentials{}, err
		}
		salt := salt(user, p)
		if x.faults.FreshSalts {
			salt = rand.Text()
		}
		c, err := cl.GetStoredCredentialsWithError(scram.KeyFactors{Salt: salt, Iters: min(iters, 4096)})
		c.Iters = iters
		if iters == 4096 {
			x.s.creds[key] = c
		}
		return c, err
	})
	if err != nil {
		return x.fail("temporary-auth-failure")
	}
	conv := srv.NewConversation()
	if strings.HasSuffix(mech, "-PLUS") {
		conv = nil
		for _, cb := range x.bindings() {
			if bytes.HasPrefix(b, []byte("p="+string(cb.Type)+",")) {
				conv = srv.NewConversationWithChannelBinding(cb)
			}
		}
		if conv == nil {
			return x.fail("malformed-request")
		}
	}
	challenge, err := conv.Step(string(b))
	if err != nil {
		return x.fail("not-authorized")
	}
	if x.faults.Challenge != "" {
		challenge = x.faults.Challenge
	}
	if x.faults.BadDowngrade {
		challenge += ",h=" + base64.StdEncoding.EncodeToString(make([]byte, 32))
	}
	x.write([]byte("<challenge xmlns='" + stanza.NSSASL + "'>" + base64.StdEncoding.EncodeToString([]byte(challenge)) + "</challenge>"))
	st, err := x.scan.Next()
	if err != nil || !st.Is(stanza.NSSASL, "response") {
		return x.fail("aborted")
	}
	answer, err := base64.StdEncoding.DecodeString(st.Root().Text())
	if err != nil {
		return x.fail("incorrect-encoding")
	}
	final, err := conv.Step(string(answer))
	if err != nil || !conv.Valid() {
		return x.fail("not-authorized")
	}
	if x.faults.BadSignature {
		final = "v=" + base64.StdEncoding.EncodeToString(make([]byte, 32))
	}
	x.user = conv.Username()
	x.write([]byte("<success xmlns='" + stanza.NSSASL + "'>" + base64.StdEncoding.EncodeToString([]byte(final)) + "</success>"))
	return true
}

// register handles in-band registration (XEP-0077).
func (x *session) register(st *stanza.Stanza) {
	q, ok := st.Root().Child("jabber:iq:register", "query")
	if !ok {
		return
	}
	id := st.Root().Attr("id")
	if st.Root().Attr("type") == "get" {
		x.write([]byte("<iq type='result' id='" + id + "'><query xmlns='jabber:iq:register'><username/><password/></query></iq>"))
		return
	}
	u, named := q.Child("jabber:iq:register", "username")
	p, given := q.Child("jabber:iq:register", "password")
	if !named || !given { // a form, which nothing here needs
		x.write([]byte("<iq type='result' id='" + id + "'/>"))
		return
	}
	if p.Text() == "refuse-me" {
		x.write([]byte("<iq type='error' id='" + id + "'><error type='modify'><not-acceptable xmlns='" + stanza.NSStanzas + "'/></error></iq>"))
		return
	}
	x.s.SetPassword(u.Text(), p.Text())
	x.write([]byte("<iq type='result' id='" + id + "'/>"))
}

// SetPassword gives somebody another password, or makes the account.
func (s *Server) SetPassword(user, password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg.Users[user] = password
}

func (s *Server) leave(x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x.sm != nil && !x.ended && !s.closed && s.sessions[x] {
		x.sm.lost()
		s.changed.Broadcast()
		return // it may be resumed
	}
	s.over(x)
}

// over ends a session for good. What its client has not confirmed waits for the next.
func (s *Server) over(x *session) {
	if !s.sessions[x] {
		return
	}
	delete(s.sessions, x)
	if x.sm != nil {
		s.offline[x.user] = append(s.offline[x.user], x.sm.unconfirmed()...)
	}
	if x.present {
		s.broadcast(x, "<presence type='unavailable' from='"+x.full()+"'/>")
	}
	s.changed.Broadcast()
}

// broadcast writes to everybody else who is present.
func (s *Server) broadcast(x *session, raw string) {
	if s.cfg.Strangers {
		return
	}
	for y := range s.sessions {
		if y != x && y.present {
			go y.deliver([]byte(raw))
		}
	}
}

func (s *Server) available(user string) (out []*session) {
	for y := range s.sessions {
		if y.user == user && y.present {
			out = append(out, y)
		}
	}
	return out
}

// stanza routes one stanza of a client that has logged in.
func (x *session) stanza(st *stanza.Stanza) {
	root := st.Root()
	to, id := root.Attr("to"), root.Attr("id")
	bare, resource, _ := strings.Cut(to, "/")
	user, domain, isUser := strings.Cut(bare, "@")
	e := st.Edit()
	e.SetAttr(root, "from", x.full())
	raw := e.AppendTo(nil)
	s := x.s
	switch string(root.Local()) {
	case "iq":
		if strings.HasPrefix(id, NoAnswer) {
			return
		}
		if isUser && resource != "" {
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, y := range s.available(user) {
				if y.resource == resource {
					y.deliver(raw)
					return
				}
			}
		}
		if _, ok := root.Child("jabber:iq:register", "query"); ok && !isUser {
			x.register(st)
			return
		}
		x.iq(root, id)
	case "presence":
		typ := root.Attr("type")
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case to == "" && typ == "":
			fresh := !x.present
			x.present = true
			s.broadcast(x, string(raw))
			if fresh {
				for y := range s.sessions {
					if y != x && y.present && !s.cfg.Strangers {
						go x.deliver([]byte("<presence from='" + y.full() + "'/>"))
					}
				}
				for _, m := range s.offline[x.user] {
					x.deliver(m)
				}
				delete(s.offline, x.user)
			}
			s.changed.Broadcast()
		case to == "" && typ == "unavailable":
			x.present = false
			s.broadcast(x, string(raw))
		}
	case "message":
		s.mu.Lock()
		defer s.mu.Unlock()
		if !isUser || domain != s.cfg.Domain {
			return
		}
		if _, exists := s.cfg.Users[user]; !exists {
			x.deliver(stanza.AppendError(nil, "message", to, x.full(), id, stanza.Error{Type: "cancel", Condition: "item-not-found"}))
			return
		}
		if s.cfg.Fate != nil && root.Attr("type") != "error" {
			switch s.cfg.Fate(x.full(), st) {
			case Bounce:
				x.deliver(stanza.AppendError(nil, "message", to, x.full(), id, stanza.Error{Type: "cancel", Condition: "service-unavailable"}))
				return
			case Lose:
				return
			}
		}
		if resource != "" { // present or not (RFC 6121 section 8.5.3.1)
			for y := range s.sessions {
				if y.user == user && y.resource == resource {
					y.deliver(raw)
					return
				}
			}
		}
		all := s.available(user)
		for _, y := range all {
			if resource == "" {
				y.deliver(raw)
			}
		}
		if resource == "" && len(all) > 0 {
			return
		}
		if len(all) > 0 { // that resource is gone
			for _, y := range all {
				y.deliver(raw)
			}
			return
		}
		if _, ok := root.Child("urn:xmpp:hints", "no-store"); ok || root.Attr("type") == "error" {
			return
		}
		again, err := stanza.Parse(raw)
		if err != nil {
			return
		}
		d := again.Edit()
		d.Append(again.Root(), delay(time.Now()))
		s.offline[user] = append(s.offline[user], d.AppendTo(nil))
	}
}

func (x *session) iq(root stanza.Element, id string) {
	result := func(inner string) {
		b := stanza.AppendAttr([]byte("<iq type='result'"), "id", id)
		b = stanza.AppendAttr(b, "to", x.full())
		x.deliver(append(append(append(b, '>'), inner...), "</iq>"...))
	}
	s := x.s
	if b, ok := root.Child(stanza.NSBind, "bind"); ok {
		x.resource = "r"
		if r, ok := b.Child(stanza.NSBind, "resource"); ok && r.Text() != "" {
			x.resource = r.Text()
		}
		result("<bind xmlns='" + stanza.NSBind + "'><jid>" + x.full() + "</jid></bind>")
		s.mu.Lock()
		for y := range s.sessions {
			if y.user == x.user && y.resource == x.resource {
				y.conn.Close()
				s.over(y)
			}
		}
		s.sessions[x] = true
		s.changed.Broadcast()
		s.mu.Unlock()
		return
	}
	if root.Attr("type") == "result" || root.Attr("type") == "error" {
		return
	}
	if _, ok := root.Child("jabber:iq:roster", "query"); ok {
		s.mu.Lock()
		items := ""
		for u := range s.cfg.Users {
			if u != x.user {
				items += "<item jid='" + u + "@" + s.cfg.Domain + "' subscription='both'/>"
			}
		}
		s.mu.Unlock()
		result("<query xmlns='jabber:iq:roster'>" + items + "</query>")
		return
	}
	if _, ok := root.Child("urn:xmpp:ping", "ping"); ok && x.faults.NoPings {
		return
	}
	result("")
}
