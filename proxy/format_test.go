package proxy_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"otrproxy/config"
	"otrproxy/proxy"
)

// frozen is a state directory as the version wrote it that had none of the file that
// tells its format.
func frozen(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.CopyFS(dir, os.DirFS("testdata/state-1")); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return errors.Join(err, os.Chmod(path, 0o600)) // which a repository does not keep
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// tree is what is in a directory, by name; what has nothing to do with formats is left out.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		if name != "lock" {
			sum := sha256.Sum256(b)
			files[name] = hex.EncodeToString(sum[:8])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func sameTree(a, b map[string]string) bool {
	for name, sum := range a {
		if b[name] != sum {
			return false
		}
	}
	return len(a) == len(b)
}

// frozenConfig is the configuration that the frozen directory was written with.
func frozenConfig(dir string) *config.Config {
	cfg := config.Default()
	cfg.State, cfg.Listen = dir, []string{"127.0.0.1:0"}
	cfg.Domains = map[string]config.Domain{"example.org": {Name: "example.org", TLS: config.TLSAuto, Trust: config.TrustTOFU}}
	return cfg
}

// openAndClose starts a proxy on a state directory, and returns what it logged.
func openAndClose(dir string) (log string, err error) {
	var b bytes.Buffer
	cfg := frozenConfig(dir)
	p, err := proxy.New(cfg, proxy.Options{Log: slog.New(slog.NewTextHandler(&b, nil))})
	if err == nil {
		p.Shutdown(0)
	}
	return b.String(), err
}

// What an older version has written is read: keys, what is known of contacts and servers,
// logins, the CA that clients trust. It is format 1, and said to be from now on.
func TestFrozenState(t *testing.T) {
	dir := frozen(t)
	before := tree(t, dir)
	cfg := frozenConfig(dir)
	p, err := proxy.New(cfg, proxy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ command, want string }{
		{"key show", "alice@example.org AF710D34 A0A7532C A9735236 1880615A 13BF1FA3"},
		{"contact list", "key verified, fingerprint 22DDF329 0842392C EF40854F D83695B7 5177FDED"},
		{"pin list", "sha256:E6:F2:AA:D6:BE:6B:64:A0"},
		{"login list", "bound"},
	} {
		r, err := admin(t, p, c.command)
		if err != nil || !strings.Contains(r.Text, c.want) {
			t.Errorf("%s: %v %s", c.command, err, r.Text)
		}
	}
	ca, err := admin(t, p, "ca export")
	if pem, _ := os.ReadFile("testdata/state-1/ca.pem"); err != nil || !strings.Contains(ca.Text, strings.TrimSpace(string(pem))) {
		t.Errorf("another CA: %v %s", err, ca.Text)
	}
	p.Shutdown(0)
	after := tree(t, dir)
	if b, err := os.ReadFile(filepath.Join(dir, "version")); err != nil || string(b) != "1\n" {
		t.Errorf("%q %v", b, err)
	}
	delete(after, "version")
	if !sameTree(before, after) {
		t.Errorf("something was changed:\n%v\n%v", before, after)
	}
}

// two steps, neither of which could be done twice.
func twoSteps() (restore func()) {
	once := func(from, to string) func(string) error {
		return func(dir string) error { return os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)) }
	}
	return proxy.Steps(once("pins.yaml", "servers.yaml"), func(dir string) error {
		return errors.Join(once("servers.yaml", "known.yaml")(dir), os.WriteFile(filepath.Join(dir, "accounts", "new"), nil, 0o600))
	})
}

// An older format is brought to the present one, which is announced, and what was there is
// kept whole.
func TestUpgrade(t *testing.T) {
	dir := frozen(t)
	before := tree(t, dir)
	defer twoSteps()()
	log, err := openAndClose(dir)
	if err != nil || !strings.Contains(log, "is brought to the format of this version; a copy of what is there is kept in it\" from=1 to=3 copy="+filepath.Join(dir, "before-format-3")) {
		t.Fatalf("%v %s", err, log)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "version")); string(b) != "3\n" {
		t.Errorf("format %q", b)
	}
	if _, err := os.Stat(filepath.Join(dir, "known.yaml")); err != nil {
		t.Error(err)
	}
	if kept := tree(t, filepath.Join(dir, "before-format-3")); !sameTree(kept, before) {
		t.Errorf("kept %v\nof %v", kept, before)
	}
	if log, err := openAndClose(dir); err != nil || strings.Contains(log, "format") {
		t.Errorf("again: %v %s", err, log)
	}
	// A directory that is new is of the present format.
	dir = filepath.Join(t.TempDir(), "new")
	if log, err := openAndClose(dir); err != nil || strings.Contains(log, "format") {
		t.Errorf("new: %v %s", err, log)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "version")); string(b) != "3\n" {
		t.Errorf("new: format %q", b)
	}
}

// A step that fails leaves what was there, so that the older version can go on with it.
func TestUpgradeFails(t *testing.T) {
	dir := frozen(t)
	before := tree(t, dir)
	failing := true
	defer proxy.Steps(func(dir string) error {
		os.Remove(filepath.Join(dir, "ca.key"))
		if failing {
			return errors.New("as a test")
		}
		return nil
	})()
	if _, err := openAndClose(dir); err == nil || !strings.Contains(err.Error(), "is what it was: as a test") {
		t.Errorf("%v", err)
	}
	after := tree(t, dir)
	for name, sum := range before {
		if after[name] != sum {
			t.Errorf("%s was changed", name)
		}
	}
}

// A format that is not known is left alone.
func TestNewerFormat(t *testing.T) {
	for text, want := range map[string]string{"2\n": "of format 2, which a newer otrproxy has written, and this one knows formats up to 1", "x": "is damaged", "0\n": "is damaged", "": "is damaged"} {
		dir := frozen(t)
		os.WriteFile(filepath.Join(dir, "version"), []byte(text), 0o600)
		before := tree(t, dir)
		if _, err := openAndClose(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
		if !sameTree(before, tree(t, dir)) {
			t.Errorf("%q: something was changed", text)
		}
	}
}

// Wherever the process ends in the middle, the next start comes to what an undisturbed one
// comes to, twice interrupted or once, and the copy is whole.
func TestUpgradeInterrupted(t *testing.T) {
	defer twoSteps()()
	whole := frozen(t)
	if _, err := openAndClose(whole); err != nil {
		t.Fatal(err)
	}
	want := tree(t, whole)
	type end struct{}
	interrupted := func(dir string, at int) (ended bool) {
		n := 0
		defer proxy.Between(func() {
			if n++; n > at {
				panic(end{})
			}
		})()
		defer func() { _, ended = recover().(end) }()
		if err := proxy.Upgrade(dir); err != nil {
			t.Errorf("at %d: %v", at, err)
		}
		return false
	}
	points := 0
	for first := 0; ; first++ {
		dir := frozen(t)
		if !interrupted(dir, first) {
			break
		}
		points++
		interrupted(dir, (first*7)%40) // and once more, while it puts things back
		log, err := openAndClose(dir)
		if err != nil {
			t.Fatalf("interrupted at %d: %v", first, err)
		}
		if got := tree(t, dir); !sameTree(got, want) {
			t.Errorf("interrupted at %d: %v\nwant %v\n%s", first, got, want, log)
		}
	}
	if points < 20 {
		t.Errorf("interrupted at %d points only", points)
	}
	t.Logf("interrupted at %d points, twice each", points)
}
