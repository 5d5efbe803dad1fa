/* Which disks make a pool, and which never do. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/base/units.h"
#include "engine/io/sim.h"
#include "engine/pool/assembly.h"
#include "tests/unit/unit.h"

#define N_DISKS 8
#define DISK_BYTES (2 * MIB)

static const char *const all[N_DISKS] = { "d0", "d1", "d2", "d3", "d4", "d5", "d6", "d7" };
static struct sim_disks *disks;
static struct world *world;
static struct err why;
static struct assembly *as; /* what the last open gave */

static struct world *new_world(void)
{
	struct sim_options o = { .seed = 1, .n_reactors = 1 };

	return sim_world_create(&o, disks);
}

static void begin(void)
{
	struct sim_disk_conf c = { .size_bytes = DISK_BYTES, .block_bytes = 512 };
	unsigned i;

	disks = sim_disks_create(1);
	for (i = 0; i < N_DISKS; i++)
		sim_disks_add(disks, all[i], &c);
	world = new_world();
	as = xcalloc(1, sizeof(*as));
	memset(&why, 0, sizeof(why));
}

static void end(void)
{
	xfree(as);
	sim_world_destroy(world);
	sim_disks_destroy(disks);
}

static int result_of(struct world *w, int (*fn)(void *), void *arg)
{
	int result = -1, r = sim_run(w, fn, arg, &result, 0);

	return r < 0 ? r : result;
}

static bool said(const char *what)
{
	if (strstr(why.text, what))
		return true;
	printf("\n  \"%s\" is not in: %s", what, why.text);
	return false;
}

/* ---- the smallest thing that behaves like a pool ---- */

struct call {
	const char *name;
	const char *const *paths;
	size_t n;
	bool read_only;
	struct ashlar_pool_spec spec;
};

static int write_all(struct assembly *a)
{
	unsigned i;
	int r = 0;

	for (i = 0; i < a->label.n_disks && r == 0; i++)
		if (a->disks[i].state == ASM_ONLINE)
			r = label_co_write(a->disks[i].disk, &a->label, i, NULL);
	return r;
}

static int co_create(void *arg)
{
	struct call *c = arg;
	unsigned i;
	int r = assembly_co_prepare(world, &c->spec, as, &why);

	if (r < 0)
		return r;
	for (i = 0; i < as->n_present && r == 0; i++)
		r = label_co_wipe(as->disks[i].disk);
	if (r == 0)
		r = write_all(as);
	assembly_close(as);
	return r;
}

static int co_prepare(void *arg)
{
	struct call *c = arg;

	return assembly_co_prepare(world, &c->spec, as, &why);
}

static int co_close(void *arg)
{
	assembly_close(arg);
	return 0;
}

static int co_open(void *arg)
{
	struct call *c = arg;

	return assembly_co_open(world, c->name, c->paths, c->n, c->read_only, as, &why);
}

/* Opens, calls out who is not current, writes two generations. */
static int co_run_pool(void *arg)
{
	struct label *l = &as->label;
	unsigned i;
	int r = co_open(arg);

	if (r < 0)
		return r;
	for (i = 0; i < l->n_disks; i++) {
		if (l->disks[i].state == LABEL_DISK_ONLINE && as->disks[i].state != ASM_ONLINE) {
			l->disks[i].state = LABEL_DISK_OUT;
			l->disks[i].since_generation = l->generation + 1;
		}
	}
	l->generation++;
	r = write_all(as);
	l->acked_generation = l->generation++;
	if (r == 0)
		r = write_all(as);
	assembly_close(as);
	return r;
}

static struct ashlar_pool_spec spec_of(const char *name, const char *const *paths, size_t n)
{
	return (struct ashlar_pool_spec){ .name = name, .paths = paths, .n_paths = n, .cluster_bytes = 8192, .group_bytes = 512 * KIB };
}

static void create(const char *name, const char *const *paths, size_t n)
{
	struct call c = { .spec = spec_of(name, paths, n) };
	int r = result_of(world, co_create, &c);

	if (r < 0)
		printf("\n  creating %s: %s", name, why.text);
	CU_ASSERT_EQUAL_FATAL(r, 0);
}

static int prepare(const struct ashlar_pool_spec *s)
{
	struct call c = { .spec = *s };

	return result_of(world, co_prepare, &c);
}

static int open_paths(const char *name, const char *const *paths, size_t n)
{
	struct call c = { .name = name, .paths = paths, .n = n };

	return result_of(world, co_open, &c);
}

static void close_it(void) { CU_ASSERT_EQUAL(result_of(world, co_close, as), 0); }

static void live(const char *const *paths, size_t n, unsigned times)
{
	struct call c = { .paths = paths, .n = n };
	int r;

	while (times--) {
		r = result_of(world, co_run_pool, &c);
		if (r < 0)
			printf("\n  running: %s", why.text);
		CU_ASSERT_EQUAL_FATAL(r, 0);
	}
}

static uint8_t *image_of(unsigned i)
{
	uint8_t *p = malloc(DISK_BYTES);

	sim_disk_peek(disks, i, 0, p, DISK_BYTES);
	return p;
}

static void put_image(unsigned i, uint8_t *image)
{
	sim_disk_poke(disks, i, 0, image, DISK_BYTES);
	free(image);
}

/* Sets a field of every label of a disk, with the checksum made right. */
static void patch_labels(unsigned disk, unsigned off, uint64_t value)
{
	static uint8_t buf[LABEL_SLOT_BYTES];
	struct label_header_disk *h = (struct label_header_disk *)buf;
	unsigned slot;
	uint64_t at;

	for (slot = 0; slot < 2 * LABEL_SLOTS; slot++) {
		at = (slot / LABEL_SLOTS ? label_tail_off(DISK_BYTES) : 0) + slot % LABEL_SLOTS * LABEL_SLOT_BYTES;
		sim_disk_peek(disks, disk, at, buf, sizeof(buf));
		if (memcmp(h->magic, LABEL_MAGIC, 8))
			continue;
		memcpy(buf + off, &value, 8);
		h->crc = le32_make(0);
		h->crc = le32_make(crc32c(0, buf, le32_get(h->used_bytes)));
		sim_disk_poke(disks, disk, at, buf, sizeof(buf));
	}
}

/* ---- finding ---- */

static void order_of_paths_and_their_names_do_not_matter(void)
{
	static const char *const renamed[] = { "x", "d2", "d0", "d1" };
	unsigned a, b, c, d, i;

	begin();
	create("tank", all, 4);
	for (i = 0; i < 256; i++) {
		const char *perm[4];

		a = i & 3, b = i >> 2 & 3, c = i >> 4 & 3, d = i >> 6;
		if (a == b || a == c || a == d || b == c || b == d || c == d)
			continue;
		perm[0] = all[a], perm[1] = all[b], perm[2] = all[c], perm[3] = all[d];
		CU_ASSERT_EQUAL(open_paths(NULL, perm, 4), 0);
		CU_ASSERT_EQUAL(as->n_present, 4);
		for (a = 0; a < 4; a++) {
			CU_ASSERT_EQUAL(as->disks[a].state, ASM_ONLINE);
			CU_ASSERT_EQUAL(as->disks[a].own_generation, 1);
			CU_ASSERT_STRING_EQUAL(as->disks[a].disk->path, all[a]);
		}
		close_it();
	}
	for (i = 0; i < 4; i++)
		sim_disk_set_path(disks, i, "elsewhere");
	for (i = 0; i < 4; i++)
		sim_disk_set_path(disks, i, renamed[i]);
	CU_ASSERT_EQUAL(open_paths("tank", renamed + 1, 3), 0);
	CU_ASSERT_EQUAL(as->disks[0].state, ASM_ABSENT);
	CU_ASSERT_STRING_EQUAL(as->label.disks[0].path, "d0"); /* where it was last seen */
	CU_ASSERT_STRING_EQUAL(as->label.disks[1].path, "d2");
	CU_ASSERT_STRING_EQUAL(as->disks[3].disk->path, "d1");
	close_it();
	end();
}

static void absent_disks_are_told(void)
{
	static const char *const paths[] = { "d0", "nowhere", "d2" };

	begin();
	create("tank", all, 3);
	CU_ASSERT_EQUAL(open_paths("tank", paths, 3), 0);
	CU_ASSERT_EQUAL(as->n_present, 2);
	CU_ASSERT_PTR_NULL(as->disks[1].disk);
	CU_ASSERT_EQUAL(as->disks[1].state, ASM_ABSENT);
	CU_ASSERT_EQUAL(as->disks[2].state, ASM_ONLINE);
	close_it();
	CU_ASSERT_EQUAL(open_paths("pond", paths, 3), -ENOENT);
	CU_ASSERT(said("pond") && said("nowhere"));
	CU_ASSERT_EQUAL(open_paths(NULL, all + 4, 2), -ENOENT);
	CU_ASSERT_EQUAL(open_paths(NULL, NULL, 0), -ENOENT);
	end();
}

static void same_object_by_two_paths_counts_once(void)
{
	static const char *const paths[] = { "d0", "d1", "d0", "d1" };

	begin();
	create("tank", all, 2);
	CU_ASSERT_EQUAL(open_paths(NULL, paths, 4), 0);
	CU_ASSERT_EQUAL(as->n_present, 2);
	close_it();
	end();
}

/* ---- judging ---- */

static void disk_that_missed_writes_is_stale(void)
{
	begin();
	create("tank", all, 2);
	live(all, 2, 2);
	live(all, 1, 1);
	CU_ASSERT_EQUAL(open_paths(NULL, all, 2), 0);
	CU_ASSERT_EQUAL(as->disks[0].state, ASM_ONLINE);
	CU_ASSERT_EQUAL(as->disks[1].state, ASM_STALE);
	CU_ASSERT_EQUAL(as->disks[1].own_generation, 5);
	CU_ASSERT_EQUAL(as->label.generation, 7);
	CU_ASSERT_EQUAL(as->n_present, 2);
	close_it();
	end();
}

static void disk_restored_from_an_old_copy_is_stale(void)
{
	uint8_t *old;

	begin();
	create("tank", all, 2);
	old = image_of(1);
	live(all, 2, 4);
	put_image(1, old);
	CU_ASSERT_EQUAL(open_paths(NULL, all, 2), 0);
	CU_ASSERT_EQUAL(as->label.disks[1].state, LABEL_DISK_ONLINE);
	CU_ASSERT_EQUAL(as->disks[1].state, ASM_STALE);
	CU_ASSERT_EQUAL(as->disks[0].state, ASM_ONLINE);
	close_it();
	end();
}

static void halves_that_ran_apart_are_refused(void)
{
	uint64_t hash;

	begin();
	create("tank", all, 2);
	live(all, 2, 1);
	live(all, 1, 3);
	live(all + 1, 1, 1);
	hash = sim_disks_hash(disks);
	CU_ASSERT_EQUAL(open_paths(NULL, all, 2), -ERR_DIVERGED);
	CU_ASSERT(said("d0 (generation 9)") && said("d1 (generation 5)") && said("tank"));
	CU_ASSERT_EQUAL(sim_disks_hash(disks), hash);
	CU_ASSERT_EQUAL(open_paths(NULL, all + 1, 1), 0);
	close_it();
	CU_ASSERT_EQUAL(open_paths(NULL, all, 1), 0);
	close_it();
	live(all + 1, 1, 2); /* both sides at the same generation */
	CU_ASSERT_EQUAL(open_paths(NULL, all, 2), -ERR_DIVERGED);
	live(all + 1, 1, 2);
	CU_ASSERT_EQUAL(open_paths(NULL, all, 2), -ERR_DIVERGED);
	CU_ASSERT(said("d0 (generation 9)") && said("d1 (generation 13)"));
	end();
}

static int co_write_one(void *arg)
{
	struct call c = { .paths = all, .n = 2 };
	int r = co_open(&c);

	if (r < 0)
		return r;
	as->label.generation++;
	r = label_co_write(as->disks[1].disk, &as->label, 1, NULL);
	assembly_close(as);
	return r;
}

/* A crash while a label was written: d1 alone has it, and then the pool ran without d1. */
static void label_that_one_disk_alone_got_is_no_second_history(void)
{
	begin();
	create("tank", all, 2);
	live(all, 2, 1);
	CU_ASSERT_EQUAL(result_of(world, co_write_one, NULL), 0);
	CU_ASSERT_EQUAL(open_paths(NULL, all, 2), 0);
	CU_ASSERT_EQUAL(as->label.generation, 4);
	CU_ASSERT_EQUAL(as->disks[0].state, ASM_ONLINE);
	CU_ASSERT_EQUAL(as->disks[1].state, ASM_ONLINE);
	close_it();
	live(all, 1, 1);
	CU_ASSERT_EQUAL(open_paths(NULL, all, 2), 0);
	CU_ASSERT_EQUAL(as->disks[0].state, ASM_ONLINE);
	CU_ASSERT_EQUAL(as->disks[1].state, ASM_STALE);
	close_it();
	end();
}

static int co_write_out_of_one(void *arg)
{
	struct call c = { .paths = all, .n = 3 };
	int r = co_open(&c);

	if (r < 0)
		return r;
	as->label.generation++;
	as->label.disks[0].state = LABEL_DISK_OUT;
	as->label.disks[0].since_generation = as->label.generation;
	r = label_co_write(as->disks[1].disk, &as->label, 1, NULL);
	assembly_close(as);
	return r;
}

/* The same, and what d1 alone got calls d0 out, which the others, who never heard of it, count on. */
static void label_that_calls_another_out_and_one_disk_alone_got_is_no_second_history(void)
{
	static const char *const rest[] = { "d0", "d2" };

	begin();
	create("tank", all, 3);
	live(all, 3, 1);
	CU_ASSERT_EQUAL(result_of(world, co_write_out_of_one, NULL), 0);
	live(rest, 2, 1);
	CU_ASSERT_EQUAL(open_paths(NULL, all, 3), 0);
	CU_ASSERT_EQUAL(as->disks[0].state, ASM_ONLINE);
	CU_ASSERT_EQUAL(as->disks[1].state, ASM_STALE);
	CU_ASSERT_EQUAL(as->disks[2].state, ASM_ONLINE);
	close_it();
	end();
}

/* d0 goes back to an old copy and runs alone until it is the newest: d1 has what d0 lost. */
static void newest_disk_that_went_back_in_time_is_a_second_history(void)
{
	uint8_t *old;

	begin();
	create("tank", all, 2);
	old = image_of(0);
	live(all, 2, 3);
	put_image(0, old);
	live(all, 1, 5);
	CU_ASSERT_EQUAL(open_paths(NULL, all, 2), -ERR_DIVERGED);
	end();
}

static void byte_copies_are_refused(void)
{
	static const char *const both[] = { "d5", "d1", "d0" };
	uint8_t *old;

	begin();
	create("tank", all, 2);
	old = image_of(0);
	put_image(5, image_of(0));
	CU_ASSERT_EQUAL(open_paths(NULL, both, 3), -ERR_DUPLICATE);
	CU_ASSERT(said("d5") && said("d0"));
	live(all, 2, 2);
	CU_ASSERT_EQUAL(open_paths("tank", both, 3), -ERR_DUPLICATE); /* also an older one */
	put_image(5, old);
	CU_ASSERT_EQUAL(open_paths("tank", both, 3), -ERR_DUPLICATE);
	CU_ASSERT_EQUAL(open_paths("tank", all, 2), 0);
	close_it();
	end();
}

static void disks_of_another_pool_do_not_come_in(void)
{
	begin();
	create("tank", all, 2);
	create("pond", all + 2, 2);
	CU_ASSERT_EQUAL(open_paths(NULL, all, 4), -EINVAL);
	CU_ASSERT(said("tank") && said("pond") && said("d0") && said("d2"));
	CU_ASSERT_EQUAL(open_paths("pond", all, N_DISKS), 0);
	CU_ASSERT_EQUAL(as->n_present, 2);
	CU_ASSERT_STRING_EQUAL(as->disks[0].disk->path, "d2");
	close_it();
	create("tank", all + 4, 1);
	CU_ASSERT_EQUAL(open_paths("tank", all, N_DISKS), -EEXIST);
	CU_ASSERT(said("d0") && said("d4"));
	CU_ASSERT_EQUAL(open_paths("tank", all + 4, 2), 0);
	close_it();
	end();
}

static int co_take_out(void *arg)
{
	struct call c = { .paths = all, .n = 3 };
	int r = co_open(&c);

	if (r < 0)
		return r;
	as->label.generation++;
	as->label.disks[2] = (struct label_disk){ .state = LABEL_DISK_FREE };
	as->disks[2].state = ASM_ABSENT;
	r = write_all(as);
	assembly_close(as);
	return r;
}

static void disk_that_was_taken_out_stays_out(void)
{
	begin();
	create("tank", all, 3);
	CU_ASSERT_EQUAL(result_of(world, co_take_out, NULL), 0);
	CU_ASSERT_EQUAL(open_paths(NULL, all, 3), 0);
	CU_ASSERT_EQUAL(as->n_present, 2);
	CU_ASSERT_PTR_NULL(as->disks[2].disk);
	close_it();
	end();
}

static void disk_cut_short_counts_as_missing(void)
{
	static const uint64_t sizes[] = { DISK_BYTES - 512, DISK_BYTES - 64 * KIB, MIB, 512 * KIB, 128 * KIB };
	size_t i;

	for (i = 0; i < ARRAY_LEN(sizes); i++) {
		begin();
		create("tank", all, 2);
		sim_disk_resize(disks, 1, sizes[i]);
		CU_ASSERT_EQUAL(open_paths(NULL, all, 2), 0);
		CU_ASSERT_EQUAL(as->n_present, 1);
		CU_ASSERT_EQUAL(as->disks[1].state, ASM_ABSENT);
		CU_ASSERT_PTR_NULL(as->disks[1].disk);
		CU_ASSERT_TRUE(as->disks[1].is_doubtful);
		CU_ASSERT_PTR_NOT_NULL(strstr(as->disks[1].why, "its label says 2097152"));
		close_it();
		end();
	}
	begin();
	create("tank", all, 2);
	sim_disk_resize(disks, 1, 2 * DISK_BYTES); /* growing does no harm */
	CU_ASSERT_EQUAL(open_paths(NULL, all, 2), 0);
	CU_ASSERT_EQUAL(as->disks[1].state, ASM_ONLINE);
	CU_ASSERT_FALSE(as->disks[1].is_doubtful);
	close_it();
	end();
}

static int co_labels_once_more(void *arg)
{
	int r = assembly_co_open(world, NULL, all, 2, false, as, &why);

	if (r < 0)
		return r;
	as->label.generation++;
	r = write_all(as);
	assembly_close(as);
	return r;
}

/* Whoever has cut off anything but labels has cut off all labels there. */
static void disk_that_was_cut_short_and_made_long_again_is_doubtful(void)
{
	static const struct {
		uint64_t bytes;
		unsigned n_labels;
		bool doubtful;
	} cases[] = { { DISK_BYTES - 512, 2, false }, { DISK_BYTES - LABEL_AREA_BYTES, 2, true }, { MIB, 2, true },
		      { MIB, 1, false }, /* as a crash leaves the first label of all */ };
	size_t i;

	for (i = 0; i < ARRAY_LEN(cases); i++) {
		begin();
		create("tank", all, 2);
		if (cases[i].n_labels > 1)
			CU_ASSERT_EQUAL(result_of(world, co_labels_once_more, NULL), 0);
		sim_disk_resize(disks, 1, cases[i].bytes);
		sim_disk_resize(disks, 1, DISK_BYTES);
		CU_ASSERT_EQUAL(open_paths(NULL, all, 2), 0);
		CU_ASSERT_EQUAL(as->disks[1].state, ASM_ONLINE);
		CU_ASSERT_EQUAL(as->disks[1].is_doubtful, cases[i].doubtful);
		CU_ASSERT_FALSE(as->disks[0].is_doubtful);
		close_it();
		end();
	}
}

static void unknown_features_decide_what_is_possible(void)
{
	begin();
	create("tank", all, 2);
	patch_labels(0, 16, 1ULL << 40); /* compat */
	patch_labels(1, 16, 1ULL << 40);
	CU_ASSERT_EQUAL(open_paths(NULL, all, 2), 0);
	CU_ASSERT_FALSE(as->read_only);
	CU_ASSERT_EQUAL(as->label.compat, 1ULL << 40);
	close_it();
	patch_labels(0, 24, 2); /* ro_compat */
	patch_labels(1, 24, 2);
	CU_ASSERT_EQUAL(open_paths(NULL, all, 2), 0);
	CU_ASSERT_TRUE(as->read_only);
	CU_ASSERT_TRUE(as->disks[0].disk->bdev.read_only);
	close_it();
	patch_labels(1, 32, 1ULL << 44); /* incompat, on one disk: enough */
	CU_ASSERT_EQUAL(open_paths("tank", all, 2), -ERR_FEATURE);
	CU_ASSERT(said("d1") && said("0x100000000000") && said("newer"));
	end();
}

static void damaged_disk_is_absent_and_said_if_there_is_no_other(void)
{
	begin();
	create("tank", all, 2);
	sim_disk_poke(disks, 1, LABEL_SLOT_BYTES + 100, "x", 1);
	sim_disk_poke(disks, 1, label_tail_off(DISK_BYTES) + LABEL_SLOT_BYTES + 100, "x", 1);
	CU_ASSERT_EQUAL(open_paths(NULL, all, 2), 0);
	CU_ASSERT_EQUAL(as->disks[1].state, ASM_ABSENT);
	close_it();
	CU_ASSERT_EQUAL(open_paths(NULL, all + 1, 1), -ENOENT);
	CU_ASSERT(said("d1") && said("damaged"));
	end();
}

/* ---- locks ---- */

static void pool_is_never_opened_twice(void)
{
	struct world *first;
	struct assembly *held;
	struct call c = { .paths = all, .n = 2 };

	begin();
	create("tank", all, 2);
	CU_ASSERT_EQUAL(open_paths(NULL, all, 2), 0);
	held = as;
	first = world;
	as = xcalloc(1, sizeof(*as));
	world = new_world();
	CU_ASSERT_EQUAL(open_paths(NULL, all, 2), -ERR_LOCKED);
	CU_ASSERT(said("d0"));
	CU_ASSERT_EQUAL(open_paths(NULL, all + 1, 1), -ERR_LOCKED);
	c.read_only = true;
	CU_ASSERT_EQUAL(result_of(world, co_open, &c), -ERR_LOCKED);
	CU_ASSERT_EQUAL(prepare(&(struct ashlar_pool_spec){ .name = "x", .paths = all, .n_paths = 2, .force = true,
							    .group_bytes = 512 * KIB, .cluster_bytes = 8192 }), -ERR_LOCKED);
	CU_ASSERT_EQUAL(result_of(first, co_close, held), 0);
	CU_ASSERT_EQUAL(result_of(world, co_open, &c), 0);
	CU_ASSERT_TRUE(as->read_only);
	sim_world_destroy(first);
	xfree(held);
	close_it();
	CU_ASSERT_EQUAL(open_paths(NULL, all, 2), 0); /* a refused opening leaves no lock */
	close_it();
	end();
}

/* ---- discovery ---- */

static struct ashlar_found *found;
static size_t n_found;

static int co_discover(void *arg) { return assembly_co_discover(world, all, N_DISKS, &found, &n_found, NULL, &why); }

static void pools_are_discovered_with_their_disks(void)
{
	begin();
	CU_ASSERT_EQUAL(result_of(world, co_discover, NULL), 0);
	CU_ASSERT_EQUAL(n_found, 0);
	ashlar_found_free(found, n_found);
	create("tank", all, 3);
	create("pond", all + 4, 1);
	sim_disk_remove(disks, 1);
	CU_ASSERT_EQUAL(open_paths("pond", all, N_DISKS), 0);
	CU_ASSERT_EQUAL(result_of(world, co_discover, NULL), 0);
	CU_ASSERT_EQUAL_FATAL(n_found, 2);
	CU_ASSERT_STRING_EQUAL(found[0].name, "tank");
	CU_ASSERT_EQUAL(found[0].n_disks, 3);
	CU_ASSERT_EQUAL(found[0].n_present, 2);
	CU_ASSERT_EQUAL(found[0].n_paths, 2);
	CU_ASSERT_STRING_EQUAL(found[0].paths[1], "d2");
	CU_ASSERT_FALSE(found[0].in_use);
	CU_ASSERT_STRING_EQUAL(found[1].name, "pond");
	CU_ASSERT_TRUE(found[1].in_use);
	ashlar_found_free(found, n_found);
	close_it();
	put_image(6, image_of(4)); /* a copy is one disk at two places */
	CU_ASSERT_EQUAL(result_of(world, co_discover, NULL), 0);
	CU_ASSERT_EQUAL(found[1].n_present, 1);
	CU_ASSERT_EQUAL(found[1].n_paths, 2);
	CU_ASSERT_FALSE(found[1].in_use);
	ashlar_found_free(found, n_found);
	end();
}

/* ---- preparing ---- */

static void foreign_data_is_refused_with_bytes_unchanged(void)
{
	struct ashlar_pool_spec s = spec_of("tank", all, 2);
	uint64_t hash;

	begin();
	sim_disk_set_signature(disks, 1, "ext4 file system");
	hash = sim_disks_hash(disks);
	CU_ASSERT_EQUAL(prepare(&s), -ERR_FOREIGN);
	CU_ASSERT(said("d1") && said("ext4 file system") && said("--force"));
	CU_ASSERT_EQUAL(sim_disks_hash(disks), hash);
	CU_ASSERT_EQUAL(as->n_present, 0);
	s.force = true;
	CU_ASSERT_EQUAL(prepare(&s), 0);
	close_it();
	CU_ASSERT_EQUAL(sim_disks_hash(disks), hash);
	end();
}

static void disks_of_pools_are_refused_without_force(void)
{
	struct ashlar_pool_spec s = spec_of("pond", all, 2);
	uint64_t hash;

	begin();
	create("tank", all + 1, 1);
	hash = sim_disks_hash(disks);
	CU_ASSERT_EQUAL(prepare(&s), -ERR_FOREIGN);
	CU_ASSERT(said("d1") && said("pool tank"));
	patch_labels(1, 32, 1ULL << 44);
	CU_ASSERT_EQUAL(prepare(&s), -ERR_FOREIGN);
	CU_ASSERT(said("newer version"));
	patch_labels(1, 32, 0);
	CU_ASSERT_EQUAL(sim_disks_hash(disks), hash);
	sim_disk_poke(disks, 1, LABEL_SLOT_BYTES + 100, "x", 1);
	sim_disk_poke(disks, 1, label_tail_off(DISK_BYTES) + LABEL_SLOT_BYTES + 100, "x", 1);
	CU_ASSERT_EQUAL(prepare(&s), -ERR_FOREIGN);
	CU_ASSERT(said("damaged Ashlar label"));
	s.force = true;
	CU_ASSERT_EQUAL(prepare(&s), 0);
	close_it();
	end();
}

/* An older pool's labels of higher generations do not shine through. */
static void forced_pool_replaces_the_old_one(void)
{
	struct call c = { .spec = spec_of("pond", all, 2) };

	begin();
	create("tank", all, 2);
	live(all, 2, 9);
	c.spec.force = true;
	CU_ASSERT_EQUAL(result_of(world, co_create, &c), 0);
	CU_ASSERT_EQUAL(open_paths(NULL, all, 2), 0);
	CU_ASSERT_STRING_EQUAL(as->label.name, "pond");
	CU_ASSERT_EQUAL(as->label.generation, 1);
	close_it();
	end();
}

static void refused(const struct ashlar_pool_spec *s, int code, const char *what)
{
	int r = prepare(s);

	if (r == 0)
		close_it();
	if (r != code)
		printf("\n  %d, not %d: %s", r, code, why.text);
	CU_ASSERT_EQUAL(r, code);
	CU_ASSERT(said(what));
}

static void what_no_pool_can_be_made_of_is_refused(void)
{
	static const char *const twice[] = { "d0", "d1", "d0" }, *const missing[] = { "d0", "d9" };
	struct ashlar_pool_spec s = spec_of("tank", all, 2), t;
	const char *many[129];
	unsigned i;

	begin();
	for (i = 0; i < 129; i++)
		many[i] = "d0";
#define TRY(code, what, ...) (t = s, __VA_ARGS__, refused(&t, code, what))
	TRY(-EINVAL, "same disk", t.paths = twice, t.n_paths = 3, t.force = true);
	TRY(-ENOENT, "d9", t.paths = missing);
	TRY(-EINVAL, "no disks", t.n_paths = 0);
	TRY(-EINVAL, "at most 128", t.paths = many, t.n_paths = 129);
	TRY(-EINVAL, "'/'", t.name = "a/b");
	TRY(-EINVAL, "layout", t.layout = "raid7");
	TRY(-EINVAL, "raid5 needs 3 disks, and 2 are named", t.layout = "raid5");
	TRY(-EINVAL, "raid6 needs 4 disks, and 3 are named", t.layout = "raid6", t.n_paths = 3);
	TRY(-EINVAL, "needs 3 disks", t.layout = "raid1-3");
	TRY(-EINVAL, "needs 4 disks", t.layout = "raid10", t.n_paths = 3);
	TRY(-EINVAL, "needs 2 disks", t.layout = "raid0", t.n_paths = 1);
	TRY(-EINVAL, "8192", t.cluster_bytes = 4096);
	TRY(-EINVAL, "cluster size 12288", t.cluster_bytes = 12288);
	TRY(-EINVAL, "cluster size", t.cluster_bytes = 2 << 20);
	TRY(-EINVAL, "group size", t.group_bytes = 256 * KIB);
	TRY(-EINVAL, "group size", t.group_bytes = 513 * KIB);
	TRY(-EINVAL, "group size", t.group_bytes = 128 * GIB);
	TRY(-EINVAL, "too small", t.group_bytes = MIB, t.force = true);
	CU_ASSERT(said("d0") && said("2097152") && said("3670016") && said("smaller groups"));
	TRY(-EINVAL, "3670016 bytes): use larger disks", t.group_bytes = MIB, t.cluster_bytes = 64 * KIB);
	CU_ASSERT_PTR_NULL(strstr(why.text, "smaller groups")); /* there are none */
	end();
}

static struct label *geometry(uint64_t size, unsigned n, const char *layout)
{
	struct ashlar_pool_spec s = { .name = "big", .layout = layout, .n_paths = n };
	struct sim_disk_conf c = { .size_bytes = size, .block_bytes = 4096 };
	static const char *const big[] = { "b0", "b1", "b2", "b3", "b4", "b5" };
	unsigned i;
	int r;

	begin();
	for (i = 0; i < n; i++) {
		sim_disks_add(disks, big[i], &c);
		c.block_bytes = 512;
	}
	s.paths = big;
	r = prepare(&s);
	if (r < 0)
		printf("\n  %s", why.text);
	CU_ASSERT_EQUAL_FATAL(r, 0);
	close_it();
	return &as->label;
}

static void geometry_follows_the_disks(void)
{
	static const struct { uint64_t size; unsigned n; uint64_t group, extent, data_off; } cases[] = {
		{ 64 * MIB, 1, 16 * MIB, 64 * KIB, LABEL_AREA_BYTES },
		{ 10 * GIB, 2, 32 * MIB, 128 * KIB, LABEL_AREA_BYTES },
		{ 47 * GIB, 1, 64 * MIB, 256 * KIB, LABEL_AREA_BYTES },
		{ 49 * GIB, 1, 128 * MIB, 512 * KIB, 512 * KIB },
		{ 512 * GIB, 1, GIB, 4 * MIB, MIB },
		{ 16 * TIB, 5, GIB, 4 * MIB, MIB },
	};
	struct label *l;
	size_t i;

	for (i = 0; i < ARRAY_LEN(cases); i++) {
		uint8_t *buf = malloc(LABEL_SLOT_BYTES);
		struct label *back = malloc(sizeof(*back));

		l = geometry(cases[i].size, cases[i].n, NULL);
		CU_ASSERT_EQUAL(l->block_bytes, 4096);
		CU_ASSERT_EQUAL(l->cluster_bytes, 65536);
		CU_ASSERT_EQUAL(l->strip_bytes, 65536);
		CU_ASSERT_EQUAL(l->group_bytes, cases[i].group);
		CU_ASSERT_EQUAL(l->extent_bytes, cases[i].extent);
		CU_ASSERT_EQUAL(l->data_off, cases[i].data_off);
		CU_ASSERT_EQUAL(l->n_disks, cases[i].n);
		CU_ASSERT_EQUAL(l->profile.layout, cases[i].n == 1 ? RAID_SINGLE : RAID_RAID1);
		CU_ASSERT_EQUAL(label_decode(buf, label_encode(l, 0, l->disks[0].size_bytes, buf), back, NULL), 0);
		free(buf);
		free(back);
		end();
	}
	l = geometry(GIB, 6, "raid10-3");
	CU_ASSERT_EQUAL(l->profile.layout, RAID_RAID10);
	CU_ASSERT_EQUAL(l->profile.copies, 3);
	end();
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(order_of_paths_and_their_names_do_not_matter),
		TEST(absent_disks_are_told),
		TEST(same_object_by_two_paths_counts_once),
		TEST(disk_that_missed_writes_is_stale),
		TEST(disk_restored_from_an_old_copy_is_stale),
		TEST(halves_that_ran_apart_are_refused),
		TEST(label_that_one_disk_alone_got_is_no_second_history),
		TEST(label_that_calls_another_out_and_one_disk_alone_got_is_no_second_history),
		TEST(newest_disk_that_went_back_in_time_is_a_second_history),
		TEST(byte_copies_are_refused),
		TEST(disks_of_another_pool_do_not_come_in),
		TEST(disk_that_was_taken_out_stays_out),
		TEST(disk_cut_short_counts_as_missing),
		TEST(disk_that_was_cut_short_and_made_long_again_is_doubtful),
		TEST(unknown_features_decide_what_is_possible),
		TEST(damaged_disk_is_absent_and_said_if_there_is_no_other),
		TEST(pool_is_never_opened_twice),
		TEST(pools_are_discovered_with_their_disks),
		TEST(foreign_data_is_refused_with_bytes_unchanged),
		TEST(disks_of_pools_are_refused_without_force),
		TEST(forced_pool_replaces_the_old_one),
		TEST(what_no_pool_can_be_made_of_is_refused),
		TEST(geometry_follows_the_disks),
		CU_TEST_INFO_NULL,
	};

	return tests_run("assembly", tests);
}
