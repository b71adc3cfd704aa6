package otrlayer

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"otrproxy/otrlayer/keyring"
	"otrproxy/otrlayer/otr"
)

// FuzzReadProfile: a file of anybody's is read without harm, and what is read of it is
// what our own account would be made of.
func FuzzReadProfile(f *testing.F) {
	k, err := testKey("alice@x")
	if err != nil {
		f.Fatal(err)
	}
	keys, _ := otr.AppendKey(nil, "alice@x/Pidgin", "prpl-jabber", k)
	keys, _ = otr.AppendKey(keys, "12345", "prpl-icq", k)
	f.Add(keys)
	f.Add([]byte("bob@y\talice@x/Pidgin\tprpl-jabber\t0123456789abcdef0123456789abcdef01234567\tverified\n# c\n\t\t\n"))
	f.Add([]byte("alice@x\tprpl-jabber\t0badcafe\nalice@x\tprpl-jabber\t1\n"))
	f.Add([]byte("(privkeys (account (name a)"))
	f.Fuzz(func(t *testing.T, file []byte) {
		p, ok := keyring.ReadProfile(file)
		if !ok {
			return
		}
		seen := map[string]bool{}
		for _, x := range p.Keys {
			if seen[x.Name+"\x00"+x.Protocol] { // of two for one account, the first is the one that is found
				continue
			}
			seen[x.Name+"\x00"+x.Protocol] = true
			found, err := otr.FindKey(file, func(name, proto string) bool { return name == x.Name && proto == x.Protocol })
			if x.Key != nil && (err != nil || found == nil) {
				t.Errorf("%q is found in one way and not in the other: %v", x.Name, err)
			}
		}
		for _, x := range p.Known {
			if x.Contact == "" {
				t.Error("a line that is nothing was taken for a key")
			}
		}
		for _, x := range p.Tags {
			if x.Tag < otr.LowestTag {
				t.Errorf("tag %x", x.Tag)
			}
		}
	})
}

// Importing into a conversation that is going on: what waited for trust goes at once,
// a replaced key ends what was private, and nothing is lost.
func TestImportWhileTalking(t *testing.T) {
	alice, bob := couple(t)
	alice.policy = RequireVerified
	alice.say("1", "waits for trust")
	carry(alice, bob)
	if len(bob.read) != 0 || alice.a.Conversation("bob@y").Waits != CauseUnverified {
		t.Fatalf("%q %+v", bob.read, alice.a.Conversation("bob@y"))
	}
	fp := alice.a.Conversation("bob@y").Fingerprint
	moved, err := alice.a.ImportKnown("bob@y", []keyring.KnownKey{{Contact: "bob@y", Fingerprint: fp, Trust: "affirmed\nevil@z"}}, false)
	if err != nil || moved[0] != Imported {
		t.Fatal(moved, err)
	}
	carry(alice, bob)
	if len(bob.read) != 1 || bob.read[0] != "waits for trust" {
		t.Errorf("read %q", bob.read)
	}
	if err := alice.a.Saved(); err != nil {
		t.Error(err)
	}
	if file, _ := os.ReadFile(filepath.Join(alice.a.dir, keyring.FingerprintFile)); bytes.Contains(file, []byte("\nevil@z")) {
		t.Errorf("%s", file)
	}
	// Another key of theirs, that nobody verified, is not taken over beside a verified one.
	other := keyring.Fingerprint{1}
	if moved, _ := alice.a.ImportKnown("bob@y", []keyring.KnownKey{{Contact: "bob@y", Fingerprint: other}}, false); moved[0] != Conflict {
		t.Errorf("%v", moved)
	}
	if alice.a.fps.Find("bob@y", other) != nil {
		t.Error("taken over")
	}
	k, _ := testKey("carol@z")
	if moved, err := alice.a.ImportKey(k, false); moved != Conflict || err != nil {
		t.Errorf("%v %v", moved, err)
	}
	if moved, err := alice.a.ImportKey(k, true); moved != Imported || err != nil {
		t.Fatalf("%v %v", moved, err)
	}
	if fp, _ := alice.a.Fingerprint(); fp != k.Fingerprint() {
		t.Error("not in force")
	}
	carry(alice, bob)
	alice.say("2", "with the new key")
	carry(alice, bob)
	if got := bob.a.Conversation("alice@x"); got.Trust != keyring.Changed || got.Fingerprint != k.Fingerprint() {
		t.Errorf("%+v", got)
	}
	if len(bob.read) != 2 {
		t.Errorf("read %q", bob.read)
	}
}
