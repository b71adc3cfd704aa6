package proxy_test

import (
	"bytes"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/stanza"
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

// leaves has alice's client go, whose session stays.
func (c *stage) leaves() {
	c.alice.Drop()
	if !c.s.Wait(func(r []byte) bool { return bytes.Contains(r, []byte("<presence><priority>-1</priority></presence>")) }) {
		c.t.Fatal("the session has not stayed")
	}
}

// A text for a client that has gone stays with the server, whatever comes after it.
func TestTextForWhoHasGoneIsNotAcknowledged(t *testing.T) {
	for _, n := range []int{0, 1, 3, 30} {
		t.Run(strconv.Itoa(n), func(t *testing.T) { comesLate(t, n) })
	}
}

func comesLate(t *testing.T, presences int) {
	lost := 0
	const tries = 4
	for i := range tries {
		c := onStage(t, "", (*stage).talk)
		c.alice.Say("carol@"+domain, "m1", "waits")
		c.noticed("Your message waits")
		c.leaves()
		done := make(chan bool)
		go func() {
			defer close(done)
			c.home.counts("otrproxy_sessions", "0")
		}()
		c.bob.Say("alice@"+domain+"/c", "late", "are you there?")
		for range presences { // bob changes his status
			c.bob.Send("<presence><show>away</show></presence>")
		}
		<-done
		c.alice = c.home.login("alice", client.Plain)
		if _, err := c.alice.Wait(func(st *stanza.Stanza) bool {
			return strings.Contains(string(st.Raw), "are you there?") || strings.Contains(string(st.Raw), "could not be read")
		}); err != nil {
			lost++
			t.Logf("%d: lost: %v", i, err)
			break
		}
		c.alice.Drop()
	}
	if lost > 0 {
		t.Errorf("a text for a client that had gone is lost")
	}
}

// What a message without a text says is kept as well for a client that has gone.
func TestContentForWhoHasGoneStaysWithTheServer(t *testing.T) {
	t.Run("stays, no body", func(t *testing.T) { comesSealed(t, true, "") })
	t.Run("stays, body", func(t *testing.T) { comesSealed(t, true, "<body>x</body>") })
	t.Run("is there, no body", func(t *testing.T) { comesSealed(t, false, "") })
}

func comesSealed(t *testing.T, stays bool, body string) {
	c := onStage(t, "otr: [{policy: require, allow: [omemo, groupchat]}]\n", func(*stage) {})
	c.alice.Say("carol@"+domain, "m1", "waits")
	c.noticed("Your message waits")
	if stays {
		c.leaves()
	}
	cfg := c.home.config("bob", client.STARTTLS)
	cfg.Addr, cfg.Mechanism = c.s.Addr(), "SCRAM-SHA-256"
	bob, err := client.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	bob.Send("<message to='alice@example.org/c' id='o1' type='chat'>" + body + "<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'><key rid='2'>QUJD</key><iv>QUJD</iv></header><payload>QUJD</payload></encrypted><store xmlns='urn:xmpp:hints'/></message>")
	if !c.s.Wait(func(r []byte) bool { return bytes.Contains(r, []byte("id='o1'")) }) {
		t.Fatal("it has not left")
	}
	if stays {
		c.home.counts("otrproxy_sessions", "0")
		c.alice = c.home.login("alice", client.Plain)
	}
	if _, err := c.alice.Wait(func(st *stanza.Stanza) bool { return bytes.Contains(st.Raw, []byte("axolotl")) }); err != nil {
		t.Errorf("it is lost: %v", err)
	}
}

// Nothing is answered to strangers.
func TestNothingIsAnsweredToStrangersDuringAStay(t *testing.T) {
	c := &stage{t: t, contact: "bob@" + domain}
	c.s = startServer(t, server.Config{Faults: server.Faults{NoCounting: true}})
	c.home = startProxy(t, c.s, "")
	c.alice = c.home.login("alice", client.Plain)
	c.alice.Say(c.contact, "m1", "waits")
	c.noticed("Your message waits")
	c.leaves()
	c.s.Send("alice", "<message from='spam@evil.example/x' to='alice@example.org' id='s1' type='chat'><body>hi</body></message>")
	c.s.Send("alice", "<message from='bob@example.org/x' to='alice@example.org/c' id='b1' type='chat'><body>hi</body></message>")
	if !c.s.Wait(func(r []byte) bool {
		return bytes.Contains(r, []byte("id='b1'")) && bytes.Contains(r, []byte("<recipient-unavailable "))
	}) {
		t.Fatal("bob is not told either")
	}
	if i := bytes.Index(c.s.Received(), []byte("spam@evil.example")); i >= 0 {
		t.Errorf("answered: %s", c.s.Received()[max(0, i-60):i+120])
	}
}

// The promise is ended for the next client as well.
func TestSentIsSaidAfterAStay(t *testing.T) {
	c := onStage(t, "", func(*stage) {})
	c.alice.Say(c.contact, "once", "the disk is full")
	c.noticed("Your message waits")
	c.leaves()
	c.away = startProxy(t, c.s, "")
	c.bob = c.away.login("bob", client.Plain)
	text(t, c.bob, "alice@"+domain, "the disk is full")
	c.home.counts("otrproxy_sessions", "0")
	c.alice = c.home.login("alice", client.Plain)
	said := ""
	for _, st := range fromServer(t, c.s, c.alice, "") {
		if client.Notice(st) {
			said += client.Body(st) + "\n"
		}
	}
	if !strings.Contains(said, "Sent:") {
		t.Errorf("nobody was told that it was sent: %q", said)
	}
}
