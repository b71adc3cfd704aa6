//go:build linux

package real

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// startOnTerminal runs a program that insists on a terminal; its in is the keyboard.
func startOnTerminal(t *testing.T, name string, env []string, argv ...string) *process {
	t.Helper()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	ioctl := func(req uintptr, p unsafe.Pointer) {
		if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, ptmx.Fd(), req, uintptr(p)); e != 0 {
			t.Fatal(e)
		}
	}
	var unlock, n int32
	ioctl(syscall.TIOCSPTLCK, unsafe.Pointer(&unlock))
	ioctl(syscall.TIOCGPTN, unsafe.Pointer(&n))
	size := [4]uint16{45, 140}
	ioctl(syscall.TIOCSWINSZ, unsafe.Pointer(&size))
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(argv[0], argv[1:]...), name: name, done: make(chan struct{}), read: make(chan struct{})}
	p.cond.L = &p.mu
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = tty, tty, tty
	p.cmd.WaitDelay = 2 * time.Second
	p.launch(t, &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL})
	tty.Close()
	p.in = ptmx
	go func() {
		defer p.cond.Broadcast()
		defer close(p.read)
		var b [4096]byte
		for {
			k, err := ptmx.Read(b[:])
			if err != nil {
				return
			}
			p.Write(b[:k])
		}
	}()
	t.Cleanup(func() { ptmx.Close() })
	return p
}
