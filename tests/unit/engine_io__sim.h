/*
 * engine_io__sim.h: what the tests of the simulated world share: fresh disks and a world for each test, and small requests
 * for use in coroutines.
 */
#ifndef TESTS_UNIT_ENGINE_IO__SIM_H
#define TESTS_UNIT_ENGINE_IO__SIM_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <CUnit/Basic.h>

#include "engine/base/units.h"
#include "engine/io/buf.h"
#include "engine/io/sim.h"

#define PAGE 4096u
#define GRAN 512u
#define DISK_BYTES (8 * MIB)

static struct sim_disks *ds;
static struct world *w;
static struct disk *d; /* disk 0, open for writing */
static uint64_t seed;

#define EXPECT(cond)                                                                                           \
	do {                                                                                                   \
		bool ok_ = (cond);                                                                             \
		if (!ok_)                                                                                      \
			fprintf(stderr, "seed %llu, line %d: %s\n", (unsigned long long)seed, __LINE__, #cond); \
		CU_ASSERT(ok_);                                                                                \
	} while (0)

static inline void world_up(unsigned n_reactors)
{
	struct sim_options o = { .seed = seed, .n_reactors = n_reactors };

	alloc_track_begin();
	w = sim_world_create(&o, ds);
	EXPECT(disk_co_open(w, "disk0", 0, &d, NULL) == 0);
}

static inline void world_down(void)
{
	sim_world_destroy(w);
	alloc_track_drop();
}

static inline void begin_size(uint64_t s, unsigned n_reactors, unsigned n_disks, uint64_t size, uint32_t block)
{
	struct sim_disk_conf conf = { .size_bytes = size, .block_bytes = block };
	char path[16];
	unsigned i;

	seed = s;
	ds = sim_disks_create(s);
	for (i = 0; i < n_disks; i++) {
		snprintf(path, sizeof(path), "disk%u", i);
		EXPECT(sim_disks_add(ds, path, &conf) == i);
	}
	world_up(n_reactors);
}

static inline void begin(uint64_t s)
{
	begin_size(s, 1, 1, DISK_BYTES, 512);
}

static inline void end(void)
{
	world_down();
	sim_disks_destroy(ds);
}

static inline void cut(enum sim_cut how)
{
	struct rng rng;

	rng_init(&rng, seed * 77 + how);
	sim_disks_power_cut(ds, how, &rng);
}

/* Runs fn to its end, which must be 0. */
static inline void run(int (*fn)(void *arg), void *arg)
{
	int result = -1, r = sim_run(w, fn, arg, &result, 60 * NS_PER_SEC);

	EXPECT(r == 0);
	EXPECT(result == 0);
}

static inline bool is_filled(const void *buf, size_t len, int c)
{
	const uint8_t *p = buf;

	while (len && *p == (uint8_t)c)
		p++, len--;
	return len == 0;
}

/* ---- coroutine helpers ---- */

static inline int fill(struct disk *to, uint64_t off, uint64_t len, int c, unsigned flags)
{
	void *buf = buf_alloc(len);
	int r;

	memset(buf, c, len);
	r = bdev_co_write(&to->bdev, off, buf, len, flags);
	memset(buf, 0xee, len); /* nobody reads it any more */
	buf_free(buf, len);
	return r;
}

/* The byte that fills the range, -1 if it is mixed, or an error below that. */
static inline int read_fill_of(struct disk *from, uint64_t off, uint64_t len)
{
	uint8_t *buf = buf_alloc(len);
	int r = bdev_co_read(&from->bdev, off, buf, len);

	if (r == 0)
		r = is_filled(buf, len, buf[0]) ? buf[0] : -1;
	buf_free(buf, len);
	return r;
}

/* The same of the durable image. */
static inline int durable_fill(unsigned disk, uint64_t off, size_t len)
{
	uint8_t *buf = malloc(len);
	int r;

	sim_disk_peek(ds, disk, off, buf, len);
	r = is_filled(buf, len, buf[0]) ? buf[0] : -1;
	free(buf);
	return r;
}

/* Requests in the background. */
struct bg {
	struct io io;
	void *buf;
	struct reactor *submitted_on;
	unsigned place; /* in the order of completion, from 1; 0: not yet */
	int result;
};
static unsigned n_done; /* background requests completed */

static inline void bg_done(struct io *io)
{
	struct bg *b = io->owner;

	EXPECT(b->place == 0);
	EXPECT(reactor_self() == b->submitted_on);
	b->place = ++n_done;
	b->result = io->result;
}

static inline void bg_start(struct bg *b, enum io_op op, uint64_t off, uint64_t len, int c, unsigned flags)
{
	memset(b, 0, sizeof(*b));
	if (op == IO_READ || op == IO_WRITE) {
		b->buf = buf_alloc(len);
		memset(b->buf, c, len);
	}
	io_prep(&b->io, op, off, len, b->buf, flags);
	b->io.done = bg_done;
	b->io.owner = b;
	b->submitted_on = reactor_self();
	bdev_submit(&d->bdev, &b->io);
	EXPECT(b->place == 0); /* never inside */
}

static inline int bg_wait(struct bg *b)
{
	while (!b->place)
		co_sleep_ns(1000);
	return b->result;
}

#endif
