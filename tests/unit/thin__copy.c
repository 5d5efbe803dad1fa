/*
 * Copying by sharing clusters, while both volumes are in use: on two reactors, with writers of the source that never stop.
 */
#include "tests/unit/thin__script.h"

#define BYTES (2 * MIB)
#define CLUSTER (8 * KIB)
#define CLUSTERS (BYTES / CLUSTER)
#define PIECE 512

static struct thin_vol *from, *to;
static bool end_of_it;
static unsigned n_running;
/* Per cluster of the source: the number of the newest write that has begun, and that has ended. */
static uint64_t begun[CLUSTERS], ended[CLUSTERS];

static int on_home(struct thin_vol *v, int (*fn)(void *arg), void *arg)
{
	return reactor_co_call(thin_volume_home(rig.thin, v->id), fn, arg);
}

struct request {
	struct thin_vol *v;
	enum io_op op;
	uint64_t off, len;
	void *buf;
};

static int request_there(void *arg)
{
	struct request *q = arg;
	struct bdev *b = thin_volume_bdev(q->v->open);

	if (q->op == IO_READ)
		return bdev_co_read(b, q->off, q->buf, q->len);
	return q->op == IO_WRITE ? bdev_co_write(b, q->off, q->buf, q->len, 0) : bdev_co_flush(b);
}

static int request(struct thin_vol *v, enum io_op op, uint64_t off, uint64_t len, void *buf)
{
	struct request q = { v, op, off, len, buf };

	return on_home(v, request_there, &q);
}

/* Writes whole clusters, each with its number in each of its pieces; now and then a part, with the number that is there. */
static void writer_run(void *arg)
{
	uint64_t first = (uintptr_t)arg, c, off, len, i;
	uint8_t *buf = xaligned(4096, CLUSTER);
	struct rng rng;

	rng_init(&rng, rig.conf.seed * 10 + first);
	while (!end_of_it) {
		c = first + 4 * rng_below(&rng, CLUSTERS / 4); /* its own */
		off = 0;
		len = CLUSTER;
		if (rng_below(&rng, 3) == 0) {
			off = rng_below(&rng, CLUSTER / PIECE) * PIECE;
			len = MIN((1 + off / PIECE % 3) * PIECE, CLUSTER - off);
		} else {
			begun[c]++;
		}
		for (i = 0; i < len; i += PIECE) {
			memset(buf + i, 0x3c, PIECE);
			memcpy(buf + i, &begun[c], sizeof(begun[c]));
		}
		EXPECT(request(from, IO_WRITE, c * CLUSTER + off, len, buf) == 0);
		ended[c] = begun[c];
	}
	xfree(buf);
	n_running--;
}

struct share {
	uint64_t from_off, to_off, len, done;
};

static int share_there(void *arg)
{
	struct share *s = arg;

	return thin_volume_co_share(from->open, s->from_off, to->open, s->to_off, s->len, &s->done);
}

/* What the copy may hold: numbers between those that had ended when it began, and those that had begun when it ended. And it stays. */
static void co_look(const struct share *s, const uint64_t *least)
{
	uint8_t *one = xaligned(4096, BYTES), *two = xaligned(4096, BYTES);
	uint64_t most[CLUSTERS], i, c, n;

	memcpy(most, begun, sizeof(most));
	EXPECT(request(to, IO_READ, s->to_off, s->len, one) == 0);
	co_sleep_ns(5 * NS_PER_MS);
	EXPECT(request(to, IO_READ, s->to_off, s->len, two) == 0);
	EXPECT(!memcmp(one, two, s->len));
	for (i = 0; i < s->len; i += PIECE) {
		c = (s->from_off + i) / CLUSTER;
		memcpy(&n, one + i, sizeof(n));
		EXPECT(n >= least[c] && n <= most[c]);
	}
	xfree(one);
	xfree(two);
}

static void co_shares(unsigned times)
{
	uint64_t least[CLUSTERS];
	void *junk = xaligned(4096, CLUSTER);
	struct share s = { 0 };
	unsigned i;

	memset(junk, 0xee, CLUSTER);
	for (i = 0; i < times; i++) {
		s.from_off = rng_below(&rig.rng, CLUSTERS);
		s.to_off = rng_below(&rig.rng, CLUSTERS);
		s.len = 1 + rng_below(&rig.rng, CLUSTERS);
		s.len = MIN(s.len, CLUSTERS - MAX(s.from_off, s.to_off)) * CLUSTER;
		s.from_off *= CLUSTER;
		s.to_off *= CLUSTER;
		EXPECT(request(to, IO_WRITE, s.to_off, CLUSTER, junk) == 0); /* its record goes home before the copy's */
		memcpy(least, ended, sizeof(least));
		EXPECT(on_home(from, share_there, &s) == 0);
		EXPECT(s.done == s.len);
		co_look(&s, least);
		if (i % 8 == 3)
			EXPECT(request(to, IO_FLUSH, 0, 0, NULL) == 0);
	}
	xfree(junk);
}

/* What home has of it is what its clients have seen. */
static void co_reopen(struct thin_vol *v)
{
	uint8_t *one = xaligned(4096, BYTES), *two = xaligned(4096, BYTES);

	EXPECT(request(v, IO_READ, 0, BYTES, one) == 0);
	thin_rig_co_detach(&rig, v);
	EXPECT(thin_rig_co_attach(&rig, v) == 0);
	EXPECT(request(v, IO_READ, 0, BYTES, two) == 0);
	EXPECT(!memcmp(one, two, BYTES));
	xfree(one);
	xfree(two);
}

static int while_written(void *arg)
{
	struct thin_vol *made;
	struct thin_copy c;
	uintptr_t i;

	EXPECT(thin_rig_co_format(&rig) == 0);
	EXPECT(thin_rig_co_create(&rig, "from", BYTES, 0, &from) == 0 && thin_rig_co_create(&rig, "to", BYTES, 0, &to) == 0);
	EXPECT(thin_rig_co_attach(&rig, from) == 0 && thin_rig_co_attach(&rig, to) == 0);
	memset(begun, 0, sizeof(begun));
	memset(ended, 0, sizeof(ended));
	end_of_it = false;
	for (i = 0; i < 4; i++, n_running++)
		co_spawn(CO_SERVICE, writer_run, (void *)i, "writer");
	co_sleep_ns(20 * NS_PER_MS);
	co_shares(12);
	co_reopen(to);
	c = (struct thin_copy){ .source = from, .name = "snap", .kind = THIN_KIND_SNAPSHOT };
	co_mutex_lock(&from->admin);
	EXPECT(thin_co_copy(rig.thin, &c, 1) == 0);
	co_mutex_unlock(&from->admin);
	co_shares(12);
	made = thin_vol_by_id(rig.thin, c.id);
	EXPECT(made && thin_co_volumes_delete(rig.thin, &made, 1) == 0);
	co_shares(12);
	end_of_it = true;
	while (n_running)
		co_sleep_ns(NS_PER_MS);
	EXPECT(request(from, IO_FLUSH, 0, 0, NULL) == 0 && request(to, IO_FLUSH, 0, 0, NULL) == 0);
	co_reopen(to);
	co_reopen(from);
	co_sleep_ns(NS_PER_SEC);
	EXPECT(thin_rig_co_check(&rig) == 0);
	thin_rig_co_detach(&rig, from);
	thin_rig_co_detach(&rig, to);
	return thin_rig_co_close(&rig);
}

static void copies_hold_one_moment_of_each_cluster_and_stay(void)
{
	uint64_t seed;

	for (seed = 1; seed <= 16; seed++) {
		struct thin_rig_conf c = conf_of(seed);

		c.n_reactors = 1 + seed % 3;
		c.redirect = seed % 4 == 3;
		if (seed % 5 == 4)
			c.cache_bytes = 16 * KIB; /* leaves come and go */
		script_conf(&c, while_written);
	}
}

/* What cannot be shared says so, and changes nothing. */
static int refused(void *arg)
{
	uint64_t done;

	EXPECT(co_begin(BYTES, 0) == 0);
	EXPECT(co_fill(bd, 0, BYTES, 1, 0) == 0);
	EXPECT(thin_volume_co_share(vol->open, 0, vol->open, CLUSTER, 2 * CLUSTER, &done) == -EOPNOTSUPP && !done);
	EXPECT(thin_volume_co_share(vol->open, 512, vol->open, 4 * CLUSTER, CLUSTER, &done) == -EOPNOTSUPP && !done);
	EXPECT(thin_volume_co_share(vol->open, 0, vol->open, BYTES, CLUSTER, &done) == -ERANGE && !done);
	EXPECT(thin_volume_co_share(vol->open, BYTES, vol->open, 0, CLUSTER, &done) == -ERANGE && !done);
	EXPECT(co_is(bd, 0, BYTES, 1));
	EXPECT(thin_volume_co_share(vol->open, 0, vol->open, BYTES / 2, BYTES / 2, &done) == 0 && done == BYTES / 2);
	EXPECT(thin_co_commit(rig.thin) == 0);
	EXPECT(thin_co_freed_by(rig.thin, &vol, 1, &done) == 0 && done == 0); /* each has two places */
	EXPECT(co_fill(bd, 0, BYTES / 2, 2, 0) == 0);
	EXPECT(thin_co_commit(rig.thin) == 0);
	EXPECT(thin_co_freed_by(rig.thin, &vol, 1, &done) == 0 && done == CLUSTERS);
	EXPECT(co_is(bd, 0, BYTES / 2, 2) && co_is(bd, BYTES / 2, BYTES / 2, 1));
	return co_end();
}

static void what_cannot_be_shared_is_refused(void)
{
	struct thin_rig_conf c = conf_of(1);

	script_conf(&c, refused);
}

int main(void)
{
	CU_TestInfo tests[] = { TEST(copies_hold_one_moment_of_each_cluster_and_stay), TEST(what_cannot_be_shared_is_refused),
				CU_TEST_INFO_NULL };

	return tests_run("share", tests);
}
