//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"

	"otrproxy/test/client"
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

// A crowd is one thing with its idle sessions.
type crowd struct {
	t             *thing
	wanted        int
	all           []*client.Client
	program       int // bytes resident at the start
	used          int // after a first login, which leaves behind what is made once
	short, silent int // with them: shortly after, and after silence
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
	c := &crowd{t: t, wanted: n}
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
	if c.program, err = c.t.settled(); err != nil {
		return err
	}
	if _, err := c.t.logIn([]string{"alice"}); err != nil {
		return err
	}
	if c.used, err = c.t.settled(); err != nil {
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
	c.short, err = c.t.settled()
	return err
}

func (c *crowd) close() {
	for _, one := range c.all {
		one.Drop()
	}
	c.t.stop()
}

func (b *bench) memory() error {
	sizes := []int{1, 100, 1000, 5000}
	if b.quick {
		sizes = []int{1, 50, 200}
	}
	sizes = b.fitting(sizes, 3)
	var crowds []*crowd
	defer func() {
		for _, c := range crowds {
			c.close()
		}
	}()
	for _, k := range []kind{require, goCopy, haproxy} {
		k.name = strings.TrimSuffix(k.name, " require") // nobody talks
		for _, n := range sizes {
			c, err := b.crowd(k, n)
			if err != nil {
				return err
			}
			if c == nil {
				break // it is not installed, and has said so
			}
			crowds = append(crowds, c)
		}
	}
	wait := silence
	if b.quick {
		wait = 0
	}
	time.Sleep(wait)
	t := newTable(fmt.Sprintf("Memory of idle sessions, resident: once it stays the same for %s, and %s later", unchanged, wait),
		"program alone", "after one login", "with sessions", "a session", "later", "a session")
	for _, c := range crowds {
		var err error
		if c.silent, err = c.t.settled(); err != nil {
			return err
		}
		n := len(c.all)
		name := fmt.Sprintf("%s, %d", c.t.name, n)
		if n < c.wanted {
			name += fmt.Sprintf(" (of %d: time was up)", c.wanted)
		}
		t.row(name, megabytes(c.program), megabytes(c.used), megabytes(c.short), kilobytes(c.short-c.used, n), megabytes(c.silent), kilobytes(c.silent-c.used, n))
	}
	if err := t.print(); err != nil {
		return err
	}
	return b.conversations(sizes)
}

// fitting leaves out what takes more open files than there may be: each session has two here.
func (b *bench) fitting(sizes []int, things int) (fit []int) {
	left := b.files/2 - 500
	for _, n := range sizes {
		if left -= things * n; left < 0 {
			fmt.Printf("%d sessions are left out: only %d files may be open (ulimit -n)\n", n, b.files)
			break
		}
		fit = append(fit, n)
	}
	return fit
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
