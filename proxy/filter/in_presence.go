package filter

import (
	"slices"
	"strings"

	"otrproxy/config"
	"otrproxy/stanza"
)

// presenceIn may stand in a presence stanza to the client, whoever it is from.
var presenceIn = Table{
	nsClient:                 {"show": {Text: show}, "priority": {Text: priority}},
	NSCaps:                   {"c": {Attrs: Attrs{"node": noBlank, "ver": noBlank, "hash": noBlank, "ext": tokens}, Again: again()}},       // XEP-0115
	"urn:xmpp:caps":          {"c": {Inner: Table{"urn:xmpp:hashes:2": hashes, "urn:xmpp:hashes:1": hashes, "urn:xmpp:hashes:0": hashes}}}, // XEP-0390
	NSDelay:                  beside[NSDelay],
	NSDelayOld:               beside[NSDelayOld],
	NSStanzaID:               beside[NSStanzaID],
	"jabber:x:signed":        {"x": {Text: base64Text}},                                       // XEP-0027
	"vcard-temp:x:update":    {"x": {Own: Forms{"photo": {Text: hexDigits}, "nickname": {}}}}, // XEP-0153
	"urn:xmpp:idle:1":        {"idle": {Attrs: Attrs{"since": stamp}}},                        // XEP-0319
	"urn:xmpp:occupant-id:0": beside["urn:xmpp:occupant-id:0"],
	"urn:xmpp:moved:1":       {"moved": {Own: Forms{"old-jid": {Text: address}}}}, // XEP-0283
}

var hashes = Forms{"hash": {Attrs: Attrs{"algo": algorithm}, Text: base64Bytes}} // XEP-0300

// said are words, which come with the mark of clear text.
var said = &Form{Text: words, Says: true}

// occupantIn may stand in the presence of a room's occupants besides.
var occupantIn = Table{
	NSMUCUser: {"x": {Own: Forms{
		"item": {Attrs: Attrs{"affiliation": noBlank, "role": noBlank, "jid": address, "nick": words},
			Own: Forms{"actor": {Attrs: Attrs{"jid": address, "nick": words}}, "reason": said}},
		"status":   {Attrs: Attrs{"code": number}},
		"destroy":  {Attrs: Attrs{"jid": address}, Own: Forms{"reason": said, "password": {Text: token}}},
		"password": {Text: token}}}}, // XEP-0045
	NSMUC:             {"x": {}},
	"urn:xmpp:hats:0": {"hats": {Own: Forms{"hat": {Attrs: Attrs{"uri": uri, "title": words}}}}}, // XEP-0317
}

// tellingIn is what people tell about themselves in presence, for rules with allow: [status].
var tellingIn = Table{
	nsClient:         {"status": {Text: words}},
	NSNick:           {"nick": {Text: words}},                                   // XEP-0172
	"jabber:iq:last": {"query": {Attrs: Attrs{"seconds": number}, Text: words}}, // XEP-0256
}

// wishing is what stands in a wish to see somebody's presence, and in the answer: a word
// to the person.
var wishing = Table{
	nsClient:           {"status": said},
	"urn:xmpp:pars:0":  {"preauth": {Attrs: Attrs{"token": noBlank}}}, // XEP-0379
	"urn:xmpp:moved:1": presenceIn["urn:xmpp:moved:1"],
}

// PresenceIn appends presence as the client gets it; unchanged, where it can stay as it is.
// Room says that it is from a room that the client wants to be in. It reports false where
// there is no such presence.
func (v Voice) PresenceIn(dst []byte, root stanza.Element, rule *config.Rule, room bool) (out []byte, unchanged, ok bool) {
	typ := root.Attr("type")
	if !slices.Contains(presenceTypes, typ) {
		return dst, false, false
	}
	if typ == "error" {
		if v.fit(root, failed(contactsFailure)) {
			return dst, true, true
		}
		w := &anew{Voice: v, dst: dst}
		w.failed(root, contactsFailure, false, nil)
		return w.dst, false, true
	}
	var few [4]Table
	tables := append(few[:0], presenceIn)
	switch {
	case typ != "" && typ != "unavailable":
		tables = append(few[:0], wishing)
	case room:
		tables = append(tables, occupantIn, tellingIn)
	}
	if rule.Allows(config.Status) {
		tables = append(tables, tellingIn)
	}
	if v.fit(root, tables) {
		return dst, true, true
	}
	w := &anew{Voice: v, dst: append(dst, "<presence"...)}
	w.addressing(root, words)
	w.dst = append(w.dst, '>')
	from := len(w.dst)
	for el := range root.Children() {
		if f := find(tables, el); f != nil {
			w.element(f, el, []byte(nsClient))
		}
	}
	w.close(root, from)
	return w.dst, false, true
}

// fit reports whether a stanza holds what is listed and nothing else, written without
// prefixes, and nothing in it has to be quoted or marked.
func (v Voice) fit(root stanza.Element, tables []Table) bool {
	for name, value := range root.AttrNames() {
		if !addressing(name, value) {
			return false
		}
	}
	if !plainName(root) || !blank(root.TextBytes()) {
		return false
	}
	for el := range root.Children() {
		f := find(tables, el)
		if f == nil || !f.fits(el, &v) {
			return false
		}
	}
	return true
}

// plainBelow reports whether an element whose words may pass can stay as it is.
func (v Voice) plainBelow(el stanza.Element) bool {
	if !plainName(el) || !v.Untouched(el) {
		return false
	}
	for d := range el.Descendants() {
		if !plainName(d) {
			return false
		}
	}
	return true
}

// plainName reports whether an element is written without a prefix.
func plainName(el stanza.Element) bool { return len(el.Name()) == len(el.Local()) }

// addressing reports whether an attribute is one of those every stanza may have (RFC 6120
// section 8.1), or declares a namespace.
func addressing(name string, value []byte) bool {
	switch name {
	case "to", "from", "id", "type":
		return true
	case "xml:lang":
		return language(value)
	}
	return declares(name, value)
}

// presenceTypes are those of RFC 6121 section 4.7.1.
var presenceTypes = strings.Split(",unavailable,subscribe,subscribed,unsubscribe,unsubscribed,probe,error", ",")
