package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"mellium.im/xmpp/jid"

	"otrproxy/config"
	"otrproxy/otrlayer"
	"otrproxy/proxy/control"
	"otrproxy/stanza"
)

// The one table of commands is put together here; what they do stands in the files
// named after what they are about: contacts.go, held.go, keys.go, servers.go, status.go,
// doctor.go. A client reaches it by a line in a chat (here), or through the service
// contact (service.go) and its menus (adhoc.go).

// commandWord begins a command in a chat. Such a body never leaves the machine.
const commandWord = "!otr"

// command finds a command in a message's body.
func command(root stanza.Element) (line string, ok bool) {
	for el := range root.Children() {
		if !el.Is(stanza.NSClient, "body") {
			continue
		}
		// Most texts begin with a letter: no need to decode them.
		if raw := bytes.TrimLeft(el.InnerRaw(), " \t\r\n"); len(raw) == 0 || raw[0] != commandWord[0] && raw[0] != '&' && raw[0] != '<' && raw[0] < utf8.RuneSelf {
			continue
		}
		// Keyboards put a capital, and invisible blanks, where nobody meant one.
		text := strings.TrimLeftFunc(el.Text(), func(r rune) bool { return unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) })
		if len(text) >= len(commandWord) && strings.EqualFold(text[:len(commandWord)], commandWord) {
			return text[len(commandWord):], true
		}
	}
	return "", false
}

// commandLimit is how long a command may take that a client waits for.
const commandLimit = 20 * time.Second

// command runs a command written in the conversation with a contact.
func (s *session) command(line, contact string) {
	s.say(contact, s.as(control.InChat, contact), line)
}

// say answers a line in the conversation it was written in.
func (s *session) say(where string, a control.Actor, line string) {
	ctx, cancel := context.WithTimeout(s.p.ctx, commandLimit)
	defer cancel()
	reply, err := s.commands().Line(ctx, a, line)
	text := reply.Text
	if err != nil {
		text = sentence(err)
	}
	if text != "" {
		s.Notice(where, text)
	}
}

// commands are those that the session's client can use.
func (s *session) commands() control.Table {
	if s.stranger.Load() != nil {
		return s.strangersTable()
	}
	return s.p.commands
}

// sentence is an error as a person reads it.
func sentence(err error) string {
	t := strings.TrimPrefix(err.Error(), control.ErrUsage.Error()+": ")
	if t == "" {
		return t
	}
	t = strings.ToUpper(t[:1]) + t[1:]
	if strings.HasSuffix(t, ".") {
		return t
	}
	return t + "."
}

// Words is the table without a proxy behind it: names, usage and help.
func Words() control.Table { return (&Proxy{}).table() }

// Commands is the table of the running proxy.
func (p *Proxy) Commands() control.Table { return p.commands }

// table is the one table of commands.
func (p *Proxy) table() control.Table {
	var t control.Table
	help := control.Command{Name: "help", Help: "lists the commands, or explains one", Chat: true, Reads: true,
		Args: []control.Arg{{Name: "command", Kind: control.Rest, Optional: true, Label: "Which one"}},
		Run:  func(_ context.Context, c control.Call) (control.Reply, error) { return helpFor(t, c) }}
	reload := control.Command{Name: "reload", Help: "re-reads the configuration file; on an error the old one stays in force", Run: p.reload}
	web := control.Command{Name: "web", Help: "prints the address of the web page, which works once", Reads: true, Run: p.link}
	t = slices.Concat(control.Table{help}, p.statusCommands(), p.contactCommands(), p.smpCommands(), p.heldCommands(), p.keyCommands(), p.loginCommands(), p.serverCommands(), control.Table{reload, web})
	return t
}

func helpFor(t control.Table, c control.Call) (control.Reply, error) {
	if name := strings.TrimSpace(strings.TrimPrefix(c.Arg("command"), commandWord)); name != "" {
		for i := range t {
			if x := &t[i]; (x.Name == name || x.Short == name) && x.May(c.Actor) {
				return control.Reply{Text: t.How(c.Actor, x.Name, nil) + " - " + x.Help, Data: []control.Done{{Text: x.Help}}}, nil
			}
		}
		return control.Reply{}, fmt.Errorf("%w: there is no command %q; %s lists them", control.ErrUsage, name, t.How(c.Actor, "help", nil))
	}
	text := t.Help(c.Actor)
	if c.Place == control.InChat || c.Place == control.InService {
		text = "Commands, none of which leaves this machine:\n" + text
	}
	var list []control.Done
	for i := range t {
		if t[i].May(c.Actor) {
			list = append(list, control.Done{Text: t[i].Name + " - " + t[i].Help})
		}
	}
	return control.Reply{Text: text, Data: list}, nil
}

func (p *Proxy) reload(context.Context, control.Call) (control.Reply, error) {
	file := p.Config().File
	if file == "" {
		return control.Reply{}, errors.New("this proxy runs without a configuration file")
	}
	cfg, err := config.Load(file)
	if err == nil {
		err = p.Reload(cfg)
	}
	if err != nil {
		return control.Reply{}, err
	}
	return done("%s is in force", file)
}

// done is the reply of a command that has nothing more to say.
func done(format string, args ...any) (control.Reply, error) {
	text := fmt.Sprintf(format, args...)
	return control.Reply{Text: text, Data: []control.Done{{Text: text}}}, nil
}

// Arguments that several commands have.
var (
	accountArg = control.Arg{Name: "account", Kind: control.Account, Label: "Your account"}
	anyAccount = control.Arg{Name: "account", Kind: control.Account, Optional: true, Label: "Account (empty for all)"}
	contactArg = control.Arg{Name: "contact", Kind: control.Contact, Label: "Contact"}
	anyContact = control.Arg{Name: "contact", Kind: control.Contact, Optional: true, Label: "Contact (empty for all)"}
	domainArg  = control.Arg{Name: "domain", Label: "Domain"}
)

// A verb is what a command does with an account and a contact.
type verb func(a *otrlayer.Account, contact string, c control.Call) (control.Reply, error)

// with finds the account and reads the contact's address.
func (p *Proxy) with(f verb) func(context.Context, control.Call) (control.Reply, error) {
	return func(_ context.Context, c control.Call) (control.Reply, error) {
		a, err := p.named(c)
		if err != nil {
			return control.Reply{}, err
		}
		contact := ""
		if c.Arg("contact") != "" {
			contact, err = bareJID(c.Arg("contact"))
			if err != nil || ours(address{bare: contact}) || !strings.Contains(contact, "@") && contact != c.Actor.Contact && !a.Knows(contact) { // not said back: it may be a secret in the wrong place
				return control.Reply{}, fmt.Errorf("%w: name the contact by their address, such as bob@example.org: %s", control.ErrUsage, c.How(c.Command))
			}
			c.Args["contact"] = contact
		}
		return f(a, contact, c)
	}
}

// named is the account that a call is about.
func (p *Proxy) named(c control.Call) (*otrlayer.Account, error) {
	jid, err := bareJID(c.Arg("account"))
	if err != nil {
		return nil, err
	}
	if c.Account == "" && !slices.Contains(p.known(), jid) {
		return nil, fmt.Errorf("there is no account %s here; it is made at its first login, or by: %s", jid, c.How("key generate"))
	}
	a, err := p.account(jid)
	if errors.Is(err, otrlayer.ErrLocked) {
		err = p.locked()
	}
	return a, err
}

// each opens the accounts that a call is about: one, or where none is named, all. What is
// wrong with one of all does not hide the others, and is said in trouble.
func (p *Proxy) each(c control.Call) (out []*otrlayer.Account, trouble string, err error) {
	if c.Arg("account") != "" {
		a, err := p.named(c)
		return []*otrlayer.Account{a}, "", err
	}
	for _, jid := range p.known() {
		a, err := p.account(jid)
		switch {
		case errors.Is(err, otrlayer.ErrLocked):
			continue
		case err != nil:
			trouble += "\n" + jid + " cannot be used: " + err.Error()
			continue
		}
		out = append(out, a)
	}
	return out, trouble, nil
}

// known lists the accounts that have a directory, by name.
func (p *Proxy) known() []string {
	list := otrlayer.Accounts(p.state.Dir)
	p.mu.Lock()
	for jid := range p.accounts {
		if !slices.Contains(list, jid) {
			list = append(list, jid)
		}
	}
	p.mu.Unlock()
	slices.Sort(list)
	return list
}

// bareJID is an address as a person writes it, in the form in which it is known.
func bareJID(s string) (string, error) {
	j, err := jid.Parse(strings.TrimPrefix(s, "xmpp:"))
	if err != nil {
		return "", fmt.Errorf("%q is not an address, such as bob@example.org", s)
	}
	return j.Bare().String(), nil
}

// outlet is a session of an account, for commands; nil when there is none.
func (p *Proxy) outlet(jid string) otrlayer.Outlet {
	if list := p.sessionsOf(jid); len(list) > 0 {
		return list[0]
	}
	return nil
}

// Connected is how many clients are logged in.
func (p *Proxy) Connected() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sessions.n
}

// sessionsOf are the sessions of an account's person, the oldest first. Strangers' are none.
func (p *Proxy) sessionsOf(jid string) []*session {
	return slices.DeleteFunc(p.everySession(jid), func(s *session) bool { return s.stranger.Load() != nil })
}

// everySession are all sessions of an account, of all accounts for "", the oldest first.
func (p *Proxy) everySession(jid string) (out []*session) {
	p.mu.Lock()
	out = p.sessions.all(jid)
	p.mu.Unlock()
	slices.SortFunc(out, func(a, b *session) int { return a.since.Compare(b.since) })
	return out
}

// also tells the person in their client what was done elsewhere in their name.
func (p *Proxy) also(c control.Call, account, contact string, r control.Reply, err error) (control.Reply, error) {
	if err == nil && c.Place != control.InChat {
		for _, s := range p.sessionsOf(account) {
			s.Notice(contact, r.Text)
		}
	}
	return r, err
}

// inConversation is the reply of a command whose effect is told in the conversation
// anyway.
func inConversation(c control.Call, format string, args ...any) (control.Reply, error) {
	r, _ := done(format, args...)
	if c.Place == control.InChat {
		r.Text = ""
	}
	return r, nil
}

// connected fails where no client of the account is there to send anything through.
func (p *Proxy) connected(account string) (otrlayer.Outlet, error) {
	if o := p.outlet(account); o != nil {
		return o, nil
	}
	return nil, fmt.Errorf("nobody is logged in as %s now, so nothing can be sent", account)
}
