//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// What OTR costs: of a message on its way through the proxy, and of the engine alone, both
// beside libotr.

// said is what an engine's program prints: nanoseconds and allocations, by measure.
type said map[string][2]float64

// engine runs one of the two programs.
func engine(argv ...string) (said, error) {
	out, err := exec.Command(argv[0], argv[1:]...).Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(argv[0]), err)
	}
	s := said{}
	for line := range strings.Lines(string(out)) {
		var name string
		var v [2]float64
		if n, _ := fmt.Sscan(line, &name, &v[0], &v[1]); n < 2 {
			return nil, fmt.Errorf("%s says %q", filepath.Base(argv[0]), line)
		}
		s[name] = v
	}
	return s, nil
}

// oneWayOf is a load of messages with a text of a size.
func oneWayOf(size int) load {
	return load{fmt.Sprintf("one way, %d B", size), func(b *bench) int { return b.some(3000, 500) }, 0, func(p *pair, n int) (int, []time.Duration, error) {
		return p.oneWay(n, size, nil)
	}}
}

var engineMeasures = []struct{ name, what string }{
	{"ake", "key exchange"},
	{"oneway100", "one way, 100 B"},
	{"oneway1k", "one way, 1000 B"},
	{"oneway10k", "one way, 10000 B"},
	{"alternating", "alternating, 100 B"},
	{"smp", "comparing a secret"},
}

func (b *bench) otr() error {
	ours, libotr := filepath.Join(b.dir, "otr"), filepath.Join(b.dir, "libotr_bench")
	if out, err := exec.Command("go", "build", "-o", ours, "otrproxy/test/bench/otr").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	beside := true
	if out, err := exec.Command("cc", "-O2", "-o", libotr, "test/interop/peers/libotr_bench.c", "-lotr", "-lgcrypt").CombinedOutput(); err != nil {
		beside = false
		first, _, _ := bytes.Cut(bytes.TrimSpace(out), []byte("\n"))
		fmt.Printf("libotr is left out: its program cannot be built (libotr5-dev, gcc): %v %s\n", err, first)
	}
	list, stop, err := b.runners(never, require)
	if err != nil {
		return err
	}
	defer stop()
	without, with := list[0], list[1]
	loads := []load{oneWayOf(100), oneWayOf(1000)}
	rounds := b.turns(5, 1)
	values := map[string]map[string][]float64{"ours": {}, "libotr": {}, "allocs": {}}
	if err := b.race(list, loads, 0); err != nil { // warm up
		return err
	}
	for range rounds {
		for range 3 { // as long as the engines' turns, about
			for _, l := range loads {
				for _, r := range list {
					if err := r.turn(l, l.messages(b)); err != nil {
						return err
					}
				}
			}
		}
		s, err := engine(ours)
		if err != nil {
			return err
		}
		for name, v := range s {
			values["ours"][name] = append(values["ours"][name], v[0])
			values["allocs"][name] = append(values["allocs"][name], v[1])
		}
		if !beside {
			continue
		}
		if s, err = engine(libotr, keyFile, keyFile); err != nil {
			return err
		}
		for name, v := range s {
			values["libotr"][name] = append(values["libotr"][name], v[0])
		}
	}
	t := newTable(fmt.Sprintf("OTR path, a message one way: %d rounds; the proxy's CPU at both ends, and libotr's time to encrypt and decrypt", rounds),
		"never", "require", "require - never", "libotr, bare", "(require - never) / libotr")
	for i, l := range loads {
		// Three turns make one of a round.
		plain, private := perRound(doubled(without.course(l).cpu), rounds), perRound(doubled(with.course(l).cpu), rounds)
		var added []float64
		for i := range plain {
			added = append(added, private[i]-plain[i])
		}
		var bare []float64
		for _, ns := range values["libotr"][engineMeasures[1+i].name] {
			bare = append(bare, ns/1e3)
		}
		t.row(l.name, show("%.1f us", plain), show("%.1f us", private), show("%.1f us", added), show("%.1f us", bare), showRatio(ratios(added, bare)))
	}
	if err := t.print(); err != nil {
		return err
	}
	t = newTable(fmt.Sprintf("OTR engine: %d rounds; time of both sides together", rounds), "libotr", "ours", "ours / libotr", "our allocations")
	for _, m := range engineMeasures {
		o, l := values["ours"][m.name], values["libotr"][m.name]
		t.row(m.what, show("%.1f us", thousandths(l)), show("%.1f us", thousandths(o)), showRatio(ratios(o, l)), show("%.1f", values["allocs"][m.name]))
	}
	o, l := values["ours"]["memory"], values["libotr"]["memory"]
	t.row("live conversation, one side", show("%.0f B", l), show("%.0f B", o), showRatio(ratios(o, l)), "")
	return t.print()
}

// perRound is the mean of each round's values.
func perRound(v []float64, rounds int) (out []float64) {
	each := len(v) / rounds
	for i := range rounds {
		sum := 0.0
		for _, x := range v[i*each : (i+1)*each] {
			sum += x
		}
		out = append(out, sum/float64(each))
	}
	return out
}

func thousandths(v []float64) (out []float64) {
	for _, x := range v {
		out = append(out, x/1e3)
	}
	return out
}
