package relay

import (
	"bytes"
	"testing"

	"otrproxy/config"
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
