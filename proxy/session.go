package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"otrproxy/otrlayer"
	"otrproxy/proxy/control"
	"otrproxy/proxy/filter"
	"otrproxy/stanza"
)

// serviceJID is the proxy itself, as a contact. Nothing to or from it passes.
const serviceJID = "otrproxy.localhost"

// ownID begins the ids of stanzas we send upstream ourselves.
const ownID = "otrproxy-"

// A session is one client and its upstream leg, after the login. Two goroutines
// read, one for each leg; each feeds the other leg's outbox.
type session struct {
	r     *relay
	jid   string // bare
	host  string // where the client comes from
	entry string
	login string // mechanism the client used here
	how   string // mechanism used upstream
	since time.Time
	tls   string // version towards the client, "" for none
	up    *upstream
	upTLS string

	client, server         *outbox
	fromClient, fromServer *stanza.Scanner
	turn                   turn
	clientIn               *inlet       // below fromClient
	voice                  filter.Voice // what becomes of words, where no rule says otherwise

	// of is the account; for a stranger a guest of it, until it shows that they are its person
	// (promote). joining guards that change, and the session's end.
	of       atomic.Pointer[otrlayer.Account]
	stranger atomic.Pointer[stranger]
	joining  sync.Mutex
	attached bool
	parted   bool

	resource atomic.Pointer[string] // full JID, once bound
	closing  atomic.Bool            // the proxy stops, or one side has ended the session
	// lingering is closed to end the time for which the session stays without its client; nil
	// where it does not.
	lingering atomic.Pointer[chan struct{}]
	gone      atomic.Bool   // it has stayed so: nothing is shown any more
	ending    atomic.Bool   // the end has begun, and begins only once
	ended     chan struct{} // closed when both connections are

	clientRead, serverRead chan struct{} // closed when nobody reads the leg any more

	acks
	pulse  pulse
	heldUp atomic.Bool // the server is not read just now, for the client takes no more
	silent atomic.Bool // the server was given up because it gave no sign of life

	requests  requests
	rooms     rooms
	contacts  roster
	carbons   atomic.Bool // the client has them (XEP-0280)
	attending atomic.Bool // it gets what is addressed to the account
	windows   windows
	shows     atomic.Uint32 // a display: where its program shows why a message came back
	greet     sync.Once     // when the client has come
	used      sync.Once     // when it has done anything
	first     bool          // it came with the first password that is known here
	password  [32]byte      // with which it came, as this run remembers it; zero for a proof
	seat      *seat
	epoch     int    // how often the administrator had said whose the account is
	place     string // where it comes from, as guesses are counted

	// Owned by the goroutine that reads the client.
	pace     pace
	sending  atomic.Bool // a text of the client's is with the account
	metOut   lastAddress
	ruledOut lastRule
	passing  otrlayer.Message // the one at hand
	talksIn  string           // with whom, or in which room, the person was last
	strange  map[string]bool  // extensions that were said to be left out, by contact and name

	// Owned by the goroutine that reads the server.
	metIn   lastAddress
	ruledIn lastRule
	unread  unread
	quiet   map[string]bool // contacts whose copies were said to be unreadable just before

	mu       sync.Mutex
	pushed   map[string]bool   // ids of our roster pushes that were not answered yet
	changing map[string]string // new passwords, by id of the request; "" for the end of the account
	// carbonsAsked is the id of the client's request for carbons, or for none.
	carbonsAsked  string
	carbonsWanted bool
	// unannounced says that the session was resumed, and the client has not sent its
	// first presence yet.
	unannounced bool
}

// An arrival is a client that has logged in, as its session begins.
type arrival struct {
	account     *otrlayer.Account
	host, place string // where it comes from, and that as guesses are counted
	entry       string // how it has come
	entered     string // mechanism it used here
	how         string // mechanism used upstream
	tlsVersion  string // towards the client, "" for none
	conn        net.Conn
	wire        *wire // below it
	in          *inlet
	scan        *stanza.Scanner
	up          *upstream
	stranger    *stranger // nil for the account's person
	first       bool      // with the first password that is known here
	password    [32]byte  // as this run remembers it; zero for a proof
	seat        *seat
	epoch       int // how often the administrator had said whose the account is
}

func newSession(r *relay, c arrival) *session {
	u := c.up
	s := &session{r: r, jid: c.account.JID(), host: c.host, entry: c.entry, login: c.entered, how: c.how, since: time.Now(), tls: c.tlsVersion, up: u,
		upTLS: tls.VersionName(u.conn.ConnectionState().Version), fromClient: c.scan, fromServer: u.scan,
		clientRead: make(chan struct{}), serverRead: make(chan struct{})}
	s.first, s.password, s.seat, s.epoch, s.place = c.first, c.password, c.seat, c.epoch, c.place
	if s.of.Store(c.account); c.stranger != nil {
		s.stranger.Store(c.stranger)
		s.of.Store(c.stranger.guest)
	}
	s.over, s.ended = make(chan struct{}), make(chan struct{})
	_, s.offered = u.features.Root().Child(nsSM, "sm")
	// A client that takes nothing has gone: its reader ends the session.
	s.client = newOutbox(c.conn, func(error) { c.conn.Close() })
	// A server that takes nothing ends the session through its reader, which gives
	// back what has not left.
	s.server = newOutbox(u.conn, func(error) { u.conn.NetConn().Close() })
	s.client.passed, s.client.arrives = &s.handled, s.server.handed
	s.clientIn = c.in
	c.wire.before = func() { s.server.flush(); s.server.wait() }
	u.wire.before = func() { // a client that does not read holds up whom the server's words reach
		s.heldUp.Store(true)
		s.client.flush()
		s.client.wait()
		s.heldUp.Store(false)
	}
	s.server.wrote, u.wire.heard = s.wrote, s.heard
	s.speaks()
	s.contacts.all = &s.r.contacts
	return s
}

// opens writes what begins the client's stream.
func (s *session) opens(b []byte) {
	s.client.queue(b)
	s.client.flush()
}

// run relays to the end of the session, and gives back what the login has taken.
func (s *session) run() {
	s.relay()
	s.r.accounts.leave(&s.seat)
	s.up.hangUp()
}

// account is whose session it is, or a stranger's guest of that.
func (s *session) account() *otrlayer.Account { return s.of.Load() }

// attach has the account take the session in, once its resource is bound.
func (s *session) attach() {
	s.joining.Lock()
	defer s.joining.Unlock()
	if !s.attached && !s.parted {
		s.attached = true
		s.account().Attach(s)
	}
}

// promote makes the account's own session of a stranger's.
func (s *session) promote(a *otrlayer.Account) {
	s.joining.Lock()
	defer s.joining.Unlock()
	if s.parted || s.stranger.Swap(nil) == nil {
		return
	}
	s.r.accounts.reseat(s.seat, false, 0)
	if old := s.of.Swap(a); s.attached {
		old.Detach(s)
		a.Attach(s)
	}
}

// demote makes a stranger of the account's person, for what is left of their session. What was
// on its way comes back to the account.
func (s *session) demote() {
	s.joining.Lock()
	defer s.joining.Unlock()
	a := s.account()
	guest := a.Guest()
	if s.parted || !s.stranger.CompareAndSwap(nil, &stranger{account: s.jid, guest: guest}) {
		return
	}
	a.Inherit(guest)
	s.r.accounts.reseat(s.seat, true, 0)
	if s.of.Store(guest); s.attached {
		a.Detach(s)
		guest.Attach(s)
	}
}

// part ends the session's part in the account, and returns that.
func (s *session) part() *otrlayer.Account {
	s.joining.Lock()
	defer s.joining.Unlock()
	s.parted = true
	s.account().Detach(s)
	return s.account()
}

// full is the client's full JID, or the bare one before it is bound.
func (s *session) full() string {
	if r := s.resource.Load(); r != nil {
		return *r
	}
	return s.jid
}

// status is the session at a glance, but for its conversations.
func (s *session) status() control.SessionStatus {
	_, resource, _ := strings.Cut(s.full(), "/")
	return control.SessionStatus{Account: s.jid, Resource: resource, Since: s.since, Entry: s.entry, ClientTLS: s.tls, Login: s.login, Domain: s.up.domain.Name,
		Address: s.up.place, UpstreamTLS: s.upTLS, Pin: s.up.pin(), SASL: s.how, Stranger: s.stranger.Load() != nil, Lingers: s.lingering.Load() != nil, Conversations: []control.ContactLine{}}
}

// relay passes stanzas until either side ends the session. Its frame lies below one that waits,
// and is small for that: a stack of 4 kB is enough.
func (s *session) relay() {
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
func (s *session) begins() bool {
	if !s.r.join(s) {
		return false
	}
	if st := s.stranger.Load(); st != nil && !s.r.logins.passwords.joins(st, s) {
		s.decided(st)
	} else if st == nil && s.r.logins.passwords.epoch(s.jid) != s.epoch { // while they logged in
		s.turnOut(notThePerson)
	}
	s.r.bell.changed()
	s.r.metrics.began(s.entry)
	s.r.log.Info("session begins", "account", s.r.log.name(s.jid), "entry", s.entry, "login", s.login, "upstream", s.upTLS, "sasl", s.how)
	s.client.kick()
	return true
}

// isOver gives back what has not arrived, once nobody reads either side any more.
func (s *session) isOver() {
	s.still()
	account := s.part()
	s.settle()
	giveBack(account, s.client.unsent(), func(k mark) otrlayer.Cause { return k.cause }) // what the client was not told
	s.r.part(s)
	s.leaves()
	s.contacts.forget()
	s.r.bell.changed()
	s.r.metrics.ended(s.since)
	s.r.log.Info("session ends", "account", s.r.log.name(s.jid))
}

// finally ends the session with f, unless it is being ended already, and returns once it
// has ended.
func (s *session) finally(f func()) {
	if !s.ending.CompareAndSwap(false, true) {
		<-s.ended
		return
	}
	s.conclude(f)
}

func (s *session) conclude(f func()) {
	defer close(s.ended)
	s.closing.Store(true)
	f()
}

// lastWords is how long a side gets to take what is queued for it at the end.
const lastWords = 5 * time.Second

// lastLook is how long the client gets to take what the server is then told to have arrived.
const lastLook = time.Second

// last ends the session: it queues the server's last words, lets the server take what is
// queued and gives back what it has not taken, and closes behind the client's last words,
// which toClient queues.
func (s *session) last(toServer []byte, patience, lastWords time.Duration, toClient func()) {
	s.finally(s.parting(toServer, patience, lastWords, toClient))
}

func (s *session) parting(toServer []byte, patience, lastWords time.Duration, toClient func()) func() {
	return func() {
		s.sealed.Store(true)
		s.server.handed(s.client.arrived(min(patience, lastLook)))
		s.server.seal(toServer)
		s.client.kick()
		s.finishServer(patience)
		toClient()
		s.client.finish(lastWords, s.clientRead)
	}
}

// end is last for most ends.
func (s *session) end(toClient func()) {
	s.last([]byte(stanza.StreamClose), s.patience(), lastWords, toClient)
}

// endBeside is end with a stream error to the client, for who reads the server, and must go on
// with that. What is read next does not come before it: that is often the end of the server's
// stream.
func (s *session) endBeside(condition, text string) {
	s.closing.Store(true)
	if s.ending.CompareAndSwap(false, true) {
		go s.conclude(s.parting([]byte(stanza.StreamClose), s.patience(), lastWords, func() {
			s.client.build(func(b []byte) []byte { return stanza.AppendStreamError(b, condition, text) })
		}))
	}
}

// patience is how long the server gets. Where the client has gone, nobody waits for it
// but what is still on its way.
func (s *session) patience() time.Duration {
	if s.Pending() {
		return lastAcks
	}
	return lastWords
}

// lastAcks is how long a server that counts gets to take a person's messages at the end.
const lastAcks = 25 * time.Second

// finishServer lets the server take what is queued, closes, and knows then what it has
// taken.
func (s *session) finishServer(within time.Duration) {
	s.client.hurry(within) // a client that does not read must not hold up who reads the server
	s.server.finish(within, s.serverRead)
	<-s.serverRead
	s.settle()
}

// shutdown tells the client that the proxy stops.
func (s *session) shutdown(within time.Duration) {
	s.last([]byte(stanza.StreamClose), within, within, func() {
		s.client.build(func(b []byte) []byte {
			return stanza.AppendStreamError(b, "system-shutdown", "otrproxy is being stopped.")
		})
	})
}

// A reader takes the stanzas of one leg, one after the other.
type reader struct {
	in   *inlet
	scan *stanza.Scanner
	last moment // when the stanza before was done, or the wire has given more
}

// next waits for the next stanza. What those before have led to is on its way then, and
// nothing is held for what has not come.
func (r *reader) next() (*stanza.Stanza, error) {
	if r.scan.Empty() && r.in.waits() {
		r.in.wire.before()
		r.scan.Rest()
		r.in.await()
	}
	st, err := r.scan.Next()
	if r.in.wire.fresh {
		r.in.wire.fresh, r.last = false, clock()
	}
	return st, err
}

// took is how long a stanza has taken, and notes that it is done.
func (r *reader) took() time.Duration {
	before := r.last
	r.last = clock()
	return time.Duration(r.last - before)
}

// A moment is a time by the clock that is never set, in nanoseconds. Only differences mean
// anything. It costs half of what a time.Time does, and is taken for each stanza.
type moment time.Duration

var began = time.Now()

func clock() moment { return moment(time.Since(began)) }

// readClient is the way up. It returns what is left to do at the end.
func (s *session) readClient() func() {
	r := reader{in: s.clientIn, scan: s.fromClient, last: clock()}
	for {
		st, err := r.next()
		if err != nil {
			return func() { s.clientGone(err) }
		}
		if st.Kind == stanza.KindClose {
			raw := bytes.Clone(st.Raw)
			return func() {
				s.linger()
				s.last(raw, s.patience(), lastWords, func() { s.client.queue([]byte(stanza.StreamClose)) })
			}
		}
		if err := s.outgoing(st); err != nil {
			return func() { s.clientError(err) }
		}
		s.r.metrics.took(r.took())
		s.pace.keep(s, r.last)
	}
}

// A streamFault ends the session with a stream error to the client.
type streamFault struct{ condition, text string }

func (f *streamFault) Error() string { return f.text }

func (s *session) clientGone(err error) {
	var se *stanza.SyntaxError
	if errors.As(err, &se) {
		s.clientError(&streamFault{se.Condition, "otrproxy: the client sent " + se.Reason + "."})
		return
	}
	s.linger()
	s.end(func() {})
}

func (s *session) clientError(err error) {
	var f *streamFault
	if !errors.As(err, &f) {
		f = &streamFault{"internal-server-error", err.Error()}
	}
	s.r.log.Warn("a session was ended for what its client sent", "account", s.r.log.name(s.jid), "condition", f.condition)
	s.end(func() {
		s.client.build(func(b []byte) []byte { return stanza.AppendStreamError(b, f.condition, f.text) })
	})
}

// readServer is the way down. It returns what is left to do at the end.
func (s *session) readServer() func() {
	r := reader{in: s.up.in, scan: s.fromServer, last: clock()}
	for {
		st, err := r.next()
		if err != nil {
			return func() { s.serverGone(err) }
		}
		if st.Kind == stanza.KindClose {
			return func() {
				s.left.Store(true)
				s.end(func() { s.client.queue([]byte(stanza.StreamClose)) })
			}
		}
		s.incoming(st)
		s.r.metrics.took(r.took())
	}
}

func (s *session) serverGone(err error) {
	if s.ending.Load() {
		<-s.ended
		return
	}
	var se *stanza.SyntaxError
	cause, text := FailLost, "The connection to the server was lost."
	switch {
	case s.silent.Load():
		cause, text = FailSilent, "The server has given no sign of life for "+s.answerWithin().String()+", so the connection was given up."
	case errors.As(err, &se):
		cause, text = FailProtocol, "The server sent something that is not XMPP: "+se.Reason+"."
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		text = "The connection to the server was lost: " + short(err) + "."
	}
	s.r.metrics.upstreamFailed(cause)
	s.r.log.Warn("the connection to a server was lost", "account", s.r.log.name(s.jid), "cause", cause)
	s.closing.Store(true) // what the client still hands over is refused
	s.server.conn.Close() // and a write that hangs ends
	s.server.halt()
	s.end(func() {
		s.client.build(func(b []byte) []byte { return stanza.AppendStreamError(b, cause.condition(), text) })
	})
}
