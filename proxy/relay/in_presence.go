package relay

import (
	"strconv"
	"strings"

	"otrproxy/otrlayer/text"
	"otrproxy/proxy/address"
	"otrproxy/proxy/metrics"
	"otrproxy/stanza"
)

// inPresence is the way of presence in.
func (s *Session) inPresence(st *stanza.Stanza, from address.JID) {
	root := st.Root()
	typ := root.Attr("type")
	alone := s.leftAlone(from)
	room := !alone && s.nearRoom(from.Bare) // before its last words are noted
	if from.OK && from.Bare != s.jid {
		switch typ {
		case "":
			program, priority := presenting(root)
			s.Account().Presence(s, from.Full, from.Bare, true, program, priority)
			defer s.fromRoom(root, from, typ) // after the presence itself
		case "unavailable":
			s.Account().Presence(s, from.Full, from.Bare, false, "", 0)
			s.fromRoom(root, from, typ)
		case "error":
			s.fromRoom(root, from, typ)
		}
	}
	if alone {
		s.client.Queue(st.Raw)
		s.r.Metrics.Count(metrics.In, metrics.Presence, metrics.Passed)
		return
	}
	rule := s.ruleFor(from)
	voice := s.voiceUnder(rule)
	if !s.expects(from) {
		s.anew(func(b []byte) []byte { return voice.AppendOpen(b, st) })
		s.r.Metrics.Count(metrics.In, metrics.Presence, metrics.Passed)
		return
	}
	done := metrics.Blocked
	s.anew(func(b []byte) []byte {
		out, unchanged, ok := voice.PresenceIn(b, root, rule, room)
		if unchanged {
			out = append(b, st.Raw...)
		}
		if ok {
			done = metrics.Passed
		}
		return out
	})
	s.r.Metrics.Count(metrics.In, metrics.Presence, done)
}

// presenting is what a presence says of its program, if that one's habits are known
// (XEP-0115), and its priority (RFC 6121, section 4.7.2.3); 0 where it has none. Of several the
// first counts, as with clients.
func presenting(root stanza.Element) (program string, priority int) {
	named, ranked := false, false
	for el := range root.Children() {
		switch {
		case !named && el.Is(nsCaps, "c"):
			program, named = text.KnownProgram(el.AttrBytes("node")), true
		case !ranked && el.Is(stanza.NSClient, "priority"):
			n, _ := strconv.ParseInt(strings.TrimSpace(el.Text()), 10, 8)
			priority, ranked = int(n), true
		}
	}
	return program, priority
}
