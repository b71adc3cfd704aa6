//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
)

// The check compares what a change costs with the figures that were landed last. Machines
// differ, so it compares no times: only CPU beside that of the Go copy in the same run, and
// counts.

const landedFile = "test/bench/landed.json"

// A gauge is one figure that is kept from run to run. Less is better.
type gauge struct {
	figure
	Count   bool `json:"count,omitempty"`   // of calls or allocations a stanza, in place of a ratio
	Batches bool `json:"batches,omitempty"` // and how many go at once is a matter of chance
}

const (
	ratioBand = 0.10 // of a ratio, within which nothing is said to have changed
	countBand = 0.05 // a stanza: what rounding makes
	countPart = 0.01 // of a count: what goes by time and not by stanzas
	batchPart = 0.25 // of a count of what batches
)

// band is how much more than landed may be noise: what lies between median and quartile in
// both runs, and no less than the kind of figure always has.
func (landed gauge) band(now gauge) float64 {
	least := max(countBand, countPart*landed.Median)
	switch {
	case !landed.Count:
		least = ratioBand * landed.Median
	case now.Batches:
		least = max(countBand, batchPart*landed.Median)
	}
	return max(least, landed.Q3-landed.Median+now.Median-now.Q1)
}

// compare names what got worse than landed, and by how much.
func compare(landed, now map[string]gauge) (worse []string) {
	for _, name := range slices.Sorted(maps.Keys(landed)) {
		l := landed[name]
		n, ok := now[name]
		switch more := n.Median - l.Median; {
		case !ok:
			worse = append(worse, name+": it was not measured")
		case more > l.band(n):
			line := fmt.Sprintf("%s: %.2f, landed %.2f: %.2f more, of which %.2f may be noise", name, n.Median, l.Median, more, l.band(n))
			if !l.Count && l.Median > 0 {
				line += fmt.Sprintf(" (%+.0f %%)", 100*more/l.Median)
			}
			worse = append(worse, line)
		}
	}
	return worse
}

func (b *bench) check(land bool) error {
	landed, err := readLanded()
	if err != nil && !land {
		return err
	}
	now, err := b.gauges()
	if err != nil {
		return err
	}
	if land {
		text, err := json.MarshalIndent(now, "", "\t")
		if err != nil {
			return err
		}
		return os.WriteFile(landedFile, append(text, '\n'), 0o644)
	}
	t := newTable("Check: what ours costs a stanza, CPU beside that of the Go copy in this run", "landed", "now")
	for _, name := range slices.Sorted(maps.Keys(now)) {
		before := "n/a"
		if l, ok := landed[name]; ok {
			before = l.show()
		}
		t.row(name, before, now[name].show())
	}
	if err := t.print(); err != nil {
		return err
	}
	worse := compare(landed, now)
	if len(worse) == 0 {
		fmt.Println("\nNothing got worse.")
		return nil
	}
	fmt.Println("\nWorse than landed:")
	for _, line := range worse {
		fmt.Println("  " + line)
	}
	return fmt.Errorf("%d of %d figures got worse; if that is meant: go run ./test/bench check -land", len(worse), len(landed))
}

func (g gauge) show() string { return fmt.Sprintf("%.2f [%.2f %.2f]", g.Median, g.Q1, g.Q3) }

func readLanded() (landed map[string]gauge, err error) {
	text, err := os.ReadFile(landedFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is not there; write it: go run ./test/bench check -land", landedFile)
	}
	if err == nil {
		err = json.Unmarshal(text, &landed)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", landedFile, err)
	}
	return landed, nil
}

// gauges measures what is compared.
func (b *bench) gauges() (map[string]gauge, error) {
	list, stop, err := b.runners(goCopy, never, require)
	if err != nil {
		return nil, err
	}
	defer stop()
	loads := []load{pipelined, mixed, pingPong}
	if err := errors.Join(b.race(list, loads, b.turns(20, 5)), b.count(list, loads)); err != nil {
		return nil, err
	}
	now := map[string]gauge{}
	for _, r := range list[1:] {
		for _, l := range loads {
			c := r.course(l)
			for _, g := range []struct {
				what   string
				values []float64
				count  bool
			}{
				{"CPU x Go copy", ratios(c.cpu, list[0].course(l).cpu), false},
				{"allocations", c.allocs, true},
				{"writes", c.writes, true},
			} {
				f, ok := summary(g.values)
				if !ok {
					continue // where the system does not count writes
				}
				now[r.t.name+", "+l.name+", "+g.what] = gauge{f.rounded(), g.count, g.what == "writes" && l.name != pingPong.name}
			}
		}
	}
	return now, nil
}
