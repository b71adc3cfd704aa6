/* libotr_peer: an OTR peer on libotr 4.1, driven by lines, for interoperability tests.
 * Copyright: see the project's LICENSE. SPDX-License-Identifier: GPL-3.0-or-later
 *
 *   cc -O2 -Wall -o libotr_peer libotr_peer.c -lotr -lgcrypt
 *   ./libotr_peer --key FILE [--instance HEX8] [--v2] [--v3] [--tag] [--frag N]
 *
 * One command per line on stdin. Each is answered by zero or more event lines and
 * then by exactly one line "ok" or "err TEXT". Byte strings are lower-case hex, an
 * empty one is "-".
 *
 *   --key FILE       an otr.private_key with account peer@example.org, prpl-jabber
 *   --instance HEX8  our instance tag (random without it)
 *   --v2 --v3        the versions allowed; at least one
 *   --tag            offer OTR by a whitespace tag on plain text
 *   --frag N         longest message to send, in bytes; 0 does not fragment
 *
 * commands                                events
 *   recv HEX                                wire HEX
 *   send HEX                                plain HEX      clear HEX
 *   query                                   secure FPHEX VERSION REFRESH
 *   smp start HEX                           finished
 *   smp ask HEXQUESTION HEXSECRET           smp ask        smp question HEX
 *   smp answer HEX                          smp success    smp failure
 *   smp abort                               smp abort      smp cheated
 *   end                                     smp progress N
 *   symkey USE HEX                          symkey USE KEYHEX DATAHEX
 *   poll                                    unreadable
 *   restart                                 error HEX
 *   instance HEX8                           reflected
 *   fingerprint                             fp HEX40
 *   quit
 *
 * "err" is for commands that cannot be carried out: bad syntax, SMP or symkey while
 * nothing is private, an SMP answer nobody asked for. What the protocol brings is
 * an event.
 *
 * What a test author must know of libotr 4.1.1:
 * - The order of the events of one command says nothing: libotr calls back when it
 *   likes (a text that came with a whitespace tag is shown after the key exchange it
 *   started has sent its first message). Only the order of "wire" lines counts.
 * - REFRESH is this program's own account (private before, with the same fingerprint):
 *   libotr calls gone_secure, not still_secure, for many a refresh.
 * - Crossing key exchanges (both query, the D-H Commits cross): measured, libotr with
 *   libotr never completes (both answer with a D-H Key), in versions 2 and 3; libotr with
 *   potr never; with otr.js always in version 3, by chance in version 2. Both then wait
 *   until one sends a query or a tagged text again.
 * - A data message that comes when nothing is private (after a restart) gives
 *   "unreadable" but no OTR error is sent: the other side does not learn of it, and one
 *   side must query. The first such message of version 3 that is not in fragments may
 *   even pass without "unreadable". Only what cannot be read inside a private
 *   conversation is answered by an OTR error.
 * - After an OTR error libotr sends its last text again, with "[resent] " in front, when
 *   the new key exchange is done, if the text is less than a minute old. (Seen in
 *   version 2; in version 3 it came in no run.)
 * - An OTR error without a space after "?OTR Error:" (otr.js, potr) comes as "clear"
 *   with the whole message, not as "error"; it still starts a key exchange.
 * - In the finished state a text is not sent: "error". (libotr would send an empty
 *   message; empty messages are dropped here.) Its plain text goes out again after "end".
 * - Plain text that comes while private or finished is "clear" like any other.
 * - "smp progress 60" comes only at the one who asked, before its result. No other
 *   peer sends progress events.
 * - The one who asked may "smp start" again while the other has not answered: the other
 *   gets a second "smp ask". An unexpected SMP message is answered by an abort, and
 *   "smp abort" comes on both sides. "smp abort" as a command gives no event here.
 * - Fragments: the query, OTR errors, heartbeats and the message of "end" are never
 *   split, so a query is longer than a small --frag. A long plain text with a whitespace
 *   tag IS split, into OTR fragments of version 2's form, with --v3 too.
 * - A heartbeat (a data message with no text, a "wire" line) goes out on receiving a
 *   text when nothing was sent for a minute.
 * - symkey works in both versions. The key depends on the message that announces it.
 * - When the other side changes its instance tag, the old conversation stays private in
 *   here beside the new one; "end" ends both. Texts go to the instance heard of last.
 * - "reflected" never came in practice: an own key exchange that comes back ends in
 *   silence, an own data message is "unreadable" (version 2) or an "error" about another
 *   instance (version 3).
 * - A NUL byte ends a message or text.
 */
#include <gcrypt.h>
#include <libotr/proto.h> /* before message.h, which needs it */
#include <libotr/context.h>
#include <libotr/instag.h>
#include <libotr/message.h>
#include <libotr/privkey.h>
#include <libotr/tlv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ACCOUNT "peer@example.org"
#define PROTOCOL "prpl-jabber"
#define OTHER "other@example.org" /* the name our contexts give the other side */

static const char *key_file;
static unsigned int instance;
static OtrlPolicy policy = OTRL_POLICY_WHITESPACE_START_AKE | OTRL_POLICY_ERROR_START_AKE;
static int max_size;

static OtrlUserState us;
static int decrypted;   /* the message being received was a data message with text */
static int smp_pending; /* the other side waits for an answer to its SMP question */

/* ---- output ---------------------------------------------------------------- */

static void put_hex(const void *data, size_t n)
{
    const unsigned char *p = data;

    if (n == 0)
        putchar('-');
    while (n--)
        printf("%02x", *p++);
}

static void event_bytes(const char *name, const void *data, size_t n)
{
    printf("%s ", name);
    put_hex(data, n);
    putchar('\n');
}

static void event_text(const char *name, const char *text)
{
    event_bytes(name, text, strlen(text));
}

/* ---- input ----------------------------------------------------------------- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

/* unhex decodes the word s into fresh memory with a NUL behind the data; *n is its
 * length. It returns NULL for anything that is not lower-case hex or "-". */
static char *unhex(const char *s, size_t *n)
{
    size_t len, i;
    char *out;

    if (s == NULL)
        return NULL;
    if (strcmp(s, "-") == 0)
        s = "";
    else if (*s == 0)
        return NULL;
    len = strlen(s);
    if (len % 2)
        return NULL;
    out = malloc(len / 2 + 1);
    if (out == NULL)
        abort();
    for (i = 0; i < len / 2; i++) {
        int hi = hex_digit(s[2 * i]), lo = hex_digit(s[2 * i + 1]);

        if (hi < 0 || lo < 0) {
            free(out);
            return NULL;
        }
        out[i] = hi << 4 | lo;
    }
    out[i] = 0;
    *n = i;
    return out;
}

/* parse_instance reads exactly eight hex digits of a valid instance tag. */
static int parse_instance(const char *s, unsigned int *tag)
{
    char *end;

    if (s == NULL || strlen(s) != 8)
        return 0;
    *tag = strtoul(s, &end, 16);
    return *end == 0 && *tag >= OTRL_MIN_VALID_INSTAG;
}

/* ---- libotr's callbacks ---------------------------------------------------- */

static OtrlMessageAppOps ops;

static OtrlPolicy cb_policy(void *data, ConnContext *c)
{
    return policy;
}

static int cb_is_logged_in(void *data, const char *account, const char *protocol, const char *recipient)
{
    return 1;
}

static void cb_inject(void *data, const char *account, const char *protocol, const char *recipient,
                      const char *message)
{
    if (*message) /* libotr "sends" an empty message where it must send nothing */
        event_text("wire", message);
}

/* A context's app_data is the fingerprint it is private with, or NULL. It is there to
 * tell a refresh from a new conversation, which libotr itself does not do well: it
 * calls gone_secure for many a refresh. */
static void forget_private(ConnContext *c)
{
    if (c->app_data)
        free(c->app_data);
    c->app_data = NULL;
    c->app_data_free = NULL;
}

static void secure(ConnContext *c)
{
    const unsigned char *fp = c->active_fingerprint->fingerprint;
    int refresh = c->app_data && memcmp(c->app_data, fp, 20) == 0;

    smp_pending = 0;
    forget_private(c);
    c->app_data = malloc(20);
    if (c->app_data == NULL)
        abort();
    memcpy(c->app_data, fp, 20);
    c->app_data_free = free;
    printf("secure ");
    put_hex(c->active_fingerprint->fingerprint, 20);
    printf(" %u %d\n", c->protocol_version, refresh);
}

static void cb_gone_secure(void *data, ConnContext *c)
{
    secure(c);
}

static void cb_still_secure(void *data, ConnContext *c, int is_reply)
{
    secure(c);
}

static int cb_max_message_size(void *data, ConnContext *c)
{
    return max_size;
}

static void symkey_event(unsigned int use, const unsigned char *key, const void *data, size_t n)
{
    printf("symkey %u ", use);
    put_hex(key, OTRL_EXTRAKEY_BYTES);
    putchar(' ');
    put_hex(data, n);
    putchar('\n');
}

static void cb_received_symkey(void *data, ConnContext *c, unsigned int use, const unsigned char *usedata,
                               size_t n, const unsigned char *key)
{
    symkey_event(use, key, usedata, n);
}

static const char *cb_error_message(void *data, ConnContext *c, OtrlErrorCode code)
{
    switch (code) {
    case OTRL_ERRCODE_ENCRYPTION_ERROR:
        return "Error occurred encrypting message.";
    case OTRL_ERRCODE_MSG_NOT_IN_PRIVATE:
        return "You sent encrypted data, which was not expected.";
    case OTRL_ERRCODE_MSG_UNREADABLE:
        return "You transmitted an unreadable encrypted message.";
    case OTRL_ERRCODE_MSG_MALFORMED:
        return "You transmitted a malformed data message.";
    default:
        return NULL;
    }
}

static void cb_error_message_free(void *data, const char *text)
{
}

static void cb_smp(void *data, OtrlSMPEvent event, ConnContext *c, unsigned short percent, char *question)
{
    switch (event) {
    case OTRL_SMPEVENT_ASK_FOR_SECRET:
        smp_pending = 1;
        puts("smp ask");
        break;
    case OTRL_SMPEVENT_ASK_FOR_ANSWER:
        smp_pending = 1;
        event_text("smp question", question ? question : "");
        break;
    case OTRL_SMPEVENT_IN_PROGRESS:
        printf("smp progress %u\n", percent);
        break;
    case OTRL_SMPEVENT_SUCCESS:
        puts("smp success");
        break;
    case OTRL_SMPEVENT_FAILURE:
        puts("smp failure");
        break;
    case OTRL_SMPEVENT_ABORT:
        smp_pending = 0;
        puts("smp abort");
        break;
    case OTRL_SMPEVENT_CHEATED: /* a proof was false */
    case OTRL_SMPEVENT_ERROR:   /* a message out of turn */
        /* libotr leaves it to the program to send the abort. */
        smp_pending = 0;
        puts(event == OTRL_SMPEVENT_CHEATED ? "smp cheated" : "smp abort");
        otrl_message_abort_smp(us, &ops, NULL, c);
        break;
    default:
        break;
    }
}

static void cb_message_event(void *data, OtrlMessageEvent event, ConnContext *c, const char *message,
                             gcry_error_t err)
{
    switch (event) {
    case OTRL_MSGEVENT_RCVDMSG_NOT_IN_PRIVATE:
    case OTRL_MSGEVENT_RCVDMSG_UNREADABLE:
    case OTRL_MSGEVENT_RCVDMSG_MALFORMED:
        puts("unreadable");
        break;
    case OTRL_MSGEVENT_RCVDMSG_UNENCRYPTED:
        event_text("clear", message ? message : "");
        break;
    case OTRL_MSGEVENT_MSG_REFLECTED:
        puts("reflected");
        break;
    case OTRL_MSGEVENT_RCVDMSG_GENERAL_ERR:
        event_text("error", message ? message : "");
        break;
    case OTRL_MSGEVENT_ENCRYPTION_ERROR:
        event_text("error", "encryption error");
        break;
    case OTRL_MSGEVENT_CONNECTION_ENDED:
        event_text("error", "not sent: the other side has ended the private conversation");
        break;
    case OTRL_MSGEVENT_SETUP_ERROR:
        event_text("error", err ? gcry_strerror(err) : "setup error");
        break;
    case OTRL_MSGEVENT_RCVDMSG_UNRECOGNIZED:
        event_text("error", "unrecognized OTR message");
        break;
    case OTRL_MSGEVENT_RCVDMSG_FOR_OTHER_INSTANCE:
        event_text("error", "message for another instance");
        break;
    default: /* heartbeats and resent messages: their "wire" line says it */
        break;
    }
}

/* libotr calls this with the text of every data message; it could be changed here. */
static void cb_convert(void *data, ConnContext *c, OtrlConvertType type, char **dest, const char *src)
{
    if (type == OTRL_CONVERT_RECEIVING)
        decrypted = 1;
}

static void cb_convert_free(void *data, ConnContext *c, char *dest)
{
}

static void set_up_callbacks(void)
{
    ops.policy = cb_policy;
    ops.is_logged_in = cb_is_logged_in;
    ops.inject_message = cb_inject;
    ops.gone_secure = cb_gone_secure;
    ops.still_secure = cb_still_secure;
    ops.max_message_size = cb_max_message_size;
    ops.received_symkey = cb_received_symkey;
    ops.otr_error_message = cb_error_message;
    ops.otr_error_message_free = cb_error_message_free;
    ops.handle_smp_event = cb_smp;
    ops.handle_msg_event = cb_message_event;
    ops.convert_msg = cb_convert;
    ops.convert_free = cb_convert_free;
}

/* ---- state ----------------------------------------------------------------- */

/* fresh_state forgets every conversation and starts again with key and instance tag.
 * It returns NULL or what went wrong. */
static const char *fresh_state(void)
{
    char line[128];
    FILE *f;
    gcry_error_t err;

    if (us)
        otrl_userstate_free(us);
    smp_pending = 0;
    us = otrl_userstate_create();
    err = otrl_privkey_read(us, key_file);
    if (err)
        return gcry_strerror(err);
    if (otrl_privkey_find(us, ACCOUNT, PROTOCOL) == NULL)
        return "no key of " ACCOUNT " " PROTOCOL " in the key file";
    snprintf(line, sizeof line, "%s\t%s\t%08x\n", ACCOUNT, PROTOCOL, instance);
    f = fmemopen(line, strlen(line), "r");
    if (f == NULL)
        return "no memory";
    err = otrl_instag_read_FILEp(us, f);
    fclose(f);
    if (err || otrl_instag_find(us, ACCOUNT, PROTOCOL) == NULL)
        return "cannot set the instance tag";
    return NULL;
}

/* private_context is the conversation that text and SMP go to, or NULL where none is
 * private: with the instance heard of last if that one is private, or else what libotr
 * takes for the best. (Its "best" goes by time in whole seconds, and so by chance where
 * the other side has just changed its instance tag.) */
static ConnContext *private_context(void)
{
    static const otrl_instag_t which[] = {OTRL_INSTAG_RECENT_RECEIVED, OTRL_INSTAG_BEST};
    ConnContext *c;
    int i;

    for (i = 0; i < 2; i++) {
        c = otrl_context_find(us, OTHER, ACCOUNT, PROTOCOL, which[i], 0, NULL, NULL, NULL);
        if (c && c->msgstate == OTRL_MSGSTATE_ENCRYPTED)
            return c;
    }
    return NULL;
}

/* ---- commands -------------------------------------------------------------- */

/* Every command returns NULL for "ok" or the text for "err". a and b are the words
 * after the command, or NULL. */

#define NOT_PRIVATE "no private conversation"

static const char *do_recv(const char *a)
{
    size_t n;
    char *message = unhex(a, &n), *text = NULL;
    OtrlTLV *tlvs = NULL;
    ConnContext *c = NULL;
    int ignore;

    if (message == NULL)
        return "recv HEX";
    decrypted = 0;
    ignore = otrl_message_receiving(us, &ops, NULL, ACCOUNT, PROTOCOL, OTHER, message, &text, &tlvs, &c, NULL,
                                    NULL);
    if (!ignore)
        event_text(decrypted ? "plain" : "clear", text ? text : message);
    if (otrl_tlv_find(tlvs, OTRL_TLV_DISCONNECTED)) {
        smp_pending = 0;
        forget_private(c);
        puts("finished");
    }
    otrl_tlv_free(tlvs);
    otrl_message_free(text);
    free(message);
    return NULL;
}

static const char *do_send(const char *a)
{
    size_t n;
    char *message = unhex(a, &n), *changed = NULL;
    ConnContext *c = private_context();
    gcry_error_t err;

    if (message == NULL)
        return "send HEX";
    err = otrl_message_sending(us, &ops, NULL, ACCOUNT, PROTOCOL, OTHER, c ? c->their_instance : OTRL_INSTAG_BEST,
                               message, NULL, &changed, OTRL_FRAGMENT_SEND_ALL, NULL, NULL, NULL);
    if (err)
        event_text("error", gcry_strerror(err));
    else if (changed == NULL) /* nothing for OTR to do: it goes as it is */
        event_text("wire", message);
    otrl_message_free(changed);
    free(message);
    return NULL;
}

static const char *do_query(void)
{
    char *query = otrl_proto_default_query_msg(ACCOUNT, policy);

    event_text("wire", query);
    free(query);
    return NULL;
}

static const char *do_smp(const char *verb, const char *a, const char *b)
{
    ConnContext *c = private_context();
    const char *err = NULL;
    char *first = NULL, *second = NULL;
    size_t nfirst, nsecond;

    if (verb == NULL)
        return "smp start|ask|answer|abort";
    if (strcmp(verb, "abort") == 0) {
        if (c == NULL)
            return NOT_PRIVATE;
        smp_pending = 0;
        otrl_message_abort_smp(us, &ops, NULL, c);
        return NULL;
    }
    first = unhex(a, &nfirst);
    second = unhex(b, &nsecond);
    if (strcmp(verb, "start") == 0) {
        if (first == NULL)
            err = "smp start HEX";
        else if (c == NULL)
            err = NOT_PRIVATE;
        else {
            smp_pending = 0;
            otrl_message_initiate_smp(us, &ops, NULL, c, (unsigned char *)first, nfirst);
        }
    } else if (strcmp(verb, "ask") == 0) {
        if (first == NULL || second == NULL)
            err = "smp ask HEXQUESTION HEXSECRET";
        else if (c == NULL)
            err = NOT_PRIVATE;
        else {
            smp_pending = 0;
            otrl_message_initiate_smp_q(us, &ops, NULL, c, first, (unsigned char *)second, nsecond);
        }
    } else if (strcmp(verb, "answer") == 0) {
        if (first == NULL)
            err = "smp answer HEX";
        else if (c == NULL)
            err = NOT_PRIVATE;
        else if (!smp_pending)
            err = "no SMP question pending";
        else {
            smp_pending = 0;
            otrl_message_respond_smp(us, &ops, NULL, c, (unsigned char *)first, nfirst);
        }
    } else
        err = "smp start|ask|answer|abort";
    free(first);
    free(second);
    return err;
}

static const char *do_symkey(const char *a, const char *b)
{
    ConnContext *c = private_context();
    unsigned char key[OTRL_EXTRAKEY_BYTES];
    gcry_error_t err;
    unsigned int use;
    size_t n;
    char *data, *end;

    data = unhex(b, &n);
    if (data == NULL)
        return "symkey USE HEX";
    use = strtoul(a, &end, 10);
    if (*end) {
        free(data);
        return "symkey USE HEX";
    }
    if (c == NULL) {
        free(data);
        return NOT_PRIVATE;
    }
    err = otrl_message_symkey(us, &ops, NULL, c, use, (unsigned char *)data, n, key);
    if (err)
        event_text("error", gcry_strerror(err));
    else
        symkey_event(use, key, data, n);
    free(data);
    return NULL;
}

static const char *do_end(void)
{
    ConnContext *c;

    for (c = us->context_root; c; c = c->next)
        forget_private(c);
    smp_pending = 0;
    otrl_message_disconnect_all_instances(us, &ops, NULL, ACCOUNT, PROTOCOL, OTHER);
    return NULL;
}

static const char *do_fingerprint(void)
{
    unsigned char fp[20];

    if (otrl_privkey_fingerprint_raw(us, fp, ACCOUNT, PROTOCOL) == NULL)
        return "no key";
    event_bytes("fp", fp, sizeof fp);
    return NULL;
}

static const char *run(char *line)
{
    const char *word[5];
    unsigned int tag;
    char *save = NULL;
    int i;

    for (i = 0; i < 5; i++)
        word[i] = strtok_r(i ? NULL : line, " ", &save);
    if (word[0] == NULL)
        return "empty command";
    if (word[4] != NULL)
        return "too many words";
#define IS(name, words) (strcmp(word[0], name) == 0 && word[words] == NULL)
    if (IS("recv", 2))
        return do_recv(word[1]);
    if (IS("send", 2))
        return do_send(word[1]);
    if (IS("query", 1))
        return do_query();
    if (IS("smp", 4))
        return do_smp(word[1], word[2], word[3]);
    if (IS("symkey", 3))
        return do_symkey(word[1], word[2]);
    if (IS("end", 1))
        return do_end();
    if (IS("poll", 1)) {
        otrl_message_poll(us, &ops, NULL);
        return NULL;
    }
    if (IS("restart", 1))
        return fresh_state();
    if (IS("instance", 2)) {
        if (!parse_instance(word[1], &tag))
            return "instance HEX8";
        instance = tag;
        return fresh_state();
    }
    if (IS("fingerprint", 1))
        return do_fingerprint();
#undef IS
    return "unknown command";
}

/* ---- start ----------------------------------------------------------------- */

static void die(const char *text)
{
    printf("err %s\n", text);
    fflush(stdout);
    exit(2);
}

static void parse_arguments(int argc, char **argv)
{
    int i;

    for (i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;

        if (strcmp(argv[i], "--v2") == 0)
            policy |= OTRL_POLICY_ALLOW_V2;
        else if (strcmp(argv[i], "--v3") == 0)
            policy |= OTRL_POLICY_ALLOW_V3;
        else if (strcmp(argv[i], "--tag") == 0)
            policy |= OTRL_POLICY_SEND_WHITESPACE_TAG;
        else if (strcmp(argv[i], "--key") == 0 && value) {
            key_file = value;
            i++;
        } else if (strcmp(argv[i], "--instance") == 0 && value) {
            if (!parse_instance(value, &instance))
                die("--instance wants eight hex digits, 00000100 or more");
            i++;
        } else if (strcmp(argv[i], "--frag") == 0 && value) {
            max_size = atoi(value);
            if (max_size < 0 || (max_size > 0 && max_size < 64))
                die("--frag wants 0 or at least 64");
            i++;
        } else
            die("bad arguments");
    }
    if (key_file == NULL)
        die("--key FILE is missing");
    if ((policy & OTRL_POLICY_VERSION_MASK) == 0)
        die("--v2 or --v3 is missing");
}

int main(int argc, char **argv)
{
    char *line = NULL;
    const char *err;
    size_t size = 0;
    ssize_t n;

    gcry_control(GCRYCTL_ENABLE_QUICK_RANDOM, 0);
    OTRL_INIT;
    parse_arguments(argc, argv);
    set_up_callbacks();
    if (instance == 0)
        instance = otrl_instag_get_new();
    err = fresh_state();
    if (err)
        die(err);
    while ((n = getline(&line, &size, stdin)) > 0) {
        if (line[n - 1] == '\n')
            line[n - 1] = 0;
        if (strcmp(line, "quit") == 0) {
            puts("ok");
            fflush(stdout);
            break;
        }
        err = run(line);
        if (err)
            printf("err %s\n", err);
        else
            puts("ok");
        fflush(stdout);
    }
    free(line);
    otrl_userstate_free(us);
    return 0;
}
