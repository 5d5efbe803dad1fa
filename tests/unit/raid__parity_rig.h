/*
 * raid__parity_rig.h: parity groups on simulated disks full of garbage, with a stripe log in a mirror, and a model of what
 * every sector may hold; for raid__parity_*.c. All of it survives power cuts: disks and model do, the world and the instance
 * are made anew.
 *
 * Sectors are written with the number of their write, so that each tells which write it has. The model knows of a block whether
 * it is mapped, as the thin layer would: fresh when it is free, overwritten when it is mapped, free again a flush after
 * it has been given back.
 */
#ifndef TESTS_UNIT_RAID__PARITY_RIG_H
#define TESTS_UNIT_RAID__PARITY_RIG_H

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
#include "raid/stripe_log.h"

#define GROUPS 2
#define LOG_GROUP GROUPS
#define GROUP_BYTES (1 * MIB)
#define SPACE_BYTES (GROUPS * GROUP_BYTES)
#define SECT 512ULL
#define SECTORS (SPACE_BYTES / SECT)
#define DISKS 10
#define SPARE 8 /* the first disk that has no column */
#define DISK_BYTES (8 * MIB)
#define LOG_BYTES (256 * KIB)
#define PENDING_MAX 6
#define WORKERS 12

struct shape {
	const char *name;
	uint8_t layout, n_cols, parity;
	uint32_t strip_bytes;
};

static const struct shape shapes[] = {
	{ "raid5-3", RAID_RAID5, 3, 1, 16 * KIB }, { "raid5-4", RAID_RAID5, 4, 1, 16 * KIB },
	{ "raid5-5", RAID_RAID5, 5, 1, 8 * KIB },  { "raid6-4", RAID_RAID6, 4, 2, 16 * KIB },
	{ "raid6-5", RAID_RAID6, 5, 2, 16 * KIB }, { "raid6-6", RAID_RAID6, 6, 2, 32 * KIB },
	{ "raid6-7", RAID_RAID6, 7, 2, 8 * KIB },
};
#define RAID5_4 (&shapes[1])
#define RAID6_5 (&shapes[4])

enum map_state { MAP_FREE, MAP_MAPPED, MAP_FREEING };

/* What one sector may hold: `durable`, or any of those written since. */
struct sector {
	uint64_t now, durable;
	uint64_t pending[PENDING_MAX];
	uint8_t n_pending;
	bool writing;
	bool unsure; /* a write has failed, or the power: the next read says */
};

struct rig {
	struct rng rng;
	struct sim_disks *ds;
	struct world *w;
	struct disk *disk[DISKS];
	struct raid *raid;
	struct bdev *b;
	const struct shape *shape;
	uint32_t block;
	struct range_lock lock; /* of the space: who writes what */
	/* the model */
	struct sector *sectors;
	uint8_t *map, *map_durable; /* by block: enum map_state */
	uint8_t *allocated;	    /* by block: not free, or about to be written */
	uint8_t *life;		    /* by block: how often it has been freed */
	uint64_t next_id;
	/* the pool; what is durable in it survives a power cut */
	struct raid_group_info info[GROUPS + 1];
	uint64_t epoch;
	bool out[DISKS];  /* as labels say it */
	bool away[DISKS]; /* out, and not even there */
	bool flaw_free; /* nothing has been done that may cost a write */
	int disk_error_result;
	unsigned n_disk_errors, n_repaired, n_unrepaired, n_replayed, n_syncs;
	uint64_t hook_ns;
};

static struct rig rig;
static uint64_t seed;

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

static unsigned n_out(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < rig.shape->n_cols; i++)
		n += raid_disk_state(rig.raid, rig.info[0].desc.cols[i].disk) != RAID_DISK_ONLINE;
	return n;
}

static int hook_load(void *ctx, uint64_t group, struct raid_group_info *info)
{
	hook_sleep();
	if (group > LOG_GROUP)
		return -ENOENT;
	*info = rig.info[group];
	return 0;
}

static int hook_lease(void *ctx, uint64_t group, uint64_t mask)
{
	hook_sleep();
	if (n_out()) {
		rig.info[group].missed |= mask;
		raid_set_missed(rig.raid, group, rig.info[group].missed);
	}
	return 0;
}

static void hook_return(void *ctx, uint64_t group, uint64_t mask)
{
}

static int hook_sync(void *ctx, uint64_t group, uint64_t mask)
{
	uint64_t region = GROUP_BYTES / RAID_REGIONS, copied;
	int r = 0;

	rig.n_syncs += group != LOG_GROUP;
	hook_sleep();
	for (unsigned i = 0; i < RAID_REGIONS && !r; i++)
		if (mask & (1ULL << i))
			r = raid_co_resync_range(rig.raid, group, i * region, region, &copied);
	if (!r)
		raid_clear_unsync(rig.raid, group, mask);
	return r;
}

static void pool_put_out(unsigned disk)
{
	rig.out[disk] = true;
	for (unsigned g = 0; g <= GROUPS; g++)
		rig.info[g].missed = ~0ULL;
	raid_set_disk(rig.raid, disk, rig.disk[disk], RAID_DISK_ABSENT);
	for (unsigned g = 0; g <= GROUPS; g++)
		raid_set_missed(rig.raid, g, ~0ULL);
}

static bool is_member(unsigned disk)
{
	for (unsigned g = 0; g < GROUPS; g++)
		for (unsigned i = 0; i < rig.shape->n_cols; i++)
			if (rig.info[g].desc.cols[i].disk == disk)
				return true;
	return false;
}

static int hook_disk_error(void *ctx, unsigned disk, enum io_op op, int error)
{
	rig.n_disk_errors++;
	EXPECT(error < 0 && disk < DISKS);
	hook_sleep();
	if (rig.disk_error_result)
		return rig.disk_error_result;
	if (rig.out[disk] || raid_disk_state(rig.raid, disk) == RAID_DISK_ABSENT)
		return 0;
	if (raid_disk_state(rig.raid, disk) == RAID_DISK_ONLINE && is_member(disk) && n_out() >= rig.shape->parity)
		return -EIO;
	pool_put_out(disk);
	return 0;
}

static void hook_repaired(void *ctx, unsigned disk, uint64_t off_bytes, uint64_t len_bytes, int error)
{
	if (error)
		rig.n_unrepaired++;
	else
		rig.n_repaired++;
}

static const struct raid_hooks rig_hooks = {
	.co_group_load = hook_load, .co_lease = hook_lease, .lease_return = hook_return,
	.co_sync = hook_sync, .co_disk_error = hook_disk_error, .read_repaired = hook_repaired,
};

/* ---- the model ---- */

static uint64_t mix(uint64_t x)
{
	x ^= x >> 31;
	x *= 0x9e3779b97f4a7c15ULL;
	return x ^ (x >> 29);
}

#define ZEROS (1ULL << 63) /* in the number of a write: it was of zeros, which do not tell */

static uint64_t id_seen(uint64_t id)
{
	return id & ZEROS ? 0 : id;
}

static void sector_fill(uint8_t *to, uint64_t sector, uint64_t id)
{
	uint64_t w[SECT / 8];

	if (!id) {
		memset(to, 0, SECT);
		return;
	}
	w[0] = id;
	for (size_t i = 1; i < ARRAY_LEN(w); i++)
		w[i] = mix(id * 4096 + sector + (i << 48));
	memcpy(to, w, SECT);
}

/* The write that this is of; UINT64_MAX: of none. */
static uint64_t sector_id(const uint8_t *from, uint64_t sector)
{
	uint8_t want[SECT];
	uint64_t id;

	memcpy(&id, from, sizeof(id));
	sector_fill(want, sector, id);
	return memcmp(from, want, SECT) ? UINT64_MAX : id;
}

static void model_write(uint64_t off, uint64_t len, uint64_t id)
{
	for (uint64_t s = off / SECT; s < (off + len) / SECT; s++) {
		struct sector *x = &rig.sectors[s];

		if (rig.map[s * SECT / rig.block] == MAP_FREE) /* whatever earlier ones have left: nobody reads it */
			x->n_pending = 0;
		CHECK(x->n_pending < PENDING_MAX);
		x->pending[x->n_pending++] = id;
		x->writing = true;
	}
	memset(rig.allocated + off / rig.block, 1, len / rig.block);
}

static void model_written(uint64_t off, uint64_t len, uint64_t id, bool fua)
{
	for (uint64_t s = off / SECT; s < (off + len) / SECT; s++) {
		struct sector *x = &rig.sectors[s];

		x->now = id;
		x->unsure = x->writing = false;
		if (fua) {
			x->durable = id;
			x->n_pending = 0;
		}
	}
	for (uint64_t b = off / rig.block; b < (off + len) / rig.block; b++)
		rig.map[b] = MAP_MAPPED;
}

static bool model_is_full(uint64_t off, uint64_t len)
{
	for (uint64_t s = off / SECT; s < (off + len) / SECT; s++)
		if (rig.sectors[s].n_pending == PENDING_MAX && rig.map[s * SECT / rig.block] != MAP_FREE)
			return true;
	return false;
}

static bool map_is_all(uint64_t off, uint64_t len, enum map_state st)
{
	for (uint64_t b = off / rig.block; b < (off + len) / rig.block; b++)
		if (rig.map[b] != st)
			return false;
	return true;
}

static bool map_has(uint64_t off, uint64_t len, enum map_state st)
{
	for (uint64_t b = off / rig.block; b < (off + len) / rig.block; b++)
		if (rig.map[b] == st)
			return true;
	return false;
}

/* The write that this is of, of those that it may be; false: none. */
static bool sector_allows(const struct sector *x, uint64_t seen, uint64_t *id)
{
	*id = x->now;
	if (!x->unsure)
		return seen == id_seen(x->now);
	*id = x->durable;
	for (unsigned i = 0; i < x->n_pending && id_seen(*id) != seen; i++)
		*id = x->pending[i];
	return id_seen(*id) == seen;
}

/* What has been read of mapped blocks is what it may be; what may be several things is from now on what was read. */
static void model_check(uint64_t off, uint64_t len, const uint8_t *buf)
{
	for (uint64_t s = off / SECT; s < (off + len) / SECT; s++, buf += SECT) {
		struct sector *x = &rig.sectors[s];
		uint64_t id, seen = sector_id(buf, s);

		if (rig.map[s * SECT / rig.block] == MAP_FREE)
			continue;
		if (sector_allows(x, seen, &id)) {
			x->now = id;
			x->unsure = false;
			continue;
		}
		fprintf(stderr, "sector %llu (block %llu): holds %lld, should %lld%s\n", (unsigned long long)s,
			(unsigned long long)(s * SECT / rig.block), (long long)seen, (long long)x->now, x->unsure ? " or others" : "");
		EXPECT(false && "sector holds what was written");
	}
}

static void sector_failed(struct sector *x)
{
	x->unsure = true;
	x->writing = false;
}

static inline void model_power_cut(void)
{
	for (uint64_t b = 0; b < SPACE_BYTES / rig.block; b++) {
		rig.map[b] = rig.map_durable[b]; /* FREEING: the record did not make it */
		rig.allocated[b] = rig.map[b] != MAP_FREE;
	}
	for (uint64_t s = 0; s < SECTORS; s++)
		sector_failed(&rig.sectors[s]);
}

/* After recovery, everything has been read: that is what is on the disks. */
static inline void model_recovered(void)
{
	for (uint64_t s = 0; s < SECTORS; s++) {
		rig.sectors[s].durable = rig.sectors[s].now;
		rig.sectors[s].n_pending = 0;
		rig.sectors[s].unsure = false;
	}
}

/* ---- doing things ---- */

/* A flush that succeeds makes durable what had been completed when it was submitted. */
static int model_flush(void)
{
	uint64_t *now = malloc(SECTORS * sizeof(*now)), n_blocks = SPACE_BYTES / rig.block;
	uint8_t *map = malloc(2 * n_blocks), *life = map + n_blocks, *n = malloc(SECTORS);
	int r;

	for (uint64_t s = 0; s < SECTORS; s++) {
		now[s] = rig.sectors[s].unsure ? UINT64_MAX : rig.sectors[s].now;
		n[s] = rig.sectors[s].n_pending;
	}
	memcpy(map, rig.map, n_blocks);
	memcpy(life, rig.life, n_blocks);
	r = bdev_co_flush(rig.b);
	for (uint64_t s = 0; !r && s < SECTORS; s++) {
		struct sector *x = &rig.sectors[s];
		unsigned i = 0;

		while (i < x->n_pending && x->pending[i] != now[s])
			i++;
		if (i < x->n_pending)
			i++;
		else if (!x->writing && !x->unsure && x->now == now[s] && x->durable == now[s] && x->n_pending == n[s]) /* later ones have failed */
			i = n[s];
		else
			continue;
		x->durable = now[s];
		x->n_pending -= i;
		memmove(x->pending, x->pending + i, x->n_pending * sizeof(x->pending[0]));
	}
	for (uint64_t b = 0; !r && b < n_blocks; b++) {
		if (map[b] == MAP_FREE || life[b] != rig.life[b]) /* another flush has been quicker */
			continue;
		rig.map_durable[b] = MAP_MAPPED;
		if (map[b] == MAP_FREEING) {
			rig.map[b] = rig.map_durable[b] = rig.allocated[b] = MAP_FREE;
			rig.life[b]++;
		}
	}
	free(now);
	free(map);
	free(n);
	return r;
}

static inline unsigned flags_for(uint64_t off, uint64_t len)
{
	if (map_is_all(off, len, MAP_FREE))
		return IO_FRESH;
	return map_is_all(off, len, MAP_MAPPED) ? IO_OVERWRITE : 0;
}

static int do_read(uint64_t off, uint64_t len)
{
	uint8_t *buf = buf_alloc(len);
	int r = bdev_co_read(rig.b, off, buf, len);

	if (!r)
		model_check(off, len, buf);
	buf_free(buf, len);
	return r;
}

/* Range locked by the caller. */
static int do_write(uint64_t off, uint64_t len, enum io_op op, unsigned flags)
{
	uint64_t id = rig.next_id++ | (op == IO_ZERO ? ZEROS : 0);
	uint8_t *buf = buf_alloc(len);
	struct iovec iov[6];
	unsigned n = 0;
	struct io io;
	int r;

	while (model_is_full(off, len) || map_has(off, len, MAP_FREEING)) {
		r = do_read(off, len); /* what failed writes have left */
		if (!r)
			r = model_flush();
		if (r) {
			buf_free(buf, len);
			return r;
		}
	}
	flags |= flags_for(off, len);
	for (uint64_t at = 0; at < len; at += SECT)
		sector_fill(buf + at, (off + at) / SECT, id_seen(id));
	io_prep(&io, op, off, len, op == IO_ZERO ? NULL : buf, flags);
	for (uint64_t at = 0, part; op == IO_WRITE && at < len; at += part) { /* in pieces */
		part = (1 + rng_below(&rig.rng, 1 + rng_below(&rig.rng, 32))) * rig.block;
		part = n == 5 ? len - at : MIN(len - at, part);
		iov[n++] = (struct iovec){ buf + at, part };
		io.iov = iov;
		io.iov_n = n;
	}
	model_write(off, len, id);
	r = bdev_co_submit(rig.b, &io);
	if (!r)
		model_written(off, len, id, flags & IO_FUA);
	else
		for (uint64_t s = off / SECT; s < (off + len) / SECT; s++)
			sector_failed(&rig.sectors[s]);
	buf_free(buf, len);
	return r;
}

static inline void write_ok(uint64_t off, uint64_t len, unsigned flags)
{
	EXPECT(do_write(off, len, IO_WRITE, flags) == 0);
}

static inline void verify_all(void)
{
	for (uint64_t off = 0; off < SPACE_BYTES; off += 128 * KIB)
		EXPECT(do_read(off, 128 * KIB) == 0);
}

/* Rows of mapped blocks have the parity they should have. */
static inline void expect_parity(void)
{
	uint64_t at;

	for (uint64_t off = 0, end; off < SPACE_BYTES; off = end + rig.block) {
		for (end = off; end < SPACE_BYTES && end / GROUP_BYTES == off / GROUP_BYTES && rig.map[end / rig.block]; end += rig.block)
			;
		if (end > off)
			EXPECT(raid_co_compare_range(rig.raid, off / GROUP_BYTES, off % GROUP_BYTES, end - off, &at) == 0);
		if (end % GROUP_BYTES == 0 && end > off)
			end -= rig.block;
	}
}

static inline uint64_t stripe_bytes(void)
{
	return (uint64_t)(rig.shape->n_cols - rig.shape->parity) * rig.shape->strip_bytes;
}

/* A range in one group: anything of up to max blocks, or whole stripes. */
static void random_range(unsigned max, bool whole, uint64_t *off, uint64_t *len)
{
	uint64_t group = rng_below(&rig.rng, GROUPS) * GROUP_BYTES, n = GROUP_BYTES / rig.block, at;

	if (whole) {
		n = GROUP_BYTES / stripe_bytes();
		at = rng_below(&rig.rng, n);
		*off = group + at * stripe_bytes();
		*len = (1 + rng_below(&rig.rng, MIN(n - at, 4))) * stripe_bytes();
		return;
	}
	at = rng_below(&rig.rng, n);
	*len = (1 + rng_below(&rig.rng, MIN(max, n - at))) * rig.block;
	*off = group + at * rig.block;
}

static void one_random_op(void)
{
	unsigned what = (unsigned)rng_below(&rig.rng, 24), kib = rng_chance(&rig.rng, 1, 3) ? 160 : 24;
	uint64_t off, len;
	struct range_hold h;
	int r = 0;

	random_range(MAX(1, (unsigned)(kib * KIB / rig.block)), what % 4 == 1, &off, &len);
	range_co_lock(&rig.lock, off, len, what >= 14 && what < 20, &h);
	if (what < 13) {
		r = do_write(off, len, IO_WRITE, rng_chance(&rig.rng, 1, 8) ? IO_FUA : 0);
	} else if (what < 14) {
		r = do_write(off, len, IO_ZERO, 0);
	} else if (what < 20) {
		r = do_read(off, len);
	} else if (what < 22) {
		for (uint64_t b = off / rig.block; b < (off + len) / rig.block; b++)
			if (rig.map[b] == MAP_MAPPED)
				rig.map[b] = MAP_FREEING;
		r = bdev_co_discard(rig.b, off, len, 0);
	} else {
		r = model_flush();
	}
	EXPECT(!rig.flaw_free || r == 0);
	range_unlock(&rig.lock, &h);
}

struct workers {
	unsigned n_ops, running;
	struct co_queue end;
};

static void worker_co_main(void *arg)
{
	struct workers *ws = arg;

	while (ws->n_ops) {
		ws->n_ops--;
		one_random_op();
	}
	if (--ws->running == 0)
		co_queue_wake_all(&ws->end);
}

static void workers_start(struct workers *ws, unsigned n_ops)
{
	ws->n_ops = n_ops;
	ws->running = WORKERS;
	co_queue_init(&ws->end);
	for (unsigned i = 0; i < WORKERS; i++)
		co_spawn(CO_REQUEST, worker_co_main, ws, "worker");
}

static void workers_wait(struct workers *ws)
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

static void set_state(unsigned disk, enum raid_disk_state state)
{
	raid_set_disk(rig.raid, disk, rig.disk[disk], state);
	if (state == RAID_DISK_ONLINE)
		rig.out[disk] = false;
}

/* As the pool does: everything that the stale disk may have missed is made right, flushed, then the disk is current. */
static inline void bring_back(unsigned disk)
{
	uint64_t copied;

	set_state(disk, RAID_DISK_STALE);
	for (unsigned g = 0; g <= GROUPS; g++) {
		raid_co_freeze(rig.raid, g, 0, GROUP_BYTES); /* who does not know of the disk has ended */
		raid_unfreeze(rig.raid, g);
		EXPECT(raid_co_resync_range(rig.raid, g, 0, GROUP_BYTES, &copied) == 0);
	}
	EXPECT(bdev_co_flush(rig.b) == 0);
	set_state(disk, RAID_DISK_ONLINE);
	for (unsigned g = 0; g <= GROUPS && !n_out(); g++) {
		rig.info[g].missed = 0;
		raid_set_missed(rig.raid, g, 0);
	}
}

/* All sets of columns that may be lost beside those that are: everything can still be read, and is the same. Nothing is
 * under way. */
static inline void verify_without(void)
{
	unsigned n = rig.shape->n_cols, already = n_out();

	for (unsigned gone = 1; gone < 1U << n; gone++) {
		bool fits = (unsigned)__builtin_popcount(gone) + already <= rig.shape->parity;

		for (unsigned i = 0; i < n; i++)
			if ((gone & (1U << i)) && raid_disk_state(rig.raid, rig.info[0].desc.cols[i].disk) != RAID_DISK_ONLINE)
				fits = false;
		if (!fits)
			continue;
		for (unsigned i = 0; i < n; i++)
			if (gone & (1U << i))
				raid_set_disk(rig.raid, rig.info[0].desc.cols[i].disk, NULL, RAID_DISK_ABSENT);
		verify_all();
		for (unsigned i = 0; i < n; i++)
			if (gone & (1U << i))
				set_state(rig.info[0].desc.cols[i].disk, RAID_DISK_ONLINE);
	}
}

/* Where a byte lies: column, disk and offset there. */
static inline unsigned locate(uint64_t off, struct raid_place *p, uint64_t *disk_off)
{
	const struct raid_desc *d = &rig.info[off / GROUP_BYTES].desc;

	raid_place(d, off % GROUP_BYTES, 1, p);
	*disk_off = d->cols[p->cols[0]].off_bytes + p->col_off_bytes;
	return d->cols[p->cols[0]].disk;
}

static inline unsigned col_place(unsigned group, unsigned col, uint64_t col_off, uint64_t *disk_off)
{
	*disk_off = rig.info[group].desc.cols[col].off_bytes + col_off;
	return rig.info[group].desc.cols[col].disk;
}

/* ---- up and down ---- */

static void rig_describe(unsigned group)
{
	struct raid_desc *d = &rig.info[group].desc;
	const struct shape *s = rig.shape;

	if (group == LOG_GROUP) {
		*d = (struct raid_desc){ .group = group, .layout = RAID_RAID1, .copies = s->parity + 1, .n_cols = s->parity + 1 };
		d->strip_bytes = 16 * KIB;
		rig.info[group].lease = ~0ULL;
	} else {
		*d = (struct raid_desc){ .group = group, .layout = s->layout, .copies = 1, .n_cols = s->n_cols };
		d->strip_bytes = s->strip_bytes;
	}
	d->size_bytes = GROUP_BYTES;
	d->col_bytes = raid_col_bytes(d->layout, d->copies, d->n_cols, GROUP_BYTES, d->strip_bytes, 64 * KIB);
	for (unsigned i = 0; i < d->n_cols; i++)
		d->cols[i] = (struct raid_col){ .disk = (uint16_t)i, .off_bytes = MIB + (group == LOG_GROUP ? 5 * MIB : group * d->col_bytes) };
	EXPECT(raid_desc_check(d, DISKS, NULL) == 0);
}

static int log_co_flush(void *ctx)
{
	return bdev_co_flush(rig.b);
}

static struct stripe_log_conf log_conf(void)
{
	return (struct stripe_log_conf){ .dev = rig.b, .off_bytes = LOG_GROUP * GROUP_BYTES + 64 * KIB, .len_bytes = LOG_BYTES,
					 .epoch = rig.epoch, .co_flush = log_co_flush };
}

static int replay_each(void *arg, const struct stripe_log_entry *e, const void *payload)
{
	rig.n_replayed++;
	return raid_co_replay(rig.raid, e, payload);
}

/* Coroutine. As a pool is opened: what the log has is replayed, then a new epoch begins. */
static void pool_co_up(void)
{
	struct raid_conf c = { .group_bytes = GROUP_BYTES, .size_bytes = (GROUPS + 1) * GROUP_BYTES, .block_bytes = rig.block };
	struct stripe_log_conf lc;
	uint64_t n;

	c.hooks = &rig_hooks;
	rig.raid = raid_open(&c);
	rig.b = raid_bdev(rig.raid);
	for (unsigned i = 0; i < DISKS; i++)
		raid_set_disk(rig.raid, i, rig.away[i] ? NULL : rig.disk[i],
			      rig.away[i] ? RAID_DISK_ABSENT : rig.out[i] ? RAID_DISK_STALE : RAID_DISK_ONLINE);
	lc = log_conf();
	EXPECT(stripe_log_co_read(&lc, replay_each, NULL, &n, NULL) == 0);
	EXPECT(bdev_co_flush(rig.b) == 0);
	rig.epoch++;
	lc = log_conf();
	raid_log_attach(rig.raid, &lc);
	range_lock_init(&rig.lock);
}

static void world_up(void)
{
	struct sim_options o = { .seed = mix(seed + rig.epoch * 1000 + rig.next_id), .n_reactors = 1 };
	char path[16];

	rig.w = sim_world_create(&o, rig.ds);
	for (unsigned i = 0; i < DISKS; i++) {
		snprintf(path, sizeof(path), "disk%u", i);
		if (disk_co_open(rig.w, path, 0, &rig.disk[i], NULL))
			CU_FAIL_FATAL("disk_co_open");
	}
}

static void disks_up(void)
{
	struct sim_disk_conf conf = { .size_bytes = DISK_BYTES, .block_bytes = rig.block };
	uint8_t *garbage = malloc(64 * KIB);
	char path[16];

	rig.ds = sim_disks_create(seed);
	for (unsigned i = 0; i < DISKS; i++) {
		snprintf(path, sizeof(path), "disk%u", i);
		sim_disks_add(rig.ds, path, &conf);
		for (uint64_t off = MIB; off < 4 * MIB; off += 64 * KIB) {
			rng_fill(&rig.rng, garbage, 64 * KIB);
			sim_disk_poke(rig.ds, i, off, garbage, 64 * KIB);
		}
	}
	free(garbage);
}

static void rig_up(uint64_t s, const struct shape *shape)
{
	memset(&rig, 0, sizeof(rig));
	seed = s;
	rig.shape = shape;
	rng_init(&rig.rng, s * 7919 + shape->n_cols * 17 + shape->parity);
	rig.block = s % 3 == 2 ? 512 : 4096;
	rig.hook_ns = 300 * NS_PER_US;
	rig.next_id = 1;
	rig.epoch = 1;
	rig.flaw_free = true;
	rig.sectors = calloc(SECTORS, sizeof(*rig.sectors));
	rig.map = calloc(1, SPACE_BYTES / rig.block);
	rig.map_durable = calloc(1, SPACE_BYTES / rig.block);
	rig.allocated = calloc(1, SPACE_BYTES / rig.block);
	rig.life = calloc(1, SPACE_BYTES / rig.block);
	for (unsigned g = 0; g <= GROUPS; g++)
		rig_describe(g);
	disks_up();
}

static void rig_down(void)
{
	sim_disks_destroy(rig.ds);
	free(rig.sectors);
	free(rig.map);
	free(rig.map_durable);
	free(rig.allocated);
	free(rig.life);
}

struct rig_test {
	void (*co_body)(void);
};

static int rig_co_main(void *arg)
{
	struct rig_test *t = arg;

	pool_co_up();
	t->co_body();
	raid_co_drain(rig.raid);
	raid_close(rig.raid);
	return 0;
}

/* One life, without a power cut. */
static void rig_run(uint64_t s, const struct shape *shape, void (*co_body)(void))
{
	struct rig_test t = { co_body };

	rig_up(s, shape);
	world_up();
	EXPECT(sim_run(rig.w, rig_co_main, &t, NULL, 0) == 0);
	sim_world_destroy(rig.w);
	rig_down();
}

static inline void rig_run_shapes(unsigned seeds, void (*co_body)(void))
{
	for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
		for (uint64_t s = 1; s <= seeds; s++)
			rig_run(s, &shapes[i], co_body);
}

#endif
