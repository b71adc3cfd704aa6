package otrlayer

import "time"

// Presence tells that a resource of a contact has come or gone, what its program calls
// itself (XEP-0115) as KnownProgram has it, and its priority: a server gives no message for the
// bare JID to a resource with a negative one (RFC 6121, section 8.5.2.1).
func (a *Account) Presence(o Outlet, from, contact string, available bool, program string, priority int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if available && program != "" && len(a.programs) < maxPrograms {
		a.programs[from] = program
	} else {
		delete(a.programs, from)
	}
	back := a.low[from] && priority >= 0
	if available && priority < 0 && len(a.low) < maxPrograms {
		a.low[from] = true
	} else {
		delete(a.low, from)
	}
	c := a.convs[contact]
	if c == nil {
		return
	}
	now := a.now()
	defer c.settle(now)
	if !available {
		delete(c.online, from)
		for _, s := range c.live {
			if s.jid == from {
				s.jid, s.gone = "", true
			}
		}
		return
	}
	// Whoever has just come could not get an earlier query; a mere change of
	// presence is no reason to ask again soon.
	arrived := !c.online[from] || back
	if len(c.online) >= maxOnline {
		clear(c.online)
	}
	if c.online == nil {
		c.online = map[string]bool{}
	}
	c.online[from] = true
	if back {
		c.flush(now)
	}
	if arrived && c.lacks() && now.Sub(c.prompted) >= queryInterval {
		c.prompted, c.queried = now, time.Time{} // asked just before they came, they are asked again at once
	}
	if arrived || (c.otr == nil || !c.otr.Exchanging(now)) && now.Sub(c.queried) > errorInterval {
		c.attempt(now, true)
	}
}

// low reports whether the resource of a session is there with a negative priority.
func (c *conversation) low(s *session) bool { return c.a.low[s.jid] }

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
	if first := c.live[c.aside]; first != nil && !first.gone && !c.passed(first, to) && first.trust.rank() >= cur.trust.rank() {
		c.activate(now, first.ID)
		return
	}
	if !c.passed(cur, to) {
		return
	}
	var best *session
	for _, s := range c.live {
		if s != cur && !s.gone && s.jid != "" && !c.passed(s, to) && s.trust.rank() >= cur.trust.rank() && s.trust != Changed &&
			(best == nil || s.trust.rank() > best.trust.rank() || s.trust == best.trust && s.ID > best.ID) {
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

// rank orders how sure we are of a key.
func (t Trust) rank() int {
	switch {
	case t.Sure():
		return 2
	case t == Unverified:
		return 1
	}
	return 0
}
