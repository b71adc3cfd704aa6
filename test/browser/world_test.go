//go:build linux

// Package browser drives the page in Chromium, as a person does: what waits for a
// decision, verifying a contact, another certificate of a server; without script, with
// the keyboard, in light and dark, on a phone; and as somebody who has no business there.
//
// Screenshots are written into the directory of OTRPROXY_SCREENSHOTS, where it is set.
package browser

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"otrproxy/config"
	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/proxy"
	"otrproxy/proxy/control"
	"otrproxy/test/need"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "otrproxy-browser")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "otrproxy")
	if out, err := exec.Command("go", "build", "-o", binary, "otrproxy/cmd/otrproxy").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s\n", out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// patience is how long one step may take.
const patience = 20 * time.Second

const domain = "example.org"

// A world is a server, alice's household with its page, and bob with his own.
type world struct {
	t     *testing.T
	s     *server.Server
	conf  string
	addr  string // where alice's client connects
	page  string // address of the page
	alice *client.Client
	home  *proxy.Proxy // bob's
	bob   *client.Client
}

// newWorld starts it. more is appended to the domains of alice's configuration, and
// rules are hers.
func newWorld(t *testing.T, rules, more string) *world {
	t.Helper()
	need.Program(t, "chromium")
	w := &world{t: t}
	var err error
	if w.s, err = server.Start(server.Config{Domain: domain, Users: map[string]string{"alice": "a", "bob": "b", "carol": "c"}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.s.Close)
	state := filepath.Join(t.TempDir(), "state")
	keyed(t, state, "alice")
	w.conf = filepath.Join(t.TempDir(), "otrproxy.yaml")
	text := fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nweb: \"127.0.0.1:0\"\nstate: %q\nlog: {level: debug}\ndomains:\n  %s: {connect: %q, trust: pin, pins: [%q]}\n%s%s", state, domain, w.s.Addr(), w.s.Pin(), more, rules)
	if err := os.WriteFile(w.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log := w.daemon()
	w.page = log.says(`the web page is served.*address=(\S+)`)
	w.addr = log.says(`msg=listening address=(\S+)`)
	log.says(`msg=(ready)`)

	bobs := filepath.Join(t.TempDir(), "bob")
	keyed(t, bobs, "bob")
	cfg, err := config.Parse("bob", fmt.Appendf(nil, "listen: [\"127.0.0.1:0\"]\nstate: %q\ndomains:\n  %s: {connect: %q, trust: pin, pins: [%q]}\n", bobs, domain, w.s.Addr(), w.s.Pin()))
	if err != nil {
		t.Fatal(err)
	}
	if w.home, err = proxy.New(cfg, proxy.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := w.home.Listen(); err != nil {
		t.Fatal(err)
	}
	go w.home.Serve()
	t.Cleanup(func() { w.home.Shutdown(time.Second) })
	w.alice = w.login(w.addr, "alice@"+domain, "a")
	w.bob = w.login(w.home.Addrs()[0].String(), "bob@"+domain, "b")
	return w
}

// keyed gives a state directory the key of somebody: making one takes a while.
func keyed(t *testing.T, state, who string) {
	t.Helper()
	dir := filepath.Join(state, "accounts", who+"@"+domain)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "otr.private_key"), need.KeyFile(t, who, who+"@"+domain, "prpl-jabber"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (w *world) login(addr, jid, password string) *client.Client {
	w.t.Helper()
	c, err := client.Dial(w.t.Context(), client.Config{Addr: addr, JID: jid, Password: password, Resource: "c", Entry: client.STARTTLS})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Drop)
	return c
}

// A log is what the program says, which grows.
type log struct {
	t    *testing.T
	mu   sync.Mutex
	cond sync.Cond
	text strings.Builder
	over bool
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cond.Broadcast()
	return l.text.Write(b)
}

// says waits for a pattern and returns its first group.
func (l *log) says(pattern string) string {
	l.t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.Now().Add(patience)
	timer := time.AfterFunc(patience, l.cond.Broadcast)
	defer timer.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if m := re.FindStringSubmatch(l.text.String()); m != nil {
			return m[1]
		}
		if l.over || time.Now().After(deadline) {
			l.t.Fatalf("otrproxy never said %s; it said:\n%s", pattern, l.text.String())
		}
		l.cond.Wait()
	}
}

// daemon runs alice's otrproxy until the test ends.
func (w *world) daemon() *log {
	w.t.Helper()
	l := &log{t: w.t}
	l.cond.L = &l.mu
	cmd := exec.Command(binary, "run", "--config", w.conf)
	cmd.Stderr = l
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, done := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // the child dies with the thread that started it
		defer runtime.UnlockOSThread()
		started <- cmd.Start()
		cmd.Wait()
		l.mu.Lock()
		l.over = true
		l.cond.Broadcast()
		l.mu.Unlock()
		close(done)
	}()
	if err := <-started; err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			cmd.Process.Kill()
			<-done
			w.t.Error("otrproxy did not stop")
		}
		if w.t.Failed() {
			w.t.Logf("otrproxy said:\n%s", l.text.String())
		}
	})
	return l
}

// word runs a word of the command line.
func (w *world) word(args ...string) string {
	w.t.Helper()
	out, err := exec.Command(binary, append(args, "--config", w.conf)...).Output()
	if err != nil {
		w.t.Fatalf("%q: %v", args, err)
	}
	return string(out)
}

// bobs runs a command of bob's administrator.
func (w *world) bobs(name string, args map[string]string) control.Reply {
	w.t.Helper()
	r, err := w.home.Commands().Run(w.t.Context(), control.Actor{Place: control.InShell}, name, args)
	if err != nil {
		w.t.Fatalf("%s: %v", name, err)
	}
	return r
}

// fingerprint is bob's, as he reads it out.
func (w *world) fingerprint() string {
	w.t.Helper()
	hex := w.bobs("key show", nil).Data.([]control.KeyLine)[0].Fingerprint
	return strings.ToUpper(hex[:8] + " " + hex[8:16] + " " + hex[16:24] + " " + hex[24:32] + " " + hex[32:])
}

// says has somebody write to the other.
func (w *world) says(who *client.Client, text string) {
	to := "bob@" + domain
	if who == w.bob {
		to = "alice@" + domain
	}
	who.Say(to, "m", text)
}

// reads waits until somebody reads a text of the other.
func (w *world) reads(who *client.Client, text string) {
	w.t.Helper()
	from := "alice@" + domain
	if who == w.alice {
		from = "bob@" + domain
	}
	if got, err := who.Text(from); err != nil || got != text {
		w.t.Fatalf("read %q (%v), want %q", got, err, text)
	}
}

func (w *world) notice(who *client.Client, part string) {
	w.t.Helper()
	if _, err := who.Notice(part); err != nil {
		w.t.Fatalf("was not told %q: %v", part, err)
	}
}

// elsewhere is a page of somebody else's on this machine.
func elsewhere(t *testing.T, html string) string {
	t.Helper()
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, html)
	})}
	l, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	t.Cleanup(func() { s.Shutdown(context.Background()) })
	return "http://" + l.Addr().String() + "/"
}
