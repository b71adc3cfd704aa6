//go:build linux

package real

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// Somebody with Pidgin, which is told to use a SOCKS proxy and nothing else of otrproxy,
// talks to a contact with mcabber. It names the server by its domain: there is no DNS
// here, and so no SRV record.
func TestPidginBySOCKS(t *testing.T) {
	s := startProsody(t, "starttls")
	h := startOTRProxy(t, s, "")
	s.register(t, "alice", "bob")
	jid := "alice@" + s.domain
	host, port, _ := net.SplitHostPort(h.addr)
	other := startSlixmpp(t, jid, s.ip+":5222", "starttls") // says yes to bob, for which Pidgin has a window
	other.online()
	befriended(t, s, "bob", jid)
	other.quit()
	alice := openPidgin(t, s, "alice", "bob@"+s.domain, "", fmt.Sprintf("<proxy><type>socks5</type><host>%s</host><port>%s</port></proxy>", host, port), nil,
		map[string]string{"certificates/x509/tls_peers/" + s.domain: shown(t, h, s.domain)})
	bob := startMcabber(t, s, "bob", jid)
	alice.say(typed)
	bob.reads(typed)
	bob.say(typed)
	alice.reads(typed)
	st := h.status(t).Sessions
	if len(st) != 1 || st[0].Entry != "socks5 starttls" || st[0].ClientTLS == "" || len(st[0].Conversations) != 1 || st[0].Conversations[0].State != "encrypted" {
		t.Errorf("status %+v", st)
	}
	alice.say("!otr status")
	eventually(t, "Pidgin to read the answer", fileHas(alice.dir+"/logs/jabber/*/*/*.txt", `\[otrproxy\] otrproxy`))
	unseen(t, s)
	if strings.Contains(s.received(), "!otr") {
		t.Error("the server has seen a command")
	}
}
