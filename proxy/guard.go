package proxy

import (
	"regexp"
	"strings"

	"otrproxy/config"
	"otrproxy/stanza"
)

// What a person writes can stand in presence and in requests as well. Where the rules
// demand encryption, what may leave in them is listed here; the rest stays behind.

// presenceContent is what may stand in presence, by namespace, and what it may say
// there: what programs tell each other. Status text and the rest of what the person
// tells everybody about themselves is up to a rule.
var presenceContent = map[string]*regexp.Regexp{
	nsCaps:                blankOnly,                                 // XEP-0115
	"urn:xmpp:caps":       regexp.MustCompile(`^[A-Za-z0-9+/=\s]*$`), // XEP-0390: hashes
	"vcard-temp:x:update": regexp.MustCompile(`^[0-9A-Fa-f\s]*$`),    // XEP-0153: a hash
	"urn:xmpp:idle:1":     blankOnly,                                 // XEP-0319: a time
	nsMUC:                 nil,                                       // XEP-0045: joining a room, with its password
	"jabber:x:signed":     base64Only,                                // XEP-0027: a signature
}

var (
	blankOnly = regexp.MustCompile(`^\s*$`)
	show      = regexp.MustCompile(`^\s*(?:away|chat|dnd|xa)?\s*$`)
	priority  = regexp.MustCompile(`^\s*[+-]?[0-9]{1,3}\s*$`)
	language  = regexp.MustCompile(`^[A-Za-z0-9]{1,8}(?:-[A-Za-z0-9]{1,8})*$`)
)

// mayStand reports whether something may stand in a presence stanza.
func mayStand(el stanza.Element, rule *config.Rule) bool {
	ns, local := string(el.NS()), string(el.Local())
	switch {
	case ns == nsNick, ns == "jabber:iq:last", ns == stanza.NSClient && local == "status":
		return rule.Allows(config.Status) && !el.HasChildren()
	case ns == stanza.NSClient:
		form := map[string]*regexp.Regexp{"show": show, "priority": priority}[local]
		return form != nil && !el.HasChildren() && form.MatchString(el.Text())
	}
	form, listed := presenceContent[ns]
	return listed && (form == nil || form.MatchString(el.Text()+allText(el)))
}

// outPresence notes who may see our presence and which rooms are joined. Status
// text is what the person wrote: it passes where the rule says so.
func (s *session) outPresence(st *stanza.Stanza, to address) {
	root := st.Root()
	typ := root.Attr("type")
	if to.ok {
		_, joins := root.Child(nsMUC, "x")
		switch {
		case typ == "" && joins:
			s.mu.Lock()
			s.rooms[to.bare] = true
			s.mu.Unlock()
		case typ == "unavailable" && to.resource:
			s.mu.Lock()
			delete(s.rooms, to.bare)
			s.mu.Unlock()
		case typ == "" || typ == "subscribed":
			s.setWelcome(to.bare, true)
		case typ == "unsubscribed":
			s.setWelcome(to.bare, false)
		}
	}
	rule := s.p.Config().RuleFor(s.jid, to.bare)
	e := st.Edit()
	if rule.Policy.Requires() {
		for el := range root.Children() {
			if !mayStand(el, rule) {
				e.Remove(el)
			}
		}
		if !blank([]byte(root.Text())) {
			e.RemoveText(root)
		}
		for name, value := range root.AttrNames() {
			if !addressing(name) || name == "xml:lang" && !language.Match(value) {
				e.RemoveAttr(root, name)
			}
		}
	}
	if e.Changed() {
		s.server.stanza(e.AppendTo)
	} else {
		s.server.stanza(func(b []byte) []byte { return append(b, st.Raw...) })
	}
	s.p.metrics.count(out, presence, passed)
}

// addressing reports whether an attribute is one of those every stanza may have
// (RFC 6120 section 8.1), or declares a namespace.
func addressing(name string) bool {
	switch name {
	case "to", "from", "id", "type", "xml:lang", "xmlns":
		return true
	}
	return strings.HasPrefix(name, "xmlns:")
}

// fileNamespaces carry content that OTR cannot protect: files, and calls.
var fileNamespaces = map[string]bool{
	"http://jabber.org/protocol/ibb":         true,
	"http://jabber.org/protocol/si":          true,
	"http://jabber.org/protocol/bytestreams": true,
	"urn:xmpp:http:upload:0":                 true,
	"urn:xmpp:http:upload":                   true,
	"eu:siacs:conversations:http:upload":     true,
	"jabber:iq:oob":                          true,
	"urn:xmpp:bob":                           true,
	"urn:xmpp:jingle:1":                      true,
	"http://www.google.com/session":          true,
}

// requestable is what a request to a contact's program may be about, and answerable
// what a request of a contact's may be answered with: what programs tell each other
// about themselves.
var (
	requestable = map[string]bool{
		"urn:xmpp:ping":                          true,
		"http://jabber.org/protocol/disco#info":  true,
		"http://jabber.org/protocol/disco#items": true,
		"jabber:iq:version":                      true,
		"jabber:iq:time":                         true,
		"urn:xmpp:time":                          true,
		"jabber:iq:last":                         true,
		"jabber:iq:avatar":                       true,
		"vcard-temp":                             true,
		"urn:ietf:params:xml:ns:vcard-4.0":       true,
		"http://jabber.org/protocol/pubsub":      true,
	}
	answerable = map[string]bool{
		"urn:xmpp:ping":                          true,
		"http://jabber.org/protocol/disco#info":  true,
		"http://jabber.org/protocol/disco#items": true,
		"jabber:iq:version":                      true,
		"jabber:iq:time":                         true,
		"urn:xmpp:time":                          true,
		"jabber:iq:last":                         true,
	}
)

// outIQ guards requests, learns the bound resource, and asks for whole rosters, from
// which we learn who may see our presence.
func (s *session) outIQ(st *stanza.Stanza, to address) {
	root := st.Root()
	typ := root.Attr("type")
	cfg := s.p.Config()
	rule := cfg.RuleFor(s.jid, to.bare)
	raw := st.Raw
	if rule.Policy.Requires() {
		what := s.unguarded(root, typ, to, rule)
		switch {
		case what == "":
		case typ == "get" || typ == "set":
			contact := to.bare
			if contact == "" {
				contact = s.jid
			}
			s.unprotected(root, what, contact)
			return
		default: // whoever asked is told, and not left waiting
			raw = stanza.AppendError(nil, "iq", "", root.Attr("to"), root.Attr("id"), stanza.Error{Type: "cancel", Condition: "service-unavailable"})
		}
	}
	if bind, ok := root.Child(stanza.NSBind, "bind"); ok && typ == "set" && s.binding(root, bind) {
		return
	}
	if typ == "get" || typ == "set" {
		s.requests.request(s, root, to)
	}
	if q, ok := root.Child(nsRoster, "query"); ok && typ == "get" && len(q.RawAttr("ver")) > 0 && !cfg.HandsOff(s.jid) {
		e := st.Edit()
		e.SetAttr(q, "ver", "")
		raw = e.AppendTo(nil)
	}
	s.server.stanza(func(b []byte) []byte { return append(b, raw...) })
	s.p.metrics.count(out, iq, passed)
}

// unguarded names what a request or an answer holds that the rule does not let pass;
// "" for nothing.
func (s *session) unguarded(root stanza.Element, typ string, to address, rule *config.Rule) string {
	if file := carriesFile(root); file && !rule.Allows(config.Files) {
		return "files and calls (a rule with allow: [files] lets them pass)"
	} else if file {
		return ""
	}
	own := to.bare == "" || to.bare == s.jid || !strings.Contains(to.bare, "@")
	switch {
	case own && typ == "set":
		if !rule.Allows(config.Status) && personal(root) {
			return "what you tell everybody about yourself (a rule with allow: [status] lets it pass)"
		}
		return ""
	case own:
		return ""
	case s.isRoom(to.bare) && rule.Allows(config.Groupchat):
		return ""
	}
	for name := range root.AttrNames() {
		if !addressing(name) {
			return "an attribute of a request"
		}
	}
	listed := map[string]map[string]bool{"get": requestable, "result": answerable}[typ]
	for el := range root.Children() {
		if typ == "error" && string(el.NS()) == stanza.NSClient && string(el.Local()) == "error" {
			if !blank([]byte(el.Text())) {
				return "the text of an error"
			}
			for c := range el.Children() {
				if string(c.NS()) != stanza.NSStanzas || !conditions.Match(c.Local()) || speaks(c) {
					return "the text of an error"
				}
			}
			continue
		}
		if !listed[string(el.NS())] {
			return "an extension of your program (" + clip(string(el.Local())) + ")"
		}
		if ns := string(el.NS()); (typ == "get" || ns == "jabber:iq:last") && speaks(el) {
			return "text in a request"
		}
	}
	if !blank([]byte(root.Text())) {
		return "text in a request"
	}
	return ""
}

// speaks reports whether there is any text in an element.
func speaks(el stanza.Element) bool {
	for d := range el.Descendants() {
		if !blank([]byte(d.Text())) {
			return true
		}
	}
	return !blank([]byte(el.Text()))
}

// personal reports whether a request publishes what a person tells about themselves:
// vCard, personal events (XEP-0163), private notes (XEP-0049). Keys of other
// end-to-end encryption are none of that.
func personal(root stanza.Element) bool {
	for el := range root.Children() {
		switch string(el.NS()) {
		case "vcard-temp", "urn:ietf:params:xml:ns:vcard-4.0", "jabber:iq:private", "jabber:iq:avatar":
			return true
		case "http://jabber.org/protocol/pubsub":
			if p, ok := el.Child("http://jabber.org/protocol/pubsub", "publish"); ok && !keyNode(p.Attr("node")) {
				return true
			}
		}
	}
	return false
}

func keyNode(node string) bool {
	for _, of := range []string{"eu.siacs.conversations.axolotl", "urn:xmpp:omemo:", "urn:xmpp:openpgp:"} {
		if strings.HasPrefix(node, of) {
			return true
		}
	}
	return false
}

// carriesFile looks at every element of a request: a file is one wherever it stands.
func carriesFile(root stanza.Element) bool {
	for d := range root.Descendants() {
		ns := string(d.NS())
		if fileNamespaces[ns] || strings.HasPrefix(ns, "urn:xmpp:jingle:apps:") {
			return true
		}
	}
	return false
}

// tellOfRoom says once per room that it is not encrypted.
func (s *session) tellOfRoom(room string) {
	if policy := s.p.Config().RuleFor(s.jid, room).Policy; policy == config.Never || policy == config.Manual {
		return
	}
	key := s.jid + " " + room
	s.p.mu.Lock()
	told := s.p.toldOf[key]
	if len(s.p.toldOf) < maxToldRooms {
		s.p.toldOf[key] = true
	}
	s.p.mu.Unlock()
	if !told {
		s.notice(room, "groupchat", "This room is not encrypted: OTR is for two people. Its server, and everybody who may come in, read what is said here.")
	}
}

// maxToldRooms bounds it.
const maxToldRooms = 10_000
