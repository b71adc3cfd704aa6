package otr

import (
	"fmt"
	"strings"
	"testing"
)

// For profiles; test/bench/otr compares with libotr.
func BenchmarkOneWay(b *testing.B) {
	for _, size := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			alice, bob := private(b, V3)
			text := []byte(strings.Repeat("a", size))
			var sealed []byte
			id := alice.id()
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if sealed, err = alice.c.AppendEncrypt(sealed[:0], *alice.clock, id, text); err != nil {
					b.Fatal(err)
				}
				if res, err := bob.c.Receive(*bob.clock, Parse(sealed)); err != nil || len(res.Text) != len(text) {
					b.Fatal(err, len(res.Text))
				}
			}
		})
	}
}
