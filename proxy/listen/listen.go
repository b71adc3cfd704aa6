package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"otrproxy/config"
	"otrproxy/proxy/causes"
	"otrproxy/proxy/hostname"
	"otrproxy/proxy/journal"
	"otrproxy/proxy/leg"
	"otrproxy/proxy/localca"
)

// A Door is where clients come in: it listens, lets them in, and has them log in.
type Door struct {
	config  func() *config.Config
	log     *journal.Journal
	ctx     context.Context // ends with the proxy
	listen  func(network, addr string) (net.Listener, error)
	Gate    *Gate
	Machine *localca.Machine
	Serves  func(ctx context.Context, host string, port int) bool // a place is that of a server people may log in to
	Begin   func() bool                                           // a client is served; false where the proxy stops
	Done    func()                                                // it is served no more
	Answer  func(*Caller) (run func())                            // has a client log in, and returns its session's run; nil for none
	Peers   Peers
	Calm    Calm

	mu        sync.Mutex
	listeners []*listener
}

// New listens with a function, nil for that of the machine.
func New(ctx context.Context, cfg func() *config.Config, log *journal.Journal, listen func(network, addr string) (net.Listener, error), g *Gate) *Door {
	if listen == nil {
		listen = net.Listen
	}
	dr := &Door{config: cfg, log: log, ctx: ctx, listen: listen, Gate: g}
	dr.Peers.open()
	return dr
}

// Open listens on the configured addresses.
func (dr *Door) Open() error {
	for _, addr := range dr.config().Listen {
		l, err := dr.listen("tcp", addr)
		if err != nil {
			dr.CloseListeners()
			return fmt.Errorf("cannot listen on %s: %s; another program may use the port: end it, or set \"listen\" to another one", addr, causes.Short(err))
		}
		dr.mu.Lock()
		dr.listeners = append(dr.listeners, &listener{Listener: l})
		dr.mu.Unlock()
	}
	return nil
}

// Addrs are the addresses listened on.
func (dr *Door) Addrs() (out []net.Addr) {
	dr.mu.Lock()
	defer dr.mu.Unlock()
	for _, l := range dr.listeners {
		out = append(out, l.Addr())
	}
	return out
}

// CloseListeners lets nobody else come.
func (dr *Door) CloseListeners() {
	dr.mu.Lock()
	defer dr.mu.Unlock()
	for _, l := range dr.listeners {
		l.Close()
	}
}

// Serve lets clients in at all addresses until those are closed.
func (dr *Door) Serve() {
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
func (dr *Door) accept(l *listener) {
	pause := 5 * time.Millisecond
	var spare spare
	spare.keep(l.Listener)
	defer spare.close()
	for {
		conn, err := l.Accept()
		if outOfFiles(err) {
			var room bool
			if conn, room, err = spare.accept(l.Listener, err); err == nil && !room {
				dr.Gate.Count(causes.RefusedFiles)
				refuse(conn, causes.RefusalText[causes.RefusedFiles])
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
		if !cfg.MayCome(hostname.AddressOf(conn.RemoteAddr())) {
			dr.Gate.Count(causes.RefusedAccess)
			refuse(conn, "This otrproxy is not for the address you come from (access in its configuration).")
			continue
		}
		v, cause := dr.Gate.admit(conn, cfg.Limits)
		if v == nil {
			dr.Gate.Count(cause)
			refuse(conn, causes.RefusalText[cause])
			continue
		}
		if !dr.Begin() {
			conn.Close()
			dr.Gate.leave(v)
			continue
		}
		go func() {
			over := func() {
				conn.Close()
				dr.Gate.leave(v)
				dr.Calm.broken()
				dr.Done()
			}
			run := dr.enter(conn, v, loopbackOnly(conn))
			dr.Calm.broken()
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

// enter looks at a client's first byte: direct TLS, plain XMPP, a WebSocket, or SOCKS, by
// which it is carried here. Local says that both ends are on this machine. It returns the
// run of the session of a client that has logged in, else nil.
func (dr *Door) enter(conn net.Conn, v *Visitor, local bool) (run func()) {
	conn.SetDeadline(time.Now().Add(dr.config().Limits.Login))
	w := leg.NewWire(conn)
	c := &Caller{door: dr, Visitor: v, Raw: conn, Wire: w, Conn: w, Local: local}
	if !c.meet() {
		return nil
	}
	return dr.Answer(c)
}
