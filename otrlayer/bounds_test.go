package otrlayer

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"otrproxy/otrlayer/keyring"
)

// Who is on the list of contacts, and what they send, is up to the server. These tests say
// what a server that lies about it can cost.

// counted has an account count how often its settings are asked for, as is done for each
// conversation that is worked on.
func counted(p *person) *int {
	n, settings := new(int), p.a.settings
	p.a.settings = func() Settings {
		*n++
		return settings()
	}
	return n
}

func invented(i int) string { return fmt.Sprintf("contact%d@x", i) }

// sends has an invented contact send a text.
func (p *person) sends(i int, text string, welcome bool) Reading {
	return p.a.Receive(p, Incoming{From: invented(i) + "/r", Contact: invented(i), Text: text, Welcome: welcome})
}

// queries are the requests for a private conversation among what waits on the wire.
func (p *person) queries() (n int) {
	for _, v := range p.take() {
		if strings.HasPrefix(v.Body(), "?OTRv") {
			n++
		}
	}
	return n
}

func (p *person) told(part string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.notices {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

const beginning = "?OTR|00000101|00000000,1,2,AAAA," // of a message in pieces

// A text in clear, and a damaged message, leave no conversation behind.
func TestTextsOfOthersLeaveNothing(t *testing.T) {
	alice := newPerson(t, keyedState(t, "alice@x"), "alice@x")
	for i := range 3000 {
		alice.sends(i, "x", true)
		alice.sends(i, "?OTR:AAQD!.", true)
		alice.sends(i, beginning, false)
	}
	if k := alice.a.Kept(); k.Conversations != 0 || k.PieceBytes != 0 {
		t.Errorf("kept: %+v", k)
	}
}

// Ending a session, beginning one, what the server has got and what is due work on the
// conversations with something to do, however many others there are.
func TestIdleConversationsAreNeverVisited(t *testing.T) {
	alice := newPerson(t, keyedState(t, "alice@x"), "alice@x")
	alice.policy, alice.hold.For = Manual, time.Hour
	for i := range 500 { // of the person's own
		alice.a.Send(alice, Message{Contact: invented(i), To: invented(i), Text: "x"}, Rule{Policy: alice.policy})
	}
	for i := range 500 { // and of others
		alice.sends(1000+i, beginning, true)
	}
	alice.policy = Require
	alice.a.Send(alice, Message{Contact: "bob@y", To: "bob@y", ID: "1", Text: "waits"}, Rule{Policy: alice.policy})
	if k := alice.a.Kept(); k.Written != 501 || k.Conversations != 500 || k.Held != 1 {
		t.Fatalf("%+v", k)
	}
	other := &person{t: t, events: alice.events, event: make(chan struct{}, 1)}
	n := counted(alice)
	steps := []struct {
		name string
		do   func()
	}{
		{"a session begins", func() { alice.a.Attach(other) }},
		{"the server has got everything", func() { alice.a.Acknowledged(alice) }},
		{"a session ends", func() { alice.a.Detach(other) }},
		{"something is due", func() {
			alice.a.mu.Lock()
			c := alice.a.convs["bob@y"]
			c.retry = alice.a.now().Add(time.Second)
			c.settle(alice.a.now())
			alice.a.mu.Unlock()
			alice.later(2 * time.Second)
			alice.a.expire()
		}},
	}
	for _, step := range steps {
		*n = 0
		step.do()
		if *n > 30 {
			t.Errorf("%s: the settings are asked for %d times", step.name, *n)
		}
	}
	alice.later(2 * time.Minute)
	alice.a.expire()
	if k := alice.a.Kept(); k.Conversations != 0 || k.PieceBytes != 0 || k.Written != 501 {
		t.Errorf("when nothing is left of the others: %+v", k)
	}
}

// A table that others have filled has room for those the person writes to, and they stay.
func TestServerNeverPushesOutThePersonsContacts(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "private")
	carry(alice, bob)
	alice.hold.For = time.Hour
	for i := range MaxConversations + 500 {
		if i == MaxConversations {
			alice.sends(7, beginning, true) // is not idle
		}
		alice.sends(i, beginning, true)
	}
	if k := alice.a.Kept(); k.Conversations != MaxConversations {
		t.Fatalf("%+v", k)
	}
	if alice.a.convs[invented(0)] != nil || alice.a.convs[invented(7)] == nil || alice.a.convs[invented(MaxConversations)] == nil {
		t.Error("not the longest idle have gone")
	}
	if v := alice.a.Send(alice, Message{Contact: "carol@z", To: "carol@z", ID: "2", Text: "hello"}, Rule{Policy: alice.policy}); v.Action() != Held {
		t.Errorf("a new contact of the person's: %v %v", v.Action(), v.Cause())
	}
	for i := range 500 {
		alice.sends(20_000+i, beginning, true)
	}
	if d := alice.a.Conversation("carol@z"); d.Held != 1 {
		t.Errorf("%+v", d)
	}
	if v := alice.say("3", "still private"); v.Action() != Encrypted {
		t.Error(v.Action())
	}
}

// What is kept of texts has a bound, for one contact and for all.
func TestTextsKeptAreBounded(t *testing.T) {
	alice, bob := couple(t)
	alice.say("0", "hello")
	carry(alice, bob)
	carry(alice, bob)
	big := strings.Repeat("x", 180<<10)
	for i := range 20 {
		bob.say(fmt.Sprint(i), big)
		carry(alice, bob)
		if k := alice.a.Kept(); k.TextBytes > maxContactTexts {
			t.Fatalf("read: %+v", k)
		}
		if k := bob.a.Kept(); k.TextBytes > maxContactTexts {
			t.Fatalf("sent: %+v", k)
		}
	}
	if n := alice.a.Kept().Texts; n < 4 {
		t.Errorf("no more than %d are kept", n)
	}
	alice.later(2 * time.Minute)
	alice.a.expire()
	if k := alice.a.Kept(); k.Texts != 0 || k.TextBytes != 0 {
		t.Errorf("after its time: %+v", k)
	}
	// Of all contacts the oldest go.
	for i := range 100 {
		c := alice.a.conv(invented(i))
		c.wrote = true
		for range 10 {
			m := &Message{Text: big, since: alice.a.now()}
			c.recent = append(c.recent, m)
			c.keep(keptText{sent: m, size: len(m.Text)})
		}
		c.settle(alice.a.now())
	}
	k := alice.a.Kept()
	if k.TextBytes > MaxTextBytes || k.TextBytes < MaxTextBytes/2 {
		t.Errorf("of all: %+v", k)
	}
	if first := alice.a.convs[invented(0)].recent[9]; !first.forgotten {
		t.Error("the oldest is kept")
	}
	if last := alice.a.convs[invented(99)].recent[9]; last.forgotten {
		t.Error("the newest is not kept")
	}
}

// A text that was not kept, and that the contact could not read, comes back with a line.
func TestForgottenTextIsNeverLostSilently(t *testing.T) {
	alice, bob := couple(t)
	alice.say("0", "hello")
	carry(alice, bob)
	for i := range 8 {
		alice.say(fmt.Sprint(i+1), strings.Repeat("x", 180<<10))
	}
	alice.take() // bob's program has lost its session
	for range 8 {
		alice.a.Receive(alice, Incoming{From: "bob@y/r", Contact: "bob@y", Text: "?OTR Error: what?", Welcome: true})
	}
	bob.restart()
	bob.read = nil
	carry(alice, bob)
	for _, id := range []string{"1", "2", "3"} {
		if !slices.Contains(alice.returned, id+" unread") {
			t.Errorf("%s is neither kept nor given back: %q", id, alice.returned)
		}
	}
	if n := len(bob.read) + len(alice.returned); n != 8 {
		t.Errorf("of 8 messages bob reads %d, and %q come back", len(bob.read), alice.returned)
	}
	if alice.told("not kept any more") != 1 {
		t.Errorf("told: %q", alice.notices)
	}
}

// A client whose copy comes after the text was forgotten is told that there was a message.
func TestForgottenCopyIsNeverDroppedSilently(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "hello")
	carry(alice, bob)
	other := newPerson(t, keyedState(t, "carol@z"), "carol@z") // stands for another client
	bob.say("2", "to both")
	m := Incoming{From: "bob@y/r", Contact: "bob@y", Text: bob.take()[0].Body(), Welcome: true}
	alice.a.Receive(alice, m)
	for i := range 8 {
		bob.say(fmt.Sprint(i+3), strings.Repeat("x", 180<<10))
		carry(alice, bob)
	}
	if r := alice.a.Receive(other, m); !r.Unreadable {
		t.Errorf("%+v", r)
	}
	if r := alice.a.Receive(other, m); r.Deliver {
		t.Errorf("a second time: %+v", r)
	}
	if r := alice.a.Receive(alice, m); r.Deliver {
		t.Errorf("to the client that has read it: %+v", r)
	}
}

// Strangers are told of once for each cause, and no more than some of them in an hour.
func TestStrangersNeverFloodWithLines(t *testing.T) {
	alice := newPerson(t, keyedState(t, "alice@x"), "alice@x")
	for range 500 {
		alice.sends(0, "?OTRv3?", false)
	}
	if n := alice.told("contact0@x, who is not among your contacts"); n != 1 {
		t.Errorf("%d lines for one stranger's queries", n)
	}
	read := 0
	for range 20 {
		alice.sends(0, "?OTR:AAQDAAAA.", false)
		if alice.sends(0, "?OTR:AAMDAAABAQAAAQEAAAAAAQAAAAEAAAAAAAAAAAAAAAEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=.", false).Deliver {
			read++
		}
	}
	if n := alice.told("cannot be read: it is of an OTR version"); n != 1 || read > 1 {
		t.Errorf("%d lines for damaged messages, %d for unreadable ones", n, read)
	}
	alice.notices = nil
	for i := range 500 {
		alice.sends(i, "?OTRv3?", false)
		alice.sends(1000+i, "?OTRv4?", true) // on the list of contacts by the server's word
	}
	if n := len(alice.notices); n > maxStrangers+1 || alice.told("Many people") != 1 {
		t.Errorf("%d lines for 1000 people: %q", n, alice.notices[max(0, n-2):])
	}
	if k := alice.a.Kept(); k.Suppressed < 900 {
		t.Errorf("%d lines were not told, it says", k.Suppressed)
	}
	alice.later(61 * time.Minute)
	alice.notices = nil
	if alice.sends(7, "?OTRv3?", false); len(alice.notices) != 1 {
		t.Errorf("an hour later: %q", alice.notices)
	}
}

// The same line about a contact is not repeated without end, and comes again later.
func TestContactNeverRepeatsALineWithoutEnd(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "hello")
	carry(alice, bob)
	for _, m := range []Incoming{
		{Text: "?OTRv3?", Delayed: true},
		{Text: "?OTRv4?"},
		{Text: "?OTR:AAQDAAAA."},
	} {
		m.From, m.Contact, m.Welcome = "bob@y/r", "bob@y", true
		for _, hour := range []string{"now", "later"} {
			alice.notices = nil
			for range 100 {
				alice.a.Receive(alice, m)
			}
			if len(alice.notices) != 1 {
				t.Errorf("%+v, %s: %d lines", m, hour, len(alice.notices))
			}
			alice.later(time.Hour)
		}
	}
}

// A private conversation of which too many others kept us from telling is told of when the
// person writes to the contact.
func TestUntoldConversationIsToldBeforeWriting(t *testing.T) {
	alice, bob := couple(t)
	for i := range 40 {
		alice.sends(i, "?OTRv4?", true)
	}
	bob.a.Start(bob, "alice@x")
	carry(alice, bob)
	if alice.told("Private conversation with bob@y") != 0 {
		t.Fatal(alice.notices)
	}
	alice.say("1", "hello")
	alice.say("2", "again")
	if n := alice.told("Private conversation with bob@y"); n != 1 {
		t.Errorf("told %d times: %q", n, alice.notices)
	}
}

// However many resources come, a contact is asked once and again, and the next time when
// that may be, by the timer.
func TestPresenceNeverFloodsWithQueries(t *testing.T) {
	alice, _ := couple(t)
	alice.hold.For = time.Hour
	alice.say("1", "waits")
	alice.take()
	for i := range 300 {
		alice.a.Presence(alice, fmt.Sprintf("bob@y/r%d", i), "bob@y", true, "", 0)
	}
	if n := alice.queries(); n != 1 {
		t.Errorf("300 resources: %d queries at once", n)
	}
	alice.later(askInterval + time.Millisecond)
	alice.a.expire()
	if n := alice.queries(); n != 0 {
		t.Errorf("%d queries after the first pause: with each that is not answered it doubles", n)
	}
	alice.later(askInterval)
	alice.a.expire()
	if n := alice.queries(); n != 1 {
		t.Errorf("%d queries after the pause", n)
	}
	if k := alice.a.Kept(); k.Delayed == 0 {
		t.Errorf("%+v", k)
	}
}

// Of many contacts that are to be asked at once, some are asked a little later, and all are.
func TestQueriesToManyAreSpreadAndNoneIsLost(t *testing.T) {
	alice := newPerson(t, keyedState(t, "alice@x"), "alice@x")
	alice.hold.For = time.Hour
	for i := range 200 {
		alice.a.Send(alice, Message{Contact: invented(i), To: invented(i), ID: "1", Text: "x"}, Rule{Policy: alice.policy})
	}
	n := alice.queries()
	if n != asksAtOnce {
		t.Errorf("%d queries at once", n)
	}
	for range 60 {
		alice.later(time.Second)
		alice.a.expire()
		more := alice.queries()
		if more > 2*asksSecond {
			t.Errorf("%d queries in a second", more)
		}
		n += more
	}
	if n != 200 {
		t.Errorf("%d of 200 contacts were asked", n)
	}
}

// Others cannot make us work without end, nor take an answer from a contact of the person's.
func TestServerNeverBurnsTheProcessor(t *testing.T) {
	alice, bob := couple(t)
	commits := func() (n int) {
		for _, v := range alice.take() {
			if strings.HasPrefix(v.Body(), "?OTR:AAMC") {
				n++
			}
		}
		return n
	}
	alice.later(0) // the clock stands still
	alice.say("1", "waits")
	alice.take()
	for i := range 2000 {
		alice.sends(i, "?OTRv3?", true)
	}
	if n := commits(); n > answerPaces[others].burst {
		t.Errorf("%d exchanges begun with 2000 invented contacts", n)
	}
	bob.a.Start(bob, "alice@x")
	for _, v := range bob.take() {
		alice.get(v, false)
	}
	if n := commits(); n != 1 {
		t.Errorf("%d exchanges begun with a contact the person has written to", n)
	}
	if k := alice.a.Kept(); k.Refused < 1900 {
		t.Errorf("%+v", k)
	}
	// Nor does one contact of the person's take it from another.
	alice.a.Send(alice, Message{Contact: invented(0), To: invented(0), ID: "2", Text: "waits"}, Rule{Policy: alice.policy})
	alice.take()
	for range 2 * answerPaces[written].burst {
		alice.sends(0, "?OTRv3?", true)
	}
	alice.take()
	bob.a.Start(bob, "alice@x")
	for _, v := range bob.take() {
		alice.get(v, false)
	}
	if n := commits(); n != 1 {
		t.Errorf("%d exchanges begun with one contact while another one floods", n)
	}
}

// An old ciphertext is known again however it is written, and nobody is told that it could
// not be read.
func TestReplayNeverShownNorComplainedOf(t *testing.T) {
	alice, bob := couple(t)
	alice.say("0", "hello")
	carry(alice, bob)
	bob.say("1", "the one")
	one := bob.take()[0].Body()
	receive := func(text string) Reading {
		return alice.a.Receive(alice, Incoming{From: "bob@y/r", Contact: "bob@y", Text: text, Welcome: true})
	}
	if r := receive(one); r.Text != "the one" {
		t.Fatalf("%+v", r)
	}
	body := strings.TrimSuffix(strings.TrimPrefix(one, "?OTR:"), ".")
	again := map[string]string{
		"as it was":          one,
		"with a line end":    "?OTR:" + body[:40] + "\n" + body[40:] + ".",
		"in its head":        "?OTR:" + body[:6] + "\n" + body[6:] + ".",
		"without padding":    "?OTR:" + strings.TrimRight(body, "=") + ".",
		"with text behind":   one + " x",
		"in pieces, respelt": "?OTR|" + hex8(bob.a.tag) + "|" + hex8(alice.a.tag) + ",1,1," + one[:30] + "\r\n" + one[30:] + ",",
	}
	check := func(when string) {
		for name, text := range again {
			if r := receive(text); r.Deliver {
				t.Errorf("%s, %s: %+v", when, name, r)
			}
			if w := alice.take(); len(w) > 0 {
				t.Errorf("%s, %s: answered with %q", when, name, w[0].Body())
			}
		}
	}
	check("at once")
	for i := range 4 { // keys move on
		alice.say(fmt.Sprint(i), "more")
		carry(alice, bob)
		bob.say(fmt.Sprint(i), "more")
		carry(alice, bob)
	}
	check("with other keys")
}

// The first time a query comes back the person is told, and not again as long as it waits.
func TestBouncedQueryIsToldOnce(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "waits")
	for range 5 {
		alice.a.Bounced("bob@y", false)
		alice.later(16 * time.Second)
		alice.hold.For = time.Hour
		alice.a.expire()
	}
	if n := alice.told("cannot be reached now"); n != 1 {
		t.Errorf("told %d times: %q", n, alice.notices)
	}
	alice.say("2", "waits again")
	carry(alice, bob)
	alice.a.Bounced("bob@y", false) // of something else: nothing waits
	if n := alice.told("cannot be reached now"); n != 1 {
		t.Errorf("told %d times", n)
	}
}

// to sends a text addressed to a resource, or to the bare JID.
func (p *person) to(jid, id string) Verdict {
	return p.a.Send(p, Message{Contact: "bob@y", To: jid, ID: id, Type: "chat", Text: id}, Rule{Policy: p.policy})
}

// sentTo takes where data messages went.
func (p *person) sentTo() (to []string) {
	for _, v := range p.take() {
		if v.Action() == Encrypted {
			to = append(to, v.To())
		}
	}
	return to
}

// A message for the bare JID does not go to a resource with a negative priority, one for
// that resource does, and it is used again when its priority allows it.
func TestNegativePriorityIsPassedBy(t *testing.T) {
	alice, bob := couple(t)
	join(t, alice, bob, "desk")
	alice.take()
	alice.a.Presence(alice, "bob@y/desk", "bob@y", true, "", -1)
	if v := alice.to("bob@y", "bare"); v.Action() != Held {
		t.Errorf("%v", v.Action())
	}
	if n := alice.queries(); n != 1 {
		t.Errorf("%d queries", n)
	}
	if v := alice.to("bob@y/desk", "full"); v.Action() != Encrypted {
		t.Errorf("%v", v.Action())
	}
	if got := alice.sentTo(); !slices.Equal(got, []string{"bob@y/desk"}) {
		t.Errorf("went to %q", got)
	}
	alice.a.Presence(alice, "bob@y/desk", "bob@y", true, "", 5)
	if got := alice.sentTo(); !slices.Equal(got, []string{"bob@y/desk"}) {
		t.Errorf("what waited went to %q", got)
	}
	if v := alice.to("bob@y", "bare again"); v.Action() != Encrypted {
		t.Errorf("%v", v.Action())
	}
}

// Another session is chosen, of at least the same trust, and left again.
func TestNegativePriorityChoosesAnew(t *testing.T) {
	for _, sure := range []bool{false, true} {
		t.Run(fmt.Sprintf("verified=%v", sure), func(t *testing.T) {
			alice, bob := couple(t)
			phone := newPerson(t, keyedState(t, "mallory@y"), "mallory@y") // another key
			join(t, alice, phone, "phone")
			join(t, alice, bob, "desk")
			if ok, err := alice.a.Accept("bob@y", alice.a.Conversation("bob@y").Fingerprint); !ok || err != nil {
				t.Fatal(ok, err)
			}
			if sure {
				alice.verify(t, bob)
			}
			alice.take()
			alice.a.Presence(alice, "bob@y/desk", "bob@y", true, "", -1)
			v := alice.to("bob@y", "bare")
			if sure {
				if v.Action() != Held || len(alice.sentTo()) != 0 {
					t.Errorf("what was for a verified key: %v", v.Action())
				}
				return
			}
			if got := alice.sentTo(); v.Action() != Encrypted || !slices.Equal(got, []string{"bob@y/phone"}) {
				t.Errorf("%v, to %q", v.Action(), got)
			}
			alice.a.Presence(alice, "bob@y/desk", "bob@y", true, "", 0)
			alice.to("bob@y", "back")
			if got := alice.sentTo(); !slices.Equal(got, []string{"bob@y/desk"}) {
				t.Errorf("back: %q", got)
			}
		})
	}
}

// watched is a source of chance that sees whether somebody else uses it.
type watched struct {
	t  *testing.T
	mu sync.Mutex
}

func (w *watched) Read(b []byte) (int, error) {
	if !w.mu.TryLock() {
		w.t.Error("another account makes a key at the same time")
		return rand.Read(b)
	}
	defer w.mu.Unlock()
	return rand.Read(b)
}

// A maker makes one key at a time.
func TestKeysAreMadeOneAtATime(t *testing.T) {
	var accounts []*Account
	maker := keyring.NewMaker("", nil, nil)
	maker.Random = &watched{t: t}
	for i := range 3 {
		a, err := Open(t.TempDir(), fmt.Sprintf("alice%d@x", i), func() Settings { return Settings{} }, &noEvents{}, nil, maker)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(a.Close)
		a.Prepare()
		accounts = append(accounts, a)
	}
	for _, a := range accounts {
		<-a.Ready()
		if _, ok := a.Fingerprint(); !ok {
			t.Error("no key")
		}
	}
}
