package keyring

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/moby/sys/atomicwriter"

	"otrproxy/otrlayer/otr"
)

// Files of an account, in libotr's own formats, so that people move in and out
// with cp.
const (
	KeyFile         = "otr.private_key"
	FingerprintFile = "otr.fingerprints"
	InstanceFile    = "otr.instance_tags"
	// VersionFile has the form of otr.fingerprints, with the highest version of OTR
	// that was spoken with a key in the place of its trust.
	VersionFile = "otr.versions"
	// FormatFile has the same form, with the program that has a key.
	FormatFile = "otr.formats"

	ProtocolName = "prpl-jabber"
)

// A Fingerprint is the SHA-1 of a DSA public key, as OTR defines it.
type Fingerprint = otr.Fingerprint

// ParseFingerprint reads a fingerprint as people and programs write it.
func ParseFingerprint(s string) (Fingerprint, error) { return otr.ParseFingerprint(s) }

// Trust is how sure we are of a contact's key.
type Trust string

// The degrees of trust.
const (
	Unverified Trust = "unverified"
	Verified   Trust = "verified" // a person compared fingerprints
	SMP        Trust = "smp"      // a shared secret matched
	Changed    Trust = "changed"  // another key than the ones known, and nobody has decided
)

// Sure reports whether somebody has verified the key.
func (t Trust) Sure() bool { return t == Verified || t == SMP }

// ours reports whether an entry of a libotr file belongs to the account: its name
// is the bare JID, with a resource or without (Pidgin writes one).
func ours(account string) func(name, proto string) bool {
	return func(name, proto string) bool {
		bare, _, _ := strings.Cut(name, "/")
		return strings.EqualFold(bare, account) && (proto == ProtocolName || proto == "jabber" || proto == "xmpp")
	}
}

// Write replaces a file of the account atomically, readable by nobody else.
func Write(dir, name string, content []byte) error {
	err := atomicwriter.WriteFile(filepath.Join(dir, name), content, 0o600)
	if err != nil {
		return fmt.Errorf("%s could not be saved: %w", filepath.Join(dir, name), err)
	}
	return nil
}

// Cause is what lies at the bottom of an error with a file, for the log: the path
// above it names the account.
func Cause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return errors.New("a file of the account could not be written")
}

// Read is a file of the account; nil where there is none.
func Read(dir, name string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// LoadKey reads the account's key; nil when there is none yet.
func LoadKey(dir, account string, v Vault) (*otr.PrivateKey, error) {
	path, b, err := ReadKeys(dir, v)
	if err != nil || b == nil {
		return nil, err
	}
	if st, err := os.Stat(path); err == nil && st.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("%s can be read by others; make it private with: chmod 600 %s", path, path)
	}
	k, err := otr.FindKey(b, ours(account))
	if err != nil {
		return nil, fmt.Errorf("%s is not a key file that libotr could read; it was left as it is: restore it from a backup, or move it away to get a new key", path)
	}
	return k, nil
}

// LoadTag reads the account's instance tag, making and saving one at first use.
func LoadTag(dir, account string) (uint32, error) {
	b, err := Read(dir, InstanceFile)
	if err != nil {
		return 0, err
	}
	if tag := otr.FindInstanceTag(b, ours(account)); tag != 0 {
		return tag, nil
	}
	tag, err := otr.NewInstanceTag(rand.Reader)
	if err != nil || !Exists(dir, "") { // it is saved with the key
		return tag, err
	}
	return tag, Write(dir, InstanceFile, otr.AppendInstanceTag(b, account, ProtocolName, tag))
}

// Fingerprints is the account's memory of its contacts' keys: a file of libotr's,
// of which only the lines that are the account's are looked at. Of several lines about one
// key the last one counts, as libotr has it.
type Fingerprints struct {
	LineFile
	account string
	All     []otr.KnownKey
	at      map[string][]int // the places in all of the account's lines about each contact
}

// LoadFingerprints reads such a file, of a name, from an account's directory.
func LoadFingerprints(dir, name, account string) (*Fingerprints, error) {
	f := &Fingerprints{account: account}
	f.LineFile = LineFile{what: "fingerprint not saved", whole: func() []byte { return otr.FormatFingerprints(f.All) }, live: func() int { return len(f.All) }, disk: lineDisk{dir: dir, name: name}}
	lines, _, err := f.disk.read()
	f.lines, f.All = count(lines), lastOfEach(otr.ParseFingerprints(lines))
	f.index()
	return f, err
}

// lastOfEach leaves one line of those about one key, with the trust of the last.
func lastOfEach(all []otr.KnownKey) []otr.KnownKey {
	at := map[otr.KnownKey]int{}
	out := all[:0]
	for _, k := range all {
		key := k
		key.Trust = ""
		if i, there := at[key]; there && k.Contact != "" {
			out[i].Trust = k.Trust
			continue
		}
		at[key] = len(out)
		out = append(out, k)
	}
	return out
}

// index finds the account's lines about each contact, so that looking one up does not
// take longer the more there are.
func (f *Fingerprints) index() {
	f.at = map[string][]int{}
	for i := range f.All {
		if k := &f.All[i]; f.About(k, k.Contact) {
			f.at[k.Contact] = append(f.at[k.Contact], i)
		}
	}
}

// Knows reports whether any key of a contact is known.
func (f *Fingerprints) Knows(contact string) bool { return len(f.at[contact]) > 0 }

// Find is what is known of one key of a contact, nil for nothing.
func (f *Fingerprints) Find(contact string, fp Fingerprint) *otr.KnownKey {
	if lines := f.entries(contact, fp); len(lines) > 0 {
		return lines[0]
	}
	return nil
}

// About reports whether a line is the account's, and about a contact.
func (f *Fingerprints) About(k *otr.KnownKey, contact string) bool {
	return k.Contact == contact && ours(f.account)(k.Account, k.Protocol)
}

// entries are all that is known of one key of a contact: a program that writes the
// resource, as Pidgin does, has several.
func (f *Fingerprints) entries(contact string, fp Fingerprint) (out []*otr.KnownKey) {
	for _, i := range f.at[contact] {
		if k := &f.All[i]; k.Fingerprint == fp {
			out = append(out, k)
		}
	}
	return out
}

// Of lists what is known of a contact.
func (f *Fingerprints) Of(contact string) (out []otr.KnownKey) {
	for _, i := range f.at[contact] {
		out = append(out, f.All[i])
	}
	return out
}

// Trust is how far a key is trusted for a contact.
func (f *Fingerprints) Trust(contact string, fp Fingerprint) Trust {
	lines := f.entries(contact, fp)
	if len(lines) == 0 && len(f.Of(contact)) > 0 {
		return Changed
	}
	best := Unverified
	for _, k := range lines {
		switch {
		case k.Trust == "" || best == Verified:
		case k.Trust == string(SMP):
			best = SMP
		default:
			best = Verified
		}
	}
	return best
}

// Remember records a key and how far it is trusted.
func (f *Fingerprints) Remember(contact string, fp Fingerprint, t Trust) error {
	value := string(t)
	if t == Unverified {
		value = ""
	}
	return f.Set(contact, fp, value)
}

// Forget takes a key out of what is known of a contact.
func (f *Fingerprints) Forget(contact string, fp Fingerprint) {
	f.All = slices.DeleteFunc(f.All, func(k otr.KnownKey) bool { return k.Fingerprint == fp && f.About(&k, contact) })
	f.index()
	f.rewrite()
}

// Set records a key with what stands beside it. What is new is appended. Where something
// else stood there the file is written anew: an earlier otrproxy, which may read it some
// day, takes the best of several lines, and not the last.
func (f *Fingerprints) Set(contact string, fp Fingerprint, value string) error {
	if strings.ContainsAny(contact, "\t\r\n") {
		return errors.New("a contact whose name has a tab or a line end in it cannot be remembered")
	}
	lines := f.entries(contact, fp)
	if len(lines) == 0 {
		f.at[contact] = append(f.at[contact], len(f.All))
		f.All = append(f.All, otr.KnownKey{Contact: contact, Account: f.account, Protocol: ProtocolName, Fingerprint: fp, Trust: value})
		f.append(otr.FormatFingerprints(f.All[len(f.All)-1:]))
		return nil
	}
	for _, k := range lines {
		was := k.Trust
		k.Trust = value
		switch {
		case was == value:
		case was == "":
			f.append(otr.FormatFingerprints([]otr.KnownKey{*k}))
		default:
			f.rewrite()
		}
	}
	if f.Unsaved {
		f.rewrite()
	}
	return nil
}

// A PrivateKey is an account's own key.
type PrivateKey = otr.PrivateKey

// Rank orders how sure we are of a key.
func (t Trust) Rank() int {
	switch {
	case t.Sure():
		return 2
	case t == Unverified:
		return 1
	}
	return 0
}
