package proxy

import (
	"fmt"
	"strings"

	"otrproxy/otrlayer"
	"otrproxy/proxy/control"
)

// What a server, or whoever can reach the port, can have us keep, is shown beside the most of
// it, in status and among the figures.

// sparedKinds are what was done less often than others wanted.
var sparedKinds = []string{"lines", "asks_delayed", "answers"}

// kept is what is kept of an account, or for "" of all; most is for one account, or where
// there is but one for all, for that.
func (p *Proxy) kept(account string) (lines []control.KeptLine, spared map[string]uint64) {
	var sum otrlayer.Kept
	limit := 0
	for _, a := range p.open() {
		if account != "" && a.JID() != account {
			continue
		}
		k := a.Kept()
		limit = k.HeldLimit
		sum.Written += k.Written
		sum.Conversations += k.Conversations
		sum.Held += k.Held
		sum.HeldBytes += k.HeldBytes
		sum.Texts += k.Texts
		sum.TextBytes += k.TextBytes
		sum.PieceBytes += k.PieceBytes
		sum.Owed += k.Owed
		sum.Suppressed += k.Suppressed
		sum.Delayed += k.Delayed
		sum.Refused += k.Refused
	}
	contacts := 0
	for _, s := range p.everySession(account) {
		contacts += s.contacts.known()
	}
	hold := p.Config().Hold
	add := func(what, per string, now, most int) {
		lines = append(lines, control.KeptLine{What: what, Now: now, Most: most, Per: per})
	}
	if account == "" {
		add("accounts", "", len(otrlayer.Accounts(p.state.Dir)), p.Config().Limits.Accounts)
	}
	add("contacts", "session", contacts, maxContacts)
	add("written_to", "account", sum.Written, otrlayer.MaxConversations)
	add("conversations", "account", sum.Conversations, otrlayer.MaxConversations)
	add("held_messages", "contact", sum.Held, hold.Messages)
	add("held_bytes", "account", sum.HeldBytes, limit)
	add("texts", "", sum.Texts, 0)
	add("text_bytes", "account", sum.TextBytes, otrlayer.MaxTextBytes)
	add("piece_bytes", "account", sum.PieceBytes, otrlayer.MaxPieceBytes)
	add("owed_messages", "account", sum.Owed, otrlayer.MaxOwed)
	if account == "" {
		add("guesses", "", p.guesses.counted(), maxGuessed)
	}
	add("strangers", "account", len(p.passwords.unconfirmed(account)), maxStrangers)
	return lines, map[string]uint64{"lines": sum.Suppressed, "asks_delayed": sum.Delayed, "answers": sum.Refused}
}

// keptWords are what is kept, in a line for people: what there is nothing of is left out.
func keptWords(lines []control.KeptLine) string {
	var parts []string
	for _, l := range lines {
		if l.Now == 0 {
			continue
		}
		part := fmt.Sprintf("%d %s", l.Now, strings.ReplaceAll(l.What, "_", " "))
		switch {
		case l.Most > 0 && l.Per != "":
			part += fmt.Sprintf(" (at most %d for each %s)", l.Most, l.Per)
		case l.Most > 0:
			part += fmt.Sprintf(" (at most %d)", l.Most)
		}
		parts = append(parts, part)
	}
	if len(parts) == 0 {
		return ""
	}
	return "\nKept: " + strings.Join(parts, ", ")
}
