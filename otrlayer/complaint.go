package otrlayer

import (
	"maps"
	"slices"
	"time"
)

// A complaint is an error of a contact's program, as one client has heard it.
type complaint struct {
	by   Outlet
	from string // full JID
}

// errorFrom handles "?OTR Error:". It is not authenticated: it never ends a
// session and resends nothing by itself. It may start one exchange a minute, and
// until that is settled nothing more is sent on a session the contact seems to
// have lost.
func (c *conversation) errorFrom(now time.Time, o Outlet, m Incoming) {
	c.forgetRecent(now)
	private := c.state == StateEncrypted
	if !c.mayAnswer(m) || !private && now.Sub(c.spoke) >= rememberFor {
		return
	}
	if m.Shared {
		heard, most := complaint{o, m.From}, 0
		for k, n := range c.heard {
			if k.from == m.From {
				most = max(most, n)
			}
		}
		mine := c.heard[heard]
		if c.heard == nil {
			c.heard = map[complaint]int{}
		}
		if mine > 0 || len(c.heard) < maxOnline {
			c.heard[heard] = mine + 1
		}
		if mine < most {
			return // another client has heard it already
		}
	}
	if c.unread == nil {
		c.unread = map[string]int{}
	}
	if n := c.unread[m.From]; n < len(c.recent) && (n > 0 || len(c.unread) < maxOnline) {
		c.unread[m.From], c.complainedAt = n+1, now
	}
	last := len(c.recent) - 1
	kept := last >= 0 && !c.recent[last].forgotten
	switch {
	case private && !c.stale.IsZero() || now.Sub(c.warned) < errorInterval:
		return // it has been told
	case !private && len(c.recent) == 0:
		c.tell(now, topicComplaint, Notice{What: SayUnread, Contact: c.contact, Kept: kept})
	case !private:
		c.tell(now, topicComplaint, c.about(SayUnreadLast))
	case now.Sub(c.errored) < queryInterval || !c.mayWork(now):
		c.tell(now, topicComplaint, Notice{What: SayUnreadAgain, Contact: c.contact, Kept: kept})
	default:
		c.errored = now
		c.stale = now.Add(staleFor)
		c.tell(now, topicComplaint, Notice{What: SayUnreadAnew, Contact: c.contact, Kept: kept})
		if !c.otr.Exchanging(now) { // else theirs is under way
			c.query(now)
		}
	}
	c.warned = now
}

// calm forgets the complaints of a program; "" for those of all.
func (c *conversation) calm(from string) {
	if len(c.unread)+len(c.heard) == 0 {
		return
	}
	maps.DeleteFunc(c.unread, func(k string, _ int) bool { return from == "" || k == from })
	maps.DeleteFunc(c.heard, func(k complaint, _ int) bool { return from == "" || k.from == from })
	if len(c.unread) == 0 {
		c.complainedAt = time.Time{}
	}
}

// complained finds the messages that the contact said it could not read, and the program
// that said so: as many of the last ones that went to it before that as it sent errors; those
// first whose error is overdue. Errors from where nothing went are those of a program that has
// come back under another resource.
func (c *conversation) complained() map[*Message]string {
	of := map[*Message]string{}
	for _, moved := range []bool{false, true} {
		for from, n := range c.unread {
			if moved == slices.ContainsFunc(c.recent, func(m *Message) bool { return m.at == from }) {
				continue
			}
			for _, overdue := range []bool{true, false} {
				for _, m := range slices.Backward(c.recent) {
					if _, taken := of[m]; n > 0 && !taken && m.overdue == overdue && (moved || m.at == from) && !m.since.After(c.complainedAt) {
						of[m] = from
						n--
					}
				}
			}
		}
	}
	return of
}
