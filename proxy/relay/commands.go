package relay

import (
	"bytes"
	"context"
	"strings"
	"unicode"
	"unicode/utf8"

	"otrproxy/proxy/control"
	"otrproxy/stanza"
)

// A client reaches the table of commands by a line in a chat (here), or through the service
// contact and its menus (package service).

// command finds a command in a message's body.
func command(root stanza.Element) (line string, ok bool) {
	for el := range root.Children() {
		if !el.Is(stanza.NSClient, "body") {
			continue
		}
		// Most texts begin with a letter: no need to decode them.
		if raw := bytes.TrimLeft(el.InnerRaw(), " \t\r\n"); len(raw) == 0 || raw[0] != control.CommandWord[0] && raw[0] != '&' && raw[0] != '<' && raw[0] < utf8.RuneSelf {
			continue
		}
		// Keyboards put a capital, and invisible blanks, where nobody meant one.
		text := strings.TrimLeftFunc(el.Text(), func(r rune) bool { return unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) })
		if len(text) >= len(control.CommandWord) && strings.EqualFold(text[:len(control.CommandWord)], control.CommandWord) {
			return text[len(control.CommandWord):], true
		}
	}
	return "", false
}

// command runs a command written in the conversation with a contact.
func (s *Session) command(line, contact string) {
	s.say(contact, s.as(control.InChat, contact), line)
}

// say answers a line in the conversation it was written in.
func (s *Session) say(where string, a control.Actor, line string) {
	ctx, cancel := context.WithTimeout(s.r.ctx, control.CommandLimit)
	defer cancel()
	reply, err := s.commands().Line(ctx, a, line)
	text := reply.Text
	if err != nil {
		text = control.Sentence(err)
	}
	if text != "" {
		s.Say(where, text)
	}
}

// commands are those that the session's client can use.
func (s *Session) commands() control.Table {
	if s.stranger.Load() != nil {
		return s.strangersTable()
	}
	return s.r.Commands
}

// as is the person at this client, in a place.
func (s *Session) as(place control.Place, contact string) control.Actor {
	return control.Actor{Place: place, Account: s.jid, Contact: contact, Admin: s.r.config().IsAdmin(s.jid) && s.stranger.Load() == nil && s.r.Logins.VouchedFor(s.jid)}
}
