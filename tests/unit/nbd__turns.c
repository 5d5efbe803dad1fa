/*
 * What a session takes in its turn, where the payload of writes arrives, and long reads, which are answered in parts.
 */
#include "engine/base/units.h"
#include "nbd/session.h"
#include "tests/lib/nbd_pipe_client.h"
#include "tests/unit/unit.h"

static struct nbd_run run;

static void in_time(void (*body)(struct nbd_run *r))
{
	unsigned seed;

	for (seed = 1; seed <= 8; seed++) {
		run = (struct nbd_run){.seed = seed, .co_body = body, .o = {.max_in_flight = 4096}};
		nbd_run(&run);
		CU_ASSERT_EQUAL(run.result, 0);
		CU_ASSERT_EQUAL(run.leaked, 0);
		nbd_run_free(&run);
	}
}

static unsigned n_reads(struct nbd_run *r, unsigned export)
{
	return (unsigned)mem_bdev_count(nbd_mem_export(r->exports, export), IO_READ);
}

/* Their requests arrive together; the one request does not wait for all of the hog's, but for one part of five at most. */
static void hog_meets(struct nbd_run *r, unsigned n, uint32_t len)
{
	struct pipe_client hog, good;
	struct nbd_script s = {0};
	unsigned i, early;

	pipe_client_co_connect(&hog, r, "mem", NULL);
	pipe_client_co_connect(&good, r, "block4k", NULL);
	for (i = 0; i < n; i++)
		script_request(&s, NBD_CMD_READ, 0, i, 0, len);
	CU_ASSERT_EQUAL(pipe_client_co_send(&hog, &s, UINT64_MAX), 0);
	CU_ASSERT_EQUAL(pipe_client_co_read(&good, 4096, NS_PER_SEC), 0);
	early = n_reads(r, RUN_MEM);
	CU_ASSERT_EQUAL(pipe_client_co_recv(&hog, (size_t)n * (16 + len), UINT64_MAX), 0);
	CU_ASSERT_TRUE(early * 5 <= n_reads(r, RUN_MEM));
	pipe_client_co_end(&hog);
	pipe_client_co_end(&good);
}

static void hog_body(struct nbd_run *r) { hog_meets(r, 2000, 512); }
static void glutton_body(struct nbd_run *r) { hog_meets(r, 60, NBD_TURN_BYTES); }

/* ---- where payload arrives ---- */

/* A stream that notes how much each receive offers besides a payload's own memory. */
struct noting {
	struct stream s;
	struct stream *inner;
};

static size_t rooms[256];
static unsigned n_rooms;

static void noting_submit(struct stream *s, struct net_op *op)
{
	if (op->kind == NET_RECV && op->iov_n == 2 && n_rooms < ARRAY_LEN(rooms))
		rooms[n_rooms++] = op->iov[1].iov_len;
	stream_submit(container_of(s, struct noting, s)->inner, op);
}

static void noting_shutdown(struct stream *s)
{
	stream_shutdown(container_of(s, struct noting, s)->inner);
}

static void noting_close(struct stream *s)
{
	struct noting *n = container_of(s, struct noting, s);

	stream_close(n->inner);
	xfree(n);
}

static const struct stream_ops noting_ops = {.submit = noting_submit, .shutdown = noting_shutdown, .close = noting_close};

static struct stream *noting_wrap(struct stream *inner)
{
	struct noting *n = xcalloc(1, sizeof(*n));

	n->s = *inner;
	n->s.ops = &noting_ops;
	n->inner = inner;
	return &n->s;
}

/* Sends writes of this length, then reads one block; what receives into their payload offered for what follows. */
static void write_and_note(struct nbd_run *r, uint32_t len, unsigned n)
{
	struct nbd_script s = {0};
	struct pipe_client c;
	uint8_t b = 0;
	unsigned i;

	pipe_client_co_connect(&c, r, "mem", noting_wrap);
	n_rooms = 0;
	for (i = 0; i < n; i++)
		script_write(&s, 0, i, (uint64_t)i * len, len, (uint8_t)(i + 1));
	CU_ASSERT_EQUAL(pipe_client_co_send(&c, &s, UINT64_MAX), 0);
	CU_ASSERT_EQUAL(pipe_client_co_recv(&c, n * 16, UINT64_MAX), 0);
	CU_ASSERT_EQUAL(pipe_client_co_read(&c, 4096, NS_PER_SEC), 0);
	for (i = 0; i < n; i++) {
		mem_bdev_peek(nbd_mem_export(r->exports, RUN_MEM), (uint64_t)i * len + len - 1, &b, 1);
		CU_ASSERT_EQUAL(b, i + 1);
	}
	pipe_client_co_end(&c);
}

static void large_body(struct nbd_run *r)
{
	unsigned i;

	write_and_note(r, 1 << 20, 6);
	CU_ASSERT_TRUE(n_rooms > 6);
	for (i = 0; i < n_rooms; i++)
		CU_ASSERT_TRUE(rooms[i] <= sizeof(struct nbd_request));
}

static void small_body(struct nbd_run *r)
{
	unsigned i;

	write_and_note(r, 4096, 60);
	for (i = 0; i < n_rooms; i++)
		CU_ASSERT_TRUE(rooms[i] > NBD_RECV_BYTES / 2);
}

/* ---- long reads ---- */

#define LONG_OFF (1u << 20)
#define LONG_BYTES ((5u << 20) + 4096)

static uint8_t pattern(uint64_t at) { return (uint8_t)(at * 7 + (at >> 12) + (at >> 20)); }

static void fill(struct nbd_run *r)
{
	uint8_t *p = xmalloc(LONG_BYTES);
	uint32_t i;

	for (i = 0; i < LONG_BYTES; i++)
		p[i] = pattern(i);
	mem_bdev_poke(nbd_mem_export(r->exports, RUN_MEM), LONG_OFF, p, LONG_BYTES);
	xfree(p);
}

struct answer {
	unsigned n_chunks, n_data, n_done;
	bool done_is_last;
	uint32_t error;
	uint64_t bytes; /* that are as they should be */
};

/* All that came for cookie 1; what came for others is looked over. */
static struct answer answer_of(uint32_t read_len)
{
	struct answer a = {0};
	struct run_reply r;
	uint32_t i;

	while (run_reply(&run, read_len, &r)) {
		if (r.cookie != 1)
			continue;
		a.n_chunks++;
		a.n_done += r.done;
		a.done_is_last = r.done;
		a.error = r.error ? r.error : a.error;
		if (r.error || !r.len)
			continue;
		a.n_data++;
		if (r.extended)
			CU_ASSERT_EQUAL(r.request_off, LONG_OFF);
		for (i = 0; i < r.len && r.data[i] == pattern((r.structured ? r.off - LONG_OFF : 0) + i); i++)
			a.bytes++;
	}
	CU_ASSERT_EQUAL(run.at, run.out_len);
	return a;
}

static struct answer read_long(const char *name, bool structured, bool extended, uint16_t flags, uint64_t seed)
{
	struct nbd_script in = {0};
	struct answer a;

	run = (struct nbd_run){.seed = seed, .co_before = fill};
	if (extended)
		script_handshake_extended(&in, name, NULL, 0);
	else
		script_handshake(&in, name, structured);
	script_request(&in, NBD_CMD_READ, flags, 1, LONG_OFF, LONG_BYTES);
	script_request(&in, NBD_CMD_FLUSH, 0, 2, 0, 0);
	script_request(&in, NBD_CMD_DISC, 0, 3, 0, 0);
	run.in = in.p;
	run.in_len = in.len;
	nbd_run(&run);
	CU_ASSERT_EQUAL(run.result, 0);
	CU_ASSERT_EQUAL(run.leaked, 0);
	script_free(&in);
	CU_ASSERT_TRUE(run_skip_handshake(&run));
	a = answer_of(structured || extended ? 0 : LONG_BYTES);
	nbd_run_free(&run);
	return a;
}

static void a_long_read_is_answered_in_parts(void)
{
	struct answer a;
	uint64_t seed;

	for (seed = 1; seed <= 8; seed++) {
		a = read_long("mem", true, seed % 2, 0, seed);
		CU_ASSERT_EQUAL(a.n_data, DIV_UP(LONG_BYTES, NBD_PART_BYTES));
		CU_ASSERT_EQUAL(a.n_done, 1);
		CU_ASSERT_TRUE(a.done_is_last);
		CU_ASSERT_EQUAL(a.bytes, LONG_BYTES);
		CU_ASSERT_EQUAL(a.error, 0);
	}
}

static void but_not_where_the_client_cannot_have_that(void)
{
	struct answer a = read_long("mem", true, false, NBD_CMD_FLAG_DF, 1);

	CU_ASSERT_TRUE(a.n_chunks == 1 && a.bytes == LONG_BYTES);
	a = read_long("mem", false, false, 0, 1);
	CU_ASSERT_TRUE(a.n_chunks == 1 && a.bytes == LONG_BYTES);
}

/* The first part cannot be read. */
static void a_part_that_fails_is_an_error_at_the_end(void)
{
	struct answer a;
	uint64_t seed;

	for (seed = 1; seed <= 8; seed++) {
		a = read_long("faulty", true, seed % 2, 0, seed);
		CU_ASSERT_EQUAL(a.error, NBD_EIO);
		CU_ASSERT_EQUAL(a.n_done, 1);
		CU_ASSERT_TRUE(a.done_is_last);
		CU_ASSERT_TRUE(a.n_data < DIV_UP(LONG_BYTES, NBD_PART_BYTES));
	}
}

static void one_request_does_not_wait_for_thousands_of_others(void) { in_time(hog_body); }
static void nor_for_many_large_ones(void) { in_time(glutton_body); }
static void nothing_but_a_header_follows_a_large_payload(void) { in_time(large_body); }
static void many_small_writes_are_received_at_once(void) { in_time(small_body); }

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(one_request_does_not_wait_for_thousands_of_others),
		TEST(nor_for_many_large_ones),
		TEST(nothing_but_a_header_follows_a_large_payload),
		TEST(many_small_writes_are_received_at_once),
		TEST(a_long_read_is_answered_in_parts),
		TEST(but_not_where_the_client_cannot_have_that),
		TEST(a_part_that_fails_is_an_error_at_the_end),
		CU_TEST_INFO_NULL,
	};

	return tests_run("nbd turns", tests);
}
