package config

import (
	"path/filepath"
	"testing"
)

func TestStatePlaces(t *testing.T) {
	for _, c := range []struct{ system, home, local, common, want string }{
		{"linux", "/home/a", "", "", "/home/a/.local/state/otrproxy"},
		{"linux", "", "", "", "/var/lib/otrproxy"},
		{"freebsd", "/home/a", "", "", "/home/a/.local/state/otrproxy"},
		{"freebsd", "", "", "", "/var/db/otrproxy"},
		{"darwin", "/Users/a", "", "", "/Users/a/Library/Application Support/otrproxy"},
		{"windows", "/Users/a", "/Users/a/AppData/Local", "/ProgramData", "/Users/a/AppData/Local/otrproxy"},
		{"windows", "", "", "/ProgramData", "/ProgramData/otrproxy"},
	} {
		if got := filepath.ToSlash(stateIn(c.system, c.home, c.local, c.common)); got != c.want {
			t.Errorf("%s: %s, want %s", c.system, got, c.want)
		}
	}
}

func TestStateByXDG(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_STATE_HOME", dir)
	if got, want := DefaultState(), filepath.Join(dir, "otrproxy"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	t.Setenv("XDG_STATE_HOME", "not/absolute") // to be ignored, by its specification
	if got := DefaultState(); got == filepath.Join("not/absolute", "otrproxy") {
		t.Error(got)
	}
}
