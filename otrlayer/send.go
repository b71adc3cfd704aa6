package otrlayer

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"maps"
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
		switch c.encrypt(&m, true) {
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
	action, cause := a.decide(m, rule, what)
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

// encrypt sends a message on the live session.
func (c *conversation) encrypt(m *Message, remember bool) error {
	s := c.current()
	if s == nil || len(c.a.outlets) == 0 {
		return errNobody
	}
	d := desks.Get().(*desk)
	defer d.leave()
	d.plain = append(d.plain[:0], text.ToPayload(m.Text, c.formatOf(s).Reads)...)
	var err error
	if d.sealed, err = c.otr.AppendEncrypt(d.sealed[:0], c.a.now(), c.active, d.plain); err != nil {
		c.a.events.Log(4, "a message could not be encrypted", err)
		return err
	}
	sent := *m
	sent.Raw, sent.Rewrite, sent.to, sent.ssid, sent.at, sent.kept = nil, nil, s.Fingerprint, s.SSID, c.to(s), nil
	if engine, ok := c.otr.Session(c.active); ok {
		sent.count = engine.Sent
	}
	c.spoke = c.a.now()
	if !c.emit(m.outlet, Verdict{action: Encrypted, message: &sent, to: sent.at, sealed: d.sealed, store: true}) {
		return errNobody
	}
	if remember { // what is sent again has been shown
		c.a.mirror(Mirrored{By: m.outlet, Sent: true, To: m.To, ID: m.ID, Type: m.Type, Text: m.Text})
		sent.Extra = nil
		sent.since = c.a.now()
		c.forgetRecent(sent.since)
		if len(c.recent) >= maxRecent {
			c.a.unkeep(&c.recent[0].kept)
			c.recent = slices.Delete(c.recent, 0, 1)
		}
		c.recent = append(c.recent, &sent)
		c.keep(keptText{sent: &sent, size: textOverhead + len(sent.Text) + len(sent.ID) + len(sent.To) + len(sent.at)})
	}
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

// calm forgets the complaints of a program; "" for those of all.
func (c *conversation) calm(from string) {
	if len(c.unread)+len(c.heard) == 0 {
		return
	}
	maps.DeleteFunc(c.unread, func(k string, _ int) bool { return from == "" || k == from })
	maps.DeleteFunc(c.heard, func(k complaint, _ int) bool { return from == "" || k.from == from })
}

// complained finds the messages that the contact said it could not read, and the program
// that said so: as many of the last ones that went to it as it sent errors. Errors from
// where nothing went are those of a program that has come back under another resource.
func (c *conversation) complained() map[*Message]string {
	of := map[*Message]string{}
	for _, moved := range []bool{false, true} {
		for from, n := range c.unread {
			if moved == slices.ContainsFunc(c.recent, func(m *Message) bool { return m.at == from }) {
				continue
			}
			for _, m := range slices.Backward(c.recent) {
				if _, taken := of[m]; n > 0 && !taken && (moved || m.at == from) {
					of[m] = from
					n--
				}
			}
		}
	}
	return of
}

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

// MaxHeld is how many times what may wait for one contact may wait in one account: a
// client that has gone mad takes no memory from the others.
const MaxHeld = 16

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
// went to before, and is not kept another time.
func (c *conversation) release(m *Message) error {
	if !m.again {
		return c.encrypt(m, true)
	}
	if m.to != c.current().Fingerprint {
		return errOtherKey
	}
	copied := *m
	copied.Text = "[resent] " + m.Text
	return c.encrypt(&copied, false)
}

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
