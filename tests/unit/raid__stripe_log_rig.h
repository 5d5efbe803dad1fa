/*
 * raid__stripe_log_rig.h: a stripe log on a mirror of two simulated disks, for raid__stripe_log*.c. The mirror honours
 * io.copy; a copy can be away (-ENODATA), and a write that fails on one disk fails.
 *
 * Entries carry the number of their append: payload is made from it, so that whatever is found tells what it is.
 */
#ifndef TESTS_UNIT_RAID__STRIPE_LOG_RIG_H
#define TESTS_UNIT_RAID__STRIPE_LOG_RIG_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <CUnit/Basic.h>

#include "engine/base/crc32c.h"
#include "engine/base/units.h"
#include "engine/io/buf.h"
#include "engine/io/sim.h"
#include "raid/stripe_log.h"
#include "raid/stripe_log_format.h"

#define COPIES 2
#define RING_OFF (64 * KIB)
#define DISK_BYTES (4 * MIB)
#define SLICE 3
#define FOUND_MAX 4096

struct seen {
	struct stripe_log_entry e;
	uint64_t id;
};

struct rig {
	struct rng rng;
	struct sim_disks *ds;
	struct world *w;
	struct disk *disk[COPIES];
	struct bdev dev;
	bool away[COPIES], silent[COPIES]; /* silent: takes writes, answers no read in time */
	struct stripe_log_conf conf;
	struct stripe_log *l;
	unsigned n_flushes, n_writes, n_reads;
	uint64_t flush_ns; /* a flush takes that much longer */
	int flush_result;
	/* what the last recovery gave */
	struct seen *found;
	size_t n_found;
	struct err err;
};

static struct rig rig;
static uint64_t seed;

#define EXPECT(cond)                                                                                       \
	do {                                                                                               \
		bool ok_ = (cond);                                                                         \
		if (!ok_)                                                                                  \
			fprintf(stderr, "seed %llu, line %d: %s\n", (unsigned long long)seed, __LINE__, #cond); \
		CU_ASSERT(ok_);                                                                            \
	} while (0)

/* ---- the mirror ---- */

struct fan {
	struct io io[COPIES];
	struct io *parent;
	struct task task;
	unsigned pending;
	int result;
};

static void fan_end(struct task *t)
{
	struct fan *f = container_of(t, struct fan, task);
	struct io *parent = f->parent;
	int r = f->result;

	xfree(f);
	io_done(parent, r);
}

static void leg_done(struct io *io)
{
	struct fan *f = io->owner;

	if (io->result < 0)
		f->result = io->result;
	if (--f->pending == 0)
		reactor_ready(&f->task);
}

static void mirror_submit(struct bdev *b, struct io *io)
{
	struct fan *f = xcalloc(1, sizeof(*f));
	unsigned only = io->op == IO_READ ? (io->copy ? io->copy : rig.away[0] ? 2 : 1) : 0;

	CHECK(io->op == IO_FLUSH || (bdev_check_range(b, io->off_bytes, io->len_bytes) == 0 && io->len_bytes <= b->max_bytes));
	rig.n_writes += io->op == IO_WRITE;
	rig.n_reads += io->op == IO_READ;
	f->parent = io;
	f->task.run = fan_end;
	list_init(&f->task.link);
	f->pending = 1;
	if (only && (only > COPIES || rig.away[only - 1]))
		f->result = -ENODATA;
	else if (only && rig.silent[only - 1])
		f->result = -ETIMEDOUT;
	for (unsigned i = 0; i < COPIES && !f->result; i++) {
		if (rig.away[i] || (only && i != only - 1))
			continue;
		io_prep(&f->io[i], (enum io_op)io->op, io->off_bytes, io->len_bytes, NULL, io->flags);
		f->io[i].iov = io->iov;
		f->io[i].iov_n = io->iov_n;
		f->io[i].done = leg_done;
		f->io[i].owner = f;
		f->pending++;
		bdev_submit(&rig.disk[i]->bdev, &f->io[i]);
	}
	if (--f->pending == 0)
		reactor_ready(&f->task);
}

static const struct bdev_ops mirror_ops = { .submit = mirror_submit };

static int hook_flush(void *ctx)
{
	rig.n_flushes++;
	if (rig.flush_ns)
		co_sleep_ns(rig.flush_ns);
	return rig.flush_result ? rig.flush_result : bdev_co_flush(&rig.dev);
}

/* ---- up and down ---- */

static void rig_init(uint64_t s, uint64_t ring_bytes)
{
	struct sim_disk_conf conf = { .size_bytes = DISK_BYTES, .block_bytes = 512 };

	memset(&rig, 0, sizeof(rig));
	seed = s;
	rng_init(&rig.rng, s);
	rig.ds = sim_disks_create(s);
	sim_disks_add(rig.ds, "a", &conf);
	sim_disks_add(rig.ds, "b", &conf);
	rig.found = calloc(FOUND_MAX, sizeof(*rig.found));
	rig.dev = (struct bdev){ .ops = &mirror_ops, .name = "mirror", .size_bytes = DISK_BYTES, .block_bytes = 512,
				 .opt_bytes = 4096, .max_bytes = MIB, .copies = COPIES + 1 };
	rig.conf = (struct stripe_log_conf){ .dev = &rig.dev, .off_bytes = RING_OFF, .len_bytes = ring_bytes, .epoch = 7,
					     .slice = SLICE, .co_flush = hook_flush };
	memset(rig.conf.pool.b, 0x5a, sizeof(rig.conf.pool.b));
}

static void rig_fini(void)
{
	sim_disks_destroy(rig.ds);
	free(rig.found);
}

static void world_up(void)
{
	struct sim_options o = { .seed = rng_next(&rig.rng), .n_reactors = 1 };

	rig.w = sim_world_create(&o, rig.ds);
	if (disk_co_open(rig.w, "a", 0, &rig.disk[0], NULL) || disk_co_open(rig.w, "b", 0, &rig.disk[1], NULL))
		CU_FAIL_FATAL("disk_co_open");
}

struct body {
	void (*co_run)(void);
};

static int co_main(void *arg)
{
	((struct body *)arg)->co_run();
	return 0;
}

/* One world in which fn runs to its end. The log is opened by fn; if fn does not close it, it is dropped as it stands. */
static void world_run(void (*co_run)(void))
{
	struct body b = { co_run };

	alloc_track_begin();
	world_up();
	EXPECT(sim_run(rig.w, co_main, &b, NULL, 0) == 0);
	sim_world_destroy(rig.w);
	if (rig.l)
		alloc_track_drop();
	else
		alloc_track_end();
	rig.l = NULL;
}

static inline void rig_run(uint64_t s, uint64_t ring_bytes, void (*co_run)(void))
{
	rig_init(s, ring_bytes);
	world_run(co_run);
	rig_fini();
}

static void log_up(void)
{
	rig.l = stripe_log_open(&rig.conf);
}

static inline void log_down(void)
{
	stripe_log_close(rig.l);
	rig.l = NULL;
}

/* ---- entries that tell what they are ---- */

static void payload_make(uint64_t id, const struct stripe_log_entry *e, void *buf, uint64_t len)
{
	le64 head = le64_make(id);
	struct rng r;

	rng_init(&r, id * 1000003 + e->stripe * 31 + e->row_off_bytes);
	rng_fill(&r, buf, len);
	if (id % 5 == 0) /* looks like a header */
		for (uint64_t at = 0; at < len; at += 512)
			memcpy((uint8_t *)buf + at, STRIPE_LOG_MAGIC, 8);
	memcpy((uint8_t *)buf + len - 8, &head, 8);
}

static inline uint64_t entry_bytes(const struct stripe_log_entry *e)
{
	return (uint64_t)__builtin_popcount(e->cols) * e->row_len_bytes;
}

/* memcmp() would look at padding. */
static inline bool entry_is(const struct stripe_log_entry *a, const struct stripe_log_entry *b)
{
	return a->group == b->group && a->stripe == b->stripe && a->row_off_bytes == b->row_off_bytes &&
	       a->row_len_bytes == b->row_len_bytes && a->cols == b->cols;
}

/* Coroutine. Appends entries with the payload of `id`, given in pieces. */
static int co_append(uint64_t id, const struct stripe_log_entry *e, unsigned n, struct stripe_log_ticket *t)
{
	struct iovec iov[3 * STRIPE_LOG_ENTRIES_MAX];
	uint64_t total = 0, at = 0, len;
	unsigned n_iov = 0;
	uint8_t *buf;
	int r;

	for (unsigned i = 0; i < n; i++)
		total += entry_bytes(&e[i]);
	buf = xmalloc(total);
	for (unsigned i = 0; i < n; i++, at += len) {
		len = entry_bytes(&e[i]);
		payload_make(id, &e[i], buf + at, len);
		iov[n_iov++] = (struct iovec){ buf + at, 100 };
		iov[n_iov++] = (struct iovec){ NULL, 0 };
		iov[n_iov++] = (struct iovec){ buf + at + 100, len - 100 };
	}
	r = stripe_log_co_append(rig.l, e, n, iov, n_iov, t);
	xfree(buf);
	return r;
}

/* One entry of two columns, len bytes in all. */
static inline int co_append_one(uint64_t id, uint64_t stripe, uint32_t len, struct stripe_log_ticket *t)
{
	struct stripe_log_entry e = { .group = 9, .stripe = stripe, .row_off_bytes = 512, .row_len_bytes = len / 2, .cols = 5 };

	return co_append(id, &e, 1, t);
}

static int each_found(void *arg, const struct stripe_log_entry *e, const void *payload)
{
	uint64_t len = entry_bytes(e);
	uint8_t *want = malloc(len);
	le64 id;

	memcpy(&id, (const uint8_t *)payload + len - 8, 8);
	payload_make(le64_get(id), e, want, len);
	EXPECT(!memcmp(want, payload, len) && ((uintptr_t)payload & 511) == 0);
	free(want);
	if (rig.n_found == FOUND_MAX)
		return -ENOMEM;
	rig.found[rig.n_found++] = (struct seen){ *e, le64_get(id) };
	return 0;
}

/* Coroutine. */
static int co_recover(void)
{
	uint64_t n;
	int r;

	rig.n_found = 0;
	memset(&rig.err, 0, sizeof(rig.err));
	r = stripe_log_co_read(&rig.conf, each_found, NULL, &n, &rig.err);
	EXPECT(r == 0 ? n == rig.n_found : rig.err.text[0] != 0);
	return r;
}

/* The last recovery found exactly these appends of one entry. */
static inline bool found_are(const uint64_t *ids, size_t n)
{
	if (rig.n_found != n)
		return false;
	for (size_t i = 0; i < n; i++)
		if (rig.found[i].id != ids[i])
			return false;
	return true;
}
#define FOUND(...) found_are((uint64_t[]){ __VA_ARGS__ }, sizeof((uint64_t[]){ __VA_ARGS__ }) / sizeof(uint64_t))

static inline void co_flush_all(void)
{
	uint64_t mark = stripe_log_flush_begin(rig.l);

	stripe_log_flush_end(rig.l, mark, bdev_co_flush(&rig.dev) == 0);
}

static inline uint64_t log_batches(void)
{
	struct stripe_log_stats st;

	stripe_log_stats_get(rig.l, &st);
	return st.batches;
}

static inline uint64_t log_used(void)
{
	struct stripe_log_stats st;

	stripe_log_stats_get(rig.l, &st);
	return st.used_bytes;
}

#endif
