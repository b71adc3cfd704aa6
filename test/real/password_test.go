//go:build linux

package real

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"otrproxy/test/need"
)

// What a change of the password costs the person: in Gajim, connected through the proxy,
// nothing; on the server's own page, one sentence in another program. Until it is said, the
// login with the new one gets nothing private.
func TestPasswordChanged(t *testing.T) {
	need.Program(t, "gajim", "Xvfb", "dbus-daemon")
	s := startEjabberd(t, "starttls")
	alice := "alice@" + s.domain
	s.register(t, "alice", "bob")
	h := startOTRProxy(t, s, "")
	phone := startSlixmpp(t, alice, h.addr, "starttls", "phone")
	phone.online()
	bob := startMcabber(t, s, "bob", alice)
	phone.befriend(bob)
	phone.say(bob.jid(), "1", "hello from the phone")
	bob.reads("hello from the phone")
	desktop := startDesktop(t, t.TempDir())
	there := func(password string, strangers int) *process {
		g := startGajimWith(t, desktop, alice, password, h.addr, shown(t, h, s.domain))
		g.says(t, "(?m)^online$")
		eventually(t, "Gajim to log in", func() bool {
			st, found := h.status(t), 0
			for _, x := range st.Sessions {
				if x.Stranger {
					found++
				}
			}
			return len(st.Sessions) == 2 && found == strangers && !strings.HasSuffix(st.Sessions[0].Resource+st.Sessions[1].Resource, "/")
		})
		return g
	}
	gone := func(g *process) {
		g.kill(syscall.SIGKILL)
		eventually(t, "Gajim's session to end", func() bool { return len(h.status(t).Sessions) == 1 })
	}

	g := there("secret", 0)
	fmt.Fprintln(g.in, "change second secret")
	g.says(t, "(?m)^changed$")
	gone(g)
	g = there("second secret", 0)
	fmt.Fprintln(g.in, "say "+bob.jid()+" with the second one")
	bob.reads("with the second one")
	if strings.Contains(phone.output(), "another password") {
		t.Error("alice is asked about a change of her own")
	}
	gone(g)

	res, err := http.PostForm("http://"+s.ip+":5280/register/change_password/", url.Values{"username": {"alice"}, "host": {s.domain}, "passwordold": {"second secret"}, "password": {"third secret"}, "password2": {"third secret"}})
	if err != nil {
		t.Fatal(err)
	}
	page, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if res.StatusCode != 200 || !strings.Contains(string(page), "successfully") {
		t.Fatalf("the server's page: %s %s", res.Status, page)
	}
	g = there("third secret", 1)
	line := phone.noticed("otrproxy.localhost", `login confirm \d{4}`)
	code := regexp.MustCompile(`login confirm (\d{4})`).FindStringSubmatch(line)[1]
	t.Logf("the phone shows: %s", line)
	t.Logf("Gajim shows: %s", g.says(t, `(?m)^text otrproxy\.localhost.*Your code is `+code+".*$"))
	bob.say("for the phone only")
	phone.reads(bob.jid(), "for the phone only")
	fmt.Fprintln(g.in, "say "+bob.jid()+" before it is confirmed")
	phone.say("otrproxy.localhost", "2", "login confirm "+code)
	t.Logf("Gajim shows: %s", g.says(t, `(?m)^text otrproxy\.localhost.*this is you.*$`))
	fmt.Fprintln(g.in, "say "+bob.jid()+" with the third one")
	bob.reads("with the third one")
	bob.say("for both")
	phone.reads(bob.jid(), "for both")
	g.says(t, `(?m)^text `+regexp.QuoteMeta(bob.jid())+`.* "for both"$`)
	if strings.Contains(g.output(), "for the phone only") {
		t.Error("Gajim has read what was private before")
	}
	if strings.Contains(s.received(), "before it is confirmed") {
		t.Error("a text left in clear")
	}
}
