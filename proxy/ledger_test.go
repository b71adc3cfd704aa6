package proxy_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"otrproxy/config"
	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/proxy"
	"otrproxy/stanza"
	"otrproxy/test/wire"
)

// The ledger. In a simulated world, driven by a seed, in which connections break behind
// any byte, sides are slow, the server refuses messages and the contact's program
// crashes, every message that alice's client handed over ends exactly once: bob has read
// it, or she has got it back; and what bob reads is in order.
func TestLedger(t *testing.T) {
	testKeys(t) // outside simulated time
	runs, from := 60, 1
	if n, err := strconv.Atoi(os.Getenv("LEDGER_RUNS")); err == nil {
		runs = n
	}
	if n, err := strconv.Atoi(os.Getenv("LEDGER_FROM")); err == nil {
		from = n
	}
	var sum tally
	for seed := from; seed < from+runs; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { sum.add(newWorld(t, uint64(seed)).live()) })
		})
	}
	t.Logf("ledger: %d runs, %d messages: %d read, %d given back, %d unreadable after a crash and told, %d read before a crash and once more, or given back; lost %d, doubled %d; %d connections cut, %d crashes",
		runs, sum.messages, sum.read, sum.returned, sum.unreadable, sum.again, sum.lost, sum.doubled, sum.cuts, sum.crashes)
	if runs > 1 && (sum.read == 0 || sum.returned == 0 || sum.cuts == 0) {
		t.Error("nothing happened")
	}
}

type tally struct{ messages, read, returned, unreadable, again, lost, doubled, cuts, crashes int }

func (t *tally) add(o tally) {
	t.messages += o.messages
	t.read += o.read
	t.returned += o.returned
	t.unreadable += o.unreadable
	t.again += o.again
	t.lost += o.lost
	t.doubled += o.doubled
	t.cuts += o.cuts
	t.crashes += o.crashes
}

type world struct {
	t    *testing.T
	rng  *rand.Rand
	net  wire.Net
	srv  *server.Server
	home *house
	away *house

	mu     sync.Mutex
	log    []string
	sent   []string    // ids of what alice's client has handed over
	links  []*link     // of alice's client
	read   []string    // what bob's client got
	readAt []time.Time // when
	more   int         // of which only the number was told
	// unread is how many messages bob's proxies could not read; of these, untold those of which he
	// was not told before a crash, and refused those of which the present one has not told him yet.
	unread, untold, refused int
	had                     map[string]bool // ids of what bob had read just before his proxy crashed
	tally
}

// A link is one connection of a client to its proxy.
type link struct {
	*client.Client
	wire *wire.Conn
}

// A house is a proxy with one client.
type house struct {
	w     *world
	user  string
	state string
	p     *proxy.Proxy
	addr  string
	done  chan struct{}
	up    *wire.Conn // the present connection to the server
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 4)), had: map[string]bool{}}
	l, err := w.net.Listen("tcp", "127.0.0.1:5222")
	if err != nil {
		t.Fatal(err)
	}
	refusing := 0
	w.srv, err = server.Start(server.Config{Domain: domain, Users: users(), Listener: l, Forget: true, Mechanisms: []string{"SCRAM-SHA-256-PLUS"}, Fate: func(from string, m *stanza.Stanza) server.Fate {
		w.mu.Lock()
		w.logf("the server gets for %s: %s %.30s", m.Root().Attr("to"), m.Root().Attr("id"), client.Body(m))
		w.mu.Unlock()
		if !strings.HasPrefix(from, "bob@") && strings.HasPrefix(m.Root().Attr("to"), "bob@") {
			w.mu.Lock()
			defer w.mu.Unlock()
			if refusing == 0 && w.rng.IntN(25) == 0 {
				refusing = 1 + w.rng.IntN(3)
			}
			if refusing > 0 {
				refusing--
				return server.Bounce
			}
		}
		return server.Deliver
	}})
	if err != nil {
		t.Fatal(err)
	}
	w.home, w.away = &house{w: w, user: "alice", state: stateDir(t)}, &house{w: w, user: "bob", state: stateDir(t)}
	return w
}

func (w *world) logf(format string, args ...any) {
	w.log = append(w.log, time.Now().Format("04:05.000 ")+fmt.Sprintf(format, args...))
}

func (h *house) start(more ...string) {
	h.w.t.Helper()
	text := fmt.Sprintf("listen: [\"127.0.0.1:0\"]\nstate: %q\nhold: {for: 2m}\n%sdomains:\n  %s: {connect: \"127.0.0.1:5222\", trust: pin, pins: [%q]}\n", h.state, strings.Join(more, ""), domain, h.w.srv.Pin())
	cfg, err := config.Parse("ledger.yaml", []byte(text))
	if err != nil {
		h.w.t.Fatal(err)
	}
	h.p, err = proxy.New(cfg, proxy.Options{Version: "test", Log: slog.New(slog.NewTextHandler(logged{h}, &slog.HandlerOptions{Level: slog.LevelDebug})), Listen: h.w.net.Listen, Dial: h.dial})
	if err != nil {
		h.w.t.Fatal(err)
	}
	if err := h.p.Listen(); err != nil {
		h.w.t.Fatal(err)
	}
	h.addr = h.p.Addrs()[0].String()
	h.done = make(chan struct{})
	go func() { defer close(h.done); h.p.Serve() }()
}

// logged puts a proxy's log into the world's.
type logged struct{ h *house }

func (l logged) Write(b []byte) (int, error) {
	l.h.w.mu.Lock()
	defer l.h.w.mu.Unlock()
	_, line, _ := strings.Cut(strings.TrimSpace(string(b)), "level=")
	if l.h == l.h.w.away && strings.Contains(line, "a data message was refused") {
		l.h.w.unread++
		l.h.w.refused++
	}
	l.h.w.logf("%s's proxy: %s", l.h.user, line)
	return len(b), nil
}

func (h *house) stop() {
	h.p.Shutdown(time.Second)
	<-h.done
}

func (h *house) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := h.w.net.Dial(ctx, network, addr)
	if err == nil {
		h.w.mu.Lock()
		h.up = conn.(*wire.Conn)
		h.w.mu.Unlock()
	}
	return conn, err
}

// login brings the client online; nil when that breaks off.
func (h *house) login() *link {
	l := &link{}
	cfg := client.Config{Addr: h.addr, JID: h.user + "@" + domain, Password: users()[h.user], Resource: "c", Entry: client.Plain,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := h.w.net.Dial(ctx, network, addr)
			if err == nil {
				l.wire = conn.(*wire.Conn)
				l.wire.Record()
			}
			return conn, err
		}}
	c, err := client.Dial(h.w.t.Context(), cfg)
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if h == h.w.home && l.wire != nil {
		h.w.links = append(h.w.links, l)
	}
	if err != nil {
		h.w.logf("%s does not get in: %v", h.user, err)
		return nil
	}
	h.w.logf("%s is online", h.user)
	l.Client = c
	go l.listen(h)
	return l
}

// listen notes what a client gets.
func (l *link) listen(h *house) {
	for {
		st, err := l.Wait(func(st *stanza.Stanza) bool { return string(st.Root().Local()) == "message" })
		if l.Ended() {
			return
		}
		if err != nil {
			continue // nothing for a while
		}
		h.w.mu.Lock()
		if h == h.w.away && st.Root().Attr("type") != "error" {
			text, more := client.Body(st), 0
			if n, _ := fmt.Sscanf(text, "[otrproxy] %d message", &more); n == 1 && strings.Contains(text, "could not be read") {
				h.w.more += more
				h.w.refused = max(0, h.w.refused-more)
			} else {
				h.w.read, h.w.readAt = append(h.w.read, text), append(h.w.readAt, time.Now())
			}
		}
		h.w.logf("%s gets %s %s %.90s", h.user, st.Root().Attr("type"), st.Root().Attr("id"), client.Body(st))
		h.w.mu.Unlock()
	}
}

// inWorld runs a story between alice and bob, who have come online, in simulated time. It
// returns who of them is there at the end.
func inWorld(t *testing.T, story func(w *world, alice, bob *link) (*link, *link)) {
	testKeys(t) // outside simulated time
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		alice, bob := w.begin()
		alice, bob = story(w, alice, bob)
		w.end(alice, bob)
	})
}

// begin brings alice and bob online.
func (w *world) begin() (alice, bob *link) {
	w.away.start()
	w.home.start()
	bob = w.bobComes()
	return w.home.login(), bob
}

// live lets the world go on for a while, and balances the books.
func (w *world) live() tally {
	alice, bob := w.begin()
	pick := func(n int) int { w.mu.Lock(); defer w.mu.Unlock(); return w.rng.IntN(n) }
	for range 60 {
		time.Sleep(time.Duration(pick(1500)) * time.Millisecond)
		if alice != nil && alice.Ended() {
			w.mu.Lock()
			w.logf("alice is offline")
			w.mu.Unlock()
			alice.Drop()
			alice = nil
		}
		switch k := pick(100); {
		case k < 55:
			if alice == nil {
				alice = w.home.login()
			}
			for range 1 + pick(4) {
				w.hand(alice)
			}
		case k < 65:
			bob.Say("alice@"+domain, "", "from bob")
		case k < 75: // her connection to the server, either way
			w.mu.Lock()
			n, silence := w.rng.IntN(3000), time.Duration(w.rng.IntN(3000))*time.Millisecond
			w.logf("cut of the server's connection in %d bytes, silence %v", n, silence)
			w.home.up.CutAfter(n, silence)
			w.cuts++
			w.mu.Unlock()
		case k < 80:
			if alice != nil {
				w.mu.Lock()
				n := w.rng.IntN(600)
				w.logf("cut of alice's connection in %d bytes", n)
				alice.wire.CutAfter(n, time.Duration(w.rng.IntN(500))*time.Millisecond)
				w.cuts++
				w.mu.Unlock()
			}
		case k < 86:
			w.mu.Lock()
			d := time.Duration(w.rng.IntN(20)) * time.Second
			w.logf("slow for %v", d)
			w.home.up.Pause(d)
			w.mu.Unlock()
		case k < 90 && os.Getenv("LEDGER_NOCRASH") == "":
			w.mu.Lock()
			w.logf("bob crashes")
			w.crashes++
			w.untold, w.refused = w.untold+w.refused, 0
			for i, text := range w.read {
				if id, ok := strings.CutSuffix(strings.TrimPrefix(text, "[resent] "), "-."); ok && time.Since(w.readAt[i]) < 5*time.Second {
					w.had[id] = true
				}
			}
			w.away.up.Break()
			bob.wire.Break()
			w.mu.Unlock()
			w.away.stop()
			w.away.start()
			bob = w.bobComes()
		}
	}
	w.mu.Lock()
	w.logf("---- quiet")
	w.mu.Unlock()
	for range 10 {
		time.Sleep(20 * time.Second)
		if alice == nil || alice.Ended() {
			if alice != nil {
				alice.Drop()
			}
			alice = w.home.login()
		}
	}
	synctest.Wait()
	if os.Getenv("LEDGER_STACK") != "" {
		b := make([]byte, 1<<20)
		w.logf("%s", b[:runtime.Stack(b, true)])
	}
	w.balance()
	w.end(alice, bob)
	if w.t.Failed() || os.Getenv("LEDGER_LOG") != "" {
		w.t.Logf("%s", strings.Join(w.log, "\n"))
	}
	return w.tally
}

func (w *world) end(alice, bob *link) {
	if alice != nil {
		alice.Drop()
	}
	bob.Drop()
	w.home.stop()
	w.away.stop()
	w.srv.Close()
	synctest.Wait()
}

// hand has alice's client send a message, and notes it if all of it gets through.
func (w *world) hand(l *link) {
	if l == nil || l.Ended() {
		return
	}
	w.mu.Lock()
	w.messages++
	id := fmt.Sprintf("m%d", w.messages)
	w.mu.Unlock()
	raw := stanza.Message{To: "bob@" + domain, ID: id, Type: "chat", Body: id + "-."}.AppendTo(nil)
	before := l.wire.Passed()
	err := l.Send(string(raw))
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil || l.wire.Passed()-before < int64(len(raw)) {
		w.logf("%s does not reach the proxy", id)
		return
	}
	w.logf("alice says %s", id)
	w.sent = append(w.sent, id)
}

// bobComes brings bob online; his client notes what it gets.
func (w *world) bobComes() *link {
	bob := w.away.login()
	if bob == nil {
		w.t.Fatal("bob is not let in")
	}
	return bob
}

var gaveBack = regexp.MustCompile(`<message from='[^']*' to='[^']*' id='(m\d+)' type='error'>(?:<body>[^<]*</body>)?<error [^>]*><([a-z-]+)`)

// balance reports what is wrong with how each message ended.
func (w *world) balance() {
	w.mu.Lock()
	defer w.mu.Unlock()
	var given []string
	for _, l := range w.links {
		for _, m := range gaveBack.FindAllSubmatch(l.wire.Recorded(), -1) {
			given = append(given, string(m[1]))
		}
	}
	for _, wrong := range w.books(given) {
		w.t.Error(wrong)
	}
}

// books counts how each message ended, of which some were given back, and says what is wrong.
func (w *world) books(given []string) (wrong []string) {
	fault := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	read, back, resent := map[string]int{}, map[string]int{}, map[string]int{}
	last := 0
	for _, text := range w.read {
		said, again := strings.CutPrefix(text, "[resent] ")
		id, ok := strings.CutSuffix(said, "-.")
		switch {
		case ok:
			read[id]++
			if again { // it was among those that could not be read
				resent[id]++
				if w.untold > 0 {
					w.untold--
				} else {
					w.more--
				}
			}
			n, _ := strconv.Atoi(id[1:])
			if n < last && !again {
				fault("%s was read behind m%d", id, last)
			}
			last = max(n, last)
		case !strings.HasPrefix(text, "[otrproxy] "):
			fault("bob read %q", text)
		}
	}
	for _, id := range given {
		back[id]++
	}
	for _, id := range w.sent {
		w.tally.read += read[id]
		w.returned += back[id]
		switch n := read[id] + back[id]; {
		case n == 2 && w.had[id] && w.unread > 0 && (read[id] == 2 && resent[id] == 1 || read[id] == 1):
			w.again++ // his server, which he had not told that he has it, gave it to him once more
			w.unread--
		case n > 1:
			w.doubled++
			fault("%s was read %d times and given back %d times", id, read[id], back[id])
		case n == 0 && w.more > 0:
			w.more--
			w.unreadable++
		case n == 0:
			w.lost++
			fault("%s is lost", id)
		}
	}
	w.messages = len(w.sent)
	return wrong
}

// The ledger does not balance where a message was sent a third time, or came back although bob
// has read it and could read all that reached him.
func TestLedgerFindsDoubles(t *testing.T) {
	for name, x := range map[string]struct {
		read, given []string
		unread      int
	}{
		"read and given back": {[]string{"m1-."}, []string{"m1"}, 0},
		"given back twice":    {nil, []string{"m1", "m1"}, 1},
		"sent a third time":   {[]string{"[resent] m1-.", "[resent] m1-."}, nil, 2},
		"read twice":          {[]string{"m1-.", "m1-."}, nil, 1},
	} {
		w := &world{read: x.read, unread: x.unread, sent: []string{"m1"}, had: map[string]bool{"m1": true}}
		if wrong := w.books(x.given); w.doubled != 1 || len(wrong) != 1 {
			t.Errorf("%s: %+v, %q", name, w.tally, wrong)
		}
	}
}
