/*
 * Ten thousand snapshots of one volume, a tree of a thousand clones: what is read of the last costs what is read of the first,
 * counted in pages of metadata and reads of the disk, from a cold cache. And each holds what it should.
 */
#include "tests/unit/thin__script.h"
#include "tests/unit/unit.h"

#define CHAIN 10000
#define CLONES 1000
#define BYTES (4 * MIB)
#define SUB 512
#define N_SUBS (BYTES / SUB)

static uint64_t ids[CHAIN];

static struct thin_rig_conf scale_conf(void)
{
	struct thin_rig_conf c = conf_of(1);

	c.unjudged = true;
	c.n_groups = 160;
	c.cache_bytes = 2 * MIB;
	return c;
}

static void stamp(uint8_t *buf, uint32_t who)
{
	unsigned i;

	for (i = 0; i < SUB / sizeof(who); i++)
		memcpy(buf + i * sizeof(who), &who, sizeof(who));
}

static void co_write(struct bdev *b, uint64_t sub, uint32_t who)
{
	uint8_t *buf = buf_alloc(SUB);

	stamp(buf, who);
	EXPECT(bdev_co_write(b, sub * SUB, buf, SUB, 0) == 0);
	buf_free(buf, SUB);
}

static void co_fill_all(struct bdev *b)
{
	uint8_t *buf = buf_alloc(64 * KIB);
	uint64_t off;

	memset(buf, 0, 64 * KIB);
	for (off = 0; off < BYTES; off += 64 * KIB)
		EXPECT(bdev_co_write(b, off, buf, 64 * KIB, 0) == 0);
	buf_free(buf, 64 * KIB);
}

static uint64_t co_copy(struct thin_vol *source, uint8_t kind, const char *prefix, unsigned k)
{
	char name[32];
	struct thin_copy c = { .source = source, .name = name, .kind = kind };

	snprintf(name, sizeof(name), "%s%u", prefix, k);
	EXPECT(thin_co_copy(rig.thin, &c, 1) == 0);
	return c.id;
}

/* Everywhere, so that each point has more and more of what is its own, in two places per cluster. */
static uint64_t place(uint32_t k)
{
	return (uint64_t)k * 2654435761U % N_SUBS;
}

/* ---- what reading costs ---- */

struct cost {
	uint64_t pages, reads;
};

/* One subcluster at a time, in an order that helps nobody; want(arg, sub): who wrote it. */
static struct cost co_read_all(uint64_t id, uint32_t (*want)(uint32_t arg, uint64_t sub), uint32_t arg)
{
	struct thin_vol *v = thin_vol_by_id(rig.thin, id);
	uint8_t *buf = buf_alloc(SUB), expect[SUB];
	struct meta_stats before, after;
	unsigned reads = rig.n_reads, wrong = 0;
	uint64_t i, sub;

	meta_stats_get(rig.meta, &before);
	EXPECT(thin_rig_co_attach(&rig, v) == 0);
	for (i = 0; i < N_SUBS; i++) {
		sub = i * 4099 % N_SUBS;
		EXPECT(bdev_co_read(thin_volume_bdev(v->open), sub * SUB, buf, SUB) == 0);
		stamp(expect, want(arg, sub));
		wrong += memcmp(buf, expect, SUB) != 0;
	}
	EXPECT(wrong == 0);
	thin_rig_co_detach(&rig, v);
	meta_stats_get(rig.meta, &after);
	buf_free(buf, SUB);
	return (struct cost){ after.page_reads - before.page_reads, rig.n_reads - reads };
}

struct look {
	uint64_t id;
	uint32_t (*want)(uint32_t arg, uint64_t sub);
	uint32_t arg;
	struct cost cost;
};

static int co_look(void *arg)
{
	struct look *l = arg;

	EXPECT(thin_rig_co_open(&rig) == 0);
	l->cost = co_read_all(l->id, l->want, l->arg);
	return thin_rig_co_close(&rig);
}

static struct cost cost_of(uint64_t id, uint32_t (*want)(uint32_t arg, uint64_t sub), uint32_t arg)
{
	struct look l = { .id = id, .want = want, .arg = arg };

	EXPECT(thin_rig_run(&rig, co_look, &l) == 0);
	thin_rig_restart(&rig);
	return l.cost;
}

/* As many reads of data as there are places, one each; and no more pages of metadata than the map has, the counts of what it
 * refers to, and the way there. How many of these an opening leaves in the cache differs. */
#define PAGES_MAX 16
static void same_cost(struct cost first, struct cost other, const char *what)
{
	fprintf(stderr, "  %s: %llu pages and %llu reads, the first %llu and %llu\n", what, (unsigned long long)other.pages,
		(unsigned long long)other.reads, (unsigned long long)first.pages, (unsigned long long)first.reads);
	EXPECT(first.reads == N_SUBS && other.reads == N_SUBS);
	EXPECT(first.pages <= PAGES_MAX && other.pages <= PAGES_MAX);
}

/* ---- a chain ---- */

/* Snapshot k was taken after writes 0 .. k. */
static uint32_t chain_want(uint32_t k, uint64_t sub)
{
	uint32_t i;

	for (i = k + 1; i-- > 0 && k - i < 2 * N_SUBS;)
		if (place(i) == sub)
			return i + 1;
	return 0;
}

static int co_chain(void *arg)
{
	uint32_t k;

	(void)arg;
	co_begin(BYTES, 0);
	co_fill_all(bd);
	for (k = 0; k < CHAIN; k++) {
		co_write(bd, place(k), k + 1);
		ids[k] = co_copy(vol, THIN_KIND_SNAPSHOT, "s", k);
	}
	return co_end();
}

/* Every other one, from the middle outwards, while the rest must stay. */
static int co_thin_out(void *arg)
{
	static struct thin_vol *v[CHAIN];
	unsigned n = 0;
	uint32_t k;

	(void)arg;
	EXPECT(thin_rig_co_open(&rig) == 0);
	for (k = 1; k + 1 < CHAIN; k += 2)
		v[n++] = thin_vol_by_id(rig.thin, ids[k]);
	EXPECT(thin_co_volumes_delete(rig.thin, v, n) == 0);
	for (k = 1; k + 1 < CHAIN; k += 2)
		while (thin_vol_by_id(rig.thin, ids[k]))
			co_sleep_ns(10 * NS_PER_MS);
	EXPECT(thin_rig_co_check(&rig) == 0);
	return thin_rig_co_close(&rig);
}

static void the_last_of_a_chain_costs_what_the_first_does(void)
{
	struct thin_rig_conf c = scale_conf();
	struct cost first;

	thin_rig_init(&rig, &c);
	EXPECT(thin_rig_run(&rig, co_chain, NULL) == 0);
	thin_rig_restart(&rig);
	first = cost_of(ids[0], chain_want, 0);
	same_cost(first, cost_of(ids[CHAIN / 2], chain_want, CHAIN / 2), "snapshot 5000");
	same_cost(first, cost_of(ids[CHAIN - 1], chain_want, CHAIN - 1), "snapshot 10000");
	EXPECT(thin_rig_run(&rig, co_thin_out, NULL) == 0);
	thin_rig_restart(&rig);
	same_cost(first, cost_of(ids[CHAIN / 2], chain_want, CHAIN / 2), "snapshot 5000 with half of them deleted");
	thin_rig_fini(&rig);
}

/* ---- a tree ---- */

/* Clone k is made of a snapshot of clone (k - 1) / 2, and writes at place(k). */
static uint32_t tree_want(uint32_t k, uint64_t sub)
{
	for (;; k = (k - 1) / 2) {
		if (place(k) == sub)
			return k + 1;
		if (!k)
			return 0;
	}
}

static int co_tree(void *arg)
{
	struct thin_vol *from;
	uint32_t k;

	(void)arg;
	co_begin(BYTES, 0);
	co_fill_all(bd);
	co_write(bd, place(0), 1);
	ids[0] = vol->id;
	for (k = 1; k < CLONES; k++) {
		from = thin_vol_by_id(rig.thin, ids[(k - 1) / 2]);
		from = thin_vol_by_id(rig.thin, co_copy(from, THIN_KIND_SNAPSHOT, "s", k));
		ids[k] = co_copy(from, THIN_KIND_VOLUME, "c", k);
		vol2 = thin_vol_by_id(rig.thin, ids[k]);
		EXPECT(thin_rig_co_attach(&rig, vol2) == 0);
		co_write(thin_volume_bdev(vol2->open), place(k), k + 1);
		thin_rig_co_detach(&rig, vol2);
	}
	return co_end();
}

static void the_last_of_a_tree_of_clones_costs_what_the_first_does(void)
{
	struct thin_rig_conf c = scale_conf();
	struct cost first;

	thin_rig_init(&rig, &c);
	EXPECT(thin_rig_run(&rig, co_tree, NULL) == 0);
	thin_rig_restart(&rig);
	first = cost_of(ids[0], tree_want, 0);
	same_cost(first, cost_of(ids[CLONES / 2], tree_want, CLONES / 2), "clone 500");
	same_cost(first, cost_of(ids[CLONES - 1], tree_want, CLONES - 1), "clone 999");
	thin_rig_fini(&rig);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(the_last_of_a_chain_costs_what_the_first_does),
		TEST(the_last_of_a_tree_of_clones_costs_what_the_first_does),
		CU_TEST_INFO_NULL,
	};

	return tests_run("thin scale", tests);
}
