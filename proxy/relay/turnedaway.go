package relay

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"otrproxy/proxy/address"
	"otrproxy/proxy/causes"
)

// Many programs say of a login that was refused only that it failed. So it is said again, in a
// chat, at the next login that succeeds.

// turnedAway is why clients of each domain could not log in lately.
type turnedAway struct {
	mu sync.Mutex
	of map[string]*refusedLogins
}

// refusedLogins are those to one domain, for one cause.
type refusedLogins struct {
	cause causes.Cause
	text  string // of the last one
	last  time.Time
	n     int
	told  map[string]bool // accounts that know
}

const (
	turnedAwayFor = 24 * time.Hour
	maxTurnedAway = 1000 // domains, and accounts of each that know
)

// saidLater are the causes that people are told of later: those that lie with the server, and not
// with one account.
var saidLater = map[causes.Cause]bool{causes.FailDNS: true, causes.FailTCP: true, causes.FailVia: true, causes.FailTLS: true, causes.FailCertificate: true, causes.FailPin: true, causes.FailStripped: true, causes.FailInjected: true,
	causes.FailProtocol: true, causes.FailTimeout: true}

// Note notes a login that was refused.
func (t *turnedAway) Note(domain string, f *causes.Failure) {
	if !saidLater[f.Cause] || domain == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	r, now := t.of[domain], time.Now()
	if r == nil || r.cause != f.Cause || now.Sub(r.last) > turnedAwayFor {
		if t.of == nil || len(t.of) >= maxTurnedAway {
			t.of = map[string]*refusedLogins{}
		}
		r = &refusedLogins{cause: f.Cause}
		t.of[domain] = r
	}
	r.text, r.last, r.n, r.told = f.Text, now, r.n+1, nil
	if f.Quoted != "" { // what others wrote, who may be anybody on the way
		r.text = strings.ReplaceAll(f.Text, f.Quoted, "...")
	}
}

// tell is the line about that for an account that has logged in; "" for nothing new.
func (t *turnedAway) tell(account string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.of[address.DomainOf(account)]
	if r == nil || r.told[account] || time.Since(r.last) > turnedAwayFor || len(r.told) >= maxTurnedAway {
		return ""
	}
	if r.told == nil {
		r.told = map[string]bool{}
	}
	r.told[account] = true
	times := ""
	if r.n > 1 {
		times = fmt.Sprintf(", %d times,", r.n)
	}
	return fmt.Sprintf("You are logged in now. Before%s a login to %s was refused, the last time at %s: %s", times, address.DomainOf(account), r.last.Format(time.TimeOnly), r.text)
}
