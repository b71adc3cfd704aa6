package relay

import (
	"time"

	"otrproxy/proxy/leg"
)

// A client that sends faster than limits.rate is read no faster than that: its own stanzas
// wait, on its own machine, and nobody else's.
type pace struct {
	due    leg.Moment // when all that was read would have come, at the rate; 0 for nothing yet
	slowed bool
}

// paceBurst is for how many seconds' stanzas at once nobody waits: clients come with a lot
// to ask.
const paceBurst = 20

// keep waits as long as the client is ahead of its time.
func (k *pace) keep(s *Session, now leg.Moment) {
	if k.due == 0 || k.due < now {
		k.due = now
	}
	k.due += leg.Moment(time.Second) / leg.Moment(s.r.config().Limits.Rate)
	wait := time.Duration(k.due-now) - paceBurst*time.Second
	if wait <= 0 {
		k.slowed = false
		return
	}
	if !k.slowed {
		k.slowed = true
		s.r.Slowed()
	}
	s.server.Flush() // what it has sent is on its way
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.serverRead:
	case <-s.r.ctx.Done():
	}
}
