//go:build linux

package real

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"otrproxy/test/chromium"
	"otrproxy/test/need"
)

// conversePage logs in by itself; the test asks the program what it is connected to.
const conversePage = `<!DOCTYPE html><html><head><meta charset="utf-8"><title>Converse</title><link rel="stylesheet" href="/dist/converse.min.css"></head>
<body class="converse-fullscreen"><script type="module">
import converse from "/dist/converse.min.js";
converse.plugins.add("watch", {initialize() {
	const api = this._converse.api;
	window.api = api;
	api.listen.on("rosterContactsFetched", () => window.online = true);
	api.listen.on("disconnected", () => window.ended = true);
}});
const settings = %s;
converse.initialize({...settings, authentication: "login", auto_login: true, auto_subscribe: true, auto_reconnect: false, discover_connection_methods: false,
	assets_path: "/dist", i18n: "en", loglevel: "debug", view_mode: "fullscreen", show_controlbox_by_default: true, enable_muc: false,
	whitelisted_plugins: ["watch"], blacklisted_plugins: ["converse-omemo", "converse-omemo-views"]});
</script></body></html>`

// converse is Converse.js in a browser, as the client of somebody behind the proxy.
type converse struct {
	*chromium.Tab
	t    *testing.T
	page string
}

// serveConverse serves the program and a page with it that logs in as somebody at the
// WebSocket entry at an address, and returns where.
func serveConverse(t *testing.T, jid, entry string) (page string) {
	t.Helper()
	dist := filepath.Join("..", "browser", "node_modules", "converse.js", "dist")
	if _, err := os.Stat(filepath.Join(dist, "converse.min.js")); err != nil {
		need.Missing(t, "converse.js (npm)")
	}
	settings, _ := json.Marshal(map[string]string{"jid": jid, "password": "secret", "websocket_url": entry})
	mux := http.NewServeMux()
	mux.Handle("/dist/", http.StripPrefix("/dist/", http.FileServer(http.Dir(dist))))
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, conversePage, settings)
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: mux}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return "http://" + l.Addr().String() + "/"
}

// enter opens the page, and waits until the account is online.
func (c *converse) enter() {
	c.t.Helper()
	c.Do(chromedp.Navigate(c.page))
	c.online()
}

func (c *converse) online() {
	c.t.Helper()
	c.Until(`window.online`)
}

// opens shows the conversation with somebody.
func (c *converse) opens(jid string) {
	c.t.Helper()
	name, _ := json.Marshal(jid)
	c.Do(chromedp.Evaluate(`api.chats.open(`+string(name)+`, {}, true).then(() => true)`, nil, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }),
		chromedp.WaitVisible(`textarea.chat-textarea`))
}

// say types into the conversation that is shown.
func (c *converse) say(text string) {
	c.t.Helper()
	c.Do(chromedp.SendKeys(`textarea.chat-textarea`, text+kb.Enter))
}

// reads waits for a text of the conversation that is shown.
func (c *converse) reads(text string) {
	c.t.Helper()
	quoted, _ := json.Marshal(text)
	c.Until(`[...document.querySelectorAll(".chat-msg__text")].some(e => e.innerText.includes(` + string(quoted) + `))`)
}

// Somebody with Converse.js in a browser talks to a contact with mcabber.
func TestConverse(t *testing.T) {
	s := startProsody(t, "starttls")
	h := startOTRProxy(t, s, "")
	s.register(t, "alice", "bob")
	jid := "alice@" + s.domain
	alice := &converse{Tab: chromium.Open(t, nil), t: t, page: serveConverse(t, jid, "ws://"+h.addr+"/xmpp-websocket")}
	alice.enter()
	bob := startMcabber(t, s, "bob", jid)
	alice.opens(bob.jid())
	sent := strings.ReplaceAll(typed, "<3", "❤")                   // Converse does
	back := `a < b && c > d "quoted" 'single' &amp; <b>bold</b> ü` // Converse shows emoji a character off
	alice.say(typed)
	bob.reads(sent)
	bob.say(back)
	alice.reads(back)
	alice.say("!otr status")
	alice.reads("[otrproxy] otrproxy")

	st := h.status(t).Sessions
	if len(st) != 1 || st[0].Entry != "websocket" || st[0].ClientTLS != "" || len(st[0].Conversations) != 1 || st[0].Conversations[0].State != "encrypted" {
		t.Errorf("status %+v", st)
	}

	// The page comes again, and the talk goes on.
	alice.Do(chromedp.Reload())
	alice.online()
	alice.opens(bob.jid())
	alice.say(typed + " again")
	bob.reads(sent + " again")
	bob.say(back + " and back")
	alice.reads(back + " and back")
	unseen(t, s)
	if strings.Contains(s.received(), "!otr") {
		t.Error("the server has seen a command")
	}
}

// Over TLS, with a certificate of the proxy's own CA.
func TestConverseTLS(t *testing.T) {
	s := startProsody(t, "starttls")
	h := startOTRProxy(t, s, "")
	s.register(t, "alice")
	jid := "alice@" + s.domain

	// Without tools of others' no CA gets into Chromium's list, so the CA is asked here, and
	// Chromium is told which key it has vouched for.
	key := sha256.Sum256(vouched(t, h, "127.0.0.1").RawSubjectPublicKeyInfo)
	alice := &converse{t: t, page: serveConverse(t, jid, "wss://"+h.addr+"/xmpp-websocket"),
		Tab: chromium.Open(t, nil, chromedp.Flag("ignore-certificate-errors-spki-list", base64.StdEncoding.EncodeToString(key[:])))}
	alice.enter()
	if st := h.status(t).Sessions; len(st) != 1 || st[0].Entry != "websocket" || st[0].ClientTLS != "TLS 1.3" {
		t.Errorf("status %+v", st)
	}
}

// A page of somebody else's gets nowhere.
func TestConverseFromElsewhere(t *testing.T) {
	s := startProsody(t, "starttls")
	h := startOTRProxy(t, s, "")
	s.register(t, "alice")
	before := s.received()
	page := serveConverse(t, "alice@"+s.domain, "ws://"+h.addr+"/xmpp-websocket")
	_, port, _ := net.SplitHostPort(strings.Trim(strings.TrimPrefix(page, "http://"), "/"))
	b := chromium.Open(t, []string{"attacker.example"})
	b.Do(chromedp.Navigate("http://attacker.example:" + port + "/"))
	h.says(t, `a client's WebSocket was refused.*pages from there may not connect`)
	b.Until(`window.ended`)
	// Nor under a name of its own for this machine.
	_, entry, _ := net.SplitHostPort(h.addr)
	b.Do(chromedp.Evaluate(`window.over = false; new WebSocket("ws://attacker.example:`+entry+`/xmpp-websocket", "xmpp").onclose = () => window.over = true`, nil))
	b.Until(`window.over`)
	h.says(t, `a client's WebSocket was refused.*this is not the address of otrproxy`)
	if st := h.status(t).Sessions; len(st) != 0 {
		t.Errorf("status %+v", st)
	}
	if after := s.received(); after != before {
		t.Errorf("the server was told %s", after[len(before):])
	}
}
