package stanza

import (
	"bytes"
	"cmp"
	"slices"
)

// An Edit collects changes to a stanza by span. Bytes outside the changed spans
// leave as they came. Changes must not overlap; of two that do, the one that
// begins first (the longer one, where both begin at the same byte) wins, so that
// removing an element also discards edits inside it.
type Edit struct {
	st  *Stanza
	ops []replacement
}

type replacement struct {
	span Span
	with []byte
}

// Edit begins a set of changes.
func (st *Stanza) Edit() *Edit { return &Edit{st: st} }

// Replace puts other bytes in place of a span; they must be well-formed there.
func (e *Edit) Replace(sp Span, with []byte) { e.ops = append(e.ops, replacement{sp, with}) }

// Remove takes an element out.
func (e *Edit) Remove(el Element) { e.Replace(el.Span(), nil) }

// SetText replaces all that an element holds with character data.
func (e *Edit) SetText(el Element, text string) {
	escaped := AppendEscaped(nil, text)
	sp, in := el.Span(), el.Inner()
	if in.End < sp.End { // there is an end tag
		e.Replace(in, escaped)
		return
	}
	// "<body/>" becomes "<body>text</body>".
	tag := bytes.TrimRight(bytes.TrimSuffix(el.Raw(), []byte("/>")), " \t\r\n")
	b := append(bytes.Clone(tag), '>')
	b = append(append(b, escaped...), "</"...)
	b = append(append(b, el.Name()...), '>')
	e.Replace(sp, b)
}

// RemoveText takes out what stands directly inside an element besides its children.
func (e *Edit) RemoveText(el Element) {
	at := el.Inner().Start
	for c := range el.Children() {
		e.Replace(Span{at, c.Span().Start}, nil)
		at = c.Span().End
	}
	e.Replace(Span{at, el.Inner().End}, nil)
}

// RemoveAttr takes an attribute out, by its name as written.
func (e *Edit) RemoveAttr(el Element, name string) {
	if a := el.attr(name); a != nil {
		e.Replace(Span{a.name.Start, a.value.End + 1}, nil)
	}
}

// SetAttr gives an attribute another value, adding it when it is absent.
func (e *Edit) SetAttr(el Element, name, value string) {
	if a := el.attr(name); a != nil {
		// The quotes stay as they are; both kinds are escaped in the value.
		e.Replace(a.value, appendAttrValue(nil, value))
		return
	}
	at := Span{el.n().name.End, el.n().name.End}
	e.Replace(at, AppendAttr(nil, name, value))
}

// Declare adds namespace declarations, as Scanner.Declared gives them, that the
// element does not make itself.
func (e *Edit) Declare(el Element, declared []byte) {
	at := Span{el.n().name.End, el.n().name.End}
	for rest := bytes.TrimLeft(declared, " "); len(rest) > 0; rest = bytes.TrimLeft(rest, " ") {
		name, value, _ := bytes.Cut(rest, []byte("="))
		d := rest[:len(name)+1+1+bytes.IndexByte(value[1:], value[0])+1]
		if el.attr(string(name)) == nil {
			e.Replace(at, append([]byte{' '}, d...))
		}
		rest = rest[len(d):]
	}
}

// Append appends raw markup behind the element's last child.
func (e *Edit) Append(el Element, markup []byte) {
	in := el.Inner()
	if in.End < el.Span().End {
		e.Replace(Span{in.End, in.End}, markup)
		return
	}
	tag := bytes.TrimRight(bytes.TrimSuffix(el.Raw(), []byte("/>")), " \t\r\n")
	b := append(bytes.Clone(tag), '>')
	b = append(append(b, markup...), "</"...)
	e.Replace(el.Span(), append(append(b, el.Name()...), '>'))
}

// AppendTo appends the changed stanza to dst.
func (e *Edit) AppendTo(dst []byte) []byte {
	slices.SortStableFunc(e.ops, func(a, b replacement) int {
		return cmp.Or(cmp.Compare(a.span.Start, b.span.Start), cmp.Compare(b.span.End, a.span.End))
	})
	at := int32(0)
	for _, op := range e.ops {
		if op.span.Start < at {
			continue
		}
		dst = append(dst, e.st.Raw[at:op.span.Start]...)
		dst = append(dst, op.with...)
		at = op.span.End
	}
	return append(dst, e.st.Raw[at:]...)
}
