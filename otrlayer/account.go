package otrlayer

import (
	"container/list"
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

// Settings are what an account takes from the configuration. Who sends a
// message says by which rule (Rule); everything else asks here, so that a new configuration
// holds at once.
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

// The actions.
const (
	Block     Action = iota
	Held             // waits for a private conversation
	Plain            // leaves as the person wrote it
	Encrypted        // leaves as an OTR data message
	Protocol         // a message of the OTR protocol itself, without anything the person wrote
)

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
	jid      string
	dir      string
	settings func() Settings
	events   Events
	vault    keyring.Vault // nil where keys are kept in clear
	clock    func() time.Time
	maker    *keyring.Maker
	guestOf  *Account // the account that this is a guest of; nil for an account itself

	keys   sync.Mutex  // held while the account's key files are read or change; taken before mu
	unmade atomic.Bool // it has no directory yet; changes with keys and mu both held

	mu sync.Mutex // guards the rest
	ownKey
	memory
	contacts
	burden
	clients
	timer     *time.Timer
	wakes     time.Time // when the timer goes off
	inherited bool      // the account has taken over what this guest had
	closed    bool
}

// An ownKey is the account's own key.
type ownKey struct {
	key       *otr.PrivateKey
	keyErr    error
	tag       uint32
	generated chan struct{} // closed when the key is there, or never will be
	making    bool          // it is being made
}

// A memory is what is known of contacts over restarts.
type memory struct {
	fps     *keyring.Fingerprints
	spoken  *keyring.Fingerprints // the highest version spoken with each key
	formats *keyring.Fingerprints // the program that has each key, as far as it matters for text
	private *keyring.Privates     // contacts whose conversation was private
	store   *keyring.Store        // writes them
	open    map[string]string     // conversations that were private when the proxy was stopped, with the full JID; until somebody is there to ask
}

// The contacts are the conversations with them, and by what each is found.
type contacts struct {
	convs     map[string]*conversation
	idle      list.List                             // those that may be removed, the longest idle first
	waiting   map[*conversation]struct{}            // those in which messages wait
	live      map[*conversation]struct{}            // those with sessions
	of        map[Outlet]map[*conversation]struct{} // those that refer to a client's session
	deadlines deadlines
	there     map[string][]resource // contacts' resources that are there, by bare JID
	resources int                   // how many those are
}

func noContacts() contacts {
	return contacts{convs: map[string]*conversation{}, of: map[Outlet]map[*conversation]struct{}{}, there: map[string][]resource{}}
}

// A burden is what contacts have the account keep and do, which is bounded for all together.
type burden struct {
	total     counts    // of all conversations
	kinds     Kinds     // of them
	published Kept      // what the events know of that
	texts     list.List // of *text, oldest first
	textBytes int       // their size
	lines     lines     // that others have caused
	paces     paces     // at which we ask and answer
}

// The clients are the account's, and what they are to be told.
type clients struct {
	outlets []Outlet
	owed    []owing                  // to be handed back to the next client that comes
	sent    map[string]int           // to each contact, of what waited and was sent when no client was there to be told
	leaving map[Outlet]chan struct{} // sessions without a client, for which something waits
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
	a := &Account{jid: jid, dir: dir, settings: settings, events: events, vault: vault, maker: maker, clock: time.Now, contacts: noContacts()}
	a.generated = make(chan struct{})
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

// JID is the account's bare JID.
func (a *Account) JID() string { return a.jid }

func (a *Account) now() time.Time { return a.clock() }

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

// The states.
const (
	StatePlaintext MessageState = "plaintext"
	StateEncrypted MessageState = "encrypted"
	StateFinished  MessageState = "finished"
)
