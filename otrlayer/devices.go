package otrlayer

import (
	"crypto/sha256"
	"maps"
	"time"
)

// A person may have several devices, each a client with a session here. They share the
// account's conversations: whichever the server or the contact picks, what arrives is
// opened once and shown on each, and what one has sent encrypted the others see.

// A Mirrored is a text that one client of the account has got or sent, for another one.
type Mirrored struct {
	By     Outlet // that client's session
	Sent   bool
	From   string // full JID; of one that was sent, By knows it
	To     string // as it was addressed
	ID     string
	Type   string // XMPP's message type
	Text   string
	Copied bool // it came as a carbon, which the server sends to every client that wants carbons
	Late   bool // the client's own copy has not come, and what was said next is about to be shown
}

// A Mirroring says what a client made of a text.
type Mirroring uint8

// What may become of it.
const (
	Unwanted Mirroring = iota // it does not want to see it
	Seen                      // it shows it
	Coming                    // the server brings it a copy of its own
)

// mirror shows a text to the other clients. It returns those that have it by that, and
// those that wait for their own.
func (a *Account) mirror(m Mirrored) (seen, coming []Outlet) {
	for _, o := range a.outlets {
		if o == m.By {
			continue
		}
		switch o.Mirror(m) {
		case Seen:
			seen = append(seen, o)
		case Coming:
			coming = append(coming, o)
		}
	}
	return seen, coming
}

// mirrored shows what was read to the other clients, behind what was read before it. What
// was stored on its way was stored because nobody else was there.
func (c *conversation) mirrored(o Outlet, m Incoming, r *reading) {
	if !r.said.Deliver || m.Delayed {
		return
	}
	if c.coming {
		for _, old := range c.read {
			if old == r {
				break
			}
			c.showLate(old)
		}
	}
	r.mirrored = Mirrored{By: o, From: m.From, To: m.To, ID: m.ID, Type: m.Type, Text: r.said.Text, Copied: m.Copy}
	seen, coming := c.a.mirror(r.mirrored)
	r.by, r.coming = append(r.by, seen...), coming
	c.coming = len(coming) > 0
}

// An echo is a message of the protocol, as one client's session has got it.
type echo struct {
	by  Outlet
	sum [sha256.Size]byte
}

type echoed struct {
	n  int
	at time.Time
}

const (
	echoWindow = 2 * time.Second // in which the server brings a message to all clients it is for
	maxEchoes  = 256
	fewEchoes  = 8 // are kept until something else is to be done
)

// echo reports whether another client's session has brought a message already: a server
// brings what is addressed to the account to each client, and it is answered once. What a
// contact sends twice has another id, or comes twice to each of them.
func (c *conversation) echo(now time.Time, o Outlet, m Incoming) bool {
	c.forgetEchoes(now)
	if c.echoes == nil || len(c.echoes) >= maxEchoes {
		c.echoes = map[echo]echoed{}
	}
	mine := echo{o, sha256.Sum256([]byte(m.From + "\x00" + m.ID + "\x00" + m.text()))}
	n, most := c.echoes[mine].n+1, 0
	for k, e := range c.echoes {
		if k.sum == mine.sum && k.by != o {
			most = max(most, e.n)
		}
	}
	c.echoes[mine] = echoed{n, now}
	return n <= most
}

func (c *conversation) forgetEchoes(now time.Time) {
	maps.DeleteFunc(c.echoes, func(_ echo, e echoed) bool { return now.Sub(e.at) >= echoWindow })
	if len(c.echoes) == 0 {
		c.echoes = nil
	}
}
