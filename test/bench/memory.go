//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"otrproxy/demo/client"
)

// What many cost in memory: idle sessions, each of an account of its own, and private
// conversations of one account.

const (
	unchanged = 2 * time.Second  // for how long memory stays the same, until it is taken
	restless  = 90 * time.Second // and for how long that is waited for
	silence   = 70 * time.Second // the proxy gives back what it does not need after a minute
	opening   = 60 * time.Second // for how long sessions are opened; then those there are do
	wobble    = 64 << 10         // bytes, which are no change
)

// crowdKinds are the things whose sessions are measured; ours with whatever policy, for
// nobody talks.
var crowdKinds = map[string]kind{"ours": require, "Go copy": goCopy, "haproxy": haproxy}

// A size is what a crowd takes, in resident bytes of what is in the middle.
type size struct {
	Program  int // at the start
	Sessions int // there are; fewer than wanted where time was up
	Short    int // with them, once it stays the same
	Silent   int // and after silence
}

// A crowd is one thing with its idle sessions.
type crowd struct {
	t   *thing
	all []*client.Client
	size
}

// crowdOf is a crowd as a process, for how many files one may have open is bounded. It is
// given the directory and program of the run, what is in the middle, and how many sessions;
// it prints its size once those are there, and again when it is told to go on.
func crowdOf(args []string) error {
	if len(args) != 4 {
		return errors.New("crowd: want a directory, the proxy, a thing and a number")
	}
	n, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	b := &bench{dir: args[0], proxy: args[1], files: int(openFiles(manyFiles))}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	debug.SetGCPercent(400)
	c, err := b.crowd(crowdKinds[args[2]], n)
	if err != nil {
		return err
	}
	defer c.close()
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(c.size); err != nil {
		return err
	}
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return err
	}
	if c.Silent, err = c.t.settled(); err != nil {
		return err
	}
	return out.Encode(c.size)
}

// A distant crowd is one of another process.
type distant struct {
	name   string
	wanted int
	cmd    *exec.Cmd
	on     io.WriteCloser
	said   *json.Decoder
	size
}

func (b *bench) distant(name string, n int) (*distant, error) {
	d := &distant{name: name, wanted: n, cmd: exec.Command(b.self, "crowd", b.dir, b.proxy, name, strconv.Itoa(n))}
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	d.cmd.Stderr = os.Stderr
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if d.on, err = d.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	d.said = json.NewDecoder(out)
	if err := d.said.Decode(&d.size); err != nil {
		d.close()
		return nil, fmt.Errorf("%d sessions of %s: %w; %s", n, name, err, d.cmd.ProcessState)
	}
	return d, nil
}

// later takes the size again.
func (d *distant) later() error {
	_, err := d.on.Write([]byte{'\n'})
	if err == nil {
		err = d.said.Decode(&d.size)
	}
	if err != nil {
		d.close()
		return fmt.Errorf("%d sessions of %s: %w; %s", d.wanted, d.name, err, d.cmd.ProcessState)
	}
	return nil
}

// close ends the process, and with it what it has started.
func (d *distant) close() {
	d.on.Close()
	d.cmd.Process.Kill()
	d.cmd.Wait()
}

// settled is the resident memory once it stays the same.
func (t *thing) settled() (int, error) {
	size, err := t.resident()
	since := time.Now()
	for begin := since; err == nil && time.Since(since) < unchanged && time.Since(begin) < restless; {
		time.Sleep(100 * time.Millisecond)
		var now int
		if now, err = t.resident(); max(now-size, size-now) > wobble {
			size, since = now, time.Now()
		}
	}
	return size, err
}

func (b *bench) crowd(k kind, n int) (*crowd, error) {
	names, people := userNames(n)
	t, err := b.begin(k, people)
	if t == nil || err != nil {
		return nil, err
	}
	c := &crowd{t: t}
	if err := c.gather(names); err != nil {
		c.close()
		return nil, fmt.Errorf("%s: %w", k.name, err)
	}
	return c, nil
}

func (c *crowd) gather(names []string) error {
	if c.t.policy != "" {
		jids := []string{"bob@" + domain, "alice@" + domain}
		for _, n := range names {
			jids = append(jids, n+"@"+domain)
		}
		if err := giveKeys(c.t.state(), jids...); err != nil {
			return err
		}
	}
	var err error
	if c.Program, err = c.t.settled(); err != nil {
		return err
	}
	if _, err := c.t.logIn([]string{"alice"}); err != nil { // what is made once is made
		return err
	}
	var mu sync.Mutex
	begin := time.Now()
	err = each(len(names), func(i int) error {
		if time.Since(begin) > opening {
			return nil
		}
		one, _, err := c.t.dial(names[i], "idle", nil)
		if err != nil {
			return err
		}
		mu.Lock()
		c.all = append(c.all, one)
		mu.Unlock()
		return one.Send("<presence/>")
	})
	if err != nil {
		return err
	}
	c.Sessions = len(c.all)
	c.Short, err = c.t.settled()
	return err
}

func (c *crowd) close() {
	for _, one := range c.all {
		one.Drop()
	}
	c.t.stop()
}

func (b *bench) memory() error {
	sizes, wait := []int{1, 100, 1000, 5000}, silence
	if b.quick {
		sizes, wait = []int{1, 50, 200}, 0
	}
	var crowds []*distant
	defer func() {
		for _, d := range crowds {
			d.close()
		}
	}()
	for _, name := range []string{"ours", "Go copy", "haproxy"} {
		if k := crowdKinds[name]; k.program != "" && !installed(k.program) {
			fmt.Printf("%s is left out: %s is not installed\n", name, k.program)
			continue
		}
		list, err := b.crowds(name, append([]int{0}, sizes...)) // those of none are what the others are measured by
		if crowds = append(crowds, list...); err != nil {
			return err
		}
	}
	time.Sleep(wait)
	if err := all(len(crowds), func(i int) error { return crowds[i].later() }); err != nil {
		return err
	}
	t := newTable(fmt.Sprintf("Memory of idle sessions, resident: after a login and with sessions, once it stays the same for %s, and after %s more", unchanged, wait),
		"at the start", "with sessions", "a session", "later", "a session")
	var none *distant
	for _, d := range crowds {
		if d.wanted == 0 {
			none = d
			t.row(d.name+", 0", megabytes(d.Program), megabytes(d.Short), "", megabytes(d.Silent), "")
			continue
		}
		name := fmt.Sprintf("%s, %d", d.name, d.Sessions)
		if d.Sessions < d.wanted {
			name += fmt.Sprintf(" (of %d: time was up)", d.wanted)
		}
		t.row(name, megabytes(d.Program), megabytes(d.Short), kilobytes(d.Short-none.Short, d.Sessions), megabytes(d.Silent), kilobytes(d.Silent-none.Silent, d.Sessions))
	}
	if err := t.print(); err != nil {
		return err
	}
	return b.conversations(sizes)
}

// crowds begins crowds of one thing, all at once.
func (b *bench) crowds(name string, sizes []int) (list []*distant, err error) {
	fit := slices.DeleteFunc(sizes, func(n int) bool {
		tooMany := b.files < 2*n+500 // each session has two in the process of its clients and server
		if tooMany {
			fmt.Printf("%d sessions of %s are left out: only %d files may be open (ulimit -n)\n", n, name, b.files)
		}
		return tooMany
	})
	list = make([]*distant, len(fit))
	err = all(len(fit), func(i int) (err error) {
		list[i], err = b.distant(name, fit[i])
		return err
	})
	return slices.DeleteFunc(list, func(d *distant) bool { return d == nil }), err
}

// all does something for 0 to n-1 at once.
func all(n int, f func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (b *bench) conversations(sizes []int) error {
	var argv []string
	for _, n := range sizes {
		argv = append(argv, fmt.Sprint(n))
	}
	cmd := exec.Command(b.self, append([]string{"conversations"}, argv...)...)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("conversations: %w: %s%s", err, out, complaint.String())
	}
	t := newTable("Memory of private conversations of one account, heap: the package otrlayer alone, in a process with a clock of its own", "heap", "a conversation", "after an hour's silence", "a conversation")
	for line := range strings.Lines(string(out)) {
		var n, before, short, later int
		if k, _ := fmt.Sscanf(line, "conversations %d %d %d %d", &n, &before, &short, &later); k == 4 {
			t.row(fmt.Sprint(n), megabytes(short), kilobytes(short-before, n), megabytes(later), kilobytes(later-before, n))
		}
	}
	return t.print()
}

func megabytes(n int) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

func kilobytes(n, sessions int) string {
	return fmt.Sprintf("%.1f kB", float64(n)/1e3/float64(max(1, sessions)))
}
