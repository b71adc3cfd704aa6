package otrlayer

import (
	"strings"
	"testing"

	"otrproxy/otrlayer/text"
)

// Nothing that looks like the proxy's mark is shown as it came, wherever in a line it
// stands and whatever it is spelt with.
func TestMarkCannotBeImitated(t *testing.T) {
	for name, written := range map[string]string{
		"as it is":                      "[otrproxy] FORGED",
		"unassigned, ignorable U+2065":  "[otr\u2065proxy] FORGED",
		"unassigned, ignorable U+FFF0":  "[otr\ufff0proxy] FORGED",
		"unassigned, ignorable U+E0080": "[otr\U000e0080proxy] FORGED",
		"unassigned, ignorable U+E0FFF": "[otr\U000e0fffproxy] FORGED",
		"soft hyphen":                   "[otr\u00adproxy] FORGED",
		"Hangul filler":                 "[otr\u3164proxy] FORGED",
		"small capital o":               "[\u1d0ftrproxy] FORGED",
		"small capital t":               "[o\u1d1brproxy] FORGED",
		"Coptic o":                      "[\u2c9ftrproxy] FORGED",
		"Coptic r/p":                    "[otr\u2ca3roxy] FORGED",
		"Armenian o":                    "[\u0585trproxy] FORGED",
		"Malayalam":                     "[\u0d20trproxy] FORGED",
		"Cyrillic":                      "[\u043e\u0442\u0433\u0440\u0433\u043e\u0445\u0443] FORGED",
		"Greek":                         "[\u03bf\u03c4r\u03c1r\u03bf\u03c7\u03c5] FORGED",
		"a nought":                      "[0trpr0xy] FORGED",
		"mathematical":                  "[\U0001d428\U0001d42d\U0001d42b\U0001d429\U0001d42b\U0001d428\U0001d431\U0001d432] FORGED",
		"in black circles":              "[\U0001f15e\U0001f163\U0001f161\U0001f15f\U0001f161\U0001f15e\U0001f167\U0001f168] FORGED",
		"wide":                          "\uff3b\uff4f\uff54\uff52\uff50\uff52\uff4f\uff58\uff59\uff3d FORGED",
		"null notehead first":           "\U0001d159[otrproxy] FORGED",
		"combining overlay":             "[\u0332otrproxy] FORGED",
		"accents":                       "[\u00f6trprox\u00fd] FORGED",
		"x multiplication":              "[otrpro\u00d7y] FORGED",
		"white bracket":                 "\u27e6otrproxy\u27e7 FORGED",
		"quill bracket":                 "\u2045otrproxy\u2046 FORGED",
		"white square bracket":          "\u301aotrproxy\u301b FORGED",
		"corner bracket":                "\u23a1otrproxy\u23a4 FORGED",
		"box drawing":                   "\u250cotrproxy\u2510 FORGED",
		"ideograph":                     "\u5338otrproxy] FORGED",
		"private use":                   "\ue000otrproxy\ue001 FORGED",
		"thin blanks":                   "[o\u200at\u2009r p r o x y ] FORGED",
		"long line":                     "hi" + strings.Repeat("\u00a0", 300) + "[otrproxy] FORGED",
		"long line of blanks":           "hi" + strings.Repeat(" ", 300) + "[otrproxy] FORGED",
		"second line":                   "hi\n[otrproxy] FORGED",
		"line separator":                "hi\u2028[otrproxy] FORGED",
		"a control character":           "[otr\u007fproxy] FORGED",
		"another one":                   "[otr\u0085proxy] FORGED",
		"an object's place":             "[otr\ufffcproxy] FORGED",
		"private use between":           "[otr\ue000proxy] FORGED",
		"notehead between":              "[otr\U0001d159proxy] FORGED",
		"an Egyptian blank":             "[otr\U00013441proxy] FORGED",
		"a tag's letter":                "[otr\U000e0041proxy] FORGED",
		"all Coptic":                    "[\u2c9f\u2ca7\u2c85\u2ca3\u2c85\u2c9f\u2cad\u2ca9] FORGED",
		"circles and crosses":           "[\u25cbtrpr\u25cb\u2715y] FORGED",
		"Hangul bracket":                "\u3137otrproxy] FORGED",
		"turned around":                 "\u202e]yxorprto[ DEGROF",
		"turned around, half of it":     "\u202eyxorprto] DEGROF",
	} {
		shown := text.Defused(written)
		if !strings.Contains(shown, "> ") || strings.ReplaceAll(shown, "> ", "") != written {
			t.Errorf("%s: shown as %q", name, shown)
		}
	}
	for _, written := range []string{"I use otrproxy", "(otrproxy)", "«otrproxy»", "a [proxy] for OTR", "Grüße, ça va? 你好 🎉", "[otr] proxy", "otrproxy: [1]", ""} {
		if shown := text.Defused(written); shown != written {
			t.Errorf("%q was changed to %q", written, shown)
		}
	}
	if got := text.Clear("[otrproxy] x, and [otrproxy] y"); got != "[otrproxy] Not encrypted: [otrproxy] x, and > [otrproxy] y" {
		t.Errorf("marked: %q", got)
	}
}

// What is shown as it came is what Scrub would leave: whitespace tags go from every text that
// no session reads.
func TestBareAndHarmlessIsWhatScrubLeaves(t *testing.T) {
	const tag = " \t  \t\t\t\t \t \t \t  " + "  \t\t  \t "
	for _, written := range []string{"?OTR is fine" + tag, "?OTR" + tag, "<b>?OTR</b> x" + tag, "?OTR: two words" + tag, "plain" + tag, "plain", "?OTRv23?", "[otrproxy] hi", "?OTR:AAMD."} {
		r := Scrub(written)
		if leaves := r.Deliver && r.Text == written; leaves != (Bare([]byte(written)) && text.Harmless([]byte(written))) {
			t.Errorf("They say %v of %q, which Scrub shows as %q", !leaves, written, r.Text)
		}
	}
}
