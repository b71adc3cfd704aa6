package filter

import (
	"slices"

	"otrproxy/config"
	"otrproxy/stanza"
)

// presenceForms may stand in presence that leaves, and not up to a rule.
var presenceForms = Table{
	nsClient:              {"show": {Text: show}, "priority": {Text: priority}},
	NSCaps:                {"c": {Attrs: Attrs{"node": noBlank, "ver": noBlank, "hash": noBlank, "ext": tokens}}},                                                                      // XEP-0115
	"urn:xmpp:caps":       {"c": {Inner: Table{"urn:xmpp:hashes:2": hashes, "urn:xmpp:hashes:1": hashes, "urn:xmpp:hashes:0": hashes}}},                                                // XEP-0390
	"vcard-temp:x:update": {"x": {Own: Forms{"photo": {Text: hexDigits}, "nickname": {}}}},                                                                                             // XEP-0153
	"urn:xmpp:pars:0":     {"preauth": {Attrs: Attrs{"token": noBlank}}},                                                                                                               // XEP-0379
	"urn:xmpp:idle:1":     {"idle": {Attrs: Attrs{"since": noBlank}}},                                                                                                                  // XEP-0319
	"jabber:x:signed":     {"x": {Text: base64Text}},                                                                                                                                   // XEP-0027
	NSMUC:                 {"x": {Own: Forms{"password": {Text: words}, "history": {Attrs: Attrs{"maxchars": noBlank, "maxstanzas": noBlank, "seconds": noBlank, "since": noBlank}}}}}, // XEP-0045
}

var hashes = Forms{"hash": {Attrs: Attrs{"algo": algorithm}, Text: base64Bytes}} // XEP-0300

// tellingForms is what people say about themselves, for rules with allow: [status].
var tellingForms = Table{
	nsClient:         {"status": {Attrs: Attrs{"seconds": noBlank}, Text: words}},
	NSNick:           {"nick": {Text: words}},                                    // XEP-0172
	"jabber:iq:last": {"query": {Attrs: Attrs{"seconds": noBlank}, Text: words}}, // XEP-0256
}

// PresenceType reports whether a type is one of presence.
func PresenceType(typ string) bool { return slices.Contains(presenceTypes, typ) }

// PresenceOut takes out of presence what may not leave under a rule that demands
// encryption. An error is rebuilt, so that one is left.
func PresenceOut(st *stanza.Stanza, rule *config.Rule) func(dst []byte) []byte {
	root := st.Root()
	if root.Attr("type") == "error" {
		return func(dst []byte) []byte { return AppendBareError(dst, root) }
	}
	tables := []Table{presenceForms}
	if rule.Allows(config.Status) {
		tables = append(tables, tellingForms)
	}
	e := st.Edit()
	for el := range root.Children() {
		if f, ok := find(tables, el); !ok || !f.fits(el, nil) {
			e.Remove(el)
		}
	}
	if !blank(root.Text()) {
		e.RemoveText(root)
	}
	for name, value := range root.AttrNames() {
		if !addressing(name, value) {
			e.RemoveAttr(root, name)
		}
	}
	return e.AppendTo
}
