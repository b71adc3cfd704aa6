package confine

import "golang.org/x/sys/unix"

// Cores sees to it that the process leaves no core dump, which would have the keys in
// it, and that no other process of the same user can look into its memory. It is for the
// very beginning.
func Cores() {
	noCoreFile()
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}
