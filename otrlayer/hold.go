package otrlayer

import (
	"bytes"
	"maps"
	"slices"
	"time"
)

// hold queues a message until the conversation is private.
func (c *conversation) hold(now time.Time, limit Hold, m *Message, cause Cause) Verdict {
	size := len(m.Text) + len(m.Extra)
	if len(c.held) >= limit.Messages || c.heldBytes+size > limit.Bytes || c.holding()+size > MaxHeld*limit.Bytes {
		return Verdict{cause: CauseQueueFull, message: m}
	}
	if full := c.a.settings().Full; full != nil && full() {
		return Verdict{cause: CauseMemory, message: m}
	}
	kept := *m
	kept.Raw, kept.Rewrite, kept.Extra = nil, nil, bytes.Clone(m.Extra)
	c.held = append(c.held, &kept)
	c.heldBytes += size
	c.waitsUntil(c.expires(&kept, limit))
	c.announce()
	c.attempt(now, false)
	c.a.events.Happened(c.contact, EventHeld)
	return Verdict{action: Held, message: &kept, cause: cause}
}

// holding is how much waits in the account, in bytes.
func (c *conversation) holding() int { return c.a.total.heldBytes - c.counted.heldBytes + c.heldBytes }

// announce tells the person once that messages wait, and for what.
func (c *conversation) announce() {
	if c.told || len(c.a.outlets) == 0 {
		return
	}
	switch cause, s := c.waitsFor(), c.current(); {
	case cause == CauseExpired && !c.stale.IsZero():
		return // the error that made it wait has been announced
	case cause == CauseExpired && s != nil && !s.gone && !c.low(s):
		c.a.notice(c.about(SayWaitsMoment))
	case cause != CauseExpired:
		c.a.notice(Notice{What: SayWaitsCause, Contact: c.contact, Why: Why{Cause: cause}})
	case c.isAway():
		c.a.notice(Notice{What: SayWaitsAway, Contact: c.contact, Within: c.a.settings().Hold.Offline})
	default:
		c.a.notice(Notice{What: SayWaits, Contact: c.contact, Within: c.a.settings().Hold.For})
	}
	c.told = true
}

// expires is when a message that waits comes back. A contact who was away gets their time
// from when they came.
func (c *conversation) expires(m *Message, hold Hold) time.Time {
	last := m.since.Add(max(hold.For, hold.Offline))
	if c.waitsFor() == CauseExpired && c.isAway() {
		return last
	}
	from := m.since
	if c.came.After(from) {
		from = c.came
	}
	if end := from.Add(hold.For); end.Before(last) {
		return end
	}
	return last
}

// flush sends what waits, in order, as far as the decision allows it. What waits only for
// another resource to come does not stop what is addressed to one that is there.
func (c *conversation) flush(now time.Time) {
	if !c.stale.IsZero() && !now.Before(c.stale) {
		c.stale = time.Time{}
	}
	if len(c.held) == 0 {
		c.nothingWaits()
		return
	}
	policy := c.a.settings().Policy(c.contact)
	waiting := c.held
	kept := waiting[:0]
	sent := 0
	unsent := map[Cause][]*Message{}
	for i, m := range waiting {
		c.choose(now, m.To)
		if action, _ := c.decide(policy, m.To); action != Encrypted {
			if s := c.current(); s != nil && c.passed(s, m.To) {
				kept = append(kept, m)
				continue
			}
			kept = append(kept, waiting[i:]...)
			break
		}
		cause := CauseNone
		err := c.release(m)
		if err == errNobody { // it goes when a client comes back
			kept = append(kept, waiting[i:]...)
			break
		}
		switch err {
		case nil:
		case errOtherKey:
			cause = CauseKeyChanged
		default:
			cause = CauseEngine
		}
		sent++
		c.heldBytes -= len(m.Text) + len(m.Extra)
		if cause != CauseNone {
			unsent[cause] = append(unsent[cause], m)
		} else {
			c.released++
		}
	}
	clear(waiting[len(kept):])
	c.held = kept
	for _, cause := range slices.Sorted(maps.Keys(unsent)) {
		c.a.returned(cause, c.told, unsent[cause]...)
	}
	if len(kept) == 0 {
		c.held = nil
		c.nothingWaits()
	}
	if sent > 0 {
		c.a.events.Happened(c.contact, EventReleased)
	}
}

// release sends a message that has waited. What is sent again goes to the key that it
// went to before.
func (c *conversation) release(m *Message) error {
	if m.again && m.to != c.current().Fingerprint {
		return errOtherKey
	}
	return c.encrypt(m)
}

// Drop gives back all messages that wait for a contact, for a cause, and says how many.
func (a *Account) Drop(contact string, cause Cause) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.convs[contact]
	if c == nil {
		return 0
	}
	defer c.settle(a.now())
	return c.giveBack(cause)
}

// A HeldMessage is one that waits for a private conversation.
type HeldMessage struct {
	Contact string
	ID      string
	Since   time.Time // when it was handed over
	Expires time.Time // when it comes back
	Why     Cause     // it waits, as it would be told then
}

// Held lists the messages that wait, by contact and in order.
func (a *Account) Held() (out []HeldMessage) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, contact := range slices.Sorted(maps.Keys(a.convs)) {
		c := a.convs[contact]
		for _, m := range c.held {
			out = append(out, HeldMessage{Contact: contact, ID: m.ID, Since: m.since, Expires: c.expires(m, a.settings().Hold), Why: c.waitsFor()})
		}
	}
	return out
}

// Waiting is since when the message has waited that has done so longest, zero for none, and
// for how many contacts messages wait until their key is verified.
func (a *Account) Waiting() (since time.Time, unverified int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.waiting {
		for _, m := range c.held {
			if since.IsZero() || m.since.Before(since) {
				since = m.since
			}
		}
		if k := c.as; !k.changed && !k.asks && c.waitsFor() == CauseUnverified {
			unverified++
		}
	}
	return since, unverified
}
