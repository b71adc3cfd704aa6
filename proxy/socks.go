package proxy

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/armon/go-socks5"

	"otrproxy/config"
)

// A client that can only be told to use a SOCKS proxy (RFC 1928) names the server it wants
// to reach, and is carried to ourselves: no connection is made for it to anywhere else, so
// that this is no relay. What it may name are the servers that it may log in to.

// socksEntry serves a client that begins with SOCKS, and what it carries then.
func (p *Proxy) socksEntry(conn net.Conn, v *visitor, local bool) {
	server, err := socks5.New(&socks5.Config{
		AuthMethods: []socks5.Authenticator{socks5.NoAuthAuthenticator{}, socks5.UserPassAuthenticator{Credentials: anybody{}}},
		Resolver:    noNames{},
		Rules:       destinations{p},
		Logger:      log.New(io.Discard, "", 0), // it would name people's servers
		Dial: func(context.Context, string, string) (net.Conn, error) {
			outer, inner := pair()
			conn.SetDeadline(time.Time{}) // the login has its own, on the inner one
			p.wg.Go(func() {
				defer inner.Close()
				if s := p.enter(relayed{inner, conn.LocalAddr(), conn.RemoteAddr()}, v, local, "socks5 "); s != nil {
					s.run()
				}
				inner.Close()
				conn.SetDeadline(time.Now().Add(lastWords)) // a client that does not close holds nothing
			})
			return outer, nil
		},
	})
	if err != nil {
		p.log.Error("the SOCKS entry cannot be used", "err", err)
		return
	}
	defer func() { // the library has panicked on odd input before
		if r := recover(); r != nil {
			p.log.Warn("a client's SOCKS request could not be read")
		}
	}()
	if server.ServeConn(conn) != nil {
		p.log.Debug("a client's SOCKS connection ended")
	}
}

// relayed is a connection that comes from where the one does in which it is carried.
type relayed struct {
	carrier
	to, from net.Addr
}

func (c relayed) LocalAddr() net.Addr  { return c.to }
func (c relayed) RemoteAddr() net.Addr { return c.from }

// anybody may come, with whatever name and password: who somebody is shows at the login.
type anybody struct{}

func (anybody) Valid(string, string) bool { return true }

// noNames resolves nothing: nobody is to learn whom people talk to.
type noNames struct{}

func (noNames) Resolve(ctx context.Context, _ string) (context.Context, net.IP, error) {
	return ctx, nil, nil
}

// destinations are the requests that are served.
type destinations struct{ p *Proxy }

func (r destinations) Allow(ctx context.Context, q *socks5.Request) (context.Context, bool) {
	host := q.DestAddr.FQDN
	if host == "" {
		host = q.DestAddr.IP.String()
	}
	if q.Command == socks5.ConnectCommand && r.p.serves(r.p.ctx, host, q.DestAddr.Port) {
		return ctx, true
	}
	r.p.log.Info("a client asked the SOCKS entry for something that is no XMPP server it may log in to", "host", r.p.name(host), "port", q.DestAddr.Port)
	return ctx, false
}

// serves reports whether a place is that of a server people may log in to.
func (p *Proxy) serves(ctx context.Context, host string, port int) bool {
	host = spelled(host)
	at := net.JoinHostPort(host, strconv.Itoa(port))
	usual := port == portSTARTTLS || port == portDirectTLS
	domains := p.Config().Domains
	if len(domains) == 0 {
		return usual
	}
	for name, d := range domains {
		if usual && (host == ascii(name) || strings.HasSuffix(host, "."+ascii(name))) {
			return true
		}
		if h, n, err := net.SplitHostPort(d.Connect); err == nil && net.JoinHostPort(spelled(h), n) == at {
			return true
		}
	}
	if !hostName.MatchString(host) || net.ParseIP(host) != nil {
		return false // no record of DNS could name it
	}
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	for _, d := range domains { // the client may have asked DNS itself
		if d.Via != "" || d.Connect != "" || d.Trust == config.TrustDANE {
			continue
		}
		if found, _, f := p.lookup(ctx, d); f == nil && slices.ContainsFunc(found, func(t target) bool { return t.port == uint16(port) && spelled(t.host) == host }) {
			return true
		}
	}
	return false
}

// spelled is a host as it is compared.
func spelled(host string) string {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().String()
	}
	return ascii(strings.TrimSuffix(strings.ToLower(host), "."))
}

// pair is a connection of this process with itself, in memory: a confined one can open no
// listener.
func pair() (outer, inner carrier) {
	toInner, fromOuter := net.Pipe()
	toOuter, fromInner := net.Pipe()
	return carrier{fromInner, toInner}, carrier{fromOuter, toOuter}
}

// A carrier is one end of such a connection: each direction ends by itself, as with TCP.
type carrier struct {
	net.Conn // what is read
	out      net.Conn
}

func (c carrier) Write(b []byte) (int, error)        { return c.out.Write(b) }
func (c carrier) CloseWrite() error                  { return c.out.Close() }
func (c carrier) SetWriteDeadline(t time.Time) error { return c.out.SetWriteDeadline(t) }
func (c carrier) SetReadDeadline(t time.Time) error  { return c.Conn.SetReadDeadline(t) }

func (c carrier) SetDeadline(t time.Time) error {
	return errors.Join(c.Conn.SetReadDeadline(t), c.out.SetWriteDeadline(t))
}

func (c carrier) Close() error { return errors.Join(c.Conn.Close(), c.out.Close()) }

// LocalAddr is what the library tells the client.
func (carrier) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
