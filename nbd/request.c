/*
 * What a request does. Ordinary ones are one `struct io` submitted from the parser; those larger than the device takes are
 * split into pieces, a window of them in flight; BLOCK_STATUS is a coroutine.
 */
#include "nbd/session.h"

/* ---- what is refused ---- */

enum { CMD_RANGE = 1 << 0, CMD_WRITES = 1 << 1, CMD_PAYLOAD = 1 << 2 };

static const struct {
	uint8_t traits;
	uint16_t flags;
} cmds[] = {
	[NBD_CMD_READ] = {CMD_RANGE | CMD_PAYLOAD, NBD_CMD_FLAG_DF},
	[NBD_CMD_WRITE] = {CMD_RANGE | CMD_WRITES | CMD_PAYLOAD, NBD_CMD_FLAG_PAYLOAD_LEN},
	[NBD_CMD_FLUSH] = {0, 0},
	[NBD_CMD_TRIM] = {CMD_RANGE | CMD_WRITES, 0},
	[NBD_CMD_CACHE] = {CMD_RANGE, 0},
	[NBD_CMD_WRITE_ZEROES] = {CMD_RANGE | CMD_WRITES, NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO},
	[NBD_CMD_BLOCK_STATUS] = {CMD_RANGE, NBD_CMD_FLAG_REQ_ONE | NBD_CMD_FLAG_PAYLOAD_LEN},
};

static int check_range(const struct bdev *b, uint16_t cmd, uint64_t off, uint64_t len)
{
	if (!len || !IS_ALIGNED(off | len, (uint64_t)b->block_bytes))
		return -EINVAL;
	if (off > b->size_bytes || len > b->size_bytes - off)
		return cmd == NBD_CMD_WRITE || cmd == NBD_CMD_WRITE_ZEROES ? -ENOSPC : -EINVAL;
	return 0;
}

/* The payload of a block status: the range's length, and ids of one to all contexts. */
static int check_filter_bytes(const struct nbd_session *s, uint64_t len)
{
	uint64_t ids = len < sizeof(struct nbd_status_filter) ? 0 : len - sizeof(struct nbd_status_filter);

	return !ids || ids % sizeof(be32) || ids / sizeof(be32) > s->n_contexts ? -EINVAL : 0;
}

static int check_more(const struct nbd_session *s, uint16_t cmd, uint16_t flags, uint64_t off, uint64_t len)
{
	const struct bdev *b = s->at.bdev;

	switch (cmd) {
	case NBD_CMD_READ:
		return (flags & NBD_CMD_FLAG_DF) && !s->structured ? -EINVAL : 0;
	case NBD_CMD_FLUSH:
		return off || len ? -EINVAL : 0;
	case NBD_CMD_TRIM:
		return b->can_discard ? 0 : -EINVAL;
	case NBD_CMD_BLOCK_STATUS:
		return !s->n_contexts ? -EINVAL : flags & NBD_CMD_FLAG_PAYLOAD_LEN ? check_filter_bytes(s, len) : 0;
	default:
		return 0;
	}
}

static uint32_t status_chunk_bytes(const struct nbd_session *s)
{
	return s->extended ? sizeof(struct nbd_chunk_status_ext) : sizeof(struct nbd_chunk_status);
}

static uint32_t status_extent_bytes(const struct nbd_session *s)
{
	return s->extended ? sizeof(struct nbd_extent_ext) : sizeof(struct nbd_extent);
}

static uint32_t need_of(const struct nbd_session *s, uint16_t cmd, uint64_t len)
{
	switch (cmd) {
	case NBD_CMD_READ:
		return (uint32_t)len;
	case NBD_CMD_WRITE:
		return (uint32_t)(len > NBD_WHOLE_BYTES ? NBD_PART_BYTES : len);
	case NBD_CMD_CACHE:
		return len > NBD_CACHE_MAX ? 0 : (uint32_t)MIN(len, (uint64_t)NBD_CACHE_PIECE);
	case NBD_CMD_BLOCK_STATUS:
		return NBD_STATUS_EXTENTS * status_extent_bytes(s) + s->n_contexts * status_chunk_bytes(s);
	default:
		return 0;
	}
}

int nbd_request_check(const struct nbd_session *s, const struct nbd_header *h, uint32_t *need_bytes)
{
	uint16_t cmd = h->cmd, flags = h->flags;
	uint64_t len = h->len_bytes, off = h->off_bytes;
	unsigned traits;
	int r;

	*need_bytes = 0;
	if (cmd >= ARRAY_LEN(cmds) || (flags & ~(cmds[cmd].flags | NBD_CMD_FLAG_FUA)))
		return -EINVAL;
	if ((flags & NBD_CMD_FLAG_PAYLOAD_LEN) && !s->extended)
		return -EINVAL;
	traits = cmds[cmd].traits;
	if ((traits & CMD_WRITES) && (s->at.read_only || s->at.bdev->read_only))
		return -EPERM;
	if (unlikely(s->at.bdev->fence) && (traits & CMD_WRITES || (traits & CMD_RANGE && s->at.bdev->fence == BDEV_FENCE_ALL)))
		return -EPERM; /* somebody else has reserved it */
	if ((traits & CMD_PAYLOAD) && len > NBD_PAYLOAD_MAX)
		return cmd == NBD_CMD_READ && s->structured ? -EOVERFLOW : -EINVAL;
	r = check_more(s, cmd, flags, off, len);
	if (!r && (traits & CMD_RANGE) && !(cmd == NBD_CMD_BLOCK_STATUS && h->payload_bytes)) /* else it is in the payload */
		r = check_range(s->at.bdev, cmd, off, len);
	if (!r)
		*need_bytes = need_of(s, cmd, len);
	return r;
}

/* ---- one piece ---- */

static void request_submit(struct nbd_req *r);

/* A disk that did not answer in time may still write to the buffer (IO_MAY_GIVE_UP): the same again, with another. */
static bool read_again(struct nbd_req *r, int result)
{
	if (likely(result != -ETIMEDOUT) || r->cmd != NBD_CMD_READ || r->again)
		return false;
	r->again = true;
	r->result = 0;
	buf_free(r->buf, r->buf_bytes);
	r->buf = buf_alloc(r->buf_bytes);
	request_submit(r);
	return true;
}

static void single_done(struct io *io)
{
	if (!read_again(io->owner, io->result))
		nbd_req_finish(io->owner, io->result);
}

static unsigned io_flags(const struct nbd_req *r)
{
	unsigned f = 0;

	if ((r->flags & NBD_CMD_FLAG_FUA) && (cmds[r->cmd].traits & CMD_WRITES))
		f |= IO_FUA;
	if (r->flags & NBD_CMD_FLAG_NO_HOLE)
		f |= IO_NO_HOLE;
	if (r->flags & NBD_CMD_FLAG_FAST_ZERO)
		f |= IO_FAST_ZERO;
	if (r->cmd == NBD_CMD_READ && !r->again)
		f |= IO_MAY_GIVE_UP;
	return f;
}

static const uint8_t io_ops[] = {
	[NBD_CMD_READ] = IO_READ,
	[NBD_CMD_WRITE] = IO_WRITE,
	[NBD_CMD_FLUSH] = IO_FLUSH,
	[NBD_CMD_TRIM] = IO_DISCARD,
	[NBD_CMD_CACHE] = IO_READ,
	[NBD_CMD_WRITE_ZEROES] = IO_ZERO,
};

static void submit_single(struct nbd_req *r)
{
	io_prep(&r->io, io_ops[r->cmd], r->off_bytes, r->len_bytes, r->buf, io_flags(r));
	r->io.done = single_done;
	r->io.owner = r;
	bdev_submit(r->s->at.bdev, &r->io);
}

/* ---- many pieces ---- */

static uint64_t piece_bytes(const struct nbd_req *r)
{
	const struct bdev *b = r->s->at.bdev;
	uint64_t max = ALIGN_DOWN((uint64_t)b->max_bytes, (uint64_t)b->block_bytes);

	return r->cmd == NBD_CMD_CACHE ? MIN(max, NBD_CACHE_PIECE) : max;
}

static void split_pump(struct nbd_req *r)
{
	struct nbd_split *sp = r->split;
	uint64_t len, piece = piece_bytes(r);
	struct io *io;

	if (sp->pumping) /* a piece completed inside its own submission */
		return;
	sp->pumping = true;
	if (r->s->dead && !r->result) /* nobody waits for the rest of what may be terabytes */
		r->result = -ESHUTDOWN;
	while (!r->result && sp->next_bytes < r->len_bytes && !list_is_empty(&sp->idle)) {
		io = list_entry(list_pop_front(&sp->idle), struct io, link);
		len = MIN(piece, r->len_bytes - sp->next_bytes);
		io_prep(io, io_ops[r->cmd], r->off_bytes + sp->next_bytes, len,
			!r->buf ? NULL : r->cmd == NBD_CMD_CACHE ? r->buf : r->buf + sp->next_bytes, io_flags(r));
		sp->next_bytes += len;
		sp->pending++;
		bdev_submit(r->s->at.bdev, io);
	}
	sp->pumping = false;
	if (sp->pending)
		return;
	xfree(sp);
	r->split = NULL;
	if (!read_again(r, r->result))
		nbd_req_finish(r, r->result);
}

static void piece_done(struct io *io)
{
	struct nbd_req *r = io->owner;
	struct nbd_split *sp = r->split;

	if (io->result < 0 && !r->result)
		r->result = io->result;
	list_push_back(&sp->idle, &io->link);
	sp->pending--;
	split_pump(r);
}

static bool is_of_session(const struct io *io, void *session)
{
	return (io->done == single_done || io->done == piece_done) && ((const struct nbd_req *)io->owner)->s == session;
}

void nbd_requests_cancel(struct nbd_session *s)
{
	bdev_cancel(s->at.bdev, is_of_session, s);
}

/* All pieces of a CACHE share one buffer, so they go one by one: redundancy may be computed in it. */
static void submit_split(struct nbd_req *r)
{
	struct nbd_split *sp = xcalloc(1, sizeof(*sp));
	unsigned i, n = r->cmd == NBD_CMD_CACHE ? 1 : NBD_SPLIT_WINDOW;

	list_init(&sp->idle);
	for (i = 0; i < n; i++) {
		sp->io[i].done = piece_done;
		sp->io[i].owner = r;
		list_push_back(&sp->idle, &sp->io[i].link);
	}
	r->split = sp;
	split_pump(r);
}

/* ---- block status ---- */

struct status_out {
	uint8_t *v;	    /* nbd_extent, or nbd_extent_ext */
	bool extended;
	unsigned n, cap;
	uint32_t flags;	    /* of the last one, v[n - 1] */
	uint64_t len_bytes; /* of the last one */
};

static void status_put(const struct status_out *o, unsigned i)
{
	if (o->extended)
		((struct nbd_extent_ext *)o->v)[i] = (struct nbd_extent_ext){be64_make(o->len_bytes), be64_make(o->flags)};
	else /* at most the request's 32 bits in all */
		((struct nbd_extent *)o->v)[i] = (struct nbd_extent){be32_make((uint32_t)o->len_bytes), be32_make(o->flags)};
}

/* False: the list is full. */
static bool status_add(struct status_out *o, const struct bdev_extent *e, uint64_t len)
{
	if (o->n && o->flags == e->flags) {
		o->len_bytes += len;
	} else {
		if (o->n == o->cap)
			return false;
		o->n++;
		o->flags = e->flags;
		o->len_bytes = len;
	}
	status_put(o, o->n - 1);
	return true;
}

static int status_co_get(struct nbd_session *s, const struct nbd_context *c, uint64_t off, uint64_t len, struct bdev_extent *ext,
			 size_t *n)
{
	size_t i;
	int r;

	if (!c->is_allocation)
		return s->srv->p.co_status(s->srv->p.arg, &s->at, c->key, off, len, ext, n);
	r = bdev_co_status(s->at.bdev, off, len, ext, n);
	for (i = 0; r == 0 && i < *n; i++)
		ext[i].flags &= BDEV_HOLE | BDEV_ZERO;
	return r;
}

/* Coroutine. Looks until the range is covered, the list is full, or it has taken long; one extent at least. */
static int status_co_collect(struct nbd_req *r, const struct nbd_context *c, struct status_out *o)
{
	struct bdev_extent ext[128];
	uint64_t off = 0, len;
	unsigned round;
	size_t n, i;
	int err;

	for (round = 0; round < 64 && off < r->len_bytes; round++) {
		n = ARRAY_LEN(ext);
		err = status_co_get(r->s, c, r->off_bytes + off, r->len_bytes - off, ext, &n);
		if (err < 0)
			return o->n ? 0 : err;
		for (i = 0; i < n && off < r->len_bytes; i++) {
			len = MIN(ext[i].len_bytes, r->len_bytes - off);
			if (!len)
				continue;
			if (!status_add(o, &ext[i], len))
				return 0;
			off += len;
		}
		if (!n || r->s->closing)
			break;
	}
	return o->n ? 0 : -EIO;
}

/* One chunk for each context that is asked for. */
static void status_co(void *arg)
{
	struct nbd_req *r = arg;
	struct nbd_session *s = r->s;
	unsigned i, left = r->contexts & ((1u << s->n_contexts) - 1), n = (unsigned)__builtin_popcount(left);
	unsigned cap = r->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : NBD_STATUS_EXTENTS / n;
	uint32_t at = 0;
	int err = 0;

	for (i = 0; left && !err; i++, left >>= 1) {
		struct status_out o = {.v = r->buf + at + status_chunk_bytes(s), .extended = s->extended, .cap = cap};

		if (!(left & 1))
			continue;
		err = status_co_collect(r, &s->contexts[i], &o);
		at += nbd_reply_status_chunk(r, r->buf + at, i + 1, o.n, left == 1);
	}
	r->payload_bytes = at;
	nbd_req_finish(r, err);
}

/* What the payload asks for: the contexts by their ids, each once, and the range's length. 0 or -EINVAL. */
static int filter_parse(struct nbd_req *r)
{
	const struct nbd_status_filter *f = (const void *)r->buf;
	const be32 *ids = (const void *)(f + 1);
	unsigned i, n = (unsigned)((r->rx_bytes - sizeof(*f)) / sizeof(*ids));
	uint32_t id, seen = 0;

	for (i = 0; i < n; i++) {
		id = be32_get(ids[i]);
		if (!id || id > r->s->n_contexts || seen & 1u << (id - 1))
			return -EINVAL;
		seen |= 1u << (id - 1);
	}
	r->contexts = (uint16_t)seen;
	r->len_bytes = be64_get(f->len_bytes);
	return check_range(r->s->at.bdev, r->cmd, r->off_bytes, r->len_bytes);
}

static void status_start(struct nbd_req *r)
{
	int err = 0;

	if (r->rx_bytes) /* its buffer is there */
		err = filter_parse(r);
	else
		nbd_req_buf_get(r, need_of(r->s, r->cmd, 0));
	if (err)
		nbd_req_finish(r, err);
	else
		co_start(CO_REQUEST, status_co, r, "nbd block status");
}

/* ---- start ---- */

/* The device reads while the socket sends; and a part's memory is free again as soon as it is sent. */
static bool is_read_in_parts(const struct nbd_req *r)
{
	return unlikely(r->len_bytes > NBD_WHOLE_BYTES) && r->s->structured && !(r->flags & NBD_CMD_FLAG_DF);
}

static struct nbd_req *part_get(struct nbd_req *whole, uint64_t at, uint64_t len)
{
	struct nbd_req *r = nbd_req_get(whole->s);

	r->whole = whole;
	r->cmd = whole->cmd;
	r->flags = whole->flags;
	r->cookie = whole->cookie;
	r->request_off_bytes = whole->off_bytes;
	r->off_bytes = whole->off_bytes + at;
	r->len_bytes = len;
	r->rx_bytes = 0;
	r->again = false;
	return r;
}

/* All at once: admission has counted their memory. */
static void read_parts(struct nbd_req *whole)
{
	uint64_t at, len = whole->len_bytes;
	struct nbd_req *r;

	whole->payload_bytes = 0;
	whole->n_parts = (unsigned)DIV_UP(len, (uint64_t)NBD_PART_BYTES);
	for (at = 0; at < len; at += NBD_PART_BYTES) { /* the last to end takes the whole with it */
		r = part_get(whole, at, MIN(len - at, (uint64_t)NBD_PART_BYTES));
		r->payload_bytes = (uint32_t)r->len_bytes;
		nbd_req_buf_get(r, r->payload_bytes);
		request_submit(r);
	}
}

static void count(_Atomic uint64_t *c, uint64_t n)
{
	atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
}

static void count_write(const struct nbd_req *r)
{
	count(&r->s->writes, 1);
	count(&r->s->bytes_written, r->len_bytes);
}

void nbd_write_begin(struct nbd_req *whole)
{
	count_write(whole);
	whole->n_parts = 1;
}

/* Parts end where the device's space is round: whole stripes stay whole. */
struct nbd_req *nbd_write_part(struct nbd_req *whole, uint64_t at, uint32_t most_bytes)
{
	uint64_t off = whole->off_bytes + at, end = ALIGN_DOWN(off + most_bytes, (uint64_t)most_bytes);
	struct nbd_req *r = part_get(whole, at, MIN(whole->len_bytes - at, end - off));

	r->rx_bytes = (uint32_t)r->len_bytes;
	whole->n_parts++;
	return r;
}

void nbd_write_received(struct nbd_req *whole)
{
	if (!--whole->n_parts)
		nbd_req_finish(whole, whole->result);
}

static void request_submit(struct nbd_req *r)
{
	if (r->cmd == NBD_CMD_FLUSH || r->len_bytes <= piece_bytes(r))
		submit_single(r);
	else
		submit_split(r);
}

void nbd_request_start(struct nbd_req *r)
{
	struct nbd_session *s = r->s;
	uint32_t need;

	switch (r->cmd) {
	case NBD_CMD_READ:
		count(&s->reads, 1);
		count(&s->bytes_read, r->len_bytes);
		if (is_read_in_parts(r)) {
			read_parts(r);
			return;
		}
		nbd_req_buf_get(r, (uint32_t)r->len_bytes);
		r->again = false;
		r->payload_bytes = (uint32_t)r->len_bytes;
		break;
	case NBD_CMD_WRITE:
		if (!r->whole)
			count_write(r);
		break;
	case NBD_CMD_CACHE:
		need = need_of(s, r->cmd, r->len_bytes);
		if (!need) {
			nbd_req_finish(r, 0);
			return;
		}
		nbd_req_buf_get(r, need);
		break;
	case NBD_CMD_BLOCK_STATUS:
		status_start(r);
		return;
	}
	request_submit(r);
}
