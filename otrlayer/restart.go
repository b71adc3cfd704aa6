package otrlayer

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"otrproxy/otrlayer/keyring"
)

// A restart is no end. A contact's program that is told of an end goes on in clear, refuses
// what its person writes, or sends nothing without a word (seen with mcabber, Pidgin and
// bitlbee). So it is told nothing when the proxy is stopped, and asked for a new private
// conversation as soon as the person's client is back. What it sends in between is encrypted,
// and cannot be read: it is told that, too (unreadable.go).

// openFile lists the conversations that were private when the proxy was stopped: the contact,
// a tab and the full JID that answered, a line each.
const openFile = "open"

// leavesOpen writes that list.
func (a *Account) leavesOpen() {
	var lines []string
	for contact, c := range a.convs {
		if s := c.current(); s != nil {
			lines = append(lines, contact+"\t"+s.jid+"\n")
		}
	}
	if lines == nil || a.unmade.Load() {
		return
	}
	slices.Sort(lines)
	if err := keyring.Write(a.dir, openFile, []byte(strings.Join(lines, ""))); err != nil {
		a.events.Log(8, "the list of open conversations was not saved", keyring.Cause(err))
	}
}

// takeOpen reads the list, and removes it.
func takeOpen(dir string) (map[string]string, error) {
	b, err := keyring.Read(dir, openFile)
	if err != nil || b == nil {
		return nil, err
	}
	open := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if contact, full, ok := strings.Cut(strings.TrimRight(line, "\n"), "\t"); ok && len(open) < MaxConversations {
			open[contact] = full
		}
	}
	return open, os.Remove(filepath.Join(dir, openFile))
}

// Arrived tells that a client is there, and gets what is sent to it: who was private when the
// proxy was stopped is asked anew.
func (a *Account) Arrived(o Outlet) {
	a.mu.Lock()
	defer a.mu.Unlock()
	open := a.open
	a.open = nil
	now := a.now()
	for contact, full := range open {
		if policy := a.settings().Policy(contact); policy == Never || a.full(contact) {
			continue
		}
		c := a.conv(contact)
		c.outlet, c.wrote, c.anew = o, true, c.state != StateEncrypted
		c.askAnew(now, full)
		c.settle(now)
	}
}

// askAnew asks a contact whose conversation was private when the proxy was stopped: the program
// that it was with, or all of theirs.
func (c *conversation) askAnew(now time.Time, to string) {
	if !c.anew || c.a.key == nil || now.Sub(c.queried) < askInterval || !c.a.paces.ask().AllowN(now, 1) {
		return // where there are too many, the next presence or text asks
	}
	if to == "" {
		to = c.contact
	}
	if c.protocol(to, c.question(), false) {
		c.queried = now
		c.tries++
	}
}
