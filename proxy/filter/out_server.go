package filter

import (
	"maps"
	"slices"
	"strings"

	"otrproxy/config"
	"otrproxy/stanza"
)

// Requests to the account's own server and to services, as they may leave under a rule that
// demands encryption. What a person fills in for a server is among them: names and groups on
// their list of contacts, forms, passwords. What they write for somebody to read is not.

// What a person fills in, and what programs make.
var (
	label       = short(256)                                                   // what a person calls something: a contact, a group, a list
	entry       = short(1024)                                                  // a line of a form for a service
	caption     = short(200)                                                   // what a server calls a field of a form
	made        = func(s []byte) bool { return len(s) <= 512 && noBlank(s) }   // a name that programs make: a node, a query
	itemID      = func(s []byte) bool { return len(s) <= 3071 && noBlanks(s) } // the same, or an address
	jid         = func(s []byte) bool { return len(s) <= 3071 && address(s) }
	noBlanks    = matches(`[^\s<>"']*`)
	stampOrNone = func(s []byte) bool { return len(s) == 0 || stamp(s) }
	countOrMax  = func(s []byte) bool { return string(s) == "max" || number(s) }
	fieldType   = oneOf("", "boolean", "fixed", "hidden", "jid-multi", "jid-single", "list-multi", "list-single", "text-multi", "text-private", "text-single")
	contacts    = Forms{"item": {Attrs: Attrs{"jid": jid}}}
	addresses   = &Form{Own: Forms{"jid": {Text: jid}}}
	pages       = Table{NSRSM: {"set": {Own: Forms{"max": {Text: number}, "before": {Text: itemID}, "after": {Text: itemID}, "index": {Text: number}}}}} // XEP-0059
)

// form is a data form of known fields, which programs fill in (XEP-0004). Some, as Dino, send
// it back with all that the server has written in it (XEP-0122).
func form(fields map[string]Check) Table {
	fit := func(el stanza.Element, check Check) bool {
		for v := range el.Children() {
			if string(v.Local()) == "value" && !check(v.TextBytes()) {
				return false
			}
		}
		return true
	}
	return Table{NSData: {"x": {Attrs: Attrs{"type": oneOf("submit", "cancel", "get")}, Own: Forms{
		"title": {Text: caption}, "instructions": {Text: caption},
		"field": {Attrs: Attrs{"var": made, "type": fieldType, "label": caption}, Own: Forms{
			"value": {Text: words}, "required": {}, "desc": {Text: caption}, "option": {Attrs: Attrs{"label": caption}, Own: Forms{"value": {Text: words}}}},
			Inner: Table{"http://jabber.org/protocol/xdata-validate": {"validate": {Attrs: Attrs{"datatype": made}, Own: Forms{
				"basic": {}, "open": {}, "range": {Attrs: Attrs{"min": number, "max": number}}}}}},
			Sound: func(el stanza.Element) bool {
				check := fields[el.Attr("var")]
				if check == nil || !fit(el, check) {
					return false
				}
				for c := range el.Children() {
					if string(c.Local()) == "option" && !fit(c, check) {
						return false
					}
				}
				return true
			}}}}}}
}

// freeForm is one that a person fills in for a service. Some programs send it back with all
// that the service has written in it.
var freeForm = Table{NSData: {"x": {Attrs: Attrs{"type": oneOf("submit", "cancel", "form", "result")}, Own: Forms{
	"title": {Text: entry}, "instructions": {Text: entry},
	"field": {Attrs: Attrs{"var": made, "type": fieldType, "label": entry}, Own: Forms{
		"value": {Text: entry}, "required": {}, "desc": {Text: entry}, "option": {Attrs: Attrs{"label": entry}, Own: Forms{"value": {Text: entry}}}}}}}}}

// archiveFields narrow down what is asked of an archive (XEP-0313, XEP-0441). Words to
// search for are none of them.
var archiveFields = map[string]Check{"FORM_TYPE": nsName, "with": jid, "start": stampOrNone, "end": stampOrNone,
	"ids": itemID, "before-id": itemID, "after-id": itemID, "include-groupchat": boolean}

// nodeFields configure a node (XEP-0060 section 16.4). A title and a description are words.
var (
	nodeFields = fields(map[string]Check{
		"access_model":                oneOf("authorize", "open", "presence", "roster", "whitelist"),
		"publish_model":               oneOf("publishers", "subscribers", "open"),
		"send_last_published_item":    oneOf("never", "on_sub", "on_sub_and_presence"),
		"node_type":                   oneOf("leaf", "collection"),
		"notification_type":           oneOf("normal", "headline", "chat"),
		"itemreply":                   oneOf("owner", "publisher", "none"),
		"children_association_policy": oneOf("all", "owners", "whitelist"),
		"show-values":                 oneOf("away", "chat", "dnd", "online", "xa"),
		"subscription_type":           oneOf("items", "nodes"),
		"subscription_depth":          oneOf("1", "all"),
		"roster_groups_allowed":       label, // as on the list of contacts
		"type":                        func(s []byte) bool { return len(s) == 0 || nsName(s) || string(s) == "http://www.w3.org/2005/Atom" },
		"language":                    func(s []byte) bool { return len(s) == 0 || language(s) },
		"expire":                      func(s []byte) bool { return string(s) == "presence" || stampOrNone(s) },
	}, map[string]Check{
		"deliver deliver_notifications deliver_payloads digest include_body notify_config notify_delete notify_retract notify_sub persist_items": boolean,
		"presence_based_delivery purge_offline subscribe tempsub rsm multi-subscribe send_item_subscribe":                                        boolean,
		"max_items max_payload_size item_expire children_max digest_frequency":                                                                   countOrMax,
		"body_xslt dataform_xslt title description":                                                                                              blank,
		"collection children contact children_association_whitelist replyroom replyto":                                                           itemID,
	})
	titledFields = fields(nil, map[string]Check{"title description": entry}, nodeFields)
	// pushFields come with a registration for push, with a secret of the program's (XEP-0357).
	pushFields = fields(nil, nil, nodeFields, map[string]Check{"secret": token, "pubsub#node": made})
)

// fields are checks by the names of fields after "pubsub#", one or several in a name, and
// others as they are.
func fields(one, several map[string]Check, whole ...map[string]Check) map[string]Check {
	all := map[string]Check{"FORM_TYPE": nsName}
	for _, more := range whole {
		maps.Copy(all, more)
	}
	for _, named := range []map[string]Check{one, several} {
		for names, check := range named {
			for _, name := range strings.Fields(names) {
				all["pubsub#"+name] = check
			}
		}
	}
	return all
}

// both are forms of two tables, the second one's before the first one's.
func both(a, b Table) Table {
	all := maps.Clone(a)
	for ns, forms := range b {
		all[ns] = maps.Clone(forms)
		for name, f := range a[ns] {
			if _, ok := forms[name]; !ok {
				all[ns][name] = f
			}
		}
	}
	return all
}

// toServer are requests to the account's server and to services, by their type.
var toServer = map[string]Table{
	"get": both(Table{
		"urn:xmpp:ping":                    {"ping": {}},                                                                                    // XEP-0199
		NSDiscoInfo:                        {"query": {Attrs: Attrs{"node": made}}},                                                         // XEP-0030
		NSDiscoItems:                       {"query": {Attrs: Attrs{"node": made}, Inner: pages}},                                           //
		"jabber:iq:version":                {"query": {}},                                                                                   // XEP-0092
		"jabber:iq:time":                   {"query": {}},                                                                                   // XEP-0090
		"jabber:iq:last":                   {"query": {}},                                                                                   // XEP-0012
		"jabber:iq:browse":                 {"query": {}},                                                                                   // XEP-0011
		"jabber:iq:agents":                 {"query": {}},                                                                                   // XEP-0094
		"jabber:iq:avatar":                 {"query": {}},                                                                                   // XEP-0008
		"storage:client:avatar":            {"query": {}},                                                                                   //
		"jabber:iq:auth":                   {"query": {Own: Forms{"username": {Text: made}}}},                                               // XEP-0078
		"jabber:iq:register":               {"query": {}},                                                                                   // XEP-0077
		"jabber:iq:search":                 {"query": {}},                                                                                   // XEP-0055
		"jabber:iq:gateway":                {"query": {}},                                                                                   // XEP-0100
		"jabber:iq:private":                {"query": {Opaque: true}},                                                                       // XEP-0049
		"jabber:iq:privacy":                {"query": {Own: Forms{"list": {Attrs: Attrs{"name": label}}}}},                                  // XEP-0016
		"urn:xmpp:time":                    {"time": {}},                                                                                    // XEP-0202
		"urn:xmpp:blocking":                {"blocklist": {}},                                                                               // XEP-0191
		"vcard-temp":                       {"vCard": {}},                                                                                   // XEP-0054
		"urn:ietf:params:xml:ns:vcard-4.0": {"vcard": {}},                                                                                   // XEP-0292
		"google:jingleinfo":                {"query": {}},                                                                                   //
		NSMUC + "#unique":                  {"unique": {}},                                                                                  // XEP-0307
		NSRoster:                           {"query": {Attrs: Attrs{"ver": made}, Inner: Table{"urn:xmpp:mix:roster:0": {"annotate": {}}}}}, // RFC 6121, XEP-0405
		"http://jabber.org/protocol/stats": {"query": {Own: Forms{"stat": {Attrs: Attrs{"name": made}}}}},                                   // XEP-0039
		NSPubSub: {"pubsub": {Own: Forms{ // XEP-0060
			"items":         {Attrs: Attrs{"node": made, "max_items": number, "subid": made}, Own: Forms{"item": {Attrs: Attrs{"id": itemID}}}},
			"subscriptions": {Attrs: Attrs{"node": made}}, "affiliations": {Attrs: Attrs{"node": made}}, "default": {Attrs: Attrs{"node": made}},
			"options": {Attrs: Attrs{"node": made, "jid": jid, "subid": made}, Inner: form(nodeFields)}}, Inner: pages}},
		NSPubSub + "#owner": {"pubsub": {Own: Forms{
			"configure": {Attrs: Attrs{"node": made}}, "default": {}, "subscriptions": {Attrs: Attrs{"node": made}}, "affiliations": {Attrs: Attrs{"node": made}}}, Inner: pages}},
		"urn:xmpp:archive": { // XEP-0136
			"pref": {}, "list": {Attrs: archived, Inner: pages}, "retrieve": {Attrs: archived, Inner: pages}, "modified": {Attrs: Attrs{"start": stamp}, Inner: pages}},
	}, either),
	"set": both(Table{
		stanza.NSBind:                         {"bind": {Own: Forms{"resource": {Text: label}, "required": {}, "optional": {}}}}, // RFC 6120; libstrophe repeats what the server has in its feature
		"urn:ietf:params:xml:ns:xmpp-session": {"session": {Own: Forms{"optional": {}, "required": {}}}},                         // RFC 3921
		NSCarbons:                             {"enable": {}, "disable": {}},                                                     // XEP-0280
		NSRoster: {"query": {Own: Forms{"item": {Attrs: Attrs{"jid": jid, "name": label, "subscription": oneOf("none", "to", "from", "both", "remove"), "ask": oneOf("subscribe"), "approved": boolean},
			Own: Forms{"group": {Text: label}}}}}},
		"urn:xmpp:blocking": {
			"block": {Own: Forms{"item": {Attrs: Attrs{"jid": jid}, Inner: Table{ // XEP-0377, without its text
				"urn:xmpp:reporting:0": {"report": {Own: Forms{"spam": {}, "abuse": {}}}},
				"urn:xmpp:reporting:1": {"report": {Attrs: Attrs{"reason": oneOf("urn:xmpp:reporting:spam", "urn:xmpp:reporting:abuse")},
					Inner: Table{NSStanzaID: {"stanza-id": {Attrs: Attrs{"id": token, "by": jid}}}}}}}}}},
			"unblock": {Own: contacts}},
		"jabber:iq:privacy": {"query": {Own: Forms{
			"active": {Attrs: Attrs{"name": label}}, "default": {Attrs: Attrs{"name": label}},
			"list": {Attrs: Attrs{"name": label}, Own: Forms{"item": {Attrs: Attrs{"type": oneOf("jid", "group", "subscription"), "value": label, "action": oneOf("allow", "deny"), "order": number},
				Own: empty("message iq presence-in presence-out")}}}}}},
		"jabber:iq:register": {"query": {Own: fills("username nick password name first last email address city state zip phone url date key").with("registered", &Form{}).with("remove", &Form{}), Inner: freeForm}},
		"jabber:iq:search":   {"query": {Own: fills("first last nick email"), Inner: both(freeForm, pages)}},
		"jabber:iq:gateway":  {"query": {Own: fills("prompt")}},
		"http://jabber.org/protocol/commands": {"command": {Attrs: Attrs{"node": made, "sessionid": made, "action": oneOf("execute", "next", "prev", "complete", "cancel")}, // XEP-0050
			Inner: freeForm}},
		NSPubSub: {"pubsub": {Own: Forms{
			"publish":         {Attrs: Attrs{"node": made}, Own: Forms{"item": {Attrs: Attrs{"id": itemID, "publisher": jid}, Inner: publishedAlways, Opaque: true}}},
			"publish-options": {Inner: form(nodeFields)},
			"retract":         {Attrs: Attrs{"node": made, "notify": boolean}, Own: Forms{"item": {Attrs: Attrs{"id": itemID}}}},
			"create":          {Attrs: Attrs{"node": made, "type": oneOf("leaf", "collection")}}, "configure": {Attrs: Attrs{"node": made}, Inner: form(nodeFields)},
			"subscribe": {Attrs: Attrs{"node": made, "jid": jid}}, "unsubscribe": {Attrs: Attrs{"node": made, "jid": jid, "subid": made}},
			"options": {Attrs: Attrs{"node": made, "jid": jid, "subid": made}, Inner: form(nodeFields)}}}},
		NSPubSub + "#owner": {"pubsub": {Own: Forms{
			"configure": {Attrs: Attrs{"node": made}, Inner: form(nodeFields)}, "purge": {Attrs: Attrs{"node": made}},
			"delete":        {Attrs: Attrs{"node": made}, Own: Forms{"redirect": {Attrs: Attrs{"uri": uri}}}},
			"affiliations":  {Attrs: Attrs{"node": made}, Own: Forms{"affiliation": {Attrs: Attrs{"jid": jid, "affiliation": oneOf("owner", "publisher", "publish-only", "member", "none", "outcast")}}}},
			"subscriptions": {Attrs: Attrs{"node": made}, Own: Forms{"subscription": {Attrs: Attrs{"jid": jid, "subid": made, "subscription": oneOf("none", "pending", "subscribed", "unconfigured")}}}}}}},
		"urn:xmpp:push:0": { // XEP-0357, and what Tigase's programs say beside it
			"enable": {Attrs: Attrs{"jid": jid, "node": made, "away": boolean}, Inner: both(form(pushFields), Table{
				"tigase:push:encrypt:0":               {"encrypt": {Attrs: Attrs{"alg": matches(`aes-[0-9]{3}-gcm`), "max-size": number}, Text: sealedAs(keyChance.random)}},
				"tigase:push:priority:0":              {"priority": {}},
				"tigase:push:filter:ignore-unknown:0": {"ignore-unknown": {}},
				"tigase:push:filter:muted:0":          {"muted": {Own: contacts}}})},
			"disable": {Attrs: Attrs{"jid": jid, "node": made}}},
		"urn:xmpp:mix:pam:0":  pam,
		"urn:xmpp:mix:pam:1":  pam,
		"urn:xmpp:mix:pam:2":  pam, // XEP-0405
		"urn:xmpp:mix:core:0": channels,
		"urn:xmpp:mix:core:1": channels,                                            // XEP-0369
		"urn:xmpp:pars:0":     {"preauth": {Attrs: Attrs{"token": token}}},         // XEP-0445
		"urn:xmpp:captcha":    {"captcha": {Inner: freeForm}},                      // XEP-0158
		"urn:xmpp:cam:0":      {"list": {}, "revoke": {Attrs: Attrs{"id": token}}}, // XEP-0494
		"urn:xmpp:archive": { // XEP-0136, but for what it saves
			"pref": {Own: Forms{
				"auto": automatic, "default": {Attrs: preferred}, "item": {Attrs: with(preferred, "jid", jid)}, "session": {Attrs: with(preferred, "thread", opaqueName)},
				"method": {Attrs: Attrs{"type": oneOf("auto", "local", "manual"), "use": preference}}}},
			"auto": automatic, "remove": {Attrs: archived},
			"itemremove": {Own: contacts}, "sessionremove": {Own: Forms{"session": {Attrs: Attrs{"thread": opaqueName}}}}},
	}, either),
	"result": both(answerForms, Table{
		"http://jabber.org/protocol/http-auth": {"confirm": {Attrs: Attrs{"id": made, "method": oneOf("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"), "url": uri}}}, // XEP-0070
		"urn:xmpp:push:0":                      {"enable": {}, "disable": {}},
		NSDiscoInfo: {"query": {Attrs: Attrs{"node": noBlank}, Own: Forms{
			"identity": {Attrs: Attrs{"category": algorithm, "type": algorithm, "name": programName}}, "feature": {Attrs: Attrs{"var": noBlank}}},
			Inner: Table{NSData: {"x": {Attrs: Attrs{"type": oneOf("result")}, Own: Forms{"field": {Attrs: Attrs{"var": token, "type": fieldType}, Own: Forms{"value": {Text: aboutProgram}},
				Inner: Table{"urn:xmpp:media-element": {"media": {Attrs: Attrs{"height": number, "width": number}, Own: Forms{"uri": {Attrs: Attrs{"type": made}, Text: uri}}}}}}}}}}}},
		"http://jabber.org/protocol/commands": {"command": {Attrs: Attrs{"node": made, "sessionid": made, "status": oneOf("executing", "completed", "canceled")}, Own: Forms{
			"actions": {Attrs: Attrs{"execute": oneOf("prev", "next", "complete")}, Own: empty("prev next complete")}}, Inner: freeForm}}, // without its note
	}),
}

// either are requests that programs make by get as well as by set.
var either = Table{
	"urn:xmpp:mam:tmp": asking0313,
	"urn:xmpp:mam:0":   asking0313,
	"urn:xmpp:mam:1":   asking0313,
	"urn:xmpp:mam:2":   asking0313,
	"urn:xmpp:inbox:0": asking0430,
	"urn:xmpp:inbox:1": asking0430,
	"http://jabber.org/protocol/offline": {"offline": {Own: Forms{"fetch": {}, "purge": {}, // XEP-0013
		"item": {Attrs: Attrs{"action": oneOf("view", "remove"), "node": made}}}}},
	"urn:xmpp:extdisco:1":                              asking0215,
	"urn:xmpp:extdisco:2":                              asking0215,
	"urn:xmpp:sic:0":                                   {"address": {}, "ip": {}}, // XEP-0279
	"urn:xmpp:sic:1":                                   {"address": {}, "ip": {}, "port": {}},
	"urn:xmpp:invite":                                  {"invite": {}},
	"urn:xmpp:channel-search:0:search":                 {"search": {Inner: both(freeForm, pages)}}, // XEP-0433
	"https://xmlns.zombofant.net/muclumbus/search/1.0": {"search": {Inner: both(freeForm, pages)}},
}

var (
	asking0313 = Forms{
		"query": {Attrs: Attrs{"queryid": made, "node": made}, Inner: both(form(archiveFields), pages),
			Own: Forms{"with": {Text: jid}, "start": {Text: stamp}, "end": {Text: stamp}, "flip-page": {}}}, // of its first versions
		"prefs":    {Attrs: Attrs{"default": oneOf("always", "never", "roster")}, Own: Forms{"always": addresses, "never": addresses}},
		"metadata": {}}
	asking0430 = Forms{"inbox": {Attrs: Attrs{"queryid": made, "unread-only": boolean, "messages": boolean}, Inner: pages}}
	asking0215 = Forms{"services": {Attrs: Attrs{"type": algorithm}}, "credentials": {Own: Forms{"service": {Attrs: Attrs{"host": itemID, "type": algorithm, "port": number}}}}}

	archived   = Attrs{"with": jid, "start": stamp, "end": stamp, "exactmatch": boolean, "open": boolean}
	preference = oneOf("concede", "forbid", "prefer", "oppose", "approve", "require", "body", "false", "message", "stream", "roster")
	preferred  = Attrs{"expire": number, "otr": preference, "save": preference, "unset": boolean, "exactmatch": boolean, "timeout": number}
	automatic  = &Form{Attrs: Attrs{"save": boolean, "scope": oneOf("global", "stream")}}

	mixJoin  = &Form{Attrs: Attrs{"id": token, "jid": jid, "channel": itemID}, Own: Forms{"subscribe": {Attrs: Attrs{"node": made}}, "unsubscribe": {Attrs: Attrs{"node": made}}, "nick": {Text: label}}}
	mix      = Forms{"join": mixJoin, "leave": {}, "update-subscription": mixJoin, "setnick": {Own: Forms{"nick": {Text: label}}}}
	channels = mix.with("create", &Form{Attrs: Attrs{"channel": itemID}}).with("destroy", &Form{Attrs: Attrs{"channel": itemID}})
	pam      = Forms{
		"client-join":  {Attrs: Attrs{"channel": jid}, Inner: Table{"urn:xmpp:mix:core:0": mix, "urn:xmpp:mix:core:1": mix}},
		"client-leave": {Attrs: Attrs{"channel": jid}, Inner: Table{"urn:xmpp:mix:core:0": mix, "urn:xmpp:mix:core:1": mix}}}
)

func with(of Attrs, name string, check Check) Attrs {
	all := maps.Clone(of)
	all[name] = check
	return all
}

// fills are elements with a line in each.
func fills(names string) Forms {
	all := Forms{}
	for _, name := range strings.Fields(names) {
		all[name] = &Form{Text: entry}
	}
	return all
}

// publishedAlways is what programs publish of themselves: public keys, and what has been
// read (XEP-0490).
var publishedAlways = both(keysOut, Table{
	"urn:xmpp:mds:displayed:0": {"displayed": {Inner: Table{NSStanzaID: {"stanza-id": {Attrs: Attrs{"id": token, "by": jid}}}}}},
})

// published is what people publish about themselves, for rules with allow: [status].
var published = both(both(personal, keysOut), Table{
	"urn:xmpp:avatar:data":                {"data": {Text: base64Bytes}},
	"urn:xmpp:omemo:1":                    {"devices": omemoDevices},
	"urn:xmpp:omemo:2":                    {"devices": omemoDevices},
	"urn:xmpp:openpgp:0":                  {"pubkey": {Attrs: Attrs{"date": stamp}, Own: Forms{"data": {Text: armoredAs(openPGPKey(label))}}}},
	"urn:xmpp:bookmarks:1":                {"conference": {Any: true}},                 // XEP-0402
	"storage:bookmarks":                   {"storage": {Any: true}},                    // XEP-0048
	"http://www.w3.org/2005/Atom":         {"entry": {Any: true}, "feed": {Any: true}}, // XEP-0277
	"vcard-temp":                          {"vCard": {Any: true}},
	"urn:xmpp:reach:0":                    {"reach": {Any: true}},                          // XEP-0152
	"urn:xmpp:gaming:0":                   {"game": {Any: true}},                           // XEP-0196
	"http://jabber.org/protocol/chatting": {"room": {Any: true}},                           // XEP-0194
	"http://jabber.org/protocol/browsing": {"page": {Any: true}},                           // XEP-0195
	"http://jabber.org/protocol/viewing":  {"video": {Any: true}},                          // XEP-0197
	"urn:xmpp:moved:1":                    {"moved": {Own: Forms{"new-jid": {Text: jid}}}}, // XEP-0283
	"urn:xmpp:mds:displayed:0":            publishedAlways["urn:xmpp:mds:displayed:0"],
})

// bookmarks are kept at the server for the account's own programs (XEP-0048).
var bookmarks = Forms{"storage": {Own: Forms{
	"conference": {Attrs: Attrs{"name": label, "jid": jid, "autojoin": boolean, "minimize": boolean}, Own: Forms{"nick": {Text: label}, "password": {Text: secret}}, Opaque: true},
	"url":        {Attrs: Attrs{"name": label, "url": uri}}}, Opaque: true}}

// telling are requests by which people tell about themselves, and label what is theirs, for
// rules with allow: [status].
var telling = Table{
	"vcard-temp":                       {"vCard": {Any: true}},
	"urn:ietf:params:xml:ns:vcard-4.0": {"vcard": {Any: true}},
	"jabber:iq:avatar":                 {"query": {Own: Forms{"data": {Attrs: Attrs{"mimetype": made}, Text: base64Bytes}}}},
	"storage:client:avatar":            {"query": {Own: Forms{"data": {Attrs: Attrs{"mimetype": made}, Text: base64Bytes}}}},
	"jabber:iq:private": {"query": {Opaque: true, Inner: Table{
		"storage:bookmarks":    bookmarks,
		"storage:metacontacts": {"storage": {Own: Forms{"meta": {Attrs: Attrs{"jid": jid, "tag": label, "order": number}}}}}, // XEP-0209
		"roster:delimiter":     {"roster": {Text: short(16)}},                                                                // XEP-0083
		"storage:metadata":     {"storage": {Opaque: true}},
	}}},
	NSPubSub: {"pubsub": {Own: Forms{
		"publish":         {Attrs: Attrs{"node": made}, Own: Forms{"item": {Attrs: Attrs{"id": itemID, "publisher": jid}, Inner: published, Opaque: true}}},
		"publish-options": {Inner: form(titledFields)},
		"create":          {Attrs: Attrs{"node": made, "type": oneOf("leaf", "collection")}}, "configure": {Attrs: Attrs{"node": made}, Inner: form(titledFields)}}}},
	NSPubSub + "#owner": {"pubsub": {Own: Forms{"configure": {Attrs: Attrs{"node": made}, Inner: form(titledFields)}}}},
}

// refusals name what does not pass, by the namespace or its beginning; the first one counts.
var refusals = []struct{ begins, what string }{
	{"urn:xmpp:archive", "what your program saves of your conversations at the server"}, // XEP-0136, XEP-0241
	{"http://www.xmpp.org/extensions/xep-0136.html", "what your program saves of your conversations at the server"},
	{"urn:xmpp:mam:", "a search for words in the archive"},
	{"urn:xmpp:fulltext:", "a search for words in the archive"},
	{"urn:xmpp:inbox:", "a search for words in the archive"},
	{"urn:xmpp:langtrans", "a translation"}, // XEP-0171
	{"http://jabber.org/protocol/langtrans", "a translation"},
	{"urn:xmpp:reminders", "a reminder"}, // XEP-0435
	{"urn:xmpp:blocking", "a report with the text of messages"},
	{"urn:xmpp:reporting", "a report with the text of messages"}, // XEP-0377
	{"urn:xmpp:spam", "a report with the text of messages"},
	{"jabber:iq:private", "notes of yours"},
	{"storage:", "notes of yours"},
	{"google:shared-status", "your status"},
	{"jabber:iq:rpc", "a call of a procedure with words in it"}, // XEP-0009
	{"urn:xmpp:http", "a web request"},                          // XEP-0332
	{"jabber:iq:roster", "words beside the list of contacts"},
	{"jabber:iq:register", "words beside a registration"},
	{"http://jabber.org/protocol/commands", "words beside a command"},
	{NSPubSub, "what you publish"},
	{NSForward, "a forwarded message"},
}

// refusal names a request to the server that does not pass.
func refusal(el stanza.Element, typ string) string {
	ns := string(el.NS())
	for d := range el.Descendants() {
		switch {
		case string(d.NS()) == "storage:rosternotes": // XEP-0145
			return "notes about contacts"
		case ns == NSPubSub && string(d.Local()) == "publish" && typ != "set":
			return "what is published by a request of another kind"
		}
	}
	for _, r := range refusals {
		if strings.HasPrefix(ns, r.begins) {
			return r.what
		}
	}
	if k := content[ns]; k.what != "" {
		return k.what
	}
	return "an extension of your program (" + clip(string(el.Local())) + ")"
}

// listedOnly are namespaces whose requests pass in their forms alone, even where there is
// no word in them.
var listedOnly = []string{NSPubSub, "urn:xmpp:archive", "urn:xmpp:archive:2"}

// toServerOut names what of a request to the server does not pass; "" for nothing.
func toServerOut(el stanza.Element, typ string, rule *config.Rule) string {
	if f := toServer[typ].of(el); f != nil && f.fits(el, nil) {
		return ""
	}
	if f := telling.of(el); f != nil && typ == "set" && f.fits(el, nil) {
		if rule.Allows(config.Status) {
			return ""
		}
		return "what you tell everybody about yourself" + permitting(config.Status, false)
	}
	if (typ == "get" || typ == "set" || typ == "result") && !slices.Contains(listedOnly, string(el.NS())) && wordless(el) {
		return ""
	}
	return refusal(el, typ) + permitting(config.Services, false)
}
