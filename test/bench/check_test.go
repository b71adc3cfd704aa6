//go:build linux

package main

import (
	"strings"
	"testing"
)

// What got worse beyond noise is named, and nothing else.
func TestCompare(t *testing.T) {
	ratio := func(median, q1, q3 float64) gauge { return gauge{figure{median, q1, q3}, false, false} }
	count := func(median, q1, q3 float64) gauge { return gauge{figure{median, q1, q3}, true, false} }
	batch := func(median float64) gauge { return gauge{figure{median, median, median}, true, true} }
	for _, c := range []struct {
		name        string
		landed, now gauge
		worse       string // what the line says; "" for none
	}{
		{"the same ratio", ratio(2, 2, 2), ratio(2, 2, 2), ""},
		{"a better ratio", ratio(2, 2, 2), ratio(1, 1, 1), ""},
		{"a ratio within a tenth", ratio(2, 2, 2), ratio(2.19, 2.19, 2.19), ""},
		{"a ratio beyond a tenth", ratio(2, 2, 2), ratio(2.5, 2.5, 2.5), "0.50 more, of which 0.20 may be noise (+25 %)"},
		{"noise when it was landed", ratio(2, 1.5, 2.4), ratio(2.35, 2.35, 2.35), ""},
		{"noise now", ratio(2, 2, 2), ratio(2.35, 1.95, 2.6), ""},
		{"noise of both", ratio(2, 1.9, 2.2), ratio(2.35, 2.15, 2.6), ""},
		{"worse than the noise of both", ratio(2, 1.9, 2.2), ratio(2.5, 2.3, 2.6), "0.50 more"},
		{"noise on the other sides says nothing", ratio(2, 1, 2), ratio(2.5, 2.5, 4), "0.50 more"},
		{"the same count", count(1, 1, 1), count(1, 1, 1), ""},
		{"fewer", count(12, 12, 12), count(1, 1, 1), ""},
		{"a count within rounding", count(1, 1, 1), count(1.04, 1.04, 1.04), ""},
		{"a hundredth more", count(12, 12, 12), count(12.1, 12.1, 12.1), ""},
		{"one allocation in four stanzas more", count(12, 12, 12), count(12.25, 12.25, 12.25), "12.25, landed 12.00: 0.25 more"},
		{"a count from none", count(0, 0, 0), count(0.06, 0.06, 0.06), "0.06, landed 0.00"},
		{"another batch", batch(0.56), batch(0.62), ""},
		{"batches that have fallen apart", batch(0.56), batch(1.02), "0.46 more, of which 0.14 may be noise"},
		{"a count that wavers", count(0.1, 0.08, 0.16), count(0.2, 0.15, 0.22), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			worse := compare(map[string]gauge{"it": c.landed}, map[string]gauge{"it": c.now})
			switch {
			case c.worse == "" && len(worse) > 0:
				t.Errorf("said to be worse: %s", worse[0])
			case c.worse != "" && (len(worse) != 1 || !strings.HasPrefix(worse[0], "it: ") || !strings.Contains(worse[0], c.worse)):
				t.Errorf("got %q, want a line with %q", worse, c.worse)
			}
		})
	}
}

// What is not measured any more is named; what is new has nothing to be compared with.
func TestCompareNames(t *testing.T) {
	one := gauge{figure{1, 1, 1}, false, false}
	worse := compare(map[string]gauge{"a": one, "b": one}, map[string]gauge{"b": one, "c": one})
	if len(worse) != 1 || worse[0] != "a: it was not measured" {
		t.Errorf("got %q", worse)
	}
}

func TestSummary(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   figure
	}{
		{[]float64{3}, figure{3, 3, 3}},
		{[]float64{2, 1}, figure{1.5, 1.25, 1.75}},
		{[]float64{5, 1, 4, 2, 3}, figure{3, 2, 4}},
	} {
		if got, ok := summary(c.values); !ok || got != c.want {
			t.Errorf("%v: %v, want %v", c.values, got, c.want)
		}
	}
	if _, ok := summary(nil); ok {
		t.Error("no values have a figure")
	}
}
