package proxy_test

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/proxy"
	"otrproxy/stanza"
	"otrproxy/test/dns"
	"otrproxy/test/socks"
)

// A tunnel is a household that reaches its server through a SOCKS proxy only.
type tunnel struct {
	s     *server.Server
	names *dns.Server
	socks *socks.Server
	b     *box
}

// through starts one; settings are more for the domain, and opt may watch the network.
func through(t *testing.T, settings, more string) *tunnel {
	t.Helper()
	w := &tunnel{s: startServer(t, server.Config{})}
	var err error
	if w.socks, err = socks.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.socks.Close)
	if w.names, err = dns.New(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.names.Close)
	w.names.SRV("xmpp-client", domain, "leak.example", 5222, 0, 0) // whoever asks gets an answer
	w.names.Host(domain, "127.0.0.1")
	w.socks.Lead(domain+":5222", w.s.Addr())
	dir := stateDir(t)
	w.b = startWith(t, dir, fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\ndomains:\n  %s: {via: \"socks5://%s\", trust: pin, pins: [%q]%s}\n%s", dir, domain, w.socks.Addr(), w.s.Pin(), settings, more),
		proxy.Options{Resolver: w.names.Resolver(), DNSSEC: w.names.Addr()})
	t.Cleanup(func() {
		if asked := w.names.Asked(); len(asked) > 0 {
			t.Errorf("DNS was asked %v", asked)
		}
	})
	return w
}

// Through a SOCKS proxy: hosts go by name, each account by a name and password of its own
// that says nothing, and DNS is never asked.
func TestVia(t *testing.T) {
	w := through(t, "", "")
	alice, bob := w.b.login("alice", client.STARTTLS), w.b.login("bob", client.Plain)
	alice.Drop()
	w.b.login("alice", client.Direct)
	alice = w.b.login("alice", client.Plain)
	bob.Say("alice@"+domain, "m", "!otr status")
	if line, err := bob.Notice("server at " + domain + ":5222 through socks5://" + w.socks.Addr()); err != nil {
		t.Errorf("status says %q, %v", line, err)
	}
	if _, err := admin(t, w.b.p, "pin probe", "domain", domain); err != nil {
		t.Error(err)
	}
	if r, err := admin(t, w.b.p, "doctor", "name", domain); err != nil || strings.Contains(r.Text, "fail ") {
		t.Errorf("%v\n%s", err, r.Text)
	}
	asked := w.socks.Asked()
	if len(asked) < 6 {
		t.Fatalf("asked %+v", asked)
	}
	seen := map[string]int{}
	for _, r := range asked {
		if !r.Named || r.Host != domain || r.User == "" || r.Password == "" {
			t.Errorf("asked %+v", r)
		}
		for _, word := range []string{"alice", "bob", domain} {
			if strings.Contains(r.User+r.Password, word) {
				t.Errorf("the proxy is told %s", word)
			}
		}
		seen[r.User+r.Password]++
	}
	if a := asked[0]; seen[a.User+a.Password] != 3 || asked[1].User == a.User {
		t.Errorf("alice's circuits are not hers, or bob's the same: %+v", asked)
	}
	for _, r := range asked[4:] { // probe and doctor are nobody's
		if seen[r.User+r.Password] != 1 {
			t.Errorf("a circuit was shared: %+v", r)
		}
	}
	_ = alice
}

// Whoever comes after an account was made on a connection has it for themselves.
func TestViaRegisterThenAnother(t *testing.T) {
	w := through(t, "", "")
	cfg := w.b.config("alice", client.STARTTLS)
	c, err := client.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Drop()
	if st, err := c.Request("<iq type='get' id='1'><query xmlns='jabber:iq:register'/></iq>"); err != nil || st.Root().Attr("type") != "result" {
		t.Fatal(err)
	}
	for _, who := range []string{"alice\x00wrong", "bob\x00wrong"} {
		if st, err := c.Request("<auth xmlns='" + stanza.NSSASL + "' mechanism='PLAIN'>" + base64.StdEncoding.EncodeToString([]byte("\x00"+who)) + "</auth>"); err != nil || !st.Is(stanza.NSSASL, "failure") {
			t.Fatalf("%v", err)
		}
	}
	asked := w.socks.Asked() // nobody's, alice's, bob's
	if len(asked) != 3 || asked[0].User == asked[1].User || asked[1].User == asked[2].User || asked[0].User == asked[2].User {
		t.Errorf("asked %+v", asked)
	}
}

// What a SOCKS proxy answers becomes a sentence and a figure; no other way is tried.
func TestViaRefused(t *testing.T) {
	w := through(t, ", tls: starttls", "limits: {login: 2s}\n")
	for _, c := range []struct {
		name, cause, sees string
		code              int
		raw               func(net.Conn)
	}{
		{"failure", "tcp", "it failed, without saying why", 1, nil},
		{"not allowed", "tcp", "connection not allowed by ruleset", 2, nil},
		{"network unreachable", "tcp", "network unreachable", 3, nil},
		{"host unreachable", "tcp", "host unreachable", 4, nil},
		{"refused", "tcp", "connection refused", 5, nil},
		{"TTL", "tcp", "it found no way there in time", 6, nil},
		{"no command", "tcp", "command not supported", 7, nil},
		{"no names", "tcp", "address type not supported", 8, nil},
		{"no such onion service", "tcp", "there is no such onion service", 0xf0, nil},
		{"onion descriptor", "tcp", "the descriptor of the onion service is invalid", 0xf1, nil},
		{"onion introduction", "tcp", "the onion service could not be introduced to.", 0xf2, nil},
		{"onion rendezvous", "tcp", "the onion service could not be met", 0xf3, nil},
		{"onion without authorization", "tcp", "the onion service wants client authorization", 0xf4, nil},
		{"onion with another's", "tcp", "the client authorization for the onion service is wrong", 0xf5, nil},
		{"no onion address", "tcp", "this is no valid onion address", 0xf6, nil},
		{"onion in time", "tcp", "the onion service could not be introduced to in time", 0xf7, nil},
		{"a code that is none", "tcp", "unknown code: 255", 0xff, nil},
		{"garbage", "socks", "is no SOCKS proxy that can be used", -1, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }},
		{"a name and password refused", "socks", "is no SOCKS proxy that can be used", -1, func(c net.Conn) { io.WriteString(c, "\x05\x02\x01\x01"); io.Copy(io.Discard, c) }},
		{"no method", "socks", "no acceptable authentication methods", -1, func(c net.Conn) { io.WriteString(c, "\x05\xff") }},
		{"cut", "socks", "it closed the connection", -1, func(c net.Conn) { io.ReadFull(c, make([]byte, 4)) }},
		{"silence", "timeout", "did not answer in time through the SOCKS proxy at", -1, func(c net.Conn) { io.Copy(io.Discard, c) }},
	} {
		w.socks.Instead(c.raw)
		w.socks.Reply(domain+":5222", c.code)
		figure := func() int {
			n, err := strconv.Atoi(metric(w.b, `otrproxy_upstream_failures_total{cause="`+c.cause+`"}`))
			if err != nil {
				t.Error(err)
			}
			return n
		}
		before := figure()
		err := w.tries("alice")
		var le *client.LoginError
		var se *client.StreamError
		switch {
		case err == nil, !errors.As(err, &le) && !errors.As(err, &se), !strings.Contains(err.Error(), c.sees):
			t.Errorf("%s: the person was told %v; want %q", c.name, err, c.sees)
		case le != nil && le.Condition != "temporary-auth-failure":
			t.Errorf("%s: %v", c.name, le)
		}
		if n := figure(); n != before+1 {
			t.Errorf("%s: %d failures of the cause %s, after %d", c.name, n, c.cause, before)
		}
	}
	w.socks.Instead(nil)
	w.socks.Reply(domain+":5222", -1)
	w.b.login("alice", client.Plain)

	w.socks.Close()
	err := w.tries("alice")
	if err == nil || !strings.Contains(err.Error(), "The SOCKS proxy at "+w.socks.Addr()) || !strings.Contains(err.Error(), "no other way was tried") {
		t.Errorf("without the proxy: %v", err)
	}
	if n := metric(w.b, `otrproxy_upstream_failures_total{cause="socks"}`); n != "5" { // garbage, a name refused, no method, cut, and this
		t.Errorf("the figures: %s", n)
	}
}

func (w *tunnel) tries(user string) error {
	c, err := client.Dial(w.b.t.Context(), w.b.config(user, client.Plain))
	if err == nil {
		c.Drop()
	}
	return err
}

// A second account on the same connection goes another way.
func TestViaAccountsApart(t *testing.T) {
	w := through(t, "", "")
	conn, err := net.Dial("tcp", w.b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	scan := stanza.NewScanner(conn, stanza.Limits{})
	next := func() *stanza.Stanza {
		t.Helper()
		for {
			st, err := scan.Next()
			if err != nil {
				t.Fatal(err)
			}
			if st.Kind == stanza.KindElement {
				return st
			}
		}
	}
	io.WriteString(conn, rhead)
	next()
	for i, who := range []string{"alice\x00wrong", "bob\x00wrong", "bob\x00builder"} {
		io.WriteString(conn, "<auth xmlns='"+stanza.NSSASL+"' mechanism='PLAIN'>"+base64.StdEncoding.EncodeToString([]byte("\x00"+who))+"</auth>")
		want := []string{"failure", "failure", "success"}[i]
		if st := next(); string(st.Root().Local()) != want {
			t.Fatalf("%q: %s", who, st.Raw)
		}
	}
	asked := w.socks.Asked()
	if len(asked) != 2 || asked[0].User == asked[1].User {
		t.Errorf("asked %+v", asked)
	}
	if got := w.s.Received(); bytes.Count(got, []byte("<stream:stream")) < 4 {
		t.Errorf("%s", got)
	}
}

// An account is made through the proxy too, on a way that is nobody's.
func TestViaRegister(t *testing.T) {
	w := through(t, "", "")
	cfg := w.b.config("dave", client.STARTTLS)
	cfg.Password = "fresh"
	c, err := client.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Drop()
	if len(w.socks.Asked()) != 0 {
		t.Error("the server was reached before anybody said who they are")
	}
	if st, err := c.Request("<iq type='set' id='1'><query xmlns='jabber:iq:register'><username>dave</username><password>fresh</password></query></iq>"); err != nil || st.Root().Attr("type") != "result" {
		t.Fatalf("%v %s", err, st.Raw)
	}
	if err := c.Login(); err != nil {
		t.Fatal(err)
	}
	if asked := w.socks.Asked(); len(asked) != 2 || asked[0].User == asked[1].User {
		t.Errorf("asked %+v", asked)
	}
}

// A certificate that is wrong, a way that leads to ourselves, and a redirection, all
// through the proxy.
func TestViaServers(t *testing.T) {
	w := through(t, "", "")
	w.b.login("alice", client.Plain)
	rogue := startServer(t, server.Config{})
	w.socks.Lead(domain+":5222", rogue.Addr())
	for range 2 { // the second time without asking
		if err := w.tries("alice"); err == nil || !strings.Contains(err.Error(), "is not the one you pinned") {
			t.Errorf("another server: %v", err)
		}
	}
	if bytes.Contains(rogue.Received(), []byte("<auth")) || len(w.socks.Asked()) != 2 {
		t.Errorf("it was sent %s; asked %+v", rogue.Received(), w.socks.Asked())
	}
}

// Somebody of this machine who listens where the SOCKS proxy should learns which server is
// meant, and of the account nothing, whatever they play.
func TestViaThief(t *testing.T) {
	rogue, err := server.SelfSigned(domain)
	if err != nil {
		t.Fatal(err)
	}
	pin := "sha256:" + strings.Repeat("00", 32)
	for _, trust := range []string{"trust: tofu", "trust: ca", "trust: pin, pins: [" + pin + "]"} {
		for name, c := range map[string]struct {
			tls, cause string
			plays      func(*beast)
		}{
			"no encryption":    {"starttls", "starttls_stripped", func(b *beast) { b.greets(offersSASL("PLAIN", "SCRAM-SHA-1")); b.hears() }},
			"a login in clear": {"starttls", "protocol", func(b *beast) { b.greets("<success xmlns='" + stanza.NSSASL + "'/>"); b.hears() }},
			"encryption refused": {"starttls", "tls", func(b *beast) {
				b.greets(offersTLS)
				b.hears()
				b.says("<failure xmlns='" + stanza.NSTLS + "'/>")
				b.hears()
			}},
			"bytes behind STARTTLS": {"starttls", "starttls_injection", func(b *beast) {
				b.greets(offersTLS)
				b.hears()
				b.says("<proceed xmlns='" + stanza.NSTLS + "'/>" + offersSASL("PLAIN"))
				b.hears()
			}},
			"its own certificate": {"starttls", "", func(b *beast) { b.secures(&rogue); b.greets(offersSASL("PLAIN")); b.hears() }},
			"its own, direct": {"direct", "", func(b *beast) {
				b.conn = tls.Server(b.conn, &tls.Config{Certificates: []tls.Certificate{rogue}})
				b.scan = stanza.NewScanner(&noted{b.conn, b.g}, stanza.Limits{Bytes: 1 << 20})
				b.greets(offersSASL("PLAIN"))
				b.hears()
			}},
			"elsewhere": {"starttls", "protocol", func(b *beast) {
				b.greets("<stream:error><see-other-host xmlns='" + stanza.NSStreams + "'>" + b.g.addr() + "</see-other-host></stream:error>")
				b.hears()
			}},
		} {
			if c.cause == "" {
				c.cause = map[bool]string{true: "pin_mismatch", false: "certificate"}[strings.Contains(trust, "pins")]
			}
			thief, err := socks.Start()
			if err != nil {
				t.Fatal(err)
			}
			g := newGate(t)
			g.holds(c.plays)
			thief.Lead(domain+":5222", g.addr())
			thief.Lead(domain+":5223", g.addr())
			dir := stateDir(t)
			b := startWith(t, dir, fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\ndomains:\n  %s: {via: \"socks5://%s\", tls: %s, plain_upstream: true, %s}\n", dir, domain, thief.Addr(), c.tls, trust), proxy.Options{})
			if l, err := client.Dial(t.Context(), b.config("alice", client.Plain)); err == nil {
				l.Drop()
				t.Errorf("%s, %s: let in", trust, name)
			}
			if n := metric(b, `otrproxy_upstream_failures_total{cause="`+c.cause+`"}`); n != "1" {
				t.Errorf("%s, %s: %s failures of the cause %s\n%s", trust, name, n, c.cause, b.log)
			}
			b.stop()
			thief.Close()
			got := g.received()
			for _, r := range thief.Asked() {
				got = append(got, r.User+r.Password...)
			}
			if len(thief.Asked()) != 1 || len(got) < 40 {
				t.Errorf("%s, %s: it was not asked but %+v, %q", trust, name, thief.Asked(), got)
			}
			for _, word := range []string{"alice", "wonderland", "<auth", base64.StdEncoding.EncodeToString([]byte("\x00alice\x00wonderland")), "n,,n="} {
				if bytes.Contains(got, []byte(word)) {
					t.Errorf("%s, %s: it got %q", trust, name, got)
				}
			}
		}
	}
}

// A way that leads to ourselves would have no end.
func TestViaOurselves(t *testing.T) {
	dir := stateDir(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := startWith(t, dir, fmt.Sprintf("listen: [%q]\nstate: %q\ndomains:\n  %s: {via: \"socks5://%s\"}\n", l.Addr(), dir, domain, l.Addr()),
		proxy.Options{Listen: func(string, string) (net.Listener, error) { return l, nil }})
	_, err = client.Dial(t.Context(), b.config("alice", client.Plain))
	if err == nil || !strings.Contains(err.Error(), "where otrproxy itself listens") {
		t.Error(err)
	}
}

// A server that sends its clients elsewhere, through the proxy: nobody goes there straight.
func TestViaMoved(t *testing.T) {
	w := through(t, "", "")
	g := newGate(t)
	cert := w.s.TLS()
	g.holds(func(b *beast) {
		b.secures(&cert)
		b.greets("<stream:error><see-other-host xmlns='" + stanza.NSStreams + "'>other.example:5299</see-other-host></stream:error></stream:stream>")
	})
	w.socks.Lead(domain+":5222", g.addr())
	w.socks.Lead("other.example:5299", w.s.Addr())
	w.b.login("alice", client.Plain)
	asked := w.socks.Asked()
	if len(asked) != 2 || asked[1].Host != "other.example" || !asked[1].Named || asked[1].User != asked[0].User {
		t.Errorf("asked %+v", asked)
	}
}

// Where a server sends its clients is reached through the proxy even where it is given in
// numbers, before the login and after it; after it that one account alone goes there,
// or the server could tell who else belongs to the household.
func TestViaMovedByAddress(t *testing.T) {
	w := through(t, ", tls: starttls", "")
	const there = "192.0.2.7:5333"
	const sends = "<stream:error><see-other-host xmlns='" + stanza.NSStreams + "'>%s</see-other-host></stream:error></stream:stream>"
	alice := w.b.login("alice", client.Plain)
	w.s.Send("alice", fmt.Sprintf(sends, there))
	alice.Err()
	w.b.login("bob", client.Plain)
	w.b.login("alice", client.Plain) // the proxy knows of nobody there; the server has not gone

	g := newGate(t)
	cert := w.s.TLS()
	g.holds(func(b *beast) {
		b.secures(&cert)
		b.greets(fmt.Sprintf(sends, there))
	})
	w.socks.Lead(domain+":5222", g.addr())
	if err := w.tries("carol"); err == nil || !strings.Contains(err.Error(), "at "+there+" through the SOCKS proxy") {
		t.Error(err)
	}
	asked := ""
	ways := map[string]int{}
	for _, r := range w.socks.Asked() {
		if ways[r.User] == 0 {
			ways[r.User] = len(ways) + 1
		}
		asked += fmt.Sprintf("%d %v %s:%d\n", ways[r.User], r.Named, r.Host, r.Port)
	}
	const gone = "false " + there + "\n"
	if want := "1 true example.org:5222\n2 true example.org:5222\n1 " + gone + "1 true example.org:5222\n3 true example.org:5222\n3 " + gone; asked != want {
		t.Errorf("asked\n%s, want\n%s", asked, want)
	}
}

// Two ways to look at a server: they agree, or a person is told that they do not.
func TestProbeCompares(t *testing.T) {
	w := renewing(t, "trust: tofu", "", long)
	s, err := socks.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Lead(w.gate.addr(), w.good.Addr())
	r, err := admin(t, w.b.p, "pin probe", "domain", domain, "via", "socks5://"+s.Addr())
	if err != nil || !strings.Contains(r.Text, "lead to the same certificate") {
		t.Errorf("%v\n%s", err, r.Text)
	}
	rogue := startServer(t, server.Config{})
	s.Lead(w.gate.addr(), rogue.Addr())
	r, err = admin(t, w.b.p, "pin probe", "domain", domain, "via", "socks5://"+s.Addr())
	if err != nil || !strings.Contains(r.Text, "ANOTHER ONE IS PRESENTED") || !strings.Contains(r.Text, spki(rogue.Certificate())) || strings.Contains(r.Text, "otrproxy pin add") {
		t.Errorf("%v\n%s", err, r.Text)
	}
}
