package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"net"

	"otrproxy/proxy/address"
	"otrproxy/proxy/leg"
)

// First bytes of what a client may speak.
const (
	firstTLS   = 0x16
	firstXMPP  = '<'
	firstSOCKS = 0x05
	firstHTTP  = 'G' // GET, the beginning of a WebSocket
)

// A Caller is a client that has come, as it is spoken to. One goroutine owns it.
type Caller struct {
	door       *Door
	Visitor    *Visitor
	Raw        net.Conn  // the TCP connection
	Wire       *leg.Wire // around it
	Conn       net.Conn  // what is spoken over: the wire, or TLS
	whence     string    // its place, once the system has been asked
	Local      bool      // both ends on this machine
	TLS        bool
	TLSConn    *tls.Conn // nil without TLS
	Webbed     bool      // it speaks XMPP over WebSocket
	By         string    // how it was carried here, "" or "socks5 "
	TLSVersion string
	SNI        string
	Entry      string // plain, starttls, direct or websocket; after by
	Leaf       []byte // the certificate it was shown, DER
}

// meet finds out how a client speaks, or what a SOCKS client carries; false for what is not
// served.
func (c *Caller) meet() bool {
	first, err := c.Wire.Peek()
	if err != nil {
		return false
	}
	kind := "plain"
	if first == firstTLS {
		if err := c.Secure(""); err != nil {
			c.door.log.Info("a client's TLS handshake failed", "err", err)
			return false
		}
		kind = "direct"
		b := make([]byte, 1)
		if _, err := c.Conn.Read(b); err != nil {
			return false
		}
		first = b[0]
		c.Conn = &leg.Peeked{Conn: c.Conn, First: b}
	}
	switch {
	case first == firstXMPP || c.TLS && first != firstHTTP: // what is no XMPP is told so
	case first == firstHTTP:
		if err := c.webSocket(c.Conn); err != nil {
			c.door.log.Info("a client's WebSocket was refused", "err", err)
			return false
		}
		kind, c.Webbed = "websocket", true
	case first == firstSOCKS && c.By == "":
		return c.carried()
	default:
		c.door.log.Info("a client speaks neither XMPP nor TLS", "first byte", first)
		return false
	}
	c.Entry = c.By + kind
	return true
}

// Host is where the client comes from.
func (c *Caller) Host() string {
	name, _ := hostOf(c.Raw)
	return name
}

// Place is where the client comes from, as guesses are counted by it: on this machine every
// user is a place of their own.
func (c *Caller) Place() string {
	if c.whence == "" {
		c.whence = c.Host() + c.door.Peers.user(c.Raw)
	}
	return c.whence
}

// loopbackOnly reports whether both ends of a connection are on this machine.
func loopbackOnly(conn net.Conn) bool {
	for _, a := range []net.Addr{conn.LocalAddr(), conn.RemoteAddr()} {
		t, ok := a.(*net.TCPAddr)
		if !ok || !t.IP.IsLoopback() {
			return false
		}
	}
	return true
}

// toClients is TLS with clients. A connection keeps it as long as it lasts, so there is one
// for all; who wants a certificate is in the handshake's context.
var toClients = &tls.Config{
	MinVersion: tls.VersionTLS12,
	NextProtos: []string{"xmpp-client", "http/1.1"}, // the latter of browsers, for a WebSocket
	// Streams last for days: what clients would keep to resume one costs more than it saves.
	SessionTicketsDisabled: true,
	// What is written at once leaves in as few records as it fits into.
	DynamicRecordSizingDisabled: true,
	GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return h.Context().Value(showing{}).(showing).certificate(h.ServerName)
	},
}

// showing is a client that is to be shown a certificate of a domain; "" where only SNI can
// tell.
type showing struct {
	c      *Caller
	domain string
}

func (s showing) certificate(sni string) (*tls.Certificate, error) {
	if s.domain == "" {
		s.domain = s.c.door.nameFor(sni)
	}
	if _, ok := s.c.door.config().Domain(s.domain); !ok && s.domain != "localhost" {
		return nil, errors.New("the configuration does not list the domain")
	}
	leaf, err := s.c.door.Machine.Leaf(s.domain, s.c.Raw.LocalAddr())
	if err == nil {
		s.c.Leaf = leaf.Certificate[0]
	}
	return leaf, err
}

// Secure does the TLS handshake with a client. Domain is that of the stream, or
// empty when TLS comes first and only SNI can tell.
func (c *Caller) Secure(domain string) error {
	c.Wire.Records = true
	t := tls.Server(c.Wire, toClients)
	if err := t.HandshakeContext(context.WithValue(context.Background(), showing{}, showing{c, domain})); err != nil {
		return err
	}
	cs := t.ConnectionState()
	c.Conn, c.TLSConn, c.TLS, c.SNI = t, t, true, cs.ServerName
	c.TLSVersion = tls.VersionName(cs.Version)
	return nil
}

// nameFor is the domain to show a certificate of when TLS comes before the
// stream: the one SNI names, else the only one that is configured.
func (dr *Door) nameFor(sni string) string {
	if sni != "" && !dr.Machine.OwnHost(sni) {
		if d, err := address.Domain(sni); err == nil {
			return d
		}
	}
	cfg := dr.config()
	if len(cfg.Domains) == 1 {
		for name := range cfg.Domains {
			return name
		}
	}
	return "localhost"
}
