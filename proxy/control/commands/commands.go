package commands

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"otrproxy/config"
	"otrproxy/otrlayer"
	"otrproxy/otrlayer/keyring"
	"otrproxy/proxy/accounts"
	"otrproxy/proxy/address"
	"otrproxy/proxy/control"
	"otrproxy/proxy/journal"
	"otrproxy/proxy/localca"
	"otrproxy/proxy/notify"
	"otrproxy/proxy/relay"
	"otrproxy/proxy/sasl"
	"otrproxy/proxy/state"
	"otrproxy/proxy/upstream"
)

// A Desk is what the commands work on: it knows all owners, and owns nothing itself but the time.
type Desk struct {
	Config      func() *config.Config
	Log         *journal.Journal
	Version     string
	Started     time.Time
	Accounts    *accounts.Set
	Servers     *upstream.Servers
	Logins      *sasl.Logins
	Machine     *localca.Machine
	Relay       *relay.Relay
	Bell        *notify.Bell
	Vault       *state.Vault
	Addrs       func() []net.Addr           // listened on
	Load        func(*config.Config) error  // puts a configuration in force
	WebLink     func() string               // mints the address of the web page; nil for none
	Welcome     func() net.Addr             // where the page for devices is served; nil for nowhere
	Confinement func() *control.Confinement // what the process has taken from itself; nil for nothing

	passing sync.Mutex // one change of the passphrase at a time
}

// A task is what a command does at a desk.
type task func(k *Desk, ctx context.Context, c control.Call) (control.Reply, error)

// A word is a command, and what it does.
type word struct {
	control.Command
	do task
}

// allWords are the commands, as help lists them.
func allWords() []word {
	return slices.Concat(statusWords(), contactWords(), smpWords(), heldWords(), keyWords(), loginWords(), serverWords(), []word{
		{control.Command{Name: "reload", Help: "re-reads the configuration file; on an error the old one stays in force"}, (*Desk).reload},
		{control.Command{Name: "web", Help: "prints the address of the web page, which works once", Reads: true}, (*Desk).link}})
}

// errNobody is what a command fails with that is run without a proxy.
var errNobody = errors.New("this command needs otrproxy to run")

// Words is the table without a proxy: names, usage and help.
func Words() control.Table {
	return tableOf(func(task) func(context.Context, control.Call) (control.Reply, error) {
		return func(context.Context, control.Call) (control.Reply, error) { return control.Reply{}, errNobody }
	})
}

// Table is the table of commands that work on this desk.
func (k *Desk) Table() control.Table {
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

func (k *Desk) reload(context.Context, control.Call) (control.Reply, error) {
	file := k.Config().File
	if file == "" {
		return control.Reply{}, errors.New("this proxy runs without a configuration file")
	}
	cfg, err := config.Load(file)
	if err == nil {
		err = k.Load(cfg)
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
type verb func(k *Desk, a *otrlayer.Account, contact string, c control.Call) (control.Reply, error)

// with finds the account and reads the contact's address.
func with(f verb) task {
	return func(k *Desk, _ context.Context, c control.Call) (control.Reply, error) {
		a, err := k.named(c)
		if err != nil {
			return control.Reply{}, err
		}
		contact := ""
		if c.Arg("contact") != "" {
			contact, err = address.Bare(c.Arg("contact"))
			if err != nil || address.Ours(address.JID{Bare: contact}) || !strings.Contains(contact, "@") && contact != c.Actor.Contact && !a.Knows(contact) { // not said back: it may be a secret in the wrong place
				return control.Reply{}, fmt.Errorf("%w: name the contact by their address, such as bob@example.org: %s", control.ErrUsage, c.How(c.Command))
			}
			c.Args["contact"] = contact
		}
		return f(k, a, contact, c)
	}
}

// named is the account that a call is about.
func (k *Desk) named(c control.Call) (*otrlayer.Account, error) {
	jid, err := address.Bare(c.Arg("account"))
	if err != nil {
		return nil, err
	}
	if c.Account == "" && !slices.Contains(k.Accounts.Known(), jid) {
		return nil, fmt.Errorf("there is no account %s here; it is made at its first login, or by: %s", jid, c.How("key generate"))
	}
	a, err := k.Accounts.Open(jid)
	if errors.Is(err, keyring.ErrLocked) {
		err = state.LockedError()
	}
	return a, err
}

// each opens the accounts that a call is about: one, or where none is named, all. What is
// wrong with one of all does not hide the others, and is said in trouble.
func (k *Desk) each(c control.Call) (out []*otrlayer.Account, trouble string, err error) {
	if c.Arg("account") != "" {
		a, err := k.named(c)
		return []*otrlayer.Account{a}, "", err
	}
	for _, jid := range k.Accounts.Known() {
		a, err := k.Accounts.Open(jid)
		switch {
		case errors.Is(err, keyring.ErrLocked):
			continue
		case err != nil:
			trouble += "\n" + jid + " cannot be used: " + err.Error()
			continue
		}
		out = append(out, a)
	}
	return out, trouble, nil
}

// also tells the person in their client what was done elsewhere in their name.
func (k *Desk) also(c control.Call, account, contact string, r control.Reply, err error) (control.Reply, error) {
	if err == nil && c.Place != control.InChat {
		for _, s := range k.Relay.SessionsOf(account) {
			s.Say(contact, r.Text)
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
func (k *Desk) connected(account string) (otrlayer.Outlet, error) {
	if o := k.Relay.Outlet(account); o != nil {
		return o, nil
	}
	return nil, fmt.Errorf("nobody is logged in as %s now, so nothing can be sent", account)
}
