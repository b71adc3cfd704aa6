//go:build linux

package real

import (
	"strings"
	"testing"

	"otrproxy/demo/client"
	"otrproxy/stanza"
)

// A talk is two people at clients that we write ourselves, connected to one otrproxy.
type talk struct {
	t          *testing.T
	anna, bert *client.Client
}

func startTalk(t *testing.T, s *xmppServer, rules string) *talk {
	t.Helper()
	h := startOTRProxy(t, s, rules)
	enter := func(user string) *client.Client {
		c, err := client.Dial(t.Context(), client.Config{Addr: h.addr, JID: user + "@" + s.domain, Password: "secret", Resource: "r", Entry: client.STARTTLS})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		c.Send("<presence/>")
		return c
	}
	return &talk{t, enter("anna"), enter("bert")}
}

// gets waits for a stanza of some kind, type, id and sender; "" is any.
func (k *talk) gets(c *client.Client, kind, typ, id, from string) *stanza.Stanza {
	k.t.Helper()
	st, err := c.Wait(func(st *stanza.Stanza) bool {
		r := st.Root()
		return string(r.Local()) == kind && (typ == "any" || r.Attr("type") == typ) && (id == "" || r.Attr("id") == id) && strings.HasPrefix(r.Attr("from"), from)
	})
	if err != nil {
		k.t.Fatalf("no <%s type=%q id=%q from=%q>: %v", kind, typ, id, from, err)
	}
	return st
}

// Rooms as people and their programs use them, with encryption required: joining, history,
// members of a room one is not in, registration, voice, names with emoji, calls and data in
// messages; what was said is there, in clear and without the mark, for rooms are clear.
func TestRoomsOnProsody(t *testing.T) {
	s := startProsody(t, "starttls")
	s.register(t, "anna", "bert")
	k := startTalk(t, s, "otr: [{policy: require, allow: [groupchat, files]}]\n")
	const room = "tea@rooms.one.test"
	anna, bert := k.anna, k.bert

	anna.Send("<presence to='" + room + "/Anna'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
	k.gets(anna, "presence", "", "", room+"/Anna")
	k.gets(anna, "message", "groupchat", "", room) // the subject
	anna.Send("<iq id='cfg' to='" + room + "' type='get'><query xmlns='http://jabber.org/protocol/muc#owner'/></iq>")
	if form := k.gets(anna, "iq", "result", "cfg", room); !strings.Contains(string(form.Raw), "muc#roomconfig_moderatedroom") {
		t.Errorf("the room's settings: %s", form.Raw)
	}
	anna.Send("<iq id='set' to='" + room + "' type='set'><query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#roomconfig</value></field><field var='muc#roomconfig_moderatedroom'><value>1</value></field></x></query></iq>")
	k.gets(anna, "iq", "result", "set", room)
	anna.Send("<message to='" + room + "' type='groupchat' id='said'><body>who is for tea?</body></message>")
	if st := k.gets(anna, "message", "groupchat", "said", room); client.Body(st) != "who is for tea?" {
		t.Errorf("one's own words come back as %s", st.Raw)
	}

	// His name has U+FE0F, which servers map to nothing.
	bert.Send("<presence to='" + room + "/Herbert \u2764\ufe0f'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
	k.gets(bert, "presence", "", "", room+"/Anna")
	if st := k.gets(bert, "message", "groupchat", "", room+"/Anna"); client.Body(st) != "who is for tea?" {
		t.Errorf("history: %s", st.Raw)
	}
	k.gets(bert, "message", "groupchat", "", room) // the subject
	bert.Send("<message to='" + room + "' id='voice'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#request</value></field><field var='muc#role' type='list-single'><value>participant</value></field></x></message>")
	if _, err := anna.Wait(func(st *stanza.Stanza) bool { return strings.Contains(string(st.Raw), "muc#request_allow") }); err != nil {
		t.Errorf("the request for voice: %v", err)
	}

	// The room's archive.
	bert.Send("<iq id='mam' to='" + room + "' type='set'><query xmlns='urn:xmpp:mam:2' queryid='q1'/></iq>")
	if st := k.gets(bert, "message", "", "", room); !strings.Contains(string(st.Raw), ">who is for tea?<") {
		t.Errorf("out of the room's archive: %s", st.Raw)
	}
	k.gets(bert, "iq", "result", "mam", room)

	bert.Send("<presence to='" + room + "/Herbert \u2764\ufe0f' type='unavailable'/>")
	k.gets(bert, "presence", "unavailable", "", room)

	anna.Send("<iq id='mem' to='" + room + "' type='set'><query xmlns='http://jabber.org/protocol/muc#admin'><item affiliation='member' jid='bert@one.test'/></query></iq>")
	k.gets(anna, "iq", "result", "mem", room)

	// While he is not in: registration, with a form that has words in it.
	bert.Send("<iq id='reg0' to='" + room + "' type='get'><query xmlns='jabber:iq:register'/></iq>")
	k.gets(bert, "iq", "result", "reg0", room)
	bert.Send("<iq id='reg1' to='" + room + "' type='set'><query xmlns='jabber:iq:register'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#register</value></field><field var='muc#register_roomnick'><value>Bert</value></field></x></query></iq>")
	k.gets(bert, "iq", "result", "reg1", room)
	bert.Send("<message to='" + room + "/Anna' type='chat' id='pm0'><body>psst</body></message>")
	if st := k.gets(bert, "message", "error", "pm0", room); !strings.Contains(string(st.Raw), "not in the room") {
		t.Errorf("a text to somebody in a room he is not in: %s", st.Raw)
	}

	// An owner who is not in the room.
	bert.Send("<presence to='" + room + "/Bert'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
	k.gets(bert, "presence", "", "", room+"/Bert")
	anna.Send("<presence to='" + room + "/Anna' type='unavailable'/>")
	k.gets(anna, "presence", "unavailable", "", room+"/Anna")
	anna.Send("<iq id='list' to='" + room + "' type='get'><query xmlns='http://jabber.org/protocol/muc#admin'><item affiliation='member'/></query></iq>")
	if st := k.gets(anna, "iq", "any", "list", room); !strings.Contains(string(st.Raw), "bert@one.test") {
		t.Errorf("the room's members: %s", st.Raw)
	}
	anna.Send("<iq id='gone' to='" + room + "' type='set'><query xmlns='http://jabber.org/protocol/muc#owner'><destroy><reason>no tea left</reason></destroy></query></iq>")
	k.gets(anna, "iq", "result", "gone", room)
	if st := k.gets(bert, "presence", "unavailable", "", room+"/Bert"); !strings.Contains(string(st.Raw), "[otrproxy] Not encrypted: no tea left") {
		t.Errorf("the room's end: %s", st.Raw)
	}

	// Calls, and data in messages.
	anna.Send("<message to='bert@one.test/r' id='ibb'><data xmlns='http://jabber.org/protocol/ibb' sid='s' seq='0'>dGhpcw==</data></message>")
	if st := k.gets(bert, "message", "any", "ibb", "anna@one.test"); !strings.Contains(string(st.Raw), "dGhpcw==") {
		t.Errorf("data: %s", st.Raw)
	}
	anna.Send("<message to='bert@one.test' type='chat' id='call'><propose xmlns='urn:xmpp:jingle-message:0' id='c1'><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/></propose><store xmlns='urn:xmpp:hints'/></message>")
	if st := k.gets(bert, "message", "chat", "call", "anna@one.test"); !strings.Contains(string(st.Raw), "media='audio'") {
		t.Errorf("a call: %s", st.Raw)
	}
}

// Under never, an answer that nobody has asked for passes (RFC 6121 section 8.5.3.1).
func TestUnsolicitedAnswerOnProsody(t *testing.T) {
	s := startProsody(t, "starttls")
	s.register(t, "anna", "bert")
	k := startTalk(t, s, "otr: [{policy: never}]\n")
	k.anna.Send("<iq type='result' id='x1' to='bert@one.test/r'/>")
	k.gets(k.bert, "iq", "result", "x1", "anna@one.test/r")
}
