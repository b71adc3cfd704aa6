/* libotr_bench: what libotr costs, as a measure for other implementations.
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 *   cc -O2 -Wall -o libotr_bench libotr_bench.c -lotr -lgcrypt
 *   ./libotr_bench KEYFILE_ALICE KEYFILE_BOB
 *
 * The key files are in libotr's format and hold alice@example.org and bob@example.org,
 * both for prpl-jabber. Alice and Bob are two user states in this one process; what
 * one injects is handed to the other. Both allow versions 2 and 3, so version 3 is
 * spoken, without fragments.
 *
 * One line per measure, "NAME NANOSECONDS_PER_OP", by CLOCK_MONOTONIC:
 *   ake          a whole key exchange, from Alice's query until both are encrypted:
 *                every otrl_message_receiving of both sides. Ending the conversation
 *                before each one is outside the time.
 *   oneway100    Alice sends (otrl_message_sending, OTRL_FRAGMENT_SEND_SKIP) and Bob
 *   oneway1k     receives (otrl_message_receiving) a text of 100, 1000, 10000 bytes,
 *   oneway10k    frees included. Bob never answers, so no keys change.
 *   alternating  the same with 100 bytes, there and back by turns: the keys change all
 *                the time. Per message, not per pair.
 *   smp          a whole run with equal secrets and success, both sides.
 * and last "memory BYTES": the heap that one live conversation holds on one side after
 * a key exchange and a message each way: the growth of mallinfo2's uordblks over many
 * conversations, divided by their number and by the two sides. libotr has libgcrypt
 * use the plain heap, so its numbers are in there.
 *
 * libgcrypt's quick random is on: it only saves waiting for the kernel's strong pool.
 */
#include <gcrypt.h>
#include <libotr/proto.h> /* before message.h, which needs it */
#include <libotr/message.h>
#include <libotr/privkey.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PROTOCOL "prpl-jabber"
#define CONVERSATIONS 200 /* for memory */

struct side {
    OtrlUserState us;
    const char *account;  /* whose side this is */
    const char *peer;     /* the name of the other in the present conversation */
    struct side *other;
    unsigned int instance;
    int secure, success;  /* counts of these events */
    int asked;            /* the other's SMP question is open */
};

static struct side alice = {.account = "alice@example.org", .instance = 0x1000};
static struct side bob = {.account = "bob@example.org", .instance = 0x2000};

static int logged_in; /* libotr tells the other side of an end only if it is logged in */

static void fail(const char *what)
{
    fprintf(stderr, "libotr_bench: %s\n", what);
    exit(1);
}

/* ---- messages on their way -------------------------------------------------- */

static struct {
    struct side *to;
    char *text;
} queue[64];
static int head, tail;

static void post(struct side *to, const char *text)
{
    if (tail == 64)
        fail("too many messages on their way");
    queue[tail].to = to;
    queue[tail++].text = strdup(text);
}

static int receive(struct side *s, const char *text);

static void deliver(void)
{
    while (head < tail) {
        char *text = queue[head].text;

        receive(queue[head++].to, text);
        free(text);
    }
    head = tail = 0;
}

/* ---- libotr's callbacks ----------------------------------------------------- */

static OtrlMessageAppOps ops;

static OtrlPolicy cb_policy(void *data, ConnContext *c)
{
    return OTRL_POLICY_ALLOW_V2 | OTRL_POLICY_ALLOW_V3;
}

static int cb_is_logged_in(void *data, const char *account, const char *protocol, const char *recipient)
{
    return logged_in;
}

static void cb_inject(void *data, const char *account, const char *protocol, const char *recipient,
                      const char *message)
{
    post(((struct side *)data)->other, message);
}

static void cb_gone_secure(void *data, ConnContext *c)
{
    ((struct side *)data)->secure++;
}

static void cb_smp(void *data, OtrlSMPEvent event, ConnContext *c, unsigned short percent, char *question)
{
    struct side *s = data;

    if (event == OTRL_SMPEVENT_ASK_FOR_SECRET)
        s->asked = 1;
    else if (event == OTRL_SMPEVENT_SUCCESS)
        s->success++;
    else if (event != OTRL_SMPEVENT_IN_PROGRESS)
        fail("SMP went wrong");
}

static void cb_message_event(void *data, OtrlMessageEvent event, ConnContext *c, const char *message,
                             gcry_error_t err)
{
    /* SMP and the end travel in empty messages, which libotr reports as heartbeats. */
    if (event != OTRL_MSGEVENT_LOG_HEARTBEAT_RCVD && event != OTRL_MSGEVENT_LOG_HEARTBEAT_SENT)
        fail("an unexpected message event");
}

/* ---- steps ------------------------------------------------------------------ */

/* receive hands text to s, as a program would. It returns 0 if there was text for the
 * user in it. */
static int receive(struct side *s, const char *text)
{
    char *changed = NULL;
    OtrlTLV *tlvs = NULL;
    int ignore;

    ignore = otrl_message_receiving(s->us, &ops, s, s->account, PROTOCOL, s->peer, text, &changed, &tlvs, NULL,
                                    NULL, NULL);
    otrl_tlv_free(tlvs);
    ignore |= changed == NULL;
    otrl_message_free(changed);
    return ignore;
}

static ConnContext *context(struct side *s)
{
    ConnContext *c = otrl_context_find(s->us, s->peer, s->account, PROTOCOL, OTRL_INSTAG_BEST, 0, NULL, NULL, NULL);

    if (c == NULL)
        fail("no context");
    return c;
}

static void end(void)
{
    logged_in = 1;
    otrl_message_disconnect_all_instances(alice.us, &ops, &alice, alice.account, PROTOCOL, alice.peer);
    deliver();
    otrl_message_disconnect_all_instances(bob.us, &ops, &bob, bob.account, PROTOCOL, bob.peer);
    logged_in = 0;
}

static void ake(void)
{
    char *query = otrl_proto_default_query_msg(alice.account, cb_policy(NULL, NULL));

    alice.secure = bob.secure = 0;
    post(&bob, query);
    free(query);
    deliver();
    if (!alice.secure || !bob.secure)
        fail("the key exchange did not complete");
}

static void say(struct side *s, const char *text)
{
    char *wire = NULL;

    if (otrl_message_sending(s->us, &ops, s, s->account, PROTOCOL, s->peer, OTRL_INSTAG_BEST, text, NULL, &wire,
                             OTRL_FRAGMENT_SEND_SKIP, NULL, NULL, NULL) ||
        wire == NULL || strncmp(wire, "?OTR:", 5) != 0)
        fail("the message was not encrypted");
    if (receive(s->other, wire))
        fail("the message was not decrypted");
    otrl_message_free(wire);
    deliver(); /* at most a heartbeat, once a minute */
}

static void smp(void)
{
    static const unsigned char secret[] = "secret";

    alice.success = bob.success = bob.asked = 0;
    otrl_message_initiate_smp(alice.us, &ops, &alice, context(&alice), secret, 6);
    deliver();
    if (!bob.asked)
        fail("SMP did not start");
    otrl_message_respond_smp(bob.us, &ops, &bob, context(&bob), secret, 6);
    deliver();
    if (!alice.success || !bob.success)
        fail("SMP did not succeed");
}

/* ---- measures --------------------------------------------------------------- */

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static char text[10001]; /* the text of the messages, cut to length by its NUL */

static void op_ake(void) { ake(); }
static void op_oneway(void) { say(&alice, text); }
static void op_alternating(void) { say(&alice, text); say(&bob, text); }
static void op_smp(void) { smp(); }

/* measure repeats op for about 1.5 seconds and prints what one takes, divided by per.
 * before, if any, runs before each and is not counted. */
static void measure(const char *name, void (*op)(void), void (*before)(void), int per)
{
    double spent = 0, start;
    long n = 0;
    int i;

    for (i = -2; i < 0 || spent < 1.5e9; i++) { /* the first two only warm up */
        if (before)
            before();
        start = now();
        op();
        if (i >= 0) {
            spent += now() - start;
            n++;
        }
    }
    printf("%s %.0f\n", name, spent / n / per);
    fflush(stdout);
}

static void measure_messages(const char *name, size_t length)
{
    memset(text, 'x', length);
    text[length] = 0;
    measure(name, op_oneway, NULL, 1);
}

static void measure_memory(void)
{
    static char names[2][CONVERSATIONS + 1][32];
    size_t before = 0;
    int i;

    memset(text, 'x', 100);
    text[100] = 0;
    for (i = 0; i <= CONVERSATIONS; i++) {
        if (i == 1) /* after one, whatever is set up only once is there */
            before = mallinfo2().uordblks;
        snprintf(names[0][i], sizeof names[0][i], "bob%d@example.org", i);
        snprintf(names[1][i], sizeof names[1][i], "alice%d@example.org", i);
        alice.peer = names[0][i];
        bob.peer = names[1][i];
        ake();
        say(&alice, text);
        say(&bob, text);
    }
    printf("memory %zu\n", (mallinfo2().uordblks - before) / CONVERSATIONS / 2);
}

static void set_up(struct side *s, struct side *other, const char *key_file)
{
    char line[128];
    FILE *f;

    s->other = other;
    s->peer = other->account;
    s->us = otrl_userstate_create();
    if (otrl_privkey_read(s->us, key_file) || otrl_privkey_find(s->us, s->account, PROTOCOL) == NULL)
        fail("cannot read a key");
    snprintf(line, sizeof line, "%s\t%s\t%08x\n", s->account, PROTOCOL, s->instance);
    f = fmemopen(line, strlen(line), "r");
    if (f == NULL || otrl_instag_read_FILEp(s->us, f))
        fail("cannot set the instance tag");
    fclose(f);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        fail("usage: libotr_bench KEYFILE_ALICE KEYFILE_BOB");
    gcry_control(GCRYCTL_ENABLE_QUICK_RANDOM, 0);
    OTRL_INIT;
    ops.policy = cb_policy;
    ops.is_logged_in = cb_is_logged_in;
    ops.inject_message = cb_inject;
    ops.gone_secure = cb_gone_secure;
    ops.handle_smp_event = cb_smp;
    ops.handle_msg_event = cb_message_event;
    set_up(&alice, &bob, argv[1]);
    set_up(&bob, &alice, argv[2]);

    measure("ake", op_ake, end, 1);
    measure_messages("oneway100", 100);
    measure_messages("oneway1k", 1000);
    measure_messages("oneway10k", 10000);
    memset(text, 'x', 100);
    text[100] = 0;
    measure("alternating", op_alternating, NULL, 2);
    measure("smp", op_smp, NULL, 1);
    measure_memory();
    return 0;
}
