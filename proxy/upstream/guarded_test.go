package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"otrproxy/config"
	"otrproxy/proxy/causes"
	"otrproxy/proxy/dnssec"
	"otrproxy/proxy/journal"
)

// A domain whose DNS names thousands of places does not have all of them tried.
func TestTargetsHostile(t *testing.T) {
	s := newNames(t)
	s.Truncate(true) // so that they come over TCP
	for range 300 {
		s.SRV("xmpp-client", "example.org", "a.example", 5222, 1, 0)
		s.SRV("xmpps-client", "example.org", "a.example", 5223, 2, 0)
	}
	var dials atomic.Int32
	sv := reaching(config.Default(), Network{Resolver: s.Resolver(), Dial: func(context.Context, string, string) (net.Conn, error) {
		dials.Add(1)
		return nil, &net.OpError{Op: "dial", Err: io.EOF}
	}})
	sv.reach(t.Context(), config.Domain{Name: "example.org", TLS: config.TLSAuto}, "", nil)
	if n := dials.Load(); n == 0 || n > 20 {
		t.Errorf("%d places were tried", n)
	}
}

// Port 0 is no place.
func TestTargetsPortZero(t *testing.T) {
	s := newNames(t)
	s.SRV("xmpp-client", "example.org", "a.example", 0, 1, 0)
	s.SRV("xmpp-client", "example.org", "b.example", 5222, 2, 0)
	if got := places(t, at(s), config.Domain{Name: "example.org", TLS: config.TLSAuto}); len(got) != 1 {
		t.Error(got)
	}
}

// The log names no host that is not the configuration's own.
func TestLogsNoHosts(t *testing.T) {
	s := newNames(t)
	s.SRV("xmpp-client", "example.org", "alices-own.example", 5222, 1, 0)
	var log bytes.Buffer
	sv := reaching(config.Default(), Network{Resolver: s.Resolver()})
	sv.log = journal.New(slog.New(slog.NewTextHandler(&log, nil)), func() bool { return false })
	f := sv.reach(t.Context(), config.Domain{Name: "example.org", TLS: config.TLSAuto}, "", nil)
	if f == nil {
		t.Fatal("reached")
	}
	if text := sv.log.Redact(f, "example.org"); strings.Contains(text, "alices-own") {
		t.Errorf("the log: %s", text)
	}
	if !strings.Contains(f.Text, "alices-own") {
		t.Errorf("the person: %s", f.Text)
	}
}

// The SOCKS entry asks DNS for nothing that cannot be a server's name there.
func TestServesAsksLittle(t *testing.T) {
	s := newNames(t)
	cfg := config.Default()
	cfg.Domains = map[string]config.Domain{"example.org": {Name: "example.org", TLS: config.TLSAuto, Trust: config.TrustTOFU}}
	sv := reaching(cfg, Network{Resolver: s.Resolver()})
	for _, host := range []string{"192.0.2.1", "2001:db8::1", "a b", "<nil>", ""} {
		if sv.Serves(t.Context(), host, 5269) {
			t.Errorf("%q is served", host)
		}
	}
	if asked := s.Asked(); len(asked) > 0 {
		t.Errorf("DNS was asked %v", asked)
	}
}

// The machine's resolver is asked about as it is now: a word that it could be trusted is
// not kept for another network.
func TestResolverChanges(t *testing.T) {
	before := dnssec.ResolvConf
	defer func() { dnssec.ResolvConf = before }()
	dnssec.ResolvConf = filepath.Join(t.TempDir(), "resolv.conf")
	for text, usable := range map[string]bool{"nameserver 192.0.2.1\noptions trust-ad\n": true, "nameserver 192.0.2.1\n": false} {
		if err := os.WriteFile(dnssec.ResolvConf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		sv := reaching(config.Default(), Network{})
		if (sv.dns().Usable() == nil) != usable {
			t.Errorf("%q: %v", text, sv.dns().Usable())
		}
		if err := os.WriteFile(dnssec.ResolvConf, []byte("nameserver 192.0.2.2\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if sv.dns().Usable() == nil {
			t.Error("still trusted")
		}
	}
}

// What DNS says of a place counts only where the place's address is signed, too; and the
// certificate may be for the place as well as for the domain.
func TestSaysDNS(t *testing.T) {
	s := newNames(t)
	s.Host("xmpp.example", "192.0.2.1")
	s.TLSA("xmpp.example", 5269, 3, 1, 1, make([]byte, 32))
	d, at, sv := config.Domain{Name: "example.org", Trust: config.TrustDANE}, Target{Host: "xmpp.example", Port: 5269}, at(s)
	said, f := sv.SaysDNS(t.Context(), d, at)
	if f != nil || len(said.records) != 1 || !slices.Equal(said.names, []string{"example.org", "xmpp.example"}) {
		t.Errorf("%+v, %v", said, f)
	}
	s.Secure(false, "xmpp.example")
	if _, f = sv.SaysDNS(t.Context(), d, at); f == nil || !strings.Contains(f.Text, "is not signed") {
		t.Errorf("an address that is not signed: %v", f)
	}
}

// Where a server has sent its clients is kept for a minute, for one connection of that
// domain, and through a proxy of that account.
func TestWhereTo(t *testing.T) {
	sv := reaching(config.Default(), Network{})
	straight, via := config.Domain{Name: "a.example"}, config.Domain{Name: "b.example", Via: "socks5://127.0.0.1:9050"}
	there := &Target{Host: "192.0.2.1", Port: 5222}
	goes := func(d config.Domain, account string) bool {
		_, moved := sv.whereTo(t.Context(), d, account)
		return moved
	}
	sv.Move(straight, "x@a.example", there)
	sv.Move(via, "x@b.example", there)
	sv.Move(straight, "x@a.example", nil) // no word is no news
	switch {
	case goes(config.Domain{Name: "c.example"}, ""):
		t.Error("another domain's")
	case goes(via, "y@b.example"), goes(via, ""):
		t.Error("another account's")
	case !goes(straight, ""), !goes(via, "x@b.example"):
		t.Error("not its own")
	case goes(straight, ""), goes(via, "x@b.example"):
		t.Error("twice")
	}
	sv.Move(straight, "", there)
	sv.moves[moveKey(straight, "")] = moved{*there, time.Now().Add(-time.Second)}
	if goes(straight, "") {
		t.Error("too late")
	}
}

// A server sends nobody to this machine or into its networks, but where the configuration
// itself has placed it there.
func TestServerSendsNobodyInside(t *testing.T) {
	at := func(connect string) *Servers {
		cfg := config.Default()
		cfg.Domains = map[string]config.Domain{"a.example": {Name: "a.example", Connect: connect}}
		return reaching(cfg, Network{})
	}
	for _, c := range []struct {
		connect, to string
		follows     bool
	}{
		{"", "127.0.0.1", false}, {"", "127.8.0.1", false}, {"", "::1", false}, {"", "localhost", false}, {"", "x.localhost", false}, {"", "0.0.0.0", false}, {"", "::", false},
		{"", "::ffff:127.0.0.1", false}, {"", "10.0.0.1", false}, {"", "192.168.1.1", false}, {"", "172.16.0.1", false}, {"", "169.254.169.254", false}, {"", "100.64.0.1", false},
		{"", "fd00::1", false}, {"", "fe80::1", false}, {"", "224.0.0.1", false}, {"", "255.255.255.255", false},
		{"", "192.0.2.1", true}, {"", "2001:db8::1", true}, {"203.0.113.1:5222", "192.0.2.1", true}, {"203.0.113.1:5222", "10.0.0.1", false}, {"203.0.113.1:5222", "127.0.0.1", false},
		{"127.0.0.1:5222", "127.0.0.1", true}, {"localhost:5222", "127.0.0.1", true}, {"127.0.0.1:5222", "10.0.0.1", false}, {"10.0.0.1:5222", "10.0.0.2", true}, {"10.0.0.1:5222", "127.0.0.1", false},
	} {
		sv := at(c.connect)
		_, f := sv.mayFollow(t.Context(), sv.config().Domains["a.example"], Target{Host: c.to, Port: 5222})
		if (f == nil) != c.follows {
			t.Errorf("configured %q, sent to %s: %v", c.connect, c.to, f)
		}
	}
	through := at("")
	d := through.config().Domains["a.example"]
	d.Via = "socks5://127.0.0.1:9050"
	for _, to := range []string{"10.0.0.1", "localhost", "LOCALHOST", "x.localhost.", "127.1", "2130706433", "0x7f000001", "0x7f.1", "10.1"} {
		if _, f := through.mayFollow(t.Context(), d, Target{Host: to, Port: 5222}); f == nil {
			t.Errorf("followed to %s through a SOCKS proxy", to)
		}
	}
	if _, f := through.mayFollow(t.Context(), d, Target{Host: "other.example", Port: 5222}); f != nil {
		t.Errorf("not followed through a SOCKS proxy: %v", f)
	}
	// What cannot be looked up now could be anywhere a moment later.
	unknown := reaching(config.Default(), Network{Resolver: &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no DNS") }}})
	if _, f := unknown.mayFollow(t.Context(), config.Domain{Name: "a.example"}, Target{Host: "other.example", Port: 5222}); f == nil {
		t.Error("followed to a name that nobody knows")
	}
}

// Where there was no time left, a server's word that its clients are to come elsewhere is not
// followed: the failure is that it took too long.
func TestLateMoveIsNotFollowed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sv := reaching(config.Default(), Network{})
	d := config.Domain{Name: "a.example", Connect: l.Addr().String(), TLS: config.TLSStartTLS}
	ctx, cancel := context.WithCancel(t.Context())
	f := sv.reach(ctx, d, "", func(net.Conn, Target) *causes.Failure {
		cancel()
		return causes.New(causes.FailProtocol, &moved{to: Target{Host: "other.example", Port: 5222}}, "elsewhere")
	})
	if f == nil || f.Cause != causes.FailTimeout || SentBy(f) != nil {
		t.Errorf("%v, sent to %v", f, SentBy(f))
	}
}
