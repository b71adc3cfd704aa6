package otr

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// testKey is one of the keys that testdata has for tests: alice, bob, carol. Each is
// read once.
func testKey(t testing.TB, name string) *PrivateKey {
	t.Helper()
	testKeys.Lock()
	defer testKeys.Unlock()
	if k := testKeys.m[name]; k != nil {
		return k
	}
	file, err := os.ReadFile(filepath.Join("testdata", "otr.private_key"))
	if err != nil {
		t.Fatal(err)
	}
	k, err := FindKey(file, func(n, _ string) bool { return strings.HasPrefix(n, name+"@") })
	if err != nil || k == nil {
		t.Fatalf("the test key of %s: %v", name, err)
	}
	testKeys.m[name] = k
	return k
}

var testKeys = struct {
	sync.Mutex
	m map[string]*PrivateKey
}{m: map[string]*PrivateKey{}}

// A side is one end of a conversation in a test.
type side struct {
	t        testing.TB
	name     string
	c        *Conversation
	clock    *time.Time
	versions Versions
	texts    []string
	events   []Event
	errors   []error
	out      []string // on their way to the other side
}

var everyVersion = Set(V2, V3)

// newSide makes an end. Keys come from testdata, tags are made of the name.
func newSide(t testing.TB, name string, clock *time.Time, versions Versions) *side {
	s := &side{t: t, name: name, clock: clock, versions: versions}
	tag := uint32(LowestTag)
	for _, r := range name {
		tag = tag*31 + uint32(r)
	}
	key, _, _ := strings.Cut(name, "/")
	s.c = New(Config{Key: testKey(t, key), Instance: tag, Random: rand.Reader, Versions: func() Versions { return s.versions }})
	return s
}

func newPair(t testing.TB, versions Versions) (alice, bob *side) {
	clock := time.Unix(1_700_000_000, 0)
	return newSide(t, "alice", &clock, versions), newSide(t, "bob", &clock, versions)
}

// receive takes one message of the other side.
func (s *side) receive(text string) {
	m := Parse([]byte(text))
	switch m.Kind {
	case Query, Tagged:
		if v := m.Versions.Best(s.versions); v != 0 {
			s.commit(v)
		}
	case Encoded, Fragment:
		if m.Kind == Fragment {
			whole, ok, err := s.c.Assemble(*s.clock, m)
			if err != nil {
				s.errors = append(s.errors, err)
			}
			if !ok {
				return
			}
			m = whole
		}
		res, err := s.c.Receive(*s.clock, m)
		if err != nil {
			s.errors = append(s.errors, err)
		}
		if res.Text != nil {
			s.texts = append(s.texts, string(res.Text))
		}
		s.events = append(s.events, res.Events...)
		for _, r := range res.Replies {
			s.out = append(s.out, string(r))
		}
	}
}

func (s *side) commit(v Version) {
	s.t.Helper()
	m, err := s.c.Commit(*s.clock, v)
	if err != nil {
		s.t.Fatalf("%s: commit: %v", s.name, err)
	}
	s.out = append(s.out, string(m))
}

func (s *side) query() { s.out = append(s.out, string(NewQuery(s.versions, ""))) }

// say encrypts a text to the newest session.
func (s *side) say(text string) {
	s.t.Helper()
	list := s.c.Sessions()
	if len(list) == 0 {
		s.t.Fatalf("%s has no session", s.name)
	}
	s.sayTo(list[len(list)-1].ID, text)
}

func (s *side) sayTo(id ID, text string) {
	s.t.Helper()
	m, err := s.c.Encrypt(*s.clock, id, []byte(text))
	if err != nil {
		s.t.Fatalf("%s: encrypt: %v", s.name, err)
	}
	s.out = append(s.out, string(m))
}

// pump carries messages both ways until nothing is left.
func pump(a, b *side) {
	for len(a.out)+len(b.out) > 0 {
		from, to := a, b
		if len(a.out) == 0 {
			from, to = b, a
		}
		m := from.out[0]
		from.out = from.out[1:]
		to.receive(m)
	}
}

func (s *side) id() ID {
	s.t.Helper()
	list := s.c.Sessions()
	if len(list) == 0 {
		s.t.Fatalf("%s has no session", s.name)
	}
	return list[len(list)-1].ID
}

// read takes what the person has read so far.
func (s *side) read(want ...string) {
	s.t.Helper()
	if !slices.Equal(s.texts, want) {
		s.t.Errorf("%s read %q, want %q (errors %v)", s.name, s.texts, want, s.errors)
	}
	s.texts = nil
}

// kinds are those of the events so far, which are taken.
func (s *side) kinds() (kinds []EventKind) {
	for _, e := range s.events {
		kinds = append(kinds, e.Kind)
	}
	s.events = nil
	return kinds
}

func (s *side) sees(want ...EventKind) {
	s.t.Helper()
	if got := s.kinds(); !slices.Equal(got, want) {
		s.t.Errorf("%s saw events %v, want %v", s.name, got, want)
	}
}

// private brings a pair into a private conversation.
func private(t testing.TB, v Version) (alice, bob *side) {
	t.Helper()
	alice, bob = newPair(t, Set(v))
	alice.query()
	pump(alice, bob)
	alice.sees(Secured)
	bob.sees(Secured)
	return alice, bob
}

func eachVersion(t *testing.T, f func(t *testing.T, v Version)) {
	for _, v := range []Version{V2, V3} {
		t.Run(fmt.Sprintf("v%d", v), func(t *testing.T) { f(t, v) })
	}
}
