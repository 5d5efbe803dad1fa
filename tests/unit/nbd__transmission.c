/*
 * The transmission phase over memory streams and pipes in the simulated world.
 */
#include <stdio.h>

#include "engine/base/alloc_hold.h"
#include "engine/base/units.h"
#include "nbd/session.h"
#include "tests/lib/nbd_pipe_client.h"
#include "tests/unit/unit.h"

static struct nbd_script in;
static struct nbd_run run;

static void begin(const char *name, bool structured)
{
	nbd_run_free(&run);
	run = (struct nbd_run){0};
	script_handshake(&in, name, structured);
}

static void go(void)
{
	run.in = in.p;
	run.in_len = in.len;
	nbd_run(&run);
	CU_ASSERT_EQUAL(run.result, 0);
	CU_ASSERT_EQUAL(run.leaked, 0);
	script_free(&in);
	CU_ASSERT_TRUE(run_skip_handshake(&run));
}

/* Replies may come in any order: looks at all for this cookie. */
static struct run_reply reply_of(uint64_t cookie, uint32_t read_len)
{
	size_t at = run.at;
	struct run_reply r;

	while (run_reply(&run, read_len, &r)) {
		if (r.cookie != cookie)
			continue;
		run.at = at;
		return r;
	}
	CU_FAIL("no reply");
	printf("no reply to %llu\n", (unsigned long long)cookie);
	run.at = at;
	return (struct run_reply){.error = 9999};
}

static unsigned count_replies(void)
{
	struct run_reply r;
	unsigned n = 0;

	while (run_reply(&run, 0, &r))
		n++;
	CU_ASSERT_EQUAL(run.at, run.out_len);
	return n;
}

static uint8_t peek(unsigned export, uint64_t off)
{
	uint8_t b;

	mem_bdev_peek(nbd_mem_export(run.exports, export), off, &b, 1);
	return b;
}

/* ---- data ---- */

static void check_written(struct nbd_run *r)
{
	CU_ASSERT_EQUAL(peek(RUN_MEM, 4096), 0x5a);
	CU_ASSERT_EQUAL(peek(RUN_MEM, 4096 + 65535), 0x5a);
	CU_ASSERT_EQUAL(peek(RUN_MEM, 4096 + 65536), 0);
	CU_ASSERT_EQUAL(peek(RUN_MEM, 1 << 20), 0x77);
	CU_ASSERT_EQUAL(peek(RUN_MEM, (4 << 20) - 1), 0x77);
	CU_ASSERT_EQUAL(peek(RUN_MEM, 4 << 20), 0);
	CU_ASSERT_EQUAL(mem_bdev_count_fua(nbd_mem_export(r->exports, RUN_MEM)), 1);
}

/* Whatever the sizes of the receives: header and payload cut anywhere. */
static void writes_arrive_in_any_pieces(void)
{
	static const size_t chunks[] = {0, 1, 27, 29, 4096, 4097, 65535, 300000};
	size_t i;

	for (i = 0; i < ARRAY_LEN(chunks); i++) {
		begin("mem", i % 2);
		run.chunk = chunks[i];
		run.n_reactors = 2;
		run.co_after = check_written;
		script_write(&in, NBD_CMD_FLAG_FUA, 1, 4096, 65536, 0x5a);
		script_write(&in, 0, 2, 1 << 20, 3 << 20, 0x77);
		script_request(&in, NBD_CMD_FLUSH, 0, 3, 0, 0);
		script_request(&in, NBD_CMD_DISC, 0, 4, 0, 0);
		go();
		CU_ASSERT_EQUAL(reply_of(1, 0).error, 0);
		CU_ASSERT_EQUAL(reply_of(2, 0).error, 0);
		CU_ASSERT_EQUAL(reply_of(3, 0).error, 0);
		CU_ASSERT_EQUAL(count_replies(), 3);
	}
}

static void fill_before(struct nbd_run *r)
{
	uint8_t *p = xmalloc(2 << 20);
	size_t i;

	for (i = 0; i < 2 << 20; i++)
		p[i] = (uint8_t)(i * 7 + (i >> 12));
	mem_bdev_poke(nbd_mem_export(r->exports, RUN_MEM), 1 << 20, p, 2 << 20);
	xfree(p);
}

static bool is_filled(const struct run_reply *r)
{
	size_t i;

	for (i = 0; i < r->len; i++)
		if (r->data[i] != (uint8_t)(i * 7 + (i >> 12)))
			return false;
	return true;
}

static void reads_simple(void)
{
	static const uint32_t lens[] = {512, 4096, 256 << 10, 2 << 20};
	struct run_reply r;
	size_t i;

	for (i = 0; i < ARRAY_LEN(lens); i++) {
		begin("mem", false);
		run.co_before = fill_before;
		script_request(&in, NBD_CMD_READ, 0, 1, 1 << 20, lens[i]);
		go();
		r = reply_of(1, lens[i]);
		CU_ASSERT_FALSE(r.structured);
		CU_ASSERT_EQUAL(r.error, 0);
		CU_ASSERT_EQUAL(r.len, lens[i]);
		CU_ASSERT_TRUE(is_filled(&r));
	}
}

static void reads_structured(void)
{
	struct run_reply r;

	begin("mem", true);
	run.co_before = fill_before;
	script_request(&in, NBD_CMD_READ, 0, 1, 1 << 20, 4096);
	script_request(&in, NBD_CMD_READ, NBD_CMD_FLAG_DF, 2, 1 << 20, 2 << 20);
	go();
	r = reply_of(1, 0);
	CU_ASSERT_EQUAL(r.type, NBD_REPLY_TYPE_OFFSET_DATA);
	CU_ASSERT_EQUAL(r.off, 1 << 20);
	CU_ASSERT_EQUAL(r.len, 4096);
	CU_ASSERT_TRUE(is_filled(&r));
	r = reply_of(2, 0);
	CU_ASSERT_EQUAL(r.type, NBD_REPLY_TYPE_OFFSET_DATA);
	CU_ASSERT_EQUAL(r.len, 2 << 20);
	CU_ASSERT_TRUE(is_filled(&r));
	CU_ASSERT_EQUAL(count_replies(), 2);
}

/* A device that gives up reads that may be, and still writes to their memory at the end. */
static struct iovec given_up[64];
static unsigned n_given_up, n_asked_again;

static int late_fault(void *arg, struct io *io)
{
	if (io->op != IO_READ)
		return 0;
	if (io->flags & IO_MAY_GIVE_UP) {
		CU_ASSERT_FATAL(n_given_up < ARRAY_LEN(given_up));
		given_up[n_given_up] = io->iov[0];
		alloc_hold(io->iov[0].iov_base, io->iov[0].iov_len);
		n_given_up++;
		return -ETIMEDOUT;
	}
	n_asked_again++;
	CU_ASSERT_FALSE(alloc_is_held(io->iov[0].iov_base, io->len_bytes));
	return 0;
}

static void late_before(struct nbd_run *r)
{
	fill_before(r);
	mem_bdev_options(nbd_mem_export(r->exports, RUN_MEM))->fault = late_fault;
}

static void late_after(struct nbd_run *r)
{
	unsigned i;

	for (i = 0; i < n_given_up; i++) {
		memset(given_up[i].iov_base, 0xee, given_up[i].iov_len);
		alloc_release(given_up[i].iov_base, given_up[i].iov_len);
	}
}

static void read_that_the_device_gives_up_is_done_again_in_other_memory(void)
{
	static const uint32_t lens[] = {512, 4096, 256 << 10, 2 << 20};
	struct run_reply r;
	size_t i;

	for (i = 0; i < 2 * ARRAY_LEN(lens); i++) {
		n_given_up = n_asked_again = 0;
		begin("mem", i % 2);
		run.co_before = late_before;
		run.co_after = late_after;
		script_request(&in, NBD_CMD_READ, 0, 1, 1 << 20, lens[i / 2]);
		if (i % 2) /* its reply may be the first */
			script_request(&in, NBD_CMD_CACHE, 0, 2, 1 << 20, 4096);
		script_request(&in, NBD_CMD_DISC, 0, 3, 0, 0);
		go();
		r = reply_of(1, i % 2 ? 0 : lens[i / 2]);
		CU_ASSERT_EQUAL(r.error, 0);
		CU_ASSERT_EQUAL(r.len, lens[i / 2]);
		CU_ASSERT_TRUE(is_filled(&r));
		CU_ASSERT_TRUE(n_given_up >= 1 && n_asked_again >= 1 + i % 2);
	}
}

static int always_late(void *arg, struct io *io)
{
	return io->op == IO_READ ? -ETIMEDOUT : 0;
}

static void never_before(struct nbd_run *r)
{
	mem_bdev_options(nbd_mem_export(r->exports, RUN_MEM))->fault = always_late;
}

static void read_that_never_comes_ends_in_an_error(void)
{
	begin("mem", true);
	run.co_before = never_before;
	script_request(&in, NBD_CMD_READ, 0, 1, 1 << 20, 4096);
	script_request(&in, NBD_CMD_READ, 0, 2, 1 << 20, 3 << 20);
	script_request(&in, NBD_CMD_DISC, 0, 3, 0, 0);
	go();
	CU_ASSERT_NOT_EQUAL(reply_of(1, 0).error, 0);
	CU_ASSERT_NOT_EQUAL(reply_of(2, 0).error, 0);
}

static uint8_t fence;

static void fence_before(struct nbd_run *r)
{
	fill_before(r);
	mem_bdev_of(nbd_mem_export(r->exports, RUN_MEM))->fence = fence;
}

/* Reserved by an initiator of another frontend: what NBD clients may not do they are refused, the rest goes on. */
static void reserved_volume_refuses_what_the_reservation_says(void)
{
	unsigned i;

	for (i = 0; i < 3; i++) {
		fence = (uint8_t[]){BDEV_FENCE_NONE, BDEV_FENCE_WRITES, BDEV_FENCE_ALL}[i];
		begin("mem", false);
		run.co_before = fence_before;
		script_write(&in, 0, 1, 0, 512, 1);
		script_request(&in, NBD_CMD_TRIM, 0, 2, 0, 4096);
		script_request(&in, NBD_CMD_WRITE_ZEROES, 0, 3, 0, 4096);
		script_request(&in, NBD_CMD_CACHE, 0, 4, 0, 4096);
		script_request(&in, NBD_CMD_FLUSH, 0, 5, 0, 0);
		go();
		CU_ASSERT_EQUAL(reply_of(1, 0).error, i ? NBD_EPERM : 0);
		CU_ASSERT_EQUAL(reply_of(2, 0).error, i ? NBD_EPERM : 0);
		CU_ASSERT_EQUAL(reply_of(3, 0).error, i ? NBD_EPERM : 0);
		CU_ASSERT_EQUAL(reply_of(4, 0).error, i == 2 ? NBD_EPERM : 0);
		CU_ASSERT_EQUAL(reply_of(5, 0).error, 0);
	}
}

static void thousands_of_requests_in_one_receive(void)
{
	unsigned i;

	begin("mem", true);
	for (i = 0; i < 3000; i++)
		script_request(&in, NBD_CMD_READ, 0, i, i % 1000 * 4096, 512);
	script_request(&in, NBD_CMD_DISC, 0, 0, 0, 0);
	go();
	CU_ASSERT_EQUAL(count_replies(), 3000);
}

static void after_zero(struct nbd_run *r)
{
	CU_ASSERT_EQUAL(peek(RUN_MEM, 1 << 20), 0);
	CU_ASSERT_EQUAL(peek(RUN_MEM, (1 << 20) + 8191), 0);
	CU_ASSERT_EQUAL(peek(RUN_MEM, (2 << 20) + 4095), 0);
	CU_ASSERT_EQUAL(mem_bdev_count_fua(nbd_mem_export(r->exports, RUN_MEM)), 2);
	CU_ASSERT_EQUAL(mem_bdev_count(nbd_mem_export(r->exports, RUN_MEM), IO_DISCARD), 1);
	CU_ASSERT_EQUAL(mem_bdev_count(nbd_mem_export(r->exports, RUN_MEM), IO_ZERO), 33);
}

static void trim_zero_and_cache(void)
{
	unsigned i;

	begin("mem", true);
	run.co_before = fill_before;
	run.co_after = after_zero;
	script_request(&in, NBD_CMD_TRIM, NBD_CMD_FLAG_FUA, 1, 1 << 20, 8192);
	script_request(&in, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO | NBD_CMD_FLAG_FUA, 2, 2 << 20, 4096);
	script_request(&in, NBD_CMD_CACHE, 0, 3, 0, 4096);
	script_request(&in, NBD_CMD_CACHE, 0, 4, 0, RUN_SIZE);
	script_request(&in, NBD_CMD_WRITE_ZEROES, 0, 5, 0, RUN_SIZE); /* 32 pieces */
	go();
	for (i = 1; i <= 5; i++)
		CU_ASSERT_EQUAL(reply_of(i, 0).error, 0);
	CU_ASSERT_EQUAL(count_replies(), 5);
}

static void fast_zero_fails_fast(void)
{
	begin("nofast", false);
	script_request(&in, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FAST_ZERO, 1, 0, 4096);
	script_request(&in, NBD_CMD_WRITE_ZEROES, 0, 2, 0, 4096);
	script_request(&in, NBD_CMD_TRIM, 0, 3, 0, 4096);
	go();
	CU_ASSERT_EQUAL(reply_of(1, 0).error, NBD_ENOTSUP);
	CU_ASSERT_EQUAL(reply_of(2, 0).error, 0);
	CU_ASSERT_EQUAL(reply_of(3, 0).error, NBD_EINVAL);
}

/* ---- block status ---- */

static void status_before(struct nbd_run *r)
{
	uint8_t b = 1;

	mem_bdev_poke(nbd_mem_export(r->exports, RUN_MEM), 65536, &b, 1);
	mem_bdev_poke(nbd_mem_export(r->exports, RUN_MEM), 65536 + 8192, &b, 1);
}

static uint32_t ext_len(const struct run_reply *r, unsigned i)
{
	return be32_get(((const struct nbd_extent *)r->data)[i].len_bytes);
}

static uint32_t ext_flags(const struct run_reply *r, unsigned i)
{
	return be32_get(((const struct nbd_extent *)r->data)[i].flags);
}

static void block_status_tells_holes(void)
{
	struct run_reply r;

	begin("mem", true);
	run.co_before = status_before;
	script_request(&in, NBD_CMD_BLOCK_STATUS, 0, 1, 0, RUN_SIZE);
	script_request(&in, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, 2, 65536, 1 << 20);
	script_request(&in, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, 3, 512, 1024);
	script_request(&in, NBD_CMD_BLOCK_STATUS, 0, 4, 512, 1023);
	script_request(&in, NBD_CMD_BLOCK_STATUS, 0, 5, 512, RUN_SIZE);
	go();
	r = reply_of(1, 0);
	CU_ASSERT_EQUAL(r.type, NBD_REPLY_TYPE_BLOCK_STATUS);
	CU_ASSERT_EQUAL_FATAL(r.len, 5 * 8);
	CU_ASSERT_EQUAL(ext_len(&r, 0), 65536);
	CU_ASSERT_EQUAL(ext_flags(&r, 0), 3);
	CU_ASSERT_EQUAL(ext_len(&r, 1), 4096);
	CU_ASSERT_EQUAL(ext_flags(&r, 1), 0);
	CU_ASSERT_EQUAL(ext_len(&r, 2), 4096);
	CU_ASSERT_EQUAL(ext_len(&r, 4), RUN_SIZE - 65536 - 12288);
	r = reply_of(2, 0);
	CU_ASSERT_EQUAL_FATAL(r.len, 8);
	CU_ASSERT_EQUAL(ext_len(&r, 0), 4096);
	r = reply_of(3, 0);
	CU_ASSERT_EQUAL_FATAL(r.len, 8);
	CU_ASSERT_EQUAL(ext_len(&r, 0), 1024);
	CU_ASSERT_EQUAL(reply_of(4, 0).error, NBD_EINVAL);
	CU_ASSERT_EQUAL(reply_of(5, 0).error, NBD_EINVAL);
}

static void block_status_answers_a_chunk_for_each_context(void)
{
	static const char *const wanted[] = {"test:2", "base:allocation", "test:5"};
	static const uint64_t stretch[] = {0, 2 * NBD_MEM_STRETCH, 5 * NBD_MEM_STRETCH};
	static const uint32_t flags[] = {3, 2, 5};
	struct run_reply r;
	unsigned c, i;
	uint64_t at;

	nbd_run_free(&run);
	run = (struct nbd_run){.n_reactors = 2};
	script_flags(&in, 3);
	script_option(&in, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	script_contexts(&in, NBD_OPT_SET_META_CONTEXT, "marked", wanted, 3);
	script_go(&in, NBD_OPT_GO, "marked");
	script_request(&in, NBD_CMD_BLOCK_STATUS, 0, 1, 4096, RUN_SIZE - 8192);
	script_request(&in, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, 2, 3 * NBD_MEM_STRETCH, 3 * NBD_MEM_STRETCH);
	go();
	for (c = 0; c < 3; c++) {
		CU_ASSERT_FATAL(run_reply(&run, 0, &r));
		CU_ASSERT_EQUAL(r.cookie, 1);
		CU_ASSERT_EQUAL(r.type, NBD_REPLY_TYPE_BLOCK_STATUS);
		CU_ASSERT_EQUAL(r.context, c + 1);
		CU_ASSERT_EQUAL(r.done, c == 2);
		for (i = 0, at = 4096; i < r.len / 8; i++) {
			CU_ASSERT_EQUAL(ext_flags(&r, i), !c ? flags[c] : at / stretch[c] % 2 ? flags[c] : 0);
			at += ext_len(&r, i);
			CU_ASSERT(at == RUN_SIZE - 4096 || (c && at % stretch[c] == 0));
		}
		CU_ASSERT_EQUAL(at, RUN_SIZE - 4096);
	}
	for (c = 0; c < 3; c++) {
		CU_ASSERT_FATAL(run_reply(&run, 0, &r));
		CU_ASSERT_EQUAL(r.cookie, 2);
		CU_ASSERT_EQUAL_FATAL(r.len, 8);
		CU_ASSERT_EQUAL(ext_len(&r, 0), (c ? c == 1 ? 1 : 2 : 3) * NBD_MEM_STRETCH);
		CU_ASSERT_EQUAL(ext_flags(&r, 0), c == 1 ? 2 : c ? 0 : 3);
	}
	CU_ASSERT(r.done && !run_reply(&run, 0, &r));
}

static void block_status_needs_its_context(void)
{
	begin("mem", false);
	script_request(&in, NBD_CMD_BLOCK_STATUS, 0, 1, 0, 4096);
	go();
	CU_ASSERT_EQUAL(reply_of(1, 0).error, NBD_EINVAL);
	/* set for another export than the one that is used */
	nbd_run_free(&run);
	run = (struct nbd_run){0};
	script_flags(&in, 3);
	script_option(&in, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	script_context(&in, NBD_OPT_SET_META_CONTEXT, "ro", "base:allocation");
	script_go(&in, NBD_OPT_GO, "mem");
	script_request(&in, NBD_CMD_BLOCK_STATUS, 0, 1, 0, 4096);
	go();
	CU_ASSERT_EQUAL(reply_of(1, 0).error, NBD_EINVAL);
}

/* ---- refusals ---- */

static const struct {
	uint16_t cmd, flags;
	uint64_t off;
	uint32_t len;
	uint32_t error; /* of a simple session; EOVERFLOW where a structured one says so */
} refused[] = {
	{NBD_CMD_READ, 0, 0, 0, NBD_EINVAL},
	{NBD_CMD_READ, 0, 1, 512, NBD_EINVAL},
	{NBD_CMD_READ, 0, 0, 513, NBD_EINVAL},
	{NBD_CMD_READ, 0, RUN_SIZE, 512, NBD_EINVAL},
	{NBD_CMD_READ, 0, RUN_SIZE - 512, 1024, NBD_EINVAL},
	{NBD_CMD_READ, 0, 0xfffffffffffffe00, 512, NBD_EINVAL},
	{NBD_CMD_READ, 0, 0xfffffffffffffe00, 1024, NBD_EINVAL},
	{NBD_CMD_READ, NBD_CMD_FLAG_NO_HOLE, 0, 512, NBD_EINVAL},
	{NBD_CMD_READ, 0x20, 0, 512, NBD_EINVAL},
	{NBD_CMD_WRITE, 0, RUN_SIZE, 512, NBD_ENOSPC},
	{NBD_CMD_WRITE, 0, RUN_SIZE - 512, 1024, NBD_ENOSPC},
	{NBD_CMD_WRITE, 0, 3, 512, NBD_EINVAL},
	{NBD_CMD_WRITE, 0, 0, 100, NBD_EINVAL},
	{NBD_CMD_WRITE, 0, 0, 0, NBD_EINVAL},
	{NBD_CMD_WRITE, NBD_CMD_FLAG_DF, 0, 512, NBD_EINVAL},
	{NBD_CMD_FLUSH, 0, 512, 0, NBD_EINVAL},
	{NBD_CMD_FLUSH, 0, 0, 1, NBD_EINVAL},
	{NBD_CMD_TRIM, 0, RUN_SIZE, 512, NBD_EINVAL},
	{NBD_CMD_TRIM, 0, 0, 0xffffffff, NBD_EINVAL},
	{NBD_CMD_CACHE, 0, RUN_SIZE, 512, NBD_EINVAL},
	{NBD_CMD_WRITE_ZEROES, 0, RUN_SIZE, 512, NBD_ENOSPC},
	{NBD_CMD_WRITE_ZEROES, 0, 0, 0xfffffe00, NBD_ENOSPC},
	{NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_REQ_ONE, 0, 512, NBD_EINVAL},
	{8, 0, 0, 512, NBD_EINVAL},
	{0xffff, 0xffff, 0, 0xffffffff, NBD_EINVAL},
};

static void wrong_requests_get_their_error(void)
{
	struct run_reply r;
	unsigned i, structured;

	for (structured = 0; structured < 2; structured++) {
		begin("mem", structured);
		for (i = 0; i < ARRAY_LEN(refused); i++) {
			if (refused[i].cmd == NBD_CMD_WRITE)
				script_write(&in, refused[i].flags, i, refused[i].off, refused[i].len, 0xee);
			else
				script_request(&in, refused[i].cmd, refused[i].flags, i, refused[i].off, refused[i].len);
		}
		script_request(&in, NBD_CMD_READ, NBD_CMD_FLAG_DF, 1000, 0, 512);
		script_request(&in, NBD_CMD_READ, 0, 1001, 0, 0xffffffff);
		go();
		for (i = 0; i < ARRAY_LEN(refused); i++) {
			r = reply_of(i, 512);
			CU_ASSERT_EQUAL(r.error, refused[i].error);
			CU_ASSERT_EQUAL(r.structured, structured);
			if (r.error != refused[i].error)
				printf("refused[%u]: %u\n", i, r.error);
		}
		CU_ASSERT_EQUAL(reply_of(1000, 512).error, structured ? 0 : NBD_EINVAL);
		CU_ASSERT_EQUAL(reply_of(1001, 0).error, structured ? NBD_EOVERFLOW : NBD_EINVAL);
	}
}

static void read_only_refuses_every_change(void)
{
	begin("ro", true);
	script_write(&in, 0, 1, 0, 4096, 1);
	script_request(&in, NBD_CMD_TRIM, 0, 2, 0, 4096);
	script_request(&in, NBD_CMD_WRITE_ZEROES, 0, 3, 0, 4096);
	script_request(&in, NBD_CMD_FLUSH, 0, 4, 0, 0);
	script_request(&in, NBD_CMD_READ, 0, 5, 0, 4096);
	go();
	CU_ASSERT_EQUAL(reply_of(1, 0).error, NBD_EPERM);
	CU_ASSERT_EQUAL(reply_of(2, 0).error, NBD_EPERM);
	CU_ASSERT_EQUAL(reply_of(3, 0).error, NBD_EPERM);
	CU_ASSERT_EQUAL(reply_of(4, 0).error, 0);
	CU_ASSERT_EQUAL(reply_of(5, 0).len, 4096);
}

static void too_long_writes_are_drained_or_close(void)
{
	begin("mem", true);
	script_write(&in, 0, 1, 0, (32 << 20) + 512, 1);
	script_request(&in, NBD_CMD_READ, 0, 2, 0, 512);
	script_request(&in, NBD_CMD_WRITE, 0, 3, 0, 0xffffffff);
	script_request(&in, NBD_CMD_READ, 0, 4, 0, 512);
	go();
	CU_ASSERT_EQUAL(reply_of(1, 0).error, NBD_EINVAL);
	CU_ASSERT_EQUAL(reply_of(2, 0).len, 512);
	CU_ASSERT_EQUAL(count_replies(), 2);
}

static void bad_magic_closes_after_the_rest(void)
{
	begin("delay", true);
	script_request(&in, NBD_CMD_READ, 0, 1, 0, 512);
	script_add(&in, "garbage that is no request at all", 33);
	script_request(&in, NBD_CMD_READ, 0, 2, 0, 512);
	go();
	CU_ASSERT_EQUAL(reply_of(1, 0).len, 512);
	CU_ASSERT_EQUAL(count_replies(), 1);
}

static void end_in_the_middle_of_a_payload(void)
{
	begin("mem", true);
	script_request(&in, NBD_CMD_WRITE, 0, 1, 0, 1 << 20);
	script_add(&in, "only this", 9);
	go();
	CU_ASSERT_EQUAL(count_replies(), 0);
}

static void device_errors_reach_the_client(void)
{
	begin("faulty", true);
	script_request(&in, NBD_CMD_READ, 0, 1, 1 << 20, 4096);
	script_request(&in, NBD_CMD_READ, 0, 2, 0, 2 << 20); /* 32 pieces, half of them fail */
	script_write(&in, 0, 3, 1 << 20, 4096, 1);
	script_request(&in, NBD_CMD_READ, 0, 4, 0, 4096);
	go();
	CU_ASSERT_EQUAL(reply_of(1, 0).error, NBD_EIO);
	CU_ASSERT_EQUAL(reply_of(2, 0).error, NBD_EIO);
	CU_ASSERT_EQUAL(reply_of(3, 0).error, NBD_EIO);
	CU_ASSERT_EQUAL(reply_of(4, 0).len, 4096);
}

static void errors_have_one_mapping(void)
{
	CU_ASSERT_EQUAL(nbd_err(0), NBD_SUCCESS);
	CU_ASSERT_EQUAL(nbd_err(-EROFS), NBD_EPERM);
	CU_ASSERT_EQUAL(nbd_err(-ERR_POOL_FULL), NBD_ENOSPC);
	CU_ASSERT_EQUAL(nbd_err(-ERR_CSUM), NBD_EIO);
	CU_ASSERT_EQUAL(nbd_err(-ERANGE), NBD_EINVAL);
	CU_ASSERT_EQUAL(nbd_err(-EOPNOTSUPP), NBD_ENOTSUP);
	CU_ASSERT_EQUAL(nbd_err(-ESHUTDOWN), NBD_ESHUTDOWN);
	CU_ASSERT_EQUAL(nbd_err(-ENODEV), NBD_EIO);
}

/* ---- clients in time ---- */

static void in_time(void (*body)(struct nbd_run *r))
{
	nbd_run_free(&run);
	run = (struct nbd_run){.co_body = body, .o = {.max_in_flight = 16, .max_in_flight_bytes = 4 * MIB, .max_total_bytes = 8 * MIB}};
	nbd_run(&run);
	CU_ASSERT_EQUAL(run.result, 0);
	CU_ASSERT_EQUAL(run.leaked, 0);
}

static void unread_body(struct nbd_run *r)
{
	struct nbd_script s = {0};
	struct pipe_client bad, good;
	unsigned i;

	pipe_client_co_connect(&bad, r, "delay", NULL);
	pipe_client_co_connect(&good, r, "delay", NULL);
	for (i = 0; i < 1000; i++)
		script_request(&s, NBD_CMD_READ, 0, i, 0, 1 << 20);
	CU_ASSERT_EQUAL(pipe_client_co_send(&bad, &s, UINT64_MAX), 0); /* 28 KB fit into the pipe and the server's buffer */
	co_sleep_ns(NS_PER_SEC);
	CU_ASSERT_TRUE(mem_bdev_in_flight_bytes_max(nbd_mem_export(r->exports, RUN_DELAY)) <= 4 * MIB);
	CU_ASSERT_TRUE(mem_bdev_count(nbd_mem_export(r->exports, RUN_DELAY), IO_READ) <= 4);
	for (i = 0; i < 10; i++)
		CU_ASSERT_EQUAL(pipe_client_co_read(&good, 1 << 20, NS_PER_SEC), 0);
	pipe_client_co_end(&bad);
	pipe_client_co_end(&good);
}

#define HOGS 6

/* Six clients take all of the reactor's memory and stop; a small request is not touched by that, a big one comes to its
 * turn when the hogs have stood still for too long. */
static void hogs_body(struct nbd_run *r)
{
	static struct pipe_client hog[HOGS];
	struct nbd_script s = {0};
	struct pipe_client good;
	unsigned i;

	for (i = 0; i < HOGS; i++) {
		pipe_client_co_connect(&hog[i], r, "delay", NULL);
		if (i % 2)
			script_request(&s, NBD_CMD_READ, 0, i, 0, 4 << 20);
		else
			script_request(&s, NBD_CMD_WRITE, 0, i, 0, 4 << 20);
		CU_ASSERT_EQUAL(pipe_client_co_send(&hog[i], &s, UINT64_MAX), 0);
	}
	pipe_client_co_connect(&good, r, "delay", NULL);
	for (i = 0; i < 20; i++)
		CU_ASSERT_EQUAL(pipe_client_co_read(&good, 4096, 100 * NS_PER_MS), 0);
	CU_ASSERT_EQUAL(pipe_client_co_read(&good, 2 << 20, 80 * NS_PER_SEC), 0);
	for (i = 0; i < HOGS; i++)
		stream_close(hog[i].mine);
	pipe_client_co_end(&good);
	co_sleep_ns(NS_PER_SEC);
	for (i = 0; i < HOGS; i++)
		CU_ASSERT_TRUE(hog[i].served);
}

static void linger_body(struct nbd_run *r)
{
	struct nbd_script s = {0};
	struct pipe_client c;

	pipe_client_co_connect(&c, r, "mem", NULL);
	script_request(&s, NBD_CMD_READ, 0, 1, 0, 1 << 20);
	script_request(&s, NBD_CMD_DISC, 0, 1, 0, 0);
	CU_ASSERT_EQUAL(pipe_client_co_send(&c, &s, UINT64_MAX), 0);
	co_sleep_ns(NS_PER_SEC);
	CU_ASSERT_FALSE(c.served); /* the reply is still on its way */
	co_sleep_ns(30 * NS_PER_SEC);
	CU_ASSERT_TRUE(c.served);
	stream_close(c.mine);
}

static void gone_body(struct nbd_run *r)
{
	struct nbd_script s = {0};
	struct pipe_client c;

	pipe_client_co_connect(&c, r, "delay", NULL);
	script_request(&s, NBD_CMD_READ, 0, 1, 0, 4096);
	CU_ASSERT_EQUAL(pipe_client_co_send(&c, &s, UINT64_MAX), 0);
	co_sleep_ns(NS_PER_MS / 2);
	CU_ASSERT_EQUAL(mem_bdev_in_flight(nbd_mem_export(r->exports, RUN_DELAY)), 1);
	nbd_mem_export_gone(r->exports, RUN_DELAY);
	CU_ASSERT_EQUAL(pipe_client_co_recv(&c, 16 + 4096, UINT64_MAX), 0);
	CU_ASSERT_EQUAL(pipe_client_co_recv(&c, 1, UINT64_MAX), -ECONNRESET);
	co_sleep_ns(NS_PER_MS);
	CU_ASSERT_TRUE(c.served);
	CU_ASSERT_EQUAL(nbd_mem_export_attached(r->exports, RUN_DELAY), 0);
	stream_close(c.mine);
}

static void stop_body(struct nbd_run *r)
{
	static struct pipe_client c[20];
	struct nbd_script s = {0};
	unsigned i;

	for (i = 0; i < ARRAY_LEN(c); i++) {
		pipe_client_co_connect(&c[i], r, i % 2 ? "mem" : "delay", NULL);
		script_request(&s, NBD_CMD_READ, 0, 1, 0, 4096);
		CU_ASSERT_EQUAL(pipe_client_co_send(&c[i], &s, UINT64_MAX), 0);
	}
	co_sleep_ns(NS_PER_MS / 2);
	nbd_server_co_destroy(r->server);
	r->server = NULL;
	for (i = 0; i < ARRAY_LEN(c); i++) {
		CU_ASSERT_EQUAL(pipe_client_co_recv(&c[i], 16 + 4096, UINT64_MAX), 0);
		CU_ASSERT_TRUE(c[i].served);
		stream_close(c[i].mine);
	}
}

/* Half a megabyte of writes cut in the middle, over and over: nothing may be left. */
static void vanish_body(struct nbd_run *r)
{
	struct nbd_script s = {0};
	struct pipe_client c;
	unsigned i;

	for (i = 0; i < 50; i++) {
		pipe_client_co_connect(&c, r, i % 2 ? "mem" : "delay", NULL);
		script_write(&s, 0, 1, 0, 20 << 10, 1);
		script_request(&s, NBD_CMD_READ, 0, 2, 0, 1 << 20);
		script_request(&s, NBD_CMD_WRITE, 0, 3, 0, 1 << 20);
		script_add(&s, "x", i % 3);
		CU_ASSERT_EQUAL(pipe_client_co_send(&c, &s, UINT64_MAX), 0);
		if (i % 5)
			co_sleep_ns(i * 100 * NS_PER_US);
		pipe_client_co_end(&c);
	}
}

static void client_that_does_not_read_is_bounded(void) { in_time(unread_body); }
static void hogs_do_not_starve_others(void) { in_time(hogs_body); }
static void closing_does_not_wait_for_ever(void) { in_time(linger_body); }
static void volume_gone_answers_and_closes(void) { in_time(gone_body); }
static void server_stop_answers_and_closes(void) { in_time(stop_body); }
static void clients_vanish_anywhere(void) { in_time(vanish_body); }

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(writes_arrive_in_any_pieces),
		TEST(reads_simple),
		TEST(reads_structured),
		TEST(read_that_the_device_gives_up_is_done_again_in_other_memory),
		TEST(read_that_never_comes_ends_in_an_error),
		TEST(reserved_volume_refuses_what_the_reservation_says),
		TEST(thousands_of_requests_in_one_receive),
		TEST(trim_zero_and_cache),
		TEST(fast_zero_fails_fast),
		TEST(block_status_tells_holes),
		TEST(block_status_answers_a_chunk_for_each_context),
		TEST(block_status_needs_its_context),
		TEST(wrong_requests_get_their_error),
		TEST(read_only_refuses_every_change),
		TEST(too_long_writes_are_drained_or_close),
		TEST(bad_magic_closes_after_the_rest),
		TEST(end_in_the_middle_of_a_payload),
		TEST(device_errors_reach_the_client),
		TEST(errors_have_one_mapping),
		TEST(client_that_does_not_read_is_bounded),
		TEST(hogs_do_not_starve_others),
		TEST(closing_does_not_wait_for_ever),
		TEST(volume_gone_answers_and_closes),
		TEST(server_stop_answers_and_closes),
		TEST(clients_vanish_anywhere),
		CU_TEST_INFO_NULL,
	};
	int r = tests_run("nbd transmission", tests);

	nbd_run_free(&run);
	return r;
}
