package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/moby/sys/atomicwriter"
	"github.com/spf13/cobra"

	"otrproxy/proxy/state"
)

// Backup and restore need no running proxy; restore wants none.

func one(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return wrongUsage{errors.New("name the " + what)}
		}
		return nil
	}
}

func backupCommand(t terminal) *cobra.Command {
	var file string
	cmd := &cobra.Command{Use: "backup FILE", Short: "writes keys, fingerprints, pins and the local CA into one file, encrypted with a passphrase (format of age)", Args: one("file to write the backup to"),
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, err := load(file)
			if err != nil {
				return err
			}
			if _, err := os.Lstat(args[0]); err == nil {
				return fmt.Errorf("%s is there already; name a new file", args[0])
			}
			if _, err := os.Stat(cfg.State); err != nil {
				return fmt.Errorf("there is no state directory to back up: %w", err)
			}
			passphrase, err := readSecret(t, "Passphrase for the backup", true)
			if err != nil {
				return err
			}
			var whole bytes.Buffer // a file appears once nothing can fail any more
			n, err := state.Backup(cfg.State, &whole, passphrase)
			if err != nil {
				return err
			}
			if err := atomicwriter.WriteFile(args[0], whole.Bytes(), 0o600); err != nil {
				return fmt.Errorf("the backup cannot be written: %w", err)
			}
			_, err = fmt.Fprintf(t.out, "%s has %d files of %s. Without the passphrase it is worth nothing; with it, whoever has it can pretend to be you.\n", args[0], n, cfg.State)
			return err
		}}
	cmd.Flags().StringVar(&file, "config", "", "configuration file that names the state directory")
	return cmd
}

func restoreCommand(t terminal) *cobra.Command {
	var file string
	var replace bool
	cmd := &cobra.Command{Use: "restore FILE", Short: "puts a backup into the state directory; otrproxy must not run", Args: one("backup to restore"),
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, err := load(file)
			if err != nil {
				return err
			}
			in, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("the backup cannot be read: %w", err)
			}
			defer in.Close()
			passphrase, err := readSecret(t, "Passphrase of the backup", false)
			if err != nil {
				return err
			}
			n, aside, err := state.Restore(cfg.State, in, passphrase, replace)
			if err != nil {
				return err
			}
			text := fmt.Sprintf("%d files are in %s.", n, cfg.State)
			if aside != "" {
				text += " What was there is in " + aside + "."
			}
			_, err = fmt.Fprintln(t.out, text)
			return err
		}}
	cmd.Flags().StringVar(&file, "config", "", "configuration file that names the state directory")
	cmd.Flags().BoolVar(&replace, "replace", false, "set aside what is in the state directory")
	return cmd
}
