package otr

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"testing"
	"testing/iotest"
)

func TestGeneratedKeysAreSound(t *testing.T) {
	n := 20
	if testing.Short() {
		n = 3
	}
	for range n {
		k, err := GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		p, q, g := k.public.p, k.public.q, k.public.g
		if p.BitLen() != 1024 || q.BitLen() != 160 {
			t.Errorf("p has %d bits, q %d", p.BitLen(), q.BitLen())
		}
		if !p.ProbablyPrime(40) || !q.ProbablyPrime(40) {
			t.Errorf("p or q is not prime: %v %v", p, q)
		}
		if new(big.Int).Mod(new(big.Int).Sub(p, one), q).Sign() != 0 {
			t.Errorf("q does not divide p-1: %v %v", p, q)
		}
		if g.Cmp(one) <= 0 || g.Cmp(p) >= 0 || new(big.Int).Exp(g, q, p).Cmp(one) != 0 {
			t.Errorf("g is not of order q: %v %v %v", p, q, g)
		}
		digest := bytes.Repeat([]byte{7}, 32)
		sig, err := k.sign(rand.Reader, digest)
		if err != nil || k.public.verify(digest, sig) != nil {
			t.Errorf("a signature of a new key: %v", err)
		}
	}
}

// Each crossed candidate has a small factor, each other one has none: so a prime is
// never crossed out.
func TestSieveCrossesOutMultiplesOnly(t *testing.T) {
	random := mathrand.New(mathrand.NewPCG(1, 2))
	for range 20 {
		step, err := randomNumber(rand.Reader, 8*(1+random.IntN(20)))
		if err != nil {
			t.Fatal(err)
		}
		first, err := randomNumber(rand.Reader, 8*(3+random.IntN(126)))
		if err != nil {
			t.Fatal(err)
		}
		crossed := sieve(first, step)
		c, prime, rest := new(big.Int), new(big.Int), new(big.Int)
		for i := 0; i < len(crossed); i += 1 + random.IntN(100) {
			c.Mul(step, c.SetInt64(int64(i))).Add(c, first)
			divided := false
			for _, p := range smallPrimes {
				prime.SetUint64(uint64(p))
				if rest.Mod(step, prime).Sign() != 0 && rest.Mod(c, prime).Sign() == 0 {
					divided = true
					break
				}
			}
			if crossed[i] != divided {
				t.Fatalf("%v + %d*%v: crossed out %v, has a small factor %v", first, i, step, crossed[i], divided)
			}
		}
	}
}

// All primes of a small range stay, as trial division finds them.
func TestSieveKeepsEveryPrime(t *testing.T) {
	first := 1 << 16 // the small primes are below
	crossed := sieve(big.NewInt(int64(first)), big.NewInt(1))
	kept := 0
	for k := range crossed {
		n := first + k
		prime := n%2 == 1
		for d := 3; d*d <= n && prime; d += 2 {
			prime = n%d != 0
		}
		if prime && crossed[k] {
			t.Errorf("%d is prime and crossed out", n)
		}
		if n%2 == 1 && !crossed[k] {
			kept++
			if !prime {
				t.Errorf("%d is no prime and stays", n)
			}
		}
	}
	if kept == 0 {
		t.Error("nothing stays")
	}
}

// A range ends at the next power of two: p never gets a bit more.
func TestPrimeKeepsItsSize(t *testing.T) {
	step := new(big.Int).Lsh(testKey(t, "alice").public.q, 1)
	for below := range int64(100) {
		first := new(big.Int).Lsh(one, minPBits)
		first.Sub(first, new(big.Int).Mod(first, step)).Add(first, one)
		first.Sub(first, new(big.Int).Mul(step, big.NewInt(below)))
		if p := nextPrime(first, step); p != nil && p.BitLen() != minPBits {
			t.Errorf("a prime of %d bits", p.BitLen())
		} else if p != nil {
			return
		}
	}
	t.Error("no prime below the power of two")
}

func TestGenerateKeyNeedsRandomness(t *testing.T) {
	broken := errors.New("no entropy")
	for _, after := range []int64{0, 10, 20, 1000, 5000} {
		random := io.MultiReader(io.LimitReader(rand.Reader, after), iotest.ErrReader(broken))
		// The fifth may be enough for a whole key.
		if k, err := GenerateKey(random); k != nil && err != nil || k == nil && err != broken {
			t.Errorf("after %d bytes: %v %v", after, k, err)
		}
		if after > 20 {
			continue
		}
		random = io.MultiReader(io.LimitReader(rand.Reader, after), iotest.ErrReader(broken))
		if k, err := GenerateKey(random); k != nil || err == nil {
			t.Errorf("after %d bytes there is a key: %v", after, err)
		}
	}
}
