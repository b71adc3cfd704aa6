//go:build linux

package browser

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"otrproxy/config"
	"otrproxy/demo/client"
	"otrproxy/demo/server"
)

const strict = "otr:\n  - {account: \"*\", contact: \"*\", policy: require-verified}\n"

// alice verifies bob on the page, in all three ways, and what waited goes; the overview
// follows what happens.
func TestVerify(t *testing.T) {
	w := newWorld(t, strict, "")
	b := open(t)
	b.enter(w)
	b.sees("Nothing waits for you")
	b.sees("alice@" + domain)
	b.checked("overview-calm")

	w.says(w.alice, "for bob alone")
	b.sees("1 decision waits for you") // by itself
	b.sees("Is it really bob@" + domain)
	b.checked("overview-decision")
	b.do(chromedp.Click(`//a[contains(., "Verify bob@")]`, chromedp.BySearch))
	b.sees("Compare fingerprints")
	b.checked("contact")
	b.fills("contact verify", "fingerprint", "01234567 89ABCDEF 01234567 89ABCDEF 01234567")
	b.sends("contact verify", "this is NOT the fingerprint in use")
	b.fills("contact verify", "fingerprint", strings.ToLower(w.fingerprint()))
	b.sends("contact verify", "What waited has been sent")
	w.reads(w.bob, "for bob alone")
	w.notice(w.alice, "is verified")
	b.sees("Verified")

	b.sends("contact distrust", "not verified any more")
	w.says(w.alice, "again")
	w.notice(w.alice, "Your message waits")
	b.fills("smp ask", "question", `<b>where</b> did we "meet"?`)
	b.fills("smp ask", "secret", "Prague")
	b.sends("smp ask", "Asked bob@")
	w.notice(w.bob, `where did we "meet"?`) // what looks like HTML is taken for it on the way
	b.sees("A comparison with bob@")
	w.says(w.bob, "!otr smp answer Vienna")
	w.notice(w.alice, "NOT the same")
	w.notice(w.bob, "NOT the same")
	b.fills("smp ask", "question", "where did we meet?")
	b.fills("smp ask", "secret", "Prague")
	b.sends("smp ask", "Asked bob@")
	w.notice(w.bob, "where did we meet?")
	w.says(w.bob, "!otr smp answer Prague")
	w.notice(w.bob, "Your answer was right")
	w.reads(w.bob, "again")
	b.sees("Verified by a secret")

	b.sends("contact distrust", "not verified any more")
	b.fills("smp start", "secret", "a shared one")
	b.sends("smp start", "Asked bob@")
	w.notice(w.bob, "wants to compare a secret")
	w.says(w.bob, "!otr smp answer a shared one")
	b.sees("Verified by a secret")
}

// bob asks, and alice answers on the page. His question is text, whatever it looks like.
func TestQuestion(t *testing.T) {
	w := newWorld(t, "", "")
	b := open(t)
	b.enter(w)
	w.says(w.alice, "hello")
	w.reads(w.bob, "hello")
	w.says(w.bob, `!otr smp ask &lt;script&gt;window.hacked=1&lt;/script&gt;&lt;img src=x onerror=window.hacked=1&gt; | blue`)
	b.sees("bob@" + domain + " wants to know whether it is you")
	b.sees("window.hacked=1")
	b.checked("overview-question")
	if b.hacked() {
		t.Error("a question ran as a script")
	}
	// What somebody is writing is not lost when something changes meanwhile.
	b.fills("smp answer", "secret", "bl")
	w.says(w.alice, "more")
	w.reads(w.bob, "more")
	w.says(w.bob, "!otr end")
	w.notice(w.alice, "has ended the private conversation")
	b.sees("Something has changed")
	b.do(chromedp.Reload())
	b.sees("Nothing waits for you")

	w.says(w.alice, "hello again")
	w.reads(w.bob, "hello again")
	w.says(w.bob, "!otr smp ask what colour? | blue")
	b.sees("what colour?")
	b.fills("smp answer", "secret", "red")
	b.sends("smp answer", "Your answer is being compared")
	w.notice(w.bob, "NOT the same")
	w.says(w.bob, "!otr smp ask what colour? | blue")
	b.sees("what colour?")
	b.fills("smp answer", "secret", "blue")
	b.sends("smp answer", "Your answer is being compared")
	w.notice(w.bob, "The secrets are the same")
	w.notice(w.alice, "Your answer was right")
	w.says(w.bob, "!otr smp start s3cret")
	b.sees("They want to compare a secret")
	b.do(chromedp.Click(form("smp abort")+"//button", chromedp.BySearch))
	w.notice(w.bob, "was given up")
}

// bob's key changes: nothing is sent until alice has decided, on the page.
func TestChangedKey(t *testing.T) {
	w := newWorld(t, "", "")
	b := open(t)
	b.enter(w)
	w.says(w.alice, "hello")
	w.reads(w.bob, "hello")
	old := w.fingerprint()
	w.bobs("key generate", map[string]string{"account": "bob@" + domain, "replace": "yes"})
	w.notice(w.alice, "has ended the private conversation")
	w.says(w.alice, "not for a stranger")
	w.notice(w.alice, "has CHANGED")
	b.sees("The key of bob@" + domain + " has changed")
	b.sees(old)
	b.sees(w.fingerprint())
	b.sees("1 of your messages waits")
	b.checked("overview-key-changed")
	if strings.Contains(string(w.s.Received()), "stranger") {
		t.Error("sent in clear")
	}
	b.fills("contact verify", "fingerprint", old)
	b.sends("contact verify", "NOT the fingerprint in use")
	b.do(chromedp.Click(`//summary[contains(., "another way")]`, chromedp.BySearch))
	b.sends("held send", "accepted, not verified")
	w.reads(w.bob, "not for a stranger")
	b.sees("Nothing waits for you")
}

// What waits for a contact that is not there is taken back on the page.
func TestHeld(t *testing.T) {
	w := newWorld(t, "", "")
	b := open(t)
	b.enter(w)
	w.alice.Say("carol@"+domain, "h1", "one")
	w.alice.Say("carol@"+domain, "h2", "two")
	b.sees("waits for a private conversation")
	b.checked("overview-held")
	b.do(chromedp.Click(`(`+form("held send")+`)[1]//button`, chromedp.BySearch), chromedp.WaitVisible("#answer"))
	b.sees("2 messages wait for carol@")
	b.do(chromedp.Click(`(`+form("held drop")+`)[1]//button`, chromedp.BySearch), chromedp.WaitVisible("#answer"))
	b.sees("2 messages taken back")
	b.sees("Nothing waits.")
}

// A server presents another certificate than before: the page says so, and accepts it
// when a person says that it is right.
func TestChangedServer(t *testing.T) {
	other, err := server.Start(server.Config{Domain: "other.example", Users: map[string]string{"carol": "c"}})
	if err != nil {
		t.Fatal(err)
	}
	addr := other.Addr()
	w := newWorld(t, "", fmt.Sprintf("  other.example: {connect: %q}\n", addr))
	b := open(t)
	b.enter(w)
	dial := func() error {
		c, err := client.Dial(t.Context(), client.Config{Addr: w.addr, JID: "carol@other.example", Password: "c", Entry: client.STARTTLS})
		if err == nil {
			c.Close()
		}
		return err
	}
	if dial() == nil {
		t.Fatal("a certificate nobody vouches for was accepted")
	}
	b.sees("Is this the server of other.example?")
	b.sees(pinOf(t, other))
	b.checked("overview-server-unknown")
	accept := func() {
		t.Helper()
		b.do(chromedp.Click(form("pin add")+`//input[@type="checkbox"]`, chromedp.BySearch))
		b.sends("pin add", "other.example is held to")
		if err := dial(); err != nil {
			t.Fatal(err)
		}
	}
	accept()
	b.sees("Nothing waits for you")
	before := pinOf(t, other)
	other.Close()
	if other, err = server.StartOn(addr, server.Config{Domain: "other.example", Users: map[string]string{"carol": "c"}}); err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if dial() == nil {
		t.Fatal("another certificate was accepted")
	}
	b.sees("The server of other.example is not the one it was")
	b.sees(before)
	b.checked("overview-server-changed")
	accept()

	b.at("servers")
	b.sees(strings.TrimPrefix(before, "sha256:"))
	b.checked("servers")
	b.do(chromedp.SendKeys(form("pin probe")+`//input[@name="arg.domain"]`, "other.example", chromedp.BySearch))
	b.sends("pin probe", "It satisfies a pin that is in force")
	b.sees("SHA-1, to compare with old notes only")
	b.checked("servers-probe")
	b.do(chromedp.SendKeys(form("doctor")+`//input[@name="arg.name"]`, "carol@other.example", chromedp.BySearch))
	b.sends("doctor", "it is the one that is pinned")
	b.do(chromedp.Click(`//li[contains(., `+"\""+before[7:30]+"\""+`)]`+form("pin remove")[1:]+`//button`, chromedp.BySearch), chromedp.WaitVisible("#answer"))
	b.sees("is not held to")
}

// pinOf is the pin of what a server presents, as the page writes it.
func pinOf(t *testing.T, s *server.Server) string {
	t.Helper()
	pin, err := config.ParsePin(s.Pin())
	if err != nil {
		t.Fatal(err)
	}
	return pin.String()
}

// Every page, without a change of anything.
func TestPages(t *testing.T) {
	w := newWorld(t, "", "")
	w.says(w.alice, "hello")
	w.reads(w.bob, "hello")
	b := open(t)
	b.enter(w)
	b.sees("Private")
	b.checked("overview")
	b.at("keys")
	var width float64
	b.do(chromedp.Evaluate(`document.querySelector("img.qr").naturalWidth`, &width))
	if width < 100 {
		t.Errorf("the QR code is %v wide", width)
	}
	b.checked("keys")
	b.at("commands")
	b.checked("commands")
	for _, name := range []string{"key generate", "pin add", "smp ask", "key passphrase"} {
		b.at("commands?name=" + url.QueryEscape(name))
		b.checked("command-" + strings.ReplaceAll(name, " ", "-"))
	}
	b.at("contact?account=alice@" + domain + "&contact=bob@" + domain)
	b.checked("contact-private")
	b.at("nowhere")
	b.checked("refused")
	// From the keyboard: the first stop leads to the content, and the next ones go on.
	b.at("")
	var focused string
	b.do(chromedp.KeyEvent(kb.Tab), chromedp.Evaluate(`document.activeElement.className`, &focused))
	if focused != "skip" {
		t.Errorf("the first stop is %q", focused)
	}
	b.do(chromedp.KeyEvent(kb.Enter), chromedp.KeyEvent(kb.Tab), chromedp.Evaluate(`document.activeElement.closest("main") ? "inside" : document.activeElement.outerHTML`, &focused))
	if focused != "inside" {
		t.Errorf("behind it comes %q", focused)
	}
	b.do(chromedp.Click(`//button[.="Leave"]`, chromedp.BySearch))
	b.sees("You have left")
	b.at("")
	b.sees("This page opens with a link that works once")
}

// Without script all is there, too.
func TestWithoutScript(t *testing.T) {
	w := newWorld(t, strict, "")
	w.says(w.alice, "for bob alone")
	w.notice(w.alice, "Private conversation")
	b := open(t)
	b.do(emulation.SetScriptExecutionDisabled(true))
	link := strings.Fields(w.word("web"))[0]
	b.do(chromedp.Navigate(link), chromedp.WaitVisible("header.top"), chromedp.Location(&b.room))
	b.do(chromedp.WaitVisible(`//noscript//p | //footer//a`, chromedp.BySearch), chromedp.Click(`//a[contains(., "Verify bob@")]`, chromedp.BySearch), chromedp.WaitVisible("#way-1"))
	b.fills("contact verify", "fingerprint", w.fingerprint())
	b.do(chromedp.Click(form("contact verify")+`//button`, chromedp.BySearch), chromedp.WaitVisible("#answer"))
	w.reads(w.bob, "for bob alone")
}

// Others' pages get nowhere, even knowing the address; nor does a name that was made to
// point here.
func TestOthers(t *testing.T) {
	w := newWorld(t, "", "")
	b := open(t)
	b.enter(w)
	before := w.word("pin", "list")
	attack := elsewhere(t, `<!doctype html><title>evil</title><iframe id=f src="`+b.room+`"></iframe>
<form id=x method=post action="`+b.room+`do" target=y><input name=command value="pin add"><input name="arg.domain" value="`+domain+`"><input name="arg.pin" value="sha256:`+strings.Repeat("AB", 32)+`"><input name=csrf value=guess></form><iframe name=y></iframe>
<script>
window.tried = {};
fetch("`+b.room+`", {credentials: "include"}).then(r => r.text(), e => "refused").then(t => tried.fetch = t);
fetch("`+b.room+`do", {method: "POST", mode: "no-cors", credentials: "include", headers: {"Content-Type": "application/x-www-form-urlencoded"}, body: "command=reload&csrf=guess"}).then(() => tried.post = true, () => tried.post = true);
new EventSource("`+b.room+`live", {withCredentials: true}).onerror = () => tried.live = "refused";
document.getElementById("x").submit();
</script>`)
	var tried map[string]any
	b.do(chromedp.Navigate(attack), chromedp.Poll(`window.tried.fetch !== undefined && window.tried.post && window.tried.live`, nil), chromedp.Evaluate(`window.tried`, &tried))
	if tried["fetch"] != "refused" || tried["live"] != "refused" {
		t.Errorf("%v", tried)
	}
	if after := w.word("pin", "list"); after != before {
		t.Errorf("pins: %s", after)
	}
	port := w.page[strings.LastIndex(w.page, ":"):]
	b.do(chromedp.Navigate("http://rebound.example" + port + "/"))
	b.sees("under the name of this machine only")
	b.do(chromedp.Navigate("http://rebound.example" + port + b.room[strings.Index(b.room, port)+len(port):]))
	b.sees("under the name of this machine only")
	// The administrator is still in.
	b.at("")
	b.sees("Nothing waits for you")
}

// Somebody whom the server lets in with another password waits for a decision: the page has
// both, with the code that the stranger was shown.
func TestUnknownLogin(t *testing.T) {
	w := newWorld(t, "", "")
	b := open(t)
	b.enter(w)
	w.s.SetPassword("alice", "another")
	comes := func(resource string) (*client.Client, error) {
		c, err := client.Dial(t.Context(), client.Config{Addr: w.addr, JID: "alice@" + domain, Password: "another", Resource: resource, Entry: client.STARTTLS})
		if err == nil {
			t.Cleanup(c.Drop)
		}
		return c, err
	}
	stranger, err := comes("new")
	if err != nil {
		t.Fatal(err)
	}
	w.notice(stranger, "Your code is")
	b.sees("Is it alice@" + domain + " who has another password?")
	b.checked("overview-login-unknown")
	b.do(chromedp.Click(form("login refuse")+`//button`, chromedp.BySearch), chromedp.WaitVisible("#answer"))
	b.sees("That login is over")
	b.sees("Nothing waits for you")
	if _, err := comes("again"); err == nil {
		t.Error("who was refused comes in again")
	}
	w.s.SetPassword("alice", "a third one")
	third, err := client.Dial(t.Context(), client.Config{Addr: w.addr, JID: "alice@" + domain, Password: "a third one", Resource: "third", Entry: client.STARTTLS})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(third.Drop)
	w.notice(third, "Your code is")
	b.sees("who has another password?")
	b.do(chromedp.Click(form("login confirm")+`//input[@type="checkbox"]`, chromedp.BySearch))
	b.sends("login confirm", "is let in with that password")
	w.notice(third, "this is you")
	b.sees("Nothing waits for you")
	w.says(third, "from the third one")
	w.reads(w.bob, "from the third one")
}
