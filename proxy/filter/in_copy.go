package filter

import (
	"bytes"
	"time"

	"otrproxy/stanza"
)

// A Copy is a message inside another one: a carbon of what another client of the account
// sent or got (XEP-0280), or something out of an archive (XEP-0313).
type Copy struct {
	Wrapper   stanza.Element // <sent/>, <received/> or <result/>
	Forwarded stanza.Element // XEP-0297
	Inner     stanza.Element // the message
}

// Carbon reports whether the copy is a carbon.
func (c *Copy) Carbon() bool { return string(c.Wrapper.NS()) == NSCarbons }

// Sent reports whether it is a carbon of what another client of the account sent.
func (c *Copy) Sent() bool { return c.Carbon() && string(c.Wrapper.Local()) == "sent" }

// wraps reports whether an element says that there is a copy in it. Servers also put
// <archived/> of that namespace beside live text.
func wraps(el stanza.Element) bool {
	ns := el.NS()
	return string(ns) == NSCarbons && string(el.Local()) != "private" || bytes.HasPrefix(ns, mams) && string(el.Local()) == "result"
}

// mams begins the namespaces of archives.
var mams = []byte("urn:xmpp:mam:")

// Wraps reports whether there is a copy in a message.
func Wraps(root stanza.Element) bool {
	for el := range root.Children() {
		if wraps(el) {
			return true
		}
	}
	return false
}

// CopyOf finds the copy in a message; ok reports whether it is one message in one wrapper, so
// that all programs find the same.
func CopyOf(root stanza.Element) (c Copy, ok bool) {
	wrappers, forwards, messages := 0, 0, 0
	for el := range root.Children() {
		if !wraps(el) {
			continue
		}
		c.Wrapper = el
		wrappers++
		for f := range el.Children() {
			if !f.Is(NSForward, "forwarded") {
				continue
			}
			c.Forwarded = f
			forwards++
			for m := range f.Children() {
				if m.Is(nsClient, "message") {
					c.Inner = m
					messages++
				}
			}
		}
	}
	return c, wrappers == 1 && forwards == 1 && messages == 1
}

// append writes the copy in a message of its own, with nothing beside.
func (c *Copy) append(w *anew, root stanza.Element, notBefore, now time.Time, inner func()) {
	w.dst = append(w.dst, "<message"...)
	w.addressing(root, messageTypes)
	w.dst = append(w.dst, '>')
	w.open(c.Wrapper, []byte(nsClient))
	for _, name := range []string{"queryid", "id"} {
		if value := c.Wrapper.Attr(name); value != "" && !c.Carbon() {
			w.attr(name, value)
		}
	}
	w.dst = append(w.dst, "><forwarded xmlns='"+NSForward+"'>"...)
	if delay, ok := c.Forwarded.Child(NSDelay, "delay"); ok {
		// What was decrypted cannot have been sent before a certain time, nor tomorrow;
		// clients need some time for what comes from an archive.
		if sent, ok := Moment(delay.Attr("stamp")); ok {
			if sent.Before(notBefore) {
				sent = notBefore
			}
			if !notBefore.IsZero() && sent.After(now.Add(skew)) {
				sent = now
			}
			w.delay(delay, sent)
		}
	}
	inner()
	w.dst = append(append(append(w.dst, "</forwarded></"...), c.Wrapper.Local()...), '>')
	for el := range root.Children() {
		if f := aside.of(el); f != nil {
			w.element(f, el, []byte(nsClient))
		}
	}
	w.dst = append(w.dst, "</message>"...)
}

// aside may stand beside a copy.
var aside = Table{
	NSHints:            beside[NSHints],
	"urn:xmpp:inbox:1": {"entry": {Attrs: Attrs{"unread": number, "jid": address, "id": token}}}, // XEP-0430
}

// delay writes when something was sent (XEP-0203), in the one way that all programs read.
func (w *anew) delay(el stanza.Element, sent time.Time) {
	w.dst = append(w.dst, "<delay xmlns='"+NSDelay+"'"...)
	w.attr("stamp", sent.UTC().Format(time.RFC3339Nano))
	if from := el.AttrBytes("from"); address(from) {
		w.dst = stanza.AppendAttr(w.dst, "from", from)
	}
	w.dst = append(w.dst, "/>"...)
}

// AppendCopy appends a copy whose message is shown as in says.
func (in *In) AppendCopy(dst []byte, root stanza.Element, c *Copy) []byte {
	w := &anew{Voice: in.Voice, dst: dst}
	c.append(w, root, in.NotBefore, in.Now, func() { in.message(w, c.Inner, true) })
	return w.dst
}

// AppendCopy appends a copy whose message is shown as o says.
func (o *Open) AppendCopy(dst []byte, st *stanza.Stanza, c *Copy) []byte {
	root := st.Root()
	if c.Plain(root) && o.Unchanged(c.Inner) {
		return append(dst, st.Raw...)
	}
	w := &anew{Voice: o.Voice, dst: dst}
	c.append(w, root, time.Time{}, time.Time{}, func() { o.message(w, c.Inner, true) })
	return w.dst
}

// AppendEmptyCopy appends a copy with nothing in its message: clients count what an archive
// gives.
func (v Voice) AppendEmptyCopy(dst []byte, root stanza.Element, c *Copy) []byte {
	w := &anew{Voice: v, dst: dst}
	c.append(w, root, time.Time{}, time.Time{}, func() {
		w.dst = append(w.dst, "<message xmlns='"+nsClient+"'"...)
		w.addressing(c.Inner, messageTypes)
		w.dst = append(w.dst, "/>"...)
	})
	return w.dst
}

// AppendFailedCopy appends a copy of an error, which is shown without anything beside it.
func (v Voice) AppendFailedCopy(dst []byte, root stanza.Element, c *Copy) []byte {
	w := &anew{Voice: v, dst: dst}
	c.append(w, root, time.Time{}, time.Time{}, func() { w.failed(c.Inner, contactsFailure, true, nil) })
	return w.dst
}

// Plain reports whether there is nothing in a copy but its one message, and no further one
// in that: it may pass as it came where nothing has to be looked for in it.
func (c *Copy) Plain(root stanza.Element) bool {
	alone := func(el stanza.Element, known func(stanza.Element) bool) bool {
		for child := range el.Children() {
			if !known(child) {
				return false
			}
		}
		return blank(el.TextBytes())
	}
	if !alone(root, func(el stanza.Element) bool { return aside.of(el) != nil || el == c.Wrapper }) ||
		!alone(c.Wrapper, func(el stanza.Element) bool { return el == c.Forwarded }) ||
		!alone(c.Forwarded, func(el stanza.Element) bool { return el == c.Inner || el.Is(NSDelay, "delay") }) {
		return false
	}
	for d := range c.Inner.Descendants() {
		if wrapping(d) {
			return false
		}
	}
	return true
}
