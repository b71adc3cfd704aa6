// Package need finds the programs that tests drive.
package need

import (
	"os"
	"os/exec"
	"testing"
)

// Python is Debian's, which the python3-* packages belong to.
const Python = "/usr/bin/python3"

// Program finds programs, by name or path. One that is missing fails the test in
// CI; elsewhere it is named and the test skipped.
func Program(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err == nil {
			continue
		}
		if _, err := os.Stat(p); err == nil {
			continue
		}
		Missing(t, p)
	}
}

// PythonModule finds a module of Debian's Python.
func PythonModule(t testing.TB, module string) {
	t.Helper()
	Program(t, Python)
	if exec.Command(Python, "-c", "import "+module).Run() != nil {
		Missing(t, "python3-"+module)
	}
}

// Missing names what a test cannot do without.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("missing program: %s", what)
	}
	t.Skipf("missing program: %s", what)
}
