package sasl

import (
	"sync"
	"time"

	"otrproxy/config"
	"otrproxy/proxy/causes"
	"otrproxy/proxy/journal"
	"otrproxy/proxy/notify"
	"otrproxy/proxy/state"
	"otrproxy/proxy/upstream"
)

// Logins is what is known of how accounts log in: how strong that was, what recognises their
// passwords, which are enrolled, and who guesses.
type Logins struct {
	config    func() *config.Config
	log       *journal.Journal
	dir       string // the state directory
	vault     *state.Vault
	Accounts  *state.Accounts
	Servers   *upstream.Servers
	Bell      *notify.Bell
	Spawn     func(f func()) bool            // runs f beside; false where the proxy stops
	OnceMade  func(account string, f func()) // runs f when the account has come to use
	Passwords *Passwords
	Guesses   *Guesses
	Offers    Offers

	remembering sync.Mutex // guards the accounts' files

	mu      sync.Mutex                 // guards the rest
	weaker  map[string]*causes.Failure // logins that a server wants to be weaker than before, by account
	plainly map[plainly]time.Time      // until when a host is offered PLAIN alone
}

// New has the logins of a state directory. The owners it needs are the caller's to set.
func New(cfg func() *config.Config, log *journal.Journal, dir string, v *state.Vault) *Logins {
	return &Logins{config: cfg, log: log, dir: dir, vault: v, Passwords: newPasswords(), Guesses: newGuesses(), weaker: map[string]*causes.Failure{}, plainly: map[plainly]time.Time{}}
}
