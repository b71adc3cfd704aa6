// Package control is the proxy's one table of commands and the ways to reach it:
// a line in a chat, and the control socket for the command line. Each way only
// renders what the table says.
//
// The package knows nothing of XML streams or of the OTR engine.
package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// A Call is one use of a command.
type Call struct {
	Account string // bare JID of the person in whose chat it was written; "" for the administrator
	Contact string // bare JID of the conversation it was written in
	Args    string // everything behind the command's words, spaces and all
}

// A Reply is what a command answers: text for people, data for programs.
type Reply struct {
	Text string `json:"text"`
	Data any    `json:"data,omitempty"`
}

// A Command is one line of the table.
type Command struct {
	Name  string // words, such as "pin add"
	Args  string // as usage shows them
	Help  string
	Chat  bool // may be used in a chat, for the own account
	Admin bool // may be used over the control socket
	Run   func(context.Context, Call) (Reply, error)
}

// A Table is all commands.
type Table []Command

// ErrUsage is a call that is no command.
var ErrUsage = errors.New("unknown command")

// Find splits a line into the command it begins with and the arguments. The
// command of the most words wins.
func (t Table) Find(line string, chat bool) (*Command, string, error) {
	line = strings.TrimLeft(line, " ")
	var best *Command
	for i := range t {
		c := &t[i]
		if chat && !c.Chat || !chat && !c.Admin {
			continue
		}
		if rest, ok := strings.CutPrefix(line, c.Name); ok && (rest == "" || rest[0] == ' ') && (best == nil || len(c.Name) > len(best.Name)) {
			best = c
		}
	}
	if best == nil {
		word, _, _ := strings.Cut(line, " ")
		return nil, "", fmt.Errorf("%w %q; help lists them", ErrUsage, word)
	}
	return best, strings.TrimPrefix(line[len(best.Name):], " "), nil
}

// Help lists the commands of one way.
func (t Table) Help(chat bool, prefix string) string {
	var b strings.Builder
	for _, c := range t {
		if chat && c.Chat || !chat && c.Admin {
			fmt.Fprintf(&b, "%s - %s\n", strings.TrimRight(prefix+c.Name+" "+c.Args, " "), c.Help)
		}
	}
	return strings.TrimRight(b.String(), "\n")
}
