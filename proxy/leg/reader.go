package leg

import (
	"time"

	"otrproxy/stanza"
)

// A Reader takes the stanzas of one leg, one after the other.
type Reader struct {
	In   *Inlet
	Scan *stanza.Scanner
	Last Moment // when the stanza before was done, or the wire has given more
}

// Next waits for the next stanza. What those before have led to is on its way then, and
// nothing is held for what has not come.
func (r *Reader) Next() (*stanza.Stanza, error) {
	if r.Scan.Empty() && r.In.Waits() {
		r.In.wire.Before()
		r.Scan.Rest()
		r.In.await()
	}
	st, err := r.Scan.Next()
	if r.In.wire.fresh {
		r.In.wire.fresh, r.Last = false, Clock()
	}
	return st, err
}

// Took is how long a stanza has taken, and notes that it is done.
func (r *Reader) Took() time.Duration {
	before := r.Last
	r.Last = Clock()
	return time.Duration(r.Last - before)
}
