package relay

import (
	"strings"
	"sync"
	"sync/atomic"

	"otrproxy/otrlayer"
	"otrproxy/proxy/address"
	"otrproxy/proxy/filter"
	"otrproxy/proxy/leg"
	"otrproxy/stanza"
)

// All clients of an account share its conversations: what is opened or sent by one is
// shown by the others, as their server would have done it with text in clear (XEP-0280).
// For that we know of a client whether it wants carbons, and whether it is there.

// wantsCarbons notes a client's request for carbons, or for none any more; the server's
// answer settles it.
func (p *program) wantsCarbons(root stanza.Element) {
	for _, word := range []string{"enable", "disable"} {
		if _, ok := root.Child(nsCarbons, word); ok {
			p.mu.Lock()
			p.carbonsAsked, p.carbonsWanted = root.Attr("id"), word == "enable"
			p.mu.Unlock()
		}
	}
}

// carbonsSettled notes the server's answer.
func (p *program) carbonsSettled(root stanza.Element) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.carbonsAsked == "" || root.Attr("id") != p.carbonsAsked {
		return
	}
	if root.Attr("type") == "result" {
		p.carbons.Store(p.carbonsWanted)
	}
	p.carbonsAsked = ""
}

// attends notes whether the client gets what is addressed to the account (RFC 6121 section
// 8.5.2.1): it is available, and not with a negative priority.
func (p *program) attends(root stanza.Element) {
	switch root.Attr("type") {
	case "unavailable":
		p.attending.Store(false)
	case "":
		_, priority := presenting(root)
		p.attending.Store(priority >= 0)
	}
}

// A turn keeps the order of what a client is shown. Its session has a text read, and then queues
// it for the client. In between, another session may have the next text read, and mirror it here.
type turn struct {
	mine atomic.Bool // the session is about to queue a text; set with the account locked

	mu    sync.Mutex // also held while mine changes
	after [][]byte   // stanzas that are queued after that text
}

// Shows begins the session's turn.
func (s *Session) Shows() {
	s.turn.mu.Lock()
	defer s.turn.mu.Unlock()
	s.turn.mine.Store(true)
}

// shown ends it. The goroutine that reads the server calls it after each stanza.
func (s *Session) shown() {
	if !s.turn.mine.Load() {
		return
	}
	s.turn.mu.Lock()
	defer s.turn.mu.Unlock()
	for _, b := range s.turn.after {
		s.client.Queue(b)
	}
	s.turn.after = nil
	s.turn.mine.Store(false)
}

// takes queues what is mirrored: at once, or after the text that the session is about to queue.
// It reports false where the client takes nothing more.
func (t *turn) takes(client *leg.Outbox, show stanza.Message) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mine.Load() {
		t.after = append(t.after, show.AppendTo(nil))
		return true
	}
	if !client.Build(show.AppendTo) {
		return false
	}
	client.Kick()
	return true
}

// Mirror shows what another client of the account has sent or got. What was addressed to
// the account or this client stands as if the server had brought it; the rest is a carbon. A
// client that the server brings a copy of its own gets that, with what stands beside it.
func (s *Session) Mirror(m otrlayer.Mirrored) otrlayer.Mirroring {
	full := s.full()
	if s.closing.Load() || full == s.jid {
		return otrlayer.Unwanted
	}
	carbons := s.carbons.Load()
	show := stanza.Message{From: m.From, To: full, ID: m.ID, Type: filter.SafeType(m.Type), Body: m.Text}
	switch direct := !m.Sent && (m.To == full || !strings.Contains(m.To, "/")); {
	case m.Sent && !carbons:
		return otrlayer.Unwanted
	case !m.Late && (m.To == full || m.Copied && carbons):
		return otrlayer.Coming
	case !direct && carbons:
		show = s.carbon(m)
	case m.To != full && !s.attending.Load():
		return otrlayer.Unwanted
	}
	if !s.turn.takes(s.client, show) {
		return otrlayer.Unwanted
	}
	return otrlayer.Seen
}

// carbon wraps a text as the server's carbons are (XEP-0280 sections 6 and 7).
func (s *Session) carbon(m otrlayer.Mirrored) stanza.Message {
	what := "received"
	if m.Sent {
		what = "sent"
		if by, ok := m.By.(*Session); ok {
			m.From = by.full()
		}
	}
	extra := []byte("<" + what + " xmlns='" + nsCarbons + "'><forwarded xmlns='" + nsForward + "'>")
	extra = stanza.Message{Within: true, From: m.From, To: m.To, ID: m.ID, Type: filter.SafeType(m.Type), Body: m.Text}.AppendTo(extra)
	extra = append(extra, "</forwarded></"+what+">"...)
	return stanza.Message{From: s.jid, To: s.full(), Type: filter.SafeType(m.Type), Extra: extra}
}

// ownCopy reports whether a carbon is of what another client here has sent encrypted: that
// one was shown already, and a server that makes one all the same knows the ciphertext only.
func (s *Session) ownCopy(sender address.JID) bool {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	for x := range s.r.sessions.of[s.jid] {
		if x != s && x.full() == sender.Full {
			return true
		}
	}
	return false
}
