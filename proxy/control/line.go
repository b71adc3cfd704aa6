package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
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
	if rest, err = cmd.options(rest, args); err != nil {
		return Reply{}, err
	}
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
		case Flag, Option: // taken already
		default:
			args[x.Name], rest = cutWord(rest)
		}
	}
	if strings.TrimSpace(rest) != "" { // not said back: it may be a secret in the wrong place
		return Reply{}, fmt.Errorf("%w: there is more than the command takes; write %s", ErrUsage, t.How(a, cmd.Name, nil))
	}
	return t.Run(ctx, a, cmd.Name, args)
}

// options takes the flags and options out of a line, where they may stand anywhere. A
// command whose line ends in somebody's own words has none.
func (c *Command) options(line string, args map[string]string) (rest string, err error) {
	if !slices.ContainsFunc(c.Args, func(x Arg) bool { return x.Kind == Flag || x.Kind == Option }) ||
		slices.ContainsFunc(c.Args, func(x Arg) bool { return x.Kind == Rest || x.Kind == Secret || x.Kind == Paths }) {
		return line, nil
	}
	var others []string
	for word := ""; strings.TrimSpace(line) != ""; {
		word, line = cutWord(line)
		name, ok := strings.CutPrefix(word, "--")
		i := slices.IndexFunc(c.Args, func(x Arg) bool { return ok && x.Name == name && (x.Kind == Flag || x.Kind == Option) })
		switch {
		case !ok:
			others = append(others, word)
		case i < 0:
			return "", fmt.Errorf("%w: there is no option %q here", ErrUsage, word)
		case c.Args[i].Kind == Flag:
			args[name] = "yes"
		default:
			if args[name], line = cutWord(line); args[name] == "" {
				return "", fmt.Errorf("%w: %s needs a value", ErrUsage, word)
			}
		}
	}
	return strings.Join(others, " "), nil
}

// cutWord cuts off the first word, and one blank of any kind behind it.
func cutWord(s string) (word, rest string) {
	s = strings.TrimLeftFunc(s, unicode.IsSpace)
	i := strings.IndexFunc(s, unicode.IsSpace)
	if i < 0 {
		return s, ""
	}
	_, n := utf8.DecodeRuneInString(s[i:])
	return s[:i], s[i+n:]
}

// find splits a line into the command it begins with and the rest, without the blank
// between them. The command of the most words wins.
func (t Table) find(a Actor, line string) (best *Command, args string, err error) {
	most := 0
	for i := range t {
		for _, name := range []string{t[i].Name, t[i].Short} {
			words := strings.Fields(name)
			rest, fits := line, len(words) > most
			for _, want := range words {
				var word string
				word, rest = cutWord(rest)
				fits = fits && word == want
			}
			if fits {
				best, most, args = &t[i], len(words), rest
			}
		}
	}
	if best == nil {
		word, _ := cutWord(line)
		return nil, "", unknown(a, word)
	}
	return best, args, nil
}
