package relay

import (
	"bytes"
	"testing"

	"otrproxy/config"
	"otrproxy/otrlayer"
	"otrproxy/proxy/leg"
	"otrproxy/stanza"
)

// heard is a connection that keeps what is written to it.
type heard struct {
	nowhere
	got bytes.Buffer
}

func (h *heard) Write(b []byte) (int, error) { return h.got.Write(b) }

// While the proxy stops, the account is closed before the session ends. What does not leave any
// more comes back with that reason, and not as if encryption were demanded.
func TestClosedAccountSaysSo(t *testing.T) {
	s := lone(t, config.Rule{Policy: config.Manual})
	var program heard
	s.client = leg.NewOutbox(&program, nil)
	s.Account().Close()
	st, err := stanza.Parse([]byte("<message xmlns='jabber:client' to='bob@path.example' id='f1' type='chat'><x xmlns='jabber:x:oob'><url>https://h.example/pic</url></x></message>"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.outgoing(st); err != nil {
		t.Fatal(err)
	}
	s.client.Flush()
	s.client.Wait()
	if got := program.got.Bytes(); !bytes.Contains(got, []byte("id='f1'")) || !bytes.Contains(got, []byte("<error type='wait'>")) || bytes.Contains(got, []byte("policy-violation")) {
		t.Errorf("it comes back as %s", got)
	}
}

// A message whose first sending and whose second the server has not taken comes back once.
func TestSentTwiceComesBackOnce(t *testing.T) {
	s := lone(t, requires)
	var program heard
	s.client = leg.NewOutbox(&program, nil)
	first := otrlayer.Slip{Contact: "bob@path.example", To: "bob@path.example", ID: "m1", Text: "one"}
	again, other, next := first, first, first
	again.Again = true
	other.ID = "m2"
	next.Text = "two" // of a client that gives an id twice
	giveBack(s.Account(), []leg.Mark{{Slip: first}, {Slip: other}, {Slip: again}, {Slip: next}}, func(leg.Mark) otrlayer.Cause { return otrlayer.CauseUncertain })
	s.client.Flush()
	s.client.Wait()
	if got := program.got.Bytes(); bytes.Count(got, []byte(">one<")) != 2 || bytes.Count(got, []byte("id='m2'")) != 1 || bytes.Count(got, []byte(">two<")) != 1 {
		t.Errorf("the client gets %s", got)
	}
}
