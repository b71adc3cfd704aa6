//go:build linux

package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/stanza"
)

// All connections are secured alike, whoever makes them.
const (
	cipher     = tls.TLS_AES_128_GCM_SHA256
	cipherName = "TLS_AES_128_GCM_SHA256"
)

var curves = []tls.CurveID{tls.X25519}

// A kind is what can stand between client and server.
type kind struct {
	name    string
	program string // that has to be installed; "" for none
	start   func(b *bench, t *thing) error
	policy  string // of ours; "" for others
	writes  bool   // it writes by write(2), which the system counts; send(2) it does not
}

var (
	direct  = kind{name: "direct"}
	goCopy  = kind{name: "Go copy", start: (*bench).startCopy, writes: true}
	haproxy = kind{name: "haproxy", program: "haproxy", start: (*bench).startHAProxy}
	nginx   = kind{name: "nginx stream", program: "nginx", start: (*bench).startNginx, writes: true}
	stunnel = kind{name: "stunnel", program: "stunnel4", start: (*bench).startStunnel}
	never   = kind{name: "ours never", start: (*bench).startOurs, policy: "never", writes: true}
	require = kind{name: "ours require", start: (*bench).startOurs, policy: "require", writes: true}
)

// A thing stands between clients and a server of its own.
type thing struct {
	kind
	addr    string
	metrics string    // address of the figures of ours
	cmd     *exec.Cmd // nil for direct
	dir     string
	server  *server.Server
	clear   atomic.Int64 // messages with a text in clear that have reached the server
	sealed  atomic.Int64 // encrypted ones
}

// begin starts a thing before a server with users. It is nil where the program is not
// installed, and says so.
func (b *bench) begin(k kind, users map[string]string) (*thing, error) {
	if k.program != "" && !installed(k.program) {
		fmt.Printf("%s is left out: %s is not installed\n", k.name, k.program)
		return nil, nil
	}
	t := &thing{kind: k}
	var err error
	if t.dir, err = os.MkdirTemp(b.dir, "thing"); err != nil {
		return nil, err
	}
	t.server, err = server.Start(server.Config{Domain: domain, Users: users, Curves: curves, Forget: true, Bindings: true,
		Mechanisms: []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN"}, Fate: t.watch, Strangers: len(users) > 2})
	if err != nil {
		return nil, err
	}
	if t.addr = t.server.Addr(); k.start != nil {
		err = k.start(b, t)
	}
	if err != nil {
		t.stop()
		return nil, fmt.Errorf("%s: %w", k.name, err)
	}
	return t, nil
}

// installed looks beside the path as well: not everybody's has the directory of services.
func installed(program string) bool {
	_, err := exec.LookPath(program)
	if err != nil {
		_, err = os.Stat("/usr/sbin/" + program)
	}
	return err == nil
}

// watch sees each message at the server.
func (t *thing) watch(_ string, m *stanza.Stanza) server.Fate {
	if t.policy != "require" {
		return server.Deliver
	}
	if body, ok := m.Root().Child(stanza.NSClient, "body"); ok {
		if strings.HasPrefix(body.Text(), "?OTR") {
			t.sealed.Add(1)
		} else {
			t.clear.Add(1)
		}
	}
	return server.Deliver
}

// stop ends the program and the server.
func (t *thing) stop() {
	if t.cmd != nil {
		t.cmd.Process.Kill()
		t.cmd.Wait()
	}
	t.server.Close()
}

// launch starts a program whose lines say what ready waits for: it returns true then. The
// program ends with this one.
func (t *thing) launch(ready func(line string) bool, argv ...string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	t.cmd = exec.Command(argv[0], argv[1:]...)
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	t.cmd.Stdout, t.cmd.Stderr = w, w
	err = t.cmd.Start()
	w.Close()
	if err != nil {
		t.cmd = nil
		r.Close()
		return err
	}
	lines := bufio.NewReader(r)
	var seen strings.Builder
	for {
		line, err := lines.ReadString('\n')
		if seen.WriteString(line); err != nil {
			return fmt.Errorf("%s has ended: %s", argv[0], seen.String())
		}
		if ready(strings.TrimSpace(line)) {
			go func() {
				io.Copy(io.Discard, lines)
				r.Close()
			}()
			return nil
		}
	}
}

func (b *bench) startCopy(t *thing) error {
	return t.launch(func(line string) bool { t.addr = line; return true }, b.self, "copy", b.pem(), t.addr)
}

func (b *bench) startLoginFloor(t *thing) error {
	return t.launch(func(line string) bool { t.addr = line; return true }, b.self, "login-floor", b.pem(), t.addr)
}

func (b *bench) startOurs(t *thing) error {
	text := fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nmetrics: \"127.0.0.1:0\"\nstate: %q\nlog: {level: info}\n"+
		"domains: {%s: {connect: %q, tls: direct, trust: pin, pins: [%q]}}\notr: [{policy: %s}]\n"+
		"limits: {rate: 10000000, sessions: 100000, per_account: 10000, per_address: 100000, pending: 1000, accounts: 100000, memory: 1900MiB}\n",
		t.state(), domain, t.addr, t.server.Pin(), t.policy)
	conf := filepath.Join(t.dir, "otrproxy.yaml")
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	t.addr = ""
	return t.launch(func(line string) bool {
		if _, a, ok := strings.Cut(line, "msg=listening address="); ok {
			t.addr = a
		} else if strings.Contains(line, "figures are served at /metrics") {
			_, t.metrics, _ = strings.Cut(line, " address=")
		}
		return t.addr != "" && t.metrics != ""
	}, b.proxy, "run", "--config", conf)
}

func (t *thing) state() string { return filepath.Join(t.dir, "state") }

// configured starts a program that says nothing once it listens.
func (t *thing) configured(conf func(addr string) string, argv func(file string) []string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addr := l.Addr().String()
	l.Close()
	file := filepath.Join(t.dir, "conf")
	if err := os.WriteFile(file, []byte(conf(addr)), 0o600); err != nil {
		return err
	}
	args := argv(file)
	t.cmd = exec.Command(args[0], args[1:]...)
	t.cmd.Dir = t.dir
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	said, err := os.Create(filepath.Join(t.dir, "said"))
	if err != nil {
		return err
	}
	defer said.Close()
	t.cmd.Stdout, t.cmd.Stderr = said, said
	if err := t.cmd.Start(); err != nil {
		t.cmd = nil
		return err
	}
	for range 1000 {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			t.addr = addr
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	text, _ := os.ReadFile(said.Name())
	return fmt.Errorf("it does not listen: %s", text)
}

func (b *bench) startHAProxy(t *thing) error {
	return t.configured(func(addr string) string {
		return fmt.Sprintf("global\n  nbthread 2\n  maxconn %[5]d\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 15m\n  timeout server 15m\n"+
			"frontend f\n  maxconn %[5]d\n  bind %[1]s ssl crt %[2]s ssl-min-ver TLSv1.3 ciphersuites %[3]s curves X25519\n  default_backend b\n"+
			"backend b\n  server s %[4]s ssl verify none ssl-min-ver TLSv1.3 ciphersuites %[3]s\n", addr, b.pem(), cipherName, t.addr, min(b.files/2-100, 10000))
	}, func(file string) []string { return []string{"haproxy", "-db", "-q", "-f", file} })
}

func (b *bench) startNginx(t *thing) error {
	module := ""
	for _, dir := range []string{"/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules"} {
		file := filepath.Join(dir, "ngx_stream_module.so")
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			module = "load_module " + file + ";\n"
			break
		}
	}
	program := "nginx"
	if _, err := exec.LookPath(program); err != nil {
		program = "/usr/sbin/nginx"
	}
	return t.configured(func(addr string) string {
		return fmt.Sprintf("daemon off; master_process off; pid %[1]s/pid; error_log stderr error;\n%[2]sevents { worker_connections 4096; }\n"+
			"stream { server { listen %[3]s ssl; ssl_certificate %[4]s; ssl_certificate_key %[4]s; ssl_protocols TLSv1.3; ssl_ecdh_curve X25519; ssl_conf_command Ciphersuites %[5]s;\n"+
			"proxy_pass %[6]s; proxy_ssl on; proxy_ssl_protocols TLSv1.3; proxy_ssl_conf_command Ciphersuites %[5]s; proxy_ssl_session_reuse off; proxy_timeout 15m; } }\n",
			t.dir, module, addr, b.pem(), cipherName, t.addr)
	}, func(file string) []string { return []string{program, "-p", t.dir, "-e", "stderr", "-c", file} })
}

// startStunnel has stunnel take TLS off and put it on again, over a loopback connection
// between two services of one process: it does no better.
func (b *bench) startStunnel(t *thing) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	inner := l.Addr().String()
	l.Close()
	return t.configured(func(addr string) string {
		return fmt.Sprintf("foreground = yes\npid =\nsyslog = no\ndebug = 3\nsslVersion = TLSv1.3\nciphersuites = %s\ncurves = X25519\n"+
			"socket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n"+
			"[outer]\naccept = %s\nconnect = %s\ncert = %s\n[inner]\nclient = yes\naccept = %s\nconnect = %s\n", cipherName, addr, inner, b.pem(), inner, t.addr)
	}, func(file string) []string { return []string{"stunnel4", file} })
}

// cpu is the processor time that the process has used so far.
func (t *thing) cpu() (time.Duration, error) {
	if t.cmd == nil {
		return 0, nil
	}
	var ts unix.Timespec
	clock := int32(^t.cmd.Process.Pid)<<3 | 2 // CPUCLOCK_SCHED of that process, clock_getcpuclockid(3)
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, err
	}
	return time.Duration(ts.Nano()), nil
}

// written counts the process's calls of write(2) so far; false where that is not known.
func (t *thing) written() (int, bool) {
	if t.cmd == nil || !t.writes {
		return 0, false
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", t.cmd.Process.Pid))
	if err != nil {
		return 0, false
	}
	_, rest, _ := strings.Cut(string(b), "syscw: ")
	n, err := strconv.Atoi(strings.Fields(rest + " x")[0])
	return n, err == nil
}

// plainly asks for figures without compression, which allocates now more, now less.
var plainly = &http.Client{Transport: &http.Transport{DisableCompression: true}, Timeout: patience}

// allocated counts what ours has allocated on its heap so far. Asking allocates as well,
// about the same each time.
func (t *thing) allocated() (float64, error) {
	res, err := plainly.Get("http://" + t.metrics + "/metrics")
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "go_memstats_mallocs_total "); ok {
			return strconv.ParseFloat(strings.TrimSpace(v), 64)
		}
	}
	return 0, errors.New("the figures do not say go_memstats_mallocs_total")
}

// resident is the memory of the process and of those that it has started, in bytes.
func (t *thing) resident() (int, error) { return residentOf(t.cmd.Process.Pid) }

func residentOf(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		return 0, err
	}
	sum := pages * os.Getpagesize()
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range tasks {
		list, _ := os.ReadFile(file)
		for _, child := range strings.Fields(string(list)) {
			if n, err := strconv.Atoi(child); err == nil {
				if more, err := residentOf(n); err == nil { // it may be gone
					sum += more
				}
			}
		}
	}
	return sum, nil
}

// dial logs in through the thing. It fails where the connection is not secured as all are.
// under, if any, is put below TLS.
func (t *thing) dial(who, resource string, under func(net.Conn) net.Conn) (*client.Client, net.Conn, error) {
	plain, err := net.Dial("tcp", t.addr)
	if err != nil {
		return nil, nil, err
	}
	below := plain
	if under != nil {
		below = under(plain)
	}
	plain.SetDeadline(time.Now().Add(patience))
	conn := tls.Client(below, &tls.Config{InsecureSkipVerify: true, ServerName: domain, CurvePreferences: curves, NextProtos: []string{"xmpp-client"}})
	c, err := client.Dial(background, client.Config{Addr: t.addr, JID: who + "@" + domain, Password: password, Resource: resource, Entry: client.Plain, Manual: true, Dial: over(conn)})
	if err != nil {
		plain.Close()
		return nil, nil, err
	}
	if s := conn.ConnectionState(); s.Version != tls.VersionTLS13 || s.CipherSuite != cipher || s.CurveID != tls.X25519 {
		c.Drop()
		return nil, nil, fmt.Errorf("%s speaks %s, %s, %s", t.name, tls.VersionName(s.Version), tls.CipherSuiteName(s.CipherSuite), s.CurveID)
	}
	return c, plain, nil
}

func writePEM(file string) error {
	c, err := server.SelfSigned(domain)
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return err
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
	b = append(b, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	return os.WriteFile(file, b, 0o600)
}
