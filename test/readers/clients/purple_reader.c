/* Reads stanzas as Pidgin and finch do: libpurple itself, with its own XMPP protocol, logs
 * in to a little server in this program, which sends it the stanzas, and what libpurple
 * tells its user interface is what is shown. After each stanza the server asks for a
 * ping: its answer says that the stanza has been handled. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <purple.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lines.h"

#define OWN "alice@example.org"
#define PATIENCE 5 /* seconds, for a stanza that is never handled */

static PurpleAccount *account;
static int listener, client = -1;
static guint client_watch;
static GString *received;
static char *reply;        /* an answer that the server gives to the next question like it */
static char marked[20];    /* the last ping that was answered */
static gboolean reading, broken, online, joined;

/* ---- what is shown ---- */

static void shows(const char *as, const char *from, const char *text)
{
	char *plain;
	if (!reading || !text)
		return;
	plain = purple_markup_strip_html(text);
	show(as, from, plain);
	g_free(plain);
}

static void write_conv(PurpleConversation *conv, const char *name, const char *alias, const char *message, PurpleMessageFlags flags, time_t mtime)
{
	gboolean own = flags & (PURPLE_MESSAGE_SEND | PURPLE_MESSAGE_REMOTE_SEND);
	(void)alias, (void)mtime;
	if (flags & PURPLE_MESSAGE_INVISIBLE)
		return;
	if (purple_conversation_get_type(conv) == PURPLE_CONV_TYPE_CHAT && name && *name && strcmp(name, purple_conversation_get_name(conv))) {
		char *full = g_strdup_printf("%s/%s", purple_conversation_get_name(conv), name);
		shows(own ? "own" : "message", full, message);
		g_free(full);
		return;
	}
	shows(own ? "own" : "message", own ? OWN : name && *name ? name : purple_conversation_get_name(conv), message);
}

static void topic(PurpleConversation *conv, const char *who, const char *text, gpointer data)
{
	(void)who, (void)data;
	shows("message", purple_conversation_get_name(conv), text);
}

static void add_users(PurpleConversation *conv, GList *users, gboolean arrivals)
{
	(void)arrivals;
	for (; users; users = users->next) {
		PurpleConvChatBuddy *b = users->data;
		shows("name", purple_conversation_get_name(conv), purple_conv_chat_cb_get_name(b));
	}
}

static void rename_user(PurpleConversation *conv, const char *old, const char *new, const char *alias)
{
	(void)old;
	shows("name", purple_conversation_get_name(conv), new);
	shows("name", purple_conversation_get_name(conv), alias);
}

static PurpleConversationUiOps conversations = {.write_conv = write_conv, .chat_add_users = add_users, .chat_rename_user = rename_user};

static void *notify_message(PurpleNotifyMsgType type, const char *title, const char *primary, const char *secondary)
{
	(void)type;
	shows("message", NULL, title);
	shows("message", NULL, primary);
	shows("message", NULL, secondary);
	return NULL;
}

static void *notify_formatted(const char *title, const char *primary, const char *secondary, const char *text)
{
	shows("message", NULL, text);
	return notify_message(0, title, primary, secondary);
}

static void *notify_email(PurpleConnection *gc, const char *subject, const char *from, const char *to, const char *url)
{
	(void)gc, (void)to;
	shows("message", from, subject);
	shows("message", from, url);
	return NULL;
}

static void *notify_userinfo(PurpleConnection *gc, const char *who, PurpleNotifyUserInfo *info)
{
	char *text = purple_notify_user_info_get_text_with_newline(info, "\n");
	(void)gc;
	shows("info", who, text);
	g_free(text);
	return NULL;
}

static void *notify_searchresults(PurpleConnection *gc, const char *title, const char *primary, const char *secondary, PurpleNotifySearchResults *results, gpointer data)
{
	(void)gc, (void)results, (void)data;
	return notify_message(0, title, primary, secondary);
}

static void *notify_uri(const char *uri)
{
	shows("message", NULL, uri);
	return NULL;
}

static PurpleNotifyUiOps notifications = {.notify_message = notify_message, .notify_email = notify_email, .notify_formatted = notify_formatted,
	.notify_searchresults = notify_searchresults, .notify_userinfo = notify_userinfo, .notify_uri = notify_uri};

static void dialogue(const char *who, const char *title, const char *primary, const char *secondary)
{
	shows("message", who, title);
	shows("message", who, primary);
	shows("message", who, secondary);
}

static void *request_input(const char *title, const char *primary, const char *secondary, const char *value, gboolean multiline, gboolean masked, gchar *hint,
	const char *ok, GCallback ok_cb, const char *cancel, GCallback cancel_cb, PurpleAccount *a, const char *who, PurpleConversation *conv, void *data)
{
	(void)multiline, (void)masked, (void)hint, (void)ok, (void)ok_cb, (void)cancel, (void)cancel_cb, (void)a, (void)conv, (void)data;
	dialogue(who, title, primary, secondary);
	shows("message", who, value);
	return "input";
}

static void *request_choice(const char *title, const char *primary, const char *secondary, int value, const char *ok, GCallback ok_cb, const char *cancel,
	GCallback cancel_cb, PurpleAccount *a, const char *who, PurpleConversation *conv, void *data, va_list choices)
{
	(void)value, (void)ok, (void)ok_cb, (void)cancel, (void)cancel_cb, (void)a, (void)conv, (void)data, (void)choices;
	dialogue(who, title, primary, secondary);
	return "choice";
}

static void *request_action(const char *title, const char *primary, const char *secondary, int value, PurpleAccount *a, const char *who,
	PurpleConversation *conv, void *data, size_t count, va_list actions)
{
	(void)value, (void)a, (void)conv, (void)data, (void)count, (void)actions;
	dialogue(who, title, primary, secondary);
	return "action";
}

static void *request_action_with_icon(const char *title, const char *primary, const char *secondary, int value, PurpleAccount *a, const char *who,
	PurpleConversation *conv, gconstpointer icon, gsize size, void *data, size_t count, va_list actions)
{
	(void)icon, (void)size;
	return request_action(title, primary, secondary, value, a, who, conv, data, count, actions);
}

static void *request_fields(const char *title, const char *primary, const char *secondary, PurpleRequestFields *fields, const char *ok, GCallback ok_cb,
	const char *cancel, GCallback cancel_cb, PurpleAccount *a, const char *who, PurpleConversation *conv, void *data)
{
	GList *g, *f, *l;
	(void)ok, (void)ok_cb, (void)cancel, (void)cancel_cb, (void)a, (void)conv, (void)data;
	dialogue(who, title, primary, secondary);
	for (g = purple_request_fields_get_groups(fields); g; g = g->next) {
		shows("message", who, purple_request_field_group_get_title(g->data));
		for (f = purple_request_field_group_get_fields(g->data); f; f = f->next) {
			PurpleRequestField *field = f->data;
			shows("message", who, purple_request_field_get_label(field));
			if (purple_request_field_get_type(field) == PURPLE_REQUEST_FIELD_STRING)
				shows("message", who, purple_request_field_string_get_default_value(field));
			if (purple_request_field_get_type(field) == PURPLE_REQUEST_FIELD_LIST)
				for (l = purple_request_field_list_get_items(field); l; l = l->next)
					shows("message", who, l->data);
			if (purple_request_field_get_type(field) == PURPLE_REQUEST_FIELD_CHOICE)
				for (l = purple_request_field_choice_get_labels(field); l; l = l->next)
					shows("message", who, l->data);
		}
	}
	return "fields";
}

static void *request_file(const char *title, const char *filename, gboolean save, GCallback ok_cb, GCallback cancel_cb, PurpleAccount *a, const char *who,
	PurpleConversation *conv, void *data)
{
	(void)save, (void)ok_cb, (void)cancel_cb, (void)a, (void)conv, (void)data;
	dialogue(who, title, filename, NULL);
	return "file";
}

static PurpleRequestUiOps requests = {.request_input = request_input, .request_choice = request_choice, .request_action = request_action,
	.request_fields = request_fields, .request_file = request_file, .request_action_with_icon = request_action_with_icon};

static void asked(PurpleAccount *a, const char *who, const char *id, const char *alias, const char *message)
{
	(void)a, (void)id;
	shows("name", who, alias);
	shows("message", who, message);
}

static void *authorize(PurpleAccount *a, const char *who, const char *id, const char *alias, const char *message, gboolean on_list,
	PurpleAccountRequestAuthorizationCb yes, PurpleAccountRequestAuthorizationCb no, void *data)
{
	(void)on_list, (void)yes, (void)no, (void)data;
	asked(a, who, id, alias, message);
	return "authorize";
}

static PurpleAccountUiOps accounts = {.notify_added = asked, .request_add = asked, .request_authorize = authorize};

static void file_offered(PurpleXfer *xfer, gpointer data)
{
	(void)data;
	shows("message", purple_xfer_get_remote_user(xfer), purple_xfer_get_filename(xfer));
}

/* buddies shows what the list of contacts holds that is more than addresses. */
static void buddies(void)
{
	GSList *all = purple_find_buddies(account, NULL), *b;
	for (b = all; b; b = b->next) {
		const char *name = purple_buddy_get_name(b->data), *group = purple_group_get_name(purple_buddy_get_group(b->data));
		GList *s;
		shows("name", name, purple_buddy_get_server_alias(b->data));
		if (g_strcmp0(purple_buddy_get_alias_only(b->data), purple_buddy_get_server_alias(b->data)))
			shows("name", name, purple_buddy_get_alias_only(b->data));
		if (g_strcmp0(group, "Buddies"))
			shows("name", name, group);
		for (s = purple_presence_get_statuses(purple_buddy_get_presence(b->data)); s; s = s->next) {
			PurpleStatus *status = s->data;
			GList *attrs = purple_status_type_get_attrs(purple_status_get_type(status)), *a;
			gboolean independent = purple_status_is_independent(status);
			if (!purple_status_is_active(status))
				continue;
			for (a = attrs; a; a = a->next) {
				const char *id = purple_status_attr_get_id(a->data);
				PurpleValue *v = purple_status_get_attr_value(status, id);
				if (v && purple_value_get_type(v) == PURPLE_TYPE_STRING && strcmp(id, "buzz"))
					shows(!strcmp(id, "nick") ? "name" : independent ? "info" : "presence", name, purple_value_get_string(v));
			}
		}
	}
	g_slist_free(all);
}

/* ---- the server ---- */

static void send_client(const char *text)
{
	size_t n = strlen(text);
	while (client >= 0 && n) {
		ssize_t done = send(client, text, n, MSG_NOSIGNAL);
		if (done < 0 && (errno == EAGAIN || errno == EINTR)) {
			g_main_context_iteration(NULL, FALSE); /* it reads only here */
			continue;
		}
		if (done < 0)
			return;
		text += done, n -= done;
	}
}

static void sendf(const char *format, ...)
{
	va_list args;
	char *text;
	va_start(args, format);
	text = g_strdup_vprintf(format, args);
	va_end(args);
	send_client(text);
	g_free(text);
}

/* attr copies an attribute's value of a start tag. */
static char *attr(const char *tag, const char *name)
{
	const char *at, *end = strchr(tag, '>');
	size_t n = strlen(name);
	for (at = tag; at && end && at < end; at++)
		if (*at == ' ' && !strncmp(at + 1, name, n) && at[n + 1] == '=' && (at[n + 2] == '\'' || at[n + 2] == '"')) {
			const char *close = strchr(at + n + 3, at[n + 2]);
			return close ? g_strndup(at + n + 3, close - (at + n + 3)) : NULL;
		}
	return NULL;
}

/* renumbered is the answer at hand with the number, and from whom, of a question. */
static char *renumbered(const char *answer, const char *id, const char *from)
{
	const char *end = strchr(answer, '>');
	char *type = attr(answer, "type"), *all;
	gboolean error = !g_strcmp0(type, "error");
	char *f = from ? g_strdup_printf(" from='%s'", from) : g_strdup("");
	all = g_strdup_printf("<iq xmlns='jabber:client' type='%s' id='%s'%s%s%s", error ? "error" : "result", id, f, end && end[-1] == '/' ? "/" : "", end ? end : ">");
	g_free(type);
	g_free(f);
	return all;
}

static void asked_server(const char *iq)
{
	char *id = attr(iq, "id"), *type = attr(iq, "type"), *to = attr(iq, "to"), *ns = NULL;
	const char *child = strchr(iq, '>');
	if (child && (child = strchr(child, '<')))
		ns = attr(child, "xmlns");
	if (id && type && (!strcmp(type, "get") || !strcmp(type, "set"))) {
		if (reply && ns && (strstr(reply, ns) || strstr(reply, "type='error'") || strstr(reply, "type=\"error\"")) && strcmp(ns, "jabber:iq:auth")) {
			char *answer = renumbered(reply, id, to);
			send_client(answer);
			g_free(answer);
		} else if (ns && !strcmp(ns, "jabber:iq:auth") && !strcmp(type, "get"))
			sendf("<iq type='result' id='%s'><query xmlns='jabber:iq:auth'><username/><password/><resource/></query></iq>", id);
		else if (ns && strstr(ns, "disco#info"))
			sendf("<iq type='result' id='%s' from='%s'><query xmlns='%s'><identity category='server' type='im'/><feature var='urn:xmpp:carbons:2'/></query></iq>", id, to ? to : OWN, ns);
		else if (ns && !strcmp(ns, "jabber:iq:roster") && !strcmp(type, "get"))
			sendf("<iq type='result' id='%s'><query xmlns='jabber:iq:roster'><item jid='bob@example.org' subscription='both'/>"
			      "<item jid='carol@example.org' subscription='both'/><item jid='mallory@example.net' subscription='both'/></query></iq>", id);
		else if (ns && strstr(ns, "disco#items"))
			sendf("<iq type='result' id='%s' from='%s'><query xmlns='%s'/></iq>", id, to ? to : OWN, ns);
		else if (to)
			sendf("<iq type='result' id='%s' from='%s'/>", id, to);
		else
			sendf("<iq type='result' id='%s'/>", id);
	} else if (id && !strncmp(id, "mark", 4))
		g_strlcpy(marked, id, sizeof marked);
	g_free(id);
	g_free(type);
	g_free(to);
	g_free(ns);
}

/* whole is the length of the tag or the stanza that the client's stream begins with. */
static size_t whole(const char *s)
{
	const char *at = s;
	int depth = 0;
	while ((at = strchr(at, '<'))) {
		const char *end = strchr(at, '>');
		if (!end)
			return 0;
		if (at[1] == '/')
			depth--;
		else if (at[1] != '?' && at[1] != '!' && end[-1] != '/')
			depth++;
		if (depth <= 0 || !strncmp(at, "<stream:stream", 14))
			return end + 1 - s;
		at = end;
	}
	return 0;
}

static gboolean client_says(GIOChannel *channel, GIOCondition condition, gpointer data)
{
	char buffer[4096];
	ssize_t n = recv(client, buffer, sizeof buffer, 0);
	size_t length;
	(void)channel, (void)condition, (void)data;
	if (n <= 0) {
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return TRUE;
		close(client);
		client = -1;
		client_watch = 0;
		return FALSE;
	}
	g_string_append_len(received, buffer, n);
	while ((length = whole(received->str))) {
		char *part = g_strndup(received->str, length), *at;
		g_string_erase(received, 0, length);
		if ((at = strstr(part, "<stream:stream")))
			/* The old login needs no module of SASL. */
			send_client("<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' from='example.org' id='s' version='1.0'>"
				    "<stream:features><auth xmlns='http://jabber.org/features/iq-auth'/></stream:features>");
		else if ((at = strstr(part, "<iq")))
			asked_server(at);
		else if ((at = strstr(part, "<presence")) && strstr(part, "/alice'")) {
			char *to = attr(at, "to"), *type = attr(at, "type");
			if (to)
				sendf("<presence from='%s'%s><x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='member' role='participant'/><status code='110'/></x></presence>",
					to, type ? " type='unavailable'" : "");
			g_free(to);
			g_free(type);
		}
		g_free(part);
	}
	return TRUE;
}

static gboolean client_comes(GIOChannel *channel, GIOCondition condition, gpointer data)
{
	GIOChannel *c;
	int fd = accept(listener, NULL, NULL);
	(void)channel, (void)condition, (void)data;
	if (fd < 0)
		return TRUE;
	if (client >= 0) {
		g_source_remove(client_watch);
		close(client);
	}
	client = fd;
	setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
	fcntl(client, F_SETFL, O_NONBLOCK);
	g_string_truncate(received, 0);
	c = g_io_channel_unix_new(client);
	client_watch = g_io_add_watch(c, G_IO_IN | G_IO_HUP | G_IO_ERR, client_says, NULL);
	g_io_channel_unref(c);
	return TRUE;
}

/* ---- libpurple's loop ---- */

typedef struct {
	PurpleInputFunction function;
	gpointer data;
} Input;

static gboolean input(GIOChannel *source, GIOCondition condition, gpointer data)
{
	Input *i = data;
	PurpleInputCondition c = 0;
	if (condition & (G_IO_IN | G_IO_HUP | G_IO_ERR))
		c |= PURPLE_INPUT_READ;
	if (condition & (G_IO_OUT | G_IO_HUP | G_IO_ERR | G_IO_NVAL))
		c |= PURPLE_INPUT_WRITE;
	i->function(i->data, g_io_channel_unix_get_fd(source), c);
	return TRUE;
}

static guint input_add(gint fd, PurpleInputCondition condition, PurpleInputFunction function, gpointer data)
{
	Input *i = g_new0(Input, 1);
	GIOChannel *channel = g_io_channel_unix_new(fd);
	guint id;
	i->function = function, i->data = data;
	id = g_io_add_watch_full(channel, G_PRIORITY_DEFAULT,
		(condition & PURPLE_INPUT_READ ? G_IO_IN | G_IO_HUP | G_IO_ERR : 0) | (condition & PURPLE_INPUT_WRITE ? G_IO_OUT | G_IO_HUP | G_IO_ERR | G_IO_NVAL : 0),
		input, i, g_free);
	g_io_channel_unref(channel);
	return id;
}

static PurpleEventLoopUiOps loop = {.timeout_add = g_timeout_add, .timeout_remove = g_source_remove, .input_add = input_add,
	.input_remove = g_source_remove, .timeout_add_seconds = g_timeout_add_seconds};

static gboolean late;

static gboolean too_late(gpointer data)
{
	(void)data;
	return late = TRUE;
}

static void signed_on(PurpleConnection *gc, gpointer data)
{
	(void)gc, (void)data;
	online = TRUE;
}

static void connection_error(PurpleConnection *gc, PurpleConnectionError error, const char *text, gpointer data)
{
	(void)gc, (void)error, (void)data;
	broken = TRUE;
	if (!*error_text)
		fail(text ? text : "the stream ended");
}

/* until runs the loop until something is so, the stream is broken or it is too late. */
static gboolean until(gboolean (*so)(const char *), const char *what)
{
	guint timer;
	late = FALSE;
	timer = g_timeout_add_seconds(PATIENCE, too_late, NULL);
	while (!so(what) && !broken && !late)
		g_main_context_iteration(NULL, TRUE);
	g_source_remove(timer);
	return so(what) && !broken;
}

static gboolean is_online(const char *what) { (void)what; return online; }
static gboolean is_marked(const char *what) { return !strcmp(marked, what); }

static gboolean mark(void)
{
	static int n;
	char id[20];
	snprintf(id, sizeof id, "mark%d", ++n);
	sendf("<iq xmlns='jabber:client' type='get' id='%s' from='example.org' to='" OWN "/c'><ping xmlns='urn:xmpp:ping'/></iq>", id);
	return until(is_marked, id);
}

static gboolean in_room(const char *room)
{
	PurpleConversation *c = purple_find_conversation_with_account(PURPLE_CONV_TYPE_CHAT, room, account);
	return c && !purple_conv_chat_has_left(PURPLE_CONV_CHAT(c));
}

/* fresh begins anew: nothing of the stanzas before stays in the account. */
static gboolean fresh(const char *room)
{
	GSList *all, *b;
	GList *c;
	reading = FALSE;
	/* First these: their names are looked up by what the connection knows. */
	while ((c = purple_get_conversations()))
		purple_conversation_destroy(c->data);
	if (purple_account_get_connection(account))
		purple_account_disconnect(account);
	all = purple_find_buddies(account, NULL);
	for (b = all; b; b = b->next)
		purple_blist_remove_buddy(b->data);
	g_slist_free(all);
	online = broken = FALSE;
	*error_text = 0;
	purple_account_connect(account);
	if (!until(is_online, NULL) || !mark())
		return FALSE;
	joined = *room != 0;
	if (joined) {
		GHashTable *parts = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, g_free);
		const char *at = strchr(room, '@');
		g_hash_table_insert(parts, "room", g_strndup(room, at ? (gsize)(at - room) : 0));
		g_hash_table_insert(parts, "server", g_strdup(at ? at + 1 : room));
		g_hash_table_insert(parts, "handle", g_strdup("alice"));
		serv_join_chat(purple_account_get_connection(account), parts);
		if (!until(in_room, room) || !mark())
			return FALSE;
		g_hash_table_destroy(parts);
	}
	return TRUE;
}

/* play sends a stanza, or gives it as the answer to a question of libpurple's. */
static void play(const char *xml, const char *room, gboolean answers)
{
	char *from = attr(xml, "from");
	gboolean at_login = answers && strstr(xml, "jabber:iq:roster");
	g_free(reply);
	reply = at_login ? g_strdup(xml) : NULL; /* it asks for this only as it logs in */
	if (!fresh(room)) {
		fail(*error_text ? error_text : "libpurple does not log in");
		g_free(from);
		return;
	}
	if (answers && from && strchr(from, '/')) {
		/* More is asked of a device that is there. */
		sendf("<presence xmlns='jabber:client' from='%s' to='" OWN "/c'/>", from);
		mark();
	}
	reading = TRUE;
	if (!answers)
		send_client(xml);
	else if (!at_login) {
		/* It is shown if it was asked for: somebody looks at the contact. */
		reply = g_strdup(xml);
		serv_get_info(purple_account_get_connection(account), from ? from : "bob@example.org");
	}
	/* The second comes after the answers to what it asked before the first. */
	if (mark() && mark()) {
		while (g_main_context_pending(NULL))
			g_main_context_iteration(NULL, FALSE);
		buddies();
	} else if (!*error_text)
		fail("libpurple does not go on");
	reading = FALSE;
	g_free(from);
}

static void read_stanza(const char *xml, const char *room)
{
	char *type = attr(xml, "type"), *from = attr(xml, "from");
	gboolean iq = g_str_has_prefix(xml, "<iq") && type, push = iq && !strcmp(type, "set") && strstr(xml, "jabber:iq:roster");
	play(xml, room, iq && (!strcmp(type, "result") || !strcmp(type, "error")));
	/* A push without a group changes nobody who is there; the name is the server's, and comes with the next login. */
	if (push && !shown_len && !*error_text && (!from || !strcmp(from, OWN)))
		play(xml, room, TRUE);
	g_free(type);
	g_free(from);
}

static int listen_somewhere(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof a;
	GIOChannel *c;
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(listener, (void *)&a, sizeof a) || listen(listener, 5) || getsockname(listener, (void *)&a, &size)) {
		perror("listen");
		exit(1);
	}
	c = g_io_channel_unix_new(listener);
	g_io_add_watch(c, G_IO_IN, client_comes, NULL);
	return ntohs(a.sin_port);
}

static void ui_init(void)
{
	purple_conversations_set_ui_ops(&conversations);
	purple_notify_set_ui_ops(&notifications);
	purple_request_set_ui_ops(&requests);
	purple_accounts_set_ui_ops(&accounts);
}

static PurpleCoreUiOps core = {.ui_init = ui_init};

static void quiet(const gchar *domain, GLogLevelFlags level, const gchar *message, gpointer data)
{
	(void)domain, (void)level, (void)message, (void)data;
}

int main(int argc, char **argv)
{
	static int handle;
	struct request q;
	int port;
	char *dir;
	if (argc > 1 && !strcmp(argv[1], "-v"))
		purple_debug_set_enabled(TRUE);
	else
		g_log_set_default_handler(quiet, NULL);
	dir = g_build_filename(g_get_home_dir(), "purple-reader", NULL);
	purple_util_set_user_dir(dir);
	purple_core_set_ui_ops(&core);
	purple_eventloop_set_ui_ops(&loop);
	received = g_string_new(NULL);
	port = listen_somewhere();
	if (!purple_core_init("reader")) {
		fprintf(stderr, "libpurple does not start\n");
		return 1;
	}
	purple_set_blist(purple_blist_new());
	purple_prefs_set_bool("/purple/logging/log_ims", FALSE);
	purple_prefs_set_bool("/purple/logging/log_chats", FALSE);
	purple_prefs_set_bool("/purple/logging/log_system", FALSE);
	purple_prefs_set_string("/purple/proxy/type", "none");
	purple_signal_connect(purple_connections_get_handle(), "signed-on", &handle, PURPLE_CALLBACK(signed_on), NULL);
	purple_signal_connect(purple_connections_get_handle(), "connection-error", &handle, PURPLE_CALLBACK(connection_error), NULL);
	purple_signal_connect(purple_conversations_get_handle(), "chat-topic-changed", &handle, PURPLE_CALLBACK(topic), NULL);
	purple_signal_connect(purple_xfers_get_handle(), "file-recv-request", &handle, PURPLE_CALLBACK(file_offered), NULL);
	account = purple_account_new(OWN "/c", "prpl-jabber");
	purple_account_set_password(account, "secret");
	purple_account_set_remember_password(account, TRUE);
	purple_account_set_string(account, "connect_server", "127.0.0.1");
	purple_account_set_int(account, "port", port);
	purple_account_set_string(account, "connection_security", "opportunistic_tls");
	purple_account_set_bool(account, "auth_plain_in_clear", TRUE);
	purple_account_set_bool(account, "use-global-buddyicon", FALSE);
	purple_accounts_add(account);
	purple_account_set_enabled(account, "reader", TRUE);
	while (next_request(&q)) {
		read_stanza(q.xml, q.room);
		answer(&q);
	}
	return 0;
}
