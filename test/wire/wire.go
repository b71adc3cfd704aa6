// Package wire is a network in memory, for tests that live in simulated time
// (testing/synctest): connections that can be cut behind any byte, paused, and looked
// into. A cut connection loses what its sender believes to be sent, as a real one does.
package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// A Net has listeners by address.
type Net struct {
	mu        sync.Mutex
	listeners map[string]*listener
	next      int
}

var errRefused = errors.New("connection refused")

// Listen is net.Listen within the network; a port of 0 becomes a free one.
func (n *Net) Listen(_, addr string) (net.Listener, error) {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if tcp.Port == 0 {
		n.next++
		tcp.Port = 10_000 + n.next
	}
	if n.listeners == nil {
		n.listeners = map[string]*listener{}
	}
	l := &listener{n: n, addr: tcp, queue: make(chan net.Conn, 64), done: make(chan struct{})}
	n.listeners[tcp.String()] = l
	return l, nil
}

// Dial is net.Dialer.DialContext within the network.
func (n *Net) Dial(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[addr]
	n.next++
	local := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 30_000 + n.next}
	n.mu.Unlock()
	if l == nil {
		return nil, errRefused
	}
	up, down := newPipe(), newPipe()
	from := &Conn{local: local, remote: l.addr, in: down, out: up}
	to := &Conn{local: l.addr, remote: local, in: up, out: down}
	select {
	case l.queue <- to:
		return from, nil
	case <-l.done:
		return nil, errRefused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type listener struct {
	n     *Net
	addr  *net.TCPAddr
	queue chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.n.mu.Lock()
		delete(l.n.listeners, l.addr.String())
		l.n.mu.Unlock()
		close(l.done)
	})
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }

// A pipe is one direction.
type pipe struct {
	mu       sync.Mutex
	cond     sync.Cond
	buf      []byte
	passed   int64  // bytes that got through
	limit    int64  // how many do at most; -1 for all
	reached  func() // called once more were written
	ended    bool   // the sender has closed it
	broken   bool
	paused   bool
	tap      []byte // all that was written, where Record was called
	record   bool
	deadline [2]time.Time // of reading, of writing
	timers   [2]*time.Timer
}

const window = 64 << 10 // bytes on their way before a sender waits

func newPipe() *pipe {
	p := &pipe{limit: -1}
	p.cond.L = &p.mu
	return p
}

func (p *pipe) late(i int) bool {
	return !p.deadline[i].IsZero() && !time.Now().Before(p.deadline[i])
}

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.late(0):
			return 0, os.ErrDeadlineExceeded
		case len(p.buf) > 0 && !p.paused:
			n := copy(b, p.buf)
			p.buf = p.buf[n:]
			p.cond.Broadcast()
			return n, nil
		case p.broken:
			return 0, io.ErrUnexpectedEOF
		case p.ended && len(p.buf) == 0:
			return 0, io.EOF
		}
		p.cond.Wait()
	}
}

func (p *pipe) write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.buf) > window && !p.broken && !p.ended && !p.late(1) {
		p.cond.Wait()
	}
	switch {
	case p.late(1):
		return 0, os.ErrDeadlineExceeded
	case p.broken, p.ended:
		return 0, net.ErrClosed
	}
	if p.record {
		p.tap = append(p.tap, b...)
	}
	through := b
	if p.limit >= 0 && p.passed+int64(len(b)) > p.limit {
		through = b[:max(0, p.limit-p.passed)]
		if p.reached != nil {
			go p.reached()
			p.reached = nil
		}
	}
	p.buf = append(p.buf, through...)
	p.passed += int64(len(through))
	p.cond.Broadcast()
	return len(b), nil
}

func (p *pipe) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	p.cond.Broadcast()
}

func (p *pipe) setDeadline(i int, t time.Time) {
	p.set(func() {
		if p.timers[i] != nil {
			p.timers[i].Stop()
		}
		p.deadline[i] = t
		if in := time.Until(t); in > 0 { // else set wakes who waits
			p.timers[i] = time.AfterFunc(in, func() { p.set(func() {}) })
		}
	})
}

// A Conn is one end of a connection.
type Conn struct {
	local, remote *net.TCPAddr
	in, out       *pipe
}

func (c *Conn) Read(b []byte) (int, error)  { return c.in.read(b) }
func (c *Conn) Write(b []byte) (int, error) { return c.out.write(b) }
func (c *Conn) LocalAddr() net.Addr         { return c.local }
func (c *Conn) RemoteAddr() net.Addr        { return c.remote }

// CloseWrite ends the sending direction.
func (c *Conn) CloseWrite() error {
	c.out.set(func() { c.out.ended = true })
	return nil
}

// Close ends both directions.
func (c *Conn) Close() error {
	c.CloseWrite()
	c.in.set(func() { c.in.ended, c.in.buf = true, nil })
	return nil
}

func (c *Conn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}
func (c *Conn) SetReadDeadline(t time.Time) error  { c.in.setDeadline(0, t); return nil }
func (c *Conn) SetWriteDeadline(t time.Time) error { c.out.setDeadline(1, t); return nil }

// Break breaks the connection: what is on its way arrives, then both ends see an error.
func (c *Conn) Break() {
	for _, p := range []*pipe{c.in, c.out} {
		p.set(func() { p.broken, p.paused = true, false })
	}
}

// CutAfter lets so many more bytes of this end's through. What comes behind them is
// lost, and after a time the connection breaks.
func (c *Conn) CutAfter(bytes int, silence time.Duration) {
	c.out.set(func() {
		if c.out.limit >= 0 {
			return // once is enough
		}
		c.out.limit = c.out.passed + int64(bytes)
		c.out.reached = func() { time.AfterFunc(silence, c.Break) }
	})
}

// Pause stops what this end sends from arriving, for a time.
func (c *Conn) Pause(d time.Duration) {
	c.out.set(func() { c.out.paused = true })
	time.AfterFunc(d, func() { c.out.set(func() { c.out.paused = false }) })
}

// Freeze stops what the other end sends from arriving.
func (c *Conn) Freeze() { c.in.set(func() { c.in.paused = true }) }

// Record keeps what the other end sends, arriving or not.
func (c *Conn) Record() { c.in.set(func() { c.in.record = true }) }

// Recorded is what the other end has sent since Record.
func (c *Conn) Recorded() (b []byte) {
	c.in.set(func() { b = append(b, c.in.tap...) })
	return b
}

// Passed is how many bytes of this end's got through.
func (c *Conn) Passed() (n int64) {
	c.out.set(func() { n = c.out.passed })
	return n
}
