package relay

import (
	"strings"

	"otrproxy/otrlayer"
	"otrproxy/otrlayer/text"
	"otrproxy/proxy/address"
	"otrproxy/proxy/control"
	"otrproxy/proxy/filter"
	"otrproxy/proxy/leg"
	"otrproxy/stanza"
)

// ourPlace is from where the proxy speaks in a room: an occupant's address, for some programs
// show nothing that comes from the room's own. Nobody else speaks from there (unspeakable).
func ourPlace(room string) string { return room + "/" + address.ServiceName }

// Notice shows what the layer of OTR has to tell.
func (s *Session) Notice(where string, n otrlayer.Notice) bool {
	return s.Say(where, inWords(n).String())
}

// inWords is a notice as the catalogue takes it.
func inWords(n otrlayer.Notice) control.Notice {
	out := control.Notice{What: string(n.What), Contact: n.Contact, Fingerprint: n.Fingerprint.String(), Own: n.Own.String(), Version: n.Version, Spoken: n.Spoken, Allowed: n.Allowed,
		Question: n.Question, N: n.N, Kept: n.Kept, Told: n.Told, Within: n.Within, Why: whyInWords(n.Why, n.Contact), Texts: n.Texts}
	for _, f := range n.Others {
		out.Others = append(out.Others, f.String())
	}
	return out
}

// whyInWords is that for why a message was not sent.
func whyInWords(w otrlayer.Why, contact string) control.Why {
	return control.Why{Cause: string(w.Cause), Contact: contact, Reason: w.Reason, Unprotected: w.Unprotected}
}

// Say queues a line of ours: in the conversation with a contact, by bare JID; in a room, by
// our place there; or in the conversation with one of its occupants.
func (s *Session) Say(where, line string) bool {
	_, occupant, room := strings.Cut(where, "/")
	typ, extra := "chat", "<no-store xmlns='"+nsHints+"'/><no-copy xmlns='"+nsHints+"'/>"
	switch {
	case where == s.jid:
		where = address.ServiceJID
	case occupant == address.ServiceName:
		typ = "groupchat"
	case !room && s.rooms.has(where) && !s.contacts.isListed(where):
		where, typ = ourPlace(where), "groupchat"
	case !room && s.r.roomServices.hosts(s.jid, where) && !s.contacts.isListed(where): // it is not open
		where = address.ServiceJID
	case room:
		extra += "<x xmlns='" + filter.NSMUCUser + "'/>"
	case display(s.shows.Load())&byAddress != 0:
		where = s.windows.with(where)
	}
	ok := s.client.Build(func(b []byte) []byte {
		return stanza.Message{From: where, To: s.full(), ID: leg.OwnID + leg.NewID(), Type: typ, Body: "[otrproxy] " + text.Defused(line), Extra: []byte(extra)}.AppendTo(b)
	})
	s.client.Kick()
	return ok
}
