package text

import (
	"strings"
	"sync/atomic"
	"unicode"
	"unicode/utf8"
)

// A glance at a text tells whether it may hold an imitation of our mark at all: that there is
// a bracket, or what may look like one, or a character that turns the writing direction
// around, and from there on the letters of our name in a row. What else stands between them,
// and where the bracket is, is left to imitations.

// suspicious is that glance. It allocates nothing. Most texts are ASCII without a bracket, and
// cost one loop.
func suspicious[T string | []byte](text T) bool {
	from := 0
	for from < len(text) && text[from] < utf8.RuneSelf && text[from] != '[' {
		from++
	}
	// All places in our name at which the letters read may end: one bit each, as in the
	// search that is called shift-and.
	var ends trace
	for i := from; i < len(text); {
		var t trace
		if c := text[i]; c < utf8.RuneSelf {
			t = ofASCII[c]
			i++
		} else {
			r, n := runeAt(text, i)
			t = traceOf(r)
			i += n
		}
		switch {
		case t == unclear:
			return true
		case t&letterSeen != 0:
			if ends = (ends<<1 | 1) & t; ends&(1<<(len(ourName)-1)) != 0 {
				return true
			}
		}
	}
	return false
}

// runeAt is the non-ASCII character at text[i], and how long it is.
func runeAt[T string | []byte](text T, i int) (r rune, n int) {
	if c := text[i]; c >= 0xC2 && c < 0xE0 && i+1 < len(text) && text[i+1]&0xC0 == 0x80 { // of two bytes
		return rune(c&0x1F)<<6 | rune(text[i+1]&0x3F), 2
	}
	var next [utf8.UTFMax]byte
	return utf8.DecodeRune(next[:copy(next[:], text[i:])])
}

// A trace is what a character may be of our name: a bit for each place of it, from the lowest.
type trace uint16

const (
	letterSeen trace = 1 << 8    // it is a letter, though it may be none of the name's
	unclear    trace = 1<<16 - 1 // it has to be looked at in its place
)

// ourName is the name in our mark.
const ourName = "otrproxy"

// newTrace works out what a character may be.
func newTrace(r rune) (t trace) {
	if strings.ContainsRune(turns, r) {
		return unclear
	}
	seen := 0
	for _, g := range glyphs(string(r)) {
		if !isLetter(g.look) {
			continue
		}
		seen++
		t |= letterSeen
		for place, c := range ourName {
			if g.look == c {
				t |= 1 << place
			}
		}
	}
	if seen > 1 && t != letterSeen { // which stands where?
		return unclear
	}
	return t
}

// isLetter reports whether a glyph is a letter, a digit, an ASCII character or the end of a
// line, and may not look like a bracket.
func isLetter(look rune) bool {
	return look < utf8.RuneSelf && look != '[' || (unicode.IsLetter(look) || unicode.IsNumber(look)) && !bracket(look)
}

var ofASCII = func() (t [utf8.RuneSelf]trace) {
	for r := range rune(len(t)) {
		t[r] = newTrace(r)
	}
	return t
}()

// traces are kept of 256 characters together, from the first time that one of them is met.
var traces [0x20000 / 256]atomic.Pointer[[256]trace]

func traceOf(r rune) trace {
	if int(r/256) >= len(traces) {
		return newTrace(r)
	}
	kept := traces[r/256].Load()
	if kept == nil {
		kept = new([256]trace)
		for i := range kept {
			kept[i] = newTrace(r&^255 | rune(i))
		}
		traces[r/256].Store(kept)
	}
	return kept[r&255]
}
