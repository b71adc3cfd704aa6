package leg

import (
	"encoding/binary"
	"net"
	"sync"
)

// A Wire is a connection below TLS. It reads as much as there is in one system call, into
// a chunk that it holds only as long as something is in it: most connections are idle,
// most of the time. TLS gets one record at a time, so that what is left in the chunk shows
// whether a read has to wait. Before one does, what was read has led to something that must
// be on its way (before).
//
// One goroutine reads a wire. Writes go to the connection as they are.
type Wire struct {
	net.Conn
	Before func() // called before a read waits for the network; nil for nothing to do
	Heard  func() // called when bytes have come from it; nil for nobody who wants to know

	// Owned by the goroutine that reads.
	Records bool   // what comes is TLS, in records
	left    int    // bytes of the present record that TLS has not taken
	chunk   []byte // what was read; nil where nothing is
	r, w    int    // what of it was not taken
	failed  error  // of a read whose bytes come first
	fresh   bool   // something has come since the reader last looked
	raw     rawReader
}

const (
	chunkSize  = 32 << 10
	recordHead = 5 // type, version and length (RFC 8446 section 5.1)
)

// chunks are those of wires that have just read something.
var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// NewWire reads from a connection of the system's, or any other.
func NewWire(conn net.Conn) *Wire {
	w := &Wire{Conn: conn}
	w.raw.open(w)
	return w
}

// ready reports whether a read would find something without waiting.
func (w *Wire) ready() bool {
	have := w.w - w.r
	if !w.Records {
		return have > 0
	}
	if w.left > 0 { // TLS takes no part of a record without waiting for the rest
		return have >= min(w.left, chunkSize)
	}
	return have >= recordHead && have >= min(w.record(), chunkSize)
}

// record is the size of the record that begins at the front, with its head.
func (w *Wire) record() int {
	return recordHead + int(binary.BigEndian.Uint16(w.chunk[w.r+3:]))
}

// await returns once a read would find something, or fail. While it waits it holds no
// memory.
func (w *Wire) await() {
	for w.failed == nil && !w.ready() {
		if w.failed = w.fill(); !w.raw.waits {
			return
		}
	}
}

// fill reads more.
func (w *Wire) fill() error {
	if w.r > 0 {
		w.w = copy(w.chunk, w.chunk[w.r:w.w])
		w.r = 0
	}
	had := w.w
	err := w.raw.read(w)
	if w.w > had {
		w.fresh = true
		if w.Heard != nil {
			w.Heard()
		}
	}
	w.release()
	return err
}

// take has room in the chunk for what is read.
func (w *Wire) take() []byte {
	if w.chunk == nil {
		w.chunk = chunks.Get().(*[chunkSize]byte)[:]
	}
	return w.chunk[w.w:]
}

// release gives the chunk back, if nothing is in it.
func (w *Wire) release() {
	if w.chunk != nil && w.r == w.w {
		w.r, w.w = 0, 0
		chunks.Put((*[chunkSize]byte)(w.chunk))
		w.chunk = nil
	}
}

// Peek waits for the first byte, and leaves it to be read.
func (w *Wire) Peek() (byte, error) {
	for w.r == w.w {
		if err := w.fill(); err != nil {
			return 0, err
		}
	}
	return w.chunk[w.r], nil
}

// Unread puts back the bytes that were read last, so that they are read again.
func (w *Wire) Unread(b []byte) {
	if len(b) == 0 {
		return
	}
	w.take()
	w.w = len(b) + copy(w.chunk[len(b):], w.chunk[w.r:w.w])
	w.r = copy(w.chunk, b) - len(b)
}

// Read gives what has come; of TLS no more than the present record has.
func (w *Wire) Read(b []byte) (int, error) {
	for w.r == w.w || w.Records && w.left == 0 && w.w-w.r < recordHead {
		if err := w.failed; err != nil {
			w.failed = nil
			return 0, err
		}
		if w.Before != nil {
			w.Before()
		}
		if err := w.fill(); err != nil {
			return 0, err
		}
	}
	end := w.w
	if w.Records {
		if w.left == 0 {
			w.left = w.record()
		}
		end = min(end, w.r+w.left)
	}
	n := copy(b, w.chunk[w.r:end])
	w.r += n
	if w.Records {
		w.left -= n
	}
	w.release()
	return n, nil
}

// NetConn is the connection below.
func (w *Wire) NetConn() net.Conn { return w.Conn }
