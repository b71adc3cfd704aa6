package relay

import (
	"slices"
	"strings"

	"otrproxy/proxy/control"
	"otrproxy/proxy/filter"
)

// Beside the way out: what a text says of what stood beside it.

// reacted is a reaction in words, for OTR carries nothing else.
func (s *Session) reacted(contact string, r *filter.Reaction) string {
	what := "reacted with " + r.Emoji + " to "
	if r.Emoji == "" {
		what = "took back a reaction to "
	}
	if text := s.Account().TextOf(contact, r.To); text != "" {
		return what + control.Quoted(text)
	}
	return what + "an earlier message"
}

// tellOfDropped says what was left out of a message: content each time, what only the
// person's program understands once.
func (s *Session) tellOfDropped(contact string, c *filter.Composed) {
	dropped := c.Dropped
	for _, name := range c.Strange {
		if key := contact + " " + name; !s.strange[key] && len(s.strange) < maxTold {
			if s.strange == nil {
				s.strange = map[string]bool{}
			}
			s.strange[key] = true
			dropped = append(dropped, "an extension of your program ("+name+"; not mentioned again)")
		}
	}
	if len(dropped) > 0 {
		s.Say(contact, "Your text is sent encrypted; what OTR cannot protect was left out: "+strings.Join(slices.Compact(dropped), ", ")+".")
	}
}

// maxTold bounds what is remembered in order not to be said again.
const maxTold = 1000
