/* Reads stanzas as mcabber 1.1 does: loudmouth's parser, the one that its connections
 * use, takes them apart, and the look-ups are those of mcabber's xmpp.c, xmpp_muc.c,
 * xmpp_helper.c, xmpp_iq.c and xmpp_iqrequest.c. The parser knows no namespaces but the
 * attributes named xmlns. */
#include <loudmouth/loudmouth.h>

#include "lines.h"

#define OWN "alice@example.org"

/* The library exports its parser, but no header of it declares it. */
typedef struct LmParser LmParser;
typedef void (*LmParserMessageFunction)(LmParser *, LmMessage *, gpointer);
LmParser *lm_parser_new(LmParserMessageFunction, gpointer, GDestroyNotify);
gboolean lm_parser_parse(LmParser *, const gchar *);
void lm_parser_free(LmParser *);

static const char *room;
static int seen;

typedef LmMessageNode *node;

static const char *attr(node n, const char *name) { return n ? lm_message_node_get_attribute(n, name) : NULL; }
static node child(node n, const char *name) { return n ? lm_message_node_get_child(n, name) : NULL; }
static int is(const char *a, const char *b) { return a && b && !strcmp(a, b); }

static node by_ns(node n, const char *ns)
{
	node x;
	for (x = n ? n->children : NULL; x; x = x->next)
		if (is(attr(x, "xmlns"), ns))
			break;
	return x;
}

static const char *text(node n, const char *name)
{
	node c = child(n, name);
	return c ? lm_message_node_get_value(c) : NULL;
}

static int bare_is(const char *jid, const char *bare)
{
	size_t n = jid ? strcspn(jid, "/") : 0;
	return jid && *bare && strlen(bare) == n && !g_ascii_strncasecmp(jid, bare, n);
}

/* xmpp_helper.c, display_server_error: in the log, which is shown beside */
static void show_error(const char *as, const char *from, node error)
{
	if (!error)
		return;
	if (error->children)
		show(as, from, error->children->name);
	show(as, from, lm_message_node_get_value(error));
	show(as, from, text(error, "text"));
}

/* xmpp_muc.c, got_muc_message */
static void room_message(const char *from, node x)
{
	node invite = child(x, "invite"), decline = child(x, "decline");
	if (attr(invite, "from"))
		show("message", attr(invite, "from"), text(invite, "reason"));
	if (attr(decline, "from"))
		show("message", from, text(decline, "reason"));
}

static void message(LmMessage *m)
{
	node n = m->node, x;
	const char *from = attr(n, "from"), *as = "message", *body, *subject;
	LmMessageSubType type = lm_message_get_sub_type(m);
	if (!from)
		return;
	if (type == LM_MESSAGE_SUB_TYPE_ERROR)
		show_error("message", from, child(n, "error"));
	x = by_ns(n, "urn:xmpp:carbons:2");
	if (x && (is(x->name, "received") || is(x->name, "sent"))) {
		int sent = is(x->name, "sent");
		if (!bare_is(from, OWN))
			return;
		if (!(n = child(by_ns(x, "urn:xmpp:forward:0"), "message")) || !(from = attr(n, "from")) || !attr(n, "to"))
			return;
		if (sent) {
			show("own", from, text(n, "body"));
			return;
		}
	}
	body = text(n, "body");
	subject = text(n, "subject");
	if (type != LM_MESSAGE_SUB_TYPE_GROUPCHAT || bare_is(from, room)) {
		show(as, from, subject);
		show(as, from, body);
	}
	if ((x = by_ns(n, "http://jabber.org/protocol/muc#user")) && is(x->name, "x"))
		room_message(from, x);
	if ((x = by_ns(n, "jabber:x:conference")) && is(x->name, "x") && attr(x, "jid"))
		show("message", from, attr(x, "reason"));
}

static void presence(LmMessage *m)
{
	node n = m->node, muc = by_ns(n, "http://jabber.org/protocol/muc#user"), item = child(muc, "item");
	const char *from = attr(n, "from");
	switch (lm_message_get_sub_type(m)) {
	case LM_MESSAGE_SUB_TYPE_ERROR:
		show_error("message", from, child(n, "error"));
		return;
	case LM_MESSAGE_SUB_TYPE_SUBSCRIBE:
		show("message", from, text(n, "status"));
		return;
	case LM_MESSAGE_SUB_TYPE_UNSUBSCRIBE:
	case LM_MESSAGE_SUB_TYPE_SUBSCRIBED:
	case LM_MESSAGE_SUB_TYPE_UNSUBSCRIBED:
		return;
	default:
		break;
	}
	if (!from || (muc && !bare_is(from, room)))
		return;
	show("presence", from, text(n, "status"));
	if (!muc)
		return;
	show("name", from, attr(item, "nick"));
	show("message", from, attr(child(item, "actor"), "nick"));
	show("message", from, attr(child(item, "actor"), "jid"));
	show("message", from, text(item, "reason"));
	show("message", from, text(child(muc, "destroy"), "reason"));
}

/* xmpp_iq.c, handle_iq_roster: the first item, and whatever comes after it */
static void roster(node n, const char *from)
{
	node y;
	if (from && !bare_is(from, OWN) && g_ascii_strcasecmp(from, "example.org"))
		return;
	for (y = child(by_ns(n, "jabber:iq:roster"), "item"); y; y = y->next) {
		if (!attr(y, "jid"))
			continue;
		show("name", attr(y, "jid"), attr(y, "name"));
		show("name", attr(y, "jid"), text(y, "group"));
	}
}

/* xmpp_iqrequest.c, handle_vcard_node */
static void vcard(node v, const char *from)
{
	static const char *plain[] = {"FN", "NICKNAME", "URL", "BDAY", "TZ", "TITLE", "ROLE", "DESC"};
	static const char *parts[] = {"FAMILY", "GIVEN", "MIDDLE", "ORGNAME", "ORGUNIT", "EXTADD", "STREET", "LOCALITY", "REGION", "PCODE", "CTRY", "NUMBER", "USERID"};
	node x;
	unsigned i;
	for (x = v->children; x; x = x->next) {
		for (i = 0; i < G_N_ELEMENTS(plain); i++)
			if (is(x->name, plain[i]))
				show("info", from, lm_message_node_get_value(x));
		for (i = 0; i < G_N_ELEMENTS(parts); i++)
			show("info", from, text(x, parts[i]));
	}
}

static void iq(LmMessage *m)
{
	node n = m->node, query = child(n, "query"), x;
	const char *from = attr(n, "from");
	switch (lm_message_get_sub_type(m)) {
	case LM_MESSAGE_SUB_TYPE_ERROR:
		show_error("info", from, child(n, "error"));
		return;
	case LM_MESSAGE_SUB_TYPE_SET:
		if (by_ns(n, "jabber:iq:roster"))
			roster(n, from);
		return;
	case LM_MESSAGE_SUB_TYPE_RESULT:
		break;
	default:
		return;
	}
	/* An answer counts by its id, and every question is open. */
	roster(n, from);
	show("info", from, text(query, "name"));
	show("info", from, text(query, "version"));
	show("info", from, text(query, "os"));
	if (query && attr(query, "seconds"))
		show("info", from, lm_message_node_get_value(query));
	show("info", from, text(child(n, "time"), "utc"));
	show("info", from, text(child(n, "time"), "tzo"));
	show("info", from, text(child(n, "time"), "display"));
	show("info", from, text(query, "utc"));
	show("info", from, text(query, "display"));
	if (child(n, "vCard"))
		vcard(child(n, "vCard"), from);
	x = child(query, "storage");
	for (x = x ? x->children : NULL; x; x = x->next) {
		show("name", attr(x, "jid"), attr(x, "name"));
		show("name", attr(x, "jid"), text(x, "nick"));
		show("name", attr(x, "jid"), text(x, "group"));
		show("info", attr(x, "jid"), text(x, "text"));
	}
}

static void stanza(LmParser *parser, LmMessage *m, gpointer data)
{
	(void)parser, (void)data;
	switch (lm_message_get_type(m)) {
	case LM_MESSAGE_TYPE_MESSAGE:
		message(m);
		break;
	case LM_MESSAGE_TYPE_PRESENCE:
		presence(m);
		break;
	case LM_MESSAGE_TYPE_IQ:
		iq(m);
		break;
	case LM_MESSAGE_TYPE_STREAM:
		return;
	default:
		break;
	}
	seen = 1;
}

static void quiet(const gchar *domain, GLogLevelFlags level, const gchar *message, gpointer data)
{
	(void)domain, (void)data;
	if (!*error_text && level & (G_LOG_LEVEL_ERROR | G_LOG_LEVEL_CRITICAL | G_LOG_LEVEL_WARNING))
		fail(message);
}

int main(void)
{
	struct request q;
	g_log_set_default_handler(quiet, NULL);
	while (next_request(&q)) {
		LmParser *parser = lm_parser_new(stanza, NULL, NULL);
		room = q.room;
		seen = 0;
		lm_parser_parse(parser, "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>");
		lm_parser_parse(parser, q.xml);
		if (!seen && !*error_text)
			fail("loudmouth cannot parse it");
		lm_parser_free(parser);
		answer(&q);
	}
	return 0;
}
