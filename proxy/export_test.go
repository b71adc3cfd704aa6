package proxy

import (
	"log/slog"
	"time"
)

// ownCost is what hashing a password costs outside the tests.
var ownCost argon2Cost

func init() {
	workFactor, maxBackup = 10, 32<<20 // else the tests spend their time on guessing costs
	ownCost, passwordCost = passwordCost, argon2Cost{time: 1, memory: 64, threads: 1}
	hookLimit = time.Hour // what ends sooner was not ended by it
}

// Steps has the state directory brought to later formats by steps, until restore is called.
func Steps(to ...func(dir string) error) (restore func()) {
	steps = to
	return func() { steps = nil }
}

// Between has f called before whatever changes the disk while the format is changed.
func Between(f func()) (restore func()) {
	betweenSteps = f
	return func() { betweenSteps = func() {} }
}

// HookLimit has each run of the command of "notify" end after d, until restore is called.
func HookLimit(d time.Duration) (restore func()) {
	old := hookLimit
	hookLimit = d
	return func() { hookLimit = old }
}

// Upgrade brings a state directory to the present format.
func Upgrade(dir string) error { return (&State{Dir: dir}).upgrade(slog.New(slog.DiscardHandler)) }

// Open is how many accounts are in memory.
func (p *Proxy) Open() int { return len(p.accounts.opened()) }

// ForgetGuesses forgets all wrong tries.
func (p *Proxy) ForgetGuesses() {
	p.logins.guesses.mu.Lock()
	defer p.logins.guesses.mu.Unlock()
	clear(p.logins.guesses.of)
	p.logins.guesses.harmless.Init()
	p.logins.guesses.bad.Init()
}

// Rights is how many accounts' passwords are known in memory.
func (p *Proxy) Rights() int {
	p.logins.passwords.mu.Lock()
	defer p.logins.passwords.mu.Unlock()
	return len(p.logins.passwords.right)
}

// Tries is how many wrong tries of an account are counted.
func (p *Proxy) Tries(account string) (n int) {
	p.logins.guesses.mu.Lock()
	defer p.logins.guesses.mu.Unlock()
	for who, e := range p.logins.guesses.of {
		if who.account == account {
			n += e.Value.(*wrong).tries
		}
	}
	return n
}

// StrangersOf is how many accounts have strangers.
func (p *Proxy) StrangersOf() int {
	p.logins.passwords.mu.Lock()
	defer p.logins.passwords.mu.Unlock()
	return len(p.logins.passwords.strangers)
}
