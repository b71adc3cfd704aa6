package otrlayer

import (
	"maps"
	"slices"
	"time"

	"otrproxy/otrlayer/otr"
)

// An Outlet is a client's session, as its account sees it. Its methods are called
// with the account locked: they queue and never wait.
type Outlet interface {
	// Emit queues a message to the server, and reports whether it could: a session
	// that is ending takes no more. The order of calls is the order on the wire. The
	// verdict is valid until Emit returns.
	Emit(Verdict) bool
	// Pending reports whether what was emitted may still be on its way to the server.
	// Acknowledged is called on the account once it is not, and Detach at the end.
	Pending() bool
	// Sees reports whether the client is told when a contact comes or goes (RFC 6121 section
	// 3.1): where it is not told of any, they are offline.
	Sees(contact string) bool
	// Notice queues a line from the proxy in a conversation, and reports whether it could.
	Notice(where string, n Notice) bool
	// Shows tells the session that the text which it has just given to Receive is to be shown.
	// What the session is told to mirror after that must not be shown before it.
	Shows()
	// Mirror shows the client what another client of the account has sent or got.
	Mirror(Mirrored) Mirroring
	// Return hands a message back to the client as an error, and reports what the person
	// sees of it.
	Return(m *Message, why Why) Sign
}

// Events counts what happens; its methods must be quick.
type Events interface {
	Handshake(result string) // complete, failed or refused
	Keeps(before, now Kept)  // what the account keeps has changed
	Happened(contact string, e Event)
	Log(level int, what string, err error) // level as log/slog has it; what names nobody
}

// An Event is something in a conversation that people may want to be told of, or that
// changes what is shown of it. It is a closed set.
type Event string

// Attach adds a client's session. What could not be handed back before is handed
// to it now.
func (a *Account) Attach(o Outlet) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.outlets = append(a.outlets, o)
	a.letGo()
	owed := a.owed
	a.owed = nil
	a.repay(owed)
	for contact, n := range a.sent {
		o.Notice(contact, Notice{What: SaySent, Contact: contact, N: n})
	}
	clear(a.sent)
	defer a.publish()
	now := a.now()
	for _, c := range a.convs { // what nobody was there to be told
		if c.unreadables.n > 0 {
			c.settle(now)
		}
	}
	for c := range a.waiting {
		c.flush(now)
		if len(c.held) > 0 {
			c.announce()
			c.attempt(now, true) // an answer may have come while nobody was there
		}
		c.settle(now)
	}
}

// Detach removes a session. Conversations and messages that wait stay.
func (a *Account) Detach(o Outlet) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, x := range a.outlets {
		if x == o {
			a.outlets = append(a.outlets[:i:i], a.outlets[i+1:]...)
			break
		}
	}
	now, of := a.now(), a.of[o]
	delete(a.of, o)
	a.letGo()
	if len(a.outlets) == 0 {
		clear(a.there) // nobody tells us any more who goes
		a.resources = 0
		for c := range a.live {
			c.lose(func(*session) bool { return true })
		}
		for c := range a.waiting {
			c.queried = time.Time{} // an answer finds nobody: it is asked again at once
		}
	}
	for c := range of {
		if c.carrier == o {
			// The contact sees us go, and some programs forget their sessions then without
			// a word (seen with Profanity). With version 3 they tell us apart by our instance
			// tag, and not by which of our clients carries what we say.
			c.lose(func(s *session) bool { return s.Version == otr.V2 })
			c.carrier = nil
		}
		if c.outlet == o {
			c.outlet = nil
		}
		maps.DeleteFunc(c.heard, func(k complaint, _ int) bool { return k.by == o })
		maps.DeleteFunc(c.echoes, func(k echo, _ echoed) bool { return k.by == o })
		c.flush(now)
		c.settle(now)
	}
}

// lose notes that the other side of sessions may have gone.
func (c *conversation) lose(which func(*session) bool) {
	for _, s := range c.live {
		s.gone = s.gone || which(s)
	}
}

// Acknowledged tells that everything a session has emitted has reached the server: what
// must not overtake it goes now.
func (a *Account) Acknowledged(o Outlet) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	for c := range a.waiting {
		if c.carrier == o {
			c.flush(now)
			c.settle(now)
		}
	}
}

// attached reports whether a session is still there.
func (a *Account) attached(o Outlet) bool { return slices.Contains(a.outlets, o) }

// notice shows a line in the conversation with the contact that it is about. Where others cause it, tell
// does.
func (a *Account) notice(n Notice) (told bool) {
	for _, o := range a.outlets {
		told = o.Notice(n.Contact, n) || told
	}
	return told
}
