package leg

import (
	"crypto/rand"
	"encoding/base64"
)

// OwnID begins the ids of stanzas of ours.
const OwnID = "otrproxy-"

// NewID is a name for a stream or a stanza of ours, which nobody can guess: 96 bits of chance.
func NewID() string {
	var b [12]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}
