package filter

import (
	"bytes"
	"slices"
	"strings"

	"otrproxy/config"
	"otrproxy/stanza"
)

// What a request to a contact's program may hold, and what one of a contact's may be
// answered with.
var (
	requestForms = Table{
		"urn:xmpp:ping":                    {"ping": {}},
		NSDiscoInfo:                        {"query": {Attrs: Attrs{"node": noBlank}}},
		NSDiscoItems:                       {"query": {Attrs: Attrs{"node": noBlank}, Inner: paging}},
		"jabber:iq:version":                {"query": {}},
		"jabber:iq:time":                   {"query": {}},
		"jabber:iq:last":                   {"query": {}},
		"jabber:iq:avatar":                 {"query": {}},
		"jabber:iq:register":               {"query": {}},
		"urn:xmpp:time":                    {"time": {}},
		"vcard-temp":                       {"vCard": {}},
		"urn:ietf:params:xml:ns:vcard-4.0": {"vcard": {}},
		NSMUC + "#owner":                   {"query": {}},
		NSMUC + "#admin":                   {"query": {Own: Forms{"item": {Attrs: Attrs{"affiliation": noBlank, "role": noBlank}}}}},
		NSPubSub:                           {"pubsub": {Own: Forms{"items": {Attrs: Attrs{"node": noBlank, "max_items": noBlank}, Own: Forms{"item": {Attrs: Attrs{"id": noBlank}}}}}, Inner: paging}},
	}
	settingForms = Table{
		"urn:xmpp:mam:1": {"query": archiveForm},
		"urn:xmpp:mam:2": {"query": archiveForm},
		NSMUC + "#owner": {"query": {Inner: Table{NSData: {"x": {Attrs: Attrs{"type": noBlank}}}}}}, // a room as it comes (XEP-0045 section 10.1.2)
	}
	answerForms = Table{
		"urn:xmpp:ping": {"ping": {}},
		NSDiscoInfo: {"query": {Attrs: Attrs{"node": noBlank}, Own: Forms{
			"identity": {Attrs: Attrs{"category": algorithm, "type": algorithm, "name": programName}}, "feature": {Attrs: Attrs{"var": noBlank}}},
			Inner: Table{NSData: {"x": {Attrs: Attrs{"type": oneOf("result")}, Own: Forms{"field": {Attrs: Attrs{"var": token, "type": fieldType}, Own: Forms{"value": {Text: aboutProgram}}}}}}}}}, // XEP-0128, XEP-0232
		NSDiscoItems:        {"query": {Attrs: Attrs{"node": noBlank}, Own: Forms{"item": {Attrs: Attrs{"jid": noBlank, "node": noBlank, "name": programName}}}}},
		"jabber:iq:version": {"query": {Own: Forms{"name": {Text: programName}, "version": {Text: programName}, "os": {Text: programName}}}},
		"jabber:iq:time":    {"query": {Own: Forms{"utc": {Text: clock}, "tz": {Text: programName}, "display": {Text: programName}}}},
		"urn:xmpp:time":     {"time": {Own: Forms{"utc": {Text: clock}, "tzo": {Text: matches(`Z|[+-][0-9]{2}:[0-9]{2}`)}}}},
		"jabber:iq:last":    {"query": {Attrs: Attrs{"seconds": number}}},
	}
	// Of rooms, whose members and archive may be read where nothing may be said there.
	archiveForm = &Form{Attrs: Attrs{"queryid": noBlank, "node": noBlank}, Inner: Table{
		NSData: {"x": {Attrs: Attrs{"type": noBlank}, Own: Forms{"field": {Attrs: Attrs{"var": noBlank, "type": noBlank}, Own: Forms{"value": {Text: matches(`urn:xmpp:mam:[0-9]|[0-9TZ:.+-]*`)}}}}}},
		NSRSM:  paging[NSRSM]}}
	paging = Table{NSRSM: {"set": {Own: Forms{"max": {Text: noBlank}, "before": {Text: noBlank}, "after": {Text: noBlank}, "index": {Text: noBlank}}}}}
)

// A To is who a request of the client's is for.
type To uint8

// The addressees.
const (
	ToContact To = iota // somebody
	ToServer            // the account's own server, or a service
	ToRoom              // a room, or one that a service for rooms has
)

// RequestOut names what a request or an answer holds that a rule which demands encryption
// does not let pass; "" for nothing.
func RequestOut(root stanza.Element, to To, rule *config.Rule) (what string) {
	typ := root.Attr("type")
	if to == ToServer && rule.Allows(config.Services) {
		return ""
	}
	file := CarriesFile(root)
	if file && !rule.Allows(config.Files) {
		return "files and calls" + permitting(config.Files, true)
	}
	if to == ToRoom && rule.Allows(config.Groupchat) {
		return ""
	}
	if what := aroundRequest(root, typ); what != "" {
		if to == ToServer {
			what += permitting(config.Services, false)
		}
		return what
	}
	if file && filesAlone(root) {
		return ""
	}
	forms := map[string]Table{"get": requestForms, "set": settingForms, "result": answerForms}[typ]
	for el := range root.Children() {
		if typ == "error" {
			break
		}
		if to == ToServer {
			if what := toServerOut(el, typ, rule); what != "" {
				return what
			}
			continue
		}
		if f := forms.of(el); f == nil || !f.fits(el, nil) {
			if to == ToRoom {
				return "a request to a room" + permitting(config.Groupchat, false)
			}
			return "an extension of your program (" + clip(string(el.Local())) + ")"
		}
	}
	if typ == "error" {
		return "the text of an error"
	}
	return ""
}

// aroundRequest names what stands around what is asked and must not; "" for nothing.
func aroundRequest(root stanza.Element, typ string) string {
	for name, value := range root.AttrNames() {
		if !addressing(name, value) || name == "id" && !made(root.AttrBytes("id")) {
			return "an attribute of a request"
		}
	}
	switch {
	case !slices.Contains([]string{"get", "set", "result", "error"}, typ):
		return "a request of an unknown type"
	case !blank(root.TextBytes()):
		return "text in a request"
	case !sober(root):
		return "a name that your program gives to a namespace"
	}
	return ""
}

// AnswerOut writes a program's answer anew without what may not leave of it, such as a name in
// a sentence. Ok is false where that leaves no answer.
func AnswerOut(root stanza.Element, to To, rule *config.Rule) (raw []byte, ok bool) {
	forms := answerForms
	if to == ToServer {
		forms = toServer["result"]
	}
	w := &anew{Voice: asItIs, dst: []byte("<iq type='result'")}
	for _, name := range []string{"to", "id"} {
		if value := root.AttrBytes(name); root.RawAttr(name) != nil && (name != "id" || made(value)) {
			w.dst = stanza.AppendAttr(w.dst, name, value)
		}
	}
	w.dst = append(w.dst, '>')
	from := len(w.dst)
	for el := range root.Children() {
		f := forms.of(el)
		if f == nil {
			return nil, false
		}
		w.element(f, el, []byte(nsClient))
	}
	w.close(root, from)
	again, err := stanza.Parse(w.dst)
	return w.dst, err == nil && RequestOut(again.Root(), to, rule) == ""
}

// clock is a time as programs write it, bitlbee with half of the marks.
func clock(s []byte) bool { return stamp(s) || stampOld(bytes.TrimSuffix(s, []byte("Z"))) }

// aboutProgram is a value of a form in which a program tells of itself: a name, or an
// address without blanks.
func aboutProgram(s []byte) bool { return programName(s) || len(s) <= 256 && uri(s) }

// fileNamespaces carry content that OTR cannot protect: files, and calls.
var fileNamespaces = map[string]bool{
	NSIBB:                                    true,
	"http://jabber.org/protocol/si":          true,
	"http://jabber.org/protocol/bytestreams": true,
	"urn:xmpp:http:upload:0":                 true,
	"urn:xmpp:http:upload":                   true,
	"eu:siacs:conversations:http:upload":     true,
	"jabber:iq:oob":                          true,
	"urn:xmpp:bob":                           true,
	"urn:xmpp:jingle:1":                      true,
	"http://www.google.com/session":          true,
}

// filesAlone reports whether a request holds files and nothing beside them.
func filesAlone(root stanza.Element) bool {
	for el := range root.Children() {
		if !fileNamespaces[string(el.NS())] {
			return false
		}
	}
	return blank(root.TextBytes())
}

// CarriesFile reports whether a request is about a file or a call. It looks at every element: a
// file is one wherever it stands.
func CarriesFile(root stanza.Element) bool {
	for d := range root.Descendants() {
		ns := string(d.NS())
		if fileNamespaces[ns] || strings.HasPrefix(ns, "urn:xmpp:jingle:apps:") {
			return true
		}
	}
	return false
}
