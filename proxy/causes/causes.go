package causes

import (
	"crypto/x509"
	"fmt"
)

// A Cause says why a client could not be connected to its server. It is a
// closed set: stream errors, the log and metrics all draw from it.
type Cause string

// The causes.
const (
	FailDomain      Cause = "domain_refused"     // the configuration does not allow the domain
	FailDNS         Cause = "dns"                // no such host
	FailTCP         Cause = "tcp"                // nobody answers there
	FailVia         Cause = "socks"              // the SOCKS proxy that leads there does not answer
	FailTLS         Cause = "tls"                // the TLS handshake failed
	FailCertificate Cause = "certificate"        // no pin, and no CA of this machine vouches for it
	FailPin         Cause = "pin_mismatch"       // another certificate or key than the pinned one
	FailStripped    Cause = "starttls_stripped"  // the server offers no TLS
	FailInjected    Cause = "starttls_injection" // bytes in clear after the answer to STARTTLS
	FailProtocol    Cause = "protocol"           // the server does not speak XMPP as it should
	FailSASL        Cause = "sasl"               // the login failed, or the server could not prove itself
	FailDowngrade   Cause = "login_downgrade"    // the server lets in by less than it did before
	FailMechanism   Cause = "no_mechanism"       // the server offers no login we may use
	FailTimeout     Cause = "timeout"            // it took too long
	FailState       Cause = "account"            // the account's own files cannot be used
	FailLost        Cause = "connection_lost"    // the server went away during the session
	FailSilent      Cause = "silent"             // the server gave no sign of life during the session
	FailAccess      Cause = "access"             // the configuration does not let them in
	FailLimit       Cause = "limit"              // no room for one more
)

// Causes is the closed set, for metrics that exist from the start.
var Causes = []Cause{FailDomain, FailDNS, FailTCP, FailVia, FailTLS, FailCertificate, FailPin, FailStripped,
	FailInjected, FailProtocol, FailSASL, FailDowngrade, FailMechanism, FailTimeout, FailState, FailLost, FailSilent, FailAccess, FailLimit}

// Condition is the stream error condition (RFC 6120 section 4.9.3) that tells a
// client of a cause.
func (c Cause) Condition() string {
	switch c {
	case FailDomain, FailDNS:
		return "host-unknown"
	case FailTCP, FailVia, FailTLS, FailTimeout, FailLost, FailSilent, FailProtocol:
		return "remote-connection-failed"
	case FailLimit:
		return "resource-constraint"
	case FailState:
		return "internal-server-error"
	}
	return "policy-violation"
}

// Certificate reports whether the refusal was about who the server is, which
// dialling again at once will not change.
func (c Cause) Certificate() bool { return c == FailPin || c == FailCertificate }

// A Failure is why a connection to a server was not made. Text is for the person
// at the client: what is wrong and what to do now.
type Failure struct {
	Cause  Cause
	Text   string
	Quoted string // the part of Text that others wrote, which the log must not hold
	Err    error
	Host   string // which Text names, where others wrote it (DNS, or the server)

	// Of a certificate that was refused: what was presented, and the pins it should have
	// satisfied.
	Cert   *x509.Certificate
	Pinned []string
}

func (f *Failure) Error() string { return f.Text }
func (f *Failure) Unwrap() error { return f.Err }

// New is a failure whose text is made of a format, for the person at the client.
func New(c Cause, err error, format string, args ...any) *Failure {
	return &Failure{Cause: c, Text: fmt.Sprintf(format, args...), Err: err}
}
