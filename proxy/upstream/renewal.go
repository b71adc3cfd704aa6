package upstream

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"time"

	"otrproxy/config"
	"otrproxy/proxy/notify"
)

// Certificates end, and their successors often have other keys. Who is held to a pin should
// hear of that before, and of the change itself; otherwise people learn to click it away.

// A certificateSeen is what a server presented last, and what it was held to.
type certificateSeen struct {
	cert *x509.Certificate
	pin  config.Pin                 // zero where something else spoke for it
	told map[[sha256.Size]byte]bool // of which of the domain's certificates somebody has heard that they end soon
}

const (
	day          = 24 * time.Hour
	leafWarning  = 30 * day // before the end of a certificate that is pinned itself
	keyWarning   = 14 * day // of one whose key is pinned, which may stay
	chainWarning = 7 * day  // of one that is not pinned

	maxCertificates = 100 // certificates of one domain
)

// presents notes what a server presents, and tells once if it ends soon.
func (sv *Servers) presents(d config.Domain, cert *x509.Certificate, pin config.Pin) {
	sv.mu.Lock()
	old := sv.certificates[d.Name]
	if old == nil || !old.cert.Equal(cert) || old.pin != pin {
		if len(sv.certificates) > 1000 { // names come from clients
			clear(sv.certificates)
		}
		seen := &certificateSeen{cert: cert, pin: pin, told: map[[sha256.Size]byte]bool{}}
		if old != nil && len(old.told) < maxCertificates {
			seen.told = old.told // a server may have several
		}
		sv.certificates[d.Name] = seen
	}
	sv.mu.Unlock()
	text := sv.Ending(d.Name)
	if text == "" || !sv.Concerns(d.Name) {
		return
	}
	sv.mu.Lock()
	seen := sv.certificates[d.Name]
	sum := sha256.Sum256(cert.Raw)
	fresh := seen != nil && !seen.told[sum]
	if fresh {
		seen.told[sum] = true
	}
	sv.mu.Unlock()
	if fresh {
		sv.log.Warn("the certificate of a server ends soon", "domain", d.Name, "on", cert.NotAfter.Format(time.DateOnly))
		sv.Bell.Happened(notify.EventServerExpiring, "", d.Name)
		sv.TellAdmins(text)
	}
}

// Seen are the domains whose certificates are known.
func (sv *Servers) Seen() []string {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	return slices.Sorted(maps.Keys(sv.certificates))
}

// HeldTo is the pin that a server has satisfied last; none where something else spoke for
// it, and no other pin would.
func (sv *Servers) HeldTo(domain string) []string {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	if x := sv.certificates[domain]; x != nil && x.pin != (config.Pin{}) {
		return []string{x.pin.String()}
	}
	return nil
}

// Ending is what there is to say of a certificate that ends soon, and what to do; "" where
// that is far, or the next one is known.
func (sv *Servers) Ending(domain string) string {
	x := sv.certificate(domain)
	if x == nil {
		return ""
	}
	left, life := time.Until(x.cert.NotAfter), x.cert.NotAfter.Sub(x.cert.NotBefore)
	on, ends := x.cert.NotAfter.UTC().Format(time.DateOnly), "ends on"
	if left < 0 {
		ends = "has ended on"
	}
	ask := "Have the people who run the server tell you the next one, and then: otrproxy pin add " + domain + " PIN --next"
	switch announced := sv.Pins.announced(domain); {
	case x.pin == (config.Pin{}):
		if left < min(chainWarning, life/6) {
			if left < 0 {
				return fmt.Sprintf("The certificate of %s has ended on %s. Until the people who run the server renew it, nobody can log in.", domain, on)
			}
			return fmt.Sprintf("The certificate of %s ends on %s. Unless the people who run the server renew it, nobody can log in from then on.", domain, on)
		}
	case announced:
	case !x.pin.SPKI && left < min(leafWarning, life/3):
		return fmt.Sprintf("The certificate of %s, which is pinned, %s %s. A new one will not satisfy the pin, and then nothing is sent. %s", domain, ends, on, ask)
	case x.pin.SPKI && left < min(keyWarning, life/6):
		return fmt.Sprintf("The certificate of %s %s %s. If the new one has another key than the one that is pinned, nothing is sent from then on. %s", domain, ends, on, ask)
	}
	return ""
}

// SoonestEnd is when the first of the household's servers' certificates ends; zero while
// none was seen.
func (sv *Servers) SoonestEnd() (soonest time.Time) {
	for _, domain := range sv.Seen() {
		if !sv.Concerns(domain) {
			continue
		}
		x := sv.certificate(domain)
		if x != nil && (soonest.IsZero() || x.cert.NotAfter.Before(soonest)) {
			soonest = x.cert.NotAfter
		}
	}
	return soonest
}

// certificate is what a domain's server has presented last; nil for nothing yet.
func (sv *Servers) certificate(domain string) *certificateSeen {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	return sv.certificates[domain]
}

// announced reports whether a domain has a pin for its next certificate.
func (s *Pins) announced(domain string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.pins[domain], func(p StoredPin) bool { return p.Slot == SlotNext })
}
