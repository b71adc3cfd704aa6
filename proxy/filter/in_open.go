package filter

import (
	"otrproxy/stanza"
)

// Open says how a message is shown of whose text no encryption is expected: as it came,
// but for what imitates the proxy, and for OTR that nobody reads.
type Open struct {
	Voice
	Body  *stanza.Element                             // the text that was read; nil for none
	Text  string                                      // what is shown in its place
	Other func(text string) (shown string, keep bool) // what is shown of another text
	Bare  func(text []byte) bool                      // reports whether there is no OTR in it
}

// Unchanged reports whether the message can stay as it is.
func (o *Open) Unchanged(root stanza.Element) bool {
	for el := range root.Children() {
		if el.Is(nsClient, "body") && !o.stays(el) {
			return false
		}
	}
	return o.Untouched(root)
}

// stays reports whether a text is shown as it is, if it imitates nothing.
func (o *Open) stays(el stanza.Element) bool {
	text := el.TextBytes()
	if o.Body == nil || el != *o.Body {
		return o.Bare(text)
	}
	return o.Text == string(text)
}

func (o *Open) shown(el stanza.Element) (string, bool) {
	if o.Body != nil && el == *o.Body {
		return o.Text, true
	}
	return o.Other(el.Text())
}

// AppendTo appends the message as it is shown.
func (o *Open) AppendTo(dst []byte, root stanza.Element) []byte {
	w := &anew{Voice: o.Voice, dst: dst}
	o.message(w, root, false)
	return w.dst
}

func (o *Open) message(w *anew, root stanza.Element, within bool) {
	w.dst = append(w.dst, "<message"...)
	if within {
		w.attr("xmlns", nsClient)
	}
	w.attrs(root)
	w.dst = append(w.dst, '>')
	w.text(root.TextBytes())
	for c := range root.Children() {
		switch {
		case c.Is(nsClient, "body"):
			if shown, keep := o.shown(c); keep {
				w.open(c, []byte(nsClient))
				w.attrs(c)
				w.dst = append(stanza.AppendEscaped(append(w.dst, '>'), shown), "</body>"...)
			}
		case writable(c) && !w.spread(c):
			w.any(c, []byte(nsClient))
		}
	}
	w.dst = append(w.dst, "</message>"...)
}
