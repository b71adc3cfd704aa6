package relay

import (
	"strings"

	"otrproxy/proxy/address"
	"otrproxy/proxy/filter"
	"otrproxy/proxy/metrics"
	"otrproxy/stanza"
)

// outIQ guards requests, learns the bound resource, and asks for whole rosters, from
// which we learn who may see our presence.
func (s *Session) outIQ(st *stanza.Stanza, to address.JID) {
	root := st.Root()
	typ := root.Attr("type")
	switch {
	case (typ == "result" || typ == "error") && s.contact.Answers(root.AttrBytes("id")):
		return
	}
	about, over := s.contact.WithoutUs(st)
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
