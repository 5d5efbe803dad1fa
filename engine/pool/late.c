/*
 * late.c: the pool's own requests to disks that may never answer: labels written and read.
 *
 * The RAID layer gives up what takes too long by itself (raid_leg.c). Labels go to the disks directly, so here is the same for
 * them: each request is a coroutine with memory of its own, the asker waits for it with a limit and goes on without it. While
 * one is under way the disk's handle is neither closed nor used for another label (n_own): a late label must not overtake a
 * newer one.
 *
 * A pool may be closed while one is still with the kernel: it then forgets the pool, and the handle is left open.
 */
#include <string.h>

#include "engine/io/buf.h"
#include "engine/pool/life.h"

struct own_round {
	unsigned refs, pending;
	struct co_queue ended;
};

struct own_op {
	struct list link; /* life->own_ops */
	struct ashlar_pool *p; /* NULL: it has been closed */
	struct own_round *round;
	struct disk *handle;
	unsigned disk;
	bool is_read, is_wipe, is_over, is_waited;
	bool closes; /* the handle is nobody else's */
	uint64_t off_bytes, start_ns;
	uint8_t *buf;
	struct label *label; /* to be read; then the first page of its slot, to buf */
	unsigned damaged;
	bool end_is_blank;
	struct err e;
	int result;
};

static void round_put(struct own_round *rd)
{
	if (--rd->refs == 0)
		xfree(rd);
}

static struct own_round *round_new(void)
{
	struct own_round *rd = xcalloc(1, sizeof(*rd));

	rd->refs = 1;
	co_queue_init(&rd->ended);
	return rd;
}

static void op_free(struct own_op *o)
{
	list_del(&o->link);
	if (o->closes)
		disk_close(o->handle);
	xfree(o->label);
	buf_free(o->buf, LABEL_READ_BYTES);
	round_put(o->round);
	xfree(o);
}

static int load_co_run(struct own_op *o)
{
	int r = label_co_read(o->handle, o->label, &o->damaged, &o->e);

	if (r < 0)
		return r;
	o->off_bytes = o->label->generation % LABEL_SLOTS * LABEL_SLOT_BYTES;
	if (bdev_co_read(&o->handle->bdev, o->off_bytes, o->buf, LABEL_READ_BYTES) < 0)
		memset(o->buf, 0, LABEL_READ_BYTES);
	o->end_is_blank = label_co_end_is_blank(o->handle, o->label);
	return 0;
}

static void op_co_run(void *arg)
{
	struct own_op *o = arg;

	if (o->is_wipe)
		o->result = label_co_wipe(o->handle);
	else if (o->label)
		o->result = load_co_run(o);
	else if (o->is_read)
		o->result = bdev_co_read(&o->handle->bdev, o->off_bytes, o->buf, LABEL_READ_BYTES);
	else if (o->p) /* it is encoded at once */
		o->result = label_co_write(o->handle, o->p->label, o->disk, NULL);
	o->is_over = true;
	if (o->p)
		o->p->disks[o->disk].n_own--;
	o->round->pending--;
	co_queue_wake_all(&o->round->ended);
	if (!o->is_waited)
		op_free(o);
}

static struct own_op *op_start(struct own_round *rd, struct ashlar_pool *p, unsigned disk, bool is_read, uint64_t off_bytes)
{
	struct own_op *o = xcalloc(1, sizeof(*o));

	o->p = p;
	o->round = rd;
	o->handle = p->disks[disk].disk;
	o->disk = disk;
	o->is_read = is_read;
	o->off_bytes = off_bytes;
	o->start_ns = reactor_now_ns();
	if (is_read)
		o->buf = buf_alloc(LABEL_READ_BYTES);
	rd->refs++;
	rd->pending++;
	p->disks[disk].n_own++;
	list_push_back(&p->life->own_ops, &o->link);
	o->is_waited = true;
	co_spawn(CO_SERVICE, op_co_run, o, is_read ? "label read" : "label write");
	return o;
}

/* The asker is done with it. */
static int op_leave(struct own_op *o)
{
	int r = o->is_over ? o->result : -ETIMEDOUT;

	o->is_waited = false;
	if (o->is_over)
		op_free(o);
	return r;
}

static void round_co_wait(struct own_round *rd, uint64_t deadline_ns)
{
	int r = 0;

	while (rd->pending && r == 0)
		r = co_queue_wait_until(&rd->ended, deadline_ns);
}

int pool_co_labels_send(struct ashlar_pool *p, int *results)
{
	struct own_op **ops = xcalloc(LABEL_DISKS_MAX, sizeof(struct own_op *));
	struct own_round *rd = round_new(), *idle = round_new();
	unsigned i;

	pool_co_labels_guard(p);
	if (!p->has_stranger)
		p->sent_generation = p->label->generation;
	for (i = 0; i < p->n_disks && !p->has_stranger; i++) {
		const struct pdisk *d = &p->disks[i];

		results[i] = -ENODEV;
		if (!d->disk || d->lost[0] || (d->n_own && d->state == PDISK_FAILED))
			continue; /* it gets the next one */
		ops[i] = op_start(d->state == PDISK_FAILED ? idle : rd, p, i, false, 0); /* of those nobody waits for */
	}
	round_co_wait(rd, reactor_now_ns() + p->settings.timeout_ns);
	for (i = 0; i < p->n_disks; i++)
		if (ops[i])
			results[i] = op_leave(ops[i]);
	round_put(rd);
	round_put(idle);
	xfree(ops);
	return p->has_stranger ? -ERR_LOCKED : 0;
}

int pool_co_label_send_one(struct ashlar_pool *p, unsigned disk)
{
	struct own_round *rd;
	struct own_op *o;
	int r;

	if (p->has_stranger)
		return -ERR_LOCKED;
	p->sent_generation = p->label->generation; /* it is ours, whoever finds it */
	rd = round_new();
	o = op_start(rd, p, disk, false, 0);
	round_co_wait(rd, reactor_now_ns() + p->settings.timeout_ns);
	r = op_leave(o);
	round_put(rd);
	return r;
}

int pool_co_label_peek(struct ashlar_pool *p, unsigned disk, uint64_t off_bytes, void *buf, uint64_t max_ns)
{
	struct own_round *rd = round_new();
	struct own_op *o = op_start(rd, p, disk, true, off_bytes);
	int r;

	round_co_wait(rd, reactor_now_ns() + max_ns);
	if (o->is_over && o->result == 0)
		memcpy(buf, o->buf, LABEL_READ_BYTES);
	r = op_leave(o);
	round_put(rd);
	return r;
}

int pool_co_label_load(struct ashlar_pool *p, unsigned disk, struct label_load *l, struct err *e)
{
	struct own_round *rd = round_new();
	struct own_op *o = op_start(rd, p, disk, true, 0);
	int r;

	o->handle = l->handle;
	o->label = xmalloc(sizeof(*o->label));
	round_co_wait(rd, reactor_now_ns() + p->settings.timeout_ns);
	if (o->is_over) {
		l->label = *o->label;
		l->damaged = o->damaged;
		l->end_is_blank = o->end_is_blank;
		memcpy(l->front, o->buf, LABEL_READ_BYTES);
		if (e && o->result < 0)
			*e = o->e;
	} else {
		err_set(e, -ETIMEDOUT, "disk %s does not answer", l->handle->path);
		o->closes = l->is_taken = l->handle != p->disks[disk].disk;
	}
	r = op_leave(o);
	round_put(rd);
	return r;
}

int pool_co_disk_wipe(struct ashlar_pool *p, unsigned disk, struct disk *handle)
{
	struct own_round *rd = round_new();
	struct own_op *o = op_start(rd, p, disk, false, 0);
	int r;

	o->handle = handle;
	o->is_wipe = o->closes = true;
	round_co_wait(rd, reactor_now_ns() + p->settings.timeout_ns);
	r = op_leave(o);
	round_put(rd);
	return r;
}

/* ---- is anything of a disk under way? ---- */

uint64_t pool_own_late_ns(const struct ashlar_pool *p, unsigned disk)
{
	const struct own_op *o;

	list_for_each (o, &p->life->own_ops, link) /* oldest first */
		if (o->disk == disk && !o->is_over)
			return MAX(reactor_now_ns() - o->start_ns, 1);
	return 0;
}

struct idle_call {
	struct ashlar_pool *p;
	unsigned disk;
	bool busy;
};

static int idle_here(void *arg)
{
	struct idle_call *c = arg;
	struct raid *raid = pool_here(c->p)->raid;

	c->busy |= raid && !raid_disk_is_idle(raid, c->disk);
	return 0;
}

bool pool_co_disk_is_idle(struct ashlar_pool *p, unsigned disk)
{
	struct idle_call c = { p, disk, p->disks[disk].n_own != 0 };

	pool_co_each_reactor(p, idle_here, &c);
	return !c.busy;
}

void pool_co_disks_settle(struct ashlar_pool *p)
{
	uint64_t end = reactor_now_ns() + p->settings.timeout_ns;
	struct own_op *o;
	unsigned i;

	for (i = 0; i < p->n_disks; i++) {
		struct pdisk *d = &p->disks[i];
		bool idle;

		xfree(d->last_path);
		d->last_path = NULL;
		if (!d->disk && !d->dead)
			continue;
		while (!(idle = pool_co_disk_is_idle(p, i)) && reactor_now_ns() < end)
			co_sleep_ns(NS_PER_MS);
		if (idle && d->dead)
			disk_close(d->dead);
		if (!idle)
			p->as->disks[i].disk = NULL; /* never closed */
		d->dead = NULL;
	}
	list_for_each (o, &p->life->own_ops, link)
		o->p = NULL;
	while (!list_is_empty(&p->life->own_ops))
		list_del(p->life->own_ops.next);
}
