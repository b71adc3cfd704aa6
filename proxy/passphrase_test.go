package proxy

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"otrproxy/config"
	"otrproxy/proxy/control"
)

// "key passphrase --remove" and "key passphrase" at once, from the page and the command
// line, in the one order that counts: the new passphrase is set between the last file that
// was decrypted and the end of the identity. All keys are then encrypted, and what decrypts
// them is on no disk and in no memory.
func TestRemoveRacesPassphrase(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	cfg, err := config.Parse("x", fmt.Appendf(nil, "state: %q\n", dir))
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Shutdown(0)
	run := func(name string, args map[string]string) {
		t.Helper()
		if _, err := p.Commands().Run(t.Context(), control.Actor{Place: control.InShell}, name, args); err != nil {
			t.Fatal(err)
		}
	}
	run("key generate", map[string]string{"account": "alice@example.org"})
	run("key passphrase", map[string]string{"passphrase": "correct horse"})
	// key passphrase --remove, as keyPassphrase does it
	p.accounts.Vault.StopSealing()
	if err := p.accounts.SealAll(false); err != nil {
		t.Fatal(err)
	}
	run("key passphrase", map[string]string{"passphrase": "another horse"})
	p.accounts.Vault.Release()
	left, _ := filepath.Glob(filepath.Join(dir, "accounts", "*", "otr.private_key.age"))
	if _, err := os.Stat(filepath.Join(dir, "identity.age")); err != nil && len(left) > 0 {
		t.Error("the key is encrypted, and what decrypts it is gone for ever")
	}
}
