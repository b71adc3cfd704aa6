package filter

import (
	"bytes"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"otrproxy/config"
	"otrproxy/stanza"
)

var (
	testVoice = Voice{
		Fits:  func(s []byte) bool { return !bytes.ContainsRune(s, '[') },
		Quote: func(s string) string { return strings.ReplaceAll(s, "[", "> [") },
		Mark:  func(s string) string { return "CLEAR " + s },
	}
	builtIn = config.Default().RuleFor("a@b", "c@d")
	bare    = &config.Rule{Policy: config.Require}
)

func parsed(t testing.TB, raw string) *stanza.Stanza {
	t.Helper()
	st, err := stanza.Parse([]byte(raw))
	if err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	return st.Clone()
}

// A message is written anew: listed elements, known attributes, no prefixes, no free text.
func TestMessageAnew(t *testing.T) {
	for _, c := range []struct {
		name     string
		in       In
		raw      string
		want     string
		wantSays bool
	}{
		{"decrypted text alone", In{Body: "hi"}, `<message from='b@x/r' to='a@x' type='chat' id='1' odd='W'><body>?OTR:AAMD.</body><subject>W</subject><nick xmlns='http://jabber.org/protocol/nick'>W</nick></message>`,
			`<message from='b@x/r' to='a@x' type='chat' id='1'><body>hi</body></message>`, true},
		{"prefixes and text go", In{Body: "hi"}, `<message xmlns:c='http://jabber.org/protocol/chatstates' from='b@x/r'><c:active c:odd='W'>W</c:active>W</message>`,
			`<message from='b@x/r'><body>hi</body><active xmlns='http://jabber.org/protocol/chatstates'/></message>`, true},
		{"receipts are up to the caller", In{Body: "hi"}, `<message><request xmlns='urn:xmpp:receipts'/><markable xmlns='urn:xmpp:chat-markers:0'/></message>`, `<message><body>hi</body></message>`, true},
		{"asked", In{Body: "hi", Asks: true}, `<message><request xmlns='urn:xmpp:receipts'/></message>`, `<message><body>hi</body><request xmlns='urn:xmpp:receipts'/></message>`, true},
		{"a thread's name is hashed", In{Body: "hi"}, `<message><thread parent='W'>a word</thread></message>`, `<message><body>hi</body><thread>` + string(threadID([]byte("a word"))) + `</thread></message>`, true},
		{"OMEMO beside decrypted text", In{Body: "hi", Rule: builtIn}, `<message><encrypted xmlns='eu.siacs.conversations.axolotl'><payload>AAAA</payload></encrypted></message>`, `<message><body>hi</body></message>`, true},
		{"OMEMO by itself", In{Clear: true, Rule: builtIn}, `<message><encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'><key rid='2'>AAAA</key></header><payload>AAAA</payload><W/></encrypted></message>`,
			`<message><encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'><key rid='2'>AAAA</key></header><payload>AAAA</payload></encrypted></message>`, true},
		{"OMEMO and its name", In{Clear: true, Rule: builtIn}, `<message><encryption xmlns='urn:xmpp:eme:0' namespace='eu.siacs.conversations.axolotl' name='W'/></message>`,
			`<message><encryption xmlns='urn:xmpp:eme:0' namespace='eu.siacs.conversations.axolotl'/></message>`, true},
		{"a name nobody knows", In{Clear: true, Rule: builtIn}, `<message><encryption xmlns='urn:xmpp:eme:0' namespace='urn:W' name='W'/></message>`, `<message></message>`, false},
		{"an invitation by an occupant", In{Clear: true, Rule: builtIn}, `<message from='r@x/W'><x xmlns='http://jabber.org/protocol/muc#user'><invite from='b@x'/></x></message>`, `<message from='r@x/W'></message>`, false},
		{"OMEMO that is not allowed", In{Clear: true, Rule: bare}, `<message><encrypted xmlns='eu.siacs.conversations.axolotl'><payload>AAAA</payload></encrypted></message>`, `<message></message>`, false},
		{"an invitation without its reason", In{Clear: true, Rule: builtIn}, `<message xmlns:u='http://jabber.org/protocol/muc#user'><u:x><u:invite from='b@x'><u:reason>W</u:reason></u:invite></u:x></message>`,
			`<message><x xmlns='http://jabber.org/protocol/muc#user'><invite from='b@x'/></x></message>`, true},
		{"unknown", In{Clear: true, Rule: builtIn}, `<message><W xmlns='urn:W'>W</W></message>`, `<message></message>`, false},
		{"unknown type", In{Body: "hi"}, `<message type='W'/>`, `<message><body>hi</body></message>`, true},
	} {
		c.in.Voice = testVoice
		if c.in.Rule == nil {
			c.in.Rule = builtIn
		}
		got, says := c.in.AppendTo(nil, parsed(t, c.raw).Root())
		if string(got) != c.want || says != c.wantSays {
			t.Errorf("%s: %s, %v", c.name, got, says)
		}
		if _, err := stanza.Parse(got); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// A text that was decrypted cannot have been sent before its key was known, nor tomorrow.
func TestDelayOfDecryptedText(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	in := In{Voice: testVoice, Rule: builtIn, Body: "hi", NotBefore: now.Add(-time.Hour), Now: now}
	for stamp, kept := range map[string]bool{"2026-05-01T11:30:00Z": true, "2026-05-01T10:59:30Z": true, "2026-05-01T10:58:59Z": false, "2026-05-01T13:30:00+02:00": true, "2026-05-01T13:00:00Z": false, "yesterday": false, "": false} {
		got, _ := in.AppendTo(nil, parsed(t, "<message><delay xmlns='urn:xmpp:delay' stamp='"+stamp+"'>W</delay></message>").Root())
		if strings.Contains(string(got), "<delay") != kept || strings.Contains(string(got), "W") {
			t.Errorf("%q: %s", stamp, got)
		}
	}
}

// Presence that is of known forms stays as it is; the rest is written anew.
func TestPresenceAnew(t *testing.T) {
	occupant := `<x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='none' role='participant'/><status code='110'/></x>`
	for _, c := range []struct {
		raw  string
		rule *config.Rule
		room bool
		want string // "" for unchanged
	}{
		{`<presence from='b@x/r'><show>away</show><priority>5</priority><c xmlns='http://jabber.org/protocol/caps' node='n' ver='v' hash='sha-1'/></presence>`, bare, false, ""},
		{`<presence from='b@x/r'><status>out</status></presence>`, builtIn, false, ""},
		{`<presence from='b@x/r'><status>out</status></presence>`, bare, false, `<presence from='b@x/r'/>`},
		{`<presence from='b@x/r'><status>[otrproxy] out</status></presence>`, builtIn, false, `<presence from='b@x/r'><status>&gt; [otrproxy] out</status></presence>`},
		{`<presence from='b@x/r'><body>W</body><show>W</show></presence>`, builtIn, false, `<presence from='b@x/r'><show/></presence>`},
		{`<presence from='r@x/n'>` + occupant + `</presence>`, bare, true, ""},
		{`<presence from='r@x/n'>` + occupant + `</presence>`, bare, false, `<presence from='r@x/n'/>`},
		{`<presence from='b@x' type='subscribe'><status>it is me</status></presence>`, builtIn, false, `<presence from='b@x' type='subscribe'><status>CLEAR it is me</status></presence>`},
		{`<presence from='b@x' type='error'><x xmlns='urn:x'>W</x><error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>`, builtIn, false, `<presence from='b@x' type='error'><error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>`},
	} {
		got, unchanged, ok := testVoice.PresenceIn(nil, parsed(t, c.raw).Root(), c.rule, c.room)
		if !ok || unchanged != (c.want == "") || string(got) != c.want {
			t.Errorf("%s became %s, unchanged %v", c.raw, got, unchanged)
		}
	}
	if _, _, ok := testVoice.PresenceIn(nil, parsed(t, `<presence type='W'/>`).Root(), builtIn, false); ok {
		t.Error("presence of no known type passes")
	}
}

// Every allowance opens what it names, and a refusal of an answer names it.
func TestAllowancesOfAnswers(t *testing.T) {
	for raw, want := range map[string]config.Allow{
		`<iq type='result'><vCard xmlns='vcard-temp'><FN>Bob</FN></vCard></iq>`:                                                     config.Status,
		`<iq type='result'><query xmlns='http://jabber.org/protocol/bytestreams' sid='s'><streamhost-used jid='a@b'/></query></iq>`: config.Files,
		`<iq type='result'><query xmlns='urn:unknown'/></iq>`:                                                                       "",
	} {
		r := Request{Voice: testVoice, Rule: bare}
		root := parsed(t, raw).Root()
		if _, p := r.AppendTo(nil, root); p != Refused {
			t.Errorf("%s passes under no allowance", raw)
		}
		if got := r.Lacks(root); got != want {
			t.Errorf("%s: %q", raw, got)
		}
	}
	r := Request{Voice: testVoice, Rule: bare, From: Service}
	if got := r.Lacks(parsed(t, `<iq type='result'><query xmlns='urn:unknown'/></iq>`).Root()); got != config.Services {
		t.Errorf("an unknown answer of a service: %q", got)
	}
}

// What a program says of itself arrives whole, for it is hashed (XEP-0115).
func TestSoftwareArrivesWhole(t *testing.T) {
	raw := `<iq type='result' id='1'><query xmlns='http://jabber.org/protocol/disco#info' node='http://x/#v'><identity category='client' type='pc' name='Psi+ (1.4) &amp; "more" #1 50% a=b?'/><feature var='urn:xmpp:ping'/><x xmlns='jabber:x:data' type='result'><field var='FORM_TYPE' type='hidden'><value>urn:xmpp:dataforms:softwareinfo</value></field><field var='os'><value>Debian GNU/Linux 12 @ home</value></field></x></query></iq>`
	r := Request{Voice: testVoice, Rule: bare}
	if _, p := r.AppendTo(nil, parsed(t, raw).Root()); p != Unchanged {
		t.Errorf("passage %d", p)
	}
}

// Where anything may pass, what only looks like a wrapped message does as well.
func TestSearchesForChannelsPass(t *testing.T) {
	raw := `<iq type='result' id='1'><result xmlns='urn:xmpp:channel-search:0:search'><item address='tea@conf.example'><name>Tea</name></item></result></iq>`
	for _, r := range []Request{{From: Service}, {Open: true}, {From: Service, Rule: &config.Rule{Policy: config.Require, Allow: []config.Allow{config.Services}}}} {
		r.Voice = testVoice
		if r.Rule == nil {
			r.Rule = bare
		}
		if _, p := r.AppendTo(nil, parsed(t, raw).Root()); p != Unchanged {
			t.Errorf("%+v: passage %d", r, p)
		}
	}
}

// A message that only carries signals of programs stays as it was written: nothing else does
// by that way.
func TestSignalsStayAsTheyAre(t *testing.T) {
	const typing, receipt = "<composing xmlns='http://jabber.org/protocol/chatstates'/>", "<received xmlns='urn:xmpp:receipts' id='5a1e7c52'/>"
	for raw, want := range map[string]bool{
		"<message from='b@x/r' type='chat'>" + typing + "</message>":                                        true,
		"<message from='b@x/r' id='1'>" + receipt + "<no-store xmlns='urn:xmpp:hints'/></message>":          true,
		"<message from='b@x/r' xml:lang='en'><displayed xmlns='urn:xmpp:chat-markers:0' id='1'/></message>": true,
		"<message from='b@x/r'/>":                                                                                                 false,
		"<message from='b@x/r' type=''>" + typing + "</message>":                                                                  false,
		"<message from='b@x/r' type='W'>" + typing + "</message>":                                                                 false,
		"<message from='b@x/r' word='W'>" + typing + "</message>":                                                                 false,
		"<message from='b@x/r'>W" + typing + "</message>":                                                                         false,
		"<message from='b@x/r'>" + typing + "<body>W</body></message>":                                                            false,
		"<message from='b@x/r'>" + typing + "<body/></message>":                                                                   false,
		"<message from='b@x/r'>" + typing + "<thread>W</thread></message>":                                                        false,
		"<message from='b@x/r'>" + typing + "<subject>W</subject></message>":                                                      false,
		"<message from='b@x/r'><composing xmlns='http://jabber.org/protocol/chatstates'>W</composing></message>":                  false,
		"<message from='b@x/r'><composing xmlns='http://jabber.org/protocol/chatstates' w='W'/></message>":                        false,
		"<message from='b@x/r'><composing xmlns='http://jabber.org/protocol/chatstates'><body>W</body></composing></message>":     false,
		"<message from='b@x/r'><p:composing xmlns:p='http://jabber.org/protocol/chatstates'/></message>":                          false,
		"<message from='b@x/r'><body xmlns='http://jabber.org/protocol/chatstates'>W</body></message>":                            false,
		"<message from='b@x/r'><received xmlns='urn:xmpp:receipts' id='[otrproxy]'/></message>":                                   false,
		"<message from='b@x/r'><received xmlns='urn:xmpp:receipts' id='&#91;otrproxy]'/></message>":                               false,
		"<message from='b@x/r'><received xmlns='urn:xmpp:receipts' id='W W'/></message>":                                          false,
		"<message from='b@x/r'>" + typing + "<delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'/></message>":              false,
		"<message from='b@x/r'>" + typing + "<x xmlns='jabber:x:delay' stamp='20260101T00:00:00'/></message>":                     false,
		"<message from='b@x/r'><x xmlns='jabber:x:conference' jid='r@c'/></message>":                                              false,
		"<message from='b@x/r'><encryption xmlns='urn:xmpp:eme:0' namespace='urn:xmpp:omemo:2'/></message>":                       false,
		"<message from='b@x/r'><event xmlns='http://jabber.org/protocol/pubsub#event'><items node='n'/></event></message>":        false,
		"<message from='b@x/r'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'/></forwarded></message>":      false,
		"<message from='b@x/r'><sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'/></sent></message>":         false,
		"<message from='b@x/r'><error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>W</gone></error></message>": false,
	} {
		if got := testVoice.Signals(parsed(t, raw).Root()); got != want {
			t.Errorf("%v: %s", got, raw)
		}
	}
}

// What has passed is known again word for word, and nothing else for its sake: in whatever
// order elements come, each is judged as if it were the first.
func TestKnownElementsAreNoPassport(t *testing.T) {
	const good = "lV6i//bt2U8Rm0REcX8h4F3Nk3M="
	caps := func(attrs string) string {
		return "<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' " + attrs + "/></presence>"
	}
	list := []string{
		caps("node='http://pidgin.im/' ver='" + good + "'"),
		caps("node='http://pidgin.im/' ver=\"" + good + "\""),
		caps("node='see you at six' ver='" + good + "'"),
		caps("node='[otrproxy]' ver='" + good + "'"),
		caps("node='&#91;otrproxy]' ver='" + good + "'"),
		caps("node='a:[otrproxy]' ver='" + good + "'"),
		caps("node='http://pidgin.im/' ver='" + good + "' word='W'"),
		caps("node='http://pidgin.im/' ver='seeyouatsixseeyouatsix'"),
		"<presence xmlns:p='http://jabber.org/protocol/caps'><p:c hash='sha-1' node='http://pidgin.im/' ver='" + good + "'/></presence>",
		"<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='http://pidgin.im/' ver='" + good + "'>W</c></presence>",
		"<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='http://pidgin.im/' ver='" + good + "'><body>W</body></c></presence>",
		"<presence><c xmlns='urn:w' hash='sha-1' node='http://pidgin.im/' ver='" + good + "'/></presence>",
	}
	voices := []*Voice{nil, &testVoice}
	tables := []Table{presenceForms, presenceIn}
	passed := 0
	for turn := range 4 {
		for _, raw := range list {
			for way, v := range voices {
				el := firstChild(t, parsed(t, raw))
				f := tables[way].of(el)
				if f == nil {
					continue
				}
				want := f.holds(el, v)
				if got := f.fits(el, v); got != want {
					t.Errorf("turn %d, way %d: %v, though as the first it is %v: %s", turn, way, got, want, raw)
				}
				if want {
					passed++
				}
				if want && (strings.Contains(raw, "W") || way == 0 && strings.Contains(raw, "see")) {
					t.Errorf("way %d: a word passes: %s", way, raw)
				}
			}
		}
		slices.Reverse(list[2:])
	}
	if passed < 8 {
		t.Errorf("%d passed", passed)
	}
}

func firstChild(t *testing.T, st *stanza.Stanza) stanza.Element {
	t.Helper()
	for el := range st.Root().Children() {
		return el
	}
	t.Fatal("no child")
	return stanza.Element{}
}

// Every expression is one: they are compiled when something is first looked at by them.
func TestExpressionsAreSound(t *testing.T) {
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range sources {
		file, err := parser.ParseFile(gotoken.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if f, ok := call.Fun.(*ast.Ident); !ok || f.Name != "matches" {
				return true
			}
			lit, ok := call.Args[0].(*ast.BasicLit)
			if !ok {
				t.Errorf("%s: an expression that is not written out", name)
				return true
			}
			found++
			expr, err := strconv.Unquote(lit.Value)
			if err == nil {
				_, err = regexp.Compile("^(?:" + expr + ")$")
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			return true
		})
	}
	if found < 30 {
		t.Errorf("only %d expressions were found", found)
	}
}
