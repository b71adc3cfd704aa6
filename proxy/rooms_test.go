package proxy_test

import (
	"bytes"
	"strings"
	"testing"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/stanza"
)

const (
	groupchatRule = "otr: [{policy: require, allow: [groupchat]}]\n"
	letIn         = "<x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='none' role='participant'/><status code='110'/></x>"
)

// joins has alice come into a room, or what a server says is one.
func joins(t *testing.T, s *server.Server, alice *client.Client, room string) {
	t.Helper()
	alice.Send("<presence to='" + room + "/alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
	seen(alice)
	fromServer(t, s, alice, "<presence from='"+room+"/alice'>"+letIn+"</presence>")
}

// No server makes a room of a contact: not by an invitation that the client follows, nor
// by saying that it has come in.
func TestContactIsNoRoom(t *testing.T) {
	for name, how := range map[string]func(*testing.T, *server.Server, *client.Client){
		"refused": func(t *testing.T, s *server.Server, alice *client.Client) {
			alice.Send("<presence to='bob@example.org/alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
			seen(alice)
			fromServer(t, s, alice, "<presence from='bob@example.org/alice' type='error'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>")
		},
		"nothing said": func(t *testing.T, s *server.Server, alice *client.Client) {
			alice.Send("<presence to='bob@example.org/alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
			seen(alice)
		},
		"let in": func(t *testing.T, s *server.Server, alice *client.Client) { joins(t, s, alice, "bob@"+domain) },
		"taken off the list": func(t *testing.T, s *server.Server, alice *client.Client) {
			fromServer(t, s, alice, "<iq type='set' id='r'><query xmlns='jabber:iq:roster'><item jid='bob@example.org' subscription='remove'/></query></iq>")
			joins(t, s, alice, "bob@"+domain)
		},
		"a domain of rooms": func(t *testing.T, s *server.Server, alice *client.Client) {
			alice.Send("<iq type='get' id='" + server.NoAnswer + "' to='example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>")
			seen(alice)
			fromServer(t, s, alice, "<iq type='result' id='"+server.NoAnswer+"' from='example.org'><query xmlns='http://jabber.org/protocol/disco#info'><identity category='conference' type='text'/></query></iq>")
			joins(t, s, alice, "bob@"+domain)
		},
	} {
		for _, rules := range []string{"", groupchatRule} {
			s := startServer(t, server.Config{})
			home, away := startProxy(t, s, rules), startProxy(t, s, "")
			bob := away.login("bob", client.Plain)
			alice := home.login("alice", client.Plain)
			alice.Say("bob@"+domain, "1", "hello")
			text(t, bob, "alice@"+domain, "hello")
			how(t, s, alice)
			for _, typ := range []string{"chat", "groupchat", "normal"} {
				if got := allRaw(fromServer(t, s, alice, "<message from='bob@example.org/r' type='"+typ+"'><body>FORGED</body></message>")); !strings.Contains(got, "Not encrypted: FORGED") {
					t.Errorf("%s, %q: %s is shown as %s", name, rules, typ, got)
				}
			}
			bob.Say("alice@"+domain, "2", "private answer")
			for { // what was forged stands before it
				got, err := alice.Text("bob@" + domain)
				if err != nil {
					t.Errorf("%s, %q: bob's encrypted text is lost: %v", name, rules, err)
				}
				if err != nil || got == "private answer" {
					break
				}
			}
			alice.Send("<message to='bob@example.org' id='g' type='groupchat'><body>QcanaryZ</body></message>")
			st, err := alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "g" })
			if err != nil || st.Root().Attr("type") != "error" {
				t.Errorf("%s, %q: what is said in a room of a contact's address is not refused: %v", name, rules, err)
			}
			if bytes.Contains(s.Received(), []byte("QcanaryZ")) {
				t.Errorf("%s, %q: it left in clear", name, rules)
			}
		}
	}
}

// A room is one that has let the client in, until it leaves or is thrown out; then it is
// an address as any other.
func TestRoomAsLongAsInside(t *testing.T) {
	const room = "tea@conf.example"
	s := startServer(t, server.Config{})
	alice := startProxy(t, s, groupchatRule).login("alice", client.Plain)
	said := func() bool {
		return strings.Contains(allRaw(fromServer(t, s, alice, "<message from='"+room+"/bob' type='groupchat'><body>tea?</body></message>")), "<body>tea?</body>")
	}
	if said() {
		t.Error("before it was asked for")
	}
	fromServer(t, s, alice, "<presence from='"+room+"/alice'>"+letIn+"</presence>")
	if said() {
		t.Error("the server alone says so")
	}
	joins(t, s, alice, room)
	if !said() {
		t.Error("inside, and what is said is marked")
	}
	fromServer(t, s, alice, "<presence from='"+room+"/carol' type='error'><error type='cancel'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>")
	fromServer(t, s, alice, "<presence from='"+room+"/dora' type='error'><error type='cancel'><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>")
	if !said() {
		t.Error("another name was refused, and the client is inside still")
	}
	fromServer(t, s, alice, "<presence from='"+room+"/alice' type='unavailable'><x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='none' role='none' nick='ally'/><status code='303'/><status code='110'/></x></presence>")
	if !said() {
		t.Error("under another name, and the client is inside still")
	}
	thrown := "<presence from='" + room + "/alice' type='unavailable'><x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='none' role='none'/><status code='307'/><status code='110'/></x></presence>"
	if got := allRaw(fromServer(t, s, alice, thrown)); strings.TrimSpace(got) != thrown {
		t.Errorf("the client is not told that it was thrown out: %s", got)
	}
	if said() {
		t.Error("thrown out")
	}
	joins(t, s, alice, room)
	alice.Send("<presence to='" + room + "/alice' type='unavailable'/>")
	seen(alice)
	if said() {
		t.Error("the client has left")
	}
	if got := allRaw(fromServer(t, s, alice, thrown)); strings.TrimSpace(got) != thrown {
		t.Errorf("the client is not told that it has left: %s", got)
	}
	joins(t, s, alice, room)
	fromServer(t, s, alice, "<presence from='"+room+"/alice' type='error'><error type='auth'><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>")
	if said() {
		t.Error("refused afterwards")
	}
	joins(t, s, alice, room)
	fromServer(t, s, alice, "<iq type='set' id='p'><query xmlns='jabber:iq:roster'><item jid='"+room+"' subscription='none'/></query></iq>")
	if said() {
		t.Error("it is on the list of contacts")
	}
}

// Of a service for rooms that was met, all rooms may be asked for their members, settings
// and registration, and for voice, where the rule allows rooms; no text to one person
// leaves, though.
func TestRoomsNotJoined(t *testing.T) {
	for _, met := range []string{"by disco", "joined before", "not at all"} {
		s := startServer(t, server.Config{})
		alice := startProxy(t, s, groupchatRule).login("alice", client.Plain)
		switch met {
		case "by disco":
			alice.Send("<iq type='get' id='" + server.NoAnswer + "' to='conf.example'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>")
			seen(alice)
			fromServer(t, s, alice, "<iq type='result' id='"+server.NoAnswer+"' from='conf.example'><query xmlns='http://jabber.org/protocol/disco#info'><identity category='conference' type='text' name='Rooms'/></query></iq>")
		case "joined before":
			joins(t, s, alice, "coffee@conf.example")
			alice.Send("<presence to='coffee@conf.example/alice' type='unavailable'/>")
		}
		for name, raw := range map[string]string{
			"members":  `<iq id='ID' to='tea@conf.example' type='set'><query xmlns='http://jabber.org/protocol/muc#admin'><item affiliation='member' jid='bob@example.org'/></query></iq>`,
			"destroy":  `<iq id='ID' to='tea@conf.example' type='set'><query xmlns='http://jabber.org/protocol/muc#owner'><destroy/></query></iq>`,
			"register": `<iq id='ID' to='tea@conf.example' type='set'><query xmlns='jabber:iq:register'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#register</value></field><field var='muc#register_roomnick'><value>Anna B</value></field></x></query></iq>`,
			"voice":    `<message id='ID' to='tea@conf.example'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#request</value></field><field var='muc#role' type='list-single'><value>participant</value></field></x></message>`,
		} {
			id := strings.ReplaceAll(met+name, " ", "")
			errored, _, up := fate(t, s, alice, id, strings.Replace(raw, "ID", id, 1))
			if left := strings.Contains(up, "id='"+id+"'"); left != (met != "not at all") || met == "not at all" && !errored {
				t.Errorf("%s, %s: left %v, refused %v", met, name, left, errored)
			}
		}
		for _, body := range []string{"<body>QcanaryZ</body>", "<body>QcanaryZ</body><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#request</value></field></x>",
			"<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#request</value></field><field var='QcanaryZ'><value>QcanaryZ QcanaryZ</value></field></x>"} {
			errored, _, up := fate(t, s, alice, "pm", "<message id='pm' to='tea@conf.example/bob' type='chat'>"+body+"</message>")
			if strings.Contains(up, "QcanaryZ") {
				t.Errorf("%s: a text left: %s", met, up)
			}
			if !errored && met != "not at all" {
				t.Errorf("%s: neither left nor refused: %s", met, body)
			}
		}
	}
	// The own server's domain has people, whatever it says.
	s := startServer(t, server.Config{})
	alice := startProxy(t, s, groupchatRule).login("alice", client.Plain)
	alice.Send("<iq type='get' id='" + server.NoAnswer + "' to='example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>")
	seen(alice)
	fromServer(t, s, alice, "<iq type='result' id='"+server.NoAnswer+"' from='example.org'><query xmlns='http://jabber.org/protocol/disco#info'><identity category='conference' type='text'/></query></iq>")
	if _, _, up := fate(t, s, alice, "own", "<iq id='own' to='carol@example.org' type='set'><query xmlns='jabber:iq:register'><username>QcanaryZ</username></query></iq>"); strings.Contains(up, "QcanaryZ") {
		t.Error("the own server made a room of a person")
	}
}

// An invitation passes written anew, whatever prefixes it came with, and with nothing in it
// that no invitation has.
func TestInvitationIsWrittenAnew(t *testing.T) {
	c := onStage(t, groupchatRule, func(*stage) {})
	c.send([]string{"<message xmlns:u='http://jabber.org/protocol/muc#user' to='bob@example.org' id='i'><u:x><u:invite to='bob@example.org'><u:reason>tea</u:reason></u:invite><u:QcanaryZ>QcanaryZ</u:QcanaryZ></u:x><x xmlns='jabber:x:conference' jid='tea@conf.example' QcanaryZ='QcanaryZ'>QcanaryZ</x></message>",
		"<message to='bob@example.org' id='again'><x xmlns='jabber:x:conference' jid='tea@conf.example'/></message>"})
	up := string(c.s.Received())
	if strings.Contains(up, "QcanaryZ") || !strings.Contains(up, "<reason>tea</reason>") || !strings.Contains(up, "id='again'") {
		t.Errorf("the server got %s", up[max(0, len(up)-1500):])
	}
}

// Somebody the person never wrote to, taken off the list of contacts by the server, is no
// room either.
func TestUnlistedContactIsNoRoom(t *testing.T) {
	c := onStage(t, "", func(*stage) {})
	fromServer(t, c.s, c.alice, "<iq type='set' id='p0'><query xmlns='jabber:iq:roster'><item jid='dora@example.org' subscription='both'/></query></iq><iq type='set' id='p1'><query xmlns='jabber:iq:roster'><item jid='dora@example.org' subscription='remove'/></query></iq>")
	joins(t, c.s, c.alice, "dora@example.org")
	if got := allRaw(fromServer(t, c.s, c.alice, "<message from='dora@example.org/c' type='chat'><body>pay mallory</body></message>")); !strings.Contains(got, "Not encrypted: pay mallory") {
		t.Errorf("shown as %s", got)
	}
	// Nor by another spelling, which some programs read as the same.
	fromServer(t, c.s, c.alice, "<iq type='set' id='p2'><query xmlns='jabber:iq:roster'><item jid='ro\u00df@example.org' subscription='both'/></query></iq>")
	joins(t, c.s, c.alice, "ross@example.org")
	if got := allRaw(fromServer(t, c.s, c.alice, "<message from='ross@example.org/c' type='chat'><body>pay mallory</body></message>")); !strings.Contains(got, "Not encrypted: pay mallory") {
		t.Errorf("another spelling is shown as %s", got)
	}
}

// A text to one person in a room does not leave beside an invitation.
func TestTextBesideAnInvitationStays(t *testing.T) {
	for name, beside := range map[string]string{"direct": "<x xmlns='jabber:x:conference' jid='r2@conf.example'/>", "mediated": "<x xmlns='http://jabber.org/protocol/muc#user'><invite to='d@e.example'/></x>"} {
		for _, to := range []string{"room@conf.example/bob", "room@conf.example", "bob@example.org"} {
			c := onStage(t, groupchatRule, func(*stage) {})
			joins(t, c.s, c.alice, "room@conf.example")
			c.send([]string{"<message to='" + to + "' type='chat' id='pm'><body>QcanaryZ</body>" + beside + "</message>"})
			if up := string(c.s.Received()); strings.Contains(up, "QcanaryZ") || !strings.Contains(up, "id='pm'") {
				t.Errorf("%s to %s: left %v, in clear %v", name, to, strings.Contains(up, "id='pm'"), strings.Contains(up, "QcanaryZ"))
			}
		}
	}
}

// Whoever wrote to somebody in a room before coming in has no private conversation with
// the room: each occupant would answer for all. What waited for one comes back.
func TestNoConversationWithARoom(t *testing.T) {
	for _, rules := range []string{"otr: [{policy: opportunistic}]\n", groupchatRule} {
		c := onStage(t, rules, func(*stage) {})
		c.send([]string{"<message to='tea@conf.example/bob' type='chat' id='early'><body>hi bob</body></message>"})
		c.alice.Send("<presence to='tea@conf.example/alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
		seen(c.alice)
		returned := strings.Contains(allRaw(fromServer(t, c.s, c.alice, "<presence from='tea@conf.example/alice'>"+letIn+"</presence>")), "you are in the room tea@conf.example now")
		if returned != (rules == groupchatRule) {
			t.Errorf("%q: what waited came back: %v", rules, returned)
		}
		c.send(nil) // what was asked for before it was a room has arrived
		before := len(c.s.Received())
		got := allRaw(fromServer(t, c.s, c.alice, "<message from='tea@conf.example/eve' type='chat'><body>?OTRv23?</body></message><message from='tea@conf.example/eve' type='chat'><body>psst</body></message>"))
		c.send(nil)
		if up := string(c.s.Received()[before:]); strings.Contains(up, "?OTR") {
			t.Errorf("%q: a room is answered as a contact: %s", rules, up)
		}
		if !strings.Contains(got, "psst") || rules == groupchatRule && !strings.Contains(got, ourMark+"psst") {
			t.Errorf("%q: shown as %s", rules, got)
		}
		c.send([]string{"<message to='tea@conf.example/eve' type='chat' id='pm'><body>QcanaryZ</body></message>"})
		if left := strings.Contains(string(c.s.Received()), "QcanaryZ"); left != (rules != groupchatRule) {
			t.Errorf("%q: a text to an occupant left: %v", rules, left)
		}
	}
}
