package otr

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math/big"
	"strings"

	"filippo.io/bigmod"
)

// A Fingerprint is the SHA-1 of a DSA public key (OTR version 3, "Public keys,
// signatures, and fingerprints").
type Fingerprint [20]byte

// String is the fingerprint as libotr shows it: five groups of eight hex digits.
func (f Fingerprint) String() string {
	h := strings.ToUpper(hex.EncodeToString(f[:]))
	return strings.Join([]string{h[:8], h[8:16], h[16:24], h[24:32], h[32:]}, " ")
}

// Hex is the fingerprint as 40 hex digits, as libotr's files have it.
func (f Fingerprint) Hex() string { return hex.EncodeToString(f[:]) }

// ParseFingerprint reads a fingerprint as people and programs write it; white
// space, colons, dashes and case do not matter.
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

// OTR's signatures have room for a q of 160 bits only; p has 1024 bits wherever
// libotr made the key.
const (
	qBits     = 160
	minPBits  = 1024
	maxPBits  = 3072
	signature = 2 * qBits / 8 // size of a signature, in bytes
	dsaType   = 0x0000
)

// A publicKey is a DSA public key as it was presented. Public numbers only:
// nothing here needs constant time.
type publicKey struct{ p, q, g, y *big.Int }

var (
	one            = big.NewInt(1)
	errKeyUnsound  = errors.New("a DSA key whose numbers do not belong together")
	errNoSignature = errors.New("a signature that the key did not make")
)

// sound reports whether the numbers can be a key at all: g and y generate the
// group of order q. (Whether p and q are prime is the owner's business: who makes
// a weak key weakens its own.)
func (k *publicKey) sound() bool {
	bits := k.p.BitLen()
	if bits < minPBits || bits > maxPBits || k.q.BitLen() != qBits || k.p.Bit(0) == 0 || k.q.Bit(0) == 0 {
		return false
	}
	for _, e := range []*big.Int{k.g, k.y} {
		if e.Cmp(one) <= 0 || e.Cmp(k.p) >= 0 || new(big.Int).Exp(e, k.q, k.p).Cmp(one) != 0 {
			return false
		}
	}
	return true
}

// appendTo appends the key as OTR serialises it, its type first.
func (k *publicKey) appendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, dsaType)
	for _, n := range []*big.Int{k.p, k.q, k.g, k.y} {
		b = appendMPI(b, n.Bytes())
	}
	return b
}

// fingerprint is the SHA-1 of the serialised key without its type.
func (k *publicKey) fingerprint() Fingerprint { return sha1.Sum(k.appendTo(nil)[2:]) }

// publicKey reads a serialised key. Whether it is sound is for the caller to ask.
func (r *reader) publicKey() *publicKey {
	k := &publicKey{}
	if t := r.take(2); t == nil || binary.BigEndian.Uint16(t) != dsaType {
		r.bad = true
	}
	for _, n := range []**big.Int{&k.p, &k.q, &k.g, &k.y} {
		b := r.mpi()
		if len(b) > maxPBits/8 {
			r.bad = true
			b = nil
		}
		*n = new(big.Int).SetBytes(b)
	}
	return k
}

// verify checks a signature of a digest. OTR signs the whole digest as one number,
// not its leftmost bits.
func (k *publicKey) verify(digest, sig []byte) error {
	if len(sig) != signature {
		return errNoSignature
	}
	r, s := new(big.Int).SetBytes(sig[:signature/2]), new(big.Int).SetBytes(sig[signature/2:])
	if r.Sign() == 0 || s.Sign() == 0 || r.Cmp(k.q) >= 0 || s.Cmp(k.q) >= 0 {
		return errNoSignature
	}
	w := new(big.Int).ModInverse(s, k.q)
	if w == nil {
		return errNoSignature
	}
	u1 := new(big.Int).SetBytes(digest)
	u1.Mul(u1, w).Mod(u1, k.q)
	u2 := w.Mul(r, w)
	u2.Mod(u2, k.q)
	v := new(big.Int).Exp(k.g, u1, k.p)
	v.Mul(v, u2.Exp(k.y, u2, k.p)).Mod(v, k.p).Mod(v, k.q)
	if v.Cmp(r) != 0 {
		return errNoSignature
	}
	return nil
}

// A PrivateKey is a long-term DSA key. It is safe for concurrent use.
type PrivateKey struct {
	public      publicKey
	serialised  []byte // the public key as it is sent
	fingerprint Fingerprint
	x           []byte // as long as q
}

// modulus is p or q of a key, for arithmetic in constant time. It takes some microseconds, and
// more memory than the key, so it is made where something is signed. It cannot fail: sound has
// checked that the number is odd and large.
func modulus(n *big.Int) *bigmod.Modulus {
	m, err := bigmod.NewModulus(n.Bytes())
	if err != nil {
		panic("otr: a modulus of a key that was checked")
	}
	return m
}

// newPrivateKey makes a key of its numbers and checks that they belong together:
// those of a damaged file do not, and would only fail, or leak the secret, later.
func newPrivateKey(p, q, g, y *big.Int, x []byte) (*PrivateKey, error) {
	k := &PrivateKey{public: publicKey{p, q, g, y}}
	x = bytes.TrimLeft(x, "\x00")
	if !k.public.sound() || len(x) > qBits/8 {
		return nil, errKeyUnsound
	}
	k.x = append(make([]byte, qBits/8-len(x)), x...)
	n, err := bigmod.NewNat().SetBytes(k.x, modulus(q))
	if err != nil || n.IsZero() == 1 || k.gTo(k.x).Cmp(y) != 0 {
		return nil, errKeyUnsound
	}
	k.serialised = k.public.appendTo(nil)
	k.fingerprint = k.public.fingerprint()
	return k, nil
}

// gTo computes g^e mod p in constant time.
func (k *PrivateKey) gTo(e []byte) *big.Int {
	p := modulus(k.public.p)
	g, err := bigmod.NewNat().SetBytes(k.public.g.Bytes(), p)
	if err != nil {
		panic("otr: the generator of a key that was checked")
	}
	return new(big.Int).SetBytes(bigmod.NewNat().Exp(g, e, p).Bytes(p))
}

// Fingerprint is that of the public half.
func (k *PrivateKey) Fingerprint() Fingerprint { return k.fingerprint }

// sign signs a digest of 32 bytes. The nonce comes from the random source, the
// key and the digest together, so that a broken source alone does not give the
// key away.
func (k *PrivateKey) sign(random io.Reader, digest []byte) ([]byte, error) {
	var seed [32]byte
	if _, err := io.ReadFull(random, seed[:]); err != nil {
		return nil, err
	}
	defer clear(seed[:])
	q := modulus(k.public.q)
	qMinus2 := new(big.Int).Sub(k.public.q, big.NewInt(2)).FillBytes(make([]byte, qBits/8))
	m := new(big.Int).SetBytes(digest)
	h, err := bigmod.NewNat().SetBytes(m.Mod(m, k.public.q).FillBytes(make([]byte, qBits/8)), q)
	if err != nil {
		return nil, err
	}
	x, err := bigmod.NewNat().SetBytes(k.x, q)
	if err != nil {
		return nil, err
	}
	for try := byte(0); ; try++ {
		mac := hmac.New(sha256.New, k.x)
		mac.Write(seed[:])
		mac.Write(digest)
		mac.Write([]byte{try})
		nonce := mac.Sum(nil)[:qBits/8]
		n, err := bigmod.NewNat().SetBytes(nonce, q) // q has all its 160 bits: at most every other try fails
		if err != nil || n.IsZero() == 1 {
			if try == 255 {
				return nil, errors.New("no nonce below q in 256 tries")
			}
			continue
		}
		// r = (g^n mod p) mod q, which the signature shows anyway; s = (h + x r) / n mod q.
		r := k.gTo(nonce)
		r.Mod(r, k.public.q)
		sig := r.FillBytes(make([]byte, signature/2, signature))
		rn, err := bigmod.NewNat().SetBytes(sig, q)
		if err != nil {
			return nil, err
		}
		s := bigmod.NewNat().Exp(n, qMinus2, q)
		s.Mul(rn.Mul(x, q).Add(h, q), q)
		clear(nonce)
		if r.Sign() == 0 || s.IsZero() == 1 {
			continue
		}
		return append(sig, s.Bytes(q)...), nil
	}
}

// GenerateKey makes a new long-term key of 1024 bits, the only size that every
// program reads. It takes some hundredths of a second, and lets other goroutines go
// first meanwhile.
func GenerateKey(random io.Reader) (*PrivateKey, error) {
	p, q, err := newPrimes(random)
	if err != nil {
		return nil, err
	}
	cofactor := new(big.Int).Div(new(big.Int).Sub(p, one), q)
	g := new(big.Int)
	for h := int64(2); ; h++ {
		if g.Exp(big.NewInt(h), cofactor, p); g.Cmp(one) != 0 {
			return withSecret(random, p, q, g)
		}
	}
}

// withSecret draws the secret of a key whose parameters are known.
func withSecret(random io.Reader, p, q, g *big.Int) (*PrivateKey, error) {
	pm, err := bigmod.NewModulus(p.Bytes())
	if err != nil {
		return nil, err
	}
	qm, err := bigmod.NewModulus(q.Bytes())
	if err != nil {
		return nil, err
	}
	x := make([]byte, qBits/8)
	for {
		if _, err := io.ReadFull(random, x); err != nil {
			return nil, err
		}
		if n, err := bigmod.NewNat().SetBytes(x, qm); err == nil && n.IsZero() == 0 {
			break
		}
	}
	base, err := bigmod.NewNat().SetBytes(g.Bytes(), pm)
	if err != nil {
		return nil, err
	}
	y := new(big.Int).SetBytes(bigmod.NewNat().Exp(base, x, pm).Bytes(pm))
	return newPrivateKey(p, q, g, y, x)
}
