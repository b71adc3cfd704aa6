package otrlayer

import (
	"crypto/rand"
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"otrproxy/otrlayer/keyring"
	"otrproxy/otrlayer/otr"
)

// noEvents counts handshakes, and adds up what is kept.
type noEvents struct {
	mu         sync.Mutex
	handshakes map[string]int
	kept       Kept
}

func (e *noEvents) Handshake(r string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.handshakes == nil {
		e.handshakes = map[string]int{}
	}
	e.handshakes[r]++
}
func (e *noEvents) Keeps(before, now Kept) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.kept.Add(before, now)
}
func (e *noEvents) Happened(string, Event) {}
func (e *noEvents) Log(int, string, error) {}

// A person is an account with one client, whose upstream the test carries.
type person struct {
	pending bool // what it emitted may be on its way
	shared  bool // what comes was sent to the bare JID
	t       *testing.T
	a       *Account
	peer    *person
	events  *noEvents
	policy  Policy
	hold    Hold
	welcome bool
	allowed []int         // versions of OTR; nil for all
	idle    time.Duration // until a private conversation ends
	dead    bool          // the session is ending

	mu       sync.Mutex
	wire     []Verdict // emitted and not yet carried
	notices  []string
	returned []string // "id cause"
	read     []string // what the client was shown
	event    chan struct{}

	sees     bool     // it is told when contacts come and go
	unseen   bool     // its client does not show what came back
	carbons  bool     // it wants to see what another client sends
	mirrored []string // what another client got or sent
}

func (p *person) Pending() bool { return p.pending }

func (p *person) Mirror(m Mirrored) Mirroring {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead || m.Sent && !p.carbons {
		return Unwanted
	}
	p.mirrored = append(p.mirrored, m.Text)
	return Seen
}

func (p *person) Emit(v Verdict) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return false
	}
	p.wire = append(p.wire, v.Clone())
	return true
}

func (p *person) Shows() {}

func (p *person) Sees(string) bool { return p.sees }

func (p *person) Notice(_ string, n Notice) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notices = append(p.notices, inWords(n))
	return !p.dead
}

func (p *person) Return(m *Message, why Why) Sign {
	sentence := whyInWords(why, m.Contact).String()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return NoSign
	}
	if !strings.HasPrefix(sentence, "Not sent") && !strings.HasPrefix(sentence, "This may not have been sent") && !strings.HasPrefix(sentence, "Sent, but") {
		p.t.Errorf("sentence %q", sentence)
	}
	p.returned = append(p.returned, m.ID+" "+string(why.Cause))
	select {
	case p.event <- struct{}{}:
	default:
	}
	if p.unseen {
		return Unseen
	}
	return SeenWhy
}

func newPerson(t *testing.T, dir, jid string) *person {
	t.Helper()
	p := &person{t: t, events: &noEvents{}, policy: Require, hold: Hold{100, 1 << 20, time.Minute, time.Minute}, welcome: true, event: make(chan struct{}, 100)}
	p.open(dir, jid)
	return p
}

func (p *person) open(dir, jid string) {
	p.t.Helper()
	if p.a != nil { // the one before has gone without a word, a while ago
		p.a.Saved()
	}
	a, err := Open(dir, jid, func() Settings {
		return Settings{Policy: func(string) Policy { return p.policy }, Versions: func(string) []int { return p.allowed }, Hold: p.hold, Largest: 256 << 10, Idle: p.idle}
	}, p.events, nil, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	a.Prepare()
	<-a.Ready()
	p.a = a
	a.Attach(p)
	p.events.kept = Kept{}
	p.t.Cleanup(func() {
		if a == p.a && p.events != nil {
			p.addsUp()
		}
		a.Close()
		if a == p.a && p.events.kept != (Kept{Suppressed: p.events.kept.Suppressed, Delayed: p.events.kept.Delayed, Refused: p.events.kept.Refused}) {
			p.t.Errorf("a closed account keeps %+v", p.events.kept)
		}
	})
}

// addsUp makes sure that what the events were told of what is kept is what there is.
func (p *person) addsUp() {
	a := p.a
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || a.events != Events(p.events) { // the test has told somebody else
		return
	}
	if told := p.events.kept; told != a.kept() {
		p.t.Errorf("told that %+v is kept, and it is %+v", told, a.kept())
	}
	var there Kinds
	held, written := 0, 0
	for _, c := range a.convs {
		d := c.describe()
		s, t := slices.Index(states[:], d.State), slices.Index(trusts[:], d.Trust)
		there.Census[s][t]++
		switch {
		case d.Trust == keyring.Changed && d.State == StateEncrypted:
			there.Changed++
		case d.Asked:
			there.Asking++
		}
		if held += len(c.held); c.wrote {
			written++
		}
	}
	if k := a.kept(); k.Kinds != there || k.Held != held || k.Written != written || k.Conversations != len(a.convs)-written {
		p.t.Errorf("%+v is counted, and there are %+v, with %d messages that wait, in %d conversations, %d of them begun here", k, there, held, len(a.convs), written)
	}
}

// couple is alice and bob, each with an account.
func couple(t *testing.T) (alice, bob *person) {
	t.Helper()
	alice, bob = newPerson(t, keyedState(t, "alice@x"), "alice@x"), newPerson(t, keyedState(t, "bob@y"), "bob@y")
	alice.peer, bob.peer = bob, alice
	return alice, bob
}

func saveKey(dir, account string, k *otr.PrivateKey) error {
	a := &Account{dir: dir, jid: account}
	return a.saveKey(k)
}

// keyedState is a state directory in which the account has a key already:
// generating one takes a while, so the tests share a few.
func keyedState(t *testing.T, jid string) string {
	t.Helper()
	dir := t.TempDir()
	acc := filepath.Join(dir, "accounts", jid)
	if err := os.MkdirAll(acc, 0o700); err != nil {
		t.Fatal(err)
	}
	k, err := testKey(jid)
	if err != nil {
		t.Fatal(err)
	}
	if err := saveKey(acc, jid, k); err != nil {
		t.Fatal(err)
	}
	return dir
}

var (
	keysMu sync.Mutex
	keys   = map[string]*otr.PrivateKey{}
)

func testKey(name string) (*otr.PrivateKey, error) {
	keysMu.Lock()
	defer keysMu.Unlock()
	if k := keys[name]; k != nil {
		return k, nil
	}
	k, err := otr.GenerateKey(rand.Reader)
	keys[name] = k
	return k, err
}

func (p *person) say(id, text string) Verdict {
	p.t.Helper()
	return p.a.Send(p, Message{Contact: p.peer.a.jid, To: p.peer.a.jid, ID: id, Type: "chat", Text: text}, Rule{Policy: p.policy})
}

// take removes what waits on the wire.
func (p *person) take() []Verdict {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.wire
	p.wire = nil
	return w
}

func (p *person) get(v Verdict, delayed bool) {
	from := p.peer.a.jid + "/r"
	body := v.Body()
	if body == "" && v.Message() != nil {
		body = v.Message().Text
	}
	r := p.a.Receive(p, Incoming{From: from, Contact: p.peer.a.jid, Text: body, Delayed: delayed, Welcome: p.welcome, Shared: p.shared})
	if r.Deliver {
		p.read = append(p.read, r.Text)
	}
}

// carry delivers everything both ways until the wire is quiet.
func carry(a, b *person) {
	for {
		fromA, fromB := a.take(), b.take()
		if len(fromA)+len(fromB) == 0 {
			return
		}
		for _, v := range fromA {
			b.get(v, false)
		}
		for _, v := range fromB {
			a.get(v, false)
		}
	}
}

func (p *person) wantRead(want ...string) {
	p.t.Helper()
	if strings.Join(p.read, "|") != strings.Join(want, "|") {
		p.t.Errorf("%s read %q, want %q", p.a.jid, p.read, want)
	}
	p.read = nil
}

func (p *person) noticed(part string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.notices {
		if strings.Contains(n, part) {
			return true
		}
	}
	return false
}

const typed = `hello <b> & "quotes" <3 ü 👍`

func TestHeldThenPrivate(t *testing.T) {
	alice, bob := couple(t)
	for i, text := range []string{typed, "two", "three"} {
		if v := alice.say(string(rune('1'+i)), text); v.Action() != Held {
			t.Fatalf("%v %v", v.Action(), v.Cause())
		}
	}
	w := alice.take()
	if len(w) != 1 || w[0].Action() != Protocol || !strings.HasPrefix(w[0].Body(), "?OTRv23?") {
		t.Fatalf("on the wire: %+v", w)
	}
	bob.get(w[0], false)
	carry(alice, bob)
	bob.wantRead(typed, "two", "three")
	bob.say("4", typed)
	alice.say("5", "&amp; <i>not markup</i>")
	carry(alice, bob)
	alice.wantRead(typed)
	bob.wantRead("&amp; <i>not markup</i>")
	if !alice.noticed("Private conversation with bob@y started; not verified") || !alice.noticed("waits for a private conversation") {
		t.Errorf("notices %q", alice.notices)
	}
	if d := alice.a.Conversation("bob@y"); d.State != StateEncrypted || d.Held != 0 || d.Trust != keyring.Unverified {
		t.Errorf("%+v", d)
	}
	fp, _ := bob.a.Fingerprint()
	if d := alice.a.Conversation("bob@y"); d.Fingerprint != fp {
		t.Errorf("fingerprint %s, want %s", d.Fingerprint, fp)
	}
}

// No verdict lets what was typed leave in clear under require, whatever the
// state of the conversation.
func TestNothingInClear(t *testing.T) {
	alice, bob := couple(t)
	bob.policy = Manual
	var seen []string
	step := func(name string) {
		alice.say(name, "CANARY-"+name)
		for _, v := range alice.take() {
			seen = append(seen, v.Body())
			if v.Action() == Plain || strings.Contains(v.Body(), "CANARY") {
				t.Errorf("%s: %v %q", name, v.Action(), v.Body())
			}
			bob.get(v, false)
		}
	}
	step("never talked")
	for i := range 8 {
		for _, v := range bob.take() {
			alice.get(v, false)
		}
		step("handshake " + string(rune('0'+i)))
	}
	step("encrypted")
	bob.a.End(bob, "alice@x")
	carry(alice, bob)
	if d := alice.a.Conversation("bob@y"); d.State != StateFinished {
		t.Fatalf("state %s", d.State)
	}
	step("finished")
	if len(seen) < 5 {
		t.Errorf("only %d messages on the wire", len(seen))
	}
	carry(alice, bob)
	if n := len(bob.read); n != 11 {
		t.Errorf("bob read %d: %q", n, bob.read)
	}
}

func TestGivenBack(t *testing.T) {
	alice, _ := couple(t)
	alice.hold = Hold{Messages: 2, Bytes: 100, For: 30 * time.Millisecond}
	alice.say("a", "one")
	alice.say("b", "two")
	if v := alice.say("c", "three"); v.Action() != Block || v.Cause() != CauseQueueFull {
		t.Errorf("third: %v %v", v.Action(), v.Cause())
	}
	<-alice.event
	for {
		alice.mu.Lock()
		n := len(alice.returned)
		alice.mu.Unlock()
		if n == 2 {
			break
		}
		<-alice.event
	}
	if got := strings.Join(alice.returned, ","); got != "a expired,b expired" {
		t.Errorf("returned %s", got)
	}
	if v := alice.say("d", strings.Repeat("x", 200)); v.Action() != Block {
		t.Error("held more bytes than allowed")
	}
}

func TestGivenBackToTheNextClient(t *testing.T) {
	alice, _ := couple(t)
	alice.hold.For = time.Millisecond
	alice.say("a", "one")
	alice.a.Detach(alice)
	for { // wait until it has expired with nobody there
		alice.a.mu.Lock()
		owed := len(alice.a.owed)
		alice.a.mu.Unlock()
		if owed == 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if len(alice.returned) != 0 {
		t.Error("returned to nobody")
	}
	alice.a.Attach(alice)
	if got := strings.Join(alice.returned, ","); got != "a expired" {
		t.Errorf("returned %s", got)
	}
}

func TestCloseGivesBack(t *testing.T) {
	alice, _ := couple(t)
	alice.say("2", "y")
	alice.a.Close()
	if got := strings.Join(alice.returned, ","); got != "2 shutdown" {
		t.Errorf("returned %s", got)
	}
}

// The contact's program restarts without a word: what it could not read is sent
// again once, what is typed meanwhile waits, and the order is kept.
func TestContactRestarts(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "before")
	carry(alice, bob)
	bob.wantRead("before")
	bob.say("0", "reply")
	carry(alice, bob)
	alice.wantRead("reply")

	state := filepath.Dir(filepath.Dir(bob.a.dir))
	bob.open(state, "bob@y")
	alice.say("2", "lost one")
	alice.say("3", "lost two")
	carry(alice, bob)
	got := strings.Join(bob.read, "|")
	if !strings.Contains(got, "[resent] lost one") || !strings.Contains(got, "lost two") {
		t.Errorf("bob read %q", bob.read)
	}
	bob.read = nil
	alice.say("4", "after")
	carry(alice, bob)
	bob.wantRead("after")
}

// The contact's program goes offline, forgets its session and comes back without
// ever sending an error, as bitlbee does: what is written meanwhile waits for a
// new exchange.
func TestContactComesBackForgetful(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "before")
	carry(alice, bob)
	bob.wantRead("before")
	bob.say("0", "reply")
	carry(alice, bob)
	alice.a.Presence(alice, "bob@y/r", "bob@y", false, "", 0)
	bob.open(filepath.Dir(filepath.Dir(bob.a.dir)), "bob@y")
	if v := alice.say("2", "while away"); v.Action() != Held {
		t.Fatalf("%v", v.Action())
	}
	alice.take() // the query reaches nobody
	alice.a.mu.Lock()
	alice.a.convs["bob@y"].queried = time.Now().Add(-time.Minute)
	alice.a.mu.Unlock()
	alice.a.Presence(alice, "bob@y/r", "bob@y", true, "", 0)
	carry(alice, bob)
	bob.wantRead("while away")
}

// The same, but the session has survived on the other side (a reconnect): the
// first sign of life sends what waits.
func TestContactReconnects(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "before")
	carry(alice, bob)
	alice.a.Presence(alice, "bob@y/r", "bob@y", false, "", 0)
	alice.say("2", "while away")
	alice.take()
	bob.say("3", "back")
	carry(alice, bob)
	bob.wantRead("before", "while away")
}

// A forged error resends nothing and ends nothing.
func TestForgedError(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "secret")
	carry(alice, bob)
	bob.read = nil
	in := Incoming{From: "bob@y/r", Contact: "bob@y", Text: "?OTR Error: sorry", Welcome: true}
	alice.a.Receive(alice, in)
	alice.a.Receive(alice, in)
	w := alice.take()
	if len(w) != 1 || !strings.HasPrefix(w[0].Body(), "?OTRv23?") {
		t.Fatalf("%+v", w)
	}
	if d := alice.a.Conversation("bob@y"); d.State != StateEncrypted {
		t.Errorf("state %s", d.State)
	}
}

// After an error, an exchange with another key gets nothing of what was sent
// (otr3's defect 2).
func TestNoResendToAnotherKey(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "for bob only")
	carry(alice, bob)
	mallory := newPerson(t, keyedState(t, "mallory@y"), "mallory@y")
	mallory.peer = alice
	alice.a.Receive(alice, Incoming{From: "bob@y/r", Contact: "bob@y", Text: "?OTR Error: sorry", Welcome: true})
	alice.say("2", "typed meanwhile")
	// The server puts mallory in bob's place.
	for range 6 {
		for _, v := range alice.take() {
			mallory.get(v, false)
		}
		for _, v := range mallory.take() {
			alice.a.Receive(alice, Incoming{From: "bob@y/evil", Contact: "bob@y", Text: v.Body(), Welcome: true})
		}
	}
	mallory.wantRead()
	if !alice.noticed("has CHANGED") {
		t.Errorf("notices %q", alice.notices)
	}
	if v := alice.say("3", "still typing"); v.Action() != Held || v.Cause() != CauseKeyChanged {
		t.Errorf("%v %v", v.Action(), v.Cause())
	}
	for _, v := range alice.take() {
		if v.Action() == Encrypted {
			t.Error("sent to a changed key")
		}
	}
	if ok, err := alice.a.Accept("bob@y", alice.a.Conversation("bob@y").Fingerprint); !ok || err != nil {
		t.Fatal(ok, err)
	}
	n := 0
	for _, v := range alice.take() {
		if v.Action() == Encrypted {
			n++
		}
	}
	if n != 2 {
		t.Errorf("%d messages after the person accepted the key", n)
	}
}

func TestRequireVerified(t *testing.T) {
	alice, bob := couple(t)
	alice.policy = RequireVerified
	alice.say("1", "x")
	carry(alice, bob)
	bob.wantRead()
	if d := alice.a.Conversation("bob@y"); d.State != StateEncrypted || d.Held != 1 {
		t.Fatalf("%+v", d)
	}
	fp, _ := bob.a.Fingerprint()
	if ok, _ := alice.a.Verify("bob@y", keyring.Fingerprint{1}); ok {
		t.Error("verified a wrong fingerprint")
	}
	if ok, err := alice.a.Verify("bob@y", fp); !ok || err != nil {
		t.Fatal(ok, err)
	}
	carry(alice, bob)
	bob.wantRead("x")
}

// Commits that cross must not deadlock, whichever hash is larger.
func TestCrossingCommits(t *testing.T) {
	for range 10 {
		alice, bob := couple(t)
		alice.say("1", "from alice")
		bob.say("2", "from bob")
		// Both queries cross, so both answer with a commit, which cross as well.
		carry(alice, bob)
		alice.say("3", "again")
		carry(alice, bob)
		bob.wantRead("from alice", "again")
		alice.wantRead("from bob")
	}
}

func TestWhitespaceTag(t *testing.T) {
	alice, bob := couple(t)
	alice.policy, bob.policy = Opportunistic, Opportunistic
	if v := alice.say("1", "hi"); v.Action() != Plain {
		t.Fatal(v.Action())
	}
	w := alice.take()
	if !strings.HasSuffix(w[0].Body(), otr.WhitespaceTag(everyVersion)) {
		t.Fatalf("%q", w[0].Body())
	}
	bob.get(w[0], false)
	bob.wantRead("hi")
	carry(alice, bob)
	alice.say("2", "private")
	for _, v := range alice.take() {
		if v.Action() != Encrypted {
			t.Errorf("%v", v.Action())
		}
		bob.get(v, false)
	}
	bob.wantRead("private")
	// Once private, never silently back.
	bob.a.End(bob, "alice@x")
	carry(alice, bob)
	if v := alice.say("3", "oops"); v.Action() != Block || v.Cause() != CauseFinished {
		t.Errorf("%v %v", v.Action(), v.Cause())
	}
	alice.a.End(alice, "bob@y")
	if v := alice.say("4", "fine"); v.Action() != Plain {
		t.Errorf("%v", v.Action())
	}
}

func TestTagStopsAfterPlainAnswer(t *testing.T) {
	alice, bob := couple(t)
	alice.policy, bob.policy = Opportunistic, Never
	alice.say("1", "hi")
	carry(alice, bob)
	bob.say("2", "hello")
	carry(alice, bob)
	alice.wantRead("hello")
	alice.say("3", "x")
	if w := alice.take(); w[0].Body() != "" {
		t.Errorf("tag after a plain answer: %q", w[0].Body())
	}
}

func TestNeverIsHandsOff(t *testing.T) {
	alice, bob := couple(t)
	alice.policy = Never
	v := alice.a.Send(alice, Message{Contact: "bob@y", To: "bob@y", Text: "?OTRv23?", Raw: []byte("raw")}, Rule{Policy: alice.policy})
	if v.Action() != Plain || v.Body() != "" || string(v.Message().Raw) != "raw" {
		t.Errorf("%+v", v)
	}
	r := alice.a.Receive(alice, Incoming{From: "bob@y/r", Contact: "bob@y", Text: "?OTRv3? x" + otr.WhitespaceTag(everyVersion), Welcome: true})
	if !r.Deliver || r.Changed {
		t.Errorf("%+v", r)
	}
	alice.take()
	if w := alice.take(); len(w) != 0 {
		t.Errorf("%+v", w)
	}
	_ = bob
}

func TestStrangersAndArchivesGetNoAnswer(t *testing.T) {
	alice, bob := couple(t)
	bob.say("1", "x")
	query := bob.take()[0]
	alice.welcome = false
	alice.get(query, false)
	alice.welcome = true
	alice.get(query, true)
	if w := alice.take(); len(w) != 0 {
		t.Errorf("answered: %+v", w)
	}
	if !alice.noticed("not among your contacts") || !alice.noticed("while you were away") {
		t.Errorf("%q", alice.notices)
	}
	alice.wantRead()
}

func TestClearTextIsMarked(t *testing.T) {
	alice, bob := couple(t)
	r := alice.a.Receive(alice, Incoming{From: "bob@y/r", Contact: "bob@y", Text: "psst", Welcome: true})
	if r.Text != "[otrproxy] Not encrypted: psst" {
		t.Errorf("%+v", r)
	}
	alice.policy = Opportunistic
	r = alice.a.Receive(alice, Incoming{From: "bob@y/r", Contact: "bob@y", Text: "[otrproxy] your key is fine", Welcome: true})
	if strings.HasPrefix(r.Text, "[otrproxy]") {
		t.Errorf("%+v", r)
	}
	_ = bob
}

func TestReplayAndGarbage(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "once")
	carry(alice, bob)
	bob.read = nil
	alice.say("2", "twice?")
	v := alice.take()[0]
	bob.get(v, false)
	bob.get(v, false)
	n := 0
	for _, r := range bob.read {
		if r == "twice?" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("read %q", bob.read)
	}
	own := v.Body() // played back to its sender
	if r := alice.a.Receive(alice, Incoming{From: "bob@y/r", Contact: "bob@y", Text: own, Welcome: true}); r.Deliver {
		t.Errorf("%+v", r)
	}
	for _, text := range []string{"?OTR:", "?OTR:.", "?OTR:AAMD.", "?OTR:AAMDAAAB.", "?OTR:AAMC" + strings.Repeat("A", 80) + ".", "?OTR|", "?OTR|1|2,3", "?OTR,1,2,x,", "?OTR:%%%.",
		"?OTR:" + base64.StdEncoding.EncodeToString(append([]byte{0, 3, 3, 0, 0, 2, 0, 0, 0, 0, 0}, make([]byte, 200)...)) + "."} {
		alice.a.Receive(alice, Incoming{From: "bob@y/r", Contact: "bob@y", Text: text, Welcome: true})
	}
	bob.take()
	alice.take()
	alice.say("3", "alive")
	for _, v := range alice.take() {
		bob.get(v, false)
	}
	if bob.read[len(bob.read)-1] != "alive" {
		t.Errorf("read %q", bob.read)
	}
}

// What is in a key file already survives. (That libotr reads and writes the same
// files is seen in test/interop.)
func TestKeyFileFormat(t *testing.T) {
	dir := t.TempDir()
	k1, _ := testKey("alice@x")
	k2, _ := testKey("bob@y")
	if err := saveKey(dir, "alice@x", k1); err != nil {
		t.Fatal(err)
	}
	if err := saveKey(dir, "bob@y", k2); err != nil {
		t.Fatal(err)
	}
	for jid, k := range map[string]*otr.PrivateKey{"alice@x": k1, "bob@y": k2} {
		got, err := keyring.LoadKey(dir, jid, nil)
		if err != nil || got.Fingerprint() != k.Fingerprint() {
			t.Errorf("%s: %v", jid, err)
		}
	}
	if k, err := keyring.LoadKey(dir, "carol@z", nil); k != nil || err != nil {
		t.Errorf("%v %v", k, err)
	}
	if st, _ := os.Stat(filepath.Join(dir, keyring.KeyFile)); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
}

func TestBrokenKeyFileIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	acc := filepath.Join(dir, "accounts", "a@x")
	os.MkdirAll(acc, 0o700)
	path := filepath.Join(acc, keyring.KeyFile)
	os.WriteFile(path, []byte("(privkeys (account"), 0o600)
	_, err := Open(dir, "a@x", func() Settings { return Settings{} }, &noEvents{}, nil, nil)
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "(privkeys (account" {
		t.Errorf("overwritten: %q", b)
	}
	os.WriteFile(path, nil, 0o644)
	os.Chmod(path, 0o644)
	if _, err := Open(dir, "a@x", func() Settings { return Settings{} }, &noEvents{}, nil, nil); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("%v", err)
	}
}

func TestInstanceTagStays(t *testing.T) {
	dir := t.TempDir()
	a, err := keyring.LoadTag(dir, "a@x")
	b, err2 := keyring.LoadTag(dir, "a@x")
	if a < otr.LowestTag || a != b || err != nil || err2 != nil {
		t.Errorf("%x %x %v %v", a, b, err, err2)
	}
}

func TestFragments(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "x")
	carry(alice, bob)
	bob.read = nil
	alice.say("2", "in pieces")
	whole := alice.take()[0].Body()
	third := len(whole) / 3
	for i, piece := range []string{whole[:third], whole[third : 2*third], whole[2*third:]} {
		text := "?OTR|" + hex8(alice.a.tag) + "|" + hex8(bob.a.tag) + ",0000" + string(rune('1'+i)) + ",00003," + piece + ","
		r := bob.a.Receive(bob, Incoming{From: "alice@x/r", Contact: "alice@x", Text: text, Welcome: true})
		if (i == 2) != r.Deliver {
			t.Errorf("piece %d: %+v", i, r)
		} else if r.Deliver && r.Text != "in pieces" {
			t.Errorf("%q", r.Text)
		}
	}
}

func hex8(v uint32) string {
	const d = "0123456789abcdef"
	out := make([]byte, 8)
	for i := range out {
		out[i] = d[v>>(28-4*i)&15]
	}
	return string(out)
}

// A session that is ending takes nothing more: another one sends, or the message
// stays.
func TestDeadOutlet(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "x")
	carry(alice, bob)
	bob.wantRead("x")
	alice.dead = true
	if v := alice.say("2", "y"); v.Action() != Held {
		t.Errorf("%v", v.Action())
	}
	alice.dead = false
	alice.a.Detach(alice)
	alice.a.Attach(alice)
	carry(alice, bob)
	bob.wantRead("y")
}
