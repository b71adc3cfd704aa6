package proxy_test

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// The canary in requests to the own server and to services, in presence to one contact, and
// dressed as ciphertext. W is the word, TO the contact; b64{...} is the base64 of what is in
// it.

// request is a request to the own server.
func request(typ, x string) string { return "<iq type='" + typ + "' id='i'>" + x + "</iq>" }

// publishes is a payload that is published.
func publishes(typ, payload string) string {
	return request(typ, "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='n'><item id='1'>"+payload+"</item></publish></pubsub>")
}

const submits = "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>FT</value></field><field var='FV'><value>W</value></field></x>"

func fills(form, field string) string {
	return strings.NewReplacer("FT", form, "FV", field).Replace(submits)
}

// hidden are requests and presence in which a word never leaves, under any rule that demands
// encryption without services.
var hidden = map[string]string{
	"XEP-0241 save":        request("set", "<save xmlns='urn:xmpp:archive:2'><chat with='TO'><from><body>W</body></from></chat></save>"),
	"XEP-0136 save":        request("set", "<save xmlns='urn:xmpp:archive'><chat with='TO' start='2026-01-01T00:00:00Z' subject='W'><to secs='0'><body>W</body></to><note>W</note></chat></save>"),
	"XEP-0136 old":         request("set", "<save xmlns='http://www.xmpp.org/extensions/xep-0136.html#ns'><chat><to><body>W</body></to></chat></save>"),
	"XEP-0136 preference":  request("set", "<pref xmlns='urn:xmpp:archive'><item jid='TO' save='W'>W</item></pref>"),
	"report, text":         request("set", "<block xmlns='urn:xmpp:blocking'><item jid='TO'><report xmlns='urn:xmpp:reporting:1' reason='urn:xmpp:reporting:spam'><text xml:lang='en'>W</text></report></item></block>"),
	"report, forwarded":    request("set", "<block xmlns='urn:xmpp:blocking'><item jid='TO'><report xmlns='urn:xmpp:reporting:1' reason='urn:xmpp:reporting:spam'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'><body>W</body></message></forwarded></report></item></block>"),
	"report, reason":       request("set", "<block xmlns='urn:xmpp:blocking'><item jid='TO'><report xmlns='urn:xmpp:reporting:1' reason='W'/></item></block>"),
	"report, old":          request("set", "<block xmlns='urn:xmpp:blocking'><item jid='TO'><report xmlns='urn:xmpp:reporting:0'><text>W</text><spam/></report></item></block>"),
	"report alone":         request("set", "<report xmlns='urn:xmpp:reporting:1'><text>W</text></report>"),
	"abuse report":         request("set", "<x xmlns='urn:xmpp:spam-report:0'><message>W</message></x>"),
	"translation":          request("get", "<x xmlns='urn:xmpp:langtrans:1'><source xml:lang='en'>W</source><translation destination_lang='de'/></x>"),
	"translation, old":     request("get", "<x xmlns='http://jabber.org/protocol/langtrans'><source>W</source></x>"),
	"reminder":             request("set", "<reminder xmlns='urn:xmpp:reminders:0'><text>W</text><date>2026-06-04T12:00:00Z</date></reminder>"),
	"reminder with markup": request("set", "<reminder xmlns='urn:xmpp:reminders:0' id='W'><date>W</date></reminder>"),
	"publish in a get":     publishes("get", "<mood xmlns='http://jabber.org/protocol/mood'><text>W</text></mood>"),
	"publish in a result":  publishes("result", "<mood xmlns='http://jabber.org/protocol/mood'><text>W</text></mood>"),
	"publish in an error":  publishes("error", "<mood xmlns='http://jabber.org/protocol/mood'><text>W</text></mood>"),
	"publish unknown":      publishes("set", "<x xmlns='urn:mine:0'>W</x>"),
	"publish bare text":    publishes("set", "W"),
	"publish in client":    publishes("set", "<body xmlns='jabber:client'>W</body>"),
	"publish an attribute": publishes("set", "<x xmlns='urn:mine:0' a='W'/>"),
	"publish an element":   publishes("set", "<W xmlns='urn:mine:0'/>"),
	"publish a namespace":  publishes("set", "<x xmlns='urn:W'/>"),
	"publish a form":       publishes("set", fills("x", "y")),
	"publish beside":       request("set", "<pubsub xmlns='http://jabber.org/protocol/pubsub'>W<publish node='n'>W</publish><x xmlns='urn:mine:0'>W</x></pubsub>"),
	"publish options":      request("set", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='n'/><publish-options>"+fills("http://jabber.org/protocol/pubsub#publish-options", "pubsub#access_model")+"</publish-options></pubsub>"),
	"node, own field":      request("set", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><create node='n'/><configure>"+fills("http://jabber.org/protocol/pubsub#node_config", "my#note")+"</configure></pubsub>"),
	"node, model":          request("set", "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><configure node='n'>"+fills("http://jabber.org/protocol/pubsub#node_config", "pubsub#publish_model")+"</configure></pubsub>"),
	"items, text":          request("get", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='n'><item id='1'>W</item>W</items></pubsub>"),
	"items, number":        request("get", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='n' max_items='W'/></pubsub>"),
	"retract, payload":     request("set", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><retract node='n'><item id='1'><x xmlns='urn:x:y'>W</x></item></retract></pubsub>"),
	"keys, in words":       publishes("set", "<bundle xmlns='eu.siacs.conversations.axolotl'><identityKey>W</identityKey></bundle>"),
	"keys, in base64":      publishes("set", "<bundle xmlns='eu.siacs.conversations.axolotl'><identityKey>b64{W}</identityKey></bundle>"),
	"keys, as one":         publishes("set", "<bundle xmlns='eu.siacs.conversations.axolotl'><identityKey>b64{\x05WWWWWW}</identityKey></bundle>"),
	"keys, OMEMO 2":        publishes("set", "<bundle xmlns='urn:xmpp:omemo:2'><ik>b64{W}</ik></bundle>"),
	"keys, a child":        publishes("set", "<list xmlns='eu.siacs.conversations.axolotl'><device id='1'>W</device><note>W</note></list>"),
	"keys, a device":       publishes("set", "<list xmlns='eu.siacs.conversations.axolotl'><device id='W'/></list>"),
	"keys, OpenPGP":        publishes("set", "<pubkey xmlns='urn:xmpp:openpgp:0'><data>b64{W}</data></pubkey>"),
	"keys, OpenPGP packet": publishes("set", "<pubkey xmlns='urn:xmpp:openpgp:0'><data>b64{\xcd\x20W}</data></pubkey>"),
	"keys, verification":   publishes("set", "<verification xmlns='eu.siacs.conversations.axolotl'><chain><certificate>b64{W}</certificate></chain></verification>"),
	"notes":                request("set", "<query xmlns='jabber:iq:private'><storage xmlns='storage:rosternotes'><note jid='TO'>W</note></storage></query>"),
	"private, unknown":     request("set", "<query xmlns='jabber:iq:private'><scr xmlns='scr:prefs'><a>W</a></scr></query>"),
	"private, attribute":   request("set", "<query xmlns='jabber:iq:private'><scr xmlns='scr:prefs' a='W'/></query>"),
	"private, bookmark":    request("set", "<query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'><note>W</note></storage></query>"),
	"private, get":         request("get", "<query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'>W</storage></query>"),
	"private, get name":    request("get", "<query xmlns='jabber:iq:private'><W xmlns='W'/></query>"),
	"search, withtext":     request("set", "<query xmlns='urn:xmpp:mam:2'>"+fills("urn:xmpp:mam:2", "withtext")+"</query>"),
	"search, fulltext":     request("set", "<query xmlns='urn:xmpp:mam:2'>"+fills("urn:xmpp:mam:2", "{urn:xmpp:fulltext:0}fulltext")+"</query>"),
	"search, mam:1":        request("set", "<query xmlns='urn:xmpp:mam:1'>"+fills("urn:xmpp:mam:1", "search")+"</query>"),
	"search, mam:0":        request("get", "<query xmlns='urn:xmpp:mam:0'><search>W</search></query>"),
	"search, mam:tmp":      request("get", "<query xmlns='urn:xmpp:mam:tmp'><text>W</text></query>"),
	"archive, start":       request("set", "<query xmlns='urn:xmpp:mam:2'>"+fills("urn:xmpp:mam:2", "start")+"</query>"),
	"archive, text":        request("set", "<query xmlns='urn:xmpp:mam:2'>W<flip-page>W</flip-page></query>"),
	"archive, maximum":     request("set", "<query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>W</max></set></query>"),
	"archive, preferences": request("set", "<prefs xmlns='urn:xmpp:mam:2' default='W'><always>W</always></prefs>"),
	"inbox search":         request("set", "<inbox xmlns='urn:xmpp:inbox:1' text='W'><search>W</search></inbox>"),
	"RPC":                  request("set", "<query xmlns='jabber:iq:rpc'><methodCall><methodName>say</methodName><params><param><value><string>W</string></value></param></params></methodCall></query>"),
	"web request":          request("set", "<req xmlns='urn:xmpp:http' method='POST' resource='/' version='1.1'><data><text>W</text></data></req>"),
	"SOAP":                 request("set", "<Envelope xmlns='http://www.w3.org/2003/05/soap-envelope'><Body>W</Body></Envelope>"),
	"Google's status":      request("set", "<query xmlns='google:shared-status' version='2'><status>W</status></query>"),
	"Google's mail":        request("get", "<query xmlns='google:mail:notify' q='W'/>"),
	"registration, text":   request("set", "<query xmlns='jabber:iq:register'><username>x</username><text>W</text></query>"),
	"registration, misc":   request("set", "<query xmlns='jabber:iq:register'><misc>W</misc></query>"),
	"registration, beside": request("set", "<query xmlns='jabber:iq:register'>W<instructions>W</instructions></query>"),
	"roster, text":         request("set", "<query xmlns='jabber:iq:roster'>W<item jid='TO'>W</item></query>"),
	"roster, attribute":    request("set", "<query xmlns='jabber:iq:roster' W='W'><item jid='TO' note='W'/></query>"),
	"roster, note":         request("set", "<query xmlns='jabber:iq:roster'><item jid='TO'><note xmlns='urn:x:y'>W</note></item></query>"),
	"roster, subscription": request("set", "<query xmlns='jabber:iq:roster'><item jid='TO' subscription='W'/></query>"),
	"command, note":        request("set", "<command xmlns='http://jabber.org/protocol/commands' node='x'><note type='info'>W</note></command>"),
	"command, action":      request("set", "<command xmlns='http://jabber.org/protocol/commands' node='x' action='W'/>"),
	"command, payload":     request("set", "<command xmlns='http://jabber.org/protocol/commands' node='x'><x xmlns='urn:x:y'>W</x></command>"),
	"privacy, text":        request("set", "<query xmlns='jabber:iq:privacy'><list name='x'>W<item action='deny' order='1'>W</item></list></query>"),
	"bind, text":           request("set", "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'>W</session>"),
	"carbons":              request("set", "<enable xmlns='urn:xmpp:carbons:2'>W</enable>"),
	"push, field":          request("set", "<enable xmlns='urn:xmpp:push:0' jid='push.example'>"+fills("http://jabber.org/protocol/pubsub#publish-options", "note")+"</enable>"),
	"disco, text":          request("get", "<query xmlns='http://jabber.org/protocol/disco#info'>W</query>"),
	"disco, child":         request("get", "<query xmlns='http://jabber.org/protocol/disco#items'><item jid='x' name='W'/></query>"),
	"ping, text":           request("get", "<ping xmlns='urn:xmpp:ping'>W</ping>"),
	"ping, attribute":      request("get", "<ping xmlns='urn:xmpp:ping' W='1' note='W'/>"),
	"ping, comment":        request("get", "<ping xmlns='urn:xmpp:ping'><![CDATA[W]]></ping>"),
	"version":              request("get", "<query xmlns='jabber:iq:version'><name>W</name></query>"),
	"last words":           request("set", "<query xmlns='jabber:iq:last' seconds='1'>W</query>"),
	"invisible":            request("set", "<invisible xmlns='urn:xmpp:invisible:0'>W</invisible>"),
	"extdisco":             request("get", "<services xmlns='urn:xmpp:extdisco:2' type='W W'/>"),
	"forwarded":            request("set", "<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'><body>W</body></message></forwarded>"),
	"a message":            request("set", "<message><body>W</body></message>"),
	"a body":               request("set", "<body>W</body>"),
	"text":                 request("set", "W"),
	"text beside":          request("get", "W<ping xmlns='urn:xmpp:ping'/>W"),
	"type":                 request("W", "<ping xmlns='urn:xmpp:ping'/>"),
	"attribute":            "<iq type='get' id='i' W='W'><ping xmlns='urn:xmpp:ping'/></iq>",
	"id in words":          "<iq type='get' id='W and W'><ping xmlns='urn:xmpp:ping'/></iq>",
	"language":             "<iq type='get' id='i' xml:lang='W'><ping xmlns='urn:xmpp:ping'/></iq>",
	"from":                 "<iq type='get' id='i' from='W@example.org'><ping xmlns='urn:xmpp:ping'/></iq>",
	"from a resource":      "<iq type='get' id='i' from='alice@example.org/W and W'><ping xmlns='urn:xmpp:ping'/></iq>",
	"prefix":               "<iq type='get' id='i' xmlns:W='urn:xmpp:ping'><W:ping/></iq>",
	"prefix, unused":       "<iq type='get' id='i'><ping xmlns='urn:xmpp:ping' xmlns:W='urn:x:y'/></iq>",
	"namespace, unused":    "<iq type='get' id='i'><ping xmlns='urn:xmpp:ping' xmlns:a='urn:W'/></iq>",
	"unknown, text":        request("get", "<query xmlns='urn:xmpp:future:0'>W</query>"),
	"unknown, deep":        request("get", "<query xmlns='urn:xmpp:future:0'><a><b><c>W</c></b></a></query>"),
	"unknown, attribute":   request("set", "<query xmlns='urn:xmpp:future:0' a='W'/>"),
	"unknown, its name":    request("set", "<query xmlns='urn:xmpp:future:0' W='1'/>"),
	"unknown, element":     request("set", "<W xmlns='urn:xmpp:future:0'/>"),
	"unknown, namespace":   request("set", "<query xmlns='urn:xmpp:W:0'/>"),
	"unknown, base64":      request("set", "<query xmlns='urn:xmpp:future:0'>b64{W}</query>"),
	"unknown, address":     request("set", "<query xmlns='urn:xmpp:future:0' jid='W@example.org'>W@example.org</query>"),
	"unknown, address URI": request("set", "<query xmlns='urn:xmpp:future:0' u='https://W/'>https://W/</query>"),
	"unknown, a form":      request("set", "<query xmlns='urn:xmpp:future:0'>"+fills("x", "y")+"</query>"),
	"unknown, to itself":   "<iq to='alice@example.org' type='set' id='i'><query xmlns='urn:xmpp:future:0'>W</query></iq>",
	"unknown, service":     "<iq to='translate.example.org' type='set' id='i'><query xmlns='urn:xmpp:future:0'>W</query></iq>",
	"save, service":        "<iq to='archive.example.org' type='set' id='i'><save xmlns='urn:xmpp:archive:2'><chat><to><body>W</body></to></chat></save></iq>",
	"answer, unknown":      "<iq to='example.org' type='result' id='i'><query xmlns='urn:x:y'>W</query></iq>",
	"answer, text":         "<iq to='example.org' type='result' id='i'>W</iq>",
	"answer, version":      "<iq to='example.org' type='result' id='i'><query xmlns='jabber:iq:version'><name>let us meet at W</name></query></iq>",
	"answer, disco":        "<iq to='example.org' type='result' id='i'><query xmlns='http://jabber.org/protocol/disco#info'><identity category='client' type='pc' name='let us meet at W'/></query></iq>",
	"answer, item":         "<iq to='example.org' type='result' id='i'><query xmlns='http://jabber.org/protocol/disco#items'><item jid='a@b' name='W is where we meet!'/></query></iq>",
	"answer, form":         "<iq to='example.org' type='result' id='i'><query xmlns='http://jabber.org/protocol/disco#info'><x xmlns='jabber:x:data' type='result'><field var='os'><value>let us meet at W</value></field></x></query></iq>",
	"answer, time":         "<iq to='example.org' type='result' id='i'><time xmlns='urn:xmpp:time'><utc>W</utc><tzo>W</tzo></time></iq>",
	"answer, time, old":    "<iq to='example.org' type='result' id='i'><query xmlns='jabber:iq:time'><utc>W</utc></query></iq>",
	"answer, last":         "<iq to='example.org' type='result' id='i'><query xmlns='jabber:iq:last' seconds='W'>W</query></iq>",
	"failed":               "<iq to='example.org' type='error' id='i'><query xmlns='urn:x:y'>W</query><error type='cancel' by='W'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>W</gone><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>W</text><W xmlns='urn:x:y'/></error></iq>",
	"contact, version":     "<iq to='TO/r' type='result' id='i'><query xmlns='jabber:iq:version'><os>W, let us meet at noon</os></query></iq>",

	"presence, subscribe":      "<presence to='TO' type='subscribe'><status>W</status><nick xmlns='http://jabber.org/protocol/nick'>W</nick></presence>",
	"presence, subscribed":     "<presence to='TO' type='subscribed'><status>W</status></presence>",
	"presence, unsubscribe":    "<presence to='TO' type='unsubscribe'><status xml:lang='en'>W</status></presence>",
	"presence, unsubscribed":   "<presence to='TO' type='unsubscribed'><status>W</status></presence>",
	"presence, probe":          "<presence to='TO' type='probe'><status>W</status></presence>",
	"presence, broadcast wish": "<presence type='subscribe'><status>W</status></presence>",
	"presence, directed":       "<presence to='TO'><status>W</status></presence>",
	"presence, full JID":       "<presence to='TO/r'><status>W</status></presence>",
	"presence, leaving":        "<presence to='TO/r' type='unavailable'><status>W</status></presence>",
	"presence, last":           "<presence to='TO' type='unavailable'><query xmlns='jabber:iq:last' seconds='1'>W</query></presence>",
	"presence, join":           "<presence to='room@conf.example/n'><x xmlns='http://jabber.org/protocol/muc'>W</x><status>W</status></presence>",
	"presence, long password":  "<presence to='room@conf.example/n'><x xmlns='http://jabber.org/protocol/muc'><password>W W W W W W W</password></x></presence>",
	"presence, history":        "<presence to='room@conf.example/n'><x xmlns='http://jabber.org/protocol/muc'><history since='W' maxstanzas='W'/></x></presence>",
	"presence, signed":         "<presence to='TO'><x xmlns='jabber:x:signed'>W</x></presence>",
	"presence, signed b64":     "<presence to='TO'><x xmlns='jabber:x:signed'>b64{W}</x></presence>",
	"presence, signed all":     "<presence><x xmlns='jabber:x:signed'>b64{\xcb\x20b\x00\x00\x00\x00\x00W}</x></presence>",
	"presence, caps":           "<presence to='TO'><c xmlns='http://jabber.org/protocol/caps' node='http://x.example' ver='W'/></presence>",
	"presence, caps hash":      "<presence to='TO'><c xmlns='http://jabber.org/protocol/caps' node='http://x.example' ver='b64{W}' hash='sha-1'/></presence>",
	"presence, caps ext":       "<presence to='TO'><c xmlns='http://jabber.org/protocol/caps' node='http://x.example' ver='1.0' ext='W W'/></presence>",
	"presence, caps node":      "<presence to='TO'><c xmlns='http://jabber.org/protocol/caps' node='W' ver='1.0'/></presence>",
	"presence, new caps":       "<presence to='TO'><c xmlns='urn:xmpp:caps'><hash xmlns='urn:xmpp:hashes:2' algo='sha-256'>b64{W}</hash></c></presence>",
	"presence, idle":           "<presence to='TO'><idle xmlns='urn:xmpp:idle:1' since='W'/></presence>",
	"presence, photo":          "<presence to='TO'><x xmlns='vcard-temp:x:update'><photo>W</photo><nickname>W</nickname></x></presence>",
	"presence, id":             "<presence to='TO' id='W and W'/>",
	"presence, type":           "<presence to='TO' type='W'/>",
	"presence, prefix":         "<presence to='TO' xmlns:W='urn:x:y'><show>away</show></presence>",
	"presence, namespace":      "<presence to='TO' xmlns:a='urn:W'><show>away</show></presence>",
	"presence, from":           "<presence to='TO' from='W@example.org'/>",
	"presence, failed":         "<presence to='TO' type='error'><status>W</status><error type='W'><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>W</text></error></presence>",
}

// toldAll are words that people tell everybody, and labels of theirs: they leave where the
// rule has status, and stay where it has not.
var toldAll = map[string]string{
	"status":          "<presence><status>W</status></presence>",
	"leaving":         "<presence type='unavailable'><status>W</status></presence><presence/>",
	"nick":            "<presence><nick xmlns='http://jabber.org/protocol/nick'>W</nick></presence>",
	"vCard":           request("set", "<vCard xmlns='vcard-temp'><FN>W</FN></vCard>"),
	"vCard 4":         request("set", "<vcard xmlns='urn:ietf:params:xml:ns:vcard-4.0'><fn><text>W</text></fn></vcard>"),
	"mood":            publishes("set", "<mood xmlns='http://jabber.org/protocol/mood'><text>W</text></mood>"),
	"activity":        publishes("set", "<activity xmlns='http://jabber.org/protocol/activity'><text>W</text></activity>"),
	"tune":            publishes("set", "<tune xmlns='http://jabber.org/protocol/tune'><title>W</title></tune>"),
	"place":           publishes("set", "<geoloc xmlns='http://jabber.org/protocol/geoloc'><text>W</text></geoloc>"),
	"published nick":  publishes("set", "<nick xmlns='http://jabber.org/protocol/nick'>W</nick>"),
	"post":            publishes("set", "<entry xmlns='http://www.w3.org/2005/Atom'><title>W</title></entry>"),
	"bookmark":        publishes("set", "<conference xmlns='urn:xmpp:bookmarks:1' name='W'><nick>W</nick></conference>"),
	"older bookmark":  request("set", "<query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'><conference jid='r@c.example' name='W'/></storage></query>"),
	"metacontacts":    request("set", "<query xmlns='jabber:iq:private'><storage xmlns='storage:metacontacts'><meta jid='TO' tag='W' order='1'/></storage></query>"),
	"a device's name": publishes("set", "<devices xmlns='urn:xmpp:omemo:2'><device id='1' label='W'/></devices>"),
	"a node's title":  request("set", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><create node='n'/><configure>"+fills("http://jabber.org/protocol/pubsub#node_config", "pubsub#title")+"</configure></pubsub>"),
}

// byDesign are words that leave under every rule, each for its reason. TestCanaryByDesign
// sees to it that they do, so that the list stays true; the places one by one are in
// TestPlacesForWordsAreKnown.
var byDesign = map[string]struct{ shape, reason string }{
	"roster name":     {request("set", "<query xmlns='jabber:iq:roster'><item jid='TO' name='W'/></query>"), "a label on the list of contacts, which the server keeps"},
	"roster group":    {request("set", "<query xmlns='jabber:iq:roster'><item jid='TO'><group>W</group></item></query>"), "the same"},
	"privacy list":    {request("set", "<query xmlns='jabber:iq:privacy'><list name='W'><item action='deny' order='1'/></list></query>"), "a label of what the server keeps"},
	"registration":    {request("set", "<query xmlns='jabber:iq:register'><username>W</username><password>W</password></query>"), "an account with the server"},
	"new password":    {request("set", "<query xmlns='jabber:iq:register'>"+fills("jabber:iq:register", "password")+"</query>"), "the same"},
	"user search":     {request("set", "<query xmlns='jabber:iq:search'><last>W</last></query>"), "a question to the service"},
	"channel search":  {"<iq to='search.example.org' type='get' id='i'><search xmlns='https://xmlns.zombofant.net/muclumbus/search/1.0'>" + fills("https://xmlns.zombofant.net/muclumbus/search/1.0#params", "q") + "</search></iq>", "the same"},
	"gateway":         {request("set", "<query xmlns='jabber:iq:gateway'><prompt>W</prompt></query>"), "somebody's address in another network"},
	"command":         {request("set", "<command xmlns='http://jabber.org/protocol/commands' node='x'>"+fills("x", "v")+"</command>"), "a form of the service's"},
	"captcha":         {request("set", "<captcha xmlns='urn:xmpp:captcha'>"+fills("urn:xmpp:captcha", "ocr")+"</captcha>"), "the same"},
	"channel's nick":  {request("set", "<client-join xmlns='urn:xmpp:mix:pam:2' channel='c@mix.example'><join xmlns='urn:xmpp:mix:core:1'><nick>W</nick></join></client-join>"), "a name in a channel"},
	"room's password": {"<presence to='room@conf.example/n'><x xmlns='http://jabber.org/protocol/muc'><password>W</password></x></presence>", "what the room asks for"},
	"room's nick":     {"<presence to='room@conf.example/W'><x xmlns='http://jabber.org/protocol/muc'/></presence>", "an address"},
	"address":         {"<iq to='W.example.org' type='get' id='i'><ping xmlns='urn:xmpp:ping'/></iq>", "an address"},
	"blocked":         {request("set", "<block xmlns='urn:xmpp:blocking'><item jid='W@example.org'/></block>"), "an address"},
	"archive with":    {request("set", "<query xmlns='urn:xmpp:mam:2'>"+strings.Replace(fills("urn:xmpp:mam:2", "with"), "W", "W@example.org", 1)+"</query>"), "an address"},
	"node":            {request("get", "<query xmlns='http://jabber.org/protocol/disco#info' node='W'/>"), "a name that programs give, without blanks"},
	"item":            {request("get", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='n'><item id='W'/></items></pubsub>"), "the same"},
	"query":           {request("set", "<query xmlns='urn:xmpp:mam:2' queryid='W'/>"), "the same"},
	"place in a list": {request("set", "<query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><after>W</after></set></query>"), "made by the server"},
	"id":              {"<iq type='get' id='W'><ping xmlns='urn:xmpp:ping'/></iq>", "made by programs, without blanks"},
	"preauth":         {request("set", "<preauth xmlns='urn:xmpp:pars:0' token='W'/>"), "made by the server"},
	"push secret":     {request("set", "<enable xmlns='urn:xmpp:push:0' jid='push.example'>"+fills("http://jabber.org/protocol/pubsub#publish-options", "secret")+"</enable>"), "made by programs, without blanks"},
	"program's name":  {"<iq to='example.org' type='result' id='i'><query xmlns='jabber:iq:version'><name>W</name></query></iq>", "what programs call themselves"},
	"field's label":   {request("set", "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><configure node='n'><x xmlns='jabber:x:data' type='submit'><field var='pubsub#max_items' label='W'><value>1</value></field></x></configure></pubsub>"), "what the server has written in its form, which Dino sends back"},
}

var inBraces = regexp.MustCompile(`(?s)b64\{(.*?)\}`)

// written is a shape with its word.
func written(shape, word, contact string) string {
	shape = strings.ReplaceAll(strings.ReplaceAll(shape, "W", word), "TO", contact)
	return inBraces.ReplaceAllStringFunc(shape, func(s string) string {
		return base64.StdEncoding.EncodeToString([]byte(s[4 : len(s)-1]))
	})
}

func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Int())
	}
	return b
}

// pb is a protocol buffer of bytes and small numbers.
func pb(fields ...any) (b []byte) {
	for i := 0; i < len(fields); i += 2 {
		switch n := fields[i].(int); v := fields[i+1].(type) {
		case int:
			b = append(b, byte(n<<3), byte(v))
		case []byte:
			b = append(binary.AppendUvarint(append(b, byte(n<<3|2)), uint64(len(v))), v...)
		}
	}
	return b
}

// dressedUp are messages whose wrapping is that of an encryption, well-formed, around a word.
func dressedUp(word string) map[string]string {
	w := []byte(word)
	blocks := append(w[:len(w):len(w)], noise(16-len(w)%16)...)
	b64 := base64.StdEncoding.EncodeToString
	typed := func(b []byte) []byte { return append([]byte{5}, b[:32]...) }
	signal := func(dh, key []byte) []byte {
		return append(append([]byte{0x33}, pb(1, dh, 2, 1, 3, 0, 4, key)...), noise(8)...)
	}
	omemo := func(key, iv, payload []byte) string {
		return "<message to='TO' type='chat'><encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'><key rid='2'>" + b64(key) + "</key><iv>" + b64(iv) + "</iv></header><payload>" + b64(payload) + "</payload></encrypted></message>"
	}
	newer := func(key, payload []byte) string {
		return "<message to='TO' type='chat'><encrypted xmlns='urn:xmpp:omemo:2'><header sid='1'><keys jid='TO'><key rid='2'>" + b64(key) + "</key></keys></header><payload>" + b64(payload) + "</payload></encrypted></message>"
	}
	pgp := func(b []byte) string {
		return "<message to='TO' type='chat'><x xmlns='jabber:x:encrypted'>" + b64(b) + "</x></message>"
	}
	ox := func(b []byte) string {
		return "<message to='TO' type='chat'><openpgp xmlns='urn:xmpp:openpgp:0'>" + b64(b) + "</openpgp></message>"
	}
	esk := append(append([]byte{0xc1, 45, 3, 1, 2, 3, 4, 5, 6, 7, 8, 25}, noise(32)...), 1, 9)
	data := func(b []byte) []byte {
		return append(append(esk[:len(esk):len(esk)], 0xd2, byte(len(b)+1), 1), b...)
	}
	good := signal(typed(noise(32)), noise(48))
	within := append(append(noise(30), w...), noise(30)...)
	return map[string]string{
		"OMEMO, payload":           omemo(good, noise(12), w),
		"OMEMO, within a payload":  omemo(good, noise(12), within),
		"OMEMO, key":               omemo(signal(typed(noise(32)), blocks), noise(12), noise(9)),
		"OMEMO, ratchet":           omemo(signal(typed(append(w, noise(32)...)), noise(48)), noise(12), noise(9)),
		"OMEMO, no framing":        omemo(w, noise(12), noise(9)),
		"OMEMO, more":              omemo(append(append([]byte{0x33}, pb(1, typed(noise(32)), 2, 1, 4, noise(48), 9, w)...), noise(8)...), noise(12), noise(9)),
		"OMEMO, vector":            omemo(good, w, noise(9)),
		"OMEMO 2, payload":         newer(pb(1, noise(16), 2, pb(1, 1, 2, 1, 3, noise(32), 4, noise(64))), blocks),
		"OMEMO 2, key":             newer(pb(1, noise(16), 2, pb(1, 1, 2, 1, 3, noise(32), 4, blocks)), noise(32)),
		"OMEMO 2, no framing":      newer(w, noise(32)),
		"XEP-0027, text":           pgp(w),
		"XEP-0027, ciphertext":     pgp(data(within)),
		"XEP-0027, behind":         pgp(append(data(noise(60)), w...)),
		"XEP-0027, literal":        pgp(append([]byte{0xcb, byte(6 + len(w)), 'b', 0, 0, 0, 0, 0}, w...)),
		"XEP-0027, literal behind": pgp(append(append(data(noise(60)), 0xcb, byte(6+len(w)), 'b', 0, 0, 0, 0, 0), w...)),
		"XEP-0027, armor":          strings.Replace(pgp(data(noise(60))), ">", ">Comment: "+word+"\n\n", 2),
		"OX, ciphertext":           ox(data(within)),
		"OX, text":                 ox(w),
	}
}

// requestStates are where the canary in requests is tried.
var requestStates = map[string]struct {
	rules   string
	status  bool
	prepare func(*stage)
}{
	"strict":                     {strictRule, false, canaryStates["never talked"]},
	"strict, encrypted":          {strictRule, false, (*stage).talk},
	"built in":                   {"", true, canaryStates["never talked"]},
	"built in, offline":          {"", true, canaryStates["contact offline"]},
	"built in, private":          {"", true, (*stage).talk},
	"built in, finished":         {"", true, canaryStates["finished"]},
	"verified, files, groupchat": {"otr: [{policy: require-verified, allow: [files, groupchat, omemo, openpgp, status]}]\n", true, canaryStates["never talked"]},
	"nothing allowed":            {"otr: [{policy: require, allow: []}]\n", false, canaryStates["never talked"]},
}

func TestCanaryInRequests(t *testing.T) {
	var tried, leaked atomic.Int32
	t.Run("states", func(t *testing.T) {
		for state, at := range requestStates {
			t.Run(state, func(t *testing.T) {
				t.Parallel()
				c := onStage(t, at.rules, at.prepare)
				words := map[string]string{}
				var raws []string
				put := func(name, shape string) {
					words[name] = fmt.Sprintf("Qcanary%dx%dZ", len(words), rand.Int64())
					raws = append(raws, written(shape, words[name], c.contact))
				}
				for name, shape := range hidden {
					put(name, shape)
				}
				for name := range dressedUp("x") {
					words[name] = fmt.Sprintf("Qcanary%dx%dZ", len(words), rand.Int64())
					raws = append(raws, strings.ReplaceAll(dressedUp(words[name])[name], "TO", c.contact))
				}
				if !at.status {
					for name, shape := range toldAll {
						put("told all: "+name, shape)
					}
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
			})
		}
	})
	t.Logf("canary in requests: %d shapes, %d states, %d tried, leaks %d", len(hidden)+len(dressedUp("x"))+len(toldAll), len(requestStates), tried.Load(), leaked.Load())
}

// What may leave does, so that the lists of it stay true; with services everything to the
// own server does.
func TestCanaryByDesign(t *testing.T) {
	for _, at := range []struct {
		rules  string
		shapes func() map[string]string
	}{
		{"", func() map[string]string {
			all := maps.Clone(toldAll)
			for name, s := range byDesign {
				all[name] = s.shape
			}
			return all
		}},
		{strictRule, func() map[string]string {
			all := map[string]string{}
			for name, s := range byDesign {
				if s.reason == "" {
					t.Errorf("%s has no reason", name)
				}
				all[name] = s.shape
			}
			return all
		}},
		{"otr: [{policy: require, allow: [services]}]\n", func() map[string]string {
			all := map[string]string{}
			for name, shape := range hidden {
				if strings.HasPrefix(shape, "<iq type=") && !strings.Contains(shape, " from=") {
					all[name] = shape
				}
			}
			return all
		}},
	} {
		c := onStage(t, at.rules, func(*stage) {})
		words := map[string]string{}
		var raws []string
		shapes := at.shapes()
		for _, name := range slices.Sorted(maps.Keys(shapes)) {
			words[name] = fmt.Sprintf("Qdesign%dZ", len(words))
			raws = append(raws, written(shapes[name], words[name], c.contact))
		}
		c.send(raws)
		seen := unwrapped(c.s.Received())
		for name, word := range words {
			if leaks(seen, word) == "" {
				t.Errorf("%q: %s does not leave", at.rules, name)
			}
		}
		t.Logf("%q: %d shapes leave, as they may", at.rules, len(words))
	}
}

// A status is told to everybody, and to a room that has let the client in; to one contact
// presence goes without it, and without an error.
func TestStatusIsNeverForOneContact(t *testing.T) {
	s, alice := asksArchive(t, "")
	alice.Send("<presence to='room@conf.example/n'><x xmlns='http://jabber.org/protocol/muc'/><status>Qjoins</status></presence>")
	seen(alice)
	fromServer(t, s, alice, "<presence from='room@conf.example/n'><x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='none' role='participant'/><status code='110'/></x></presence>")
	alice.Send("<presence to='room@conf.example/n'><status>Qroom</status></presence>")
	alice.Send("<presence to='carol@example.org'><show>away</show><status>Qcontact</status></presence>")
	alice.Send("<presence><status>Qall</status></presence>")
	seen(alice)
	alice.Send("<presence to='room@conf.example/n' type='unavailable'><status>Qleaves</status></presence>")
	seen(alice)
	got := string(s.Received())
	for word, leaves := range map[string]bool{"Qjoins": false, "Qroom": true, "Qcontact": false, "Qall": true, "Qleaves": true} {
		if strings.Contains(got, word) != leaves {
			t.Errorf("%s leaves: %v", word, !leaves)
		}
	}
	if !strings.Contains(got, "<presence to='carol@example.org'><show>away</show></presence>") {
		t.Error("no presence to the contact")
	}
}
