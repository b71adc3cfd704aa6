package upstream

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"testing"

	"otrproxy/config"
	"otrproxy/proxy/causes"
	"otrproxy/test/dns"
)

func newNames(t *testing.T) *dns.Server {
	t.Helper()
	s, err := dns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// at is a proxy that asks a DNS server.
func at(s *dns.Server) *Servers {
	return reaching(config.Default(), Network{Resolver: s.Resolver(), DNSSEC: s.Addr()})
}

func places(t *testing.T, p *Servers, d config.Domain) (out []string) {
	t.Helper()
	found, f := p.Targets(t.Context(), d)
	if f != nil {
		return []string{string(f.Cause)}
	}
	for _, x := range found {
		out = append(out, x.String())
	}
	return out
}

func TestTargets(t *testing.T) {
	both := func(s *dns.Server) {
		s.SRV("xmpp-client", "example.org", "b.example.org", 5222, 5, 0)
		s.SRV("xmpps-client", "example.org", "c.example.org", 443, 7, 0)
		s.SRV("xmpps-client", "example.org", "a.example.org", 5223, 1, 0)
	}
	none := func(service string) func(*dns.Server) {
		return func(s *dns.Server) { s.SRV(service, "example.org", ".", 0, 0, 0) }
	}
	for _, c := range []struct {
		name  string
		names func(*dns.Server)
		d     config.Domain
		want  []string
	}{
		{"no records", func(*dns.Server) {}, config.Domain{}, []string{"example.org:5222 (STARTTLS)"}},
		{"no records, direct", func(*dns.Server) {}, config.Domain{TLS: config.TLSDirect}, []string{"example.org:5223 (direct TLS)"}},
		{"both services as one", both, config.Domain{}, []string{"a.example.org:5223 (direct TLS)", "b.example.org:5222 (STARTTLS)", "c.example.org:443 (direct TLS)"}},
		{"starttls only", both, config.Domain{TLS: config.TLSStartTLS}, []string{"b.example.org:5222 (STARTTLS)"}},
		{"direct only", both, config.Domain{TLS: config.TLSDirect}, []string{"a.example.org:5223 (direct TLS)", "c.example.org:443 (direct TLS)"}},
		{"no such service", none("xmpp-client"), config.Domain{}, []string{"dns"}},
		{"no such service, but over TLS", func(s *dns.Server) { none("xmpp-client")(s); both(s) }, config.Domain{}, []string{"a.example.org:5223 (direct TLS)", "b.example.org:5222 (STARTTLS)", "c.example.org:443 (direct TLS)"}},
		{"none over TLS", none("xmpps-client"), config.Domain{}, []string{"example.org:5222 (STARTTLS)"}},
		{"none over TLS, which is wanted", none("xmpps-client"), config.Domain{TLS: config.TLSDirect}, []string{"dns"}},
		{"connect", both, config.Domain{Connect: "x.example.org:5269"}, []string{"x.example.org:5269 (STARTTLS)"}},
		{"connect to 5223", both, config.Domain{Connect: "[::1]:5223"}, []string{"[::1]:5223 (direct TLS)"}},
		{"connect to 5223, STARTTLS", both, config.Domain{Connect: "x.example.org:5223", TLS: config.TLSStartTLS}, []string{"x.example.org:5223 (STARTTLS)"}},
		{"connect, other letters", both, config.Domain{Connect: "bücher.example:5222"}, []string{"xn--bcher-kva.example:5222 (STARTTLS)"}},
		{"through a proxy", both, config.Domain{Via: "socks5://127.0.0.1:9050"}, []string{"example.org:5222 (STARTTLS)", "example.org:5223 (direct TLS)"}},
		{"through a proxy, connect", both, config.Domain{Via: "socks5://127.0.0.1:9050", Connect: "abc.onion:5222"}, []string{"abc.onion:5222 (STARTTLS)"}},
		{"onion without a proxy", both, config.Domain{Connect: "abc.ONION:5222"}, []string{"dns"}},
		{"signed, for dane", both, config.Domain{Trust: config.TrustDANE}, []string{"a.example.org:5223 (direct TLS)", "b.example.org:5222 (STARTTLS)", "c.example.org:443 (direct TLS)"}},
		{"not signed, for dane", func(s *dns.Server) { both(s); s.Secure(false) }, config.Domain{Trust: config.TrustDANE}, []string{"dns"}},
	} {
		s := newNames(t)
		c.names(s)
		c.d.Name = "example.org"
		if c.d.TLS == "" {
			c.d.TLS = config.TLSAuto
		}
		got := places(t, at(s), c.d)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		if asked := s.Asked(); (c.d.Via != "" || c.d.Connect != "") && len(asked) > 0 {
			t.Errorf("%s: DNS was asked %v", c.name, asked)
		}
	}
}

// An onion domain is never asked for in DNS.
func TestTargetsOnion(t *testing.T) {
	s := newNames(t)
	if got := places(t, at(s), config.Domain{Name: "abcdefghij.onion", TLS: config.TLSAuto}); !slices.Equal(got, []string{"dns"}) || len(s.Asked()) > 0 {
		t.Errorf("%v, asked %v", got, s.Asked())
	}
}

// A domain with letters of any kind is asked for as DNS writes it.
func TestTargetsIDN(t *testing.T) {
	s := newNames(t)
	s.SRV("xmpp-client", "xn--bcher-kva.example", "host.example", 5222, 0, 0)
	if got := places(t, at(s), config.Domain{Name: "bücher.example", TLS: config.TLSAuto}); !slices.Equal(got, []string{"host.example:5222 (STARTTLS)"}) {
		t.Error(got)
	}
}

// Within a priority, weights decide how often each comes first (RFC 2782).
func TestInOrder(t *testing.T) {
	first := map[string]int{}
	for range 4000 {
		out := inOrder([]Target{{Host: "rare", weight: 1}, {Host: "never", priority: 1, weight: 60000}, {Host: "often", weight: 3}, {Host: "zero"}})
		if len(out) != 4 || out[3].Host != "never" {
			t.Fatal(out)
		}
		first[out[0].Host]++
	}
	// 1/5, 3/5 and 1/5 would be for weights 1, 3 and 1; a weight of 0 is drawn with 1 in 5 here.
	if first["often"] < 2*first["rare"] || first["zero"] == 0 || first["rare"] == 0 {
		t.Errorf("%v", first)
	}
	if out := inOrder(nil); len(out) != 0 {
		t.Error(out)
	}
}

// The next place is tried where one does not answer, and the reason of the last is told.
func TestReachGoesOn(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	port := func(l net.Listener) uint16 { return uint16(l.Addr().(*net.TCPAddr).Port) }
	s := newNames(t)
	s.SRV("xmpp-client", "example.org", "nobody.example", 5222, 1, 0) // no such host
	s.SRV("xmpp-client", "example.org", "a.example", port(closed), 2, 0)
	s.SRV("xmpp-client", "example.org", "b.example", port(l), 3, 0)
	s.Host("a.example", "127.0.0.1")
	s.Host("b.example", "127.0.0.1")
	var used []string
	use := func(cause causes.Cause) func(net.Conn, Target) *causes.Failure {
		return func(c net.Conn, x Target) *causes.Failure {
			used = append(used, x.Host)
			c.Close()
			if cause == "" {
				return nil
			}
			return causes.New(cause, nil, "no")
		}
	}
	d := config.Domain{Name: "example.org", TLS: config.TLSAuto}
	if f := at(s).reach(t.Context(), d, "", use("")); f != nil || fmt.Sprint(used) != "[b.example]" {
		t.Errorf("%v %v", f, used)
	}
	s.SRV("xmpp-client", "example.org", "c.example", port(l), 4, 0)
	s.Host("c.example", "127.0.0.1")
	for cause, want := range map[causes.Cause]string{causes.FailTLS: "[b.example c.example]", causes.FailTCP: "[b.example c.example]", causes.FailPin: "[b.example]", causes.FailCertificate: "[b.example]", causes.FailStripped: "[b.example]"} {
		used = nil
		if f := at(s).reach(t.Context(), d, "", use(cause)); f == nil || f.Cause != cause || fmt.Sprint(used) != want {
			t.Errorf("%s: %v %v, want %s", cause, f, used, want)
		}
	}
}

// Of a host's two kinds of address, one that hangs does not keep the other waiting (RFC 8305).
func TestReachRaces(t *testing.T) {
	l6, err := silentListener("::1")
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	defer l6()
	l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(silentPort))
	if err != nil {
		t.Skipf("the port is taken on IPv4: %v", err)
	}
	defer l.Close()
	s := newNames(t)
	s.SRV("xmpp-client", "example.org", "both.example", uint16(silentPort), 0, 0)
	s.Host("both.example", "::1", "127.0.0.1")
	ctx, cancel := context.WithTimeout(t.Context(), dialLimit/2) // waiting for the one that hangs would take longer
	defer cancel()
	var over string
	f := at(s).reach(ctx, config.Domain{Name: "example.org", TLS: config.TLSAuto}, "", func(c net.Conn, _ Target) *causes.Failure {
		over = c.RemoteAddr().String()
		c.Close()
		return nil
	})
	if f != nil || over != l.Addr().String() {
		t.Errorf("%v, over %q", f, over)
	}
}

// Where a server sends its clients (RFC 6120 section 4.9.3.19).
func TestElsewhere(t *testing.T) {
	for text, want := range map[string]string{
		"other.example": "other.example:5222 (STARTTLS)", "other.example:9999": "other.example:9999 (STARTTLS)", "[2001:db8::1]:5223": "[2001:db8::1]:5223 (direct TLS)",
		"[::1]": "[::1]:5222 (STARTTLS)", "192.0.2.1:5222": "192.0.2.1:5222 (STARTTLS)", " other.example ": "other.example:5222 (STARTTLS)",
		"": "", "other.example:0": "", "other.example:70000": "", "a b": "", "evil/../x": "", "user@host": "", "-x": "", "x\x00": "", "::1": "",
	} {
		got := ""
		if m := parseElsewhere(text); m != nil {
			got = m.String()
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
