package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"rsc.io/qr"

	"otrproxy/config"
	"otrproxy/proxy"
	"otrproxy/proxy/control"
	"otrproxy/proxy/control/commands"
)

// The words of the running proxy, made of its table of commands.

// terminal is where a word is used.
type terminal struct {
	in       io.Reader
	out, err io.Writer
}

// isTerminal reports whether a person sits at one end.
func isTerminal(x any) bool {
	f, ok := x.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// where says how the running proxy is found.
type where struct{ socket, file string }

func (w *where) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&w.socket, "socket", "", "the running proxy's control socket (also OTRPROXY_SOCKET)")
	cmd.Flags().StringVar(&w.file, "config", "", "configuration file that names the state directory")
}

// systemSocket is that of the service of the machine, for who may use it.
var systemSocket = filepath.Join("/var/lib/otrproxy", control.SocketName)

// path finds the running proxy: --socket, OTRPROXY_SOCKET, the state directory of
// --config, the default one, in that order.
func (w *where) path() (string, error) {
	if w.socket != "" {
		return w.socket, nil
	}
	if s := os.Getenv("OTRPROXY_SOCKET"); s != "" {
		return s, nil
	}
	cfg, err := load(w.file)
	if err != nil {
		return "", err
	}
	path := filepath.Join(cfg.State, control.SocketName)
	if _, err := os.Stat(path); err != nil && w.file == "" { // none of one's own: the service of the machine
		if _, err := os.Stat(systemSocket); err == nil {
			return systemSocket, nil
		}
	}
	return path, nil
}

var groupHelp = map[string]string{
	"contact": "how private, whose key, which rule",
	"smp":     "compares a secret with a contact",
	"held":    "messages that wait for a private conversation",
	"pin":     "the certificates and keys servers are held to",
	"login":   "how strong accounts' logins were, and enrolled accounts",
	"key":     "our own keys, and moving in from and out to other programs",
	"ca":      "the local CA that clients may trust",
}

// controlWords are the commands of the running proxy, as subcommands. Those of two words
// (pin list) hang below the first.
func controlWords(t terminal) (top []*cobra.Command) {
	groups := map[string]*cobra.Command{}
	table := commands.Words()
	for i := range table {
		w := &table[i]
		if w.Name == "help" { // cobra's own, from the same table
			continue
		}
		cmd := controlWord(t, w)
		first, _, two := strings.Cut(w.Name, " ")
		if !two {
			top = append(top, cmd)
			continue
		}
		g := groups[first]
		if g == nil {
			g = &cobra.Command{Use: first, Short: groupHelp[first], Args: func(*cobra.Command, []string) error {
				return wrongUsage{fmt.Errorf("otrproxy %s needs one of its commands; see otrproxy %s --help", first, first)}
			}, RunE: func(*cobra.Command, []string) error { return nil }}
			groups[first] = g
			top = append(top, g)
		}
		g.AddCommand(cmd)
	}
	return top
}

func controlWord(t terminal, w *control.Command) *cobra.Command {
	var at where
	var asJSON bool
	values := map[string]*string{}
	flags := map[string]*bool{}
	words := strings.Fields(w.Name)
	cmd := &cobra.Command{Short: w.Help}
	for _, x := range w.Args {
		switch x.Kind {
		case control.Flag:
			flags[x.Name] = cmd.Flags().Bool(x.Name, false, x.Label)
		case control.Option:
			values[x.Name] = cmd.Flags().String(x.Name, "", x.Label)
		}
	}
	cmd.Use = words[len(words)-1] + w.Positional()
	cmd.RunE = func(_ *cobra.Command, given []string) error {
		args, err := positional(w, given)
		if err != nil {
			return err
		}
		for name, v := range values {
			args[name] = *v
		}
		for name, v := range flags {
			if *v {
				args[name] = "yes"
			}
		}
		if err := askSecret(t, w, args); err != nil {
			return err
		}
		path, err := at.path()
		if err != nil {
			return err
		}
		reply, err := control.Ask(path, w.Name, args)
		if errors.Is(err, control.ErrNotRunning) && w.Name == "doctor" {
			var cfg *config.Config
			if cfg, err = load(at.file); err == nil {
				reply, err = proxy.Doctor(context.Background(), cfg, proxy.Options{Version: version}, args["name"])
			}
		}
		if err == nil && len(reply.Files) > 0 {
			err = commands.WriteFiles(args["directory"], reply.Files)
		}
		if err != nil {
			return err
		}
		return t.show(reply, asJSON)
	}
	at.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "answer as JSON")
	return cmd
}

// positional gives words of the command line to a command's arguments.
func positional(w *control.Command, given []string) (map[string]string, error) {
	args := map[string]string{}
	for _, x := range w.Args {
		switch x.Kind {
		case control.Flag, control.Option, control.Secret:
			continue
		case control.Rest:
			args[x.Name], given = strings.Join(given, " "), nil
			continue
		case control.Paths: // the files go over the socket: the proxy may not read them
			if len(given) == 0 {
				continue
			}
			files, err := commands.ReadProfiles(given)
			if err != nil {
				return nil, err
			}
			if args[x.Name], err = control.Pack(files); err != nil {
				return nil, err
			}
			given = nil
			continue
		}
		if len(given) == 0 {
			continue // the table says what is missing
		}
		args[x.Name], given = given[0], given[1:]
		if x.Kind == control.Path {
			abs, err := filepath.Abs(args[x.Name])
			if err != nil {
				return nil, err
			}
			args[x.Name] = abs
		}
	}
	if len(given) > 0 { // not said back: it may be a secret, which is never an argument
		return nil, wrongUsage{fmt.Errorf("there is more than the command takes; write otrproxy %s%s", w.Name, w.Positional())}
	}
	return args, nil
}

// askSecret asks for a command's secret, which is never part of the command line: others
// on the machine can see that.
func askSecret(t terminal, w *control.Command, args map[string]string) error {
	for _, x := range w.Args {
		if x.Kind != control.Secret || x.Optional && args["remove"] != "" {
			continue
		}
		fresh := w.Name == "key passphrase"
		secret, err := readSecret(t, x.Label, fresh)
		if err != nil {
			return err
		}
		args[x.Name] = secret
	}
	return nil
}

// readSecret reads a line: from the keyboard without showing it, twice where it is a
// new one, or from standard input.
func readSecret(t terminal, label string, fresh bool) (string, error) {
	if !isTerminal(t.in) {
		line, err := bufio.NewReader(t.in).ReadString('\n')
		if err != nil && (err != io.EOF || line == "") {
			return "", wrongUsage{errors.New("the secret is read from standard input, or asked for at a terminal; there was none")}
		}
		return strings.TrimRight(line, "\r\n"), nil
	}
	ask := func(prompt string) (string, error) {
		fd := int(t.in.(*os.File).Fd())
		old, err := term.MakeRaw(fd) // nothing is shown any more, and only then is it asked for
		if err != nil {
			return "", err
		}
		defer term.Restore(fd, old)
		line, err := term.NewTerminal(struct {
			io.Reader
			io.Writer
		}{t.in, t.err}, "").ReadPassword(prompt + ": ")
		if err == io.EOF {
			err = errors.New("nothing was entered, and nothing done")
		}
		return line, err
	}
	secret, err := ask(label)
	if err != nil || !fresh {
		return secret, err
	}
	again, err := ask("Once more")
	if err == nil && again != secret {
		err = errors.New("the two are not the same; nothing was changed")
	}
	return secret, err
}

// show prints a reply for people or programs.
func (t terminal) show(r control.Reply, asJSON bool) error {
	if asJSON {
		if r.Data == nil {
			r.Data = []control.Done{{Text: r.Text}}
		}
		e := json.NewEncoder(t.out)
		e.SetIndent("", "  ")
		if err := e.Encode(r.Data); err != nil {
			return err
		}
	} else {
		if _, err := fmt.Fprintln(t.out, printable(r.Text)); err != nil {
			return err
		}
		if r.QR != "" && isTerminal(t.out) {
			code, err := drawQR(r.QR)
			if err == nil {
				fmt.Fprint(t.out, code)
			}
		}
	}
	if checks, ok := r.Data.([]any); ok && slices.ContainsFunc(checks, failed) {
		return errors.New("not everything is as it should be; what to do stands behind the arrows")
	}
	if checks, ok := r.Data.([]control.Check); ok && slices.ContainsFunc(checks, func(c control.Check) bool { return c.Result == "fail" }) {
		return errors.New("not everything is as it should be; what to do stands behind the arrows")
	}
	return nil
}

// printable is a text without what would move a terminal's cursor: parts of it may be
// others'.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
}

// failed reports whether a line of doctor's, as it came over the socket, failed.
func failed(x any) bool {
	m, ok := x.(map[string]any)
	return ok && m["step"] != nil && m["result"] == "fail"
}

// drawQR draws a QR code with half blocks, two rows in a line, light on dark terminals
// as well: dark modules are left empty and the quiet zone is drawn.
func drawQR(text string) (string, error) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return "", err
	}
	const quiet = 2
	var b strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		for x := -quiet; x < code.Size+quiet; x++ {
			upper, lower := code.Black(x, y), code.Black(x, y+1) || y+1 >= code.Size+quiet
			b.WriteString(map[[2]bool]string{{false, false}: "\u2588", {false, true}: "\u2580", {true, false}: "\u2584", {true, true}: " "}[[2]bool{upper, lower}])
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}
