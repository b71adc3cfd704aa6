package welcome

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"golang.org/x/net/netutil"
)

// maxDevices bounds the connections at one time.
const maxDevices = 64

// Listen has a listener accept HTTPS besides HTTP: who has installed the CA sees by that
// whether it works.
func (p *Page) Listen(l net.Listener) net.Listener {
	return listener{netutil.LimitListener(l, maxDevices), &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return p.box.Certificate(h.Conn.LocalAddr())
		},
	}}
}

type listener struct {
	net.Listener
	config *tls.Config
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, config: l.config, plain: begun{Conn: c}}, nil
}

const firstTLS = 0x16

// A conn is a connection of which its first byte says whether it is TLS. Nothing waits for
// that byte but who reads.
type conn struct {
	net.Conn
	config *tls.Config
	look   sync.Once
	plain  begun
	over   atomic.Pointer[tls.Conn]
}

func (c *conn) Read(b []byte) (int, error) {
	var err error
	c.look.Do(func() {
		first := make([]byte, 1)
		if _, err = c.Conn.Read(first); err != nil {
			return
		}
		if c.plain.first = first; first[0] == firstTLS {
			c.over.Store(tls.Server(&c.plain, c.config))
		}
	})
	if err != nil {
		return 0, err
	}
	if t := c.over.Load(); t != nil {
		return t.Read(b)
	}
	return c.plain.Read(b)
}

func (c *conn) Write(b []byte) (int, error) {
	if t := c.over.Load(); t != nil {
		return t.Write(b)
	}
	return c.Conn.Write(b)
}

func (c *conn) Close() error {
	if t := c.over.Load(); t != nil {
		return t.Close()
	}
	return c.Conn.Close()
}

// begun gives back what was read of a connection.
type begun struct {
	net.Conn
	first []byte
}

func (c *begun) Read(b []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

type connKey struct{}

func remember(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// overTLS reports whether a request has come by HTTPS.
func overTLS(r *http.Request) bool {
	c, ok := r.Context().Value(connKey{}).(*conn)
	return ok && c.over.Load() != nil
}
