package text

import (
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/mtibben/confusables"
)

// Whatever imitates the mark is seen at a glance: the name in any look-alikes, with anything
// that does not count between them.
func TestGlanceMissesNoImitation(t *testing.T) {
	dress := map[string][]rune{}
	for r, as := range looks {
		dress[as] = append(dress[as], r)
	}
	for as := range dress {
		slices.Sort(dress[as])
	}
	between := []string{"", "", "", "", " ", "\u00ad", "\u0301", "[", "\u27e6", "\U0001f642", "\u200b", "\u2800", ".", "\ub2e8", "\ufb01", "x"}
	before := []string{"[", "\u27e6", "\U0001f642", "\u5338", "hi [", "\u202e", "\u2067 ", "o", ""}
	rnd := rand.New(rand.NewPCG(17, 1))
	any := func(list []string) string { return list[rnd.IntN(len(list))] }
	imitate := 0
	for range 50_000 {
		word := name
		if rnd.IntN(3) == 0 {
			word = mirrored
		}
		text := any(before)
		for _, r := range word {
			if alike := dress[string(r)]; rnd.IntN(3) == 0 && len(alike) > 0 {
				r = alike[rnd.IntN(len(alike))]
			} else if rnd.IntN(3) == 0 {
				r = unicode.ToUpper(r)
			}
			text += string(r)
			if rnd.IntN(4) == 0 {
				text += any(between)
			}
		}
		text += any([]string{"]", "[", " and more", ""})
		if found(text) == nil {
			continue
		}
		imitate++
		if !suspicious(text) {
			t.Fatalf("%q (%+q) is not seen", text, text)
		}
	}
	if imitate < 5_000 {
		t.Errorf("only %d of the texts imitated the mark", imitate)
	}
}

// A text costs what it is long, whatever it is made of.
func TestLongTextsAreReadOnce(t *testing.T) {
	for _, part := range []string{"yxorprto", "[otrproxy", "[", "[o", "\u202e]yxorprto", "\ue000", "\n[otrproxy]"} {
		took := func(n int) time.Duration {
			text := strings.Repeat(part, n)
			least := time.Hour
			for range 3 {
				at := time.Now()
				Defused(text)
				least = min(least, time.Since(at))
			}
			return least
		}
		if short, long := took(2_000), took(32_000); long > 16*8*short+10*time.Millisecond {
			t.Errorf("%q: %v, and sixteen times as much %v", part, short, long)
		}
	}
}

// Every character that Unicode's confusables.txt has for one of the mark's letters is read
// as that letter.
var oneLetter = regexp.MustCompile(`^[otrpxy]$`)

func TestLooksAreUnicodes(t *testing.T) {
	found := 0
	for r := rune(0x80); r <= 0x1ffff; r++ {
		as := strings.ToLower(confusables.Skeleton(string(r)))
		if !oneLetter.MatchString(as) {
			continue
		}
		found++
		if seen := glyphs(string(r)); len(seen) != 1 || string(seen[0].look) != as {
			t.Errorf("U+%04X looks like %s and is read as %v", r, as, seen)
		}
	}
	if found < 200 {
		t.Errorf("only %d look-alikes were compared", found)
	}
}
