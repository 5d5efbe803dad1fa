/*
 * Requests of homed groups that arrive elsewhere: by message to the home's instance, and the answer by message back.
 *
 * They do not count as in flight here: a freeze goes over the reactors one by one and waits for what is in flight, and the home
 * may be frozen already. They are counted apart, for the moment when the group ceases to be homed (raid_co_group_replace()).
 */
#include "raid/raid_impl.h"

struct forward {
	struct msg msg;
	struct io io;
	struct raid_req *q;
	struct raid_group *g;
	struct raid *home;
};

void raid_group_forward_done(struct raid_group *g)
{
	CHECK(g->n_forwarded > 0);
	if (--g->n_forwarded == 0 && !co_queue_is_empty(&g->drained))
		co_queue_wake_all(&g->drained);
}

static void forward_back(struct msg *m)
{
	struct forward *f = container_of(m, struct forward, msg);
	struct raid_req *q = f->q;
	int result = f->io.result;

	raid_group_forward_done(f->g);
	xfree(f);
	raid_req_end(q, result);
}

static void forward_done(struct io *io)
{
	struct forward *f = io->owner;

	f->msg.run = forward_back;
	reactor_post(f->q->raid->reactor, &f->msg);
}

static void forward_arrived(struct msg *m)
{
	struct forward *f = container_of(m, struct forward, msg);

	bdev_submit(&f->home->bdev, &f->io);
}

int raid_forward(struct raid_req *q, struct raid_group *g)
{
	struct forward *f = xmalloc(sizeof(*f));
	const struct io *parent = q->parent;
	struct raid *r = q->raid;

	f->q = q;
	f->g = g;
	f->home = r->peers[raid_home(r, q->group)];
	f->io = (struct io){ .op = parent->op, .copy = parent->copy, .flags = parent->flags, .iov_n = parent->iov_n,
			     .off_bytes = parent->off_bytes, .len_bytes = parent->len_bytes, .iov = parent->iov,
			     .done = forward_done, .owner = f };
	f->msg.run = forward_arrived;
	g->n_forwarded++;
	r->stats.forwarded++;
	reactor_post(f->home->reactor, &f->msg);
	return RAID_FORWARDED;
}
