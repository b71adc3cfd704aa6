package proxy_test

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/test/need"
)

// Another user of this machine guesses for themselves: what they have tried counts against
// nobody else, and nobody else waits for it.
func TestGuessesOfAnotherUserHoldNobodyUp(t *testing.T) {
	if os.Geteuid() != 0 {
		need.Missing(t, "root, to be two users")
	}
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	try := func(user int, password string) string {
		cfg := b.config("alice", client.Plain)
		cfg.Password = password
		cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			runtime.LockOSThread() // a socket is the user's whom its thread is
			defer runtime.UnlockOSThread()
			syscall.Setfsuid(user)
			defer syscall.Setfsuid(0)
			return (&net.Dialer{}).DialContext(ctx, "tcp4", addr)
		}
		c, err := client.Dial(t.Context(), cfg)
		var le *client.LoginError
		if errors.As(err, &le) {
			return le.Condition
		} else if err != nil {
			t.Fatal(err)
		}
		c.Drop()
		return "in"
	}
	for i := range 6 {
		want := map[bool]string{true: "not-authorized", false: "temporary-auth-failure"}[i < 4]
		if got := try(65533, "guess"); got != want {
			t.Errorf("guess %d: %s", i, got)
		}
	}
	if got := try(0, "guess"); got != "not-authorized" { // hers is looked at
		t.Errorf("somebody else's try: %s", got)
	}
	if got := try(0, users()["alice"]); got != "in" {
		t.Errorf("alice: %s", got)
	}
}
