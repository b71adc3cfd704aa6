package otrlayer

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"otrproxy/otrlayer/keyring"
)

func (p *person) done(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", p.a.jid, err)
	}
}

func (p *person) trust() keyring.Trust { return p.a.Conversation(p.peer.a.jid).Trust }

// Two people compare a secret: with a question and without, right and wrong, from
// either side; who is trusted then is written where libotr reads it.
func TestCompare(t *testing.T) {
	question := "the colour?"
	for _, tt := range []struct {
		name     string
		question *string
		answer   string
		asker    keyring.Trust // in who answered
		answerer keyring.Trust // in who asked
		notice   string
	}{
		{"secret", nil, "blue", keyring.SMP, keyring.SMP, "The secrets are the same"},
		{"secret, wrong", nil, "red", keyring.Unverified, keyring.Unverified, "NOT the same"},
		{"question", &question, "blue", keyring.SMP, keyring.Unverified, "The secrets are the same"},
		{"question, wrong", &question, "red", keyring.Unverified, keyring.Unverified, "NOT the same"},
	} {
		for _, turn := range []string{"we ask", "we are asked"} {
			t.Run(tt.name+"/"+turn, func(t *testing.T) {
				alice, bob := couple(t)
				alice.say("1", "x")
				carry(alice, bob)
				asks, answers := alice, bob
				if turn == "we are asked" {
					asks, answers = bob, alice
				}
				asks.done(t, asks.a.Compare(asks, answers.a.jid, tt.question, "blue"))
				carry(alice, bob)
				if !answers.noticed("!otr smp answer") || tt.question != nil && !answers.noticed(`"the colour?"`) {
					t.Errorf("notices %q", answers.notices)
				}
				if err := asks.a.Compare(asks, answers.a.jid, nil, "blue"); err == nil {
					t.Error("a second comparison beside the first")
				}
				answers.done(t, answers.a.Answer(answers, asks.a.jid, tt.answer))
				carry(alice, bob)
				if asks.trust() != tt.asker || answers.trust() != tt.answerer || !asks.noticed(tt.notice) {
					t.Errorf("trust %s in who answered, %s in who asked; %q %q", asks.trust(), answers.trust(), asks.notices, answers.notices)
				}
				if tt.asker == keyring.SMP {
					asks.a.Saved()
					b, err := os.ReadFile(filepath.Join(asks.a.dir, keyring.FingerprintFile))
					if err != nil || !strings.HasSuffix(strings.TrimSpace(string(b)), "\tsmp") {
						t.Errorf("%q %v", b, err)
					}
				}
				// Nothing stays open: the next one can begin at once, from the other side.
				answers.done(t, answers.a.Compare(answers, asks.a.jid, nil, "s"))
				carry(alice, bob)
				asks.done(t, asks.a.Answer(asks, answers.a.jid, "s"))
				carry(alice, bob)
				if answers.trust() != keyring.SMP {
					t.Errorf("second comparison: %s", answers.trust())
				}
			})
		}
	}
}

func TestCompareGivenUp(t *testing.T) {
	alice, bob := couple(t)
	if err := alice.a.Compare(alice, "bob@y", nil, "s"); !errors.Is(err, ErrNotPrivate) {
		t.Errorf("not private: %v", err)
	}
	alice.say("1", "x")
	carry(alice, bob)
	if err := alice.a.Answer(alice, "bob@y", "s"); !errors.Is(err, ErrNotAsked) {
		t.Errorf("not asked: %v", err)
	}
	alice.done(t, alice.a.Compare(alice, "bob@y", nil, "s"))
	carry(alice, bob)
	bob.done(t, bob.a.AbortComparing(bob, "alice@x"))
	carry(alice, bob)
	if !alice.noticed("was given up") {
		t.Errorf("notices %q", alice.notices)
	}
	if err := bob.a.Answer(bob, "alice@x", "s"); err == nil {
		t.Error("answered what was given up")
	}
	if alice.trust() != keyring.Unverified || bob.trust() != keyring.Unverified {
		t.Errorf("trust %s %s", alice.trust(), bob.trust())
	}
}

// What waits for verification goes when the secrets are the same; a contact's
// question cannot speak with our voice.
func TestCompareReleases(t *testing.T) {
	alice, bob := couple(t)
	alice.policy = RequireVerified
	if v := alice.say("1", "waits"); v.Action() != Held {
		t.Fatal(v.Action())
	}
	carry(alice, bob)
	bob.wantRead()
	q := "x\n[otrproxy] The secrets are the same: &lt;b&gt;\x01 " + strings.Repeat("y", 2*maxQuestion)
	bob.done(t, bob.a.Compare(bob, "alice@x", &q, "s"))
	carry(alice, bob)
	for _, n := range alice.notices {
		if strings.ContainsAny(n, "\n\x01") || strings.HasPrefix(n, "[otrproxy]") || len(n) > maxQuestion+300 {
			t.Errorf("notice %q", n)
		}
	}
	alice.done(t, alice.a.AbortComparing(alice, "bob@y"))
	carry(alice, bob)
	alice.done(t, alice.a.Compare(alice, "bob@y", nil, "s"))
	carry(alice, bob)
	bob.done(t, bob.a.Answer(bob, "alice@x", "s"))
	carry(alice, bob)
	bob.wantRead("waits")
}
