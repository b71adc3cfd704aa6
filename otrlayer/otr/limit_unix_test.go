//go:build unix

package otr

import "syscall"

// limitMemory bounds what this process may ask for.
func limitMemory(bytes uint64) error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_AS, &l); err != nil {
		return err
	}
	setLimit(&l.Cur, bytes)
	setLimit(&l.Max, bytes)
	return syscall.Setrlimit(syscall.RLIMIT_AS, &l)
}

// setLimit sets a number whose type differs between systems.
func setLimit[T int64 | uint64](to *T, bytes uint64) { *to = T(bytes) }
