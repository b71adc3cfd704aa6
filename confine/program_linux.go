package confine

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ReleaseProgram takes the program's code out of memory: most of what the start has run does
// not run again, and what does comes back when it is called. Once memory is locked, it would
// stay.
func ReleaseProgram() {
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); { // proc_pid_maps(5)
		var from, to uintptr
		var access string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &access); err != nil || access != "r-xp" || !strings.Contains(lines.Text(), " /") {
			continue // also the kernel's own, which has no file
		}
		unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED) // where it fails all stays as it is
	}
}
