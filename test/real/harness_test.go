//go:build linux

// Package real runs the proxy against real servers with real clients and real
// contacts: Prosody and ejabberd, slixmpp and go-sendxmpp, mcabber and bitlbee.
//
// Everything listens on loopback addresses of its own and is ended by process id.
// What the server received is taken from the server's own debug log.
package real

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"otrproxy/proxy/control"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) {
	if os.Getenv(insideVar) != "" { // it is built already
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "otrproxy-real")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "otrproxy")
	build := exec.Command("go", "build", "-o", binary, "otrproxy/cmd/otrproxy")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s\n", out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// loopback is an address of this machine nobody else uses: some programs insist
// on port 5222, so the address has to be the free part.
func loopback(t *testing.T) string {
	t.Helper()
	for range 100 {
		ip := fmt.Sprintf("127.%d.%d.%d", 10+rand.IntN(200), rand.IntN(250), 2+rand.IntN(250))
		l, err := net.Listen("tcp", ip+":5222")
		if err == nil {
			l.Close()
			return ip
		}
	}
	t.Fatal("no free loopback address")
	return ""
}

// patience is how long one step may take.
const patience = 20 * time.Second

// eventually waits until a condition holds, looking again every few milliseconds;
// it is for what a foreign program writes into files.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	eventuallyWithin(t, what, patience, cond)
}

func eventuallyWithin(t *testing.T, what string, within time.Duration, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		<-tick.C
	}
}

// fileHas asks whether one of the files of a name, or a glob pattern, has a pattern
// in it.
func fileHas(name, pattern string) func() bool {
	re := regexp.MustCompile(pattern)
	return func() bool {
		paths, _ := filepath.Glob(name)
		return slices.ContainsFunc(paths, func(path string) bool {
			b, _ := os.ReadFile(path)
			return re.Match(b)
		})
	}
}

// A reading is a text that grows, of which each part is looked for once.
type reading struct {
	what string
	text func() string
	at   int
}

// next waits for a pattern behind what was found last.
func (r *reading) next(t *testing.T, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	found := ""
	eventually(t, r.what+" to say "+pattern, func() bool {
		text := r.text()
		if len(text) < r.at { // being written
			return false
		}
		at := re.FindStringIndex(text[r.at:])
		if at == nil {
			return false
		}
		found = text[r.at+at[0] : r.at+at[1]]
		r.at += at[1]
		return true
	})
	return found
}

// A process is a program the test has started.
type process struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	name string
	done chan struct{}
	read chan struct{} // closed when all that it has written was read; nil where done says so

	mu   sync.Mutex
	cond sync.Cond
	out  bytes.Buffer
}

// start runs a program with its output collected, in a process group of its own
// that dies with the test.
func start(t *testing.T, name string, env []string, dir string, argv ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(argv[0], argv[1:]...), name: name, done: make(chan struct{})}
	p.cond.L = &p.mu
	p.cmd.Dir = dir
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.WaitDelay = 2 * time.Second
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	p.launch(t, &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL})
	return p
}

func (p *process) launch(t *testing.T, attr *syscall.SysProcAttr) {
	t.Helper()
	p.cmd.SysProcAttr = attr
	// Pdeathsig is bound to the thread that started the child.
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		started <- p.cmd.Start()
		p.cmd.Wait()
		close(p.done)
		p.mu.Lock()
		p.cond.Broadcast()
		p.mu.Unlock()
		runtime.UnlockOSThread()
	}()
	if err := <-started; err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	t.Cleanup(func() {
		p.kill(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("%s said:\n%s", p.name, p.output())
		}
	})
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cond.Broadcast()
	return p.out.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// kill signals the process group and waits for its end.
func (p *process) kill(sig syscall.Signal) {
	select {
	case <-p.done:
		return
	default:
	}
	syscall.Kill(-p.cmd.Process.Pid, sig)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
	}
}

// says waits for a line in the program's output.
func (p *process) says(t *testing.T, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	timer := time.AfterFunc(patience, p.cond.Broadcast)
	defer timer.Stop()
	deadline := time.Now().Add(patience)
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if m := re.Find(p.out.Bytes()); m != nil {
			return string(m)
		}
		ended := false
		select {
		case <-p.done:
			ended = p.read == nil || closed(p.read)
		default:
		}
		if ended || time.Now().After(deadline) {
			t.Fatalf("%s never said %s; it said:\n%s", p.name, pattern, p.out.String())
		}
		p.cond.Wait()
	}
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// write writes files below a directory.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(path), 0o700)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A household is a running otrproxy.
type household struct {
	*process
	addr  string
	state string
	conf  string
}

func startOTRProxy(t *testing.T, s *xmppServer, more string) *household {
	t.Helper()
	h := &household{state: filepath.Join(t.TempDir(), "state")}
	h.conf = filepath.Join(t.TempDir(), "otrproxy.yaml")
	text := fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\nlog: {level: debug, jids: %v}\ndomains:\n  %s: {connect: %q, tls: %s, trust: pin, pins: [%q]}\n%s", h.state, strings.Contains(more, "jids"), s.domain, s.connect(), s.mode, s.pin, more)
	if err := os.WriteFile(h.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.start(t)
	return h
}

func (h *household) start(t *testing.T) {
	t.Helper()
	h.process = start(t, "otrproxy", nil, "", binary, "run", "--config", h.conf)
	line := h.says(t, `msg=listening address=\S+`)
	h.addr = line[strings.LastIndex(line, "=")+1:]
	h.says(t, "msg=ready")
}

// vouched is the certificate that otrproxy shows for a name, after the check that its own
// CA vouches for it.
func vouched(t *testing.T, h *household, name string) *x509.Certificate {
	t.Helper()
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(h.state, "ca.pem"))
	if err != nil || !roots.AppendCertsFromPEM(ca) {
		t.Fatal("no CA", err)
	}
	conn, err := tls.Dial("tcp", h.addr, &tls.Config{RootCAs: roots, ServerName: name})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}

// shown is that certificate as a file, for clients that keep those to which somebody has
// said yes.
func shown(t *testing.T, h *household, name string) string {
	t.Helper()
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: vouched(t, h, name).Raw}))
}

func (h *household) status(t *testing.T) control.Status {
	t.Helper()
	out, err := exec.Command(binary, "status", "--json", "--config", h.conf).Output()
	if err != nil {
		t.Fatalf("status: %v", err)
	}
	var st control.Status
	if err := json.Unmarshal(out, &st); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return st
}
