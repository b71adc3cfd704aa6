//go:build unix

package leg

import (
	"io"
	"net"
	"os"
	"syscall"
)

// A rawReader reads from the system. It waits without holding memory for what comes.
type rawReader struct {
	conn  syscall.RawConn // nil where the connection is none of the system's
	try   func(fd uintptr) bool
	err   error
	waits bool // it does wait so
}

func (k *rawReader) open(w *Wire) {
	if sc, ok := w.Conn.(syscall.Conn); ok {
		if conn, err := sc.SyscallConn(); err == nil {
			k.conn, k.waits = conn, true
			k.try = func(fd uintptr) bool { return k.attempt(w, int(fd)) }
		}
	}
}

// read reads into the wire's chunk, and waits where nothing is there yet.
func (k *rawReader) read(w *Wire) error {
	if k.conn == nil {
		n, err := w.Conn.Read(w.take())
		w.w += n
		return err
	}
	k.err = nil
	if err := k.conn.Read(k.try); err != nil {
		return err
	}
	return k.err
}

// attempt reads what is there, and reports false where nothing is.
func (k *rawReader) attempt(w *Wire, fd int) bool {
	for {
		n, err := syscall.Read(fd, w.take())
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			w.release()
			return false
		case err != nil:
			k.err = &net.OpError{Op: "read", Net: "tcp", Source: w.LocalAddr(), Addr: w.RemoteAddr(), Err: os.NewSyscallError("read", err)}
		case n == 0:
			k.err = io.EOF
		default:
			w.w += n
		}
		return true
	}
}
