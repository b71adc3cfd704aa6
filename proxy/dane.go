package proxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"otrproxy/config"
)

// A tlsaRecord says what a certificate must be (RFC 6698 section 2.1).
type tlsaRecord struct {
	usage, selector, matching byte
	data                      []byte
}

// Certificate usages (RFC 7218 section 2.1).
const (
	usagePKIXTA = iota
	usagePKIXEE
	usageDANETA
	usageDANEEE
)

func (r tlsaRecord) String() string {
	return fmt.Sprintf("%d %d %d", r.usage, r.selector, r.matching)
}

func parseTLSA(b []byte) (tlsaRecord, error) {
	if len(b) < 4 {
		return tlsaRecord{}, fmt.Errorf("a TLSA record of %d bytes says nothing", len(b))
	}
	return tlsaRecord{b[0], b[1], b[2], bytes.Clone(b[3:])}, nil
}

// unusable is why a record counts for nothing (RFC 7671 section 4.1); nil when it does.
func unusable(r tlsaRecord) error {
	switch {
	case r.usage > usageDANEEE:
		return fmt.Errorf("the certificate usage %d is not known", r.usage)
	case r.selector > 1:
		return fmt.Errorf("the selector %d is not known", r.selector)
	case r.matching > 2:
		return fmt.Errorf("the matching type %d is not known", r.matching)
	case r.matching == 1 && len(r.data) != sha256.Size, r.matching == 2 && len(r.data) != sha512.Size, len(r.data) == 0:
		return fmt.Errorf("%d bytes are no data of a record %s", len(r.data), r)
	}
	if r.selector == 0 && r.matching == 0 {
		if _, err := x509.ParseCertificate(r.data); err != nil {
			return fmt.Errorf("a record %s holds no certificate: %w", r, err)
		}
	}
	return nil
}

// isAbout reports whether a certificate is the one that the record is about.
func isAbout(r tlsaRecord, c *x509.Certificate) bool {
	b := c.Raw
	if r.selector == 1 {
		b = c.RawSubjectPublicKeyInfo
	}
	switch r.matching {
	case 1:
		sum := sha256.Sum256(b)
		b = sum[:]
	case 2:
		sum := sha512.Sum512(b)
		b = sum[:]
	}
	return bytes.Equal(b, r.data)
}

// daneMatches checks a presented chain against TLSA records: one that holds is enough
// (RFC 6698 section 2.1, RFC 7671). Names are the domain of the JID and the host that
// SRV records named securely (RFC 7673 section 4): the certificate must be for one of
// them, except where a record is about that very certificate (usage 3). Roots are for
// usages 0 and 1, nil for the system's. Records that cannot be used are skipped; when
// none is left, that is an error.
func daneMatches(records []tlsaRecord, chain []*x509.Certificate, names []string, roots *x509.CertPool, now time.Time) error {
	if len(chain) == 0 {
		return errors.New("the server presented no certificate")
	}
	var kinds []string
	var skipped, failed, matching error // the first of each kind
	pkix := sync.OnceValues(func() ([][]*x509.Certificate, error) { return verifyNamed(chain, names, roots, now) })
	for _, r := range records {
		if err := unusable(r); err != nil {
			if skipped == nil {
				skipped = err
			}
			continue
		}
		kinds = append(kinds, r.String())
		matched, err := holds(r, chain, names, pkix, now)
		if matched && err == nil {
			return nil
		}
		switch {
		case matched && matching == nil:
			matching = fmt.Errorf("the certificate matches the TLSA record %s, which is not enough: %w", r, err)
		case err != nil && failed == nil:
			failed = fmt.Errorf("the certificate matches none of the TLSA records, and for %s there is no chain: %w", r, err)
		}
	}
	switch {
	case len(records) == 0:
		return errors.New("there are no TLSA records")
	case len(kinds) == 0:
		return fmt.Errorf("none of the %d TLSA records can be used: %w", len(records), skipped)
	case matching != nil:
		return matching
	case failed != nil:
		return failed
	}
	return fmt.Errorf("the certificate matches none of the TLSA records (%s)", strings.Join(kinds, ", "))
}

// holds reports whether a record is about a certificate of the chain, and why the chain
// does not do all the same.
func holds(r tlsaRecord, chain []*x509.Certificate, names []string, pkix func() ([][]*x509.Certificate, error), now time.Time) (matched bool, err error) {
	switch r.usage {
	case usageDANEEE: // names, validity and issuers say nothing (RFC 7671 section 5.1)
		return isAbout(r, chain[0]), nil
	case usagePKIXEE:
		if !isAbout(r, chain[0]) {
			return false, nil
		}
		_, err := pkix()
		return true, err
	case usagePKIXTA:
		chains, err := pkix() // its CA need not be presented
		for _, c := range chains {
			for _, issuer := range c[1:] {
				if isAbout(r, issuer) {
					return true, nil
				}
			}
		}
		return false, err
	}
	// Usage 2: the anchor is presented (RFC 7671 section 5.2.2), or stands in the record as
	// it is. It is an issuer, never the server's own certificate, which would need usage 3.
	anchors := x509.NewCertPool()
	add := func(c *x509.Certificate) {
		if isAbout(r, c) && !c.Equal(chain[0]) {
			anchors.AddCert(c)
			matched = true
		}
	}
	for _, c := range chain[1:] {
		add(c)
	}
	if r.selector == 0 && r.matching == 0 {
		if c, err := x509.ParseCertificate(r.data); err == nil {
			add(c)
		}
	}
	if matched {
		_, err = verifyNamed(chain, names, anchors, now)
	}
	return matched, err
}

// verifyNamed verifies a chain to one of the roots, and that it is for one of the names,
// as dNSName, SRVName or xmppAddr (RFC 6120 section 13.7.1.2).
func verifyNamed(chain []*x509.Certificate, names []string, roots *x509.CertPool, now time.Time) ([][]*x509.Certificate, error) {
	inter := x509.NewCertPool()
	for _, c := range chain[1:] {
		inter.AddCert(c)
	}
	chains, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, CurrentTime: now})
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		n = strings.TrimSuffix(n, ".")
		if n == "" {
			continue
		}
		wrong := chain[0].VerifyHostname(ascii(n))
		if wrong == nil || xmppNames(chain[0], n) {
			return chains, nil
		}
		if err == nil {
			err = wrong // the JID's domain comes first
		}
	}
	if err == nil {
		err = errors.New("there is no name it could be for")
	}
	return nil, err
}

// saidByDNS is what DNS says of the certificate at a place, and whom it may be for.
type saidByDNS struct {
	records []tlsaRecord
	names   []string
}

// saysDNS asks for it, where that is what counts.
func (sv *servers) saysDNS(ctx context.Context, d config.Domain, t target) (saidByDNS, *Failure) {
	if d.Trust != config.TrustDANE {
		return saidByDNS{}, nil
	}
	failed := func(err error) (saidByDNS, *Failure) {
		return saidByDNS{}, fail(FailCertificate, err, "Who the server of %s is cannot be learned from DNS, as trust: dane demands: %v. Nothing was sent. If that lasts, set another trust for the domain in the configuration.", d.Name, err)
	}
	dns := sv.dns()
	if err := dns.usable(); err != nil {
		return failed(err)
	}
	secure, err := dns.secureHost(ctx, t.host)
	if err == nil && !secure {
		err = fmt.Errorf("the address of %s is not signed", t.host)
	}
	if err != nil {
		return failed(err)
	}
	records, err := dns.tlsa(ctx, t.host, t.port)
	if err == nil && len(records) == 0 {
		err = fmt.Errorf("there is no TLSA record for %s", t.addr())
	}
	if err != nil {
		return failed(err)
	}
	return saidByDNS{records, []string{d.Name, t.host}}, nil
}
