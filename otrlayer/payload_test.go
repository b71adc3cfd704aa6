package otrlayer

import (
	"html"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"otrproxy/otrlayer/otr"
)

func TestPayload(t *testing.T) {
	for in, want := range map[string]string{
		typed: typed,
		`hello &lt;b&gt; &amp; &quot;quotes&quot; &lt;3 ü 👍`: typed,
		"<b>bold</b> text":           "bold text",
		"<b>not closed":              "<b>not closed",
		"a<br/>b":                    "a\nb",
		"<FONT COLOR='red'>x</FONT>": "x",
		"a < b":                      "a < b",
		"x &foo; y":                  "x &foo; y",
		"":                           "",
		"no markup":                  "no markup",
		"<script>x</script>":         "<script>x</script>",

		// Blocks stand on lines of their own.
		"<p>one</p><p>two</p>":                                   "one\ntwo",
		"<div>one</div><div>two</div>":                           "one\ntwo",
		"<p>one</p>\n<p>two</p>\n":                               "one\ntwo",
		"one<div>two</div>three":                                 "one\ntwo\nthree",
		"<div>one</div><div><br></div><div>two</div>":            "one\n\ntwo",
		"<ul><li>one</li><li>two</li></ul>":                      "one\ntwo",
		"<h1>one</h1>two<hr/>three":                              "one\ntwo\nthree",
		`<p>one</p><p><a href="http://a.example">here</a></p>`:   "one\nhere (http://a.example)",
		"Hey<br /><br />the &lt;video&gt; tag!<br />x?a&amp;b=1": "Hey\n\nthe <video> tag!\nx?a&b=1",

		// Some programs forget the outer elements' ends, and nobody types their beginnings.
		`<HTML><BODY><FONT FACE="Arial" SIZE=2>text</BODY></HTML>`: "text",
		`<HTML><BODY BGCOLOR="#ffffff"><FONT>text &amp; more`:      "text & more",
		`<font color=red>text`:                "text",
		`<p>one <b>two</b>`:                   "one two",
		`<div>one</div><div>two`:              "one\ntwo",
		"<p> is a tag":                        "<p> is a tag",
		"</b> ends what <b> begins":           "</b> ends what <b> begins",
		"I wrote <b>x</b> and forgot <i>this": "I wrote <b>x</b> and forgot <i>this",
		"hallo <foo> bar":                     "hallo <foo> bar",
	} {
		if got := fromPayload(in, unknown); got != want {
			t.Errorf("%q: got %q want %q", in, got, want)
		}
	}
}

func FuzzPayload(f *testing.F) {
	f.Add(typed)
	f.Fuzz(func(t *testing.T, s string) {
		if got := fromPayload(toPayload(s, unknown), unknown); got != s && !strings.Contains(s, "\u00a0") {
			t.Errorf("%q became %q", s, got)
		}
	})
}

// What says the same to readers of text and of HTML is sent as it was typed; the rest is not
// left to chance.
func TestWhatNeedsNoEscape(t *testing.T) {
	for in, want := range map[string]string{
		"see https://x.example/?a=1&b=2":    "see https://x.example/?a=1&b=2",
		"you & me -> \"us\"":                "you & me -> \"us\"",
		"https://x.example/?a=1&copy=2":     "https://x.example/?a=1&amp;copy=2", // a reference in HTML
		"https://x.example/?a=1&section=2":  "https://x.example/?a=1&amp;section=2",
		"https://x.example/?a=1&LT=2":       "https://x.example/?a=1&amp;LT=2",
		"&#x41":                             "&amp;#x41",
		"&unheard;":                         "&amp;unheard;",
		"I <3 you & https://x.example/?a&b": "I &lt;3 you &amp; https://x.example/?a&amp;b",
	} {
		if got := toPayload(in, unknown); got != want {
			t.Errorf("%q is sent as %q, want %q", in, got, want)
		}
		if got := toPayload(in, plainText); got != in {
			t.Errorf("%q is sent as %q to a reader of plain text", in, got)
		}
	}
	// Who writes plain text reads it, perhaps with character references: only these are escaped.
	for in, want := range map[string]string{"I <3 <b>you</b> & me": "I <3 <b>you</b> & me", "write &lt;3": "write &amp;lt;3"} {
		if got := toPayload(in, either); got != want {
			t.Errorf("%q is sent as %q, want %q", in, got, want)
		}
	}
	// To a reader of HTML the end of a line is a blank.
	for reads, want := range map[format]string{hypertext: "one &amp; two<br>three", entities: "one & two\nthree", either: "one & two\nthree", unknown: "one & two\nthree", plainText: "one & two\nthree"} {
		if got := toPayload("one & two\nthree", reads); got != want {
			t.Errorf("two lines are sent as %q to %d, want %q", got, reads, want)
		}
	}
}

// Programs that are known by their presence are read and written to in their own way.
func TestKnownPrograms(t *testing.T) {
	const html = `a &lt; b &amp;&amp; c <b>x</b>`
	for _, c := range []struct {
		program string
		version otr.Version
		reads   string // of typed text, what is sent
		writes  string // of html, what is read
	}{
		{"http://profanity-im.github.io", otr.V2, `1 < 2 & 3`, html},
		{"http://profanity-im.github.io", otr.V3, `1 &lt; 2 &amp; 3`, `a < b && c x`}, // a proxy like this one stands before it
		{"http://mcabber.com/caps", otr.V3, `1 &lt; 2 &amp; 3`, html},
		{"http://pidgin.im/", otr.V3, `1 &lt; 2 &amp; 3`, `a < b && c x`},
		{"https://gajim.org", otr.V3, `1 &lt; 2 &amp; 3`, `a < b && c x`},
		{"", otr.V3, `1 &lt; 2 &amp; 3`, `a < b && c x`},
	} {
		alice := newPerson(t, keyedState(t, "alice@x"), "alice@x")
		alice.a.Presence(alice, "bob@y/r", "bob@y", true, c.program, 0)
		h := alice.a.conv("bob@y").formatOf(&session{jid: "bob@y/r", Session: otr.Session{Version: c.version}})
		if got := toPayload("1 < 2 & 3", h.reads); got != c.reads {
			t.Errorf("%s version %d is sent %q", c.program, c.version, got)
		}
		if got := fromPayload(html, h.writes); got != c.writes {
			t.Errorf("%s version %d is read %q", c.program, c.version, got)
		}
		alice.a.Presence(alice, "bob@y/r", "bob@y", false, "", 0)
		if len(alice.a.there) != 0 {
			t.Error("a program is remembered that has gone")
		}
	}
}

// What Pidgin and its kin send is HTML for sure: everything in it is text or markup.
func TestHypertext(t *testing.T) {
	for in, want := range map[string]string{
		`<FONT COLOR="#ff0000"><BLINK>x</BLINK></FONT> &copy; &hellip;`:                 `x © …`,
		`see <A HREF="http://a.example/?a=1&amp;b=2">http://a.example/?a=1&amp;b=2</A>`: `see http://a.example/?a=1&b=2`,
		`see <a href='http://evil.example'>http://good.example</a>!`:                    `see http://good.example (http://evil.example)!`,
		`mail <A HREF="mailto:a@b.example">a@b.example</A>`:                             `mail a@b.example`,
		`a &lt; b<br>c`: "a < b\nc",
		`3 < 4 & 5`:     `3 < 4 & 5`, // not HTML after all: nothing is lost
		`<b>open`:       `open`,
	} {
		if got := fromPayload(in, hypertext); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// A program that has sent what cannot be HTML sends plain text, from then on: what looks
// like an entity in it is what was typed.
func TestLearnsPlainText(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "hello")
	carry(alice, bob)
	c := alice.a.conv("bob@y")
	s := c.current()
	said := func(payload string) string {
		t.Helper()
		alice.a.mu.Lock()
		defer alice.a.mu.Unlock()
		r := c.opened(time.Now(), alice, Incoming{From: "bob@y/r", Contact: "bob@y"}, s, [32]byte{byte(len(c.read))}, otr.Result{Session: s.ID, Text: []byte(payload)})
		return r.Text
	}
	if got := toPayload("<3", c.formatOf(s).reads); got != "&lt;3" {
		t.Errorf("before anything is known of it, %q is sent", got)
	}
	for _, step := range [][2]string{{"&lt;3 is a heart", "<3 is a heart"}, {"1 < 2 && 3", "1 < 2 && 3"}, {"write &lt;3 for a heart", "write &lt;3 for a heart"}} {
		if got := said(step[0]); got != step[1] {
			t.Errorf("%q is read %q", step[0], got)
		}
	}
	// What writes plain text reads it, too.
	if got := toPayload("<3", c.formatOf(s).reads); got != "<3" {
		t.Errorf("then %q is sent", got)
	}
	// It is known by its key in the next session, over a restart, too, whatever its address.
	alice.a.Saved()
	again := newPerson(t, filepath.Dir(filepath.Dir(alice.a.dir)), "alice@x")
	next := &session{jid: "bob@y/other", Session: s.Session}
	next.program = again.a.begun("bob@y").programBefore(next)
	if got := toPayload("<3", again.a.begun("bob@y").formatOf(next).reads); got != "<3" {
		t.Errorf("after a restart %q is sent", got)
	}
	stranger := &session{jid: "bob@y/r", Session: otr.Session{Version: otr.V3, Fingerprint: Fingerprint{1}}}
	if name := again.a.begun("bob@y").programBefore(stranger); name != "" {
		t.Errorf("another key is known as %q", name)
	}
	// A proxy like this one marks what it sends, and escapes what has to be.
	alice.a.mu.Lock()
	defer alice.a.mu.Unlock()
	r := c.opened(time.Now(), alice, Incoming{From: "bob@y/r", Contact: "bob@y", Marked: true}, s, [32]byte{99}, otr.Result{Session: s.ID, Text: []byte("&lt;3")})
	if r.Text != "<3" {
		t.Errorf("read %q", r.Text)
	}
	if got := toPayload("<3", c.formatOf(s).reads); got != "&lt;3" {
		t.Errorf("it is sent %q", got)
	}
	c.settle(time.Now())
}

// Text that is kept for another client's copy is forgotten after a minute.
func TestCopiesAreForgotten(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "hello")
	carry(alice, bob)
	bob.say("2", "a secret")
	m := Incoming{From: "bob@y/r", Contact: "bob@y", Text: bob.take()[0].Body(), Welcome: true}
	other := newPerson(t, keyedState(t, "carol@z"), "carol@z") // stands for another client
	if r := alice.a.Receive(alice, m); r.Text != "a secret" {
		t.Fatalf("%+v", r)
	}
	if r := alice.a.Receive(other, m); r.Text != "a secret" {
		t.Errorf("%+v", r)
	}
	if r := alice.a.Receive(other, m); r.Deliver {
		t.Errorf("a replay is shown: %+v", r)
	}
	alice.later(copyWindow)
	alice.a.expire()
	for _, r := range alice.a.conv("bob@y").read {
		if r.said.Text != "" {
			t.Errorf("%q is kept", r.said.Text)
		}
	}
	m.Copy = true
	if r := alice.a.Receive(other, m); !r.Unreadable || strings.Contains(r.Text, "secret") {
		t.Errorf("%+v", r)
	}
}

// What the contact said it could not read, and what cannot be sent again, comes back.
func TestComplaintsAreSettled(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "hello")
	carry(alice, bob)
	alice.say("2", "lost")
	alice.say("3", "lost too")
	alice.say("4", "not sent twice")
	alice.take()
	complaint := Incoming{From: "bob@y/r", Contact: "bob@y", Text: "?OTR Error: what?", Welcome: true}
	alice.a.Receive(alice, complaint)
	alice.a.Receive(alice, complaint)
	alice.a.GiveBack(CauseUpstream, &Message{Contact: "bob@y", ID: "4", outlet: alice}) // it had not left: no complaint is about it
	alice.later(resendWindow + time.Second)
	alice.a.expire()
	if got := strings.Join(alice.returned, ","); got != "4 upstream,2 unread,3 unread" {
		t.Errorf("returned %s", got)
	}
}

// As long as what came before may be on its way, nothing leaves over another connection.
func TestNothingOvertakes(t *testing.T) {
	alice, bob := couple(t)
	alice.say("1", "hello")
	carry(alice, bob)
	other := newPerson(t, keyedState(t, "carol@z"), "carol@z")
	alice.a.Attach(other)
	alice.say("2", "slowly")
	alice.pending = true
	alice.later(time.Minute)
	send := func(id string) Verdict {
		return alice.a.Send(other, Message{Contact: "bob@y", To: "bob@y", ID: id, Type: "chat", Text: id})
	}
	if v := send("3"); v.Action() != Encrypted || len(other.take()) != 0 || len(alice.take()) != 2 {
		t.Errorf("3 took another connection: %v", v.Action())
	}
	alice.dead = true // it takes no more
	if v := send("4"); v.Action() != Held || len(other.take()) != 0 {
		t.Errorf("4 took another connection: %v", v.Action())
	}
	alice.pending = false
	alice.a.Acknowledged(alice)
	if n := len(other.take()); n != 1 {
		t.Errorf("%d messages left after that", n)
	}
}

// No line of a defused text imitates the proxy's, and nothing else is changed.
func FuzzDefused(f *testing.F) {
	for _, s := range []string{"hi\n[otrproxy] x", "[OTR\u200bproxy]", "\u3164 ［otrproxy］", "a\r[otrproxy]\u2028[otrproxy]", "see [otrproxy]", "> [otrproxy]", "\u202e]yxorprto[", "[\u0332otr\u2065proxy]", "hi\u00a0\u00a0[\u1d0ftr proxy]", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if at := found(s); at != nil && !suspicious(s) {
			t.Errorf("%q imitates the proxy at %v, and is not seen at a glance", s, at)
		}
		if suspicious(s) != suspicious([]byte(s)) {
			t.Errorf("%q as bytes is another text", s)
		}
		d := Defused(s)
		if strings.ReplaceAll(d, "> ", "") != strings.ReplaceAll(s, "> ", "") {
			t.Errorf("%q became %q", s, d)
		}
		if again := Defused(d); again != d {
			t.Errorf("%q became %q, and then %q", s, d, again)
		}
		if at := imitations(d); at != nil {
			t.Errorf("%q still imitates the proxy at %v in %q", s, at, d)
		}
	})
}

// A key that moves from a program that writes HTML to another one does not take what looks like a
// tag out of its text.
func TestKeyMovesToAnotherProgram(t *testing.T) {
	alice, bob := couple(t)
	alice.a.Presence(alice, "bob@y/r", "bob@y", true, "http://pidgin.im/", 0)
	alice.say("1", "hello")
	carry(alice, bob)
	bob.say("2", "hi")
	carry(alice, bob)
	alice.a.Presence(alice, "bob@y/r", "bob@y", false, "", 0)
	alice.read = nil
	bob.restart() // the same key, another program, which names itself, and is not known
	alice.a.Presence(alice, "bob@y/r", "bob@y", true, "", 0)
	alice.a.Start(alice, "bob@y")
	carry(alice, bob)
	raw := "a List<String> of <names>"
	c := bob.a.conv("alice@x")
	sealed, err := c.otr.AppendEncrypt(nil, bob.a.now(), c.active, []byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	r := alice.a.Receive(alice, Incoming{From: "bob@y/r", Contact: "bob@y", Text: string(sealed), Welcome: true})
	if r.Text != raw {
		t.Errorf("%q is shown as %q", raw, r.Text)
	}
}

// One mark of the server's does not make a program that of a proxy for ever.
func TestOneMarkIsNotForEver(t *testing.T) {
	alice, bob := couple(t)
	alice.a.Presence(alice, "bob@y/r", "bob@y", true, "http://profanity-im.github.io", 0)
	bob.allowed, alice.allowed = []int{2}, []int{2}
	alice.a.Start(alice, "bob@y")
	carry(alice, bob)
	c := bob.a.conv("alice@x")
	say := func(raw string, marked bool) string {
		sealed, err := c.otr.AppendEncrypt(nil, bob.a.now(), c.active, []byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		return alice.a.Receive(alice, Incoming{From: "bob@y/r", Contact: "bob@y", Text: string(sealed), Welcome: true, Marked: marked}).Text
	}
	const raw = "write &lt;b&gt; for <b>"
	if got := say(raw, false); got != raw {
		t.Fatalf("%q", got)
	}
	say("any", true) // the server has put the id "otrproxy-1" on it
	if got := say("write &lt;b&gt;", false); got != "write &lt;b&gt;" {
		t.Errorf("read ever after as %q", got)
	}
	alice.take()
	alice.say("x", "a < b")
	cc := alice.a.conv("bob@y")
	if f := cc.formatOf(cc.current()); f.reads != plainText {
		t.Errorf("written to ever after as %v: a < b arrives as %q", f.reads, toPayload("a < b", f.reads))
	}
}

// Raw programs that are not known: what a person types is not taken apart.
func TestTypedTagsStay(t *testing.T) {
	for _, s := range []string{"<p> and <b>bold</b> are tags", "<a> then </b>", "<font> is old", "<b>x", "<ul> needs <li>one</li>"} {
		if got := fromPayload(s, unknown); got != s {
			t.Errorf("%q is read as %q", s, got)
		}
	}
}

// Whoever reads it, as HTML or as a proxy like this one, a text arrives as it was typed.
func FuzzReaders(f *testing.F) {
	for _, s := range []string{typed, "a\nb & c", "&not", "<p>x", "&amp\n", "a > b", "&#x3c;b", "&LT;b\n\n", "\n<", " \n "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.Contains(s, "\u00a0") || strings.ContainsAny(s, "\r\x00") {
			return
		}
		for _, reads := range []format{unknown, entities, hypertext} {
			p := toPayload(s, reads)
			if got := strings.ReplaceAll(html.UnescapeString(strings.ReplaceAll(p, "<br>", "\n")), "\u00a0", " "); got != s {
				t.Errorf("to %d %q is sent as %q and read as %q (entities)", reads, s, p, got)
			}
			if got := fromPayload(p, hypertext); got != s {
				t.Errorf("to %d %q is sent as %q and read as %q (hypertext)", reads, s, p, got)
			}
			if got := fromPayload(p, unknown); got != s {
				t.Errorf("to %d %q is sent as %q and read as %q (unknown)", reads, s, p, got)
			}
		}
	})
}
