/*
 * compare.c: compare and write: read, compare, write, with no client's change of the range in between.
 *
 * Whoever compares is in v->compares from its beginning to its end: changes of clients that overlap it are held back (compare_held).
 * Those that had begun before are waited for: changes in flight are counted in one of two phases, and a compare switches the phase and
 * waits until the other one has run empty. A change that waits for space does not count: it will ask again before it goes on.
 *
 * Then it reads and writes. Where the volume forwards (forward.c), it does that there; what the volume forwards to may change between
 * the two steps, and then all is done again: nobody else has changed the range meanwhile. Otherwise it counts as one change of the
 * contents, so that who freezes the volume waits for it, and its two steps go past the gate. A full pool fails it: it does not wait.
 *
 * What is forwarded to another volume is compared there, where others may be attached too.
 */
#include <string.h>

#include "engine/io/buf.h"
#include "thin/volume_internal.h"

struct thin_compare {
	struct list link; /* v->compares */
	uint64_t off_bytes, end_bytes;
	struct range_hold hold;
};

/* ---- the others ---- */

bool thin_compare_holds(struct thin_volume *v, struct io *io)
{
	struct thin_compare *c;

	if (io->op == IO_READ || io->op == IO_FLUSH || thin_req_of(io)->inner)
		return false;
	list_for_each (c, &v->compares, link) {
		if (io->off_bytes < c->end_bytes && io->off_bytes + io->len_bytes > c->off_bytes) {
			list_push_back(&v->compare_held, &io->link);
			return true;
		}
	}
	return false;
}

void thin_compare_leave(struct thin_volume *v, struct thin_req *q)
{
	q->in_phase = false;
	if (--v->n_phase[q->change_phase] == 0)
		co_queue_wake_all(&v->phase_empty);
}

/* Coroutine. Every change that has begun has ended. */
static void compare_co_drain(struct thin_volume *v)
{
	unsigned old;

	while (v->n_phase[v->change_phase ^ 1])
		co_queue_wait(&v->phase_empty);
	old = v->change_phase;
	v->change_phase ^= 1;
	while (v->n_phase[old])
		co_queue_wait(&v->phase_empty);
}

/* ---- the steps ---- */

/* Coroutine. Past the gate; the caller counts as a change. */
static int compare_co_read(struct thin_volume *v, uint64_t off_bytes, uint64_t len_bytes, void *buf)
{
	struct co_join join;
	struct io io;

	co_join_init(&join);
	co_join_add(&join);
	io_prep(&io, IO_READ, off_bytes, len_bytes, buf, 0);
	thin_volume_start_inner(v, &io, &join);
	return co_join_wait(&join);
}

static int compare_result(struct bdev_compare *c, const uint8_t *now)
{
	const uint8_t *expect = c->expect;
	uint64_t i = 0;

	while (i < c->len_bytes && now[i] == expect[i])
		i++;
	c->mismatch_bytes = i;
	return i < c->len_bytes ? -EILSEQ : 0;
}

/* Coroutine. -EAGAIN: it does not forward there any more. */
static int compare_co_there(struct thin_volume *v, struct bdev_compare *c, uint8_t *now)
{
	struct bdev *to = v->forward;
	int r;

	if (to->ops->co_compare_write)
		return to->ops->co_compare_write(to, c);
	if (c->len_bytes > to->max_bytes)
		return -EOPNOTSUPP;
	r = bdev_co_read(to, c->off_bytes, now, c->len_bytes);
	if (v->forward != to || v->gate)
		return -EAGAIN;
	if (r == 0)
		r = compare_result(c, now);
	return r < 0 ? r : bdev_co_write(to, c->off_bytes, c->data, c->len_bytes, c->flags);
}

/* Coroutine. */
static int compare_co_here(struct thin_volume *v, struct bdev_compare *c, uint8_t *now)
{
	struct iovec iov = { (void *)c->data, c->len_bytes };
	int r;

	v->n_changing++;
	r = compare_co_read(v, c->off_bytes, c->len_bytes, now);
	if (r == 0)
		r = compare_result(c, now);
	if (r == 0 && c->off_bytes + c->len_bytes > v->bdev.size_bytes)
		r = -ERANGE; /* it has shrunk */
	if (r == 0)
		r = thin_co_write(v, c->off_bytes, c->len_bytes, &iov, 1);
	if (r == 0 && c->flags & IO_FUA)
		r = thin_volume_co_durable(v);
	if (--v->n_changing == 0 && v->gate)
		co_queue_wake_all(&v->still);
	return r;
}

/* Coroutine, alone in the range. */
static int compare_co_run(struct thin_volume *v, struct bdev_compare *c)
{
	uint8_t *now = buf_alloc(c->len_bytes);
	int r;

	do {
		while (v->gate && !v->closing)
			co_queue_wait(&v->thawed);
		if (v->closing && (v->gate || !v->forward)) /* who has gone elsewhere is served there to the end */
			r = -ESHUTDOWN;
		else if (bdev_check_range(&v->bdev, c->off_bytes, c->len_bytes) < 0)
			r = -ERANGE;
		else if (v->forward)
			r = compare_co_there(v, c, now);
		else
			r = compare_co_here(v, c, now);
	} while (r == -EAGAIN);
	buf_free(now, c->len_bytes);
	return r;
}

/* Those that had to wait go on, or wait for somebody else. */
static void compare_release(struct thin_volume *v)
{
	struct list ios, *n;

	list_init(&ios);
	list_splice_back(&ios, &v->compare_held);
	while ((n = list_pop_front(&ios)))
		thin_volume_resume(v, list_entry(n, struct io, link));
}

int thin_volume_co_compare_write(struct bdev *b, struct bdev_compare *c)
{
	struct thin_volume *v = container_of(b, struct thin_volume, bdev);
	struct thin_compare self = { .off_bytes = c->off_bytes, .end_bytes = c->off_bytes + c->len_bytes };
	int r = bdev_check_range(b, c->off_bytes, c->len_bytes);

	if (r < 0 || c->len_bytes > THIN_REQUEST_BYTES_MAX)
		return r < 0 ? r : -EINVAL;
	if (v->closing || b->read_only)
		return v->closing ? -ESHUTDOWN : -EROFS;
	v->n_inflight++;
	thin_count(&v->writes, 1);
	thin_count(&v->bytes_written, c->len_bytes);
	range_co_lock(&v->compare_lock, c->off_bytes, c->len_bytes, false, &self.hold);
	list_push_back(&v->compares, &self.link);
	compare_co_drain(v);
	r = compare_co_run(v, c);
	list_del(&self.link);
	range_unlock(&v->compare_lock, &self.hold);
	compare_release(v);
	if (--v->n_inflight == 0 && v->closing)
		co_queue_wake_all(&v->idle);
	return r;
}
