package confine

import "golang.org/x/sys/windows"

// Cores sees to it that a crash of the process is not offered for a report, which would
// have the keys in it. It is for the very beginning.
func Cores() {
	windows.SetErrorMode(windows.SEM_FAILCRITICALERRORS | windows.SEM_NOGPFAULTERRORBOX | windows.SEM_NOOPENFILEERRORBOX)
}
