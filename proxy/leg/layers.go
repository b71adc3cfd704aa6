package leg

import (
	"net"
	"time"
)

// Peeked gives back the bytes that were looked at.
type Peeked struct {
	net.Conn
	First []byte
}

// NetConn is the connection below.
func (c *Peeked) NetConn() net.Conn { return c.Conn }

func (c *Peeked) Read(b []byte) (int, error) {
	if len(c.First) > 0 {
		n := copy(b, c.First)
		c.First = c.First[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// A layer is a connection over another one.
type layer interface{ NetConn() net.Conn }

// rawConn is the TCP connection below.
func rawConn(c net.Conn) net.Conn {
	for {
		over, ok := c.(layer)
		if !ok {
			return c
		}
		c = over.NetConn()
	}
}

// halfClose ends the sending direction, layer by layer.
func halfClose(c net.Conn) {
	for {
		if t, ok := c.(interface{ CloseWrite() error }); ok {
			t.CloseWrite()
		}
		over, ok := c.(layer)
		if !ok {
			return
		}
		c = over.NetConn()
	}
}

// Drain lets a client read our last words: closing with unread input would reset
// the connection under them.
func Drain(raw, conn net.Conn) {
	raw.SetReadDeadline(time.Now().Add(time.Second))
	halfClose(conn)
	var b [4096]byte
	for range 64 {
		if _, err := raw.Read(b[:]); err != nil {
			return
		}
	}
}
