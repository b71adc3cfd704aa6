package sasl

import (
	"container/list"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Wrong passwords are tried here: of enrolled accounts without the server noticing, of others
// in the name of everybody who comes from here. Four tries of an account are free for whoever
// comes from one place: a machine, and on this one a user. Further ones have to wait for a
// turn, with a pause between two, and anybody who waits may be next. So who guesses somewhere
// else holds nobody up, and who guesses at the same place slows them down.

// Bounds of guessing.
const (
	freeTries   = 4
	firstWait   = time.Second
	longestWait = 4 * time.Second
	guessMemory = time.Hour // after which wrong tries are forgotten
	MaxGuessed  = 10_000    // accounts and places that are counted
	maxWrong    = 16        // wrong passwords that are known again, of each
	maxWaiting  = 8         // who wait for a turn, of each
)

// TooManyTries is told to who gets no turn.
const TooManyTries = "Too many wrong passwords were tried here; wait a minute."

// A Guessed is an account, as it is tried from one place.
type Guessed struct{ Account, Place string }

// wrong are the wrong tries of one.
type wrong struct {
	who     Guessed
	tries   int
	pending int       // tries of which it is not known yet
	waiting int       // who wait for a turn
	until   time.Time // nothing is tried before
	last    time.Time
	sums    [][32]byte // of the wrong passwords last tried
}

// Guesses counts wrong tries. Those that slow somebody down stand apart from those that do
// not, each from the oldest to the latest: where there is no room, the others go first.
type Guesses struct {
	mu            sync.Mutex
	of            map[Guessed]*list.Element // of a *wrong in one of the lists
	harmless, bad *list.List
}

func newGuesses() *Guesses {
	return &Guesses{of: map[Guessed]*list.Element{}, harmless: list.New(), bad: list.New()}
}

// A Try is one that is under way. It ends once: as wrong, right or neither.
type Try struct {
	g    *Guesses
	who  Guessed
	Sum  [32]byte
	once sync.Once
}

// Turn waits until a password may be tried; nil where it was wrong just before, or the turn
// does not come within patience. Sum is the zero one where nobody knows the password.
func (g *Guesses) Turn(ctx context.Context, who Guessed, sum [32]byte, patience time.Duration) *Try {
	deadline := time.Now().Add(patience)
	for first := true; ; first = false {
		wait, ok := g.ask(who, sum, time.Now(), first)
		switch {
		case ok:
			return &Try{g: g, who: who, Sum: sum}
		case wait < 0:
			if !first {
				g.leave(who)
			}
			return nil
		case time.Now().Add(wait).After(deadline):
			g.leave(who)
			return nil
		}
		t := time.NewTimer(wait + rand.N(firstWait/4)) // of all who wait, anybody may be next
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			g.leave(who)
			return nil
		}
	}
}

// ask is turn without waiting: how long there is to wait, or never (-1). Who waits is counted,
// from the first time on.
func (g *Guesses) ask(who Guessed, sum [32]byte, now time.Time, first bool) (wait time.Duration, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	w := g.find(who, now)
	if w == nil {
		w = g.add(who, now)
	}
	if w.tries+w.pending < freeTries {
		w.goes(first)
		w.pending++
		return 0, true
	}
	if sum != ([32]byte{}) && slices.Contains(w.sums, sum) {
		return -1, false
	}
	if wait := w.until.Sub(now); wait > 0 {
		if first {
			if w.waiting >= maxWaiting {
				return -1, false
			}
			w.waiting++
		}
		return wait, false
	}
	w.goes(first)
	w.pending++
	w.until = now.Add(w.pause())
	return 0, true
}

// leave is for who does not wait any longer.
func (g *Guesses) leave(who Guessed) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w := g.find(who, time.Now()); w != nil {
		w.goes(false)
	}
}

// goes is for who waits no longer; who comes for the first time has not waited.
func (w *wrong) goes(first bool) {
	if !first {
		w.waiting = max(0, w.waiting-1)
	}
}

// pause is the time between two tries.
func (w *wrong) pause() time.Duration {
	return min(firstWait<<min(max(w.tries-freeTries, 0), 8), longestWait)
}

// Wrong counts the try.
func (t *Try) Wrong() {
	t.end(func(w *wrong, now time.Time) {
		w.tries++
		w.until = now.Add(w.pause())
		if t.Sum != ([32]byte{}) {
			if len(w.sums) >= maxWrong {
				w.sums = slices.Delete(w.sums, 0, 1)
			}
			w.sums = append(w.sums, t.Sum)
		}
	})
}

// Right has the wrong ones before it forgotten.
func (t *Try) Right() {
	t.end(func(w *wrong, _ time.Time) { w.tries, w.sums, w.until = 0, nil, time.Time{} })
}

// Over ends a try of which nothing has come.
func (t *Try) Over() { t.end(func(*wrong, time.Time) {}) }

func (t *Try) end(f func(w *wrong, now time.Time)) {
	t.once.Do(func() {
		now, g := time.Now(), t.g
		g.mu.Lock()
		defer g.mu.Unlock()
		w := g.find(t.who, now)
		if w == nil {
			w = g.add(t.who, now)
		}
		w.pending = max(0, w.pending-1)
		f(w, now)
		g.place(w, now)
	})
}

// find is what is counted of one; nil for nothing. The caller holds mu.
func (g *Guesses) find(who Guessed, now time.Time) *wrong {
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

// add makes an entry, and room for it.
func (g *Guesses) add(who Guessed, now time.Time) *wrong {
	w := &wrong{who: who, last: now}
	for _, l := range []*list.List{g.harmless, g.bad} {
		for e := l.Front(); e != nil && now.Sub(e.Value.(*wrong).last) > guessMemory; e = l.Front() {
			g.forget(e)
		}
	}
	if len(g.of) >= MaxGuessed {
		oldest := g.harmless.Front()
		if oldest == nil {
			oldest = g.bad.Front()
		}
		g.forget(oldest)
	}
	g.of[who] = g.harmless.PushBack(w)
	return w
}

// place puts an entry where it belongs; one that says nothing goes.
func (g *Guesses) place(w *wrong, now time.Time) {
	g.forget(g.of[w.who])
	switch w.last = now; {
	case w.tries >= freeTries:
		g.of[w.who] = g.bad.PushBack(w)
	case w.tries+w.pending+w.waiting > 0:
		g.of[w.who] = g.harmless.PushBack(w)
	}
}

// forget drops an entry, of whichever list it is.
func (g *Guesses) forget(e *list.Element) {
	delete(g.of, e.Value.(*wrong).who)
	g.harmless.Remove(e)
	g.bad.Remove(e)
}

// Counted is how many accounts and places are.
func (g *Guesses) Counted() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.of)
}

// TriesOf is how many wrong tries of an account are counted, from wherever.
func (g *Guesses) TriesOf(account string) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for who, e := range g.of {
		if who.Account == account {
			n += e.Value.(*wrong).tries
		}
	}
	return n
}

// ForgetAll begins anew.
func (g *Guesses) ForgetAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.of)
	g.harmless.Init()
	g.bad.Init()
}
