package proxy

import (
	"strings"
	"testing"
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

// FuzzHash: no damaged hash of a password takes more memory than one of ours, or fits every
// password.
func FuzzHash(f *testing.F) {
	f.Add(hashPassword("secret"))
	f.Add("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$AAAA")
	f.Add("$argon2id$v=19$m=4294967295,t=4294967295,p=255$$")
	f.Fuzz(func(t *testing.T, s string) {
		c, salt, sum, err := readHash(s)
		if err == nil && (c.memory > 1<<18 || c.time > 16 || c.threads == 0 || len(salt) < 8 || len(sum) != 32) {
			t.Errorf("%q: %+v", s, c)
		}
	})
}
