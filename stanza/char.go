package stanza

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// Classes of bytes inside character data and attribute values.
const (
	plain    = iota // may stand as it is
	markup          // '<'
	amp             // '&'
	gt              // '>', forbidden after "]]" in text
	quote           // '"' or '\'', ends an attribute value of its kind
	control         // forbidden in XML 1.0
	nonASCII        // start of a UTF-8 sequence
)

// Bits of a byte inside a name.
const (
	nameStart = 1 << iota
	nameChar
)

var (
	textClass [256]uint8 // used for text; quotes are plain there
	attrClass [256]uint8
	nameClass [256]uint8
)

func init() {
	for i := range 256 {
		c := byte(i)
		cl := uint8(plain)
		switch {
		case c >= 0x80:
			cl = nonASCII
		case c == '<':
			cl = markup
		case c == '&':
			cl = amp
		case c < 0x20 && c != '\t' && c != '\n' && c != '\r':
			cl = control
		}
		textClass[i], attrClass[i] = cl, cl
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_':
			nameClass[i] = nameStart | nameChar
		case c >= '0' && c <= '9', c == '-', c == '.':
			nameClass[i] = nameChar
		}
	}
	textClass['>'] = gt
	attrClass['"'], attrClass['\''] = quote, quote
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

// isChar is the production Char of XML 1.0 section 2.2.
func isChar(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' ||
		r >= 0x20 && r <= 0xD7FF || r >= 0xE000 && r <= 0xFFFD || r >= 0x10000 && r <= 0x10FFFF
}

// isNameStart is NameStartChar of XML 1.0 (fifth edition) section 2.3 above ASCII.
func isNameStart(r rune) bool {
	switch {
	case r >= 0xC0 && r <= 0x2FF:
		return r != 0xD7 && r != 0xF7
	case r >= 0x370 && r <= 0x1FFF:
		return r != 0x37E
	}
	return r == 0x200C || r == 0x200D || r >= 0x2070 && r <= 0x218F || r >= 0x2C00 && r <= 0x2FEF ||
		r >= 0x3001 && r <= 0xD7FF || r >= 0xF900 && r <= 0xFDCF || r >= 0xFDF0 && r <= 0xFFFD || r >= 0x10000 && r <= 0xEFFFF
}

func isNameChar(r rune) bool {
	return isNameStart(r) || r == 0xB7 || r >= 0x300 && r <= 0x36F || r == 0x203F || r == 0x2040
}

// char decodes the non-ASCII character at b[i] and returns its length.
func char(b []byte, i int) (rune, int, error) {
	r, n := utf8.DecodeRune(b[i:])
	if r == utf8.RuneError && n == 1 {
		if !utf8.FullRune(b[i:]) {
			return 0, 0, errMore
		}
		return 0, 0, malformed("bytes that are not UTF-8")
	}
	if !isChar(r) {
		return 0, 0, malformed("the character U+%04X, which XML does not allow", r)
	}
	return r, n, nil
}

// chars returns the end of the run of non-ASCII characters from i on. Where one of them is
// not allowed or not whole yet, it returns its place and why.
func chars(b []byte, i int) (int, error) {
	for i < len(b) && b[i] >= utf8.RuneSelf {
		n, ok := xmlChar(b, i)
		if !ok {
			_, _, err := char(b, i)
			return i, err
		}
		i += n
	}
	return i, nil
}

// skipPlain returns the end of the run of bytes from i on that need no attention
// in text or (quotes too) in an attribute value. Eight bytes are looked at in
// one go; tabs and line ends only stop it early.
func skipPlain(b []byte, i int, quotes bool) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	zero := func(x uint64) uint64 { return (x - ones) &^ x & tops } // has a zero byte
	class := &textClass
	if quotes {
		class = &attrClass
	}
	for i+8 <= len(b) {
		x := binary.LittleEndian.Uint64(b[i:])
		// '<' and '>' differ in one bit, '&' and '\'' too.
		stop := x&tops | (x-0x20*ones)&^x&tops | zero((x|0x02*ones)^'>'*ones)
		if quotes {
			stop |= zero((x|ones)^'\''*ones) | zero(x^'"'*ones)
		} else {
			stop |= zero(x ^ '&'*ones)
		}
		if stop == 0 {
			i += 8
			continue
		}
		// The lowest mark is exact: borrows only spoil what is above it.
		i += bits.TrailingZeros64(stop) / 8
		if class[b[i]] != plain {
			return i
		}
		i++ // a tab or a line end
	}
	for i < len(b) && class[b[i]] == plain {
		i++
	}
	return i
}

// ncName returns the end of the name without colon that starts at b[i].
func ncName(b []byte, i int) (int, error) {
	start := i
	for ; i < len(b); i++ {
		c := b[i]
		if nameClass[c]&nameChar != 0 {
			if i == start && nameClass[c]&nameStart == 0 {
				return 0, malformed("a name that begins with %q", c)
			}
			continue
		}
		if c < 0x80 {
			break
		}
		r, n, err := char(b, i)
		if err != nil {
			return 0, err
		}
		if i == start && !isNameStart(r) || !isNameChar(r) {
			return 0, malformed("the character U+%04X in a name", r)
		}
		i += n - 1
	}
	if i == len(b) {
		return 0, errMore
	}
	if i == start {
		return 0, malformed("a name was expected before %q", b[i])
	}
	return i, nil
}

// reference decodes the character reference or predefined entity at b[i] == '&'.
func reference(b []byte, i int) (rune, int, error) {
	const longest = 12 // "&#x0010FFFF;" and some
	for j := i + 1; j < len(b); j++ {
		c := b[j]
		if c == ';' {
			r, ok := entity(b[i+1 : j])
			if !ok {
				return 0, 0, quoting(restricted("the entity reference %s", b[i:j+1]), b[i:j+1])
			}
			return r, j + 1 - i, nil
		}
		if j-i >= longest || c != '#' && nameClass[c]&nameChar == 0 {
			return 0, 0, malformed("an ampersand that begins no reference")
		}
	}
	if len(b)-i > longest {
		return 0, 0, malformed("an ampersand that begins no reference")
	}
	return 0, 0, errMore
}

func entity(name []byte) (rune, bool) {
	switch string(name) {
	case "lt":
		return '<', true
	case "gt":
		return '>', true
	case "amp":
		return '&', true
	case "quot":
		return '"', true
	case "apos":
		return '\'', true
	}
	if len(name) < 2 || name[0] != '#' {
		return 0, false
	}
	digits, base := name[1:], rune(10)
	if digits[0] == 'x' {
		digits, base = digits[1:], 16
	}
	if len(digits) == 0 {
		return 0, false
	}
	var r rune
	for _, c := range digits {
		d := rune(99)
		switch {
		case c >= '0' && c <= '9':
			d = rune(c - '0')
		case c >= 'a' && c <= 'f':
			d = rune(c-'a') + 10
		case c >= 'A' && c <= 'F':
			d = rune(c-'A') + 10
		}
		if d >= base {
			return 0, false
		}
		if r = r*base + d; r > utf8.MaxRune {
			return 0, false
		}
	}
	return r, isChar(r)
}
