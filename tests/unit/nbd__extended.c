/*
 * Extended headers: requests and replies of 32 bytes, lengths of 64 bits, block status of chosen contexts.
 */
#include <stdio.h>

#include "engine/base/units.h"
#include "nbd/session.h"
#include "tests/lib/nbd_run.h"
#include "tests/unit/unit.h"

static struct nbd_script in;
static struct nbd_run run;
static const char *const allocation[] = {"base:allocation"};
static const char *const three[] = {"test:2", "base:allocation", "test:5"}; /* their ids: 2, 1, 3 */

static void begin(const char *name, const char *const *contexts, unsigned n)
{
	nbd_run_free(&run);
	run = (struct nbd_run){0};
	script_handshake_extended(&in, name, contexts, n);
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

/* The first chunk of this request's reply. */
static struct run_reply reply_of(uint64_t cookie)
{
	size_t at = run.at;
	struct run_reply r;

	while (run_reply(&run, 0, &r)) {
		CU_ASSERT(r.extended);
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
	size_t at = run.at;
	struct run_reply r;
	unsigned n = 0;

	while (run_reply(&run, 0, &r))
		n += r.done;
	CU_ASSERT_EQUAL(run.at, run.out_len);
	run.at = at;
	return n;
}

static uint64_t ext_len(const struct run_reply *r, unsigned i)
{
	return be64_get(((const struct nbd_extent_ext *)r->data)[i].len_bytes);
}

static uint64_t ext_flags(const struct run_reply *r, unsigned i)
{
	return be64_get(((const struct nbd_extent_ext *)r->data)[i].flags);
}

/* ---- the handshake ---- */

static uint16_t info_flags(uint32_t opt)
{
	const uint8_t *data;
	uint32_t type, len;
	uint16_t flags = 0;

	while ((type = run_option_reply(&run, opt, &data, &len)) == NBD_REP_INFO)
		if (be16_get(*(const be16 *)data) == NBD_INFO_EXPORT)
			flags = be16_get(((const struct nbd_info_export *)data)->flags);
	CU_ASSERT_EQUAL(type, NBD_REP_ACK);
	return flags;
}

static void the_handshake_agrees_on_them(void)
{
	static const struct { uint32_t opt, len, type; } steps[] = {
		{NBD_OPT_EXTENDED_HEADERS, 4, NBD_REP_ERR_INVALID},
		{NBD_OPT_STRUCTURED_REPLY, 0, NBD_REP_ACK},
		{NBD_OPT_EXTENDED_HEADERS, 0, NBD_REP_ACK},
		{NBD_OPT_STRUCTURED_REPLY, 0, NBD_REP_ERR_EXT_HEADER_REQD},
	};
	const uint8_t *data;
	uint32_t len;
	size_t i;

	nbd_run_free(&run);
	run = (struct nbd_run){0};
	script_flags(&in, 3);
	for (i = 0; i < ARRAY_LEN(steps); i++)
		script_option(&in, steps[i].opt, "\0\0\0", steps[i].len);
	script_go(&in, NBD_OPT_INFO, "mem");
	script_context(&in, NBD_OPT_SET_META_CONTEXT, "mem", "base:allocation");
	script_go(&in, NBD_OPT_GO, "mem");
	go();
	run.at = sizeof(struct nbd_greeting);
	for (i = 0; i < ARRAY_LEN(steps); i++)
		CU_ASSERT_EQUAL(run_option_reply(&run, steps[i].opt, &data, &len), steps[i].type);
	CU_ASSERT(info_flags(NBD_OPT_INFO) & NBD_FLAG_BLOCK_STATUS_PAYLOAD);
	CU_ASSERT_EQUAL(run_option_reply(&run, NBD_OPT_SET_META_CONTEXT, &data, &len), NBD_REP_META_CONTEXT);
	CU_ASSERT_EQUAL(run_option_reply(&run, NBD_OPT_SET_META_CONTEXT, &data, &len), NBD_REP_ACK);
	CU_ASSERT(info_flags(NBD_OPT_GO) & NBD_FLAG_BLOCK_STATUS_PAYLOAD);
	CU_ASSERT_EQUAL(run.at, run.out_len);
}

/* Filters are for those who have contexts; the old way in is for nobody. */
static void without_contexts_there_are_no_filters(void)
{
	begin("mem", NULL, 0);
	script_request(&in, NBD_CMD_BLOCK_STATUS, 0, 1, 0, 4096);
	go();
	CU_ASSERT_EQUAL(reply_of(1).error, NBD_EINVAL);
	run.at = sizeof(struct nbd_greeting) + sizeof(struct nbd_rep_hdr);
	CU_ASSERT(!(info_flags(NBD_OPT_GO) & NBD_FLAG_BLOCK_STATUS_PAYLOAD));
	nbd_run_free(&run);
	run = (struct nbd_run){0};
	script_flags(&in, 3);
	script_option(&in, NBD_OPT_EXTENDED_HEADERS, NULL, 0);
	script_option(&in, NBD_OPT_EXPORT_NAME, "mem", 3);
	run.in = in.p;
	run.in_len = in.len;
	nbd_run(&run);
	CU_ASSERT_EQUAL(run.result, 0);
	CU_ASSERT_EQUAL(run.out_len, sizeof(struct nbd_greeting) + sizeof(struct nbd_rep_hdr));
	script_free(&in);
}

/* ---- requests ---- */

static void data_goes_there_and_back_in_any_pieces(void)
{
	static const size_t chunks[] = {0, 1, 31, 33, 4097, 300000};
	struct run_reply r;
	size_t i;

	for (i = 0; i < ARRAY_LEN(chunks); i++) {
		begin("mem", NULL, 0);
		run.chunk = chunks[i];
		run.n_reactors = 2;
		script_write(&in, NBD_CMD_FLAG_FUA, 1, 4096, 65536, 0x5a);
		script_request(&in, NBD_CMD_FLUSH, 0, 2, 0, 0);
		script_request(&in, NBD_CMD_READ, NBD_CMD_FLAG_DF, 3, RUN_SIZE - 1024, 1024);
		script_request(&in, NBD_CMD_READ, 0, 4, 0, 33 << 20);
		script_request(&in, NBD_CMD_READ, 0, 5, RUN_SIZE, 512);
		script_request(&in, NBD_CMD_DISC, 0, 6, 0, 0);
		go();
		CU_ASSERT_EQUAL(count_replies(), 5);
		r = reply_of(1);
		CU_ASSERT_EQUAL(r.type, NBD_REPLY_TYPE_NONE);
		CU_ASSERT_EQUAL(r.request_off, 4096);
		CU_ASSERT_EQUAL(reply_of(2).error, 0);
		r = reply_of(3);
		CU_ASSERT_EQUAL(r.len, 1024);
		CU_ASSERT_EQUAL(r.off, RUN_SIZE - 1024);
		CU_ASSERT_EQUAL(r.request_off, RUN_SIZE - 1024);
		CU_ASSERT_EQUAL(reply_of(4).error, NBD_EOVERFLOW);
		CU_ASSERT_EQUAL(reply_of(5).error, NBD_EINVAL);
	}
}

static void huge_before(struct nbd_run *r)
{
	uint8_t b = 1;

	mem_bdev_poke(nbd_mem_export(r->exports, RUN_HUGE), 5 * GIB, &b, 1);
}

static void huge_after(struct nbd_run *r)
{
	uint8_t b = 1;

	mem_bdev_peek(nbd_mem_export(r->exports, RUN_HUGE), 5 * GIB, &b, 1);
	CU_ASSERT_EQUAL(b, 0);
	CU_ASSERT(mem_bdev_count(nbd_mem_export(r->exports, RUN_HUGE), IO_DISCARD) >= 5 * GIB / (32 * MIB));
}

static void more_than_four_gibibytes_at_once(void)
{
	begin("huge", allocation, 1);
	run.co_before = huge_before;
	run.co_after = huge_after;
	script_request(&in, NBD_CMD_TRIM, 0, 1, GIB, 5 * GIB);
	script_request(&in, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FUA, 2, 0, RUN_HUGE_SIZE);
	script_request(&in, NBD_CMD_CACHE, 0, 3, 0, RUN_HUGE_SIZE);
	script_request(&in, NBD_CMD_TRIM, 0, 5, GIB, 5 * GIB + 512);
	script_request(&in, NBD_CMD_WRITE_ZEROES, 0, 6, 512, UINT64_MAX - 511);
	script_request(&in, NBD_CMD_BLOCK_STATUS, 0, 7, 0, UINT64_MAX - 511);
	script_request(&in, NBD_CMD_CACHE, 0, 8, UINT64_MAX - 511, 1024);
	go();
	CU_ASSERT_EQUAL(reply_of(1).error, 0);
	CU_ASSERT_EQUAL(reply_of(2).error, 0);
	CU_ASSERT_EQUAL(reply_of(3).error, 0);
	CU_ASSERT_EQUAL(reply_of(5).error, NBD_EINVAL);
	CU_ASSERT_EQUAL(reply_of(6).error, NBD_ENOSPC);
	CU_ASSERT_EQUAL(reply_of(7).error, NBD_EINVAL);
	CU_ASSERT_EQUAL(reply_of(8).error, NBD_EINVAL);
}

static void block_status_tells_more_than_four_gibibytes(void)
{
	struct run_reply r;

	begin("huge", allocation, 1);
	run.co_before = huge_before;
	script_request(&in, NBD_CMD_BLOCK_STATUS, 0, 1, 0, RUN_HUGE_SIZE);
	script_request(&in, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, 2, 512, RUN_HUGE_SIZE - 512);
	go();
	r = reply_of(1);
	CU_ASSERT_EQUAL(r.type, NBD_REPLY_TYPE_BLOCK_STATUS_EXT);
	CU_ASSERT_EQUAL(r.context, 1);
	CU_ASSERT_EQUAL_FATAL(r.len, 3 * 16);
	CU_ASSERT_EQUAL(ext_len(&r, 0), 5 * GIB);
	CU_ASSERT_EQUAL(ext_flags(&r, 0), 3);
	CU_ASSERT_EQUAL(ext_len(&r, 1), 4096);
	CU_ASSERT_EQUAL(ext_flags(&r, 1), 0);
	CU_ASSERT_EQUAL(ext_len(&r, 2), GIB - 4096);
	r = reply_of(2);
	CU_ASSERT_EQUAL(r.request_off, 512);
	CU_ASSERT_EQUAL_FATAL(r.len, 16);
	CU_ASSERT_EQUAL(ext_len(&r, 0), 5 * GIB - 512);
}

/* ---- filters ---- */

static void filter(uint64_t cookie, uint16_t flags, uint64_t off, uint64_t len, const uint32_t *ids, unsigned n)
{
	be64 l = be64_make(len);
	be32 id;
	unsigned i;

	script_request(&in, NBD_CMD_BLOCK_STATUS, flags | NBD_CMD_FLAG_PAYLOAD_LEN, cookie, off, 8 + 4 * n);
	script_add(&in, &l, 8);
	for (i = 0; i < n; i++) {
		id = be32_make(ids[i]);
		script_add(&in, &id, 4);
	}
}

/* Contexts of the reply, as bits. */
static unsigned contexts_of(uint64_t cookie)
{
	size_t at = run.at;
	unsigned seen = 0;
	struct run_reply r;
	bool done = false;

	while (run_reply(&run, 0, &r)) {
		if (r.cookie != cookie)
			continue;
		CU_ASSERT(!r.error && !done && r.type == NBD_REPLY_TYPE_BLOCK_STATUS_EXT && !(seen & 1u << r.context));
		seen |= 1u << r.context;
		done = r.done;
	}
	CU_ASSERT(done);
	run.at = at;
	return seen;
}

static void filters_choose_contexts(void)
{
	static const uint32_t ids[] = {3, 1, 2};
	static const size_t chunks[] = {0, 1, 33, 47};
	struct run_reply r;
	size_t i;

	for (i = 0; i < ARRAY_LEN(chunks); i++) {
		begin("marked", three, 3);
		run.chunk = chunks[i];
		run.n_reactors = 2;
		filter(1, 0, 0, RUN_SIZE, ids, 1);
		filter(2, NBD_CMD_FLAG_REQ_ONE, NBD_MEM_STRETCH, RUN_SIZE - NBD_MEM_STRETCH, ids, 2);
		filter(3, 0, 4096, 4096, ids, 3);
		script_request(&in, NBD_CMD_BLOCK_STATUS, 0, 4, 0, 4096);
		filter(5, 0, 0, 4096, ids + 2, 1);
		go();
		CU_ASSERT_EQUAL(count_replies(), 5);
		CU_ASSERT_EQUAL(contexts_of(1), 1 << 3);
		CU_ASSERT_EQUAL(contexts_of(2), 1 << 3 | 1 << 1);
		CU_ASSERT_EQUAL(contexts_of(3), 1 << 3 | 1 << 1 | 1 << 2);
		CU_ASSERT_EQUAL(contexts_of(4), 1 << 3 | 1 << 1 | 1 << 2);
		CU_ASSERT_EQUAL(contexts_of(5), 1 << 2);
		r = reply_of(1);
		CU_ASSERT_EQUAL(ext_len(&r, 0), 5 * NBD_MEM_STRETCH);
		CU_ASSERT_EQUAL(ext_len(&r, 1), 5 * NBD_MEM_STRETCH);
		CU_ASSERT_EQUAL(ext_flags(&r, 1), 5);
	}
}

static void wrong_filters_are_read_and_refused(void)
{
	static const uint32_t twice[] = {1, 1}, unknown[] = {4}, zero[] = {0}, many[] = {1, 2, 3, 3}, good[] = {1}, high[] = {33};
	uint8_t junk[100] = {0};
	struct run_reply r;
	unsigned i;

	begin("marked", three, 3);
	filter(1, 0, 0, 4096, twice, 2);
	filter(2, 0, 0, 4096, unknown, 1);
	filter(3, 0, 0, 4096, zero, 1);
	filter(4, 0, 0, 4096, many, 4);
	filter(5, 0, 0, RUN_SIZE + 4096, good, 1);
	filter(6, 0, 0, 0, good, 1);
	filter(7, 0, 0, 4096, NULL, 0);
	filter(8, 0, 0, 4096, high, 1);
	script_request(&in, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_PAYLOAD_LEN, 9, 0, 3);
	script_add(&in, junk, 3);
	script_request(&in, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_PAYLOAD_LEN, 10, 0, 13);
	script_add(&in, junk, 13);
	filter(11, NBD_CMD_FLAG_DF, 0, 4096, good, 1);
	filter(12, 0, 0, 4096, good, 1);
	go();
	for (i = 1; i < 12; i++) {
		r = reply_of(i);
		CU_ASSERT_EQUAL(r.error, NBD_EINVAL);
	}
	CU_ASSERT_EQUAL(contexts_of(12), 1 << 1);
	CU_ASSERT_EQUAL(count_replies(), 12);
}

/* ---- refusals ---- */

/* A payload that a command does not have is read to its end, and what follows is a request again. */
static void payloads_that_nobody_wants_are_drained(void)
{
	static const uint16_t cmds[] = {NBD_CMD_READ, NBD_CMD_FLUSH, NBD_CMD_TRIM, NBD_CMD_CACHE, NBD_CMD_WRITE_ZEROES, 99};
	uint8_t junk[5000];
	size_t i;

	memset(junk, 0xdd, sizeof(junk));
	begin("mem", NULL, 0);
	for (i = 0; i < ARRAY_LEN(cmds); i++) {
		script_request(&in, cmds[i], NBD_CMD_FLAG_PAYLOAD_LEN, i, 0, sizeof(junk));
		script_add(&in, junk, sizeof(junk));
	}
	script_request(&in, NBD_CMD_READ, 0, 100, 0, 512);
	go();
	for (i = 0; i < ARRAY_LEN(cmds); i++)
		CU_ASSERT_EQUAL(reply_of(i).error, NBD_EINVAL);
	CU_ASSERT_EQUAL(reply_of(100).len, 512);
}

static void ends_with(void (*last)(void))
{
	begin("mem", NULL, 0);
	script_request(&in, NBD_CMD_READ, 0, 1, 0, 512);
	last();
	script_request(&in, NBD_CMD_READ, 0, 3, 0, 512);
	go();
	CU_ASSERT_EQUAL(count_replies(), 1);
	CU_ASSERT_EQUAL(reply_of(1).len, 512);
}

static void compact_request(void)
{
	in.extended = false;
	script_request(&in, NBD_CMD_READ, 0, 2, 0, 512);
	in.extended = true;
}

static void write_without_payload_length(void) { script_request(&in, NBD_CMD_WRITE, 0, 2, 0, 512); }
static void endless_write(void) { script_request(&in, NBD_CMD_WRITE, NBD_CMD_FLAG_PAYLOAD_LEN, 2, 0, UINT64_MAX); }
static void endless_junk(void) { script_request(&in, NBD_CMD_TRIM, NBD_CMD_FLAG_PAYLOAD_LEN, 2, 0, 1ull << 32); }

/* Where the next request begins cannot be known, so that data could be taken for requests. */
static void what_cannot_be_told_apart_ends_the_connection(void)
{
	ends_with(compact_request);
	ends_with(write_without_payload_length);
	ends_with(endless_write);
	ends_with(endless_junk);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(the_handshake_agrees_on_them),
		TEST(without_contexts_there_are_no_filters),
		TEST(data_goes_there_and_back_in_any_pieces),
		TEST(more_than_four_gibibytes_at_once),
		TEST(block_status_tells_more_than_four_gibibytes),
		TEST(filters_choose_contexts),
		TEST(wrong_filters_are_read_and_refused),
		TEST(payloads_that_nobody_wants_are_drained),
		TEST(what_cannot_be_told_apart_ends_the_connection),
		CU_TEST_INFO_NULL,
	};
	int r = tests_run("nbd extended headers", tests);

	nbd_run_free(&run);
	return r;
}
