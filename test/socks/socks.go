// Package socks is a SOCKS5 server in memory, for tests (RFC 1928, RFC 1929): it leads
// names to addresses of this machine, records what it was asked for and by whom, and
// fails on demand.
package socks

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
)

// A Request is one that a server got.
type Request struct {
	Named          bool   // the host was given by name
	Host           string // name or address
	Port           int
	User, Password string // "" where nobody was asked
}

// A Server runs until Close. What it is to lead somewhere must be said first.
type Server struct {
	l  net.Listener
	wg sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	leads map[string]string
	reply map[string]byte
	raw   func(net.Conn) // instead of SOCKS
	asked []Request
}

// Replies of RFC 1928 section 6.
const (
	Succeeded       = 0
	Failure         = 1
	NotAllowed      = 2
	HostUnreachable = 4
	Refused         = 5
)

// Start starts a server on a free loopback port, without a name for anybody.
func Start() (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{l: l, conns: map[net.Conn]bool{}, leads: map[string]string{}, reply: map[string]byte{}}
	s.wg.Go(s.accept)
	return s, nil
}

// Addr is where it listens, as host:port.
func (s *Server) Addr() string { return s.l.Addr().String() }

// Lead leads a host and port, as they are asked for, to an address.
func (s *Server) Lead(host, to string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leads[host] = to
}

// Reply answers what is asked for with a code; -1 ends that.
func (s *Server) Reply(host string, code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.reply, host)
	if code >= 0 {
		s.reply[host] = byte(code)
	}
}

// Instead has connections served by something else; nil for SOCKS again.
func (s *Server) Instead(f func(net.Conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raw = f
}

// Asked is what was asked for so far.
func (s *Server) Asked() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.asked...)
}

// Close ends the server and its connections.
func (s *Server) Close() {
	s.l.Close()
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.wg.Wait()
}

// add notes a connection that Close ends; false once the server is closed.
func (s *Server) add(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		c.Close()
		return false
	}
	s.conns[c] = true
	return true
}

func (s *Server) accept() {
	for {
		c, err := s.l.Accept()
		if err != nil {
			return
		}
		if !s.add(c) {
			return
		}
		s.wg.Go(func() {
			defer c.Close()
			s.mu.Lock()
			raw := s.raw
			s.mu.Unlock()
			if raw != nil {
				raw(c)
				return
			}
			s.serve(c)
		})
	}
}

func (s *Server) serve(c net.Conn) {
	r, err := s.request(c)
	if err != nil {
		return
	}
	at := net.JoinHostPort(r.Host, strconv.Itoa(r.Port))
	s.mu.Lock()
	s.asked = append(s.asked, r)
	code, fails := s.reply[at]
	to, ok := s.leads[at]
	s.mu.Unlock()
	if !fails && !ok {
		code = HostUnreachable
	}
	answer := func(code byte) { c.Write([]byte{5, code, 0, 1, 0, 0, 0, 0, 0, 0}) }
	if fails || !ok {
		answer(code)
		return
	}
	d, err := net.Dial("tcp", to)
	if err != nil {
		answer(Refused)
		return
	}
	defer d.Close()
	if !s.add(d) {
		return
	}
	answer(Succeeded)
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(d, c)
		d.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(c, d)
	c.(*net.TCPConn).CloseWrite()
	<-done
}

// request does the handshake and reads what is asked for.
func (s *Server) request(c net.Conn) (r Request, err error) {
	read := func(n int) []byte {
		b := make([]byte, n)
		if err == nil {
			_, err = io.ReadFull(c, b)
		}
		return b
	}
	text := func() string { return string(read(int(read(1)[0]))) }
	head := read(2)
	methods := read(int(head[1]))
	if err != nil || head[0] != 5 {
		return r, fmt.Errorf("not SOCKS5: %v", err)
	}
	method := byte(0xff)
	for _, m := range methods { // a name and password are preferred, as Tor does
		if m == 2 || m == 0 && method == 0xff {
			method = m
		}
	}
	c.Write([]byte{5, method})
	if method == 0xff {
		return r, fmt.Errorf("no method")
	}
	if method == 2 {
		read(1)
		r.User, r.Password = text(), text()
		c.Write([]byte{1, 0})
	}
	head = read(4)
	if err == nil && head[1] != 1 {
		return r, fmt.Errorf("command %d", head[1])
	}
	switch head[3] {
	case 1:
		r.Host = netip.AddrFrom4([4]byte(read(4))).String()
	case 4:
		r.Host = netip.AddrFrom16([16]byte(read(16))).String()
	case 3:
		r.Named, r.Host = true, text()
	default:
		return r, fmt.Errorf("address of type %d", head[3])
	}
	r.Port = int(binary.BigEndian.Uint16(read(2)))
	return r, err
}
