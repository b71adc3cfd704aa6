package relay

import (
	"bytes"
	"strconv"
	"strings"
	"sync"
	"time"

	"mellium.im/xmpp/jid"

	"otrproxy/config"
	"otrproxy/otrlayer"
	"otrproxy/otrlayer/text"
	"otrproxy/proxy/address"
	"otrproxy/proxy/filter"
	"otrproxy/proxy/leg"
	"otrproxy/proxy/metrics"
	"otrproxy/proxy/upstream"
	"otrproxy/stanza"
)

// incoming decides about one stanza of the server.
func (s *Session) incoming(st *stanza.Stanza) {
	if st.Kind == stanza.KindSpace {
		s.client.Queue(st.Raw)
		return
	}
	root := st.Root()
	switch string(root.NS()) {
	case stanza.NSClient:
		switch {
		case s.late(root):
			return
		case !s.sealed.Load() || !s.counts.Load():
			defer s.handle()
		case isKept(root):
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

// unspeakable reports whether nobody may speak from an address: it is the proxy's own, or
// looks like it, or is none. Where the rules leave the account alone, that is the server's
// business.
func (s *Session) unspeakable(el stanza.Element, from address.JID) bool {
	if address.Ours(from) {
		return true
	}
	bad := from.Mimics || !from.OK && len(el.RawAttr("from")) > 0
	bad = bad || from.AsService && !s.contacts.isListed(from.Bare) && (s.rooms.knows(from.Bare) || s.r.roomServices.hosts(s.jid, from.Bare))
	return bad && !s.r.config().HandsOff(s.jid)
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

// inPresence is the way of presence in.
func (s *Session) inPresence(st *stanza.Stanza, from address.JID) {
	root := st.Root()
	typ := root.Attr("type")
	alone := s.leftAlone(from)
	room := !alone && s.nearRoom(from.Bare) // before its last words are noted
	if from.OK && from.Bare != s.jid {
		switch typ {
		case "":
			program, priority := presenting(root)
			s.Account().Presence(s, from.Full, from.Bare, true, program, priority)
			defer s.fromRoom(root, from, typ) // after the presence itself
		case "unavailable":
			s.Account().Presence(s, from.Full, from.Bare, false, "", 0)
			s.fromRoom(root, from, typ)
		case "error":
			s.fromRoom(root, from, typ)
		}
	}
	if alone {
		s.client.Queue(st.Raw)
		s.r.Metrics.Count(metrics.In, metrics.Presence, metrics.Passed)
		return
	}
	rule := s.ruleFor(from)
	voice := s.voiceUnder(rule)
	if !s.expects(from) {
		s.anew(func(b []byte) []byte { return voice.AppendOpen(b, st) })
		s.r.Metrics.Count(metrics.In, metrics.Presence, metrics.Passed)
		return
	}
	done := metrics.Blocked
	s.anew(func(b []byte) []byte {
		out, unchanged, ok := voice.PresenceIn(b, root, rule, room)
		if unchanged {
			out = append(b, st.Raw...)
		}
		if ok {
			done = metrics.Passed
		}
		return out
	})
	s.r.Metrics.Count(metrics.In, metrics.Presence, done)
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

// contactOf is whom an address is of, by bare JID; none is the account's own.
func (s *Session) contactOf(from address.JID) string {
	if from.Bare == "" {
		return s.jid
	}
	return from.Bare
}

// ruleFor is the rule for what comes from an address.
func (s *Session) ruleFor(from address.JID) *config.Rule {
	return s.ruledIn.by(s.r.config(), s.jid, s.contactOf(from))
}

// expects reports whether what people say from an address is expected to be encrypted.
func (s *Session) expects(from address.JID) bool {
	return s.expected(s.contactOf(from)) || from.Also != "" && s.Account().Expects(from.Also)
}

// expected is that for one way to read the address. Most often the rule says it.
func (s *Session) expected(contact string) bool {
	switch policy := s.ruledIn.by(s.r.config(), s.jid, contact).Policy; {
	case policy.Requires():
		return true
	case policy == config.Never:
		return false
	}
	return s.Account().Expects(contact)
}

// alsoMarked has a text that is shown as it came carry the mark, where some programs read its
// sender's address as that of somebody whose texts are expected to be encrypted.
func (s *Session) alsoMarked(from address.JID, r otrlayer.Reading) otrlayer.Reading {
	if from.Also != "" && r.Deliver && r.Text != "" && !r.Encrypted && !r.Clear && !r.Unreadable && s.Account().Expects(from.Also) {
		r.Text, r.Changed, r.Clear = text.Clear(r.Text), true, true
	}
	return r
}

// voiceUnder is what becomes of words under a rule.
func (s *Session) voiceUnder(rule *config.Rule) filter.Voice {
	v := s.voice
	if rule.Drop {
		v.Mark = func(string) string { return "" }
	}
	return v
}

// speaks has the session know what becomes of words.
func (s *Session) speaks() {
	s.voice = filter.Voice{Fits: text.Harmless, Quote: text.Defused, Mark: inClear, Covers: s.covers}
}

// inClear is a text that came in clear with the mark of that; OTR in it is nobody's to read.
func inClear(body string) string {
	r := otrlayer.Scrub(body)
	if r.Unreadable || !r.Deliver {
		return r.Text
	}
	return text.Clear(r.Text)
}

// covers reports whether what an address that a stanza names says is expected to be
// encrypted.
func (s *Session) covers(jid string) bool {
	a := address.Read(jid)
	return a.OK && s.expects(a)
}

// inIQ is the way of a request or an answer in.
func (s *Session) inIQ(st *stanza.Stanza, from address.JID) {
	root := st.Root()
	typ := root.Attr("type")
	handsOff := s.leftAlone(from)
	if (typ == "result" || typ == "error") && s.ponged(root) {
		return
	}
	if (typ == "result" || typ == "error") && !s.requests.answered(s, root, from) && !handsOff {
		s.r.Metrics.Count(metrics.In, metrics.IQ, metrics.Blocked)
		return // nobody has asked: CVE-2014-2744's kin would have an id guessed
	}
	home := s.home(from) == ""
	if (typ == "result" || typ == "error") && home {
		s.carbonsSettled(root)
		s.changed(root)
	}
	attaches := false
	defer func() {
		if attaches { // after the answer was queued, for the client now gets what it is owed
			s.attach()
		}
	}()
	var e *stanza.Edit // of what is said about the service contact
	rosters, impostors, n, services := 0, 0, 0, false
	fromServer := !from.OK || from.Bare == s.jid || from.Bare == address.DomainOf(s.jid)
	for el := range root.Children() {
		switch string(el.NS()) {
		case nsRoster:
			if !home || typ != "result" && from.Full == address.DomainOf(s.jid) {
				if typ == "set" && !handsOff { // CVE-2015-8688 and its kin: somebody else's roster push
					s.r.Metrics.Count(metrics.In, metrics.IQ, metrics.Blocked)
					return
				}
				continue
			}
			s.learnRoster(el)
			rosters++
			e, n = s.withoutUs(e, st, el)
			impostors += n
		case nsDiscoInfo:
			if typ == "result" {
				s.learnService(from, el)
			}
		case nsDiscoItems:
			e, n = s.withoutUs(e, st, el)
			impostors += n
			if typ == "result" && (from.Full == address.DomainOf(s.jid) || !from.OK) && el.Attr("node") == "" && !s.r.config().HandsOff(s.jid) && !services {
				services = true
				e = s.found(e, st, el)
			}
		case stanza.NSBind:
			if j, ok := el.Child(stanza.NSBind, "jid"); ok && typ == "result" && fromServer && s.resource.Load() == nil {
				full, err := jid.Parse(j.Text())
				if err != nil || full.Bare().String() != s.jid || full.Resourcepart() == "" {
					s.r.log.Warn("a server bound another address than the one that was logged in", "account", s.r.log.Name(s.jid))
					s.endBeside("undefined-condition", "The server bound another address than the one that was logged in.")
					return
				}
				bound := full.String()
				s.resource.Store(&bound)
				s.counting()
				attaches = true
			}
		}
	}
	if typ == "set" && rosters > 0 && impostors > 0 { // a push has one item (RFC 6121 section 2.1.6)
		s.r.Metrics.Count(metrics.In, metrics.IQ, metrics.Blocked)
		return
	}
	if e != nil {
		edited, err := stanza.Parse(e.AppendTo(nil))
		if err != nil { // it has a prefix that the stream's header declares
			s.r.log.Warn("an answer of a server could not be read again", "account", s.r.log.Name(s.jid))
			s.r.Metrics.Count(metrics.In, metrics.IQ, metrics.Blocked)
			return
		}
		st = edited
	}
	s.shownIQ(st, from, home, handsOff)
	if rosters > 0 && typ == "result" && fromServer && s.remembered(listed) {
		s.rosterPush(true)
	}
}

// shownIQ hands a request or an answer to the client, as far as the rules let it pass.
func (s *Session) shownIQ(st *stanza.Stanza, from address.JID, home, handsOff bool) {
	root := st.Root()
	if handsOff {
		s.client.Queue(st.Raw)
		s.r.Metrics.Count(metrics.In, metrics.IQ, metrics.Passed)
		return
	}
	rule := s.ruleFor(from)
	r := filter.Request{Voice: s.voiceUnder(rule), Rule: rule, Own: home, Open: !s.expects(from)}
	if home || !strings.Contains(from.Bare, "@") || s.isRoom(from.Bare) || s.ofRooms(from.Bare) {
		r.From = filter.Service
	}
	passage := filter.Refused
	s.anew(func(b []byte) []byte {
		b, passage = r.AppendTo(b, root)
		if passage == filter.Unchanged {
			b = append(b, st.Raw...)
		}
		return b
	})
	if passage != filter.Refused {
		s.r.Metrics.Count(metrics.In, metrics.IQ, metrics.Passed)
		return
	}
	s.r.Metrics.Count(metrics.In, metrics.IQ, metrics.Blocked)
	if typ := root.Attr("type"); typ == "result" {
		s.unanswered(root, &r)
		return
	}
	if r.From == filter.Contact {
		s.tell(from, filter.Told(root))
	}
	if home || r.From == filter.Service || s.isWelcome(from.Bare) { // nothing is answered to strangers
		s.server.Stanza(func(b []byte) []byte {
			return stanza.AppendError(b, "iq", "", root.Attr("from"), root.Attr("id"), stanza.Error{Type: "cancel", Condition: "service-unavailable"})
		})
		s.server.Kick()
	}
}

// unanswered has a client's request fail whose answer is not let in.
func (s *Session) unanswered(root stanza.Element, r *filter.Request) {
	why := "The answer was not let in, for it is of no known form."
	if allow := r.Lacks(root); allow != "" {
		why += " A rule with allow: [" + string(allow) + "] lets it in."
	}
	s.client.Build(func(b []byte) []byte {
		return stanza.AppendError(b, "iq", root.Attr("from"), s.full(), root.Attr("id"), stanza.Error{Type: "cancel", Condition: "not-acceptable", Text: why})
	})
	s.client.Kick()
}

// tell shows what a contact says otherwise than in a text, in a line that has the mark of
// clear text. It reports false when there is nothing to show, or the rules do not let it be.
func (s *Session) tell(from address.JID, says []string) bool {
	if says == nil {
		return false
	}
	r := s.alsoMarked(from, s.Account().Receive(s, s.saidInClear(from, says, false)))
	if !r.Deliver {
		return false
	}
	s.client.Build(func(b []byte) []byte {
		return stanza.Message{From: from.Full, To: s.full(), Type: "chat", Body: r.Text}.AppendTo(b)
	})
	return true
}

// saidInClear is what somebody says otherwise than in a text, as a text in clear.
func (s *Session) saidInClear(from address.JID, says []string, archived bool) otrlayer.Incoming {
	return otrlayer.Incoming{From: from.Full, Contact: from.Bare, Text: strings.Join(says, " "), Welcome: s.isWelcome(from.Bare), Copy: true, Delayed: archived}
}

// inMessage is the way of a message in.
func (s *Session) inMessage(st *stanza.Stanza, from address.JID) {
	root := st.Root()
	failed := string(root.RawAttr("type")) == "error"
	if failed && strings.HasPrefix(root.Attr("id"), ownID) {
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
	if bytes.HasPrefix(root.RawAttr("id"), []byte(ownID)) {
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

// presenting is what a presence says of its program, if that one's habits are known
// (XEP-0115), and its priority (RFC 6121, section 4.7.2.3); 0 where it has none. Of several the
// first counts, as with clients.
func presenting(root stanza.Element) (program string, priority int) {
	named, ranked := false, false
	for el := range root.Children() {
		switch {
		case !named && el.Is(nsCaps, "c"):
			program, named = text.KnownProgram(el.AttrBytes("node")), true
		case !ranked && el.Is(stanza.NSClient, "priority"):
			n, _ := strconv.ParseInt(strings.TrimSpace(el.Text()), 10, 8)
			priority, ranked = int(n), true
		}
	}
	return program, priority
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

// bounce handles a message that came back. Those of the protocol are swallowed;
// a person's goes back under its own id, without the ciphertext.
func (s *Session) bounce(st *stanza.Stanza, from address.JID) {
	root := st.Root()
	if strings.HasPrefix(root.Attr("id"), ownID) {
		gone := false
		if el, ok := root.Child(stanza.NSClient, "error"); ok {
			for c := range el.Children() {
				switch string(c.Local()) {
				case "item-not-found", "remote-server-not-found", "gone", "jid-malformed":
					gone = true
				}
			}
		}
		s.Account().Bounced(from.Bare, gone)
		s.r.Metrics.Count(metrics.In, metrics.Message, metrics.Swallowed)
		return
	}
	known, elsewhere := s.Account().Returned(s, from.Bare, root.Attr("id"))
	if elsewhere {
		s.r.Metrics.Count(metrics.In, metrics.Message, metrics.Swallowed)
		return
	}
	shown := s.failure(st, from, known)
	m := &otrlayer.Message{Contact: from.Bare, To: from.Full, ID: root.Attr("id")}
	if known != nil {
		m = known
		if s.sign(m) == otrlayer.Unseen {
			defer s.Notice(from.Bare, otrlayer.NotSent(otrlayer.CauseBounced.Sentence(from.Bare), m))
		}
	}
	write := func(b []byte) []byte { return append(b, shown...) }
	if m.ID != "" && !s.client.Message(leg.Mark{Slip: m.Slip(), Cause: otrlayer.CauseBounced}, write) {
		s.Account().GiveBack(otrlayer.CauseBounced, m) // the client has gone
		return
	} else if m.ID == "" {
		s.client.Build(write)
	}
	s.r.Metrics.Count(metrics.In, metrics.Message, metrics.Passed)
}

// failure is how an error is shown: where encryption is expected without anything beside
// the error, which is ciphertext of ours, or what somebody else says was. Of a message that is
// known the person's own words stand there.
func (s *Session) failure(st *stanza.Stanza, from address.JID, known *otrlayer.Message) []byte {
	root := st.Root()
	switch voice := s.voiceUnder(s.ruleFor(from)); {
	case known != nil:
		return voice.AppendError(nil, root, appendSent(nil, known))
	case s.expects(from):
		return voice.AppendError(nil, root, nil)
	}
	o := s.asItCame(nil, "")
	o.Other = func(text string) (string, bool) {
		r := otrlayer.Scrub(text)
		return r.Text, r.Deliver && !r.Unreadable
	}
	return o.AppendTo(nil, root)
}

// ourPlace is from where the proxy speaks in a room: an occupant's address, for some programs
// show nothing that comes from the room's own. Nobody else speaks from there (unspeakable).
func ourPlace(room string) string { return room + "/" + address.ServiceName }

// Notice queues a line of ours: in the conversation with a contact, by bare JID; in a room, by
// our place there; or in the conversation with one of its occupants.
func (s *Session) Notice(where, line string) bool {
	_, occupant, room := strings.Cut(where, "/")
	typ, extra := "chat", "<no-store xmlns='"+nsHints+"'/><no-copy xmlns='"+nsHints+"'/>"
	switch {
	case where == s.jid:
		where = address.ServiceJID
	case occupant == address.ServiceName:
		typ = "groupchat"
	case !room && s.rooms.has(where) && !s.contacts.isListed(where):
		where, typ = ourPlace(where), "groupchat"
	case !room && s.r.roomServices.hosts(s.jid, where) && !s.contacts.isListed(where): // it is not open
		where = address.ServiceJID
	case room:
		extra += "<x xmlns='" + filter.NSMUCUser + "'/>"
	case display(s.shows.Load())&byAddress != 0:
		where = s.windows.with(where)
	}
	ok := s.client.Build(func(b []byte) []byte {
		return stanza.Message{From: where, To: s.full(), ID: ownID + leg.NewID(), Type: typ, Body: "[otrproxy] " + text.Defused(line), Extra: []byte(extra)}.AppendTo(b)
	})
	s.client.Kick()
	return ok
}
