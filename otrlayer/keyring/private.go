package keyring

import (
	"slices"
	"strings"
)

// privateFile lists the contacts with whom a private conversation was begun and not
// given up by the person, a JID a line: what was private once does not go back to clear
// because this program was started anew. It is written anew when one is given up, so that
// every version of otrproxy reads it.
const privateFile = "private"

// Privates are the contacts whose conversation was private, over restarts.
type Privates struct {
	LineFile
	Of map[string]bool
}

// LoadPrivate reads them from an account's directory.
func LoadPrivate(dir string) (*Privates, error) {
	p := &Privates{Of: map[string]bool{}}
	p.LineFile = LineFile{what: "the list of private conversations was not saved", whole: p.format, live: func() int { return len(p.Of) }, disk: lineDisk{dir: dir, name: privateFile}}
	lines, torn, err := p.disk.read()
	if err != nil {
		return nil, err
	}
	p.lines = count(lines)
	for line := range strings.Lines(string(lines) + string(torn)) {
		if jid := strings.TrimSpace(line); jid != "" {
			p.Of[jid] = true
		}
	}
	return p, nil
}

// format is the file.
func (p *Privates) format() []byte {
	list := make([]string, 0, len(p.Of))
	for jid := range p.Of {
		list = append(list, jid+"\n")
	}
	slices.Sort(list)
	return []byte(strings.Join(list, ""))
}

// Keep notes whether a contact's conversation was private and is not given up.
func (p *Privates) Keep(contact string, private bool) {
	switch {
	case p.Of[contact] == private && !p.Unsaved:
	case private:
		p.Of[contact] = true
		p.append([]byte(contact + "\n"))
	default:
		delete(p.Of, contact)
		p.rewrite()
	}
}
