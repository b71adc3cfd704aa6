package filter

import (
	"bytes"
	"encoding/base64"
	"maps"
	"strings"
	"time"

	"otrproxy/config"
	"otrproxy/stanza"
)

// What may stand in a message to the client, besides its text. The text itself is for the
// caller to read: it passes decrypted, or with the mark of clear text.

// beside may stand beside any text: what programs tell each other, without a word.
var beside = Table{
	NSChatStates: {"active": {}, "composing": {}, "paused": {}, "inactive": {}, "gone": {}}, // XEP-0085
	NSReceipts:   {"request": {}, "received": {Attrs: Attrs{"id": token}}},                  // XEP-0184
	NSMarkers: {"markable": {}, "received": {Attrs: Attrs{"id": token}},
		"displayed": {Attrs: Attrs{"id": token}}, "acknowledged": {Attrs: Attrs{"id": token}}}, // XEP-0333
	NSStanzaID: {"stanza-id": {Attrs: Attrs{"id": token, "by": address}}, "origin-id": {Attrs: Attrs{"id": token}}}, // XEP-0359
	NSHints:    {"no-store": {}, "no-copy": {}, "no-permanent-store": {}, "store": {}},                              // XEP-0334
	NSCarbons:  {"private": {}},                                                                                     // XEP-0280
	NSDelay:    {"delay": {Attrs: Attrs{"stamp": stamp, "from": address}}},                                          // XEP-0203
	NSDelayOld: {"x": {Attrs: Attrs{"stamp": stampOld, "from": unblank}}},                                           // XEP-0091
	"jabber:x:event": {"x": {Own: Forms{"offline": {}, "delivered": {}, "displayed": {}, "composing": {},
		"id": {Text: token}}}}, // XEP-0022
	"urn:xmpp:mam:tmp":       {"archived": {Attrs: Attrs{"by": address, "id": token}}}, // of ejabberd
	"urn:xmpp:occupant-id:0": {"occupant-id": {Attrs: Attrs{"id": token}}},             // XEP-0421
}

// signals are those of beside but for delays, whose time has to be checked (may).
var signals = func() []Table {
	t := maps.Clone(beside)
	delete(t, NSDelay)
	delete(t, NSDelayOld)
	return []Table{t}
}()

// Signals reports whether a message says nothing to people, and can stay as it is: programs
// tell each other that somebody is typing, or has got something.
func (v Voice) Signals(root stanza.Element) bool {
	typ := root.RawAttr("type")
	return (typ == nil || messageTypes(typ)) && root.HasChildren() && v.fit(root, signals)
}

// sealing are the encryptions that clients may have themselves.
var sealing = []config.Allow{config.OMEMO, config.OpenPGP}

// sealed is what the client decrypts itself, by the allowance that lets it pass.
var sealed = map[config.Allow]Table{
	config.OMEMO: { // XEP-0384, versions 0.3, 0.7 and 0.8
		"eu.siacs.conversations.axolotl": {"encrypted": {Own: Forms{
			"header": {Attrs: Attrs{"sid": number}, Own: Forms{
				"key": {Attrs: Attrs{"rid": number, "prekey": boolean}, Text: base64Bytes},
				"iv":  {Text: base64Bytes}}},
			"payload": {Text: base64Bytes}}}},
		"urn:xmpp:omemo:1": {"encrypted": omemo2},
		"urn:xmpp:omemo:2": {"encrypted": omemo2},
	},
	config.OpenPGP: {
		"jabber:x:encrypted": {"x": {Text: openPGP}},       // XEP-0027
		"urn:xmpp:openpgp:0": {"openpgp": {Text: openPGP}}, // XEP-0373
	},
}

var omemo2 = &Form{Own: Forms{
	"header": {Attrs: Attrs{"sid": number}, Own: Forms{
		"keys": {Attrs: Attrs{"jid": address}, Own: Forms{
			"key": {Attrs: Attrs{"rid": number, "kex": boolean}, Text: base64Bytes}}}}},
	"payload": {Text: base64Bytes}}}

// openPGP is an OpenPGP message (RFC 4880 section 4.2): its first byte has the highest bit
// set. It may end in a checksum on a line of its own.
func openPGP(s []byte) bool {
	s = bytes.TrimSpace(s)
	if i := bytes.LastIndexByte(s, '='); i > 0 && len(s)-i == 5 {
		s = bytes.TrimSpace(s[:i])
	}
	raw, err := base64.StdEncoding.DecodeString(string(s))
	return err == nil && len(raw) > 0 && raw[0]&0x80 != 0
}

// encryptions name what the client decrypts itself (XEP-0380).
var encryptions = Table{NSEME: {"encryption": {Attrs: Attrs{"namespace": encryption}}}}

var encryption = oneOf("eu.siacs.conversations.axolotl", "urn:xmpp:omemo:0", "urn:xmpp:omemo:1", "urn:xmpp:omemo:2", "jabber:x:encrypted", "urn:xmpp:openpgp:0")

// invited are invitations to rooms (XEP-0045, XEP-0249). Their reasons are words.
var invited = Table{
	NSMUCUser: {"x": {Own: Forms{
		"invite":   {Attrs: Attrs{"from": unblank, "to": unblank}, Own: Forms{"continue": {Attrs: Attrs{"thread": opaqueName}}}},
		"decline":  {Attrs: Attrs{"from": unblank, "to": unblank}},
		"password": {Text: secret}}}},
	NSConference: {"x": {Attrs: Attrs{"jid": bareJID, "password": secret, "continue": boolean, "thread": opaqueName}}},
}

// transfers are files and calls, for rules with allow: [files].
var transfers = Table{
	NSIBB: {"data": {Attrs: Attrs{"sid": token, "seq": number}, Text: base64Bytes}, // XEP-0047
		"open":  {Attrs: Attrs{"sid": token, "block-size": number, "stanza": oneOf("iq", "message")}},
		"close": {Attrs: Attrs{"sid": token}}},
	nsCalls:                   calls("propose", "retract", "accept", "proceed", "reject", "ringing", "finish"), // XEP-0353
	"urn:xmpp:call-invites:0": calls("invite", "retract", "accept", "reject", "left"),                          // XEP-0482
	NSOOB:                     {"x": {Any: true}},                                                              // XEP-0066
	"urn:xmpp:jingle:1":       {"jingle": {Any: true}},                                                         // XEP-0166
	"urn:xmpp:sfs:0":          {"file-sharing": {Any: true}, "sources": {Any: true}},                           // XEP-0447
	"urn:xmpp:sims:1":         {"media-sharing": {Any: true}},                                                  // XEP-0385
	"urn:xmpp:reference:0":    {"reference": {Any: true}},                                                      // XEP-0372, in which XEP-0385 stands
	"urn:xmpp:bob":            {"data": {Any: true}},                                                           // XEP-0231
}

// calls are the steps of a call.
func calls(steps ...string) Forms {
	all := Forms{}
	for _, step := range steps {
		all[step] = &Form{Attrs: Attrs{"id": token, "video": boolean, "multi": boolean},
			Own: Forms{"jingle": {Attrs: Attrs{"sid": token, "jid": address}}, "external": {Attrs: Attrs{"uri": uri}},
				"tie-break": {}, "migrated": {Attrs: Attrs{"to": token}}},
			Inner: Table{
				"http://gultsch.de/xmpp/drafts/omemo/dlts-srtp-verification": {"device": {Attrs: Attrs{"id": number}}},
				"urn:xmpp:jingle:apps:rtp:1":                                 {"description": {Attrs: Attrs{"media": oneOf("audio", "video")}}},
				"urn:xmpp:jingle:1":                                          {"reason": {Own: reasons}},
			}}
	}
	return all
}

// reasons are why a call ends (XEP-0166 section 7.4).
var reasons = Forms{"alternative-session": {}, "busy": {}, "cancel": {}, "connectivity-error": {}, "decline": {}, "expired": {},
	"failed-application": {}, "failed-transport": {}, "general-error": {}, "gone": {}, "incompatible-parameters": {},
	"media-error": {}, "security-error": {}, "success": {}, "timeout": {}, "unsupported-applications": {}, "unsupported-transports": {}}

// served is what servers and services send of their own: they are nobody's contacts, and
// no program takes it for a contact's words.
var served = Table{
	nsClient:                             {"subject": said},
	"urn:xmpp:mam:0":                     {"fin": archives["fin"]}, // of its first versions
	"http://jabber.org/protocol/rosterx": {"x": {Any: true}},       // XEP-0144, of gateways
	NSOOB:                                {"x": {Any: true}},
	NSEvent:                              {"event": {Any: true}}, // XEP-0060
	NSData:                               {"x": {Any: true}},     // XEP-0004
	NSMUCUser:                            {"x": {Any: true}},
	"urn:xmpp:captcha":                   {"captcha": {Any: true}}, // XEP-0158
	"urn:xmpp:bob":                       {"data": {Any: true}},    // XEP-0231
	NSConference:                         invited[NSConference],
	"jabber:iq:register":                 {"query": {Any: true}},   // XEP-0077
	"http://jabber.org/protocol/shim":    {"headers": {Any: true}}, // XEP-0131, of nodes

	"http://jabber.org/protocol/http-auth": {"confirm": {Any: true}}, // XEP-0070
}

// topics are what rooms are about.
var topics = Table{nsClient: {"subject": {Text: words}}}

// events are broadcasts of contacts about themselves (XEP-0163), for rules with allow:
// [status]; keys are those of their programs, in which there is no word.
var (
	events = broadcasts(personal)
	keys   = broadcasts(programs)
)

func broadcasts(payloads Table) Table {
	return Table{NSEvent: {"event": {Own: Forms{
		"items": {Attrs: Attrs{"node": noBlank}, Own: Forms{
			"item":    {Attrs: Attrs{"id": noBlank, "publisher": address}, Inner: payloads},
			"retract": {Attrs: Attrs{"id": noBlank}}}},
		"purge": {Attrs: Attrs{"node": noBlank}}, "delete": {Attrs: Attrs{"node": noBlank}}}}}}
}

// personal is what people publish about themselves, and their programs of them.
var personal = Table{
	"http://jabber.org/protocol/mood":     {"mood": {Any: true}},     // XEP-0107
	"http://jabber.org/protocol/activity": {"activity": {Any: true}}, // XEP-0108
	"http://jabber.org/protocol/tune":     {"tune": {Any: true}},     // XEP-0118
	"http://jabber.org/protocol/geoloc":   {"geoloc": {Any: true}},   // XEP-0080
	NSNick:                                {"nick": {Text: words}},   // XEP-0172
	"urn:ietf:params:xml:ns:vcard-4.0":    {"vcard": {Any: true}},    // XEP-0292
	"urn:xmpp:avatar:data":                {"data": {Text: base64Text}},
	"urn:xmpp:avatar:metadata": {"metadata": {Own: Forms{"stop": {}, "info": {Attrs: Attrs{
		"id": token, "type": noBlank, "bytes": number, "width": number, "height": number, "url": uri}}}}}, // XEP-0084
	"eu.siacs.conversations.axolotl": {"list": {Own: Forms{"device": {Attrs: Attrs{"id": number}}}}, "bundle": {Any: true}},
	"urn:xmpp:omemo:1":               {"devices": omemoDevices, "bundle": {Any: true}},
	"urn:xmpp:omemo:2":               {"devices": omemoDevices, "bundle": {Any: true}},
	"urn:xmpp:openpgp:0": {"public-keys-list": {Own: Forms{"pubkey-metadata": {Attrs: Attrs{"v4-fingerprint": hexDigits, "date": stamp}}}},
		"pubkey": {Own: Forms{"data": {Text: base64Text}}}}, // XEP-0373
}

var omemoDevices = &Form{Own: Forms{"device": {Attrs: Attrs{"id": number, "label": software}}}}

// A Sender is who a message is from.
type Sender uint8

// Who speaks.
const (
	Contact Sender = iota // a person, or somebody who may be one
	Service               // the account's server, or another address without a name before an @
	Room                  // a room that the client comes into, or leaves
)

// In says how a message is shown.
type In struct {
	Voice
	From  Sender
	Rule  *config.Rule
	Body  string // its text, in the place of the one that came
	Clear bool   // the text came in clear, or there is none
	Asks  bool   // a receipt may be asked for

	// What was decrypted cannot have been sent before NotBefore, whatever a server says.
	NotBefore time.Time
	Now       time.Time
}

// appendTables appends what may stand in the message.
func (in *In) appendTables(t []Table, root stanza.Element) []Table {
	t = append(t, beside)
	if !in.Clear { // what was decrypted stands alone
		return t
	}
	t = append(t, invited, encryptions)
	for _, allow := range sealing {
		if in.Rule.Allows(allow) {
			t = append(t, sealed[allow])
		}
	}
	switch {
	case in.From == Room:
		t = append(t, topics, served)
	case in.From == Service:
		t = append(t, served)
	case broadcast(root) && in.Rule.Allows(config.Status):
		t = append(t, events)
	case broadcast(root):
		t = append(t, keys)
	}
	if in.Rule.Allows(config.Files) {
		t = append(t, transfers)
	}
	return t
}

// broadcast reports whether a message is of the kind in which servers tell of personal
// events (XEP-0163 section 4.3): from the account, and for no conversation.
func broadcast(root stanza.Element) bool {
	typ := root.Attr("type")
	return (typ == "headline" || typ == "" || typ == "normal") && bytes.IndexByte(root.AttrBytes("from"), '/') < 0
}

// AppendTo appends the message as it is shown, and reports whether there is anything in it.
func (in *In) AppendTo(dst []byte, root stanza.Element) (out []byte, says bool) {
	w := &anew{Voice: in.Voice, dst: dst}
	in.message(w, root, false)
	return w.dst, w.left > 0
}

// message writes a message; within, where it stands in an element of another namespace.
func (in *In) message(w *anew, root stanza.Element, within bool) {
	w.dst = append(w.dst, "<message"...)
	if within {
		w.attr("xmlns", nsClient)
	}
	w.addressing(root, messageTypes)
	w.dst = append(w.dst, '>')
	if in.Body != "" {
		w.left++
		w.dst = append(stanza.AppendEscaped(append(w.dst, "<body>"...), in.Body), "</body>"...)
	}
	var few [8]Table
	tables := in.appendTables(few[:0], root)
	for el := range root.Children() {
		if el.Is(nsClient, "thread") {
			w.dst = append(stanza.AppendEscaped(append(w.dst, "<thread>"...), threadID(el.TextBytes())), "</thread>"...)
			continue
		}
		f := find(tables, el)
		if f == nil && in.From != Contact && in.Rule.Allows(config.Services) && string(el.NS()) != nsClient && writable(el) {
			f = &anything
		}
		switch {
		case f == nil || !in.may(root, el):
			continue
		case string(el.NS()) == NSDelay:
			sent, _ := Moment(el.Attr("stamp"))
			if sent.Before(in.NotBefore) {
				sent = in.NotBefore
			}
			w.delay(el, sent)
		default:
			w.element(f, el, []byte(nsClient))
		}
		w.left++
	}
	w.dst = append(w.dst, "</message>"...)
}

// may reports whether something that is listed may stand beside this text.
func (in *In) may(root, el stanza.Element) bool {
	switch ns := el.NS(); {
	case string(ns) == NSReceipts && string(el.Local()) == "request", string(ns) == NSMarkers && string(el.Local()) == "markable":
		return in.Asks // none for what nobody could read, and none to strangers
	case string(ns) == NSDelay, string(ns) == NSDelayOld:
		sent, ok := Moment(el.Attr("stamp"))
		return ok && (in.NotBefore.IsZero() || !sent.Before(in.NotBefore.Add(-behind)) && !sent.After(in.Now.Add(skew)))
	case string(ns) == NSEME:
		return encryption(el.AttrBytes("namespace"))
	case string(ns) == NSMUCUser && in.From == Contact: // a room invites, and not somebody in it
		return !strings.Contains(root.Attr("from"), "/")
	}
	return true
}

const (
	skew   = 5 * time.Minute // how far a server's clock may be ahead of ours
	behind = time.Minute     // and behind
)

// messageTypes are those of RFC 6121 section 5.2.2.
var messageTypes = oneOf("chat", "normal", "headline", "groupchat", "error")

// addressing writes the attributes that every stanza may have (RFC 6120 section 8.1).
func (w *anew) addressing(root stanza.Element, types Check) {
	for name, raw := range root.AttrNames() {
		value := stanza.AttrValue(raw)
		passes := false
		switch name {
		case "from", "to", "id":
			passes = true
		case "type":
			passes = types(value)
		case "xml:lang":
			passes = language(value)
		}
		if passes {
			w.dst = stanza.AppendAttr(w.dst, name, value)
		}
	}
}

// Said is what a message says to people besides its body and what may stand beside it, for
// a line of its own: words, or in brackets what there is. Reasons of invitations are words.
func (in *In) Said(root stanza.Element) (says []string) {
	var few [8]Table
	tables := in.appendTables(few[:0], root)
	for el := range root.Children() {
		ns := el.NS()
		passes := find(tables, el) != nil
		switch {
		case string(ns) == NSConference:
			says = appendWords(says, el.Attr("reason"), el.AllText())
		case string(ns) == NSMUCUser:
			for d := range el.Descendants() {
				if string(d.Local()) == "reason" {
					says = appendWords(says, d.AllText())
				}
			}
		case passes, string(ns) == NSEvent && broadcast(root): // what of it may pass does, and the rest is no message
		case el.Is(nsClient, "subject"), string(ns) == NSXHTML, content[string(ns)].what != "":
			text := strings.TrimSpace(el.AllText())
			if string(ns) != NSXHTML { // whose elements stand in a line
				text = strings.Join(wordsIn(nil, el), " ")
			}
			if text == "" && el.Is(nsClient, "subject") {
				continue
			}
			if text == "" {
				text = "(" + content[string(ns)].what + ")"
			}
			says = append(says, text)
		}
	}
	return says
}

// wordsIn are the texts inside an element, in document order.
func wordsIn(says []string, el stanza.Element) []string {
	for text, c := range el.Content() {
		if c != nil {
			says = wordsIn(says, *c)
		} else {
			says = appendWords(says, text)
		}
	}
	return says
}

// appendWords appends the first text that is not blank.
func appendWords(says []string, texts ...string) []string {
	for _, text := range texts {
		if text = strings.TrimSpace(text); text != "" {
			return append(says, text)
		}
	}
	return says
}
