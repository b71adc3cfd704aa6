package relay

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/moby/sys/atomicwriter"
	"mellium.im/xmpp/jid"

	"otrproxy/otrlayer/keyring"
	"otrproxy/proxy/address"
	"otrproxy/proxy/control"
	"otrproxy/proxy/leg"
	"otrproxy/stanza"
)

// The service contact is the proxy itself, as a contact that only its own people see:
// its address is found among the server's services (XEP-0030), can be put on the list
// of contacts, reads commands in a chat and offers them in menus (adhoc.go). Nothing to
// or from it passes to the server, which never learns of it.

const nsCommands = "http://jabber.org/protocol/commands"

// service is what a client sends to the proxy itself.
func (s *Session) service(st *stanza.Stanza, local string) {
	root := st.Root()
	switch local {
	case "message":
		if body, ok := root.Child(stanza.NSClient, "body"); ok && root.Attr("type") != "error" {
			line := strings.TrimPrefix(strings.TrimSpace(body.Text()), control.CommandWord)
			s.say(address.ServiceJID, s.as(control.InService, ""), strings.TrimSpace(line))
		}
	case "presence":
		s.serviceSubscribed(root.Attr("type"))
	case "iq":
		s.serviceIQ(root)
	}
}

// answer sends a result of the service contact's.
func (s *Session) answer(root stanza.Element, payload func([]byte) []byte) {
	s.client.Build(func(b []byte) []byte {
		b = stanza.AppendAttr(append(b, "<iq type='result'"...), "from", root.Attr("to"))
		b = append(stanza.AppendAttr(stanza.AppendAttr(b, "to", s.full()), "id", root.Attr("id")), '>')
		return append(payload(b), "</iq>"...)
	})
	s.client.Kick()
}

func (s *Session) serviceIQ(root stanza.Element) {
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
		s.discoInfo(root, info.Attr("node"))
	case isItems && typ == "get":
		s.discoItems(root, items.Attr("node"))
	case isCommand && typ == "set":
		s.adHoc(root, cmd)
	case isPing && typ == "get":
		s.answer(root, func(b []byte) []byte { return b })
	case isVersion && typ == "get":
		s.answer(root, func(b []byte) []byte {
			b = append(b, "<query xmlns='jabber:iq:version'><name>otrproxy</name><version>"...)
			return append(stanza.AppendEscaped(b, s.r.Version), "</version></query>"...)
		})
	default:
		s.refuse(root, stanza.Error{Type: "cancel", Condition: "service-unavailable"})
	}
}

func (s *Session) discoInfo(root stanza.Element, node string) {
	identity := "<identity category='client' type='bot' name='" + address.ServiceName + "'/>"
	features := []string{nsDiscoInfo, nsDiscoItems, nsCommands, "urn:xmpp:ping", "jabber:iq:version"}
	cmd := s.commands().Get(node)
	switch {
	case node == "":
	case node == nsCommands:
		identity = "<identity category='automation' type='command-list' name='" + address.ServiceName + "'/>"
	case cmd != nil && cmd.May(s.actor()):
		identity = string(append(stanza.AppendAttr([]byte("<identity category='automation' type='command-node'"), "name", cmd.Entry()), "/>"...))
		features = []string{nsCommands, nsData}
	default:
		s.refuse(root, stanza.Error{Type: "cancel", Condition: "item-not-found"})
		return
	}
	s.answer(root, func(b []byte) []byte {
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

func (s *Session) discoItems(root stanza.Element, node string) {
	if node != "" && node != nsCommands {
		s.refuse(root, stanza.Error{Type: "cancel", Condition: "item-not-found"})
		return
	}
	s.answer(root, func(b []byte) []byte {
		b = append(b, "<query xmlns='"+nsDiscoItems+"'"...)
		if node == "" { // there is nothing below
			return append(b, "/>"...)
		}
		b = append(stanza.AppendAttr(b, "node", node), '>')
		table := s.commands()
		for i := range table {
			if c := &table[i]; c.May(s.actor()) {
				b = append(b, "<item jid='"+address.ServiceJID+"'"...)
				b = append(stanza.AppendAttr(stanza.AppendAttr(b, "node", c.Name), "name", c.Entry()), "/>"...)
			}
		}
		return append(b, "</query>"...)
	})
}

// as is the person at this client, in a place.
func (s *Session) as(place control.Place, contact string) control.Actor {
	return control.Actor{Place: place, Account: s.jid, Contact: contact, Admin: s.r.config().IsAdmin(s.jid) && s.stranger.Load() == nil && s.r.Logins.VouchedFor(s.jid)}
}

// actor is the person at this client, in its menus.
func (s *Session) actor() control.Actor {
	return s.as(control.InMenu, "")
}

// found adds the service contact to what the server says of its services.
func (s *Session) found(e *stanza.Edit, st *stanza.Stanza, query stanza.Element) *stanza.Edit {
	if e == nil {
		e = st.Edit()
	}
	e.Append(query, []byte("<item xmlns='"+nsDiscoItems+"' jid='"+address.ServiceJID+"' name='"+address.ServiceName+"'/>"))
	return e
}

// withoutUs removes what somebody else says about the service contact from a list, and
// says how many items that were.
func (s *Session) withoutUs(e *stanza.Edit, st *stanza.Stanza, query stanza.Element) (edited *stanza.Edit, n int) {
	if !mentionsUs(query.Raw()) || s.r.config().HandsOff(s.jid) {
		return e, 0
	}
	for item := range query.Children() {
		if a := s.r.addresses.Of(item, "jid"); !address.Ours(a) && !a.Mimics {
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

// What an account remembers of the service contact stands in a file, a word a line.
const (
	serviceFile = "service"
	greeted     = "greeted"    // it has said who it is
	listed      = "listed"     // it is on the list of contacts
	aware       = "recognised" // it has said that it recognises the password
)

// remembered reports whether a word stands in the account's file of the service contact.
func (s *Session) remembered(word string) bool {
	b, _ := os.ReadFile(filepath.Join(keyring.Dir(s.r.dir, s.jid), serviceFile))
	return slices.Contains(strings.Fields(string(b)), word)
}

// recall writes a word there, or removes it.
func (s *Session) recall(word string, yes bool) {
	path := filepath.Join(keyring.Dir(s.r.dir, s.jid), serviceFile)
	s.r.recalling.Lock()
	defer s.r.recalling.Unlock()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // what could not be read is not to be overwritten
		s.r.log.Warn("what the service contact has said could not be remembered", "account", s.r.log.Name(s.jid))
		return
	}
	words := slices.DeleteFunc(strings.Fields(string(b)), func(w string) bool { return w == word })
	if yes {
		words = append(words, word)
	}
	text := strings.Join(words, "\n") + "\n"
	if err := atomicwriter.WriteFile(path, []byte(text), 0o600); err != nil {
		s.r.log.Warn("what the service contact has said could not be remembered", "account", s.r.log.Name(s.jid))
	}
}

// arrived greets a client that has just come, once for each account, and is there for it
// where it is on its list of contacts.
func (s *Session) arrived() {
	if s.r.config().HandsOff(s.jid) {
		return
	}
	defer s.greetsStrangers()
	if s.stranger.Load() != nil {
		return
	}
	s.Account().Arrived(s)
	if line := s.r.TurnedAway.tell(s.jid); line != "" {
		s.Say(address.ServiceJID, line)
	}
	if s.r.config().IsAdmin(s.jid) && !s.r.Logins.VouchedFor(s.jid) {
		s.Say(address.ServiceJID, "You are one of admins, and so far only the server says that this is you. Whoever runs otrproxy confirms it once: otrproxy login confirm "+s.jid)
	}
	if s.remembered(listed) {
		s.servicePresence("")
	}
	s.tellOfPin()
	if s.remembered(greeted) {
		if s.first && !s.remembered(aware) {
			s.recall(aware, true)
			s.Say(address.ServiceJID, firstPassword)
		}
		return
	}
	s.recall(greeted, true)
	s.recall(aware, true)
	s.Say(address.ServiceJID, "This is otrproxy, which stands between your program and its server and encrypts what you write to people. I am a contact that only you can see; "+
		"put me on your list of contacts if you like. In any conversation, a line that begins with !otr is for me and never leaves this machine; here, leave that word out. "+
		"Write help for the commands, or status to see how things stand. If a contact is to be sure that it is you, they need your fingerprint: write key. "+
		firstPassword)
}

// firstPassword is said once, when a password is the first that is known here of an account.
const firstPassword = "I recognise your password from now on. Whoever logs in as you with another one sees nothing private until you say that it was you."

// servicePresence is how the service contact is seen on a list of contacts.
func (s *Session) servicePresence(typ string) {
	s.client.Build(func(b []byte) []byte {
		from := address.ServiceJID
		if typ == "" { // Gajim takes a contact for offline that has no resource
			from += "/" + address.ServiceName
		}
		b = stanza.AppendAttr(stanza.AppendAttr(append(b, "<presence"...), "from", from), "to", s.full())
		if typ != "" {
			return append(stanza.AppendAttr(b, "type", typ), "/>"...)
		}
		return append(b, "><status>write help</status></presence>"...)
	})
	s.client.Kick()
}

// serviceSubscribed answers the wish to see the service contact's presence.
func (s *Session) serviceSubscribed(typ string) {
	switch typ {
	case "subscribe":
		s.list(true)
		s.servicePresence("subscribed")
		s.servicePresence("")
	case "unsubscribe":
		s.list(false)
		s.servicePresence("unsubscribed")
	case "probe":
		if s.remembered(listed) {
			s.servicePresence("")
		}
	}
}

// list puts the service contact on the account's list of contacts, or off it. The list
// that the server keeps knows nothing of that.
func (s *Session) list(yes bool) {
	if s.stranger.Load() != nil { // it is on their list only for as long as they are here
		return
	}
	s.recall(listed, yes)
	for _, other := range s.r.SessionsOf(s.jid) {
		other.rosterPush(yes)
	}
}

// rosterPush tells the client of it (RFC 6121 section 2.1.6).
func (s *Session) rosterPush(yes bool) {
	subscription := "remove"
	if yes {
		subscription = "both"
	}
	id := ownID + leg.NewID()
	s.mu.Lock()
	if s.pushed == nil || len(s.pushed) > 100 {
		s.pushed = map[string]bool{}
	}
	s.pushed[id] = true
	s.mu.Unlock()
	s.client.Build(func(b []byte) []byte {
		b = append(stanza.AppendAttr(stanza.AppendAttr(append(b, "<iq type='set'"...), "to", s.full()), "id", id), '>')
		return append(b, "<query xmlns='"+nsRoster+"'><item jid='"+address.ServiceJID+"' name='"+address.ServiceName+"' subscription='"+subscription+"'/></query></iq>"...)
	})
	s.client.Kick()
}

// answersPush reports whether an answer is to a push of ours.
func (s *Session) answersPush(id []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.pushed[string(id)]
	if was {
		delete(s.pushed, string(id))
	}
	return was
}

// aboutUs handles a request to the server that is about the service contact: what a
// client does with any contact, such as putting it on its list, asking for its archive,
// or remembering what was read of it. The server hears nothing of that. It reports
// whether there is nothing left to ask the server; else e is the request without it.
func (s *Session) aboutUs(st *stanza.Stanza) (e *stanza.Edit, over bool) {
	root := st.Root()
	typ := root.Attr("type")
	if typ != "get" && typ != "set" || !mentionsUs(st.Raw) || s.r.config().HandsOff(s.jid) {
		return nil, false
	}
	left, listed := false, "" // other items beside those; what is wanted of our own
	inside := func(p stanza.Element) {
		ours, others := map[string]bool{}, map[string]bool{}
		for c := range p.Children() {
			name := string(c.Name())
			if !namesUs(c) {
				others[name] = true
				continue
			}
			if ours[name] = true; e == nil {
				e = st.Edit()
			}
			e.Remove(c)
			if c.Is(nsRoster, "item") && typ == "set" {
				listed = "yes"
				if c.Attr("subscription") == "remove" {
					listed = "no"
				}
			}
		}
		for name := range ours {
			left = left || others[name]
		}
	}
	inside(root)
	for p := range root.Descendants() {
		inside(p)
	}
	if e == nil {
		return nil, false
	}
	if listed != "" {
		s.list(listed == "yes")
	}
	for c := range root.Children() { // these replace what is there as a whole
		left = left || typ == "set" && (c.Is("jabber:iq:private", "query") || c.Is("jabber:iq:privacy", "query"))
	}
	if left {
		return e, false
	}
	s.settleAboutUs(root, typ)
	return nil, true
}

// mentionsUs reports whether a stanza may be about the service contact at all: most are
// not worth a closer look.
func mentionsUs(raw []byte) bool {
	lower := bytes.ToLower(raw)
	return bytes.Contains(raw, []byte("&#")) || bytes.Contains(lower, []byte("localhost")) || bytes.Contains(lower, []byte(address.ServiceName))
}

// namesUs reports whether an element itself is about the service contact: an attribute
// of it that can be an address, or all of its text where that can be one, is the
// contact's address. A name that a person has given somebody else is none.
func namesUs(el stanza.Element) bool {
	is := func(raw string) bool {
		if len(raw) > 4000 || !strings.Contains(strings.ToLower(raw), "localhost") && strings.IndexFunc(raw, func(r rune) bool { return r >= utf8.RuneSelf }) < 0 {
			return false
		}
		raw = strings.TrimSpace(raw)
		if rest, ok := strings.CutPrefix(raw, "xmpp:"); ok {
			raw, _, _ = strings.Cut(rest, "?")
		}
		j, err := jid.Parse(raw)
		return err == nil && address.Ours(address.JID{Bare: j.Bare().String()})
	}
	for name := range el.AttrNames() {
		switch name {
		case "name", "label", "title", "desc", "reason":
		default:
			if is(el.Attr(name)) {
				return true
			}
		}
	}
	switch string(el.Local()) {
	case "value", "with", "jid", "user":
		return is(el.Text())
	}
	return false
}

// settleAboutUs answers a request that the server does not get.
func (s *Session) settleAboutUs(root stanza.Element, typ string) {
	for el := range root.Children() {
		if ns := string(el.NS()); strings.HasPrefix(ns, "urn:xmpp:mam:") {
			s.result(root, "<fin xmlns='"+ns+"' complete='true'><set xmlns='http://jabber.org/protocol/rsm'><count>0</count></set></fin>")
			return
		}
	}
	if typ == "get" {
		s.refuse(root, stanza.Error{Type: "cancel", Condition: "item-not-found"})
		return
	}
	s.result(root, "")
}

// result answers a request as the account's server would.
func (s *Session) result(root stanza.Element, payload string) {
	s.client.Build(func(b []byte) []byte {
		b = append(stanza.AppendAttr(stanza.AppendAttr(append(b, "<iq type='result'"...), "to", s.full()), "id", root.Attr("id")), '>')
		return append(append(b, payload...), "</iq>"...)
	})
	s.client.Kick()
}
