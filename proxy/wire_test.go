package proxy_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/stanza"
)

// crumbling forwards connections to an address, in pieces of odd sizes both ways: a network
// keeps no boundaries, of records or of stanzas.
func crumbling(t *testing.T, to string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	pieces := func(dst, src net.Conn, seed uint64) {
		defer dst.(*net.TCPConn).CloseWrite()
		r := rand.New(rand.NewPCG(seed, 1))
		b := make([]byte, 64<<10)
		for {
			n, err := src.Read(b[:1+r.IntN(len(b))])
			for piece := b[:n]; len(piece) > 0; {
				k := min(len(piece), []int{1, 4, 5, 6, 100, 16389, 40000}[r.IntN(7)])
				if _, err := dst.Write(piece[:k]); err != nil {
					return
				}
				piece = piece[k:]
			}
			if err != nil {
				return
			}
		}
	}
	wg.Go(func() {
		for seed := uint64(1); ; seed += 2 {
			c, err := l.Accept()
			if err != nil {
				return
			}
			u, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				continue
			}
			mu.Lock()
			open = append(open, c, u)
			mu.Unlock()
			wg.Go(func() { pieces(u, c, seed) })
			wg.Go(func() { pieces(c, u, seed+1) })
		}
	})
	return l.Addr().String()
}

// Each message arrives once and in order, wherever the network cuts, and while the other side
// reads late.
func TestEveryPieceArrives(t *testing.T) {
	const messages = 1500
	for _, entry := range []client.Entry{client.Plain, client.STARTTLS, client.Direct} {
		t.Run(fmt.Sprint(entry), func(t *testing.T) {
			t.Parallel()
			s := startServer(t, server.Config{Forget: true})
			dir := stateDir(t)
			b := startConfigured(t, dir, strings.Replace(configFor(s, dir), s.Addr(), crumbling(t, s.Addr()), 1)+"otr: [{policy: never}]\nlimits: {rate: 1000000, stanza: 262144}\n")
			b.addr = crumbling(t, b.addr)
			dial := func(who string) *client.Client {
				cfg := b.config(who, entry)
				cfg.Manual, cfg.Quiet = true, true
				c, err := client.Dial(context.Background(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(c.Drop)
				if err := c.Send("<presence/>"); err != nil {
					t.Fatal(err)
				}
				return c
			}
			alice, bob := dial("alice"), dial("bob")
			half := make(chan struct{})
			var wg sync.WaitGroup
			send := func(from, to *client.Client, begun chan struct{}, seed uint64) {
				r := rand.New(rand.NewPCG(seed, 2))
				for i := range messages {
					size := []int{0, 10, 100, 1000, 20_000}[r.IntN(5)]
					if err := from.Send(fmt.Sprintf("<message to='%s' type='chat' id='n%d'><body>%s</body></message>", to.JID, i, strings.Repeat("x", size))); err != nil {
						t.Error(err)
						return
					}
					if begun != nil && i == messages/10 {
						close(begun)
					}
				}
			}
			read := func(c *client.Client) {
				for next := 0; next < messages; {
					st, err := c.Next()
					if err != nil {
						if err != io.EOF || next < messages {
							t.Errorf("after %d of %d messages: %v", next, messages, err)
						}
						return
					}
					if !st.Is(stanza.NSClient, "message") {
						continue
					}
					if got, want := st.Root().Attr("id"), fmt.Sprint("n", next); got != want {
						t.Errorf("message %s came in the place of %s", got, want)
						return
					}
					next++
				}
			}
			wg.Go(func() { send(alice, bob, half, 1) })
			wg.Go(func() { send(bob, alice, nil, 2) })
			wg.Go(func() { read(alice) })
			wg.Go(func() { <-half; read(bob) })
			wg.Wait()
		})
	}
}
