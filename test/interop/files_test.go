package interop

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"otrproxy/otrlayer/otr"
	"otrproxy/test/need"
)

// files runs libotr on one of its files and returns what it prints.
func files(t *testing.T, args ...string) string {
	t.Helper()
	if programs["libotr_files"] == "" {
		need.Missing(t, "libotr5-dev")
	}
	cmd := exec.Command(programs["libotr_files"], args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("libotr_files %q: %v\n%s", args, err, out)
	}
	return string(out)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Keys that libotr makes are read here, and one that is added here is read there,
// beside those of other accounts and protocols.
func TestKeyFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "otr.private_key")
	files(t, "generate", path, "bob@example.org/home", "prpl-jabber")
	files(t, "generate", path, "bob", "prpl-irc")
	theirs := read(t, path)
	ours := need.Key(t, "alice")
	both, err := otr.AppendKey(theirs, "alice@example.org", "prpl-jabber", ours)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(both, bytes.TrimSuffix(theirs, []byte(")\n"))) {
		t.Error("what libotr wrote was changed")
	}
	write(t, path, both)
	lines := strings.Split(strings.TrimSpace(files(t, "keys", path)), "\n")
	if len(lines) != 3 || !slices.Contains(lines, "alice@example.org prpl-jabber "+ours.Fingerprint().String()) {
		t.Fatalf("libotr reads %q", lines)
	}
	for _, line := range lines {
		f := strings.SplitN(line, " ", 3)
		k, err := otr.FindKey(both, func(name, protocol string) bool { return name == f[0] && protocol == f[1] })
		if err != nil || k == nil || k.Fingerprint().String() != f[2] {
			t.Errorf("%s: we read %v, %v", line, k, err)
		}
	}
	// And libotr goes on with the file.
	files(t, "generate", path, "carol@example.org", "prpl-jabber")
	after := read(t, path)
	for _, name := range []string{"alice@example.org", "bob@example.org/home", "carol@example.org"} {
		if k, err := otr.FindKey(after, func(n, _ string) bool { return n == name }); err != nil || k == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What libotr writes of fingerprints comes back from us byte for byte, and what we
// write means the same to libotr, trust and other protocols included.
func TestFingerprintFiles(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	var ours []otr.KnownKey
	for i, trust := range []string{"", "smp", "verified", "verified", ""} {
		fp := otr.Fingerprint{byte(i), 0xff}
		ours = append(ours, otr.KnownKey{Contact: fmt.Sprintf("bob%d@example.org", i/2), Account: []string{"alice@example.org", "alice"}[i%2], Protocol: []string{"prpl-jabber", "prpl-irc"}[i%2], Fingerprint: fp, Trust: trust})
	}
	write(t, a, otr.FormatFingerprints(ours))
	files(t, "fingerprints", a, b)
	written := read(t, b)
	if got := otr.FormatFingerprints(otr.ParseFingerprints(written)); !bytes.Equal(got, written) {
		t.Errorf("libotr wrote\n%s\nwe wrote\n%s", written, got)
	}
	sorted := func(b []byte) []string {
		l := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
		slices.Sort(l)
		return l
	}
	if got, want := sorted(written), sorted(read(t, a)); !slices.Equal(got, want) {
		t.Errorf("libotr understood\n%q\nwe wrote\n%q", got, want)
	}
	// Comments and lines of programs to come stay with us, and do not disturb libotr.
	odd := append([]byte("# a comment\n"), read(t, a)...)
	if got := otr.FormatFingerprints(otr.ParseFingerprints(odd)); !bytes.Equal(got, odd) {
		t.Errorf("%q became %q", odd, got)
	}
	write(t, a, odd)
	files(t, "fingerprints", a, b)
	if !slices.Equal(sorted(read(t, b)), sorted(written)) {
		t.Errorf("libotr, with a comment: %q", read(t, b))
	}
}

// Instance tags go both ways.
func TestInstanceTagFiles(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	files(t, "tag", a, "bob@example.org", "prpl-jabber")
	theirs := read(t, a)
	is := func(name string) func(string, string) bool { return func(n, _ string) bool { return n == name } }
	tag := otr.FindInstanceTag(theirs, is("bob@example.org"))
	if tag < otr.LowestTag {
		t.Fatalf("tag %x in %s", tag, theirs)
	}
	write(t, a, otr.AppendInstanceTag(theirs, "alice@example.org", "prpl-jabber", 0xabcdef01))
	files(t, "tags", a, b)
	written := read(t, b)
	if otr.FindInstanceTag(written, is("bob@example.org")) != tag || otr.FindInstanceTag(written, is("alice@example.org")) != 0xabcdef01 {
		t.Errorf("libotr understood\n%s\nof\n%s", written, read(t, a))
	}
}
