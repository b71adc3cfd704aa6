package keyring

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"otrproxy/otrlayer/otr"
)

var (
	spareMu   sync.Mutex
	spareKeys = map[string]*otr.PrivateKey{}
)

// spareKey is the test's key of a name. Making one takes a while.
func spareKey(name string) (k *otr.PrivateKey, err error) {
	spareMu.Lock()
	defer spareMu.Unlock()
	if spareKeys[name] == nil {
		spareKeys[name], err = otr.GenerateKey(rand.Reader)
	}
	return spareKeys[name], err
}

// stocked is a maker with keys to spare, one of each test key that is named.
func stocked(t *testing.T, dir string, v Vault, names ...string) *Maker {
	t.Helper()
	m := NewMaker(dir, v, func(_ int, what string, err error) { t.Error(what, err) })
	for _, name := range names {
		k, err := spareKey(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.spares.put(k); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(m.Close)
	return m
}

func isKey(t *testing.T, k *otr.PrivateKey, name string) {
	t.Helper()
	if want, _ := spareKey(name); k == nil || k.Fingerprint() != want.Fingerprint() {
		t.Errorf("not the key %q", name)
	}
}

// A key to spare is gone from the disk when it is given out: another run of the program, as
// after a crash, gives out the next one.
func TestSpareKeyIsUsedOnce(t *testing.T) {
	dir := t.TempDir()
	m := stocked(t, dir, nil, "alice@x", "bob@y")
	if st, err := os.Stat(filepath.Join(dir, SpareFile)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	k, err := m.Key(nil)
	if err != nil {
		t.Fatal(err)
	}
	isKey(t, k, "alice@x")
	k, err = stocked(t, dir, nil).Key(nil)
	if err != nil {
		t.Fatal(err)
	}
	isKey(t, k, "bob@y")
	if _, err := os.Stat(filepath.Join(dir, SpareFile)); !errors.Is(err, os.ErrNotExist) {
		t.Error("the file is still there", err)
	}
}

// A key to spare that cannot be taken off the disk is not given out.
func TestSpareKeyThatStaysIsNotUsed(t *testing.T) {
	dir := t.TempDir()
	m := NewMaker(dir, nil, nil)
	for _, name := range []string{"alice@x", "bob@y"} {
		k, err := spareKey(name)
		if err = errors.Join(err, m.spares.put(k)); err != nil {
			t.Fatal(err)
		}
	}
	m.spares.vault = badSeal{}
	sealed := filepath.Join(dir, SpareFile+SealedSuffix)
	if err := os.Rename(filepath.Join(dir, SpareFile), sealed); err != nil {
		t.Fatal(err)
	}
	if k, err := m.spares.take(); k != nil || err == nil {
		t.Errorf("%v %v", k, err)
	}
}

// badSeal reads what is in clear, and encrypts nothing.
type badSeal struct{}

func (badSeal) Sealing() bool                 { return true }
func (badSeal) Seal([]byte) ([]byte, error)   { return nil, errors.New("no") }
func (badSeal) Open(b []byte) ([]byte, error) { return b, nil }

// Keys to spare are kept as the vault says, not read while it is locked, and go when the
// passphrase comes or goes.
func TestSpareKeysAndThePassphrase(t *testing.T) {
	dir := t.TempDir()
	on := false
	v := &inverting{on: &on}
	m := stocked(t, dir, v, "alice@x")
	on = true
	if err := m.Reseal(); err != nil {
		t.Fatal(err)
	}
	if n, err := m.spares.count(); n != 0 || err != nil {
		t.Errorf("%d in clear are left: %v", n, err)
	}
	k, _ := spareKey("bob@y")
	if err := m.spares.put(k); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, SpareFile+SealedSuffix))
	if err != nil || strings.Contains(string(b), "privkeys") {
		t.Errorf("%q %v", b, err)
	}
	v.locked = true
	if k, err := m.spares.take(); k != nil || !errors.Is(err, ErrLocked) {
		t.Errorf("while locked: %v %v", k, err)
	}
	v.locked = false
	if n, err := m.spares.count(); n != 1 || err != nil {
		t.Errorf("%d: %v", n, err)
	}
	on = false
	if err := m.Reseal(); err != nil {
		t.Fatal(err)
	}
	if there, _ := os.ReadDir(dir); len(there) != 0 {
		t.Errorf("%v are left", there)
	}
}

// inverting encrypts by inverting every bit, while it is on.
type inverting struct {
	on     *bool
	locked bool
}

func (s *inverting) Sealing() bool { return *s.on }
func (s *inverting) Seal(b []byte) ([]byte, error) {
	out := make([]byte, len(b))
	for i := range b {
		out[i] = ^b[i]
	}
	return out, nil
}
func (s *inverting) Open(b []byte) ([]byte, error) {
	if s.locked {
		return nil, ErrLocked
	}
	return s.Seal(b)
}

// What others could have read, and what is damaged, is thrown away.
func TestSpareKeysThatAreNotSafe(t *testing.T) {
	for what, spoil := range map[string]func(path string){
		"open":    func(path string) { os.Chmod(path, 0o644) },
		"damaged": func(path string) { os.WriteFile(path, []byte("(privkeys"), 0o600) },
	} {
		dir := t.TempDir()
		m := stocked(t, dir, nil, "alice@x")
		spoil(filepath.Join(dir, SpareFile))
		if n, err := m.spares.count(); n != 0 || err != nil {
			t.Errorf("%s: %d, %v", what, n, err)
		}
		if there, _ := os.ReadDir(dir); len(there) != 0 {
			t.Errorf("%s: %v is left", what, there)
		}
	}
}

// Keys are made to spare once nobody has asked for a while, as many as there may be.
func TestKeysAreMadeToSpare(t *testing.T) {
	dir := t.TempDir()
	m := stocked(t, dir, nil, "alice@x", "bob@y")
	rested := make(chan struct{}, maxSpare)
	m.Rested = func() { rested <- struct{}{} }
	m.Stock()
	m.restock() // the time has come
	<-m.idle
	<-rested // once, when all are made
	if n, err := m.spares.count(); n != maxSpare || err != nil || !m.full {
		t.Errorf("%d %v", n, err)
	}
	if _, err := m.Key(nil); err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	idle := m.idle
	m.mu.Unlock()
	<-idle
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.quiet == nil {
		t.Error("one was used, and no other is going to be made")
	}
	if len(rested) != 0 {
		t.Error("it rested though nothing was made to spare")
	}
}
