package otrlayer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"otrproxy/otrlayer/keyring"
	"otrproxy/otrlayer/otr"
)

// Moving in and out: files of libotr's, of any program, to and from an account.

// A Moved says what became of one entry that was to be taken over.
type Moved string

// What may become of it.
const (
	Imported Moved = "imported"
	Same     Moved = "same"     // it was known already
	Conflict Moved = "conflict" // something else is there, which was kept
)

// ImportKey takes a key over as the account's own. One that is there is kept, unless it
// is to be replaced: then it is set aside in the account's directory, and the private
// conversations end.
func (a *Account) ImportKey(k *keyring.PrivateKey, replace bool) (Moved, error) {
	a.keys.Lock()
	defer a.keys.Unlock()
	a.mu.Lock()
	own, making := a.key, a.making
	a.mu.Unlock()
	switch {
	case making:
		return Conflict, errMaking
	case own != nil && own.Fingerprint() == k.Fingerprint():
		return Same, nil
	case own != nil && !replace:
		return Conflict, nil
	}
	return Imported, a.replaceKey(k)
}

var errMaking = errors.New("the account's key is just being made; try again in a moment")

// replaceKey puts another key of our own in force. The caller holds keys, and not mu.
func (a *Account) replaceKey(k *keyring.PrivateKey) error {
	save := a.saveKey
	if a.hasKey() {
		if err := a.setAside(); err != nil {
			return err
		}
		save = a.overwriteKey
	}
	if err := save(k); err != nil {
		return err // the old key is in force, and on disk
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.convs {
		was := c.state
		if c.current() != nil {
			a.notice(c.about(SayNewKey))
		}
		c.end()
		if was != "" { // what was private does not go back to clear by that
			c.over(StateFinished)
		}
		c.otr = nil // made anew, with the new key
	}
	a.key, a.keyErr = k, nil
	now := a.now()
	for _, c := range a.convs {
		c.attempt(now, true)
		c.settle(now)
	}
	return nil
}

// setAside keeps a copy of the present key file under another name.
func (a *Account) setAside() error {
	at := a.now().UTC().Format("20060102T150405.000")
	for _, suffix := range []string{"", keyring.SealedSuffix} {
		b, err := keyring.Read(a.dir, keyring.KeyFile+suffix)
		if err == nil && b != nil {
			if suffix == "" && a.vault != nil && a.vault.Sealing() {
				b, err = a.vault.Seal(b)
				suffix = keyring.SealedSuffix
			}
			name := keyring.KeyFile + ".replaced-" + at
			for n := 1; err == nil && keyring.Exists(a.dir, name); n++ {
				name = fmt.Sprintf("%s.replaced-%s-%d", keyring.KeyFile, at, n)
			}
			if err == nil {
				err = keyring.Write(a.dir, name+suffix, b)
			}
		}
		if err != nil {
			return fmt.Errorf("the old key could not be set aside: %w", err)
		}
	}
	return nil
}

// Generate makes a new key for the account, in the place of one that is there.
func (a *Account) Generate() (keyring.Fingerprint, error) {
	k, err := a.newKey()
	if err != nil {
		return keyring.Fingerprint{}, err
	}
	a.keys.Lock()
	defer a.keys.Unlock()
	a.mu.Lock()
	making := a.making
	a.mu.Unlock()
	if making {
		return keyring.Fingerprint{}, errMaking
	}
	return k.Fingerprint(), a.replaceKey(k)
}

// ImportKnown takes over what another program knows of a contact's keys: those it has
// verified, and the others where nothing is known of the contact here. Trust that is
// here stays. A key nobody verified, beside others that are known here, is a conflict:
// taken over, it would be used without a question. Saved says when all of it is on disk.
func (a *Account) ImportKnown(contact string, keys []keyring.KnownKey, replace bool) ([]Moved, error) {
	a.keys.Lock()
	errs := a.make()
	a.keys.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	known := len(a.fps.Of(contact)) > 0
	out := make([]Moved, len(keys))
	verified := false
	take := func(i int) {
		k := keys[i]
		errs = errors.Join(errs, a.fps.Set(contact, k.Fingerprint, keyring.OneLine(k.Trust)))
		out[i] = Imported
		verified = verified || k.Trust != ""
	}
	for i, k := range keys { // those that somebody has verified come first
		if have := a.fps.Find(contact, k.Fingerprint); k.Trust != "" && (have == nil || have.Trust == "") {
			take(i)
		}
	}
	for i, k := range keys {
		have := a.fps.Find(contact, k.Fingerprint)
		switch {
		case out[i] != "":
		case have != nil:
			out[i] = Same
		case (known || verified) && !replace:
			out[i] = Conflict
		default:
			take(i)
		}
	}
	c := a.convs[contact]
	if c == nil {
		c = a.fresh(contact)
	}
	defer c.settle(a.now())
	if verified && !replace {
		c.forsake()
	}
	for _, k := range a.fps.Of(contact) {
		if c.otr != nil {
			c.otr.Accept(k.Fingerprint)
		}
	}
	c.reconsider()
	c.flush(a.now())
	a.events.Happened(contact, EventTrust)
	return out, errs
}

// ImportTag takes over another program's instance tag, as long as this account has
// none that anybody has seen.
func (a *Account) ImportTag(tag uint32) (Moved, error) {
	a.keys.Lock()
	defer a.keys.Unlock()
	a.mu.Lock()
	same, fixed := a.tag == tag, a.key != nil || a.making || tag < otr.LowestTag
	a.mu.Unlock()
	if same {
		return Same, nil
	}
	if fixed {
		return Conflict, nil
	}
	if err := a.make(); err != nil {
		return Conflict, err
	}
	if err := keyring.Write(a.dir, keyring.InstanceFile, otr.AppendInstanceTag(nil, a.jid, keyring.ProtocolName, tag)); err != nil {
		return Conflict, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tag = tag
	return Imported, nil
}

// An Exported is a file as libotr has it.
type Exported struct {
	Name string
	Text []byte
}

// Export makes the account's three libotr files, for a program that calls the account and
// its protocol so.
func (a *Account) Export(name, proto string) ([]Exported, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.key == nil {
		return nil, errors.New("the account has no key yet")
	}
	if name == "" {
		name = a.jid
	}
	if proto == "" {
		proto = keyring.ProtocolName
	}
	if strings.ContainsFunc(name+proto, func(r rune) bool { return r <= ' ' || strings.ContainsRune(`()"\#`, r) }) {
		return nil, errors.New("neither the name of the account nor the protocol can have blanks, brackets or quotes in it")
	}
	var known []keyring.KnownKey
	for _, k := range a.fps.All {
		if k.Contact == "" || !a.fps.About(&k, k.Contact) {
			continue
		}
		k.Account, k.Protocol = name, proto
		same := slices.IndexFunc(known, func(x keyring.KnownKey) bool { return x.Contact == k.Contact && x.Fingerprint == k.Fingerprint })
		if same >= 0 {
			if known[same].Trust == "" {
				known[same].Trust = k.Trust
			}
			continue
		}
		known = append(known, k)
	}
	keys, err := otr.AppendKey(nil, name, proto, a.key)
	if err != nil {
		return nil, err
	}
	return []Exported{{keyring.KeyFile, keys}, {keyring.FingerprintFile, otr.FormatFingerprints(known)}, {keyring.InstanceFile, otr.AppendInstanceTag(nil, name, proto, a.tag)}}, nil
}

// SealKeys encrypts the account's key files, or decrypts them.
func (a *Account) SealKeys(seal bool) error {
	a.keys.Lock()
	defer a.keys.Unlock()
	return keyring.SealKeys(a.dir, a.vault, seal)
}

// saveKey adds the account's key to its key file.
func (a *Account) saveKey(k *keyring.PrivateKey) error {
	_, b, err := keyring.ReadKeys(a.dir, a.vault)
	if err != nil {
		return err
	}
	return a.writeKey(b, k)
}

// overwriteKey puts the account's key in the place of all that is in its key file.
func (a *Account) overwriteKey(k *keyring.PrivateKey) error { return a.writeKey(nil, k) }

func (a *Account) writeKey(b []byte, k *keyring.PrivateKey) error {
	b, err := otr.AppendKey(b, a.jid, keyring.ProtocolName, k)
	if err != nil {
		return err
	}
	name, other := keyring.KeyFile, keyring.KeyFile+keyring.SealedSuffix
	if a.vault != nil && a.vault.Sealing() {
		name, other = other, name
		if b, err = a.vault.Seal(b); err != nil {
			return err
		}
	}
	if err := a.make(); err != nil {
		return err
	}
	if err := keyring.Write(a.dir, name, b); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(a.dir, other)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
