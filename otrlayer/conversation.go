package otrlayer

import (
	"time"
)

// A conversation is all that goes on between the account and one contact: the
// live sessions with the contact's instances, the exchanges under way, and the
// messages that wait. It is guarded by its account's lock.
type conversation struct {
	a       *Account
	contact string
	outlet  Outlet // the session the person used last

	live   map[uint32]*session // by the contact's instance tag
	active uint32              // the instance that text is sent to
	state  MessageState        // "" is plaintext

	// Exchanges under way. Each contact may have one that we began and one per
	// instance that they began; what is complete moves to live.
	mine     *exchange
	commit   string // our D-H Commit message, while its answer is awaited
	theirs   map[uint32]*exchange
	pieces   map[uint32]*assembly
	early    []arrival // handshakes that came before our key was generated
	queried  time.Time // when the last query left
	errored  time.Time // when an error of the contact's last made us ask again
	refusals int       // commits of ours sent again in the present exchange

	answering time.Time // since when, and how many, unreadable messages were answered with an error
	answers   int

	held      []*Message
	heldBytes int
	told      bool // that messages wait, in the present attempt

	read   [][32]byte // sums of the data messages read last
	recent []*Message // sent in the last minute, in case the contact could not read them
	unread int        // how many of them the contact says it could not read
	stale  time.Time  // until when nothing is sent on a session the contact seems to have lost

	online  map[string]bool // the contact's resources that have come online
	wrote   bool            // the person has written to this contact
	refused bool            // the contact answered the whitespace tag with plain text
	offered bool            // the whitespace tag has been sent
}

// A session is a live engine with one instance.
type session struct {
	engine engine
	jid    string // full JID it answered from
	fp     Fingerprint
	trust  Trust
	gone   bool // its resource went offline, and many programs forget their sessions then
}

// An exchange is an engine on its way to a session.
type exchange struct {
	engine
	began time.Time
}

type arrival struct {
	outlet Outlet
	m      Incoming
}

const (
	exchangeFor   = 60 * time.Second // an exchange nobody goes on with is forgotten
	maxExchanges  = 8                // begun by the contact, at a time
	maxSessions   = 8                // live, per contact
	maxEarly      = 8                // handshakes kept until our key is there
	resendWindow  = 60 * time.Second // libotr's RESEND_INTERVAL
	maxRecent     = 32
	maxRead       = 64
	maxOnline     = 32               // resources of a contact that are kept track of
	queryInterval = 60 * time.Second // between two queries nobody answered
	errorInterval = 10 * time.Second // in which at most maxErrors are sent to a contact
	maxErrors     = 16
	staleFor      = 15 * time.Second
)

func (c *conversation) current() *session {
	if c.state != StateEncrypted {
		return nil
	}
	return c.live[c.active]
}

func (c *conversation) describe() Conversation {
	d := Conversation{Contact: c.contact, State: c.state, Held: len(c.held), Trust: Unverified}
	if d.State == "" {
		d.State = StatePlaintext
	}
	if s := c.current(); s != nil {
		d.Instance, d.Trust, d.Fingerprint, d.Version = c.active, s.trust, s.fp, 3
	} else if k := c.a.fps.of(c.contact); len(k) > 0 {
		d.Fingerprint = k[len(k)-1].fp
		d.Trust = c.a.fps.trust(c.contact, d.Fingerprint)
	}
	return d
}

// protocol sends a message of the OTR protocol itself.
func (c *conversation) protocol(to, body string, store bool) bool {
	return c.a.emit(c.outlet, Verdict{action: Protocol, to: to, body: body, store: store})
}

// forgetStale drops exchanges that somebody has given up, so that they do not
// stand in the way of the next.
func (c *conversation) forgetStale(now time.Time) {
	if c.mine != nil && now.Sub(c.mine.began) > exchangeFor {
		c.mine.Forget()
		c.mine, c.commit = nil, ""
	}
	for tag, e := range c.theirs {
		if now.Sub(e.began) > exchangeFor {
			e.Forget()
			delete(c.theirs, tag)
		}
	}
}

// query asks the contact for a private conversation.
func (c *conversation) query(now time.Time) {
	c.refusals = 0
	if c.protocol(c.contact, "?OTRv3? "+c.a.jid+" asks for a private conversation with OTR (Off-the-Record) encryption. "+
		"If you can read this, your program has no OTR or has it turned off; see https://otr.im/ for programs that have it.", true) {
		c.queried = now
	}
}

// attempt asks for a private conversation where messages wait for one. again
// overrides the pause between two queries.
func (c *conversation) attempt(now time.Time, again bool) {
	if len(c.held) == 0 || c.a.key == nil {
		return
	}
	if s := c.current(); s != nil && c.stale.IsZero() && !s.gone {
		return // what it waits for is a person's decision
	}
	c.forgetStale(now)
	if c.mine != nil && !again || len(c.theirs) > 0 && !again {
		return
	}
	if !again && now.Sub(c.queried) < queryInterval {
		return
	}
	c.query(now)
}

// complete puts an engine whose exchange is done in the place of the session
// with that instance.
func (c *conversation) complete(now time.Time, e engine, tag uint32, from string) {
	fp := e.Fingerprint()
	if fp == c.a.key.Fingerprint() {
		e.Forget()
		c.a.events.Handshake("refused")
		c.a.notice(c.contact, "A private conversation with "+c.contact+" was refused: the other side presented your own key. Somebody may be playing your messages back to you.")
		return
	}
	before := c.live[tag]
	trust := c.a.fps.trust(c.contact, fp)
	if cur := c.current(); cur != nil && cur.trust.Sure() && !trust.Sure() && tag != c.active {
		// Another device whose key nobody verified must not take over from a
		// verified one unasked (Conversations issue 2582).
		c.add(tag, &session{engine: e, jid: from, fp: fp, trust: trust})
		c.a.events.Handshake("complete")
		c.a.notice(c.contact, "Another device of "+c.contact+" has joined, with a key that is not verified: "+fp.String()+". Your messages stay with the verified device.")
		return
	}
	c.add(tag, &session{engine: e, jid: from, fp: fp, trust: trust})
	if before != nil {
		before.engine.Forget()
	}
	was, lastTrust := c.state, Trust("")
	if before != nil {
		lastTrust = before.trust
	}
	c.active, c.state = tag, StateEncrypted
	c.stale, c.queried = time.Time{}, time.Time{}
	c.a.events.Handshake("complete")
	if trust == Unverified && c.a.fps.find(c.contact, fp) == nil {
		if err := c.a.fps.remember(c.contact, fp, Unverified); err != nil {
			c.a.events.Log(8, "fingerprint not saved", err)
		}
	}
	switch {
	case trust == Changed:
		old := ""
		for _, k := range c.a.fps.of(c.contact) {
			old += " " + k.fp.String() + ";"
		}
		c.a.notice(c.contact, "The key of "+c.contact+" has CHANGED. New: "+fp.String()+". Known before:"+old[:max(len(old)-1, 0)]+
			". Nothing is sent until you decide: compare with them and write !otr verify FINGERPRINT, or !otr send to accept the new key.")
	case was == StateEncrypted && before != nil && before.fp == fp && lastTrust == trust:
		// a refresh; nothing a person needs to know
	case trust.Sure():
		c.a.notice(c.contact, "Private conversation with "+c.contact+" started; their key is verified.")
	default:
		c.a.notice(c.contact, "Private conversation with "+c.contact+" started; not verified. Their fingerprint: "+fp.String()+". Compare it with them, then !otr verify FINGERPRINT.")
	}
	if c.unread > 0 {
		c.resend(now)
	}
	c.unread = 0
	c.recent = nil
	c.flush(now)
}

func (c *conversation) add(tag uint32, s *session) {
	if _, there := c.live[tag]; !there && len(c.live) >= maxSessions {
		for old := range c.live {
			if old != c.active {
				c.live[old].engine.Forget()
				delete(c.live, old)
				break
			}
		}
	}
	c.live[tag] = s
}

// resend sends once more what the contact said it could not read: as many of the
// last messages as it sent errors, to the same key only (rules.md O3).
func (c *conversation) resend(now time.Time) {
	again := c.recent
	if n := len(again); n > c.unread {
		again = again[n-c.unread:]
	}
	policy := c.a.settings().Policy(c.contact)
	for _, m := range again {
		s := c.current()
		if action, _ := c.decide(policy); action != Encrypted || s == nil || m.to != s.fp || now.Sub(m.since) > resendWindow {
			continue
		}
		copied := *m
		copied.Text = "[resent] " + m.Text
		c.encrypt(&copied, false)
	}
}

// end ends all sessions politely and forgets the exchanges under way.
func (c *conversation) end() {
	for tag, s := range c.live {
		if s.engine.Encrypted() {
			if msg, err := s.engine.End(); err == nil && msg != "" {
				c.protocol(c.to(s), msg, false)
			}
		}
		s.engine.Forget()
		delete(c.live, tag)
	}
	c.forgetExchanges()
	c.active, c.state = 0, ""
	c.recent, c.unread, c.stale, c.queried = nil, 0, time.Time{}, time.Time{}
}

func (c *conversation) forgetExchanges() {
	if c.mine != nil {
		c.mine.Forget()
	}
	for tag, e := range c.theirs {
		e.Forget()
		delete(c.theirs, tag)
	}
	c.mine, c.commit = nil, ""
}

// to is where messages of a session go: the full JID that answered, until that
// resource goes.
func (c *conversation) to(s *session) string {
	if s.jid != "" {
		return s.jid
	}
	return c.contact
}
