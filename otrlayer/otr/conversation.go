package otr

import (
	"crypto/subtle"
	"errors"
	"io"
	"slices"
	"time"
)

const (
	// ExchangeLife is how long an exchange nobody goes on with is kept, and how long
	// the pieces of a message wait for the next one.
	ExchangeLife = 60 * time.Second
	// answerLife is how long a peer may take to go on with an exchange that we have
	// answered, before it is taken for one that was forged or given up.
	answerLife = 15 * time.Second
	// crossedLife is how long it may take once another exchange is complete.
	crossedLife = 2 * time.Second
	// HeartbeatAfter is how long we may be silent before a message of the peer is
	// answered with an empty one, so that keys move on (libotr's
	// HEARTBEAT_INTERVAL).
	HeartbeatAfter = 60 * time.Second
	// restAfter is how long a session is silent before Expire makes it smaller.
	restAfter = 60 * time.Second

	maxExchanges  = 8  // under way, with all instances
	maxCommits    = 4  // of one instance, waiting for their reveal
	maxResent     = 8  // times one D-H Commit is sent again because another crossed it
	maxSessions   = 8  // with instances of the peer
	maxAssemblies = 4  // messages in pieces, one per instance
	maxAccepted   = 64 // keys the caller accepts

	// Costly operations (modular exponentiations a peer can make us do) are bounded
	// by a budget: so many at once, one more every budgetEvery.
	budgetSize  = 40
	budgetEvery = time.Second
)

var (
	// ErrNotForUs is a message for another instance of ours, or from ourselves.
	ErrNotForUs = errors.New("a message that is not for this instance")
	// ErrUnexpected is a message of a key exchange that nobody waits for.
	ErrUnexpected = errors.New("a message of a key exchange that is not under way")
	// ErrReplayed is a data message that was read before, or came behind a later one.
	ErrReplayed = errors.New("a data message that was read before")
	// ErrVersion is a message of a version that the caller does not allow.
	ErrVersion = errors.New("a message of an OTR version that is not allowed")
	// ErrBusy tells that a peer makes us work more than people need.
	ErrBusy = errors.New("too many key exchanges at once")
	// ErrReflected is an exchange signed with our own key.
	ErrReflected = errors.New("the other side presented our own key")
	// ErrForged is an exchange whose signature, hash or MAC is wrong.
	ErrForged = errors.New("a key exchange that is not authentic")
)

// A Config is what a conversation is made of. All fields but Accepted are needed.
type Config struct {
	Key      *PrivateKey
	Instance uint32    // our instance tag
	Random   io.Reader // a cryptographically secure source
	// Versions asks which versions may be spoken now.
	Versions func() Versions
	// Accepted are the keys known of the peer, if any. Nothing is encrypted to
	// another one before the caller accepts it (Accept); with none known the first
	// one is accepted.
	Accepted []Fingerprint
}

// A Conversation is all of OTR between one account of ours and one peer, who may be
// there with several instances. It is not safe for concurrent use.
//
// Whatever the peer sends, it holds at most 8 sessions, 8 exchanges of some 3 kB and
// 4 unfinished messages in pieces of 256 KiB.
type Conversation struct {
	config   Config
	accepted []Fingerprint

	sessions   []*session
	lastID     ID
	kept       ID          // the session that never gives way to a new one
	commitment *commitment // our D-H Commit that is out, for whoever answers
	exchanges  []*exchange // under way, oldest first
	pieces     []instancePieces

	budget     int       // costly operations left
	budgetFrom time.Time // when the budget was last topped up
}

type instancePieces struct {
	sender uint32
	last   time.Time // when the last piece came
	assembly
}

// New makes a conversation in which nothing has happened yet.
func New(c Config) *Conversation {
	return &Conversation{config: c, accepted: slices.Clone(c.Accepted), budget: budgetSize}
}

// An ID names a session within its conversation; it is never 0.
type ID uint32

// A Session describes a private conversation with one instance of the peer, under one
// key of the peer's. Another key that claims to be the same instance, as whoever
// carries the messages can, gets a session of its own beside it.
type Session struct {
	ID          ID
	Instance    uint32 // the peer's tag; in version 2 the caller's number, below LowestTag
	Version     Version
	Fingerprint Fingerprint // of the key that signed the exchange which made the present keys
	// SSID is the secure session id; both sides have the same one.
	SSID [8]byte
	// Accepted tells that text may be encrypted to this key.
	Accepted bool
	// Finished tells that the other side has ended it.
	Finished bool
	// Comparing tells that an SMP is under way.
	Comparing bool
	// Sent is how many texts were encrypted with the keys of the present exchange.
	Sent int
}

func (c *Conversation) describe(s *session) Session {
	return Session{ID: s.id, Instance: s.instance, Version: s.version, Fingerprint: s.peer, SSID: s.ssid,
		Accepted: slices.Contains(c.accepted, s.peer), Finished: s.finished, Comparing: s.smp.step != smpIdle, Sent: s.texts}
}

// Session is one of the private conversations.
func (c *Conversation) Session(id ID) (Session, bool) {
	if s := c.session(id); s != nil {
		return c.describe(s), true
	}
	return Session{}, false
}

// Sessions lists the private conversations, oldest first.
func (c *Conversation) Sessions() []Session {
	out := make([]Session, len(c.sessions))
	for i, s := range c.sessions {
		out[i] = c.describe(s)
	}
	return out
}

func (c *Conversation) session(id ID) *session {
	for _, s := range c.sessions {
		if s.id == id {
			return s
		}
	}
	return nil
}

// Keep names the session that never has to give way to a new one: the one that text
// is sent to. 0 is none.
func (c *Conversation) Keep(id ID) { c.kept = id }

// Accept allows text to be encrypted to a key.
func (c *Conversation) Accept(fp Fingerprint) {
	if slices.Contains(c.accepted, fp) {
		return
	}
	if len(c.accepted) >= maxAccepted {
		c.accepted = c.accepted[1:]
	}
	c.accepted = append(c.accepted, fp)
}

// Revoke takes back that text may be encrypted to a key.
func (c *Conversation) Revoke(fp Fingerprint) {
	c.accepted = slices.DeleteFunc(c.accepted, func(a Fingerprint) bool { return a == fp })
}

// An EventKind says what has happened.
type EventKind uint8

// What may happen.
const (
	Secured     EventKind = iota + 1 // a private conversation began, or was refreshed
	Ended                            // the other side has ended it
	SMPAsked                         // the other side asks for the shared secret, or a question
	SMPProgress                      // one more step is done
	SMPSuccess                       // both know the same secret
	SMPFailure                       // they do not
	SMPAborted                       // one side gave up, or a message came out of turn
	SMPCheated                       // the other side sent what an honest program cannot
	ExtraKey                         // the other side uses the extra symmetric key
)

// An Event is something a person or the caller should know of.
type Event struct {
	Kind    EventKind
	Session Session

	// Of Secured: the session in whose place this one has come, with the same instance
	// and key.
	Before *Session

	// Of SMPAsked; and of SMPSuccess, whether it was us who answered a question: that
	// proves who we are to the other side and nothing to us.
	Question    string
	HasQuestion bool
	Answered    bool

	// Of ExtraKey.
	Use     uint32
	UseData []byte
	Key     [32]byte
}

// A Result is what became of a message.
type Result struct {
	// Text is what the peer wrote; nil where there is nothing to show.
	Text []byte
	// Session is what the message came on, and Read how many of the texts sent with its
	// present keys the peer must have read to know the key it has used.
	Session ID
	Read    int
	// NotBefore is when the peer was first told the key of ours that the message is
	// encrypted to: whoever carries it cannot have got it any earlier.
	NotBefore time.Time
	// Replies are to be sent to where the message came from, in order.
	Replies [][]byte
	Events  []Event
}

// spend takes costly operations off the budget, and reports whether it had them.
func (c *Conversation) spend(now time.Time, n int) bool {
	if gain := now.Sub(c.budgetFrom) / budgetEvery; gain > 0 {
		c.budget = int(min(budgetSize, time.Duration(c.budget)+gain))
		c.budgetFrom = now
	}
	if c.budget < n {
		return false
	}
	c.budget -= n
	return true
}

// Assemble adds a fragment, and returns the encoded message that it completes.
func (c *Conversation) Assemble(now time.Time, m Message) (whole Message, ok bool, err error) {
	if m.Kind != Fragment {
		return whole, false, ErrMalformed
	}
	if err := c.addressed(m); err != nil {
		return whole, false, err
	}
	text := c.assemble(now, m)
	if text == nil {
		return whole, false, nil
	}
	if whole = Parse(text); whole.Kind != Encoded { // no fragments of fragments
		return whole, false, ErrMalformed
	}
	if whole.Version == V2 {
		if m.Version != V2 { // a sender has one version
			return Message{}, false, ErrMalformed
		}
		whole.Sender = m.Sender
	}
	return whole, true, nil
}

// Receive takes an encoded message; anything else has no business here, and nor
// have handshakes that were stored on their way, or come from strangers: that is
// for the caller to see from the parsed message. On an error nothing has changed.
func (c *Conversation) Receive(now time.Time, m Message) (Result, error) {
	if m.Kind != Encoded {
		return Result{}, ErrMalformed
	}
	if err := c.addressed(m); err != nil {
		return Result{}, err
	}
	if m.Type == Data {
		return c.data(now, m)
	}
	return c.handshake(now, m)
}

// addressed checks the instance tags and the version.
func (c *Conversation) addressed(m Message) error {
	if m.Version != V2 && m.Version != V3 {
		return ErrMalformed
	}
	if m.Version == V3 {
		if m.Sender == c.config.Instance {
			return ErrNotForUs // our own message played back
		}
		if m.Receiver != c.config.Instance && (m.Receiver != 0 || m.Type != DHCommit && m.Kind != Fragment) {
			return ErrNotForUs
		}
	}
	if !c.config.Versions().Has(m.Version) && m.Type != Data {
		return ErrVersion
	}
	return nil
}

func (c *Conversation) assemble(now time.Time, m Message) []byte {
	if m.piece.n == 1 {
		return m.piece.text
	}
	c.expire(now)
	at := slices.IndexFunc(c.pieces, func(p instancePieces) bool { return p.sender == m.Sender })
	if at < 0 {
		if m.piece.k != 1 {
			return nil
		}
		if len(c.pieces) >= maxAssemblies {
			c.pieces = slices.Delete(c.pieces, 0, 1)
		}
		c.pieces = append(c.pieces, instancePieces{sender: m.Sender})
		at = len(c.pieces) - 1
	}
	c.pieces[at].last = now
	whole := c.pieces[at].add(m.piece, MaxMessage/maxAssemblies)
	if c.pieces[at].n == 0 {
		c.pieces = slices.Delete(c.pieces, at, at+1)
	}
	return whole
}

// data opens a data message.
func (c *Conversation) data(now time.Time, m Message) (Result, error) {
	b, err := m.decode()
	if err != nil {
		return Result{}, ErrUnreadable
	}
	s, plain, extra, err := c.opened(m, b)
	if err != nil {
		return Result{}, err
	}
	s.lastReceived = now
	text, list := records(plain)
	res := Result{Session: s.id, Read: s.read, NotBefore: s.notBefore}
	if len(text) > 0 {
		res.Text = text
	}
	for i := range list {
		if err := c.record(now, s, &list[i], extra, &res); err != nil {
			// It has been authenticated and its keys have moved on: what of it can be told
			// is told.
			return res, err
		}
		if s.finished {
			return res, nil
		}
	}
	if len(text) > 0 && now.Sub(s.lastSent) >= HeartbeatAfter && slices.Contains(c.accepted, s.peer) {
		if beat, err := c.send(now, s, nil); err == nil {
			res.Replies = append(res.Replies, beat)
		}
	}
	return res, nil
}

// opened reads a data message on the session it was made on: one of that instance, or
// in version 2, where the peer may have come back under another name, any.
func (c *Conversation) opened(m Message, b []byte) (s *session, plain []byte, extra [32]byte, err error) {
	for _, s := range c.sessions {
		if s.finished || s.version != m.Version || s.version == V3 && s.instance != m.Sender {
			continue
		}
		if plain, extra, err := s.open(b); err != ErrUnreadable {
			return s, plain, extra, err
		}
	}
	return nil, nil, extra, ErrUnreadable
}

// record handles one TLV.
func (c *Conversation) record(now time.Time, s *session, r *tlv, extra [32]byte, res *Result) error {
	switch r.kind {
	case tlvDisconnected:
		s.wipe()
		c.spent(s.instance)
		c.Left(s.instance) // what was under way is given up with it
		s.finished = true
		res.Events = append(res.Events, Event{Kind: Ended, Session: c.describe(s)})
	case tlvExtraKey:
		if len(r.value) >= 4 {
			e := Event{Kind: ExtraKey, Session: c.describe(s), UseData: slices.Clone(r.value[4:]), Key: extra}
			e.Use = (&reader{b: r.value}).int()
			res.Events = append(res.Events, e)
		}
	case tlvSMP1, tlvSMP1Q, tlvSMP2, tlvSMP3, tlvSMP4, tlvSMPAbort:
		return c.smpReceived(now, s, r, res)
	}
	return nil // padding, and what a later version may bring
}

// open is a live session, to send something on.
func (c *Conversation) open(id ID) (*session, error) {
	s := c.session(id)
	switch {
	case s == nil:
		return nil, ErrNoSession
	case s.finished:
		return nil, ErrFinished
	}
	return s, nil
}

// send makes a data message that carries a record, or nothing where that is nil, and
// no text.
func (c *Conversation) send(now time.Time, s *session, record *tlv) ([]byte, error) {
	m, err := s.seal(nil, now, c.config.Random, c.config.Instance, flagIgnore, nil, record)
	if err != nil {
		return nil, err
	}
	s.lastSent = now
	return m, nil
}

// Encrypt makes the message that carries a text on a session. The message is the
// only thing it allocates, and the text is kept nowhere.
func (c *Conversation) Encrypt(now time.Time, id ID, text []byte) ([]byte, error) {
	return c.AppendEncrypt(nil, now, id, text)
}

// AppendEncrypt is Encrypt into a buffer of the caller's: it allocates nothing where
// that has room for the message. On an error the buffer is returned as it was.
func (c *Conversation) AppendEncrypt(dst []byte, now time.Time, id ID, text []byte) ([]byte, error) {
	s, err := c.open(id)
	if err != nil {
		return dst, err
	}
	if !slices.Contains(c.accepted, s.peer) {
		return dst, ErrKeyChanged
	}
	if dst, err = s.seal(dst, now, c.config.Random, c.config.Instance, 0, text, nil); err == nil {
		s.lastSent = now
	}
	return dst, err
}

// ShareExtraKey tells the peer that the extra symmetric key is going to be used,
// and how, and returns the key beside the message (OTR version 3, "Extra
// symmetric key").
func (c *Conversation) ShareExtraKey(now time.Time, id ID, use uint32, useData []byte) (key [32]byte, message []byte, err error) {
	s, err := c.open(id)
	if err != nil {
		return key, nil, err
	}
	if !slices.Contains(c.accepted, s.peer) {
		return key, nil, ErrKeyChanged
	}
	if len(useData) > 0xffff-4 {
		return key, nil, ErrTooLong
	}
	value := append([]byte{byte(use >> 24), byte(use >> 16), byte(use >> 8), byte(use)}, useData...)
	key = s.between(1, 0).extra
	message, err = c.send(now, s, &tlv{tlvExtraKey, value})
	return key, message, err
}

// End ends a session and returns the message that tells the peer; nil where the peer
// has ended it before. All keys are forgotten.
func (c *Conversation) End(now time.Time, id ID) ([]byte, error) {
	s := c.session(id)
	if s == nil {
		return nil, nil
	}
	defer c.drop(s)
	if s.finished {
		return nil, nil
	}
	c.spent(s.instance)
	return c.send(now, s, &tlv{kind: tlvDisconnected})
}

// spent forgets our D-H Commit if it has led to the session with an instance, which
// is over: its key must not outlive the session's.
func (c *Conversation) spent(instance uint32) {
	if c.commitment != nil && slices.Contains(c.commitment.done, instance) {
		c.withdraw()
	}
}

// drop forgets a session.
func (c *Conversation) drop(s *session) {
	s.wipe()
	c.sessions = slices.DeleteFunc(c.sessions, func(x *session) bool { return x == s })
}

// Forget forgets everything, without telling the peer.
func (c *Conversation) Forget() {
	for _, s := range c.sessions {
		s.wipe()
	}
	c.removeExchanges(func(*exchange) bool { return true })
	c.sessions, c.pieces = nil, nil
	c.Abort()
}

// Abort forgets the exchanges under way, but for those that may be complete on the
// other side already (SealedUntil).
func (c *Conversation) Abort() {
	c.removeExchanges(func(e *exchange) bool { return !e.committed })
	c.withdraw()
}

// withdraw forgets our D-H Commit, if there is one, and its secrets.
func (c *Conversation) withdraw() {
	c.commitment.wipe()
	c.commitment = nil
}

// Expire forgets exchanges and messages in pieces that nobody went on with, and the
// secrets they hold. It tells when it is to be called again, if nothing happens
// before; the zero time where nothing waits. It also makes sessions that have fallen
// silent smaller, which is worth no call of its own.
func (c *Conversation) Expire(now time.Time) (next time.Time) {
	c.expire(now)
	sooner := func(began time.Time) {
		if end := began.Add(ExchangeLife); next.IsZero() || end.Before(next) {
			next = end
		}
	}
	if c.commitment != nil {
		sooner(c.commitment.began)
	}
	for _, e := range c.exchanges {
		sooner(e.began)
	}
	for i := range c.pieces {
		sooner(c.pieces[i].last)
	}
	return next
}

func (c *Conversation) expire(now time.Time) {
	old := func(began time.Time) bool { return now.Sub(began) >= ExchangeLife }
	if c.commitment != nil && old(c.commitment.began) {
		c.withdraw()
	}
	c.removeExchanges(func(e *exchange) bool { return old(e.began) })
	c.pieces = slices.DeleteFunc(c.pieces, func(p instancePieces) bool { return old(p.last) })
	for _, s := range c.sessions {
		if now.Sub(s.lastActive()) >= restAfter {
			s.rest()
		}
	}
}

// Exchanging reports whether an exchange is under way, and its next message to be expected: it
// was begun lately, and no later one is complete.
func (c *Conversation) Exchanging(now time.Time) bool {
	c.expire(now)
	if own := c.commitment; own != nil && len(own.done) == 0 && now.Sub(own.began) < answerLife {
		return true
	}
	return slices.ContainsFunc(c.exchanges, func(e *exchange) bool {
		end := e.began.Add(answerLife)
		if soon, ok := c.crossed(e.instance, e.began); ok && soon.Before(end) {
			end = soon
		}
		return now.Before(end)
	})
}

// Left forgets the exchanges under way with an instance whose program has gone; and our D-H
// Commit, if nobody else has answered it.
func (c *Conversation) Left(instance uint32) {
	own := c.commitment
	answered := own != nil && c.awaitsSignature(own, instance)
	c.removeExchanges(func(e *exchange) bool { return e.instance == instance })
	if answered && len(own.done) == 0 && !c.answered(own) {
		c.withdraw()
	}
}

// crossed is until when an exchange with an instance is to be waited for that was begun at a
// time and crossed by one that is complete. libotr has given up one of the two then, and we do
// not know which; a program that goes on with both does so at once.
func (c *Conversation) crossed(instance uint32, began time.Time) (end time.Time, ok bool) {
	for _, s := range c.sessions {
		if s.instance == instance && !s.secured.Before(began) {
			return s.secured.Add(crossedLife), true
		}
	}
	return end, false
}

// SealedUntil tells that the peer has gone on with, or begun, an exchange with an
// instance, and until when its end is to be waited for: it may have replaced the keys of
// the present session already, or have lost them before it began, so that what is sent
// with them could not be read. It is zero where there is none.
func (c *Conversation) SealedUntil(now time.Time, instance uint32) (until time.Time) {
	later := func(end time.Time) {
		if now.Before(end) && end.After(until) {
			until = end
		}
	}
	for _, e := range c.exchanges {
		if e.instance != instance {
			continue
		}
		end := e.began.Add(ExchangeLife)
		if !e.committed { // anybody can send a D-H Commit
			end = e.began.Add(answerLife)
		}
		if soon, ok := c.crossed(instance, e.began); ok && soon.Before(end) {
			end = soon
		}
		later(end)
	}
	if own := c.commitment; own != nil && own.over && len(own.done) == 0 {
		if end, ok := c.crossed(instance, own.began); ok {
			later(end)
		}
	}
	return until
}

// Unfinished is the size of the messages in pieces that wait for the next one, in
// bytes; Discard forgets them.
func (c *Conversation) Unfinished() (size int) {
	for i := range c.pieces {
		size += cap(c.pieces[i].text)
	}
	return size
}

// Discard forgets a session, and tells nobody.
func (c *Conversation) Discard() { c.pieces = nil }

// Empty reports that there is no session, exchange or unfinished message.
func (c *Conversation) Empty(now time.Time) bool {
	return len(c.sessions) == 0 && c.Expire(now).IsZero()
}

// Idle lists the sessions on which nothing was exchanged for limit, and tells when
// the next of the others will have been silent for as long; zero where there are
// none.
func (c *Conversation) Idle(now time.Time, limit time.Duration) (sessions []ID, next time.Time) {
	for _, s := range c.sessions {
		switch end := s.lastActive().Add(limit); {
		case !now.Before(end):
			sessions = append(sessions, s.id)
		case next.IsZero() || end.Before(next):
			next = end
		}
	}
	return sessions, next
}

func same(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }
