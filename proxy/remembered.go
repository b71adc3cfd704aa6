package proxy

import (
	"sync"
	"time"

	"otrproxy/config"
)

// logins is what is known of how accounts log in: how strong that was, what recognises their
// passwords, which are enrolled, and who guesses.
type logins struct {
	config    func() *config.Config
	log       *journal
	dir       string // the state directory
	vault     *vault
	kin       *kin
	servers   *servers
	bell      *bell
	spawn     func(f func()) bool            // runs f beside; false where the proxy stops
	onceMade  func(account string, f func()) // runs f when the account has come to use
	passwords *passwords
	guesses   *guesses
	offers    offers

	remembering sync.Mutex // guards the accounts' files

	mu      sync.Mutex            // guards the rest
	weaker  map[string]*Failure   // logins that a server wants to be weaker than before, by account
	plainly map[plainly]time.Time // until when a host is offered PLAIN alone
}

func newLogins(cfg func() *config.Config, log *journal, dir string, v *vault) *logins {
	return &logins{config: cfg, log: log, dir: dir, vault: v, passwords: newPasswords(), guesses: newGuesses(), weaker: map[string]*Failure{}, plainly: map[plainly]time.Time{}}
}
