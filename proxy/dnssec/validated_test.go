package dnssec

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"otrproxy/test/dns"
)

func TestResolvConf(t *testing.T) {
	for _, c := range []struct {
		text     string
		servers  string
		usable   bool
		timeout  time.Duration
		attempts int
	}{
		{"", "127.0.0.1:53", true, 5 * time.Second, 2},
		{"nameserver 127.0.0.53\noptions edns0\n", "127.0.0.53:53", true, 5 * time.Second, 2},
		{"nameserver ::1", "[::1]:53", true, 5 * time.Second, 2},
		{"nameserver ::ffff:127.0.0.1", "[::ffff:127.0.0.1]:53", true, 5 * time.Second, 2},
		{"nameserver 192.0.2.1\n", "192.0.2.1:53", false, 5 * time.Second, 2},
		{"nameserver 192.0.2.1\n# options trust-ad\n;options trust-ad\noptions # trust-ad\noptions trust-ads no-trust-ad\n", "192.0.2.1:53", false, 5 * time.Second, 2},
		{"nameserver 192.0.2.1\nnameserver 127.0.0.1\n", "127.0.0.1:53", true, 5 * time.Second, 2},
		{"nameserver 192.0.2.1\r\nnameserver 127.0.0.1\r\noptions trust-ad\r\n", "192.0.2.1:53 127.0.0.1:53", true, 5 * time.Second, 2},
		{"nameserver fe80::1%eth0\noptions timeout:2 attempts:3 trust-ad", "[fe80::1%eth0]:53", true, 2 * time.Second, 3},
		{"options timeout:0 attempts:99\nnameserver nonsense\nnameserver\nnameserver 127.0.0.1", "127.0.0.1:53", true, time.Second, 5},
		{"nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 127.0.0.1", "192.0.2.1:53 192.0.2.2:53 192.0.2.3:53", false, 5 * time.Second, 2},
	} {
		v := parseResolvConf(c.text)
		if got := strings.Join(v.servers, " "); got != c.servers || (v.Usable() == nil) != c.usable || v.timeout != c.timeout || v.attempts != c.attempts {
			t.Errorf("%q: %+v, %v", c.text, v, v.Usable())
		}
	}
	if v := System(); v.err == nil && len(v.servers) == 0 {
		t.Errorf("%+v", v)
	}
	v := &Resolver{err: errors.New("unreadable")}
	if _, err := v.LookupTLSA(t.Context(), "example.org", 5222); err == nil || v.Usable() == nil {
		t.Error("a resolver that is not known is used")
	}
	if _, _, err := v.SecureSRV(t.Context(), "xmpp-client", "example.org"); err == nil {
		t.Error("a resolver that is not known is used")
	}
	if _, _, err := new(Resolver).SecureSRV(t.Context(), "xmpp-client", "example.org"); err == nil {
		t.Error("there is no resolver at all")
	}
}

// daneDNS is a DNS server with a little of everything, and a resolver that trusts it.
func daneDNS(t *testing.T) (*dns.Server, *Resolver) {
	s, err := dns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.SRV("xmpp-client", "example.org", "XMPP.example.com", 5222, 10, 5)
	s.SRV("xmpp-client", "example.org", "b.example.com", 443, 20, 0)
	s.SRV("xmpps-client", "example.org", ".", 0, 0, 0)
	s.Host("xmpp.example.com", "192.0.2.1")
	s.TLSA("xmpp.example.com", 5222, 3, 1, 1, make([]byte, 32))
	s.TLSA("xmpp.example.com", 5222, 2, 0, 2, make([]byte, 64))
	v := New(true, s.Addr())
	v.attempts = 1
	return s, v
}

func TestDANELookups(t *testing.T) {
	s, v := daneDNS(t)
	for _, cut := range []bool{false, true} {
		s.Truncate(cut)
		s.Forget()
		srv, secure, err := v.SecureSRV(t.Context(), "xmpp-client", "EXAMPLE.org")
		if err != nil || !secure || len(srv) != 2 || *srv[0] != (net.SRV{Target: "xmpp.example.com.", Port: 5222, Priority: 10, Weight: 5}) || srv[1].Port != 443 {
			t.Fatal(srv, secure, err)
		}
		records, err := v.LookupTLSA(t.Context(), srv[0].Target, 5222)
		if err != nil || len(records) != 2 || records[0].String() != "3 1 1" || len(records[0].Data) != 32 || records[1].String() != "2 0 2" {
			t.Fatal(records, err)
		}
		asked := s.Asked()
		if n := len(asked); n != 2 && !cut || n != 4 && cut || asked[n-1].TCP != cut || asked[n-1].Name != "_5222._tcp.xmpp.example.com" || asked[n-1].Type != typeTLSA {
			t.Fatal(asked)
		}
		for _, q := range asked {
			if !q.DO || !q.Header.AuthenticData || !q.Header.RecursionDesired || q.Header.CheckingDisabled {
				t.Errorf("%+v", q)
			}
		}
	}
	s.Truncate(false)
	srv, secure, err := v.SecureSRV(t.Context(), "xmpps-client", "example.org")
	if err != nil || !secure || len(srv) != 1 || srv[0].Target != "." {
		t.Error("no service:", srv, secure, err)
	}
	for _, name := range []string{"example.net", "org"} { // NXDOMAIN, NODATA
		if srv, secure, err := v.SecureSRV(t.Context(), "xmpp-client", name); err != nil || !secure || srv != nil {
			t.Error(name, srv, secure, err)
		}
		if records, err := v.LookupTLSA(t.Context(), name, 5222); err != nil || records != nil {
			t.Error(name, records, err)
		}
	}
	for host, want := range map[string]bool{"xmpp.example.com": true, "b.example.com": false, "com": false} {
		if secure, err := v.SecureHost(t.Context(), host); err != nil || secure != want {
			t.Error(host, secure, err)
		}
	}
	for _, bad := range []string{strings.Repeat("a", 64) + ".org", strings.Repeat("a.", 130), "a..b"} {
		if _, err := v.LookupTLSA(t.Context(), bad, 5222); err == nil || !strings.Contains(err.Error(), "no name in DNS") {
			t.Error(bad, err)
		}
	}
}

// Without the AD bit nothing is secure, also not that there is nothing.
func TestDANEInsecure(t *testing.T) {
	s, v := daneDNS(t)
	s.Secure(false)
	for _, domain := range []string{"example.org", "example.net"} {
		if srv, secure, err := v.SecureSRV(t.Context(), "xmpp-client", domain); err != nil || secure || (srv != nil) != (domain == "example.org") {
			t.Error(srv, secure, err)
		}
	}
	for _, host := range []string{"xmpp.example.com", "example.net"} {
		if records, err := v.LookupTLSA(t.Context(), host, 5222); err == nil || records != nil || !strings.Contains(err.Error(), "not secure") {
			t.Error(records, err)
		}
		if secure, err := v.SecureHost(t.Context(), host); err != nil || secure {
			t.Error(host, secure, err)
		}
	}
	// A resolver elsewhere may say what it likes.
	s.Secure(true)
	s.Forget()
	v.trusted = false
	if _, err := v.LookupTLSA(t.Context(), "xmpp.example.com", 5222); err == nil || !strings.Contains(err.Error(), "trust-ad") || len(s.Asked()) != 0 {
		t.Error(err, s.Asked())
	}
	if srv, secure, err := v.SecureSRV(t.Context(), "xmpp-client", "example.org"); err != nil || secure || len(srv) != 2 {
		t.Error(srv, secure, err)
	}
	if secure, err := v.SecureHost(t.Context(), "xmpp.example.com"); err != nil || secure {
		t.Error(secure, err)
	}
}

func TestDANEAliases(t *testing.T) {
	s, v := daneDNS(t)
	s.Alias("_5222._tcp.alias.example.com", "_5222._tcp.XMPP.example.com")
	s.Alias("_5222._tcp.alias2.example.com", "_5222._tcp.alias.example.com")
	s.Alias("_5222._tcp.nowhere.example.com", "nothing.example.com")
	s.Alias("_5222._tcp.loop.example.com", "_5222._tcp.loop.example.com")
	for host, want := range map[string]int{"alias.example.com": 2, "alias2.example.com": 2, "nowhere.example.com": 0, "loop.example.com": 0} {
		if records, err := v.LookupTLSA(t.Context(), host, 5222); err != nil || len(records) != want {
			t.Error(host, records, err)
		}
	}
	s.Secure(false, "_5222._tcp.alias.example.com") // the way is part of the answer
	if _, err := v.LookupTLSA(t.Context(), "alias2.example.com", 5222); err == nil {
		t.Error("an insecure alias leads to a secure record")
	}
}

func TestDANEFailures(t *testing.T) {
	s, v := daneDNS(t)
	const name = "_5222._tcp.xmpp.example.com"
	for code, says := range map[dnsmessage.RCode]string{dnsmessage.RCodeServerFailure: "SERVFAIL", dnsmessage.RCodeRefused: "code 5"} {
		s.Fail(name, code)
		if records, err := v.LookupTLSA(t.Context(), "xmpp.example.com", 5222); err == nil || records != nil || !strings.Contains(err.Error(), says) {
			t.Error(records, err)
		}
	}
	s.Fail("_xmpp-client._tcp.example.org", dnsmessage.RCodeServerFailure)
	if srv, secure, err := v.SecureSRV(t.Context(), "xmpp-client", "example.org"); err == nil || secure || srv != nil {
		t.Error(srv, secure, err)
	}
	s.Fail("xmpp.example.com", dnsmessage.RCodeServerFailure)
	if secure, err := v.SecureHost(t.Context(), "xmpp.example.com"); err == nil || secure {
		t.Error(secure, err)
	}

	// The next server may know, and one that does not run is not waited for.
	second, _ := daneDNS(t)
	gone, _ := daneDNS(t)
	gone.Close()
	v.servers = []string{gone.Addr(), s.Addr(), second.Addr()}
	if records, err := v.LookupTLSA(t.Context(), "xmpp.example.com", 5222); err != nil || len(records) != 2 {
		t.Error(records, err)
	}
	// All of them are asked as often as resolv.conf says.
	v.servers, v.attempts = []string{s.Addr()}, 3
	s.Forget()
	s.Fail(name, dnsmessage.RCodeServerFailure)
	if _, err := v.LookupTLSA(t.Context(), "xmpp.example.com", 5222); err == nil || len(s.Asked()) != 3 {
		t.Error(err, s.Asked())
	}
}

// More records than anybody needs, and such that say nothing.
func TestDANEOddRecords(t *testing.T) {
	s, v := daneDNS(t)
	for i := range maxTLSA + 1 {
		s.TLSA("many.example.com", 5222, 3, 1, 1, bytes.Repeat([]byte{byte(i)}, 32))
	}
	s.Truncate(true)
	if records, err := v.LookupTLSA(t.Context(), "many.example.com", 5222); err == nil || records != nil || !strings.Contains(err.Error(), "too many") {
		t.Error(len(records), err)
	}
	s.Truncate(false)
	s.TLSA("short.example.com", 5222, 3, 1, 1, nil)
	if records, err := v.LookupTLSA(t.Context(), "short.example.com", 5222); err == nil || records != nil {
		t.Error(records, err)
	}
	s.TLSA("short.example.com", 5222, 3, 1, 1, make([]byte, 32))
	if records, err := v.LookupTLSA(t.Context(), "short.example.com", 5222); err != nil || len(records) != 1 {
		t.Error(records, err)
	}
	s.SRV("xmpp-client", "odd.example.org", "a b\n.example.org", 1, 0, 0)
	if srv, secure, err := v.SecureSRV(t.Context(), "xmpp-client", "odd.example.org"); err == nil || secure || srv != nil {
		t.Error(srv, secure, err)
	}
	s.SRV("xmpp-client", "odd.example.org", "a.example.org", 2, 0, 0)
	if srv, secure, err := v.SecureSRV(t.Context(), "xmpp-client", "odd.example.org"); err != nil || !secure || len(srv) != 1 || srv[0].Port != 2 {
		t.Error(srv, secure, err)
	}
}

// forgeries are answers that are none, though the AD bit is set and a record is in them.
func forgeries(good dnsmessage.Message) map[string]dnsmessage.Message {
	change := func(f func(*dnsmessage.Message)) dnsmessage.Message {
		m := good
		m.Questions = slices.Clone(good.Questions)
		f(&m)
		return m
	}
	return map[string]dnsmessage.Message{
		"id":           change(func(m *dnsmessage.Message) { m.ID++ }),
		"a question":   change(func(m *dnsmessage.Message) { m.Response = false }),
		"opcode":       change(func(m *dnsmessage.Message) { m.OpCode = 4 }),
		"name":         change(func(m *dnsmessage.Message) { m.Questions[0].Name = dnsmessage.MustNewName("example.net.") }),
		"type":         change(func(m *dnsmessage.Message) { m.Questions[0].Type = dnsmessage.TypeA }),
		"class":        change(func(m *dnsmessage.Message) { m.Questions[0].Class = dnsmessage.ClassCHAOS }),
		"no question":  change(func(m *dnsmessage.Message) { m.Questions = nil }),
		"two of them":  change(func(m *dnsmessage.Message) { m.Questions = append(m.Questions, m.Questions[0]) }),
		"cut, with id": change(func(m *dnsmessage.Message) { m.ID--; m.Truncated = true }),
	}
}

func TestDANESpoofed(t *testing.T) {
	s, v := daneDNS(t)
	v.timeout = time.Minute
	evil := TLSA{3, 1, 1, bytes.Repeat([]byte{1}, 32)}
	forged := func(reply dnsmessage.Message) dnsmessage.Message {
		reply.AuthenticData = true
		reply.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: reply.Questions[0].Name, Class: dnsmessage.ClassINET},
			Body:   &dnsmessage.UnknownResource{Type: typeTLSA, Data: append([]byte{3, 1, 1}, evil.Data...)},
		}}
		return reply
	}
	// They come first, and are not looked at.
	s.Tamper(func(_, reply dnsmessage.Message, tcp bool) (out []dnsmessage.Message) {
		for _, m := range forgeries(forged(reply)) {
			out = append(out, m)
		}
		return append(out, reply)
	})
	records, err := v.LookupTLSA(t.Context(), "xmpp.example.com", 5222)
	if err != nil || len(records) != 2 || bytes.Equal(records[0].Data, evil.Data) {
		t.Fatal(records, err)
	}
	// Nothing else comes: over TCP, nothing is waited for then.
	s.Truncate(true)
	for name := range forgeries(dnsmessage.Message{Questions: make([]dnsmessage.Question, 1)}) {
		s.Tamper(func(_, reply dnsmessage.Message, tcp bool) []dnsmessage.Message {
			if tcp {
				return []dnsmessage.Message{forgeries(forged(reply))[name]}
			}
			return []dnsmessage.Message{reply}
		})
		if records, err := v.LookupTLSA(t.Context(), "xmpp.example.com", 5222); !errors.Is(err, errStray) || records != nil {
			t.Error(name, records, err)
		}
	}
	// Somebody tries ids: the question is given up, the next has another.
	s.Truncate(false)
	var tries atomic.Int32
	s.Tamper(func(_, reply dnsmessage.Message, tcp bool) (out []dnsmessage.Message) {
		if tries.Add(1) > 1 {
			return []dnsmessage.Message{reply}
		}
		for range maxStray {
			out = append(out, forgeries(forged(reply))["id"])
		}
		return out
	})
	v.attempts = 2
	if records, err := v.LookupTLSA(t.Context(), "xmpp.example.com", 5222); err != nil || len(records) != 2 || tries.Load() != 2 {
		t.Error(records, err, tries.Load())
	}
}

// Records that were not asked for do not count, wherever they stand.
func TestDANEStrangers(t *testing.T) {
	s, v := daneDNS(t)
	s.Tamper(func(_, reply dnsmessage.Message, tcp bool) []dnsmessage.Message {
		n := dnsmessage.MustNewName
		body := &dnsmessage.UnknownResource{Type: typeTLSA, Data: append([]byte{3, 1, 1}, make([]byte, 32)...)}
		at := func(name dnsmessage.Name, class dnsmessage.Class, body dnsmessage.ResourceBody) dnsmessage.Resource {
			return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: name, Class: class}, Body: body}
		}
		name := reply.Questions[0].Name
		reply.Answers = []dnsmessage.Resource{
			at(n("_5222._tcp.other.example.com."), dnsmessage.ClassINET, body),
			at(n("_5222._tcp.xmpp.example.com.evil."), dnsmessage.ClassINET, body),
			at(n("_5222._tcp.example.\u212aom."), dnsmessage.ClassINET, body), // Unicode folds it to k
			at(name, dnsmessage.ClassCHAOS, body),
			at(name, dnsmessage.ClassINET, &dnsmessage.UnknownResource{Type: 46, Data: body.Data}),
		}
		reply.Authorities = []dnsmessage.Resource{at(name, dnsmessage.ClassINET, body)}
		reply.Additionals = append(reply.Additionals, at(name, dnsmessage.ClassINET, body))
		return []dnsmessage.Message{reply}
	})
	for _, host := range []string{"xmpp.example.com", "example.kom"} {
		if records, err := v.LookupTLSA(t.Context(), host, 5222); host == "xmpp.example.com" && (err != nil || records != nil) || host == "example.kom" && records != nil {
			t.Error(records, err)
		}
	}
	s.Tamper(func(_, reply dnsmessage.Message, tcp bool) []dnsmessage.Message {
		reply.RCode = dnsmessage.RCodeNameError
		return []dnsmessage.Message{reply}
	})
	if records, err := v.LookupTLSA(t.Context(), "xmpp.example.com", 5222); err != nil || records != nil {
		t.Error("records of a name that does not exist:", records, err)
	}
	// The upper bits of the code stand elsewhere: BADVERS is no "there is nothing".
	s.Tamper(func(_, reply dnsmessage.Message, tcp bool) []dnsmessage.Message {
		reply.Answers = nil
		if err := reply.Additionals[0].Header.SetEDNS0(maxDatagram, 16, true); err != nil {
			t.Error(err)
		}
		return []dnsmessage.Message{reply}
	})
	if _, err := v.LookupTLSA(t.Context(), "xmpp.example.com", 5222); err == nil || !strings.Contains(err.Error(), "code 16") {
		t.Error(err)
	}
	s.Tamper(func(_, reply dnsmessage.Message, tcp bool) []dnsmessage.Message {
		reply.Truncated = true
		return []dnsmessage.Message{reply}
	})
	if records, err := v.LookupTLSA(t.Context(), "xmpp.example.com", 5222); err == nil || records != nil {
		t.Error(records, err)
	}
}

// A server that says nothing is left after the time for it, and at once when nobody
// wants to know any more.
func TestDANESilence(t *testing.T) {
	s, v := daneDNS(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.Tamper(func(_, _ dnsmessage.Message, tcp bool) []dnsmessage.Message { cancel(); return nil })
	v.timeout, v.attempts = time.Hour, 5
	if _, err := v.LookupTLSA(ctx, "xmpp.example.com", 5222); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	second, _ := daneDNS(t)
	v.timeout, v.servers = 50*time.Millisecond, append(v.servers, second.Addr())
	if records, err := v.LookupTLSA(t.Context(), "xmpp.example.com", 5222); err != nil || len(records) != 2 {
		t.Error(records, err)
	}
	v.servers, v.attempts = v.servers[:1], 1
	if records, err := v.LookupTLSA(t.Context(), "xmpp.example.com", 5222); err == nil || records != nil {
		t.Error(records, err)
	}
	s.Tamper(func(_, reply dnsmessage.Message, tcp bool) []dnsmessage.Message { // nothing over TCP
		if tcp {
			return nil
		}
		return []dnsmessage.Message{reply}
	})
	s.Truncate(true)
	if records, err := v.LookupTLSA(t.Context(), "xmpp.example.com", 5222); err == nil || records != nil {
		t.Error(records, err)
	}
}

// FuzzDNSAnswer: whatever comes, an answer is one to the question, and its records are
// of the kind asked for.
func FuzzDNSAnswer(f *testing.F) {
	const id = 0x1234
	kinds := []dnsmessage.Type{typeTLSA, dnsmessage.TypeSRV, dnsmessage.TypeA, dnsmessage.TypeCNAME}
	question := func(kind byte) dnsmessage.Question {
		return dnsmessage.Question{Name: dnsmessage.MustNewName("_5222._tcp.example.org."), Type: kinds[int(kind)%len(kinds)], Class: dnsmessage.ClassINET}
	}
	for kind := range byte(len(kinds)) {
		q := question(kind)
		target := dnsmessage.MustNewName("a.example.org.")
		h := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET}
		m := dnsmessage.Message{
			Header: dnsmessage.Header{ID: id, Response: true, AuthenticData: true}, Questions: []dnsmessage.Question{q},
			Answers: []dnsmessage.Resource{
				{Header: h, Body: &dnsmessage.UnknownResource{Type: typeTLSA, Data: []byte{3, 1, 1, 0}}},
				{Header: h, Body: &dnsmessage.SRVResource{Target: target}},
				{Header: h, Body: &dnsmessage.AResource{}},
				{Header: h, Body: &dnsmessage.CNAMEResource{CNAME: target}},
			},
		}
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(kind, b)
		m.Truncated = true
		if b, err = m.Pack(); err != nil {
			f.Fatal(err)
		}
		f.Add(kind, b)
		if b, err = packQuery(id, q); err != nil {
			f.Fatal(err)
		}
		f.Add(kind, b)
	}
	f.Fuzz(func(t *testing.T, kind byte, msg []byte) {
		q := question(kind)
		a, err := parseAnswer(msg, id, q)
		if (a == nil) == (err == nil) {
			t.Fatal(a, err)
		}
		if !errors.Is(err, errStray) {
			if len(msg) < 12+len("._5222._tcp.example.org.")+4 || msg[0] != id>>8 || msg[1] != id&0xff || msg[2]&0xf8 != 0x80 || msg[4] != 0 || msg[5] != 1 {
				t.Fatalf("%x is no answer", msg)
			}
			if _, err := parseAnswer(msg, id+1, q); !errors.Is(err, errStray) {
				t.Fatal(err)
			}
		}
		if err != nil {
			return
		}
		if a.secure && (msg[3]&0x20 == 0 || a.cut) {
			t.Fatal("secure without the AD bit")
		}
		if len(a.records) > 0 && (a.cut || a.code != dnsmessage.RCodeSuccess) {
			t.Fatal("records in a failure")
		}
		for _, r := range a.records {
			if r.kind != q.Type || (r.srv != nil) != (q.Type == dnsmessage.TypeSRV) || len(r.data) > len(msg) {
				t.Fatalf("%+v", r)
			}
		}
	})
}

// A forwarder that only passes on the AD bit of another resolver does not validate: Docker's, and systemd-resolved's second one (systemd-resolved.service(8)).
func TestResolvConfForwarders(t *testing.T) {
	for text, usable := range map[string]bool{
		"nameserver 127.0.0.11\noptions ndots:0":          false,
		"nameserver 127.0.0.54":                           false,
		"nameserver ::ffff:127.0.0.54":                    false,
		"nameserver 127.0.0.11\nnameserver 127.0.0.1":     true,
		"nameserver 127.0.0.11\noptions trust-ad ndots:0": true,
	} {
		v := parseResolvConf(text)
		if (v.Usable() == nil) != usable {
			t.Errorf("%q: %v, %v", text, v.servers, v.Usable())
		}
		if usable && !strings.Contains(text, "trust-ad") && len(v.servers) != 1 {
			t.Errorf("%q: %v", text, v.servers)
		}
	}
}
