/*
 * crash_ops.c: what is going on when the power goes.
 */
#include "tests/crash/crash_run.h"

#include <stdio.h>

#include "engine/pool/label_format.h"

enum op {
	OP_WRITE_NEW,
	OP_OVERWRITE,
	OP_WRITE_SMALL, /* less than a subcluster, to a new cluster */
	OP_WRITE_ACROSS,
	OP_FUA_NEW,
	OP_FUA_OVER,
	OP_FLUSH,
	OP_DISCARD,
	OP_DISCARD_WRITE, /* the same place again, by way of another cluster */
	OP_ZERO,
	OP_WRITE_LARGE, /* one record of many entries, at once durable */
	OP_CREATE,
	OP_DELETE,
	OP_SHRINK,
	OP_GROW,
	OP_RENAME,
	OP_ACCESS, /* who may see its export */
	OP_LIMITS,
	OP_TIME, /* a checkpoint, idle regions are cleaned */
	OP_NEW_GROUP,
	OP_LOSE_DISK, /* and writes without it */
	OP_RECYCLE,   /* delete, create, write: clusters change hands */
	OP_CHURN,     /* several clients, slow disks: the journal is always nearly full */
	OP_LAPS,      /* one client: the journal goes round with records of one shape */
	OP_RETURN,    /* a disk vanishes, misses writes, and comes back */
	OP_REBUILD,   /* a disk is failed: what it holds is rebuilt elsewhere, if there is room */
	OP_LATE_LABELS, /* the journal fills up while a checkpoint is being published */
	OP_LEAVES,    /* several clients, more map leaves than the cache holds */
	OP_SNAPS,     /* taken and deleted, in whatever order */
	OP_CLONES,    /* and clones of clones, and what they came from deleted */
	OP_ROLLBACKS,
	OP_MOVES,     /* to another layout and back, in use */
	OP_PASSES,    /* to another pool and back, in use */
	OP_TRANSFERS, /* sent and received, cut and resumed */
	OP_SHARE,     /* ranges are copied by sharing clusters, and written to */
	OP_NOTES,     /* what frontends keep with a volume */
	OP_ADD,	      /* a disk joins, and is written */
	OP_EVACUATE,  /* one leaves, with writes meanwhile */
	OP_REMOVE,
	OP_REPLACE,
	OP_REBALANCE, /* after another has joined */
	OP_NARROW,    /* one is removed that all groups with parity have a column on, with writes meanwhile */
	OP_ADOPT,     /* a volume begins as another disk's contents, and is used while they come over */
	/* where there is parity */
	OP_PIECES,	 /* small writes to one stripe, all at once */
	OP_STRIPE_NEW,	 /* as large as whole stripes */
	OP_STRIPE_OVER,
	OP_STRIPE_AGAIN, /* partly overwritten, discarded, and written as a whole: the same stripes change hands */
	OP_STRIPE_SEQ,	 /* in small pieces, one after the other, to be put together */
	OP_STRIPE_WHOLE, /* everything logged, everything discarded, and whole stripes in the same places */
	OP_N,
};

static const char *const names[OP_N] = {
	"write-new", "overwrite",     "write-small", "write-across", "fua-new", "fua-overwrite", "flush",   "discard",
	"discard-write", "zero",      "write-large", "create",	     "delete",	"shrink",	 "grow",    "rename", "access", "limits",
	"time",	     "new-group",     "lose-disk",   "recycle",	     "churn", "laps",	"return",	 "rebuild",
	"late-labels", "leaves",      "snapshots",   "clones",	     "rollbacks", "moves", "passes", "transfers", "share", "notes",
	"add", "evacuate", "remove", "replace", "rebalance", "narrow", "adopt",
	"pieces",	     "stripe-new",   "stripe-over", "stripe-again",  "stripe-seq", "stripe-whole",
};

/* First what finds most in a few thousand states. */
static const enum op mixed_alone[] = {
	OP_CHURN,   OP_LAPS, OP_WRITE_LARGE, OP_LEAVES, OP_LATE_LABELS, OP_REBUILD, OP_SNAPS, OP_CLONES, OP_ROLLBACKS, OP_MOVES, OP_PASSES, OP_TRANSFERS,
	OP_SHARE, OP_NOTES, OP_ADOPT, OP_WRITE_NEW, OP_OVERWRITE, OP_WRITE_SMALL,
	OP_WRITE_ACROSS, OP_FUA_NEW, OP_FUA_OVER, OP_FLUSH, OP_DISCARD, OP_DISCARD_WRITE, OP_ZERO, OP_CREATE, OP_DELETE,
	OP_SHRINK,  OP_GROW, OP_RENAME, OP_TIME, OP_NEW_GROUP, OP_LOSE_DISK, OP_RECYCLE, OP_RETURN, OP_ACCESS, OP_LIMITS,
	OP_REMOVE,  OP_REPLACE, OP_EVACUATE, OP_ADD, OP_REBALANCE, OP_NARROW,
};
static const enum op parity_alone[] = {
	OP_PIECES,     OP_STRIPE_WHOLE, OP_NARROW, OP_SNAPS,      OP_OVERWRITE,	OP_ROLLBACKS,	  OP_CLONES,  OP_MOVES, OP_PASSES, OP_TRANSFERS, OP_SHARE, OP_ADOPT,
	OP_STRIPE_AGAIN, OP_STRIPE_OVER,	  OP_WRITE_SMALL, OP_FUA_OVER, OP_REBUILD, OP_RETURN,
	OP_STRIPE_NEW, OP_LOSE_DISK,	OP_STRIPE_SEQ, OP_WRITE_NEW,	OP_DISCARD_WRITE, OP_NEW_GROUP,	  OP_TIME,     OP_RECYCLE,
	OP_REPLACE,    OP_REMOVE,	OP_EVACUATE,   OP_REBALANCE,
};

unsigned ops_n_alone(const struct crash_run *c)
{
	return c->parity ? ARRAY_LEN(parity_alone) : ARRAY_LEN(mixed_alone);
}

unsigned ops_alone(const struct crash_run *c, unsigned i)
{
	return c->parity ? parity_alone[i] : mixed_alone[i];
}

static bool takes_its_time(unsigned op)
{
	return op == OP_CHURN || op == OP_LAPS || op == OP_LATE_LABELS || op == OP_LEAVES;
}

unsigned ops_random(struct crash_run *c)
{
	unsigned op;

	if (c->parity)
		return parity_alone[rng_below(&c->rng, ARRAY_LEN(parity_alone))];
	do {
		op = (unsigned)rng_below(&c->rng, rng_chance(&c->rng, 1, 2) ? OP_CREATE : OP_PIECES);
	} while (takes_its_time(op) && !rng_chance(&c->rng, 1, 8));
	return op;
}

bool ops_moves_disks(unsigned op)
{
	return op >= OP_ADD && op <= OP_NARROW;
}

bool ops_wants_other(unsigned op)
{
	return op == OP_PASSES;
}

unsigned ops_large(void)
{
	return OP_WRITE_LARGE;
}

uint64_t ops_cache_bytes(unsigned op)
{
	return op == OP_LEAVES ? 64 * KIB : MIB;
}

const char *ops_name(unsigned op)
{
	return names[op];
}

struct model_vol *ops_vol(struct rig *g, unsigned k)
{
	struct model_vol *v;
	unsigned i;

	for (i = 0; i < model_n_vols(g->model); i++) {
		v = model_vol(g->model, i);
		if (v->state == MODEL_LIVE && k-- == 0)
			return v;
	}
	return NULL;
}

int ops_co_wr(struct rig *g, struct model_vol *v, enum rig_op op, uint64_t off, uint64_t len, unsigned flags)
{
	if (!v || v->state != MODEL_LIVE || off >= v->size_bytes)
		return 0;
	return rig_co_io_once(g, v, op, off, MIN(len, v->size_bytes - off), flags);
}

/* Volumes begin with the first half written. */
static uint64_t new_place(struct crash_run *c, struct model_vol *v)
{
	uint64_t cl = c->rig.cluster_bytes, half = v ? ALIGN_UP(v->size_bytes / 2, cl) : 0;

	return half + cl * rng_below(&c->rng, 4);
}

/* ---- several clients ---- */

struct client {
	struct crash_run *c;
	struct rng rng;
	unsigned k, *left;
};

static void clients_co_run(struct crash_run *c, unsigned n, void (*fn)(void *arg))
{
	struct client *v = xcalloc(n, sizeof(*v));
	unsigned i, left = n;

	for (i = 0; i < n; i++) {
		v[i].c = c;
		v[i].k = i;
		v[i].left = &left;
		rng_init(&v[i].rng, rng_next(&c->rng));
		co_spawn(CO_SERVICE, fn, &v[i], "client");
	}
	while (left)
		co_sleep_ns(NS_PER_MS / 8);
	xfree(v);
}

/* ---- data ---- */

static int co_new_group(struct crash_run *c)
{
	struct rig *g = &c->rig;
	uint64_t off;
	int r;

	r = rig_co_vol_create(g, "big", 2 * MIB, NULL, 0);
	for (off = 0; off < 5 * MIB / 4 && r == 0; off += 128 * KIB)
		r = ops_co_wr(g, model_vol_find(g->model, "big"), RIG_WRITE, off, 128 * KIB, 0);
	return r;
}

/* In a volume of its own. */
int ops_co_write_large(struct crash_run *c)
{
	struct rig *g = &c->rig;
	struct model_vol *v = model_vol_find(g->model, "large");
	int r = 0;

	if (!v)
		r = rig_co_vol_create(g, "large", 512 * KIB, NULL, 0);
	v = model_vol_find(g->model, "large");
	if (r < 0 || !v || v->state != MODEL_LIVE)
		return r;
	r = ops_co_wr(g, v, RIG_WRITE, 0, 512 * KIB, IO_FUA);
	return r < 0 ? r : ops_co_wr(g, v, RIG_DISCARD, 0, 512 * KIB, IO_FUA);
}

static int co_recycle(struct crash_run *c)
{
	struct rig *g = &c->rig;
	struct model_vol *v = ops_vol(g, 1);
	int r = v ? rig_co_vol_delete(g, v) : 0;

	if (r == 0)
		r = rig_co_vol_create(g, "next", 128 * KIB, NULL, 0);
	co_sleep_ns(rng_below(&c->rng, 3 * NS_PER_MS));
	if (r == 0)
		r = ops_co_wr(g, model_vol_find(g->model, "next"), RIG_WRITE, 0, 96 * KIB, 0);
	return r;
}

static int co_data_op(struct crash_run *c, unsigned op)
{
	struct rig *g = &c->rig;
	struct model_vol *v = ops_vol(g, 0);
	uint64_t cl = g->cluster_bytes, block = g->block_bytes, at = new_place(c, v), old = cl * rng_below(&c->rng, 4);

	switch (op) {
	case OP_WRITE_NEW:
		return ops_co_wr(g, v, RIG_WRITE, at, cl, 0);
	case OP_OVERWRITE:
		return ops_co_wr(g, v, RIG_WRITE, old, cl, 0);
	case OP_WRITE_SMALL:
		return ops_co_wr(g, v, RIG_WRITE, at + block * rng_below(&c->rng, cl / block), block, 0);
	case OP_WRITE_ACROSS:
		return ops_co_wr(g, v, RIG_WRITE, at + cl / 2 + block, cl, 0);
	case OP_FUA_NEW:
		return ops_co_wr(g, v, RIG_WRITE, at, block * (1 + rng_below(&c->rng, cl / block)), IO_FUA);
	case OP_FUA_OVER:
		return ops_co_wr(g, v, RIG_WRITE, old, block * (1 + rng_below(&c->rng, cl / block)), IO_FUA);
	case OP_FLUSH:
		return v ? rig_co_io_once(g, v, RIG_FLUSH, 0, 0, 0) : 0;
	case OP_DISCARD:
		return ops_co_wr(g, v, RIG_DISCARD, old, cl + cl / 4, 0);
	case OP_DISCARD_WRITE:
		if (ops_co_wr(g, v, RIG_DISCARD, old, 2 * cl, 0) == 0 && rng_chance(&c->rng, 1, 2))
			ops_co_wr(g, v, RIG_FLUSH, 0, 1, 0);
		return ops_co_wr(g, v, RIG_WRITE, old, 2 * cl, rng_chance(&c->rng, 1, 2) ? IO_FUA : 0);
	case OP_WRITE_LARGE:
		return ops_co_write_large(c);
	default:
		return ops_co_wr(g, v, RIG_ZERO, old + block, cl + block, rng_chance(&c->rng, 1, 2) ? IO_NO_HOLE : 0);
	}
}

/* ---- the journal nearly full ---- */

#define CHURN_CLIENTS 6
#define CHURN_SPAN MIN(32 * c->rig.cluster_bytes, 256 * KIB)

static void churn_co_client(void *arg)
{
	struct client *cl = arg;
	struct crash_run *c = cl->c;
	struct model_vol *v = model_vol_find(c->rig.model, "churn");
	uint64_t len = CHURN_SPAN - CHURN_SPAN / 2 * (cl->k % 2);
	unsigned i;

	for (i = 0; i < 12 && !c->rig.failed; i++) {
		ops_co_wr(&c->rig, v, RIG_WRITE, cl->k * (uint64_t)CHURN_SPAN, len, IO_FUA);
		ops_co_wr(&c->rig, v, RIG_DISCARD, cl->k * (uint64_t)CHURN_SPAN, len, rng_chance(&cl->rng, 1, 2) ? IO_FUA : 0);
	}
	--*cl->left;
}

/* late: all labels, and nothing else; so a checkpoint takes long until it is published, and what it frees is not free. Else
 * now and then any request. */
static void stalls_begin(struct crash_run *c, bool late)
{
	struct sim_faults *f;
	unsigned i;

	for (i = 0; i < c->rig.n_disks; i++) {
		f = sim_disk_faults(c->rig.disks, i);
		f->stall = late ? UINT16_MAX + 1 : 2000;
		f->stall_ns = 20 * NS_PER_MS;
		f->calm_from_bytes = late ? LABEL_AREA_BYTES : 0;
		f->calm_end_bytes = late ? DISK_BYTES - LABEL_AREA_BYTES : 0;
	}
}

static void stalls_end(struct crash_run *c)
{
	unsigned i;

	for (i = 0; i < c->rig.n_disks; i++) {
		sim_disk_faults(c->rig.disks, i)->stall = 0;
		sim_disk_faults(c->rig.disks, i)->calm_end_bytes = 0;
	}
}

static int co_churn(struct crash_run *c, bool late)
{
	int r = rig_co_vol_create(&c->rig, "churn", CHURN_CLIENTS * CHURN_SPAN, NULL, 60 * NS_PER_SEC);

	if (r < 0)
		return r;
	stalls_begin(c, late);
	clients_co_run(c, CHURN_CLIENTS, churn_co_client);
	stalls_end(c);
	return 0;
}

/* A torn block could pass for a whole one: what is behind its first sector is of the lap before, and fits. */
static int co_laps(struct crash_run *c)
{
	struct rig *g = &c->rig;
	uint64_t span = MIN(64 * g->cluster_bytes, 512 * KIB);
	struct model_vol *v;
	unsigned i;
	int r = rig_co_vol_create(g, "laps", span, NULL, 0);

	v = model_vol_find(g->model, "laps");
	for (i = 0; i < 60 && r == 0 && v; i++) {
		r = ops_co_wr(g, v, RIG_WRITE, 0, span, IO_FUA);
		if (r == 0)
			r = ops_co_wr(g, v, RIG_DISCARD, 0, span, IO_FUA);
		if (r == 0 && i % 8 == 7)
			r = ops_co_wr(g, ops_vol(g, 0), RIG_WRITE, new_place(c, ops_vol(g, 0)), g->cluster_bytes, 0);
	}
	return r;
}

/* ---- many map leaves ---- */

#define LEAVES (c->rig.cluster_bytes > 16 * KIB ? 24 : 60) /* of each one cluster */
#define LEAF_ENTRIES 256

/* Looks at what it has just written, whose leaf others have driven out meanwhile. */
static void leaves_co_client(void *arg)
{
	struct client *cl = arg;
	struct crash_run *c = cl->c;
	struct rig *g = &c->rig;
	struct model_vol *v = model_vol_find(g->model, "leaves");
	uint64_t block = g->block_bytes, at;
	unsigned i;

	for (i = 0; i < 16 && !g->failed; i++) {
		at = rng_below(&cl->rng, LEAVES) * LEAF_ENTRIES * g->cluster_bytes;
		ops_co_wr(g, v, RIG_WRITE, at + block * rng_below(&cl->rng, 16), block, 0);
		co_sleep_ns(rng_below(&cl->rng, 2 * NS_PER_MS));
		ops_co_wr(g, v, RIG_READ, at, 16 * block, 0);
	}
	--*cl->left;
}

/* More of them than the cache holds, and than may be dirty: records wait to be applied until a checkpoint is published. */
static int co_leaves(struct crash_run *c)
{
	int r = rig_co_vol_create(&c->rig, "leaves", (uint64_t)LEAVES * LEAF_ENTRIES * c->rig.cluster_bytes, NULL, 0);

	if (r < 0)
		return r;
	c->rig.may_be_full = true; /* so many map pages take groups that a small pool hardly has */
	stalls_begin(c, true);
	clients_co_run(c, 8, leaves_co_client);
	stalls_end(c);
	return 0;
}

/* ---- stripes ---- */

#define STRIPES_BYTES (256 * KIB) /* a stripe or two */

static void pieces_co_client(void *arg)
{
	struct client *cl = arg;
	struct crash_run *c = cl->c;
	struct model_vol *v = ops_vol(&c->rig, cl->k % 3 == 2);
	uint64_t block = c->rig.block_bytes, at, i;

	for (i = 0; i < 2 && v && !c->rig.failed; i++) {
		at = ALIGN_DOWN(rng_below(&cl->rng, MIN(v->size_bytes, STRIPES_BYTES)), block);
		ops_co_wr(&c->rig, v, RIG_WRITE, at, block * (1 + rng_below(&cl->rng, 2 * c->rig.cluster_bytes / block)),
			  rng_chance(&cl->rng, 1, 4) ? IO_FUA : 0);
	}
	--*cl->left;
}

static int co_everywhere(struct crash_run *c, enum rig_op op, uint64_t step, uint64_t len, unsigned flags)
{
	struct model_vol *v;
	uint64_t at;
	unsigned k;
	int r = 0;

	for (k = 0; (v = ops_vol(&c->rig, k)); k++)
		for (at = 0; at < v->size_bytes && r == 0; at += step)
			r = ops_co_wr(&c->rig, v, op, at, len, flags);
	return r;
}

/* Replaying what the log still has would undo the whole stripes. */
static int co_stripe_whole(struct crash_run *c)
{
	int r = co_everywhere(c, RIG_WRITE, STRIPES_BYTES, STRIPES_BYTES, 0);

	if (r == 0)
		r = co_everywhere(c, RIG_WRITE, 64 * KIB, c->rig.block_bytes, 0);
	if (r == 0)
		r = co_everywhere(c, RIG_DISCARD, UINT32_MAX, RIG_IO_MAX * 16, IO_FUA);
	return r < 0 ? r : co_everywhere(c, RIG_WRITE, STRIPES_BYTES, STRIPES_BYTES, IO_FUA);
}

static int co_stripe_op(struct crash_run *c, unsigned op)
{
	struct rig *g = &c->rig;
	struct model_vol *v = ops_vol(g, 0);
	uint64_t cl = g->cluster_bytes, at = 0, half = v ? ALIGN_UP(v->size_bytes / 2, cl) : 0;
	int r = 0;

	switch (op) {
	case OP_PIECES:
		clients_co_run(c, 3 + (unsigned)rng_below(&c->rng, 4), pieces_co_client);
		return 0;
	case OP_STRIPE_WHOLE:
		return co_stripe_whole(c);
	case OP_STRIPE_NEW:
		return ops_co_wr(g, v, RIG_WRITE, half, STRIPES_BYTES, 0);
	case OP_STRIPE_OVER:
		return ops_co_wr(g, v, RIG_WRITE, 0, STRIPES_BYTES, rng_chance(&c->rng, 1, 3) ? IO_FUA : 0);
	case OP_STRIPE_SEQ:
		for (at = half; at < half + STRIPES_BYTES && r == 0; at += cl)
			r = ops_co_wr(g, v, RIG_WRITE, at, cl, 0);
		return r;
	default:
		r = ops_co_wr(g, v, RIG_WRITE, cl * rng_below(&c->rng, 8) + g->block_bytes, cl, rng_chance(&c->rng, 1, 2) ? IO_FUA : 0);
		if (r == 0)
			r = ops_co_wr(g, v, RIG_DISCARD, 0, v ? v->size_bytes : 0, IO_FUA);
		for (; v && at < v->size_bytes && r == 0; at += STRIPES_BYTES)
			r = ops_co_wr(g, v, RIG_WRITE, at, STRIPES_BYTES, 0);
		return r;
	}
}

/* ---- disks ---- */

/* False: there is one already that must come back first, or the pool cannot spare any. */
static bool may_hurt(struct crash_run *c)
{
	return c->tolerates && !c->hurt && c->wl.base != BASE_STALE && rig_member(&c->rig, c->victim) >= 0;
}

static void co_writes_without(struct crash_run *c)
{
	struct rig *g = &c->rig;
	struct model_vol *v = ops_vol(g, 0);
	uint64_t cl = g->cluster_bytes;

	ops_co_wr(g, v, RIG_WRITE, 0, 2 * cl, IO_FUA);
	ops_co_wr(g, v, RIG_WRITE, new_place(c, v), cl, IO_FUA);
}

static void co_disk_op(struct crash_run *c, unsigned op)
{
	struct rig *g = &c->rig;
	struct sim_faults *f = sim_disk_faults(g->disks, c->victim);
	struct err e = { 0 };
	int r = 0;

	g->degraded = g->may_be_full = true;
	if (!may_hurt(c)) {
		co_writes_without(c);
		return;
	}
	c->hurt |= 1U << c->victim;
	if (op == OP_REBUILD)
		r = ashlar_co_disk_fail(g->p, rig_paths[c->victim], false, false, &e);
	else
		f->gone = true;
	if (r < 0)
		rig_fail(g, "disk fail: %s (%d)", e.text, r);
	co_writes_without(c);
	if (op == OP_REBUILD) {
		co_sleep_ns(rng_below(&c->rng, 200 * NS_PER_MS));
		co_writes_without(c);
	}
	if (op != OP_RETURN)
		return;
	f->gone = false;
	r = ashlar_co_disk_online(g->p, rig_paths[c->victim], NULL, &e);
	if (r < 0)
		rig_fail(g, "disk online: %s (%d)", e.text, r);
	co_writes_without(c);
	co_sleep_ns(rng_below(&c->rng, 50 * NS_PER_MS));
}

/* Refused: no room, or too few disks; it has been begun already. */
static void move_result(struct rig *g, const char *what, int r, const struct err *e)
{
	if (r < 0 && r != -EINVAL && r != -ENOSPC && r != -EBUSY && r != -ENOENT)
		rig_fail(g, "%s: %s (%d)", what, e->text, r);
	rig_note(g, "%s: %d %s", what, r, r < 0 ? e->text : "");
}

static void co_move_op(struct crash_run *c, unsigned op)
{
	struct rig *g = &c->rig;
	const char *victim = rig_paths[c->victim], *extra = rig_paths[g->n_disks - 1];
	struct ashlar_relocation rel;
	struct err e = { 0 };
	int r = 0;

	g->degraded = g->may_be_full = true;
	if (op != OP_REPLACE && op != OP_NARROW && rig_member(g, g->n_disks - 1) < 0)
		move_result(g, "disk add", ashlar_co_disk_add(g->p, &extra, 1, false, false, &e), &e);
	co_writes_without(c);
	if (op == OP_ADD)
		return;
	if (op == OP_EVACUATE)
		r = ashlar_co_disk_evacuate(g->p, victim, false, &rel, &e);
	else if (op == OP_REMOVE || op == OP_NARROW)
		r = ashlar_co_disk_remove(g->p, victim, false, &rel, &e);
	else if (op == OP_REPLACE)
		r = rig_member(g, g->n_disks - 1) < 0 ? ashlar_co_disk_replace(g->p, victim, extra, false, false, &rel, &e) : 0;
	else
		r = ashlar_co_pool_rebalance(g->p, false, &rel, &e);
	move_result(g, names[op], r, &e);
	co_writes_without(c);
	co_sleep_ns(rng_below(&c->rng, 200 * NS_PER_MS));
	co_writes_without(c);
}

static int co_adopt(struct crash_run *c)
{
	struct rig *g = &c->rig;
	uint64_t cl = g->cluster_bytes, size = cl * (4 + rng_below(&c->rng, 16)) + g->block_bytes, off;
	char name[MODEL_NAME_MAX];
	struct model_vol *v;
	unsigned i;

	snprintf(name, sizeof(name), "a%u", c->n_names++);
	if (rig_co_vol_adopt(g, name, size, NULL, 0, &c->rng) < 0)
		return 0;
	v = model_vol_find(g->model, name);
	for (i = 0; i < 12; i++) {
		off = g->block_bytes * rng_below(&c->rng, size / g->block_bytes);
		ops_co_wr(g, v, rng_chance(&c->rng, 1, 2) ? RIG_WRITE : rng_chance(&c->rng, 1, 2) ? RIG_DISCARD : RIG_ZERO, off,
			  rng_chance(&c->rng, 1, 2) ? g->block_bytes : cl, rng_chance(&c->rng, 1, 4) ? IO_FUA : 0);
		if (i % 4 == 3)
			ops_co_wr(g, v, RIG_FLUSH, 0, 0, 0);
	}
	co_sleep_ns(rng_below(&c->rng, 20 * NS_PER_MS));
	return 0;
}

/* Between two volumes, and within one; what is shared is written to on either side. */
static int co_share(struct crash_run *c)
{
	struct rig *g = &c->rig;
	uint64_t cl = g->cluster_bytes;
	struct model_vol *a, *b;
	unsigned i;
	int r = 0;

	for (i = 0; i < 5 && r == 0; i++) {
		a = ops_vol(g, (unsigned)rng_below(&c->rng, 2));
		b = ops_vol(g, (unsigned)rng_below(&c->rng, 2));
		if (!a || !b)
			return 0;
		r = rig_co_vol_share(g, a, cl * rng_below(&c->rng, 8), b, cl * rng_below(&c->rng, 8), cl * (1 + rng_below(&c->rng, 6)));
		if (i % 2)
			ops_co_wr(g, b, RIG_FLUSH, 0, 0, 0);
		ops_co_wr(g, rng_chance(&c->rng, 1, 2) ? a : b, rng_chance(&c->rng, 3, 4) ? RIG_WRITE : RIG_DISCARD, cl * rng_below(&c->rng, 8),
			  rng_chance(&c->rng, 1, 2) ? cl : g->block_bytes, rng_chance(&c->rng, 1, 4) ? IO_FUA : 0);
	}
	return r;
}

static int co_notes(struct crash_run *c)
{
	struct rig *g = &c->rig;
	unsigned i;
	int r = 0;

	for (i = 0; i < 6 && r == 0 && ops_vol(g, i % 2); i++)
		r = rig_co_vol_note(g, ops_vol(g, i % 2), i == 4 ? 0 : 1 + (uint32_t)rng_below(&c->rng, 1000));
	return r;
}

static int co_admin_op(struct crash_run *c, unsigned op)
{
	struct rig *g = &c->rig;
	struct model_vol *v = ops_vol(g, 0), *other = ops_vol(g, 1);
	uint64_t cl = g->cluster_bytes;

	switch (op) {
	case OP_CREATE:
		return model_vol_find(g->model, "new") ? 0 : rig_co_vol_create(g, "new", 5 * cl, NULL, 0);
	case OP_DELETE:
		return other ? rig_co_vol_delete(g, other) : 0;
	case OP_SHRINK:
		return v ? rig_co_vol_resize(g, v, ALIGN_UP(v->size_bytes / 4, (uint64_t)g->block_bytes)) : 0;
	case OP_GROW:
		return v ? rig_co_vol_resize(g, v, v->size_bytes + 3 * cl) : 0;
	case OP_RENAME:
		return v && !model_vol_find(g->model, "other") ? rig_co_vol_rename(g, v, "other") : 0;
	case OP_ACCESS:
		return v ? rig_co_vol_rule(g, v, 1 + (uint32_t)rng_below(&c->rng, 100)) : 0;
	case OP_LIMITS:
		return v ? rig_co_vol_limit(g, v, rng_chance(&c->rng, 1, 4) ? 0 : 500 + (uint32_t)rng_below(&c->rng, 1000)) : 0;
	case OP_TIME:
		co_sleep_ns(14 * NS_PER_SEC);
		return 0;
	case OP_NEW_GROUP:
		return model_vol_find(g->model, "big") ? 0 : co_new_group(c);
	case OP_RECYCLE:
		return model_vol_find(g->model, "next") ? 0 : co_recycle(c);
	case OP_LAPS:
		return model_vol_find(g->model, "laps") ? 0 : co_laps(c);
	case OP_CHURN:
	case OP_LATE_LABELS:
		return model_vol_find(g->model, "churn") ? 0 : co_churn(c, op == OP_LATE_LABELS);
	case OP_LEAVES:
		return model_vol_find(g->model, "leaves") ? 0 : co_leaves(c);
	case OP_ADOPT:
		return co_adopt(c);
	case OP_SHARE:
		return co_share(c);
	case OP_NOTES:
		return co_notes(c);
	case OP_PASSES:
		if (v) /* it goes along */
			(void)!rig_co_vol_note(g, v, 1 + (uint32_t)rng_below(&c->rng, 1000));
		return family_co_run(c, (enum family_op)(op - OP_SNAPS));
	case OP_SNAPS:
	case OP_CLONES:
	case OP_ROLLBACKS:
	case OP_MOVES:
	case OP_TRANSFERS:
		return family_co_run(c, (enum family_op)(op - OP_SNAPS));
	case OP_ADD:
	case OP_EVACUATE:
	case OP_REMOVE:
	case OP_REPLACE:
	case OP_REBALANCE:
	case OP_NARROW:
		co_move_op(c, op);
		return 0;
	default:
		co_disk_op(c, op);
		return 0;
	}
}

int ops_co_run(struct crash_run *c, unsigned op)
{
	rig_note(&c->rig, "operation %s", names[op]);
	if (op >= OP_PIECES)
		return co_stripe_op(c, op);
	return op <= OP_WRITE_LARGE ? co_data_op(c, op) : co_admin_op(c, op);
}
