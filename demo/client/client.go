// Package client is a small XMPP client without any OTR, for tests and for the
// demo.
package client

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"otrproxy/stanza"
)

// Entry says how a client begins.
type Entry string

// The ways to connect.
const (
	Plain    Entry = "plain"
	STARTTLS Entry = "starttls"
	Direct   Entry = "direct"
)

// Config says whom to log in where.
type Config struct {
	Addr     string
	JID      string // bare
	Password string
	Resource string
	Entry    Entry
	TLS      *tls.Config // nil: any certificate, SNI of the domain
	Quiet    bool        // no roster request and no presence
	Manual   bool        // the caller reads with Next; Wait and what builds on it must not be used
	Pipeline string      // sent in one write with the request to bind a resource
	Declared string      // further declarations in the stream header
	From     bool        // the stream header says whose it is

	// Mechanism is how to log in; "" for PLAIN. Binding is the kind of channel binding of a
	// -PLUS, and Flag another gs2 flag than "n" for a SCRAM without.
	Mechanism, Binding, Flag string

	Dial func(ctx context.Context, network, addr string) (net.Conn, error) // nil for this machine's network; what it returns may be over TLS
}

// A Client is logged in until Close.
type Client struct {
	cfg  Config
	conn net.Conn
	tls  interface{ ConnectionState() tls.ConnectionState } // nil without
	scan *stanza.Scanner
	JID  string // full

	Offered  *stanza.Stanza // features of the latest stream
	Features *stanza.Stanza // of the stream after the login

	mu     sync.Mutex
	cond   sync.Cond
	got    []*stanza.Stanza // stanzas nobody has waited for yet
	err    error
	sendMu sync.Mutex
}

// A StreamError is how a server or proxy ended the stream.
type StreamError struct{ Condition, Text string }

func (e *StreamError) Error() string { return e.Condition + ": " + e.Text }

// A LoginError is a refused login.
type LoginError struct{ Condition, Text string }

func (e *LoginError) Error() string { return e.Condition + ": " + e.Text }

// Open connects and negotiates up to where a login is possible.
func Open(ctx context.Context, cfg Config) (*Client, error) {
	dial := cfg.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	conn, err := dial(ctx, "tcp", cfg.Addr)
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, conn: conn}
	c.tls, _ = conn.(interface{ ConnectionState() tls.ConnectionState })
	c.cond.L = &c.mu
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	} else {
		conn.SetDeadline(time.Now().Add(30 * time.Second))
	}
	if err := c.open(); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *Client) domain() string { return c.cfg.JID[strings.IndexByte(c.cfg.JID, '@')+1:] }

func (c *Client) open() error {
	if c.cfg.Entry == Direct {
		if err := c.secure(); err != nil {
			return err
		}
	}
	if _, err := c.header(); err != nil {
		return err
	}
	if c.cfg.Entry != STARTTLS {
		return nil
	}
	c.Send("<starttls xmlns='" + stanza.NSTLS + "'/>")
	st, err := c.read()
	if err != nil {
		return err
	}
	if !st.Is(stanza.NSTLS, "proceed") {
		return fmt.Errorf("starttls refused: %s", st.Raw)
	}
	if err := c.secure(); err != nil {
		return err
	}
	_, err = c.header()
	return err
}

func (c *Client) secure() error {
	cfg := c.cfg.TLS
	if cfg == nil {
		cfg = &tls.Config{InsecureSkipVerify: true, ServerName: c.domain()}
	}
	if c.cfg.Entry == Direct {
		cfg = cfg.Clone()
		cfg.NextProtos = []string{"xmpp-client"}
	}
	t := tls.Client(c.conn, cfg)
	if err := t.Handshake(); err != nil {
		return err
	}
	c.conn, c.tls = t, t
	return nil
}

// header opens a stream and returns the features.
func (c *Client) header() (*stanza.Stanza, error) {
	c.scan = stanza.NewScanner(c.conn, stanza.Limits{Bytes: 4 << 20})
	from := ""
	if c.cfg.From {
		from = c.cfg.JID
	}
	c.conn.Write(stanza.Header{To: c.domain(), From: from, Declared: []byte(c.cfg.Declared)}.AppendTo(nil))
	if _, err := c.scan.Next(); err != nil {
		return nil, err
	}
	st, err := c.read()
	if err != nil {
		return nil, err
	}
	if !st.Is(stanza.NSStream, "features") {
		return nil, fmt.Errorf("no features: %s", st.Raw)
	}
	c.Offered = st
	return st, nil
}

// read returns the next element during the negotiation.
func (c *Client) read() (*stanza.Stanza, error) {
	for {
		st, err := c.scan.Next()
		if err != nil {
			return nil, err
		}
		if st.Kind == stanza.KindSpace {
			continue
		}
		if st.Kind == stanza.KindClose {
			return nil, errors.New("stream closed")
		}
		if e := streamError(st); e != nil {
			return nil, e
		}
		return st.Clone(), nil
	}
}

func streamError(st *stanza.Stanza) error {
	if !st.Is(stanza.NSStream, "error") {
		return nil
	}
	condition, text := failure(st)
	return &StreamError{condition, text}
}

// failure reads the condition and text of a stream or login failure.
func failure(st *stanza.Stanza) (condition, text string) {
	for ch := range st.Root().Children() {
		if string(ch.Local()) == "text" {
			text = ch.Text()
		} else {
			condition = string(ch.Local())
		}
	}
	return condition, text
}

// Login logs in, binds, and comes online.
func (c *Client) Login() error {
	if c.cfg.Mechanism != "" {
		if err := c.scram(); err != nil {
			return err
		}
		return c.bind()
	}
	user := c.user()
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + c.cfg.Password))
	c.Send("<auth xmlns='" + stanza.NSSASL + "' mechanism='PLAIN'>" + plain + "</auth>")
	st, err := c.read()
	if err != nil {
		return err
	}
	if !st.Is(stanza.NSSASL, "success") {
		condition, text := failure(st)
		return &LoginError{condition, text}
	}
	return c.bind()
}

func (c *Client) user() string { return c.cfg.JID[:strings.IndexByte(c.cfg.JID, '@')] }

// bind goes on behind the login.
func (c *Client) bind() (err error) {
	if c.Features, err = c.header(); err != nil {
		return err
	}
	res := ""
	if c.cfg.Resource != "" {
		res = "<resource>" + c.cfg.Resource + "</resource>"
	}
	c.Send("<iq type='set' id='bind'><bind xmlns='" + stanza.NSBind + "'>" + res + "</bind></iq>" + c.cfg.Pipeline)
	for {
		st, err := c.read()
		if err != nil {
			return err
		}
		if b, ok := st.Root().Child(stanza.NSBind, "bind"); ok {
			j, _ := b.Child(stanza.NSBind, "jid")
			c.JID = j.Text()
			break
		}
	}
	c.conn.SetDeadline(time.Time{})
	if c.cfg.Manual {
		return nil
	}
	go c.receive()
	if !c.cfg.Quiet {
		c.Send("<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>")
		if _, err := c.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "roster" }); err != nil {
			return err
		}
		c.Send("<presence/>")
	}
	return nil
}

// Dial opens and logs in.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	c, err := Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := c.Login(); err != nil {
		c.conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *Client) receive() {
	for {
		st, err := c.scan.Next()
		if err == nil && st.Kind == stanza.KindElement {
			err = streamError(st)
		}
		if err == nil && st.Kind == stanza.KindClose {
			err = errors.New("stream closed")
		}
		c.mu.Lock()
		if err != nil {
			c.err = err
			c.cond.Broadcast()
			c.mu.Unlock()
			return
		}
		if st.Kind == stanza.KindElement {
			c.got = append(c.got, st.Clone())
			c.cond.Broadcast()
		}
		c.mu.Unlock()
	}
}

// Next reads the next piece of the stream, for a Manual client.
func (c *Client) Next() (*stanza.Stanza, error) { return c.scan.Next() }

// Patience is how long Wait waits.
const Patience = 20 * time.Second

// Wait returns the first stanza that fits and has not been returned before; those
// that do not fit stay.
func (c *Client) Wait(fits func(*stanza.Stanza) bool) (*stanza.Stanza, error) {
	deadline := time.Now().Add(Patience)
	t := time.AfterFunc(Patience, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.cond.Broadcast()
	})
	defer t.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		for i, st := range c.got {
			if fits(st) {
				c.got = append(c.got[:i:i], c.got[i+1:]...)
				return st, nil
			}
		}
		if c.err != nil {
			return nil, c.err
		}
		if !time.Now().Before(deadline) {
			return nil, errors.New("waited in vain")
		}
		c.cond.Wait()
	}
}

// Body is a message's text.
func Body(st *stanza.Stanza) string {
	if !st.Is(stanza.NSClient, "message") {
		return ""
	}
	b, ok := st.Root().Child(stanza.NSClient, "body")
	if !ok {
		return ""
	}
	return b.Text()
}

// Notice reports whether a message is one of the proxy's own lines.
func Notice(st *stanza.Stanza) bool { return strings.HasPrefix(Body(st), "[otrproxy] ") }

// Text waits for the next message of a contact that is no notice, and returns it.
func (c *Client) Text(from string) (string, error) {
	st, err := c.Wait(func(st *stanza.Stanza) bool {
		bare, _, _ := strings.Cut(st.Root().Attr("from"), "/")
		return bare == from && Body(st) != "" && !Notice(st) && st.Root().Attr("type") != "error"
	})
	if err != nil {
		return "", err
	}
	return Body(st), nil
}

// Notice waits for a line of the proxy that holds a text.
func (c *Client) Notice(part string) (string, error) {
	st, err := c.Wait(func(st *stanza.Stanza) bool { return Notice(st) && strings.Contains(Body(st), part) })
	if err != nil {
		return "", err
	}
	return Body(st), nil
}

// Say sends a chat message.
func (c *Client) Say(to, id, text string) {
	c.Send(string(stanza.Message{To: to, ID: id, Type: "chat", Body: text}.AppendTo(nil)))
}

// Send writes bytes as they are.
func (c *Client) Send(raw string) error {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	_, err := c.conn.Write([]byte(raw))
	return err
}

// Err waits for the stream's end and returns why.
func (c *Client) Err() error {
	_, err := c.Wait(func(*stanza.Stanza) bool { return false })
	return err
}

// Ended reports whether the stream is over.
func (c *Client) Ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err != nil
}

// Close ends the stream and the connection.
func (c *Client) Close() {
	c.Send(stanza.StreamClose)
	c.conn.Close()
}

// Drop closes the connection without a word.
func (c *Client) Drop() { c.conn.Close() }

// Request sends an iq before the login and returns the answer.
func (c *Client) Request(iq string) (*stanza.Stanza, error) {
	if err := c.Send(iq); err != nil {
		return nil, err
	}
	return c.read()
}
