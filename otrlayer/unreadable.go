package otrlayer

import (
	"slices"
	"time"

	"otrproxy/otrlayer/otr"
)

// Data messages that no session of ours can read: one of the two programs was started anew, or
// was killed. The contact's program is told, so that it says so, or sends again; and once no
// more come, one line says how many there were.

const (
	quietFor   = 2 * time.Second  // in which no more have come
	quietUntil = 10 * time.Second // after which they are told of even so
	// followAfter is how long the contact's program has to begin an exchange by itself, once it
	// was told that a message could not be read. Two questions at once would be answered by two
	// exchanges, which cross.
	followAfter = 2 * time.Second
)

// unreadables are those of a contact that nobody was told of yet.
type unreadables struct {
	n           int
	first, last time.Time // when they came
	told        bool      // the contact's program knows of them
}

// due is when they are to be told of; zero for none.
func (u *unreadables) due() time.Time {
	if u.n == 0 {
		return time.Time{}
	}
	quiet, latest := u.last.Add(quietFor), u.first.Add(quietUntil)
	if quiet.Before(latest) {
		return quiet
	}
	return latest
}

// unreadable is a data message that no session of ours can read. Of an echo, the other side
// has been told.
func (c *conversation) unreadable(now time.Time, m Incoming, w otr.Message, sum [32]byte, echo bool) Reading {
	switch {
	case w.Ignorable, echo:
		return Reading{}
	case c.stranger && !c.wrote: // nothing is answered, and nothing kept
		if !c.mayTell(now, topicUnreadable) {
			return Reading{}
		}
		return Reading{Deliver: true, Changed: true, Unreadable: true, Text: "[otrproxy] An encrypted message that cannot be read any more."}
	}
	if c.isLost(sum) {
		return Reading{} // another copy
	}
	u := &c.unreadables
	if u.n++; u.n == 1 {
		u.first = now
	}
	u.last = now
	if c.complains(now, m, !u.told) {
		u.told = true
	}
	return Reading{}
}

const (
	unreadError  = "You sent an encrypted message that could not be read; the private conversation had ended here."
	unreadErrors = "What you sent while I was away could not be read; the private conversation had ended here. Please send it again."
)

// isLost notes that a message cannot be read, by its ciphertext, and reports whether it had been
// noted before.
func (c *conversation) isLost(sum [32]byte) bool {
	if slices.Contains(c.lostSums, sum) {
		return true
	}
	if len(c.lostSums) >= maxRecent {
		c.lostSums = slices.Delete(c.lostSums, 0, 1)
	}
	c.lostSums = append(c.lostSums, sum)
	return false
}

// complains tells the contact's program of a message that could not be read, where that helps,
// and reports whether it did. It gets one error for each message that it may still have, for it
// counts them; and one for all that are older. Once the conversation is private again it would
// take the error for one about what it has sent since.
func (c *conversation) complains(now time.Time, m Incoming, first bool) bool {
	fresh := !m.Delayed || !m.Sent.IsZero() && now.Sub(m.Sent) < resendWindow
	switch {
	case m.Copy, !m.Welcome && !c.wrote, !fresh && !first, m.Delayed && c.state == StateEncrypted:
		return false
	case now.Sub(c.answering) >= errorInterval:
		c.answering, c.answers = now, 0
	}
	if c.answers++; c.answers > maxErrors || c.newcomer && !c.mayWork(now) {
		return false
	}
	if fresh {
		return c.complain(now, m.From, unreadError, false)
	}
	return c.complain(now, c.contact, unreadErrors, c.isAway())
}

// complain tells the contact's program, and sees to it that an exchange begins.
func (c *conversation) complain(now time.Time, to, why string, store bool) bool {
	if !c.protocol(to, string(otr.NewError(why)), store) {
		return false
	}
	if c.follow.IsZero() && (c.queried.IsZero() || now.Sub(c.queried) >= askInterval) {
		c.follow = now.Add(followAfter)
	}
	return true
}

// follows asks for a private conversation where the contact's program has not begun an exchange
// by itself.
func (c *conversation) follows(now time.Time) {
	if c.follow.IsZero() || now.Before(c.follow) {
		return
	}
	c.follow = time.Time{}
	if c.otr == nil || !c.otr.Exchanging(now) {
		c.query(now)
	}
}

// tellUnread tells of what could not be read, once that is due.
func (c *conversation) tellUnread(now time.Time) {
	u := c.unreadables
	if due := u.due(); due.IsZero() || now.Before(due) || len(c.a.outlets) == 0 {
		return
	}
	c.unreadables = unreadables{}
	c.tell(now, topicUnreadable, Notice{What: SayUnreadable, Contact: c.contact, N: u.n, Told: u.told})
}
