package otrlayer

import (
	"slices"
	"time"

	"otrproxy/otrlayer/otr"
)

// emit queues what is encrypted, or of the OTR protocol, preferably through the
// session of the client that it came from. As long as the connection that was used last
// may have something on its way, no other is used for a text: the later message could
// come first, and the earlier be taken for a replay. Where the server does not say what
// it has got, that is taken to last a moment. It reports false when nobody takes it.
func (c *conversation) emit(preferred Outlet, v Verdict) bool {
	now := c.a.now()
	if only := c.a.outlets; len(only) == 1 { // there is no choice
		if !only[0].Emit(v) {
			return false
		}
		c.carrier, c.carried = only[0], now
		return true
	}
	waiting := c.carrier != nil && c.a.attached(c.carrier) && c.carrier.Pending()
	var order []Outlet
	if waiting || now.Sub(c.carried) < oneCarrier {
		order = append(order, c.carrier)
	}
	if !waiting || v.action != Encrypted {
		order = append(order, preferred)
		for _, o := range slices.Backward(c.a.outlets) {
			order = append(order, o)
		}
	}
	for i, o := range order {
		if o != nil && !slices.Contains(order[:i], o) && c.a.attached(o) && o.Emit(v) {
			c.carrier, c.carried = o, now
			return true
		}
	}
	return false
}

// protocol sends a message of the OTR protocol itself.
func (c *conversation) protocol(to, body string, store bool) bool {
	return c.emit(c.outlet, Verdict{action: Protocol, to: to, body: body, store: store})
}

// question is the text of a query.
func (c *conversation) question() string {
	return string(otr.NewQuery(c.a.settings().versions(c.contact), c.a.jid+" asks for a private conversation with OTR (Off-the-Record) encryption. "+
		"If you can read this, your program has no OTR or has it turned off; see https://otr.im/ for programs that have it."))
}

// query asks the contact for a private conversation.
func (c *conversation) query(now time.Time) {
	if c.protocol(c.contact, c.question(), true) {
		c.queried = now
		c.tries++
	}
}

// attempt asks for a private conversation where messages wait for one. again
// overrides the pause between two queries.
func (c *conversation) attempt(now time.Time, again bool) {
	if !c.lacks() {
		return
	}
	if !again && (c.engine().Exchanging(now) || now.Sub(c.queried) < queryInterval) {
		return
	}
	c.ask(now)
}

// lacks reports whether something waits for a private conversation that the contact could
// begin, and for no decision of the person's.
func (c *conversation) lacks() bool {
	if len(c.held) == 0 || c.a.key == nil {
		return false
	}
	s := c.current()
	return s == nil || !c.stale.IsZero() || s.gone || c.low(s)
}
