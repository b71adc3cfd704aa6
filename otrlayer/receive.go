package otrlayer

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Incoming is text of a contact, as the server delivered it.
type Incoming struct {
	From    string // full JID
	Contact string // bare JID
	Text    string
	Delayed bool // it was stored somewhere on its way (XEP-0203)
	Welcome bool // the contact may see our presence: a handshake may be answered
}

// A Reading says what becomes of an incoming text. The zero value is: nothing
// reaches the client.
type Reading struct {
	Deliver    bool
	Text       string // to be shown in place of what came
	Changed    bool   // Text differs from what came
	Encrypted  bool   // it was decrypted
	Unreadable bool   // it is a placeholder for what nobody could read
}

// Receive takes a contact's text. Answers of the protocol have been emitted
// through o when it returns.
func (a *Account) Receive(o Outlet, m Incoming) Reading {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.receive(o, m)
	if !r.Deliver {
		a.events.Swallowed()
	}
	return r
}

func (a *Account) receive(o Outlet, m Incoming) Reading {
	now := a.now()
	policy := a.settings().Policy(m.Contact)
	if policy == Never {
		return Reading{Deliver: true, Text: m.Text}
	}
	c := a.convs[m.Contact]
	switch {
	case c == nil && m.Welcome:
		c = a.conv(m.Contact)
	case c == nil:
		c = a.fresh(m.Contact) // strangers leave nothing behind
	}
	if c.outlet == nil {
		c.outlet = o
	}
	w := parseWire(m.Text)
	if w.kind == wireNone {
		return c.clear(now, policy, m)
	}
	if a.key == nil && (w.kind == wireQuery || w.kind == wireEncoded) {
		if len(c.early) < maxEarly {
			c.early = append(c.early, arrival{o, m})
		}
		return Reading{}
	}
	switch w.kind {
	case wireQuery:
		c.queriedBy(now, w, m)
	case wireError:
		c.errorFrom(now, m)
	case wireFragment:
		return c.fragment(now, m, w.piece)
	case wireEncoded:
		return c.encoded(now, m, w)
	case wireOther:
		if !m.Delayed {
			a.notice(c.contact, c.contact+" sent an encrypted message that cannot be read: it is of an OTR version other than 3, or damaged.")
		}
	}
	return Reading{}
}

// mayAnswer reports whether the protocol may answer by itself: never to
// strangers and never to what was stored on its way.
func (c *conversation) mayAnswer(m Incoming) bool { return !m.Delayed && (m.Welcome || c.wrote) }

// clear is text without OTR.
func (c *conversation) clear(now time.Time, policy Policy, m Incoming) Reading {
	text, versions, tagged := cutTag(m.Text)
	r := Reading{Deliver: true, Text: text, Changed: tagged}
	if c.offered && !tagged {
		c.refused = true
	}
	if tagged && strings.Contains(versions, "3") && policy != Manual && c.state != StateEncrypted && c.mayAnswer(m) && c.a.key != nil {
		c.begin(now, m)
	}
	if c.state == StateEncrypted || policy.requires() {
		r.Text, r.Changed = "[otrproxy] Not encrypted: "+text, true
	} else if d := defused(text); d != text {
		r.Text, r.Changed = d, true // nobody else speaks with our voice
	}
	return r
}

func (p Policy) requires() bool { return p == Require || p == RequireVerified }

// queriedBy answers a query with a D-H Commit message.
func (c *conversation) queriedBy(now time.Time, w wireMessage, m Incoming) {
	switch {
	case m.Delayed:
		c.a.notice(c.contact, c.contact+" asked for a private conversation while you were away. Write to them, or !otr start, to begin one.")
	case !c.mayAnswer(m):
		c.a.notice(c.contact, c.contact+", who is not among your contacts, asked for a private conversation. Write to them, or !otr start, to begin one.")
	case !strings.Contains(w.versions, "3"):
		c.a.notice(c.contact, "The program of "+c.contact+" speaks only an old version of OTR (offered: "+w.versions+"); version 3 is needed.")
	default:
		c.begin(now, m)
	}
}

// begin starts an exchange of ours.
func (c *conversation) begin(now time.Time, m Incoming) {
	e := c.a.key.newEngine(c.a.tag)
	commit, err := e.Commit()
	if err != nil {
		c.a.events.Log(8, "an exchange could not be begun", err)
		return
	}
	if c.mine != nil {
		c.mine.Forget()
	}
	c.mine, c.commit, c.refusals = &exchange{e, now}, commit, 0
	c.protocol(m.From, commit, false)
}

// errorFrom handles "?OTR Error:". It is not authenticated: it never ends a
// session and resends nothing by itself. It may start one exchange a minute, and
// until that is settled nothing more is sent on a session the contact seems to
// have lost.
func (c *conversation) errorFrom(now time.Time, m Incoming) {
	if c.state != StateEncrypted || !c.mayAnswer(m) {
		return
	}
	c.forgetRecent(now)
	if c.unread++; c.unread > len(c.recent) {
		c.unread = len(c.recent)
	}
	if c.stale.IsZero() && now.Sub(c.errored) >= queryInterval {
		c.errored = now
		c.stale = now.Add(staleFor)
		c.a.notice(c.contact, c.contact+" could not read your last message; asking for a new private conversation. It is sent again then.")
		c.query(now)
	}
}

func (c *conversation) fragment(now time.Time, m Incoming, f fragment) Reading {
	if f.receiver != 0 && f.receiver != c.a.tag || !m.Welcome && !c.wrote || len(f.piece) > maxEncoded {
		return Reading{}
	}
	a := c.pieces[f.sender]
	if a == nil {
		if len(c.pieces) >= maxExchanges {
			clear(c.pieces)
		}
		a = &assembly{}
		c.pieces[f.sender] = a
	}
	whole, ok := a.add(f)
	if !ok {
		return Reading{}
	}
	delete(c.pieces, f.sender)
	w := parseWire(whole)
	if w.kind != wireEncoded || c.a.key == nil {
		return Reading{}
	}
	return c.encoded(now, m, w)
}

// encoded routes an encoded message to the engine it belongs to.
func (c *conversation) encoded(now time.Time, m Incoming, w wireMessage) Reading {
	h := w.header
	if h.version != 3 {
		if !m.Delayed {
			c.a.notice(c.contact, c.contact+" sent a message of OTR version "+string(rune('0'+h.version%10))+", which cannot be read.")
		}
		return Reading{}
	}
	if h.sender == c.a.tag {
		return Reading{} // our own message played back
	}
	if h.receiver != 0 && h.receiver != c.a.tag {
		return Reading{} // for another device of ours
	}
	if h.typ == typeData {
		return c.data(now, m, w)
	}
	if m.Delayed || !c.mayAnswer(m) {
		return Reading{}
	}
	switch h.typ {
	case typeDHCommit:
		c.commitFrom(now, m, w)
	case typeRevealSig:
		if e := c.theirs[h.sender]; e != nil {
			c.exchange(now, m, w, e)
		}
	case typeDHKey, typeSignature:
		if c.mine != nil {
			c.exchange(now, m, w, c.mine)
		}
	}
	return Reading{}
}

// commitFrom answers a D-H Commit message, or repeats ours where the two have
// crossed and ours has the larger hash (OTR version 3, "Receiving a D-H Commit
// message").
func (c *conversation) commitFrom(now time.Time, m Incoming, w wireMessage) {
	c.forgetStale(now)
	hash, err := commitHash(w.encoded)
	if err != nil {
		return
	}
	if c.mine != nil && c.commit != "" {
		own, err := commitHash(c.commit)
		if err == nil && bytes.Compare(own, hash) > 0 {
			if c.refusals++; c.refusals <= maxExchanges {
				c.protocol(m.From, c.commit, false)
			}
			return
		}
		c.mine.Forget()
		c.mine, c.commit = nil, ""
	}
	// The same engine takes a repeated commit: it answers with the D-H Key message
	// it has sent before, as it must.
	e := c.theirs[w.header.sender]
	if e == nil {
		if len(c.theirs) >= maxExchanges {
			return
		}
		e = &exchange{c.a.key.newEngine(c.a.tag), now}
		c.theirs[w.header.sender] = e
	}
	c.feed(m, w, e)
}

// exchange takes one more message of an exchange, and its result once complete.
func (c *conversation) exchange(now time.Time, m Incoming, w wireMessage, e *exchange) {
	c.feed(m, w, e)
	if w.header.typ == typeDHKey && e == c.mine {
		c.commit = "" // answered; a crossing commit does not bring it back
	}
	if !e.Encrypted() {
		return
	}
	if e == c.mine {
		c.mine, c.commit = nil, ""
	} else {
		delete(c.theirs, w.header.sender)
	}
	c.complete(now, e.engine, w.header.sender, m.From)
}

// feed gives a message to an engine and sends its answers.
func (c *conversation) feed(m Incoming, w wireMessage, e *exchange) {
	_, _, replies, err := e.Receive(w.encoded)
	if err != nil {
		c.a.events.Handshake("failed")
		c.a.events.Log(0, "a handshake message was refused", err)
		return
	}
	for _, r := range replies {
		c.protocol(m.From, r, false)
	}
}

// data decrypts a data message.
func (c *conversation) data(now time.Time, m Incoming, w wireMessage) Reading {
	sum := sha256.Sum256([]byte(w.encoded))
	if slices.Contains(c.read, sum) {
		return Reading{} // another session of the account has got it, or somebody replays it
	}
	s := c.live[w.header.sender]
	if s == nil || !s.engine.Encrypted() {
		return c.unreadable(now, m, w)
	}
	text, ok, replies, err := s.engine.Receive(w.encoded)
	if err != nil {
		c.a.events.Log(0, "a data message was refused", err)
		return c.unreadable(now, m, w)
	}
	if c.read = append(c.read, sum); len(c.read) > maxRead {
		c.read = c.read[1:]
	}
	if !m.Delayed {
		s.jid, s.gone = m.From, false
	}
	for _, r := range replies {
		c.protocol(c.to(s), r, false)
	}
	if s.engine.Finished() {
		c.finished(w.header.sender)
		if !ok {
			return Reading{}
		}
	} else if w.header.sender == c.active {
		c.recent, c.unread = nil, 0 // the session is alive on the other side
		c.stale = time.Time{}
		if len(c.held) > 0 {
			c.flush(now)
		}
	}
	if !ok {
		return Reading{}
	}
	r := Reading{Deliver: true, Text: fromPayload(text), Changed: true, Encrypted: true}
	switch cur := c.current(); {
	case s.trust == Changed, cur != nil && cur.trust.Sure() && !s.trust.Sure():
		r.Text = "[otrproxy] From a key that is not verified: " + r.Text
	default:
		r.Text = defused(r.Text)
	}
	return r
}

// defused marks a text that imitates the proxy's own lines.
func defused(text string) string {
	if strings.HasPrefix(strings.TrimLeftFunc(text, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) }), "[otrproxy]") {
		return "> " + text
	}
	return text
}

// finished notes that the contact has ended the session.
func (c *conversation) finished(tag uint32) {
	s := c.live[tag]
	delete(c.live, tag)
	s.engine.Forget()
	if tag != c.active {
		return
	}
	c.active, c.state = 0, StateFinished
	c.recent, c.unread, c.stale, c.queried = nil, 0, time.Time{}, time.Time{}
	if c.a.settings().Policy(c.contact).requires() {
		c.a.notice(c.contact, c.contact+" has ended the private conversation. Your next message asks for a new one first.")
	} else {
		c.a.notice(c.contact, c.contact+" has ended the private conversation. Write !otr start to be private again, or !otr end to go on without.")
	}
}

// unreadable is a data message no session of ours can read: the session was lost
// when one of the two programs restarted.
func (c *conversation) unreadable(now time.Time, m Incoming, w wireMessage) Reading {
	if w.header.ignorable {
		return Reading{}
	}
	if !c.mayAnswer(m) {
		return Reading{Deliver: true, Changed: true, Unreadable: true, Text: "[otrproxy] An encrypted message that cannot be read any more."}
	}
	if now.Sub(c.answering) >= errorInterval {
		c.answering, c.answers = now, 0
	}
	// One error for each message, for the other side counts them.
	if c.answers++; c.answers <= maxErrors {
		c.protocol(m.From, errorMark+" You sent an encrypted message that could not be read; the private conversation had ended here.", false)
		if c.answers == 1 {
			c.query(now)
		}
	}
	return Reading{Deliver: true, Changed: true, Unreadable: true, Text: "[otrproxy] " + c.contact + " sent a message that could not be read. They have been asked to send it again."}
}

// Presence tells that a resource of a contact has come or gone.
func (a *Account) Presence(o Outlet, from, contact string, available bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.convs[contact]
	if c == nil {
		return
	}
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
	now := a.now()
	arrived := !c.online[from]
	if len(c.online) >= maxOnline {
		clear(c.online)
	}
	c.online[from] = true
	if arrived || c.mine == nil && now.Sub(c.queried) > errorInterval {
		c.attempt(now, true)
	}
}

// Bounced tells that a message of the protocol came back as an error. gone means
// that the contact does not exist.
func (a *Account) Bounced(contact string, gone bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.convs[contact]
	if c == nil {
		return
	}
	c.forgetExchanges()
	if !gone {
		return
	}
	for _, m := range c.held {
		a.giveBack(m, CauseBounced)
	}
	c.held, c.heldBytes, c.told = nil, 0, false
	a.schedule()
}

// Scrub turns a text the engine must not see (a copy, something from an archive)
// into what may be shown: OTR becomes a placeholder, whitespace tags go.
func Scrub(text string) (shown string, changed bool) {
	switch parseWire(text).kind {
	case wireNone:
		clean, _, tagged := cutTag(text)
		safe := defused(clean)
		return safe, tagged || safe != clean
	case wireQuery:
		return "[otrproxy] A request for a private conversation.", true
	}
	return "[otrproxy] An encrypted message, readable only where it was received.", true
}
