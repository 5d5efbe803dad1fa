/*
 * Volumes on the real home half and the real metadata store: random requests of many coroutines against a model, with
 * restarts, power cuts and a full pool. SEED and SEEDS in the environment: the first, and how many.
 */
#include "tests/unit/thin__expect.h"
#include "tests/unit/unit.h"

/* ---- the model: of each sector its newest values, with when each was being written ---- */

#define SECT 512u
#define VERSIONS 6
#define NEVER UINT32_MAX

struct version {
	uint64_t value; /* 0: zeros */
	uint32_t start, end;
	bool maybe; /* failed: may have been written */
	bool fua;
};

struct sector {
	struct version v[VERSIONS]; /* v[0] is the newest */
	unsigned n;
};

struct model {
	struct thin_vol *vol;
	struct bdev *b;
	unsigned index;
	uint64_t bytes;
	struct sector *sectors;
	struct range_lock lock;
	uint32_t floor; /* a flush that was submitted then has been acknowledged */
	unsigned n_workers;
};

static uint32_t tick;
static uint64_t next_value;

static uint64_t stamp(const struct model *m, uint64_t sector, uint64_t value)
{
	return value * 0x9e3779b97f4a7c15ULL ^ sector << 8 ^ (m->index + 1);
}

/* The value that sector contents claim to be. */
static uint64_t stamp_decode(const struct model *m, uint64_t sector, uint64_t word)
{
	uint64_t odd = 0x9e3779b97f4a7c15ULL, inverse = odd;
	unsigned i;

	for (i = 0; i < 5; i++)
		inverse *= 2 - odd * inverse;
	return (word ^ sector << 8 ^ (m->index + 1)) * inverse;
}

static void sector_fill(const struct model *m, uint64_t sector, uint64_t value, uint64_t *p)
{
	unsigned i;

	for (i = 0; i < SECT / 8; i++)
		p[i] = value ? stamp(m, sector, value) + i : 0;
}

static bool sector_holds(const struct model *m, uint64_t sector, uint64_t value, const uint64_t *p)
{
	uint64_t want[SECT / 8];

	sector_fill(m, sector, value, want);
	return !memcmp(want, p, SECT);
}

static void version_push(struct model *m, uint64_t off, uint64_t end, uint64_t value, bool fua)
{
	uint64_t i;

	for (i = off / SECT; i < end / SECT; i++) {
		struct sector *s = &m->sectors[i];

		memmove(&s->v[1], &s->v[0], (VERSIONS - 1) * sizeof(s->v[0]));
		s->v[0] = (struct version){ .value = value, .start = tick, .end = NEVER, .fua = fua };
		s->n = MIN(s->n + 1, VERSIONS);
	}
}

static void version_end(struct model *m, uint64_t off, uint64_t end, int result)
{
	uint64_t i;

	tick++;
	for (i = off / SECT; i < end / SECT; i++) {
		m->sectors[i].v[0].end = tick;
		m->sectors[i].v[0].maybe = result < 0;
	}
}

/* Might a look between since and until have seen p? durable: only what is known to be durable by `since` hides the older. */
static bool sector_allows(const struct model *m, uint64_t i, const uint64_t *p, uint32_t since, uint32_t until, bool durable,
			  uint64_t *seen)
{
	const struct sector *s = &m->sectors[i];
	unsigned k;

	for (k = 0; k < s->n; k++) {
		const struct version *v = &s->v[k];

		if (v->start <= until && sector_holds(m, i, v->value, p)) {
			*seen = v->value;
			return true;
		}
		if (!v->maybe && (v->end <= since || (durable && v->fua && v->end != NEVER)))
			return false;
	}
	*seen = s->n < VERSIONS || !*p ? 0 : stamp_decode(m, i, *p); /* all else has been forgotten */
	return *seen <= next_value && sector_holds(m, i, *seen, p);
}

static void verify(const struct model *m, uint64_t off, uint64_t len, const void *buf, uint32_t since, uint32_t until,
		   bool durable)
{
	uint64_t i, seen;

	for (i = 0; i < len / SECT; i++) {
		const uint64_t *p = (const uint64_t *)((const char *)buf + i * SECT);
		bool ok = sector_allows(m, off / SECT + i, p, since, until, durable, &seen);

		if (!ok && n_problems++ < 20)
			fprintf(stderr, "seed %llu: volume %u sector %llu holds %016llx, newest value %llx\n",
				(unsigned long long)rig.conf.seed, m->index, (unsigned long long)(off / SECT + i),
				(unsigned long long)*p,
				(unsigned long long)stamp(m, off / SECT + i, m->sectors[off / SECT + i].v[0].value));
		CU_ASSERT(ok);
	}
}

/* After a crash or at rest: what is there now is all there ever was. */
static int model_co_pin(struct model *m, bool durable)
{
	uint32_t since = durable ? m->floor : NEVER;
	uint64_t off, n, i, seen;
	void *buf = buf_alloc(MIB);
	int r = 0;

	for (off = 0; off < m->bytes && r == 0; off += n) {
		n = MIN(MIB, m->bytes - off);
		memset(buf, 0x77, n);
		r = bdev_co_read(m->b, off, buf, n);
		EXPECT(r == 0);
		if (r < 0)
			break;
		verify(m, off, n, buf, since, NEVER, durable);
		for (i = 0; i < n / SECT; i++) {
			struct sector *s = &m->sectors[off / SECT + i];

			if (!sector_allows(m, off / SECT + i, (uint64_t *)((char *)buf + i * SECT), since, NEVER, durable, &seen))
				seen = 0;
			*s = (struct sector){ .v[0] = { .value = seen }, .n = seen ? 1 : 0 };
		}
	}
	m->floor = 0;
	buf_free(buf, MIB);
	return r;
}

/* ---- workers ---- */

struct worker {
	struct model *m;
	struct rng rng;
	unsigned ops;
};

static void pick_range(struct worker *w, uint64_t *off, uint64_t *len)
{
	uint64_t block = w->m->b->block_bytes, n, blocks = w->m->bytes / block, leaf = 256 * rig.conf.cluster_bytes / block;
	uint32_t how = (uint32_t)rng_below(&w->rng, 100);

	n = how < 50 ? 1 + rng_below(&w->rng, 4) : how < 80 ? 1 + rng_below(&w->rng, 32) :
	    how < 97 ? 1 + rng_below(&w->rng, 256 * KIB / block) : 1 + rng_below(&w->rng, 3 * MIB / block);
	n = MIN(n, blocks / 2);
	if (rng_chance(&w->rng, 3, 4)) /* where others are, about the border of two leaves */
		*off = (blocks > leaf ? leaf : blocks / 2) - MIN(40, n) + rng_below(&w->rng, 80);
	else
		*off = rng_below(&w->rng, blocks);
	*off = MIN(*off, blocks - n) * block;
	*len = n * block;
}

static int submit_sliced(struct worker *w, enum io_op op, uint64_t off, uint64_t len, void *buf, unsigned flags)
{
	unsigned n = 1 + (unsigned)rng_below(&w->rng, 12), i;
	uint64_t block = w->m->b->block_bytes, at = 0, k;
	struct iovec iov[12];
	struct io io;

	io_prep(&io, op, off, len, buf, flags);
	for (i = 0; i < n && at < len; i++, at += k) {
		k = block * (1 + rng_below(&w->rng, 8));
		k = i == n - 1 ? len - at : MIN(len - at, k);
		iov[i] = (struct iovec){ (char *)buf + at, k };
	}
	io.iov = iov;
	io.iov_n = i;
	return bdev_co_submit(w->m->b, &io);
}

static int work_read(struct worker *w, uint64_t off, uint64_t len)
{
	void *buf = buf_alloc(len);
	uint32_t since = ++tick;
	int r;

	memset(buf, 0x55, len);
	r = submit_sliced(w, IO_READ, off, len, buf, 0);
	EXPECT(r == 0);
	if (r == 0)
		verify(w->m, off, len, buf, since, ++tick, false);
	buf_free(buf, len);
	return r;
}

static int work_write(struct worker *w, uint64_t off, uint64_t len, unsigned flags)
{
	struct range_hold hold;
	char *buf = buf_alloc(len);
	uint64_t value, i;
	int r;

	range_co_lock(&w->m->lock, off, len, false, &hold);
	tick++;
	value = ++next_value;
	for (i = 0; i < len / SECT; i++)
		sector_fill(w->m, off / SECT + i, value, (uint64_t *)(buf + i * SECT));
	version_push(w->m, off, off + len, value, flags & IO_FUA);
	r = submit_sliced(w, IO_WRITE, off, len, buf, flags);
	version_end(w->m, off, off + len, r);
	range_unlock(&w->m->lock, &hold);
	memset(buf, 0x33, len);
	buf_free(buf, len);
	return r;
}

static int work_clear(struct worker *w, enum io_op op, uint64_t off, uint64_t len, unsigned flags)
{
	uint64_t sub = rig.conf.cluster_bytes / THIN_SUBS, lo = off, end = off + len, hi = end;
	struct range_hold hold;
	struct io io;
	int r;

	if (op == IO_DISCARD) {
		lo = ALIGN_UP(off, sub);
		hi = end == w->m->bytes ? end : MAX(ALIGN_DOWN(end, sub), lo);
	}
	lo = MIN(lo, hi);
	range_co_lock(&w->m->lock, off, len, false, &hold);
	tick++;
	version_push(w->m, lo, hi, 0, flags & IO_FUA);
	io_prep(&io, op, off, len, NULL, flags);
	r = bdev_co_submit(w->m->b, &io);
	version_end(w->m, lo, hi, r);
	range_unlock(&w->m->lock, &hold);
	return r;
}

static int work_flush(struct worker *w)
{
	uint32_t since = ++tick;
	int r = bdev_co_flush(w->m->b);

	if (r == 0)
		w->m->floor = MAX(w->m->floor, since);
	return r;
}

/* Where nobody writes, a hole holds zeros. */
static void work_status(struct worker *w, uint64_t off, uint64_t len)
{
	struct bdev_extent ext[8];
	struct range_hold hold;
	size_t n = 1 + rng_below(&w->rng, 8), i;
	uint64_t at = off, k;

	range_co_lock(&w->m->lock, off, len, true, &hold);
	EXPECT(bdev_co_status(w->m->b, off, len, ext, &n) == 0);
	EXPECT(n >= 1 && n <= 8);
	for (i = 0; i < n; at += ext[i++].len_bytes) {
		EXPECT(ext[i].len_bytes > 0 && at + ext[i].len_bytes <= off + len);
		for (k = at; k < at + ext[i].len_bytes && (ext[i].flags & BDEV_ZERO); k += SECT) {
			const struct version *v = &w->m->sectors[k / SECT].v[0];

			EXPECT(v->maybe || v->value == 0);
		}
	}
	range_unlock(&w->m->lock, &hold);
}

static bool may_be_full;

static void worker_co_run(void *arg)
{
	struct worker *w = arg;
	uint64_t off, len;
	uint32_t how;
	int r = 0;

	while (w->ops-- > 0) {
		unsigned fua = rng_chance(&w->rng, 1, 10) ? IO_FUA : 0;

		pick_range(w, &off, &len);
		how = (uint32_t)rng_below(&w->rng, 100);
		if (how < 35)
			r = work_read(w, off, len);
		else if (how < 72)
			r = work_write(w, off, len, fua);
		else if (how < 82)
			r = work_clear(w, IO_DISCARD, off, len, fua);
		else if (how < 83)
			r = work_clear(w, IO_DISCARD, 0, w->m->bytes, 0);
		else if (how < 90)
			r = work_clear(w, IO_ZERO, off, len, fua);
		else if (how < 92)
			r = work_clear(w, IO_ZERO, off, len, fua | IO_NO_HOLE);
		else if (how < 95)
			work_status(w, off, len);
		else
			r = work_flush(w);
		EXPECT(r == 0 || (may_be_full && r == -ERR_POOL_FULL));
		if (rng_chance(&w->rng, 1, 20))
			co_sleep_ns(rng_below(&w->rng, 2 * NS_PER_MS));
	}
	w->m->n_workers--;
	xfree(w);
}

static void workers_start(struct model *m, unsigned n, unsigned ops)
{
	for (; n; n--) {
		struct worker *w = xcalloc(1, sizeof(*w));

		w->m = m;
		w->ops = ops;
		rng_init(&w->rng, rng_next(&rig.rng));
		m->n_workers++;
		reactor_spawn(thin_volume_home(rig.thin, m->vol->id), worker_co_run, w, "worker");
	}
}

static struct model models[4];
static unsigned n_models;

static int pin_after_crash(void *arg)
{
	return model_co_pin(arg, true);
}

/* Nobody is at work. What is pinned must be durable: the power may be cut before the next flush. */
static int pin_at_rest(void *arg)
{
	struct model *m = arg;
	uint32_t since = ++tick;
	int r = bdev_co_flush(m->b);

	if (r < 0)
		return r;
	m->floor = since;
	return model_co_pin(m, false);
}

static int co_attach_all(bool first, bool after_crash)
{
	char name[16];
	unsigned i;
	int r;

	for (i = 0; i < n_models; i++) {
		struct model *m = &models[i];

		snprintf(name, sizeof(name), "v%u", i);
		r = first ? thin_rig_co_create(&rig, name, m->bytes, may_be_full ? 30 * NS_PER_MS : 0, &m->vol) : 0;
		EXPECT(r == 0);
		m->vol = thin_vol_find(rig.thin, name);
		EXPECT(m->vol != NULL);
		if (!m->vol || thin_rig_co_attach(&rig, m->vol) < 0)
			return -EIO;
		m->b = thin_volume_bdev(m->vol->open);
		range_lock_init(&m->lock);
		m->n_workers = 0;
		r = reactor_co_call(thin_volume_home(rig.thin, m->vol->id), after_crash ? pin_after_crash : pin_at_rest, m);
		EXPECT(r == 0);
	}
	return 0;
}

struct round {
	bool first, after_crash;
	unsigned ops;
};

static int round_co_open(void *arg)
{
	struct round *rd = arg;
	int r = rd->first ? thin_rig_co_format(&rig) : thin_rig_co_open(&rig);

	EXPECT(r == 0);
	if (r < 0)
		return r;
	if (!rd->first)
		EXPECT(thin_rig_co_check(&rig) == 0);
	return co_attach_all(rd->first, rd->after_crash);
}

static int round_co_work(void *arg)
{
	struct round *rd = arg;
	unsigned i;

	for (i = 0; i < n_models; i++)
		workers_start(&models[i], 6, rd->ops);
	for (i = 0; i < n_models; i++)
		while (models[i].n_workers)
			co_sleep_ns(NS_PER_MS);
	for (i = 0; i < n_models; i++) {
		EXPECT(reactor_co_call(thin_volume_home(rig.thin, models[i].vol->id), pin_at_rest, &models[i]) == 0);
	}
	EXPECT(thin_rig_co_check(&rig) == 0);
	for (i = 0; i < n_models; i++)
		thin_rig_co_detach(&rig, models[i].vol);
	return thin_rig_co_close(&rig);
}

static struct thin_rig_conf conf_of(uint64_t seed)
{
	return (struct thin_rig_conf){ .seed = seed, .n_reactors = 1, .block_bytes = 512, .cluster_bytes = 8 * KIB,
				       .group_bytes = 4 * MIB, .n_groups = 64, .reserve_groups = 4, .cache_bytes = 4 * MIB,
				       .journal_bytes = MIB };
}

static struct thin_rig_conf conf_random(uint64_t seed)
{
	struct thin_rig_conf c = conf_of(seed);

	c.n_reactors = 1 + seed % 4;
	if (seed % 3 == 0) {
		c.block_bytes = 4096;
		c.cluster_bytes = 64 * KIB;
	} else {
		c.cluster_bytes <<= seed % 4;
	}
	c.cache_bytes = seed % 2 ? 0 : 4 * MIB; /* 0: the least there is */
	c.co_requests_max = seed % 5 ? 0 : 4;
	c.redirect = seed / 2 % 2;
	return c;
}

/* One life of the pool: ended by close, or by a power cut. True: cut. */
static bool random_round(struct round *rd, bool crash)
{
	int r = thin_rig_run(&rig, round_co_open, rd), result = -1;

	EXPECT(r == 0);
	if (r < 0)
		return false;
	r = sim_run(rig.w, round_co_work, rd, &result, crash ? NS_PER_MS + rng_below(&rig.rng, 150 * NS_PER_MS) : 0);
	EXPECT((r == -ETIME && crash) || (r == 0 && result == 0));
	if (r != 0) {
		thin_rig_crash(&rig, (enum sim_cut)rng_below(&rig.rng, SIM_CUT_ONLY_ONE + 1));
		return true;
	}
	thin_rig_restart(&rig);
	EXPECT(rig.leaked == 0);
	return false;
}

static void random_run(uint64_t seed, bool crash, bool full)
{
	struct thin_rig_conf c = conf_random(seed);
	struct round rd = { .first = true, .ops = crash ? 150 : 60 };
	unsigned round, i, before = n_problems;

	may_be_full = full;
	if (full)
		c.n_groups = 9;
	thin_rig_init(&rig, &c);
	n_models = 1 + c.n_reactors % 3;
	for (i = 0; i < n_models; i++) {
		models[i] = (struct model){ .index = i, .bytes = (seed % 3 ? 12 * MIB : 20 * MIB) + i * 4096 };
		models[i].sectors = calloc(models[i].bytes / SECT, sizeof(struct sector));
	}
	for (round = 0; round < 3 && n_problems == before; round++) {
		rd.after_crash = random_round(&rd, crash);
		rd.first = false;
		EXPECT(thin_flags_sum(rig.flags).problems == 0);
	}
	for (i = 0; i < n_models; i++)
		free(models[i].sectors);
	thin_rig_fini(&rig);
}

static uint64_t env_number(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);

	return s ? strtoull(s, NULL, 0) : otherwise;
}

static void random_many(bool crash, bool full)
{
	uint64_t seed = env_number("SEED", 1), n = env_number("SEEDS", 12), before = n_problems;

	for (; n && n_problems == before; n--, seed++)
		random_run(seed, crash, full);
}

static void random_requests_agree_with_the_model(void)
{
	random_many(false, false);
}

static void a_power_cut_keeps_what_was_flushed(void)
{
	random_many(true, false);
}

static void a_full_pool_loses_nothing(void)
{
	random_many(false, true);
	random_many(true, true);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(random_requests_agree_with_the_model),
		TEST(a_power_cut_keeps_what_was_flushed),
		TEST(a_full_pool_loses_nothing),
		CU_TEST_INFO_NULL,
	};

	return tests_run("thin random", tests);
}
