package proxy_test

import (
	"strings"
	"testing"

	"otrproxy/proxy/control"
	"otrproxy/stanza"
)

// What waits is listed, asked for again and taken back, in the chat and by the
// administrator.
func TestHeldCommands(t *testing.T) {
	c := onStage(t, "", func(*stage) {})
	c.contact = "carol@" + domain
	admin := func(name string, who ...string) (control.Reply, error) {
		args := []string{}
		for i, w := range who {
			args = append(args, []string{"account", "contact"}[i], w)
		}
		return admin(t, c.home.p, name, args...)
	}
	if r, err := admin("held list"); err != nil || r.Text != "nothing waits" || len(r.Data.([]control.HeldLine)) != 0 {
		t.Errorf("%+v %v", r, err)
	}
	c.alice.Say(c.contact, "h1", "one")
	c.alice.Say(c.contact, "h2", "two")
	c.send(nil)
	r, err := admin("held list")
	lines := r.Data.([]control.HeldLine)
	if err != nil || len(lines) != 2 || lines[0].ID != "h1" || lines[1].ID != "h2" || lines[0].Account != "alice@"+domain || lines[0].Contact != c.contact || !lines[0].Expires.After(lines[0].Since) {
		t.Errorf("%+v %v", r, err)
	}
	c.alice.Say(c.contact, "", "!otr held")
	c.noticed("waits for a private conversation")
	queries := func() int { return strings.Count(string(c.s.Received()), "?OTRv23?") }
	before := queries()
	if r, err := admin("held send", "alice@"+domain, c.contact); err != nil || !strings.Contains(r.Text, "2 messages wait for") {
		t.Errorf("%+v %v", r, err)
	}
	if !c.s.Wait(func(b []byte) bool { return strings.Count(string(b), "?OTRv23?") == before+1 }) {
		t.Error("nobody was asked again")
	}
	if _, err := admin("held send", "alice@"+domain, "nobody@"+domain); err == nil || !strings.Contains(err.Error(), "nothing waits for nobody@") {
		t.Errorf("%v", err)
	}
	if _, err := admin("held drop", "dave@"+domain, c.contact); err == nil || !strings.Contains(err.Error(), "there is no account dave@") {
		t.Errorf("%v", err)
	}
	if _, err := admin("held drop"); err == nil {
		t.Error("no usage")
	}
	if r, err := admin("held drop", "alice@"+domain, c.contact); err != nil || r.Text != "2 messages taken back." {
		t.Errorf("%+v %v", r, err)
	}
	for _, id := range []string{"h1", "h2"} {
		st, err := c.alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == id })
		if err != nil || !strings.Contains(allOf(st), "taken back on your request") {
			t.Errorf("%v %s", err, st.Raw)
		}
	}
}
