// Package config turns the YAML of the configuration file into a checked
// Config, and holds the household's rules: who must encrypt to whom.
//
// It is strict: an unknown or repeated key, a value out of range or a word that
// means nothing is an error that names file, line and what to write instead.
// The package knows nothing of what is live.
package config

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Config is the whole configuration, every default filled in.
type Config struct {
	Listen  []string // addresses, host:port
	State   string   // state directory
	Web     string   // address of the web page, empty for off
	Metrics string   // address of the metrics, empty for off
	Log     Log
	Domains map[string]Domain // empty: any domain, trust on first use
	OTR     []Rule            // first match wins
	Access  []Access          // first match wins; empty: everybody who can reach the proxy
	Hold    Hold
	Limits  Limits
	Notify  Notify
	Admins  []string      // bare JIDs whose owners may decide about servers from a chat
	Origins []string      // of web pages that may connect by WebSocket, besides those of this machine
	Idle    time.Duration // after which silence ends a private conversation, so that old keys go
	Confine string        // auto, require or off: whether the process takes from itself what it does not need

	File string // where it was read from, empty for the defaults

	// For a household's devices.
	Names      []string // host names and addresses by which they reach this machine
	Onboarding string   // address of the page for them, empty for off
}

// Notify names a command that is run when something happens that a person may want to
// know of. It is told what, and with whom; never what was written.
type Notify struct {
	Command []string // program and arguments; empty for none
	Events  []string // on which of NotifyEvents
}

// NotifyEvents are the words for events; the first ones are told where none are chosen.
var (
	NotifyEvents  = []string{"key-changed", "asked", "held", "returned", "server-refused", "server-expiring", "login-unknown", "server-renewed", "private", "ended", "trust", "compared", "released"}
	defaultEvents = NotifyEvents[:7]
)

// Log says how much is written on standard error, and how.
type Log struct {
	Level  string // debug, info, warn or error
	Format string // text or json
	JIDs   bool   // JIDs in clear instead of hashed
}

// A TLSMode says how the connection to a server is secured. There is no mode
// without TLS.
type TLSMode string

// How a server is reached.
const (
	TLSAuto     TLSMode = "auto"     // as DNS says; with Connect: STARTTLS, or direct on port 5223
	TLSStartTLS TLSMode = "starttls" // RFC 6120 section 5
	TLSDirect   TLSMode = "direct"   // XEP-0368
)

// A TrustMode says what a server's certificate must satisfy.
type TrustMode string

// What a server is held to.
const (
	TrustPin   TrustMode = "pin"    // one of Pins; no CA is asked
	TrustCA    TrustMode = "ca"     // a chain to a CA of this machine, and the domain's name
	TrustCAPin TrustMode = "ca+pin" // both
	TrustDANE  TrustMode = "dane"   // what DNS says, signed (TLSA); no CA is asked but where that says so
	TrustTOFU  TrustMode = "tofu"   // first use as with TrustCA, from then on the key seen first
)

// A Domain is one XMPP domain people may log in to.
type Domain struct {
	Name          string
	Connect       string // host:port instead of the DNS's SRV records
	TLS           TLSMode
	Trust         TrustMode
	Pins          []Pin
	Via           string // socks5://host:port
	PlainUpstream bool   // SASL PLAIN may be used upstream
}

// A Pin names one certificate or key.
type Pin struct {
	SPKI bool // of the public key (SubjectPublicKeyInfo) instead of the whole certificate
	Sum  [32]byte
}

// String is the pin as it is written in the configuration: the SHA-256 of the
// certificate as colon hex, or of its key in base64.
func (p Pin) String() string {
	if p.SPKI {
		return "spki-sha256:" + base64.StdEncoding.EncodeToString(p.Sum[:])
	}
	return "sha256:" + ColonHex(p.Sum[:])
}

// ColonHex is how certificates' fingerprints are written: AB:CD:...
func ColonHex(b []byte) string {
	var s strings.Builder
	for i, c := range b {
		if i > 0 {
			s.WriteByte(':')
		}
		fmt.Fprintf(&s, "%02X", c)
	}
	return s.String()
}

// ParsePin reads a pin as Pin.String writes it; the colons and the case of the
// hex digits do not matter.
func ParsePin(s string) (Pin, error) {
	kind, value, _ := strings.Cut(s, ":")
	var sum []byte
	var err error
	p := Pin{}
	switch kind {
	case "sha256":
		sum, err = hex.DecodeString(strings.ReplaceAll(value, ":", ""))
	case "spki-sha256":
		p.SPKI = true
		sum, err = base64.StdEncoding.DecodeString(value)
	case "sha1":
		return p, errors.New("SHA-1 fingerprints can be forged and are no pins; use sha256:AB:CD:... (openssl x509 -noout -fingerprint -sha256)")
	default:
		return p, fmt.Errorf("%q is no pin; write sha256:AB:CD:... or spki-sha256:BASE64=", s)
	}
	if err != nil || len(sum) != len(p.Sum) {
		return p, fmt.Errorf("%q is not the %d bytes of a SHA-256 sum", s, len(p.Sum))
	}
	copy(p.Sum[:], sum)
	return p, nil
}

// A Policy says what happens to text a person writes to a contact.
type Policy string

// The policies.
const (
	Never         Policy = "never"            // hands off: nothing is changed
	Manual        Policy = "manual"           // plain until somebody asks; once private, never silently back
	Opportunistic Policy = "opportunistic"    // offers OTR by the whitespace tag; once private, never silently back
	Require       Policy = "require"          // nothing leaves in clear
	RequireVerify Policy = "require-verified" // nor to a key nobody has verified
)

var policies = []Policy{Never, Manual, Opportunistic, Require, RequireVerify}

// Requires reports whether nothing may leave in clear.
func (p Policy) Requires() bool { return p != Never && p != Manual && p != Opportunistic }

// An Allow is something that may pass although OTR cannot protect it.
type Allow string

// What a rule may let pass.
const (
	Groupchat  Allow = "groupchat"
	Files      Allow = "files"
	OMEMO      Allow = "omemo"
	OpenPGP    Allow = "openpgp"
	Receipts   Allow = "receipts"
	Chatstates Allow = "chatstates"
	Status     Allow = "status"
	Services   Allow = "services" // any request to the own server and to services, and whatever they answer
)

var (
	allows       = []Allow{Groupchat, Files, OMEMO, OpenPGP, Receipts, Chatstates, Status, Services}
	defaultAllow = []Allow{OMEMO, OpenPGP, Receipts, Chatstates, Status}
)

// A Rule is one line of the household's rules.
type Rule struct {
	Account string // pattern of the own bare JID
	Contact string // pattern of the contact's bare JID
	Policy  Policy
	Allow   []Allow
	// Versions of OTR that may be spoken; nil for 3, and 2 where the contact has
	// nothing better.
	Versions []int
	Drop     bool   // clear text is not shown where encryption is expected, instead of marked
	Reason   string // shown to whom the rule stops
	Line     int    // in the configuration file, 0 for the built-in rule
}

// Allows reports whether the rule lets something pass unprotected.
func (r *Rule) Allows(a Allow) bool { return slices.Contains(r.Allow, a) }

var defaultRule = Rule{Account: "*", Contact: "*", Policy: Require, Allow: defaultAllow}

// RuleFor is the first rule that matches two bare JIDs; where none does, the
// built-in one, which requires OTR.
func (c *Config) RuleFor(account, contact string) *Rule {
	for i := range c.OTR {
		if r := &c.OTR[i]; match(r.Account, account) && match(r.Contact, contact) {
			return r
		}
	}
	return &defaultRule
}

// HandsOff reports whether the rules leave an account alone, whoever its contact is.
func (c *Config) HandsOff(account string) bool {
	for i := range c.OTR {
		if r := &c.OTR[i]; match(r.Account, account) {
			if r.Policy != Never {
				return false
			}
			if r.Contact == "*" {
				return true
			}
		}
	}
	return false
}

// match compares a bare JID with a pattern in which each * stands for any
// characters. JIDs are compared without regard to case: a rule that fails to
// match for a capital letter would be no rule.
func match(pattern, jid string) bool {
	if pattern == "*" { // most are, and this is done for each stanza
		return true
	}
	pattern, jid = strings.ToLower(pattern), strings.ToLower(jid) // costs no memory where they are small already
	first, rest, wild := strings.Cut(pattern, "*")
	if !wild {
		return pattern == jid
	}
	jid, fits := strings.CutPrefix(jid, first)
	for fits {
		part, more, again := strings.Cut(rest, "*")
		if !again {
			return strings.HasSuffix(jid, rest)
		}
		_, jid, fits = strings.Cut(jid, part)
		rest = more
	}
	return false
}

// Hold bounds the messages that wait for a private conversation, per contact.
type Hold struct {
	Messages int
	Bytes    int
	For      time.Duration // from when the message was handed over, or the contact has come
	Offline  time.Duration // where the contact is known to be offline
}

// An Access is one line of who may use the proxy at all.
type Access struct {
	Account string         // pattern of the bare JID
	From    []netip.Prefix // addresses they come from; empty for any
	Refuse  string         // why they may not; "" where they may
	Line    int            // in the configuration file
}

// fits reports whether the line is about an address.
func (a *Access) fits(from netip.Addr) bool {
	return len(a.From) == 0 || slices.ContainsFunc(a.From, func(p netip.Prefix) bool { return p.Contains(from.Unmap().WithZone("")) }) // a prefix contains no address with a zone
}

// MayUse is whether an account may be used from an address; where not, why, for the person.
func (c *Config) MayUse(account string, from netip.Addr) (ok bool, why string) {
	if len(c.Access) == 0 {
		return true, ""
	}
	for i := range c.Access {
		if a := &c.Access[i]; match(a.Account, account) && a.fits(from) {
			return a.Refuse == "", a.Refuse
		}
	}
	return false, "it is not on the list of those who may use it (access)"
}

// IsAdmin reports whether the owner of a bare JID may decide about servers from a chat.
func (c *Config) IsAdmin(account string) bool { return slices.Contains(c.Admins, account) }

// MayCome reports whether anybody may use the proxy from an address.
func (c *Config) MayCome(from netip.Addr) bool {
	return len(c.Access) == 0 || slices.ContainsFunc(c.Access, func(a Access) bool { return a.Refuse == "" && a.fits(from) })
}

// Limits bound what clients may cost.
type Limits struct {
	Sessions   int           // logged in
	PerAddress int           // connections from one other machine; this one has no limit of its own
	PerAccount int           // sessions of one account
	Accounts   int           // that are kept in the state directory; others are not let in
	Pending    int           // connections that have not logged in
	Rate       int           // stanzas a second of one client; faster ones wait
	Stanza     int           // bytes
	Memory     int           // bytes in all, from which on nobody else is let in and nothing more held
	Linger     time.Duration // for which a session stays without its client, for what waits; 0 for not at all
	Login      time.Duration // from connect to the end of the login
	Answer     time.Duration // within which a server shows that it has taken what it was sent
	Alive      time.Duration // within which the silence of an idle server is noticed; 0 for never
}

// Default is the configuration without a file.
func Default() *Config {
	return &Config{
		Listen: []string{"127.0.0.1:5222"},
		State:  DefaultState(),
		Log:    Log{Level: "info", Format: "text"},
		Hold:   Hold{Messages: 100, Bytes: 1 << 20, For: 10 * time.Minute, Offline: 24 * time.Hour},
		Limits: Limits{Sessions: 200, PerAddress: 50, PerAccount: 20, Accounts: 1000, Pending: 100, Rate: 200, Stanza: 256 << 10, Memory: 512 << 20, Linger: 2 * time.Minute, Login: 30 * time.Second, Answer: time.Minute, Alive: 5 * time.Minute},
		Idle:   72 * time.Hour,

		Confine: "auto",
	}
}

// Domain is what holds for an XMPP domain, and whether people may log in to it.
func (c *Config) Domain(name string) (Domain, bool) {
	if d, ok := c.Domains[name]; ok {
		return d, true
	}
	if len(c.Domains) == 0 {
		return Domain{Name: name, TLS: TLSAuto, Trust: TrustTOFU}, true
	}
	return Domain{}, false
}

// Loopback reports whether an address that is listened on can be reached from
// this machine only.
func Loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
