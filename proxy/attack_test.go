package proxy_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"otrproxy/config"
	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/proxy"
	"otrproxy/proxy/control"
	"otrproxy/proxy/control/commands"
	"otrproxy/stanza"
)

// Attacks that worked once; each is a regression test.

const rhead = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='example.org' version='1.0'>"

const plainFeatures = "<stream:features><bind xmlns='" + stanza.NSBind + "'/></stream:features>"

// fate sends a stanza and then a marker, and says what became of it.
func fate(t *testing.T, s *server.Server, c *client.Client, id, raw string) (errored, noticed bool, up string) {
	t.Helper()
	before := len(s.Received())
	c.Send(raw + fmt.Sprintf("<iq type='get' id='mark%s'><ping xmlns='urn:xmpp:ping'/></iq>", id))
	if _, err := c.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "mark"+id }); err != nil {
		t.Fatal(err)
	}
	up = string(s.Received()[before:])
	c.Send("<iq type='get' id='again" + id + "'><ping xmlns='urn:xmpp:ping'/></iq>")
	c.Wait(func(st *stanza.Stanza) bool {
		if st.Root().Attr("id") == id && st.Root().Attr("type") == "error" {
			errored = true
		}
		if client.Notice(st) {
			noticed = true
		}
		return st.Root().Attr("id") == "again"+id
	})
	return
}

// private has alice and bob in a private conversation.
func private(t *testing.T, more string) (s *server.Server, alice, bob *client.Client, home *box) {
	s = startServer(t, server.Config{})
	home = startProxy(t, s, more)
	away := startProxy(t, s, "")
	bob = away.login("bob", client.Plain)
	alice = home.login("alice", client.Plain)
	alice.Say("bob@"+domain, "first", "first")
	text(t, bob, "alice@"+domain, "first")
	alice.Wait(client.Notice) // waits...
	alice.Wait(client.Notice) // started
	alice.Wait(client.Notice) // sent
	return
}

func TestAttackSilentlyLost(t *testing.T) {
	s, alice, bob, _ := private(t, "")
	for i, c := range []string{
		`<body/><body xml:lang='de'>Hallo CANARY</body>`,
		`<body/><subject>CANARY</subject>`,
		`<body></body><x xmlns='jabber:x:oob'><url>https://x/CANARY</url></x>`,
		`<body/><html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'>CANARY</body></html>`,
		`<subject><b xmlns='urn:x'>CANARY</b></subject>`,
		`CANARY`,
	} {
		id := fmt.Sprint("l", i)
		errored, noticed, up := fate(t, s, alice, id, `<message to='bob@example.org' type='chat' id='`+id+`'>`+c+`</message>`)
		if !errored && !noticed && !strings.Contains(up, "<message") {
			t.Errorf("silently lost: %s", c)
		}
		if strings.Contains(up, "CANARY") {
			t.Errorf("leak: %s", up)
		}
	}
	for i, c := range []string{
		`<body>one</body><body>TWO</body>`,
		`<body xml:lang='en'>one</body><body xml:lang='de'>ZWEI, etwas anderes</body>`,
	} {
		id := fmt.Sprint("k", i)
		_, noticed, _ := fate(t, s, alice, id, `<message to='bob@example.org' type='chat' id='`+id+`'>`+c+`</message>`)
		got, _ := bob.Text("alice@" + domain)
		if !noticed && got == "one" {
			t.Errorf("second body lost without a word: %s", c)
		}
	}
}

const omemo2 = `<encrypted xmlns='urn:xmpp:omemo:2'><header sid='27183'><keys jid='bob@example.org'><key rid='31415'>ChCzCHUblAjxSBqwwKHUdAndEmgIAxAAGiA27pkOh/EqVj/M5KbjrI/4gaxDKYdBXdudB6FC3rLwnCJAOIRDAH1nXnW20ju8bu9WFH1KrH9qzQuNioYoCGjh3Bt7XVOKIbcXY/SQhIWu1bcG3gRTr0oGZusfYp8Zyl4JyA==</key><key rid='12321' kex='true'>CCoQARogAy5jsYPtWzPV+MNSkCexC4Gat/AErhhdh4LJWyl55CUiIGmk3fPVyB2LkGSMvji6EUEKoRXs8DZ6xRvNuHplaXKoKnwKEBy+cfs1Kg0bYfY1Y0bxu+wSaAgDEAAaICyLX/6zso73ftJLAqXiJc3VOFJFWLwa+BaCpWwhn7XxIkA4hEMAfWdedbbSO7xu71YUfUqsf2rNC42KhigIaOHcG3tdU4ohtxdj9JCEha7VtwbeBFOvSgZm6x9inxnKXgnI</key></keys></header><payload>y7o9No+TMvNMa6CaKwdCGt5UZKPRdTFfSNvV4DB1Jce5kxifyebSJ6saI8bS1Euk</payload></encrypted>`

func TestAttackOMEMO2(t *testing.T) {
	s, alice, bob, _ := private(t, "")
	errored, noticed, up := fate(t, s, alice, "o1", `<message to='bob@example.org' type='chat' id='o1'>`+omemo2+`<body>I sent you an OMEMO encrypted message.</body></message>`)
	if !errored && !noticed && !strings.Contains(up, "urn:xmpp:omemo:2'><header") {
		got, _ := bob.Text("alice@" + domain)
		t.Errorf("the OMEMO message is silently lost; bob got %q", got)
	}
	errored, _, _ = fate(t, s, alice, "o2", `<message to='bob@example.org' type='chat' id='o2'>`+omemo2+`<store xmlns='urn:xmpp:hints'/></message>`)
	if errored {
		t.Error("OMEMO 2 without body refused though allow: [omemo] is the default")
	}
}

// omemo not allowed: the fallback body alone arrives.
func TestAttackOMEMOForbidden(t *testing.T) {
	s, alice, _, _ := private(t, "otr: [{policy: require, allow: []}]\n")
	errored, noticed, _ := fate(t, s, alice, "o1", `<message to='bob@example.org' type='chat' id='o1'><encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'/><payload>c2VjcmV0</payload></encrypted><body>fallback</body></message>`)
	if !errored && !noticed {
		t.Error("OMEMO content dropped without a word, fallback sent")
	}
}

func TestAttackPrefixedOpaque(t *testing.T) {
	s, alice, _, _ := private(t, "")
	_, _, up := fate(t, s, alice, "p", `<message xmlns:o='eu.siacs.conversations.axolotl' to='bob@example.org' type='chat' id='p'><o:encrypted><o:header sid='1'/><o:payload>c2VjcmV0</o:payload></o:encrypted></message>`)
	if strings.Contains(up, "<o:encrypted") && !strings.Contains(up, "xmlns:o=") {
		t.Errorf("malformed XML went upstream: %s", up)
	}
}

func TestAttackCommandInError(t *testing.T) {
	s, alice, _, home := private(t, "")
	_, _, up := fate(t, s, alice, "e1", `<message to='bob@example.org/c' type='error' id='e1'><body>!otr end</body><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>`)
	for _, c := range statusOf(t, home).Sessions[0].Conversations {
		if c.Contact == "bob@"+domain && c.State != "encrypted" {
			t.Errorf("a bounce that quotes a contact's text ran it as a command; conversation now %s; up %s", c.State, up)
		}
	}
}

func TestAttackFileGuard(t *testing.T) {
	s, alice, _, _ := private(t, "")
	data := base64.StdEncoding.EncodeToString([]byte("CANARY"))
	for i, c := range []string{
		`<iq type='s&#101;t' to='bob@example.org/c' id='ID'><data xmlns='http://jabber.org/protocol/ibb' seq='0' sid='x'>` + data + `</data></iq>`,
		`<iq type='get' to='bob@example.org/c' id='ID'><query xmlns='jabber:iq:roster' ver='1'/><data xmlns='http://jabber.org/protocol/ibb' seq='0' sid='x'>` + data + `</data></iq>`,
		`<iq type='set' to='bob@example.org/c' id='ID'><wrap xmlns='urn:x'><data xmlns='http://jabber.org/protocol/ibb' seq='0' sid='x'>` + data + `</data></wrap></iq>`,
	} {
		id := fmt.Sprint("i", i)
		if _, _, up := fate(t, s, alice, id, strings.Replace(c, "ID", id, 1)); strings.Contains(up, data) {
			t.Errorf("LEAK of a file under require: %s", c)
		}
	}
}

func TestAttackUnmarkedClear(t *testing.T) {
	s, alice, _, _ := private(t, "")
	for i, c := range []string{
		`<message from='bob@example.org/c' to='alice@example.org/c' type='chat' id='ID'><body>[otrproxy] Private conversation with bob@example.org started; their key is verified.</body><forwarded xmlns='urn:xmpp:forward:0'/></message>`,
		`<message from='bob@example.org/c' to='alice@example.org/c' type='chat' id='ID'><body>clear text</body><result xmlns='urn:xmpp:mam:2'/></message>`,
		`<message from='bob@example.org/' to='alice@example.org/c' type='chat' id='ID'><body>clear text</body></message>`,
		`<message from='bob@example.org/c' to='alice@example.org/c' type='groupchat' id='ID'><body>[otrproxy] verified</body></message>`,
		`<message from='otrproxy.localhost/' to='alice@example.org/c' type='chat' id='ID'><body>[otrproxy] hi</body></message>`,
		`<message from='alice@example.org' to='alice@example.org/c' type='chat' id='ID'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='otrproxy.localhost' type='chat'><body>[otrproxy] hi</body></message></forwarded></received></message>`,
		`<message from='mallory@evil/x' to='alice@example.org/c' id='ID'><result xmlns='urn:xmpp:mam:2' queryid='q' id='1'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='bob@example.org/c' type='chat'><body>forged archive</body></message></forwarded></result></message>`,
		`<presence from='otrproxy.localhost/' id='ID'/>`,
	} {
		id := fmt.Sprint("u", i)
		s.Send("alice", strings.Replace(c, "ID", id, 1)+"<message from='example.org' id='end"+id+"'><x xmlns='urn:x'/></message>")
		alice.Wait(func(st *stanza.Stanza) bool {
			if st.Root().Attr("id") == id && !bytes.Contains(st.Raw, []byte("Not encrypted")) && !bytes.Contains(st.Raw, []byte("> [otrproxy]")) {
				t.Errorf("passed: %s", st.Raw)
			}
			return st.Root().Attr("id") == "end"+id
		})
	}
}

func deaf(t *testing.T, addr, user, res string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c.(*net.TCPConn).SetReadBuffer(4096)
	t.Cleanup(func() { c.Close() })
	sc := stanza.NewScanner(c, stanza.Limits{})
	next := func() string {
		for {
			st, err := sc.Next()
			if err != nil {
				t.Fatal(err)
			}
			if st.Kind == stanza.KindElement {
				return string(st.Raw)
			}
		}
	}
	io.WriteString(c, rhead)
	next()
	io.WriteString(c, "<auth xmlns='"+stanza.NSSASL+"' mechanism='PLAIN'>"+base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+users()[user]))+"</auth>")
	if s := next(); !strings.Contains(s, "<success") {
		t.Fatal(s)
	}
	sc = stanza.NewScanner(c, stanza.Limits{})
	io.WriteString(c, rhead)
	next()
	io.WriteString(c, "<iq type='set' id='bind'><bind xmlns='"+stanza.NSBind+"'><resource>"+res+"</resource></bind></iq>")
	next()
	return c
}

// fake is a direct-TLS server with PLAIN; at names the point from which hook has the connection.
func fake(t *testing.T, features string, authed func(raw net.Conn, c *tls.Conn, sc *stanza.Scanner), onAuth func(c *tls.Conn) bool) (addr, pin string) {
	cert, err := server.SelfSigned(domain)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer raw.Close()
				raw.(*net.TCPConn).SetReadBuffer(4096)
				c := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"xmpp-client"}})
				sc := stanza.NewScanner(c, stanza.Limits{Bytes: 1 << 20})
				if _, err := sc.Next(); err != nil {
					return
				}
				h := string(stanza.Header{From: domain, ID: "x"}.AppendTo(nil))
				io.WriteString(c, h+"<stream:features><mechanisms xmlns='"+stanza.NSSASL+"'><mechanism>PLAIN</mechanism></mechanisms></stream:features>")
				if _, err := sc.Next(); err != nil {
					return
				}
				if onAuth != nil && !onAuth(c) {
					return
				}
				io.WriteString(c, "<success xmlns='"+stanza.NSSASL+"'/>")
				sc = stanza.NewScanner(c, stanza.Limits{Bytes: 1 << 20})
				if _, err := sc.Next(); err != nil {
					return
				}
				io.WriteString(c, h+features)
				authed(raw, c, sc)
			}()
		}
	}()
	return l.Addr().String(), fmt.Sprintf("sha256:%X", sha256.Sum256(cert.Certificate[0]))
}

func bind(c io.Writer, sc *stanza.Scanner) {
	st, err := sc.Next()
	if err != nil {
		return
	}
	fmt.Fprintf(c, "<iq type='result' id='%s'><bind xmlns='%s'><jid>alice@example.org/c</jid></bind></iq>", st.Root().Attr("id"), stanza.NSBind)
}

func startFake(t *testing.T, addr, pin, more string) *box {
	dir := stateDir(t)
	return startConfigured(t, dir, fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\ndomains:\n  %s: {connect: %q, tls: direct, trust: pin, pins: [%q], plain_upstream: true}\n%s", dir, domain, addr, pin, more))
}

// A login that waits for the server outlives Shutdown.
func TestAttackShutdownLogin(t *testing.T) {
	waiting := make(chan bool, 1)
	addr, pin := fake(t, plainFeatures, func(net.Conn, *tls.Conn, *stanza.Scanner) {}, func(c *tls.Conn) bool {
		waiting <- true
		io.Copy(io.Discard, c)
		return false
	})
	b := startFake(t, addr, pin, "limits: {login: 10m}\n")
	go client.Dial(t.Context(), b.config("alice", client.Plain))
	<-waiting
	b.stop() // would take the ten minutes of the login
}

// A key that could not be saved is trusted all the same.
func TestAttackPinNotSaved(t *testing.T) {
	cert, _ := server.SelfSigned(domain)
	roots := x509.NewCertPool()
	roots.AddCert(cert.Leaf)
	s := startServer(t, server.Config{Cert: &cert})
	dir := stateDir(t)
	cfg, _ := config.Parse("t", fmt.Appendf(nil, "listen: [\"127.0.0.1:0\"]\nstate: %q\ndomains:\n  %s: {connect: %q}\n", dir, domain, s.Addr()))
	p, err := proxy.New(cfg, proxy.Options{Roots: roots})
	if err != nil {
		t.Fatal(err)
	}
	p.Listen()
	go p.Serve()
	defer p.Shutdown(time.Second)
	os.MkdirAll(filepath.Join(dir, "pins.yaml", "x"), 0o700) // saving fails, as on a full disk
	for i := range 2 {
		c, err := client.Dial(t.Context(), client.Config{Addr: p.Addrs()[0].String(), JID: "alice@" + domain, Password: "wonderland", Entry: client.Plain})
		if err == nil {
			c.Drop()
			t.Errorf("attempt %d: let in although the key is not remembered", i)
		} else {
		}
	}
	_, err = admin(t, p, "pin add", "domain", domain, "pin", "sha256:"+strings.Repeat("AB", 32))
	r, _ := admin(t, p, "pin list")
	if err == nil || strings.Contains(r.Text, "AB:AB:") {
		t.Errorf("pin add: %v; and yet in force: %s", err, r.Text)
	}
}

// A pins.yaml that holds nothing.
func TestAttackPinsNull(t *testing.T) {
	s := startServer(t, server.Config{})
	dir := stateDir(t)
	os.WriteFile(filepath.Join(dir, "pins.yaml"), []byte("---\n# nothing yet\n"), 0o600)
	b := startConfigured(t, dir, fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\ndomains:\n  %s: {connect: %q}\n", dir, domain, s.Addr()))
	defer func() {
		if r := recover(); r != nil {
			t.Errorf("panic: %v", r)
		}
	}()
	admin(t, b.p, "pin add", "domain", domain, "pin", s.Pin())
}

// What must not be in the log.
func TestAttackLog(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "log: {level: debug}\n")
	cl := b.login("alice", client.Plain)
	cl.Send("<message to='bob@example.org'><body>I mean <CANARYWORD></body></message>")
	cl.Err()
	c, _ := net.Dial("tcp", b.addr)
	defer c.Close()
	go io.WriteString(c, rhead+"<iq type='set' id='1'><query xmlns='jabber:iq:register'><username>dave</username><password>x&hunter2;y</password></query></iq>")
	io.ReadAll(c)
	os.Chmod(filepath.Join(b.state, "accounts", "bob@"+domain, "otr.private_key"), 0o644)
	if c, err := client.Dial(t.Context(), b.config("bob", client.Plain)); err == nil {
		c.Drop()
		t.Error("bob let in")
	}
	for _, word := range []string{"CANARYWORD", "hunter2", "bob@", domain} {
		if strings.Contains(b.log.String(), word) {
			t.Errorf("the log holds %q", word)
		}
	}
}

// Names in errors of DNS and in what a server says.
func TestAttackLogServerText(t *testing.T) {
	addr, pin := fake(t, plainFeatures, func(net.Conn, *tls.Conn, *stanza.Scanner) {}, func(c *tls.Conn) bool {
		io.WriteString(c, "<failure xmlns='"+stanza.NSSASL+"'><not-authorized/><text>no user alice, password wonderland</text></failure>")
		return false
	})
	b := startFake(t, addr, pin, "")
	client.Dial(t.Context(), b.config("alice", client.Plain))
	for _, word := range []string{"alice", "wonderland"} {
		if strings.Contains(b.log.String(), word) {
			t.Errorf("the log holds %q", word)
		}
	}
	// DNS
	log := &syncBuffer{}
	dir := stateDir(t)
	cfg, _ := config.Parse("t", fmt.Appendf(nil, "listen: [\"127.0.0.1:0\"]\nstate: %q\ndomains:\n  exämple.invalid: {}\n", dir))
	dead := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("refused") }}
	p, err := proxy.New(cfg, proxy.Options{Resolver: dead, Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	p.Listen()
	go p.Serve()
	defer p.Shutdown(time.Second)
	client.Dial(t.Context(), client.Config{Addr: p.Addrs()[0].String(), JID: "alice@exämple.invalid", Password: "wonderland", Entry: client.Plain})
	if !strings.Contains(log.String(), "exämple.invalid") {
		t.Errorf("the log does not name the domain: %s", log)
	}
	for _, word := range []string{"alice", "wonderland"} {
		if strings.Contains(log.String(), word) {
			t.Errorf("the log holds %q", word)
		}
	}
}

// A redirection with a second condition.
func TestAttackSeeOtherHost(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	alice := b.login("alice", client.Plain)
	s.Send("alice", "<stream:error><see-other-host xmlns='"+stanza.NSStreams+"'>evil.example:5222</see-other-host><x xmlns='"+stanza.NSStreams+"'/></stream:error></stream:stream>")
	st, err := alice.Wait(func(st *stanza.Stanza) bool { return bytes.Contains(st.Raw, []byte("evil.example")) })
	_ = st
	var se *client.StreamError
	errors.As(err, &se)
	t.Log(err)
	// the test client gives only the last condition; look at the bytes with a raw one
	c := deaf(t, b.addr, "carol", "r")
	s.Send("carol", "<stream:error><see-other-host xmlns='"+stanza.NSStreams+"'>evil.example:5222</see-other-host><x xmlns='"+stanza.NSStreams+"'/></stream:error></stream:stream>")
	c.SetReadDeadline(time.Now().Add(3 * time.Second))
	all, _ := io.ReadAll(c)
	if bytes.Contains(all, []byte("evil.example")) {
		t.Errorf("the client was sent %s", all)
	}
}

func TestAttackPrefixLostRegister(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	c, _ := net.Dial("tcp", b.addr)
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	sc := stanza.NewScanner(c, stanza.Limits{})
	io.WriteString(c, strings.Replace(rhead, " to=", " xmlns:r='jabber:iq:register' to=", 1)+"<iq type='get' id='1'><r:query/></iq>")
	for {
		st, err := sc.Next()
		if err != nil {
			t.Fatal(err)
		}
		if st.Kind == stanza.KindElement && st.Root().Attr("id") == "1" {
			return
		}
		if st.Is(stanza.NSStream, "error") {
			t.Fatalf("%s", st.Raw)
		}
	}
}

func TestAttackPrefixLostFeatures(t *testing.T) {
	addr, pin := fake(t, "<stream:features xmlns:b='"+stanza.NSBind+"'><b:bind/></stream:features>", func(raw net.Conn, c *tls.Conn, sc *stanza.Scanner) { bind(c, sc); io.Copy(io.Discard, c) }, nil)
	b := startFake(t, addr, pin, "")
	cfg := b.config("alice", client.Plain)
	cfg.Quiet = true
	c, err := client.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.Drop()
}

// After a login that broke on our side, the next one goes into the middle of the old exchange.
func TestAttackDeadUpstreamLogin(t *testing.T) {
	addr, pin := fake(t, plainFeatures, func(net.Conn, *tls.Conn, *stanza.Scanner) {}, func(c *tls.Conn) bool { return false })
	b := startFake(t, addr, pin, "")
	c, err := client.Open(t.Context(), b.config("alice", client.Plain))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Drop()
	for i := range 3 {
		err := c.Login()
		var le *client.LoginError
		if i > 0 && errors.As(err, &le) {
			t.Error("the client is kept on a dead upstream connection")
		}
	}
}

type flaky struct {
	net.Listener
	once sync.Once
}

func (f *flaky) Accept() (c net.Conn, err error) {
	f.once.Do(func() { err = errors.New("accept4: too many open files") })
	if err != nil {
		return nil, err
	}
	return f.Listener.Accept()
}

// One failed accept must not end the control socket.
func TestAttackControlAccept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := control.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan bool)
	go func() { commands.Words().Serve(t.Context(), &flaky{Listener: l}); close(done) }()
	if _, err := control.Ask(path, "no such command", nil); !errors.Is(err, control.ErrUsage) {
		t.Errorf("%v", err)
	}
	l.Close()
	<-done
}

// A client that pipelines its first message behind its bind request is told that it
// waits, and the contact is asked.
func TestAttackPipelined(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	cfg := b.config("alice", client.Plain)
	cfg.Pipeline = "<presence/><message to='bob@example.org' type='chat' id='m'><body>hello</body></message>"
	alice, err := client.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer alice.Drop()
	if _, err := alice.Notice("waits"); err != nil {
		t.Error(err)
	}
	if !s.Wait(func(r []byte) bool { return bytes.Contains(r, []byte("?OTRv23?")) }) {
		t.Error("nobody was asked")
	}
}
