/*
 * The one way to a disk: deadlines, hedging, health.
 *
 * Each request to a disk has an object of its own with its own struct io, from the instance's freelist, on its slot's list of
 * what is with the kernel, oldest first. A timer that is armed while there is any looks at the oldest ones:
 *
 * - A read that may be hedged and is older than hedge_ns is given up: the submitter gets -ETIMEDOUT and goes elsewhere. (If
 *   the other disks are as busy as this one, going there would help nobody: the limit grows with their usual latency.)
 * - If anything is older than timeout_ns the disk is *silent*: all its requests are given up, later ones fail at once, and the
 *   pool is asked what becomes of it. Where it cannot do without the disk, requests are let through again once the disk has
 *   answered everything. Nor does it get anything when it is set anew too early, while a write that was given up may still come.
 *
 * What is given up is still with the kernel. The object stays until the kernel answers; so does the memory: a read goes to a
 * buffer of the object's own unless the submitter can do without his, and everything else is held (alloc_hold.h). A write that
 * was given up may happen at any later time, with whatever is in its payload then: nothing on the disk is believed that
 * the caller has not settled with the pool, and a disk is not brought back while raid_disk_is_idle() says no.
 *
 * Slow disks. Reads go around a disk (raid_disk_is_slow()) while a read that was given up is unanswered there; and from then
 * on when several were given up within a second, or one stays unanswered for a second. An ordinary read is let through now and
 * then, less and less often while these are late too; when a few in a row were quick the disk is as good as any.
 */
#include "raid/raid_leg.h"

#include "engine/base/alloc_hold.h"
#include "engine/base/units.h"

#define HEDGE_NS (100 * NS_PER_MS)
#define TIMEOUT_NS (30 * NS_PER_SEC)
#define TICK_NS_MAX (10 * NS_PER_MS)
#define TICK_NS_MIN (100 * NS_PER_US)
#define LATE_WINDOW_NS NS_PER_SEC /* LATE_MAX reads given up within it, or one unanswered for so long: slow */
#define LATE_MAX 4
#define QUICK_MIN 3 /* so many quick reads in a row: no longer slow */
#define PROBE_NS (250 * NS_PER_MS)
#define PROBE_NS_MAX (8 * NS_PER_SEC)
#define USUAL_TIMES 4	/* a read is late after so many times the usual latency of the best of the others, */
#define HEDGE_TIMES_MAX 10 /* up to so many times hedge_ns */

#define CALL_IO_FLAGS (IO_FUA | IO_NO_HOLE | IO_FAST_ZERO) /* what a disk understands */

static bool has_payload(const struct io *io)
{
	return io->op == IO_READ || io->op == IO_WRITE;
}

static bool is_change(const struct io *io)
{
	return io->op != IO_READ && io->op != IO_FLUSH;
}

static unsigned slot_index(const struct raid_disk_slot *s)
{
	return (unsigned)(s - s->raid->disks);
}

/* ---- asking the pool what becomes of a disk ---- */

static void slot_revive(struct raid_disk_slot *s)
{
	if (s->silent && s->kept && list_is_empty(&s->given_up) && !s->n_late_writes)
		s->silent = s->kept = s->told = false;
}

static void slot_update(struct raid_disk_slot *s)
{
	slot_revive(s);
	s->avoid = s->silent || s->slow || !list_is_empty(&s->given_up);
}

static void ask_co_main(void *arg)
{
	struct raid_disk_slot *s = arg;
	struct raid *r = s->raid;
	const struct raid_conf *c = &r->conf;
	uint32_t epoch = s->epoch;
	int res;

	if (s->told) { /* else it has been set anew meanwhile */
		res = c->hooks->co_disk_error(c->ctx, slot_index(s), (enum io_op)s->told_op, s->told_error);
		if (s->epoch == epoch) {
			s->kept = res != 0;
			slot_update(s);
		}
	}
	if (--r->n_asking == 0)
		co_queue_wake_all(&r->asked);
}

/* Once, until the disk is set anew. */
static void slot_tell(struct raid_disk_slot *s, enum io_op op, int error)
{
	if (s->told)
		return;
	s->told = true;
	s->told_op = (uint8_t)op;
	s->told_error = error;
	s->raid->n_asking++;
	co_spawn(CO_SERVICE, ask_co_main, s, "raid disk error");
}

void raid_co_drain(struct raid *r)
{
	while (r->n_asking)
		co_queue_wait(&r->asked);
}

/* ---- slow or not ---- */

static void slot_set_slow(struct raid_disk_slot *s, bool slow, uint64_t latency_ns)
{
	const struct raid_conf *c = &s->raid->conf;

	if (s->slow == slow)
		return;
	s->slow = slow;
	s->n_quick = s->n_late = 0;
	s->probe_wait_ns = PROBE_NS;
	s->probe_ns = raid_leg_clock(s->raid) + PROBE_NS;
	slot_update(s);
	if (c->hooks->disk_slow)
		c->hooks->disk_slow(c->ctx, slot_index(s), slow, latency_ns);
}

/* A read has been given up. */
static void slot_count_late(struct raid_disk_slot *s, const struct raid_call *c, uint64_t now)
{
	if (s->slow) {
		s->n_quick = 0;
		if (!(c->flags & RAID_CALL_PROBE))
			return;
		s->probe_wait_ns = MIN(2 * s->probe_wait_ns, PROBE_NS_MAX);
		s->probe_ns = now + s->probe_wait_ns;
		return;
	}
	if (now - s->late_ns > LATE_WINDOW_NS) {
		s->late_ns = now;
		s->n_late = 0;
	}
	if (++s->n_late >= LATE_MAX)
		slot_set_slow(s, true, raid_call_age(c, now));
}

static void slot_count_read(struct raid_disk_slot *s, uint64_t latency_ns)
{
	/* one that took long is an accident, many are a busy disk */
	s->latency_ns += MIN(latency_ns, 2 * s->raid->conf.hedge_ns) / 8 - s->latency_ns / 8;
	if (likely(!s->slow))
		return;
	if (latency_ns > s->raid->conf.hedge_ns / 2) {
		s->n_quick = 0;
	} else if (++s->n_quick >= QUICK_MIN) {
		slot_set_slow(s, false, latency_ns);
	} else {
		s->probe_wait_ns = PROBE_NS;
		s->probe_ns = raid_leg_clock(s->raid) + PROBE_NS;
	}
}

bool raid_disk_is_slow(const struct raid *r, unsigned disk)
{
	const struct raid_disk_slot *s = &r->disks[disk];

	if (likely(!s->avoid))
		return false;
	return s->silent || !list_is_empty(&s->given_up) || raid_leg_clock(r) < s->probe_ns;
}

/* ---- the end of a request ---- */

static void call_put(struct raid_call *c)
{
	if (unlikely(c->iov)) {
		xfree(c->iov);
		c->iov = NULL;
	}
	if (c->bounce) {
		buf_free(c->bounce, c->io.len_bytes);
		c->bounce = NULL;
	}
	if (likely(c->raid))
		list_push_front(&c->raid->free_legs, &c->link);
	else
		xfree(c);
}

void raid_call_finish(struct raid_call *c, int result)
{
	struct io *outer = c->outer;

	if (c->bounce && !result)
		iov_from_buf(outer->iov, outer->iov_n, 0, c->bounce, outer->len_bytes);
	call_put(c);
	io_done(outer, result);
}

/* The kernel has it, and its submitter forgets it. */
static void call_give_up(struct raid_call *c)
{
	struct raid_disk_slot *s = c->slot;
	struct io *outer = c->outer, *io = &c->io;

	if (!c->bounce && has_payload(io)) {
		if (io->iov_n > 1) {
			c->iov = xmalloc(io->iov_n * sizeof(*c->iov));
			for (unsigned i = 0; i < io->iov_n; i++)
				c->iov[i] = io->iov[i];
			io->iov = c->iov;
		}
		for (unsigned i = 0; i < io->iov_n; i++)
			alloc_hold(io->iov[i].iov_base, io->iov[i].iov_len);
	}
	c->outer = NULL;
	s->n_late_writes += is_change(io);
	list_push_back(c->epoch == s->epoch ? &s->given_up : &s->orphans, &c->link);
	slot_update(s);
	io_done(outer, -ETIMEDOUT);
}

/* The kernel is done with a request that was given up. */
static void call_answered_late(struct raid_call *c)
{
	struct raid_disk_slot *s = c->raid ? c->slot : NULL;

	if (!c->bounce && has_payload(&c->io))
		for (unsigned i = 0; i < c->io.iov_n; i++)
			alloc_release(c->io.iov[i].iov_base, c->io.iov[i].iov_len);
	if (s) {
		s->n_late_writes -= is_change(&c->io);
		slot_update(s);
	}
	call_put(c);
}

static void call_done(struct io *io)
{
	struct raid_call *c = container_of(io, struct raid_call, io);
	struct raid *r = c->raid;

	list_del(&c->link);
	if (unlikely(!c->outer)) {
		call_answered_late(c);
		return;
	}
	if (io->op == IO_READ) {
		if (likely(!io->result))
			slot_count_read(c->slot, raid_call_age(c, raid_leg_clock(r)));
		else if (io->result == -ENODEV && c->epoch == c->slot->epoch)
			slot_tell(c->slot, IO_READ, -ENODEV);
		if ((c->flags & RAID_LEG_CHECK_ZEROS) && r->conf.hooks->co_disk_verify && !io->result &&
		    raid_call_has_zeros(c)) {
			raid_call_suspect(c);
			return;
		}
	}
	raid_call_finish(c, io->result);
}

/* ---- submission ---- */

static struct raid_call *call_get(struct raid *r)
{
	struct list *n = list_pop_front(&r->free_legs);
	struct raid_call *c;

	if (likely(n))
		return list_entry(n, struct raid_call, link);
	c = xcalloc(1, sizeof(*c));
	c->raid = r;
	c->io.done = call_done;
	list_init(&c->io.link);
	return c;
}

static inline void call_set_payload(struct raid_call *c, const struct io *outer)
{
	struct io *io = &c->io;

	io->iov_n = outer->iov_n;
	io->iov = outer->iov;
	if (outer->op == IO_READ && !(c->flags & RAID_LEG_DIRECT)) {
		c->bounce = buf_alloc(outer->len_bytes);
		io->one = (struct iovec){ c->bounce, outer->len_bytes };
		io->iov_n = 1;
		io->iov = &io->one;
	} else if (outer->iov_n == 1) {
		io->one = outer->iov[0];
		io->iov = &io->one;
	}
}

void raid_disk_submit(struct raid *r, unsigned disk, struct io *outer, unsigned flags)
{
	struct raid_disk_slot *s = &r->disks[disk];
	struct raid_call *c;

	if (unlikely(s->silent || !s->disk)) { /* it may have gone since the caller looked */
		r->submitting++;
		raid_complete(r, outer, s->disk ? -ETIMEDOUT : -ENODEV);
		r->submitting--;
		return;
	}
	c = call_get(r);
	c->slot = s;
	c->outer = outer;
	c->start_ns = raid_leg_clock(r);
	c->epoch = s->epoch;
	c->flags = (uint8_t)flags;
	c->io.op = outer->op;
	c->io.flags = outer->flags & CALL_IO_FLAGS;
	c->io.off_bytes = outer->off_bytes;
	c->io.len_bytes = outer->len_bytes;
	call_set_payload(c, outer);
	if (unlikely(s->slow) && outer->op == IO_READ) {
		c->flags |= RAID_CALL_PROBE;
		s->probe_ns = c->start_ns + s->probe_wait_ns;
	}
	list_push_back(&s->legs, &c->link);
	if (unlikely(!timer_is_armed(&r->leg_timer)))
		timer_arm(&r->leg_timer, reactor_now_ns() + r->leg_tick_ns);
	bdev_submit(&s->disk->bdev, &c->io);
}

static void join_done(struct io *io)
{
	co_join_done(io->owner, io->result);
}

void raid_disk_submit_join(struct raid *r, unsigned disk, struct io *io, struct co_join *j, unsigned flags)
{
	io->done = join_done;
	io->owner = j;
	co_join_add(j);
	raid_disk_submit(r, disk, io, flags);
}

int raid_disk_co_submit(struct raid *r, unsigned disk, struct io *io, unsigned flags)
{
	struct co_join j;

	co_join_init(&j);
	raid_disk_submit_join(r, disk, io, &j, flags);
	(void)co_join_wait(&j);
	return io->result;
}

int raid_co_disk_read(struct raid *r, unsigned disk, uint64_t off_bytes, void *buf, uint64_t len_bytes)
{
	struct io io;

	if (!raid_slot_is_there(&r->disks[disk]))
		return -ENODEV;
	io_prep(&io, IO_READ, off_bytes, len_bytes, buf, 0);
	return raid_disk_co_submit(r, disk, &io, 0);
}

/* ---- the timer ---- */

static struct raid_call *first_call(const struct list *l)
{
	return list_is_empty(l) ? NULL : list_first(l, struct raid_call, link);
}

static bool is_older(const struct list *l, uint64_t now, uint64_t ns)
{
	const struct raid_call *c = first_call(l);

	return c && raid_call_age(c, now) >= ns;
}

/* Moves the reads that may be hedged and are older than ns. */
static void take_late(struct list *over, struct list *from, uint64_t now, uint64_t ns)
{
	struct raid_call *c, *next;

	list_for_each_safe(c, next, from, link) {
		if (raid_call_age(c, now) < ns)
			break;
		if (!(c->flags & RAID_LEG_HEDGE))
			continue;
		list_del(&c->link);
		list_push_back(over, &c->link);
	}
}

/* Ends all of the list for their submitters. suspects: the kernel is done with them. */
static void end_all(struct list *over, bool suspects)
{
	struct list *n;

	while ((n = list_pop_front(over))) {
		if (suspects)
			raid_call_finish(list_entry(n, struct raid_call, link), -ETIMEDOUT);
		else
			call_give_up(list_entry(n, struct raid_call, link));
	}
}

static uint64_t hedge_after(const struct raid *r, const struct raid_disk_slot *s)
{
	uint64_t usual = 0;

	for (unsigned i = 0; i < r->n_slots; i++) {
		const struct raid_disk_slot *o = &r->disks[i];

		if (o != s && o->latency_ns && !o->avoid && o->state == RAID_DISK_ONLINE)
			usual = usual ? MIN(usual, o->latency_ns) : o->latency_ns;
	}
	return MAX(r->conf.hedge_ns, MIN(USUAL_TIMES * usual, HEDGE_TIMES_MAX * r->conf.hedge_ns));
}

/* Nothing has come from the disk for too long. */
static void slot_go_silent(struct raid_disk_slot *s, uint64_t now)
{
	struct raid_call *c = first_call(&s->legs);
	struct list over, suspects;

	if (!is_older(&s->legs, now, s->raid->conf.timeout_ns))
		c = first_call(&s->given_up);
	s->silent = true;
	s->told = s->kept = false;
	slot_tell(s, c ? (enum io_op)c->io.op : IO_READ, -ETIMEDOUT);
	slot_update(s);
	list_init(&over);
	list_init(&suspects);
	list_splice_back(&over, &s->legs);
	list_splice_back(&suspects, &s->suspects);
	for (struct list *n = over.next; n != &over; n = n->next)
		s->raid->stats.timed_out++;
	end_all(&over, false);
	end_all(&suspects, true);
}

static void slot_hedge(struct raid_disk_slot *s, uint64_t now)
{
	uint64_t ns = hedge_after(s->raid, s);
	struct list over, suspects;
	struct raid_call *c;

	list_init(&over);
	list_init(&suspects);
	take_late(&over, &s->legs, now, ns);
	take_late(&suspects, &s->suspects, now, ns);
	list_for_each(c, &over, link) {
		s->raid->stats.hedged++;
		if (c->epoch == s->epoch)
			slot_count_late(s, c, now);
	}
	end_all(&over, false);
	end_all(&suspects, true);
}

/* True: there is something to look at again. */
static bool slot_tick(struct raid_disk_slot *s, uint64_t now)
{
	const struct raid_conf *c = &s->raid->conf;
	struct list orphans;

	if (list_is_empty(&s->legs) && list_is_empty(&s->suspects) && list_is_empty(&s->given_up))
		return false;
	/* of a disk that is no longer here: they say nothing about the one that is */
	list_init(&orphans);
	while (first_call(&s->legs) && first_call(&s->legs)->epoch != s->epoch && is_older(&s->legs, now, c->timeout_ns)) {
		list_push_back(&orphans, list_pop_front(&s->legs));
		s->raid->stats.timed_out++;
	}
	end_all(&orphans, false);
	if (is_older(&s->given_up, now, c->hedge_ns + LATE_WINDOW_NS))
		slot_set_slow(s, true, raid_call_age(first_call(&s->given_up), now));
	if (!s->silent && (is_older(&s->legs, now, c->timeout_ns) || is_older(&s->given_up, now, c->timeout_ns) ||
			   is_older(&s->suspects, now, c->timeout_ns)))
		slot_go_silent(s, now);
	else if (is_older(&s->legs, now, c->hedge_ns) || is_older(&s->suspects, now, c->hedge_ns))
		slot_hedge(s, now);
	return !list_is_empty(&s->legs) || !list_is_empty(&s->suspects) || (!s->silent && !list_is_empty(&s->given_up));
}

static void legs_tick(struct timer *t)
{
	struct raid *r = container_of(t, struct raid, leg_timer);
	uint64_t now = reactor_now_ns(), late = now - t->deadline_ns;
	bool more = false;

	if (late > r->leg_tick_ns)
		r->leg_skew_ns += late;
	now -= r->leg_skew_ns;
	for (unsigned i = 0; i < r->n_slots; i++)
		more |= slot_tick(&r->disks[i], now);
	if (more)
		timer_arm(t, reactor_now_ns() + r->leg_tick_ns);
}

/* ---- for raid.c ---- */

bool raid_disk_is_idle(const struct raid *r, unsigned index)
{
	const struct raid_disk_slot *s = &r->disks[index];

	return list_is_empty(&s->legs) && list_is_empty(&s->given_up) && list_is_empty(&s->orphans);
}

void raid_legs_disk_set(struct raid *r, unsigned disk)
{
	struct raid_disk_slot *s = &r->disks[disk];

	r->n_slots = MAX(r->n_slots, disk + 1);
	s->epoch++;
	list_splice_back(&s->orphans, &s->given_up);
	s->told = s->slow = false;
	/* a write that was given up must not come after the next one to the same place */
	s->silent = s->kept = s->n_late_writes && s->state != RAID_DISK_ABSENT;
	s->n_late = s->n_quick = 0;
	s->latency_ns = 0;
	slot_update(s);
}

void raid_set_limits(struct raid *r, uint64_t hedge_ns, uint64_t timeout_ns)
{
	r->conf.hedge_ns = hedge_ns ? hedge_ns : HEDGE_NS;
	r->conf.timeout_ns = timeout_ns ? timeout_ns : TIMEOUT_NS;
	r->leg_tick_ns = MAX(MIN(r->conf.hedge_ns / 4, TICK_NS_MAX), TICK_NS_MIN);
}

void raid_legs_init(struct raid *r)
{
	raid_set_limits(r, r->conf.hedge_ns, r->conf.timeout_ns);
	r->leg_timer.fire = legs_tick;
	list_init(&r->free_legs);
	co_queue_init(&r->asked);
	for (unsigned i = 0; i < RAID_DISKS_MAX; i++) {
		struct raid_disk_slot *s = &r->disks[i];

		s->raid = r;
		list_init(&s->legs);
		list_init(&s->given_up);
		list_init(&s->orphans);
		list_init(&s->suspects);
	}
}

/* What the kernel still has goes by itself when it answers. */
static void calls_detach(struct list *l)
{
	struct list *n;

	while ((n = list_pop_front(l)))
		list_entry(n, struct raid_call, link)->raid = NULL;
}

void raid_legs_fini(struct raid *r)
{
	struct list *n;

	CHECK(!r->n_asking);
	timer_cancel(&r->leg_timer);
	for (unsigned i = 0; i < RAID_DISKS_MAX; i++) {
		CHECK(list_is_empty(&r->disks[i].legs) && list_is_empty(&r->disks[i].suspects));
		calls_detach(&r->disks[i].given_up);
		calls_detach(&r->disks[i].orphans);
	}
	while ((n = list_pop_front(&r->free_legs)))
		xfree(list_entry(n, struct raid_call, link));
}
