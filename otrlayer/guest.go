package otrlayer

import (
	"otrproxy/otrlayer/keyring"
	"otrproxy/otrlayer/otr"
	"otrproxy/otrlayer/text"
)

// Guest is an account as somebody gets it whom the server lets in, and of whom nobody here
// knows that they are its person. It has no key, no conversation and nothing on disk: what is
// encrypted stays unread, and what the rules want encrypted is refused. Where the account has
// been private with a contact, that contact counts as private here, too.
func (a *Account) Guest() *Account {
	ready := make(chan struct{})
	close(ready)
	g := &Account{jid: a.jid, settings: a.settings, events: silent{a.events}, clock: a.clock, guestOf: a, contacts: noContacts(), ownKey: ownKey{generated: ready},
		memory: memory{fps: &keyring.Fingerprints{}, spoken: &keyring.Fingerprints{}, formats: &keyring.Fingerprints{}, private: &keyring.Privates{}}}
	g.store = keyring.NewStore(&g.mu, func(what string, err error) { g.events.Log(8, what, err) }, &g.fps.LineFile, &g.spoken.LineFile, &g.formats.LineFile, &g.private.LineFile)
	return g
}

// silent are the events of a guest: what happens to it is no news of the account's.
type silent struct{ Events }

func (silent) Happened(string, Event) {}

// guestReceives reads a text for a guest: as for the account's person, but that nothing is
// decrypted and nothing answered.
func (a *Account) guestReceives(m Incoming) Reading {
	m.text()
	if a.settings().Policy(m.Contact) == Never {
		return Reading{Deliver: true, Text: m.Text}
	}
	w := otr.Parse([]byte(m.Text))
	switch {
	case w.Kind == otr.Plain || w.Kind == otr.Tagged:
	case w.Kind == otr.Encoded && w.Type == otr.Data && !w.Ignorable:
		return Reading{Deliver: true, Changed: true, Unreadable: true, Text: "[otrproxy] An encrypted message of " + m.Contact + ". It stays closed until you have shown that this is your account."}
	default:
		return Reading{}
	}
	r := Reading{Deliver: true, Text: m.Text}
	if w.Kind == otr.Tagged {
		clean, _, _ := otr.CutTag([]byte(m.Text))
		r.Text, r.Changed = string(clean), true
	}
	switch d := text.Defused(r.Text); {
	case a.guestOf.Expects(m.Contact) && a.drops(m.Contact) && !(m.Copy && m.Delayed):
		return Reading{}
	case a.guestOf.Expects(m.Contact):
		r.Text, r.Changed, r.Clear = text.Clear(r.Text), true, true
	case d != r.Text:
		r.Text, r.Changed = d, true
	}
	return r
}

// Inherit gives the account what a guest of its has left behind, who was its person: messages
// that no client was there to get back.
func (a *Account) Inherit(guest *Account) {
	guest.mu.Lock()
	owed := guest.owed
	guest.owed, guest.inherited = nil, true
	guest.mu.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.repay(owed)
}
