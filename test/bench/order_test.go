//go:build linux

package main

import "testing"

// Every number that is lost, doubled or out of order is noticed.
func TestTally(t *testing.T) {
	for _, c := range []struct {
		name  string
		loose bool
		sent  int
		came  []int
		ok    bool
	}{
		{"all", false, 3, []int{0, 1, 2}, true},
		{"none", false, 0, nil, true},
		{"one lost in between", false, 3, []int{0, 2}, false},
		{"the first lost", false, 2, []int{1}, false},
		{"the last lost", false, 3, []int{0, 1}, false},
		{"all lost", false, 3, nil, false},
		{"doubled at once", false, 3, []int{0, 1, 1, 2}, false},
		{"doubled later", false, 3, []int{0, 1, 2, 0}, false},
		{"swapped", false, 3, []int{0, 2, 1}, false},
		{"one too many", false, 2, []int{0, 1, 2}, false},
		{"loose: all", true, 3, []int{0, 1, 2}, true},
		{"loose: swapped", true, 4, []int{2, 0, 3, 1}, true},
		{"loose: lost", true, 3, []int{0, 2}, false},
		{"loose: the last lost", true, 3, []int{1, 0}, false},
		{"loose: doubled", true, 3, []int{0, 1, 1, 2}, false},
		{"loose: doubled early", true, 3, []int{2, 2, 0, 1}, false},
		{"loose: one too many", true, 2, []int{0, 1, 3}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			count := tally{what: "message", loose: c.loose}
			var err error
			for _, n := range c.came {
				if e := count.see(n); err == nil {
					err = e
				}
			}
			if e := count.complete(c.sent); err == nil {
				err = e
			}
			if (err == nil) != c.ok {
				t.Errorf("%v of %d: %v", c.came, c.sent, err)
			}
		})
	}
}
