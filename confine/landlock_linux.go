package confine

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// What may be done below a path. Executing is part of neither, nor is moving files from one
// directory to another, which the first version of Landlock does not know.
const (
	reading = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSReadDir)
	writing = reading | landlock.AccessFSSet(ll.AccessFSWriteFile|ll.AccessFSTruncate|ll.AccessFSMakeReg|ll.AccessFSMakeDir|ll.AccessFSRemoveFile|ll.AccessFSRemoveDir)
	oneFile = landlock.AccessFSSet(ll.AccessFSReadFile)
)

// systemFiles are what Go's resolver, TLS, clock and the process's own figures read.
// What a link leads to is meant as well. Not all of /etc/ssl: private keys live there.
var systemFiles = []string{
	"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services", "/etc/protocols", "/etc/host.conf",
	"/etc/localtime", "/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/etc/zoneinfo",
	"/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem", "/etc/pki/tls/certs", "/etc/pki/tls/cacert.pem", "/etc/pki/ca-trust/extracted", "/etc/ca-certificates/extracted",
	"/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/usr/share/pki/trust/anchors",
	"/proc/self", "/proc/stat", "/proc/sys/net/core/somaxconn",
}

// replaced are those that other programs put anew while the proxy runs, as when a laptop
// changes networks. A rule holds for the file it was made for and not for its successor,
// so it has to be made for the directory.
var replaced = []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/gai.conf"}

func landlockABI() int {
	v, err := ll.LandlockGetABIVersion()
	if err != nil {
		return 0
	}
	return v
}

// landlock confines the files, for all threads. Connections over IP stay as they are;
// signals to and abstract sockets of processes outside are closed, where the kernel can.
func (r *Report) landlock(paths Paths) bool {
	const what = "files"
	abi := landlockABI()
	if abi == 0 {
		r.lacks(what, errNoLandlock)
		return false
	}
	// Never closed, so that the kernel does not forget its entry for /proc/self, and with
	// it the rule, when memory is short.
	unix.Open("/proc/self", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	rules := []landlock.Rule{landlock.PathAccess(writing, paths.State)}
	for _, path := range slices.Concat(paths.Read, read()) {
		if rule, ok := ruleFor(path); ok {
			rules = append(rules, rule)
		}
	}
	config := landlock.V11.BestEffort()
	err := config.RestrictPaths(rules...)
	if err == nil {
		err = config.RestrictScoped()
	}
	if err == nil {
		err = proven(paths.State)
	}
	if err != nil {
		r.lacks(what, err)
		return false
	}
	r.has("files (Landlock ABI %d)", abi)
	return true
}

// proven makes sure that the rules hold: the library succeeds also where it cannot do
// anything, and one rule too many makes it do nothing.
func proven(state string) error {
	if f, err := os.Open("/"); err == nil {
		f.Close()
		return fmt.Errorf("the rules for %s do not hold", state)
	}
	return nil
}

// read are the system's files with what links lead to, and the directories of those that
// are replaced. For root these are not opened up: they hold what only root may read.
func read() []string {
	paths := slices.Clone(systemFiles)
	for _, env := range []string{"SSL_CERT_FILE", "SSL_CERT_DIR"} {
		paths = append(paths, filepath.SplitList(os.Getenv(env))...)
	}
	for _, path := range replaced {
		target, err := filepath.EvalSymlinks(path)
		if err != nil {
			continue
		}
		if dir := filepath.Dir(target); dir != "/etc" || !root() {
			paths = append(paths, dir)
		}
	}
	return paths
}

// ruleFor opens a path for reading, where there is something.
func ruleFor(path string) (landlock.Rule, bool) {
	target, err := filepath.EvalSymlinks(path)
	if err != nil || target == "/" {
		return nil, false
	}
	st, err := os.Stat(target)
	switch {
	case err != nil:
		return nil, false
	case st.IsDir():
		return landlock.PathAccess(reading, target), true
	}
	return landlock.PathAccess(oneFile, target), true
}
