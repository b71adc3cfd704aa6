package relay

import (
	"otrproxy/proxy/address"
	"otrproxy/proxy/control"
	"otrproxy/proxy/service"
	"otrproxy/stanza"
)

// atContact is the client as the service contact knows it.
type atContact struct{ s *Session }

// FullJID is the client's full JID, or the bare one before it is bound.
func (a atContact) FullJID() string { return a.s.full() }

// Stranger reports whether it has not shown yet that it is the account's person.
func (a atContact) Stranger() bool { return a.s.stranger.Load() != nil }

// HandsOff reports whether the rules leave its account alone.
func (a atContact) HandsOff() bool { return a.s.r.config().HandsOff(a.s.jid) }

// Everywhere is the contact as all clients of the account's person see it.
func (a atContact) Everywhere() (out []*service.Contact) {
	for _, s := range a.s.r.SessionsOf(a.s.jid) {
		out = append(out, &s.contact)
	}
	return out
}

// Deliver sends it a stanza.
func (a atContact) Deliver(write func([]byte) []byte) {
	a.s.client.Build(write)
	a.s.client.Kick()
}

// Refuse answers a stanza of its with an error.
func (a atContact) Refuse(root stanza.Element, e stanza.Error) { a.s.refuse(root, e) }

// Answer does what a line says that was written to the contact.
func (a atContact) Answer(line string) {
	a.s.say(address.ServiceJID, a.s.as(control.InService, ""), line)
}

// Actor is the person at the client, in a place.
func (a atContact) Actor(place control.Place) control.Actor { return a.s.as(place, "") }

// Commands are those that it can use.
func (a atContact) Commands() control.Table { return a.s.commands() }

// Talking are the contacts there is something to do about.
func (a atContact) Talking() (out []string) {
	for _, v := range a.s.Account().Contacts() {
		if v.State == "encrypted" || v.Held > 0 {
			out = append(out, v.Contact)
		}
	}
	return out
}
