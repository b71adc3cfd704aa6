package relay

import (
	"strings"

	"mellium.im/xmpp/jid"

	"otrproxy/otrlayer"
	"otrproxy/proxy/address"
	"otrproxy/proxy/filter"
	"otrproxy/proxy/metrics"
	"otrproxy/proxy/service"
	"otrproxy/stanza"
)

// inIQ is the way of a request or an answer in.
func (s *Session) inIQ(st *stanza.Stanza, from address.JID) {
	root := st.Root()
	typ := root.Attr("type")
	handsOff := s.leftAlone(from)
	if (typ == "result" || typ == "error") && s.pulse.ponged(root) {
		return
	}
	if (typ == "result" || typ == "error") && !s.requests.answered(s, root, from) && !handsOff {
		s.r.Metrics.Count(metrics.In, metrics.IQ, metrics.Blocked)
		return // nobody has asked: CVE-2014-2744's kin would have an id guessed
	}
	home := s.home(from) == ""
	if (typ == "result" || typ == "error") && home {
		s.carbonsSettled(root)
		s.changed(root)
	}
	attaches := false
	defer func() {
		if attaches { // after the answer was queued, for the client now gets what it is owed
			s.attach()
		}
	}()
	var e *stanza.Edit // of what is said about the service contact
	rosters, impostors, n, services := 0, 0, 0, false
	fromServer := !from.OK || from.Bare == s.jid || from.Bare == address.DomainOf(s.jid)
	for el := range root.Children() {
		switch string(el.NS()) {
		case nsRoster:
			if !home || typ != "result" && from.Full == address.DomainOf(s.jid) {
				if typ == "set" && !handsOff { // CVE-2015-8688 and its kin: somebody else's roster push
					s.r.Metrics.Count(metrics.In, metrics.IQ, metrics.Blocked)
					return
				}
				continue
			}
			s.learnRoster(el)
			rosters++
			e, n = s.contact.Unclaimed(e, st, el)
			impostors += n
		case nsDiscoInfo:
			if typ == "result" {
				s.learnService(from, el)
			}
		case nsDiscoItems:
			e, n = s.contact.Unclaimed(e, st, el)
			impostors += n
			if typ == "result" && (from.Full == address.DomainOf(s.jid) || !from.OK) && el.Attr("node") == "" && !s.r.config().HandsOff(s.jid) && !services {
				services = true
				e = s.contact.Found(e, st, el)
			}
		case stanza.NSBind:
			if j, ok := el.Child(stanza.NSBind, "jid"); ok && typ == "result" && fromServer && s.resource.Load() == nil {
				if attaches = s.bound(j.Text()); !attaches {
					return
				}
			}
		}
	}
	if typ == "set" && rosters > 0 && impostors > 0 { // a push has one item (RFC 6121 section 2.1.6)
		s.r.Metrics.Count(metrics.In, metrics.IQ, metrics.Blocked)
		return
	}
	if e != nil {
		edited, err := stanza.Parse(e.AppendTo(nil))
		if err != nil { // it has a prefix that the stream's header declares
			s.r.log.Warn("an answer of a server could not be read again", "account", s.r.log.Name(s.jid))
			s.r.Metrics.Count(metrics.In, metrics.IQ, metrics.Blocked)
			return
		}
		st = edited
	}
	s.shownIQ(st, from, home, handsOff)
	if rosters > 0 && typ == "result" && fromServer && s.contact.Remembers(service.Listed) {
		s.contact.Push(true)
	}
}

// bound takes the address that the server has bound; false, and the session ends, where that is
// not the account's.
func (s *Session) bound(address string) bool {
	full, err := jid.Parse(address)
	if err != nil || full.Bare().String() != s.jid || full.Resourcepart() == "" {
		s.r.log.Warn("a server bound another address than the one that was logged in", "account", s.r.log.Name(s.jid))
		s.endBeside("undefined-condition", "The server bound another address than the one that was logged in.")
		return false
	}
	bound := full.String()
	s.resource.Store(&bound)
	s.counting()
	return true
}

// shownIQ hands a request or an answer to the client, as far as the rules let it pass.
func (s *Session) shownIQ(st *stanza.Stanza, from address.JID, home, handsOff bool) {
	root := st.Root()
	if handsOff {
		s.client.Queue(st.Raw)
		s.r.Metrics.Count(metrics.In, metrics.IQ, metrics.Passed)
		return
	}
	rule := s.ruleFor(from)
	r := filter.Request{Voice: s.voiceUnder(rule), Rule: rule, Own: home, Open: !s.expects(from)}
	if home || !strings.Contains(from.Bare, "@") || s.isRoom(from.Bare) || s.ofRooms(from.Bare) {
		r.From = filter.Service
	}
	passage := filter.Refused
	s.anew(func(b []byte) []byte {
		b, passage = r.AppendTo(b, root)
		if passage == filter.Unchanged {
			b = append(b, st.Raw...)
		}
		return b
	})
	if passage != filter.Refused {
		s.r.Metrics.Count(metrics.In, metrics.IQ, metrics.Passed)
		return
	}
	s.r.Metrics.Count(metrics.In, metrics.IQ, metrics.Blocked)
	if typ := root.Attr("type"); typ == "result" {
		s.unanswered(root, &r)
		return
	}
	if r.From == filter.Contact {
		s.tell(from, filter.Told(root))
	}
	if home || r.From == filter.Service || s.isWelcome(from.Bare) { // nothing is answered to strangers
		s.server.Stanza(func(b []byte) []byte {
			return stanza.AppendError(b, "iq", "", root.Attr("from"), root.Attr("id"), stanza.Error{Type: "cancel", Condition: "service-unavailable"})
		})
		s.server.Kick()
	}
}

// unanswered has a client's request fail whose answer is not let in.
func (s *Session) unanswered(root stanza.Element, r *filter.Request) {
	why := "The answer was not let in, for it is of no known form."
	if allow := r.Lacks(root); allow != "" {
		why += " A rule with allow: [" + string(allow) + "] lets it in."
	}
	s.client.Build(func(b []byte) []byte {
		return stanza.AppendError(b, "iq", root.Attr("from"), s.full(), root.Attr("id"), stanza.Error{Type: "cancel", Condition: "not-acceptable", Text: why})
	})
	s.client.Kick()
}

// tell shows what a contact says otherwise than in a text, in a line that has the mark of
// clear text. It reports false when there is nothing to show, or the rules do not let it be.
func (s *Session) tell(from address.JID, says []string) bool {
	if says == nil {
		return false
	}
	r := s.alsoMarked(from, s.Account().Receive(s, s.saidInClear(from, says, false)))
	if !r.Deliver {
		return false
	}
	s.client.Build(func(b []byte) []byte {
		return stanza.Message{From: from.Full, To: s.full(), Type: "chat", Body: r.Text}.AppendTo(b)
	})
	return true
}

// saidInClear is what somebody says otherwise than in a text, as a text in clear.
func (s *Session) saidInClear(from address.JID, says []string, archived bool) otrlayer.Incoming {
	return otrlayer.Incoming{From: from.Full, Contact: from.Bare, Text: strings.Join(says, " "), Welcome: s.isWelcome(from.Bare), Copy: true, Delayed: archived}
}
