package proxy

import (
	"crypto/x509"
	"fmt"
)

// A FailureCause says why a client could not be connected to its server. It is a
// closed set: stream errors, the log and metrics all draw from it.
type FailureCause string

const (
	FailDomain      FailureCause = "domain_refused"     // the configuration does not allow the domain
	FailDNS         FailureCause = "dns"                // no such host
	FailTCP         FailureCause = "tcp"                // nobody answers there
	FailVia         FailureCause = "socks"              // the SOCKS proxy that leads there does not answer
	FailTLS         FailureCause = "tls"                // the TLS handshake failed
	FailCertificate FailureCause = "certificate"        // no pin, and no CA of this machine vouches for it
	FailPin         FailureCause = "pin_mismatch"       // another certificate or key than the pinned one
	FailStripped    FailureCause = "starttls_stripped"  // the server offers no TLS
	FailInjected    FailureCause = "starttls_injection" // bytes behind the answer to STARTTLS
	FailProtocol    FailureCause = "protocol"           // the server does not speak XMPP as it should
	FailSASL        FailureCause = "sasl"               // the login failed, or the server could not prove itself
	FailDowngrade   FailureCause = "login_downgrade"    // the server lets in by less than it did before
	FailMechanism   FailureCause = "no_mechanism"       // the server offers no login we may use
	FailTimeout     FailureCause = "timeout"            // it took too long
	FailState       FailureCause = "account"            // the account's own files cannot be used
	FailLost        FailureCause = "connection_lost"    // the server went away during the session
	FailSilent      FailureCause = "silent"             // the server gave no sign of life during the session
	FailAccess      FailureCause = "access"             // the configuration does not let them in
	FailLimit       FailureCause = "limit"              // no room for one more
)

var failureCauses = []FailureCause{FailDomain, FailDNS, FailTCP, FailVia, FailTLS, FailCertificate, FailPin, FailStripped,
	FailInjected, FailProtocol, FailSASL, FailDowngrade, FailMechanism, FailTimeout, FailState, FailLost, FailSilent, FailAccess, FailLimit}

// condition is the stream error condition (RFC 6120 section 4.9.3) that tells a
// client of a cause.
func (c FailureCause) condition() string {
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

// certificate reports whether the refusal was about who the server is, which
// dialling again at once will not change.
func (c FailureCause) certificate() bool { return c == FailPin || c == FailCertificate }

// A Failure is why a connection to a server was not made. Text is for the person
// at the client: what is wrong and what to do now.
type Failure struct {
	Cause  FailureCause
	Text   string
	Quoted string // the part of Text that others wrote, which the log must not hold
	Err    error
	host   string // which Text names, where others wrote it (DNS, or the server)

	// Of a certificate that was refused: what was presented, and the pins it should have
	// satisfied.
	cert   *x509.Certificate
	Pinned []string
}

func (f *Failure) Error() string { return f.Text }
func (f *Failure) Unwrap() error { return f.Err }

func fail(c FailureCause, err error, format string, args ...any) *Failure {
	return &Failure{Cause: c, Text: fmt.Sprintf(format, args...), Err: err}
}
