package relay

import (
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
