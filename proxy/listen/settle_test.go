package listen

import (
	"net"
	"testing"

	"otrproxy/config"
	"otrproxy/proxy/causes"
	"otrproxy/proxy/journal"
)

// A connection that was let in, refused behind that, and let in again counts once.
func TestConnectionThatTriesAgainCountsOnce(t *testing.T) {
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	g := NewGate(journal.New(nil, nil), func() bool { return false }, func(causes.Refusal) {})
	lim := config.Default().Limits
	v, _ := g.admit(conn, lim)
	g.Settle(v, lim) // letIn, which says "unwanted" by again(): another try is open
	g.Settle(v, lim) // letIn, with another password
	g.leave(v)
	if g.settled != 0 {
		t.Errorf("%d sessions are counted, and nobody is there", g.settled)
	}
}
