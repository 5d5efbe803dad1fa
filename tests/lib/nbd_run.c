#include "tests/lib/nbd_run.h"

#include <stdlib.h>

#include "engine/base/units.h"
#include "engine/io/sim.h"

/* ---- what the client sends ---- */

void script_add(struct nbd_script *s, const void *p, size_t len)
{
	if (s->len + len > s->cap) {
		s->cap = s->len + len + s->cap + 256;
		s->p = realloc(s->p, s->cap);
		CHECK(s->p);
	}
	if (len)
		memcpy(s->p + s->len, p, len);
	s->len += len;
}

static void add_u32(struct nbd_script *s, uint32_t v)
{
	be32 x = be32_make(v);

	script_add(s, &x, sizeof(x));
}

static void add_u16(struct nbd_script *s, uint16_t v)
{
	be16 x = be16_make(v);

	script_add(s, &x, sizeof(x));
}

static void add_string(struct nbd_script *s, const char *text)
{
	add_u32(s, (uint32_t)strlen(text));
	script_add(s, text, strlen(text));
}

void script_flags(struct nbd_script *s, uint32_t flags)
{
	add_u32(s, flags);
}

void script_option(struct nbd_script *s, uint32_t opt, const void *data, size_t len)
{
	be64 magic = be64_make(NBD_OPT_MAGIC);

	script_add(s, &magic, sizeof(magic));
	add_u32(s, opt);
	add_u32(s, (uint32_t)len);
	script_add(s, data, len);
}

static void add_option(struct nbd_script *s, uint32_t opt, struct nbd_script *data)
{
	script_option(s, opt, data->p, data->len);
	script_free(data);
}

void script_go(struct nbd_script *s, uint32_t opt, const char *name)
{
	struct nbd_script d = {0};

	add_string(&d, name);
	add_u16(&d, 3);
	add_u16(&d, NBD_INFO_BLOCK_SIZE);
	add_u16(&d, NBD_INFO_NAME);
	add_u16(&d, NBD_INFO_DESCRIPTION);
	add_option(s, opt, &d);
}

void script_context(struct nbd_script *s, uint32_t opt, const char *name, const char *query)
{
	script_contexts(s, opt, name, &query, query ? 1 : 0);
}

void script_contexts(struct nbd_script *s, uint32_t opt, const char *name, const char *const *queries, unsigned n)
{
	struct nbd_script d = {0};
	unsigned i;

	add_string(&d, name);
	add_u32(&d, n);
	for (i = 0; i < n; i++)
		add_string(&d, queries[i]);
	add_option(s, opt, &d);
}

void script_handshake(struct nbd_script *s, const char *name, bool structured)
{
	script_flags(s, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	if (structured) {
		script_option(s, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
		script_context(s, NBD_OPT_SET_META_CONTEXT, name, "base:allocation");
	}
	script_go(s, NBD_OPT_GO, name);
}

void script_handshake_extended(struct nbd_script *s, const char *name, const char *const *contexts, unsigned n)
{
	s->extended = true;
	script_flags(s, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	script_option(s, NBD_OPT_EXTENDED_HEADERS, NULL, 0);
	if (n)
		script_contexts(s, NBD_OPT_SET_META_CONTEXT, name, contexts, n);
	script_go(s, NBD_OPT_GO, name);
}

static void request_extended(struct nbd_script *s, uint16_t cmd, uint16_t flags, uint64_t cookie, uint64_t off, uint64_t len)
{
	struct nbd_request_ext r = {
		.magic = be32_make(NBD_EXTENDED_REQUEST_MAGIC),
		.flags = be16_make(flags),
		.cmd = be16_make(cmd),
		.cookie = be64_make(cookie),
		.off_bytes = be64_make(off),
		.len_bytes = be64_make(len),
	};

	script_add(s, &r, sizeof(r));
}

void script_request(struct nbd_script *s, uint16_t cmd, uint16_t flags, uint64_t cookie, uint64_t off, uint64_t len)
{
	struct nbd_request r = {
		.magic = be32_make(NBD_REQUEST_MAGIC),
		.flags = be16_make(flags),
		.cmd = be16_make(cmd),
		.cookie = be64_make(cookie),
		.off_bytes = be64_make(off),
		.len_bytes = be32_make((uint32_t)len),
	};

	if (s->extended)
		request_extended(s, cmd, flags, cookie, off, len);
	else
		script_add(s, &r, sizeof(r));
}

void script_write(struct nbd_script *s, uint16_t flags, uint64_t cookie, uint64_t off, uint32_t len, uint8_t fill)
{
	uint8_t *p = malloc(len ? len : 1);

	CHECK(p);
	memset(p, fill, len);
	script_request(s, NBD_CMD_WRITE, (uint16_t)(flags | (s->extended ? NBD_CMD_FLAG_PAYLOAD_LEN : 0)), cookie, off, len);
	script_add(s, p, len);
	free(p);
}

void script_free(struct nbd_script *s)
{
	free(s->p);
	*s = (struct nbd_script){0};
}

/* ---- running it ---- */

static int fault(void *arg, struct io *io)
{
	return io->op != IO_FLUSH && io->off_bytes + io->len_bytes > MIB && io->off_bytes < 2 * MIB ? -EIO : 0;
}

static int run_co(void *arg)
{
	const struct nbd_mem_export_spec specs[RUN_EXPORTS] = {
		[RUN_MEM] = {.name = "mem", .description = "plain memory", .home = 1, .o = {.size_bytes = RUN_SIZE, .max_bytes = 256 * KIB}},
		[RUN_RO] = {.name = "ro", .read_only = true, .o = {.size_bytes = RUN_SIZE}},
		[RUN_BLOCK4K] = {.name = "block4k", .o = {.size_bytes = RUN_SIZE, .block_bytes = 4096, .opt_bytes = 65536}},
		[RUN_DELAY] = {.name = "delay", .home = 1, .o = {.size_bytes = 64 * MIB, .delay_ns = NS_PER_MS}},
		[RUN_FAULTY] = {.name = "faulty", .o = {.size_bytes = RUN_SIZE, .max_bytes = 64 * KIB, .fault = fault}},
		[RUN_NOFAST] = {.name = "nofast", .home = 1, .o = {.size_bytes = RUN_SIZE, .no_fast_zero = true, .no_discard = true}},
		[RUN_HUGE] = {.name = "huge", .home = 1, .o = {.size_bytes = RUN_HUGE_SIZE, .max_bytes = 32 * MIB}},
		[RUN_MARKED] = {.name = "marked", .home = 1, .n_contexts = 20, .o = {.size_bytes = RUN_SIZE}},
	};
	struct nbd_run *run = arg;
	struct nbd_provider p;

	run->exports = nbd_mem_exports_co_create(run->w, specs, RUN_EXPORTS);
	nbd_mem_exports_provider(run->exports, &p);
	run->server = nbd_server_create(run->w, &p, &run->o);
	if (run->co_before)
		run->co_before(run);
	if (run->co_body)
		run->co_body(run);
	else
		nbd_server_co_serve(run->server, stream_from_memory(run->in, run->in_len, run->chunk, &run->out, &run->out_len));
	if (run->co_after)
		run->co_after(run);
	if (run->server)
		nbd_server_co_destroy(run->server);
	nbd_mem_exports_co_destroy(run->exports);
	return 0;
}

/* What the server sent outlives the tracked heap. */
static void out_keep(struct nbd_run *run)
{
	uint8_t *copy;

	if (!run->out)
		return;
	copy = malloc(run->out_len + 1);
	CHECK(copy);
	memcpy(copy, run->out, run->out_len);
	xfree(run->out);
	run->out = copy;
}

void nbd_run(struct nbd_run *run)
{
	struct sim_options o = {.seed = run->seed, .n_reactors = run->n_reactors ? run->n_reactors : 1};
	struct sim_disks *disks = sim_disks_create(run->seed);
	int result = 0;

	run->w = sim_world_create(&o, disks);
	alloc_track_begin();
	run->result = sim_run(run->w, run_co, run, &result, 0);
	out_keep(run);
	if (run->result == 0)
		sim_run_for(run->w, NS_PER_SEC);
	run->leaked = alloc_track_drop();
	sim_world_destroy(run->w);
	sim_disks_destroy(disks);
}

void nbd_run_free(struct nbd_run *run)
{
	free(run->out);
	run->out = NULL;
}

/* ---- reading what came back ---- */

const void *run_take(struct nbd_run *run, size_t len)
{
	const uint8_t *p = run->out + run->at;

	if (len > run->out_len - run->at)
		return NULL;
	run->at += len;
	return p;
}

uint32_t run_option_reply(struct nbd_run *run, uint32_t opt, const uint8_t **data, uint32_t *len)
{
	const struct nbd_rep_hdr *h = run_take(run, sizeof(*h));

	if (!h || be64_get(h->magic) != NBD_REP_MAGIC || be32_get(h->option) != opt)
		return 0;
	*len = be32_get(h->len_bytes);
	*data = run_take(run, *len);
	return *data ? be32_get(h->type) : 0;
}

bool run_skip_handshake(struct nbd_run *run)
{
	const struct nbd_rep_hdr *h;

	run->at = sizeof(struct nbd_greeting);
	while ((h = run_take(run, sizeof(*h)))) {
		if (be64_get(h->magic) != NBD_REP_MAGIC || !run_take(run, be32_get(h->len_bytes)))
			return false;
		if (be32_get(h->option) == NBD_OPT_GO && be32_get(h->type) == NBD_REP_ACK)
			return true;
	}
	return false;
}

static uint32_t chunk_fixed(uint16_t type)
{
	switch (type) {
	case NBD_REPLY_TYPE_OFFSET_DATA:
		return sizeof(struct nbd_chunk_data);
	case NBD_REPLY_TYPE_ERROR:
		return sizeof(struct nbd_chunk_error);
	case NBD_REPLY_TYPE_BLOCK_STATUS:
		return sizeof(be32);
	case NBD_REPLY_TYPE_BLOCK_STATUS_EXT:
		return 2 * sizeof(be32);
	default:
		return 0;
	}
}

/* Header of a chunk, in either form; both begin alike. */
static bool chunk_header(struct nbd_run *run, struct run_reply *r)
{
	const struct nbd_chunk_hdr *h = (const void *)(run->out + run->at);
	const struct nbd_chunk_hdr_ext *x = (const void *)h;

	r->extended = be32_get(h->magic) == NBD_EXTENDED_REPLY_MAGIC;
	if (!run_take(run, r->extended ? sizeof(*x) : sizeof(*h)) || be16_get(h->flags) & ~NBD_REPLY_FLAG_DONE)
		return false;
	r->structured = true;
	r->done = be16_get(h->flags) & NBD_REPLY_FLAG_DONE;
	r->cookie = be64_get(h->cookie);
	r->type = be16_get(h->type);
	if (r->extended && be64_get(x->len_bytes) > UINT32_MAX)
		return false;
	r->len = r->extended ? (uint32_t)be64_get(x->len_bytes) : be32_get(h->len_bytes);
	if (r->extended)
		r->request_off = be64_get(x->off_bytes);
	return r->done || r->type == NBD_REPLY_TYPE_OFFSET_DATA ||
	       r->type == (r->extended ? NBD_REPLY_TYPE_BLOCK_STATUS_EXT : NBD_REPLY_TYPE_BLOCK_STATUS);
}

static bool chunk_reply(struct nbd_run *run, struct run_reply *r)
{
	uint32_t fixed;
	const uint8_t *p;

	if (!chunk_header(run, r))
		return false;
	p = run_take(run, r->len);
	fixed = chunk_fixed(r->type);
	if (!p || r->len < fixed)
		return false;
	if (r->type == NBD_REPLY_TYPE_BLOCK_STATUS_EXT) {
		r->context = be32_get(((const be32 *)p)[0]);
		if (be32_get(((const be32 *)p)[1]) != (r->len - fixed) / sizeof(struct nbd_extent_ext))
			return false;
	}
	if (r->type == NBD_REPLY_TYPE_OFFSET_DATA)
		r->off = be64_get(*(const be64 *)p);
	if (r->type == NBD_REPLY_TYPE_ERROR)
		r->error = be32_get(*(const be32 *)p);
	if (r->type == NBD_REPLY_TYPE_BLOCK_STATUS)
		r->context = be32_get(*(const be32 *)p);
	r->data = p + fixed;
	r->len -= fixed;
	return true;
}

bool run_reply(struct nbd_run *run, uint32_t read_len, struct run_reply *r)
{
	const struct nbd_simple_reply *h;

	*r = (struct run_reply){0};
	if (run->out_len - run->at < sizeof(*h))
		return false;
	h = (const void *)(run->out + run->at);
	if (be32_get(h->magic) == NBD_STRUCTURED_REPLY_MAGIC || be32_get(h->magic) == NBD_EXTENDED_REPLY_MAGIC)
		return chunk_reply(run, r);
	if (be32_get(h->magic) != NBD_SIMPLE_REPLY_MAGIC)
		return false;
	run->at += sizeof(*h);
	r->cookie = be64_get(h->cookie);
	r->error = be32_get(h->error);
	if (r->error || !read_len)
		return true;
	r->len = read_len;
	r->data = run_take(run, read_len);
	return r->data;
}
