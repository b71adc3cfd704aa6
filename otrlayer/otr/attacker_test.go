package otr

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// Two honest people, and everything between them in the hands of somebody who also
// has a key of his own and speaks OTR: he drops, repeats, reorders, truncates, flips
// and injects, plays one off against the other, and is a contact who sends anything
// at all inside his own private conversations.
//
// A script of bytes says what happens, step by step. After each step all must hold
// that the package promises; see check and take.

const (
	maxSteps = 600
	// maxHeld is what a conversation may hold for a peer: pieces of messages, and
	// some kilobytes for each exchange and session.
	maxHeld = MaxMessage + 128<<10
)

// A world is one run of a script.
type world struct {
	t       testing.TB
	clock   time.Time
	random  io.Reader
	honest  [2]*actor
	mallory [2]*actor // towards each of them
	log     []string  // all that was ever sent
	script  []byte
	trace   []string
}

// An actor is one end of a conversation.
type actor struct {
	w       *world
	name    string
	letter  string // begins each text it sends
	config  Config
	c       *Conversation
	peer    *actor
	queue   []string         // sent, and not yet at the peer
	said    map[string]bool  // texts sent under encryption, by whom they were meant for
	read    map[string]bool  // texts read
	ssids   map[[8]byte]bool // of exchanges it has signed
	secrets map[string]bool  // compared so far
	secret  string           // compared last
	same    int              // comparisons that succeeded
}

func newWorld(t testing.TB, script []byte, seed [32]byte, versions Versions) *world {
	w := &world{t: t, clock: time.Unix(1_700_000_000, 0), random: rand.NewChaCha8(seed), script: script}
	make := func(name, letter, key string, tag uint32, accepts string) *actor {
		a := &actor{w: w, name: name, letter: letter, said: map[string]bool{}, read: map[string]bool{}, ssids: map[[8]byte]bool{}, secrets: map[string]bool{}}
		a.config = Config{Key: testKey(t, key), Instance: tag, Random: w.random, Versions: func() Versions { return versions },
			Accepted: []Fingerprint{testKey(t, accepts).Fingerprint()}}
		a.c = New(a.config)
		return a
	}
	w.honest = [2]*actor{make("alice", "a", "alice", 0x1000a, "bob"), make("bob", "b", "bob", 0x1000b, "alice")}
	// He takes their instance tags, as whoever carries the messages can.
	w.mallory = [2]*actor{make("mallory to alice", "m", "carol", 0x1000b, "alice"), make("mallory to bob", "m", "carol", 0x1000a, "bob")}
	for i := range 2 {
		w.honest[i].peer, w.mallory[i].peer = w.honest[1-i], w.honest[i]
	}
	return w
}

// byte takes the next byte of the script.
func (w *world) byte() int {
	if len(w.script) == 0 {
		return 0
	}
	b := w.script[0]
	w.script = w.script[1:]
	return int(b)
}

// bytes takes the next few bytes of the script.
func (w *world) bytes() []byte {
	n := min(w.byte(), len(w.script))
	b := w.script[:n]
	w.script = w.script[n:]
	return b
}

func (w *world) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf(format+"\nafter:\n%s", append(args, strings.Join(w.trace, "\n"))...)
}

// sends puts a message on its way.
func (a *actor) sends(message []byte) {
	if message == nil {
		return
	}
	a.queue = append(a.queue, string(message))
	a.w.log = append(a.w.log, string(message))
}

// take gives a message to an actor and checks what comes of it.
func (a *actor) take(text string) {
	m := Parse([]byte(text))
	switch m.Kind {
	case Query, Tagged:
		if v := m.Versions.Best(a.config.Versions()); v != 0 {
			a.commit(v)
		}
		return
	case Fragment:
		whole, ok, err := a.c.Assemble(a.w.clock, m)
		if err != nil || !ok {
			return
		}
		m = whole
	case Encoded:
	default:
		return
	}
	res, err := a.c.Receive(a.w.clock, m)
	if err != nil && (res.Text != nil || len(res.Events) > 0) {
		a.w.fail("%s: an error and a result: %v %+v", a.name, err, res)
	}
	for _, r := range res.Replies {
		a.sends(r)
	}
	if res.Text != nil {
		a.reads(res)
	}
	for _, e := range res.Events {
		if e.Kind == SMPSuccess && a.letter != "m" {
			if e.Session.Fingerprint != a.peer.config.Key.Fingerprint() || !a.peer.secrets[a.secret] {
				a.w.fail("%s: a comparison succeeded that nobody knew the secret of: %+v", a.name, e)
			}
			a.same++
		}
	}
}

// reads checks that a text was sent, to this actor, by whose key the session has, and
// comes once.
func (a *actor) reads(res Result) {
	text := string(res.Text)
	s, ok := a.c.Session(res.Session)
	if !ok {
		a.w.fail("%s read %q on no session", a.name, text)
	}
	from := a.peer
	if s.Fingerprint == testKey(a.w.t, "carol").Fingerprint() {
		from = a.w.mallory[0]
		if from.peer != a {
			from = a.w.mallory[1]
		}
	}
	if a.letter != "m" && !from.said[a.name+": "+text] {
		a.w.fail("%s read %q, which %s never sent", a.name, text, from.name)
	}
	if a.read[text] {
		a.w.fail("%s read %q twice", a.name, text)
	}
	a.read[text] = true
}

func (a *actor) commit(v Version) {
	m, err := a.c.Commit(a.w.clock, v)
	if err == nil {
		a.sends(m)
	}
}

// id is one of the actor's sessions.
func (a *actor) id() ID {
	list := a.c.Sessions()
	if len(list) == 0 {
		return 0
	}
	return list[a.w.byte()%len(list)].ID
}

func (a *actor) say() {
	id := a.id()
	text := fmt.Sprint(a.letter, len(a.said))
	m, err := a.c.Encrypt(a.w.clock, id, []byte(text))
	if err != nil {
		return
	}
	s, _ := a.c.Session(id)
	if a.letter != "m" && s.Fingerprint != a.peer.config.Key.Fingerprint() {
		a.w.fail("%s encrypts to a key that was never accepted: %s", a.name, s.Fingerprint)
	}
	a.said[a.peer.name+": "+text] = true
	a.sends(m)
}

// compare starts, answers or gives up a comparison.
func (a *actor) compare(what int) {
	id := a.id()
	secret := "same"
	if a.letter == "m" || a.w.byte()%4 == 0 {
		secret = fmt.Sprint(a.name, len(a.w.trace))
	}
	var m []byte
	var err error
	switch what {
	case 0:
		question := "?"
		m, err = a.c.SMPStart(a.w.clock, id, []*string{nil, &question}[a.w.byte()%2], []byte(secret))
	case 1:
		m, err = a.c.SMPAnswer(a.w.clock, id, []byte(secret))
	case 2:
		m, err = a.c.SMPAbort(a.w.clock, id)
	}
	if err != nil {
		return
	}
	if what != 2 {
		a.secret, a.secrets[secret] = secret, true
	}
	a.sends(m)
}

// restart forgets everything but keys.
func (a *actor) restart() {
	a.c.Forget()
	a.c = New(a.config)
}

// check looks into a conversation for what must always hold.
func (a *actor) check() {
	c := a.c
	for _, e := range c.exchanges {
		if e.committed {
			a.ssids[e.secrets.ssid] = true
		}
	}
	held := 0
	for _, s := range c.sessions {
		a.ssids[s.ssid] = true
		held += 2048 + cap(s.reveal)
		if s.finished {
			for i := range s.keys {
				if s.our[i] != nil || s.their[i] != nil || s.keys[i] != [2]*keys{} {
					a.w.fail("%s: a finished session has keys", a.name)
				}
			}
		}
	}
	for _, e := range c.exchanges {
		held += 1024 + len(e.message)
		for _, p := range e.promises {
			held += cap(p.encrypted) + cap(p.hash)
		}
		if len(e.promises) > maxCommits {
			a.w.fail("%s: %d commits of one instance", a.name, len(e.promises))
		}
	}
	for _, p := range c.pieces {
		held += len(p.text)
	}
	if held > maxHeld || len(c.sessions) > maxSessions || len(c.exchanges) > maxExchanges || len(c.pieces) > maxAssemblies {
		a.w.fail("%s holds %d bytes, %d sessions, %d exchanges, %d messages in pieces", a.name, held, len(c.sessions), len(c.exchanges), len(c.pieces))
	}
}

// signed checks that whom a session names has signed that very exchange.
func (a *actor) signed() {
	for _, s := range a.c.sessions {
		switch s.peer {
		case a.config.Key.Fingerprint():
			a.w.fail("%s has a session with itself", a.name)
		case a.peer.config.Key.Fingerprint():
			if !a.peer.ssids[s.ssid] {
				a.w.fail("%s shows a key that never signed this exchange", a.name)
			}
		}
	}
}

// message is something that was sent before.
func (w *world) message() string {
	if len(w.log) == 0 {
		return "?OTRv23?"
	}
	n := w.byte() // counted from the newest, where most of what matters is
	return w.log[len(w.log)-1-n%len(w.log)]
}

// encodedMessage is one of them as bytes; a query stands as a data message of zeros.
func (w *world) encodedMessage() []byte {
	m := Parse([]byte(w.message()))
	if m.Kind == Encoded {
		if b, err := m.decode(); err == nil {
			return b
		}
	}
	return append(appendHeader(nil, V3, Data, 0x1000a, 0x1000b), make([]byte, 60)...)
}

func (w *world) step() {
	op := w.byte()
	i := op & 1
	a, m := w.honest[i], w.mallory[i]
	everybody := [4]*actor{w.honest[0], w.honest[1], w.mallory[0], w.mallory[1]}
	w.note("%s %d", a.name, op>>1)
	deliver := func(from *actor) {
		if len(from.queue) > 0 {
			next := from.queue[0]
			from.queue = from.queue[1:]
			from.peer.take(next)
		}
	}
	switch op >> 1 & 31 {
	default:

		deliver(a)
	case 8, 9, 10:
		deliver(m)
	case 11:
		m.take(w.message())
	case 12: // drop
		a.queue = a.queue[min(1, len(a.queue)):]
	case 13: // reorder
		if n := len(a.queue); n > 1 {
			a.queue = append(a.queue[1:], a.queue[0])
		}
	case 14: // repeat, or reflect
		a.take(w.message())
	case 15: // flip
		b := w.encodedMessage()
		at := (w.byte()<<8 | w.byte()) % (8 * len(b))
		b[at/8] ^= 1 << (at % 8)
		a.take(string(encode(b)))
	case 16: // truncate
		b := w.encodedMessage()
		a.take(string(encode(b[:(w.byte()<<8|w.byte())%len(b)])))
	case 17: // set a length
		b := w.encodedMessage()
		if len(b) >= 4 {
			at := (w.byte()<<8 | w.byte()) % (len(b) - 3)
			binary.BigEndian.PutUint32(b[at:], [4]uint32{0xffffffff, 0x7fffffff, 0, uint32(len(b) - at - 4)}[w.byte()%4])
		}
		a.take(string(encode(b)))
	case 18: // inject
		v := []Version{V2, V3}[w.byte()%2]
		kind := []Type{DHCommit, DHKey, RevealSignature, Signature, Data}[w.byte()%5]
		a.take(string(encode(append(appendHeader(nil, v, kind, a.peer.config.Instance, a.config.Instance), w.bytes()...))))
	case 19: // splice: the head of one message, the tail of another
		b, c := w.encodedMessage(), w.encodedMessage()
		at := (w.byte()<<8 | w.byte()) % len(b)
		a.take(string(encode(append(b[:at:at], c[min(at, len(c)):]...))))
	case 20: // in pieces, of which some may get lost
		if list, err := Split([]byte(w.message()), 100+w.byte()); err == nil {
			skip := w.byte()
			for k, p := range list {
				if k != skip {
					a.take(string(p))
				}
			}
		}
	case 21: // as text
		b := []byte(w.message())
		at := (w.byte()<<8 | w.byte()) % len(b)
		b[at] = byte(w.byte())
		a.take(string(b))
	case 22:
		a.sends(NewQuery(a.config.Versions(), ""))
	case 23:
		m.commit(m.config.Versions().Best([]Versions{Set(V2), Set(V3)}[w.byte()%2]))
	case 24:
		a.say()
	case 25:
		m.say()
	case 26:
		switch w.byte() % 4 {
		case 0:
			msg, err := a.c.End(w.clock, a.id())
			if err == nil {
				a.sends(msg)
			}
		case 1:
			a.restart()
		case 2:
			m.restart()
		case 3:
			a.commit(a.config.Versions().Best([]Versions{Set(V2), Set(V3)}[w.byte()%2]))
		}
	case 27:
		a.compare(w.byte() % 3)
	case 28:
		m.compare(w.byte() % 3)
	case 29: // a contact who sends anything inside the encryption
		if list := m.c.sessions; len(list) > 0 && !list[0].finished {
			kind := w.byte() % 10
			if b, err := list[0].seal(nil, time.Time{}, w.random, m.config.Instance, byte(w.byte()), nil, &tlv{uint16(kind), w.bytes()}); err == nil {
				m.sends(b)
			}
		}
	case 30: // he presents the key of the one he stands for, which he does not have
		if m.config.Key = testKey(w.t, "carol"); w.byte()%2 == 0 {
			forged := *m.config.Key
			forged.serialised = a.peer.config.Key.serialised
			m.config.Key = &forged
		}
		m.restart()
	case 31:
		w.clock = w.clock.Add(time.Duration(w.byte()) * time.Second)
	}
	for _, x := range everybody {
		x.check()
	}
	for _, x := range everybody {
		x.signed()
	}
}

// run plays a script; its first byte says which versions are spoken.
func run(t testing.TB, script []byte) *world {
	var seed [32]byte
	copy(seed[:], script)
	versions := everyVersion
	if len(script) > 0 {
		versions = []Versions{Set(V3), Set(V2), everyVersion}[int(script[0])%3]
		script = script[1:]
	}
	w := newWorld(t, script, seed, versions)
	for n := 0; n < maxSteps && len(w.script) > 0; n++ {
		w.step()
	}
	return w
}

// The attacker achieves nothing in many random scripts; and most of them get to where
// something could be achieved.
func TestAttacker(t *testing.T) {
	runs := 80
	if testing.Short() {
		runs = 20
	}
	private, read, compared, deceived, steps := 0, 0, 0, 0, 0
	for n := range runs {
		random := rand.New(rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}))
		script := []byte{byte(n)}
		for len(script) < 2000 {
			script = append(script, byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32()))
			for range random.IntN(8) {
				script = append(script, byte(random.IntN(2)), byte(16+random.IntN(2)), 22+byte(random.IntN(2)), 0)
			}
			if random.IntN(2) == 0 {
				script = append(script, 48+byte(random.IntN(2)), 0, 0, 1)
			}
			if random.IntN(16) == 0 {
				script = append(script, 44+byte(random.IntN(4)), 1)
			}
			if random.IntN(16) == 0 { // one asks, the other answers
				who := byte(random.IntN(2))
				script = append(script, 54+who, 0, 0, 1, byte(n), who, who, who, 55-who, 1, 0, 1, 0, 1, 0, 1, 0, 1)
			}
		}
		w := run(t, script)
		steps += len(w.trace)
		for i, a := range w.honest {
			for _, s := range a.c.sessions {
				if s.peer == a.peer.config.Key.Fingerprint() {
					private++
				} else {
					deceived++
				}
			}
			read += len(w.honest[i].read)
			compared += a.same
		}
	}
	t.Logf("%d scripts, %d steps: %d sessions between the two, %d with the attacker's own key, %d texts read, %d secrets compared", runs, steps, private, deceived, read, compared)
	if private < runs/2 || deceived < runs/4 || read < runs || compared < runs/20 {
		t.Error("the scripts do not get far enough to mean anything")
	}
}

// script writes steps by name, for seeds: each names an operation and its bytes.
func script(version byte, steps ...[]byte) []byte {
	b := []byte{version}
	for _, s := range steps {
		b = append(b, s...)
	}
	return b
}

func FuzzAttacker(f *testing.F) {
	alice := func(op byte, more ...byte) []byte { return append([]byte{op << 1}, more...) }
	bob := func(op byte, more ...byte) []byte { return append([]byte{op<<1 | 1}, more...) }
	both := func(n int) (b []byte) { // deliver what is on its way
		for range n {
			b = append(append(b, alice(0)...), bob(0)...)
		}
		return b
	}
	mallory := func(n int) (b []byte) {
		for range n {
			b = append(append(append(b, alice(8)...), alice(11, 0)...), bob(8)...)
			b = append(b, bob(11, 0)...)
		}
		return b
	}
	for v := range byte(3) {
		meet := append(alice(22), both(5)...)
		talk := append(append(alice(24, 0), bob(24, 0)...), both(3)...)
		f.Add(script(v, meet, talk, talk, talk))
		f.Add(script(v, meet, talk, alice(27, 0, 0, 1, 0), both(2), bob(27, 0, 1, 1, 1), both(6), talk))
		f.Add(script(v, meet, talk, alice(14, 0), alice(14, 1), bob(15, 0, 1, 7), bob(16, 0, 0, 30), bob(17, 0, 0, 60, 0), talk))
		f.Add(script(v, meet, talk, alice(22), bob(22), both(8), talk, alice(26, 0, 0), both(2), talk))
		f.Add(script(v, alice(23, 1), mallory(4), alice(25, 0), alice(8), alice(29, 2, 0, 8, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff), alice(8), meet, talk))
		f.Add(script(v, meet, talk, bob(26, 1), talk, meet, talk, alice(31, 61), talk, alice(20, 0, 40, 99), bob(19, 0, 1, 0, 80)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4096 {
			return
		}
		run(t, b)
	})
}
