package otr

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coyim/otr3"
)

// The reproduced defects of github.com/coyim/otr3 (E1 to E7), each put to otr3,
// where it must show, so that the test is known to look, and to this package,
// where it must not.

// A victim is an engine that a hostile contact or server sends to.
type victim interface {
	receive(text string)
	sent() []string // takes what it has sent
	read() []string // takes what its person has read
	say(text string)
	private() bool
	peer() string // fingerprint shown as the peer's, in hex
}

type ourVictim struct{ *side }

func (v ourVictim) sent() []string { out := v.out; v.out = nil; return out }
func (v ourVictim) read() []string { r := v.texts; v.texts = nil; return r }
func (v ourVictim) private() bool {
	return len(v.c.Sessions()) > 0
}
func (v ourVictim) say(text string) {
	if m, err := v.c.Encrypt(*v.clock, v.c.Sessions()[0].ID, []byte(text)); err == nil {
		v.out = append(v.out, string(m))
	}
}
func (v ourVictim) peer() string {
	if list := v.c.Sessions(); len(list) > 0 {
		return list[0].Fingerprint.Hex()
	}
	return ""
}

type otr3Victim struct {
	t     testing.TB
	c     *otr3.Conversation
	out   []string
	texts []string
	smp   []otr3.SMPEvent
}

func newOTR3Victim(t testing.TB, name string, tag uint32, versions Versions) *otr3Victim {
	v := &otr3Victim{t: t, c: &otr3.Conversation{Rand: rand.Reader}}
	k := testKey(t, name)
	key := &otr3.DSAPrivateKey{}
	key.PrivateKey.P, key.PrivateKey.Q, key.PrivateKey.G, key.PrivateKey.Y = k.public.p, k.public.q, k.public.g, k.public.y
	key.PrivateKey.X = new(big.Int).SetBytes(k.x)
	key.DSAPublicKey.PublicKey = key.PrivateKey.PublicKey
	v.c.SetOurKeys([]otr3.PrivateKey{key})
	v.c.InitializeInstanceTag(tag)
	if versions.Has(V2) {
		v.c.Policies.AllowV2()
	}
	if versions.Has(V3) {
		v.c.Policies.AllowV3()
	}
	v.c.Policies.ErrorStartAKE()
	v.c.SetSMPEventHandler(v)
	return v
}

func (v *otr3Victim) HandleSMPEvent(e otr3.SMPEvent, _ int, _ string) { v.smp = append(v.smp, e) }
func (v *otr3Victim) keep(out []otr3.ValidMessage, _ error) {
	for _, m := range out {
		v.out = append(v.out, string(m))
	}
}
func (v *otr3Victim) receive(text string) {
	plain, out, err := v.c.Receive(otr3.ValidMessage(text))
	v.keep(out, err)
	if plain != nil {
		v.texts = append(v.texts, string(plain))
	}
}
func (v *otr3Victim) sent() []string  { out := v.out; v.out = nil; return out }
func (v *otr3Victim) read() []string  { r := v.texts; v.texts = nil; return r }
func (v *otr3Victim) private() bool   { return v.c.IsEncrypted() }
func (v *otr3Victim) say(text string) { v.keep(v.c.Send(otr3.ValidMessage(text))) }
func (v *otr3Victim) peer() string {
	if k := v.c.GetTheirKey(); k != nil {
		return fmt.Sprintf("%x", k.Fingerprint())
	}
	return ""
}

const victimTag = 0x4000

// eachVictim runs an attack against otr3 and against this package. The attack
// reports whether the defect showed.
func eachVictim(t *testing.T, v Version, attack func(t *testing.T, bob victim, alice *side) (defect bool)) {
	for _, name := range []string{"otr3", "ours"} {
		t.Run(name, func(t *testing.T) {
			clock := time.Unix(1_700_000_000, 0)
			alice := newSide(t, "alice", &clock, Set(v))
			var bob victim
			if name == "otr3" {
				bob = newOTR3Victim(t, "bob", victimTag, Set(v))
			} else {
				s := newSide(t, "bob", &clock, Set(v))
				s.c.config.Instance = victimTag
				bob = ourVictim{s}
			}
			defect := attack(t, bob, alice)
			switch {
			case name == "otr3" && !defect:
				t.Error("otr3 does not show the defect: the test is blind")
			case name == "ours" && defect:
				t.Error("the defect is ours")
			default:
				t.Logf("%s: defect %v", name, defect)
			}
		})
	}
}

// meet carries messages between a victim and an honest side until both are silent.
func meet(bob victim, alice *side) {
	for range 50 {
		from, to := bob.sent(), alice.out
		alice.out = nil
		if len(from)+len(to) == 0 {
			return
		}
		for _, m := range to {
			bob.receive(m)
		}
		for _, m := range from {
			alice.receive(m)
		}
	}
}

// begin brings both into a private conversation.
func begin(t *testing.T, bob victim, alice *side) *session {
	t.Helper()
	alice.query()
	meet(bob, alice)
	if !bob.private() || len(alice.c.sessions) != 1 {
		t.Fatalf("no conversation: %v", alice.errors)
	}
	return alice.c.sessions[0]
}

// hostile sends one TLV of any content inside the encryption.
func (s *side) hostile(record tlv) string {
	s.t.Helper()
	m, err := s.c.sessions[0].seal(nil, time.Time{}, s.c.config.Random, s.c.config.Instance, 0, nil, &record)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(m)
}

// E1: an SMP record that claims 0xffffffff numbers.
func TestE1HugeSMP(t *testing.T) {
	if os.Getenv("OTR3_VICTIM") != "" { // in a process that may die
		if err := limitMemory(4 << 30); err != nil {
			t.Fatal(err)
		}
		clock := time.Unix(1_700_000_000, 0)
		alice, bob := newSide(t, "alice", &clock, Set(V3)), newOTR3Victim(t, "bob", victimTag, Set(V3))
		begin(t, bob, alice)
		fmt.Println("private; now the attack")
		bob.receive(alice.hostile(tlv{tlvSMP1, []byte{0xff, 0xff, 0xff, 0xff}}))
		fmt.Println("survived")
		return
	}
	eachVictim(t, V3, func(t *testing.T, bob victim, alice *side) bool {
		if _, ok := bob.(*otr3Victim); ok {
			cmd := exec.Command(os.Args[0], "-test.run", "^TestE1HugeSMP$")
			cmd.Env = append(os.Environ(), "OTR3_VICTIM=1")
			out, _ := cmd.CombinedOutput()
			if !bytes.Contains(out, []byte("private; now the attack")) {
				t.Fatalf("the victim did not get to the attack: %s", out)
			}
			return !bytes.Contains(out, []byte("survived"))
		}
		begin(t, bob, alice)
		for _, kind := range []uint16{tlvSMP1, tlvSMP1Q, tlvSMP2, tlvSMP3, tlvSMP4} {
			for _, value := range [][]byte{{0xff, 0xff, 0xff, 0xff}, {'?', 0, 0xff, 0xff, 0xff, 0xff}, {0, 0, 0, 6, 0xff, 0xff, 0xff, 0xff}, {0, 0, 0, 6}} {
				bob.(ourVictim).c.budget = budgetSize
				m := alice.hostile(tlv{kind, value})
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				bob.receive(m)
				runtime.ReadMemStats(&after)
				if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
					t.Errorf("TLV %d %x took %d bytes", kind, value, took)
					return true
				}
				meet(bob, alice)
			}
		}
		alice.say("still there")
		meet(bob, alice)
		return !slices.Equal(bob.read(), []string{"still there"})
	})
}

// E2: an error and an exchange with another key get everything said so far.
func TestE2ResendToAnotherKey(t *testing.T) {
	eachVictim(t, V3, func(t *testing.T, bob victim, alice *side) bool {
		begin(t, bob, alice)
		for i := range 20 {
			bob.say(fmt.Sprintf("secret %d", i))
		}
		meet(bob, alice)
		// The server takes alice's place.
		mallory := newSide(t, "carol", alice.clock, Set(V3))
		mallory.c.config.Instance = alice.c.config.Instance
		mallory.out = append(mallory.out, "?OTR Error: sorry", string(NewQuery(Set(V3), "")))
		meet(bob, mallory)
		bob.say("typed now")
		meet(bob, mallory)
		t.Logf("the other key got %d texts: %.80q", len(mallory.texts), mallory.texts)
		return len(mallory.texts) > 0
	})
}

// E3: a comparison of secrets in version 2 that succeeds without the secret, by
// numbers of small order.
func TestE3SMPWithoutSecret(t *testing.T) {
	eachVictim(t, V2, func(t *testing.T, bob victim, alice *side) bool {
		for range 20 { // each try works half of the time
			if list := alice.c.Sessions(); len(list) == 0 {
				begin(t, bob, alice)
			}
			if o, ok := bob.(ourVictim); ok {
				o.c.budget = budgetSize
			}
			if compareWithoutSecret(t, bob, alice) {
				return true
			}
		}
		return false
	})
}

func compareWithoutSecret(t *testing.T, bob victim, alice *side) (success bool) {
	t.Helper()
	unity := element{elementSize - 1: 1}
	minusOne := minusTwo
	minusOne[elementSize-1]++ // p-1
	g1 := &generator
	random := func() scalar {
		s, err := randomScalar(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	// Message 1: g2a = g3a = 1, whose proofs are easy: hash(i, g1^D).
	var list [][]byte
	for i := range 2 {
		d := random()
		var e element
		c := smpHash(byte(1+i), e.power(g1, d[:]))
		list = append(list, unity[:], c[:], d[:])
	}
	bob.receive(alice.hostile(tlv{tlvSMP1, numbers(list...)}))
	var answer []byte
	if o, ok := bob.(*otr3Victim); ok {
		o.keep(o.c.ProvideAuthenticationSecret([]byte("what only bob knows")))
	} else if m, err := bob.(ourVictim).c.SMPAnswer(*alice.clock, bob.(ourVictim).c.Sessions()[0].ID, []byte("what only bob knows")); err == nil {
		bob.(ourVictim).out = append(bob.(ourVictim).out, string(m))
	}
	for _, m := range bob.sent() {
		msg := Parse([]byte(m))
		b, err := msg.decode()
		if err != nil {
			continue
		}
		plain, _, err := alice.c.sessions[0].open(b)
		if err != nil {
			continue
		}
		if _, records := records(plain); len(records) > 0 && records[0].kind == tlvSMP2 {
			answer = records[0].value
		}
	}
	if answer == nil {
		return false // the victim gave up
	}
	r := reader{b: answer}
	r.count(11)
	var n [11][]byte
	for i := range n {
		n[i] = r.mpi()
	}
	var qb element
	copy(qb[elementSize-len(n[7]):], n[7])
	// Message 3: with g2 = g3 = 1 the victim's P is 1, and ours is -1: Pa/Pb = -1 is
	// Ra^b3 for Ra = -1 and an odd b3. Hashes are tried until they are even, so that
	// (-1)^c vanishes from the proofs.
	even := func(s scalar) bool { return s[len(s)-1]&1 == 0 }
	x := random()
	var qa, ab element
	qa.power(g1, x[:])
	ab.over(&qa, &qb)
	var c, d5, cr, d7 scalar
	for {
		r5 := random()
		var e element
		if c = smpHash(6, &unity, e.power(g1, r5[:])); even(c) {
			d5.minusProduct(&r5, &x, &c)
			break
		}
	}
	for {
		d7 = random()
		var e, f element
		if cr = smpHash(7, e.power(g1, d7[:]), f.power(&ab, d7[:])); even(cr) {
			break
		}
	}
	d6 := random()
	bob.receive(alice.hostile(tlv{tlvSMP3, numbers(minusOne[:], qa[:], c[:], d5[:], d6[:], minusOne[:], cr[:], d7[:])}))
	bob.sent()
	if o, ok := bob.(*otr3Victim); ok {
		defer func() { o.smp = nil }()
		return slices.Contains(o.smp, otr3.SMPEventSuccess)
	}
	return slices.Contains(bob.(ourVictim).kinds(), SMPSuccess)
}

// E4: the key of an exchange is taken for the peer's before its signature is
// checked.
func TestE4KeyBeforeSignature(t *testing.T) {
	eachVictim(t, V3, func(t *testing.T, bob victim, alice *side) bool {
		begin(t, bob, alice)
		shown := bob.peer()
		// Somebody presents carol's key without having it: the signature is another's.
		mallory := newSide(t, "alice", alice.clock, Set(V3))
		mallory.c.config.Instance = alice.c.config.Instance
		forged := *testKey(t, "alice")
		forged.serialised = testKey(t, "carol").serialised
		mallory.c.config.Key = &forged
		mallory.commit(V3)
		meet(bob, mallory)
		if shown != testKey(t, "alice").Fingerprint().Hex() {
			t.Fatalf("before: %s", shown)
		}
		t.Logf("shown before %s, after %s", shown, bob.peer())
		return bob.peer() != shown
	})
}

// E5: messages cut short at any place bring a panic; fragments of an exact multiple
// end in an empty one.
func TestE5Truncated(t *testing.T) {
	eachVictim(t, V3, func(t *testing.T, bob victim, alice *side) (defect bool) {
		begin(t, bob, alice)
		alice.say("whole")
		m := Parse([]byte(alice.out[0]))
		alice.out = nil
		raw, err := m.decode()
		if err != nil {
			t.Fatal(err)
		}
		panics := 0
		for n := range raw {
			func() {
				defer func() {
					if recover() != nil {
						panics++
					}
				}()
				bob.receive(string(encode(raw[:n])))
			}()
		}
		t.Logf("%d of %d cut messages brought a panic", panics, len(raw))
		return panics > 0
	})
	t.Run("fragments of otr3", func(t *testing.T) {
		clock := time.Unix(1_700_000_000, 0)
		bob, alice := newOTR3Victim(t, "bob", victimTag, Set(V3)), newSide(t, "alice", &clock, Set(V3))
		begin(t, bob, alice)
		empty := 0
		for size := uint16(60); size < 200; size++ {
			bob.c.SetFragmentSize(size)
			bob.say("some text")
			for _, m := range bob.sent() {
				if strings.HasSuffix(m, ",,") {
					empty++
				}
			}
		}
		broke := func(f func()) (broken bool) {
			defer func() { broken = recover() != nil }()
			f()
			return
		}
		bob.c.SetFragmentSize(1000)
		large := broke(func() { bob.say(strings.Repeat("x", 100_000)) })
		tags := broke(func() { otr3.ExtractInstanceTags([]byte("?OTR:")) })
		t.Logf("otr3: %d of 140 messages end in an empty piece; more than 64 KiB panics: %v; tags of \"?OTR:\" panic: %v", empty, large, tags)
		if empty == 0 || !large || !tags {
			t.Error("otr3 does not show the defect: the test is blind")
		}
	})
	t.Run("fragments", func(t *testing.T) {
		if m := Parse([]byte("?OTR:")); m.Kind != Foreign {
			t.Errorf("%+v", m)
		}
		for size := 60; size < 200; size++ {
			message := encode(append(appendHeader(nil, V3, Data, 0x100, 0x200), make([]byte, 300)...))
			pieces, err := Split(message, size)
			if err != nil {
				t.Fatal(err)
			}
			var whole []byte
			for _, p := range pieces {
				m := Parse(p)
				if m.Kind != Fragment || len(p) > size || len(m.piece.text) == 0 {
					t.Fatalf("size %d: %q", size, p)
				}
				whole = append(whole, m.piece.text...)
			}
			if !bytes.Equal(whole, message) {
				t.Errorf("size %d: %q", size, whole)
			}
		}
		large := encode(append(appendHeader(nil, V3, Data, 0x100, 0x200), make([]byte, 100_000)...))
		if pieces, err := Split(large, 1000); err != nil || len(pieces) < 100 {
			t.Errorf("a message of more than 64 KiB: %d pieces, %v", len(pieces), err)
		}
	})
}

// E6: two sides begin at once and wait for each other for ever.
func TestE6Crossing(t *testing.T) {
	clock := time.Unix(1_700_000_000, 0)
	for _, name := range []string{"otr3", "ours"} {
		t.Run(name, func(t *testing.T) {
			stuck := 0
			for range 6 {
				var pair [2]victim
				for i, who := range []string{"alice", "bob"} {
					if name == "otr3" {
						pair[i] = newOTR3Victim(t, who, uint32(0x1000*(i+1)), Set(V3))
					} else {
						pair[i] = ourVictim{newSide(t, who, &clock, Set(V3))}
					}
					pair[i].receive("?OTRv3?")
				}
				for range 50 {
					a, b := pair[0].sent(), pair[1].sent()
					for _, m := range a {
						pair[1].receive(m)
					}
					for _, m := range b {
						pair[0].receive(m)
					}
				}
				if !pair[0].private() || !pair[1].private() {
					stuck++
				}
			}
			t.Logf("%s: %d of 6 are stuck", name, stuck)
			if name == "otr3" && stuck == 0 {
				t.Error("otr3 does not show the defect: the test is blind")
			}
			if name == "ours" && stuck > 0 {
				t.Error("the defect is ours")
			}
		})
	}
}

// E7: what a message says is believed before it is authenticated: its counter, its
// instance tag; and a query is ignored for a minute after an exchange.
func TestE7BelievedTooEarly(t *testing.T) {
	t.Run("counter", func(t *testing.T) {
		eachVictim(t, V3, func(t *testing.T, bob victim, alice *side) bool {
			begin(t, bob, alice)
			alice.say("first")
			meet(bob, alice)
			bob.read()
			// A message with a huge counter and a wrong MAC.
			s := alice.c.sessions[0]
			alice.say("forged")
			forged := Parse([]byte(alice.out[0]))
			alice.out = nil
			raw, err := forged.decode()
			if err != nil {
				t.Fatal(err)
			}
			at := headerSize(V3) + 1 + 4 + 4
			at += 4 + int(binary.BigEndian.Uint32(raw[at:]))
			copy(raw[at:], []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf0})
			bob.receive(string(encode(raw)))
			bob.sent()
			if s.finished {
				t.Fatal("the session is gone")
			}
			alice.say("honest")
			meet(bob, alice)
			got := bob.read()
			t.Logf("read %q", got)
			return !slices.Contains(got, "honest")
		})
	})
	t.Run("tag", func(t *testing.T) {
		eachVictim(t, V3, func(t *testing.T, bob victim, alice *side) bool {
			// A message that is nothing, from an instance that does not exist.
			bob.receive(string(encode(append(appendHeader(nil, V3, DHKey, 0x999, victimTag), 0, 0, 0, 0))))
			bob.sent()
			alice.query()
			meet(bob, alice)
			return !bob.private()
		})
	})
	t.Run("query", func(t *testing.T) {
		eachVictim(t, V3, func(t *testing.T, bob victim, alice *side) bool {
			begin(t, bob, alice)
			alice.c.Forget() // alice's program restarts, and asks again
			alice.query()
			meet(bob, alice)
			return len(alice.c.sessions) == 0
		})
	})
}

// CVE-2016-2851 (libotr: lengths near 2^32 overflow a size): every length of every
// kind of message, set to anything, is refused and takes no memory.
func TestCVE2016x2851Lengths(t *testing.T) {
	alice, bob := newPair(t, Set(V3))
	alice.query()
	var kinds []string
	for len(alice.out)+len(bob.out) > 0 { // every message of an exchange
		from, to := alice, bob
		if len(alice.out) == 0 {
			from, to = bob, alice
		}
		kinds = append(kinds, from.out[0])
		to.receive(from.out[0])
		from.out = from.out[1:]
	}
	alice.say("data")
	kinds = append(kinds, alice.out...)
	alice.out = nil
	tried := 0
	for _, text := range kinds {
		m := Parse([]byte(text))
		if m.Kind != Encoded {
			continue
		}
		raw, err := m.decode()
		if err != nil {
			t.Fatal(err)
		}
		for at := headerSize(V3); at+4 <= len(raw); at++ {
			for _, length := range []uint32{0xffffffff, 0x80000000, 0x7fffffff, 0xfffffffb, uint32(len(raw)), uint32(len(raw) - at - 3)} {
				changed := bytes.Clone(raw)
				binary.BigEndian.PutUint32(changed[at:], length)
				if bytes.Equal(changed, raw) {
					continue
				}
				for _, s := range []*side{alice, bob} {
					s.c.budget = 0 // no exchange: this is about reading
					s.receive(string(encode(changed)))
				}
				tried++
			}
		}
	}
	if len(alice.texts)+len(bob.texts) > 0 {
		t.Errorf("read %q %q", alice.texts, bob.texts)
	}
	for name, value := range map[string][]byte{"empty": nil, "short": {0}, "count": {0xff, 0xff, 0xff, 0xff}, "length": {0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff}} {
		for kind := range uint16(10) {
			bob.receive(alice.hostile(tlv{kind, value}))
			if kind == tlvDisconnected {
				alice, bob = private(t, V3)
			}
		}
		_ = name
	}
	if tried < 1000 {
		t.Errorf("only %d messages tried", tried)
	}
}

// CVE-2012-3461 (libotr: base64 of an unexpected length overflows a buffer): texts of
// every length and ending are read or refused.
func TestCVE2012x3461Base64(t *testing.T) {
	_, bob := private(t, V3)
	raw := append(appendHeader(nil, V3, Data, 0x100, bob.c.config.Instance), make([]byte, 60)...)
	whole := base64.StdEncoding.EncodeToString(raw)
	for n := range len(whole) {
		for _, tail := range []string{".", "=.", "==.", "===.", "", "..", "\x00.", "\n.", "%.", "=A."} {
			bob.receive("?OTR:" + whole[:n] + tail)
			bob.receive("?OTR|00000100|" + fmt.Sprintf("%08x", bob.c.config.Instance) + ",00001,00001,?OTR:" + whole[:n] + tail + ",")
		}
	}
	if len(bob.texts) > 0 || len(bob.c.Sessions()) != 1 {
		t.Errorf("read %q", bob.texts)
	}
}

// CVE-2015-8833 (pidgin-otr: an answer to a question of a conversation that is gone):
// answers come too late, and are errors.
func TestCVE2015x8833LateAnswer(t *testing.T) {
	for name, gone := range map[string]func(alice, bob *side){
		"ended by the asker": func(alice, bob *side) {
			m, _ := alice.c.End(*alice.clock, alice.id())
			alice.out = append(alice.out, string(m))
			pump(alice, bob)
		},
		"ended here": func(alice, bob *side) { bob.c.End(*bob.clock, bob.id()) },
		"refreshed":  func(alice, bob *side) { alice.query(); pump(alice, bob) },
		"forgotten":  func(alice, bob *side) { bob.c.Forget() },
		"aborted": func(alice, bob *side) {
			m, _ := alice.c.SMPAbort(*alice.clock, alice.id())
			alice.out = append(alice.out, string(m))
			pump(alice, bob)
		},
	} {
		t.Run(name, func(t *testing.T) {
			alice, bob := private(t, V3)
			m, err := alice.c.SMPStart(*alice.clock, alice.id(), nil, []byte("x"))
			if err != nil {
				t.Fatal(err)
			}
			alice.out = append(alice.out, string(m))
			pump(alice, bob)
			id := bob.id()
			bob.sees(SMPAsked)
			gone(alice, bob)
			if m, err := bob.c.SMPAnswer(*bob.clock, id, []byte("x")); err == nil {
				t.Errorf("answered with %.40s", m)
			}
			if k := bob.kinds(); slices.Contains(k, SMPSuccess) {
				t.Errorf("events %v", k)
			}
		})
	}
}

// A fingerprint is the SHA-1 of the key as otr3 computes it, too, and our hash of a
// proof is that of the specification.
func TestHashes(t *testing.T) {
	for _, name := range []string{"alice", "bob", "carol"} {
		v := newOTR3Victim(t, name, 0x100, Set(V3))
		want := testKey(t, name).Fingerprint()
		if got := v.c.GetOurKeys()[0].PublicKey().Fingerprint(); !bytes.Equal(got, want[:]) {
			t.Errorf("%s: %x, want %x", name, got, want)
		}
	}
	e := element{elementSize - 1: 5}
	want := sha256.Sum256([]byte{3, 0, 0, 0, 1, 5})
	if got := smpHash(3, &e); !strings.HasSuffix(string(got[:]), string(want[:])) {
		t.Errorf("%x", got)
	}
}
