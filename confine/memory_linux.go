package confine

import (
	"errors"

	"golang.org/x/sys/unix"
)

var errLockLimit = errors.New("the limit for locked memory is too low; LimitMEMLOCK=infinity, or ulimit -l unlimited, lifts it")

// mlockOnFault locks a page when it is first used, not before (MCL_ONFAULT): a Go
// program reserves far more than it uses.
const mlockOnFault = 4

// memory keeps all memory out of swap, now and later. A limit that is finite would let
// the process die at some allocation, so it is done without one only.
func (r *Report) memory() {
	const what = "memory kept out of swap"
	if !mayLock() {
		r.lacks(what, errLockLimit)
		return
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | mlockOnFault); err != nil {
		r.lacks(what, err)
		return
	}
	r.has(what)
}

// mayLock reports whether there is no limit for locked memory, or none for this process.
func mayLock() bool {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &l); err != nil {
		return false
	}
	if l.Max == unix.RLIM_INFINITY {
		if l.Cur == l.Max {
			return true
		}
		l.Cur = l.Max
		return unix.Setrlimit(unix.RLIMIT_MEMLOCK, &l) == nil
	}
	return capable(unix.CAP_IPC_LOCK)
}

// capable reports whether the process has a capability. Whether it is worth anything, in
// a container say, shows when it is used.
func capable(capability uint) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&header, &data[0]) == nil && data[capability/32].Effective&(1<<(capability%32)) != 0
}
