package server

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"otrproxy/stanza"
)

const nsSM = "urn:xmpp:sm:3"

// counted is what a session counts (XEP-0198).
type counted struct {
	id       string
	received atomic.Uint32 // stanzas of the client's

	mu        sync.Mutex
	confirmed uint32   // stanzas that the client has said it has
	kept      [][]byte // those behind them
	away      bool     // the connection is gone
	asked     bool     // and has not answered: one question at a time, as servers do
}

const askTaken = "<r xmlns='" + nsSM + "'/>"

// keep keeps a stanza; it reports whether there is a connection to send it on, and whether to
// ask for an answer.
func (c *counted) keep(b []byte) (sends, asks bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = append(c.kept, append([]byte(nil), b...))
	asks = !c.away && !c.asked
	c.asked = c.asked || asks
	return !c.away, asks
}

func (c *counted) lost() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = true
}

// confirm notes what the client has; it reports whether to ask again, for the rest.
func (c *counted) confirm(h uint32) (asks bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := h - c.confirmed; n <= uint32(len(c.kept)) {
		c.kept, c.confirmed = c.kept[n:], h
	}
	c.asked = len(c.kept) > 0
	return c.asked
}

// unconfirmed is what a client may not have got, of what is worth keeping.
func (c *counted) unconfirmed() (out [][]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.kept {
		if st, err := stanza.Parse(b); err == nil && st.Is(stanza.NSClient, "message") && st.Root().Attr("type") != "error" {
			if _, ok := st.Root().Child("urn:xmpp:hints", "no-store"); !ok {
				e := st.Edit()
				e.Append(st.Root(), delay(time.Now()))
				out = append(out, e.AppendTo(nil))
			}
		}
	}
	return out
}

// delay says when a message was stored (XEP-0203).
func delay(t time.Time) []byte {
	return []byte("<delay xmlns='urn:xmpp:delay' stamp='" + t.UTC().Format(time.RFC3339) + "'/>")
}

// count handles what a client says about counting.
func (x *session) count(root stanza.Element) {
	s := x.s
	h, _ := strconv.ParseUint(root.Attr("h"), 10, 32)
	switch string(root.Local()) {
	case "enable":
		if x.faults.NoCounting {
			return
		}
		s.mu.Lock()
		s.resumable++
		sm := &counted{id: fmt.Sprintf("resume-%d", s.resumable)}
		s.mu.Unlock()
		s.mu.Lock()
		x.outMu.Lock()
		x.sm = sm
		x.conn.Write([]byte("<enabled xmlns='" + nsSM + "' id='" + sm.id + "' resume='true' max='600'/>"))
		x.outMu.Unlock()
		s.mu.Unlock()
	case "r":
		if x.sm != nil && !x.faults.Unconfirmed {
			x.write([]byte("<a xmlns='" + nsSM + "' h='" + strconv.FormatUint(uint64(x.sm.received.Load()), 10) + "'/>"))
		}
	case "a":
		if x.sm != nil && x.sm.confirm(uint32(h)) {
			x.write([]byte(askTaken))
		}
	case "resume":
		x.resume(root.Attr("previd"), uint32(h))
	}
}

// resume goes on with a session that has lost its connection, or is about to.
func (x *session) resume(id string, h uint32) {
	s := x.s
	var old *session
	s.mu.Lock()
	for y := range s.sessions {
		if y.user == x.user && y.sm != nil && y.sm.id == id {
			old = y
		}
	}
	s.mu.Unlock()
	if old != nil { // what it has received counts
		old.conn.Close()
		<-old.done
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old == nil || x.faults.Forgetful {
		if old != nil {
			s.over(old)
		}
		x.write([]byte("<failed xmlns='" + nsSM + "'><item-not-found xmlns='" + stanza.NSStanzas + "'/></failed>"))
		return
	}
	delete(s.sessions, old)
	s.sessions[x] = true
	x.outMu.Lock()
	defer x.outMu.Unlock()
	x.resource, x.present, x.sm = old.resource, old.present, old.sm
	x.sm.confirm(h)
	b := []byte("<resumed xmlns='" + nsSM + "' previd='" + id + "' h='" + strconv.FormatUint(uint64(x.sm.received.Load()), 10) + "'/>")
	x.sm.mu.Lock()
	x.sm.away = false
	for _, kept := range x.sm.kept {
		b = append(b, kept...)
	}
	if x.sm.asked = len(x.sm.kept) > 0; x.sm.asked {
		b = append(b, askTaken...)
	}
	x.sm.mu.Unlock()
	x.conn.Write(b)
	s.changed.Broadcast()
}
