//go:build linux

package main

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A figure is what was measured in several rounds: the median, and where the middle half lies.
type figure struct {
	Median float64 `json:"median"`
	Q1     float64 `json:"q1"`
	Q3     float64 `json:"q3"`
}

// summary is the figure of values; false where there are none.
func summary(values []float64) (figure, bool) {
	if len(values) == 0 {
		return figure{}, false
	}
	v := slices.Sorted(slices.Values(values))
	at := func(q float64) float64 {
		i, part := int(q*float64(len(v)-1)), 0.0
		if part = q*float64(len(v)-1) - float64(i); part == 0 {
			return v[i]
		}
		return v[i] + part*(v[i+1]-v[i])
	}
	return figure{at(0.5), at(0.25), at(0.75)}, true
}

// show is the median of values, or n/a.
func show(format string, values []float64) string {
	f, ok := summary(values)
	if !ok {
		return "n/a"
	}
	return fmt.Sprintf(format, f.Median)
}

// showRatio is the median of ratios with the quartiles.
func showRatio(values []float64) string {
	f, ok := summary(values)
	if !ok {
		return "n/a"
	}
	return fmt.Sprintf("%.2f [%.2f %.2f]", f.Median, f.Q1, f.Q3)
}

// ratios divides round by round; none where either has not been measured.
func ratios(of, by []float64) (out []float64) {
	if len(of) != len(by) {
		return nil
	}
	for i := range of {
		out = append(out, of[i]/by[i])
	}
	return out
}

// A table is printed when it is complete.
type table struct{ w *tabwriter.Writer }

func newTable(title string, columns ...string) table {
	fmt.Printf("\n%s\n", title)
	t := table{tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)}
	t.row("", columns...)
	return t
}

func (t table) row(name string, cells ...string) {
	fmt.Fprintf(t.w, "%s\t%s\t\n", name, strings.Join(cells, "\t"))
}

func (t table) print() error { return t.w.Flush() }

func us(d time.Duration) float64 { return float64(d) / 1e3 }

// rounded is the figure with as many places as mean anything.
func (f figure) rounded() figure {
	for _, v := range []*float64{&f.Median, &f.Q1, &f.Q3} {
		*v = math.Round(*v*1000) / 1000
	}
	return f
}
