/*
 * Writes that are too long to be received before they are written, over pipes in the simulated world.
 */
#include "engine/base/units.h"
#include "nbd/session.h"
#include "tests/lib/nbd_pipe_client.h"
#include "tests/unit/unit.h"

static struct nbd_run run;

static void in_time(void (*body)(struct nbd_run *r), struct nbd_options o)
{
	nbd_run_free(&run);
	run = (struct nbd_run){.co_body = body, .o = o};
	nbd_run(&run);
	CU_ASSERT_EQUAL(run.result, 0);
	CU_ASSERT_EQUAL(run.leaked, 0);
}

static uint8_t byte_at(uint64_t i)
{
	return (uint8_t)(i * 13 + (i >> 12) + (i >> 20)) | 1; /* never what was there before */
}

/* Bytes [from, to) of the payload. */
static void co_send(struct pipe_client *c, uint64_t from, uint64_t to)
{
	struct nbd_script s = {0};
	uint8_t *p = xmalloc(to - from);
	uint64_t i;

	for (i = from; i < to; i++)
		p[i - from] = byte_at(i);
	script_add(&s, p, to - from);
	xfree(p);
	CU_ASSERT_EQUAL(pipe_client_co_send(c, &s, UINT64_MAX), 0);
}

static void co_header(struct pipe_client *c, uint16_t cmd, uint16_t flags, uint64_t cookie, uint64_t off, uint64_t len)
{
	struct nbd_script s = {0};

	script_request(&s, cmd, flags, cookie, off, len);
	CU_ASSERT_EQUAL(pipe_client_co_send(c, &s, UINT64_MAX), 0);
}

/* The next reply, without payload, is to this. */
static uint32_t co_reply(struct pipe_client *c, uint64_t cookie)
{
	struct nbd_simple_reply r;

	CU_ASSERT_EQUAL_FATAL(stream_co_recv_all(c->mine, &r, sizeof(r), reactor_now_ns() + 60 * NS_PER_SEC), 0);
	CU_ASSERT_EQUAL(be64_get(r.cookie), cookie);
	return be32_get(r.error);
}

/* How many of the payload's bytes are on the device, from its start. */
static uint64_t written(struct mem_bdev *m, uint64_t off, uint64_t len)
{
	uint8_t *p = xmalloc(len);
	uint64_t i;

	mem_bdev_peek(m, off, p, len);
	for (i = 0; i < len && p[i] == byte_at(i); i++)
		;
	xfree(p);
	return i;
}

/* At an offset that is not round. */
static void comes_body(struct nbd_run *r)
{
	struct mem_bdev *m = nbd_mem_export(r->exports, RUN_DELAY);
	const uint64_t off = 5 * 512, len = 6 * MIB;
	struct pipe_client c;
	uint64_t sent, done = 0, at;

	pipe_client_co_connect(&c, r, "delay", NULL);
	co_header(&c, NBD_CMD_WRITE, NBD_CMD_FLAG_FUA, 7, off, len);
	for (sent = 0; sent < len; sent += 512 * KIB) {
		co_send(&c, sent, sent + 512 * KIB);
		co_sleep_ns(10 * NS_PER_MS);
		at = written(m, off, len);
		CU_ASSERT_TRUE(at >= done && at + 2 * MIB > sent);
		CU_ASSERT_TRUE(at == 0 || at == len || (off + at) % MIB == 0);
		done = at;
	}
	CU_ASSERT_EQUAL(co_reply(&c, 7), 0);
	CU_ASSERT_EQUAL(written(m, off, len), len);
	CU_ASSERT_EQUAL(mem_bdev_count(m, IO_WRITE), 7);
	CU_ASSERT_EQUAL(mem_bdev_count_fua(m), 7);
	co_header(&c, NBD_CMD_FLUSH, 0, 8, 0, 0); /* and that was the one reply */
	CU_ASSERT_EQUAL(co_reply(&c, 8), 0);
	CU_ASSERT_EQUAL(atomic_load(&container_of(list_first(&r->server->net.conns, struct net_conn, link), struct nbd_session, net)->writes), 1);
	pipe_client_co_end(&c);
}

static void memory_body(struct nbd_run *r)
{
	struct mem_bdev *m = nbd_mem_export(r->exports, RUN_DELAY);
	struct pipe_client c;

	mem_bdev_options(m)->delay_ns = 100 * NS_PER_MS;
	pipe_client_co_connect(&c, r, "delay", NULL);
	co_header(&c, NBD_CMD_WRITE, 0, 1, 0, 32 * MIB);
	co_send(&c, 0, 32 * MIB);
	CU_ASSERT_EQUAL(co_reply(&c, 1), 0);
	CU_ASSERT_EQUAL(written(m, 0, 32 * MIB), 32 * MIB);
	CU_ASSERT_TRUE(mem_bdev_in_flight_bytes_max(m) <= 3 * MIB);
	CU_ASSERT_TRUE(mem_bdev_in_flight_bytes_max(m) >= 2 * MIB);
	pipe_client_co_end(&c);
}

struct writer {
	struct pipe_client c;
	uint64_t off;
	bool done;
};

static void writer_co(void *arg)
{
	struct writer *w = arg;

	co_header(&w->c, NBD_CMD_WRITE, 0, 1, w->off, 8 * MIB);
	co_send(&w->c, 0, 8 * MIB);
	CU_ASSERT_EQUAL(co_reply(&w->c, 1), 0);
	w->done = true;
}

/* Their parts take turns. */
static void share_body(struct nbd_run *r)
{
	struct mem_bdev *m = nbd_mem_export(r->exports, RUN_DELAY);
	static struct writer w[6];
	unsigned i;

	for (i = 0; i < ARRAY_LEN(w); i++) {
		w[i] = (struct writer){.off = i * 8 * MIB};
		pipe_client_co_connect(&w[i].c, r, "delay", NULL);
		co_spawn(CO_SERVICE, writer_co, &w[i], "writer");
	}
	co_sleep_ns(5 * NS_PER_SEC);
	for (i = 0; i < ARRAY_LEN(w); i++) {
		CU_ASSERT_TRUE(w[i].done);
		CU_ASSERT_EQUAL(written(m, w[i].off, 8 * MIB), 8 * MIB);
		pipe_client_co_end(&w[i].c);
	}
	CU_ASSERT_TRUE(mem_bdev_in_flight_bytes_max(m) <= 2 * MIB + 6 * NBD_RESERVE_BYTES);
}

static void held_co(void *arg)
{
	struct writer *w = arg;
	uint64_t k;

	for (k = 0; k < 8 && !w->done; k++) {
		co_header(&w->c, NBD_CMD_WRITE, 0, k, k * MIB, 512 * KIB);
		co_send(&w->c, 0, 512 * KIB);
	}
}

/* Writes that do not end leave memory to who comes after them, however many hold it: for whole writes, long ones, and large reads. */
static void held_body(struct nbd_run *r)
{
	struct mem_bdev *held = nbd_mem_export(r->exports, RUN_DELAY), *m = nbd_mem_export(r->exports, RUN_MEM);
	static struct writer w[12];
	struct pipe_client c;
	uint64_t max;
	unsigned i;

	mem_bdev_options(held)->delay_ns = 100 * NS_PER_SEC;
	for (i = 0; i < ARRAY_LEN(w); i++) {
		w[i] = (struct writer){0};
		pipe_client_co_connect(&w[i].c, r, "delay", NULL);
		co_spawn(CO_SERVICE, held_co, &w[i], "held");
	}
	co_sleep_ns(NS_PER_SEC);
	max = mem_bdev_in_flight_bytes_max(held);
	CU_ASSERT_TRUE(max >= 3 * MIB && max <= 4 * MIB + ARRAY_LEN(w) * NBD_RESERVE_BYTES);
	pipe_client_co_connect(&c, r, "mem", NULL);
	co_header(&c, NBD_CMD_WRITE, 0, 1, 4096, 1500 * KIB);
	co_send(&c, 0, 1500 * KIB);
	CU_ASSERT_EQUAL(co_reply(&c, 1), 0);
	CU_ASSERT_EQUAL(written(m, 4096, 1500 * KIB), 1500 * KIB);
	co_header(&c, NBD_CMD_WRITE, 0, 2, 512, 7 * MIB);
	co_send(&c, 0, 7 * MIB);
	CU_ASSERT_EQUAL(co_reply(&c, 2), 0);
	CU_ASSERT_EQUAL(written(m, 512, 7 * MIB), 7 * MIB);
	CU_ASSERT_EQUAL(pipe_client_co_read(&c, 4 * MIB, NS_PER_SEC), 0);
	pipe_client_co_end(&c);
	CU_ASSERT_EQUAL(mem_bdev_in_flight_bytes_max(held), max);
	for (i = 0; i < ARRAY_LEN(w); i++)
		w[i].done = true;
	co_sleep_ns(1000 * NS_PER_SEC);
	for (i = 0; i < ARRAY_LEN(w); i++)
		pipe_client_co_end(&w[i].c);
}

static int fails_at(void *arg, struct io *io)
{
	return io->op == IO_WRITE && io->off_bytes <= 2 * MIB && io->off_bytes + io->len_bytes > 2 * MIB ? -ENOSPC : 0;
}

static void error_body(struct nbd_run *r)
{
	struct mem_bdev *m = nbd_mem_export(r->exports, RUN_DELAY);
	struct pipe_client c;

	mem_bdev_options(m)->fault = fails_at;
	pipe_client_co_connect(&c, r, "delay", NULL);
	co_header(&c, NBD_CMD_WRITE, 0, 1, 0, 8 * MIB);
	co_send(&c, 0, 4 * MIB);
	co_sleep_ns(10 * NS_PER_MS);
	CU_ASSERT_TRUE(mem_bdev_count(m, IO_WRITE) <= 4);
	co_send(&c, 4 * MIB, 8 * MIB); /* dropped; it would fail as a request */
	CU_ASSERT_EQUAL(co_reply(&c, 1), NBD_ENOSPC);
	CU_ASSERT_TRUE(mem_bdev_count(m, IO_WRITE) <= 4);
	/* the last part */
	co_header(&c, NBD_CMD_WRITE, 0, 2, 2 * MIB - 3 * MIB / 2, 5 * MIB / 2);
	co_send(&c, 0, 5 * MIB / 2);
	CU_ASSERT_EQUAL(co_reply(&c, 2), NBD_ENOSPC);
	CU_ASSERT_EQUAL(pipe_client_co_read(&c, 4096, NS_PER_SEC), 0);
	co_header(&c, NBD_CMD_WRITE, 0, 3, 3 * MIB, 4 * MIB);
	co_send(&c, 0, 4 * MIB);
	CU_ASSERT_EQUAL(co_reply(&c, 3), 0);
	CU_ASSERT_EQUAL(written(m, 3 * MIB, 4 * MIB), 4 * MIB);
	pipe_client_co_end(&c);
}

/* In the middle of a part, between two, with parts under way, and after an error. */
static void cut_body(struct nbd_run *r)
{
	struct mem_bdev *m = nbd_mem_export(r->exports, RUN_DELAY);
	struct pipe_client c;
	unsigned i;

	for (i = 0; i < 64; i++) {
		mem_bdev_options(m)->fault = i % 3 ? NULL : fails_at;
		mem_bdev_options(m)->delay_ns = i % 5 * 10 * NS_PER_MS;
		pipe_client_co_connect(&c, r, "delay", NULL);
		co_header(&c, NBD_CMD_READ, 0, 1, 0, 4096);
		co_header(&c, NBD_CMD_WRITE, 0, 2, 0, 16 * MIB);
		co_send(&c, 0, MAX(i * 200 * KIB, 1u));
		if (i % 7)
			co_sleep_ns(i % 7 * 3 * NS_PER_MS);
		if (i % 4)
			pipe_client_co_end(&c);
		else
			nbd_mem_export_gone(r->exports, RUN_DELAY);
		if (i % 4)
			continue;
		co_sleep_ns(NS_PER_SEC);
		CU_ASSERT_TRUE(c.served);
		stream_close(c.mine);
	}
}

static void is_written_as_it_comes(void) { in_time(comes_body, (struct nbd_options){0}); }
static void needs_no_more_memory_than_what_is_under_way(void) { in_time(memory_body, (struct nbd_options){.max_in_flight = 1, .max_in_flight_bytes = 3 * MIB}); }
static void several_share_what_memory_there_is(void) { in_time(share_body, (struct nbd_options){.max_total_bytes = 2 * MIB}); }
static void finds_memory_beside_writes_that_are_held(void) { in_time(held_body, (struct nbd_options){.max_total_bytes = 8 * MIB}); }
static void has_one_reply_when_a_part_fails(void) { in_time(error_body, (struct nbd_options){0}); }
static void is_cut_off_anywhere(void) { in_time(cut_body, (struct nbd_options){.max_in_flight_bytes = 2 * MIB}); }

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(is_written_as_it_comes),
		TEST(needs_no_more_memory_than_what_is_under_way),
		TEST(several_share_what_memory_there_is),
		TEST(finds_memory_beside_writes_that_are_held),
		TEST(has_one_reply_when_a_part_fails),
		TEST(is_cut_off_anywhere),
		CU_TEST_INFO_NULL,
	};

	return tests_run("nbd long write", tests);
}
