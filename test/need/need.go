// Package need finds what tests cannot do without: the programs that they drive, and
// the long-term keys of people.
package need

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"otrproxy/otrlayer/otr"
)

// Key is one of the keys that the engine's testdata has: alice, bob, carol. It is for
// the packages beside this one.
func Key(t testing.TB, name string) *otr.PrivateKey {
	t.Helper()
	file, err := os.ReadFile(filepath.Join("..", "..", "otrlayer", "otr", "testdata", "otr.private_key"))
	if err != nil {
		t.Fatal(err)
	}
	k, err := otr.FindKey(file, func(n, _ string) bool { return n == name+"@example.org" })
	if err != nil || k == nil {
		t.Fatalf("the test key of %s: %v", name, err)
	}
	return k
}

// KeyFile is the key of a name as libotr's file of an account's key.
func KeyFile(t testing.TB, name, account, protocol string) []byte {
	t.Helper()
	b, err := otr.AppendKey(nil, account, protocol, Key(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

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
