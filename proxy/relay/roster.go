package relay

import (
	"maps"
	"sync"
	"sync/atomic"

	"otrproxy/proxy/address"
	"otrproxy/stanza"
)

// MaxContacts bounds what is known of an account's list of contacts. The server keeps that
// list, and may invent as many as it likes.
const MaxContacts = 50_000

// A contactMark says what is known of a contact.
type contactMark uint8

const (
	mayWatch  contactMark = 1 << iota // they may see our presence
	wasListed                         // they are, or were in this session, on the list of contacts
	isWatched                         // we may see theirs
)

// A roster is what a session knows of the list of contacts, by bare JID.
type roster struct {
	all   *atomic.Int64 // counts what all rosters know; nil for nobody who wants to know
	mu    sync.Mutex
	marks map[string]contactMark
}

// counts tells how much is known more than before, to whoever adds it up.
func (r *roster) counts(before int) {
	if now := len(r.marks); r.all != nil && now != before {
		r.all.Add(int64(now - before))
	}
}

// forget forgets everything, at the end of the session.
func (r *roster) forget() { r.goesOn(nil) }

// isWelcome reports whether a contact may see our presence.
func (r *roster) isWelcome(bare string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.marks[bare]&mayWatch != 0
}

// watches notes whether a contact may see our presence, by the person's word: of theirs there
// is always room for one more.
func (r *roster) watches(bare string, yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mark(bare, mayWatch, yes, 2*MaxContacts)
}

// isListed reports whether a bare JID is, or was, on the list of contacts: a server that takes
// somebody off it does not make a stranger of them. Of a list without end everybody is.
func (r *roster) isListed(bare string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.marks[bare]&wasListed != 0 || len(r.marks) >= MaxContacts
}

// lists notes a contact as the server has it on the list.
func (r *roster) lists(a address.JID, subscription string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mark(a.Bare, wasListed, true, MaxContacts)
	if a.Also != "" {
		r.mark(a.Also, wasListed, true, MaxContacts)
	}
	r.mark(a.Bare, mayWatch, subscription == "from" || subscription == "both", MaxContacts)
	r.mark(a.Bare, isWatched, subscription == "to" || subscription == "both", MaxContacts)
}

func (r *roster) mark(bare string, m contactMark, yes bool, most int) {
	defer r.counts(len(r.marks))
	old, there := r.marks[bare]
	switch {
	case !yes && old == m:
		delete(r.marks, bare)
	case !yes && there:
		r.marks[bare] = old &^ m
	case yes && (there || len(r.marks) < most):
		if r.marks == nil {
			r.marks = map[string]contactMark{}
		}
		r.marks[bare] = old | m
	}
}

// known is how many contacts something is known of.
func (r *roster) known() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.marks)
}

// copied is what another session goes on with.
func (r *roster) copied() map[string]contactMark {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.marks)
}

// goesOn takes over what an earlier session knew.
func (r *roster) goesOn(marks map[string]contactMark) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := len(r.marks)
	r.marks = marks
	r.counts(before)
}

// learnRoster learns who is on the list of contacts, and who may see our presence.
func (s *Session) learnRoster(query stanza.Element) {
	for item := range query.Children() {
		if a := s.r.addresses.Of(item, "jid"); a.OK {
			s.contacts.lists(a, string(item.RawAttr("subscription")))
		}
	}
}

// isWelcome reports whether somebody may see our presence.
func (s *Session) isWelcome(bare string) bool { return bare == s.jid || s.contacts.isWelcome(bare) }

// Sees reports whether the client is told when a contact comes or goes.
func (s *Session) Sees(contact string) bool {
	s.contacts.mu.Lock()
	defer s.contacts.mu.Unlock()
	return s.attending.Load() && s.contacts.marks[contact]&isWatched != 0
}
