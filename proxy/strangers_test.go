package proxy_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/otrlayer/keyring"
	"otrproxy/stanza"
)

// A lair is a server whose people let somebody else in as alice, who talks privately with
// bob at the time.
type lair struct {
	t          *testing.T
	s          *server.Server
	home, away *box
	alice, bob *client.Client
}

const otherPassword = "of the server's people"

func newLair(t *testing.T, more string, before func(l *lair)) *lair {
	t.Helper()
	l := &lair{t: t, s: startServer(t, server.Config{})}
	l.away, l.home = startProxy(t, l.s, ""), startProxy(t, l.s, more)
	l.bob = l.away.login("bob", client.Plain)
	if before != nil {
		before(l)
	}
	l.alice = l.home.login("alice", client.Plain)
	l.alice.Say("bob@"+domain, "first", "hello")
	text(t, l.bob, "alice@"+domain, "hello")
	return l
}

// lets has the server accept another password for alice.
func (l *lair) lets() { l.s.SetPassword("alice", otherPassword) }

// evil logs in with it.
func (l *lair) evil(with func(*client.Config)) *client.Client {
	l.t.Helper()
	cfg := l.home.config("alice", client.Plain)
	cfg.Password, cfg.Resource = otherPassword, "evil"
	if with != nil {
		with(&cfg)
	}
	c, err := client.Dial(l.t.Context(), cfg)
	if err != nil {
		l.t.Fatalf("%v\n%s", err, l.home.log)
	}
	l.t.Cleanup(c.Drop)
	return c
}

// everything is what a client has got until it asks.
func everything(t *testing.T, c *client.Client) string {
	t.Helper()
	var all strings.Builder
	c.Send("<iq type='get' id='everything' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>")
	for {
		st, err := c.Wait(func(*stanza.Stanza) bool { return true })
		if err != nil {
			t.Fatalf("%v after %s", err, all.String())
		}
		if st.Root().Attr("id") == "everything" {
			return all.String()
		}
		all.Write(st.Raw)
	}
}

var codeIn = regexp.MustCompile(`login confirm (\d{4})`)

// getsNothing checks that a stranger gets what the server gives, and nothing of ours.
func (l *lair) getsNothing(evil *client.Client) (code string) {
	l.t.Helper()
	t := l.t
	told, err := evil.Notice("Your code is")
	if err != nil {
		t.Fatalf("the stranger is not told: %v", err)
	}
	code = codeIn.FindStringSubmatch(told)[1]
	l.bob.Say("alice@"+domain, "secret", "SECRET of bob")
	if l.alice != nil {
		text(t, l.alice, "bob@"+domain, "SECRET of bob")
	}
	evil.Say("bob@"+domain, "forged", "forged by the server")
	evil.Say("bob@"+domain, "query", "?OTRv23?")
	evil.Say("bob@"+domain, "wish", "!otr start")
	evil.Say("bob@"+domain, "end", "!otr end")
	evil.Say("otrproxy.localhost", "c1", "status")
	evil.Say("otrproxy.localhost", "c2", "login confirm "+code)
	evil.Say("otrproxy.localhost", "c3", "key show")
	evil.Say("otrproxy.localhost", "c4", "contact list")
	evil.Say("otrproxy.localhost", "c5", "pin add example.org sha256:"+strings.Repeat("AB:", 31)+"AB")
	evil.Send("<iq type='get' id='menu' to='otrproxy.localhost'><query xmlns='http://jabber.org/protocol/disco#items' node='http://jabber.org/protocol/commands'/></iq>")
	evil.Send("<iq type='set' id='pin' to='otrproxy.localhost'><command xmlns='http://jabber.org/protocol/commands' node='pin add'><x xmlns='jabber:x:data' type='submit'><field var='domain'><value>example.org</value></field><field var='pin'><value>sha256:" + strings.Repeat("AB:", 31) + "AB</value></field></x></command></iq>")
	got := everything(t, evil)
	if !strings.Contains(got, "id='forged'") || !strings.Contains(got, "you logged in with another password") {
		t.Errorf("the stranger's text does not come back: %s", got)
	}
	for _, never := range []string{"SECRET", "is held to", "running since", "you are connected", "Your own fingerprint", "Asked bob", "node='status'", "node='pin add'", "status='completed'", "fingerprint"} {
		if strings.Contains(got, never) {
			t.Errorf("the stranger gets %q: %s", never, got)
		}
	}
	if !strings.Contains(got, "login prove") {
		t.Errorf("the stranger has no way to prove who they are: %s", got)
	}
	seen := everything(t, l.bob)
	if strings.Contains(seen, "forged") || l.alice != nil && strings.Contains(seen, "has ended") {
		t.Errorf("bob sees %s", seen)
	}
	if pins, _ := admin(t, l.home.p, "pin list"); strings.Contains(pins.Text, "AB:AB:AB") {
		t.Errorf("pinned: %s", pins.Text)
	}
	return code
}

// hers checks that alice goes on with bob, is told, and has their texts.
func (l *lair) hers(alice *client.Client, code string) {
	l.t.Helper()
	if got, err := alice.Notice("login confirm " + code); err != nil || !strings.Contains(got, "another password than yours") {
		l.t.Errorf("alice is not told: %q %v", got, err)
	}
}

// Whom a server lets in with another password gets nothing of the account's, by whatever way
// they come.
func TestStrangerGetsNothing(t *testing.T) {
	t.Parallel()
	enrolled := func(l *lair) {
		if _, err := admin(t, l.home.p, "login enroll", "account", "alice@"+domain, "password", users()["alice"]); err != nil {
			t.Fatal(err)
		}
	}
	for name, way := range map[string]func(t *testing.T){
		"PLAIN": func(t *testing.T) {
			l := newLair(t, "", nil)
			l.lets()
			l.hers(l.alice, l.getsNothing(l.evil(nil)))
		},
		"TLS": func(t *testing.T) {
			l := newLair(t, "", nil)
			l.lets()
			l.hers(l.alice, l.getsNothing(l.evil(func(c *client.Config) { c.Entry = client.Direct })))
		},
		"enrolled": func(t *testing.T) {
			l := newLair(t, "", enrolled)
			l.lets()
			l.hers(l.alice, l.getsNothing(l.evil(nil)))
		},
		"SCRAM": func(t *testing.T) { // its server has other keys, so that the enrolled ones are of no use
			l := newLair(t, "", enrolled)
			l.lets()
			cfg := l.home.config("alice", client.STARTTLS)
			cfg.From, cfg.Mechanism, cfg.Password = true, "SCRAM-SHA-256", otherPassword
			if c, err := client.Dial(t.Context(), cfg); err == nil {
				c.Drop()
				t.Fatal("let in by SCRAM")
			}
			cfg.Password = users()["alice"] // the server does not know this one any more, and says that the keys are others
			if c, err := client.Dial(t.Context(), cfg); err == nil {
				c.Drop()
				t.Fatal("let in by SCRAM")
			}
			l.hers(l.alice, l.getsNothing(l.evil(nil)))
		},
		"WebSocket": func(t *testing.T) {
			l := newLair(t, "", nil)
			l.lets()
			l.hers(l.alice, l.getsNothing(l.evil(l.home.webbed(false, nil))))
		},
		"SOCKS": func(t *testing.T) {
			l := newLair(t, "", nil)
			l.lets()
			evil, err := l.home.bySOCKS("xmpp.example.org:5222", func(c *client.Config) { c.Password, c.Resource = otherPassword, "evil" })
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(evil.Drop)
			l.hers(l.alice, l.getsNothing(evil))
		},
		"resource taken over": func(t *testing.T) {
			l := newLair(t, "", nil)
			l.lets()
			evil := l.evil(func(c *client.Config) { c.Resource = "c" })
			l.alice = nil
			l.getsNothing(evil)
		},
		"resumption": func(t *testing.T) {
			l := newLair(t, "", func(l *lair) { l.s.SetFaults(server.Faults{Unconfirmed: true}) })
			l.lets()
			l.s.Cut()
			if _, err := l.alice.Wait(func(*stanza.Stanza) bool { return false }); err == nil {
				t.Fatal("alice's session goes on")
			}
			evil := l.evil(func(c *client.Config) { c.Resource = "c" })
			l.alice, l.bob = nil, l.away.login("bob", client.Plain)
			l.getsNothing(evil)
			// What was under way is still hers.
			evil.Drop()
			l.s.SetPassword("alice", users()["alice"])
			l.home.login("alice", client.Plain)
			if got := metric(l.home, `otrproxy_upstream_resumptions_total{result="resumed"}`) + metric(l.home, `otrproxy_upstream_resumptions_total{result="refused"}`); got != "01" && got != "10" {
				t.Errorf("sessions that went on, and that did not: %s", got)
			}
		},
		"device of the account": func(t *testing.T) {
			l := newLair(t, "", nil)
			l.lets()
			evil := l.evil(nil)
			evil.Send(enableCarbons)
			if _, err := evil.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "carbons" }); err != nil {
				t.Fatal(err)
			}
			l.alice.Say("bob@"+domain, "hers", "SECRET of alice")
			text(t, l.bob, "alice@"+domain, "SECRET of alice")
			l.getsNothing(evil)
		},
		"admins": func(t *testing.T) {
			l := newLair(t, "admins: [\"alice@example.org\"]\n", nil)
			pin := func(by *client.Client, id string) string {
				by.Say("otrproxy.localhost", id, "pin add example.org sha256:"+strings.Repeat("CD:", 31)+"CD")
				return everything(t, by)
			}
			// At the first login only the server says who they are, which makes nobody an administrator.
			if got := pin(l.alice, "1"); !strings.Contains(got, "otrproxy login confirm alice@example.org") || strings.Contains(got, "is held to") {
				t.Errorf("before the administrator has confirmed it: %s", got)
			}
			if _, err := admin(t, l.home.p, "login confirm", "account", "alice@"+domain); err != nil {
				t.Fatal(err)
			}
			l.lets()
			evil := l.evil(nil)
			l.hers(l.alice, l.getsNothing(evil))
			if got := pin(l.alice, "2"); !strings.Contains(got, "is held to") {
				t.Errorf("alice may not: %s", got)
			}
		},
		"login forget": func(t *testing.T) {
			l := newLair(t, "", enrolled)
			if _, err := admin(t, l.home.p, "login forget", "account", "alice@"+domain); err != nil {
				t.Fatal(err)
			}
			l.lets()
			l.hers(l.alice, l.getsNothing(l.evil(nil)))
		},
		"login forget, and a restart": func(t *testing.T) {
			l := newLair(t, "", enrolled)
			l.alice.Drop()
			if _, err := admin(t, l.home.p, "login forget", "account", "alice@"+domain); err != nil {
				t.Fatal(err)
			}
			l.home.stop()
			l.alice, l.home = nil, startConfigured(t, l.home.state, configFor(l.s, l.home.state))
			l.lets()
			l.getsNothing(l.evil(nil))
		},
		"a passphrase": func(t *testing.T) {
			l := newLair(t, "", nil)
			if _, err := admin(t, l.home.p, "key passphrase", "passphrase", "correct horse"); err != nil {
				t.Fatal(err)
			}
			dir := keyring.Dir(l.home.state, "alice@"+domain)
			if _, err := os.Stat(filepath.Join(dir, "login.verifier")); err == nil {
				t.Error("what recognises the password is in clear")
			}
			l.alice.Drop()
			l.home.stop()
			l.alice, l.home = nil, startConfigured(t, l.home.state, configFor(l.s, l.home.state))
			if _, err := admin(t, l.home.p, "key unlock", "passphrase", "correct horse"); err != nil {
				t.Fatal(err)
			}
			l.lets()
			code := l.getsNothing(l.evil(nil))
			l.s.SetPassword("alice", users()["alice"])
			l.hers(l.home.login("alice", client.Plain), code)
		},
		"after a restart": func(t *testing.T) {
			l := newLair(t, "", nil)
			l.alice.Drop()
			l.home.stop()
			l.alice, l.home = nil, startConfigured(t, l.home.state, configFor(l.s, l.home.state))
			l.lets()
			evil := l.evil(nil)
			code := l.getsNothing(evil)
			l.s.SetPassword("alice", users()["alice"])
			l.hers(l.home.login("alice", client.Plain), code) // in the next session, too
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			way(t)
		})
	}
}

// Who comes first is the account's person, and is told that their password is known from then
// on; at that time the server's word is all there is.
func TestFirstLoginIsThePerson(t *testing.T) {
	t.Parallel()
	s := startServer(t, server.Config{Users: map[string]string{"new": "x"}})
	b := startProxy(t, s, "")
	cfg := b.config("new", client.Plain)
	cfg.Password = "x"
	c, err := client.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Drop)
	if _, err := c.Notice("I recognise your password from now on"); err != nil {
		t.Error(err)
	}
	b.stop()
	file, err := os.ReadFile(filepath.Join(keyring.Dir(b.state, "new@"+domain), "login.verifier"))
	if err != nil || !strings.Contains(string(file), "$argon2id$v=19$m=") || strings.Contains(string(file), "password: x") {
		t.Errorf("%s %v", file, err)
	}
}

// A password that was changed elsewhere costs one sentence: in another session, by the
// password from before, or by the administrator.
func TestChangedPasswordCostsOneSentence(t *testing.T) {
	t.Parallel()
	for name, say := range map[string]func(l *lair, device *client.Client, code string){
		"another session": func(l *lair, _ *client.Client, code string) {
			l.alice.Say("otrproxy.localhost", "", "login confirm "+code)
		},
		"in a conversation": func(l *lair, _ *client.Client, code string) {
			l.alice.Say("bob@"+domain, "", "!otr login confirm "+code)
		},
		"the password from before": func(l *lair, device *client.Client, _ string) {
			device.Say("otrproxy.localhost", "", "prove "+users()["alice"])
		},
		"a form": func(l *lair, device *client.Client, _ string) {
			device.Send("<iq type='set' id='form' to='otrproxy.localhost'><command xmlns='http://jabber.org/protocol/commands' node='login prove'><x xmlns='jabber:x:data' type='submit'><field var='password'><value>" + users()["alice"] + "</value></field></x></command></iq>")
		},
		"the administrator": func(l *lair, _ *client.Client, code string) {
			if _, err := admin(l.t, l.home.p, "login confirm", "account", "alice@"+domain, "code", code); err != nil {
				l.t.Error(err)
			}
		},
	} {
		for _, way := range []string{"", "enrolled"} {
			t.Run(name+" "+way, func(t *testing.T) {
				t.Parallel()
				l := newLair(t, "", func(l *lair) {
					if way != "" {
						if _, err := admin(t, l.home.p, "login enroll", "account", "alice@"+domain, "password", users()["alice"]); err != nil {
							t.Fatal(err)
						}
					}
				})
				l.lets()
				device := l.evil(nil)
				code := l.getsNothing(device)
				say(l, device, code)
				if _, err := device.Notice("this is you"); err != nil {
					t.Fatalf("%v\n%s", err, l.home.log)
				}
				device.Say("bob@"+domain, "mine", "from the new device")
				text(t, l.bob, "alice@"+domain, "from the new device")
				l.bob.Say("alice@"+domain, "x", "for all of alice's")
				text(t, device, "bob@"+domain, "for all of alice's")
				again := l.evil(func(c *client.Config) { c.Resource = "again" }) // nothing more to confirm
				if got := everything(t, again); strings.Contains(got, "another password") {
					t.Errorf("asked again: %s", got)
				}
				if strings.Contains(string(l.s.Received()), users()["alice"]) {
					t.Error("the server received the password from before")
				}
				l.home.stop()
				l.home = startConfigured(t, l.home.state, configFor(l.s, l.home.state))
				if got := everything(t, l.evil(nil)); strings.Contains(got, "another password") {
					t.Errorf("asked again after a restart: %s", got)
				}
			})
		}
	}
}

// A password that is changed through the proxy costs nothing.
func TestPasswordChangedHereCostsNothing(t *testing.T) {
	t.Parallel()
	l := newLair(t, "", nil)
	l.alice.Send("<iq type='set' id='change' to='example.org'><query xmlns='jabber:iq:register'><username>alice</username><password>" + otherPassword + "</password></query></iq>")
	if _, err := l.alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "change" }); err != nil {
		t.Fatal(err)
	}
	l.lets()
	second := l.evil(nil)
	if got := everything(t, second); strings.Contains(got, "another password") {
		t.Errorf("she is asked: %s", got)
	}
	second.Say("bob@"+domain, "2", "it is me")
	text(t, l.bob, "alice@"+domain, "it is me")
	// By a form, too (XEP-0077 section 3.3).
	second.Send("<iq type='set' id='form' to='example.org'><query xmlns='jabber:iq:register'><x xmlns='jabber:x:data' type='submit'><field type='hidden' var='FORM_TYPE'><value>jabber:iq:register:changepassword</value></field><field var='username'><value>alice</value></field><field type='text-private' var='password'><value>by a form</value></field></x></query></iq>")
	if _, err := second.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "form" }); err != nil {
		t.Fatal(err)
	}
	l.s.SetPassword("alice", "by a form")
	byForm := l.home.config("alice", client.Plain)
	byForm.Password, byForm.Resource = "by a form", "third"
	third, err := client.Dial(t.Context(), byForm)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(third.Drop)
	if got := everything(t, third); strings.Contains(got, "another password") {
		t.Errorf("she is asked after a form: %s", got)
	}
	// Nor does a stranger's change of the password make them the person.
	l.s.SetPassword("alice", "a third one")
	cfg := l.home.config("alice", client.Plain)
	cfg.Password, cfg.Resource = "a third one", "evil"
	evil, err := client.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(evil.Drop)
	evil.Send("<iq type='set' id='change' to='example.org'><query xmlns='jabber:iq:register'><username>alice</username><password>a fourth</password></query></iq>")
	everything(t, evil)
	cfg.Password, cfg.Resource = "a fourth", "evil2"
	again, err := client.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(again.Drop)
	l.getsNothing(again)
}

// Whom the person does not want is gone, and does not get in again with that password.
func TestRefusedStrangerStaysOut(t *testing.T) {
	t.Parallel()
	l := newLair(t, "", nil)
	l.lets()
	evil := l.evil(nil)
	code := l.getsNothing(evil)
	if _, err := admin(t, l.home.p, "login refuse", "account", "alice@"+domain, "code", "0000"); err == nil {
		t.Error("a code that nobody has is taken")
	}
	l.alice.Say("otrproxy.localhost", "", "login refuse "+code)
	_, err := evil.Wait(func(st *stanza.Stanza) bool { return false })
	var se *client.StreamError
	if !errors.As(err, &se) || se.Condition != "not-authorized" {
		t.Errorf("the stranger's session: %v", err)
	}
	cfg := l.home.config("alice", client.Plain)
	cfg.Password, cfg.Resource = otherPassword, "evil"
	_, err = client.Dial(t.Context(), cfg)
	var le *client.LoginError
	if !errors.As(err, &le) || le.Condition != "not-authorized" {
		t.Errorf("again: %v", err)
	}
}

// The password from before is not guessed by a stranger, nor does a server that lets in ever
// more of them make lines without end.
func TestStrangersGuessNoPassword(t *testing.T) {
	t.Parallel()
	l := newLair(t, "", nil)
	l.lets()
	evil := l.evil(nil)
	if _, err := evil.Notice("Your code is"); err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		evil.Say("otrproxy.localhost", fmt.Sprint(i), fmt.Sprint("prove guess", i%5))
		got, err := evil.Notice("assword")
		if want := map[bool]string{true: "not the password I know", false: "Too many wrong passwords"}[i < 5]; err != nil || !strings.Contains(got, want) {
			t.Errorf("guess %d: %q %v", i, got, err)
		}
	}
	in := 0
	for i := range 12 {
		l.s.SetPassword("alice", fmt.Sprint("other ", i))
		cfg := l.home.config("alice", client.Plain)
		cfg.Password, cfg.Resource = fmt.Sprint("other ", i), fmt.Sprint("r", i)
		if c, err := client.Dial(t.Context(), cfg); err == nil {
			in++
			t.Cleanup(c.Drop)
		}
	}
	if in != 7 {
		t.Errorf("%d more strangers are let in", in)
	}
	if n := strings.Count(everything(t, l.alice), "login confirm"); n > 8 {
		t.Errorf("alice gets %d lines", n)
	}
}

// The server of an enrolled account learns its ClientKey with each login that it is shown (RFC
// 5802 section 9). Whom it gives that to does not get in here as the account's person.
func TestServerDoesNotLogInAsThePerson(t *testing.T) {
	t.Parallel()
	s := startServer(t, server.Config{Mechanisms: []string{"SCRAM-SHA-256"}})
	b := startProxy(t, s, "admins: [\"alice@example.org\"]\n")
	if _, err := admin(t, b.p, "login enroll", "account", "alice@"+domain, "password", users()["alice"]); err != nil {
		t.Fatal(err)
	}
	before := len(s.Received())
	cfg := b.config("alice", client.STARTTLS)
	cfg.From, cfg.Mechanism = true, "SCRAM-SHA-256"
	alice, err := client.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(alice.Drop)
	// What the server has: its own salt, count and StoredKey, and what it has just been sent.
	file, _ := os.ReadFile(filepath.Join(keyring.Dir(b.state, "alice@"+domain), "login.keys"))
	var raw []map[string]any
	if err := yaml.Unmarshal(file, &raw); err != nil {
		t.Fatal(err)
	}
	field := func(name string) []byte {
		x := raw[0][name]
		switch v := x.(type) {
		case []any:
			out := make([]byte, len(v))
			for i := range v {
				out[i] = byte(v[i].(int))
			}
			return out
		case string:
			return []byte(v)
		case []byte:
			return v
		}
		t.Fatalf("%T", x)
		return nil
	}
	salt, stored := field("salt"), field("stored_key")
	sent := string(s.Received()[before:])
	m1 := regexp.MustCompile(`mechanism='SCRAM-SHA-256'>([^<]+)</auth>`).FindStringSubmatch(sent)
	m2 := regexp.MustCompile(`<response[^>]*>([^<]+)</response>`).FindStringSubmatch(sent)
	if m1 == nil || m2 == nil {
		t.Fatal(sent)
	}
	first, _ := base64.StdEncoding.DecodeString(m1[1])
	final, _ := base64.StdEncoding.DecodeString(m2[1])
	without, p, _ := strings.Cut(string(final), ",p=")
	proof, _ := base64.StdEncoding.DecodeString(p)
	nonce := without[strings.Index(without, "r="):]
	bare := string(first)[strings.Index(string(first), "n="):]
	if i := strings.Index(bare, ",,n="); i >= 0 {
		bare = bare[i+2:]
	}
	if bytes.HasPrefix(first, []byte("n,,")) || bytes.HasPrefix(first, []byte("y,,")) {
		bare = string(first)[3:]
	}
	serverFirst := nonce + ",s=" + base64.StdEncoding.EncodeToString(salt) + ",i=4096"
	mac := func(key []byte, msg string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(msg))
		return h.Sum(nil)
	}
	clientKey := mac(stored, bare+","+serverFirst+","+without)
	for i := range clientKey {
		clientKey[i] ^= proof[i]
	}
	if sum := sha256.Sum256(clientKey); !bytes.Equal(sum[:], stored) {
		t.Fatalf("this is not the ClientKey: %s / %s", first, final)
	}

	// The accomplice, who has the ClientKey and no password, tries to log in here.
	evil := b.open("alice", func(c *client.Config) { c.From, c.Entry, c.Password = true, client.Plain, "" })
	b64 := base64.StdEncoding.EncodeToString
	myBare := "n=alice,r=abcdefgh"
	evil.Send("<auth xmlns='" + stanza.NSSASL + "' mechanism='SCRAM-SHA-256'>" + b64([]byte("n,,"+myBare)) + "</auth>")
	st, err := evil.Next()
	if err != nil {
		t.Fatal(err)
	}
	challenge, _ := base64.StdEncoding.DecodeString(st.Root().Text())
	r, _, _ := strings.Cut(string(challenge), ",")
	myFinal := "c=biws," + r
	mine := mac(stored, myBare+","+string(challenge)+","+myFinal)
	for i := range mine {
		mine[i] ^= clientKey[i]
	}
	evil.Send("<response xmlns='" + stanza.NSSASL + "'>" + b64([]byte(myFinal+",p="+b64(mine))) + "</response>")
	st, err = evil.Next()
	if err != nil {
		t.Fatal(err)
	}
	if !st.Is(stanza.NSSASL, "failure") {
		t.Error("let in by SCRAM as the account's person, without the password")
	}
}

// A login that does nothing is forgotten, and takes nobody's account.
func TestLoginThatDoesNothingTakesNoAccount(t *testing.T) {
	t.Parallel()
	s := startServer(t, server.Config{Users: usersAnd(5)})
	b := startProxy(t, s, "")
	for i := range 5 {
		for _, password := range []string{"x", "y"} {
			name := fmt.Sprint("u", i)
			s.SetPassword(name, password)
			cfg := b.config(name, client.Plain)
			cfg.Password, cfg.Quiet = password, true
			c, err := client.Dial(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
	}
	b.counts("otrproxy_sessions", "0")
	if b.p.Rights() != 0 || b.p.StrangersOf() != 0 {
		t.Errorf("%d passwords and %d accounts' strangers are kept of accounts that never came to use", b.p.Rights(), b.p.StrangersOf())
	}
	// The person of u1 comes; somebody else was there for a moment before, and has done nothing.
	cfg := b.config("u1", client.Plain)
	cfg.Password = "y"
	c, err := client.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Drop)
	if got := everything(t, c); strings.Contains(got, "another password than the one I know") {
		t.Error("the account is somebody's who has done nothing")
	}
}

// What a stranger is told of a room, the person is told as well.
func TestStrangersRoomIsNoNewsOfThePerson(t *testing.T) {
	t.Parallel()
	l := newLair(t, "", nil)
	l.lets()
	evil := l.evil(nil)
	join := func(c *client.Client) string {
		c.Send("<presence to='room@conf.example/alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
		before := everything(t, c) // of the other's join, which the server tells both of, perhaps
		l.s.Send("alice", "<presence from='room@conf.example/alice'><x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='none' role='participant'/><status code='110'/></x></presence>")
		for got := before; ; {
			now := everything(t, c)
			if got += now; strings.Contains(now, "status code='110'") {
				return got + everything(t, c)
			}
		}
	}
	if got := join(evil); !strings.Contains(got, "rooms cannot be encrypted") {
		t.Logf("the stranger: %s", got)
	}
	if got := join(l.alice); !strings.Contains(got, "rooms cannot be encrypted") {
		t.Errorf("alice is not told that rooms are not encrypted, for a stranger was: %s", got)
	}
}

// Strangers can be looked at while they come and go.
func TestStrangersAreShownWhileTheyComeAgain(t *testing.T) {
	t.Parallel()
	l := newLair(t, "", nil)
	l.lets()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 20 {
			cfg := l.home.config("alice", client.Plain)
			cfg.Password, cfg.Resource = otherPassword, fmt.Sprint("e", i)
			if c, err := client.Dial(t.Context(), cfg); err == nil {
				c.Drop()
			}
		}
	}()
	for {
		select {
		case <-done:
			return
		default:
			statusOf(t, l.home)
		}
	}
}

// Who changes the password of somebody else, as an administrator of the server may, has not
// changed their own.
func TestSomebodyElsesPasswordIsNotTakenForOnesOwn(t *testing.T) {
	t.Parallel()
	l := newLair(t, "", nil)
	l.alice.Send("<iq type='set' id='change' to='example.org'><query xmlns='jabber:iq:register'><username>carol</username><password>for carol</password></query></iq>")
	if _, err := l.alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "change" }); err != nil {
		t.Fatal(err)
	}
	everything(t, l.alice)
	cfg := l.home.config("alice", client.Plain)
	cfg.Resource = "second"
	second, err := client.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(second.Drop)
	if got := everything(t, second); strings.Contains(got, "another password") {
		t.Errorf("alice is a stranger with her own password: %s", got)
	}
}

// Once the administrator has said whose the account is, who came first with another password
// has nothing of it any more.
func TestFirstWhoWasNotThePersonIsTurnedOut(t *testing.T) {
	t.Parallel()
	l := newLair(t, "", nil) // alice is who came first, by the server's word
	l.lets()
	person := l.confirmed()
	_, err := l.alice.Wait(func(*stanza.Stanza) bool { return false })
	var se *client.StreamError
	if !errors.As(err, &se) || se.Condition != "not-authorized" {
		t.Errorf("who came first is not turned out: %v", err)
	}
	l.bob.Say("alice@"+domain, "secret", "SECRET of bob")
	text(t, person, "bob@"+domain, "SECRET of bob")
	again := l.evil(func(c *client.Config) { c.Resource = "again" })
	if got := everything(t, again); strings.Contains(got, "another password") {
		t.Errorf("the person is asked again: %s", got)
	}
}

// confirmed is the account's person, of whom the administrator has just said so.
func (l *lair) confirmed() *client.Client {
	l.t.Helper()
	person := l.evil(nil)
	told, err := person.Notice("Your code is")
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := admin(l.t, l.home.p, "login confirm", "account", "alice@"+domain, "code", codeIn.FindStringSubmatch(told)[1]); err != nil {
		l.t.Fatal(err)
	}
	return person
}

// Who has logged in with another password before the administrator says whose the account is,
// and begins a session only afterwards, is turned out of it as well.
func TestFirstWhoIsJustLoggingInIsTurnedOut(t *testing.T) {
	t.Parallel()
	l := newLair(t, "", nil) // alice is who came first, by the server's word
	conn, err := net.Dial("tcp", l.home.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	const header = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='" + domain + "' version='1.0'>"
	scan := stanza.NewScanner(conn, stanza.Limits{})
	io.WriteString(conn, header+"<auth xmlns='"+stanza.NSSASL+"' mechanism='PLAIN'>"+base64.StdEncoding.EncodeToString([]byte("\x00alice\x00"+users()["alice"]))+"</auth>")
	for {
		st, err := scan.Next()
		if err != nil {
			t.Fatal(err)
		}
		if st.Is(stanza.NSSASL, "success") {
			break
		}
	}
	l.lets()
	l.confirmed()
	if _, err := l.alice.Wait(func(*stanza.Stanza) bool { return false }); err == nil {
		t.Fatal("who came first goes on")
	}
	io.WriteString(conn, header+"<iq type='set' id='bind'><bind xmlns='"+stanza.NSBind+"'><resource>parked</resource></bind></iq><presence><priority>10</priority></presence>"+
		"<message to='otrproxy.localhost' id='s'><body>status</body></message><message to='bob@example.org' type='chat' id='f'><body>forged by who came first</body></message>")
	scan = stanza.NewScanner(conn, stanza.Limits{})
	var all strings.Builder
	for {
		st, err := scan.Next()
		if err != nil {
			break
		}
		all.Write(st.Raw)
	}
	if got := all.String(); !strings.Contains(got, "another password is this account") || strings.Contains(got, "test, you are connected") || strings.Contains(got, "Your code is") {
		t.Errorf("%.3000s", got)
	}
	if seen := everything(t, l.bob); strings.Contains(seen, "forged by") {
		t.Errorf("bob sees %s", seen)
	}
}

// A client that takes the strongest mechanism gets in with a password that was changed elsewhere.
func TestChangedPasswordGetsInBySCRAMClients(t *testing.T) {
	t.Parallel()
	l := newLair(t, "", func(l *lair) {
		if _, err := admin(t, l.home.p, "login enroll", "account", "alice@"+domain, "password", users()["alice"]); err != nil {
			t.Fatal(err)
		}
	})
	l.lets()
	for range 5 {
		c := l.home.open("alice", func(c *client.Config) {
			c.From, c.Entry, c.Password, c.Resource = true, client.STARTTLS, otherPassword, "phone"
		})
		best := offers(c)[0]
		c.Drop()
		cfg := l.home.config("alice", client.STARTTLS)
		cfg.From, cfg.Password, cfg.Resource = true, otherPassword, "phone"
		if best != "PLAIN" {
			cfg.Mechanism = "SCRAM-SHA-256"
		}
		in, err := client.Dial(t.Context(), cfg)
		if err == nil {
			t.Cleanup(in.Drop)
			if _, err := in.Notice("Your code is"); err != nil {
				t.Error(err)
			}
			return
		}
		t.Logf("%s: %v", best, err)
	}
	t.Error("never let in")
}

// Who guesses the password known here with the help of a server that lets anybody in is counted
// like others who guess.
func TestServerDoesNotHelpToGuess(t *testing.T) {
	t.Parallel()
	l := newLair(t, "", nil)
	for i := range 6 {
		l.s.SetPassword("alice", fmt.Sprint("guess ", i))
		cfg := l.home.config("alice", client.Plain)
		cfg.Password, cfg.Resource = fmt.Sprint("guess ", i), fmt.Sprint("r", i)
		if c, err := client.Dial(t.Context(), cfg); err == nil {
			c.Drop()
		}
	}
	if n := l.home.p.Tries("alice@" + domain); n != 6 {
		t.Errorf("%d wrong tries are counted", n)
	}
	// A stranger who comes again has guessed nothing.
	l.evilAgain(t, "guess 5")
	if n := l.home.p.Tries("alice@" + domain); n != 6 {
		t.Errorf("%d wrong tries are counted of one who came again", n)
	}
}

func (l *lair) evilAgain(t *testing.T, password string) {
	t.Helper()
	cfg := l.home.config("alice", client.Plain)
	cfg.Password, cfg.Resource = password, "again"
	c, err := client.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Drop)
}
