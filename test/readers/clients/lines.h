/* The lines of JSON that the readers in C get and give: see readers.go. A request is an
 * object with one number and two strings; an answer lists what is shown. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct request {
	int n;
	char *xml, *room;
};

/* What is shown of the stanza at hand, as the JSON that it becomes. */
static char *shown_json, error_text[500];
static size_t shown_len, shown_size;

static inline void add(const char *s, size_t n)
{
	if (shown_len + n + 1 > shown_size) {
		shown_size = (shown_len + n + 1) * 2;
		if (!(shown_json = realloc(shown_json, shown_size)))
			abort();
	}
	memcpy(shown_json + shown_len, s, n);
	shown_json[shown_len += n] = 0;
}

static inline void add_string(const char *s)
{
	add("\"", 1);
	for (; s && *s; s++) {
		char escape[8];
		if (*s == '"' || *s == '\\') {
			escape[0] = '\\', escape[1] = *s;
			add(escape, 2);
		} else if ((unsigned char)*s < 0x20) {
			snprintf(escape, sizeof escape, "\\u%04x", (unsigned char)*s);
			add(escape, 6);
		} else
			add(s, 1);
	}
	add("\"", 1);
}

/* show notes a text that the client shows; NULL and nothing are not shown. */
static inline void show(const char *as, const char *from, const char *text)
{
	if (!text || !*text)
		return;
	add(shown_len ? ",{\"as\":" : "{\"as\":", shown_len ? 7 : 6);
	add_string(as);
	add(",\"from\":", 8);
	add_string(from);
	add(",\"text\":", 8);
	add_string(text);
	add("}", 1);
}

static inline void fail(const char *what)
{
	snprintf(error_text, sizeof error_text, "%s", what);
}

static inline void answer(const struct request *q)
{
	char *shown = shown_json ? shown_json : "";
	printf("{\"n\":%d,\"shown\":[%s],\"error\":", q->n, shown_len ? shown : "");
	shown_len = 0;
	add_string(error_text);
	printf("%s}\n", shown_json);
	fflush(stdout);
	shown_len = 0;
	error_text[0] = 0;
}

static inline unsigned hex4(const char *s)
{
	unsigned v = 0;
	sscanf(s, "%4x", &v);
	return v;
}

static inline char *utf8(char *w, unsigned c)
{
	if (c < 0x80)
		*w++ = c;
	else if (c < 0x800)
		*w++ = 0xc0 | c >> 6, *w++ = 0x80 | (c & 63);
	else if (c < 0x10000)
		*w++ = 0xe0 | c >> 12, *w++ = 0x80 | (c >> 6 & 63), *w++ = 0x80 | (c & 63);
	else
		*w++ = 0xf0 | c >> 18, *w++ = 0x80 | (c >> 12 & 63), *w++ = 0x80 | (c >> 6 & 63), *w++ = 0x80 | (c & 63);
	return w;
}

/* parse_string reads the string after a key, in its place. */
static inline char *parse_string(char **at)
{
	char *r = *at, *w = *at, *start = *at;
	while (*r && *r != '"') {
		if (*r != '\\') {
			*w++ = *r++;
			continue;
		}
		switch (*++r) {
		case 'n': *w++ = '\n'; break;
		case 't': *w++ = '\t'; break;
		case 'r': *w++ = '\r'; break;
		case 'b': *w++ = '\b'; break;
		case 'f': *w++ = '\f'; break;
		case 'u': {
			unsigned c = hex4(r + 1);
			r += 4;
			if (c >= 0xd800 && c < 0xdc00 && r[1] == '\\' && r[2] == 'u') {
				c = 0x10000 + ((c - 0xd800) << 10) + (hex4(r + 3) - 0xdc00);
				r += 6;
			}
			w = utf8(w, c);
			break;
		}
		default: *w++ = *r;
		}
		r++;
	}
	*at = *r ? r + 1 : r;
	*w = 0;
	return start;
}

/* next_request reads a line; what it points to is good until the next one. */
static inline int next_request(struct request *q)
{
	static char *line;
	static size_t size;
	char *at;
	if (getline(&line, &size, stdin) < 0)
		return 0;
	q->n = 0;
	q->xml = q->room = "";
	for (at = line; (at = strchr(at, '"'));) {
		char *key;
		at++;
		key = parse_string(&at);
		at += strspn(at, ": ");
		if (*at == '"') {
			char *value;
			at++;
			value = parse_string(&at);
			if (!strcmp(key, "xml"))
				q->xml = value;
			else if (!strcmp(key, "room"))
				q->room = value;
		} else if (!strcmp(key, "n"))
			q->n = strtol(at, &at, 10);
	}
	return 1;
}
