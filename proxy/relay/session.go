package relay

import (
	"bytes"
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"otrproxy/otrlayer"
	"otrproxy/proxy/accounts"
	"otrproxy/proxy/address"
	"otrproxy/proxy/causes"
	"otrproxy/proxy/control"
	"otrproxy/proxy/filter"
	"otrproxy/proxy/leg"
	"otrproxy/proxy/sasl"
	"otrproxy/proxy/service"
	"otrproxy/proxy/upstream"
	"otrproxy/stanza"
)

// A Session is one client and its upstream leg, after the login. Two goroutines
// read, one for each leg; each feeds the other leg's outbox.
type Session struct {
	r *Relay
	identity
	membership
	legs
	lifetime
	acks
	pulse pulse
	program
	voice     filter.Voice // what becomes of words, where no rule says otherwise
	turn      turn
	requests  requests
	rooms     rooms
	contacts  roster
	contact   service.Contact // the proxy, as the client sees it
	passwords passwords
	outward
	inward
}

// An identity is whose client it is, and how it has come. But for the resource nothing of it
// changes.
type identity struct {
	jid      string // bare
	host     string // where the client comes from
	place    string // that, as guesses are counted
	entry    string
	login    string // mechanism the client used here
	how      string // mechanism used upstream
	since    time.Time
	tls      string // version towards the client, "" for none
	upTLS    string
	first    bool                   // it came with the first password that is known here
	password [32]byte               // with which it came, as this run remembers it; zero for a proof
	epoch    int                    // how often the administrator had said whose the account is
	resource atomic.Pointer[string] // full JID, once bound
}

// A membership is the session's part in the account.
type membership struct {
	// of is the account; for a stranger a guest of it, until it shows that they are its person
	// (promote). joining guards that change, and the session's end.
	of       atomic.Pointer[otrlayer.Account]
	stranger atomic.Pointer[sasl.Stranger]
	joining  sync.Mutex
	attached bool
	parted   bool
	seat     *accounts.Seat
	used     sync.Once // when the client has done anything
}

// The legs are the two connections.
type legs struct {
	up                     *upstream.Leg
	client, server         *leg.Outbox
	fromClient, fromServer *stanza.Scanner
	clientIn               *leg.Inlet    // below fromClient
	clientRead, serverRead chan struct{} // closed when nobody reads the leg any more
	heldUp                 atomic.Bool   // the server is not read just now, for the client takes no more
}

// A lifetime is how a session comes to its end.
type lifetime struct {
	closing atomic.Bool // the proxy stops, or one side has ended the session
	// lingering is closed to end the time for which the session stays without its client; nil
	// where it does not.
	lingering atomic.Pointer[chan struct{}]
	gone      atomic.Bool   // it has stayed so: nothing is shown any more
	silent    atomic.Bool   // the server was given up because it gave no sign of life
	ending    atomic.Bool   // the end has begun, and begins only once
	ended     chan struct{} // closed when both connections are
}

// A program is what is known of the client's program.
type program struct {
	carbons   atomic.Bool   // it has them (XEP-0280)
	attending atomic.Bool   // it gets what is addressed to the account
	shows     atomic.Uint32 // a display: where it shows why a message came back
	windows   windows
	greet     sync.Once // when it has come

	mu sync.Mutex // guards the rest
	// carbonsAsked is the id of its request for carbons, or for none.
	carbonsAsked  string
	carbonsWanted bool
	// unannounced says that the session was resumed, and the client has not sent its
	// first presence yet.
	unannounced bool
}

// The way outward is owned by the goroutine that reads the client.
type outward struct {
	pace     pace
	sending  atomic.Bool // a text of the client's is with the account
	metOut   address.Last
	ruledOut lastRule
	passing  outbound        // the message at hand
	talksIn  string          // with whom, or in which room, the person was last
	strange  map[string]bool // extensions that were said to be left out, by contact and name
}

// The way inward is owned by the goroutine that reads the server.
type inward struct {
	metIn   address.Last
	ruledIn lastRule
	unread  unread
	repeating
	quiet map[string]bool // contacts whose copies were said to be unreadable just before
}

// An Arrival is a client that has logged in, as its session begins.
type Arrival struct {
	Account     *otrlayer.Account
	Host, Place string // where it comes from, and that as guesses are counted
	Entry       string // how it has come
	Entered     string // mechanism it used here
	How         string // mechanism used upstream
	TLSVersion  string // towards the client, "" for none
	Conn        net.Conn
	Wire        *leg.Wire // below it
	In          *leg.Inlet
	Scan        *stanza.Scanner
	Up          *upstream.Leg
	Stranger    *sasl.Stranger // nil for the account's person
	First       bool           // with the first password that is known here
	Password    [32]byte       // as this run remembers it; zero for a proof
	Seat        *accounts.Seat
	Epoch       int // how often the administrator had said whose the account is
}

// NewSession is the session of a client that has logged in. It runs with Run.
func NewSession(r *Relay, c Arrival) *Session {
	u := c.Up
	s := &Session{r: r}
	s.jid, s.host, s.place, s.entry, s.since = c.Account.JID(), c.Host, c.Place, c.Entry, time.Now()
	s.login, s.how, s.tls, s.upTLS = c.Entered, c.How, c.TLSVersion, tls.VersionName(u.Conn.ConnectionState().Version)
	s.first, s.password, s.epoch, s.seat = c.First, c.Password, c.Epoch, c.Seat
	s.up, s.clientIn, s.fromClient, s.fromServer = u, c.In, c.Scan, u.Scan
	s.clientRead, s.serverRead = make(chan struct{}), make(chan struct{})
	if s.of.Store(c.Account); c.Stranger != nil {
		s.stranger.Store(c.Stranger)
		s.of.Store(c.Stranger.Guest)
	}
	s.over, s.ended = make(chan struct{}), make(chan struct{})
	_, s.offered = u.Features.Root().Child(leg.NSAcks, "sm")
	// A client that takes nothing has gone: its reader ends the session.
	s.client = leg.NewOutbox(c.Conn, func(error) { c.Conn.Close() })
	// A server that takes nothing ends the session through its reader, which gives
	// back what has not left.
	s.server = leg.NewOutbox(u.Conn, func(error) { u.Conn.NetConn().Close() })
	s.client.Passed, s.client.Arrives = &s.handled, s.server.Handed
	c.Wire.Before = func() { s.server.Flush(); s.server.Wait() }
	u.Wire.Before = func() { // a client that does not read holds up whom the server's words reach
		s.heldUp.Store(true)
		s.client.Flush()
		s.client.Wait()
		s.heldUp.Store(false)
	}
	s.server.Wrote, u.Wire.Heard = s.wrote, s.heard
	s.speaks()
	s.contacts.all = &s.r.contacts
	s.contact.Meet(r.service, s.jid, atContact{s})
	return s
}

// Opens writes what begins the client's stream.
func (s *Session) Opens(b []byte) {
	s.client.Queue(b)
	s.client.Flush()
}

// Run relays to the end of the session, and gives back what the login has taken.
func (s *Session) Run() {
	s.relay()
	s.r.Accounts.Leave(&s.seat)
	s.up.HangUp()
}

// Account is whose session it is, or a stranger's guest of that.
func (m *membership) Account() *otrlayer.Account { return m.of.Load() }

// attach has the account take the session in, once its resource is bound.
func (s *Session) attach() {
	s.joining.Lock()
	defer s.joining.Unlock()
	if !s.attached && !s.parted {
		s.attached = true
		s.Account().Attach(s)
	}
}

// Promote makes the account's own session of a stranger's.
func (s *Session) Promote(a *otrlayer.Account) {
	s.joining.Lock()
	defer s.joining.Unlock()
	if s.parted || s.stranger.Swap(nil) == nil {
		return
	}
	s.r.Accounts.Reseat(s.seat, false, 0)
	if old := s.of.Swap(a); s.attached {
		old.Detach(s)
		a.Attach(s)
	}
}

// demote makes a stranger of the account's person, for what is left of their session. What was
// on its way comes back to the account.
func (s *Session) demote() {
	s.joining.Lock()
	defer s.joining.Unlock()
	a := s.Account()
	guest := a.Guest()
	if s.parted || !s.stranger.CompareAndSwap(nil, &sasl.Stranger{Account: s.jid, Guest: guest}) {
		return
	}
	a.Inherit(guest)
	s.r.Accounts.Reseat(s.seat, true, 0)
	if s.of.Store(guest); s.attached {
		a.Detach(s)
		guest.Attach(s)
	}
}

// part ends the session's part in the account, and returns that.
func (s *Session) part() *otrlayer.Account {
	s.joining.Lock()
	defer s.joining.Unlock()
	s.parted = true
	s.Account().Detach(s)
	return s.Account()
}

// full is the client's full JID, or the bare one before it is bound.
func (i *identity) full() string {
	if r := i.resource.Load(); r != nil {
		return *r
	}
	return i.jid
}

// Status is the session at a glance, but for its conversations.
func (s *Session) Status() control.SessionStatus {
	_, resource, _ := strings.Cut(s.full(), "/")
	return control.SessionStatus{Account: s.jid, Resource: resource, Since: s.since, Entry: s.entry, ClientTLS: s.tls, Login: s.login, Domain: s.up.Domain.Name,
		Address: s.up.Place, UpstreamTLS: s.upTLS, Pin: s.up.Pin(), SASL: s.how, Stranger: s.stranger.Load() != nil, Lingers: s.lingering.Load() != nil, Conversations: []control.ContactLine{}}
}

// relay passes stanzas until either side ends the session. Its frame lies below one that waits,
// and is small for that: a stack of 4 kB is enough.
func (s *Session) relay() {
	if !s.begins() {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		end := s.readServer()
		close(s.serverRead)
		end()
	}()
	end := s.readClient()
	close(s.clientRead)
	end()
	<-done
	s.isOver()
}

// begins has the session be among all the others; false where the proxy stops.
func (s *Session) begins() bool {
	if !s.r.join(s) {
		return false
	}
	if st := s.stranger.Load(); st != nil && !s.r.Logins.Passwords.Joins(st, s) {
		s.decided(st)
	} else if st == nil && s.r.Logins.Passwords.Epoch(s.jid) != s.epoch { // while they logged in
		s.TurnOut(sasl.NotThePerson)
	}
	s.r.Bell.Changed()
	s.r.Metrics.Began(s.entry)
	s.r.log.Info("session begins", "account", s.r.log.Name(s.jid), "entry", s.entry, "login", s.login, "upstream", s.upTLS, "sasl", s.how)
	s.client.Kick()
	return true
}

// comes notes that the session's client does something: its account is made, with its key,
// where it is not there yet. Without its files the session ends.
func (s *Session) comes() (err error) {
	if s.stranger.Load() != nil {
		return nil
	}
	s.used.Do(func() {
		r := s.r
		if e := s.Account().Prepare(); e != nil {
			r.Metrics.UpstreamFailed(causes.FailState)
			r.log.Error("an account's files cannot be used", "account", r.log.Name(s.jid), "err", strings.ReplaceAll(e.Error(), s.jid, r.log.Name(s.jid)))
			err = &streamFault{"internal-server-error", "otrproxy cannot use the files of this account: " + e.Error() + "."}
			return
		}
		r.Accounts.CameToUse(s.jid)
	})
	return err
}

// readClient is the way up. It returns what is left to do at the end.
func (s *Session) readClient() func() {
	r := leg.Reader{In: s.clientIn, Scan: s.fromClient, Last: leg.Clock()}
	for {
		st, err := r.Next()
		if err != nil {
			return func() { s.clientGone(err) }
		}
		if st.Kind == stanza.KindClose {
			raw := bytes.Clone(st.Raw)
			return func() {
				s.linger()
				s.last(raw, s.patience(), lastWords, func() { s.client.Queue([]byte(stanza.StreamClose)) })
			}
		}
		if err := s.outgoing(st); err != nil {
			return func() { s.clientError(err) }
		}
		s.r.Metrics.Took(r.Took())
		s.pace.keep(s, r.Last)
	}
}

// readServer is the way down. It returns what is left to do at the end.
func (s *Session) readServer() func() {
	r := leg.Reader{In: s.up.In, Scan: s.fromServer, Last: leg.Clock()}
	for {
		st, err := r.Next()
		if err != nil {
			return func() { s.serverGone(err) }
		}
		if st.Kind == stanza.KindClose {
			return func() {
				s.left.Store(true)
				s.end(func() { s.client.Queue([]byte(stanza.StreamClose)) })
			}
		}
		s.incoming(st)
		s.r.Metrics.Took(r.Took())
	}
}
