package upstream

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/moby/sys/atomicwriter"
	"go.yaml.in/yaml/v3"

	"otrproxy/config"
	"otrproxy/proxy/causes"
	"otrproxy/proxy/control"
	"otrproxy/proxy/hostname"
	"otrproxy/proxy/notify"
	"otrproxy/proxy/state"
)

// A StoredPin is one line of pins.yaml: what we decided at first use or a person
// decided at the command line.
type StoredPin struct {
	Pin    string    `yaml:"pin"`
	Slot   string    `yaml:"slot"`   // current or next
	Source string    `yaml:"source"` // first-use or command
	Since  time.Time `yaml:"since"`
	Seen   time.Time `yaml:"seen,omitempty"`   // when a server last satisfied it, by the day
	Untold bool      `yaml:"untold,omitempty"` // nobody was told yet that it is remembered, or in use now
}

// The slots of pins: those in force, and those for a change that was announced. Servers
// are held to either; the first time that one of the second kind is presented, it joins
// the first.
const (
	SlotCurrent = "current"
	SlotNext    = "next"
)

// Where pins come from.
const (
	SourceFirst   = "first-use"
	sourceCommand = "command"
	sourceConfig  = "configuration"
)

// A Pins is pins.yaml.
type Pins struct {
	path string
	mu   sync.Mutex
	pins map[string][]StoredPin
}

// OpenPins reads the pins of a state directory.
func OpenPins(dir string) (*Pins, error) {
	s := &Pins{path: filepath.Join(dir, "pins.yaml"), pins: map[string][]StoredPin{}}
	b, err := state.ReadPrivate(s.path)
	if err != nil || b == nil {
		return s, err
	}
	if err := yaml.Unmarshal(b, &s.pins); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w; restore it from a backup, or move it away to decide anew", s.path, err)
	}
	if s.pins == nil { // a file that says nothing
		s.pins = map[string][]StoredPin{}
	}
	for domain, pins := range s.pins {
		for _, p := range pins {
			if _, err := config.ParsePin(p.Pin); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", s.path, domain, err)
			}
		}
	}
	return s, nil
}

// Of are all pins of a domain.
func (s *Pins) Of(domain string) []config.Pin {
	return s.those(domain, func(StoredPin) bool { return true })
}

// Current are those that are not for later.
func (s *Pins) Current(domain string) []config.Pin {
	return s.those(domain, func(p StoredPin) bool { return p.Slot != SlotNext })
}

func (s *Pins) those(domain string, fits func(StoredPin) bool) (out []config.Pin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pins[domain] {
		if pin, err := config.ParsePin(p.Pin); err == nil && fits(p) {
			out = append(out, pin)
		}
	}
	return out
}

// first records the first pin of a domain and reports whether the pin is in force:
// of two first connections at once, one decides.
func (s *Pins) first(domain string, pin config.Pin) (ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.pins[domain]; len(have) > 0 {
		return slices.ContainsFunc(have, func(p StoredPin) bool { return p.Pin == pin.String() }), nil
	}
	p := stored(pin, SlotCurrent, SourceFirst)
	p.Untold = true
	return true, s.set(domain, []StoredPin{p})
}

func stored(pin config.Pin, slot, source string) StoredPin {
	return StoredPin{Pin: pin.String(), Slot: slot, Source: source, Since: time.Now().UTC().Truncate(time.Second)}
}

// Add records a pin a person decided on, for now or (slot "next") for a change that was
// announced; one that is there takes that slot.
func (s *Pins) Add(domain string, pin config.Pin, slot string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh := slices.Clone(s.pins[domain])
	if i := indexPin(fresh, pin); i < 0 {
		fresh = append(fresh, stored(pin, slot, sourceCommand))
	} else if fresh[i].Slot == slot {
		return nil
	} else {
		fresh[i].Slot = slot
	}
	return s.set(domain, fresh)
}

// indexPin finds a pin among those stored, -1 for none.
func indexPin(pins []StoredPin, pin config.Pin) int {
	return slices.IndexFunc(pins, func(p StoredPin) bool {
		have, err := config.ParsePin(p.Pin) // written by hand, maybe
		return err == nil && have == pin
	})
}

// satisfied notes that a server has satisfied a pin, and reports whether that was the first
// sign of an announced change, which is in force from now on.
func (s *Pins) satisfied(domain string, pin config.Pin) (renewed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := indexPin(s.pins[domain], pin)
	today := time.Now().UTC().Truncate(24 * time.Hour)
	if i < 0 || s.pins[domain][i].Slot != SlotNext && !s.pins[domain][i].Seen.Before(today) {
		return false, nil
	}
	fresh := slices.Clone(s.pins[domain])
	renewed = fresh[i].Slot == SlotNext
	fresh[i].Slot, fresh[i].Seen, fresh[i].Untold = SlotCurrent, today, fresh[i].Untold || renewed
	return renewed, s.set(domain, fresh)
}

// Tell returns a pin of which somebody has to be told, once: it is remembered from the
// first use, or an announced one is in use now.
func (s *Pins) Tell(domain string) (StoredPin, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.pins[domain], func(p StoredPin) bool { return p.Untold })
	if i < 0 {
		return StoredPin{}, false
	}
	fresh := slices.Clone(s.pins[domain])
	fresh[i].Untold = false
	return fresh[i], s.set(domain, fresh) == nil
}

// Remove forgets a pin and reports whether it was there.
func (s *Pins) Remove(domain string, pin config.Pin) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := indexPin(s.pins[domain], pin)
	if i < 0 {
		return false, nil
	}
	return true, s.set(domain, slices.Delete(slices.Clone(s.pins[domain]), i, i+1))
}

// set puts a domain's pins in force once they are saved, not before.
func (s *Pins) set(domain string, pins []StoredPin) error {
	old, had := s.pins[domain]
	s.pins[domain] = pins
	if len(pins) == 0 {
		delete(s.pins, domain)
	}
	err := s.save()
	if err != nil {
		delete(s.pins, domain)
		if had {
			s.pins[domain] = old
		}
	}
	return err
}

func (s *Pins) save() error {
	b, err := yaml.Marshal(s.pins)
	if err != nil {
		return err
	}
	if err := atomicwriter.WriteFile(s.path, b, 0o600); err != nil {
		return fmt.Errorf("the pin could not be saved: %w", err)
	}
	return nil
}

// List is all of them, those of the configuration too.
func (s *Pins) List(c *config.Config) (out []control.PinLine) {
	for name, d := range c.Domains {
		for _, p := range d.Pins {
			out = append(out, control.PinLine{Domain: name, Pin: p.String(), Slot: SlotCurrent, Source: sourceConfig})
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, pins := range s.pins {
		for _, p := range pins {
			l := control.PinLine{Domain: name, Pin: p.Pin, Slot: p.Slot, Source: p.Source, Since: p.Since.Format(time.RFC3339)}
			if !p.Seen.IsZero() {
				l.Seen = p.Seen.Format(time.DateOnly)
			}
			out = append(out, l)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Domain+out[i].Pin < out[j].Domain+out[j].Pin })
	return out
}

// PinsOf are both pins a certificate can be held to.
func PinsOf(c *x509.Certificate) (leaf, spki config.Pin) {
	leaf.Sum = sha256.Sum256(c.Raw)
	spki = config.Pin{SPKI: true, Sum: sha256.Sum256(c.RawSubjectPublicKeyInfo)}
	return leaf, spki
}

// Formats are all the ways in which people write down a certificate.
func Formats(c *x509.Certificate) string {
	leaf, spki := PinsOf(c)
	return fmt.Sprintf("%s (%s; SHA-1, to compare with old notes only: %s)", leaf, spki, SHA1(c))
}

// SHA1 is the SHA-1 of a certificate, which is never a pin.
func SHA1(c *x509.Certificate) string {
	sum := sha1.Sum(c.Raw)
	return config.ColonHex(sum[:])
}

// PinsFor are the pins that count for a domain.
func (sv *Servers) PinsFor(d config.Domain) []config.Pin {
	if d.Trust == config.TrustCA || d.Trust == config.TrustDANE {
		return d.Pins
	}
	return append(d.Pins[:len(d.Pins):len(d.Pins)], sv.Pins.Of(d.Name)...)
}

// checkServer decides whether a server is who it should be. It runs on every
// connection, resumed ones too, before anything of the client goes up. Held is the pin that
// speaks for it, the zero one where something else does.
//
// It is asked in the middle of the handshake, when the server has not proved yet that the
// certificate is its own: nothing is remembered here.
func (sv *Servers) checkServer(d config.Domain, cs tls.ConnectionState, said SaidByDNS) (held config.Pin, f *causes.Failure) {
	if len(cs.PeerCertificates) == 0 {
		return held, causes.New(causes.FailTLS, nil, "The server of %s presented no certificate.", d.Name)
	}
	if held, f = sv.Vouched(d, cs.PeerCertificates, said); f != nil {
		f.Cert = cs.PeerCertificates[0]
	}
	return held, f
}

// acquainted remembers what a server has presented and proved to be its own. At a first use that
// may be refused still: of two at once, one decides.
func (sv *Servers) acquainted(d config.Domain, cert *x509.Certificate, held config.Pin) (config.Pin, *causes.Failure) {
	if d.Trust == config.TrustTOFU && held == (config.Pin{}) {
		leaf, spki := PinsOf(cert)
		ok, err := sv.Pins.first(d.Name, spki)
		if err != nil {
			return held, causes.New(causes.FailState, err, "The key of %s could not be remembered: %v.", d.Name, err)
		}
		if !ok {
			return held, mismatch(d, sv.Pins.Of(d.Name), cert)
		}
		held = spki
		sv.log.Info("the server's key is remembered from its first use", "domain", d.Name, "pin", spki.String(), "certificate", leaf.String())
	}
	if held != (config.Pin{}) {
		renewed, err := sv.Pins.satisfied(d.Name, held)
		if err != nil {
			sv.log.Warn("that a server has satisfied its pin could not be remembered", "domain", d.Name)
		}
		if renewed {
			sv.log.Info("the server presents what was announced", "domain", d.Name, "pin", held.String())
			sv.Bell.Happened(notify.EventServerRenewed, "", d.Name)
		}
	}
	sv.presents(d, cert, held)
	return held, nil
}

// Vouched is what speaks for a server's certificate.
func (sv *Servers) Vouched(d config.Domain, certs []*x509.Certificate, said SaidByDNS) (held config.Pin, f *causes.Failure) {
	cert := certs[0]
	leaf, spki := PinsOf(cert)
	pins := sv.PinsFor(d)
	i := slices.IndexFunc(pins, func(pin config.Pin) bool { return pin == leaf || pin == spki })
	if i >= 0 {
		held = pins[i]
	}
	switch d.Trust {
	case config.TrustPin, config.TrustCAPin:
		if i < 0 {
			return held, mismatch(d, pins, cert)
		}
		if d.Trust == config.TrustPin {
			return held, nil
		}
	case config.TrustTOFU:
		if i >= 0 {
			return held, nil
		}
		if len(pins) > 0 {
			return held, mismatch(d, pins, cert)
		}
	case config.TrustDANE:
		if err := daneMatches(said.records, certs, said.names, sv.roots, time.Now()); err != nil {
			return held, causes.New(causes.FailCertificate, err, "The certificate of %s is not the one that DNS says (TLSA): %v. Nothing was sent. It presents %s. "+
				"If that lasts, ask the people who run the server; trust: pin needs no DNS", d.Name, err, Formats(cert))
		}
		return held, nil
	}
	if err := sv.CheckChain(d.Name, certs); err != nil {
		return held, causes.New(causes.FailCertificate, err, "The certificate of %s is not vouched for by any CA of this machine (%s), so nothing was sent. It presents %s. "+
			"If that is what the people who run the server tell you, accept it with: otrproxy pin add %s %s", d.Name, Reason(err), Formats(cert), d.Name, leaf)
	}
	return held, nil
}

func mismatch(d config.Domain, pins []config.Pin, cert *x509.Certificate) *causes.Failure {
	want := make([]string, len(pins))
	for i, p := range pins {
		want[i] = p.String()
	}
	leaf, _ := PinsOf(cert)
	f := causes.New(causes.FailPin, nil, "The server of %s is not the one you pinned, so nothing was sent. Pinned: %s. Presented: %s. "+
		"Ask the people who run the server whether they changed it; only if they did: otrproxy pin add %s %s", d.Name, strings.Join(want, ", "), Formats(cert), d.Name, leaf)
	f.Cert, f.Pinned = cert, want
	return f
}

// Reason is the short cause of a chain error.
func Reason(err error) string {
	switch e := err.(type) {
	case x509.UnknownAuthorityError:
		return "unknown issuer"
	case x509.CertificateInvalidError:
		if e.Reason == x509.Expired {
			return "expired or not yet valid"
		}
	case x509.HostnameError:
		return "made for another name"
	}
	return err.Error()
}

// CheckChain verifies a chain to a CA of this machine, and the domain's name as
// dNSName, SRVName or xmppAddr (RFC 6120 section 13.7.1.2); never the name of the
// host that DNS pointed to.
func (sv *Servers) CheckChain(domain string, certs []*x509.Certificate) error {
	inter := x509.NewCertPool()
	for _, c := range certs[1:] {
		inter.AddCert(c)
	}
	chains, err := certs[0].Verify(x509.VerifyOptions{Roots: sv.roots, Intermediates: inter})
	if err != nil {
		return err
	}
	// Where clients trust our own CA, the whole machine may; it is for clients only.
	if sv.LocalCA != nil && !slices.ContainsFunc(chains, func(chain []*x509.Certificate) bool { return !chain[len(chain)-1].Equal(sv.LocalCA) }) {
		return x509.UnknownAuthorityError{Cert: certs[0]}
	}
	err = certs[0].VerifyHostname(hostname.ASCII(domain))
	if err != nil && xmppNames(certs[0], domain) {
		return nil
	}
	return err
}

var (
	oidSAN      = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidXMPPAddr = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 5}
	oidSRVName  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 7}
)

// xmppNames reports whether a certificate names the domain as xmppAddr (RFC 6120
// section 13.7.1.4) or SRVName (RFC 4985).
func xmppNames(c *x509.Certificate, domain string) bool {
	for _, ext := range c.Extensions {
		if !ext.Id.Equal(oidSAN) {
			continue
		}
		var names []asn1.RawValue
		if rest, err := asn1.Unmarshal(ext.Value, &names); err != nil || len(rest) > 0 {
			return false
		}
		for _, n := range names {
			if n.Class != asn1.ClassContextSpecific || n.Tag != 0 {
				continue
			}
			var other struct {
				ID    asn1.ObjectIdentifier
				Value string `asn1:"explicit,tag:0,optional"`
			}
			n.FullBytes = append([]byte{0x30}, n.FullBytes[1:]...) // IMPLICIT SEQUENCE
			if _, err := asn1.Unmarshal(n.FullBytes, &other); err != nil {
				continue
			}
			switch {
			case other.ID.Equal(oidXMPPAddr) && strings.EqualFold(hostname.ASCII(other.Value), hostname.ASCII(domain)),
				other.ID.Equal(oidSRVName) && (strings.EqualFold(other.Value, "_xmpp-client."+hostname.ASCII(domain)) || strings.EqualFold(other.Value, "_xmpps-client."+hostname.ASCII(domain))):
				return true
			}
		}
	}
	return false
}
