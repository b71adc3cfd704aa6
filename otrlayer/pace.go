package otrlayer

import (
	"time"

	"golang.org/x/time/rate"
)

// How often we ask, and how much others can make us work. A key exchange costs a
// processor some milliseconds, and who may begin one is up to the server.

// A standing is what a contact is to the person, as far as it bounds the work we do.
type standing uint8

const (
	others  standing = iota // on the server's word alone
	known                   // with a key we know, or a private conversation
	written                 // the person has written to them
)

// answerPaces are what each standing has of its own, so that none takes from a higher one:
// so many answers a second, and so many at once. An answer is a message of a key exchange;
// or to others, a complaint.
var answerPaces = [...]struct {
	second rate.Limit
	burst  int
}{
	others:  {1, 60},
	known:   {10, 200},
	written: {20, 400},
}

const (
	// askInterval is the least time between two queries to one contact, unless the person
	// wants one; it doubles with each that is not answered, up to mostPatience. Once in
	// queryInterval a contact that comes online is asked again at once.
	askInterval  = 10 * time.Second
	mostPatience = 5 * time.Minute
	// contactSecond and contactAtOnce bound the answers to one contact, so that none takes
	// all that its standing has. The engine does no more work than that either.
	contactSecond = 1
	contactAtOnce = 40
	// asksSecond and asksAtOnce bound the queries to all.
	asksSecond = 5
	asksAtOnce = 50
	// maxKnown bounds the keys that are remembered of contacts nobody has written to.
	maxKnown = MaxConversations
)

type paces struct {
	asks             *rate.Limiter
	answers          [len(answerPaces)]*rate.Limiter
	delayed, refused uint64
}

// ask is the limiter of queries. Limiters are made where they are needed: most accounts have
// nobody who asks, most of the time.
func (p *paces) ask() *rate.Limiter {
	if p.asks == nil {
		p.asks = rate.NewLimiter(asksSecond, asksAtOnce)
	}
	return p.asks
}

// answer is the limiter of answers to those of a standing.
func (p *paces) answer(s standing) *rate.Limiter {
	if p.answers[s] == nil {
		p.answers[s] = rate.NewLimiter(answerPaces[s].second, answerPaces[s].burst)
	}
	return p.answers[s]
}

func (c *conversation) standing() standing {
	switch {
	case c.wrote:
		return written
	case c.state != "", c.a.private.Of[c.contact], c.a.fps.Knows(c.contact):
		return known
	}
	return others
}

// mayWork reports whether a contact may make us work now. Nothing begins with somebody
// there is no room for, in the table or among the keys.
func (c *conversation) mayWork(now time.Time) bool {
	a, s := c.a, c.standing()
	crowded := s == others && (len(a.fps.All) >= maxKnown || len(a.private.Of) >= maxKnown)
	if c.work == nil {
		c.work = rate.NewLimiter(contactSecond, contactAtOnce)
	}
	if crowded || !a.roomFor(c) || !c.work.AllowN(now, 1) || !a.paces.answer(s).AllowN(now, 1) {
		a.paces.refused++
		return false
	}
	return true
}

// patience is the time between the last query and the next one.
func (c *conversation) patience() time.Duration {
	return min(askInterval<<min(max(c.tries-1, 0), 8), mostPatience)
}

// ask sends a query for what waits, as soon as that may be.
func (c *conversation) ask(now time.Time) {
	p, at := &c.a.paces, c.turn
	if at.IsZero() {
		if at = c.queried.Add(c.patience()); c.queried.IsZero() || !at.After(now) {
			at = now.Add(p.ask().ReserveN(now, 1).DelayFrom(now))
			c.turn = at
		}
	}
	if at.After(now) {
		if c.retry.IsZero() || at.Before(c.retry) {
			c.retry = at
			p.delayed++
		}
		return
	}
	c.turn = time.Time{}
	c.query(now)
}
