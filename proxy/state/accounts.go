package state

import (
	"os"
	"sync"
	"time"

	"otrproxy/otrlayer/keyring"
	"otrproxy/proxy/address"
)

// Accounts are the accounts that are kept. Their directory is listed again where it has changed:
// names come from clients, and there may be many accounts.
type Accounts struct {
	mu    sync.Mutex
	of    map[string][]string // by domain
	n     int
	dated time.Time // of the directory when it was listed; zero for never
	until time.Time // when they are counted again, where many are made
}

// coarse is how far apart two changes of a directory may be and still bear the same time.
const coarse = 2 * time.Second

// look lists the accounts, where that is not done. The caller holds mu.
func (k *Accounts) look(state string) {
	var dated time.Time
	if info, err := os.Stat(keyring.AccountsDir(state)); err == nil {
		dated = info.ModTime()
	}
	if !k.dated.IsZero() && dated.Equal(k.dated) {
		return
	}
	now := time.Now()
	k.of, k.n, k.dated, k.until = map[string][]string{}, 0, dated, now.Add(time.Second)
	for _, jid := range keyring.Accounts(state) {
		k.of[address.DomainOf(jid)] = append(k.of[address.DomainOf(jid)], jid)
		k.n++
	}
	if now.Sub(dated) < coarse { // it may change once more at that time
		k.dated = time.Time{}
	}
}

// Count is how many there are, as of a second ago at most.
func (k *Accounts) Count(state string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !time.Now().Before(k.until) {
		k.look(state)
	}
	return k.n
}

// More notes that one more is kept.
func (k *Accounts) More() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.n++
	k.dated = time.Time{} // it may have been counted already
}

// At are those of a domain. The list is nobody's to change.
func (k *Accounts) At(state, domain string) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.look(state)
	return k.of[domain]
}
