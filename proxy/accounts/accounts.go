package accounts

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"otrproxy/config"
	"otrproxy/otrlayer"
	"otrproxy/otrlayer/keyring"
	"otrproxy/proxy/causes"
	"otrproxy/proxy/journal"
	"otrproxy/proxy/notify"
	"otrproxy/proxy/state"
)

// Set is the accounts that are served: each opened once, with places for its sessions.
type Set struct {
	config    func() *config.Config
	log       *journal.Journal
	Dir       string // the state directory
	Vault     *state.Vault
	Maker     *keyring.Maker // of all accounts' keys
	Bell      *notify.Bell
	Full      func() bool                // memory is short
	Handshake func(result string)        // is told how each key exchange ended
	Refused   func(causes.Refusal)       // is told of logins for which there was no place
	Opens     func()                     // is told before an account is opened that is not kept yet
	Forgotten func(account string)       // is told of one that has come to no use
	SealLogin func(account string) error // has its login's files encrypted, or decrypted
	Kept      state.Accounts
	Keeps     keeps // what all accounts keep

	keyFiles sync.RWMutex // held while an account is opened, and alone while the key files of all change; taken before mu

	mu      sync.Mutex // guards the rest
	open    map[string]*otrlayer.Account
	opening map[string]*opening
	seats   map[place]int       // sessions of accounts, and who is about to have one
	fresh   map[string]int      // seats of accounts that are not made yet
	unmade  map[string][]func() // what is written once an account has come to use
}

// New has the accounts of a state directory. Who is told what is the caller's to set.
func New(cfg func() *config.Config, log *journal.Journal, dir string, v *state.Vault) *Set {
	return &Set{config: cfg, log: log, Dir: dir, Vault: v, Maker: keyring.NewMaker(dir, v, log.Record), Full: func() bool { return false }, Refused: func(causes.Refusal) {},
		open: map[string]*otrlayer.Account{}, opening: map[string]*opening{}, seats: map[place]int{}, fresh: map[string]int{}, unmade: map[string][]func(){}}
}

// An opening is an account that is just being read from the disk. Whoever wants it meanwhile
// waits for it, and nobody else.
type opening struct {
	done    chan struct{} // closed when the rest is set
	account *otrlayer.Account
	err     error
}

// Open opens an account, or finds it open.
func (ac *Set) Open(jid string) (*otrlayer.Account, error) {
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
func (ac *Set) fromDisk(jid string) (*otrlayer.Account, error) {
	if ac.Vault.Locked() { // also where there is no key yet: it could not be saved
		return nil, keyring.ErrLocked
	}
	if _, err := os.Stat(keyring.Dir(ac.Dir, jid)); err != nil { // of one more, nobody knows whether it is enrolled
		ac.Opens()
	}
	return otrlayer.Open(ac.Dir, jid, ac.settings(jid), accountEvents{ac, jid}, ac.Vault, ac.Maker)
}

// settings are what an account takes from the configuration in force, made once for each.
func (ac *Set) settings(jid string) func() otrlayer.Settings {
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
			Full:     ac.Full,
			HandsOff: func() bool { return cfg.HandsOff(jid) },
		}
		last.Store(&made{cfg, set})
		return set
	}
}

// RuleOf is a rule of the configuration as an account takes it.
func RuleOf(r *config.Rule) otrlayer.Rule {
	return otrlayer.Rule{Policy: policy(r.Policy), Rooms: r.Allows(config.Groupchat)}
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
	of  *Set
	jid string
}

func (e accountEvents) Happened(contact string, what otrlayer.Event) {
	e.of.Bell.Happened(string(what), e.jid, contact)
}

func (e accountEvents) Handshake(result string)         { e.of.Handshake(result) }
func (e accountEvents) Keeps(before, now otrlayer.Kept) { e.of.Keeps.add(before, now) }
func (e accountEvents) Log(level int, what string, err error) {
	e.of.log.Record(level, what, err)
}

// Opened lists the accounts that have been used since the start.
func (ac *Set) Opened() []*otrlayer.Account {
	ac.mu.Lock()
	defer ac.mu.Unlock()
	return slices.Collect(maps.Values(ac.open))
}

// Get is an account that is open; nil for one that is not.
func (ac *Set) Get(jid string) *otrlayer.Account {
	ac.mu.Lock()
	defer ac.mu.Unlock()
	return ac.open[jid]
}

// Known lists the accounts that have a directory, by name.
func (ac *Set) Known() []string {
	list := keyring.Accounts(ac.Dir)
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

// SealAll encrypts the key files of all accounts, or decrypts them.
func (ac *Set) SealAll(seal bool) (err error) {
	ac.keyFiles.Lock() // no account is opened meanwhile
	defer ac.keyFiles.Unlock()
	ac.mu.Lock()
	open := maps.Clone(ac.open)
	ac.mu.Unlock()
	for _, jid := range keyring.Accounts(ac.Dir) {
		one := func() error { return keyring.SealKeys(keyring.Dir(ac.Dir, jid), ac.Vault, seal) }
		if a := open[jid]; a != nil {
			one = func() error { return a.SealKeys(seal) }
		}
		if e := one(); e != nil {
			err = errors.Join(err, fmt.Errorf("the key of %s: %w", jid, e))
		}
		if e := ac.SealLogin(jid); e != nil {
			err = errors.Join(err, fmt.Errorf("the login of %s: %w", jid, e))
		}
	}
	return errors.Join(err, ac.Maker.Reseal())
}
