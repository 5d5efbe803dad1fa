/*
 * Two places that must be equal: a volume with clients, and a device in memory that its changes are mirrored to.
 */
#include "engine/pool/mirror.h"
#include "tests/lib/mem_bdev.h"
#include "tests/unit/thin__script.h"

#define VOLUME_BYTES (4 * MIB)
#define N_CLIENTS 6
#define OWN_BYTES (256 * KIB) /* of the volume's start, for each client: nobody else writes there */
#define BLOCK 512

static struct mem_bdev *mem;
static struct bdev *to;
static struct pool_mirror *mirror;
static bool to_is_broken;
static unsigned n_broken;

static int mem_fault(void *arg, struct io *io)
{
	if (!to_is_broken)
		return 0;
	n_broken++;
	return -EIO;
}

static void to_begin(uint32_t max_bytes)
{
	struct mem_bdev_options o = { .size_bytes = VOLUME_BYTES + MIB, .block_bytes = BLOCK, .max_bytes = max_bytes,
				      .delay_ns = 100 * 1000, .no_fast_zero = true, .fault = mem_fault };

	to_is_broken = false;
	n_broken = 0;
	mem = mem_bdev_create(&o);
	to = mem_bdev_of(mem);
}

static void to_end(void)
{
	EXPECT(mem_bdev_in_flight(mem) == 0);
	mem_bdev_destroy(mem);
}

/* Coroutine. Does the volume itself hold what the other place holds? */
static bool co_same(void)
{
	uint8_t *a = buf_alloc(MIB), *b = buf_alloc(MIB);
	bool same = true;
	uint64_t off;

	for (off = 0; off < VOLUME_BYTES && same; off += MIB) {
		mem_bdev_peek(mem, off, b, MIB);
		same = bdev_co_read(thin_volume_inner(vol->open), off, a, MIB) == 0 && !memcmp(a, b, MIB);
	}
	buf_free(a, MIB);
	buf_free(b, MIB);
	return same;
}

/* ---- clients ---- */

struct client {
	unsigned index;
	struct rng rng;
	uint8_t own[OWN_BYTES];
	uint64_t n_done;
	bool running;
};

static bool clients_stop, goes_on_there;
static struct client *clients;

static void client_change(struct client *c, uint64_t off, uint64_t len)
{
	bool is_own = off / OWN_BYTES == c->index;
	uint8_t fill = (uint8_t)rng_next(&c->rng);
	unsigned op = (unsigned)rng_below(&c->rng, 8), flags = rng_below(&c->rng, 4) ? 0 : IO_FUA;
	int r;

	if (op < 5)
		r = co_fill(bd, off, len, fill, flags);
	else if (op == 5)
		r = bdev_co_zero(bd, off, len, flags | (fill & 1 ? IO_NO_HOLE : IO_FAST_ZERO));
	else if (op == 6)
		r = bdev_co_zero(bd, off, len, flags);
	else
		r = bdev_co_discard(bd, off, len, flags);
	if (op == 5 && r == -EOPNOTSUPP && goes_on_there) /* there it is not fast */
		r = bdev_co_zero(bd, off, len, flags);
	EXPECT(r == 0);
	if (!is_own)
		return;
	if (op < 7)
		memset(c->own + off % OWN_BYTES, op < 5 ? fill : 0, len);
	else
		EXPECT(bdev_co_read(bd, off, c->own + off % OWN_BYTES, len) == 0); /* less than a subcluster may have stayed */
}

static void client_co_run(void *arg)
{
	struct client *c = arg;
	uint8_t *buf = buf_alloc(OWN_BYTES);

	while (!clients_stop) {
		uint64_t base = rng_below(&c->rng, 2) ? (uint64_t)c->index * OWN_BYTES : (uint64_t)N_CLIENTS * OWN_BYTES;
		uint64_t size = base / OWN_BYTES == c->index ? OWN_BYTES : VOLUME_BYTES - base;
		uint64_t len = (1 + rng_below(&c->rng, rng_below(&c->rng, 8) ? 40 : OWN_BYTES / BLOCK)) * BLOCK;
		uint64_t off = base + rng_below(&c->rng, (size - len) / BLOCK + 1) * BLOCK;

		client_change(c, off, len);
		if (!rng_below(&c->rng, 8))
			EXPECT(bdev_co_flush(bd) == 0);
		if (!rng_below(&c->rng, 8)) {
			EXPECT(bdev_co_read(bd, (uint64_t)c->index * OWN_BYTES, buf, OWN_BYTES) == 0);
			EXPECT(!memcmp(buf, c->own, OWN_BYTES));
		}
		c->n_done++;
	}
	buf_free(buf, OWN_BYTES);
	c->running = false;
}

static void clients_start(void)
{
	unsigned i;

	clients_stop = false;
	clients = xcalloc(N_CLIENTS, sizeof(*clients));
	for (i = 0; i < N_CLIENTS; i++) {
		clients[i].index = i;
		clients[i].running = true;
		rng_init(&clients[i].rng, rig.conf.seed * 100 + i);
		co_spawn(CO_SERVICE, client_co_run, &clients[i], "client");
	}
}

static uint64_t clients_done(void)
{
	uint64_t n = 0;
	unsigned i;

	for (i = 0; i < N_CLIENTS; i++)
		n += clients[i].n_done;
	return n;
}

static void clients_co_stop(void)
{
	unsigned i;

	clients_stop = true;
	for (i = 0; i < N_CLIENTS; i++)
		while (clients[i].running)
			co_sleep_ns(NS_PER_MS);
	xfree(clients);
}

/* ---- under load ---- */

static void co_copy_all(void)
{
	uint64_t n = VOLUME_BYTES / (128 * KIB), first = rng_below(&rig.rng, n), i, copied;

	for (i = 0; i < n; i++) {
		EXPECT(pool_mirror_co_copy(mirror, (first + i) % n * 128 * KIB, 128 * KIB, &copied) == 0);
		if (!rng_below(&rig.rng, 8)) { /* as for a snapshot */
			thin_volume_co_freeze(vol->open, false);
			co_sleep_ns(NS_PER_MS);
			thin_volume_thaw(vol->open);
		}
	}
}

static int load_co(void *arg)
{
	uint64_t n;

	co_begin(VOLUME_BYTES, 0);
	to_begin(rng_below(&rig.rng, 2) ? 64 * KIB : 32 * MIB);
	clients_start();
	co_sleep_ns(50 * NS_PER_MS);
	EXPECT(pool_mirror_co_start(vol->open, to, &mirror) == 0);
	co_copy_all();
	EXPECT(pool_mirror_error(mirror) == 0);
	n = clients_done();
	co_sleep_ns(20 * NS_PER_MS);
	EXPECT(clients_done() > n);
	pool_mirror_co_hold(mirror);
	n = clients_done();
	co_sleep_ns(20 * NS_PER_MS);
	EXPECT(clients_done() <= n + N_CLIENTS); /* who was just about to be answered */
	thin_volume_thaw(vol->open);
	EXPECT(co_same());
	thin_volume_co_freeze(vol->open, true);
	pool_mirror_end(mirror, goes_on_there ? to : NULL);
	n = clients_done();
	co_sleep_ns(100 * NS_PER_MS);
	EXPECT(clients_done() > n + N_CLIENTS);
	n = mem_bdev_count(mem, IO_WRITE);
	co_sleep_ns(100 * NS_PER_MS);
	EXPECT((mem_bdev_count(mem, IO_WRITE) > n) == goes_on_there);
	clients_co_stop();
	n = (uint64_t)co_end();
	to_end();
	return (int)n;
}

static void load(uint64_t first)
{
	struct thin_rig_conf c;
	uint64_t seed;

	for (seed = first; seed < first + 12; seed++) {
		c = conf_of(seed);
		c.co_requests_max = 8;
		goes_on_there = seed & 1;
		script_conf(&c, load_co);
	}
}

static void both_places_are_equal_under_load(void)
{
	load(1);
}

static void both_places_are_equal_where_whole_clusters_are_redirected(void)
{
	struct thin_rig_conf c = conf_of(77);

	c.redirect = true;
	script_conf(&c, load_co);
}

/* ---- errors ---- */

static int second_fails_co(void *arg)
{
	uint64_t copied;
	int r;

	co_begin(VOLUME_BYTES, 0);
	to_begin(0);
	EXPECT(co_fill(bd, 0, MIB, 1, 0) == 0);
	EXPECT(pool_mirror_co_start(vol->open, to, &mirror) == 0);
	EXPECT(pool_mirror_co_copy(mirror, 0, 2 * MIB, &copied) == 0 && copied == MIB);
	to_is_broken = true;
	EXPECT(co_fill(bd, 0, 4096, 2, 0) == 0 && co_is(bd, 0, 4096, 2));
	EXPECT(pool_mirror_error(mirror) == -EIO && n_broken == 1);
	to_is_broken = false;
	EXPECT(co_fill(bd, 4096, 4096, 3, IO_FUA) == 0 && bdev_co_flush(bd) == 0 && bdev_co_discard(bd, MIB / 2, 8192, 0) == 0);
	EXPECT(co_is(bd, 4096, 4096, 3) && co_is(to, 0, MIB, 1)); /* it is left alone */
	EXPECT(pool_mirror_co_copy(mirror, 0, MIB, &copied) == -EIO && pool_mirror_error(mirror) == -EIO);
	pool_mirror_co_hold(mirror);
	pool_mirror_end(mirror, NULL);
	EXPECT(co_fill(bd, 0, MIB, 4, 0) == 0 && co_is(bd, 0, MIB, 4));
	r = co_end();
	to_end();
	return r;
}

static void an_error_of_the_second_place_is_kept_from_clients(void)
{
	struct thin_rig_conf c = conf_of(31);

	script_conf(&c, second_fails_co);
}

static int first_fails_co(void *arg)
{
	struct later w;
	uint64_t copied;
	int r;

	co_begin(VOLUME_BYTES, 0);
	to_begin(0);
	EXPECT(co_fill(bd, 0, MIB, 1, 0) == 0);
	EXPECT(pool_mirror_co_start(vol->open, to, &mirror) == 0);
	EXPECT(pool_mirror_co_copy(mirror, 0, VOLUME_BYTES, &copied) == 0);
	rig.hold_writes = rig.fail_writes = true;
	later_start(&w, IO_WRITE, 0, 64 * KIB, 2);
	thin_rig_release_writes(&rig);
	EXPECT(later_co_wait(&w) == -EIO);
	rig.fail_writes = false;
	EXPECT(pool_mirror_error(mirror) == 0 && co_same());
	EXPECT(co_fill(bd, 0, 64 * KIB, 3, 0) == 0 && co_same() && co_is(to, 0, 64 * KIB, 3));
	pool_mirror_co_hold(mirror);
	pool_mirror_end(mirror, to);
	r = co_end();
	to_end();
	return r;
}

static void what_the_volume_refuses_is_not_in_the_second_place(void)
{
	struct thin_rig_conf c = conf_of(32);

	script_conf(&c, first_fails_co);
}

/* ---- waiting for space ---- */

static bool space_goes_there;

static int full_co(void *arg)
{
	uint64_t used = 0, copied;
	struct later w, w2;
	int r;

	co_begin(64 * MIB, 0);
	to_begin(0);
	mem_bdev_destroy(mem);
	mem = mem_bdev_create(&(struct mem_bdev_options){ .size_bytes = 64 * MIB, .max_bytes = 4 * MIB, .delay_ns = 1000 });
	to = mem_bdev_of(mem);
	while ((r = co_fill(bd, used, 64 * KIB, 1, 0)) == 0)
		used += 64 * KIB;
	EXPECT(r == -ERR_POOL_FULL && used >= 8 * MIB && used < 32 * MIB);
	thin_volume_set_full_wait(vol->open, UINT64_MAX);
	later_start(&w, IO_WRITE, 40 * MIB, 4096, 7); /* began before there was a mirror */
	EXPECT(!w.done);
	EXPECT(pool_mirror_co_start(vol->open, to, &mirror) == 0);
	EXPECT(pool_mirror_co_copy(mirror, 0, 64 * MIB, &copied) == 0);
	later_start(&w2, IO_WRITE, 41 * MIB, 4096, 8);
	EXPECT(!w.done && !w2.done && co_is(to, 40 * MIB, MIB, 0)); /* w2 may be in the second place already */
	pool_mirror_co_hold(mirror); /* they are held like any other */
	EXPECT(!w.done && !w2.done && co_is(to, 40 * MIB, MIB, 0)); /* w2 may be in the second place already */
	pool_mirror_end(mirror, space_goes_there ? to : NULL);
	if (!space_goes_there) {
		co_sleep_ns(NS_PER_SEC);
		EXPECT(!w.done && !w2.done);
		EXPECT(pool_mirror_co_start(vol->open, to, &mirror) == 0); /* they do not pass by another one */
		EXPECT(pool_mirror_co_copy(mirror, 0, 64 * MIB, &copied) == 0);
		EXPECT(!w.done && !w2.done);
		EXPECT(bdev_co_discard(bd, 0, 256 * KIB, 0) == 0);
		EXPECT(later_co_wait(&w) == 0 && later_co_wait(&w2) == 0);
		pool_mirror_co_hold(mirror);
		pool_mirror_end(mirror, NULL);
	}
	EXPECT(later_co_wait(&w) == 0 && later_co_wait(&w2) == 0);
	EXPECT(co_is(bd, 40 * MIB, 4096, 7) && co_is(bd, 41 * MIB, 4096, 8));
	EXPECT(co_is(to, 40 * MIB, 4096, 7) && co_is(to, 41 * MIB, 4096, 8));
	r = co_end();
	to_end();
	return r;
}

static void what_waits_for_space_is_held_and_goes_on(void)
{
	unsigned i;

	for (i = 0; i < 2; i++) {
		struct thin_rig_conf c = conf_of(40 + i);

		c.cluster_bytes = 64 * KIB;
		c.n_groups = 8;
		space_goes_there = i;
		script_conf(&c, full_co);
	}
}

/* ---- the rest ---- */

static int rules_co(void *arg)
{
	struct mem_bdev *small = mem_bdev_create(&(struct mem_bdev_options){ .size_bytes = VOLUME_BYTES - BLOCK });
	struct thin_volume_stats st;
	struct later w;
	int r;

	co_begin(VOLUME_BYTES, 0);
	to_begin(0);
	EXPECT(pool_mirror_co_start(vol->open, mem_bdev_of(small), &mirror) == -EINVAL);
	mem_bdev_destroy(small);
	EXPECT(pool_mirror_co_start(vol->open, to, &mirror) == 0);
	EXPECT(thin_volume_co_resize(vol->open, VOLUME_BYTES / 2) == -EBUSY && bd->size_bytes == VOLUME_BYTES);
	EXPECT(thin_volume_co_resize(vol->open, VOLUME_BYTES * 2) == -EBUSY && bd->size_bytes == VOLUME_BYTES);
	EXPECT(co_fill(bd, 0, 4096, 1, IO_FUA) == 0 && mem_bdev_count_fua(mem) == 1);
	EXPECT(bdev_co_flush(bd) == 0 && mem_bdev_count(mem, IO_FLUSH) == 1);
	thin_volume_stats_get(vol->open, &st);
	EXPECT(st.writes == 1 && st.bytes_written == 4096);
	pool_mirror_co_hold(mirror);
	later_start(&w, IO_READ, 0, 4096, 1);
	EXPECT(!w.done);
	pool_mirror_end(mirror, NULL);
	EXPECT(later_co_wait(&w) == 0 && mem_bdev_count(mem, IO_READ) == 0);
	EXPECT(thin_volume_co_resize(vol->open, VOLUME_BYTES / 2) == 0 && bd->size_bytes == VOLUME_BYTES / 2);
	EXPECT(thin_volume_inner(vol->open)->size_bytes == VOLUME_BYTES / 2);
	r = co_end();
	to_end();
	return r;
}

static void sizes_stay_and_flags_are_kept(void)
{
	struct thin_rig_conf c = conf_of(51);

	script_conf(&c, rules_co);
}

static int close_co(void *arg)
{
	struct later w;
	int r;

	co_begin(VOLUME_BYTES, 0);
	to_begin(0);
	EXPECT(pool_mirror_co_start(vol->open, to, &mirror) == 0);
	pool_mirror_co_hold(mirror);
	pool_mirror_end(mirror, to);
	mem_bdev_options(mem)->delay_ns = NS_PER_SEC;
	later_start(&w, IO_WRITE, 0, 4096, 1);
	EXPECT(!w.done);
	r = co_end();
	EXPECT(w.done && w.result == 0); /* what is elsewhere ends before the volume is closed */
	to_end();
	return r;
}

static void closing_waits_for_what_went_elsewhere(void)
{
	struct thin_rig_conf c = conf_of(52);

	script_conf(&c, close_co);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(both_places_are_equal_under_load),
		TEST(both_places_are_equal_where_whole_clusters_are_redirected),
		TEST(an_error_of_the_second_place_is_kept_from_clients),
		TEST(what_the_volume_refuses_is_not_in_the_second_place),
		TEST(what_waits_for_space_is_held_and_goes_on),
		TEST(sizes_stay_and_flags_are_kept),
		TEST(closing_waits_for_what_went_elsewhere),
		CU_TEST_INFO_NULL,
	};

	return tests_run("mirror", tests);
}
