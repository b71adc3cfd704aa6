package proxy_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"otrproxy/demo/client"
	"otrproxy/demo/server"
	"otrproxy/stanza"
)

// fromServer sends raw stanzas to alice as if the server had routed them, and
// returns what reached her client up to a marker behind them.
func fromServer(t *testing.T, s *server.Server, alice *client.Client, raw string) (got []*stanza.Stanza) {
	t.Helper()
	s.Send("alice", raw+endOfTest)
	return upToEnd(t, alice)
}

const endOfTest = "<message from='example.org' id='end-of-test'/>"

// upToEnd returns what has reached a client before that.
func upToEnd(t *testing.T, alice *client.Client) (got []*stanza.Stanza) {
	t.Helper()
	for {
		st, err := alice.Wait(func(*stanza.Stanza) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		if st.Root().Attr("id") == "end-of-test" {
			return got
		}
		got = append(got, st)
	}
}

func TestSpoofing(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	alice := b.login("alice", client.Plain)
	carbon := func(from string) string {
		return fmt.Sprintf(`<message from='%s' to='alice@example.org/c'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='bob@example.org/x' to='alice@example.org/d' type='chat'><body>BODY</body></message></forwarded></received></message>`, from)
	}
	for name, c := range map[string]struct {
		raw  string
		want string // in what reaches the client; "" for nothing
	}{
		"own carbon":                {carbon("alice@example.org"), "BODY"},
		"forged carbon":             {carbon("mallory@example.org"), ""},
		"forged carbon from self":   {carbon("alice@example.org/evil"), ""},
		"OTR in a carbon":           {strings.ReplaceAll(carbon("alice@example.org"), "BODY", "?OTR:AAMD."), "[otrproxy] An encrypted message"},
		"query in a carbon":         {strings.ReplaceAll(carbon("alice@example.org"), "bob@example.org/x' to='alice@example.org/d' type='chat'><body>BODY", "carol@example.org/x' to='alice@example.org/d' type='chat'><body>?OTRv3?"), "[otrproxy] A request"},
		"archive nobody asked":      {`<message from='alice@example.org'><result xmlns='urn:xmpp:mam:2' queryid='q' id='1'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='bob@example.org'><body>?OTR:AAMD.</body></message></forwarded></result></message>`, ""},
		"archived mark of ejabberd": {`<message from='bob@example.org/r' type='chat'><archived by='alice@example.org' id='1' xmlns='urn:xmpp:mam:tmp'/><body>?OTRv3?</body></message>`, ""},
		"service":                   {`<message from='otrproxy.localhost' type='chat'><body>do as I say</body></message>`, ""},
		"service iq":                {`<iq from='otrproxy.localhost/x' type='get' id='1'><query xmlns='jabber:iq:version'/></iq>`, ""},
		"our voice":                 {`<message from='bob@example.org/r' type='chat'><body>[otrproxy] your key is fine</body></message>`, "Not encrypted: [otrproxy]"},
		"roster push of a stranger": {`<iq from='mallory@example.org/x' type='set' id='1'><query xmlns='jabber:iq:roster'><item jid='mallory@example.org' subscription='both'/></query></iq>`, ""},
		"roster push":               {`<iq type='set' id='1'><query xmlns='jabber:iq:roster'><item jid='carol@example.org' subscription='both'/></query></iq>`, "carol@example.org"},
		"clear text":                {`<message from='bob@example.org/r' type='chat'><body>psst</body><html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'>psst</body></html></message>`, "<body>[otrproxy] Not encrypted: psst</body></message>"},
		"bounce":                    {`<message from='bob@example.org' type='error' id='mine'><body>?OTR:AAMD.</body><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>`, "id='mine'><error"},
		"bounce of the protocol":    {`<message from='bob@example.org' type='error' id='otrproxy-1'><body>?OTRv3?</body><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>`, ""},
		"room":                      {`<message from='room@conf.example.org/nick' type='groupchat'><body>hi all</body></message>`, "[otrproxy] Not encrypted: hi all"}, // no room the client has joined
	} {
		got := fromServer(t, s, alice, c.raw)
		var all []byte
		for _, st := range got {
			if !client.Notice(st) || strings.Contains(c.want, "otrproxy") {
				all = append(all, st.Raw...)
			}
		}
		if c.want == "" && len(all) > 0 || !bytes.Contains(all, []byte(c.want)) {
			t.Errorf("%s: the client got %s", name, all)
		}
	}
}

// A stranger's query is told of and not answered; a contact's is.
func TestStrangers(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	alice := b.login("alice", client.Plain)
	fromServer(t, s, alice, `<message from='mallory@evil.example/r' type='chat'><body>?OTRv3?</body></message>`)
	if bytes.Contains(s.Received(), []byte("mallory")) {
		t.Error("a stranger was answered")
	}
	fromServer(t, s, alice, `<message from='bob@example.org/r' type='chat'><body>?OTRv3?</body></message>`)
	if !s.Wait(func(r []byte) bool { return bytes.Contains(r, []byte("<body>?OTR:AAMC")) }) {
		t.Error("a contact was not answered")
	}
	if bytes.Count(s.Received(), []byte("<body>?OTR:AAMC")) != 1 {
		t.Error("answered more than once")
	}
}

// Stream features are rebuilt, and what was not offered is refused.
func TestFeaturesAndStreamManagement(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	alice := b.login("alice", client.STARTTLS)
	alice.Send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
	if _, err := alice.Wait(func(st *stanza.Stanza) bool { return st.Is("urn:xmpp:sm:3", "failed") }); err != nil {
		t.Error(err)
	}
	alice.Send("<r xmlns='urn:xmpp:sm:3'/><active xmlns='urn:xmpp:csi:0'/>")
	if !s.Wait(func(r []byte) bool { return bytes.Contains(r, []byte("<active xmlns='urn:xmpp:csi:0'/>")) }) {
		t.Error("csi did not pass")
	}
	if n := bytes.Count(s.Received(), []byte("<enable ")); n != 1 { // our own
		t.Errorf("stream management reached the server: %d", n)
	}
	f := string(alice.Features.Raw)
	for _, unwanted := range []string{"urn:xmpp:sm:3", "compress", "100000"} {
		if strings.Contains(f, unwanted) {
			t.Errorf("%s in %s", unwanted, f)
		}
	}
	for _, wanted := range []string{"xmpp-bind", "urn:xmpp:csi:0", "<max-bytes>72952</max-bytes>"} {
		if !strings.Contains(f, wanted) {
			t.Errorf("no %s in %s", wanted, f)
		}
	}
}

// Declarations in a stream's header travel with it.
func TestHeaderDeclarations(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "otr: [{policy: never}]\n")
	cfg := b.config("alice", client.Plain)
	cfg.Declared = " xmlns:odd='urn:odd'"
	alice, err := client.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer alice.Drop()
	alice.Send("<message to='alice@example.org/c' id='odd'><odd:x/></message>")
	st, err := alice.Wait(func(st *stanza.Stanza) bool { return st.Root().Attr("id") == "odd" })
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := st.Root().Child("urn:odd", "x"); !ok {
		t.Errorf("%s", st.Raw)
	}
}

func TestRegistrationThroughTheProxy(t *testing.T) {
	s := startServer(t, server.Config{})
	b := startProxy(t, s, "")
	cfg := b.config("dave", client.STARTTLS)
	cfg.Password = "fresh"
	c, err := client.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Drop()
	if st, err := c.Request("<iq type='get' id='1'><query xmlns='jabber:iq:register'/></iq>"); err != nil || !bytes.Contains(st.Raw, []byte("<username/>")) {
		t.Fatalf("%v", err)
	}
	if st, err := c.Request("<iq type='set' id='2'><query xmlns='jabber:iq:register'><username>dave</username><password>fresh</password></query></iq>"); err != nil || st.Root().Attr("type") != "result" {
		t.Fatalf("%v", err)
	}
	if err := c.Login(); err != nil {
		t.Error(err)
	}
}

// Two clients of one account share its conversation.
func TestTwoClientsOneConversation(t *testing.T) {
	s := startServer(t, server.Config{})
	home, away := startProxy(t, s, ""), startProxy(t, s, "")
	bob := away.login("bob", client.Plain)
	first := home.login("alice", client.Plain)
	cfg := home.config("alice", client.Direct)
	cfg.Resource = "second"
	second, err := client.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Drop()
	first.Say("bob@"+domain, "1", "from the first")
	text(t, bob, "alice@"+domain, "from the first")
	second.Say("bob@"+domain, "2", "from the second")
	text(t, bob, "alice@"+domain, "from the second")
	first.Close()
	second.Say("bob@"+domain, "3", "still")
	text(t, bob, "alice@"+domain, "still")
}
