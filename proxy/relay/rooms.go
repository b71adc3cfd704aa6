package relay

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"otrproxy/config"
	"otrproxy/otrlayer"
	"otrproxy/otrlayer/keyring"
	"otrproxy/proxy/address"
	"otrproxy/proxy/control"
	"otrproxy/proxy/filter"
	"otrproxy/proxy/state"
	"otrproxy/stanza"
)

// What is said in a room is clear by nature (XEP-0045), so a server that can make a room of
// a contact could speak in their voice. A room is one whose presence for the client itself
// has come (status 110), after the client wanted to come in. It never is an address that is
// on the list of contacts, or that the person has dealt with.

// rooms are those of one client, by bare JID.
type rooms struct {
	mu     sync.Mutex
	asked  map[string]wish // what the client wants of a room
	inside map[string]bool // it is in there
}

// A wish is what a client wants of a room; the room's last word ends it.
type wish uint8

const (
	toEnter wish = iota + 1
	toLeave
)

// asks notes that the client wants to come in.
func (r *rooms) asks(room string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked == nil {
		r.asked = map[string]wish{}
	}
	r.asked[room] = toEnter
}

// leaves notes that the client does not want to be in the room any more. What is said
// there from now on is no room's; its last presence is.
func (r *rooms) leaves(room string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked[room] != 0 {
		r.asked[room] = toLeave
	}
	delete(r.inside, room)
}

// ends notes that the client is not in the room any more.
func (r *rooms) ends(room string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.asked, room)
	delete(r.inside, room)
}

// enters notes that the room has let the client in, and reports whether it had asked.
func (r *rooms) enters(room string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked[room] != toEnter {
		return false
	}
	if r.inside == nil {
		r.inside = map[string]bool{}
	}
	r.inside[room] = true
	return true
}

// knows reports whether the client wants something of the room.
func (r *rooms) knows(room string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked[room] != 0
}

// has reports whether the client is in the room.
func (r *rooms) has(room string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.inside[room]
}

func (r *rooms) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.asked)
	clear(r.inside)
}

// goesOn takes over the rooms of a session that goes on.
func (r *rooms) goesOn(old *rooms) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked, r.inside = old.asked, old.inside
}

// copied is the rooms as they are, for a session that is to go on.
func (r *rooms) copied() *rooms {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &rooms{asked: maps.Clone(r.asked), inside: maps.Clone(r.inside)}
}

// roomServices are the services for rooms that clients have met, by the domain of their
// account's server, which says so, and the service's own.
type roomServices struct {
	mu  sync.Mutex
	met map[[2]string]bool
}

// maxRoomServices bounds them.
const maxRoomServices = 10_000

func (r *roomServices) note(server, service string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.met == nil {
		r.met = map[[2]string]bool{}
	}
	if len(r.met) < maxRoomServices {
		r.met[[2]string{server, service}] = true
	}
}

func (r *roomServices) has(server, service string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.met[[2]string{server, service}]
}

// hosts reports whether a bare JID is one of a service for rooms that an account has met.
func (r *roomServices) hosts(account, bare string) bool {
	local, service, ok := strings.Cut(bare, "@")
	own := address.DomainOf(account)
	return ok && local != "" && service != own && r.has(own, service)
}

// isRoom reports whether the client is in a room of that bare JID.
func (s *Session) isRoom(bare string) bool { return s.rooms.has(bare) && !s.isContact(bare) }

// unsure reports whether the client is in what may be a room or somebody whom the person
// wrote to before, and of whom nothing else is known. No private conversation is begun with
// such an address: each occupant of a room would answer.
func (s *Session) unsure(bare string) bool {
	return s.rooms.has(bare) && !s.contacts.isListed(bare) && s.Account().Knows(bare) && !s.Account().Private(bare) &&
		s.Account().Conversation(bare).Fingerprint == keyring.Fingerprint{}
}

// nearRoom reports whether the client is in a room of that bare JID, comes in or leaves.
func (s *Session) nearRoom(bare string) bool { return s.rooms.knows(bare) && !s.isContact(bare) }

// isContact reports whether a bare JID is on the list of contacts, or somebody the person
// has dealt with.
func (s *Session) isContact(bare string) bool {
	if s.contacts.isListed(bare) || s.Account().Knows(bare) {
		return true
	}
	also := address.CaseFolded(bare)
	return also != bare && (s.contacts.isListed(also) || s.Account().Knows(also))
}

// ofRooms reports whether a bare JID is a room's, though the client may not be in it: one
// of a service for rooms that was met before. The account's own server is none.
func (s *Session) ofRooms(bare string) bool {
	return s.r.roomServices.hosts(s.jid, bare) && !s.isContact(bare)
}

// fromRoom notes what a presence stanza says about rooms.
func (s *Session) fromRoom(root stanza.Element, from address.JID, typ string) {
	if typ == "error" {
		if !s.rooms.has(from.Bare) || !conflicts(root) {
			s.rooms.ends(from.Bare)
		}
		return
	}
	x, ok := root.Child(filter.NSMUCUser, "x")
	if !ok {
		return
	}
	codes := map[string]bool{}
	for c := range x.Children() {
		if string(c.Local()) == "status" {
			codes[c.Attr("code")] = true
		}
	}
	switch {
	case !codes["110"]: // somebody else's
	case typ == "unavailable" && !codes["303"]: // 303: under another name
		s.rooms.ends(from.Bare)
	case typ == "" && s.rooms.enters(from.Bare):
		switch {
		case s.isRoom(from.Bare):
			_, service, _ := strings.Cut(from.Bare, "@")
			s.r.roomServices.note(address.DomainOf(s.jid), service)
			s.tellOfRoom(from.Bare)
		case s.unsure(from.Bare): // what waits for it would have it asked, again and again
			s.Account().Drop(from.Bare, otrlayer.CauseRoom)
		}
	}
}

// conflicts reports whether an error is about a name that one cannot have: who is in a room
// stays there under the old one (XEP-0045 section 7.6).
func conflicts(root stanza.Element) bool {
	el, ok := root.Child(stanza.NSClient, "error")
	if !ok {
		return false
	}
	for _, condition := range []string{"conflict", "not-acceptable", "jid-malformed"} {
		if _, is := el.Child(stanza.NSStanzas, condition); is {
			return true
		}
	}
	return false
}

// learnService notes what a service says about itself (XEP-0030, XEP-0045 section 6.2).
func (s *Session) learnService(from address.JID, query stanza.Element) {
	if !from.OK || from.Resource || strings.Contains(from.Bare, "@") || query.Attr("node") != "" {
		return
	}
	for c := range query.Children() {
		if c.Is(filter.NSDiscoInfo, "identity") && c.Attr("category") == "conference" && c.Attr("type") == "text" {
			s.r.roomServices.note(address.DomainOf(s.jid), from.Bare)
		}
	}
}

// tellOfRoom says once for each account and room what holds there, and again where that has
// changed.
func (s *Session) tellOfRoom(room string) {
	rule := s.r.config().RuleFor(s.jid, room)
	if rule.Policy == config.Never || rule.Policy == config.Manual {
		return
	}
	what, line := roomClear, "This room is not encrypted: OTR is for two people. Its server, and everybody who may come in, read what is said here."
	if rule.Policy.Requires() && !rule.Allows(config.Groupchat) {
		what = roomRefused
		line = control.Because("What you write here is not sent: rooms cannot be encrypted, and the rules want encryption. A rule with allow: [groupchat] lets it pass as it is.", rule.Reason)
	}
	if s.r.toldRooms.first(s, room, what) {
		s.Say(ourPlace(room), line)
	}
}

// What was said of a room.
const (
	roomClear   = "clear"   // what is written there leaves as it is
	roomRefused = "refused" // it does not leave
)

// roomsFile lists, in an account's directory, what its person was told of rooms: a line each,
// with the word for it and the room. Of several lines about a room the last one counts.
const roomsFile = "rooms"

// toldRooms are the rooms of which people were told what holds there.
type toldRooms struct {
	mu  sync.Mutex
	all map[string]map[string]string // by account, a stranger's with a slash before it, and by room: what was said
}

// maxToldRooms bounds those of one account. Of others nothing is told.
const maxToldRooms = 10_000

// first reports whether somebody is to be told something of a room, and notes that they were.
// What a stranger was told the person was not, and it stands in no file.
func (t *toldRooms) first(s *Session, room, what string) bool {
	who := s.jid
	stranger := s.stranger.Load() != nil
	if stranger {
		who = "/" + s.jid
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	told, known := t.all[who]
	if told[room] == what { // most often so
		return false
	}
	path := filepath.Join(keyring.Dir(s.r.dir, s.jid), roomsFile)
	if !known {
		told = map[string]string{}
		var b []byte
		if !stranger {
			b, _ = state.ReadPrivate(path) // what cannot be read is told once more
		}
		for line := range strings.Lines(string(b)) {
			if what, room, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
				told[room] = what
			}
		}
		if t.all == nil {
			t.all = map[string]map[string]string{}
		}
		t.all[who] = told
	}
	if told[room] == what {
		return false
	}
	if _, known := told[room]; !known && len(told) >= maxToldRooms {
		return false
	}
	told[room] = what
	if stranger {
		return true
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(what + " " + room + "\n")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		s.r.log.Warn("what was told of a room could not be remembered", "account", s.r.log.Name(s.jid))
	}
	return true
}
