// Record stands between a client and a server and writes down what they say.
//
//	record LISTEN SERVER CERT KEY NAME DIR
//
// It ends TLS on both sides, relays every byte as it is, and writes what the client
// sent to DIR/NAME.client and what the server sent to DIR/NAME.server. Both begin
// with the stream header that follows the login, so that neither password nor SASL
// is in them. It takes one connection after the other until one has logged in.
//
// The recordings in proxy/testdata/streams were made with it before an otrproxy with
// the policy never, before Prosody 0.12.3 as one.test. The clients are mcabber 1.1.2,
// BitlBee 3.6, Profanity 0.13.1, Pidgin 2.14.12, Gajim 1.7.3, Dino 0.4.2, Psi+ 1.4.554
// and slixmpp 1.8.3 as Debian 12 has them, each driven through a login, messages both
// ways, a room, a logout, and what else it could do.
package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"
)

var (
	starttls = regexp.MustCompile(`<starttls[^>]*(/|></starttls)>`)
	proceed  = regexp.MustCompile(`<proceed[^>]*(/|></proceed)>`)
	success  = regexp.MustCompile(`<success[^>]*(/|>[^<]*</success)>`)
	header   = regexp.MustCompile(`^\s*(<\?xml[^>]*\?>\s*)?<stream:stream\s`)
)

func main() {
	if len(os.Args) != 7 {
		fmt.Fprintln(os.Stderr, "usage: record LISTEN SERVER CERT KEY NAME DIR")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4], filepath.Join(os.Args[6], os.Args[5])); err != nil {
		fmt.Fprintln(os.Stderr, "record:", err)
		os.Exit(1)
	}
}

func run(listen, server, cert, key, base string) error {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		var s session
		err = s.relay(conn, server, pair)
		s.mu.Lock()
		if s.loggedIn {
			return errors.Join(write(base+".client", s.client), write(base+".server", s.server))
		}
		fmt.Fprintln(os.Stderr, "record: a connection ended before the login:", err)
	}
}

func write(name string, b []byte) error {
	if !header.Match(b) {
		return fmt.Errorf("%s would not begin with a stream header", name)
	}
	return os.WriteFile(name, b, 0o644)
}

// A session is one connection of a client, with the one to the server.
type session struct {
	mu             sync.Mutex
	client, server []byte // what each has sent under TLS; after the login, since then
	loggedIn       bool
}

func (s *session) relay(conn net.Conn, addr string, pair tls.Certificate) error {
	client := peekable{conn, bufio.NewReader(conn)}
	defer client.Close()
	server, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer server.Close()
	first, err := client.r.Peek(1)
	if err != nil {
		return err
	}
	if first[0] != 0x16 { // no TLS yet
		errs := make(chan error, 2)
		go func() { errs <- relayUntil(server, client, starttls) }()
		go func() { errs <- relayUntil(client, server, proceed) }()
		if err := errors.Join(<-errs, <-errs); err != nil {
			return err
		}
	}
	c := tls.Server(client, &tls.Config{Certificates: []tls.Certificate{pair}})
	if err := c.Handshake(); err != nil {
		return err
	}
	v := tls.Client(server, &tls.Config{InsecureSkipVerify: true, ServerName: c.ConnectionState().ServerName})
	ended := make(chan struct{}, 2)
	go func() { pump(v, c, s.fromClient); ended <- struct{}{} }()
	go func() { pump(c, v, s.fromServer); ended <- struct{}{} }()
	<-ended
	select { // the other side's last words
	case <-ended:
	case <-time.After(2 * time.Second):
	}
	return nil
}

func (s *session) fromClient(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client = append(s.client, b...)
}

// fromServer runs before the client gets the bytes: what it has sent until the
// success arrives belongs to the login.
func (s *session) fromServer(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.server = append(s.server, b...)
	if at := success.FindIndex(s.server); at != nil && !s.loggedIn {
		s.loggedIn, s.client, s.server = true, nil, s.server[at[1]:]
	}
}

// pump relays one way, showing each piece to a function first.
func pump(to, from *tls.Conn, show func([]byte)) {
	defer to.CloseWrite()
	b := make([]byte, 1<<16)
	for {
		n, err := from.Read(b)
		show(b[:n])
		if _, werr := to.Write(b[:n]); err != nil || werr != nil {
			return
		}
	}
}

// relayUntil relays one way until a pattern has passed, behind which nothing comes
// before the other side has answered.
func relayUntil(to, from net.Conn, pattern *regexp.Regexp) error {
	var all []byte
	b := make([]byte, 4096)
	for !pattern.Match(all) {
		n, err := from.Read(b)
		all = append(all, b[:n]...)
		if _, werr := to.Write(b[:n]); err != nil || werr != nil {
			to.Close() // ends the other way too
			return errors.Join(err, werr)
		}
	}
	return nil
}

// A peekable is a connection whose first byte can be looked at.
type peekable struct {
	net.Conn
	r *bufio.Reader
}

func (p peekable) Read(b []byte) (int, error) { return p.r.Read(b) }
