package otrlayer

import (
	"container/heap"
	"time"
)

// deadlines are the account's conversations by the moment at which each has something to
// do next, the first on top. A conversation without one is not among them.
type deadlines []*conversation

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].due.Before(d[j].due) }

func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].slot, d[j].slot = i+1, j+1
}

func (d *deadlines) Push(x any) {
	c := x.(*conversation)
	*d = append(*d, c)
	c.slot = len(*d)
}

func (d *deadlines) Pop() any {
	last := len(*d) - 1
	c := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	c.slot = 0
	return c
}

// plan puts a conversation where its next deadline belongs, and sees to it that the
// account's timer goes off then.
func (c *conversation) plan(now time.Time) {
	d := &c.a.deadlines
	due := c.next(now)
	if !due.IsZero() && !due.After(now) {
		due = now.Add(time.Millisecond) // whoever works on what is due comes to an end
	}
	switch {
	case due.IsZero() && c.slot > 0:
		heap.Remove(d, c.slot-1)
	case due.IsZero():
	case c.slot == 0:
		c.due = due
		heap.Push(d, c)
	case !due.Equal(c.due):
		c.due = due
		heap.Fix(d, c.slot-1)
	}
	c.due = due
	c.a.arm()
}

// lookAgain is how often it is looked whether an exchange was given up.
const lookAgain = 5 * time.Second

// next is the first moment at which something of the conversation expires or is to be
// done; zero for never.
func (c *conversation) next(now time.Time) (due time.Time) {
	sooner := func(t time.Time) {
		if !t.IsZero() && (due.IsZero() || t.Before(due)) {
			due = t
		}
	}
	if len(c.held) > 0 {
		sooner(c.heldUntil)
	}
	sooner(c.stale)
	sooner(c.retry)
	sooner(c.follow)
	if len(c.a.outlets) > 0 {
		sooner(c.unreadables.due())
	}
	sooner(c.resendUntil())
	sooner(c.copiesUntil())
	if until := c.lingers(); until.After(now) {
		sooner(until)
	}
	if len(c.echoes) > fewEchoes {
		sooner(now.Add(echoWindow))
	}
	if c.otr == nil {
		return due
	}
	sooner(c.otr.Expire(now))
	if c.under {
		sooner(now.Add(lookAgain))
	}
	if s := c.current(); s != nil && len(c.held) > 0 {
		sooner(c.otr.SealedUntil(now, s.Instance))
	}
	if idle := c.a.settings().Idle; idle > 0 && len(c.live) > 0 {
		_, next := c.otr.Idle(now, idle)
		sooner(next)
	}
	return due
}

// arm sets the timer for the first deadline. One that is set for an earlier moment stays:
// it finds nothing to do, and is set anew.
func (a *Account) arm() {
	if a.closed || len(a.deadlines) == 0 {
		return
	}
	first := a.deadlines[0].due
	if a.timer != nil {
		if !first.Before(a.wakes) {
			return
		}
		a.timer.Stop()
	}
	a.wakes = first
	a.timer = time.AfterFunc(max(first.Sub(a.now()), time.Millisecond), a.expire)
}

// expire does what is due, and nothing else.
func (a *Account) expire() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.timer != nil {
		a.timer.Stop()
		a.timer = nil
	}
	now := a.now()
	for len(a.deadlines) > 0 && !a.deadlines[0].due.After(now) {
		c := a.deadlines[0]
		c.lapse(now)
		c.settle(now)
	}
	a.arm()
}

// lapse gives back what has waited too long, ends what nobody uses, and asks again where
// it is time to.
func (c *conversation) lapse(now time.Time) {
	c.returnLate(now)
	c.follows(now)
	c.tellUnread(now)
	c.forgetRecent(now)
	c.forgetTexts(now)
	c.forgetEchoes(now)
	if c.otr != nil && len(c.live) > 0 {
		if idle := c.a.settings().Idle; idle > 0 {
			unused, _ := c.otr.Idle(now, idle)
			for _, id := range unused {
				c.idle(now, id)
			}
		}
	}
	c.flush(now)
	under := c.otr != nil && c.otr.Exchanging(now)
	if c.under && !under { // nobody went on with it
		c.attempt(now, true)
	}
	c.under = under
	switch {
	case !c.retry.IsZero() && !now.Before(c.retry):
		c.retry = time.Time{}
		if c.otr != nil && c.otr.Exchanging(now) {
			c.retry = now.Add(askInterval) // an answer is on its way
			break
		}
		c.attempt(now, true)
	case c.queried.IsZero(): // what waited for an exchange nobody went on with
		c.attempt(now, false)
	}
	if len(c.held) == 0 {
		c.retry, c.turn = time.Time{}, time.Time{}
	}
}

// returnLate gives back what has waited too long.
func (c *conversation) returnLate(now time.Time) {
	if len(c.held) == 0 {
		return
	}
	kept := c.held[:0]
	var late []*Message
	c.heldUntil = time.Time{}
	hold := c.a.settings().Hold
	for _, m := range c.held {
		if end := c.expires(m, hold); end.After(now) {
			kept = append(kept, m)
			c.waitsUntil(end)
			continue
		}
		c.heldBytes -= len(m.Text) + len(m.Extra)
		late = append(late, m)
	}
	clear(c.held[len(kept):])
	c.held = kept
	c.a.returned(c.waitsFor(), c.told, late...)
	if len(kept) == 0 {
		c.nothingWaits()
	}
}

// waitsUntil notes that something that waits comes back at t, or before.
func (c *conversation) waitsUntil(t time.Time) {
	if c.heldUntil.IsZero() || t.Before(c.heldUntil) {
		c.heldUntil = t
	}
}
