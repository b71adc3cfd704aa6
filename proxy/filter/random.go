package filter

import (
	"math"
	"math/bits"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Ciphertext looks like bytes drawn at random; what a person wrote does not. A chance says
// how often true ciphertext may be refused by each of the tests, so that their sum is how
// often it is refused at all.
type chance struct {
	printable float64 // a run of printable ASCII
	talk      float64 // a run of letters, digits, blanks and the usual punctuation
	utf8      float64 // a run of printable text in UTF-8
	foreign   float64 // a run of UTF-8 without ASCII letters: of Greek, Russian, Chinese...
	spread    float64 // few different bytes
	bits      float64 // one bit of the bytes mostly set, or mostly not
}

// One OMEMO message has a payload, an initialisation vector and a key for each device. Of a
// hundred devices each has at most five fields that are looked at:
//
//	payload 9.1e-6 + vector 2.8e-7 + 500 fields x 9e-10 = 9.83e-6
//
// so less than one message in 100,000 is refused. Of OpenPGP there is the one payload, and a
// few numbers for each key.
//
// The bounds are tight enough for 12 bytes of readable text to be refused as a payload: with
// 96 readable bytes of 256, the chance is (96/256)^12 = 7.7e-6.
var (
	payloadChance = chance{printable: 7.8e-6, talk: 5e-7, utf8: 5e-7, foreign: 1e-7, spread: 1e-7, bits: 1e-7}
	vectorChance  = chance{talk: 2.2e-7, foreign: 6e-8}
	keyChance     = chance{printable: 1.5e-10, talk: 1.5e-10, utf8: 1.5e-10, foreign: 1.5e-10, spread: 1.5e-10, bits: 1.5e-10}
)

const (
	printableBytes = 96. // from the blank to the tilde, and the end of a line
	talkBytes      = 71.
	// utf8Rate bounds the chance that n bytes at random are readable UTF-8 by utf8Rate^n. It
	// solves x = 96/256 + 30*64/2^16/x + 61440/2^24/x^2 + 2^20/2^32/x^3, the sequences of one
	// to four bytes (RFC 3629).
	utf8Rate = 0.46
	// foreignRate is the same for sequences of two to four bytes, and nine bytes of ASCII:
	// x = 9/256 + 1920/2^16/x + 61440/2^24/x^2 + 2^20/2^32/x^3.
	foreignRate = 0.24
)

func printable(c byte) bool { return c >= ' ' && c <= '~' || c == '\n' }

func talk(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	switch c {
	case ' ', '\n', '.', ',', '?', '!', '\'', '-', ':':
		return true
	}
	return false
}

// random reports whether bytes may have been drawn at random.
func (c *chance) random(b []byte) bool {
	n := len(b)
	return !seldom(n, longest(b, printable), printableBytes/256, c.printable) &&
		!seldom(n, longest(b, talk), talkBytes/256, c.talk) &&
		!(c.utf8 > 0 && seldomReadable(n, longestUTF8(b, anyLetter), utf8Rate, c.utf8)) &&
		!(c.foreign > 0 && seldomReadable(n, longestUTF8(b, foreignLetter), foreignRate, c.foreign)) &&
		!(c.spread > 0 && n > 0 && crowded(b) < math.Log(c.spread)) &&
		!(c.bits > 0 && n > 0 && leaning(b) < c.bits)
}

// seldom reports whether among n bytes at random a run of that length, of bytes that each
// have the chance p, has less than a chance. The run begins at the first byte, or behind
// one that is not of it: p^run (1 + (n-run)(1-p)).
func seldom(n, run int, p, chance float64) bool {
	return run > 0 && math.Pow(p, float64(run))*(1+float64(n-run)*(1-p)) < chance
}

// seldomReadable is the same for text in UTF-8. A run may begin anywhere, and its last
// character may end up to three bytes behind: 1/(1-rate) is more than all of them.
func seldomReadable(n, run int, rate, chance float64) bool {
	return run > 0 && float64(n-run+1)*math.Pow(rate, float64(run))/(1-rate) < chance
}

func anyLetter(r rune) bool { return r == '\n' || unicode.IsPrint(r) }

func foreignLetter(r rune) bool {
	if r < utf8.RuneSelf {
		return strings.ContainsRune(" \n.,?!'-:", r)
	}
	return unicode.IsPrint(r)
}

func longest(b []byte, of func(byte) bool) (run int) {
	at := 0
	for _, c := range b {
		if at++; !of(c) {
			at = 0
		}
		run = max(run, at)
	}
	return run
}

func longestUTF8(b []byte, of func(rune) bool) (run int) {
	for i := 0; i < len(b); {
		at := i
		for i < len(b) {
			r, size := utf8.DecodeRune(b[i:])
			if r == utf8.RuneError && size <= 1 || !of(r) {
				break
			}
			i += size
		}
		run = max(run, i-at)
		if i < len(b) {
			i++
		}
	}
	return run
}

// crowded is the logarithm of what bounds the chance of so few different bytes: there are
// (256 choose k) sets of k, and n bytes are all in one of them with the chance (k/256)^n.
func crowded(b []byte) float64 {
	var seen [256]bool
	k := 0
	for _, c := range b {
		if !seen[c] {
			seen[c], k = true, k+1
		}
	}
	choose := func(n, k int) float64 {
		all, _ := math.Lgamma(float64(n + 1))
		some, _ := math.Lgamma(float64(k + 1))
		rest, _ := math.Lgamma(float64(n - k + 1))
		return all - some - rest
	}
	return choose(256, k) + float64(len(b))*math.Log(float64(k)/256)
}

// leaning bounds the chance that any of the eight bits is set so often, or so seldom, by
// Hoeffding's inequality: 8 x 2 exp(-2 t^2 / n), t away from n/2.
func leaning(b []byte) float64 {
	var set [8]int
	for _, c := range b {
		for ; c != 0; c &= c - 1 {
			set[bits.TrailingZeros8(c)]++
		}
	}
	away := 0.
	for _, k := range set {
		away = max(away, math.Abs(float64(k)-float64(len(b))/2))
	}
	return 16 * math.Exp(-2*away*away/float64(len(b)))
}
