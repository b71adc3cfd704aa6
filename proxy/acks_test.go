package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/stanza"
)

// scripted is alice's proxy before a server that says what the test likes behind the
// login. ask gives what the server is told, up to a mark.
type scripted struct {
	t    *testing.T
	b    *box
	conn chan net.Conn
	end  func()
}

const smFeatures = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' from='example.org' id='s'>" +
	"<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/><sm xmlns='urn:xmpp:sm:3'/></stream:features>"

func onScript(t *testing.T) *scripted {
	t.Helper()
	x := &scripted{t: t, conn: make(chan net.Conn)}
	done := make(chan struct{})
	var once sync.Once
	s := startServer(t, server.Config{Script: func(conn net.Conn) {
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		conn.Write([]byte(smFeatures))
		select {
		case x.conn <- conn:
		case <-done:
			return
		}
		<-done
	}})
	x.end = func() { once.Do(func() { close(done) }) }
	t.Cleanup(x.end)
	x.b = startProxy(t, s, "otr: [{policy: never}]\n")
	return x
}

// login logs alice in without waiting for anything behind the bind.
func (x *scripted) login() (*client.Client, net.Conn) {
	x.t.Helper()
	cfg := x.b.config("alice", client.Plain)
	cfg.Quiet = true
	type result struct {
		c   *client.Client
		err error
	}
	in := make(chan result, 1)
	go func() {
		c, err := client.Dial(context.Background(), cfg)
		in <- result{c, err}
	}()
	conn := <-x.conn
	got := readUntil(conn, func(b []byte) bool {
		return bytes.Contains(b, []byte("</iq>")) || bytes.Contains(b, []byte("<resume "))
	})
	if !bytes.Contains(got, []byte("<resume ")) {
		fmt.Fprintf(conn, "<iq type='result' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>alice@example.org/c</jid></bind></iq>")
		readUntil(conn, func(b []byte) bool { return bytes.Contains(b, []byte("<enable ")) })
	} else if !bytes.Contains(got, []byte("previd='ID'")) {
		x.t.Errorf("asked %s", got)
	} else {
		fmt.Fprint(conn, x.answer())
	}
	r := <-in
	if r.err != nil {
		x.t.Fatal(r.err)
	}
	x.t.Cleanup(x.end) // before the proxy stops, which would wait for the server
	x.t.Cleanup(r.c.Drop)
	return r.c, conn
}

var resumption = struct {
	sync.Mutex
	answer string
}{}

func (x *scripted) answer() string {
	resumption.Lock()
	defer resumption.Unlock()
	return resumption.answer
}

func (x *scripted) answers(s string) {
	resumption.Lock()
	defer resumption.Unlock()
	resumption.answer = s
}

func errored(t *testing.T, c *client.Client, id, part string) {
	t.Helper()
	st, err := c.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == id && st.Root().Attr("type") == "error" })
	if err != nil || !strings.Contains(allOf(st), part) {
		t.Errorf("%s: %v %s", id, err, st.Raw)
	}
}

// The server takes two of four messages and vanishes. The next login resumes the
// session; what the server says it has not got comes back, and nothing else.
func TestResumption(t *testing.T) {
	x := onScript(t)
	alice, conn := x.login()
	fmt.Fprint(conn, "<enabled xmlns='urn:xmpp:sm:3' id='ID' resume='true'/><message from='bob@example.org/r' type='chat'><body>seen</body></message>")
	text(t, alice, "bob@"+domain, "seen")
	for i := range 4 {
		alice.Say("bob@"+domain, fmt.Sprint("m", i), "x")
	}
	readUntil(conn, func(b []byte) bool { return bytes.Contains(b, []byte("id='m3'")) && bytes.HasSuffix(b, []byte("/>")) })
	fmt.Fprint(conn, "<a xmlns='urn:xmpp:sm:3' h='1'/><message from='bob@example.org/r' type='chat'><body>ack seen</body></message>")
	text(t, alice, "bob@"+domain, "ack seen")
	conn.Close()
	if alice.Err() == nil {
		t.Fatal("the session goes on")
	}
	alice.Drop()

	x.answers("<resumed xmlns='urn:xmpp:sm:3' previd='ID' h='2'/><message from='bob@example.org/r' type='chat'><body>kept for you</body></message>")
	alice, conn = x.login()
	if alice.JID != "alice@example.org/c" {
		t.Errorf("JID %s", alice.JID)
	}
	text(t, alice, "bob@"+domain, "kept for you")
	errored(t, alice, "m2", "Not sent: the connection")
	errored(t, alice, "m3", "Not sent: the connection")
	fmt.Fprint(conn, endOfTest)
	for _, st := range upToEnd(t, alice) {
		if st.Root().Attr("type") == "error" {
			t.Errorf("given back too: %s", st.Raw)
		}
	}

	// This time the server has forgotten.
	alice.Say("bob@"+domain, "m4", "x")
	readUntil(conn, func(b []byte) bool { return bytes.Contains(b, []byte("id='m4'")) })
	conn.Close()
	alice.Err()
	alice.Drop()
	x.answers("<failed xmlns='urn:xmpp:sm:3'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>")
	cfg := x.b.config("alice", client.Plain)
	cfg.Quiet = true
	go func() {
		conn := <-x.conn
		readUntil(conn, func(b []byte) bool { return bytes.Contains(b, []byte("<resume ")) })
		fmt.Fprint(conn, x.answer())
		readUntil(conn, func(b []byte) bool { return bytes.Contains(b, []byte("</iq>")) })
		fmt.Fprintf(conn, "<iq type='result' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>alice@example.org/new</jid></bind></iq>")
	}()
	alice, err := client.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer alice.Drop()
	errored(t, alice, "m4", "may not have been sent")
}

// A server that counts oddly, or says what nobody asked, changes nothing.
func TestOddCounting(t *testing.T) {
	for name, odd := range map[string]string{
		"too much":         "<a xmlns='urn:xmpp:sm:3' h='4000000000'/>",
		"no number":        "<a xmlns='urn:xmpp:sm:3' h='x'/><a xmlns='urn:xmpp:sm:3'/>",
		"resumed unasked":  "<resumed xmlns='urn:xmpp:sm:3' previd='ID' h='7'/>",
		"enabled twice":    "<enabled xmlns='urn:xmpp:sm:3' id='ID'/><enabled xmlns='urn:xmpp:sm:3' id='ID2' resume='true' max='-5'/>",
		"failed":           "<failed xmlns='urn:xmpp:sm:3'/>",
		"failed late":      "<enabled xmlns='urn:xmpp:sm:3' id='ID' resume='true'/><failed xmlns='urn:xmpp:sm:3' h='3'/>",
		"asks without end": strings.Repeat("<r xmlns='urn:xmpp:sm:3'/>", 100),
		"unknown":          "<x xmlns='urn:xmpp:sm:3'/>",
	} {
		t.Run(name, func(t *testing.T) {
			x := onScript(t)
			alice, conn := x.login()
			fmt.Fprint(conn, odd)
			alice.Say("bob@"+domain, "m1", "x")
			readUntil(conn, func(b []byte) bool { return bytes.Contains(b, []byte("id='m1'")) })
			fmt.Fprint(conn, odd+endOfTest)
			for _, st := range upToEnd(t, alice) {
				t.Errorf("the client got %s", st.Raw)
			}
		})
	}
}

// A client that comes back while its old session is ending waits for that, so that the
// server does not throw out what it has not read yet; one that hangs is not waited for
// long.
func TestComingBack(t *testing.T) {
	inWorld(t, func(w *world, alice, bob *link) (*link, *link) {
		w.hand(alice)
		time.Sleep(time.Second)
		w.mu.Lock()
		w.home.up.Pause(3 * time.Second)
		w.mu.Unlock()
		w.hand(alice)
		alice.Drop()
		time.Sleep(time.Second)
		before := time.Now()
		if alice = w.home.login(); alice == nil {
			w.t.Fatal("not let in")
		}
		if waited := time.Since(before); waited < time.Second || waited > 3*time.Second {
			w.t.Errorf("waited %v", waited)
		}
		w.hand(alice)
		time.Sleep(time.Minute)
		w.balance()
		return alice, bob
	})
}
