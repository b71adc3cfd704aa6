package relay

import (
	"strings"

	"otrproxy/proxy/address"
	"otrproxy/proxy/upstream"
)

// tellOfPin tells somebody who has just come of a pin that nobody has heard of yet.
func (s *Session) tellOfPin() {
	domain := s.up.Domain.Name
	pin, ok := s.r.Servers.Pins.Tell(domain)
	switch {
	case !ok:
	case pin.Source == upstream.SourceFirst:
		cert := s.up.Conn.ConnectionState().PeerCertificates[0]
		s.Say(address.ServiceJID, "This was the first connection to the server of "+domain+" from here. Its key is remembered from now on, and no other is accepted: "+pin.Pin+
			". If the people who run the server publish it, compare. In every format: "+upstream.Formats(cert)+".")
	default:
		s.Say(address.ServiceJID, "The server of "+domain+" has the new certificate that was announced: "+pin.Pin+". The one before is still accepted; once the server has it no more, the administrator should remove it (otrproxy pin list, otrproxy pin remove).")
	}
}

// TellAdmins tells administrators who are online something that is theirs to decide, in
// the words of the chat.
func (r *Relay) TellAdmins(text string) {
	text = strings.ReplaceAll(text, ": otrproxy pin add ", ": pin add ")
	for _, account := range r.config().Admins {
		for _, s := range r.SessionsOf(account) {
			s.Say(address.ServiceJID, text)
		}
	}
}
