package proxy_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/proxy"
	"otrproxy/stanza"
)

// refusedWith is the sentence a client is sent away with.
func refusedWith(t *testing.T, err error) string {
	t.Helper()
	var se *client.StreamError
	var le *client.LoginError
	switch {
	case errors.As(err, &se):
		return se.Text
	case errors.As(err, &le):
		return le.Text
	case err == nil:
		return "let in"
	}
	return err.Error()
}

func (b *box) enters(user, resource string) (*client.Client, error) {
	cfg := b.config(user, client.Plain)
	cfg.Resource = resource
	c, err := client.Dial(b.t.Context(), cfg)
	if err == nil {
		b.t.Cleanup(c.Drop)
	}
	return c, err
}

// Connections without a login push out each other, and nobody who has logged in or does.
func TestFloodOfConnections(t *testing.T) {
	t.Parallel()
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "limits: {pending: 10}\notr: [{policy: never}]\n")
	alice, bob := b.login("alice", client.Plain), b.login("bob", client.Direct)
	arrived(t, bob)
	const flood = 1000
	conns := make([]net.Conn, 0, flood)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for i := range flood {
		c, err := net.Dial("tcp", b.addr)
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			io.WriteString(c, "\x16\x03\x01") // the beginning of TLS, which never goes on
		}
		conns = append(conns, c)
		if i%100 == 0 {
			alice.Say("bob@"+domain, "", fmt.Sprint("still here ", i))
			text(t, bob, "alice@"+domain, fmt.Sprint("still here ", i))
		}
	}
	if _, err := b.enters("carol", "c"); err != nil {
		t.Errorf("a newcomer is kept out: %v", err)
	}
	if got := metric(b, `otrproxy_refused_total{cause="pending"}`); got != fmt.Sprint(flood-10) && got != fmt.Sprint(flood-9) {
		t.Errorf("%s were pushed out", got)
	}
	if got := metric(b, "otrproxy_sessions"); got != "3" {
		t.Errorf("%s sessions", got)
	}
	if n := strings.Count(b.log.String(), "a client was refused"); n > 200 {
		t.Errorf("%d lines in the log", n)
	}
}

// One other machine has its share of places, and of arrivals; this one has no limit.
func TestPlacesByAddress(t *testing.T) {
	t.Parallel()
	s := startServer(t, server.Config{})
	dir := stateDir(t)
	b := startWith(t, dir, configFor(s, dir)+"limits: {per_address: 3}\n", proxy.Options{Listen: func(network, addr string) (net.Listener, error) {
		l, err := net.Listen(network, addr)
		return elsewhereListener{l}, err
	}})
	for i := range 5 {
		cfg := b.config("alice", client.Direct)
		cfg.Resource = fmt.Sprint("r", i)
		c, err := client.Dial(t.Context(), cfg)
		if (err == nil) != (i < 3) {
			t.Errorf("%d: %v", i, err)
		}
		if err == nil {
			defer c.Drop()
		}
	}
	if got := metric(b, `otrproxy_refused_total{cause="address"}`); got != "2" {
		t.Errorf("%s refused", got)
	}
	for range 200 {
		if c, err := net.Dial("tcp", b.addr); err == nil {
			c.Close()
		}
	}
	// Whoever comes next is behind all of them in the queue of the listener.
	if c, err := client.Dial(t.Context(), b.config("alice", client.Direct)); err == nil {
		c.Drop()
	}
	if got := metric(b, `otrproxy_refused_total{cause="arrivals"}`); got == "0" || got == "absent" {
		t.Errorf("%s came too fast", got)
	}
}

// An account has its share of sessions, and is told so.
func TestSessionsOfAnAccount(t *testing.T) {
	t.Parallel()
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "limits: {per_account: 2}\n")
	for i := range 2 {
		if _, err := b.enters("alice", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := b.enters("alice", "one too many")
	if got := refusedWith(t, err); !strings.Contains(got, "limits.per_account") {
		t.Errorf("alice was told %q", got)
	}
	if _, err := b.enters("bob", "r"); err != nil {
		t.Errorf("bob: %v", err)
	}
}

// Wrong passwords are not tried at the server without end: the same one no second time, others
// one by one. Whoever has the right one waits for a turn, and gets in.
func TestGuessing(t *testing.T) {
	t.Parallel()
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	try := func(password string) error {
		cfg := b.config("alice", client.Plain)
		cfg.Password = password
		c, err := client.Dial(t.Context(), cfg)
		if err == nil {
			c.Drop()
		}
		return err
	}
	for i := range 8 {
		err := try(fmt.Sprint("guess ", i%5))
		var le *client.LoginError
		if !errors.As(err, &le) || (le.Condition == "not-authorized") != (i < 5) {
			t.Errorf("guess %d: %v", i, err)
		}
	}
	if got := metric(b, `otrproxy_refused_total{cause="logins"}`); got != "3" {
		t.Errorf("%s refused", got)
	}
	if err := try(users()["alice"]); err != nil {
		t.Errorf("alice is locked out: %v", err)
	}
	if _, err := b.enters("bob", "r"); err != nil {
		t.Errorf("bob cannot log in from there: %v", err)
	}
}

// Who may use the proxy is said by account and address, with the reason for who may not.
func TestAccess(t *testing.T) {
	t.Parallel()
	s := startServer(t, server.Config{})
	const rules = `access:
  - {account: "carol@example.org", refuse: "ask your mother"}
  - {account: "bob@*", from: [192.168.1.0/24, 10.0.0.7]}
  - {account: "alice@example.org", from: [127.0.0.0/8, "::1"]}
`
	b := startProxy(t, s, rules)
	for user, want := range map[string]string{"alice": "let in", "bob": "list", "carol": "ask your mother"} {
		_, err := b.enters(user, "r")
		if got := refusedWith(t, err); !strings.Contains(got, want) {
			t.Errorf("%s was told %q, not %q", user, got, want)
		}
	}
	if strings.Contains(string(s.Received()), "carol") {
		t.Error("the server heard of carol")
	}
	if got := metric(b, `otrproxy_refused_total{cause="access"}`); got != "2" {
		t.Errorf("%s refused", got)
	}
}

// A client that floods waits; the others do not, and nothing of its own is lost.
func TestFloodOfStanzas(t *testing.T) {
	t.Parallel()
	s := startServer(t, server.Config{Forget: true})
	b := startProxy(t, s, "limits: {rate: 50}\notr: [{policy: never}]\n")
	alice, bob, carol := b.login("alice", client.Plain), b.login("bob", client.Plain), b.login("carol", client.Plain)
	arrived(t, bob)
	const flood = 1200 // 1000 at once
	done := make(chan error, 1)
	go func() {
		for i := range flood {
			carol.Say("alice@"+domain, "", fmt.Sprint("flood ", i))
		}
		done <- nil
	}()
	for i := range 50 {
		bob.Say("alice@"+domain, "", fmt.Sprint("calm ", i))
		text(t, alice, "bob@"+domain, fmt.Sprint("calm ", i))
	}
	<-done
	for i := range flood {
		text(t, alice, "carol@"+domain, fmt.Sprint("flood ", i))
	}
	if got := metric(b, `otrproxy_refused_total{cause="rate"}`); got == "0" || got == "absent" {
		t.Error("nobody was slowed")
	}
}

// Where memory is short nobody else is let in and nothing more is held; who is there goes
// on.
func TestMemoryIsShort(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	alice := b.login("alice", client.Plain)
	ballast := make([]byte, 600<<20)
	for i := 0; i < len(ballast); i += 4096 {
		ballast[i] = 1
	}
	runtime.GC()
	defer runtime.GC() // for the other tests of this process
	deadline := time.Now().Add(client.Patience)
	for {
		_, err := b.enters("bob", "r")
		if got := refusedWith(t, err); strings.Contains(got, "limits.memory") {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("bob was told %q", got)
		}
	}
	alice.Say("bob@"+domain, "m1", "to be held")
	st, err := alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "m1" })
	if err != nil || st.Root().Attr("type") != "error" || !strings.Contains(string(st.Raw), "resource-constraint") || !strings.Contains(string(st.Raw), "no memory left") {
		t.Errorf("%v %v", st, err)
	}
	ballast[0] = ballast[1]
}
