package leg

import (
	"slices"
	"strconv"
	"time"
)

// What a server has taken is known for sure where it counts stanzas (XEP-0198, spoken on
// our leg to it alone): a connection that breaks leaves behind messages that the kernel
// had accepted and nobody has read. When the client is back, the broken session is
// resumed in the place of a new one. The server says how far it got; what it has not got
// is given back to the person, and what it had for the client comes then.

// NSAcks is the namespace of stream management (XEP-0198).
const NSAcks = "urn:xmpp:sm:3"

// AskTaken asks what the other side has taken.
const AskTaken = "<r xmlns='" + NSAcks + "'/>"

// A tally is what a leg counts for its other side, once that has been asked to say what it
// has taken. What the two tell each other costs a packet each way. So that leaves at once
// where there was nothing lately, and of a run of messages seldom, or with what is written
// anyway.
type tally struct {
	counting bool
	stanzas  uint32      // queued since it counts
	unasked  int         // persons' messages queued since it was last asked
	asked    Moment      // when it was; zero for never
	owes     bool        // it has asked how many of its own have been handed on
	upTo     uint32      // once it was so many
	handled  uint32      // that many have been
	told     uint32      // it knows of so many
	answered Moment      // when it was last told; zero for never
	due      *time.Timer // until what is left to say is said; nil for nothing
	dueAt    Moment
}

const (
	askEvery    = time.Second
	answerEvery = 50 * time.Millisecond // what a server has not been told of it gives another session
	maxUnasked  = 100                   // messages that may have left without a question what was taken
)

// Count queues ask, by which the other side begins to count stanzas, and counts those that are
// queued after it. The other side has already taken from of them.
func (o *Outbox) Count(ask string, from uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.put(func(b []byte) []byte { return append(b, ask...) }) {
		o.counting, o.stanzas = true, from
	}
}

// Uncounted ends that: the other side does not count.
func (o *Outbox) Uncounted() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.counting, o.unasked = false, 0
	for i := range o.marks {
		o.marks[i].Counted = false
	}
	if o.Wrote == nil {
		o.forget()
	}
}

// Taken notes how many stanzas the other side has taken, and reports whether those were
// all.
func (o *Outbox) Taken(n uint32) (all bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.marks = slices.DeleteFunc(o.marks, func(k Mark) bool { return k.Taken(n) })
	return len(o.marks) == 0
}

// Pending reports whether the other side counts, and has not taken everything yet.
func (o *Outbox) Pending() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.counting && len(o.marks) > 0
}

// Asks notes that the other side asks how many of its stanzas have been handed on, of so many.
// It never waits.
func (o *Outbox) Asks(upTo uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.owes, o.upTo = true, upTo
	o.answers()
}

// Handed notes how many of the other side's stanzas have been handed on, and has it told where
// it has asked. It never waits.
func (o *Outbox) Handed(on uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if int32(on-o.handled) > 0 { // who tells it may be late
		o.handled = on
	}
	o.answers()
}

// answers sees to it that what is owed is said; who writes does so anyway.
func (o *Outbox) answers() {
	if o.answerable() && !o.writing && !o.closed && o.err == nil {
		o.sayLater()
	}
}

// answerable reports whether the other side waits for a number that is known.
func (o *Outbox) answerable() bool { return o.owes && int32(o.handled-o.upTo) >= 0 }

// say adds to the queue the question and the answer that are due, and reports whether the
// question is among them. At the end both are due: the other side would send again what it
// does not know to have arrived.
func (o *Outbox) say(end bool) (asked bool) {
	owes := o.answerable() || end && (o.owes || o.handled != o.told)
	if !owes && o.unasked == 0 || o.closed || o.err != nil {
		return false
	}
	now := Clock()
	if owes && (end || len(o.buf) > 0 || until(o.answered, answerEvery, now) <= 0) {
		o.open()
		o.buf = append(strconv.AppendUint(append(o.buf, "<a xmlns='"+NSAcks+"' h='"...), uint64(o.handled), 10), "'/>"...)
		owes, o.owes, o.told, o.answered = false, false, o.handled, now
	}
	if o.unasked > 0 && (end || o.unasked >= maxUnasked || until(o.asked, askEvery, now) <= 0) {
		o.open()
		o.buf = append(o.buf, AskTaken...)
		o.unasked, o.asked, asked = 0, now, true
	}
	if owes || o.unasked > 0 {
		o.sayLater()
	}
	return asked
}

// until is how long it takes until it is time to say again what was last said then.
func until(last Moment, every time.Duration, now Moment) time.Duration {
	if last == 0 {
		return 0
	}
	return every - time.Duration(now-last)
}

// sayLater writes what is due once it is.
func (o *Outbox) sayLater() {
	pause, now := askEvery, Clock()
	if o.unasked > 0 {
		pause = until(o.asked, askEvery, now)
	}
	if o.answerable() {
		pause = min(pause, until(o.answered, answerEvery, now))
	}
	switch {
	case pause <= 0:
		go o.Flush()
		return
	case o.due != nil && o.dueAt <= now+Moment(pause):
		return
	case o.due != nil:
		o.due.Stop() // it may be at it: then it finds nothing more to do
	}
	o.dueAt = now + Moment(pause)
	o.due = time.AfterFunc(pause, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.due = nil
		o.drain()
	})
}

// Tells has the other side told at once what it has not been told of, whether it has asked or
// not.
func (o *Outbox) Tells() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.counting || o.closed || o.handled == o.told {
		return
	}
	o.owes, o.upTo, o.answered = true, o.handled, 0
	if len(o.buf) > 0 { // there is no room for more, perhaps
		go o.Flush()
		return
	}
	o.drain()
}
