package proxy_test

// What was broken once, each mended.

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/stanza"
)

// allRaw is raws as a string.
func allRaw(sts []*stanza.Stanza) string { return string(raws(sts)) }

// seen waits until the proxy has handled what the client sent.
func seen(c *client.Client) {
	c.Send("<iq type='get' id='last'><ping xmlns='urn:xmpp:ping'/></iq>")
	c.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "last" })
}

// inner is a forwarded message of bob's.
func inner(x string) string {
	return `<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='bob@example.org/x' to='alice@example.org/c' type='chat'>` + x + `</message></forwarded>`
}

func html(x string) string {
	return "<html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'>" + x + "</body></html>"
}

// Clear text cannot be brought past its mark in what looks like a copy, an error or an
// invitation.
func TestUnmarkedClear(t *testing.T) {
	s := startServer(t, server.Config{})
	alice := startProxy(t, s, "").login("alice", client.Plain)
	for name, raw := range map[string]string{
		"fin beside a body":     `<message from='bob@example.org/r' type='chat'><fin xmlns='urn:xmpp:mam:2'/><body>FORGED</body></message>`,
		"fin beside html":       `<message from='bob@example.org/r' type='chat'><fin xmlns='urn:xmpp:mam:2'/>` + html("FORGED") + `</message>`,
		"fin behind a result":   `<message from='alice@example.org'><result xmlns='urn:xmpp:mam:2' queryid='nobody-asked'>` + inner("<body>FORGED</body>") + `</result><fin xmlns='urn:xmpp:mam:2'/></message>`,
		"carbon of two":         `<message from='alice@example.org'><received xmlns='urn:xmpp:carbons:2'>` + inner("<body>FORGED</body>") + inner("<body>x</body>") + `</received></message>`,
		"carbon without a body": `<message from='alice@example.org'><received xmlns='urn:xmpp:carbons:2'>` + inner("<subject>FORGED</subject>"+html("FORGED")) + `</received></message>`,
		"error":                 `<message from='bob@example.org/r' type='error'><subject>FORGED</subject>` + html("FORGED") + `</message>`,
		"invitation":            `<message from='bob@example.org/r'><x xmlns='jabber:x:conference' jid='room@evil' reason='FORGED'/></message>`,
	} {
		if got := allRaw(fromServer(t, s, alice, raw)); strings.Contains(got, "FORGED") && !strings.Contains(got, "Not encrypted: ") {
			t.Errorf("%s: unmarked: %s", name, got)
		}
	}
}

// A client whose session was resumed sees who is there, as after any login.
func TestPresenceAfterResumption(t *testing.T) {
	inWorld(t, func(w *world, alice, bob *link) (*link, *link) {
		sees := func() bool {
			_, err := alice.Wait(func(st *stanza.Stanza) bool {
				return st.Is(stanza.NSClient, "presence") && strings.HasPrefix(st.Root().Attr("from"), "bob@")
			})
			return err == nil
		}
		if !sees() {
			w.t.Fatal("bob is not there at first")
		}
		w.hand(alice)
		time.Sleep(5 * time.Second)
		w.home.up.CutAfter(0, time.Second) // the network is gone, a message under way
		w.hand(alice)
		time.Sleep(5 * time.Second)
		alice.Drop()
		alice = w.home.login()
		if !sees() {
			w.t.Error("bob is online, and alice's client is not told")
		}
		return alice, bob
	})
}

// story runs f between alice and bob, who have a private conversation, and balances.
func story(t *testing.T, f func(w *world, alice, bob *link) (*link, *link)) {
	inWorld(t, func(w *world, alice, bob *link) (*link, *link) {
		w.hand(alice)
		time.Sleep(5 * time.Second)
		alice, bob = f(w, alice, bob)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		w.balance()
		return alice, bob
	})
}

// A contact whose program crashed is told how much it could not read.
func TestCrashedContact(t *testing.T) {
	story(t, func(w *world, alice, bob *link) (*link, *link) {
		w.away.up.Break()
		bob.wire.Break()
		w.away.stop()
		for range 5 { // what bob's server keeps for him
			w.hand(alice)
			time.Sleep(time.Second)
		}
		w.away.start()
		return alice, w.bobComes()
	})
}

// What a server has not taken when the proxy is stopped comes back.
func TestShutdownOnDeafServer(t *testing.T) {
	story(t, func(w *world, alice, bob *link) (*link, *link) {
		w.home.up.CutAfter(0, 10*time.Second) // the server hears nothing more
		w.hand(alice)
		time.Sleep(time.Second)
		w.home.stop()
		alice.Drop()
		w.home.start()
		return w.home.login(), bob
	})
}

// A slow server still gets what a client handed over before it left.
func TestSlowGoodbye(t *testing.T) {
	story(t, func(w *world, alice, bob *link) (*link, *link) {
		w.home.up.Pause(7 * time.Second)
		w.hand(alice)
		time.Sleep(time.Second)
		alice.Close()
		time.Sleep(10 * time.Second)
		return w.home.login(), bob
	})
}

// Nobody is told that it could not be sent that somebody was typing.
func TestLostChatStates(t *testing.T) {
	story(t, func(w *world, alice, bob *link) (*link, *link) {
		w.home.up.CutAfter(0, time.Second)
		for range 4 {
			alice.Send("<message to='bob@" + domain + "' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>")
		}
		time.Sleep(5 * time.Second)
		alice.Drop()
		alice = w.home.login()
		time.Sleep(time.Minute)
		n := 0
		for _, l := range w.links {
			n += bytes.Count(l.wire.Recorded(), []byte("type='error'><error type='wait'"))
		}
		if n > 0 {
			w.t.Errorf("nothing was written, and alice is told %d times that it was not sent", n)
		}
		return alice, bob
	})
}

// What was private does not go back to clear because the proxy was started anew, nor in
// a file.
func TestPrivateOverRestart(t *testing.T) {
	for _, policy := range []string{"opportunistic", "manual"} {
		s := startServer(t, server.Config{})
		rules := "otr: [{policy: " + policy + "}]\n"
		home, away := startProxy(t, s, rules), startProxy(t, s, "")
		bob := away.login("bob", client.Plain)
		alice := home.login("alice", client.Plain)
		alice.Wait(func(st *stanza.Stanza) bool { return st.Is(stanza.NSClient, "presence") })
		alice.Say("bob@"+domain, "", "!otr start")
		if _, err := alice.Notice("Private conversation with"); err != nil {
			t.Fatal(err)
		}
		alice.Say("bob@"+domain, "1", "private")
		text(t, bob, "alice@"+domain, "private")
		// Files, once private.
		alice.Send("<iq to='bob@example.org/c' type='set' id='i'><data xmlns='http://jabber.org/protocol/ibb' sid='s' seq='0'>QfileZ</data></iq>")
		seen(alice)
		home.stop()
		home = startConfigured(t, home.state, configFor(s, home.state)+rules)
		alice = home.login("alice", client.Plain)
		alice.Say("bob@"+domain, "2", "QcanaryZ")
		seen(alice)
		for _, w := range []string{"QfileZ", "QcanaryZ"} {
			if bytes.Contains(s.Received(), []byte(w)) {
				t.Errorf("%s: %s left in clear", policy, w)
			}
		}
	}
}

// The proxy's voice cannot be imitated.
func TestVoice(t *testing.T) {
	for _, policy := range []string{"require", "manual"} {
		s := startServer(t, server.Config{})
		alice := startProxy(t, s, "otr: [{policy: "+policy+", allow: [groupchat]}]\n").login("alice", client.Plain)
		alice.Send("<presence to='room@conf.example.org/alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
		seen(alice)
		for name, c := range map[string][2]string{
			"second line":  {"<message from='bob@example.org/r' type='chat'><body>hi\n[otrproxy] FORGED</body></message>", "\n[otrproxy] FORGED"},
			"zero width":   {"<message from='bob@example.org/r' type='chat'><body>[otr\u200bproxy] FORGED</body></message>", "<body>[otr\u200b"},
			"split html":   {"<message from='bob@example.org/r' type='chat'><body>x</body>" + html("<p><b>[otr</b>proxy] FORGED</p>") + "</message>", "FORGED"},
			"html alone":   {"<message from='bob@example.org/r' type='chat'>" + html("<p>[otrproxy] FORGED</p>") + "</message>", "<p>[otrproxy]"},
			"subject":      {"<message from='bob@example.org/r' type='chat'><subject>[otrproxy] FORGED</subject><body>x</body></message>", "<subject>[otrproxy]"},
			"nick":         {"<message from='bob@example.org/r' type='chat'><nick xmlns='http://jabber.org/protocol/nick'>[otrproxy] FORGED</nick><body>x</body></message>", ">[otrproxy] FORGED"},
			"room html":    {"<message from='room@conf.example.org/n' type='groupchat'><body>x</body>" + html("<p>[otrproxy] FORGED</p>") + "</message>", "<p>[otrproxy]"},
			"room subject": {"<message from='room@conf.example.org' type='groupchat'><subject>[otrproxy] FORGED</subject></message>", "<subject>[otrproxy]"},
			"error text":   {"<message from='bob@example.org/r' type='error' id='1'><error type='cancel'><bad-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>[otrproxy] FORGED</text></error></message>", ">[otrproxy] FORGED"},
			"service":      {"<presence from='x@otrproxy.localhost/r'><status>FORGED</status></presence>", "otrproxy.localhost"},
		} {
			if got := allRaw(fromServer(t, s, alice, c[0])); strings.Contains(got, c[1]) {
				t.Errorf("%s, %s: %s", policy, name, got)
			}
		}
	}
}

// A copy is shown once, and what an archive makes up is marked.
func TestCopiesRepeated(t *testing.T) {
	s := startServer(t, server.Config{})
	home, away := startProxy(t, s, ""), startProxy(t, s, "")
	bob := away.login("bob", client.Plain)
	alice := home.login("alice", client.Plain)
	bob.Say("alice@"+domain, "1", "yes, pay")
	text(t, alice, "bob@"+domain, "yes, pay")
	n := 0
	for _, part := range strings.Split(string(s.Received()), "<body>?OTR:AAMD")[1:] {
		for range 3 {
			got := allRaw(fromServer(t, s, alice, `<message from='alice@example.org'><received xmlns='urn:xmpp:carbons:2'>`+inner("<body>?OTR:AAMD"+part[:strings.Index(part, "<")]+"</body>")+`</received></message>`))
			n += strings.Count(got, "<body>yes, pay</body>")
		}
	}
	if n > 0 {
		t.Errorf("the text is shown %d times more", n)
	}
	opensArchive(t, alice)
	now := time.Now().UTC().Format(time.RFC3339)
	got := allRaw(fromServer(t, s, alice, `<message from='alice@example.org'><result xmlns='urn:xmpp:mam:2' queryid='q' id='1'>`+
		strings.Replace(inner("<body>FORGED</body><replace id='1' xmlns='urn:xmpp:message-correct:0'/>"), "<message", "<delay xmlns='urn:xmpp:delay' stamp='"+now+"'/><message", 1)+`</result></message>`))
	if strings.Contains(got, "<body>FORGED") {
		t.Errorf("unmarked, from now: %s", got)
	}
}

// Hands off means rooms and one's own account as well.
func TestNeverInRooms(t *testing.T) {
	s := startServer(t, server.Config{})
	alice := startProxy(t, s, "otr: [{policy: never}]\n").login("alice", client.Plain)
	alice.Send("<presence to='room@conf.example.org/alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
	seen(alice)
	for _, raw := range []string{
		`<message from='room@conf.example.org/nick' type='groupchat'><body>what does ?OTRv23? mean</body></message>`,
		`<message from='room@conf.example.org/nick' type='groupchat'><body>[otrproxy] is what its lines begin with</body></message>`,
		`<message from='alice@example.org' type='chat'><body>note: ?OTRv3?</body></message>`,
	} {
		if got := allRaw(fromServer(t, s, alice, raw)); got != raw+"\n" {
			t.Errorf("sent %s\n got %s", raw, got)
		}
	}
}

// The canary, in the attributes of what may stand in presence and requests.
func TestCanaryInAttributes(t *testing.T) {
	for name, shape := range map[string]string{
		"presence type":       `<presence to='TO' type='W'/>`,
		"presence namespace":  `<presence to='TO' xmlns:p='W'/>`,
		"iq language":         `<iq to='TO/r' type='get' id='i' xml:lang='W'><ping xmlns='urn:xmpp:ping'/></iq>`,
		"iq type":             `<iq to='TO/r' type='W' id='i'/>`,
		"iq namespace":        `<iq to='TO/r' type='get' id='i'><ping xmlns='urn:xmpp:ping' xmlns:p='W'/></iq>`,
		"namespace of a form": `<iq to='TO/r' type='result' id='i'><query xmlns='jabber:iq:version'><name xmlns='W'>x</name></query></iq>`,
		"csi":                 `<active xmlns='urn:xmpp:csi:0' W='W'/>`,
		"idle":                `<presence to='TO'><idle xmlns='urn:xmpp:idle:1' since='W W'/></presence>`,
		"caps":                `<presence to='TO'><c xmlns='http://jabber.org/protocol/caps' node='W W' ver='W'/></presence>`,
		"second publish":      `<iq type='set' id='i'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:xmpp:omemo:2:devices'/><publish node='http://jabber.org/protocol/mood'><item>W</item></publish></pubsub></iq>`,
	} {
		s := startServer(t, server.Config{})
		alice := startProxy(t, s, strictRule).login("alice", client.Plain)
		alice.Send(strings.ReplaceAll(strings.ReplaceAll(shape, "W", "QcanaryZ"), "TO", "bob@example.org"))
		seen(alice)
		if bytes.Contains(s.Received(), []byte("QcanaryZ")) {
			t.Errorf("%s: the server received it", name)
		}
	}
}

// asksArchive is alice, who has asked her archive.
func asksArchive(t *testing.T, rules string) (*server.Server, *client.Client) {
	t.Helper()
	s := startServer(t, server.Config{})
	alice := startProxy(t, s, rules).login("alice", client.Plain)
	opensArchive(t, alice)
	return s, alice
}

// opensArchive has a client ask its archive, and waits for the answer: what the server brings
// before the proxy knows of the query is nothing that was asked for.
func opensArchive(t *testing.T, c *client.Client) {
	t.Helper()
	c.Send(ownQueryOfMA)
	if _, err := c.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "mam" }); err != nil {
		t.Fatal(err)
	}
}

func aCarbon(kind, x string) string {
	return `<message from='alice@example.org'><` + kind + ` xmlns='urn:xmpp:carbons:2'>` + x + `</` + kind + `></message>`
}

func aResult(x string) string {
	return `<message from='alice@example.org'><result xmlns='urn:xmpp:mam:2' queryid='q' id='1'>` + x + `</result></message>`
}

func allMarked(t *testing.T, raws map[string]string) {
	s, alice := asksArchive(t, "")
	for name, raw := range raws {
		if got := allRaw(fromServer(t, s, alice, raw)); strings.Contains(got, "FORGED") && !strings.Contains(got, "Not encrypted: ") {
			t.Errorf("%s: unmarked: %s", name, got)
		}
	}
}

// Clear text that has a query somewhere in it.
func TestQueryInsideClear(t *testing.T) {
	allMarked(t, map[string]string{
		"subject":          `<message from='bob@example.org/r' type='chat'><subject>FORGED ?OTRv3?</subject></message>`,
		"voice":            `<message from='bob@example.org/r' type='chat'><subject>[otrproxy] FORGED ?OTRv3?</subject></message>`,
		"html, a stranger": `<message from='eve@evil.example/r' type='chat'>` + html("FORGED ?OTRv3?") + `</message>`,
		"carbon":           aCarbon("received", inner("<body>FORGED ?OTRv3?</body>")),
		"carbon, voice":    aCarbon("received", inner("<body>[otrproxy] FORGED ?OTRv3?</body>")),
		"beside it":        aCarbon("received", inner("<body>x ?OTRv3?</body><subject>FORGED</subject>"+html("FORGED"))),
		"archive":          aResult(inner("<body>FORGED ?OTRv3?</body>")),
	})
}

// What stands beside ciphertext that nobody can read.
func TestBesideUnreadable(t *testing.T) {
	p := posted(t, "")
	one := p.writes("one")
	p.home.stop()
	p.home = startConfigured(t, p.home.state, configFor(p.s, p.home.state))
	p.alice = p.home.login("alice", client.Plain)
	got := allRaw(fromServer(t, p.s, p.alice, fmt.Sprintf(live, "<subject>FORGED</subject><x xmlns='jabber:x:oob'><url>http://FORGED</url></x><replace xmlns='urn:xmpp:message-correct:0' id='FORGED'/>", one)))
	if strings.Contains(got, "FORGED") {
		t.Errorf("%s", got)
	}
}

// Copies that are taken for something else than what clients take them for.
func TestCopiesReadInTwoWays(t *testing.T) {
	state := inner("<active xmlns='http://jabber.org/protocol/chatstates'/>")
	forged := inner("<body>FORGED</body>")
	allMarked(t, map[string]string{
		"sent by bob":         aCarbon("sent", forged),
		"groupchat of bob's":  strings.Replace(aCarbon("received", forged), "type='chat'", "type='groupchat'", 1),
		"carbon, no address":  strings.Replace(aCarbon("received", forged), "bob@example.org/x", "bob@example.org/", 1),
		"archive, no address": strings.Replace(aResult(forged), "bob@example.org/x", "bob@example.org/", 1),
		"carbon and archive":  `<message from='alice@example.org'><received xmlns='urn:xmpp:carbons:2'>` + state + `</received><result xmlns='urn:xmpp:mam:2' queryid='nobody'>` + forged + `</result></message>`,
		"archive and carbon":  `<message from='alice@example.org'><result xmlns='urn:xmpp:mam:2' queryid='q' id='1'>` + state + `</result><received xmlns='urn:xmpp:carbons:2'>` + forged + `</received></message>`,
	})
}

// A mediated invitation, as Prosody and ejabberd send it (testdata/streams/gajim.server has one).
func TestInvitationStaysUsable(t *testing.T) {
	s, alice := asksArchive(t, "otr: [{policy: require, allow: [groupchat]}]\n")
	got := allRaw(fromServer(t, s, alice, `<message from='room@conf.example.org' to='alice@example.org'><x xmlns='http://jabber.org/protocol/muc#user'><invite from='bob@example.org/c'><reason>come</reason></invite><password>pw</password></x>`+
		`<x xmlns='jabber:x:conference' jid='room@conf.example.org'>come</x><body>bob@example.org/c invited you to the room room@conf.example.org (come)</body></message>`))
	if !strings.Contains(got, "<invite ") || !strings.Contains(got, "jid='room@conf.example.org'") {
		t.Errorf("no invitation any more: %s", got)
	}
}

// The presence of Pidgin (testdata/streams/pidgin.client).
func TestPidginCaps(t *testing.T) {
	s, alice := asksArchive(t, "")
	alice.Send("<presence><priority>1</priority><c xmlns='http://jabber.org/protocol/caps' node='http://pidgin.im/' hash='sha-1' ver='lV6i//bt2U8Rm0REcX8h4F3Nk3M=' ext='voice-v1 camera-v1 video-v1'/><x xmlns='vcard-temp:x:update'><photo/></x></presence>")
	seen(alice)
	if !bytes.Contains(s.Received(), []byte("node='http://pidgin.im/'")) {
		t.Error("what Pidgin is and can do has been taken out of its presence")
	}
}

// The voice.
func TestVoiceLookalikes(t *testing.T) {
	s, alice := asksArchive(t, "otr: [{policy: manual}]\n")
	for name, text := range map[string]string{
		"blank of Braille":   "\u2800[otrproxy] FORGED",
		"a Cyrillic letter":  "[\u043etrproxy] FORGED",
		"from right to left": "\u202e[yxorprto]\u202c FORGED",
	} {
		if got := fromServer(t, s, alice, "<message from='bob@example.org/r' type='chat'><body>"+text+"</body></message>"); client.Body(got[0]) == text {
			t.Errorf("%s: shown as %s", name, text)
		}
	}
	raw := strings.Replace(aCarbon("received", inner("<body>FORGED</body>")), "bob@example.org/x", "x@otrproxy.localhost/x", 1)
	if got := allRaw(fromServer(t, s, alice, raw)); strings.Contains(got, "FORGED") {
		t.Errorf("below the service: %s", got)
	}
}

// A command about a contact as a person types the address.
func TestCommandAddresses(t *testing.T) {
	c := onStage(t, "", (*stage).talk)
	c.alice.Say("otrproxy.localhost", "", "end Bob@Example.org")
	c.alice.Wait(func(st *stanza.Stanza) bool { return client.Notice(st) && strings.Contains(client.Body(st), "is over") })
	c.alice.Say("otrproxy.localhost", "", "status")
	st, _ := c.alice.Wait(func(st *stanza.Stanza) bool {
		return client.Notice(st) && strings.Contains(client.Body(st), "you are connected")
	})
	if st == nil || strings.Contains(client.Body(st), "bob@example.org: private") {
		t.Errorf("said to be over, and it is not: %v", client.Body(st))
	}
}

// What Dino, Gajim and Profanity ask a room they have joined, with the default rule.
func TestRoomRequests(t *testing.T) {
	s, alice := asksArchive(t, "")
	alice.Send("<presence to='room@conf.example.org/alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>" +
		"<iq id='r1' type='get' to='room@conf.example.org'><query xmlns='http://jabber.org/protocol/muc#admin'><item affiliation='member'/></query></iq>" +
		"<iq id='r2' type='set' to='room@conf.example.org'><query xmlns='urn:xmpp:mam:2' queryid='x'><x xmlns='jabber:x:data' type='submit'><field type='hidden' var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field><field var='start'><value>1970-01-01T00:00:00Z</value></field></x><set xmlns='http://jabber.org/protocol/rsm'><max>20</max><before/></set></query></iq>")
	seen(alice)
	for _, id := range []string{"id='r1'", "id='r2'"} {
		if !bytes.Contains(s.Received(), []byte(id)) {
			t.Errorf("%s is refused", id)
		}
	}
}

// The proxy is stopped while a client does not read, as on a laptop that sleeps.
func TestStopWithFrozenClient(t *testing.T) {
	inWorld(t, func(w *world, alice, bob *link) (*link, *link) {
		alice.wire.Freeze()
		big := "<message from='carol@example.org' type='chat'><body>" + strings.Repeat("x", 60000) + "</body></message>"
		for range 4 { // more than is on its way to a client at once, and no more than the server can write
			w.srv.Send("alice", big)
		}
		synctest.Wait()
		before := time.Now()
		w.home.stop()
		if took := time.Since(before); took > 5*time.Second {
			w.t.Errorf("it took %v; a second was given", took)
		}
		w.home.start()
		return alice, bob
	})
}
