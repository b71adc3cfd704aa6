package otrlayer

import (
	"testing"

	"otrproxy/otrlayer/keyring"
)

// Under rules that let text leave in clear nobody is told of a private conversation before a
// crash could no longer take that it was one.
func TestPrivateIsSaidOnceItIsOnDisk(t *testing.T) {
	alice, bob := couple(t)
	alice.policy, bob.policy = Manual, Manual
	begun := func() bool { return alice.noticed("Private conversation with bob@y started") }
	alice.a.Start(alice, "bob@y")
	writing := make(chan struct{})
	resume := alice.a.store.Pause()
	carry(alice, bob)
	if alice.a.Conversation("bob@y").State != StateEncrypted || begun() {
		t.Error("said before")
	}
	go func() { resume(); close(writing) }()
	err := alice.a.Saved()
	<-writing
	if err != nil || !begun() {
		t.Errorf("%v, not said: %q", err, alice.notices)
	}
	if private, err := keyring.LoadPrivate(alice.a.dir); err != nil || !private.Of["bob@y"] {
		t.Error("not on disk", err)
	}
}
