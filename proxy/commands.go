package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
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

// command finds a command in a message's body.
func command(root stanza.Element) (line string, ok bool) {
	for el := range root.Children() {
		if !el.Is(stanza.NSClient, "body") {
			continue
		}
		// Most texts begin with a letter: no need to decode them.
		if raw := bytes.TrimLeft(el.InnerRaw(), " \t\r\n"); len(raw) == 0 || raw[0] != control.CommandWord[0] && raw[0] != '&' && raw[0] != '<' && raw[0] < utf8.RuneSelf {
			continue
		}
		// Keyboards put a capital, and invisible blanks, where nobody meant one.
		text := strings.TrimLeftFunc(el.Text(), func(r rune) bool { return unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) })
		if len(text) >= len(control.CommandWord) && strings.EqualFold(text[:len(control.CommandWord)], control.CommandWord) {
			return text[len(control.CommandWord):], true
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
	ctx, cancel := context.WithTimeout(s.r.ctx, commandLimit)
	defer cancel()
	reply, err := s.commands().Line(ctx, a, line)
	text := reply.Text
	if err != nil {
		text = control.Sentence(err)
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
	return s.r.commands
}

// A desk is what the commands work on: it knows all owners, and owns nothing itself but the time.
type desk struct {
	config      func() *config.Config
	log         *journal
	version     string
	started     time.Time
	accounts    *accountSet
	servers     *servers
	logins      *logins
	machine     *machine
	relay       *relay
	bell        *bell
	vault       *vault
	addrs       func() []net.Addr           // listened on
	load        func(*config.Config) error  // puts a configuration in force
	webLink     func() string               // mints the address of the web page; nil for none
	welcome     func() net.Addr             // where the page for devices is served; nil for nowhere
	confinement func() *control.Confinement // what the process has taken from itself; nil for nothing

	passing sync.Mutex // one change of the passphrase at a time
}

// A task is what a command does at a desk.
type task func(k *desk, ctx context.Context, c control.Call) (control.Reply, error)

// A word is a command, and what it does.
type word struct {
	control.Command
	do task
}

// allWords are the commands, as help lists them.
func allWords() []word {
	return slices.Concat(statusWords(), contactWords(), smpWords(), heldWords(), keyWords(), loginWords(), serverWords(), []word{
		{control.Command{Name: "reload", Help: "re-reads the configuration file; on an error the old one stays in force"}, (*desk).reload},
		{control.Command{Name: "web", Help: "prints the address of the web page, which works once", Reads: true}, (*desk).link}})
}

// errNobody is what a command fails with that is run without a proxy.
var errNobody = errors.New("this command needs otrproxy to run")

// wordTable is the table without a proxy: names, usage and help.
func wordTable() control.Table {
	return tableOf(func(task) func(context.Context, control.Call) (control.Reply, error) {
		return func(context.Context, control.Call) (control.Reply, error) { return control.Reply{}, errNobody }
	})
}

// table is the table of commands that work on this desk.
func (k *desk) table() control.Table {
	return tableOf(func(do task) func(context.Context, control.Call) (control.Reply, error) {
		return func(ctx context.Context, c control.Call) (control.Reply, error) { return do(k, ctx, c) }
	})
}

// tableOf is the one table of commands, each of which runs as bind says.
func tableOf(bind func(task) func(context.Context, control.Call) (control.Reply, error)) control.Table {
	t := control.Table{{Name: "help", Help: "lists the commands, or explains one", Chat: true, Reads: true,
		Args: []control.Arg{{Name: "command", Kind: control.Rest, Optional: true, Label: "Which one"}}}}
	for _, w := range allWords() {
		w.Run = bind(w.do)
		t = append(t, w.Command)
	}
	t[0].Run = func(_ context.Context, c control.Call) (control.Reply, error) { return t.HelpFor(c) }
	return t
}

func (k *desk) reload(context.Context, control.Call) (control.Reply, error) {
	file := k.config().File
	if file == "" {
		return control.Reply{}, errors.New("this proxy runs without a configuration file")
	}
	cfg, err := config.Load(file)
	if err == nil {
		err = k.load(cfg)
	}
	if err != nil {
		return control.Reply{}, err
	}
	return control.Did("%s is in force", file)
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
type verb func(k *desk, a *otrlayer.Account, contact string, c control.Call) (control.Reply, error)

// with finds the account and reads the contact's address.
func with(f verb) task {
	return func(k *desk, _ context.Context, c control.Call) (control.Reply, error) {
		a, err := k.named(c)
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
		return f(k, a, contact, c)
	}
}

// named is the account that a call is about.
func (k *desk) named(c control.Call) (*otrlayer.Account, error) {
	jid, err := bareJID(c.Arg("account"))
	if err != nil {
		return nil, err
	}
	if c.Account == "" && !slices.Contains(k.accounts.known(), jid) {
		return nil, fmt.Errorf("there is no account %s here; it is made at its first login, or by: %s", jid, c.How("key generate"))
	}
	a, err := k.accounts.account(jid)
	if errors.Is(err, otrlayer.ErrLocked) {
		err = errLocked()
	}
	return a, err
}

// each opens the accounts that a call is about: one, or where none is named, all. What is
// wrong with one of all does not hide the others, and is said in trouble.
func (k *desk) each(c control.Call) (out []*otrlayer.Account, trouble string, err error) {
	if c.Arg("account") != "" {
		a, err := k.named(c)
		return []*otrlayer.Account{a}, "", err
	}
	for _, jid := range k.accounts.known() {
		a, err := k.accounts.account(jid)
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

// bareJID is an address as a person writes it, in the form in which it is known.
func bareJID(s string) (string, error) {
	j, err := jid.Parse(strings.TrimPrefix(s, "xmpp:"))
	if err != nil {
		return "", fmt.Errorf("%q is not an address, such as bob@example.org", s)
	}
	return j.Bare().String(), nil
}

// also tells the person in their client what was done elsewhere in their name.
func (k *desk) also(c control.Call, account, contact string, r control.Reply, err error) (control.Reply, error) {
	if err == nil && c.Place != control.InChat {
		for _, s := range k.relay.sessionsOf(account) {
			s.Notice(contact, r.Text)
		}
	}
	return r, err
}

// inConversation is the reply of a command whose effect is told in the conversation
// anyway.
func inConversation(c control.Call, format string, args ...any) (control.Reply, error) {
	r, _ := control.Did(format, args...)
	if c.Place == control.InChat {
		r.Text = ""
	}
	return r, nil
}

// connected fails where no client of the account is there to send anything through.
func (k *desk) connected(account string) (otrlayer.Outlet, error) {
	if o := k.relay.outlet(account); o != nil {
		return o, nil
	}
	return nil, fmt.Errorf("nobody is logged in as %s now, so nothing can be sent", account)
}
