package otr

import (
	"crypto/rand"
	"strings"
	"testing"
)

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
					m, err := a.c.SMPStart(*a.clock, a.id(), tt.question, []byte("blue"))
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
					m, err = b.c.SMPAnswer(*b.clock, b.id(), []byte(secret))
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

// Each number of each message is bound by a proof: with any other, of the same kind
// and as good as itself, the receiver sees that it was cheated.
func TestSMPEveryNumber(t *testing.T) {
	secret := scalar{elementSize - 1: 42}
	// run is a comparison with a change made to what is sent as message n (1 to 4).
	run := func(change func(n int, value []byte) []byte) (equal [2]bool, cheated int, err error) {
		a, b := &smpState{x: secret}, &smpState{x: secret}
		value, err := a.first(rand.Reader)
		if err != nil {
			return equal, 0, err
		}
		if b.readFirst(change(1, value)) != nil {
			return equal, 1, nil
		}
		if value, err = b.second(rand.Reader); err != nil {
			return equal, 0, err
		}
		if value, err = a.third(rand.Reader, change(2, value)); err == errCheated {
			return equal, 2, nil
		}
		if value, equal[1], err = b.fourth(rand.Reader, change(3, value)); err == errCheated {
			return equal, 3, nil
		}
		if equal[0], err = a.last(change(4, value)); err == errCheated {
			return equal, 4, nil
		}
		return equal, 0, err
	}
	if equal, cheated, err := run(func(_ int, v []byte) []byte { return v }); err != nil || cheated != 0 || equal != [2]bool{true, true} {
		t.Fatalf("unchanged: %v %d %v", equal, cheated, err)
	}
	// e for a group element, h for a hash, s for a scalar.
	fields := map[int]string{1: "e h s e h s", 2: "e h s e h s e e h s s", 3: "e e h s s e h s", 4: "e h s"}
	tried := 0
	for n := 1; n <= 4; n++ {
		for at, kind := range strings.Fields(fields[n]) {
			equal, cheated, err := run(func(m int, value []byte) []byte {
				if m != n {
					return value
				}
				return changeNumber(t, value, at, kind)
			})
			if err != nil || cheated != n || equal[0] || equal[1] && n < 4 {
				t.Errorf("message %d, number %d (%s): cheated %d, equal %v, %v", n, at, kind, cheated, equal, err)
			}
			tried++
		}
	}
	if tried != 6+11+8+3 {
		t.Errorf("%d numbers tried", tried)
	}
}

// changeNumber puts another group element, hash or scalar in the place of one.
func changeNumber(t *testing.T, value []byte, at int, kind string) []byte {
	t.Helper()
	r := reader{b: value}
	list := make([][]byte, r.int())
	for i := range list {
		list[i] = r.mpi()
	}
	if !r.done() {
		t.Fatal("malformed")
	}
	switch kind {
	case "e":
		e, ok := parseElement(list[at])
		if !ok {
			t.Fatal("no element")
		}
		var doubled element
		doubled.times(&e, &generator)
		list[at] = doubled[:]
	case "h":
		c := append([]byte(nil), list[at]...)
		c[len(c)-1] ^= 1
		list[at] = c
	case "s":
		s, err := randomScalar(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		list[at] = s[:]
	}
	return numbers(list...)
}

// Numbers of small order, and those that are no exponents, are refused in both
// versions alike: the records are the same.
func TestSMPRefusesNumbers(t *testing.T) {
	a := &smpState{}
	first, err := a.first(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p1 := minusTwo
	p1[elementSize-1]++ // p-1
	p := p1
	p[elementSize-1]++
	for name, bad := range map[string]struct {
		at    int
		value []byte
	}{
		"0": {0, nil}, "1": {0, []byte{1}}, "p-1": {3, p1[:]}, "p": {3, p[:]}, "too long": {0, append([]byte{1}, p[:]...)},
		"hash too long": {1, append([]byte{1}, make([]byte, 32)...)}, "scalar beyond q": {2, p[:]},
	} {
		r := reader{b: first}
		list := make([][]byte, r.int())
		for i := range list {
			list[i] = r.mpi()
		}
		list[bad.at] = bad.value
		if err := (&smpState{}).readFirst(numbers(list...)); err != errCheated {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, cut := range []int{0, 3, 4, 10, len(first) - 1} {
		if err := (&smpState{}).readFirst(first[:cut]); err != errCheated {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
	if err := (&smpState{}).readFirst(append(first, 0)); err != errCheated {
		t.Errorf("more behind it: %v", err)
	}
}
