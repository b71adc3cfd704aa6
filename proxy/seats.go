package proxy

import (
	"os"
	"strings"
	"sync"

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

// sit takes a seat; nil where there is none left.
func (p *Proxy) sit(account string, stranger bool, most int) *seat {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := place{account, stranger}
	if p.seats[at] >= most {
		return nil
	}
	p.seats[at]++
	return &seat{at}
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

// seated is how many sessions there are.
func (p *Proxy) seated(account string, stranger bool) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seats[place{account, stranger}]
}

// full is what a client is told that gets no seat.
func (p *Proxy) full(account string) *Failure {
	p.metrics.refused(RefusedAccount)
	return fail(FailLimit, nil, "otrproxy serves as many sessions of %s as its configuration allows (limits.per_account, %d); end one on another device.", account, p.Config().Limits.PerAccount)
}

// hasRoom reports whether an account is one of ours, or may become one.
func (p *Proxy) hasRoom(account string) bool {
	return p.made(account) || len(otrlayer.Accounts(p.state.Dir)) < p.Config().Limits.Accounts
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
