/*
 * The NBD handshake, byte by byte, over memory streams in the simulated world.
 */
#include <stdio.h>

#include "engine/base/units.h"
#include "nbd/session.h"
#include "tests/lib/nbd_run.h"
#include "tests/lib/pipe_stream.h"
#include "tests/unit/unit.h"

static struct nbd_script in;
static struct nbd_run run;

/* Runs what `in` holds and checks that the server ended clean. */
static void go(void)
{
	run.in = in.p;
	run.in_len = in.len;
	nbd_run(&run);
	CU_ASSERT_EQUAL(run.result, 0);
	CU_ASSERT_EQUAL(run.leaked, 0);
	script_free(&in);
	run.at = sizeof(struct nbd_greeting);
}

static void begin(void)
{
	nbd_run_free(&run);
	run = (struct nbd_run){0};
	script_flags(&in, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
}

/* The next reply's type must be this. */
static void expect(uint32_t opt, uint32_t type)
{
	const uint8_t *data;
	uint32_t len, got = run_option_reply(&run, opt, &data, &len);

	CU_ASSERT_EQUAL(got, type);
	if (got != type)
		printf("option %u: reply %#x, not %#x\n", opt, got, type);
}

static void expect_end(void)
{
	CU_ASSERT_EQUAL(run.at, run.out_len);
}

static void greeting_offers_fixed_newstyle(void)
{
	const struct nbd_greeting *g;

	begin();
	go();
	run.at = 0;
	g = run_take(&run, sizeof(*g));
	CU_ASSERT_FATAL(g != NULL);
	CU_ASSERT_EQUAL(be64_get(g->magic), NBD_MAGIC);
	CU_ASSERT_EQUAL(be64_get(g->opt_magic), NBD_OPT_MAGIC);
	CU_ASSERT_EQUAL(be16_get(g->flags), 3);
	expect_end();
}

static void unknown_client_flags_close(void)
{
	begin();
	script_free(&in);
	script_flags(&in, 8 | 3);
	script_option(&in, NBD_OPT_LIST, NULL, 0);
	go();
	expect_end();
}

static void unknown_options_are_unsupported(void)
{
	static const uint32_t opts[] = {0, 4, NBD_OPT_STARTTLS, 12, 13, 0xffffffff};
	size_t i;

	begin();
	for (i = 0; i < ARRAY_LEN(opts); i++)
		script_option(&in, opts[i], "data", i);
	go();
	for (i = 0; i < ARRAY_LEN(opts); i++)
		expect(opts[i], NBD_REP_ERR_UNSUP);
	expect_end();
}

static void list_names_every_export(void)
{
	const uint8_t *data;
	uint32_t len, i;

	begin();
	script_option(&in, NBD_OPT_LIST, "x", 1);
	script_option(&in, NBD_OPT_LIST, NULL, 0);
	script_option(&in, NBD_OPT_ABORT, "why", 3);
	go();
	expect(NBD_OPT_LIST, NBD_REP_ERR_INVALID);
	CU_ASSERT_EQUAL(run_option_reply(&run, NBD_OPT_LIST, &data, &len), NBD_REP_SERVER);
	CU_ASSERT_EQUAL_FATAL(len, 4 + 3 + strlen("plain memory"));
	CU_ASSERT_EQUAL(memcmp(data, "\0\0\0\3memplain memory", len), 0);
	for (i = 1; i < RUN_EXPORTS; i++)
		expect(NBD_OPT_LIST, NBD_REP_SERVER);
	expect(NBD_OPT_LIST, NBD_REP_ACK);
	expect(NBD_OPT_ABORT, NBD_REP_ACK);
	expect_end();
}

static void info_tells_size_flags_and_blocks(void)
{
	const struct nbd_info_block_size *b;
	const struct nbd_info_export *e;
	const uint8_t *data;
	uint32_t len;

	begin();
	script_go(&in, NBD_OPT_INFO, "block4k");
	script_go(&in, NBD_OPT_INFO, "none");
	go();
	CU_ASSERT_EQUAL(run_option_reply(&run, NBD_OPT_INFO, &data, &len), NBD_REP_INFO);
	CU_ASSERT_EQUAL_FATAL(len, 12);
	e = (const void *)data;
	CU_ASSERT_EQUAL(be64_get(e->size_bytes), RUN_SIZE);
	CU_ASSERT_EQUAL(be16_get(e->flags), 0xd6d);
	expect(NBD_OPT_INFO, NBD_REP_INFO); /* name; no description */
	CU_ASSERT_EQUAL(run_option_reply(&run, NBD_OPT_INFO, &data, &len), NBD_REP_INFO);
	CU_ASSERT_EQUAL_FATAL(len, 14);
	b = (const void *)data;
	CU_ASSERT_EQUAL(be32_get(b->min_bytes), 4096);
	CU_ASSERT_EQUAL(be32_get(b->preferred_bytes), 65536);
	CU_ASSERT_EQUAL(be32_get(b->max_bytes), 32 << 20);
	expect(NBD_OPT_INFO, NBD_REP_ACK);
	expect(NBD_OPT_INFO, NBD_REP_ERR_UNKNOWN);
	expect_end();
}

static void read_only_and_structured_change_the_flags(void)
{
	const uint8_t *data;
	uint32_t len;

	begin();
	script_option(&in, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	script_go(&in, NBD_OPT_INFO, "ro");
	go();
	expect(NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK);
	CU_ASSERT_EQUAL(run_option_reply(&run, NBD_OPT_INFO, &data, &len), NBD_REP_INFO);
	CU_ASSERT_EQUAL(be16_get(((const struct nbd_info_export *)data)->flags), 0x58f);
}

static void malformed_info_is_invalid(void)
{
	static const struct {
		const char *data;
		size_t len;
	} bad[] = {
		{"", 0},
		{"\0\0\0", 3},
		{"\0\0\0\4me", 6},
		{"\0\0\0\3mem", 7},
		{"\0\0\0\3mem\0\1", 9},
		{"\0\0\0\3mem\0\0x", 10},
		{"\377\377\377\377mem\0\0", 9},
		{"\0\0\0\3m\0m\0\0", 9},
		{"\0\0\0\3m\nm\0\0", 9},
		{"\0\0\0\3m\377m\0\0", 9},
		{"\0\0\0\3\340\200\200\0\0", 9},
	};
	size_t i;

	begin();
	for (i = 0; i < ARRAY_LEN(bad); i++)
		script_option(&in, i % 2 ? NBD_OPT_GO : NBD_OPT_INFO, bad[i].data, bad[i].len);
	go();
	for (i = 0; i < ARRAY_LEN(bad); i++)
		expect(i % 2 ? NBD_OPT_GO : NBD_OPT_INFO, NBD_REP_ERR_INVALID);
	expect_end();
}

static void names_beyond_the_limit_are_refused(void)
{
	char *name = xmalloc(4099);

	begin();
	memset(name, 'a', 4098);
	name[4096] = '\0';
	script_go(&in, NBD_OPT_INFO, name);
	name[4096] = 'a';
	name[4097] = '\0';
	script_go(&in, NBD_OPT_INFO, name);
	go();
	expect(NBD_OPT_INFO, NBD_REP_ERR_UNKNOWN);
	expect(NBD_OPT_INFO, NBD_REP_ERR_INVALID);
	expect_end();
	xfree(name);
}

static void long_options_are_skipped_or_close(void)
{
	char *data = xcalloc(1, 70000);

	begin();
	script_option(&in, NBD_OPT_GO, data, 16385);
	script_option(&in, 99, data, 65536);
	script_option(&in, NBD_OPT_LIST, data, 65537);
	script_option(&in, NBD_OPT_LIST, data, 0);
	go();
	expect(NBD_OPT_GO, NBD_REP_ERR_TOO_BIG);
	expect(99, NBD_REP_ERR_TOO_BIG);
	expect_end();
	xfree(data);
}

static void too_many_options_close(void)
{
	unsigned i, n = 0;
	const uint8_t *data;
	uint32_t len;

	begin();
	for (i = 0; i < 1000; i++)
		script_option(&in, 99, NULL, 0);
	go();
	while (run_option_reply(&run, 99, &data, &len))
		n++;
	CU_ASSERT_EQUAL(n, 256);
}

static void contexts_need_structured_replies(void)
{
	begin();
	script_context(&in, NBD_OPT_SET_META_CONTEXT, "mem", "base:allocation");
	script_context(&in, NBD_OPT_LIST_META_CONTEXT, "mem", NULL);
	go();
	expect(NBD_OPT_SET_META_CONTEXT, NBD_REP_ERR_INVALID);
	expect(NBD_OPT_LIST_META_CONTEXT, NBD_REP_ERR_INVALID);
	expect_end();
}

static void contexts_are_listed_and_set(void)
{
	const uint8_t *data;
	uint32_t len;

	begin();
	script_option(&in, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	script_context(&in, NBD_OPT_LIST_META_CONTEXT, "mem", NULL);
	script_context(&in, NBD_OPT_LIST_META_CONTEXT, "mem", "base:");
	script_context(&in, NBD_OPT_LIST_META_CONTEXT, "mem", "qemu:");
	script_context(&in, NBD_OPT_SET_META_CONTEXT, "mem", NULL);
	script_context(&in, NBD_OPT_SET_META_CONTEXT, "mem", "base:");
	script_context(&in, NBD_OPT_SET_META_CONTEXT, "mem", "base:allocation");
	script_context(&in, NBD_OPT_SET_META_CONTEXT, "none", "base:allocation");
	go();
	expect(NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK);
	expect(NBD_OPT_LIST_META_CONTEXT, NBD_REP_META_CONTEXT);
	expect(NBD_OPT_LIST_META_CONTEXT, NBD_REP_ACK);
	expect(NBD_OPT_LIST_META_CONTEXT, NBD_REP_META_CONTEXT);
	expect(NBD_OPT_LIST_META_CONTEXT, NBD_REP_ACK);
	expect(NBD_OPT_LIST_META_CONTEXT, NBD_REP_ACK);
	expect(NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK);
	expect(NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK);
	CU_ASSERT_EQUAL(run_option_reply(&run, NBD_OPT_SET_META_CONTEXT, &data, &len), NBD_REP_META_CONTEXT);
	CU_ASSERT_EQUAL(len, 4 + strlen("base:allocation"));
	expect(NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK);
	expect(NBD_OPT_SET_META_CONTEXT, NBD_REP_ERR_UNKNOWN);
	expect_end();
}

static void expect_context(uint32_t opt, uint32_t id, const char *name)
{
	const uint8_t *data;
	uint32_t len;

	CU_ASSERT_EQUAL_FATAL(run_option_reply(&run, opt, &data, &len), NBD_REP_META_CONTEXT);
	CU_ASSERT_EQUAL_FATAL(len, 4 + strlen(name));
	CU_ASSERT_EQUAL(be32_get(*(const be32 *)data), id);
	CU_ASSERT(!memcmp(data + 4, name, len - 4));
}

static void contexts_of_the_export_are_listed_by_prefix_and_set_by_name(void)
{
	static const char *const wanted[] = {"test:7", "base:allocation", "test:", "test:3", "test:21", "test:3"};
	char name[16];
	unsigned k;

	begin();
	script_option(&in, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	script_context(&in, NBD_OPT_LIST_META_CONTEXT, "marked", "test:");
	script_context(&in, NBD_OPT_LIST_META_CONTEXT, "marked", "test:2");
	script_context(&in, NBD_OPT_LIST_META_CONTEXT, "marked", "test");
	script_contexts(&in, NBD_OPT_SET_META_CONTEXT, "marked", wanted, ARRAY_LEN(wanted));
	go();
	expect(NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK);
	for (k = 1; k <= 20; k++) {
		snprintf(name, sizeof(name), "test:%u", k);
		expect_context(NBD_OPT_LIST_META_CONTEXT, 0, name);
	}
	expect(NBD_OPT_LIST_META_CONTEXT, NBD_REP_ACK);
	expect_context(NBD_OPT_LIST_META_CONTEXT, 0, "test:2");
	expect(NBD_OPT_LIST_META_CONTEXT, NBD_REP_ACK);
	expect(NBD_OPT_LIST_META_CONTEXT, NBD_REP_ACK);
	expect_context(NBD_OPT_SET_META_CONTEXT, 1, "base:allocation");
	expect_context(NBD_OPT_SET_META_CONTEXT, 2, "test:3");
	expect_context(NBD_OPT_SET_META_CONTEXT, 3, "test:7");
	expect(NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK);
	expect_end();
}

static void too_many_contexts_are_refused_and_none_is_set(void)
{
	char names[17][16];
	const char *wanted[17];
	unsigned k;

	begin();
	for (k = 0; k < 17; k++) {
		snprintf(names[k], sizeof(names[k]), "test:%u", k + 1);
		wanted[k] = names[k];
	}
	script_option(&in, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	script_contexts(&in, NBD_OPT_SET_META_CONTEXT, "marked", wanted, 17);
	script_contexts(&in, NBD_OPT_SET_META_CONTEXT, "marked", wanted, 16);
	go();
	expect(NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK);
	expect(NBD_OPT_SET_META_CONTEXT, NBD_REP_ERR_TOO_BIG);
	for (k = 0; k < 16; k++)
		expect_context(NBD_OPT_SET_META_CONTEXT, k + 1, names[k]);
	expect(NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK);
	expect_end();
}

static void malformed_contexts_are_invalid(void)
{
	static const struct {
		const char *data;
		size_t len;
		uint32_t reply;
	} bad[] = {
		{"", 0, NBD_REP_ERR_INVALID},
		{"\0\0\0\3mem", 7, NBD_REP_ERR_INVALID},
		{"\0\0\0\3mem\0\0\0\1", 11, NBD_REP_ERR_INVALID},
		{"\0\0\0\3mem\0\0\0\1\0\0\0\5base", 19, NBD_REP_ERR_INVALID},
		{"\0\0\0\3mem\0\0\0\0x", 12, NBD_REP_ERR_INVALID},
		{"\0\0\0\3mem\377\377\377\377", 11, NBD_REP_ERR_TOO_BIG},
		{"\0\0\0\3me\0\0\0\0\0", 11, NBD_REP_ERR_INVALID},
	};
	size_t i;

	begin();
	script_option(&in, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	for (i = 0; i < ARRAY_LEN(bad); i++)
		script_option(&in, NBD_OPT_SET_META_CONTEXT, bad[i].data, bad[i].len);
	go();
	expect(NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK);
	for (i = 0; i < ARRAY_LEN(bad); i++)
		expect(NBD_OPT_SET_META_CONTEXT, bad[i].reply);
	expect_end();
}

static void export_name_sends_zeroes_only_to_who_wants_them(void)
{
	begin();
	script_option(&in, NBD_OPT_EXPORT_NAME, "mem", 3);
	go();
	CU_ASSERT_EQUAL(run.out_len - run.at, 10);
	begin();
	script_free(&in);
	script_flags(&in, NBD_FLAG_FIXED_NEWSTYLE);
	script_option(&in, NBD_OPT_EXPORT_NAME, "", 0);
	go();
	CU_ASSERT_EQUAL(run.out_len - run.at, 134);
	begin();
	script_option(&in, NBD_OPT_EXPORT_NAME, "none", 4);
	go();
	expect_end();
}

/* ---- clients that are slow or many: pipes ---- */

struct client {
	struct nbd_run *run;
	struct stream *mine, *theirs;
	bool served;
	uint64_t served_ns;
};

static void serve_co(void *arg)
{
	struct client *c = arg;

	nbd_server_co_serve(c->run->server, c->theirs);
	c->served = true;
	c->served_ns = reactor_now_ns();
}

static void client_start(struct client *c, struct nbd_run *r)
{
	c->run = r;
	c->served = false;
	pipe_stream_pair(64 * KIB, &c->mine, &c->theirs);
	co_spawn(CO_SERVICE, serve_co, c, "serve");
}

static void slow_body(struct nbd_run *r)
{
	uint64_t start = reactor_now_ns();
	struct client c;
	uint8_t byte = 0;
	int err = 0;

	client_start(&c, r);
	while (!err && !c.served) {
		err = stream_co_send_all(c.mine, &(struct iovec){&byte, 1}, 1, UINT64_MAX);
		co_sleep_ns(NS_PER_SEC / 4);
	}
	CU_ASSERT_TRUE(c.served);
	CU_ASSERT_TRUE(c.served_ns - start <= 11 * NS_PER_SEC);
	stream_close(c.mine);
}

static void idle_body(struct nbd_run *r)
{
	uint64_t start = reactor_now_ns();
	struct client c;

	client_start(&c, r);
	co_sleep_ns(9 * NS_PER_SEC);
	CU_ASSERT_FALSE(c.served);
	co_sleep_ns(2 * NS_PER_SEC);
	CU_ASSERT_TRUE(c.served);
	CU_ASSERT_TRUE(c.served_ns - start <= 11 * NS_PER_SEC);
	stream_close(c.mine);
}

static bool client_connects(struct client *c, struct nbd_run *r)
{
	struct nbd_script s = {0};
	uint8_t buf[64];
	int err;

	script_flags(&s, 3);
	script_option(&s, NBD_OPT_EXPORT_NAME, "mem", 3);
	client_start(c, r);
	err = stream_co_send_all(c->mine, &(struct iovec){s.p, s.len}, 1, UINT64_MAX);
	if (!err)
		err = stream_co_recv_all(c->mine, buf, 18 + 10, UINT64_MAX);
	script_free(&s);
	return !err;
}

#define MANY 300

static void many_body(struct nbd_run *r)
{
	static struct client idle[MANY];
	struct client good;
	unsigned i, n = 0;

	for (i = 0; i < MANY; i++) {
		client_start(&idle[i], r);
		co_yield();
	}
	CU_ASSERT_TRUE(client_connects(&good, r));
	co_sleep_ns(NS_PER_MS);
	for (i = 0; i < MANY; i++)
		n += !idle[i].served;
	CU_ASSERT_TRUE(n <= 8);
	CU_ASSERT_FALSE(good.served);
	for (i = 0; i < MANY; i++)
		stream_close(idle[i].mine);
	co_sleep_ns(NS_PER_SEC);
	CU_ASSERT_FALSE(good.served);
	stream_close(good.mine);
	co_sleep_ns(NS_PER_SEC);
	CU_ASSERT_TRUE(good.served);
}

static void cap_body(struct nbd_run *r)
{
	static struct client c[6];
	struct nbd_connection_info *info;
	size_t n;
	unsigned i;

	for (i = 0; i < 4; i++)
		CU_ASSERT_TRUE(client_connects(&c[i], r));
	CU_ASSERT_FALSE(client_connects(&c[4], r));
	stream_close(c[4].mine);
	CU_ASSERT_EQUAL(nbd_server_co_connections(r->server, &info, &n), 0);
	CU_ASSERT_EQUAL(n, 4);
	CU_ASSERT_STRING_EQUAL(info[0].export_name, "mem");
	xfree(info);
	stream_close(c[0].mine);
	co_sleep_ns(NS_PER_MS);
	CU_ASSERT_TRUE(client_connects(&c[5], r));
	/* the server ends with clients open: all are served to the end */
	nbd_server_co_destroy(r->server);
	r->server = NULL;
	co_yield();
	for (i = 0; i < 6; i++) {
		CU_ASSERT_TRUE(c[i].served);
		if (i != 0 && i != 4)
			stream_close(c[i].mine);
	}
}

static void stop_body(struct nbd_run *r)
{
	static struct client c[3];
	unsigned i;

	for (i = 0; i < 3; i++)
		client_start(&c[i], r);
	co_yield();
	nbd_server_co_destroy(r->server);
	r->server = NULL;
	co_yield();
	for (i = 0; i < 3; i++) {
		CU_ASSERT_TRUE(c[i].served);
		stream_close(c[i].mine);
	}
}

static void with_body(void (*body)(struct nbd_run *r))
{
	begin();
	script_free(&in);
	run.co_body = body;
	run.o.max_unauthenticated = 8;
	run.o.max_connections = body == cap_body ? 4 : 0;
	nbd_run(&run);
	CU_ASSERT_EQUAL(run.result, 0);
	CU_ASSERT_EQUAL(run.leaked, 0);
}

static void slow_handshake_is_dropped(void) { with_body(slow_body); }
static void idle_handshake_is_dropped(void) { with_body(idle_body); }
static void newest_connects_among_many_half_open(void) { with_body(many_body); }
static void connections_are_capped_and_ended(void) { with_body(cap_body); }
static void server_stops_during_handshakes(void) { with_body(stop_body); }

static void escapes_for_the_log(void)
{
	char out[16];

	CU_ASSERT_STRING_EQUAL(log_escape("a\x1b[2J\n", 6, out, sizeof(out)), "a\\x1b[2J\\x0a");
	CU_ASSERT_EQUAL(strlen(log_escape("\n\n\n\n\n\n\n\n", 8, out, sizeof(out))), 12);
	CU_ASSERT_TRUE(nbd_string_is_valid("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80", 15));
	CU_ASSERT_FALSE(nbd_string_is_valid("\xc2\x9b", 2));
	CU_ASSERT_FALSE(nbd_string_is_valid("\xed\xa0\x80", 3));
	CU_ASSERT_FALSE(nbd_string_is_valid("\xf4\x90\x80\x80", 4));
	CU_ASSERT_FALSE(nbd_string_is_valid("\xc0\x80", 2));
	CU_ASSERT_FALSE(nbd_string_is_valid("\xe2\x82", 2));
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(greeting_offers_fixed_newstyle),
		TEST(unknown_client_flags_close),
		TEST(unknown_options_are_unsupported),
		TEST(list_names_every_export),
		TEST(info_tells_size_flags_and_blocks),
		TEST(read_only_and_structured_change_the_flags),
		TEST(malformed_info_is_invalid),
		TEST(names_beyond_the_limit_are_refused),
		TEST(long_options_are_skipped_or_close),
		TEST(too_many_options_close),
		TEST(contexts_need_structured_replies),
		TEST(contexts_are_listed_and_set),
		TEST(contexts_of_the_export_are_listed_by_prefix_and_set_by_name),
		TEST(too_many_contexts_are_refused_and_none_is_set),
		TEST(malformed_contexts_are_invalid),
		TEST(export_name_sends_zeroes_only_to_who_wants_them),
		TEST(slow_handshake_is_dropped),
		TEST(idle_handshake_is_dropped),
		TEST(newest_connects_among_many_half_open),
		TEST(connections_are_capped_and_ended),
		TEST(server_stops_during_handshakes),
		TEST(escapes_for_the_log),
		CU_TEST_INFO_NULL,
	};
	int r = tests_run("nbd handshake", tests);

	nbd_run_free(&run);
	return r;
}
