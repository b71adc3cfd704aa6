package otr

import (
	"bytes"
	"cmp"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"slices"
	"time"
)

// The authenticated key exchange (OTR version 3, "Authenticated Key Exchange"):
//
//	Bob    D-H Commit          a promise of g^x: its ciphertext and its hash
//	Alice  D-H Key             g^y
//	Bob    Reveal Signature    the key of that ciphertext, and who he is, signed
//	Alice  Signature           who she is, signed
//
// Whoever commits is Bob. Any exchange runs beside the live session with that
// instance, and beside other exchanges, and takes the session's place when it is
// complete: a message that was forged, repeated or never answered costs bounded
// room for a minute and changes nothing else.

// A commitment is our D-H Commit message. Sent to a bare address it may be
// answered by several instances.
type commitment struct {
	version Version
	began   time.Time
	key     *keypair
	r       [16]byte // encrypts g^x until it is revealed
	hash    [sha256.Size]byte
	message []byte
	resent  int
	done    []uint32 // instances with which it has led to a session
	over    bool     // it was sent while we had answered one of the peer's
}

func (m *commitment) wipe() {
	if m != nil {
		m.key.wipe()
		clear(m.r[:])
	}
}

// A promise is the content of a D-H Commit message of the peer's.
type promise struct{ encrypted, hash []byte }

// clone is what may be kept: the fields lie in the message's buffer, which can be a
// thousand times their size.
func (p promise) clone() promise { return promise{slices.Clone(p.encrypted), slices.Clone(p.hash)} }

// An exchange is one with one instance. Either we have committed, have revealed and
// wait for the Signature message; or we have answered a D-H Commit and wait for the
// Reveal Signature message.
type exchange struct {
	version   Version
	instance  uint32
	began     time.Time
	committed bool
	key       *keypair
	message   []byte // our last one, to be sent again when the peer asks again

	promises []promise // we answer: what the peer may reveal

	theirs  element // we committed: g^y
	shared  []byte
	secrets exchangeKeys
}

func (e *exchange) wipe() {
	e.key.wipe()
	clear(e.shared)
	e.secrets = exchangeKeys{}
}

// exchangeKeys are made of the shared secret; a is Bob's half, b Alice's.
type exchangeKeys struct {
	ssid [8]byte
	a, b struct{ c, m1, m2 []byte }
}

func deriveExchange(shared []byte) (k exchangeKeys) {
	h2 := func(b byte) []byte {
		h := sha256.New()
		h.Write([]byte{b})
		h.Write(shared)
		return h.Sum(nil)
	}
	copy(k.ssid[:], h2(0))
	c := h2(1)
	k.a.c, k.b.c = c[:16], c[16:]
	k.a.m1, k.a.m2, k.b.m1, k.b.m2 = h2(2), h2(3), h2(4), h2(5)
	return k
}

// crypt is AES in counter mode from zero, for keys that are used once.
func crypt(key, data []byte) []byte {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // 16 bytes are a key
	}
	out := make([]byte, len(data))
	cipher.NewCTR(block, make([]byte, aes.BlockSize)).XORKeyStream(out, data)
	return out
}

func hmac256(key, data []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(data)
	return h.Sum(nil)
}

// keyMPI is a public key as it is sent.
func keyMPI(e *element) []byte { return appendMPI(nil, e[:]) }

// Commit begins an exchange: it returns the D-H Commit message, which answers a
// query or a whitespace tag. One that nobody has answered yet is sent again as it is:
// the peer may have compared its hash with that of a commit of its own, and both
// sides must come to the same result.
func (c *Conversation) Commit(now time.Time, version Version) ([]byte, error) {
	if !c.config.Versions().Has(version) || version != V2 && version != V3 {
		return nil, ErrVersion
	}
	c.expire(now)
	over := slices.ContainsFunc(c.exchanges, func(e *exchange) bool { return !e.committed })
	if own := c.commitment; own != nil && own.version == version && len(own.done) == 0 && !c.answered(own) {
		own.began, own.resent, own.over = now, 0, own.over || over
		return own.message, nil
	}
	if !c.spend(now, 1) {
		return nil, ErrBusy
	}
	m := &commitment{version: version, began: now, over: over}
	var err error
	if m.key, err = newKeypair(c.config.Random); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(c.config.Random, m.r[:]); err != nil {
		return nil, err
	}
	gx := keyMPI(&m.key.public)
	m.hash = sha256.Sum256(gx)
	b := appendHeader(nil, version, DHCommit, c.config.Instance, 0)
	b = appendData(b, crypt(m.r[:], gx))
	m.message = encode(appendData(b, m.hash[:]))
	c.commitment.wipe()
	c.commitment = m
	return m.message, nil
}

// handshake takes a message of the exchange.
func (c *Conversation) handshake(now time.Time, m Message) (Result, error) {
	c.expire(now)
	b, err := m.decode()
	if err != nil {
		return Result{}, err
	}
	r := reader{b: b[headerSize(m.Version):]}
	switch m.Type {
	case DHCommit:
		return c.commitReceived(now, m, &r)
	case DHKey:
		return c.keyReceived(now, m, &r)
	case RevealSignature:
		return c.revealReceived(now, m, &r)
	default:
		return c.signatureReceived(now, m, &r)
	}
}

func (c *Conversation) removeExchanges(which func(*exchange) bool) {
	c.exchanges = slices.DeleteFunc(c.exchanges, func(e *exchange) bool {
		gone := which(e)
		if gone {
			e.wipe()
		}
		return gone
	})
}

func (c *Conversation) addExchange(e *exchange) {
	if len(c.exchanges) >= maxExchanges {
		c.exchanges[0].wipe()
		c.exchanges = slices.Delete(c.exchanges, 0, 1)
	}
	c.exchanges = append(c.exchanges, e)
}

// commitReceived answers a D-H Commit message with a D-H Key message; or, where it
// has crossed one of ours that has the larger hash, with ours again ("Receiving a
// D-H Commit message").
func (c *Conversation) commitReceived(now time.Time, m Message, r *reader) (Result, error) {
	p := promise{encrypted: r.data(), hash: r.data()}
	if !r.done() || len(p.hash) != sha256.Size || len(p.encrypted) < 4 || len(p.encrypted) > 4+elementSize {
		return Result{}, ErrMalformed
	}
	if own := c.commitment; own != nil && own.version == m.Version && !c.awaitsSignature(own, m.Sender) && !slices.Contains(own.done, m.Sender) {
		switch bytes.Compare(own.hash[:], p.hash) {
		case 0:
			return Result{}, ErrNotForUs // our own message played back
		case 1:
			if own.resent++; own.resent > maxResent {
				return Result{}, ErrBusy
			}
			return Result{Replies: [][]byte{own.message}}, nil
		}
	}
	for _, e := range c.exchanges {
		if e.committed || e.instance != m.Sender || e.version != m.Version {
			continue
		}
		if !slices.ContainsFunc(e.promises, func(o promise) bool { return bytes.Equal(o.hash, p.hash) }) {
			if len(e.promises) >= maxCommits {
				e.promises = slices.Delete(e.promises, 0, 1)
			}
			e.promises = append(e.promises, p.clone())
		}
		return Result{Replies: [][]byte{e.message}}, nil
	}
	if !c.spend(now, 1) {
		return Result{}, ErrBusy
	}
	key, err := newKeypair(c.config.Random)
	if err != nil {
		return Result{}, err
	}
	e := &exchange{version: m.Version, instance: m.Sender, began: now, key: key, promises: []promise{p.clone()}}
	b := appendHeader(nil, m.Version, DHKey, c.config.Instance, m.Sender)
	e.message = encode(appendMPI(b, key.public[:]))
	c.addExchange(e)
	return Result{Replies: [][]byte{e.message}}, nil
}

// awaitsSignature reports whether an instance has answered our commit with its D-H
// Key message: a commit that it sends now does not cross ours.
func (c *Conversation) awaitsSignature(own *commitment, instance uint32) bool {
	return slices.ContainsFunc(c.exchanges, func(e *exchange) bool { return e.of(own) && e.instance == instance })
}

// answered reports whether any instance has.
func (c *Conversation) answered(own *commitment) bool {
	return slices.ContainsFunc(c.exchanges, func(e *exchange) bool { return e.of(own) })
}

// of reports whether an exchange has come of a commit of ours.
func (e *exchange) of(own *commitment) bool { return e.committed && e.key.public == own.key.public }

// keyReceived answers a D-H Key message with a Reveal Signature message.
func (c *Conversation) keyReceived(now time.Time, m Message, r *reader) (Result, error) {
	gy := r.element()
	if !r.done() {
		return Result{}, ErrMalformed
	}
	for _, e := range c.exchanges {
		switch {
		case e.instance != m.Sender || e.version != m.Version:
		case e.committed && e.theirs == gy:
			return Result{Replies: [][]byte{e.message}}, nil // it asks again
		case !e.committed && e.key.public == gy:
			return Result{}, ErrNotForUs // our own message played back
		}
	}
	own := c.commitment
	if own == nil || own.version != m.Version || own.key.public == gy || slices.Contains(own.done, m.Sender) {
		return Result{}, ErrUnexpected
	}
	if !c.spend(now, 2) {
		return Result{}, ErrBusy
	}
	e := &exchange{version: m.Version, instance: m.Sender, began: now, committed: true, theirs: gy}
	copied := *own.key // another instance may answer as well, and secrets are wiped one by one
	e.key = &copied
	e.shared = e.key.appendShared(make([]byte, 0, sharedSize), &gy)
	e.secrets = deriveExchange(e.shared)
	who, err := c.identify(e.secrets.a.c, e.secrets.a.m1, e.secrets.a.m2, &e.key.public, &gy)
	if err != nil {
		return Result{}, err
	}
	b := appendHeader(nil, m.Version, RevealSignature, c.config.Instance, m.Sender)
	b = appendData(b, own.r[:])
	e.message = encode(append(b, who...))
	c.addExchange(e)
	return Result{Replies: [][]byte{e.message}}, nil
}

// firstKeyID is the number of the key of an exchange.
const firstKeyID = 1

// identify makes the encrypted signature and its MAC, by which one side says who it
// is.
func (c *Conversation) identify(key, m1, m2 []byte, ours, theirs *element) ([]byte, error) {
	body := binary.BigEndian.AppendUint32(slices.Clone(c.config.Key.serialised), firstKeyID)
	signed := append(append(keyMPI(ours), keyMPI(theirs)...), body...)
	sig, err := c.config.Key.sign(c.config.Random, hmac256(m1, signed))
	if err != nil {
		return nil, err
	}
	encrypted := appendData(nil, crypt(key, append(body, sig...)))
	return append(encrypted, hmac256(m2, encrypted)[:macSize]...), nil
}

// identified checks what identify made, from the other side. Nobody is anybody
// before this returns without an error.
func (c *Conversation) identified(now time.Time, r *reader, key, m1, m2 []byte, theirs, ours *element) (peer Fingerprint, keyID uint32, err error) {
	start := r.b
	encrypted := r.data()
	authentic := start[:len(start)-len(r.b)]
	mac := r.take(macSize)
	if !r.done() {
		return peer, 0, ErrMalformed
	}
	if !same(hmac256(m2, authentic)[:macSize], mac) {
		return peer, 0, ErrForged
	}
	if !c.spend(now, 1) { // only who made the shared secret comes this far
		return peer, 0, ErrBusy
	}
	body := reader{b: crypt(key, encrypted)}
	whole := body.b
	public := body.publicKey()
	keyID = body.int()
	signed := whole[:len(whole)-len(body.b)]
	sig := body.take(signature)
	if !body.done() || keyID == 0 || !public.sound() {
		return peer, 0, ErrForged
	}
	if public.verify(hmac256(m1, append(append(keyMPI(theirs), keyMPI(ours)...), signed...)), sig) != nil {
		return peer, 0, ErrForged
	}
	peer = public.fingerprint()
	if peer == c.config.Key.fingerprint {
		return peer, 0, ErrReflected
	}
	return peer, keyID, nil
}

// revealReceived checks a Reveal Signature message; the session is there, and the
// peer learns it from our Signature message.
func (c *Conversation) revealReceived(now time.Time, m Message, r *reader) (Result, error) {
	key := r.data()
	if r.bad || len(key) != 16 {
		return Result{}, ErrMalformed
	}
	for _, e := range c.exchanges {
		if e.committed || e.instance != m.Sender || e.version != m.Version {
			continue
		}
		for _, p := range e.promises {
			gx := crypt(key, p.encrypted)
			if hash := sha256.Sum256(gx); !same(hash[:], p.hash) {
				continue
			}
			in := reader{b: gx}
			theirs := in.element()
			if !in.done() || theirs == e.key.public {
				return Result{}, ErrForged
			}
			if !c.spend(now, 2) {
				return Result{}, ErrBusy
			}
			shared := e.key.appendShared(make([]byte, 0, sharedSize), &theirs)
			defer clear(shared)
			k := deriveExchange(shared)
			peer, keyID, err := c.identified(now, r, k.a.c, k.a.m1, k.a.m2, &theirs, &e.key.public)
			if err != nil {
				return Result{}, err
			}
			who, err := c.identify(k.b.c, k.b.m1, k.b.m2, &e.key.public, &theirs)
			if err != nil {
				return Result{}, err
			}
			if !c.makeRoom(m.Sender, peer) {
				return Result{}, ErrBusy
			}
			reply := encode(append(appendHeader(nil, m.Version, Signature, c.config.Instance, m.Sender), who...))
			res := Result{Replies: [][]byte{reply}}
			c.complete(now, e, theirs, shared, k.ssid, peer, keyID, &res)
			return res, nil
		}
		return Result{}, ErrForged
	}
	return Result{}, ErrUnexpected
}

// signatureReceived checks a Signature message, the last of an exchange.
func (c *Conversation) signatureReceived(now time.Time, m Message, r *reader) (Result, error) {
	result := ErrUnexpected
	for _, e := range c.exchanges {
		if !e.committed || e.instance != m.Sender || e.version != m.Version {
			continue
		}
		k, in := &e.secrets, *r
		peer, keyID, err := c.identified(now, &in, k.b.c, k.b.m1, k.b.m2, &e.theirs, &e.key.public)
		if err != nil {
			result = err
			continue
		}
		if !c.makeRoom(m.Sender, peer) {
			return Result{}, ErrBusy
		}
		var res Result
		c.complete(now, e, e.theirs, e.shared, k.ssid, peer, keyID, &res)
		return res, nil
	}
	return Result{}, result
}

// with is the session with an instance under one key.
func (c *Conversation) with(instance uint32, peer Fingerprint) *session {
	for _, s := range c.sessions {
		if s.instance == instance && s.peer == peer {
			return s
		}
	}
	return nil
}

// makeRoom makes room for one more session: an ended one goes, or one whose key
// nobody accepted, or, where the newcomer's is accepted, the one that was silent
// longest. It reports whether there is room: an accepted session never gives way to a
// key that is not, nor the one that is kept to any.
func (c *Conversation) makeRoom(instance uint32, peer Fingerprint) bool {
	if c.with(instance, peer) != nil || len(c.sessions) < maxSessions {
		return true
	}
	rank := func(s *session) int {
		switch {
		case s.id == c.kept:
			return 3
		case s.finished:
			return 0
		case !slices.Contains(c.accepted, s.peer):
			return 1
		}
		return 2
	}
	victim := slices.MinFunc(c.sessions, func(a, b *session) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), a.lastReceived.Compare(b.lastReceived))
	})
	if rank(victim) >= 2 && !slices.Contains(c.accepted, peer) {
		return false
	}
	c.drop(victim)
	return true
}

// complete puts the session of an exchange in the place of the one with the same
// instance and key. The exchange is over, and so are older ones with that instance.
func (c *Conversation) complete(now time.Time, e *exchange, theirs element, shared []byte, ssid [8]byte, peer Fingerprint, keyID uint32, res *Result) {
	key := *e.key
	s := newSession(e.version, e.instance, &key, &theirs, keyID, shared)
	s.ssid, s.peer, s.weCommitted = ssid, peer, e.committed
	s.secured, s.lastSent, s.lastReceived = now, now, now
	s.since[1] = now
	if len(c.accepted) == 0 {
		c.Accept(peer)
	}
	event := Event{Kind: Secured}
	if old := c.with(e.instance, peer); old != nil {
		s.id = old.id
		if old.smp.step != smpIdle {
			res.Events = append(res.Events, Event{Kind: SMPAborted, Session: c.describe(old)})
		}
		before := c.describe(old)
		event.Before = &before
		c.drop(old)
	} else {
		c.lastID++
		s.id = c.lastID
	}
	c.sessions = append(c.sessions, s)
	if own := c.commitment; own != nil && own.key.public == e.key.public {
		// It may still be answered by other instances.
		if len(own.done) >= maxSessions {
			own.done = own.done[1:]
		}
		own.done = append(own.done, e.instance)
	}
	older := true
	c.removeExchanges(func(x *exchange) bool {
		if x == e {
			older = false
			return true
		}
		return older && x.instance == e.instance
	})
	event.Session = c.describe(s)
	res.Events = append(res.Events, event)
}
