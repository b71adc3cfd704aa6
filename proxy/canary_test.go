package proxy_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"otrproxy/stanza"
	"otrproxy/test/client"
	"otrproxy/test/server"
)

// shapes are the places a client can put a word that a person typed. W is the
// word, TO the contact.
var shapes = map[string]string{
	"body":                 `<message to='TO' type='chat' id='i'><body>W</body></message>`,
	"no type":              `<message to='TO'><body>W</body></message>`,
	"normal":               `<message to='TO' type='normal'><body>W</body></message>`,
	"headline":             `<message to='TO' type='headline'><body>W</body></message>`,
	"unknown type":         `<message to='TO' type='W'><body>W</body></message>`,
	"error":                `<message to='TO' type='error'><body>W</body><error type='cancel'><bad-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>W</text><x xmlns='W'/></error></message>`,
	"groupchat":            `<message to='TO' type='groupchat'><body>W</body></message>`,
	"full JID":             `<message to='TO/r' type='chat'><body>W</body></message>`,
	"two bodies":           `<message to='TO' type='chat'><body>W</body><body xml:lang='de'>W</body></message>`,
	"language first":       `<message to='TO' type='chat'><body xml:lang='de'>W</body><body>W</body></message>`,
	"language word":        `<message to='TO' type='chat' xml:lang='W'><body xml:lang='W'>W</body></message>`,
	"html beside":          `<message to='TO' type='chat'><body>W</body><html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'><p>W</p></body></html></message>`,
	"html alone":           `<message to='TO' type='chat'><html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'><p>W</p></body></html></message>`,
	"subject beside":       `<message to='TO' type='chat'><subject>W</subject><body>W</body></message>`,
	"subject alone":        `<message to='TO' type='chat'><subject>W</subject></message>`,
	"thread":               `<message to='TO' type='chat'><body>x</body><thread>W W</thread></message>`,
	"thread parent":        `<message to='TO' type='chat'><body>x</body><thread parent='W'>t</thread></message>`,
	"oob":                  `<message to='TO' type='chat'><body>W</body><x xmlns='jabber:x:oob'><url>http://W</url><desc>W</desc></x></message>`,
	"data form":            `<message to='TO'><x xmlns='jabber:x:data' type='submit'><field var='W'><value>W</value></field></x></message>`,
	"correction":           `<message to='TO' type='chat'><body>W</body><replace id='W' xmlns='urn:xmpp:message-correct:0'/></message>`,
	"chat marker":          `<message to='TO' type='chat'><displayed xmlns='urn:xmpp:chat-markers:0' id='W W'/></message>`,
	"reference":            `<message to='TO' type='chat'><body>W</body><reference xmlns='urn:xmpp:reference:0' uri='W'/></message>`,
	"file share":           `<message to='TO' type='chat'><file-sharing xmlns='urn:xmpp:sfs:0'><file><name>W</name></file></file-sharing></message>`,
	"sims":                 `<message to='TO' type='chat'><body>W</body><media-sharing xmlns='urn:xmpp:sims:1'>W</media-sharing></message>`,
	"spoiler":              `<message to='TO' type='chat'><body>W</body><spoiler xmlns='urn:xmpp:spoiler:0'>W</spoiler></message>`,
	"markup":               `<message to='TO' type='chat'><body>W</body><markup xmlns='urn:xmpp:markup:0'>W</markup></message>`,
	"retract":              `<message to='TO' type='chat'><retract xmlns='urn:xmpp:message-retract:1' id='W W'>W</retract></message>`,
	"fallback":             `<message to='TO' type='chat'><body>W</body><fallback xmlns='urn:xmpp:fallback:0' for='W'/></message>`,
	"reactions":            `<message to='TO' type='chat'><reactions xmlns='urn:xmpp:reactions:0' id='x'><reaction>W</reaction></reactions></message>`,
	"sticker":              `<message to='TO' type='chat'><body>W</body><sticker xmlns='urn:xmpp:stickers:0' pack='W'/></message>`,
	"reply":                `<message to='TO' type='chat'><body>W</body><reply xmlns='urn:xmpp:reply:0' to='W' id='W'/></message>`,
	"nick":                 `<message to='TO' type='chat'><body>W</body><nick xmlns='http://jabber.org/protocol/nick'>W</nick></message>`,
	"attention":            `<message to='TO' type='chat'><attention xmlns='urn:xmpp:attention:0'>W</attention></message>`,
	"bob":                  `<message to='TO' type='chat'><data xmlns='urn:xmpp:bob' cid='W'>W</data></message>`,
	"jingle message":       `<message to='TO' type='chat'><propose xmlns='urn:xmpp:jingle-message:0' id='x'><description xmlns='W'>W</description></propose></message>`,
	"ibb message":          `<message to='TO'><data xmlns='http://jabber.org/protocol/ibb' sid='W' seq='0'>W</data></message>`,
	"unknown extension":    `<message to='TO' type='chat'><W xmlns='W'>W</W></message>`,
	"unknown attribute":    `<message to='TO' type='chat' W='W'><body W='W'>W</body></message>`,
	"prefixed":             `<message to='TO' type='chat'><c:body xmlns:c='jabber:client'>W</c:body></message>`,
	"foreign body":         `<message to='TO' type='chat'><body xmlns='W'>W</body></message>`,
	"child of the body":    `<message to='TO' type='chat'><body>W<b>W</b></body></message>`,
	"cdata":                `<message to='TO' type='chat'><body><![CDATA[W]]></body></message>`,
	"text beside":          `<message to='TO' type='chat'>W<body>x</body>W</message>`,
	"chat state text":      `<message to='TO' type='chat'><body>x</body><active xmlns='http://jabber.org/protocol/chatstates' W='W'>W</active></message>`,
	"chat state name":      `<message to='TO' type='chat'><W xmlns='http://jabber.org/protocol/chatstates'/></message>`,
	"receipt text":         `<message to='TO' type='chat'><request xmlns='urn:xmpp:receipts'>W</request></message>`,
	"receipt id":           `<message to='TO' type='chat'><received xmlns='urn:xmpp:receipts' id='W W'/></message>`,
	"origin id":            `<message to='TO' type='chat'><body>x</body><origin-id xmlns='urn:xmpp:sid:0' id='W W'>W</origin-id></message>`,
	"hint":                 `<message to='TO' type='chat'><body>x</body><no-store xmlns='urn:xmpp:hints'>W</no-store></message>`,
	"forwarded":            `<message to='TO' type='chat'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'><body>W</body></message></forwarded></message>`,
	"own carbon":           `<message to='TO' type='chat'><sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'><body>W</body></message></forwarded></sent></message>`,
	"invitation":           `<message to='TO'><x xmlns='jabber:x:conference' jid='room@conf' reason='W'/></message>`,
	"mediated invitation":  `<message to='TO'><x xmlns='http://jabber.org/protocol/muc#user'><invite to='x@y'><reason>W</reason></invite></x></message>`,
	"omemo fallback":       `<message to='TO' type='chat'><encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'><key rid='2'>AAAA</key><iv>AAAA</iv></header><payload>AAAA</payload></encrypted><body>W</body></message>`,
	"omemo with text":      `<message to='TO' type='chat'><encrypted xmlns='eu.siacs.conversations.axolotl'><payload>W, W!</payload></encrypted></message>`,
	"openpgp fallback":     `<message to='TO' type='chat'><x xmlns='jabber:x:encrypted'>AAAA</x><body>W</body></message>`,
	"looks like OTR":       `<message to='TO' type='chat'><body>is ?OTR: W. any good</body></message>`,
	"query and text":       `<message to='TO' type='chat'><body>?OTRv23? W</body></message>`,
	"error-like":           `<message to='TO' type='chat'><body>?OTR Error: W</body></message>`,
	"encoded-like":         `<message to='TO' type='chat'><body>?OTR:AAMD W</body></message>`,
	"fragment-like":        `<message to='TO' type='chat'><body>?OTR|1|2,1,1,W,</body></message>`,
	"whitespace tag":       "<message to='TO' type='chat'><body>W \t  \t\t\t\t \t \t \t    \t\t  \t\t</body></message>",
	"pretty-printed":       "<message\n to='TO'\n type='chat'\n>\n <body>\n W\n </body>\n</message>",
	"command":              `<message to='TO' type='chat'><body>!otr W</body></message>`,
	"command with blanks":  `<message to='TO' type='chat'><body>  !otr smp start W</body></message>`,
	"secret":               `<message to='TO' type='chat'><body>!otr smp start W</body></message>`,
	"question and answer":  `<message to='TO' type='chat'><body>!otr smp ask W? | W</body></message>`,
	"answer":               `<message to='TO' type='chat'><body>!otr smp answer W</body></message>`,
	"service":              `<message to='otrproxy.localhost' type='chat'><body>W</body></message>`,
	"service resource":     `<message to='otrproxy.localhost/x' type='chat'><body>W</body></message>`,
	"service capital":      `<message to='OTRPROXY.localhost' type='chat'><body>W</body></message>`,
	"service iq":           `<iq to='otrproxy.localhost' type='set' id='i'><command xmlns='http://jabber.org/protocol/commands' node='W'/></iq>`,
	"service presence":     `<presence to='otrproxy.localhost'><status>W</status></presence>`,
	"invalid address":      `<message to='@@W' type='chat'><body>W</body></message>`,
	"no address":           `<message type='chat'><body>W</body></message>`,
	"own address":          `<message to='alice@example.org' type='chat'><body>W</body></message>`,
	"the server":           `<message to='example.org' type='chat'><body>W</body></message>`,
	"a stranger":           `<message to='nobody@elsewhere.example' type='chat'><body>W</body></message>`,
	"ibb":                  `<iq to='TO/r' type='set' id='i'><data xmlns='http://jabber.org/protocol/ibb' sid='s' seq='0'>W</data></iq>`,
	"si":                   `<iq to='TO/r' type='set' id='i'><si xmlns='http://jabber.org/protocol/si' id='x'><file xmlns='http://jabber.org/protocol/si/profile/file-transfer' name='W' size='1'/></si></iq>`,
	"jingle file":          `<iq to='TO/r' type='set' id='i'><jingle xmlns='urn:xmpp:jingle:1' action='session-initiate'><content name='x'><description xmlns='urn:xmpp:jingle:apps:file-transfer:5'><file><name>W</name></file></description></content></jingle></iq>`,
	"upload slot":          `<iq to='upload.example.org' type='get' id='i'><request xmlns='urn:xmpp:http:upload:0' filename='W' size='1'/></iq>`,
	"oob iq":               `<iq to='TO/r' type='set' id='i'><query xmlns='jabber:iq:oob'><url>http://W</url></query></iq>`,
	"huge":                 `<message to='TO' type='chat'><body>` + strings.Repeat("W ", 4000) + `</body></message>`,
	"many in one":          strings.Repeat(`<message to='TO' type='chat'><body>W</body></message>`, 20),
	"character references": `<message to='TO' type='chat'><body>&#x57;W</body></message>`,
}

// encodings are the ways a word could be found again.
func encodings(word string) [][]byte {
	w := []byte(word)
	rev := slices.Clone(w)
	slices.Reverse(rev)
	var u16le, u16be []byte
	for _, c := range utf16.Encode([]rune(word)) {
		u16le = append(u16le, byte(c), byte(c>>8))
		u16be = append(u16be, byte(c>>8), byte(c))
	}
	var refs strings.Builder
	for _, c := range word {
		fmt.Fprintf(&refs, "&#%d;", c)
	}
	out := [][]byte{w, bytes.ToLower(w), []byte(hex.EncodeToString(w)), []byte(strings.ToUpper(hex.EncodeToString(w))), rev, u16le, u16be, []byte(url.QueryEscape(word)), []byte(refs.String())}
	for shift := range 3 { // base64 at three alignments, without the characters the neighbours touch
		e := base64.StdEncoding.EncodeToString(append(make([]byte, shift), w...))
		out = append(out, []byte(e[(shift*8+5)/6:len(e)-4]))
	}
	return out
}

// The canary. A fresh word is put into every place there is, in every state of the
// conversation, and looked for in everything the server ever received.
func TestCanary(t *testing.T) {
	if n := len(shapes); n < 80 {
		t.Errorf("only %d shapes", n)
	}
	for _, state := range []string{"never talked", "encrypted", "finished", "contact without OTR"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, server.Config{})
			home, away := startProxy(t, s, ""), startProxy(t, s, "")
			contact := "carol@" + domain
			var bob *client.Client
			if state == "encrypted" || state == "finished" {
				contact = "bob@" + domain
				bob = away.login("bob", client.Plain)
			}
			if state == "contact without OTR" {
				plain := startProxy(t, s, "otr: [{policy: never}]\n")
				plain.login("carol", client.Plain)
			}
			alice := home.login("alice", client.Plain)
			if bob != nil {
				alice.Say(contact, "first", "hello")
				text(t, bob, "alice@"+domain, "hello")
				if state == "finished" {
					bob.Say("alice@"+domain, "x", "!otr end")
					if _, err := alice.Notice("has ended the private conversation"); err != nil {
						t.Fatal(err)
					}
				}
			}
			words := map[string]string{}
			i := 0
			for name, shape := range shapes {
				word := fmt.Sprintf("Qcanary%dx%sZ", i, strings.ReplaceAll(state, " ", ""))
				i++
				words[name] = word
				raw := strings.ReplaceAll(strings.ReplaceAll(shape, "W", word), "TO", contact)
				if i%2 == 0 { // in crumbs
					for _, c := range []byte(raw) {
						alice.Send(string(c))
					}
				} else {
					alice.Send(raw)
				}
			}
			// All of it has been read once this one has been answered.
			alice.Send("<iq type='get' id='last'><ping xmlns='urn:xmpp:ping'/></iq>")
			if _, err := alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "last" }); err != nil {
				t.Fatal(err)
			}
			seen := s.Received()
			for name, word := range words {
				for _, e := range encodings(word) {
					if bytes.Contains(seen, e) {
						i := bytes.Index(seen, e)
						t.Errorf("%s: the server received %s in: %s", name, e, seen[max(0, i-200):min(len(seen), i+80)])
						break
					}
				}
			}
		})
	}
}

// The same harness under never sees the words, so it is known to look.
func TestCanaryControl(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "otr: [{policy: never}]\n")
	alice := b.login("alice", client.Plain)
	words := map[string]string{}
	i := 0
	for name, shape := range shapes {
		if strings.Contains(shape, "otrproxy.localhost") || strings.Contains(shape, "OTRPROXY") || strings.Contains(shape, "!otr") || name == "invalid address" ||
			strings.HasPrefix(shape, "<iq") {
			continue // never leaves, whatever the policy; files are guarded by the same rule
		}
		word := fmt.Sprintf("Qcontrol%dZ", i)
		i++
		words[name] = word
		alice.Send(strings.ReplaceAll(strings.ReplaceAll(shape, "W", word), "TO", "bob@"+domain))
	}
	alice.Send("<iq type='get' id='last'><ping xmlns='urn:xmpp:ping'/></iq>")
	if _, err := alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "last" }); err != nil {
		t.Fatal(err)
	}
	seen := s.Received()
	for name, word := range words {
		if !bytes.Contains(seen, []byte(word)) {
			t.Errorf("%s: not seen", name)
		}
	}
	if len(words) < 65 {
		t.Errorf("only %d words", len(words))
	}
}
