package relay

import (
	"cmp"
	"strings"
	"sync"

	"otrproxy/otrlayer"
	"otrproxy/proxy/address"
	"otrproxy/proxy/control"
	"otrproxy/proxy/filter"
	"otrproxy/proxy/leg"
	"otrproxy/proxy/metrics"
	"otrproxy/stanza"
)

// The way back of a client's message that was not sent: an error with its own id, which
// carries what the message was (RFC 6120 section 8.3.1). Some programs show an error only
// where they find the text in it. What others do not show, a line in the conversation says.

// returning is a client's message as it goes back.
func (s *Session) returning(root stanza.Element, contact string) *otrlayer.Message {
	m := &otrlayer.Message{Contact: contact, To: root.Attr("to"), ID: root.Attr("id"), Type: root.Attr("type"), Thread: thread(root), Text: textOf(root)}
	switch near := s.nearRoom(contact) || s.ofRooms(contact); {
	case near && m.Type != "groupchat" && strings.Contains(m.To, "/"):
		m.Occupant, m.Where = true, m.To
	case s.isRoom(contact):
		m.Where = ourPlace(contact)
	case near: // nothing is open there
		m.Where = address.ServiceJID
	}
	return m
}

// thread is the name of a message's thread; "" for none.
func thread(root stanza.Element) string {
	if el, ok := root.Child(stanza.NSClient, "thread"); ok {
		return el.Text()
	}
	return ""
}

// block refuses a message for a cause of the closed set.
func (s *Session) block(root stanza.Element, c otrlayer.Cause, contact string) {
	s.Account().Refuse(s, s.returning(root, contact), c, "")
}

// unprotected refuses what OTR cannot protect, by name.
func (s *Session) unprotected(root stanza.Element, what, contact string) {
	if string(root.Local()) == "message" {
		s.Account().Refuse(s, s.returning(root, contact), otrlayer.CauseUnprotected, what)
		return
	}
	sentence := control.Why{Cause: string(otrlayer.CauseUnprotected), Contact: contact, Reason: s.r.config().RuleFor(s.jid, contact).Reason, Unprotected: what}.String()
	s.r.Metrics.Blocked(otrlayer.CauseUnprotected)
	s.r.Metrics.Count(metrics.Out, metrics.IQ, metrics.Blocked)
	s.refuse(root, blockError(otrlayer.CauseUnprotected, sentence))
	if filter.CarriesFile(root) && display(s.shows.Load())&showsFile == 0 { // a person has chosen one
		s.Say(s.fileFor(contact), sentence)
	}
}

// fileFor is the conversation in which a file was to be shown that a request is about: with the
// contact whom the request is for; where that is a service, the one that the person was in last.
func (s *Session) fileFor(contact string) string {
	switch {
	case strings.Contains(contact, "@") && contact != s.jid:
		return contact
	case s.isRoom(s.talksIn):
		return ourPlace(s.talksIn)
	case strings.Contains(s.talksIn, "/"): // with an occupant of a room
		if bare, _, _ := strings.Cut(s.talksIn, "/"); !s.isRoom(bare) {
			return address.ServiceJID
		}
		return s.talksIn
	case s.talksIn != "":
		return s.talksIn
	}
	return address.ServiceJID
}

func blockError(c otrlayer.Cause, sentence string) stanza.Error {
	e := stanza.Error{Type: "cancel", Condition: "policy-violation", Text: sentence}
	switch c {
	case otrlayer.CauseQueueFull, otrlayer.CauseMemory:
		e = stanza.Error{Type: "wait", Condition: "resource-constraint", Text: sentence}
	case otrlayer.CauseShutdown, otrlayer.CauseUpstream, otrlayer.CauseUncertain:
		e = stanza.Error{Type: "wait", Condition: "remote-server-timeout", Text: sentence}
	case otrlayer.CauseBounced:
		e = stanza.Error{Type: "cancel", Condition: "item-not-found", Text: sentence}
	case otrlayer.CauseNotInRoom:
		e = stanza.Error{Type: "modify", Condition: "not-acceptable", Text: sentence}
	}
	return e
}

// Return hands a message back to the client as an error with its own id.
func (s *Session) Return(m *otrlayer.Message, why otrlayer.Why) otrlayer.Sign {
	c, sentence := why.Cause, whyInWords(why, m.Contact).String()
	sent := *m
	if m.Occupant && display(s.shows.Load())&misreads != 0 {
		sent.Text = ""
	}
	ok := s.client.Message(leg.Mark{Slip: m.Slip(), Cause: c}, func(b []byte) []byte {
		return stanza.Message{From: m.To, To: s.full(), ID: m.ID, Type: "error", Extra: blockError(c, sentence).AppendTo(appendSent(nil, &sent))}.AppendTo(b)
	})
	s.client.Kick()
	if !ok {
		return otrlayer.NoSign
	}
	s.r.Metrics.Blocked(c)
	s.r.Metrics.Count(metrics.Out, metrics.Message, metrics.Blocked)
	return s.sign(m)
}

// appendSent appends what a message was that goes back.
func appendSent(b []byte, m *otrlayer.Message) []byte {
	if m.Text != "" {
		b = append(stanza.AppendEscaped(append(b, "<body>"...), m.Text), "</body>"...)
	}
	if m.Thread != "" {
		b = append(stanza.AppendEscaped(append(b, "<thread>"...), m.Thread), "</thread>"...)
	}
	if m.Occupant {
		b = append(b, "<x xmlns='"+filter.NSMUCUser+"'/>"...)
	}
	return b
}

// sign is what the client shows of a message that came back to it.
func (p *program) sign(m *otrlayer.Message) otrlayer.Sign {
	where := showsChat
	if m.Type == "groupchat" || m.Occupant {
		where = showsRoom
	}
	switch shows := display(p.shows.Load()); {
	case m.Text == "" || shows&where == 0:
		return otrlayer.Unseen
	case shows&ownWindow != 0:
		return otrlayer.SeenWhy
	}
	return otrlayer.SeenThere
}

// A display says where a program shows a message that came back, with its text and why.
type display uint32

const (
	showsChat display = 1 << iota // in a conversation with one person, or in a window of its own
	showsRoom                     // in a room, and in a conversation with one of its occupants
	showsFile                     // of a file that may not leave, in a window of its own or in the chat
	ownWindow                     // all of it in windows of its own
	misreads                      // it takes an error with a text, from a room's occupant, for a message of theirs
	byAddress                     // a conversation with a program of a contact's is another window than that with the contact
)

// programsShow are the programs that were seen to do so, by what their presence calls them
// (XEP-0115). For all others a line says it. Gajim shows why when the mouse is on its sign.
var programsShow = map[string]display{
	"http://pidgin.im/":              showsChat | showsRoom | ownWindow, // and finch: "XMPP Message Error", only where the error has the text
	"https://poez.io":                showsChat | showsRoom | misreads,
	"http://profanity-im.github.io":  showsChat | showsRoom | showsFile,
	"https://profanity-im.github.io": showsChat | showsRoom | showsFile,
	"https://gajim.org":              showsFile,

	"https://github.com/cdidier/irssi-xmpp": byAddress,
}

// windows are the addresses of contacts that the person last wrote to, by bare JID, where their
// program has a window for each.
type windows struct {
	mu sync.Mutex
	of map[string]string
}

// isOpen notes where the person writes.
func (w *windows) isOpen(contact, to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of == nil || len(w.of) >= maxTold {
		w.of = map[string]string{}
	}
	w.of[contact] = to
}

// with is the address whose window the person has open with a contact.
func (w *windows) with(contact string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return cmp.Or(w.of[contact], contact)
}

// knowsProgram notes what the client's program shows, by its presence.
func (p *program) knowsProgram(presence stanza.Element) {
	if c, ok := presence.Child(nsCaps, "c"); ok {
		p.shows.Store(uint32(programsShow[string(c.AttrBytes("node"))]))
	}
}
