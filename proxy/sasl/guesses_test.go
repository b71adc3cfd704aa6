package sasl

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func sumOf(i int) [32]byte { return [32]byte{1, byte(i), byte(i >> 8), byte(i >> 16)} }

var guessedAlice = Guessed{"alice@example.org", "127.0.0.1"}

// Tries behind the fourth go one by one with a pause between them, however many come at once;
// who knows the password gets a turn like the others.
func TestGuessesGoOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuesses()
		var looked atomic.Int32
		var wg sync.WaitGroup
		end := time.Now().Add(time.Hour)
		for n := range 100 { // who never stop
			wg.Go(func() {
				for i := 0; time.Now().Before(end); i++ {
					if a := g.Turn(t.Context(), guessedAlice, sumOf(n<<12+i), 15*time.Second); a != nil {
						looked.Add(1)
						time.Sleep(time.Millisecond) // the server thinks
						a.Wrong()
					} else {
						time.Sleep(time.Second)
					}
				}
			})
		}
		wg.Wait()
		if most := int32(time.Hour/longestWait) + 10; looked.Load() > most || looked.Load() < most/2 {
			t.Errorf("%d tries in an hour", looked.Load())
		}
		for a := (*Try)(nil); a == nil; {
			a = g.Turn(t.Context(), guessedAlice, sumOf(99), 15*time.Second)
		}
		time.Sleep(2 * guessMemory)
		if _, ok := g.ask(guessedAlice, sumOf(0), time.Now(), true); !ok {
			t.Error("an hour later somebody still waits")
		}
	})
}

// From another place nobody waits for them.
func TestGuessesElsewhereHoldNobodyUp(t *testing.T) {
	g := newGuesses()
	for i := range 20 {
		if a := g.Turn(t.Context(), guessedAlice, sumOf(i), 0); a != nil {
			a.Wrong()
		}
	}
	if g.Turn(t.Context(), guessedAlice, sumOf(99), 0) != nil {
		t.Error("the guesser does not wait")
	}
	for _, who := range []Guessed{{guessedAlice.Account, "127.0.0.1 user 1000"}, {guessedAlice.Account, "192.0.2.1"}, {"bob@example.org", guessedAlice.Place}} {
		if g.Turn(t.Context(), who, sumOf(99), 0) == nil {
			t.Errorf("%v waits", who)
		}
	}
}

// A right one has the wrong ones forgotten; one that was wrong is not tried again, and one of
// which nothing came counts for nothing.
func TestGuessesEnd(t *testing.T) {
	g := newGuesses()
	for range 50 {
		g.Turn(t.Context(), guessedAlice, sumOf(1), 0).Over()
	}
	if n := g.Counted(); n != 0 {
		t.Errorf("%d are counted", n)
	}
	for i := range freeTries {
		g.Turn(t.Context(), guessedAlice, sumOf(i), 0).Wrong()
	}
	if a := g.Turn(t.Context(), guessedAlice, sumOf(1), time.Hour); a != nil {
		t.Error("a wrong one is tried again")
	}
	a := g.Turn(t.Context(), guessedAlice, sumOf(9), time.Minute)
	a.Right()
	a.Wrong() // it has ended
	for i := range freeTries {
		if g.Turn(t.Context(), guessedAlice, sumOf(i), 0) == nil {
			t.Errorf("try %d behind a right one", i)
		}
	}
}

// Other names do not have the wrong tries of an account forgotten, and count themselves
// however many there are.
func TestOtherNamesMakeNoGuessForgotten(t *testing.T) {
	g := newGuesses()
	bad := func(who Guessed, n int) {
		for i := range n {
			g.mu.Lock()
			w := g.find(who, time.Now())
			if w == nil {
				w = g.add(who, time.Now())
			}
			w.pending++
			g.mu.Unlock()
			(&Try{g: g, who: who, Sum: sumOf(i)}).Wrong()
		}
	}
	bad(guessedAlice, 8)
	for i := range 3 * MaxGuessed {
		bad(Guessed{fmt.Sprint("nobody", i), "127.0.0.1"}, 1)
	}
	if w := g.find(guessedAlice, time.Now()); w == nil || w.tries != 8 {
		t.Error("forgotten")
	}
	for i := range MaxGuessed { // now all are bad, and it is the oldest
		bad(Guessed{fmt.Sprint("nobody", i), "127.0.0.1"}, 4)
	}
	last := Guessed{"last@example.org", "127.0.0.1"}
	bad(last, 6)
	if w := g.find(last, time.Now()); w == nil || w.tries != 6 {
		t.Error("the latest one does not count")
	}
	if g.Counted() > MaxGuessed {
		t.Errorf("%d are counted", g.Counted())
	}
}

// Who waited for a turn, and got one because somebody was right meanwhile, waits no longer.
func TestWhoWaitedForATurnWaitsNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuesses()
		for round := range 3 {
			var last *Try
			for i := range 4 {
				last = g.Turn(t.Context(), guessedAlice, sumOf(round*100+i), 0)
				if i < 3 {
					last.Wrong()
				}
			}
			last.Wrong()
			// one slow login that is right, and three that wait behind it
			time.Sleep(2 * time.Second)
			slow := g.Turn(t.Context(), guessedAlice, sumOf(5000), 0)
			if slow == nil {
				t.Fatal("no turn")
			}
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					if a := g.Turn(t.Context(), guessedAlice, sumOf(5000), 15*time.Second); a != nil {
						a.Right()
					} else {
						t.Error("refused")
					}
				})
			}
			time.Sleep(10 * time.Millisecond)
			slow.Right()
			wg.Wait()
		}
		g.mu.Lock()
		for _, e := range g.of {
			w := e.Value.(*wrong)
			t.Errorf("nobody is there, and waiting %d, pending %d, tries %d", w.waiting, w.pending, w.tries)
		}
		g.mu.Unlock()
		// the person comes, having mistyped four times
		for i := range 4 {
			g.Turn(t.Context(), guessedAlice, sumOf(9000+i), 0).Wrong()
		}
		if g.Turn(t.Context(), guessedAlice, sumOf(5000), 15*time.Second) == nil {
			t.Error("the person is refused though nobody else waits")
		}
	})
}
