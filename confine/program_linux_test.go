package confine

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// What the start alone has run is not in memory any more, and all runs on.
func TestProgramIsReleased(t *testing.T) {
	before := mapped(t)
	ReleaseProgram()
	if after := mapped(t); after >= before {
		t.Errorf("%d kB of files in memory, before %d", after, before)
	}
}

// mapped is how much of files is in the process's memory, in kB (proc_pid_status(5)).
func mapped(t *testing.T) (kB int) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "RssFile:")
	if _, err := fmt.Sscan(rest, &kB); err != nil {
		t.Fatal(err)
	}
	return kB
}
