package service

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"mellium.im/xmpp/jid"

	"otrproxy/proxy/address"
	"otrproxy/stanza"
)

// WithoutUs handles a request to the server that is about the service contact: what a
// client does with any contact, such as putting it on its list, asking for its archive,
// or remembering what was read of it. The server hears nothing of that. It reports
// whether there is nothing left to ask the server; else e is the request without it.
func (c *Contact) WithoutUs(st *stanza.Stanza) (e *stanza.Edit, over bool) {
	root := st.Root()
	typ := root.Attr("type")
	if typ != "get" && typ != "set" || !mentionsUs(st.Raw) || c.client.HandsOff() {
		return nil, false
	}
	left, listed := false, "" // other items beside those; what is wanted of our own
	inside := func(p stanza.Element) {
		ours, others := map[string]bool{}, map[string]bool{}
		for el := range p.Children() {
			name := string(el.Name())
			if !namesUs(el) {
				others[name] = true
				continue
			}
			if ours[name] = true; e == nil {
				e = st.Edit()
			}
			e.Remove(el)
			if el.Is(nsRoster, "item") && typ == "set" {
				listed = "yes"
				if el.Attr("subscription") == "remove" {
					listed = "no"
				}
			}
		}
		for name := range ours {
			left = left || others[name]
		}
	}
	inside(root)
	for p := range root.Descendants() {
		inside(p)
	}
	if e == nil {
		return nil, false
	}
	if listed != "" {
		c.list(listed == "yes")
	}
	for el := range root.Children() { // these replace what is there as a whole
		left = left || typ == "set" && (el.Is("jabber:iq:private", "query") || el.Is("jabber:iq:privacy", "query"))
	}
	if left {
		return e, false
	}
	c.settleAboutUs(root, typ)
	return nil, true
}

// mentionsUs reports whether a stanza may be about the service contact at all: most are
// not worth a closer look.
func mentionsUs(raw []byte) bool {
	lower := bytes.ToLower(raw)
	return bytes.Contains(raw, []byte("&#")) || bytes.Contains(lower, []byte("localhost")) || bytes.Contains(lower, []byte(address.ServiceName))
}

// namesUs reports whether an element itself is about the service contact: an attribute
// of it that can be an address, or all of its text where that can be one, is the
// contact's address. A name that a person has given somebody else is none.
func namesUs(el stanza.Element) bool {
	is := func(raw string) bool {
		if len(raw) > 4000 || !strings.Contains(strings.ToLower(raw), "localhost") && strings.IndexFunc(raw, func(r rune) bool { return r >= utf8.RuneSelf }) < 0 {
			return false
		}
		raw = strings.TrimSpace(raw)
		if rest, ok := strings.CutPrefix(raw, "xmpp:"); ok {
			raw, _, _ = strings.Cut(rest, "?")
		}
		j, err := jid.Parse(raw)
		return err == nil && address.Ours(address.JID{Bare: j.Bare().String()})
	}
	for name := range el.AttrNames() {
		switch name {
		case "name", "label", "title", "desc", "reason":
		default:
			if is(el.Attr(name)) {
				return true
			}
		}
	}
	switch string(el.Local()) {
	case "value", "with", "jid", "user":
		return is(el.Text())
	}
	return false
}

// settleAboutUs answers a request that the server does not get.
func (c *Contact) settleAboutUs(root stanza.Element, typ string) {
	for el := range root.Children() {
		if ns := string(el.NS()); strings.HasPrefix(ns, "urn:xmpp:mam:") {
			c.result(root, "<fin xmlns='"+ns+"' complete='true'><set xmlns='http://jabber.org/protocol/rsm'><count>0</count></set></fin>")
			return
		}
	}
	if typ == "get" {
		c.client.Refuse(root, stanza.Error{Type: "cancel", Condition: "item-not-found"})
		return
	}
	c.result(root, "")
}

// result answers a request as the account's server would.
func (c *Contact) result(root stanza.Element, payload string) {
	c.client.Deliver(func(b []byte) []byte {
		b = append(stanza.AppendAttr(stanza.AppendAttr(append(b, "<iq type='result'"...), "to", c.client.FullJID()), "id", root.Attr("id")), '>')
		return append(append(b, payload...), "</iq>"...)
	})
}
