package proxy

import (
	"errors"
	"net"
	"sync"
	"time"
)

const (
	highWater   = 256 << 10        // bytes queued to one leg before its feeder stops reading
	writeLimit  = 60 * time.Second // a write that takes longer cuts the connection
	writeRefuse = 16 << 20         // bytes queued in all; more means the side is stuck
)

var errStuck = errors.New("the other side does not read")

// An inlet is where a leg is read. Before it may have to wait for bytes, what the
// bytes so far have led to must be on its way.
type inlet struct {
	conn   net.Conn
	before func()
}

func (i *inlet) Read(b []byte) (int, error) {
	if i.before != nil {
		i.before()
	}
	return i.conn.Read(b)
}

// An outbox is the one writer of a leg. Stanzas are appended by anybody, in
// order; what is queued when a write begins leaves in one write, so in as few TLS
// records as possible.
type outbox struct {
	conn net.Conn

	mu       sync.Mutex
	room     sync.Cond
	buf      []byte // queued
	spare    []byte
	writing  bool
	err      error
	deadline time.Time
	onError  func(error)
}

func newOutbox(conn net.Conn, onError func(error)) *outbox {
	o := &outbox{conn: conn, onError: onError}
	o.room.L = &o.mu
	return o
}

// queue appends bytes; they leave with the next flush.
func (o *outbox) queue(b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf = append(o.buf, b...)
}

// build appends what f builds at the end of the queue.
func (o *outbox) build(f func([]byte) []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf = f(o.buf)
}

// flush writes what is queued, in the caller's goroutine unless another one is
// writing already, which then takes it along. It is for the goroutine that feeds
// this leg: a slow side slows its feeder, nobody else.
func (o *outbox) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drain()
}

// kick is flush for everybody else: it never waits.
func (o *outbox) kick() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.writing && len(o.buf) > 0 && o.err == nil {
		go o.flush()
	}
	if len(o.buf) > writeRefuse && o.err == nil {
		o.failed(errStuck)
	}
}

func (o *outbox) drain() {
	if o.writing {
		return
	}
	o.writing = true
	for len(o.buf) > 0 && o.err == nil {
		out := o.buf
		o.buf = o.spare[:0]
		if now := time.Now(); o.deadline.Sub(now) < writeLimit*3/4 {
			o.deadline = now.Add(writeLimit)
			o.conn.SetWriteDeadline(o.deadline)
		}
		o.mu.Unlock()
		_, err := o.conn.Write(out)
		o.mu.Lock()
		if cap(out) > 2*highWater {
			out = nil
		}
		o.spare = out
		if err != nil {
			o.failed(err)
		}
		o.room.Broadcast()
	}
	o.writing = false
	o.room.Broadcast()
}

func (o *outbox) failed(err error) {
	if o.err == nil {
		o.err = err
		o.room.Broadcast()
		if o.onError != nil {
			go o.onError(err)
		}
	}
}

// wait returns once there is room for more, or the leg is broken.
func (o *outbox) wait() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.buf) > highWater && o.err == nil {
		o.room.Wait()
	}
}

// finish writes what is queued within the given time and closes the connection.
func (o *outbox) finish(within time.Duration) {
	o.conn.SetWriteDeadline(time.Now().Add(within))
	o.mu.Lock()
	o.deadline = time.Now().Add(time.Hour) // keep the short one
	for o.writing && o.err == nil {
		o.room.Wait()
	}
	o.drain()
	o.mu.Unlock()
	o.conn.Close()
}
