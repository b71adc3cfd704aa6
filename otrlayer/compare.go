package otrlayer

import (
	"errors"
	"strings"
	"time"
	"unicode"

	"otrproxy/otrlayer/keyring"
	"otrproxy/otrlayer/otr"
	"otrproxy/otrlayer/text"
)

// Comparing secrets (SMP): from either side, with a question or without.

// What stands in the way of a comparison.
var (
	ErrNotPrivate  = errors.New("there is no private conversation to compare a secret in")
	ErrComparing   = errors.New("another comparison of secrets is under way")
	ErrNotAsked    = errors.New("they have asked nothing")
	ErrKeyChanged  = errors.New("their key has changed, and the question would go to whoever has the new one")
	ErrUnreachable = errors.New("no client is connected through which it could be sent")
)

// An asked is what a contact wants to compare.
type asked struct{ question string }

// Compare asks a contact to compare a secret, with a question where question is not
// nil. The secret is not kept.
func (a *Account) Compare(o Outlet, contact string, question *string, secret string) error {
	return a.comparing(o, contact, func(now time.Time, c *conversation) ([]byte, error) {
		if question != nil && c.current().trust == keyring.Changed {
			// The secret shows itself to nobody who does not know it; the question would.
			return nil, ErrKeyChanged
		}
		m, err := c.otr.SMPStart(now, c.active, question, []byte(secret))
		if errors.Is(err, otr.ErrComparing) {
			err = ErrComparing
		}
		return m, err
	})
}

// Answer answers a contact's question or wish to compare a secret.
func (a *Account) Answer(o Outlet, contact, secret string) error {
	return a.comparing(o, contact, func(now time.Time, c *conversation) ([]byte, error) {
		m, err := c.otr.SMPAnswer(now, c.active, []byte(secret))
		if errors.Is(err, otr.ErrNotComparing) {
			err = ErrNotAsked
		}
		if err == nil {
			c.current().asked = nil
		}
		return m, err
	})
}

// AbortComparing gives up the comparison with a contact.
func (a *Account) AbortComparing(o Outlet, contact string) error {
	return a.comparing(o, contact, func(now time.Time, c *conversation) ([]byte, error) {
		c.current().asked = nil
		return c.otr.SMPAbort(now, c.active)
	})
}

func (a *Account) comparing(o Outlet, contact string, step func(time.Time, *conversation) ([]byte, error)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.convs[contact]
	if c == nil || c.current() == nil { // and nothing is remembered of it: it may be a secret in the wrong place
		return ErrNotPrivate
	}
	now := a.now()
	defer c.settle(now)
	c.outlet, c.wrote = o, true
	s := c.current()
	defer a.events.Happened(contact, EventCompared) // or begun, or answered
	m, err := step(now, c)
	if err != nil {
		return err
	}
	if !c.protocol(c.to(s), string(m), true) {
		return ErrUnreachable
	}
	return nil
}

// compared tells the person how a comparison goes, and records its success for the
// key that held when it began: the engine gives a comparison up when the keys
// change.
func (c *conversation) compared(now time.Time, e otr.Event) {
	s := c.live[e.Session.ID]
	if s == nil {
		return
	}
	if e.Session.ID != c.active {
		// One comparison at a time is enough for a person: that of another device is
		// answered by ending it.
		if m, err := c.otr.SMPAbort(now, e.Session.ID); err == nil && e.Kind == otr.SMPAsked {
			c.protocol(c.to(s), string(m), false)
		}
		return
	}
	who := c.contact
	s.asked = nil
	defer func() {
		if s.asked == nil {
			c.a.events.Happened(who, EventCompared)
			return
		}
		c.a.events.Happened(who, EventAsked)
	}()
	switch e.Kind {
	case otr.SMPAsked:
		s.asked = &asked{}
		if e.HasQuestion {
			s.asked.question = question(e.Question, c.formatOf(s).Writes)
		}
		if e.HasQuestion {
			c.tell(now, topicComparing, Notice{What: SaySMPAsked, Contact: who, Question: s.asked.question})
			return
		}
		c.tell(now, topicComparing, c.about(SaySMPSecret))
	case otr.SMPSuccess:
		if e.Answered {
			c.tell(now, topicComparing, c.about(SaySMPAnswered))
			return
		}
		c.tell(now, topicComparing, c.about(SaySMPSame))
		c.saved(c.trusts(now, s.Fingerprint, keyring.SMP))
	case otr.SMPFailure:
		c.tell(now, topicComparing, c.about(SaySMPDiffer))
	case otr.SMPAborted:
		c.tell(now, topicComparing, c.about(SaySMPAborted))
	case otr.SMPCheated:
		c.tell(now, topicComparing, c.about(SaySMPCheated))
	}
}

// maxQuestion is how much of a contact's question is shown, in characters.
const maxQuestion = 500

// question is a contact's question made fit for a line of ours.
func question(q string, writes text.Format) string {
	line := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || text.Breaks(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text.FromPayload(q, writes), " "))
	if strings.TrimSpace(line) == "" {
		return "(a question without words)"
	}
	if runes := []rune(line); len(runes) > maxQuestion {
		return string(runes[:maxQuestion]) + "..."
	}
	return line
}
