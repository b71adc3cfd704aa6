package confine

import (
	"errors"
	"os"
	"slices"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// The system calls that a Go program needs that is up, serves and keeps files. Whatever
// is not listed fails as if the process had no right to it: to execute, trace, mount,
// load or map code, to open a listener or any socket but one of IP, and all that the
// kernel may come to offer. Names that a processor does not have are left out for it.
var allowed = []string{
	// files
	"read", "write", "readv", "writev", "pread64", "pwrite64", "close", "close_range", "lseek", "_llseek",
	"open", "openat", "openat2", "fstat", "fstat64", "stat", "stat64", "lstat", "lstat64", "newfstatat", "fstatat64", "statx",
	"statfs", "statfs64", "fstatfs", "fstatfs64", "access", "faccessat", "faccessat2", "getdents", "getdents64", "readlink", "readlinkat", "getcwd",
	"rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "chmod", "fchmod", "fchmodat", "umask",
	"truncate", "truncate64", "ftruncate", "ftruncate64", "fsync", "fdatasync", "fcntl", "fcntl64", "flock", "dup", "dup2", "dup3", "fadvise64", "fadvise64_64", "arm_fadvise64_64",
	"utimensat", "utimensat_time64", "copy_file_range", "sendfile", "sendfile64", "splice", "pipe", "pipe2",
	// memory
	"munmap", "mremap", "madvise", "brk", "mincore",
	// threads, time and signals
	"exit", "exit_group", "futex", "futex_time64", "set_robust_list", "get_robust_list", "rseq", "set_tid_address", "set_thread_area", "arch_prctl", "membarrier", "set_tls", "cacheflush", "breakpoint",
	"sched_yield", "sched_getaffinity", "gettid", "getpid", "getppid", "getuid", "geteuid", "getgid", "getegid", "getuid32", "geteuid32", "getgid32", "getegid32",
	"nanosleep", "clock_nanosleep", "clock_nanosleep_time64", "clock_gettime", "clock_gettime64", "clock_getres", "clock_getres_time64", "gettimeofday", "time",
	"wait4", "waitid", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigreturn", "sigaltstack", "restart_syscall", "getrandom", "getrlimit", "ugetrlimit", "uname", "sysinfo", "getrusage",
	// waiting
	"epoll_create", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "eventfd2", "poll", "ppoll", "ppoll_time64", "select", "_newselect", "pselect6", "pselect6_time64",
	// connections; socket itself is below
	"connect", "bind", "accept", "accept4", "getsockname", "getpeername", "setsockopt", "getsockopt", "send", "recv", "sendto", "recvfrom", "sendmsg", "recvmsg", "sendmmsg", "recvmmsg", "recvmmsg_time64", "shutdown",
}

// Calls of socketcall, by which some 32-bit processors reach sockets. There a filter
// cannot see which kind of socket is made.
var socketCalls = []uint64{1, 2, 3, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20} // not listen, socketpair

// prSetVMA names memory, which the Go runtime does.
const prSetVMA = 0x53564d41

// conditional are the calls that depend on what is asked for.
func conditional() (out []seccomp.NameWithConditions) {
	add := func(name string, conditions ...seccomp.Condition) {
		out = append(out, seccomp.NameWithConditions{Name: name, Conditions: conditions})
	}
	is := func(arg uint32, v uint64) seccomp.Condition {
		return seccomp.Condition{Argument: arg, Operation: seccomp.Equal, Value: v}
	}
	without := func(arg uint32, bits uint64) seccomp.Condition {
		return seccomp.Condition{Argument: arg, Operation: seccomp.BitsNotSet, Value: bits}
	}
	for _, name := range []string{"mmap", "mmap2", "mprotect"} { // memory is never code
		add(name, without(2, unix.PROT_EXEC))
	}
	for _, family := range []uint64{unix.AF_INET, unix.AF_INET6} { // of type 1, stream, or 2, datagram; 3 is raw
		add("socket", is(0, family), without(1, 0xe))
		add("socket", is(0, family), without(1, 0xd))
	}
	for _, call := range socketCalls {
		add("socketcall", is(0, call))
	}
	add("clone", seccomp.Condition{Argument: 0, Operation: seccomp.BitsSet, Value: unix.CLONE_THREAD}) // no new process
	add("prctl", is(0, prSetVMA))
	add("prlimit64", is(0, 0), is(2, 0)) // to look
	own := uint64(os.Getpid())           // signals to itself, by which goroutines are interrupted
	add("kill", is(0, own))
	add("tgkill", is(0, own))
	return out
}

// policy is the filter for the processor that this runs on.
func policy(of *arch.Info) seccomp.Policy {
	there := func(name string) bool { _, ok := of.SyscallNames[name]; return ok }
	names := slices.DeleteFunc(slices.Clone(allowed), func(name string) bool { return !there(name) })
	cases := slices.DeleteFunc(conditional(), func(c seccomp.NameWithConditions) bool { return !there(c.Name) })
	groups := []seccomp.SyscallGroup{{Names: names, NamesWithCondtions: cases, Action: seccomp.ActionAllow}}
	if there("clone3") { // "not known here", so that C libraries fall back to clone, which can be looked into
		groups = append(groups, seccomp.SyscallGroup{Names: []string{"clone3"}, Action: seccomp.Action(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS))})
	}
	return seccomp.Policy{DefaultAction: seccomp.ActionErrno, Syscalls: groups}
}

func seccompHere() bool {
	of, err := arch.GetInfo("")
	return err == nil && len(of.SyscallNames) > 0 && seccomp.Supported()
}

// seccomp confines the system calls, of all threads.
func (r *Report) seccomp() bool {
	const what = "system calls"
	if !seccompHere() {
		r.lacks(what, errNoSeccomp)
		return false
	}
	of, _ := arch.GetInfo("")
	err := onOneThread(func() error {
		if err := seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: policy(of)}); err != nil {
			return err
		}
		// Where not all threads can be confined, none is, and that is no error to the library.
		if _, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err == nil {
			return errors.New("the filter does not hold")
		}
		return nil
	})
	if err != nil {
		r.lacks(what, err)
		return false
	}
	r.has("system calls (seccomp)")
	return true
}
