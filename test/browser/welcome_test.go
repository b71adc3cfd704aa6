//go:build linux

package browser

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"otrproxy/test/need"
)

// A device reads the page for devices: in light, dark and on a phone, with the keyboard
// alone, with nothing that a program that reads aloud would stumble over.
func TestWelcome(t *testing.T) {
	need.Program(t, "chromium")
	w := &world{t: t, conf: filepath.Join(t.TempDir(), "otrproxy.yaml")}
	text := "listen: [\"127.0.0.1:0\"]\nonboarding: \"127.0.0.1:0\"\nstate: \"" + filepath.Join(t.TempDir(), "state") + "\"\ndomains: {example.org: }\n"
	if err := os.WriteFile(w.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	address := w.daemon().says(`devices come to trust this machine.*pages=(\S+)`)
	b := open(t)
	b.do(chromedp.Navigate(address), chromedp.WaitReady("main"))
	b.sees("Compare before you install")
	shown := w.word("ca", "show")
	_, sum, ok := strings.Cut(shown, "SHA-256 ")
	if !ok || len(sum) < 95 {
		t.Fatal(shown)
	}
	for _, group := range strings.Split(sum[:95], ":") {
		if !strings.Contains(b.Text(), group) {
			t.Errorf("the page does not show %s of %s", group, sum[:95])
		}
	}
	b.checked("welcome")

	// From link to link and into the instructions by keyboard.
	on := func() (name string) {
		b.do(chromedp.KeyEvent(kb.Tab), chromedp.Evaluate(`document.activeElement.innerText`, &name))
		return name
	}
	for try := 0; on() != "Gajim"; try++ {
		if try > 40 {
			t.Fatal("no way to Gajim by keyboard")
		}
	}
	b.do(chromedp.KeyEvent(kb.Enter))
	b.sees("Type START TLS")
	b.do(chromedp.Evaluate(`document.querySelectorAll("details").forEach(d => d.open = true)`, nil))
	b.checked("welcome-open")
}
