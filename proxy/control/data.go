package control

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// The shapes of what commands answer programs. Fields may be added, none removed.

// A Status is what status answers.
type Status struct {
	Version   string          `json:"version"`
	Since     time.Time       `json:"since"`
	Sessions  []SessionStatus `json:"sessions"`
	Decisions []Decision      `json:"decisions"` // what waits for a person, the most urgent first

	Kept        []KeptLine   `json:"kept"` // what others can have the proxy keep
	Confinement *Confinement `json:"confinement,omitempty"`
}

// A KeptLine is how much there is of something that others can have the proxy keep, and how
// much there may be.
type KeptLine struct {
	What string `json:"what"`
	Now  int    `json:"now"`
	Most int    `json:"most"` // 0 where something else bounds it
	Per  string `json:"per"`  // for each of what: account, session or contact; "" for in all
}

// A Confinement is what the process has taken from itself, in words.
type Confinement struct {
	Mode    string   `json:"mode"` // auto, require or off
	InForce []string `json:"in_force"`
	Missing []string `json:"missing"` // and why
}

// A SessionStatus is one connected client and its connection to the server.
type SessionStatus struct {
	Account       string        `json:"account"`
	Resource      string        `json:"resource"`
	Since         time.Time     `json:"since"`
	Entry         string        `json:"entry"`
	ClientTLS     string        `json:"client_tls"`
	Login         string        `json:"login"` // mechanism of the client's, and its channel binding
	Domain        string        `json:"domain"`
	Address       string        `json:"address"`
	UpstreamTLS   string        `json:"upstream_tls"`
	Pin           string        `json:"pin"` // what the server satisfied, "" for a CA
	SASL          string        `json:"sasl"`
	Stranger      bool          `json:"stranger,omitempty"` // it logged in with another password than the one known here
	Lingers       bool          `json:"lingers,omitempty"`  // its client has gone, and it stays for messages that wait (limits.linger)
	Conversations []ContactLine `json:"conversations"`
}

// A ContactLine is a contact, as contact list and contact show answer it.
type ContactLine struct {
	Account     string `json:"account"`
	Contact     string `json:"contact"`
	Instance    string `json:"instance"`
	State       string `json:"state"` // plaintext, encrypted or finished
	Trust       string `json:"trust"` // unverified, verified, smp or changed
	OTRVersion  int    `json:"otr_version"`
	Fingerprint string `json:"fingerprint"` // 40 hex digits; "" where none is known
	Policy      string `json:"policy"`
	Held        int    `json:"held"`

	Own       string   `json:"own_fingerprint"`  // of the account's key
	Known     []string `json:"known,omitempty"`  // other keys known of the contact
	Comparing string   `json:"comparing"`        // "", "asked" by the contact, "asking" them
	Question  string   `json:"question"`         // the contact's, when asked with one
	Rule      string   `json:"rule,omitempty"`   // where the policy stands
	Waits     string   `json:"waits,omitempty"`  // why messages are held
	Others    []string `json:"others,omitempty"` // fingerprints of other devices in the conversation that are not trusted
}

// A HeldLine is a message that waits.
type HeldLine struct {
	Account string    `json:"account"`
	Contact string    `json:"contact"`
	ID      string    `json:"id"`
	Since   time.Time `json:"since"`
	Expires time.Time `json:"expires"`
	Cause   string    `json:"cause"`
}

// A PinLine is a pin in force.
type PinLine struct {
	Domain string `json:"domain"`
	Pin    string `json:"pin"`
	Slot   string `json:"slot"`   // current or next
	Source string `json:"source"` // configuration, first-use or command
	Since  string `json:"since"`
	Seen   string `json:"seen"` // the day when a server last satisfied it, "" for never or not known
}

// A Presented is what a server presents, as pin probe answers it.
type Presented struct {
	Domain    string   `json:"domain"`
	Address   string   `json:"address"`
	Via       string   `json:"via"` // the SOCKS proxy it was seen through, "" for none
	TLS       string   `json:"tls"`
	SHA256    string   `json:"sha256"`
	SPKI      string   `json:"spki_sha256"`
	SHA1      string   `json:"sha1"` // to compare with old notes only; never a pin
	Subject   string   `json:"subject"`
	Issuer    string   `json:"issuer"`
	Names     []string `json:"names"`
	NotBefore string   `json:"not_before"`
	NotAfter  string   `json:"not_after"`
	CA        string   `json:"ca"` // "" where a CA of this machine vouches for it, else why none does
	Pinned    bool     `json:"pinned"`
}

// A LoginLine is how an account logs in.
type LoginLine struct {
	Account   string   `json:"account"`
	Strength  string   `json:"strength"`  // plain, scram or bound; "" where nobody has logged in yet
	Mechanism string   `json:"mechanism"` // of the strongest login so far, and its channel binding
	Since     string   `json:"since"`
	Enrolled  []string `json:"enrolled"` // mechanisms for which clients may prove themselves here
}

// A KeyLine is an account's own key.
type KeyLine struct {
	Account     string `json:"account"`
	Fingerprint string `json:"fingerprint"` // 40 hex digits; "" while there is no key
	URI         string `json:"uri"`         // xmpp:JID?otr-fingerprint=...
	State       string `json:"state"`       // ready, missing or locked
}

// An ImportLine is what became of one entry of a libotr file.
type ImportLine struct {
	File    string `json:"file"`
	Account string `json:"account"`
	Contact string `json:"contact,omitempty"`
	Kind    string `json:"kind"`   // key, fingerprint or instance-tag
	Result  string `json:"result"` // imported, same, conflict or skipped
	Text    string `json:"text"`
}

// A Check is one step of doctor.
type Check struct {
	Step   string `json:"step"`
	Result string `json:"result"` // ok, warn or fail
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
}

// A Decision is something that waits for a person.
type Decision struct {
	Kind        string   `json:"kind"` // key-changed, question, unverified, server-changed, server-unknown, server-expiring, login-weaker, login-unknown or locked
	Account     string   `json:"account,omitempty"`
	Contact     string   `json:"contact,omitempty"`
	Domain      string   `json:"domain,omitempty"`
	Text        string   `json:"text"`
	Fingerprint string   `json:"fingerprint,omitempty"` // the key it is about
	Known       []string `json:"known,omitempty"`       // keys or pins known before
	Presented   string   `json:"presented,omitempty"`   // the pin of what a server presents
	SPKI        string   `json:"spki_sha256,omitempty"` // and that of its key
	SHA1        string   `json:"sha1,omitempty"`        // to compare with old notes only; never a pin
	Question    string   `json:"question,omitempty"`
	Code        string   `json:"code,omitempty"` // of a login with another password
	Held        int      `json:"held,omitempty"`
}

// Done is what a command answers programs that has nothing more to say.
type Done struct {
	Text string `json:"text"`
}

// A CALine is the local CA, and where devices get it.
type CALine struct {
	Name   string   `json:"name"`
	SHA256 string   `json:"sha256"` // colon hex, as programs show it
	Until  string   `json:"until"`
	Only   []string `json:"only"`  // domains, names and addresses it may vouch for; empty for any
	Pages  []string `json:"pages"` // addresses of the page for devices; empty while it is off
}

// VouchesFor are the domains, names and addresses that a CA may vouch for; none for any.
func VouchesFor(ca *x509.Certificate) []string {
	only := slices.Clone(ca.PermittedDNSDomains)
	for _, r := range ca.PermittedIPRanges {
		only = append(only, r.String())
	}
	return only
}

// DeviceLink is the address of the page for devices with the fingerprint of the CA (DER)
// behind it, as it stands in codes that cameras read: who has it from this machine's own
// screen has something to compare with. The part behind # is sent to nobody.
func DeviceLink(page string, ca []byte) string {
	return fmt.Sprintf("%s#sha256=%X", page, sha256.Sum256(ca))
}
