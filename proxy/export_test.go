package proxy

import (
	"log/slog"
	"time"
)

func init() {
	workFactor, maxBackup = 10, 32<<20 // else the tests spend their time on guessing costs
	passwordCost = argon2Cost{time: 1, memory: 64, threads: 1}
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
func (p *Proxy) ForgetGuesses() { p.logins.guesses.forgetAll() }

// Rights is how many accounts' passwords are known in memory.
func (p *Proxy) Rights() int { return p.logins.passwords.counted() }

// Tries is how many wrong tries of an account are counted.
func (p *Proxy) Tries(account string) int { return p.logins.guesses.triesOf(account) }

// StrangersOf is how many strangers there are.
func (p *Proxy) StrangersOf() int { return len(p.logins.passwords.unconfirmed("")) }
