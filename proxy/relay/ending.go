package relay

import (
	"errors"
	"io"
	"time"

	"otrproxy/otrlayer"
	"otrproxy/proxy/causes"
	"otrproxy/proxy/leg"
	"otrproxy/stanza"
)

// isOver gives back what has not arrived, once nobody reads either side any more.
func (s *Session) isOver() {
	s.pulse.still()
	account := s.part()
	s.settle()
	giveBack(account, s.client.Unsent(), func(k leg.Mark) otrlayer.Cause { return k.Cause }) // what the client was not told
	s.r.part(s)
	s.leaves()
	s.contacts.forget()
	s.r.Bell.Changed()
	s.r.Metrics.Ended(s.since)
	s.r.log.Info("session ends", "account", s.r.log.Name(s.jid))
}

// finally ends the session with f, unless it is being ended already, and returns once it
// has ended.
func (s *Session) finally(f func()) {
	if !s.ending.CompareAndSwap(false, true) {
		<-s.ended
		return
	}
	s.conclude(f)
}

func (s *Session) conclude(f func()) {
	defer close(s.ended)
	s.closing.Store(true)
	f()
}

// lastWords is how long a side gets to take what is queued for it at the end.
const lastWords = 5 * time.Second

// lastLook is how long the client gets to take what the server is then told to have arrived.
const lastLook = time.Second

// last ends the session: it queues the server's last words, lets the server take what is
// queued and gives back what it has not taken, and closes behind the client's last words,
// which toClient queues.
func (s *Session) last(toServer []byte, patience, lastWords time.Duration, toClient func()) {
	s.finally(s.parting(toServer, patience, lastWords, toClient))
}

func (s *Session) parting(toServer []byte, patience, lastWords time.Duration, toClient func()) func() {
	return func() {
		s.sealed.Store(true)
		s.server.Handed(s.client.Arrived(min(patience, lastLook)))
		s.server.Seal(toServer)
		s.client.Kick()
		s.finishServer(patience, lastWords)
		toClient()
		s.client.Finish(lastWords, s.clientRead)
	}
}

// end is last for most ends.
func (s *Session) end(toClient func()) {
	s.last([]byte(stanza.StreamClose), s.patience(), lastWords, toClient)
}

// endBeside is end with a stream error to the client, for who reads the server, and must go on
// with that. What is read next does not come before it: that is often the end of the server's
// stream.
func (s *Session) endBeside(condition, text string) {
	s.closing.Store(true)
	if s.ending.CompareAndSwap(false, true) {
		go s.conclude(s.parting([]byte(stanza.StreamClose), s.patience(), lastWords, func() {
			s.client.Build(func(b []byte) []byte { return stanza.AppendStreamError(b, condition, text) })
		}))
	}
}

// patience is how long the server gets. Where the client has gone, nobody waits for it
// but what is still on its way.
func (s *Session) patience() time.Duration {
	if s.Pending() {
		return lastAcks
	}
	return lastWords
}

// lastAcks is how long a server that counts gets to take a person's messages at the end.
const lastAcks = 25 * time.Second

// finishServer lets the server take what is queued, closes, and knows then what it has
// taken. What it has not is given back to the client, which has lastWords for that.
func (s *Session) finishServer(within, lastWords time.Duration) {
	s.client.Hurry(within) // a client that does not read must not hold up who reads the server
	s.server.Finish(within, s.serverRead)
	<-s.serverRead
	s.client.Hurry(lastWords) // a server that has used all of its time has used the client's as well
	s.settle()
}

// shutdown tells the client that the proxy stops.
func (s *Session) shutdown(within time.Duration) {
	s.last([]byte(stanza.StreamClose), within, within, func() {
		s.client.Build(func(b []byte) []byte {
			return stanza.AppendStreamError(b, "system-shutdown", "otrproxy is being stopped.")
		})
	})
}

// A streamFault ends the session with a stream error to the client.
type streamFault struct{ condition, text string }

func (f *streamFault) Error() string { return f.text }

func (s *Session) clientGone(err error) {
	var se *stanza.SyntaxError
	if errors.As(err, &se) {
		s.clientError(&streamFault{se.Condition, "otrproxy: the client sent " + se.Reason + "."})
		return
	}
	s.linger()
	s.end(func() {})
}

func (s *Session) clientError(err error) {
	var f *streamFault
	if !errors.As(err, &f) {
		f = &streamFault{"internal-server-error", err.Error()}
	}
	s.r.log.Warn("a session was ended for what its client sent", "account", s.r.log.Name(s.jid), "condition", f.condition)
	s.end(func() {
		s.client.Build(func(b []byte) []byte { return stanza.AppendStreamError(b, f.condition, f.text) })
	})
}

func (s *Session) serverGone(err error) {
	if s.ending.Load() {
		<-s.ended
		return
	}
	var se *stanza.SyntaxError
	cause, text := causes.FailLost, "The connection to the server was lost."
	switch {
	case s.silent.Load():
		cause, text = causes.FailSilent, "The server has given no sign of life for "+s.answerWithin().String()+", so the connection was given up."
	case errors.As(err, &se):
		cause, text = causes.FailProtocol, "The server sent something that is not XMPP: "+se.Reason+"."
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		text = "The connection to the server was lost: " + causes.Short(err) + "."
	}
	s.r.Metrics.UpstreamFailed(cause)
	s.r.log.Warn("the connection to a server was lost", "account", s.r.log.Name(s.jid), "cause", cause)
	s.closing.Store(true) // what the client still hands over is refused
	s.server.Conn.Close() // and a write that hangs ends
	s.server.Halt()
	s.end(func() {
		s.client.Build(func(b []byte) []byte { return stanza.AppendStreamError(b, cause.Condition(), text) })
	})
}
