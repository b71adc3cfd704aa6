package localca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/moby/sys/atomicwriter"

	"otrproxy/proxy/hostname"
	"otrproxy/proxy/state"
)

// An Authority is the local CA that signs what clients are shown. One is made
// per installation; where the configuration names the domains, the CA is
// constrained to them (RFC 5280 section 4.2.1.10), so that its key is worth
// little to a thief. Names and addresses that mean something within one household only
// are among them from the start (names.go): a box that is opened to the household's other
// devices later keeps the CA that was installed by then.
type Authority struct {
	Cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string // where certificates are kept over restarts; "" for nowhere
	// Narrowed says that it has just taken the place of one that might sign for everything.
	Narrowed bool

	mu     sync.Mutex
	leaves map[string]*tls.Certificate
	onDisk map[*tls.Certificate]bool // of those, the ones that are kept
}

const (
	caLife     = 10 * 365 * 24 * time.Hour
	leafLife   = 397 * 24 * time.Hour // clients that were told to trust one ask again after it
	leafMargin = 30 * 24 * time.Hour  // before its end, a new one is made
)

// Open reads ca.pem and ca.key, making them at first use, or anew when
// the constraints of the old CA leave out a domain or a name of this machine, or it has none
// although domains are listed; the old one is kept beside.
// Made reports whether clients have a new CA to trust.
func Open(dir string, domains, names []string) (a *Authority, made bool, err error) {
	certPath, keyPath := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.key")
	narrowed := false
	keyPEM, err := state.ReadPrivate(keyPath)
	if err != nil {
		return nil, false, err
	}
	if keyPEM != nil {
		certPEM, err := os.ReadFile(certPath)
		if err != nil {
			return nil, false, fmt.Errorf("the local CA cannot be read: %w", err)
		}
		if a, err = parseAuthority(certPEM, keyPEM); err != nil {
			return nil, false, fmt.Errorf("the local CA in %s is damaged (%w); restore it from a backup, or move ca.pem and ca.key away to get a new one", dir, err)
		}
		a.dir = dir
		if a.Covers(domains, names) && time.Until(a.Cert.NotAfter) > leafLife {
			return a, false, nil
		}
		narrowed = !a.Constrained() && len(domains) > 0
		old := fmt.Sprintf("-%x", sha256.Sum256(a.Cert.Raw))[:9]
		for _, f := range []string{"ca.pem", "ca.key"} {
			if err := os.Rename(filepath.Join(dir, f), filepath.Join(dir, f+old)); err != nil {
				return nil, false, err
			}
		}
	}
	a, certPEM, keyPEM, err := newAuthority(domains, names)
	if err != nil {
		return nil, false, err
	}
	if err := atomicwriter.WriteFile(keyPath, keyPEM, 0o600); err != nil {
		return nil, false, fmt.Errorf("the local CA could not be saved: %w", err)
	}
	if err := atomicwriter.WriteFile(certPath, certPEM, 0o600); err != nil {
		return nil, false, fmt.Errorf("the local CA could not be saved: %w", err)
	}
	a.dir, a.Narrowed = dir, narrowed
	return a, true, nil
}

func parseAuthority(certPEM, keyPEM []byte) (*Authority, error) {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("its key is a %T", pair.PrivateKey)
	}
	return &Authority{Cert: pair.Leaf, key: key, leaves: map[string]*tls.Certificate{}, onDisk: map[*tls.Certificate]bool{}}, nil
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return n
}

func newAuthority(domains, names []string) (a *Authority, certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "otrproxy local CA " + now.Format("2006-01-02")},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(caLife),
		IsCA:                  true,
		MaxPathLenZero:        true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if len(domains) > 0 {
		t.PermittedDNSDomainsCritical = true
		t.PermittedDNSDomains, t.PermittedIPRanges = constraints(domains, names)
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, nil, err
	}
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	a, err = parseAuthority(certPEM, keyPEM)
	return a, certPEM, keyPEM, err
}

// Covers reports whether the CA may sign for all that is configured, and where domains are
// listed, for no others.
func (a *Authority) Covers(domains, names []string) bool {
	if !a.Constrained() {
		return len(domains) == 0
	}
	return len(domains) > 0 && len(a.permitted(domains)) == len(domains) && len(a.permitted(names)) == len(names)
}

// leaf is the certificate shown for a domain. Clients check it against the
// domain (Gajim) or against the host they connect to (Pidgin), so both stand in
// it: must are the names of this machine without which a certificate is made anew, and may
// those that it gets then besides.
func (a *Authority) leaf(domain string, must []string, may func() []string) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	must = a.permitted(must) // with any other, the whole certificate would be worth nothing
	if c := a.leaves[domain]; c != nil && time.Until(c.Leaf.NotAfter) > leafMargin && standIn(c.Leaf, must) {
		return c, nil
	}
	if c := a.kept(domain, must); c != nil {
		a.leaves[domain], a.onDisk[c] = c, true
		return c, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: hostname.ASCII(domain)},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(leafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	t.DNSNames, t.IPAddresses = subjects(slices.Concat([]string{hostname.ASCII(domain), "localhost", "127.0.0.1", "::1"}, must, a.permitted(may())))
	der, err := x509.CreateCertificate(rand.Reader, t, a.Cert, &key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	c := &tls.Certificate{Certificate: [][]byte{der, a.Cert.Raw}, PrivateKey: key}
	if c.Leaf, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	if len(a.leaves) > 1000 { // names come from clients
		clear(a.leaves)
		clear(a.onDisk)
	}
	a.leaves[domain] = c
	return c, nil
}

// certDir is where certificates are kept that clients were shown: one that a person has
// told their client to trust must be the same after a restart.
const certDir = "certs"

// keptName is the file of a domain's certificate, "" for a domain that gets none.
func (a *Authority) keptName(domain string) string {
	name := hostname.ASCII(domain)
	if a.dir == "" || !hostname.Pattern.MatchString(name) {
		return ""
	}
	return filepath.Join(a.dir, certDir, name+".pem")
}

// kept is a domain's certificate from before, nil where there is none that can still be
// used, with all the names that it must have.
func (a *Authority) kept(domain string, must []string) *tls.Certificate {
	path := a.keptName(domain)
	if path == "" {
		return nil
	}
	b, err := state.ReadPrivate(path)
	if err != nil || b == nil {
		return nil
	}
	c, err := tls.X509KeyPair(b, b)
	if err != nil || c.Leaf.CheckSignatureFrom(a.Cert) != nil || c.Leaf.VerifyHostname(hostname.ASCII(domain)) != nil || !standIn(c.Leaf, must) || time.Until(c.Leaf.NotAfter) <= leafMargin {
		return nil
	}
	return &c
}

// Keep keeps a domain's certificate over restarts. It is called once somebody has logged
// in there: names alone come from anybody.
func (a *Authority) Keep(domain string) error {
	path := a.keptName(domain)
	if path == "" {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.leaves[domain]
	if c == nil || a.onDisk[c] {
		return nil
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return err
	}
	var b []byte
	for _, der := range c.Certificate {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	b = append(b, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	err = atomicwriter.WriteFile(path, b, 0o600)
	a.onDisk[c] = err == nil
	return err
}
