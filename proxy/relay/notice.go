package relay

import (
	"strings"

	"otrproxy/otrlayer/text"
	"otrproxy/proxy/address"
	"otrproxy/proxy/filter"
	"otrproxy/proxy/leg"
	"otrproxy/stanza"
)

// ourPlace is from where the proxy speaks in a room: an occupant's address, for some programs
// show nothing that comes from the room's own. Nobody else speaks from there (unspeakable).
func ourPlace(room string) string { return room + "/" + address.ServiceName }

// Notice queues a line of ours: in the conversation with a contact, by bare JID; in a room, by
// our place there; or in the conversation with one of its occupants.
func (s *Session) Notice(where, line string) bool {
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
		return stanza.Message{From: where, To: s.full(), ID: ownID + leg.NewID(), Type: typ, Body: "[otrproxy] " + text.Defused(line), Extra: []byte(extra)}.AppendTo(b)
	})
	s.client.Kick()
	return ok
}
