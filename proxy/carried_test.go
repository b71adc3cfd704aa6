package proxy_test

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	xproxy "golang.org/x/net/proxy"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/proxy"
	"otrproxy/stanza"
	"otrproxy/test/dns"
)

// Where a server is, in the configuration, may be asked for however it is written there.
func TestSOCKSEntrySpellings(t *testing.T) {
	s := startServer(t, server.Config{})
	n, err := dns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	dir := stateDir(t)
	b := startWith(t, dir, configFor(s, dir)+"  one.example: {connect: \"xmpp.Bücher.example:5299\"}\n  two.example: {connect: \"[2001:DB8:0:0::7]:5298\"}\n  three.example: {connect: \"Host.three.test.:5297\"}\n",
		proxy.Options{Resolver: n.Resolver()})
	for place, want := range map[string]bool{
		"xmpp.xn--bcher-kva.example:5299": true, "XMPP.xn--BCHER-kva.example.:5299": true, "[2001:db8::7]:5298": true, "host.three.test:5297": true,
		"xmpp.xn--bcher-kva.example:5298": false, "[2001:db8::8]:5298": false, "[::ffff:127.0.0.1]:22": false,
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
}

// A stop does not wait for a name server that a client of the SOCKS entry has had asked.
func TestSOCKSEntryStops(t *testing.T) {
	s := startServer(t, server.Config{})
	asked, why := make(chan bool, 100), make(chan error, 100)
	silent := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		asked <- true
		<-ctx.Done()
		why <- ctx.Err()
		return nil, ctx.Err()
	}}
	dir := stateDir(t)
	b := startWith(t, dir, configFor(s, dir)+"  slow.example: {}\n", proxy.Options{Resolver: silent})
	conn, err := net.Dial("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(client.Patience))
	io.WriteString(conn, "\x05\x01\x00\x05\x01\x00\x03\x07a.test.\x14\x66")
	<-asked
	b.stop()
	if err := <-why; !errors.Is(err, context.Canceled) {
		t.Errorf("the name server was waited for: %v", err)
	}
	if got, _ := io.ReadAll(conn); len(got) > 3 && got[3] == 0 {
		t.Errorf("answered %q", got)
	}
}

// However somebody goes who came by SOCKS, and however far they were: nothing is left of
// them, and nobody else is disturbed.
func TestSOCKSEntryLeavesNothing(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	bob := b.login("bob", client.Plain)
	const request = "\x05\x01\x00\x05\x01\x00\x03\x0bexample.org\x14\x66"
	for _, says := range []string{"\x05", "\x05\x01\x00", request[:9], request[:len(request)-1], request, request + rhead, request + rhead + "<starttls xmlns='" + stanza.NSTLS + "'/>"} {
		for _, end := range []func(*net.TCPConn){func(c *net.TCPConn) { c.SetLinger(0); c.Close() }, func(c *net.TCPConn) { c.CloseWrite(); io.Copy(io.Discard, c) }} {
			c, err := net.Dial("tcp", b.addr)
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(client.Patience))
			io.WriteString(c, says)
			end(c.(*net.TCPConn))
			c.Close()
		}
	}
	carried := func(entry client.Entry) (*client.Client, *net.TCPConn) {
		t.Helper()
		var conn net.Conn
		c, err := b.bySOCKS(domain+":5222", func(cfg *client.Config) {
			cfg.Entry = entry
			dial := cfg.Dial
			cfg.Dial = func(ctx context.Context, network, addr string) (_ net.Conn, err error) {
				conn, err = dial(ctx, network, addr)
				return conn, err
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return c, conn.(*net.TCPConn)
	}
	for _, entry := range []client.Entry{client.Plain, client.STARTTLS, client.Direct} {
		_, conn := carried(entry)
		conn.SetLinger(0)
		conn.Close()
		_, conn = carried(entry)
		conn.CloseWrite()
		defer conn.Close()
	}
	bob.Say("alice@"+domain, "m", "!otr status")
	if _, err := bob.Notice("server at"); err != nil {
		t.Error(err)
	}

	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(client.Patience); ; <-tick.C {
		stacks := make([]byte, 4<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		left := len(statusOf(t, b).Sessions)
		if !strings.Contains(string(stacks), "(*client).carried") && !strings.Contains(string(stacks), "go-socks5") && left == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d sessions are left, and bob's is one:\n%s", left, stacks)
		}
	}
}
