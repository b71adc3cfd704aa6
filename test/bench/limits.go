//go:build linux

package main

import "golang.org/x/sys/unix"

// manyFiles are what thousands of sessions take, in the clients' process or in the middle.
const manyFiles = 24_000

// openFiles raises what this process and those it starts may have open, as far as it may,
// and returns it.
func openFiles(wanted uint64) uint64 {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 1024
	}
	if l.Cur >= wanted {
		return l.Cur
	}
	for _, to := range []unix.Rlimit{{Cur: wanted, Max: max(wanted, l.Max)}, {Cur: l.Max, Max: l.Max}} {
		if unix.Setrlimit(unix.RLIMIT_NOFILE, &to) == nil {
			return to.Cur
		}
	}
	return l.Cur
}
