package otrlayer

import (
	"otrproxy/otrlayer/otr"
)

// Some clients hand a message over and leave at once, such as a command in a script. Their
// session stays for a while, for what waits of theirs goes through it.

// Leaves tells that a client has gone whose session could stay. The channel is closed once
// nothing of theirs waits any more for a private conversation, or another client is there; it is
// nil where that is so already.
func (a *Account) Leaves(o Outlet) <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.waitsFor(o) {
		return nil
	}
	if a.leaving == nil {
		a.leaving = map[Outlet]chan struct{}{}
	}
	done := make(chan struct{})
	a.leaving[o] = done
	return done
}

// waitsFor reports whether something that a session has handed over waits for a private
// conversation, and no other session is there that could send it.
func (a *Account) waitsFor(o Outlet) bool {
	if a.closed || len(a.outlets) != 1 || a.outlets[0] != o {
		return false
	}
	for c := range a.waiting {
		for _, m := range c.held {
			if m.outlet == o && c.waitsFor() == CauseExpired {
				return true
			}
		}
	}
	return false
}

// letGo lets those sessions go for which nothing waits any more.
func (a *Account) letGo() {
	for o, done := range a.leaving {
		if !a.waitsFor(o) {
			close(done)
			delete(a.leaving, o)
		}
	}
}

// Complains reports whether a text is an OTR error.
func Complains(text []byte) bool { return otr.Parse(text).Kind == otr.Error }

// Words reports whether a text may hold words of a contact's: it is no handshake, and nothing
// else that only programs say to each other.
func Words(text []byte) bool {
	switch w := otr.Parse(text); w.Kind {
	case otr.Query, otr.Error:
		return false
	case otr.Encoded:
		return w.Type == otr.Data && !w.Ignorable
	}
	return true
}
