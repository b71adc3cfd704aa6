package state

import (
	"os"
	"testing"
	"time"

	"otrproxy/otrlayer/keyring"
)

// An account that is made while they are counted is counted once.
func TestAccountIsCountedOnce(t *testing.T) {
	state := t.TempDir()
	if err := os.MkdirAll(keyring.Dir(state, "alice@example.org"), 0o700); err != nil {
		t.Fatal(err)
	}
	before := time.Now().Add(-time.Hour) // when that was
	if err := os.Chtimes(keyring.AccountsDir(state), before, before); err != nil {
		t.Fatal(err)
	}
	var k Accounts
	counted := k.Count(state)
	k.More() // whoever made it says so
	k.until = time.Time{}
	if again := k.Count(state); counted != 1 || again != 1 {
		t.Errorf("%d, then %d accounts", counted, again)
	}
	if err := os.MkdirAll(keyring.Dir(state, "bob@example.org"), 0o700); err != nil {
		t.Fatal(err)
	}
	if list := k.At(state, "example.org"); len(list) != 2 {
		t.Errorf("there are %q", list)
	}
}
