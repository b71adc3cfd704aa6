// Package chromium opens pages in Chromium, for the tests that need a browser.
package chromium

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"otrproxy/test/need"
)

// patience is how long one step may take.
const patience = 20 * time.Second

// A Tab is a page that is open in Chromium.
type Tab struct {
	t   *testing.T
	ctx context.Context
}

// Open starts a browser, which reaches nothing but this machine. The names map to it, as
// a rebound name of somebody else's does.
func Open(t *testing.T, names []string, more ...chromedp.ExecAllocatorOption) *Tab {
	t.Helper()
	need.Program(t, "chromium")
	profile, err := os.MkdirTemp("", "otrproxy-chromium")
	if err != nil {
		t.Fatal(err)
	}
	rules := ""
	for _, name := range names {
		rules += "MAP " + name + " 127.0.0.1, "
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.UserDataDir(profile),
		chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("no-proxy-server", true),
		chromedp.Flag("host-resolver-rules", rules+"MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"),
		chromedp.WindowSize(1280, 900))
	// Not the test's context: that ends before the browser could end by itself.
	alloc, stop := chromedp.NewExecAllocator(context.Background(), append(opts, more...)...)
	ctx, _ := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		chromedp.Cancel(ctx) // waits for the browser
		stop()
		remove(t, profile)
	})
	b := &Tab{t: t, ctx: ctx}
	b.Do(chromedp.Navigate("about:blank"))
	return b
}

// remove removes the profile; processes of the browser's own may write there until they
// have noticed that it has gone.
func remove(t *testing.T, profile string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		err := os.RemoveAll(profile)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("the browser's profile stays: %v", err)
			return
		}
	}
}

// Do does something, within the patience.
func (b *Tab) Do(actions ...chromedp.Action) {
	b.t.Helper()
	if err := b.Try(actions...); err != nil {
		b.t.Fatalf("%v; the page says:\n%s", err, b.Text())
	}
}

// Try is Do for what may fail.
func (b *Tab) Try(actions ...chromedp.Action) error {
	// The browser must not die with the deadline of its first action.
	ctx := b.ctx
	if chromedp.FromContext(b.ctx).Target != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(b.ctx, patience)
		defer cancel()
	}
	return chromedp.Run(ctx, actions...)
}

// Sees waits until the page shows a text.
func (b *Tab) Sees(text string) {
	b.t.Helper()
	quoted, _ := json.Marshal(text)
	b.until(`document.body.innerText.replace(/\s+/g, " ").includes(`+string(quoted)+`)`, chromedp.WithPollingMutation())
}

// Until waits until an expression is true on the page.
func (b *Tab) Until(expression string) {
	b.t.Helper()
	b.until(expression, chromedp.WithPollingInterval(20*time.Millisecond))
}

func (b *Tab) until(expression string, look chromedp.PollOption) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		err := b.Try(chromedp.Poll(expression, nil, look))
		if err == nil {
			return
		}
		if time.Now().After(deadline) || !strings.Contains(err.Error(), "navigated") && !strings.Contains(err.Error(), "context with specified id") { // from one page to another
			b.t.Fatalf("never saw %s: %v; the page says:\n%s", expression, err, b.Text())
		}
	}
}

// Text is what the page shows.
func (b *Tab) Text() (s string) {
	b.Try(chromedp.Evaluate(`document.body && document.body.innerText`, &s))
	return s
}
