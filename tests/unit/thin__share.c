/*
 * Volumes of one reactor: how many requests of each are under way while others want something too.
 */
#include "tests/unit/thin__script.h"

#define SIZE (64 * MIB)
#define MANY 300

static void script(int (*fn)(void *arg))
{
	struct thin_rig_conf c = conf_of(17);

	c.cluster_bytes = 64 * KIB;
	c.n_groups = 8; /* they can be full */
	script_conf(&c, fn);
}

static int co_begin_two(void)
{
	co_begin(SIZE, 0);
	CHECK(thin_rig_co_create(&rig, "w", SIZE, 0, &vol2) == 0);
	CHECK(thin_rig_co_attach(&rig, vol2) == 0);
	EXPECT(co_fill(bd, 0, 2 * MIB, 1, 0) == 0 && co_fill(thin_volume_bdev(vol2->open), 0, 2 * MIB, 2, 0) == 0);
	co_sleep_ns(NS_PER_SEC); /* nobody is in use */
	return 0;
}

static int co_end_two(void)
{
	thin_rig_co_detach(&rig, vol2);
	return co_end();
}

struct crowd {
	struct io io[MANY];
	uint64_t len;
	uint8_t *buf;
	unsigned n, n_failed;
};

static void crowd_done(struct io *io)
{
	struct crowd *c = io->owner;

	c->n++;
	c->n_failed += io->result < 0;
}

static struct crowd *crowd_start(struct bdev *b, enum io_op op, uint64_t off, uint64_t len, unsigned n)
{
	struct crowd *c = xcalloc(1, sizeof(*c));
	unsigned i;

	c->len = len;
	c->buf = buf_alloc(len);
	memset(c->buf, 7, len);
	for (i = 0; i < n; i++) {
		io_prep(&c->io[i], op, off + (op == IO_WRITE ? i * len : 0), len, c->buf, 0);
		c->io[i].done = crowd_done;
		c->io[i].owner = c;
		bdev_submit(b, &c->io[i]);
	}
	return c;
}

static unsigned crowd_co_end(struct crowd *c, unsigned n)
{
	unsigned failed;

	while (c->n < n)
		co_sleep_ns(NS_PER_MS);
	failed = c->n_failed;
	buf_free(c->buf, c->len);
	xfree(c);
	return failed;
}

/* Both have something under way. */
static void co_share(void)
{
	struct crowd *a, *b;

	rig.hold_reads = true;
	a = crowd_start(bd, IO_READ, 0, 512, 1);
	b = crowd_start(thin_volume_bdev(vol2->open), IO_READ, 0, 512, 1);
	co_sleep_ns(NS_PER_MS);
	rig.hold_reads = false;
	thin_rig_release_writes(&rig);
	EXPECT(crowd_co_end(a, 1) == 0 && crowd_co_end(b, 1) == 0);
}

/* How many reads are with the disk, of one volume's crowd and one of the other's. */
static unsigned co_under_way(uint64_t len, bool shared)
{
	struct crowd *c, *one = NULL;
	unsigned n;

	rig.hold_reads = true;
	if (shared)
		one = crowd_start(thin_volume_bdev(vol2->open), IO_READ, 0, 512, 1);
	c = crowd_start(bd, IO_READ, 0, len, MANY);
	co_sleep_ns(NS_PER_MS);
	n = thin_rig_n_held(&rig);
	rig.hold_reads = false;
	thin_rig_release_writes(&rig);
	EXPECT(crowd_co_end(c, MANY) == 0 && (!one || crowd_co_end(one, 1) == 0));
	return n;
}

static int few_co(void *arg)
{
	co_begin_two();
	EXPECT(co_under_way(4096, true) == 64 + 1);
	EXPECT(co_under_way(64 * KIB, true) == 64 + 1);
	EXPECT(co_under_way(128 * KIB, true) == 32 + 1);
	EXPECT(co_under_way(MIB, true) == 8 + 1);
	return co_end_two();
}

static void of_two_volumes_each_has_so_many_under_way(void)
{
	script(few_co);
}

static int alone_co(void *arg)
{
	co_begin_two();
	EXPECT(co_is(thin_volume_bdev(vol2->open), 0, 512, 2));
	EXPECT(co_under_way(4096, false) == MANY);
	co_share();
	EXPECT(co_under_way(4096, false) == 64); /* the other one may come again */
	co_sleep_ns(NS_PER_SEC);
	EXPECT(co_under_way(4096, false) == MANY);
	return co_end_two();
}

static void a_volume_alone_has_all_of_them_under_way(void)
{
	script(alone_co);
}

/* Reads of a volume whose writes wait for space. */
static int parked_co(void *arg)
{
	struct crowd *writes, *reads;
	uint64_t used = 2 * MIB;

	co_begin_two();
	while (co_fill(bd, used, 64 * KIB, 1, 0) == 0)
		used += 64 * KIB;
	thin_volume_set_full_wait(vol->open, UINT64_MAX);
	co_share();
	writes = crowd_start(bd, IO_WRITE, SIZE / 2, 64 * KIB, MANY);
	co_sleep_ns(100 * NS_PER_MS);
	co_share();
	reads = crowd_start(bd, IO_READ, 0, 4096, MANY);
	co_sleep_ns(NS_PER_SEC);
	EXPECT(reads->n == MANY && writes->n == 0);
	EXPECT(crowd_co_end(reads, MANY) == 0);
	thin_volume_set_full_wait(vol->open, 0);
	EXPECT(crowd_co_end(writes, MANY) == MANY);
	return co_end_two();
}

static void who_waits_for_space_is_in_nobodys_way(void)
{
	script(parked_co);
}

static bool shrunk;

static void shrink_co_run(void *arg)
{
	EXPECT(thin_volume_co_resize(vol->open, 4096) == 0);
	shrunk = true;
}

static int changes_co(void *arg)
{
	struct crowd *c;

	co_begin_two();
	/* Frozen, with most of them in line. */
	co_share();
	rig.hold_reads = true;
	c = crowd_start(bd, IO_READ, 4096, 4096, MANY);
	co_sleep_ns(NS_PER_MS);
	rig.hold_reads = false;
	thin_rig_release_writes(&rig);
	thin_volume_co_freeze(vol->open, true);
	EXPECT(c->n == 64);
	thin_volume_thaw(vol->open);
	EXPECT(crowd_co_end(c, MANY) == 0);
	/* Smaller: all that are in line end when one does. */
	co_share();
	rig.hold_reads = true;
	c = crowd_start(bd, IO_READ, 4096, 4096, MANY);
	co_sleep_ns(NS_PER_MS);
	co_spawn(CO_SERVICE, shrink_co_run, NULL, "shrink"); /* waits for those that are under way */
	co_sleep_ns(NS_PER_MS);
	rig.hold_reads = false;
	thin_rig_release_writes(&rig);
	EXPECT(crowd_co_end(c, MANY) == MANY - 64);
	while (!shrunk)
		co_sleep_ns(NS_PER_MS);
	EXPECT(thin_volume_co_resize(vol->open, SIZE) == 0);
	/* Closed. */
	co_share();
	rig.hold_reads = true;
	c = crowd_start(bd, IO_READ, 0, 4096, MANY);
	co_sleep_ns(NS_PER_MS);
	rig.hold_reads = false;
	thin_rig_release_writes(&rig);
	thin_rig_co_detach(&rig, vol);
	EXPECT(c->n == MANY && crowd_co_end(c, MANY) == 0);
	EXPECT(thin_rig_co_attach(&rig, vol) == 0);
	return co_end_two();
}

static void those_in_line_go_where_the_volume_goes(void)
{
	script(changes_co);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(of_two_volumes_each_has_so_many_under_way),
		TEST(a_volume_alone_has_all_of_them_under_way),
		TEST(who_waits_for_space_is_in_nobodys_way),
		TEST(those_in_line_go_where_the_volume_goes),
		CU_TEST_INFO_NULL,
	};

	return tests_run("thin: sharing a reactor", tests);
}
