package commands

import (
	"strings"
	"testing"
)

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
