package otrlayer

import (
	"sync"
)

// A desk holds the buffers in which one message is encrypted or opened. Accounts share the
// desks, so a silent account holds none.
type desk struct {
	plain  []byte // a text as it is encrypted
	sealed []byte // the message that carries it
	opened []byte // one that has come, decoded, and opened in place
}

var desks = sync.Pool{New: func() any { return new(desk) }}

// maxDesk is how much of each room is kept, in bytes.
const maxDesk = 16 << 10

// leave wipes the desk, and gives it back.
func (d *desk) leave() {
	clear(d.plain)
	clear(d.opened)
	if max(cap(d.plain), cap(d.sealed), cap(d.opened)) <= maxDesk {
		desks.Put(d)
	}
}
