package confine

import (
	"errors"
	"net"
	"os"
	"runtime"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// Process confines the process to what a proxy does: it speaks over IP and to those who
// connect, reads and writes paths, and starts no program. It tries everything, and
// reports what it got; nothing may be confined twice.
func Process(paths Paths) Report {
	warmUp()
	var r Report
	r.cores()
	r.memory()
	if err := ll.AllThreadsPrctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		r.lacks("no new privileges", err)
	} else {
		r.has("no new privileges")
	}
	files, calls := r.landlock(paths), r.seccomp()
	r.Whole, r.Alone = files && calls, files || calls
	return r
}

// Available says what Process would find here, and changes nothing.
func Available() Report {
	var r Report
	files, calls := landlockABI() > 0, seccompHere()
	if files {
		r.has("files (Landlock ABI %d)", landlockABI())
	} else {
		r.lacks("files", errNoLandlock)
	}
	if calls {
		r.has("system calls (seccomp)")
	} else {
		r.lacks("system calls", errNoSeccomp)
	}
	if mayLock() {
		r.has("memory kept out of swap")
	} else {
		r.lacks("memory kept out of swap", errLockLimit)
	}
	r.Whole, r.Alone = files && calls, files || calls
	return r
}

var (
	errNoLandlock = errors.New("this kernel has no Landlock")
	errNoSeccomp  = errors.New("this kernel has no seccomp filters")
)

// warmUp has the standard library ask what it could not ask later: the names of network
// interfaces, which addresses such as fe80::1%eth0 need, come over a netlink socket, and
// what it knows it keeps when it cannot ask again.
func warmUp() { net.Interfaces() }

func (r *Report) cores() {
	if d, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err == nil && d == 0 {
		r.has("no core dumps, no debugger")
	} else {
		r.lacks("no core dumps, no debugger", errors.New("the kernel refuses"))
	}
}

// root reports whether the process has the rights of root, which files do not stop.
func root() bool { return os.Geteuid() == 0 }

// onOneThread runs f without its goroutine changing threads.
func onOneThread(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return f()
}
