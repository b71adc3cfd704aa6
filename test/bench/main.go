//go:build linux

// Command bench measures what the proxy costs, beside others that stand between a
// client and its server, in one run: a plain copy in Go, which is the least that TLS
// costs, haproxy, nginx and stunnel.
//
//	bench [-only paths,otr,logins,memory] [-rounds N] [-quick]
//	bench check [-land]
//
// The things measured are processes of their own and take turns, so that all meet the
// same noise; ratios are taken within a round. Clients and server are this process. It
// is run from the project's root.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

const domain = "bench.example"

// A part is one part of the report.
type part struct {
	name   string
	report func(*bench) error
}

var parts = []part{
	{"paths", (*bench).paths},
	{"otr", (*bench).otr},
	{"logins", (*bench).logins},
	{"memory", (*bench).memory},
}

// A bench is one run.
type bench struct {
	dir    string // of the run, removed at its end
	self   string // this program, which is also some of the things measured
	proxy  string // the proxy's program
	rounds int    // 0 for what each part has by itself
	quick  bool
	files  int // that may be open
}

func main() {
	if len(os.Args) > 1 {
		if child := children[os.Args[1]]; child != nil {
			fail(child(os.Args[2:]))
			return
		}
	}
	args, checking := os.Args[1:], false
	if len(args) > 0 && args[0] == "check" {
		args, checking = args[1:], true
	}
	b := &bench{}
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	flags.IntVar(&b.rounds, "rounds", 0, "turns each thing gets (default: what each part needs)")
	flags.BoolVar(&b.quick, "quick", false, "a short run, to see whether everything works")
	var only string
	var land bool
	if checking {
		flags.BoolVar(&land, "land", false, "write the figures to "+landedFile+" instead of comparing with it")
	} else {
		flags.StringVar(&only, "only", "", "parts of the report, with commas: paths, otr, logins, memory")
	}
	flags.Parse(args)
	if flags.NArg() > 0 {
		fail(fmt.Errorf("%q is not known; try -help", flags.Arg(0)))
	}
	fail(b.run(func() error {
		if checking {
			return b.check(land)
		}
		return b.report(only)
	}))
}

// children are the things that this program is itself, as processes of their own.
var children = map[string]func(args []string) error{
	"copy":          copyBetween,
	"login-floor":   loginFloor,
	"conversations": conversations,
	"crowd":         crowdOf,
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run prepares what all parts need.
func (b *bench) run(f func() error) (err error) {
	if b.dir, err = os.MkdirTemp("", "otrproxy-bench"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	b.proxy = filepath.Join(b.dir, "otrproxy")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.proxy, "otrproxy/cmd/otrproxy")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is handed out
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	if err := writePEM(b.pem()); err != nil {
		return err
	}
	b.files = int(openFiles(manyFiles))
	debug.SetGCPercent(400) // clients and server take no more of the cores than they must
	return f()
}

// pem is the file with the certificate and key of whatever is not the proxy.
func (b *bench) pem() string { return filepath.Join(b.dir, "cert.pem") }

// turns is how many rounds a part has.
func (b *bench) turns(usual, quick int) int {
	switch {
	case b.rounds > 0:
		return b.rounds
	case b.quick:
		return quick
	}
	return usual
}

// some is a number that a quick run has less of.
func (b *bench) some(usual, quick int) int {
	if b.quick {
		return quick
	}
	return usual
}

func (b *bench) report(only string) error {
	wanted := strings.Split(only, ",")
	for _, w := range wanted {
		if only != "" && !slices.ContainsFunc(parts, func(p part) bool { return p.name == w }) {
			return fmt.Errorf("-only: there is no part %q", w)
		}
	}
	begin := time.Now()
	for _, p := range parts {
		if only != "" && !slices.Contains(wanted, p.name) {
			continue
		}
		if err := p.report(b); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	fmt.Printf("\nmeasured in %s, on %d cores\n", time.Since(begin).Round(time.Second), runtime.NumCPU())
	return nil
}
