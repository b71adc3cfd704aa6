package text

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

//go:generate go run looks_gen.go

// The proxy speaks in lines that begin with its mark. Nobody else does: where a text of
// somebody else's has something that looks like the mark, a quotation mark is put before it.
const (
	voice = "[otrproxy]"
	quote = "> "
)

// Marked is a text with a mark of ours before it.
func Marked(mark, text string) string {
	quoted := Defused(text)
	if !strings.HasPrefix(text, quote) {
		quoted = strings.TrimPrefix(quoted, quote) // our mark stands right before it
	}
	return voice + " " + mark + quoted
}

// Clear is a text that came in clear where encryption is expected, as it is shown.
func Clear(text string) string { return Marked("Not encrypted: ", text) }

// Defused is a text in which nothing looks like the proxy's mark, anywhere in a line: a
// program that wraps a long line may begin a new one there.
func Defused(text string) string {
	at := imitations(text)
	if len(at) == 0 {
		return text
	}
	var b strings.Builder
	from := 0
	for _, i := range at {
		b.WriteString(text[from:i])
		b.WriteString(quote)
		from = i
	}
	b.WriteString(text[from:])
	return b.String()
}

// Harmless reports whether Defused leaves a text as it is.
func Harmless(text []byte) bool { return !suspicious(text) || len(imitations(string(text))) == 0 }

// Mentions reports whether something in a text looks like the proxy's mark.
func Mentions(text string) bool { return len(imitations(text)) > 0 }

// A glyph is a character of a text as it looks, and where it stands.
type glyph struct {
	look rune
	at   int
}

// A letter is a glyph that is one, or a digit, an ASCII character or the end of a line.
type letter struct {
	glyph
	bracket int // where the first bracket since the letter before stands; -1 for none
}

var (
	name     = []rune(ourName)
	mirrored = []rune("yxorprto") // where the writing direction is turned around
)

// turns are the characters that turn the writing direction around.
const turns = "\u202d\u202e\u2066\u2067\u2068"

// imitations are the places in a text, in order, before which a quotation mark is missing:
// a bracket, or what may look like one, followed by our name. Symbols between the name's
// letters do not count: nobody knows how wide they are.
func imitations(text string) []int {
	if !suspicious(text) { // most texts
		return nil
	}
	return found(text)
}

// found are those in a text that was not glanced at before.
func found(text string) (at []int) {
	missing := func(i int) {
		if !strings.HasSuffix(text[:i], quote) && !strings.HasPrefix(text[i:], quote) && (len(at) == 0 || at[len(at)-1] < i) {
			at = append(at, i)
		}
	}
	turned := strings.ContainsAny(text, turns)
	seen, line := letters(text), 0
	for i, l := range seen {
		switch {
		case l.look == '\n':
			line = l.at
		case l.bracket >= 0 && begins(seen[i:], name):
			missing(l.bracket)
		case turned && begins(seen[i:], mirrored):
			missing(line)
		}
	}
	return at
}

// letters are the letters of a text, with the brackets between them.
func letters(text string) []letter {
	out := make([]letter, 0, len(text))
	first := -1
	for _, g := range glyphs(text) {
		switch {
		case isLetter(g.look):
			out = append(out, letter{g, first})
			first = -1
		case first < 0 && bracket(g.look):
			first = g.at
		}
	}
	return out
}

// Alike reports whether two addresses look the same.
func Alike(a, b string) bool {
	if len(a) == len(b) && strings.EqualFold(a, b) {
		return true
	}
	for i := range len(a) { // most are ASCII, and other ones
		if a[i] >= utf8.RuneSelf || a[i] == '0' || a[i] == '1' {
			return slices.EqualFunc(glyphs(strings.TrimRight(a, ".")), glyphs(b), func(x, y glyph) bool { return x.look == y.look })
		}
	}
	return false
}

func begins(seen []letter, word []rune) bool {
	for i, r := range word {
		if i >= len(seen) || seen[i].look != r {
			return false
		}
	}
	return true
}

// glyphs is a text as it looks: in small letters without accents, each look-alike as the
// letter, without blanks, and without what is not seen at all. The end of a line is a
// glyph '\n' at the place where the next one begins.
func glyphs(text string) []glyph {
	out := make([]glyph, 0, len(text))
	for i, r := range text {
		switch {
		case Breaks(r):
			out = append(out, glyph{'\n', i + utf8.RuneLen(r)})
		case r < utf8.RuneSelf && unicode.IsLetter(r):
			out = append(out, glyph{unicode.ToLower(r), i})
		default:
			for _, part := range norm.NFKD.String(string(r)) {
				switch as, ok := looks[part]; {
				case ok:
					for _, letter := range as {
						out = append(out, glyph{letter, i})
					}
				case !unseen(part):
					out = append(out, glyph{unicode.ToLower(part), i})
				}
			}
		}
	}
	return out
}

// unseen reports whether a character leaves no trace of its own between two others:
// blanks, accents, and what Unicode calls default-ignorable (UAX #44,
// Default_Ignorable_Code_Point), unassigned code points included.
func unseen(r rune) bool {
	return unicode.IsSpace(r) || unicode.IsMark(r) || strings.ContainsRune(blanks, r) ||
		unicode.In(r, unicode.Cc, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// angular are letters that look like the bracket: ideographs, Hangul, Bopomofo, Tifinagh.
const angular = "\u5338\u531a\u3137\u1103\u3108\u2d4e"

// blanks are blanks that Unicode counts among symbols and letters: of Braille, of an
// object, of Egyptian.
const blanks = "\u2800\ufffc\U00013441\U00013442"

// bracket reports whether a character may look like the bracket of our mark: the bracket
// itself, other ones, and symbols of all kinds. Quotation marks, dashes and the
// parentheses people write do not.
func bracket(r rune) bool {
	switch {
	case r == '[', strings.ContainsRune(angular, r):
		return true
	case r < utf8.RuneSelf:
		return false
	}
	return !unicode.In(r, unicode.L, unicode.N, unicode.Z, unicode.M, unicode.Pi, unicode.Pf, unicode.Pd, unicode.Po) && !unseen(r)
}

// Breaks are characters at which programs may begin a new line.
func Breaks(r rune) bool { return strings.ContainsRune("\n\r\v\f\u2028\u2029", r) }
