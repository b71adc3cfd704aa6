package otrlayer

import (
	"time"
)

// Start asks a contact for a private conversation, or refreshes it.
func (a *Account) Start(o Outlet, contact string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.full(contact) {
		a.notice(Notice{What: SayFull, Contact: contact})
		return
	}
	c, now := a.conv(contact), a.now()
	defer c.settle(now)
	c.outlet, c.wrote = o, true
	c.start(now)
}

func (c *conversation) start(now time.Time) {
	if c.a.key == nil {
		c.a.needKey(true)
		c.a.notice(c.about(SayKeyMaking))
		return
	}
	c.query(now)
	c.a.notice(c.about(SayAsked))
}

// End ends the private conversation with a contact; from then on the rules
// decide whether text may leave in clear.
func (a *Account) End(o Outlet, contact string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.conv(contact)
	defer c.settle(a.now())
	c.outlet = o
	if now := a.now(); now.Sub(c.queried) < askedFor {
		c.recanted = now
	}
	c.end()
	delete(a.open, contact)
	a.private.Keep(contact, false)
	a.notice(c.about(SayOver))
}

// Ask asks a contact again for the private conversation that messages wait for, and
// says how many do.
func (a *Account) Ask(contact string) (waiting int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.convs[contact]
	if c == nil {
		return 0
	}
	now := a.now()
	defer c.settle(now)
	if c.lacks() { // and the person wants it now
		c.query(now)
	}
	return len(c.held)
}
