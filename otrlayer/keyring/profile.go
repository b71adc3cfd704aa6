package keyring

import (
	"bytes"
	"strings"

	"otrproxy/otrlayer/otr"
)

// A KnownKey is somebody's key in a libotr file, and how far it is trusted there.
type KnownKey = otr.KnownKey

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

// OneLine is a value that does not break its line.
func OneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, s)
}
