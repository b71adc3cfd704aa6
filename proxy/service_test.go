package proxy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"otrproxy/config"
	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/stanza"
)

const service = "otrproxy.localhost"

// asks sends a request and waits for its answer.
func asks(t *testing.T, c *client.Client, id, typ, to, inner string) *stanza.Stanza {
	t.Helper()
	c.Send(fmt.Sprintf("<iq type='%s' id='%s' to='%s'>%s</iq>", typ, id, to, inner))
	st, err := c.Wait(func(st *stanza.Stanza) bool { return st.Is(stanza.NSClient, "iq") && st.Root().Attr("id") == id })
	if err != nil {
		t.Fatalf("%s: %v", id, err)
	}
	return st
}

// The service contact greets an account once, over restarts, and where the rules do not
// leave it alone.
func TestGreeting(t *testing.T) {
	s := startServer(t, server.Config{})
	dir := stateDir(t)
	os.Remove(filepath.Join(dir, "accounts", "alice@"+domain, "service"))
	text := configFor(s, dir) + "otr:\n  - {account: \"carol@*\", contact: \"*\", policy: never}\n"
	os.Remove(filepath.Join(dir, "accounts", "carol@"+domain, "service"))
	b := startConfigured(t, dir, text)
	// greetings counts what a client that has just come is told.
	greetings := func(user string) (n int) {
		t.Helper()
		c := b.login(user, client.Plain)
		defer c.Close()
		c.Send("<iq type='get' id='p' to='" + service + "'><ping xmlns='urn:xmpp:ping'/></iq>")
		for {
			st, err := c.Wait(func(*stanza.Stanza) bool { return true })
			switch {
			case err != nil:
				t.Fatal(err)
			case st.Root().Attr("id") == "p":
				return n
			case client.Notice(st):
				n++
			}
		}
	}
	if n := greetings("alice"); n != 1 {
		t.Errorf("at first: %d", n)
	}
	for _, user := range []string{"alice", "carol", "bob"} {
		if n := greetings(user); n != 0 {
			t.Errorf("%s: %d", user, n)
		}
	}
	b.stop()
	b = startConfigured(t, dir, text)
	if n := greetings("alice"); n != 0 {
		t.Errorf("after a restart: %d", n)
	}
	alice := b.login("alice", client.Plain)
	alice.Say(service, "", "help")
	if _, err := alice.Notice("verify CONTACT [FINGERPRINT] - compares"); err != nil {
		t.Error(err)
	}
}

// It is found among the server's services, says what it is, and lists the commands that
// a person may use.
func TestServiceDiscovery(t *testing.T) {
	c := onStage(t, "", func(*stage) {})
	info := asks(t, c.alice, "i", "get", service, "<query xmlns='http://jabber.org/protocol/disco#info'/>")
	for _, want := range []string{"category='client' type='bot'", "var='http://jabber.org/protocol/commands'", "var='http://jabber.org/protocol/disco#items'"} {
		if !strings.Contains(string(info.Raw), want) {
			t.Errorf("no %s in %s", want, info.Raw)
		}
	}
	items := string(asks(t, c.alice, "l", "get", service, "<query xmlns='http://jabber.org/protocol/disco#items' node='http://jabber.org/protocol/commands'/>").Raw)
	if !strings.Contains(items, "node='contact verify'") || strings.Contains(items, "node='pin add'") || strings.Contains(items, "node='key import'") {
		t.Error(items)
	}
	node := string(asks(t, c.alice, "n", "get", service, "<query xmlns='http://jabber.org/protocol/disco#info' node='contact verify'/>").Raw)
	if !strings.Contains(node, "category='automation' type='command-node'") || !strings.Contains(node, "var='jabber:x:data'") {
		t.Error(node)
	}
	for i, node := range []string{"pin add", "nothing", "http://jabber.org/protocol/commands/x"} {
		if st := asks(t, c.alice, fmt.Sprint("x", i), "get", service, "<query xmlns='http://jabber.org/protocol/disco#info' node='"+node+"'/>"); st.Root().Attr("type") != "error" || !strings.Contains(string(st.Raw), "item-not-found") {
			t.Errorf("%s: %s", node, st.Raw)
		}
	}
	if st := asks(t, c.alice, "v", "get", service, "<query xmlns='jabber:iq:version'/>"); !strings.Contains(string(st.Raw), "<name>otrproxy</name>") {
		t.Error(string(st.Raw))
	}
	if st := asks(t, c.alice, "s", "set", service, "<query xmlns='jabber:iq:anything'/>"); !strings.Contains(string(st.Raw), "service-unavailable") {
		t.Error(string(st.Raw))
	}
	if strings.Contains(string(c.s.Received()), service) {
		t.Error("the server has heard of it")
	}
}

// It can be put on the list of contacts, is there after a restart, and goes again. The
// server's own list knows nothing of it.
func TestServiceOnTheRoster(t *testing.T) {
	c := onStage(t, "", func(*stage) {})
	pushed := func(subscription string) {
		t.Helper()
		st, err := c.alice.Wait(func(st *stanza.Stanza) bool {
			return st.Is(stanza.NSClient, "iq") && st.Root().Attr("type") == "set" && strings.Contains(string(st.Raw), service)
		})
		if err != nil || !strings.Contains(string(st.Raw), "subscription='"+subscription+"'") {
			t.Fatalf("%v %v", st, err)
		}
		c.alice.Send("<iq type='result' id='" + st.Root().Attr("id") + "'/>")
	}
	if st := asks(t, c.alice, "add", "set", "alice@"+domain, "<query xmlns='jabber:iq:roster'><item jid='"+service+"' name='proxy'/></query>"); st.Root().Attr("type") != "result" {
		t.Error(string(st.Raw))
	}
	pushed("both")
	c.alice.Send("<presence to='" + service + "' type='subscribe'/>")
	c.presence(service, "subscribed")
	c.presence(service+"/otrproxy", "")
	c.home.stop()
	c.home = startConfigured(t, c.home.state, configFor(c.s, c.home.state))
	c.alice = c.home.login("alice", client.Plain)
	pushed("both")
	c.presence(service+"/otrproxy", "")
	asks(t, c.alice, "del", "set", "alice@"+domain, "<query xmlns='jabber:iq:roster'><item jid='"+service+"' subscription='remove'/></query>")
	pushed("remove")
	asks(t, c.alice, "end", "get", domain, "<ping xmlns='urn:xmpp:ping'/>")
	if seen := string(c.s.Received()); strings.Contains(seen, service) || strings.Contains(seen, "otrproxy-") && strings.Contains(seen, "<iq type='result' id='otrproxy-") {
		t.Error("the server has heard of it")
	}
	// A push of somebody else's about it does not reach the client.
	c.s.Send("alice", "<iq type='set' id='forged' from='"+service+"'><query xmlns='jabber:iq:roster'><item jid='evil@x' subscription='both'/></query></iq>")
	c.s.Send("alice", "<message type='headline' from='x@y' id='over'/>")
	if st, err := c.alice.Wait(func(st *stanza.Stanza) bool {
		return st.Root().Attr("id") == "forged" || st.Root().Attr("id") == "over"
	}); err != nil || st.Root().Attr("id") == "forged" {
		t.Errorf("%v", err)
	}
}

// The steps of an ad-hoc command (XEP-0050).
func TestAdHocSteps(t *testing.T) {
	c := onStage(t, "", (*stage).talk)
	n := 0
	execute := func(attrs, inner string) string {
		t.Helper()
		n++
		return string(asks(t, c.alice, fmt.Sprint("c", n), "set", service, "<command xmlns='http://jabber.org/protocol/commands' "+attrs+">"+inner+"</command>").Raw)
	}
	form := func(fields ...string) string {
		x := "<x xmlns='jabber:x:data' type='submit'>"
		for i := 0; i < len(fields); i += 2 {
			x += "<field var='" + fields[i] + "'><value>" + fields[i+1] + "</value></field>"
		}
		return x + "</x>"
	}
	has := func(got string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("no %s in %s", w, got)
			}
		}
	}
	first := execute("node='contact verify' action='execute'", "")
	has(first, "status='executing'", "<actions execute='complete'><complete/></actions>", "type='form'", "var='contact' type='jid-single'", "<required/>", "<value>bob@"+domain+"</value>", "var='fingerprint' type='text-single'")
	if strings.Contains(first, "var='account'") {
		t.Error("asks for the account")
	}
	has(execute("node='smp ask' action='execute'", ""), "var='secret' type='text-private'")
	has(execute("node='contact verify' sessionid='s1' action='complete'", form("contact", "bob@"+domain, "fingerprint", "xyz")), "status='executing'", "type='error'", "<instructions>Not done. A fingerprint has 40 hex digits", "<value>xyz</value>")
	has(execute("node='contact verify' sessionid='s1' action='complete'", form("contact", "", "fingerprint", "")), "status='executing'", "sessionid='s1'", "Contact&quot; is missing")
	has(execute("node='contact verify' sessionid='s2'", form("contact", "bob@"+domain, "fingerprint", "xmpp:bob@"+domain+"?otr-fingerprint="+strings.ReplaceAll(c.bobsKey(), " ", ""))), "status='completed'", "is verified")
	has(execute("node='contact show' action='complete'", form("contact", "bob@"+domain)), "type='result'", "key verified", "<value>Your fingerprint:")
	has(execute("node='contact verify' action='cancel' sessionid='s3'", ""), "status='canceled'", "sessionid='s3'")
	has(execute("node='contact verify' action='prev' sessionid='s3'", ""), "bad-request")
	has(execute("node='status' action='execute'", ""), "status='completed'", "you are connected")
	has(execute("node='nothing' action='execute'", ""), "item-not-found")
	has(execute("node='pin add' action='complete'", form("domain", domain, "pin", "sha256:x")), "forbidden", "for the administrator")
	has(execute("node='contact verify' sessionid='s1' action='complete'", form()), "status='completed'", "There is nothing more to do")
	has(execute("node='held list' action='complete'", form()), "status='completed'", "nothing waits")
	// The account is the person's own, whatever the form says.
	has(execute("node='held list' action='complete'", form("account", "carol@"+domain)), "status='completed'", "nothing waits")
}

// What kept a client from its server is said in a chat, once it is in, for many programs say only
// that the login failed: when, what it was, and the way on. The log has a command to paste.
func TestRefusedLoginsAreSaidLater(t *testing.T) {
	s := startServer(t, server.Config{})
	other := startServer(t, server.Config{})
	dir := stateDir(t)
	wrong := strings.Replace(configFor(s, dir), s.Pin(), other.Pin(), 1)
	b := startConfigured(t, dir, wrong)
	for range 2 {
		if c, err := client.Dial(t.Context(), b.config("alice", client.STARTTLS)); err == nil {
			c.Close()
			t.Fatal("she is let in")
		}
	}
	if log := b.log.String(); !strings.Contains(log, "otrproxy pin add "+domain+" ") {
		t.Errorf("no command to paste: %s", log)
	}
	cfg, err := config.Parse("test.yaml", []byte(configFor(s, dir)))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.p.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	alice := b.login("alice", client.STARTTLS)
	line, err := alice.Notice("a login to " + domain + " was refused")
	if err != nil || !strings.Contains(line, "Before, 2 times,") || !strings.Contains(line, "pin") {
		t.Fatalf("%v %q", err, line)
	}
	alice.Close()
	alice = b.login("alice", client.STARTTLS)
	for _, st := range fromServer(t, s, alice, "") {
		if strings.Contains(client.Body(st), "was refused") {
			t.Errorf("said again: %s", st.Raw)
		}
	}
}

const onTheWay = "x). All is well; write !otr send 00112233 to go on. (see"

// What somebody on the way has said does not stand in that.
func TestRefusedLoginsQuoteNobody(t *testing.T) {
	c := onStage(t, "", func(*stage) {})
	c.alice.Close()
	c.s.SetFaults(server.Faults{InsteadOfAll: "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' from='" + domain + "' id='1'>" +
		"<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/><text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>" + onTheWay + "</text></stream:error></stream:stream>"})
	if cl, err := client.Dial(t.Context(), c.home.config("alice", client.Plain)); err == nil {
		cl.Close()
		t.Fatal("she is let in")
	}
	c.s.SetFaults(server.Faults{})
	c.alice = c.home.login("alice", client.Plain)
	c.send(nil)
	for _, st := range fromServer(t, c.s, c.alice, "") {
		if client.Notice(st) && strings.Contains(client.Body(st), "All is well") {
			t.Errorf("from %s: %s", st.Root().Attr("from"), client.Body(st))
		}
	}
}
