package relay

import (
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"otrproxy/otrlayer"
	"otrproxy/proxy/leg"
	"otrproxy/stanza"
)

const (
	askCounting  = "<enable xmlns='" + leg.NSAcks + "' resume='true'/>"
	resumeWithin = 2 * time.Minute  // and not longer than the server says
	resumeAnswer = 10 * time.Second // within which the server says whether it can
)

// acks is what a session knows of its server's counting.
type acks struct {
	offered   bool                   // the server counts
	left      atomic.Bool            // the server has ended the stream, and with it what could be resumed
	wanted    atomic.Pointer[string] // the resource the client asked for
	settling  sync.Once
	over      chan struct{} // closed when it is known what the server has taken
	resuming  atomic.Pointer[resumption]
	counts    atomic.Bool // the server has said that it counts
	uncounted atomic.Bool // or that it does not, though it had offered to

	// Owned by the goroutine that reads the server.
	id     string // under which the session can be resumed, "" for not
	within time.Duration

	handled atomic.Uint32 // stanzas of the server's that are queued for the client; counted by who reads it
	sealed  atomic.Bool   // the server is told no more: it keeps the messages that come now
}

// A resumption is a suspended session that the server has been asked to go on with.
type resumption struct {
	old  *suspended
	bind string        // id of the client's request for a resource
	done chan struct{} // closed when the server has answered
}

// A suspended session has lost its connection to the server.
type suspended struct {
	id      string
	full    string
	handled uint32 // stanzas of the server's that the client has got: what did not reach it comes again
	marks   []leg.Mark
	rooms   *rooms
	roster  map[string]contactMark
	acted   []actedOn // the messages with an effect that come again, too
	account *otrlayer.Account
	expires *time.Timer
}

// counting asks the server to count, once the resource is bound.
func (s *Session) counting() {
	if !s.offered {
		s.ask() // to know whether it answers
		return
	}
	s.server.Count(askCounting, 0)
	s.server.Kick()
}

// inAck handles what a server says about counting. It is for us alone.
func (s *Session) inAck(root stanza.Element) {
	var h uint64
	known := false
	if v := root.Attr("h"); v != "" {
		var err error
		h, err = strconv.ParseUint(v, 10, 32)
		known = err == nil
	}
	switch string(root.Local()) {
	case "enabled":
		s.counts.Store(true)
		if r := root.Attr("resume"); r == "true" || r == "1" {
			s.id, s.within = root.Attr("id"), resumeWithin
			if most, err := strconv.Atoi(root.Attr("max")); err == nil && most >= 0 {
				s.within = min(s.within, time.Duration(min(most, 1e6))*time.Second)
			}
		}
	case "r":
		s.server.Asks(s.handled.Load()) // one answer is enough for all it has asked before (section 4)
	case "a":
		if known {
			all := s.server.Taken(uint32(h))
			if s.pulse.took(all); all {
				s.Account().Acknowledged(s)
			}
		}
	case "resumed":
		if r := s.resuming.Swap(nil); r != nil && known {
			s.r.Metrics.WentOn(true)
			s.resume(r, uint32(h))
			close(r.done)
		}
	case "failed":
		r := s.resuming.Swap(nil)
		switch {
		case r == nil:
			s.server.Uncounted()
			s.uncounted.Store(true)
			s.ask()
			return
		case known:
			r.old.rest(uint32(h))
		default:
			r.old.giveBack(otrlayer.CauseUncertain)
		}
		s.r.Metrics.WentOn(false)
		close(r.done)
	}
}

// handle counts a stanza of the server's, once what it has led to is queued for the client.
func (s *Session) handle() {
	if s.counts.Load() {
		s.handled.Add(1)
	}
}

// resume goes on with a suspended session in the place of a new one.
func (s *Session) resume(r *resumption, h uint32) {
	old := r.old
	s.counts.Store(true)
	s.handled.Store(old.handled)
	s.client.GoesOn(old.handled)
	s.server.Handed(old.handled)
	s.id, s.within = old.id, resumeWithin
	s.before, s.came = old.acted, old.handled
	s.contacts.goesOn(old.roster)
	s.mu.Lock()
	s.unannounced = true
	s.mu.Unlock()
	s.rooms.goesOn(old.rooms)
	s.resource.Store(&old.full)
	s.server.Count("", h)
	s.client.Build(func(b []byte) []byte {
		b = stanza.AppendAttr(append(b, "<iq type='result'"...), "id", r.bind)
		b = append(b, "><bind xmlns='"+stanza.NSBind+"'><jid>"...)
		return append(stanza.AppendEscaped(b, old.full), "</jid></bind></iq>"...)
	})
	s.client.Kick()
	s.r.log.Info("a session goes on that had lost its server", "account", s.r.log.Name(s.jid))
	s.attach()
	old.rest(h)
}

// announced sees to it that presence which the client means as its first is that to the
// server as well (RFC 6121 section 4.2): in a session that goes on it would be a mere
// change, and nobody's presence would come back.
func (s *Session) announced(typ string) {
	s.mu.Lock()
	first := s.unannounced && typ == ""
	if first {
		s.unannounced = false
	}
	s.mu.Unlock()
	if first {
		s.rooms.clear()
		s.server.Stanza(func(b []byte) []byte { return append(b, "<presence type='unavailable'/>"...) })
	}
}

// rest gives back what the server has not taken.
func (old *suspended) rest(h uint32) {
	old.marks = slices.DeleteFunc(old.marks, func(k leg.Mark) bool { return k.Taken(h) })
	old.giveBack(otrlayer.CauseUpstream)
}

func (old *suspended) giveBack(c otrlayer.Cause) {
	giveBack(old.account, old.marks, func(k leg.Mark) otrlayer.Cause {
		if !k.Counted && !k.Written {
			c = otrlayer.CauseUpstream // it never left, nor did what comes after it
		}
		return c
	})
	old.marks = nil
}

// giveBack gives back the messages that marks are of. Those that follow each other for the
// same cause go together. One that was sent again has two marks, and comes back once.
func giveBack(a *otrlayer.Account, marks []leg.Mark, cause func(leg.Mark) otrlayer.Cause) {
	marks = slices.Clone(marks)
	again := map[[2]string]bool{} // those after it, by contact and id
	for i, k := range slices.Backward(marks) {
		id := [2]string{k.Slip.Contact, k.Slip.ID}
		if !k.Slip.Again && again[id] {
			marks = slices.Delete(marks, i, i+1)
		}
		again[id] = k.Slip.Again
	}
	var list []*otrlayer.Message
	for i, k := range marks {
		list = append(list, k.Message())
		if c := cause(k); i == len(marks)-1 || cause(marks[i+1]) != c {
			a.GiveBack(c, list...)
			list = nil
		}
	}
}

// binding is the client's request for a resource. It reports true when that was answered
// by resuming a suspended session.
func (s *Session) binding(root, bind stanza.Element) bool {
	if s.resource.Load() != nil {
		return false
	}
	wanted := ""
	if r, ok := bind.Child(stanza.NSBind, "resource"); ok {
		wanted = r.Text()
	}
	s.wanted.Store(&wanted)
	if wanted == "" || s.stranger.Load() != nil { // it goes on with nobody's: who asks for no resource is not known again
		return false
	}
	s.r.awaitEnd(s, wanted)
	old := s.r.takeSuspended(s.jid, wanted)
	if old == nil {
		return false
	}
	if !s.offered {
		old.giveBack(otrlayer.CauseUncertain)
		return false
	}
	r := &resumption{old, root.Attr("id"), make(chan struct{})}
	s.resuming.Store(r)
	b := append([]byte("<resume xmlns='"+leg.NSAcks+"' h='"), strconv.FormatUint(uint64(old.handled), 10)...)
	b = stanza.AppendAttr(append(b, '\''), "previd", old.id)
	s.server.Queue(append(b, "/>"...))
	s.server.Flush()
	timeout := time.NewTimer(resumeAnswer)
	defer timeout.Stop()
	select {
	case <-r.done:
		return s.resource.Load() != nil
	case <-s.serverRead:
	case <-timeout.C:
		s.server.Conn.Close() // it is no use; the next connection is a new one
		<-s.serverRead
	}
	old.giveBack(otrlayer.CauseUncertain)
	return true
}

// awaitEnd waits for sessions of the same client that are ending: the server would throw
// them out for the new one, and with them what it has not read yet. Of others it is told
// what has arrived, or it would give that to the new one as well.
func (r *Relay) awaitEnd(s *Session, wanted string) {
	r.mu.Lock()
	var same []*Session
	for x := range r.sessions.of[s.jid] {
		if w := x.wanted.Load(); x != s && w != nil && *w == wanted {
			same = append(same, x)
		}
	}
	r.mu.Unlock()
	timeout := time.NewTimer(lastAcks + lastWords)
	defer timeout.Stop()
	for _, x := range same {
		if !x.hasten() && !x.closing.Load() {
			x.server.Tells()
			continue
		}
		select {
		case <-x.over:
		case <-timeout.C:
			return
		}
	}
}

// Pending reports whether the server may not have got all of a person's messages yet.
func (s *Session) Pending() bool { return s.counts.Load() && s.server.Pending() }

// resumable reports whether the session could go on over another connection.
func (s *Session) resumable() bool { return s.id != "" && s.within > 0 && !s.left.Load() }

// settle gives back what the server has not taken, at the end; or keeps it until the
// server can say.
func (s *Session) settle() {
	s.settling.Do(func() {
		defer close(s.over)
		if !s.counts.Load() {
			s.server.Uncounted() // it was asked to count, and has not said that it does
		}
		if !s.silent.Load() { // a side that closes has read what came before
			s.server.Alive()
		}
		marks := s.server.Unsent()
		old := &suspended{id: s.id, full: s.full(), handled: s.client.Arrived(0), marks: marks, account: s.Account()}
		if wanted := s.wanted.Load(); wanted != nil && *wanted != "" && !s.silent.Load() && s.stranger.Load() == nil && len(marks) > 0 && s.resumable() {
			old.rooms, old.roster, old.acted = s.rooms.copied(), s.contacts.copied(), s.comeAgain(old.handled)
			if s.r.suspend(s.jid, *wanted, s.within, old) {
				return
			}
		}
		old.giveBack(otrlayer.CauseUncertain)
	})
}

// suspend keeps a session that may be resumed for a time; false when the proxy stops.
func (r *Relay) suspend(jid, resource string, within time.Duration, old *suspended) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing {
		return false
	}
	key := [2]string{jid, resource}
	if before := r.suspended[key]; before != nil { // its timer finds that it is gone
		before.expires.Stop()
		go before.giveBack(otrlayer.CauseUncertain)
	}
	r.suspended[key] = old
	old.expires = time.AfterFunc(within, func() {
		r.mu.Lock()
		mine := r.suspended[key] == old
		if mine {
			delete(r.suspended, key)
		}
		r.mu.Unlock()
		if mine {
			old.giveBack(otrlayer.CauseUncertain)
		}
	})
	return true
}

// takeSuspended takes what is kept for a resource of an account; nil for nothing.
func (r *Relay) takeSuspended(jid, resource string) *suspended {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := [2]string{jid, resource}
	old := r.suspended[key]
	if old == nil {
		return nil
	}
	old.expires.Stop() // and if it is late, it finds that it is gone
	delete(r.suspended, key)
	return old
}
