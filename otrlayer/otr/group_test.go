package otr

import (
	"crypto/rand"
	"testing"

	"filippo.io/bigmod"
)

// The table gives the same public key as plain exponentiation.
func TestTableGivesPowersOfTheGenerator(t *testing.T) {
	secrets := make([][secretSize]byte, 2) // 0
	secrets[1][secretSize-1] = 1
	var ones [secretSize]byte
	for i := range ones {
		ones[i] = 0xff
		secrets = append(secrets, ones) // ff00.., ffff00.., to all ones
	}
	for bit := range 8 * secretSize {
		var s [secretSize]byte
		s[bit/8] = 0x80 >> (bit % 8)
		secrets = append(secrets, s)
	}
	for range 200 {
		var s [secretSize]byte
		rand.Read(s[:])
		secrets = append(secrets, s)
	}
	for _, s := range secrets {
		var got, want element
		got.ofGenerator(&s)
		if want.power(&generator, s[:]); got != want {
			t.Errorf("2^%x = %x, want %x", s, got, want)
		}
	}
}

// A look-up finds each entry of each digit.
func TestTableLookUp(t *testing.T) {
	n, e := bigmod.NewNat(), element{elementSize - 1: 1}
	for digit := range digits {
		for value := range byte(16) {
			n.SetUint(1).ExpandFor(primeP)
			powers().lookUp(n.Bits(), digit, value)
			var exponent [secretSize]byte
			exponent[secretSize-1-digit/2] = value << (4 * (digit % 2))
			var got element
			got.set(n)
			if e.power(&generator, exponent[:]); got != e {
				t.Fatalf("digit %d of value %d: %x, want %x", digit, value, got, e)
			}
		}
	}
}

// A shared secret is computed without the heap, where nobody could clear it.
func TestSharedSecretStaysOffTheHeap(t *testing.T) {
	ours, err := newKeypair(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var buffer [sharedSize]byte
	if n := testing.AllocsPerRun(10, func() { ours.appendShared(buffer[:0], &ours.public) }); n > 0 {
		t.Errorf("it allocates %v times", n)
	}
}
