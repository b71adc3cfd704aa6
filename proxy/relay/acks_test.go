package relay

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"otrproxy/proxy/leg"
	"otrproxy/proxy/upstream"
	"otrproxy/stanza"
)

// told is a connection that hands each write on.
type told struct {
	nowhere
	writes chan string
}

func (s told) Write(b []byte) (int, error) {
	s.writes <- string(b)
	return len(b), nil
}

func (s told) next(t *testing.T) string {
	t.Helper()
	select {
	case w := <-s.writes:
		return w
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was written")
	}
	return ""
}

// slow is a connection whose writes wait until they are let.
type slow struct {
	nowhere
	began, let chan struct{}
}

func (s slow) Write(b []byte) (int, error) {
	s.began <- struct{}{}
	<-s.let
	return len(b), nil
}

// linked is a session whose server counts, with legs of these connections.
func linked(t *testing.T, client net.Conn) (*Session, told) {
	s := lone(t, never)
	conn := told{writes: make(chan string, 100)}
	s.client, s.server = leg.NewOutbox(client, nil), leg.NewOutbox(conn, nil)
	s.client.Passed, s.client.Arrives = &s.handled, s.server.Handed
	s.counts.Store(true)
	s.server.Count(askCounting, 0)
	s.server.Flush()
	<-conn.writes
	return s, conn
}

// gets has the server send a stanza, and what it has led to be queued for the client.
func (s *Session) gets(queued string) {
	if queued != "" {
		s.client.Queue([]byte(queued))
	}
	s.handle()
}

func answer(h string) string { return "<a xmlns='" + leg.NSAcks + "' h='" + h + "'/>" }

// What a client takes later than it was asked about is told once it has taken it, and not
// before.
func TestAnswerWaitsForTheClient(t *testing.T) {
	client := slow{began: make(chan struct{}), let: make(chan struct{})}
	s, conn := linked(t, client)
	s.client.Queue([]byte("<notice/>"))
	s.client.Kick() // by somebody else
	<-client.began
	s.gets("<message/>")
	s.server.Asks(s.handled.Load())
	s.client.Flush()
	select {
	case w := <-conn.writes:
		t.Errorf("said too early: %s", w)
	default:
	}
	client.let <- struct{}{}
	<-client.began
	client.let <- struct{}{}
	if got := conn.next(t); got != answer("1") {
		t.Errorf("the server is told %s", got)
	}
	s.gets("") // which led to nothing
	s.server.Asks(s.handled.Load())
	s.client.Flush()
	if got := conn.next(t); got != answer("2") {
		t.Errorf("of what led to nothing: %s", got)
	}
}

// What a client that breaks has not taken is not counted: it comes again.
func TestBrokenClientGetsItAgain(t *testing.T) {
	s, _ := linked(t, broken{})
	s.over, s.ended = make(chan struct{}), make(chan struct{})
	wanted := "desk"
	s.wanted.Store(&wanted)
	s.id, s.within = "ID", time.Minute
	s.server.Message(leg.Mark{}, func(b []byte) []byte { return append(b, "<message/>"...) })
	s.server.Flush()
	s.gets("<message/>")
	s.client.Flush()
	s.settle()
	old := s.r.takeSuspended(s.jid, wanted)
	if old == nil || old.handled != 0 {
		t.Errorf("it would go on with %+v", old)
	}
}

type broken struct{ nowhere }

func (broken) Write([]byte) (int, error) { return 0, errors.New("broken") }

// At the end the server is told of all that the client has got, and gives it no message that
// could not be counted any more.
func TestEndTellsWhatHasArrived(t *testing.T) {
	client := told{writes: make(chan string, 100)}
	s, conn := linked(t, client)
	s.over, s.ended = make(chan struct{}), make(chan struct{})
	s.clientRead, s.serverRead = make(chan struct{}), make(chan struct{})
	close(s.serverRead)
	close(s.clientRead)
	s.gets("<message id='1'/>") // and more of the same read is to come
	s.up = &upstream.Leg{}
	s.parting([]byte("</stream:stream>"), time.Minute, time.Minute, func() {})()
	if got := conn.next(t); got != answer("1")+"</stream:stream>" {
		t.Errorf("the server is told %s", got)
	}
	late, err := stanza.Parse([]byte("<message xmlns='jabber:client' from='bob@path.example/x' type='chat'><body>late</body></message>"))
	if err != nil {
		t.Fatal(err)
	}
	s.incoming(late)
	s.client.Flush()
	var shown strings.Builder
	for len(client.writes) > 0 {
		shown.WriteString(<-client.writes)
	}
	if !strings.Contains(shown.String(), "id='1'") || strings.Contains(shown.String(), "late") || s.handled.Load() != 1 {
		t.Errorf("the client got %s", shown.String())
	}
}
