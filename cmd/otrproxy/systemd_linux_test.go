package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"otrproxy/proxy/control"
)

// A testManager plays the service manager.
type testManager struct {
	t    *testing.T
	conn *net.UnixConn
	said []string // and not yet waited for
}

func newManager(t *testing.T, socket string) *testManager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if !strings.HasPrefix(socket, "@") {
		os.Chmod(socket, 0o666)
	}
	return &testManager{t: t, conn: conn}
}

// hears waits for a message.
func (m *testManager) hears(pattern string) {
	m.t.Helper()
	re := regexp.MustCompile("(?m)^" + pattern + "$")
	m.conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	for {
		for i, said := range m.said {
			if re.MatchString(said) {
				m.said = m.said[i+1:]
				return
			}
		}
		b := make([]byte, 4096)
		n, err := m.conn.Read(b)
		if err != nil {
			m.t.Fatalf("never heard %s: %v", pattern, err)
		}
		m.said = append(m.said, string(b[:n]))
	}
}

// start starts the daemon as a manager does: as its user, with addresses that are open.
func (m *testManager) start(h *home, socket string, listeners ...net.Listener) *daemon {
	m.t.Helper()
	d := &daemon{cmd: exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" run --config "$1"`, h.self, h.conf), new: make(chan struct{}, 1)}
	d.cmd.Env = append(os.Environ(), "OTRPROXY_TEST_MAIN=1", "HOME=/nonexistent", "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=300000", fmt.Sprint("LISTEN_FDS=", len(listeners)))
	for _, l := range listeners {
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			m.t.Fatal(err)
		}
		defer f.Close()
		d.cmd.ExtraFiles = append(d.cmd.ExtraFiles, f)
	}
	d.cmd.Stderr, d.cmd.Dir, d.cmd.SysProcAttr = d, "/", h.attr
	if err := d.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { d.cmd.Process.Kill(); d.cmd.Wait() })
	return d
}

// Under a service manager: the addresses that it has opened are used, it hears when things
// are ready, read again and stopping, and that all is well as long as it is, whichever
// kind of socket it listens on; and all of that out of a confined process.
func TestServiceManager(t *testing.T) {
	for _, kind := range []string{"file", "abstract"} {
		t.Run(kind, func(t *testing.T) {
			h := newHome(t)
			socket := filepath.Join(h.dir, "notify")
			if kind == "abstract" {
				socket = "@" + socket
			}
			m := newManager(t, socket)
			open := func() net.Listener {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				return l
			}
			listen, stray, own := open(), open(), freeAddress(t)
			h.configure(fmt.Sprintf("listen: [%q, %q]\n", listen.Addr(), own))
			d := m.start(h, socket, listen, stray)
			listen.Close()
			stray.Close()
			m.hears("READY=1")
			m.hears("STATUS=0 connected")
			d.says(t, `has opened an address that the configuration does not listen on.*address=`+regexp.QuoteMeta(stray.Addr().String()))
			if c, err := net.Dial("tcp", stray.Addr().String()); err == nil {
				c.Close()
				t.Error("the stray address is open")
			}
			for _, addr := range []string{listen.Addr().String(), own} {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprint(c, "<?xml version='1.0'?><stream:stream to='example.org' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>")
				if n, err := c.Read(make([]byte, 100)); n == 0 {
					t.Errorf("%s: %v", addr, err)
				}
				c.Close()
			}
			m.hears("WATCHDOG=1")
			m.hears("WATCHDOG=1")
			d.cmd.Process.Signal(syscall.SIGHUP)
			m.hears("RELOADING=1\nMONOTONIC_USEC=[0-9]+")
			m.hears("READY=1")
			d.cmd.Process.Signal(syscall.SIGTERM)
			m.hears("STOPPING=1\nSTATUS=.*")
			if err := d.cmd.Wait(); err != nil {
				t.Errorf("%v\n%s", err, d.log.String())
			}
			if !strings.Contains(d.log.String(), "seccomp") || strings.Contains(d.log.String(), "could not be told") {
				t.Errorf("%s", d.log.String())
			}
		})
	}
}

// What is looked at before the manager hears that all is well: that clients are let in on
// every address, and that the commands answer.
func TestAlive(t *testing.T) {
	answers := control.Table{{Name: "status", Run: func(context.Context, control.Call) (control.Reply, error) { return control.Reply{}, nil }}}
	hangs := control.Table{{Name: "status", Run: func(ctx context.Context, _ control.Call) (control.Reply, error) {
		<-t.Context().Done() // longer than anybody waits
		return control.Reply{}, nil
	}}}
	served, deaf := tcp(t), tcp(t)
	go func() {
		for {
			c, err := served.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 1))
			c.Close()
		}
	}()
	for _, c := range []struct {
		what  string
		addrs []net.Addr
		table control.Table
		want  string
	}{
		{"all is well", []net.Addr{served.Addr()}, answers, ""},
		{"nobody accepts", []net.Addr{served.Addr(), deaf.Addr()}, answers, "nobody is let in on " + deaf.Addr().String()},
		{"a lock is held for ever", []net.Addr{served.Addr()}, hangs, "the commands do not answer"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		err := alive(ctx, c.addrs, c.table)
		cancel()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

func tcp(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// The ways in which one address is written.
func TestSameAddress(t *testing.T) {
	for _, c := range []struct {
		have string
		want string
		same bool
	}{
		{"127.0.0.1:5222", "127.0.0.1:5222", true}, {"127.0.0.1:5222", "localhost:5222", true}, {"[::]:5222", "0.0.0.0:5222", true}, {"[::]:5222", ":5222", true},
		{"[::1]:5222", "[::1]:5222", true}, {"127.0.0.1:5222", "127.0.0.1:5223", false}, {"127.0.0.1:5222", "127.0.0.2:5222", false}, {"[::]:5222", "127.0.0.1:5222", false}, {"127.0.0.1:5222", ":5222", false},
	} {
		have, err := net.ResolveTCPAddr("tcp", c.have)
		if err != nil {
			t.Fatal(err)
		}
		if got := sameAddress(have, c.want); got != c.same {
			t.Errorf("%s and %s: %v", c.have, c.want, got)
		}
	}
}
