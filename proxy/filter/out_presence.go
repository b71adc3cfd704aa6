package filter

import (
	"slices"

	"otrproxy/config"
	"otrproxy/stanza"
)

// presenceForms may stand in presence that leaves, and not up to a rule.
var presenceForms = Table{
	nsClient:              {"show": {Text: show}, "priority": {Text: priority}},
	NSCaps:                {"c": {Attrs: Attrs{"node": program, "ver": version, "hash": hashName, "ext": bundles}, Again: again()}},                                                // XEP-0115
	"urn:xmpp:caps":       {"c": {Inner: Table{"urn:xmpp:hashes:2": hashesOut, "urn:xmpp:hashes:1": hashesOut, "urn:xmpp:hashes:0": hashesOut}}},                                   // XEP-0390
	"vcard-temp:x:update": {"x": {Own: Forms{"photo": {Text: matches(`\s*(?:[0-9A-Fa-f]{40})?\s*`)}, "nickname": {}}}},                                                             // XEP-0153
	"urn:xmpp:pars:0":     {"preauth": {Attrs: Attrs{"token": token}}},                                                                                                             // XEP-0379
	"urn:xmpp:idle:1":     {"idle": {Attrs: Attrs{"since": stamp}}},                                                                                                                // XEP-0319
	"jabber:x:signed":     signed,                                                                                                                                                  // XEP-0027
	NSMUC:                 {"x": {Own: Forms{"password": {Text: secret}, "history": {Attrs: Attrs{"maxchars": number, "maxstanzas": number, "seconds": number, "since": stamp}}}}}, // XEP-0045
}

var (
	hashesOut = Forms{"hash": {Attrs: Attrs{"algo": hashName}, Text: digest}} // XEP-0300
	hashName  = matches(`(?:md[0-9]|sha-?[0-9]{1,3}(?:-[0-9]{3})?|blake2[bs]-?[0-9]{3})`)
	// bundles are what older programs can do (XEP-0115, version 1.3).
	bundles = matches(`(?: ?(?:[a-z]{2,8}-v[0-9]|ca|cs|ep-notify(?:-[0-9])?|html|xhtml|xhtml-im|avatar|last|time|ver|mr))*`)
	// program is where a program is at home.
	program = matches(`[a-z]{1,16}:[!-~]{1,128}|[a-z0-9-]{1,32}(?:\.[a-z0-9-]{1,32})+`)
)

// digest is a hash of a known length, and as random as one.
var digest = remembering(func(s []byte) bool {
	b, ok := decoded(string(s))
	return ok && slices.Contains([]int{16, 20, 28, 32, 48, 64}, len(b)) && keyChance.random(b)
})

// version is a hash of what a program can do, or its number as older programs have it.
func version(s []byte) bool { return digest(s) || oldVersion(s) }

var oldVersion = matches(`[0-9]{1,6}(?:[.-][0-9a-z]{1,8}){0,6}`)

// tellingForms is what people say about themselves, for rules with allow: [status].
var tellingForms = Table{
	nsClient:         {"status": {Attrs: Attrs{"seconds": noBlank}, Text: words}},
	NSNick:           {"nick": {Text: words}},                                    // XEP-0172
	"jabber:iq:last": {"query": {Attrs: Attrs{"seconds": noBlank}, Text: words}}, // XEP-0256
}

var silentPresence, tellingPresence = []Table{presenceForms}, []Table{presenceForms, tellingForms}

// PresenceType reports whether a type is one of presence.
func PresenceType(typ string) bool { return slices.Contains(presenceTypes, typ) }

// PresenceOut is how presence leaves under a rule that demands encryption. What people say
// about themselves stays in it where everybody is told, as the rule says; to one contact it
// would be a message. An error is rebuilt, so that one is left.
func PresenceOut(dst []byte, st *stanza.Stanza, rule *config.Rule, everybody bool) []byte {
	root := st.Root()
	typ := root.Attr("type")
	if typ == "error" {
		return AppendBareError(dst, root)
	}
	tables := silentPresence
	if everybody && (typ == "" || typ == "unavailable") && rule.Allows(config.Status) {
		tables = tellingPresence
	}
	whole := blank(root.TextBytes()) && sober(root)
	for name, value := range root.AttrNames() {
		whole = whole && addressing(name, value) && (name != "id" || made(root.AttrBytes("id")))
	}
	for el := range root.Children() {
		f := find(tables, el)
		whole = whole && f != nil && f.fits(el, nil)
	}
	if whole {
		return append(dst, st.Raw...)
	}
	w := &anew{Voice: asItIs, dst: append(dst, "<presence"...)}
	for _, name := range []string{"from", "to", "type", "id", "xml:lang"} {
		raw := root.RawAttr(name)
		if value := root.AttrBytes(name); raw != nil && addressing(name, raw) && (name != "id" || made(value)) {
			w.dst = stanza.AppendAttr(w.dst, name, value)
		}
	}
	w.dst = append(w.dst, '>')
	from := len(w.dst)
	for el := range root.Children() {
		// A join is one even where something in it does not pass.
		if f := find(tables, el); f != nil && (f.fits(el, nil) || string(el.NS()) == NSMUC) {
			w.element(f, el, []byte(nsClient))
		}
	}
	w.close(root, from)
	return w.dst
}
