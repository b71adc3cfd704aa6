package otrlayer

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"otrproxy/otrlayer/keyring"
	"otrproxy/otrlayer/otr"
)

// Where the rules want no OTR, no key is made before something needs one.
func TestNoKeyUnderNever(t *testing.T) {
	state := t.TempDir()
	off := true
	policy := Never
	k, err := testKey("alice@x")
	if err != nil {
		t.Fatal(err)
	}
	spare, err := otr.AppendKey(nil, "spare", "none", k)
	if err = errors.Join(err, os.WriteFile(filepath.Join(state, keyring.SpareFile), spare, 0o600)); err != nil {
		t.Fatal(err)
	}
	maker := keyring.NewMaker(state, nil, nil)
	t.Cleanup(maker.Close)
	alice := &person{t: t, events: &noEvents{}, hold: Hold{100, 1 << 20, time.Minute, time.Minute}, event: make(chan struct{}, 100)}
	a, err := Open(state, "alice@x", func() Settings {
		return Settings{Policy: func(string) Policy { return policy }, Hold: alice.hold, HandsOff: func() bool { return off }}
	}, alice.events, nil, maker)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	alice.a = a
	a.Attach(alice)
	a.Prepare()
	a.Send(alice, Message{Contact: "bob@y", To: "bob@y", ID: "1", Text: "hello"}, Rule{Policy: policy})
	a.Receive(alice, Incoming{From: "bob@y/r", Contact: "bob@y", Text: "?OTRv3?", Welcome: true})
	<-a.Ready()
	if _, ok := a.Fingerprint(); ok {
		t.Fatal("a key was made")
	}
	off, policy = false, Require // the rules have changed
	a.Send(alice, Message{Contact: "bob@y", To: "bob@y", ID: "2", Text: "hello"}, Rule{Policy: policy})
	<-a.Ready()
	n := len(alice.take())
	if _, ok := a.Fingerprint(); !ok || n != 2 { // the first text, and what asks
		t.Errorf("a key: %v, %v", ok, n)
	}
}
