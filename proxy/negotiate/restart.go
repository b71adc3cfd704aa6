package negotiate

import (
	"encoding/base64"
	"time"

	"otrproxy/otrlayer"
	"otrproxy/proxy/causes"
	"otrproxy/proxy/relay"
	"otrproxy/proxy/upstream"
	"otrproxy/stanza"
)

// restart opens both streams anew after the login (RFC 6120 section 6.4.6). The
// declarations in each header travel with it to the other side, for the stanzas'
// meaning depends on them.
func (c *client) restart(account *otrlayer.Account, how string) (*relay.Session, error) {
	u := c.up
	if !blank(c.scan.Buffered()) {
		c.streamError("policy-violation", "otrproxy: there were bytes behind the login, before its answer.")
		return nil, errEnded
	}
	success := "<success xmlns='" + stanza.NSSASL + "'/>"
	if c.last != "" {
		success = "<success xmlns='" + stanza.NSSASL + "'>" + base64.StdEncoding.EncodeToString([]byte(c.last)) + "</success>"
	}
	if _, err := c.Conn.Write([]byte(success)); err != nil {
		return nil, err
	}
	if len(u.Scan.Buffered()) > 0 {
		c.id = ""
		c.failed(causes.New(causes.FailProtocol, nil, "The server of %s sent something behind the end of the login.", c.domain.Name))
		return nil, errEnded
	}
	c.id = ""
	if err := c.header(); err != nil {
		return nil, err
	}
	u.ExpectStream(c.n.serverLimits())
	if f := u.OpenStream(stanza.Header{To: c.domain.Name, Declared: c.scan.Declared()}); f != nil {
		c.n.Servers.Move(c.domain, account.JID(), upstream.SentBy(f))
		c.failed(f)
		return nil, errEnded
	}
	// From here on the outboxes set deadlines, for each write.
	c.Raw.SetDeadline(time.Time{})
	u.Conn.SetDeadline(time.Time{})
	s := relay.NewSession(c.n.Relay, c.arrival(account, how))
	b := append(c.open(u.Scan.Declared()), "<stream:features>"...)
	b = appendFeatures(b, u.Features)
	u.Features = nil // of no more use, and sessions are many
	s.Opens(append(b, "</stream:features>"...))
	return s, nil
}

// arrival is what the session is to know of the client and its login.
func (c *client) arrival(account *otrlayer.Account, how string) relay.Arrival {
	return relay.Arrival{Account: account, Host: c.Host(), Place: c.Place(), Entry: c.Entry, Entered: c.entered, How: how, TLSVersion: c.TLSVersion, Conn: c.Conn, Wire: c.Wire, In: c.in, Scan: c.scan, Up: c.up,
		Stranger: c.stranger, First: c.first, Password: c.password, Seat: c.seat, Epoch: c.epoch}
}
