package confine

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"

	"otrproxy/test/need"
)

// Somebody has got into the process: what would they reach? The attacks run in a process
// of their own, confined as the proxy confines itself, since there is no way back.

const insideVar = "OTRPROXY_TEST_CONFINED"

func TestMain(m *testing.M) {
	if os.Getenv(insideVar) != "" {
		Cores()
	}
	os.Exit(m.Run())
}

// inside runs a test once more in a process of its own, and says whether this is it.
// The directory stands for the proxy's state.
func inside(t *testing.T) (state string, is bool) {
	t.Helper()
	if state = os.Getenv(insideVar); state != "" {
		return state, true
	}
	if !Available().Whole {
		need.Missing(t, "kernel-with-Landlock-and-seccomp")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=1m")
	cmd.Env = append(os.Environ(), insideVar+"="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if _, text, ok := strings.Cut(line, "figure: "); ok {
			t.Log(strings.TrimSpace(text))
		}
	}
	return "", false
}

// confined confines the process, with threads there already and more to come.
func confined(t *testing.T, state string) {
	t.Helper()
	hold := make(chan struct{})
	t.Cleanup(func() { close(hold) })
	var up sync.WaitGroup
	for range 8 {
		up.Add(1)
		go func() {
			runtime.LockOSThread()
			up.Done()
			<-hold
		}()
	}
	up.Wait()
	if r := Process(Paths{State: state}); !r.Whole {
		t.Fatalf("not confined: %s", r)
	}
}

func refused(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EAFNOSUPPORT)
}

// errno is the error of a system call.
func errno(call uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, e := unix.Syscall6(call, a[0], a[1], a[2], a[3], a[4], a[5]); e != 0 {
		return e
	}
	return nil
}

func socket(family, kind, proto int) error {
	fd, err := unix.Socket(family, kind, proto)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// harmless are attacks that succeed without confinement, and then do nobody any harm.
var harmless = []string{"read another's file", "list another's files", "read by an open directory", "write outside", "run a shell", "map code", "map writable code", "turn memory into code",
	"memory as a file", "local socket", "listen anew", "link out", "make a link", "shared memory", "a new rule for files", "signal its parent"}

// Everything an intruder may want is refused.
func TestAttacks(t *testing.T) {
	outside := os.Getenv(insideVar + "_OUTSIDE")
	if outside == "" {
		outside = t.TempDir()
		os.WriteFile(filepath.Join(outside, "diary"), []byte("secret"), 0o600)
		t.Setenv(insideVar+"_OUTSIDE", outside)
	}
	state, is := inside(t)
	if !is {
		if entries, _ := os.ReadDir(outside); len(entries) != 1 {
			t.Errorf("something was left outside: %v", entries)
		}
		return
	}
	bystander := exec.Command("cat")
	life, _ := bystander.StdinPipe()
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	defer bystander.Wait()
	defer life.Close()
	kept, _ := os.Open(outside)
	tool := filepath.Join(state, "tool")
	home, _ := os.UserHomeDir()

	victim := uintptr(bystander.Process.Pid)
	var page [1]byte
	buf := uintptr(unsafe.Pointer(&page))
	name := []byte("x\x00")
	at := uintptr(unsafe.Pointer(&name[0]))
	var made atomic.Int32
	fresh := func() string { return filepath.Join(state, fmt.Sprint("made", made.Add(1))) }
	attacks := map[string]func() error{
		"read /etc/shadow":          func() error { _, err := os.ReadFile("/etc/shadow"); return err },
		"read another's file":       func() error { _, err := os.ReadFile(filepath.Join(outside, "diary")); return err },
		"list another's files":      func() error { _, err := os.ReadDir(outside); return err },
		"list homes":                func() error { _, err := os.ReadDir("/home"); return err },
		"read by an open directory": func() error { _, err := unix.Openat(int(kept.Fd()), "diary", unix.O_RDONLY, 0); return err },
		"read another's memory":     func() error { _, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", victim)); return err },
		"write outside":             func() error { return os.WriteFile(filepath.Join(outside, "diary"), []byte("secret"), 0o600) },
		"write to a home":           func() error { return os.WriteFile(filepath.Join(home, ".profile-x"), nil, 0o600) },
		"write to /tmp":             func() error { _, err := os.CreateTemp("/tmp", "x"); return err },
		"remove outside":            func() error { return os.Remove(filepath.Join(outside, "diary")) },
		"move out": func() error {
			os.WriteFile(filepath.Join(state, "moved"), nil, 0o600)
			err := os.Rename(filepath.Join(state, "moved"), filepath.Join(outside, "moved"))
			if errors.Is(err, unix.EXDEV) { // as Landlock says it
				return unix.EPERM
			}
			return err
		},
		"link out":           func() error { return os.Link(filepath.Join(outside, "diary"), fresh()) },
		"make a link":        func() error { return os.Symlink("/etc/shadow", fresh()) },
		"make a device":      func() error { return unix.Mknod(filepath.Join(state, "mem"), unix.S_IFCHR|0o600, 1<<8|1) },
		"change the owner":   func() error { return os.Chown(state, 0, 0) },
		"run a shell":        func() error { return exec.Command("/bin/sh", "-c", "true").Run() },
		"run a file of ours": func() error { os.WriteFile(tool, []byte("#!/bin/sh\n"), 0o700); return exec.Command(tool).Run() },
		"execve":             func() error { return unix.Exec("/bin/sh", []string{"sh"}, nil) },
		"execveat":           func() error { return errno(unix.SYS_EXECVEAT, 0, at, 0, 0, 0) },
		"fork":               func() error { return errno(unix.SYS_CLONE, uintptr(unix.SIGCHLD)) },
		"trace":              func() error { return unix.PtraceAttach(int(victim)) },
		"read memory by call": func() error {
			return errno(unix.SYS_PROCESS_VM_READV, victim, buf, 0, buf, 0, 0)
		},
		"write memory by call": func() error { return errno(unix.SYS_PROCESS_VM_WRITEV, victim, buf, 0, buf, 0, 0) },
		"take over a file":     func() error { return errno(unix.SYS_PIDFD_OPEN, victim, 0) },
		"kill another":         func() error { return unix.Kill(int(victim), unix.SIGKILL) },
		"kill all":             func() error { return unix.Kill(-1, 0) },
		"signal its parent":    func() error { return unix.Kill(os.Getppid(), 0) },
		"map code": func() error {
			_, err := unix.Mmap(-1, 0, 4096, unix.PROT_EXEC|unix.PROT_READ, unix.MAP_ANON|unix.MAP_PRIVATE)
			return err
		},
		"map writable code": func() error {
			_, err := unix.Mmap(-1, 0, 4096, unix.PROT_EXEC|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
			return err
		},
		"turn memory into code": func() error { return becomeCode(t) },
		"memory as a file":      func() error { _, err := unix.MemfdCreate("x", 0); return err },
		"raw socket":            func() error { return socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP) },
		"raw socket, v6":        func() error { return socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6) },
		"packet socket":         func() error { return socket(unix.AF_PACKET, unix.SOCK_RAW, 0) },
		"netlink socket":        func() error { return socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE) },
		"netfilter socket":      func() error { return socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER) },
		"local socket":          func() error { return socket(unix.AF_UNIX, unix.SOCK_STREAM, 0) }, // the way to a bus, and so to programs
		"kernel crypto":         func() error { return socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0) },
		"machine socket":        func() error { return socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0) },
		"bluetooth":             func() error { return socket(unix.AF_BLUETOOTH, unix.SOCK_RAW, 0) },
		"listen anew":           func() error { l, err := net.Listen("tcp", "127.0.0.1:0"); close1(l); return err },
		"mount":                 func() error { return unix.Mount("none", state, "tmpfs", 0, "") },
		"unmount":               func() error { return unix.Unmount("/proc", unix.MNT_DETACH) },
		"open a tree":           func() error { return errno(unix.SYS_OPEN_TREE, 0, at, 0) },
		"change the root":       func() error { return unix.Chroot(state) },
		"new name space":        func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
		"enter a name space":    func() error { return unix.Setns(int(kept.Fd()), 0) },
		"bpf":                   func() error { return errno(unix.SYS_BPF, 0, buf, 1) },
		"keys of the kernel":    func() error { _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_KEYRING, false); return err },
		"add a key":             func() error { return errno(unix.SYS_ADD_KEY, at, at, at, 1, 0) },
		"load a module":         func() error { return unix.InitModule([]byte("x"), "") },
		"load a module's file":  func() error { return unix.FinitModule(0, "", 0) },
		"another kernel":        func() error { return errno(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0) },
		"perf":                  func() error { _, err := unix.PerfEventOpen(&unix.PerfEventAttr{}, 0, -1, -1, 0); return err },
		"userfaultfd":           func() error { return errno(unix.SYS_USERFAULTFD, 0) },
		"io_uring":              func() error { return errno(unix.SYS_IO_URING_SETUP, 1, buf) },
		"personality":           func() error { return errno(unix.SYS_PERSONALITY, 0x0400000) },
		"the clock":             func() error { return unix.Settimeofday(&unix.Timeval{}) },
		"the host's name":       func() error { return unix.Sethostname([]byte("x")) },
		"another user":          func() error { return errno(unix.SYS_SETRESUID, 0, 0, 0) },
		"capabilities":          func() error { return errno(unix.SYS_CAPSET, buf, buf) },
		"limits":                func() error { return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1, Max: 1}) },
		"be dumped again":       func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) },
		"shared memory":         func() error { _, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, 0); return err },
		"the terminal":          func() error { return errno(unix.SYS_IOCTL, 2, unix.TIOCSTI, buf) },
		"open by a handle":      func() error { return errno(unix.SYS_OPEN_BY_HANDLE_AT, 0, buf, 0) },
		"reboot":                func() error { return errno(unix.SYS_REBOOT, 0, 0, 0) },
		"look into the log":     func() error { _, err := unix.Klogctl(10, nil); return err },
		"a new rule for files":  func() error { return errno(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1) },
	}
	for _, what := range harmless {
		if err := attacks[what](); err != nil {
			t.Errorf("not even before: %s: %v", what, err)
		}
	}
	confined(t, state)
	try := func(where string) {
		for what, attack := range attacks {
			if err := attack(); !refused(err) {
				t.Errorf("%s, %s: %v", where, what, err)
			}
		}
	}
	try("first")
	var again sync.WaitGroup
	for i := range 4 { // on other threads, old ones and new ones
		again.Go(func() {
			runtime.LockOSThread() // and ends with it
			try(fmt.Sprint("thread ", i))
		})
	}
	again.Wait()
	t.Logf("figure: %d attacks refused, on 5 threads each", len(attacks))
}

func close1(c io.Closer) {
	if c != nil && c != net.Listener(nil) {
		c.Close()
	}
}

// becomeCode makes a page of memory executable.
func becomeCode(t *testing.T) error {
	b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Error(err)
	}
	return unix.Mprotect(b, unix.PROT_READ|unix.PROT_EXEC)
}

// What a proxy does goes on: files of its state, names, TLS, connections both ways, its
// own figures, threads, and memory that comes and goes.
func TestWorkGoesOn(t *testing.T) {
	state, is := inside(t)
	if !is {
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }))
	srv.Listener.Close()
	srv.Listener = l
	srv.StartTLS()
	defer srv.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	before, may := memoryNow(t), mayLock()
	confined(t, state)
	after := memoryNow(t)
	t.Logf("figure: resident before %d KiB, confined %d KiB", before, after)
	if locked := status(t, "self", "VmLck"); (locked > 0) != may {
		t.Errorf("%d KiB are locked", locked)
	}
	if after > before+16<<10 {
		t.Errorf("confined, %d KiB more are resident", after-before)
	}

	res, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(res.Body); string(b) != "hello" {
		t.Errorf("%q", b)
	}
	res.Body.Close()
	go func() {
		b := make([]byte, 100)
		n, from, _ := udp.ReadFrom(b)
		udp.WriteTo(b[:n], from)
	}()
	c, err := net.Dial("udp", udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Write([]byte("x"))
	if n, err := c.Read(make([]byte, 10)); n != 1 {
		t.Error(err)
	}
	c.Close()
	if _, err := x509.SystemCertPool(); err != nil {
		t.Error(err)
	}
	for _, file := range []string{"/etc/resolv.conf", "/etc/hosts", "/proc/self/stat", "/proc/self/limits", "/proc/stat"} {
		if _, err := os.Stat(file); err != nil {
			continue
		}
		if _, err := os.ReadFile(file); err != nil {
			t.Error(err)
		}
	}
	if ips, err := (&net.Resolver{PreferGo: true}).LookupHost(context.Background(), "localhost"); err != nil {
		t.Errorf("localhost: %v %v", ips, err)
	}
	dir := filepath.Join(state, "accounts", "a")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Error(err)
	}
	for range 3 {
		tmp, err := os.CreateTemp(dir, "x")
		if err != nil {
			t.Fatal(err)
		}
		tmp.Write([]byte("text"))
		if err := errors.Join(tmp.Chmod(0o600), tmp.Sync(), tmp.Close(), os.Rename(tmp.Name(), filepath.Join(dir, "file"))); err != nil {
			t.Error(err)
		}
	}
	os.Remove(filepath.Join(dir, "file"))
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v %v", left, err)
	}

	// Memory that was locked is given back all the same.
	for range 3 {
		big := make([][]byte, 64)
		for i := range big {
			big[i] = bytes.Repeat([]byte{1}, 1<<20)
		}
		runtime.KeepAlive(big)
		big = nil
		debug.FreeOSMemory()
	}
	if now := memoryNow(t); now > after+32<<10 && !raced() { // the race detector keeps its own
		t.Errorf("%d KiB were not given back", now-after)
	}
	var deep func(n int) int
	deep = func(n int) int {
		var pad [256]byte
		if n == 0 {
			return int(pad[0])
		}
		return deep(n-1) + int(pad[n%256])
	}
	var wg sync.WaitGroup
	for range 64 { // threads and stacks
		wg.Go(func() { runtime.LockOSThread(); deep(20_000) })
	}
	wg.Wait()
	if fds, err := os.ReadDir("/proc/self/fd"); err != nil || len(fds) < 3 {
		t.Errorf("%v %v", fds, err)
	}
}

// raced reports whether the race detector is part of the program.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" })
}

// memoryNow is what is resident, in KiB.
func memoryNow(t *testing.T) int {
	t.Helper()
	debug.FreeOSMemory()
	return status(t, "self", "VmRSS")
}

// status is a number from a process's status.
func status(t *testing.T, pid, field string) int {
	t.Helper()
	b, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	t.Fatalf("no %s in %s", field, b)
	return 0
}

// Seen from outside: every thread is confined, no core can come of the process, and
// another process of the same user cannot look into it.
func TestSeenFromOutside(t *testing.T) {
	const lookVar = insideVar + "_LOOK"
	if pid := os.Getenv(lookVar); pid != "" { // the other process, without root's rights
		for _, file := range []string{"mem", "environ", "maps", "auxv"} {
			if b, err := os.ReadFile("/proc/" + pid + "/" + file); !refused(err) && len(b) > 0 || err == nil {
				t.Errorf("%s: %d bytes, %v", file, len(b), err)
			}
		}
		n, _ := strconv.Atoi(pid)
		runtime.LockOSThread()
		if err := unix.PtraceAttach(n); !refused(err) {
			t.Errorf("trace: %v", err)
		}
		return
	}
	if state := os.Getenv(insideVar); state != "" {
		confined(t, state)
		fmt.Println("confined")
		io.Copy(io.Discard, os.Stdin)
		return
	}
	if !Available().Whole {
		need.Missing(t, "kernel-with-Landlock-and-seccomp")
	}
	if os.Geteuid() != 0 {
		need.Missing(t, "root, to become another user")
	}
	nobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	state := filepath.Join("/tmp", filepath.Base(t.TempDir())+strconv.Itoa(os.Getpid()))
	exe := filepath.Join(state, "test")
	if err := errors.Join(os.Mkdir(state, 0o755), copyFile(os.Args[0], exe), os.Chown(state, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(state)
	self := func(env string) *exec.Cmd {
		cmd := exec.Command(exe, "-test.run=^TestSeenFromOutside$", "-test.v", "-test.timeout=1m")
		cmd.Env, cmd.Dir, cmd.SysProcAttr = append(os.Environ(), env), state, nobody
		return cmd
	}
	cmd := self(insideVar + "=" + state)
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	said := ""
	b := make([]byte, 1000)
	for !strings.Contains(said, "confined") {
		n, err := out.Read(b)
		if said += string(b[:n]); err != nil {
			t.Fatalf("%v %s", err, said)
		}
	}
	pid := strconv.Itoa(cmd.Process.Pid)
	tasks, err := os.ReadDir("/proc/" + pid + "/task")
	if err != nil || len(tasks) < 8 {
		t.Fatalf("%d threads, %v", len(tasks), err)
	}
	for _, task := range tasks {
		at := pid + "/task/" + task.Name()
		if status(t, at, "Seccomp") != 2 || status(t, at, "NoNewPrivs") != 1 {
			t.Errorf("thread %s is not confined", task.Name())
		}
	}
	limits, _ := os.ReadFile("/proc/" + pid + "/limits")
	if !strings.Contains(string(limits), "Max core file size        0                    0") {
		t.Errorf("%s", limits)
	}
	if st, err := os.Stat("/proc/" + pid + "/mem"); err != nil || st.Sys().(*syscall.Stat_t).Uid != 0 { // as the kernel marks what is not dumpable
		t.Errorf("%v", err)
	}
	if out, err := self(lookVar + "=" + pid).CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS")) {
		t.Errorf("%v %s", err, out)
	}
	// A crash leaves nothing behind.
	in.Close()
	cmd.Process.Signal(syscall.SIGSEGV)
	cmd.Wait()
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.CoreDump() {
		t.Error("a core was dumped")
	}
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

// The filter can be made for every processor we build for, and lists no name that is
// unknown to all of them, which would be a mistake.
func TestFilterForEveryProcessor(t *testing.T) {
	all := []*arch.Info{arch.X86_64, arch.AARCH64, arch.ARM, arch.I386}
	for _, of := range all {
		p := policy(of)
		if n := len(p.Syscalls[0].Names); n < 80 {
			t.Errorf("%s: %d calls", of.Name, n)
		}
		for _, g := range p.Syscalls {
			for _, bad := range []string{"execve", "execveat", "ptrace", "listen", "ioctl", "bpf", "io_uring_setup", "mount", "keyctl", "process_vm_readv", "fork", "vfork", "clone3", "socketpair", "memfd_create", "shmat", "pkey_mprotect"} {
				for _, name := range g.Names {
					if name == bad && bad != "clone3" {
						t.Errorf("%s allows %s", of.Name, bad)
					}
				}
			}
		}
	}
	for _, name := range allowed {
		known := false
		for _, of := range all {
			_, ok := of.SyscallNames[name]
			known = known || ok
		}
		if !known {
			t.Errorf("no processor has %s", name)
		}
	}
}
