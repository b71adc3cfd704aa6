//go:build linux

package real

import (
	"net"
	"path/filepath"
	"testing"

	"otrproxy/test/need"
)

// startGajim starts Gajim, which has no OTR, as a client behind the proxy. It trusts the
// certificate it is shown, as after "Add to Trusted Certificates"; it does not look at a CA
// but in the system's list.
func startGajim(t *testing.T, desktop []string, jid, addr, shown string) *process {
	t.Helper()
	return startGajimWith(t, desktop, jid, "secret", addr, shown)
}

func startGajimWith(t *testing.T, desktop []string, jid, password, addr, shown string) *process {
	t.Helper()
	need.Program(t, "gajim", "Xvfb", "dbus-daemon")
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, dir, map[string]string{"shown.pem": shown})
	script, _ := filepath.Abs("gajim_client.py")
	return start(t, "gajim", append(desktop, "HOME="+dir), dir, need.Python, script, filepath.Join(dir, "gajim"), jid, password, host, port, filepath.Join(dir, "shown.pem"))
}
