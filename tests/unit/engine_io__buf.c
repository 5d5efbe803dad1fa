/* Buffer pools with and without arena, and the iovec helpers. */
#include <stdlib.h>
#include <string.h>

#include "engine/base/alloc_hold.h"
#include "engine/base/rng.h"
#include "engine/base/units.h"
#include "engine/io/bdev.h"
#include "engine/io/buf.h"
#include "tests/unit/unit.h"

#define ARENA_BYTES (4 * MIB)

static char *arena;
static void *test_arena(struct reactor *r, size_t *len)
{
	*len = ARENA_BYTES;
	return arena;
}

static const struct world_ops ops_arena = { .arena = test_arena }, ops_plain = { 0 };
static struct world world = { .n_reactors = 1 };
static struct reactor reactor;

static void begin(const struct world_ops *ops)
{
	arena = xaligned(4096, ARENA_BYTES);
	world.ops = ops;
	reactor_init(&reactor, &world, 0);
	reactor_enter(&reactor);
}

static void end(void)
{
	reactor_fini(&reactor);
	reactor_enter(NULL);
	xfree(arena);
}

static void buffers_are_aligned_and_apart(void)
{
	const struct world_ops *ops[2] = { &ops_arena, &ops_plain };
	struct { unsigned char *p; size_t len; } b[200] = { { 0 } };
	struct rng rng;
	unsigned i, k, turn;

	rng_init(&rng, 3);
	for (turn = 0; turn < 2; turn++) {
		begin(ops[turn]);
		for (i = 0; i < 20000; i++) {
			k = (unsigned)rng_below(&rng, 200);
			if (b[k].p) {
				CU_ASSERT_EQUAL(b[k].p[0], k);
				CU_ASSERT_EQUAL(b[k].p[b[k].len - 1], k);
				buf_free(b[k].p, b[k].len);
				b[k].p = NULL;
				continue;
			}
			b[k].len = 1 + rng_below(&rng, 4096ULL << rng_below(&rng, 7));
			b[k].p = buf_alloc(b[k].len);
			CU_ASSERT_EQUAL((uintptr_t)b[k].p % 4096, 0);
			b[k].p[0] = b[k].p[b[k].len - 1] = (unsigned char)k;
		}
		for (k = 0; k < 200; k++) {
			buf_free(b[k].p, b[k].len);
			b[k].p = NULL;
		}
		end();
	}
}

static void registered_buffers_lie_in_the_arena(void)
{
	void *b[5], *big, *small;
	unsigned i;

	begin(&ops_arena);
	for (i = 0; i < 5; i++)
		b[i] = buf_alloc(MIB);
	for (i = 0; i < 4; i++)
		CU_ASSERT_EQUAL(buf_registered_index(b[i], MIB), 0);
	CU_ASSERT_EQUAL(buf_registered_index(b[4], MIB), -1); /* the arena is used up */
	big = buf_alloc(3 * MIB);
	CU_ASSERT_EQUAL(buf_registered_index(big, 1), -1);
	for (i = 0; i < 5; i++)
		buf_free(b[i], MIB);
	buf_free(big, 3 * MIB);
	small = buf_alloc(1);
	CU_ASSERT_EQUAL(buf_registered_index(small, 4096), 0);
	CU_ASSERT_EQUAL(buf_registered_index(arena + ARENA_BYTES - 4096, 4096), 0);
	CU_ASSERT_EQUAL(buf_registered_index(arena + ARENA_BYTES - 4096, 4097), -1);
	buf_free(small, 1);
	end();
}

static void small_pieces_become_big_ones_again(void)
{
	void *b[ARENA_BYTES / 4096], *big[4];
	unsigned i, n = ARENA_BYTES / 4096;

	begin(&ops_arena);
	for (i = 0; i < n; i++)
		b[i] = buf_alloc(4096);
	CU_ASSERT_EQUAL(buf_registered_index(b[n - 1], 4096), 0);
	for (i = 0; i < n; i++)
		buf_free(b[(i * 7) % n], 4096);
	for (i = 0; i < 4; i++) {
		big[i] = buf_alloc(MIB);
		CU_ASSERT_EQUAL(buf_registered_index(big[i], MIB), 0);
	}
	for (i = 0; i < 4; i++)
		buf_free(big[i], MIB);
	end();
}

static void plain_memory_is_poisoned(void)
{
	unsigned char *p;

	begin(&ops_plain);
	p = buf_alloc(5000);
	CU_ASSERT_EQUAL(p[0], 0xA5);
	CU_ASSERT_EQUAL(p[4999], 0xA5);
	buf_free(p, 5000);
	p = buf_alloc_zero(5000);
	CU_ASSERT_EQUAL(p[0] | p[4999], 0);
	buf_free(p, 5000);
	buf_free(NULL, 4096);
	end();
}

static void iovecs_copy_and_slice(void)
{
	char a[5] = "abcd", b[4] = "efg", c[3] = "hi", out[10] = { 0 };
	struct iovec v[4] = { { a, 4 }, { NULL, 0 }, { b, 3 }, { c, 2 } }, s[4];

	iov_to_buf(v, 4, 0, out, 9);
	CU_ASSERT_STRING_EQUAL(out, "abcdefghi");
	iov_to_buf(v, 4, 4, out, 4);
	CU_ASSERT_EQUAL(memcmp(out, "efgh", 4), 0);
	iov_from_buf(v, 4, 3, "XYZ", 3);
	CU_ASSERT_STRING_EQUAL(a, "abcX");
	CU_ASSERT_EQUAL(memcmp(b, "YZg", 3), 0);
	iov_zero(v, 4, 6, 2);
	CU_ASSERT_TRUE(b[1] == 'Z' && b[2] == 0 && c[0] == 0 && c[1] == 'i');
	CU_ASSERT_EQUAL(iov_slice(v, 4, 2, 5, s, 4), 2);
	CU_ASSERT_TRUE(s[0].iov_base == a + 2 && s[0].iov_len == 2 && s[1].iov_base == b && s[1].iov_len == 3);
	CU_ASSERT_EQUAL(iov_slice(v, 4, 2, 6, s, 2), 0);
	CU_ASSERT_EQUAL(iov_slice(v, 4, 9, 0, s, 2), 0);
}

static void ranges_are_checked(void)
{
	struct bdev b = { .size_bytes = 1 * MIB, .block_bytes = 4096 };

	CU_ASSERT_EQUAL(bdev_check_range(&b, 0, MIB), 0);
	CU_ASSERT_EQUAL(bdev_check_range(&b, 0, 0), -EINVAL);
	CU_ASSERT_EQUAL(bdev_check_range(&b, 512, 4096), -EINVAL);
	CU_ASSERT_EQUAL(bdev_check_range(&b, 4096, MIB), -ERANGE);
	CU_ASSERT_EQUAL(bdev_check_range(&b, UINT64_MAX - 4095, 8192), -ERANGE);
}

static bool is_handed_out(const void *p, size_t len, unsigned n)
{
	bool found = false;
	void **b = xmalloc(n * sizeof(*b));
	unsigned i;

	for (i = 0; i < n; i++) {
		b[i] = buf_alloc(len);
		found |= b[i] == p;
	}
	for (i = 0; i < n; i++)
		buf_free(b[i], len);
	xfree(b);
	return found;
}

static void held_buffers_are_not_handed_out_before_their_release(void)
{
	static const size_t lens[] = { 4096, 65536, MIB, 3 * MIB };
	const struct world_ops *ops[2] = { &ops_arena, &ops_plain };
	unsigned i, turn;
	char *p;

	for (turn = 0; turn < 2; turn++) {
		begin(ops[turn]);
		for (i = 0; i < ARRAY_LEN(lens); i++) {
			p = buf_alloc(lens[i]);
			alloc_hold(p + lens[i] / 2, 512);
			alloc_hold(p, lens[i]);
			buf_free(p, lens[i]);
			memset(p, 7, lens[i]); /* it is there */
			CU_ASSERT_FALSE(is_handed_out(p, lens[i], 50));
			alloc_release(p, lens[i]);
			CU_ASSERT_FALSE(is_handed_out(p, lens[i], 50));
			alloc_release(p + lens[i] / 2, 512);
			if (turn == 0 && lens[i] < MIB) /* of an arena: reused soon */
				CU_ASSERT_TRUE(is_handed_out(p, lens[i], (unsigned)(ARENA_BYTES / lens[i])));
		}
		CU_ASSERT_FALSE(alloc_has_holds());
		end();
	}
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(buffers_are_aligned_and_apart),
		TEST(registered_buffers_lie_in_the_arena),
		TEST(small_pieces_become_big_ones_again),
		TEST(plain_memory_is_poisoned),
		TEST(iovecs_copy_and_slice),
		TEST(ranges_are_checked),
		TEST(held_buffers_are_not_handed_out_before_their_release),
		CU_TEST_INFO_NULL,
	};

	return tests_run("buf", tests);
}
