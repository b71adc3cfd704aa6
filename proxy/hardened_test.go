package proxy_test

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"otrproxy/config"
	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/proxy"
	"otrproxy/stanza"
	"otrproxy/test/dns"
)

// A talk is a client's stream by hand.
type talk struct {
	t    *testing.T
	conn net.Conn
	scan *stanza.Scanner
}

func (b *box) talk() *talk {
	b.t.Helper()
	conn, err := net.Dial("tcp", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	x := &talk{b.t, conn, stanza.NewScanner(conn, stanza.Limits{})}
	io.WriteString(conn, rhead)
	x.next()
	return x
}

func (x *talk) next() *stanza.Stanza {
	x.t.Helper()
	for {
		st, err := x.scan.Next()
		if err != nil {
			x.t.Fatal(err)
		}
		if st.Kind == stanza.KindElement {
			return st
		}
	}
}

func (x *talk) auth(mech, initial string) *stanza.Stanza {
	x.t.Helper()
	fmt.Fprintf(x.conn, "<auth xmlns='%s' mechanism='%s'>%s</auth>", stanza.NSSASL, mech, base64.StdEncoding.EncodeToString([]byte(initial)))
	return x.next()
}

// The connection on which an account was asked for, or one failed to log in, is not
// another account's.
func TestHardenedViaAfterRegister(t *testing.T) {
	w := through(t, "", "")
	x := w.b.talk()
	io.WriteString(x.conn, "<iq type='get' id='1'><query xmlns='jabber:iq:register'/></iq>")
	x.next()
	x.auth("PLAIN", "\x00alice\x00wrong")
	if st := x.auth("PLAIN", "\x00bob\x00builder"); string(st.Root().Local()) != "success" {
		t.Fatalf("%s", st.Raw)
	}
	asked := w.socks.Asked()
	if len(asked) < 2 || asked[len(asked)-1].User == asked[len(asked)-2].User {
		t.Errorf("bob came on alice's circuit: %+v", asked)
	}
}

// Who registers carol and then logs in as alice, does not show that they are one.
func TestHardenedViaRegisterThenOther(t *testing.T) {
	w := through(t, "", "")
	x := w.b.talk()
	io.WriteString(x.conn, "<iq type='set' id='1'><query xmlns='jabber:iq:register'><username>dora</username><password>explorer</password></query></iq>")
	x.next()
	if st := x.auth("PLAIN", "\x00alice\x00wonderland"); string(st.Root().Local()) != "success" {
		t.Fatalf("%s", st.Raw)
	}
	if asked := w.socks.Asked(); len(asked) != 2 || asked[0].User == asked[1].User {
		t.Errorf("a circuit was shared: %+v", asked)
	}
}

// via that is set while a client is about to log in: the connection straight to the server
// is not used.
func TestHardenedViaByReload(t *testing.T) {
	w := through(t, "", "")
	// straight first
	straight := fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\ndomains:\n  %s: {connect: %q, trust: pin, pins: [%q]}\n", w.b.state, domain, w.s.Addr(), w.s.Pin())
	via, err := config.Parse("t", []byte(fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\ndomains:\n  %s: {via: \"socks5://%s\", trust: pin, pins: [%q]}\n", w.b.state, domain, w.socks.Addr(), w.s.Pin())))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := config.Parse("t", []byte(straight))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.b.p.Reload(plain); err != nil {
		t.Fatal(err)
	}
	x := w.b.talk() // connected straight
	if err := w.b.p.Reload(via); err != nil {
		t.Fatal(err)
	}
	x.auth("PLAIN", "\x00alice\x00wonderland")
	if len(w.socks.Asked()) == 0 {
		t.Error("the login went straight, although via is in force")
	}
}

// Somebody on this machine who names accounts that are not enrolled does not have others
// hand over their passwords.
func TestHardenedStrangerHidesSCRAM(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	if _, err := admin(t, b.p, "login enroll", "account", "alice@"+domain, "password", "wonderland"); err != nil {
		t.Fatal(err)
	}
	said := func(c *client.Config) { c.From = true }
	before := fmt.Sprint(offers(b.open("alice", said)))
	if st := b.talk().auth("SCRAM-SHA-256", "n,,n=nobody,r=abc"); string(st.Root().Local()) != "failure" {
		t.Fatalf("%s", st.Raw)
	}
	if got := fmt.Sprint(offers(b.open("alice", said))); got != before {
		t.Errorf("alice is offered %s, and was offered %s", got, before)
	}
}

// downgraded has alice enrolled and logged in, and then the server offers less.
func downgraded(t *testing.T, before, after []string) (*zooWorld, error) {
	w := &zooWorld{t: t, gate: newGate(t), ca: newNotary(t)}
	w.cert = w.ca.signs(t, domain, long)
	w.good = startServer(t, server.Config{Cert: w.cert, Mechanisms: before})
	w.gate.leads(w.good)
	dir := stateDir(t)
	w.b = startWith(t, dir, fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\ndomains:\n  %s: {connect: %q, trust: tofu, plain_upstream: true}\n", dir, domain, w.gate.addr()), proxy.Options{Roots: w.ca.roots()})
	w.admin("login enroll", "account", "alice@"+domain, "password", "wonderland")
	w.gate.leads(startServer(t, server.Config{Cert: w.cert, Mechanisms: after}))
	cl := w.b.open("alice", func(c *client.Config) { c.From, c.Mechanism = true, "SCRAM-SHA-256" })
	return w, cl.Login()
}

// A server that offers an enrolled account less than before is refused for that, and does
// not end the enrolment.
func TestHardenedDowngradeOfEnrolled(t *testing.T) {
	for _, c := range [][2][]string{
		{{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"}, {"PLAIN"}},
		{{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"}, {"SCRAM-SHA-1", "PLAIN"}},
		{{"SCRAM-SHA-256"}, {"PLAIN"}},
		{{"SCRAM-SHA-256"}, {"DIGEST-MD5"}},
	} {
		w, err := downgraded(t, c[0], c[1])
		if err == nil || !strings.Contains(err.Error(), "otrproxy login forget alice@"+domain) {
			t.Errorf("%v: told %v", c, err)
		}
		if list := w.admin("login list"); !strings.Contains(list, "enrolled for SCRAM-SHA-256") {
			t.Errorf("%v: %s", c, list)
		}
	}
}

// A server that gives up one mechanism ends the enrolment for that one.
func TestHardenedStaleOne(t *testing.T) {
	w, err := downgraded(t, []string{"SCRAM-SHA-256", "SCRAM-SHA-512"}, []string{"SCRAM-SHA-512"})
	if err == nil {
		t.Fatal("let in")
	}
	if list := w.admin("login list"); !strings.Contains(list, "; enrolled for SCRAM-SHA-512") {
		t.Errorf("%v: %s", err, list)
	}
}

// "Log in with the password once": and then?
func TestHardenedOnceWithThePassword(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	if _, err := admin(t, b.p, "login enroll", "account", "alice@"+domain, "password", "wonderland"); err != nil {
		t.Fatal(err)
	}
	s.SetPassword("alice", "jabberwocky")
	cl := b.open("alice", func(c *client.Config) { c.From, c.Mechanism = true, "SCRAM-SHA-256" })
	if err := cl.Login(); err == nil || !strings.Contains(err.Error(), "Log in with the password once") {
		t.Fatal(err)
	}
	cl = b.open("alice", func(c *client.Config) { c.From, c.Password = true, "jabberwocky" })
	if err := cl.Login(); err != nil {
		t.Fatal(err)
	}
	code := statusOf(t, b).Decisions[0].Code // it is another password than before
	if _, err := admin(t, b.p, "login confirm", "account", "alice@"+domain, "code", code); err != nil {
		t.Fatal(err)
	}
	cl = b.open("alice", func(c *client.Config) { c.From, c.Mechanism, c.Password = true, "SCRAM-SHA-256", "jabberwocky" })
	if err := cl.Login(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if _, err := admin(t, b.p, "login forget", "account", "alice@"+domain); err != nil {
		t.Fatal(err)
	}
	b.login("bob", client.STARTTLS)
	if _, err := os.Stat(filepath.Join(b.state, "accounts", "bob@"+domain, "login.keys")); err == nil {
		t.Error("bob is enrolled, whom nobody has enrolled")
	}
}

// A server that makes a new salt for each login (ejabberd as it comes) cannot be enrolled
// for, and that is said at once.
func TestHardenedFreshSalts(t *testing.T) {
	s := startServer(t, server.Config{Faults: server.Faults{FreshSalts: true}})
	b := startProxy(t, s, "")
	r, err := admin(t, b.p, "login enroll", "account", "alice@"+domain, "password", "wonderland")
	if err != nil {
		if !strings.Contains(err.Error(), "salt") {
			t.Error(err)
		}
		return
	}
	cl := b.open("alice", func(c *client.Config) { c.From, c.Mechanism = true, "SCRAM-SHA-256" })
	if err := cl.Login(); err != nil {
		t.Errorf("%q, and then: %v", r.Text, err)
	}
}

// Only what is as strong as the rest is enrolled for.
func TestHardenedEnrolMixed(t *testing.T) {
	s := startServer(t, server.Config{Mechanisms: []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1"}})
	b := startProxy(t, s, "")
	for range 2 {
		if _, err := admin(t, b.p, "login enroll", "account", "alice@"+domain, "password", "wonderland"); err != nil {
			t.Fatal(err)
		}
	}
	cl := b.open("alice", func(c *client.Config) { c.From = true })
	for _, name := range offers(cl) {
		if name == "PLAIN" || strings.HasSuffix(name, "-PLUS") {
			continue
		}
		cl := b.open("alice", func(c *client.Config) { c.From, c.Mechanism = true, name })
		if err := cl.Login(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The doctor looks, and changes nothing of what is known of a certificate.
func TestHardenedDoctorLeavesNothing(t *testing.T) {
	w := renewing(t, "trust: ca", "", 20*24*time.Hour)
	w.b.login("alice", client.Plain)
	w.admin("doctor", "name", domain)
	if st := statusOf(t, w.b); len(st.Decisions) != 0 {
		t.Errorf("to decide: %+v", st.Decisions)
	}
}

// So does the one without a proxy, which did not even end well.
func TestHardenedDoctorAlone(t *testing.T) {
	ca := newNotary(t)
	s := startServer(t, server.Config{Cert: ca.signs(t, domain, 20*24*time.Hour)})
	dir := t.TempDir()
	cfg, err := config.Parse("t", fmt.Appendf(nil, "state: %q\n", dir))
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(s.Addr())
	names, err := dns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer names.Close()
	var n uint16
	fmt.Sscan(port, &n)
	names.SRV("xmpp-client", domain, "here.example", n, 0, 0)
	names.Host("here.example", "127.0.0.1")
	r, err := proxy.Doctor(t.Context(), cfg, proxy.Options{Roots: ca.roots(), Resolver: names.Resolver()}, domain)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(r.Text, "SCRAM-SHA-256") {
		t.Errorf("%s", r.Text)
	}
}

// Locked keys are not "not enrolled".
func TestHardenedLockedIsSaid(t *testing.T) {
	s := startServer(t, server.Config{})
	dir := stateDir(t)
	b := startConfigured(t, dir, configFor(s, dir))
	for _, c := range [][]string{{"login enroll", "account", "alice@" + domain, "password", "wonderland"}, {"key passphrase", "passphrase", "correct horse"}} {
		if _, err := admin(t, b.p, c[0], c[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	b.stop()
	b = startConfigured(t, dir, configFor(s, dir))
	cl := b.open("alice", func(c *client.Config) { c.From, c.Mechanism = true, "SCRAM-SHA-256" })
	err := cl.Login()
	var le *client.LoginError
	if !errors.As(err, &le) || le.Condition != "temporary-auth-failure" || !strings.Contains(err.Error(), "key unlock") {
		t.Errorf("told: %v", err)
	}
}

// A pin for later does not lock out what is there now.
func TestHardenedNextAlone(t *testing.T) {
	w := renewing(t, "trust: tofu", "", long)
	next := w.ca.signs(t, domain, long)
	_, err := admin(t, w.b.p, "pin add", "domain", domain, "pin", spki(next.Leaf), "next", "yes")
	if _, lerr := client.Dial(t.Context(), w.b.config("alice", client.Plain)); lerr != nil {
		t.Errorf("(%v), and then: %v", err, lerr)
	}
}

// A domain that is not pinned has no pin to come.
func TestHardenedExpiringCA(t *testing.T) {
	w := renewing(t, "trust: ca", "", 2*24*time.Hour)
	w.b.login("alice", client.Plain)
	st := statusOf(t, w.b)
	if len(st.Decisions) != 1 || st.Decisions[0].Kind != "server-expiring" || st.Decisions[0].Known != nil {
		t.Errorf("%+v", st.Decisions)
	}
	w = renewing(t, "trust: tofu", "", 2*24*time.Hour)
	w.b.login("alice", client.Plain)
	if st := statusOf(t, w.b); len(st.Decisions) != 1 || len(st.Decisions[0].Known) != 1 {
		t.Errorf("%+v", st.Decisions)
	}
}

// What an account's memory is damaged by stands in the log.
func TestHardenedDamagedMemory(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	b.login("alice", client.Plain).Close()
	path := filepath.Join(b.state, "accounts", "alice@"+domain, "login.yaml")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before := len(s.Received())
	if _, err := client.Dial(t.Context(), b.config("alice", client.Plain)); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Fatal(err)
	}
	if strings.Contains(string(s.Received()[before:]), "<auth") {
		t.Error("the server was asked")
	}
	if !strings.Contains(b.log.String(), "damaged") {
		t.Error("the log says nothing")
	}
	if n := metric(b, `otrproxy_upstream_failures_total{cause="account"}`); n == "0" {
		t.Error("the figures say nothing")
	}
	if _, err := admin(t, b.p, "login list"); err != nil {
		t.Errorf("one account hides the others: %v", err)
	}
}

// What a server calls its mechanisms is its own words.
func TestHardenedOfferedWords(t *testing.T) {
	s := startServer(t, server.Config{Mechanisms: []string{"X-" + strings.Repeat("A", 5000), "X-canary\u009b31m"}})
	b := startProxy(t, s, "")
	_, err := client.Dial(t.Context(), b.config("alice", client.Plain))
	if err == nil || len(err.Error()) > 1000 || strings.Contains(err.Error(), "\u009b") {
		t.Errorf("told %d characters", len(fmt.Sprint(err)))
	}
	if strings.Contains(b.log.String(), "X-") {
		t.Error("the log holds what the server wrote")
	}
}

// Two certificates by turns, which both end soon, are told of once each.
func TestHardenedByTurns(t *testing.T) {
	w := renewing(t, "trust: ca", "", 2*24*time.Hour)
	other := w.ca.signs(t, domain, 2*24*time.Hour)
	for i := range 6 {
		w.good.SetCertificate([]*tls.Certificate{w.cert, other}[i%2])
		w.b.login("bob", client.Plain).Close()
	}
	if n := strings.Count(w.b.log.String(), "the certificate of a server ends soon"); n > 2 {
		t.Errorf("told %d times", n)
	}
}

// The doctor holds a domain to what a login holds it to.
func TestHardenedDoctorDANE(t *testing.T) {
	for trusted, mechs := range map[string][]string{"dane": {"SCRAM-SHA-256"}} {
		w := attack{trust: trusted}.world(t)
		r := w.admin("doctor", "name", domain)
		if strings.Contains(r, "fail ") || strings.Contains(r, "not tried") || !strings.Contains(r, mechs[0]) {
			t.Errorf("a login works, and the doctor says:\n%s", r)
		}
	}
	w := attack{trust: "dane"}.world(t)
	w.gate.holds(func(b *beast) {
		b.secures(w.rogue.signs(t, domain, time.Hour))
		b.greets(offersSASL("PLAIN"))
		b.waits()
	})
	if r := w.admin("doctor", "name", domain); !strings.Contains(r, "fail ") || !strings.Contains(r, "not tried") {
		t.Errorf("another certificate, and the doctor says:\n%s", r)
	}
}

// A server that has no time for us does not hide its bindings.
func TestHardenedBusyIsNoDowngrade(t *testing.T) {
	for _, cond := range []string{"temporary-auth-failure", "account-disabled", "credentials-expired"} {
		w := attack{trust: "bound"}.world(t)
		w.gate.holds(func(b *beast) {
			b.secures(w.cert)
			b.greets(offersSASL("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"))
			for b.hears() != nil {
				b.says("<failure xmlns='" + stanza.NSSASL + "'><" + cond + "/></failure>")
			}
		})
		if err := w.login(); err == nil || strings.Contains(err.Error(), "in between") {
			t.Errorf("%s: told %v", cond, err)
		}
		if st := statusOf(t, w.b); len(st.Decisions) != 0 {
			t.Errorf("%s: to decide: %+v", cond, st.Decisions)
		}
	}
}

// Nothing that a client without the password says has it let in, or the server asked.
func TestHardenedNoPassword(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	if _, err := admin(t, b.p, "login enroll", "account", "alice@"+domain, "password", "wonderland"); err != nil {
		t.Fatal(err)
	}
	before := len(s.Received())
	for _, first := range []string{"n,,n=alice,r=", "n,,n=ALICE,r=x", "n,,n=alice=40example.org,r=x", "n,,n=alice@example.org,r=x", "n,a=alice@example.org,n=alice,r=x", "n,a=bob@example.org,n=alice,r=x", "y,,n=alice,r=x",
		"n,,m=x,n=alice,r=x", "n,,n=alice,r=x,e=y", "p=tls-exporter,,n=alice,r=x", ",,n=alice,r=x", "", "n", "n,,,", "n,,n=,r=x", "n,,n=alice\x00,r=x", "n,,n=alice,r=\x00", "n,,n=\xff,r=x", "n,,n=alice/phone,r=x"} {
		for _, final := range []string{"c=biws,r=NONCE,p=", "c=biws,r=NONCE,p=AAAA", "c=biws,r=NONCE,p=" + base64.StdEncoding.EncodeToString(make([]byte, 32)), "c=biws,r=NONCE", "c=biws,r=NONCE,p=x,p=" + base64.StdEncoding.EncodeToString(make([]byte, 32)),
			"c=biws,r=NONCE,m=x,p=AAAA", "", ",,", "p=", "\x00"} {
			b.p.ForgetGuesses()
			x := b.talk()
			st := x.auth("SCRAM-SHA-256", first)
			for string(st.Root().Local()) == "challenge" {
				b, _ := base64.StdEncoding.DecodeString(st.Root().Text())
				nonce, _, _ := strings.Cut(strings.TrimPrefix(string(b), "r="), ",")
				fmt.Fprintf(x.conn, "<response xmlns='%s'>%s</response>", stanza.NSSASL, base64.StdEncoding.EncodeToString([]byte(strings.ReplaceAll(final, "NONCE", nonce))))
				st = x.next()
			}
			if string(st.Root().Local()) != "failure" {
				t.Errorf("%q, %q: %s", first, final, st.Raw)
			}
			x.conn.Close()
		}
	}
	if got := s.Received()[before:]; strings.Contains(string(got), "<auth") {
		t.Errorf("the server was asked: %s", got)
	}
	if x, err := os.ReadDir(filepath.Join(b.state, "accounts")); err != nil || len(x) > 3 {
		t.Errorf("%v %v", x, err)
	}
}

// An enrolment that is refused because the server asks less than before says what to do.
func TestHardenedEnrolRefused(t *testing.T) {
	w := attack{trust: "bound"}.world(t)
	w.gate.leads(startServer(t, server.Config{Cert: w.cert, Mechanisms: []string{"SCRAM-SHA-256"}}))
	_, err := admin(t, w.b.p, "login enroll", "account", "alice@"+domain, "password", "wonderland")
	if err == nil || !strings.Contains(err.Error(), "otrproxy login forget alice@"+domain) {
		t.Errorf("told %v", err)
	}
}

// What fails on the way to a login leaves nothing running.
func TestHardenedNoLeaks(t *testing.T) {
	w := attack{trust: "pin"}.world(t)
	if err := w.login(); err != nil {
		t.Fatal(err)
	}
	before := goroutines()
	for i, f := range []func(*beast){
		func(b *beast) { b.secures(w.cert); b.greets(offersSASL("PLAIN")) },
		func(b *beast) { b.secures(w.cert) },
		func(b *beast) { b.greets(offersSASL("PLAIN")) },
		func(b *beast) { b.secures(w.cert); b.greets(offersSASL("SCRAM-SHA-256")); b.hears(); b.says("<x/>") },
		func(b *beast) { b.secures(w.cert); b.greets(offersSASL("SCRAM-SHA-256")); b.hears(); b.waits() },
	} {
		w.gate.holds(f)
		for range 4 {
			if err := w.login(); err == nil {
				t.Errorf("%d: let in", i)
			}
			admin(t, w.b.p, "login enroll", "account", "alice@"+domain, "password", "wonderland")
			admin(t, w.b.p, "pin probe", "domain", domain)
		}
	}
	w.gate.leads(w.good)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(client.Patience); time.Now().Before(deadline); <-tick.C {
		if goroutines() <= before+2 {
			return
		}
	}
	t.Errorf("%d goroutines, and there were %d", goroutines(), before)
}

// An end during the enrolment behind a changed password.
func TestHardenedShutdownWhileEnrolling(t *testing.T) {
	w := attack{trust: "pin"}.world(t)
	w.admin("login enroll", "account", "alice@"+domain, "password", "wonderland")
	alice := w.b.login("alice", client.Plain)
	w.gate.holds(func(b *beast) { b.secures(w.cert); b.greets(offersSASL("SCRAM-SHA-256")); b.hears(); b.waits() })
	alice.Send("<iq type='set' id='change'><query xmlns='jabber:iq:register'><username>alice</username><password>looking-glass</password></query></iq>")
	alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "change" })
	w.b.stop()
	if strings.Contains(w.b.log.String(), "looking-glass") {
		t.Error("the log holds the password")
	}
}
