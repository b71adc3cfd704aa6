package leg

import (
	"time"
)

// A Moment is a time by the clock that is never set, in nanoseconds. Only differences mean
// anything. It costs half of what a time.Time does, and is taken for each stanza.
type Moment time.Duration

var began = time.Now()

// Clock is now.
func Clock() Moment { return Moment(time.Since(began)) }
