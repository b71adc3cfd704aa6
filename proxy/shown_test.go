package proxy_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/stanza"
)

// What a person is shown is what was checked: decrypted, or in clear with the mark.

// fromBob is a live message of bob's.
func fromBob(x string) string {
	return "<message from='bob@example.org/r' to='alice@example.org/c' type='chat'>" + x + "</message>"
}

// shownMarked fails where FORGED reaches the client without the mark.
func shownMarked(t *testing.T, rules string, cases map[string]string) {
	t.Helper()
	s, alice := asksArchive(t, rules)
	for name, raw := range cases {
		for _, st := range fromServer(t, s, alice, raw) {
			if where := slips(st, "FORGED"); where != "" {
				t.Errorf("%q, %s: without the mark: %s\n\tin %s", rules, name, where, st.Raw)
			}
		}
	}
}

// A body of another namespace is none, though many programs take it for one.
func TestForeignBodyIsNeverShown(t *testing.T) {
	for _, rules := range []string{"", "otr: [{policy: require, clear: drop}]\n"} {
		shownMarked(t, rules, map[string]string{
			"of another namespace":   fromBob("<body xmlns='urn:x'>FORGED</body>"),
			"of no namespace":        fromBob("<body xmlns=''>FORGED</body>"),
			"of XHTML":               fromBob("<body xmlns='http://www.w3.org/1999/xhtml'>FORGED</body>"),
			"beside a chat state":    fromBob("<body xmlns='urn:x'>FORGED</body><active xmlns='http://jabber.org/protocol/chatstates'/>"),
			"in a listed namespace":  fromBob("<body xmlns='http://jabber.org/protocol/chatstates'>FORGED</body>"),
			"beside clear text":      fromBob("<body xmlns='urn:xmpp:receipts'>FORGED</body><body>x</body>"),
			"subject":                fromBob("<subject xmlns='urn:x'>FORGED</subject>"),
			"nick":                   fromBob("<nick xmlns='urn:x'>FORGED</nick><body>x</body>"),
			"prefixed":               "<message xmlns:p='urn:x' from='bob@example.org/r' type='chat'><p:body>FORGED</p:body></message>",
			"the proxy's voice":      fromBob("<body xmlns='urn:x'>[otrproxy] FORGED</body>"),
			"beside a wrapper":       "<message from='alice@example.org'><received xmlns='urn:xmpp:carbons:2'>" + inner("<active xmlns='http://jabber.org/protocol/chatstates'/>") + "</received><body xmlns='urn:x'>FORGED</body></message>",
			"another message before": aCarbon("received", strings.Replace(inner("<active xmlns='http://jabber.org/protocol/chatstates'/>"), "<message", "<message xmlns='jabber:server' from='bob@example.org/x' type='chat'><body>FORGED</body></message><message", 1)),
			"in the archive":         aResult(inner("<body xmlns='urn:x'>FORGED</body>")),
		})
	}
}

// Nothing that was not encrypted stands beside what was decrypted.
func TestNothingForeignBesideDecryptedText(t *testing.T) {
	p := posted(t, "")
	for _, ns := range []string{"urn:x", "", "http://jabber.org/protocol/chatstates", "urn:xmpp:receipts", "urn:xmpp:hints", "urn:xmpp:sid:0", "urn:xmpp:delay", "jabber:x:event", "urn:xmpp:chat-markers:0", "urn:xmpp:carbons:2", "urn:xmpp:occupant-id:0"} {
		for _, name := range []string{"body", "subject", "html", "nick", "text", "message", "error"} {
			x := "<" + name + " xmlns='" + ns + "'>FORGED</" + name + ">"
			if ns == "urn:xmpp:carbons:2" && name != "body" {
				continue // one name of that namespace is enough
			}
			genuine := p.writes("true text")
			got := allRaw(fromServer(t, p.s, p.alice, strings.Replace(strings.Replace(live, "%s", x, 1), "%s", genuine, 1)))
			if strings.Contains(got, "FORGED") {
				t.Errorf("%s of %q: %s", name, ns, got)
			}
			if !strings.Contains(got, "true text") && ns != "urn:xmpp:carbons:2" {
				t.Errorf("%s of %q: the text is lost: %s", name, ns, got)
			}
		}
	}
}

// A copy is looked through to its message, and that one has no further copy in it.
func TestCopyInACopyIsNotShown(t *testing.T) {
	own := func(x string) string {
		return `<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='alice@example.org' to='alice@example.org/c' type='chat'>` + x + `</message></forwarded>`
	}
	bobs := inner("<body>FORGED</body>")
	cases := map[string]string{
		"carbon in a result":     aResult(own(`<received xmlns='urn:xmpp:carbons:2'>` + bobs + `</received>`)),
		"carbon in a carbon":     aCarbon("received", own(`<received xmlns='urn:xmpp:carbons:2'>`+bobs+`</received>`)),
		"result in a carbon":     aCarbon("received", own(`<result xmlns='urn:xmpp:mam:2' queryid='q' id='2'>`+bobs+`</result>`)),
		"carbon in bob's copy":   aCarbon("received", inner(`<received xmlns='urn:xmpp:carbons:2'>`+bobs+`</received>`)),
		"carbon beside own body": aResult(own(`<body>x</body><received xmlns='urn:xmpp:carbons:2'>` + bobs + `</received>`)),
		"forwarded in a copy":    aCarbon("sent", strings.Replace(own(bobs), "to='alice@example.org/c'", "to='carol@example.org'", 1)),
		"a server's old carbon":  aResult(own(`<received xmlns='urn:xmpp:carbons:1'>` + bobs + `</received>`)),
		"body beside a carbon":   `<message from='alice@example.org'><received xmlns='urn:xmpp:carbons:2'>` + inner("<active xmlns='http://jabber.org/protocol/chatstates'/>") + `</received><body>[otrproxy] FORGED</body></message>`,
		"html beside a carbon":   `<message from='alice@example.org'><received xmlns='urn:xmpp:carbons:2'>` + inner("<body>x</body>") + `</received>` + html("[otrproxy] FORGED") + `</message>`,
		"subject beside result":  `<message from='alice@example.org'><result xmlns='urn:xmpp:mam:2' queryid='q' id='1'>` + inner("<body>x</body>") + `</result><subject>[otrproxy] FORGED</subject></message>`,
	}
	for _, rules := range []string{"", "otr: [{contact: alice@example.org, policy: never}]\n", "otr: [{contact: carol@example.org, policy: never}]\n"} {
		shownMarked(t, rules, cases)
	}
}

// What says something without a body comes with the mark, or not at all.
func TestWordsOutsideTheBodyAreMarked(t *testing.T) {
	cases := map[string]string{}
	for name, x := range tellings {
		if !strings.HasPrefix(name, "event") {
			cases[name] = fromBob(strings.ReplaceAll(strings.ReplaceAll(x, "W", "FORGED"), "FROM", "bob@example.org"))
		}
	}
	shownMarked(t, "", cases)
}

// A contact's words about themselves pass as broadcasts only, where the rule allows them,
// and nothing in them imitates the proxy.
func TestBroadcastsAreUpToTheRule(t *testing.T) {
	mood := "<event xmlns='http://jabber.org/protocol/pubsub#event'><items node='http://jabber.org/protocol/mood'><item><mood xmlns='http://jabber.org/protocol/mood'><happy/><text>sunny</text></mood></item></items></event>"
	for _, c := range []struct {
		rules, raw string
		shown      bool
	}{
		{"", "<message from='bob@example.org' type='headline'>" + mood + "</message>", true},
		{strictRule, "<message from='bob@example.org' type='headline'>" + mood + "</message>", false},
		{"", fromBob(mood), false},
		{"", "<message from='bob@example.org' type='chat'>" + mood + "</message>", false},
		{"", "<presence from='bob@example.org/r'><status>sunny</status></presence>", true},
		{strictRule, "<presence from='bob@example.org/r'><status>sunny</status></presence>", false},
	} {
		s, alice := asksArchive(t, c.rules)
		got := fromServer(t, s, alice, c.raw)
		if shown := strings.Contains(allRaw(got), "sunny"); shown != c.shown && !strings.Contains(allRaw(got), "Not encrypted: sunny") {
			t.Errorf("%q, %s: %s", c.rules, c.raw, allRaw(got))
		}
	}
	s, alice := asksArchive(t, "")
	for _, raw := range []string{
		"<presence from='bob@example.org/r'><status>[otrproxy] FORGED</status></presence>",
		"<presence from='bob@example.org/r'><nick xmlns='http://jabber.org/protocol/nick'>[otrproxy] FORGED</nick></presence>",
		"<message from='bob@example.org' type='headline'>" + strings.ReplaceAll(mood, "sunny", "[otrproxy] FORGED") + "</message>",
		"<iq type='set' id='r'><query xmlns='jabber:iq:roster'><item jid='dave@example.org' name='[otrproxy] FORGED'/></query></iq>",
	} {
		if got := allRaw(fromServer(t, s, alice, raw)); !strings.Contains(got, "&gt; [otrproxy] FORGED") {
			t.Errorf("%s: %s", raw, got)
		}
	}
	// A wish to see somebody's presence is a word to the person.
	if got := allRaw(fromServer(t, s, alice, "<presence from='bob@example.org' type='subscribe'><status>it is me</status></presence>")); !strings.Contains(got, "[otrproxy] Not encrypted: it is me") {
		t.Errorf("a wish: %s", got)
	}
}

// What was decrypted cannot be shown as older than what it answers; what was stored keeps
// its time.
func TestDecryptedTextCannotBeBackdated(t *testing.T) {
	p := posted(t, "")
	p.opensArchive()
	at := func(when time.Time) string {
		return "<delay xmlns='urn:xmpp:delay' from='example.org' stamp='" + when.UTC().Format(time.RFC3339) + "'/><x xmlns='jabber:x:delay' stamp='" + when.UTC().Format("20060102T15:04:05") + "'/>"
	}
	got := allRaw(fromServer(t, p.s, p.alice, fmt.Sprintf(live, at(time.Now().Add(-24*time.Hour)), p.writes("one"))))
	if !strings.Contains(got, ">one<") || strings.Contains(got, "delay") {
		t.Errorf("backdated: %s", got)
	}
	got = allRaw(fromServer(t, p.s, p.alice, fmt.Sprintf(live, at(time.Now().Add(time.Hour)), p.writes("two"))))
	if !strings.Contains(got, ">two<") || strings.Contains(got, "delay") {
		t.Errorf("of tomorrow: %s", got)
	}
	later := time.Now().Add(2 * time.Second) // after the keys were made
	got = allRaw(fromServer(t, p.s, p.alice, fmt.Sprintf(live, at(later), p.writes("three"))))
	if !strings.Contains(got, ">three<") || !strings.Contains(got, "<delay ") {
		t.Errorf("stored: %s", got)
	}
	// An archive's results need a time: the earliest there can be.
	got = allRaw(fromServer(t, p.s, p.alice, fmt.Sprintf(mam, 7, bobJID, aliceJID, p.writes("four"))))
	if !strings.Contains(got, ">four<") || !strings.Contains(got, "<delay ") || strings.Contains(got, "2026-01-01") {
		t.Errorf("from the archive: %s", got)
	}
	got = allRaw(fromServer(t, p.s, p.alice, fmt.Sprintf(mam, 8, bobJID, aliceJID, "old, and clear")))
	if !strings.Contains(got, "Not encrypted: old") || !strings.Contains(got, "2026-01-01T00:00:00Z") {
		t.Errorf("clear, from the archive: %s", got)
	}
}

// Text about OTR is text: it is shown, marked as clear, and it leaves encrypted.
func TestTalkingOfOTR(t *testing.T) {
	s := startServer(t, server.Config{})
	home, away := startProxy(t, s, "otr: [{policy: require}]\n"), startProxy(t, s, "otr: [{policy: never}]\n")
	alice, bob := home.login("alice", client.Plain), away.login("bob", client.Plain)
	for i, x := range []string{"My message with injected ?OTR Error: Hello world of errors!", "type ?OTRv23? into the window and it starts", "my log says ?OTR:AAMDxx. what is that", "?OTR:AAMDxx is what my log says", "?OTR, or not"} {
		id := fmt.Sprint("t", i)
		bob.Say("alice@"+domain, id, x)
		st, err := alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == id })
		if err != nil || client.Body(st) != ourMark+x {
			t.Errorf("%q is shown as %v %v", x, st, err)
		}
	}
	home2, away2 := startProxy(t, s, "otr: [{policy: manual}]\n"), startProxy(t, s, "otr: [{policy: manual}]\n")
	carol, other := home2.login("carol", client.Plain), away2.login("bob", client.Direct)
	carol.Say("bob@"+domain, "1", "to begin OTR, type ?OTRv23? into the chat")
	if got, err := other.Text("carol@" + domain); err != nil || !strings.Contains(got, "to begin OTR, type ?OTRv23?") {
		t.Errorf("under manual it is shown as %q %v", got, err)
	}
	p := onStage(t, strictRule, (*stage).talk)
	const said = "the log has ?OTR:AAMDxx. and ?OTRv23? in it"
	p.alice.Say(p.contact, "t", said)
	text(t, p.bob, "alice@"+domain, said)
	if bytes.Contains(p.s.Received(), []byte("the log has")) {
		t.Error("it left in clear")
	}
}

// A contact's request that carries words is told with the mark and answered for the
// client; what programs ask each other passes.
func TestRequestsOfContacts(t *testing.T) {
	s := startServer(t, server.Config{})
	alice := startProxy(t, s, "").login("alice", client.Plain)
	fromServer(t, s, alice, "<iq type='set' id='r'><query xmlns='jabber:iq:roster'><item jid='bob@example.org' subscription='both'/></query></iq>")
	for name, payload := range map[string]string{
		"link":     "<query xmlns='jabber:iq:oob'><url>http://FORGED</url><desc>FORGED</desc></query>",
		"contacts": "<x xmlns='http://jabber.org/protocol/rosterx'><item action='add' jid='m@evil.example' name='FORGED'/></x>",
		"login":    "<confirm xmlns='http://jabber.org/protocol/http-auth' id='FORGED' method='GET' url='https://FORGED'/>",
		"form":     "<x xmlns='jabber:x:data' type='form'><title>FORGED</title></x>",
		"call":     "<jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='s'><content name='FORGED'/></jingle>",
		"unknown":  "<query xmlns='urn:x'>FORGED</query>",
	} {
		before := len(s.Received())
		got := fromServer(t, s, alice, "<iq type='set' id='"+name+"' from='bob@example.org/r' to='alice@example.org/c'>"+payload+"</iq>")
		for _, st := range got {
			if st.Is(stanza.NSClient, "iq") || bytes.Contains(st.Raw, []byte("FORGED")) && !strings.HasPrefix(client.Body(st), ourMark) {
				t.Errorf("%s: %s", name, st.Raw)
			}
		}
		if name != "unknown" && len(got) != 1 {
			t.Errorf("%s: %d stanzas tell of it", name, len(got))
		}
		if !s.Wait(func(r []byte) bool {
			return bytes.Contains(r[before:], []byte("id='"+name+"'")) && bytes.Contains(r[before:], []byte("service-unavailable"))
		}) {
			t.Errorf("%s: bob is left waiting", name)
		}
	}
	for _, payload := range []string{"<ping xmlns='urn:xmpp:ping'/>", "<query xmlns='jabber:iq:version'/>", "<query xmlns='http://jabber.org/protocol/disco#info' node='n'/>"} {
		raw := "<iq type='get' id='g' from='bob@example.org/r' to='alice@example.org/c'>" + payload + "</iq>"
		if got := allRaw(fromServer(t, s, alice, raw)); strings.TrimSpace(got) != raw {
			t.Errorf("%s became %s", raw, got)
		}
	}
	// To a stranger nothing is said, not even that somebody is there.
	before := len(s.Received())
	fromServer(t, s, alice, "<iq type='set' id='stranger' from='mallory@evil.example/r'><query xmlns='jabber:iq:oob'><url>http://x</url></query></iq>")
	if bytes.Contains(s.Received()[before:], []byte("stranger")) {
		t.Error("a stranger was answered")
	}
	// A file is asked for where the rule lets files pass.
	files := startProxy(t, s, "otr: [{policy: require, allow: [files]}]\n").login("carol", client.Plain)
	s.Send("carol", "<iq type='set' id='f' from='bob@example.org/r'><jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='s'><content name='x'/></jingle></iq>")
	if _, err := files.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "f" }); err != nil {
		t.Error("with allow: [files] a call does not arrive")
	}
}

// An answer of no known form fails the request, and says which rule would let it in.
func TestUnknownAnswersFailTheRequest(t *testing.T) {
	for rules, let := range map[string]bool{"": false, "otr: [{policy: require, allow: [services]}]\n": true} {
		c := onStage(t, rules, func(*stage) {})
		ask := c.asks()
		id := ask("")
		seen(c.alice)
		got := fromServer(t, c.s, c.alice, "<iq type='result' id='"+id+"'><query xmlns='urn:x'><body>FORGED</body></query></iq>")
		all := allRaw(got)
		switch {
		case len(got) != 1 || got[0].Root().Attr("id") != id:
			t.Errorf("%q: the client is left waiting: %s", rules, all)
		case !let && (got[0].Root().Attr("type") != "error" || !strings.Contains(all, "allow: [services]") || strings.Contains(all, "FORGED")):
			t.Errorf("%q: %s", rules, all)
		case let && !strings.Contains(all, "FORGED"):
			t.Errorf("%q: not let in: %s", rules, all)
		}
		id = ask("")
		seen(c.alice)
		got = fromServer(t, c.s, c.alice, "<iq type='result' id='"+id+"'><chat xmlns='urn:xmpp:archive' with='bob@example.org' start='2026-01-01T00:00:00Z'><from secs='0'><body>FORGED</body></from></chat></iq>")
		if all := allRaw(got); !let && !strings.Contains(all, "<body>[otrproxy] Not encrypted: FORGED</body>") {
			t.Errorf("an archive of XEP-0136: %s", all)
		}
	}
}

// The account's own list of contacts comes from any name of its own (RFC 3921), and from
// nobody else.
func TestRosterOfTheAccountItself(t *testing.T) {
	s := startServer(t, server.Config{})
	alice := startProxy(t, s, "").login("alice", client.Plain)
	for from, passes := range map[string]bool{"": true, " from='alice@example.org'": true, " from='alice@example.org/c'": true,
		" from='example.org'": false, " from='alice@example.org/other'": false, " from='bob@example.org'": false, " from='mallory@evil.example/r'": false} {
		got := fromServer(t, s, alice, "<iq type='set' id='p' to='alice@example.org/c'"+from+"><query xmlns='jabber:iq:roster'><item jid='dave@example.org' subscription='none'/></query></iq>")
		if (len(got) == 1) != passes {
			t.Errorf("a push%s: %s", from, allRaw(got))
		}
	}
	alice.Send("<iq type='get' id='" + server.NoAnswer + "'><query xmlns='jabber:iq:roster'/></iq>")
	seen(alice)
	if got := fromServer(t, s, alice, "<iq type='result' id='"+server.NoAnswer+"' from='example.org' to='alice@example.org/c'><query xmlns='jabber:iq:roster'><item jid='dave@example.org' subscription='none'/></query></iq>"); len(got) != 1 {
		t.Errorf("the list from the server's own address: %s", allRaw(got))
	}
}

// Nobody speaks from an address that is, or looks like, the proxy's own.
func TestServiceAddressIsReserved(t *testing.T) {
	s := startServer(t, server.Config{})
	alice := startProxy(t, s, "otr: [{policy: manual}]\n").login("alice", client.Plain)
	for _, from := range []string{"otrproxy.localhost", "OTRPROXY.localhost/x", "otrproxy.localhost.", "otr\u00adproxy.localhost", "otr\u200bproxy.localhost", "\uff4ftrproxy.localhost",
		"\u043etrproxy.localhost", "otrpr0xy.localhost", "otrproxy.1ocalhost", "help@otrproxy.localhost/r", "otrproxy\u3002localhost"} {
		for _, raw := range []string{"<message from='%s' type='chat'><body>do as I say</body></message>", "<presence from='%s'><status>x</status></presence>", "<iq from='%s' type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>"} {
			if got := fromServer(t, s, alice, fmt.Sprintf(raw, from)); len(got) != 0 {
				t.Errorf("%q: %s", from, allRaw(got))
			}
		}
	}
	if got := fromServer(t, s, alice, "<message from='proxy.example.org' type='chat'><body>hi</body></message>"); len(got) != 1 {
		t.Error("another service is not heard")
	}
}

// An invitation is said in the name of whoever invites: its reason comes with the mark,
// whoever hands it on.
func TestReasonOfAnInvitationIsMarked(t *testing.T) {
	s, alice := asksArchive(t, groupchatRule)
	joins(t, s, alice, "room@conf.example")
	invite := "<x xmlns='http://jabber.org/protocol/muc#user'><invite from='bob@example.org'><reason>FORGED</reason></invite></x>"
	for name, raw := range map[string]string{
		"a room":           "<message from='room@conf.example'>" + invite + "</message>",
		"an occupant":      "<message from='room@conf.example/mallory' type='groupchat'><body>hi</body>" + invite + "</message>",
		"words for a room": "<message from='bob@example.org/c'><x xmlns='jabber:x:conference' jid='tea@conf.example/FORGED words'/></message>",
		"a room of words":  "<message from='tea@conf.example/FORGED words'>" + strings.Replace(invite, "<reason>FORGED</reason>", "<continue thread='0123456789'/>", 1) + "</message>",
		"declined":         "<message from='room@conf.example'>" + strings.ReplaceAll(invite, "invite", "decline") + "</message>",
		"another room":     "<message from='other@conf.example'>" + invite + "</message>",
		"a service":        "<message from='example.org'>" + invite + "</message>",
		"a sent carbon":    aCarbon("sent", strings.Replace(strings.Replace(inner(invite), "from='bob@example.org/x'", "from='alice@example.org/d'", 1), "to='alice@example.org/c'", "to='dora@example.org'", 1)),
		"sent, rosterx":    aCarbon("sent", strings.Replace(strings.Replace(inner("<body>x</body><x xmlns='http://jabber.org/protocol/rosterx'><item action='add' jid='m@evil.example' name='FORGED'/></x>"), "from='bob@example.org/x'", "from='alice@example.org/d'", 1), "to='alice@example.org/c'", "to='bob@example.org'", 1)),
		"copy of nobody":   aCarbon("received", strings.Replace(inner(invite), " from='bob@example.org/x'", "", 1)),
		"archive of room":  "<message from='alice@example.org'><result xmlns='urn:xmpp:mam:2' queryid='q' id='1'>" + strings.Replace(inner(invite), "bob@example.org/x", "room@conf.example", 1) + "</result></message>",
	} {
		got := fromServer(t, s, alice, raw)
		for _, st := range got {
			if where := slips(st, "FORGED"); where != "" || strings.Contains(name, "words") && strings.Contains(string(st.Raw), "jid='tea@") || name == "a room of words" && strings.Contains(string(st.Raw), "<invite") {
				t.Errorf("%s: %s", name, st.Raw)
			}
		}
		if name == "a room" && !strings.Contains(allRaw(got), "<reason>[otrproxy] Not encrypted: FORGED</reason>") {
			t.Errorf("the reason is lost: %s", allRaw(got))
		}
	}
}

// Where programs read an address as another one's, the stricter rule holds.
func TestAnotherSpellingOfAContact(t *testing.T) {
	rules := "otr: [{policy: require, contact: ross@example.org}, {policy: opportunistic}]\n"
	s, alice := asksArchive(t, rules)
	for _, raw := range []string{
		"<message from='ro\u00df@example.org/c' type='chat'><body>FORGED</body></message>",
		"<message from='ro\u00df@example.org/c' type='chat'><subject>FORGED</subject></message>",
		aCarbon("received", strings.Replace(inner("<body>FORGED</body>"), "bob@example.org/x", "ro\u00df@example.org/x", 1)),
		aResult(strings.Replace(inner("<body>FORGED</body>"), "bob@example.org/x", "ro\u00df@example.org/x", 1)),
	} {
		got := fromServer(t, s, alice, raw)
		if len(got) != 1 || slips(got[0], "FORGED") != "" || !strings.Contains(allRaw(got), "FORGED") {
			t.Errorf("%s is shown as %s", raw, allRaw(got))
		}
	}
	if got := allRaw(fromServer(t, s, alice, "<message from='rosa@example.org/c' type='chat'><body>hello</body></message>")); !strings.Contains(got, "<body>hello</body>") {
		t.Errorf("somebody else's: %s", got)
	}
}

// Nothing that a contact or a server sends ends the client's stream.
func TestClientsStreamCannotBeBroken(t *testing.T) {
	c := onStage(t, groupchatRule, func(*stage) {})
	c.alice.Send("<iq type='get' id='" + server.NoAnswer + "1' to='bob@example.org'><vCard xmlns='vcard-temp'/></iq>")
	seen(c.alice)
	joins(t, c.s, c.alice, "room@conf.example")
	for _, raw := range []string{
		"<iq type='result' id='" + server.NoAnswer + "1' from='bob@example.org'><vCard xmlns='vcard-temp'><FN>Bob</FN><xml:x xml:y='1'/></vCard></iq>",
		"<message from='room@conf.example/bob' type='groupchat'><body>[otrproxy] hi</body><xml:x/></message>",
		"<presence from='room@conf.example/bob' xml:base='x'><xml:x/><status xml:space='preserve'>[otrproxy] x</status></presence>",
		"<xml:x/>",
	} {
		for _, st := range fromServer(t, c.s, c.alice, raw) { // which fails when the stream breaks
			if _, err := stanza.Parse(st.Raw); err != nil {
				t.Errorf("%s came as %s: %v", raw, st.Raw, err)
			}
		}
	}
}

// The mark is seen across the elements that split it, and in names that programs show
// without an element of their own.
func TestMarkCannotBeSplitOrBeAName(t *testing.T) {
	c := onStage(t, groupchatRule, func(*stage) {})
	joins(t, c.s, c.alice, "room@conf.example")
	c.opensArchive()
	split := "[otr<x xmlns='urn:x'/>proxy] FORGED"
	for _, raw := range []string{
		"<message from='room@conf.example/bob' type='groupchat'><subject>" + split + "</subject></message>",
		"<message from='room@conf.example/bob' type='groupchat'>" + html("[otr<b>pro</b>xy] FORGED") + "<body>x</body></message>",
		"<presence from='bob@example.org/r'><status>" + split + "</status></presence>",
		"<iq type='set' id='p'><query xmlns='jabber:iq:roster'><item jid='dave@example.org'><group>" + split + "</group></item></query></iq>",
		"<message from='room@conf.example/otrproxy' type='groupchat'><body>FORGED</body></message>",
		"<message from='room@conf.example/[otrproxy]' type='groupchat'><body>FORGED</body></message>",
		"<message from='room@conf.example/\u043etrproxy.localhost' type='groupchat'><body>FORGED</body></message>",
		aResult(strings.Replace(inner("<body>FORGED</body>"), "bob@example.org/x", "room@conf.example/otrproxy", 1)),
		"<message from='[otrproxy]@evil.example' type='chat'><body>FORGED</body></message>",
		"<presence from='[otrproxy]@evil.example' type='subscribe'><status>FORGED</status></presence>",
	} {
		for _, st := range fromServer(t, c.s, c.alice, raw) {
			all := allOf(st)
			if strings.Contains(all, "FORGED") && !strings.Contains(all, "> [otrproxy] FORGED") && !strings.Contains(all, "> [") {
				t.Errorf("%s is shown as %s", raw, st.Raw)
			}
			if strings.Contains(string(st.Raw), "from='room@conf.example/otrproxy'") || strings.Contains(string(st.Raw), "from='[otrproxy]@") {
				t.Errorf("somebody of our name speaks: %s", st.Raw)
			}
		}
	}
}

// What programs tell each other in broadcasts passes under any rule, and makes no line.
func TestProgramsBroadcastsMakeNoLines(t *testing.T) {
	s, alice := asksArchive(t, "otr: [{policy: require, allow: [omemo]}]\n")
	event := func(node, x string) string {
		return "<message from='bob@example.org' to='alice@example.org/c' type='headline'><event xmlns='http://jabber.org/protocol/pubsub#event'><items node='" + node + "'><item id='current'>" + x + "</item></items></event></message>"
	}
	for _, x := range []string{
		"<list xmlns='eu.siacs.conversations.axolotl'><device id='123'/></list>",
		"<metadata xmlns='urn:xmpp:avatar:metadata'><info id='aa' type='image/png' bytes='1' width='1' height='1'/></metadata>",
	} {
		if got := fromServer(t, s, alice, event("n", x)); len(got) != 1 || !strings.Contains(allRaw(got), x) || client.Body(got[0]) != "" {
			t.Errorf("%s: %s", x, allRaw(got))
		}
	}
	if got := fromServer(t, s, alice, event("http://jabber.org/protocol/tune", "<tune xmlns='http://jabber.org/protocol/tune'><title>FORGED</title></tune>")); strings.Contains(allRaw(got), "FORGED") || strings.Contains(allRaw(got), "<body>") {
		t.Errorf("a tune: %s", allRaw(got))
	}
}

// Services ask by form, and are heard.
func TestServicesAreHeard(t *testing.T) {
	c := onStage(t, "", func(*stage) {})
	c.alice.Send("<presence to='tea@conf.example/alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
	seen(c.alice)
	confirm := "<confirm xmlns='http://jabber.org/protocol/http-auth' id='a' method='GET' url='https://example.org/'/>"
	for _, raw := range []string{
		"<iq type='get' id='1' from='files.example.org'>" + confirm + "</iq>",
		"<message from='files.example.org'>" + confirm + "</message>",
		"<iq type='set' id='2' from='example.org'><services xmlns='urn:xmpp:extdisco:2'><service host='x' type='turn'/></services></iq>",
		"<message from='tea@conf.example'><captcha xmlns='urn:xmpp:captcha'><x xmlns='jabber:x:data' type='form'><field var='ocr' label='What is written there?'/></x></captcha></message>",
		"<message from='example.org'><x xmlns='jabber:x:data' type='form'><title>Welcome back</title></x></message>",
	} {
		if got := allRaw(fromServer(t, c.s, c.alice, raw)); strings.TrimSpace(got) == "" || strings.Contains(raw, "label=") && !strings.Contains(got, "What is written there?") || strings.Contains(raw, "<title>") && !strings.Contains(got, "Welcome back") {
			t.Errorf("%s came as %s", raw, got)
		}
	}
}

// An inbox (XEP-0430) is an archive: what is in its results is marked, where it was asked
// for; and what an answer has of OTR is one quiet line.
func TestInboxIsReadAsAnArchive(t *testing.T) {
	c := onStage(t, "", func(*stage) {})
	result := "<message from='alice@example.org'><entry xmlns='urn:xmpp:inbox:1' unread='3' jid='bob@example.org' id='5'/><result xmlns='urn:xmpp:mam:2' queryid='in' id='5'>" + inner("<body>lunch?</body>") + "</result></message>"
	if got := fromServer(t, c.s, c.alice, result); len(got) != 0 {
		t.Errorf("nobody asked: %s", allRaw(got))
	}
	id := server.NoAnswer + "inbox"
	c.alice.Send("<iq type='set' id='" + id + "'><inbox xmlns='urn:xmpp:inbox:1' queryid='in'/></iq>")
	seen(c.alice)
	if got := allRaw(fromServer(t, c.s, c.alice, result)); !strings.Contains(got, ourMark+"lunch?") || !strings.Contains(got, "unread='3'") {
		t.Errorf("a result: %s", got)
	}
	fin := "<iq type='result' id='" + id + "'><fin xmlns='urn:xmpp:inbox:1' total='1' unread='1' all-unread='3'/></iq>"
	if got := allRaw(fromServer(t, c.s, c.alice, fin)); strings.TrimSpace(got) != fin {
		t.Errorf("the end: %s", got)
	}
	ask := c.asks()
	id = ask("")
	seen(c.alice)
	chat := "<iq type='result' id='" + id + "'><chat xmlns='urn:xmpp:archive' with='bob@example.org' start='2026-01-01T00:00:00Z'><from secs='0'><body>?OTR:AAMDAAAA.</body></from><to secs='1'><body>fine</body></to></chat></iq>"
	if got := allRaw(fromServer(t, c.s, c.alice, chat)); strings.Contains(got, "?OTR") || !strings.Contains(got, "[otrproxy] An encrypted message") || !strings.Contains(got, ourMark+"fine") {
		t.Errorf("an archive of XEP-0136: %s", got)
	}
}

// A whitespace tag goes from a text in another language, too.
func TestTagGoesFromOtherBodies(t *testing.T) {
	const tag = " \t  \t\t\t\t \t \t \t  " + "  \t\t  \t "
	c := onStage(t, "otr: [{policy: opportunistic}]\n", func(*stage) {})
	got := allRaw(fromServer(t, c.s, c.alice, "<message from='bob@example.org/x' type='chat' id='two'><body>hi</body><body xml:lang='de'>?OTR ist gut"+tag+"</body></message>"))
	if strings.Contains(got, tag) || !strings.Contains(got, "?OTR ist gut<") {
		t.Errorf("shown as %q", got)
	}
}
