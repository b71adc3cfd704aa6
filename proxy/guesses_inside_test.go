package proxy

import (
	"fmt"
	"testing"
	"time"
)

// Tries behind the fourth go one by one, at most one in the pause; a turn that somebody else
// has taken is lost to nobody but for that pause.
func TestGuessesGoOneByOne(t *testing.T) {
	g := newGuesses()
	who, now := guessed{"alice@example.org", "127.0.0.1"}, time.Now()
	for i := range freeTries {
		if _, ok := g.ask(who, [32]byte{byte(i + 1)}, now); !ok {
			t.Fatalf("try %d waits", i)
		}
		g.tried(who, [32]byte{byte(i + 1)}, false)
	}
	looked := 0
	for at := time.Duration(0); at < time.Hour; at += 100 * time.Millisecond { // somebody who never stops
		sum := [32]byte{9, byte(looked), byte(looked >> 8)}
		if _, ok := g.ask(who, sum, time.Now().Add(at)); ok {
			looked++
			g.mu.Lock()
			w := g.find(who, time.Now())
			w.tries++
			w.until = time.Now().Add(at).Add(w.pause())
			w.last = time.Now().Add(at)
			g.mu.Unlock()
		}
	}
	if most := int(time.Hour/longestWait) + 5; looked > most || looked < most/2 {
		t.Errorf("%d tries in an hour", looked)
	}
	if _, ok := g.ask(who, [32]byte{1}, time.Now().Add(2*time.Hour)); !ok {
		t.Error("an hour later somebody still waits")
	}
}

// Other names do not have the wrong tries of an account forgotten.
func TestOtherNamesMakeNoGuessForgotten(t *testing.T) {
	g := newGuesses()
	alice := guessed{"alice@example.org", "127.0.0.1"}
	for i := range 8 {
		g.tried(alice, [32]byte{byte(i + 1)}, false)
	}
	for i := range 3 * maxGuessed {
		g.tried(guessed{fmt.Sprint("nobody", i), "127.0.0.1"}, [32]byte{1}, false)
	}
	if w := g.find(alice, time.Now()); w == nil || w.tries != 8 {
		t.Error("forgotten")
	}
	if g.counted() > maxGuessed {
		t.Errorf("%d are counted", g.counted())
	}
}
