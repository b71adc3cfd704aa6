package otrlayer

import (
	"container/list"
	"slices"
	"time"
)

// What was sent is kept for a minute, in case the contact could not read it, and what was
// read, in case another client of the account gets its own copy. Both are bounded in
// bytes, and the oldest go first. Of a message that was sent there remains that it was:
// where the contact says that it could not read it, the person is told to write it again.

const (
	// MaxTextBytes bounds the texts an account keeps so, in bytes; a contact's own are no
	// more than an eighth of that.
	MaxTextBytes    = 8 << 20
	maxContactTexts = MaxTextBytes / 8

	textOverhead = 512 // bytes that a text takes beside itself
)

// A keptText is one that is kept: of a message that was sent, or of one that was read.
type keptText struct {
	c    *conversation
	size int
	sent *Message
	read *reading
}

// keep notes that a text is kept, and makes room for it.
func (c *conversation) keep(t keptText) {
	a := c.a
	t.c = c
	e := a.texts.PushBack(&t)
	if t.sent != nil {
		t.sent.kept = e
	} else {
		t.read.kept = e
	}
	c.textBytes += t.size
	a.textBytes += t.size
	c.makeRoom()
}

// makeRoom forgets the oldest texts where there are too many: the contact's own first.
func (c *conversation) makeRoom() {
	a := c.a
	for c.textBytes > maxContactTexts {
		e := c.oldestText()
		if e == nil {
			break
		}
		e.shed()
	}
	for a.textBytes > MaxTextBytes && a.texts.Len() > 0 {
		a.texts.Front().Value.(*keptText).shed()
	}
}

// oldestText is the contact's oldest text that is kept; nil for none.
func (c *conversation) oldestText() (oldest *keptText) {
	var at time.Time
	for _, m := range c.recent {
		if m.kept != nil {
			oldest, at = m.kept.Value.(*keptText), m.since
			break
		}
	}
	for _, r := range c.read {
		if r.kept != nil {
			if oldest == nil || r.at.Before(at) {
				oldest = r.kept.Value.(*keptText)
			}
			break
		}
	}
	return oldest
}

// TextOf is what a message to or from a contact says, by its id; "" where that is not kept.
func (a *Account) TextOf(contact, id string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.convs[contact]
	if c == nil || id == "" {
		return ""
	}
	for _, r := range slices.Backward(c.read) {
		if r.mirrored.ID == id {
			return r.said.Text
		}
	}
	for _, m := range slices.Backward(c.recent) {
		if m.ID == id {
			return m.Text
		}
	}
	return ""
}

// unkeep notes that a text is kept no longer.
func (a *Account) unkeep(e **list.Element) {
	if *e == nil {
		return
	}
	t := a.texts.Remove(*e).(*keptText)
	t.c.textBytes -= t.size
	a.textBytes -= t.size
	*e = nil
}

// shed forgets a text before its time.
func (t *keptText) shed() {
	c := t.c
	if t.sent != nil {
		lean := t.sent.Slip().Message() // the message itself may still be on its way
		lean.Text = ""
		lean.since, lean.to, lean.ssid, lean.count, lean.at, lean.again, lean.overdue = t.sent.since, t.sent.to, t.sent.ssid, t.sent.count, t.sent.at, t.sent.again, t.sent.overdue
		lean.forgotten = true
		if i := slices.Index(c.recent, t.sent); i >= 0 {
			c.recent[i] = lean
		}
		c.a.unkeep(&t.sent.kept)
		return
	}
	r := t.read
	c.showLate(r)
	r.said, r.mirrored, r.forgotten = Reading{}, Mirrored{}, true
	c.a.unkeep(&r.kept)
}

// forgetSent forgets messages that are kept in case the contact could not read them.
func (c *conversation) forgetSent(which func(*Message) bool) {
	c.recent = slices.DeleteFunc(c.recent, func(m *Message) bool {
		if !which(m) {
			return false
		}
		c.a.unkeep(&m.kept)
		return true
	})
}
