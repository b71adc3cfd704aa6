package proxy

import (
	"maps"
	"os"
	"strings"
	"sync"

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
type seat struct{ at place }

// sit takes a seat, or says why there is none.
func (p *Proxy) sit(account string, stranger bool, limits config.Limits) (*seat, *Failure) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := place{account, stranger}
	if f := p.noSeat(at, limits); f != nil {
		return nil, f
	}
	p.seats[at]++
	return &seat{at}, nil
}

// mayCome is why a person would get no seat now; nil where they would.
func (p *Proxy) mayCome(account string, limits config.Limits) *Failure {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.noSeat(place{account, false}, limits)
}

// noSeat is why there is no seat; nil where there is. The caller holds mu.
func (p *Proxy) noSeat(at place, limits config.Limits) *Failure {
	account := at.account
	if p.seats[at] >= limits.PerAccount {
		p.metrics.refused(RefusedAccount)
		return fail(FailLimit, nil, "otrproxy serves as many sessions of %s as its configuration allows (limits.per_account, %d); end one on another device.", account, limits.PerAccount)
	}
	if !p.made(account) {
		others := map[string]bool{} // that may be made at any moment
		for s := range p.seats {
			others[s.account] = s.account != account && !p.made(s.account)
		}
		maps.DeleteFunc(others, func(_ string, unmade bool) bool { return !unmade })
		if len(otrlayer.Accounts(p.state.Dir))+len(others) >= limits.Accounts {
			p.metrics.refused(RefusedAccounts)
			return fail(FailLimit, nil, "otrproxy keeps as many accounts as its configuration allows (limits.accounts, %d), and %s is not one of them.", limits.Accounts, account)
		}
	}
	return nil
}

// reseat gives a stranger who was none a seat among the account's people.
func (p *Proxy) reseat(s *seat) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seats[s.at]--; p.seats[s.at] == 0 {
		delete(p.seats, s.at)
	}
	s.at.stranger = false
	p.seats[s.at]++
}

// leave gives a seat back.
func (p *Proxy) leave(s **seat) {
	if *s == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	at := (*s).at
	if p.seats[at]--; p.seats[at] == 0 {
		delete(p.seats, at)
	}
	if account := at.account; p.seats[place{account, false}]+p.seats[place{account, true}] == 0 {
		delete(p.unmade, account)
		if a := p.accounts[account]; a != nil && !p.made(account) { // it has come to no use
			a.Close()
			delete(p.accounts, account)
			p.passwords.forget(account)
		}
	}
}

// made reports whether an account has a directory.
func (p *Proxy) made(account string) bool {
	_, err := os.Stat(otrlayer.Dir(p.state.Dir, account))
	return err == nil
}

// onceMade runs f when an account has come to use: at once where it has a directory already.
// Who logs in and does nothing leaves nothing behind.
func (p *Proxy) onceMade(account string, f func()) {
	if p.made(account) {
		f()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.unmade[account]) < maxUnmade {
		p.unmade[account] = append(p.unmade[account], f)
	}
}

// maxUnmade bounds what is put off for an account.
const maxUnmade = 64

// comes notes that the session's client does something: its account is made, with its key,
// where it is not there yet. Without its files the session ends.
func (s *session) comes() (err error) {
	if s.stranger.Load() != nil {
		return nil
	}
	s.used.Do(func() {
		p := s.p
		if e := s.account().Prepare(); e != nil {
			p.metrics.upstreamFailed(FailState)
			p.log.Error("an account's files cannot be used", "account", p.name(s.jid), "err", strings.ReplaceAll(e.Error(), s.jid, p.name(s.jid)))
			err = &streamFault{"internal-server-error", "otrproxy cannot use the files of this account: " + e.Error() + "."}
			return
		}
		p.mu.Lock()
		later := p.unmade[s.jid]
		delete(p.unmade, s.jid)
		p.mu.Unlock()
		for _, f := range later {
			f()
		}
	})
	return err
}

// keepsFirst keeps what recognises a password, where nothing does yet.
func (p *Proxy) keepsFirst(account, password string) {
	if v, err := p.verifierOf(account); err != nil || v != nil && v.Password != "" {
		return
	}
	hash := sync.OnceValue(func() string { return hashPassword(password) })
	if !p.begin() {
		return
	}
	go func() { // it takes a while
		defer p.wg.Done()
		hash()
	}()
	sum := p.passwords.sum(account, password)
	p.onceMade(account, func() {
		v := verifier{Password: hash()}
		p.remembering.Lock()
		defer p.remembering.Unlock()
		if right, ok := p.passwords.of(account); !ok || right != sum { // another one has been confirmed since
			return
		}
		if err := p.saveVerifier(account, v); err != nil {
			p.log.Warn("what recognises a password could not be kept", "account", p.name(account))
		}
	})
}
