package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// How much garbage there may be before it is collected: a part of what is in use, for a
// household's box has no memory to waste; but so much that traffic does not have a small heap
// collected again and again.
const (
	garbagePart  = 50      // percent
	leastGarbage = 8 << 20 // bytes
)

// paceCollector sets that, and again after each collection.
func paceCollector() {
	inForce := 0
	var set func(struct{})
	set = func(struct{}) {
		if percent := garbagePercent(inUse()); percent*10 < inForce*9 || percent*9 > inForce*10 { // it costs a stop of all
			inForce = percent
			debug.SetGCPercent(percent)
		}
		runtime.AddCleanup(&collected{}, set, struct{}{})
	}
	set(struct{}{})
}

// collected is an object that goes with the next collection.
type collected struct{ _ *collected }

// garbagePercent is the collector's setting where so many bytes are in use.
func garbagePercent(used uint64) int {
	return max(garbagePart, int(leastGarbage*100/max(used, 1<<20)))
}

// inUse is what the collector takes its percentage of, in bytes: what the last collection has
// left, stacks and global variables.
func inUse() (sum uint64) {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(samples)
	for _, s := range samples {
		sum += s.Value.Uint64()
	}
	return sum
}
