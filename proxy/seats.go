package proxy

import (
	"os"
	"strings"
	"sync"
	"time"

	"otrproxy/config"
	"otrproxy/otrlayer"
)

// A place is what sessions are counted by: an account's people, and apart from them those of
// whom it is not known that they are, who keep nobody else out.
type place struct {
	account  string
	stranger bool
}

// A seat is a session's place among those of its account (limits.per_account), from the login
// to the end.
type seat struct {
	at     place
	unmade bool // its account had no directory when it was taken
}

// sit takes a seat among an account's people, or says why there is none.
func (ac *accountSet) sit(account string, limits config.Limits) (*seat, *Failure) {
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
	return &seat{at, !made}, nil
}

// mayCome is why somebody would get no seat now; nil where they would.
func (ac *accountSet) mayCome(account string, limits config.Limits) *Failure {
	made, kept := ac.madeAmong(account)
	ac.mu.Lock()
	defer ac.mu.Unlock()
	return ac.noSeat(place{account, false}, made, kept, limits)
}

// madeAmong reports whether an account is kept, and how many are.
func (ac *accountSet) madeAmong(account string) (made bool, kept int) {
	if ac.made(account) {
		return true, 0
	}
	return false, ac.kin.count(ac.dir)
}

// kin are the accounts that are kept. Their directory is listed again where it has changed:
// names come from clients, and there may be many accounts.
type kin struct {
	mu    sync.Mutex
	of    map[string][]string // by domain
	n     int
	dated time.Time // of the directory when it was listed; zero for never
	until time.Time // when they are counted again, where many are made
}

// coarse is how far apart two changes of a directory may be and still bear the same time.
const coarse = 2 * time.Second

// look lists the accounts, where that is not done. The caller holds mu.
func (k *kin) look(state string) {
	var dated time.Time
	if info, err := os.Stat(otrlayer.AccountsDir(state)); err == nil {
		dated = info.ModTime()
	}
	if !k.dated.IsZero() && dated.Equal(k.dated) {
		return
	}
	now := time.Now()
	k.of, k.n, k.dated, k.until = map[string][]string{}, 0, dated, now.Add(time.Second)
	for _, jid := range otrlayer.Accounts(state) {
		k.of[bareDomain(jid)] = append(k.of[bareDomain(jid)], jid)
		k.n++
	}
	if now.Sub(dated) < coarse { // it may change once more at that time
		k.dated = time.Time{}
	}
}

func (k *kin) count(state string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !time.Now().Before(k.until) {
		k.look(state)
	}
	return k.n
}

// more notes that one more is kept.
func (k *kin) more() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.n++
	k.dated = time.Time{} // it may have been counted already
}

// at are those of a domain. The list is nobody's to change.
func (k *kin) at(state, domain string) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.look(state)
	return k.of[domain]
}

// noSeat is why there is no seat; nil where there is. Made says that the account is kept, and
// kept how many are. The caller holds mu.
func (ac *accountSet) noSeat(at place, made bool, kept int, limits config.Limits) *Failure {
	switch {
	case ac.seats[at] >= limits.PerAccount:
		ac.refused(RefusedAccount)
		return fail(FailLimit, nil, "otrproxy serves as many sessions of %s as its configuration allows (limits.per_account, %d); end one on another device.", at.account, limits.PerAccount)
	case !made && ac.fresh[at.account] == 0 && kept+len(ac.fresh) >= limits.Accounts: // those that are there may be made at any moment
		ac.refused(RefusedAccounts)
		return fail(FailLimit, nil, "otrproxy keeps as many accounts as its configuration allows (limits.accounts, %d), and %s is not one of them.", limits.Accounts, at.account)
	}
	return nil
}

// reseat moves a seat between an account's people and strangers. Most is how many may be
// there; 0 for as many as come.
func (ac *accountSet) reseat(s *seat, stranger bool, most int) *Failure {
	ac.mu.Lock()
	defer ac.mu.Unlock()
	to := place{s.at.account, stranger}
	if most > 0 && ac.seats[to] >= most {
		ac.refused(RefusedAccount)
		return fail(FailLimit, nil, "As many logins of %s with other passwords are there as its configuration allows (limits.per_account, %d).", to.account, most)
	}
	ac.vacate(s.at)
	s.at = to
	ac.seats[to]++
	return nil
}

func (ac *accountSet) vacate(at place) {
	if ac.seats[at]--; ac.seats[at] == 0 {
		delete(ac.seats, at)
	}
}

// leave gives a seat back. What was remembered of an account that has come to no use goes with
// the last one.
func (ac *accountSet) leave(s **seat) {
	if *s == nil {
		return
	}
	if a := ac.vacated(*s); a != nil {
		a.Close()
	}
}

// vacated gives a seat back, and returns the account that has come to no use, if any.
func (ac *accountSet) vacated(s *seat) *otrlayer.Account {
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
	ac.forgotten(account)
	return a
}

// made reports whether an account has a directory.
func (ac *accountSet) made(account string) bool {
	_, err := os.Stat(otrlayer.Dir(ac.dir, account))
	return err == nil
}

// onceMade runs f when an account has come to use: at once where it has a directory already.
// Who logs in and does nothing leaves nothing behind.
func (ac *accountSet) onceMade(account string, f func()) {
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

// cameToUse notes that an account has its files, and does what was put off until then.
func (ac *accountSet) cameToUse(account string) {
	ac.mu.Lock()
	later := ac.unmade[account]
	delete(ac.unmade, account)
	if ac.fresh[account] > 0 {
		delete(ac.fresh, account)
		ac.kin.more()
	}
	ac.mu.Unlock()
	for _, f := range later {
		f()
	}
}

// comes notes that the session's client does something: its account is made, with its key,
// where it is not there yet. Without its files the session ends.
func (s *session) comes() (err error) {
	if s.stranger.Load() != nil {
		return nil
	}
	s.used.Do(func() {
		r := s.r
		if e := s.account().Prepare(); e != nil {
			r.metrics.upstreamFailed(FailState)
			r.log.Error("an account's files cannot be used", "account", r.log.name(s.jid), "err", strings.ReplaceAll(e.Error(), s.jid, r.log.name(s.jid)))
			err = &streamFault{"internal-server-error", "otrproxy cannot use the files of this account: " + e.Error() + "."}
			return
		}
		r.accounts.cameToUse(s.jid)
	})
	return err
}

// keepsFirst keeps what recognises a password, where nothing does yet.
func (lo *logins) keepsFirst(account, password string) {
	if v, err := lo.verifierOf(account); err != nil || v != nil && v.Password != "" {
		return
	}
	hash := sync.OnceValue(func() string { return hashPassword(password) })
	if !lo.spawn(func() { hash() }) { // it takes a while
		return
	}
	sum := lo.passwords.sum(account, password)
	lo.onceMade(account, func() {
		v := verifier{Password: hash()}
		lo.remembering.Lock()
		defer lo.remembering.Unlock()
		if right, ok := lo.passwords.of(account); ok && right != sum { // another one has been confirmed since
			return
		}
		if err := lo.saveVerifier(account, v); err != nil {
			lo.log.Warn("what recognises a password could not be kept", "account", lo.log.name(account))
		}
	})
}
