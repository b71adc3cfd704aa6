package filter

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"otrproxy/config"
	"otrproxy/stanza"
)

// Slight reports whether a message says nothing that a person wrote: that somebody is
// typing, or has read something.
func Slight(root stanza.Element) bool {
	for el := range root.Children() {
		switch string(el.NS()) {
		case NSChatStates, NSReceipts, NSMarkers, NSHints, NSStanzaID, "jabber:x:event":
		case NSMUCUser: // by which programs name one occupant of a room (XEP-0045 section 7.5)
			if el.HasChildren() || !blank(el.TextBytes()) {
				return false
			}
		case nsClient:
			if string(el.Local()) != "thread" {
				return false
			}
		default:
			return false
		}
	}
	return root.HasChildren()
}

// Composed is what of a message may leave.
type Composed struct {
	Body    *stanza.Element // the one text to encrypt
	Thread  string          // the name of its thread, as the client wrote it
	Extra   []byte          // rebuilt: may stand beside ciphertext
	Opaque  *stanza.Element // end-to-end encrypted by the client itself
	Sealed  bool            // the same, but it may not pass, and the body is no substitute
	Unsound bool            // it may not pass because it is no message of that encryption
	Dropped []string        // content that is left out when there is a body
	Strange []string        // names of extensions that are left out
	Lost    string          // content that cannot be kept, without which the message says nothing
	Reacts  *Reaction       // to an earlier message, in the place of a text; nil for none
	Files   []byte          // rebuilt: files and calls, where the rule allows them and there is nothing else
}

// A Reaction is what somebody feels about a message (XEP-0444): some emoji, or none any more.
type Reaction struct {
	To    string // the message's id
	Emoji string
}

// A kind of content is something that OTR cannot protect.
type kind struct {
	what  string
	allow config.Allow // the allowance that lets it pass; "" for none
}

// content is what people tell each other outside the text, by namespace.
var content = map[string]kind{
	NSOOB:                                    {"a link to a file", config.Files},
	NSData:                                   {"a form", ""},
	"urn:xmpp:message-correct:0":             {"the mark that it corrects an earlier message (it arrives as a new one)", ""},
	"urn:xmpp:message-retract:0":             {"a retraction", ""},
	"urn:xmpp:message-retract:1":             {"a retraction", ""},
	"urn:xmpp:fasten:0":                      {"what is attached to an earlier message", ""},
	NSReactions:                              {"a reaction", ""},
	"urn:xmpp:sfs:0":                         {"a file", config.Files},
	"urn:xmpp:sims:1":                        {"a file", config.Files},
	"urn:xmpp:reference:0":                   {"a reference", config.Files},
	"urn:xmpp:bob":                           {"a picture", config.Files},
	"urn:xmpp:stickers:0":                    {"a sticker", ""},
	"urn:xmpp:attention:0":                   {"a nudge", ""},
	nsCalls:                                  {"a call", config.Files},
	"urn:xmpp:call-invites:0":                {"a call", config.Files},
	"urn:xmpp:jingle:1":                      {"a file or a call", ""},
	NSForward:                                {"a forwarded message", ""},
	NSIBB:                                    {"a file", config.Files},
	"http://jabber.org/protocol/geoloc":      {"a place", ""},
	"http://jabber.org/protocol/rosterx":     {"contacts", ""},
	"http://jabber.org/protocol/httpauth":    {"a login request", ""},
	"http://jabber.org/protocol/http-auth":   {"a login request", ""},
	NSEvent:                                  {"an event", ""},
	"jabber:iq:oob":                          {"a link to a file", config.Files},
	"http://jabber.org/protocol/si":          {"a file", config.Files},
	"http://jabber.org/protocol/bytestreams": {"a file", config.Files},
	"http://www.google.com/session":          {"a call", config.Files},
}

// permitting is a sentence's end that names the allowance which would let something pass.
func permitting(allow config.Allow, many bool) string {
	switch {
	case allow == "":
		return ""
	case many:
		return " (a rule with allow: [" + string(allow) + "] lets them pass)"
	}
	return " (a rule with allow: [" + string(allow) + "] lets it pass)"
}

// Compose picks the one body to encrypt and rebuilds what may stand beside it, without
// text and with known attributes only: in room, if that is large enough. Everything that is
// not listed here is left out.
func Compose(root stanza.Element, rule *config.Rule, room []byte) (c Composed) {
	c.Extra = room[:0]
	var links []stanza.Element
	for el := range root.Children() {
		ns, local := el.NS(), el.Local()
		switch ours := string(ns) == nsClient; {
		case ours && string(local) == "body":
			switch {
			case el.Inner().Len() == 0:
				continue // says nothing
			case c.Body == nil:
				picked := el
				c.Body = &picked
				continue
			case c.Body.RawAttr("xml:lang") != nil && el.RawAttr("xml:lang") == nil:
				picked := el
				c.Body = &picked
			}
			c.Dropped = append(c.Dropped, "the same in another language")
		case ours && string(local) == "thread":
			c.Thread = el.Text()
			c.Extra = append(stanza.AppendEscaped(append(c.Extra, "<thread>"...), threadID(el.TextBytes())), "</thread>"...)
		case ours && string(local) == "subject":
			if el.Inner().Len() > 0 {
				c.Dropped, c.Lost = append(c.Dropped, "the subject"), "a subject"
			}
		case string(ns) == NSChatStates:
			if _, known := beside[string(ns)][string(local)]; known && rule.Allows(config.Chatstates) {
				c.Extra = append(append(append(c.Extra, '<'), local...), " xmlns='"+NSChatStates+"'/>"...)
			}
		case string(ns) == NSReceipts:
			if rule.Allows(config.Receipts) {
				switch string(local) {
				case "request":
					c.Extra = append(c.Extra, "<request xmlns='"+NSReceipts+"'/>"...)
				case "received":
					c.Extra = append(stanza.AppendAttr(append(c.Extra, "<received xmlns='"+NSReceipts+"'"...), "id", hashed(el.AttrBytes("id"))), "/>"...)
				}
			}
		case string(ns) == NSStanzaID && string(local) == "origin-id":
			c.Extra = append(stanza.AppendAttr(append(c.Extra, "<origin-id xmlns='"+NSStanzaID+"'"...), "id", hashed(el.AttrBytes("id"))), "/>"...)
		case string(ns) == NSHints, string(ns) == NSEME, string(ns) == NSCarbons && string(local) == "private", string(ns) == NSMarkers, string(ns) == NSCaps, string(ns) == "jabber:x:event":
			// ours are put in their place, or nobody misses them
		case sealedBy(ns, local) != "":
			allow := sealedBy(ns, local)
			if f := sealedOut[allow].of(el); f != nil && rule.Allows(allow) && f.fits(el, nil) {
				opaque := el
				c.Opaque = &opaque
			} else {
				c.Sealed, c.Unsound = true, rule.Allows(allow)
			}
		case string(ns) == NSXHTML, string(ns) == NSNick, string(ns) == "urn:xmpp:fallback:0", string(ns) == "urn:xmpp:styling:0", string(ns) == "urn:xmpp:message-attaching:1":
			c.Lost = cmp.Or(c.Lost, sameAgain) // without a text; beside one it says the same again
		case string(ns) == NSReactions && string(local) == "reactions" && c.Reacts == nil:
			c.Reacts = reaction(el)
		case content[string(ns)].what != "":
			k := content[string(ns)]
			if f := transfers.of(el); f != nil && k.allow != "" && rule.Allows(k.allow) && f.fits(el, nil) {
				w := &anew{Voice: asItIs, dst: c.Files}
				w.element(f, el, []byte(nsClient))
				c.Files = w.dst
			} else {
				c.Lost = k.what + permitting(k.allow, false)
			}
			if string(ns) == NSOOB {
				links = append(links, el)
				continue
			}
			c.Dropped = append(c.Dropped, k.what)
		case quiet.of(el) != nil: // of the same kind as what stands in beside: nobody misses it
		default:
			c.Lost = "an extension of your program (" + clip(string(local)) + ")"
			c.Strange = append(c.Strange, clip(string(local)))
		}
	}
	c.settle(root, links)
	return c
}

// settle decides what is lost and what is left, once all that stands in the message is known.
func (c *Composed) settle(root stanza.Element, links []stanza.Element) {
	if !blank(root.TextBytes()) {
		c.Lost, c.Dropped = "text outside the body", append(c.Dropped, "text outside the body")
	}
	for _, el := range links {
		if !c.says(el) {
			c.Dropped = append(c.Dropped, content[NSOOB].what)
		}
	}
	switch {
	case c.Reacts == nil:
	case c.Body != nil:
		c.Dropped, c.Reacts = append(c.Dropped, content[NSReactions].what), nil
	case c.Lost != "" && c.Lost != sameAgain || c.Opaque != nil || c.Sealed:
		c.Lost, c.Reacts = cmp.Or(c.Lost, content[NSReactions].what), nil
	}
	if c.Lost != "" {
		c.Files = nil
	}
}

// says reports whether the text is the link that an element holds (XEP-0066): it arrives then.
func (c *Composed) says(link stanza.Element) bool {
	url, ok := link.Child(NSOOB, "url")
	return ok && c.Body != nil && strings.TrimSpace(url.Text()) == strings.TrimSpace(c.Body.Text())
}

func reaction(el stanza.Element) *Reaction {
	r := &Reaction{To: el.Attr("id")}
	for c := range el.Children() {
		if text := strings.TrimSpace(c.Text()); c.Is(NSReactions, "reaction") && text != "" {
			r.Emoji += " " + text
		}
	}
	r.Emoji = strings.TrimPrefix(r.Emoji, " ")
	return r
}

// quiet is what is left out without a word.
var quiet = Table{
	NSDelay:            {"delay": {}},
	NSDelayOld:         {"x": {}},
	NSMUCUser:          {"x": {}},
	"urn:xmpp:reply:0": {"reply": {}}, // what is replied to stands in the text as well (XEP-0461)
	"urn:xmpp:mam:tmp": {"archived": {}},
}

// sameAgain is what says the same as a text that it stands beside.
const sameAgain = "formatted text"

// asItIs leaves words as they are.
var asItIs = Voice{Fits: words, Quote: func(s string) string { return s }, Mark: func(s string) string { return s }}

func clip(s string) string { return s[:min(len(s), 40)] }

// threadID passes a thread's name when it is a short opaque token, as a UUID is, and
// else stands a hash in its place: a person could have written it.
func threadID(s []byte) []byte {
	if opaqueName(s) {
		return s
	}
	sum := sha256.Sum256(s)
	return hex.AppendEncode(nil, sum[:16])
}

// hashed passes an id without blanks; anything else is hashed like a thread.
func hashed(s []byte) []byte {
	if token(s) {
		return s
	}
	return threadID(s)
}

// sealedBy names the end-to-end encryption of the client's own that an element holds; ""
// for none.
func sealedBy(ns, local []byte) config.Allow {
	for allow, t := range sealed {
		if _, ok := t[string(ns)][string(local)]; ok {
			return allow
		}
	}
	return ""
}

// EndToEnd rebuilds a message that the client has encrypted itself, with a fixed
// text for programs that cannot read it.
func (c *Composed) EndToEnd(root stanza.Element) []byte {
	ns := c.Opaque.NS()
	w := &anew{Voice: asItIs}
	if f := sealedOut[sealedBy(ns, c.Opaque.Local())].of(*c.Opaque); f != nil {
		w.element(f, *c.Opaque, []byte(nsClient))
	}
	extra := append(w.dst, "<encryption xmlns='"+NSEME+"' namespace='"+string(ns)+"'/><store xmlns='"+NSHints+"'/>"...)
	extra = append(extra, c.Extra...)
	return stanza.Message{To: root.Attr("to"), ID: root.Attr("id"), Type: SafeType(root.Attr("type")),
		Body: "This message is end-to-end encrypted; your program cannot read it.", Extra: extra}.AppendTo(nil)
}

// AppendAlone rebuilds a message without a text: what programs tell each other, and files and
// calls that the rule lets pass.
func (c *Composed) AppendAlone(dst []byte, root stanza.Element) []byte {
	dst = append(dst, "<message"...)
	for _, name := range []string{"to", "id"} {
		if value := root.AttrBytes(name); len(value) > 0 {
			dst = stanza.AppendAttr(dst, name, value)
		}
	}
	if typ := SafeType(root.Attr("type")); typ != "" {
		dst = stanza.AppendAttr(dst, "type", typ)
	}
	return append(append(append(append(dst, '>'), c.Extra...), c.Files...), "</message>"...)
}

// SafeType is the message's type when it is one of RFC 6121 section 5.2.2 that is for one
// person.
func SafeType(t string) string {
	switch t {
	case "chat", "normal", "headline":
		return t
	}
	return ""
}

// Invites reports whether a message invites to a room (XEP-0045, XEP-0249).
func Invites(root stanza.Element) bool {
	for el := range root.Children() {
		switch string(el.NS()) {
		case NSConference:
			return true
		case NSMUCUser:
			for c := range el.Children() {
				if l := string(c.Local()); l == "invite" || l == "decline" {
					return true
				}
			}
		}
	}
	return false
}

// invitations are invitations as they may leave where rooms are allowed.
var invitations = Table{
	NSMUCUser: {"x": {Own: Forms{
		"invite":   {Attrs: Attrs{"to": address, "from": address}, Own: Forms{"reason": {Text: words}, "continue": {Attrs: Attrs{"thread": opaqueName}}}},
		"decline":  {Attrs: Attrs{"to": address, "from": address}, Own: Forms{"reason": {Text: words}}},
		"password": {Text: words}}}},
	NSConference: {"x": {Attrs: Attrs{"jid": bareJID, "password": words, "reason": words, "continue": boolean, "thread": noBlank}}},
}

// InvitationAlone is an invitation without anything beside it.
func InvitationAlone(root stanza.Element) (raw []byte, ok bool) {
	if !blank(root.TextBytes()) {
		return nil, false
	}
	w := &anew{Voice: asItIs}
	for el := range root.Children() {
		if f := invitations.of(el); f != nil {
			w.element(f, el, []byte(nsClient))
		}
	}
	return stanza.Message{To: root.Attr("to"), ID: root.Attr("id"), Type: SafeType(root.Attr("type")), Extra: w.dst}.AppendTo(nil), w.dst != nil
}

// voicing is a request for voice in a room, or a moderator's answer (XEP-0045 sections
// 7.13, 8.6).
var voicing = Table{NSData: {"x": {Attrs: Attrs{"type": oneOf("submit", "form", "cancel")}, Own: Forms{
	"field": {Attrs: Attrs{"var": oneOf("FORM_TYPE", "muc#role", "muc#jid", "muc#roomnick", "muc#request_allow"), "type": token, "label": blank},
		Own: Forms{"value": {Text: noBlank}}}}}}}

// AsksForVoice reports whether a message is a request for voice, or the answer to one.
func AsksForVoice(root stanza.Element) bool {
	asks := false
	for el := range root.Children() {
		f := voicing.of(el)
		if f == nil || !f.fits(el, nil) {
			return false
		}
		for field := range el.Children() {
			v, ok := field.Child(NSData, "value")
			asks = asks || ok && field.Attr("var") == "FORM_TYPE" && v.Text() == NSMUC+"#request"
		}
	}
	for name, value := range root.AttrNames() {
		asks = asks && addressing(name, value)
	}
	return asks && blank(root.TextBytes())
}

// AppendBareError rebuilds a client's error without the text and the stanza it may
// quote.
func AppendBareError(dst []byte, root stanza.Element) []byte {
	e := stanza.Error{Type: "cancel", Condition: "undefined-condition"}
	if el, ok := root.Child(nsClient, "error"); ok {
		if t := el.Attr("type"); slices.Contains([]string{"auth", "cancel", "continue", "modify", "wait"}, t) {
			e.Type = t
		}
		for c := range el.Children() {
			l := string(c.Local())
			if _, known := conditions[l]; known && string(c.NS()) == stanza.NSStanzas {
				e.Condition = l
			}
		}
	}
	return stanza.AppendError(dst, string(root.Local()), "", root.Attr("to"), root.Attr("id"), e)
}
