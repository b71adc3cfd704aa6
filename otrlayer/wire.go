package otrlayer

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// The kinds of text a contact's message can be, as far as OTR goes (OTR version 3,
// "High level overview").
type wireKind uint8

const (
	wireNone     wireKind = iota // no OTR in it
	wireQuery                    // ?OTRv3?
	wireError                    // ?OTR Error:
	wireEncoded                  // ?OTR:...base64...
	wireFragment                 // ?OTR|sender|receiver,k,n,piece,
	wireOther                    // begins like OTR and is none of what we speak
)

// A wireMessage is a contact's text taken apart, before any cryptography.
type wireMessage struct {
	kind     wireKind
	versions string // of a query, such as "23"
	encoded  string // of an encoded message, from "?OTR:" to the dot
	header   wireHeader
	piece    fragment
}

// wireHeader is the fixed part of every encoded message of version 3.
type wireHeader struct {
	version          uint16
	typ              byte
	sender, receiver uint32 // instance tags
	ignorable        bool   // a data message nobody misses when it cannot be read (IGNORE_UNREADABLE)
}

// Message types of OTR.
const (
	typeDHCommit  = 0x02
	typeData      = 0x03
	typeDHKey     = 0x0a
	typeRevealSig = 0x11
	typeSignature = 0x12
)

// lowestTag is the smallest valid instance tag.
const lowestTag = 0x100

const (
	otrMark     = "?OTR"
	encodedMark = "?OTR:"
	errorMark   = "?OTR Error:"
	maxEncoded  = 1 << 20 // longest encoded message looked at, in bytes
)

var errMalformed = errors.New("malformed OTR message")

// parseWire finds OTR in a text, as libotr does: anywhere in it, for clients
// wrap it in markup.
func parseWire(text string) wireMessage {
	other := wireMessage{kind: wireOther}
	i := strings.Index(text, otrMark)
	if i < 0 {
		return wireMessage{}
	}
	t := text[i:]
	if versions, ok := parseQuery(t); ok {
		return wireMessage{kind: wireQuery, versions: versions}
	}
	switch {
	case strings.HasPrefix(t, errorMark):
		return wireMessage{kind: wireError}
	case strings.HasPrefix(t, encodedMark):
		end := strings.IndexByte(t, '.')
		if end < 0 || end > maxEncoded {
			return other
		}
		h, err := parseHeader(t[len(encodedMark):end])
		if err != nil {
			return other
		}
		return wireMessage{kind: wireEncoded, encoded: t[:end+1], header: h}
	case strings.HasPrefix(t, "?OTR|"):
		f, ok := parseFragment(t)
		if !ok {
			return other
		}
		return wireMessage{kind: wireFragment, piece: f}
	case strings.HasPrefix(t, "?OTR,"): // version 2's fragments
		return other
	}
	return wireMessage{} // text that happens to hold the four characters
}

// parseQuery reads "?OTRv23?", "?OTR?v2?" and the like. ok is false for anything
// that is not a well-formed query; versions may be empty (version 1 only).
func parseQuery(t string) (versions string, ok bool) {
	t = t[len(otrMark):]
	one := strings.HasPrefix(t, "?")
	t = strings.TrimPrefix(t, "?")
	rest, v := strings.CutPrefix(t, "v")
	if !v {
		return "", one
	}
	list, _, closed := strings.Cut(rest, "?")
	if !closed || len(list) > 16 {
		return "", one
	}
	for _, c := range list {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return "", one
		}
	}
	return list, true
}

// typedWish reports whether a typed text is a bare query: the person's wish for
// a private conversation.
func typedWish(text string) bool { return wish.MatchString(strings.TrimSpace(text)) }

var wish = regexp.MustCompile(`^\?OTR(?:\?|\??v[0-9]{1,4}\?)$`)

// parseHeader decodes the header of a base64 body and checks that the message is
// long enough for its type; lengths inside are the engine's.
func parseHeader(b64 string) (wireHeader, error) {
	b, err := base64.StdEncoding.DecodeString(b64)
	if err != nil || len(b) < 3 {
		return wireHeader{}, errMalformed
	}
	h := wireHeader{version: binary.BigEndian.Uint16(b), typ: b[2]}
	if h.version != 3 {
		return h, nil
	}
	if len(b) < 11 {
		return h, errMalformed
	}
	h.sender, h.receiver = binary.BigEndian.Uint32(b[3:]), binary.BigEndian.Uint32(b[7:])
	if h.sender < lowestTag || h.receiver != 0 && h.receiver < lowestTag {
		return h, errMalformed
	}
	// Shortest possible bodies; otr3 reads some fields without looking.
	least := map[byte]int{typeDHCommit: 4 + 4 + 32, typeDHKey: 4, typeRevealSig: 4 + 4 + 20, typeSignature: 4 + 20,
		typeData: 1 + 4 + 4 + 4 + 8 + 4 + 20 + 4}[h.typ]
	if least == 0 || len(b)-11 < least {
		return h, errMalformed
	}
	h.ignorable = h.typ == typeData && b[11]&1 != 0
	return h, nil
}

// commitHash is the hash of g^x in a D-H Commit message (its last field), which
// decides between two that cross.
func commitHash(encoded string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(strings.TrimPrefix(encoded, encodedMark), "."))
	if err != nil || len(b) < 15 {
		return nil, errMalformed
	}
	b = b[11:]
	for range 2 {
		if len(b) < 4 {
			return nil, errMalformed
		}
		n := binary.BigEndian.Uint32(b)
		if uint64(n) > uint64(len(b)-4) {
			return nil, errMalformed
		}
		field := b[4 : 4+n]
		if b = b[4+n:]; len(b) == 0 {
			if len(field) != 32 {
				return nil, errMalformed
			}
			return field, nil
		}
	}
	return nil, errMalformed
}

// A fragment is one piece of an encoded message (version 3).
type fragment struct {
	sender, receiver uint32
	k, n             int // piece k of n, from 1
	piece            string
}

func parseFragment(t string) (fragment, bool) {
	var f fragment
	rest := t[len("?OTR|"):]
	head, rest, ok := strings.Cut(rest, ",")
	if !ok || len(head) > 17 {
		return f, false
	}
	ks, rest, ok1 := strings.Cut(rest, ",")
	ns, rest, ok2 := strings.Cut(rest, ",")
	piece, _, ok3 := strings.Cut(rest, ",")
	if !ok1 || !ok2 || !ok3 || len(ks) > 5 || len(ns) > 5 {
		return f, false
	}
	if n, err := fmt.Sscanf(head, "%x|%x", &f.sender, &f.receiver); err != nil || n != 2 {
		return f, false
	}
	if n, err := fmt.Sscanf(ks+" "+ns, "%d %d", &f.k, &f.n); err != nil || n != 2 {
		return f, false
	}
	f.piece = piece
	if f.k < 1 || f.n < f.k || f.n > 65535 || piece == "" ||
		f.sender < lowestTag || f.receiver != 0 && f.receiver < lowestTag {
		return f, false
	}
	return f, true
}

// An assembly puts the fragments of one sender together, in order.
type assembly struct {
	k, n int
	text strings.Builder
}

// add returns the whole message once its last piece is there.
func (a *assembly) add(f fragment) (string, bool) {
	switch {
	case f.k == 1:
		*a = assembly{n: f.n}
	case f.n != a.n || f.k != a.k+1 || a.text.Len()+len(f.piece) > maxEncoded:
		*a = assembly{}
		return "", false
	}
	a.k = f.k
	a.text.WriteString(f.piece)
	if a.k < a.n {
		return "", false
	}
	whole := a.text.String()
	*a = assembly{}
	return whole, strings.HasPrefix(whole, encodedMark) // no fragments of fragments
}

// The whitespace tag (OTR version 3, "Tagged plaintext messages").
const (
	tagBase = " \t  \t\t\t\t \t \t \t  "
	tagV2   = "  \t\t  \t "
	tagV3   = "  \t\t  \t\t"
)

// cutTag removes a whitespace tag and tells which versions it offers.
func cutTag(text string) (clean, versions string, tagged bool) {
	i := strings.Index(text, tagBase)
	if i < 0 {
		return text, "", false
	}
	rest := text[i+len(tagBase):]
	for len(rest) >= 8 && strings.Trim(rest[:8], " \t") == "" {
		switch rest[:8] {
		case tagV2:
			versions += "2"
		case tagV3:
			versions += "3"
		}
		rest = rest[8:]
	}
	return text[:i] + rest, versions, true
}
