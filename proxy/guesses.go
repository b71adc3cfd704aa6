package proxy

import (
	"container/list"
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// Wrong passwords are tried here: of enrolled accounts without the server noticing, of others
// in the name of everybody who comes from here. From the fifth on, tries of an account from
// one host go one by one, with a pause between them. Whoever knows the password waits for a
// turn like all others, and for no more than that: somebody who guesses at the same machine
// slows a person down and does not lock them out.

const (
	freeTries   = 4
	firstWait   = time.Second
	longestWait = 4 * time.Second
	guessMemory = time.Hour // after which wrong tries are forgotten
	maxGuessed  = 10_000    // accounts and hosts that are counted
	maxWrong    = 16        // wrong passwords that are known again, of each
)

// tooManyTries is told to who gets no turn.
const tooManyTries = "Too many wrong passwords were tried here; wait a minute."

// A guessed is an account, as one host tries to get into it.
type guessed struct{ account, host string }

// wrong are the wrong tries of one.
type wrong struct {
	who   guessed
	tries int
	until time.Time // nothing is tried before
	last  time.Time
	sums  [][32]byte // of the wrong passwords last tried
}

// guesses counts wrong tries. Those that slow somebody down stand apart from those that do
// not, each from the oldest to the latest: where there is no room, the others go first.
type guesses struct {
	mu            sync.Mutex
	of            map[guessed]*list.Element // of a *wrong in one of the lists
	harmless, bad *list.List
}

func newGuesses() *guesses {
	return &guesses{of: map[guessed]*list.Element{}, harmless: list.New(), bad: list.New()}
}

// find is what is counted of one; nil for nothing. The caller holds mu.
func (g *guesses) find(who guessed, now time.Time) *wrong {
	e := g.of[who]
	if e == nil {
		return nil
	}
	w := e.Value.(*wrong)
	if now.Sub(w.last) > guessMemory {
		g.forget(e)
		return nil
	}
	return w
}

// forget drops an entry, of whichever list it is.
func (g *guesses) forget(e *list.Element) {
	delete(g.of, e.Value.(*wrong).who)
	g.harmless.Remove(e)
	g.bad.Remove(e)
}

// turn waits until a password may be tried, and reports whether it may: not where it has been
// wrong just before, nor where the turn does not come within patience. Sum is the zero one for
// a proof, of which nobody knows the password.
func (g *guesses) turn(ctx context.Context, who guessed, sum [32]byte, patience time.Duration) bool {
	deadline := time.Now().Add(patience)
	for {
		wait, ok := g.ask(who, sum, time.Now())
		if ok || wait < 0 || time.Now().Add(wait).After(deadline) {
			return ok
		}
		// Of all who wait, anybody may be next.
		t := time.NewTimer(wait + rand.N(firstWait/4))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return false
		}
	}
}

// ask is turn without waiting: how long there is to wait, or never (-1).
func (g *guesses) ask(who guessed, sum [32]byte, now time.Time) (wait time.Duration, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	w := g.find(who, now)
	if w == nil || w.tries < freeTries {
		return 0, true
	}
	for _, s := range w.sums {
		if s == sum && sum != ([32]byte{}) {
			return -1, false
		}
	}
	if wait := w.until.Sub(now); wait > 0 {
		return wait, false
	}
	w.until = now.Add(w.pause())
	return 0, true
}

// pause is the time between two tries.
func (w *wrong) pause() time.Duration {
	return min(firstWait<<min(max(w.tries-freeTries, 0), 8), longestWait)
}

// tried counts a try.
func (g *guesses) tried(who guessed, sum [32]byte, right bool) {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	w := g.find(who, now)
	if w != nil {
		g.forget(g.of[who])
	}
	if right {
		return
	}
	if w == nil {
		w = &wrong{who: who}
	}
	w.tries++
	w.last = now
	w.until = now.Add(w.pause())
	if sum != ([32]byte{}) {
		if len(w.sums) >= maxWrong {
			w.sums = append(w.sums[:0], w.sums[1:]...)
		}
		w.sums = append(w.sums, sum)
	}
	l := g.harmless
	if w.tries >= freeTries {
		l = g.bad
	}
	g.of[who] = l.PushBack(w)
	if len(g.of) > maxGuessed {
		oldest := g.harmless.Front()
		if oldest == nil {
			oldest = g.bad.Front()
		}
		g.forget(oldest)
	}
}

// counted is how many accounts and hosts are.
func (g *guesses) counted() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.of)
}
