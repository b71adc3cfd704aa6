package otrlayer

import (
	"errors"
	"maps"
	"slices"
	"time"

	"otrproxy/otrlayer/keyring"
)

// What a person decides about a contact's key.

// Accept accepts a changed key, unverified, and sends what waits. The person names the
// key that they decided about: another one may have come in the meantime. It reports
// whether there was such a key to accept.
func (a *Account) Accept(contact string, fp keyring.Fingerprint) (ok bool, err error) {
	defer a.onDisk(&err)
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.convs[contact]
	if c == nil {
		return false, nil
	}
	if s := c.current(); s == nil || s.trust != keyring.Changed || s.Fingerprint != fp {
		return false, nil
	}
	defer c.settle(a.now())
	return true, c.trusts(a.now(), fp, keyring.Unverified)
}

// Verify records that a person compared a contact's fingerprint, and sends what
// waits for that. ok is false when the fingerprint is not the one in use.
func (a *Account) Verify(contact string, fp keyring.Fingerprint) (ok bool, err error) {
	defer a.onDisk(&err)
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.conv(contact)
	defer c.settle(a.now())
	s := c.current()
	if s == nil || s.Fingerprint != fp { // of another device that is there?
		for id, other := range c.live {
			if other.Fingerprint == fp {
				s = other
				c.activate(a.now(), id)
				break
			}
		}
	}
	if (s == nil || s.Fingerprint != fp) && (s != nil || a.fps.Find(contact, fp) == nil) {
		return false, nil
	}
	return true, c.trusts(a.now(), fp, keyring.Verified)
}

// Distrust takes back that a contact's keys were verified. The keys stay known. It
// reports whether any was.
func (a *Account) Distrust(contact string) (was bool, err error) {
	defer a.onDisk(&err)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range a.fps.Of(contact) {
		if k.Trust != "" {
			was = true
			err = errors.Join(err, a.fps.Remember(contact, k.Fingerprint, keyring.Unverified))
		}
	}
	was = was || a.fps.Unsaved // the last try could not be saved
	if c := a.convs[contact]; c != nil {
		c.reconsider()
		c.settle(a.now())
	}
	a.events.Happened(contact, EventTrust)
	return was, err
}

// reconsider looks up anew how far the keys of the live sessions are trusted.
func (c *conversation) reconsider() {
	for _, s := range c.live { // of the same key or not
		s.trust = c.a.fps.Trust(c.contact, s.Fingerprint)
	}
}

// trusts records how far a key is trusted, lets text go to it, and sends what waits
// for that. Where somebody has verified it, the contact's other keys that nobody has
// verified are forgotten: one of them may have been first by standing in between, and
// has to be accepted again.
func (c *conversation) trusts(now time.Time, fp keyring.Fingerprint, t keyring.Trust) error {
	err := c.a.fps.Remember(c.contact, fp, t)
	if t.Sure() {
		c.forsake()
	}
	if c.otr != nil {
		c.otr.Accept(fp)
	}
	c.reconsider()
	c.a.events.Happened(c.contact, EventTrust)
	c.flush(now)
	return err
}

// forsake forgets the contact's keys that nobody has verified, once one is.
func (c *conversation) forsake() {
	var others []keyring.Fingerprint
	for _, k := range c.a.fps.Of(c.contact) {
		if c.a.fps.Trust(c.contact, k.Fingerprint).Sure() {
			continue
		}
		c.a.fps.Forget(c.contact, k.Fingerprint)
		others = append(others, k.Fingerprint)
		if c.otr != nil {
			c.otr.Revoke(k.Fingerprint)
		}
	}
	if others != nil {
		c.a.notice(Notice{What: SayForsaken, Contact: c.contact, Others: others})
	}
}

// Contacts describes everybody the account knows a key of or has a conversation with,
// by name.
func (a *Account) Contacts() (out []Conversation) {
	a.mu.Lock()
	defer a.mu.Unlock()
	names := map[string]bool{}
	for name, c := range a.convs {
		names[name] = c.wrote || c.state != "" || len(c.held) > 0
	}
	for name := range a.private.Of {
		names[name] = true
	}
	for _, k := range a.fps.All {
		if a.fps.About(&k, k.Contact) {
			names[k.Contact] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if names[name] {
			out = append(out, a.described(name))
		}
	}
	return out
}

// Knows reports whether there is anything of a contact here: a key, or a conversation.
func (a *Account) Knows(contact string) bool {
	if a.guestOf != nil {
		return a.guestOf.Knows(contact)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.convs[contact]
	return len(a.fps.Of(contact)) > 0 || a.private.Of[contact] || c != nil && (c.wrote || c.state != "")
}

// described describes a contact, and leaves nothing behind.
func (a *Account) described(contact string) Conversation {
	c := a.convs[contact]
	if c == nil {
		c = a.fresh(contact)
		if a.private.Of[contact] {
			c.state = StateFinished
		}
	}
	return c.describe()
}
