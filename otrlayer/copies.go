package otrlayer

import (
	"container/list"
	"slices"
	"time"

	"otrproxy/otrlayer/otr"
	"otrproxy/otrlayer/text"
)

// A message reaches a person in more than one way: live, as a carbon of what another
// client got, out of an archive. Its ciphertext can be opened once only; here is what
// becomes of the copies.

const (
	maxRead    = 256    // messages by which copies are known
	maxAllRead = 32_768 // of all contacts; above that of each
	fewRead    = 16
	copyWindow = 60 * time.Second // in which another client may get a copy's text
)

// placeholder stands for a copy nobody can read any more.
const placeholder = "[otrproxy] An encrypted message; it can be read only where and when it was received."

// A reading is a data message that has been read.
type reading struct {
	sum  [32]byte // of the ciphertext
	at   time.Time
	said Reading  // forgotten after copyWindow, with what follows
	by   []Outlet // the clients that have got it

	coming   []Outlet // those that wait for their own copy
	mirrored Mirrored // what the others were shown

	kept      *list.Element // among the texts the account keeps; nil for none
	forgotten bool          // its text was forgotten before its time
}

// remember notes what a data message said.
func (c *conversation) remember(now time.Time, o Outlet, sum [32]byte, said Reading) *reading {
	r := &reading{sum: sum, at: now, said: said, by: []Outlet{o}}
	c.read = append(c.read, r)
	if c.bySum == nil {
		c.bySum = map[[32]byte]*reading{}
	}
	c.bySum[sum] = r
	most := maxRead
	if c.a.total.read >= maxAllRead {
		most = fewRead
	}
	if over := len(c.read) - most; over > 0 {
		for _, old := range c.read[:over] {
			c.showLate(old)
			c.a.unkeep(&old.kept)
			delete(c.bySum, old.sum)
		}
		clear(c.read[:over])
		c.read = c.read[over:]
	}
	return r
}

// showLate shows a text to the clients that still wait for their own copy, for it will be
// known no longer.
func (c *conversation) showLate(r *reading) {
	if len(r.coming) == 0 {
		return
	}
	late := r.mirrored
	late.Late = true
	for _, x := range r.coming {
		if c.a.attached(x) && x.Mirror(late) == Seen {
			r.by = append(r.by, x)
		}
	}
	r.coming = nil
}

// known finds a data message that has been read.
func (c *conversation) known(sum [32]byte) *reading {
	return c.bySum[sum]
}

// again is the text once more, for a client that has not got it: the server brought
// the message to several. To one that has, somebody replays it.
func (r *reading) again(o Outlet) Reading {
	switch {
	case slices.Contains(r.by, o):
		return Reading{}
	case r.forgotten:
		r.got(o)
		return Reading{Deliver: true, Changed: true, Unreadable: true, Text: placeholder}
	case !r.said.Deliver:
		return Reading{}
	}
	r.got(o)
	return r.said
}

// got notes that a client has it.
func (r *reading) got(o Outlet) {
	r.by = append(r.by, o)
	r.coming = slices.DeleteFunc(r.coming, func(x Outlet) bool { return x == o })
}

// copied reads a copy of a data message. A session that still exists can read one that
// has not come otherwise, such as one the server put into its archive only: who has
// sealed it is certain, and it cannot be read twice. Nothing else of OTR in a copy is
// anybody's business, and nothing is answered.
func (c *conversation) copied(now time.Time, o Outlet, m Incoming, w otr.Message) Reading {
	if w.Kind == otr.Encoded && w.Type == otr.Data && !w.Ignorable {
		d := desks.Get().(*desk)
		defer d.leave()
		sum := w.Sum(&d.opened)
		if r := c.known(sum); r != nil {
			switch {
			case !m.Delayed && slices.Contains(r.by, o):
				return Reading{} // a carbon of what this client has got already
			case r.said.Deliver: // an archive is asked to say it again
				r.got(o)
				return r.said
			}
		} else if c.otr != nil {
			res, err := c.otr.Receive(now, w)
			if s := c.live[res.Session]; err == nil && s != nil {
				return c.opened(now, o, m, s, sum, res)
			}
		}
		if slices.Contains(c.lostSums, sum) {
			return Reading{} // it has been told of
		}
	}
	return unread(w)
}

// unread is what stands for a message of OTR that nobody reads: nothing for what only
// programs have to say to each other.
func unread(w otr.Message) Reading {
	switch {
	case w.Kind == otr.Encoded && (w.Type != otr.Data || w.Ignorable):
		return Reading{}
	case w.Kind == otr.Query:
		return Reading{Deliver: true, Changed: true, Unreadable: true, Text: "[otrproxy] A request for a private conversation."}
	}
	return Reading{Deliver: true, Changed: true, Unreadable: true, Text: placeholder}
}

// copiesUntil is when the oldest text kept for copies is forgotten.
func (c *conversation) copiesUntil() time.Time {
	for _, r := range c.read {
		if r.said.Deliver || r.forgotten {
			return r.at.Add(copyWindow)
		}
	}
	return time.Time{}
}

// forgetTexts drops what has been read and is kept for copies only.
func (c *conversation) forgetTexts(now time.Time) {
	for _, r := range c.read {
		if !now.Before(r.at.Add(copyWindow)) {
			c.a.unkeep(&r.kept)
			*r = reading{sum: r.sum, at: r.at}
		}
	}
}

// Bare reports whether there is no OTR in a text. Scrub leaves it as it is if it is Harmless,
// too.
func Bare(text []byte) bool {
	_, _, tagged := otr.CutTag(text)
	return !tagged && otr.Parse(text).Kind == otr.Plain
}

// Scrub turns a text that no session can read (a copy of what another program of one's
// own has sent, what a room says) into what may be shown: OTR becomes a placeholder or
// nothing, whitespace tags go.
func Scrub(body string) Reading {
	w := otr.Parse([]byte(body))
	if w.Kind != otr.Plain && w.Kind != otr.Tagged {
		return unread(w)
	}
	clean, _, _ := otr.CutTag([]byte(body))
	safe := text.Defused(string(clean))
	return Reading{Deliver: true, Text: safe, Changed: safe != body}
}
