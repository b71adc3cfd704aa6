package relay

import (
	"time"

	"otrproxy/otrlayer"
	"otrproxy/proxy/filter"
	"otrproxy/stanza"
)

// A client that hands a message over and leaves at once, such as a command in a script, is let
// go; its session stays as long as the message waits for a private conversation, for
// limits.linger at most. What does not leave within that waits on in the account, and comes back
// to its other clients, or to the next one.

// linger stays for what waits, after the client has gone.
func (s *Session) linger() {
	within := s.r.config().Limits.Linger
	if within <= 0 || s.closing.Load() || s.ending.Load() || s.stranger.Load() != nil {
		return
	}
	done := s.Account().Leaves(s)
	if done == nil {
		return
	}
	enough := make(chan struct{})
	s.lingering.Store(&enough)
	s.gone.Store(true)
	s.r.log.Info("a client has gone, and its session stays for what waits", "account", s.r.log.Name(s.jid))
	s.client.Queue([]byte(stanza.StreamClose))
	s.client.Finish(lastWords, s.clientRead)
	// Nothing is to come here that the account's other clients, or the next one, should get (RFC
	// 6121 section 8.5.2.1). The contact must not see us go: its program would forget the
	// exchange that is under way.
	if s.attending.Swap(false) {
		s.server.Stanza(func(b []byte) []byte { return append(b, outOfTheWay...) })
		s.server.Kick()
	}
	timeout := time.NewTimer(within)
	defer timeout.Stop()
	select {
	case <-done:
	case <-enough:
	case <-timeout.C:
	case <-s.serverRead:
	case <-s.r.ctx.Done():
	}
}

const outOfTheWay = "<presence><priority>-1</priority></presence>"

// hasten ends the time for which a session lingers, and reports whether it did.
func (l *lifetime) hasten() bool {
	enough := l.lingering.Swap(nil)
	if enough != nil {
		close(*enough)
	}
	return enough != nil
}

// late reports whether a message has come for a client that has gone: anything but handshakes,
// and what programs tell each other. Where the server counts, it keeps that, and all that comes
// after it: nothing is counted any more. Where it does not, a contact is told.
func (s *Session) late(root stanza.Element) bool {
	if !s.gone.Load() || !isKept(root) || filter.Slight(root) {
		return false
	}
	if body := picked(root); body != nil && !otrlayer.Words(body.TextBytes()) {
		return false
	}
	if s.counts.Load() {
		s.sealed.Store(true)
		s.hasten()
		return true
	}
	if from := s.r.addresses.Of(root, "from"); s.unspeakable(root, from) || !s.isWelcome(from.Bare) {
		return true // nothing is answered to strangers
	}
	s.server.Stanza(func(b []byte) []byte {
		return stanza.AppendError(b, "message", "", root.Attr("from"), root.Attr("id"), stanza.Error{Type: "wait", Condition: "recipient-unavailable"})
	})
	s.server.Kick()
	return true
}
