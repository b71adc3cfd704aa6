package proxy

import (
	"time"

	"golang.org/x/time/rate"
)

// A client that sends faster than limits.rate is read no faster than that: its own stanzas
// wait, on its own machine, and nobody else's.
type pace struct {
	allowed *rate.Limiter
	slowed  bool
}

// paceBurst is for how many seconds' stanzas at once nobody waits: clients come with a lot
// to ask.
const paceBurst = 20

// keep waits as long as the client is ahead of its time.
func (k *pace) keep(s *session, now time.Time) {
	if most := s.p.Config().Limits.Rate; k.allowed == nil || k.allowed.Limit() != rate.Limit(most) {
		k.allowed = rate.NewLimiter(rate.Limit(most), most*paceBurst)
	}
	wait := k.allowed.ReserveN(now, 1).DelayFrom(now)
	if wait <= 0 {
		k.slowed = false
		return
	}
	if !k.slowed {
		k.slowed = true
		s.p.refusedFor(RefusedRate)
	}
	s.server.flush() // what it has sent is on its way
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.serverRead:
	case <-s.p.ctx.Done():
	}
}
