package upstream

import (
	"bytes"
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
	"slices"
	"strings"
	"testing"
	"time"

	"otrproxy/proxy/dnssec"
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

func tlsaOf(c *daneCert, usage, selector, matching byte) dnssec.TLSA {
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
	return dnssec.TLSA{Usage: usage, Selector: selector, Matching: matching, Data: b}
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
				err := daneMatches([]dnssec.TLSA{r}, c.chain, names, w.roots, daneNow)
				if holds := c.holds == "" || c.full && selector == 0 && matching == 0; holds {
					if err != nil {
						t.Errorf("%s: %v", r, err)
					}
				} else if err == nil {
					t.Errorf("%s: holds", r)
				} else if selector+matching > 0 && !strings.Contains(err.Error(), c.holds) {
					t.Errorf("%s: %v", r, err)
				}
				if r.Data = bytes.Clone(r.Data); matching != 0 { // one bit of the digest
					r.Data[len(r.Data)-1] ^= 1
					if daneMatches([]dnssec.TLSA{r}, c.chain, names, w.roots, daneNow) == nil {
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
	sum := good.Data
	unusable := []dnssec.TLSA{{Usage: 4, Selector: 1, Matching: 1, Data: sum}, {Usage: 255, Selector: 1, Matching: 1, Data: sum}, {Usage: 3, Selector: 2, Matching: 1, Data: sum}, {Usage: 3, Selector: 255, Matching: 1, Data: sum}, {Usage: 3, Selector: 1, Matching: 3, Data: sum}, {Usage: 3, Selector: 1, Matching: 255, Data: sum}, {Usage: 3, Selector: 1, Matching: 2, Data: sum}, {Usage: 3, Selector: 1, Matching: 1, Data: sum[:31]}, {Usage: 3, Selector: 1, Matching: 1, Data: append(bytes.Clone(sum), 0)}, {Usage: 3, Selector: 0, Matching: 0, Data: sum}, {Usage: 3, Selector: 1, Matching: 0, Data: nil}}
	for _, c := range []struct {
		records []dnssec.TLSA
		says    string
	}{
		{[]dnssec.TLSA{wrong, good}, ""},
		{append(slices.Clone(unusable), good), ""},
		{[]dnssec.TLSA{tlsaOf(other, usagePKIXTA, 0, 1), good}, ""},
		{nil, "no TLSA records"},
		{unusable, "none of the 11 TLSA records can be used"},
		{append(slices.Clone(unusable), wrong), "matches none of the TLSA records (3 1 1)"},
		{[]dnssec.TLSA{wrong, tlsaOf(other, usageDANETA, 0, 2)}, "matches none of the TLSA records (3 1 1, 2 0 2)"},
	} {
		err := daneMatches(c.records, chainOf(w.leaf, w.inter), []string{"example.org"}, w.roots, daneNow)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v, not %q", c.records, err, c.says)
		}
	}
	for _, r := range unusable {
		if err := daneMatches([]dnssec.TLSA{r}, chainOf(w.leaf), nil, w.roots, daneNow); err == nil || !strings.Contains(err.Error(), "none of the 1 TLSA records can be used: ") {
			t.Errorf("%s: %v", r, err)
		}
	}
	if daneMatches([]dnssec.TLSA{good}, nil, nil, w.roots, daneNow) == nil {
		t.Error("nothing was presented")
	}
	if err := daneMatches([]dnssec.TLSA{tlsaOf(w.inter, usageDANETA, 0, 1)}, chainOf(w.leaf, w.inter), []string{"", "."}, w.roots, daneNow); err == nil {
		t.Error("a certificate is for no name at all")
	}
	// What checkServer says of a chain, it can say here, too.
	var unknown x509.UnknownAuthorityError
	if err := daneMatches([]dnssec.TLSA{tlsaOf(w.leaf, usagePKIXEE, 1, 1)}, chainOf(w.leaf), []string{"example.org"}, w.roots, daneNow); !errors.As(err, &unknown) {
		t.Error(err)
	}
}

// FuzzTLSA: a record holds for a chain if and only if it is one of those that can be made
// from it.
func FuzzTLSA(f *testing.F) {
	w := makeDaneWorld(f)
	chain := chainOf(w.leaf, w.inter)
	good := map[string]bool{}
	each(func(selector, matching byte) {
		for _, r := range []dnssec.TLSA{
			tlsaOf(w.root, usagePKIXTA, selector, matching), tlsaOf(w.inter, usagePKIXTA, selector, matching),
			tlsaOf(w.leaf, usagePKIXEE, selector, matching),
			tlsaOf(w.inter, usageDANETA, selector, matching),
			tlsaOf(w.leaf, usageDANEEE, selector, matching),
		} {
			good[string(append([]byte{r.Usage, r.Selector, r.Matching}, r.Data...))] = true
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
		r, err := dnssec.ParseTLSA(b)
		if err != nil {
			return
		}
		err = daneMatches([]dnssec.TLSA{r}, chain, []string{"example.org"}, w.roots, daneNow)
		if (err == nil) == good[string(b)] {
			return
		}
		// A whole certificate may be another one of the same issuer: as an anchor it is
		// believed as it is.
		if err == nil && r.Usage == usageDANETA && r.Selector == 0 && r.Matching == 0 {
			if c, err := x509.ParseCertificate(r.Data); err == nil && (w.leaf.CheckSignatureFrom(c) == nil || w.inter.CheckSignatureFrom(c) == nil) {
				return
			}
		}
		t.Errorf("%s %x: %v", r, r.Data, err)
	})
}
