package relay

import (
	"crypto/sha256"
	"slices"

	"otrproxy/proxy/filter"
	"otrproxy/stanza"
)

// A server that counts says once more, in a session that goes on, what it was not told to have
// arrived (XEP-0198 section 5). Most of that is to be shown, for it did not reach the client. But
// what had all its effect when it first came has none again: an error would give a message back
// a second time, and a contact's complaint would count as one more message that it could not read.

// An actedOn is a message of the server's that has had its effect. It is repeated at the same
// place and in the same words: what differs in either is new, and has its effect.
type actedOn struct {
	n   uint32 // its place among the stanzas the server counts
	sum [sha256.Size]byte
}

// A repeating knows which messages the server may say once more. It is owned by the goroutine
// that reads the server, and by who settles the session once that has ended.
type repeating struct {
	came   uint32    // stanzas of the server's so far, as it counts them; also those of which it is not told
	acted  []actedOn // on which this session has acted, in order
	before []actedOn // on which the session that goes on had, in order
}

// maxActed bounds what is kept of each.
const maxActed = 1024

// hasActed notes that the message at hand has had its effect.
func (s *Session) hasActed(root stanza.Element) {
	if !s.counts.Load() {
		return
	}
	if len(s.acted) >= maxActed {
		if s.acted = unarrived(s.acted, s.client.Arrived(0)); len(s.acted) >= maxActed {
			s.acted = slices.Delete(s.acted, 0, 1)
		}
	}
	s.acted = append(s.acted, actedOn{s.came, wording(root)})
}

// repeats reports whether the message at hand has had its effect before.
func (s *Session) repeats(root stanza.Element) bool {
	if len(s.before) == 0 {
		return false
	}
	s.before = unarrived(s.before, s.came-1)
	if len(s.before) == 0 || s.before[0].n != s.came || s.before[0].sum != wording(root) {
		return false
	}
	s.before = slices.Delete(s.before, 0, 1)
	s.hasActed(root)
	return true
}

// wording is a message's sum, but for the note that it comes late (XEP-0203), which some servers
// add when they repeat it.
func wording(root stanza.Element) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, name := range []string{"from", "id", "type"} {
		h.Write(root.RawAttr(name))
		h.Write([]byte{0})
	}
	for el := range root.Children() {
		if !el.Is(filter.NSDelay, "delay") {
			h.Write(el.Raw())
		}
	}
	h.Sum(sum[:0])
	return sum
}

// comeAgain are what the server may say once more to the session that goes on with this one, of
// which so many stanzas have arrived.
func (s *Session) comeAgain(arrived uint32) []actedOn {
	return append(unarrived(s.acted, arrived), unarrived(s.before, s.came)...)
}

// unarrived are those after the first n stanzas; the numbers may have wrapped around.
func unarrived(list []actedOn, n uint32) []actedOn {
	return slices.DeleteFunc(list, func(r actedOn) bool { return int32(n-r.n) >= 0 })
}
