package otrlayer

import (
	"errors"
	"time"

	"otrproxy/otrlayer/keyring"
	"otrproxy/otrlayer/otr"
	"otrproxy/otrlayer/text"
)

// Incoming is text of a contact, as the server delivered it.
type Incoming struct {
	From    string // full JID
	Contact string // bare JID
	To      string // as it was addressed
	ID      string
	Type    string // XMPP's message type
	Text    string
	Bytes   []byte    // the text, where the caller has it so: looked at until Receive returns
	Delayed bool      // it was stored somewhere on its way (XEP-0203)
	Sent    time.Time // when, as the server has it; zero where it does not say
	Welcome bool      // the contact may see our presence: a handshake may be answered
	// Copy says that it stands in a carbon or in what an archive gave: what a person
	// wrote is read where that can be done; nothing else is, and nothing is answered.
	Copy bool
	// Shared says that it was sent to the bare JID, and so reaches all clients of the
	// account.
	Shared bool
	// Marked says that the stanza looks like one of a proxy like this one: it names its
	// encryption (XEP-0380), as few programs do, or has an id as we give to handshakes.
	Marked bool
}

// text is the text, which is kept from then on.
func (m *Incoming) text() string {
	if m.Bytes != nil {
		m.Text, m.Bytes = string(m.Bytes), nil
	}
	return m.Text
}

// A Reading says what becomes of an incoming text. The zero value is: nothing
// reaches the client.
type Reading struct {
	Deliver    bool
	Text       string // to be shown in place of what came
	Changed    bool   // Text differs from what came
	Encrypted  bool   // it was decrypted
	Unreadable bool   // it is a placeholder for what nobody could read
	Complaint  bool   // it was an OTR error, and has been counted
	Answerable bool   // a receipt may be given: they are no stranger
	Clear      bool   // it came in clear where encryption is expected, and says so
	// NotBefore is the earliest moment at which what was decrypted can have been sent: a
	// server that says it was earlier does not tell the truth.
	NotBefore time.Time
}

// Receive takes a contact's text. Answers of the protocol have been emitted
// through o when it returns.
func (a *Account) Receive(o Outlet, m Incoming) Reading {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.guestOf != nil {
		return a.guestReceives(m)
	}
	defer a.publish() // also what it has left with nobody
	r := a.receive(o, m)
	c := a.convs[m.Contact]
	r.Answerable = m.Welcome || c != nil && c.wrote
	if r.Deliver {
		o.Shows()
	}
	return r
}

// leave keeps a conversation in which a text of the contact's has left something.
func (c *conversation) leave(now time.Time, o Outlet, welcome bool) {
	if c.a.convs[c.contact] != c {
		if !welcome && c.newcomer || !c.left(now) || !c.a.admit(c) {
			c.discard()
			return
		}
	}
	c.touched(o)
	c.settle(now)
}

func (a *Account) receive(o Outlet, m Incoming) Reading {
	now := a.now()
	policy := a.settings().Policy(m.Contact)
	if policy == Never {
		return Reading{Deliver: true, Text: m.text()}
	}
	c := a.convs[m.Contact]
	switch {
	case c == nil: // what is kept of it begins as any other; strangers leave nothing behind
		c = a.begun(m.Contact)
	}
	c.newcomer = c.standing() == others
	c.stranger = c.newcomer && !m.Welcome
	if c.outlet == nil {
		c.outlet = o
	}
	defer c.leave(now, o, m.Welcome)
	w := c.parsed(&m)
	if w.Kind == otr.Plain || w.Kind == otr.Tagged {
		return c.clear(now, policy, m, w)
	}
	if m.Copy {
		return c.copied(now, o, m, w)
	}
	if a.key == nil && (w.Kind == otr.Query || w.Kind == otr.Encoded) {
		a.needKey(false)
		switch size := len(m.text()) + len(m.ID) + len(m.From); {
		case len(c.early) < maxEarly && a.total.early < maxAllEarly && size <= maxEarlyBytes:
			c.early = append(c.early, arrival{o, m})
			return Reading{}
		case w.Kind == otr.Query:
			return Reading{}
		}
		return unread(w)
	}
	// Of data messages only those matter that cannot be read: the others are known by their
	// ciphertext.
	data := w.Kind == otr.Encoded && w.Type == otr.Data
	if !data && w.Kind != otr.Error && !m.Delayed && c.echo(now, o, m) {
		return Reading{}
	}
	switch w.Kind {
	case otr.Query:
		c.queriedBy(now, w, m)
	case otr.Error:
		c.errorFrom(now, o, m)
		return Reading{Complaint: true}
	case otr.Fragment:
		return c.fragment(now, o, m, w)
	case otr.Encoded:
		return c.encoded(now, o, m, w)
	case otr.Foreign:
		if !m.Delayed {
			c.tell(now, topicDamaged, c.about(SayDamaged))
		}
	}
	return Reading{}
}

// mayAnswer reports whether the protocol may answer by itself: never to
// strangers and never to what was stored on its way.
func (c *conversation) mayAnswer(m Incoming) bool {
	return !m.Delayed && !m.Copy && (m.Welcome || c.wrote)
}

// clear is text without OTR.
func (c *conversation) clear(now time.Time, policy Policy, m Incoming, w otr.Message) Reading {
	tagged := w.Kind == otr.Tagged
	shown := m.text()
	if tagged {
		clean, _, _ := otr.CutTag([]byte(shown))
		shown = string(clean)
	}
	r := Reading{Deliver: true, Text: shown, Changed: tagged}
	if c.offered && !tagged && !m.Copy {
		c.refused = true
	}
	// A contact that we have asked, or that has begun, needs no second exchange.
	asked := now.Sub(c.queried) < askedFor || c.otr != nil && c.otr.Exchanging(now)
	if tagged && policy != Manual && c.state != StateEncrypted && !asked && c.mayAnswer(m) && c.a.key != nil {
		if v := w.Versions.Best(c.a.settings().versions(c.contact)); v != 0 {
			c.begin(now, v, m)
		}
	}
	switch expected := c.state == StateEncrypted || policy.requires(); {
	case expected && c.a.drops(c.contact) && !(m.Copy && m.Delayed): // an archive may be older than the rule
		if !c.stranger { // who is not worth a line
			c.tell(now, topicDropped, c.about(SayDropped))
		}
		return Reading{}
	case expected:
		r.Text, r.Changed, r.Clear = text.Clear(shown), true, true
	default:
		if d := text.Defused(shown); d != shown {
			r.Text, r.Changed = d, true
		}
	}
	return r
}

// drops reports whether a contact's clear text is not to be shown.
func (a *Account) drops(contact string) bool {
	drop := a.settings().Drop
	return drop != nil && drop(contact)
}

func (p Policy) requires() bool { return p == Require || p == RequireVerified }

// queriedBy answers a query with a D-H Commit message.
func (c *conversation) queriedBy(now time.Time, w otr.Message, m Incoming) {
	allowed := c.a.settings().versions(c.contact)
	v := w.Versions.Best(allowed)
	switch {
	case m.Delayed:
		c.tell(now, topicAway, c.about(SayWantedAway))
	case !c.mayAnswer(m):
		c.tell(now, topicAsked, c.about(SayWanted))
	case v == 0 && w.Versions == 0:
		c.tell(now, topicVersion, c.about(SayOldOnly))
	case v == 0:
		c.tell(now, topicVersion, Notice{What: SayOtherOnly, Contact: c.contact, Spoken: w.Versions.String(), Allowed: allowed.String()})
	default:
		c.begin(now, v, m)
	}
}

// begin starts an exchange of ours.
func (c *conversation) begin(now time.Time, v otr.Version, m Incoming) {
	if !c.mayWork(now) {
		return
	}
	commit, err := c.engine().Commit(now, v)
	if err != nil {
		c.a.events.Log(4, "an exchange could not be begun", err)
		return
	}
	c.protocol(m.From, string(commit), false)
	c.under = true
}

// partner notes where an instance's handshakes come from.
func (c *conversation) partner(instance uint32, from string) {
	if c.partners == nil || len(c.partners) >= places {
		c.partners = map[uint32]string{}
	}
	c.partners[instance] = from
}

func (c *conversation) fragment(now time.Time, o Outlet, m Incoming, w otr.Message) Reading {
	if !m.Welcome && !c.wrote || c.a.key == nil {
		return Reading{}
	}
	whole, ok, err := c.engine().Assemble(now, w)
	room := MaxPieceBytes
	if c.standing() == others {
		room /= 2
	}
	if c.a.total.pieces-c.counted.pieces+c.otr.Unfinished() > room {
		c.otr.Discard()
	}
	if err != nil || !ok {
		return Reading{}
	}
	return c.encoded(now, o, m, whole)
}

// encoded gives an encoded message to the engine.
func (c *conversation) encoded(now time.Time, o Outlet, m Incoming, w otr.Message) Reading {
	if w.Type == otr.Data {
		return c.data(now, o, m, w)
	}
	if m.Delayed || !c.mayAnswer(m) {
		return Reading{}
	}
	if w.Type == otr.DHCommit && now.Sub(c.recanted) < askedFor {
		return Reading{} // it answers a query from before the person has ended the conversation
	}
	if !c.mayWork(now) {
		return Reading{}
	}
	res, err := c.engine().Receive(now, w)
	c.partner(w.Sender, m.From)
	c.under = true
	switch {
	case errors.Is(err, otr.ErrVersion):
		c.tell(now, topicVersion, c.about(SayForbidden))
	case errors.Is(err, otr.ErrReflected):
		c.a.events.Handshake("refused")
		c.tell(now, topicReflected, c.about(SayReflected))
	case errors.Is(err, otr.ErrNotForUs), errors.Is(err, otr.ErrUnexpected):
	case err != nil:
		c.a.events.Handshake("failed")
		c.a.events.Log(0, "a handshake message was refused", err)
	}
	for _, r := range res.Replies {
		c.protocol(m.From, string(r), false)
	}
	c.proxied = m.Marked
	c.handle(now, res.Events, m.From)
	return Reading{}
}

// data decrypts a data message.
func (c *conversation) data(now time.Time, o Outlet, m Incoming, w otr.Message) Reading {
	d := desks.Get().(*desk)
	defer d.leave()
	sum := w.Sum(&d.opened)
	if r := c.known(sum); r != nil {
		return r.again(o)
	}
	res, err := c.engine().Receive(now, w)
	if errors.Is(err, otr.ErrNotForUs) || errors.Is(err, otr.ErrReplayed) {
		return Reading{}
	}
	s := c.live[res.Session]
	if err != nil || s == nil {
		c.a.events.Log(0, "a data message was refused", err)
		return c.unreadable(now, m, w, sum, !m.Delayed && c.echo(now, o, m))
	}
	if !m.Delayed {
		c.moved(s, m.From)
	}
	for _, r := range res.Replies {
		c.protocol(c.to(s), string(r), false)
	}
	return c.opened(now, o, m, s, sum, res)
}

// opened is a data message that a session could read.
func (c *conversation) opened(now time.Time, o Outlet, m Incoming, s *session, sum [32]byte, res otr.Result) Reading {
	trust, writes := s.trust, c.formatOf(s).Writes
	c.handle(now, res.Events, m.From)
	c.forgetSent(func(x *Message) bool { return x.ssid == s.SSID && x.count <= res.Read })
	c.calm(m.From) // the session is alive on the other side
	if res.Session == c.active && c.state == StateEncrypted {
		c.stale = time.Time{}
		if len(c.held) > 0 {
			c.flush(now)
		}
	}
	r := Reading{}
	if res.Text != nil {
		if s.program == text.AnotherProxy { // it marks each
			s.program = c.programBefore(s)
			writes = c.formatOf(s).Writes
		}
		switch {
		case m.Marked:
			writes = text.Unknown // a proxy like this one stands before that program
			s.program = text.AnotherProxy
		case s.program == "" && text.NoHTML.Match(res.Text):
			writes = text.PlainText
			c.isProgram(s, text.RawProgram)
		}
		r = Reading{Deliver: true, Text: text.FromPayload(string(res.Text), writes), Changed: true, Encrypted: true, NotBefore: res.NotBefore}
		switch cur := c.current(); {
		case trust == keyring.Changed, cur != nil && cur.trust.Sure() && !trust.Sure():
			r.Text = text.Marked("From a key that is not verified: ", r.Text)
		default:
			r.Text = text.Defused(r.Text)
		}
	}
	kept := c.remember(now, o, sum, r)
	c.mirrored(o, m, kept)
	if r.Deliver {
		c.keep(keptText{read: kept, size: textOverhead + len(r.Text) + len(m.From) + len(m.To) + len(m.ID) + len(m.Type)})
	}
	return r
}

// Expects reports whether a contact's text is expected to be encrypted now.
func (a *Account) Expects(contact string) bool {
	if a.guestOf != nil {
		return a.guestOf.Expects(contact)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	policy := a.settings().Policy(contact)
	c := a.convs[contact]
	return policy.requires() || policy != Never && c != nil && c.state == StateEncrypted
}

// finished notes that the contact has ended the session.
func (c *conversation) finished(now time.Time, id otr.ID) {
	delete(c.live, id)
	if id != c.active || c.state != StateEncrypted {
		return
	}
	c.over(StateFinished)
	if c.a.settings().Policy(c.contact).requires() {
		c.tell(now, topicEnded, c.about(SayEnded))
	} else {
		c.tell(now, topicEnded, c.about(SayEndedOpen))
	}
}
