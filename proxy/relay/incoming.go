package relay

import (
	"bytes"
	"strings"
	"sync"
	"time"

	"otrproxy/otrlayer"
	"otrproxy/otrlayer/text"
	"otrproxy/proxy/address"
	"otrproxy/proxy/filter"
	"otrproxy/proxy/leg"
	"otrproxy/proxy/metrics"
	"otrproxy/proxy/upstream"
	"otrproxy/stanza"
)

// The way of a stanza in:
//
//	incoming     takes it from the server's reader; from where nobody may speak, nothing comes
//	inMessage    a message; a copy goes by copies.go, an error by bounced.go; what was acted on before
//	             goes nowhere (repeated.go)
//	outside      what it says otherwise than in a text
//	Receive      otrlayer's: opens what is encrypted, marks what came in clear
//	showing      how it is shown: written anew from the tables of filter,
//	open         or as it came, where no encryption is expected
//
// Presence goes by in_presence.go, requests and answers by in_request.go. Whether encryption is
// expected, and what holds for an address, says expected.go.

// incoming decides about one stanza of the server.
func (s *Session) incoming(st *stanza.Stanza) {
	if st.Kind == stanza.KindSpace {
		s.client.Queue(st.Raw)
		return
	}
	root := st.Root()
	switch string(root.NS()) {
	case stanza.NSClient:
		if s.counts.Load() {
			s.came++
		}
		switch {
		case s.late(root):
			return
		case !s.sealed.Load() || !s.counts.Load():
			defer s.handle()
		case isKept(root) && !complains(root):
			return // nothing is counted any more, so that it comes next time
		}
	case leg.NSAcks:
		s.inAck(root)
		return
	default:
		s.inNonza(st)
		return
	}
	from := s.r.addresses.Again(&s.metIn, root, "from")
	if s.unspeakable(root, from) {
		s.r.Metrics.Count(metrics.In, kindOf(root), metrics.Blocked)
		return
	}
	switch string(root.Local()) {
	case "message":
		s.inMessage(st, from)
	case "presence":
		s.inPresence(st, from)
	case "iq":
		s.inIQ(st, from)
	default: // nothing else is a stanza (RFC 6120 section 4.1.2)
		if s.r.config().HandsOff(s.jid) {
			s.client.Queue(st.Raw)
		}
	}
	s.shown()
}

// isKept reports whether a stanza is one that servers keep for a client that has not got it
// (RFC 6121 section 8.5.2.1.1, XEP-0160): a message that is no answer, news or talk.
func isKept(root stanza.Element) bool {
	if string(root.Local()) != "message" {
		return false
	}
	switch string(root.RawAttr("type")) {
	case "", "normal", "chat":
		return true
	}
	return false
}

// complains reports whether a message is an OTR error. It is of use now only: what comes next time
// comes late, and an error that comes late says nothing of what was sent since.
func complains(root stanza.Element) bool {
	body := picked(root)
	return body != nil && otrlayer.Complains(body.TextBytes())
}

func kindOf(root stanza.Element) metrics.Kind {
	switch string(root.Local()) {
	case "presence":
		return metrics.Presence
	case "iq":
		return metrics.IQ
	}
	return metrics.Message
}

// inNonza passes stream errors, as far as they are the client's business.
func (s *Session) inNonza(st *stanza.Stanza) {
	if !st.Is(stanza.NSStream, "error") {
		return // nothing else was offered
	}
	cond, text := upstream.StreamError(st)
	s.r.log.Warn("a server ended a session", "account", s.r.log.Name(s.jid), "condition", cond)
	if _, sent := st.Root().Child(stanza.NSStreams, "see-other-host"); sent { // following it, the client would leave us out
		s.r.Servers.Move(s.up.Domain, s.jid, upstream.SentTo(st))
		cond, text = "remote-connection-failed", " (the server asked to connect elsewhere)"
	}
	s.endBeside(cond, "The server ended the session: "+cond+text+".")
}

// anew hands the client what f writes, which may be nothing. It is written before the queue
// is locked: f may ask about conversations, and those who hold their lock take the queue's.
func (s *Session) anew(f func([]byte) []byte) {
	b := written.Get().(*[]byte)
	*b = f((*b)[:0])
	s.client.Queue(*b)
	written.Put(b)
}

// written are buffers for what is written anew.
var written = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// inMessage is the way of a message in.
func (s *Session) inMessage(st *stanza.Stanza, from address.JID) {
	root := st.Root()
	if s.repeats(root) {
		s.r.Metrics.Count(metrics.In, metrics.Message, metrics.Swallowed)
		return
	}
	failed := string(root.RawAttr("type")) == "error"
	if failed && strings.HasPrefix(root.Attr("id"), leg.OwnID) {
		s.bounce(st, from)
		return
	}
	if filter.Wraps(root) && !s.r.config().HandsOff(s.jid) {
		if c, ok := filter.CopyOf(root); ok {
			s.inCopy(st, from, &c)
		} else {
			s.r.Metrics.Count(metrics.In, metrics.Message, metrics.Blocked)
		}
		return
	}
	switch {
	case s.leftAlone(from):
		s.pass(st)
		return
	case s.isRoom(from.Bare):
		s.open(st, nil, "")
		return
	case failed:
		s.bounce(st, from)
		return
	case s.expects(from) && s.voice.Signals(root):
		s.pass(st)
		return
	}
	body := picked(root)
	// What the server says for the account, and in what may be a room.
	own := !from.OK || from.Bare == s.jid && !from.Resource || s.unsure(from.Bare)
	late, sent := delayed(root)
	var r otrlayer.Reading
	switch {
	case body == nil && own:
		r.Deliver = true
	case body == nil:
		r = s.outside(root, from, false)
	case own:
		r = s.outsideOTR(from, body.Text())
	default:
		r = s.Account().Receive(s, otrlayer.Incoming{From: from.Full, Contact: from.Bare, To: root.Attr("to"), ID: root.Attr("id"), Type: root.Attr("type"), Bytes: body.TextBytes(), Delayed: late, Sent: sent,
			Welcome: s.isWelcome(from.Bare), Shared: !bytes.Contains(root.RawAttr("to"), []byte{'/'}), Marked: marked(root)})
	}
	if r.Complaint {
		s.hasActed(root)
	}
	r = s.alsoMarked(from, r)
	if r.Unreadable && late && s.unread.another(s, from.Bare) {
		r.Deliver = false
	}
	if !r.Deliver {
		s.r.Metrics.Count(metrics.In, metrics.Message, metrics.Swallowed)
		return
	}
	if !own && !s.guarded(from, r) {
		s.open(st, body, r.Text)
		return
	}
	show := s.showing(from, body, r)
	says := false
	s.anew(func(b []byte) []byte {
		out, something := show.AppendTo(b, root)
		if says = something || !root.HasChildren() || show.From != filter.Contact; !says {
			return b
		}
		return out
	})
	if !says {
		s.r.Metrics.Count(metrics.In, metrics.Message, metrics.Swallowed)
		return
	}
	s.delivered(r)
}

// guarded reports whether what is shown of a message has to be written anew: encryption is
// expected, or the text was not shown as it came.
func (s *Session) guarded(from address.JID, r otrlayer.Reading) bool {
	return r.Encrypted || r.Clear || r.Unreadable || s.expects(from)
}

// showing says how a message is shown whose text was read.
func (s *Session) showing(from address.JID, body *stanza.Element, r otrlayer.Reading) filter.In {
	rule := s.ruleFor(from)
	in := filter.In{Voice: s.voiceUnder(rule), Rule: rule, Body: r.Text, Clear: !r.Encrypted && !r.Unreadable, Asks: !r.Unreadable && (r.Answerable || body == nil), NotBefore: r.NotBefore}
	if !in.NotBefore.IsZero() {
		in.Now = time.Now()
	}
	switch {
	case !strings.Contains(from.Bare, "@"), from.Bare == s.jid && !from.Resource:
		in.From = filter.Service
	case s.nearRoom(from.Bare):
		in.From = filter.Room
	}
	return in
}

// outside is what a message without a text says otherwise. Where encryption is expected it
// is told in a line that has the mark of clear text; the zero reading is that the rules do
// not let it be shown.
func (s *Session) outside(root stanza.Element, from address.JID, archived bool) otrlayer.Reading {
	if !strings.Contains(from.Bare, "@") || !s.expects(from) { // services send forms
		return otrlayer.Reading{Deliver: true}
	}
	show := s.showing(from, nil, otrlayer.Reading{})
	says := show.Said(root)
	if says == nil {
		return otrlayer.Reading{Deliver: true}
	}
	return s.Account().Receive(s, s.saidInClear(from, says, archived))
}

// outsideOTR is a text that the engine does not see: of the account's own server, in its own
// name, or in what may be a room.
func (s *Session) outsideOTR(from address.JID, body string) otrlayer.Reading {
	r := otrlayer.Scrub(body)
	if r.Deliver && !r.Unreadable && s.expects(from) {
		r.Text, r.Changed, r.Clear = text.Clear(r.Text), true, true
	}
	return r
}

// open hands a message to the client of whose text no encryption is expected: as it came,
// but for what imitates the proxy, and OTR that nobody reads. Body is the text that was
// read, and text what is shown in its place.
func (s *Session) open(st *stanza.Stanza, body *stanza.Element, text string) {
	o := s.asItCame(body, text)
	root := st.Root()
	if o.Unchanged(root) {
		s.client.Queue(st.Raw)
	} else {
		s.anew(func(b []byte) []byte { return o.AppendTo(b, root) })
	}
	s.r.Metrics.Count(metrics.In, metrics.Message, metrics.Passed)
}

func (s *Session) asItCame(body *stanza.Element, text string) filter.Open {
	return filter.Open{Voice: s.voice, Body: body, Text: text, Other: scrubbed, Bare: otrlayer.Bare}
}

// scrubbed is a text that the engine must not see: OTR in it becomes a placeholder, and
// whitespace tags go.
func scrubbed(text string) (shown string, keep bool) {
	r := otrlayer.Scrub(text)
	return r.Text, r.Deliver
}

// marked reports whether a message names OTR as its encryption (XEP-0380), or has an id like
// those of our own handshakes.
func marked(root stanza.Element) bool {
	if bytes.HasPrefix(root.RawAttr("id"), []byte(leg.OwnID)) {
		return true
	}
	el, ok := root.Child(nsEME, "encryption")
	return ok && string(el.RawAttr("namespace")) == nsOTR
}

// picked is the text of a message that is read: the one without a language first.
func picked(root stanza.Element) *stanza.Element {
	var body stanza.Element
	found := false
	for el := range root.Children() {
		if el.Is(stanza.NSClient, "body") && el.Inner().Len() > 0 && (!found || body.RawAttr("xml:lang") != nil && el.RawAttr("xml:lang") == nil) {
			body, found = el, true
		}
	}
	if !found {
		return nil
	}
	picked := body // nothing is kept where there is none
	return &picked
}

// textOf is the text of a message that is read, "" for none.
func textOf(root stanza.Element) string {
	if body := picked(root); body != nil {
		return body.Text()
	}
	return ""
}

// delayed reports whether a message was stored on its way, and since when as the server has it
// (XEP-0203, XEP-0091); zero where that cannot be read.
func delayed(root stanza.Element) (late bool, sent time.Time) {
	if el, ok := root.Child(filter.NSDelay, "delay"); ok {
		sent, _ = filter.Moment(el.Attr("stamp"))
		return true, sent
	}
	_, late = root.Child(filter.NSDelayOld, "x")
	return late, sent
}

// pass hands a message to the client as it came.
func (s *Session) pass(st *stanza.Stanza) {
	s.client.Queue(st.Raw)
	s.r.Metrics.Count(metrics.In, metrics.Message, metrics.Passed)
}

// delivered counts a message that was handed to the client, for what was read.
func (s *Session) delivered(r otrlayer.Reading) {
	if r.Encrypted {
		s.r.Metrics.Count(metrics.In, metrics.Message, metrics.Decrypted)
	} else {
		s.r.Metrics.Count(metrics.In, metrics.Message, metrics.Passed)
	}
}
