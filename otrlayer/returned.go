package otrlayer

import (
	"cmp"
	"slices"
)

// Returned tells that a message of the person's came back from the server as an error to a
// client's session: it is not sent again. It is the message as far as it is known, nil for
// not; where another client has written it, that one gets it back, and elsewhere is true.
func (a *Account) Returned(o Outlet, contact, id string) (m *Message, elsewhere bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.convs[contact]
	if c == nil || id == "" {
		return nil, false
	}
	i := slices.IndexFunc(c.recent, func(m *Message) bool { return m.ID == id && m.outlet == o })
	if i < 0 { // of another client, whose ids may be like the first one's
		i = slices.IndexFunc(c.recent, func(m *Message) bool { return m.ID == id })
	}
	if i < 0 {
		return nil, false
	}
	defer c.settle(a.now())
	m = c.recent[i]
	c.forgetSent(func(x *Message) bool { return x == m })
	if m.outlet == o || m.outlet == nil || !a.attached(m.outlet) {
		return m, false
	}
	if !handBack(m.outlet, m, Why{Cause: CauseBounced}) {
		return m, false
	}
	return m, true
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
	now := a.now()
	defer c.settle(now)
	if c.otr != nil {
		c.otr.Abort()
	}
	if gone {
		c.giveBack(CauseBounced)
		return
	}
	if len(c.held) == 0 {
		return
	}
	if c.retry.IsZero() {
		c.retry = now.Add(retryAfter)
	}
	if !c.unreached { // once, as long as it waits
		c.unreached, c.told = true, true
		a.notice(c.about(SayUnreached))
	}
}

// The way back of a message that was not sent:
//
//	Refuse, GiveBack   take it: one that may not leave, and one that has not arrived
//	returned           hands it to a client as an error, or keeps it until one comes
//	NotSent            is the line in the conversation: what was not sent, and why
//
// The error alone is not enough: many programs show it without its reason, or not at all.

// A Sign is a client's of a message that came back.
type Sign uint8

// The signs.
const (
	NoSign    Sign = iota // the client takes nothing more, and the message is not with it
	Unseen                // it has the message back, and does not show the person why
	SeenWhy               // it shows them that it came back, and why, somewhere
	SeenThere             // it shows that in the conversation itself
)

// owing is a message that no client was there to get back.
type owing struct {
	m *Message
	c Cause
}

// MaxOwed bounds what is kept for a client that never comes back.
const MaxOwed = 1000

// Refuse returns a message that may not leave to the client it has just come from. Unprotected
// names what OTR cannot protect, where that is the cause.
func (a *Account) Refuse(o Outlet, m *Message, c Cause, unprotected string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	why := a.why(c, m.Contact)
	why.Unprotected = unprotected
	if !handBack(o, m, why) { // the client is gone already; another or the next one is told
		a.returned(c, false, m)
	}
}

// handBack returns a message to a client, with a line where the client does not show why; false
// where it takes nothing more.
func handBack(o Outlet, m *Message, why Why) bool {
	sign := o.Return(m, why)
	if sign == Unseen {
		o.Notice(m.where(), NotSent(why, m))
	}
	return sign != NoSign
}

// GiveBack returns messages that did not leave to the client that has written them, or to
// another one of the account.
func (a *Account) GiveBack(c Cause, list ...*Message) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, m := range list {
		conv := a.convs[m.Contact]
		if conv == nil || m.ID == "" {
			continue
		}
		conv.forgetSent(func(x *Message) bool { // and then it is not sent again
			same := x.ID == m.ID && x.outlet == m.outlet
			if same {
				list[i] = x // with its text
			}
			return same
		})
		conv.held = slices.DeleteFunc(conv.held, func(x *Message) bool { // nor is it about to be
			same := x.again && x.ID == m.ID && x.outlet == m.outlet
			if same {
				list[i] = x
				conv.heldBytes -= len(x.Text) + len(x.Extra)
			}
			return same
		})
		conv.settle(a.now())
	}
	a.giveBack(c, list)
}

// giveBack is returned for messages to several contacts.
func (a *Account) giveBack(c Cause, list []*Message) {
	for len(list) > 0 {
		n := 1
		for n < len(list) && list[n].where() == list[0].where() {
			n++
		}
		a.returned(c, false, list[:n]...)
		list = list[n:]
	}
}

// returned hands messages of one conversation back, for one cause: to the client that handed
// each over, to another one of the account, or to the next that comes. One line says so where
// a client does not; and to all, but who shows it in the conversation itself, where a line had
// promised that they would be sent.
func (a *Account) returned(c Cause, promised bool, list ...*Message) {
	if len(list) == 0 {
		return
	}
	why := a.why(c, list[0].Contact)
	unseen, there := map[Outlet][]*Message{}, map[Outlet]int{}
	for _, m := range list {
		a.events.Happened(m.Contact, EventReturned)
		switch o, sign := a.comesBack(m, why); sign {
		case Unseen:
			unseen[o] = append(unseen[o], m)
		case SeenThere:
			there[o]++
		}
	}
	for _, o := range a.outlets {
		switch {
		case promised && there[o] < len(list):
			o.Notice(list[0].where(), NotSent(why, list...))
		case len(unseen[o]) > 0:
			o.Notice(list[0].where(), NotSent(why, unseen[o]...))
		}
	}
}

// comesBack hands one message back and says to whom, and what they see of it; to nobody where it
// is kept for the next client.
func (a *Account) comesBack(m *Message, why Why) (to Outlet, seen Sign) {
	if m.outlet != nil && a.attached(m.outlet) {
		if sign := m.outlet.Return(m, why); sign != NoSign {
			return m.outlet, sign
		}
	}
	for _, o := range slices.Backward(a.outlets) {
		if o != m.outlet && o.Return(m, why) != NoSign {
			return o, Unseen // it does not know the message
		}
	}
	switch {
	case a.inherited: // its person has gone on without it
		a.guestOf.GiveBack(why.Cause, m)
	case len(a.owed) < MaxOwed:
		a.owed = append(a.owed, owing{m, why.Cause})
		a.publish()
	default:
		a.events.Log(8, "a message could not be given back: too many wait for a client already", nil)
	}
	return nil, NoSign
}

// repay hands back what no client was there to get.
func (a *Account) repay(owed []owing) {
	for len(owed) > 0 {
		c := owed[0].c
		var list []*Message
		for len(owed) > 0 && owed[0].c == c {
			list, owed = append(list, owed[0].m), owed[1:]
		}
		a.giveBack(c, list)
	}
}

// Owed is how many messages wait to be given back to a client.
func (a *Account) Owed() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.owed)
}

// giveBack returns what waits in a conversation, and says how much that was.
func (c *conversation) giveBack(cause Cause) (n int) {
	held, promised := c.held, c.told
	c.held, c.heldBytes = nil, 0
	c.nothingWaits()
	c.a.returned(cause, promised, held...)
	return len(held)
}

// nothingWaits notes that, so that the next message that waits is told of again, and ends the
// promise that what waited would be sent.
func (c *conversation) nothingWaits() {
	told, n := c.told, c.released
	c.told, c.unreached, c.released = false, false, 0
	if !told || n == 0 || c.a.notice(Notice{What: SaySent, Contact: c.contact, N: n}) {
		return
	}
	if c.a.sent == nil {
		c.a.sent = map[string]int{}
	}
	if len(c.a.sent) < MaxOwed {
		c.a.sent[c.contact] += n // the next client is told
	}
}

// where is the conversation that lines about the message stand in.
func (m *Message) where() string { return cmp.Or(m.Where, m.Contact) }
