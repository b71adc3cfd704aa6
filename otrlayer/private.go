package otrlayer

import (
	"slices"
	"strings"
)

// privateFile lists the contacts with whom a private conversation was begun and not
// given up by the person, a JID a line: what was private once does not go back to clear
// because this program was started anew. It is written anew when one is given up, so that
// every version of otrproxy reads it.
const privateFile = "private"

// privates are the contacts whose conversation was private, over restarts.
type privates struct {
	lineFile
	of map[string]bool
}

func loadPrivate(dir string) (*privates, error) {
	p := &privates{of: map[string]bool{}}
	p.lineFile = lineFile{what: "the list of private conversations was not saved", whole: p.format, live: func() int { return len(p.of) }, disk: lineDisk{dir: dir, name: privateFile}}
	lines, torn, err := p.disk.read()
	if err != nil {
		return nil, err
	}
	p.lines = count(lines)
	for line := range strings.Lines(string(lines) + string(torn)) {
		if jid := strings.TrimSpace(line); jid != "" {
			p.of[jid] = true
		}
	}
	return p, nil
}

// format is the file.
func (p *privates) format() []byte {
	list := make([]string, 0, len(p.of))
	for jid := range p.of {
		list = append(list, jid+"\n")
	}
	slices.Sort(list)
	return []byte(strings.Join(list, ""))
}

// keepPrivate notes whether a contact's conversation was private and is not given up.
func (a *Account) keepPrivate(contact string, private bool) {
	p := a.private
	switch {
	case p.of[contact] == private && !p.unsaved:
	case private:
		p.of[contact] = true
		p.append([]byte(contact + "\n"))
	default:
		delete(p.of, contact)
		p.rewrite()
	}
}

// oncePrivate calls f when a conversation that has just become private is one on disk as
// well, or cannot be. Where the rules demand encryption anyway nothing has to wait for that.
func (c *conversation) oncePrivate(f func()) {
	b := c.a.private.pending()
	if b == nil || c.a.settings().Policy(c.contact).requires() {
		f()
		return
	}
	session := c.active
	b.then = append(b.then, func() {
		if c.state == StateEncrypted && c.active == session {
			f()
		}
	})
}
