/*
 * park.c: writes that wait for space. They hold nothing: no coroutine, no lock, no place in a grace period. Home says when
 * there may be space again; since giving back what a try could not use may be the very reason for such a word, they try at
 * most every THIN_RETRY_NS. Each fails full_wait after it was held first.
 */
#include "thin/volume_internal.h"

static uint64_t park_deadline(const struct thin_volume *v, struct io *io)
{
	uint64_t since = thin_req_of(io)->parked_ns;

	return v->full_wait_ns > UINT64_MAX - since ? UINT64_MAX : since + v->full_wait_ns;
}

static void park_flag(struct thin_volume *v)
{
	atomic_store_explicit(&v->full_waiting, !list_is_empty(&v->parked), memory_order_relaxed);
}

static void park_end(struct list *ios, int error)
{
	struct list *n;

	while ((n = list_pop_front(ios)))
		thin_req_end(list_entry(n, struct io, link), error);
}

static void park_retry(struct thin_volume *v)
{
	struct list *n;

	if (v->gate)
		return; /* the thaw comes by */
	v->retry_wanted = false;
	v->retry_at_ns = reactor_now_ns() + THIN_RETRY_NS;
	while ((n = list_pop_front(&v->parked))) {
		struct io *io = list_entry(n, struct io, link);

		if (list_is_empty(&v->compares) || !thin_compare_holds(v, io))
			thin_req_spawn(io);
	}
}

void thin_park_check(struct thin_volume *v)
{
	uint64_t now = reactor_now_ns(), next = UINT64_MAX;
	struct io *io, *tmp;
	struct list over;

	list_init(&over);
	list_for_each_safe (io, tmp, &v->parked, link) {
		if (park_deadline(v, io) <= now) {
			list_del(&io->link);
			list_push_back(&over, &io->link);
		} else {
			next = MIN(next, park_deadline(v, io));
		}
	}
	if (v->retry_wanted && !list_is_empty(&v->parked)) {
		if (v->retry_at_ns <= now)
			park_retry(v);
		else
			next = MIN(next, v->retry_at_ns);
	}
	if (list_is_empty(&v->parked) || next == UINT64_MAX)
		timer_cancel(&v->park_timer);
	else
		timer_arm(&v->park_timer, next);
	park_flag(v);
	park_end(&over, -ERR_POOL_FULL);
}

void thin_park_timer_fired(struct timer *t)
{
	thin_park_check(container_of(t, struct thin_volume, park_timer));
}

bool thin_park(struct thin_volume *v, struct io *io, uint64_t gen)
{
	struct thin_req *q = thin_req_of(io);

	if (unlikely(v->no_parking)) {
		thin_req_end(io, -ECANCELED);
		return true;
	}
	if (v->closing || !v->full_wait_ns)
		return false;
	if (!q->parked_ns) {
		q->parked_ns = MAX(reactor_now_ns(), 1);
		thin_count(&v->n_parked, 1);
		thin_reactor_return_leases(v->tr);
	}
	thin_req_unchanging(q);
	list_push_back(&v->parked, &io->link);
	thin_share_end(v, io);
	if (gen != v->tr->space_gen)
		v->retry_wanted = true; /* the word came while it was asking */
	thin_park_check(v); /* may fail it at once */
	return true;
}

void thin_park_space_changed(struct thin_volume *v)
{
	if (list_is_empty(&v->parked))
		return;
	v->retry_wanted = true;
	thin_park_check(v);
}

void thin_park_hold(struct thin_volume *v, bool strays)
{
	struct io *io, *tmp;

	list_for_each_safe (io, tmp, &v->parked, link) {
		if (thin_req_of(io)->inner && !strays)
			continue;
		list_del(&io->link);
		list_push_back(&v->held, &io->link);
	}
	if (strays)
		list_for_each (io, &v->held, link)
			thin_req_of(io)->stray = thin_req_of(io)->inner;
	thin_park_check(v);
}

unsigned thin_pick(struct list *from, struct list *to, bool (*match)(const struct io *io, void *arg), void *arg)
{
	struct io *io, *tmp;
	unsigned n = 0;

	list_for_each_safe(io, tmp, from, link) {
		if (!match(io, arg))
			continue;
		list_del(&io->link);
		list_push_back(to, &io->link);
		n++;
	}
	return n;
}

/* One that is trying again just now is missed: who cancels asks again. */
void thin_volume_cancel(struct bdev *b, bool (*match)(const struct io *io, void *arg), void *arg)
{
	struct thin_volume *v = container_of(b, struct thin_volume, bdev);
	struct list over;

	list_init(&over);
	if (!list_is_empty(&v->parked)) {
		thin_pick(&v->parked, &over, match, arg);
		thin_park_check(v);
	}
	thin_limit_pick(v, &over, match, arg);
	park_end(&over, -ECANCELED);
}

void thin_park_fail_all(struct thin_volume *v, int error)
{
	struct list over;

	list_init(&over);
	list_splice_back(&over, &v->parked);
	v->retry_wanted = false;
	timer_cancel(&v->park_timer);
	park_flag(v);
	park_end(&over, error);
}
