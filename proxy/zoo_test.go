package proxy_test

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
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"otrproxy/config"
	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/proxy"
	"otrproxy/proxy/control"
	"otrproxy/stanza"
	"otrproxy/test/dns"
)

// The zoo: servers that are not what they should be. For each, nothing secret reaches it,
// the person is told what it is, in words and in the figures, and when it ends the next
// login succeeds by itself, or after the one command that the person was told.

// A notary signs certificates.
type notary struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newNotary(t *testing.T) *notary {
	t.Helper()
	c, err := server.SelfSigned("notary")
	if err != nil {
		t.Fatal(err)
	}
	return &notary{c.Leaf, c.PrivateKey.(*ecdsa.PrivateKey)}
}

func (n *notary) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(n.cert)
	return pool
}

// signs makes a certificate for a name that ends after a while.
func (n *notary) signs(t *testing.T, name string, life time.Duration) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return n.signsKey(t, name, life, key)
}

func (n *notary) signsKey(t *testing.T, name string, life time.Duration, key *ecdsa.PrivateKey) *tls.Certificate {
	t.Helper()
	tm := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now().Add(-90 * 24 * time.Hour), NotAfter: time.Now().Add(life),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tm, n.cert, &key.PublicKey, n.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// long is the life of a certificate of which nobody is warned yet.
const long = 60 * 24 * time.Hour

// spki is the pin of a certificate's key.
func spki(c *x509.Certificate) string {
	return config.Pin{SPKI: true, Sum: sha256.Sum256(c.RawSubjectPublicKeyInfo)}.String()
}

// A gate is an address behind which the server can be another one from one connection to
// the next.
type gate struct {
	t      *testing.T
	l      net.Listener
	serve  atomic.Pointer[func(net.Conn)]
	dialed atomic.Int32

	mu  sync.Mutex
	got []byte // what beasts were sent, TLS taken off
}

func newGate(t *testing.T) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{t: t, l: l}
	var wg sync.WaitGroup
	open := map[net.Conn]bool{}
	var mu sync.Mutex
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			g.dialed.Add(1)
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				(*g.serve.Load())(c)
				c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return g
}

func (g *gate) addr() string { return g.l.Addr().String() }

// leads has connections served by a server that is as it should be.
func (g *gate) leads(s *server.Server) {
	f := func(c net.Conn) {
		to, err := net.Dial("tcp", s.Addr())
		if err != nil {
			return
		}
		go func() { io.Copy(to, c); to.(*net.TCPConn).CloseWrite() }()
		io.Copy(c, to)
		to.Close()
	}
	g.serve.Store(&f)
}

// holds has connections served by a beast.
func (g *gate) holds(b func(*beast)) {
	f := func(c net.Conn) {
		defer func() {
			if r := recover(); r != nil && r != errBitten {
				panic(r)
			}
		}()
		b(&beast{g: g, conn: c, scan: stanza.NewScanner(&noted{c, g}, stanza.Limits{Bytes: 1 << 20})})
	}
	g.serve.Store(&f)
}

func (g *gate) received() []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	return bytes.Clone(g.got)
}

// noted records what is read.
type noted struct {
	net.Conn
	g *gate
}

func (n *noted) Read(b []byte) (int, error) {
	k, err := n.Conn.Read(b)
	n.g.mu.Lock()
	n.g.got = append(n.g.got, b[:k]...)
	n.g.mu.Unlock()
	return k, err
}

var errBitten = errors.New("the other side has gone")

// A beast is a server that misbehaves, step by step.
type beast struct {
	g    *gate
	conn net.Conn
	scan *stanza.Scanner
}

func (b *beast) says(s string) {
	if _, err := io.WriteString(b.conn, s); err != nil {
		panic(errBitten)
	}
}

// hears waits for the next piece of the stream.
func (b *beast) hears() *stanza.Stanza {
	for {
		st, err := b.scan.Next()
		if err != nil || st.Kind == stanza.KindClose {
			panic(errBitten)
		}
		if st.Kind != stanza.KindSpace {
			return st.Clone()
		}
	}
}

const beastHeader = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='" + stanza.NSStream + "' version='1.0' from='" + domain + "' id='x'>"

// greets answers the stream's header.
func (b *beast) greets(features string) {
	b.hears()
	b.says(beastHeader + features)
}

const offersTLS = "<stream:features><starttls xmlns='" + stanza.NSTLS + "'><required/></starttls></stream:features>"

func offersSASL(mechs ...string) string {
	f := "<stream:features><mechanisms xmlns='" + stanza.NSSASL + "'>"
	for _, m := range mechs {
		f += "<mechanism>" + m + "</mechanism>"
	}
	return f + "</mechanisms></stream:features>"
}

// secures goes on to TLS with a certificate.
func (b *beast) secures(c *tls.Certificate) {
	b.securesWith(&tls.Config{Certificates: []tls.Certificate{*c}})
}

func (b *beast) securesWith(cfg *tls.Config) {
	b.greets(offersTLS)
	b.hears()
	b.says("<proceed xmlns='" + stanza.NSTLS + "'/>")
	t := tls.Server(b.conn, cfg)
	if t.Handshake() != nil {
		panic(errBitten)
	}
	b.conn = t
	b.scan = stanza.NewScanner(&noted{t, b.g}, stanza.Limits{Bytes: 1 << 20})
}

// challenges answers the first message of SCRAM; f makes the challenge of the nonce.
func (b *beast) challenges(f func(nonce string) string) {
	auth := b.hears()
	first, _ := base64.StdEncoding.DecodeString(auth.Root().Text())
	_, nonce, _ := strings.Cut(string(first), ",r=")
	b.says("<challenge xmlns='" + stanza.NSSASL + "'>" + base64.StdEncoding.EncodeToString([]byte(f(nonce))) + "</challenge>")
}

// waits does nothing more until the other side goes.
func (b *beast) waits() {
	for {
		b.hears()
	}
}

// An attack is one of the zoo.
type attack struct {
	name  string
	trust string // "" for pin; words of its own where more is to be set
	beast func(b *beast, w *zooWorld)
	// Or one that needs more than a connection:
	stage func(w *zooWorld)

	cause string // the metric's word for it
	sees  string // what the person is told
	got   string // what the server got, at most
	mends string // the command that resumes it; "" where it resumes by itself
}

// zooWorld is what an attack happens in.
type zooWorld struct {
	t     *testing.T
	gate  *gate
	good  *server.Server
	cert  *tls.Certificate // of the good one
	ca    *notary          // which this machine trusts
	rogue *notary          // which it trusts as well, and should not
	b     *box
	names *dns.Server // where DNS counts
	moved bool        // the good one has another certificate now
}

func (w *zooWorld) login() error {
	cfg := w.b.config("alice", client.STARTTLS)
	c, err := client.Dial(w.t.Context(), cfg)
	if err == nil {
		c.Close()
	}
	return err
}

// What a server may get.
const (
	gotNothing = "nothing"
	gotHeader  = "a stream header"
	gotName    = "a stream header and the name" // the first message of SCRAM
	gotProof   = "the name and a proof, not the password"
)

func scramOnly(f func(string) string) func(*beast, *zooWorld) {
	return func(b *beast, w *zooWorld) {
		b.secures(w.cert)
		b.greets(offersSASL("SCRAM-SHA-256"))
		b.challenges(f)
		b.hears()
		b.waits()
	}
}

const goodSalt = "c2FsdHNhbHRzYWx0c2FsdA=="

func zoo() []attack {
	malformed := func(name string, f func(string) string) attack {
		return attack{name: "malformed challenge: " + name, cause: "sasl", sees: "malformed login message", got: gotName, beast: scramOnly(f)}
	}
	cut := func(name, got, cause string, f func(*beast, *zooWorld)) attack {
		sees := "closed the connection"
		if cause == "tls" {
			sees = "No TLS connection"
		}
		return attack{name: "cut " + name, cause: cause, sees: sees, got: got, beast: f}
	}
	return []attack{
		// Who the server is.
		{name: "a rogue CA, under ca+pin", trust: "ca+pin", cause: "pin_mismatch", sees: "is not the one you pinned", got: gotHeader,
			beast: func(b *beast, w *zooWorld) { b.secures(w.rogue.signs(w.t, domain, time.Hour)); b.waits() }},
		{name: "a rogue CA, under tofu", trust: "tofu", cause: "pin_mismatch", sees: "is not the one you pinned", got: gotHeader,
			beast: func(b *beast, w *zooWorld) { b.secures(w.rogue.signs(w.t, domain, time.Hour)); b.waits() }},
		{name: "a rogue CA, direct TLS", trust: "tofu-direct", cause: "pin_mismatch", sees: "is not the one you pinned", got: gotNothing,
			beast: func(b *beast, w *zooWorld) {
				tls.Server(b.conn, &tls.Config{Certificates: []tls.Certificate{*w.rogue.signs(w.t, domain, time.Hour)}, NextProtos: []string{"xmpp-client"}}).Handshake()
			}},
		{name: "an unknown CA, under ca", trust: "ca", cause: "certificate", sees: "not vouched for by any CA of this machine (unknown issuer)", got: gotHeader,
			beast: func(b *beast, w *zooWorld) { b.secures(newNotary(w.t).signs(w.t, domain, time.Hour)); b.waits() }},
		{name: "self-signed, at the first use", trust: "first", cause: "certificate", sees: "otrproxy pin add " + domain + " sha256:", got: gotHeader,
			beast: func(b *beast, w *zooWorld) { c, _ := server.SelfSigned(domain); b.secures(&c); b.waits() }},
		{name: "an expired certificate, under ca", trust: "ca", cause: "certificate", sees: "(expired or not yet valid)", got: gotHeader,
			beast: func(b *beast, w *zooWorld) { b.secures(w.ca.signs(w.t, domain, -time.Hour)); b.waits() }},
		{name: "an expired certificate, under ca+pin", trust: "ca+pin", cause: "certificate", sees: "(expired or not yet valid)", got: gotHeader,
			beast: func(b *beast, w *zooWorld) {
				b.secures(w.ca.signsKey(w.t, domain, -time.Hour, w.cert.PrivateKey.(*ecdsa.PrivateKey)))
				b.waits()
			}},
		{name: "another name, under ca", trust: "ca", cause: "certificate", sees: "(made for another name)", got: gotHeader,
			beast: func(b *beast, w *zooWorld) { b.secures(w.ca.signs(w.t, "example.com", time.Hour)); b.waits() }},
		{name: "the right name of a wrong SRV host", trust: "srv", cause: "certificate", sees: "(made for another name)", got: gotHeader,
			beast: func(b *beast, w *zooWorld) { b.secures(w.ca.signs(w.t, "evil.example", time.Hour)); b.waits() }},
		{name: "a rogue CA, under dane", trust: "dane", cause: "certificate", sees: "is not the one that DNS says", got: gotHeader,
			beast: func(b *beast, w *zooWorld) { b.secures(w.rogue.signs(w.t, domain, time.Hour)); b.waits() }},
		{name: "DNS that is not signed, under dane", trust: "dane", cause: "dns", sees: "not signed", got: gotNothing, mends: "sign",
			stage: func(w *zooWorld) {
				w.names.Secure(false)
				w.gate.holds(func(b *beast) { b.secures(w.rogue.signs(w.t, domain, time.Hour)); b.waits() })
			}},
		{name: "the key changes in mid-life", trust: "tofu", cause: "pin_mismatch", sees: "is not the one you pinned", got: gotHeader, mends: "pin add",
			stage: func(w *zooWorld) { w.moves(w.ca.signs(w.t, domain, long)) }},
		{name: "the certificate changes in mid-life, under pin", cause: "pin_mismatch", sees: "is not the one you pinned", got: gotHeader, mends: "pin add",
			stage: func(w *zooWorld) {
				w.moves(w.ca.signsKey(w.t, domain, long, w.cert.PrivateKey.(*ecdsa.PrivateKey)))
			}},
		{name: "resumption with another certificate", trust: "tofu", cause: "pin_mismatch", sees: "is not the one you pinned", got: gotHeader,
			stage: func(w *zooWorld) {
				// One server that hands out tickets, to the same key before and after.
				cfg := &tls.Config{Certificates: []tls.Certificate{*w.cert}}
				cfg.SetSessionTicketKeys([][32]byte{{1}})
				w.gate.holds(func(b *beast) {
					b.securesWith(cfg)
					b.greets(offersSASL("SCRAM-SHA-256"))
					b.hears()
					b.says("<failure xmlns='" + stanza.NSSASL + "'><temporary-auth-failure/></failure>")
					b.waits()
				})
				if err := w.login(); err == nil || !strings.Contains(err.Error(), "could not log you in") {
					w.t.Errorf("before: %v", err)
				}
				w.gate.mu.Lock()
				w.gate.got = nil
				w.gate.mu.Unlock()
				other := cfg.Clone()
				other.Certificates = []tls.Certificate{*w.rogue.signs(w.t, domain, time.Hour)}
				other.GetConfigForClient = nil
				w.gate.holds(func(b *beast) {
					b.securesWith(other)
					if b.conn.(*tls.Conn).ConnectionState().DidResume {
						w.t.Error("a connection was resumed")
					}
					b.waits()
				})
			}},
		{name: "TLS 1.0", cause: "tls", sees: "No TLS connection", got: gotHeader,
			beast: func(b *beast, w *zooWorld) {
				b.securesWith(&tls.Config{Certificates: []tls.Certificate{*w.cert}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10})
			}},
		{name: "TLS 1.1", cause: "tls", sees: "No TLS connection", got: gotHeader,
			beast: func(b *beast, w *zooWorld) {
				b.securesWith(&tls.Config{Certificates: []tls.Certificate{*w.cert}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
			}},

		// Before TLS.
		{name: "STARTTLS stripped", cause: "starttls_stripped", sees: "offers no encryption (STARTTLS)", got: gotHeader,
			beast: func(b *beast, _ *zooWorld) { b.greets(offersSASL("SCRAM-SHA-1", "PLAIN")); b.waits() }},
		{name: "STARTTLS refused", cause: "tls", sees: "offered encryption (STARTTLS) and then refused it", got: gotHeader,
			beast: func(b *beast, _ *zooWorld) {
				b.greets(offersTLS)
				b.hears()
				b.says("<failure xmlns='" + stanza.NSTLS + "'/>")
				b.waits()
			}},
		{name: "bytes behind <proceed/>", cause: "starttls_injection", sees: "sent something in clear behind its answer to STARTTLS", got: gotHeader,
			beast: func(b *beast, _ *zooWorld) {
				b.greets(offersTLS)
				b.hears()
				b.says("<proceed xmlns='" + stanza.NSTLS + "'/><message from='bob@example.org'><body>x</body></message>")
				b.waits()
			}},
		{name: "a login offered before TLS", cause: "protocol", sees: "sent something that is not XMPP", got: gotHeader,
			beast: func(b *beast, _ *zooWorld) { b.hears(); b.says("HTTP/1.1 200 OK\r\n\r\n"); b.waits() }},
		{name: "a redirection in clear", cause: "protocol", sees: "elsewhere before the connection is encrypted", got: gotHeader,
			beast: func(b *beast, w *zooWorld) {
				b.greets("<stream:error><see-other-host xmlns='" + stanza.NSStreams + "'>" + w.stranger() + "</see-other-host></stream:error>")
			}},
		{name: "a redirection to a stranger", cause: "pin_mismatch", sees: "is not the one you pinned", got: gotHeader,
			beast: func(b *beast, w *zooWorld) {
				to := w.stranger()
				b.secures(w.cert)
				b.greets("<stream:error><see-other-host xmlns='" + stanza.NSStreams + "'>" + to + "</see-other-host></stream:error>")
			}},
		{name: "redirections without end", cause: "protocol", sees: "from one place to the next", got: gotHeader,
			beast: func(b *beast, w *zooWorld) {
				b.secures(w.cert)
				b.greets("<stream:error><see-other-host xmlns='" + stanza.NSStreams + "'>" + w.gate.addr() + "</see-other-host></stream:error>")
			}},

		// Time and size.
		{name: "slow-loris in clear", cause: "timeout", sees: "did not answer in time", got: gotHeader, beast: func(b *beast, _ *zooWorld) { b.hears(); b.drips(beastHeader + "<stream:features>") }},
		{name: "slow-loris in TLS", cause: "timeout", sees: "did not answer in time", got: gotHeader,
			beast: func(b *beast, w *zooWorld) { b.secures(w.cert); b.hears(); b.drips(beastHeader + "<stream:features>") }},
		{name: "silence", cause: "timeout", sees: "did not answer in time", got: gotHeader, beast: func(b *beast, _ *zooWorld) { b.waits() }},
		{name: "silence in the TLS handshake", cause: "timeout", sees: "did not answer in time", got: gotHeader + " and a TLS hello",
			beast: func(b *beast, _ *zooWorld) {
				b.greets(offersTLS)
				b.hears()
				b.says("<proceed xmlns='" + stanza.NSTLS + "'/>")
				io.Copy(io.Discard, b.conn)
			}},
		{name: "features without end, in clear", cause: "protocol", sees: "sent something that is not XMPP", got: gotHeader, beast: func(b *beast, _ *zooWorld) { b.hears(); b.floods() }},
		{name: "features without end, in TLS", cause: "protocol", sees: "sent something that is not XMPP", got: gotHeader, beast: func(b *beast, w *zooWorld) { b.secures(w.cert); b.hears(); b.floods() }},

		// The login.
		{name: "PLAIN alone is offered", trust: "fresh", cause: "no_mechanism", sees: "sends the password itself", got: gotHeader,
			beast: func(b *beast, w *zooWorld) { b.secures(w.cert); b.greets(offersSASL("PLAIN")); b.waits() }},
		{name: "no binding any more", trust: "bound", cause: "login_downgrade", sees: "otrproxy login forget alice@" + domain, got: gotHeader,
			beast: func(b *beast, w *zooWorld) {
				b.secures(w.cert)
				b.greets(offersSASL("SCRAM-SHA-256", "SCRAM-SHA-1"))
				b.waits()
			}},
		{name: "PLAIN alone any more", trust: "plain-after-scram", cause: "login_downgrade", sees: "wants to be given it now", got: gotHeader,
			beast: func(b *beast, w *zooWorld) { b.secures(w.cert); b.greets(offersSASL("PLAIN")); b.waits() }},
		{name: "a list of logins that was changed on the way", cause: "sasl", sees: "has changed the list of logins it offers", got: gotName,
			beast: scramOnly(func(nonce string) string {
				return "r=" + nonce + "x,s=" + goodSalt + ",i=4096,h=" + base64.StdEncoding.EncodeToString(make([]byte, 32))
			})},
		{name: "a signature that proves nothing", cause: "sasl", sees: "could not prove that it knows your password", got: gotProof,
			beast: func(b *beast, w *zooWorld) {
				b.secures(w.cert)
				b.greets(offersSASL("SCRAM-SHA-256"))
				b.challenges(func(nonce string) string { return "r=" + nonce + "x,s=" + goodSalt + ",i=4096" })
				b.hears()
				b.says("<success xmlns='" + stanza.NSSASL + "'>" + base64.StdEncoding.EncodeToString([]byte("v="+base64.StdEncoding.EncodeToString(make([]byte, 32)))) + "</success>")
				b.waits()
			}},
		{name: "success without a proof", cause: "sasl", sees: "could not prove that it knows your password", got: gotProof,
			beast: func(b *beast, w *zooWorld) {
				b.secures(w.cert)
				b.greets(offersSASL("SCRAM-SHA-256"))
				b.challenges(func(nonce string) string { return "r=" + nonce + "x,s=" + goodSalt + ",i=4096" })
				b.hears()
				b.says("<success xmlns='" + stanza.NSSASL + "'/>")
				b.waits()
			}},
		{name: "success at once", cause: "sasl", sees: "malformed login message", got: gotName,
			beast: func(b *beast, w *zooWorld) {
				b.secures(w.cert)
				b.greets(offersSASL("SCRAM-SHA-256"))
				b.hears()
				b.says("<success xmlns='" + stanza.NSSASL + "'/>")
				b.waits()
			}},
		{name: "a thousand million rounds", cause: "sasl", sees: "rounds of hashing", got: gotName, beast: scramOnly(func(nonce string) string { return "r=" + nonce + "x,s=" + goodSalt + ",i=1000000000" })},
		{name: "no rounds", cause: "sasl", sees: "rounds of hashing", got: gotName, beast: scramOnly(func(nonce string) string { return "r=" + nonce + "x,s=" + goodSalt + ",i=0" })},
		malformed("not our nonce", func(string) string { return "r=abc,s=" + goodSalt + ",i=4096" }),
		malformed("a shorter nonce", func(nonce string) string { return "r=" + nonce[:5] + ",s=" + goodSalt + ",i=4096" }),
		malformed("no salt", func(nonce string) string { return "r=" + nonce + "x,i=4096" }),
		malformed("no rounds named", func(nonce string) string { return "r=" + nonce + "x,s=" + goodSalt }),
		malformed("an extension that must be known", func(nonce string) string { return "m=x,r=" + nonce + "x,s=" + goodSalt + ",i=4096" }),
		malformed("empty", func(string) string { return "" }),
		malformed("not text", func(string) string { return "\xff\x00\xfe" }),
		{name: "malformed challenge: not base64", cause: "sasl", sees: "malformed login message", got: gotName,
			beast: func(b *beast, w *zooWorld) {
				b.secures(w.cert)
				b.greets(offersSASL("SCRAM-SHA-256"))
				b.hears()
				b.says("<challenge xmlns='" + stanza.NSSASL + "'>!!!</challenge>")
				b.waits()
			}},
		{name: "a failure of its own", cause: "sasl", sees: "could not log you in: temporary-auth-failure", got: gotName,
			beast: func(b *beast, w *zooWorld) {
				b.secures(w.cert)
				b.greets(offersSASL("SCRAM-SHA-256"))
				b.hears()
				b.says("<failure xmlns='" + stanza.NSSASL + "'><temporary-auth-failure/></failure>")
				b.waits()
			}},

		// Cut at every step.
		cut("at once", gotNothing, "tcp", func(*beast, *zooWorld) {}),
		cut("behind the header", gotHeader, "tcp", func(b *beast, _ *zooWorld) { b.hears() }),
		cut("in the features", gotHeader, "tcp", func(b *beast, _ *zooWorld) { b.hears(); b.says(beastHeader + "<stream:features><starttls ") }),
		cut("behind the features", gotHeader, "tcp", func(b *beast, _ *zooWorld) { b.greets(offersTLS); b.hears() }),
		cut("behind <proceed/>", gotHeader, "tls", func(b *beast, _ *zooWorld) {
			b.greets(offersTLS)
			b.hears()
			b.says("<proceed xmlns='" + stanza.NSTLS + "'/>")
		}),
		cut("behind TLS", gotHeader, "tcp", func(b *beast, w *zooWorld) { b.secures(w.cert) }),
		cut("behind the header in TLS", gotHeader, "tcp", func(b *beast, w *zooWorld) { b.secures(w.cert); b.hears() }),
		cut("behind the request for a login", gotName, "tcp", func(b *beast, w *zooWorld) {
			b.secures(w.cert)
			b.greets(offersSASL("SCRAM-SHA-256"))
			b.hears()
		}),
		cut("behind the challenge", gotProof, "tcp", func(b *beast, w *zooWorld) {
			b.secures(w.cert)
			b.greets(offersSASL("SCRAM-SHA-256"))
			b.challenges(func(nonce string) string { return "r=" + nonce + "x,s=" + goodSalt + ",i=4096" })
			b.hears()
		}),
	}
}

// drips sends a byte at a time, for ever.
func (b *beast) drips(begin string) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		s := "<x xmlns='urn:x'/>"
		if i < len(begin) {
			s = begin
		}
		b.says(s[i%len(s) : i%len(s)+1])
		<-tick.C
	}
}

func (b *beast) floods() {
	b.says(beastHeader + "<stream:features>")
	for {
		b.says(strings.Repeat("<x xmlns='urn:x'/>", 1000))
	}
}

// stranger is another server that would take our login. What it is sent counts.
func (w *zooWorld) stranger() string {
	other := newGate(w.t)
	other.holds(func(b *beast) {
		b.g = w.gate
		b.secures(w.rogue.signs(w.t, domain, time.Hour))
		b.greets(offersSASL("PLAIN", "SCRAM-SHA-1"))
		b.waits()
	})
	return other.addr()
}

// moves has the good server present another certificate, for good.
func (w *zooWorld) moves(c *tls.Certificate) {
	s := startServer(w.t, server.Config{Cert: c})
	w.good, w.moved = s, true
	w.gate.leads(s)
}

var accepts = regexp.MustCompile(`otrproxy (pin add|login forget) (\S+)(?: (sha256:\S+))?`)

func TestZoo(t *testing.T) {
	table := make([]string, len(zoo()))
	t.Run("zoo", func(t *testing.T) {
		for i, a := range zoo() {
			t.Run(a.name, func(t *testing.T) {
				t.Parallel()
				table[i] = a.run(t)
			})
		}
	})
	t.Logf("zoo: %d attacks", len(table))
	for _, row := range table {
		t.Log("zoo: " + row)
	}
}

// world is where an attack happens: after a good login, but for a first use.
func (a attack) world(t *testing.T) *zooWorld {
	t.Helper()
	w := &zooWorld{t: t, gate: newGate(t), ca: newNotary(t), rogue: newNotary(t)}
	roots := w.ca.roots()
	roots.AddCert(w.rogue.cert)
	w.cert = w.ca.signs(t, domain, long)
	opt := proxy.Options{Roots: roots}
	mechs := []string{"SCRAM-SHA-256"}
	if a.trust == "bound" {
		mechs = []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"}
	}
	w.good = startServer(t, server.Config{Cert: w.cert, Mechanisms: mechs})
	settings := map[string]string{"tofu": "trust: tofu", "first": "trust: tofu", "ca": "trust: ca", "srv": "trust: ca", "dane": "trust: dane", "tofu-direct": "trust: tofu, tls: direct",
		"ca+pin": "trust: ca+pin, pins: [" + spki(w.cert.Leaf) + "]", "plain-after-scram": "trust: tofu, plain_upstream: true"}[a.trust]
	if settings == "" {
		settings = "trust: pin, pins: [" + w.good.Pin() + "]"
	}
	if a.trust == "srv" || a.trust == "dane" {
		names, err := dns.New()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(names.Close)
		_, port, _ := net.SplitHostPort(w.gate.addr())
		var n uint16
		fmt.Sscan(port, &n)
		names.SRV("xmpp-client", domain, "evil.example", n, 0, 0)
		names.Host("evil.example", "127.0.0.1")
		sum := sha256.Sum256(w.cert.Leaf.RawSubjectPublicKeyInfo)
		names.TLSA("evil.example", n, 3, 1, 1, sum[:])
		opt.Resolver, opt.DNSSEC, w.names = names.Resolver(), names.Addr(), names
	} else {
		settings += fmt.Sprintf(", connect: %q", w.gate.addr())
	}
	dir := stateDir(t)
	w.b = startWith(t, dir, fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\nlimits: {login: 2s}\ndomains:\n  %s: {%s}\n", dir, domain, settings), opt)
	w.gate.leads(w.good)
	if a.trust != "first" && a.trust != "fresh" {
		if err := w.login(); err != nil {
			t.Fatalf("before: %v\n%s", err, w.b.log)
		}
	}
	return w
}

func (a attack) run(t *testing.T) string {
	w := a.world(t)
	if a.stage != nil {
		a.stage(w)
	} else {
		w.gate.holds(func(b *beast) { a.beast(b, w) })
	}
	err := w.login()
	if err == nil {
		t.Fatal("let in")
	}
	var se *client.StreamError
	var le *client.LoginError
	if !errors.As(err, &se) && !errors.As(err, &le) {
		t.Errorf("the person was told nothing: %v", err)
	}
	if !strings.Contains(err.Error(), a.sees) {
		t.Errorf("the person was told: %v; want %q", err, a.sees)
	}
	if errors.As(err, &le) && le.Condition == "not-authorized" {
		t.Error("a client may forget the password for that")
	}
	if n := metric(w.b, `otrproxy_upstream_failures_total{cause="`+a.cause+`"}`); n == "0" || n == "absent" {
		t.Errorf("the figures say nothing of %s: %s", a.cause, n)
	}
	if !strings.Contains(w.b.log.String(), "cause="+a.cause) {
		t.Errorf("the log says nothing of %s:\n%s", a.cause, w.b.log)
	}
	got := w.gate.received()
	if w.moved {
		got = append(got, w.good.Received()...)
	}
	a.harmless(t, got)
	if a.cause == "pin_mismatch" || a.cause == "certificate" || a.cause == "login_downgrade" {
		st := statusOf(t, w.b)
		if len(st.Decisions) != 1 || !strings.Contains(st.Decisions[0].Text, a.sees) {
			t.Errorf("to decide: %+v", st.Decisions)
		}
		// A client that tries again and again does not have the server dialled each time.
		dialed := w.gate.dialed.Load()
		for range 5 {
			w.login()
		}
		if n := w.gate.dialed.Load() - dialed; a.cause != "login_downgrade" && n > 3 {
			t.Errorf("dialled %d times for 5 tries", n)
		}
	}

	switch a.mends {
	case "sign":
		w.names.Secure(true)
		fallthrough
	case "":
		w.gate.leads(w.good)
	default:
		a.mend(w, err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for err := w.login(); err != nil; err = w.login() {
		if a.mends != "" || time.Now().After(deadline) {
			t.Fatalf("afterwards: %v", err)
		}
	}
	if st := statusOf(t, w.b); slices.ContainsFunc(st.Decisions, func(d control.Decision) bool { return d.Domain == domain }) {
		t.Errorf("still to decide: %+v", st.Decisions)
	}
	return a.row(err)
}

// mend runs the command that the person was told.
func (a attack) mend(w *zooWorld, err error) {
	t := w.t
	t.Helper()
	if m := accepts.FindStringSubmatch(err.Error()); m == nil {
		t.Fatalf("no command is named: %v", err)
	} else if _, err := admin(t, w.b.p, m[1], "domain", m[2], "pin", m[3]); err != nil {
		t.Fatal(err)
	}
}

func (a attack) row(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	return fmt.Sprintf("%s | %s | %s", a.name, a.got, text[:min(len(text), 220)])
}

// harmless checks that a server got nothing secret, and no more than it says.
func (a attack) harmless(t *testing.T, got []byte) {
	t.Helper()
	secrets := []string{"wonderland", base64.StdEncoding.EncodeToString([]byte("\x00alice\x00wonderland")), base64.StdEncoding.EncodeToString([]byte("wonderland"))}
	for _, s := range secrets {
		if bytes.Contains(got, []byte(s)) {
			t.Errorf("it got the password: %s", got)
		}
	}
	forbidden := map[string][]string{gotNothing: {"<"}, gotHeader: {"<auth", "<response", "alice"}, gotName: {"<response", "PLAIN"}, gotProof: {"PLAIN"}}
	words := forbidden[a.got]
	if words == nil {
		words = forbidden[gotHeader]
	}
	for _, word := range words {
		if bytes.Contains(got, []byte(word)) {
			t.Errorf("it got more than %s (%s): %q", a.got, word, got)
		}
	}
}
