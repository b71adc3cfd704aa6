package otrlayer

import (
	"bytes"
	"container/list"
	"fmt"
	"maps"
	"os"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"otrproxy/otrlayer/keyring"
	"otrproxy/otrlayer/otr"
)

// A Policy says what happens to text a person writes to a contact. The zero
// value requires encryption.
type Policy uint8

// The policies.
const (
	Require         Policy = iota // nothing leaves in clear
	RequireVerified               // nor to a key nobody has verified
	Opportunistic                 // offers OTR by the whitespace tag
	Manual                        // plain until somebody asks
	Never                         // hands off
)

// Hold bounds the messages that wait, per contact.
type Hold struct {
	Messages int
	Bytes    int
	For      time.Duration // where the contact may be there
	Offline  time.Duration // where the contact is known not to be
}

// Settings are what an account takes from the configuration. Policy is asked for
// every message, so that a new configuration holds at once.
type Settings struct {
	Policy   func(contact string) Policy
	Versions func(contact string) []int // of OTR that may be spoken; nil, or a nil answer, for 2 and 3
	Hold     Hold
	Largest  int           // bytes an encrypted body may have; 0 for no limit
	Idle     time.Duration // after which silence ends a private conversation; 0 for never
	// Drop says that what a contact sends in clear where encryption is expected is not
	// shown; nil for never.
	Drop func(contact string) bool
	// Reason is what the household says of the rule for a contact, to whom it stops; nil
	// for nothing.
	Reason func(contact string) string
	// Full reports that memory is short: nothing more is held. Nil for never.
	Full func() bool
	// HandsOff reports that the rules want no OTR with anybody: no key is made before
	// something needs one. Nil for never.
	HandsOff func() bool
}

var everyVersion = otr.Set(otr.V2, otr.V3)

func (s Settings) versions(contact string) otr.Versions {
	if s.Versions == nil {
		return everyVersion
	}
	list := s.Versions(contact)
	if list == nil {
		return everyVersion
	}
	set := otr.Versions(0)
	for _, v := range list {
		set |= otr.Set(otr.Version(v))
	}
	return set
}

// A Message is text a person's client handed over.
type Message struct {
	Contact  string // bare JID
	To       string // as the client wrote it
	ID       string
	Type     string // XMPP's message type
	Slight   bool   // it says nothing a person wrote
	Text     string
	Thread   string                   // its thread's name (RFC 6121 section 5.2.5), for the error that gives it back
	Occupant bool                     // it is for one occupant of a room (XEP-0045 section 7.5)
	Where    string                   // in which conversation lines about it stand; "" for that with the contact
	Extra    []byte                   // what may stand beside the ciphertext, ready to send; valid as long as Raw
	Raw      []byte                   // the stanza as it came; valid only during Send or Pass
	RawID    []byte                   // the ID in the place of ID, for Pass; valid only during it
	Rewrite  func(body string) []byte // the stanza as it came with another body; valid only during Send

	outlet Outlet
	since  time.Time
	to     keyring.Fingerprint // the key it was encrypted to
	ssid   [8]byte             // of the keys, and how many texts they had encrypted with it
	count  int
	at     string // the JID it went to
	again  bool   // it is being sent again

	kept      *list.Element // among the texts the account keeps; nil for none
	forgotten bool          // its text is not kept any more
}

// A Slip is what is needed to give a message back.
type Slip struct {
	Contact, To, ID string
	Text            string // "" where nobody has looked at it
	Where           string
	Occupant        bool
	outlet          Outlet
}

// Slip is that of the message.
func (m *Message) Slip() Slip {
	return Slip{m.Contact, m.To, m.ID, m.Text, m.Where, m.Occupant, m.outlet}
}

// Message is the message a slip is of.
func (s Slip) Message() *Message {
	return &Message{Contact: s.Contact, To: s.To, ID: s.ID, Text: s.Text, Where: s.Where, Occupant: s.Occupant, outlet: s.outlet}
}

// An Action says what becomes of a message. The zero value blocks it.
type Action uint8

// The actions.
const (
	Block     Action = iota
	Held             // waits for a private conversation
	Plain            // leaves as the person wrote it
	Encrypted        // leaves as an OTR data message
	Protocol         // a message of the OTR protocol itself, without anything the person wrote
)

// A Verdict is the permission to write one message to the server. Only this
// package makes verdicts that permit anything.
type Verdict struct {
	action  Action
	cause   Cause
	message *Message // nil for Protocol
	to      string
	body    string
	sealed  []byte // the body of an encrypted one, which has no other
	store   bool
}

// Action is what may be done.
func (v Verdict) Action() Action { return v.action }

// Cause is why it may not leave now.
func (v Verdict) Cause() Cause { return v.cause }

// Message is what it is about.
func (v Verdict) Message() *Message { return v.message }

// To is the JID the stanza goes to.
func (v Verdict) To() string { return v.to }

// Body is the text of the stanza's body; empty for Plain when the stanza leaves
// byte for byte.
func (v Verdict) Body() string {
	if v.sealed != nil {
		return string(v.sealed)
	}
	return v.body
}

// Sealed is the body of an Encrypted one, without a copy: valid until Emit returns.
func (v Verdict) Sealed() []byte { return v.sealed }

// Clone is a verdict that stays valid.
func (v Verdict) Clone() Verdict {
	v.sealed = bytes.Clone(v.sealed)
	return v
}

// Store reports whether the server should keep the message for a contact that is
// offline.
func (v Verdict) Store() bool { return v.store }

// An Outlet is a client's session, as its account sees it. Its methods are called
// with the account locked: they queue and never wait.
type Outlet interface {
	// Emit queues a message to the server, and reports whether it could: a session
	// that is ending takes no more. The order of calls is the order on the wire. The
	// verdict is valid until Emit returns.
	Emit(Verdict) bool
	// Pending reports whether what was emitted may still be on its way to the server.
	// Acknowledged is called on the account once it is not, and Detach at the end.
	Pending() bool
	// Sees reports whether the client is told when a contact comes or goes (RFC 6121 section
	// 3.1): where it is not told of any, they are offline.
	Sees(contact string) bool
	// Notice queues a line from the proxy in a conversation, and reports whether it could.
	Notice(where string, n Notice) bool
	// Shows tells the session that the text which it has just given to Receive is to be shown.
	// What the session is told to mirror after that must not be shown before it.
	Shows()
	// Mirror shows the client what another client of the account has sent or got.
	Mirror(Mirrored) Mirroring
	// Return hands a message back to the client as an error, and reports what the person
	// sees of it.
	Return(m *Message, why Why) Sign
}

// Events counts what happens; its methods must be quick.
type Events interface {
	Handshake(result string) // complete, failed or refused
	Keeps(before, now Kept)  // what the account keeps has changed
	Happened(contact string, e Event)
	Log(level int, what string, err error) // level as log/slog has it; what names nobody
}

// An Event is something in a conversation that people may want to be told of, or that
// changes what is shown of it. It is a closed set.
type Event string

// The events.
const (
	EventPrivate    Event = "private"     // a private conversation began
	EventEnded      Event = "ended"       // it ended
	EventKeyChanged Event = "key-changed" // the contact's key is another one; nothing is sent
	EventTrust      Event = "trust"       // a key was verified, accepted or distrusted
	EventAsked      Event = "asked"       // the contact wants to compare a secret
	EventCompared   Event = "compared"    // a comparison ended, one way or the other
	EventHeld       Event = "held"        // a message waits
	EventReleased   Event = "released"    // what waited has gone
	EventReturned   Event = "returned"    // a message came back
)

// EventKinds is the closed set.
var EventKinds = []Event{EventPrivate, EventEnded, EventKeyChanged, EventTrust, EventAsked, EventCompared, EventHeld, EventReleased, EventReturned}

// An Account is one bare JID: its keys, its trust in others' keys, and its
// conversations, which outlive any one connection. It is safe for use by several
// goroutines.
type Account struct {
	jid       string
	dir       string
	settings  func() Settings
	events    Events
	vault     keyring.Vault // nil where keys are kept in clear
	clock     func() time.Time
	maker     *keyring.Maker
	guestOf   *Account    // the account that this is a guest of; nil for an account itself
	inherited bool        // the account has taken over what this guest had; guarded by mu
	unmade    atomic.Bool // it has no directory yet; changes with keys and mu both held

	keys sync.Mutex // held while the account's key files are read or change; taken before mu

	mu        sync.Mutex
	key       *otr.PrivateKey
	keyErr    error
	tag       uint32
	fps       *keyring.Fingerprints
	spoken    *keyring.Fingerprints // the highest version spoken with each key
	formats   *keyring.Fingerprints // the program that has each key, as far as it matters for text
	convs     map[string]*conversation
	idle      list.List                             // those that may be removed, the longest idle first
	waiting   map[*conversation]struct{}            // those in which messages wait
	live      map[*conversation]struct{}            // those with sessions
	of        map[Outlet]map[*conversation]struct{} // those that refer to a client's session
	deadlines deadlines
	total     counts                // of all conversations
	kinds     Kinds                 // of them
	published Kept                  // what the events know of that
	texts     list.List             // of *text, oldest first
	textBytes int                   // their size
	lines     lines                 // that others have caused
	paces     paces                 // at which we ask and answer
	store     *keyring.Store        // writes fps, spoken, formats and private
	private   *keyring.Privates     // contacts whose conversation was private, over restarts
	there     map[string][]resource // contacts' resources that are there, by bare JID
	resources int                   // how many those are
	outlets   []Outlet
	owed      []owing // to be handed back to the next client that comes
	timer     *time.Timer
	wakes     time.Time                // when the timer goes off
	generated chan struct{}            // closed when the key is there, or never will be
	making    bool                     // the key is being made
	sent      map[string]int           // to each contact, of what waited and was sent when no client was there to be told
	leaving   map[Outlet]chan struct{} // sessions without a client, for which something waits
	open      map[string]string        // conversations that were private when the proxy was stopped, with the full JID; until somebody is there to ask
	closed    bool
}

// MaxPieceBytes bounds the unfinished messages in pieces of all contacts, in bytes: who may
// send any is up to the server, which keeps the list of contacts. Half of it is for those
// that the person has to do with.
const MaxPieceBytes = 16 << 20

// Open reads an account from its directory below state. It has no key where none was
// made: Prepare makes one, and with it the directory; before, an account leaves nothing
// behind. Where keys are encrypted, vault may not be nil. A nil maker is one of the account's
// own, without keys to spare.
func Open(state, jid string, settings func() Settings, events Events, vault keyring.Vault, maker *keyring.Maker) (*Account, error) {
	if maker == nil {
		maker = keyring.NewMaker("", nil, nil)
	}
	dir := keyring.Dir(state, jid)
	a := &Account{jid: jid, dir: dir, settings: settings, events: events, vault: vault, maker: maker, clock: time.Now, convs: map[string]*conversation{}, of: map[Outlet]map[*conversation]struct{}{},
		there: map[string][]resource{}, generated: make(chan struct{})}
	a.unmade.Store(!keyring.Exists(dir, ""))
	var err error
	if a.fps, err = keyring.LoadFingerprints(dir, keyring.FingerprintFile, jid); err != nil {
		return nil, err
	}
	if a.spoken, err = keyring.LoadFingerprints(dir, keyring.VersionFile, jid); err != nil {
		return nil, err
	}
	if a.formats, err = keyring.LoadFingerprints(dir, keyring.FormatFile, jid); err != nil {
		return nil, err
	}
	if a.open, err = takeOpen(dir); err != nil {
		return nil, err
	}
	if a.tag, err = keyring.LoadTag(dir, jid); err != nil {
		return nil, err
	}
	if a.private, err = keyring.LoadPrivate(dir); err != nil {
		return nil, err
	}
	a.store = keyring.NewStore(&a.mu, func(what string, err error) { events.Log(8, what, err) }, &a.fps.LineFile, &a.spoken.LineFile, &a.formats.LineFile, &a.private.LineFile)
	if vault != nil && vault.Sealing() { // a file that was copied into place, say
		if err := keyring.SealKeys(dir, vault, true); err != nil {
			return nil, err
		}
	}
	if a.key, err = keyring.LoadKey(dir, jid, vault); err != nil {
		return nil, err
	}
	close(a.generated)
	return a, nil
}

// make makes the directory of an account that has none yet, with its instance tag. One that
// has gone meanwhile is not made again: what was in it would be forgotten without a word. The
// caller holds keys, and not mu.
func (a *Account) make() error {
	if !a.unmade.Load() {
		return nil
	}
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return fmt.Errorf("the account's directory cannot be made: %w", err)
	}
	if err := keyring.Write(a.dir, keyring.InstanceFile, otr.AppendInstanceTag(nil, a.jid, keyring.ProtocolName, a.tag)); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unmade.Store(false)
	return nil
}

// Made reports whether the account has a directory.
func (a *Account) Made() bool { return !a.unmade.Load() }

// Prepare makes the account's directory, where it has none, and its key in the background.
// Where the rules want no OTR with anybody the key waits until something needs it.
func (a *Account) Prepare() error {
	a.keys.Lock()
	err := a.make()
	a.keys.Unlock()
	if err != nil {
		return err
	}
	if off := a.settings().HandsOff; off != nil && off() {
		return nil
	}
	a.maker.Stock()
	a.NeedKey()
	return nil
}

// NeedKey has the account's key made in the background, where there is none, and reports
// whether it is being made. An account without a directory gets none.
func (a *Account) NeedKey() (making bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.needKey(true)
	return a.making
}

// needKey is NeedKey with the account locked. What could not be made is tried again where
// that is asked for.
func (a *Account) needKey(again bool) {
	if a.key != nil || a.making || a.closed || a.unmade.Load() || a.guestOf != nil || a.keyErr != nil && !again {
		return
	}
	a.making, a.generated = true, make(chan struct{})
	go a.generate()
}

// newKey is a key that nobody else has.
func (a *Account) newKey() (*otr.PrivateKey, error) {
	return a.maker.Key(func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.closed
	})
}

func (a *Account) generate() {
	k, err := a.newKey()
	a.keys.Lock()
	defer a.keys.Unlock()
	if err == nil && !a.hasKey() {
		err = a.saveKey(k) // not while key files are being encrypted
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.making = false
	defer close(a.generated)
	switch {
	case a.key != nil: // imported meanwhile
	case err != nil:
		a.keyErr = err
		if !a.closed {
			a.events.Log(8, "no OTR key", keyring.Cause(err))
		}
	default:
		a.key, a.keyErr = k, nil
	}
	now := a.now()
	for _, c := range a.convs { // what came too early
		early := c.early
		c.early = nil
		for _, in := range early {
			a.receive(in.outlet, in.m)
		}
		c.attempt(now, false)
		c.settle(now)
	}
}

func (a *Account) hasKey() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.key != nil
}

// Ready is closed once the account's key is there or could not be made.
func (a *Account) Ready() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.generated
}

// JID is the account's bare JID.
func (a *Account) JID() string { return a.jid }

// Fingerprint is that of our own key; false while there is none.
func (a *Account) Fingerprint() (keyring.Fingerprint, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.key == nil {
		return keyring.Fingerprint{}, false
	}
	return a.key.Fingerprint(), true
}

func (a *Account) now() time.Time { return a.clock() }

// Attach adds a client's session. What could not be handed back before is handed
// to it now.
func (a *Account) Attach(o Outlet) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.outlets = append(a.outlets, o)
	a.letGo()
	owed := a.owed
	a.owed = nil
	a.repay(owed)
	for contact, n := range a.sent {
		o.Notice(contact, Notice{What: SaySent, Contact: contact, N: n})
	}
	clear(a.sent)
	defer a.publish()
	now := a.now()
	for _, c := range a.convs { // what nobody was there to be told
		if c.unreadables.n > 0 {
			c.settle(now)
		}
	}
	for c := range a.waiting {
		c.flush(now)
		if len(c.held) > 0 {
			c.announce()
			c.attempt(now, true) // an answer may have come while nobody was there
		}
		c.settle(now)
	}
}

// Detach removes a session. Conversations and messages that wait stay.
func (a *Account) Detach(o Outlet) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, x := range a.outlets {
		if x == o {
			a.outlets = append(a.outlets[:i:i], a.outlets[i+1:]...)
			break
		}
	}
	now, of := a.now(), a.of[o]
	delete(a.of, o)
	a.letGo()
	if len(a.outlets) == 0 {
		clear(a.there) // nobody tells us any more who goes
		a.resources = 0
		for c := range a.live {
			c.lose(func(*session) bool { return true })
		}
		for c := range a.waiting {
			c.queried = time.Time{} // an answer finds nobody: it is asked again at once
		}
	}
	for c := range of {
		if c.carrier == o {
			// The contact sees us go, and some programs forget their sessions then without
			// a word (seen with Profanity). With version 3 they tell us apart by our instance
			// tag, and not by which of our clients carries what we say.
			c.lose(func(s *session) bool { return s.Version == otr.V2 })
			c.carrier = nil
		}
		if c.outlet == o {
			c.outlet = nil
		}
		maps.DeleteFunc(c.heard, func(k complaint, _ int) bool { return k.by == o })
		maps.DeleteFunc(c.echoes, func(k echo, _ echoed) bool { return k.by == o })
		c.flush(now)
		c.settle(now)
	}
}

// lose notes that the other side of sessions may have gone.
func (c *conversation) lose(which func(*session) bool) {
	for _, s := range c.live {
		s.gone = s.gone || which(s)
	}
}

// Acknowledged tells that everything a session has emitted has reached the server: what
// must not overtake it goes now.
func (a *Account) Acknowledged(o Outlet) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	for c := range a.waiting {
		if c.carrier == o {
			c.flush(now)
			c.settle(now)
		}
	}
}

// attached reports whether a session is still there.
func (a *Account) attached(o Outlet) bool { return slices.Contains(a.outlets, o) }

// notice shows a line in the conversation with the contact that it is about. Where others cause it, tell
// does.
func (a *Account) notice(n Notice) (told bool) {
	for _, o := range a.outlets {
		told = o.Notice(n.Contact, n) || told
	}
	return told
}

// Close gives back what waits, and returns once what is known of contacts is on disk, or cannot
// be put there. Private conversations are not ended: their keys are forgotten, and who was
// private is asked anew after the next start (Arrived).
func (a *Account) Close() {
	defer a.Saved()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	if a.timer != nil {
		a.timer.Stop()
	}
	for _, c := range a.convs {
		c.giveBack(CauseShutdown)
		c.tellUnread(a.now().Add(quietUntil)) // now or never
	}
	a.leavesOpen()
	a.letGo()
	for _, c := range a.convs {
		c.discard()
	}
	a.publish()
}

// MessageState is OTR's state of a conversation.
type MessageState string

// The states.
const (
	StatePlaintext MessageState = "plaintext"
	StateEncrypted MessageState = "encrypted"
	StateFinished  MessageState = "finished"
)

// A Conversation describes a conversation to people and metrics.
type Conversation struct {
	Contact     string
	Instance    uint32 // the contact's instance tag, 0 for none
	State       MessageState
	Trust       keyring.Trust
	Version     int // of OTR
	Fingerprint keyring.Fingerprint
	Held        int
	Waits       Cause                 // why they are held; CauseNone where none are
	Known       []keyring.Fingerprint // other keys known of the contact
	Others      []keyring.Fingerprint // keys of other devices that are there and nobody has verified
	Comparing   bool                  // a comparison of secrets is under way
	Asked       bool                  // the contact has begun it, and waits for an answer
	Question    string                // what they ask, "" for a secret without a question
}

// Private reports whether the conversation with a contact is, or has been, private,
// so that nothing may silently leave in clear.
func (a *Account) Private(contact string) bool {
	if a.guestOf != nil {
		return a.guestOf.Private(contact)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.wasPrivate(contact)
}

func (a *Account) wasPrivate(contact string) bool {
	c := a.convs[contact]
	return a.private.Of[contact] || c != nil && c.state != ""
}

// Conversations lists the account's conversations by contact.
func (a *Account) Conversations() []Conversation {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]Conversation, 0, len(a.convs))
	for _, c := range a.convs {
		out = append(out, c.describe())
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Contact < out[j].Contact })
	return out
}

// Conversation describes the conversation with one contact.
func (a *Account) Conversation(contact string) Conversation {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.described(contact)
}
