package otr

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash"
	"io"
	"slices"
	"time"
)

const (
	macSize = sha1.Size // of data messages and, as SHA256-HMAC-160, of signatures
	// maxReveal bounds the old MAC keys that wait to be revealed. Two a message are
	// usual; only a peer that moves its keys on while we are silent gets here.
	maxReveal = 64 * macSize
	// maxText is the longest text that is encrypted, in bytes.
	maxText = MaxMessage / 2

	longText = 128 // bytes from which GCM is faster than block by block
	spare    = 16  // bytes behind a text that crypt may write to: less than the MAC that follows it
)

var (
	// ErrNoSession tells that there is no private conversation with that instance.
	ErrNoSession = errors.New("there is no private conversation")
	// ErrFinished tells that the other side has ended the private conversation;
	// nothing is sent, in clear or otherwise, until a person decides.
	ErrFinished = errors.New("the other side has ended the private conversation")
	// ErrKeyChanged tells that the other side's key is not one that was accepted.
	ErrKeyChanged = errors.New("the other side's key is not the one known before")
	// ErrNUL is what a text with a NUL gets: what follows would be read as OTR's own
	// records.
	ErrNUL = errors.New("a NUL character cannot be sent with OTR")
	// ErrTooLong is what a text of more than half a megabyte gets.
	ErrTooLong = errors.New("the text is too long for an OTR message")
	// ErrUnreadable is a data message that no key of ours opens: forged, replayed,
	// damaged, or of a conversation that one side has lost.
	ErrUnreadable = errors.New("a data message that cannot be read")
)

// A session is a private conversation with one instance of the peer (OTR version
// 3, "Exchanging data"). The newest key is at index 0, the one before at 1.
type session struct {
	id           ID
	version      Version
	instance     uint32 // of the peer
	peer         Fingerprint
	ssid         [8]byte
	weCommitted  bool
	ourID        uint32 // of our[0]; it is not yet known to the peer
	our          [2]*keypair
	theirID      uint32
	since        [2]time.Time // when the peer was first told that key of ours
	their        [2]*element
	keys         [2][2]*keys // by index of ours and theirs
	reveal       []byte      // MAC keys that are of no more use
	smp          smp
	secured      time.Time
	lastSent     time.Time
	lastReceived time.Time
	notBefore    time.Time // of the message that was opened last: when the peer was told the key it has used
	finished     bool      // by the other side

	texts    int // sent
	announce int // of these, up to the first that told the peer our newest key
	read     int // of these, read by the peer for sure
}

// keys are what one key of ours and one of theirs make together.
type keys struct {
	send, receive direction
	extra         [sha256.Size]byte // for other uses (OTR version 3, "Extra symmetric key")
}

// A direction is the keys of one direction.
type direction struct {
	key     [16]byte
	mac     [macSize]byte
	used    bool   // something was authenticated with the MAC key, so it is to be revealed
	counter uint64 // last one sent, or received and authenticated
	ciphers *ciphers
}

// ciphers are the cipher and the MAC of a direction. They are set up at first use and
// kept, which is what makes messages cheap; they take six times the room of the keys,
// so a session that falls silent gives them up.
type ciphers struct {
	block   cipher.Block
	gcm     cipher.AEAD // made when the first long text comes
	hmac    hash.Hash
	sum     [macSize]byte
	in, out [aes.BlockSize]byte
}

// derive makes keys of a shared secret (OTR version 3, "Computing AES keys, MAC
// keys, and the secure session id").
func derive(mpi []byte, ours, theirs *element) *keys {
	k := &keys{}
	high, low := &k.send, &k.receive
	if bytes.Compare(ours[:], theirs[:]) < 0 {
		high, low = low, high
	}
	var sum [sha1.Size]byte
	for i, d := range []*direction{high, low} {
		h := sha1.New()
		h.Write([]byte{byte(1 + i)})
		h.Write(mpi)
		copy(d.key[:], h.Sum(sum[:0]))
		d.mac = sha1.Sum(d.key[:])
	}
	clear(sum[:])
	h := sha256.New()
	h.Write([]byte{0xff})
	h.Write(mpi)
	h.Sum(k.extra[:0])
	return k
}

// ready sets up the cipher and the MAC where they are not.
func (d *direction) ready() *ciphers {
	if d.ciphers != nil {
		return d.ciphers
	}
	block, err := aes.NewCipher(d.key[:])
	if err != nil {
		panic(err) // 16 bytes are a key
	}
	c := &ciphers{block: block, hmac: hmac.New(sha1.New, d.mac[:])}
	c.hmac.Reset() // remembers its state, so that later ones cost nothing
	d.ciphers = c
	return c
}

// authenticate computes the MAC of a message.
func (c *ciphers) authenticate(message []byte) []byte {
	c.hmac.Reset()
	c.hmac.Write(message)
	return c.hmac.Sum(c.sum[:0])
}

// crypt encrypts or decrypts with AES in counter mode: the upper half of the
// first counter block is the message's counter, the lower half counts blocks. The
// result takes the first len(src) bytes of dst, which has room for spare bytes
// more; dst and src are the same memory, or share none.
//
// The standard library's counter mode takes memory for every message. GCM's does
// not, and its keystream is that of counter mode from block 2 on, for a nonce of 12
// bytes, of which the last 4 are zero here; the tag that it makes as well is thrown
// away. Longer texts go through it, in one tenth of the time.
func (c *ciphers) crypt(dst, src []byte, counter uint64) {
	binary.BigEndian.PutUint64(c.in[:8], counter)
	for block := uint64(0); len(src) > 0; block++ {
		if block == 2 && len(src) >= longText {
			if c.gcm == nil {
				var err error
				if c.gcm, err = cipher.NewGCM(c.block); err != nil {
					panic(err) // AES has blocks of 16 bytes
				}
			}
			clear(c.in[8:])
			if out := c.gcm.Seal(dst[:0], c.in[:12], src, nil); &out[0] != &dst[0] {
				panic("otr: no room behind a text, which would have stayed as it was")
			}
			clear(dst[len(src) : len(src)+spare])
			break
		}
		binary.BigEndian.PutUint64(c.in[8:], block)
		c.block.Encrypt(c.out[:], c.in[:])
		n := subtle.XORBytes(dst, src, c.out[:])
		dst, src = dst[n:], src[n:]
	}
	clear(c.out[:])
}

// wipe forgets keys. The MAC key with which messages were authenticated moves to
// reveal: it is of no more use to us, and shown to everybody it proves nothing.
func (k *keys) wipe(reveal []byte) []byte {
	if k == nil {
		return reveal
	}
	if k.receive.used && len(reveal) < maxReveal {
		reveal = append(reveal, k.receive.mac[:]...)
	}
	*k = keys{}
	return reveal
}

// newSession starts from a completed exchange: one key of each side, and the
// secret they share.
func newSession(version Version, instance uint32, our *keypair, their *element, theirID uint32, shared []byte) *session {
	s := &session{version: version, instance: instance, ourID: 2, theirID: theirID}
	s.our[1], s.their[0] = our, their
	s.keys[1][0] = derive(shared, &our.public, their)
	return s
}

// between is the keys made by our key i and their key j.
func (s *session) between(i, j int) *keys {
	k := s.keys[i][j]
	if k == nil {
		var buffer [sharedSize]byte
		k = derive(s.our[i].appendShared(buffer[:0], s.their[j]), &s.our[i].public, s.their[j])
		clear(buffer[:])
		s.keys[i][j] = k
	}
	return k
}

// next makes our newest key, if it is not there yet: only what we send needs it.
func (s *session) next(random io.Reader) error {
	if s.our[0] != nil {
		return nil
	}
	k, err := newKeypair(random)
	s.our[0] = k
	return err
}

// rotateOurs makes our newest key the one before: the peer knows it now.
func (s *session) rotateOurs() {
	for j := range s.keys[1] {
		s.reveal = s.keys[1][j].wipe(s.reveal)
		s.keys[1][j], s.keys[0][j] = s.keys[0][j], nil
	}
	s.our[1].wipe()
	s.our[1], s.our[0] = s.our[0], nil
	s.since[1] = s.since[0]
	s.ourID++
}

// rotateTheirs takes the next key of the peer.
func (s *session) rotateTheirs(next *element) {
	for i := range s.keys {
		s.reveal = s.keys[i][1].wipe(s.reveal)
		s.keys[i][1], s.keys[i][0] = s.keys[i][0], nil
	}
	s.their[1], s.their[0] = s.their[0], next
	s.theirID++
}

// rest gives up what the next message sets up again from its keys.
func (s *session) rest() {
	for i := range s.keys {
		for _, k := range s.keys[i] {
			if k != nil {
				k.send.ciphers, k.receive.ciphers = nil, nil
			}
		}
	}
}

// lastActive is when something was last sent or received.
func (s *session) lastActive() time.Time {
	if s.lastSent.Before(s.lastReceived) {
		return s.lastReceived
	}
	return s.lastSent
}

// wipe forgets all keys.
func (s *session) wipe() {
	for i := range s.keys {
		for j := range s.keys[i] {
			s.keys[i][j].wipe(nil)
			s.keys[i][j] = nil
		}
		s.our[i].wipe()
		s.our[i], s.their[i] = nil, nil
	}
	s.smp.wipe()
	s.reveal = nil
}

// A TLV is a record beside the text of a data message (OTR version 3, "TLVs").
type tlv struct {
	kind  uint16
	value []byte
}

const (
	tlvPadding      = 0
	tlvDisconnected = 1
	tlvSMP1         = 2
	tlvSMP2         = 3
	tlvSMP3         = 4
	tlvSMP4         = 5
	tlvSMPAbort     = 6
	tlvSMP1Q        = 7
	tlvExtraKey     = 8

	maxTLVs = 16 // looked at in one message
)

// seal appends a data message to dst. It allocates nothing where that has room.
func (s *session) seal(dst []byte, now time.Time, random io.Reader, ourTag uint32, flags byte, text []byte, record *tlv) ([]byte, error) {
	if bytes.IndexByte(text, 0) >= 0 {
		return dst, ErrNUL
	}
	size := len(text)
	if record != nil {
		size += 1 + 4 + len(record.value)
	}
	if size > maxText {
		return dst, ErrTooLong
	}
	fresh := s.our[0] == nil
	if err := s.next(random); err != nil {
		return dst, err
	}
	if len(text) > 0 {
		s.texts++
	}
	if fresh {
		s.announce, s.since[0] = s.texts, now
	}
	d := &s.between(1, 0).send
	c := d.ready()
	d.counter++

	next := bytes.TrimLeft(s.our[0].public[:], "\x00")
	raw := headerSize(s.version) + 1 + 4 + 4 + 4 + len(next) + 8 + 4 + size + macSize + 4 + len(s.reveal)
	length := len(encodedMark) + base64.StdEncoding.EncodedLen(raw) + 1
	dst = slices.Grow(dst, length)
	message := dst[len(dst):][:length]
	start := len(message) - raw
	b := appendHeader(message[start:start], s.version, Data, ourTag, s.instance)
	b = append(b, flags)
	b = binary.BigEndian.AppendUint32(b, s.ourID-1)
	b = binary.BigEndian.AppendUint32(b, s.theirID)
	b = appendData(b, next)
	b = binary.BigEndian.AppendUint64(b, d.counter)
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	if record == nil {
		at := len(b)
		b = b[:at+size]
		c.crypt(b[at:at+size+spare], text, d.counter)
	} else {
		at := len(b)
		b = append(append(b, text...), 0)
		b = binary.BigEndian.AppendUint16(b, record.kind)
		b = binary.BigEndian.AppendUint16(b, uint16(len(record.value)))
		b = append(b, record.value...)
		c.crypt(b[at:len(b)+spare], b[at:], d.counter)
	}
	b = append(b, c.authenticate(b)...)
	if b = appendData(b, s.reveal); len(b) != raw {
		panic("otr: a data message is not as long as was reckoned")
	}
	s.reveal = s.reveal[:0]
	encodeTail(message, start)
	return dst[:len(dst)+length], nil
}

// open reads a data message. Nothing of the session changes before its MAC was
// checked. The text it returns lies in the message's own buffer; extra is the extra
// symmetric key of the keys it came with.
func (s *session) open(b []byte) (plain []byte, extra [sha256.Size]byte, err error) {
	r := reader{b: b[headerSize(s.version):]}
	r.take(1) // flags: parseEncoded has read them
	senderID, recipientID := r.int(), r.int()
	next := r.mpi()
	ctr := r.take(8)
	encrypted := r.data()
	authentic := b[:len(b)-len(r.b)]
	mac := r.take(macSize)
	r.data() // old MAC keys, for whoever wants to forge
	if !r.done() || len(b) == 0 {
		return nil, extra, ErrUnreadable
	}
	i, j, ok := s.find(recipientID, senderID)
	if !ok {
		return nil, extra, ErrUnreadable
	}
	k := s.between(i, j)
	d := &k.receive
	c := d.ready()
	counter := binary.BigEndian.Uint64(ctr)
	if subtle.ConstantTimeCompare(c.authenticate(authentic), mac) != 1 {
		return nil, extra, ErrUnreadable
	}
	if counter <= d.counter {
		return nil, extra, ErrReplayed
	}
	var theirNext *element
	if j == 0 { // the peer tells its next key while it uses the newest
		e, ok := parseElement(next)
		if !ok {
			return nil, extra, ErrUnreadable
		}
		theirNext = &e
	}
	d.counter, d.used, extra = counter, true, k.extra
	c.crypt(b[len(authentic)-len(encrypted):len(authentic)+spare], encrypted, counter)
	s.notBefore = s.since[i]
	if i == 0 {
		s.read = s.announce
		s.rotateOurs()
	}
	if j == 0 {
		s.rotateTheirs(theirNext)
	}
	return encrypted, extra, nil
}

// find tells which keys a message was made with. Both must be there, and be one
// of the last two.
func (s *session) find(ourID, theirID uint32) (i, j int, ok bool) {
	switch ourID {
	case s.ourID:
		i = 0
	case s.ourID - 1:
		i = 1
	default:
		return 0, 0, false
	}
	switch theirID {
	case s.theirID:
		j = 0
	case s.theirID - 1:
		j = 1
	default:
		return 0, 0, false
	}
	return i, j, s.our[i] != nil && s.their[j] != nil && s.ourID < 1<<32-1 && s.theirID < 1<<32-1
}

// records are the TLVs behind a text. What is cut short ends the list.
func records(b []byte) (text []byte, list []tlv) {
	text, rest, found := bytes.Cut(b, []byte{0})
	if !found {
		return b, nil
	}
	r := reader{b: rest}
	for len(r.b) >= 4 && len(list) < maxTLVs {
		head := r.take(4)
		value := r.take(int(binary.BigEndian.Uint16(head[2:])))
		if r.bad {
			break
		}
		list = append(list, tlv{binary.BigEndian.Uint16(head), value})
	}
	return text[:len(text):len(text)], list
}
