package proxy

import (
	"net"
	"strings"
	"testing"
	"time"

	"otrproxy/stanza"
)

// said is a connection that hands each write on.
type said struct {
	nowhere
	writes chan string
}

func (s said) Write(b []byte) (int, error) {
	s.writes <- string(b)
	return len(b), nil
}

func (s said) next(t *testing.T) string {
	t.Helper()
	select {
	case w := <-s.writes:
		return w
	case <-time.After(20 * askEvery):
		t.Fatal("nothing was written")
	}
	return ""
}

// counting is a leg that counts.
func counting() (*outbox, said) {
	conn := said{writes: make(chan string, 1000)}
	o := newOutbox(conn, nil)
	o.count(askCounting, 0)
	o.flush()
	<-conn.writes
	return o, conn
}

func sends(o *outbox) {
	o.message(mark{}, func(b []byte) []byte { return append(b, "<message/>"...) })
	o.flush()
}

// The first message asks what was taken; of a run that follows few do, and the last is asked
// about as well, before anything ends.
func TestRunAsksSeldomAndToItsEnd(t *testing.T) {
	const run = 2*maxUnasked + maxUnasked/2
	for _, ending := range []bool{false, true} {
		o, conn := counting()
		for range run {
			sends(o)
		}
		asked := 0
		for i := range run {
			w := conn.next(t)
			if !strings.HasPrefix(w, "<message/>") {
				t.Fatalf("write %d: %s", i, w)
			}
			has := strings.HasSuffix(w, askTaken)
			if i == 0 && !has {
				t.Error("the first message does not ask")
			}
			if has {
				asked++
			}
		}
		if asked < 3 || asked > 3+run/10 { // a slow machine takes seconds
			t.Errorf("%d of %d writes ask", asked, run)
		}
		want := askTaken
		if ending {
			o.seal([]byte("</stream:stream>"))
			o.flush()
			want += "</stream:stream>"
		}
		if got := conn.next(t); got != want {
			t.Errorf("at the end: %s, want %s", got, want)
		}
		if !o.taken(run) || o.pending() {
			t.Error("not all is taken")
		}
	}
}

// Whoever asks gets the latest number: at once, or with the next stanza, or a moment later; and
// at the end without asking, or it would send once more what has arrived.
func TestAnswerGoesWithTheNextStanza(t *testing.T) {
	o, conn := counting()
	o.asks(1)
	o.handed(1)
	if got := conn.next(t); got != "<a xmlns='"+nsSM+"' h='1'/>" {
		t.Errorf("first: %s", got)
	}
	o.asks(2)
	o.handed(3)
	sends(o)
	if got := conn.next(t); got != "<message/><a xmlns='"+nsSM+"' h='3'/>"+askTaken {
		t.Errorf("with a stanza: %s", got)
	}
	o.asks(4) // and nothing is said before it is so
	o.handed(4)
	if got := conn.next(t); got != "<a xmlns='"+nsSM+"' h='4'/>" {
		t.Errorf("later: %s", got)
	}
	o.handed(5) // nobody has asked
	o.seal([]byte("</stream:stream>"))
	o.flush()
	if got := conn.next(t); got != "<a xmlns='"+nsSM+"' h='5'/></stream:stream>" {
		t.Errorf("at the end: %s", got)
	}
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
func linked(t *testing.T, client net.Conn) (*session, said) {
	s := lone(t, never)
	conn := said{writes: make(chan string, 100)}
	s.client, s.server = newOutbox(client, nil), newOutbox(conn, nil)
	s.client.passed, s.client.arrives = &s.handled, s.server.handed
	s.counts.Store(true)
	s.server.count(askCounting, 0)
	s.server.flush()
	<-conn.writes
	return s, conn
}

// gets has the server send a stanza, and what it has led to be queued for the client.
func (s *session) gets(queued string) {
	if queued != "" {
		s.client.queue([]byte(queued))
	}
	s.handle()
}

func answer(h string) string { return "<a xmlns='" + nsSM + "' h='" + h + "'/>" }

// What a client takes later than it was asked about is told once it has taken it, and not
// before.
func TestAnswerWaitsForTheClient(t *testing.T) {
	client := slow{began: make(chan struct{}), let: make(chan struct{})}
	s, conn := linked(t, client)
	s.client.queue([]byte("<notice/>"))
	s.client.kick() // by somebody else
	<-client.began
	s.gets("<message/>")
	s.server.asks(s.handled.Load())
	s.client.flush()
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
	s.server.asks(s.handled.Load())
	s.client.flush()
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
	s.server.message(mark{}, func(b []byte) []byte { return append(b, "<message/>"...) })
	s.server.flush()
	s.gets("<message/>")
	s.client.flush()
	s.settle()
	old := s.r.takeSuspended(s.jid, wanted)
	if old == nil || old.handled != 0 {
		t.Errorf("it would go on with %+v", old)
	}
}

type broken struct{ nowhere }

func (broken) Write([]byte) (int, error) { return 0, errHalted }

// At the end the server is told of all that the client has got, and gives it no message that
// could not be counted any more.
func TestEndTellsWhatHasArrived(t *testing.T) {
	client := said{writes: make(chan string, 100)}
	s, conn := linked(t, client)
	s.over, s.ended = make(chan struct{}), make(chan struct{})
	s.clientRead, s.serverRead = make(chan struct{}), make(chan struct{})
	close(s.serverRead)
	close(s.clientRead)
	s.gets("<message id='1'/>") // and more of the same read is to come
	s.up = &upstream{}
	s.parting([]byte("</stream:stream>"), time.Minute, time.Minute, func() {})()
	if got := conn.next(t); got != answer("1")+"</stream:stream>" {
		t.Errorf("the server is told %s", got)
	}
	late, err := stanza.Parse([]byte("<message xmlns='jabber:client' from='bob@path.example/x' type='chat'><body>late</body></message>"))
	if err != nil {
		t.Fatal(err)
	}
	s.incoming(late)
	s.client.flush()
	var shown strings.Builder
	for len(client.writes) > 0 {
		shown.WriteString(<-client.writes)
	}
	if !strings.Contains(shown.String(), "id='1'") || strings.Contains(shown.String(), "late") || s.handled.Load() != 1 {
		t.Errorf("the client got %s", shown.String())
	}
}
