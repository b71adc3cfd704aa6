package otrlayer

import (
	"otrproxy/otrlayer/text"
)

// formatOf is how a session's program writes and reads. The program is known by its name, or
// by a text of its own; then it is known by its key as well, in later sessions, too.
func (c *conversation) formatOf(s *session) text.Habit {
	if name := c.a.resourceAt(c.contact, s.jid).program; name != "" && s.program != text.AnotherProxy && s.speaksAs(name) {
		c.isProgram(s, name)
	}
	return text.HabitOf(s.program)
}

// speaksAs reports whether a session can be a known program's own.
func (s *session) speaksAs(name string) bool {
	return text.MayBe(name, s.Version)
}

// isProgram notes which program a session is with.
func (c *conversation) isProgram(s *session, name string) {
	if s.program == name {
		return
	}
	s.program = name
	// Nothing is kept of a key that is not accepted; nor that a program writes HTML, for the key
	// may move to another one, whose text would lose what looks like a tag.
	if c.a.fps.Find(c.contact, s.Fingerprint) != nil && text.HabitOf(name).Writes != text.Hypertext {
		c.saved(c.a.formats.Set(c.contact, s.Fingerprint, name))
	}
}

// programBefore is the program that had a session's key before.
func (c *conversation) programBefore(s *session) string {
	if k := c.a.formats.Find(c.contact, s.Fingerprint); k != nil && s.speaksAs(k.Trust) {
		return k.Trust
	}
	return ""
}
