package interop

import (
	"html"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"otrproxy/otrlayer"
	"otrproxy/otrlayer/keyring"
	"otrproxy/otrlayer/otr"
	"otrproxy/otrlayer/text"
	"otrproxy/test/need"
)

// An outlet is a client's session, as far as texts need one.
type outlet struct{ sent []string }

func (o *outlet) Emit(v otrlayer.Verdict) bool { o.sent = append(o.sent, v.Body()); return true }

func (o *outlet) Pending() bool                               { return false }
func (o *outlet) Sees(string) bool                            { return false }
func (o *outlet) Notice(string, otrlayer.Notice) bool         { return true }
func (o *outlet) Shows()                                      {}
func (o *outlet) Mirror(otrlayer.Mirrored) otrlayer.Mirroring { return otrlayer.Unwanted }
func (o *outlet) Return(*otrlayer.Message, otrlayer.Why) otrlayer.Sign {
	return otrlayer.SeenWhy
}

type noEvents struct{}

func (noEvents) Handshake(string)                {}
func (noEvents) Keeps(_, _ otrlayer.Kept)        {}
func (noEvents) Happened(string, otrlayer.Event) {}
func (noEvents) Log(int, string, error)          {}

// plainPrograms are programs that write plain text inside OTR: the engine that each has, what its
// presence calls it, and how it shows what it has read.
var plainPrograms = []struct{ name, engine, node, shows string }{
	{"irssi-otr", "libotr", "https://github.com/cdidier/irssi-xmpp", "plain"},
	{"irssi-otr, not on the list of contacts", "libotr", "", "plain"},
	{"poezio", "potr", "https://poez.io", "entities"},
	{"otr.js", "otr.js", "", "plain"},
	{"otr3", "otr3", "", "plain"},
	{"Profanity, not on the list of contacts", "libotr", "", "plain"},
}

// Text arrives as it was typed at programs that write plain text, both ways: all but what holds an
// angle bracket or a character reference from the first on, the rest once the program is known,
// by its presence or by what it has sent.
func TestTexts(t *testing.T) {
	plain := []string{"see https://x.example/?a=1&b=2&lang=en#c;d", "שלום עולם & مرحبا (abc) 123", "/me waves & smiles", "one & two\n  three  four\n\nfive > six", strings.Repeat("three thousand characters & more, ", 88) + "the end"}
	special := []string{`hello <b> & "quotes" <3`, "one & <two>\n  three", `a < b && c > d 'single' <b>bold</b> ü 👍`, "<p> and <b>bold</b> are tags"}
	exact := 0
	for _, p := range plainPrograms {
		t.Run(p.name, func(t *testing.T) {
			var them peer
			for _, impl := range implementations {
				if impl.name == p.engine {
					v := impl.versions[len(impl.versions)-1]
					if strings.HasPrefix(p.name, "Profanity") {
						v = otr.V2
					}
					them = impl.start(t, settings{versions: otr.Set(v), key: "bob", instance: 0x1000b})
				}
			}
			const alice, bob = "alice@x.example", "bob@y.example"
			dir := t.TempDir()
			if err := os.MkdirAll(keyring.Dir(dir, alice), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(keyring.Dir(dir, alice), "otr.private_key"), need.KeyFile(t, "alice", alice, "prpl-jabber"), 0o600); err != nil {
				t.Fatal(err)
			}
			a, err := otrlayer.Open(dir, alice, func() otrlayer.Settings {
				return otrlayer.Settings{Policy: func(string) otrlayer.Policy { return otrlayer.Require }, Hold: otrlayer.Hold{Messages: 10, Bytes: 1 << 20, For: 1e12}, Largest: 1 << 18}
			}, noEvents{}, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			o := &outlet{}
			a.Attach(o)
			if p.node != "" {
				a.Presence(o, bob+"/r", bob, true, text.KnownProgram([]byte(p.node)), 0)
			}
			var aliceRead, bobRead string
			take := func(events []event) {
				for _, e := range events {
					switch e.kind {
					case "wire":
						if r := a.Receive(o, otrlayer.Incoming{From: bob + "/r", Contact: bob, Text: e.args[0], Welcome: true}); r.Deliver {
							aliceRead = r.Text
						}
					case "plain":
						if bobRead = e.args[0]; p.shows == "entities" {
							bobRead = html.UnescapeString(bobRead)
						}
					}
				}
			}
			pump := func() {
				for len(o.sent) > 0 {
					body := o.sent[0]
					o.sent = o.sent[1:]
					take(them.do(t, "recv", body))
				}
			}
			says := func(text string) {
				t.Helper()
				bobRead = ""
				a.Send(o, otrlayer.Message{Contact: bob, To: bob, ID: "1", Type: "chat", Text: text}, otrlayer.Rule{})
				pump()
				if bobRead != text {
					t.Errorf("to %s: %.200q is shown as %.200q", p.name, text, bobRead)
					return
				}
				exact++
			}
			hears := func(text string) {
				t.Helper()
				aliceRead = ""
				take(them.do(t, "send", text))
				pump()
				if aliceRead != text {
					t.Errorf("from %s: %.200q is shown as %.200q", p.name, text, aliceRead)
					return
				}
				exact++
			}
			for _, text := range plain {
				says(text)
				hears(text)
			}
			for _, text := range special {
				hears(text)
				says(text)
			}
		})
	}
	t.Logf("texts: %d exact, with %d programs", exact, len(plainPrograms))
}
