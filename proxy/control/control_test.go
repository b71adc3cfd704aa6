package control

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var table = Table{
	{Name: "pin", Admin: true, Help: "one word", Run: func(_ context.Context, c Call) (Reply, error) { return Reply{Text: "pin:" + c.Args}, nil }},
	{Name: "pin add", Args: "X", Help: "two words", Admin: true, Run: func(_ context.Context, c Call) (Reply, error) {
		return Reply{Text: "pin add:" + c.Args, Data: []int{1}}, nil
	}},
	{Name: "smp start", Args: "SECRET", Help: "in a chat", Chat: true, Run: func(_ context.Context, c Call) (Reply, error) { return Reply{Text: c.Args}, nil }},
	{Name: "broken", Admin: true, Run: func(context.Context, Call) (Reply, error) { return Reply{}, errors.New("it is broken") }},
}

func TestFind(t *testing.T) {
	for _, c := range []struct {
		line string
		chat bool
		name string
		args string
	}{
		{"pin add a  b ", false, "pin add", "a  b "},
		{"pin addx", false, "pin", "addx"},
		{"pin", false, "pin", ""},
		{"smp start  two  blanks", true, "smp start", " two  blanks"},
		{"smp start x", false, "", ""},
		{"pin add x", true, "", ""},
		{"pinx", false, "", ""},
		{"", false, "", ""},
	} {
		cmd, args, err := table.Find(c.line, c.chat)
		if c.name == "" {
			if !errors.Is(err, ErrUsage) {
				t.Errorf("%q: %v", c.line, err)
			}
			continue
		}
		if err != nil || cmd.Name != c.name || args != c.args {
			t.Errorf("%q: %v %q %v", c.line, cmd, args, err)
		}
	}
	if h := table.Help(true, "!otr "); h != "!otr smp start SECRET - in a chat" {
		t.Errorf("%q", h)
	}
}

func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	os.WriteFile(path, []byte("left behind"), 0o600)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if st, _ := os.Stat(path); st.Mode().Perm()&0o077 != 0 {
		t.Errorf("mode %v", st.Mode())
	}
	go table.Serve(t.Context(), l)
	if r, err := Ask(path, "pin add x y"); err != nil || r.Text != "pin add:x y" {
		t.Errorf("%v %v", r, err)
	}
	if _, err := Ask(path, "smp start x"); !errors.Is(err, ErrUsage) {
		t.Errorf("a chat command over the socket: %v", err)
	}
	if _, err := Ask(path, "broken"); err == nil || err.Error() != "it is broken" {
		t.Errorf("%v", err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte(strings.Repeat("x", maxRequest) + "\n"))
	b := make([]byte, 100)
	n, _ := c.Read(b)
	if !strings.Contains(string(b[:n]), "not a request") {
		t.Errorf("%s", b[:n])
	}
	if _, err := Ask(path+"x", "pin"); err == nil || !strings.Contains(err.Error(), "otrproxy run") {
		t.Errorf("%v", err)
	}
	if _, err := Listen("/" + strings.Repeat("x", 120)); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("%v", err)
	}
}
