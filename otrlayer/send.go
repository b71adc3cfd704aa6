package otrlayer

import (
	"cmp"
	"encoding/base64"
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"

	"otrproxy/otrlayer/keyring"
	"otrproxy/otrlayer/otr"
	"otrproxy/otrlayer/text"
)

// The way of a text out:
//
//	Send      takes it from the client; Pass, what is no text
//	decide    says what may become of it (decide.go); nothing else does
//	encrypt   makes a data message, and emits it
//	hold      queues it for a private conversation; flush, when that has come

// Send takes a message from a client, under the rule for its contact. What the verdict permits
// to leave has been emitted through o when it returns; with Block the caller returns the message
// to the client, with Held it will be emitted or given back later.
func (a *Account) Send(o Outlet, m Message, rule Rule) Verdict {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	m.outlet, m.since = o, now
	rule = a.inForce(rule, m.Contact)
	if a.closed || a.guestOf != nil || rule.Policy == Never {
		action, cause := a.decide(&m, rule, Typed)
		return a.emitted(o, Verdict{action: action, cause: cause, message: &m, to: m.To})
	}
	if a.full(m.Contact) {
		return Verdict{cause: CauseQueueFull, message: &m}
	}
	set := a.settings()
	a.needKey(false)
	c := a.conv(m.Contact)
	defer c.settle(now)
	c.outlet, c.wrote = o, true
	if c.untold != nil {
		a.notice(*c.untold)
		c.untold = nil
	}
	if m.Text == "" { // the caller has found no text
		return Verdict{cause: CauseUnprotected, message: &m}
	}
	if typedWish(m.Text) { // the person's client sends a query: the wish to start
		c.start(now)
		return Verdict{action: Protocol}
	}
	if speaksOTR(m.Text) {
		return Verdict{cause: CauseOwnOTR, message: &m}
	}
	if len(c.held) > 0 {
		c.flush(now) // nothing overtakes what waits
	}
	c.choose(now, m.To)
	switch action, cause := a.decide(&m, rule, Typed); action {
	case Encrypted:
		if set.Largest > 0 && encodedLen(m.Text) > set.Largest {
			return Verdict{cause: CauseTooLarge, message: &m}
		}
		if c.overtakes(&m) {
			return c.hold(now, set.Hold, &m, CauseExpired)
		}
		switch c.encrypt(&m) {
		case nil:
			return Verdict{action: Encrypted, message: &m}
		case errNobody:
			return c.hold(now, set.Hold, &m, CauseExpired)
		}
		return Verdict{cause: CauseEngine, message: &m}
	case Plain:
		// What waited for a private conversation is not sent without one, and nothing
		// overtakes it.
		c.giveBack(CauseFinished)
		v := Verdict{action: action, message: &m, to: m.To}
		if rule.Policy == Opportunistic && !c.refused && a.key != nil {
			v.body = m.Text + otr.WhitespaceTag(set.versions(m.Contact))
			c.offered = true
		}
		return a.emitted(o, v)
	case Held:
		if set.Largest > 0 && encodedLen(m.Text) > set.Largest {
			return Verdict{cause: CauseTooLarge, message: &m}
		}
		return c.hold(now, set.Hold, &m, cause)
	default:
		return Verdict{cause: cause, message: &m}
	}
}

// speaksOTR reports whether a typed text is a message of the protocol: the client
// speaks OTR itself.
func speaksOTR(text string) bool {
	if !strings.HasPrefix(text, "?OTR") {
		return false
	}
	switch otr.Parse([]byte(text)).Kind {
	case otr.Encoded, otr.Fragment, otr.Error:
		return true
	}
	return false
}

// typedWish reports whether a typed text is a bare query: the person's wish for
// a private conversation.
func typedWish(text string) bool {
	text = strings.TrimSpace(text)
	return strings.HasPrefix(text, "?OTR") && wish.MatchString(text)
}

var wish = regexp.MustCompile(`^\?OTR(?:\?|\??v[0-9]{1,4}\?)$`)

// Pass emits a message as it is, where the rule for its contact lets what it carries leave so: one
// for a room, a chat state, a receipt. The cause is why it did not; m is not kept.
func (a *Account) Pass(o Outlet, m *Message, rule Rule, what Content) Cause {
	a.mu.Lock()
	defer a.mu.Unlock()
	m.outlet = o
	action, cause := a.decide(m, a.inForce(rule, m.Contact), what)
	if action != Plain {
		return cmp.Or(cause, CauseUnprotected)
	}
	return a.emitted(o, Verdict{action: action, message: m, to: m.To}).cause
}

// emitted emits what a decision permits through a session, and is the verdict; a refusal where
// the session takes nothing more.
func (a *Account) emitted(o Outlet, v Verdict) Verdict {
	if v.action == Plain && !o.Emit(v) {
		return Verdict{cause: CauseUpstream, message: v.message}
	}
	return v
}

// waitsFor is why a held message could not be sent, once its time is over.
func (c *conversation) waitsFor() Cause {
	if s := c.current(); s != nil {
		if s.trust == keyring.Changed {
			return CauseKeyChanged
		}
		if !s.trust.Sure() && c.a.settings().Policy(c.contact) == RequireVerified {
			return CauseUnverified
		}
	}
	return CauseExpired
}

var (
	// errNobody says that no client is connected through which a message could leave.
	errNobody = errors.New("no session to the server")
	// errOtherKey says that a message is not to be sent again, for the key is another.
	errOtherKey = errors.New("another key than the message went to before")
)

// encodedLen is the size of the data message that carries a text.
func encodedLen(body string) int {
	const overhead = 700 // header, next key, revealed MAC keys
	return base64.StdEncoding.EncodedLen(text.PayloadLen(body)) + overhead
}

// encrypt sends a message on the live session, and keeps it in case the contact cannot read it.
func (c *conversation) encrypt(m *Message) error {
	s := c.current()
	if s == nil || len(c.a.outlets) == 0 {
		return errNobody
	}
	d := desks.Get().(*desk)
	defer d.leave()
	said := m.Text
	if m.again {
		said = "[resent] " + said
	}
	d.plain = append(d.plain[:0], text.ToPayload(said, c.formatOf(s).Reads)...)
	var err error
	if d.sealed, err = c.otr.AppendEncrypt(d.sealed[:0], c.a.now(), c.active, d.plain); err != nil {
		c.a.events.Log(4, "a message could not be encrypted", err)
		return err
	}
	sent := *m
	sent.Raw, sent.Rewrite, sent.to, sent.ssid, sent.at, sent.kept = nil, nil, s.Fingerprint, s.SSID, c.to(s), nil
	sent.overdue = false
	if engine, ok := c.otr.Session(c.active); ok {
		sent.count = engine.Sent
	}
	c.spoke = c.a.now()
	if !c.emit(m.outlet, Verdict{action: Encrypted, message: &sent, to: sent.at, sealed: d.sealed, store: true}) {
		return errNobody
	}
	if !m.again { // else the account's other clients have shown it
		c.a.mirror(Mirrored{By: m.outlet, Sent: true, To: m.To, ID: m.ID, Type: m.Type, Text: m.Text})
	}
	sent.Extra = nil
	sent.since = c.a.now()
	c.forgetRecent(sent.since)
	if len(c.recent) >= maxRecent {
		c.a.unkeep(&c.recent[0].kept)
		c.recent = slices.Delete(c.recent, 0, 1)
	}
	c.recent = append(c.recent, &sent)
	c.keep(keptText{sent: &sent, size: textOverhead + len(sent.Text) + len(sent.ID) + len(sent.To) + len(sent.at)})
	return nil
}

// resendUntil is when the oldest message kept for resending may be forgotten.
func (c *conversation) resendUntil() time.Time {
	if len(c.recent) == 0 {
		return time.Time{}
	}
	return c.recent[0].since.Add(resendWindow + time.Millisecond)
}

// forgetRecent drops what is too old to be sent again. What the contact said it could not
// read is given back then.
func (c *conversation) forgetRecent(now time.Time) {
	if len(c.recent) == 0 || now.Sub(c.recent[0].since) <= resendWindow {
		return
	}
	complained := c.complained()
	var unread, lost []*Message
	c.forgetSent(func(m *Message) bool {
		if now.Sub(m.since) <= resendWindow {
			return false
		}
		if from, ok := complained[m]; ok {
			c.unread[from]--
			for k := range c.heard {
				if k.from == from && c.heard[k] > 0 {
					c.heard[k]--
				}
			}
			if m.forgotten {
				lost = append(lost, m)
			} else {
				unread = append(unread, m)
			}
		}
		return true
	})
	c.a.returned(CauseUnread, false, unread...)
	c.lost(lost)
	if len(c.recent) == 0 {
		c.calm("")
	}
}

// MaxHeld is how many times what may wait for one contact may wait in one account: a
// client that has gone mad takes no memory from the others.
const MaxHeld = 16
