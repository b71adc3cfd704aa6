package otrlayer

import (
	"slices"

	"otrproxy/otrlayer/keyring"
)

// counts are what the account has counted of one conversation, or of all.
type counts struct {
	wrote, held, heldBytes, pieces, early, read int
}

// A kind is what a conversation is counted as, in one of each of these.
type kind struct {
	known   bool // it is counted
	state   uint8
	trust   uint8
	changed bool // nothing is sent until a person decides about a changed key
	asks    bool // a contact waits for an answer to a secret or question
}

var (
	states = [...]MessageState{StatePlaintext, StateEncrypted, StateFinished}
	trusts = [...]keyring.Trust{keyring.Unverified, keyring.Verified, keyring.SMP, keyring.Changed}
)

// A Census counts conversations by state and trust.
type Census [len(states)][len(trusts)]int

// All calls f for each kind of conversation.
func (c *Census) All(f func(s MessageState, t keyring.Trust, n int)) {
	for i, s := range states {
		for j, t := range trusts {
			f(s, t, c[i][j])
		}
	}
}

// kind is what a conversation in the table counts as.
func (c *conversation) kind() kind {
	trust := keyring.Unverified
	k := kind{known: true}
	switch s := c.current(); {
	case s != nil:
		trust, k.asks = s.trust, s.asked != nil
	default:
		if known := c.a.fps.Of(c.contact); len(known) > 0 {
			trust = c.a.fps.Trust(c.contact, known[len(known)-1].Fingerprint)
		}
	}
	k.state, k.trust = uint8(max(0, slices.Index(states[:], c.state))), uint8(max(0, slices.Index(trusts[:], trust)))
	k.changed = trust == keyring.Changed && c.state == StateEncrypted
	k.asks = k.asks && !k.changed
	return k
}

// count brings the account's sums up to date.
func (c *conversation) count() {
	now := counts{held: len(c.held), heldBytes: c.heldBytes, early: len(c.early), read: len(c.read)}
	if c.wrote {
		now.wrote = 1
	}
	if c.otr != nil {
		now.pieces = c.otr.Unfinished()
	}
	t, old := &c.a.total, c.counted
	t.wrote += now.wrote - old.wrote
	t.held += now.held - old.held
	t.heldBytes += now.heldBytes - old.heldBytes
	t.pieces += now.pieces - old.pieces
	t.early += now.early - old.early
	t.read += now.read - old.read
	c.counted = now

	var k kind
	if c.a.convs[c.contact] == c {
		k = c.kind()
	}
	if k != c.as {
		c.a.census(c.as, -1)
		c.a.census(k, 1)
		c.as = k
	}
}

// census counts so many conversations more as of a kind.
func (a *Account) census(k kind, n int) {
	if !k.known {
		return
	}
	a.kinds.Census[k.state][k.trust] += n
	if k.changed {
		a.kinds.Changed += n
	}
	if k.asks {
		a.kinds.Asking += n
	}
}

// Kept is how much an account keeps, beside the most it may keep of each.
type Kept struct {
	Written       int // contacts the person has written to since the start; at most MaxConversations
	Conversations int // conversations with others; at most MaxConversations
	Held          int // messages that wait for a private conversation
	HeldBytes     int // their size; at most MaxHeld times the limit of one contact
	Texts         int // texts kept for a minute, to be sent or shown once more
	TextBytes     int // their size; at most MaxTextBytes
	PieceBytes    int // of unfinished messages in pieces; at most MaxPieceBytes
	Owed          int // messages that no client was there to get back; at most MaxOwed
	Kinds

	// Since the account was opened:
	Suppressed uint64 // lines not told, for there were too many of their kind
	Delayed    uint64 // requests for a private conversation that were sent later than wanted
	Refused    uint64 // handshakes and complaints that were not answered, for there were too many
}

// Kinds counts conversations by what they are.
type Kinds struct {
	Census
	Changed int // in which nothing is sent until a person decides about a changed key
	Asking  int // in which a contact waits for an answer to a secret or question
}

// Add adds what one account keeps now, in the place of what it kept before.
func (k *Kept) Add(before, now Kept) {
	k.Written += now.Written - before.Written
	k.Conversations += now.Conversations - before.Conversations
	k.Held += now.Held - before.Held
	k.HeldBytes += now.HeldBytes - before.HeldBytes
	k.Texts += now.Texts - before.Texts
	k.TextBytes += now.TextBytes - before.TextBytes
	k.PieceBytes += now.PieceBytes - before.PieceBytes
	k.Owed += now.Owed - before.Owed
	k.Changed += now.Changed - before.Changed
	k.Asking += now.Asking - before.Asking
	for s := range k.Census {
		for t := range k.Census[s] {
			k.Census[s][t] += now.Census[s][t] - before.Census[s][t]
		}
	}
	k.Suppressed += now.Suppressed - before.Suppressed
	k.Delayed += now.Delayed - before.Delayed
	k.Refused += now.Refused - before.Refused
}

// Kept tells how much the account keeps.
func (a *Account) Kept() Kept {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.kept()
}

func (a *Account) kept() Kept {
	return Kept{
		Written: a.total.wrote, Conversations: a.inbound(), Held: a.total.held, HeldBytes: a.total.heldBytes,
		Texts: a.texts.Len(), TextBytes: a.textBytes, PieceBytes: a.total.pieces, Owed: len(a.owed), Kinds: a.kinds,
		Suppressed: a.lines.suppressed, Delayed: a.paces.delayed, Refused: a.paces.refused,
	}
}

// publish tells the events what the account keeps, where that has changed: whoever adds it up
// for all accounts need not ask them.
func (a *Account) publish() {
	if a.guestOf != nil {
		return // its account's own are what counts
	}
	now := a.kept()
	if a.closed { // and has nothing any more, but what has happened has
		now = Kept{Suppressed: now.Suppressed, Delayed: now.Delayed, Refused: now.Refused}
	}
	if now != a.published {
		a.events.Keeps(a.published, now)
		a.published = now
	}
}
