package listen

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"otrproxy/config"
	"otrproxy/proxy/causes"
	"otrproxy/proxy/journal"
	"otrproxy/stanza"
)

// The gate: how many may come in. Who has logged in is not harmed by those who have not:
// they have places of their own, which the one that floods them loses first.

// A Visitor is a client from its connection to its end.
type Visitor struct {
	conn    net.Conn
	host    string
	since   time.Time
	settled bool // it has logged in
}

// A Gate lets visitors in, as far as there is room. One lock guards it.
type Gate struct {
	mu       sync.Mutex
	in       map[*Visitor]struct{}
	hosts    map[string]*host
	settled  int
	told     time.Time
	untold   int
	tight    func() bool // memory is short
	refusing func(causes.Refusal)
	log      *journal.Journal
}

// A host is an address that visitors come from.
type host struct {
	visitors int
	arrivals *rate.Limiter // nil for this machine
	last     time.Time
}

const (
	arrivalRate  = 10 // connections a second from one other machine
	arrivalBurst = 100
	hostMemory   = time.Minute // for which one that has gone is remembered
	maxHosts     = 10_000
)

// NewGate asks tight whether memory is short, and tells refusing whom it sends away.
func NewGate(log *journal.Journal, tight func() bool, refusing func(causes.Refusal)) *Gate {
	return &Gate{in: map[*Visitor]struct{}{}, hosts: map[string]*host{}, tight: tight, refusing: refusing, log: log}
}

// admit lets a connection in, or says why not. Where another one has to go for it, that is
// closed.
func (g *Gate) admit(conn net.Conn, lim config.Limits) (*Visitor, causes.Refusal) {
	now := time.Now()
	name, here := hostOf(conn)
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.hosts[name]
	if h == nil {
		if len(g.hosts) >= maxHosts {
			g.forget(now)
		}
		h = &host{}
		if !here {
			h.arrivals = rate.NewLimiter(arrivalRate, arrivalBurst)
		}
		g.hosts[name] = h
	}
	h.last = now
	switch {
	case h.arrivals != nil && !h.arrivals.AllowN(now, 1):
		return nil, causes.RefusedArrivals
	case !here && h.visitors >= lim.PerAddress:
		return nil, causes.RefusedAddress
	case g.settled >= lim.Sessions:
		return nil, causes.RefusedSessions
	case g.tight():
		return nil, causes.RefusedMemory
	}
	if pending := len(g.in) - g.settled; pending >= lim.Pending {
		g.evict()
	}
	v := &Visitor{conn: conn, host: name, since: now}
	g.in[v] = struct{}{}
	h.visitors++
	return v, ""
}

// evict closes the oldest connection without a login, of the host that has most of those.
func (g *Gate) evict() {
	pending := map[string]int{}
	var oldest *Visitor
	for v := range g.in {
		if !v.settled {
			pending[v.host]++
		}
	}
	for v := range g.in {
		if !v.settled && (oldest == nil || pending[v.host] > pending[oldest.host] || pending[v.host] == pending[oldest.host] && v.since.Before(oldest.since)) {
			oldest = v
		}
	}
	if oldest != nil {
		oldest.conn.Close()
		g.remove(oldest)
		g.refusing(causes.RefusedPending)
	}
}

// Settle notes that a client has logged in; false where there is no room for one more.
func (g *Gate) Settle(v *Visitor, lim config.Limits) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if v.settled { // it tries once more on the same connection
		return true
	}
	if _, there := g.in[v]; !there || g.settled >= lim.Sessions {
		return false
	}
	v.settled = true
	g.settled++
	return true
}

// leave notes that a client has gone.
func (g *Gate) leave(v *Visitor) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.remove(v)
}

func (g *Gate) remove(v *Visitor) {
	if _, there := g.in[v]; !there {
		return
	}
	delete(g.in, v)
	if v.settled {
		g.settled--
	}
	if h := g.hosts[v.host]; h != nil {
		h.visitors--
		if h.visitors == 0 && h.arrivals == nil {
			delete(g.hosts, v.host)
		}
	}
}

// forget drops the hosts nobody has come from for a while; where all of them are fresh,
// somebody has many addresses, and none is worth remembering.
func (g *Gate) forget(now time.Time) {
	for _, patience := range []time.Duration{hostMemory, 0} {
		for name, h := range g.hosts {
			if h.visitors == 0 && now.Sub(h.last) >= patience {
				delete(g.hosts, name)
			}
		}
		if len(g.hosts) < maxHosts {
			return
		}
	}
}

// Close closes all connections.
func (g *Gate) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for v := range g.in {
		v.conn.Close()
	}
}

// A spare is a file descriptor that is kept for telling a client that there is no other.
// It is one of the listener's own, for a confined process opens few files.
type spare struct{ f *os.File }

func (k *spare) keep(l net.Listener) {
	if t, ok := l.(interface{ File() (*os.File, error) }); ok && k.f == nil {
		k.f, _ = t.File()
	}
}

func (k *spare) close() {
	if k.f != nil {
		k.f.Close()
		k.f = nil
	}
}

// accept takes a client with the spare, after the error that says that there is no other
// descriptor. Room says that there is one again: then the client need not be turned away.
func (k *spare) accept(l net.Listener, full error) (conn net.Conn, room bool, err error) {
	if k.f == nil {
		k.keep(l)
		return nil, false, full
	}
	k.close()
	if d, ok := l.(interface{ SetDeadline(time.Time) error }); ok { // Linux says it as well when nobody is there
		d.SetDeadline(time.Now().Add(time.Millisecond))
		defer d.SetDeadline(time.Time{})
	}
	conn, err = l.Accept()
	k.keep(l)
	return conn, k.f != nil, err
}

// outOfFiles reports whether the system gives no more file descriptors.
func outOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// hostOf is where a connection comes from, and whether that is this machine. Of an IPv6
// network, which a machine has many addresses in, it is the network.
func hostOf(conn net.Conn) (name string, here bool) {
	t, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return "", true
	}
	if v4 := t.IP.To4(); v4 != nil {
		return v4.String(), v4.IsLoopback()
	}
	return fmt.Sprint(t.IP.Mask(net.CIDRMask(64, 128))), t.IP.IsLoopback()
}

// worthALine reports whether a refusal is to be logged: one in a second is, with the number
// of those that were not.
func (g *Gate) worthALine() (more int, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.told) < time.Second {
		g.untold++
		return 0, false
	}
	more, g.untold, g.told = g.untold, 0, time.Now()
	return more, true
}

// Count counts a refusal and logs it.
func (g *Gate) Count(cause causes.Refusal) {
	g.refusing(cause)
	if more, ok := g.worthALine(); ok {
		g.log.Warn("a client was refused", "cause", cause, "others since the last line", more)
	}
}

// refuse tells a client that speaks plain XMPP why it is not let in.
func refuse(conn net.Conn, text string) {
	conn.SetDeadline(time.Now().Add(time.Second))
	conn.Write(stanza.AppendStreamError(stanza.Header{}.AppendTo(nil), "resource-constraint", text))
	conn.Close()
}
