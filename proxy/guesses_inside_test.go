package proxy

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func sumOf(i int) [32]byte { return [32]byte{1, byte(i), byte(i >> 8), byte(i >> 16)} }

var guessedAlice = guessed{"alice@example.org", "127.0.0.1"}

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
					if a := g.turn(t.Context(), guessedAlice, sumOf(n<<12+i), 15*time.Second); a != nil {
						looked.Add(1)
						time.Sleep(time.Millisecond) // the server thinks
						a.wrong()
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
		for a := (*try)(nil); a == nil; {
			a = g.turn(t.Context(), guessedAlice, sumOf(99), 15*time.Second)
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
		if a := g.turn(t.Context(), guessedAlice, sumOf(i), 0); a != nil {
			a.wrong()
		}
	}
	if g.turn(t.Context(), guessedAlice, sumOf(99), 0) != nil {
		t.Error("the guesser does not wait")
	}
	for _, who := range []guessed{{guessedAlice.account, "127.0.0.1 user 1000"}, {guessedAlice.account, "192.0.2.1"}, {"bob@example.org", guessedAlice.place}} {
		if g.turn(t.Context(), who, sumOf(99), 0) == nil {
			t.Errorf("%v waits", who)
		}
	}
}

// A right one has the wrong ones forgotten; one that was wrong is not tried again, and one of
// which nothing came counts for nothing.
func TestGuessesEnd(t *testing.T) {
	g := newGuesses()
	for range 50 {
		g.turn(t.Context(), guessedAlice, sumOf(1), 0).over()
	}
	if n := g.counted(); n != 0 {
		t.Errorf("%d are counted", n)
	}
	for i := range freeTries {
		g.turn(t.Context(), guessedAlice, sumOf(i), 0).wrong()
	}
	if a := g.turn(t.Context(), guessedAlice, sumOf(1), time.Hour); a != nil {
		t.Error("a wrong one is tried again")
	}
	a := g.turn(t.Context(), guessedAlice, sumOf(9), time.Minute)
	a.right()
	a.wrong() // it has ended
	for i := range freeTries {
		if g.turn(t.Context(), guessedAlice, sumOf(i), 0) == nil {
			t.Errorf("try %d behind a right one", i)
		}
	}
}

// Other names do not have the wrong tries of an account forgotten, and count themselves
// however many there are.
func TestOtherNamesMakeNoGuessForgotten(t *testing.T) {
	g := newGuesses()
	bad := func(who guessed, n int) {
		for i := range n {
			g.mu.Lock()
			w := g.find(who, time.Now())
			if w == nil {
				w = g.add(who, time.Now())
			}
			w.pending++
			g.mu.Unlock()
			(&try{g: g, who: who, sum: sumOf(i)}).wrong()
		}
	}
	bad(guessedAlice, 8)
	for i := range 3 * maxGuessed {
		bad(guessed{fmt.Sprint("nobody", i), "127.0.0.1"}, 1)
	}
	if w := g.find(guessedAlice, time.Now()); w == nil || w.tries != 8 {
		t.Error("forgotten")
	}
	for i := range maxGuessed { // now all are bad, and it is the oldest
		bad(guessed{fmt.Sprint("nobody", i), "127.0.0.1"}, 4)
	}
	last := guessed{"last@example.org", "127.0.0.1"}
	bad(last, 6)
	if w := g.find(last, time.Now()); w == nil || w.tries != 6 {
		t.Error("the latest one does not count")
	}
	if g.counted() > maxGuessed {
		t.Errorf("%d are counted", g.counted())
	}
}

// Who waited for a turn, and got one because somebody was right meanwhile, waits no longer.
func TestWhoWaitedForATurnWaitsNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuesses()
		for round := range 3 {
			var last *try
			for i := range 4 {
				last = g.turn(t.Context(), guessedAlice, sumOf(round*100+i), 0)
				if i < 3 {
					last.wrong()
				}
			}
			last.wrong()
			// one slow login that is right, and three that wait behind it
			time.Sleep(2 * time.Second)
			slow := g.turn(t.Context(), guessedAlice, sumOf(5000), 0)
			if slow == nil {
				t.Fatal("no turn")
			}
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					if a := g.turn(t.Context(), guessedAlice, sumOf(5000), 15*time.Second); a != nil {
						a.right()
					} else {
						t.Error("refused")
					}
				})
			}
			time.Sleep(10 * time.Millisecond)
			slow.right()
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
			g.turn(t.Context(), guessedAlice, sumOf(9000+i), 0).wrong()
		}
		if g.turn(t.Context(), guessedAlice, sumOf(5000), 15*time.Second) == nil {
			t.Error("the person is refused though nobody else waits")
		}
	})
}
