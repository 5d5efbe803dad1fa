/*
 * sim_client.c: clients: attach to a volume, do random requests on its home reactor, detach, and again.
 */
#include <stdio.h>
#include <string.h>

#include "engine/io/buf.h"
#include "tests/sim/sim_run.h"

struct session {
	struct sim_run *s;
	struct model_vol *v;
	struct ashlar_attach *at;
	struct bdev *b; /* another one once the volume is in another pool */
	struct rng rng;
	unsigned n_requests;
	uint64_t next; /* of sequential requests */
	bool sequential, hot, gone;
	bool echo; /* reads what it has written, at once */
	bool slow;
};

static void session_gone(void *arg)
{
	((struct session *)arg)->gone = true;
}

/* Now and then not yet. */
static bool session_moved(void *arg, struct bdev *now)
{
	struct session *c = arg;

	if (c->s->rig.n_comparing || rng_chance(&c->rng, 1, 3))
		return false;
	c->b = now;
	return true;
}

static const struct ashlar_attach_ops session_ops = { .gone = session_gone, .moved = session_moved };
static const struct ashlar_attach_ops stubborn_ops = { .gone = session_gone }; /* the old data path passes on what comes */

static enum rig_op pick_op(struct session *c)
{
	struct sim_run *s = c->s;
	unsigned total = s->w_read + s->w_write + s->w_flush + s->w_zero + s->w_discard;
	unsigned k = (unsigned)rng_below(&c->rng, total);

	if (k < s->w_read || c->v->is_snap)
		return RIG_READ;
	k -= s->w_read;
	if (k < s->w_write)
		return RIG_WRITE;
	k -= s->w_write;
	if (k < s->w_flush)
		return RIG_FLUSH;
	return k - s->w_flush < s->w_zero ? RIG_ZERO : RIG_DISCARD;
}

/* Whole blocks inside of [0, size). */
static void pick_range(struct session *c, uint64_t size, uint64_t block, enum rig_op op, uint64_t *off, uint64_t *len)
{
	static const uint64_t top[] = { 4096, 16384, 65536, RIG_IO_MAX };
	uint64_t max = top[rng_below(&c->rng, 4)], span = c->hot ? MAX(size / 16, block) : size;

	if (rng_chance(&c->rng, 1, 3))
		max = block;
	if (op >= RIG_ZERO && rng_chance(&c->rng, 1, 8))
		max = size;
	if (op == RIG_WRITE && rng_chance(&c->rng, 1, 30))
		max = MIB;
	*len = block * (1 + rng_below(&c->rng, MAX(max / block, 1)));
	*off = c->sequential ? c->next : rng_below(&c->rng, span);
	if (c->s->sparse) {
		*len = MIN(*len, 65536ULL);
		*off = size / 16 * rng_below(&c->rng, 16) + rng_below(&c->rng, MIN(size, 32768ULL));
	}
	if (op >= RIG_ZERO && rng_chance(&c->rng, 1, 2))
		*off = ALIGN_DOWN(*off, (uint64_t)4096);
	*off = ALIGN_DOWN(MIN(*off, size - block), block);
	*len = MIN(*len, size - *off);
	c->next = (*off + *len) % size;
}

/* What is in a snapshot stays; if it let this in, the next look would tell too. */
static void co_try_to_change(struct session *c, struct bdev *b)
{
	uint8_t *buf = buf_alloc(b->block_bytes);
	int r;

	memset(buf, 0xee, b->block_bytes);
	r = bdev_co_write(b, 0, buf, b->block_bytes, 0);
	if (r >= 0 || bdev_co_discard(b, 0, b->size_bytes, 0) >= 0)
		rig_fail(&c->s->rig, "snapshot %s takes writes", c->v->name);
	buf_free(buf, b->block_bytes);
}

/* Coroutine on the volume's home. */
static int session_co_there(void *arg)
{
	struct session *c = arg;
	struct sim_run *s = c->s;
	uint64_t off = 0, len = 0, size;

	if (c->v->is_snap)
		co_try_to_change(c, c->b);
	while (c->n_requests-- > 0 && !c->gone && !run_is_over(s)) {
		enum rig_op op = pick_op(c);
		struct bdev *b = c->b;
		unsigned flags = 0;

		/* who still has the bdev of the pool that the volume came from does not see that it has become smaller */
		size = s->pools ? MIN(b->size_bytes, c->v->size_bytes) : b->size_bytes;
		if (op == RIG_FLUSH)
			off = len = 0;
		else
			pick_range(c, size, b->block_bytes, op, &off, &len);
		if (op != RIG_READ && op != RIG_FLUSH && s->fua_of && rng_chance(&c->rng, 1, s->fua_of))
			flags |= IO_FUA;
		if (op == RIG_ZERO && rng_chance(&c->rng, 1, 3))
			flags |= IO_NO_HOLE;
		rig_co_io(&s->rig, c->v, b, op, off, len, flags);
		size = s->pools ? MIN(c->b->size_bytes, c->v->size_bytes) : c->b->size_bytes;
		if (c->echo && op != RIG_READ && len && off + len <= size && !c->gone)
			rig_co_io(&s->rig, c->v, c->b, RIG_READ, off, len, 0);
		if (c->slow)
			run_co_sleep(s, rng_below(&c->rng, rng_chance(&c->rng, 1, s->slow_of) ? s->life_ns / 4 : s->life_ns / 128));
	}
	return 0;
}

/* One that is being adopted will not be for long. */
static struct model_vol *pick_volume(struct sim_run *s, struct rng *rng)
{
	struct model_vol *v, *best = NULL;
	unsigned i, n = 0;

	for (i = 0; s->adopt && rng_chance(rng, 3, 4) && i < model_n_vols(s->rig.model); i++) {
		v = model_vol(s->rig.model, i);
		if (v->state == MODEL_LIVE && !v->new_name[0] && rig_is_adopted(&s->rig, v))
			return v;
	}

	for (i = 0; i < model_n_vols(s->rig.model); i++) {
		v = model_vol(s->rig.model, i);
		if (v->state == MODEL_LIVE && !v->new_name[0] && rng_below(rng, ++n) == 0)
			best = v;
	}
	return best;
}

static void client_co_session(struct sim_run *s, struct rng *rng)
{
	struct session c = { .s = s, .v = pick_volume(s, rng) };
	char name[RIG_EXPORT_NAME], now[RIG_EXPORT_NAME];
	struct err e = { 0 };
	int r;

	if (s->family && rng_chance(rng, 1, 6))
		c.v = family_any_snap(s, rng);
	if (!c.v) {
		run_co_sleep(s, NS_PER_MS);
		return;
	}
	rng_init(&c.rng, rng_next(rng));
	c.n_requests = 1 + (unsigned)rng_below(rng, s->adopt ? 40 : 400);
	c.sequential = rng_chance(rng, 1, 3);
	c.hot = rng_chance(rng, 1, 3);
	c.echo = rng_chance(rng, 1, 3);
	c.slow = s->life_ns > 300 * NS_PER_MS || rng_chance(rng, 1, 3); /* or there were too many */
	c.next = rng_below(rng, c.v->size_bytes);
	r = ashlar_co_attach(s->rig.a, rig_export_name(&s->rig, c.v, name), s->pools && rng_chance(rng, 1, 4) ? &stubborn_ops : &session_ops,
			     &c, &c.at, &e);
	if (r < 0) {
		/* it may have been renamed or deleted while we asked */
		if (r != -ENOENT || (rig_is_free(&s->rig, c.v) && !strcmp(name, rig_export_name(&s->rig, c.v, now))))
			if (!s->rig.may_fail)
				rig_fail(&s->rig, "attach %s: %s (%d)", name, e.text, r);
		run_co_sleep(s, NS_PER_MS);
		return;
	}
	c.b = ashlar_attach_bdev(c.at);
	r = reactor_co_call(ashlar_attach_home(c.at), session_co_there, &c);
	ashlar_co_detach(c.at);
}

void client_co_main(void *arg)
{
	struct sim_run *s = arg;
	struct rng rng;

	rng_init(&rng, rng_next(&s->rng));
	while (!run_is_over(s)) {
		if (s->family && rng_chance(&rng, 1, 3))
			family_co_in_turn(s, &rng);
		client_co_session(s, &rng);
	}
	s->n_running--;
}
