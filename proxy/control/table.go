// Package control is the proxy's one table of commands, and the four places they are
// used from: a line in a chat, the forms of a client's own menus (XEP-0050), the
// command line over the control socket, and the page (package page below this one).
// Each place only renders what the table says; none has a command of its own.
//
//	table.go   the table: names, arguments, who may, help
//	line.go    a line in a chat
//	form.go    a form with fields, for ad-hoc commands and the page
//	socket.go  the control socket, and what asks over it
//	data.go    the shapes of what commands answer programs
//
// The package knows nothing of XML streams or of the OTR engine.
package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Place is where a command is used from.
type Place uint8

// The places.
const (
	InChat    Place = iota // in a conversation, behind the word !otr
	InService              // in the conversation with the proxy itself, without it
	InMenu                 // a client's menu, as an ad-hoc command (XEP-0050)
	InShell                // the command line
	OnPage                 // the web page
)

// An Actor is whoever uses a command.
type Actor struct {
	Place   Place
	Account string // bare JID of the person, who reaches nothing of others; "" for the administrator
	Contact string // bare JID of the conversation it is written in, "" for none
	Admin   bool   // the person is also an administrator
}

// A Kind says what an argument is.
type Kind uint8

// The kinds.
const (
	Word    Kind = iota // one word
	Account             // a bare JID of ours; in a chat it is the person's own
	Contact             // a bare JID; in a conversation it is the other side
	Rest                // the rest of the line, spaces and all
	Secret              // the same; never shown, nor part of a command line
	Path                // of a directory that the command line writes Reply.Files into
	Paths               // of files that the command line reads: what is handed over are the files, packed
	Flag                // is there or not: --replace
	Option              // a value with a name: --from NAME
)

// An Arg is one argument of a command.
type Arg struct {
	Name     string // as programs write it; people see it in capitals
	Kind     Kind
	Label    string // what stands beside it in a form
	Optional bool
}

// A Call is one use of a command. What is required is there.
type Call struct {
	Actor
	Command string // its name
	Args    map[string]string
	table   Table
}

// Arg is the value of an argument, "" where it was not given.
func (c Call) Arg(name string) string { return c.Args[name] }

// Has reports whether a flag was given.
func (c Call) Has(name string) bool { return c.Args[name] != "" }

// How is a command as it is written where the call came from, for a sentence that says
// what to do next: about the same account and contact, with what else is known of its
// arguments, as names and values by turns.
func (c Call) How(name string, known ...string) string {
	args := map[string]string{"account": c.Arg("account"), "contact": c.Arg("contact")}
	if name == c.Command { // what was given for it was wrong
		args = map[string]string{}
	}
	for i := 0; i+1 < len(known); i += 2 {
		args[known[i]] = known[i+1]
	}
	return c.table.How(c.Actor, name, args)
}

// A Reply is what a command answers.
type Reply struct {
	Text string `json:"text"`           // for people
	Data any    `json:"data,omitempty"` // for programs: a slice or an object of this package
	QR   string `json:"qr,omitempty"`   // a text that is worth showing as a QR code too

	Files []File `json:"files,omitempty"` // to be written into the directory that was named
}

// A Command is one line of the table.
type Command struct {
	Name  string // words, such as "pin add"
	Short string // what a chat calls it, where that is shorter
	Help  string // what it does, as the rest of "this command ..."
	Args  []Arg
	Chat  bool // a person may use it for their own account; else the administrator's alone
	Admin bool // an administrator may use it from a chat too
	Reads bool // it changes nothing
	Files bool // it is about files, so it is for the command line alone: the proxy reaches none but its own
	Run   func(context.Context, Call) (Reply, error)
}

// A Table is all commands.
type Table []Command

var (
	// ErrUsage is a call that is no command, or lacks what it needs.
	ErrUsage = errors.New("wrong usage")
	// ErrForbidden is a call of somebody who may not.
	ErrForbidden = errors.New("this is for the administrator of this proxy")
)

// Get finds a command by its name; nil for none.
func (t Table) Get(name string) *Command {
	i := slices.IndexFunc(t, func(c Command) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return &t[i]
}

// May reports whether somebody may use a command.
func (c *Command) May(a Actor) bool {
	if c.Files {
		return a.Place == InShell
	}
	return c.Chat || a.Account == "" || c.Admin && a.Admin
}

// Run runs a command for somebody. This is the only place that decides who may, and
// whose account a person reaches: their own.
func (t Table) Run(ctx context.Context, a Actor, name string, args map[string]string) (Reply, error) {
	cmd := t.Get(name)
	if cmd == nil {
		return Reply{}, unknown(a, name)
	}
	if cmd.Files && a.Account == "" && !cmd.May(a) {
		return Reply{}, fmt.Errorf("%w: files are read and written by the command line only: %s", ErrForbidden, t.How(Actor{Place: InShell}, name, nil))
	}
	if !cmd.May(a) {
		return Reply{}, fmt.Errorf("%w, on the machine it runs on: %s", ErrForbidden, t.How(Actor{Place: InShell}, name, nil))
	}
	call := Call{Actor: a, Command: cmd.Name, Args: map[string]string{}, table: t}
	for name := range args {
		if !slices.ContainsFunc(cmd.Args, func(x Arg) bool { return x.Name == name }) {
			return Reply{}, fmt.Errorf("%w: %s takes no %q", ErrUsage, cmd.Name, name)
		}
	}
	for _, x := range cmd.Args {
		v := args[x.Name]
		switch {
		case x.Kind == Account && a.Account != "":
			if v != "" && !strings.EqualFold(v, a.Account) {
				return Reply{}, fmt.Errorf("%w: a person reaches their own account only", ErrForbidden)
			}
			v = a.Account
		case x.Kind == Contact && v == "":
			v = a.Contact
		}
		if x.Kind != Secret && x.Kind != Rest && x.Kind != Paths {
			v = strings.TrimSpace(v)
		}
		if v == "" && !x.Optional && x.Kind != Flag && x.Kind != Option {
			if a.Place == InMenu || a.Place == OnPage {
				return Reply{}, fmt.Errorf("%w: \"%s\" is missing", ErrUsage, Field{Arg: x}.Label())
			}
			return Reply{}, fmt.Errorf("%w: %s is missing; write %s", ErrUsage, display(x), t.How(a, cmd.Name, nil)) // what was given may be a secret in the wrong place
		}
		if strings.ContainsRune(v, 0) {
			return Reply{}, fmt.Errorf("%w: %s has a character in it that no text has", ErrUsage, display(x))
		}
		if v != "" {
			call.Args[x.Name] = v
		}
	}
	return cmd.Run(ctx, call)
}

func unknown(a Actor, word string) error {
	help := map[Place]string{InChat: "!otr help", InShell: "otrproxy help"}[a.Place]
	if help == "" {
		help = "help"
	}
	if word == "" {
		return fmt.Errorf("%w: no command; %s lists them", ErrUsage, help)
	}
	return fmt.Errorf("%w: there is no command %q; %s lists them", ErrUsage, word, help)
}

func display(x Arg) string { return strings.ToUpper(x.Name) }

// Usage is how a command's arguments are written in a place; where some are known, with
// those and what else is needed.
func (c *Command) Usage(a Actor, known map[string]string) string {
	var b strings.Builder
	for i, x := range c.Args {
		word := display(x)
		switch x.Kind {
		case Account:
			if a.Account != "" || a.Place == InChat || a.Place == InService {
				continue
			}
		case Contact:
			if a.Contact != "" || a.Place == InChat {
				continue
			}
		case Secret:
			if a.Place == InShell {
				continue // it is asked for
			}
			if i > 0 && c.Args[i-1].Kind == Rest {
				word = "| " + word
			}
		case Paths:
			word += "..."
		case Flag:
			word = "--" + x.Name
		case Option:
			word = "--" + x.Name + " " + display(x)
		}
		if x.Optional || x.Kind == Flag || x.Kind == Option {
			if len(known) > 0 && known[x.Name] == "" && x.Kind != Rest {
				continue
			}
			word = "[" + word + "]"
		}
		if v := known[x.Name]; v != "" && x.Kind != Secret && x.Kind != Flag && x.Kind != Option {
			word = v
		}
		b.WriteByte(' ')
		b.WriteString(word)
	}
	return b.String()
}

// Positional is how the arguments are written that have a place on a command line, but
// no name.
func (c *Command) Positional() string {
	without := *c
	without.Args = slices.DeleteFunc(slices.Clone(c.Args), func(x Arg) bool { return x.Kind == Flag || x.Kind == Option })
	return without.Usage(Actor{Place: InShell}, nil)
}

// words is what a command is called in a place, without its arguments.
func (c *Command) words(a Actor) string {
	name := c.Name
	if c.Short != "" && (a.Place == InChat || a.Place == InService) {
		name = c.Short
	}
	switch a.Place {
	case InChat:
		return "!otr " + name
	case InShell:
		return "otrproxy " + name
	}
	return name
}

// How is a command as somebody writes it, with the arguments that are known.
func (t Table) How(a Actor, name string, known map[string]string) string {
	c := t.Get(name)
	if c == nil {
		return name
	}
	if a.Place == InMenu || a.Place == OnPage { // where nothing is written but into forms
		return "\"" + c.Name + "\""
	}
	return c.words(a) + c.Usage(a, known)
}

// Help lists the commands somebody may use, and how they are written there.
func (t Table) Help(a Actor) string {
	var b strings.Builder
	for i := range t {
		if c := &t[i]; c.May(a) {
			fmt.Fprintf(&b, "%s%s - %s\n", c.words(a), c.Usage(a, nil), c.Help)
		}
	}
	return strings.TrimRight(b.String(), "\n")
}
