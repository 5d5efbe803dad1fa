/* Labels: bytes, damage, torn writes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/base/units.h"
#include "engine/io/sim.h"
#include "engine/pool/assembly.h"
#include "tests/unit/unit.h"

#define DISK_BYTES (4 * MIB)

static uint8_t raw[LABEL_SLOT_BYTES], raw2[LABEL_SLOT_BYTES];
static struct label sample, got;

static void fill_uuid(struct uuid *u, uint8_t v) { memset(u->b, v, sizeof(u->b)); }

/* A label with every field in use. */
static void make_sample(struct label *l, unsigned n_disks, unsigned n_meta)
{
	unsigned i;

	memset(l, 0, sizeof(*l));
	strcpy(l->name, "tank");
	fill_uuid(&l->pool, 0xaa);
	l->compat = 0x8000000000000001ULL;
	l->ro_compat = 0x10;
	l->generation = 11;
	l->acked_generation = 10;
	l->n_disks = (uint16_t)n_disks;
	l->n_meta = (uint16_t)n_meta;
	l->profile = (struct raid_profile){ RAID_RAID1, 2 };
	l->block_bytes = 512;
	l->cluster_bytes = 8192;
	l->strip_bytes = 65536;
	l->group_bytes = 128 * KIB;
	l->extent_bytes = 64 * KIB;
	l->data_off = LABEL_AREA_BYTES;
	l->checkpoint = 7;
	l->root_addr = 3;
	l->root_crc = 0x12345678;
	l->clean = true;
	l->journal_off = n_meta ? 128 * KIB : 0;
	l->journal_bytes = n_meta ? 64 * KIB : 0;
	l->epoch = 5;
	if (n_meta) {
		l->incompat = LABEL_INCOMPAT_PARITY;
		l->log_group_plus_1 = 201;
		l->log_slices = 1;
		l->log_slice_bytes = 128 * KIB;
	}
	l->created_wall_ns = 1234567890123456789ULL;
	for (i = 0; i < n_disks; i++) {
		fill_uuid(&l->disks[i].uuid, (uint8_t)(i + 1));
		l->disks[i].size_bytes = 64 * MIB;
		l->disks[i].state = i == 2 ? LABEL_DISK_OUT : LABEL_DISK_ONLINE;
		l->disks[i].since_generation = i == 2 ? 9 : 0;
		snprintf(l->disks[i].path, sizeof(l->disks[i].path), "/dev/disk%u", i);
	}
	for (i = 0; i < n_meta; i++) {
		l->meta[i].group = i + 1;
		l->meta[i].n_cols = 2;
		l->meta[i].cols[0] = (struct raid_col){ 0, l->data_off + i * l->group_bytes };
		l->meta[i].cols[1] = (struct raid_col){ (uint16_t)(n_disks - 1), l->data_off + (200 + i) * l->group_bytes };
	}
}

static void fix_crc(uint8_t *buf, size_t len)
{
	uint32_t crc;

	memset(buf + 12, 0, 4);
	crc = crc32c(0, buf, len);
	memcpy(buf + 12, &crc, 4);
}

static void what_is_encoded_is_decoded(void)
{
	unsigned i, sizes[][2] = { { 1, 0 }, { 3, 2 }, { 128, 160 } };
	size_t len;

	for (i = 0; i < ARRAY_LEN(sizes); i++) {
		unsigned own = sizes[i][0] - 1;

		make_sample(&sample, sizes[i][0], sizes[i][1]);
		len = label_encode(&sample, own, 64 * MIB, raw);
		CU_ASSERT_EQUAL(len % 4096, 0);
		CU_ASSERT(len <= LABEL_SLOT_BYTES);
		CU_ASSERT_EQUAL_FATAL(label_decode(raw, len, &got, NULL), 0);
		sample.disk = sample.disks[own].uuid;
		sample.disk_index = (uint16_t)own;
		sample.disk_bytes = 64 * MIB;
		CU_ASSERT_EQUAL(memcmp(&got.profile, &sample.profile, sizeof(got.profile)), 0);
		CU_ASSERT_EQUAL(got.disk_index, own);
		CU_ASSERT_EQUAL(got.generation, 11);
		CU_ASSERT_EQUAL(got.log_group_plus_1, sample.log_group_plus_1);
		CU_ASSERT_EQUAL(got.log_slice_bytes, sample.log_slice_bytes);
		CU_ASSERT_STRING_EQUAL(got.name, "tank");
		CU_ASSERT_STRING_EQUAL(got.disks[own].path, sample.disks[own].path);
		memset(raw2, 0xff, sizeof(raw2));
		CU_ASSERT_EQUAL(label_encode(&got, own, got.disk_bytes, raw2), len);
		CU_ASSERT_EQUAL(memcmp(raw, raw2, len), 0);
	}
}

static void long_paths_keep_their_end(void)
{
	char path[300];

	memset(path, 'x', sizeof(path));
	strcpy(path + 280, "/the-end");
	label_disk_set_path(&sample.disks[0], path);
	CU_ASSERT_EQUAL(strlen(sample.disks[0].path), 96);
	CU_ASSERT_STRING_EQUAL(sample.disks[0].path + 88, "/the-end");
	make_sample(&sample, 1, 0);
	strcpy(sample.disks[0].path, "/dev/\033[2Jx");
	CU_ASSERT_EQUAL(label_decode(raw, label_encode(&sample, 0, 64 * MIB, raw), &got, NULL), 0);
	CU_ASSERT_STRING_EQUAL(got.disks[0].path, "/dev/?[2Jx");
}

static void every_flipped_bit_is_noticed(void)
{
	size_t len, i;
	unsigned bit;

	make_sample(&sample, 3, 2);
	len = label_encode(&sample, 1, 64 * MIB, raw);
	for (i = 0; i < len; i++) {
		for (bit = 0; bit < 8; bit++) {
			raw[i] ^= (uint8_t)(1 << bit);
			if (label_decode(raw, len, &got, NULL) != (i < 8 ? -ENOENT : -ERR_CSUM))
				CU_FAIL("unnoticed");
			raw[i] ^= (uint8_t)(1 << bit);
		}
	}
	CU_ASSERT_EQUAL(label_decode(raw, len, &got, NULL), 0);
	for (i = 0; i < len; i += 13)
		CU_ASSERT(label_decode(raw, i, &got, NULL) < 0);
}

/* Offsets are those of label_format.h; d0 and m0 the first disk and metadata entry of a label with three disks. */
enum { D0 = 512, M0 = 512 + 3 * 160 };
static const struct damage {
	unsigned off, len;
	uint64_t value;
	int result;
} damages[] = {
	{ 8, 4, 0, -ERR_FEATURE }, { 8, 4, 2, -ERR_FEATURE }, { 32, 8, 1 + (1ULL << 44), -ERR_FEATURE }, { 32, 8, 1ULL << 63, -ERR_FEATURE },
	{ 32, 8, 0, -ERR_FORMAT }, /* it has stripe logs */
	{ 16, 8, ~0ULL, 0 }, { 24, 8, ~0ULL, 0 },
	{ 72, 8, 0, -ERR_FORMAT }, { 72, 8, ~0ULL, -ERR_FORMAT }, { 72, 8, 9, -ERR_FORMAT }, { 80, 8, 12, -ERR_FORMAT },
	{ 92, 2, 0, -ERR_FORMAT }, { 92, 2, 3, -ERR_FORMAT }, { 92, 2, 65535, -ERR_FORMAT },
	{ 94, 2, 0, -ERR_FORMAT }, { 94, 2, 2, -ERR_FORMAT }, { 94, 2, 129, -ERR_FORMAT }, { 94, 2, 65535, -ERR_FORMAT },
	{ 96, 2, 0, -ERR_FORMAT }, { 96, 2, 161, -ERR_FORMAT }, { 96, 2, 65535, -ERR_FORMAT }, { 96, 2, 100, -ERR_FORMAT },
	{ 98, 1, 0, -ERR_FORMAT }, { 98, 1, 7, -ERR_FORMAT }, { 98, 1, RAID_SINGLE, -ERR_FORMAT }, { 99, 1, 0, -ERR_FORMAT },
	{ 99, 1, 4, -ERR_FORMAT }, { 99, 1, 3, 0 },
	{ 100, 4, 0, -ERR_FORMAT }, { 100, 4, 1024, -ERR_FORMAT }, { 100, 4, 4096, -ERR_FORMAT },
	{ 104, 4, 0, -ERR_FORMAT }, { 104, 4, 4096, -ERR_FORMAT }, { 104, 4, 12288, -ERR_FORMAT }, { 104, 4, 2 << 20, -ERR_FORMAT },
	{ 108, 4, 0, -ERR_FORMAT }, { 108, 4, 4096, -ERR_FORMAT }, { 108, 4, 65537, -ERR_FORMAT }, { 108, 4, 1U << 31, -ERR_FORMAT },
	{ 112, 8, 0, -ERR_FORMAT }, { 112, 8, 65536, -ERR_FORMAT }, { 112, 8, 128 * KIB + 1, -ERR_FORMAT },
	{ 112, 8, 128 * GIB, -ERR_FORMAT }, { 112, 8, 1ULL << 63, -ERR_FORMAT },
	{ 120, 8, 0, -ERR_FORMAT }, { 120, 8, 32 * KIB, -ERR_FORMAT }, { 120, 8, 256 * KIB, -ERR_FORMAT }, { 120, 8, 65535, -ERR_FORMAT },
	{ 128, 8, 0, -ERR_FORMAT }, { 128, 8, LABEL_AREA_BYTES + 1, -ERR_FORMAT }, { 128, 8, ~0ULL, -ERR_FORMAT },
	{ 128, 8, LABEL_AREA_BYTES + 4096, -ERR_FORMAT }, /* the metadata groups lie before it then */
	{ 156, 4, 2, -ERR_FORMAT }, { 156, 4, 0, 0 },
	{ 160, 8, 1, -ERR_FORMAT }, { 160, 8, 0, -ERR_FORMAT }, { 160, 8, ~0ULL & ~4095ULL, -ERR_FORMAT },
	{ 168, 8, 0, -ERR_FORMAT }, { 168, 8, 100, -ERR_FORMAT }, { 168, 8, 1 * MIB, -ERR_FORMAT }, { 168, 8, ~4095ULL, -ERR_FORMAT },
	{ 168, 8, 256 * KIB, 0 },
	{ 184, 8, 0, -ERR_FORMAT }, { 184, 8, ~0ULL, -ERR_FORMAT }, { 184, 8, 64 * MIB - 1, -ERR_FORMAT },
	{ 200, 1, 0, -ERR_FORMAT }, { 200, 1, '/', -ERR_FORMAT }, { 200, 1, 27, -ERR_FORMAT }, { 201, 1, 0xff, -ERR_FORMAT },
	{ 40, 1, 0, 0 }, { 56, 1, 0, -ERR_FORMAT }, /* the pool may have any uuid; the disk's is in the table */
	{ 264, 8, 0, -ERR_FORMAT }, { 264, 8, ~0ULL, -ERR_FORMAT }, { 264, 8, 2, -ERR_FORMAT }, { 264, 8, 77, 0 },
	{ 264, 8, 1ULL << 62, -ERR_FORMAT }, { 272, 4, 0, -ERR_FORMAT }, { 272, 4, 2, -ERR_FORMAT }, { 272, 4, ~0U, -ERR_FORMAT },
	{ 276, 4, 0, -ERR_FORMAT }, { 276, 4, 64 * KIB, -ERR_FORMAT }, { 276, 4, 128 * KIB + 512, -ERR_FORMAT },
	{ 276, 4, 256 * KIB, -ERR_FORMAT }, { 276, 4, 0xfffff000, -ERR_FORMAT },
	{ 280, 8, ~0ULL, 0 }, { 511, 1, 1, 0 }, /* padding: of versions to come */
	{ D0 + 16, 8, 0, -ERR_FORMAT }, { D0 + 16, 8, ~0ULL, -ERR_FORMAT }, { D0 + 16, 8, 512 * KIB, -ERR_FORMAT },
	{ D0 + 24, 8, 12, -ERR_FORMAT }, { D0 + 32, 1, 3, -ERR_FORMAT }, { D0 + 32, 1, 255, -ERR_FORMAT },
	{ D0 + 32, 1, LABEL_DISK_FREE, -ERR_FORMAT }, /* metadata lies there */
	{ D0 + 160 + 32, 1, LABEL_DISK_FREE, -ERR_FORMAT }, /* it is the label's own */
	{ D0 + 160, 1, 1, -ERR_FORMAT }, { D0 + 40, 8, ~0ULL, 0 },
	{ M0 + 0, 8, ~0ULL, -ERR_FORMAT }, { M0 + 0, 8, 2, -ERR_FORMAT }, { M0 + 0, 8, 77, -ERR_FORMAT },
	{ M0 + 8, 1, 0, -ERR_FORMAT }, { M0 + 8, 1, 4, -ERR_FORMAT }, { M0 + 8, 1, 255, -ERR_FORMAT }, { M0 + 8, 1, 1, 0 },
	{ M0 + 16, 2, 3, -ERR_FORMAT }, { M0 + 16, 2, 65535, -ERR_FORMAT }, { M0 + 16, 2, 1, 0 },
	{ M0 + 24, 8, 0, -ERR_FORMAT }, { M0 + 24, 8, LABEL_AREA_BYTES + 1, -ERR_FORMAT }, { M0 + 24, 8, 64 * MIB, -ERR_FORMAT },
	{ M0 + 24, 8, ~0ULL, -ERR_FORMAT }, { M0 + 24, 8, 64 * MIB - LABEL_AREA_BYTES - 64 * KIB, -ERR_FORMAT },
	{ M0 + 24, 8, LABEL_AREA_BYTES + 64 * KIB, -ERR_FORMAT }, /* overlaps the next */
	{ M0 + 24, 8, 64 * MIB - LABEL_AREA_BYTES - 128 * KIB, 0 },
};

static void every_field_out_of_range_is_refused(void)
{
	struct err e;
	size_t len, i;
	int r;

	for (i = 0; i < ARRAY_LEN(damages); i++) {
		const struct damage *d = &damages[i];

		make_sample(&sample, 3, 2);
		len = label_encode(&sample, 1, 64 * MIB, raw);
		memcpy(raw + d->off, &d->value, d->len);
		fix_crc(raw, len);
		e.code = 0;
		e.text[0] = 0;
		r = label_decode(raw, len, &got, &e);
		if (r != d->result)
			printf("\n  offset %u value %llx: %d, not %d (%s)", d->off, (unsigned long long)d->value, r, d->result, e.text);
		CU_ASSERT_EQUAL(r, d->result);
		CU_ASSERT(r == 0 || e.text[0]);
	}
}

static void no_damage_with_a_right_checksum_crashes(void)
{
	static const uint8_t values[] = { 0, 1, 2, 0x7f, 0x80, 0xff };
	struct rng rng;
	size_t len, i, k;
	unsigned n = 0;
	int r;

	make_sample(&sample, 3, 2);
	len = label_encode(&sample, 1, 64 * MIB, raw);
	for (i = 8; i < len; i++) {
		for (k = 0; k < ARRAY_LEN(values); k++) {
			memcpy(raw2, raw, len);
			raw2[i] = values[k];
			fix_crc(raw2, len);
			r = label_decode(raw2, len, &got, NULL);
			CU_ASSERT(r == 0 || r == -ERR_FORMAT || r == -ERR_FEATURE || (r == -ERR_CSUM && i >= 88 && i < 92) || (i >= 12 && i < 16));
		}
	}
	rng_init(&rng, 1);
	for (i = 0; i < 20000; i++) {
		memcpy(raw2, raw, len);
		for (k = 0; k < 3; k++)
			rng_fill(&rng, raw2 + 72 + rng_below(&rng, 1020), 1 + rng_below(&rng, 8));
		fix_crc(raw2, len);
		n += label_decode(raw2, len, &got, NULL) == 0;
	}
	CU_ASSERT(n < 20000);
}

/* ---- rings on simulated disks ---- */

static struct sim_disks *disks;
static struct world *world;
static struct err why;
static unsigned n_damaged;

static void open_world(uint64_t seed)
{
	struct sim_options o = { .seed = seed, .n_reactors = 1 };

	world = sim_world_create(&o, disks);
}

static void begin(uint64_t seed, uint64_t size)
{
	struct sim_disk_conf c = { .size_bytes = size, .block_bytes = 512 };

	disks = sim_disks_create(seed);
	sim_disks_add(disks, "a", &c);
	open_world(seed);
	make_sample(&sample, 1, 0);
	sample.disks[0].size_bytes = size;
	sample.acked_generation = 0;
}

static void end(void)
{
	sim_world_destroy(world);
	sim_disks_destroy(disks);
}

static int do_write(void *arg)
{
	uint64_t *gen = arg;
	struct disk *d;
	bool partial;
	int r = disk_co_open(world, "a", 0, &d, &why);

	if (r < 0)
		return r;
	sample.generation = *gen;
	r = label_co_write(d, &sample, 0, &partial);
	disk_close(d);
	return r < 0 ? r : partial;
}

static int do_read(void *arg)
{
	struct disk *d;
	int r = disk_co_open(world, "a", DISK_RDONLY, &d, &why);

	if (r < 0)
		return r;
	r = label_co_read(d, &got, &n_damaged, &why);
	disk_close(d);
	return r;
}

static int do_wipe(void *arg)
{
	struct disk *d;
	int r = disk_co_open(world, "a", 0, &d, &why);

	if (r < 0)
		return r;
	r = label_co_wipe(d);
	disk_close(d);
	return r;
}

static int result_of(int (*fn)(void *), void *arg)
{
	int result = -1, r = sim_run(world, fn, arg, &result, 0);

	return r < 0 ? r : result;
}

static void write_gen(uint64_t gen)
{
	int r = result_of(do_write, &gen);

	if (r)
		printf("\n  writing generation %llu: %d %s", (unsigned long long)gen, r, why.text);
	CU_ASSERT_EQUAL(r, 0);
}

static uint64_t read_gen(void)
{
	int r = result_of(do_read, NULL);

	return r < 0 ? 0 : got.generation;
}

static uint64_t slot_off(uint64_t gen, unsigned area)
{
	return (area ? label_tail_off(DISK_BYTES) : 0) + gen % LABEL_SLOTS * LABEL_SLOT_BYTES;
}

static void newest_of_the_ring_is_read(void)
{
	uint64_t g;

	begin(1, DISK_BYTES);
	CU_ASSERT_EQUAL(result_of(do_read, NULL), -ENOENT);
	for (g = 1; g < 30; g++) {
		write_gen(g);
		CU_ASSERT_EQUAL(read_gen(), g);
		CU_ASSERT_EQUAL(n_damaged, 0);
	}
	CU_ASSERT_EQUAL(result_of(do_wipe, NULL), 0);
	CU_ASSERT_EQUAL(result_of(do_read, NULL), -ENOENT);
	end();
}

/* Many disks: tables of several pages, so that more can be torn. */
static void many_disks(unsigned n)
{
	make_sample(&sample, n, 0);
	sample.disks[0].size_bytes = DISK_BYTES;
	sample.disks[2].since_generation = 1;
	sample.acked_generation = 0;
}

/* The first or all but the first n granules of a label, or all but the n-th, laid over the oldest one, in one area or both. */
static void label_torn_at_any_granule_keeps_the_one_before(void)
{
	unsigned cut, how, areas, a, n_whole = 0;
	static uint8_t old[2][LABEL_SLOT_BYTES];
	uint64_t g;
	size_t len;

	begin(2, DISK_BYTES);
	many_disks(60);
	for (g = 1; g <= 10; g++)
		write_gen(g);
	for (a = 0; a < 2; a++)
		sim_disk_peek(disks, 0, slot_off(11, a), old[a], LABEL_SLOT_BYTES);
	for (cut = 0; cut < 60; cut++)
		strcpy(sample.disks[cut].path, "/dev/elsewhere");
	sample.generation = 11;
	len = label_encode(&sample, 0, DISK_BYTES, raw);
	for (cut = 0; cut <= len / 512; cut++) {
		for (how = 0; how < 9; how++) {
			areas = how / 3 + 1;
			memcpy(raw2, how % 3 ? raw : old[0], len);
			if (how % 3 == 0)
				memcpy(raw2, raw, cut * 512);
			else if (how % 3 == 1)
				memcpy(raw2, old[0], cut * 512);
			else if (cut < len / 512)
				memcpy(raw2 + cut * 512, old[0] + cut * 512, 512);
			for (a = 0; a < 2; a++)
				sim_disk_poke(disks, 0, slot_off(11, a), areas & (1 << a) ? raw2 : old[a], len);
			n_whole += !memcmp(raw, raw2, len);
			CU_ASSERT_EQUAL(read_gen(), memcmp(raw, raw2, len) ? 10 : 11);
		}
	}
	CU_ASSERT(n_whole >= 9 && n_whole < 9 * len / 512 / 2);
	end();
}

static void power_cut_during_a_label_write_leaves_old_or_new(void)
{
	static const enum sim_cut cuts[] = { SIM_CUT_RANDOM, SIM_CUT_NONE, SIM_CUT_ALL, SIM_CUT_PREFIX, SIM_CUT_ALL_BUT_ONE, SIM_CUT_ONLY_ONE };
	uint64_t seed, before, g, gen, n_new = 0, n_torn = 0;
	struct rng rng;
	int r, result;

	for (seed = 1; seed <= 300; seed++) {
		rng_init(&rng, seed);
		alloc_track_begin();
		begin(seed, DISK_BYTES);
		/* many disks: tables of several pages, so that more can be torn */
		many_disks(100);
		gen = 1 + seed % 12;
		for (g = 1; g < gen; g++)
			write_gen(g);
		before = sim_disks_n_events(disks);
		sim_disks_stop_at(disks, before + 1 + rng_below(&rng, 4));
		r = sim_run(world, do_write, &gen, &result, 0);
		sim_world_destroy(world);
		alloc_track_drop();
		sim_disks_power_cut(disks, cuts[seed % ARRAY_LEN(cuts)], &rng);
		sim_disks_stop_at(disks, UINT64_MAX);
		open_world(seed);
		g = read_gen();
		n_torn += n_damaged > 0;
		n_new += g == gen;
		if (g != gen && g != gen - 1)
			printf("\n  seed %llu: generation %llu after a cut in %llu", (unsigned long long)seed, (unsigned long long)g,
			       (unsigned long long)gen);
		CU_ASSERT(g == gen || (r == -ECANCELED && g == gen - 1));
		end();
	}
	CU_ASSERT(n_new > 10 && n_new < 290 && n_torn > 10);
}

static void damage_in_alternate_areas_is_survived(void)
{
	uint8_t junk[512];
	uint64_t g;

	begin(3, DISK_BYTES);
	memset(junk, 0x5a, sizeof(junk));
	for (g = 1; g <= 20; g++) {
		write_gen(g);
		sim_disk_poke(disks, 0, slot_off(g, g % 2) + 512 * (g % 8) + (g % 8 ? 0 : 16), junk, 256);
		CU_ASSERT_EQUAL(read_gen(), g);
		CU_ASSERT(n_damaged >= 1);
	}
	sim_disk_poke(disks, 0, slot_off(20, 1) + 600, junk, 100);
	sim_disk_poke(disks, 0, slot_off(20, 0) + 600, junk, 100);
	CU_ASSERT_EQUAL(read_gen(), 19);
	for (g = 12; g <= 19; g++) {
		sim_disk_poke(disks, 0, slot_off(g, 0) + 600, junk, 100);
		sim_disk_poke(disks, 0, slot_off(g, 1) + 600, junk, 100);
	}
	CU_ASSERT_EQUAL(result_of(do_read, NULL), -ERR_CSUM);
	CU_ASSERT_EQUAL(n_damaged, 16);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "disk a "));
	end();
}

static void unreadable_sectors_beside_the_label_do_no_harm(void)
{
	begin(4, DISK_BYTES);
	write_gen(1);
	write_gen(2);
	sim_disk_bad_range(disks, 0, slot_off(2, 0) + 8192, 512); /* padding of the slot */
	sim_disk_bad_range(disks, 0, slot_off(2, 1), LABEL_SLOT_BYTES);
	CU_ASSERT_EQUAL(read_gen(), 2);
	sim_disk_bad_range(disks, 0, slot_off(2, 0) + 512, 512);
	CU_ASSERT_EQUAL(read_gen(), 1);
	sim_disk_bad_range(disks, 0, 0, LABEL_AREA_BYTES);
	sim_disk_bad_range(disks, 0, label_tail_off(DISK_BYTES), LABEL_AREA_BYTES);
	CU_ASSERT_EQUAL(result_of(do_read, NULL), -EIO);
	write_gen(3);
	CU_ASSERT_EQUAL(read_gen(), 3);
	end();
}

static void write_errors_of_one_area_are_partial_and_of_both_an_error(void)
{
	uint64_t gen = 1;
	unsigned seed, ok = 0, part = 0, bad = 0;

	for (seed = 0; seed < 40; seed++) {
		int r;

		begin(100 + seed, DISK_BYTES);
		sim_disk_faults(disks, 0)->write_error = 32768;
		r = result_of(do_write, &gen);
		sim_disk_faults(disks, 0)->write_error = 0;
		ok += r == 0;
		part += r == 1;
		bad += r == -EIO;
		CU_ASSERT(read_gen() == 1 || r < 0); /* a failed write may have been written */
		end();
	}
	CU_ASSERT(ok && part && bad);
	CU_ASSERT_EQUAL(ok + part + bad, 40);
}

static void tail_is_found_where_it_was_after_the_disk_has_grown(void)
{
	uint8_t zeros[4096] = { 0 };

	begin(5, DISK_BYTES);
	write_gen(9);
	sim_disk_resize(disks, 0, 2 * DISK_BYTES);
	sim_disk_poke(disks, 0, 1 * LABEL_SLOT_BYTES + 600, "damage", 6);
	CU_ASSERT_EQUAL(read_gen(), 9);
	CU_ASSERT_EQUAL(result_of(do_wipe, NULL), 0);
	sim_disk_resize(disks, 0, DISK_BYTES);
	sim_disk_poke(disks, 0, 0, zeros, sizeof(zeros));
	CU_ASSERT_EQUAL(result_of(do_read, NULL), -ENOENT);
	end();
}

/* A whole disk ends where its last partition ends: it must not look like that partition. */
static void tail_label_of_a_partition_is_not_the_whole_disks(void)
{
	size_t len;

	begin(6, DISK_BYTES);
	sample.disks[0].size_bytes = DISK_BYTES - MIB;
	sample.generation = 3;
	len = label_encode(&sample, 0, DISK_BYTES - MIB, raw);
	sim_disk_poke(disks, 0, MIB + 3 * LABEL_SLOT_BYTES, raw, len);
	sim_disk_poke(disks, 0, slot_off(3, 1), raw, len);
	CU_ASSERT_EQUAL(result_of(do_read, NULL), -ENOENT);
	end();
}

static void newest_label_of_another_version_is_not_passed_over(void)
{
	size_t len;
	unsigned a;

	begin(7, DISK_BYTES);
	write_gen(4);
	sample.generation = 5;
	len = label_encode(&sample, 0, DISK_BYTES, raw);
	raw[8] = 2;
	fix_crc(raw, len);
	for (a = 0; a < 2; a++)
		sim_disk_poke(disks, 0, slot_off(5, a), raw, len);
	CU_ASSERT_EQUAL(result_of(do_read, NULL), -ERR_FEATURE);
	CU_ASSERT_STRING_EQUAL(got.name, "tank");
	CU_ASSERT_EQUAL(got.generation, 5);
	raw[8] = 1;
	raw[100] = 77; /* block size: whole, and impossible */
	fix_crc(raw, len);
	for (a = 0; a < 2; a++)
		sim_disk_poke(disks, 0, slot_off(5, a), raw, len);
	CU_ASSERT_EQUAL(result_of(do_read, NULL), -ERR_FORMAT);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "block size"));
	write_gen(6); /* what is newer and whole rules again */
	CU_ASSERT_EQUAL(read_gen(), 6);
	end();
}

static void label_in_the_slot_of_another_does_not_count(void)
{
	size_t len;

	begin(8, DISK_BYTES);
	write_gen(4);
	sample.generation = 6;
	len = label_encode(&sample, 0, DISK_BYTES, raw);
	sim_disk_poke(disks, 0, slot_off(5, 0), raw, len);
	CU_ASSERT_EQUAL(read_gen(), 4);
	CU_ASSERT_EQUAL(n_damaged, 1);
	end();
}

/* ---- names ---- */

static void names_that_could_do_harm_are_refused(void)
{
	static const char *const good[] = { "a", "tank", "A-b_c.d:9", "0", "_x", ":x" };
	static const char *const bad[] = { "", "-a", ".", "..", "../x", "a/b", "a b", "a\nb", "a\033[2J", "a@b", "\xc3\xa4", "a\x7f", "a%s%n" };
	char longest[200];
	struct err e;
	size_t i;

	for (i = 0; i < ARRAY_LEN(good); i++)
		CU_ASSERT_EQUAL(name_check("pool", good[i], 63, &e), 0);
	for (i = 0; i < ARRAY_LEN(bad); i++) {
		const char *c;

		CU_ASSERT_EQUAL(name_check("volume", bad[i], 63, &e), -EINVAL);
		for (c = e.text; *c; c++)
			CU_ASSERT(*c >= 0x20 && *c < 0x7f);
		CU_ASSERT_PTR_NOT_NULL(strstr(e.text, "volume name"));
	}
	memset(longest, 'x', sizeof(longest));
	longest[63] = 0;
	CU_ASSERT_EQUAL(name_check("pool", longest, 63, &e), 0);
	longest[63] = 'x';
	longest[64] = 0;
	CU_ASSERT_EQUAL(name_check("pool", longest, 63, &e), -ENAMETOOLONG);
}

static void export_names_are_visible_utf8(void)
{
	static const char *const good[] = { "tank/vol", "a b", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "../x", "pool/v@s", "\xf4\x8f\xbf\xbd" };
	static const char *const bad[] = { "", "a\nb", "a\tb", "\033[2J", "\x7f", "\xc2\x85", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80",
					   "\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\x80", "\xc3", "\xe2\x82", "\xf0\x9f\x98",
					   "a\xe2\x80\xae" "b", "\xe2\x80\xa8", "\xef\xbb\xbf" "a" };
	char longest[300];
	struct err e;
	size_t i;

	for (i = 0; i < ARRAY_LEN(good); i++)
		CU_ASSERT_EQUAL(export_name_check(good[i], &e), 0);
	for (i = 0; i < ARRAY_LEN(bad); i++)
		CU_ASSERT_EQUAL(export_name_check(bad[i], &e), -EINVAL);
	memset(longest, 'x', sizeof(longest));
	longest[255] = 0;
	CU_ASSERT_EQUAL(export_name_check(longest, &e), 0);
	longest[255] = 'x';
	longest[256] = 0;
	CU_ASSERT_EQUAL(export_name_check(longest, &e), -ENAMETOOLONG);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(what_is_encoded_is_decoded),
		TEST(long_paths_keep_their_end),
		TEST(every_flipped_bit_is_noticed),
		TEST(every_field_out_of_range_is_refused),
		TEST(no_damage_with_a_right_checksum_crashes),
		TEST(newest_of_the_ring_is_read),
		TEST(label_torn_at_any_granule_keeps_the_one_before),
		TEST(power_cut_during_a_label_write_leaves_old_or_new),
		TEST(damage_in_alternate_areas_is_survived),
		TEST(unreadable_sectors_beside_the_label_do_no_harm),
		TEST(write_errors_of_one_area_are_partial_and_of_both_an_error),
		TEST(tail_is_found_where_it_was_after_the_disk_has_grown),
		TEST(tail_label_of_a_partition_is_not_the_whole_disks),
		TEST(newest_label_of_another_version_is_not_passed_over),
		TEST(label_in_the_slot_of_another_does_not_count),
		TEST(names_that_could_do_harm_are_refused),
		TEST(export_names_are_visible_utf8),
		CU_TEST_INFO_NULL,
	};

	return tests_run("label", tests);
}
