package proxy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/proxy"
	"otrproxy/stanza"
)

// renewing has alice at a gate whose server will get another certificate.
func renewing(t *testing.T, settings, more string, life time.Duration) *zooWorld {
	t.Helper()
	w := &zooWorld{t: t, gate: newGate(t), ca: newNotary(t)}
	w.cert = w.ca.signs(t, domain, life)
	w.good = startServer(t, server.Config{Cert: w.cert})
	w.gate.leads(w.good)
	dir := stateDir(t)
	w.b = startWith(t, dir, fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\ndomains:\n  %s: {connect: %q, %s}\n%s", dir, domain, w.gate.addr(), strings.ReplaceAll(settings, "SPKI", spki(w.cert.Leaf)), strings.ReplaceAll(more, "DIR", dir)),
		proxy.Options{Roots: w.ca.roots()})
	return w
}

func (w *zooWorld) admin(name string, args ...string) string {
	w.t.Helper()
	r, err := admin(w.t, w.b.p, name, args...)
	if err != nil {
		w.t.Fatalf("%s: %v", name, err)
	}
	return r.Text
}

// A change that was announced interrupts nothing: who is connected stays, and who comes
// is let in; the pin is in force from then on, and people are told once.
func TestRenewalAnnounced(t *testing.T) {
	for _, settings := range []string{"trust: tofu", "trust: pin, pins: [\"SPKI\"]", "trust: ca+pin, pins: [\"SPKI\"]"} {
		w := renewing(t, settings, "notify: {command: [sh, -c, 'echo $OTRPROXY_EVENT >> DIR/events'], events: [server-renewed, server-refused]}\n", long)
		alice := w.b.login("alice", client.Plain)
		next := w.ca.signs(t, domain, long)
		w.admin("pin add", "domain", domain, "pin", spki(next.Leaf), "next", "yes")
		if list := w.admin("pin list"); !strings.Contains(list, spki(next.Leaf)+" (next, command)") {
			t.Errorf("%s: %s", settings, list)
		}
		w.good.SetCertificate(next)
		alice.Send("<iq type='get' id='ping'><ping xmlns='urn:xmpp:ping'/></iq>")
		if _, err := alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "ping" }); err != nil {
			t.Errorf("%s: who was connected was cut: %v", settings, err)
		}
		bob := w.b.login("bob", client.Plain)
		if _, err := bob.Notice("has the new certificate that was announced: " + spki(next.Leaf)); err != nil {
			t.Errorf("%s: nobody was told: %v", settings, err)
		}
		if list := w.admin("pin list"); !strings.Contains(list, spki(next.Leaf)+" (current, command, last seen "+time.Now().UTC().Format(time.DateOnly)) {
			t.Errorf("%s: afterwards: %s", settings, list)
		}
		if n := metric(w.b, `otrproxy_upstream_failures_total{cause="pin_mismatch"}`); n != "0" {
			t.Errorf("%s: %s refused", settings, n)
		}
		told(t, filepath.Join(w.b.state, "events"), "server-renewed")
		// The old one goes when a person says so.
		if settings == "trust: tofu" {
			w.admin("pin remove", "domain", domain, "pin", spki(w.cert.Leaf))
			w.good.SetCertificate(w.cert)
			if err := w.login(); err == nil || !strings.Contains(err.Error(), "is not the one you pinned") {
				t.Errorf("the old certificate: %v", err)
			}
		}
	}
}

// One that was not stops everything, and says what to do; one command goes on.
func TestRenewalUnannounced(t *testing.T) {
	w := renewing(t, "trust: tofu", "admins: [\"alice@example.org\"]\nnotify: {command: [sh, -c, 'echo $OTRPROXY_EVENT >> DIR/events'], events: [server-refused]}\n", long)
	alice := w.b.login("alice", client.Plain) // an administrator, who stays connected
	w.admin("login confirm", "account", "alice@"+domain)
	next := w.ca.signs(t, domain, long)
	w.good.SetCertificate(next)
	_, err := client.Dial(t.Context(), w.b.config("bob", client.Plain))
	if err == nil || !strings.Contains(err.Error(), "is not the one you pinned") {
		t.Fatalf("bob: %v", err)
	}
	for _, format := range []string{"sha256:", "spki-sha256:", "SHA-1, to compare with old notes only: "} {
		if !strings.Contains(err.Error(), format) {
			t.Errorf("%s is not told: %v", format, err)
		}
	}
	told(t, filepath.Join(w.b.state, "events"), "server-refused")
	line, err := alice.Notice("is not the one you pinned")
	if err != nil || strings.Contains(line, "otrproxy pin add") {
		t.Fatalf("alice was told %q, %v", line, err)
	}
	// She decides in the chat, by the very words she was told.
	i := strings.Index(line, "pin add ")
	alice.Say("otrproxy.localhost", "decide", line[i:])
	if _, err := alice.Notice("is held to "); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Dial(t.Context(), w.b.config("bob", client.Plain)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Decisions about servers are an administrator's, in a chat too.
func TestAdmins(t *testing.T) {
	w := renewing(t, "trust: tofu", "admins: [\"alice@example.org\"]\n", long)
	alice, bob := w.b.login("alice", client.Plain), w.b.login("bob", client.Plain)
	w.admin("login confirm", "account", "alice@"+domain)
	for _, c := range []string{"pin list", "pin show example.org", "pin probe example.org", "doctor example.org"} {
		bob.Say("otrproxy.localhost", "", c)
		if _, err := bob.Notice("his is for the administrator"); err != nil {
			t.Errorf("bob, %s: %v", c, err)
		}
		alice.Say("otrproxy.localhost", "", c)
		if line, err := alice.Notice("example.org"); err != nil || strings.Contains(line, "his is for the administrator") {
			t.Errorf("alice, %s: %q %v", c, line, err)
		}
	}
	pin := "sha256:" + strings.Repeat("AB:", 31) + "AB"
	bob.Say("carol@example.org", "", "!otr pin add example.org "+pin)
	if _, err := bob.Notice("his is for the administrator"); err != nil {
		t.Error(err)
	}
	if strings.Contains(w.admin("pin list"), pin) {
		t.Error("bob has added a pin")
	}
	alice.Say("carol@example.org", "", "!otr pin add example.org "+pin+" --next")
	if _, err := alice.Notice("is held to " + pin); err != nil {
		t.Error(err)
	}
	for _, c := range []string{"key export alice@example.org /tmp", "reload", "login forget bob@example.org", "ca export"} { // not even an administrator
		alice.Say("otrproxy.localhost", "", c)
		if _, err := alice.Notice("his is for the administrator"); err != nil {
			t.Errorf("alice, %s: %v", c, err)
		}
	}
	if !strings.Contains(w.admin("pin list"), pin+" (next, command)") {
		t.Error(w.admin("pin list"))
	}
}

// A certificate that ends soon is told of once, where the next one is not known.
func TestEnding(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		settings string
		life     time.Duration
		want     string
	}{
		{"trust: tofu", 40 * day, ""}, {"trust: tofu", 10 * day, "another key than the one that is pinned"},
		{"trust: pin, pins: [\"LEAF\"]", 40 * day, ""}, {"trust: pin, pins: [\"LEAF\"]", 20 * day, "will not satisfy the pin"}, {"trust: pin, pins: [\"LEAF\"]", -day, "has ended on"},
		{"trust: ca", 10 * day, ""}, {"trust: ca", 5 * day, "nobody can log in from then on"},
	} {
		leaf := ""
		if strings.Contains(c.settings, "LEAF") {
			leaf = "LEAF"
		}
		w := renewing(t, strings.ReplaceAll(c.settings, "\"LEAF\"", "\"SPKI\""), "", c.life)
		if leaf != "" { // the certificate itself, instead of its key
			w.b.stop()
			dir := w.b.state
			w.b = startWith(t, dir, fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\ndomains:\n  %s: {connect: %q, trust: pin, pins: [%q]}\nnotify: {command: [sh, -c, 'echo $OTRPROXY_EVENT >> %s/events'], events: [server-expiring]}\n", dir, domain, w.gate.addr(), w.good.Pin(), dir), proxy.Options{Roots: w.ca.roots()})
		}
		for range 2 {
			if err := w.login(); err != nil {
				t.Fatalf("%+v: %v", c, err)
			}
		}
		st := statusOf(t, w.b)
		switch {
		case c.want == "" && len(st.Decisions) > 0:
			t.Errorf("%+v: %+v", c, st.Decisions)
		case c.want != "" && (len(st.Decisions) != 1 || st.Decisions[0].Kind != "server-expiring" || !strings.Contains(st.Decisions[0].Text, c.want)):
			t.Errorf("%+v: %+v", c, st.Decisions)
		case c.want != "" && strings.Count(w.b.log.String(), "ends soon") != 1:
			t.Errorf("%+v: not told once:\n%s", c, w.b.log)
		}
		if c.want == "" || strings.Contains(c.settings, "ca") {
			continue
		}
		if leaf != "" {
			told(t, filepath.Join(w.b.state, "events"), "server-expiring")
		}
		w.admin("pin add", "domain", domain, "pin", "sha256:"+strings.Repeat("AB:", 31)+"AB", "next", "yes")
		if st := statusOf(t, w.b); len(st.Decisions) > 0 {
			t.Errorf("%+v: the next one is known, and still: %+v", c, st.Decisions)
		}
	}
}

// Pins can be written down by hand; damaged files stop the start.
func TestPinSlots(t *testing.T) {
	dir := stateDir(t)
	pin := "sha256:" + strings.Repeat("AB:", 31) + "AB"
	os.WriteFile(filepath.Join(dir, "pins.yaml"), []byte("example.org:\n  - {pin: \""+pin+"\", slot: next, source: command}\n"), 0o600)
	s := startServer(t, server.Config{})
	b := startConfigured(t, dir, configFor(s, dir))
	for _, c := range []struct{ next, want string }{{"", "current"}, {"yes", "next"}, {"yes", "next"}, {"", "current"}} {
		if _, err := admin(t, b.p, "pin add", "domain", domain, "pin", pin, "next", c.next); err != nil {
			t.Fatal(err)
		}
		if r, _ := admin(t, b.p, "pin list"); !strings.Contains(r.Text, pin+" ("+c.want+", command)") || strings.Count(r.Text, pin) != 1 {
			t.Errorf("next %q: %s", c.next, r.Text)
		}
	}
}

// A server that sends its clients elsewhere, over the checked connection: we go there, to
// the same server by the same pin, and the client never hears of it.
func TestMoved(t *testing.T) {
	w := renewing(t, "trust: tofu", "", long)
	if err := w.login(); err != nil {
		t.Fatal(err)
	}
	moves := func(b *beast, to string) {
		b.secures(w.cert)
		b.greets("<stream:error><see-other-host xmlns='" + stanza.NSStreams + "'>" + to + "</see-other-host></stream:error></stream:stream>")
	}
	w.b.counts("otrproxy_sessions", "0")
	w.gate.holds(func(b *beast) { moves(b, w.good.Addr()) })
	alice := w.b.login("alice", client.Plain)
	if st := statusOf(t, w.b).Sessions[0]; st.Address != w.good.Addr() {
		t.Errorf("connected to %s", st.Address)
	}
	// In the middle of a session the client is sent away, and comes back to us.
	w.gate.leads(w.good)
	other := newGate(t)
	other.leads(w.good)
	w.good.Send("alice", "<stream:error><see-other-host xmlns='"+stanza.NSStreams+"'>"+other.addr()+"</see-other-host></stream:error></stream:stream>")
	if err := alice.Err(); err == nil || strings.Contains(err.Error(), other.addr()) {
		t.Errorf("the client was told %v", err)
	}
	alice = w.b.login("alice", client.Plain)
	if other.dialed.Load() != 1 {
		t.Error("the next connection did not go there")
	}
	// Once only, and not where nobody is.
	gone := newGate(t)
	gone.l.Close()
	w.good.Send("alice", "<stream:error><see-other-host xmlns='"+stanza.NSStreams+"'>"+gone.addr()+"</see-other-host></stream:error></stream:stream>")
	alice.Err()
	w.b.login("alice", client.Plain)
	if other.dialed.Load() != 1 {
		t.Error("a server's word was kept for more than one connection")
	}
}

// Where the place that a server sends its clients to is another server, nobody goes back
// to the first as if nothing had been.
func TestMovedToAStranger(t *testing.T) {
	w := renewing(t, "trust: tofu", "", long)
	w.gate.leads(w.good)
	alice := w.b.login("alice", client.Plain)
	w.good.Send("alice", "<stream:error><see-other-host xmlns='"+stanza.NSStreams+"'>"+startServer(t, server.Config{Cert: newNotary(t).signs(t, domain, long)}).Addr()+"</see-other-host></stream:error></stream:stream>")
	alice.Err()
	before := w.gate.dialed.Load()
	if err := w.login(); err == nil || !strings.Contains(err.Error(), "policy-violation") {
		t.Errorf("the stranger: %v", err)
	}
	if w.gate.dialed.Load() != before {
		t.Error("the first was dialled behind it")
	}
}

// What a server presents is looked at by two ways.
func TestProbeTwoWays(t *testing.T) {
	w := renewing(t, "trust: tofu", "", long)
	w.gate.leads(w.good)
	if _, err := admin(t, w.b.p, "pin probe", "domain", domain, "via", "http://127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "is not socks5://") {
		t.Errorf("a wrong way: %v", err)
	}
	if _, err := admin(t, w.b.p, "pin probe", "domain", domain, "via", "socks5://127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "nothing was compared") || !strings.Contains(err.Error(), spki(w.cert.Leaf)) {
		t.Errorf("a way that is closed: %v", err)
	}
}

// A certificate is public; who shows it without its key has shown nothing.
func TestCertificateWithoutItsKey(t *testing.T) {
	w := renewing(t, "trust: tofu", "", long)
	thief := newNotary(t)
	stolen := *w.cert
	stolen.PrivateKey = thief.key
	w.gate.holds(func(b *beast) { b.secures(&stolen); b.waits() })
	if err := w.login(); err == nil {
		t.Error("let in")
	}
	if list := w.admin("pin list"); !strings.Contains(list, "no pins yet") {
		t.Errorf("remembered: %s", list)
	}
	w.gate.leads(w.good)
	if err := w.login(); err != nil {
		t.Fatal(err)
	}
	next := w.ca.signs(t, domain, long)
	w.admin("pin add", "domain", domain, "pin", spki(next.Leaf), "next", "yes")
	stolen = *next
	stolen.PrivateKey = thief.key
	w.gate.holds(func(b *beast) { b.secures(&stolen); b.waits() })
	if err := w.login(); err == nil {
		t.Error("let in")
	}
	if list := w.admin("pin list"); !strings.Contains(list, spki(next.Leaf)+" (next, command)") {
		t.Errorf("taken for the announced change: %s", list)
	}
	// Neither does looking change anything.
	w.good.SetCertificate(next)
	w.gate.leads(w.good)
	w.admin("pin probe", "domain", domain)
	w.admin("doctor", "name", domain)
	if list := w.admin("pin list"); !strings.Contains(list, spki(next.Leaf)+" (next, command)") {
		t.Errorf("a look was taken for the announced change: %s", list)
	}
}
