package proxy_test

import (
	"bytes"
	"strings"
	"sync/atomic"
	"testing"

	"otrproxy/stanza"
	"otrproxy/test/client"
	"otrproxy/test/server"
)

// What a client has handed over that has gone at once is delivered: its session stays until the
// contact's program has answered. Nothing is shown of it any more to the contact, and nothing of
// it leaves in clear.
func TestOneShotSendersAreDelivered(t *testing.T) {
	for name, leave := range map[string]func(c *client.Client){
		"closes the stream": func(c *client.Client) { c.Send(stanza.StreamClose); c.Err(); c.Close() },
		"is killed":         func(c *client.Client) { c.Drop() },
	} {
		t.Run(name, func(t *testing.T) {
			var late atomic.Pointer[string] // what bob's program answers, as long as it does not arrive
			var arrives atomic.Bool
			c := &stage{t: t, contact: "bob@" + domain}
			c.s = startServer(t, server.Config{Fate: func(from string, m *stanza.Stanza) server.Fate {
				if strings.HasPrefix(from, "bob@") && !arrives.Load() {
					body := client.Body(m)
					late.Store(&body)
					return server.Lose
				}
				return server.Deliver
			}})
			c.home, c.away = startProxy(t, c.s, ""), startProxy(t, c.s, "")
			c.bob = c.away.login("bob", client.Plain)
			c.alice = c.home.login("alice", client.Plain)
			c.alice.Say(c.contact, "once", "the disk is full")
			c.noticed("Your message waits")
			leave(c.alice)
			if !c.s.Wait(func(r []byte) bool { return bytes.Contains(r, []byte("<presence><priority>-1</priority></presence>")) }) {
				t.Fatal("the session has not stayed")
			}
			if !c.s.Wait(func([]byte) bool { return late.Load() != nil }) {
				t.Fatal("bob's program answers nothing")
			}
			arrives.Store(true)
			c.s.Send("alice", "<message from='bob@example.org/c' to='alice@example.org/c' type='chat'><body>"+*late.Load()+"</body></message>")
			text(t, c.bob, "alice@"+domain, "the disk is full")
			c.home.counts("otrproxy_sessions", "0")
			if bytes.Contains(c.s.Received(), []byte("the disk is full")) {
				t.Error("it has left in clear")
			}
		})
	}
}

// Whenever it goes, before the exchange or in the middle of it, its message arrives.
func TestOneShotSendersMayGoAtAnyTime(t *testing.T) {
	for i := range 12 {
		c := onStage(t, "", func(*stage) {})
		c.away = startProxy(t, c.s, "")
		c.bobComes()
		c.alice.Say(c.contact, "once", "the disk is full")
		for _, begins := range [][]byte{nil, []byte("?OTRv23?"), []byte("?OTR:AAMC"), []byte("?OTR:AAMK"), []byte("?OTR:AAMR"), []byte("?OTR:AAMS")}[:i/2+1] {
			if !c.s.Wait(func(r []byte) bool { return bytes.Contains(r, begins) }) {
				t.Fatalf("no %s", begins)
			}
		}
		if i%2 == 0 {
			c.alice.Send(stanza.StreamClose)
		}
		c.alice.Drop()
		text(t, c.bob, "alice@"+domain, "the disk is full")
	}
}

// What does not leave while the session stays is told to whoever comes: another client gets it
// back, with a line that says what it was.
func TestWhatAOneShotSenderLeavesIsNeverGone(t *testing.T) {
	c := onStage(t, "limits: {linger: 1s}\n", func(*stage) {})
	c.alice.Say(c.contact, "once", "the disk is full")
	c.noticed("Your message waits")
	c.alice.Drop()
	c.home.counts("otrproxy_sessions", "0")
	c.home.counts("otrproxy_held_messages", "1")
	c.alice = c.home.login("alice", client.Plain)
	c.alice.Say(c.contact, "drop", "!otr drop")
	holds(t, c.comesBack("once"), "<body>the disk is full</body>")
	c.saysIn("bob@example.org", "chat", `Not sent: "the disk is full". Why: taken back`)
}

// A client that comes back takes over from the session that stayed for it, at once.
func TestComingBackEndsTheStay(t *testing.T) {
	c := onStage(t, "", func(*stage) {})
	c.alice.Say(c.contact, "m1", "waits")
	c.noticed("Your message waits")
	c.alice.Drop()
	if !c.s.Wait(func(r []byte) bool { return bytes.Contains(r, []byte("<presence><priority>-1</priority></presence>")) }) {
		t.Fatal("the session has not stayed")
	}
	c.alice = c.home.login("alice", client.Plain) // the same resource
	c.home.counts("otrproxy_sessions", "1")
	c.away = startProxy(t, c.s, "")
	c.bobComes()
	text(t, c.bob, "alice@"+domain, "waits")
	c.noticed("Sent: the message that waited.")
}

// What comes for a client that has gone is not shown to nobody: the server keeps it for the next.
func TestTextsForWhoHasGoneStayWithTheServer(t *testing.T) {
	c := onStage(t, "", (*stage).talk)
	c.alice.Say("carol@"+domain, "m1", "waits")
	c.noticed("Your message waits")
	c.alice.Drop()
	if !c.s.Wait(func(r []byte) bool { return bytes.Contains(r, []byte("<presence><priority>-1</priority></presence>")) }) {
		t.Fatal("the session has not stayed")
	}
	if r, err := admin(t, c.home.p, "status"); err != nil || !strings.Contains(r.Text, "its program has gone: stays for what waits") {
		t.Errorf("%v %s", err, r.Text)
	}
	c.bob.Say("alice@"+domain+"/c", "late", "are you there?")
	c.home.counts("otrproxy_sessions", "0")
	c.alice = c.home.login("alice", client.Plain)
	st, err := c.alice.Wait(func(st *stanza.Stanza) bool { return strings.Contains(client.Body(st), "are you there?") })
	if err != nil {
		t.Fatalf("it is lost: %v", err)
	}
	holds(t, st, "are you there?")
}
