package relay

import (
	"otrproxy/proxy/address"
	"otrproxy/proxy/service"
)

// arrived greets a client that has just come, once for each account, and is there for it
// where it is on its list of contacts.
func (s *Session) arrived() {
	if s.r.config().HandsOff(s.jid) {
		return
	}
	defer s.greetsStrangers()
	if s.stranger.Load() != nil {
		return
	}
	s.Account().Arrived(s)
	if line := s.r.TurnedAway.tell(s.jid); line != "" {
		s.Say(address.ServiceJID, line)
	}
	if s.r.config().IsAdmin(s.jid) && !s.r.Logins.VouchedFor(s.jid) {
		s.Say(address.ServiceJID, "You are one of admins, and so far only the server says that this is you. Whoever runs otrproxy confirms it once: otrproxy login confirm "+s.jid)
	}
	s.contact.Appear()
	s.tellOfPin()
	if s.contact.Remembers(service.Greeted) {
		if s.first && !s.contact.Remembers(service.Recognised) {
			s.contact.Remember(service.Recognised, true)
			s.Say(address.ServiceJID, firstPassword)
		}
		return
	}
	s.contact.Remember(service.Greeted, true)
	s.contact.Remember(service.Recognised, true)
	s.Say(address.ServiceJID, "This is otrproxy, which stands between your program and its server and encrypts what you write to people. I am a contact that only you can see; "+
		"put me on your list of contacts if you like. In any conversation, a line that begins with !otr is for me and never leaves this machine; here, leave that word out. "+
		"Write help for the commands, or status to see how things stand. If a contact is to be sure that it is you, they need your fingerprint: write key. "+
		firstPassword)
}

// firstPassword is said once, when a password is the first that is known here of an account.
const firstPassword = "I recognise your password from now on. Whoever logs in as you with another one sees nothing private until you say that it was you."
