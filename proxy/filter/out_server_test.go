package filter

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"otrproxy/config"
	"otrproxy/stanza"
)

// walk visits each place of a form where something can be written: attributes, and text.
func walk(path string, f *Form, visit func(path string, f *Form, check Check), deep int) {
	visit(path, f, f.Text)
	for _, attr := range slices.Sorted(maps.Keys(f.Attrs)) {
		visit(path+"@"+attr, f, f.Attrs[attr])
	}
	if deep > 8 {
		return
	}
	for _, local := range slices.Sorted(maps.Keys(f.Own)) {
		c := f.Own[local]
		walk(path+"/"+local, c, visit, deep+1)
	}
	for _, ns := range slices.Sorted(maps.Keys(f.Inner)) {
		for _, local := range slices.Sorted(maps.Keys(f.Inner[ns])) {
			c := f.Inner[ns][local]
			walk(path+"/"+local+"{"+ns+"}", c, visit, deep+1)
		}
	}
}

// everyForm visits the requests to servers that pass: name is "set query{jabber:iq:roster}".
func everyForm(visit func(name string, f *Form)) {
	for _, typ := range []string{"get", "set", "result"} {
		for _, ns := range slices.Sorted(maps.Keys(toServer[typ])) {
			for _, local := range slices.Sorted(maps.Keys(toServer[typ][ns])) {
				f := toServer[typ][ns][local]
				visit(typ+" "+local+"{"+ns+"}", f)
			}
		}
	}
}

// sentences are the only places in requests to servers where several words may stand, and
// why. A person fills them in for the server, or they are labels, of what the server keeps.
var sentences = map[string]string{
	"set query{jabber:iq:roster}/item@name":               "a label on the list of contacts, which the server keeps",
	"set query{jabber:iq:roster}/item/group":              "the same",
	"set bind{urn:ietf:params:xml:ns:xmpp-bind}/resource": "the client's own address",
	"get query{jabber:iq:privacy}/list@name":              "a label of a list",
	"set query{jabber:iq:privacy}/active@name":            "the same",
	"set query{jabber:iq:privacy}/default@name":           "the same",
	"set query{jabber:iq:privacy}/list@name":              "the same",
	"set query{jabber:iq:privacy}/list/item@value":        "a group of the list of contacts",
	"set query{jabber:iq:gateway}/prompt":                 "somebody's name in another network",
	"result query{jabber:iq:version}/name":                "a program's name",
	"result query{jabber:iq:version}/version":             "the same",
	"result query{jabber:iq:version}/os":                  "the same",
	"result query{jabber:iq:time}/tz":                     "a time zone",
	"result query{jabber:iq:time}/display":                "a time",
}

// sentencesIn are the same for forms, and elements of one kind.
var sentencesIn = []struct{ contains, why string }{
	{"query{jabber:iq:register}/", "a form for the server, passwords among them"},
	{"query{jabber:iq:search}/", "a form for the service"},
	{"command{http://jabber.org/protocol/commands}/x{jabber:x:data}/", "a form for the service"},
	{"captcha{urn:xmpp:captcha}/x{jabber:x:data}/", "a form for the server"},
	{"search{urn:xmpp:channel-search:0:search}/x{jabber:x:data}/", "a form for the service"},
	{"search{https://xmlns.zombofant.net/muclumbus/search/1.0}/x{jabber:x:data}/", "a form for the service"},
	{"/nick", "a name in a channel"},
	{"x{jabber:x:data}/title", "what the server calls its form"},
	{"x{jabber:x:data}/instructions", "the same"},
	{"x{jabber:x:data}/field@label", "the same"},
	{"x{jabber:x:data}/field/desc", "the same"},
	{"x{jabber:x:data}/field/option@label", "the same"},
	{"query{http://jabber.org/protocol/disco#info}/identity@name", "a program's name"},
	{"query{http://jabber.org/protocol/disco#info}/x{jabber:x:data}/field/value", "a program's name"},
	{"query{http://jabber.org/protocol/disco#items}/item@name", "a program's name"},
	{"@jid", "a resource, which is part of an address"},
	{"@with", "the same"}, {"/with", "the same"}, {"/jid", "the same"}, {"@by", "the same"}, {"@publisher", "the same"}, {"@channel", "the same"},
}

// tokensNamed are the places where one word without blanks may stand, by the last name in
// their path: names that programs make, and addresses.
var tokensNamed = map[string]string{
	"node": "of a node", "id": "of an item", "subid": "of a subscription", "queryid": "of a query", "sessionid": "of a command", "ver": "of a version", "var": "of a field", "datatype": "of a type",
	"host": "an address", "before": "a place in a list", "after": "a place in a list",
	"token": "made by the server", "name": "of a number to be told (XEP-0039)", "username": "the account's name", "type": "of a service, a node or a field", "uri": "an address",
	"category": "of a program", "url": "an address",
}

// No word of a person's finds a place in a request to a server but those that are listed
// here, each with its reason; and what is listed is so.
func TestPlacesForWordsAreKnown(t *testing.T) {
	const sentence, word = "Meet me at noon.", "Qcanary4Z"
	const small = "meet me at noon by the river"
	used := map[string]bool{}
	places, forms := 0, 0
	everyForm(func(name string, f *Form) {
		forms++
		walk(name, f, func(path string, f *Form, of Check) {
			check := func(s string) bool { return of([]byte(s)) }
			places++
			last := path[strings.LastIndexAny(path, "@/")+1:]
			fieldsOfForm := strings.HasSuffix(path, "field/value") || strings.HasSuffix(path, "option/value")
			switch {
			case f.Any || f.Says:
				t.Errorf("%s lets anything pass", path)
			case of == nil:
			case check(sentence) || check(small) || check("a/"+small):
				if why, ok := sentences[path]; ok && why != "" {
					used[path] = true
					return
				}
				if i := slices.IndexFunc(sentencesIn, func(s struct{ contains, why string }) bool {
					return strings.Contains(path+"/", s.contains+"/") || strings.Contains(path, s.contains)
				}); i >= 0 {
					used[sentencesIn[i].contains] = true
					return
				}
				if fieldsOfForm { // looked at field by field
					return
				}
				t.Errorf("%s lets a sentence pass", path)
			case slices.ContainsFunc([]string{word, "qcanary", "qcanary@example.org", "https://qcanary/", "xmpp:qcanary"}, check):
				if sentences[path] != "" { // of a program: some sentences pass only as single words
					used[path] = true
				} else if i := slices.IndexFunc(sentencesIn, func(s struct{ contains, why string }) bool { return strings.Contains(path, s.contains) }); i >= 0 {
					used[sentencesIn[i].contains] = true
				} else if tokensNamed[last] == "" {
					t.Errorf("%s lets a word pass", path)
				} else {
					used[last] = true
				}
			}
		}, 0)
	})
	for path := range sentences {
		if !used[path] {
			t.Errorf("nothing passes at %s", path)
		}
	}
	for _, s := range sentencesIn {
		if !used[s.contains] {
			t.Errorf("nothing passes at %s", s.contains)
		}
	}
	for last := range tokensNamed {
		if !used[last] {
			t.Errorf("nothing passes at ...%s", last)
		}
	}
	t.Logf("%d forms with %d places", forms, places)
}

// The forms of requests to servers that pass, for whoever wants to read the list.
func TestRequestFormsAreListed(t *testing.T) {
	var list []string
	everyForm(func(name string, _ *Form) { list = append(list, name) })
	t.Logf("%d forms pass:\n%s", len(list), strings.Join(list, "\n"))
	for typ, min := range map[string]int{"get ": 40, "set ": 30, "result ": 8} {
		n := 0
		for _, name := range list {
			if strings.HasPrefix(name, typ) {
				n++
			}
		}
		if n < min {
			t.Errorf("only %d forms of %s", n, typ)
		}
	}
}

// What clients are known to be answered, they can ask.
func TestEveryServedAnswerCanBeAskedFor(t *testing.T) {
	// By a rule: files. To rooms: their settings. Answers beside another: parts of others.
	other := map[string]bool{nsClient: true, NSData: true, NSRSM: true, "urn:xmpp:bob": true, "urn:xmpp:http:upload": true, "urn:xmpp:http:upload:0": true,
		"eu:siacs:conversations:http:upload": true, "http://jabber.org/protocol/bytestreams": true, NSMUC + "#owner": true, NSMUC + "#admin": true}
	for ns := range servedAnswers {
		asked := fmt.Sprintf("<iq type='get' id='1'><query xmlns='%s'/></iq>", ns)
		_, get := toServer["get"][ns]
		_, set := toServer["set"][ns]
		_, tells := telling[ns]
		if !get && !set && !tells && !other[ns] && RequestOut(parsed(t, asked).Root(), ToServer, bare) != "" {
			t.Errorf("%s cannot be asked for", ns)
		}
	}
}

// What nobody knows passes where no word can be in it, and not with one.
func TestUnknownRequestsHoldNoWords(t *testing.T) {
	for raw, passes := range map[string]bool{
		`<query xmlns='urn:xmpp:future:0'/>`: true,
		`<query xmlns='urn:xmpp:future:0' max='10' since='2026-01-01T00:00:00Z' on='true' id='4bf2a0c1-77aa-4d5b-9d2c-0f1e2d3c4b5a'><feature>urn:xmpp:other:1</feature></query>`: true,
		`<query xmlns='urn:xmpp:future:0'>noon</query>`:                         false,
		`<query xmlns='urn:xmpp:future:0' at='noon'/>`:                          false,
		`<query xmlns='urn:xmpp:future:0' noon-At='1'/>`:                        true, // a program's name
		`<query xmlns='urn:xmpp:future:0' Noon='1'/>`:                           false,
		`<Noon xmlns='urn:xmpp:future:0'/>`:                                     false,
		`<query xmlns='noon'/>`:                                                 false,
		`<query xmlns='urn:meet me at noon'/>`:                                  false,
		`<query xmlns='urn:xmpp:future:0'><item>meet me</item></query>`:         false,
		`<query xmlns='urn:xmpp:future:0' id='deadbeef'/>`:                      false,
		`<query xmlns='urn:xmpp:future:0' jid='noon@example.org'/>`:             false,
		`<ping xmlns='urn:xmpp:ping'>noon</ping>`:                               false,
		`<ping xmlns='urn:xmpp:ping' xmlns:Noon='urn:x:y'/>`:                    false,
		`<n:ping xmlns:n='urn:xmpp:ping'/>`:                                     true,
		`<NoonIsBest:ping xmlns:NoonIsBest='urn:xmpp:ping'/>`:                   false,
		`<save xmlns='urn:xmpp:archive'/>`:                                      false,
		`<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish/></pubsub>`: false,
	} {
		what := RequestOut(parsed(t, "<iq type='get' id='1'>"+raw+"</iq>").Root(), ToServer, builtIn)
		if (what == "") != passes {
			t.Errorf("%s: %q", raw, what)
		}
	}
}

// A refusal says in plain words what it is, and names the allowance that lets it pass, which
// does.
func TestRefusalsOfRequestsNameTheAllowance(t *testing.T) {
	const publish = `<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='n'><item>%s</item></publish></pubsub>`
	for _, c := range []struct {
		typ, raw, says string
		allow          config.Allow
	}{
		{"set", `<save xmlns='urn:xmpp:archive:2'><chat with='a@b'><to><body>noon</body></to></chat></save>`, "what your program saves of your conversations at the server", config.Services},
		{"set", `<save xmlns='urn:xmpp:archive'><chat with='a@b' subject='noon'/></save>`, "what your program saves of your conversations at the server", config.Services},
		{"set", `<block xmlns='urn:xmpp:blocking'><item jid='a@b'><report xmlns='urn:xmpp:reporting:1' reason='urn:xmpp:reporting:spam'><text>noon</text></report></item></block>`, "a report with the text of messages", config.Services},
		{"set", `<block xmlns='urn:xmpp:blocking'><item jid='a@b'><report xmlns='urn:xmpp:reporting:1' reason='urn:xmpp:reporting:spam'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'><body>noon</body></message></forwarded></report></item></block>`, "a report with the text of messages", config.Services},
		{"get", `<x xmlns='urn:xmpp:langtrans:1'><source xml:lang='en'>noon</source></x>`, "a translation", config.Services},
		{"set", `<reminder xmlns='urn:xmpp:reminders:0'><text>noon</text></reminder>`, "a reminder", config.Services},
		{"set", `<query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field><field var='withtext'><value>noon</value></field></x></query>`, "a search for words in the archive", config.Services},
		{"set", `<query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data' type='submit'><field var='{urn:xmpp:fulltext:0}fulltext'><value>noon</value></field></x></query>`, "a search for words in the archive", config.Services},
		{"set", `<query xmlns='jabber:iq:private'><storage xmlns='storage:rosternotes'><note jid='a@b'>noon</note></storage></query>`, "notes about contacts", config.Services},
		{"set", `<query xmlns='jabber:iq:private'><x xmlns='my:things'>noon</x></query>`, "notes of yours", config.Services},
		{"set", `<query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'><conference jid='r@c' name='noon'/></storage></query>`, "what you tell everybody about yourself", config.Status},
		{"get", fmt.Sprintf(publish, `<mood xmlns='http://jabber.org/protocol/mood'/>`), "what is published by a request of another kind", config.Services},
		{"result", fmt.Sprintf(publish, `<mood xmlns='http://jabber.org/protocol/mood'/>`), "what is published by a request of another kind", config.Services},
		{"set", fmt.Sprintf(publish, `<mood xmlns='http://jabber.org/protocol/mood'><text>noon</text></mood>`), "what you tell everybody about yourself", config.Status},
		{"set", fmt.Sprintf(publish, `<x xmlns='urn:mine:notes'>noon</x>`), "what you publish", config.Services},
		{"set", `<vCard xmlns='vcard-temp'><FN>noon</FN></vCard>`, "what you tell everybody about yourself", config.Status},
		{"set", `<query xmlns='jabber:iq:rpc'><methodCall><methodName>noon</methodName></methodCall></query>`, "a call of a procedure", config.Services},
		{"get", `<request xmlns='urn:xmpp:http:upload:0' filename='noon' size='1'/>`, "files and calls", config.Files},
		{"set", `<query xmlns='jabber:iq:register'><text>noon</text></query>`, "words beside a registration", config.Services},
	} {
		root := parsed(t, "<iq type='"+c.typ+"' id='1'>"+c.raw+"</iq>").Root()
		what := RequestOut(root, ToServer, bare)
		if !strings.HasPrefix(what, c.says) || !strings.Contains(what, "allow: ["+string(c.allow)+"]") {
			t.Errorf("%s: %q", c.raw, what)
		}
		for _, allow := range []config.Allow{c.allow, config.Services} {
			if what := RequestOut(root, ToServer, &config.Rule{Policy: config.Require, Allow: []config.Allow{allow}}); what != "" {
				t.Errorf("%s with %s: %q", c.raw, allow, what)
			}
		}
		if what := RequestOut(root, ToContact, &config.Rule{Policy: config.Require, Allow: []config.Allow{config.Services}}); what == "" {
			t.Errorf("to a contact's program, %s passes with services", c.raw)
		}
	}
}

// What servers need passes under every rule.
func TestRequestsThatServersNeedPass(t *testing.T) {
	form := func(typ string, fields ...string) string {
		x := "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>" + typ + "</value></field>"
		for i := 0; i < len(fields); i += 2 {
			x += "<field var='" + fields[i] + "'><value>" + fields[i+1] + "</value></field>"
		}
		return x + "</x>"
	}
	const rsm = "<set xmlns='http://jabber.org/protocol/rsm'><max>50</max><before/></set>"
	for typ, raws := range map[string][]string{
		"get": {
			`<query xmlns='jabber:iq:roster' ver=''/>`, `<query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'/></query>`, `<query xmlns='jabber:iq:private'><roster xmlns='roster:delimiter'/></query>`,
			`<prefs xmlns='urn:xmpp:mam:2'/>`, `<metadata xmlns='urn:xmpp:mam:2'/>`, `<query xmlns='urn:xmpp:mam:2'/>`, `<blocklist xmlns='urn:xmpp:blocking'/>`, `<query xmlns='http://jabber.org/protocol/disco#items' node='x'>` + rsm + `</query>`,
			`<list xmlns='urn:xmpp:archive' with='a@b' start='2026-01-01T00:00:00Z'>` + rsm + `</list>`, `<retrieve xmlns='urn:xmpp:archive' with='a@b' start='2026-01-01T00:00:00Z'>` + rsm + `</retrieve>`, `<pref xmlns='urn:xmpp:archive'/>`,
			`<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='eu.siacs.conversations.axolotl.devicelist' max_items='1'/></pubsub>`, `<pubsub xmlns='http://jabber.org/protocol/pubsub'><subscriptions/></pubsub>`,
			`<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><configure node='n'/></pubsub>`, `<services xmlns='urn:xmpp:extdisco:2'/>`, `<services xmlns='urn:xmpp:extdisco:2' type='turn'/>`, `<inbox xmlns='urn:xmpp:inbox:1'/>`,
			`<query xmlns='http://jabber.org/protocol/stats'><stat name='users/online'/></query>`, `<query xmlns='urn:xmpp:raa:0'/>`, `<query xmlns='google:jingleinfo'/>`,
			`<search xmlns='https://xmlns.zombofant.net/muclumbus/search/1.0'>` + rsm + form("https://xmlns.zombofant.net/muclumbus/search/1.0#params", "q", "linux") + `</search>`,
		},
		"set": {
			`<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>Psi+ at home</resource></bind>`, `<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><required/><resource>profanity</resource></bind>`, `<session xmlns='urn:ietf:params:xml:ns:xmpp-session'/>`, `<session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>`, `<enable xmlns='urn:xmpp:carbons:2'/>`,
			`<query xmlns='jabber:iq:roster'><item jid='a@b' name='Anna B' subscription='none'><group>At work</group></item></query>`, `<query xmlns='jabber:iq:roster'><item jid='a@b' subscription='remove'/></query>`,
			`<query xmlns='urn:xmpp:mam:2' queryid='f27'>` + form("urn:xmpp:mam:2", "with", "r@conf.example/Anna B", "start", "2026-01-01T00:00:00Z", "after-id", "28482-98726-73623") + rsm + `<flip-page/></query>`,
			`<prefs xmlns='urn:xmpp:mam:2' default='roster'><always><jid>a@b</jid></always><never/></prefs>`,
			`<block xmlns='urn:xmpp:blocking'><item jid='a@b'><report xmlns='urn:xmpp:reporting:1' reason='urn:xmpp:reporting:spam'><stanza-id xmlns='urn:xmpp:sid:0' by='a@b' id='28482-98726-73623'/></report></item></block>`,
			`<unblock xmlns='urn:xmpp:blocking'/>`, `<query xmlns='jabber:iq:privacy'><list name='invisible list'><item action='deny' order='1'><presence-out/></item></list></query>`,
			`<query xmlns='jabber:iq:register'><username>a</username><password>a new one</password></query>`, `<query xmlns='jabber:iq:register'><remove/></query>`, `<query xmlns='jabber:iq:register'>` + form("jabber:iq:register", "username", "a") + `</query>`,
			`<query xmlns='jabber:iq:search'><last>Capulet</last></query>`, `<query xmlns='jabber:iq:gateway'><prompt>Bill Gates</prompt></query>`,
			`<command xmlns='http://jabber.org/protocol/commands' node='config' sessionid='config:20020923T213616Z-700' action='complete'>` + form("config", "service", "httpd") + `</command>`,
			`<enable xmlns='urn:xmpp:push:0' jid='push.example' node='yxs32uqsflafdk3iuqo'>` + form("http://jabber.org/protocol/pubsub#publish-options", "secret", "eruio234vzxc2kla-91") + `</enable>`,
			`<pubsub xmlns='http://jabber.org/protocol/pubsub'><subscribe node='n' jid='a@b'/><options><x xmlns='jabber:x:data' type='submit'><field var='pubsub#deliver'><value>1</value></field></x></options></pubsub>`,
			`<pubsub xmlns='http://jabber.org/protocol/pubsub'><create node='n'/><configure>` + form("http://jabber.org/protocol/pubsub#node_config", "pubsub#access_model", "whitelist", "pubsub#max_items", "max") + `</configure></pubsub>`,
			`<pubsub xmlns='http://jabber.org/protocol/pubsub'><create/></pubsub>`, `<pubsub xmlns='http://jabber.org/protocol/pubsub'><retract node='n' notify='true'><item id='i'/></retract></pubsub>`,
			`<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='n'/></pubsub>`, `<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='n'><item id='1'/></publish></pubsub>`,
			`<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:xmpp:mds:displayed:0'><item id='a@b'><displayed xmlns='urn:xmpp:mds:displayed:0'><stanza-id xmlns='urn:xmpp:sid:0' by='a@b' id='x1'/></displayed></item></publish><publish-options>` + form("http://jabber.org/protocol/pubsub#publish-options", "pubsub#persist_items", "true", "pubsub#send_last_published_item", "never") + `</publish-options></pubsub>`,
			`<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><delete node='n'/></pubsub>`, `<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><purge node='n'/></pubsub>`,
			`<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><affiliations node='n'><affiliation jid='a@b' affiliation='member'/></affiliations></pubsub>`,
			`<client-join xmlns='urn:xmpp:mix:pam:2' channel='c@mix.example'><join xmlns='urn:xmpp:mix:core:1'><subscribe node='urn:xmpp:mix:nodes:messages'/></join></client-join>`,
			`<preauth xmlns='urn:xmpp:pars:0' token='1tMFqYDdKhfe2pwp'/>`, `<invisible xmlns='urn:xmpp:invisible:0'/>`, `<auto xmlns='urn:xmpp:archive' save='true'/>`, `<remove xmlns='urn:xmpp:archive' with='a@b'/>`,
			`<offline xmlns='http://jabber.org/protocol/offline'><purge/></offline>`,
		},
		"result": {
			``, `<query xmlns='http://jabber.org/protocol/disco#info'><identity category='client' type='pc' name='Psi+ 1.5'/><feature var='urn:xmpp:ping'/></query>`, `<query xmlns='jabber:iq:version'><name>Mozilla Thunderbird</name><version>115.0</version><os>Debian GNU/Linux 12 (bookworm)</os></query>`,
		},
	} {
		for _, raw := range raws {
			if what := RequestOut(parsed(t, "<iq type='"+typ+"' id='1'>"+raw+"</iq>").Root(), ToServer, bare); what != "" {
				t.Errorf("%s of %s", what, raw)
			}
		}
	}
}

// What programs say of themselves is a name and no sentence.
func TestProgramsNamesAreNoSentences(t *testing.T) {
	for s, want := range map[string]bool{
		"Gajim": true, "Psi+ 1.5.1600 (2022-04-26)": true, "Debian GNU/Linux 12 (bookworm)": true, "Windows 11 Pro for Workstations": true, "Ubuntu 22.04.3 LTS": true,
		"Pidgin 2.14.12 (libpurple 2.14.12)": true, "Mac OS X 10.15.7": true, "go-sendxmpp": true, "": true, "Программа 1.0": true,
		"meet me at noon": false, "Meet me at noon by the river": false, "What?": false, "Come now!": false, "noon it is": false, "two\nlines": false, strings.Repeat("x", 65): false, "正午见": false,
	} {
		if programName([]byte(s)) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
}

// What is said to one contact in presence is left out, and what passes is valid.
func TestPresenceToOneContactHoldsNoWords(t *testing.T) {
	const said = `<status>noon</status><nick xmlns='http://jabber.org/protocol/nick'>noon</nick><query xmlns='jabber:iq:last' seconds='5'>noon</query>`
	for _, typ := range presenceTypes {
		for everybody, to := range map[bool]string{false: " to='b@x'", true: ""} {
			attr := ""
			if typ != "" {
				attr = " type='" + typ + "'"
			}
			out := string(PresenceOut(nil, parsed(t, "<presence"+to+attr+">"+said+"<show>away</show></presence>"), builtIn, everybody))
			if want := everybody && (typ == "" || typ == "unavailable"); strings.Contains(out, "noon") != want {
				t.Errorf("%s%s: %s", to, attr, out)
			}
			if _, err := stanza.Parse([]byte(out)); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		}
	}
	for raw, want := range map[string]string{
		`<presence to='r@c/n'><x xmlns='http://jabber.org/protocol/muc'><password>a secret</password><history maxstanzas='0'/></x></presence>`:                "",
		`<presence to='r@c/n'><x xmlns='http://jabber.org/protocol/muc'><password>` + strings.Repeat("noon ", 20) + `</password></x></presence>`:              `<presence to='r@c/n'><x xmlns='http://jabber.org/protocol/muc'><password/></x></presence>`,
		`<presence to='b@x' id='a b'><show>away</show></presence>`:                                                                                            `<presence to='b@x'><show>away</show></presence>`,
		`<presence to='b@x'><c xmlns='http://jabber.org/protocol/caps' node='https://gajim.org' ver='nU3tLeo4S87Oo8+3JnXBOm3a0A8=' hash='sha-1'/></presence>`: "",
		`<presence to='b@x'><c xmlns='http://jabber.org/protocol/caps' node='https://gajim.org' ver='noon' hash='sha-1'/></presence>`:                         `<presence to='b@x'/>`,
	} {
		if want == "" {
			want = raw
		}
		if out := string(PresenceOut(nil, parsed(t, raw), builtIn, false)); out != want {
			t.Errorf("%s became %s", raw, out)
		}
	}
}

// What a program answers about itself leaves without what could be a sentence, and is answered
// all the same; what is no answer of the kind is not.
func TestAnswersLeaveWithoutSentences(t *testing.T) {
	rule := config.Default().RuleFor("a@b", "c@d")
	for in, want := range map[string]string{
		`<query xmlns='http://jabber.org/protocol/disco#info' node='n#1'><identity category='client' type='bot' name='meet me at noon then'/><feature var='urn:xmpp:ping'/></query>`: `<query xmlns='http://jabber.org/protocol/disco#info' node='n#1'><identity category='client' type='bot'/><feature var='urn:xmpp:ping'/></query>`,
		`<query xmlns='jabber:iq:version'><name>x</name><version>1</version><os>I use arch btw, you know</os></query>`:                                                               `<query xmlns='jabber:iq:version'><name>x</name><version>1</version><os/></query>`,
		`<query xmlns='urn:x'>words</query>`: "",
	} {
		st, err := stanza.Parse([]byte("<iq type='result' id='i' to='c@d/r'>" + in + "</iq>"))
		if err != nil {
			t.Fatal(err)
		}
		got, ok := AnswerOut(st.Root(), ToContact, rule)
		if ok != (want != "") || ok && string(got) != `<iq type='result' to='c@d/r' id='i'>`+want+"</iq>" {
			t.Errorf("%s: %v %s", in, ok, got)
		}
	}
}
