package dns

import (
	"errors"
	"net"
	"slices"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

func start(t *testing.T) *Server {
	s, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// What Go's own resolver reads is what was set, over UDP and over TCP.
func TestResolver(t *testing.T) {
	s := start(t)
	s.SRV("xmpp-client", "Example.org", "a.example.org", 5222, 10, 5)
	s.Host("a.example.org", "192.0.2.1", "2001:db8::1")
	s.Alias("b.example.org", "a.example.org")
	r := s.Resolver()
	for _, cut := range []bool{false, true} {
		s.Truncate(cut)
		_, srv, err := r.LookupSRV(t.Context(), "xmpp-client", "tcp", "example.org")
		if err != nil || len(srv) != 1 || *srv[0] != (net.SRV{Target: "a.example.org.", Port: 5222, Priority: 10, Weight: 5}) {
			t.Fatal(srv, err)
		}
		if addrs, err := r.LookupHost(t.Context(), "b.example.org."); err != nil || len(addrs) != 2 {
			t.Fatal(addrs, err)
		}
	}
	asked := s.Asked()
	if asked[0].Name != "_xmpp-client._tcp.example.org" || asked[0].Type != dnsmessage.TypeSRV || !slices.ContainsFunc(asked, func(q Question) bool { return q.TCP }) {
		t.Error(asked)
	}
}

func TestFailures(t *testing.T) {
	s := start(t)
	s.Host("a.example.org", "192.0.2.1")
	r := s.Resolver()
	var dns *net.DNSError
	if _, err := r.LookupHost(t.Context(), "none.example.org."); !errors.As(err, &dns) || !dns.IsNotFound {
		t.Error(err)
	}
	s.Fail("a.example.org", dnsmessage.RCodeServerFailure)
	if _, err := r.LookupHost(t.Context(), "a.example.org."); !errors.As(err, &dns) || !dns.IsTemporary {
		t.Error(err)
	}
}
