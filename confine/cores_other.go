//go:build !linux && !darwin && !freebsd && !windows

package confine

// Cores sees to it that the process leaves no core dump, which would have the keys in
// it. It is for the very beginning.
func Cores() { noCoreFile() }
