package proxy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"otrproxy/config"
	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/otrlayer"
	"otrproxy/proxy"
	"otrproxy/proxy/notify"
)

// The words of the configuration are the events that there are.
func TestEventWords(t *testing.T) {
	want := []string{notify.EventServerRefused, notify.EventServerRenewed, notify.EventServerExpiring, notify.EventLoginUnknown}
	for _, e := range otrlayer.EventKinds {
		want = append(want, string(e))
	}
	got := slices.Clone(config.NotifyEvents)
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		t.Errorf("%v, want %v", got, want)
	}
}

// told waits until the command has written down that it was told something.
func told(t *testing.T, file, part string) string {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		b, _ := os.ReadFile(file)
		if strings.Contains(string(b), part) {
			return string(b)
		}
		if time.Now().After(deadline) {
			t.Fatalf("was not told %q, but: %s", part, b)
		}
		<-tick.C
	}
}

// The command is told what happens and with whom, in its environment, and never what
// anybody wrote; the chosen events only.
func TestNotify(t *testing.T) {
	const word = "Qnotified1Z"
	file := filepath.Join(t.TempDir(), "told")
	script := filepath.Join(t.TempDir(), "tell")
	os.WriteFile(script, []byte("#!/bin/sh\necho \"$# $1|$OTRPROXY_EVENT|$OTRPROXY_ACCOUNT|$OTRPROXY_ABOUT|$OTRPROXY_TEXT\" >>"+file+"\nenv | grep -c "+word+" >>"+file+"\nexit 3\n"), 0o700)
	c := onStage(t, fmt.Sprintf("notify: {command: [%q, fixed], events: [private, held, asked, key-changed, returned]}\n", script), (*stage).talk)
	told(t, file, "1 fixed|private|alice@"+domain+"|bob@"+domain+"|The conversation is private now, with bob@"+domain)
	c.bob.Say("alice@"+domain, "x", "!otr smp ask "+word+"? | "+word)
	told(t, file, "|asked|")
	c.alice.Say("carol@"+domain, "h", word)
	told(t, file, "|held|alice@"+domain+"|carol@"+domain+"|")
	c.alice.Say("carol@"+domain, "", "!otr drop")
	told(t, file, "|returned|")
	c.changeKey()
	got := told(t, file, "|key-changed|")
	if strings.Contains(got, word) || strings.Contains(got, "\n1\n") {
		t.Errorf("content in %s", got)
	}
	if strings.Contains(got, "|ended|") || strings.Contains(got, "|compared|") || strings.Contains(got, "|trust|") {
		t.Errorf("not chosen: %s", got)
	}
	c.home.stop()
	if log := c.home.log.String(); !strings.Contains(log, "the command of \\\"notify\\\" failed") || strings.Contains(log, word) {
		t.Errorf("%s", log)
	}
}

// A certificate that is refused is told once, and again when it is another one.
func TestNotifyServerRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "told")
	s := startServer(t, server.Config{})
	dir := stateDir(t)
	b := startConfigured(t, dir, fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\ndomains:\n  %s: {connect: %q, trust: pin, pins: [\"sha256:%s\"]}\nnotify: {command: [sh, -c, 'echo \"$OTRPROXY_EVENT|$OTRPROXY_ABOUT\" >>%s']}\n", dir, domain, s.Addr(), strings.Repeat("AB", 32), file))
	if _, err := client.Dial(t.Context(), b.config("alice", client.Plain)); err == nil {
		t.Fatal("accepted")
	}
	if got := told(t, file, "server-refused|"); got != "server-refused|"+domain+"\n" {
		t.Errorf("%q", got)
	}
}

// A command that hangs does not hold up anything, the end included.
func TestNotifyHangs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "told")
	c := onStage(t, "notify: {command: [sh, -c, 'echo x >>"+file+"; exec sleep 3600'], events: [private, held]}\n", (*stage).talk)
	told(t, file, "x")
	c.alice.Say("carol@"+domain, "h", "y")
	c.noticed("Your message waits")
	c.home.stop()
}

// A command that hangs is ended when its time is over, and the next is run.
func TestNotifyLimit(t *testing.T) {
	defer proxy.HookLimit(50 * time.Millisecond)()
	file := filepath.Join(t.TempDir(), "told")
	c := onStage(t, "notify: {command: [sh, -c, 'echo \"$OTRPROXY_EVENT\" >>"+file+"; exec sleep 3600'], events: [private, held]}\n", (*stage).talk)
	c.alice.Say("carol@"+domain, "h", "y")
	told(t, file, "held")
	c.home.stop()
}
