/*
 * raid_rig.h: a RAID instance on simulated disks, and a small pool behind its hooks, for raid__*.c. Each test runs its
 * body in a coroutine of a fresh world. The pool keeps what it was told, checks the order of things, and takes its time.
 */
#ifndef TESTS_UNIT_RAID_RIG_H
#define TESTS_UNIT_RAID_RIG_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <CUnit/Basic.h>

#include "engine/base/rng.h"
#include "engine/base/units.h"
#include "engine/io/buf.h"
#include "engine/io/range_lock.h"
#include "engine/io/sim.h"
#include "raid/raid.h"

#define GROUPS 3
#define GROUP_BYTES (1 * MIB)
#define STRIP_BYTES (16 * KIB)
#define SPACE_BYTES (GROUPS * GROUP_BYTES)
#define BLOCK 4096ULL
#define DISKS 8
#define DISK_BYTES (16 * MIB)

struct shape {
	const char *name;
	uint8_t layout, copies, n_cols;
};

static const struct shape shapes[] = {
	{ "single", RAID_SINGLE, 1, 1 },    { "raid0", RAID_RAID0, 1, 3 },    { "raid1", RAID_RAID1, 2, 2 },
	{ "raid1-3", RAID_RAID1, 3, 3 },    { "raid10", RAID_RAID10, 2, 4 },  { "raid10-3", RAID_RAID10, 3, 6 },
};
#define RAID1 (&shapes[2])

struct rig {
	struct rng rng;
	struct sim_disks *ds;
	struct world *w;
	struct disk *disk[DISKS];
	struct raid *raid;
	struct bdev *b;
	const struct shape *shape;
	uint8_t *model; /* SPACE_BYTES */
	struct range_lock lock;
	/* the pool */
	struct raid_group_info info[GROUPS];
	uint64_t dirty[GROUPS], returned[GROUPS];
	bool out[DISKS];
	int load_result, lease_result, sync_result, disk_error_result; /* what the hooks answer */
	unsigned n_loads, n_leases, n_syncs, n_disk_errors, n_repaired, n_unrepaired;
	bool hung; /* a disk has been made to hang: its requests never end */
	uint64_t hook_ns; /* each hook takes up to so long */
	uint64_t out_ns; /* when the last disk was put out */
	/* repairs: bytes in all, and whether one covered this place */
	uint64_t repaired_bytes, watch_off;
	unsigned watch_disk;
	bool watch_hit;
};

static struct rig rig;
static uint64_t seed;
static uint64_t rig_hedge_ns, rig_timeout_ns; /* 0: the usual */

#define EXPECT(cond)                                                                                       \
	do {                                                                                               \
		bool ok_ = (cond);                                                                         \
		if (!ok_)                                                                                  \
			fprintf(stderr, "seed %llu, %s, line %d: %s\n", (unsigned long long)seed,          \
				rig.shape ? rig.shape->name : "", __LINE__, #cond);                        \
		CU_ASSERT(ok_);                                                                            \
	} while (0)

/* ---- the pool behind the hooks ---- */

static void hook_sleep(void)
{
	if (rig.hook_ns)
		co_sleep_ns(rng_below(&rig.rng, rig.hook_ns) + 1);
}

static bool is_redundant(void)
{
	return rig.shape->copies > 1;
}

static int hook_load(void *ctx, uint64_t group, struct raid_group_info *info)
{
	rig.n_loads++;
	hook_sleep();
	if (rig.load_result)
		return rig.load_result;
	if (group >= GROUPS)
		return -ENOENT;
	*info = rig.info[group];
	return 0;
}

static bool somebody_is_away(void)
{
	for (unsigned i = 0; i < rig.shape->n_cols; i++)
		if (raid_disk_state(rig.raid, i) != RAID_DISK_ONLINE)
			return true;
	return false;
}

static int hook_lease(void *ctx, uint64_t group, uint64_t mask)
{
	rig.n_leases++;
	EXPECT(is_redundant() && mask);
	hook_sleep();
	if (rig.lease_result)
		return rig.lease_result;
	rig.dirty[group] |= mask;
	if (somebody_is_away()) {
		rig.info[group].missed |= mask;
		raid_set_missed(rig.raid, group, rig.info[group].missed);
	}
	return 0;
}

static void hook_return(void *ctx, uint64_t group, uint64_t mask)
{
	EXPECT((rig.dirty[group] & mask) == mask);
	rig.returned[group] |= mask;
}

static int hook_sync(void *ctx, uint64_t group, uint64_t mask)
{
	uint64_t region = GROUP_BYTES / RAID_REGIONS, copied;
	int r;

	rig.n_syncs++;
	hook_sleep();
	if (rig.sync_result)
		return rig.sync_result;
	for (unsigned i = 0; i < RAID_REGIONS; i++)
		if (mask & (1ULL << i)) {
			r = raid_co_resync_range(rig.raid, group, i * region, region, &copied);
			EXPECT(r == 0);
		}
	rig.info[group].unsync &= ~mask;
	raid_clear_unsync(rig.raid, group, mask);
	return 0;
}

/* The pool records that the disk is out (what was dirty it may have missed), then says so. */
static void pool_put_out(unsigned disk)
{
	for (unsigned g = 0; g < GROUPS; g++)
		rig.info[g].missed |= rig.dirty[g];
	rig.out[disk] = true;
	rig.out_ns = world_now_ns(rig.w);
	raid_set_disk(rig.raid, disk, rig.disk[disk], RAID_DISK_ABSENT);
	for (unsigned g = 0; g < GROUPS; g++)
		raid_set_missed(rig.raid, g, rig.info[g].missed);
}

static int hook_disk_error(void *ctx, unsigned disk, enum io_op op, int error)
{
	rig.n_disk_errors++;
	EXPECT(error < 0 && disk < DISKS);
	hook_sleep();
	if (rig.disk_error_result)
		return rig.disk_error_result;
	if (!rig.out[disk])
		pool_put_out(disk);
	return 0;
}

static void hook_repaired(void *ctx, unsigned disk, uint64_t off_bytes, uint64_t len_bytes, int error)
{
	if (error)
		rig.n_unrepaired++;
	else
		rig.n_repaired++;
	rig.repaired_bytes += len_bytes;
	if (disk == rig.watch_disk && off_bytes <= rig.watch_off && rig.watch_off < off_bytes + len_bytes)
		rig.watch_hit = true;
}

static struct raid_hooks rig_hooks = { /* a test may put in others */
	.co_group_load = hook_load, .co_lease = hook_lease, .lease_return = hook_return,
	.co_sync = hook_sync, .co_disk_error = hook_disk_error, .read_repaired = hook_repaired,
};

/* ---- up and down ---- */

static void rig_describe(unsigned group)
{
	struct raid_desc *d = &rig.info[group].desc;
	const struct shape *s = rig.shape;

	*d = (struct raid_desc){ .group = group, .layout = s->layout, .copies = s->copies, .n_cols = s->n_cols };
	d->strip_bytes = STRIP_BYTES;
	d->size_bytes = GROUP_BYTES;
	d->col_bytes = raid_col_bytes(s->layout, s->copies, s->n_cols, GROUP_BYTES, STRIP_BYTES, 64 * KIB);
	for (unsigned i = 0; i < s->n_cols; i++)
		d->cols[i] = (struct raid_col){ .disk = (uint16_t)i, .off_bytes = MIB + group * d->col_bytes };
	EXPECT(raid_desc_check(d, DISKS, NULL) == 0);
}

static void raid_up(void)
{
	struct raid_conf c = { .group_bytes = GROUP_BYTES, .size_bytes = SPACE_BYTES, .block_bytes = BLOCK };

	c.hooks = &rig_hooks;
	c.hedge_ns = rig_hedge_ns;
	c.timeout_ns = rig_timeout_ns;
	rig.raid = raid_open(&c);
	rig.b = raid_bdev(rig.raid);
	range_lock_init(&rig.lock);
}

static void set_state(unsigned disk, enum raid_disk_state state)
{
	raid_set_disk(rig.raid, disk, rig.disk[disk], state);
	if (state == RAID_DISK_ONLINE)
		rig.out[disk] = false;
}

struct rig_test {
	void (*co_body)(void);
};

static int rig_co_main(void *arg)
{
	struct rig_test *t = arg;
	struct raid_stats st;

	raid_up();
	for (unsigned i = 0; i < rig.shape->n_cols; i++)
		set_state(i, RAID_DISK_ONLINE);
	t->co_body();
	raid_stats_get(rig.raid, &st);
	raid_co_drain(rig.raid);
	raid_close(rig.raid);
	return 0;
}

static void world_up(void)
{
	struct sim_options o = { .seed = seed, .n_reactors = 1 };
	char path[16];

	rig.w = sim_world_create(&o, rig.ds);
	for (unsigned i = 0; i < DISKS; i++) {
		snprintf(path, sizeof(path), "disk%u", i);
		if (disk_co_open(rig.w, path, 0, &rig.disk[i], NULL))
			CU_FAIL_FATAL("disk_co_open");
	}
}

static void rig_run(uint64_t s, const struct shape *shape, void (*co_body)(void))
{
	struct sim_disk_conf conf = { .size_bytes = DISK_BYTES, .block_bytes = BLOCK };
	struct rig_test t = { co_body };
	char path[16];

	memset(&rig, 0, sizeof(rig));
	seed = s;
	rig.shape = shape;
	rng_init(&rig.rng, s);
	rig.hook_ns = 300 * NS_PER_US;
	rig.model = calloc(1, SPACE_BYTES);
	rig.ds = sim_disks_create(s);
	for (unsigned i = 0; i < DISKS; i++) {
		snprintf(path, sizeof(path), "disk%u", i);
		sim_disks_add(rig.ds, path, &conf);
	}
	for (unsigned g = 0; g < GROUPS; g++)
		rig_describe(g);
	alloc_track_begin();
	world_up();
	EXPECT(sim_run(rig.w, rig_co_main, &t, NULL, 0) == 0);
	sim_world_destroy(rig.w);
	if (rig.hung) /* what the disk still holds ends with the world */
		alloc_track_drop();
	else
		alloc_track_end();
	sim_disks_destroy(rig.ds);
	free(rig.model);
}

/* Every layout of the table for which want() is true, a few seeds each. */
static inline void rig_run_shapes(unsigned seeds, bool redundant_only, void (*co_body)(void))
{
	for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
		for (uint64_t s = 1; s <= seeds; s++)
			if (!redundant_only || shapes[i].copies > 1)
				rig_run(s, &shapes[i], co_body);
}

/* ---- doing things ---- */

static inline int fill(uint64_t off, uint64_t len, uint8_t byte, unsigned flags)
{
	void *buf = buf_alloc(len);
	int r;

	memset(buf, byte, len);
	r = bdev_co_write(rig.b, off, buf, len, flags);
	if (!r)
		memset(rig.model + off, byte, len);
	buf_free(buf, len);
	return r;
}

/* Result of the read; what it gives must be the model's. */
static inline int verify(uint64_t off, uint64_t len, unsigned copy)
{
	void *buf = buf_alloc(len);
	int r = bdev_co_read_copy(rig.b, off, buf, len, copy);

	if (!r)
		EXPECT(!memcmp(buf, rig.model + off, len));
	buf_free(buf, len);
	return r;
}

static inline void verify_all(void)
{
	for (uint64_t off = 0; off < SPACE_BYTES; off += 64 * KIB)
		EXPECT(verify(off, 64 * KIB, 0) == 0);
}

static inline void expect_equal_columns(void)
{
	uint64_t at = 0;

	for (unsigned g = 0; g < GROUPS; g++)
		EXPECT(raid_co_compare_range(rig.raid, g, 0, GROUP_BYTES, &at) == 0);
}

/* A range within one group, of 1 to max blocks. */
static inline void random_range(unsigned max, uint64_t *off, uint64_t *len)
{
	uint64_t group = rng_below(&rig.rng, GROUPS), blocks = GROUP_BYTES / BLOCK, at = rng_below(&rig.rng, blocks);

	blocks = MIN(max, blocks - at);
	*len = (1 + rng_below(&rig.rng, blocks)) * BLOCK;
	*off = group * GROUP_BYTES + at * BLOCK;
}

static inline void expect_dirty(uint64_t off, uint64_t len)
{
	uint64_t g = off / GROUP_BYTES, mask = raid_region_mask(&rig.info[g].desc, off % GROUP_BYTES, len);

	if (is_redundant())
		EXPECT((rig.dirty[g] & mask) == mask);
}

static inline void one_random_write(uint64_t off, uint64_t len)
{
	struct iovec iov[8];
	uint8_t *buf = buf_alloc(len);
	unsigned n = 0;
	struct io io;

	rng_fill(&rig.rng, buf, len);
	io_prep(&io, IO_WRITE, off, len, buf, rng_chance(&rig.rng, 1, 8) ? IO_FUA : 0);
	for (uint64_t at = 0, part; at < len; at += part) { /* in pieces */
		part = (1 + rng_below(&rig.rng, 6)) * BLOCK;
		part = n == 7 ? len - at : MIN(len - at, part);
		iov[n++] = (struct iovec){ buf + at, part };
	}
	io.iov = iov;
	io.iov_n = n;
	EXPECT(bdev_co_submit(rig.b, &io) == 0);
	memcpy(rig.model + off, buf, len);
	expect_dirty(off, len);
	buf_free(buf, len);
}

static inline void one_random_op(void)
{
	struct range_hold h;
	uint64_t off, len;
	unsigned what = (unsigned)rng_below(&rig.rng, 20);

	random_range(what & 1 ? 4 : 128, &off, &len);
	range_co_lock(&rig.lock, off, len, what >= 10 && what < 19, &h);
	if (what < 9) {
		one_random_write(off, len);
	} else if (what < 10) {
		EXPECT(bdev_co_zero(rig.b, off, len, 0) == 0);
		memset(rig.model + off, 0, len);
		expect_dirty(off, len);
	} else if (what < 18) {
		EXPECT(verify(off, len, 0) == 0);
	} else if (what < 19) {
		EXPECT(bdev_co_flush(rig.b) == 0);
	} else { /* the contents are anybody's after a discard: write again */
		EXPECT(bdev_co_discard(rig.b, off, len, 0) == 0);
		one_random_write(off, len);
	}
	range_unlock(&rig.lock, &h);
}

struct workers {
	unsigned n_ops, running;
	struct co_queue end;
};

static inline void worker_co_main(void *arg)
{
	struct workers *ws = arg;

	while (ws->n_ops) {
		ws->n_ops--;
		one_random_op();
	}
	if (--ws->running == 0)
		co_queue_wake_all(&ws->end);
}

/* Random requests by several coroutines, each checked against the model. */
static inline void workers_start(struct workers *ws, unsigned n_ops)
{
	ws->n_ops = n_ops;
	ws->running = 8;
	co_queue_init(&ws->end);
	for (unsigned i = 0; i < 8; i++)
		co_spawn(CO_REQUEST, worker_co_main, ws, "worker");
}

static inline void workers_wait(struct workers *ws)
{
	while (ws->running)
		co_queue_wait(&ws->end);
}

static inline void random_ops(unsigned n)
{
	struct workers ws;

	workers_start(&ws, n);
	workers_wait(&ws);
}

/* As the pool does: everything that the disk may have missed is made equal, flushed, then the disk is current. */
static inline void bring_back(unsigned disk)
{
	uint64_t copied;

	for (unsigned g = 0; g < GROUPS; g++) {
		raid_co_freeze(rig.raid, g, 0, GROUP_BYTES);
		EXPECT(raid_co_resync_range(rig.raid, g, 0, GROUP_BYTES, &copied) == 0);
		EXPECT(bdev_co_flush(rig.b) == 0);
		rig.dirty[g] = rig.info[g].missed = 0;
		raid_set_missed(rig.raid, g, 0);
		raid_unfreeze(rig.raid, g);
	}
	set_state(disk, RAID_DISK_ONLINE);
}

/* Where a byte lies: disk and offset of its n-th copy (from 0). */
static inline unsigned locate(uint64_t off, unsigned copy, uint64_t *disk_off)
{
	const struct raid_desc *d = &rig.info[off / GROUP_BYTES].desc;
	struct raid_place p;

	raid_place(d, off % GROUP_BYTES, 1, &p);
	*disk_off = d->cols[p.cols[copy]].off_bytes + p.col_off_bytes;
	return d->cols[p.cols[copy]].disk;
}

static inline uint64_t disk_ops(enum io_op op)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < DISKS; i++)
		n += sim_disk_n_ops(rig.ds, i, op);
	return n;
}

/* A request of its own coroutine, to look at from outside. */
struct asked {
	struct io io;
	void *buf;
	bool done;
	uint64_t end_ns;
};

static inline void asked_done(struct io *io)
{
	struct asked *a = io->owner;

	a->done = true;
	a->end_ns = world_now_ns(rig.w);
}

static inline void ask(struct asked *a, enum io_op op, uint64_t off, uint64_t len, uint8_t byte)
{
	a->done = false;
	a->buf = op == IO_READ || op == IO_WRITE ? buf_alloc(len) : NULL;
	if (op == IO_WRITE)
		memset(a->buf, byte, len);
	io_prep(&a->io, op, off, len, a->buf, 0);
	a->io.done = asked_done;
	a->io.owner = a;
	bdev_submit(rig.b, &a->io);
	EXPECT(!a->done); /* never inside the call */
}

static inline int asked_wait(struct asked *a)
{
	while (!a->done)
		co_sleep_ns(10 * NS_PER_US);
	buf_free(a->buf, a->io.len_bytes);
	return a->io.result;
}

#endif
