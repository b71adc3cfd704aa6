package control

import (
	"context"
	"fmt"
	"strings"
)

// Line runs a line written in a chat, without the word that begins it. An empty one
// asks for help.
func (t Table) Line(ctx context.Context, a Actor, line string) (Reply, error) {
	if strings.TrimSpace(line) == "" {
		line = "help"
	}
	cmd, rest, err := t.find(a, line)
	if err != nil {
		return Reply{}, err
	}
	if !cmd.May(a) {
		return t.Run(ctx, a, cmd.Name, nil) // says so, whatever is wrong with the rest
	}
	args := map[string]string{}
	for i, x := range cmd.Args {
		switch x.Kind {
		case Account: // the person's own
		case Contact:
			if a.Contact == "" {
				args[x.Name], rest = cutWord(rest)
			}
		case Rest:
			if i+1 < len(cmd.Args) && cmd.Args[i+1].Kind == Secret { // the last bar stands between them
				at := strings.LastIndex(rest, " | ")
				if at < 0 {
					return Reply{}, fmt.Errorf("%w: write %s, then \" | \", then %s: %s", ErrUsage, display(x), display(cmd.Args[i+1]), t.How(a, cmd.Name, nil))
				}
				args[x.Name], rest = strings.TrimSpace(rest[:at]), rest[at+3:]
				continue
			}
			args[x.Name], rest = strings.TrimSpace(rest), ""
		case Secret:
			args[x.Name], rest = rest, ""
		case Flag, Option: // not in a chat
		default:
			args[x.Name], rest = cutWord(rest)
		}
	}
	if rest = strings.TrimSpace(rest); rest != "" {
		return Reply{}, fmt.Errorf("%w: %q is too much; write %s", ErrUsage, rest, t.How(a, cmd.Name, nil))
	}
	return t.Run(ctx, a, cmd.Name, args)
}

func cutWord(s string) (word, rest string) {
	word, rest, _ = strings.Cut(strings.TrimLeft(s, " \t"), " ")
	return word, rest
}

// find splits a line into the command it begins with and the rest, without the blank
// between them. The command of the most words wins.
func (t Table) find(a Actor, line string) (*Command, string, error) {
	line = strings.TrimLeft(line, " \t\r\n")
	var best *Command
	most, args := 0, ""
	for i := range t {
		for _, name := range []string{t[i].Name, t[i].Short} {
			rest, ok := strings.CutPrefix(line, name)
			if name == "" || !ok || rest != "" && rest[0] != ' ' && rest[0] != '\n' || len(name) <= most {
				continue
			}
			best, most, args = &t[i], len(name), rest
		}
	}
	if best == nil {
		word, _, _ := strings.Cut(line, " ")
		return nil, "", unknown(a, word)
	}
	if args != "" {
		args = args[1:]
	}
	return best, args, nil
}
