package proxy

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"otrproxy/config"
	"otrproxy/otrlayer"
	"otrproxy/proxy/control"
)

// A relay is all sessions, and what they share.
type relay struct {
	config   func() *config.Config
	log      *journal
	dir      string // the state directory
	version  string
	ctx      context.Context // ends with the proxy
	accounts *accountSet
	logins   *logins
	servers  *servers
	metrics  *metrics
	bell     *bell
	slowed   func()        // is told of a client that is read no faster than its limit
	commands control.Table // set before the first session
	reloaded chan struct{} // a signal for who waits by the old configuration

	addresses    addresses
	roomServices roomServices
	toldRooms    toldRooms
	turnedAway   turnedAway
	contacts     atomic.Int64 // that all sessions know of
	recalling    sync.Mutex   // guards what accounts remember of the service contact

	running sync.WaitGroup // sessions, and what is done beside them

	mu        sync.Mutex // guards the rest
	sessions  everybody
	suspended map[[2]string]*suspended // sessions that lost their server, by account and resource
	closing   bool
}

func newRelay(ctx context.Context, cfg func() *config.Config, log *journal, dir string) *relay {
	return &relay{config: cfg, log: log, dir: dir, ctx: ctx, slowed: func() {}, reloaded: make(chan struct{}, 1), suspended: map[[2]string]*suspended{}}
}

// begin notes that a client is served; false when the proxy stops.
func (r *relay) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closing {
		r.running.Add(1)
	}
	return !r.closing
}

// spawn runs f beside the sessions; false when the proxy stops.
func (r *relay) spawn(f func()) bool {
	if !r.begin() {
		return false
	}
	go func() {
		defer r.running.Done()
		f()
	}()
	return true
}

// close lets nobody in any more, gives back what sessions have left behind that lost their
// server, and returns those that are there.
func (r *relay) close() []*session {
	r.mu.Lock()
	r.closing = true
	left := slices.Collect(maps.Values(r.suspended))
	clear(r.suspended)
	sessions := r.sessions.all("")
	r.mu.Unlock()
	for _, old := range left {
		old.expires.Stop()
		old.giveBack(otrlayer.CauseUncertain)
	}
	return sessions
}

// end ends sessions, politely, and returns once they have ended.
func (r *relay) end(sessions []*session, within time.Duration) {
	var wg sync.WaitGroup
	for _, s := range sessions {
		wg.Go(func() { s.shutdown(within) })
	}
	wg.Wait()
}

// contactsKnown is how many contacts the sessions of an account know of, or those of all for "".
func (r *relay) contactsKnown(account string) (n int) {
	if account == "" {
		return int(r.contacts.Load())
	}
	for _, s := range r.everySession(account) {
		n += s.contacts.known()
	}
	return n
}

// join has a session be among all the others; false where the proxy stops.
func (r *relay) join(s *session) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closing {
		r.sessions.add(s)
	}
	return !r.closing
}

// part takes a session out of them.
func (r *relay) part(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sessions.remove(s)
}

// everybody are the sessions, by account. relay.mu guards it.
type everybody struct {
	of map[string]map[*session]struct{}
	n  int
}

func (e *everybody) add(s *session) {
	if e.of == nil {
		e.of = map[string]map[*session]struct{}{}
	}
	if e.of[s.jid] == nil {
		e.of[s.jid] = map[*session]struct{}{}
	}
	e.of[s.jid][s] = struct{}{}
	e.n++
}

func (e *everybody) remove(s *session) {
	delete(e.of[s.jid], s)
	if len(e.of[s.jid]) == 0 {
		delete(e.of, s.jid)
	}
	e.n--
}

// all are those of an account, or of all accounts for "".
func (e *everybody) all(jid string) (out []*session) {
	if jid != "" {
		for s := range e.of[jid] {
			out = append(out, s)
		}
		return out
	}
	for _, of := range e.of {
		for s := range of {
			out = append(out, s)
		}
	}
	return out
}

// outlet is a session of an account, for commands; nil when there is none.
func (r *relay) outlet(jid string) otrlayer.Outlet {
	if list := r.sessionsOf(jid); len(list) > 0 {
		return list[0]
	}
	return nil
}

// isClosing reports whether the proxy stops.
func (r *relay) isClosing() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closing
}

// connected is how many clients are logged in.
func (r *relay) connected() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sessions.n
}

// sessionsOf are the sessions of an account's person, the oldest first. Strangers' are none.
func (r *relay) sessionsOf(jid string) []*session {
	return slices.DeleteFunc(r.everySession(jid), func(s *session) bool { return s.stranger.Load() != nil })
}

// everySession are all sessions of an account, of all accounts for "", the oldest first.
func (r *relay) everySession(jid string) (out []*session) {
	r.mu.Lock()
	out = r.sessions.all(jid)
	r.mu.Unlock()
	slices.SortFunc(out, func(a, b *session) int { return a.since.Compare(b.since) })
	return out
}
