package filter

import (
	"bytes"
	"strings"

	"otrproxy/stanza"
)

// A Voice is what becomes of words that pass.
type Voice struct {
	Fits  func([]byte) bool   // reports whether nothing in it imitates the proxy
	Quote func(string) string // has it imitate nothing
	Mark  func(string) string // says that they came in clear; quotes as well
	// Covers reports whether what an address says is expected to be encrypted. Nil is for
	// none.
	Covers func(jid string) bool
}

// An anew writes elements anew, in one way of all the ways there are to write them: no
// prefixes, a namespace where it changes, and the text with its references resolved.
type anew struct {
	Voice
	dst  []byte
	left int // elements of a message that were written
}

// open begins an element that stands in one of another namespace.
func (w *anew) open(el stanza.Element, within []byte) {
	w.dst = append(append(w.dst, '<'), el.Local()...)
	if ns := el.NS(); !bytes.Equal(ns, within) {
		w.dst = stanza.AppendAttr(w.dst, "xmlns", ns)
	}
}

func (w *anew) attr(name, value string) { w.dst = stanza.AppendAttr(w.dst, name, value) }

// text writes a text with nothing in it that imitates the proxy.
func (w *anew) text(text []byte) {
	if w.leaves(text) {
		w.dst = stanza.AppendEscaped(w.dst, text)
	} else {
		w.dst = stanza.AppendEscaped(w.dst, w.Quote(string(text)))
	}
}

// quotedAttr writes an attribute with nothing in it that imitates the proxy.
func (w *anew) quotedAttr(name string, value []byte) {
	if w.leaves(value) {
		w.dst = stanza.AppendAttr(w.dst, name, value)
	} else {
		w.attr(name, w.Quote(string(value)))
	}
}

// close ends an element whose start tag ends at from.
func (w *anew) close(el stanza.Element, from int) {
	if len(w.dst) == from { // nothing is in it
		w.dst = append(w.dst[:from-1], "/>"...)
		return
	}
	w.dst = append(append(append(w.dst, "</"...), el.Local()...), '>')
}

// element writes what of an element is of a form.
func (w *anew) element(f *Form, el stanza.Element, within []byte) {
	if f.Any {
		w.any(el, within)
		return
	}
	w.open(el, within)
	for name, raw := range el.AttrNames() {
		switch check := f.Attrs[name]; {
		case name == "xml:lang" && language(raw):
			w.attr(name, string(raw))
		case check != nil:
			if value := stanza.AttrValue(raw); check(value) {
				w.quotedAttr(name, value)
			}
		}
	}
	w.dst = append(w.dst, '>')
	from := len(w.dst)
	if f.Text != nil {
		switch text := el.TextBytes(); {
		case !f.Text(text):
		case f.Says && !blank(text):
			w.dst = stanza.AppendEscaped(w.dst, w.Mark(string(text)))
		default:
			w.text(text)
		}
	}
	for c := range el.Children() {
		if inner := f.of(el, c); inner != nil {
			w.element(inner, c, el.NS())
		}
	}
	w.close(el, from)
}

// any writes an element with everything in it but wrapped messages. The reasons of
// invitations are said in the name of whoever invites.
func (w *anew) any(el stanza.Element, within []byte) {
	w.open(el, within)
	w.attrs(el)
	w.dst = append(w.dst, '>')
	from := len(w.dst)
	switch {
	case !w.invites(el):
		w.inside(el)
	default:
		for c := range el.Children() {
			if f := invitation.of(el, c); f != nil {
				w.element(f, c, el.NS())
			}
		}
	}
	w.close(el, from)
}

// invitation is what an invitation to a room, or the answer to one, may hold (XEP-0045
// section 7.8.2).
var invitation = Form{Own: Forms{"reason": said, "continue": {Attrs: Attrs{"thread": opaqueName}}}}

// invites reports whether an element is an invitation in the name of somebody whose words
// are expected to be encrypted.
func (v Voice) invites(el stanza.Element) bool {
	local := string(el.Local())
	return (local == "invite" || local == "decline") && string(el.NS()) == NSMUCUser && el.HasChildren() && v.Covers != nil && v.Covers(el.Attr("from"))
}

// attrs writes the attributes, but for those of namespaces nobody knows here.
func (w *anew) attrs(el stanza.Element) {
	for name, raw := range el.AttrNames() {
		if name == "xml:lang" || name != "xmlns" && !strings.Contains(name, ":") {
			w.quotedAttr(name, stanza.AttrValue(raw))
		}
	}
}

// inside writes what an element holds. Where its text imitates the proxy, it may do so over
// several runs: it is written in one.
func (w *anew) inside(el stanza.Element) {
	whole := el.Text()
	quoted := w.Quote(whole)
	if quoted != whole {
		w.dst = stanza.AppendEscaped(w.dst, quoted)
	}
	for text, c := range el.Content() {
		switch {
		case c == nil && quoted == whole:
			w.dst = stanza.AppendEscaped(w.dst, text)
		case c != nil && writable(*c):
			w.any(*c, el.NS())
		}
	}
}

// writable reports whether an element may be written: it wraps no message, and is none of
// XML's own namespace, which must not be declared.
func writable(el stanza.Element) bool { return !wrapping(el) && string(el.NS()) != nsXML }

// wrapping reports whether an element is one in which programs find a whole message,
// whatever its namespace: some look at the name alone.
func wrapping(el stanza.Element) bool {
	local := string(el.Local())
	return (local == "forwarded" || local == "message") && el.HasChildren()
}

// Untouched reports whether a stanza whose words may pass can stay as it is: it wraps no
// message, and nothing in it imitates the proxy.
func (v Voice) Untouched(root stanza.Element) bool {
	if !v.silent(root) {
		return false
	}
	for el := range root.Children() {
		if v.spread(el) {
			return false
		}
	}
	for el := range root.Descendants() {
		if wrapping(el) || v.invites(el) || !v.silent(el) {
			return false
		}
	}
	return true
}

// AppendOpen appends a stanza whose words may pass: as it came, where it can stay so.
func (v Voice) AppendOpen(dst []byte, st *stanza.Stanza) []byte {
	root := st.Root()
	if v.Untouched(root) {
		return append(dst, st.Raw...)
	}
	w := &anew{Voice: v, dst: dst}
	w.any(root, []byte(nsClient))
	return w.dst
}

// silent reports whether neither the text nor the attributes of an element imitate the
// proxy.
func (v Voice) silent(el stanza.Element) bool {
	for _, raw := range el.AttrNames() {
		if !v.leaves(stanza.AttrValue(raw)) {
			return false
		}
	}
	return v.leaves(el.TextBytes())
}

// leaves reports whether a text stays as it is; nil leaves all.
func (v *Voice) leaves(text []byte) bool { return v == nil || v.Fits(text) }

// spread reports whether formatted text, which is shown in the place of the body, has the
// mark spread over several elements.
func (v Voice) spread(el stanza.Element) bool {
	if !el.Is(NSXHTML, "html") {
		return false
	}
	all := string(v.appendQuoted(nil, el))
	return v.Quote(all) != all
}

// appendQuoted appends the text inside an element, each run of it quoted by itself.
func (v Voice) appendQuoted(dst []byte, el stanza.Element) []byte {
	for text, c := range el.Content() {
		if c != nil {
			dst = v.appendQuoted(dst, *c)
		} else {
			dst = append(dst, v.Quote(text)...)
		}
	}
	return dst
}
