package otrlayer

import (
	"container/list"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"otrproxy/otrlayer/keyring"
	"otrproxy/otrlayer/otr"
	"otrproxy/otrlayer/text"
)

// A conversation is all that goes on between the account and one contact: the
// live sessions with the contact's instances, the exchanges under way, and the
// messages that wait. It is guarded by its account's lock.
type conversation struct {
	a       *Account
	contact string
	outlet  Outlet // the client's session that the person used last

	carriage
	cipher
	asking
	trouble
	queue
	texts
	whereabouts
	meeting
	entry
}

// A carriage is by which session what was encrypted last has left.
type carriage struct {
	carrier Outlet
	carried time.Time // when
}

// A cipher is the contact's OTR, and its sessions.
type cipher struct {
	otr    *otr.Conversation // nil until our key is there
	live   map[otr.ID]*session
	active otr.ID       // the session that text is sent on
	state  MessageState // "" is plaintext
	places []string     // the contact's resources that speak version 2, by number
	placed int          // how many numbers have been given out
	stale  time.Time    // until when nothing is sent on a session the contact seems to have lost
	aside  otr.ID       // the session that text was sent on until its resource had a negative priority
}

// An asking is what was done to have a private conversation.
type asking struct {
	early    []arrival     // handshakes that came before our key was there
	queried  time.Time     // when the last query left
	retry    time.Time     // when to ask again, for what asked came back
	prompted time.Time     // when they were last asked again at once, for they had come
	turn     time.Time     // when it is our turn to ask, among all that wait
	tries    int           // queries since the last one that was answered
	recanted time.Time     // when the person ended it, though the contact may still answer a query
	proxied  bool          // the last handshake was Marked
	under    bool          // an exchange was under way when it was last looked at
	refused  bool          // the contact answered the whitespace tag with plain text
	offered  bool          // the whitespace tag has been sent
	anew     bool          // it was private when the proxy was stopped, and is to be again
	work     *rate.Limiter // how many more of its key exchanges are answered
}

// A trouble is what could not be read, here and there.
type trouble struct {
	unreadables            // that nobody was told of yet
	lostSums    [][32]byte // the messages that could not be read last, by their ciphertext
	follow      time.Time  // when the contact is asked, if its program has not begun by itself
	answering   time.Time  // since when, and how many, unreadable messages were answered with an error
	answers     int
	errored     time.Time // when an error of the contact's last made us ask again
	warned      time.Time // when the person was last told of one
	// unread is how many messages the contact says it could not read, by the full JID of
	// the program that says so.
	unread map[string]int
	heard  map[complaint]int // how many of them which client has heard
}

// A queue is the messages that wait for a private conversation.
type queue struct {
	held      []*Message
	heldBytes int
	heldUntil time.Time // when the first of them comes back, or before
	told      bool      // that messages wait, in the present attempt
	released  int       // how many of those that wait have been sent since
	unreached bool      // the person knows that what asked for it has come back
}

// The texts that are kept for a while.
type texts struct {
	read      []*reading            // the data messages read last
	bySum     map[[32]byte]*reading // the same, by their ciphertext
	coming    bool                  // some of them may still come to another client
	echoes    map[echo]echoed       // the protocol's messages got last
	recent    []*Message            // sent in the last minute, in case the contact could not read them
	textBytes int                   // size of the texts in read and recent
	spoke     time.Time             // when a text was last encrypted
}

// The whereabouts of the contact.
type whereabouts struct {
	away     bool              // the contact is known not to be there
	came     time.Time         // when they last came, of those who are there
	partners map[uint32]string // the full JIDs that instances have sent handshakes from
}

// A meeting is how the person and the contact have met.
type meeting struct {
	wrote    bool    // the person has written to this contact
	newcomer bool    // what is being read is of somebody the person has nothing to do with yet
	stranger bool    // nor is it a contact
	untold   *Notice // about the present session, not shown yet; nil for none
}

// An entry is the conversation's place in the account's table.
type entry struct {
	due     time.Time     // when it has something to do next
	slot    int           // its place among the deadlines, from 1; 0 for none
	at      *list.Element // its place among the idle
	counted counts        // what of it the account has counted
	as      kind          // of which it is counted
	listed  struct{ waiting, live bool }
}

// A session is what we remember of a session of the engine's, beside what it does.
type session struct {
	jid     string // full JID it answered from
	trust   keyring.Trust
	program string // which it is with, as habits has it; "" for one that is not known
	gone    bool   // its resource went offline, or ours did, and many programs forget their sessions then
	asked   *asked // what the contact wants to compare, until the person has answered
	otr.Session
}

// A complaint is an error of a contact's program, as one client has heard it.
type complaint struct {
	by   Outlet
	from string // full JID
}

type arrival struct {
	outlet Outlet
	m      Incoming
}

const (
	maxEarly      = 8                // handshakes kept until our key is there
	maxAllEarly   = 512              // of all contacts
	maxEarlyBytes = 8 << 10          // of one
	places        = 16               // more than the sessions an engine keeps
	resendWindow  = 60 * time.Second // libotr's RESEND_INTERVAL
	maxRecent     = 128              // no fewer than a program answers as unreadable at once
	maxOnline     = 32               // resources of a contact that are kept track of
	queryInterval = 60 * time.Second // between two queries nobody answered
	retryAfter    = 15 * time.Second // when one came back
	askedFor      = 10 * time.Second // in which a contact that has OTR answers one
	errorInterval = 10 * time.Second // in which at most maxErrors are sent to a contact
	rememberFor   = time.Hour        // for which an error after the end is still told
	maxErrors     = maxRecent
	oneCarrier    = time.Second // in which what is encrypted does not change to another connection
	staleFor      = 15 * time.Second
)

// engine is the contact's OTR, made at first use; there must be a key of ours.
func (c *conversation) engine() *otr.Conversation {
	if c.otr == nil {
		config := otr.Config{Key: c.a.key, Instance: c.a.tag, Random: rand.Reader,
			Versions: func() otr.Versions { return c.a.settings().versions(c.contact) }}
		for _, k := range c.a.fps.Of(c.contact) {
			config.Accepted = append(config.Accepted, k.Fingerprint)
		}
		c.otr = otr.New(config)
	}
	return c.otr
}

// place is the number under which the engine knows a resource in version 2, whose
// messages have no instance tags: without it a contact's second program would put
// its session in the place of the first one's. It stays with the resource as long as
// there is a session.
func (c *conversation) place(jid string) uint32 {
	if i := slices.Index(c.places, jid); i >= 0 {
		return uint32(i + 1)
	}
	if c.places == nil {
		c.places = make([]string, places)
	}
	for {
		i := c.placed % places
		c.placed++
		if !c.occupied(uint32(i + 1)) {
			c.places[i] = jid
			return uint32(i + 1)
		}
	}
}

func (c *conversation) occupied(place uint32) bool {
	for _, s := range c.live {
		if s.Instance == place {
			return true
		}
	}
	return false
}

// moved notes where a session's contact is now.
func (c *conversation) moved(s *session, from string) {
	s.jid, s.gone = from, false
	if s.Version != otr.V2 || c.places == nil || c.places[s.Instance-1] == from {
		return
	}
	if i := slices.Index(c.places, from); i >= 0 {
		c.places[i] = ""
	}
	c.places[s.Instance-1] = from
}

// parsed is a contact's text as OTR has it, valid as long as the text is.
func (c *conversation) parsed(m *Incoming) otr.Message {
	text := m.Bytes
	if text == nil {
		text = []byte(m.Text)
	}
	w := otr.Parse(text)
	if w.Version == otr.V2 {
		w.Sender = c.place(m.From)
	}
	return w
}

// current is the session that text is sent on; nil where the conversation is not
// private.
func (c *conversation) current() *session {
	if c.state != StateEncrypted {
		return nil
	}
	return c.live[c.active]
}

func (c *conversation) describe() Conversation {
	d := Conversation{Contact: c.contact, State: c.state, Held: len(c.held), Trust: keyring.Unverified}
	if d.State == "" {
		d.State = StatePlaintext
	}
	if len(c.held) > 0 {
		d.Waits = c.waitsFor()
	}
	known := c.a.fps.Of(c.contact)
	if s := c.current(); s != nil {
		d.Instance, d.Trust, d.Fingerprint, d.Version = s.Instance, s.trust, s.Fingerprint, int(s.Version)
		if now, ok := c.otr.Session(s.ID); ok && now.Comparing {
			d.Comparing = true
			if s.asked != nil {
				d.Asked, d.Question = true, s.asked.question
			}
		}
		for _, other := range c.live {
			if other != s && other.Fingerprint != s.Fingerprint && !other.trust.Sure() && !slices.Contains(d.Others, other.Fingerprint) {
				d.Others = append(d.Others, other.Fingerprint)
			}
		}
	} else if len(known) > 0 {
		d.Fingerprint = known[len(known)-1].Fingerprint
		d.Trust = c.a.fps.Trust(c.contact, d.Fingerprint)
	}
	for _, k := range known {
		if k.Fingerprint != d.Fingerprint && !slices.Contains(d.Known, k.Fingerprint) {
			d.Known = append(d.Known, k.Fingerprint)
		}
	}
	return d
}

// emit queues what is encrypted, or of the OTR protocol, preferably through the
// session of the client that it came from. As long as the connection that was used last
// may have something on its way, no other is used for a text: the later message could
// come first, and the earlier be taken for a replay. Where the server does not say what
// it has got, that is taken to last a moment. It reports false when nobody takes it.
func (c *conversation) emit(preferred Outlet, v Verdict) bool {
	now := c.a.now()
	if only := c.a.outlets; len(only) == 1 { // there is no choice
		if !only[0].Emit(v) {
			return false
		}
		c.carrier, c.carried = only[0], now
		return true
	}
	waiting := c.carrier != nil && c.a.attached(c.carrier) && c.carrier.Pending()
	var order []Outlet
	if waiting || now.Sub(c.carried) < oneCarrier {
		order = append(order, c.carrier)
	}
	if !waiting || v.action != Encrypted {
		order = append(order, preferred)
		for _, o := range slices.Backward(c.a.outlets) {
			order = append(order, o)
		}
	}
	for i, o := range order {
		if o != nil && !slices.Contains(order[:i], o) && c.a.attached(o) && o.Emit(v) {
			c.carrier, c.carried = o, now
			return true
		}
	}
	return false
}

// protocol sends a message of the OTR protocol itself.
func (c *conversation) protocol(to, body string, store bool) bool {
	return c.emit(c.outlet, Verdict{action: Protocol, to: to, body: body, store: store})
}

// question is the text of a query.
func (c *conversation) question() string {
	return string(otr.NewQuery(c.a.settings().versions(c.contact), c.a.jid+" asks for a private conversation with OTR (Off-the-Record) encryption. "+
		"If you can read this, your program has no OTR or has it turned off; see https://otr.im/ for programs that have it."))
}

// query asks the contact for a private conversation.
func (c *conversation) query(now time.Time) {
	if c.protocol(c.contact, c.question(), true) {
		c.queried = now
		c.tries++
	}
}

// attempt asks for a private conversation where messages wait for one. again
// overrides the pause between two queries.
func (c *conversation) attempt(now time.Time, again bool) {
	if !c.lacks() {
		return
	}
	if !again && (c.engine().Exchanging(now) || now.Sub(c.queried) < queryInterval) {
		return
	}
	c.ask(now)
}

// lacks reports whether something waits for a private conversation that the contact could
// begin, and for no decision of the person's.
func (c *conversation) lacks() bool {
	if len(c.held) == 0 || c.a.key == nil {
		return false
	}
	s := c.current()
	return s == nil || !c.stale.IsZero() || s.gone || c.low(s)
}

// handle acts on what the engine has to tell.
func (c *conversation) handle(now time.Time, events []otr.Event, from string) {
	for _, e := range events {
		switch e.Kind {
		case otr.Secured:
			c.secured(now, e, from)
		case otr.Ended:
			c.finished(now, e.Session.ID)
		case otr.SMPAsked, otr.SMPSuccess, otr.SMPFailure, otr.SMPAborted, otr.SMPCheated:
			c.compared(now, e)
		}
	}
}

// secured notes that a key exchange is complete. Its session has taken the place of
// the one with the same instance and key; with another key it stands beside it.
func (c *conversation) secured(now time.Time, e otr.Event, from string) {
	fp, id := e.Session.Fingerprint, e.Session.ID
	before, cur := c.live[id], c.current()
	trust := c.a.fps.Trust(c.contact, fp)
	for old := range c.live { // the engine has room for so many
		if _, there := c.otr.Session(old); !there {
			delete(c.live, old)
		}
	}
	s := &session{jid: from, trust: trust, Session: e.Session}
	s.program = c.programBefore(s)
	if c.live == nil {
		c.live = map[otr.ID]*session{}
	}
	c.live[id] = s
	c.a.events.Handshake("complete")
	if cur != nil && cur.trust.Sure() && !trust.Sure() && id != c.active {
		if before != nil {
			return // a refresh of what has been told
		}
		// Another device, or somebody who claims to be the same one: a key nobody
		// verified must not take over from a verified one unasked (Conversations issue
		// 2582).
		c.tell(now, topicKey, Notice{What: SayDevice, Contact: c.contact, Fingerprint: fp})
		return
	}
	was := c.state
	c.activate(now, id)
	began := func(what What) {
		n := Notice{What: what, Contact: c.contact, Fingerprint: fp, Own: c.a.key.Fingerprint(), Version: int(s.Version)}
		told := c.mayTell(now, topicPrivate)
		if !told {
			c.untold = &n // until the person writes to them
		}
		c.oncePrivate(func() {
			if told && !c.a.notice(n) {
				c.untold = &n
			}
			c.a.events.Happened(c.contact, EventPrivate)
		})
	}
	if trust == keyring.Unverified && c.a.fps.Find(c.contact, fp) == nil {
		c.saved(c.a.fps.Remember(c.contact, fp, keyring.Unverified))
	}
	c.noteVersion(now, e.Session)
	if c.proxied {
		s.program = text.AnotherProxy
	}
	switch {
	case trust == keyring.Changed:
		n := Notice{What: SayKeyChanged, Contact: c.contact, Fingerprint: fp}
		for _, k := range c.a.fps.Of(c.contact) {
			n.Others = append(n.Others, k.Fingerprint)
		}
		if !c.tell(now, topicKey, n) {
			c.untold = &n
		}
		c.a.events.Happened(c.contact, EventKeyChanged)
	case was == StateEncrypted && before != nil && before.trust == trust && before.Version == s.Version:
		// a refresh; nothing a person needs to know
	case trust.Sure():
		began(SayStarted)
	case c.a.settings().Policy(c.contact) == RequireVerified:
		began(SayUnverified)
	default:
		began(SayNotVerified)
	}
	c.resend(now, fp)
	if before != nil {
		// What went out on the keys before has been read or complained of by now: nothing
		// is sent while an exchange is under way.
		c.forgetSent(func(m *Message) bool { return m.ssid == before.SSID })
	}
	c.flush(now)
}

// activate makes a session the one that text is sent on.
func (c *conversation) activate(now time.Time, id otr.ID) {
	if old, ok := c.otr.Session(c.active); ok && old.Comparing && c.active != id {
		if m, err := c.otr.SMPAbort(now, c.active); err == nil {
			c.protocol(c.to(c.live[c.active]), string(m), false)
		}
		c.a.notice(c.about(SaySMPGivenUp))
	}
	c.active, c.state = id, StateEncrypted
	c.a.private.Keep(c.contact, true)
	c.otr.Keep(id)
	c.stale, c.queried, c.follow, c.tries, c.under, c.anew = time.Time{}, time.Time{}, time.Time{}, 0, false, false
	c.untold, c.aside = nil, 0
}

// noteVersion remembers the highest version spoken with a key, and tells when a
// contact that has spoken version 3 comes down to 2: that is what somebody on the
// way would bring about to weaken it. A key that never spoke better is a program
// that cannot.
func (c *conversation) noteVersion(now time.Time, s otr.Session) {
	known := c.a.spoken.Find(c.contact, s.Fingerprint)
	better := func(k otr.KnownKey) bool { return k.Trust > fmt.Sprint(s.Version) }
	if known != nil && better(*known) || known == nil && slices.ContainsFunc(c.a.spoken.Of(c.contact), better) {
		c.tell(now, topicWeaker, Notice{What: SayWeaker, Contact: c.contact, Version: int(s.Version)})
	}
	// Of a key that is not accepted nothing is kept: whoever carries the messages can make
	// any number of them.
	if c.a.fps.Find(c.contact, s.Fingerprint) != nil && (known == nil || !better(*known)) {
		c.saved(c.a.spoken.Set(c.contact, s.Fingerprint, fmt.Sprint(s.Version)))
	}
}

func (c *conversation) saved(err error) {
	if err != nil {
		c.a.events.Log(8, "fingerprint not saved", keyring.Cause(err))
	}
}

// resend puts what the contact said it could not read before all that waits, to be
// sent once more, to the same key only; what went to another is given back.
func (c *conversation) resend(now time.Time, to keyring.Fingerprint) {
	c.forgetRecent(now)
	complained := c.complained()
	var again, other, lost []*Message
	c.forgetSent(func(m *Message) bool {
		switch _, ok := complained[m]; {
		case !ok:
			return false
		case m.forgotten:
			lost = append(lost, m)
		case m.to != to:
			other = append(other, m)
		default:
			copied := *m
			copied.again, copied.since, copied.kept = true, now, nil
			again = append(again, &copied)
			c.heldBytes += len(m.Text) + len(m.Extra)
			c.heldUntil = now // looked at anew
		}
		return true
	})
	c.held = append(again, c.held...)
	c.calm("")
	c.a.returned(CauseKeyChanged, false, other...)
	c.lost(lost)
}

// lost gives back messages that the contact could not read and whose text is not kept any
// more: not every program shows a message that comes back without its words.
func (c *conversation) lost(list []*Message) {
	if len(list) == 0 {
		return
	}
	c.a.notice(c.about(SayLost))
	c.a.returned(CauseUnread, false, list...)
}

// end ends all sessions politely and forgets the exchanges under way.
func (c *conversation) end() {
	for id, s := range c.live {
		if msg, err := c.otr.End(c.a.now(), id); err == nil && msg != nil {
			c.protocol(c.to(s), string(msg), false)
		}
	}
	clear(c.live)
	if c.otr != nil {
		c.otr.Forget()
	}
	c.over("")
}

// idle ends a session that nobody has used for long, so that its keys go.
func (c *conversation) idle(now time.Time, id otr.ID) {
	s := c.live[id]
	msg, err := c.otr.End(now, id)
	if s == nil {
		return
	}
	if err == nil && msg != nil {
		c.protocol(c.to(s), string(msg), false)
	}
	delete(c.live, id)
	if id != c.active || c.state != StateEncrypted {
		return
	}
	c.over(StateFinished)
	if c.a.settings().Policy(c.contact).requires() {
		c.a.notice(c.about(SayIdle))
		return
	}
	c.a.notice(c.about(SayIdleOpen))
}

// over notes that a private conversation is over. What was sent last is kept for its
// minute: it may have crossed the contact's end.
func (c *conversation) over(s MessageState) {
	if c.state == StateEncrypted {
		c.a.events.Happened(c.contact, EventEnded)
	}
	c.active, c.state = 0, s
	c.stale, c.queried, c.follow, c.anew = time.Time{}, time.Time{}, time.Time{}, false
	c.untold, c.aside = nil, 0
}

// to is where messages of a session go: the full JID that answered, until that
// resource goes.
func (c *conversation) to(s *session) string {
	if s.jid != "" {
		return s.jid
	}
	return c.contact
}
