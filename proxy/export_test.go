package proxy

import (
	"log/slog"
	"time"

	"otrproxy/proxy/notify"
	"otrproxy/proxy/sasl"
	"otrproxy/proxy/state"
)

func init() {
	state.WorkFactor, state.MaxBackup = 10, 32<<20 // else the tests spend their time on guessing costs
	sasl.PasswordCost = sasl.Argon2Cost{Time: 1, Memory: 64, Threads: 1}
	notify.RunLimit = time.Hour // what ends sooner was not ended by it
}

// Steps has the state directory brought to later formats by steps, until restore is called.
func Steps(to ...func(dir string) error) (restore func()) {
	state.Steps = to
	return func() { state.Steps = nil }
}

// Between has f called before whatever changes the disk while the format is changed.
func Between(f func()) (restore func()) {
	state.BetweenSteps = f
	return func() { state.BetweenSteps = func() {} }
}

// HookLimit has each run of the command of "notify" end after d, until restore is called.
func HookLimit(d time.Duration) (restore func()) {
	old := notify.RunLimit
	notify.RunLimit = d
	return func() { notify.RunLimit = old }
}

// Upgrade brings a state directory to the present format.
func Upgrade(dir string) error {
	return (&state.State{Dir: dir}).Upgrade(slog.New(slog.DiscardHandler))
}

// Open is how many accounts are in memory.
func (p *Proxy) Open() int { return len(p.accounts.Opened()) }

// ForgetGuesses forgets all wrong tries.
func (p *Proxy) ForgetGuesses() { p.logins.Guesses.ForgetAll() }

// Rights is how many accounts' passwords are known in memory.
func (p *Proxy) Rights() int { return p.logins.Passwords.Counted() }

// Tries is how many wrong tries of an account are counted.
func (p *Proxy) Tries(account string) int { return p.logins.Guesses.TriesOf(account) }

// StrangersOf is how many strangers there are.
func (p *Proxy) StrangersOf() int { return len(p.logins.Passwords.Unconfirmed("")) }
