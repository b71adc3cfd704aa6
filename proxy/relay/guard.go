package relay

import (
	"strings"

	"otrproxy/config"
	"otrproxy/proxy/address"
	"otrproxy/proxy/filter"
	"otrproxy/proxy/metrics"
	"otrproxy/stanza"
)

// What a person writes can stand in presence and in requests as well. Where the rules
// demand encryption, what may leave in them is listed in the tables of filter; the rest
// is left out.

// outPresence notes who may see our presence and which rooms are joined. Status text is
// what the person wrote: it passes to everybody and to rooms, where the rule says so, and
// never to one contact, who gets the presence without it.
func (s *Session) outPresence(st *stanza.Stanza, to address.JID) {
	root := st.Root()
	typ := root.Attr("type")
	everybody := to.Bare == "" || s.isRoom(to.Bare) // also where it leaves
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
	if to.OK {
		_, joins := root.Child(filter.NSMUC, "x")
		switch {
		case typ == "" && joins:
			s.rooms.asks(to.Bare)
		case typ == "unavailable" && to.Resource:
			s.rooms.leaves(to.Bare)
		case typ == "" || typ == "subscribed":
			s.contacts.watches(to.Bare, true)
		case typ == "unsubscribed":
			s.contacts.watches(to.Bare, false)
		}
	}
	rule := s.ruledOut.by(s.r.config(), s.jid, to.Bare)
	strict := s.strict(rule, to.Bare)
	if strict {
		if !filter.PresenceType(typ) {
			s.refuse(root, stanza.Error{Type: "modify", Condition: "bad-request", Text: "This is no type of presence."})
			return
		}
		if s.foreign(root) {
			return
		}
	}
	s.server.Stanza(func(b []byte) []byte {
		if strict {
			return filter.PresenceOut(b, st, rule, everybody)
		}
		return append(b, st.Raw...)
	})
	s.r.Metrics.Count(metrics.Out, metrics.Presence, metrics.Passed)
}

// strict reports whether nothing a person wrote may leave for a contact in clear: the
// rule demands encryption, or the conversation is or was private.
func (s *Session) strict(rule *config.Rule, contact string) bool {
	return rule.Policy.Requires() || contact != "" && rule.Policy != config.Never && s.Account().Private(contact)
}

// foreign refuses a stanza that says it is from somebody else than the account, which no
// server takes (RFC 6120 section 8.1.2.1), but reads; and from a resource in words that is
// not the client's.
func (s *Session) foreign(root stanza.Element) bool {
	written := root.Attr("from")
	if written == "" || written == s.full() {
		return false
	}
	if from := s.r.addresses.Of(root, "from"); from.OK && from.Bare == s.jid && !strings.ContainsAny(written, " \t\n\r\u00a0") {
		return false
	}
	s.refuse(root, stanza.Error{Type: "modify", Condition: "bad-request", Text: "This is not your address."})
	return true
}

// outIQ guards requests, learns the bound resource, and asks for whole rosters, from
// which we learn who may see our presence.
func (s *Session) outIQ(st *stanza.Stanza, to address.JID) {
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
	rule := s.ruledOut.by(cfg, s.jid, to.Bare)
	raw := st.Raw
	if about != nil {
		raw = about.AppendTo(nil)
	}
	if s.strict(rule, to.Bare) {
		if s.foreign(root) {
			return
		}
		addressee := s.requestTo(to)
		what := filter.RequestOut(root, addressee, rule)
		switch {
		case what == "":
		case typ != "result" && typ != "error":
			contact := to.Bare
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
	s.server.Stanza(func(b []byte) []byte { return append(b, raw...) })
	s.r.Metrics.Count(metrics.Out, metrics.IQ, metrics.Passed)
}

// requestTo says who a request is for.
func (s *Session) requestTo(to address.JID) filter.To {
	switch {
	case to.Bare == "", to.Bare == s.jid, !strings.Contains(to.Bare, "@"):
		return filter.ToServer
	case s.isRoom(to.Bare), s.ofRooms(to.Bare):
		return filter.ToRoom
	}
	return filter.ToContact
}
