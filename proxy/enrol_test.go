package proxy_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/proxy/control"
	"otrproxy/stanza"
)

// offers are the mechanisms a client is offered.
func offers(c *client.Client) (out []string) {
	m, _ := c.Offered.Root().Child(stanza.NSSASL, "mechanisms")
	for el := range m.Children() {
		out = append(out, el.Text())
	}
	return out
}

// open connects up to where a login is possible.
func (b *box) open(user string, with func(*client.Config)) *client.Client {
	b.t.Helper()
	cfg := b.config(user, client.STARTTLS)
	if with != nil {
		with(&cfg)
	}
	c, err := client.Open(b.t.Context(), cfg)
	if err != nil {
		b.t.Fatalf("%v\n%s", err, b.log)
	}
	b.t.Cleanup(c.Drop)
	return c
}

// An enrolled account's client proves the password here, bound to its own connection, and
// the login goes on to the server, bound to ours; neither is handed the password.
func TestEnrolled(t *testing.T) {
	for _, mechs := range [][]string{
		{"SCRAM-SHA-1"}, {"SCRAM-SHA-1-PLUS", "SCRAM-SHA-1"},
		{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-1"},
		{"SCRAM-SHA-512-PLUS", "SCRAM-SHA-512"},
	} {
		best := strings.TrimSuffix(mechs[0], "-PLUS")
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			s := startServer(t, server.Config{Mechanisms: mechs, MaxTLS: version})
			b := startProxy(t, s, "")
			if got := offers(b.open("alice", nil)); fmt.Sprint(got) != "[PLAIN]" {
				t.Errorf("before: offered %v", got)
			}
			if _, err := admin(t, b.p, "login enroll", "account", "alice@"+domain, "password", "wrong"); err == nil {
				t.Error("enrolled with a wrong password")
			}
			r, err := admin(t, b.p, "login enroll", "account", "alice@"+domain, "password", "wonderland")
			if err != nil {
				t.Fatal(err)
			}
			before := len(s.Received())
			for i, c := range []struct {
				name, binding string
				max           uint16
				entry         client.Entry
			}{{best, "", 0, client.STARTTLS}, {best, "", 0, client.Plain}, {best + "-PLUS", "tls-exporter", 0, client.STARTTLS}, {best + "-PLUS", "tls-server-end-point", 0, client.Direct},
				{best + "-PLUS", "tls-unique", tls.VersionTLS12, client.STARTTLS}} {
				cl := b.open("alice", func(cfg *client.Config) {
					cfg.From, cfg.Entry, cfg.Mechanism, cfg.Binding, cfg.Resource = true, c.entry, c.name, c.binding, fmt.Sprint("r", i)
					cfg.TLS = &tls.Config{InsecureSkipVerify: true, ServerName: domain, MaxVersion: c.max}
				})
				if err := cl.Login(); err != nil {
					t.Fatalf("%v, TLS %x, %+v: offered %v: %v\n%s", mechs, version, c, offers(cl), err, b.log)
				}
				all := statusOf(t, b).Sessions
				st := all[slices.IndexFunc(all, func(x control.SessionStatus) bool { return x.Resource == fmt.Sprint("r", i) })]
				if want := strings.TrimSpace(c.name + " " + c.binding); st.Login != want {
					t.Errorf("the client's login is %q, want %q", st.Login, want)
				}
				if strings.Contains(mechs[0], "-PLUS") != strings.Contains(st.SASL, "-PLUS") || !strings.HasPrefix(st.SASL, best) {
					t.Errorf("%v: upstream %q", mechs, st.SASL)
				}
			}
			for _, word := range []string{"wonderland", "AGFsaWNl"} { // base64 of \0alice
				if bytes.Contains(s.Received()[before:], []byte(word)) {
					t.Errorf("the server got %q", word)
				}
			}
			// Neither is the password kept, nor what was shown of it.
			filepath.WalkDir(b.state, func(path string, _ os.DirEntry, _ error) error {
				if x, _ := os.ReadFile(path); bytes.Contains(x, []byte("wonderland")) {
					t.Errorf("%s holds the password", path)
				}
				return nil
			})
			if !strings.Contains(r.Text, best) {
				t.Errorf("enrolled: %s", r.Text)
			}
		}
	}
}

// What a client may not do with an enrolled account.
func TestEnrolledAttacks(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	if _, err := admin(t, b.p, "login enroll", "account", "alice@"+domain, "password", "wonderland"); err != nil {
		t.Fatal(err)
	}
	login := func(what string, with func(*client.Config), condition string) {
		t.Helper()
		cl := b.open("alice", func(cfg *client.Config) {
			cfg.From, cfg.Mechanism = true, "SCRAM-SHA-256"
			with(cfg)
		})
		before := len(s.Received())
		err := cl.Login()
		var le *client.LoginError
		if !errors.As(err, &le) || le.Condition != condition {
			t.Errorf("%s: %v, want %s", what, err, condition)
		}
		if got := s.Received()[before:]; bytes.Contains(got, []byte("<auth")) {
			t.Errorf("%s: the server was asked: %s", what, got)
		}
		cl.Drop()
	}
	login("a wrong password", func(c *client.Config) { c.Password = "wrong" }, "not-authorized")
	login("the binding of another connection", func(c *client.Config) { c.Mechanism, c.Binding = "SCRAM-SHA-256-PLUS", "wrong" }, "not-authorized")
	login("a binding that was hidden", func(c *client.Config) { c.Flag = "y" }, "not-authorized")
	login("-PLUS without a binding", func(c *client.Config) { c.Mechanism = "SCRAM-SHA-256-PLUS" }, "malformed-request")
	login("a binding without -PLUS", func(c *client.Config) { c.Binding = "tls-exporter" }, "malformed-request")
	login("-PLUS without TLS", func(c *client.Config) { c.Entry, c.Mechanism = client.Plain, "SCRAM-SHA-256-PLUS" }, "malformed-request")
	login("a mechanism without keys", func(c *client.Config) { c.Mechanism = "SCRAM-SHA-512" }, "invalid-mechanism")
	login("an account that is not enrolled", func(c *client.Config) { c.JID, c.Password = "bob@"+domain, "builder" }, "invalid-mechanism")
	// After that, somebody from there who does not say who they are is offered what works for
	// everybody.
	for _, who := range []string{"bob", "carol"} {
		if _, err := admin(t, b.p, "login enroll", "account", who+"@"+domain, "password", users()[who]); err != nil {
			t.Fatal(err)
		}
	}
	if got := offers(b.open("alice", nil)); fmt.Sprint(got) != "[PLAIN]" {
		t.Errorf("offered %v", got)
	}
	// So is alice, whose proofs were wrong: she may have another password now. Others are not.
	if got := offers(b.open("alice", func(c *client.Config) { c.From = true })); fmt.Sprint(got) != "[PLAIN]" {
		t.Errorf("offered %v to alice", got)
	}
	if got := offers(b.open("bob", func(c *client.Config) { c.From = true })); len(got) != 3 {
		t.Errorf("offered %v to bob", got)
	}
}

// Passwords are not guessed here without the server's noticing, by whatever way a name is
// written.
func TestEnrolledGuessing(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	if _, err := admin(t, b.p, "login enroll", "account", "alice@"+domain, "password", "wonderland"); err != nil {
		t.Fatal(err)
	}
	guess := func(name, password string) string {
		cl := b.open("alice", func(c *client.Config) {
			c.From, c.Mechanism, c.JID, c.Password = false, "SCRAM-SHA-256", name+"@"+domain, password
		})
		defer cl.Drop()
		err := cl.Login()
		var le *client.LoginError
		if !errors.As(err, &le) {
			return fmt.Sprint(err)
		}
		return le.Condition
	}
	for i, name := range []string{"alice", "Alice", "ALICE", "alice", "alice"} {
		if got := guess(name, fmt.Sprint("guess", i)); got != "not-authorized" {
			t.Errorf("guess %d: %s", i, got)
		}
	}
	// Whoever else tries at the same time has the next turn or a later one; so does she.
	if got := guess("alice", "wonderland"); got != "<nil>" {
		t.Errorf("her own try after five wrong ones: %s", got)
	}
	b.login("alice", client.STARTTLS) // the server decides about passwords that are sent
}

// A mechanism that would be weaker than what the account has had is left out.
func TestEnrolledWithoutTheWeaker(t *testing.T) {
	s := startServer(t, server.Config{Mechanisms: []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1"}})
	b := startProxy(t, s, "")
	b.login("alice", client.STARTTLS)
	r, err := admin(t, b.p, "login enroll", "account", "alice@"+domain, "password", "wonderland")
	if err != nil || !strings.Contains(r.Text, "SCRAM-SHA-256:") || strings.Contains(r.Text, "SCRAM-SHA-1") {
		t.Errorf("%v %s", err, r.Text)
	}
}

// Where it is not said whose the stream is, SCRAM is offered only if it works for all.
func TestEnrolledOffer(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	enrol := func(who, password string) {
		t.Helper()
		if _, err := admin(t, b.p, "login enroll", "account", who+"@"+domain, "password", password); err != nil {
			t.Fatal(err)
		}
	}
	enrol("alice", "wonderland")
	if got := offers(b.open("alice", nil)); fmt.Sprint(got) != "[PLAIN]" {
		t.Errorf("offered %v to somebody unknown, although bob and carol are not enrolled", got)
	}
	enrol("bob", "builder")
	enrol("carol", "singer")
	want := "[SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN]"
	cl := b.open("alice", nil)
	if got := fmt.Sprint(offers(cl)); got != want {
		t.Errorf("offered %v, want %s", got, want)
	}
	if !bytes.Contains(cl.Offered.Raw, []byte("<channel-binding type='tls-exporter'/>")) {
		t.Errorf("the kinds of binding are not named: %s", cl.Offered.Raw)
	}
	if _, err := admin(t, b.p, "login forget", "account", "carol@"+domain); err != nil {
		t.Fatal(err)
	}
	if got := offers(b.open("alice", nil)); fmt.Sprint(got) != "[PLAIN]" {
		t.Errorf("offered %v after carol's was forgotten", got)
	}
	// PLAIN goes on for those who are enrolled.
	b.login("alice", client.STARTTLS)
}

// A password that changes: through us, it is followed; elsewhere, it is noticed.
func TestEnrolledPasswordChange(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	if _, err := admin(t, b.p, "login enroll", "account", "alice@"+domain, "password", "wonderland"); err != nil {
		t.Fatal(err)
	}
	scram := func(password string) error {
		cl := b.open("alice", func(c *client.Config) { c.From, c.Mechanism, c.Password = true, "SCRAM-SHA-256", password })
		defer cl.Drop()
		return cl.Login()
	}
	alice := b.login("alice", client.STARTTLS)
	alice.Send("<iq type='set' to='" + domain + "' id='change'><query xmlns='jabber:iq:register'><username>alice</username><password>looking-glass</password></query></iq>")
	if _, err := alice.Notice("The account stays enrolled"); err != nil {
		t.Fatalf("%v\n%s", err, b.log)
	}
	if err := scram("wonderland"); err == nil {
		t.Error("let in with the old password")
	}
	if err := scram("looking-glass"); err != nil {
		t.Errorf("the new password: %v", err)
	}
	// A change that the server refuses changes nothing.
	alice.Send("<iq type='set' to='" + domain + "' id='refused'><query xmlns='jabber:iq:register'><username>alice</username><password>refuse-me</password></query></iq>")
	alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "refused" })
	if err := scram("looking-glass"); err != nil {
		t.Errorf("after a change that was refused: %v", err)
	}
	// Elsewhere: the server has another salt, and nothing of ours fits.
	s.SetPassword("alice", "jabberwocky")
	err := scram("looking-glass")
	if err == nil || !strings.Contains(err.Error(), "login enroll alice@"+domain) {
		t.Errorf("after a change elsewhere: %v", err)
	}
	if got := offers(b.open("alice", func(c *client.Config) { c.From = true })); fmt.Sprint(got) != "[PLAIN]" {
		t.Errorf("offered %v with keys that are of no use", got)
	}
	for _, word := range []string{"wonderland", "looking-glass", "refuse-me", "jabberwocky"} {
		if strings.Contains(b.log.String(), word) {
			t.Errorf("the log holds the password %s", word)
		}
	}
}

// With a passphrase the keys are encrypted at rest, and follow its changes.
func TestEnrolledSealed(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	account := filepath.Join(b.state, "accounts", "alice@"+domain)
	there := func(want ...string) {
		t.Helper()
		var got []string
		for _, name := range []string{"login.keys", "login.keys.age"} {
			if _, err := os.Stat(filepath.Join(account, name)); err == nil {
				got = append(got, name)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("there are %v, want %v", got, want)
		}
	}
	do := func(name string, args ...string) {
		t.Helper()
		if _, err := admin(t, b.p, name, args...); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	login := func() {
		t.Helper()
		cl := b.open("alice", func(c *client.Config) { c.From, c.Mechanism = true, "SCRAM-SHA-256" })
		if err := cl.Login(); err != nil {
			t.Error(err)
		}
		cl.Drop()
	}
	do("login enroll", "account", "alice@"+domain, "password", "wonderland")
	there("login.keys")
	do("key passphrase", "passphrase", "correct horse")
	there("login.keys.age")
	login()
	do("login enroll", "account", "alice@"+domain, "password", "wonderland")
	there("login.keys.age")
	do("key passphrase", "remove", "yes")
	there("login.keys")
	login()
	do("login forget", "account", "alice@"+domain)
	there()
}
