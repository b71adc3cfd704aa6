package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	xproxy "golang.org/x/net/proxy"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/proxy"
	"otrproxy/stanza"
	"otrproxy/test/dns"
)

// bySOCKS has a client reach a place through the SOCKS entry, as if it knew nothing else.
func (b *box) bySOCKS(place string, with func(*client.Config)) (*client.Client, error) {
	cfg := b.config("alice", client.STARTTLS)
	cfg.Addr = place
	cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		d, err := xproxy.SOCKS5("tcp", b.addr, nil, nil)
		if err != nil {
			return nil, err
		}
		return d.Dial(network, addr)
	}
	if with != nil {
		with(&cfg)
	}
	return client.Dial(b.t.Context(), cfg)
}

// A client that only knows a SOCKS proxy is carried to us, by every kind of connection,
// and nothing is dialled for it but its own server.
func TestSOCKSEntry(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	for i, entry := range []client.Entry{client.STARTTLS, client.Direct, client.Plain} {
		c, err := b.bySOCKS(domain+":5222", func(cfg *client.Config) { cfg.Entry, cfg.Resource = entry, fmt.Sprint("s", i) })
		if err != nil {
			t.Fatalf("%s: %v\n%s", entry, err, b.log)
		}
		found := false
		for _, x := range statusOf(t, b).Sessions {
			found = found || x.Entry == "socks5 "+string(entry)
		}
		if !found {
			t.Errorf("%s: %+v", entry, statusOf(t, b).Sessions)
		}
		c.Say("carol@"+domain, "x", "CANARY")
		c.Send("<iq type='get' id='behind'><ping xmlns='urn:xmpp:ping'/></iq>")
		if _, err := c.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "behind" }); err != nil {
			t.Errorf("%s: %v", entry, err)
		}
		c.Close()
	}
	if bytes.Contains(s.Received(), []byte("CANARY")) {
		t.Error("a word left in clear")
	}
}

// Once carried, a client is one like any other: nothing is copied for it, and nothing of the
// handshake is left.
func TestCarriedClientCostsWhatOthersDo(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	c, err := b.bySOCKS(domain+":5222", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Drop()
	stacks := make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	if bytes.Contains(stacks, []byte("go-socks5")) || !bytes.Contains(stacks, []byte("readClient")) {
		t.Errorf("the library still runs, or no session does:\n%s", stacks)
	}
}

// hasty is a connection through the SOCKS entry on which the first words come in the same
// packet as the handshake.
type hasty struct {
	net.Conn
	says string
	left int // of the answer
}

func (h *hasty) Write(b []byte) (int, error) {
	_, err := h.Conn.Write(append([]byte(h.says), b...))
	h.says = ""
	return len(b), err
}

func (h *hasty) Read(b []byte) (int, error) {
	if _, err := io.CopyN(io.Discard, h.Conn, int64(h.left)); err != nil {
		return 0, err
	}
	h.left = 0
	return h.Conn.Read(b)
}

// What comes behind the handshake in the same packet is not lost, in clear and in TLS.
func TestCarriedClientDoesNotWait(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	for name, within := range map[string]func(net.Conn) net.Conn{
		"in clear": func(c net.Conn) net.Conn { return c },
		"in TLS": func(c net.Conn) net.Conn {
			return tls.Client(c, &tls.Config{InsecureSkipVerify: true, ServerName: domain})
		},
	} {
		raw, err := net.Dial("tcp", b.addr)
		if err != nil {
			t.Fatal(err)
		}
		conn := within(&hasty{raw, "\x05\x01\x00\x05\x01\x00\x03\x0bexample.org\x14\x66", len("\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")})
		conn.SetDeadline(time.Now().Add(client.Patience))
		if _, err := io.WriteString(conn, "<?xml version='1.0'?><stream:stream to='"+domain+"' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got []byte
		for chunk := make([]byte, 4096); !bytes.Contains(got, []byte("</stream:features>")); {
			n, err := conn.Read(chunk)
			if got = append(got, chunk[:n]...); err != nil {
				t.Fatalf("%s: %v behind %q", name, err, got)
			}
		}
		conn.Close()
	}
}

// What may be asked for are servers of the configuration; all else is refused, and
// nothing is dialled.
func TestSOCKSEntryDestinations(t *testing.T) {
	s := startServer(t, server.Config{})
	n, err := dns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	n.SRV("xmpp-client", "srv.example", "host.elsewhere.example", 5269, 0, 0)
	n.SRV("xmpp-client", "hidden.example", "hidden.elsewhere.example", 5222, 0, 0)
	dir := stateDir(t)
	b := startWith(t, dir, configFor(s, dir)+"  srv.example: {}\n  hidden.example: {via: \"socks5://127.0.0.1:9\"}\n  bücher.example: {connect: \"192.0.2.7:5299\"}\n", proxy.Options{Resolver: n.Resolver()})
	dialled := s.Accepted()
	for place, want := range map[string]bool{
		domain + ":5222": true, domain + ":5223": true, domain + ":80": false, domain + ":22": false, "EXAMPLE.ORG:5222": true,
		"xmpp." + domain + ":5222": true, "notexample.org:5222": false, domain + ".evil.example:5222": false, s.Addr(): true,
		"192.0.2.1:5222": false, "192.0.2.7:5299": true, "[2001:db8::1]:5222": false, "127.0.0.1:22": false, "localhost:5222": false,
		"evil.example:5222": false, "xn--bcher-kva.example:5222": true, "host.elsewhere.example:5269": true, "host.elsewhere.example:5222": false,
		"hidden.elsewhere.example:5222": false, b.addr: false, "169.254.169.254:80": false,
	} {
		d, err := xproxy.SOCKS5("tcp", b.addr, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		c, err := d.Dial("tcp", place)
		if (err == nil) != want {
			t.Errorf("%s: %v, want %v", place, err, want)
		}
		if err == nil {
			c.Close()
		}
	}
	if n := s.Accepted() - dialled; n != 0 {
		t.Errorf("%d connections to the server before anybody spoke XMPP", n)
	}
	for _, q := range n.Asked() {
		if strings.Contains(q.Name, "hidden") || strings.Contains(q.Name, "evil") {
			t.Errorf("DNS was asked for %s", q.Name)
		}
	}
	for _, word := range []string{"evil.example", "notexample"} {
		if strings.Contains(b.log.String(), word) {
			t.Errorf("the log names %s", word)
		}
	}
}

// Whatever else is said in SOCKS ends in a refusal; and nobody waits for ever.
func TestSOCKSEntryAbused(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "limits: {login: 1s}\n")
	const name = "\x03\x0bexample.org\x14\x66"
	for what, c := range map[string]struct{ says, reply string }{
		"BIND":                          {"\x05\x01\x00\x05\x02\x00" + name, "\x05\x00\x05\x02"},
		"UDP ASSOCIATE":                 {"\x05\x01\x00\x05\x03\x00" + name, "\x05\x00\x05\x02"},
		"a command that is none":        {"\x05\x01\x00\x05\x09\x00" + name, "\x05\x00\x05\x07"},
		"an address of no kind":         {"\x05\x01\x00\x05\x01\x00\x07" + name, "\x05\x00\x05\x08"},
		"no method":                     {"\x05\x01\x80", "\x05\xff"},
		"SOCKS4":                        {"\x04\x01\x14\x66\x01\x02\x03\x04\x00", ""},
		"half a request":                {"\x05\x01\x00\x05\x01\x00\x03\xff" + name, "\x05\x00"},
		"nothing behind the first byte": {"\x05", ""},
		"a name and password":           {"\x05\x01\x02\x01\x04tor1\x01x\x05\x01\x00" + name, "\x05\x02\x01\x00\x05\x00"},
		"SOCKS in SOCKS":                {"\x05\x01\x00\x05\x01\x00" + name + "\x05\x01\x00\x05\x01\x00" + name, "\x05\x00\x05\x00"},
		"silence behind it":             {"\x05\x01\x00\x05\x01\x00" + name, "\x05\x00\x05\x00"},
		"HTTP behind it":                {"\x05\x01\x00\x05\x01\x00" + name + "CONNECT evil.example:80 HTTP/1.1\r\n\r\n", "\x05\x00\x05\x00"},
	} {
		conn, err := net.Dial("tcp", b.addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(client.Patience))
		io.WriteString(conn, c.says)
		got, err := io.ReadAll(conn) // ends by the limit of a login at the latest
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			t.Errorf("%s: still open", what)
		}
		if !bytes.HasPrefix(got, []byte(c.reply)) || c.reply == "" && len(got) > 0 {
			t.Errorf("%s: answered %q, want %q", what, got, c.reply)
		}
		if bytes.Count(got, []byte("\x05\x00")) > 2 {
			t.Errorf("%s: carried twice: %q", what, got)
		}
		conn.Close()
	}
	if s.Accepted() != 0 {
		t.Errorf("the server was dialled %d times", s.Accepted())
	}
}

// A listener that others can reach speaks TLS only, by SOCKS as well.
func TestSOCKSEntryOffLoopback(t *testing.T) {
	s := startServer(t, server.Config{})
	dir := stateDir(t)
	b := startWith(t, dir, configFor(s, dir), proxy.Options{Listen: func(network, addr string) (net.Listener, error) {
		l, err := net.Listen(network, addr)
		return elsewhereListener{l}, err
	}})
	if _, err := b.bySOCKS(domain+":5222", func(cfg *client.Config) { cfg.Entry = client.Plain }); err == nil || !strings.Contains(err.Error(), "TLS only") {
		t.Errorf("in clear: %v", err)
	}
	if c, err := b.bySOCKS(domain+":5222", nil); err != nil {
		t.Error(err)
	} else {
		c.Drop()
	}
}

// elsewhereListener has everybody come from another machine.
type elsewhereListener struct{ net.Listener }

func (l elsewhereListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return elsewhereConn{c.(*net.TCPConn)}, nil
}

type elsewhereConn struct{ *net.TCPConn }

func (elsewhereConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 3), Port: 4444}
}

// Who goes leaves nothing behind, and a stop ends who is there.
func TestSOCKSEntryEnds(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "limits: {sessions: 2}\n")
	come := func() *client.Client {
		t.Helper()
		deadline := time.Now().Add(client.Patience)
		for {
			c, err := b.bySOCKS(domain+":5222", nil)
			if err == nil {
				return c
			}
			if time.Now().After(deadline) { // whoever was there before is never gone
				t.Fatal(err)
			}
		}
	}
	for range 8 { // more than there is room for
		c := come()
		c.Send(stanza.StreamClose)
		c.Err()
		c.Drop()
	}
	c := come()
	b.stop()
	if err := c.Err(); err == nil || !strings.Contains(err.Error(), "being stopped") {
		t.Errorf("the client was told %v", err)
	}
}

// Who is done and does not hang up takes nobody's place for long; until then there is none.
func TestSOCKSEntryLingers(t *testing.T) {
	t.Parallel()
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "limits: {sessions: 1}\n")
	c, err := b.bySOCKS(domain+":5222", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Drop()
	c.Send(stanza.StreamClose)
	c.Err()
	if err := b.tries(client.Plain); err == nil || !strings.Contains(err.Error(), "limits.sessions") {
		t.Errorf("there is room: %v", err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(client.Patience); b.tries(client.Plain) != nil; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("the place is never free")
		}
	}
}

func (b *box) tries(entry client.Entry) error {
	c, err := client.Dial(b.t.Context(), b.config("alice", entry))
	if err == nil {
		c.Drop()
	}
	return err
}

// sometimesListener has those come from another machine for whom it is so.
type sometimesListener struct {
	net.Listener
	elsewhere *atomic.Bool
}

func (l sometimesListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil && l.elsewhere.Load() {
		c = elsewhereConn{c.(*net.TCPConn)}
	}
	return c, err
}

// Who comes by SOCKS comes from where the connection does, not from this machine: what is
// remembered of a host is remembered of that one.
func TestSOCKSEntryFrom(t *testing.T) {
	s := startServer(t, server.Config{})
	dir := stateDir(t)
	var elsewhere atomic.Bool
	b := startWith(t, dir, configFor(s, dir), proxy.Options{Listen: func(network, addr string) (net.Listener, error) {
		l, err := net.Listen(network, addr)
		return sometimesListener{l, &elsewhere}, err
	}})
	for who, password := range map[string]string{"alice": "wonderland", "bob": "builder", "carol": "singer"} {
		if _, err := admin(t, b.p, "login enroll", "account", who+"@"+domain, "password", password); err != nil {
			t.Fatal(err)
		}
	}
	before := fmt.Sprint(offers(b.open("alice", nil)))
	elsewhere.Store(true)
	if c, err := b.bySOCKS(domain+":5222", func(cfg *client.Config) { cfg.JID, cfg.Mechanism = "nobody@"+domain, "SCRAM-SHA-256" }); err == nil || !strings.Contains(err.Error(), "invalid-mechanism") {
		t.Fatal(c, err)
	}
	elsewhere.Store(false)
	if after := fmt.Sprint(offers(b.open("alice", nil))); after != before {
		t.Errorf("somebody elsewhere had this machine offered %s instead of %s", after, before)
	}
}
