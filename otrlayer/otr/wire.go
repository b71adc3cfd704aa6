package otr

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
)

// A Version is a version of the protocol, 2 or 3.
type Version uint8

// The versions that are spoken.
const (
	V2 Version = 2
	V3 Version = 3
)

// Versions is a set of versions.
type Versions uint8

// Set makes a set of versions.
func Set(vs ...Version) (s Versions) {
	for _, v := range vs {
		s |= 1 << v
	}
	return s
}

// Has reports whether a version is in the set.
func (s Versions) Has(v Version) bool { return v <= 7 && s&(1<<v) != 0 }

// Best is the highest version that is in both sets; 0 where there is none. Version
// 1, which authenticates nobody, is never in a set.
func (s Versions) Best(other Versions) Version {
	for _, v := range []Version{V3, V2} {
		if s.Has(v) && other.Has(v) {
			return v
		}
	}
	return 0
}

// String lists the versions, such as "2 and 3".
func (s Versions) String() string {
	var list []string
	for _, v := range []Version{V2, V3} {
		if s.Has(v) {
			list = append(list, strconv.Itoa(int(v)))
		}
	}
	if list == nil {
		return "none"
	}
	return strings.Join(list, " and ")
}

// A Kind says what a text is, as far as OTR goes (OTR version 3, "High level
// overview" and "Receiving messages").
type Kind uint8

// The kinds of messages.
const (
	Plain    Kind = iota // no OTR in it
	Tagged               // plain text with a whitespace tag
	Query                // ?OTRv23?
	Error                // ?OTR Error:
	Encoded              // ?OTR:base64.
	Fragment             // ?OTR|sender|receiver,k,n,piece, or ?OTR,k,n,piece,
	Foreign              // begins like OTR and is nothing that is spoken here: another version, or damaged
)

// A Type is the type of an encoded message (OTR version 3, "Encoded messages").
type Type uint8

// The types of encoded messages.
const (
	DHCommit        Type = 0x02
	Data            Type = 0x03
	DHKey           Type = 0x0a
	RevealSignature Type = 0x11
	Signature       Type = 0x12
)

// A Message is a text taken apart, before any cryptography. It refers to the text
// it was parsed from.
type Message struct {
	Kind     Kind
	Versions Versions // offered by a query or a whitespace tag

	// Of an encoded message:
	Version Version
	Type    Type
	// Sender and Receiver are instance tags. Version 2 has none: a caller who can tell
	// a peer's programs apart by other means may set Sender to a number below
	// LowestTag of its own choice before it hands the message on.
	Sender, Receiver uint32
	// Ignorable tells that nobody misses a data message that cannot be read
	// (IGNORE_UNREADABLE).
	Ignorable bool

	body  []byte // base64 of an encoded message
	piece piece

	decoded []byte // body as bytes, for Sum and then one Receive; nil where it was not decoded yet
}

const (
	// LowestTag is the smallest valid instance tag (OTR version 3, "Instance tags").
	LowestTag = 0x100

	// MaxMessage is the size of the longest encoded message that is read, in
	// bytes.
	MaxMessage = 1 << 20

	mark        = "?OTR"
	encodedMark = "?OTR:"
	errorMark   = "?OTR Error:"
	flagIgnore  = 0x01 // IGNORE_UNREADABLE
)

// ErrMalformed is what a message gets that is not as the protocol has it.
var ErrMalformed = errors.New("malformed OTR message")

// Parse tells what a text is. OTR stands at its beginning, or after the markup that some
// programs wrap it in. After words it is text about OTR, though libotr would act on it:
// what a person wrote is not to be lost. A query must be well-formed.
func Parse(text []byte) Message {
	i := bytes.Index(text, []byte(mark))
	if i < 0 || !markup(text[:i]) {
		if _, versions, tagged := CutTag(text); tagged {
			return Message{Kind: Tagged, Versions: versions}
		}
		return Message{}
	}
	t := text[i:]
	rest := t[len(mark):]
	if len(rest) == 0 {
		return Message{}
	}
	switch rest[0] {
	case '?', 'v':
		if versions, ok := parseQuery(rest); ok {
			return Message{Kind: Query, Versions: versions}
		}
	case ':':
		if m, err := parseEncoded(rest[1:]); err == nil {
			return m
		}
		return foreign(rest)
	case '|', ',':
		if p, ok := parsePiece(rest); ok {
			return Message{Kind: Fragment, Version: p.version, Sender: p.sender, Receiver: p.receiver, piece: p}
		}
		return foreign(rest)
	case ' ':
		if bytes.HasPrefix(t, []byte(errorMark)) {
			return Message{Kind: Error}
		}
	}
	return Message{} // text that happens to begin with the four characters
}

// markup reports whether there is nothing but blanks and tags in a text.
func markup(text []byte) bool {
	for {
		text = bytes.TrimLeft(text, " \t\r\n")
		if len(text) == 0 {
			return true
		}
		end := bytes.IndexByte(text, '>')
		if text[0] != '<' || end < 0 {
			return false
		}
		text = text[end+1:]
	}
}

// foreign is what begins like OTR and cannot be read: a message of another version where
// it is one word, as such messages are, and else a text.
func foreign(rest []byte) Message {
	if bytes.ContainsAny(bytes.TrimRight(rest, " \t\r\n"), " \t\r\n") {
		return Message{}
	}
	return Message{Kind: Foreign}
}

// parseQuery reads what follows "?OTR": "?v2?", "v23?", "?".
func parseQuery(t []byte) (versions Versions, ok bool) {
	t, one := bytes.CutPrefix(t, []byte("?"))
	list, v := bytes.CutPrefix(t, []byte("v"))
	if !v {
		return 0, one
	}
	end := bytes.IndexByte(list, '?')
	if end < 0 || end > 16 {
		return 0, one
	}
	for _, c := range list[:end] {
		switch {
		case c == '2':
			versions |= Set(V2)
		case c == '3':
			versions |= Set(V3)
		case (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z'):
			return 0, one
		}
	}
	return versions, true
}

// NewQuery is the message that asks for a private conversation; the sentence is
// for people whose client has no OTR.
func NewQuery(versions Versions, sentence string) []byte {
	b := []byte(mark + "v")
	for _, v := range []Version{V2, V3} {
		if versions.Has(v) {
			b = append(b, '0'+byte(v))
		}
	}
	b = append(b, '?')
	if sentence != "" {
		b = append(append(b, ' '), sentence...)
	}
	return b
}

// NewError is an OTR error message.
func NewError(sentence string) []byte { return []byte(errorMark + " " + sentence) }

// The whitespace tag (OTR version 3, "Tagged plaintext messages").
const (
	tagBase = " \t  \t\t\t\t \t \t \t  "
	tagV2   = "  \t\t  \t "
	tagV3   = "  \t\t  \t\t"
)

// WhitespaceTag is appended to a plain text to offer OTR without anybody seeing
// it.
func WhitespaceTag(versions Versions) string {
	t := tagBase
	if versions.Has(V2) {
		t += tagV2
	}
	if versions.Has(V3) {
		t += tagV3
	}
	return t
}

// CutTag removes a whitespace tag and tells which versions it offers. The text is
// not changed; clean refers to it, or is new where the tag stood in its middle.
func CutTag(text []byte) (clean []byte, versions Versions, tagged bool) {
	before, rest, found := bytes.Cut(text, []byte(tagBase))
	if !found {
		return text, 0, false
	}
	for len(rest) >= 8 && len(bytes.Trim(rest[:8], " \t")) == 0 {
		switch string(rest[:8]) {
		case tagV2:
			versions |= Set(V2)
		case tagV3:
			versions |= Set(V3)
		}
		rest = rest[8:]
	}
	if len(rest) == 0 {
		return before, versions, true
	}
	return append(before[:len(before):len(before)], rest...), versions, true
}

// headerSize is the size of an encoded message's head, in bytes.
func headerSize(v Version) int {
	if v == V3 {
		return 2 + 1 + 4 + 4
	}
	return 2 + 1
}

// parseEncoded reads the head of an encoded message from its base64. That the rest
// is sound is seen when it is decoded.
func parseEncoded(t []byte) (m Message, err error) {
	end := bytes.IndexByte(t, '.')
	if end < 0 || end > MaxMessage {
		return m, ErrMalformed
	}
	m = Message{Kind: Encoded, body: t[:end]}
	broken := bytes.ContainsAny(m.body[:min(len(m.body), 16)], blanks)
	if broken { // words that begin so are text: only a message that is whole has blanks there
		m.body = squeezed(m.body)
	}
	var head [12]byte // 16 characters: version, type, tags, flags
	n, err := base64.StdEncoding.Decode(head[:], m.body[:min(len(m.body), 16)&^3])
	if err != nil || n < 4 {
		return m, ErrMalformed
	}
	if head[0] != 0 || head[1] != byte(V2) && head[1] != byte(V3) {
		return m, ErrMalformed
	}
	m.Version, m.Type = Version(head[1]), Type(head[2])
	after := headerSize(m.Version)
	if n <= after {
		return m, ErrMalformed
	}
	if m.Version == V3 {
		m.Sender, m.Receiver = binary.BigEndian.Uint32(head[3:]), binary.BigEndian.Uint32(head[7:])
		if m.Sender < LowestTag || m.Receiver != 0 && m.Receiver < LowestTag {
			return m, ErrMalformed
		}
	}
	switch m.Type {
	case DHCommit, DHKey, RevealSignature, Signature:
	case Data:
		m.Ignorable = head[after]&flagIgnore != 0
	default:
		return m, ErrMalformed
	}
	if broken {
		if b, err := m.decode(); err != nil || !whole(&m, b) {
			return m, ErrMalformed
		}
	}
	return m, nil
}

// Sum identifies an encoded message by what it says, so that a caller can tell what it
// has seen however it is written: the same bytes have several spellings in base64, and
// anybody can change what follows the authentic part of a data message. What is decoded for it
// serves one call of Receive, which opens it in place. It lies in room, which grows for it.
func (m *Message) Sum(room *[]byte) [sha256.Size]byte {
	b, err := m.decodeIn(*room)
	if err != nil {
		return sha256.Sum256(m.body)
	}
	m.decoded, *room = b, b
	if part := authentic(m, b); part != nil {
		return sha256.Sum256(part)
	}
	return sha256.Sum256(b)
}

// authentic is the part of a decoded data message that its MAC is over; nil for what is
// no whole data message.
func authentic(m *Message, b []byte) []byte {
	if m.Type != Data || len(b) < headerSize(m.Version) {
		return nil
	}
	r := reader{b: b[headerSize(m.Version):]}
	r.take(1) // flags
	r.int()   // the key ids
	r.int()
	r.mpi()
	r.take(8) // the counter
	r.data()
	if part := b[:len(b)-len(r.b)]; len(r.take(macSize)) == macSize {
		return part
	}
	return nil
}

// whole reports whether a decoded message has all the fields of its type (OTR version 3,
// "Encoded messages").
func whole(m *Message, b []byte) bool {
	r := reader{b: b[headerSize(m.Version):]}
	switch m.Type {
	case DHCommit:
		r.data() // g^x, encrypted
		return len(r.data()) == sha256.Size && r.done()
	case DHKey:
		return len(r.mpi()) > 0 && r.done()
	case RevealSignature:
		r.data() // the key to g^x
		fallthrough
	case Signature:
		r.data() // the signature, encrypted
		r.take(macSize)
		return r.done()
	default:
		return authentic(m, b) != nil
	}
}

// decode is the whole encoded message as bytes, its head included. It is read in every
// spelling that stands for the same bytes: with blanks in it, with other padding.
func (m *Message) decode() ([]byte, error) { return m.decodeIn(nil) }

// decodeIn is decode into room, where that is large enough.
func (m *Message) decodeIn(room []byte) ([]byte, error) {
	if m.decoded != nil {
		return m.decoded, nil
	}
	size := base64.RawStdEncoding.DecodedLen(len(m.body)) // as many as there may be
	b := room[:cap(room)]
	if len(b) < size {
		b = make([]byte, size)
	}
	n, err := decodeBase64(b, m.body)
	if err != nil {
		bare := bytes.TrimRight(squeezed(m.body), "=")
		n, err = base64.RawStdEncoding.Decode(b, bare)
	}
	if err != nil || n < headerSize(m.Version) {
		return nil, ErrMalformed
	}
	return b[:n], nil
}

// blanks may stand in base64, and say nothing.
const blanks = " \t\r\n"

// squeezed is a text without blanks.
func squeezed(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for _, c := range text {
		if strings.IndexByte(blanks, c) < 0 {
			out = append(out, c)
		}
	}
	return out
}

// appendHeader begins an encoded message.
func appendHeader(b []byte, v Version, t Type, sender, receiver uint32) []byte {
	b = append(b, 0, byte(v), byte(t))
	if v == V3 {
		b = binary.BigEndian.AppendUint32(b, sender)
		b = binary.BigEndian.AppendUint32(b, receiver)
	}
	return b
}

// encode is a message as it is sent.
func encode(raw []byte) []byte {
	b := make([]byte, 0, len(encodedMark)+base64.StdEncoding.EncodedLen(len(raw))+1)
	b = append(b, encodedMark...)
	b = base64.StdEncoding.AppendEncode(b, raw)
	return append(b, '.')
}

// encodeTail encodes the bytes at the end of a buffer, from raw on, in place: the
// buffer has exactly the size of the encoded message. Groups of bytes are copied
// out before they are written over, and what is written never catches up with
// what is still to be read: 4/3 of what was read, plus the mark, is less than the
// way to the end by the final dot until the very end.
func encodeTail(b []byte, raw int) {
	w := copy(b, encodedMark)
	var group [768]byte
	for raw < len(b) {
		n := copy(group[:], b[raw:])
		raw += n
		encodeBase64(b[w:], group[:n])
		w += base64.StdEncoding.EncodedLen(n)
	}
	b[w] = '.'
}

// appendData appends bytes with their length (OTR's DATA).
func appendData(b, data []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// appendMPI appends a number with its length, without leading zeros (OTR's MPI).
func appendMPI(b, number []byte) []byte { return appendData(b, bytes.TrimLeft(number, "\x00")) }

// A reader takes fields off the front of a message. After a field that is not
// there it yields zeros, and bad is set: the fields can be read in one go and
// checked once. Nothing is copied or allocated.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return nil
	}
	f := r.b[:n:n]
	r.b = r.b[n:]
	return f
}

func (r *reader) int() uint32 {
	if f := r.take(4); f != nil {
		return binary.BigEndian.Uint32(f)
	}
	return 0
}

// data reads bytes with their length.
func (r *reader) data() []byte {
	n := r.int()
	if uint64(n) > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	return r.take(int(n))
}

// mpi reads a number; it has no leading zeros, as the specification demands.
func (r *reader) mpi() []byte {
	f := r.data()
	if len(f) > 0 && f[0] == 0 {
		r.bad = true
		return nil
	}
	return f
}

// element reads a number that must be a usable group element.
func (r *reader) element() (e element) {
	e, ok := parseElement(r.mpi())
	if !ok {
		r.bad = true
	}
	return e
}

// done reports whether all was there and nothing is left.
func (r *reader) done() bool { return !r.bad && len(r.b) == 0 }
