/*
 * Flushes.
 *
 * A flush must make durable what was completed before it was submitted, on every disk. Rounds: one flush of all disks that
 * have something to flush; its waiters are those that came before it started. Who comes while it runs waits for the next
 * round, however many they are: so any number of clients cost two flushes per disk at a time. A disk whose n_flushed equals
 * n_volatile is skipped; n_volatile is sampled before the flush is submitted, so a write that completes meanwhile keeps the
 * disk in need of another.
 *
 * A failed flush: what was written since the last good one may be gone, and a second flush that succeeds proves nothing.
 * Either the pool puts the disk out (co_disk_error returns 0), then its copies count no more and the round is good; or the
 * round fails, and so does every later flush here until the pool sets the disk anew. While the pool decides, later
 * flushes wait: none may be acknowledged as long as the disk could come back, after a crash, as if it were current. So
 * co_disk_error() must not need a flush of this instance.
 *
 * A disk that is out is not flushed, and what had been written to it without a flush may be lost: as long as no label says that it is
 * out, the round ends with what the pool says of that (raid_settle.c).
 *
 * The stripe log hears of every round: what had been written in place before it began is durable when it ends well.
 */
#include "raid/raid_impl.h"

static bool slot_needs_flush(const struct raid_disk_slot *s)
{
	return raid_slot_is_there(s) && atomic_load_explicit(&s->disk->n_volatile, memory_order_relaxed) !=
					atomic_load_explicit(&s->disk->n_flushed, memory_order_relaxed);
}

/* Other reactors flush the same disk: n_flushed only grows. */
static void disk_flushed(struct disk *d, uint64_t n_volatile)
{
	uint64_t old = atomic_load_explicit(&d->n_flushed, memory_order_relaxed);

	while (old < n_volatile && !atomic_compare_exchange_weak_explicit(&d->n_flushed, &old, n_volatile,
									memory_order_relaxed, memory_order_relaxed))
		;
}

static int flush_sticky_error(const struct raid *r)
{
	for (unsigned i = 0; i < RAID_DISKS_MAX; i++)
		if (raid_slot_is_there(&r->disks[i]) && r->disks[i].flush_error)
			return r->disks[i].flush_error;
	return 0;
}

static void flush_start(struct raid *r);

/* Ends the round; those who came meanwhile get the next. */
static void flush_end(struct raid *r, int result)
{
	struct raid_flush *f = &r->flush;
	struct list over, *n;

	list_init(&over);
	list_splice_back(&over, &f->current);
	list_splice_back(&f->current, &f->next);
	f->running = false;
	if (f->log)
		stripe_log_flush_end(f->log, f->log_mark, result == 0);
	if (!list_is_empty(&f->current))
		flush_start(r);
	while ((n = list_pop_front(&over)))
		raid_complete(r, list_entry(n, struct io, link), result);
}

static void flush_co_errors(void *arg)
{
	struct raid *r = arg;
	const struct raid_conf *c = &r->conf;
	int result = 0;

	for (unsigned i = 0; i < RAID_DISKS_MAX; i++) {
		struct raid_flush_leg *l = &r->flush.legs[i];
		int res;

		if (!l->used || !l->io.result)
			continue;
		res = c->hooks->co_disk_error(c->ctx, i, IO_FLUSH, l->io.result);
		if (res && r->disks[i].disk == l->disk)
			r->disks[i].flush_error = res;
		if (res && !result)
			result = res;
	}
	if (!result)
		result = raid_co_settle(r);
	flush_end(r, result);
}

/* All legs have ended. */
static void flush_judge(struct raid *r)
{
	if (unlikely(r->flush.failed || r->unsettled))
		co_start(CO_SERVICE, flush_co_errors, r, "raid flush error");
	else
		flush_end(r, 0);
}

static void flush_leg_done(struct io *io)
{
	struct raid_flush_leg *l = io->owner;
	struct raid *r = l->raid;

	if (io->result)
		r->flush.failed = true;
	else
		disk_flushed(l->disk, l->n_volatile);
	if (--r->flush.pending == 0)
		flush_judge(r);
}

/* Starts a round for f->current; ends it at once when no disk needs one. */
static void flush_start(struct raid *r)
{
	struct raid_flush *f = &r->flush;
	int sticky = flush_sticky_error(r);

	f->running = true;
	f->failed = false;
	f->log = r->log;
	if (f->log)
		f->log_mark = stripe_log_flush_begin(f->log);
	f->pending = 1; /* ours, until all are submitted */
	for (unsigned i = 0; i < RAID_DISKS_MAX; i++) {
		struct raid_flush_leg *l = &f->legs[i];

		l->used = !sticky && slot_needs_flush(&r->disks[i]);
		if (!l->used)
			continue;
		l->disk = r->disks[i].disk;
		l->n_volatile = atomic_load_explicit(&l->disk->n_volatile, memory_order_relaxed);
		io_prep(&l->io, IO_FLUSH, 0, 0, NULL, 0);
		l->io.done = flush_leg_done;
		l->io.owner = l;
		f->pending++;
		raid_disk_submit(r, i, &l->io, 0);
	}
	if (--f->pending)
		return;
	if (sticky)
		flush_end(r, sticky);
	else
		flush_judge(r);
}

void raid_flush_init(struct raid *r)
{
	list_init(&r->flush.current);
	list_init(&r->flush.next);
	for (unsigned i = 0; i < RAID_DISKS_MAX; i++)
		r->flush.legs[i].raid = r;
}

void raid_flush_submit(struct raid *r, struct io *io)
{
	struct raid_flush *f = &r->flush;

	r->stats.flushes++;
	if (f->running) {
		list_push_back(&f->next, &io->link);
		return;
	}
	list_push_back(&f->current, &io->link);
	r->submitting++;
	flush_start(r);
	r->submitting--;
}
