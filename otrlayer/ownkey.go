package otrlayer

import (
	"fmt"
	"os"

	"otrproxy/otrlayer/keyring"
	"otrproxy/otrlayer/otr"
)

// make makes the directory of an account that has none yet, with its instance tag. One that
// has gone meanwhile is not made again: what was in it would be forgotten without a word. The
// caller holds keys, and not mu.
func (a *Account) make() error {
	if !a.unmade.Load() {
		return nil
	}
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return fmt.Errorf("the account's directory cannot be made: %w", err)
	}
	if err := keyring.Write(a.dir, keyring.InstanceFile, otr.AppendInstanceTag(nil, a.jid, keyring.ProtocolName, a.tag)); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unmade.Store(false)
	return nil
}

// Made reports whether the account has a directory.
func (a *Account) Made() bool { return !a.unmade.Load() }

// Prepare makes the account's directory, where it has none, and its key in the background.
// Where the rules want no OTR with anybody the key waits until something needs it.
func (a *Account) Prepare() error {
	a.keys.Lock()
	err := a.make()
	a.keys.Unlock()
	if err != nil {
		return err
	}
	if off := a.settings().HandsOff; off != nil && off() {
		return nil
	}
	a.maker.Stock()
	a.NeedKey()
	return nil
}

// NeedKey has the account's key made in the background, where there is none, and reports
// whether it is being made. An account without a directory gets none.
func (a *Account) NeedKey() (making bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.needKey(true)
	return a.making
}

// needKey is NeedKey with the account locked. What could not be made is tried again where
// that is asked for.
func (a *Account) needKey(again bool) {
	if a.key != nil || a.making || a.closed || a.unmade.Load() || a.guestOf != nil || a.keyErr != nil && !again {
		return
	}
	a.making, a.generated = true, make(chan struct{})
	go a.generate()
}

// newKey is a key that nobody else has.
func (a *Account) newKey() (*otr.PrivateKey, error) {
	return a.maker.Key(func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.closed
	})
}

func (a *Account) generate() {
	k, err := a.newKey()
	a.keys.Lock()
	defer a.keys.Unlock()
	if err == nil && !a.hasKey() {
		err = a.saveKey(k) // not while key files are being encrypted
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.making = false
	defer close(a.generated)
	switch {
	case a.key != nil: // imported meanwhile
	case err != nil:
		a.keyErr = err
		if !a.closed {
			a.events.Log(8, "no OTR key", keyring.Cause(err))
		}
	default:
		a.key, a.keyErr = k, nil
	}
	now := a.now()
	for _, c := range a.convs { // what came too early
		early := c.early
		c.early = nil
		for _, in := range early {
			a.receive(in.outlet, in.m)
		}
		c.attempt(now, false)
		c.settle(now)
	}
}

func (a *Account) hasKey() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.key != nil
}

// Ready is closed once the account's key is there or could not be made.
func (a *Account) Ready() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.generated
}

// Fingerprint is that of our own key; false while there is none.
func (a *Account) Fingerprint() (keyring.Fingerprint, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.key == nil {
		return keyring.Fingerprint{}, false
	}
	return a.key.Fingerprint(), true
}
