package proxy

import (
	"strings"
	"testing"

	"otrproxy/config"
	"otrproxy/stanza"
)

func FuzzParsePlain(f *testing.F) {
	f.Add([]byte("\x00user\x00pass"))
	f.Add([]byte("a@b\x00user\x00pass"))
	f.Fuzz(func(t *testing.T, b []byte) {
		authzid, c, ok := parsePlain(b)
		if ok && (c.user == "" || c.password == "" || authzid+"\x00"+c.user+"\x00"+c.password != string(b)) {
			t.Errorf("%q became %q %q", b, authzid, c.user)
		}
	})
}

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
		_, c := compose(st.Root(), rule)
		out := stanza.Message{To: "x", Extra: c.extra}.AppendTo(nil)
		again, err := stanza.Parse(out)
		if err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		for el := range again.Root().Children() {
			switch string(el.NS()) {
			case nsChatStates, nsReceipts, nsStanzaID:
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

// FuzzFingerprint: whatever people and programs write, a fingerprint is 40 hex digits,
// and one that names somebody else is none of the contact's.
func FuzzFingerprint(f *testing.F) {
	for _, s := range []string{"01234567 89ABCDEF 01234567 89abcdef 01234567", "xmpp:bob@y?otr-fingerprint=0123456789abcdef0123456789abcdef01234567", "xmpp:eve@y?otr-fingerprint=0123456789abcdef0123456789abcdef01234567", "xmpp:bob@y?omemo-sid-1=00;otr-fingerprint=01", "xmpp:", "%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		fp, err := fingerprintOf(s, "bob@y")
		if err != nil {
			return
		}
		if !strings.Contains(strings.ToLower(strings.Map(func(r rune) rune {
			if strings.ContainsRune(" \t\r\n:-", r) {
				return -1
			}
			return r
		}, s)), fp.Hex()) && !strings.Contains(s, "%") {
			t.Errorf("%q became %s", s, fp)
		}
		if strings.HasPrefix(s, "xmpp:eve") {
			t.Errorf("%q is somebody else's", s)
		}
	})
}
