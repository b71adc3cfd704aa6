package commands

import (
	"fmt"
	"strings"

	"otrproxy/otrlayer"
	"otrproxy/proxy/control"
	"otrproxy/proxy/relay"
	"otrproxy/proxy/sasl"
)

// Kept is what is kept of an account, or for "" of all; most is for one account, or where
// there is but one for all, for that.
func (k *Desk) Kept(account string) (lines []control.KeptLine, spared map[string]uint64) {
	sum, contacts := k.Accounts.Keeps.All(), k.Relay.ContactsKnown("")
	if account != "" {
		sum, contacts = otrlayer.Kept{}, 0
		if a := k.Accounts.Get(account); a != nil {
			sum = a.Kept()
		}
		contacts = k.Relay.ContactsKnown(account)
	}
	hold := k.Config().Hold
	add := func(what, per string, now, most int) {
		lines = append(lines, control.KeptLine{What: what, Now: now, Most: most, Per: per})
	}
	if account == "" {
		add("accounts", "", k.Accounts.Kept.Count(k.Accounts.Dir), k.Config().Limits.Accounts)
	}
	add("contacts", "session", contacts, relay.MaxContacts)
	add("written_to", "account", sum.Written, otrlayer.MaxConversations)
	add("conversations", "account", sum.Conversations, otrlayer.MaxConversations)
	add("held_messages", "contact", sum.Held, hold.Messages)
	add("held_bytes", "account", sum.HeldBytes, otrlayer.MaxHeld*hold.Bytes)
	add("texts", "", sum.Texts, 0)
	add("text_bytes", "account", sum.TextBytes, otrlayer.MaxTextBytes)
	add("piece_bytes", "account", sum.PieceBytes, otrlayer.MaxPieceBytes)
	add("owed_messages", "account", sum.Owed, otrlayer.MaxOwed)
	if account == "" {
		add("guesses", "", k.Logins.Guesses.Counted(), sasl.MaxGuessed)
	}
	add("strangers", "account", len(k.Logins.Passwords.Unconfirmed(account)), sasl.MaxStrangers)
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
