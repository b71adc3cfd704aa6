package confine

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of procctl(2), which golang.org/x/sys has no function for.
const (
	procTraceCtl     = 7
	procTraceDisable = 2
	pPID             = 0
)

// Cores sees to it that the process leaves no core dump, which would have the keys in
// it, and that no debugger attaches to it. It is for the very beginning.
func Cores() {
	noCoreFile()
	how := int32(procTraceDisable)
	unix.Syscall6(unix.SYS_PROCCTL, pPID, uintptr(unix.Getpid()), procTraceCtl, uintptr(unsafe.Pointer(&how)), 0, 0)
}
