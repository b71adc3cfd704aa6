package upstream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"os"
	"sync"
	"testing"
	"time"

	"otrproxy/config"
)

// Of two first connections at once, one decides which key is remembered.
func TestTOFUDecidesOnce(t *testing.T) {
	roots := x509.NewCertPool()
	var certs []*x509.Certificate
	for i := range 2 {
		key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		tm := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 1)), DNSNames: []string{"example.org"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
		der, _ := x509.CreateCertificate(rand.Reader, tm, tm, &key.PublicKey, key)
		c, _ := x509.ParseCertificate(der)
		roots.AddCert(c)
		certs = append(certs, c)
	}
	for try := range 50 {
		cfg := config.Default()
		cfg.State = t.TempDir() + "/s"
		os.MkdirAll(cfg.State, 0o700)
		sv := reaching(cfg, Network{Roots: roots})
		sv.Pins.path = cfg.State + "/pins.yaml"
		var wg sync.WaitGroup
		var ok [2]bool
		for i := range 2 {
			wg.Go(func() {
				d := config.Domain{Name: "example.org", Trust: config.TrustTOFU}
				held, f := sv.checkServer(d, tls.ConnectionState{PeerCertificates: certs[i : i+1]}, SaidByDNS{})
				if f == nil {
					_, f = sv.acquainted(d, certs[i], held)
				}
				ok[i] = f == nil
			})
		}
		wg.Wait()
		n := len(sv.Pins.Of("example.org"))
		if n != 1 || ok[0] && ok[1] {
			t.Fatalf("try %d: %d keys remembered, both accepted: %v", try, n, ok[0] && ok[1])
		}
	}
}
