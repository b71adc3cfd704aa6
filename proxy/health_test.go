package proxy_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/proxy"
	"otrproxy/stanza"
)

// health asks as those do who watch.
func health(t *testing.T, p *proxy.Proxy) (int, []string) {
	t.Helper()
	w := httptest.NewRecorder()
	p.Metrics().ServeHTTP(w, httptest.NewRequest("GET", "/health", nil))
	var answer struct {
		Status string
		Causes []string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("%v in %q", err, w.Body)
	}
	if (answer.Status == "ok") != (w.Code == http.StatusOK) || (len(answer.Causes) == 0) != (w.Code == http.StatusOK) {
		t.Errorf("%d %+v", w.Code, answer)
	}
	return w.Code, answer.Causes
}

// becomes waits for a state of health.
func becomes(t *testing.T, p *proxy.Proxy, causes ...string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(client.Patience); ; <-tick.C {
		_, got := health(t, p)
		if slices.Equal(got, causes) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("health is %v, want %v", got, causes)
		}
	}
}

// A proxy is well when it accepts, can write its state, and has its keys.
func TestHealth(t *testing.T) {
	t.Parallel()
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	becomes(t, b.p)
	for _, method := range []string{"POST", "PUT", "DELETE"} {
		w := httptest.NewRecorder()
		b.p.Metrics().ServeHTTP(w, httptest.NewRequest(method, "/health", nil))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
	w := httptest.NewRecorder()
	b.p.Metrics().ServeHTTP(w, httptest.NewRequest("HEAD", "/health", nil))
	if w.Code != 200 || w.Body.Len() > 0 {
		t.Error(w.Code, w.Body)
	}

	away := b.state + ".away"
	if err := os.Rename(b.state, away); err != nil {
		t.Fatal(err)
	}
	becomes(t, b.p, "state-not-writable")
	if n := metric(b, `otrproxy_unhealthy{cause="state-not-writable"}`); n != "1" {
		t.Errorf("in the figures it is %s", n)
	}
	if err := os.Rename(away, b.state); err != nil {
		t.Fatal(err)
	}
	becomes(t, b.p)
	left, err := os.ReadDir(b.state)
	if err != nil || slices.ContainsFunc(left, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".health") }) {
		t.Errorf("left behind: %v %v", left, err)
	}

	if _, err := admin(t, b.p, "key passphrase", "passphrase", "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	b.stop()
	if _, causes := health(t, b.p); !slices.Contains(causes, "not-accepting") {
		t.Errorf("a proxy that has ended: %v", causes)
	}
}

// Keys that are locked are an illness until somebody gives the passphrase.
func TestHealthLocked(t *testing.T) {
	t.Parallel()
	s := startServer(t, server.Config{})
	dir := stateDir(t)
	b := startConfigured(t, dir, configFor(s, dir))
	if _, err := admin(t, b.p, "key passphrase", "passphrase", "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	becomes(t, b.p)
	b.stop()
	b = startConfigured(t, dir, configFor(s, dir))
	becomes(t, b.p, "keys-locked")
	if n := metric(b, `otrproxy_decisions{kind="locked"}`); n != "1" {
		t.Errorf("decisions of that kind: %s", n)
	}
	if _, err := admin(t, b.p, "key unlock", "passphrase", "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	becomes(t, b.p)
}

// A shortOf fails for want of file descriptors until that is over.
type shortOf struct {
	net.Listener
	over chan struct{}
}

func (l *shortOf) Accept() (net.Conn, error) {
	select {
	case <-l.over:
		return l.Listener.Accept()
	default:
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
}

// A listener that nobody can come in by is an illness, and heals.
func TestHealthAccepting(t *testing.T) {
	t.Parallel()
	s := startServer(t, server.Config{})
	dir := stateDir(t)
	over := make(chan struct{})
	b := startWith(t, dir, configFor(s, dir), proxy.Options{Listen: func(network, addr string) (net.Listener, error) {
		l, err := net.Listen(network, addr)
		return &shortOf{l, over}, err
	}})
	becomes(t, b.p, "not-accepting")
	close(over)
	becomes(t, b.p)
	b.login("alice", client.STARTTLS).Close()
}

// A freed listener was short of a descriptor for a moment that is over once somebody comes.
type freed struct {
	*net.TCPListener
	short sync.Once
	comes chan struct{}
}

func (l *freed) Accept() (conn net.Conn, err error) {
	l.short.Do(func() {
		<-l.comes
		err = &net.OpError{Op: "accept", Err: syscall.EMFILE}
	})
	if err != nil {
		return nil, err
	}
	return l.TCPListener.Accept()
}

// Who comes when a descriptor is free again is let in, whatever was said before.
func TestDescriptorFreeAgain(t *testing.T) {
	t.Parallel()
	s := startServer(t, server.Config{})
	dir := stateDir(t)
	comes := make(chan struct{})
	b := startWith(t, dir, configFor(s, dir), proxy.Options{Listen: func(network, addr string) (net.Listener, error) {
		l, err := net.Listen(network, addr)
		if err != nil {
			return nil, err
		}
		return &freed{TCPListener: l.(*net.TCPListener), comes: comes}, nil
	}})
	conn, err := net.Dial("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	close(comes)
	conn.SetDeadline(time.Now().Add(client.Patience))
	conn.Write(stanza.Header{To: domain}.AppendTo(nil))
	var got []byte
	for buf := make([]byte, 1024); !bytes.Contains(got, []byte("starttls")); {
		n, err := conn.Read(buf)
		if got = append(got, buf[:n]...); err != nil {
			t.Fatalf("%v after %q", err, got)
		}
	}
}

// Every series of a closed set is there from the start, at zero, and counts what it says.
func TestFigures(t *testing.T) {
	t.Parallel()
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "notify: {command: [/bin/false], events: [held]}\nlimits: {linger: 0}\n")
	for name, want := range map[string]string{
		`otrproxy_sessions_total{entry="starttls"}`:             "0",
		`otrproxy_sessions_total{entry="socks5 websocket"}`:     "0",
		`otrproxy_session_seconds_count`:                        "0",
		`otrproxy_events_total{event="returned"}`:               "0",
		`otrproxy_events_total{event="server-refused"}`:         "0",
		`otrproxy_notify_runs_total{result="failed"}`:           "0",
		`otrproxy_upstream_resumptions_total{result="resumed"}`: "0",
		`otrproxy_upstream_resumptions_total{result="refused"}`: "0",
		`otrproxy_unhealthy{cause="keys-locked"}`:               "0",
		`otrproxy_decisions{kind="key-changed"}`:                "0",
		`otrproxy_held_oldest_seconds`:                          "0",
		`otrproxy_sessions_limit`:                               "200",
		`otrproxy_server_certificate_expiry_timestamp_seconds`:  "0",
		`otrproxy_refused_total{cause="sessions"}`:              "0",
	} {
		if got := metric(b, name); got != want {
			t.Errorf("%s is %s at the start, want %s", name, got, want)
		}
	}
	for _, name := range []string{"otrproxy_start_time_seconds", "otrproxy_ca_expiry_timestamp_seconds"} {
		if got := metric(b, name); !strings.HasPrefix(got, "1.") && !strings.HasPrefix(got, "2.") {
			t.Errorf("%s is %s", name, got)
		}
	}
	alice := b.login("alice", client.Direct)
	alice.Say("carol@"+domain, "h1", "waits")
	b.counts(`otrproxy_sessions_total{entry="direct"}`, "1")
	b.counts(`otrproxy_events_total{event="held"}`, "1")
	b.counts(`otrproxy_notify_runs_total{result="failed"}`, "1")
	if got := metric(b, "otrproxy_held_oldest_seconds"); got == "0" {
		t.Error("a message waits, and has waited for no time")
	}
	if got := metric(b, "otrproxy_server_certificate_expiry_timestamp_seconds"); !strings.Contains(got, "e+09") {
		t.Errorf("the server's certificate ends at %s", got)
	}
	alice.Close()
	b.counts("otrproxy_session_seconds_count", "1")
}

// counts waits for a figure's value.
func (b *box) counts(name, want string) {
	b.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(client.Patience); metric(b, name) != want; <-tick.C {
		if time.Now().After(deadline) {
			b.t.Fatalf("%s is %s, want %s", name, metric(b, name), want)
		}
	}
}

// Of figures and health, everything is one of what is listed; nothing else can be had there.
func TestFiguresOnly(t *testing.T) {
	t.Parallel()
	b := startProxy(t, startServer(t, server.Config{}), "")
	srv := httptest.NewServer(b.p.Metrics())
	defer srv.Close()
	for path, want := range map[string]int{"/metrics": 200, "/health": 200, "/": 404, "/health/": 404, "/debug/pprof/": 404, "/metrics/../ca.key": 404, "/ca.key": 404} {
		r, err := http.Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, r.Body)
		r.Body.Close()
		if path == "/health" && r.StatusCode == 503 { // nobody has begun to accept yet
			continue
		}
		if r.StatusCode != want {
			t.Errorf("%s: %s", path, r.Status)
		}
	}
}
