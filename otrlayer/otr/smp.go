package otr

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"time"
)

// The Socialist Millionaires' Protocol (OTR version 3, "Socialist Millionaires'
// Protocol (SMP)"): do both people know the same secret? Names are those of the
// specification, seen from whoever starts (Alice, a) and whoever answers (Bob, b).
// What proves what is written beside each hash by its number, 1 to 8.
//
// Unlike libotr and otr3 the group membership of every number is checked in
// version 2 as well: without it a peer could succeed without the secret.

type smpStep uint8

const (
	smpIdle    smpStep = iota
	smpAsked           // message 1 came; a person has to answer
	smpExpect2         // we started
	smpExpect3         // we answered
	smpExpect4
)

// An smp is where a session's comparison stands.
type smp struct {
	step     smpStep
	question bool // it began with a question
	*smpState
}

type smpState struct {
	a2, a3, x scalar  // our secrets; b2, b3, y for Bob
	g2, g3    element // once both sides' halves are there
	g3theirs  element // g3a or g3b: the peer's half
	ours      [2]element
	ab        element // Qa/Qb
	p         element // Pa/Pb
}

func (s *smp) wipe() {
	if s.smpState != nil {
		*s.smpState = smpState{}
	}
	*s = smp{}
}

var (
	// ErrComparing tells that a comparison is under way, or that none is.
	ErrComparing = errors.New("another comparison of secrets is under way; abort it first")
	// ErrNotComparing is an answer where nothing was asked.
	ErrNotComparing = errors.New("the other side has not asked to compare secrets")
	errCheated      = errors.New("a number that an honest program does not send")
)

const smpCost = 8 // of checking a first message, in modular exponentiations of an exchange

// smpHash is the hash of a proof, as an exponent.
func smpHash(number byte, elements ...*element) (c scalar) {
	h := sha256.New()
	h.Write([]byte{number})
	for _, e := range elements {
		h.Write(keyMPI(e))
	}
	h.Sum(c[:len(c)-sha256.Size])
	return c
}

// short is a hash as an exponent of its own length: hashes are public.
func (s *scalar) short() []byte { return s[len(s)-sha256.Size:] }

// product2 computes a^x * b^y.
func product2(a *element, x []byte, b *element, y []byte) (out element) {
	var l, r element
	out.times(l.power(a, x), r.power(b, y))
	return out
}

// knows is a proof that its maker knows the exponent of a power of base.
func knows(random io.Reader, number byte, base *element, secret *scalar) (c, d scalar, err error) {
	r, err := randomScalar(random)
	if err != nil {
		return c, d, err
	}
	var commitment element
	c = smpHash(number, commitment.power(base, r[:]))
	d.minusProduct(&r, secret, &c)
	return c, d, nil
}

// checkKnows checks it.
func checkKnows(number byte, base, power *element, c, d *scalar) bool {
	e := product2(base, d[:], power, c.short())
	want := smpHash(number, &e)
	return same(want[:], c[:])
}

// numbers writes the numbers of a message: all are taken as big-endian bytes.
func numbers(list ...[]byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(list)))
	for _, n := range list {
		b = appendMPI(b, n)
	}
	return b
}

// count reads how many numbers follow; it must be what the message demands, so
// nothing is taken from the peer's word.
func (r *reader) count(n uint32) {
	if r.int() != n {
		r.bad = true
	}
}

func (r *reader) scalar() (s scalar) {
	s, ok := parseScalar(r.mpi())
	if !ok {
		r.bad = true
	}
	return s
}

// hash reads a hash, which unlike other exponents may be any number of 256 bits.
func (r *reader) hash() (s scalar) {
	b := r.mpi()
	if len(b) > sha256.Size {
		r.bad = true
		return s
	}
	copy(s[len(s)-len(b):], b)
	return s
}

// smpSecret is the exponent made of what the people typed, and of who they are
// here: x = SHA256(1, initiator's fingerprint, responder's, ssid, secret).
func (c *Conversation) smpSecret(s *session, weStarted bool, secret []byte) (x scalar) {
	h := sha256.New()
	h.Write([]byte{1})
	ours, theirs := c.config.Key.fingerprint, s.peer
	if !weStarted {
		ours, theirs = theirs, ours
	}
	h.Write(ours[:])
	h.Write(theirs[:])
	h.Write(s.ssid[:])
	h.Write(secret)
	h.Sum(x[:len(x)-sha256.Size])
	return x
}

// SMPStart asks the peer of a session to compare secrets, with a question where question is
// not nil, and returns the message to send. The secret is not kept.
func (c *Conversation) SMPStart(now time.Time, id ID, question *string, secret []byte) ([]byte, error) {
	s, err := c.open(id)
	if err != nil {
		return nil, err
	}
	if s.smp.step != smpIdle {
		return nil, ErrComparing
	}
	st := &smpState{x: c.smpSecret(s, true, secret)}
	value, err := st.first(c.config.Random)
	if err != nil {
		return nil, err
	}
	record := &tlv{tlvSMP1, value}
	if question != nil {
		if len(*question)+1+len(value) > 0xffff {
			return nil, ErrTooLong
		}
		if bytes.IndexByte([]byte(*question), 0) >= 0 {
			return nil, ErrNUL
		}
		record = &tlv{tlvSMP1Q, append(append([]byte(*question), 0), value...)}
	}
	m, err := c.send(now, s, record)
	if err != nil {
		return nil, err
	}
	s.smp = smp{step: smpExpect2, question: question != nil, smpState: st}
	return m, nil
}

// SMPAnswer answers what the peer of a session has asked, and returns the message to send.
func (c *Conversation) SMPAnswer(now time.Time, id ID, secret []byte) ([]byte, error) {
	s, err := c.open(id)
	if err != nil {
		return nil, err
	}
	if s.smp.step != smpAsked {
		return nil, ErrNotComparing
	}
	s.smp.x = c.smpSecret(s, false, secret)
	value, err := s.smp.second(c.config.Random)
	if err != nil {
		return nil, err
	}
	m, err := c.send(now, s, &tlv{tlvSMP2, value})
	if err != nil {
		return nil, err
	}
	s.smp.step = smpExpect3
	return m, nil
}

// SMPAbort gives a comparison up, whether one is under way or not, and returns the
// message that tells the peer.
func (c *Conversation) SMPAbort(now time.Time, id ID) ([]byte, error) {
	s, err := c.open(id)
	if err != nil {
		return nil, err
	}
	s.smp.wipe()
	return c.send(now, s, &tlv{kind: tlvSMPAbort})
}

// smpReceived takes one record of SMP. Only an error of the random source is an
// error; all else is an event.
func (c *Conversation) smpReceived(now time.Time, s *session, rec *tlv, res *Result) error {
	event := func(k EventKind) *Event {
		res.Events = append(res.Events, Event{Kind: k, Session: c.describe(s)})
		return &res.Events[len(res.Events)-1]
	}
	reply := func(kind uint16, value []byte) error {
		m, err := c.send(now, s, &tlv{kind, value})
		if err == nil {
			res.Replies = append(res.Replies, m)
		}
		return err
	}
	over := func(k EventKind) {
		question, answered := s.smp.question, s.smp.step == smpExpect3
		s.smp.wipe()
		e := event(k)
		e.HasQuestion, e.Answered = question, answered && question
	}
	expected := map[uint16]smpStep{tlvSMP1: smpIdle, tlvSMP1Q: smpIdle, tlvSMP2: smpExpect2, tlvSMP3: smpExpect3, tlvSMP4: smpExpect4}
	if rec.kind == tlvSMPAbort {
		if s.smp.step != smpIdle {
			over(SMPAborted)
		}
		return nil
	}
	if s.smp.step != expected[rec.kind] {
		if s.smp.step != smpIdle || rec.kind == tlvSMP1 || rec.kind == tlvSMP1Q {
			over(SMPAborted)
			return reply(tlvSMPAbort, nil)
		}
		return nil // of a comparison we have given up: the peer knows, or gives up by itself
	}
	cheated := func(err error) error {
		if err != errCheated {
			return err
		}
		over(SMPCheated)
		return reply(tlvSMPAbort, nil)
	}
	value := rec.value
	switch rec.kind {
	case tlvSMP1, tlvSMP1Q:
		var question []byte
		if rec.kind == tlvSMP1Q {
			var found bool
			if question, value, found = bytes.Cut(value, []byte{0}); !found {
				return cheated(errCheated)
			}
		}
		if !c.spend(now, smpCost) {
			return reply(tlvSMPAbort, nil)
		}
		st := &smpState{}
		if err := st.readFirst(value); err != nil {
			return cheated(err)
		}
		s.smp = smp{step: smpAsked, question: rec.kind == tlvSMP1Q, smpState: st}
		e := event(SMPAsked)
		e.Question, e.HasQuestion = string(question), s.smp.question
	case tlvSMP2:
		third, err := s.smp.third(c.config.Random, value)
		if err != nil {
			return cheated(err)
		}
		s.smp.step = smpExpect4
		event(SMPProgress)
		return reply(tlvSMP3, third)
	case tlvSMP3:
		fourth, equal, err := s.smp.fourth(c.config.Random, value)
		if err != nil {
			return cheated(err)
		}
		if err := reply(tlvSMP4, fourth); err != nil {
			return err
		}
		over(outcome(equal))
	case tlvSMP4:
		equal, err := s.smp.last(value)
		if err != nil {
			return cheated(err)
		}
		over(outcome(equal))
	}
	return nil
}

func outcome(equal bool) EventKind {
	if equal {
		return SMPSuccess
	}
	return SMPFailure
}

// halves draws our two exponents and proves that we know them, with hashes number
// and number+1.
func (st *smpState) halves(random io.Reader, number byte) (list [][]byte, err error) {
	for i, secret := range []*scalar{&st.a2, &st.a3} {
		if *secret, err = randomScalar(random); err != nil {
			return nil, err
		}
		half := &st.ours[i]
		half.power(&generator, secret[:])
		c, d, err := knows(random, number+byte(i), &generator, secret)
		if err != nil {
			return nil, err
		}
		list = append(list, half[:], c[:], d[:])
	}
	return list, nil
}

// readHalves checks the peer's halves: it fails where the proofs do.
func (r *reader) readHalves(number byte) (half [2]element, err error) {
	var c, d [2]scalar
	for i := range half {
		half[i], c[i], d[i] = r.element(), r.hash(), r.scalar()
	}
	if r.bad {
		return half, errCheated
	}
	for i := range half {
		if !checkKnows(number+byte(i), &generator, &half[i], &c[i], &d[i]) {
			return half, errCheated
		}
	}
	return half, nil
}

// first makes message 1: g2a, c2, D2, g3a, c3, D3.
func (st *smpState) first(random io.Reader) ([]byte, error) {
	list, err := st.halves(random, 1)
	return numbers(list...), err
}

// readFirst checks message 1 and keeps Alice's halves until the person answers.
func (st *smpState) readFirst(value []byte) error {
	r := reader{b: value}
	r.count(6)
	half, err := r.readHalves(1)
	if err != nil || !r.done() {
		return errCheated
	}
	st.g2, st.g3theirs = half[0], half[1] // g2 is raised to b2 with the answer
	return nil
}

// pq makes P = g3^r4 and Q = g1^r4 g2^x, with the proof that they are so made.
func (st *smpState) pq(random io.Reader, number byte) (p, q element, c, d5, d6 scalar, err error) {
	var r [3]scalar // r4, r5, r6
	for i := range r {
		if r[i], err = randomScalar(random); err != nil {
			return
		}
	}
	p.power(&st.g3, r[0][:])
	q = product2(&generator, r[0][:], &st.g2, st.x[:])
	var first element
	second := product2(&generator, r[1][:], &st.g2, r[2][:])
	c = smpHash(number, first.power(&st.g3, r[1][:]), &second)
	d5.minusProduct(&r[1], &r[0], &c)
	d6.minusProduct(&r[2], &st.x, &c)
	return
}

// readPQ checks it.
func (st *smpState) readPQ(number byte, p, q *element, c, d5, d6 *scalar) bool {
	first := product2(&st.g3, d5[:], p, c.short())
	second := product2(&generator, d5[:], &st.g2, d6[:])
	var qc element
	second.times(&second, qc.power(q, c.short()))
	want := smpHash(number, &first, &second)
	return same(want[:], c[:])
}

// second makes message 2: g2b, c2, D2, g3b, c3, D3, Pb, Qb, cP, D5, D6.
func (st *smpState) second(random io.Reader) ([]byte, error) {
	list, err := st.halves(random, 3)
	if err != nil {
		return nil, err
	}
	g2a := st.g2
	st.g2.power(&g2a, st.a2[:])
	st.g3.power(&st.g3theirs, st.a3[:])
	p, q, c, d5, d6, err := st.pq(random, 5)
	if err != nil {
		return nil, err
	}
	st.p, st.ab = p, q // divided when Alice's are there
	return numbers(append(list, p[:], q[:], c[:], d5[:], d6[:])...), nil
}

// third checks message 2 and makes message 3: Pa, Qa, cP, D5, D6, Ra, cR, D7.
func (st *smpState) third(random io.Reader, value []byte) ([]byte, error) {
	r := reader{b: value}
	r.count(11)
	half, err := r.readHalves(3)
	pb, qb, c, d5, d6 := r.element(), r.element(), r.hash(), r.scalar(), r.scalar()
	if err != nil || !r.done() {
		return nil, errCheated
	}
	st.g2.power(&half[0], st.a2[:])
	st.g3.power(&half[1], st.a3[:])
	st.g3theirs = half[1]
	if !st.readPQ(5, &pb, &qb, &c, &d5, &d6) {
		return nil, errCheated
	}
	pa, qa, c, d5, d6, err := st.pq(random, 6)
	if err != nil {
		return nil, err
	}
	if pa == pb || qa == qb {
		return nil, errCheated
	}
	st.p.over(&pa, &pb)
	st.ab.over(&qa, &qb)
	ra, cr, d7, err := st.proveR(random, 7)
	if err != nil {
		return nil, err
	}
	return numbers(pa[:], qa[:], c[:], d5[:], d6[:], ra[:], cr[:], d7[:]), nil
}

// proveR makes R = (Qa/Qb)^a3, and the proof that its exponent is that of our half.
func (st *smpState) proveR(random io.Reader, number byte) (out element, c, d scalar, err error) {
	out.power(&st.ab, st.a3[:])
	r, err := randomScalar(random)
	if err != nil {
		return
	}
	var first, second element
	c = smpHash(number, first.power(&generator, r[:]), second.power(&st.ab, r[:]))
	d.minusProduct(&r, &st.a3, &c)
	return
}

// checkR checks it and tells whether the secrets are equal: R^a3 = Pa/Pb.
func (st *smpState) checkR(number byte, r *element, c, d *scalar) (equal, ok bool) {
	first := product2(&generator, d[:], &st.g3theirs, c.short())
	second := product2(&st.ab, d[:], r, c.short())
	if want := smpHash(number, &first, &second); !same(want[:], c[:]) {
		return false, false
	}
	var rab element
	rab.power(r, st.a3[:])
	return same(rab[:], st.p[:]), true
}

// fourth checks message 3, makes message 4 (Rb, cR, D7) and tells whether the
// secrets are equal.
func (st *smpState) fourth(random io.Reader, value []byte) (out []byte, equal bool, err error) {
	r := reader{b: value}
	r.count(8)
	pa, qa, c, d5, d6 := r.element(), r.element(), r.hash(), r.scalar(), r.scalar()
	ra, cr, d7 := r.element(), r.hash(), r.scalar()
	if !r.done() || pa == st.p || qa == st.ab || !st.readPQ(6, &pa, &qa, &c, &d5, &d6) {
		return nil, false, errCheated
	}
	pb, qb := st.p, st.ab
	st.p.over(&pa, &pb)
	st.ab.over(&qa, &qb)
	equal, ok := st.checkR(7, &ra, &cr, &d7)
	if !ok {
		return nil, false, errCheated
	}
	rb, c, d7, err := st.proveR(random, 8)
	return numbers(rb[:], c[:], d7[:]), equal, err
}

// last checks message 4 and tells whether the secrets are equal.
func (st *smpState) last(value []byte) (equal bool, err error) {
	r := reader{b: value}
	r.count(3)
	rb, c, d7 := r.element(), r.hash(), r.scalar()
	if !r.done() {
		return false, errCheated
	}
	equal, ok := st.checkR(8, &rb, &c, &d7)
	if !ok {
		return false, errCheated
	}
	return equal, nil
}
