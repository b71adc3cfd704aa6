//go:build linux

package browser

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"otrproxy/proxy/control"
	"otrproxy/proxy/control/page"
)

// alice has opened the details of a changed key and is comparing it; the key changes once more. What
// she is about to click must not become another key under her hand.
func TestKeyChangesUnderTheHand(t *testing.T) {
	w := newWorld(t, "", "")
	b := open(t)
	b.enter(w)
	w.says(w.alice, "hello")
	w.reads(w.bob, "hello")
	w.bobs("key generate", map[string]string{"account": "bob@" + domain, "replace": "yes"})
	w.notice(w.alice, "has ended the private conversation")
	w.says(w.alice, "not for a stranger")
	w.notice(w.alice, "has CHANGED")
	b.sees("The key of bob@" + domain + " has changed")
	seen := w.fingerprint()
	b.sees(seen)
	b.do(chromedp.Click(`//summary[contains(., "another way")]`, chromedp.BySearch))
	// She marks the fingerprint with the mouse, to compare it: the focus goes to the page.
	b.do(chromedp.Click(`#decisions .prints dt`, chromedp.ByQuery))
	w.bobs("key generate", map[string]string{"account": "bob@" + domain, "replace": "yes"})
	w.bobs("contact start", map[string]string{"account": "bob@" + domain, "contact": "alice@" + domain})
	b.sees("Something has changed")
	now := w.fingerprint()
	if now == seen {
		t.Fatal("the same key")
	}
	var value string
	var visible bool
	b.do(chromedp.Evaluate(`document.querySelector('#decisions details input[name="arg.fingerprint"]').value`, &value),
		chromedp.Evaluate(`document.querySelector('#decisions details').open`, &visible))
	if !visible || !strings.EqualFold(value, strings.ReplaceAll(seen, " ", "")) {
		t.Errorf("the button under her hand accepts %s, and she has seen %s", value, seen)
	}
	b.do(chromedp.Click(form("held send")+`//button`, chromedp.BySearch), chromedp.WaitVisible("#answer"))
	b.sees("is not the new key")
}

// otrproxy stops, and another user of this machine takes the port: what that one says does not appear
// in a page that is open.
func TestPortTakenOver(t *testing.T) {
	l, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	answer := func(d any) func(context.Context, control.Call) (control.Reply, error) {
		return func(context.Context, control.Call) (control.Reply, error) { return control.Reply{Data: d}, nil }
	}
	table := control.Table{{Name: "status", Help: "x", Run: answer(control.Status{})}, {Name: "contact list", Help: "x", Run: answer([]control.ContactLine{})}, {Name: "held list", Help: "x", Run: answer([]control.HeldLine{})}}
	ctx, cancel := context.WithCancel(t.Context())
	p := page.New(ctx, addr, func() control.Table { return table }, func() (<-chan struct{}, func()) { return nil, func() {} })
	srv := &http.Server{Handler: p}
	go srv.Serve(l)
	b := open(t)
	b.do(chromedp.Navigate(p.Link()), chromedp.WaitVisible("header.top"))
	b.sees("Nothing waits for you")
	cancel()
	srv.Close()
	if l, err = net.Listen("tcp", addr); err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	evil := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/live"):
			w.Header().Set("Content-Type", "text/event-stream")
			w.Write([]byte("data: changed\n\n"))
		case r.Method == "POST":
			r.ParseForm()
			got <- r.PostForm.Get("arg.passphrase")
		default:
			w.Header().Set("Content-Type", "text/html")
			w.Write([]byte("<section id=decisions data-part><h2 id=decisions-title class=urgent>1 decision waits for you</h2><h3>The private keys are locked</h3><form method=post action='" + r.URL.Path + "do'><label>Passphrase<input type=password name=arg.passphrase></label><button>Unlock</button></form></section>"))
		}
	})}
	go evil.Serve(l)
	defer evil.Close()
	b.sees("This page is not yours any more")
	if strings.Contains(b.Text(), "The private keys are locked") {
		b.do(chromedp.SendKeys(`input[name="arg.passphrase"]`, "correct horse", chromedp.ByQuery), chromedp.Submit(`#decisions form`, chromedp.ByQuery))
		t.Errorf("the other user's words are in the page, and they have got the passphrase %q", <-got)
	}
}
