package stanza

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

const open = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='example.org' version='1.0'>"

// collect scans a whole stream and returns what the scanner yielded.
func collect(r io.Reader, lim Limits) (items []*Stanza, err error) {
	s := NewScanner(r, lim)
	for {
		st, err := s.Next()
		if err != nil {
			return items, err
		}
		items = append(items, st.Clone())
	}
}

func rawOf(items []*Stanza) string {
	var b strings.Builder
	for _, st := range items {
		b.Write(st.Raw)
	}
	return b.String()
}

func TestRawSpansAreTheInput(t *testing.T) {
	in := open + "\n " +
		`<message from="a@b/c" to='d@e'><body>hi &lt;b&gt; &#x1F44D; ü <![CDATA[ <raw> ]] ]]></body><active xmlns='http://jabber.org/protocol/chatstates'/></message>` +
		"\n<presence/>" + `<iq type='get' id="1"><q:query xmlns:q='x&amp;y' q:a='1' a='2' xml:lang='en'><q:item/></q:query></iq>` +
		"<a   b = 'c'\n/>" + "</stream:stream >"
	for name, r := range map[string]io.Reader{
		"whole":     strings.NewReader(in),
		"by byte":   iotest.OneByteReader(strings.NewReader(in)),
		"by halves": iotest.HalfReader(strings.NewReader(in)),
		"with eof":  iotest.DataErrReader(strings.NewReader(in)),
	} {
		items, err := collect(r, Limits{})
		if err != io.EOF {
			t.Fatalf("%s: %v", name, err)
		}
		if got := rawOf(items); got != in {
			t.Errorf("%s: got\n%q want\n%q", name, got, in)
		}
		if n := len(items); n < 8 || items[0].Kind != KindHeader || items[n-1].Kind != KindClose {
			t.Errorf("%s: %d items", name, n)
		}
	}
}

func TestReading(t *testing.T) {
	st, err := Parse([]byte(`<message to='bob@x' type='chat' xml:lang='e&amp;n'><body>a<![CDATA[<&]]>&amp;b` + "\r\n" + `c</body><x:html xmlns:x='h&#116;ml'><x:p>z</x:p></x:html><body/></message>`))
	if err != nil {
		t.Fatal(err)
	}
	r := st.Root()
	body, ok := r.Child(NSClient, "body")
	if !ok || body.Text() != "a<&&b\nc" {
		t.Errorf("body %q", body.Text())
	}
	if got := r.Attr("xml:lang"); got != "e&n" {
		t.Errorf("lang %q", got)
	}
	html, ok := r.Child("html", "html")
	if !ok || !html.HasChildren() {
		t.Fatal("no html")
	}
	if p, ok := html.Child("html", "p"); !ok || p.Text() != "z" || string(p.Name()) != "x:p" {
		t.Error("no p")
	}
	n := 0
	for range r.Children() {
		n++
	}
	if n != 3 {
		t.Errorf("%d children", n)
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct{ in, condition string }{
		"mismatched end tag":       {"<a></b>", "not-well-formed"},
		"duplicate attribute":      {"<a b='1' b='2'/>", "not-well-formed"},
		"same expanded attribute":  {"<a xmlns:p='u' xmlns:q='u' p:x='1' q:x='2'/>", "not-well-formed"},
		"undeclared prefix":        {"<p:a/>", "not-well-formed"},
		"undeclared attr prefix":   {"<a p:b='1'/>", "not-well-formed"},
		"prefix out of scope":      {"<a><b xmlns:p='u'/><p:c/></a>", "not-well-formed"},
		"comment":                  {"<a><!-- x --></a>", "restricted-xml"},
		"top-level comment":        {"<!-- x -->", "restricted-xml"},
		"processing instruction":   {"<a><?x y?></a>", "restricted-xml"},
		"doctype":                  {"<!DOCTYPE a>", "restricted-xml"},
		"entity":                   {"<a>&foo;</a>", "restricted-xml"},
		"bare ampersand":           {"<a>a & b</a>", "not-well-formed"},
		"NUL reference":            {"<a>&#0;</a>", "restricted-xml"},
		"surrogate reference":      {"<a>&#xD800;</a>", "restricted-xml"},
		"control character":        {"<a>\x01</a>", "not-well-formed"},
		"not UTF-8":                {"<a>\xff</a>", "not-well-formed"},
		"overlong UTF-8":           {"<a>\xc0\xaf</a>", "not-well-formed"},
		"U+FFFE":                   {"<a>\uFFFE</a>", "not-well-formed"},
		"]]> in text":              {"<a>]]></a>", "not-well-formed"},
		"< in attribute":           {"<a b='<'/>", "not-well-formed"},
		"no quotes":                {"<a b=c/>", "not-well-formed"},
		"no space":                 {"<a b='1'c='2'/>", "not-well-formed"},
		"text outside":             {"hello", "not-well-formed"},
		"cdata outside":            {"<![CDATA[x]]>", "not-well-formed"},
		"two colons":               {"<a:b:c/>", "not-well-formed"},
		"empty prefix declaration": {"<a xmlns:p=''/>", "not-well-formed"},
		"xmlns declared":           {"<a xmlns:xmlns='u'/>", "not-well-formed"},
		"xml bound elsewhere":      {"<a xmlns:xml='u'/>", "not-well-formed"},
		"digit name":               {"<1/>", "not-well-formed"},
		"second header":            {"<?xml version='1.0'?>", "restricted-xml"},
		"end of nothing":           {"</a>", "not-well-formed"},
		"too deep":                 {strings.Repeat("<a>", 65), "policy-violation"},
		"too many attributes":      {"<a" + strings.Repeat(" x='1'", 70) + "/>", "policy-violation"},
		"too large":                {"<a>" + strings.Repeat("x", 300<<10) + "</a>", "policy-violation"},
		"too large a tag":          {"<a b='" + strings.Repeat("x", 300<<10) + "'/>", "policy-violation"},
	} {
		for _, r := range []io.Reader{strings.NewReader(open + c.in), iotest.OneByteReader(strings.NewReader(open + c.in))} {
			_, err := collect(r, Limits{})
			var se *SyntaxError
			if !errors.As(err, &se) {
				t.Errorf("%s: %v", name, err)
			} else if se.Condition != c.condition {
				t.Errorf("%s: %s (%s), want %s", name, se.Condition, se.Reason, c.condition)
			}
		}
	}
	for name, in := range map[string]string{
		"other namespace": "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams'>",
		"other prefix":    "<s:stream xmlns='jabber:client' xmlns:s='http://etherx.jabber.org/streams'>",
		"not a stream":    "<html>",
		"http":            "GET / HTTP/1.1\r\n",
		"empty":           "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'/>",
		"encoding":        "<?xml version='1.0' encoding='latin-1'?><a>",
		"XML 1.1":         "<?xml version='1.1'?><a>",
		"doctype":         "<?xml version='1.0'?><!DOCTYPE x><a>",
	} {
		_, err := collect(strings.NewReader(in), Limits{})
		var se *SyntaxError
		if !errors.As(err, &se) {
			t.Errorf("header %s: %v", name, err)
		}
	}
	if _, err := collect(strings.NewReader(open+"<a>"), Limits{}); err != io.ErrUnexpectedEOF {
		t.Errorf("cut stream: %v", err)
	}
}

// A tag whose attribute value is full of '>' and comes byte by byte must not
// cost quadratic work.
func TestCrumbsAreBounded(t *testing.T) {
	in := open + "<a b='" + strings.Repeat(">", 200<<10) + "'/>"
	_, err := collect(iotest.OneByteReader(strings.NewReader(in)), Limits{})
	var se *SyntaxError
	if !errors.As(err, &se) {
		t.Fatalf("got %v", err)
	}
}

func TestDeclaredTravels(t *testing.T) {
	s := NewScanner(strings.NewReader("<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' xmlns:p=\"it's\" to='x'><p:a/>"), Limits{})
	if _, err := s.Next(); err != nil {
		t.Fatal(err)
	}
	if got := string(s.Declared()); got != ` xmlns:p="it's"` {
		t.Errorf("declared %q", got)
	}
	st, err := s.Next()
	if err != nil || !st.Is("it's", "a") {
		t.Fatalf("%v %v", st, err)
	}
}

func TestEdit(t *testing.T) {
	for _, c := range []struct {
		in, want string
		edit     func(*Stanza, *Edit)
	}{
		{`<message to="a"><body>x</body><html/></message>`, `<message to="b&apos;c"><body>&lt;y</body></message>`,
			func(st *Stanza, e *Edit) {
				e.SetAttr(st.Root(), "to", "b'c")
				body, _ := st.Root().Child(NSClient, "body")
				e.SetText(body, "<y")
				html, _ := st.Root().Child(NSClient, "html")
				e.Remove(html)
			}},
		{`<message  ><body /></message>`, `<message from='z'  ><body>t</body></message>`,
			func(st *Stanza, e *Edit) {
				e.SetAttr(st.Root(), "from", "z")
				body, _ := st.Root().Child(NSClient, "body")
				e.SetText(body, "t")
			}},
		{`<message/>`, `<message><x/></message>`, func(st *Stanza, e *Edit) { e.Append(st.Root(), []byte("<x/>")) }},
		{`<message><a/></message>`, `<message></message>`, func(st *Stanza, e *Edit) {
			a, _ := st.Root().Child(NSClient, "a")
			e.SetAttr(a, "q", "inside what goes")
			e.Remove(a)
		}},
	} {
		st, err := Parse([]byte(c.in))
		if err != nil {
			t.Fatal(err)
		}
		e := st.Edit()
		c.edit(st, e)
		if got := string(e.AppendTo(nil)); got != c.want {
			t.Errorf("%s: got %s want %s", c.in, got, c.want)
		}
	}
}

func TestHostileTextStaysText(t *testing.T) {
	for _, text := range []string{"\x01\x00", "\xff\xfe", "]]>", "</body></message>", "<![CDATA[", "&#0;", "\uFFFE\uFFFF", "a\rb\r\nc", "😀"} {
		raw := Message{From: "a", Body: text}.AppendTo(nil)
		st, err := Parse(raw)
		if err != nil {
			t.Errorf("%q: %v in %s", text, err, raw)
			continue
		}
		body, _ := st.Root().Child(NSClient, "body")
		want := strings.Map(func(r rune) rune {
			if !isChar(r) {
				return '\uFFFD'
			}
			return r
		}, strings.ToValidUTF8(text, "\uFFFD"))
		if text == "\xff\xfe" {
			want = "\uFFFD\uFFFD"
		}
		if body.Text() != want {
			t.Errorf("%q became %q", text, body.Text())
		}
	}
}

// independent checks a stream with another parser.
func independent(t *testing.T, in []byte) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(in))
	for {
		_, err := d.Token()
		if err == io.EOF {
			return
		}
		if err != nil && strings.Contains(err.Error(), "invalid XML name") {
			return // encoding/xml has the names of XML 1.0's fourth edition, we those of the fifth
		}
		if err != nil {
			t.Fatalf("accepted, but encoding/xml says %v: %q", err, in)
		}
	}
}

var seeds = []string{
	"<message/>", "<a b='c'>d</a>", "<a:b xmlns:a='c'/>", "<a><![CDATA[x]]></a>", "<a>&lt;&#65;</a>", " \n<presence></presence>",
	"<a xmlns=''><b/></a>", "<ä ö='ü'/>", "<a>]]&gt;</a>", "<iq id=\"'\" xml:lang='de'/>", "<a></a ><b\t/>",
	"<message><body>x</body><html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'>y</body></html></message>",
	"<a>&foo;</a>", "<a><!--x--></a>", "<a>]]></a>", "<a b='>'>></a>", "<a\xff/>", "</stream:stream>",
}

func FuzzScanner(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, in []byte, piece int) {
		full := append([]byte(open), in...)
		whole, err := collect(bytes.NewReader(full), Limits{})
		raw := rawOf(whole)
		if !strings.HasPrefix(string(full), raw) {
			t.Fatalf("spans are not the input: %q of %q", raw, full)
		}
		// The same in pieces: the same items, the same verdict.
		pieces, err2 := collect(&chunks{full, max(1, piece&31)}, Limits{})
		if rawOf(pieces) != raw && (err == nil || err == io.EOF) {
			t.Fatalf("in pieces %q, whole %q", rawOf(pieces), raw)
		}
		if (err == io.EOF) != (err2 == io.EOF) {
			t.Fatalf("in pieces %v, whole %v", err2, err)
		}
		if err == io.EOF {
			closed := whole[len(whole)-1].Kind == KindClose
			if raw != string(full) && !closed {
				t.Fatalf("bytes missing: %q of %q", raw, full)
			}
			if !closed {
				raw += StreamClose
			}
			independent(t, []byte(raw))
		}
	})
}

type chunks struct {
	b []byte
	n int
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.n)], c.b)
	c.b = c.b[n:]
	return n, nil
}

func FuzzEdit(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s), "text", uint8(0))
	}
	f.Fuzz(func(t *testing.T, in []byte, text string, which uint8) {
		st, err := Parse(in)
		if err != nil {
			return
		}
		els := []Element{st.Root()}
		for d := range st.Root().Descendants() {
			els = append(els, d)
		}
		el := els[int(which)%len(els)]
		e := st.Edit()
		e.SetText(el, text)
		out := e.AppendTo(nil)
		sp := el.Span()
		if !bytes.HasPrefix(out, in[:sp.Start]) || !bytes.HasSuffix(out, in[sp.End:]) {
			t.Fatalf("bytes outside the element changed: %q from %q", out, in)
		}
		again, err := Parse(out)
		if err != nil {
			t.Fatalf("%v in %q", err, out)
		}
		i := int(el.i)
		if string(again.nodes[i].name.of(out)) != string(el.Name()) {
			t.Fatalf("the element is another one in %q", out)
		}
		want := string(appendText(nil, AppendEscaped(nil, text)))
		if got := (Element{again, int32(i)}).Text(); got != want {
			t.Fatalf("text %q, want %q", got, want)
		}
	})
}

// corpus is a realistic mix of stanzas, about 300 bytes each.
func corpus(n int) []byte {
	kinds := []string{
		`<message from='alice@example.org/Gajim.1A2B3C4D' to='bob@example.net' type='chat' id='c0c5a7d1-5a0b-4c6e-8c6f-2f6b2f0a9f10'><body>Shall we meet at the station at half past six, or is that too early for you?</body><active xmlns='http://jabber.org/protocol/chatstates'/><request xmlns='urn:xmpp:receipts'/></message>`,
		`<presence from='carol@example.net/phone' to='alice@example.org/Gajim.1A2B3C4D'><show>away</show><status>walking the dog</status><priority>5</priority><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='https://gajim.org' ver='VjJmNKLqpYzUu1kSLwn7WcmTWPE='/></presence>`,
		`<iq type='result' id='purple8a1b2c3d' from='alice@example.org' to='alice@example.org/Gajim.1A2B3C4D'><query xmlns='http://jabber.org/protocol/disco#info' node='x'><identity category='account' type='registered'/><feature var='urn:xmpp:mam:2'/><feature var='urn:xmpp:carbons:2'/></query></iq>`,
	}
	var b []byte
	for i := range n {
		b = append(b, kinds[i%len(kinds)]...)
	}
	return b
}

// endless repeats a corpus behind one header for ever.
type endless struct {
	b   []byte
	off int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.b[e.off:])
	if e.off += n; e.off == len(e.b) {
		e.off = 0
	}
	return n, nil
}

func BenchmarkScanner(b *testing.B) {
	c := corpus(300)
	s := NewScanner(io.MultiReader(strings.NewReader(open), &endless{b: c}), Limits{})
	if _, err := s.Next(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(c) / 300))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Next(); err != nil {
			b.Fatal(err)
		}
	}
}

func TestNoAllocationPerStanza(t *testing.T) {
	s := NewScanner(io.MultiReader(strings.NewReader(open), &endless{b: corpus(30)}), Limits{})
	for range 100 {
		if _, err := s.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := s.Next(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per stanza", n)
	}
}

// Literal white space in attribute values is normalised, a reference to it is not
// (XML 1.0 section 3.3.3); in a namespace name it is refused.
func TestAttributeNormalisation(t *testing.T) {
	for _, in := range []string{"<a xmlns:p='a b' xmlns:q='a\nb' p:x='1' q:x='2'/>", "<a xmlns='u\tv'/>"} {
		if _, err := Parse([]byte(in)); err == nil {
			t.Errorf("accepted %q", in)
		}
	}
	st, err := Parse([]byte("<a id='x&#10;y\n\r\nz'/>"))
	if err != nil {
		t.Fatal(err)
	}
	if got := st.Root().Attr("id"); got != "x\ny  z" {
		t.Errorf("%q", got)
	}
	again, err := Parse(append(AppendAttr([]byte("<a"), "id", "x\ny\tz\r"), "/>"...))
	if err != nil || again.Root().Attr("id") != "x\ny\tz\r" {
		t.Errorf("%q %v", again.Root().Attr("id"), err)
	}
}

// Thousands of namespace declarations in force would make every name expensive.
func TestDeclarationsAreBounded(t *testing.T) {
	in := open
	for range 10 {
		in += "<a"
		for i := range 60 {
			in += " xmlns:p" + string(rune('a'+i/26)) + string(rune('a'+i%26)) + "='u'"
		}
		in += ">"
	}
	_, err := collect(strings.NewReader(in), Limits{})
	var se *SyntaxError
	if !errors.As(err, &se) || se.Condition != "policy-violation" {
		t.Errorf("%v", err)
	}
}

// A declaration may hold white space and the other quote.
func TestDeclare(t *testing.T) {
	st, err := Parse([]byte("<a xmlns:c='urn:own'><b/></a>"))
	if err != nil {
		t.Fatal(err)
	}
	e := st.Edit()
	e.Declare(st.Root(), []byte(" xmlns:x='urn:a b' xmlns:y=\"it's\" xmlns:c='urn:c'"))
	if got := string(e.AppendTo(nil)); got != "<a xmlns:x='urn:a b' xmlns:y=\"it's\" xmlns:c='urn:own'><b/></a>" {
		t.Error(got)
	}
}
