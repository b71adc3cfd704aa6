package stanza

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

// escapedSlowly is AppendEscaped, character by character.
func escapedSlowly(s string) string {
	var b strings.Builder
	for _, r := range s { // a byte that is no UTF-8 is U+FFFD
		switch {
		case r == '<':
			b.WriteString("&lt;")
		case r == '>':
			b.WriteString("&gt;")
		case r == '&':
			b.WriteString("&amp;")
		case r == '\'':
			b.WriteString("&apos;")
		case r == '"':
			b.WriteString("&quot;")
		case r == '\r':
			b.WriteString("&#xD;")
		case !isChar(r):
			b.WriteRune(utf8.RuneError)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Every character is written as XML allows it, wherever in a text it stands, and bytes that
// are no characters are none.
func TestEscapedTextIsXML(t *testing.T) {
	check := func(s string) {
		if got, want := string(AppendEscaped(nil, s)), escapedSlowly(s); got != want {
			t.Fatalf("%q became %q, want %q", s, got, want)
		}
		if got, want := string(AppendEscaped([]byte("x"), []byte(s))), "x"+escapedSlowly(s); got != want {
			t.Fatalf("%q as bytes became %q, want %q", s, got, want)
		}
	}
	for r := range rune(utf8.MaxRune + 1) {
		check("a" + string(r))
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	parts := []string{"word", "a", "ж", "€", "🙂", "<", ">", "&", "'", "\"", "\r", "\n", "\t", "\x00", "\x1f", "\x7f", "\x80", "\xc2", "\xc1\x80", "\xd0", "\xe2\x82", "\xed\xa0\x80", "\xef\xbf\xbe", "\xef\xbf\xbf", "\xef\xbf\xbd", "\xf0\x9f\x99", "\xf4\x90\x80\x80", "\xff"}
	for range 200_000 {
		s := ""
		for range rnd.IntN(12) {
			s += parts[rnd.IntN(len(parts))]
		}
		check(s)
	}
}

func BenchmarkAppendEscaped(b *testing.B) {
	for name, text := range map[string]string{
		"base64":  strings.Repeat("QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo", 40),
		"english": strings.Repeat("it's late, and that is why we aren't there yet. ", 20),
		"russian": strings.Repeat("увидимся на вокзале в шесть, как всегда ", 20),
		"chinese": strings.Repeat("我们六点在车站见，一如既往。", 20),
		"short":   "see you at six",
	} {
		b.Run(name, func(b *testing.B) {
			dst := make([]byte, 0, 8192)
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				AppendEscaped(dst, text)
			}
		})
	}
}
