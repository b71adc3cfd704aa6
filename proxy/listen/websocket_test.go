package listen

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"otrproxy/config"
	"otrproxy/proxy/causes"
	"otrproxy/proxy/journal"
	"otrproxy/proxy/leg"
	"otrproxy/stanza"
)

// pair is a connection of this process with itself, in memory.
func pair() (outer, inner carrier) {
	toInner, fromOuter := net.Pipe()
	toOuter, fromInner := net.Pipe()
	return carrier{fromInner, toInner}, carrier{fromOuter, toOuter}
}

// A carrier is one end of such a connection: each direction ends by itself, as with TCP.
type carrier struct {
	net.Conn // what is read
	out      net.Conn
}

func (c carrier) Write(b []byte) (int, error)        { return c.out.Write(b) }
func (c carrier) CloseWrite() error                  { return c.out.Close() }
func (c carrier) SetWriteDeadline(t time.Time) error { return c.out.SetWriteDeadline(t) }
func (c carrier) SetReadDeadline(t time.Time) error  { return c.Conn.SetReadDeadline(t) }

func (c carrier) SetDeadline(t time.Time) error {
	return errors.Join(c.Conn.SetReadDeadline(t), c.out.SetWriteDeadline(t))
}

func (c carrier) Close() error { return errors.Join(c.Conn.Close(), c.out.Close()) }

// bare is a door by which nobody comes.
func bare() *Door {
	cfg := config.Default()
	log := journal.New(nil, func() bool { return false })
	return New(context.Background(), func() *config.Config { return cfg }, log, nil, NewGate(log, func() bool { return false }, func(causes.Refusal) {}))
}

// webSockets are the two ends of a WebSocket that came from a client.
func webSockets(t *testing.T, c *Caller) (net.Conn, error) {
	t.Helper()
	outer, inner := pair()
	t.Cleanup(func() { outer.Close(); inner.Close() })
	deadline := time.Now().Add(20 * time.Second)
	outer.SetDeadline(deadline)
	inner.SetDeadline(deadline)
	c.door = bare()
	c.Conn = inner
	served := make(chan error, 1)
	go func() {
		err := c.webSocket(inner)
		if err != nil {
			inner.Close()
		}
		served <- err
	}()
	d := ws.Dialer{Protocols: []string{subprotocol}}
	_, _, err := d.Upgrade(outer, &url.URL{Scheme: "ws", Host: "127.0.0.1", Path: webSocketPath})
	return outer, errors.Join(err, <-served)
}

// Elsewhere than on this machine, only TLS is spoken.
func TestWebSocketOffLoopback(t *testing.T) {
	for _, c := range []*Caller{{}, {Local: true}, {TLS: true}} {
		_, err := webSockets(t, c)
		var refused ws.StatusError
		if want := !c.TLS && !c.Local; errors.As(err, &refused) != want || want && refused != 403 || !want && err != nil {
			t.Errorf("local %v, TLS %v: %v", c.Local, c.TLS, err)
		}
	}
}

// A page of a browser's own machine is one of this machine only where the browser is here.
func TestWebSocketLocalPages(t *testing.T) {
	dr := bare()
	for _, local := range []bool{true, false} {
		for _, origin := range []string{"http://localhost:8080", "https://127.0.0.1", "http://[::1]"} {
			if dr.ourOrigin(origin, local) != local {
				t.Errorf("%s, local %v: %v", origin, local, !local)
			}
		}
	}
}

// A ping is answered, however long ago we have last had something to say.
func TestPingAfterSilence(t *testing.T) {
	c := &Caller{Local: true}
	outer, err := webSockets(t, c)
	if err != nil {
		t.Fatal(err)
	}
	c.Conn.SetWriteDeadline(time.Now().Add(-time.Second))
	read := make(chan error, 1)
	go func() {
		_, err := io.ReadAll(c.Conn)
		read <- err
	}()
	for _, word := range []string{"", "there?"} {
		outer.Write(ws.MustCompileFrame(ws.MaskFrameInPlace(ws.NewPingFrame([]byte(word)))))
		f, err := ws.ReadFrame(outer)
		if err != nil || f.Header.OpCode != ws.OpPong || string(f.Payload) != word {
			t.Fatalf("%q: %+v %v", word, f, err)
		}
		c.Conn.SetWriteDeadline(time.Now().Add(-time.Second))
	}
	go io.Copy(io.Discard, outer)
	outer.Write(ws.MustCompileFrame(ws.MaskFrameInPlace(ws.NewCloseFrame(nil))))
	if err := <-read; err != nil {
		t.Error(err)
	}
}

// writes notes the deadlines that are set for writing.
type writes struct {
	net.Conn
	until []time.Time
}

func (w *writes) SetWriteDeadline(t time.Time) error { w.until = append(w.until, t); return nil }
func (w *writes) Write(b []byte) (int, error)        { return len(b), nil }

// Who asks whether we are there does not put off the end of what is being written.
func TestPingPutsNothingOff(t *testing.T) {
	w := &writes{}
	f := &framed{Conn: w}
	soon := time.Now().Add(time.Hour)
	f.SetWriteDeadline(soon)
	answers{f}.Write([]byte("pong"))
	if len(w.until) != 1 || !w.until[0].Equal(soon) {
		t.Errorf("deadlines %v", w.until)
	}
	f.SetWriteDeadline(time.Now().Add(-time.Hour))
	answers{f}.Write([]byte("pong"))
	if len(w.until) != 3 || !w.until[2].After(time.Now()) {
		t.Errorf("deadlines %v", w.until)
	}
}

// A header is remembered as it was, however much comes behind it in one write.
func TestLongFeatures(t *testing.T) {
	x := &framed{}
	sent := 0
	write := func(b []byte, want int) {
		t.Helper()
		if err := x.toFrames(b, func([]byte) error { sent++; return nil }); err != nil || sent != want {
			t.Fatalf("%d messages, want %d: %v", sent, want, err)
		}
	}
	b := append(stanza.Header{From: "example.org"}.AppendTo(nil), "<stream:features><x xmlns='urn:x'>"...)
	write(append(append(b, bytes.Repeat([]byte("x"), 20<<10)...), "</x></stream:features>"...), 2)
	write([]byte("<presence/>"), 3)
}

// FuzzFromFrame: whatever a client's frames hold, a message becomes one element of a stream,
// or its beginning or end, or the client is told why not.
func FuzzFromFrame(f *testing.F) {
	frame := func(op ws.OpCode, fin bool, text string) []byte {
		return ws.MustCompileFrame(ws.MaskFrame(ws.NewFrame(op, fin, []byte(text))))
	}
	const open = "<open xmlns='" + nsFraming + "' to='example.org'/>"
	f.Add(slices.Concat(frame(ws.OpText, true, open), frame(ws.OpText, true, "<message xmlns='jabber:client'><body>x</body></message>"), frame(ws.OpText, true, "<close xmlns='"+nsFraming+"'/>")))
	f.Add(slices.Concat(frame(ws.OpText, false, open[:9]), frame(ws.OpPing, true, "x"), frame(ws.OpContinuation, true, open[9:]), frame(ws.OpClose, true, "\x03\xe8")))
	f.Add(frame(ws.OpText, true, "<?xml version='1.0'?>"+open))
	f.Add(frame(ws.OpText, true, "<a/><b/>"))
	f.Add(frame(ws.OpBinary, true, open))
	f.Add(frame(ws.OpText, true, "\xff"))
	f.Add([]byte("<open/>"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := fromFrame(b); err == nil && len(m) > 0 && !bytes.HasPrefix(m, []byte("<?xml")) && string(m) != stanza.StreamClose {
			if _, err := stanza.Parse(m); err != nil {
				t.Errorf("%q became %q: %v", b, m, err)
			}
		}
		source, answer := bytes.NewReader(b), new(bytes.Buffer)
		x := &framed{limit: 1 << 12, in: &wsutil.Reader{Source: source, State: ws.StateServerSide, CheckUTF8: true, MaxFrameSize: 1 << 12,
			OnIntermediate: wsutil.ControlFrameHandler(answer, ws.StateServerSide)}}
		out, err := io.ReadAll(x)
		var se *stanza.SyntaxError
		if err != nil && !errors.As(err, &se) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, ws.ErrHeaderLengthMSB) {
			t.Errorf("%q: %v", b, err)
		}
		if len(out) > 40*len(b)+1000 {
			t.Errorf("%d bytes became %d", len(b), len(out))
		}
	})
}

// FuzzToFrames: each stanza that a server's stream may hold becomes one message, which
// means the same without the stream's header.
func FuzzToFrames(f *testing.F) {
	f.Add(" xmlns:x='urn:x'", "<message><x:y x:z='1'><stream:error/></x:y></message> <presence/>")
	f.Add(" xmlns:x='a b' xmlns:y=\"it's\"", "<stream:features><x:a/><y:b y:c=''/></stream:features>")
	f.Add(" xmlns:x='urn:x'", "<x:a xmlns:x='urn:y'><b xmlns='urn:b' stream:c='1'/></x:a><stream:error xmlns='urn:z'/>")
	f.Add("", "<a xmlns:stream='"+stanza.NSStream+"'/></stream:stream>")
	f.Add(" xmlns:x='&lt;&#39;\n\t '", "<a x:b='&#10;'>&lt;<![CDATA[<stream:x>]]></a>")
	f.Fuzz(func(t *testing.T, declared, body string) {
		scan := stanza.NewScanner(bytes.NewReader([]byte("<stream:stream xmlns='jabber:client' xmlns:stream='"+stanza.NSStream+"' version='1.0'"+declared+">"+body)), stanza.Limits{})
		if st, err := scan.Next(); err != nil || st.Kind != stanza.KindHeader {
			return
		}
		x := &framed{}
		send := func(b []byte) (sent [][]byte) {
			if err := x.toFrames(b, func(m []byte) error { sent = append(sent, bytes.Clone(m)); return nil }); err != nil {
				t.Fatalf("%q: %v", b, err)
			}
			return sent
		}
		if m := send(stanza.Header{From: "example.org", ID: "1", Declared: scan.Declared()}.AppendTo(nil)); len(m) != 1 {
			t.Fatalf("a header became %q", m)
		} else if st, err := stanza.Parse(m[0]); err != nil || !st.Is(nsFraming, "open") {
			t.Fatalf("a header became %q: %v", m, err)
		}
		for {
			st, err := scan.Next()
			if err != nil {
				return
			}
			m := send(st.Raw)
			if st.Kind != stanza.KindElement {
				if len(m) != map[stanza.Kind]int{stanza.KindSpace: 0, stanza.KindClose: 1}[st.Kind] {
					t.Fatalf("%q became %q", st.Raw, m)
				}
				continue
			}
			if len(m) != 1 {
				t.Fatalf("%q became %q", st.Raw, m)
			}
			again, err := stanza.Parse(m[0])
			if err != nil {
				t.Fatalf("%q became %q: %v", st.Raw, m[0], err)
			}
			if want, got := names(st), names(again); !slices.Equal(want, got) {
				t.Fatalf("%q became %q: %q, want %q", st.Raw, m[0], got, want)
			}
			if !bytes.Contains(again.Root().Name(), []byte(":")) && len(again.Root().RawAttr("xmlns")) == 0 && !slices.Contains(attributes(again), "xmlns") {
				t.Fatalf("no namespace in %q", m[0])
			}
		}
	})
}

// names are those of all elements, with their namespaces.
func names(st *stanza.Stanza) (all []string) {
	for el := range st.Root().Descendants() {
		all = append(all, string(el.NS())+" "+string(el.Local()))
	}
	return append(all, string(st.Root().NS())+" "+string(st.Root().Local()))
}

func attributes(st *stanza.Stanza) (all []string) {
	for name := range st.Root().AttrNames() {
		all = append(all, name)
	}
	return all
}

// Of messages that have come together, none is waited for: what they lead to leaves in one
// write.
func TestWebSocketMessagesThatCameTogether(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	w := leg.NewWire(ours)
	f := &framed{Conn: w, limit: 4096}
	f.in = &wsutil.Reader{Source: w, State: ws.StateServerSide, CheckUTF8: true, MaxFrameSize: 4096}
	in := leg.NewInlet(f, w)
	var both bytes.Buffer
	for _, m := range []string{"<message id='1'/>", "<message id='2'/>"} {
		if err := ws.WriteFrame(&both, ws.MaskFrame(ws.NewTextFrame([]byte(m)))); err != nil {
			t.Fatal(err)
		}
	}
	go theirs.Write(both.Bytes())
	b := make([]byte, 100)
	for i, want := range []bool{false, true} {
		if !in.Waits() && i == 0 {
			t.Error("nothing has come, and a read would not wait")
		}
		n, err := in.Read(b)
		if err != nil || !bytes.Contains(b[:n], []byte(fmt.Sprintf("'%d'", i+1))) {
			t.Fatalf("%q, %v", b[:n], err)
		}
		if got := in.Waits(); got != want {
			t.Errorf("behind message %d: a read waits: %v, want %v", i+1, got, want)
		}
	}
}
