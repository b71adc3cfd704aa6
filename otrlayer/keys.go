package otrlayer

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/renameio/v2"
)

// Files of an account, in libotr's own formats, so that people move in and out
// with cp.
const (
	keyFile         = "otr.private_key"
	fingerprintFile = "otr.fingerprints"
	instanceFile    = "otr.instance_tags"

	protocol = "prpl-jabber"
)

// A Fingerprint is the SHA-1 of a DSA public key, as OTR defines it.
type Fingerprint [20]byte

// String is the fingerprint as libotr shows it: five groups of eight hex digits.
func (f Fingerprint) String() string {
	h := strings.ToUpper(hex.EncodeToString(f[:]))
	return strings.Join([]string{h[:8], h[8:16], h[16:24], h[24:32], h[32:]}, " ")
}

// Hex is the fingerprint as 40 hex digits.
func (f Fingerprint) Hex() string { return hex.EncodeToString(f[:]) }

// ParseFingerprint reads a fingerprint as people and programs write it; white
// space, colons and case do not matter.
func ParseFingerprint(s string) (f Fingerprint, err error) {
	clean := strings.Map(func(r rune) rune {
		if strings.ContainsRune(" \t\r\n:-", r) {
			return -1
		}
		return r
	}, s)
	b, err := hex.DecodeString(clean)
	if err != nil || len(b) != len(f) {
		return f, errors.New("a fingerprint has 40 hex digits, such as 01234567 89ABCDEF 01234567 89ABCDEF 01234567")
	}
	copy(f[:], b)
	return f, nil
}

// Trust is how sure we are of a contact's key.
type Trust string

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
func ours(name, proto, account string) bool {
	bare, _, _ := strings.Cut(name, "/")
	return strings.EqualFold(bare, account) && (proto == protocol || proto == "jabber" || proto == "xmpp")
}

// write replaces a file of the account atomically, readable by nobody else.
func write(dir, name string, content []byte) error {
	err := renameio.WriteFile(filepath.Join(dir, name), content, 0o600, renameio.WithStaticPermissions(0o600), renameio.WithTempDir(dir))
	if err != nil {
		return fmt.Errorf("%s could not be saved: %w", filepath.Join(dir, name), err)
	}
	return nil
}

func read(dir, name string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// loadKey reads the account's key; nil when there is none yet.
func loadKey(dir, account string) (privateKey, error) {
	b, err := read(dir, keyFile)
	if err != nil || b == nil {
		return nil, err
	}
	path := filepath.Join(dir, keyFile)
	if st, err := os.Stat(path); err == nil && st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others; make it private with: chmod 600 %s", path, path)
	}
	k, err := readKey(b, account)
	if err != nil {
		return nil, fmt.Errorf("%s is not a key file that libotr could read; it was left as it is: restore it from a backup, or move it away to get a new key", path)
	}
	if k == nil {
		return nil, nil
	}
	return keyFrom(k), nil
}

func saveKey(dir, account string, k privateKey) error {
	b, err := read(dir, keyFile)
	if err != nil {
		return err
	}
	if b, err = appendKey(b, account, k); err != nil {
		return err
	}
	return write(dir, keyFile, b)
}

// loadTag reads the account's instance tag, making and saving one at first use.
func loadTag(dir, account string) (uint32, error) {
	b, err := read(dir, instanceFile)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimRight(line, "\r\n"), "\t")
		if len(f) == 3 && ours(f[0], f[1], account) {
			if tag, err := strconv.ParseUint(f[2], 16, 32); err == nil && tag >= lowestTag {
				return uint32(tag), nil
			}
		}
	}
	var tag uint32
	for tag < lowestTag {
		var r [4]byte
		if _, err := rand.Read(r[:]); err != nil {
			return 0, err
		}
		tag = binary.BigEndian.Uint32(r[:])
	}
	if len(b) > 0 && b[len(b)-1] != '\n' {
		b = append(b, '\n')
	}
	b = fmt.Appendf(b, "%s\t%s\t%08x\n", account, protocol, tag)
	return tag, write(dir, instanceFile, b)
}

// known is one line of otr.fingerprints.
type known struct {
	contact string
	fp      Fingerprint
	trust   string // as in the file; "" for unverified
	other   string // a line that is not the account's, kept as it is
}

// fingerprints is the account's memory of its contacts' keys.
type fingerprints struct {
	dir, account string
	all          []known
}

func loadFingerprints(dir, account string) (*fingerprints, error) {
	b, err := read(dir, fingerprintFile)
	if err != nil {
		return nil, err
	}
	f := &fingerprints{dir: dir, account: account}
	sc := bufio.NewScanner(bytes.NewReader(b))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		line := sc.Text()
		part := strings.Split(line, "\t")
		if len(part) < 4 || !ours(part[1], part[2], account) {
			f.all = append(f.all, known{other: line})
			continue
		}
		fp, err := ParseFingerprint(part[3])
		if err != nil {
			f.all = append(f.all, known{other: line})
			continue
		}
		k := known{contact: part[0], fp: fp}
		if len(part) > 4 {
			k.trust = part[4]
		}
		f.all = append(f.all, k)
	}
	return f, sc.Err()
}

func (f *fingerprints) save() error {
	var b []byte
	for _, k := range f.all {
		if k.contact == "" {
			b = fmt.Appendf(b, "%s\n", k.other)
			continue
		}
		b = fmt.Appendf(b, "%s\t%s\t%s\t%s\t%s\n", k.contact, f.account, protocol, k.fp.Hex(), k.trust)
	}
	return write(f.dir, fingerprintFile, b)
}

func (f *fingerprints) find(contact string, fp Fingerprint) *known {
	for i := range f.all {
		if k := &f.all[i]; k.contact == contact && k.fp == fp {
			return k
		}
	}
	return nil
}

// of lists what is known of a contact.
func (f *fingerprints) of(contact string) (out []known) {
	for _, k := range f.all {
		if k.contact == contact {
			out = append(out, k)
		}
	}
	return out
}

// trust is how far a key is trusted for a contact.
func (f *fingerprints) trust(contact string, fp Fingerprint) Trust {
	k := f.find(contact, fp)
	switch {
	case k == nil && len(f.of(contact)) > 0:
		return Changed
	case k == nil || k.trust == "":
		return Unverified
	case k.trust == string(SMP):
		return SMP
	}
	return Verified
}

// remember records a key and how far it is trusted.
func (f *fingerprints) remember(contact string, fp Fingerprint, t Trust) error {
	value := string(t)
	if t == Unverified {
		value = ""
	}
	if k := f.find(contact, fp); k != nil {
		k.trust = value
	} else {
		f.all = append(f.all, known{contact: contact, fp: fp, trust: value})
	}
	return f.save()
}
