package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"

	"otrproxy/confine"
	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/test/dns"
	"otrproxy/test/need"
)

// unable makes the kernel look like one without Landlock and seccomp.
func unable() {
	policy := seccomp.Policy{DefaultAction: seccomp.ActionAllow, Syscalls: []seccomp.SyscallGroup{
		{Names: []string{"seccomp", "landlock_create_ruleset"}, Action: seccomp.Action(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS))}}}
	if err := seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: policy}); err != nil {
		panic(err)
	}
}

func init() {
	if os.Getenv("OTRPROXY_TEST_UNABLE") != "" {
		unable()
	}
}

// A home is a place for a daemon that runs as a user of its own, as the service does:
// nobody's, where the test is root's.
type home struct {
	t                      *testing.T
	dir, conf, state, self string
	attr                   *syscall.SysProcAttr
	limit                  string // what a shell does before the daemon starts
}

func newHome(t *testing.T) *home {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "otrproxy-home")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &home{t: t, dir: dir, conf: filepath.Join(dir, "etc", "otrproxy.yaml"), state: filepath.Join(dir, "state"), self: filepath.Join(dir, "otrproxy"), attr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}}
	b, err := os.ReadFile(os.Args[0])
	if err := errors.Join(err, os.Chmod(dir, 0o755), os.Mkdir(filepath.Dir(h.conf), 0o755), os.Mkdir(h.state, 0o700), os.WriteFile(h.self, b, 0o755)); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		h.attr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
		if err := os.Chown(h.state, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// configure puts a new configuration file in the place of the old one, as editors do.
func (h *home) configure(text string) {
	h.t.Helper()
	fresh := h.conf + ".new"
	if err := errors.Join(os.WriteFile(fresh, fmt.Appendf(nil, "state: %q\n%s", h.state, text), 0o644), os.Rename(fresh, h.conf)); err != nil {
		h.t.Fatal(err)
	}
}

// run starts the daemon.
func (h *home) run(env ...string) *daemon {
	h.t.Helper()
	d := &daemon{cmd: exec.Command("/bin/sh", "-c", h.limit+`exec "$0" run --config "$1"`, h.self, h.conf), new: make(chan struct{}, 1)}
	d.cmd.Env = append(append(os.Environ(), "OTRPROXY_TEST_MAIN=1", "HOME=/nonexistent"), env...)
	d.cmd.Stderr, d.cmd.Dir, d.cmd.SysProcAttr = d, "/", h.attr
	if err := d.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { d.cmd.Process.Kill(); d.cmd.Wait() })
	return d
}

func (h *home) word(args ...string) string {
	h.t.Helper()
	out, stderr, code := call(h.t, append(args, "--config", h.conf)...)
	if code != 0 {
		h.t.Fatalf("%q: exit %d: %s%s", args, code, out, stderr)
	}
	return out
}

// freeAddress is one that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// keysFor imports the test keys of people, from a directory that the daemon cannot read.
func (h *home) keysFor(people ...string) {
	h.t.Helper()
	profile := h.t.TempDir()
	os.Chmod(profile, 0o700)
	for _, who := range people {
		os.WriteFile(filepath.Join(profile, who+".key"), need.KeyFile(h.t, who, who+"@example.org", "jabber"), 0o600)
	}
	if out := h.word("key", "import", profile); strings.Count(out, "key taken over") != len(people) {
		h.t.Fatalf("%s", out)
	}
}

func dialAs(t *testing.T, addr, who string) (*client.Client, error) {
	t.Helper()
	return dialOn(t, addr, who, "c")
}

// dialOn logs in with a resource: two clients with the same one are the same client to a
// server, which gives the second what it does not know the first to have.
func dialOn(t *testing.T, addr, who, resource string) (*client.Client, error) {
	t.Helper()
	c, err := client.Dial(t.Context(), client.Config{Addr: addr, JID: who + "@example.org", Password: who, Resource: resource, Entry: client.STARTTLS})
	if err == nil {
		t.Cleanup(c.Drop)
	}
	return c, err
}

func mustDial(t *testing.T, addr, who string) *client.Client {
	t.Helper()
	c, err := dialAs(t, addr, who)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// field is one of /proc/PID/status.
func field(t *testing.T, pid int, name string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\n"+name+":")
	value, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(value)
}

// children are the processes that a process has started.
func children(pid int) (out []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		b, _ := os.ReadFile(task)
		for _, f := range strings.Fields(string(b)) {
			n, _ := strconv.Atoi(f)
			out = append(out, n)
		}
	}
	return out
}

// A confined proxy is a whole proxy: people talk, keys are moved by somebody whose files
// it cannot read, things are told, changed by a file that replaces another, and measured.
func TestConfinedSession(t *testing.T) {
	if !confine.Available().Whole {
		need.Missing(t, "kernel-with-Landlock-and-seccomp")
	}
	s, err := server.Start(server.Config{Domain: "example.org", Users: map[string]string{"alice": "alice", "bob": "bob"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	h := newHome(t)
	_, port, _ := net.SplitHostPort(s.Addr())
	listen, metrics, web := freeAddress(t), freeAddress(t), freeAddress(t)
	told := t.TempDir() // outside all that the daemon may write to
	os.Chmod(told, 0o777)
	os.Chmod(filepath.Dir(told), 0o755)
	conf := fmt.Sprintf("listen: [%q]\nmetrics: %q\nweb: %q\nconfine: require\ndomains:\n  example.org: {connect: \"localhost:%s\"}\n", listen, metrics, web, port)
	notify := func(file string) string {
		return fmt.Sprintf("notify: {command: [sh, -c, 'echo \"$OTRPROXY_EVENT\" >>%s'], events: [server-refused, private, held, ended]}\n", filepath.Join(told, file))
	}
	h.configure(conf + notify("first"))
	d := h.run()
	d.says(t, `msg=confined mode=require "in force"="no core dumps[^"]*Landlock[^"]*seccomp`)
	d.says(t, "msg=ready")
	pid := d.cmd.Process.Pid
	if field(t, pid, "Seccomp") != "2" || field(t, pid, "NoNewPrivs") != "1" {
		t.Error("the daemon is not confined")
	}
	helpers := children(pid)
	if len(helpers) != 1 || field(t, helpers[0], "Seccomp") != "0" {
		t.Fatalf("it has started %v", helpers)
	}

	h.keysFor("alice", "bob")
	if _, err := dialAs(t, listen, "alice"); err == nil {
		t.Fatal("a server nobody knows was accepted")
	}
	fileSays(t, filepath.Join(told, "first"), "server-refused")
	h.word("pin", "add", "example.org", s.Pin())
	alice, bob := mustDial(t, listen, "alice"), mustDial(t, listen, "bob")
	alice.Say("bob@example.org", "1", "hello from a cage")
	if got, err := bob.Text("alice@example.org"); err != nil || got != "hello from a cage" {
		t.Fatalf("%q %v", got, err)
	}
	if strings.Contains(string(s.Received()), "cage") {
		t.Error("the server could read it")
	}
	var st struct {
		Sessions    []any
		Confinement struct {
			Mode    string
			InForce []string `json:"in_force"`
		}
	}
	if err := json.Unmarshal([]byte(h.word("status", "--json")), &st); err != nil || len(st.Sessions) != 2 || st.Confinement.Mode != "require" || len(st.Confinement.InForce) < 4 {
		t.Errorf("%v %+v", err, st)
	}
	if out := h.word("status"); !strings.Contains(out, "\nConfined (require): no core dumps, no debugger") {
		t.Error(out)
	}
	out := filepath.Join(t.TempDir(), "out")
	h.word("key", "export", "alice@example.org", out)
	if names, _ := os.ReadDir(out); len(names) != 3 {
		t.Errorf("exported %v", names)
	}

	// A new file in the place of the old one, with another command.
	h.configure(conf + notify("second"))
	d.cmd.Process.Signal(syscall.SIGHUP)
	d.says(t, "msg=\"configuration re-read\"")
	alice.Say("bob@example.org", "", "!otr end")
	fileSays(t, filepath.Join(told, "second"), "ended")

	// Figures, its own among them, and the page.
	body := fetch(t, &http.Client{}, "http://"+metrics+"/metrics")
	for _, want := range []string{"otrproxy_sessions 2", "process_open_fds", "process_resident_memory_bytes", "process_start_time_seconds"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s", want)
		}
	}
	jar, _ := cookiejar.New(nil)
	link, _, _ := strings.Cut(h.word("web"), "\n")
	browser := &http.Client{Jar: jar}
	room := regexp.MustCompile(`href="(/[a-z0-9]{20,}/)"`).FindStringSubmatch(fetch(t, browser, link))[1]
	if body := fetch(t, browser, "http://"+web+room); !strings.Contains(body, "alice@example.org") {
		t.Errorf("%s", body)
	}
	alice.Close()
	bob.Close()

	d.cmd.Process.Signal(syscall.SIGTERM)
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, d.log.String())
	}
	for _, pid := range helpers {
		if syscall.Kill(pid, 0) == nil {
			t.Errorf("process %d was left behind", pid)
		}
	}
	if _, err := os.Stat(filepath.Join(h.state, "control.sock")); err == nil {
		t.Error("the control socket was left behind")
	}
	if strings.Contains(d.log.String(), "as root") != (h.attr.Credential == nil && os.Geteuid() == 0) {
		t.Errorf("%s", d.log.String())
	}
	if strings.Contains(d.log.String(), "operation not permitted") || strings.Contains(d.log.String(), "permission denied") {
		t.Errorf("something is missing:\n%s", d.log.String())
	}
}

func fetch(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v %v", url, res.Status, err)
	}
	return string(b)
}

// fileSays waits until a file has a text in it.
func fileSays(t *testing.T, file, text string) {
	t.Helper()
	timeout := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		b, err := os.ReadFile(file)
		if strings.Contains(string(b), text) {
			return
		}
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("no %q in %s: %s %v", text, file, b, err)
		}
	}
}

// What the process cannot do is asked for in vain, and what it need not do is not done.
func TestConfineModes(t *testing.T) {
	h := newHome(t)
	h.configure("listen: [\"127.0.0.1:0\"]\nconfine: off\n")
	d := h.run()
	d.says(t, `msg=confined mode=off "in force"="no core dumps" "not in force"=""`)
	d.says(t, "msg=ready")
	pid := d.cmd.Process.Pid
	if field(t, pid, "Seccomp") != "0" || len(children(pid)) != 0 {
		t.Errorf("confined, or with %v", children(pid))
	}
	if out := h.word("check"); !strings.Contains(out, "confine  off; here: ") {
		t.Error(out)
	}
	d.cmd.Process.Signal(syscall.SIGTERM)
	d.cmd.Wait()

	// A kernel without seccomp filters, as a filter makes it look like.
	h.configure("listen: [\"127.0.0.1:0\"]\nconfine: require\n")
	d = h.run("OTRPROXY_TEST_UNABLE=1")
	if err := d.cmd.Wait(); err == nil || !strings.Contains(d.log.String(), "cannot confine the process as \"confine: require\" asks for: ") {
		t.Errorf("%v %s", err, d.log.String())
	}
	h.configure("listen: [\"127.0.0.1:0\"]\n")
	d = h.run("OTRPROXY_TEST_UNABLE=1")
	d.says(t, `msg=confined mode=auto .*"not in force"="[^"]*system calls`)
	d.says(t, "msg=ready")
}

// The proxy's own resolver goes on to work when a laptop changes networks, which puts
// another /etc/resolv.conf in the place of the one that the rules were made for.
func TestConfinedResolver(t *testing.T) {
	const insideVar = "OTRPROXY_TEST_APART"
	if os.Getenv(insideVar) == "" {
		if os.Geteuid() != 0 || !confine.Available().Whole {
			need.Missing(t, "root-and-a-kernel-with-Landlock-and-seccomp")
		}
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=2m")
		cmd.Env = append(os.Environ(), insideVar+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	need.Program(t, "ip")
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	etc := ownEtc(t)
	h := newHome(t)
	s, err := server.Start(server.Config{Domain: "example.org", Users: map[string]string{"alice": "alice"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, port, _ := net.SplitHostPort(s.Addr())
	number, _ := strconv.Atoi(port)
	first, second := nameServer(t, "127.0.0.2"), nameServer(t, "127.0.0.3")
	second.SRV("xmpp-client", "example.org", "xmpp.example.org", uint16(number), 0, 0)
	second.Host("xmpp.example.org", "127.0.0.1")
	resolv := func(ns string) {
		fresh := filepath.Join(etc, "resolv.conf.new")
		if err := errors.Join(os.WriteFile(fresh, []byte("nameserver "+ns+"\noptions timeout:1 attempts:1\n"), 0o644), os.Rename(fresh, filepath.Join(etc, "resolv.conf"))); err != nil {
			t.Fatal(err)
		}
	}
	resolv("127.0.0.2")
	h.configure("listen: [\"127.0.0.1:0\"]\n")
	d := h.run()
	addr := d.says(t, `msg=listening address=([0-9.:]+)`)[1]
	d.says(t, "msg=ready")
	if _, err := dialAs(t, addr, "alice"); err == nil || len(first.Asked()) == 0 {
		t.Fatalf("%v; asked %v", err, first.Asked())
	}
	resolv("127.0.0.3")
	timeout := time.After(30 * time.Second)
	tick := time.NewTicker(100 * time.Millisecond) // Go looks at the file every five seconds
	defer tick.Stop()
	for {
		_, err := dialAs(t, addr, "alice")
		if err != nil && strings.Contains(err.Error(), "otrproxy pin add example.org") { // the server was reached
			break
		}
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("the server that the new name server knows was never reached: %v\n%s", err, d.log.String())
		}
	}
}

// ownEtc gives this mount name space an /etc of its own, with what the programs need.
func ownEtc(t *testing.T) string {
	t.Helper()
	fresh := t.TempDir()
	files := map[string]string{"hosts": "127.0.0.1 localhost\n", "nsswitch.conf": "hosts: files dns\n", "passwd": "", "resolv.conf": ""}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(fresh, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	os.Chmod(fresh, 0o755)
	if err := errors.Join(syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""), syscall.Mount(fresh, "/etc", "", syscall.MS_BIND, "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount("/etc", syscall.MNT_DETACH) })
	return "/etc"
}

// nameServer answers at port 53 of an address.
func nameServer(t *testing.T, ip string) *dns.Server {
	t.Helper()
	s, err := dns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	front, err := net.ListenPacket("udp", net.JoinHostPort(ip, "53"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { front.Close() })
	go func() { // one question at a time
		b := make([]byte, 1500)
		for {
			n, from, err := front.ReadFrom(b)
			if err != nil {
				return
			}
			back, err := net.Dial("udp", s.Addr())
			if err != nil {
				return
			}
			back.SetDeadline(time.Now().Add(5 * time.Second))
			back.Write(b[:n])
			if n, err = back.Read(b); err == nil {
				front.WriteTo(b[:n], from)
			}
			back.Close()
		}
	}()
	return s
}

// Without a command of notify there is one process; one that a reload brings is announced.
func TestNoHelperWithoutCommand(t *testing.T) {
	if !confine.Available().Whole {
		need.Missing(t, "kernel-with-Landlock-and-seccomp")
	}
	h := newHome(t)
	conf := fmt.Sprintf("listen: [%q]\nconfine: require\ndomains: {example.org: {connect: \"localhost:1\"}}\n", freeAddress(t))
	h.configure(conf)
	d := h.run()
	d.says(t, "msg=ready")
	if helpers := children(d.cmd.Process.Pid); len(helpers) != 0 {
		t.Errorf("it has started %v", helpers)
	}
	h.configure(conf + "notify: {command: [true]}\n")
	d.cmd.Process.Signal(syscall.SIGHUP)
	d.says(t, "the command of notify is new, and begins with the next start")
	d.says(t, "msg=\"configuration re-read\"")
}

// A configuration that lies beside much else can be read again as long as it stays the same file.
// Once an editor has put another one in its place, the log names that, and the old one stays in
// force.
func TestReloadNamesTheTrueCause(t *testing.T) {
	if !confine.Available().Whole {
		need.Missing(t, "kernel-with-Landlock-and-seccomp")
	}
	h := newHome(t)
	conf := fmt.Sprintf("listen: [%q]\nconfine: require\ndomains: {example.org: {connect: \"localhost:1\"}}\n", freeAddress(t))
	h.configure(conf)
	d := h.run("HOME=" + filepath.Dir(h.conf))
	d.says(t, "msg=ready")
	if err := os.WriteFile(h.conf, fmt.Appendf(nil, "state: %q\n%snosuch: key\n", h.state, conf), 0o644); err != nil {
		t.Fatal(err)
	}
	d.cmd.Process.Signal(syscall.SIGHUP)
	d.says(t, "is not a setting of the configuration") // it is read
	h.configure(conf)
	d.cmd.Process.Signal(syscall.SIGHUP)
	d.says(t, "an editor has put a new file in the place of the one that otrproxy was started with")
}
