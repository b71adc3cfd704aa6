package listen

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"otrproxy/proxy/leg"
	"otrproxy/stanza"
)

// A client in a browser speaks XMPP over WebSocket (RFC 7395): each stanza is a message of
// its own, and <open/> and <close/> stand for the stream's tags. To the rest of the program
// it is a client like any other, on a stream.

const (
	nsFraming     = "urn:ietf:params:xml:ns:xmpp-framing"
	webSocketPath = "/xmpp-websocket" // as XEP-0156 has it in its examples
	subprotocol   = "xmpp"
	maxRequest    = 64 << 10 // bytes of the opening handshake; cookies are long
)

// framed is a connection over WebSocket, read and written as a stream.
type framed struct {
	net.Conn
	in     *wsutil.Reader
	limit  int          // bytes of one message
	rest   []byte       // of what was received, not read yet
	failed error        // of a read, behind that
	header []byte       // of our stream, as it was written
	until  atomic.Int64 // the deadline for writing, in nanoseconds
}

// webSocket does the opening handshake (RFC 6455 section 4.2) with a client that begins
// with an HTTP request.
//
// A page of anybody's may try to connect from a browser on this machine. It could do no
// more than guess passwords, and is turned away for that.
func (c *Caller) webSocket(conn net.Conn) error {
	var host, origin string
	refused := func(status int, reason string) error {
		return ws.RejectConnectionError(ws.RejectionStatus(status), ws.RejectionReason(reason))
	}
	u := ws.Upgrader{
		Protocol: func(b []byte) bool { return string(b) == subprotocol },
		OnRequest: func(uri []byte) error {
			if path, _, _ := strings.Cut(string(uri), "?"); path != webSocketPath {
				return refused(404, "otrproxy: XMPP over WebSocket is at "+webSocketPath)
			}
			return nil
		},
		OnHost: func(b []byte) error { host = string(b); return nil },
		OnHeader: func(key, value []byte) error {
			if strings.EqualFold(string(key), "Origin") {
				origin = string(value)
			}
			return nil
		},
		OnBeforeUpgrade: func() (ws.HandshakeHeader, error) {
			switch {
			case !c.TLS && !c.Local:
				return nil, refused(403, "otrproxy: this address speaks TLS only; use wss")
			case !c.TLS && !c.door.ourHost(host):
				return nil, refused(403, "otrproxy: this is not the address of otrproxy")
			case origin != "" && !c.door.ourOrigin(origin, c.Local):
				return nil, refused(403, "otrproxy: pages from there may not connect; list them under origins in the configuration")
			}
			return nil, nil
		},
	}
	request := &head{r: io.LimitReader(conn, maxRequest)} // the library sets a header no bounds
	hs, err := u.Upgrade(struct {
		io.Reader
		io.Writer
	}{request, conn})
	if err != nil {
		return err
	}
	conn = &leg.Peeked{Conn: conn, First: request.rest}
	if hs.Protocol != subprotocol {
		ws.WriteFrame(conn, ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusProtocolError, "the subprotocol is xmpp (RFC 7395)")))
		return errors.New("another subprotocol than xmpp")
	}
	limit := c.door.config().Limits.Stanza + 4096
	f := &framed{Conn: conn, limit: limit}
	f.in = &wsutil.Reader{Source: conn, State: ws.StateServerSide, CheckUTF8: true, MaxFrameSize: int64(limit), OnIntermediate: wsutil.ControlFrameHandler(answers{f}, ws.StateServerSide)}
	c.Conn = f
	return nil
}

// head reads an HTTP request up to the end of its header; what was read behind that is
// the rest. The library would read on, and lose it.
type head struct {
	r          io.Reader
	last, rest []byte
}

func (h *head) Read(b []byte) (int, error) {
	n, err := h.r.Read(b)
	seen := append(h.last, b[:n]...)
	if _, behind, ended := bytes.Cut(seen, []byte("\r\n\r\n")); ended {
		h.r, h.rest = eof{}, bytes.Clone(behind)
		n -= len(behind)
	}
	h.last = bytes.Clone(seen[max(0, len(seen)-3):])
	return n, err
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// answers is where control frames are answered: the deadline that was set for the last
// stanza may have passed long ago. One that has not is not put off: what is being written
// ends by it.
type answers struct{ f *framed }

func (a answers) Write(b []byte) (int, error) {
	if now := time.Now(); a.f.until.Load() < now.UnixNano() {
		a.f.Conn.SetWriteDeadline(now.Add(leg.WriteLimit))
	}
	return a.f.Conn.Write(b)
}

// SetWriteDeadline remembers the deadline.
func (f *framed) SetWriteDeadline(t time.Time) error {
	f.until.Store(t.UnixNano())
	return f.Conn.SetWriteDeadline(t)
}

// ourHost reports whether a Host header names this machine, or a page that may connect.
func (dr *Door) ourHost(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	return loopbackName(name) || slices.ContainsFunc(dr.config().Origins, func(o string) bool {
		u, err := url.Parse(o)
		return err == nil && strings.EqualFold(u.Hostname(), name)
	})
}

// ourOrigin reports whether a page may connect: from this machine, to a browser on it, or
// by the configuration.
func (dr *Door) ourOrigin(origin string, local bool) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Path != "" {
		return false
	}
	return local && loopbackName(u.Hostname()) || slices.Contains(dr.config().Origins, strings.ToLower(origin))
}

func loopbackName(name string) bool {
	ip, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return strings.EqualFold(strings.TrimSuffix(name, "."), "localhost") || err == nil && ip.IsLoopback()
}

// Read gives the client's messages as a stream.
func (f *framed) Read(b []byte) (int, error) {
	if f.Await(); len(f.rest) == 0 {
		return 0, f.failed
	}
	n := copy(b, f.rest)
	if f.rest = f.rest[n:]; len(f.rest) == 0 {
		f.rest = nil
	}
	return n, nil
}

// Empty reports whether all that was received has been read.
func (f *framed) Empty() bool { return len(f.rest) == 0 && f.failed == nil }

// Await returns once there is something to read, or a read fails.
func (f *framed) Await() {
	for f.Empty() {
		m, err := f.message()
		if err == nil {
			f.rest, err = fromFrame(m)
		}
		f.failed = err
	}
}

// message is the client's next one.
func (f *framed) message() ([]byte, error) {
	for {
		h, err := f.in.NextFrame()
		switch {
		case err != nil:
		case h.OpCode.IsControl():
			if err = f.in.OnIntermediate(h, f.in); err == nil {
				continue
			}
		case h.OpCode != ws.OpText:
			err = misframed("a message that is not text")
		default:
			var m []byte
			if m, err = io.ReadAll(io.LimitReader(f.in, int64(f.limit)+1)); err == nil && len(m) <= f.limit {
				return m, nil
			} else if err == nil {
				err = wsutil.ErrFrameTooLarge
			}
		}
		return nil, f.because(err)
	}
}

// because is an error as the client is told of it.
func (f *framed) because(err error) error {
	var closed wsutil.ClosedError
	var rule ws.ProtocolError
	switch {
	case errors.As(err, &closed):
		return io.EOF
	case errors.Is(err, wsutil.ErrFrameTooLarge):
		return misframed("a message that is too large, of more than " + strconv.Itoa(f.limit) + " bytes")
	case errors.Is(err, wsutil.ErrInvalidUTF8):
		return &stanza.SyntaxError{Condition: "not-well-formed", Reason: "bytes that are not UTF-8"}
	case errors.As(err, &rule):
		return misframed("something that WebSocket forbids: " + rule.Error())
	}
	return err
}

func misframed(reason string) error {
	return &stanza.SyntaxError{Condition: "policy-violation", Reason: reason}
}

// fromFrame is a message as it stands in a stream. It is one element (RFC 7395 section
// 3.3.3); white space does no harm.
func fromFrame(m []byte) ([]byte, error) {
	if m = bytes.Trim(m, " \t\r\n"); len(m) == 0 {
		return nil, nil
	}
	st, err := stanza.Parse(m)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, &stanza.SyntaxError{Condition: "not-well-formed", Reason: "a message that is not one whole element"}
	case err != nil:
		return nil, err
	case st.Is(nsFraming, "open"):
		return stanza.HeaderOf(st).AppendTo(nil), nil
	case st.Is(nsFraming, "close"):
		return []byte(stanza.StreamClose), nil
	}
	return m, nil
}

// Write takes whole pieces of our stream, as all our writers hand them over, and sends
// each as a message.
func (f *framed) Write(b []byte) (int, error) {
	var out bytes.Buffer
	if err := f.toFrames(b, func(m []byte) error { return ws.WriteFrame(&out, ws.NewTextFrame(m)) }); err != nil {
		return 0, err
	}
	if out.Len() > 0 {
		if _, err := f.Conn.Write(out.Bytes()); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

func (f *framed) toFrames(b []byte, send func([]byte) error) error {
	begins := bytes.HasPrefix(b, []byte("<?xml")) || bytes.HasPrefix(b, []byte("<stream:stream"))
	text := b
	if !begins {
		text = append(bytes.Clone(f.header), b...)
	}
	scan := stanza.NewScanner(bytes.NewReader(text), stanza.Limits{Bytes: len(text) + 1, Elements: 1 << 17})
	for {
		st, err := scan.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch st.Kind {
		case stanza.KindHeader:
			if !begins {
				continue
			}
			f.header = bytes.Clone(st.Raw)
			if err := send(appendOpen(nil, stanza.HeaderOf(st))); err != nil {
				return err
			}
		case stanza.KindElement:
			e := st.Edit()
			e.Declare(st.Root(), []byte(" xmlns='"+stanza.NSClient+"'"))
			if bytes.Contains(st.Raw, []byte("stream:")) { // somewhere inside, perhaps
				e.Declare(st.Root(), []byte(" xmlns:stream='"+stanza.NSStream+"'"))
			}
			e.Declare(st.Root(), scan.Declared())
			if err := send(e.AppendTo(nil)); err != nil {
				return err
			}
		case stanza.KindClose:
			if err := send([]byte("<close xmlns='" + nsFraming + "'/>")); err != nil {
				return err
			}
		}
	}
}

func appendOpen(b []byte, h stanza.Header) []byte {
	b = append(b, "<open xmlns='"+nsFraming+"' version='1.0'"...)
	for name, value := range map[string]string{"from": h.From, "to": h.To, "id": h.ID, "xml:lang": h.Lang} {
		if value != "" {
			b = stanza.AppendAttr(b, name, value)
		}
	}
	return append(b, "/>"...)
}

// NetConn is the connection below.
func (f *framed) NetConn() net.Conn { return f.Conn }

// CloseWrite says that no more will come (RFC 6455 section 5.5.1).
func (f *framed) CloseWrite() error {
	// In one write, so that no answer to a ping gets in between.
	_, err := f.Conn.Write(ws.MustCompileFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusNormalClosure, ""))))
	return err
}
