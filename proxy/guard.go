package proxy

import (
	"regexp"
	"slices"
	"strings"

	"otrproxy/config"
	"otrproxy/stanza"
)

// What a person writes can stand in presence and in requests as well. Where the rules
// demand encryption, what may leave in them is listed here; the rest stays behind.

// A form is what an element may hold: attributes, text, and children. What programs
// tell each other has one; what people write has none.
type form struct {
	attrs string         // names, with blanks between them
	text  *regexp.Regexp // nil for none
	inner map[string]form
}

var (
	anyText  = regexp.MustCompile(``)
	show     = regexp.MustCompile(`^\s*(?:away|chat|dnd|xa)?\s*$`)
	priority = regexp.MustCompile(`^\s*[+-]?[0-9]{1,3}\s*$`)
	hexOnly  = regexp.MustCompile(`^[0-9A-Fa-f\s]*$`)
	uri      = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*:[!-~]+$`)
	tokens   = regexp.MustCompile(`^[a-z0-9-]*(?: [a-z0-9-]+)*$`)
	noBlank  = regexp.MustCompile(`^[!-~]*$`)
	language = regexp.MustCompile(`^[A-Za-z]{2,3}(?:-[A-Za-z0-9]{1,8})*$`)
)

// fits reports whether an element is of a form.
func (f form) fits(el stanza.Element) bool {
	for name, value := range el.AttrNames() {
		switch {
		case name == "xmlns", strings.HasPrefix(name, "xmlns:") && uri.Match(value), name == "xml:lang" && language.Match(value):
		case !slices.Contains(strings.Fields(f.attrs), name), name == "ext" && !tokens.Match(value), name != "ext" && name != "name" && !noBlank.Match(value):
			return false
		}
	}
	if text := el.Text(); f.text == nil && strings.TrimSpace(text) != "" || f.text != nil && !f.text.MatchString(text) {
		return false
	}
	for c := range el.Children() {
		ns := string(c.NS())
		if inner, ok := f.inner[string(c.Local())]; !ok || ns != string(el.NS()) && ns != "jabber:x:data" && ns != "http://jabber.org/protocol/rsm" || !inner.fits(c) {
			return false
		}
	}
	return true
}

// name is what forms are listed under.
func name(el stanza.Element) string { return string(el.NS()) + " " + string(el.Local()) }

// In presence, and not up to a rule.
var presenceForms = map[string]form{
	stanza.NSClient + " show":     {text: show},
	stanza.NSClient + " priority": {text: priority},
	nsCaps + " c":                 {attrs: "node ver hash ext"},                                                                                   // XEP-0115
	"urn:xmpp:caps c":             {inner: map[string]form{"hash": {attrs: "algo", text: base64Only}}},                                            // XEP-0390
	"vcard-temp:x:update x":       {inner: map[string]form{"photo": {text: hexOnly}, "nickname": {}}},                                             // XEP-0153
	"urn:xmpp:pars:0 preauth":     {attrs: "token"},                                                                                               // XEP-0379
	"urn:xmpp:idle:1 idle":        {attrs: "since"},                                                                                               // XEP-0319
	"jabber:x:signed x":           {text: base64Only},                                                                                             // XEP-0027
	nsMUC + " x":                  {inner: map[string]form{"password": {text: anyText}, "history": {attrs: "maxchars maxstanzas seconds since"}}}, // XEP-0045
}

// mayStand reports whether something may stand in a presence stanza.
func mayStand(el stanza.Element, rule *config.Rule) bool {
	switch n := name(el); n {
	case stanza.NSClient + " status", nsNick + " nick", "jabber:iq:last query": // XEP-0172, XEP-0256
		return rule.Allows(config.Status) && form{attrs: "seconds", text: anyText}.fits(el)
	default:
		f, listed := presenceForms[n]
		return listed && f.fits(el)
	}
}

// outPresence notes who may see our presence and which rooms are joined. Status
// text is what the person wrote: it passes where the rule says so.
func (s *session) outPresence(st *stanza.Stanza, to address) {
	root := st.Root()
	typ := root.Attr("type")
	s.announced(typ)
	if len(root.RawAttr("to")) == 0 {
		s.attends(root)
	}
	if typ == "" && len(root.RawAttr("to")) == 0 {
		first := false
		s.greet.Do(func() { first = true })
		if first {
			defer s.arrived() // behind the presence itself
		}
	}
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
	if s.strict(rule, to.bare) {
		if !slices.Contains(presenceTypes, typ) {
			s.refuse(root, stanza.Error{Type: "modify", Condition: "bad-request", Text: "This is no type of presence."})
			return
		}
		for el := range root.Children() {
			if !mayStand(el, rule) {
				e.Remove(el)
			}
		}
		if strings.TrimSpace(root.Text()) != "" {
			e.RemoveText(root)
		}
		for name, value := range root.AttrNames() {
			if !addressing(name, value) {
				e.RemoveAttr(root, name)
			}
		}
	}
	s.server.stanza(e.AppendTo)
	s.p.metrics.count(out, presence, passed)
}

// presenceTypes are those of RFC 6121 section 4.7.1.
var presenceTypes = []string{"", "unavailable", "subscribe", "subscribed", "unsubscribe", "unsubscribed", "probe", "error"}

// strict reports whether nothing a person wrote may leave for a contact in clear: the
// rule demands encryption, or the conversation is or was private.
func (s *session) strict(rule *config.Rule, contact string) bool {
	return rule.Policy.Requires() || contact != "" && rule.Policy != config.Never && s.account.Private(contact)
}

// addressing reports whether an attribute is one of those every stanza may have
// (RFC 6120 section 8.1), or declares a namespace.
func addressing(name string, value []byte) bool {
	switch name {
	case "to", "from", "id", "type", "xmlns":
		return true
	case "xml:lang":
		return language.Match(value)
	}
	return strings.HasPrefix(name, "xmlns:") && uri.Match(value)
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

// What a request to a contact's program may hold, and what one of a contact's may be
// answered with.
var (
	requestForms = map[string]form{
		"urn:xmpp:ping ping":                           {},
		"http://jabber.org/protocol/disco#info query":  {attrs: "node"},
		"http://jabber.org/protocol/disco#items query": {attrs: "node"},
		"jabber:iq:version query":                      {},
		"jabber:iq:time query":                         {},
		"jabber:iq:last query":                         {},
		"jabber:iq:avatar query":                       {},
		"urn:xmpp:time time":                           {},
		"vcard-temp vCard":                             {},
		"urn:ietf:params:xml:ns:vcard-4.0 vcard":       {},
		"http://jabber.org/protocol/muc#owner query":   {},
		"http://jabber.org/protocol/muc#admin query":   {inner: map[string]form{"item": {attrs: "affiliation role"}}},
		"http://jabber.org/protocol/pubsub pubsub":     {inner: map[string]form{"items": {attrs: "node max_items", inner: map[string]form{"item": {attrs: "id"}}}}},
	}
	// Of rooms, whose members and archive may be read where nothing may be said there.
	archiveForm = form{attrs: "queryid node", inner: map[string]form{
		"x":   {attrs: "type", inner: map[string]form{"field": {attrs: "var type", inner: map[string]form{"value": {text: regexp.MustCompile(`^(?:urn:xmpp:mam:[0-9]|[0-9TZ:.+-]*)$`)}}}}},
		"set": {inner: map[string]form{"max": {text: noBlank}, "before": {text: noBlank}, "after": {text: noBlank}, "index": {text: noBlank}}}}}
	settingForms = map[string]form{
		"urn:xmpp:mam:1 query":                       archiveForm,
		"urn:xmpp:mam:2 query":                       archiveForm,
		"http://jabber.org/protocol/muc#owner query": {inner: map[string]form{"x": {attrs: "type"}}}, // a room as it comes (XEP-0045 section 10.1.2)
	}
	answerForms = map[string]form{
		"urn:xmpp:ping ping": {},
		"http://jabber.org/protocol/disco#info query": {attrs: "node", inner: map[string]form{
			"identity": {attrs: "category type name"}, "feature": {attrs: "var"},
			"x": {attrs: "type", inner: map[string]form{"field": {attrs: "var type", inner: map[string]form{"value": {text: anyText}}}}}}},
		"http://jabber.org/protocol/disco#items query": {attrs: "node", inner: map[string]form{"item": {attrs: "jid node name"}}},
		"jabber:iq:version query":                      {inner: map[string]form{"name": {text: anyText}, "version": {text: anyText}, "os": {text: anyText}}},
		"jabber:iq:time query":                         {inner: map[string]form{"utc": {text: anyText}, "tz": {text: anyText}, "display": {text: anyText}}},
		"urn:xmpp:time time":                           {inner: map[string]form{"utc": {text: anyText}, "tzo": {text: anyText}}},
		"jabber:iq:last query":                         {attrs: "seconds"},
	}
)

// outIQ guards requests, learns the bound resource, and asks for whole rosters, from
// which we learn who may see our presence.
func (s *session) outIQ(st *stanza.Stanza, to address) {
	root := st.Root()
	typ := root.Attr("type")
	switch {
	case (typ == "result" || typ == "error") && s.answersPush(root.Attr("id")):
		return
	}
	about, over := s.aboutUs(st)
	if over {
		return
	}
	cfg := s.p.Config()
	rule := cfg.RuleFor(s.jid, to.bare)
	raw := st.Raw
	if about != nil {
		raw = about.AppendTo(nil)
	}
	if s.strict(rule, to.bare) {
		what := s.unguarded(root, typ, to, rule)
		switch {
		case what == "":
		case typ != "result" && typ != "error":
			contact := to.bare
			if contact == "" {
				contact = s.jid
			}
			s.unprotected(root, what, contact)
			return
		case typ == "error":
			raw = appendBareError(nil, root)
		default: // whoever asked is told, and not left waiting
			raw = stanza.AppendError(nil, "iq", "", root.Attr("to"), root.Attr("id"), stanza.Error{Type: "cancel", Condition: "service-unavailable"})
		}
	}
	if bind, ok := root.Child(stanza.NSBind, "bind"); ok && typ == "set" && s.binding(root, bind) {
		return
	}
	if typ == "get" || typ == "set" {
		s.requests.request(s, root, to)
		s.wantsCarbons(root)
		s.changes(root, to)
	}
	if q, ok := root.Child(nsRoster, "query"); ok && about == nil && typ == "get" && len(q.RawAttr("ver")) > 0 && !cfg.HandsOff(s.jid) {
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
	for name, value := range root.AttrNames() {
		if !addressing(name, value) {
			return "an attribute of a request"
		}
	}
	if !slices.Contains([]string{"get", "set", "result", "error"}, typ) {
		return "a request of an unknown type"
	}
	if strings.TrimSpace(root.Text()) != "" {
		return "text in a request"
	}
	forms := map[string]map[string]form{"get": requestForms, "set": settingForms, "result": answerForms}[typ]
	for el := range root.Children() {
		if f, listed := forms[name(el)]; !listed || !f.fits(el) {
			return "an extension of your program (" + clip(string(el.Local())) + ")"
		}
	}
	if typ == "error" {
		return "the text of an error"
	}
	return ""
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
			for p := range el.Children() {
				if string(p.Local()) == "publish" && !keyNode(p.Attr("node")) {
					return true
				}
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
