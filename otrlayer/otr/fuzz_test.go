package otr

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// Any text is one of the kinds, and what is said of it holds.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "hello", "?OTR", "?OTR?", "?OTRv23?", "?OTR?v2? This user", "?OTRv2?x?OTRv3?", "?OTR Error: no", "?OTR:AAMD", "?OTR:AAMKAAABAAAAAgAAAAAA.",
		"?OTR|00000100|00000200,00001,00002,?OTR:AAMD,", "?OTR,1,2,x,", "?OTR,0,0,,", "a" + WhitespaceTag(everyVersion) + "b", tagBase + strings.Repeat(" ", 8), "<p>?OTRv3?</p>",
		"?OTR:AAIC" + strings.Repeat("A", 40) + ".", "?OTR:\n=\r\n.", "?OTRv" + strings.Repeat("2", 40) + "?"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		kept := bytes.Clone(text)
		m := Parse(text)
		clean, versions, tagged := CutTag(text)
		if !bytes.Equal(text, kept) {
			t.Fatal("the text was changed")
		}
		if len(clean) > len(text) || tagged == bytes.Equal(clean, text) {
			t.Errorf("tag cut %v: %q of %q", tagged, clean, text)
		}
		if m.Versions&^everyVersion != 0 || versions&^everyVersion != 0 {
			t.Errorf("versions %v %v", m.Versions, versions)
		}
		switch m.Kind {
		case Tagged:
			if !tagged || m.Versions != versions {
				t.Errorf("tagged %v %v, cut %v %v", m.Kind, m.Versions, tagged, versions)
			}
		case Encoded, Fragment:
			if m.Version == V3 && (m.Sender < LowestTag || m.Receiver != 0 && m.Receiver < LowestTag) || m.Version == V2 && m.Sender|m.Receiver != 0 {
				t.Errorf("tags %x %x in version %d", m.Sender, m.Receiver, m.Version)
			}
			if m.Kind == Fragment && (len(m.piece.text) == 0 || m.piece.k < 1 || m.piece.k > m.piece.n) {
				t.Errorf("piece %+v", m.piece)
			}
			if m.Kind == Encoded {
				pieces(t, text)
			}
		}
	})
}

// pieces checks that a message cut up and put together again is the same.
func pieces(t *testing.T, message []byte) {
	at := bytes.Index(message, []byte(encodedMark))
	message = message[at : at+bytes.IndexByte(message[at:], '.')+1]
	m := Parse(message)
	if len(message) < 60 || bytes.ContainsRune(message, ',') || len(message) > 100_000 {
		return
	}
	list, err := Split(message, 58)
	if err != nil {
		t.Fatal(err)
	}
	var a assembly
	for i, p := range list {
		f := Parse(p)
		if f.Kind != Fragment || f.Version != m.Version || f.Sender != m.Sender || len(p) > 58 {
			t.Fatalf("piece %q of %q", p, message)
		}
		if whole := a.add(f.piece, MaxMessage); (whole != nil) != (i == len(list)-1) || whole != nil && !bytes.Equal(whole, message) {
			t.Fatalf("%d of %d pieces make %q of %q", i+1, len(list), whole, message)
		}
	}
}

// A message of any content, in each place of an exchange and in a live session, is
// refused or answered, and nothing but an authentic one brings a session, an event or
// a text.
func FuzzReceive(f *testing.F) {
	alice, bob := fuzzPair(f, everyVersion, 1)
	alice.commit(V3)
	for len(alice.out)+len(bob.out) > 0 {
		from, to := alice, bob
		if len(alice.out) == 0 {
			from, to = bob, alice
		}
		m := from.take()[0]
		b := raw(f, m)
		for stage := range stages {
			f.Add(stage, byte(V3), b[2], b[headerSize(V3):])
		}
		to.receive(m)
	}
	alice.say("data")
	f.Add(byte(4), byte(V3), byte(Data), raw(f, alice.take()[0])[headerSize(V3):])
	f.Add(byte(0), byte(V2), byte(DHCommit), []byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, stage, version, kind byte, body []byte) {
		v := Version(version%2) + 2
		alice, bob := fuzzPair(t, Set(v), 2)
		switch stage % stages {
		case 1: // bob has committed
			bob.commit(v)
			bob.take()
		case 2: // bob has answered a commit
			alice.commit(v)
			bob.receive(alice.take()[0])
		case 3: // bob waits for the signature
			bob.commit(v)
			alice.receive(bob.take()[0])
			bob.receive(alice.take()[0])
		case 4:
			bob.commit(v)
			pump(alice, bob)
		}
		bob.take()
		bob.kinds()
		before := len(bob.c.sessions)
		bob.receive(string(encode(append(appendHeader(nil, v, Type(kind), alice.c.config.Instance, bob.c.config.Instance), body...))))
		if len(bob.texts)+len(bob.events) > 0 || len(bob.c.sessions) != before {
			t.Fatalf("texts %q, events %v, %d sessions", bob.texts, bob.events, len(bob.c.sessions))
		}
	})
}

// stages are the places of an exchange.
const stages byte = 5

// fuzzPair is a pair whose randomness is the same every time.
func fuzzPair(t testing.TB, versions Versions, seed byte) (alice, bob *side) {
	clock := time.Unix(1_700_000_000, 0)
	alice, bob = newSide(t, "alice", &clock, versions), newSide(t, "bob", &clock, versions)
	for i, s := range []*side{alice, bob} {
		s.c.config.Random = rand.NewChaCha8([32]byte{seed, byte(i)})
	}
	return alice, bob
}

// Records of any content inside the encryption, in each step of a comparison: no
// success without the secret, and the conversation goes on.
func FuzzRecord(f *testing.F) {
	st := smpState{}
	first, err := st.first(rand.NewChaCha8([32]byte{}))
	if err != nil {
		f.Fatal(err)
	}
	for step := range smpExpect4 + 1 {
		f.Add(byte(step), uint16(tlvSMP1), first)
		f.Add(byte(step), uint16(tlvSMP1Q), append([]byte("?\x00"), first...))
		f.Add(byte(step), uint16(tlvSMP2), first)
		f.Add(byte(step), uint16(tlvSMP3), []byte{0, 0, 0, 8})
		f.Add(byte(step), uint16(tlvSMP4), []byte{0, 0, 0, 3, 0, 0, 0, 1, 2, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1})
		f.Add(byte(step), uint16(tlvSMPAbort), []byte{})
	}
	f.Add(byte(0), uint16(tlvExtraKey), []byte{0, 0, 0, 1, 'x'})
	f.Add(byte(0), uint16(tlvDisconnected), []byte{})
	// The exchange and the steps before are the same every time, and made once.
	var states [smpExpect4 + 1]smpState
	var alice, bob *side
	reset := func(t testing.TB) {
		alice, bob = fuzzPair(t, Set(V3), 2)
		alice.commit(V3)
		pump(alice, bob)
	}
	reset(f)
	random := bob.c.config.Random
	theirs := smpState{x: scalar{elementSize - 1: 1}}
	step := func(value []byte, err error) []byte {
		if err != nil {
			f.Fatal(err)
		}
		return value
	}
	one := step(theirs.first(random))
	step(nil, states[smpAsked].readFirst(one))
	states[smpExpect3] = states[smpAsked]
	states[smpExpect3].x = scalar{elementSize - 1: 2}
	two := step(states[smpExpect3].second(random))
	states[smpExpect4] = theirs
	step(states[smpExpect4].third(random, two))
	states[smpExpect2].x = scalar{elementSize - 1: 2}
	step(states[smpExpect2].first(random))
	f.Fuzz(func(t *testing.T, at byte, kind uint16, value []byte) {
		if len(value) > 0xffff {
			return
		}
		alice.t, bob.t = t, t
		bob.c.budget = budgetSize
		bob.c.sessions[0].smp = smp{step: smpStep(at) % smpStep(len(states)), smpState: &smpState{}}
		*bob.c.sessions[0].smp.smpState = states[int(at)%len(states)]
		bob.kinds()
		bob.receive(alice.hostile(tlv{kind, value}))
		for _, k := range bob.kinds() {
			if k == SMPSuccess || k == Secured {
				t.Fatalf("event %d", k)
			}
		}
		if kind == tlvDisconnected {
			reset(t)
			return
		}
		alice.c.sessions[0].smp.wipe()
		pump(alice, bob)
		alice.kinds()
		bob.texts = nil
		alice.say("still there")
		bob.receive(alice.take()[0])
		bob.read("still there")
	})
}
