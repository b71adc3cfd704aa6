//go:build linux

package main

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
)

// The copy is the least that passing bytes between two TLS connections costs in Go, done
// well: it reads as much as there is at once, decrypts all complete records of that, and
// encrypts them again in one write. It knows nothing of XMPP.

const chunkSize = 32 << 10

// chunks are held by connections only while they have bytes: most are idle.
var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// A wire is the connection below TLS. It hands out one record at a time, so that TLS never
// holds a record that nobody knows of.
type wire struct {
	net.Conn
	raw   syscall.RawConn
	chunk *[chunkSize]byte // nil where there is nothing
	r, w  int              // the bytes that are there
	left  int              // of the record that is being handed out
}

func newWire(c net.Conn) (*wire, error) {
	raw, err := c.(syscall.Conn).SyscallConn()
	return &wire{Conn: c, raw: raw}, err
}

// wait returns when there are bytes.
func (c *wire) wait() error {
	if c.r < c.w {
		return nil
	}
	return c.more()
}

// more waits for more bytes. It holds no chunk meanwhile, unless there are some in it.
func (c *wire) more() error {
	var n int
	var failed error
	err := c.raw.Read(func(fd uintptr) bool {
		if c.chunk == nil {
			c.chunk, c.r, c.w = chunks.Get().(*[chunkSize]byte), 0, 0
		}
		for {
			n, failed = syscall.Read(int(fd), c.chunk[c.w:])
			if failed != syscall.EINTR {
				break
			}
		}
		if failed == syscall.EAGAIN {
			c.release()
			return false
		}
		return true
	})
	switch {
	case err != nil:
	case failed != nil:
		err = failed
	case n == 0:
		err = io.EOF
	default:
		c.w += n
	}
	if err != nil {
		c.release()
	}
	return err
}

func (c *wire) release() {
	if c.chunk != nil && c.r == c.w {
		chunks.Put(c.chunk)
		c.chunk, c.r, c.w = nil, 0, 0
	}
}

const recordHeader = 5 // bytes; the last two are the length of what follows

func (c *wire) Read(b []byte) (int, error) {
	for c.left == 0 && c.w-c.r < recordHeader || c.r == c.w {
		if c.chunk != nil {
			c.r, c.w = 0, copy(c.chunk[:], c.chunk[c.r:c.w])
		}
		if err := c.more(); err != nil {
			return 0, err
		}
	}
	if c.left == 0 {
		c.left = recordHeader + int(binary.BigEndian.Uint16(c.chunk[c.r+3:]))
	}
	n := copy(b, c.chunk[c.r:min(c.w, c.r+c.left)])
	c.r, c.left = c.r+n, c.left-n
	c.release()
	return n, nil
}

// record reports whether a complete record is there, which takes no waiting to read.
func (c *wire) record() bool {
	return c.w-c.r >= recordHeader && c.w-c.r >= recordHeader+int(binary.BigEndian.Uint16(c.chunk[c.r+3:]))
}

// largest is what a record may hold.
const largest = 16 << 10

// pass copies from one connection to the other until one of them ends.
func pass(to, from *tls.Conn, below *wire) error {
	for {
		if err := below.wait(); err != nil {
			return err
		}
		room := chunks.Get().(*[chunkSize]byte)
		n := 0
		for more := true; more; {
			got, err := from.Read(room[n:])
			if n += got; err != nil {
				to.Write(room[:n])
				return err
			}
			// There is always room for a whole record, so that TLS keeps nothing of one.
			more = below.record()
			if !more || len(room)-n < largest {
				if _, err := to.Write(room[:n]); err != nil {
					return err
				}
				n = 0
			}
		}
		chunks.Put(room)
	}
}

// between is a process between clients and a server: it takes the file of a certificate and
// the server's address, prints its own, and has each client that connects served.
func between(args []string, serve func(c net.Conn, cert tls.Certificate, upstream string)) error {
	if len(args) != 2 {
		return fmt.Errorf("want the file of the certificate, and the address")
	}
	cert, err := tls.LoadX509KeyPair(args[0], args[0])
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go serve(c, cert, args[1])
	}
}

// copyBetween is the copy as a process.
func copyBetween(args []string) error { return between(args, connect) }

func connect(c net.Conn, cert tls.Certificate, upstream string) {
	defer c.Close()
	u, err := net.Dial("tcp", upstream)
	if err != nil {
		return
	}
	defer u.Close()
	belowC, err := newWire(c)
	if err != nil {
		return
	}
	belowU, err := newWire(u)
	if err != nil {
		return
	}
	outer := tls.Server(belowC, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, CurvePreferences: curves, DynamicRecordSizingDisabled: true})
	inner := tls.Client(belowU, &tls.Config{InsecureSkipVerify: true, ServerName: domain, MinVersion: tls.VersionTLS13, CurvePreferences: curves, DynamicRecordSizingDisabled: true})
	if outer.Handshake() != nil || inner.Handshake() != nil {
		return
	}
	go func() {
		pass(outer, inner, belowU)
		c.Close() // which ends the other direction
	}()
	pass(inner, outer, belowC)
}
