package filter

import (
	"strings"
	"testing"

	"otrproxy/config"
	"otrproxy/stanza"
)

// FuzzCompose: what may stand beside ciphertext holds no text of an unknown place.
func FuzzCompose(f *testing.F) {
	f.Add("<message><body>x</body><thread>t</thread><active xmlns='http://jabber.org/protocol/chatstates'/></message>")
	f.Add("<message><received xmlns='urn:xmpp:receipts' id='a b'/></message>")
	f.Add("<message><encrypted xmlns='eu.siacs.conversations.axolotl'><payload>AAAA</payload></encrypted></message>")
	f.Fuzz(func(t *testing.T, in string) {
		st, err := stanza.Parse([]byte(in))
		if err != nil {
			return
		}
		rule := config.Default().RuleFor("a@b", "c@d")
		c := Compose(st.Root(), rule)
		out := stanza.Message{To: "x", Extra: c.Extra}.AppendTo(nil)
		again, err := stanza.Parse(out)
		if err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		for el := range again.Root().Children() {
			switch string(el.NS()) {
			case NSChatStates, NSReceipts, NSStanzaID:
				if el.HasChildren() || el.Text() != "" {
					t.Errorf("text beside the ciphertext: %s", out)
				}
			case stanza.NSClient:
				if string(el.Local()) != "thread" || strings.ContainsAny(el.Text(), " \t\n") {
					t.Errorf("%s", out)
				}
			default:
				t.Errorf("an element that is not listed: %s", out)
			}
		}
	})
}
