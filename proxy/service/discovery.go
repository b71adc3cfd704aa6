package service

import (
	"otrproxy/proxy/address"
	"otrproxy/proxy/control"
	"otrproxy/stanza"
)

func (c *Contact) discoInfo(root stanza.Element, node string) {
	identity := "<identity category='client' type='bot' name='" + address.ServiceName + "'/>"
	features := []string{nsDiscoInfo, nsDiscoItems, nsCommands, "urn:xmpp:ping", "jabber:iq:version"}
	cmd := c.client.Commands().Get(node)
	switch {
	case node == "":
	case node == nsCommands:
		identity = "<identity category='automation' type='command-list' name='" + address.ServiceName + "'/>"
	case cmd != nil && cmd.May(c.client.Actor(control.InMenu)):
		identity = string(append(stanza.AppendAttr([]byte("<identity category='automation' type='command-node'"), "name", cmd.Entry()), "/>"...))
		features = []string{nsCommands, nsData}
	default:
		c.client.Refuse(root, stanza.Error{Type: "cancel", Condition: "item-not-found"})
		return
	}
	c.answer(root, func(b []byte) []byte {
		b = append(b, "<query xmlns='"+nsDiscoInfo+"'"...)
		if node != "" {
			b = stanza.AppendAttr(b, "node", node)
		}
		b = append(append(b, '>'), identity...)
		for _, f := range features {
			b = append(b, "<feature var='"+f+"'/>"...)
		}
		return append(b, "</query>"...)
	})
}

func (c *Contact) discoItems(root stanza.Element, node string) {
	if node != "" && node != nsCommands {
		c.client.Refuse(root, stanza.Error{Type: "cancel", Condition: "item-not-found"})
		return
	}
	c.answer(root, func(b []byte) []byte {
		b = append(b, "<query xmlns='"+nsDiscoItems+"'"...)
		if node == "" { // there is nothing below
			return append(b, "/>"...)
		}
		b = append(stanza.AppendAttr(b, "node", node), '>')
		table := c.client.Commands()
		for i := range table {
			if cmd := &table[i]; cmd.May(c.client.Actor(control.InMenu)) {
				b = append(b, "<item jid='"+address.ServiceJID+"'"...)
				b = append(stanza.AppendAttr(stanza.AppendAttr(b, "node", cmd.Name), "name", cmd.Entry()), "/>"...)
			}
		}
		return append(b, "</query>"...)
	})
}

// Found adds the service contact to what the server says of its services.
func (c *Contact) Found(e *stanza.Edit, st *stanza.Stanza, query stanza.Element) *stanza.Edit {
	if e == nil {
		e = st.Edit()
	}
	e.Append(query, []byte("<item xmlns='"+nsDiscoItems+"' jid='"+address.ServiceJID+"' name='"+address.ServiceName+"'/>"))
	return e
}

// Unclaimed removes what somebody else says about the service contact from a list, and
// says how many items that were.
func (c *Contact) Unclaimed(e *stanza.Edit, st *stanza.Stanza, query stanza.Element) (edited *stanza.Edit, n int) {
	if !mentionsUs(query.Raw()) || c.client.HandsOff() {
		return e, 0
	}
	for item := range query.Children() {
		if a := c.service.addresses.Of(item, "jid"); !address.Ours(a) && !a.Mimics {
			continue
		}
		if e == nil {
			e = st.Edit()
		}
		e.Remove(item)
		n++
	}
	return e, n
}
