package otrlayer

import (
	"container/list"
	"crypto/rand"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"otrproxy/otrlayer/keyring"
	"otrproxy/otrlayer/otr"
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
	unread       map[string]int
	complainedAt time.Time         // when the last of these was counted
	heard        map[complaint]int // how many of them which client has heard
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

// to is where messages of a session go: the full JID that answered, until that
// resource goes.
func (c *conversation) to(s *session) string {
	if s.jid != "" {
		return s.jid
	}
	return c.contact
}
