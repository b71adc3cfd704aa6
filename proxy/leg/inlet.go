package leg

import (
	"net"
)

// An Inlet is where a leg is read: by a stream, from the connection. It knows whether the
// next read would have to wait for the network, and can wait for that without a buffer.
type Inlet struct {
	conn net.Conn
	wire *Wire // below conn
	more bool  // conn may have more of what it has got already
}

// NewInlet reads from a connection, below which is a wire.
func NewInlet(conn net.Conn, w *Wire) *Inlet { return &Inlet{conn: conn, wire: w, more: true} }

func (i *Inlet) Read(b []byte) (int, error) {
	n, err := i.conn.Read(b)
	i.more = n == len(b)
	return n, err
}

// Waits reports whether a read would have to wait.
func (i *Inlet) Waits() bool {
	if f, ok := i.conn.(pieces); ok {
		return f.Empty() && !i.wire.ready()
	}
	return !i.more && !i.wire.ready()
}

// await returns once a read would find something, or fail.
func (i *Inlet) await() {
	if f, ok := i.conn.(pieces); ok {
		f.Await()
		return
	}
	i.wire.await()
}

// pieces is a connection that reads from below one message at a time, as one over WebSocket does.
type pieces interface {
	Empty() bool // all that was received has been read
	Await()      // returns once there is something to read, or a read fails
}
