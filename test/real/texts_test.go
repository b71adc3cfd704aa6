//go:build linux

package real

import (
	"slices"
	"strings"
	"testing"
)

// long is a text of 3,000 characters.
var long = strings.Repeat("three thousand characters & more, ", 3000/34)[:2990] + " <the end>"

// texts are what people write, by what is special about it. They arrive as they were typed,
// except where a program cannot write or show that at all.
var texts = []struct {
	what, text string
	notFrom    []string // programs that cannot be made to write it
	shown      string   // what programs show of it, where that differs
}{
	{"an address", "see https://x.example/?a=1&b=2&lang=en#c;d", nil, ""},
	{"right to left", "שלום עולם & مرحبا (abc) 123", nil, ""},
	{"an action", "/me waves & smiles", nil, "waves & smiles"},
	{"several lines", "one & <two>\n  three  four\n\nfive > six", []string{"bitlbee", "profanity"}, ""},
	{"3,000 characters", long, []string{"bitlbee", "profanity"}, ""},
}

// exchangeTexts has alice and bob write each other all of that.
func exchangeTexts(t *testing.T, contact string, alice *slixmpp, bob contact) {
	t.Helper()
	for i, x := range texts {
		alice.say(bob.jid(), "text"+x.what[:2], x.text)
		if x.shown != "" && contact != "otrproxy" {
			bob.reads(x.shown)
		} else {
			bob.reads(x.text)
		}
		if slices.Contains(x.notFrom, contact) {
			continue
		}
		bob.say(x.text)
		alice.reads(bob.jid(), x.text)
		t.Logf("exact: %d. %s", i+1, x.what)
	}
}
