package filter

import (
	"strings"

	"otrproxy/stanza"
)

// conditions are the stanza error conditions of RFC 6120 section 8.3.3.
var conditions = empty(`
	bad-request conflict feature-not-implemented forbidden gone internal-server-error
	item-not-found jid-malformed not-acceptable not-allowed not-authorized
	policy-violation recipient-unavailable redirect registration-required remote-server-not-found remote-server-timeout
	resource-constraint service-unavailable subscription-required undefined-condition unexpected-request payment-required`)

// empty are elements with nothing in them.
func empty(names string) Forms {
	all := Forms{}
	for _, name := range strings.Fields(names) {
		all[name] = &Form{}
	}
	return all
}

// with are forms and one more.
func (f Forms) with(name string, one *Form) Forms {
	all := Forms{name: one}
	for k, v := range f {
		all[k] = v
	}
	return all
}

// failure is a stanza error. Its text is words, of a server or of a contact.
func failure(says bool) *Form {
	texts := conditions.with("text", &Form{Text: words, Says: says})
	texts["gone"], texts["redirect"] = &Form{Text: uri}, &Form{Text: uri}
	return &Form{
		Attrs: Attrs{"type": oneOf("auth", "cancel", "continue", "modify", "wait"), "code": number, "by": address},
		Inner: Table{
			stanza.NSStanzas:                      texts,
			"urn:xmpp:errors":                     empty("resource-limit-exceeded stanza-too-big too-many-stanzas"), // XEP-0205
			NSPubSub + "#errors":                  {"unsupported": {Attrs: Attrs{"feature": token}}, "closed-node": {}, "invalid-jid": {}, "item-required": {}, "jid-required": {}, "nodeid-required": {}, "pending-subscription": {}, "presence-subscription-required": {}, "not-subscribed": {}, "payload-too-big": {}, "precondition-not-met": {}, "item-forbidden": {}, "max-items-exceeded": {}},
			"urn:xmpp:http:upload:0":              {"file-too-large": {Own: Forms{"max-file-size": {Text: number}}}, "retry": {Attrs: Attrs{"stamp": stamp}}}, // XEP-0363
			"urn:xmpp:jingle:errors:1":            empty("out-of-order tie-break unknown-session unsupported-info security-required"),
			"http://jabber.org/protocol/si":       empty("no-valid-streams bad-profile"),
			"http://jabber.org/protocol/commands": empty("malformed-action bad-action bad-locale bad-payload bad-sessionid session-expired"),
			"urn:xmpp:blocking:errors":            empty("blocked"),
		},
	}
}

// Failures with text that is a contact's or in their name, and that of the account's own
// server.
var (
	contactsFailure = failure(true)
	serversFailure  = failure(false)
)

// failed is what may stand in a stanza that is an error: the error, and that it is about a
// room.
func failed(f *Form) []Table { return []Table{{nsClient: {"error": f}, NSMUC: {"x": {}}}} }

// AppendError appends an error of a contact's to a stanza of the client's, whose texts come
// with the mark of clear text. Before it stands what the caller knows of the client's stanza.
func (v Voice) AppendError(dst []byte, root stanza.Element, known []byte) []byte {
	w := &anew{Voice: v, dst: dst}
	w.failed(root, contactsFailure, false, known)
	return w.dst
}

// failed writes an error stanza with the error alone; within, where it stands in an element
// of another namespace.
func (w *anew) failed(root stanza.Element, f *Form, within bool, known []byte) {
	w.dst = append(append(w.dst, '<'), root.Local()...)
	if within {
		w.attr("xmlns", nsClient)
	}
	w.addressing(root, oneOf("error"))
	w.dst = append(append(w.dst, '>'), known...)
	if _, room := root.Child(NSMUC, "x"); room {
		w.dst = append(w.dst, "<x xmlns='"+NSMUC+"'/>"...)
	}
	el, ok := root.Child(nsClient, "error")
	if ok {
		w.element(f, el, []byte(nsClient))
	} else {
		w.dst = append(w.dst, "<error type='cancel'><undefined-condition xmlns='"+stanza.NSStanzas+"'/></error>"...)
	}
	w.dst = append(append(append(w.dst, "</"...), root.Local()...), '>')
}
