//go:build linux

package main

import (
	"bytes"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"testing"

	"otrproxy/demo/server"
)

// Whatever sizes are written, and however the records are torn below TLS, the copy hands on
// every byte, and nothing stays behind.
func TestCopy(t *testing.T) {
	cert, err := server.SelfSigned(domain)
	if err != nil {
		t.Fatal(err)
	}
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	far, middle := tls.NewListener(listen(), &tls.Config{Certificates: []tls.Certificate{cert}}), listen()
	go func() { // sends back what it gets
		for {
			c, err := far.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	go func() {
		for {
			c, err := middle.Accept()
			if err != nil {
				return
			}
			go connect(c, cert, far.Addr().String())
		}
	}()
	for _, torn := range []bool{false, true} {
		plain, err := net.Dial("tcp", middle.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer plain.Close()
		var below net.Conn = plain
		if torn {
			below = &pieces{Conn: plain, draws: rand.New(rand.NewPCG(3, 0))}
		}
		c := tls.Client(below, &tls.Config{InsecureSkipVerify: true})
		draws := rand.New(rand.NewPCG(4, 0))
		sent := make([]byte, 1<<20)
		for i := range sent {
			sent[i] = byte(draws.Uint32())
		}
		go func() {
			for rest := sent; len(rest) > 0; {
				n := min(1+draws.IntN(40_000), len(rest))
				if _, err := c.Write(rest[:n]); err != nil {
					return
				}
				rest = rest[n:]
			}
		}()
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(c, got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, sent) {
			t.Errorf("torn %v: other bytes came", torn)
		}
		// One at a time, each is there before the next is sent.
		for i := range 100 {
			if _, err := c.Write([]byte{byte(i)}); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, got[:1]); err != nil || got[0] != byte(i) {
				t.Fatal(err, got[0])
			}
		}
	}
}

// pieces writes in odd pieces.
type pieces struct {
	net.Conn
	draws *rand.Rand
}

func (p *pieces) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var k int
		k, err = p.Conn.Write(b[n : n+min(1+p.draws.IntN(3000), len(b)-n)])
		n += k
	}
	return n, err
}
