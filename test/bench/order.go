//go:build linux

package main

import "fmt"

// A tally counts what arrives of a numbered stream: each number has to come once, and in
// order.
type tally struct {
	what  string
	loose bool         // the order is not known
	next  int          // all before it have come
	early map[int]bool // those behind it that have come, of a loose one
}

// see takes the next number.
func (t *tally) see(n int) error {
	switch {
	case n < t.next || t.early[n]:
		return fmt.Errorf("%s %d came twice", t.what, n)
	case n == t.next:
		for t.next++; t.early[t.next]; t.next++ {
			delete(t.early, t.next)
		}
	case !t.loose:
		return fmt.Errorf("%s %d came where %d was due: lost, or out of order", t.what, n, t.next)
	default:
		if t.early == nil {
			t.early = map[int]bool{}
		}
		t.early[n] = true
	}
	return nil
}

// complete fails unless all up to sent have come, and nothing else.
func (t *tally) complete(sent int) error {
	if t.next != sent || len(t.early) > 0 {
		return fmt.Errorf("of %d, only each %s before %d has come", sent, t.what, t.next)
	}
	return nil
}
