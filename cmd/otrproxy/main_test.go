package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The test binary is the program itself when it is told so.
func TestMain(m *testing.M) {
	if os.Getenv("OTRPROXY_TEST_MAIN") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "OTRPROXY_TEST_MAIN=1", "HOME=/nonexistent")
	endWithUs(cmd)
	return cmd
}

// call runs the program to its end.
func call(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := command(args...)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	if x, ok := err.(*exec.ExitError); ok {
		code = x.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return o.String(), e.String(), code
}

// daemon is a running "otrproxy run".
type daemon struct {
	cmd *exec.Cmd
	mu  sync.Mutex
	log bytes.Buffer
	new chan struct{}
}

func (d *daemon) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case d.new <- struct{}{}:
	default:
	}
	return d.log.Write(b)
}

func (d *daemon) says(t *testing.T, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	timeout := time.After(30 * time.Second)
	for {
		d.mu.Lock()
		m := re.FindStringSubmatch(d.log.String())
		d.mu.Unlock()
		if m != nil {
			return m
		}
		select {
		case <-d.new:
		case <-timeout:
			t.Fatalf("never said %s:\n%s", pattern, d.log.String())
		}
	}
}

func startDaemon(t *testing.T, conf string) *daemon {
	t.Helper()
	d := &daemon{cmd: command("run", "--config", conf), new: make(chan struct{}, 1)}
	d.cmd.Stderr = d
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.cmd.Process.Kill(); d.cmd.Wait() })
	return d
}

func writeConf(t *testing.T, text string) (conf, state string) {
	t.Helper()
	dir := t.TempDir()
	state = filepath.Join(dir, "s")
	conf = filepath.Join(dir, "otrproxy.yaml")
	if err := os.WriteFile(conf, []byte(fmt.Sprintf("state: %q\n", state)+text), 0o600); err != nil {
		t.Fatal(err)
	}
	return conf, state
}

func TestDemo(t *testing.T) {
	out, stderr, code := call(t, "demo")
	if code != 0 {
		t.Fatalf("exit %d: %s%s", code, out, stderr)
	}
	for _, want := range []string{"alice typed: hello", "server saw: ?OTR:", "bob read: hello <b> & \"quotes\" <3 ü 👍\n", "bob typed: ", "alice read: ", "\ndemo: ok\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if strings.Contains(out, "Unsupported") || stderr != "" {
		t.Errorf("noise: %s%s", out, stderr)
	}
}

func TestWords(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	os.WriteFile(bad, []byte("listen: [x]\n"), 0o600)
	open := filepath.Join(t.TempDir(), "open.yaml")
	os.WriteFile(open, []byte("web: \"192.0.2.1:5280\"\n"), 0o600)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"version"}, 0, "otrproxy "},
		{[]string{"check"}, 0, "everybody else: require"},
		{[]string{"check", "--config", bad}, 2, bad + ":1: \"x\" is not an address, host:port"},
		{[]string{"check", "--config", bad + "x"}, 2, "cannot be read"},
		{[]string{"check", "--config", open}, 2, "can be reached from other machines"},
		{[]string{"run", "--config", open}, 1, "can be reached from other machines"},
		{[]string{"run", "--config", bad}, 2, bad + ":1: "},
		{[]string{"nonsense"}, 2, "is no command"},
		{[]string{"run", "x"}, 2, "unexpected"},
		{[]string{"run", "--nonsense"}, 2, "unknown flag"},
		{[]string{"status", "--socket", "/nonexistent"}, 1, "no running otrproxy answers at /nonexistent"},
		{[]string{"pin"}, 2, "needs one of its commands"},
		{[]string{"--help"}, 0, "Available Commands"},
	} {
		o, e, code := call(t, c.args...)
		if code != c.code || !strings.Contains(o+e, c.want) {
			t.Errorf("%v: exit %d: %s%s", c.args, code, o, e)
		}
		if code != 0 && (o != "" || strings.Count(e, "\n") != 1) {
			t.Errorf("%v: not one sentence on standard error: %q %q", c.args, o, e)
		}
	}
}

func TestRunStatusReloadStop(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	metrics := l.Addr().String()
	l.Close()
	conf, state := writeConf(t, "listen: [\"127.0.0.1:0\"]\nmetrics: \""+metrics+"\"\n")
	d := startDaemon(t, conf)
	d.says(t, "msg=ready")
	o, e, code := call(t, "status", "--config", conf, "--json")
	var st map[string]any
	if err := json.Unmarshal([]byte(o), &st); err != nil || code != 0 || st["sessions"] == nil {
		t.Errorf("%d %s %s", code, o, e)
	}
	if o, _, code := call(t, "pin", "list", "--socket", filepath.Join(state, "control.sock")); code != 0 || o != "no pins yet\n" {
		t.Errorf("%d %s", code, o)
	}
	pin := "sha256:" + strings.Repeat("AB:", 31) + "AB"
	if o, e, code := call(t, "pin", "add", "example.org", pin, "--config", conf); code != 0 {
		t.Errorf("%d %s%s", code, o, e)
	}
	if o, _, _ := call(t, "pin", "list", "--config", conf); !strings.Contains(o, "example.org "+pin) {
		t.Errorf("%s", o)
	}
	if _, _, code := call(t, "pin", "add", "example.org", "--config", conf); code != 2 {
		t.Errorf("exit %d", code)
	}
	if st, _ := os.Stat(filepath.Join(state, "control.sock")); st.Mode().Perm()&0o077 != 0 {
		t.Errorf("socket %v", st.Mode())
	}
	r, err := http.Get("http://" + metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(r.Body)
	r.Body.Close()
	for _, want := range []string{"otrproxy_sessions 0", `otrproxy_upstream_failures_total{cause="pin_mismatch"} 0`, `otrproxy_stanzas_total{action="swallowed",direction="in",kind="message"} 0`, `otrproxy_blocked_total{cause="expired"} 0`, `otrproxy_handshakes_total{result="complete"} 0`, "otrproxy_stanza_seconds_count 0", "otrproxy_held_messages 0", "go_goroutines"} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("no %s", want)
		}
	}
	// A broken file changes nothing; a sound one is put in force.
	sound, _ := os.ReadFile(conf)
	os.WriteFile(conf, []byte("nonsense: 1\n"), 0o600)
	d.cmd.Process.Signal(syscall.SIGHUP)
	d.says(t, `msg="the configuration was not changed" err="[^"]*otrproxy.yaml:1:`)
	os.WriteFile(conf, append(sound, "log: {level: debug}\n"...), 0o600)
	d.cmd.Process.Signal(syscall.SIGHUP)
	d.says(t, `msg="configuration re-read"`)

	// A second process keeps its hands off.
	if _, e, code := call(t, "run", "--config", conf); code != 1 || !strings.Contains(e, "another otrproxy already runs") {
		t.Errorf("%d %s", code, e)
	}
	d.cmd.Process.Signal(syscall.SIGTERM)
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
}

func TestStateDirectory(t *testing.T) {
	conf, state := writeConf(t, "listen: [\"127.0.0.1:0\"]\n")
	os.Mkdir(state, 0o755)
	if _, e, code := call(t, "run", "--config", conf); code != 1 || !strings.Contains(e, "chmod 700 "+state) {
		t.Errorf("world-readable: %d %s", code, e)
	}
	os.Remove(state)
	os.WriteFile(state, nil, 0o600)
	if _, e, code := call(t, "run", "--config", conf); code != 1 || !strings.Contains(e, "state directory cannot be made") {
		t.Errorf("a file: %d %s", code, e)
	}
	os.Remove(state)
	os.Mkdir(state, 0o700)
	os.WriteFile(filepath.Join(state, "ca.key"), []byte("x"), 0o600)
	os.WriteFile(filepath.Join(state, "ca.pem"), []byte("x"), 0o600)
	if _, e, code := call(t, "run", "--config", conf); code != 1 || !strings.Contains(e, "the local CA in") {
		t.Errorf("broken CA: %d %s", code, e)
	}
	os.Remove(filepath.Join(state, "ca.key"))
	os.WriteFile(filepath.Join(state, "pins.yaml"), []byte("a: ["), 0o600)
	if _, e, code := call(t, "run", "--config", conf); code != 1 || !strings.Contains(e, "pins.yaml is damaged") {
		t.Errorf("broken pins: %d %s", code, e)
	}
	if os.Getuid() != 0 {
		os.Remove(filepath.Join(state, "pins.yaml"))
		os.Chmod(state, 0o500)
		if _, e, code := call(t, "run", "--config", conf); code != 1 || !strings.Contains(e, "cannot be written to") {
			t.Errorf("unwritable: %d %s", code, e)
		}
		os.Chmod(state, 0o700)
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conf, _ := writeConf(t, "listen: [\""+l.Addr().String()+"\"]\n")
	_, e, code := call(t, "run", "--config", conf)
	if code != 1 || !strings.Contains(e, "cannot listen on "+l.Addr().String()) || !strings.Contains(e, "another program") {
		t.Errorf("%d %s", code, e)
	}
}
