package relay

import (
	"fmt"
	"sync"
	"time"
)

// unread counts the messages of contacts that came late and cannot be read. They may be
// many: the first is told where it stands, the others together once no more come.
type unread struct {
	mu sync.Mutex
	of map[string]*unreadOf
}

type unreadOf struct {
	more  int
	timer *time.Timer
}

// quietFor is how long no more must come.
const quietFor = 2 * time.Second

// another reports whether a message is one of several, which are told together.
func (u *unread) another(s *Session, contact string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if c := u.of[contact]; c != nil {
		c.more++
		c.timer.Reset(quietFor)
		return true
	}
	if u.of == nil {
		u.of = map[string]*unreadOf{}
	}
	if len(u.of) >= maxTold {
		return false
	}
	c := &unreadOf{}
	c.timer = time.AfterFunc(quietFor, func() {
		u.mu.Lock()
		delete(u.of, contact)
		more := c.more
		u.mu.Unlock()
		if more > 0 {
			s.Say(contact, fmt.Sprintf("And %d more of their messages cannot be read any more. Ask them to send them again.", more))
		}
	})
	u.of[contact] = c
	return false
}

// quietened reports whether a contact's copies have just been said to be unreadable: one
// line is enough for all that follow each other.
func (w *inward) quietened(contact string) bool {
	if w.quiet[contact] {
		return true
	}
	if len(w.quiet) >= maxTold {
		clear(w.quiet)
	}
	if w.quiet == nil {
		w.quiet = map[string]bool{}
	}
	w.quiet[contact] = true
	return false
}
