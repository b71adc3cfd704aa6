package otrlayer

import (
	"slices"
	"time"

	"otrproxy/otrlayer/keyring"
)

// A resource is a client of a contact's that is there.
type resource struct {
	jid     string // full
	program string // what a known program calls itself (XEP-0115), as KnownProgram has it
	low     bool   // its priority is negative: it gets nothing that is for the bare JID (RFC 6121 section 8.5.2.1)
}

const (
	maxThere    = 10_000 // resources that are kept track of
	maxEachOne  = 32     // of one contact
	maxResource = 512    // bytes of a full JID
)

// find is a contact's resource, by its place among those that are there; -1 for none.
func (a *Account) find(contact, jid string) int {
	return slices.IndexFunc(a.there[contact], func(r resource) bool { return r.jid == jid })
}

// resourceAt is a contact's resource that is there; nothing is known of any other.
func (a *Account) resourceAt(contact, jid string) resource {
	if i := a.find(contact, jid); i >= 0 {
		return a.there[contact][i]
	}
	return resource{}
}

// comes notes what the presence of a contact's resource says, and what was known of it.
func (a *Account) comes(contact string, r resource) (before resource, known bool) {
	all := a.there[contact]
	if i := a.find(contact, r.jid); i >= 0 {
		before, all[i] = all[i], r
		return before, true
	}
	switch {
	case len(r.jid) > maxResource || a.resources >= maxThere && len(all) < maxEachOne:
		return resource{}, false
	case len(all) >= maxEachOne:
		all = slices.Delete(all, 0, 1)
	default:
		a.resources++
	}
	a.there[contact] = append(all, r)
	return resource{}, false
}

// goes notes that a contact's resource has gone.
func (a *Account) goes(contact, jid string) {
	i := a.find(contact, jid)
	switch all := a.there[contact]; {
	case jid == contact || i >= 0 && len(all) == 1: // the bare JID is for all of them
		a.resources -= len(all)
		delete(a.there, contact)
	case i >= 0:
		a.resources--
		a.there[contact] = slices.Delete(all, i, i+1)
	}
}

// Presence tells that a resource of a contact has come or gone, what its program calls
// itself (XEP-0115) as KnownProgram has it, and its priority.
func (a *Account) Presence(_ Outlet, from, contact string, available bool, program string, priority int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now, c := a.now(), a.convs[contact]
	if !available {
		a.goes(contact, from)
		if c != nil {
			defer c.settle(now)
			c.hasGone(now, from)
		}
		return
	}
	absent := len(a.there[contact]) == 0
	before, known := a.comes(contact, resource{from, program, priority < 0})
	if c == nil {
		return
	}
	defer c.settle(now)
	if absent {
		c.hasCome(now)
	}
	// Whoever has just come could not get an earlier query; a mere change of
	// presence is no reason to ask again soon.
	back := before.low && priority >= 0
	arrived := !known || back
	if back {
		c.flush(now)
	}
	if arrived && c.lacks() && now.Sub(c.prompted) >= max(queryInterval, c.patience()) {
		c.prompted, c.queried = now, time.Time{} // asked just before they came, they are asked again at once
	}
	if arrived {
		c.askAnew(now, from)
	}
	if arrived || (c.otr == nil || !c.otr.Exchanging(now)) && now.Sub(c.queried) > errorInterval {
		c.attempt(now, true)
	}
}

// hasGone notes that a resource has gone, and with it what only its program knew.
func (c *conversation) hasGone(now time.Time, jid string) {
	for _, s := range c.live {
		if s.jid == jid {
			s.jid, s.gone = "", true
		}
	}
	for instance, at := range c.partners {
		if at == jid && c.otr != nil {
			c.otr.Left(instance)
			delete(c.partners, instance)
		}
	}
	if len(c.a.there[c.contact]) == 0 && c.a.sees(c.contact) {
		c.away = true
		c.heldUntil = now // what waits may wait longer: looked at anew
	}
}

// hasCome notes that a contact is there who was not.
func (c *conversation) hasCome(now time.Time) {
	c.away, c.came = false, now
	c.heldUntil = now
}

// sees reports whether we would be told of it if a contact were there.
func (a *Account) sees(contact string) bool {
	return slices.ContainsFunc(a.outlets, func(o Outlet) bool { return o.Sees(contact) })
}

// isAway reports whether the contact is known not to be there.
func (c *conversation) isAway() bool {
	if len(c.a.outlets) > 0 { // else it is as it was
		c.away = len(c.a.there[c.contact]) == 0 && c.a.sees(c.contact)
	}
	return c.away
}

// low reports whether the resource of a session is there with a negative priority.
func (c *conversation) low(s *session) bool { return c.a.resourceAt(c.contact, s.jid).low }

// passed reports whether a message passes a session by: its resource has a negative
// priority, and it is not this resource that the message is addressed to.
func (c *conversation) passed(s *session, to string) bool { return c.low(s) && to != s.jid }

// choose picks another session for a message where the one that text is sent on is passed
// by, and the first one again once that may be.
func (c *conversation) choose(now time.Time, to string) {
	cur := c.current()
	if cur == nil {
		return
	}
	if first := c.live[c.aside]; first != nil && !first.gone && !c.passed(first, to) && first.trust.Rank() >= cur.trust.Rank() {
		c.activate(now, first.ID)
		return
	}
	if !c.passed(cur, to) {
		return
	}
	var best *session
	for _, s := range c.live {
		if s != cur && !s.gone && s.jid != "" && !c.passed(s, to) && s.trust.Rank() >= cur.trust.Rank() && s.trust != keyring.Changed &&
			(best == nil || s.trust.Rank() > best.trust.Rank() || s.trust == best.trust && s.ID > best.ID) {
			best = s
		}
	}
	if best == nil {
		return
	}
	first := c.aside
	if first == 0 {
		first = cur.ID
	}
	c.activate(now, best.ID)
	c.aside = first
}

// overtakes reports whether a message would overtake others that wait. What is addressed
// to a resource does not wait for those that pass it by.
func (c *conversation) overtakes(m *Message) bool {
	s := c.current()
	for _, held := range c.held {
		if s == nil || !c.passed(s, held.To) || held.To == m.To {
			return true
		}
	}
	return false
}
