package relay

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"otrproxy/config"
	"otrproxy/proxy/accounts"
	"otrproxy/proxy/journal"
	"otrproxy/proxy/leg"
	"otrproxy/proxy/metrics"
	"otrproxy/proxy/notify"
	"otrproxy/proxy/sasl"
	"otrproxy/proxy/state"
	"otrproxy/proxy/upstream"
	"otrproxy/stanza"
)

// What a stanza that passes costs, without the network and TLS: framing, address, rule and
// verdict.

// nowhere takes all that is written.
type nowhere struct{ net.Conn }

func (nowhere) Write(b []byte) (int, error)      { return len(b), nil }
func (nowhere) Read([]byte) (int, error)         { return 0, io.EOF }
func (nowhere) SetReadDeadline(time.Time) error  { return nil }
func (nowhere) SetWriteDeadline(time.Time) error { return nil }
func (nowhere) Close() error                     { return nil }

// again is a stream that begins with a header and then says the same for ever.
type again struct {
	said []byte
	at   int
}

func (a *again) Read(b []byte) (int, error) {
	n := copy(b, a.said[a.at:])
	if a.at += n; a.at == len(a.said) {
		a.at = 0
	}
	return n, nil
}

const openForever = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"

// quiet is a relay with nobody in it.
func quiet(cfg *config.Config) *Relay {
	inForce := func() *config.Config { return cfg }
	log := journal.New(nil, func() bool { return false })
	v := &state.Vault{}
	r := New(context.Background(), inForce, log, cfg.State, "")
	r.Metrics = metrics.New("test", notify.Events(), func() metrics.Snapshot { return metrics.Snapshot{} })
	r.Bell = notify.New(r.ctx, inForce, log, r.Metrics, nil)
	r.Accounts, r.Logins = accounts.New(inForce, log, cfg.State, v), sasl.New(inForce, log, cfg.State, v)
	pins, err := upstream.OpenPins(cfg.State)
	if err != nil {
		panic(err)
	}
	r.Servers = upstream.New(inForce, log, pins, upstream.Network{})
	r.Accounts.Bell, r.Accounts.Handshake, r.Accounts.Opens, r.Accounts.Forgotten = r.Bell, r.Metrics.Handshake, r.Logins.Offers.Forget, r.Logins.Passwords.Forget
	r.Logins.Accounts, r.Logins.Bell = &r.Accounts.Kept, r.Bell
	return r
}

// lone is a session whose legs lead nowhere, of an account that may have all contacts under
// one rule.
func lone(tb testing.TB, rule config.Rule) *Session {
	cfg := config.Default()
	cfg.State, cfg.Limits.Rate = tb.TempDir(), 1<<30
	rule.Account, rule.Contact = "*", "*"
	cfg.OTR = []config.Rule{{Account: "*@elsewhere.example", Contact: "*", Policy: config.Never}, {Account: "*", Contact: "*@other.example", Policy: config.Manual}, rule}
	r := quiet(cfg)
	a, err := r.Accounts.Open("alice@path.example")
	if err != nil {
		tb.Fatal(err)
	}
	s := &Session{r: r, identity: identity{jid: a.JID()}}
	s.of.Store(a)
	s.speaks()
	s.used.Do(func() {})
	s.greet.Do(func() {})
	full := "alice@path.example/bench"
	s.resource.Store(&full)
	s.client, s.server = leg.NewOutbox(nowhere{}, nil), leg.NewOutbox(nowhere{}, nil)
	s.attach()
	return s
}

// passage is one way of a stanza through a session.
type passage struct {
	name   string
	rule   config.Rule
	before func(s *Session)
	in     bool // from the server
	raw    string
}

const chat = " id='5a1e7c52-93d8-4f0c-8a2b-6f1f0f2d9c11' type='chat'><body>see you at the station at six, as ever</body><active xmlns='http://jabber.org/protocol/chatstates'/><origin-id xmlns='urn:xmpp:sid:0' id='5a1e7c52-93d8-4f0c-8a2b-6f1f0f2d9c11'/><request xmlns='urn:xmpp:receipts'/></message>"

func inRoom(s *Session) {
	s.rooms.asks("room@muc.path.example")
	s.rooms.enters("room@muc.path.example")
}

var (
	never    = config.Rule{Policy: config.Never}
	requires = config.Rule{Policy: config.Require, Allow: []config.Allow{config.Groupchat, config.Receipts, config.Chatstates, config.Status}}

	passing = []passage{
		{"out/never/message", never, nil, false, "<message to='bob@path.example/bench'" + chat},
		{"in/never/message", never, nil, true, "<message from='bob@path.example/bench' to='alice@path.example/bench'" + chat},
		{"out/never/presence", never, nil, false, "<presence to='bob@path.example'><show>away</show></presence>"},
		{"in/never/presence", never, nil, true, "<presence from='bob@path.example/phone' to='alice@path.example/bench'><show>away</show><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='https://gajim.org' ver='oXbRy8rwyfWHHzNyc3mXvqHtuLk='/></presence>"},
		{"in/never/iq", never, nil, true, "<iq type='get' id='p1' from='path.example' to='alice@path.example/bench'><ping xmlns='urn:xmpp:ping'/></iq>"},
		{"out/require/room", requires, inRoom, false, "<message to='room@muc.path.example' id='5a1e7c52-93d8-4f0c-8a2b-6f1f0f2d9c11' type='groupchat'><body>hello all</body></message>"},
		{"out/require/chat state", requires, nil, false, "<message to='bob@path.example/bench' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>"},
		{"out/require/presence", requires, nil, false, "<presence><show>away</show><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='https://gajim.org' ver='oXbRy8rwyfWHHzNyc3mXvqHtuLk='/></presence>"},
		{"in/require/presence", requires, nil, true, "<presence from='bob@path.example/phone' to='alice@path.example/bench'><show>away</show><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='https://gajim.org' ver='oXbRy8rwyfWHHzNyc3mXvqHtuLk='/></presence>"},
		{"in/require/room", requires, inRoom, true, "<message from='room@muc.path.example/nick' to='alice@path.example/bench' id='5a1e7c52-93d8-4f0c-8a2b-6f1f0f2d9c11' type='groupchat'><body>hello all</body></message>"},
		{"in/require/room, Cyrillic", requires, inRoom, true, "<message from='room@muc.path.example/Алиса' to='alice@path.example/bench' id='5a1e7c52-93d8-4f0c-8a2b-6f1f0f2d9c11' type='groupchat'><body>увидимся на вокзале в шесть</body></message>"},
		{"in/require/room, symbols", requires, inRoom, true, "<message from='room@muc.path.example/nick' to='alice@path.example/bench' id='5a1e7c52-93d8-4f0c-8a2b-6f1f0f2d9c11' type='groupchat'><body>see you at six 🙂 [or so]</body></message>"},
		{"out/require/receipt", requires, nil, false, "<message to='bob@path.example/bench' id='r1'><received xmlns='urn:xmpp:receipts' id='5a1e7c52-93d8-4f0c-8a2b-6f1f0f2d9c11'/></message>"},
		{"out/require/request", requires, nil, false, "<iq type='result' id='p1' to='path.example'/>"},
		{"in/require/receipt", requires, nil, true, "<message from='bob@path.example/bench' to='alice@path.example/bench' id='r1'><received xmlns='urn:xmpp:receipts' id='5a1e7c52-93d8-4f0c-8a2b-6f1f0f2d9c11'/></message>"},
		{"in/require/request", requires, nil, true, "<iq type='get' id='p1' from='path.example' to='alice@path.example/bench'><ping xmlns='urn:xmpp:ping'/></iq>"},
		{"in/require/chat state", requires, nil, true, "<message from='bob@path.example/bench' to='alice@path.example/bench' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>"},
	}
)

// walk takes stanzas through a session, and reports a function that takes one more.
func (k *passage) walk(tb testing.TB) (s *Session, step func()) {
	s = lone(tb, k.rule)
	if k.before != nil {
		k.before(s)
	}
	scan := stanza.NewScanner(io.MultiReader(strings.NewReader(openForever), &again{said: []byte(strings.Repeat(k.raw, 20))}), stanza.Limits{})
	if _, err := scan.Next(); err != nil {
		tb.Fatal(err)
	}
	r := leg.Reader{Scan: scan}
	leg, n := s.server, 0
	if k.in {
		leg = s.client
	}
	return s, func() {
		st, err := scan.Next()
		if err != nil {
			tb.Fatal(err)
		}
		if k.in {
			s.incoming(st)
		} else if err := s.outgoing(st); err != nil {
			tb.Fatal(err)
		}
		s.r.Metrics.Took(r.Took())
		s.pace.keep(s, r.Last)
		if n++; n%16 == 0 {
			leg.Flush()
		}
	}
}

func BenchmarkPassing(b *testing.B) {
	for _, k := range passing {
		b.Run(k.name, func(b *testing.B) {
			_, step := k.walk(b)
			b.ReportAllocs()
			for b.Loop() {
				step()
			}
		})
	}
}

// TestPassingAllocatesNothing counts, and so does not depend on the machine.
func TestPassingAllocatesNothing(t *testing.T) {
	for _, k := range passing {
		t.Run(k.name, func(t *testing.T) {
			s, step := k.walk(t)
			for range 1000 { // what is remembered is remembered then
				step()
			}
			direction := "out"
			if k.in {
				direction = "in"
			}
			done := func() (n float64) {
				shown := httptest.NewRecorder()
				s.r.Metrics.Handler(nil).ServeHTTP(shown, httptest.NewRequest("GET", "/metrics", nil))
				for line := range strings.Lines(shown.Body.String()) {
					if strings.HasPrefix(line, `otrproxy_stanzas_total{action="passed",direction="`+direction+`"`) {
						v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:len(line)-1], 64)
						if err != nil {
							t.Fatal(err)
						}
						n += v
					}
				}
				return n
			}
			before := done()
			const n = 2000
			if got := testing.AllocsPerRun(n, step); got > 0 {
				t.Errorf("%v allocations a stanza", got)
			}
			if got := done() - before; got != n+1 {
				t.Errorf("%v of %v stanzas passed", got, n+1)
			}
		})
	}
}

// collected keeps what is written to it.
type collected struct {
	nowhere
	b []byte
}

func (c *collected) Write(b []byte) (int, error) {
	c.b = append(c.b, b...)
	return len(b), nil
}

// A duet is two sessions of one proxy that write to each other, each as the other's server.
type duet struct {
	tb         testing.TB
	alice, bob *Session
	sent       [2]*collected // to the server, by alice and by bob
	shown      *collected    // to bob's client
}

func newDuet(tb testing.TB, rule config.Rule) *duet {
	d := &duet{tb: tb, alice: lone(tb, rule), shown: &collected{}}
	r := d.alice.r
	join := func(name string) *Session {
		a, err := r.Accounts.Open(name + "@path.example")
		if err != nil {
			tb.Fatal(err)
		}
		if err := a.Prepare(); err != nil {
			tb.Fatal(err)
		}
		<-a.Ready()
		s := &Session{r: r, identity: identity{jid: a.JID()}}
		s.of.Store(a)
		s.used.Do(func() {})
		s.greet.Do(func() {})
		full := a.JID() + "/duet"
		s.resource.Store(&full)
		s.contacts.watches("alice@path.example", true)
		s.contacts.watches("bob@path.example", true)
		return s
	}
	d.alice, d.bob = join("alice"), join("bob")
	for i, s := range []*Session{d.alice, d.bob} {
		d.sent[i] = &collected{}
		s.client, s.server = leg.NewOutbox(nowhere{}, nil), leg.NewOutbox(d.sent[i], nil)
		s.attach()
	}
	d.bob.client = leg.NewOutbox(d.shown, nil)
	return d
}

// stanzas are those in some bytes.
func (d *duet) stanzas(raw []byte, f func(*stanza.Stanza)) {
	scan := stanza.NewScanner(io.MultiReader(strings.NewReader(openForever), bytes.NewReader(raw)), stanza.Limits{})
	scan.Next()
	for {
		st, err := scan.Next()
		if err != nil {
			return
		}
		f(st)
	}
}

// says has a client send something.
func (d *duet) says(s *Session, raw string) {
	d.stanzas([]byte(raw), func(st *stanza.Stanza) {
		if err := s.outgoing(st); err != nil {
			d.tb.Fatal(err)
		}
	})
	sentOff(s.server)
}

// sentOff returns once a leg has written what is queued.
func sentOff(o *leg.Outbox) {
	o.Arrived(time.Minute)
}

// carry brings what was sent to the other session, until nothing is on its way.
func (d *duet) carry() {
	for i, to := range []*Session{d.bob, d.alice} {
		from := []*Session{d.alice, d.bob}[i]
		if raw := d.sent[i].b; len(raw) > 0 {
			d.sent[i].b = nil
			d.stanzas(raw, func(st *stanza.Stanza) {
				e := st.Edit()
				e.SetAttr(st.Root(), "from", from.full())
				addressed, err := stanza.Parse(e.AppendTo(nil))
				if err != nil {
					d.tb.Fatal(err)
				}
				to.incoming(addressed)
			})
			for _, o := range []*leg.Outbox{d.alice.server, d.bob.server, d.alice.client, d.bob.client} {
				sentOff(o)
			}
			d.carry()
			return
		}
	}
}

// BenchmarkPrivate is a text from one client to the other through both sessions: under never,
// and encrypted and decrypted.
func BenchmarkPrivate(b *testing.B) {
	for _, size := range []int{100, 1000} {
		for _, rule := range []config.Rule{never, requires} {
			b.Run(fmt.Sprintf("%s/%d", rule.Policy, size), func(b *testing.B) {
				d := newDuet(b, rule)
				raw := "<message to='bob@path.example' type='chat' id='5a1e7c52-93d8-4f0c-8a2b-6f1f0f2d9c11'><body>" + strings.Repeat("word ", size/5) + "</body></message>"
				d.says(d.alice, raw)
				d.carry()
				d.says(d.alice, raw)
				d.carry()
				if !bytes.Contains(d.shown.b, []byte("word word word")) {
					b.Fatalf("not shown: %s", d.shown.b)
				}
				d.shown.b, d.bob.client.Conn = nil, nowhere{}
				out, err := stanza.Parse([]byte(raw))
				if err != nil {
					b.Fatal(err)
				}
				scan := stanza.NewScanner(io.MultiReader(strings.NewReader(openForever), &taken{d.sent[0]}), stanza.Limits{})
				scan.Next()
				b.ReportAllocs()
				for b.Loop() {
					if err := d.alice.outgoing(out); err != nil {
						b.Fatal(err)
					}
					d.alice.server.Flush()
					st, err := scan.Next()
					if err != nil {
						b.Fatal(err)
					}
					d.bob.incoming(st)
					d.bob.client.Flush()
				}
			})
		}
	}
}

// taken reads what was collected.
type taken struct{ from *collected }

func (t *taken) Read(b []byte) (int, error) {
	// Servers say who a message is from.
	raw := bytes.Replace(t.from.b, []byte("<message "), []byte("<message from='alice@path.example/duet' "), 1)
	t.from.b = t.from.b[:0]
	return copy(b, raw), nil
}
