/*
 * mirror.c: clients' changes in two places.
 *
 * The mirror is the bdev that a volume's requests are forwarded to. Reads go on to the volume as they are. Changes and flushes are
 * done by coroutines, service ones, since the volume may need request coroutines to answer them; so they have a limit of their own.
 *
 * Equal means: whatever the volume answers to a read, the second place would, once every byte has been copied. So:
 * - Whoever writes to the second place, client's change or copy, holds the range lock from the volume's part on.
 * - Both do it at once, so a client waits for the slower one and not for both.
 * - A change that failed in the volume may have been done there in part: what lies there now is copied, under the same lock.
 * - What a discard has left in the volume is copied: the second place might leave more, or less.
 * A change that waits for space in the volume holds its range, perhaps for ever. It comes back (-ECANCELED) when a copy wants that
 * range, and is tried again behind it; or when the clients are held, and is held like one that has not begun. Whatever of it is done
 * already: nobody was answered, and it will be done again as a whole; what the second place has of it
 * already is as good as not, since nobody reads there.
 */
#include "engine/base/mutant.h"
#include "engine/io/buf.h"
#include "engine/io/range_lock.h"
#include "engine/pool/mirror.h"

#define MIRROR_RUNNING_MAX 256
#define MIRROR_COPY_BYTES MIB
#define MIRROR_EXTENTS 32
#define MIRROR_RETRY_NS (10 * NS_PER_MS)

struct pool_mirror {
	struct bdev bdev; /* clients' requests come here */
	struct thin_volume *v;
	struct bdev *inner, *to;
	struct range_lock busy;
	struct list waiting;   /* ios: for a coroutine */
	struct list held;      /* ios */
	unsigned n_running, n_copies;
	unsigned n_impatient; /* who wants nobody to wait for space */
	bool holding;
	int error;
	struct co_queue idle; /* n_running is 0 */
};

static void mirror_failed(struct pool_mirror *m, int r)
{
	if (r < 0 && !m->error)
		m->error = r;
}

static void impatient_begin(struct pool_mirror *m)
{
	if (!m->n_impatient++)
		thin_volume_set_parking(m->v, false);
}

static void impatient_end(struct pool_mirror *m)
{
	if (!--m->n_impatient)
		thin_volume_set_parking(m->v, true);
}

/* ---- copying ---- */

/* Coroutine, range locked. Of one kind; data at most MIRROR_COPY_BYTES. */
static int extent_co_copy(struct pool_mirror *m, uint64_t off, uint64_t len, bool hole, void *buf)
{
	int r;

	if (hole) {
		mirror_failed(m, bdev_co_zero(m->to, off, len, 0));
		return m->error;
	}
	r = bdev_co_read(m->inner, off, buf, len);
	if (r == 0 && !m->error)
		mirror_failed(m, bdev_co_write(m->to, off, buf, len, 0));
	return r < 0 ? r : m->error;
}

/* Coroutine, range locked. */
static int range_co_copy(struct pool_mirror *m, uint64_t off, uint64_t len, void *buf, uint64_t *copied)
{
	struct bdev_extent ext[MIRROR_EXTENTS];
	uint64_t end = off + len, left, k;
	size_t n, i;
	int r = 0;

	while (r == 0 && off < end) {
		n = MIRROR_EXTENTS;
		r = bdev_co_status(m->inner, off, end - off, ext, &n);
		for (i = 0; i < n && r == 0; i++) {
			bool hole = ext[i].flags & BDEV_ZERO;

			for (left = ext[i].len_bytes; left && r == 0; left -= k, off += k) {
				k = MIN(left, hole ? m->to->max_bytes : MIN(MIRROR_COPY_BYTES, m->to->max_bytes));
				r = extent_co_copy(m, off, k, hole, buf);
				*copied += hole ? 0 : k;
			}
		}
	}
	return r;
}

int pool_mirror_co_copy(struct pool_mirror *m, uint64_t off_bytes, uint64_t len_bytes, uint64_t *copied_bytes)
{
	uint64_t end = off_bytes + len_bytes, n;
	struct range_hold hold;
	void *buf;
	int r = m->error;

	CHECK(!m->holding && bdev_check_range(m->inner, off_bytes, len_bytes) == 0);
	*copied_bytes = 0;
	buf = buf_alloc(MIRROR_COPY_BYTES);
	m->n_copies++;
	for (; r == 0 && off_bytes < end; off_bytes += n) {
		n = MIN(end, ALIGN_DOWN(off_bytes, MIRROR_COPY_BYTES) + MIRROR_COPY_BYTES) - off_bytes;
		if (!range_try_lock(&m->busy, off_bytes, n, false, &hold)) {
			impatient_begin(m);
			range_co_lock(&m->busy, off_bytes, n, false, &hold);
			impatient_end(m);
		}
		r = range_co_copy(m, off_bytes, n, buf, copied_bytes);
		range_unlock(&m->busy, &hold);
	}
	m->n_copies--;
	buf_free(buf, MIRROR_COPY_BYTES);
	return r;
}

/* ---- clients' requests ---- */

static void leg_submit(struct bdev *b, const struct io *io, unsigned flags, struct io *leg, struct co_join *j)
{
	*leg = (struct io){ .op = io->op, .flags = (uint16_t)flags, .iov_n = io->iov_n, .iov = io->iov, .off_bytes = io->off_bytes,
			    .len_bytes = io->len_bytes };
	list_init(&leg->link);
	bdev_submit_join(b, leg, j);
}

/* Coroutine, range locked. In both places at once, or in the volume alone; what the volume says. */
static int io_co_submit(struct pool_mirror *m, const struct io *io, bool both)
{
	struct co_join j;
	struct io v, to;

	co_join_init(&j);
	leg_submit(m->inner, io, io->flags, &v, &j);
	if (both)
		leg_submit(m->to, io, io->flags & ~(unsigned)IO_FAST_ZERO, &to, &j);
	(void)!co_join_wait(&j);
	if (both)
		mirror_failed(m, to.result);
	return v.result;
}

/* Coroutine, range locked. As the volume has left it. */
static void change_co_repeat(struct pool_mirror *m, const struct io *io)
{
	uint64_t copied = 0;
	void *buf;

	if (m->error)
		return;
	buf = buf_alloc(MIRROR_COPY_BYTES);
	mirror_failed(m, range_co_copy(m, io->off_bytes, io->len_bytes, buf, &copied));
	buf_free(buf, MIRROR_COPY_BYTES);
}

static void change_co_do(struct pool_mirror *m, struct io *io)
{
	bool both = io->op != IO_DISCARD && !(io->flags & IO_FAST_ZERO) && !MUTANT(MOVE_SKIPS_WRITES);
	struct range_hold hold;
	int r;

	for (;;) {
		range_co_lock(&m->busy, io->off_bytes, io->len_bytes, false, &hold);
		r = io_co_submit(m, io, both && !m->error);
		if (r != -ECANCELED)
			break;
		range_unlock(&m->busy, &hold);
		if (!m->holding)
			co_sleep_ns(MIRROR_RETRY_NS);
		if (m->holding) {
			list_push_back(&m->held, &io->link);
			return;
		}
	}
	if ((r < 0 || !both) && !MUTANT(MOVE_SKIPS_WRITES))
		change_co_repeat(m, io);
	range_unlock(&m->busy, &hold);
	io_done(io, r);
}

static void flush_co_do(struct pool_mirror *m, struct io *io)
{
	io_done(io, io_co_submit(m, io, !m->error));
}

static void mirror_co_run(void *arg)
{
	struct pool_mirror *m = arg;
	struct list *n;

	while ((n = list_pop_front(&m->waiting))) {
		struct io *io = list_entry(n, struct io, link);

		if (io->op == IO_FLUSH)
			flush_co_do(m, io);
		else
			change_co_do(m, io);
	}
	if (--m->n_running == 0)
		co_queue_wake_all(&m->idle);
}

static void mirror_submit(struct bdev *b, struct io *io)
{
	struct pool_mirror *m = container_of(b, struct pool_mirror, bdev);

	if (m->holding) {
		list_push_back(&m->held, &io->link);
		return;
	}
	if (io->op == IO_READ) {
		bdev_submit(m->inner, io);
		return;
	}
	list_push_back(&m->waiting, &io->link);
	if (m->n_running == MIRROR_RUNNING_MAX)
		return;
	m->n_running++;
	co_spawn(CO_SERVICE, mirror_co_run, m, "mirror");
}

static int mirror_co_status(struct bdev *b, uint64_t off_bytes, uint64_t len_bytes, struct bdev_extent *ext, size_t *n)
{
	return bdev_co_status(container_of(b, struct pool_mirror, bdev)->inner, off_bytes, len_bytes, ext, n);
}

static const struct bdev_ops mirror_ops = { .submit = mirror_submit, .co_status = mirror_co_status };

/* ---- start, hold, end ---- */

int pool_mirror_co_start(struct thin_volume *v, struct bdev *to, struct pool_mirror **out)
{
	struct bdev *inner = thin_volume_inner(v);
	struct pool_mirror *m;

	if (to->size_bytes < inner->size_bytes || to->block_bytes > inner->block_bytes || to->read_only)
		return -EINVAL;
	if (thin_volume_is_forwarded(v))
		return -EBUSY;
	m = xcalloc(1, sizeof(*m));
	m->bdev = *inner;
	m->bdev.ops = &mirror_ops;
	m->bdev.max_bytes = MIN(inner->max_bytes, to->max_bytes);
	m->v = v;
	m->inner = inner;
	m->to = to;
	range_lock_init(&m->busy);
	list_init(&m->waiting);
	list_init(&m->held);
	co_queue_init(&m->idle);
	thin_volume_co_freeze(v, true);
	thin_volume_set_forward(v, &m->bdev);
	thin_volume_thaw(v);
	*out = m;
	return 0;
}

int pool_mirror_error(const struct pool_mirror *m)
{
	return m->error;
}

void pool_mirror_co_hold(struct pool_mirror *m)
{
	CHECK(!m->holding && !m->n_copies);
	m->holding = true;
	list_splice_back(&m->held, &m->waiting);
	impatient_begin(m);
	while (m->n_running)
		co_queue_wait(&m->idle);
	impatient_end(m);
	thin_volume_co_freeze(m->v, true);
}

void pool_mirror_end(struct pool_mirror *m, struct bdev *instead)
{
	struct bdev *to = instead ? instead : m->inner;
	struct list *n;

	CHECK(m->holding && !m->n_running && !m->n_copies && list_is_empty(&m->waiting) && range_lock_is_idle(&m->busy));
	CHECK(to->max_bytes >= m->bdev.max_bytes);
	thin_volume_set_forward(m->v, instead);
	thin_volume_thaw(m->v);
	while ((n = list_pop_front(&m->held)))
		bdev_submit(to, list_entry(n, struct io, link));
	xfree(m);
}
