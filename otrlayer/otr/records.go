package otr

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A KnownKey is one line of libotr's otr.fingerprints: somebody's key, and how far
// it is trusted.
type KnownKey struct {
	Contact, Account, Protocol string
	Fingerprint                Fingerprint
	Trust                      string // "" for not verified; "smp", "verified", or what else a program has written
	// Other is a line that is nothing of the kind, such as a comment; all other
	// fields are empty then.
	Other string
}

// ParseFingerprints reads a file of libotr's format. It never fails: what it does
// not understand is kept as it is.
func ParseFingerprints(file []byte) (keys []KnownKey) {
	for line := range strings.Lines(string(file)) {
		line = strings.TrimRight(line, "\r\n")
		part := strings.SplitN(line, "\t", 5)
		k := KnownKey{Other: line}
		if len(part) >= 4 && part[0] != "" { // a name may begin with #, and a comment has no fingerprint
			if fp, err := ParseFingerprint(part[3]); err == nil {
				k = KnownKey{Contact: part[0], Account: part[1], Protocol: part[2], Fingerprint: fp}
				if len(part) == 5 {
					k.Trust = part[4]
				}
			}
		}
		keys = append(keys, k)
	}
	return keys
}

// FormatFingerprints is the file that ParseFingerprints reads.
func FormatFingerprints(keys []KnownKey) (file []byte) {
	for _, k := range keys {
		if k.Contact == "" {
			file = fmt.Appendf(file, "%s\n", k.Other)
			continue
		}
		file = fmt.Appendf(file, "%s\t%s\t%s\t%s\t%s\n", k.Contact, k.Account, k.Protocol, k.Fingerprint.Hex(), k.Trust)
	}
	return file
}

// An AccountTag is one line of libotr's otr.instance_tags.
type AccountTag struct {
	Name, Protocol string
	Tag            uint32
}

// ParseInstanceTags reads a file of libotr's otr.instance_tags. Lines that are
// something else are left out.
func ParseInstanceTags(file []byte) (tags []AccountTag) {
	for line := range strings.Lines(string(file)) {
		part := strings.Split(strings.TrimRight(line, "\r\n"), "\t")
		if len(part) != 3 {
			continue
		}
		if tag, err := strconv.ParseUint(part[2], 16, 32); err == nil && tag >= LowestTag {
			tags = append(tags, AccountTag{part[0], part[1], uint32(tag)})
		}
	}
	return tags
}

// FindInstanceTag finds the tag of the first account in a file that mine says yes to;
// 0 when there is none.
func FindInstanceTag(file []byte, mine func(name, protocol string) bool) uint32 {
	for _, t := range ParseInstanceTags(file) {
		if mine(t.Name, t.Protocol) {
			return t.Tag
		}
	}
	return 0
}

// AppendInstanceTag returns the file with one account's tag added; what is in it
// stays as it is.
func AppendInstanceTag(file []byte, name, protocol string, tag uint32) []byte {
	out := bytes.Clone(file)
	if len(out) > 0 && out[len(out)-1] != '\n' {
		out = append(out, '\n')
	}
	return fmt.Appendf(out, "%s\t%s\t%08x\n", name, protocol, tag)
}

// NewInstanceTag draws a valid instance tag.
func NewInstanceTag(random io.Reader) (tag uint32, err error) {
	var b [4]byte
	for tag < LowestTag {
		if _, err := io.ReadFull(random, b[:]); err != nil {
			return 0, err
		}
		tag = binary.BigEndian.Uint32(b[:])
	}
	return tag, nil
}
