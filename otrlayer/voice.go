package otrlayer

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// The proxy speaks in lines that begin with this. Nobody else does: what looks like one
// of its lines is defused before it is shown.
const voice = "[otrproxy]"

// marked is a text with a mark of ours before it.
func marked(mark, text string) string {
	first, rest, more := strings.Cut(text, "\n")
	if !more {
		return voice + " " + mark + text
	}
	return voice + " " + mark + first + "\n" + Defused(rest)
}

// Defused is a text of which no line imitates one of the proxy's.
func Defused(text string) string {
	if !Mentions(text) {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		line, end := text, ""
		if i := strings.IndexFunc(text, breaks); i >= 0 {
			_, n := utf8.DecodeRuneInString(text[i:])
			line, end = text[:i], text[i:i+n]
		}
		if imitates(line) {
			b.WriteString("> ")
		}
		b.WriteString(line)
		b.WriteString(end)
		text = text[len(line)+len(end):]
	}
	return b.String()
}

// imitates reports whether a line looks like one of ours.
func imitates(line string) bool {
	seen := strings.TrimLeftFunc(folded(line), func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) })
	return strings.HasPrefix(seen, voice) || strings.Contains(seen, mirrored) && strings.ContainsAny(line, "\u202d\u202e\u2066\u2067\u2068")
}

// mirrored is the mark as it is written where the writing direction is turned around.
const mirrored = "[yxorprto]"

// breaks are characters at which programs may begin a new line.
func breaks(r rune) bool { return strings.ContainsRune("\n\r\v\f\u0085\u2028\u2029", r) }

// Mentions reports whether the proxy's mark stands anywhere in a text, in a form that
// looks like it.
func Mentions(text string) bool {
	// Most texts have no bracket: no need to fold them.
	if !strings.ContainsAny(text, "[\uff3b\ufe47") {
		return false
	}
	seen := folded(text)
	return strings.Contains(seen, voice) || strings.Contains(seen, mirrored)
}

// alike are letters of other alphabets that look like those of the mark, and a blank
// that is no blank to Unicode.
var alike = strings.NewReplacer("\u043e", "o", "\u03bf", "o", "\u0585", "o", "\u0440", "p", "\u03c1", "p", "\u0442", "t", "\u03c4", "t", "\u0433", "r",
	"\u0445", "x", "\u03c7", "x", "\u0443", "y", "\u03b3", "y", "\u03c5", "y", "\u2800", " ")

// folded is a text as it looks: without what cannot be seen, in one form of each letter.
func folded(text string) string {
	return alike.Replace(strings.ToLower(norm.NFKC.String(strings.Map(func(r rune) rune {
		switch {
		case r == '\u034f', r == '\u115f', r == '\u1160', r == '\u17b4', r == '\u17b5', r == '\u3164', r == '\uffa0',
			r >= '\u180b' && r <= '\u180f', unicode.Is(unicode.Cf, r), unicode.Is(unicode.Variation_Selector, r):
			return -1 // default-ignorable (Unicode Standard Annex 44)
		}
		return r
	}, text))))
}
