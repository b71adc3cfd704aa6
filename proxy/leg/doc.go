// Package leg is one of the two legs of a session: a connection with one reader and one writer.
//
//	wire.go    reads below TLS, as much as there is in one call, and holds no memory while it waits
//	layers.go  what lies between a stream and its wire
//	inlet.go   knows whether a read would have to wait
//	reader.go  takes one stanza after the other
//	outbox.go  is the only writer of a leg: anybody appends, one goroutine writes
//	tally.go   counts what the other side has taken (XEP-0198), and what it is told
//
// Owned here: the queue of a leg, and the marks of persons' messages in it, by which they are
// given back when the leg breaks. Each Outbox has one lock. A Wire, an Inlet and a Reader belong
// to the goroutine that reads.
//
// It must not know what a stanza means, nor whose leg it is.
package leg
