//go:build unix

package confine

import "golang.org/x/sys/unix"

// noCoreFile sets the limit for core files to nothing, for good.
func noCoreFile() { unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) }
