package relay

import (
	"strings"

	"otrproxy/config"
	"otrproxy/stanza"
)

// strict reports whether nothing a person wrote may leave for a contact in clear: the
// rule demands encryption, or the conversation is or was private.
func (s *Session) strict(rule *config.Rule, contact string) bool {
	return rule.Policy.Requires() || contact != "" && rule.Policy != config.Never && s.Account().Private(contact)
}

// foreign refuses a stanza that says it is from somebody else than the account, which no
// server takes (RFC 6120 section 8.1.2.1), but reads; and from a resource in words that is
// not the client's.
func (s *Session) foreign(root stanza.Element) bool {
	written := root.Attr("from")
	if written == "" || written == s.full() {
		return false
	}
	if from := s.r.addresses.Of(root, "from"); from.OK && from.Bare == s.jid && !strings.ContainsAny(written, " \t\n\r\u00a0") {
		return false
	}
	s.refuse(root, stanza.Error{Type: "modify", Condition: "bad-request", Text: "This is not your address."})
	return true
}
