package otrlayer

import "otrproxy/otrlayer/keyring"

// The decision about what a person hands over. It stands here alone: plain text leaves by no
// other word than decide's, whose zero answer is no.

// A Rule is what the household's rules say of a contact at one moment. The caller takes it once
// for each message, and all that is decided about the message is decided by it, as long as it holds.
type Rule struct {
	Policy Policy
	Rooms  bool // what is said in rooms leaves as it is (allow: [groupchat])
	// Holds reports whether the rules are the same still; nil for always. It is asked with the
	// account locked.
	Holds func() bool
}

// strictness orders the policies.
var strictness = [...]int{Never: 0, Manual: 1, Opportunistic: 2, Require: 3, RequireVerified: 4}

// inForce is a rule as the account decides by it. A message may have waited for the account
// while the rules were changed: then the stricter policy counts, and rooms get nothing that only
// their allowance would let out.
func (a *Account) inForce(rule Rule, contact string) Rule {
	if rule.Holds == nil || rule.Holds() {
		return rule
	}
	if now := a.settings().Policy(contact); strictness[now] > strictness[rule.Policy] {
		rule.Policy = now
	}
	rule.Rooms = false
	return rule
}

// A Content is what a message carries, as its caller has found. The zero value is a text.
type Content uint8

// The contents.
const (
	Typed    Content = iota // a text that OTR can carry
	Filtered                // what the rule lets leave beside a text; the caller has left out the rest
	InRoom                  // words for a room, for somebody in one, or an invitation to one
	Other                   // anything else that a person may have written
)

// decide says what may become of a message now, under a rule.
func (a *Account) decide(m *Message, rule Rule, what Content) (Action, Cause) {
	switch {
	case a.closed:
		return Block, CauseShutdown
	case rule.Policy == Never, what == Filtered:
		return Plain, CauseNone
	case what == InRoom:
		if !rule.Rooms && (rule.Policy.requires() || a.keepsPrivate(m.Contact)) {
			return Block, CauseUnprotected
		}
		return Plain, CauseNone
	case what == Other:
		if rule.Policy.requires() || a.keepsPrivate(m.Contact) {
			return Block, CauseUnprotected
		}
		return Plain, CauseNone
	case what != Typed, m.Text == "":
		return Block, CauseUnprotected
	case a.guestOf != nil: // a guest has no conversation
		if rule.Policy.requires() || a.keepsPrivate(m.Contact) || typedWish(m.Text) || speaksOTR(m.Text) {
			return Block, CauseStranger
		}
		return Plain, CauseNone
	}
	return a.conv(m.Contact).decide(rule.Policy, m.To)
}

// keepsPrivate reports whether a conversation is, or was, private: what was so once does not go
// back to clear by itself.
func (a *Account) keepsPrivate(contact string) bool {
	return a.wasPrivate(contact) || a.guestOf != nil && a.guestOf.Private(contact)
}

// decide is that for a text to the contact, addressed so.
func (c *conversation) decide(policy Policy, to string) (Action, Cause) {
	if c.state == StateEncrypted {
		s := c.current()
		switch {
		case s == nil:
			return Block, CauseEngine
		case s.trust == keyring.Changed:
			return Held, CauseKeyChanged
		case policy == RequireVerified && !s.trust.Sure():
			return Held, CauseUnverified
		case !c.stale.IsZero() || s.gone || c.passed(s, to) || !c.otr.SealedUntil(c.a.now(), s.Instance).IsZero():
			return Held, CauseExpired
		}
		return Encrypted, CauseNone
	}
	switch policy {
	case Require, RequireVerified:
		if c.a.keyErr != nil {
			return Block, CauseNoKey
		}
		return Held, CauseExpired
	case Opportunistic, Manual:
		switch {
		case c.anew: // it was not ended, and is about to be private again
			return Held, CauseExpired
		case c.state == StateFinished: // nothing in clear until a person decides
			return Block, CauseFinished
		}
		return Plain, CauseNone
	}
	return Block, CauseUnprotected
}
