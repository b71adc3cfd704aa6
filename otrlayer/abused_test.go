package otrlayer

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"otrproxy/otrlayer/keyring"
	"otrproxy/otrlayer/text"
)

// A new key of ours ends the private conversation: what is typed next must not leave in clear.
func TestNewKeyGoesClear(t *testing.T) {
	for _, policy := range []Policy{Manual, Opportunistic} {
		for _, state := range []string{"encrypted", "finished"} {
			alice, bob := couple(t)
			alice.policy, bob.policy = policy, policy
			alice.a.Start(alice, "bob@y")
			carry(alice, bob)
			alice.say("1", "private")
			carry(alice, bob)
			if state == "finished" {
				bob.a.End(bob, "alice@x")
				carry(alice, bob)
				if v := alice.say("x", "CANARY"); v.Action() != Block {
					t.Fatalf("not finished: %v", v.Action())
				}
			}
			k, err := testKey("new")
			if err != nil {
				t.Fatal(err)
			}
			if m, err := alice.a.ImportKey(k, true); err != nil || m != Imported {
				t.Fatal(m, err)
			}
			carry(alice, bob)
			if v := alice.say("2", "CANARY"); v.Action() == Plain {
				t.Errorf("policy %d, %s: sent in clear after the new key", policy, state)
			}
		}
	}
}

type badVault struct {
	seal func([]byte) ([]byte, error)
}

func (badVault) Sealing() bool                   { return true }
func (v badVault) Seal(b []byte) ([]byte, error) { return v.seal(b) }
func (badVault) Open(b []byte) ([]byte, error)   { return b, nil }

// A new key that cannot be saved must not cost the old one.
func TestFailedReplaceLosesKey(t *testing.T) {
	dir := keyedState(t, "alice@x")
	alice := newPerson(t, dir, "alice@x")
	old, _ := alice.a.Fingerprint()
	alice.a.vault = badVault{func([]byte) ([]byte, error) { return nil, errors.New("no space left on device") }}
	if _, err := alice.a.Generate(); err == nil {
		t.Fatal("no error")
	}
	alice.a.Close()
	again, err := Open(dir, "alice@x", func() Settings { return Settings{} }, &noEvents{}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if fp, ok := again.Fingerprint(); !ok || fp != old {
		t.Errorf("after a restart the account has no key (%v); every contact will see another one", ok)
	}
}

// A key that is set aside is encrypted with the others.
func TestReplacedKeyStaysInClear(t *testing.T) {
	dir := keyedState(t, "alice@x")
	alice := newPerson(t, dir, "alice@x")
	if _, err := alice.a.Generate(); err != nil {
		t.Fatal(err)
	}
	v := badVault{func(b []byte) ([]byte, error) { return append([]byte("sealed"), b...), nil }}
	_ = v
	vv := sealing{}
	if err := keyring.SealKeys(keyring.Dir(dir, "alice@x"), vv, true); err != nil {
		t.Fatal(err)
	}
	list, _ := os.ReadDir(keyring.Dir(dir, "alice@x"))
	for _, e := range list {
		b, _ := os.ReadFile(filepath.Join(keyring.Dir(dir, "alice@x"), e.Name()))
		if strings.Contains(string(b), "(private-key") || strings.Contains(string(b), "privkeys") {
			t.Errorf("%s: a private key in clear", e.Name())
		}
	}
}

type sealing struct{}

func (sealing) Sealing() bool { return true }
func (sealing) Seal(b []byte) ([]byte, error) {
	out := make([]byte, len(b))
	for i := range b {
		out[i] = b[i] ^ 0x55
	}
	return out, nil
}
func (s sealing) Open(b []byte) ([]byte, error) { return s.Seal(b) }

// during runs something while a key file is being sealed.
type during struct {
	sealing
	f *func()
}

func (d during) Seal(b []byte) ([]byte, error) {
	if f := *d.f; f != nil {
		*d.f = nil
		f()
	}
	return d.sealing.Seal(b)
}

// key passphrase and key generate --replace at once.
func TestSealRacesReplace(t *testing.T) {
	dir := keyedState(t, "alice@x")
	alice := newPerson(t, dir, "alice@x")
	var f func()
	v := during{f: &f}
	alice.a.vault = v
	var fresh keyring.Fingerprint
	done := make(chan struct{})
	f = func() {
		go func() {
			defer close(done)
			var err error
			if fresh, err = alice.a.Generate(); err != nil {
				t.Error(err)
			}
		}()
	}
	if err := alice.a.SealKeys(true); err != nil {
		t.Fatal(err)
	}
	<-done
	alice.a.Close()
	again, err := Open(dir, "alice@x", func() Settings { return Settings{} }, &noEvents{}, v, nil)
	if err != nil {
		t.Fatal(err)
	}
	if fp, ok := again.Fingerprint(); !ok || fp != fresh {
		t.Errorf("on disk is not the key in use: %v", ok)
	}
}

// A question's line ends and marks of direction do not reach the person's client.
func TestQuestionSpeaks(t *testing.T) {
	for _, q := range []string{"x\u2028[otrproxy] The key is verified.", "x\u2029[otrproxy] The key is verified.", "\u202eyxorprto"} {
		got := question(q, text.PlainText)
		if strings.ContainsAny(got, "\u2028\u2029\u202e") {
			t.Errorf("%q", got)
		}
	}
}

// A secret that was taken for a contact does not become one.
func TestSecretBecomesContact(t *testing.T) {
	alice, _ := couple(t)
	alice.a.Answer(alice, "hunter2", "more")
	for _, c := range alice.a.Contacts() {
		if c.Contact == "hunter2" {
			t.Error("listed as a contact")
		}
	}
}

// What another program has verified: the unverified key that is in use here has to be decided about.
func TestImportLeavesUnverified(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "hello")
	carry(alice, bob)
	k, err := testKey("the real bob")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alice.a.ImportKnown("bob@y", []keyring.KnownKey{{Contact: "bob@y", Fingerprint: k.Fingerprint(), Trust: "verified"}}, false); err != nil {
		t.Fatal(err)
	}
	if v := alice.say("2", "secret"); v.Action() == Encrypted {
		t.Errorf("sent to the key in use, though another one of theirs is verified now; trust %s", alice.trust())
	}
	// the same decision made by hand, for comparison
	bob.a.Conversation("alice@x")
}

// A question without words is no comparison of a shared secret.
func TestEmptyQuestion(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "hello")
	carry(alice, bob)
	empty := ""
	if err := bob.a.Compare(bob, "alice@x", &empty, "s"); err != nil {
		t.Fatal(err)
	}
	carry(alice, bob)
	v := alice.a.Conversation("bob@y")
	if v.Asked && v.Question == "" {
		t.Error("looks like a comparison of a shared secret, which would verify both")
	}
}

// Trust changes while the key does.
func TestVerifyThenAnother(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "hello")
	carry(alice, bob)
	fp := alice.a.Conversation("bob@y").Fingerprint
	if ok, err := alice.a.Verify("bob@y", fp); !ok || err != nil {
		t.Fatal(ok, err)
	}
	alice.a.Distrust("bob@y")
	k, _ := testKey("eve")
	bob.a.ImportKey(k, true)
	carry(alice, bob)
	bob.a.Start(bob, "alice@x")
	carry(alice, bob)
	if v := alice.say("2", "secret"); v.Action() != Held {
		t.Errorf("%v %v", v.Action(), alice.trust())
	}
	if ok, _ := alice.a.Accept("bob@y", fp); ok {
		t.Error("the old one accepted as the new")
	}
	if ok, _ := alice.a.Verify("bob@y", fp); ok {
		t.Error("old key verified beside a changed one")
	}
	if alice.trust() != keyring.Changed {
		t.Error(alice.trust())
	}
}
