package service

import (
	"context"
	"strings"
	"sync"

	"otrproxy/proxy/address"
	"otrproxy/proxy/control"
	"otrproxy/proxy/filter"
	"otrproxy/proxy/journal"
	"otrproxy/proxy/leg"
	"otrproxy/stanza"
)

// Namespaces.
const (
	nsCommands   = "http://jabber.org/protocol/commands"
	nsData       = filter.NSData
	nsDiscoInfo  = filter.NSDiscoInfo
	nsDiscoItems = filter.NSDiscoItems
	nsRoster     = filter.NSRoster
)

// A Service is what the service contacts of all clients share.
type Service struct {
	ctx       context.Context // ends with the proxy
	log       *journal.Journal
	dir       string // the state directory
	version   string
	addresses *address.Cache

	recalling sync.Mutex // guards what accounts remember
}

// New is for the accounts of a state directory.
func New(ctx context.Context, log *journal.Journal, dir, version string, addresses *address.Cache) *Service {
	return &Service{ctx: ctx, log: log, dir: dir, version: version, addresses: addresses}
}

// A Client is the program that sees a Contact.
type Client interface {
	FullJID() string
	Stranger() bool         // it has not shown yet that it is the account's person
	HandsOff() bool         // the rules leave its account alone
	Everywhere() []*Contact // as all clients of the account's person see it

	Deliver(stanza func([]byte) []byte) // sends it a stanza
	Refuse(root stanza.Element, e stanza.Error)
	Answer(line string) // does what a line says that was written to the contact

	Actor(control.Place) control.Actor
	Commands() control.Table
	Talking() []string // contacts there is something to do about
}

// A Contact is the proxy, as one client sees it on its list of contacts.
type Contact struct {
	service *Service
	client  Client
	account string // bare JID

	mu     sync.Mutex
	pushed map[string]bool // ids of our roster pushes that were not answered yet; mu guards it
}

// Meet has a client see the contact. It is to be called once, before anything else.
func (c *Contact) Meet(s *Service, account string, client Client) {
	c.service, c.account, c.client = s, account, client
}

// Take is what a client sends to the proxy itself.
func (c *Contact) Take(st *stanza.Stanza, local string) {
	root := st.Root()
	switch local {
	case "message":
		if body, ok := root.Child(stanza.NSClient, "body"); ok && root.Attr("type") != "error" {
			line := strings.TrimPrefix(strings.TrimSpace(body.Text()), control.CommandWord)
			c.client.Answer(strings.TrimSpace(line))
		}
	case "presence":
		c.subscribed(root.Attr("type"))
	case "iq":
		c.request(root)
	}
}

// answer sends a result of the service contact's.
func (c *Contact) answer(root stanza.Element, payload func([]byte) []byte) {
	c.client.Deliver(func(b []byte) []byte {
		b = stanza.AppendAttr(append(b, "<iq type='result'"...), "from", root.Attr("to"))
		b = append(stanza.AppendAttr(stanza.AppendAttr(b, "to", c.client.FullJID()), "id", root.Attr("id")), '>')
		return append(payload(b), "</iq>"...)
	})
}

// request answers what asks the contact for something.
func (c *Contact) request(root stanza.Element) {
	typ := root.Attr("type")
	if typ != "get" && typ != "set" {
		return
	}
	info, isInfo := root.Child(nsDiscoInfo, "query")
	items, isItems := root.Child(nsDiscoItems, "query")
	cmd, isCommand := root.Child(nsCommands, "command")
	_, isPing := root.Child("urn:xmpp:ping", "ping")
	_, isVersion := root.Child("jabber:iq:version", "query")
	switch {
	case isInfo && typ == "get":
		c.discoInfo(root, info.Attr("node"))
	case isItems && typ == "get":
		c.discoItems(root, items.Attr("node"))
	case isCommand && typ == "set":
		c.adHoc(root, cmd)
	case isPing && typ == "get":
		c.answer(root, func(b []byte) []byte { return b })
	case isVersion && typ == "get":
		c.answer(root, func(b []byte) []byte {
			b = append(b, "<query xmlns='jabber:iq:version'><name>otrproxy</name><version>"...)
			return append(stanza.AppendEscaped(b, c.service.version), "</version></query>"...)
		})
	default:
		c.client.Refuse(root, stanza.Error{Type: "cancel", Condition: "service-unavailable"})
	}
}

// presence is how the service contact is seen on a list of contacts.
func (c *Contact) presence(typ string) {
	c.client.Deliver(func(b []byte) []byte {
		from := address.ServiceJID
		if typ == "" { // Gajim takes a contact for offline that has no resource
			from += "/" + address.ServiceName
		}
		b = stanza.AppendAttr(stanza.AppendAttr(append(b, "<presence"...), "from", from), "to", c.client.FullJID())
		if typ != "" {
			return append(stanza.AppendAttr(b, "type", typ), "/>"...)
		}
		return append(b, "><status>write help</status></presence>"...)
	})
}

// Appear has the contact be there for a client that has just come, where it is on the list.
func (c *Contact) Appear() {
	if c.Remembers(Listed) {
		c.presence("")
	}
}

// subscribed answers the wish to see the service contact's presence.
func (c *Contact) subscribed(typ string) {
	switch typ {
	case "subscribe":
		c.list(true)
		c.presence("subscribed")
		c.presence("")
	case "unsubscribe":
		c.list(false)
		c.presence("unsubscribed")
	case "probe":
		c.Appear()
	}
}

// list puts the service contact on the account's list of contacts, or off it. The list
// that the server keeps knows nothing of that.
func (c *Contact) list(yes bool) {
	if c.client.Stranger() { // it is on their list only for as long as they are here
		return
	}
	c.Remember(Listed, yes)
	for _, each := range c.client.Everywhere() {
		each.Push(yes)
	}
}

// Push tells the client of it (RFC 6121 section 2.1.6).
func (c *Contact) Push(yes bool) {
	subscription := "remove"
	if yes {
		subscription = "both"
	}
	id := leg.OwnID + leg.NewID()
	c.mu.Lock()
	if c.pushed == nil || len(c.pushed) > 100 {
		c.pushed = map[string]bool{}
	}
	c.pushed[id] = true
	c.mu.Unlock()
	c.client.Deliver(func(b []byte) []byte {
		b = append(stanza.AppendAttr(stanza.AppendAttr(append(b, "<iq type='set'"...), "to", c.client.FullJID()), "id", id), '>')
		return append(b, "<query xmlns='"+nsRoster+"'><item jid='"+address.ServiceJID+"' name='"+address.ServiceName+"' subscription='"+subscription+"'/></query></iq>"...)
	})
}

// Answers reports whether an answer is to a push of ours.
func (c *Contact) Answers(id []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.pushed[string(id)]
	if was {
		delete(c.pushed, string(id))
	}
	return was
}
