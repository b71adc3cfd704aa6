package otr

import (
	"bytes"
	"crypto/subtle"
	"encoding/hex"
	"io"
	"math/bits"
	"sync/atomic"

	"filippo.io/bigmod"
)

// The Diffie-Hellman group of OTR: the 1536-bit MODP group (RFC 3526 section 2),
// generator 2, whose order q = (p-1)/2 is prime.

const (
	elementSize = 192 // bytes of a group element
	secretSize  = 40  // bytes of a Diffie-Hellman secret: 320 bits, as OTR demands
)

// An element is a number below p, big-endian.
type element [elementSize]byte

// A scalar is an exponent of SMP, below q, big-endian.
type scalar [elementSize]byte

var (
	primeP, orderQ, minusTwo = mustGroup()
	generator                = element{elementSize - 1: 2}
)

func mustGroup() (p, q *bigmod.Modulus, pMinus2 element) {
	b, err := hex.DecodeString("FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD1" +
		"29024E088A67CC74020BBEA63B139B22514A08798E3404DD" +
		"EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245" +
		"E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED" +
		"EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3D" +
		"C2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F" +
		"83655D23DCA3AD961C62F356208552BB9ED529077096966D" +
		"670C354E4ABC9804F1746C08CA237327FFFFFFFFFFFFFFFF")
	if err != nil {
		panic(err)
	}
	if p, err = bigmod.NewModulus(b); err != nil {
		panic(err)
	}
	half := make([]byte, len(b)) // (p-1)/2: p is odd, so one shift to the right
	for i, carry := 0, byte(0); i < len(b); i++ {
		half[i] = b[i]>>1 | carry
		carry = b[i] << 7
	}
	if q, err = bigmod.NewModulus(half); err != nil {
		panic(err)
	}
	copy(pMinus2[:], b)
	pMinus2[len(b)-1] -= 2 // the last byte is 0xff
	return p, q, pMinus2
}

// member reports whether an element may be used: 2 <= e <= p-2. Every one of
// these generates a group of order q or 2q; only 1 and p-1 are of small order.
func (e *element) member() bool {
	return bytes.Compare(e[:], generator[:]) >= 0 && bytes.Compare(e[:], minusTwo[:]) <= 0
}

// parseElement reads the value of an MPI as a usable group element.
func parseElement(b []byte) (e element, ok bool) {
	if len(b) == 0 || len(b) > elementSize {
		return e, false
	}
	copy(e[elementSize-len(b):], b)
	return e, e.member()
}

// nat is an element as a number modulo p. All elements are below p: they were
// checked (member) or computed here.
func (e *element) nat(n *bigmod.Nat) *bigmod.Nat {
	if _, err := n.SetBytes(e[:], primeP); err != nil {
		panic("otr: an element above the prime got past its check")
	}
	return n
}

func (e *element) set(n *bigmod.Nat) { bigEndian((*[elementSize]byte)(e), n) }

// bigEndian writes a number of the group's size. Unlike bigmod's own method it leaves no
// copy behind, which could be a secret that nobody clears.
func bigEndian(to *[elementSize]byte, n *bigmod.Nat) {
	const size = bits.UintSize / 8
	for i, word := range n.Bits() {
		for j := range size {
			to[elementSize-1-i*size-j] = byte(word >> (8 * j))
		}
	}
}

// power computes e = base^exponent mod p in constant time for exponents of the
// same length.
func (e *element) power(base *element, exponent []byte) *element {
	b := base.nat(bigmod.NewNat())
	e.set(bigmod.NewNat().Exp(b, exponent, primeP))
	return e
}

// times computes e = a*b mod p.
func (e *element) times(a, b *element) {
	n := a.nat(bigmod.NewNat())
	e.set(n.Mul(b.nat(bigmod.NewNat()), primeP))
}

// over computes e = a/b mod p, by b^(p-2): in constant time.
func (e *element) over(a, b *element) {
	var inverse element
	inverse.power(b, minusTwo[:])
	e.times(a, &inverse)
}

func (s *scalar) nat(n *bigmod.Nat) *bigmod.Nat {
	if _, err := n.SetBytes(s[:], orderQ); err != nil {
		panic("otr: an exponent above the order got past its check")
	}
	return n
}

func (s *scalar) set(n *bigmod.Nat) { bigEndian((*[elementSize]byte)(s), n) }

// parseScalar reads the value of an MPI as an exponent: 1 <= s < q.
func parseScalar(b []byte) (s scalar, ok bool) {
	if len(b) == 0 || len(b) > len(s) {
		return s, false
	}
	copy(s[len(s)-len(b):], b)
	n, err := bigmod.NewNat().SetBytes(s[:], orderQ)
	return s, err == nil && n.IsZero() == 0
}

// minusProduct computes s = r - a*c mod q, the answer of a zero-knowledge proof.
func (s *scalar) minusProduct(r, a, c *scalar) {
	product := a.nat(bigmod.NewNat())
	product.Mul(c.nat(bigmod.NewNat()), orderQ)
	s.set(r.nat(bigmod.NewNat()).Sub(product, orderQ))
}

// randomScalar draws an exponent uniformly from 1..q-1.
func randomScalar(random io.Reader) (s scalar, err error) {
	for {
		if _, err := io.ReadFull(random, s[:]); err != nil {
			return s, err
		}
		s[0] &= 0x7f // q has one bit less than p
		if n, err := bigmod.NewNat().SetBytes(s[:], orderQ); err == nil && n.IsZero() == 0 {
			return s, nil
		}
	}
}

// A keypair is one Diffie-Hellman key of ours.
type keypair struct {
	secret [secretSize]byte
	public element
}

func newKeypair(random io.Reader) (*keypair, error) {
	k := &keypair{}
	if _, err := io.ReadFull(random, k.secret[:]); err != nil {
		return nil, err
	}
	k.public.ofGenerator(&k.secret)
	return k, nil
}

const (
	digits = 2 * secretSize                  // of four bits, in a secret
	limbs  = 8 * elementSize / bits.UintSize // words of an element
)

// A power table holds generator^(d * 16^i) for each value d of each digit i, word by
// word: [i][w][d] is word w, and the words that a look-up reads together lie side by
// side. It takes 240 kB.
type powerTable [digits][limbs][16]uint

// powers is the only one, made in 2 ms for the first key, and public: the engine has no state
// that its callers would have to share with care.
var powers = later(func() *powerTable {
	t := new(powerTable)
	base := generator.nat(bigmod.NewNat())
	for i := range t {
		e := bigmod.NewNat().SetUint(1).ExpandFor(primeP)
		for d := range 16 {
			for w, word := range e.Bits() {
				t[i][w][d] = word
			}
			e.Mul(base, primeP)
		}
		base = e // base^16
	}
	return t
})

// later returns a function that calls build the first time, and then returns what that made.
// Callers at the same time may each make one; all get the same.
func later[T any](build func() *T) func() *T {
	var made atomic.Pointer[T]
	return func() *T {
		if made.Load() == nil {
			made.CompareAndSwap(nil, build())
		}
		return made.Load()
	}
}

// ofGenerator computes e = generator^secret in constant time: one multiplication for
// each digit and no squaring, since the table has them.
func (e *element) ofGenerator(secret *[secretSize]byte) {
	t := powers()
	product := bigmod.NewNat().SetUint(1).ExpandFor(primeP)
	factor := bigmod.NewNat().ExpandFor(primeP)
	for i := range t {
		t.lookUp(factor.Bits(), i, secret[secretSize-1-i/2]>>(4*(i%2))&15)
		product.Mul(factor, primeP)
	}
	e.set(product)
	clear(factor.Bits())
}

// lookUp reads every entry of a digit and keeps that of its value.
func (t *powerTable) lookUp(to []uint, digit int, value byte) {
	var mask [16]uint
	for d := range mask {
		mask[d] = -uint(subtle.ConstantTimeByteEq(value, byte(d)))
	}
	for w := range to {
		var word uint
		for d, entry := range &t[digit][w] {
			word |= entry & mask[d]
		}
		to[w] = word
	}
	clear(mask[:])
}

// appendShared appends the secret this key has in common with another's public one, as
// the MPI that all keys are hashed from.
func (k *keypair) appendShared(b []byte, theirs *element) []byte {
	var s element
	s.power(theirs, k.secret[:])
	b = appendMPI(b, s[:])
	clear(s[:])
	return b
}

const sharedSize = 4 + elementSize // at most, in bytes

func (k *keypair) wipe() {
	if k != nil {
		clear(k.secret[:])
	}
}
