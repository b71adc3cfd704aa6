package otrlayer

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"otrproxy/otrlayer/keyring"
	"otrproxy/otrlayer/otr"
)

// inClear are the files of an account's directory in which a private key stands in clear.
func inClear(t *testing.T, dir string) (found []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if b, _ := os.ReadFile(filepath.Join(dir, e.Name())); bytes.Contains(b, []byte("(private-key")) {
			found = append(found, e.Name())
		}
	}
	return found
}

func keyOf(t *testing.T, jid, name string) []byte {
	t.Helper()
	k, err := testKey(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := otr.AppendKey(nil, jid, keyring.ProtocolName, k)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t *testing.T, dir, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func sealed(b []byte) []byte { b, _ = sealing{}.Seal(b); return b }

// "key passphrase" (another one) where two files with a key stand, of which the proxy
// itself says that one has to be moved away: the key in force is overwritten.
func TestSealOverwritesKey(t *testing.T) {
	dir := keyedState(t, "alice@x")
	acc := keyring.Dir(dir, "alice@x")
	if err := keyring.SealKeys(acc, sealing{}, true); err != nil {
		t.Fatal(err)
	}
	inForce, _ := os.ReadFile(filepath.Join(acc, keyring.KeyFile+keyring.SealedSuffix))
	other := keyOf(t, "alice@x", "another")
	put(t, acc, keyring.KeyFile, other) // copied into place by the person
	keyring.SealKeys(acc, sealing{}, true)
	left := false
	list, _ := os.ReadDir(acc)
	for _, e := range list {
		b, _ := os.ReadFile(filepath.Join(acc, e.Name()))
		left = left || bytes.Equal(b, inForce)
	}
	if !left {
		t.Error("the key in force is gone from the disk")
	}
}

// The same the other way round: "key passphrase --remove".
func TestUnsealOverwritesKey(t *testing.T) {
	dir := keyedState(t, "alice@x")
	acc := keyring.Dir(dir, "alice@x")
	if err := keyring.SealKeys(acc, sealing{}, true); err != nil {
		t.Fatal(err)
	}
	other := keyOf(t, "alice@x", "another")
	put(t, acc, keyring.KeyFile, other)
	keyring.SealKeys(acc, sealing{}, false)
	left := false
	list, _ := os.ReadDir(acc)
	for _, e := range list {
		b, _ := os.ReadFile(filepath.Join(acc, e.Name()))
		left = left || bytes.Equal(b, other)
	}
	if !left {
		t.Error("the key that was copied into place is gone from the disk")
	}
}

// kill -9 between writing the encrypted file and removing the one in clear: the same key
// stands in both. After the start the account can be used, and nothing is in clear.
func TestKilledWhileSealing(t *testing.T) {
	dir := keyedState(t, "alice@x")
	acc := keyring.Dir(dir, "alice@x")
	plain, _ := os.ReadFile(filepath.Join(acc, keyring.KeyFile))
	put(t, acc, keyring.KeyFile+keyring.SealedSuffix, sealed(plain))
	a, err := Open(dir, "alice@x", func() Settings { return Settings{} }, &noEvents{}, sealing{}, nil)
	if err != nil {
		t.Fatalf("the account cannot be used any more: %v", err)
	}
	defer a.Close()
	if _, ok := a.Fingerprint(); !ok {
		t.Error("no key")
	}
	if found := inClear(t, acc); found != nil {
		t.Errorf("in clear: %v", found)
	}
}

// kill -9 after the present key was encrypted, and before those that were set aside.
func TestSetAsideStaysInClear(t *testing.T) {
	dir := keyedState(t, "alice@x")
	acc := keyring.Dir(dir, "alice@x")
	plain, _ := os.ReadFile(filepath.Join(acc, keyring.KeyFile))
	put(t, acc, keyring.KeyFile+keyring.SealedSuffix, sealed(plain))
	os.Remove(filepath.Join(acc, keyring.KeyFile))
	put(t, acc, keyring.KeyFile+".replaced-20260101T000000.000", keyOf(t, "alice@x", "old"))
	a, err := Open(dir, "alice@x", func() Settings { return Settings{} }, &noEvents{}, sealing{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if found := inClear(t, acc); found != nil {
		t.Errorf("in clear: %v", found)
	}
}

// kill -9 while a key is written leaves its temporary file, which is never looked at
// again.
func TestTemporaryStaysInClear(t *testing.T) {
	dir := keyedState(t, "alice@x")
	acc := keyring.Dir(dir, "alice@x")
	plain, _ := os.ReadFile(filepath.Join(acc, keyring.KeyFile))
	put(t, acc, ".tmp-"+keyring.KeyFile+"4711", plain)
	if err := keyring.SealKeys(acc, sealing{}, true); err != nil {
		t.Fatal(err)
	}
	if found := inClear(t, acc); found != nil {
		t.Errorf("in clear: %v", found)
	}
}

// turning is a vault that is switched on at the moment at which it is first asked.
type turning struct {
	sealing
	once *sync.Once
	on   func()
}

func (v turning) Sealing() bool {
	was := true
	v.once.Do(func() { was = false; v.on() })
	return was
}

// "key passphrase" while the first key of an account is being made.
func TestMadeInClear(t *testing.T) {
	dir := t.TempDir()
	acc := keyring.Dir(dir, "alice@x")
	v := turning{once: &sync.Once{}}
	a, err := Open(dir, "alice@x", func() Settings { return Settings{} }, &noEvents{}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	over := make(chan struct{})
	v.on = func() {
		go func() { a.SealKeys(true); close(over) }() // as sealAll does, behind vault.protect
		if a.keys.TryLock() {                         // nobody holds back: it is done before the key is written
			a.keys.Unlock()
			<-over
		}
	}
	a.vault = v
	a.Prepare()
	<-a.Ready()
	<-over
	if found := inClear(t, acc); found != nil {
		t.Errorf("in clear, though keys are encrypted: %v", found)
	}
}

// "generate --replace" where "key passphrase" could not encrypt this account's file: the
// old key stays in clear, and after a start there are two.
func TestReplaceHalfSealed(t *testing.T) {
	for _, was := range []string{"in clear", "encrypted"} {
		t.Run(was, func(t *testing.T) {
			dir := keyedState(t, "alice@x")
			acc := keyring.Dir(dir, "alice@x")
			alice := newPerson(t, dir, "alice@x")
			v := switched{on: was == "in clear"}
			if was == "encrypted" {
				keyring.SealKeys(acc, sealing{}, true)
			}
			alice.a.vault = v
			fp, err := alice.a.Generate()
			if err != nil {
				t.Fatal(err)
			}
			alice.a.Close()
			again, err := Open(dir, "alice@x", func() Settings { return Settings{} }, &noEvents{}, v, nil)
			if err != nil {
				t.Fatalf("after a start: %v", err)
			}
			if got, _ := again.Fingerprint(); got != fp {
				t.Error("another key")
			}
		})
	}
}

type switched struct {
	sealing
	on bool
}

func (s switched) Sealing() bool { return s.on }

// Two replacements in one moment (or behind a clock that was set back): the first
// replaced key is overwritten by the second.
func TestSetAsideTwice(t *testing.T) {
	dir := keyedState(t, "alice@x")
	alice := newPerson(t, dir, "alice@x")
	at := time.Now()
	alice.a.clock = func() time.Time { return at }
	for _, name := range []string{"one", "two"} {
		k, err := testKey(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := alice.a.ImportKey(k, true); err != nil {
			t.Fatal(err)
		}
	}
	if kept, _ := filepath.Glob(filepath.Join(keyring.Dir(dir, "alice@x"), keyring.KeyFile+".replaced-*")); len(kept) != 2 {
		t.Errorf("two keys were replaced, %d are kept", len(kept))
	}
}

// full runs something while nothing can be written to the account's directory.
func full(t *testing.T, a *Account, f func()) {
	t.Helper()
	a.Saved()
	if err := os.Rename(a.dir, a.dir+".away"); err != nil {
		t.Fatal(err)
	}
	f()
	a.Saved() // which fails
	if err := os.Rename(a.dir+".away", a.dir); err != nil {
		t.Fatal(err)
	}
}

// A full disk: the person is told, makes room, and tries again. That must write.
func TestTrustNotSavedAgain(t *testing.T) {
	for _, what := range []string{"verify", "distrust"} {
		t.Run(what, func(t *testing.T) {
			alice, bob := couple(t)
			alice.say("1", "hello")
			carry(alice, bob)
			fp := alice.a.Conversation("bob@y").Fingerprint
			do := func() error { _, err := alice.a.Verify("bob@y", fp); return err }
			want := keyring.Verified
			if what == "distrust" {
				if err := do(); err != nil {
					t.Fatal(err)
				}
				do, want = func() error { _, err := alice.a.Distrust("bob@y"); return err }, keyring.Unverified
			}
			full(t, alice.a, func() {
				if err := do(); err == nil {
					t.Fatal("no error")
				}
			})
			if err := do(); err != nil {
				t.Fatal(err)
			}
			f, err := keyring.LoadFingerprints(alice.a.dir, keyring.FingerprintFile, "alice@x")
			if err != nil {
				t.Fatal(err)
			}
			if got := f.Trust("bob@y", fp); got != want {
				t.Errorf("said to be done, and after a start the key is %s", got)
			}
		})
	}
}

// A full disk while a conversation becomes private, with room again a moment later: the
// conversation goes on for days, and after a restart its next text leaves in clear.
func TestPrivateNotSavedAgain(t *testing.T) {
	alice, bob := couple(t)
	alice.policy, bob.policy = Manual, Manual
	full(t, alice.a, func() {
		alice.a.Start(alice, "bob@y")
		carry(alice, bob)
	})
	for i := range 5 {
		alice.say(fmt.Sprint(i), "private")
		carry(alice, bob)
		bob.a.Start(bob, "alice@x") // a refresh
		carry(alice, bob)
	}
	if alice.a.Conversation("bob@y").State != StateEncrypted {
		t.Fatal("not private")
	}
	if err := alice.a.Saved(); err != nil {
		t.Fatal(err)
	}
	private, err := keyring.LoadPrivate(alice.a.dir)
	if err != nil {
		t.Fatal(err)
	}
	if !private.Of["bob@y"] {
		t.Error("not known as private on disk: what is typed after a restart leaves in clear")
	}
}

// A login while keys are locked, of an account that has no key yet; then the passphrase is
// given, and the key is made. Messages wait for a private conversation again.
func TestKeyErrorStays(t *testing.T) {
	dir := t.TempDir()
	locked := true
	v := vaultFunc{func(b []byte) ([]byte, error) {
		if locked {
			return nil, keyring.ErrLocked
		}
		return b, nil
	}}
	alice := &person{t: t, events: &noEvents{}, policy: Require, hold: Hold{100, 1 << 20, time.Minute, time.Minute}, event: make(chan struct{}, 100)}
	a, err := Open(dir, "alice@x", func() Settings { return Settings{Policy: func(string) Policy { return Require }, Hold: alice.hold} }, alice.events, v, nil)
	if err != nil {
		t.Fatal(err)
	}
	alice.a = a
	alice.peer = newPerson(t, keyedState(t, "bob@y"), "bob@y")
	t.Cleanup(a.Close)
	a.Attach(alice)
	a.Prepare()
	<-a.Ready()
	locked = false
	a.Prepare() // the next login
	<-a.Ready()
	if _, ok := a.Fingerprint(); !ok {
		t.Fatal("no key")
	}
	if v := alice.say("1", "hello"); v.Action() != Held {
		t.Errorf("there is a key, and the message is %v (%s)", v.Action(), v.Cause())
	}
}

type vaultFunc struct {
	seal func([]byte) ([]byte, error)
}

func (vaultFunc) Sealing() bool                   { return true }
func (v vaultFunc) Seal(b []byte) ([]byte, error) { return v.seal(b) }
func (v vaultFunc) Open(b []byte) ([]byte, error) { return v.seal(b) }

// require-verified: many texts, from several goroutines, while trust flips: each is
// emitted once, in the order of Send for each goroutine, and never without trust.
func TestTrustFlips(t *testing.T) {
	alice, bob := couple(t)
	alice.policy = RequireVerified
	alice.hold = Hold{10000, 1 << 24, time.Minute, time.Minute}
	alice.say("0", "first")
	carry(alice, bob)
	fp := alice.a.Conversation("bob@y").Fingerprint
	var wg sync.WaitGroup
	const writers, each = 4, 200
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				alice.say(fmt.Sprintf("%d-%d", w, i), "x")
			}
		})
	}
	stop := make(chan struct{})
	var flips sync.WaitGroup
	flips.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			alice.a.Verify("bob@y", fp)
			alice.a.Distrust("bob@y")
		}
	})
	wg.Wait()
	close(stop)
	flips.Wait()
	alice.a.Verify("bob@y", fp)
	next, n := map[string]int{}, 0
	alice.mu.Lock()
	defer alice.mu.Unlock()
	for _, v := range alice.wire {
		if v.Action() != Encrypted {
			continue
		}
		w, i, ok := strings.Cut(v.Message().ID, "-")
		if !ok {
			continue
		}
		if i != fmt.Sprint(next[w]) {
			t.Fatalf("%s-%s, want %d", w, i, next[w])
		}
		next[w]++
		n++
	}
	if n != writers*each {
		t.Errorf("%d of %d", n, writers*each)
	}
}
