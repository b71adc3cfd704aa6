//go:build linux

package real

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"otrproxy/proxy/control"
)

// startUnpinned starts a household that knows nothing of its server yet.
func startUnpinned(t *testing.T, s *xmppServer) *household {
	t.Helper()
	h := &household{state: filepath.Join(t.TempDir(), "state"), conf: filepath.Join(t.TempDir(), "otrproxy.yaml")}
	text := fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\nlog: {level: debug}\ndomains:\n  %s: {connect: %q, tls: %s, trust: tofu}\n", h.state, s.domain, s.connect(), s.mode)
	if err := os.WriteFile(h.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.start(t)
	return h
}

// A server's certificate over the years: accepted at first by its fingerprint, renewed as
// announced without an interruption, and renewed without a word, which stops whoever comes
// anew until a person has said one command.
func TestCertificateRenewal(t *testing.T) {
	for server, startServer := range serverKinds {
		t.Run(server, func(t *testing.T) {
			s := startServer(t, "starttls")
			h := startUnpinned(t, s)
			s.register(t, "alice", "bob", "carol", "dave")
			jid := "alice@" + s.domain
			// refused has somebody come and be refused, and returns the command they are told.
			refused := func(who string) []string {
				c := startSlixmpp(t, who+"@"+s.domain, h.addr, "starttls")
				line := c.says(t, `(?m)^failed policy-violation .*\n`)
				m := regexp.MustCompile(`otrproxy (pin add \S+ sha256:[0-9A-F:]{95})`).FindStringSubmatch(line)
				if m == nil {
					t.Fatalf("no command in %s", line)
				}
				t.Logf("renewal: %s: %s", server, line[:min(len(line), 600)])
				return strings.Fields(m[1])
			}

			var done []control.Done
			h.word(t, &done, refused("alice")...) // a self-signed certificate, at the first use
			alice := startSlixmpp(t, jid, h.addr, "starttls")
			alice.online()
			bob := startMcabber(t, s, "bob", jid)
			alice.befriend(bob)
			talk := func(when string) {
				t.Helper()
				alice.say(bob.jid(), "", typed+" out "+when)
				bob.reads(typed + " out " + when)
				bob.say(typed + " in " + when)
				alice.reads(bob.jid(), typed+" in "+when)
			}
			talk("before")

			// Announced: the administrator makes the next key, tells its pin, and rotates later.
			next := s.announces(t)
			h.word(t, &done, "pin", "add", s.domain, next, "--next")
			s.renews(t)
			talk("behind the announced change")
			carol := startSlixmpp(t, "carol@"+s.domain, h.addr, "starttls")
			carol.online()
			carol.says(t, "has the new certificate that was announced")
			var pins []control.PinLine
			h.word(t, &pins, "pin", "list")
			if !slices.ContainsFunc(pins, func(p control.PinLine) bool { return p.Pin == next && p.Slot == "current" && p.Seen != "" }) {
				t.Errorf("afterwards: %+v", pins)
			}
			if strings.Contains(h.output(), "cause=pin_mismatch") {
				t.Error("somebody was refused")
			}
			t.Logf("renewal: %s: announced: alice stayed connected, carol came in by %s", server, next)

			// Not announced.
			s.renews(t)
			command := refused("dave")
			talk("while others are refused") // who is connected stays
			h.word(t, &done, command...)
			dave := startSlixmpp(t, "dave@"+s.domain, h.addr, "starttls")
			dave.online()
			t.Logf("renewal: %s: not announced: dave was stopped, and came in behind: otrproxy %s", server, strings.Join(command, " "))
			talk("afterwards")
			unseen(t, s)
		})
	}
}
