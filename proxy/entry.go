package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"otrproxy/config"
	"slices"
	"sync"
	"time"
)

// A door is where clients come in: it listens, lets them in, and has them log in.
type door struct {
	config  func() *config.Config
	log     *journal
	ctx     context.Context // ends with the proxy
	listen  func(network, addr string) (net.Listener, error)
	gate    *gate
	machine *machine
	serves  func(ctx context.Context, host string, port int) bool // a place is that of a server people may log in to
	begin   func() bool                                           // a client is served; false where the proxy stops
	done    func()                                                // it is served no more
	answer  func(*caller) (run func())                            // has a client log in, and returns its session's run; nil for none
	peers   peers
	calm    calm

	mu        sync.Mutex
	listeners []*listener
}

// newDoor listens with a function, nil for that of the machine.
func newDoor(ctx context.Context, cfg func() *config.Config, log *journal, listen func(network, addr string) (net.Listener, error), g *gate) *door {
	if listen == nil {
		listen = net.Listen
	}
	dr := &door{config: cfg, log: log, ctx: ctx, listen: listen, gate: g}
	dr.peers.open()
	return dr
}

// open listens on the configured addresses.
func (dr *door) open() error {
	for _, addr := range dr.config().Listen {
		l, err := dr.listen("tcp", addr)
		if err != nil {
			dr.closeListeners()
			return fmt.Errorf("cannot listen on %s: %s; another program may use the port: end it, or set \"listen\" to another one", addr, short(err))
		}
		dr.mu.Lock()
		dr.listeners = append(dr.listeners, &listener{Listener: l})
		dr.mu.Unlock()
	}
	return nil
}

// Addrs are the addresses listened on.
func (dr *door) Addrs() (out []net.Addr) {
	dr.mu.Lock()
	defer dr.mu.Unlock()
	for _, l := range dr.listeners {
		out = append(out, l.Addr())
	}
	return out
}

func (dr *door) closeListeners() {
	dr.mu.Lock()
	defer dr.mu.Unlock()
	for _, l := range dr.listeners {
		l.Close()
	}
}

// serve lets clients in at all addresses until those are closed.
func (dr *door) serve() {
	dr.mu.Lock()
	ls := slices.Clone(dr.listeners)
	dr.mu.Unlock()
	var wg sync.WaitGroup
	for _, l := range ls {
		wg.Go(func() { dr.accept(l) })
	}
	wg.Wait()
}

// accept takes clients from one listener, as far as the gate lets them in.
func (dr *door) accept(l *listener) {
	pause := 5 * time.Millisecond
	var spare spare
	spare.keep(l.Listener)
	defer spare.close()
	for {
		conn, err := l.Accept()
		if outOfFiles(err) {
			var room bool
			if conn, room, err = spare.accept(l.Listener, err); err == nil && !room {
				dr.gate.refusedFor(RefusedFiles)
				refuse(conn, refusals[RefusedFiles])
				spare.keep(l.Listener)
				continue
			}
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) { // of the spare: nobody was there
				dr.log.Error("a client could not be accepted", "err", err)
			}
			// The others go on, this one waits.
			select {
			case <-time.After(pause):
				pause = min(2*pause, time.Second)
				continue
			case <-dr.ctx.Done():
				return
			}
		}
		pause = 5 * time.Millisecond
		cfg := dr.config()
		if !cfg.MayCome(addressOf(conn.RemoteAddr())) {
			dr.gate.refusedFor(RefusedAccess)
			refuse(conn, "This otrproxy is not for the address you come from (access in its configuration).")
			continue
		}
		v, cause := dr.gate.admit(conn, cfg.Limits)
		if v == nil {
			dr.gate.refusedFor(cause)
			refuse(conn, refusals[cause])
			continue
		}
		if !dr.begin() {
			conn.Close()
			dr.gate.leave(v)
			continue
		}
		go func() {
			over := func() {
				conn.Close()
				dr.gate.leave(v)
				dr.calm.broken()
				dr.done()
			}
			run := dr.enter(conn, v, loopbackOnly(conn))
			dr.calm.broken()
			if run == nil {
				over()
				return
			}
			go func() { // on a small stack: a login needs a large one, and a session lasts
				defer over()
				run()
			}()
		}()
	}
}

// First bytes of what a client may speak.
const (
	firstTLS   = 0x16
	firstXMPP  = '<'
	firstSOCKS = 0x05
	firstHTTP  = 'G' // GET, the beginning of a WebSocket
)

// A caller is a client that has come, as it is spoken to. One goroutine owns it.
type caller struct {
	door       *door
	visitor    *visitor
	raw        net.Conn // the TCP connection
	wire       *wire    // around it
	conn       net.Conn // what is spoken over: the wire, or TLS
	whence     string   // its place, once the system has been asked
	local      bool     // both ends on this machine
	tls        bool
	over       *tls.Conn // nil without TLS
	webbed     bool      // it speaks XMPP over WebSocket
	by         string    // how it was carried here, "" or "socks5 "
	tlsVersion string
	sni        string
	entry      string // plain, starttls, direct or websocket; after by
	leaf       []byte // the certificate it was shown, DER
}

// enter looks at a client's first byte: direct TLS, plain XMPP, a WebSocket, or SOCKS, by
// which it is carried here. Local says that both ends are on this machine. It returns the
// run of the session of a client that has logged in, else nil.
func (dr *door) enter(conn net.Conn, v *visitor, local bool) (run func()) {
	conn.SetDeadline(time.Now().Add(dr.config().Limits.Login))
	w := newWire(conn)
	c := &caller{door: dr, visitor: v, raw: conn, wire: w, conn: w, local: local}
	if !c.meet() {
		return nil
	}
	return dr.answer(c)
}

// meet finds out how a client speaks, or what a SOCKS client carries; false for what is not
// served.
func (c *caller) meet() bool {
	first, err := c.wire.peek()
	if err != nil {
		return false
	}
	kind := "plain"
	if first == firstTLS {
		if err := c.secure(""); err != nil {
			c.door.log.Info("a client's TLS handshake failed", "err", err)
			return false
		}
		kind = "direct"
		b := make([]byte, 1)
		if _, err := c.conn.Read(b); err != nil {
			return false
		}
		first = b[0]
		c.conn = &peeked{Conn: c.conn, first: b}
	}
	switch {
	case first == firstXMPP || c.tls && first != firstHTTP: // what is no XMPP is told so
	case first == firstHTTP:
		if err := c.webSocket(c.conn); err != nil {
			c.door.log.Info("a client's WebSocket was refused", "err", err)
			return false
		}
		kind, c.webbed = "websocket", true
	case first == firstSOCKS && c.by == "":
		return c.carried()
	default:
		c.door.log.Info("a client speaks neither XMPP nor TLS", "first byte", first)
		return false
	}
	c.entry = c.by + kind
	return true
}

// host is where the client comes from.
func (c *caller) host() string {
	name, _ := hostOf(c.raw)
	return name
}

// place is where the client comes from, as guesses are counted by it: on this machine every
// user is a place of their own.
func (c *caller) place() string {
	if c.whence == "" {
		c.whence = c.host() + c.door.peers.user(c.raw)
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

// peeked gives back the bytes that were looked at.
type peeked struct {
	net.Conn
	first []byte
}

// NetConn is the connection below.
func (c *peeked) NetConn() net.Conn { return c.Conn }

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
	c      *caller
	domain string
}

func (s showing) certificate(sni string) (*tls.Certificate, error) {
	if s.domain == "" {
		s.domain = s.c.door.nameFor(sni)
	}
	if _, ok := s.c.door.config().Domain(s.domain); !ok && s.domain != "localhost" {
		return nil, errors.New("the configuration does not list the domain")
	}
	leaf, err := s.c.door.machine.leaf(s.domain, s.c.raw.LocalAddr())
	if err == nil {
		s.c.leaf = leaf.Certificate[0]
	}
	return leaf, err
}

// secure does the TLS handshake with a client. Domain is that of the stream, or
// empty when TLS comes first and only SNI can tell.
func (c *caller) secure(domain string) error {
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
func (dr *door) nameFor(sni string) string {
	if sni != "" && !dr.machine.ownHost(sni) {
		if d, err := domainName(sni); err == nil {
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
