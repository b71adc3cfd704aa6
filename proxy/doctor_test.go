package proxy_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"otrproxy/config"
	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/proxy"
	"otrproxy/proxy/control"
)

// Each fault on the way to a login is found, in the step it belongs to, with what to do
// about it; and the doctor changes nothing.
func TestDoctor(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	closed.Close()
	for name, c := range map[string]struct {
		server server.Config
		domain string // settings, with ADDR and PIN
		ask    string
		want   []string // "step result part of the text or remedy"
	}{
		"all well":       {domain: "connect: ADDR, trust: pin, pins: [PIN]", ask: "alice@" + domain, want: []string{"dns ok the configuration names", "tcp ok answers", "tls ok TLS 1.3", "certificate warn expires", "ca ok not asked", "pin ok it is the one", "login ok SCRAM-SHA-256-PLUS", "key ok 01", "client warn docs/clients.md"}},
		"another pin":    {domain: "connect: ADDR, trust: pin, pins: [\"sha256:" + strings.Repeat("AB", 32) + "\"]", ask: domain, want: []string{"pin fail otrproxy pin add " + domain + " sha256:", "login warn not tried"}},
		"unknown, tofu":  {domain: "connect: ADDR", ask: domain, want: []string{"ca warn otrproxy pin add", "pin fail none yet", "login warn not tried"}},
		"unknown, ca":    {domain: "connect: ADDR, trust: ca", ask: domain, want: []string{"ca fail trust: pin", "login warn not tried"}},
		"nobody":         {domain: "connect: \"" + nobody + "\"", ask: domain, want: []string{"tcp fail refused"}},
		"no such host":   {domain: "connect: \"nowhere.invalid:5222\"", ask: domain, want: []string{"tcp fail there is no host"}},
		"itself":         {domain: "connect: ADDR", ask: "elsewhere.example", want: []string{"domain fail does not allow elsewhere.example"}},
		"stripped":       {server: server.Config{Faults: server.Faults{NoSTARTTLS: true}}, domain: "connect: ADDR, trust: pin, pins: [PIN]", ask: domain, want: []string{"tls fail try another network"}},
		"injected":       {server: server.Config{Faults: server.Faults{BehindProceed: "<x/>"}}, domain: "connect: ADDR, trust: pin, pins: [PIN]", ask: domain, want: []string{"tls fail somebody on the way"}},
		"only PLAIN":     {server: server.Config{Mechanisms: []string{"PLAIN"}}, domain: "connect: ADDR, trust: pin, pins: [PIN]", ask: domain, want: []string{"login fail plain_upstream"}},
		"PLAIN, allowed": {server: server.Config{Mechanisms: []string{"PLAIN"}}, domain: "connect: ADDR, trust: pin, pins: [PIN], plain_upstream: true", ask: domain, want: []string{"login warn hands the server the password"}},
		"no binding":     {server: server.Config{Mechanisms: []string{"SCRAM-SHA-1"}}, domain: "connect: ADDR, trust: pin, pins: [PIN]", ask: domain, want: []string{"login warn not bound"}},
		"older TLS":      {server: server.Config{MaxTLS: 0x0303}, domain: "connect: ADDR, trust: pin, pins: [PIN]", ask: domain, want: []string{"tls warn TLS 1.2"}},
		"something else": {server: server.Config{Faults: server.Faults{InsteadOfAll: "HTTP/1.1 400 Bad\r\n\r\n"}}, domain: "connect: ADDR", ask: domain, want: []string{"tls fail not XMPP"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, c.server)
			dir := stateDir(t)
			text := fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\ndomains:\n  %s: {%s}\n", dir, domain, strings.NewReplacer("ADDR", fmt.Sprintf("%q", s.Addr()), "PIN", fmt.Sprintf("%q", s.Pin())).Replace(c.domain))
			b := startConfigured(t, dir, text)
			r, err := admin(t, b.p, "doctor", "name", c.ask)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range c.want {
				f := strings.SplitN(want, " ", 3)
				found := false
				for _, x := range r.Data.([]control.Check) {
					found = found || x.Step == f[0] && x.Result == f[1] && (strings.Contains(x.Text, f[2]) || strings.Contains(x.Remedy, f[2]) || f[0] == "key")
				}
				if !found {
					t.Errorf("no %q in\n%s", want, r.Text)
				}
			}
			for _, x := range r.Data.([]control.Check) {
				if x.Result == "fail" && x.Remedy == "" {
					t.Errorf("no remedy: %+v", x)
				}
			}
			if pins, _ := admin(t, b.p, "pin list"); strings.Contains(pins.Text, "first-use") {
				t.Error("the doctor remembered a pin")
			}
			if strings.Contains(string(s.Received()), "<auth") {
				t.Error("the doctor began a login")
			}
			// The same without a running proxy.
			b.stop()
			cfg, err := config.Parse("x", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			alone, err := proxy.Doctor(t.Context(), cfg, proxy.Options{}, c.ask)
			if err != nil || !strings.Contains(alone.Text, "does not run") {
				t.Fatalf("%v %s", err, alone.Text)
			}
			for _, want := range c.want {
				f := strings.SplitN(want, " ", 3)
				if f[0] != "key" && f[0] != "client" && !strings.Contains(alone.Text, f[1]+strings.Repeat(" ", 6-len(f[1]))+f[0]) {
					t.Errorf("alone: no %q in\n%s", want, alone.Text)
				}
			}
		})
	}
}

// A name that leads back to the proxy itself is refused at once, and not dialled for
// ever.
func TestNameThatLeadsBack(t *testing.T) {
	dir := stateDir(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	b := startConfigured(t, dir, fmt.Sprintf("listen: [%q]\nstate: %q\ndomains:\n  %s: {connect: %q}\n", addr, dir, domain, addr))
	var se *client.StreamError
	_, err = client.Dial(t.Context(), b.config("alice", client.Plain))
	if e, ok := err.(*client.StreamError); ok {
		se = e
	}
	if se == nil || se.Condition != "remote-connection-failed" || !strings.Contains(se.Text, "where otrproxy itself listens") || !strings.Contains(se.Text, "connect") {
		t.Errorf("%v", err)
	}
	if strings.Count(b.log.String(), "no connection to a server") > 1 {
		t.Errorf("it went round:\n%s", b.log)
	}
}

// The certificate that a client was told to trust is the same after a restart; one that
// nobody logged in with is not kept.
func TestCertificateOutlivesARestart(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	shown := func(b *box) string {
		t.Helper()
		c, err := tls.Dial("tcp", b.addr, &tls.Config{ServerName: domain, InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return string(c.ConnectionState().PeerCertificates[0].Raw)
	}
	before := shown(b)
	if list, _ := os.ReadDir(filepath.Join(b.state, "certs")); len(list) > 0 {
		t.Errorf("kept before anybody logged in: %v", list)
	}
	b.login("alice", client.STARTTLS).Close()
	b.stop()
	b = startConfigured(t, b.state, configFor(s, b.state))
	if after := shown(b); after != before {
		t.Error("another certificate after the restart")
	}
	if st, err := os.Stat(filepath.Join(b.state, "certs", domain+".pem")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v", err)
	}
}
