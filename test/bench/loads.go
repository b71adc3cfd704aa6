//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"otrproxy/demo/client"
	"otrproxy/stanza"
)

// What is sent. Every stanza bears a number, in its id and where it has a text also in
// that, and the other end counts: a copy that loses, doubles or swaps something is fast
// for nothing.

const (
	password = "secret"
	patience = time.Minute // after which a stanza that has not come is lost
)

var background = context.Background()

// over has a client use a connection that is there.
func over(c net.Conn) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) { return c, nil }
}

// Streams of numbered stanzas. Those of an end's messages and presences go to the other
// end, its requests to the server and back.
const (
	messages = iota
	presences
	requests
	streams
)

var streamLetters = [streams]byte{'m', 'p', 'q'}

// An end is one client of a pair.
type end struct {
	c     *client.Client
	plain net.Conn // below TLS
	torn  *torn
	peer  *end
	sent  [streams]int
	got   [streams]tally
	slots chan struct{} // what this end may send before the other has read it
	draws *rand.Rand
	buf   []byte
}

// A pair is alice and bob, on either side of the server and both through one thing.
type pair struct {
	t     *thing
	alice *end
	bob   *end
}

const window = 100

func newPair(t *thing) (*pair, error) {
	p := &pair{t: t}
	ends := []**end{&p.alice, &p.bob}
	for i, who := range []string{"alice", "bob"} {
		e := &end{slots: make(chan struct{}, window), draws: rand.New(rand.NewPCG(1, uint64(i)))}
		e.got = [streams]tally{{what: "message"}, {what: "presence", loose: true}, {what: "request"}} // the test server hands presences on in any order
		var err error
		e.c, e.plain, err = t.dial(who, "r", func(c net.Conn) net.Conn { e.torn = &torn{Conn: c}; return e.torn })
		if err != nil {
			p.close()
			return nil, err
		}
		// Who is on the list of contacts may have a private conversation.
		if err := e.c.Send("<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq><presence/>"); err != nil {
			p.close()
			return nil, err
		}
		if err := errors.Join(e.request(), e.read(1, nil)); err != nil { // all that has passed
			p.close()
			return nil, err
		}
		*ends[i] = e
	}
	p.alice.peer, p.bob.peer = p.bob, p.alice
	if err := p.private(); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *pair) close() {
	for _, e := range []*end{p.alice, p.bob} {
		if e != nil {
			e.c.Close()
		}
	}
}

// private waits for the private conversation, where there is to be one: what alice says
// first waits for it in the proxy.
func (p *pair) private() error {
	p.start()
	for _, e := range []*end{p.alice, p.bob} {
		if err := e.chat(100); err != nil {
			return err
		}
		if err := e.peer.read(1, nil); err != nil {
			return fmt.Errorf("the first message: %w", err)
		}
	}
	return nil
}

// start gives everything that is to come until the end of a turn its time.
func (p *pair) start() {
	for _, e := range []*end{p.alice, p.bob} {
		e.plain.SetDeadline(time.Now().Add(patience))
	}
}

// settle makes sure that nothing more comes than was due: a request's answer comes behind it.
func (p *pair) settle() error {
	p.start()
	for _, e := range []*end{p.alice, p.bob} {
		if err := errors.Join(e.request(), e.read(1, nil)); err != nil {
			return err
		}
		for s := range e.got {
			due := e.peer.sent[s]
			if s == requests {
				due = e.sent[s]
			}
			if err := e.got[s].complete(due); err != nil {
				return err
			}
		}
	}
	if n := p.t.clear.Load(); n > 0 {
		return fmt.Errorf("%d messages have left in clear", n)
	}
	if p.t.policy == "require" {
		if n, due := p.t.sealed.Load(), p.alice.sent[messages]; int(n) == 0 || due == 0 {
			return errors.New("nothing has left encrypted")
		}
	}
	return nil
}

// put sends a stanza of a stream; what is between its id and its end is given.
func (e *end) put(stream int, head string, tail func(b []byte, n int) []byte) error {
	n := e.sent[stream]
	e.sent[stream]++
	b := append(e.buf[:0], head...)
	b = append(b, " id='bench-"...)
	b = append(b, streamLetters[stream])
	b = strconv.AppendInt(b, int64(n), 10)
	b = append(b, '\'')
	b = tail(b, n)
	e.buf = b
	return e.c.Send(string(b))
}

const filling = "The quick brown fox jumps over the lazy dog, and what it thinks of it nobody knows. "

var text = strings.Repeat(filling, 40)

// chat sends a message with a text of so many bytes. It begins with its number.
func (e *end) chat(size int) error {
	return e.put(messages, "<message type='chat' to='"+e.peer.c.JID+"'", func(b []byte, n int) []byte {
		b = append(b, "><body>"...)
		at := len(b)
		b = strconv.AppendInt(b, int64(n), 10)
		b = append(b, ' ')
		b = append(b, text[:max(0, size-(len(b)-at))]...)
		return append(b, "</body><active xmlns='http://jabber.org/protocol/chatstates'/></message>"...)
	})
}

func (e *end) state(what string) error {
	return e.put(messages, "<message type='chat' to='"+e.peer.c.JID+"'", func(b []byte, _ int) []byte {
		return append(b, "><"+what+" xmlns='http://jabber.org/protocol/chatstates'/><no-store xmlns='urn:xmpp:hints'/></message>"...)
	})
}

func (e *end) receipt() error {
	return e.put(messages, "<message to='"+e.peer.c.JID+"'", func(b []byte, n int) []byte {
		b = append(b, "><received xmlns='urn:xmpp:receipts' id='of-"...)
		b = strconv.AppendInt(b, int64(n), 10)
		return append(b, "'/></message>"...)
	})
}

func (e *end) presence() error {
	return e.put(presences, "<presence", func(b []byte, _ int) []byte {
		return append(b, "><show>away</show><status>be right back</status></presence>"...)
	})
}

func (e *end) request() error {
	return e.put(requests, "<iq type='get' to='"+domain+"'", func(b []byte, _ int) []byte {
		return append(b, "><ping xmlns='urn:xmpp:ping'/></iq>"...)
	})
}

// read takes so many numbered stanzas, and counts them. What bears no number is somebody
// else's: the first presences, and what the proxy says.
func (e *end) read(n int, each func(stream int)) error {
	for n > 0 {
		st, err := e.c.Next()
		if err != nil {
			var late net.Error
			if errors.As(err, &late) && late.Timeout() {
				err = fmt.Errorf("%d stanzas have not come", n)
			}
			return err
		}
		if st.Kind == stanza.KindClose {
			return io.ErrUnexpectedEOF
		}
		if st.Kind != stanza.KindElement {
			continue
		}
		id := st.Root().RawAttr("id")
		rest, ok := bytes.CutPrefix(id, []byte("bench-"))
		if !ok || len(rest) < 2 {
			continue
		}
		stream := bytes.IndexByte(streamLetters[:], rest[0])
		number, err := strconv.Atoi(string(rest[1:]))
		if stream < 0 || err != nil {
			return fmt.Errorf("nobody has sent %s", st.Raw)
		}
		if st.Root().Attr("type") == "error" {
			return fmt.Errorf("it came back: %s", st.Raw)
		}
		if stream == messages {
			if body := client.Body(st); body != "" && !strings.HasPrefix(body, string(rest[1:])+" ") {
				return fmt.Errorf("message %d has another's text: %.40q", number, body)
			}
		}
		if err := e.got[stream].see(number); err != nil {
			return err
		}
		n--
		if each != nil {
			each(stream)
		}
	}
	return nil
}

// A load is one way of sending. It returns how many stanzas passed the thing, and how long
// each exchange took where there are such.
type load struct {
	name     string
	messages func(b *bench) int // a turn
	counted  int                // messages, to count what is allocated for them
	run      func(p *pair, n int) (stanzas int, rtt []time.Duration, err error)
}

// many is how many messages it takes to count allocations.
func (l load) many(b *bench) int { return b.some(l.counted, l.counted/10) }

var (
	pipelined = load{"pipelined", func(b *bench) int { return b.some(4000, 1000) }, 20_000, func(p *pair, n int) (int, []time.Duration, error) {
		return p.oneWay(n, 140, nil)
	}}
	mixed    = load{"mixed", func(b *bench) int { return b.some(2000, 500) }, 8000, (*pair).mixed}
	pingPong = load{"ping-pong", func(b *bench) int { return b.some(500, 200) }, 4000, (*pair).pingPong}
	late     = load{"late writes", func(*bench) int { return 300 }, 0, (*pair).late}
)

// oneWay has alice send messages with a text of a size, no more at once than the window has.
func (p *pair) oneWay(n, size int, stall func(read int)) (int, []time.Duration, error) {
	var sending error
	var wg sync.WaitGroup
	wg.Go(func() {
		for range n {
			p.alice.slots <- struct{}{}
			if sending = p.alice.chat(size); sending != nil {
				p.bob.plain.Close()
				return
			}
		}
	})
	read := 0
	err := p.bob.read(n, func(int) {
		<-p.alice.slots
		if read++; stall != nil {
			stall(read)
		}
	})
	if err != nil {
		p.release()
	}
	wg.Wait()
	return 2 * n, nil, errors.Join(sending, err)
}

// release ends a turn that has failed: its sender waits no longer.
func (p *pair) release() {
	for _, e := range []*end{p.alice, p.bob} {
		e.plain.Close()
		go func() {
			for range e.slots {
			}
		}()
	}
}

// script draws what an end is to send: what people's programs do, the same in each run.
func (e *end) script(n int) (sends []func() error, own int) {
	for range n {
		switch d := e.draws.IntN(100); {
		case d < 55:
			size := 60 + e.draws.IntN(1441)
			if e.draws.IntN(4) > 0 { // most are short
				size = 60 + e.draws.IntN(200)
			}
			sends = append(sends, func() error { return e.chat(size) })
		case d < 70:
			sends = append(sends, func() error { return e.state("composing") })
		case d < 75:
			sends = append(sends, func() error { return e.state("paused") })
		case d < 90:
			sends = append(sends, e.receipt)
		case d < 96:
			sends = append(sends, e.presence)
		default:
			sends = append(sends, e.request)
			own++
		}
	}
	return sends, own
}

// mixed has both send at once: texts of 60 to 1500 bytes, chat states, receipts, presences,
// and a request now and then.
func (p *pair) mixed(n int) (int, []time.Duration, error) {
	ends := []*end{p.alice, p.bob}
	var sends [2][]func() error
	var own [2]int
	for i, e := range ends {
		sends[i], own[i] = e.script(n)
	}
	var errs [4]error
	var wg sync.WaitGroup
	for i, e := range ends {
		wg.Go(func() {
			for _, send := range sends[i] {
				e.slots <- struct{}{}
				if errs[i] = send(); errs[i] != nil {
					p.release()
					return
				}
			}
		})
		wg.Go(func() {
			errs[2+i] = e.read(n-own[1-i]+own[i], func(stream int) {
				if stream == requests {
					<-e.slots
				} else {
					<-e.peer.slots
				}
			})
			if errs[2+i] != nil {
				p.release()
			}
		})
	}
	wg.Wait()
	return 4 * n, nil, errors.Join(errs[:]...)
}

// pingPong has a message answered by one, again and again.
func (p *pair) pingPong(n int) (int, []time.Duration, error) {
	rtt := make([]time.Duration, 0, n)
	for range n {
		begin := time.Now()
		for _, e := range []*end{p.alice, p.bob} {
			if err := e.chat(140); err != nil {
				return 0, nil, err
			}
			if err := e.peer.read(1, nil); err != nil {
				return 0, nil, err
			}
		}
		rtt = append(rtt, time.Since(begin))
	}
	return 4 * n, rtt, nil
}

// late has what alice sends come in pieces that fit nothing, with pauses, and bob look
// away for a while: all has to arrive all the same.
func (p *pair) late(n int) (int, []time.Duration, error) {
	p.alice.torn.tear.Store(true)
	defer p.alice.torn.tear.Store(false)
	stanzas, _, err := p.oneWay(n, 700, func(read int) {
		if read == n/3 {
			time.Sleep(300 * time.Millisecond)
		}
	})
	return stanzas, nil, err
}

// A torn connection is one that may send in odd pieces, and pause between them.
type torn struct {
	net.Conn
	tear  atomic.Bool
	draws *rand.Rand // nil until it is torn
}

func (t *torn) Write(b []byte) (int, error) {
	if !t.tear.Load() {
		return t.Conn.Write(b)
	}
	if t.draws == nil {
		t.draws = rand.New(rand.NewPCG(2, 0))
	}
	for n := 0; n < len(b); {
		size := min(1+t.draws.IntN(1+t.draws.IntN(1400)), len(b)-n)
		k, err := t.Conn.Write(b[n : n+size])
		if n += k; err != nil {
			return n, err
		}
		if t.draws.IntN(3) == 0 {
			time.Sleep(time.Duration(t.draws.IntN(1500)) * time.Microsecond)
		}
	}
	return len(b), nil
}
