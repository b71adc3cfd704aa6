package text

import (
	"html"
	"strings"
	"testing"
)

const spoken = `hello <b> & "quotes" <3 ü 👍`

func TestPayload(t *testing.T) {
	for in, want := range map[string]string{
		spoken: spoken,
		`hello &lt;b&gt; &amp; &quot;quotes&quot; &lt;3 ü 👍`: spoken,
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
		if got := FromPayload(in, Unknown); got != want {
			t.Errorf("%q: got %q want %q", in, got, want)
		}
	}
}

func FuzzPayload(f *testing.F) {
	f.Add(spoken)
	f.Fuzz(func(t *testing.T, s string) {
		if got := FromPayload(ToPayload(s, Unknown), Unknown); got != s && !strings.Contains(s, "\u00a0") {
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
		if got := ToPayload(in, Unknown); got != want {
			t.Errorf("%q is sent as %q, want %q", in, got, want)
		}
		if got := ToPayload(in, PlainText); got != in {
			t.Errorf("%q is sent as %q to a reader of plain text", in, got)
		}
	}
	// Who writes plain text reads it, perhaps with character references: only these are escaped.
	for in, want := range map[string]string{"I <3 <b>you</b> & me": "I <3 <b>you</b> & me", "write &lt;3": "write &amp;lt;3"} {
		if got := ToPayload(in, either); got != want {
			t.Errorf("%q is sent as %q, want %q", in, got, want)
		}
	}
	// To a reader of HTML the end of a line is a blank.
	for reads, want := range map[Format]string{Hypertext: "one &amp; two<br>three", entities: "one & two\nthree", either: "one & two\nthree", Unknown: "one & two\nthree", PlainText: "one & two\nthree"} {
		if got := ToPayload("one & two\nthree", reads); got != want {
			t.Errorf("two lines are sent as %q to %d, want %q", got, reads, want)
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
		if got := FromPayload(in, Hypertext); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
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

// Raw programs that are not known: what a person types is not taken apart.
func TestTypedTagsStay(t *testing.T) {
	for _, s := range []string{"<p> and <b>bold</b> are tags", "<a> then </b>", "<font> is old", "<b>x", "<ul> needs <li>one</li>"} {
		if got := FromPayload(s, Unknown); got != s {
			t.Errorf("%q is read as %q", s, got)
		}
	}
}

// Whoever reads it, as HTML or as a proxy like this one, a text arrives as it was typed.
func FuzzReaders(f *testing.F) {
	for _, s := range []string{spoken, "a\nb & c", "&not", "<p>x", "&amp\n", "a > b", "&#x3c;b", "&LT;b\n\n", "\n<", " \n "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.Contains(s, "\u00a0") || strings.ContainsAny(s, "\r\x00") {
			return
		}
		for _, reads := range []Format{Unknown, entities, Hypertext} {
			p := ToPayload(s, reads)
			if got := strings.ReplaceAll(html.UnescapeString(strings.ReplaceAll(p, "<br>", "\n")), "\u00a0", " "); got != s {
				t.Errorf("to %d %q is sent as %q and read as %q (entities)", reads, s, p, got)
			}
			if got := FromPayload(p, Hypertext); got != s {
				t.Errorf("to %d %q is sent as %q and read as %q (hypertext)", reads, s, p, got)
			}
			if got := FromPayload(p, Unknown); got != s {
				t.Errorf("to %d %q is sent as %q and read as %q (unknown)", reads, s, p, got)
			}
		}
	})
}
