package otrlayer

import "sync"

// A desk is room for the one message that is at work: what is encrypted and what is opened
// lies on it, and nowhere else before it leaves or is shown. Accounts share the desks, and a
// silent one has none.
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
