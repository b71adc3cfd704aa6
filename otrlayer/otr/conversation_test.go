package otr

import (
	"testing"
)

func TestConversation(t *testing.T) {
	eachVersion(t, func(t *testing.T, v Version) {
		alice, bob := private(t, v)
		if a, b := alice.c.Sessions()[0], bob.c.Sessions()[0]; a.SSID != b.SSID || a.Fingerprint != bob.c.config.Key.Fingerprint() || b.Fingerprint != alice.c.config.Key.Fingerprint() || a.Version != v {
			t.Errorf("the two sides see %+v and %+v", a, b)
		}
		for range 3 {
			alice.say("one")
			alice.say("two")
			pump(alice, bob)
			bob.read("one", "two")
			bob.say("three")
			pump(alice, bob)
			alice.read("three")
		}
		alice.say("crossing")
		bob.say("messages")
		pump(alice, bob)
		alice.read("messages")
		bob.read("crossing")
		end, err := alice.c.End(*alice.clock, alice.instance())
		if err != nil {
			t.Fatal(err)
		}
		alice.out = append(alice.out, string(end))
		pump(alice, bob)
		bob.sees(Ended)
		if _, err := bob.c.Encrypt(*bob.clock, bob.instance(), []byte("x")); err != ErrFinished {
			t.Errorf("after the end: %v", err)
		}
		if len(alice.errors)+len(bob.errors) > 0 {
			t.Errorf("errors: %v %v", alice.errors, bob.errors)
		}
	})
}

func TestSMP(t *testing.T) {
	question := "the colour?"
	for _, tt := range []struct {
		name     string
		question *string
		right    bool
	}{{"right", nil, true}, {"wrong", nil, false}, {"question right", &question, true}, {"question wrong", &question, false}} {
		t.Run(tt.name, func(t *testing.T) {
			eachVersion(t, func(t *testing.T, v Version) {
				alice, bob := private(t, v)
				for _, turn := range [][2]*side{{alice, bob}, {bob, alice}} {
					a, b := turn[0], turn[1]
					m, err := a.c.SMPStart(*a.clock, a.instance(), tt.question, []byte("blue"))
					if err != nil {
						t.Fatal(err)
					}
					a.out = append(a.out, string(m))
					pump(a, b)
					if len(b.events) != 1 || b.events[0].Kind != SMPAsked || b.events[0].HasQuestion != (tt.question != nil) || tt.question != nil && b.events[0].Question != question {
						t.Fatalf("asked: %+v", b.events)
					}
					b.events = nil
					secret := "blue"
					if !tt.right {
						secret = "red"
					}
					m, err = b.c.SMPAnswer(*b.clock, b.instance(), []byte(secret))
					if err != nil {
						t.Fatal(err)
					}
					b.out = append(b.out, string(m))
					pump(a, b)
					want := outcome(tt.right)
					if len(b.events) == 1 && b.events[0].Answered != (tt.question != nil) {
						t.Errorf("answered: %+v", b.events[0])
					}
					a.sees(SMPProgress, want)
					b.sees(want)
				}
			})
		})
	}
}
