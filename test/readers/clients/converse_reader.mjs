// Reads stanzas as Converse.js does: its own parsers of messages, of rooms' messages and
// of rooms' presences, out of the build that it comes with, in a DOM for node. What else
// it looks up (src/headless/plugins/roster/contacts.js, vcard/parsers.js, muc/utils.js,
// disco/entity.js) is repeated here. Lines of JSON in and out: see readers.go. The
// argument is the build's file.
import {readFileSync} from "node:fs";
import {createInterface} from "node:readline";
import {JSDOM, VirtualConsole} from "jsdom";

const own = "alice@example.org";
const head = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";
const {window} = new JSDOM("<!DOCTYPE html><html><body></body></html>", {url: "http://127.0.0.1/", runScripts: "outside-only", pretendToBeVisual: true, virtualConsole: new VirtualConsole()});
window.structuredClone ??= structuredClone;
window.crypto.subtle ?? Object.defineProperty(window, "crypto", {value: globalThis.crypto});
window.TextEncoder ??= TextEncoder;
window.TextDecoder ??= TextDecoder;

// The build exports no parser of messages: it is run as a script, in which they are named
// where they are defined.
let code = readFileSync(process.argv[2], "utf8");
for (const name of ["parseMessage", "parseMUCMessage", "parseMUCPresence"]) {
	const definition = `\nasync function ${name}(`;
	if (code.split(definition).length !== 2) throw new Error(`this Converse.js does not define ${name} once`);
	code = code.replace(definition, () => `\nwindow.${name} = ${name};${definition}`);
}
code = code.slice(0, code.lastIndexOf("\nexport {")).replaceAll("import.meta", "({})");
window.eval(`(() => {${code}\nwindow._converse = __webpack_exports___converse, window.api = __webpack_exports__api;})()`);
const {_converse, api, converse, parseMessage, parseMUCMessage, parseMUCPresence} = window;
const {sizzle, Strophe, u} = converse.env;

await converse.initialize({jid: own + "/c", authentication: "login", auto_login: false, auto_reconnect: false, discover_connection_methods: false,
	websocket_url: "ws://127.0.0.1:9/", i18n: "en", loglevel: "fatal", persistent_store: "sessionStorage", allow_non_roster_messaging: true,
	blacklisted_plugins: ["converse-omemo"]}).catch(() => {});
const session = new Map([["jid", own + "/c"], ["bare_jid", own], ["resource", "c"], ["domain", "example.org"]]);
_converse.session = {get: k => session.get(k), set: (k, v) => session.set(k, v), save() {}, trigger() {}};
Object.assign(_converse, {bare_jid: own, jid: own + "/c", resource: "c"});
// Nobody is known by a name, and no server is asked.
api.contacts.get = async () => null;
api.disco.supports = async () => true;
api.disco.features && (api.disco.features.has = async () => true);

let shown;
const show = (as, from, ...texts) => {
	for (const text of texts) {
		if (Array.isArray(text)) show(as, from, ...text);
		else if (typeof text === "string" && text.trim() && !shown.some(s => s.as === as && s.from === (from || "") && s.text === text)) shown.push({as, from: from || "", text});
	}
};
const bare = jid => jid ? Strophe.getBareJidFromJid(jid) : "";

const chatbox = jid => ({
	get: k => ({jid, nick: "alice", type: "chatroom"})[k],
	set() {}, save() {}, features: {get: () => false}, initialized: Promise.resolve(),
	occupants: {findOccupant: () => undefined, get: () => undefined, findWhere: () => undefined},
	getOccupant: () => undefined, isOwnMessage: () => false, messages: {findWhere: () => undefined, models: []}, session: {get: () => undefined},
});

// plain takes the prefixes off: a browser's selectors go by the name without them, and
// those of this DOM do not.
function plain(e) {
	let to = e;
	if (e.prefix) {
		to = e.ownerDocument.createElementNS(e.namespaceURI, e.localName);
		for (const a of [...e.attributes]) to.setAttributeNS(a.namespaceURI, a.name, a.value);
		to.append(...e.childNodes);
		e.replaceWith(to);
	}
	for (const child of [...to.children]) plain(child);
	return to;
}

async function message(m, room) {
	const from = m.getAttribute("from");
	const result = [...m.children].find(e => e.localName === "result" && e.getAttribute("xmlns") === Strophe.NS.MAM);
	if (result && result.getAttribute("queryid") !== "q") return;
	// muc/utils.js: invitations
	const direct = sizzle('x[xmlns="jabber:x:conference"]', m).pop();
	const mediated = sizzle(`x[xmlns="${Strophe.NS.MUC_USER}"] invite`, m).pop();
	if (direct) show("message", from, direct.getAttribute("reason"));
	if (mediated) show("message", mediated.getAttribute("from"), mediated.querySelector("reason")?.textContent);
	const nick = sizzle('nick[xmlns="http://jabber.org/protocol/nick"]', m).pop();
	if (nick) show("name", from, nick.textContent);
	for (const e of sizzle('items[node="urn:xmpp:bookmarks:1"] conference', m)) show("name", from, e.getAttribute("name"));
	if (m.getAttribute("type") === "groupchat" && bare(from) !== room) return;
	const groupchat = m.getAttribute("type") === "groupchat";
	const a = groupchat ? await parseMUCMessage(m, chatbox(room)) : await parseMessage(m);
	if (u.isErrorObject(a)) return; // it refuses this
	const as = a.sender === "me" && !groupchat ? "own" : "message";
	show(as, a.from || from, a.body, a.plaintext, a.error_text, a.error, a.subject, a.oob_url, a.oob_desc, a.spoiler_hint, a.moderation_reason, Object.values(a.reactions ?? {}).flat(),
		(a.activities ?? []).map(e => e.reason), (a.ogp_metadata ?? []).flatMap(e => Object.values(e)), a.is_error && !a.error_text ? a.error_condition : "");
}

async function presence(p, room) {
	const from = p.getAttribute("from"), type = p.getAttribute("type");
	if (type === "error") {
		show("message", from, p.querySelector("error text")?.textContent);
		return;
	}
	show(type === "subscribe" ? "message" : "presence", from, p.querySelector("status")?.textContent);
	show("name", from, sizzle('nick[xmlns="http://jabber.org/protocol/nick"]', p).pop()?.textContent);
	if (bare(from) !== room) return;
	const a = await parseMUCPresence(p, chatbox(room));
	show("name", from, a.nick === Strophe.getResourceFromJid(from) ? "" : a.nick, p.querySelector("item")?.getAttribute("nick"));
	show("message", from, p.querySelector("reason")?.textContent, p.querySelector("actor")?.getAttribute("nick"), a.status, a.reason);
}

function iq(stanza) {
	const from = stanza.getAttribute("from"), type = stanza.getAttribute("type");
	const roster = sizzle(`query[xmlns="${Strophe.NS.ROSTER}"]`, stanza).pop();
	if (roster) {
		if (type === "set" && from && bare(from) !== own) return;
		for (const item of sizzle("item", roster)) {
			show("name", item.getAttribute("jid"), item.getAttribute("name"), sizzle("group", item).map(g => g.textContent));
		}
	} else if (type === "error") {
		show("info", from, stanza.querySelector("error text")?.textContent);
	} else if (type === "result") {
		// An answer counts by its number, and every question is open.
		for (const e of sizzle("identity, item, conference, command", stanza)) show(e.localName === "conference" ? "name" : "info", from, e.getAttribute("name"));
		for (const name of ["FN", "NICKNAME", "URL", "ROLE", "USERID"]) show("info", from, stanza.querySelector(`:scope > vCard ${name}`)?.textContent);
		for (const e of sizzle("command note, x title, x instructions, x field, x value", stanza)) show("info", from, e.getAttribute("label"), e.textContent);
	}
}

for await (const line of createInterface({input: process.stdin})) {
	const request = JSON.parse(line);
	let error = "";
	shown = [];
	try {
		const doc = new window.DOMParser().parseFromString(head + request.xml + "</stream:stream>", "text/xml");
		if (doc.querySelector("parsererror")) throw new Error(doc.querySelector("parsererror").textContent);
		// Over a WebSocket each stanza is a document.
		const stanza = plain(doc.documentElement.firstElementChild);
		const alone = window.document.implementation.createDocument(null, null);
		if (!stanza.hasAttribute("xmlns")) stanza.setAttributeNS("http://www.w3.org/2000/xmlns/", "xmlns", "jabber:client");
		alone.appendChild(stanza);
		if (stanza.localName === "message") await message(stanza, request.room || "");
		else if (stanza.localName === "presence") await presence(stanza, request.room || "");
		else if (stanza.localName === "iq") iq(stanza);
	} catch (e) {
		error = String(e?.stack ?? e).slice(0, 500);
	}
	process.stdout.write(JSON.stringify({n: request.n, shown, error}) + "\n");
}
process.exit(0);
