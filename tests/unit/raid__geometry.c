/*
 * Where bytes lie, for every layout, number of columns and copies: against an inverse written from the layouts' pictures,
 * not from the code.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/rng.h"
#include "engine/base/units.h"
#include "raid/geometry.h"
#include "tests/unit/unit.h"

static struct rng rng;
static uint64_t seed;

#define EXPECT(cond)                                                                                           \
	do {                                                                                                   \
		bool ok_ = (cond);                                                                             \
		if (!ok_)                                                                                      \
			fprintf(stderr, "seed %llu, line %d: %s\n", (unsigned long long)seed, __LINE__, #cond); \
		CU_ASSERT(ok_);                                                                                \
	} while (0)

struct shape {
	uint8_t layout, copies;
	unsigned cols_min, cols_step, cols_max;
};

static const struct shape shapes[] = {
	{ RAID_SINGLE, 1, 1, 1, 1 },	{ RAID_RAID0, 1, 1, 1, 32 },  { RAID_RAID1, 2, 2, 2, 2 },
	{ RAID_RAID1, 3, 3, 3, 3 },	{ RAID_RAID10, 2, 2, 2, 32 }, { RAID_RAID10, 3, 3, 3, 30 },
	{ RAID_RAID5, 1, 3, 1, 32 },	{ RAID_RAID6, 1, 4, 1, 32 },
};

static struct raid_desc desc_make(const struct shape *s, unsigned n_cols, uint64_t size, uint32_t strip)
{
	struct raid_desc d = { .layout = s->layout, .copies = s->copies, .n_cols = (uint8_t)n_cols };

	d.group = 7;
	d.strip_bytes = strip;
	d.size_bytes = size;
	d.col_bytes = raid_col_bytes(s->layout, s->copies, n_cols, size, strip, 4096);
	for (unsigned i = 0; i < n_cols; i++)
		d.cols[i] = (struct raid_col){ .disk = (uint16_t)i, .off_bytes = i * 4096ULL };
	return d;
}

static void for_all(void (*fn)(const struct raid_desc *d))
{
	static const uint32_t strips[] = { 512, 4096, 65536 };

	seed = 20261122;
	rng_init(&rng, seed);
	for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
		for (unsigned n = shapes[i].cols_min; n <= shapes[i].cols_max; n += shapes[i].cols_step)
			for (size_t k = 0; k < ARRAY_LEN(strips); k++) {
				uint64_t sectors = 1 + rng_below(&rng, 97ULL * strips[k] / 512);
				struct raid_desc d = desc_make(&shapes[i], n, sectors * 512, strips[k]);

				fn(&d);
			}
}

static unsigned n_parity(const struct raid_desc *d)
{
	return d->layout == RAID_RAID5 ? 1 : d->layout == RAID_RAID6 ? 2 : 0;
}

/* Logical strip at (column, row), -1 for parity. */
static int64_t strip_at(const struct raid_desc *d, unsigned col, uint64_t row)
{
	unsigned n = d->n_cols, par = n_parity(d), p;

	if (!par)
		return (int64_t)(row * (n / d->copies) + col / d->copies);
	p = (n - 1 + n * 64 - (unsigned)(row % n)) % n; /* one to the left each row */
	if ((col + n - p) % n < par)
		return -1;
	return (int64_t)(row * (n - par) + (col + n - p) % n - par);
}

static void check_places(const struct raid_desc *d)
{
	uint64_t n_strips = DIV_UP(d->size_bytes, d->strip_bytes);
	uint64_t rows = d->col_bytes / d->strip_bytes;
	uint8_t *seen = calloc(rows * d->n_cols + 1, 1);

	CU_ASSERT_FATAL(seen != NULL);
	for (uint64_t s = 0; s < n_strips; s++) {
		struct raid_place p;
		uint64_t off = s * d->strip_bytes;

		raid_place(d, off, d->size_bytes - off, &p);
		EXPECT(p.n == d->copies);
		EXPECT(p.len_bytes == MIN(d->strip_bytes, d->size_bytes - off));
		EXPECT(p.col_off_bytes % d->strip_bytes == 0);
		EXPECT(p.col_off_bytes + p.len_bytes <= d->col_bytes);
		EXPECT((p.p >= 0) == (n_parity(d) > 0) && (p.q >= 0) == (n_parity(d) > 1));
		for (unsigned i = 0; i < p.n; i++) {
			uint64_t row = p.col_off_bytes / d->strip_bytes;

			CU_ASSERT_FATAL(p.cols[i] < d->n_cols && row < rows);
			EXPECT(seen[row * d->n_cols + p.cols[i]]++ == 0);
			EXPECT(strip_at(d, p.cols[i], row) == (int64_t)s);
		}
		if (p.p >= 0) {
			uint64_t row = p.col_off_bytes / d->strip_bytes;

			EXPECT(p.p < d->n_cols && strip_at(d, (unsigned)p.p, row) == -1 && p.p != p.q);
			EXPECT(p.q < 0 || (p.q < d->n_cols && strip_at(d, (unsigned)p.q, row) == -1));
		}
	}
	free(seen);
}

static void each_strip_has_places_of_its_own_and_the_inverse_finds_it(void)
{
	for_all(check_places);
}

static void check_bytes(const struct raid_desc *d)
{
	for (unsigned k = 0; k < 200; k++) {
		uint64_t off = rng_below(&rng, d->size_bytes), len = 1 + rng_below(&rng, d->size_bytes - off);
		struct raid_place p, first;

		raid_place(d, off, len, &p);
		raid_place(d, ALIGN_DOWN(off, d->strip_bytes), 1, &first);
		EXPECT(p.len_bytes == MIN(len, d->strip_bytes - off % d->strip_bytes));
		EXPECT(p.col_off_bytes == first.col_off_bytes + off % d->strip_bytes);
		EXPECT(p.n == first.n && !memcmp(p.cols, first.cols, p.n) && p.p == first.p && p.q == first.q);
	}
}

static void bytes_of_a_strip_lie_together(void)
{
	for_all(check_bytes);
}

static void check_spread(const struct raid_desc *d)
{
	uint64_t n_strips = DIV_UP(d->size_bytes, d->strip_bytes);

	if (!n_parity(d))
		return;
	for (uint64_t s = 0; s + d->n_cols <= n_strips; s++) {
		uint32_t cols = 0;
		struct raid_place p;

		for (unsigned i = 0; i < d->n_cols; i++) {
			raid_place(d, (s + i) * d->strip_bytes, 1, &p);
			cols |= 1U << p.cols[0];
		}
		EXPECT(__builtin_popcount(cols) == d->n_cols - (d->layout == RAID_RAID6 ? 1 : 0) ||
		       __builtin_popcount(cols) == d->n_cols);
	}
}

static void neighbouring_strips_of_parity_layouts_use_all_disks(void)
{
	for_all(check_spread);
}

static void check_regions(const struct raid_desc *d)
{
	uint64_t region = DIV_UP(d->size_bytes, RAID_REGIONS);

	for (unsigned k = 0; k < 200; k++) {
		uint64_t off = rng_below(&rng, d->size_bytes), len = 1 + rng_below(&rng, d->size_bytes - off);
		uint64_t mask = raid_region_mask(d, off, len);

		for (unsigned i = 0; i < RAID_REGIONS; i++) {
			bool touched = i * region < off + len && off < (i + 1) * region;

			EXPECT(((mask >> i) & 1) == touched);
		}
	}
	EXPECT(raid_region_mask(d, 0, 1) == 1);
}

static void region_mask_has_exactly_the_regions_touched(void)
{
	for_all(check_regions);
}

static void check_columns(const struct raid_desc *d)
{
	unsigned dc = raid_data_cols(d);
	uint64_t least = raid_col_bytes(d->layout, d->copies, d->n_cols, d->size_bytes, d->strip_bytes, 1);

	EXPECT(dc * d->copies + n_parity(d) == d->n_cols);
	EXPECT(least * dc >= d->size_bytes);
	EXPECT(least >= d->strip_bytes && (least - d->strip_bytes) * dc < d->size_bytes);
	EXPECT(d->col_bytes % 4096 == 0 && d->col_bytes >= least && d->col_bytes < least + 4096);
	EXPECT(raid_col_bytes(d->layout, d->copies, d->n_cols, d->size_bytes, d->strip_bytes, 3 * MIB) % (3 * MIB) == 0);
}

static void columns_are_as_large_as_they_must_be(void)
{
	for_all(check_columns);
}

static void check_valid(const struct raid_desc *d)
{
	struct raid_desc x = *d;
	struct err e = { 0 };

	for (unsigned i = 0; i < x.n_cols; i++)
		x.cols[i].off_bytes = 512 * i;
	EXPECT(raid_desc_check(&x, x.n_cols, &e) == 0);
	EXPECT(x.n_cols == 1 || raid_desc_check(&x, x.n_cols - 1U, &e) == -ERR_FORMAT);
	EXPECT(x.n_cols == 1 || strstr(e.text, "group 7") != NULL);
#define BROKEN(field, value)                                                 \
	do {                                                                 \
		struct raid_desc y = x;                                      \
		y.field = (__typeof__(y.field))(value);                      \
		EXPECT(raid_desc_check(&y, x.n_cols, &e) == -ERR_FORMAT);    \
	} while (0)
	BROKEN(layout, 0);
	BROKEN(layout, 7);
	BROKEN(copies, 0);
	BROKEN(copies, 4);
	BROKEN(copies, x.copies == 1 ? 2 : 1);
	BROKEN(n_cols, 0);
	BROKEN(n_cols, RAID_COLS_MAX + 1);
	BROKEN(strip_bytes, 0);
	BROKEN(strip_bytes, 256);
	BROKEN(strip_bytes, 4097);
	BROKEN(size_bytes, 0);
	BROKEN(size_bytes, x.size_bytes + 1);
	BROKEN(size_bytes, UINT64_MAX & ~511ULL);
	BROKEN(col_bytes, 0);
	BROKEN(col_bytes, UINT64_MAX);
	BROKEN(cols[0].off_bytes, 1);
	BROKEN(cols[0].off_bytes, UINT64_MAX & ~511ULL);
	BROKEN(cols[x.n_cols - 1].disk, RAID_DISKS_MAX);
	if (x.n_cols > 1) {
		x.cols[1].disk = x.cols[0].disk;
		EXPECT(raid_desc_check(&x, x.n_cols, &e) == -ERR_FORMAT);
		x.cols[1].off_bytes = x.cols[0].off_bytes + x.col_bytes;
		EXPECT(raid_desc_check(&x, x.n_cols, &e) == 0);
	}
}

static void descriptor_from_disk_is_not_trusted(void)
{
	struct err e;
	struct raid_desc d;

	for_all(check_valid);
	for (unsigned k = 0; k < 100000; k++) { /* must not crash; what passes must place */
		rng_fill(&rng, &d, sizeof(d));
		d.layout %= 8;
		d.copies %= 4;
		d.n_cols %= 34;
		d.strip_bytes = 1U << (d.strip_bytes % 32);
		d.size_bytes >>= d.size_bytes % 64;
		if (raid_desc_check(&d, RAID_DISKS_MAX, &e) == 0)
			check_bytes(&d);
	}
}

static void profile_names_and_numbers(void)
{
	static const struct {
		const char *name;
		unsigned min, tolerates, of5, of20;
	} t[] = {
		{ "single", 1, 0, 1, 1 },   { "raid0", 2, 0, 5, 16 },	 { "raid1", 2, 1, 2, 2 }, { "raid1-3", 3, 2, 3, 3 },
		{ "raid10", 4, 1, 4, 16 },  { "raid10-3", 6, 2, 0, 15 }, { "raid5", 3, 1, 5, 10 }, { "raid6", 4, 2, 5, 10 },
	};
	struct raid_profile p;

	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		EXPECT(raid_profile_parse(t[i].name, &p) == 0);
		EXPECT(!strcmp(raid_profile_name(p), t[i].name));
		EXPECT(raid_profile_min_disks(p) == t[i].min);
		EXPECT(raid_profile_tolerates(p) == t[i].tolerates);
		EXPECT(raid_profile_columns(p, t[i].min - 1) == 0);
		EXPECT(raid_profile_columns(p, 5) == t[i].of5);
		EXPECT(raid_profile_columns(p, 20) == t[i].of20);
	}
	EXPECT(raid_profile_parse("raid1-4", &p) == -EINVAL);
	EXPECT(raid_profile_parse("", &p) == -EINVAL);
	EXPECT(raid_profile_min_disks((struct raid_profile){ 99, 1 }) > RAID_DISKS_MAX);
	EXPECT(raid_profile_columns((struct raid_profile){ 99, 1 }, 100) == 0);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(each_strip_has_places_of_its_own_and_the_inverse_finds_it),
		TEST(bytes_of_a_strip_lie_together),
		TEST(neighbouring_strips_of_parity_layouts_use_all_disks),
		TEST(region_mask_has_exactly_the_regions_touched),
		TEST(columns_are_as_large_as_they_must_be),
		TEST(descriptor_from_disk_is_not_trusted),
		TEST(profile_names_and_numbers),
		CU_TEST_INFO_NULL,
	};

	return tests_run("raid geometry", tests);
}
