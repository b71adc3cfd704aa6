package text

import (
	"strings"
	"testing"
)

func BenchmarkHarmless(b *testing.B) {
	for name, text := range map[string]string{
		"english":  strings.Repeat("it's late, and that is why we aren't there yet. ", 2),
		"german":   strings.Repeat("Es ist spät, und darum sind wir noch nicht über die Brücke. ", 2),
		"russian":  strings.Repeat("увидимся на вокзале в шесть, как всегда ", 2),
		"emoji":    "see you at six 👍🏽 — as ever 🙂",
		"brackets": "see [1] and [2] for what they say, and as ever {there} are some more",
		"chinese":  strings.Repeat("我们六点在车站见，一如既往。", 3),
	} {
		b.Run(name, func(b *testing.B) {
			raw := []byte(text)
			for b.Loop() {
				Harmless(raw)
			}
		})
	}
}
