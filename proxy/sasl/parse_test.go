package sasl

import (
	"testing"
)

func FuzzParsePlain(f *testing.F) {
	f.Add([]byte("\x00user\x00pass"))
	f.Add([]byte("a@b\x00user\x00pass"))
	f.Fuzz(func(t *testing.T, b []byte) {
		authzid, c, ok := ParsePlain(b)
		if ok && (c.User == "" || c.Password == "" || authzid+"\x00"+c.User+"\x00"+c.Password != string(b)) {
			t.Errorf("%q became %q %q", b, authzid, c.User)
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
		if err == nil && (c.Memory > 1<<18 || c.Time > 16 || c.Threads == 0 || len(salt) < 8 || len(sum) != 32) {
			t.Errorf("%q: %+v", s, c)
		}
	})
}
