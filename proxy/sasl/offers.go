package sasl

import (
	"sync"
	"time"
)

// Offers are what clients are offered that do not say whose they are, by domain: with many
// accounts it takes a while to find. It is found anew when an enrolment or an account
// changes, and after offerLife for what somebody has changed in the files.
type Offers struct {
	mu      sync.Mutex
	of      map[string]offer
	changes int
}

type offer struct {
	names []string
	until time.Time
}

// known is what was found for a domain, as of how many changes.
func (o *Offers) known(domain string) (names []string, ok bool, asOf int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	k, ok := o.of[domain]
	return k.names, ok && time.Now().Before(k.until), o.changes
}

// note keeps what was found, unless something has changed meanwhile.
func (o *Offers) note(domain string, names []string, asOf int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if asOf != o.changes {
		return
	}
	if o.of == nil || len(o.of) > 1000 { // names come from clients
		o.of = map[string]offer{}
	}
	o.of[domain] = offer{names, time.Now().Add(offerLife)}
}

// Forget has it found anew.
func (o *Offers) Forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.changes++
	clear(o.of)
}

// A plainly is who gets PLAIN alone: a host, and an account where the client says which.
type plainly struct{ host, account string }

// OfferPlain offers a host PLAIN alone. Account is one whose keys are of no use; "" where
// there are none.
func (lo *Logins) OfferPlain(host, account string) {
	lo.mu.Lock()
	defer lo.mu.Unlock()
	if len(lo.plainly) > 1000 {
		clear(lo.plainly)
	}
	until := time.Now().Add(plainLife)
	lo.plainly[plainly{host, ""}], lo.plainly[plainly{host, account}] = until, until
}
