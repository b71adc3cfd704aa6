package upstream

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
	"otrproxy/proxy/causes"
	"otrproxy/proxy/dnssec"
	"otrproxy/proxy/hostname"
)

// Certificate usages (RFC 7218 section 2.1).
const (
	usagePKIXTA = iota
	usagePKIXEE
	usageDANETA
	usageDANEEE
)

// unusable is why a record counts for nothing (RFC 7671 section 4.1); nil when it does.
func unusable(r dnssec.TLSA) error {
	switch {
	case r.Usage > usageDANEEE:
		return fmt.Errorf("the certificate usage %d is not known", r.Usage)
	case r.Selector > 1:
		return fmt.Errorf("the selector %d is not known", r.Selector)
	case r.Matching > 2:
		return fmt.Errorf("the matching type %d is not known", r.Matching)
	case r.Matching == 1 && len(r.Data) != sha256.Size, r.Matching == 2 && len(r.Data) != sha512.Size, len(r.Data) == 0:
		return fmt.Errorf("%d bytes are no data of a record %s", len(r.Data), r)
	}
	if r.Selector == 0 && r.Matching == 0 {
		if _, err := x509.ParseCertificate(r.Data); err != nil {
			return fmt.Errorf("a record %s holds no certificate: %w", r, err)
		}
	}
	return nil
}

// isAbout reports whether a certificate is the one that the record is about.
func isAbout(r dnssec.TLSA, c *x509.Certificate) bool {
	b := c.Raw
	if r.Selector == 1 {
		b = c.RawSubjectPublicKeyInfo
	}
	switch r.Matching {
	case 1:
		sum := sha256.Sum256(b)
		b = sum[:]
	case 2:
		sum := sha512.Sum512(b)
		b = sum[:]
	}
	return bytes.Equal(b, r.Data)
}

// daneMatches checks a presented chain against TLSA records: one that holds is enough
// (RFC 6698 section 2.1, RFC 7671). Names are the domain of the JID and the host that
// SRV records named securely (RFC 7673 section 4): the certificate must be for one of
// them, except where a record is about that very certificate (usage 3). Roots are for
// usages 0 and 1, nil for the system's. Records that cannot be used are skipped; when
// none is left, that is an error.
func daneMatches(records []dnssec.TLSA, chain []*x509.Certificate, names []string, roots *x509.CertPool, now time.Time) error {
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
func holds(r dnssec.TLSA, chain []*x509.Certificate, names []string, pkix func() ([][]*x509.Certificate, error), now time.Time) (matched bool, err error) {
	switch r.Usage {
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
	if r.Selector == 0 && r.Matching == 0 {
		if c, err := x509.ParseCertificate(r.Data); err == nil {
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
		wrong := chain[0].VerifyHostname(hostname.ASCII(n))
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

// SaidByDNS is what DNS says of the certificate at a place, and whom it may be for.
type SaidByDNS struct {
	records []dnssec.TLSA
	names   []string
}

// SaysDNS asks for it, where that is what counts.
func (sv *Servers) SaysDNS(ctx context.Context, d config.Domain, t Target) (SaidByDNS, *causes.Failure) {
	if d.Trust != config.TrustDANE {
		return SaidByDNS{}, nil
	}
	failed := func(err error) (SaidByDNS, *causes.Failure) {
		return SaidByDNS{}, causes.New(causes.FailCertificate, err, "Who the server of %s is cannot be learned from DNS, as trust: dane demands: %v. Nothing was sent. If that lasts, set another trust for the domain in the configuration.", d.Name, err)
	}
	dns := sv.dns()
	if err := dns.Usable(); err != nil {
		return failed(err)
	}
	secure, err := dns.SecureHost(ctx, t.Host)
	if err == nil && !secure {
		err = fmt.Errorf("the address of %s is not signed", t.Host)
	}
	if err != nil {
		return failed(err)
	}
	records, err := dns.LookupTLSA(ctx, t.Host, t.Port)
	if err == nil && len(records) == 0 {
		err = fmt.Errorf("there is no TLSA record for %s", t.Addr())
	}
	if err != nil {
		return failed(err)
	}
	return SaidByDNS{records, []string{d.Name, t.Host}}, nil
}
