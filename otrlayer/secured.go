package otrlayer

import (
	"fmt"
	"slices"
	"time"

	"otrproxy/otrlayer/keyring"
	"otrproxy/otrlayer/otr"
	"otrproxy/otrlayer/text"
)

// handle acts on what the engine has to tell.
func (c *conversation) handle(now time.Time, events []otr.Event, from string) {
	for _, e := range events {
		switch e.Kind {
		case otr.Secured:
			c.secured(now, e, from)
		case otr.Ended:
			c.finished(now, e.Session.ID)
		case otr.SMPAsked, otr.SMPSuccess, otr.SMPFailure, otr.SMPAborted, otr.SMPCheated:
			c.compared(now, e)
		}
	}
}

// secured notes that a key exchange is complete. Its session has taken the place of
// the one with the same instance and key; with another key it stands beside it.
func (c *conversation) secured(now time.Time, e otr.Event, from string) {
	fp, id := e.Session.Fingerprint, e.Session.ID
	before, cur := c.live[id], c.current()
	trust := c.a.fps.Trust(c.contact, fp)
	for old := range c.live { // the engine has room for so many
		if _, there := c.otr.Session(old); !there {
			delete(c.live, old)
		}
	}
	s := &session{jid: from, trust: trust, Session: e.Session}
	s.program = c.programBefore(s)
	if c.live == nil {
		c.live = map[otr.ID]*session{}
	}
	c.live[id] = s
	c.a.events.Handshake("complete")
	if cur != nil && cur.trust.Sure() && !trust.Sure() && id != c.active {
		if before != nil {
			return // a refresh of what has been told
		}
		// Another device, or somebody who claims to be the same one: a key nobody
		// verified must not take over from a verified one unasked (Conversations issue
		// 2582).
		c.tell(now, topicKey, Notice{What: SayDevice, Contact: c.contact, Fingerprint: fp})
		return
	}
	was := c.state
	c.activate(now, id)
	began := func(what What) {
		n := Notice{What: what, Contact: c.contact, Fingerprint: fp, Own: c.a.key.Fingerprint(), Version: int(s.Version)}
		told := c.mayTell(now, topicPrivate)
		if !told {
			c.untold = &n // until the person writes to them
		}
		c.oncePrivate(func() {
			if told && !c.a.notice(n) {
				c.untold = &n
			}
			c.a.events.Happened(c.contact, EventPrivate)
		})
	}
	if trust == keyring.Unverified && c.a.fps.Find(c.contact, fp) == nil {
		c.saved(c.a.fps.Remember(c.contact, fp, keyring.Unverified))
	}
	c.noteVersion(now, e.Session)
	if c.proxied {
		s.program = text.AnotherProxy
	}
	switch {
	case trust == keyring.Changed:
		n := Notice{What: SayKeyChanged, Contact: c.contact, Fingerprint: fp}
		for _, k := range c.a.fps.Of(c.contact) {
			n.Others = append(n.Others, k.Fingerprint)
		}
		if !c.tell(now, topicKey, n) {
			c.untold = &n
		}
		c.a.events.Happened(c.contact, EventKeyChanged)
	case was == StateEncrypted && before != nil && before.trust == trust && before.Version == s.Version:
		// a refresh; nothing a person needs to know
	case trust.Sure():
		began(SayStarted)
	case c.a.settings().Policy(c.contact) == RequireVerified:
		began(SayUnverified)
	default:
		began(SayNotVerified)
	}
	complained := c.complainedAt
	c.resend(now, fp)
	if before != nil {
		// What went out on the keys before has been read or complained of by now, for nothing is
		// sent while an exchange is under way; but what left after the last complaint, when the
		// exchange had taken too long (staleFor): of that the complaint is still to come.
		c.forgetSent(func(m *Message) bool {
			if m.ssid != before.SSID {
				return false
			}
			m.overdue = !complained.IsZero() && m.since.After(complained)
			return !m.overdue
		})
	}
	c.flush(now)
}

// activate makes a session the one that text is sent on.
func (c *conversation) activate(now time.Time, id otr.ID) {
	if old, ok := c.otr.Session(c.active); ok && old.Comparing && c.active != id {
		if m, err := c.otr.SMPAbort(now, c.active); err == nil {
			c.protocol(c.to(c.live[c.active]), string(m), false)
		}
		c.a.notice(c.about(SaySMPGivenUp))
	}
	c.active, c.state = id, StateEncrypted
	c.a.private.Keep(c.contact, true)
	c.otr.Keep(id)
	c.stale, c.queried, c.follow, c.tries, c.under, c.anew = time.Time{}, time.Time{}, time.Time{}, 0, false, false
	c.untold, c.aside = nil, 0
}

// noteVersion remembers the highest version spoken with a key, and tells when a
// contact that has spoken version 3 comes down to 2: that is what somebody on the
// way would bring about to weaken it. A key that never spoke better is a program
// that cannot.
func (c *conversation) noteVersion(now time.Time, s otr.Session) {
	known := c.a.spoken.Find(c.contact, s.Fingerprint)
	better := func(k otr.KnownKey) bool { return k.Trust > fmt.Sprint(s.Version) }
	if known != nil && better(*known) || known == nil && slices.ContainsFunc(c.a.spoken.Of(c.contact), better) {
		c.tell(now, topicWeaker, Notice{What: SayWeaker, Contact: c.contact, Version: int(s.Version)})
	}
	// Of a key that is not accepted nothing is kept: whoever carries the messages can make
	// any number of them.
	if c.a.fps.Find(c.contact, s.Fingerprint) != nil && (known == nil || !better(*known)) {
		c.saved(c.a.spoken.Set(c.contact, s.Fingerprint, fmt.Sprint(s.Version)))
	}
}

func (c *conversation) saved(err error) {
	if err != nil {
		c.a.events.Log(8, "fingerprint not saved", keyring.Cause(err))
	}
}

// resend puts what the contact said it could not read before all that waits, to be
// sent once more, to the same key only. What went to another is given back, and so is what
// was sent again already.
func (c *conversation) resend(now time.Time, to keyring.Fingerprint) {
	c.forgetRecent(now)
	complained := c.complained()
	var again, other, unread, lost []*Message
	c.forgetSent(func(m *Message) bool {
		switch _, ok := complained[m]; {
		case !ok:
			return false
		case m.forgotten:
			lost = append(lost, m)
		case m.to != to:
			other = append(other, m)
		case m.again:
			unread = append(unread, m)
		default:
			copied := *m
			copied.again, copied.since, copied.kept = true, now, nil
			again = append(again, &copied)
			c.heldBytes += len(m.Text) + len(m.Extra)
			c.heldUntil = now // looked at anew
		}
		return true
	})
	c.held = append(again, c.held...)
	c.calm("")
	c.a.returned(CauseKeyChanged, false, other...)
	c.a.returned(CauseUnread, false, unread...)
	c.lost(lost)
}

// lost gives back messages that the contact could not read and whose text is not kept any
// more: not every program shows a message that comes back without its words.
func (c *conversation) lost(list []*Message) {
	if len(list) == 0 {
		return
	}
	c.a.notice(c.about(SayLost))
	c.a.returned(CauseUnread, false, list...)
}

// end ends all sessions politely and forgets the exchanges under way.
func (c *conversation) end() {
	for id, s := range c.live {
		if msg, err := c.otr.End(c.a.now(), id); err == nil && msg != nil {
			c.protocol(c.to(s), string(msg), false)
		}
	}
	clear(c.live)
	if c.otr != nil {
		c.otr.Forget()
	}
	c.over("")
}

// idle ends a session that nobody has used for long, so that its keys go.
func (c *conversation) idle(now time.Time, id otr.ID) {
	s := c.live[id]
	msg, err := c.otr.End(now, id)
	if s == nil {
		return
	}
	if err == nil && msg != nil {
		c.protocol(c.to(s), string(msg), false)
	}
	delete(c.live, id)
	if id != c.active || c.state != StateEncrypted {
		return
	}
	c.over(StateFinished)
	if c.a.settings().Policy(c.contact).requires() {
		c.a.notice(c.about(SayIdle))
		return
	}
	c.a.notice(c.about(SayIdleOpen))
}

// over notes that a private conversation is over. What was sent last is kept for its
// minute: it may have crossed the contact's end.
func (c *conversation) over(s MessageState) {
	if c.state == StateEncrypted {
		c.a.events.Happened(c.contact, EventEnded)
	}
	c.active, c.state = 0, s
	c.stale, c.queried, c.follow, c.anew = time.Time{}, time.Time{}, time.Time{}, false
	c.untold, c.aside = nil, 0
}
