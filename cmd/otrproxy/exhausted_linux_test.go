package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/stanza"
	"otrproxy/test/need"
)

// stateFiles are what is in the state directory: names and contents.
func (h *home) stateFiles() map[string]string {
	h.t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(h.state, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == "filler" {
			return err
		}
		b, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, h.state+"/")] = string(b)
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return files
}

// refuses runs a word that cannot be done, and returns what it says.
func (h *home) refuses(args ...string) string {
	h.t.Helper()
	out, stderr, code := call(h.t, append(args, "--config", h.conf)...)
	if code != 1 || strings.Count(stderr, "\n") != 1 {
		h.t.Errorf("%q: exit %d, %s%s", args, code, out, stderr)
	}
	return stderr
}

// talk says something both ways.
func talk(t *testing.T, alice, bob *client.Client, text string) {
	t.Helper()
	for _, c := range []struct {
		from, to *client.Client
		whom, by string
	}{{alice, bob, "bob@example.org", "alice@example.org"}, {bob, alice, "alice@example.org", "bob@example.org"}} {
		c.from.Say(c.whom, text, text)
		if got, err := c.to.Text(c.by); err != nil || got != text {
			t.Fatalf("%q %v", got, err)
		}
	}
}

// household starts a server and a daemon for alice, bob and carol, of whom the first two
// are in a private conversation.
func household(t *testing.T, h *home) (d *daemon, s *server.Server, addr string, alice, bob *client.Client) {
	t.Helper()
	s, err := server.Start(server.Config{Domain: "example.org", Users: map[string]string{"alice": "alice", "bob": "bob", "carol": "carol"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	h.configure(fmt.Sprintf("listen: [\"127.0.0.1:0\"]\ndomains:\n  example.org: {connect: %q, trust: pin, pins: [%q]}\n", s.Addr(), s.Pin()))
	d = h.run()
	addr = d.says(t, `msg=listening address=([0-9.:]+)`)[1]
	d.says(t, "msg=ready")
	h.keysFor("alice", "bob")
	alice, bob = mustDial(t, addr, "alice"), mustDial(t, addr, "bob")
	talk(t, alice, bob, "before")
	h.settles("alice@example.org", "bob@example.org")
	return d, s, addr, alice, bob
}

// settles waits until all is written that a first private conversation has written.
func (h *home) settles(accounts ...string) {
	h.t.Helper()
	var missing []string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); runtime.Gosched() {
		missing = nil
		for _, account := range accounts {
			dir := filepath.Join(h.state, "accounts", account)
			for _, name := range []string{"otr.private_key", "otr.fingerprints", "otr.versions", "private", "login.verifier", "service"} {
				if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
					missing = append(missing, err.Error())
				}
			}
			written, _ := filepath.Glob(filepath.Join(dir, ".tmp-*"))
			missing = append(missing, written...)
		}
		if missing == nil {
			return
		}
	}
	h.t.Fatal(missing)
}

// The disk with the state directory is full: who talks goes on to talk, no file loses
// anything, and whatever could not be kept says so, to who asked for it and in the log.
// With room again everything goes on.
func TestDiskFull(t *testing.T) {
	const apartVar = "OTRPROXY_TEST_DISK"
	if os.Getenv(apartVar) == "" {
		if os.Geteuid() != 0 {
			need.Missing(t, "root, to mount a small disk")
		}
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=2m")
		cmd.Env = append(os.Environ(), apartVar+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	h := newHome(t)
	if err := errors.Join(syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""), syscall.Mount("state", h.state, "tmpfs", 0, "size=1m,mode=0700,uid=65534,gid=65534")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(h.state, syscall.MNT_DETACH) })
	d, _, addr, alice, bob := household(t, h)
	bobsKey := need.Key(t, "bob").Fingerprint().Hex()
	filler := filepath.Join(h.state, "filler")
	fill := func() {
		f, err := os.Create(filler)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for err == nil {
			_, err = f.Write(make([]byte, 512))
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
	h.word("contact", "verify", "alice@example.org", "bob@example.org", bobsKey)
	before := h.stateFiles()
	fill()
	unchanged := func() {
		t.Helper()
		after := h.stateFiles()
		for name, text := range before {
			if after[name] != text {
				t.Errorf("%s was changed: %q", name, after[name])
			}
		}
		for name := range after {
			if _, was := before[name]; !was {
				t.Errorf("%s was left behind", name)
			}
		}
	}
	talk(t, alice, bob, "full")
	const full = "no space left on device"
	pin := "sha256:" + strings.Repeat("AB:", 31) + "AB"
	for _, words := range [][]string{
		{"pin", "add", "example.org", pin},
		{"contact", "distrust", "alice@example.org", "bob@example.org"}, // its file is written anew
		{"key", "generate", "alice@example.org", "--replace"},
		{"key", "generate", "carol@example.org"},
	} {
		if said := h.refuses(words...); !strings.Contains(said, full) {
			t.Errorf("%q: %s", words, said)
		}
	}
	if out := h.word("pin", "list"); strings.Contains(out, pin) {
		t.Errorf("in force, but not kept: %s", out)
	}
	carol, err := dialAs(t, addr, "carol") // who has no files yet
	if err == nil {
		err = carol.Err()
	}
	if err == nil || !strings.Contains(err.Error(), "internal-server-error") || !strings.Contains(err.Error(), full) {
		t.Errorf("carol: %v", err)
	}
	alice.Close()
	alice = mustDial(t, addr, "alice") // who has
	talk(t, alice, bob, "again")
	unchanged()
	d.says(t, `level=ERROR msg="an account's files cannot be used".*`+full)

	os.Remove(filler)
	h.word("pin", "add", "example.org", pin)
	h.word("contact", "verify", "alice@example.org", "bob@example.org", bobsKey)
	talk(t, alice, bob, "after")
	alice.Close()
	bob.Close()
	d.cmd.Process.Signal(syscall.SIGTERM)
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("%v", err)
	}
}

// No file descriptors are left: who talks goes on, no file loses anything, it is said, and
// once there are some again, others are let in.
func TestDescriptorsExhausted(t *testing.T) {
	h := newHome(t)
	h.limit = "ulimit -S -n 40; ulimit -H -n 60; "
	d, _, addr, alice, bob := household(t, h)
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", d.cmd.Process.Pid))
	if err != nil || !regexp.MustCompile(`Max open files +(59|60) +60 `).Match(limits) {
		t.Errorf("not as many descriptors as it may have: %v %s", err, limits)
	}
	before := h.stateFiles()
	var crowd []net.Conn
	for range 80 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		crowd = append(crowd, c)
	}
	d.says(t, "a client was refused.*cause=files")
	talk(t, alice, bob, "none left")
	alice.Say("bob@example.org", "", "!otr verify "+need.Key(t, "bob").Fingerprint().Hex())
	st, err := alice.Wait(func(st *stanza.Stanza) bool {
		return client.Notice(st) && (strings.Contains(client.Body(st), "too many open files") || strings.Contains(client.Body(st), "verified") && !strings.Contains(client.Body(st), "not verified"))
	})
	if err != nil {
		t.Fatal(err)
	}
	// One is free for the moment in which somebody is turned away: then it is saved, and whole.
	saved := !strings.Contains(client.Body(st), "too many open files")
	after := h.stateFiles()
	for name, text := range before {
		whole := saved && filepath.Base(name) == "otr.fingerprints" && after[name] == text+strings.TrimSuffix(text, "\n")+"verified\n"
		if after[name] != text && !whole {
			t.Errorf("%s was changed: %q, before %q", name, after[name], text)
		}
	}
	for _, c := range crowd { // each is gone once the daemon has closed its end as well
		c.(*net.TCPConn).CloseWrite()
	}
	for _, c := range crowd {
		c.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
	second, err := dialOn(t, addr, "bob", "second")
	if err != nil {
		t.Fatal(err)
	}
	talk(t, alice, second, "some again")
}
