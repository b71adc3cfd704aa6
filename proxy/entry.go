package proxy

import (
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"time"

	"otrproxy/stanza"
)

// accept takes clients from one listener.
func (p *Proxy) accept(l net.Listener) {
	pause := 5 * time.Millisecond
	for {
		conn, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, say: the others go on, this one waits.
			p.log.Error("a client could not be accepted", "err", err)
			select {
			case <-time.After(pause):
				pause = min(2*pause, time.Second)
				continue
			case <-p.ctx.Done():
				return
			}
		}
		pause = 5 * time.Millisecond
		p.mu.Lock()
		full := len(p.conns) >= p.Config().Limits.Sessions
		if p.closing {
			p.mu.Unlock()
			conn.Close()
			continue
		}
		if !full {
			p.conns[conn] = struct{}{}
			p.wg.Add(1)
		}
		p.mu.Unlock()
		if full {
			p.log.Warn("a client was refused: limits.sessions is reached", "sessions", p.Config().Limits.Sessions)
			refuse(conn)
			continue
		}
		go func() {
			defer p.wg.Done()
			defer func() {
				conn.Close()
				p.mu.Lock()
				delete(p.conns, conn)
				p.mu.Unlock()
			}()
			p.enter(conn)
		}()
	}
}

// refuse tells a client that speaks plain XMPP that there is no room.
func refuse(conn net.Conn) {
	conn.SetDeadline(time.Now().Add(time.Second))
	conn.Write(stanza.AppendStreamError(stanza.Header{}.AppendTo(nil), "resource-constraint", "otrproxy serves as many sessions as its configuration allows (limits.sessions)."))
	conn.Close()
}

// First bytes of what a client may speak.
const (
	firstTLS  = 0x16
	firstXMPP = '<'
)

// enter looks at a client's first byte: direct TLS or plain XMPP.
func (p *Proxy) enter(conn net.Conn) {
	conn.SetDeadline(time.Now().Add(p.Config().Limits.Login))
	var first [1]byte
	if _, err := conn.Read(first[:]); err != nil {
		return
	}
	c := &client{p: p, raw: conn, local: loopbackOnly(conn)}
	rest := &peeked{Conn: conn, first: first[:]}
	switch first[0] {
	case firstTLS:
		if err := c.secure(rest, ""); err != nil {
			p.log.Info("a client's TLS handshake failed", "err", err)
			return
		}
		c.entry = "direct"
	case firstXMPP:
		c.conn, c.entry = rest, "plain"
	default:
		p.log.Info("a client speaks neither XMPP nor TLS", "first byte", first[0])
		return
	}
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
		NextProtos: []string{"xmpp-client"},
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			name := domain
			if name == "" {
				name = c.p.nameFor(h.ServerName)
			}
			if _, ok := c.p.Config().Domain(name); !ok && name != "localhost" {
				return nil, errors.New("the configuration does not list the domain")
			}
			return c.p.ca.leaf(name)
		},
	})
	if err := t.Handshake(); err != nil {
		return err
	}
	cs := t.ConnectionState()
	c.conn, c.tls, c.sni = t, true, cs.ServerName
	c.tlsVersion = tls.VersionName(cs.Version)
	return nil
}

// nameFor is the domain to show a certificate of when TLS comes before the
// stream: the one SNI names, else the only one that is configured.
func (p *Proxy) nameFor(sni string) string {
	if sni != "" && !ownHost(sni) {
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

// ownHost reports whether a name is one of this machine's rather than a domain's:
// some clients put the host they connect to into SNI.
func ownHost(name string) bool {
	name = strings.TrimSuffix(name, ".")
	return strings.EqualFold(name, "localhost") || net.ParseIP(name) != nil
}
