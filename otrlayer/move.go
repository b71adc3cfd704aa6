package otrlayer

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

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

// A KnownKey is somebody's key in a libotr file, and how far it is trusted there.
type KnownKey = otr.KnownKey

// A PrivateKey is an account's own key.
type PrivateKey = otr.PrivateKey

// A Profile is what the files of a libotr program hold.
type Profile struct {
	Keys  []otr.AccountKey
	Known []KnownKey
	Tags  []otr.AccountTag
}

// ReadProfile reads one file of libotr's, of whichever kind it is. ok is false for
// what is none.
func ReadProfile(file []byte) (p Profile, ok bool) {
	if bytes.HasPrefix(bytes.TrimLeft(file, " \t\r\n"), []byte("(privkeys")) {
		keys, err := otr.ParseKeys(file)
		return Profile{Keys: keys}, err == nil
	}
	for _, k := range otr.ParseFingerprints(file) {
		if k.Contact != "" {
			p.Known = append(p.Known, k)
		}
	}
	p.Tags = otr.ParseInstanceTags(file)
	return p, len(p.Known)+len(p.Tags) > 0
}

// ImportKey takes a key over as the account's own. One that is there is kept, unless it
// is to be replaced: then it is set aside in the account's directory, and the private
// conversations end.
func (a *Account) ImportKey(k *PrivateKey, replace bool) (Moved, error) {
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
func (a *Account) replaceKey(k *PrivateKey) error {
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
			a.notice(c.contact, "The private conversation with "+c.contact+" was ended: this account has a new OTR key, which they will be told has changed.")
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
	for _, suffix := range []string{"", sealedSuffix} {
		b, err := read(a.dir, keyFile+suffix)
		if err == nil && b != nil {
			if suffix == "" && a.vault != nil && a.vault.Sealing() {
				b, err = a.vault.Seal(b)
				suffix = sealedSuffix
			}
			name := keyFile + ".replaced-" + at
			for n := 1; err == nil && exists(a.dir, name); n++ {
				name = fmt.Sprintf("%s.replaced-%s-%d", keyFile, at, n)
			}
			if err == nil {
				err = write(a.dir, name+suffix, b)
			}
		}
		if err != nil {
			return fmt.Errorf("the old key could not be set aside: %w", err)
		}
	}
	return nil
}

// exists reports whether there is a file of a name, encrypted or not.
func exists(dir, name string) bool {
	for _, suffix := range []string{"", sealedSuffix} {
		if _, err := os.Lstat(filepath.Join(dir, name+suffix)); err == nil {
			return true
		}
	}
	return false
}

// Generate makes a new key for the account, in the place of one that is there.
func (a *Account) Generate() (Fingerprint, error) {
	k, err := a.newKey()
	if err != nil {
		return Fingerprint{}, err
	}
	a.keys.Lock()
	defer a.keys.Unlock()
	a.mu.Lock()
	making := a.making
	a.mu.Unlock()
	if making {
		return Fingerprint{}, errMaking
	}
	return k.Fingerprint(), a.replaceKey(k)
}

// ImportKnown takes over what another program knows of a contact's keys: those it has
// verified, and the others where nothing is known of the contact here. Trust that is
// here stays. A key nobody verified, beside others that are known here, is a conflict:
// taken over, it would be used without a question. Saved says when all of it is on disk.
func (a *Account) ImportKnown(contact string, keys []KnownKey, replace bool) ([]Moved, error) {
	a.keys.Lock()
	errs := a.make()
	a.keys.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	known := len(a.fps.of(contact)) > 0
	out := make([]Moved, len(keys))
	verified := false
	take := func(i int) {
		k := keys[i]
		errs = errors.Join(errs, a.fps.set(contact, k.Fingerprint, oneLine(k.Trust)))
		out[i] = Imported
		verified = verified || k.Trust != ""
	}
	for i, k := range keys { // those that somebody has verified come first
		if have := a.fps.find(contact, k.Fingerprint); k.Trust != "" && (have == nil || have.Trust == "") {
			take(i)
		}
	}
	for i, k := range keys {
		have := a.fps.find(contact, k.Fingerprint)
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
	for _, k := range a.fps.of(contact) {
		if c.otr != nil {
			c.otr.Accept(k.Fingerprint)
		}
	}
	c.reconsider()
	c.flush(a.now())
	a.events.Happened(contact, EventTrust)
	return out, errs
}

// oneLine is a value that does not break its line.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, s)
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
	if err := write(a.dir, instanceFile, otr.AppendInstanceTag(nil, a.jid, protocol, tag)); err != nil {
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
		proto = protocol
	}
	if strings.ContainsFunc(name+proto, func(r rune) bool { return r <= ' ' || strings.ContainsRune(`()"\#`, r) }) {
		return nil, errors.New("neither the name of the account nor the protocol can have blanks, brackets or quotes in it")
	}
	var known []KnownKey
	for _, k := range a.fps.all {
		if k.Contact == "" || !a.fps.about(&k, k.Contact) {
			continue
		}
		k.Account, k.Protocol = name, proto
		same := slices.IndexFunc(known, func(x KnownKey) bool { return x.Contact == k.Contact && x.Fingerprint == k.Fingerprint })
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
	return []Exported{{keyFile, keys}, {fingerprintFile, otr.FormatFingerprints(known)}, {instanceFile, otr.AppendInstanceTag(nil, name, proto, a.tag)}}, nil
}

// A Vault keeps private keys encrypted on disk. It is safe for use by several
// goroutines.
type Vault interface {
	// Sealing reports whether keys are to be kept encrypted.
	Sealing() bool
	// Seal encrypts, and Open decrypts; Open fails with ErrLocked as long as nobody has
	// given the passphrase.
	Seal(plain []byte) ([]byte, error)
	Open(sealed []byte) ([]byte, error)
}

// ErrLocked tells that the private keys are encrypted, and nobody has given the
// passphrase since the start.
var ErrLocked = errors.New("the private keys are locked")

// sealedSuffix ends the name of a key file that is encrypted.
const sealedSuffix = ".age"

// SealKeys encrypts the account's key files, or decrypts them.
func (a *Account) SealKeys(seal bool) error {
	a.keys.Lock()
	defer a.keys.Unlock()
	return SealKeys(a.dir, a.vault, seal)
}

// SealKeys encrypts the key files in the directory of an account that is not open, or
// decrypts them: the present one, and those that were set aside.
func SealKeys(dir string, v Vault, seal bool) error {
	there, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range there {
		name := e.Name()
		plain, sealed := strings.CutSuffix(name, sealedSuffix)
		switch {
		case strings.HasPrefix(name, ".") && strings.Contains(name, keyFile):
			os.Remove(filepath.Join(dir, name)) // of a run that was ended while it wrote
		case !strings.HasPrefix(name, keyFile):
		case seal && !sealed:
			err = errors.Join(err, sealFile(dir, name, name+sealedSuffix, v, true))
		case !seal && sealed:
			err = errors.Join(err, sealFile(dir, name, plain, v, false))
		}
	}
	return err
}

func sealFile(dir, from, to string, v Vault, seal bool) error {
	change := v.Open
	if seal {
		change = v.Seal
	}
	b, err := read(dir, from)
	if err != nil || b == nil {
		return err
	}
	there, err := read(dir, to)
	if err != nil {
		return err
	}
	plain := b
	if there != nil { // left by a run that was ended between the two steps, or another key
		first, second := b, there
		if seal {
			second, err = v.Open(there)
		} else {
			first, err = v.Open(b)
		}
		if err != nil {
			return err
		}
		if !bytes.Equal(first, second) {
			return twoKeys(dir, from, to)
		}
		return os.Remove(filepath.Join(dir, from))
	}
	if b, err = change(b); err != nil {
		return err
	}
	if seal { // a key that cannot be read back is lost
		if back, err := v.Open(b); err != nil || !bytes.Equal(back, plain) {
			return fmt.Errorf("what was encrypted cannot be read back, so the key was left as it is: %w", errors.Join(err, ErrLocked))
		}
	}
	if err := write(dir, to, b); err != nil {
		return err
	}
	return os.Remove(filepath.Join(dir, from))
}

func twoKeys(dir, one, two string) error {
	return fmt.Errorf("there are two files with a key in %s, %s and %s, and it cannot be known which one is meant: move one of them away", dir, one, two)
}

// readKeys reads the account's key file, encrypted or not; nil when there is none.
func readKeys(dir string, v Vault) (path string, file []byte, err error) {
	sealed, err := read(dir, keyFile+sealedSuffix)
	if err != nil {
		return "", nil, err
	}
	plain, err := read(dir, keyFile)
	switch {
	case err != nil:
		return "", nil, err
	case sealed == nil:
		return filepath.Join(dir, keyFile), plain, nil
	case plain != nil:
		return "", nil, twoKeys(dir, keyFile, keyFile+sealedSuffix)
	case v == nil:
		return "", nil, ErrLocked
	}
	plain, err = v.Open(sealed)
	return filepath.Join(dir, keyFile+sealedSuffix), plain, err
}

// saveKey adds the account's key to its key file.
func (a *Account) saveKey(k *PrivateKey) error {
	_, b, err := readKeys(a.dir, a.vault)
	if err != nil {
		return err
	}
	return a.writeKey(b, k)
}

// overwriteKey puts the account's key in the place of all that is in its key file.
func (a *Account) overwriteKey(k *PrivateKey) error { return a.writeKey(nil, k) }

func (a *Account) writeKey(b []byte, k *PrivateKey) error {
	b, err := otr.AppendKey(b, a.jid, protocol, k)
	if err != nil {
		return err
	}
	name, other := keyFile, keyFile+sealedSuffix
	if a.vault != nil && a.vault.Sealing() {
		name, other = other, name
		if b, err = a.vault.Seal(b); err != nil {
			return err
		}
	}
	if err := a.make(); err != nil {
		return err
	}
	if err := write(a.dir, name, b); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(a.dir, other)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
