package proxy_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"unicode/utf16"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/proxy/control"
	"otrproxy/stanza"
	"otrproxy/test/socks"
)

// shapes are the places a client can put a word that a person typed. W is the
// word, TO the contact.
var shapes = map[string]string{
	"body":                  `<message to='TO' type='chat' id='i'><body>W</body></message>`,
	"no type":               `<message to='TO'><body>W</body></message>`,
	"normal":                `<message to='TO' type='normal'><body>W</body></message>`,
	"headline":              `<message to='TO' type='headline'><body>W</body></message>`,
	"unknown type":          `<message to='TO' type='W'><body>W</body></message>`,
	"error":                 `<message to='TO' type='error'><body>W</body><error type='cancel'><bad-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>W</text><x xmlns='W'/></error></message>`,
	"groupchat":             `<message to='TO' type='groupchat'><body>W</body></message>`,
	"full JID":              `<message to='TO/r' type='chat'><body>W</body></message>`,
	"two bodies":            `<message to='TO' type='chat'><body>W</body><body xml:lang='de'>W</body></message>`,
	"language first":        `<message to='TO' type='chat'><body xml:lang='de'>W</body><body>W</body></message>`,
	"language word":         `<message to='TO' type='chat' xml:lang='W'><body xml:lang='W'>W</body></message>`,
	"html beside":           `<message to='TO' type='chat'><body>W</body><html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'><p>W</p></body></html></message>`,
	"html alone":            `<message to='TO' type='chat'><html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'><p>W</p></body></html></message>`,
	"subject beside":        `<message to='TO' type='chat'><subject>W</subject><body>W</body></message>`,
	"subject alone":         `<message to='TO' type='chat'><subject>W</subject></message>`,
	"thread":                `<message to='TO' type='chat'><body>x</body><thread>W W</thread></message>`,
	"thread parent":         `<message to='TO' type='chat'><body>x</body><thread parent='W'>t</thread></message>`,
	"oob":                   `<message to='TO' type='chat'><body>W</body><x xmlns='jabber:x:oob'><url>http://W</url><desc>W</desc></x></message>`,
	"data form":             `<message to='TO'><x xmlns='jabber:x:data' type='submit'><field var='W'><value>W</value></field></x></message>`,
	"correction":            `<message to='TO' type='chat'><body>W</body><replace id='W' xmlns='urn:xmpp:message-correct:0'/></message>`,
	"chat marker":           `<message to='TO' type='chat'><displayed xmlns='urn:xmpp:chat-markers:0' id='W W'/></message>`,
	"reference":             `<message to='TO' type='chat'><body>W</body><reference xmlns='urn:xmpp:reference:0' uri='W'/></message>`,
	"file share":            `<message to='TO' type='chat'><file-sharing xmlns='urn:xmpp:sfs:0'><file><name>W</name></file></file-sharing></message>`,
	"sims":                  `<message to='TO' type='chat'><body>W</body><media-sharing xmlns='urn:xmpp:sims:1'>W</media-sharing></message>`,
	"spoiler":               `<message to='TO' type='chat'><body>W</body><spoiler xmlns='urn:xmpp:spoiler:0'>W</spoiler></message>`,
	"markup":                `<message to='TO' type='chat'><body>W</body><markup xmlns='urn:xmpp:markup:0'>W</markup></message>`,
	"retract":               `<message to='TO' type='chat'><retract xmlns='urn:xmpp:message-retract:1' id='W W'>W</retract></message>`,
	"fallback":              `<message to='TO' type='chat'><body>W</body><fallback xmlns='urn:xmpp:fallback:0' for='W'/></message>`,
	"reactions":             `<message to='TO' type='chat'><reactions xmlns='urn:xmpp:reactions:0' id='x'><reaction>W</reaction></reactions></message>`,
	"sticker":               `<message to='TO' type='chat'><body>W</body><sticker xmlns='urn:xmpp:stickers:0' pack='W'/></message>`,
	"reply":                 `<message to='TO' type='chat'><body>W</body><reply xmlns='urn:xmpp:reply:0' to='W' id='W'/></message>`,
	"nick":                  `<message to='TO' type='chat'><body>W</body><nick xmlns='http://jabber.org/protocol/nick'>W</nick></message>`,
	"attention":             `<message to='TO' type='chat'><attention xmlns='urn:xmpp:attention:0'>W</attention></message>`,
	"bob":                   `<message to='TO' type='chat'><data xmlns='urn:xmpp:bob' cid='W'>W</data></message>`,
	"jingle message":        `<message to='TO' type='chat'><propose xmlns='urn:xmpp:jingle-message:0' id='x'><description xmlns='W'>W</description></propose></message>`,
	"ibb message":           `<message to='TO'><data xmlns='http://jabber.org/protocol/ibb' sid='W' seq='0'>W</data></message>`,
	"unknown extension":     `<message to='TO' type='chat'><W xmlns='W'>W</W></message>`,
	"unknown attribute":     `<message to='TO' type='chat' W='W'><body W='W'>W</body></message>`,
	"prefixed":              `<message to='TO' type='chat'><c:body xmlns:c='jabber:client'>W</c:body></message>`,
	"foreign body":          `<message to='TO' type='chat'><body xmlns='W'>W</body></message>`,
	"child of the body":     `<message to='TO' type='chat'><body>W<b>W</b></body></message>`,
	"cdata":                 `<message to='TO' type='chat'><body><![CDATA[W]]></body></message>`,
	"text beside":           `<message to='TO' type='chat'>W<body>x</body>W</message>`,
	"chat state text":       `<message to='TO' type='chat'><body>x</body><active xmlns='http://jabber.org/protocol/chatstates' W='W'>W</active></message>`,
	"chat state name":       `<message to='TO' type='chat'><W xmlns='http://jabber.org/protocol/chatstates'/></message>`,
	"receipt text":          `<message to='TO' type='chat'><request xmlns='urn:xmpp:receipts'>W</request></message>`,
	"receipt id":            `<message to='TO' type='chat'><received xmlns='urn:xmpp:receipts' id='W W'/></message>`,
	"origin id":             `<message to='TO' type='chat'><body>x</body><origin-id xmlns='urn:xmpp:sid:0' id='W W'>W</origin-id></message>`,
	"hint":                  `<message to='TO' type='chat'><body>x</body><no-store xmlns='urn:xmpp:hints'>W</no-store></message>`,
	"forwarded":             `<message to='TO' type='chat'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'><body>W</body></message></forwarded></message>`,
	"own carbon":            `<message to='TO' type='chat'><sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'><body>W</body></message></forwarded></sent></message>`,
	"invitation":            `<message to='TO'><x xmlns='jabber:x:conference' jid='room@conf' reason='W'/></message>`,
	"mediated invitation":   `<message to='TO'><x xmlns='http://jabber.org/protocol/muc#user'><invite to='x@y'><reason>W</reason></invite></x></message>`,
	"omemo fallback":        `<message to='TO' type='chat'><encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'><key rid='2'>AAAA</key><iv>AAAA</iv></header><payload>AAAA</payload></encrypted><body>W</body></message>`,
	"omemo with text":       `<message to='TO' type='chat'><encrypted xmlns='eu.siacs.conversations.axolotl'><payload>W, W!</payload></encrypted></message>`,
	"openpgp fallback":      `<message to='TO' type='chat'><x xmlns='jabber:x:encrypted'>AAAA</x><body>W</body></message>`,
	"looks like OTR":        `<message to='TO' type='chat'><body>is ?OTR: W. any good</body></message>`,
	"query and text":        `<message to='TO' type='chat'><body>?OTRv23? W</body></message>`,
	"error-like":            `<message to='TO' type='chat'><body>?OTR Error: W</body></message>`,
	"encoded-like":          `<message to='TO' type='chat'><body>?OTR:AAMD W</body></message>`,
	"fragment-like":         `<message to='TO' type='chat'><body>?OTR|1|2,1,1,W,</body></message>`,
	"whitespace tag":        "<message to='TO' type='chat'><body>W \t  \t\t\t\t \t \t \t    \t\t  \t\t</body></message>",
	"pretty-printed":        "<message\n to='TO'\n type='chat'\n>\n <body>\n W\n </body>\n</message>",
	"command":               `<message to='TO' type='chat'><body>!otr W</body></message>`,
	"command with blanks":   `<message to='TO' type='chat'><body>  !otr smp start W</body></message>`,
	"secret":                `<message to='TO' type='chat'><body>!otr smp start W</body></message>`,
	"question and answer":   `<message to='TO' type='chat'><body>!otr smp ask W? | W</body></message>`,
	"answer":                `<message to='TO' type='chat'><body>!otr smp answer W</body></message>`,
	"service":               `<message to='otrproxy.localhost' type='chat'><body>W</body></message>`,
	"service resource":      `<message to='otrproxy.localhost/x' type='chat'><body>W</body></message>`,
	"service capital":       `<message to='OTRPROXY.localhost' type='chat'><body>W</body></message>`,
	"service iq":            `<iq to='otrproxy.localhost' type='set' id='i'><command xmlns='http://jabber.org/protocol/commands' node='W'/></iq>`,
	"service presence":      `<presence to='otrproxy.localhost'><status>W</status></presence>`,
	"service form":          `<iq to='otrproxy.localhost' type='set' id='i'><command xmlns='http://jabber.org/protocol/commands' node='smp start'><x xmlns='jabber:x:data' type='submit'><field var='contact'><value>TO</value></field><field var='secret'><value>W</value></field></x></command></iq>`,
	"service form verify":   `<iq to='otrproxy.localhost' type='set' id='i'><command xmlns='http://jabber.org/protocol/commands' node='contact verify' sessionid='W'><x xmlns='jabber:x:data' type='submit'><field var='contact'><value>TO</value></field><field var='fingerprint'><value>W</value></field><field var='W'><value>W</value></field></x></command></iq>`,
	"service roster":        `<iq type='set' id='i'><query xmlns='jabber:iq:roster'><item jid='otrproxy.localhost' name='W'><group>W</group></item></query></iq>`,
	"service roster two":    `<iq type='set' id='i'><query xmlns='jabber:iq:roster'><item jid='TO'/><item jid='otrproxy.localhost' name='W'/></query></iq>`,
	"service disco":         `<iq to='otrproxy.localhost' type='get' id='i'><query xmlns='http://jabber.org/protocol/disco#info' node='W'/></iq>`,
	"command question":      `<message to='TO' type='chat'><body>!otr smp ask W W | W</body></message>`,
	"command fingerprint":   `<message to='TO' type='chat'><body>!otr verify W</body></message>`,
	"command send":          `<message to='TO' type='chat'><body>!otr send W</body></message>`,
	"command unknown":       `<message to='TO' type='chat'><body>!otr W</body></message>`,
	"invalid address":       `<message to='@@W' type='chat'><body>W</body></message>`,
	"no address":            `<message type='chat'><body>W</body></message>`,
	"own address":           `<message to='alice@example.org' type='chat'><body>W</body></message>`,
	"the server":            `<message to='example.org' type='chat'><body>W</body></message>`,
	"a stranger":            `<message to='nobody@elsewhere.example' type='chat'><body>W</body></message>`,
	"ibb":                   `<iq to='TO/r' type='set' id='i'><data xmlns='http://jabber.org/protocol/ibb' sid='s' seq='0'>W</data></iq>`,
	"si":                    `<iq to='TO/r' type='set' id='i'><si xmlns='http://jabber.org/protocol/si' id='x'><file xmlns='http://jabber.org/protocol/si/profile/file-transfer' name='W' size='1'/></si></iq>`,
	"jingle file":           `<iq to='TO/r' type='set' id='i'><jingle xmlns='urn:xmpp:jingle:1' action='session-initiate'><content name='x'><description xmlns='urn:xmpp:jingle:apps:file-transfer:5'><file><name>W</name></file></description></content></jingle></iq>`,
	"upload slot":           `<iq to='upload.example.org' type='get' id='i'><request xmlns='urn:xmpp:http:upload:0' filename='W' size='1'/></iq>`,
	"oob iq":                `<iq to='TO/r' type='set' id='i'><query xmlns='jabber:iq:oob'><url>http://W</url></query></iq>`,
	"huge":                  `<message to='TO' type='chat'><body>` + strings.Repeat("W ", 4000) + `</body></message>`,
	"many in one":           strings.Repeat(`<message to='TO' type='chat'><body>W</body></message>`, 20),
	"presence status":       `<presence><status>W</status></presence>`,
	"directed status":       `<presence to='TO'><status xml:lang='W'>W</status></presence>`,
	"last words":            `<presence to='TO' type='unavailable'><status>W</status></presence>`,
	"subscription":          `<presence to='TO' type='subscribe'><status>W</status><nick xmlns='http://jabber.org/protocol/nick'>W</nick></presence>`,
	"presence nick":         `<presence><nick xmlns='http://jabber.org/protocol/nick'>W</nick></presence>`,
	"presence extension":    `<presence to='TO'><x xmlns='W'>W</x></presence>`,
	"presence show":         `<presence to='TO'><show>W</show><priority>W</priority></presence>`,
	"presence text":         `<presence to='TO'>W<show>away</show>W</presence>`,
	"presence attribute":    `<presence to='TO' W='W'/>`,
	"presence caps text":    `<presence to='TO'><c xmlns='http://jabber.org/protocol/caps' node='n' ver='v'>W</c></presence>`,
	"presence photo text":   `<presence><x xmlns='vcard-temp:x:update'><photo>W</photo></x></presence>`,
	"presence body":         `<presence to='TO'><body>W</body></presence>`,
	"vcard":                 `<iq type='set' id='i'><vCard xmlns='vcard-temp'><FN>W</FN></vCard></iq>`,
	"vcard4":                `<iq type='set' id='i'><vcard xmlns='urn:ietf:params:xml:ns:vcard-4.0'><fn><text>W</text></fn></vcard></iq>`,
	"mood":                  `<iq type='set' id='i'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='http://jabber.org/protocol/mood'><item><mood xmlns='http://jabber.org/protocol/mood'><text>W</text></mood></item></publish></pubsub></iq>`,
	"notes":                 `<iq type='set' id='i'><query xmlns='jabber:iq:private'><storage xmlns='storage:rosternotes'><note jid='TO'>W</note></storage></query></iq>`,
	"iq to a contact":       `<iq to='TO/r' type='set' id='i'><query xmlns='W'>W</query></iq>`,
	"iq without a resource": `<iq to='TO' type='get' id='i'><query xmlns='urn:x'><W>W</W></query></iq>`,
	"iq text":               `<iq to='TO/r' type='get' id='i'>W</iq>`,
	"iq attribute":          `<iq to='TO/r' type='get' id='i' W='W'><ping xmlns='urn:xmpp:ping'/></iq>`,
	"ping text":             `<iq to='TO/r' type='get' id='i'><ping xmlns='urn:xmpp:ping'>W</ping></iq>`,
	"disco text":            `<iq to='TO/r' type='get' id='i'><query xmlns='http://jabber.org/protocol/disco#info'>W</query></iq>`,
	"pubsub to a contact":   `<iq to='TO' type='set' id='i'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='n'><item>W</item></publish></pubsub></iq>`,
	"adhoc form":            `<iq to='TO/r' type='set' id='i'><command xmlns='http://jabber.org/protocol/commands' node='x'><x xmlns='jabber:x:data' type='submit'><field var='v'><value>W</value></field></x></command></iq>`,
	"iq result":             `<iq to='TO/r' type='result' id='i'><query xmlns='W'>W</query></iq>`,
	"last activity":         `<iq to='TO/r' type='result' id='i'><query xmlns='jabber:iq:last' seconds='1'>W</query></iq>`,
	"iq error":              `<iq to='TO/r' type='error' id='i'><query xmlns='W'>W</query><error type='cancel'><bad-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>W</text></error></iq>`,
	"roster exchange":       `<iq to='TO/r' type='set' id='i'><x xmlns='http://jabber.org/protocol/rosterx'><item action='add' jid='a@b' name='W'/></x></iq>`,
	"call":                  `<iq to='TO/r' type='set' id='i'><jingle xmlns='urn:xmpp:jingle:1' action='session-terminate' sid='s'><reason><decline/><text>W</text></reason></jingle></iq>`,
	"bob data":              `<iq to='TO/r' type='result' id='i'><data xmlns='urn:xmpp:bob' cid='c'>W</data></iq>`,
	"direct invitation":     `<message to='TO'><body>W</body><x xmlns='jabber:x:conference' jid='room@conf' reason='W'/></message>`,
	"room text to a person": `<message to='TO' type='groupchat'><body>W</body><x xmlns='http://jabber.org/protocol/muc#user'>W</x></message>`,
	"several bodies":        `<message to='TO' type='chat'><body xml:lang='a'>W</body><body xml:lang='b'>W</body><body>W</body><c:body xmlns:c='jabber:client'>W</c:body></message>`,
	"call invite":           `<message to='TO' type='chat'><body>W</body><invite xmlns='urn:xmpp:call-invites:0'><external uri='W'/></invite></message>`,
	"geoloc":                `<message to='TO' type='chat'><geoloc xmlns='http://jabber.org/protocol/geoloc'><text>W</text></geoloc></message>`,
	"pubsub event":          `<message to='TO' type='headline'><event xmlns='http://jabber.org/protocol/pubsub#event'><items node='W'><item>W</item></items></event></message>`,
	"openpgp for xmpp":      `<message to='TO' type='chat'><openpgp xmlns='urn:xmpp:openpgp:0'>W W!</openpgp><body>W</body></message>`,
	"omemo 2 fallback":      `<message to='TO' type='chat'><encrypted xmlns='urn:xmpp:omemo:2'><header sid='1'/><payload>AAAA</payload></encrypted><body>W</body><fallback xmlns='urn:xmpp:fallback:0' for='W'>W</fallback></message>`,
	"voice request":         `<message to='TO'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#request</value></field><field var='W'><value>W</value></field></x></message>`,
	"room's form":           `<iq to='TO' type='set' id='i'><query xmlns='jabber:iq:register'><x xmlns='jabber:x:data' type='submit'><field var='muc#register_roomnick'><value>W</value></field></x></query></iq>`,
	"room's members":        `<iq to='TO' type='set' id='i'><query xmlns='http://jabber.org/protocol/muc#admin'><item affiliation='member' jid='W@x' nick='W'><reason>W</reason></item></query></iq>`,
	"new caps in words":     `<presence to='TO'><c xmlns='urn:xmpp:caps'><hash xmlns='urn:xmpp:hashes:2' algo='W'>W W</hash>W</c></presence>`,
	"failed presence":       `<presence to='TO' type='error'><error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>W</gone><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>W</text></error></presence>`,
	"end of a call":         `<message to='TO' type='chat'><finish xmlns='urn:xmpp:jingle-message:0' id='x'><reason xmlns='urn:xmpp:jingle:1'><text>W</text></reason></finish></message>`,
	"prefixed invitation":   `<message xmlns:u='http://jabber.org/protocol/muc#user' to='TO'><u:x><u:invite to='x@y'><u:reason>W</u:reason></u:invite><u:W>W</u:W></u:x></message>`,
	"talk of OTR":           `<message to='TO' type='chat'><body>W then ?OTRv23? and ?OTR:AAMD W</body></message>`,
	"markup before OTR":     `<message to='TO' type='chat'><body>&lt;b&gt;W&lt;/b&gt;?OTRv23? W</body></message>`,
	"nested":                strings.ReplaceAll(`<message to='TO' type='chat'><a xmlns='urn:a'>DEEP</a></message>`, "DEEP", strings.Repeat("<b>", 20)+"W"+strings.Repeat("</b>", 20)),
	"character references":  `<message to='TO' type='chat'><body>&#x57;W</body></message>`,
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

// A stage is where a canary is sent out: alice, about to write to a contact.
type stage struct {
	t       *testing.T
	s       *server.Server
	home    *box
	away    *box // bob's
	alice   *client.Client
	bob     *client.Client
	contact string
	lost    atomic.Pointer[string] // messages whose text begins so get lost
}

// strictRule lets nothing pass that a person could have written.
const strictRule = "otr: [{policy: require, allow: [omemo, openpgp, receipts, chatstates]}]\n"

// talk has the two exchange a text, so that they have a private conversation.
func (c *stage) talk() {
	c.t.Helper()
	c.away = startProxy(c.t, c.s, "")
	c.bobComes()
	c.alice.Say(c.contact, "first", "hello")
	text(c.t, c.bob, "alice@"+domain, "hello")
}

// bobComes has bob log in, and alice see it: her proxy asks a contact who comes, so that an
// exchange may begin then, beside another one.
func (c *stage) bobComes() {
	c.t.Helper()
	c.bob = c.away.login("bob", client.Plain)
	c.presence("bob@"+domain+"/c", "")
}

// handshake stops the key exchange where a message is lost.
func handshake(begins string) func(*stage) {
	return func(c *stage) {
		c.away = startProxy(c.t, c.s, "")
		c.bob = c.away.login("bob", client.Plain)
		c.lost.Store(&begins)
		c.alice.Say(c.contact, "first", "hello")
		if !c.s.Wait(func(r []byte) bool { return bytes.Contains(r, []byte("<body>"+begins)) }) {
			c.t.Fatalf("no %s", begins)
		}
	}
}

// canaryStates are the states a conversation can be in.
var canaryStates = map[string]func(*stage){
	"never talked":   func(c *stage) { c.contact = "carol@" + domain },
	"query sent":     handshake("?OTRv23?"),
	"commit sent":    handshake("?OTR:AAMC"),
	"key sent":       handshake("?OTR:AAMK"),
	"reveal sent":    handshake("?OTR:AAMR"),
	"signature sent": handshake("?OTR:AAMS"),
	"encrypted":      (*stage).talk,
	"by SOCKS, enrolled": func(c *stage) {
		c.alice.Drop()
		if _, err := admin(c.t, c.home.p, "login enroll", "account", "alice@"+domain, "password", users()["alice"]); err != nil {
			c.t.Fatal(err)
		}
		var err error
		if c.alice, err = c.home.bySOCKS(domain+":5222", func(cfg *client.Config) {
			cfg.From, cfg.Mechanism, cfg.Binding = true, "SCRAM-SHA-256-PLUS", "tls-exporter"
		}); err != nil {
			c.t.Fatal(err)
		}
		c.talk()
	},
	"through a SOCKS proxy": func(c *stage) {
		c.alice.Drop()
		c.home.stop()
		at, err := socks.Start()
		if err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup(at.Close)
		at.Lead(domain+":5222", c.s.Addr())
		dir := stateDir(c.t)
		c.home = startConfigured(c.t, dir, fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\ndomains:\n  %s: {via: \"socks5://%s\", trust: pin, pins: [%q]}\n%s", dir, domain, at.Addr(), c.s.Pin(), strictRule))
		c.alice = c.home.login("alice", client.STARTTLS)
		c.talk()
	},
	"contact offline": func(c *stage) { c.talk(); c.bob.Close(); c.presence("bob@"+domain+"/c", "unavailable") },
	"always offline":  func(c *stage) { c.contact = "bob@" + domain },
	"finished": func(c *stage) {
		c.talk()
		c.bob.Say("alice@"+domain, "x", "!otr end")
		c.noticed("has ended the private conversation")
	},
	"ended here": func(c *stage) {
		c.talk()
		c.alice.Say(c.contact, "x", "!otr end")
		c.noticed("is over")
	},
	"contact without OTR": func(c *stage) {
		c.contact = "carol@" + domain
		startProxy(c.t, c.s, "otr: [{policy: never}]\n").login("carol", client.Plain)
	},
	"key changed": (*stage).changeKey,
	"key changed, another one named": func(c *stage) {
		before := regexp.MustCompile(`[0-9A-F]{8}( [0-9A-F]{8}){4}`)
		c.changeKey()
		second := c.bobsKey()
		if _, err := admin(c.t, c.away.p, "key generate", "account", "bob@"+domain, "replace", "yes"); err != nil { // and again
			c.t.Fatal(err)
		}
		c.noticed("has ended the private conversation")
		c.bob.Say("alice@"+domain, "x", "!otr start")
		c.noticed("has CHANGED")
		for _, words := range []string{"send", "send " + second, "verify " + second, "verify", "send " + strings.Repeat("0", 40)} {
			c.alice.Say(c.contact, "", "!otr "+words)
		}
		c.noticed("To accept the new key without that")
		c.noticed("his is not the new key")
		c.noticed("his is NOT the fingerprint in use")
		if !before.MatchString(second) || second == c.bobsKey() {
			c.t.Error("the key did not change")
		}
	},
	"just resumed": func(c *stage) {
		c.unconfirmed()
		c.talk()
		c.resume()
		c.bob.Err()
		c.bob = c.away.login("bob", client.Plain)
	},
	"client came back": func(c *stage) {
		c.talk()
		c.alice.Drop()
		c.alice = c.home.login("alice", client.Plain)
	},
	"proxy restarted": func(c *stage) {
		c.talk()
		c.home.stop()
		c.home = startConfigured(c.t, c.home.state, configFor(c.s, c.home.state)+strictRule)
		c.alice = c.home.login("alice", client.Plain)
	},
}

// changeKey has bob come back with another key. The two have talked before.
func (c *stage) changeKey() {
	if c.away == nil {
		c.talk()
	}
	c.bob.Say("alice@"+domain, "x", "!otr end")
	c.noticed("has ended the private conversation")
	c.away.stop()
	dir := stateDir(c.t)
	acc := filepath.Join(dir, "accounts")
	other := bytes.ReplaceAll(testKeys(c.t)["carol@"+domain], []byte("carol@"), []byte("bob@"))
	if err := os.WriteFile(filepath.Join(acc, "bob@"+domain, "otr.private_key"), other, 0o600); err != nil {
		c.t.Fatal(err)
	}
	c.away = startConfigured(c.t, dir, configFor(c.s, dir))
	c.bobComes()
	c.bob.Say("alice@"+domain, "x", "!otr start")
	c.noticed("has CHANGED")
}

// bobsKey is the fingerprint of bob's key as it is now.
func (c *stage) bobsKey() string {
	c.t.Helper()
	r, err := admin(c.t, c.away.p, "key show", "account", "bob@"+domain)
	if err != nil {
		c.t.Fatal(err)
	}
	return grouped(r.Data.([]control.KeyLine)[0].Fingerprint)
}

func grouped(hex string) string {
	hex = strings.ToUpper(hex)
	return strings.Join([]string{hex[:8], hex[8:16], hex[16:24], hex[24:32], hex[32:]}, " ")
}

// unconfirmed has the server not say what it takes, so that a session that breaks has to
// be resumed.
func (c *stage) unconfirmed() {
	c.s.SetFaults(server.Faults{Unconfirmed: true})
	c.alice.Close()
	c.alice = c.home.login("alice", client.Plain)
}

// resume breaks the connections to the server and brings alice back.
func (c *stage) resume() {
	c.t.Helper()
	c.s.Cut()
	c.alice.Err()
	c.alice.Drop()
	c.alice = c.home.login("alice", client.Plain)
	if !strings.Contains(c.home.log.String(), "a session goes on that had lost its server") {
		c.t.Error("the session was not resumed")
	}
}

func (c *stage) noticed(part string) {
	c.t.Helper()
	if _, err := c.alice.Notice(part); err != nil {
		c.t.Fatalf("no notice %q: %v", part, err)
	}
}

func (c *stage) presence(jid, typ string) {
	c.t.Helper()
	if _, err := c.alice.Wait(func(st *stanza.Stanza) bool {
		return st.Is(stanza.NSClient, "presence") && st.Root().Attr("from") == jid && st.Root().Attr("type") == typ
	}); err != nil {
		c.t.Fatal(err)
	}
}

// onStage prepares a state.
func onStage(t *testing.T, rules string, prepare func(*stage)) *stage {
	t.Helper()
	c := &stage{t: t, contact: "bob@" + domain}
	c.s = startServer(t, server.Config{Fate: func(from string, m *stanza.Stanza) server.Fate {
		if begins := c.lost.Load(); begins != nil && strings.HasPrefix(client.Body(m), *begins) {
			return server.Lose
		}
		return server.Deliver
	}})
	c.home = startProxy(t, c.s, rules)
	c.alice = c.home.login("alice", client.Plain)
	prepare(c)
	return c
}

// send sends raw stanzas, every second one in crumbs, and returns once the proxy has
// seen all of them.
func (c *stage) send(raws []string) {
	c.t.Helper()
	for i, raw := range raws {
		if i%2 == 1 {
			c.alice.Send(raw)
			continue
		}
		for _, b := range []byte(raw) {
			c.alice.Send(string(b))
		}
	}
	c.alice.Send("<iq type='get' id='last'><ping xmlns='urn:xmpp:ping'/></iq>")
	if _, err := c.alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "last" }); err != nil {
		c.t.Fatal(err)
	}
}

var (
	inTags   = regexp.MustCompile(`<[^<>]*>`)
	inBase64 = regexp.MustCompile(`[A-Za-z0-9+/]{24,}`)
)

// leaks finds a word in what the server received: in an encoding, across stanzas, or
// inside something encoded.
func leaks(seen []byte, word string) string {
	for _, e := range encodings(word) {
		if i := bytes.Index(seen, e); i >= 0 {
			return string(seen[max(0, i-200):min(len(seen), i+80)])
		}
	}
	return ""
}

// unwrapped is everything the server received, as it is and in ways that could put a
// split or wrapped word together again.
func unwrapped(seen []byte) []byte {
	out := append(bytes.Clone(seen), '\n')
	out = append(append(out, inTags.ReplaceAll(seen, nil)...), '\n') // text across tags and stanzas
	var bodies []byte
	for _, m := range inBase64.FindAll(seen, -1) {
		for cut := range 4 {
			if cut < len(m) {
				part := m[cut:]
				dec, _ := base64.RawStdEncoding.DecodeString(string(part[:len(part)/4*4]))
				bodies = append(append(bodies, dec...), '\n')
			}
		}
	}
	return append(out, bodies...)
}

// The canary. A fresh word is put into every place there is, in every state of the
// conversation, and looked for in everything the server ever received.
func TestCanary(t *testing.T) {
	var tried, leaked atomic.Int32
	run := func(t *testing.T, rules string, prepare func(*stage), which map[string]string) {
		t.Parallel()
		c := onStage(t, rules, prepare)
		words := map[string]string{}
		var raws []string
		for name, shape := range which {
			word := fmt.Sprintf("Qcanary%dx%dZ", len(words), rand.Int64())
			words[name] = word
			raws = append(raws, strings.ReplaceAll(strings.ReplaceAll(shape, "W", word), "TO", c.contact))
		}
		c.send(raws)
		seen := unwrapped(c.s.Received())
		for name, word := range words {
			tried.Add(1)
			if where := leaks(seen, word); where != "" {
				leaked.Add(1)
				t.Errorf("%s: the server received it in: %s", name, where)
			}
		}
	}
	t.Run("states", func(t *testing.T) {
		for state, prepare := range canaryStates {
			t.Run(state, func(t *testing.T) { run(t, strictRule, prepare, shapes) })
		}
		// The built-in rule lets pass what people tell everybody, and nothing else.
		said := maps.Clone(shapes)
		for name := range toEverybody {
			delete(said, name)
		}
		for _, state := range []string{"never talked", "query sent", "encrypted", "contact offline", "finished", "key changed", "proxy restarted"} {
			t.Run("built-in rule, "+state, func(t *testing.T) { run(t, "", canaryStates[state], said) })
		}
		// What was private once does not go back to clear by itself, whatever the policy.
		private := map[string]string{}
		for name, shape := range shapes {
			if strings.HasPrefix(shape, "<message") && !toOthers[name] {
				private[name] = shape
			}
		}
		for _, policy := range []string{"opportunistic", "manual", "require-verified"} {
			for _, state := range []string{"encrypted", "finished", "just resumed"} {
				if policy == "require-verified" && state == "just resumed" {
					continue // nothing is sent there that the server could leave unconfirmed
				}
				t.Run(policy+" "+state, func(t *testing.T) {
					run(t, "otr: [{policy: "+policy+"}]\n", func(c *stage) {
						c.unconfirmed()
						c.away = startProxy(c.t, c.s, "")
						c.bobComes()
						c.alice.Say(c.contact, "", "!otr start")
						c.noticed("Private conversation with")
						if _, err := c.bob.Notice("Private conversation with"); err != nil {
							c.t.Fatal(err)
						}
						switch state {
						case "finished":
							c.bob.Say("alice@"+domain, "x", "!otr end")
							c.noticed("has ended the private conversation")
						case "just resumed":
							c.alice.Say(c.contact, "", "one more")
							text(c.t, c.bob, "alice@"+domain, "one more")
							c.resume()
						}
					}, private)
				})
			}
		}
	})
	t.Logf("canary: %d shapes, %d states, %d tried, leaks %d", len(shapes), len(canaryStates)+15, tried.Load(), leaked.Load())
	if len(shapes) < 120 || len(canaryStates) < 16 {
		t.Errorf("only %d shapes and %d states", len(shapes), len(canaryStates))
	}
}

// toEverybody are shapes of what people tell about themselves, which allow: [status] lets
// pass.
var toEverybody = map[string]bool{"presence status": true, "presence nick": true, "vcard": true, "vcard4": true, "mood": true}

// toOthers are shapes that do not go to the contact.
var toOthers = map[string]bool{"no address": true, "own address": true, "the server": true, "a stranger": true}

// staysHere are shapes that never leave, whatever the policy.
func staysHere(name, shape string) bool {
	return strings.Contains(shape, "otrproxy.localhost") || strings.Contains(shape, "OTRPROXY") || strings.Contains(shape, "!otr") || name == "invalid address"
}

// The same harness under never sees the words, so it is known to look.
func TestCanaryControl(t *testing.T) {
	c := onStage(t, "otr: [{policy: never}]\n", func(*stage) {})
	words := map[string]string{}
	var raws []string
	for name, shape := range shapes {
		if staysHere(name, shape) {
			continue
		}
		words[name] = fmt.Sprintf("Qcontrol%dZ", len(words))
		raws = append(raws, strings.ReplaceAll(strings.ReplaceAll(shape, "W", words[name]), "TO", c.contact))
	}
	for name, shape := range hidden {
		words[name] = fmt.Sprintf("Qcontrol%dZ", len(words))
		raws = append(raws, written(shape, words[name], c.contact))
	}
	c.send(raws)
	seen := unwrapped(c.s.Received())
	for name, word := range words {
		if leaks(seen, word) == "" {
			t.Errorf("%s: not seen", name)
		}
	}
	t.Logf("canary control: %d of %d shapes can leave, all seen", len(words), len(shapes)+len(hidden))
}

// Every encoding that is looked for is found where it is.
func TestCanaryLooks(t *testing.T) {
	const word = "Qlooked4Z"
	for i, e := range encodings(word) {
		if leaks(unwrapped(append([]byte("<a>"), e...)), word) == "" {
			t.Errorf("encoding %d is not found", i)
		}
	}
	for _, hidden := range []string{"<a>Qloo</a><b>ked4Z</b>", base64.StdEncoding.EncodeToString([]byte("<x>and so on " + word + " and so on</x>"))} {
		if leaks(unwrapped([]byte(hidden)), word) == "" {
			t.Errorf("not found in %s", hidden)
		}
	}
}

// The canary in stanzas nobody has thought of.
func TestCanaryProperty(t *testing.T) {
	seed := rand.Uint64()
	if n, err := strconv.ParseUint(os.Getenv("CANARY_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("seed %d", seed)
	var total, leaked atomic.Int32
	t.Run("states", func(t *testing.T) {
		for _, state := range []string{"never talked", "query sent", "signature sent", "encrypted", "finished", "key changed", "just resumed"} {
			t.Run(state, func(t *testing.T) {
				t.Parallel()
				c := onStage(t, strictRule, canaryStates[state])
				g := &grammar{Rand: rand.New(rand.NewPCG(seed, uint64(len(state)))), to: c.contact}
				var raws []string
				for range 400 {
					raws = append(raws, g.stanza())
				}
				c.send(raws)
				seen := unwrapped(c.s.Received())
				for i, word := range g.words {
					if where := leaks(seen, word); where != "" {
						leaked.Add(1)
						t.Errorf("seed %d, stanza %s: the server received it in: %s", seed, raws[i], where)
					}
				}
				total.Add(int32(len(g.words)))
			})
		}
	})
	t.Logf("canary property: %d stanzas at random, %d leaks", total.Load(), leaked.Load())
}

// A grammar makes stanzas at random, each with a word of its own in it.
type grammar struct {
	*rand.Rand
	to    string
	words []string
}

func (g *grammar) one(of ...string) string { return of[g.IntN(len(of))] }

func (g *grammar) stanza() string {
	word := fmt.Sprintf("Qwild%dx%dZ", len(g.words), g.Int64())
	g.words = append(g.words, word)
	kind := g.one("message", "message", "message", "message", "presence", "iq")
	to := g.one(g.to, g.to, g.to+"/r", g.to+"/c")
	attrs := ""
	switch kind {
	case "message":
		to = g.one(to, to, "room@conf.example", "alice@"+domain)
		attrs = g.one("", " type='chat'", " type='normal'", " type='headline'", " type='groupchat'", " type='error'", " type='"+word+"'", " foo='"+word+"'", " xml:lang='"+word+"'")
	case "presence":
		attrs = g.one("", "", " type='unavailable'", " type='subscribe'", " type='probe'", " foo='"+word+"'")
	case "iq":
		attrs = g.one(" type='get'", " type='set'", " type='result'", " type='error'", " type='get' foo='"+word+"'") + " id='i'"
	}
	inner := ""
	for range 1 + g.IntN(4) {
		inner += g.element(word, 0)
	}
	if g.IntN(6) == 0 {
		inner = word + inner
	}
	return "<" + kind + " to='" + to + "'" + attrs + ">" + inner + "</" + kind + ">"
}

// namespaces in which a word is looked for; those whose content is machine-made
// by definition (hashes, ciphertext, a room's password) are left out.
var namespaces = []string{"", "", "", "jabber:client", "jabber:x:oob", "jabber:x:data", "http://jabber.org/protocol/xhtml-im", "http://www.w3.org/1999/xhtml", "urn:xmpp:receipts",
	"http://jabber.org/protocol/chatstates", "urn:xmpp:hints", "urn:xmpp:sid:0", "urn:xmpp:eme:0", "urn:xmpp:carbons:2", "urn:xmpp:forward:0", "urn:xmpp:message-correct:0", "urn:xmpp:reactions:0",
	"urn:xmpp:reply:0", "urn:xmpp:fallback:0", "urn:xmpp:mam:2", "urn:xmpp:delay", "urn:xmpp:ping", "http://jabber.org/protocol/disco#info", "jabber:iq:version", "jabber:iq:last", "http://jabber.org/protocol/pubsub",
	"http://jabber.org/protocol/nick", "http://jabber.org/protocol/caps", "http://jabber.org/protocol/muc#user", "jabber:x:conference", "urn:xmpp:jingle:1", "urn:xmpp:chat-markers:0", "urn:anything"}

func (g *grammar) element(word string, depth int) string {
	name := g.one("body", "body", "subject", "thread", "html", "x", "query", "status", "show", "request", "received", "active", "composing", "forwarded", "message", "encryption", "origin-id", "replace", "nick", "error", "text", "a", "p:b")
	ns := namespaces[g.IntN(len(namespaces))]
	attrs := ""
	if ns != "" {
		attrs += " xmlns='" + ns + "'"
	}
	if strings.HasPrefix(name, "p:") {
		attrs += " xmlns:p='urn:p'"
	}
	if g.IntN(5) == 0 {
		attrs += " " + g.one("foo", "reason", "desc", "xml:lang") + "='" + word + "'"
	}
	text := g.one(word, word, "<![CDATA["+word+"]]>", "&#x51;"+word[1:], "  "+word+"\n", "x "+word+" y", "?OTR "+word, "?OTR:AAMD"+word, "!"+word, "")
	for depth < 3 && g.IntN(3) == 0 {
		text += g.element(word, depth+1)
		depth++
	}
	return "<" + name + attrs + ">" + text + "</" + name + ">"
}
