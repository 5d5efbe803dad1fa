/* The few words every file uses. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/base/err.h"
#include "engine/base/hash.h"
#include "engine/base/le.h"
#include "engine/base/list.h"
#include "engine/base/rng.h"
#include "engine/base/units.h"
#include "engine/base/uuid.h"
#include "tests/unit/unit.h"

static uint64_t size_of(const char *text)
{
	uint64_t v;
	int r = size_parse(text, &v);

	return r < 0 ? (uint64_t)r : v;
}

static void sizes_are_parsed(void)
{
	CU_ASSERT_EQUAL(size_of("0"), 0);
	CU_ASSERT_EQUAL(size_of("512"), 512);
	CU_ASSERT_EQUAL(size_of("512B"), 512);
	CU_ASSERT_EQUAL(size_of("64K"), 65536);
	CU_ASSERT_EQUAL(size_of("64KiB"), 65536);
	CU_ASSERT_EQUAL(size_of("64k"), 65536);
	CU_ASSERT_EQUAL(size_of("64KB"), 64000);
	CU_ASSERT_EQUAL(size_of("1.5T"), 3 * TIB / 2);
	CU_ASSERT_EQUAL(size_of("10G"), 10 * GIB);
	CU_ASSERT_EQUAL(size_of("8191P"), 8191 * PIB);
	CU_ASSERT_EQUAL(size_of("8192P"), (uint64_t)-ERANGE);
	CU_ASSERT_EQUAL(size_of("99999999999999999999999999"), (uint64_t)-ERANGE);
	CU_ASSERT_EQUAL(size_of(""), (uint64_t)-EINVAL);
	CU_ASSERT_EQUAL(size_of("-1"), (uint64_t)-EINVAL);
	CU_ASSERT_EQUAL(size_of("10X"), (uint64_t)-EINVAL);
	CU_ASSERT_EQUAL(size_of("10GG"), (uint64_t)-EINVAL);
	CU_ASSERT_TRUE(size_of("1. G") > INT64_MAX); /* some error */
}

static void sizes_are_printed(void)
{
	char b[16];

	CU_ASSERT_STRING_EQUAL(size_format(0, b, sizeof(b)), "0");
	CU_ASSERT_STRING_EQUAL(size_format(1023, b, sizeof(b)), "1023");
	CU_ASSERT_STRING_EQUAL(size_format(10 * GIB, b, sizeof(b)), "10G");
	CU_ASSERT_STRING_EQUAL(size_format(3 * TIB / 2, b, sizeof(b)), "1.50T");
	CU_ASSERT_STRING_EQUAL(size_format(1536 * MIB * 10, b, sizeof(b)), "15G");
	CU_ASSERT_STRING_EQUAL(size_format(UINT64_MAX, b, sizeof(b)), "16.0E");
}

static void durations_are_parsed(void)
{
	uint64_t v;

	CU_ASSERT_TRUE(duration_parse("30s", &v) == 0 && v == 30 * NS_PER_SEC);
	CU_ASSERT_TRUE(duration_parse("30", &v) == 0 && v == 30 * NS_PER_SEC);
	CU_ASSERT_TRUE(duration_parse("5m", &v) == 0 && v == 300 * NS_PER_SEC);
	CU_ASSERT_TRUE(duration_parse("1h", &v) == 0 && v == 3600 * NS_PER_SEC);
	CU_ASSERT_TRUE(duration_parse("1.5ms", &v) == 0 && v == 1500 * NS_PER_US);
	CU_ASSERT_TRUE(duration_parse("forever", &v) == 0 && v == UINT64_MAX);
	CU_ASSERT_TRUE(duration_parse("0", &v) == 0 && v == 0);
	CU_ASSERT_EQUAL(duration_parse("5 m", &v), -EINVAL);
	CU_ASSERT_EQUAL(duration_parse("99999999999999d", &v), -EINVAL);
}

struct item {
	struct list link;
	int n;
};

static void lists_keep_order(void)
{
	struct list a = LIST_INIT(a), b = LIST_INIT(b);
	struct item v[6], *i, *tmp;
	int k, n = 0;

	for (k = 0; k < 6; k++) {
		v[k].n = k;
		list_push_back(k < 3 ? &a : &b, &v[k].link);
	}
	list_splice_back(&a, &b);
	CU_ASSERT_TRUE(list_is_empty(&b));
	list_splice_back(&a, &b);
	list_for_each(i, &a, link)
		CU_ASSERT_EQUAL(i->n, n++);
	CU_ASSERT_EQUAL(n, 6);
	list_for_each_safe(i, tmp, &a, link)
		if (i->n % 2)
			list_del(&i->link);
	list_del(&v[1].link); /* again: harmless */
	CU_ASSERT_PTR_EQUAL(list_first(&a, struct item, link), &v[0]);
	CU_ASSERT_PTR_EQUAL(list_last(&a, struct item, link), &v[4]);
	list_push_front(&a, &v[5].link);
	CU_ASSERT_PTR_EQUAL(list_pop_front(&a), &v[5].link);
	while (list_pop_front(&a))
		n--;
	CU_ASSERT_EQUAL(n, 3);
}

struct entry {
	struct hash_node node;
	unsigned n;
};

static bool entry_sum(struct hash_node *n, void *arg)
{
	*(uint64_t *)arg += container_of(n, struct entry, node)->n;
	return true;
}

static void hash_finds_what_was_added(void)
{
	static struct entry e[3000];
	struct hash_node *n;
	struct hash h;
	uint64_t sum = 0;
	unsigned i;

	hash_init(&h);
	CU_ASSERT_PTR_NULL(hash_find(&h, 1));
	for (i = 0; i < 3000; i++) {
		e[i].n = i;
		hash_add(&h, &e[i].node, i / 2); /* every key twice */
	}
	for (i = 0; i < 1500; i++) {
		n = hash_find(&h, i);
		CU_ASSERT_PTR_NOT_NULL_FATAL(n);
		n = hash_next(n);
		CU_ASSERT_PTR_NOT_NULL_FATAL(n);
		CU_ASSERT_PTR_NULL(hash_next(n));
	}
	for (i = 0; i < 3000; i += 2)
		hash_del(&h, &e[i].node);
	for (i = 0; i < 1500; i++)
		CU_ASSERT_PTR_EQUAL(hash_find(&h, i), &e[2 * i + 1].node);
	CU_ASSERT_PTR_NULL(hash_find(&h, 1500));
	hash_each(&h, entry_sum, &sum);
	CU_ASSERT_EQUAL(sum, 1500 * 1500);
	CU_ASSERT_EQUAL(h.count, 1500);
	hash_fini(&h);
}

static void crc32c_is_the_standard_one(void)
{
	char zeros[32] = { 0 };

	CU_ASSERT_EQUAL(crc32c(0, "123456789", 9), 0xE3069283);
	CU_ASSERT_EQUAL(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xE3069283);
	CU_ASSERT_EQUAL(crc32c(0, zeros, 32), 0x8A9136AA); /* RFC 3720 B.4 */
	CU_ASSERT_EQUAL(crc32c(0, zeros, 0), 0);
}

static void integers_on_disk_are_little_endian(void)
{
	le64 x = le64_make(0x0102030405060708ULL);
	le32 y = le32_make(0xdeadbeef);
	le16 z = le16_make(0x1234);

	CU_ASSERT_TRUE(x.b[0] == 8 && x.b[7] == 1 && y.b[0] == 0xef && z.b[1] == 0x12);
	CU_ASSERT_EQUAL(le64_get(x), 0x0102030405060708ULL);
	CU_ASSERT_EQUAL(le32_get(y), 0xdeadbeef);
	CU_ASSERT_EQUAL(le16_get(z), 0x1234);
}

static void errors_carry_a_sentence(void)
{
	struct err e = { 0 };

	CU_ASSERT_EQUAL(err_set(&e, -ERR_POOL_FULL, "pool %s is full", "p"), -ERR_POOL_FULL);
	CU_ASSERT_STRING_EQUAL(e.text, "pool p is full");
	CU_ASSERT_EQUAL(err_prefix(&e, "writing %d: ", 1), -ERR_POOL_FULL);
	CU_ASSERT_PTR_NOT_NULL(strstr(e.text, "pool p is full"));
	CU_ASSERT_PTR_NOT_NULL(strstr(e.text, "writing 1"));
	CU_ASSERT_EQUAL(err_set(NULL, -EIO, "x"), -EIO);
	CU_ASSERT_EQUAL(err_to_errno(-ERR_POOL_FULL), -ENOSPC);
	CU_ASSERT_EQUAL(err_to_errno(-ERR_CSUM), -EIO);
	CU_ASSERT_EQUAL(err_to_errno(-EPERM), -EPERM);
	CU_ASSERT_EQUAL(err_to_errno(0), 0);
	CU_ASSERT_STRING_EQUAL(err_text(-ERR_STALE), "disk has missed writes");
	CU_ASSERT_TRUE(strlen(err_text(-EIO)) > 0);
	e = (struct err){ 0 };
	CU_ASSERT_EQUAL(err_default(&e, -EIO, "reading"), -EIO);
	CU_ASSERT_PTR_NOT_NULL(strstr(e.text, "reading"));
}

static void uuids_go_round(void)
{
	uint8_t raw[16] = { 0xff, 1, 2, 3, 4, 5, 0xff, 7, 0xff, 9, 10, 11, 12, 13, 14, 15 };
	struct uuid a, b, zero = { { 0 } };
	char text[UUID_TEXT_LEN];

	uuid_from_random(&a, raw);
	CU_ASSERT_STRING_EQUAL(uuid_format(&a, text), "ff010203-0405-4f07-bf09-0a0b0c0d0e0f");
	CU_ASSERT_EQUAL(uuid_parse(text, &b), 0);
	CU_ASSERT_TRUE(uuid_is_equal(&a, &b));
	CU_ASSERT_TRUE(uuid_is_zero(&zero) && !uuid_is_zero(&a));
	CU_ASSERT_EQUAL(uuid_parse("ff010203-0405-4f07-bf09-0a0b0c0d0e0", &b), -EINVAL);
	CU_ASSERT_EQUAL(uuid_parse("ff010203-0405-4f07-bf09-0a0b0c0d0e0g", &b), -EINVAL);
	CU_ASSERT_EQUAL(uuid_parse("ff010203-0405-4f07-bf09-0a0b0c0d0e0f0", &b), -EINVAL);
}

static void same_seed_same_numbers(void)
{
	struct rng a, b, c;
	unsigned i, hits[10] = { 0 };
	uint8_t x[13], y[13];

	rng_init(&a, 5);
	rng_init(&b, 5);
	rng_init(&c, 6);
	for (i = 0; i < 100; i++)
		CU_ASSERT_EQUAL(rng_next(&a), rng_next(&b));
	CU_ASSERT_NOT_EQUAL(rng_next(&a), rng_next(&c));
	rng_next(&b);
	for (i = 0; i < 10000; i++)
		hits[rng_below(&a, 10)]++;
	for (i = 0; i < 10; i++)
		CU_ASSERT_TRUE(hits[i] > 800 && hits[i] < 1200);
	rng_init(&a, 9);
	rng_init(&b, 9);
	rng_fill(&a, x, 13);
	rng_fill(&b, y, 13);
	CU_ASSERT_EQUAL(memcmp(x, y, 13), 0);
}

static void a_crash_drops_what_was_tracked(void)
{
	void *kept, *before = xmalloc(10), *freed;

	alloc_track_begin();
	CU_ASSERT_PTR_NOT_NULL(xmalloc(100));
	CU_ASSERT_PTR_NOT_NULL(xstrdup("lost"));
	CU_ASSERT_EQUAL((uintptr_t)xaligned(4096, 5000) % 4096, 0);
	freed = xmalloc(1);
	freed = xrealloc(freed, 10000);
	xfree(freed);
	before = xrealloc(before, 20); /* now tracked: it is a new block */
	CU_ASSERT_EQUAL(alloc_track_drop(), 4);
	alloc_track_begin();
	kept = xcalloc(3, 5);
	alloc_track_end();
	CU_ASSERT_EQUAL(((char *)kept)[14], 0);
	xfree(kept);
	xfree(NULL);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(sizes_are_parsed),
		TEST(sizes_are_printed),
		TEST(durations_are_parsed),
		TEST(lists_keep_order),
		TEST(hash_finds_what_was_added),
		TEST(crc32c_is_the_standard_one),
		TEST(integers_on_disk_are_little_endian),
		TEST(errors_carry_a_sentence),
		TEST(uuids_go_round),
		TEST(same_seed_same_numbers),
		TEST(a_crash_drops_what_was_tracked),
		CU_TEST_INFO_NULL,
	};

	return tests_run("base", tests);
}
