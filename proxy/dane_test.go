package proxy

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"otrproxy/test/dns"
)

var daneNow = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

// A daneCert is a certificate with its key; the same name has the same key each time.
type daneCert struct {
	*x509.Certificate
	key ed25519.PrivateKey
}

func makeDaneCert(t testing.TB, issuer *daneCert, cn string, change func(*x509.Certificate)) *daneCert {
	seed := sha256.Sum256([]byte(cn))
	c := &daneCert{key: ed25519.NewKeyFromSeed(seed[:])}
	tm := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(seed[:8]), Subject: pkix.Name{CommonName: cn},
		NotBefore: daneNow.AddDate(-1, 0, 0), NotAfter: daneNow.AddDate(1, 0, 0),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(tm)
	}
	if issuer == nil {
		issuer = &daneCert{tm, c.key}
	}
	der, err := x509.CreateCertificate(rand.Reader, tm, issuer.Certificate, c.key.Public(), issuer.key)
	if err != nil {
		t.Fatal(err)
	}
	if c.Certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c
}

func daneCA(c *x509.Certificate) {
	c.IsCA, c.KeyUsage, c.ExtKeyUsage = true, x509.KeyUsageCertSign, nil
}

func daneFor(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames = names }
}

// A daneWorld is a root, what it signed, and a chain of it.
type daneWorld struct {
	root, inter, leaf *daneCert
	roots             *x509.CertPool
}

func makeDaneWorld(t testing.TB) *daneWorld {
	w := &daneWorld{root: makeDaneCert(t, nil, "root", daneCA), roots: x509.NewCertPool()}
	w.inter = makeDaneCert(t, w.root, "intermediate", daneCA)
	w.leaf = makeDaneCert(t, w.inter, "leaf", daneFor("example.org"))
	w.roots.AddCert(w.root.Certificate)
	return w
}

func chainOf(certs ...*daneCert) (out []*x509.Certificate) {
	for _, c := range certs {
		out = append(out, c.Certificate)
	}
	return out
}

func tlsaOf(c *daneCert, usage, selector, matching byte) tlsaRecord {
	b := c.Raw
	if selector == 1 {
		b = c.RawSubjectPublicKeyInfo
	}
	switch matching {
	case 1:
		sum := sha256.Sum256(b)
		b = sum[:]
	case 2:
		sum := sha512.Sum512(b)
		b = sum[:]
	}
	return tlsaRecord{usage, selector, matching, b}
}

// each calls f for every selector and matching type.
func each(f func(selector, matching byte)) {
	for selector := range byte(2) {
		for matching := range byte(3) {
			f(selector, matching)
		}
	}
}

func TestDANEMatches(t *testing.T) {
	w := makeDaneWorld(t)
	expired := makeDaneCert(t, w.inter, "expired", func(c *x509.Certificate) {
		c.DNSNames, c.NotAfter = []string{"example.org"}, daneNow.Add(-time.Hour)
	})
	early := makeDaneCert(t, w.inter, "early", func(c *x509.Certificate) {
		c.DNSNames, c.NotBefore = []string{"example.org"}, daneNow.Add(time.Hour)
	})
	oldInter := makeDaneCert(t, w.root, "old intermediate", func(c *x509.Certificate) { daneCA(c); c.NotAfter = daneNow.Add(-time.Hour) })
	underOld := makeDaneCert(t, oldInter, "under old", daneFor("example.org"))
	elsewhere := makeDaneCert(t, w.inter, "elsewhere", daneFor("example.net"))
	host := makeDaneCert(t, w.inter, "host", daneFor("xmpp.example.com"))
	client := makeDaneCert(t, w.inter, "client", func(c *x509.Certificate) {
		c.DNSNames, c.ExtKeyUsage = []string{"example.org"}, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})
	other := makeDaneCert(t, nil, "other root", daneCA)
	evil := makeDaneCert(t, other, "evil", daneFor("example.org"))
	underLeaf := makeDaneCert(t, w.leaf, "under leaf", daneFor("example.org"))
	alone := makeDaneCert(t, nil, "alone", daneFor("example.org"))
	xmpp := makeDaneCert(t, w.inter, "xmpp", func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: oidSAN, Value: xmppAddrSAN(t, "example.org")}}
	})
	names := []string{"example.org", "xmpp.example.com."}

	for _, c := range []struct {
		name  string
		chain []*x509.Certificate
		about *daneCert
		usage byte
		holds string // "": for every selector and matching type; else what the error says
		full  bool   // it does hold where the record is a whole certificate
	}{
		{"root", chainOf(w.leaf, w.inter), w.root, usagePKIXTA, "", true},
		{"intermediate", chainOf(w.leaf, w.inter), w.inter, usagePKIXTA, "", true},
		{"the leaf is no CA", chainOf(w.leaf, w.inter), w.leaf, usagePKIXTA, "matches none", false},
		{"another CA", chainOf(w.leaf, w.inter), other, usagePKIXTA, "matches none", false},
		{"a CA that is not trusted", chainOf(evil, other), other, usagePKIXTA, "unknown authority", false},
		{"a CA that is only shown", chainOf(w.leaf, w.inter, other), other, usagePKIXTA, "matches none", false},
		{"expired", chainOf(expired, w.inter), w.root, usagePKIXTA, "expired", false},
		{"other name", chainOf(elsewhere, w.inter), w.root, usagePKIXTA, "not example.org", false},
		{"intermediate missing", chainOf(w.leaf), w.root, usagePKIXTA, "unknown authority", false},

		{"leaf", chainOf(w.leaf, w.inter), w.leaf, usagePKIXEE, "", true},
		{"the CA is no leaf", chainOf(w.leaf, w.inter), w.inter, usagePKIXEE, "matches none", false},
		{"expired", chainOf(expired, w.inter), expired, usagePKIXEE, "expired", false},
		{"other name", chainOf(elsewhere, w.inter), elsewhere, usagePKIXEE, "not example.org", false},
		{"not trusted", chainOf(evil, other), evil, usagePKIXEE, "unknown authority", false},
		{"alone", chainOf(alone), alone, usagePKIXEE, "unknown authority", false},
		{"wrong", chainOf(evil, other), w.leaf, usagePKIXEE, "matches none", false},

		{"intermediate", chainOf(w.leaf, w.inter), w.inter, usageDANETA, "", true},
		{"root", chainOf(w.leaf, w.inter, w.root), w.root, usageDANETA, "", true},
		{"root not presented", chainOf(w.leaf, w.inter), w.root, usageDANETA, "matches none", true},
		{"a CA of its own", chainOf(evil, other), other, usageDANETA, "", true},
		{"a CA of its own not presented", chainOf(evil), other, usageDANETA, "matches none", true},
		{"the name of the host", chainOf(host, w.inter), w.inter, usageDANETA, "", true},
		{"xmppAddr", chainOf(xmpp, w.inter), w.inter, usageDANETA, "", true},
		{"expired", chainOf(expired, w.inter), w.inter, usageDANETA, "expired", false},
		{"not yet valid", chainOf(early, w.inter), w.inter, usageDANETA, "not yet valid", false},
		{"the anchor is expired", chainOf(underOld, oldInter), oldInter, usageDANETA, "expired", false},
		{"other name", chainOf(elsewhere, w.inter), w.inter, usageDANETA, "not example.org", false},
		{"for clients", chainOf(client, w.inter), w.inter, usageDANETA, "key usage", false},
		{"presented, but not the issuer", chainOf(evil, w.inter), w.inter, usageDANETA, "unknown authority", false},
		{"no CA", chainOf(underLeaf, w.leaf), w.leaf, usageDANETA, "unknown authority", false},
		{"the leaf", chainOf(w.leaf, w.inter), w.leaf, usageDANETA, "matches none", false},
		{"the leaf twice", chainOf(alone, alone), alone, usageDANETA, "matches none", false},

		{"leaf", chainOf(w.leaf, w.inter), w.leaf, usageDANEEE, "", true},
		{"alone", chainOf(alone), alone, usageDANEEE, "", true},
		{"expired", chainOf(expired), expired, usageDANEEE, "", true},
		{"not yet valid", chainOf(early), early, usageDANEEE, "", true},
		{"other name", chainOf(elsewhere), elsewhere, usageDANEEE, "", true},
		{"for clients", chainOf(client), client, usageDANEEE, "", true},
		{"the CA is no leaf", chainOf(w.leaf, w.inter), w.inter, usageDANEEE, "matches none", false},
		{"wrong", chainOf(evil), w.leaf, usageDANEEE, "matches none", false},
	} {
		t.Run(fmt.Sprintf("%d/%s", c.usage, c.name), func(t *testing.T) {
			each(func(selector, matching byte) {
				r := tlsaOf(c.about, c.usage, selector, matching)
				err := daneMatches([]tlsaRecord{r}, c.chain, names, w.roots, daneNow)
				if holds := c.holds == "" || c.full && selector == 0 && matching == 0; holds {
					if err != nil {
						t.Errorf("%s: %v", r, err)
					}
				} else if err == nil {
					t.Errorf("%s: holds", r)
				} else if selector+matching > 0 && !strings.Contains(err.Error(), c.holds) {
					t.Errorf("%s: %v", r, err)
				}
				if r.data = bytes.Clone(r.data); matching != 0 { // one bit of the digest
					r.data[len(r.data)-1] ^= 1
					if daneMatches([]tlsaRecord{r}, c.chain, names, w.roots, daneNow) == nil {
						t.Errorf("%s: holds with a wrong digest", r)
					}
				}
			})
		})
	}
}

func xmppAddrSAN(t *testing.T, domain string) []byte {
	type otherName struct {
		ID    asn1.ObjectIdentifier
		Value string `asn1:"explicit,tag:0,utf8"`
	}
	name, err := asn1.MarshalWithParams(otherName{oidXMPPAddr, domain}, "tag:0")
	if err != nil {
		t.Fatal(err)
	}
	san, err := asn1.Marshal([]asn1.RawValue{{FullBytes: name}})
	if err != nil {
		t.Fatal(err)
	}
	return san
}

// One record that holds is enough; those that cannot be used count for nothing.
func TestDANEMatchesOfSeveral(t *testing.T) {
	w := makeDaneWorld(t)
	other := makeDaneCert(t, nil, "other root", daneCA)
	good, wrong := tlsaOf(w.leaf, usageDANEEE, 1, 1), tlsaOf(other, usageDANEEE, 1, 1)
	sum := good.data
	unusable := []tlsaRecord{{4, 1, 1, sum}, {255, 1, 1, sum}, {3, 2, 1, sum}, {3, 255, 1, sum}, {3, 1, 3, sum}, {3, 1, 255, sum}, {3, 1, 2, sum}, {3, 1, 1, sum[:31]}, {3, 1, 1, append(bytes.Clone(sum), 0)}, {3, 0, 0, sum}, {3, 1, 0, nil}}
	for _, c := range []struct {
		records []tlsaRecord
		says    string
	}{
		{[]tlsaRecord{wrong, good}, ""},
		{append(slices.Clone(unusable), good), ""},
		{[]tlsaRecord{tlsaOf(other, usagePKIXTA, 0, 1), good}, ""},
		{nil, "no TLSA records"},
		{unusable, "none of the 11 TLSA records can be used"},
		{append(slices.Clone(unusable), wrong), "matches none of the TLSA records (3 1 1)"},
		{[]tlsaRecord{wrong, tlsaOf(other, usageDANETA, 0, 2)}, "matches none of the TLSA records (3 1 1, 2 0 2)"},
	} {
		err := daneMatches(c.records, chainOf(w.leaf, w.inter), []string{"example.org"}, w.roots, daneNow)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v, not %q", c.records, err, c.says)
		}
	}
	for _, r := range unusable {
		if err := daneMatches([]tlsaRecord{r}, chainOf(w.leaf), nil, w.roots, daneNow); err == nil || !strings.Contains(err.Error(), "none of the 1 TLSA records can be used: ") {
			t.Errorf("%s: %v", r, err)
		}
	}
	if daneMatches([]tlsaRecord{good}, nil, nil, w.roots, daneNow) == nil {
		t.Error("nothing was presented")
	}
	if err := daneMatches([]tlsaRecord{tlsaOf(w.inter, usageDANETA, 0, 1)}, chainOf(w.leaf, w.inter), []string{"", "."}, w.roots, daneNow); err == nil {
		t.Error("a certificate is for no name at all")
	}
	// What checkServer says of a chain, it can say here, too.
	var unknown x509.UnknownAuthorityError
	if err := daneMatches([]tlsaRecord{tlsaOf(w.leaf, usagePKIXEE, 1, 1)}, chainOf(w.leaf), []string{"example.org"}, w.roots, daneNow); !errors.As(err, &unknown) {
		t.Error(err)
	}
}

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
		if got := strings.Join(v.servers, " "); got != c.servers || (v.usable() == nil) != c.usable || v.timeout != c.timeout || v.attempts != c.attempts {
			t.Errorf("%q: %+v, %v", c.text, v, v.usable())
		}
	}
	if v := systemResolver(); v.err == nil && len(v.servers) == 0 {
		t.Errorf("%+v", v)
	}
	v := &validating{err: errors.New("unreadable")}
	if _, err := v.tlsa(t.Context(), "example.org", 5222); err == nil || v.usable() == nil {
		t.Error("a resolver that is not known is used")
	}
	if _, _, err := v.secureSRV(t.Context(), "xmpp-client", "example.org"); err == nil {
		t.Error("a resolver that is not known is used")
	}
	if _, _, err := new(validating).secureSRV(t.Context(), "xmpp-client", "example.org"); err == nil {
		t.Error("there is no resolver at all")
	}
}

// daneDNS is a DNS server with a little of everything, and a resolver that trusts it.
func daneDNS(t *testing.T) (*dns.Server, *validating) {
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
	v := newValidating(true, s.Addr())
	v.attempts = 1
	return s, v
}

func TestDANELookups(t *testing.T) {
	s, v := daneDNS(t)
	for _, cut := range []bool{false, true} {
		s.Truncate(cut)
		s.Forget()
		srv, secure, err := v.secureSRV(t.Context(), "xmpp-client", "EXAMPLE.org")
		if err != nil || !secure || len(srv) != 2 || *srv[0] != (net.SRV{Target: "xmpp.example.com.", Port: 5222, Priority: 10, Weight: 5}) || srv[1].Port != 443 {
			t.Fatal(srv, secure, err)
		}
		records, err := v.tlsa(t.Context(), srv[0].Target, 5222)
		if err != nil || len(records) != 2 || records[0].String() != "3 1 1" || len(records[0].data) != 32 || records[1].String() != "2 0 2" {
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
	srv, secure, err := v.secureSRV(t.Context(), "xmpps-client", "example.org")
	if err != nil || !secure || len(srv) != 1 || srv[0].Target != "." {
		t.Error("no service:", srv, secure, err)
	}
	for _, name := range []string{"example.net", "org"} { // NXDOMAIN, NODATA
		if srv, secure, err := v.secureSRV(t.Context(), "xmpp-client", name); err != nil || !secure || srv != nil {
			t.Error(name, srv, secure, err)
		}
		if records, err := v.tlsa(t.Context(), name, 5222); err != nil || records != nil {
			t.Error(name, records, err)
		}
	}
	for host, want := range map[string]bool{"xmpp.example.com": true, "b.example.com": false, "com": false} {
		if secure, err := v.secureHost(t.Context(), host); err != nil || secure != want {
			t.Error(host, secure, err)
		}
	}
	for _, bad := range []string{strings.Repeat("a", 64) + ".org", strings.Repeat("a.", 130), "a..b"} {
		if _, err := v.tlsa(t.Context(), bad, 5222); err == nil || !strings.Contains(err.Error(), "no name in DNS") {
			t.Error(bad, err)
		}
	}
}

// Without the AD bit nothing is secure, also not that there is nothing.
func TestDANEInsecure(t *testing.T) {
	s, v := daneDNS(t)
	s.Secure(false)
	for _, domain := range []string{"example.org", "example.net"} {
		if srv, secure, err := v.secureSRV(t.Context(), "xmpp-client", domain); err != nil || secure || (srv != nil) != (domain == "example.org") {
			t.Error(srv, secure, err)
		}
	}
	for _, host := range []string{"xmpp.example.com", "example.net"} {
		if records, err := v.tlsa(t.Context(), host, 5222); err == nil || records != nil || !strings.Contains(err.Error(), "not secure") {
			t.Error(records, err)
		}
		if secure, err := v.secureHost(t.Context(), host); err != nil || secure {
			t.Error(host, secure, err)
		}
	}
	// A resolver elsewhere may say what it likes.
	s.Secure(true)
	s.Forget()
	v.trusted = false
	if _, err := v.tlsa(t.Context(), "xmpp.example.com", 5222); err == nil || !strings.Contains(err.Error(), "trust-ad") || len(s.Asked()) != 0 {
		t.Error(err, s.Asked())
	}
	if srv, secure, err := v.secureSRV(t.Context(), "xmpp-client", "example.org"); err != nil || secure || len(srv) != 2 {
		t.Error(srv, secure, err)
	}
	if secure, err := v.secureHost(t.Context(), "xmpp.example.com"); err != nil || secure {
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
		if records, err := v.tlsa(t.Context(), host, 5222); err != nil || len(records) != want {
			t.Error(host, records, err)
		}
	}
	s.Secure(false, "_5222._tcp.alias.example.com") // the way is part of the answer
	if _, err := v.tlsa(t.Context(), "alias2.example.com", 5222); err == nil {
		t.Error("an insecure alias leads to a secure record")
	}
}

func TestDANEFailures(t *testing.T) {
	s, v := daneDNS(t)
	const name = "_5222._tcp.xmpp.example.com"
	for code, says := range map[dnsmessage.RCode]string{dnsmessage.RCodeServerFailure: "SERVFAIL", dnsmessage.RCodeRefused: "code 5"} {
		s.Fail(name, code)
		if records, err := v.tlsa(t.Context(), "xmpp.example.com", 5222); err == nil || records != nil || !strings.Contains(err.Error(), says) {
			t.Error(records, err)
		}
	}
	s.Fail("_xmpp-client._tcp.example.org", dnsmessage.RCodeServerFailure)
	if srv, secure, err := v.secureSRV(t.Context(), "xmpp-client", "example.org"); err == nil || secure || srv != nil {
		t.Error(srv, secure, err)
	}
	s.Fail("xmpp.example.com", dnsmessage.RCodeServerFailure)
	if secure, err := v.secureHost(t.Context(), "xmpp.example.com"); err == nil || secure {
		t.Error(secure, err)
	}

	// The next server may know, and one that does not run is not waited for.
	second, _ := daneDNS(t)
	gone, _ := daneDNS(t)
	gone.Close()
	v.servers = []string{gone.Addr(), s.Addr(), second.Addr()}
	if records, err := v.tlsa(t.Context(), "xmpp.example.com", 5222); err != nil || len(records) != 2 {
		t.Error(records, err)
	}
	// All of them are asked as often as resolv.conf says.
	v.servers, v.attempts = []string{s.Addr()}, 3
	s.Forget()
	s.Fail(name, dnsmessage.RCodeServerFailure)
	if _, err := v.tlsa(t.Context(), "xmpp.example.com", 5222); err == nil || len(s.Asked()) != 3 {
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
	if records, err := v.tlsa(t.Context(), "many.example.com", 5222); err == nil || records != nil || !strings.Contains(err.Error(), "too many") {
		t.Error(len(records), err)
	}
	s.Truncate(false)
	s.TLSA("short.example.com", 5222, 3, 1, 1, nil)
	if records, err := v.tlsa(t.Context(), "short.example.com", 5222); err == nil || records != nil {
		t.Error(records, err)
	}
	s.TLSA("short.example.com", 5222, 3, 1, 1, make([]byte, 32))
	if records, err := v.tlsa(t.Context(), "short.example.com", 5222); err != nil || len(records) != 1 {
		t.Error(records, err)
	}
	s.SRV("xmpp-client", "odd.example.org", "a b\n.example.org", 1, 0, 0)
	if srv, secure, err := v.secureSRV(t.Context(), "xmpp-client", "odd.example.org"); err == nil || secure || srv != nil {
		t.Error(srv, secure, err)
	}
	s.SRV("xmpp-client", "odd.example.org", "a.example.org", 2, 0, 0)
	if srv, secure, err := v.secureSRV(t.Context(), "xmpp-client", "odd.example.org"); err != nil || !secure || len(srv) != 1 || srv[0].Port != 2 {
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
	evil := tlsaRecord{3, 1, 1, bytes.Repeat([]byte{1}, 32)}
	forged := func(reply dnsmessage.Message) dnsmessage.Message {
		reply.AuthenticData = true
		reply.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: reply.Questions[0].Name, Class: dnsmessage.ClassINET},
			Body:   &dnsmessage.UnknownResource{Type: typeTLSA, Data: append([]byte{3, 1, 1}, evil.data...)},
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
	records, err := v.tlsa(t.Context(), "xmpp.example.com", 5222)
	if err != nil || len(records) != 2 || bytes.Equal(records[0].data, evil.data) {
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
		if records, err := v.tlsa(t.Context(), "xmpp.example.com", 5222); !errors.Is(err, errStray) || records != nil {
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
	if records, err := v.tlsa(t.Context(), "xmpp.example.com", 5222); err != nil || len(records) != 2 || tries.Load() != 2 {
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
		if records, err := v.tlsa(t.Context(), host, 5222); host == "xmpp.example.com" && (err != nil || records != nil) || host == "example.kom" && records != nil {
			t.Error(records, err)
		}
	}
	s.Tamper(func(_, reply dnsmessage.Message, tcp bool) []dnsmessage.Message {
		reply.RCode = dnsmessage.RCodeNameError
		return []dnsmessage.Message{reply}
	})
	if records, err := v.tlsa(t.Context(), "xmpp.example.com", 5222); err != nil || records != nil {
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
	if _, err := v.tlsa(t.Context(), "xmpp.example.com", 5222); err == nil || !strings.Contains(err.Error(), "code 16") {
		t.Error(err)
	}
	s.Tamper(func(_, reply dnsmessage.Message, tcp bool) []dnsmessage.Message {
		reply.Truncated = true
		return []dnsmessage.Message{reply}
	})
	if records, err := v.tlsa(t.Context(), "xmpp.example.com", 5222); err == nil || records != nil {
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
	if _, err := v.tlsa(ctx, "xmpp.example.com", 5222); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	second, _ := daneDNS(t)
	v.timeout, v.servers = 50*time.Millisecond, append(v.servers, second.Addr())
	if records, err := v.tlsa(t.Context(), "xmpp.example.com", 5222); err != nil || len(records) != 2 {
		t.Error(records, err)
	}
	v.servers, v.attempts = v.servers[:1], 1
	if records, err := v.tlsa(t.Context(), "xmpp.example.com", 5222); err == nil || records != nil {
		t.Error(records, err)
	}
	s.Tamper(func(_, reply dnsmessage.Message, tcp bool) []dnsmessage.Message { // nothing over TCP
		if tcp {
			return nil
		}
		return []dnsmessage.Message{reply}
	})
	s.Truncate(true)
	if records, err := v.tlsa(t.Context(), "xmpp.example.com", 5222); err == nil || records != nil {
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

// FuzzTLSA: a record holds for a chain if and only if it is one of those that can be made
// from it.
func FuzzTLSA(f *testing.F) {
	w := makeDaneWorld(f)
	chain := chainOf(w.leaf, w.inter)
	good := map[string]bool{}
	each(func(selector, matching byte) {
		for _, r := range []tlsaRecord{
			tlsaOf(w.root, usagePKIXTA, selector, matching), tlsaOf(w.inter, usagePKIXTA, selector, matching),
			tlsaOf(w.leaf, usagePKIXEE, selector, matching),
			tlsaOf(w.inter, usageDANETA, selector, matching),
			tlsaOf(w.leaf, usageDANEEE, selector, matching),
		} {
			good[string(append([]byte{r.usage, r.selector, r.matching}, r.data...))] = true
		}
	})
	good[string(append([]byte{usageDANETA, 0, 0}, w.root.Raw...))] = true
	forged := bytes.Clone(w.inter.Raw)
	forged[len(forged)-1] ^= 1
	f.Add(append([]byte{usageDANETA, 0, 0}, forged...))
	for b := range good {
		f.Add([]byte(b))
		f.Add([]byte(b)[:3])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseTLSA(b)
		if err != nil {
			return
		}
		err = daneMatches([]tlsaRecord{r}, chain, []string{"example.org"}, w.roots, daneNow)
		if (err == nil) == good[string(b)] {
			return
		}
		// A whole certificate may be another one of the same issuer: as an anchor it is
		// believed as it is.
		if err == nil && r.usage == usageDANETA && r.selector == 0 && r.matching == 0 {
			if c, err := x509.ParseCertificate(r.data); err == nil && (w.leaf.CheckSignatureFrom(c) == nil || w.inter.CheckSignatureFrom(c) == nil) {
				return
			}
		}
		t.Errorf("%s %x: %v", r, r.data, err)
	})
}
