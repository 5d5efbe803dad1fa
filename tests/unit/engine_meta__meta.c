/* The metadata store alone: arrays against a model, crashes, damage, limits. The rig is in engine_meta__rig.h. */
#include "tests/unit/engine_meta__rig.h"

#include "engine/base/crc32c.h"
#include "tests/unit/unit.h"

static const struct rig_conf conf_default = {
	.seed = 1, .group_bytes = 4 * MIB, .journal_bytes = 512 * KIB, .cache_bytes = 2 * MIB, .checkpoint_ns = NS_PER_SEC,
	.max_groups = 16,
};

static struct rig_conf conf_with(uint64_t s)
{
	struct rig_conf c = conf_default;

	c.seed = s;
	return c;
}

/* ---- arrays ---- */

static int next_leaf_agrees(struct rig *r, unsigned a)
{
	struct meta_array *arr = rig_array(r, a);
	uint64_t leaf = 0, want, i;
	int e;

	for (;; leaf++) {
		for (want = UINT64_MAX, i = 0; i < RIG_PLACES; i++)
			if (r->model[a][i] && rig_leaf(r, a, (unsigned)i) >= leaf)
				want = MIN(want, rig_leaf(r, a, (unsigned)i));
		e = meta_array_co_next_leaf(arr, &leaf);
		EXPECT(e == (want == UINT64_MAX ? -ENOENT : 0));
		if (e < 0)
			return e == -ENOENT ? 0 : e;
		EXPECT(leaf == want);
		if (leaf != want)
			return -EUCLEAN;
	}
}

static int random_changes(struct rig *r)
{
	unsigned round, a;
	int e = rig_co_format(r);

	for (round = 0; round < 12 && e == 0; round++) {
		e = rig_co_changes(r, 300);
		if (e == 0)
			e = rig_co_compare(r);
		for (a = 0; a < RIG_ARRAYS && e == 0; a++)
			e = next_leaf_agrees(r, a);
		if (e == 0 && round % 3 == 0)
			e = meta_co_checkpoint(r->m);
		if (e == 0)
			e = rig_co_check(r);
	}
	return e < 0 ? e : e + rig_co_close(r);
}

static void arrays_agree_with_a_model(void)
{
	uint64_t s;

	for (s = 1; s <= 4; s++) {
		struct rig_conf c = conf_with(s);
		struct rig r;

		rig_init(&r, &c);
		EXPECT(rig_run(&r, random_changes) == 0);
		rig_fini(&r);
	}
}

static int clear_all(struct rig *r)
{
	struct meta_stats before, after;
	unsigned a, i;
	int e = rig_co_format(r);

	if (e == 0)
		e = meta_co_checkpoint(r->m);
	meta_stats_get(r->m, &before);
	for (a = 0; a < RIG_ARRAYS && e == 0; a++)
		for (i = 0; i < RIG_PLACES && e == 0; i++)
			e = rig_co_set(r, a, i, i + 1);
	if (e == 0)
		e = meta_co_checkpoint(r->m);
	for (a = 0; a < RIG_ARRAYS; a++)
		EXPECT(rig_array(r, a)->height >= 5);
	for (a = 0; a < RIG_ARRAYS && e == 0; a++)
		for (i = 0; i < RIG_PLACES && e == 0; i++)
			e = i % 2 ? rig_co_set(r, a, i, 0) : rig_co_drop(r, a, i);
	if (e == 0)
		e = meta_co_checkpoint(r->m);
	for (a = 0; a < RIG_ARRAYS; a++) {
		EXPECT(rig_array(r, a)->height == 0);
		EXPECT(rig_array(r, a)->root.addr == 0);
	}
	meta_stats_get(r->m, &after);

	EXPECT(after.pages_used <= before.pages_used + 2 * r->n_groups); /* counts of pages have pages */
	if (e == 0)
		e = rig_co_check(r);
	return e < 0 ? e : e + rig_co_close(r);
}

static void what_is_cleared_costs_nothing(void)
{
	struct rig r;

	rig_init(&r, &conf_default);
	EXPECT(rig_run(&r, clear_all) == 0);
	rig_fini(&r);
}

static int grow_by_powers(struct rig *r)
{
	struct meta_array *a;
	unsigned bits, i;
	int e = rig_co_format(r);

	for (i = 0; i < RIG_PLACES; i++)
		r->idx[0][i] = 0;
	for (bits = 0; bits < 56 && e == 0; bits += 4) {
		r->idx[0][bits] = (1ULL << bits) - 1;
		e = rig_co_set(r, 0, bits, bits + 1);
		if (e == 0)
			e = rig_co_compare(r);
		a = rig_array(r, 0);
		/* 1024 entries of 4 bytes in a leaf, 256 ways */
		EXPECT(a->height == (bits <= 10 ? 0 : DIV_UP(bits - 10, 8)));
	}
	if (e == 0)
		e = rig_co_check(r);
	return e < 0 ? e : e + rig_co_close(r);
}

static void a_tree_is_as_high_as_it_must_be(void)
{
	struct rig r;

	rig_init(&r, &conf_default);
	EXPECT(rig_run(&r, grow_by_powers) == 0);
	rig_fini(&r);
}

/* ---- crashes ---- */

static unsigned n_changes;
static bool want_checkpoint, want_commit;

static int work(struct rig *r)
{
	int e = rig_co_changes(r, n_changes);

	if (e == 0 && want_checkpoint)
		e = meta_co_checkpoint(r->m);
	if (e == 0)
		e = rig_co_changes(r, n_changes / 2);
	if (e == 0 && want_commit)
		e = rig_co_commit(r);
	return e < 0 ? e : rig_co_changes(r, n_changes / 3);
}

static int open_and_compare(struct rig *r)
{
	int e = rig_co_open(r);

	if (e == 0)
		e = rig_co_compare(r);
	return e < 0 ? e : rig_co_check(r);
}

static bool opens(struct rig *r)
{
	int e = rig_run(r, open_and_compare);

	EXPECT(e == 0);
	return e == 0;
}

static void a_crash_leaves_a_prefix_of_the_records(void)
{
	static const enum sim_cut cuts[] = { SIM_CUT_RANDOM, SIM_CUT_NONE, SIM_CUT_ALL, SIM_CUT_PREFIX, SIM_CUT_RANDOM };
	struct rig_conf c = conf_with(11);
	unsigned round;
	struct rig r;

	c.journal_bytes = 256 * KIB;
	rig_init(&r, &c);
	EXPECT(rig_run(&r, rig_co_format) == 0);
	for (round = 0; round < 30; round++) {
		n_changes = 1 + (unsigned)rng_below(&r.rng, 400);
		want_checkpoint = rng_chance(&r.rng, 1, 3);
		want_commit = rng_chance(&r.rng, 2, 3);
		EXPECT(rig_run(&r, work) == 0);
		sim_run_for(r.w, rng_below(&r.rng, 2 * NS_PER_SEC));
		rig_restart(&r, &cuts[round % ARRAY_LEN(cuts)]);
		if (!opens(&r))
			goto out;
	}
	EXPECT(rig_run(&r, rig_co_close) == 0);
out:
	rig_fini(&r);
}

/* The stop point falls anywhere, in checkpoints and in recovery too. */
static void a_crash_at_any_event_is_survived(void)
{
	static const enum sim_cut cut = SIM_CUT_RANDOM;
	struct rig_conf c = conf_with(12);
	unsigned round;
	struct rig r;
	int e;

	c.journal_bytes = 128 * KIB;
	rig_init(&r, &c);
	EXPECT(rig_run(&r, rig_co_format) == 0);
	n_changes = 120;
	want_checkpoint = want_commit = true;
	for (round = 0; round < 60; round++) {
		sim_disks_stop_at(r.ds, sim_disks_n_events(r.ds) + 1 + rng_below(&r.rng, 120));
		e = rig_run(&r, work);
		EXPECT(e == 0 || e == -ECANCELED);
		rig_restart(&r, &cut);
		if (rng_chance(&r.rng, 1, 2)) { /* and again while it opens */
			sim_disks_stop_at(r.ds, sim_disks_n_events(r.ds) + 1 + rng_below(&r.rng, 10));
			e = rig_run(&r, open_and_compare);
			EXPECT(e == 0 || e == -ECANCELED);
			rig_restart(&r, &cut);
		}
		if (!opens(&r))
			goto out;
	}
	EXPECT(rig_run(&r, rig_co_close) == 0);
out:
	rig_fini(&r);
}

static int many_laps(struct rig *r)
{
	struct meta_stats s;
	int e = 0;

	do {
		e = rig_co_changes(r, 20);
		if (e == 0)
			e = rig_co_commit(r);
		meta_stats_get(r->m, &s);
		EXPECT(s.journal_used_bytes <= s.journal_bytes);
	} while (e == 0 && s.journal_bytes_written < 40 * s.journal_bytes);
	return e;
}

static void the_journal_wraps_many_times(void)
{
	static const enum sim_cut cut = SIM_CUT_NONE;
	struct rig_conf c = conf_with(13);
	struct rig r;
	unsigned i;

	c.journal_bytes = 64 * KIB;
	rig_init(&r, &c);
	EXPECT(rig_run(&r, rig_co_format) == 0);
	for (i = 0; i < 4; i++) {
		EXPECT(rig_run(&r, many_laps) == 0);
		rig_restart(&r, &cut);
		if (!opens(&r))
			goto out;
	}
	EXPECT(rig_run(&r, rig_co_close) == 0);
out:
	rig_fini(&r);
}

static int checkpoint_before_commit(struct rig *r)
{
	struct meta_stats before, after;
	int e = rig_co_format(r);

	meta_stats_get(r->m, &before);
	if (e == 0)
		e = rig_co_changes(r, 5);
	if (e == 0)
		e = meta_co_checkpoint(r->m); /* within the committer's second */
	r->n_committed = r->n_recs;
	co_sleep_ns(3 * NS_PER_SEC);
	meta_stats_get(r->m, &after);
	EXPECT(after.commits == before.commits);
	EXPECT(meta_durable_seq(r->m) == r->n_recs);
	return e < 0 ? e : rig_co_changes(r, 3);
}

static void records_of_a_checkpoint_make_no_block(void)
{
	static const enum sim_cut cut = SIM_CUT_ALL;
	struct rig_conf c = conf_with(15);
	struct rig r;

	rig_init(&r, &c);
	EXPECT(rig_run(&r, checkpoint_before_commit) == 0);
	rig_restart(&r, &cut);
	EXPECT(rig_run(&r, open_and_compare) == 0);
	rig_fini(&r);
}

static int replay_read_only(struct rig *r)
{
	uint64_t n = 0;
	int e = rig_co_load(r, &n);

	EXPECT(n > 0);
	EXPECT(meta_applied_seq(r->m) == r->n_recs);
	if (e == 0)
		e = rig_co_compare(r);
	rig_co_abandon(r);
	return e;
}

static void a_read_only_replay_writes_nothing(void)
{
	static const enum sim_cut cut = SIM_CUT_ALL;
	struct rig_conf c = conf_with(14);
	uint64_t hash;
	struct rig r;

	c.checkpoint_ns = 3600 * NS_PER_SEC;
	rig_init(&r, &c);
	EXPECT(rig_run(&r, rig_co_format) == 0);
	n_changes = 300;
	want_checkpoint = false;
	want_commit = true;
	EXPECT(rig_run(&r, work) == 0);
	EXPECT(rig_run(&r, rig_co_commit) == 0);
	rig_restart(&r, &cut);
	hash = sim_disks_hash(r.ds);
	r.conf.read_only = true;
	EXPECT(rig_run(&r, replay_read_only) == 0);
	EXPECT(sim_disks_hash(r.ds) == hash);
	rig_fini(&r);
}

/* ---- damage ---- */

static int fill_and_close(struct rig *r)
{
	unsigned a, i;
	int e = rig_co_format(r);

	for (a = 0; a < RIG_ARRAYS && e == 0; a++)
		for (i = 0; i < 60 && e == 0; i++)
			e = rig_co_set(r, a, i, 7 + i);
	return e < 0 ? e : rig_co_close(r);
}

/* Address of the root's page of array 0 as of the close. */
static uint64_t root_of(struct rig *r, unsigned array)
{
	struct meta_root_disk d;

	sim_disk_peek(r->ds, 0, r->root.addr * META_PAGE_BYTES, &d, sizeof(d));
	return le64_get(d.arrays[array].root.addr);
}

static int one_copy_bad(struct rig *r)
{
	uint8_t entry[4];
	int e = rig_co_open(r);

	if (e == 0)
		e = meta_array_co_get(r->arrays[0], r->idx[0][0], entry);
	if (e == 0)
		e = rig_co_compare(r);
	EXPECT(r->n_repaired == 1);
	if (e == 0)
		e = rig_co_close(r);
	return e;
}

static void a_bad_copy_is_repaired_from_a_good_one(void)
{
	uint8_t a[META_PAGE_BYTES], b[META_PAGE_BYTES];
	struct rig_conf c = conf_with(21);
	uint64_t addr;
	struct rig r;

	rig_init(&r, &c);
	EXPECT(rig_run(&r, fill_and_close) == 0);
	rig_restart(&r, NULL);
	addr = root_of(&r, 1);
	EXPECT(addr != 0);
	rig_flip(&r, 0, addr * META_PAGE_BYTES + 100, 4);
	EXPECT(rig_run(&r, one_copy_bad) == 0);
	sim_disk_peek(r.ds, 0, addr * META_PAGE_BYTES, a, sizeof(a));
	sim_disk_peek(r.ds, 1, addr * META_PAGE_BYTES, b, sizeof(b));
	EXPECT(!memcmp(a, b, sizeof(a)));
	rig_fini(&r);
}

static int all_copies_bad(struct rig *r)
{
	uint8_t entry[1024];
	int e = rig_co_open(r);

	if (e < 0)
		return e;
	EXPECT(meta_array_co_get(r->arrays[0], r->idx[0][0], entry) == -ERR_CSUM);
	EXPECT(meta_array_co_get(r->arrays[0], r->idx[0][0], entry) == -ERR_CSUM);
	EXPECT(meta_array_co_get(r->arrays[1], r->idx[1][0], entry) == 0);
	EXPECT(!meta_is_failed(r->m)); /* reading it is an error, and no more */
	/* a change that needs it cannot be applied, and the store says so instead of guessing */
	e = rig_co_set(r, 0, 0, 99);
	EXPECT(e == 0);
	EXPECT(meta_co_wait_applied(r->m, r->n_recs) == -ERR_POOL_FAILED);
	EXPECT(r->failed_with == -ERR_CSUM);
	EXPECT(meta_co_commit(r->m, r->n_recs) == -ERR_POOL_FAILED);
	EXPECT(meta_co_checkpoint(r->m) == -ERR_POOL_FAILED);
	EXPECT(meta_co_admit(r->m, 64, false) == -ERR_POOL_FAILED);
	meta_co_stop(r->m, true);
	meta_close(r->m);
	return 0;
}

static void no_good_copy_is_an_error(void)
{
	struct rig_conf c = conf_with(22);
	struct rig r;

	rig_init(&r, &c);
	EXPECT(rig_run(&r, fill_and_close) == 0);
	rig_restart(&r, NULL);
	rig_flip_all(&r, root_of(&r, 1) * META_PAGE_BYTES, 1);
	EXPECT(rig_run(&r, all_copies_bad) == 0);
	rig_fini(&r);
}

static uint64_t flip_addr;

static int flip_each_byte_of_page(struct rig *r)
{
	unsigned i, copy;
	int e = rig_co_open(r);

	for (i = 0; i < META_PAGE_BYTES && e == 0; i++) {
		copy = i % RIG_COPIES;
		rig_flip(r, copy, flip_addr * META_PAGE_BYTES + i, (uint8_t)(1u << i % 8));
		e = rig_co_check(r);
		EXPECT(e == 1);
		e = e == 1 ? 0 : -EUCLEAN;
		rig_flip(r, copy, flip_addr * META_PAGE_BYTES + i, (uint8_t)(1u << i % 8));
	}
	if (e == 0)
		e = rig_co_check(r);
	return e < 0 ? e : e + rig_co_close(r);
}

static int load_only(struct rig *r)
{
	uint64_t n;
	int e = rig_co_load(r, &n);

	rig_co_abandon(r);
	return e;
}

static void every_byte_of_a_page_counts(void)
{
	struct rig_conf c = conf_with(23);
	unsigned i;
	struct rig r;

	rig_init(&r, &c);
	EXPECT(rig_run(&r, fill_and_close) == 0);
	rig_restart(&r, NULL);
	for (i = 0; i < META_PAGE_BYTES; i++) { /* the root page: no copy is good */
		rig_flip_all(&r, r.root.addr * META_PAGE_BYTES + i, (uint8_t)(0x80 >> i % 8));
		EXPECT(rig_run(&r, load_only) == -ERR_CSUM);
		EXPECT(r.err.text[0] != 0);
		rig_flip_all(&r, r.root.addr * META_PAGE_BYTES + i, (uint8_t)(0x80 >> i % 8));
	}
	EXPECT(rig_run(&r, load_only) == 0);
	flip_addr = root_of(&r, 2);
	EXPECT(rig_run(&r, flip_each_byte_of_page) == 0);
	rig_fini(&r);
}

/* ---- journal blocks ---- */

#define BLOCKS 5

static int few_blocks(struct rig *r)
{
	unsigned i;
	int e = rig_co_format(r);

	for (i = 0; i < BLOCKS && e == 0; i++) {
		e = rig_co_changes(r, 10);
		if (e == 0)
			e = rig_co_commit(r);
	}
	return e;
}

/* Positions on disk of the blocks that wait for replay; the ring has not wrapped. */
static unsigned blocks_find(struct rig *r, uint64_t *pos)
{
	struct meta_root_disk root;
	struct journal_block_disk h;
	uint64_t at;
	unsigned n = 0;

	sim_disk_peek(r->ds, 0, r->root.addr * META_PAGE_BYTES, &root, sizeof(root));
	at = le64_get(root.journal_pos);
	for (;;) {
		sim_disk_peek(r->ds, 0, JOURNAL_OFF + at, &h, sizeof(h));
		if (le32_get(h.magic) != JOURNAL_MAGIC || n == BLOCKS)
			return n;
		pos[n++] = JOURNAL_OFF + at;
		at += ALIGN_UP((uint64_t)le32_get(h.used_bytes), META_PAGE_BYTES);
	}
}

static void journal_start(struct rig *r, uint64_t s, uint64_t *pos)
{
	static const enum sim_cut cut = SIM_CUT_ALL;
	struct rig_conf c = conf_with(s);
	unsigned i;

	c.checkpoint_ns = 3600 * NS_PER_SEC;
	c.cache_bytes = 8 * MIB;
	rig_init(r, &c);
	for (i = 0; i < RIG_ARRAYS * RIG_PLACES; i++) /* low trees: no checkpoint is needed meanwhile */
		r->idx[i % RIG_ARRAYS][i / RIG_ARRAYS] %= 2048;
	EXPECT(rig_run(r, few_blocks) == 0);
	rig_restart(r, &cut);
	EXPECT(blocks_find(r, pos) == BLOCKS);
}

static void a_damaged_block_in_the_middle_refuses(void)
{
	uint64_t pos[BLOCKS] = { 0 };
	struct rig r;
	unsigned i;

	journal_start(&r, 31, pos);
	for (i = 0; i < BLOCKS - 1; i++) {
		rig_flip_all(&r, pos[i] + 70, 1);
		EXPECT(rig_run(&r, load_only) == -ERR_CSUM);
		EXPECT(strstr(r.err.text, "damaged") != NULL);
		rig_flip_all(&r, pos[i] + 70, 1);
	}
	/* on one copy it does no harm */
	rig_flip(&r, 0, pos[0] + 70, 1);
	rig_flip(&r, 1, pos[2], 1);
	EXPECT(rig_run(&r, open_and_compare) == 0);
	EXPECT(rig_run(&r, rig_co_close) == 0);
	rig_fini(&r);
}

static void a_torn_tail_is_dropped(void)
{
	uint64_t pos[BLOCKS] = { 0 };
	struct rig r;

	journal_start(&r, 32, pos);
	rig_flip_all(&r, pos[BLOCKS - 1] + 70, 1);
	r.n_committed -= 10; /* as if it had not been acknowledged */
	EXPECT(rig_run(&r, open_and_compare) == 0);
	EXPECT(r.n_recs == 10 * (BLOCKS - 1));
	EXPECT(rig_run(&r, rig_co_close) == 0);
	rig_fini(&r);
}

static void every_byte_of_a_block_counts(void)
{
	struct meta_block_expect x = { .epoch = 1 };
	struct journal_block_disk h;
	static uint8_t buf[JOURNAL_BLOCK_MAX];
	uint64_t pos[BLOCKS] = { 0 };
	uint32_t used, i;
	struct rig r;

	journal_start(&r, 33, pos);
	x.pool.b[0] = 7;
	sim_disk_peek(r.ds, 0, pos[1], buf, sizeof(buf));
	memcpy(&h, buf, sizeof(h));
	used = le32_get(h.used_bytes);
	EXPECT(used > 200);
	EXPECT(meta_journal_block_check(buf, sizeof(buf), &x) == 0);
	for (i = 0; i < used * 8; i++) {
		buf[i / 8] ^= (uint8_t)(1u << i % 8);
		EXPECT(meta_journal_block_check(buf, sizeof(buf), &x) < 0);
		buf[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	for (i = 0; i < used; i++) /* cut short */
		EXPECT(meta_journal_block_check(buf, i, &x) < 0);
	x.epoch = 2; /* of another opening */
	EXPECT(meta_journal_block_check(buf, sizeof(buf), &x) < 0);
	x.epoch = 1;
	x.pool.b[1] = 1; /* of another pool */
	EXPECT(meta_journal_block_check(buf, sizeof(buf), &x) < 0);
	rig_fini(&r);
}

/* ---- limits and failures ---- */

static int within_cache(struct rig *r)
{
	struct meta_stats s;
	unsigned round;
	int e = rig_co_format(r);

	for (round = 0; round < 200 && e == 0; round++) {
		e = rig_co_changes(r, 25);
		if (e == 0 && round % 10 == 9)
			e = rig_co_compare(r);
		meta_stats_get(r->m, &s);
		EXPECT(s.cache_bytes <= s.cache_limit_bytes + 48 * META_PAGE_BYTES); /* a path or two are pinned */
	}
	if (e == 0)
		e = meta_co_checkpoint(r->m);
	meta_stats_get(r->m, &s);
	EXPECT(s.pages_used * META_PAGE_BYTES > 2 * s.cache_limit_bytes);
	EXPECT(s.cache_bytes <= s.cache_limit_bytes);
	return e < 0 ? e : rig_co_close(r);
}

static void the_cache_keeps_its_limit(void)
{
	struct rig_conf c = conf_with(41);
	struct rig r;

	c.cache_bytes = 512 * KIB;
	rig_init(&r, &c);
	EXPECT(rig_run(&r, within_cache) == 0);
	rig_fini(&r);
}

static int until_full(struct rig *r)
{
	unsigned a, i;
	int e = rig_co_format(r);

	for (i = 0; i < RIG_PLACES && e == 0; i++)
		for (a = 0; a < RIG_ARRAYS && e == 0; a++)
			e = rig_co_set(r, a, i, i + 1);
	EXPECT(e == -ERR_POOL_FULL);
	EXPECT(r->n_groups == r->conf.max_groups);
	e = rig_co_compare(r);
	for (i = 0; i < RIG_PLACES && e == 0; i++) /* the way out is open */
		for (a = 0; a < RIG_ARRAYS && e == 0; a++)
			e = rig_co_drop(r, a, i);
	if (e == 0)
		e = meta_co_checkpoint(r->m);
	if (e == 0)
		e = rig_co_changes(r, 20);
	if (e == 0)
		e = rig_co_compare(r);
	if (e == 0)
		e = rig_co_check(r);
	return e < 0 ? e : e + rig_co_close(r);
}

static void a_full_store_can_be_dug_out(void)
{
	struct rig_conf c = conf_with(42);
	struct rig r;

	c.group_bytes = MIB;
	c.journal_bytes = 128 * KIB;
	c.cache_bytes = 512 * KIB;
	c.max_groups = 4;
	rig_init(&r, &c);
	EXPECT(rig_run(&r, until_full) == 0);
	rig_fini(&r);
}

static int failing_label(struct rig *r)
{
	int e = rig_co_format(r);

	if (e == 0)
		e = rig_co_changes(r, 30);
	if (e == 0)
		e = rig_co_commit(r);
	if (e < 0)
		return e;
	r->fail_publish = true;
	EXPECT(meta_co_checkpoint(r->m) == -ERR_POOL_FAILED);
	EXPECT(r->failed_with == -EIO);
	EXPECT(meta_co_stop(r->m, true) == -ERR_POOL_FAILED);
	meta_close(r->m);
	r->fail_publish = false;
	return 0;
}

static void what_was_committed_outlives_a_failed_checkpoint(void)
{
	static const enum sim_cut cut = SIM_CUT_NONE;
	struct rig_conf c = conf_with(43);
	struct rig r;

	rig_init(&r, &c);
	EXPECT(rig_run(&r, failing_label) == 0);
	rig_restart(&r, &cut);
	EXPECT(rig_run(&r, open_and_compare) == 0);
	EXPECT(r.n_recs == 30);
	EXPECT(rig_run(&r, rig_co_close) == 0);
	rig_fini(&r);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(arrays_agree_with_a_model),
		TEST(what_is_cleared_costs_nothing),
		TEST(a_tree_is_as_high_as_it_must_be),
		TEST(a_crash_leaves_a_prefix_of_the_records),
		TEST(a_crash_at_any_event_is_survived),
		TEST(the_journal_wraps_many_times),
		TEST(records_of_a_checkpoint_make_no_block),
		TEST(a_read_only_replay_writes_nothing),
		TEST(a_bad_copy_is_repaired_from_a_good_one),
		TEST(no_good_copy_is_an_error),
		TEST(every_byte_of_a_page_counts),
		TEST(a_damaged_block_in_the_middle_refuses),
		TEST(a_torn_tail_is_dropped),
		TEST(every_byte_of_a_block_counts),
		TEST(the_cache_keeps_its_limit),
		TEST(a_full_store_can_be_dug_out),
		TEST(what_was_committed_outlives_a_failed_checkpoint),
		CU_TEST_INFO_NULL,
	};

	return tests_run("meta", tests);
}
