package relay

import (
	"otrproxy/config"
	"otrproxy/otrlayer"
	"otrproxy/otrlayer/text"
	"otrproxy/proxy/address"
	"otrproxy/proxy/filter"
	"otrproxy/stanza"
)

// leftAlone reports whether the rules leave what comes from an address alone, however
// programs read it.
func (s *Session) leftAlone(from address.JID) bool {
	return s.handsOff(from.Bare) && (from.Also == "" || s.handsOff(from.Also))
}

// handsOff reports whether the rules leave a contact alone; without one, the account.
func (s *Session) handsOff(contact string) bool {
	cfg := s.r.config()
	if contact == "" || contact == s.jid {
		return cfg.HandsOff(s.jid)
	}
	return s.ruledIn.by(cfg, s.jid, contact).Policy == config.Never
}

// unspeakable reports whether nobody may speak from an address: it is the proxy's own, or
// looks like it, or is none. Where the rules leave the account alone, that is the server's
// business.
func (s *Session) unspeakable(el stanza.Element, from address.JID) bool {
	if address.Ours(from) {
		return true
	}
	bad := from.Mimics || !from.OK && len(el.RawAttr("from")) > 0
	bad = bad || from.AsService && !s.contacts.isListed(from.Bare) && (s.rooms.knows(from.Bare) || s.r.roomServices.hosts(s.jid, from.Bare))
	return bad && !s.r.config().HandsOff(s.jid)
}

// contactOf is whom an address is of, by bare JID; none is the account's own.
func (s *Session) contactOf(from address.JID) string {
	if from.Bare == "" {
		return s.jid
	}
	return from.Bare
}

// ruleFor is the rule for what comes from an address.
func (s *Session) ruleFor(from address.JID) *config.Rule {
	return s.ruledIn.by(s.r.config(), s.jid, s.contactOf(from))
}

// expects reports whether what people say from an address is expected to be encrypted.
func (s *Session) expects(from address.JID) bool {
	return s.expected(s.contactOf(from)) || from.Also != "" && s.Account().Expects(from.Also)
}

// expected is that for one way to read the address. Most often the rule says it.
func (s *Session) expected(contact string) bool {
	switch policy := s.ruledIn.by(s.r.config(), s.jid, contact).Policy; {
	case policy.Requires():
		return true
	case policy == config.Never:
		return false
	}
	return s.Account().Expects(contact)
}

// alsoMarked has a text that is shown as it came carry the mark, where some programs read its
// sender's address as that of somebody whose texts are expected to be encrypted.
func (s *Session) alsoMarked(from address.JID, r otrlayer.Reading) otrlayer.Reading {
	if from.Also != "" && r.Deliver && r.Text != "" && !r.Encrypted && !r.Clear && !r.Unreadable && s.Account().Expects(from.Also) {
		r.Text, r.Changed, r.Clear = text.Clear(r.Text), true, true
	}
	return r
}

// voiceUnder is what becomes of words under a rule.
func (s *Session) voiceUnder(rule *config.Rule) filter.Voice {
	v := s.voice
	if rule.Drop {
		v.Mark = func(string) string { return "" }
	}
	return v
}

// speaks has the session know what becomes of words.
func (s *Session) speaks() {
	s.voice = filter.Voice{Fits: text.Harmless, Quote: text.Defused, Mark: inClear, Covers: s.covers}
}

// inClear is a text that came in clear with the mark of that; OTR in it is nobody's to read.
func inClear(body string) string {
	r := otrlayer.Scrub(body)
	if r.Unreadable || !r.Deliver {
		return r.Text
	}
	return text.Clear(r.Text)
}

// covers reports whether what an address that a stanza names says is expected to be
// encrypted.
func (s *Session) covers(jid string) bool {
	a := address.Read(jid)
	return a.OK && s.expects(a)
}
