package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

// A small heap is left alone for a while, a large one grows by its half; what is set follows
// the heap.
func TestCollectorFollowsTheHeap(t *testing.T) {
	for used, want := range map[uint64]int{0: 800, 2 << 20: 400, 8 << 20: 100, 16 << 20: 50, 1 << 30: 50} {
		if got := garbagePercent(used); got != want {
			t.Errorf("%d bytes: %d %%, want %d", used, got, want)
		}
	}
	runtime.GC() // what other tests have left
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	paceCollector()
	small := setting()
	held := make([]byte, 64<<20)
	for end := time.Now().Add(time.Minute); setting() != garbagePart; runtime.Gosched() {
		runtime.GC()
		if time.Now().After(end) {
			t.Fatalf("%d %% with %d bytes", setting(), len(held))
		}
	}
	runtime.KeepAlive(held)
	if small <= garbagePart {
		t.Errorf("%d %% for a small heap", small)
	}
}

// setting is the collector's present one.
func setting() int {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	return int(sample[0].Value.Uint64())
}
