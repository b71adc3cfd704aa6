package otrlayer

import (
	"slices"
	"sort"

	"otrproxy/otrlayer/keyring"
)

// MessageState is OTR's state of a conversation.
type MessageState string

// A Conversation describes a conversation to people and metrics.
type Conversation struct {
	Contact     string
	Instance    uint32 // the contact's instance tag, 0 for none
	State       MessageState
	Trust       keyring.Trust
	Version     int // of OTR
	Fingerprint keyring.Fingerprint
	Held        int
	Waits       Cause                 // why they are held; CauseNone where none are
	Known       []keyring.Fingerprint // other keys known of the contact
	Others      []keyring.Fingerprint // keys of other devices that are there and nobody has verified
	Comparing   bool                  // a comparison of secrets is under way
	Asked       bool                  // the contact has begun it, and waits for an answer
	Question    string                // what they ask, "" for a secret without a question
}

// Private reports whether the conversation with a contact is, or has been, private,
// so that nothing may silently leave in clear.
func (a *Account) Private(contact string) bool {
	if a.guestOf != nil {
		return a.guestOf.Private(contact)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.wasPrivate(contact)
}

func (a *Account) wasPrivate(contact string) bool {
	c := a.convs[contact]
	return a.private.Of[contact] || c != nil && c.state != ""
}

// Conversations lists the account's conversations by contact.
func (a *Account) Conversations() []Conversation {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]Conversation, 0, len(a.convs))
	for _, c := range a.convs {
		out = append(out, c.describe())
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Contact < out[j].Contact })
	return out
}

// Conversation describes the conversation with one contact.
func (a *Account) Conversation(contact string) Conversation {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.described(contact)
}

func (c *conversation) describe() Conversation {
	d := Conversation{Contact: c.contact, State: c.state, Held: len(c.held), Trust: keyring.Unverified}
	if d.State == "" {
		d.State = StatePlaintext
	}
	if len(c.held) > 0 {
		d.Waits = c.waitsFor()
	}
	known := c.a.fps.Of(c.contact)
	if s := c.current(); s != nil {
		d.Instance, d.Trust, d.Fingerprint, d.Version = s.Instance, s.trust, s.Fingerprint, int(s.Version)
		if now, ok := c.otr.Session(s.ID); ok && now.Comparing {
			d.Comparing = true
			if s.asked != nil {
				d.Asked, d.Question = true, s.asked.question
			}
		}
		for _, other := range c.live {
			if other != s && other.Fingerprint != s.Fingerprint && !other.trust.Sure() && !slices.Contains(d.Others, other.Fingerprint) {
				d.Others = append(d.Others, other.Fingerprint)
			}
		}
	} else if len(known) > 0 {
		d.Fingerprint = known[len(known)-1].Fingerprint
		d.Trust = c.a.fps.Trust(c.contact, d.Fingerprint)
	}
	for _, k := range known {
		if k.Fingerprint != d.Fingerprint && !slices.Contains(d.Known, k.Fingerprint) {
			d.Known = append(d.Known, k.Fingerprint)
		}
	}
	return d
}
