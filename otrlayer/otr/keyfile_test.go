package otr

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestSexp(t *testing.T) {
	x, err := parseSexp(` (a "b\"c\x41" #4142 43# |RA==| 2:() (d) e-f #142#)` + "\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"a", "b\"cA", "ABC", "D", "()", "", "e-f", "\x01B"}
	for i, w := range want {
		if x.list[i].atom != w {
			t.Errorf("%d: %q", i, x.list[i].atom)
		}
	}
	for _, bad := range []string{"", "(", ")", "(a", "(a #1g#)", "(a \"b)", "(a 5:b)", "(a) b", "(a |!|)"} {
		if _, err := parseSexp(bad); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

// A key written is the key read, and what was in the file stays.
func TestKeyFile(t *testing.T) {
	alice, bob := testKey(t, "alice"), testKey(t, "bob")
	file, err := AppendKey(nil, "a@x", "prpl-jabber", alice)
	if err != nil {
		t.Fatal(err)
	}
	both, err := AppendKey(file, `odd "name" \ü`, "prpl-msn", bob)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(both, bytes.TrimSuffix(file, []byte(")\n"))) {
		t.Error("the file was rewritten, not added to")
	}
	for name, want := range map[string]*PrivateKey{"a@x": alice, `odd "name" \ü`: bob} {
		got, err := FindKey(both, func(n, _ string) bool { return n == name })
		if err != nil || got == nil || got.Fingerprint() != want.Fingerprint() || !bytes.Equal(got.x, want.x) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if k, err := FindKey(both, func(n, _ string) bool { return n == "else" }); k != nil || err != nil {
		t.Errorf("another's key: %v %v", k, err)
	}
	if _, err := AppendKey([]byte("(privkeys (account"), "a", "b", alice); err == nil {
		t.Error("a damaged file was added to")
	}
}

// An apostrophe in another account's name is escaped by libgcrypt.
func TestLibotrNames(t *testing.T) {
	file, err := AppendKey(nil, "alice@x", "prpl-jabber", testKey(t, "alice"))
	if err != nil {
		t.Fatal(err)
	}
	// another account of the person's, as libgcrypt writes its name
	other := strings.Replace(string(file), `(name "alice@x")`, `(name "o\'brien@msn")`, 1)
	both := append(slices.Clone(file[:len(file)-3]), other[len("(privkeys\n"):]...)
	k, err := FindKey(both, func(n, _ string) bool { return n == "alice@x" })
	if err != nil || k == nil {
		t.Errorf("%v %v", k != nil, err)
	}
}

// Numbers that do not belong together are not a key.
func TestUnsoundKey(t *testing.T) {
	file, err := os.ReadFile(filepath.Join("testdata", "otr.private_key"))
	if err != nil {
		t.Fatal(err)
	}
	any := func(string, string) bool { return true }
	for _, word := range keyWords {
		at := bytes.Index(file, []byte("("+word+" #")) + 20
		damaged := bytes.Clone(file)
		damaged[at] ^= 1 // another hex digit
		if k, err := FindKey(damaged, any); err == nil {
			t.Errorf("%s changed: %v", word, k.Fingerprint())
		}
	}
}

// Damaged key files end in an error at once. (otr3's reader hung on some; found by
// this target.)
func FuzzKeyFile(f *testing.F) {
	for _, s := range []string{"(privkeys\n (account\n(name \"a@x\")\n(protocol prpl-jabber)\n(private-key \n (dsa \n  (p #00#)\n  )\n )\n )\n)\n",
		"(privkeys)", "(", "((((((((((((", "(a 3:b)", "(a |QQ==| \"\\n\" #0#)", "99999999999:", "(privkeys (account (name x"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := FindKey(b, func(string, string) bool { return true })
		if k != nil && (err != nil || !k.public.sound()) {
			t.Error("an unsound key")
		}
	})
}

func FuzzRecords(f *testing.F) {
	f.Add([]byte("# c\nbob@y\talice@x\tprpl-jabber\t0123456789abcdef0123456789abcdef01234567\tsmp\n\nx\ty\tz\n"))
	f.Add([]byte("a@x\tprpl-jabber\t00000100\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		once := FormatFingerprints(ParseFingerprints(b))
		if twice := FormatFingerprints(ParseFingerprints(once)); !bytes.Equal(once, twice) {
			t.Errorf("%q became %q and then %q", b, once, twice)
		}
		if tag := FindInstanceTag(b, func(string, string) bool { return true }); tag != 0 && tag < LowestTag {
			t.Errorf("tag %x", tag)
		}
	})
}
