package accounts

import (
	"os"

	"otrproxy/config"
	"otrproxy/otrlayer"
	"otrproxy/otrlayer/keyring"
	"otrproxy/proxy/causes"
)

// A place is what sessions are counted by: an account's person has one, strangers who have
// logged in to the account have another. So strangers never take the person's place.
type place struct {
	account  string
	stranger bool
}

// A Seat is a session's place among those of its account (limits.per_account), from the login
// to the end.
type Seat struct {
	at     place
	unmade bool // its account had no directory when it was taken
}

// Sit takes a seat among an account's people, or says why there is none.
func (ac *Set) Sit(account string, limits config.Limits) (*Seat, *causes.Failure) {
	made, kept := ac.madeAmong(account)
	ac.mu.Lock()
	defer ac.mu.Unlock()
	at := place{account, false}
	if f := ac.noSeat(at, made, kept, limits); f != nil {
		return nil, f
	}
	ac.seats[at]++
	if !made {
		ac.fresh[account]++
	}
	return &Seat{at, !made}, nil
}

// MayCome is why somebody would get no seat now; nil where they would.
func (ac *Set) MayCome(account string, limits config.Limits) *causes.Failure {
	made, kept := ac.madeAmong(account)
	ac.mu.Lock()
	defer ac.mu.Unlock()
	return ac.noSeat(place{account, false}, made, kept, limits)
}

// madeAmong reports whether an account is kept, and how many are.
func (ac *Set) madeAmong(account string) (made bool, kept int) {
	if ac.made(account) {
		return true, 0
	}
	return false, ac.Kept.Count(ac.Dir)
}

// noSeat is why there is no seat; nil where there is. Made says that the account is kept, and
// kept how many are. The caller holds mu.
func (ac *Set) noSeat(at place, made bool, kept int, limits config.Limits) *causes.Failure {
	switch {
	case ac.seats[at] >= limits.PerAccount:
		ac.Refused(causes.RefusedAccount)
		return causes.New(causes.FailLimit, nil, "otrproxy serves as many sessions of %s as its configuration allows (limits.per_account, %d); end one on another device.", at.account, limits.PerAccount)
	case !made && ac.fresh[at.account] == 0 && kept+len(ac.fresh) >= limits.Accounts: // those that are there may be made at any moment
		ac.Refused(causes.RefusedAccounts)
		return causes.New(causes.FailLimit, nil, "otrproxy keeps as many accounts as its configuration allows (limits.accounts, %d), and %s is not one of them.", limits.Accounts, at.account)
	}
	return nil
}

// Reseat moves a seat between an account's people and strangers. Most is how many may be
// there; 0 for as many as come.
func (ac *Set) Reseat(s *Seat, stranger bool, most int) *causes.Failure {
	ac.mu.Lock()
	defer ac.mu.Unlock()
	to := place{s.at.account, stranger}
	if most > 0 && ac.seats[to] >= most {
		ac.Refused(causes.RefusedAccount)
		return causes.New(causes.FailLimit, nil, "As many logins of %s with other passwords are there as its configuration allows (limits.per_account, %d).", to.account, most)
	}
	ac.vacate(s.at)
	s.at = to
	ac.seats[to]++
	return nil
}

func (ac *Set) vacate(at place) {
	if ac.seats[at]--; ac.seats[at] == 0 {
		delete(ac.seats, at)
	}
}

// Leave gives a seat back. What was remembered of an account that has come to no use goes with
// the last one.
func (ac *Set) Leave(s **Seat) {
	if *s == nil {
		return
	}
	if a := ac.vacated(*s); a != nil {
		a.Close()
	}
}

// vacated gives a seat back, and returns the account that has come to no use, if any.
func (ac *Set) vacated(s *Seat) *otrlayer.Account {
	ac.mu.Lock()
	defer ac.mu.Unlock()
	account := s.at.account
	ac.vacate(s.at)
	if n := ac.fresh[account]; s.unmade && n > 1 {
		ac.fresh[account]--
	} else if s.unmade {
		delete(ac.fresh, account)
	}
	if ac.seats[place{account, false}]+ac.seats[place{account, true}] > 0 {
		return nil
	}
	delete(ac.unmade, account)
	a := ac.open[account]
	if a == nil || !s.unmade || a.Made() {
		return nil
	}
	delete(ac.open, account)
	ac.Forgotten(account)
	return a
}

// made reports whether an account has a directory.
func (ac *Set) made(account string) bool {
	_, err := os.Stat(keyring.Dir(ac.Dir, account))
	return err == nil
}

// OnceMade runs f when an account has come to use: at once where it has a directory already.
// A login alone leaves no files.
func (ac *Set) OnceMade(account string, f func()) {
	if ac.made(account) {
		f()
		return
	}
	ac.mu.Lock()
	if ac.fresh[account] == 0 { // made meanwhile
		ac.mu.Unlock()
		f()
		return
	}
	defer ac.mu.Unlock()
	if len(ac.unmade[account]) < maxUnmade {
		ac.unmade[account] = append(ac.unmade[account], f)
	}
}

// maxUnmade bounds what is put off for an account.
const maxUnmade = 64

// CameToUse notes that an account has its files, and does what was put off until then.
func (ac *Set) CameToUse(account string) {
	ac.mu.Lock()
	later := ac.unmade[account]
	delete(ac.unmade, account)
	if ac.fresh[account] > 0 {
		delete(ac.fresh, account)
		ac.Kept.More()
	}
	ac.mu.Unlock()
	for _, f := range later {
		f()
	}
}
