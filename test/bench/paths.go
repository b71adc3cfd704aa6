//go:build linux

package main

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// What a stanza costs on its way, and whether all arrive.

// A course is what one thing took of one load, round by round.
type course struct {
	cpu    []float64 // microseconds a stanza
	writes []float64 // calls a stanza
	allocs []float64 // a stanza
	rtt    []time.Duration
}

// A runner is a thing with the pair that speaks through it.
type runner struct {
	*pair
	courses map[string]*course
}

func (b *bench) runner(k kind) (*runner, error) {
	t, err := b.begin(k, map[string]string{"alice": password, "bob": password})
	if t == nil || err != nil {
		return nil, err
	}
	if k.policy != "" {
		if err := giveKeys(t.state(), "alice@"+domain, "bob@"+domain); err != nil {
			t.stop()
			return nil, err
		}
	}
	p, err := newPair(t)
	if err != nil {
		t.stop()
		return nil, fmt.Errorf("%s: %w", k.name, err)
	}
	return &runner{pair: p, courses: map[string]*course{}}, nil
}

// runners starts all that is installed. stop ends them.
func (b *bench) runners(kinds ...kind) (list []*runner, stop func(), err error) {
	stop = func() {
		for _, r := range list {
			r.close()
			r.t.stop()
		}
	}
	for _, k := range kinds {
		r, err := b.runner(k)
		if err != nil {
			stop()
			return nil, nil, err
		}
		if r != nil {
			list = append(list, r)
		}
	}
	return list, stop, nil
}

// pass has a load pass once, and makes sure of it.
func (r *runner) pass(l load, n int) (stanzas int, rtt []time.Duration, done took, err error) {
	r.start()
	writes, counted := r.t.written()
	cpu, err := r.t.cpu()
	if err != nil {
		return 0, nil, took{}, err
	}
	if stanzas, rtt, err = l.run(r.pair, n); err != nil {
		return 0, nil, took{}, fmt.Errorf("%s, %s: %w", r.t.name, l.name, err)
	}
	after, err := r.t.cpu()
	if err != nil {
		return 0, nil, took{}, err
	}
	done = took{cpu: after - cpu, counted: counted}
	if counted {
		writesAfter, _ := r.t.written()
		done.writes = writesAfter - writes
	}
	if err := r.settle(); err != nil {
		return 0, nil, took{}, fmt.Errorf("%s, %s: %w", r.t.name, l.name, err)
	}
	return stanzas, rtt, done, nil
}

// took is what a thing took of one turn.
type took struct {
	cpu     time.Duration
	writes  int
	counted bool // the writes are known
}

// turn has a load pass, and notes what the thing took.
func (r *runner) turn(l load, n int) error {
	stanzas, rtt, done, err := r.pass(l, n)
	if err != nil {
		return err
	}
	c := r.noted(l)
	each := float64(stanzas)
	if r.t.cmd != nil {
		c.cpu = append(c.cpu, us(done.cpu)/each)
	}
	if done.counted {
		c.writes = append(c.writes, float64(done.writes)/each)
	}
	c.rtt = append(c.rtt, rtt...)
	return nil
}

// allocations notes what ours allocates a stanza. The runtime counts by the span, some
// thousands at once, so it takes many stanzas to know.
func (r *runner) allocations(b *bench, l load) error {
	if r.t.policy == "" {
		return nil
	}
	for range 2 {
		first, err := r.t.allocated()
		if err != nil {
			return err
		}
		before, err := r.t.allocated()
		if err != nil {
			return err
		}
		stanzas, _, _, err := r.pass(l, l.many(b))
		if err != nil {
			return err
		}
		after, err := r.t.allocated()
		if err != nil {
			return err
		}
		asking := before - first
		c := r.noted(l)
		c.allocs = append(c.allocs, max(0, after-before-asking)/float64(stanzas))
	}
	return nil
}

func (r *runner) noted(l load) *course {
	if r.courses[l.name] == nil {
		r.courses[l.name] = &course{}
	}
	return r.courses[l.name]
}

// race has all take turns.
func (b *bench) race(list []*runner, loads []load, rounds int) error {
	for _, r := range list {
		for _, l := range loads {
			if _, _, _, err := r.pass(l, b.some(1000, 300)); err != nil { // warm up
				return err
			}
		}
	}
	order := slices.Clone(list)
	for range rounds {
		slices.Reverse(order) // whoever comes after another does not gain by it
		for _, l := range loads {
			for _, r := range order {
				if err := r.turn(l, l.messages(b)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// count counts the allocations of all.
func (b *bench) count(list []*runner, loads []load) error {
	for _, r := range list {
		for _, l := range loads {
			if err := r.allocations(b, l); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *runner) course(l load) *course {
	if r == nil || r.courses[l.name] == nil {
		return &course{}
	}
	return r.courses[l.name]
}

// find is the runner of a kind; nil where it was left out.
func find(list []*runner, k kind) *runner {
	for _, r := range list {
		if r.t.name == k.name {
			return r
		}
	}
	return nil
}

func (b *bench) paths() error {
	list, stop, err := b.runners(direct, goCopy, haproxy, nginx, stunnel, never, require)
	if err != nil {
		return err
	}
	defer stop()
	loads := []load{pipelined, mixed, pingPong}
	rounds := b.turns(15, 3)
	if err := errors.Join(b.race(list, loads, rounds), b.count(list, loads)); err != nil {
		return err
	}
	floor, ha := find(list, goCopy), find(list, haproxy)
	for _, l := range loads {
		title := fmt.Sprintf("Paths, %s: %d rounds; CPU of what is in the middle alone; ratios are of CPU", l.name, rounds)
		t := newTable(title, "CPU/stanza", "CPU/message", "x Go copy", "x haproxy", "writes/stanza", "allocs/stanza", "RTT p50", "p99")
		for _, r := range list {
			c := r.course(l)
			perMessage := "" // only where it is texts that pass
			if l.name != mixed.name {
				perMessage = show("%.2f us", doubled(c.cpu))
			}
			p50, p99 := "", ""
			if len(c.rtt) > 0 {
				slices.Sort(c.rtt)
				p50 = fmt.Sprintf("%.0f us", us(c.rtt[len(c.rtt)/2]))
				p99 = fmt.Sprintf("%.0f us", us(c.rtt[len(c.rtt)*99/100]))
			}
			writes := c.writes
			if f, ok := summary(r.course(pingPong).writes); ok && f.Median < 0.95 {
				writes = nil // each stanza of a ping-pong takes a write: it has others, which nobody counts
			}
			t.row(r.t.name, show("%.2f us", c.cpu), perMessage, showRatio(ratios(c.cpu, floor.course(l).cpu)), showRatio(ratios(c.cpu, ha.course(l).cpu)),
				show("%.2f", writes), show("%.2f", c.allocs), p50, p99)
		}
		if err := t.print(); err != nil {
			return err
		}
	}
	fmt.Println("\nA message passes twice: to the server, and from it. Ours require has both people behind it: it encrypts and decrypts.")
	sealed := int64(0)
	for _, r := range list {
		if _, _, _, err := r.pass(late, late.messages(b)); err != nil {
			return err
		}
		sealed += r.t.sealed.Load()
	}
	fmt.Printf("Late writes, torn records and a reader that stalls: %d messages through each, all once and in order.\n", late.messages(b))
	fmt.Printf("Of the texts through ours require, the server has seen %d encrypted and none in clear.\n", sealed)
	if find(list, require) == nil {
		return errors.New("ours require has not run")
	}
	return nil
}

// doubled is of a message what it is of a stanza: it passes twice.
func doubled(v []float64) (out []float64) {
	for _, x := range v {
		out = append(out, 2*x)
	}
	return out
}
