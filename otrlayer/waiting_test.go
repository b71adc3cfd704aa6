package otrlayer

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// What is written to a contact who is offline waits for a day, and the line says so; from when
// they come they have hold.for to answer, and what waits goes as soon as they do.
func TestOfflineContactsAreWaitedFor(t *testing.T) {
	alice, bob := couple(t)
	alice.sees = true
	alice.hold = Hold{Messages: 10, Bytes: 1 << 20, For: 10 * time.Minute, Offline: 24 * time.Hour}
	alice.say("1", "for tomorrow")
	if !alice.noticed("bob@y is not online. It is sent as soon as they come; if they do not within 24 hours") {
		t.Errorf("%q", alice.notices)
	}
	alice.take()
	alice.later(23 * time.Hour)
	alice.a.expire()
	if len(alice.returned) > 0 {
		t.Fatalf("returned %q", alice.returned)
	}
	alice.a.Presence(alice, "bob@y/r", "bob@y", true, "", 0)
	if n := alice.queries(); n != 1 {
		t.Errorf("%d queries when bob comes", n)
	}
	alice.later(9 * time.Minute)
	alice.a.expire()
	if len(alice.returned) > 0 {
		t.Errorf("returned %q though bob has just come", alice.returned)
	}
	alice.a.Start(alice, "bob@y")
	carry(alice, bob)
	if got := strings.Join(bob.read, "|"); got != "for tomorrow" {
		t.Errorf("bob read %q", got)
	}
	if alice.told("Sent: the message that waited.") != 1 {
		t.Errorf("%q", alice.notices)
	}
}

// A contact who is there and does not answer with OTR has hold.for, one of whom nothing is known
// as well; who goes away meanwhile is waited for.
func TestPresentContactsAreWaitedForShortly(t *testing.T) {
	for name, c := range map[string]struct {
		sees bool
		come []bool // what bob's presence says then
		want time.Duration
	}{
		"there":          {true, []bool{true}, 10 * time.Minute},
		"nothing known":  {false, nil, 10 * time.Minute},
		"away":           {true, nil, 24 * time.Hour},
		"goes away":      {true, []bool{true, false}, 24 * time.Hour},
		"comes back":     {true, []bool{true, false, true}, 10 * time.Minute},
		"another stays":  {true, []bool{true, true, false}, 10 * time.Minute},
		"others have it": {false, []bool{true}, 10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			alice, _ := couple(t)
			alice.sees = c.sees
			alice.hold = Hold{Messages: 10, Bytes: 1 << 20, For: 10 * time.Minute, Offline: 24 * time.Hour}
			at := []string{"bob@y/a", "bob@y/a", "bob@y/a"}
			if name == "another stays" {
				at[1] = "bob@y/b"
			}
			if len(c.come) > 0 { // before anything is written
				alice.a.Presence(alice, at[0], "bob@y", c.come[0], "", 0)
			}
			alice.say("1", "waits")
			if len(c.come) > 1 {
				for i, there := range c.come[1:] {
					alice.a.Presence(alice, at[i+1], "bob@y", there, "", 0)
				}
			}
			alice.later(c.want - time.Second)
			alice.a.expire()
			if len(alice.returned) > 0 {
				t.Errorf("returned before its time")
			}
			alice.later(2 * time.Second)
			alice.a.expire()
			if len(alice.returned) != 1 || alice.told(`Not sent: "waits". Why: bob@y did not answer with OTR`) != 1 {
				t.Errorf("returned %q, told %q", alice.returned, alice.notices)
			}
		})
	}
}

// An exchange that nobody goes on with is begun again by itself, as long as something waits,
// and not at once each time.
func TestFailedExchangesAreBegunAgain(t *testing.T) {
	alice, bob := couple(t)
	alice.hold.For, alice.hold.Offline = time.Hour, time.Hour
	alice.say("1", "waits")
	for _, v := range alice.take() {
		bob.get(v, false)
	}
	for _, v := range bob.take() { // bob's commit
		alice.get(v, false)
	}
	alice.take() // our key is lost on the way
	if n := alice.queries(); n != 0 {
		t.Fatalf("%d queries at once", n)
	}
	for range 4 {
		alice.later(5 * time.Second)
		alice.a.expire()
	}
	carry(alice, bob)
	bob.wantRead("waits")
	if alice.told("Sent: the message that waited.") != 1 {
		t.Errorf("%q", alice.notices)
	}
}

// Who is asked and does not answer is asked less and less often, however often they come.
func TestAskingBacksOff(t *testing.T) {
	alice, _ := couple(t)
	alice.hold.For = time.Hour
	alice.say("1", "waits")
	alice.take()
	asked := 0
	for range 60 {
		alice.a.Presence(alice, "bob@y/r", "bob@y", false, "", 0)
		alice.later(30 * time.Second)
		alice.a.Presence(alice, "bob@y/r", "bob@y", true, "", 0)
		alice.a.expire()
		asked += alice.queries()
	}
	if asked < 5 || asked > 12 {
		t.Errorf("asked %d times in half an hour", asked)
	}
}

// What was said to wait for a day does, though the client reconnects.
func TestReconnectingKeepsTheDay(t *testing.T) {
	alice, _ := couple(t)
	alice.sees = true
	alice.hold = Hold{Messages: 10, Bytes: 1 << 20, For: 10 * time.Minute, Offline: 24 * time.Hour}
	alice.say("1", "for tomorrow")
	alice.a.Detach(alice)
	alice.later(time.Hour)
	alice.sees = false // no presence sent yet, or a roster that the client has by version
	alice.a.Attach(alice)
	alice.a.Presence(alice, "bob@y/r", "bob@y", false, "", 0)
	alice.later(6 * time.Minute)
	alice.a.expire()
	alice.later(6 * time.Minute)
	alice.a.expire()
	if len(alice.returned) > 0 {
		t.Errorf("returned %q; told %q", alice.returned, alice.notices)
	}
}

// That holds while the contact goes on writing.
func TestFailedExchangesAreBegunAgainThoughTheContactWrites(t *testing.T) {
	for _, writes := range []bool{false, true} {
		alice, bob := couple(t)
		alice.hold.For, alice.hold.Offline = time.Hour, time.Hour
		alice.say("1", "waits")
		for _, v := range alice.take() {
			bob.get(v, false)
		}
		for _, v := range bob.take() { // bob's commit
			alice.get(v, false)
		}
		alice.take() // our key is lost on the way
		asked := 0
		for range 60 {
			alice.later(4 * time.Second)
			alice.a.expire()
			if writes {
				alice.a.Receive(alice, Incoming{From: "bob@y/r", Contact: "bob@y", Text: "are you there?", Welcome: true})
			}
			asked += alice.queries()
		}
		if asked == 0 {
			t.Errorf("bob writes: %v; not asked again in four minutes", writes)
		}
	}
}

// Presence, which the server can invent, fills no memory.
func TestPresenceFillsNoMemory(t *testing.T) {
	alice, _ := couple(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	res := strings.Repeat("r", 1000)
	for i := range maxThere {
		for j := range maxEachOne {
			contact := fmt.Sprintf("c%d@y", i)
			alice.a.Presence(alice, fmt.Sprintf("%s/%d%s", contact, j, res), contact, true, "", 0)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) >> 20; n > 64 {
		t.Errorf("presence of strangers keeps %d MB in one account", n)
	}
	runtime.KeepAlive(alice)
}
