package otr

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// The same measures as test/interop/peers/libotr_bench.c takes of libotr; make bench
// prints both side by side.

func BenchmarkExchange(b *testing.B) {
	alice, bob := newPair(b, Set(V3))
	for b.Loop() {
		*alice.clock = alice.clock.Add(time.Minute)
		alice.c.Forget()
		bob.c.Forget()
		alice.query()
		pump(alice, bob)
	}
	if len(bob.c.Sessions()) != 1 || len(alice.errors)+len(bob.errors) > 0 {
		b.Fatal("no exchange")
	}
}

func BenchmarkOneWay(b *testing.B) {
	for _, size := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			alice, bob := private(b, V3)
			text := []byte(strings.Repeat("a", size))
			b.ReportAllocs()
			for b.Loop() {
				carry(b, alice, bob, text)
			}
		})
	}
}

// carry sends one text and reads it.
func carry(b *testing.B, from, to *side, text []byte) {
	m, err := from.c.Encrypt(*from.clock, to.c.config.Instance, text)
	if err != nil {
		b.Fatal(err)
	}
	res, err := to.c.Receive(*to.clock, Parse(m))
	if err != nil || len(res.Text) != len(text) {
		b.Fatal(err, len(res.Text))
	}
}

func BenchmarkAlternating(b *testing.B) {
	alice, bob := private(b, V3)
	text := []byte(strings.Repeat("a", 100))
	for b.Loop() { // one message is one operation
		carry(b, alice, bob, text)
		alice, bob = bob, alice
	}
}

func BenchmarkCompare(b *testing.B) {
	alice, bob := private(b, V3)
	for b.Loop() {
		*alice.clock = alice.clock.Add(time.Minute)
		m, err := alice.c.SMPStart(*alice.clock, bob.c.config.Instance, nil, []byte("secret"))
		if err != nil {
			b.Fatal(err)
		}
		alice.out = append(alice.out, string(m))
		pump(alice, bob)
		if m, err = bob.c.SMPAnswer(*bob.clock, alice.c.config.Instance, []byte("secret")); err != nil {
			b.Fatal(err)
		}
		bob.out = append(bob.out, string(m))
		pump(alice, bob)
	}
	if k := alice.kinds(); k[len(k)-1] != SMPSuccess {
		b.Fatal("no success")
	}
}

// BenchmarkMemory reports the heap that a live conversation takes, in bytes.
func BenchmarkMemory(b *testing.B) {
	b.ReportMetric(float64(conversationSize(b)), "bytes/conversation")
	b.ReportMetric(0, "ns/op")
}

func conversationSize(t testing.TB) uint64 {
	const n = 50
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	clock := time.Unix(1_700_000_000, 0)
	configs := [2]Config{}
	for i, name := range []string{"alice", "bob"} {
		configs[i] = newSide(t, name, &clock, everyVersion).c.config
	}
	var kept [n][2]*Conversation
	before := heap()
	for i := range kept {
		a, b := &side{t: t, c: New(configs[0]), clock: &clock, versions: everyVersion}, &side{t: t, c: New(configs[1]), clock: &clock, versions: everyVersion}
		a.query()
		pump(a, b)
		for range 3 { // both have read, and have moved their keys on
			a.say("one")
			pump(a, b)
			b.say("two")
			pump(a, b)
		}
		kept[i] = [2]*Conversation{a.c, b.c}
	}
	size := (heap() - before) / (2 * n)
	runtime.KeepAlive(kept)
	return size
}
