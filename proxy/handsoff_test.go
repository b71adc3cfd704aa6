package proxy_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"otrproxy/config"
	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/stanza"
)

// Where the rule says never, everything passes byte for byte, in both directions: what
// nobody has asked for, and to and from addresses that we would not read.
func TestNeverIsHandsOff(t *testing.T) {
	s := startServer(t, server.Config{})
	alice := startProxy(t, s, "otr: [{policy: never}]\n").login("alice", client.Plain)
	for _, raw := range []string{
		"<iq type='result' id='nobody-asked' from='bob@example.org/r' to='alice@example.org/c'/>",
		"<iq type='error' id='nobody-asked' to='alice@example.org/c'><error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>",
		"<iq type='set' id='x' from='mallory@evil.example/r'><query xmlns='jabber:iq:roster'><item jid='mallory@evil.example'/></query></iq>",
		"<message from='alice@example.org'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='bob@example.org/x'><x xmlns='urn:x'/></message><message xmlns='urn:y'/></forwarded></received></message>",
		"<message from='mallory@evil.example/r'><result xmlns='urn:xmpp:mam:2' queryid='nobody-asked' id='1'><forwarded xmlns='urn:xmpp:forward:0'/></result></message>",
		"<message from='@@' type='chat'><body xmlns='urn:x'>x</body></message>",
		"<presence from='room@conf.example/Bert \u2764\ufe0f' type='W'><W xmlns='urn:W'>[otrproxy] x</W></presence>",
	} {
		if got := strings.TrimSuffix(allRaw(fromServer(t, s, alice, raw)), "\n"); got != raw {
			t.Errorf("%s came as %s", raw, got)
		}
	}
	for i, raw := range []string{
		"<message to='room@conf.example/Bert \u2764\ufe0f' type='chat' id='ID'><body>hi</body></message>",
		"<presence to='room@conf.example/Bert \u2764\ufe0f' id='ID'><x xmlns='http://jabber.org/protocol/muc'/></presence>",
		"<iq to='@@no address' type='get' id='ID'><query xmlns='urn:x'/></iq>",
	} {
		raw = strings.Replace(raw, "ID", fmt.Sprint("up", i), 1)
		if _, _, up := fate(t, s, alice, fmt.Sprint("up", i), raw); !strings.Contains(up, raw) {
			t.Errorf("%s left as %s", raw, up)
		}
	}
}

// Where the rules begin to demand encryption, the key that is missing is made, and nothing
// leaves before that.
func TestRulesThatBeginToRequireBringAKey(t *testing.T) {
	s := startServer(t, server.Config{})
	dir := filepath.Join(t.TempDir(), "state") // in which no account has a key
	b := startConfigured(t, dir, configFor(s, dir)+"otr: [{policy: never}]\n")
	alice := b.login("alice", client.Plain)
	alice.Say("bob@"+domain, "open", "in clear, as the rules say")
	if !s.Wait(func(got []byte) bool { return bytes.Contains(got, []byte("in clear, as the rules say")) }) {
		t.Fatal("nothing has left")
	}
	key := filepath.Join(dir, "accounts", "alice@"+domain, "otr.private_key")
	if _, err := os.Stat(key); err == nil {
		t.Error("a key that nobody wants")
	}
	strict, err := config.Parse("t", []byte(configFor(s, dir)+"otr: [{policy: require}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.p.Reload(strict); err != nil {
		t.Fatal(err)
	}
	alice.Say("bob@"+domain, "held", "CANARY")
	if !s.Wait(func(got []byte) bool { return bytes.Contains(got, []byte("?OTRv")) }) {
		t.Fatalf("no conversation was asked for\n%s", b.log)
	}
	if _, err := os.Stat(key); err != nil {
		t.Error(err)
	}
	if bytes.Contains(s.Received(), []byte("CANARY")) {
		t.Error("a word left in clear")
	}
}

// Where other contacts are not left alone, those who are open no door to their voices.
func TestNeverForOneIsNoDoorToAnother(t *testing.T) {
	rules := "otr: [{contact: \"*@free.example\", policy: never}, {contact: \"*\", policy: require}]\n"
	shownMarked(t, rules, map[string]string{
		"a carbon of theirs":    "<message from='eve@free.example'><received xmlns='urn:xmpp:carbons:2'>" + inner("<body>FORGED</body>") + "</received></message>",
		"a result of theirs":    "<message from='eve@free.example'><result xmlns='urn:xmpp:mam:2' queryid='q' id='1'>" + inner("<body>FORGED</body>") + "</result></message>",
		"a carbon in their own": aCarbon("received", strings.Replace(inner("<received xmlns='urn:xmpp:carbons:2'>"+inner("<body>FORGED</body>")+"</received>"), "from='bob@example.org/x'", "from='eve@free.example/x'", 1)),
		"beside their own":      "<message from='alice@example.org'><received xmlns='urn:xmpp:carbons:2'>" + strings.Replace(inner("<body>x</body>"), "from='bob@example.org/x'", "from='eve@free.example/x'", 1) + "</received><body>FORGED</body></message>",
		"an answer of bob's":    "<iq type='result' id='nobody-asked' from='bob@example.org/r'><query xmlns='jabber:iq:version'><name>FORGED</name></query></iq>",
	})
	s := startServer(t, server.Config{})
	alice := startProxy(t, s, rules).login("alice", client.Plain)
	raw := "<message from='eve@free.example/r' type='chat'><body>hi</body><odd xmlns='urn:odd'>x</odd></message>"
	if got := allRaw(fromServer(t, s, alice, raw)); strings.TrimSpace(got) != raw {
		t.Errorf("%s came as %s", raw, got)
	}
	raw = "<iq type='result' id='nobody-asked' from='eve@free.example/r'/>"
	if got := allRaw(fromServer(t, s, alice, raw)); strings.TrimSpace(got) != raw {
		t.Errorf("%s came as %s", raw, got)
	}
}

// Characters that servers map to nothing make no other address, and none that is refused.
func TestAddressesAreReadAsServersReadThem(t *testing.T) {
	c := onStage(t, groupchatRule, func(*stage) {})
	for i, to := range []string{"room@conf.example/Bert \u2764\ufe0f", "ro\u00adom@conf.example", "room@conf.example/a\u200bb", "room@conf.example/\U0001f469\u200d\U0001f4bb"} {
		id := fmt.Sprint("to", i)
		c.alice.Send("<presence to='" + to + "' id='" + id + "'/>")
		seen(c.alice)
		if !bytes.Contains(c.s.Received(), []byte("id='"+id+"'")) {
			t.Errorf("%q is refused", to)
		}
	}
	joins(t, c.s, c.alice, "room@conf.example")
	got := fromServer(t, c.s, c.alice, "<message from='ro\u00adom@conf.example/Bert \u2764\ufe0f' type='groupchat'><body>hi</body></message>")
	if len(got) != 1 || client.Body(got[0]) != "hi" {
		t.Errorf("said in the room: %s", allRaw(got))
	}
	// A real non-address is none.
	c.alice.Send("<message to='@@' id='bad'><body>x</body></message>")
	if st, err := c.alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "bad" }); err != nil || !bytes.Contains(st.Raw, []byte("jid-malformed")) {
		t.Errorf("no address, and not refused: %v", err)
	}
}

// What a rule says it allows passes in every form, and a refusal names the rule.
func TestAllowedFilesPassInMessagesToo(t *testing.T) {
	shapes := map[string]string{
		"data in a message": `<data xmlns='http://jabber.org/protocol/ibb' sid='s' seq='0'>dGhpcw==</data>`,
		"a call":            `<propose xmlns='urn:xmpp:jingle-message:0' id='call1'><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/></propose><store xmlns='urn:xmpp:hints'/>`,
		"an end":            `<reject xmlns='urn:xmpp:jingle-message:0' id='call1'><reason xmlns='urn:xmpp:jingle:1'><busy/></reason></reject>`,
		"a link":            `<x xmlns='jabber:x:oob'><url>https://files.example/1</url></x>`,
		"a file":            `<file-sharing xmlns='urn:xmpp:sfs:0'><file xmlns='urn:xmpp:file:metadata:0'><name>a.jpg</name></file></file-sharing>`,
	}
	for rules, allowed := range map[string]bool{"otr: [{policy: require, allow: [files]}]\n": true, "": false} {
		s := startServer(t, server.Config{})
		alice := startProxy(t, s, rules).login("alice", client.Plain)
		for name, x := range shapes {
			id := strings.ReplaceAll(name, " ", "")
			alice.Send("<message to='bob@example.org/c' type='chat' id='" + id + "'>" + x + "</message>")
			alice.Send("<iq type='get' id='mark" + id + "'><ping xmlns='urn:xmpp:ping'/></iq>")
			refused := ""
			if _, err := alice.Wait(func(st *stanza.Stanza) bool {
				if st.Root().Attr("id") == id && st.Root().Attr("type") == "error" {
					refused = allOf(st)
				}
				return st.Root().Attr("id") == "mark"+id
			}); err != nil {
				t.Fatal(err)
			}
			left := bytes.Contains(s.Received(), []byte("id='"+id+"'"))
			switch {
			case left != allowed, allowed == (refused != ""):
				t.Errorf("%q, %s: left %v, refused: %s", rules, name, left, refused)
			case !allowed && !strings.Contains(refused, "allow: [files]"):
				t.Errorf("%s: the refusal names no rule: %s", name, refused)
			}
		}
		// Beside a text they are left out, as ever.
		_, _, up := fate(t, s, alice, "both", "<message to='carol@example.org' type='chat' id='both'><body>QcanaryZ</body>"+shapes["a link"]+"</message>")
		if strings.Contains(up, "QcanaryZ") || strings.Contains(up, "files.example") {
			t.Errorf("%q: left beside a text: %s", rules, up)
		}
	}
}

// Presence that leaves is valid: known forms whole, and an error with an error in it.
func TestPresenceThatLeavesIsValid(t *testing.T) {
	c := onStage(t, strictRule, func(*stage) {})
	caps := "<c xmlns='urn:xmpp:caps'><hash xmlns='urn:xmpp:hashes:2' algo='sha-256'>kzBZbkqJ3ADrj7v08reD1qcWUwNGHaidNUgD7nHpiw8=</hash></c>"
	c.send([]string{"<presence id='caps'>" + caps + "</presence>",
		"<presence to='room@conf.example' type='error' id='failed'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>QcanaryZ</text></error></presence>"})
	up := string(c.s.Received())
	if !strings.Contains(up, caps) {
		t.Error("the program's capabilities were taken apart")
	}
	_, failed, _ := strings.Cut(up, "id='failed'")
	if !strings.Contains(failed, "<error type='cancel'><service-unavailable ") || strings.Contains(failed, "QcanaryZ") {
		t.Errorf("the error left as %s", failed)
	}
}
