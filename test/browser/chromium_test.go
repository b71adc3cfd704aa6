//go:build linux

package browser

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"otrproxy/test/chromium"
	"otrproxy/test/need"
)

func listen() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }

// A tab is a page that is open in Chromium.
type tab struct {
	*chromium.Tab
	t    *testing.T
	room string // address of the page's own part
}

// open starts a browser.
func open(t *testing.T) *tab {
	t.Helper()
	return &tab{Tab: chromium.Open(t, []string{"rebound.example"}), t: t}
}

func (b *tab) do(actions ...chromedp.Action) { b.t.Helper(); b.Do(actions...) }
func (b *tab) sees(text string)              { b.t.Helper(); b.Sees(text) }

// enter comes in through a link.
func (b *tab) enter(w *world) {
	b.t.Helper()
	link := strings.Fields(w.word("web"))[0]
	b.do(chromedp.Navigate(link), chromedp.WaitVisible("header.top"), chromedp.Location(&b.room))
}

// at goes to one of the pages.
func (b *tab) at(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.room+path), chromedp.WaitReady("main"))
}

// form is the path to the visible form of a command.
func form(command string) string {
	return fmt.Sprintf(`//form[input[@name="command" and @value=%q]]`, command)
}

// fills writes into a field of a command's form.
func (b *tab) fills(command, field, value string) {
	b.t.Helper()
	b.do(chromedp.SendKeys(form(command)+fmt.Sprintf(`//*[@name="arg.%s"]`, field), value, chromedp.BySearch))
}

// sends clicks the button of a command's form, and waits for the answer.
func (b *tab) sends(command, answer string) {
	b.t.Helper()
	b.do(chromedp.Evaluate(`document.getElementById("answer")?.remove()`, nil), // that of the last one
		chromedp.Click(form(command)+`//button`, chromedp.BySearch), chromedp.WaitVisible("#answer"))
	b.sees(answer)
}

// looks are the ways to look at a page.
var looks = map[string]struct {
	width, height int64
	dark, phone   bool
}{"desktop": {1280, 900, false, false}, "dark": {1280, 900, true, false}, "phone": {390, 844, false, true}}

// checked checks the page for accessibility in light, dark and on a phone, takes a
// picture of each, and sees to it that nothing sticks out at the side.
func (b *tab) checked(name string) {
	b.t.Helper()
	axe, err := os.ReadFile(filepath.Join("node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		need.Missing(b.t, "axe-core (npm)")
	}
	for look, l := range looks {
		scheme := "light"
		if l.dark {
			scheme = "dark"
		}
		var result string
		var wide bool
		var picture []byte
		b.do(chromedp.EmulateViewport(l.width, l.height, func(p *emulation.SetDeviceMetricsOverrideParams, _ *emulation.SetTouchEmulationEnabledParams) {
			p.Mobile = l.phone
		}),
			emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}),
			chromedp.Evaluate(string(axe)+";0", nil),
			chromedp.Evaluate(`axe.run(document).then(r => JSON.stringify(r.violations.map(v => v.id + ": " + v.nodes.map(n => n.html + " " + n.failureSummary).join("; "))))`, &result,
				func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }),
			chromedp.Evaluate(`document.documentElement.scrollWidth > document.documentElement.clientWidth`, &wide),
			chromedp.FullScreenshot(&picture, 90))
		if result != "[]" {
			b.t.Errorf("%s, %s: %s", name, look, result)
		}
		if wide {
			b.t.Errorf("%s, %s: wider than the screen", name, look)
		}
		if dir := os.Getenv("OTRPROXY_SCREENSHOTS"); dir != "" {
			os.MkdirAll(dir, 0o755)
			if err := os.WriteFile(filepath.Join(dir, name+"-"+look+".jpg"), picture, 0o644); err != nil {
				b.t.Error(err)
			}
		}
	}
	b.do(chromedp.EmulateViewport(1280, 900), emulation.SetEmulatedMedia())
}

// hacked reports whether a script of somebody else's has run.
func (b *tab) hacked() bool {
	b.t.Helper()
	var yes bool
	b.do(chromedp.Evaluate(`Boolean(window.hacked)`, &yes))
	return yes
}
