// Command otrproxy is a local XMPP proxy that gives any chat client end-to-end
// encryption (OTR) and a pinned connection to its server.
//
// How the program speaks: what was asked for goes to standard output, everything
// else to standard error, as one sentence that says what to do next. It exits
// with 0 when done, 1 when it could not, 2 for wrong usage or configuration.
// This package is the only place that ends the process.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"otrproxy/config"
	"otrproxy/proxy/control"
)

// version is set by the build: -ldflags "-X main.version=1.2.3".
var version = "0.1.0-dev"

// wrongUsage is an error that ends with exit code 2.
type wrongUsage struct{ error }

func main() {
	root := commands(os.Stdout)
	root.SetArgs(os.Args[1:])
	err := root.Execute()
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "otrproxy:", err)
	var wu wrongUsage
	if errors.As(err, &wu) || errors.Is(err, control.ErrUsage) {
		os.Exit(2)
	}
	os.Exit(1)
}

func commands(stdout io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:           "otrproxy",
		Short:         "A local XMPP proxy that adds OTR encryption and a pinned server connection to any chat client",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			return wrongUsage{fmt.Errorf("%q is no command; see otrproxy --help", strings.Join(args, " "))}
		},
		Run: func(cmd *cobra.Command, _ []string) { cmd.Help() },
	}
	root.SetOut(stdout)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return wrongUsage{err} })
	none := func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return wrongUsage{fmt.Errorf("unexpected %q", strings.Join(args, " "))}
		}
		return nil
	}
	var file string

	runCmd := &cobra.Command{Use: "run", Short: "runs the proxy in the foreground; logs go to standard error", Args: none,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := load(file)
			if err != nil {
				return err
			}
			return run(cfg, os.Stderr)
		}}
	runCmd.Flags().StringVar(&file, "config", "", "configuration file (default: none, with sane defaults)")

	var serve bool
	demoCmd := &cobra.Command{Use: "demo", Short: "shows everything on this machine alone: a server, two people, two proxies", Args: none,
		RunE: func(*cobra.Command, []string) error { return demo(stdout, serve) }}
	demoCmd.Flags().BoolVar(&serve, "serve", false, "stay up and print accounts and ports for a client of your own")

	checkCmd := &cobra.Command{Use: "check", Short: "reads the configuration and says what is in force", Args: none,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := load(file)
			if err != nil {
				return err
			}
			return check(stdout, cfg)
		}}
	checkCmd.Flags().StringVar(&file, "config", "", "configuration file (default: none, with sane defaults)")

	versionCmd := &cobra.Command{Use: "version", Short: "prints the version", Args: none,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(stdout, "otrproxy", version)
			return err
		}}

	root.AddCommand(runCmd, demoCmd, checkCmd, versionCmd)
	root.AddCommand(controlWords(stdout)...)
	return root
}

// load reads the configuration; without a file it is the default one.
func load(file string) (*config.Config, error) {
	if file == "" {
		return config.Default(), nil
	}
	cfg, err := config.Load(file)
	if err != nil {
		return nil, wrongUsage{err}
	}
	return cfg, nil
}

// controlWords are the commands of the running proxy, as subcommands. Those of
// two words (pin list) hang below the first.
func controlWords(stdout io.Writer) []*cobra.Command {
	var socket, file string
	var asJSON bool
	groups := map[string]*cobra.Command{}
	var top []*cobra.Command
	for _, w := range adminWords {
		first, second, two := strings.Cut(w.Name, " ")
		cmd := &cobra.Command{Use: strings.TrimSpace(first + " " + w.Args), Short: w.Help,
			RunE: func(_ *cobra.Command, args []string) error {
				path, err := socketPath(socket, file)
				if err != nil {
					return err
				}
				reply, err := control.Ask(path, strings.Join(append([]string{w.Name}, args...), " "))
				if err != nil {
					return err
				}
				if asJSON {
					e := json.NewEncoder(stdout)
					e.SetIndent("", "  ")
					return e.Encode(reply.Data)
				}
				_, err = fmt.Fprintln(stdout, reply.Text)
				return err
			}}
		cmd.Flags().StringVar(&socket, "socket", "", "the running proxy's control socket (also OTRPROXY_SOCKET)")
		cmd.Flags().StringVar(&file, "config", "", "configuration file that names the state directory")
		cmd.Flags().BoolVar(&asJSON, "json", false, "answer as JSON")
		if !two {
			top = append(top, cmd)
			continue
		}
		cmd.Use = strings.TrimSpace(second + " " + w.Args)
		g := groups[first]
		if g == nil {
			g = &cobra.Command{Use: first, Short: groupHelp[first], Args: func(_ *cobra.Command, args []string) error {
				return wrongUsage{fmt.Errorf("otrproxy %s needs one of its commands; see otrproxy %s --help", first, first)}
			}, RunE: func(*cobra.Command, []string) error { return nil }}
			groups[first] = g
			top = append(top, g)
		}
		g.AddCommand(cmd)
	}
	return top
}

var groupHelp = map[string]string{"pin": "the certificates and keys servers are held to"}

// socketPath finds the running proxy: --socket, OTRPROXY_SOCKET, the state
// directory of --config, the default one, in that order.
func socketPath(socket, file string) (string, error) {
	if socket != "" {
		return socket, nil
	}
	if s := os.Getenv("OTRPROXY_SOCKET"); s != "" {
		return s, nil
	}
	cfg, err := load(file)
	if err != nil {
		return "", err
	}
	return filepath.Join(cfg.State, control.SocketName), nil
}
