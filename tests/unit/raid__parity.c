/*
 * The parity sweep: raid/parity.c and every vector path of ISA-L that this CPU has (and the scalar one, for those that have
 * none), against multiplication in GF(2^8) by shift and xor, without a table.
 *
 * Number of data columns, parities and erasure patterns are swept whole: every set of up to p lost columns of arrays of up to
 * 32. The product with all lengths and alignments is too large; these are swept in pairs: every length up to 4 KiB with every
 * (k, p), every length up to 64 KiB with one (k, p), every alignment within 4 KiB with every (k, p). Where they are not
 * swept, each buffer has one of its own by chance. Around every buffer stand bytes that must not change.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <isa-l/erasure_code.h>
#include <isa-l/raid.h>

#include "engine/base/rng.h"
#include "raid/parity.h"
#include "tests/unit/unit.h"

#define COLS_MAX (PARITY_DATA_MAX + 2)
#define LEN_MAX 65536U
#define STRIDE (LEN_MAX + 8192)
#define GUARD 64
#define SMALL 4096U /* the scalar multiplication is too slow for more */

static struct rng rng;
static const uint64_t seed = 20261123;

static struct {
	unsigned k, p;
	size_t len;
	uint8_t *v[COLS_MAX];
} a; /* the array under test */
static uint8_t *arena, *spare;		   /* spare: a place like a column's */
static uint8_t *copy[COLS_MAX];		   /* of columns, by keep() */
static uint8_t ref_p[LEN_MAX], ref_q[LEN_MAX];

#define EXPECT(cond)                                                                                                  \
	do {                                                                                                          \
		bool ok_ = (cond);                                                                                    \
		if (!ok_)                                                                                             \
			fprintf(stderr, "seed %llu, k %u, p %u, len %zu, line %d: %s\n", (unsigned long long)seed, a.k, \
				a.p, a.len, __LINE__, #cond);                                                         \
		CU_ASSERT(ok_);                                                                                       \
	} while (0)

/* ---- the reference ---- */

static uint8_t ref_mul(uint8_t x, uint8_t y)
{
	unsigned r = 0, s = x;

	for (; y; y >>= 1) {
		if (y & 1)
			r ^= s;
		s <<= 1;
		if (s & 0x100)
			s ^= 0x11d;
	}
	return (uint8_t)r;
}

static uint8_t ref_pow2(unsigned i)
{
	uint8_t c = 1;

	while (i--)
		c = ref_mul(c, 2);
	return c;
}

/* Sums from the last column down: q = 2 q + d. */
static void ref_gen(void)
{
	memset(ref_p, 0, a.len);
	memset(ref_q, 0, a.len);
	for (unsigned i = a.k; i-- > 0;)
		for (size_t b = 0; b < a.len; b++) {
			uint8_t d = a.v[i][b], q = ref_q[b];

			ref_p[b] ^= d;
			ref_q[b] = (uint8_t)((uint8_t)(q << 1) ^ (0x1d & -(q >> 7)) ^ d);
		}
}

/* ---- buffers ---- */

static size_t len_random(size_t max)
{
	return PARITY_ALIGN * (1 + rng_below(&rng, max / PARITY_ALIGN));
}

/* Columns at `align` (in units of PARITY_ALIGN within 4 KiB), or each at its own by chance if that is -1. */
static void array_make(unsigned k, unsigned p, size_t len, int align)
{
	a.k = k;
	a.p = p;
	a.len = len;
	for (unsigned i = 0; i < k + p; i++) {
		unsigned at = align < 0 ? (unsigned)rng_below(&rng, 64) : (unsigned)align;

		a.v[i] = arena + (size_t)i * STRIDE + 4096 + at * PARITY_ALIGN;
		memset(a.v[i] - GUARD, 0x5a, GUARD);
		memset(a.v[i] + len, 0xa5, GUARD);
	}
	for (unsigned i = k; i < k + p; i++)
		memset(a.v[i], 0xee, len);
}

static bool has_guards(void)
{
	for (unsigned i = 0; i < a.k + a.p; i++)
		for (unsigned b = 0; b < GUARD; b++)
			if ((a.v[i] - GUARD)[b] != 0x5a || a.v[i][a.len + b] != 0xa5)
				return false;
	return true;
}

static bool has_right_parity(void)
{
	return !memcmp(a.v[a.k], ref_p, a.len) && (a.p == 1 || !memcmp(a.v[a.k + 1], ref_q, a.len));
}

static void keep(void)
{
	for (unsigned i = 0; i < a.k + a.p; i++)
		memcpy(copy[i], a.v[i], a.len);
}

static bool is_as_kept(unsigned first, unsigned end)
{
	for (unsigned i = first; i < end; i++)
		if (memcmp(copy[i], a.v[i], a.len) != 0)
			return false;
	return true;
}

static int suite_init(void)
{
	arena = aligned_alloc(4096, (size_t)(COLS_MAX + 2) * STRIDE);
	if (!arena)
		return 1;
	rng_init(&rng, seed);
	rng_fill(&rng, arena, (size_t)(COLS_MAX + 2) * STRIDE);
	spare = arena + (size_t)COLS_MAX * STRIDE;
	for (unsigned i = 0; i < COLS_MAX; i++) {
		copy[i] = malloc(LEN_MAX);
		if (!copy[i])
			return 1;
	}
	return 0;
}

static int suite_fini(void)
{
	for (unsigned i = 0; i < COLS_MAX; i++)
		free(copy[i]);
	free(arena);
	return 0;
}

/* ---- every path of ISA-L ---- */

typedef int vects_fn(int vects, int len, void **array);
typedef void encode_fn(int len, int k, int rows, unsigned char *tables, unsigned char **data, unsigned char **coding);
typedef void update_fn(int len, int k, int rows, int i, unsigned char *tables, unsigned char *data, unsigned char **coding);

#define WEAK __attribute__((weak)) /* another version, or another processor's library, may lack them */
WEAK vects_fn xor_gen_sse, xor_gen_avx, xor_gen_avx512, pq_gen_sse, pq_gen_avx, pq_gen_avx2, pq_gen_avx512;
WEAK vects_fn xor_check_sse, pq_check_sse;
WEAK encode_fn ec_encode_data_sse, ec_encode_data_avx, ec_encode_data_avx2, ec_encode_data_avx512;
WEAK update_fn ec_encode_data_update_sse, ec_encode_data_update_avx, ec_encode_data_update_avx2, ec_encode_data_update_avx512;

struct path {
	const char *name;
	bool has;
	vects_fn *xor, *pq, *xor_check, *pq_check;
	encode_fn *encode;
	update_fn *update;
};
static struct path paths[] = {
	{ "base", true, xor_gen_base, pq_gen_base, xor_check_base, pq_check_base, ec_encode_data_base,
	  ec_encode_data_update_base },
	{ "sse", false, xor_gen_sse, pq_gen_sse, xor_check_sse, pq_check_sse, ec_encode_data_sse, ec_encode_data_update_sse },
	{ "avx", false, xor_gen_avx, pq_gen_avx, NULL, NULL, ec_encode_data_avx, ec_encode_data_update_avx },
	{ "avx2", false, NULL, pq_gen_avx2, NULL, NULL, ec_encode_data_avx2, ec_encode_data_update_avx2 },
	{ "avx512", false, xor_gen_avx512, pq_gen_avx512, NULL, NULL, ec_encode_data_avx512, ec_encode_data_update_avx512 },
};

static void paths_probe(void)
{
#ifdef __x86_64__
	__builtin_cpu_init();
	paths[1].has = __builtin_cpu_supports("sse4.1");
	paths[2].has = __builtin_cpu_supports("avx");
	paths[3].has = __builtin_cpu_supports("avx2");
	paths[4].has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
		       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#endif
}

/* Coefficients of P, then of Q, in the tables that all paths above understand. */
static void tables_make(uint8_t *tables)
{
	for (unsigned i = 0; i < a.k; i++) {
		gf_vect_mul_init(1, tables + 32 * i);
		gf_vect_mul_init(ref_pow2(i), tables + 32 * (a.k + i));
	}
}

static void parity_spoil(void)
{
	for (unsigned i = a.k; i < a.k + a.p; i++)
		memset(a.v[i], 0xee, a.len);
}

/* ISA-L's functions of one path on the array, whose parity by the reference is known. */
static void check_path(const struct path *t, uint8_t *tables)
{
	vects_fn *gen = a.p == 1 ? t->xor : t->pq, *check = a.p == 1 ? t->xor_check : t->pq_check;
	int n = (int)(a.k + a.p), len = (int)a.len;

	if (gen && a.k > 1) {
		parity_spoil();
		EXPECT(gen(n, len, (void **)a.v) == 0 && has_right_parity());
	}
	if (t->encode && a.len <= SMALL) {
		parity_spoil();
		t->encode(len, (int)a.k, (int)a.p, tables, a.v, a.v + a.k);
		EXPECT(has_right_parity());
	}
	if (t->update && a.len <= SMALL) {
		for (unsigned i = a.k; i < a.k + a.p; i++)
			memset(a.v[i], 0, a.len);
		for (unsigned i = 0; i < a.k; i++)
			t->update(len, (int)a.k, (int)a.p, (int)i, tables, a.v[i], a.v + a.k);
		EXPECT(has_right_parity());
	}
	if (check && a.k > 1) {
		uint8_t *bad = a.v[rng_below(&rng, a.k + a.p)] + rng_below(&rng, a.len);
		uint8_t by = (uint8_t)(1 + rng_below(&rng, 255));

		memcpy(a.v[a.k], ref_p, a.len);
		if (a.p == 2)
			memcpy(a.v[a.k + 1], ref_q, a.len);
		EXPECT(check(n, len, (void **)a.v) == 0);
		*bad ^= by;
		EXPECT(check(n, len, (void **)a.v) != 0);
		*bad ^= by;
	}
	EXPECT(has_guards());
}

static void check_gen(void)
{
	uint8_t tables[2 * 32 * PARITY_DATA_MAX];

	ref_gen();
	tables_make(tables);
	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		if (paths[i].has)
			check_path(&paths[i], tables);
	parity_spoil();
	parity_gen(a.k, a.p, a.len, (void **)a.v);
	EXPECT(has_right_parity() && has_guards());
	EXPECT(parity_compare(a.k, a.p, a.len, (void **)a.v) == a.len);
}

/* ---- tests ---- */

static void isa_l_has_the_field_of_the_reference(void)
{
	for (unsigned x = 0; x < 256; x++) {
		for (unsigned y = 0; y < 256; y++)
			EXPECT(gf_mul((uint8_t)x, (uint8_t)y) == ref_mul((uint8_t)x, (uint8_t)y));
		EXPECT(!x || ref_mul((uint8_t)x, gf_inv((uint8_t)x)) == 1);
	}
	for (unsigned i = 0; i < PARITY_DATA_MAX; i++)
		for (unsigned j = 0; j < i; j++)
			EXPECT(ref_pow2(i) != ref_pow2(j));
}

static void known_bytes_give_known_parity(void)
{
	array_make(3, 2, 64, 0);
	memset(a.v[0], 1, 64);
	memset(a.v[1], 0x80, 64);
	memset(a.v[2], 0xc0, 64);
	parity_gen(3, 2, 64, (void **)a.v);
	for (unsigned b = 0; b < 64; b++) /* 2 * 0x80 = 0x1d, 4 * 0xc0 = 2 * 0x9d = 0x27 */
		EXPECT(a.v[3][b] == 0x41 && a.v[4][b] == (0x01 ^ 0x1d ^ 0x27));
	ref_gen();
	EXPECT(has_right_parity());
}

static void every_length_gives_the_reference(void)
{
	for (unsigned k = 1; k <= PARITY_DATA_MAX; k++)
		for (unsigned p = 1; p <= 2; p++)
			for (size_t len = PARITY_ALIGN; len <= 4096; len += PARITY_ALIGN) {
				array_make(k, p, len, -1);
				check_gen();
			}
	for (size_t len = 4096; len <= LEN_MAX; len += PARITY_ALIGN) {
		array_make((unsigned)(len / PARITY_ALIGN) % PARITY_DATA_MAX + 1, 1 + (unsigned)rng_below(&rng, 2), len, -1);
		check_gen();
	}
}

static void every_alignment_gives_the_reference(void)
{
	for (unsigned k = 1; k <= PARITY_DATA_MAX; k++)
		for (unsigned p = 1; p <= 2; p++)
			for (int align = 0; align < 64; align++) {
				array_make(k, p, len_random(1024), align);
				check_gen();
			}
}

/* Column i gets new content; `with`: bit 0 P, bit 1 Q. */
static void check_update(unsigned i, unsigned with)
{
	uint8_t *p = a.v[a.k], *q = a.v[a.k + 1], *new_data = spare + PARITY_ALIGN * rng_below(&rng, 64);
	uint8_t *scratch = spare + STRIDE + PARITY_ALIGN * rng_below(&rng, 64);

	parity_gen(a.k, 2, a.len, (void **)a.v);
	keep();
	rng_fill(&rng, new_data, a.len);
	parity_update(i, a.len, a.v[i], new_data, with & 1 ? p : NULL, with & 2 ? q : NULL, scratch);
	EXPECT(is_as_kept(0, a.k) && has_guards());
	memcpy(a.v[i], new_data, a.len);
	ref_gen();
	EXPECT(!memcmp(p, with & 1 ? ref_p : copy[a.k], a.len));
	EXPECT(!memcmp(q, with & 2 ? ref_q : copy[a.k + 1], a.len));
}

static void update_of_each_column_keeps_parity_in_step(void)
{
	for (unsigned k = 1; k <= PARITY_DATA_MAX; k++)
		for (unsigned i = 0; i < k; i++)
			for (unsigned with = 0; with < 4; with++)
				for (int n = 0; n < 4; n++) {
					array_make(k, 2, len_random(n ? 1024 : 8192), -1);
					check_update(i, with);
				}
}

static void check_recover(uint32_t lost)
{
	for (unsigned i = 0; i < a.k + a.p; i++)
		if (lost >> i & 1)
			memset(a.v[i], 0x77, a.len);
	parity_recover(a.k, a.p, a.len, (void **)a.v, lost);
	EXPECT(is_as_kept(0, a.k + a.p) && has_guards());
}

/* Every set of up to p columns. */
static void check_patterns(unsigned k, unsigned p, size_t len)
{
	array_make(k, p, len, -1);
	ref_gen();
	memcpy(a.v[k], ref_p, len);
	if (p == 2)
		memcpy(a.v[k + 1], ref_q, len);
	keep();
	check_recover(0);
	for (unsigned x = 0; x < k + p; x++) {
		check_recover(1U << x);
		for (unsigned y = 0; p == 2 && y < x; y++)
			check_recover(1U << x | 1U << y);
	}
}

static void every_erasure_pattern_is_recovered(void)
{
	static const size_t lens[] = { 64, 192, 512, 4096 + 64 };

	for (unsigned n = 2; n <= COLS_MAX; n++)
		for (unsigned p = 1; p <= 2 && p < n && n - p <= PARITY_DATA_MAX; p++) {
			for (size_t i = 0; i < ARRAY_LEN(lens) && n <= 16; i++)
				check_patterns(n - p, p, lens[i]);
			check_patterns(n - p, p, len_random(1024));
		}
	for (unsigned i = 0; i < 300; i++) { /* longer ones, by chance */
		unsigned p = 1 + (unsigned)rng_below(&rng, 2), k = 1 + (unsigned)rng_below(&rng, PARITY_DATA_MAX);

		array_make(k, p, len_random(LEN_MAX), -1);
		parity_gen(k, p, a.len, (void **)a.v);
		keep();
		check_recover(1U << rng_below(&rng, k + p) | (p == 2 ? 1U << rng_below(&rng, k + 2) : 0));
	}
}

static void one_lost_data_column_is_recovered_without_a_look_at_q(void)
{
	for (unsigned k = 1; k <= PARITY_DATA_MAX; k++)
		for (unsigned x = 0; x < k; x++) {
			array_make(k, 2, len_random(1024), -1);
			parity_gen(k, 2, a.len, (void **)a.v);
			memset(a.v[k + 1], 0x33, a.len); /* wrong, but not lost */
			keep();
			check_recover(1U << x);
		}
}

static void one_lost_parity_is_computed_from_the_data_alone(void)
{
	for (unsigned k = 1; k <= PARITY_DATA_MAX; k++)
		for (unsigned x = 0; x < 2; x++) {
			array_make(k, 2, len_random(1024), -1);
			parity_gen(k, 2, a.len, (void **)a.v);
			memset(a.v[k + !x], 0x33, a.len); /* the other is wrong, and stays */
			keep();
			check_recover(1U << (k + x));
		}
}

static void compare_finds_the_first_bad_byte(void)
{
	for (unsigned k = 1; k <= PARITY_DATA_MAX; k++)
		for (unsigned p = 1; p <= 2; p++) {
			array_make(k, p, 64 * (3 + (k + p) % 5), -1);
			parity_gen(k, p, a.len, (void **)a.v);
			for (size_t b = 0; b < a.len; b++) {
				unsigned i = (unsigned)rng_below(&rng, k + p), j = (unsigned)rng_below(&rng, k + p);
				size_t later = b + 1 + rng_below(&rng, a.len - b);
				uint8_t by = (uint8_t)(1 + rng_below(&rng, 255));

				a.v[i][b] ^= by;
				EXPECT(parity_compare(k, p, a.len, (void **)a.v) == b);
				if (later < a.len)
					a.v[j][later] ^= by;
				EXPECT(parity_compare(k, p, a.len, (void **)a.v) == b);
				a.v[i][b] ^= by;
				EXPECT(parity_compare(k, p, a.len, (void **)a.v) == later);
				if (later < a.len)
					a.v[j][later] ^= by;
			}
			EXPECT(parity_compare(k, p, a.len, (void **)a.v) == a.len);
			EXPECT(parity_compare(k, p, 0, (void **)a.v) == 0);
		}
}

/* In long columns, each of the columns by itself is found out. */
static void compare_sees_every_column(void)
{
	for (unsigned k = 1; k <= PARITY_DATA_MAX; k++)
		for (unsigned p = 1; p <= 2; p++)
			for (unsigned i = 0; i < k + p; i++) {
				size_t b;

				array_make(k, p, len_random(i == k / 2 ? LEN_MAX : 2048), -1);
				parity_gen(k, p, a.len, (void **)a.v);
				b = rng_below(&rng, a.len);
				a.v[i][b] ^= 0x10;
				EXPECT(parity_compare(k, p, a.len, (void **)a.v) == b);
			}
}

/* By trying: a change of column z by c makes P wrong by c and Q by 2^z c. */
static int ref_locate(void)
{
	ref_gen();
	for (unsigned z = 0; z < a.k + 2; z++) {
		uint8_t g = z < a.k ? ref_pow2(z) : 0;
		bool explains = true, any = false;

		for (size_t b = 0; b < a.len && explains; b++) {
			uint8_t sp = ref_p[b] ^ a.v[a.k][b], sq = ref_q[b] ^ a.v[a.k + 1][b];

			any |= sp || sq;
			explains = z < a.k ? ref_mul(g, sp) == sq : z == a.k ? !sq : !sp;
		}
		if (any && explains)
			return (int)z;
	}
	return -1;
}

static void damage(unsigned i, size_t n_bytes)
{
	size_t first = rng_below(&rng, a.len - n_bytes + 1);

	for (size_t b = first; b < first + n_bytes; b++)
		a.v[i][b] ^= (uint8_t)(1 + rng_below(&rng, 255));
}

static void locate_finds_the_one_column_that_is_wrong(void)
{
	for (unsigned k = 1; k <= PARITY_DATA_MAX; k++)
		for (unsigned i = 0; i < k + 2; i++)
			for (unsigned n = 0; n < 6; n++) {
				array_make(k, 2, len_random(n ? 640 : 8192), -1);
				parity_gen(k, 2, a.len, (void **)a.v);
				EXPECT(parity_locate(k, a.len, (void **)a.v) == -1);
				damage(i, n < 3 ? 1 : n == 3 ? a.len : 1 + rng_below(&rng, a.len));
				EXPECT(parity_locate(k, a.len, (void **)a.v) == (int)i);
				if (n == 1)
					EXPECT(ref_locate() == (int)i);
			}
}

static void locate_does_not_guess_where_several_columns_are_wrong(void)
{
	unsigned none = 0;

	for (unsigned n = 0; n < 6000; n++) {
		unsigned k = 1 + (unsigned)rng_below(&rng, PARITY_DATA_MAX), i = (unsigned)rng_below(&rng, k + 2);
		unsigned j = (i + 1 + (unsigned)rng_below(&rng, k + 1)) % (k + 2);
		int got;

		array_make(k, 2, len_random(640), -1);
		parity_gen(k, 2, a.len, (void **)a.v);
		if (n % 2) { /* in one byte: may look like a third column; and other bytes may look like one of the two */
			size_t b = rng_below(&rng, a.len), c = rng_below(&rng, a.len);

			a.v[i][b] ^= (uint8_t)(1 + rng_below(&rng, 255));
			a.v[j][b] ^= (uint8_t)(1 + rng_below(&rng, 255));
			if (n % 4 == 1 && c != b)
				a.v[i][c] ^= (uint8_t)(1 + rng_below(&rng, 255));
		} else { /* in different ones: never one column */
			a.v[i][0] ^= (uint8_t)(1 + rng_below(&rng, 255));
			a.v[j][a.len - 1] ^= (uint8_t)(1 + rng_below(&rng, 255));
		}
		got = parity_locate(k, a.len, (void **)a.v);
		EXPECT(got == ref_locate() && (n % 2 || got == -1));
		none += got == -1;
	}
	EXPECT(none > 3000 && none < 6000);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(isa_l_has_the_field_of_the_reference),
		TEST(known_bytes_give_known_parity),
		TEST(every_length_gives_the_reference),
		TEST(every_alignment_gives_the_reference),
		TEST(update_of_each_column_keeps_parity_in_step),
		TEST(every_erasure_pattern_is_recovered),
		TEST(one_lost_data_column_is_recovered_without_a_look_at_q),
		TEST(one_lost_parity_is_computed_from_the_data_alone),
		TEST(compare_finds_the_first_bad_byte),
		TEST(compare_sees_every_column),
		TEST(locate_finds_the_one_column_that_is_wrong),
		TEST(locate_does_not_guess_where_several_columns_are_wrong),
		CU_TEST_INFO_NULL,
	};

	paths_probe();
	return tests_run_in("raid parity", suite_init, suite_fini, tests);
}
