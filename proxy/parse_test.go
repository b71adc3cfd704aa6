package proxy

import (
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
