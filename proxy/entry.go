package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"time"
)

// accept takes clients from one listener, as far as the gate lets them in.
func (p *Proxy) accept(l net.Listener) {
	pause := 5 * time.Millisecond
	tcp := l
	if watched, ok := l.(*listener); ok {
		tcp = watched.Listener
	}
	var spare spare
	spare.keep(tcp)
	defer spare.close()
	for {
		conn, err := l.Accept()
		if outOfFiles(err) {
			var room bool
			if conn, room, err = spare.accept(tcp, err); err == nil && !room {
				p.refusedFor(RefusedFiles)
				refuse(conn, refusals[RefusedFiles])
				spare.keep(tcp)
				continue
			}
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) { // of the spare: nobody was there
				p.log.Error("a client could not be accepted", "err", err)
			}
			// The others go on, this one waits.
			select {
			case <-time.After(pause):
				pause = min(2*pause, time.Second)
				continue
			case <-p.ctx.Done():
				return
			}
		}
		pause = 5 * time.Millisecond
		cfg := p.Config()
		if !cfg.MayCome(addressOf(conn.RemoteAddr())) {
			p.refusedFor(RefusedAccess)
			refuse(conn, "This otrproxy is not for the address you come from (access in its configuration).")
			continue
		}
		v, cause := p.gate.admit(conn, cfg.Limits)
		if v == nil {
			p.refusedFor(cause)
			refuse(conn, refusals[cause])
			continue
		}
		if !p.begin() {
			conn.Close()
			p.gate.leave(v)
			continue
		}
		go func() {
			over := func() {
				conn.Close()
				p.gate.leave(v)
				p.calm.broken()
				p.wg.Done()
			}
			s := p.enter(conn, v, loopbackOnly(conn))
			p.calm.broken()
			if s == nil {
				over()
				return
			}
			go func() { // on a small stack: a login needs a large one, and a session lasts
				defer over()
				s.run()
			}()
		}()
	}
}

// begin notes that a client is served; false when the proxy stops.
func (p *Proxy) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closing {
		p.wg.Add(1)
	}
	return !p.closing
}

// First bytes of what a client may speak.
const (
	firstTLS   = 0x16
	firstXMPP  = '<'
	firstSOCKS = 0x05
	firstHTTP  = 'G' // GET, the beginning of a WebSocket
)

// enter looks at a client's first byte: direct TLS, plain XMPP, a WebSocket, or SOCKS, by
// which it is carried here. Local says that both ends are on this machine. It returns the
// session of a client that has logged in, else nil.
func (p *Proxy) enter(conn net.Conn, v *visitor, local bool) *session {
	conn.SetDeadline(time.Now().Add(p.Config().Limits.Login))
	w := newWire(conn)
	c := &client{p: p, visitor: v, raw: conn, wire: w, conn: w, local: local}
	return c.meet()
}

// meet is enter for a client, or for what a SOCKS client carries.
func (c *client) meet() *session {
	first, err := c.wire.peek()
	if err != nil {
		return nil
	}
	kind := "plain"
	if first == firstTLS {
		if err := c.secure(""); err != nil {
			c.p.log.Info("a client's TLS handshake failed", "err", err)
			return nil
		}
		kind = "direct"
		b := make([]byte, 1)
		if _, err := c.conn.Read(b); err != nil {
			return nil
		}
		first = b[0]
		c.conn = &peeked{Conn: c.conn, first: b}
	}
	switch {
	case first == firstXMPP || c.tls && first != firstHTTP: // what is no XMPP is told so
	case first == firstHTTP:
		if err := c.webSocket(c.conn); err != nil {
			c.p.log.Info("a client's WebSocket was refused", "err", err)
			return nil
		}
		kind, c.webbed = "websocket", true
	case first == firstSOCKS && c.by == "":
		return c.carried()
	default:
		c.p.log.Info("a client speaks neither XMPP nor TLS", "first byte", first)
		return nil
	}
	c.entry = c.by + kind
	return c.negotiate()
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

// peeked gives back the bytes that were looked at.
type peeked struct {
	net.Conn
	first []byte
}

// CloseWrite ends the sending direction.
func (c *peeked) CloseWrite() error {
	if t, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return t.CloseWrite()
	}
	return nil
}

func (c *peeked) Read(b []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(b)
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
	c      *client
	domain string
}

func (s showing) certificate(sni string) (*tls.Certificate, error) {
	if s.domain == "" {
		s.domain = s.c.p.nameFor(sni)
	}
	if _, ok := s.c.p.Config().Domain(s.domain); !ok && s.domain != "localhost" {
		return nil, errors.New("the configuration does not list the domain")
	}
	leaf, err := s.c.p.leaf(s.domain, s.c.raw.LocalAddr())
	if err == nil {
		s.c.leaf = leaf.Certificate[0]
	}
	return leaf, err
}

// secure does the TLS handshake with a client. Domain is that of the stream, or
// empty when TLS comes first and only SNI can tell.
func (c *client) secure(domain string) error {
	c.wire.records = true
	t := tls.Server(c.wire, toClients)
	if err := t.HandshakeContext(context.WithValue(context.Background(), showing{}, showing{c, domain})); err != nil {
		return err
	}
	cs := t.ConnectionState()
	c.conn, c.over, c.tls, c.sni = t, t, true, cs.ServerName
	c.tlsVersion = tls.VersionName(cs.Version)
	return nil
}

// nameFor is the domain to show a certificate of when TLS comes before the
// stream: the one SNI names, else the only one that is configured.
func (p *Proxy) nameFor(sni string) string {
	if sni != "" && !p.ownHost(sni) {
		if d, err := domainName(sni); err == nil {
			return d
		}
	}
	cfg := p.Config()
	if len(cfg.Domains) == 1 {
		for name := range cfg.Domains {
			return name
		}
	}
	return "localhost"
}
