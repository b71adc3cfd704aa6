package otr

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
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
		end, err := alice.c.End(*alice.clock, alice.id())
		if err != nil {
			t.Fatal(err)
		}
		alice.out = append(alice.out, string(end))
		pump(alice, bob)
		bob.sees(Ended)
		if _, err := bob.c.Encrypt(*bob.clock, bob.id(), []byte("x")); err != ErrFinished {
			t.Errorf("after the end: %v", err)
		}
		if len(alice.errors)+len(bob.errors) > 0 {
			t.Errorf("errors: %v %v", alice.errors, bob.errors)
		}
	})
}

// take is what a side has sent, which is not delivered.
func (s *side) take() (out []string) {
	out, s.out = s.out, nil
	return out
}

// raw is an encoded message as bytes.
func raw(t testing.TB, message string) []byte {
	t.Helper()
	m := Parse([]byte(message))
	b, err := m.decode()
	if err != nil {
		t.Fatalf("%q: %v", message, err)
	}
	return b
}

// revealed are the MAC keys that a data message shows.
func revealed(t testing.TB, message string) (keys [][macSize]byte) {
	t.Helper()
	m := Parse([]byte(message))
	r := reader{b: raw(t, message)[headerSize(m.Version):]}
	r.take(1)
	r.int()
	r.int()
	r.mpi()
	r.take(8)
	r.data()
	r.take(macSize)
	old := r.data()
	if !r.done() || len(old)%macSize != 0 {
		t.Fatalf("malformed: %q", message)
	}
	for len(old) > 0 {
		keys = append(keys, [macSize]byte(old))
		old = old[macSize:]
	}
	return keys
}

// Keys with which messages were authenticated are shown once they are of no more
// use, each once, and no other key is; the keys move on with every answer, and no
// counter comes twice under one key.
func TestRatchet(t *testing.T) {
	eachVersion(t, func(t *testing.T, v Version) {
		alice, bob := private(t, v)
		used := map[[macSize]byte]bool{} // MAC keys that authenticated what alice or bob received
		shown := map[[macSize]byte]bool{}
		counters := map[string]bool{}
		turn := func(from, to *side, text string) {
			from.say(text)
			m := from.take()[0]
			for _, k := range revealed(t, m) {
				if !used[k] {
					t.Errorf("a key is shown that authenticated nothing")
				}
				if shown[k] {
					t.Errorf("a key is shown twice")
				}
				shown[k] = true
				for _, s := range []*session{from.c.sessions[0], to.c.sessions[0]} {
					for _, row := range s.keys {
						for _, pair := range row {
							if pair != nil && pair.receive.mac == k && s == from.c.sessions[0] {
								t.Error("a key is shown that still reads messages")
							}
						}
					}
				}
			}
			r := reader{b: raw(t, m)[headerSize(v)+1:]}
			ids := fmt.Sprint(from.name, r.int(), r.int())
			r.mpi()
			if at := fmt.Sprintf("%s %x", ids, r.take(8)); counters[at] {
				t.Errorf("counter used again: %s", at)
			} else {
				counters[at] = true
			}
			to.receive(m)
			for _, row := range to.c.sessions[0].keys {
				for _, pair := range row {
					if pair != nil && pair.receive.used {
						used[pair.receive.mac] = true
					}
				}
			}
			to.read(text)
		}
		for i := range 20 {
			turn(alice, bob, fmt.Sprint("a", i))
			if i%3 == 0 {
				turn(alice, bob, fmt.Sprint("a again ", i))
			}
			turn(bob, alice, fmt.Sprint("b", i))
		}
		if len(shown) < 30 || alice.c.sessions[0].ourID < 15 || bob.c.sessions[0].ourID < 15 {
			t.Errorf("%d keys shown; keys numbered %d and %d", len(shown), alice.c.sessions[0].ourID, bob.c.sessions[0].ourID)
		}
	})
}

// After a silence of a minute a message is answered with an empty one that nobody
// is shown, so that keys move on; not before, and not for ever.
func TestHeartbeat(t *testing.T) {
	alice, bob := private(t, V3)
	alice.say("soon")
	bob.receive(alice.take()[0])
	if out := bob.take(); len(out) != 0 {
		t.Errorf("answered at once: %.60q", out)
	}
	*alice.clock = alice.clock.Add(HeartbeatAfter)
	alice.say("after a minute")
	bob.receive(alice.take()[0])
	beat := bob.take()
	if len(beat) != 1 {
		t.Fatalf("heartbeats: %d", len(beat))
	}
	if m := Parse([]byte(beat[0])); !m.Ignorable || m.Type != Data {
		t.Errorf("%+v", m)
	}
	alice.receive(beat[0])
	alice.read()
	if out := alice.take(); len(out) != 0 {
		t.Errorf("a heartbeat was answered: %.60q", out)
	}
	bob.read("soon", "after a minute")
}

// What is not for us, from us, forged, repeated or out of turn changes nothing.
func TestNothingBelieved(t *testing.T) {
	alice, bob := private(t, V3)
	refuses := func(name, message string, want error) {
		t.Helper()
		before := fmt.Sprintf("%+v", *bob.c.sessions[0])
		bob.errors = nil
		bob.receive(message)
		if len(bob.errors) != 1 || want != nil && bob.errors[0] != want {
			t.Errorf("%s: %v, want %v", name, bob.errors, want)
		}
		if after := fmt.Sprintf("%+v", *bob.c.sessions[0]); before != after {
			t.Errorf("%s changed the session:\n%s\n%s", name, before, after)
		}
		if len(bob.texts)+len(bob.events)+len(bob.out) > 0 {
			t.Errorf("%s: texts %q, events %v, sent %.60q", name, bob.texts, bob.events, bob.out)
		}
	}
	// Keys for every pair have been used, so that nothing is made for the first time.
	for range 4 {
		alice.say("x")
		bob.say("y")
		pump(alice, bob)
	}
	bob.texts = nil
	alice.say("once")
	once := alice.take()[0]
	bob.receive(once)
	bob.read("once")
	refuses("replay", once, ErrReplayed)
	bob.say("mine")
	refuses("reflection", bob.take()[0], ErrNotForUs)
	alice.say("to another instance")
	b := raw(t, alice.take()[0])
	binary.BigEndian.PutUint32(b[7:], 0x7777)
	refuses("another receiver", string(encode(b)), ErrNotForUs)
	alice.say("from another instance")
	b = raw(t, alice.take()[0])
	binary.BigEndian.PutUint32(b[3:], 0x7777)
	refuses("another sender", string(encode(b)), ErrUnreadable)
	alice.say("flipped")
	b = raw(t, alice.take()[0])
	for bit := range 8 * (len(b) - 4) { // the last four bytes are the length of the keys revealed
		c := slices.Clone(b)
		c[bit/8] ^= 1 << (bit % 8)
		if m := Parse(encode(c)); m.Kind != Encoded {
			continue // refused as it is parsed
		} else if m.Type != Data {
			continue // of an exchange: below
		}
		refuses(fmt.Sprint("bit ", bit), string(encode(c)), nil)
	}
	for _, kind := range []Type{DHKey, RevealSignature, Signature} {
		refuses(fmt.Sprintf("type %x out of turn", kind), string(encode(append(appendHeader(nil, V3, kind, alice.c.config.Instance, bob.c.config.Instance), appendData(nil, []byte{1})...))), nil)
	}
	bob.receive(string(encode(b)))
	bob.read("flipped")
}

// An exchange that is repeated, changed or begun by the server alone leaves the live
// session as it is.
func TestExchangeBesideSession(t *testing.T) {
	eachVersion(t, func(t *testing.T, v Version) {
		alice, bob := private(t, v)
		var seen []string
		carry := func(from, to *side, change func([]byte)) {
			for _, m := range from.take() {
				seen = append(seen, m)
				b := raw(t, m)
				change(b)
				to.receive(string(encode(b)))
			}
		}
		honest := func([]byte) {}
		lastByte := func(b []byte) { b[len(b)-1] ^= 1 }
		for n := range 4 { // the n-th message of the exchange is changed on its way
			alice.commit(v)
			for step := range 4 {
				change := honest
				if step == n {
					change = lastByte
				}
				carry(alice, bob, change)
				carry(bob, alice, change)
			}
			alice.take()
			bob.take()
		}
		for range 2 {
			for _, m := range seen { // all of it again, to both
				alice.receive(m)
				bob.receive(m)
			}
			alice.take()
			bob.take()
		}
		alice.kinds()
		bob.kinds()
		alice.texts, bob.texts = nil, nil
		alice.say("still")
		pump(alice, bob)
		bob.say("here")
		pump(alice, bob)
		bob.read("still")
		alice.read("here")
		*alice.clock = alice.clock.Add(ExchangeLife)
		if alice.c.Exchanging(*alice.clock) || bob.c.Exchanging(*bob.clock) || len(bob.c.exchanges) > 0 {
			t.Error("an exchange nobody went on with is kept")
		}
	})
}

// A key that is not known is nobody's to write to before the caller accepts it.
func TestKeyChange(t *testing.T) {
	eachVersion(t, func(t *testing.T, v Version) {
		alice, bob := private(t, v)
		carol := newSide(t, "carol", alice.clock, Set(v))
		carol.c.config.Instance = bob.c.config.Instance
		alice.query()
		pump(alice, carol)
		e := alice.events[len(alice.events)-1]
		if e.Kind != Secured || e.Session.Accepted || e.Before != nil || e.Session.Fingerprint != testKey(t, "carol").Fingerprint() {
			t.Fatalf("%+v", e)
		}
		if _, err := alice.c.Encrypt(*alice.clock, alice.id(), []byte("x")); err != ErrKeyChanged {
			t.Errorf("encrypt: %v", err)
		}
		// The session with bob, of the same instance, is beside it and works.
		alice.sayTo(alice.c.Sessions()[0].ID, "to bob")
		bob.receive(alice.take()[0])
		bob.read("to bob")
		if _, _, err := alice.c.ShareExtraKey(*alice.clock, alice.id(), 1, nil); err != ErrKeyChanged {
			t.Errorf("extra key: %v", err)
		}
		alice.c.Accept(e.Session.Fingerprint)
		alice.say("now")
		pump(alice, carol)
		carol.read("now")
		alice.c.Revoke(e.Session.Fingerprint)
		if _, err := alice.c.Encrypt(*alice.clock, alice.id(), []byte("x")); err != ErrKeyChanged {
			t.Errorf("after it was taken back: %v", err)
		}

	})
}

// The session that is kept is never the one that gives way, however many come.
func TestKeep(t *testing.T) {
	alice, bob := private(t, V3)
	kept := alice.c.Sessions()[0].ID
	alice.c.Keep(kept)
	for i := range 3 * maxSessions { // the same key, which is accepted, on other devices
		*alice.clock = alice.clock.Add(time.Minute)
		other := newSide(t, "bob/"+fmt.Sprint(i), alice.clock, Set(V3))
		other.commit(V3)
		pump(alice, other)
		if len(other.c.Sessions()) != 1 {
			t.Fatalf("device %d: %v %v", i, alice.errors, other.errors)
		}
	}
	if n := len(alice.c.Sessions()); n != maxSessions {
		t.Errorf("%d sessions", n)
	}
	alice.sayTo(kept, "still")
	bob.receive(alice.take()[0])
	bob.read("still")
}

// A NUL would turn what follows into records; our own key on the other side is a
// mirror.
func TestNULAndMirror(t *testing.T) {
	alice, _ := private(t, V3)
	if _, err := alice.c.Encrypt(*alice.clock, alice.id(), []byte("x\x00\x00\x01\x00\x00")); err != ErrNUL {
		t.Errorf("NUL: %v", err)
	}
	if _, err := alice.c.Encrypt(*alice.clock, alice.id(), make([]byte, maxText+1)); err == nil {
		t.Error("a text beyond the limit")
	}
	for _, starter := range []int{0, 1} {
		a, b := newPair(t, Set(V3))
		b.c.config.Key = a.c.config.Key
		pair := []*side{a, b}
		pair[starter].commit(V3)
		pump(a, b)
		if len(a.c.Sessions()) > 0 || len(b.c.Sessions()) > 0 || !slices.Contains(append(a.errors, b.errors...), ErrReflected) {
			t.Errorf("errors %v %v", a.errors, b.errors)
		}
	}
}

// Secrets do not outlive what they were for: those of an exchange go with the
// session it made, or after ExchangeLife.
func TestSecretsForgotten(t *testing.T) {
	zero := [secretSize]byte{}
	for name, end := range map[string]func(alice, bob *side){
		"ended here": func(alice, bob *side) { alice.c.End(*alice.clock, alice.id()) },
		"ended by the peer": func(alice, bob *side) {
			m, _ := bob.c.End(*bob.clock, bob.id())
			alice.receive(string(m))
		},
		"expired": func(alice, bob *side) { alice.c.Expire(alice.clock.Add(ExchangeLife)) },
		"forgot":  func(alice, bob *side) { alice.c.Forget() },
	} {
		t.Run(name, func(t *testing.T) {
			alice, bob := newPair(t, Set(V3))
			alice.commit(V3)
			committed := alice.c.commitment
			pump(alice, bob)
			session := alice.c.sessions[0]
			ours := session.our[1]
			if committed.key.secret == zero || ours.secret == zero {
				t.Fatal("no secret: the test is blind")
			}
			if next := alice.c.Expire(*alice.clock); !next.Equal(alice.clock.Add(ExchangeLife)) {
				t.Errorf("to be called again at %v", next)
			}
			end(alice, bob)
			if alice.c.commitment != nil || committed.key.secret != zero {
				t.Error("the secret of our D-H Commit is still there")
			}
			if name != "expired" && ours.secret != zero {
				t.Error("the secret of the session is still there")
			}
			if next := alice.c.Expire(*alice.clock); !next.IsZero() {
				t.Errorf("something waits until %v", next)
			}
		})
	}
}

// A peer, or a server, can make us work only so much, and hold so much.
func TestBudget(t *testing.T) {
	alice, bob := newPair(t, Set(V3))
	busy := 0
	for i := range 3 * budgetSize {
		alice.c.config.Instance = uint32(0x1000 + i)
		alice.c.budget = budgetSize
		alice.c.commitment = nil
		alice.commit(V3)
		bob.receive(alice.take()[0])
		bob.take()
	}
	for _, err := range bob.errors {
		if err == ErrBusy {
			busy++
		}
	}
	if busy < budgetSize || len(bob.c.exchanges) > maxExchanges {
		t.Errorf("%d refused, %d exchanges kept", busy, len(bob.c.exchanges))
	}
	*bob.clock = bob.clock.Add(10 * time.Second)
	alice.commit(V3)
	bob.receive(alice.take()[0])
	if len(bob.take()) != 1 {
		t.Error("not answered any more")
	}
}

// Pieces are put together in order, of several instances at once, within bounds.
func TestFragments(t *testing.T) {
	eachVersion(t, func(t *testing.T, v Version) {
		alice, bob := private(t, v)
		pieces := func(text string) []string {
			alice.say(text)
			list, err := Split([]byte(alice.take()[0]), 100)
			if err != nil || len(list) < 4 {
				t.Fatal(len(list), err)
			}
			out := make([]string, len(list))
			for i, p := range list {
				out[i] = string(p)
			}
			return out
		}
		give := func(list ...string) {
			for _, p := range list {
				bob.receive(p)
			}
		}
		whole := pieces("whole")
		give(whole...)
		bob.read("whole")
		give(whole...)
		bob.read() // a replay
		p := pieces("lost")
		give(p[0], p[2])
		give(p[3:]...)
		bob.read()
		p = pieces("from the beginning")
		give(p[0], p[1])
		give(p...)
		bob.read("from the beginning")
		p = pieces("late")
		give(p[:2]...)
		*bob.clock = bob.clock.Add(ExchangeLife)
		give(p[2:]...)
		bob.read()
		if len(bob.c.pieces) > 0 {
			t.Errorf("pieces kept: %d", len(bob.c.pieces))
		}
		nested, _ := Split([]byte(pieces("nested")[0]+strings.Repeat(" ", 200)), 100)
		for _, n := range nested {
			give(string(n))
		}
		bob.read()
	})
	t.Run("bounds", func(t *testing.T) {
		_, bob := private(t, V3)
		big := strings.Repeat("A", 200<<10)
		for k := 1; k <= 100; k++ {
			for sender := range 10 {
				bob.receive(fmt.Sprintf("?OTR|%08x|%08x,%d,%d,%s,", 0x200+sender, bob.c.config.Instance, k, 200, big))
			}
		}
		held := 0
		for _, p := range bob.c.pieces {
			held += len(p.text)
		}
		if len(bob.c.pieces) > maxAssemblies || held > MaxMessage {
			t.Errorf("%d messages of %d bytes in all", len(bob.c.pieces), held)
		}
	})
}

// Encrypting allocates nothing where there is room for the message, and reading the
// text; a live conversation is small.
func TestFrugal(t *testing.T) {
	alice, bob := private(t, V3)
	text := []byte(strings.Repeat("a", 1000))
	now := *alice.clock
	const runs = 100
	room, id := make([]byte, 0, 4096), alice.id()
	messages := make([][]byte, 0, 2*runs)
	for range 2 * runs {
		m, err := alice.c.Encrypt(now, alice.id(), text)
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, m)
	}
	if n := testing.AllocsPerRun(runs, func() {
		if _, err := alice.c.AppendEncrypt(room, now, id, text); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("encrypting allocates %v times", n)
	}
	if n := testing.AllocsPerRun(runs-1, func() {
		if res, err := bob.c.Receive(now, Parse(messages[0])); err != nil || len(res.Text) != len(text) {
			t.Fatal(err)
		}
		messages = messages[1:]
	}); n > 1 {
		t.Errorf("reading allocates %v times", n)
	}
	if size := conversationSize(t); size > 8<<10 {
		t.Errorf("a live conversation takes %d bytes", size)
	}
}

// conversationSize is the heap that one side of a live conversation takes, in bytes.
func conversationSize(t testing.TB) uint64 {
	const n = 50
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	clock := time.Unix(1_700_000_000, 0)
	configs := [2]Config{}
	for i, name := range []string{"alice", "bob"} {
		configs[i] = newSide(t, name, &clock, everyVersion).c.config
	}
	var kept [n][2]*Conversation
	before := heap()
	for i := range kept {
		a, b := &side{t: t, c: New(configs[0]), clock: &clock, versions: everyVersion}, &side{t: t, c: New(configs[1]), clock: &clock, versions: everyVersion}
		a.query()
		pump(a, b)
		for range 3 { // both have read, and have moved their keys on
			a.say("one")
			pump(a, b)
			b.say("two")
			pump(a, b)
		}
		kept[i] = [2]*Conversation{a.c, b.c}
	}
	size := (heap() - before) / (2 * n)
	runtime.KeepAlive(kept)
	return size
}

// Two exchanges cross, and the peer goes on with one only, as libotr does: what waits for
// the other does not wait long.
func TestCrossedExchangeIsNotAwaited(t *testing.T) {
	for name, answered := range map[string]bool{"our D-H Commit was answered": true, "it was not yet": false} {
		t.Run(name, func(t *testing.T) {
			alice, bob := newPair(t, Set(V3))
			again := newSide(t, "bob", alice.clock, Set(V3)) // the same program, in its other exchange
			instance := bob.c.config.Instance
			again.commit(V3)
			alice.receive(again.take()[0])
			key := alice.take()[0]
			alice.commit(V3)
			bob.receive(alice.take()[0])
			if answered {
				alice.receive(bob.take()[0])
				if until := alice.c.SealedUntil(*alice.clock, instance); len(alice.take()) != 1 || !until.Equal(alice.clock.Add(ExchangeLife)) {
					t.Fatalf("sealed until %v", until)
				}
			}
			again.receive(key)
			pump(again, alice)
			if len(alice.c.Sessions()) != 1 {
				t.Fatalf("no session: %v %v", alice.errors, again.errors)
			}
			if until := alice.c.SealedUntil(*alice.clock, instance); !until.Equal(alice.clock.Add(crossedLife)) {
				t.Errorf("sealed until %v", until)
			}
			if until := alice.c.SealedUntil(alice.clock.Add(crossedLife), instance); !until.IsZero() {
				t.Errorf("sealed until %v", until)
			}
		})
	}
}
