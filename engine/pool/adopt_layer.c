/*
 * adopt_layer.c: the data path of a volume that is being adopted.
 *
 * A subcluster that is valid in the map is the volume's; any other is the source's, and beyond the source's end zeros. That holds at
 * every moment and after every crash, because
 * - valid subclusters stay valid: what clients discard or zero is written as zeros. But where the source has zeros itself, or has
 *   ended, forgetting is as good, and costs nothing;
 * - a subcluster becomes valid by one write of all of it, and the thin layer makes it so when its data has been written: what a
 *   client's change leaves of it is read from the source first, and written with it;
 * - who makes a subcluster valid holds the range lock from looking until it is: two clients, or a client and the job that brings the
 *   rest over, never complete the same one differently.
 * Reads need no lock: a subcluster that was not valid when the read looked has the source's contents until a write that the read
 * overlaps with changes it, and one that was stays so.
 *
 * At the end, when all of the source is in the volume and no record names it, changes are the volume's own again: first those that
 * begin then, still under the range lock, since an older one may be completing the same subcluster; when the last of those has
 * ended, the layer goes. Nobody waits for that but the job.
 *
 * Requests are done by service coroutines with a limit of their own: the volume may need request coroutines to answer them.
 */
#include <string.h>

#include "engine/base/mutant.h"
#include "engine/io/buf.h"
#include "engine/io/range_lock.h"
#include "engine/pool/adopt.h"

#define LAYER_RUNNING_MAX 256
#define LAYER_EXTENTS 32
#define LAYER_MAX_BYTES (4 * MIB) /* of a request; completed ones are somewhat larger */
#define SOURCE_STEP_BYTES MIB
#define SOURCE_BLOCK_MAX 4096
#define SKIP_BYTES GIB /* of zeros, for one question */

struct adopt_layer {
	struct bdev bdev; /* clients' requests come here */
	struct adopt_layer_conf conf;
	struct bdev *inner, *source;
	unsigned n_reading; /* from the source */
	struct co_queue unread;
	struct range_lock busy;
	struct list waiting; /* ios */
	unsigned n_running, n_completing; /* coroutines; of those, changes that may complete subclusters from the source */
	bool is_complete;
	struct co_queue idle; /* one of them is 0 */
	_Atomic bool is_broken;
	bool has_told;
};

/* ---- the source ---- */

static int source_failed(struct adopt_layer *l, int r, uint64_t off)
{
	atomic_store(&l->is_broken, true);
	if (!l->has_told)
		pool_event(l->conf.p, ASHLAR_ERROR, "volume.source", -1, NULL, "%s: %s (at %llu): clients get errors for what is not here yet, "
			   "until the source is back", l->conf.what, l->source ? "its source cannot be read" : "its source is away",
			   (unsigned long long)off);
	l->has_told = true;
	return r;
}

static int source_co_read_step(struct adopt_layer *l, uint64_t off, uint8_t *buf, uint64_t len)
{
	struct bdev *b = l->source;
	int r;

	if (!b)
		return source_failed(l, -EIO, off);
	l->n_reading++;
	r = bdev_co_read(b, off, buf, len);
	if (--l->n_reading == 0)
		co_queue_wake_all(&l->unread);
	return r < 0 ? source_failed(l, -EIO, off) : 0;
}

/* Coroutine. buf: of buf_alloc(). off and len are multiples of SOURCE_BLOCK_MAX, or reach to the source's end; zeros beyond it. */
static int source_co_read_aligned(struct adopt_layer *l, uint64_t off, uint8_t *buf, uint64_t len)
{
	uint64_t size = l->conf.source_bytes, have = off < size ? MIN(len, size - off) : 0, done, n;
	int r = 0;

	memset(buf + have, 0, len - have);
	for (done = 0; done < have && r == 0; done += n) {
		n = MIN(have - done, SOURCE_STEP_BYTES);
		if (l->source)
			n = MIN(n, ALIGN_DOWN((uint64_t)l->source->max_bytes, (uint64_t)SOURCE_BLOCK_MAX));
		r = source_co_read_step(l, off + done, buf + done, n);
	}
	return r;
}

/* Coroutine. Anything, into any memory, from byte `skip` of the list on. */
static int source_co_read(struct adopt_layer *l, uint64_t off, uint64_t len, const struct iovec *iov, unsigned iov_n, uint64_t skip)
{
	uint8_t *buf;
	uint64_t end = off + len, from, to, n;
	int r = 0;

	if (off >= l->conf.source_bytes) {
		iov_zero(iov, iov_n, skip, len);
		return 0;
	}
	buf = buf_alloc(SOURCE_STEP_BYTES);
	for (; off < end && r == 0; off += n, skip += n) {
		from = ALIGN_DOWN(off, (uint64_t)SOURCE_BLOCK_MAX);
		to = MIN(ALIGN_UP(end, (uint64_t)SOURCE_BLOCK_MAX), from + SOURCE_STEP_BYTES);
		n = MIN(to, end) - off;
		r = source_co_read_aligned(l, from, buf, to - from);
		if (r == 0)
			iov_from_buf(iov, iov_n, skip, buf + (off - from), n);
	}
	buf_free(buf, SOURCE_STEP_BYTES);
	return r;
}

/* Coroutine. How far from off on, at most len, it is of one kind there; *zeros: known to be zeros. */
static uint64_t source_co_extent(struct adopt_layer *l, uint64_t off, uint64_t len, bool *zeros)
{
	uint64_t size = l->conf.source_bytes, ask;
	struct bdev_extent ext;
	size_t n = 1;
	int r;

	*zeros = off >= size;
	if (*zeros)
		return len;
	ask = MIN(len, size - off);
	if (!l->source || !l->source->ops->co_status)
		return ask;
	l->n_reading++;
	r = bdev_co_status(l->source, off, ask, &ext, &n);
	if (--l->n_reading == 0)
		co_queue_wake_all(&l->unread);
	if (r < 0 || !n)
		return ask;
	*zeros = ext.flags & BDEV_ZERO;
	if (ext.len_bytes < ask)
		return ext.len_bytes;
	return *zeros ? len : ask; /* behind its end there are zeros too */
}

void adopt_layer_set_source(struct adopt_layer *l, struct bdev *source)
{
	CHECK(!l->source && !l->n_reading);
	l->source = source;
	atomic_store(&l->is_broken, false);
	if (l->has_told)
		pool_event(l->conf.p, ASHLAR_INFO, "volume.source", -1, NULL, "%s: its source is there again", l->conf.what);
	l->has_told = false;
}

void adopt_layer_co_take_source(struct adopt_layer *l)
{
	l->source = NULL;
	while (l->n_reading)
		co_queue_wait(&l->unread);
}

bool adopt_layer_is_broken(const struct adopt_layer *l)
{
	return atomic_load(&l->is_broken);
}

/* ---- reads ---- */

/* Coroutine. One part of a read, of one kind. */
static int part_co_read(struct adopt_layer *l, const struct io *io, uint64_t off, uint64_t len, bool here)
{
	struct iovec *iov;
	struct io x;
	int r;

	if (!here)
		return source_co_read(l, off, len, io->iov, io->iov_n, off - io->off_bytes);
	iov = xmalloc(io->iov_n * sizeof(*iov));
	io_prep(&x, IO_READ, off, len, NULL, 0);
	x.iov = iov;
	x.iov_n = iov_slice(io->iov, io->iov_n, off - io->off_bytes, len, iov, io->iov_n);
	r = bdev_co_submit(l->inner, &x);
	xfree(iov);
	return r;
}

static int read_co_do(struct adopt_layer *l, const struct io *io)
{
	uint64_t off = io->off_bytes, end = off + io->len_bytes;
	struct bdev_extent ext[LAYER_EXTENTS];
	size_t n, i;
	int r = 0;

	while (r == 0 && off < end) {
		n = LAYER_EXTENTS;
		r = bdev_co_status(l->inner, off, end - off, ext, &n);
		for (i = 0; i < n && r == 0; i++) {
			r = part_co_read(l, io, off, ext[i].len_bytes, !(ext[i].flags & BDEV_HOLE));
			off += ext[i].len_bytes;
		}
	}
	return r;
}

/* ---- changes ---- */

/* A change, and the subclusters that it touches. */
struct change {
	struct adopt_layer *l;
	uint64_t off, end;   /* what the client changes */
	uint64_t from, to;   /* whole subclusters, or to the volume's end */
	struct range_hold hold;
};

static void change_co_lock(struct change *c, struct adopt_layer *l, uint64_t off, uint64_t end)
{
	*c = (struct change){ .l = l, .off = off, .end = end };
	c->from = ALIGN_DOWN(off, (uint64_t)l->conf.sub_bytes);
	c->to = MIN(ALIGN_UP(end, (uint64_t)l->conf.sub_bytes), l->bdev.size_bytes);
	range_co_lock(&l->busy, c->from, c->to - c->from, false, &c->hold);
}

static void change_unlock(struct change *c)
{
	range_unlock(&c->l->busy, &c->hold);
}

/* Coroutine, range locked. 1: the subcluster at off is the volume's. */
static int sub_co_is_here(struct adopt_layer *l, uint64_t off)
{
	struct bdev_extent ext;
	size_t n = 1;
	int r = bdev_co_status(l->inner, off, MIN(l->conf.sub_bytes, l->bdev.size_bytes - off), &ext, &n);

	return r < 0 ? r : !(ext.flags & BDEV_HOLE);
}

/* Coroutine, range locked. The part of the change's first (last) subcluster that has to come from the source, in *buf, or *len 0. */
static int edge_co_read(struct change *c, bool first, void **buf, uint64_t *len)
{
	uint64_t sub = c->l->conf.sub_bytes, start = first ? c->from : ALIGN_DOWN(c->end, sub), n = first ? c->off - c->from : c->to - c->end;
	struct iovec iov;
	int r;

	*len = 0;
	*buf = NULL;
	if (!n || MUTANT(ADOPTED_EDGES_FORGOTTEN))
		return 0;
	r = sub_co_is_here(c->l, start);
	if (r != 0)
		return r < 0 ? r : 0;
	*buf = buf_alloc(sub);
	*len = n;
	iov = (struct iovec){ *buf, n };
	return source_co_read(c->l, first ? c->from : c->end, n, &iov, 1, 0);
}

/* Coroutine. With what the edges need around it. */
static int write_co_edged(struct change *c, const struct io *io)
{
	uint64_t head_len, tail_len = 0;
	void *head, *tail = NULL;
	struct iovec *iov = NULL;
	unsigned n = 0;
	struct io x;
	int r = edge_co_read(c, true, &head, &head_len);

	if (r == 0)
		r = edge_co_read(c, false, &tail, &tail_len);
	if (r == 0) {
		iov = xmalloc((io->iov_n + 2) * sizeof(*iov));
		if (head_len)
			iov[n++] = (struct iovec){ head, head_len };
		memcpy(iov + n, io->iov, io->iov_n * sizeof(*iov));
		n += io->iov_n;
		if (tail_len)
			iov[n++] = (struct iovec){ tail, tail_len };
		io_prep(&x, IO_WRITE, c->off - head_len, head_len + io->len_bytes + tail_len, NULL, io->flags);
		x.iov = iov;
		x.iov_n = n;
		r = bdev_co_submit(c->l->inner, &x);
	}
	xfree(iov);
	buf_free(head, c->l->conf.sub_bytes);
	buf_free(tail, c->l->conf.sub_bytes);
	return r;
}

static int write_co_do(struct adopt_layer *l, const struct io *io)
{
	struct change c;
	int r;

	change_co_lock(&c, l, io->off_bytes, io->off_bytes + io->len_bytes);
	r = write_co_edged(&c, io);
	change_unlock(&c);
	return r;
}

/* Coroutine, range locked. Zeros for part of a subcluster that is the source's: written with the rest of it. */
static int zero_co_sub(struct adopt_layer *l, uint64_t off, uint64_t end, unsigned flags)
{
	uint64_t sub = l->conf.sub_bytes, start = ALIGN_DOWN(off, sub), len = MIN(sub, l->bdev.size_bytes - start);
	uint8_t *buf = buf_alloc(sub);
	struct iovec iov = { buf, len };
	int r = source_co_read(l, start, len, &iov, 1, 0);

	memset(buf + (off - start), 0, end - off);
	if (r == 0)
		r = bdev_co_write(l->inner, start, buf, len, flags);
	buf_free(buf, sub);
	return r;
}

/* Coroutine, range locked. Part of a subcluster. */
static int zero_co_edge(struct adopt_layer *l, uint64_t off, uint64_t end, unsigned flags)
{
	int r = sub_co_is_here(l, ALIGN_DOWN(off, (uint64_t)l->conf.sub_bytes));

	if (r < 0)
		return r;
	return r ? bdev_co_zero(l->inner, off, end - off, flags | IO_NO_HOLE) : zero_co_sub(l, off, end, flags);
}

/* Coroutine, range locked. Whole subclusters: forgotten where the source has zeros, else written. */
static int zero_co_whole(struct adopt_layer *l, uint64_t off, uint64_t end, unsigned flags)
{
	uint64_t sub = l->conf.sub_bytes, n;
	bool forget;
	int r = 0;

	for (; off < end && r == 0; off += n) {
		n = flags & IO_NO_HOLE ? (forget = false, end - off) : source_co_extent(l, off, end - off, &forget);
		if (n < end - off) {
			forget &= n >= sub; /* one that has both is written */
			n = forget ? ALIGN_DOWN(n, sub) : MIN(ALIGN_UP(n, sub), end - off);
		}
		r = forget || MUTANT(ADOPTED_DISCARD_FORGETS) ? bdev_co_zero(l->inner, off, n, flags) : bdev_co_zero(l->inner, off, n, flags | IO_NO_HOLE);
	}
	return r;
}

/* A discard leaves alone what is less than a subcluster, as in any volume. */
static int zero_co_do(struct adopt_layer *l, const struct io *io)
{
	uint64_t sub = l->conf.sub_bytes, off = io->off_bytes, end = off + io->len_bytes;
	uint64_t first = ALIGN_UP(off, sub), last = end == l->bdev.size_bytes ? end : ALIGN_DOWN(end, sub);
	bool edges = io->op == IO_ZERO;
	struct change c;
	int r = 0;

	if (io->flags & IO_FAST_ZERO)
		return -EOPNOTSUPP;
	change_co_lock(&c, l, off, end);
	if (first >= last) {
		if (edges && ALIGN_DOWN(off, sub) == ALIGN_DOWN(end - 1, sub))
			r = zero_co_edge(l, off, end, io->flags);
		else if (edges)
			r = zero_co_edge(l, off, first, io->flags);
		if (r == 0 && edges && first < end && first > off)
			r = zero_co_edge(l, first, end, io->flags);
	} else {
		if (edges && off < first)
			r = zero_co_edge(l, off, first, io->flags);
		if (r == 0)
			r = zero_co_whole(l, first, last, io->flags);
		if (r == 0 && edges && last < end)
			r = zero_co_edge(l, last, end, io->flags);
	}
	change_unlock(&c);
	return r;
}

/* ---- clients' requests ---- */

/* Coroutine. The volume needs no help any more, but those that do not know that yet may be completing a subcluster. */
static int complete_co_do(struct adopt_layer *l, struct io *io)
{
	struct io x = { .op = io->op, .flags = io->flags, .iov_n = io->iov_n, .iov = io->iov, .off_bytes = io->off_bytes,
			.len_bytes = io->len_bytes };
	struct change c;
	int r;

	list_init(&x.link);
	if (io->op == IO_READ)
		return bdev_co_submit(l->inner, &x);
	change_co_lock(&c, l, io->off_bytes, io->off_bytes + io->len_bytes);
	r = bdev_co_submit(l->inner, &x);
	change_unlock(&c);
	return r;
}

static int io_co_do(struct adopt_layer *l, struct io *io)
{
	int r;

	if (l->is_complete)
		return complete_co_do(l, io);
	if (io->op == IO_READ)
		return read_co_do(l, io);
	l->n_completing++;
	r = io->op == IO_WRITE ? write_co_do(l, io) : zero_co_do(l, io);
	if (--l->n_completing == 0)
		co_queue_wake_all(&l->idle);
	return r;
}

static void layer_co_run(void *arg)
{
	struct adopt_layer *l = arg;
	struct list *n;

	while ((n = list_pop_front(&l->waiting))) {
		struct io *io = list_entry(n, struct io, link);

		io_done(io, io_co_do(l, io));
	}
	if (--l->n_running == 0)
		co_queue_wake_all(&l->idle);
}

static void layer_submit(struct bdev *b, struct io *io)
{
	struct adopt_layer *l = container_of(b, struct adopt_layer, bdev);

	if (io->op == IO_FLUSH) {
		bdev_submit(l->inner, io);
		return;
	}
	list_push_back(&l->waiting, &io->link);
	if (l->n_running == LAYER_RUNNING_MAX)
		return;
	l->n_running++;
	co_spawn(CO_SERVICE, layer_co_run, l, "adopted volume");
}

/* Coroutine. What is not here yet may be data, unless the source knows better. */
static int layer_co_status(struct bdev *b, uint64_t off_bytes, uint64_t len_bytes, struct bdev_extent *ext, size_t *n)
{
	struct adopt_layer *l = container_of(b, struct adopt_layer, bdev);
	bool zeros;
	int r;

	*n = 1;
	r = bdev_co_status(l->inner, off_bytes, len_bytes, ext, n);
	if (r < 0 || !(ext->flags & BDEV_HOLE))
		return r;
	ext->len_bytes = source_co_extent(l, off_bytes, ext->len_bytes, &zeros);
	if (!zeros)
		ext->flags = 0;
	return 0;
}

static const struct bdev_ops layer_ops = { .submit = layer_submit, .co_status = layer_co_status };

/* ---- bringing over ---- */

static bool is_zero(const uint8_t *p, uint64_t n)
{
	return !p[0] && !memcmp(p, p + 1, n - 1);
}

/* Coroutine, range locked. The buffer has what the source has in [off, off + len): whole subclusters, or to the end. */
static int pull_co_write(struct adopt_layer *l, uint64_t off, const uint8_t *buf, uint64_t len, uint64_t *written)
{
	uint64_t sub = l->conf.sub_bytes, at = 0, from;
	int r = 0;

	while (at < len && r == 0) {
		while (at < len && is_zero(buf + at, MIN(sub, len - at)))
			at += sub;
		for (from = at; at < len && !is_zero(buf + at, MIN(sub, len - at));)
			at += sub;
		at = MIN(at, len);
		if (from >= at)
			continue;
		r = bdev_co_write(l->inner, off + from, buf + from, at - from, 0);
		*written += at - from;
	}
	return r;
}

/* Coroutine. The first part of [off, end) that is not the volume's; *from is end if there is none. */
static int pull_co_find(struct adopt_layer *l, uint64_t off, uint64_t end, uint64_t *from, uint64_t *to)
{
	struct bdev_extent ext;
	size_t n;
	int r;

	for (*from = *to = end; off < end; off += ext.len_bytes) {
		n = 1;
		r = bdev_co_status(l->inner, off, end - off, &ext, &n);
		if (r < 0)
			return r;
		if (ext.flags & BDEV_HOLE) {
			*from = off;
			*to = off + ext.len_bytes;
			return 0;
		}
	}
	return 0;
}

/* Coroutine. What is not the volume's in [off, end), which begins and ends with subclusters, or at the volume's end. The source may be
 * slow: what it has is read before the range is locked, and only what nobody has written meanwhile is written. */
static int pull_co_range(struct adopt_pull *x, uint64_t off, uint64_t end, uint8_t *buf)
{
	struct adopt_layer *l = x->layer;
	struct iovec iov = { buf, end - off };
	struct range_hold hold;
	uint64_t from, to, at;
	int r = pull_co_find(l, off, end, &from, &to);

	if (r < 0 || from == end)
		return r;
	r = source_co_read(l, off, end - off, &iov, 1, 0);
	x->source_failed = r < 0;
	if (r < 0)
		return r;
	range_co_lock(&l->busy, off, end - off, false, &hold);
	for (at = off; r == 0 && at < end; at = to) {
		r = pull_co_find(l, at, end, &from, &to);
		if (r == 0 && from < end)
			r = pull_co_write(l, from, buf + (from - off), to - from, &x->data_bytes);
	}
	range_unlock(&l->busy, &hold);
	return r;
}

int adopt_layer_co_pull(struct adopt_pull *x)
{
	struct adopt_layer *l = x->layer;
	uint64_t end = MIN(l->conf.source_bytes, l->bdev.size_bytes), sub = l->conf.sub_bytes, stop;
	bool zeros;
	void *buf;
	int r;

	x->data_bytes = 0;
	x->source_failed = false;
	if (x->pos_bytes >= end)
		return 0;
	stop = x->pos_bytes + source_co_extent(l, x->pos_bytes, MIN(end - x->pos_bytes, SKIP_BYTES), &zeros);
	stop = stop >= end ? end : ALIGN_DOWN(stop, sub);
	if (zeros && stop > x->pos_bytes) {
		x->pos_bytes = stop;
		return 0;
	}
	stop = MIN(end, ALIGN_DOWN(x->pos_bytes, SOURCE_STEP_BYTES) + SOURCE_STEP_BYTES);
	buf = buf_alloc(SOURCE_STEP_BYTES);
	r = pull_co_range(x, ALIGN_DOWN(x->pos_bytes, sub), MIN(ALIGN_UP(stop, sub), l->bdev.size_bytes), buf);
	buf_free(buf, SOURCE_STEP_BYTES);
	if (r == 0)
		x->pos_bytes = stop;
	return r;
}

/* ---- start, end ---- */

struct adopt_layer *adopt_layer_co_start(const struct adopt_layer_conf *c)
{
	struct adopt_layer *l = xcalloc(1, sizeof(*l));

	l->conf = *c;
	l->inner = thin_volume_inner(c->volume);
	l->bdev = *l->inner;
	l->bdev.ops = &layer_ops;
	l->bdev.max_bytes = MIN(l->inner->max_bytes, LAYER_MAX_BYTES);
	l->is_broken = true;
	range_lock_init(&l->busy);
	list_init(&l->waiting);
	co_queue_init(&l->idle);
	co_queue_init(&l->unread);
	thin_volume_co_freeze(c->volume, true);
	thin_volume_set_forward(c->volume, &l->bdev);
	thin_volume_thaw(c->volume);
	return l;
}

void adopt_layer_co_free(struct adopt_layer *l)
{
	while (l->n_running)
		co_queue_wait(&l->idle);
	CHECK(range_lock_is_idle(&l->busy) && !l->n_reading && list_is_empty(&l->waiting));
	xfree(l);
}

void adopt_layer_co_complete(struct adopt_layer *l)
{
	l->is_complete = true;
	while (l->n_completing)
		co_queue_wait(&l->idle);
}

void adopt_layer_co_drop(struct adopt_layer *l)
{
	CHECK(l->is_complete && !l->n_completing);
	thin_volume_co_freeze(l->conf.volume, true);
	thin_volume_set_forward(l->conf.volume, NULL);
	thin_volume_thaw(l->conf.volume);
}
