package otr

import (
	"crypto/rand"
	"fmt"
	"runtime"
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
			b.ReportAllocs()
			for b.Loop() {
				sealed = alice.carry(b, bob, sealed[:0], text)
			}
		})
	}
}

// Each message is answered, which moves the keys of both sides on every time.
func BenchmarkAlternating(b *testing.B) {
	for _, size := range []int{100, 1000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			alice, bob := private(b, V3)
			text := []byte(strings.Repeat("a", size))
			var sealed []byte
			b.ReportAllocs()
			for b.Loop() {
				sealed = alice.carry(b, bob, sealed[:0], text)
				alice, bob = bob, alice
			}
		})
	}
}

// carry encrypts a text to the other side, which reads it. The message is appended to a
// buffer.
func (s *side) carry(b *testing.B, to *side, buffer, text []byte) []byte {
	sealed, err := s.c.AppendEncrypt(buffer, *s.clock, s.c.sessions[0].id, text)
	if err != nil {
		b.Fatal(err)
	}
	if res, err := to.c.Receive(*to.clock, Parse(sealed)); err != nil || len(res.Text) != len(text) {
		b.Fatal(err, len(res.Text))
	}
	return sealed
}

// The two halves of a message apart: BenchmarkOneWay is their sum.
func BenchmarkSeal(b *testing.B) {
	for _, size := range []int{100, 1000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			alice, _ := private(b, V3)
			text := []byte(strings.Repeat("a", size))
			var sealed []byte
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if sealed, err = alice.c.AppendEncrypt(sealed[:0], *alice.clock, alice.c.sessions[0].id, text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkGenerateKey(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := GenerateKey(rand.Reader); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNewKeypair(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := newKeypair(rand.Reader); err != nil {
			b.Fatal(err)
		}
	}
}

// The secret that our key and one of the peer's make.
func BenchmarkShared(b *testing.B) {
	ours, err := newKeypair(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	theirs, err := newKeypair(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	var buffer []byte
	b.ReportAllocs()
	for b.Loop() {
		buffer = ours.appendShared(buffer[:0], &theirs.public)
	}
}

// What an established session keeps while nothing happens: fresh, and after messages
// both ways.
func BenchmarkIdleSession(b *testing.B) {
	const pairs = 500 // so 1000 sessions
	for _, talk := range []struct {
		name     string
		messages int
		size     int
	}{{"fresh", 0, 0}, {"short", 4, 100}, {"long", 4, 1000}} {
		b.Run(talk.name, func(b *testing.B) {
			text := []byte(strings.Repeat("a", talk.size))
			private(b, V3) // what is made once for all is made
			for b.Loop() {
				kept := make([]*Conversation, 0, 2*pairs)
				before := heapInUse()
				for range pairs {
					alice, bob := private(b, V3)
					for range talk.messages {
						alice.carry(b, bob, nil, text)
						alice, bob = bob, alice
					}
					// What expires within a minute is gone in an idle session.
					for _, s := range []*side{alice, bob} {
						s.c.Expire(s.clock.Add(2 * ExchangeLife))
						s.c.config.Versions = nil // it holds what the test keeps
						kept = append(kept, s.c)
					}
				}
				b.ReportMetric(float64(heapInUse()-before)/float64(len(kept)), "B/session")
				runtime.KeepAlive(kept)
			}
		})
	}
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
