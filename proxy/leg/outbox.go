package leg

import (
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"otrproxy/otrlayer"
)

// Bounds of a leg that does not keep up.
const (
	highWater   = 256 << 10        // bytes queued to one leg before its feeder stops reading
	WriteLimit  = 60 * time.Second // a write that takes longer cuts the connection
	writeRefuse = 16 << 20         // bytes queued in all; more means the side is stuck
)

var (
	errStuck  = errors.New("the other side does not read")
	errHalted = errors.New("the connection is gone")
)

// An Outbox is the one writer of a leg. Stanzas are appended by anybody, in
// order; what is queued when a write begins leaves in one write, so in as few TLS
// records as possible.
type Outbox struct {
	Conn net.Conn

	mu       sync.Mutex
	room     sync.Cond
	buf      []byte  // queued; nil where nothing is
	box      *[]byte // in which buf goes back to queues
	writing  bool
	inFlight int  // bytes of the present write
	closed   bool // nothing more is taken
	err      error
	deadline time.Time
	sent     int64 // bytes written so far
	marks    []Mark
	ids      []byte // what the marks' ids are slices of
	onError  func(error)
	// Wrote is told that something is handed to the connection, and whether with the question
	// what was taken; nil for a leg that is not watched. On a watched one, what has left is
	// remembered until the other side gives a sign of life (alive).
	Wrote func(asked bool)

	tally

	// What the other leg's side counts, where it does.
	Passed  *atomic.Uint32       // stanzas of it that are queued here; nil for a leg that it does not feed
	reached uint32               // those that have been written
	Arrives func(reached uint32) // is told so
}

// queues are kept for the legs that have something to say: most have nothing, most of the
// time.
var queues = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// A Mark is a person's message in the queue, by where it ends and how many stanzas
// there are up to it, so that it can be given back when the leg breaks before it has
// left or, where the other side says so, before it was taken.
type Mark struct {
	end     int64
	Counted bool
	Written bool // it has left, and nobody has said that it arrived; known at the end
	n       uint32
	Slip    otrlayer.Slip
	ID      []byte         // in the place of the slip's ID; nil where that has it
	Cause   otrlayer.Cause // towards the client: why it is given back
}

// Message is the message that is given back.
func (k Mark) Message() *otrlayer.Message {
	m := k.Slip.Message()
	if k.ID != nil {
		m.ID = string(k.ID)
	}
	return m
}

// Taken reports whether a mark is among the first n stanzas that were counted; the
// numbers may have wrapped around.
func (k Mark) Taken(n uint32) bool { return k.Counted && int32(n-k.n) >= 0 }

// maxMarks bounds what a server may leave unconfirmed.
const maxMarks = 10_000

// Message is build for a person's message, or for what gives one back.
func (o *Outbox) Message(k Mark, f func([]byte) []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.put(f) {
		return false
	}
	o.stanzas++
	if len(o.marks) >= maxMarks {
		o.marks = append(o.marks[:0], o.marks[1:]...)
	}
	if k.ID != nil {
		k.ID = o.keepID(k.ID)
	}
	k.end, k.Counted, k.n = o.sent+int64(o.inFlight+len(o.buf)), o.counting, o.stanzas
	o.marks = append(o.marks, k)
	if o.counting {
		o.unasked++
	}
	return true
}

// keepID copies an id to where it stays as long as its mark.
func (o *Outbox) keepID(id []byte) []byte {
	if len(o.marks) == 0 {
		o.ids = o.ids[:0]
	}
	if cap(o.ids)-len(o.ids) < len(id) { // those before stay where they are
		o.ids = make([]byte, 0, max(idsAtOnce, len(id)))
	}
	from := len(o.ids)
	o.ids = append(o.ids, id...)
	return o.ids[from:len(o.ids):len(o.ids)]
}

// idsAtOnce is the room that is made for ids, in bytes.
const idsAtOnce = 4 << 10

// Stanza is build for any other stanza.
func (o *Outbox) Stanza(f func([]byte) []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	ok := o.put(f)
	if ok {
		o.stanzas++
	}
	return ok
}

// put appends what f builds, if the leg takes any more.
func (o *Outbox) put(f func([]byte) []byte) bool {
	if o.closed || o.err != nil {
		return false
	}
	o.open()
	o.buf = f(o.buf)
	return true
}

// open has room for what is queued.
func (o *Outbox) open() {
	if o.buf == nil {
		o.box = queues.Get().(*[]byte)
		o.buf = (*o.box)[:0]
	}
}

// forget drops the marks of what has been written and will not be confirmed.
func (o *Outbox) forget() {
	o.marks = slices.DeleteFunc(o.marks, func(k Mark) bool { return !k.Counted && k.end <= o.sent })
}

// Alive notes a sign of life of the other side: what has left is not lost.
func (o *Outbox) Alive() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forget()
}

// Halt refuses everything from now on, and returns once no write is under way.
func (o *Outbox) Halt() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failed(errHalted)
	for o.writing {
		o.room.Wait()
	}
}

// Unsent takes the messages that have not left, or of which nobody has said that they
// were taken.
func (o *Outbox) Unsent() (left []Mark) {
	o.mu.Lock()
	defer o.mu.Unlock()
	left, o.marks = o.marks, nil
	for i := range left {
		left[i].Written = left[i].end <= o.sent
	}
	return left
}

// NewOutbox writes to a connection, and says once when that fails.
func NewOutbox(conn net.Conn, onError func(error)) *Outbox {
	o := &Outbox{Conn: conn, onError: onError}
	o.room.L = &o.mu
	return o
}

// Queue appends bytes, which leave with the next flush. It reports false when the
// leg takes no more.
func (o *Outbox) Queue(b []byte) bool {
	return o.Build(func(dst []byte) []byte { return append(dst, b...) })
}

// Build is queue for what f builds at the end of the queue.
func (o *Outbox) Build(f func([]byte) []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.put(f)
}

// Seal queues the last words: nothing comes behind them.
func (o *Outbox) Seal(b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.say(true)
	o.put(func(dst []byte) []byte { return append(dst, b...) })
	o.closed = true
}

// Flush writes what is queued, in the caller's goroutine unless another one is
// writing already, which then takes it along. It is for the goroutine that feeds
// this leg: a slow side slows its feeder, nobody else.
func (o *Outbox) Flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drain()
}

// GoesOn has so many of the other leg's stanzas been written before.
func (o *Outbox) GoesOn(reached uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reached = reached
}

// Arrived is how many of the other leg's stanzas have been written. It waits so long for what
// is queued.
func (o *Outbox) Arrived(patience time.Duration) uint32 {
	if patience > 0 {
		late := time.AfterFunc(patience, func() {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.room.Broadcast()
		})
		defer late.Stop()
		o.Kick()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for end := time.Now().Add(patience); (o.writing || len(o.buf) > 0) && o.err == nil && time.Now().Before(end); {
		o.room.Wait()
	}
	return o.reached
}

// Kick is flush for everybody else: it never waits.
func (o *Outbox) Kick() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.writing && len(o.buf) > 0 && o.err == nil {
		go o.Flush()
	}
	if len(o.buf) > writeRefuse && o.err == nil {
		o.failed(errStuck)
	}
}

func (o *Outbox) drain() {
	if o.writing {
		return
	}
	o.writing = true
	for o.err == nil {
		asked := o.say(false)
		if len(o.buf) == 0 {
			if o.Passed == nil || o.Passed.Load() == o.reached {
				break
			}
			reached := o.Passed.Load() // the last of them led to nothing here
			o.reached = reached
			o.mu.Unlock()
			o.Arrives(reached)
			o.mu.Lock()
			continue
		}
		out, box := o.buf, o.box
		o.buf, o.box = nil, nil
		if now := time.Now(); o.deadline.Sub(now) < WriteLimit*3/4 {
			o.deadline = now.Add(WriteLimit)
			o.Conn.SetWriteDeadline(o.deadline)
		}
		o.inFlight = len(out)
		var passed uint32
		if o.Passed != nil {
			passed = o.Passed.Load() // a stanza counts once it is queued, so all of these are in here
		}
		o.mu.Unlock()
		if o.Wrote != nil {
			o.Wrote(asked)
		}
		_, err := o.Conn.Write(out)
		if o.Passed != nil && err == nil {
			o.Arrives(passed)
		}
		o.mu.Lock()
		o.inFlight = 0
		if err == nil {
			o.reached = passed
			if o.sent += int64(len(out)); o.Wrote == nil {
				o.forget()
			}
		}
		if cap(out) <= highWater {
			*box = out
			queues.Put(box)
		}
		if err != nil {
			o.failed(err)
		}
		o.room.Broadcast()
	}
	o.writing = false
	o.room.Broadcast()
}

func (o *Outbox) failed(err error) {
	if o.err == nil {
		o.err = err
		o.room.Broadcast()
		if o.onError != nil {
			go o.onError(err)
		}
	}
}

// Wait returns once there is room for more, or the leg is broken.
func (o *Outbox) Wait() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.buf) > highWater && o.err == nil {
		o.room.Wait()
	}
}

// Hurry bounds the time for writing from now on.
func (o *Outbox) Hurry(within time.Duration) (until time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	until = time.Now().Add(within)
	o.deadline = until.Add(WriteLimit) // keeps drain from setting a later one
	o.Conn.SetWriteDeadline(until)
	return until
}

// Finish writes what is queued, tells the other side that this was all, and waits
// for it to have taken everything, for the given time at most. Closing at once
// would throw away what the kernel has not delivered yet, if the other side has
// sent anything meanwhile. Whoever reads the leg goes on until read is closed.
func (o *Outbox) Finish(within time.Duration, read <-chan struct{}) {
	until := o.Hurry(within)
	o.mu.Lock()
	o.closed = true
	for o.writing && o.err == nil {
		o.room.Wait()
	}
	o.drain()
	ok, counting := o.err == nil, o.counting
	o.mu.Unlock()
	if ok {
		raw := rawConn(o.Conn)
		raw.SetReadDeadline(until)
		timeout := time.NewTimer(within)
		defer timeout.Stop()
		if counting { // its last word is how much it has taken
			select {
			case <-read:
			case <-timeout.C:
			}
		}
		halfClose(o.Conn)
		select {
		case <-read:
		case <-timeout.C:
		}
		var b [4096]byte
		for range 1 << 14 {
			if _, err := raw.Read(b[:]); err != nil {
				break
			}
		}
	}
	o.Conn.Close()
}
