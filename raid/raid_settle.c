/*
 * raid_settle.c: writes and flushes that a disk has missed which is being put out.
 *
 * From the moment in which an instance leaves a disk out to the moment in which the pool's labels say so, a crash brings the disk back as
 * a current one. What it has missed would then be copied from it over the others. So what is good without it ends when the labels are
 * written: the pool is asked once for all that have come until then. And what is done differently because a disk is out (stripe_part.c)
 * begins only then.
 */
#include "engine/base/mutant.h"
#include "raid/raid_impl.h"

void raid_set_unsettled(struct raid *r, bool unsettled)
{
	r->unsettled = unsettled && !MUTANT(OUT_NOT_AWAITED);
}

int raid_co_settle(struct raid *r)
{
	return r->unsettled ? r->conf.hooks->co_settle(r->conf.ctx) : 0;
}

static void settle_co_main(void *arg)
{
	struct raid *r = arg;
	struct list over, *n;
	int result;

	while (!list_is_empty(&r->held)) {
		list_init(&over);
		list_splice_back(&over, &r->held);
		result = raid_co_settle(r);
		while ((n = list_pop_front(&over)))
			raid_complete(r, list_entry(n, struct io, link), result);
	}
	r->is_settling = false;
	if (--r->n_asking == 0)
		co_queue_wake_all(&r->asked);
}

void raid_hold_write(struct raid *r, struct io *io)
{
	list_push_back(&r->held, &io->link);
	if (r->is_settling)
		return;
	r->is_settling = true;
	r->n_asking++;
	co_spawn(CO_SERVICE, settle_co_main, r, "raid settle");
}
