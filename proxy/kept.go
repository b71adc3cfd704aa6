package proxy

import (
	"fmt"
	"strings"
	"sync"

	"otrproxy/otrlayer"
	"otrproxy/proxy/control"
)

// What a server, or whoever can reach the port, can have us keep, is shown beside the most of
// it, in status and among the figures.

// sparedKinds are what was done less often than others wanted.
var sparedKinds = []string{"lines", "asks_delayed", "answers"}

// keeps adds up what the accounts keep, as that changes.
type keeps struct {
	mu  sync.Mutex
	sum otrlayer.Kept
}

func (k *keeps) add(before, now otrlayer.Kept) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sum.Add(before, now)
}

func (k *keeps) all() otrlayer.Kept {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sum
}

// kept is what is kept of an account, or for "" of all; most is for one account, or where
// there is but one for all, for that.
func (k *desk) kept(account string) (lines []control.KeptLine, spared map[string]uint64) {
	sum, contacts := k.accounts.keeps.all(), k.relay.contactsKnown("")
	if account != "" {
		sum, contacts = otrlayer.Kept{}, 0
		if a := k.accounts.get(account); a != nil {
			sum = a.Kept()
		}
		contacts = k.relay.contactsKnown(account)
	}
	hold := k.config().Hold
	add := func(what, per string, now, most int) {
		lines = append(lines, control.KeptLine{What: what, Now: now, Most: most, Per: per})
	}
	if account == "" {
		add("accounts", "", k.accounts.kin.count(k.accounts.dir), k.config().Limits.Accounts)
	}
	add("contacts", "session", contacts, maxContacts)
	add("written_to", "account", sum.Written, otrlayer.MaxConversations)
	add("conversations", "account", sum.Conversations, otrlayer.MaxConversations)
	add("held_messages", "contact", sum.Held, hold.Messages)
	add("held_bytes", "account", sum.HeldBytes, otrlayer.MaxHeld*hold.Bytes)
	add("texts", "", sum.Texts, 0)
	add("text_bytes", "account", sum.TextBytes, otrlayer.MaxTextBytes)
	add("piece_bytes", "account", sum.PieceBytes, otrlayer.MaxPieceBytes)
	add("owed_messages", "account", sum.Owed, otrlayer.MaxOwed)
	if account == "" {
		add("guesses", "", k.logins.guesses.counted(), maxGuessed)
	}
	add("strangers", "account", len(k.logins.passwords.unconfirmed(account)), maxStrangers)
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
