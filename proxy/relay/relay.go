package relay

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"otrproxy/config"
	"otrproxy/otrlayer"
	"otrproxy/proxy/accounts"
	"otrproxy/proxy/address"
	"otrproxy/proxy/control"
	"otrproxy/proxy/journal"
	"otrproxy/proxy/metrics"
	"otrproxy/proxy/notify"
	"otrproxy/proxy/sasl"
	"otrproxy/proxy/service"
	"otrproxy/proxy/upstream"
)

// A Relay is all sessions, and what they share.
type Relay struct {
	config   func() *config.Config
	log      *journal.Journal
	dir      string          // the state directory
	ctx      context.Context // ends with the proxy
	Accounts *accounts.Set
	Logins   *sasl.Logins
	Servers  *upstream.Servers
	Metrics  *metrics.Metrics
	Bell     *notify.Bell
	Slowed   func()        // is told of a client that is read no faster than its limit
	Commands control.Table // set before the first session
	Reloaded chan struct{} // a signal for who waits by the old configuration

	addresses    address.Cache
	service      *service.Service
	roomServices roomServices
	toldRooms    toldRooms
	TurnedAway   turnedAway
	contacts     atomic.Int64 // that all sessions know of

	Running sync.WaitGroup // sessions, and what is done beside them

	mu        sync.Mutex // guards the rest
	sessions  everybody
	suspended map[[2]string]*suspended // sessions that lost their server, by account and resource
	closing   bool
}

// New has no sessions yet. The owners it needs are the caller's to set.
func New(ctx context.Context, cfg func() *config.Config, log *journal.Journal, dir, version string) *Relay {
	r := &Relay{config: cfg, log: log, dir: dir, ctx: ctx, Slowed: func() {}, Reloaded: make(chan struct{}, 1), suspended: map[[2]string]*suspended{}}
	r.service = service.New(ctx, log, dir, version, &r.addresses)
	return r
}

// Begin notes that a client is served; false when the proxy stops.
func (r *Relay) Begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closing {
		r.Running.Add(1)
	}
	return !r.closing
}

// Spawn runs f beside the sessions; false when the proxy stops.
func (r *Relay) Spawn(f func()) bool {
	if !r.Begin() {
		return false
	}
	go func() {
		defer r.Running.Done()
		f()
	}()
	return true
}

// Close lets nobody in any more, gives back what sessions have left behind that lost their
// server, and returns those that are there.
func (r *Relay) Close() []*Session {
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

// End ends sessions, politely, and returns once they have ended.
func (r *Relay) End(sessions []*Session, within time.Duration) {
	var wg sync.WaitGroup
	for _, s := range sessions {
		wg.Go(func() { s.shutdown(within) })
	}
	wg.Wait()
}

// ContactsKnown is how many contacts the sessions of an account know of, or those of all for "".
func (r *Relay) ContactsKnown(account string) (n int) {
	if account == "" {
		return int(r.contacts.Load())
	}
	for _, s := range r.EverySession(account) {
		n += s.contacts.known()
	}
	return n
}

// join has a session be among all the others; false where the proxy stops.
func (r *Relay) join(s *Session) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closing {
		r.sessions.add(s)
	}
	return !r.closing
}

// part takes a session out of them.
func (r *Relay) part(s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sessions.remove(s)
}

// everybody are the sessions, by account. relay.mu guards it.
type everybody struct {
	of map[string]map[*Session]struct{}
	n  int
}

func (e *everybody) add(s *Session) {
	if e.of == nil {
		e.of = map[string]map[*Session]struct{}{}
	}
	if e.of[s.jid] == nil {
		e.of[s.jid] = map[*Session]struct{}{}
	}
	e.of[s.jid][s] = struct{}{}
	e.n++
}

func (e *everybody) remove(s *Session) {
	delete(e.of[s.jid], s)
	if len(e.of[s.jid]) == 0 {
		delete(e.of, s.jid)
	}
	e.n--
}

// all are those of an account, or of all accounts for "".
func (e *everybody) all(jid string) (out []*Session) {
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

// Outlet is a session of an account, for commands; nil when there is none.
func (r *Relay) Outlet(jid string) otrlayer.Outlet {
	if list := r.SessionsOf(jid); len(list) > 0 {
		return list[0]
	}
	return nil
}

// IsClosing reports whether the proxy stops.
func (r *Relay) IsClosing() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closing
}

// Connected is how many clients are logged in.
func (r *Relay) Connected() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sessions.n
}

// SessionsOf are the sessions of an account's person, the oldest first. Strangers' are none.
func (r *Relay) SessionsOf(jid string) []*Session {
	return slices.DeleteFunc(r.EverySession(jid), func(s *Session) bool { return s.stranger.Load() != nil })
}

// EverySession are all sessions of an account, of all accounts for "", the oldest first.
func (r *Relay) EverySession(jid string) (out []*Session) {
	r.mu.Lock()
	out = r.sessions.all(jid)
	r.mu.Unlock()
	slices.SortFunc(out, func(a, b *Session) int { return a.since.Compare(b.since) })
	return out
}
