package sasl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"otrproxy/config"
	"otrproxy/otrlayer/keyring"
	"otrproxy/proxy/journal"
	"otrproxy/proxy/metrics"
	"otrproxy/proxy/notify"
	"otrproxy/proxy/state"
)

// The costs of a hash are OWASP's for argon2id, and stand in it: with others it is still read.
func TestHashSaysItsCosts(t *testing.T) {
	if want := (Argon2Cost{Time: 2, Memory: 19456, Threads: 1}); PasswordCost != want {
		t.Errorf("%+v", PasswordCost)
	}
	hash := hashPassword("secret")
	old := PasswordCost
	defer func() { PasswordCost = old }()
	PasswordCost = Argon2Cost{Time: 3, Memory: 128, Threads: 2}
	for _, v := range []verifier{{Password: hash}, {Password: hashPassword("secret")}} {
		if !v.fits(Credentials{"a", "secret"}) || v.fits(Credentials{"a", "Secret"}) || v.fits(Credentials{"a", ""}) {
			t.Error(v.Password)
		}
	}
	if one, other := hashPassword("secret"), hashPassword("secret"); one == other {
		t.Error("the same salt twice")
	}
}

// A password is recognised in the forms in which programs write it, and no other one is.
func TestFormsOfOnePassword(t *testing.T) {
	v := verifier{Password: hashPassword("caf\u00e9 \u00e5")}
	for text, fits := range map[string]bool{"caf\u00e9 \u00e5": true, "cafe\u0301 a\u030a": true, "caf\u00e9\u00a0\u212b": false, "cafe a": false, "caf\u00e9 \u00e5 ": false} {
		if v.fits(Credentials{"a", text}) != fits {
			t.Errorf("%q: %v", text, !fits)
		}
	}
}

// alone is what is known of logins where nobody has logged in yet.
func alone(t *testing.T) *Logins {
	cfg := config.Default()
	inForce := func() *config.Config { return cfg }
	log := journal.New(nil, func() bool { return false })
	lo := New(inForce, log, t.TempDir(), &state.Vault{})
	m := metrics.New("test", notify.Events(), nil)
	lo.Bell = notify.New(t.Context(), inForce, log, m, nil)
	lo.Accounts = &state.Accounts{}
	lo.OnceMade = func(_ string, f func()) { f() }
	lo.Spawn = func(f func()) bool { f(); return true }
	return lo
}

// A verifier that cannot be read lets nobody in as the person.
func TestDamagedVerifierRecognisesNobody(t *testing.T) {
	for name, file := range map[string]string{"no YAML": "\x00", "empty": "{}\n", "another hash": "password: \"$2y$10$abc\"\n", "unknown field": "pasword: x\n", "keys without any": "keys: []\n",
		"too much memory": "password: \"$argon2id$v=19$m=4294967295,t=2,p=1$c2FsdHNhbHQ$" + strings.Repeat("A", 43) + "\"\n"} {
		lo := alone(t)
		dir := keyring.Dir(lo.dir, "alice@example.org")
		os.MkdirAll(dir, 0o700)
		os.WriteFile(filepath.Join(dir, verifierFile), []byte(file), 0o600)
		if who, err := lo.Recognise("alice@example.org", Credentials{"alice", "x"}); err == nil || who != Strange || !strings.Contains(err.Error(), verifierFile) {
			t.Errorf("%s: %v %v", name, who, err)
		}
	}
}

// What a login costs beside the server's own part: the first one of a run, and later ones.
func BenchmarkRecognise(b *testing.B) {
	v := verifier{Password: hashPassword("secret")}
	b.Run("first of a run", func(b *testing.B) {
		for b.Loop() {
			v.fits(Credentials{"a", "secret"})
		}
	})
	w := newPasswords()
	b.Run("later", func(b *testing.B) {
		for b.Loop() {
			w.Sum("alice@example.org", "secret")
		}
	})
}
