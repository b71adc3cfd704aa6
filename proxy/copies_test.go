package proxy_test

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/otrlayer/otr"
	"otrproxy/stanza"
)

// A post is what bob sends, caught by the server on its way and delivered as the test
// likes.
type post struct {
	*stage
	caught chan string // bodies
	hold   atomic.Bool
}

// posted has alice and bob in a private conversation; what bob writes is caught.
func posted(t *testing.T, rules string) *post {
	t.Helper()
	p := &post{stage: &stage{t: t, contact: "bob@" + domain}, caught: make(chan string, 100)}
	p.s = startServer(t, server.Config{Fate: func(from string, m *stanza.Stanza) server.Fate {
		if p.hold.Load() && strings.HasPrefix(from, "bob@") {
			p.caught <- client.Body(m)
			return server.Lose
		}
		return server.Deliver
	}})
	p.home = startProxy(t, p.s, rules)
	p.alice = p.home.login("alice", client.Plain)
	p.talk()
	p.noticed("Your message waits")
	p.noticed("Private conversation with")
	p.noticed("Sent: the message that waited.")
	p.hold.Store(true)
	return p
}

// writes has bob write a text, and returns its ciphertext.
func (p *post) writes(text string) string {
	p.t.Helper()
	p.bob.Say("alice@"+domain, "", text)
	for {
		sent := <-p.caught
		if m := otr.Parse([]byte(sent)); m.Kind == otr.Encoded && m.Type == otr.Data && !m.Ignorable {
			return sent // and not what bob's program had left to say of its own
		}
	}
}

// shown is what alice's client shows of what the server sends her: texts, in order.
func (p *post) shown(raw string) (texts []string) {
	p.t.Helper()
	for _, st := range fromServer(p.t, p.s, p.alice, raw) {
		if bytes.Contains(st.Raw, []byte("?OTR")) {
			p.t.Errorf("OTR is shown: %s", st.Raw)
		}
		for d := range st.Root().Descendants() {
			if d.Is(stanza.NSClient, "body") {
				texts = append(texts, d.Text())
			}
		}
	}
	return texts
}

func (p *post) wants(raw string, want ...string) {
	p.t.Helper()
	if got := p.shown(raw); fmt.Sprintf("%.40q", got) != fmt.Sprintf("%.40q", want) {
		p.t.Errorf("shown %.80q, want %q", got, want)
	}
}

const (
	live = "<message from='bob@example.org/c' to='alice@example.org/c' type='chat' id='x'>%s<body>%s</body></message>"
	mam  = "<message from='alice@example.org'><result xmlns='urn:xmpp:mam:2' queryid='q' id='%d'><forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'/>" +
		"<message xmlns='jabber:client' from='%s' to='%s' type='chat'><body>%s</body></message></forwarded></result></message>"
	carbon = "<message from='alice@example.org'><%s xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>" +
		"<message xmlns='jabber:client' from='%s' to='%s' type='chat'><body>%s</body></message></forwarded></%[1]s></message>"
	delayedBy    = "<delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'/>"
	bobJID       = "bob@example.org/c"
	aliceJID     = "alice@example.org/c"
	unreadable   = "[otrproxy] An encrypted message; it can be read only where"
	ownQueryOfMA = "<iq type='set' id='mam'><query xmlns='urn:xmpp:mam:2' queryid='q'/></iq>"
)

var dataMessage = regexp.MustCompile(`\?OTR:AAM[DKRSC][^<]*`)

// After a day of OTR, an archive brings all of it back: one quiet line stands for it,
// and the rest of the history is there.
func TestArchiveAfterADayOfOTR(t *testing.T) {
	p := posted(t, "")
	p.opensArchive()
	old := dataMessage.FindAllString(string(p.s.Received()), -1)
	if len(old) < 5 {
		t.Fatalf("only %d messages", len(old))
	}
	var data string
	for _, m := range old {
		if strings.HasPrefix(m, "?OTR:AAMD") {
			data = m
		}
	}
	raw := fmt.Sprintf(mam, 0, bobJID, aliceJID, "hello from before")
	for i, m := range append(old, old...) {
		from, to := bobJID, aliceJID
		if i%2 == 0 {
			from, to = to, from
		}
		raw += fmt.Sprintf(mam, i+1, from, to, m)
	}
	raw += fmt.Sprintf(mam, 100, aliceJID, bobJID, "and after") + fmt.Sprintf(mam, 101, bobJID, aliceJID, data)
	got := p.shown(raw)
	if len(got) != 4 || got[0] != "[otrproxy] Not encrypted: hello from before" || !strings.HasPrefix(got[1], unreadable) || got[2] != "and after" || !strings.HasPrefix(got[3], unreadable) {
		t.Errorf("shown %q", got)
	}
	if n := len(fromServer(t, p.s, p.alice, raw)); n != strings.Count(raw, "<result ") {
		t.Errorf("%d results of %d: clients count them", n, strings.Count(raw, "<result "))
	}
}

// What only the archive has kept is read from there, once, in order; so is what the
// server stored offline.
func TestReadFromTheArchive(t *testing.T) {
	p := posted(t, "")
	p.opensArchive()
	first, second, third := p.writes("while you were away"), p.writes("<3 & more"), p.writes("the last")
	before := len(p.s.Received())
	p.wants(fmt.Sprintf(mam, 1, bobJID, aliceJID, first)+fmt.Sprintf(mam, 2, bobJID, aliceJID, second), "while you were away", "<3 & more")
	p.wants(fmt.Sprintf(live, delayedBy, third), "the last")
	// The same once more: the archive may show it again, live it has been shown.
	p.wants(fmt.Sprintf(mam, 2, bobJID, aliceJID, second)+fmt.Sprintf(live, delayedBy, second)+fmt.Sprintf(mam, 3, bobJID, aliceJID, third), "<3 & more", "the last")
	if late := p.s.Received()[before:]; bytes.Contains(late, []byte("?OTR")) {
		t.Errorf("something was answered: %s", late)
	}
}

// A carbon of what another client got is text there as well, whichever comes first; of
// what another program of alice's own sends only a line can be shown.
func TestCarbons(t *testing.T) {
	p := posted(t, "")
	one := p.writes("one")
	p.wants(fmt.Sprintf(carbon, "received", bobJID, "alice@example.org/other", one), "one")
	p.wants(fmt.Sprintf(carbon, "received", bobJID, "alice@example.org/other", "psst"), "[otrproxy] Not encrypted: psst")
	p.wants(fmt.Sprintf(carbon, "sent", "alice@example.org/other", bobJID, one)+fmt.Sprintf(carbon, "sent", "alice@example.org/other", bobJID, one), unreadable)
	p.wants(fmt.Sprintf(carbon, "sent", "alice@example.org/other", bobJID, "in clear"), "in clear")

	cfg := p.home.config("alice", client.Direct)
	cfg.Resource = "second"
	second, err := client.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Drop()
	two := p.writes("two")
	p.s.Send("alice", fmt.Sprintf(live, "", two)) // the server brings it to both
	text(t, p.alice, "bob@"+domain, "two")
	text(t, second, "bob@"+domain, "two")
	p.wants(fmt.Sprintf(live, "", two)) // and once more: a replay
}

// What stands beside ciphertext was not in it: it does not speak with the contact's
// voice.
func TestBesideCiphertext(t *testing.T) {
	p := posted(t, "")
	for name, beside := range map[string]string{
		"subject":    "<subject>EVIL</subject>",
		"html":       "<html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'>EVIL</body></html>",
		"body":       "<body xml:lang='de'>EVIL</body>",
		"correction": "<replace xmlns='urn:xmpp:message-correct:0' id='EVIL'/>",
		"oob":        "<x xmlns='jabber:x:oob'><url>EVIL</url></x>",
		"reply":      "<reply xmlns='urn:xmpp:reply:0' to='x@y' id='EVIL'/>",
		"nick":       "<nick xmlns='http://jabber.org/protocol/nick'>EVIL</nick>",
		"reference":  "<reference xmlns='urn:xmpp:reference:0' type='data' uri='EVIL'/>",
		"unknown":    "<EVIL xmlns='urn:EVIL'/>",
	} {
		keep := "<request xmlns='urn:xmpp:receipts'/><active xmlns='http://jabber.org/protocol/chatstates'/><thread>t</thread><stanza-id xmlns='urn:xmpp:sid:0' by='alice@example.org' id='s'/>"
		got := fromServer(t, p.s, p.alice, fmt.Sprintf(live, beside+keep, p.writes("true "+name)))
		if len(got) != 1 || client.Body(got[0]) != "true "+name || bytes.Contains(got[0].Raw, []byte("EVIL")) {
			t.Errorf("%s: %s", name, got[0].Raw)
		}
		for _, k := range []string{"<request ", "<active ", "<thread>", "<stanza-id "} {
			if !bytes.Contains(got[0].Raw, []byte(k)) {
				t.Errorf("%s: no %s in %s", name, k, got[0].Raw)
			}
		}
	}
}

// Clear text is marked where encryption is expected, wherever it stands; by rule it is
// not shown at all.
func TestClearText(t *testing.T) {
	for raw, want := range map[string]string{
		"<body>psst</body>":                       "psst",
		"<subject>psst</subject>":                 "psst",
		"<subject>one</subject><body>psst</body>": "psst",
		"<html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'><p>psst</p></body></html>": "psst",
		"<x xmlns='jabber:x:oob'><url>http://psst</url></x>":                                                                     "http://psst",
		"<reactions xmlns='urn:xmpp:reactions:0' id='1'><reaction>psst</reaction></reactions>":                                   "psst",
		"<retract xmlns='urn:xmpp:message-retract:1' id='1'/>":                                                                   "(a retraction)",
		"<body>psst</body><replace xmlns='urn:xmpp:message-correct:0' id='1'/>":                                                  "psst",
		"<body>[otrproxy] psst</body>":                                                                                           "[otrproxy] psst",
	} {
		message := "<message from='bob@example.org/c' type='chat' id='x'>" + raw + "</message>"
		p := onStage(t, "", func(*stage) {})
		got := fromServer(t, p.s, p.alice, message)
		if len(got) != 1 || client.Body(got[0]) != "[otrproxy] Not encrypted: "+want || bytes.Count(got[0].Raw, []byte("psst"))+bytes.Count(got[0].Raw, []byte("(a r")) != 1 ||
			bytes.Contains(got[0].Raw, []byte("<replace")) || bytes.Contains(got[0].Raw, []byte("<retract")) {
			t.Errorf("%s is shown as %s", raw, raws(got))
		}
		p = onStage(t, "otr: [{policy: require, clear: drop}]\n", func(*stage) {})
		var all []byte
		for _, st := range fromServer(t, p.s, p.alice, message+message) {
			all = append(all, st.Raw...)
		}
		if bytes.Contains(all, []byte("psst")) || bytes.Count(all, []byte("is not shown")) != 1 {
			t.Errorf("clear: drop: %s is shown as %s", raw, all)
		}
	}
	// What the client encrypts itself, it reads itself; its text for others is marked.
	p0 := onStage(t, "", func(*stage) {})
	omemo := "<encrypted xmlns='eu.siacs.conversations.axolotl'><payload>AAAA</payload></encrypted>"
	if got := fromServer(t, p0.s, p0.alice, "<message from='bob@example.org/c' type='chat'><body>I sent you OMEMO</body>"+omemo+"<subject>x</subject></message>"); len(got) != 1 ||
		client.Body(got[0]) != "[otrproxy] Not encrypted: I sent you OMEMO" || !bytes.Contains(got[0].Raw, []byte(omemo)) || bytes.Contains(got[0].Raw, []byte("<subject>")) {
		t.Errorf("OMEMO is shown as %s", raws(got))
	}
	// A personal event is no message.
	p := onStage(t, "", func(*stage) {})
	event := "<message from='bob@example.org' type='headline'><event xmlns='http://jabber.org/protocol/pubsub#event'><items node='x'><item/></items></event></message>"
	if got := fromServer(t, p.s, p.alice, event); len(got) != 1 || string(got[0].Raw) != event {
		t.Errorf("an event is shown as %s", raws(got))
	}
}

// Our voice cannot be imitated by formatted text either, where clear text may pass.
func TestFormattedImitation(t *testing.T) {
	p := onStage(t, "otr: [{policy: opportunistic}]\n", func(*stage) {})
	got := fromServer(t, p.s, p.alice, "<message from='bob@example.org/c' type='chat'><body>hello</body><html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'><p> <b>[otr</b>proxy] your key is fine</p></body></html></message>")
	if len(got) != 1 || client.Body(got[0]) != "hello" || bytes.Contains(got[0].Raw, []byte("<html")) {
		t.Errorf("shown as %s", raws(got))
	}
}

// No receipt is asked for by strangers, nor for what nobody could read.
func TestReceiptsToStrangers(t *testing.T) {
	p := onStage(t, "", func(*stage) {})
	ask := "<message from='%s' type='chat'><body>%s</body><request xmlns='urn:xmpp:receipts'/><markable xmlns='urn:xmpp:chat-markers:0'/></message>"
	for _, c := range []struct {
		from, body string
		asked      bool
	}{{"bob@example.org/c", "hi", true}, {"mallory@evil.example/r", "hi", false}, {"bob@example.org/c", "?OTR:AAMDAAAAAAAAAAAA.", false}} {
		for _, st := range fromServer(t, p.s, p.alice, fmt.Sprintf(ask, c.from, c.body)) {
			if asked := bytes.Contains(st.Raw, []byte("<request")) || bytes.Contains(st.Raw, []byte("<markable")); asked != c.asked && !client.Notice(st) {
				t.Errorf("%s %s: %s", c.from, c.body, st.Raw)
			}
		}
	}
}

// Answers are passed to questions only, from whom they were asked.
func TestAnswers(t *testing.T) {
	p := onStage(t, "", func(*stage) {})
	answer := func(from, id, typ string) string {
		return "<iq " + from + " to='alice@example.org/c' id='" + id + "' type='" + typ + "'><query xmlns='jabber:iq:version'/></iq>"
	}
	p.alice.Send("<iq type='get' id='v1' to='carol@elsewhere.example/r'><query xmlns='jabber:iq:version'/></iq><iq type='get' id='v2'><query xmlns='jabber:iq:version'/></iq>" +
		"<iq type='get' id='last'><ping xmlns='urn:xmpp:ping'/></iq>")
	if _, err := p.alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "last" }); err != nil { // the server has answered
		t.Fatal(err)
	}
	p.alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "v2" })
	p.alice.Send("<iq type='get' id='v3' to='dora@elsewhere.example/r'><query xmlns='jabber:iq:version'/></iq><iq type='get' id='end'><ping xmlns='urn:xmpp:ping'/></iq>")
	if _, err := p.alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "end" }); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		raw  string
		pass bool
	}{
		{answer("from='mallory@evil.example/r'", "v3", "result"), false},
		{answer("from='dora@elsewhere.example/r'", "other", "result"), false},
		{answer("from='dora@elsewhere.example'", "v3", "error"), false},
		{answer("from='dora@elsewhere.example/r'", "v3", "result"), true},
		{answer("from='dora@elsewhere.example/r'", "v3", "result"), false}, // once
		{answer("", "v3", "result"), false},
		{answer("from='dora@elsewhere.example/r'", "v3", "get"), true}, // a question
	} {
		if got := fromServer(t, p.s, p.alice, c.raw); (len(got) == 1) != c.pass {
			t.Errorf("%s: %s", c.raw, raws(got))
		}
	}
}

// What cannot be protected is refused by name, under its own id.
func TestRefusals(t *testing.T) {
	const to = "bob@example.org"
	for raw, want := range map[string]string{
		"<message to='%s' id='i' type='headline'><body>x</body></message>":                                                                      "a headline",
		"<message to='%s' id='i' type='chat'><subject>x</subject></message>":                                                                    "a subject",
		"<message to='%s' id='i' type='chat'><retract xmlns='urn:xmpp:message-retract:1' id='1'/></message>":                                    "a retraction",
		"<message to='%s' id='i'><x xmlns='jabber:x:conference' jid='room@c.example' reason='x'/></message>":                                    "an invitation",
		"<message to='%s' id='i' type='chat'><x xmlns='urn:unknown'>x</x></message>":                                                            "an extension of your program (x)",
		"<message to='room@c.example' id='i' type='groupchat'><body>x</body></message>":                                                         "allow: [groupchat]",
		"<message to='alice@example.org' id='i' type='chat'><body>x</body></message>":                                                           "notes to yourself",
		"<message to='%s' id='i' type='chat'><encrypted xmlns='eu.siacs.conversations.axolotl'>not base64!</encrypted><body>x</body></message>": "encrypted in another way",
		"<message to='%s' id='i' type='chat'><propose xmlns='urn:xmpp:jingle-message:0' id='1'/></message>":                                     "a call",
		"<iq to='%s/r' id='i' type='set'><jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='s'/></iq>":                            "files and calls",
		"<iq to='upload.example.org' id='i' type='get'><request xmlns='urn:xmpp:http:upload:0' filename='x' size='1'/></iq>":                    "files and calls",
		"<iq to='%s/r' id='i' type='set'><x xmlns='http://jabber.org/protocol/rosterx'><item action='add' jid='a@b'/></x></iq>":                 "an extension of your program",
	} {
		p := onStage(t, "", func(*stage) {})
		raw = strings.ReplaceAll(raw, "%s", to)
		p.alice.Send(raw)
		st, err := p.alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "i" })
		if err != nil || st.Root().Attr("type") != "error" || !bytes.Contains(st.Raw, []byte("<policy-violation ")) || !strings.Contains(allOf(st), want) {
			t.Errorf("%s: %v %s", raw, err, st.Raw)
		}
	}
}

// raws are stanzas as they came.
func raws(sts []*stanza.Stanza) (all []byte) {
	for _, st := range sts {
		all = append(append(all, st.Raw...), '\n')
	}
	return all
}

func allOf(st *stanza.Stanza) (text string) {
	for d := range st.Root().Descendants() {
		text += d.Text()
	}
	return text
}

// A correction's text arrives encrypted as a new message, and the person is told.
func TestCorrection(t *testing.T) {
	p := onStage(t, "", (*stage).talk)
	p.alice.Send("<message to='bob@example.org' id='c1' type='chat'><body>lunch at two</body><replace xmlns='urn:xmpp:message-correct:0' id='m0'/></message>")
	text(t, p.bob, "alice@"+domain, "lunch at two")
	p.noticed("it arrives as a new one")
	if bytes.Contains(p.s.Received(), []byte("message-correct")) {
		t.Error("the mark has left")
	}
}

// A room is told once not to be encrypted, where a rule lets it pass.
func TestRooms(t *testing.T) {
	p := onStage(t, "otr: [{policy: require, allow: [groupchat]}]\n", func(*stage) {})
	p.send([]string{"<presence to='room@c.example/alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>"})
	joined := "<presence from='room@c.example/alice'><x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/></x></presence>"
	got := fromServer(t, p.s, p.alice, joined+joined)
	if len(got) != 3 || !bytes.Contains(got[0].Raw, []byte("type='groupchat'")) && !bytes.Contains(got[1].Raw, []byte("type='groupchat'")) {
		t.Errorf("%s", raws(got))
	}
	const said, private = "said in the room", "said to one"
	p.send([]string{"<message to='room@c.example' id='g' type='groupchat'><body>" + said + "</body></message><message to='room@c.example/bob' id='pm' type='chat'><body>" + private + "</body></message>"})
	if seen := p.s.Received(); !bytes.Contains(seen, []byte(said)) || !bytes.Contains(seen, []byte(private)) {
		t.Error("the room did not get it, or the person did not")
	}
	// An invitation passes alone.
	p.send([]string{"<message to='bob@example.org' id='inv'><body>come, dear</body><x xmlns='jabber:x:conference' jid='room@c.example' reason='tea'/></message>"})
	if seen := p.s.Received(); !bytes.Contains(seen, []byte("tea")) || bytes.Contains(seen, []byte("dear")) {
		t.Error("the invitation did not leave, or not alone")
	}
}
