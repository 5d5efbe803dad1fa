/*
 * One client writes numbers to two volumes in turn, each acknowledged before the next. A snapshot of both never shows a number
 * without the one before it. A third volume is in the same call and keeps it waiting.
 */
#include <stdio.h>
#include <string.h>

#include "engine/base/units.h"
#include "engine/io/buf.h"
#include "tests/lib/sim_rig.h"
#include "tests/unit/unit.h"

#define VOLUMES 3 /* the first and the last are written in turn */
#define BYTES (256 * KIB)
#define ROUNDS 60

static const char *const names[VOLUMES] = { "a", "b", "c" };

struct order {
	struct rig rig;
	struct rng rng;
	bool stop;
	unsigned n_running, n_taken, n_later; /* snapshots; those that show more than the one before */
	uint64_t last;
};

struct one_io {
	struct bdev *b;
	uint64_t off, number;
	bool write;
};

static int io_there(void *arg)
{
	struct one_io *o = arg;
	uint8_t *buf = buf_alloc(4096);
	int r;

	memcpy(buf, &o->number, sizeof(o->number));
	r = o->write ? bdev_co_write(o->b, o->off, buf, 4096, 0) : bdev_co_read(o->b, o->off, buf, 4096);
	memcpy(&o->number, buf, sizeof(o->number));
	buf_free(buf, 4096);
	return r;
}

static struct ashlar_attach *co_attach(struct order *t, const char *volume, const char *snap)
{
	struct ashlar_attach *at = NULL;
	struct err e = { 0 };
	char name[64];

	snprintf(name, sizeof(name), "p/%s%s%s", volume, snap ? "@" : "", snap ? snap : "");
	if (ashlar_co_attach(t->rig.a, name, NULL, NULL, &at, &e) < 0)
		rig_fail(&t->rig, "attach %s: %s", name, e.text);
	return at;
}

static uint64_t co_io(struct order *t, struct ashlar_attach *at, bool write, uint64_t off, uint64_t number)
{
	struct one_io o = { .b = ashlar_attach_bdev(at), .off = off, .number = number, .write = write };

	if (reactor_co_call(ashlar_attach_home(at), io_there, &o) < 0)
		rig_fail(&t->rig, "a request failed");
	return o.number;
}

static void writer_co_main(void *arg)
{
	struct order *t = arg;
	struct ashlar_attach *at[2] = { co_attach(t, names[0], NULL), co_attach(t, names[VOLUMES - 1], NULL) };
	uint64_t n;

	for (n = 1; !t->stop && !t->rig.failed; n++)
		co_io(t, at[n % 2 ? 0 : 1], true, 0, n);
	ashlar_co_detach(at[0]);
	ashlar_co_detach(at[1]);
	t->n_running--;
}

static void busy_co_main(void *arg)
{
	struct order *t = arg;
	struct ashlar_attach *at = co_attach(t, names[1], NULL);
	uint64_t n;

	for (n = 0; !t->stop && !t->rig.failed; n++)
		co_io(t, at, true, 4096 * (n % (BYTES / 4096)), n);
	ashlar_co_detach(at);
	t->n_running--;
}

static uint64_t co_number_in(struct order *t, const char *volume, const char *snap)
{
	struct ashlar_attach *at = co_attach(t, volume, snap);
	uint64_t n = at ? co_io(t, at, false, 0, 0) : 0;

	if (at)
		ashlar_co_detach(at);
	return n;
}

/* Odd numbers go to the first volume, even ones to the last. */
static void co_compare(struct order *t, const char *snap)
{
	uint64_t odd = co_number_in(t, names[0], snap), even = co_number_in(t, names[VOLUMES - 1], snap);

	if (odd + 1 != even && even + 1 != odd)
		rig_fail(&t->rig, "snapshot %s has %llu and %llu", snap, (unsigned long long)odd, (unsigned long long)even);
	t->n_later += odd > t->last;
	t->last = odd;
}

static void co_take(struct order *t, unsigned k)
{
	char full[VOLUMES][64];
	const char *list[VOLUMES] = { full[0], full[1], full[2] };
	struct err e = { 0 };
	unsigned i;

	for (i = 0; i < VOLUMES; i++)
		snprintf(full[i], sizeof(full[i]), "%s@s%u", names[i], k);
	if (ashlar_co_snapshot_create(t->rig.p, list, VOLUMES, &e) < 0)
		rig_fail(&t->rig, "snapshot: %s", e.text);
	t->n_taken++;
}

static int order_co_main(void *arg)
{
	struct order *t = arg;
	struct rig *g = &t->rig;
	char snap[16];
	unsigned k, i;

	if (rig_co_create(g) < 0 || rig_co_open(g, 0) < 0)
		return -EIO;
	for (i = 0; i < VOLUMES; i++)
		rig_co_vol_create(g, names[i], BYTES, NULL, 0);
	t->n_running = 4;
	co_spawn(CO_SERVICE, writer_co_main, t, "in turn");
	for (i = 0; i < 3; i++)
		co_spawn(CO_SERVICE, busy_co_main, t, "busy");
	for (k = 0; k < ROUNDS && !g->failed; k++) {
		co_sleep_ns(2 * NS_PER_MS + rng_below(&t->rng, 3 * NS_PER_MS));
		co_take(t, k);
	}
	t->stop = true;
	while (t->n_running)
		co_sleep_ns(NS_PER_MS);
	for (k = 0; k < ROUNDS && !g->failed; k++) {
		snprintf(snap, sizeof(snap), "s%u", k);
		co_compare(t, snap);
	}
	if (!g->failed)
		rig_co_check(g, true);
	rig_co_close(g);
	return g->failed ? -EUCLEAN : 0;
}

static void snapshots_of_two_volumes_show_no_number_without_the_one_before(void)
{
	struct sim_disk_conf conf = { .size_bytes = 64 * MIB, .block_bytes = 512 };
	unsigned reactors, i;

	for (reactors = 1; reactors <= 4; reactors += 3) {
		struct order t = { .rig = { .n_disks = 2, .layout = "raid1", .block_bytes = 512, .cluster_bytes = 16 * KIB,
					    .group_bytes = MIB, .cache_bytes = 8 * MIB, .n_reactors = reactors } };
		int r, result = 0;

		rng_init(&t.rng, reactors);
		t.rig.disks = sim_disks_create(reactors);
		t.rig.model = model_create();
		for (i = 0; i < t.rig.n_disks; i++)
			sim_disks_add(t.rig.disks, rig_paths[i], &conf);
		rig_world_start(&t.rig, reactors);
		r = sim_run(t.rig.w, order_co_main, &t, &result, 3600 * NS_PER_SEC);
		CU_ASSERT(r == 0 && result == 0 && !t.rig.failed);
		CU_ASSERT(t.n_taken == ROUNDS && t.n_later > ROUNDS / 2);
		rig_world_drop(&t.rig);
		sim_disks_destroy(t.rig.disks);
		model_destroy(t.rig.model);
	}
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(snapshots_of_two_volumes_show_no_number_without_the_one_before),
		CU_TEST_INFO_NULL,
	};

	return tests_run("order of snapshots", tests);
}
