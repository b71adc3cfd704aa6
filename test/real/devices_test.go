//go:build linux

package real

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"otrproxy/test/need"
)

// behind starts mcabber without its own OTR, as somebody's client behind the proxy.
func (h *household) behind(t *testing.T, jid, resource, peer string) *mcabber {
	t.Helper()
	need.Program(t, "mcabber")
	host, port, _ := net.SplitHostPort(h.addr)
	m := &mcabber{t: t, dir: t.TempDir(), peer: peer}
	write(t, m.dir, map[string]string{"log/.keep": "", "rc": fmt.Sprintf(`set jid = %s
set password = secret
set server = %s
set port = %s
set tls = 1
set ssl_ca = %s/ca.pem
set resource = %s
set disable_random_resource = 1
set carbons = 1
set otr = 0
module load fifo
set fifo_name = %s/fifo
set logging = 1
set logging_dir = %s/log
set autoaway = 0
set beep_on_message = 0
set tracelog_level = 3
set tracelog_file = %s/trace
`, jid, host, port, h.state, resource, m.dir, m.dir, m.dir)})
	m.run()
	return m
}

// log is what mcabber has kept of the conversation.
func (m *mcabber) log() string {
	b, _ := os.ReadFile(filepath.Join(m.dir, "log", m.peer))
	return string(b)
}

// keeps waits for a line that was received (MR) or sent (MS).
func (m *mcabber) keeps(how, text string) {
	m.t.Helper()
	eventually(m.t, "mcabber to keep "+text, func() bool {
		return regexp.MustCompile(`(?m)^` + how + ` .*` + regexp.QuoteMeta(text) + `$`).MatchString(m.log())
	})
}

// One person, three clients over the day, a contact with Pidgin: everything is on each that
// is there, by one key exchange.
func TestDevicesAndPidgin(t *testing.T) {
	s, h, first, bob := stage(t, startProsody, startPidgin)
	jid := "alice@" + s.domain
	first.say(bob.jid(), "m1", "first, from the laptop")
	bob.reads("first, from the laptop")
	phone := h.behind(t, jid, "phone", bob.jid())
	desk := startSlixmpp(t, jid, h.addr, "direct", "desk", "carbons")
	desk.online()

	phone.say("second, from the phone")
	bob.reads("second, from the phone")
	desk.says(t, `(?m)^carbon `+jid+`/phone `+bob.jid()+`\S* "second, from the phone"$`)
	bob.say("third, from Pidgin")
	first.reads(bob.jid(), "third, from Pidgin")
	phone.keeps("MR", "third, from Pidgin")
	desk.says(t, `(?m)^(text|carbon) `+bob.jid()+`.* "third, from Pidgin"$`)

	first.quit()
	bob.say("fourth, once the laptop is shut")
	phone.keeps("MR", "fourth, once the laptop is shut")
	desk.says(t, `(?m)^(text|carbon) `+bob.jid()+`.* "fourth, once the laptop is shut"$`)
	desk.say(bob.jid(), "m5", "fifth, from the desk")
	bob.reads("fifth, from the desk")
	phone.keeps("MS", "fifth, from the desk")

	unshown := func(who, text string, want int) {
		t.Helper()
		for _, word := range []string{"first,", "second,", "third,", "fourth,", "fifth,"} {
			if n := strings.Count(text, word); n > want {
				t.Errorf("%s shows %q %d times", who, word, n)
			}
		}
	}
	unshown("the desk", desk.output(), 1)
	unshown("the phone", phone.log(), 1)
	if n := strings.Count(s.received(), "?OTR:AAMS"); n != 1 { // the last message of an exchange
		t.Errorf("%d key exchanges", n)
	}
	for _, word := range []string{"first,", "second,", "third,", "fourth,", "fifth,"} {
		if strings.Contains(s.received(), word) {
			t.Errorf("the server saw %q", word)
		}
	}
	transcript := func(who, text, pattern string) {
		for _, line := range regexp.MustCompile(pattern).FindAllString(text, -1) {
			t.Logf("devices: %-10s | %s", who, line)
		}
	}
	transcript("laptop", first.output(), `(?m)^text bob.*$`)
	transcript("phone", phone.log(), `(?m)^M[RS] .*$`)
	transcript("desk", desk.output(), `(?m)^(text|carbon) (bob|alice).*$`)
	logs, _ := filepath.Glob(bob.profile() + "/logs/jabber/*/*/*.txt")
	for _, path := range logs {
		b, _ := os.ReadFile(path)
		transcript("Pidgin", string(b), `(?m)^\(.*$`)
	}
}
