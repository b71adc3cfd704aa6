package negotiate

import (
	"context"

	"otrproxy/proxy/upstream"
	"otrproxy/stanza"
)

// register passes one request of in-band registration to the server, over the
// checked connection, and its answer back.
func (c *client) register(ctx context.Context, st *stanza.Stanza) error {
	if _, ok := st.Root().Child("jabber:iq:register", "query"); !ok {
		c.streamError("not-authorized", "Log in first.")
		return errEnded
	}
	id := st.Root().Attr("id")
	raw := st.Raw
	if d := c.scan.Declared(); len(d) > 0 { // this early stream does not carry the client's declarations
		e := st.Edit()
		e.Declare(st.Root(), d)
		raw = e.AppendTo(nil)
	}
	if f := c.reach(ctx, ""); f != nil {
		c.failed(f)
		return errEnded
	}
	u := c.up
	if !c.registers() {
		_, err := c.Conn.Write(stanza.AppendError(nil, "iq", c.domain.Name, "", id, stanza.Error{Type: "cancel", Condition: "service-unavailable", Text: "The server of " + c.domain.Name + " makes no accounts for those who ask."}))
		return err
	}
	if _, err := u.Conn.Write(raw); err != nil {
		c.failed(upstream.Lost(c.domain, err))
		return errEnded
	}
	for {
		answer, f := u.Next()
		if f != nil {
			c.failed(f)
			return errEnded
		}
		if answer.Is(stanza.NSClient, "iq") && answer.Root().Attr("id") == id {
			_, err := c.Conn.Write(answer.Raw)
			return err
		}
	}
}
