package listen

import (
	"context"
	"io"
	"log"
	"net"

	"github.com/armon/go-socks5"
)

// A client that can only be told to use a SOCKS proxy (RFC 1928) names the server it wants
// to reach, and is carried to ourselves: no connection is made for it to anywhere else, so
// that this is no relay. What it may name are the servers that it may log in to.

// carried serves a client that has begun with SOCKS, and then what it speaks inside.
func (c *Caller) carried() bool {
	rest, ok := c.door.handshake(c.Wire)
	if !ok {
		return false
	}
	c.Wire.Unread(rest)
	c.By = "socks5 "
	return c.meet()
}

// handshake has the library do the SOCKS handshake and nothing more: it finds nothing to copy
// afterwards. The rest is what the client had sent after the handshake and the library had read.
func (dr *Door) handshake(conn net.Conn) (rest []byte, ok bool) {
	landed := &landing{}
	server, err := socks5.New(&socks5.Config{
		AuthMethods: []socks5.Authenticator{socks5.NoAuthAuthenticator{}, socks5.UserPassAuthenticator{Credentials: anybody{}}},
		Resolver:    noNames{},
		Rules:       destinations{dr},
		Logger:      log.New(io.Discard, "", 0), // it would name people's servers
		Dial:        func(context.Context, string, string) (net.Conn, error) { ok = true; return landed, nil },
	})
	if err != nil {
		dr.log.Error("the SOCKS entry cannot be used", "err", err)
		return nil, false
	}
	defer func() { // the library has panicked on odd input before
		if r := recover(); r != nil {
			dr.log.Warn("a client's SOCKS request could not be read")
			ok = false
		}
	}()
	if err := server.ServeConn(unclosed{conn}); err != nil {
		return nil, false
	}
	return landed.rest, ok
}

// unclosed is a connection that the library does not close: it is used after the handshake.
type unclosed struct{ net.Conn }

func (unclosed) Close() error { return nil }

// A landing stands in for the connection to a server that the library expects. It keeps what
// the library has read after the handshake, and tells it that there is nothing else to copy.
type landing struct {
	net.Conn // none
	rest     []byte
}

func (l *landing) Write(b []byte) (int, error) {
	l.rest = append(l.rest, b...)
	return len(b), nil
}

func (*landing) ReadFrom(io.Reader) (int64, error) { return 0, nil }
func (*landing) WriteTo(io.Writer) (int64, error)  { return 0, nil }
func (*landing) CloseWrite() error                 { return nil }
func (*landing) Close() error                      { return nil }

// LocalAddr is what the library tells the client.
func (*landing) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// anybody may come, with whatever name and password: who somebody is shows at the login.
type anybody struct{}

func (anybody) Valid(string, string) bool { return true }

// noNames resolves nothing: nobody is to learn whom people talk to.
type noNames struct{}

func (noNames) Resolve(ctx context.Context, _ string) (context.Context, net.IP, error) {
	return ctx, nil, nil
}

// destinations are the requests that are served.
type destinations struct{ dr *Door }

func (r destinations) Allow(ctx context.Context, q *socks5.Request) (context.Context, bool) {
	host := q.DestAddr.FQDN
	if host == "" {
		host = q.DestAddr.IP.String()
	}
	if q.Command == socks5.ConnectCommand && r.dr.Serves(r.dr.ctx, host, q.DestAddr.Port) {
		return ctx, true
	}
	r.dr.log.Info("a client asked the SOCKS entry for something that is no XMPP server it may log in to", "host", r.dr.log.Name(host), "port", q.DestAddr.Port)
	return ctx, false
}
