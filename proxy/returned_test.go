package proxy_test

import (
	"bytes"
	"strings"
	"testing"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/stanza"
)

// comesBack waits for the error that gives a message back.
func (c *stage) comesBack(id string) *stanza.Stanza {
	c.t.Helper()
	st, err := c.alice.Wait(func(st *stanza.Stanza) bool {
		return st.Root().Attr("id") == id && st.Root().Attr("type") == "error"
	})
	if err != nil {
		c.t.Fatalf("%s does not come back: %v", id, err)
	}
	return st
}

// saysIn waits for a line of the proxy's from an address, of a type.
func (c *stage) saysIn(from, typ, part string) {
	c.t.Helper()
	if _, err := c.alice.Wait(func(st *stanza.Stanza) bool {
		return client.Notice(st) && st.Root().Attr("from") == from && st.Root().Attr("type") == typ && strings.Contains(client.Body(st), part)
	}); err != nil {
		c.t.Fatalf("no line %q from %s: %v", part, from, err)
	}
}

// holds has parts stand in a stanza, in that order.
func holds(t *testing.T, st *stanza.Stanza, parts ...string) {
	t.Helper()
	rest := st.Raw
	for _, part := range parts {
		_, after, ok := bytes.Cut(rest, []byte(part))
		if !ok {
			t.Fatalf("no %q, in this order, in %s", part, st.Raw)
		}
		rest = after
	}
}

// What comes back is seen: the error holds the text and the thread that the person wrote, and
// a line in the conversation says what was not sent, and why. A line that promised is followed
// by one that ends it.
func TestWhatComesBackIsSeen(t *testing.T) {
	c := onStage(t, "", func(*stage) {})
	c.alice.Send("<message to='bob@example.org' id='m1' type='chat'><body>one &lt;3</body><thread>t-1</thread></message>")
	c.noticed("Your message waits")
	c.alice.Say(c.contact, "m2", "two\nlines")
	c.alice.Say(c.contact, "drop", "!otr drop")
	holds(t, c.comesBack("m1"), "from='bob@example.org'", "<body>one &lt;3</body>", "<thread>t-1</thread>", "<error type='cancel'>", "<policy-violation ")
	holds(t, c.comesBack("m2"), "<body>two\nlines</body>", "<error ")
	c.saysIn("bob@example.org", "chat", `Not sent: 2 messages, "one <3", "two lines". Why: taken back on your request.`)

	c.alice.Say(c.contact, "m3", "three")
	c.noticed("Your message waits")
	c.away = startProxy(t, c.s, "")
	c.bobComes()
	text(t, c.bob, "alice@"+domain, "three")
	c.saysIn("bob@example.org", "chat", "Sent: the message that waited.")

	// Refused at once.
	c.alice.Send("<message to='bob@example.org' id='m4' type='headline'><body>news of alice's</body></message>")
	holds(t, c.comesBack("m4"), "<body>news of alice&apos;s</body>", "<error ", "a headline")
	c.saysIn("bob@example.org", "chat", `Not sent: "news of alice's". Why: OTR can encrypt text only`)

	// Sent back by the server, which quotes what it got: the ciphertext.
	before := len(c.s.Received())
	c.alice.Say(c.contact, "m5", "five")
	if !c.s.Wait(func(r []byte) bool { return bytes.Contains(r[before:], []byte("id='m5'")) }) {
		t.Fatal("m5 has not left")
	}
	c.s.Send("alice", "<message from='bob@example.org' to='alice@example.org/c' id='m5' type='error'><body>?OTR:AAMDquoted.</body><error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>")
	st := c.comesBack("m5")
	holds(t, st, "<body>five</body>", "<item-not-found ")
	if bytes.Contains(st.Raw, []byte("?OTR")) || bytes.Count(st.Raw, []byte("<body>")) != 1 {
		t.Errorf("%s", st.Raw)
	}
	c.saysIn("bob@example.org", "chat", `Not sent: "five". Why: the server says that bob@example.org cannot be reached.`)
}

const (
	entersRoom = "<presence to='room@c.example/alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>"
	inRoom     = "<presence from='room@c.example/alice'><x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/></x></presence>"
)

// In a room, our lines come from an occupant's address, and what holds there is said once ever;
// what may not be said there is seen to come back, in the room or beside its occupant; and
// nobody hears of a chat state that was not sent.
func TestRoomsSayWhatHolds(t *testing.T) {
	const line, room = "What you write here is not sent", "room@c.example/otrproxy"
	c := onStage(t, "", func(*stage) {})
	c.send([]string{entersRoom})
	c.s.Send("alice", inRoom)
	c.saysIn(room, "groupchat", line)

	before := len(c.s.Received())
	c.alice.Send("<message to='room@c.example' id='state' type='groupchat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>" +
		"<message to='room@c.example/bob' id='state2' type='chat'><active xmlns='http://jabber.org/protocol/chatstates'/><x xmlns='http://jabber.org/protocol/muc#user'/></message>" +
		"<message to='room@c.example' id='g' type='groupchat'><body>to all</body></message>")
	st, err := c.alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("type") == "error" })
	if err != nil {
		t.Fatal(err)
	}
	holds(t, st, "from='room@c.example'", "id='g'", "<body>to all</body>", "<error ", "allow: [groupchat]")
	c.saysIn(room, "groupchat", `Not sent: "to all". Why:`)
	c.alice.Send("<message to='room@c.example/bob' id='pm' type='chat'><body>to one</body><x xmlns='http://jabber.org/protocol/muc#user'/></message>")
	holds(t, c.comesBack("pm"), "from='room@c.example/bob'", "<body>to one</body>", "<x xmlns='http://jabber.org/protocol/muc#user'/>", "<error ")
	c.saysIn("room@c.example/bob", "chat", `Not sent: "to one". Why:`)
	c.send(nil)
	if late := c.s.Received()[before:]; bytes.Contains(late, []byte("<message")) {
		t.Errorf("something has left: %s", late)
	}

	// It is said once ever, and again where it has changed.
	for _, again := range []struct{ rules, line string }{
		{"", ""},
		{"otr: [{policy: require, allow: [groupchat]}]\n", "This room is not encrypted"},
		{"otr: [{policy: require, allow: [groupchat]}]\n", ""},
	} {
		c.home.stop()
		c.home = startConfigured(t, c.home.state, configFor(c.s, c.home.state)+again.rules)
		c.alice = c.home.login("alice", client.Plain)
		c.send([]string{entersRoom})
		got := fromServer(t, c.s, c.alice, inRoom)
		said := ""
		for _, st := range got {
			if client.Notice(st) && st.Root().Attr("type") == "groupchat" {
				said += client.Body(st)
			}
		}
		if again.line == "" && said != "" || !strings.Contains(said, again.line) {
			t.Errorf("%q: %q, want %q", again.rules, said, again.line)
		}
	}
}

// Where a rule lets pass what is said in rooms, what is said there to one person passes, too;
// and nothing does to somebody in a room that the client is not in.
func TestPrivateMessagesInRooms(t *testing.T) {
	c := onStage(t, "otr: [{policy: require, allow: [groupchat]}]\n", func(*stage) {})
	c.send([]string{entersRoom})
	c.s.Send("alice", inRoom)
	c.saysIn("room@c.example/otrproxy", "groupchat", "not encrypted")
	const pm = "<message to='room@c.example/bob' id='pm' type='chat'><body>to one</body><x xmlns='http://jabber.org/protocol/muc#user'/></message>"
	c.send([]string{pm})
	if seen := c.s.Received(); !bytes.Contains(seen, []byte(pm)) {
		t.Errorf("it has not left as it was")
	}
	got := fromServer(t, c.s, c.alice, "<message from='room@c.example/bob' to='alice@example.org/c' type='chat'><body>and back</body><x xmlns='http://jabber.org/protocol/muc#user'/></message>")
	if last := len(got) - 1; last < 0 || client.Body(got[last]) != "and back" {
		t.Errorf("%s", raws(got))
	}
	c.alice.Send("<message to='other@c.example/bob' id='out' type='chat'><body>from outside</body></message>")
	holds(t, c.comesBack("out"), "<body>from outside</body>", "<error ", "you are not in the room other@c.example")
	c.saysIn("other@c.example/bob", "chat", `Not sent: "from outside". Why: you are not in the room`)
	if bytes.Contains(c.s.Received(), []byte("from outside")) {
		t.Error("it has left")
	}
}

// A reaction leaves as an encrypted text that says to what.
func TestReactionsArriveEncrypted(t *testing.T) {
	c := onStage(t, "", (*stage).talk)
	c.bob.Say("alice@"+domain, "b1", "see you at six")
	text(t, c.alice, "bob@"+domain, "see you at six")
	react := func(to, emoji string) {
		c.alice.Send("<message to='bob@example.org' id='r" + to + "' type='chat'><reactions xmlns='urn:xmpp:reactions:0' id='" + to + "'>" + emoji + "</reactions><store xmlns='urn:xmpp:hints'/></message>")
	}
	react("b1", "<reaction>👍</reaction><reaction>🎉</reaction>")
	text(t, c.bob, "alice@"+domain, `reacted with 👍 🎉 to "see you at six"`)
	react("b1", "")
	text(t, c.bob, "alice@"+domain, `took back a reaction to "see you at six"`)
	react("unknown", "<reaction>👍</reaction>")
	text(t, c.bob, "alice@"+domain, "reacted with 👍 to an earlier message")
	if bytes.Contains(c.s.Received(), []byte("👍")) || bytes.Contains(c.s.Received(), []byte("urn:xmpp:reactions")) {
		t.Error("a reaction has left in clear")
	}
}

// What arrives is not said to be left out: a link that the text is, when a message was sent,
// what a reply is to.
func TestWhatArrivesIsNotLeftOut(t *testing.T) {
	c := onStage(t, "", (*stage).talk)
	c.noticed("Sent: the message that waited.")
	c.alice.Send("<message to='bob@example.org' id='l1' type='chat'><x xmlns='jabber:x:oob'><url>https://u.example/1</url></x><body>https://u.example/1</body></message>" +
		"<message to='bob@example.org' id='l2' type='chat'><body>late</body><delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'/><reply xmlns='urn:xmpp:reply:0' to='bob@example.org' id='1'/></message>" +
		"<message to='bob@example.org' id='l3' type='chat'><x xmlns='jabber:x:oob'><url>https://u.example/2</url></x><body>another text</body></message>")
	for _, want := range []string{"https://u.example/1", "late", "another text"} {
		text(t, c.bob, "alice@"+domain, want)
	}
	c.noticed("left out: a link to a file.")
	for _, st := range fromServer(t, c.s, c.alice, "") {
		if strings.Contains(client.Body(st), "left out") {
			t.Errorf("%s", st.Raw)
		}
	}
	if bytes.Contains(c.s.Received(), []byte("u.example")) {
		t.Error("a link has left in clear")
	}
}

// A file that may not leave is refused where the person sees it: in the chat that they were in.
func TestRefusedFilesAreSeenInTheChat(t *testing.T) {
	c := onStage(t, "", func(*stage) {})
	const upload = "<iq to='upload.example.org' id='u' type='get'><request xmlns='urn:xmpp:http:upload:0' filename='x.png' size='1' content-type='image/png'/></iq>"
	c.send([]string{upload})
	c.saysIn("otrproxy.localhost", "chat", "cannot protect files and calls")
	c.send([]string{"<message to='bob@example.org' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>", upload})
	c.saysIn("bob@example.org", "chat", "cannot protect files and calls")
	c.send([]string{"<iq to='carol@example.org/r' id='j' type='set'><jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='s'/></iq>"})
	c.saysIn("carol@example.org", "chat", "cannot protect files and calls")
}

// Where a program has a window for each address, our lines stand in the one that the person writes
// in.
func TestLinesStandWhereThePersonWrites(t *testing.T) {
	c := onStage(t, "", func(*stage) {})
	c.send([]string{"<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='https://github.com/cdidier/irssi-xmpp' ver='3/5G1EpKeJvTeQ3RcygQnTPYLAg='/></presence>"})
	c.alice.Say("bob@example.org/slx", "m1", "one")
	c.saysIn("bob@example.org/slx", "chat", "Your message waits")
	c.alice.Say("bob@example.org/slx", "drop", "!otr drop")
	c.saysIn("bob@example.org/slx", "chat", `Not sent: "one". Why:`)
	c.alice.Say("bob@example.org", "m2", "two")
	c.saysIn("bob@example.org", "chat", "Your message waits")
}

// A program that shows what comes back, with the reason, is told nothing twice. A line that promised
// is ended in the conversation, by the program or by us.
func TestWhatAProgramShowsIsNotSaidTwice(t *testing.T) {
	c := onStage(t, "", func(*stage) {})
	c.send([]string{"<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='http://profanity-im.github.io' ver='Sb0R3dtmZsLSf1CuGFGYkmNdm1k='/></presence>"})
	lines := func(id string) (n int) {
		c.t.Helper()
		for _, st := range fromServer(t, c.s, c.alice, "") {
			if client.Notice(st) && strings.Contains(client.Body(st), "Not sent: ") {
				n++
			}
		}
		return n
	}
	c.alice.Send("<message to='bob@example.org' id='h' type='headline'><body>news</body></message>")
	holds(t, c.comesBack("h"), "<body>news</body>", "a headline")
	if n := lines("h"); n != 0 {
		t.Errorf("%d lines besides", n)
	}
	c.alice.Say(c.contact, "m1", "waits")
	c.noticed("Your message waits")
	c.alice.Say(c.contact, "drop", "!otr drop")
	c.comesBack("m1")
	if n := lines("m1"); n != 0 {
		t.Errorf("%d lines besides", n)
	}

	// Another shows it in a window of its own: the line ends the promise in the conversation.
	c.send([]string{"<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='http://pidgin.im/' ver='lV6i//bt2U8Rm0REcX8h4F3Nk3M='/></presence>"})
	c.alice.Send("<message to='bob@example.org' id='h2' type='headline'><body>news</body></message>")
	c.comesBack("h2")
	if n := lines("h2"); n != 0 {
		t.Errorf("%d lines besides", n)
	}
	c.alice.Say(c.contact, "m2", "waits")
	c.noticed("Your message waits")
	c.alice.Say(c.contact, "drop", "!otr drop")
	c.comesBack("m2")
	if n := lines("m2"); n != 1 {
		t.Errorf("%d lines end the promise", n)
	}

	// A third takes an error with a text from a room's occupant for a message of theirs.
	c.send([]string{"<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='https://poez.io' ver='lV6i//bt2U8Rm0REcX8h4F3Nk3M='/></presence>", entersRoom})
	c.s.Send("alice", inRoom)
	c.saysIn("room@c.example/otrproxy", "groupchat", "is not sent")
	c.alice.Send("<message to='room@c.example/bob' id='pm' type='chat'><body>to one</body></message>")
	if st := c.comesBack("pm"); bytes.Contains(st.Raw, []byte("<body>")) {
		t.Errorf("%s", st.Raw)
	}
	if n := lines("pm"); n != 0 {
		t.Errorf("%d lines besides", n)
	}
}

// What was lost with the connection to the server comes back with its text, whether it was
// encrypted or not. Of a room that is not open any more the proxy itself tells.
func TestWhatIsLostWithTheServerComesBackWithItsText(t *testing.T) {
	c := onStage(t, "otr: [{contact: \"bob@*\", policy: opportunistic}, {policy: require, allow: [groupchat]}]\n", func(*stage) {})
	c.unconfirmed()
	c.send([]string{entersRoom})
	c.s.Send("alice", inRoom)
	c.saysIn("room@c.example/otrproxy", "groupchat", "not encrypted")
	c.send([]string{
		"<message to='bob@example.org' id='p' type='chat'><body>in clear</body></message>",
		"<message to='room@c.example' id='g' type='groupchat'><body>in the room</body></message>"})
	c.s.SetFaults(server.Faults{Unconfirmed: true, Forgetful: true})
	c.s.Cut()
	c.alice.Err()
	c.alice.Drop()
	c.alice = c.home.login("alice", client.Plain)
	holds(t, c.comesBack("p"), "<body>in clear</body>", "<error ")
	c.saysIn("bob@example.org", "chat", `"in clear"`)
	c.comesBack("g") // and the room is not open any more
	c.saysIn("otrproxy.localhost", "chat", "may not have been sent")
}

// A message that was sent encrypted comes back after the person has ended the conversation.
func TestWhatTheServerSendsBackHasOneText(t *testing.T) {
	c := onStage(t, "otr: [{policy: opportunistic}]\n", func(*stage) {})
	c.away = startProxy(t, c.s, "otr: [{policy: opportunistic}]\n")
	c.bobComes()
	c.alice.Say(c.contact, "s", "!otr start")
	c.noticed("Private conversation with")
	c.alice.Say(c.contact, "m5", "five")
	text(t, c.bob, "alice@"+domain, "five")
	c.alice.Say(c.contact, "e", "!otr end")
	c.noticed("is over")
	c.s.Send("alice", "<message from='bob@example.org' to='alice@example.org/c' id='m5' type='error'><body>words of the server</body><thread>theirs</thread><error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>")
	st := c.comesBack("m5")
	if n := bytes.Count(st.Raw, []byte("<body>")); n != 1 {
		t.Errorf("%d bodies: %s", n, st.Raw)
	}
}

// A reaction is the first thing that is sent: the offer of OTR is not spent by what cannot carry it.
func TestReactionSpendsNoOffer(t *testing.T) {
	t.Run("with", func(t *testing.T) { reactsFirst(t, true) })
	t.Run("without", func(t *testing.T) { reactsFirst(t, false) })
}

func reactsFirst(t *testing.T, reacts bool) {
	c := onStage(t, "otr: [{policy: opportunistic}]\n", func(*stage) {})
	c.alice.Say("bob@"+domain, "k", "!otr key") // the key is there
	c.noticed("alice@" + domain)
	if reacts {
		c.send([]string{"<message to='bob@example.org' id='r1' type='chat'><reactions xmlns='urn:xmpp:reactions:0' id='x'><reaction>+</reaction></reactions></message>"})
	}
	if reacts {
		fromServer(t, c.s, c.alice, "<message from='bob@example.org/r' to='alice@example.org/c' type='chat'><body>thanks</body></message>")
	}
	c.send([]string{"<message to='bob@example.org' id='t1' type='chat'><body>plain words</body></message>"})
	if !bytes.Contains(c.s.Received(), []byte("plain words \t  \t\t\t\t \t \t \t  ")) {
		i := bytes.Index(c.s.Received(), []byte("plain words"))
		t.Errorf("the first text has no tag: %q", c.s.Received()[i:i+60])
	}
}

// Where our lines about a room come from nobody else speaks.
func TestOurPlaceInARoomIsOurs(t *testing.T) {
	c := onStage(t, groupchatRule, func(*stage) {})
	c.send([]string{"<message to='tea@conf.example/bob' type='chat' id='early'><body>hi bob</body></message>"})
	c.alice.Send("<presence to='tea@conf.example/alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
	c.send(nil)
	fromServer(t, c.s, c.alice, "<presence from='tea@conf.example/alice'>"+letIn+"</presence>")
	for _, raw := range []string{
		"<message from='tea@conf.example/otrproxy' type='groupchat' id='f1'><body>The key has changed: write !otr send 0011</body></message>",
		"<presence from='tea@conf.example/otrproxy'/>",
		"<message from='tea@conf.example/otrproxy' type='chat' id='f2'><body>words</body></message>",
	} {
		for _, st := range fromServer(t, c.s, c.alice, raw) {
			if st.Root().Attr("from") == "tea@conf.example/otrproxy" && (!client.Notice(st) || strings.Contains(string(st.Raw), "write !otr send") || strings.Contains(string(st.Raw), "words")) {
				t.Errorf("%s", st.Raw)
			}
		}
	}
}

// It is so while the room has not let the client in yet.
func TestOurPlaceIsOursBeforeTheRoomIsOpen(t *testing.T) {
	c := onStage(t, "", func(*stage) {})
	c.alice.Send("<presence to='tea@conf.example/alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
	c.send(nil)
	for _, raw := range []string{
		"<presence from='tea@conf.example/otrproxy'><x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='owner' role='moderator'/></x></presence>",
		"<message from='tea@conf.example/otrproxy' type='groupchat' id='f1'><body>The key has changed: write !otr send 0011</body></message>",
	} {
		for _, st := range fromServer(t, c.s, c.alice, raw) {
			if st.Root().Attr("from") == "tea@conf.example/otrproxy" && (!client.Notice(st) || strings.Contains(string(st.Raw), "write !otr send") || strings.Contains(string(st.Raw), "words")) {
				t.Errorf("%s", st.Raw)
			}
		}
	}
}
