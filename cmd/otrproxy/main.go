// Command otrproxy is a local XMPP proxy that gives any chat client end-to-end
// encryption (OTR) and a pinned connection to its server.
//
// How the program speaks: what was asked for goes to standard output, everything
// else to standard error, as one sentence that says what to do next. It exits
// with 0 when done, 1 when it could not, 2 for wrong usage or configuration.
// This package is the only place that ends the process.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"otrproxy/config"
	"otrproxy/proxy/control"
	"otrproxy/proxy/control/commands"
)

// version is set by the build: -ldflags "-X main.version=1.2.3".
var version = "0.1.0-dev"

// wrongUsage is an error that ends with exit code 2.
type wrongUsage struct{ error }

func main() {
	root := rootCommand(terminal{os.Stdin, os.Stdout, os.Stderr})
	root.SetArgs(os.Args[1:])
	err := asService(root.Execute)
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

func rootCommand(t terminal) *cobra.Command {
	stdout := t.out
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

	checkCmd := &cobra.Command{Use: "check [ACCOUNT CONTACT]", Short: "reads the configuration and says what is in force, or which rule is between two addresses",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 0 && len(args) != 2 {
				return wrongUsage{errors.New("check takes no address, or an account and a contact: otrproxy check alice@example.org bob@example.org")}
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, err := load(file)
			switch {
			case err != nil:
				return err
			case len(args) == 2:
				text, err := commands.ExplainRule(cfg, args[0], args[1])
				if err != nil {
					return wrongUsage{err}
				}
				_, err = fmt.Fprintln(stdout, text)
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

	manCmd := &cobra.Command{Use: "man DIRECTORY", Short: "writes the manual pages into a directory", Args: one("directory for the manual pages"), RunE: func(_ *cobra.Command, args []string) error {
		if err := os.MkdirAll(args[0], 0o755); err != nil {
			return err
		}
		return doc.GenManTree(root, &doc.GenManHeader{Title: "OTRPROXY", Section: "1", Source: "otrproxy " + version, Manual: "otrproxy"}, args[0])
	}}

	root.AddCommand(runCmd, demoCmd, checkCmd, versionCmd, backupCommand(t), restoreCommand(t), manCmd, tellCommand())
	root.AddCommand(controlWords(t)...)
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
