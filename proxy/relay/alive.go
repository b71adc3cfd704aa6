package relay

import (
	"strings"
	"sync"
	"time"

	"otrproxy/proxy/address"
	"otrproxy/proxy/leg"
	"otrproxy/stanza"
)

// A network that has gone says nothing of it: what is written waits in the kernel for a
// quarter of an hour. So a server owes a sign of life for what it is sent (limits.answer),
// and an idle one is asked for one now and then (limits.alive): by asking what it has taken
// where it counts (XEP-0198), else by a ping (XEP-0199) where it answers those. All sessions
// are asked at the same moment, so that a machine that sleeps wakes once for all.

// A pulse is what a session knows of whether its server is still there.
type pulse struct {
	mu      sync.Mutex
	since   time.Time // since when the server owes a sign of life; zero for none
	asked   bool      // it was asked for one since
	ping    string    // id of the ping by which that was done, "" for none
	answers bool      // it answers pings
	timer   *time.Timer
	over    bool
}

// wrote notes that something has been written to the server.
func (s *Session) wrote(asked bool) {
	if s.wanted.Load() == nil {
		return // before the client asks for a resource, nothing needs an answer
	}
	u := &s.pulse
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.since.IsZero() {
		u.since = time.Now()
	}
	u.asked = u.asked || asked
	if u.timer == nil && !u.over {
		u.timer = time.AfterFunc(s.answerWithin()/2, s.feel)
	}
}

// heard notes that something has been read from the server. What it has taken, a server that
// counts says itself (took); the others have taken what was written before.
func (s *Session) heard() {
	u, counts := &s.pulse, s.counts.Load()
	u.mu.Lock()
	switch {
	case !counts:
		u.since, u.asked = time.Time{}, false
	case u.asked: // it is there, and will say
		u.since = time.Now()
	default:
		u.since = time.Time{}
	}
	u.mu.Unlock()
	if !counts {
		s.server.Alive()
	}
}

// took notes that the server has said what it has taken, and whether that is all: of the rest
// it is asked again.
func (u *pulse) took(all bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.since, u.asked = (time.Time{}), false; !all {
		u.since = time.Now()
	}
}

// ponged swallows the answer to a ping of ours.
func (u *pulse) ponged(root stanza.Element) bool {
	id := root.Attr("id")
	if !strings.HasPrefix(id, leg.OwnID) {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if id != u.ping {
		return false
	}
	u.ping, u.answers = "", true
	return true
}

func (s *Session) answerWithin() time.Duration { return s.r.config().Limits.Answer }

// feel looks whether the server has given the sign of life that it owes: after half of the
// time it is asked for one, after all of it the connection is given up. What it must answer
// at the beginning (a resource, and whether it counts) needs no question.
func (s *Session) feel() {
	u, within := &s.pulse, s.answerWithin()
	beginning := s.resource.Load() == nil || s.offered && !s.counts.Load() && !s.uncounted.Load()
	u.mu.Lock()
	u.timer = nil
	if s.heldUp.Load() && !u.since.IsZero() { // its answer may lie there unread
		u.since = time.Now()
	}
	owed := time.Since(u.since)
	switch {
	case u.over || u.since.IsZero():
		u.mu.Unlock()
	case owed >= within && (beginning || u.asked && (s.counts.Load() || u.answers)):
		u.over = true
		u.mu.Unlock()
		s.silence(within)
	case owed >= within && u.asked: // a ping that a server may not know how to answer
		u.since, u.asked = time.Time{}, false
		u.mu.Unlock()
	case owed >= within/2 && !u.asked && !beginning:
		u.mu.Unlock()
		s.ask()
		s.feelAgain(max(within-owed, within/16))
	case owed >= within/2:
		u.mu.Unlock()
		s.feelAgain(max(within-owed, within/16))
	default:
		u.mu.Unlock()
		s.feelAgain(max(within/2-owed, within/16))
	}
}

func (s *Session) feelAgain(in time.Duration) {
	u := &s.pulse
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.timer == nil && !u.over {
		u.timer = time.AfterFunc(in, s.feel)
	}
}

// ask asks the server for a sign of life.
func (s *Session) ask() {
	if s.resource.Load() == nil || s.closing.Load() {
		return
	}
	u := &s.pulse
	if s.counts.Load() {
		s.server.Queue([]byte(leg.AskTaken))
		s.wrote(true)
		s.server.Kick()
		return
	}
	if s.offered && !s.uncounted.Load() {
		return // whether it counts it has not said yet
	}
	u.mu.Lock()
	id := u.ping
	if id == "" {
		id = leg.OwnID + leg.NewID()
	}
	u.ping, u.asked = id, true
	u.mu.Unlock()
	s.server.Stanza(func(b []byte) []byte {
		b = stanza.AppendAttr(stanza.AppendAttr(append(b, "<iq type='get'"...), "to", address.DomainOf(s.jid)), "id", id)
		return append(b, "><ping xmlns='urn:xmpp:ping'/></iq>"...)
	})
	s.server.Kick()
}

// silence gives a server up that has not given the sign of life that it owed.
func (s *Session) silence(within time.Duration) {
	s.silent.Store(true)
	s.r.log.Warn("a server has gone silent", "account", s.r.log.Name(s.jid), "for", within)
	s.up.Conn.NetConn().Close() // its reader ends the session
}

// still ends the watch.
func (u *pulse) still() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.over = true; u.timer != nil {
		u.timer.Stop()
	}
}

// AskAll asks the servers of all sessions now and then, until the proxy stops.
func (r *Relay) AskAll() {
	for {
		limits := r.config().Limits
		pause := limits.Alive - limits.Answer
		if limits.Alive == 0 {
			pause = 365 * 24 * time.Hour // until the configuration says otherwise
		}
		t := time.NewTimer(pause)
		select {
		case <-r.ctx.Done():
			t.Stop()
			return
		case <-r.Reloaded:
			t.Stop()
			continue
		case <-t.C:
		}
		if limits.Alive == 0 {
			continue
		}
		for _, s := range r.EverySession("") {
			s.ask()
		}
	}
}
