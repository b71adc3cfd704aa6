package proxy

import (
	"strings"

	"otrproxy/config"
	"otrproxy/proxy/filter"
	"otrproxy/stanza"
)

// What a person writes can stand in presence and in requests as well. Where the rules
// demand encryption, what may leave in them is listed in the tables of filter; the rest
// is left out.

// outPresence notes who may see our presence and which rooms are joined. Status text is
// what the person wrote: it passes to everybody and to rooms, where the rule says so, and
// never to one contact, who gets the presence without it.
func (s *session) outPresence(st *stanza.Stanza, to address) {
	root := st.Root()
	typ := root.Attr("type")
	everybody := to.bare == "" || s.isRoom(to.bare) // also where it leaves
	s.announced(typ)
	if len(root.RawAttr("to")) == 0 {
		s.attends(root)
	}
	if typ == "" && len(root.RawAttr("to")) == 0 {
		s.knowsProgram(root)
		first := false
		s.greet.Do(func() { first = true })
		if first {
			defer s.arrived() // after the presence itself
		}
	}
	if to.ok {
		_, joins := root.Child(filter.NSMUC, "x")
		switch {
		case typ == "" && joins:
			s.rooms.asks(to.bare)
		case typ == "unavailable" && to.resource:
			s.rooms.leaves(to.bare)
		case typ == "" || typ == "subscribed":
			s.contacts.watches(to.bare, true)
		case typ == "unsubscribed":
			s.contacts.watches(to.bare, false)
		}
	}
	rule := s.ruledOut.by(s.r.config(), s.jid, to.bare)
	strict := s.strict(rule, to.bare)
	if strict {
		if !filter.PresenceType(typ) {
			s.refuse(root, stanza.Error{Type: "modify", Condition: "bad-request", Text: "This is no type of presence."})
			return
		}
		if s.foreign(root) {
			return
		}
	}
	s.server.stanza(func(b []byte) []byte {
		if strict {
			return filter.PresenceOut(b, st, rule, everybody)
		}
		return append(b, st.Raw...)
	})
	s.r.metrics.count(out, presence, passed)
}

// strict reports whether nothing a person wrote may leave for a contact in clear: the
// rule demands encryption, or the conversation is or was private.
func (s *session) strict(rule *config.Rule, contact string) bool {
	return rule.Policy.Requires() || contact != "" && rule.Policy != config.Never && s.account().Private(contact)
}

// foreign refuses a stanza that says it is from somebody else than the account, which no
// server takes (RFC 6120 section 8.1.2.1), but reads; and from a resource in words that is
// not the client's.
func (s *session) foreign(root stanza.Element) bool {
	written := root.Attr("from")
	if written == "" || written == s.full() {
		return false
	}
	if from := s.r.addresses.of(root, "from"); from.ok && from.bare == s.jid && !strings.ContainsAny(written, " \t\n\r\u00a0") {
		return false
	}
	s.refuse(root, stanza.Error{Type: "modify", Condition: "bad-request", Text: "This is not your address."})
	return true
}

// outIQ guards requests, learns the bound resource, and asks for whole rosters, from
// which we learn who may see our presence.
func (s *session) outIQ(st *stanza.Stanza, to address) {
	root := st.Root()
	typ := root.Attr("type")
	switch {
	case (typ == "result" || typ == "error") && s.answersPush(root.AttrBytes("id")):
		return
	}
	about, over := s.aboutUs(st)
	if over {
		return
	}
	cfg := s.r.config()
	rule := s.ruledOut.by(cfg, s.jid, to.bare)
	raw := st.Raw
	if about != nil {
		raw = about.AppendTo(nil)
	}
	if s.strict(rule, to.bare) {
		if s.foreign(root) {
			return
		}
		addressee := s.requestTo(to)
		what := filter.RequestOut(root, addressee, rule)
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
			raw = filter.AppendBareError(nil, root)
		default:
			var ok bool
			if raw, ok = filter.AnswerOut(root, addressee, rule); !ok { // whoever asked is told, and not left waiting
				raw = stanza.AppendError(nil, "iq", "", root.Attr("to"), root.Attr("id"), stanza.Error{Type: "cancel", Condition: "service-unavailable"})
			}
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
	s.r.metrics.count(out, iq, passed)
}

// requestTo says who a request is for.
func (s *session) requestTo(to address) filter.To {
	switch {
	case to.bare == "", to.bare == s.jid, !strings.Contains(to.bare, "@"):
		return filter.ToServer
	case s.isRoom(to.bare), s.ofRooms(to.bare):
		return filter.ToRoom
	}
	return filter.ToContact
}
