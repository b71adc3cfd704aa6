package socks

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/proxy"
)

func start(t *testing.T) *Server {
	t.Helper()
	s, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// echo is a server that says back what it hears, until the other side ends.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	return l.Addr().String()
}

// The client is another implementation: it is led by name and by address, with a name and
// password and without, and the server knows of each what it was asked.
func TestLeads(t *testing.T) {
	s := start(t)
	at := echo(t)
	var want []Request
	for i, host := range []string{"a.example", "b.onion", "192.0.2.1", "2001:db8::1", strings.Repeat("x", 255)} {
		place := net.JoinHostPort(host, fmt.Sprint(5222+i))
		s.Lead(place, at)
		for _, auth := range []*proxy.Auth{nil, {User: fmt.Sprint("user", i), Password: "p"}, {User: strings.Repeat("u", 255), Password: strings.Repeat("p", 255)}} {
			d, err := proxy.SOCKS5("tcp", s.Addr(), auth, nil)
			if err != nil {
				t.Fatal(err)
			}
			c, err := d.Dial("tcp", place)
			if err != nil {
				t.Errorf("%s: %v", place, err)
				continue
			}
			io.WriteString(c, "hello")
			c.(interface{ CloseWrite() error }).CloseWrite()
			if b, err := io.ReadAll(c); string(b) != "hello" || err != nil {
				t.Errorf("%s: %q, %v", place, b, err)
			}
			c.Close()
			r := Request{Named: net.ParseIP(host) == nil, Host: host, Port: 5222 + i}
			if auth != nil {
				r.User, r.Password = auth.User, auth.Password
			}
			want = append(want, r)
		}
	}
	if got := s.Asked(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("asked\n%v, want\n%v", got, want)
	}
}

// Each code is answered, and what leads nowhere is.
func TestReplies(t *testing.T) {
	s := start(t)
	s.Lead("a.example:1", echo(t))
	s.Lead("closed.example:1", "127.0.0.1:1")
	try := func(place string) error {
		d, err := proxy.SOCKS5("tcp", s.Addr(), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		c, err := d.Dial("tcp", place)
		if err == nil {
			c.Close()
		}
		return err
	}
	for code, text := range map[int]string{1: "general SOCKS server failure", 2: "not allowed", 3: "network unreachable", 4: "host unreachable", 5: "refused", 6: "TTL", 7: "command not", 8: "address type not", 0xf6: "246", 0xff: "255"} {
		s.Reply("a.example:1", code)
		if err := try("a.example:1"); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%d: %v", code, err)
		}
	}
	s.Reply("a.example:1", -1)
	for place, text := range map[string]string{"a.example:1": "", "a.example:2": "host unreachable", "b.example:1": "host unreachable", "closed.example:1": "refused"} {
		if err := try(place); (err == nil) != (text == "") || err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", place, err)
		}
	}
	s.Instead(func(c net.Conn) { io.WriteString(c, "no") })
	if err := try("a.example:1"); err == nil {
		t.Error("what is no SOCKS was taken for it")
	}
	s.Instead(nil)
	if err := try("a.example:1"); err != nil {
		t.Error(err)
	}
}

// What is no request is none, and Close ends whoever is there.
func TestCloses(t *testing.T) {
	s := start(t)
	var wg sync.WaitGroup
	for _, says := range []string{"", "\x05", "\x04\x01", "\x05\x01\x80", "\x05\x01\x02\x01\x05half", "\x05\x01\x00\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x01", "\x05\x01\x00\x05\x01\x00\x09", "\x05\x01\x00\x05\x01\x00\x03\xffshort", "GET / HTTP/1.1\r\n\r\n"} {
		c, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, says)
		wg.Go(func() { io.Copy(io.Discard, c); c.Close() }) // ends, at the latest with the server
	}
	s.Close()
	wg.Wait()
	if asked := s.Asked(); len(asked) > 0 {
		t.Errorf("asked %v", asked)
	}
}
