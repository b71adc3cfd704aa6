package proxy_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"otrproxy/config"
	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/otrlayer"
	"otrproxy/proxy"
	"otrproxy/proxy/control"
	"otrproxy/proxy/control/commands"
	"otrproxy/stanza"
)

const domain = "example.org"

func users() map[string]string {
	return map[string]string{"alice": "wonderland", "bob": "builder", "carol": "singer"}
}

// usersAnd are users, and n more: u0, u1 and so on, with the password x.
func usersAnd(n int) map[string]string {
	u := users()
	for i := range n {
		u[fmt.Sprint("u", i)] = "x"
	}
	return u
}

func startServer(t *testing.T, cfg server.Config) *server.Server {
	t.Helper()
	if cfg.Domain == "" {
		cfg.Domain = domain
	}
	if cfg.Users == nil {
		cfg.Users = users()
	}
	s, err := server.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// box is a running proxy.
type box struct {
	t     *testing.T
	p     *proxy.Proxy
	addr  string
	state string
	log   *syncBuffer
	stop  func()
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// stateDir is a private directory with keys for the accounts, generated once for
// all tests.
func stateDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	keys := testKeys(t)
	for jid, file := range keys {
		acc := filepath.Join(dir, "accounts", jid)
		os.MkdirAll(acc, 0o700)
		if err := os.WriteFile(filepath.Join(acc, "otr.private_key"), file, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	greet(t, dir, slices.Collect(maps.Keys(keys))...)
	return dir
}

// greet has accounts know the service contact already, which else greets them.
func greet(t *testing.T, dir string, jids ...string) {
	t.Helper()
	for _, jid := range jids {
		acc := filepath.Join(dir, "accounts", jid)
		os.MkdirAll(acc, 0o700)
		if err := os.WriteFile(filepath.Join(acc, "service"), []byte("greeted\nrecognised\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

var testKeys = func() func(t *testing.T) map[string][]byte {
	var once sync.Once
	files := map[string][]byte{}
	return func(t *testing.T) map[string][]byte {
		once.Do(func() {
			dir, err := os.MkdirTemp("", "otrproxy-keys")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			for user := range users() {
				jid := user + "@" + domain
				a, err := otrlayer.Open(dir, jid, func() otrlayer.Settings { return otrlayer.Settings{} }, quiet{}, nil, nil)
				if err != nil {
					t.Fatal(err)
				}
				a.Prepare()
				<-a.Ready()
				a.Close()
				files[jid], _ = os.ReadFile(filepath.Join(dir, "accounts", jid, "otr.private_key"))
			}
		})
		return files
	}
}()

type quiet struct{}

func (quiet) Handshake(string)         {}
func (quiet) Keeps(_, _ otrlayer.Kept) {}
func (quiet) Log(int, string, error)   {}

func (quiet) Happened(string, otrlayer.Event) {}

// startProxy runs a proxy whose domain is the given server, pinned; more is
// appended to the configuration, and may hold %s for the state directory.
func startProxy(t *testing.T, s *server.Server, more string) *box {
	t.Helper()
	dir := stateDir(t)
	return startConfigured(t, dir, configFor(s, dir)+more)
}

// configFor has the given server as the domain's, pinned.
func configFor(s *server.Server, dir string) string {
	return fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\ndomains:\n  %s: {connect: %q, trust: pin, pins: [%q]}\n", dir, domain, s.Addr(), s.Pin())
}

func startConfigured(t *testing.T, dir, text string) *box {
	t.Helper()
	return startWith(t, dir, text, proxy.Options{})
}

// startWith starts a proxy with options, to which a version and a log are added.
func startWith(t *testing.T, dir, text string, opt proxy.Options) *box {
	t.Helper()
	cfg, err := config.Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	b := &box{t: t, state: dir, log: &syncBuffer{}}
	opt.Version, opt.Log = "test", slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	b.p, err = proxy.New(cfg, opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.p.Listen(); err != nil {
		t.Fatal(err)
	}
	b.addr = b.p.Addrs()[0].String()
	done := make(chan struct{})
	go func() { defer close(done); b.p.Serve() }()
	var once sync.Once
	b.stop = func() {
		once.Do(func() {
			b.p.Shutdown(time.Second)
			<-done
		})
	}
	t.Cleanup(b.stop)
	return b
}

func (b *box) config(user string, entry client.Entry) client.Config {
	return client.Config{Addr: b.addr, JID: user + "@" + domain, Password: users()[user], Resource: "c", Entry: entry}
}

func (b *box) login(user string, entry client.Entry) *client.Client {
	b.t.Helper()
	c, err := client.Dial(b.t.Context(), b.config(user, entry))
	if err != nil {
		b.t.Fatalf("%s: %v\n%s", user, err, b.log)
	}
	b.t.Cleanup(c.Drop)
	return c
}

func metric(b *box, series string) string {
	w := httptest.NewRecorder()
	b.p.Metrics().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return "absent"
}

func text(t *testing.T, c *client.Client, from, want string) {
	t.Helper()
	got, err := c.Text(from)
	if err != nil || got != want {
		t.Fatalf("got %q (%v), want %q", got, err, want)
	}
}

const typed = `hello <b> & "quotes" <3 ü 👍`

// Two people behind two proxies talk, however their clients connect; the server
// sees nothing of it.
func TestConversation(t *testing.T) {
	for _, entry := range []client.Entry{client.Plain, client.STARTTLS, client.Direct} {
		t.Run(string(entry), func(t *testing.T) {
			t.Parallel()
			s := startServer(t, server.Config{})
			home, away := startProxy(t, s, ""), startProxy(t, s, "")
			bob := away.login("bob", client.STARTTLS)
			alice := home.login("alice", entry)
			for i := range 3 {
				alice.Say("bob@"+domain, fmt.Sprint("a", i), fmt.Sprintf("%s %d", typed, i))
			}
			for i := range 3 {
				text(t, bob, "alice@"+domain, fmt.Sprintf("%s %d", typed, i))
			}
			bob.Say("alice@"+domain, "b1", typed)
			text(t, alice, "bob@"+domain, typed)
			if _, err := alice.Notice("Private conversation with bob@" + domain); err != nil {
				t.Error(err)
			}
			seen := string(s.Received())
			for _, word := range []string{"hello", "quotes", "ü", "👍", "wonderland"} {
				if strings.Contains(seen, word) {
					t.Errorf("the server saw %q", word)
				}
			}
			if strings.Count(seen, "?OTR:") < 6 {
				t.Error("the server saw no OTR")
			}
			if got := metric(home, `otrproxy_stanzas_total{action="encrypted",direction="out",kind="message"}`); got != "3" {
				t.Errorf("encrypted %s", got)
			}
			if got := metric(home, `otrproxy_conversations{state="encrypted",trust="unverified"}`); got != "1" {
				t.Errorf("conversations %s", got)
			}
			// bob's client restarts; the conversation goes on.
			bob.Close()
			if !s.Wait(func([]byte) bool { return true }) {
				t.Fatal()
			}
			bob = away.login("bob", client.Plain)
			alice.Say("bob@"+domain, "a4", "still here?")
			text(t, bob, "alice@"+domain, "still here?")
		})
	}
}

// A word that a proxy logs nowhere: bodies, passwords, JIDs.
func TestLogNamesNobody(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "log: {level: debug}\n")
	alice := b.login("alice", client.Plain)
	alice.Say("bob@"+domain, "1", "CANARYWORD")
	if !s.Wait(func(r []byte) bool { return bytes.Contains(r, []byte("?OTRv23?")) }) {
		t.Fatal("no query")
	}
	alice.Close()
	b.stop()
	for _, word := range []string{"CANARYWORD", "wonderland", "alice", "bob@", domain} {
		if strings.Contains(b.log.String(), word) {
			t.Errorf("the log holds %q:\n%s", word, b.log)
		}
	}
}

// counting is what the proxy says to a server of its own (XEP-0198), between stanzas of the
// client's.
var counting = regexp.MustCompile(`<(r|a) xmlns='urn:xmpp:sm:3'[^>]*/>`)

// With policy never the proxy is a wire: every byte arrives as it was sent.
func TestNeverIsByteExact(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "otr: [{policy: never}]\n")
	alice := b.login("alice", client.STARTTLS)
	odd := `<message   to="bob@example.org" id='1'
 type="chat"><body>a &lt;b&gt; &#65;<![CDATA[ <x> ]]></body><x:y xmlns:x='urn:x' x:z="1"  /></message>` +
		"\n" + `<presence><status>  two  spaces </status></presence><iq id="q" type='get'><ping xmlns="urn:xmpp:ping"/></iq> `
	alice.Send(odd)
	if !s.Wait(func(r []byte) bool { return bytes.Contains(counting.ReplaceAll(r, nil), []byte(odd)) }) {
		t.Errorf("the server received %s", s.Received())
	}
}

// What the server must never have got when it is not the right one.
func TestHostileServers(t *testing.T) {
	rogue, err := server.SelfSigned(domain)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name      string
		faults    server.Faults
		cert      *tls.Certificate // presented instead of the pinned one
		trust     string
		condition string
		says      string
		cause     string
		login     bool // the refusal comes at the login
	}{
		{name: "wrong pin", cert: &rogue, trust: "pin", condition: "policy-violation", says: "not the one you pinned", cause: "pin_mismatch"},
		{name: "rogue self-signed", cert: &rogue, trust: "tofu", condition: "policy-violation", says: "otrproxy pin add example.org sha256:", cause: "certificate"},
		{name: "rogue under ca", cert: &rogue, trust: "ca", condition: "policy-violation", says: "not vouched for", cause: "certificate"},
		{name: "STARTTLS stripped", faults: server.Faults{NoSTARTTLS: true}, trust: "pin", condition: "policy-violation", says: "no encryption", cause: "starttls_stripped"},
		{name: "bytes behind proceed", faults: server.Faults{BehindProceed: "<message/>"}, trust: "pin", condition: "policy-violation", says: "behind its answer to STARTTLS", cause: "starttls_injection"},
		{name: "malformed XML", faults: server.Faults{InsteadOfAll: "<?xml version='1.0'?><!DOCTYPE x>"}, trust: "pin", condition: "remote-connection-failed", says: "not XMPP", cause: "protocol"},
		{name: "closes at once", faults: server.Faults{InsteadOfAll: " "}, trust: "pin", condition: "remote-connection-failed", says: "not XMPP", cause: "protocol"},
		{name: "says nothing", faults: server.Faults{Silent: true}, trust: "pin", condition: "remote-connection-failed", says: "in time", cause: "timeout"},
		{name: "bad server signature", faults: server.Faults{BadSignature: true}, trust: "pin", condition: "temporary-auth-failure", says: "could not prove", cause: "sasl", login: true},
		{name: "huge iteration count", faults: server.Faults{Iterations: 1 << 30}, trust: "pin", condition: "temporary-auth-failure", says: "rounds of hashing", cause: "sasl", login: true},
		{name: "malformed challenge", faults: server.Faults{Challenge: "r=,,,=="}, trust: "pin", condition: "temporary-auth-failure", says: "malformed", cause: "sasl", login: true},
		{name: "list of mechanisms changed", faults: server.Faults{BadDowngrade: true}, trust: "pin", condition: "temporary-auth-failure", says: "changed the list", cause: "sasl", login: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, server.Config{Faults: c.faults, Cert: c.cert})
			pin := s.Pin()
			if c.cert != nil {
				pin = "sha256:" + strings.Repeat("AB", 32)
			}
			pins := fmt.Sprintf(", pins: [%q]", pin)
			if c.trust != "pin" {
				pins = ""
			}
			dir := stateDir(t)
			b := startConfigured(t, dir, fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\nlimits: {login: 2s}\ndomains:\n  %s: {connect: %q, trust: %s%s}\n", dir, domain, s.Addr(), c.trust, pins))
			for _, entry := range []client.Entry{client.Plain, client.STARTTLS} {
				_, err := client.Dial(t.Context(), b.config("alice", entry))
				var condition, says string
				var se *client.StreamError
				var le *client.LoginError
				if errors.As(err, &se) {
					condition, says = se.Condition, se.Text
				} else if errors.As(err, &le) {
					condition, says = le.Condition, le.Text
				}
				if condition != c.condition || !strings.Contains(says, c.says) || (le != nil) != c.login {
					t.Errorf("%s: %v", entry, err)
				}
				if c.cause == "timeout" {
					break
				}
			}
			seen := string(s.Received())
			if strings.Contains(seen, "wonderland") || strings.Contains(seen, "d29uZGVybGFuZA") {
				t.Error("the server has the password")
			}
			if !c.login && (strings.Contains(seen, "<auth") || strings.Contains(seen, "alice")) {
				t.Errorf("the server was told something: %s", seen)
			}
			if got := metric(b, `otrproxy_upstream_failures_total{cause="`+c.cause+`"}`); got == "0" || got == "absent" {
				t.Errorf("metric %s: %s", c.cause, got)
			}
		})
	}
}

func TestWrongPassword(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	cfg := b.config("alice", client.STARTTLS)
	cfg.Password = "guess"
	c, err := client.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Drop()
	var le *client.LoginError
	if err := c.Login(); !errors.As(err, &le) || le.Condition != "not-authorized" {
		t.Errorf("%v", err)
	}
	// Nobody else is harmed.
	b.login("bob", client.Plain)
}

func TestMechanisms(t *testing.T) {
	for _, c := range []struct {
		mechs    []string
		maxTLS   uint16
		bindings bool
		more     string
		want     string // as status shows it; a condition where the login must fail
	}{
		{[]string{"PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-512-PLUS", "SCRAM-SHA-256-PLUS"}, 0, true, "", "SCRAM-SHA-512-PLUS tls-exporter"},
		{[]string{"SCRAM-SHA-1-PLUS", "SCRAM-SHA-1"}, tls.VersionTLS12, false, "", "SCRAM-SHA-1-PLUS tls-unique"},
		{[]string{"SCRAM-SHA-1", "PLAIN", "SCRAM-SHA-256"}, 0, false, "", "SCRAM-SHA-256"},
		{[]string{"PLAIN"}, 0, false, "", "mechanism-too-weak"},
		{[]string{"PLAIN"}, 0, false, "plain_upstream: true, ", "PLAIN"},
		{[]string{"X-OAUTH2"}, 0, false, "plain_upstream: true, ", "mechanism-too-weak"},
	} {
		t.Run(strings.Join(c.mechs, " ")+c.more, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, server.Config{Mechanisms: c.mechs, MaxTLS: c.maxTLS, Bindings: c.bindings})
			dir := stateDir(t)
			b := startConfigured(t, dir, fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\ndomains:\n  %s: {%sconnect: %q, tls: direct, trust: pin, pins: [%q]}\n", dir, domain, c.more, s.Addr(), s.Pin()))
			cl, err := client.Dial(t.Context(), b.config("alice", client.Direct))
			var le *client.LoginError
			if errors.As(err, &le) {
				if le.Condition != c.want {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Drop()
			if got := statusOf(t, b).Sessions[0].SASL; got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func statusOf(t *testing.T, b *box) control.Status {
	t.Helper()
	r, err := admin(t, b.p, "status")
	if err != nil {
		t.Fatal(err)
	}
	return r.Data.(control.Status)
}

// admin runs a command as the administrator; args are names and values by turns.
func admin(t *testing.T, p *proxy.Proxy, name string, args ...string) (control.Reply, error) {
	t.Helper()
	m := map[string]string{}
	for i := 0; i < len(args); i += 2 {
		m[args[i]] = args[i+1]
	}
	if name == "key import" { // as the command line does
		files, err := commands.ReadProfiles(strings.Split(m["path"], "\n"))
		if err != nil {
			return control.Reply{}, err
		}
		if m["path"], err = control.Pack(files); err != nil {
			return control.Reply{}, err
		}
	}
	r, err := p.Commands().Run(t.Context(), control.Actor{Place: control.InShell}, name, m)
	if err == nil && len(r.Files) > 0 {
		err = commands.WriteFiles(m["directory"], r.Files)
	}
	return r, err
}

func TestUnknownDomainAndServerDown(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	cfg := b.config("alice", client.Plain)
	cfg.JID = "alice@elsewhere.example"
	var se *client.StreamError
	if _, err := client.Dial(t.Context(), cfg); !errors.As(err, &se) || se.Condition != "host-unknown" || !strings.Contains(se.Text, "elsewhere.example") {
		t.Errorf("%v", err)
	}
	s.Close()
	if _, err := client.Dial(t.Context(), b.config("alice", client.Plain)); !errors.As(err, &se) || se.Condition != "remote-connection-failed" || !strings.Contains(se.Text, "cannot be reached") {
		t.Errorf("%v", err)
	}
}

// A domain whose certificate was refused is reachable at once when a person has
// accepted it.
func TestTrustOnFirstUse(t *testing.T) {
	cert, err := server.SelfSigned(domain)
	if err != nil {
		t.Fatal(err)
	}
	s := startServer(t, server.Config{Cert: &cert})
	dir := stateDir(t)
	text := fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\ndomains:\n  %s: {connect: %q}\n", dir, domain, s.Addr())
	b := startConfigured(t, dir, text)
	_, err = client.Dial(t.Context(), b.config("alice", client.Plain))
	var se *client.StreamError
	if !errors.As(err, &se) {
		t.Fatal(err)
	}
	_, line, ok := strings.Cut(se.Text, "accept it with: otrproxy ")
	if !ok {
		t.Fatalf("no remedy in %q", se.Text)
	}
	words := strings.Fields(line)
	if _, err := admin(t, b.p, words[0]+" "+words[1], "domain", words[2], "pin", words[3]); err != nil {
		t.Fatal(err)
	}
	b.login("alice", client.Plain)
	b.stop()
	// It is remembered, and another certificate is refused.
	s.Close()
	other := startServer(t, server.Config{})
	b = startConfigured(t, dir, strings.ReplaceAll(text, s.Addr(), other.Addr()))
	if _, err = client.Dial(t.Context(), b.config("alice", client.Plain)); !errors.As(err, &se) || !strings.Contains(se.Text, "not the one you pinned") {
		t.Errorf("%v", err)
	}
	if strings.Contains(string(other.Received()), "<auth") {
		t.Error("a login was sent")
	}
}

// With a valid chain the first key is remembered by itself; a rogue CA-valid
// certificate is refused afterwards (jabber.ru, 2023).
func TestRogueCA(t *testing.T) {
	first, _ := server.SelfSigned(domain)
	second, _ := server.SelfSigned(domain)
	roots := x509.NewCertPool()
	roots.AddCert(first.Leaf)
	roots.AddCert(second.Leaf)
	s := startServer(t, server.Config{Cert: &first})
	dir := stateDir(t)
	run := func(addr string) *client.StreamError {
		cfg, err := config.Parse("t", fmt.Appendf(nil, "listen: [\"127.0.0.1:0\"]\nstate: %q\ndomains:\n  %s: {connect: %q}\n", dir, domain, addr))
		if err != nil {
			t.Fatal(err)
		}
		p, err := proxy.New(cfg, proxy.Options{Roots: roots})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Listen(); err != nil {
			t.Fatal(err)
		}
		go p.Serve()
		defer p.Shutdown(time.Second)
		c, err := client.Dial(t.Context(), client.Config{Addr: p.Addrs()[0].String(), JID: "alice@" + domain, Password: "wonderland", Entry: client.Plain})
		if err == nil {
			c.Close()
			return nil
		}
		var se *client.StreamError
		if !errors.As(err, &se) {
			t.Fatal(err)
		}
		return se
	}
	if se := run(s.Addr()); se != nil {
		t.Fatal(se)
	}
	evil := startServer(t, server.Config{Cert: &second})
	if se := run(evil.Addr()); se == nil || se.Condition != "policy-violation" {
		t.Errorf("%v", se)
	}
	if bytes.Contains(evil.Received(), []byte("<auth")) {
		t.Error("the rogue server was given a login")
	}
}

// A contact without OTR: nothing readable at the server, the message comes back
// under its own id.
func TestContactWithoutOTR(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "hold: {for: 1s}\n")
	bob, err := client.Dial(t.Context(), client.Config{Addr: s.Addr(), JID: "bob@" + domain, Password: "builder", Entry: client.STARTTLS, Mechanism: "SCRAM-SHA-256-PLUS", Binding: "tls-exporter"})
	if err != nil {
		t.Fatal(err)
	}
	defer bob.Drop()
	bob.Send("<presence/>")
	alice := b.login("alice", client.STARTTLS)
	if _, err := alice.Wait(func(st *stanza.Stanza) bool {
		return st.Is(stanza.NSClient, "presence") && strings.HasPrefix(st.Root().Attr("from"), "bob@")
	}); err != nil {
		t.Fatal(err)
	}
	alice.Say("bob@"+domain, "my-own-id", "CANARY")
	st, err := alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("type") == "error" })
	if err != nil {
		t.Fatal(err)
	}
	if st.Root().Attr("id") != "my-own-id" || !bytes.Contains(st.Raw, []byte("policy-violation")) || !bytes.Contains(st.Raw, []byte("did not answer with OTR")) {
		t.Errorf("%s", st.Raw)
	}
	if bytes.Contains(s.Received(), []byte("CANARY")) {
		t.Error("leaked")
	}
}

func TestShutdownGivesBack(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	alice := b.login("alice", client.STARTTLS)
	alice.Say("carol@"+domain, "waiting", "x")
	if !s.Wait(func(r []byte) bool { return bytes.Contains(r, []byte("?OTRv23?")) }) {
		t.Fatal("no query")
	}
	go b.stop()
	if _, err := alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "waiting" }); err != nil {
		t.Error(err)
	}
	var se *client.StreamError
	if err := alice.Err(); !errors.As(err, &se) || se.Condition != "system-shutdown" {
		t.Errorf("%v", err)
	}
	b.stop()
}

func TestServerGoesAway(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	alice := b.login("alice", client.STARTTLS)
	s.Cut()
	var se *client.StreamError
	if err := alice.Err(); !errors.As(err, &se) || se.Condition != "remote-connection-failed" {
		t.Errorf("%v", err)
	}
}

// What a client does wrong ends its own session only, with a sentence.
func TestBadClients(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "limits: {login: 1s, stanza: 20KiB}\n")
	other := b.login("bob", client.Plain)
	raw := func(in string) string {
		c, err := net.Dial("tcp", b.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		go io.WriteString(c, in)
		out, _ := io.ReadAll(c)
		return string(out)
	}
	const head = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='example.org' version='1.0'>"
	for name, c := range map[string]struct{ in, want string }{
		"never logs in":         {head, "<connection-timeout "},
		"says nothing":          {"", ""},
		"not XML":               {"<<<>", "<not-well-formed "},
		"comment":               {head + "<!-- x -->", "<restricted-xml "},
		"entity":                {head + "<a>&x;</a>", "<restricted-xml "},
		"oversized":             {head + "<a>" + strings.Repeat("x", 40<<10), "<policy-violation "},
		"behind STARTTLS":       {head + "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><auth/>", "<policy-violation "},
		"message before login":  {head + "<message to='bob@example.org'><body>x</body></message>", "<not-authorized "},
		"other namespace":       {"<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' to='example.org'>", "<invalid-namespace "},
		"no domain":             {strings.Replace(head, "to='example.org'", "", 1), "<host-unknown "},
		"unknown mechanism":     {head + "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='X'>=</auth>", "<invalid-mechanism/>"},
		"malformed PLAIN":       {head + "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>eHg=</auth>", "<malformed-request/>"},
		"somebody else's authz": {head + "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>Ym9iQGV4YW1wbGUub3JnAGFsaWNlAHg=</auth>", "<invalid-authzid/>"},
		"HTTP":                  {"GET / HTTP/1.1\r\n\r\n", ""},
		"SOCKS":                 {"\x05\x01\x00", ""},
	} {
		if got := raw(c.in); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s", name, got)
		}
	}
	for name, c := range map[string]struct{ in, want string }{
		"malformed in the session": {"<message></presence>", "not-well-formed"},
		"oversized in the session": {"<message><body>" + strings.Repeat("x", 40<<10), "policy-violation"},
		"no stanza":                {"<hello xmlns='jabber:client'/>", "unsupported-stanza-type"},
		"not offered":              {"<authenticate xmlns='urn:xmpp:sasl:2'/>", "unsupported-stanza-type"},
	} {
		cl := b.login("alice", client.Plain)
		cl.Send(c.in)
		var se *client.StreamError
		if err := cl.Err(); !errors.As(err, &se) || se.Condition != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	other.Say("bob@"+domain, "alive", "!otr status")
	if _, err := other.Notice("otrproxy test"); err != nil {
		t.Error(err)
	}
}
