/* Reads stanzas as Profanity 0.13 does: libstrophe's parser takes them apart, and the
 * look-ups are those of Profanity's src/xmpp (message.c, presence.c, roster.c, iq.c,
 * stanza.c, form.c), by name where it goes by name, by namespace where by that. */
#include <strophe.h>
#include <strings.h>

#include "lines.h"

#define OWN "alice@example.org"

static xmpp_ctx_t *ctx;
static const char *room;

typedef xmpp_stanza_t *node;

static node by_name(node s, const char *name) { return s ? xmpp_stanza_get_child_by_name(s, name) : NULL; }
static node by_ns(node s, const char *ns) { return s ? xmpp_stanza_get_child_by_ns(s, ns) : NULL; }
static node by_both(node s, const char *name, const char *ns) { return s ? xmpp_stanza_get_child_by_name_and_ns(s, name, ns) : NULL; }
static const char *attr(node s, const char *name) { return s ? xmpp_stanza_get_attribute(s, name) : NULL; }
static int is(const char *a, const char *b) { return a && b && !strcmp(a, b); }

static int bare_is(const char *jid, const char *bare)
{
	size_t n = jid ? strcspn(jid, "/") : 0;
	return jid && *bare && strlen(bare) == n && !strncasecmp(jid, bare, n);
}

static int named(node s, const char *name)
{
	const char *n = xmpp_stanza_get_name(s);
	return n && is(n, name);
}

static void show_text(const char *as, const char *from, node s)
{
	char *text = s ? xmpp_stanza_get_text(s) : NULL;
	show(as, from, text);
	if (text)
		xmpp_free(ctx, text);
}

/* stanza.c, stanza_get_error_message */
static void show_error(const char *as, const char *from, node stanza)
{
	show_text(as, from, by_name(by_name(stanza, "error"), "text"));
}

/* form.c, form_create */
static void show_form(const char *as, const char *from, node form)
{
	node field, child;
	show_text(as, from, by_name(form, "title"));
	show_text(as, from, by_name(form, "instructions"));
	for (field = xmpp_stanza_get_children(form); field; field = xmpp_stanza_get_next(field)) {
		if (!named(field, "field"))
			continue;
		show(as, from, attr(field, "label"));
		show_text(as, from, by_name(field, "desc"));
		for (child = xmpp_stanza_get_children(field); child; child = xmpp_stanza_get_next(child)) {
			if (named(child, "value"))
				show_text(as, from, child);
			if (named(child, "option")) {
				show(as, from, attr(child, "label"));
				show_text(as, from, by_name(child, "value"));
			}
		}
	}
}

/* message.c, _handle_chat: one text for what it could not decrypt, which is the body. */
static void chat(node message, int is_mam, int is_carbon)
{
	const char *from = xmpp_stanza_get_from(message), *to = xmpp_stanza_get_to(message);
	int own;
	node body = by_name(message, "body");
	if (!from || (by_ns(message, "http://jabber.org/protocol/muc#user") && !body))
		return;
	if (!to && is_carbon)
		to = from;
	own = is_carbon ? !bare_is(to, OWN) : is_mam && bare_is(from, OWN);
	show_text(own ? "own" : "message", from, body);
}

static void groupchat(node stanza)
{
	const char *from = xmpp_stanza_get_from(stanza);
	node subject = by_name(stanza, "subject");
	if (!bare_is(from, room))
		return; /* there is no window for it */
	show_text("message", from, subject ? subject : by_name(stanza, "body"));
}

static void message(node stanza)
{
	const char *type = xmpp_stanza_get_type(stanza), *from = xmpp_stanza_get_from(stanza);
	node found, inner = stanza;
	if (is(type, "error")) {
		show_error("message", from, stanza);
		return;
	}
	if (is(type, "groupchat")) {
		groupchat(stanza);
		return;
	}
	if (is(type, "headline")) {
		if (!by_ns(stanza, "http://jabber.org/protocol/pubsub#event") && from)
			show_text("message", from, by_name(stanza, "body"));
		return;
	}
	if (type && !is(type, "chat") && !is(type, "normal"))
		return;
	if (by_ns(by_both(stanza, "propose", "urn:xmpp:jingle-message:0"), "urn:xmpp:jingle:apps:rtp:1"))
		return;
	if ((found = by_both(stanza, "x", "jabber:x:data")) && from) {
		show_form("message", from, found);
		return;
	}
	/* Whoever the result is from, and whatever its query: 0.13 does not ask. */
	if ((found = by_ns(by_both(stanza, "result", "urn:xmpp:mam:2"), "urn:xmpp:forward:0"))) {
		if (!(inner = by_ns(found, "jabber:client")))
			fail("a result without a message");
		else
			chat(inner, 1, 0);
		return;
	}
	if ((found = by_name(by_ns(stanza, "http://jabber.org/protocol/muc#user"), "invite")) && from && xmpp_stanza_get_from(found))
		show_text("message", xmpp_stanza_get_from(found), by_name(found, "reason"));
	if ((found = by_ns(stanza, "jabber:x:conference"))) {
		if (attr(found, "jid") && from)
			show("message", from, attr(found, "reason"));
		return;
	}
	if (by_ns(stanza, "urn:xmpp:captcha")) {
		if (bare_is(from, room))
			show_text("message", from, by_name(stanza, "body"));
		return;
	}
	if (by_ns(stanza, "http://jabber.org/protocol/pubsub#event"))
		return; /* of these it takes only the lists of devices of OMEMO */
	if (!(found = by_both(stanza, "sent", "urn:xmpp:carbons:2")))
		found = by_both(stanza, "received", "urn:xmpp:carbons:2");
	if (found && from) {
		char *bare;
		if (!is(from, OWN) || !(inner = by_name(by_ns(found, "urn:xmpp:forward:0"), "message")))
			return;
		if (!xmpp_stanza_get_from(inner))
			return;
		bare = xmpp_jid_bare(ctx, xmpp_stanza_get_from(inner));
		if (!is(bare, xmpp_stanza_get_to(inner)))
			chat(inner, 0, 1);
		xmpp_free(ctx, bare);
		return;
	}
	chat(inner, 0, 0);
}

static void presence(node stanza)
{
	const char *type = xmpp_stanza_get_type(stanza), *from = xmpp_stanza_get_from(stanza);
	node muc = by_ns(stanza, "http://jabber.org/protocol/muc#user"), child, item;
	if (is(type, "error")) {
		show_error("message", from, stanza);
		return;
	}
	if (!from)
		return;
	if (!type || is(type, "unavailable") || is(type, "unsubscribe")) {
		show_text("presence", from, by_name(stanza, "status"));
		if (bare_is(from, room))
			show_text("presence", from, by_name(stanza, "show")); /* of a contact, only the five there are */
	}
	if (!muc || !bare_is(from, room))
		return;
	item = by_name(muc, "item");
	show("message", from, attr(by_name(item, "actor"), "nick"));
	show_text("message", from, by_name(item, "reason"));
	show_text("message", from, by_name(by_name(muc, "destroy"), "reason"));
	for (child = by_name(stanza, "x") ? xmpp_stanza_get_children(by_name(stanza, "x")) : NULL; child; child = xmpp_stanza_get_next(child))
		if (named(child, "item"))
			show("name", from, attr(child, "nick"));
}

static void roster(node query)
{
	node item, group;
	for (item = query ? xmpp_stanza_get_children(query) : NULL; item; item = xmpp_stanza_get_next(item)) {
		if (!attr(item, "jid"))
			continue;
		show("name", attr(item, "jid"), attr(item, "name"));
		for (group = xmpp_stanza_get_children(item); group; group = xmpp_stanza_get_next(group))
			if (named(group, "group"))
				show_text("name", attr(item, "jid"), group);
	}
}

/* iq.c: an answer counts by its id, and every question is open. */
static void iq(node stanza)
{
	const char *type = xmpp_stanza_get_type(stanza), *from = xmpp_stanza_get_from(stanza);
	node query = by_name(stanza, "query"), child, command;
	if (is(type, "set")) {
		if (by_ns(stanza, "jabber:iq:roster") && (!from || is(from, OWN)))
			roster(query);
		return;
	}
	if (is(type, "error")) {
		show_error("info", from, stanza);
		return;
	}
	if (!is(type, "result"))
		return;
	if (by_ns(stanza, "jabber:iq:roster"))
		roster(query);
	if (query) {
		if (is(xmpp_stanza_get_ns(query), "jabber:iq:version")) {
			show_text("info", from, by_name(query, "name"));
			show_text("info", from, by_name(query, "version"));
			show_text("info", from, by_name(query, "os"));
		}
		if (attr(query, "seconds"))
			show_text("info", from, query); /* last activity's status */
		for (child = xmpp_stanza_get_children(query); child; child = xmpp_stanza_get_next(child)) {
			if (named(child, "item") || named(child, "identity"))
				show("info", from, attr(child, "name"));
			if (named(child, "identity")) {
				show("info", from, attr(child, "category"));
				show("info", from, attr(child, "type"));
			}
			if (named(child, "feature"))
				show("info", from, attr(child, "var"));
		}
		/* bookmark.c */
		for (child = by_name(query, "storage") ? xmpp_stanza_get_children(by_name(query, "storage")) : NULL; child; child = xmpp_stanza_get_next(child)) {
			show("name", attr(child, "jid"), attr(child, "name"));
			show_text("name", attr(child, "jid"), by_name(child, "nick"));
		}
		if (by_ns(query, "jabber:x:data"))
			show_form("info", from, by_ns(query, "jabber:x:data"));
	}
	if ((command = by_ns(stanza, "http://jabber.org/protocol/commands"))) {
		show_text("info", from, by_name(command, "note"));
		if (by_ns(command, "jabber:x:data")) {
			show_form("info", from, by_ns(command, "jabber:x:data"));
			roster(by_ns(by_ns(command, "jabber:x:data"), "jabber:iq:roster"));
		}
	}
}

int main(void)
{
	struct request q;
	xmpp_initialize();
	ctx = xmpp_ctx_new(NULL, NULL);
	while (next_request(&q)) {
		/* The stream's header gives the namespaces. */
		static const char head[] = "<s xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>", tail[] = "</s>";
		char *wrapped = malloc(sizeof head + sizeof tail + strlen(q.xml));
		node all, stanza;
		sprintf(wrapped, "%s%s%s", head, q.xml, tail);
		all = xmpp_stanza_new_from_string(ctx, wrapped);
		room = q.room;
		for (stanza = all ? xmpp_stanza_get_children(all) : NULL; stanza && !xmpp_stanza_get_name(stanza);)
			stanza = xmpp_stanza_get_next(stanza);
		if (!stanza)
			fail("libstrophe cannot parse it");
		else if (named(stanza, "message"))
			message(stanza);
		else if (named(stanza, "presence"))
			presence(stanza);
		else if (named(stanza, "iq"))
			iq(stanza);
		if (all)
			xmpp_stanza_release(all);
		free(wrapped);
		answer(&q);
	}
	return 0;
}
