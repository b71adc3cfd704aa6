package filter

import (
	"strings"
	"testing"

	"otrproxy/config"
	"otrproxy/stanza"
)

// FuzzCompose: what may stand beside ciphertext holds no text of an unknown place.
func FuzzCompose(f *testing.F) {
	f.Add("<message><body>x</body><thread>t</thread><active xmlns='http://jabber.org/protocol/chatstates'/></message>")
	f.Add("<message><received xmlns='urn:xmpp:receipts' id='a b'/></message>")
	f.Add("<message><encrypted xmlns='eu.siacs.conversations.axolotl'><payload>AAAA</payload></encrypted></message>")
	f.Fuzz(func(t *testing.T, in string) {
		st, err := stanza.Parse([]byte(in))
		if err != nil {
			return
		}
		rule := config.Default().RuleFor("a@b", "c@d")
		c := Compose(st.Root(), rule, nil)
		out := stanza.Message{To: "x", Extra: c.Extra}.AppendTo(nil)
		again, err := stanza.Parse(out)
		if err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		for el := range again.Root().Children() {
			switch string(el.NS()) {
			case NSChatStates, NSReceipts, NSStanzaID:
				if el.HasChildren() || el.Text() != "" {
					t.Errorf("text beside the ciphertext: %s", out)
				}
			case stanza.NSClient:
				if string(el.Local()) != "thread" || strings.ContainsAny(el.Text(), " \t\n") {
					t.Errorf("%s", out)
				}
			default:
				t.Errorf("an element that is not listed: %s", out)
			}
		}
	})
}

// laxNames are elements that programs look for by their name alone.
var laxNames = strings.Fields("body subject html nick error text message forwarded sent received result")

// FuzzMessageIn: of any message of a server's, a client gets well-formed XML in which every
// element is listed, and nothing that a lax reader takes for something else.
func FuzzMessageIn(f *testing.F) {
	for _, s := range []string{
		"<message from='b@x/r'><body>x</body><active xmlns='http://jabber.org/protocol/chatstates'>W</active></message>",
		"<message xmlns:p='urn:p'><p:body>W</p:body><body xmlns='urn:xmpp:receipts'>W</body><thread>a b</thread></message>",
		"<message><x xmlns='jabber:x:conference' jid='r@c' reason='W'/><x xmlns='http://jabber.org/protocol/muc#user'><invite from='b@x'><reason>W</reason></invite></x></message>",
		"<message type='headline' from='b@x'><event xmlns='http://jabber.org/protocol/pubsub#event'><items node='n'><item><mood xmlns='http://jabber.org/protocol/mood'><text>W</text></mood></item></items></event></message>",
		"<message><delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'>W</delay><stanza-id xmlns='urn:xmpp:sid:0' id='W W' by='x'/></message>",
		"<message><encrypted xmlns='urn:xmpp:omemo:2'><header sid='1'><keys jid='a@b'><key rid='1'>AAAA</key></keys></header><payload>AAAA</payload></encrypted></message>",
	} {
		for _, clear := range []bool{true, false} {
			f.Add(s, clear)
		}
	}
	f.Fuzz(func(t *testing.T, raw string, clear bool) {
		st, err := stanza.Parse([]byte(raw))
		if err != nil || !st.Is(stanza.NSClient, "message") {
			return
		}
		in := In{Voice: testVoice, Rule: builtIn, Body: "the text", Clear: clear}
		out, _ := in.AppendTo(nil, st.Root())
		again, err := stanza.Parse(out)
		if err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		texts := 0
		for el := range again.Root().Children() {
			if el.Is(stanza.NSClient, "body") {
				if texts++; el.Text() != "the text" {
					t.Errorf("another text: %s", out)
				}
				continue
			}
			if find(in.appendTables(nil, st.Root()), el) == nil && !el.Is(stanza.NSClient, "thread") {
				t.Errorf("%s is not listed, in %s", el.Raw(), out)
			}
		}
		if twice, _ := in.AppendTo(nil, again.Root()); string(twice) != string(out) {
			t.Errorf("%s becomes %s when it is written anew", out, twice)
		}
		if texts != 1 || again.Root().Text() != "" {
			t.Errorf("%d texts, and text outside in %s", texts, out)
		}
		for el := range again.Root().Descendants() {
			if el.Is(stanza.NSClient, "body") || el.Is(NSReceipts, "received") || el.Is(NSMarkers, "received") {
				continue
			}
			for _, name := range laxNames {
				if string(el.Local()) == name && name != "text" { // a mood has a text
					t.Errorf("<%s> in %s", name, out)
				}
			}
		}
	})
}

// FuzzStanzaIn: whatever a server sends, what a client gets of it is well-formed, and what
// passes unchanged needs nothing of it changed.
func FuzzStanzaIn(f *testing.F) {
	for _, s := range []string{
		"<presence from='b@x/r'><show>away</show><status>W</status><x xmlns='http://jabber.org/protocol/muc#user'><item nick='W'><reason>W</reason></item></x></presence>",
		"<presence type='error'><error type='cancel' by='x'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>xmpp:a@b</gone><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>W</text></error></presence>",
		"<iq type='result' id='1'><query xmlns='jabber:iq:roster'><item jid='a@b' name='[W'><group>W</group></item></query></iq>",
		"<iq type='result' id='1'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='n'><item><message xmlns='jabber:client'><body>W</body></message></item></items></pubsub></iq>",
		"<iq type='set' id='1' xmlns:p='jabber:iq:oob'><p:query><p:url>W</p:url></p:query></iq>",
		"<message from='a@b'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'/><message xmlns='jabber:client' from='b@x' type='error'><body>W</body></message></forwarded></received></message>",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		st, err := stanza.Parse([]byte(raw))
		if err != nil {
			return
		}
		root := st.Root()
		check := func(out []byte, unchanged bool) {
			t.Helper()
			if unchanged {
				out = []byte(raw)
			}
			again, err := stanza.Parse(out)
			if err != nil {
				t.Fatalf("%v in %s", err, out)
			}
			for el := range again.Root().Descendants() {
				if text := el.Text(); testVoice.Quote(text) != text && !strings.Contains(text, "> [") && !el.Is(stanza.NSClient, "body") {
					t.Errorf("%q is not quoted in %s", text, out)
				}
			}
		}
		switch {
		case st.Is(stanza.NSClient, "presence"):
			if out, unchanged, ok := testVoice.PresenceIn(nil, root, builtIn, false); ok {
				check(out, unchanged)
			}
			check(testVoice.AppendOpen(nil, st), false)
		case st.Is(stanza.NSClient, "iq"):
			for _, r := range []Request{{}, {From: Service, Own: true}, {Open: true}} {
				r.Voice, r.Rule = testVoice, builtIn
				if out, p := r.AppendTo(nil, root); p != Refused {
					check(out, p == Unchanged)
				}
			}
			Told(root)
		case st.Is(stanza.NSClient, "message"):
			o := Open{Voice: testVoice, Other: func(s string) (string, bool) { return testVoice.Quote(s), true }, Bare: func([]byte) bool { return true }}
			check(o.AppendTo(nil, root), false)
			check(testVoice.AppendError(nil, root, nil), false)
			in := In{Voice: testVoice, Rule: builtIn, Clear: true}
			in.Said(root)
			if c, ok := CopyOf(root); ok {
				check(in.AppendCopy(nil, root, &c), false)
				check(o.AppendCopy(nil, st, &c), false)
				check(testVoice.AppendEmptyCopy(nil, root, &c), false)
				check(testVoice.AppendFailedCopy(nil, root, &c), false)
			}
		}
	})
}

// FuzzPresenceOut: presence to one contact leaves well formed, without a word of the person's,
// and what has left once would leave so again.
func FuzzPresenceOut(f *testing.F) {
	f.Add("<presence to='a@b'><status>words</status><show>away</show><c xmlns='http://jabber.org/protocol/caps' node='n:x' ver='1'>words</c>words</presence>")
	f.Add("<presence to='a@b' type='subscribe' words='x'><nick xmlns='http://jabber.org/protocol/nick'>words</nick><s:status xmlns:s='jabber:client'>words</s:status></presence>")
	f.Add("<presence to='a@b/c'><x xmlns='http://jabber.org/protocol/muc'><password>secret</password><history maxstanzas='0'/><words/></x></presence>")
	f.Fuzz(func(t *testing.T, in string) {
		st, err := stanza.Parse([]byte(in))
		if err != nil || string(st.Root().Local()) != "presence" {
			return
		}
		rule := config.Default().RuleFor("a@b", "c@d")
		once := PresenceOut(nil, st, rule, false)
		again, err := stanza.Parse(once)
		if err != nil {
			t.Fatalf("%v in %s", err, once)
		}
		for el := range again.Root().Children() {
			if local := string(el.Local()); local == "status" || local == "nick" {
				t.Errorf("%s", once)
			}
		}
		if twice := PresenceOut(nil, again, rule, false); string(twice) != string(once) {
			t.Errorf("%s\nand then %s", once, twice)
		}
	})
}

// FuzzRequestOut: whatever a request is, it is judged; one of an unknown type never leaves, nor
// one with text of its own.
func FuzzRequestOut(f *testing.F) {
	for _, in := range []string{"<iq type='set'><query xmlns='jabber:iq:roster'><item jid='a@b' name='words'/></query></iq>", "<iq type='get'><save xmlns='urn:xmpp:archive'>words</save></iq>",
		"<iq type='set'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='n'><item><mood xmlns='http://jabber.org/protocol/mood'><text>words</text></mood></item></publish></pubsub></iq>", "<iq type='result'>words</iq>"} {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		st, err := stanza.Parse([]byte(in))
		if err != nil {
			return
		}
		root := st.Root()
		rule := *config.Default().RuleFor("a@b", "c@d")
		rule.Allow = nil
		for _, to := range []To{ToContact, ToServer, ToRoom} {
			if RequestOut(root, to, &rule) != "" {
				continue
			}
			switch typ := root.Attr("type"); {
			case typ != "get" && typ != "set" && typ != "result" && typ != "error":
				t.Errorf("leaves with the type %q", typ)
			case strings.TrimSpace(root.Text()) != "":
				t.Errorf("leaves with a text: %s", in)
			}
		}
	})
}
