package leg

import (
	"net"
	"strings"
	"testing"
	"time"
)

// said is a connection that hands each write on.
type said struct {
	net.Conn
	writes chan string
}

func (s said) Write(b []byte) (int, error) {
	s.writes <- string(b)
	return len(b), nil
}

func (said) SetWriteDeadline(time.Time) error { return nil }

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
func counting() (*Outbox, said) {
	conn := said{writes: make(chan string, 1000)}
	o := NewOutbox(conn, nil)
	o.Count("<enable/>", 0)
	o.Flush()
	<-conn.writes
	return o, conn
}

func sends(o *Outbox) {
	o.Message(Mark{}, func(b []byte) []byte { return append(b, "<message/>"...) })
	o.Flush()
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
			has := strings.HasSuffix(w, AskTaken)
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
		want := AskTaken
		if ending {
			o.Seal([]byte("</stream:stream>"))
			o.Flush()
			want += "</stream:stream>"
		}
		if got := conn.next(t); got != want {
			t.Errorf("at the end: %s, want %s", got, want)
		}
		if !o.Taken(run) || o.Pending() {
			t.Error("not all is taken")
		}
	}
}

// Whoever asks gets the latest number: at once, or with the next stanza, or a moment later; and
// at the end without asking, or it would send once more what has arrived.
func TestAnswerGoesWithTheNextStanza(t *testing.T) {
	o, conn := counting()
	o.Asks(1)
	o.Handed(1)
	if got := conn.next(t); got != "<a xmlns='"+NSAcks+"' h='1'/>" {
		t.Errorf("first: %s", got)
	}
	o.Asks(2)
	o.Handed(3)
	sends(o)
	if got := conn.next(t); got != "<message/><a xmlns='"+NSAcks+"' h='3'/>"+AskTaken {
		t.Errorf("with a stanza: %s", got)
	}
	o.Asks(4) // and nothing is said before it is so
	o.Handed(4)
	if got := conn.next(t); got != "<a xmlns='"+NSAcks+"' h='4'/>" {
		t.Errorf("later: %s", got)
	}
	o.Handed(5) // nobody has asked
	o.Seal([]byte("</stream:stream>"))
	o.Flush()
	if got := conn.next(t); got != "<a xmlns='"+NSAcks+"' h='5'/></stream:stream>" {
		t.Errorf("at the end: %s", got)
	}
}
