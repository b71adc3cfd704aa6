package otrlayer

import (
	"container/heap"
	"time"
)

// The account's table of conversations. The server writes the list of contacts, and so
// says who may begin one: a conversation is kept only as long as something is left in it,
// there are no more than MaxConversations with contacts the person has not written to,
// and whoever looks for those with something to do finds them without a walk over all.

// MaxConversations is how many contacts the person may have written to, and with how many
// others something may go on: neither takes room from the other.
const MaxConversations = 10_000

// conv is the conversation with a contact the person has to do with.
func (a *Account) conv(contact string) *conversation {
	c := a.convs[contact]
	if c == nil {
		c = a.begun(contact)
		a.convs[contact] = c
	}
	return c
}

// begun is a conversation as it is before anything happens in it. It is not in the table.
func (a *Account) begun(contact string) *conversation {
	c := a.fresh(contact)
	if a.private.Of[contact] {
		c.state = StateFinished // until the person decides
		_, c.anew = a.open[contact]
	}
	return c
}

// fresh is a conversation that is not kept, as for what strangers send.
func (a *Account) fresh(contact string) *conversation {
	return &conversation{a: a, contact: contact}
}

// admit takes a conversation that a contact has begun into the table. Where that is full,
// the one that has been idle longest goes; it reports false where there is none.
func (a *Account) admit(c *conversation) bool {
	if !a.roomFor(c) {
		return false
	}
	if a.inbound() >= MaxConversations {
		a.idle.Front().Value.(*conversation).remove()
	}
	a.convs[c.contact] = c
	return true
}

// roomFor reports whether a conversation is in the table or could be.
func (a *Account) roomFor(c *conversation) bool {
	return a.convs[c.contact] == c || a.inbound() < MaxConversations || a.idle.Len() > 0
}

// inbound is how many contacts that the person has not written to are in the table.
func (a *Account) inbound() int { return len(a.convs) - a.total.wrote }

// full reports that the person has written to as many contacts as the table has room for,
// and not to this one.
func (a *Account) full(contact string) bool {
	c := a.convs[contact]
	return a.total.wrote >= MaxConversations && (c == nil || !c.wrote)
}

// left reports whether something is left in a conversation.
func (c *conversation) left(now time.Time) bool {
	return c.wrote || c.state != "" || c.offered || len(c.live)+len(c.held)+len(c.recent)+len(c.early)+c.unreadables.n > 0 ||
		!c.copiesUntil().IsZero() || c.lingers().After(now) || c.otr != nil && !c.otr.Empty(now)
}

// lingers is until when it is to be remembered that something was asked or answered. What
// the person has written to is remembered anyway.
func (c *conversation) lingers() (until time.Time) {
	if c.wrote {
		return until
	}
	for _, t := range []time.Time{c.queried, c.answering} {
		if end := t.Add(errorInterval); !t.IsZero() && end.After(until) {
			until = end
		}
	}
	return until
}

// settle is called after all work on a conversation: it brings up to date what the account
// knows of it, and removes it from the table once nothing is left in it.
func (c *conversation) settle(now time.Time) {
	a := c.a
	defer a.publish()
	if a.convs[c.contact] != c {
		return
	}
	if !c.left(now) {
		c.remove()
		return
	}
	c.count()
	member(&a.waiting, c, &c.listed.waiting, len(c.held) > 0)
	member(&a.live, c, &c.listed.live, len(c.live) > 0)
	if len(a.leaving) > 0 {
		a.letGo()
	}
	c.touched(c.outlet)
	c.touched(c.carrier)
	switch idle := !c.wrote && len(c.held)+len(c.live) == 0; {
	case !idle && c.at != nil:
		a.idle.Remove(c.at)
		c.at = nil
	case idle && c.at == nil:
		c.at = a.idle.PushBack(c)
	case idle:
		a.idle.MoveToBack(c.at)
	}
	c.plan(now)
}

// member puts a conversation into a set or takes it out, where that is not done.
func member(set *map[*conversation]struct{}, c *conversation, in *bool, want bool) {
	switch {
	case want && !*in:
		if *set == nil {
			*set = map[*conversation]struct{}{}
		}
		(*set)[c] = struct{}{}
	case !want && *in:
		delete(*set, c)
	}
	*in = want
}

// touched notes that a conversation refers to a client's session, which it must forget
// when that ends.
func (c *conversation) touched(o Outlet) {
	if o == nil || c.a.convs[c.contact] != c || !c.a.attached(o) {
		return
	}
	of := c.a.of[o]
	if of == nil {
		of = map[*conversation]struct{}{}
		c.a.of[o] = of
	}
	of[c] = struct{}{}
}

// remove takes a conversation out of the table, and forgets all that is in it.
func (c *conversation) remove() {
	a := c.a
	delete(a.convs, c.contact)
	if c.slot > 0 {
		heap.Remove(&a.deadlines, c.slot-1)
	}
	member(&a.waiting, c, &c.listed.waiting, false)
	member(&a.live, c, &c.listed.live, false)
	for _, of := range a.of {
		delete(of, c)
	}
	if c.at != nil {
		a.idle.Remove(c.at)
		c.at = nil
	}
	c.discard()
	c.count()
}

// discard forgets what is in a conversation: secrets, texts, pieces.
func (c *conversation) discard() {
	c.forgetSent(func(*Message) bool { return true })
	for _, r := range c.read {
		c.showLate(r)
		c.a.unkeep(&r.kept)
	}
	c.read, c.bySum, c.early, c.echoes = nil, nil, nil, nil
	if c.otr != nil {
		c.otr.Forget()
		c.otr = nil
	}
}
