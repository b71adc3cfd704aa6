package negotiate

import (
	"otrproxy/proxy/upstream"
	"otrproxy/stanza"
)

// offer sends our header and the features before the login, and does STARTTLS.
func (c *client) offer() error {
	for {
		b := append(c.open(nil), "<stream:features>"...)
		if !c.TLS && !c.Webbed {
			b = append(b, "<starttls xmlns='"+stanza.NSTLS+"'>"...)
			if !c.Local {
				b = append(b, "<required/>"...)
			}
			b = append(b, "</starttls>"...)
		}
		if c.TLS || c.Local {
			b = c.appendMechanisms(b)
			if c.registers() {
				b = append(b, "<register xmlns='"+upstream.NSRegisterFeature+"'/>"...)
			}
		}
		if _, err := c.Conn.Write(append(b, "</stream:features>"...)); err != nil {
			return err
		}
		if c.TLS || c.Webbed {
			return nil
		}
		st, err := c.next()
		if err != nil {
			return err
		}
		if !st.Is(stanza.NSTLS, "starttls") {
			if !c.Local {
				c.streamError("policy-violation", "This address speaks TLS only; turn on encryption in the client.")
				return errEnded
			}
			c.scan.Unread()
			return nil
		}
		if !blank(c.scan.Buffered()) {
			c.n.Log.Warn("a client sent bytes in clear behind STARTTLS")
			c.streamError("policy-violation", "otrproxy: there were bytes behind the request for STARTTLS, which somebody may have put there.")
			return errEnded
		}
		if _, err := c.Conn.Write([]byte("<proceed xmlns='" + stanza.NSTLS + "'/>")); err != nil {
			return err
		}
		if err := c.Secure(c.domain.Name); err != nil {
			c.n.Log.Info("a client's TLS handshake failed", "err", err)
			return err
		}
		c.Entry, c.id = c.By+"starttls", ""
		if err := c.header(); err != nil {
			return err
		}
	}
}

// appendMechanisms offers the ways to log in here: PLAIN, and for enrolled accounts
// SCRAM, over TLS bound to it (with its kinds, XEP-0440).
func (c *client) appendMechanisms(b []byte) []byte {
	b = append(b, "<mechanisms xmlns='"+stanza.NSSASL+"'>"...)
	bindings := c.bindings()
	names := c.n.Logins.Provers(c.domain.Name, c.from, c.Place())
	if len(bindings) > 0 {
		for _, name := range names {
			b = append(b, "<mechanism>"+name+"-PLUS</mechanism>"...)
		}
	}
	for _, name := range append(names, "PLAIN") {
		b = append(b, "<mechanism>"+name+"</mechanism>"...)
	}
	b = append(b, "</mechanisms>"...)
	if len(names) == 0 || len(bindings) == 0 {
		return b
	}
	b = append(b, "<sasl-channel-binding xmlns='"+upstream.NSChannelBinding+"'>"...)
	for _, x := range bindings {
		b = append(b, "<channel-binding type='"+x.Type+"'/>"...)
	}
	return append(b, "</sasl-channel-binding>"...)
}

// registers reports whether accounts can be made (XEP-0077): where the server is not
// reached yet, that shows when somebody asks.
func (c *client) registers() bool {
	if c.up == nil {
		return true
	}
	_, ok := c.up.Features.Root().Child(upstream.NSRegisterFeature, "register")
	return ok
}
