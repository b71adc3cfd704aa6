package proxy_test

import (
	"testing"

	xproxy "golang.org/x/net/proxy"

	"otrproxy/proxy"
	"otrproxy/test/dns"
	"otrproxy/test/server"
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
