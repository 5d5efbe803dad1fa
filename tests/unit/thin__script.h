/*
 * thin__script.h: what unit tests of volumes share: a rig with a volume "v", on reactor 0, which is home of pool and volume.
 */
#ifndef TESTS_UNIT_THIN__SCRIPT_H
#define TESTS_UNIT_THIN__SCRIPT_H

#include "tests/unit/thin__expect.h"
#include "tests/unit/unit.h"

static inline struct thin_rig_conf conf_of(uint64_t seed)
{
	return (struct thin_rig_conf){ .seed = seed, .n_reactors = 1, .block_bytes = 512, .cluster_bytes = 8 * KIB,
				       .group_bytes = 4 * MIB, .n_groups = 64, .reserve_groups = 4, .cache_bytes = 4 * MIB,
				       .journal_bytes = MIB };
}

static struct thin_vol *vol, *vol2 __attribute__((unused));
static struct bdev *bd;

static inline int co_begin(uint64_t size, uint64_t full_wait_ns)
{
	CHECK(thin_rig_co_format(&rig) == 0);
	CHECK(thin_rig_co_create(&rig, "v", size, full_wait_ns, &vol) == 0);
	CHECK(thin_rig_co_attach(&rig, vol) == 0);
	bd = thin_volume_bdev(vol->open);
	return 0;
}

static inline int co_end(void)
{
	EXPECT(thin_rig_co_check(&rig) == 0);
	thin_rig_co_detach(&rig, vol);
	return thin_rig_co_close(&rig);
}

static inline void script_conf(const struct thin_rig_conf *c, int (*fn)(void *arg))
{
	thin_rig_init(&rig, c);
	EXPECT(thin_rig_run(&rig, fn, NULL) == 0);
	EXPECT(thin_flags_sum(rig.flags).problems == 0);
	thin_rig_restart(&rig);
	EXPECT(rig.leaked == 0);
	thin_rig_fini(&rig);
}

static inline int co_fill(struct bdev *b, uint64_t off, uint64_t len, int c, unsigned flags)
{
	void *buf = buf_alloc(len);
	int r;

	memset(buf, c, len);
	r = bdev_co_write(b, off, buf, len, flags);
	buf_free(buf, len);
	return r;
}

static inline bool co_is(struct bdev *b, uint64_t off, uint64_t len, int c)
{
	uint8_t *buf = buf_alloc(len);
	uint64_t i;
	bool ok;

	memset(buf, ~c, len);
	ok = bdev_co_read(b, off, buf, len) == 0;
	for (i = 0; i < len && ok; i++)
		ok = buf[i] == (uint8_t)c;
	buf_free(buf, len);
	return ok;
}

/* A request in the background. */
struct later {
	enum io_op op;
	struct bdev *b;
	uint64_t off, len;
	int c, result;
	bool begun, done;
};

static inline void later_co_run(void *arg)
{
	struct later *l = arg;

	l->begun = true;
	if (l->op == IO_WRITE)
		l->result = co_fill(l->b, l->off, l->len, l->c, 0);
	else if (l->op == IO_READ)
		l->result = co_is(l->b, l->off, l->len, l->c) ? 0 : -EILSEQ;
	else if (l->op == IO_FLUSH)
		l->result = bdev_co_flush(l->b);
	else
		l->result = bdev_co_discard(l->b, l->off, l->len, 0);
	l->done = true;
}

static inline void later_start(struct later *l, enum io_op op, uint64_t off, uint64_t len, int c)
{
	*l = (struct later){ .op = op, .b = bd, .off = off, .len = len, .c = c };
	co_spawn(CO_SERVICE, later_co_run, l, "later");
	co_sleep_ns(5 * NS_PER_MS);
}

static inline int later_co_wait(struct later *l)
{
	while (!l->done)
		co_sleep_ns(NS_PER_MS);
	return l->result;
}

#endif
