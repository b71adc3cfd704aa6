package stanza

import (
	"bytes"
	"iter"
	"slices"
)

// A Span is a range of bytes of Stanza.Raw.
type Span struct{ Start, End int32 }

func (s Span) of(b []byte) []byte { return b[s.Start:s.End] }

// Len is the number of bytes in the span.
func (s Span) Len() int { return int(s.End - s.Start) }

// A Kind tells what Scanner.Next found.
type Kind uint8

// The kinds.
const (
	KindHeader  Kind = iota + 1 // the stream header, with an XML declaration before it if there was one
	KindElement                 // one whole top-level element
	KindSpace                   // white space between elements (a keep-alive, RFC 6120 section 4.6.1)
	KindClose                   // the end tag of the stream
)

// A Stanza is one top-level piece of a stream: the very bytes that came in, and
// where in them the elements and attributes are. A Stanza returned by a Scanner
// is valid until the next call of Scanner.Next; Clone keeps it.
type Stanza struct {
	Kind Kind
	Raw  []byte

	nodes  []node
	attrs  []attr
	binds  []binding
	header []byte // bytes of the stream header, which the first bindings point into
	arena  []byte // namespace names that had to be unescaped
}

type node struct {
	span, inner Span
	name        Span // as written, with prefix
	local       Span
	parent      int32
	next        int32 // index behind the last descendant
	attr0       int32
	attrN       int32
	scope       int32 // innermost namespace binding in force, -1 for none
	ns          int32 // binding of the element's own namespace, -1 for none
}

type attr struct {
	name, value Span // name as written; value as written, without its quotes
	colon       int32
	ns          int32 // binding; -1 for no namespace
}

// source tells which bytes a binding's spans point into.
type source uint8

const (
	inRaw source = iota
	inHeader
	inArena
	builtin
)

type binding struct {
	prefix    Span
	uri       Span
	prefixSrc source
	uriSrc    source
	outer     int32
	depth     int32 // bindings in force outside it
}

const nsXML = "http://www.w3.org/XML/1998/namespace"

func (st *Stanza) bytes(sp Span, src source) []byte {
	switch src {
	case inRaw:
		return sp.of(st.Raw)
	case inHeader:
		return sp.of(st.header)
	case inArena:
		return sp.of(st.arena)
	}
	return nil
}

func (st *Stanza) uri(bind int32) []byte {
	if bind < 0 {
		return nil
	}
	b := &st.binds[bind]
	if b.uriSrc == builtin {
		return []byte(nsXML)
	}
	return st.bytes(b.uri, b.uriSrc)
}

// Clone returns a copy that stays valid.
func (st *Stanza) Clone() *Stanza {
	c := *st
	c.Raw = bytes.Clone(st.Raw)
	c.nodes = slices.Clone(st.nodes)
	c.attrs = slices.Clone(st.attrs)
	c.binds = slices.Clone(st.binds)
	c.arena = bytes.Clone(st.arena)
	return &c
}

// Root is the top-level element itself (the stream element for a header).
// It must not be called for white space or the end of a stream.
func (st *Stanza) Root() Element { return Element{st, 0} }

// Is reports whether the stanza is an element of that namespace and local name.
func (st *Stanza) Is(ns, local string) bool {
	return st.Kind == KindElement && st.Root().Is(ns, local)
}

// An Element is one element of a Stanza.
type Element struct {
	st *Stanza
	i  int32
}

func (e Element) n() *node { return &e.st.nodes[e.i] }

// Span is the whole element, tags included.
func (e Element) Span() Span { return e.n().span }

// Inner is what stands between the tags; empty for an empty-element tag.
func (e Element) Inner() Span { return e.n().inner }

// Raw is the element as it was written.
func (e Element) Raw() []byte { return e.n().span.of(e.st.Raw) }

// InnerRaw is what stands between the tags, as it was written.
func (e Element) InnerRaw() []byte { return e.n().inner.of(e.st.Raw) }

// Name is the name as written, with its prefix.
func (e Element) Name() []byte { return e.n().name.of(e.st.Raw) }

// Local is the local name.
func (e Element) Local() []byte { return e.n().local.of(e.st.Raw) }

// NS is the namespace name, empty for none.
func (e Element) NS() []byte { return e.st.uri(e.n().ns) }

// Is reports whether the element has that namespace and local name.
func (e Element) Is(ns, local string) bool {
	return string(e.Local()) == local && string(e.NS()) == ns
}

// Children yields the child elements in order.
func (e Element) Children() iter.Seq[Element] {
	return func(yield func(Element) bool) {
		nodes := e.st.nodes
		for i := e.i + 1; i < nodes[e.i].next; i = nodes[i].next {
			if !yield(Element{e.st, i}) {
				return
			}
		}
	}
}

// Descendants yields all elements below this one in document order.
func (e Element) Descendants() iter.Seq[Element] {
	return func(yield func(Element) bool) {
		for i := e.i + 1; i < e.st.nodes[e.i].next; i++ {
			if !yield(Element{e.st, i}) {
				return
			}
		}
	}
}

// Child returns the first child of that namespace and local name.
func (e Element) Child(ns, local string) (Element, bool) {
	for c := range e.Children() {
		if c.Is(ns, local) {
			return c, true
		}
	}
	return Element{}, false
}

// HasChildren reports whether there is a child element.
func (e Element) HasChildren() bool { return e.n().next > e.i+1 }

func (e Element) attr(name string) *attr {
	n := e.n()
	for i := n.attr0; i < n.attrN; i++ {
		a := &e.st.attrs[i]
		if string(a.name.of(e.st.Raw)) == name {
			return a
		}
	}
	return nil
}

// RawAttr is the value of the attribute of that name as written, escapes and
// all; nil when it is absent. The name is compared as written, which is exact
// for attributes without prefix and for xml:lang.
func (e Element) RawAttr(name string) []byte {
	if a := e.attr(name); a != nil {
		return a.value.of(e.st.Raw)
	}
	return nil
}

// Attr is the value of the attribute of that name, "" when it is absent.
func (e Element) Attr(name string) string {
	raw := e.RawAttr(name)
	switch string(raw) { // the most common ones cost no memory
	case "chat":
		return "chat"
	case "groupchat":
		return "groupchat"
	case "error":
		return "error"
	case "get":
		return "get"
	case "set":
		return "set"
	case "result":
		return "result"
	case "unavailable":
		return "unavailable"
	}
	return string(AttrValue(raw))
}

// AttrValue is an attribute's value of what is written: the same bytes, where it can be, to be
// looked at and not kept.
func AttrValue(raw []byte) []byte {
	if literal(raw) {
		return raw
	}
	// Attribute-value normalisation (XML 1.0 section 3.3.3): literal white space
	// becomes a space, a reference to it does not.
	v := bytes.ReplaceAll(raw, []byte("\r\n"), []byte{' '})
	for i, c := range v {
		if c == '\t' || c == '\n' || c == '\r' {
			v[i] = ' '
		}
	}
	return appendText(nil, v)
}

// literal reports whether an attribute's value is as it is written.
func literal(raw []byte) bool {
	for _, c := range raw {
		if c <= '&' && (c == '&' || c < ' ') {
			return false
		}
	}
	return true
}

// AttrBytes is Attr without a copy, where it can be: valid as long as the stanza is.
func (e Element) AttrBytes(name string) []byte {
	return AttrValue(e.RawAttr(name))
}

// AttrNames yields the attributes' names as written and their raw values.
func (e Element) AttrNames() iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		n := e.n()
		for i := n.attr0; i < n.attrN; i++ {
			a := &e.st.attrs[i]
			if !yield(string(a.name.of(e.st.Raw)), a.value.of(e.st.Raw)) {
				return
			}
		}
	}
}

// Text is the character data directly inside the element (child elements left
// out), with references and CDATA sections resolved and line ends normalised
// (XML 1.0 section 2.11).
func (e Element) Text() string { return string(e.TextBytes()) }

// TextBytes is Text, most often as a part of the stanza, to be looked at and not kept.
func (e Element) TextBytes() []byte {
	n := e.n()
	raw := n.inner.of(e.st.Raw)
	if len(raw) == 0 {
		return nil
	}
	if bytes.IndexByte(raw, '<') < 0 && bytes.IndexByte(raw, '&') < 0 && bytes.IndexByte(raw, '\r') < 0 {
		return raw
	}
	if raw[0] == '<' && e.elementsAlone() {
		return nil
	}
	var out []byte
	at := n.inner.Start
	for c := range e.Children() {
		out = appendText(out, e.st.Raw[at:c.n().span.Start])
		at = c.n().span.End
	}
	return appendText(out, e.st.Raw[at:n.inner.End])
}

// elementsAlone reports whether nothing stands between the child elements.
func (e Element) elementsAlone() bool {
	at := e.n().inner.Start
	for c := range e.Children() {
		if c.n().span.Start != at {
			return false
		}
		at = c.n().span.End
	}
	return at == e.n().inner.End
}

// Content yields what stands directly inside the element, in order: runs of character data
// as Text has them, with nil, and child elements, with "".
func (e Element) Content() iter.Seq2[string, *Element] {
	return func(yield func(string, *Element) bool) {
		at := e.Inner().Start
		for c := range e.Children() {
			if text := appendText(nil, e.st.Raw[at:c.Span().Start]); len(text) > 0 && !yield(string(text), nil) {
				return
			}
			if !yield("", &c) {
				return
			}
			at = c.Span().End
		}
		if text := appendText(nil, e.st.Raw[at:e.Inner().End]); len(text) > 0 {
			yield(string(text), nil)
		}
	}
}

// AllText is the character data inside the element and all elements in it, in document
// order, as Text has it.
func (e Element) AllText() string { return string(e.appendAllText(nil)) }

func (e Element) appendAllText(dst []byte) []byte {
	at := e.Inner().Start
	for c := range e.Children() {
		dst = c.appendAllText(appendText(dst, e.st.Raw[at:c.Span().Start]))
		at = c.Span().End
	}
	return appendText(dst, e.st.Raw[at:e.Inner().End])
}

// appendText appends raw character data, already known to be well-formed, with
// references and CDATA sections resolved.
func appendText(dst, raw []byte) []byte {
	for i := 0; i < len(raw); {
		switch c := raw[i]; {
		case c == '&':
			r, n, err := reference(raw, i)
			if err != nil { // cannot be: the scanner has checked it
				return dst
			}
			dst = append(dst, string(r)...)
			i += n
		case c == '<': // only CDATA sections are left between children
			i += len(cdataStart)
			end := bytes.Index(raw[i:], []byte(cdataEnd))
			if end < 0 {
				return dst
			}
			dst = appendLines(dst, raw[i:i+end])
			i += end + len(cdataEnd)
		default:
			j := i + 1
			for j < len(raw) && raw[j] != '&' && raw[j] != '<' {
				j++
			}
			dst = appendLines(dst, raw[i:j])
			i = j
		}
	}
	return dst
}

func appendLines(dst, raw []byte) []byte {
	if bytes.IndexByte(raw, '\r') < 0 {
		return append(dst, raw...)
	}
	for i, c := range raw {
		if c == '\r' {
			if i+1 < len(raw) && raw[i+1] == '\n' {
				continue
			}
			c = '\n'
		}
		dst = append(dst, c)
	}
	return dst
}
