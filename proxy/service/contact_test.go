package service

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"otrproxy/otrlayer/keyring"
	"otrproxy/proxy/address"
	"otrproxy/proxy/control"
	"otrproxy/proxy/journal"
	"otrproxy/stanza"
)

// program is a Client that keeps what it gets.
type program struct {
	of       *Contact
	admin    bool
	got      bytes.Buffer
	answered []string
}

func (p *program) FullJID() string               { return "alice@example.org/desk" }
func (p *program) Stranger() bool                { return false }
func (p *program) HandsOff() bool                { return false }
func (p *program) Everywhere() []*Contact        { return []*Contact{p.of} }
func (p *program) Deliver(f func([]byte) []byte) { p.got.Write(f(nil)) }
func (p *program) Answer(line string)            { p.answered = append(p.answered, line) }
func (p *program) Talking() []string             { return nil }
func (p *program) Refuse(root stanza.Element, e stanza.Error) {
	p.got.Write(stanza.AppendError(nil, string(root.Local()), root.Attr("to"), p.FullJID(), root.Attr("id"), e))
}
func (p *program) Actor(place control.Place) control.Actor {
	return control.Actor{Place: place, Account: "alice@example.org", Admin: p.admin}
}
func (p *program) Commands() control.Table {
	ran := func(context.Context, control.Call) (control.Reply, error) { return control.Did("Ran.") }
	return control.Table{{Name: "status", Help: "says how things stand", Chat: true, Run: ran}, {Name: "reload", Help: "reads the configuration again", Admin: true, Run: ran}}
}

func meet(t *testing.T) (*Contact, *program) {
	t.Helper()
	log := journal.New(nil, func() bool { return false })
	dir := t.TempDir()
	if err := os.MkdirAll(keyring.Dir(dir, "alice@example.org"), 0o700); err != nil {
		t.Fatal(err)
	}
	var c Contact
	p := &program{of: &c}
	c.Meet(New(t.Context(), log, dir, "1.0", new(address.Cache)), "alice@example.org", p)
	return &c, p
}

// sends has the client send a stanza to the contact, and returns what it gets for that.
func sends(t *testing.T, c *Contact, p *program, xml string) string {
	t.Helper()
	st, err := stanza.Parse([]byte(xml))
	if err != nil {
		t.Fatal(err)
	}
	p.got.Reset()
	c.Take(st, string(st.Root().Local()))
	return p.got.String()
}

func TestMenuShowsWhatThePersonMayDo(t *testing.T) {
	c, p := meet(t)
	const ask = `<iq xmlns='jabber:client' type='get' id='1' to='otrproxy.localhost'><query xmlns='http://jabber.org/protocol/disco#items' node='http://jabber.org/protocol/commands'/></iq>`
	if got := sends(t, c, p, ask); !strings.Contains(got, `node='status'`) || strings.Contains(got, "reload") {
		t.Errorf("a person's menu: %s", got)
	}
	const run = `<iq xmlns='jabber:client' type='set' id='2' to='otrproxy.localhost'><command xmlns='http://jabber.org/protocol/commands' node='reload'/></iq>`
	if got := sends(t, c, p, run); !strings.Contains(got, "<forbidden") || strings.Contains(got, "Ran.") {
		t.Errorf("a command that is not a person's: %s", got)
	}
	p.admin = true
	if got := sends(t, c, p, ask); !strings.Contains(got, `node='reload'`) {
		t.Errorf("an administrator's menu: %s", got)
	}
	if got := sends(t, c, p, run); !strings.Contains(got, "Ran.") {
		t.Errorf("an administrator's command: %s", got)
	}
}

func TestContactIsListedHereAlone(t *testing.T) {
	c, p := meet(t)
	if got := sends(t, c, p, `<presence xmlns='jabber:client' type='subscribe' to='otrproxy.localhost'/>`); !strings.Contains(got, "subscription='both'") || !strings.Contains(got, "type='subscribed'") {
		t.Errorf("somebody who wants to see it gets %s", got)
	}
	if !c.Remembers(Listed) || len(c.pushed) != 1 {
		t.Errorf("listed %v, pushes %v", c.Remembers(Listed), c.pushed)
	}
	for id := range c.pushed {
		if !c.Answers([]byte(id)) || c.Answers([]byte(id)) {
			t.Error("a push is not answered exactly once")
		}
	}
	st, err := stanza.Parse([]byte(`<iq xmlns='jabber:client' type='set' id='3'><query xmlns='jabber:iq:roster'><item jid='otrproxy.localhost' subscription='remove'/></query></iq>`))
	if err != nil {
		t.Fatal(err)
	}
	if e, over := c.WithoutUs(st); e != nil || !over || c.Remembers(Listed) {
		t.Errorf("taking it off the list: edit %v, over %v, listed %v", e, over, c.Remembers(Listed))
	}
}

func TestLineToTheContactIsACommand(t *testing.T) {
	c, p := meet(t)
	sends(t, c, p, `<message xmlns='jabber:client' type='chat' to='otrproxy.localhost'><body> !otr status </body></message>`)
	if len(p.answered) != 1 || p.answered[0] != "status" {
		t.Errorf("it took %q", p.answered)
	}
}
