package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"otrproxy/config"
	"otrproxy/confine"
	"otrproxy/proxy/notify"
)

// The command of "notify" is run by a process of its own: the proxy gives up the right to
// start programs. That process is started before, does nothing else, takes the command
// from the configuration file and from nowhere else, and ends with the proxy. It takes as much
// memory as a small proxy does, so there is none where no command is configured: one that a
// reload brings begins with the next start.

// tellWord starts it. It is not for people.
const tellWord = "run-notify"

// An order is what it is told to do, a line of JSON on its standard input; how that went
// is answered on its standard output.
type order struct {
	Reload bool // read the configuration again
	notify.Notification
}

type outcome struct{ Error string }

// A teller is the proxy's end. It is safe for use by several goroutines.
type teller struct {
	mu   sync.Mutex
	in   io.WriteCloser
	to   *json.Encoder
	from *json.Decoder
	cmd  *exec.Cmd
	log  *slog.Logger
}

// needsTeller reports whether this process will give up the right to start programs.
func needsTeller(cfg *config.Config) bool {
	return cfg.File != "" && cfg.Confine != "off" && confine.Available().Alone
}

// startTeller starts the process, where the configuration has a command.
func startTeller(cfg *config.Config, log *slog.Logger) (*teller, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, tellWord, "--config", cfg.File)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("the process that runs the command of \"notify\" cannot be started: %w", err)
	}
	return &teller{in: in, to: json.NewEncoder(in), from: json.NewDecoder(out), cmd: cmd, log: log}, nil
}

// Tell has the command run, and waits for its end.
func (t *teller) Tell(ctx context.Context, n notify.Notification) error {
	defer context.AfterFunc(ctx, func() { t.in.Close() })() // ends the command, too
	return t.do(order{Notification: n})
}

// Reload has the configuration read again. It does not wait for a command that runs.
func (t *teller) Reload() {
	go func() {
		if err := t.do(order{Reload: true}); err != nil {
			t.log.Warn("\"notify\" goes on as it was", "err", err)
		}
	}()
}

func (t *teller) do(o order) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var done outcome
	err := t.to.Encode(o)
	if err == nil {
		err = t.from.Decode(&done)
	}
	if err != nil {
		return errors.New("the process that runs it has ended; it is there again after the next start of otrproxy")
	}
	if done.Error != "" {
		return errors.New(done.Error)
	}
	return nil
}

// close ends the process, with what it runs, and waits for it.
func (t *teller) close() {
	t.in.Close()
	t.cmd.Wait()
}

func tellCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{Use: tellWord, Hidden: true, Short: "runs the command of \"notify\" for otrproxy run", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			confine.Cores()
			cfg, err := load(file)
			if err != nil {
				return err
			}
			// What ends the proxy at a keyboard reaches this process as well, too early.
			signal.Notify(make(chan os.Signal, 1), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			return tell(cfg, os.Stdin, os.Stdout)
		}}
	cmd.Flags().StringVar(&file, "config", "", "configuration file that has the command")
	return cmd
}

// tell does as it is told until nobody tells it anything any more.
func tell(cfg *config.Config, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	orders := make(chan order)
	go func() { // the end of the input ends what runs
		defer close(orders)
		defer cancel()
		for lines := bufio.NewScanner(in); lines.Scan(); { // none is longer than the scanner takes
			var o order
			if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
				return
			}
			select {
			case orders <- o:
			case <-ctx.Done():
				return
			}
		}
	}()
	answers := json.NewEncoder(out)
	for o := range orders {
		var done outcome
		if err := obey(ctx, &cfg, o); err != nil {
			done.Error = err.Error()
		}
		if err := answers.Encode(done); err != nil {
			return nil
		}
	}
	return nil
}

func obey(ctx context.Context, cfg **config.Config, o order) error {
	if o.Reload {
		fresh, err := config.Load((*cfg).File)
		if err == nil {
			*cfg = fresh
		}
		return err
	}
	if err := o.Check(); err != nil {
		return err
	}
	if len((*cfg).Notify.Command) == 0 {
		return errors.New("the configuration file has no command")
	}
	return o.Run(ctx, (*cfg).Notify.Command)
}
