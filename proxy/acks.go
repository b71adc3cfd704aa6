package proxy

import (
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"otrproxy/otrlayer"
	"otrproxy/stanza"
)

// What a server has taken is known for sure where it counts stanzas (XEP-0198, spoken on
// our leg to it alone): a connection that breaks leaves behind messages that the kernel
// had accepted and nobody has read. When the client is back, the broken session is
// resumed in the place of a new one. The server says how far it got; what it has not got
// is given back to the person, and what it had for the client comes then.

// nsSM is the namespace of stream management (XEP-0198).
const nsSM = "urn:xmpp:sm:3"

// askTaken asks what the other side has taken.
const askTaken = "<r xmlns='" + nsSM + "'/>"

const (
	askCounting  = "<enable xmlns='" + nsSM + "' resume='true'/>"
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

// A tally is what a leg counts for its other side, once that has been asked to say what it
// has taken. What the two tell each other costs a packet each way. So that leaves at once
// where there was nothing lately, and of a run of messages seldom, or with what is written
// anyway.
type tally struct {
	counting bool
	stanzas  uint32      // queued since it counts
	unasked  int         // persons' messages queued since it was last asked
	asked    moment      // when it was; zero for never
	owes     bool        // it has asked how many of its own have been handed on
	upTo     uint32      // once it was so many
	handled  uint32      // that many have been
	told     uint32      // it knows of so many
	answered moment      // when it was last told; zero for never
	due      *time.Timer // until what is left to say is said; nil for nothing
	dueAt    moment
}

const (
	askEvery    = time.Second
	answerEvery = 50 * time.Millisecond // what a server has not been told of it gives another session
	maxUnasked  = 100                   // messages that may have left without a question what was taken
)

// count queues ask, by which the other side begins to count stanzas, and counts those that are
// queued after it. The other side has already taken from of them.
func (o *outbox) count(ask string, from uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.put(func(b []byte) []byte { return append(b, ask...) }) {
		o.counting, o.stanzas = true, from
	}
}

// uncounted ends that: the other side does not count.
func (o *outbox) uncounted() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.counting, o.unasked = false, 0
	for i := range o.marks {
		o.marks[i].counted = false
	}
	if o.wrote == nil {
		o.forget()
	}
}

// taken notes how many stanzas the other side has taken, and reports whether those were
// all.
func (o *outbox) taken(n uint32) (all bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.marks = slices.DeleteFunc(o.marks, func(k mark) bool { return k.taken(n) })
	return len(o.marks) == 0
}

// pending reports whether the other side counts, and has not taken everything yet.
func (o *outbox) pending() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.counting && len(o.marks) > 0
}

// asks notes that the other side asks how many of its stanzas have been handed on, of so many.
// It never waits.
func (o *outbox) asks(upTo uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.owes, o.upTo = true, upTo
	o.answers()
}

// handed notes how many of the other side's stanzas have been handed on, and has it told where
// it has asked. It never waits.
func (o *outbox) handed(on uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if int32(on-o.handled) > 0 { // who tells it may be late
		o.handled = on
	}
	o.answers()
}

// answers sees to it that what is owed is said; who writes does so anyway.
func (o *outbox) answers() {
	if o.answerable() && !o.writing && !o.closed && o.err == nil {
		o.sayLater()
	}
}

// answerable reports whether the other side waits for a number that is known.
func (o *outbox) answerable() bool { return o.owes && int32(o.handled-o.upTo) >= 0 }

// say adds to the queue the question and the answer that are due, and reports whether the
// question is among them. At the end both are due: the other side would send again what it
// does not know to have arrived.
func (o *outbox) say(end bool) (asked bool) {
	owes := o.answerable() || end && (o.owes || o.handled != o.told)
	if !owes && o.unasked == 0 || o.closed || o.err != nil {
		return false
	}
	now := clock()
	if owes && (end || len(o.buf) > 0 || until(o.answered, answerEvery, now) <= 0) {
		o.open()
		o.buf = append(strconv.AppendUint(append(o.buf, "<a xmlns='"+nsSM+"' h='"...), uint64(o.handled), 10), "'/>"...)
		owes, o.owes, o.told, o.answered = false, false, o.handled, now
	}
	if o.unasked > 0 && (end || o.unasked >= maxUnasked || until(o.asked, askEvery, now) <= 0) {
		o.open()
		o.buf = append(o.buf, askTaken...)
		o.unasked, o.asked, asked = 0, now, true
	}
	if owes || o.unasked > 0 {
		o.sayLater()
	}
	return asked
}

// until is how long it takes until it is time to say again what was last said then.
func until(last moment, every time.Duration, now moment) time.Duration {
	if last == 0 {
		return 0
	}
	return every - time.Duration(now-last)
}

// sayLater writes what is due once it is.
func (o *outbox) sayLater() {
	pause, now := askEvery, clock()
	if o.unasked > 0 {
		pause = until(o.asked, askEvery, now)
	}
	if o.answerable() {
		pause = min(pause, until(o.answered, answerEvery, now))
	}
	switch {
	case pause <= 0:
		go o.flush()
		return
	case o.due != nil && o.dueAt <= now+moment(pause):
		return
	case o.due != nil:
		o.due.Stop() // it may be at it: then it finds nothing more to do
	}
	o.dueAt = now + moment(pause)
	o.due = time.AfterFunc(pause, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.due = nil
		o.drain()
	})
}

// tells has the other side told at once what it has not been told of, whether it has asked or
// not.
func (o *outbox) tells() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.counting || o.closed || o.handled == o.told {
		return
	}
	o.owes, o.upTo, o.answered = true, o.handled, 0
	if len(o.buf) > 0 { // there is no room for more, perhaps
		go o.flush()
		return
	}
	o.drain()
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
	marks   []mark
	rooms   *rooms
	roster  map[string]contactMark
	account *otrlayer.Account
	expires *time.Timer
}

// counting asks the server to count, once the resource is bound.
func (s *session) counting() {
	if !s.offered {
		s.ask() // to know whether it answers
		return
	}
	s.server.count(askCounting, 0)
	s.server.kick()
}

// inAck handles what a server says about counting. It is for us alone.
func (s *session) inAck(root stanza.Element) {
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
			if max, err := strconv.Atoi(root.Attr("max")); err == nil && max >= 0 {
				s.within = min(s.within, time.Duration(min(max, 1e6))*time.Second)
			}
		}
	case "r":
		s.server.asks(s.handled.Load()) // one answer is enough for all it has asked before (section 4)
	case "a":
		if known {
			all := s.server.taken(uint32(h))
			if s.took(all); all {
				s.account().Acknowledged(s)
			}
		}
	case "resumed":
		if r := s.resuming.Swap(nil); r != nil && known {
			s.r.metrics.wentOn(true)
			s.resume(r, uint32(h))
			close(r.done)
		}
	case "failed":
		r := s.resuming.Swap(nil)
		switch {
		case r == nil:
			s.server.uncounted()
			s.uncounted.Store(true)
			s.ask()
			return
		case known:
			r.old.rest(uint32(h))
		default:
			r.old.giveBack(otrlayer.CauseUncertain)
		}
		s.r.metrics.wentOn(false)
		close(r.done)
	}
}

// handle counts a stanza of the server's, once what it has led to is queued for the client.
func (s *session) handle() {
	if s.counts.Load() {
		s.handled.Add(1)
	}
}

// resume goes on with a suspended session in the place of a new one.
func (s *session) resume(r *resumption, h uint32) {
	old := r.old
	s.counts.Store(true)
	s.handled.Store(old.handled)
	s.client.goesOn(old.handled)
	s.server.handed(old.handled)
	s.id, s.within = old.id, resumeWithin
	s.contacts.goesOn(old.roster)
	s.mu.Lock()
	s.unannounced = true
	s.mu.Unlock()
	s.rooms.goesOn(old.rooms)
	s.resource.Store(&old.full)
	s.server.count("", h)
	s.client.build(func(b []byte) []byte {
		b = stanza.AppendAttr(append(b, "<iq type='result'"...), "id", r.bind)
		b = append(b, "><bind xmlns='"+stanza.NSBind+"'><jid>"...)
		return append(stanza.AppendEscaped(b, old.full), "</jid></bind></iq>"...)
	})
	s.client.kick()
	s.r.log.Info("a session goes on that had lost its server", "account", s.r.log.name(s.jid))
	s.attach()
	old.rest(h)
}

// announced sees to it that presence which the client means as its first is that to the
// server as well (RFC 6121 section 4.2): in a session that goes on it would be a mere
// change, and nobody's presence would come back.
func (s *session) announced(typ string) {
	s.mu.Lock()
	first := s.unannounced && typ == ""
	if first {
		s.unannounced = false
	}
	s.mu.Unlock()
	if first {
		s.rooms.clear()
		s.server.stanza(func(b []byte) []byte { return append(b, "<presence type='unavailable'/>"...) })
	}
}

// rest gives back what the server has not taken.
func (old *suspended) rest(h uint32) {
	old.marks = slices.DeleteFunc(old.marks, func(k mark) bool { return k.taken(h) })
	old.giveBack(otrlayer.CauseUpstream)
}

func (old *suspended) giveBack(c otrlayer.Cause) {
	giveBack(old.account, old.marks, func(k mark) otrlayer.Cause {
		if !k.counted && !k.written {
			c = otrlayer.CauseUpstream // it never left, nor did what comes after it
		}
		return c
	})
	old.marks = nil
}

// giveBack gives back the messages that marks are of. Those that follow each other for the
// same cause go together.
func giveBack(a *otrlayer.Account, marks []mark, cause func(mark) otrlayer.Cause) {
	var list []*otrlayer.Message
	for i, k := range marks {
		list = append(list, k.message())
		if c := cause(k); i == len(marks)-1 || cause(marks[i+1]) != c {
			a.GiveBack(c, list...)
			list = nil
		}
	}
}

// binding is the client's request for a resource. It reports true when that was answered
// by resuming a suspended session.
func (s *session) binding(root, bind stanza.Element) bool {
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
	b := append([]byte("<resume xmlns='"+nsSM+"' h='"), strconv.FormatUint(uint64(old.handled), 10)...)
	b = stanza.AppendAttr(append(b, '\''), "previd", old.id)
	s.server.queue(append(b, "/>"...))
	s.server.flush()
	timeout := time.NewTimer(resumeAnswer)
	defer timeout.Stop()
	select {
	case <-r.done:
		return s.resource.Load() != nil
	case <-s.serverRead:
	case <-timeout.C:
		s.server.conn.Close() // it is no use; the next connection is a new one
		<-s.serverRead
	}
	old.giveBack(otrlayer.CauseUncertain)
	return true
}

// awaitEnd waits for sessions of the same client that are ending: the server would throw
// them out for the new one, and with them what it has not read yet. Of others it is told
// what has arrived, or it would give that to the new one as well.
func (r *relay) awaitEnd(s *session, wanted string) {
	r.mu.Lock()
	var same []*session
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
			x.server.tells()
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
func (s *session) Pending() bool { return s.counts.Load() && s.server.pending() }

// resumable reports whether the session could go on over another connection.
func (s *session) resumable() bool { return s.id != "" && s.within > 0 && !s.left.Load() }

// settle gives back what the server has not taken, at the end; or keeps it until the
// server can say.
func (s *session) settle() {
	s.settling.Do(func() {
		defer close(s.over)
		if !s.counts.Load() {
			s.server.uncounted() // it was asked to count, and has not said that it does
		}
		if !s.silent.Load() { // a side that closes has read what came before
			s.server.alive()
		}
		marks := s.server.unsent()
		old := &suspended{id: s.id, full: s.full(), handled: s.client.arrived(0), marks: marks, account: s.account()}
		if wanted := s.wanted.Load(); wanted != nil && *wanted != "" && !s.silent.Load() && s.stranger.Load() == nil && len(marks) > 0 && s.resumable() {
			old.rooms, old.roster = s.rooms.copied(), s.contacts.copied()
			if s.r.suspend(s.jid, *wanted, s.within, old) {
				return
			}
		}
		old.giveBack(otrlayer.CauseUncertain)
	})
}

// suspend keeps a session that may be resumed for a time; false when the proxy stops.
func (r *relay) suspend(jid, resource string, within time.Duration, old *suspended) bool {
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
func (r *relay) takeSuspended(jid, resource string) *suspended {
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
