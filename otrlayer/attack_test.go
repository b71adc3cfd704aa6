package otrlayer

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"weak"

	"otrproxy/otrlayer/keyring"
)

// drive carries between alice and x, x being presented to alice as bob@y/from.
func drive(alice, x *person, from string) {
	for range 8 {
		for _, v := range alice.take() {
			x.get(v, false)
		}
		for _, v := range x.take() {
			if r := alice.a.Receive(alice, Incoming{From: "bob@y/" + from, Contact: "bob@y", Text: v.Body(), Welcome: true}); r.Deliver {
				alice.read = append(alice.read, r.Text)
			}
		}
	}
}

func TestAttackResendToChangedKey(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "hello")
	carry(alice, bob)
	bob.wantRead("hello")
	mallory := newPerson(t, keyedState(t, "mallory@y"), "mallory@y")
	mallory.peer = alice
	// mallory's device joins: CHANGED, nobody accepts it.
	mallory.a.Start(mallory, "alice@x")
	drive(alice, mallory, "evil")
	if !alice.noticed("has CHANGED") {
		t.Fatal("no change noticed")
	}
	// bob's own device comes back.
	bob.a.Start(bob, "alice@x")
	carry(alice, bob)
	if d := alice.a.Conversation("bob@y"); d.Trust != keyring.Unverified {
		t.Fatalf("%+v", d)
	}
	alice.say("2", "for bob only")
	// held back: bob gets it or not, no matter; the server does not deliver a reply.
	for _, v := range alice.take() {
		bob.get(v, false)
	}
	mallory.read = nil
	alice.a.Receive(alice, Incoming{From: "bob@y/evil", Contact: "bob@y", Text: "?OTR Error: sorry", Welcome: true})
	alice.take()
	mallory.a.Start(mallory, "alice@x")
	drive(alice, mallory, "evil")
	if len(mallory.read) > 0 {
		t.Errorf("LEAK: mallory, whose key nobody accepted, read %q; trust %+v", mallory.read, alice.a.Conversation("bob@y"))
	}
}

func TestAttackSendAfterClose(t *testing.T) {
	early, _ := couple(t)
	early.a.Close()
	if v := early.say("late", "x"); v.Action() != Block || v.Cause() != CauseShutdown {
		t.Errorf("%v %v", v.Action(), v.Cause())
	}
	alice, bob := couple(t)
	alice.policy = Opportunistic
	alice.a.Start(alice, "bob@y")
	carry(alice, bob)
	if alice.a.Conversation("bob@y").State != StateEncrypted {
		t.Fatal("not private")
	}
	alice.a.Close()
	alice.take()
	if v := alice.say("late", "secret in private conversation"); v.Action() == Plain {
		t.Errorf("LEAK: after Close a private (opportunistic) conversation went on in clear")
	}
}

func TestAttackSecondHeldAnnounced(t *testing.T) {
	alice, _ := couple(t)
	alice.hold.For = 5 * time.Millisecond
	alice.say("1", "x")
	<-alice.event
	if !alice.noticed("Your message waits") {
		t.Fatal()
	}
	alice.mu.Lock()
	alice.notices = nil
	alice.mu.Unlock()
	alice.a.mu.Lock() // the timer may still be at work
	alice.hold.For = time.Minute
	alice.a.mu.Unlock()
	if v := alice.say("2", "y"); v.Action() == Held && !alice.noticed("waits") {
		t.Error("the second message is held and not announced")
	}
}

func TestAttackTypedText(t *testing.T) {
	alice, bob := couple(t)
	alice.say("0", "x")
	carry(alice, bob)
	bob.read = nil
	for _, text := range []string{"?OTR?what-is-that?", "?OTRv2?meet-me-at-noon?", "?OTR?!really?"} {
		v := alice.say("1", text)
		carry(alice, bob)
		if v.Action() == Protocol && strings.Join(bob.read, "") != text {
			t.Errorf("%q swallowed as a wish", text)
		}
		bob.read = nil
	}
}

func TestAttackOvertaken(t *testing.T) {
	alice, bob := couple(t)
	alice.say("0", "zero")
	carry(alice, bob)
	bob.read = nil
	alice.a.Receive(alice, Incoming{From: "bob@y/r", Contact: "bob@y", Text: "?OTR Error: x", Welcome: true})
	alice.take()
	if v := alice.say("1", "first"); v.Action() != Held {
		t.Fatal(v.Action())
	}
	alice.a.Detach(alice)
	alice.a.mu.Lock()
	alice.a.convs["bob@y"].stale = time.Now().Add(-time.Second)
	alice.a.mu.Unlock()
	alice.a.expire()
	alice.a.Attach(alice)
	alice.say("2", "second")
	carry(alice, bob)
	// The error was forged, and had the last message sent again.
	if got := strings.Join(bob.read, "|"); got != "[resent] zero|first|second" {
		t.Errorf("bob read %q; held %d", got, alice.a.Conversation("bob@y").Held)
	}
}

func TestAttackStuckExchange(t *testing.T) {
	alice, bob := couple(t)
	bob.a.Start(bob, "alice@x")
	for _, v := range bob.take() {
		alice.get(v, false)
	}
	alice.take() // our commit is lost on the way, bob never answers
	alice.a.mu.Lock()
	alice.a.clock = func() time.Time { return time.Now().Add(time.Hour) }
	alice.a.mu.Unlock()
	alice.say("1", "x")
	if w := alice.take(); len(w) == 0 {
		t.Error("an hour after a lost commit the proxy still asks nobody for a private conversation")
	}
}

func TestAttackLargeText(t *testing.T) {
	alice, bob := couple(t)
	alice.say("0", "x")
	carry(alice, bob)
	bob.read = nil
	if v := alice.say("1", strings.Repeat(">", 200<<10)); v.Action() != Block || v.Cause() != CauseTooLarge {
		t.Errorf("%v %v", v.Action(), v.Cause())
	}
	text := strings.Repeat(">", 40<<10)
	alice.say("2", text)
	carry(alice, bob)
	bob.wantRead(text)
}

func TestAttackStrangers(t *testing.T) {
	alice, _ := couple(t)
	piece := strings.Repeat("A", 1<<20)
	for i := range 50 {
		jid := "s" + string(rune('a'+i%26)) + string(rune('a'+i/26)) + "@evil"
		for k := range 8 {
			alice.a.Receive(alice, Incoming{From: jid + "/r", Contact: jid, Text: "?OTR|0000010" + string(rune('0'+k)) + "|00000000,1,2," + piece + ","})
		}
	}
	if n := len(alice.a.convs); n > 0 {
		t.Errorf("strangers, who never complete anything, hold %d conversations for ever", n)
	}
}

// Two sessions of one account both get a message that was sent to the bare JID.
func TestAttackTwoSessions(t *testing.T) {
	alice, bob := couple(t)
	bob.say("0", "x")
	carry(alice, bob)
	alice.read = nil
	bob.say("1", "hello both")
	for _, v := range bob.take() {
		alice.get(v, false)
		alice.get(v, false) // the other session's copy
	}
	for _, v := range alice.take() {
		if strings.HasPrefix(v.Body(), "?OTR Error") {
			t.Errorf("a second copy of a readable message made an error; alice read %q", alice.read)
		}
	}
}

func TestAttackChangedKeyShownUnmarked(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "hello")
	carry(alice, bob)
	fp, _ := bob.a.Fingerprint()
	alice.a.Verify("bob@y", fp)
	mallory := newPerson(t, keyedState(t, "mallory@y"), "mallory@y")
	mallory.peer = alice
	mallory.a.Start(mallory, "alice@x")
	drive(alice, mallory, "evil")
	alice.read = nil
	mallory.say("9", "pay to account 42")
	for _, v := range mallory.take() {
		r := alice.a.Receive(alice, Incoming{From: "bob@y/evil", Contact: "bob@y", Text: v.Body(), Welcome: true})
		if r.Deliver && r.Text == "pay to account 42" {
			t.Errorf("text under a CHANGED key is shown unmarked in a conversation described as %+v", alice.a.Conversation("bob@y"))
		}
	}
}

func TestAttackEvictionTakesOver(t *testing.T) {
	alice, bob := couple(t)
	first := newPerson(t, keyedState(t, "mallory@y"), "mallory@y")
	join(t, alice, first, "phone")
	join(t, alice, bob, "desk")
	if ok, err := alice.a.Accept("bob@y", alice.a.Conversation("bob@y").Fingerprint); !ok || err != nil {
		t.Fatal(ok, err)
	}
	alice.verify(t, bob)
	var last *person
	for range 8 {
		m := newPerson(t, keyedState(t, "mallory@y"), "mallory@y") // the same key, other instance tags
		m.peer = alice
		m.a.Start(m, "alice@x")
		drive(alice, m, "phone")
		last = m
	}
	last.read = nil
	v := alice.say("1", "for bob alone")
	drive(alice, last, "phone")
	if len(last.read) > 0 {
		t.Errorf("LEAK: %v; an unverified key read %q in place of the verified one; %+v", v.Action(), last.read, alice.a.Conversation("bob@y"))
	}
}

func TestAttackVerifiedDisplaced(t *testing.T) {
	alice, bob := couple(t)
	join(t, alice, bob, "r")
	alice.verify(t, bob)
	mallory := newPerson(t, keyedState(t, "mallory@y"), "mallory@y") // a key nobody ever accepted
	mallory.peer, mallory.a.tag = alice, bob.a.tag
	mallory.a.Start(mallory, "alice@x")
	drive(alice, mallory, "r")
	alice.read = nil
	bob.say("1", "from the verified key")
	for _, v := range bob.take() {
		alice.get(v, false)
	}
	if got := strings.Join(alice.read, "|"); got != "from the verified key" {
		t.Errorf("alice read %q; conversation %+v", got, alice.a.Conversation("bob@y"))
	}
}

func TestAttackEndCrossesMessage(t *testing.T) {
	alice, bob := couple(t)
	alice.say("0", "x")
	carry(alice, bob)
	bob.notices = nil
	bob.say("1", "crossing the end")
	alice.a.End(alice, "bob@y")
	carry(alice, bob)
	t.Logf("alice read %q", alice.read)
	t.Logf("bob noticed %q returned %q", bob.notices, bob.returned)
	got := strings.Join(alice.read, "|")
	if !strings.Contains(got, "crossing the end") && !bob.noticed("could not read") && len(bob.returned) == 0 {
		t.Errorf("bob's message is lost, and nobody told bob")
	}
}

func TestAttackTwoClients(t *testing.T) {
	alice, bob := couple(t)
	alice.say("0", "x")
	carry(alice, bob)
	bob.read = nil
	second := &person{t: t, a: alice.a, peer: bob, event: make(chan struct{}, 100)}
	alice.a.Attach(second)
	alice.a.Presence(alice, "bob@y/r", "bob@y", false, "", 0)
	alice.say("1", "one")
	second.say("2", "two")
	alice.take()
	second.take()
	bob.say("3", "back") // the session is alive: what waits goes
	for _, v := range bob.take() {
		alice.get(v, false)
	}
	// two connections to the server: the second's is a little faster
	for _, v := range append(second.take(), alice.take()...) {
		bob.get(v, false)
	}
	for range 6 {
		carry(alice, bob)
		for _, v := range second.take() {
			bob.get(v, false)
		}
	}
	got := strings.Join(bob.read, "|")
	if !strings.Contains(got, "one") {
		t.Errorf("bob read %q: \"one\" is lost; alice: %q", bob.read, alice.notices)
	}
}

func TestAttackV2MovedRefresh(t *testing.T) {
	alice, bob := couple(t)
	alice.allowed, bob.allowed = []int{2}, []int{2}
	join(t, alice, bob, "old")
	bob.say("1", "from the new place")
	drive(alice, bob, "new")
	alice.read, bob.read = nil, nil
	bob.a.Start(bob, "alice@x") // refresh
	toAlice := func() {
		for _, v := range bob.take() {
			alice.a.Receive(alice, Incoming{From: "bob@y/new", Contact: "bob@y", Text: v.Body(), Welcome: true})
		}
	}
	toAlice() // query -> commit
	for _, v := range alice.take() {
		bob.get(v, false)
	}
	toAlice() // D-H Key -> Reveal Signature
	v := alice.say("2", "during the refresh")
	if v.Action() != Held {
		t.Errorf("not held: %v", v.Action())
	}
	drive(alice, bob, "new")
	if got := strings.Join(bob.read, "|"); got != "during the refresh" {
		t.Errorf("bob read %q", bob.read)
	}
}

func TestAttackOvertakenInClear(t *testing.T) {
	alice, bob := couple(t)
	alice.policy, bob.policy = Opportunistic, Opportunistic
	join(t, alice, bob, "r")
	alice.a.Presence(alice, "bob@y/r", "bob@y", false, "", 0)
	if v := alice.say("1", "first"); v.Action() != Held {
		t.Fatal(v.Action())
	}
	alice.a.End(alice, "bob@y")
	v := alice.say("2", "second")
	alice.take()
	t.Logf("%v; held %d returned %q", v.Action(), alice.a.Conversation("bob@y").Held, alice.returned)
	if v.Action() == Plain && len(alice.returned) == 0 {
		t.Error("the second message has overtaken the first, which still waits")
	}
}

func TestAttackDuplicatePieces(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "x")
	carry(alice, bob)
	bob.read = nil
	alice.say("2", "in pieces")
	whole := alice.take()[0].Body()
	third := len(whole) / 3
	for i, piece := range []string{whole[:third], whole[third : 2*third], whole[2*third:]} {
		text := "?OTR|" + hex8(alice.a.tag) + "|" + hex8(bob.a.tag) + ",0000" + string(rune('1'+i)) + ",00003," + piece + ","
		for range 2 { // two clients of bob's get what was sent to the bare JID
			if r := bob.a.Receive(bob, Incoming{From: "alice@x/r", Contact: "alice@x", Text: text, Welcome: true}); r.Deliver {
				bob.read = append(bob.read, r.Text)
			}
		}
	}
	bob.wantRead("in pieces")
}

func TestAttackSecondErrorSilent(t *testing.T) {
	alice, bob := couple(t)
	alice.say("0", "x")
	carry(alice, bob)
	sorry := Incoming{From: "bob@y/r", Contact: "bob@y", Text: "?OTR Error: You sent encrypted data, who wasn't expecting it", Welcome: true}
	alice.say("1", "one") // bob's program (libotr) has lost its session
	alice.take()
	alice.a.Receive(alice, sorry)
	alice.take() // our query gets no answer: bob's server is slow
	alice.later(16 * time.Second)
	alice.a.expire()
	alice.notices = nil
	if v := alice.say("2", "two"); v.Action() != Encrypted {
		t.Fatal(v.Action())
	}
	alice.take()
	alice.a.Receive(alice, sorry) // nor could bob read that one
	if len(alice.notices) == 0 && len(alice.returned) == 0 && len(alice.take()) == 0 {
		t.Errorf("bob says he could not read %q: nothing is noticed, returned, asked or sent again", "two")
	}
}

func TestAttackRecentKept(t *testing.T) {
	alice, bob := couple(t)
	alice.say("0", "x")
	carry(alice, bob)
	alice.a.Start(alice, "bob@y") // empties what is kept
	carry(alice, bob)
	for range maxRecent + 1 {
		alice.say("1", "plaintext")
	}
	c := alice.a.convs["bob@y"]
	p := weak.Make(c.recent[:1][0])
	alice.say("1", "plaintext") // pushes the oldest out
	alice.take()
	alice.later(2 * time.Minute)
	alice.a.expire()
	if len(c.recent) != 0 {
		t.Fatal(len(c.recent))
	}
	runtime.GC()
	runtime.GC()
	if m := p.Value(); m != nil {
		t.Errorf("two minutes later the plaintext %q is still in memory", m.Text)
	}
	runtime.KeepAlive(c)
}

func TestAttackManyContacts(t *testing.T) {
	alice, _ := couple(t)
	piece := strings.Repeat("A", 250<<10)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 100 { // the server writes the roster, and so who is welcome
		jid := "s" + string(rune('a'+i%26)) + string(rune('a'+i/26)) + "@evil"
		for k := range 4 {
			alice.a.Receive(alice, Incoming{From: jid + "/r", Contact: jid, Text: "?OTR|0000010" + string(rune('0'+k)) + "|00000000,1,2," + piece + ",", Welcome: true})
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	n := len(alice.a.convs)
	if held := (after.HeapAlloc - before.HeapAlloc) >> 20; held > 32 {
		t.Errorf("%d MiB held for 100 names a server made up; %d conversations, none of which is ever forgotten", held, n)
	}
}

type logged struct {
	noEvents
	mu   sync.Mutex
	errs []string
}

func (l *logged) Log(_ int, what string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.errs = append(l.errs, what+": "+err.Error())
	}
}

func TestAttackNameInLog(t *testing.T) {
	alice, bob := couple(t)
	l := &logged{}
	alice.a.events = l
	if err := os.RemoveAll(alice.a.dir); err != nil { // a full disk does the same
		t.Fatal(err)
	}
	alice.say("1", "x")
	carry(alice, bob)
	if s := strings.Join(l.errs, "\n"); strings.Contains(s, "alice@x") {
		t.Errorf("the log names the account: %s", s)
	}
}

func TestAttackOtherDeviceOfVerifiedKey(t *testing.T) {
	alice, bob := couple(t)
	phone := newPerson(t, keyedState(t, "bob@y"), "bob@y") // the same key
	join(t, alice, bob, "desk")
	join(t, alice, phone, "phone")
	alice.verify(t, bob)
	alice.read = nil
	bob.say("1", "from the desk")
	drive(alice, bob, "desk")
	alice.wantRead("from the desk")
}

func TestAttackReplayOld(t *testing.T) {
	alice, bob := couple(t)
	alice.say("0", "x")
	carry(alice, bob)
	alice.say("0", "first")
	old := alice.take()[0]
	bob.get(old, false)
	for range maxRead + 1 {
		alice.say("1", "m")
		carry(alice, bob)
	}
	bob.read = nil
	bob.get(old, false)
	carry(alice, bob)
	bob.wantRead()
}

func TestAttackQuestionToChangedKey(t *testing.T) {
	alice, bob := couple(t)
	join(t, alice, bob, "r")
	alice.verify(t, bob)
	mallory := newPerson(t, keyedState(t, "mallory@y"), "mallory@y")
	mallory.a.tag = bob.a.tag
	mallory.peer = alice
	mallory.a.Start(mallory, "alice@x")
	drive(alice, mallory, "r")
	q := "where did we meet? CANARY"
	err := alice.a.Compare(alice, "bob@y", &q, "there")
	drive(alice, mallory, "r")
	if mallory.noticed("CANARY") {
		t.Errorf("the question reached a key nobody accepted (%v)", err)
	}
}

func TestAttackBounceUnseals(t *testing.T) {
	alice, bob := couple(t)
	alice.say("0", "x")
	carry(alice, bob)
	bob.read = nil
	bob.a.Start(bob, "alice@x") // refresh
	step := func() {
		a, b := alice.take(), bob.take()
		for _, v := range a {
			bob.get(v, false)
		}
		for _, v := range b {
			alice.get(v, false)
		}
	}
	step()                          // query
	step()                          // commit
	step()                          // key; alice has revealed
	alice.a.Bounced("bob@y", false) // of something else, to a resource that has gone
	v := alice.say("1", "during")
	carry(alice, bob)
	if got := strings.Join(bob.read, "|"); got != "during" {
		t.Errorf("%v: bob read %q", v.Action(), bob.read)
	}
}

// Bob's program has restarted and an exchange is under way; alice types before it is complete.
func TestAttackTypedDuringExchange(t *testing.T) {
	alice, bob := couple(t)
	alice.say("0", "x")
	carry(alice, bob)
	bob.open(filepath.Dir(filepath.Dir(bob.a.dir)), "bob@y") // restarts
	bob.read = nil
	toBob := func() {
		for _, v := range alice.take() {
			bob.get(v, false)
		}
	}
	toAlice := func() {
		for _, v := range bob.take() {
			alice.get(v, false)
		}
	}
	alice.a.Start(alice, "bob@y") // query
	toBob()                       // D-H Commit
	toAlice()                     // D-H Key
	if v := alice.say("1", "typed meanwhile"); v.Action() != Held || !alice.noticed("waits for a moment") {
		t.Fatal(v.Action(), alice.notices)
	}
	carry(alice, bob)
	alice.later(61 * time.Second)
	alice.a.expire()
	carry(alice, bob)
	if !strings.Contains(strings.Join(bob.read, "|"), "typed meanwhile") {
		t.Errorf("lost: bob read %q; alice was told %q and got back %q", bob.read, alice.notices[len(alice.notices)-1], alice.returned)
	}
}

func TestConcurrentUse(t *testing.T) {
	alice, bob := couple(t)
	alice.idle = 50 * time.Millisecond
	done := make(chan bool)
	for i := range 4 {
		go func() {
			defer func() { done <- true }()
			for range 100 {
				switch i {
				case 0:
					alice.say("1", "x")
				case 1:
					alice.a.Presence(alice, "bob@y/r", "bob@y", false, "", 0)
					alice.a.Presence(alice, "bob@y/r", "bob@y", true, "", 0)
				case 2:
					alice.a.Conversations()
					alice.a.Detach(alice)
					alice.a.Attach(alice)
				case 3:
					for _, v := range alice.take() {
						bob.a.Receive(bob, Incoming{From: "alice@x/r", Contact: "alice@x", Text: v.Body(), Welcome: true})
					}
					for _, v := range bob.take() {
						alice.a.Receive(alice, Incoming{From: "bob@y/r", Contact: "bob@y", Text: v.Body(), Welcome: true})
					}
				}
			}
		}()
	}
	for range 4 {
		<-done
	}
}

// restart starts a person's program anew on the same state, without a word.
func (p *person) restart() {
	p.t.Helper()
	jid := p.a.jid
	p.open(filepath.Dir(filepath.Dir(p.a.dir)), jid)
}

// A contact's end crosses a message: the unread one is sent again, not the one before.
func TestAttackResendAfterEnd(t *testing.T) {
	alice, bob := couple(t)
	alice.say("0", "zero")
	carry(alice, bob)
	alice.later(time.Second)
	alice.say("1", "read before")
	carry(alice, bob)
	alice.later(time.Second)
	alice.say("2", "crossing")
	bob.a.End(bob, "alice@x")
	carry(alice, bob)
	bob.follows()
	carry(alice, bob)
	if got := strings.Join(bob.read, "|"); strings.Contains(got, "[resent] read before") || strings.Contains(got, "[resent] zero") || !strings.Contains(got, "[resent] crossing") {
		t.Errorf("bob read %q", bob.read)
	}
}

// What the contact sent before its restart says nothing about what came after.
func TestAttackCrossedBySignOfLife(t *testing.T) {
	alice, bob := couple(t)
	alice.say("0", "zero")
	carry(alice, bob)
	bob.say("9", "sent before the restart")
	w := bob.take()
	bob.restart()
	alice.later(time.Second)
	alice.say("1", "one")
	for _, v := range w {
		alice.get(v, false)
	}
	carry(alice, bob)
	alice.later(61 * time.Second)
	alice.a.expire()
	carry(alice, bob)
	if got := strings.Join(bob.read, "|"); !strings.Contains(got, "[resent] one") {
		t.Errorf("bob read %q; alice: %q", bob.read, alice.notices[len(alice.notices)-2:])
	}
}

// Another program of the contact's completes an exchange while a message is on its way to the first.
func TestAttackOtherProgramForgets(t *testing.T) {
	alice, bob := couple(t)
	join(t, alice, bob, "desk")
	phone := newPerson(t, keyedState(t, "bob@y"), "bob@y")
	bob.read = nil
	bob.restart()
	alice.later(time.Second)
	alice.say("1", "for the desk")
	w := alice.take()
	alice.later(time.Second)
	join(t, alice, phone, "phone")
	for _, v := range w {
		bob.get(v, false)
	}
	drive(alice, bob, "desk")
	if got := strings.Join(bob.read, "|") + strings.Join(phone.read, "|"); !strings.Contains(got, "[resent] for the desk") {
		t.Errorf("bob read %q and %q; returned %q; alice: %q", bob.read, phone.read, alice.returned, alice.notices[len(alice.notices)-2:])
	}
}

// A paste of many lines into a session the contact has lost.
func TestAttackManyUnread(t *testing.T) {
	for _, n := range []int{16, 20, 40} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			alice, bob := couple(t)
			alice.say("0", "zero")
			carry(alice, bob)
			bob.read = nil
			bob.restart()
			for i := range n {
				alice.say(fmt.Sprint(i), fmt.Sprintf("line %d.", i))
			}
			carry(alice, bob)
			got := strings.Join(bob.read, "|")
			var lost []int
			for i := range n {
				if !strings.Contains(got, fmt.Sprintf("line %d.", i)) {
					lost = append(lost, i)
				}
			}
			if lost != nil {
				t.Errorf("of %d lines %v are lost; alice: %q", n, lost, alice.notices)
			}
		})
	}
}

// The resending finds the only client ending.
func TestAttackResendToEndingClient(t *testing.T) {
	alice, bob := couple(t)
	alice.say("0", "zero")
	carry(alice, bob)
	bob.read = nil
	bob.restart()
	alice.say("1", "one")
	toBob := func() {
		for _, v := range alice.take() {
			if !strings.HasPrefix(v.Body(), "?OTRv") { // alice's own query is slow: she commits, bob does not
				bob.get(v, false)
			}
		}
	}
	toAlice := func() {
		for _, v := range bob.take() {
			alice.get(v, false)
		}
	}
	toBob() // unreadable
	bob.follows()
	toAlice()         // error and query
	toBob()           // D-H Commit
	toAlice()         // D-H Key
	toBob()           // Reveal Signature
	alice.dead = true // her client has closed its stream; what the server still sends is read
	toAlice()         // Signature
	alice.a.Detach(alice)
	alice.dead = false
	alice.a.Attach(alice)
	carry(alice, bob)
	d := alice.a.Conversation("bob@y")
	if got := strings.Join(bob.read, "|"); !strings.Contains(got, "[resent] one") && d.Held == 0 {
		t.Errorf("bob read %q; held %d; returned %q; alice: %q", bob.read, d.Held, alice.returned, alice.notices[len(alice.notices)-1:])
	}
}

// The contact refreshes while a message is on its way, which it reads; what it loses later is another one.
func TestAttackOlderWasRead(t *testing.T) {
	alice, bob := couple(t)
	alice.say("0", "zero")
	carry(alice, bob)
	alice.later(time.Second)
	bob.later(time.Second)
	tick := func() { alice.later(10 * time.Millisecond); bob.later(10 * time.Millisecond) }
	// bob commits: alice's query is answered.
	alice.a.Start(alice, "bob@y")
	toBob := func() {
		for _, v := range alice.take() {
			bob.get(v, false)
		}
		tick()
	}
	toAlice := func() {
		for _, v := range bob.take() {
			alice.get(v, false)
		}
		tick()
	}
	toBob()   // query
	toAlice() // D-H Commit; alice answers with D-H Key
	alice.say("1", "during the refresh")
	tick()
	toBob()
	carry(alice, bob)
	if got := strings.Join(bob.read, "|"); got != "zero|during the refresh" {
		t.Fatalf("bob read %q", got)
	}
	bob.read = nil
	tick()
	bob.restart()
	alice.say("2", "after the restart")
	tick()
	carry(alice, bob)
	if got := strings.Join(bob.read, "|"); strings.Contains(got, "during") || !strings.Contains(got, "[resent] after the restart") {
		t.Errorf("bob read %q; alice: %q", bob.read, alice.notices[len(alice.notices)-2:])
	}
}

// One error that both clients of the account get is one error.
func TestAttackErrorToBareJID(t *testing.T) {
	alice, bob := couple(t)
	second := &person{t: t, a: alice.a, peer: bob, event: make(chan struct{}, 100)}
	alice.a.Attach(second)
	alice.shared, second.shared = true, true
	alice.say("0", "zero")
	carry(alice, bob)
	alice.later(time.Second)
	alice.say("1", "read")
	carry(alice, bob)
	bob.read = nil
	bob.restart()
	alice.later(time.Second)
	alice.say("2", "unread")
	for range 10 {
		for _, v := range alice.take() {
			bob.get(v, false)
		}
		for _, v := range bob.take() {
			alice.get(v, false)
			second.get(v, false) // sent to the bare JID
		}
	}
	for _, x := range bob.read {
		if strings.HasPrefix(x, "[resent] read") || strings.HasPrefix(x, "[resent] zero") {
			t.Errorf("bob read %q", bob.read)
		}
	}
}

// A key that stands twice in the file: Pidgin writes the account's resource with it.
func TestAttackVerifiedKeyListedTwice(t *testing.T) {
	dir := keyedState(t, "alice@x")
	k, _ := testKey("bob@y")
	fp := k.Fingerprint()
	file := "bob@y\talice@x/Home\tprpl-jabber\t" + fp.Hex() + "\t\n" + "bob@y\talice@x/Work\tprpl-jabber\t" + fp.Hex() + "\t\n"
	if err := os.WriteFile(filepath.Join(dir, "accounts", "alice@x", keyring.FingerprintFile), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	alice, bob := newPerson(t, dir, "alice@x"), newPerson(t, keyedState(t, "bob@y"), "bob@y")
	alice.peer, bob.peer = bob, alice
	alice.say("0", "zero")
	carry(alice, bob)
	bob.wantRead("zero")
	alice.verify(t, bob)
	d := alice.a.Conversation("bob@y")
	v := alice.say("1", "to the verified key")
	carry(alice, bob)
	if d.Trust != keyring.Verified || v.Action() != Encrypted {
		t.Errorf("after Verify said ok: trust %s; verdict %v %s; bob read %q; notices %q", d.Trust, v.Action(), v.Cause(), bob.read, alice.notices[len(alice.notices)-1])
	}
}

// The same, of another key that is verified.
func TestAttackOtherVerifiedKeyForgotten(t *testing.T) {
	dir := keyedState(t, "alice@x")
	kb, _ := testKey("bob@y")
	kp, _ := testKey("carol@y")
	fb, fp := kb.Fingerprint(), kp.Fingerprint()
	file := "bob@y\talice@x/Home\tprpl-jabber\t" + fp.Hex() + "\tverified\n" + "bob@y\talice@x/Work\tprpl-jabber\t" + fp.Hex() + "\t\n" + "bob@y\talice@x\tprpl-jabber\t" + fb.Hex() + "\t\n"
	if err := os.WriteFile(filepath.Join(dir, "accounts", "alice@x", keyring.FingerprintFile), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	alice, bob := newPerson(t, dir, "alice@x"), newPerson(t, keyedState(t, "bob@y"), "bob@y")
	alice.peer, bob.peer = bob, alice
	alice.say("0", "zero")
	carry(alice, bob)
	alice.verify(t, bob)
	if tr := alice.a.fps.Trust("bob@y", fp); tr != keyring.Verified {
		t.Errorf("the other verified key is now %s; notices %q", tr, alice.notices[len(alice.notices)-1])
	}
}

// Verifying a key while nothing is private lets the other, unverified keys go too.
func TestAttackVerifyWithoutSession(t *testing.T) {
	alice, bob := couple(t)
	mallory := newPerson(t, keyedState(t, "mallory@y"), "mallory@y")
	join(t, alice, mallory, "r") // was first, by standing in between
	join(t, alice, bob, "r")
	if ok, err := alice.a.Accept("bob@y", alice.a.Conversation("bob@y").Fingerprint); !ok || err != nil {
		t.Fatal(ok, err)
	}
	alice.a.End(alice, "bob@y")
	drive(alice, bob, "r")
	alice.verify(t, bob) // by telephone, with no conversation open
	mallory.read = nil
	alice.say("1", "for bob alone")
	for range 8 {
		drive(alice, mallory, "r")
	}
	if len(mallory.read) > 0 {
		t.Errorf("LEAK: mallory, whom nobody verified, read %q although bob's key is verified; %+v", mallory.read, alice.a.Conversation("bob@y"))
	}
}

// A comparison that another program's arrival ends is told of.
func TestAttackCompareThenOtherProgram(t *testing.T) {
	alice, bob := couple(t)
	phone := newPerson(t, keyedState(t, "bob@y"), "bob@y")
	join(t, alice, bob, "desk")
	if err := alice.a.Compare(alice, "bob@y", nil, "secret"); err != nil {
		t.Fatal(err)
	}
	drive(alice, bob, "desk")
	join(t, alice, phone, "phone")
	if !alice.noticed("was given up, for the conversation goes on with another device") {
		t.Errorf("alice is told %q; trust %s", alice.notices, alice.trust())
	}
}

// An exchange that nobody went on with: what waits is asked for again.
func TestAttackNobodyAsksAgain(t *testing.T) {
	alice, bob := couple(t)
	alice.hold.For = 10 * time.Minute
	bob.a.Start(bob, "alice@x")
	for _, v := range bob.take() {
		alice.get(v, false)
	}
	alice.take() // our commit is lost
	alice.say("1", "x")
	for range 9 {
		alice.later(time.Minute)
		alice.a.expire()
		carry(alice, bob)
	}
	if len(bob.read) == 0 {
		t.Errorf("nine minutes later nobody was asked: held %d", alice.a.Conversation("bob@y").Held)
	}
}

// An error that comes late, when the conversation has been ended, is told of all the same.
func TestAttackLateErrorSilent(t *testing.T) {
	alice, bob := couple(t)
	alice.say("0", "zero")
	carry(alice, bob)
	bob.restart()
	alice.say("1", "one")
	w := alice.take() // slow
	alice.a.End(alice, "bob@y")
	alice.take()
	alice.later(61 * time.Second)
	alice.a.expire()
	alice.notices = nil
	for _, v := range w {
		bob.get(v, false)
	}
	carry(alice, bob)
	if !strings.Contains(strings.Join(bob.read, "|"), "resent") && !alice.noticed("could not read") {
		t.Errorf("bob read %q; alice is told %q", bob.read, alice.notices)
	}
}

// A message that came back to the person as an error is not sent again behind their back.
func TestAttackBouncedAndResent(t *testing.T) {
	alice, bob := couple(t)
	alice.say("0", "zero")
	carry(alice, bob)
	bob.read = nil
	bob.restart()
	alice.later(time.Second)
	alice.say("1", "unread")
	first := alice.take()
	alice.say("2", "bounced") // bob's server returns it
	alice.take()
	if _, elsewhere := alice.a.Returned(alice, "bob@y", "2"); elsewhere {
		t.Error("it came back to whom it should")
	}
	for _, v := range first {
		bob.get(v, false)
	}
	carry(alice, bob)
	if got := strings.Join(bob.read, "|"); strings.Contains(got, "bounced") || !strings.Contains(got, "[resent] unread") {
		t.Errorf("bob read %q", bob.read)
	}
}

// What a second client writes leaves through its own connection, but not within a
// moment of the first's; and what comes back of it comes back to it.
func TestSecondClient(t *testing.T) {
	alice, bob := couple(t)
	alice.say("0", "zero")
	carry(alice, bob)
	second := &person{t: t, a: alice.a, peer: bob, event: make(chan struct{}, 100)}
	alice.a.Attach(second)
	second.say("1", "at once")
	if len(alice.take()) != 1 || len(second.take()) != 0 {
		t.Error("two connections within a moment")
	}
	if _, elsewhere := alice.a.Returned(alice, "bob@y", "1"); !elsewhere || len(second.returned) != 1 || len(alice.returned) != 0 {
		t.Errorf("returned to the first %q, to the second %q", alice.returned, second.returned)
	}
	alice.later(2 * time.Second)
	second.say("2", "later")
	if len(alice.take()) != 0 || len(second.take()) != 1 {
		t.Error("the second client's text left through the first's connection")
	}
}
