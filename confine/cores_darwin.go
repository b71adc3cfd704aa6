package confine

import "golang.org/x/sys/unix"

// Cores sees to it that the process leaves no core dump, which would have the keys in
// it, and that no debugger attaches to it. It is for the very beginning.
func Cores() {
	noCoreFile()
	unix.PtraceDenyAttach()
}
