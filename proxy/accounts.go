package proxy

import (
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"otrproxy/config"
	"otrproxy/otrlayer"
)

// accountSet is the accounts that are served: each opened once, with places for its sessions.
type accountSet struct {
	config    func() *config.Config
	log       *journal
	dir       string // the state directory
	vault     *vault
	maker     *otrlayer.Maker // of all accounts' keys
	bell      *bell
	full      func() bool                // memory is short
	handshake func(result string)        // is told how each key exchange ended
	refused   func(RefusedCause)         // is told of logins for which there was no place
	opens     func()                     // is told before an account is opened that is not kept yet
	forgotten func(account string)       // is told of one that has come to no use
	sealLogin func(account string) error // has its login's files encrypted, or decrypted
	kin       kin
	keeps     keeps // what all accounts keep

	keyFiles sync.RWMutex // held while an account is opened, and alone while the key files of all change; taken before mu

	mu      sync.Mutex // guards the rest
	open    map[string]*otrlayer.Account
	opening map[string]*opening
	seats   map[place]int       // sessions of accounts, and who is about to have one
	fresh   map[string]int      // seats of accounts that are not made yet
	unmade  map[string][]func() // what is written once an account has come to use
}

func newAccountSet(cfg func() *config.Config, log *journal, dir string, v *vault) *accountSet {
	return &accountSet{config: cfg, log: log, dir: dir, vault: v, maker: otrlayer.NewMaker(dir, v, log.record), full: func() bool { return false }, refused: func(RefusedCause) {},
		open: map[string]*otrlayer.Account{}, opening: map[string]*opening{}, seats: map[place]int{}, fresh: map[string]int{}, unmade: map[string][]func(){}}
}

// An opening is an account that is just being read from the disk. Whoever wants it meanwhile
// waits for it, and nobody else.
type opening struct {
	done    chan struct{} // closed when the rest is set
	account *otrlayer.Account
	err     error
}

// account opens an account, or finds it open.
func (ac *accountSet) account(jid string) (*otrlayer.Account, error) {
	ac.mu.Lock()
	if a := ac.open[jid]; a != nil {
		ac.mu.Unlock()
		return a, nil
	}
	o, others := ac.opening[jid]
	if !others {
		o = &opening{done: make(chan struct{})}
		ac.opening[jid] = o
	}
	ac.mu.Unlock()
	if others {
		<-o.done
		return o.account, o.err
	}
	defer close(o.done)
	ac.keyFiles.RLock()
	defer ac.keyFiles.RUnlock()
	o.account, o.err = ac.fromDisk(jid)
	ac.mu.Lock()
	defer ac.mu.Unlock()
	if delete(ac.opening, jid); o.err == nil {
		ac.open[jid] = o.account
	}
	return o.account, o.err
}

// fromDisk reads an account.
func (ac *accountSet) fromDisk(jid string) (*otrlayer.Account, error) {
	if ac.vault.locked() { // also where there is no key yet: it could not be saved
		return nil, otrlayer.ErrLocked
	}
	if _, err := os.Stat(otrlayer.Dir(ac.dir, jid)); err != nil { // of one more, nobody knows whether it is enrolled
		ac.opens()
	}
	return otrlayer.Open(ac.dir, jid, ac.settings(jid), accountEvents{ac, jid}, ac.vault, ac.maker)
}

// settings are what an account takes from the configuration in force, made once for each.
func (ac *accountSet) settings(jid string) func() otrlayer.Settings {
	type made struct {
		of  *config.Config
		set otrlayer.Settings
	}
	var last atomic.Pointer[made]
	return func() otrlayer.Settings {
		cfg := ac.config()
		if m := last.Load(); m != nil && m.of == cfg {
			return m.set
		}
		set := otrlayer.Settings{
			Policy:   func(contact string) otrlayer.Policy { return policy(cfg.RuleFor(jid, contact).Policy) },
			Versions: func(contact string) []int { return cfg.RuleFor(jid, contact).Versions },
			Drop:     func(contact string) bool { return cfg.RuleFor(jid, contact).Drop },
			Idle:     cfg.Idle,
			Hold:     otrlayer.Hold{Messages: cfg.Hold.Messages, Bytes: cfg.Hold.Bytes, For: cfg.Hold.For, Offline: cfg.Hold.Offline},
			Largest:  cfg.Limits.Stanza,
			Reason:   func(contact string) string { return cfg.RuleFor(jid, contact).Reason },
			Full:     ac.full,
			HandsOff: func() bool { return cfg.HandsOff(jid) },
		}
		last.Store(&made{cfg, set})
		return set
	}
}

func policy(c config.Policy) otrlayer.Policy {
	switch c {
	case config.Never:
		return otrlayer.Never
	case config.Manual:
		return otrlayer.Manual
	case config.Opportunistic:
		return otrlayer.Opportunistic
	case config.RequireVerify:
		return otrlayer.RequireVerified
	}
	return otrlayer.Require
}

// accountEvents tells what happens to an account.
type accountEvents struct {
	of  *accountSet
	jid string
}

func (e accountEvents) Happened(contact string, what otrlayer.Event) {
	e.of.bell.happened(string(what), e.jid, contact)
}

func (e accountEvents) Handshake(result string)         { e.of.handshake(result) }
func (e accountEvents) Keeps(before, now otrlayer.Kept) { e.of.keeps.add(before, now) }
func (e accountEvents) Log(level int, what string, err error) {
	e.of.log.record(level, what, err)
}

// opened lists the accounts that have been used since the start.
func (ac *accountSet) opened() []*otrlayer.Account {
	ac.mu.Lock()
	defer ac.mu.Unlock()
	return slices.Collect(maps.Values(ac.open))
}

// get is an account that is open; nil for one that is not.
func (ac *accountSet) get(jid string) *otrlayer.Account {
	ac.mu.Lock()
	defer ac.mu.Unlock()
	return ac.open[jid]
}

// known lists the accounts that have a directory, by name.
func (ac *accountSet) known() []string {
	list := otrlayer.Accounts(ac.dir)
	ac.mu.Lock()
	for jid := range ac.open {
		if !slices.Contains(list, jid) {
			list = append(list, jid)
		}
	}
	ac.mu.Unlock()
	slices.Sort(list)
	return list
}
