package proxy_test

import (
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"otrproxy/demo/server"
	"otrproxy/stanza"
	"otrproxy/test/readers"
)

// The forger is the canary's mirror: a server that puts a word of its own into every place
// of what it sends, so that a person takes it for a contact's, or for the proxy's. What
// reaches the client is looked through here, and read by the parsers of real clients.

// tellings are what a server can put into a stanza, from the examples of the XEPs and from
// what lax readers take for one of them. W is the word, FROM the contact's bare JID.
var tellings = map[string]string{
	// Elements that programs find by their name alone.
	"body, foreign":         `<body xmlns='urn:x'>W</body>`,
	"body, no namespace":    `<body xmlns=''>W</body>`,
	"body, of servers":      `<body xmlns='jabber:server'>W</body>`,
	"body, of components":   `<body xmlns='jabber:component:accept'>W</body>`,
	"body, of receipts":     `<body xmlns='urn:xmpp:receipts'>W</body>`,
	"body, of chat states":  `<body xmlns='http://jabber.org/protocol/chatstates'>W</body>`,
	"body, of hints":        `<body xmlns='urn:xmpp:hints'>W</body>`,
	"body, of stanza ids":   `<body xmlns='urn:xmpp:sid:0'>W</body>`,
	"body, of delays":       `<body xmlns='urn:xmpp:delay'>W</body>`,
	"body, of events":       `<body xmlns='jabber:x:event'>W</body>`,
	"body, of markers":      `<body xmlns='urn:xmpp:chat-markers:0'>W</body>`,
	"body, of carbons":      `<body xmlns='urn:xmpp:carbons:2'>W</body>`,
	"body, of the archive":  `<body xmlns='urn:xmpp:mam:tmp'>W</body>`,
	"body, of XHTML":        `<body xmlns='http://www.w3.org/1999/xhtml'>W</body>`,
	"body, of OTR":          `<body xmlns='urn:xmpp:otr:0'>W</body>`,
	"body, prefixed":        `<p:body xmlns:p='urn:x'>W</p:body>`,
	"body, prefixed client": `<p:body xmlns:p='jabber:client'>W</p:body>`,
	"body, CDATA":           `<body xmlns='urn:x'><![CDATA[W]]></body>`,
	"body, in languages":    `<body xml:lang='de'>W</body><body xml:lang='fr'>W</body>`,
	"body, of children":     `<body><b xmlns='urn:x'>W</b></body>`,
	"body, deep":            `<x xmlns='urn:x'><y><body xmlns='jabber:client'>W</body></y></x>`,
	"subject":               `<subject>W</subject>`,
	"subject, foreign":      `<subject xmlns='urn:x'>W</subject>`,
	"thread":                `<thread parent='W W'>W W</thread>`,
	"thread, foreign":       `<thread xmlns='urn:x'>W</thread>`,
	"html":                  `<html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'><p>W</p></body></html>`,
	"html, foreign":         `<html xmlns='urn:x'><body xmlns='http://www.w3.org/1999/xhtml'>W</body></html>`,
	"html, its body alone":  `<html xmlns='http://jabber.org/protocol/xhtml-im'><body>W</body></html>`,
	"nick":                  `<nick xmlns='http://jabber.org/protocol/nick'>W</nick>`,
	"nick, foreign":         `<nick xmlns='urn:x'>W</nick>`,
	"error":                 `<error type='cancel'><undefined-condition xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>W</text></error>`,
	"error, foreign":        `<error xmlns='urn:x'><text>W</text></error>`,
	"text":                  `<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>W</text>`,
	"text itself":           `W`,
	"status":                `<status>W</status>`,
	"status, foreign":       `<status xmlns='urn:x'>W</status>`,
	"show":                  `<show>W</show><priority>W</priority>`,
	// Messages in messages.
	"forwarded":          `<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='FROM/c' to='alice@example.org/c' type='chat'><body>W</body></message></forwarded>`,
	"forwarded, foreign": `<forwarded xmlns='urn:x'><message xmlns='jabber:client' from='FROM/c' type='chat'><body>W</body></message></forwarded>`,
	"message":            `<message from='FROM/c' to='alice@example.org/c' type='chat'><body>W</body></message>`,
	"message, foreign":   `<message xmlns='urn:x' from='FROM/c'><body>W</body></message>`,
	"carbon":             `<received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='FROM/c' to='alice@example.org/d' type='chat'><body>W</body></message></forwarded></received>`,
	"carbon of old":      `<received xmlns='urn:xmpp:carbons:1'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='FROM/c' type='chat'><body>W</body></message></forwarded></received>`,
	"archived":           `<result xmlns='urn:xmpp:mam:2' queryid='q' id='1'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='FROM/c' type='chat'><body>W</body></message></forwarded></result>`,
	"archived of old":    `<result xmlns='urn:xmpp:mam:0' queryid='q' id='1'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='FROM/c' type='chat'><body>W</body></message></forwarded></result>`,
	"inbox":              `<entry xmlns='urn:xmpp:inbox:1' jid='FROM' unread='1' id='W W'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='FROM/c'><body>W</body></message></forwarded></entry>`,
	"XEP-0136":           `<chat xmlns='urn:xmpp:archive' with='FROM' start='2026-01-01T00:00:00Z'><from secs='0'><body>W</body></from><note>W</note></chat>`,
	// What says something otherwise.
	"link":               `<x xmlns='jabber:x:oob'><url>http://W.example/</url><desc>W</desc></x>`,
	"form":               `<x xmlns='jabber:x:data' type='form'><title>W</title><instructions>W</instructions><field type='fixed'><value>W</value></field><field var='body' label='W'><value>W</value></field></x>`,
	"real-time text":     `<rtt xmlns='urn:xmpp:rtt:0' event='new' seq='1'><t>W</t></rtt>`,
	"correction":         `<replace xmlns='urn:xmpp:message-correct:0' id='1'/><body>W</body>`,
	"retraction":         `<retract xmlns='urn:xmpp:message-retract:1' id='1'><reason>W</reason></retract>`,
	"retraction of old":  `<apply-to xmlns='urn:xmpp:fasten:0' id='1'><moderated xmlns='urn:xmpp:message-moderate:0'><reason>W</reason></moderated></apply-to>`,
	"reaction":           `<reactions xmlns='urn:xmpp:reactions:0' id='1'><reaction>W</reaction></reactions>`,
	"reply":              `<reply xmlns='urn:xmpp:reply:0' to='FROM' id='W'/><fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'>W</fallback>`,
	"reference":          `<reference xmlns='urn:xmpp:reference:0' type='data' uri='http://W/'><media-sharing xmlns='urn:xmpp:sims:1'><file xmlns='urn:xmpp:jingle:apps:file-transfer:5'><name>W</name><desc>W</desc></file></media-sharing></reference>`,
	"file share":         `<file-sharing xmlns='urn:xmpp:sfs:0'><file xmlns='urn:xmpp:file:metadata:0'><name>W</name><desc>W</desc></file><sources><url-data xmlns='http://jabber.org/protocol/url-data' target='http://W/'/></sources></file-sharing>`,
	"sticker":            `<sticker xmlns='urn:xmpp:stickers:0' pack='W'/>`,
	"spoiler":            `<spoiler xmlns='urn:xmpp:spoiler:0'>W</spoiler>`,
	"markup":             `<markup xmlns='urn:xmpp:markup:0'><span start='0' end='1'>W</span></markup>`,
	"label":              `<securitylabel xmlns='urn:xmpp:sec-label:0'><displaymarking>W</displaymarking><label/></securitylabel>`,
	"headers":            `<headers xmlns='http://jabber.org/protocol/shim'><header name='Subject'>W</header></headers>`,
	"addresses":          `<addresses xmlns='http://jabber.org/protocol/address'><address type='ofrom' jid='FROM' desc='W'/></addresses>`,
	"picture":            `<data xmlns='urn:xmpp:bob' cid='W' type='text/plain'>W</data>`,
	"place":              `<geoloc xmlns='http://jabber.org/protocol/geoloc'><text>W</text><locality>W</locality></geoloc>`,
	"nudge":              `<attention xmlns='urn:xmpp:attention:0'>W</attention>`,
	"contacts":           `<x xmlns='http://jabber.org/protocol/rosterx'><item action='add' jid='W@evil.example' name='W'><group>W</group></item></x>`,
	"contacts of old":    `<x xmlns='jabber:x:roster'><item jid='W@evil.example' name='W'/></x>`,
	"login":              `<confirm xmlns='http://jabber.org/protocol/http-auth' id='W' method='GET' url='https://W'/>`,
	"login of old":       `<request xmlns='http://jabber.org/protocol/httpauth'>W</request>`,
	"invitation":         `<x xmlns='jabber:x:conference' jid='room@conf.example' reason='W' password='W W'>W</x>`,
	"mediated":           `<x xmlns='http://jabber.org/protocol/muc#user'><invite from='FROM'><reason>W</reason><continue>W</continue></invite><password>W W</password></x>`,
	"declined":           `<x xmlns='http://jabber.org/protocol/muc#user'><decline from='FROM'><reason>W</reason></decline></x>`,
	"a room's word":      `<x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='owner' nick='W'><reason>W</reason></item><status code='307'/></x>`,
	"call":               `<propose xmlns='urn:xmpp:jingle-message:0' id='x'><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='W'>W</description></propose>`,
	"call's end":         `<finish xmlns='urn:xmpp:jingle-message:0' id='x'><reason xmlns='urn:xmpp:jingle:1'><text>W</text></reason></finish>`,
	"call's invite":      `<invite xmlns='urn:xmpp:call-invites:0'><external uri='https://W/'/></invite>`,
	"event, nick":        `<event xmlns='http://jabber.org/protocol/pubsub#event'><items node='http://jabber.org/protocol/nick'><item><nick xmlns='http://jabber.org/protocol/nick'>W</nick></item></items></event>`,
	"event, mood":        `<event xmlns='http://jabber.org/protocol/pubsub#event'><items node='http://jabber.org/protocol/mood'><item><mood xmlns='http://jabber.org/protocol/mood'><happy/><text>W</text></mood></item></items></event>`,
	"event, tune":        `<event xmlns='http://jabber.org/protocol/pubsub#event'><items node='http://jabber.org/protocol/tune'><item><tune xmlns='http://jabber.org/protocol/tune'><title>W</title><artist>W</artist></tune></item></items></event>`,
	"event, activity":    `<event xmlns='http://jabber.org/protocol/pubsub#event'><items node='http://jabber.org/protocol/activity'><item><activity xmlns='http://jabber.org/protocol/activity'><text>W</text></activity></item></items></event>`,
	"event, microblog":   `<event xmlns='http://jabber.org/protocol/pubsub#event'><items node='urn:xmpp:microblog:0'><item><entry xmlns='http://www.w3.org/2005/Atom'><title>W</title><content>W</content></entry></item></items></event>`,
	"event, a message":   `<event xmlns='http://jabber.org/protocol/pubsub#event'><items node='x'><item><message xmlns='jabber:client' from='FROM/c'><body>W</body></message></item></items></event>`,
	"OMEMO in words":     `<encrypted xmlns='eu.siacs.conversations.axolotl'><payload>W, W!</payload></encrypted>`,
	"OpenPGP in words":   `<openpgp xmlns='urn:xmpp:openpgp:0'>W, W!</openpgp>`,
	"encryption's name":  `<encryption xmlns='urn:xmpp:eme:0' namespace='urn:x' name='W'/>`,
	"signed words":       `<x xmlns='jabber:x:signed'>W, W!</x>`,
	"delay with words":   `<delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'>W</delay>`,
	"chat state's words": `<active xmlns='http://jabber.org/protocol/chatstates' W='W'>W</active>`,
	"receipt's words":    `<received xmlns='urn:xmpp:receipts' id='W W'>W</received>`,
	"avatar's name":      `<x xmlns='vcard-temp:x:update'><nickname>W</nickname><photo>W</photo></x>`,
	"captcha":            `<captcha xmlns='urn:xmpp:captcha'><x xmlns='jabber:x:data' type='form'><instructions>W</instructions></x></captcha>`,
	"hat":                `<hats xmlns='urn:xmpp:hats:0'><hat title='W' uri='urn:W'/></hats>`,
	"unknown":            `<W xmlns='urn:W' W='W'>W</W>`,
	// The proxy's own voice.
	"voice":          `<body>[otrproxy] W</body>`,
	"voice, subject": `<subject>[otrproxy] W</subject>`,
	"voice, hidden":  "<body>hi\u00a0\u00a0\u00a0[\u043etr\u2065proxy] W</body>",
	"voice, status":  `<status>[otrproxy] W</status>`,
	"voice, nick":    `<nick xmlns='http://jabber.org/protocol/nick'>[otrproxy] W</nick>`,
	// The mark is not the server's to give.
	"body":            `<body>W</body>`,
	"body and marker": `<body>W</body><request xmlns='urn:xmpp:receipts'/><encryption xmlns='urn:xmpp:eme:0' namespace='urn:xmpp:otr:0'/>`,
	"body of OTR":     `<body>W ?OTRv23? W</body>`,
	"query":           `<body>?OTRv23? W</body>`,
	"failure of OTR":  `<body>?OTR Error: W</body>`,
	"OTR and words":   `<body>?OTR:AAMD W.</body>`,
	"tagged":          "<body>W \t  \t\t\t\t \t \t \t    \t\t  \t\t</body>",
}

// wholes are stanzas of a server's own that no telling fits into.
var wholes = map[string]string{
	"roster push":        `<iq type='set' id='i' to='alice@example.org/c'><query xmlns='jabber:iq:roster'><item jid='dave@example.org' name='[otrproxy] W' subscription='none'><group>[otrproxy] W</group></item></query></iq>`,
	"link by iq":         `<iq type='set' id='i' from='FROM/c'><query xmlns='jabber:iq:oob'><url>http://W.example/</url><desc>W</desc></query></iq>`,
	"contacts by iq":     `<iq type='set' id='i' from='FROM/c'><x xmlns='http://jabber.org/protocol/rosterx'><item action='add' jid='W@evil.example' name='W'/></x></iq>`,
	"login by iq":        `<iq type='get' id='i' from='FROM/c'><confirm xmlns='http://jabber.org/protocol/http-auth' id='W' method='GET' url='https://W'/></iq>`,
	"file by iq":         `<iq type='set' id='i' from='FROM/c'><si xmlns='http://jabber.org/protocol/si' id='a' profile='http://jabber.org/protocol/si/profile/file-transfer'><file xmlns='http://jabber.org/protocol/si/profile/file-transfer' name='W' size='1'><desc>W</desc></file></si></iq>`,
	"call by iq":         `<iq type='set' id='i' from='FROM/c'><jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='s' initiator='FROM/c'><content name='W' creator='initiator'><description xmlns='urn:xmpp:jingle:apps:file-transfer:5'><file><name>W</name><desc>W</desc></file></description></content></jingle></iq>`,
	"command by iq":      `<iq type='set' id='i' from='FROM/c'><command xmlns='http://jabber.org/protocol/commands' node='W'><x xmlns='jabber:x:data' type='form'><title>W</title></x><note type='info'>W</note></command></iq>`,
	"unknown iq":         `<iq type='set' id='i' from='FROM/c'><query xmlns='urn:W'>W</query></iq>`,
	"two words":          `<message from='FROM/c' type='chat'><body>W</body></message><message from='FROM/c' type='chat'><body xmlns='urn:x'>W</body><body>x</body></message>`,
	"no sender":          `<message type='chat'><body xmlns='urn:x'>W</body><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='FROM/c' type='chat'><body>W</body></message></forwarded></message>`,
	"a look-alike of us": "<message from='\u043etrproxy.localhost' type='chat'><body>W</body></message>",
	"us with a hyphen":   "<message from='otr\u00adproxy.localhost' type='chat'><body>W</body></message>",
	"us in capitals":     `<message from='OTRPROXY.localhost/x' type='chat'><body>W</body></message>`,
	"us with a dot":      `<message from='otrproxy.localhost.' type='chat'><body>W</body></message>`,
	"us, wide":           "<message from='\uff4ftrproxy.localhost' type='chat'><body>W</body></message>",
	"us, a name before":  `<message from='help@otrproxy.localhost' type='chat'><body>W</body></message>`,
	"our presence":       "<presence from='\u043etrproxy.localhost/x'><status>W</status></presence>",
}

// answersOf are answers to requests of the client's own; ID is the request's id.
var answersOf = map[string]string{
	"archive, XEP-0136":  `<iq type='result' id='ID' to='alice@example.org/c'><chat xmlns='urn:xmpp:archive' with='FROM' start='2026-01-01T00:00:00Z'><from secs='0'><body>W</body></from></chat></iq>`,
	"archive's end":      `<iq type='result' id='ID'><fin xmlns='urn:xmpp:mam:2' complete='true'><body xmlns='jabber:client'>W</body><message xmlns='jabber:client' from='FROM/c'><body>W</body></message></fin></iq>`,
	"archive, forwarded": `<iq type='result' id='ID'><query xmlns='urn:xmpp:mam:tmp'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='FROM/c'><body>W</body></message></forwarded></query></iq>`,
	"preferences":        `<iq type='result' id='ID'><prefs xmlns='urn:xmpp:mam:2' default='roster'><always><jid>W W</jid></always><body>W</body></prefs></iq>`,
	"inbox":              `<iq type='result' id='ID'><inbox xmlns='urn:xmpp:inbox:1'><entry jid='FROM'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='FROM/c'><body>W</body></message></forwarded></entry></inbox></iq>`,
	"message in an iq":   `<iq type='result' id='ID'><message xmlns='jabber:client' from='FROM/c' type='chat'><body>W</body></message></iq>`,
	"unknown":            `<iq type='result' id='ID'><query xmlns='urn:W'><body>W</body></query></iq>`,
	"an item's message":  `<iq type='result' id='ID'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='n'><item><message xmlns='jabber:client' from='FROM/c'><body>W</body></message></item></items></pubsub></iq>`,
	"an error":           `<iq type='error' id='ID'><error type='cancel'><undefined-condition xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>[otrproxy] W</text></error></iq>`,
}

// places are where a telling is put; E is the telling, C genuine ciphertext.
var places = map[string]string{
	"alone":                `<message from='FROM/c' to='alice@example.org/c' type='chat'>E</message>`,
	"no type":              `<message from='FROM/c'>E</message>`,
	"headline":             `<message from='FROM/c' type='headline'>E</message>`,
	"broadcast":            `<message from='FROM' type='headline'>E</message>`,
	"groupchat":            `<message from='FROM/c' type='groupchat'>E</message>`,
	"unknown type":         `<message from='FROM/c' type='W'>E</message>`,
	"before text":          `<message from='FROM/c' type='chat'>E<body>x</body></message>`,
	"after text":           `<message from='FROM/c' type='chat'><body>x</body>E</message>`,
	"beside a chat state":  `<message from='FROM/c' type='chat'><active xmlns='http://jabber.org/protocol/chatstates'/>E</message>`,
	"in an error":          `<message from='FROM/c' type='error' id='e'>E<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>`,
	"inside the error":     `<message from='FROM/c' type='error' id='e'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>E</error></message>`,
	"in something unknown": `<message from='FROM/c' type='chat'><x xmlns='urn:x'>E</x></message>`,
	"in a chat state":      `<message from='FROM/c' type='chat'><active xmlns='http://jabber.org/protocol/chatstates'>E</active></message>`,
	"in a receipt":         `<message from='FROM/c' type='chat'><received xmlns='urn:xmpp:receipts' id='x'>E</received></message>`,
	"carbon":               `<message from='alice@example.org'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='FROM/c' to='alice@example.org/d' type='chat'>E</message></forwarded></received></message>`,
	"carbon with text":     `<message from='alice@example.org'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='FROM/c' to='alice@example.org/d' type='chat'>E<body>x</body></message></forwarded></received></message>`,
	"beside a carbon":      `<message from='alice@example.org'>E<received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='FROM/c' to='alice@example.org/d' type='chat'><body>x</body></message></forwarded></received></message>`,
	"in the wrapper":       `<message from='alice@example.org'><received xmlns='urn:xmpp:carbons:2'>E<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='FROM/c' to='alice@example.org/d' type='chat'><body>x</body></message></forwarded></received></message>`,
	"in the forwarded":     `<message from='alice@example.org'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>E<message xmlns='jabber:client' from='FROM/c' to='alice@example.org/d' type='chat'><body>x</body></message></forwarded></received></message>`,
	"other message first":  `<message from='alice@example.org'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:server' from='FROM/c' to='alice@example.org/d' type='chat'>E</message><message xmlns='jabber:client' from='FROM/c' to='alice@example.org/d' type='chat'><active xmlns='http://jabber.org/protocol/chatstates'/></message></forwarded></received></message>`,
	"own carbon":           `<message from='alice@example.org'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='alice@example.org' to='alice@example.org/c' type='chat'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='FROM/c' to='alice@example.org/d' type='chat'>E</message></forwarded></received></message></forwarded></received></message>`,
	"archive":              `<message from='alice@example.org'><result xmlns='urn:xmpp:mam:2' queryid='q' id='1'><forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'/><message xmlns='jabber:client' from='FROM/c' to='alice@example.org/d' type='chat'>E</message></forwarded></result></message>`,
	"archive, an error":    `<message from='alice@example.org'><result xmlns='urn:xmpp:mam:2' queryid='q' id='1'><forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'/><message xmlns='jabber:client' from='FROM/c' to='alice@example.org/d' type='error'>E</message></forwarded></result></message>`,
	"archive, a carbon":    `<message from='alice@example.org'><result xmlns='urn:xmpp:mam:2' queryid='q' id='1'><forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'/><message xmlns='jabber:client' from='alice@example.org' to='alice@example.org/c'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='FROM/c' to='alice@example.org/d' type='chat'>E</message></forwarded></received></message></forwarded></result></message>`,
	"stored":               `<message from='FROM/c' type='chat'><delay xmlns='urn:xmpp:delay' from='example.org' stamp='2026-01-01T00:00:00Z'/>E</message>`,
	"presence":             `<presence from='FROM/c'>E</presence>`,
	"wish":                 `<presence from='FROM' type='subscribe'>E</presence>`,
	"presence, an error":   `<presence from='FROM/c' type='error'>E</presence>`,
	"iq":                   `<iq from='FROM/c' type='set' id='i'>E</iq>`,
	"iq, in a ping":        `<iq from='FROM/c' type='get' id='i'><ping xmlns='urn:xmpp:ping'>E</ping></iq>`,
	"answer":               `<iq from='FROM/c' type='result' id='ID'>E</iq>`,
	"answer, in a version": `<iq from='FROM/c' type='result' id='ID'><query xmlns='jabber:iq:version'>E</query></iq>`,
	"answer, an error":     `<iq from='FROM/c' type='error' id='ID'>E<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>`,
	"with a prefix":        `<message xmlns:c='jabber:client' from='FROM/c' type='chat'><c:thread>E</c:thread>E</message>`,
}

// besideCiphertext are places in which genuine ciphertext stands.
var besideCiphertext = map[string]string{
	"before ciphertext":     `<message from='FROM/c' to='alice@example.org/c' type='chat'>E<body>C</body></message>`,
	"after ciphertext":      `<message from='FROM/c' to='alice@example.org/c' type='chat'><body>C</body>E</message>`,
	"carbon of ciphertext":  `<message from='alice@example.org'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='FROM/c' to='alice@example.org/d' type='chat'>E<body>C</body></message></forwarded></received></message>`,
	"archive of ciphertext": `<message from='alice@example.org'><result xmlns='urn:xmpp:mam:2' queryid='q' id='1'><forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'/><message xmlns='jabber:client' from='FROM/c' to='alice@example.org/d' type='chat'><body>C</body>E</message></forwarded></result></message>`,
}

// A forgery is one stanza of the server's, and the word in it.
type forgery struct{ name, word, raw string }

// forgeries are all of them about a contact; ask returns the id of a request of the
// client's that is open, to the contact or to the account's server, and ciphertext a
// message of the contact's, nil where there is none.
func forgeries(contact string, ask func(to string) string, ciphertext func() string) (all []forgery) {
	add := func(name, raw, to string) {
		word := fmt.Sprintf("Qforged%dx%dZ", len(all), rand.Uint32())
		if strings.Contains(raw, "ID") {
			raw = strings.ReplaceAll(raw, "ID", ask(to))
		}
		raw = strings.ReplaceAll(strings.ReplaceAll(raw, "FROM", contact), "W", word)
		if ciphertext != nil && strings.Contains(raw, ">C<") {
			raw = strings.ReplaceAll(raw, ">C<", ">"+ciphertext()+"<")
		}
		all = append(all, forgery{name, word, raw})
	}
	where := places
	if ciphertext != nil {
		where = besideCiphertext
	}
	for _, place := range slices.Sorted(maps.Keys(where)) {
		for _, telling := range slices.Sorted(maps.Keys(tellings)) {
			add(telling+"; "+place, strings.ReplaceAll(where[place], "E", tellings[telling]), contact+"/c")
		}
	}
	if ciphertext == nil {
		for _, name := range slices.Sorted(maps.Keys(wholes)) {
			add(name, wholes[name], "")
		}
		for _, name := range slices.Sorted(maps.Keys(answersOf)) {
			add("answer: "+name, answersOf[name], "")
		}
	}
	return all
}

// forged sends forgeries to alice and returns what reached her client, by forgery.
func (c *stage) forged(all []forgery) [][]*stanza.Stanza {
	c.t.Helper()
	seen(c.alice) // what it has asked is known to the proxy
	out := make([][]*stanza.Stanza, len(all))
	const some = 100
	for from := 0; from < len(all); from += some {
		var raw strings.Builder
		part := all[from:min(len(all), from+some)]
		for _, f := range part {
			raw.WriteString(f.raw + "<message from='example.org' id='one-more'/>")
		}
		i := from
		for _, st := range fromServer(c.t, c.s, c.alice, raw.String()) {
			if st.Root().Attr("id") == "one-more" {
				i++
			} else if i < len(all) {
				out[i] = append(out[i], st)
			}
		}
		if i != from+len(part) {
			c.t.Fatalf("%d of %d forgeries were handled", i-from, len(part))
		}
	}
	return out
}

// asks sends a request of alice's that the server does not answer, and returns its id.
func (c *stage) asks() func(to string) string {
	n := 0
	return func(to string) string {
		n++
		id := fmt.Sprint(server.NoAnswer, n)
		if to == "" {
			c.alice.Send("<iq type='set' id='" + id + "'><query xmlns='urn:unanswered'/></iq>")
			return id
		}
		c.alice.Send("<iq type='get' id='" + id + "' to='" + to + "'><query xmlns='jabber:iq:version'/></iq>")
		return id
	}
}

const ourMark = "[otrproxy] Not encrypted: "

// unread are attributes that no program shows: names of things that programs give them.
var unread = strings.Fields("id from to type by stamp node ver hash sid rid jid queryid thread var algo uri publisher since namespace xmlns code affiliation role media with start password")

// slips finds a word where a person could take it for a contact's, or for the proxy's: in
// any text or attribute that programs show, without the mark before it.
func slips(st *stanza.Stanza, word string) (where string) {
	look := func(el stanza.Element) bool {
		for name := range el.AttrNames() {
			if v := el.Attr(name); strings.Contains(v, word) && !slices.Contains(unread, name) && !strings.HasPrefix(v, ourMark) {
				where = name + "='" + v + "'"
			}
		}
		if text := el.Text(); strings.Contains(text, word) && !strings.HasPrefix(text, ourMark) && string(el.Local()) != "password" {
			where = string(el.Raw())
		}
		if strings.Contains(string(el.Name()), word) {
			where = string(el.Raw())
		}
		return where != ""
	}
	if look(st.Root()) {
		return where
	}
	for d := range st.Root().Descendants() {
		if look(d) {
			return where
		}
	}
	return ""
}

// aboutThings reports whether a forgery that got through says something about a thing, not
// in anybody's voice: what a program or the person's own list calls something. Even there
// nothing may imitate the proxy.
func aboutThings(st *stanza.Stanza, word string) bool {
	return st.Is(stanza.NSClient, "iq") && quoted(st, word)
}

// quoted reports whether a word does not stand in the proxy's voice.
func quoted(st *stanza.Stanza, word string) bool {
	raw := string(st.Raw)
	return strings.Count(raw, "[otrproxy] "+word) == strings.Count(raw, "&gt; [otrproxy] "+word)
}

// toldToAll reports whether a forgery is what people tell everybody about themselves, in a
// place for that, which allow: [status] lets pass.
func toldToAll(name string) bool {
	telling, place, _ := strings.Cut(name, "; ")
	switch place {
	case "presence":
		return slices.Contains([]string{"status", "voice, status", "nick", "voice, nick"}, telling)
	case "broadcast":
		return strings.HasPrefix(telling, "event, ")
	case "wish":
		return telling == "nick" || telling == "voice, nick"
	}
	return false
}

// forgerRules are rules under which a contact's words are expected to be encrypted, in any
// state.
var forgerRules = map[string]string{
	"strict":           strictRule,
	"require-verified": "otr: [{policy: require-verified, allow: []}]\n",
	"drop":             "otr: [{policy: require, clear: drop, allow: [omemo, openpgp]}]\n",
	"built-in":         "",
}

// TestForger puts a word of the server's into every place there is, in every state of the
// conversation; none may be shown as a contact's without the mark, nor as the proxy's.
func TestForger(t *testing.T) {
	var mu sync.Mutex
	var reached []string // what got to the client with a word of the server's in it
	var of []forgery
	read := map[string]bool{} // without the word, for one of a kind is enough
	var tried, marked, slipped atomic.Int32
	judge := func(t *testing.T, rules string, all []forgery, got [][]*stanza.Stanza) {
		for i, f := range all {
			tried.Add(1)
			for _, st := range got[i] {
				if !strings.Contains(string(st.Raw), f.word) {
					continue
				}
				if rules == "" && toldToAll(f.name) { // the built-in rule lets it pass
					if !quoted(st, f.word) {
						slipped.Add(1)
						t.Errorf("%s: in the proxy's voice: %s", f.name, st.Raw)
					}
					continue
				}
				mu.Lock()
				if kind := strings.ReplaceAll(string(st.Raw), f.word, ""); !read[kind] {
					read[kind] = true
					reached, of = append(reached, string(st.Raw)), append(of, f)
				}
				mu.Unlock()
				if where := slips(st, f.word); where == "" {
					marked.Add(1)
				} else if !aboutThings(st, f.word) {
					slipped.Add(1)
					t.Errorf("%s: %s\n\tin %s", f.name, where, st.Raw)
				}
			}
		}
	}
	states := 0
	run := func(t *testing.T, name, rules string, prepare func(*stage)) {
		states++
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := onStage(t, rules, prepare)
			c.opensArchive()
			all := forgeries(c.contact, c.asks(), nil)
			judge(t, rules, all, c.forged(all))
		})
	}
	t.Run("states", func(t *testing.T) {
		for state, prepare := range canaryStates {
			run(t, state, strictRule, prepare)
		}
		for rule, rules := range forgerRules {
			run(t, "a stranger, "+rule, rules, func(c *stage) { c.contact = "mallory@evil.example" })
			run(t, "a contact, "+rule, rules, func(c *stage) { c.contact = "carol@" + domain })
		}
		for _, policy := range []string{"opportunistic", "manual"} {
			run(t, "private, "+policy, "otr: [{policy: "+policy+", allow: [omemo]}]\n", (*stage).privately)
		}
		run(t, "a room that is none", strictRule, func(c *stage) {
			c.talk()
			c.alice.Send("<presence to='bob@example.org/alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
			seen(c.alice)
			fromServer(c.t, c.s, c.alice, "<presence from='bob@example.org/alice'><x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='none' role='participant'/><status code='110'/></x></presence>")
		})
		for name, rules := range map[string]string{"strict": strictRule, "built-in": ""} {
			states++
			t.Run("beside ciphertext, "+name, func(t *testing.T) {
				t.Parallel()
				p := posted(t, rules)
				p.opensArchive()
				n := 0
				all := forgeries(p.contact, p.asks(), func() string { n++; return p.writes(fmt.Sprint("genuine ", n)) })
				got := p.forged(all)
				judge(t, rules, all, got)
				for i, sts := range got {
					if telling, _, _ := strings.Cut(all[i].name, ";"); !takesOver(telling) && !strings.Contains(string(raws(sts)), "genuine ") {
						t.Errorf("%s: bob's own words are not shown: %s, of %d: %s", all[i].name, raws(sts), i, all[i].raw)
					}
				}
			})
		}
	})
	believed := 0
	for r, shown := range readByAll(t, reached) {
		n := 0
		for i, list := range shown {
			for _, s := range list {
				if !believes(s, of[i].word) {
					continue
				}
				n++
				t.Errorf("%s, %s: %s shows, as %s of %s: %q\n\tin %s", r.Name, of[i].name, r.Name, s.As, s.From, s.Text, reached[i])
			}
		}
		believed += n
		t.Logf("forger: %s read %d stanzas, words believed %d", r.Name, len(reached), n)
	}
	t.Logf("forger: %d shapes x %d states, %d tried, %d came with the mark, slipped %d; words believed %d",
		len(places)*len(tellings)+len(wholes)+len(answersOf)+len(besideCiphertext)*len(tellings), states, tried.Load(), marked.Load(), slipped.Load(), believed)
	if len(tellings) < 100 || len(places) < 30 || states < 25 || marked.Load() < 1000 {
		t.Errorf("only %d tellings in %d places and %d states, %d marked", len(tellings), len(places), states, marked.Load())
	}
}

// readByAll is what each client shows of stanzas.
func readByAll(t *testing.T, stanzas []string) iter.Seq2[*readers.Reader, [][]readers.Shown] {
	return func(yield func(*readers.Reader, [][]readers.Shown) bool) {
		for _, r := range readers.All(t) {
			shown, _, err := r.Read(stanzas, "")
			if err != nil {
				t.Fatalf("%s: %v", r.Name, err)
			}
			if !yield(r, shown) {
				return
			}
		}
	}
}

// takesOver reports whether a telling is taken for the text itself, or makes a message a
// copy that nobody asked for: a server can keep a message back, whatever we do.
func takesOver(telling string) bool {
	raw := tellings[telling]
	for _, begins := range []string{"<body>", "<body xml:lang", "<p:body xmlns:p='jabber:client'", "<received xmlns='urn:xmpp:carbons:2'", "<result xmlns='urn:xmpp:mam", "<body xmlns='urn:xmpp:carbons:2'"} {
		if strings.HasPrefix(raw, begins) {
			return true
		}
	}
	return strings.Contains(raw, "/><body>")
}

// believes reports whether a person at a client takes a word for a contact's or the
// proxy's.
func believes(s readers.Shown, word string) bool {
	i := strings.Index(s.Text, word)
	if i < 0 || s.As == "own" {
		return false
	}
	before := s.Text[:i]
	if strings.Contains(before, ourMark) {
		return false
	}
	if s.As == "name" || s.As == "info" { // what a thing is called, which the person asked for
		return strings.HasSuffix(before, "[otrproxy] ") && !strings.HasSuffix(before, "> [otrproxy] ")
	}
	return true
}

// opensArchive has alice ask her archive.
func (c *stage) opensArchive() {
	c.t.Helper()
	opensArchive(c.t, c.alice)
}

// privately has the two begin a private conversation, whatever the policy.
func (c *stage) privately() {
	c.away = startProxy(c.t, c.s, "")
	c.bobComes()
	c.alice.Say(c.contact, "", "!otr start")
	c.noticed("Private conversation with")
	if _, err := c.bob.Notice("Private conversation with"); err != nil {
		c.t.Fatal(err)
	}
}

// The same harness under never shows every word, so it is known to look; and every client
// believes some.
func TestForgerControl(t *testing.T) {
	c := onStage(t, "otr: [{policy: never}]\n", func(*stage) {})
	all := forgeries(c.contact, c.asks(), nil)
	got := c.forged(all)
	var reached []string
	var of []forgery
	for i, f := range all {
		if strings.Contains(f.raw, "otrproxy.localhost") || strings.Contains(f.raw, "OTRPROXY.localhost") || f.name == "us with a hyphen" || f.name == "us, wide" {
			continue // the service contact's address is nobody else's, whatever the policy
		}
		if whole := string(raws(got[i])); strings.ReplaceAll(whole, "\n", "") != strings.ReplaceAll(f.raw, "\n", "") {
			t.Errorf("%s: came as %s", f.name, whole)
		}
		for _, st := range got[i] {
			reached, of = append(reached, string(st.Raw)), append(of, f)
		}
	}
	for r, shown := range readByAll(t, reached) {
		n := 0
		for i, list := range shown {
			if slices.ContainsFunc(list, func(s readers.Shown) bool { return believes(s, of[i].word) }) {
				n++
			}
		}
		t.Logf("forger control: %s believes %d of %d", r.Name, n, len(reached))
		if n < 50 {
			t.Errorf("%s believes only %d of %d", r.Name, n, len(reached))
		}
	}
}

// The forger in stanzas nobody has thought of.
func TestForgerProperty(t *testing.T) {
	seed := rand.Uint64()
	if n, err := strconv.ParseUint(os.Getenv("FORGER_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("seed %d", seed)
	var total, slipped atomic.Int32
	t.Run("states", func(t *testing.T) {
		for _, state := range []string{"never talked", "query sent", "encrypted", "finished", "key changed"} {
			t.Run(state, func(t *testing.T) {
				t.Parallel()
				c := onStage(t, strictRule, canaryStates[state])
				c.opensArchive()
				g := &grammar{Rand: rand.New(rand.NewPCG(seed, uint64(len(state)))), to: c.contact}
				var all []forgery
				for range 600 {
					all = append(all, g.forgery())
				}
				for i, sts := range c.forged(all) {
					for _, st := range sts {
						if where := slips(st, all[i].word); where != "" && !aboutThings(st, all[i].word) {
							slipped.Add(1)
							t.Errorf("seed %d, %s: %s\n\tin %s", seed, all[i].raw, where, st.Raw)
						}
					}
				}
				total.Add(int32(len(all)))
			})
		}
	})
	t.Logf("forger property: %d stanzas at random, %d slipped", total.Load(), slipped.Load())
}

// forgery is a stanza at random that a server sends in the contact's name.
func (g *grammar) forgery() forgery {
	raw := g.stanza()
	word := g.words[len(g.words)-1]
	kind, rest, _ := strings.Cut(raw, " to='")
	_, rest, _ = strings.Cut(rest, "'")
	from := g.one(g.to, g.to+"/r", g.to+"/c")
	if kind == "<iq" {
		rest = strings.Replace(rest, " type='result'", " type='set'", 1)
	}
	raw = kind + " from='" + from + "'" + rest
	if kind == "<message" && g.IntN(3) == 0 {
		inner := strings.Replace(raw, "<message", "<message xmlns='jabber:client'", 1)
		raw = g.one(
			"<message from='alice@example.org'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>"+inner+"</forwarded></received></message>",
			"<message from='alice@example.org'><result xmlns='urn:xmpp:mam:2' queryid='q' id='1'><forwarded xmlns='urn:xmpp:forward:0'>"+inner+"</forwarded></result></message>",
			"<message from='alice@example.org'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>"+inner+inner+"</forwarded></received></message>")
	}
	return forgery{"at random", word, raw}
}
