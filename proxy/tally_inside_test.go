package proxy

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
func counting() (*outbox, said) {
	conn := said{writes: make(chan string, 1000)}
	o := newOutbox(conn, nil)
	o.count("<enable/>", 0)
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
