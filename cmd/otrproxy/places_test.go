package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"otrproxy/config"
	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/proxy"
	"otrproxy/proxy/control"
	"otrproxy/proxy/control/commands"
	"otrproxy/proxy/control/page"
	"otrproxy/stanza"
	"otrproxy/test/need"
)

// Every command of the table is used from every place: in a conversation, in the one
// with the service contact, in a client's menus, on the command line over the socket,
// and on the page. Where somebody may not, they are told who may.

const (
	aliceJID = "alice@example.org"
	bobJID   = "bob@example.org"
	carolJID = "carol@example.org" // never there
	canary   = "quetzalcoatlus"    // a secret, which goes nowhere
)

// A scene is alice, her proxy with all its places, and bob with his.
type scene struct {
	t          *testing.T
	s          *server.Server
	dir        string
	p          *proxy.Proxy
	bobs       *proxy.Proxy
	alice, bob *client.Client
	socket     string
	web        *httptest.Server
	room, csrf string
	browser    *http.Client
	asked      int
}

func newScene(t *testing.T) *scene {
	t.Helper()
	c := &scene{t: t, dir: t.TempDir()}
	var err error
	if c.s, err = server.Start(server.Config{Domain: "example.org", Users: map[string]string{"alice": "a", "bob": "b", "carol": "c"}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.s.Close)
	var pg *page.Page
	c.p = c.start("alice", proxy.Options{Link: func() string { return pg.Link() }})
	c.bobs = c.start("bob", proxy.Options{})
	c.web = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { pg.ServeHTTP(w, r) }))
	t.Cleanup(c.web.Close)
	pg = page.New(t.Context(), c.web.Listener.Addr().String(), c.p.Commands, c.p.Watch)
	c.socket = filepath.Join(c.dir, "control.sock")
	l, err := control.Listen(c.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go c.p.Commands().Serve(t.Context(), l)
	c.alice, c.bob = c.login(c.p, "alice", "a"), c.login(c.bobs, "bob", "b")
	c.enter(pg.Link())
	return c
}

func (c *scene) start(who string, opt proxy.Options) *proxy.Proxy {
	c.t.Helper()
	state := filepath.Join(c.dir, who)
	dir := filepath.Join(state, "accounts", who+"@example.org")
	os.MkdirAll(dir, 0o700)
	os.Chmod(state, 0o700)
	os.WriteFile(filepath.Join(dir, "otr.private_key"), need.KeyFile(c.t, who, who+"@example.org", "prpl-jabber"), 0o600)
	file := filepath.Join(c.dir, who+".yaml")
	os.WriteFile(file, fmt.Appendf(nil, "listen: [\"127.0.0.1:0\"]\nstate: %q\nweb: \"127.0.0.1:0\"\ndomains:\n  example.org: {connect: %q, trust: pin, pins: [%q]}\n", state, c.s.Addr(), c.s.Pin()), 0o600)
	cfg, err := config.Load(file)
	if err != nil {
		c.t.Fatal(err)
	}
	p, err := proxy.New(cfg, opt)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := p.Listen(); err != nil {
		c.t.Fatal(err)
	}
	go p.Serve()
	c.t.Cleanup(func() { p.Shutdown(time.Second) })
	return p
}

func (c *scene) login(p *proxy.Proxy, who, password string) *client.Client {
	c.t.Helper()
	cl, err := client.Dial(c.t.Context(), client.Config{Addr: p.Addrs()[0].String(), JID: who + "@example.org", Password: password, Resource: "c", Entry: client.STARTTLS})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(cl.Drop)
	return cl
}

// admin runs a command as the administrator of a proxy, for what comes before.
func (c *scene) admin(p *proxy.Proxy, name string, args ...string) string {
	c.t.Helper()
	m := map[string]string{}
	for i := 0; i < len(args); i += 2 {
		m[args[i]] = args[i+1]
	}
	r, err := p.Commands().Run(c.t.Context(), control.Actor{Place: control.InShell}, name, m)
	if err != nil {
		c.t.Fatalf("%s: %v", name, err)
	}
	return r.Text
}

// told waits until somebody is told something by the proxy.
func (c *scene) told(who *client.Client, pattern string) string {
	c.t.Helper()
	re := regexp.MustCompile(pattern)
	st, err := who.Wait(func(st *stanza.Stanza) bool { return client.Notice(st) && re.MatchString(client.Body(st)) })
	if err != nil {
		var got string
		who.Send("<iq type='get' id='enough' to='otrproxy.localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
		for id := ""; id != "enough"; {
			st, err := who.Wait(func(*stanza.Stanza) bool { return true })
			if err != nil {
				break
			}
			id, got = st.Root().Attr("id"), got+client.Body(st)+"\n"
		}
		c.t.Fatalf("was not told %s: %v; but:\n%s", pattern, err, got)
	}
	return client.Body(st)
}

// private sees to a private conversation between the two.
func (c *scene) private() {
	c.t.Helper()
	c.asked++
	text := fmt.Sprintf("hello %d", c.asked)
	c.alice.Say(bobJID, "p", text)
	if got, err := c.bob.Text(aliceJID); err != nil || got != text {
		c.t.Fatalf("%q %v", got, err)
	}
}

// A way is how a command is used from a place. It returns what is answered there, and
// whether that was done.
type way func(cmd *control.Command, args map[string]string, want string) (text string, done bool)

func (c *scene) ways() map[string]way {
	line := func(cmd *control.Command, args map[string]string, service bool) string {
		name := cmd.Short
		if name == "" {
			name = cmd.Name
		}
		words := []string{name}
		for i, x := range cmd.Args {
			switch v := args[x.Name]; {
			case x.Kind == control.Account, x.Kind == control.Contact && !service, v == "":
			case x.Kind == control.Secret && i > 0 && cmd.Args[i-1].Kind == control.Rest:
				words = append(words, "| "+v)
			default:
				words = append(words, v)
			}
		}
		return strings.Join(words, " ")
	}
	chat := func(to, text, want string) (string, bool) {
		c.asked++ // what was said before is no answer
		c.alice.Send(fmt.Sprintf("<iq type='get' id='ping%d' to='otrproxy.localhost'><ping xmlns='urn:xmpp:ping'/></iq>", c.asked))
		for id := ""; id != fmt.Sprint("ping", c.asked); {
			st, err := c.alice.Wait(func(*stanza.Stanza) bool { return true })
			if err != nil {
				c.t.Fatal(err)
			}
			id = st.Root().Attr("id")
		}
		c.alice.Say(to, "", text)
		answer := c.told(c.alice, "(?s)"+want+"|is for the administrator")
		return answer, !strings.Contains(answer, "is for the administrator")
	}
	return map[string]way{
		"conversation": func(cmd *control.Command, args map[string]string, want string) (string, bool) {
			to := args["contact"]
			if to == "" {
				to = bobJID
			}
			return chat(to, "!otr "+line(cmd, args, false), want)
		},
		"service contact": func(cmd *control.Command, args map[string]string, want string) (string, bool) {
			return chat("otrproxy.localhost", line(cmd, args, true), want)
		},
		"menu":         c.menu,
		"command line": c.shell,
		"page":         c.onPage,
	}
}

// menu uses a command as an ad-hoc command.
func (c *scene) menu(cmd *control.Command, args map[string]string, _ string) (string, bool) {
	c.t.Helper()
	step := func(inner string) *stanza.Stanza {
		c.asked++
		id := fmt.Sprint("adhoc", c.asked)
		c.alice.Send(fmt.Sprintf("<iq type='set' id='%s' to='otrproxy.localhost'><command xmlns='http://jabber.org/protocol/commands' node='%s' action='execute'%s</command></iq>", id, cmd.Name, inner))
		st, err := c.alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == id })
		if err != nil {
			c.t.Fatal(err)
		}
		return st
	}
	st := step(">")
	if st.Root().Attr("type") == "error" {
		return string(st.Raw), false
	}
	el, _ := st.Root().Child("http://jabber.org/protocol/commands", "command")
	if el.Attr("status") == "executing" {
		var b []byte
		b = append(stanza.AppendAttr(b, "sessionid", el.Attr("sessionid")), "><x xmlns='jabber:x:data' type='submit'>"...)
		form, _ := el.Child("jabber:x:data", "x")
		for f := range form.Children() {
			if v := args[f.Attr("var")]; f.Is("jabber:x:data", "field") && v != "" {
				b = append(stanza.AppendAttr(append(b, "<field"...), "var", f.Attr("var")), "><value>"...)
				b = append(stanza.AppendEscaped(b, v), "</value></field>"...)
			}
		}
		st = step(" " + string(append(b, "</x>"...)))
		el, _ = st.Root().Child("http://jabber.org/protocol/commands", "command")
	}
	note, ok := el.Child("http://jabber.org/protocol/commands", "note")
	form, _ := el.Child("jabber:x:data", "x")
	return form.AllText(), ok && el.Attr("status") == "completed" && note.Attr("type") == "info"
}

// shell uses a command on the command line, for people and for programs.
func (c *scene) shell(cmd *control.Command, args map[string]string, _ string) (string, bool) {
	c.t.Helper()
	if cmd.Name == "help" { // from the same table, without a proxy
		var out bytes.Buffer
		root := rootCommand(terminal{strings.NewReader(""), &out, &out})
		root.SetArgs([]string{"help", "contact", "verify"})
		err := root.Execute()
		return out.String(), err == nil && strings.Contains(out.String(), "ACCOUNT CONTACT [FINGERPRINT]")
	}
	words, secret := strings.Fields(cmd.Name), ""
	for _, x := range cmd.Args {
		v := args[x.Name]
		switch {
		case x.Kind == control.Secret:
			secret = v
		case v == "":
		case x.Kind == control.Flag:
			words = append(words, "--"+x.Name)
		case x.Kind == control.Option:
			words = append(words, "--"+x.Name, v)
		default:
			words = append(words, v)
		}
	}
	run := func(more ...string) (string, error) {
		var out bytes.Buffer
		root := rootCommand(terminal{strings.NewReader(secret + "\n"), &out, io.Discard})
		root.SetArgs(append(slices.Clone(words), append(more, "--socket", c.socket)...))
		err := root.Execute()
		return out.String(), err
	}
	text, err := run()
	if err != nil {
		return err.Error(), false
	}
	if cmd.Reads {
		out, err := run("--json")
		var list any
		if err != nil || json.Unmarshal([]byte(out), &list) != nil || list == nil {
			c.t.Errorf("%s --json: %v %s", cmd.Name, err, out)
		}
	}
	return text, true
}

func (c *scene) enter(link string) {
	c.t.Helper()
	jar, _ := cookiejar.New(nil)
	c.browser = &http.Client{Jar: jar}
	c.room = regexp.MustCompile(`href="(/[a-z0-9]{20,}/)"`).FindStringSubmatch(c.get(link))[1]
	c.csrf = regexp.MustCompile(`name="csrf" value="([^"]+)"`).FindStringSubmatch(c.get(c.web.URL + c.room))[1]
}

func (c *scene) get(address string) string {
	c.t.Helper()
	res, err := c.browser.Get(address)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return string(b)
}

// onPage uses a command by the form that the page makes of it.
func (c *scene) onPage(cmd *control.Command, args map[string]string, _ string) (string, bool) {
	c.t.Helper()
	here := "commands?name=" + url.QueryEscape(cmd.Name)
	form := c.get(c.web.URL + c.room + here)
	values := url.Values{"csrf": {c.csrf}, "command": {cmd.Name}, "back": {here}}
	for _, x := range cmd.Args {
		if args[x.Name] == "" {
			continue
		}
		if !cmd.Files && !strings.Contains(form, `name="arg.`+x.Name+`"`) {
			c.t.Errorf("the form of %s does not ask for %s", cmd.Name, x.Name)
		}
		values.Set("arg."+x.Name, args[x.Name])
	}
	r, _ := http.NewRequest("POST", c.web.URL+c.room+"do", strings.NewReader(values.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", c.web.URL)
	res, err := c.browser.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	m := regexp.MustCompile(`(?s)<section id="answer" class="answer( failed)?".*?<pre>(.*?)</pre>`).FindStringSubmatch(string(b))
	if m == nil {
		return string(b), false
	}
	return html.UnescapeString(m[2]), m[1] == ""
}

// rows are how each command is tried.
func (c *scene) rows() map[string]row {
	contact := map[string]string{"account": aliceJID, "contact": bobJID}
	with := func(more ...string) map[string]string {
		m := map[string]string{"account": aliceJID, "contact": bobJID}
		for i := 0; i < len(more); i += 2 {
			m[more[i]] = more[i+1]
		}
		return m
	}
	bobsPrint := regexp.MustCompile(`[0-9A-F]{8}( [0-9A-F]{8}){4}`).FindString(c.admin(c.bobs, "key show"))
	profile := filepath.Join(c.dir, "profile")
	os.Mkdir(profile, 0o700)
	os.WriteFile(filepath.Join(profile, "otr.private_key"), need.KeyFile(c.t, "carol", "dora@example.org/Pidgin", "prpl-jabber"), 0o600)
	pin := "sha256:" + strings.Repeat("AB:", 31) + "AB"
	waiting := func() {
		c.alice.Say(carolJID, "h", "x")
		c.told(c.alice, "carol@example.org is not online")
	}

	code := map[string]string{"account": aliceJID}
	stranger := func() {
		c.s.SetPassword("alice", "another one")
		cl, err := client.Dial(c.t.Context(), client.Config{Addr: c.p.Addrs()[0].String(), JID: aliceJID, Password: "another one", Resource: "new", Entry: client.STARTTLS})
		if err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup(cl.Drop)
		code["code"] = regexp.MustCompile(`login confirm (\d{4})`).FindStringSubmatch(c.told(c.alice, "Was it you"))[1]
	}

	return map[string]row{
		"help":           {want: "compares a fingerprint"},
		"status":         {want: "alice@example.org/c: server at"},
		"contact list":   {want: "bob@example.org: private"},
		"contact show":   {args: contact, want: "Their fingerprint: " + bobsPrint},
		"contact verify": {args: with("fingerprint", strings.ToLower(bobsPrint)), want: "is verified"},
		"contact distrust": {args: contact, before: func() {
			c.admin(c.p, "contact verify", "account", aliceJID, "contact", bobJID, "fingerprint", bobsPrint)
		}, want: "not verified any more"},
		"contact policy": {args: contact, want: "bob@example.org: require"},
		"contact start":  {args: contact, want: "Asked bob@example.org"},
		"contact end":    {args: contact, before: c.private, want: "is over"},
		"smp ask": {args: with("question", "which dinosaur?", "secret", canary), want: "Asked bob@example.org", after: func() {
			c.told(c.bob, "which dinosaur")
			c.bob.Say(aliceJID, "", "!otr smp abort")
			c.told(c.alice, "was given up")
		}},
		"smp start": {args: with("secret", canary), want: "Asked bob@example.org", after: func() {
			c.told(c.bob, "wants to compare a secret")
			c.bob.Say(aliceJID, "", "!otr smp answer "+canary)
			c.told(c.alice, "The secrets are the same")
			c.told(c.bob, "The secrets are the same")
		}},
		"smp answer": {args: with("secret", canary), before: func() {
			c.bob.Say(aliceJID, "", "!otr smp ask which? | "+canary)
			c.told(c.alice, "which\\?")
		}, want: "is being compared", after: func() { c.told(c.alice, "Your answer was right") }},
		"smp abort": {args: contact, before: func() {
			c.bob.Say(aliceJID, "", "!otr smp start "+canary)
			c.told(c.alice, "wants to compare a secret")
		}, want: "was given up", after: func() { c.told(c.bob, "was given up") }},
		"held list":      {args: map[string]string{"account": aliceJID, "contact": carolJID}, before: waiting, want: "to carol@example.org: waits for a private"},
		"held send":      {args: map[string]string{"account": aliceJID, "contact": carolJID}, before: waiting, want: "1 message waits for carol@"},
		"held drop":      {args: map[string]string{"account": aliceJID, "contact": carolJID}, before: waiting, want: "1 message taken back"},
		"key show":       {args: map[string]string{"account": aliceJID}, want: "xmpp:alice@example.org\\?otr-fingerprint=[0-9a-f]{40}"},
		"key generate":   {args: map[string]string{"account": "erin@example.org"}, want: "has the fingerprint"},
		"key import":     {args: map[string]string{"path": profile}, want: "(taken over|is here already), fingerprint"},
		"key export":     {args: map[string]string{"account": aliceJID, "directory": filepath.Join(c.dir, "out")}, want: "are in"},
		"key passphrase": {args: map[string]string{"passphrase": "correct horse " + canary}, want: "are encrypted"},
		"key unlock":     {args: map[string]string{"passphrase": "correct horse " + canary}, before: func() { c.admin(c.p, "key passphrase", "passphrase", "correct horse "+canary) }, want: "are unlocked"},
		"login list":     {args: map[string]string{"account": aliceJID}, want: "alice@example.org logs in by SCRAM-SHA-256-PLUS tls-exporter \\(bound"},
		"login enroll":   {args: map[string]string{"account": aliceJID, "password": "a"}, want: "is enrolled for SCRAM-SHA-256"},
		"login forget":   {args: map[string]string{"account": aliceJID}, want: "is not enrolled"},
		"login confirm":  {args: code, before: stranger, want: "that (password|login)"},
		"login refuse":   {args: code, before: stranger, want: "That login is over"},
		"pin list":       {want: "example.org sha256:.*current, configuration"},
		"pin show":       {args: map[string]string{"domain": "example.org"}, want: "trust pin"},
		"pin probe":      {args: map[string]string{"domain": "example.org"}, want: "It satisfies a pin"},
		"pin add":        {args: map[string]string{"domain": "example.org", "pin": pin, "next": "yes"}, want: "is held to " + pin},
		"pin remove":     {args: map[string]string{"domain": "example.org", "pin": pin}, before: func() { c.admin(c.p, "pin add", "domain", "example.org", "pin", pin) }, want: "is not held to"},
		"ca export":      {want: "BEGIN CERTIFICATE"},
		"ca show":        {want: "SHA-256 ([0-9A-F]{2}:){31}[0-9A-F]{2}"},
		"doctor":         {args: map[string]string{"name": aliceJID}, want: "ok .*it is the one that is pinned"},
		"reload":         {want: "alice.yaml is in force"},
		"web":            {want: "http://127.0.0.1:[0-9]+/enter\\?token=[A-Z0-9]{20}"},
	}
}

// A row says how a command is tried.
type row struct {
	args   map[string]string
	before func()
	want   string // what is answered
	after  func() // what has to come of it
}

// TestEveryCommandInEveryPlace tries each on a scene of its own.
func TestEveryCommandInEveryPlace(t *testing.T) {
	table := commands.Words()
	tried := map[string]bool{}
	places := []string{"conversation", "service contact", "menu", "command line", "page"}
	text := fmt.Sprintf("%-18s", "command")
	for _, place := range places {
		text += fmt.Sprintf("%-17s", place)
	}
	for i := range table {
		cmd := &table[i]
		text += fmt.Sprintf("\n%-18s", cmd.Name)
		for j, place := range places {
			word := "FAILED"
			t.Run(cmd.Name+"/"+place, func(t *testing.T) {
				c := newScene(t)
				row, ok := c.rows()[cmd.Name]
				if !ok {
					t.Fatal("is not tried")
				}
				c.private()
				mayNot := j < 3 && !cmd.Chat || cmd.Files && place != "command line" // a person's places, and where there are no files
				if row.before != nil && !mayNot {
					row.before()
				}
				answer, done := c.ways()[place](cmd, row.args, row.want)
				switch {
				case mayNot && (done || !strings.Contains(answer, "administrator")):
					t.Errorf("a person could, or was not told who can: %s", answer)
				case mayNot:
					if word = "not for persons"; place == "page" {
						word = "not here"
					}
				case !done || !regexp.MustCompile("(?s)"+row.want).MatchString(answer):
					t.Error(answer)
				default:
					word = "done"
				}
				if row.after != nil && !mayNot {
					row.after()
				}
				if strings.Contains(string(c.s.Received()), canary) {
					t.Error("a secret left the machine")
				}
			})
			text += fmt.Sprintf("%-17s", word)
		}
		tried[cmd.Name] = true
	}
	for name := range newScene(t).rows() {
		if !tried[name] {
			t.Errorf("there is no command %s", name)
		}
	}
	t.Logf("every command in every place:\n%s", text)
}
