//go:build linux

package real

import (
	"fmt"
	"strings"
	"testing"
)

// An unmodified client finds the service contact among the server's services, puts it on
// its list of contacts, and verifies bob by its menus alone.
func TestMenus(t *testing.T) {
	s, h, alice, bob := stage(t, startProsody, startMcabber)
	alice.say(bob.jid(), "m1", typed)
	bob.reads(typed)
	const service = "otrproxy.localhost"
	ask := func(line, pattern string) string {
		t.Helper()
		fmt.Fprintln(alice.in, line)
		return alice.chat.next(t, `(?m)^`+pattern+`.*$`)
	}
	if items := ask("items "+s.domain+" ", "items "); !strings.Contains(items, service) {
		t.Errorf("the server's services are %s", items)
	}
	if items := ask("items "+service+" http://jabber.org/protocol/commands", "items "); !strings.Contains(items, `"contact verify"`) || strings.Contains(items, "pin add") {
		t.Errorf("the commands are %s", items)
	}
	ask("add "+service, "roster "+service+" both")
	fmt.Fprintln(alice.in, `execute `+service+` "contact verify" {"contact": "`+bob.jid()+`", "fingerprint": "`+bob.fingerprint()+`"}`)
	if fields := alice.chat.next(t, `(?m)^fields .*$`); !strings.Contains(fields, `["contact", "jid-single", true]`) {
		t.Error(fields)
	}
	alice.chat.next(t, `(?m)^executed completed info .*is verified.*$`)
	if trust := h.trust(t, "alice@"+s.domain, bob.jid()).Trust; trust != "verified" {
		t.Errorf("trust %s", trust)
	}
	ask(`execute `+service+` "contact verify" {"contact": "`+bob.jid()+`", "fingerprint": "01"}`, `executed executing error .*40 hex digits`)
	ask(`execute `+service+` "smp ask" {"contact": "`+bob.jid()+`", "question": "what colour?", "secret": "blue"}`, `executed completed info .*Asked `+bob.jid())
	bob.asked("what colour?")
	bob.answer("blue")
	bob.told(true)
	alice.noticed(bob.jid(), "The secrets are the same")
	ask(`execute `+service+` "status" {}`, `executed completed info .*you are connected`)

	// It is still there after the client has come back.
	alice.quit()
	again := startSlixmpp(t, "alice@"+s.domain, h.addr, "starttls")
	again.online()
	again.chat.next(t, `(?m)^roster `+service+` both$`)
	fmt.Fprintln(again.in, "remove "+service)
	again.chat.next(t, `(?m)^roster `+service+` remove$`)
	if strings.Contains(s.received(), service) {
		t.Error("the server has heard of it")
	}
	unseen(t, s)
}
