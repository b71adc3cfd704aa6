package control

import (
	"fmt"
	"strings"
	"time"
)

// CommandWord begins a command in a chat. Such a body never leaves the machine.
const CommandWord = "!otr"

// CommandLimit is how long a command may take that a client waits for.
const CommandLimit = 20 * time.Second

// Did is the reply of a command that has nothing more to say.
func Did(format string, args ...any) (Reply, error) {
	text := fmt.Sprintf(format, args...)
	return Reply{Text: text, Data: []Done{{Text: text}}}, nil
}

// Sentence is an error as a person reads it.
func Sentence(err error) string {
	t := strings.TrimPrefix(err.Error(), ErrUsage.Error()+": ")
	if t == "" {
		return t
	}
	t = strings.ToUpper(t[:1]) + t[1:]
	if strings.HasSuffix(t, ".") {
		return t
	}
	return t + "."
}

// Plural is a number of things.
func Plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Clip is the beginning of a name somebody else has chosen.
func Clip(s string) string { return s[:min(len(s), 40)] }

// HelpFor answers the command "help": it lists the commands, or explains the one that is named.
func (t Table) HelpFor(c Call) (Reply, error) {
	if name := strings.TrimSpace(strings.TrimPrefix(c.Arg("command"), CommandWord)); name != "" {
		for i := range t {
			if x := &t[i]; (x.Name == name || x.Short == name) && x.May(c.Actor) {
				return Reply{Text: t.How(c.Actor, x.Name, nil) + " - " + x.Help, Data: []Done{{Text: x.Help}}}, nil
			}
		}
		return Reply{}, fmt.Errorf("%w: there is no command %q; %s lists them", ErrUsage, name, t.How(c.Actor, "help", nil))
	}
	text := t.Help(c.Actor)
	if c.Place == InChat || c.Place == InService {
		text = "Commands, none of which leaves this machine:\n" + text
	}
	var list []Done
	for i := range t {
		if t[i].May(c.Actor) {
			list = append(list, Done{Text: t[i].Name + " - " + t[i].Help})
		}
	}
	return Reply{Text: text, Data: list}, nil
}
