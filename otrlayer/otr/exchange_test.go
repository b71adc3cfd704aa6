package otr

import (
	"crypto/rand"
	"errors"
	mathrand "math/rand/v2"
	"testing"
)

// commitWhere commits with a hash of the given kind: it is drawn until it is one.
func (s *side) commitWhere(t *testing.T, ok func(first byte) bool) string {
	t.Helper()
	before := s.c.commitment
	for {
		m, err := s.c.Commit(*s.clock, V3)
		if err != nil {
			t.Fatal(err)
		}
		s.c.budget = budgetSize // these tries are the test's own
		if s.c.commitment == before || ok(s.c.commitment.hash[0]) {
			return string(m)
		}
		s.c.commitment = before
	}
}

func (s *side) answer(t *testing.T, m string) string {
	t.Helper()
	s.receive(m)
	out := s.take()
	if len(out) != 1 {
		t.Fatalf("%s answers with %d messages", s.name, len(out))
	}
	return out[0]
}

func TestCrossingAfterReveal(t *testing.T) {
	alice, bob := newPair(t, Set(V3))
	high := func(b byte) bool { return b >= 0x80 }
	low := func(b byte) bool { return b < 0x80 }
	c1 := bob.commitWhere(t, high)
	reveal1 := bob.answer(t, alice.answer(t, c1))
	c2 := bob.commitWhere(t, high)  // bob is asked again
	c3 := alice.commitWhere(t, low) // and so is alice
	bob.receive(c3)
	toAlice := append([]string{reveal1, c2}, bob.take()...)
	for _, m := range toAlice {
		alice.receive(m)
	}
	pump(alice, bob)
	a, b := alice.c.Sessions()[0], bob.c.Sessions()[0]
	if a.SSID != b.SSID {
		t.Errorf("nothing was lost or forged, and the two sides have different sessions: %x %x", a.SSID, b.SSID)
	}
	alice.say("hello")
	pump(alice, bob)
	bob.read("hello")
}

func TestCommitReplaced(t *testing.T) {
	alice, bob := newPair(t, Set(V3))
	c1 := bob.commitWhere(t, func(b byte) bool { return b >= 0xc0 })
	c2 := alice.commitWhere(t, func(b byte) bool { return b >= 0x40 && b < 0xc0 })
	c3 := bob.commitWhere(t, func(b byte) bool { return b < 0x40 }) // bob is asked twice
	bob.out = []string{c1, c3}
	alice.out = []string{c2}
	pump(alice, bob)
	if until := bob.c.SealedUntil(*bob.clock, alice.c.config.Instance); !until.IsZero() {
		t.Errorf("everything was delivered, and bob waits %v for a signature that never comes; alice: %v", until.Sub(*bob.clock), alice.errors)
	}
}

// A peer that makes the shared secret can make us verify signatures without end.
func TestSignatureBudget(t *testing.T) {
	alice, bob := newPair(t, Set(V3))
	commit, _ := alice.c.Commit(*alice.clock, V3)
	alice.answer(t, bob.answer(t, string(commit)))
	// mallory answers as well, and knows the secrets
	e := alice.c.exchanges[0]
	mal := New(Config{Key: testKey(t, "carol"), Instance: bob.c.config.Instance, Random: rand.Reader, Versions: func() Versions { return everyVersion }})
	k := e.secrets
	// The MAC is right; the signature is over the wrong thing.
	who, err := mal.identify(k.b.c, []byte("wrong"), k.b.m2, &e.theirs, &e.key.public)
	if err != nil {
		t.Fatal(err)
	}
	bad := encode(append(appendHeader(nil, V3, Signature, mal.config.Instance, alice.c.config.Instance), who...))
	busy := 0
	for range 1000 {
		if _, err := alice.c.Receive(*alice.clock, Parse(bad)); errors.Is(err, ErrBusy) {
			busy++
		}
	}
	if busy == 0 {
		t.Error("1000 Signature messages within one moment: each was verified")
	}
}

// Both sides begin, some of them more than once, and what they send comes in order on
// each way and in any order between the two: they always end in the same session,
// and nobody waits for what never comes.
func TestCrossingSchedules(t *testing.T) {
	for n := range 150 {
		random := mathrand.New(mathrand.NewPCG(uint64(n), 1))
		alice, bob := newPair(t, Set(V3))
		pair := []*side{alice, bob}
		commits := 2 + random.IntN(3)
		for commits > 0 || len(alice.out)+len(bob.out) > 0 {
			i := random.IntN(2)
			switch {
			case commits > 0 && random.IntN(3) == 0:
				pair[i].commit(V3)
				commits--
			case len(pair[i].out) > 0:
				m := pair[i].out[0]
				pair[i].out = pair[i].out[1:]
				pair[1-i].receive(m)
			}
		}
		a, b := alice.c.Sessions(), bob.c.Sessions()
		if len(a) != 1 || len(b) != 1 || a[0].SSID != b[0].SSID {
			t.Fatalf("schedule %d: sessions %+v and %+v; errors %v %v", n, a, b, alice.errors, bob.errors)
		}
		for i, s := range pair {
			if until := s.c.SealedUntil(s.clock.Add(crossedLife), pair[1-i].c.config.Instance); !until.IsZero() {
				t.Errorf("schedule %d: %s waits for what never comes", n, s.name)
			}
		}
		alice.say("from alice")
		bob.say("from bob")
		pump(alice, bob)
		alice.read("from bob")
		bob.read("from alice")
		if t.Failed() {
			t.FailNow()
		}
	}
}

// What a D-H Commit message promised is what has to be revealed: with another hash, or
// another ciphertext, the exchange comes to nothing.
func TestCommitBinds(t *testing.T) {
	eachVersion(t, func(t *testing.T, v Version) {
		for name, at := range map[string]func(b []byte) int{
			"hash":       func(b []byte) int { return len(b) - 1 },
			"ciphertext": func(b []byte) int { return headerSize(v) + 4 + 100 },
		} {
			alice, bob := newPair(t, Set(v))
			alice.commit(v)
			b := raw(t, alice.take()[0])
			b[at(b)] ^= 1
			bob.receive(string(encode(b)))
			pump(alice, bob)
			if len(bob.c.Sessions()) > 0 || len(alice.c.Sessions()) > 0 || len(bob.errors) != 1 || bob.errors[0] != ErrForged {
				t.Errorf("%s: sessions %+v %+v, errors %v", name, alice.c.Sessions(), bob.c.Sessions(), bob.errors)
			}
		}
	})
}
