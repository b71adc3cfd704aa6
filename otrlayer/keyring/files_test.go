package keyring

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"otrproxy/otrlayer/otr"
)

func TestAttackHashContact(t *testing.T) {
	dir := t.TempDir()
	memory(t, dir, "alice@x").remembers(t, "#bob@y", Fingerprint{1}, Verified)
	g, _ := LoadFingerprints(dir, FingerprintFile, "alice@x")
	if g.Trust("#bob@y", Fingerprint{1}) != Verified || g.Trust("#bob@y", Fingerprint{2}) != Changed {
		t.Errorf("after a restart the verified key is %q, and another key is %q", g.Trust("#bob@y", Fingerprint{1}), g.Trust("#bob@y", Fingerprint{2}))
	}
}

func TestAttackInjectedContact(t *testing.T) {
	dir := t.TempDir()
	evil := Fingerprint{6, 6, 6}
	f := memory(t, dir, "alice@x").fps
	f.Remember("x\nbob@y\talice@x\tprpl-jabber\t"+evil.Hex()+"\tverified\nx@y", Fingerprint{1}, Unverified)
	g, _ := LoadFingerprints(dir, FingerprintFile, "alice@x")
	if g.Trust("bob@y", evil) == Verified {
		t.Error("injected")
	}
}

// A remembering is what an account knows of its contacts, in a directory of the test's.
type remembering struct {
	dir     string
	mu      sync.Mutex
	fps     *Fingerprints
	private *Privates
	store   *Store
}

func memory(t *testing.T, dir, account string) *remembering {
	t.Helper()
	a := &remembering{dir: dir}
	var err error
	if a.fps, err = LoadFingerprints(dir, FingerprintFile, account); err != nil {
		t.Fatal(err)
	}
	if a.private, err = LoadPrivate(dir); err != nil {
		t.Fatal(err)
	}
	a.store = NewStore(&a.mu, func(string, error) {}, &a.fps.LineFile, &a.private.LineFile)
	return a
}

func (a *remembering) remembers(t *testing.T, contact string, fp Fingerprint, trust Trust) {
	t.Helper()
	a.mu.Lock()
	err := a.fps.Remember(contact, fp, trust)
	a.mu.Unlock()
	if err := errors.Join(err, a.store.AllSaved()); err != nil {
		t.Fatal(err)
	}
}

func (a *remembering) becomes(t *testing.T, contact string, private bool) {
	t.Helper()
	a.mu.Lock()
	a.private.Keep(contact, private)
	a.mu.Unlock()
	if err := a.store.AllSaved(); err != nil {
		t.Fatal(err)
	}
}

func (a *remembering) file(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(a.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Wherever a crash tears the last line, what stands before it is kept, no key is read out of
// the rest, no private contact is lost, and the next line is whole.
func TestTornLineIsNothing(t *testing.T) {
	whole := memory(t, t.TempDir(), "alice@x")
	whole.remembers(t, "bob@y", Fingerprint{1}, Verified)
	whole.becomes(t, "bob@y", true)
	before := map[string]string{FingerprintFile: whole.file(t, FingerprintFile), privateFile: whole.file(t, privateFile)}
	whole.remembers(t, "carol@y.example", Fingerprint{2}, SMP)
	whole.becomes(t, "carol@y.example", true)
	for name, kept := range before {
		full := whole.file(t, name)
		if !strings.HasPrefix(full, kept) || len(full) == len(kept) {
			t.Fatalf("%q was not appended to %q", full, kept)
		}
		for end := len(kept); end < len(full); end++ {
			dir := t.TempDir()
			os.WriteFile(filepath.Join(dir, name), []byte(full[:end]), 0o600)
			a := memory(t, dir, "alice@x")
			if name == FingerprintFile {
				if len(a.fps.All) != 1 || a.fps.Trust("bob@y", Fingerprint{1}) != Verified {
					t.Errorf("of %q: %+v", full[:end], a.fps.All)
				}
				a.remembers(t, "dave@z", Fingerprint{3}, Unverified)
			} else {
				if torn := full[len(kept):end]; !a.private.Of["bob@y"] || torn != "" && !a.private.Of[torn] {
					t.Errorf("of %q: %v", full[:end], a.private.Of)
				}
				a.becomes(t, "dave@z", true)
			}
			if now := a.file(t, name); !strings.HasPrefix(now, kept) || !strings.HasSuffix(now, "\n") || !strings.Contains(now[len(kept)-1:], "\ndave@z") {
				t.Errorf("of %q became %q", full[:end], now)
			}
		}
	}
}

// Of several lines about one key the last counts, and one is kept; other lines all are.
func TestLastLineCounts(t *testing.T) {
	dir := t.TempDir()
	line := func(contact, account, trust string) string {
		return string(otr.FormatFingerprints([]otr.KnownKey{{Contact: contact, Account: account, Protocol: ProtocolName, Fingerprint: Fingerprint{1}, Trust: trust}}))
	}
	os.WriteFile(filepath.Join(dir, FingerprintFile), []byte("# mine\n"+line("bob@y", "alice@x", "verified")+line("carol@y", "alice@x", "")+"# mine\n"+line("bob@y", "alice@x", "")+line("carol@y", "alice@x", "smp")), 0o600)
	a := memory(t, dir, "alice@x")
	if a.fps.Trust("bob@y", Fingerprint{1}) != Unverified || a.fps.Trust("carol@y", Fingerprint{1}) != SMP {
		t.Errorf("%+v", a.fps.All)
	}
	a.fps.rewrite()
	a.store.AllSaved()
	if got, want := a.file(t, FingerprintFile), "# mine\n"+line("bob@y", "alice@x", "")+line("carol@y", "alice@x", "smp")+"# mine\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// What was taken back does not come back: not for an earlier otrproxy either, which takes the
// best of several lines.
func TestTrustTakenBackLeavesNoLine(t *testing.T) {
	a := memory(t, t.TempDir(), "alice@x")
	a.remembers(t, "bob@y", Fingerprint{1}, Unverified)
	a.remembers(t, "bob@y", Fingerprint{1}, Verified)
	if file := a.file(t, FingerprintFile); strings.Count(file, "\n") != 2 {
		t.Errorf("not appended: %q", file)
	}
	a.remembers(t, "bob@y", Fingerprint{1}, Unverified)
	a.becomes(t, "bob@y", true)
	a.becomes(t, "bob@y", false)
	if file := a.file(t, FingerprintFile); strings.Contains(file, "verified") || strings.Count(file, "\n") != 1 {
		t.Errorf("%q", file)
	}
	if file := a.file(t, privateFile); file != "" {
		t.Errorf("%q", file)
	}
}

// A file that somebody else has changed, replaced or taken away is written anew.
func TestFileOfAnother(t *testing.T) {
	for what, change := range map[string]func(path string){
		"changed":    func(path string) { os.WriteFile(path, []byte("x\talice@x\tprpl-jabber\t"), 0o600) },
		"taken away": func(path string) { os.Remove(path) },
		"replaced": func(path string) {
			b, _ := os.ReadFile(path)
			os.WriteFile(path+"2", bytes.ToUpper(b), 0o600)
			os.Rename(path+"2", path)
		},
	} {
		t.Run(what, func(t *testing.T) {
			a := memory(t, t.TempDir(), "alice@x")
			a.remembers(t, "bob@y", Fingerprint{1}, Verified)
			before := a.file(t, FingerprintFile)
			change(filepath.Join(a.dir, FingerprintFile))
			a.remembers(t, "carol@y", Fingerprint{2}, Unverified)
			if got := a.file(t, FingerprintFile); !strings.HasPrefix(got, before) || strings.Count(got, "\n") != 2 {
				t.Errorf("%q", got)
			}
		})
	}
}

// A thousand new keys cost what their lines have in bytes, and not a thousand files.
func TestBytesWrittenAreThoseOfTheLines(t *testing.T) {
	a := memory(t, t.TempDir(), "alice@x")
	for i := range 1000 {
		contact := fmt.Sprintf("contact%d@example.org", i)
		a.remembers(t, contact, Fingerprint{byte(i), byte(i >> 8)}, Unverified)
		a.becomes(t, contact, true)
	}
	size := len(a.file(t, FingerprintFile)) + len(a.file(t, privateFile))
	if a.store.wrote != size {
		t.Errorf("%d bytes were written for %d", a.store.wrote, size)
	}
	for i := range 1000 { // and what is verified, not more than as much again for each time it doubles
		a.remembers(t, fmt.Sprintf("contact%d@example.org", i), Fingerprint{byte(i), byte(i >> 8)}, Verified)
	}
	if a.store.wrote > 5*size {
		t.Errorf("%d bytes were written for %d", a.store.wrote, size)
	}
}

// A file with more lines than twice what is live is written anew.
func TestStaleLinesGo(t *testing.T) {
	dir := t.TempDir()
	one := otr.FormatFingerprints([]otr.KnownKey{{Contact: "bob@y", Account: "alice@x", Protocol: ProtocolName, Fingerprint: Fingerprint{1}}})
	os.WriteFile(filepath.Join(dir, FingerprintFile), bytes.Repeat(one, minLines), 0o600)
	a := memory(t, dir, "alice@x")
	a.remembers(t, "carol@y", Fingerprint{2}, Verified)
	if file := a.file(t, FingerprintFile); strings.Count(file, "\n") != 2 {
		t.Errorf("%d lines", strings.Count(file, "\n"))
	}
}

// FuzzLines: whatever stands in a file of lines, what is read of it is the same after it was
// written anew.
func FuzzLines(f *testing.F) {
	f.Add([]byte("bob@y\talice@x\tprpl-jabber\t0123456789abcdef0123456789abcdef01234567\tverified\nbob@y\talice@x\tprpl-jabber\t0123456789abcdef0123456789abcdef01234567\t\n"))
	f.Add([]byte("# c\n\n\t\t\t\t\nbob@y\talice@x/P\tprpl-jabber\t0123456789ABCDEF0123456789abcdef01234567\r\nbob@y\tal"))
	f.Add([]byte("bob@y\talice@x\tprpl-jabber\t0123456789abcdef0123456789abcdef01234567\tveri"))
	f.Fuzz(func(t *testing.T, file []byte) {
		dir := t.TempDir()
		for _, name := range []string{FingerprintFile, privateFile} {
			os.WriteFile(filepath.Join(dir, name), file, 0o600)
		}
		a := memory(t, dir, "alice@x")
		a.mu.Lock()
		a.fps.rewrite()
		a.private.rewrite()
		a.mu.Unlock()
		if err := a.store.AllSaved(); err != nil {
			t.Fatal(err)
		}
		b := memory(t, dir, "alice@x")
		if !slices.Equal(a.fps.All, b.fps.All) {
			t.Errorf("%q\n%q", a.fps.All, b.fps.All)
		}
		if !bytes.Equal(a.private.format(), b.private.format()) {
			t.Errorf("%v\n%v", a.private.Of, b.private.Of)
		}
	})
}

func TestFingerprintFileKeepsOthers(t *testing.T) {
	dir := t.TempDir()
	in := "# a comment\nbob@y\talice@x/Pidgin\tprpl-jabber\t0123456789abcdef0123456789abcdef01234567\tverified\n" +
		"carol\tother@z\tprpl-msn\t0123456789abcdef0123456789abcdef01234567\tsmp\n"
	os.WriteFile(filepath.Join(dir, FingerprintFile), []byte(in), 0o600)
	a := memory(t, dir, "alice@x")
	f := a.fps
	fp, _ := ParseFingerprint("01234567 89ABCDEF 01234567 89ABCDEF 01234567")
	if tr := f.Trust("bob@y", fp); tr != Verified {
		t.Errorf("trust %s", tr)
	}
	if tr := f.Trust("bob@y", Fingerprint{9}); tr != Changed {
		t.Errorf("trust %s", tr)
	}
	if tr := f.Trust("dave@y", fp); tr != Unverified {
		t.Errorf("trust %s", tr)
	}
	a.remembers(t, "dave@y", fp, SMP)
	b, _ := os.ReadFile(filepath.Join(dir, FingerprintFile))
	for _, want := range []string{"# a comment\n", "carol\tother@z\tprpl-msn\t", "dave@y\talice@x\tprpl-jabber\t0123456789abcdef0123456789abcdef01234567\tsmp\n", "bob@y\talice@x/Pidgin\tprpl-jabber\t0123456789abcdef0123456789abcdef01234567\tverified\n"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%q is not in %q", want, b)
		}
	}
}
