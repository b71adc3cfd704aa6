// Package metrics has the figures by which a household sees how its proxy does, in the format of
// Prometheus, and whether it is well. No label names anybody. Every series of a closed set is
// there from the start.
//
// Owned here: the counters. How things stand is asked for when somebody looks (Snapshot).
//
// It must not know who asks for what is counted.
package metrics
