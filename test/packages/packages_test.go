//go:build linux

// Package packages tries what is handed out where it is meant to be used: the Debian package
// in a bare chroot, the program for Windows under Wine, those for other processors under
// emulation; and that the same commit gives the same bytes.
package packages

import (
	"context"
	"errors"
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

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/test/dns"
	"otrproxy/test/need"
)

const root = "../.."

// dist is what "make dist" has made of this tree, for the systems that are tried.
var dist string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "otrproxy-packages")
	if err != nil {
		panic(err)
	}
	dist = filepath.Join(dir, "dist")
	code := 1
	if err := makeDist(dist); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

func makeDist(out string) error {
	abs, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "run", "-C", filepath.Join(root, "packaging/dist"), ".", "-root", abs, "-out", out, "-version", "0.0.1-test", "-only", "linux-amd64,windows-amd64")
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("dist: %w\n%s", err, b)
	}
	return nil
}

// made is the one file that was made of a pattern.
func made(t *testing.T, pattern string) string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dist, pattern))
	if err != nil || len(list) != 1 {
		t.Fatalf("%s: %v %v", pattern, list, err)
	}
	return list[0]
}

func sh(t *testing.T, env []string, argv ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
	return string(out)
}

// The same commit gives the same bytes, and the checksums are those of what is there.
func TestReproducible(t *testing.T) {
	again := filepath.Join(t.TempDir(), "elsewhere")
	t.Setenv("TMPDIR", t.TempDir())
	if err := makeDist(again); err != nil {
		t.Fatal(err)
	}
	sums := sh(t, nil, "cat", filepath.Join(dist, "SHA256SUMS"))
	if other := sh(t, nil, "cat", filepath.Join(again, "SHA256SUMS")); sums != other {
		t.Errorf("two runs differ:\n%s\n%s", sums, other)
	}
	if strings.Count(sums, "\n") < 6 {
		t.Errorf("too little was made:\n%s", sums)
	}
	t.Logf("packages: two runs give the same bytes:\n%s", sums)
	sh(t, nil, "sh", "-c", `cd "$0" && sha256sum -c --strict --quiet SHA256SUMS`, dist)
}

func TestLintian(t *testing.T) {
	need.Program(t, "lintian")
	out := sh(t, nil, "lintian", "--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0", made(t, "*.deb"))
	t.Logf("packages: lintian says %q", out)
}

func TestRPM(t *testing.T) {
	need.Program(t, "rpm")
	p := made(t, "*.rpm")
	if out := sh(t, nil, "rpm", "-K", "--nosignature", p); !strings.Contains(out, "OK") {
		t.Error(out)
	}
	list := sh(t, nil, "rpm", "-qlp", p)
	for _, name := range []string{"/usr/bin/otrproxy", "/usr/lib/systemd/system/otrproxy.service", "/etc/otrproxy/otrproxy.yaml", "/usr/share/man/man1/otrproxy-run.1.gz"} {
		if !strings.Contains(list, name+"\n") {
			t.Errorf("no %s in\n%s", name, list)
		}
	}
	if out := sh(t, nil, "rpm", "-qcp", p); !strings.Contains(out, "/etc/otrproxy/otrproxy.yaml") {
		t.Error("the configuration is none to rpm")
	}
}

// prng is what Go's programs want of Windows since version 10, and Wine has since 8.9: a
// source of random numbers under another name.
const prng = `#include <windows.h>
BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE b, SIZE_T n) { return SystemFunction036(b, (ULONG)n); }
`

// The program for Windows runs, under Wine.
func TestWine(t *testing.T) {
	need.Program(t, "wine", "x86_64-w64-mingw32-gcc")
	dir := t.TempDir()
	sh(t, nil, "python3", "-m", "zipfile", "-e", made(t, "*-windows-amd64.zip"), dir)
	program, err := filepath.Glob(filepath.Join(dir, "*", "otrproxy.exe"))
	if err != nil || len(program) != 1 {
		t.Fatal(program, err)
	}
	prefix := t.TempDir()
	env := []string{"WINEPREFIX=" + prefix, "WINEDEBUG=-all", "WINEARCH=win64", "WINEDLLOVERRIDES=mscoree,mshtml=", "DISPLAY=", "HOME=" + t.TempDir()}
	t.Cleanup(func() {
		cmd := exec.Command("wineserver", "-k", "-w")
		cmd.Env = append(os.Environ(), env...)
		cmd.Run()
	})
	for try := 1; ; try++ { // Wine has been seen to give up at once on a busy machine
		cmd := exec.Command("wineboot", "-i")
		cmd.Env = append(append(os.Environ(), env...), "WINEDEBUG=err+all")
		out, err := cmd.CombinedOutput()
		if err == nil {
			break
		}
		t.Logf("wineboot, try %d: %v\n%s", try, err, out)
		if try == 3 {
			t.Fatal("Wine cannot make its directory")
		}
	}
	if library := filepath.Join(prefix, "drive_c/windows/system32/bcryptprimitives.dll"); exec.Command("test", "-e", library).Run() != nil {
		source := filepath.Join(dir, "prng.c")
		if err := os.WriteFile(source, []byte(prng), 0o600); err != nil {
			t.Fatal(err)
		}
		sh(t, nil, "x86_64-w64-mingw32-gcc", "-shared", "-o", library, source, "-ladvapi32")
	}
	if out := sh(t, env, "wine", program[0], "version"); !strings.Contains(out, "otrproxy 0.0.1-test") {
		t.Errorf("version: %s", out)
	}
	out := sh(t, env, "wine", program[0], "demo")
	if !strings.Contains(out, "demo: ok") || strings.Count(out, "?OTR:") < 2 {
		t.Errorf("demo: %s", out)
	}
	t.Logf("packages: under Wine: %s", out[max(0, len(out)-200):])
}

// The tests of what has most to do with numbers and bytes pass on other processors.
func TestOtherProcessors(t *testing.T) {
	for arch, by := range map[string][]string{"386": {}, "arm": {"qemu-arm-static"}, "arm64": {"qemu-aarch64-static"}} {
		t.Run(arch, func(t *testing.T) {
			if len(by) > 0 {
				need.Program(t, by[0])
			}
			for pkg, only := range map[string]string{"stanza": "", "config": "", "otrlayer/otr": "TestWire|TestParse|TestFragment|TestKeyFile|TestTwo|TestConversation|TestVector|TestBase64"} {
				program := filepath.Join(t.TempDir(), "test")
				sh(t, []string{"GOARCH=" + arch, "GOARM=7", "CGO_ENABLED=0"}, "go", "test", "-c", "-o", program, "otrproxy/"+pkg)
				cmd := exec.Command(program, "-test.v", "-test.short", "-test.timeout", "3m", "-test.run", only)
				if len(by) > 0 {
					cmd = exec.Command(by[0], append([]string{program}, cmd.Args[1:]...)...)
				}
				cmd.Dir = filepath.Join(root, pkg)
				out, err := cmd.CombinedOutput()
				passed := strings.Count(string(out), "--- PASS")
				if err != nil || passed == 0 {
					t.Errorf("%s: %v\n%s", pkg, err, out[max(0, len(out)-3000):])
				}
				t.Logf("packages: %s on %s: %d tests pass", pkg, arch, passed)
			}
		})
	}
}

// A bare Debian: the package is installed, nothing is edited, a client is pointed at it, and
// two people talk. Removing it keeps the keys; purging it does not.
func TestDebian(t *testing.T) {
	need.Program(t, "mmdebstrap", "chroot", "setpriv")
	begin := time.Now()
	bare := filepath.Join(t.TempDir(), "debian")
	release := regexp.MustCompile(`VERSION_CODENAME=(\w+)`).FindStringSubmatch(sh(t, nil, "cat", "/etc/os-release"))
	sh(t, nil, "mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", "--include=adduser", release[1], bare)
	t.Logf("packages: a bare %s after %s", release[1], time.Since(begin).Round(time.Second))
	inside := func(words ...string) string {
		t.Helper()
		return sh(t, []string{"DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, append([]string{"chroot", bare}, words...)...)
	}
	start := time.Now()
	deb := filepath.Join(bare, "otrproxy.deb")
	sh(t, nil, "cp", made(t, "*.deb"), deb)
	inside("dpkg", "-i", "/otrproxy.deb")
	installed := time.Since(start)
	if st, err := os.Stat(filepath.Join(bare, "var/lib/otrproxy")); err != nil || st.Mode().Perm() != 0o700 || st.Sys().(*syscall.Stat_t).Uid == 0 {
		t.Fatalf("the state directory: %v %v", st, err)
	}

	sh(t, nil, "mount", "-t", "proc", "proc", filepath.Join(bare, "proc"))
	t.Cleanup(func() { syscall.Unmount(filepath.Join(bare, "proc"), syscall.MNT_DETACH) })

	// Where the server of talk.test is, DNS says, as everywhere.
	names, err := dns.NewAt("127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	defer names.Close()
	s, err := server.Start(server.Config{Domain: "talk.test", Users: map[string]string{"alice": "secret", "bob": "secret"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, port, _ := net.SplitHostPort(s.Addr())
	var number uint16
	fmt.Sscan(port, &number)
	names.Host("xmpp.talk.test", "127.0.0.1")
	names.SRV("xmpp-client", "talk.test", "xmpp.talk.test", number, 1, 1)
	if err := os.WriteFile(filepath.Join(bare, "etc/resolv.conf"), []byte("nameserver 127.0.0.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}

	// As systemd starts it: the unit's own command, as its user.
	unit := sh(t, nil, "cat", filepath.Join(bare, "lib/systemd/system/otrproxy.service"))
	command := strings.Fields(regexp.MustCompile(`(?m)^ExecStart=(.*)$`).FindStringSubmatch(unit)[1])
	daemon := exec.Command("chroot", append([]string{"--userspec=otrproxy:otrproxy", bare}, command...)...)
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	daemon.Stderr = said
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	stop := func() {
		daemon.Process.Signal(syscall.SIGTERM)
		daemon.Wait()
	}
	defer stop()
	defer func() {
		if t.Failed() {
			b, _ := os.ReadFile(said.Name())
			t.Logf("otrproxy said:\n%s", b)
		}
	}()
	dial := func(who string) (*client.Client, error) {
		return client.Dial(t.Context(), client.Config{Addr: "127.0.0.1:5222", JID: who + "@talk.test", Password: "secret", Entry: client.Plain})
	}
	var refusal *client.StreamError
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(client.Patience); ; <-tick.C {
		if _, err = dial("alice"); errors.As(err, &refusal) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no refusal of a certificate nobody has seen: %v", err)
		}
	}
	say := regexp.MustCompile(`otrproxy (pin add \S+ sha256:[0-9A-F:]+)`).FindStringSubmatch(refusal.Text)
	if say == nil {
		t.Fatalf("no command in %q", refusal.Text)
	}
	inside(append([]string{"otrproxy"}, strings.Fields(say[1])...)...)
	alice, err := dial("alice")
	if err != nil {
		t.Fatal(err)
	}
	defer alice.Drop()
	bob, err := dial("bob")
	if err != nil {
		t.Fatal(err)
	}
	defer bob.Drop()
	alice.Say("bob@talk.test", "1", "hello from a fresh machine")
	if got, err := bob.Text("alice@talk.test"); err != nil || got != "hello from a fresh machine" {
		t.Fatalf("%q %v", got, err)
	}
	if strings.Contains(string(s.Received()), "fresh machine") {
		t.Error("the server saw it")
	}
	t.Logf("packages: installed in %s; two people talk %s after the installation began", installed.Round(10*time.Millisecond), time.Since(start).Round(10*time.Millisecond))
	if out := inside("otrproxy", "status"); !strings.Contains(out, "alice@talk.test") {
		t.Errorf("status: %s", out)
	}
	alice.Close()
	bob.Close()
	stop()

	inside("dpkg", "-i", "/otrproxy.deb") // an upgrade keeps everything
	key := filepath.Join(bare, "var/lib/otrproxy/accounts/alice@talk.test/otr.private_key")
	before := sh(t, nil, "sha256sum", key)
	inside("dpkg", "-r", "otrproxy")
	if sh(t, nil, "sha256sum", key) != before {
		t.Error("removing the package has changed a key")
	}
	if _, err := os.Stat(filepath.Join(bare, "usr/bin/otrproxy")); err == nil {
		t.Error("the program is still there")
	}
	inside("dpkg", "-P", "otrproxy")
	for _, name := range []string{"var/lib/otrproxy", "etc/otrproxy/otrproxy.yaml"} {
		if _, err := os.Stat(filepath.Join(bare, name)); err == nil {
			t.Errorf("%s is there after the package was purged", name)
		}
	}
}
