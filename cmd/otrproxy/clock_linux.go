package main

import "golang.org/x/sys/unix"

// monotonic is the kernel's clock that is never set, in microseconds, by which a service
// manager tells which reload is meant.
func monotonic() int64 {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano() / 1000
}
