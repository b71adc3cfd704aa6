package proxy

import (
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
			defer p.wg.Done()
			defer p.gate.leave(v)
			defer conn.Close()
			p.enter(conn, v, loopbackOnly(conn), "")
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
// which it is carried here. Local says that both ends are on this machine.
func (p *Proxy) enter(conn net.Conn, v *visitor, local bool, by string) {
	conn.SetDeadline(time.Now().Add(p.Config().Limits.Login))
	var first [1]byte
	if _, err := conn.Read(first[:]); err != nil {
		return
	}
	c := &client{p: p, visitor: v, raw: conn, conn: conn, local: local, by: by}
	rest := &peeked{Conn: conn, first: first[:]}
	kind := "plain"
	if first[0] == firstTLS {
		if err := c.secure(rest, ""); err != nil {
			p.log.Info("a client's TLS handshake failed", "err", err)
			return
		}
		kind = "direct"
		if _, err := c.conn.Read(first[:]); err != nil {
			return
		}
		rest = &peeked{Conn: c.conn, first: []byte{first[0]}}
	}
	switch {
	case first[0] == firstXMPP || c.tls && first[0] != firstHTTP: // what is no XMPP is told so
		c.conn = rest
	case first[0] == firstHTTP:
		if err := c.webSocket(rest); err != nil {
			p.log.Info("a client's WebSocket was refused", "err", err)
			return
		}
		kind, c.webbed = "websocket", true
	case first[0] == firstSOCKS && by == "":
		p.socksEntry(rest, v, local)
		return
	default:
		p.log.Info("a client speaks neither XMPP nor TLS", "first byte", first[0])
		return
	}
	c.entry = by + kind
	c.negotiate()
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

// secure does the TLS handshake with a client. Domain is that of the stream, or
// empty when TLS comes first and only SNI can tell.
func (c *client) secure(conn net.Conn, domain string) error {
	t := tls.Server(conn, &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"xmpp-client", "http/1.1"}, // the latter of browsers, for a WebSocket
		// Streams last for days: what clients would keep to resume one costs more than it saves.
		SessionTicketsDisabled: true,
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			name := domain
			if name == "" {
				name = c.p.nameFor(h.ServerName)
			}
			if _, ok := c.p.Config().Domain(name); !ok && name != "localhost" {
				return nil, errors.New("the configuration does not list the domain")
			}
			leaf, err := c.p.leaf(name, c.raw.LocalAddr())
			if err == nil {
				c.leaf = leaf.Certificate[0]
			}
			return leaf, err
		},
	})
	if err := t.Handshake(); err != nil {
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
