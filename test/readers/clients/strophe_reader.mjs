// Reads stanzas as a client on Strophe.js does: its connection hands them to handlers, and
// those look as its plugins and most clients on it do, by getElementsByTagName or jQuery,
// which go by name, whatever the depth and the namespace, and the latter whatever the
// prefix. Lines of JSON in and out: see readers.go.
import {createInterface} from "node:readline";
import {DOMParser} from "@xmldom/xmldom";
import {Strophe} from "strophe.js";

const own = "alice@example.org";
const head = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";
let shown, room, handled;

const show = (as, from, ...texts) => {
	for (const text of texts) if (text && text.trim()) shown.push({as, from: from || "", text});
};
const named = (e, name) => e ? [...e.getElementsByTagName("*")].filter(x => name === "*" || x.localName === name) : [];
// first is the first element of a name, at any depth.
const first = (e, name, ns) => named(e, name).find(x => !ns || x.namespaceURI === ns) || null;
const text = e => e ? e.textContent : "";
const bare = jid => jid ? Strophe.getBareJidFromJid(jid) : "";

function say(as, m) {
	const from = m.getAttribute("from");
	if (m.getAttribute("type") === "error") {
		show("message", from, text(first(m, "text") || first(m, "error")));
		return;
	}
	if (m.getAttribute("type") === "groupchat" && bare(from) !== room) return;
	for (const e of named(m, "nick")) show("name", from, text(e));
	for (const e of named(m, "item")) {
		const mood = first(e, "mood") || first(e, "tune") || first(e, "activity");
		if (mood) show("info", from, text(mood));
	}
	show(as, from, text(first(m, "body")), text(first(m, "subject")), text(first(first(m, "html"), "body")));
	for (const x of named(m, "x")) {
		show(as, from, x.getAttribute("reason"), text(first(x, "reason")), text(first(x, "url")), text(first(x, "desc")), text(first(x, "title")), text(first(x, "instructions")));
		for (const e of named(x, "field")) show(as, from, e.getAttribute("label"), text(e));
		for (const e of named(x, "item")) show(as, from, e.getAttribute("name"));
	}
	for (const e of named(m, "reaction")) show(as, from, text(e));
	const confirm = first(m, "confirm");
	if (confirm) show(as, from, confirm.getAttribute("url"), confirm.getAttribute("method"));
	if (first(m, "attention")) show(as, from, "attention");
}

function message(m) {
	handled = true;
	const from = m.getAttribute("from");
	const carbon = first(m, "received", "urn:xmpp:carbons:2") || first(m, "sent", "urn:xmpp:carbons:2");
	const result = first(m, "result", "urn:xmpp:mam:2");
	let inner = carbon || result;
	if (inner && (!from || from === own) && (carbon || result.getAttribute("queryid") === "q")) {
		inner = first(first(inner, "forwarded"), "message");
		if (inner) say(bare(inner.getAttribute("from")) === own || carbon && carbon.localName === "sent" ? "own" : "message", inner);
	} else if (!inner) {
		say("message", m);
	}
	return true;
}

function presence(p) {
	handled = true;
	const from = p.getAttribute("from"), type = p.getAttribute("type");
	if (type === "error") {
		show("message", from, text(first(p, "text") || first(p, "error")));
		return true;
	}
	show(type === "subscribe" ? "message" : "presence", from, text(first(p, "status")), text(first(p, "show")));
	show("name", from, text(first(p, "nick")));
	const item = first(p, "item");
	if (item && bare(from) === room) {
		show("name", from, item.getAttribute("nick"));
		show("message", from, text(first(p, "reason")), first(item, "actor")?.getAttribute("nick"));
	}
	return true;
}

function iq(stanza) {
	handled = true;
	const from = stanza.getAttribute("from"), type = stanza.getAttribute("type");
	if (type === "error") {
		show("info", from, text(first(stanza, "text")));
	} else if (first(stanza, "query", Strophe.NS.ROSTER)) {
		if (type === "set" && from && bare(from) !== own) return true;
		for (const item of named(stanza, "item")) {
			show("name", item.getAttribute("jid"), item.getAttribute("name"));
			for (const group of named(item, "group")) show("name", item.getAttribute("jid"), text(group));
		}
	} else if (type === "result") {
		// An answer counts by its number, and every question is open.
		for (const e of named(stanza, "*")) {
			if (!first(e, "*")) show("info", from, text(e));
			show(e.localName === "conference" ? "name" : "info", from, e.getAttribute("name"), e.getAttribute("label"));
		}
	}
	return true;
}

const connection = new Strophe.Connection("ws://127.0.0.1/");
connection._proto._reqToData = r => r;
connection.connected = connection.authenticated = true;
connection.jid = own + "/c";
const handlers = [[message, "message"], [presence, "presence"], [iq, "iq"]];
Strophe.log = () => {};

for await (const line of createInterface({input: process.stdin})) {
	const request = JSON.parse(line);
	let error = "";
	shown = [], room = request.room || "", handled = false;
	try {
		const doc = new DOMParser({onError: (level, text) => { if (level !== "warning") throw new Error(text); }}).parseFromString(head + request.xml + "</stream:stream>", "text/xml");
		connection.handlers = [];
		for (const [handler, name] of handlers) connection.handlers.push(new Strophe.Handler(handler, null, name));
		connection._dataRecv(doc.documentElement);
		if (!handled) error = "Strophe.js handed it to nobody";
	} catch (e) {
		error = String(e);
	}
	console.log(JSON.stringify({n: request.n, shown, error}));
}
process.exit(0);
