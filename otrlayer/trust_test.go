package otrlayer

import (
	"slices"
	"testing"

	"otrproxy/otrlayer/keyring"
)

// Under require-verified the first contact says what to do, with both fingerprints; what
// waits goes in order the moment the key is verified, in whichever way, and waits again
// when that is taken back.
func TestRequireVerifiedFirstContact(t *testing.T) {
	for way, verify := range map[string]func(alice, bob *person){
		"fingerprint": func(alice, bob *person) {
			fp, _ := bob.a.Fingerprint()
			if ok, err := alice.a.Verify("bob@y", fp); !ok || err != nil {
				alice.t.Fatal(ok, err)
			}
		},
		"secret": func(alice, bob *person) {
			alice.done(alice.t, alice.a.Compare(alice, "bob@y", nil, "s3cret"))
			carry(alice, bob)
			bob.done(bob.t, bob.a.Answer(bob, "alice@x", "s3cret"))
		},
		"question": func(alice, bob *person) {
			q := "which?"
			alice.done(alice.t, alice.a.Compare(alice, "bob@y", &q, "this"))
			carry(alice, bob)
			bob.done(bob.t, bob.a.Answer(bob, "alice@x", "this"))
		},
	} {
		t.Run(way, func(t *testing.T) {
			alice, bob := couple(t)
			alice.policy = RequireVerified
			alice.say("1", "one")
			alice.say("2", "two")
			carry(alice, bob)
			own, _ := alice.a.Fingerprint()
			theirs, _ := bob.a.Fingerprint()
			for _, part := range []string{"the rules let nothing leave before you know that it is them", own.String(), theirs.String(), "!otr smp ask"} {
				if !alice.noticed(part) {
					t.Errorf("not told: %s", part)
				}
			}
			if len(bob.read) != 0 {
				t.Fatalf("read %q before", bob.read)
			}
			// A wrong secret, or another fingerprint, gives no trust.
			alice.done(t, alice.a.Compare(alice, "bob@y", nil, "right"))
			carry(alice, bob)
			bob.done(t, bob.a.Answer(bob, "alice@x", "wrong"))
			carry(alice, bob)
			if ok, _ := alice.a.Verify("bob@y", own); ok || len(bob.read) != 0 {
				t.Fatalf("verified %v, read %q", ok, bob.read)
			}
			verify(alice, bob)
			carry(alice, bob)
			if !slices.Equal(bob.read, []string{"one", "two"}) {
				t.Errorf("read %q", bob.read)
			}
			if was, err := alice.a.Distrust("bob@y"); !was || err != nil {
				t.Error(was, err)
			}
			alice.say("3", "three")
			carry(alice, bob)
			if len(bob.read) != 2 || len(alice.a.Held()) != 1 || alice.a.Held()[0].Why != CauseUnverified {
				t.Errorf("read %q, held %+v", bob.read, alice.a.Held())
			}
			verify(alice, bob)
			carry(alice, bob)
			if !slices.Equal(bob.read, []string{"one", "two", "three"}) {
				t.Errorf("read %q", bob.read)
			}
			if was, _ := bob.a.Distrust("alice@x"); was != (way == "secret") {
				t.Errorf("bob trusts alice: %v", was)
			}
		})
	}
}

// A changed key is accepted by its own name alone, and only while it waits for that.
func TestAcceptNamesTheKey(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "one")
	carry(alice, bob)
	old := alice.a.Conversation("bob@y").Fingerprint
	if ok, _ := alice.a.Accept("bob@y", old); ok {
		t.Error("nothing waits for that")
	}
	k, _ := testKey("carol@z")
	if _, err := bob.a.ImportKey(k, true); err != nil {
		t.Fatal(err)
	}
	carry(alice, bob)
	alice.say("2", "two")
	carry(alice, bob)
	v := alice.a.Conversation("bob@y")
	if v.Trust != keyring.Changed || v.Fingerprint != k.Fingerprint() || !slices.Contains(v.Known, old) || v.Waits != CauseKeyChanged {
		t.Fatalf("%+v", v)
	}
	for _, fp := range []keyring.Fingerprint{old, {}, {1}} {
		if ok, _ := alice.a.Accept("bob@y", fp); ok {
			t.Errorf("%s was accepted", fp)
		}
	}
	if ok, _ := alice.a.Accept("nobody@y", k.Fingerprint()); ok {
		t.Error("of nobody")
	}
	if len(bob.read) != 1 {
		t.Errorf("read %q", bob.read)
	}
	if ok, err := alice.a.Accept("bob@y", k.Fingerprint()); !ok || err != nil {
		t.Fatal(ok, err)
	}
	carry(alice, bob)
	if !slices.Equal(bob.read, []string{"one", "two"}) {
		t.Errorf("read %q", bob.read)
	}
}
