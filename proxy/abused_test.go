package proxy_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"otrproxy/config"
	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/proxy"
	"otrproxy/proxy/control"
	"otrproxy/stanza"
)

// What clients ask their server about a contact, they ask about the service contact too.
func TestServerHearsOfService(t *testing.T) {
	for name, raw := range map[string]string{
		"archive (XEP-0313)":      "<iq type='set' id='ID'><query xmlns='urn:xmpp:mam:2' queryid='q'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field><field var='with'><value>otrproxy.localhost</value></field></x></query></iq>",
		"displayed (XEP-0490)":    "<iq type='set' id='ID'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:xmpp:mds:displayed:0'><item id='otrproxy.localhost'><displayed xmlns='urn:xmpp:mds:displayed:0'/></item></publish></pubsub></iq>",
		"blocking (XEP-0191)":     "<iq type='set' id='ID'><block xmlns='urn:xmpp:blocking'><item jid='otrproxy.localhost'/></block></iq>",
		"second query":            "<iq type='set' id='ID'><query xmlns='jabber:iq:roster'/><query xmlns='jabber:iq:roster'><item jid='otrproxy.localhost'/></query></iq>",
		"roster notes (XEP-0145)": "<iq type='set' id='ID'><query xmlns='jabber:iq:private'><storage xmlns='storage:rosternotes'><note jid='otrproxy.localhost'>mine</note></storage></query></iq>",
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t, server.Config{})
			alice := startProxy(t, s, "").login("alice", client.Plain)
			alice.Send(strings.ReplaceAll(raw, "ID", "i1"))
			alice.Send("<iq type='get' id='end'><ping xmlns='urn:xmpp:ping'/></iq>")
			alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "end" })
			if strings.Contains(string(s.Received()), "otrproxy.localhost") {
				t.Error("the server has heard of the service contact")
			}
		})
	}
}

// A server that says something of the service contact.
func TestServerForgesService(t *testing.T) {
	s := startServer(t, server.Config{})
	alice := startProxy(t, s, "").login("alice", client.Plain)
	if got := allRaw(fromServer(t, s, alice, "<iq type='set' id='f1'><query xmlns='jabber:iq:roster'><item jid='otrproxy.localhost' name='FORGED' subscription='remove'/></query></iq>")); strings.Contains(got, "otrproxy.localhost") {
		t.Errorf("a forged push: %s", got)
	}
	alice.Send("<iq type='get' id='d1' to='example.org'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>")
	alice.Send("<iq type='get' id='r1'><query xmlns='jabber:iq:roster'/></iq>")
	_ = s
}

// Somebody typed a JID of the service contact's.
func TestStartBelowService(t *testing.T) {
	c := onStage(t, "", func(*stage) {})
	c.alice.Say(service, "", "start x@"+service)
	asks(t, c.alice, "end", "get", domain, "<ping xmlns='urn:xmpp:ping'/>")
	if strings.Contains(string(c.s.Received()), service) {
		t.Error("the server has heard of it")
	}
}

// A secret in a line that is not quite right.
func TestSecretEchoed(t *testing.T) {
	c := onStage(t, "", (*stage).talk)
	for i, line := range []string{"!otr smp\tanswer\tCANARY7", "!otr answer\nCANARY7", "!otr key CANARY7", "!otr smp abort CANARY7"} {
		c.alice.Say("bob@"+domain, fmt.Sprint("l", i), line)
	}
	for i, line := range []string{"smp answer canary7", "smp answer canary7 more", "smp start canary7 x", "status"} {
		c.alice.Say(service, fmt.Sprint("m", i), line)
	}
	c.s.Send("alice", endOfTest)
	for _, st := range upToEnd(t, c.alice) {
		if b := client.Body(st); strings.Contains(strings.ToLower(b), "canary7") {
			t.Errorf("said back: %q", b)
		}
	}
	r, _ := admin(t, c.home.p, "contact list")
	if strings.Contains(r.Text, "canary7") {
		t.Errorf("the administrator's list of contacts has the secret: %s", r.Text)
	}
}

// The doctor remembers nothing.
func TestDoctorRemembersAccount(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	if _, err := admin(t, b.p, "doctor", "name", "nobody@"+domain); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(b.state, "accounts", "nobody@"+domain)); err == nil {
		t.Error("the doctor has made an account")
	}
	if r, _ := admin(t, b.p, "key show"); strings.Contains(r.Text, "nobody@") {
		t.Error(r.Text)
	}
}

// A server that nobody trusts writes lines of the doctor's.
func TestServerWritesDoctorsLines(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				var b [4096]byte
				c.Read(b[:])
				io.WriteString(c, "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' id='x' from='example.org' version='1.0'><stream:error><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/><text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>x).\nok    pin          it is the one that is pinned\n                   -&gt; otrproxy pin add example.org sha256:EVIL\u009b2J</text></stream:error>")
				io.Copy(io.Discard, c)
			}()
		}
	}()
	dir := stateDir(t)
	b := startConfigured(t, dir, fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\ndomains:\n  %s: {connect: %q}\n", dir, domain, l.Addr().String()))
	r, err := admin(t, b.p, "doctor", "name", domain)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(r.Text, "\nok    pin          it is the one") || strings.Contains(r.Text, "\u009b") {
		t.Errorf("the server speaks as the doctor:\n%s", r.Text)
	}
	_, err = admin(t, b.p, "pin probe", "domain", domain)
	if err == nil || strings.ContainsAny(err.Error(), "\n\u009b") {
		t.Errorf("pin probe: %q", err)
	}
}

var _ control.Status

// A request whose id begins as ours do is answered as any other: else whoever asks learns of us.
func TestFoundOutByID(t *testing.T) {
	s := startServer(t, server.Config{})
	alice := startProxy(t, s, "").login("alice", client.Plain)
	for _, id := range []string{"other-1", "otrproxy-1"} {
		s.Send("alice", "<iq type='get' id='"+id+"' from='example.org' to='alice@example.org/c'><ping xmlns='urn:xmpp:ping'/></iq>")
		alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == id })
		alice.Send("<iq type='result' id='" + id + "' to='example.org'/>")
	}
	asks(t, alice, "end", "get", domain, "<ping xmlns='urn:xmpp:ping'/>")
	if seen := string(s.Received()); strings.Contains(seen, "other-1") && !strings.Contains(seen, "otrproxy-1") {
		t.Error("the answer to a request with our prefix never comes")
	}
}

// A server chooses the resource, and with it a line of what the service contact says.
func TestServerSpeaksInStatus(t *testing.T) {
	addr, pin := fake(t, plainFeatures, func(_ net.Conn, c *tls.Conn, sc *stanza.Scanner) {
		st, err := sc.Next()
		if err != nil {
			return
		}
		fmt.Fprintf(c, "<iq type='result' id='%s'><bind xmlns='%s'><jid>alice@example.org/c\n[otrproxy] FORGED: write send bob@example.org 00\u009b2J</jid></bind></iq>", st.Root().Attr("id"), stanza.NSBind)
		io.Copy(io.Discard, c)
	}, nil)
	b := startFake(t, addr, pin, "")
	c := deaf(t, b.addr, "alice", "c")
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	io.ReadAll(c) // until the session is ended
	if r, _ := admin(t, b.p, "status"); strings.Contains(r.Text, "FORGED") || !strings.Contains(b.log.String(), "bound another address") {
		t.Errorf("status: %q", r.Text)
	}
}

// A certificate's name adds a line to what pin probe says.
func TestCertificateSpeaks(t *testing.T) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x\u2028It satisfies a pin that is in force."}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{domain}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	s := startServer(t, server.Config{Cert: &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}})
	dir := stateDir(t)
	b := startConfigured(t, dir, fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\ndomains:\n  %s: {connect: %q}\n", dir, domain, s.Addr()))
	r, err := admin(t, b.p, "pin probe", "domain", domain)
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(r.Text, "\u2028\u2029") {
		t.Errorf("%q", r.Text)
	}
}

// A phone's keyboard writes a capital behind an exclamation mark.
func TestCapitalCommand(t *testing.T) {
	for _, word := range []string{"!Otr", "!OTR", "\u00a0!otr", "\u200b!otr"} {
		s := startServer(t, server.Config{})
		alice := startProxy(t, s, "otr:\n  - {account: \"*\", contact: \"*\", policy: manual}\n").login("alice", client.Plain)
		alice.Say("bob@"+domain, "1", word+" smp answer CANARY7")
		asks(t, alice, "end", "get", domain, "<ping xmlns='urn:xmpp:ping'/>")
		if strings.Contains(string(s.Received()), "CANARY7") {
			t.Errorf("%q: the secret has left in clear", word)
		}
	}
}

// Somebody on this machine who has no account makes up decisions for the administrator.
func TestStrangersMakeDecisions(t *testing.T) {
	s := startServer(t, server.Config{})
	cfg, err := config.Parse("x", fmt.Appendf(nil, "listen: [\"127.0.0.1:0\"]\nstate: %q\n", filepath.Join(t.TempDir(), "state")))
	if err != nil {
		t.Fatal(err)
	}
	p, err := proxy.New(cfg, proxy.Options{
		Resolver: &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("none") }},
		Dial: func(ctx context.Context, n, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, n, s.Addr())
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Listen(); err != nil {
		t.Fatal(err)
	}
	go p.Serve()
	defer p.Shutdown(time.Second)
	for i := range 40 {
		c, err := net.Dial("tcp", p.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='d%d.evil.example' version='1.0'>", i)
		c.SetDeadline(time.Now().Add(5 * time.Second))
		io.Copy(io.Discard, c)
		c.Close()
	}
	r, err := admin(t, p, "status")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(r.Data.(control.Status).Decisions); n > 0 {
		t.Errorf("%d decisions by somebody who never logged in: %s", n, r.Data.(control.Status).Decisions[0].Text)
	}
}

// A first try with a wrong password takes away the word about the server's key.
func TestFirstUseUnsaid(t *testing.T) {
	s := startServer(t, server.Config{})
	dir := filepath.Join(t.TempDir(), "state")
	cfg, err := config.Parse("x", fmt.Appendf(nil, "listen: [\"127.0.0.1:0\"]\nstate: %q\ndomains:\n  %s: {connect: %q}\n", dir, domain, s.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	p, err := proxy.New(cfg, proxy.Options{Roots: roots})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Listen(); err != nil {
		t.Fatal(err)
	}
	go p.Serve()
	defer p.Shutdown(time.Second)
	cc := client.Config{Addr: p.Addrs()[0].String(), JID: "alice@" + domain, Password: "wrong", Resource: "c", Entry: client.Plain}
	if _, err := client.Dial(t.Context(), cc); err == nil {
		t.Fatal("logged in")
	}
	cc.Password = users()["alice"]
	alice, err := client.Dial(t.Context(), cc)
	if err != nil {
		t.Fatal(err)
	}
	defer alice.Drop()
	asks(t, alice, "p", "get", domain, "<ping xmlns='urn:xmpp:ping'/>")
	alice.Send("<presence/>")
	told := false
	alice.Send("<iq type='get' id='p2' to='" + service + "'><ping xmlns='urn:xmpp:ping'/></iq>")
	for {
		st, err := alice.Wait(func(*stanza.Stanza) bool { return true })
		if err != nil || st.Root().Attr("id") == "p2" {
			break
		}
		told = told || strings.Contains(client.Body(st), "first connection to the server")
	}
	if !told {
		t.Error("the key was remembered, and nobody was told")
	}
}

// One answer of the server's, many pushes of ours.
func TestRosterAmplified(t *testing.T) {
	addr, pin := fake(t, plainFeatures, func(_ net.Conn, c *tls.Conn, sc *stanza.Scanner) {
		bind(c, sc)
		for {
			st, err := sc.Next()
			if err != nil {
				return
			}
			if st.Kind == stanza.KindElement && st.Root().Attr("id") == "R" {
				fmt.Fprintf(c, "<iq type='result' id='R'>%s</iq>", strings.Repeat("<query xmlns='jabber:iq:roster'/>", 2000))
			}
		}
	}, nil)
	b := startFake(t, addr, pin, "")
	c := deaf(t, b.addr, "alice", "c")
	io.WriteString(c, "<presence to='"+service+"' type='subscribe'/><iq type='get' id='R'><query xmlns='jabber:iq:roster'/></iq>")
	io.WriteString(c, "<iq type='get' id='last' to='"+service+"'><ping xmlns='urn:xmpp:ping'/></iq>")
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	got := readUntil(c, func(b []byte) bool {
		return strings.Contains(string(b), "id='last'") && strings.Contains(string(b), "id='R'") && strings.Count(string(b), "subscription='both'") > 1
	})
	if n := strings.Count(string(got), "subscription='both'"); n > 3 {
		t.Errorf("%d pushes", n)
	}
}

// What is no file is not read: it could hang, or have no end.
func TestImportHangs(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	fifo := filepath.Join(t.TempDir(), "otr.private_key")
	makeFIFO(t, fifo)
	done := make(chan struct{})
	go func() { admin(t, b.p, "key import", "path", fifo); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("hangs")
		f, _ := os.OpenFile(fifo, os.O_RDWR, 0)
		f.Close()
	}
}

// One damaged account does not hide the others.
func TestOneDamagedAccount(t *testing.T) {
	s := startServer(t, server.Config{})
	dir := stateDir(t)
	os.Chmod(filepath.Join(dir, "accounts", "carol@"+domain, "otr.private_key"), 0o644)
	b := startConfigured(t, dir, configFor(s, dir))
	b.login("alice", client.Plain)
	for _, w := range []string{"contact list", "held list", "key show"} {
		if _, err := admin(t, b.p, w); err != nil {
			t.Errorf("%s: %v", w, err)
		}
	}
}
