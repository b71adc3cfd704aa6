package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/proxy/control"
	"otrproxy/stanza"
)

const nsFraming = "urn:ietf:params:xml:ns:xmpp-framing"

// A socket is a WebSocket of a client's, which checks every message that it gets.
type socket struct {
	net.Conn
	t    *testing.T
	in   *wsutil.Reader
	seen func(m []byte) // is told of each message, if it is not nil
}

// dial opens a WebSocket at the proxy.
func (b *box) dial(secure bool, with func(*ws.Dialer)) (*socket, error) {
	d := ws.Dialer{Protocols: []string{"xmpp"}, TLSConfig: &tls.Config{InsecureSkipVerify: true, ServerName: domain, NextProtos: []string{"http/1.1"}}}
	scheme := "ws"
	if secure {
		scheme = "wss"
	}
	if with != nil {
		with(&d)
	}
	conn, r, _, err := d.Dial(b.t.Context(), scheme+"://"+b.addr+"/xmpp-websocket")
	if err != nil {
		return nil, err
	}
	in := io.Reader(conn)
	if r != nil { // the other side has closed it at once
		in = r
	}
	conn.SetDeadline(time.Now().Add(client.Patience))
	b.t.Cleanup(func() { conn.Close() })
	return &socket{Conn: conn, t: b.t, in: &wsutil.Reader{Source: in, State: ws.StateClientSide, CheckUTF8: true}}, nil
}

func (b *box) socket(secure bool) *socket {
	b.t.Helper()
	s, err := b.dial(secure, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// frame sends one frame.
func (s *socket) frame(op ws.OpCode, fin bool, payload string) {
	ws.WriteFrame(s.Conn, ws.MaskFrameInPlace(ws.NewFrame(op, fin, []byte(payload))))
}

// send sends messages.
func (s *socket) send(messages ...string) {
	for _, m := range messages {
		s.frame(ws.OpText, true, m)
	}
}

// An ended says how the other side closed: with a code and words, or 0 without a frame.
type ended struct {
	code   ws.StatusCode
	reason string
}

func (e *ended) Error() string { return fmt.Sprintf("closed: %d %s", e.code, e.reason) }

// frames returns the next frame.
func (s *socket) frames() (ws.OpCode, []byte, error) {
	h, err := s.in.NextFrame()
	if err != nil {
		return 0, nil, &ended{}
	}
	b, err := io.ReadAll(s.in)
	if err != nil {
		return 0, nil, err
	}
	if h.OpCode == ws.OpClose {
		code, reason := ws.ParseCloseFrameData(b)
		return 0, nil, &ended{code, reason}
	}
	return h.OpCode, b, nil
}

// next returns the next message, a stanza.
func (s *socket) next() (*stanza.Stanza, error) {
	for {
		op, m, err := s.frames()
		if err != nil {
			return nil, err
		}
		if op != ws.OpText {
			continue
		}
		if err := alone(m); err != nil {
			s.t.Errorf("%v in %s", err, m)
		}
		if s.seen != nil {
			s.seen(m)
		}
		return stanza.Parse(m)
	}
}

// alone checks that a message is one element, which declares its namespaces itself.
func alone(m []byte) error {
	st, err := stanza.Parse(m)
	if err != nil {
		return err
	}
	if !bytes.Contains(st.Root().Name(), []byte(":")) && st.Root().Attr("xmlns") == "" {
		return errors.New("no namespace")
	}
	known := func(space string) bool { return strings.Contains(space, ":") } // else it is a prefix
	for d := xml.NewDecoder(bytes.NewReader(m)); ; {
		tok, err := d.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if el, ok := tok.(xml.StartElement); ok {
			if !known(el.Name.Space) {
				return fmt.Errorf("the prefix of %v is not declared", el.Name)
			}
			for _, a := range el.Attr {
				if a.Name.Space != "" && a.Name.Space != "xmlns" && !known(a.Name.Space) {
					return fmt.Errorf("the prefix of %v is not declared", a.Name)
				}
			}
		}
	}
}

// until reads to the first message that fits.
func (s *socket) until(what string, fits func(*stanza.Stanza) bool) *stanza.Stanza {
	s.t.Helper()
	for {
		st, err := s.next()
		if err != nil {
			s.t.Fatalf("%s: %v", what, err)
		}
		if fits(st) {
			return st
		}
	}
}

// ends reads to the end of the stream, and returns its error's condition and text.
func (s *socket) ends() (condition, text string, how *ended) {
	for {
		st, err := s.next()
		if err != nil {
			errors.As(err, &how)
			return condition, text, how
		}
		if st.Is(stanza.NSStream, "error") {
			for el := range st.Root().Children() {
				if string(el.Local()) == "text" {
					text = el.Text()
				} else {
					condition = string(el.Local())
				}
			}
		}
	}
}

const opening = "<open xmlns='" + nsFraming + "' to='" + domain + "' version='1.0'/>"

func plain(user string) string {
	return "<auth xmlns='" + stanza.NSSASL + "' mechanism='PLAIN'>" + base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+users()[user])) + "</auth>"
}

func is(ns, local string) func(*stanza.Stanza) bool {
	return func(st *stanza.Stanza) bool { return st.Is(ns, local) }
}

// logIn logs in by hand, up to the answer to the request to bind a resource.
func (s *socket) logIn(user string) {
	s.t.Helper()
	s.send(opening)
	s.until("open", is(nsFraming, "open"))
	s.until("features", is(stanza.NSStream, "features"))
	s.send(plain(user))
	s.until("success", is(stanza.NSSASL, "success"))
	s.send(opening)
	s.until("open", is(nsFraming, "open"))
	s.until("features", is(stanza.NSStream, "features"))
	s.send("<iq xmlns='jabber:client' type='set' id='bind'><bind xmlns='" + stanza.NSBind + "'><resource>c</resource></bind></iq>")
	s.until("bound", func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "bind" })
}

// A streamed is a socket that a client of the stream can use: what it writes are whole
// pieces of a stream.
type streamed struct {
	*socket
	mu   sync.Mutex
	rest []byte
}

func (s *streamed) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	const header = "<stream:stream xmlns='jabber:client' xmlns:stream='" + stanza.NSStream + "'>"
	text := b
	if !bytes.HasPrefix(b, []byte("<?xml")) {
		text = append([]byte(header), b...)
	}
	for scan := stanza.NewScanner(bytes.NewReader(text), stanza.Limits{Bytes: 1 << 20}); ; {
		st, err := scan.Next()
		if err != nil {
			return len(b), nil
		}
		switch st.Kind {
		case stanza.KindHeader:
			if h := stanza.HeaderOf(st); h.To != "" {
				m := stanza.AppendAttr([]byte("<open xmlns='"+nsFraming+"'"), "to", h.To)
				if h.From != "" {
					m = stanza.AppendAttr(m, "from", h.From)
				}
				s.send(string(m) + " version='1.0'/>")
			}
		case stanza.KindClose:
			s.send("<close xmlns='" + nsFraming + "'/>")
		case stanza.KindElement:
			e := st.Edit()
			e.Declare(st.Root(), []byte(" xmlns='jabber:client'"))
			s.send(string(e.AppendTo(nil)))
		}
	}
}

func (s *streamed) Read(b []byte) (int, error) {
	for len(s.rest) == 0 {
		st, err := s.next()
		if err != nil {
			return 0, io.EOF
		}
		switch {
		case st.Is(nsFraming, "open"):
			s.rest = stanza.HeaderOf(st).AppendTo(nil)
		case st.Is(nsFraming, "close"):
			s.rest = []byte(stanza.StreamClose)
		default:
			s.rest = bytes.Clone(st.Raw)
		}
	}
	n := copy(b, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// A secured is one over TLS.
type secured struct{ *streamed }

func (s secured) ConnectionState() tls.ConnectionState {
	return s.Conn.(*tls.Conn).ConnectionState()
}

// webbed has a client come by WebSocket.
func (b *box) webbed(secure bool, seen func([]byte)) func(*client.Config) {
	return func(cfg *client.Config) {
		cfg.Entry = client.Plain
		cfg.Dial = func(context.Context, string, string) (net.Conn, error) {
			s, err := b.dial(secure, nil)
			if err != nil {
				return nil, err
			}
			s.seen = seen
			x := &streamed{socket: s}
			if secure {
				return secured{x}, nil
			}
			return x, nil
		}
	}
}

func (b *box) loginWebbed(user string, secure bool, seen func([]byte)) *client.Client {
	b.t.Helper()
	c := b.open(user, b.webbed(secure, seen))
	if err := c.Login(); err != nil {
		b.t.Fatalf("%s: %v\n%s", user, err, b.log)
	}
	return c
}

// A client in a browser talks with somebody; each of its messages stands alone.
func TestWebSocket(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprint("tls ", secure), func(t *testing.T) {
			before := goroutines()
			s := startServer(t, server.Config{})
			home, away := startProxy(t, s, ""), startProxy(t, s, "")
			bob := away.login("bob", client.STARTTLS)
			var messages atomic.Int32
			alice := home.loginWebbed("alice", secure, func([]byte) { messages.Add(1) })
			for i := range 3 {
				alice.Say("bob@"+domain, fmt.Sprint("a", i), fmt.Sprintf("%s %d", typed, i))
			}
			for i := range 3 {
				text(t, bob, "alice@"+domain, fmt.Sprintf("%s %d", typed, i))
			}
			bob.Say("alice@"+domain, "b1", typed)
			text(t, alice, "bob@"+domain, typed)
			if _, err := alice.Notice("Private conversation with bob@" + domain); err != nil {
				t.Error(err)
			}
			st := statusOf(t, home).Sessions
			if len(st) != 1 || st[0].Entry != "websocket" || (st[0].ClientTLS != "") != secure || st[0].Login != "PLAIN" {
				t.Errorf("%+v", st)
			}
			seen := string(s.Received())
			for _, word := range []string{"hello", "quotes", "ü", "👍", "wonderland"} {
				if strings.Contains(seen, word) {
					t.Errorf("the server saw %q", word)
				}
			}
			if strings.Count(seen, "?OTR:") < 6 {
				t.Error("the server saw no OTR")
			}
			alice.Close()
			home.stop()
			away.stop()
			if n := messages.Load(); n < 8 {
				t.Errorf("%d messages", n)
			}
			bob.Drop()
			s.Close()
			for deadline := time.Now().Add(client.Patience); goroutines() > before; runtime.Gosched() { // one may be about to end
				if time.Now().After(deadline) {
					var b [1 << 16]byte
					t.Fatalf("%d goroutines became %d:\n%s", before, goroutines(), b[:runtime.Stack(b[:], true)])
				}
			}
		})
	}
}

// goroutines are those of the proxy.
func goroutines() int {
	b := make([]byte, 1<<20)
	return strings.Count(string(b[:runtime.Stack(b, true)]), "\notrproxy/proxy.")
}

// <open/> and <close/> stand for the stream's tags, and STARTTLS is not offered.
func TestWebSocketFraming(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	c := b.socket(false)
	c.send("<open xmlns='" + nsFraming + "' to='" + domain + "' version='1.0' xml:lang='de'/>")
	open := c.until("open", is(nsFraming, "open")).Root()
	if open.Attr("from") != domain || open.Attr("id") == "" || open.Attr("version") != "1.0" || open.HasChildren() {
		t.Errorf("%s", open.Raw())
	}
	features := c.until("features", is(stanza.NSStream, "features"))
	if bytes.Contains(features.Raw, []byte("starttls")) || !bytes.Contains(features.Raw, []byte("PLAIN")) {
		t.Errorf("%s", features.Raw)
	}
	c.send(plain("alice"))
	c.until("success", is(stanza.NSSASL, "success"))
	c.send("<o:open xmlns:o='" + nsFraming + "' to='" + domain + "' version='1.0' />\n")
	if again := c.until("open", is(nsFraming, "open")).Root(); again.Attr("id") == open.Attr("id") {
		t.Error("the stream did not begin anew")
	}
	c.until("features", is(stanza.NSStream, "features"))
	c.send("<close xmlns='" + nsFraming + "'/>")
	c.until("close", is(nsFraming, "close"))
	if _, err := c.next(); fmt.Sprint(err) != "closed: 1000 " {
		t.Error(err)
	}
}

// Frames may be split, and others come in between.
func TestWebSocketFrames(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	c := b.socket(false)
	c.logIn("alice")
	c.frame(ws.OpText, false, "<message xmlns='jabber:client' to='bob@"+domain+"' id='\xc3")
	c.frame(ws.OpPing, true, "in between")
	c.frame(ws.OpContinuation, false, "")
	c.frame(ws.OpContinuation, false, "\xbc'><bo")
	c.frame(ws.OpPong, true, "unasked")
	c.frame(ws.OpContinuation, true, "dy>!otr help</body></message>")
	if op, m, err := c.frames(); op != ws.OpPong || string(m) != "in between" {
		t.Fatalf("%v %s %v", op, m, err)
	}
	c.until("the answer", func(st *stanza.Stanza) bool { return strings.Contains(client.Body(st), "!otr status") })
	for _, word := range []string{"", "x", strings.Repeat("y", 125)} {
		c.frame(ws.OpPing, true, word)
		if op, m, err := c.frames(); op != ws.OpPong || string(m) != word {
			t.Fatalf("%v %s %v", op, m, err)
		}
	}
	c.send(" ", "", "\n")
	c.send("<iq xmlns='jabber:client' type='get' id='q'><query xmlns='jabber:iq:roster'/></iq>")
	c.until("the roster", func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "q" })
	c.frame(ws.OpClose, true, string(ws.NewCloseFrameBody(ws.StatusGoingAway, "")))
	if _, err := c.next(); fmt.Sprint(err) != "closed: 1001 " {
		t.Error(err)
	}
}

// What breaks the rules ends the stream, and the client is told why.
func TestWebSocketAbused(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "limits: {login: 10s, stanza: 20KiB}\n")
	other := b.login("bob", client.Plain)
	message := func(text string) string {
		return "<message xmlns='jabber:client' to='bob@" + domain + "' id='m'><body>" + text + "</body></message>"
	}
	_, header, _ := strings.Cut(string(stanza.Header{To: domain}.AppendTo(nil)), "?>")
	unmasked := func(c *socket) { ws.WriteFrame(c.Conn, ws.NewTextFrame([]byte(opening))) }
	for name, x := range map[string]struct {
		do        func(*socket) // behind the login where it is said to be
		condition string
		says      string
		login     bool
	}{
		"text first":            {func(c *socket) { c.send("hello") }, "not-well-formed", "text outside", false},
		"a stanza first":        {func(c *socket) { c.send(message("x")) }, "invalid-namespace", "header", false},
		"close first":           {func(c *socket) { c.send("<close xmlns='" + nsFraming + "'/>") }, "not-well-formed", "", false},
		"a stream header first": {func(c *socket) { c.send(header) }, "not-well-formed", "element", false},
		"open of nobody's":      {func(c *socket) { c.send("<open to='" + domain + "'/>") }, "not-well-formed", "header", false},
		"half an open":          {func(c *socket) { c.send("<open xmlns='"+nsFraming+"'", " to='"+domain+"'/>") }, "not-well-formed", "element", false},
		"open with a domain of nobody's": {func(c *socket) {
			c.send("<open xmlns='" + nsFraming + "' to='elsewhere.example'/>")
		}, "host-unknown", "elsewhere.example", false},
		"unmasked":     {unmasked, "policy-violation", "mask", false},
		"binary":       {func(c *socket) { c.frame(ws.OpBinary, true, opening) }, "policy-violation", "text", false},
		"reserved":     {func(c *socket) { c.frame(3, true, opening) }, "policy-violation", "WebSocket", false},
		"continuation": {func(c *socket) { c.frame(ws.OpContinuation, true, opening) }, "policy-violation", "WebSocket", false},
		"STARTTLS": {func(c *socket) {
			c.send(opening, "<starttls xmlns='"+stanza.NSTLS+"'/>")
		}, "not-authorized", "Log in first", false},
		"message before login": {func(c *socket) { c.send(opening, message("x")) }, "not-authorized", "Log in first", false},
		"a large frame":        {func(c *socket) { c.send(message(strings.Repeat("x", 40<<10))) }, "policy-violation", "large", true},
		"a large message": {func(c *socket) {
			c.frame(ws.OpText, false, "<message xmlns='jabber:client'><body>")
			for range 40 {
				c.frame(ws.OpContinuation, false, strings.Repeat("x", 1<<10))
			}
		}, "policy-violation", "large", true},
		"a message between the limits": {func(c *socket) { c.send(message(strings.Repeat("x", 21<<10))) }, "policy-violation", "20480 bytes", true},
		"no UTF-8":                     {func(c *socket) { c.send(message("\xff")) }, "not-well-formed", "UTF-8", true},
		"half a character":             {func(c *socket) { c.send("<message>\xc3") }, "not-well-formed", "UTF-8", true},
		"two stanzas":                  {func(c *socket) { c.send(message("x") + message("y")) }, "not-well-formed", "element", true},
		"half a stanza":                {func(c *socket) { c.send("<message xmlns='jabber:client'>", "</message>") }, "not-well-formed", "element", true},
		"text behind":                  {func(c *socket) { c.send("<presence xmlns='jabber:client'/>x") }, "not-well-formed", "", true},
		"a stream header":              {func(c *socket) { c.send(header) }, "not-well-formed", "element", true},
		"open again":                   {func(c *socket) { c.send(opening) }, "restricted-xml", "", true},
		"the end of a stream":          {func(c *socket) { c.send(stanza.StreamClose) }, "not-well-formed", "", true},
		"a comment":                    {func(c *socket) { c.send("<message xmlns='jabber:client'><!-- x --></message>") }, "restricted-xml", "", true},
		"a prefix of nobody's":         {func(c *socket) { c.send("<x:message/>") }, "not-well-formed", "", true},
		"no stanza":                    {func(c *socket) { c.send("<hello xmlns='jabber:client'/>") }, "unsupported-stanza-type", "", true},
		"binary in between":            {func(c *socket) { c.frame(ws.OpBinary, true, message("x")) }, "policy-violation", "text", true},
	} {
		c := b.socket(false)
		if x.login {
			c.logIn("alice")
		}
		go x.do(c)
		condition, says, how := c.ends()
		if condition != x.condition || !strings.Contains(says, x.says) || how == nil || how.code != ws.StatusNormalClosure {
			t.Errorf("%s: %s %q %v", name, condition, says, how)
		}
		c.Close()
	}
	if got := s.Received(); bytes.Contains(got, []byte("<body>")) {
		t.Errorf("the server received %s", got)
	}
	other.Say("bob@"+domain, "alive", "!otr status")
	if _, err := other.Notice("otrproxy test"); err != nil {
		t.Error(err)
	}
}

// Who may connect.
func TestWebSocketHandshake(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "origins: [\"https://Chat.example\"]\n")
	origin := func(o string) func(*ws.Dialer) {
		return func(d *ws.Dialer) { d.Header = ws.HandshakeHeaderHTTP(http.Header{"Origin": {o}}) }
	}
	host := func(h string) func(*ws.Dialer) { return func(d *ws.Dialer) { d.Host = h } }
	_, port, _ := net.SplitHostPort(b.addr)
	for name, x := range map[string]struct {
		with   func(*ws.Dialer)
		status int // 0 for let in
		tls    int
	}{
		"no Origin":                   {nil, 0, 0},
		"a page of this machine":      {origin("http://127.0.0.1:8080"), 0, 0},
		"and by its name":             {origin("http://localhost"), 0, 0},
		"and the other way":           {origin("http://[::1]:8080"), 0, 0},
		"listed":                      {origin("https://chat.example"), 0, 0},
		"listed, in capitals":         {origin("https://CHAT.example"), 0, 0},
		"listed, another port":        {origin("https://chat.example:8443"), 403, 403},
		"listed, without TLS":         {origin("http://chat.example"), 403, 403},
		"foreign":                     {origin("https://attacker.example"), 403, 403},
		"foreign, with our name":      {origin("http://localhost.attacker.example"), 403, 403},
		"foreign, with our address":   {origin("http://127.0.0.1.attacker.example"), 403, 403},
		"foreign, with our user":      {origin("http://localhost@attacker.example"), 403, 403},
		"null":                        {origin("null"), 403, 403},
		"a file":                      {origin("file://"), 403, 403},
		"an extension":                {origin("chrome-extension://abcdef"), 403, 403},
		"rebound":                     {host("attacker.example:" + port), 403, 0},
		"rebound, to its own Origin":  {func(d *ws.Dialer) { host("attacker.example")(d); origin("http://attacker.example")(d) }, 403, 403},
		"by our name":                 {host("localhost:" + port), 0, 0},
		"by our name, with a dot":     {host("localhost."), 0, 0},
		"by our address":              {host("[::1]:" + port), 0, 0},
		"by the name of a listed one": {host("chat.example"), 0, 0},
	} {
		for secure, want := range map[bool]int{false: x.status, true: x.tls} {
			c, err := b.dial(secure, x.with)
			status := 0
			var se ws.StatusError
			if errors.As(err, &se) {
				status = int(se)
			} else if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if status != want {
				t.Errorf("%s, TLS %v: %d, want %d", name, secure, status, want)
			}
			if c != nil {
				c.Close()
			}
		}
	}
	for _, protocols := range [][]string{nil, {"chat"}, {"XMPP"}} {
		c, err := b.dial(false, func(d *ws.Dialer) { d.Protocols = protocols })
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := c.next(); fmt.Sprint(err) != "closed: 1002 the subprotocol is xmpp (RFC 7395)" {
			t.Errorf("%v: %v", protocols, err)
		}
	}
	const upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n"
	for name, x := range map[string]struct {
		request string
		status  int // 0 for no answer
	}{
		"another path":      {"GET /ws HTTP/1.1\r\nHost: localhost\r\n" + upgrade, 404},
		"a path below":      {"GET /xmpp-websocket/x HTTP/1.1\r\nHost: localhost\r\n" + upgrade, 404},
		"a query":           {"GET /xmpp-websocket?x=y HTTP/1.1\r\nHost: localhost\r\n" + upgrade, 101},
		"plain GET":         {"GET /xmpp-websocket HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
		"plain GET of /":    {"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 404},
		"no Host":           {"GET /xmpp-websocket HTTP/1.1\r\n" + upgrade, 400},
		"POST":              {"POST /xmpp-websocket HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 0},
		"XMPP in a POST":    {"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200\r\n\r\n" + string(stanza.Header{To: domain}.AppendTo(nil)), 0},
		"too long a header": {"GET /xmpp-websocket HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 100<<10) + "\r\n" + upgrade, 0},
	} {
		if got := b.raw(x.request); got != x.status {
			t.Errorf("%s: %d, want %d", name, got, x.status)
		}
	}
	if got := s.Received(); len(got) > 0 {
		t.Errorf("the server received %s", got)
	}
}

// What is sent behind the handshake before it is answered is read, or refused; it is not
// lost in silence.
func TestWebSocketBehindHandshake(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "limits: {login: 5s}\n")
	c, err := net.Dial("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(client.Patience))
	const request = "GET /xmpp-websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n"
	c.Write(append([]byte(request), ws.MustCompileFrame(ws.MaskFrame(ws.NewTextFrame([]byte(opening))))...))
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 101 {
		return // refused
	}
	var got []byte
	for !bytes.Contains(got, []byte("<stream:features")) {
		h, err := ws.ReadHeader(r)
		m := make([]byte, h.Length)
		if _, rerr := io.ReadFull(r, m); err != nil || rerr != nil || bytes.Contains(m, []byte("<stream:error")) {
			t.Fatalf("it was lost: %s%s %v", got, m, err)
		}
		got = append(got, m...)
	}
}

// raw sends a request as it stands and returns the status of the answer, 0 for none.
func (b *box) raw(request string) int {
	c, err := net.Dial("tcp", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(client.Patience))
	go io.WriteString(c, request)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// A handshake or a login that takes too long is ended.
func TestWebSocketSlow(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "limits: {login: 1s}\n")
	for name, in := range map[string]string{"nothing": "G", "half a request": "GET /xmpp-websocket HTTP/1.1\r\nHost: localh"} {
		if status := b.raw(in); status != 0 {
			t.Errorf("%s: %d", name, status)
		}
	}
	c := b.socket(false)
	c.send(opening)
	if condition, _, how := c.ends(); condition != "connection-timeout" || how == nil || how.code != ws.StatusNormalClosure {
		t.Errorf("%s %v", condition, how)
	}
	c = b.socket(false) // and one that says nothing, or half of something
	c.frame(ws.OpText, false, "<open")
	if condition, _, _ := c.ends(); condition != "connection-timeout" {
		t.Errorf("%s", condition)
	}
}

// Over TLS an enrolled account's client binds its login to the connection.
func TestWebSocketEnrolled(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	if _, err := admin(t, b.p, "login enroll", "account", "alice@"+domain, "password", "wonderland"); err != nil {
		t.Fatal(err)
	}
	before := len(s.Received())
	for i, x := range []struct {
		secure             bool
		mechanism, binding string
	}{{false, "SCRAM-SHA-256", ""}, {true, "SCRAM-SHA-256-PLUS", "tls-exporter"}, {true, "SCRAM-SHA-256-PLUS", "tls-server-end-point"}, {true, "SCRAM-SHA-256", ""}} {
		c := b.open("alice", func(cfg *client.Config) {
			b.webbed(x.secure, nil)(cfg)
			cfg.From, cfg.Mechanism, cfg.Binding, cfg.Resource = true, x.mechanism, x.binding, fmt.Sprint("r", i)
		})
		if err := c.Login(); err != nil {
			t.Fatalf("%+v: offered %v: %v", x, offers(c), err)
		}
		all := statusOf(t, b).Sessions
		st := all[slices.IndexFunc(all, func(x control.SessionStatus) bool { return x.Resource == fmt.Sprint("r", i) })]
		if st.Login != strings.TrimSpace(x.mechanism+" "+x.binding) || st.Entry != "websocket" {
			t.Errorf("%+v", st)
		}
	}
	c := b.open("alice", func(cfg *client.Config) {
		b.webbed(true, nil)(cfg)
		cfg.From, cfg.Mechanism, cfg.Flag = true, "SCRAM-SHA-256", "y"
	})
	var le *client.LoginError
	if err := c.Login(); !errors.As(err, &le) || le.Condition != "not-authorized" {
		t.Errorf("a binding that was hidden: %v", err)
	}
	if bytes.Contains(s.Received()[before:], []byte("wonderland")) {
		t.Error("the server got the password")
	}
}

// What the server sends arrives as messages that mean the same by themselves.
func TestWebSocketFromServer(t *testing.T) {
	over, end := context.WithCancel(t.Context())
	s := startServer(t, server.Config{Script: func(conn net.Conn) {
		scan := stanza.NewScanner(conn, stanza.Limits{})
		scan.Next()
		io.WriteString(conn, "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='"+stanza.NSStream+"' xmlns:odd='urn:example:odd one' xmlns:x=\"urn:example:'x'\" from='"+domain+"' id='1' version='1.0'>"+
			"<stream:features><bind xmlns='"+stanza.NSBind+"'/></stream:features>")
		scan.Next()
		io.WriteString(conn, "<iq type='result' id='bind'><bind xmlns='"+stanza.NSBind+"'><jid>alice@"+domain+"/c</jid></bind></iq> \n"+
			"<message from='bob@"+domain+"/x' type='headline' id='prefixes'><odd:a x:b='c'><stream:error/></odd:a></message> "+
			"<presence from='bob@"+domain+"/x'><x:y stream:z='1'/></presence>\n\n"+
			"<presence xmlns='jabber:client' xmlns:x='urn:example:another' from='bob@"+domain+"/x' id='own'><x:y/></presence> ")
		<-over.Done()
		io.WriteString(conn, "<stream:error><reset xmlns='"+stanza.NSStreams+"'/><text xmlns='"+stanza.NSStreams+"'>it's over</text></stream:error></stream:stream>")
		io.Copy(io.Discard, conn)
	}})
	b := startProxy(t, s, "otr: [{policy: never}]\n")
	c := b.socket(false)
	c.logIn("alice")
	find := func(what string, st *stanza.Stanza, ns, local string) {
		t.Helper()
		for el := range st.Root().Descendants() {
			if el.Is(ns, local) {
				return
			}
		}
		t.Errorf("%s: no %s %s in %s", what, ns, local, st.Raw)
	}
	st, err := c.next() // white space is no message
	if err != nil {
		t.Fatal(err)
	}
	find("message", st, "urn:example:odd one", "a")
	find("message", st, stanza.NSStream, "error")
	if st, err = c.next(); err != nil {
		t.Fatal(err)
	}
	find("presence", st, "urn:example:'x'", "y")
	if st, err = c.next(); err != nil {
		t.Fatal(err)
	}
	find("presence of its own", st, "urn:example:another", "y")
	end()
	condition, says, how := c.ends()
	if condition != "reset" || !strings.Contains(says, "it's over") || how == nil || how.code != ws.StatusNormalClosure {
		t.Errorf("%s %q %v", condition, says, how)
	}
}

// When the proxy stops, what waits comes back, and the client is told.
func TestWebSocketShutdown(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	c := b.socket(true)
	c.logIn("alice")
	c.send("<message xmlns='jabber:client' to='carol@"+domain+"' id='waiting'><body>x</body></message>", "<message xmlns='jabber:client' to='carol@"+domain+"' id='last'><body>y</body></message>")
	c.send("<iq xmlns='jabber:client' type='get' id='behind'><query xmlns='jabber:iq:roster'/></iq>")
	c.until("the roster", func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "behind" })
	go b.stop()
	var back []string
	c.until("both", func(st *stanza.Stanza) bool {
		if st.Root().Attr("type") == "error" {
			back = append(back, st.Root().Attr("id"))
		}
		return len(back) == 2
	})
	if fmt.Sprint(back) != "[waiting last]" {
		t.Error(back)
	}
	if condition, _, how := c.ends(); condition != "system-shutdown" || how == nil || how.code != ws.StatusNormalClosure {
		t.Errorf("%s %v", condition, how)
	}
	c.Close()
	b.stop()
	// One that goes away without a word, or whose server does, holds nothing up either.
	b = startProxy(t, s, "")
	c = b.socket(false)
	c.logIn("alice")
	gone := b.socket(false)
	gone.logIn("bob")
	gone.Close()
	s.Cut()
	if condition, _, _ := c.ends(); condition != "remote-connection-failed" {
		t.Error(condition)
	}
	c.Close()
	b.stop()
}

// Whatever shape it has, no word reaches the server by this entry.
func TestWebSocketCanary(t *testing.T) {
	const word = "CANARYWORD"
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "otr: [{policy: require, allow: []}]\n")
	alice := b.loginWebbed("alice", false, nil)
	for name, shape := range shapes {
		alice.Send(strings.NewReplacer("W", word, "TO", "bob@"+domain).Replace(shape))
		alice.Send("<iq type='get' id='behind " + name + "'><query xmlns='jabber:iq:roster'/></iq>")
		if _, err := alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "behind "+name }); err != nil {
			alice.Drop() // some are no XMPP, and end the stream
			alice = b.loginWebbed("alice", false, nil)
		}
		if bytes.Contains(s.Received(), []byte(word)) {
			t.Fatalf("%s: the server got the word", name)
		}
	}
}
