package readers

import (
	"slices"
	"strings"
	"testing"
)

const (
	carbons = "urn:xmpp:carbons:2"
	forward = "<forwarded xmlns='urn:xmpp:forward:0'>"
	stanzas = "urn:ietf:params:xml:ns:xmpp-stanzas"
	room    = "room@chat.example.org"
)

var table = []struct {
	name, xml, room string
	want            []Shown // one of them at least, whose text holds WORD
	from            string  // of what is shown, but for a resource
	but             []string
	nothing         bool // no text with WORD, nothing said
}{
	{name: "a body", xml: "<message from='bob@example.org/r' to='alice@example.org/c' type='chat'><body>WORD ü 🙂 &lt;b&gt;</body></message>", want: []Shown{{As: "message"}}, from: "bob@example.org"},
	{name: "a received carbon", xml: "<message from='alice@example.org' to='alice@example.org/c'><received xmlns='" + carbons + "'>" + forward + "<message xmlns='jabber:client' from='bob@example.org/r' to='alice@example.org/d' type='chat'><body>WORD</body></message></forwarded></received></message>", want: []Shown{{As: "message"}}, from: "bob@example.org", but: []string{"libpurple"}}, // which has no carbons
	{name: "a sent carbon", xml: "<message from='alice@example.org' to='alice@example.org/c'><sent xmlns='" + carbons + "'>" + forward + "<message xmlns='jabber:client' from='alice@example.org/d' to='bob@example.org/r' type='chat'><body>WORD</body></message></forwarded></sent></message>", want: []Shown{{As: "own"}}, but: []string{"libpurple"}},
	{name: "a result of the archive", xml: "<message from='alice@example.org' to='alice@example.org/c'><result xmlns='urn:xmpp:mam:2' queryid='q' id='1'>" + forward + "<delay xmlns='urn:xmpp:delay' stamp='2024-01-01T00:00:00Z'/><message xmlns='jabber:client' from='bob@example.org/r' to='alice@example.org/d' type='chat'><body>WORD</body></message></forwarded></result></message>",
		want: []Shown{{As: "message"}}, from: "bob@example.org", but: []string{"loudmouth", "libpurple"}}, // mcabber and Pidgin ask no archive
	{name: "an error with a text", xml: "<message from='bob@example.org/r' to='alice@example.org/c' type='error' id='e'><body>hi</body><error type='cancel'><service-unavailable xmlns='" + stanzas + "'/><text xmlns='" + stanzas + "'>WORD</text></error></message>", want: []Shown{{As: "message"}}},
	{name: "a room's subject", xml: "<message from='" + room + "/bob' to='alice@example.org/c' type='groupchat'><subject>WORD</subject></message>", room: room, want: []Shown{{As: "message"}}, from: room},
	{name: "a room's message", xml: "<message from='" + room + "/bob' to='alice@example.org/c' type='groupchat'><body>WORD</body></message>", room: room, want: []Shown{{As: "message"}}, from: room},
	{name: "a status", xml: "<presence from='bob@example.org/r' to='alice@example.org/c'><show>away</show><status>WORD</status></presence>", want: []Shown{{As: "presence"}}, from: "bob@example.org"},
	{name: "a name in the roster", xml: "<iq type='set' id='p' to='alice@example.org/c'><query xmlns='jabber:iq:roster'><item jid='bob@example.org' name='WORD' subscription='both'/></query></iq>", want: []Shown{{As: "name"}}, from: "bob@example.org"},
	{name: "a chat state", xml: "<message from='bob@example.org/r' to='alice@example.org/c' type='chat'><active xmlns='http://jabber.org/protocol/chatstates'/></message>", nothing: true},
}

// All readers start.
func TestAll(t *testing.T) {
	if all := All(t); len(all) != len(programs) {
		t.Errorf("%d of %d", len(all), len(programs))
	}
}

// Every reader shows what its client does.
func TestReaders(t *testing.T) {
	for _, p := range programs {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			r := p.start(t)
			for _, c := range table {
				shown, errors, err := r.Read([]string{c.xml}, c.room)
				if err != nil {
					t.Fatal(err)
				}
				if errors[0] != "" {
					t.Errorf("%s: %s", c.name, errors[0])
				}
				if c.nothing || slices.Contains(c.but, r.Name) {
					if slices.ContainsFunc(shown[0], func(s Shown) bool { return s.Text != "" }) {
						t.Errorf("%s: shows %v", c.name, shown[0])
					}
					continue
				}
				for _, want := range c.want {
					if !slices.ContainsFunc(shown[0], func(s Shown) bool {
						return s.As == want.As && strings.Contains(s.Text, "WORD") && strings.HasPrefix(s.From, c.from)
					}) {
						t.Errorf("%s: shows %v, not as %s", c.name, shown[0], want.As)
					}
				}
			}
			// Broken XML is an error, and does not hide what comes later.
			start := "<message from='bob@example.org/r' to='alice@example.org/c' type='chat'>"
			shown, errors, err := r.Read([]string{start + "<body>WORD</message>", start + "<body xmlns='urn:x'>WORD</body></message>",
				start + "<a:body xmlns:a='urn:x'>WORD</a:body></message>", table[0].xml}, "")
			if err != nil {
				t.Fatal(err)
			}
			if errors[0] == "" || len(shown[0]) > 0 {
				t.Errorf("broken XML: shows %v, says %q", shown[0], errors[0])
			}
			for _, foreign := range shown[1:3] {
				if any := len(foreign) > 0; any != r.AnyNamespace {
					t.Errorf("a body of a foreign namespace: shows %v", foreign)
				}
			}
			if len(shown[3]) != 1 || shown[3][0].Text != "WORD ü 🙂 <b>" {
				t.Errorf("after these: shows %q", shown[3])
			}
		})
	}
}
