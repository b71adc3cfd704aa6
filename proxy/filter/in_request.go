package filter

import (
	"slices"
	"strings"

	"otrproxy/config"
	"otrproxy/stanza"
)

// Requests (iq) to the client, and what its own are answered with.

// asked are requests of contacts: what programs ask each other, without a word.
var asked = Table{
	"urn:xmpp:ping":                       {"ping": {}},                               // XEP-0199
	NSDiscoInfo:                           {"query": {Attrs: Attrs{"node": noBlank}}}, // XEP-0030
	NSDiscoItems:                          {"query": {Attrs: Attrs{"node": noBlank}}},
	"jabber:iq:version":                   {"query": {}}, // XEP-0092
	"jabber:iq:time":                      {"query": {}}, // XEP-0090
	"jabber:iq:last":                      {"query": {}}, // XEP-0012
	"jabber:iq:avatar":                    {"query": {}}, // XEP-0008
	"urn:xmpp:time":                       {"time": {}},  // XEP-0202
	"vcard-temp":                          {"vCard": {}}, // XEP-0054
	"http://jabber.org/protocol/commands": {"command": {Attrs: Attrs{"node": noBlank, "sessionid": noBlank, "action": oneOf("cancel", "execute")}}},
}

// pushed are requests of the account's own server.
var pushed = Table{
	NSRoster:              {"query": {Any: true}},
	"urn:xmpp:blocking":   {"block": {Any: true}, "unblock": {Any: true}}, // XEP-0191
	"jabber:iq:privacy":   {"query": {Any: true}},                         // XEP-0016
	"urn:xmpp:push:0":     {"enable": {Any: true}, "disable": {Any: true}},
	"urn:xmpp:mix:pam:2":  {"client-join": {Any: true}},
	"jabber:iq:register":  {"query": {Any: true}},
	"urn:xmpp:extdisco:1": {"services": {Any: true}},
	"urn:xmpp:extdisco:2": {"services": {Any: true}}, // XEP-0215

	"http://jabber.org/protocol/http-auth": {"confirm": {Any: true}}, // XEP-0070
}

// asking are requests of services.
var asking = Table{
	"http://jabber.org/protocol/http-auth": {"confirm": {Any: true}}, // XEP-0070
}

// filed are files and calls, for rules with allow: [files].
var filed = Table{
	NSIBB:                                    transfers[NSIBB],
	"http://jabber.org/protocol/si":          {"si": {Any: true}},     // XEP-0095, XEP-0096
	"http://jabber.org/protocol/bytestreams": {"query": {Any: true}},  // XEP-0065
	"jabber:iq:oob":                          {"query": {Any: true}},  // XEP-0066
	"urn:xmpp:bob":                           {"data": {Any: true}},   // XEP-0231
	"urn:xmpp:jingle:1":                      {"jingle": {Any: true}}, // XEP-0166
	"http://www.google.com/session":          {"session": {Any: true}},
}

// answered is what programs of contacts answer about themselves.
var answered = Table{
	"urn:xmpp:ping": {"ping": {}},
	NSDiscoInfo: {"query": {Attrs: Attrs{"node": noBlank}, Own: Forms{
		"identity": {Attrs: Attrs{"category": noBlank, "type": noBlank, "name": software}}, "feature": {Attrs: Attrs{"var": noBlank}}},
		Inner: Table{NSData: {"x": {Attrs: Attrs{"type": token}, Own: Forms{"field": {Attrs: Attrs{"var": noBlank, "type": token}, Own: Forms{"value": {Text: software}}}}}}}}},
	NSDiscoItems:        {"query": {Attrs: Attrs{"node": noBlank}, Own: Forms{"item": {Attrs: Attrs{"jid": address, "node": noBlank, "name": software}}}, Inner: paged}},
	"jabber:iq:version": {"query": {Own: Forms{"name": {Text: software}, "version": {Text: software}, "os": {Text: software}}}},
	"jabber:iq:time":    {"query": {Own: Forms{"utc": {Text: noBlank}, "tz": {Text: software}, "display": {Text: software}}}},
	"urn:xmpp:time":     {"time": {Own: Forms{"utc": {Text: stamp}, "tzo": {Text: noBlank}}}},
	"jabber:iq:last":    {"query": {Attrs: Attrs{"seconds": number}}},
	"jabber:iq:avatar":  {"query": {Own: Forms{"data": {Attrs: Attrs{"mimetype": noBlank}, Text: base64Text}}}},
	NSPubSub:            {"pubsub": {Own: Forms{"items": {Attrs: Attrs{"node": noBlank}, Own: Forms{"item": {Attrs: Attrs{"id": noBlank}, Inner: programs}}}}, Inner: paged}},
}

// programs is of personal what holds no word.
var programs = pick(personal, "urn:xmpp:avatar:data", "urn:xmpp:avatar:metadata", "eu.siacs.conversations.axolotl", "urn:xmpp:omemo:1", "urn:xmpp:omemo:2", "urn:xmpp:openpgp:0")

func pick(t Table, namespaces ...string) Table {
	some := Table{}
	for _, ns := range namespaces {
		some[ns] = t[ns]
	}
	return some
}

// paged tells where in a long answer one is (XEP-0059).
var paged = Table{NSRSM: {"set": {Own: Forms{"first": {Attrs: Attrs{"index": number}, Text: words}, "last": {Text: words}, "count": {Text: number},
	"max": {Text: number}, "before": {Text: words}, "after": {Text: words}, "index": {Text: number}}}}}

// described is what people publish about themselves and a client asks for, for rules with
// allow: [status].
var described = Table{
	"vcard-temp":                       {"vCard": {Any: true}},
	"urn:ietf:params:xml:ns:vcard-4.0": {"vcard": {Any: true}},
	NSPubSub:                           {"pubsub": {Own: Forms{"items": {Attrs: Attrs{"node": noBlank}, Own: Forms{"item": {Attrs: Attrs{"id": noBlank}, Inner: personal}}}}, Inner: paged}},
}

// served answers are those of the account's server, of rooms and of services to what
// clients are known to ask them. They are data of the account's own, or about the service;
// what was said by whom is in archives alone.
var servedAnswers = Table{
	nsClient:                                 {"error": {}},
	NSRoster:                                 {"query": {Any: true}},
	stanza.NSBind:                            {"bind": {Any: true}},
	"urn:ietf:params:xml:ns:xmpp-session":    {"session": {}},
	NSDiscoInfo:                              {"query": {Any: true}},
	NSDiscoItems:                             {"query": {Any: true}},
	NSData:                                   {"x": {Any: true}},
	NSRSM:                                    {"set": {Any: true}},
	"vcard-temp":                             {"vCard": {Any: true}},
	"urn:ietf:params:xml:ns:vcard-4.0":       {"vcard": {Any: true}},
	"jabber:iq:private":                      {"query": {Any: true}},
	"jabber:iq:privacy":                      {"query": {Any: true}},
	"jabber:iq:register":                     {"query": {Any: true}},
	"jabber:iq:search":                       {"query": {Any: true}},
	"jabber:iq:gateway":                      {"query": {Any: true}},
	"jabber:iq:last":                         {"query": {Any: true}},
	"jabber:iq:time":                         {"query": {Any: true}},
	"jabber:iq:version":                      {"query": {Any: true}},
	"jabber:iq:avatar":                       {"query": {Any: true}},
	"jabber:iq:auth":                         {"query": {Any: true}},
	"jabber:iq:agents":                       {"query": {Any: true}},
	"jabber:iq:browse":                       {"query": {Any: true}},
	"storage:client:avatar":                  {"query": {Any: true}},
	"urn:xmpp:time":                          {"time": {Any: true}},
	"urn:xmpp:ping":                          {"ping": {}},
	"urn:xmpp:blocking":                      {"blocklist": {Any: true}, "block": {}, "unblock": {}},
	NSPubSub:                                 {"pubsub": {Any: true}},
	NSPubSub + "#owner":                      {"pubsub": {Any: true}},
	NSCarbons:                                {"enable": {}, "disable": {}},
	"http://jabber.org/protocol/commands":    {"command": {Any: true}},
	"http://jabber.org/protocol/stats":       {"query": {Any: true}},
	"http://jabber.org/protocol/bytestreams": {"query": {Any: true}},
	"http://jabber.org/protocol/offline":     {"offline": {Any: true}},
	NSMUC + "#owner":                         {"query": {Any: true}},
	NSMUC + "#admin":                         {"query": {Any: true}},
	NSMUC + "#unique":                        {"unique": {Any: true}},
	"urn:xmpp:http:upload:0":                 {"slot": {Any: true}},
	"urn:xmpp:http:upload":                   {"slot": {Any: true}},
	"eu:siacs:conversations:http:upload":     {"slot": {Any: true}},
	"urn:xmpp:push:0":                        {"enable": {}, "disable": {}},
	"urn:xmpp:extdisco:1":                    {"services": {Any: true}, "credentials": {Any: true}},
	"urn:xmpp:extdisco:2":                    {"services": {Any: true}, "credentials": {Any: true}},
	"urn:xmpp:sic:0":                         {"address": {Any: true}, "ip": {Any: true}},
	"urn:xmpp:sic:1":                         {"address": {Any: true}, "ip": {Any: true}, "port": {Any: true}},
	"urn:xmpp:bob":                           {"data": {Any: true}},
	"urn:xmpp:raa:0":                         {"affiliation": {Any: true}},
	"urn:xmpp:invite":                        {"invite": {Any: true}},
	"urn:xmpp:channel-search:0:search":       {"result": {Any: true}, "search": {Any: true}},
	"https://xmlns.zombofant.net/muclumbus/search/1.0": {"result": {Any: true}, "search": {Any: true}},
	"urn:xmpp:mix:core:1":                              {"join": {Any: true}, "leave": {Any: true}, "update-subscription": {Any: true}, "setnick": {Any: true}, "create": {Any: true}, "destroy": {Any: true}},
	"urn:xmpp:mix:pam:2":                               {"client-join": {Any: true}, "client-leave": {Any: true}},
	"google:jingleinfo":                                {"query": {Any: true}},

	// Archives. Their results are messages of their own; an answer says how many.
	"urn:xmpp:mam:tmp":        archives,
	"urn:xmpp:mam:0":          archives,
	"urn:xmpp:mam:1":          archives,
	"urn:xmpp:mam:2":          archives,
	"urn:xmpp:inbox:0":        inboxes,
	"urn:xmpp:inbox:1":        inboxes, // XEP-0430
	"urn:xmpp:mam:2#extended": {"metadata": {Any: true}},
	// XEP-0136 has in an answer what was said.
	"urn:xmpp:archive": {
		"pref": {Any: true}, "list": {Own: Forms{"chat": chats}, Inner: paged}, "chat": chats,
		"modified": {Own: Forms{"changed": chats, "removed": chats}, Inner: paged}, "save": {Own: Forms{"chat": chats}},
	},
}

var (
	jids     = &Form{Own: Forms{"jid": {Text: address}}}
	ends     = &Form{Attrs: Attrs{"id": noBlank, "timestamp": stamp}}
	archives = Forms{ // XEP-0313, XEP-0441
		"fin":      {Attrs: Attrs{"queryid": noBlank, "complete": boolean, "stable": boolean}, Inner: paged},
		"query":    {Attrs: Attrs{"queryid": noBlank}, Inner: Table{NSRSM: paged[NSRSM], NSData: {"x": {Attrs: Attrs{"type": token}, Own: Forms{"field": {Attrs: Attrs{"var": noBlank, "type": token}, Own: Forms{"value": {Text: noBlank}}}}}}}},
		"prefs":    {Attrs: Attrs{"default": oneOf("always", "never", "roster")}, Own: Forms{"always": jids, "never": jids}},
		"metadata": {Own: Forms{"start": ends, "end": ends}},
	}
	inboxes = Forms{"fin": {Attrs: Attrs{"total": number, "unread": number, "all-unread": number, "complete": boolean}, Inner: paged}}
	spoken  = &Form{Attrs: Attrs{"secs": number, "utc": stamp, "jid": address}, Own: Forms{"body": said}}
	chats   = &Form{Attrs: Attrs{"with": address, "start": stamp, "version": number, "thread": opaqueName, "by": address},
		Own: Forms{"from": spoken, "to": spoken, "note": {Attrs: Attrs{"utc": stamp}, Text: words, Says: true}, "previous": {Attrs: Attrs{"with": address, "start": stamp}}, "next": {Attrs: Attrs{"with": address, "start": stamp}}}, Inner: paged}
)

// A Request is one to the client, or an answer to one of its own.
type Request struct {
	Voice
	Rule *config.Rule
	From Sender // Service as well for rooms
	Own  bool   // from the account itself, which is its server on its behalf
	Open bool   // no encryption is expected: anything may stand in it
}

// appendTables appends to none what may stand in it; nil is for anything.
func (r *Request) appendTables(t []Table, typ string) []Table {
	switch {
	case r.Open:
		return nil
	case typ == "result" && r.From == Service:
		if r.Rule.Allows(config.Services) {
			return nil
		}
		t = append(t, servedAnswers)
	case typ == "result":
		if r.Rule.Allows(config.Status) {
			t = append(t, described)
		}
		t = append(t, answered)
	case r.From == Service && r.Rule.Allows(config.Services):
		return nil
	case r.Own:
		t = append(t, pushed, asked)
	case r.From == Service:
		t = append(t, asking, asked)
	default:
		t = append(t, asked)
	}
	if r.Rule.Allows(config.Files) {
		t = append(t, filed)
	}
	return t
}

// A Passage is what becomes of a request.
type Passage uint8

// How it passes.
const (
	Refused   Passage = iota // it does not pass
	Unchanged                // it passes as it is
	Anew                     // it passes as it was written anew
)

// AppendTo appends a request or an answer as the client gets it.
func (r *Request) AppendTo(dst []byte, root stanza.Element) ([]byte, Passage) {
	typ := root.Attr("type")
	w := &anew{Voice: r.Voice, dst: dst}
	switch typ {
	case "error":
		f := contactsFailure
		if r.From == Service || r.Open {
			f = serversFailure
		}
		if r.Open && r.Untouched(root) || r.fit(root, failed(f)) {
			return dst, Unchanged
		}
		w.failed(root, f, false, nil)
		return w.dst, Anew
	case "get", "set", "result":
	default:
		return dst, Refused
	}
	var few [4]Table
	tables := r.appendTables(few[:0], typ)
	if tables == nil {
		if r.Untouched(root) {
			return dst, Unchanged
		}
	} else if r.fit(root, tables) {
		return dst, Unchanged
	}
	w.dst = append(w.dst, "<iq"...)
	w.addressing(root, words)
	w.dst = append(w.dst, '>')
	from, passed := len(w.dst), 0
	for el := range root.Children() {
		f := find(tables, el)
		if tables == nil {
			f = &anything
		}
		if f != nil && writable(el) {
			passed++
			w.element(f, el, []byte(nsClient))
		}
	}
	if passed == 0 && root.HasChildren() {
		return dst, Refused
	}
	w.close(root, from)
	return w.dst, Anew
}

// Lacks is the allowance that would let a refused answer pass; "" for none.
func (r *Request) Lacks(root stanza.Element) config.Allow {
	for _, allow := range []config.Allow{config.Status, config.Files, config.Services} {
		more := *r
		rule := *r.Rule
		rule.Allow = append(slices.Clip(rule.Allow), allow)
		more.Rule = &rule
		if _, passage := more.AppendTo(nil, root); passage != Refused {
			return allow
		}
	}
	return ""
}

// Told is what a request that does not pass says to people: words, or in brackets what
// there is. Nil for what only programs understand.
func Told(root stanza.Element) (says []string) {
	for el := range root.Children() {
		what, ok := content[string(el.NS())]
		if !ok {
			continue
		}
		texts := appendWords(nil, el.Attr("url"))
		for d := range el.Descendants() {
			for _, name := range []string{"name", "jid"} {
				texts = appendWords(texts, d.Attr(name))
			}
		}
		texts = wordsIn(texts, el)
		says = append(says, strings.Join(append([]string{"(" + what.what + ")"}, texts...), " "))
	}
	return says
}
