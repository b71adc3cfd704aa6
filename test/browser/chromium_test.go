package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"otrproxy/test/need"
)

func listen() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }

// A tab is a page that is open in Chromium.
type tab struct {
	t    *testing.T
	ctx  context.Context
	room string // address of the page's own part
}

// open starts a browser.
func open(t *testing.T) *tab {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("no-proxy-server", true),
		chromedp.Flag("host-resolver-rules", "MAP rebound.example 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"),
		chromedp.WindowSize(1280, 900))
	alloc, stop := chromedp.NewExecAllocator(t.Context(), opts...)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(func() { cancel(); stop() })
	b := &tab{t: t, ctx: ctx}
	b.do(chromedp.Navigate("about:blank"))
	return b
}

// do does something, within the patience.
func (b *tab) do(actions ...chromedp.Action) {
	b.t.Helper()
	if err := b.try(actions...); err != nil {
		var text string
		b.try(chromedp.Evaluate(`document.body && document.body.innerText`, &text))
		b.t.Fatalf("%v; the page says:\n%s", err, text)
	}
}

func (b *tab) try(actions ...chromedp.Action) error {
	// The browser must not die with the deadline of its first action.
	ctx := b.ctx
	if chromedp.FromContext(b.ctx).Target != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(b.ctx, patience)
		defer cancel()
	}
	return chromedp.Run(ctx, actions...)
}

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

// sees waits until the page shows a text.
func (b *tab) sees(text string) {
	b.t.Helper()
	quoted, _ := json.Marshal(text)
	for deadline := time.Now().Add(patience); ; {
		err := b.try(chromedp.Poll(`document.body.innerText.replace(/\s+/g, " ").includes(`+string(quoted)+`)`, nil, chromedp.WithPollingMutation()))
		if err == nil {
			return
		}
		if time.Now().After(deadline) || !strings.Contains(err.Error(), "navigated") && !strings.Contains(err.Error(), "context with specified id") { // from one page to another
			b.t.Fatalf("never saw %q: %v; the page says:\n%s", text, err, b.text())
		}
	}
}

func (b *tab) text() (s string) {
	b.try(chromedp.Evaluate(`document.body.innerText`, &s))
	return s
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
