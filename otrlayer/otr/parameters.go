package otr

import (
	"io"
	"math/big"
	"math/bits"
	"runtime"
)

// The primes of a new long-term key: q of 160 bits and p of 1024, where q divides p-1
// (FIPS 186-4, appendix A.1.1.2, without the seed that lets others check the numbers).
//
// The standard draws up to 4096 candidates for p one by one. Here only the first is
// drawn; the others follow it in steps of 2q, as appendix C.9 does for RSA, because
// then a sieve can cross out nine of ten before the costly test. A prime after a long
// gap is found a little more often than one after a short gap. p is public and as hard
// to break, so nobody gains by that. When the range holds no prime, which happens once
// in 100,000 times, q and the range are drawn afresh.

// Rounds of Miller and Rabin's test. math/big adds one to base 2 and a Lucas test;
// appendix C.3, table C.1 asks for 19 and 3 rounds and a Lucas test, or 40 rounds.
//
// The rounds alone leave a composite with a chance below 2^-115, by the bounds of
// Damgård, Landrock and Pomerance for numbers drawn at random: 2^-119 for q, 2^-120
// for a p drawn by itself, taking numbers that are 1 mod 2q for typical ones as the
// standard does. Each candidate of a range is as random by itself; a range has 12 times
// as many of them as are drawn on average until one is prime, which costs less than 4
// bits. math/big derives its bases from the candidate: that is fine for candidates that
// come from the random source and from nobody else.
const (
	qRounds = 32
	pRounds = 5
)

// candidates is how many values of p are looked at for one q.
const candidates = 4 * minPBits

// newPrimes draws p and q. Other goroutines go first between candidates: keys are made
// in the background.
func newPrimes(random io.Reader) (p, q *big.Int, err error) {
	for {
		runtime.Gosched()
		if q, err = randomNumber(random, qBits); err != nil {
			return nil, nil, err
		}
		if q.SetBit(q, 0, 1); !q.ProbablyPrime(qRounds) {
			continue
		}
		if p, err = randomNumber(random, minPBits); err != nil {
			return nil, nil, err
		}
		step := new(big.Int).Lsh(q, 1)
		p.Sub(p, new(big.Int).Mod(p, step)).Add(p, one) // p = 1 mod 2q
		if p = nextPrime(p, step); p != nil {
			return p, q, nil
		}
	}
}

// randomNumber draws a number of exactly so many bits, which are a multiple of eight.
func randomNumber(random io.Reader, bits int) (*big.Int, error) {
	b := make([]byte, bits/8)
	if _, err := io.ReadFull(random, b); err != nil {
		return nil, err
	}
	b[0] |= 0x80
	return new(big.Int).SetBytes(b), nil
}

// nextPrime is the first prime of minPBits bits among first, first+step, ...; nil where
// none of the candidates is one.
func nextPrime(first, step *big.Int) *big.Int {
	crossed := sieve(first, step)
	c := new(big.Int)
	for k := range crossed {
		if crossed[k] {
			continue
		}
		runtime.Gosched()
		c.Mul(step, c.SetInt64(int64(k))).Add(c, first)
		if c.BitLen() == minPBits && c.ProbablyPrime(pRounds) {
			return c
		}
	}
	return nil
}

// sieve crosses out each k where a small prime divides first + k*step. It would cross
// out a small prime itself as well; the candidates are far larger.
func sieve(first, step *big.Int) (crossed [candidates]bool) {
	for _, p := range smallPrimes {
		prime := uint(p)
		s := modulo(step, prime)
		if s == 0 {
			continue // it divides all of them or none: of step = 2q, with q prime, never the case
		}
		k := (prime - modulo(first, prime)) * inverse(s, prime) % prime
		for ; k < candidates; k += prime {
			crossed[k] = true
		}
	}
	return crossed
}

// modulo is the remainder of n, which is not negative.
func modulo(n *big.Int, m uint) (rest uint) {
	words := n.Bits()
	for i := len(words) - 1; i >= 0; i-- {
		rest = bits.Rem(rest, uint(words[i]), m)
	}
	return rest
}

// inverse is 1/a modulo a small prime, by a^(prime-2).
func inverse(a, prime uint) uint {
	x := uint(1)
	for e := prime - 2; e > 0; e >>= 1 {
		if e&1 == 1 {
			x = x * a % prime
		}
		a = a * a % prime
	}
	return x
}

// smallPrimes are the odd ones below 2^16: products of two fit a word of 32 bits, and
// more would save nothing.
var smallPrimes = func() (list []uint16) {
	var composite [1 << 16]bool
	for i := uint(3); i < uint(len(composite)); i += 2 {
		if composite[i] {
			continue
		}
		list = append(list, uint16(i))
		for j := i * i; j < uint(len(composite)); j += 2 * i {
			composite[j] = true
		}
	}
	return list
}()
