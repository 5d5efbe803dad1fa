#include "tests/fuzz/pool_fuzz.h"

#include <stdio.h>
#include <string.h>

#include "engine/base/units.h"
#include "engine/io/buf.h"
#include "engine/pool/ashlar.h"

static const char *const paths[POOL_FUZZ_DISKS] = { "d0", "d1" };

struct session {
	struct world *w;
	struct ashlar *a;
	unsigned flags;
	struct label *label;
};

/* In a world of its own, whose memory goes with it. */
static int in_world(struct sim_disks *ds, uint64_t seed, unsigned reactors, int (*fn)(void *arg), struct session *s)
{
	struct sim_options o = { .seed = seed, .n_reactors = reactors };
	int result = -EIO, r;

	alloc_track_begin();
	s->w = sim_world_create(&o, ds);
	r = sim_run(s->w, fn, s, &result, 3600 * NS_PER_SEC);
	CHECK(r == 0); /* else it hangs */
	sim_world_destroy(s->w);
	alloc_track_drop();
	return result;
}

static int co_open(struct session *s, struct ashlar_pool **p, struct err *e)
{
	struct ashlar_options o = { .metadata_cache_bytes = 2 * MIB };

	memset(e, 0, sizeof(*e));
	s->a = ashlar_create(s->w, &o);
	return ashlar_co_pool_open(s->a, NULL, paths, POOL_FUZZ_DISKS, s->flags, p, e);
}

/* ---- the base ---- */

struct writing {
	struct ashlar_attach *at;
	uint64_t off_bytes, len_bytes, step_bytes;
	uint8_t fill;
	bool read;
};

static int write_there(void *arg)
{
	struct writing *x = arg;
	struct bdev *b = ashlar_attach_bdev(x->at);
	uint8_t *buf = buf_alloc(16 * KIB);
	uint64_t off, n, end = MIN(x->off_bytes + x->len_bytes, b->size_bytes);
	int r = 0;

	for (off = x->off_bytes; off < end && r == 0; off += x->step_bytes) {
		n = MIN(16 * KIB, end - off);
		memset(buf, x->fill, n);
		r = x->read ? bdev_co_read(b, off, buf, n) : bdev_co_write(b, off, buf, n, 0);
	}
	if (r == 0 && !x->read)
		r = bdev_co_flush(b);
	buf_free(buf, 16 * KIB);
	return r;
}

static int co_volume_io(struct session *s, const char *export_name, struct writing x)
{
	struct err e = { 0 };
	int r = ashlar_co_attach(s->a, export_name, NULL, NULL, &x.at, &e);

	CHECK((r < 0) == (e.text[0] != 0));
	if (r < 0)
		return r;
	r = reactor_co_call(ashlar_attach_home(x.at), write_there, &x);
	ashlar_co_detach(x.at);
	return r;
}

static int base_make(void *arg)
{
	struct session *s = arg;
	struct ashlar_pool_spec spec = { .name = "p", .layout = "raid1", .paths = paths, .n_paths = POOL_FUZZ_DISKS,
					 .cluster_bytes = 16 * KIB, .group_bytes = MIB };
	struct ashlar_volume_spec v = { .name = "v", .size_bytes = 64 * MIB };
	struct ashlar_pool *p;
	struct err e = { 0 };

	s->a = ashlar_create(s->w, NULL);
	CHECK(ashlar_co_pool_create(s->a, &spec, &e) == 0);
	CHECK(ashlar_co_pool_open(s->a, NULL, paths, POOL_FUZZ_DISKS, 0, &p, &e) == 0);
	CHECK(ashlar_co_volume_create(p, &v, &e) == 0);
	v.name = "w";
	CHECK(ashlar_co_volume_create(p, &v, &e) == 0);
	CHECK(co_volume_io(s, "p/v", (struct writing){ .len_bytes = 64 * MIB, .step_bytes = 6 * MIB, .fill = 1 }) == 0);
	CHECK(co_volume_io(s, "p/w", (struct writing){ .len_bytes = 256 * KIB, .step_bytes = 16 * KIB, .fill = 2 }) == 0);
	CHECK(ashlar_co_export_add(p, "w", "other", true, &e) == 0);
	CHECK(ashlar_co_pool_close(p, &e) == 0);
	ashlar_co_destroy(s->a);
	return 0;
}

/* Leaves the pool open: the world is dropped with it. */
static int base_dirty(void *arg)
{
	struct session *s = arg;
	struct ashlar_pool *p;
	struct err e;

	CHECK(co_open(s, &p, &e) == 0);
	CHECK(co_volume_io(s, "p/v", (struct writing){ .off_bytes = MIB, .len_bytes = 512 * KIB, .step_bytes = 64 * KIB, .fill = 3 }) == 0);
	CHECK(ashlar_co_volume_rename(p, "w", "x", &e) == 0);
	return 0;
}

static int base_label(void *arg)
{
	struct session *s = arg;
	struct disk *d;

	CHECK(disk_co_open(s->w, paths[0], DISK_RDONLY, &d, NULL) == 0);
	CHECK(label_co_read(d, s->label, NULL, NULL) == 0);
	disk_close(d);
	return 0;
}

static void base_look(struct pool_fuzz_base *b)
{
	struct session s = { .label = &b->label };

	CHECK(in_world(b->ds, 3, 1, base_label, &s) == 0);
	CHECK(pool_fuzz_peek(b, b->ds, b->label.root_addr * META_PAGE_BYTES, &b->root, sizeof(b->root)));
}

const struct pool_fuzz_base *pool_fuzz_base(bool clean)
{
	static struct pool_fuzz_base base[2];
	struct sim_disk_conf conf = { .size_bytes = 16 * MIB, .block_bytes = 512 };
	struct session s = { 0 };
	struct rng rng;
	unsigned i;

	if (base[0].ds)
		return &base[clean];
	rng_init(&rng, 1);
	base[1].ds = sim_disks_create(1);
	for (i = 0; i < POOL_FUZZ_DISKS; i++)
		sim_disks_add(base[1].ds, paths[i], &conf);
	CHECK(in_world(base[1].ds, 1, 1, base_make, &s) == 0);
	base_look(&base[1]);
	base[0].ds = sim_disks_clone(base[1].ds);
	CHECK(in_world(base[0].ds, 2, 1, base_dirty, &s) == 0);
	sim_disks_power_cut(base[0].ds, SIM_CUT_ALL, &rng);
	base_look(&base[0]);
	return &base[clean];
}

/* ---- places ---- */

/* Where a byte of the logical space lies; -1: not in a metadata group. */
static int meta_of(const struct pool_fuzz_base *b, uint64_t off_bytes, size_t len)
{
	uint64_t in = off_bytes % b->label.group_bytes;
	unsigned i;

	for (i = 0; i < b->label.n_meta; i++)
		if (b->label.meta[i].group == off_bytes / b->label.group_bytes)
			return in + len <= b->label.group_bytes ? (int)i : -1;
	return -1;
}

bool pool_fuzz_peek(const struct pool_fuzz_base *b, struct sim_disks *ds, uint64_t off_bytes, void *buf, size_t len)
{
	int i = meta_of(b, off_bytes, len);

	if (i >= 0)
		sim_disk_peek(ds, b->label.meta[i].cols[0].disk,
			      b->label.meta[i].cols[0].off_bytes + off_bytes % b->label.group_bytes, buf, len);
	return i >= 0;
}

bool pool_fuzz_poke(const struct pool_fuzz_base *b, struct sim_disks *ds, uint64_t off_bytes, const void *buf, size_t len)
{
	int i = meta_of(b, off_bytes, len);
	unsigned c;

	for (c = 0; i >= 0 && c < b->label.meta[i].n_cols; c++)
		sim_disk_poke(ds, b->label.meta[i].cols[c].disk,
			      b->label.meta[i].cols[c].off_bytes + off_bytes % b->label.group_bytes, buf, len);
	return i >= 0;
}

void pool_fuzz_set_root_crc(const struct pool_fuzz_base *b, struct sim_disks *ds, uint32_t crc)
{
	static uint8_t buf[LABEL_SLOT_BYTES];
	static struct label l;
	uint64_t slot = b->label.generation % LABEL_SLOTS * LABEL_SLOT_BYTES, size;
	size_t len;
	unsigned i;

	l = b->label;
	l.root_crc = crc;
	for (i = 0; i < POOL_FUZZ_DISKS; i++) {
		size = l.disks[i].size_bytes;
		len = label_encode(&l, i, size, buf);
		sim_disk_poke(ds, i, slot, buf, len);
		sim_disk_poke(ds, i, label_tail_off(size) + slot, buf, len);
	}
}

/* ---- using it ---- */

static void check_say(void *arg, const char *sentence)
{
	CHECK(sentence[0]);
}

static void co_look(struct session *s, struct ashlar_pool *p)
{
	struct ashlar_check_options o = { .data = true, .say = check_say };
	struct ashlar_volume_info *v = NULL;
	struct ashlar_pool_info *info = xcalloc(1, sizeof(*info));
	char name[2 * ASHLAR_EXPORT_NAME_MAX];
	struct err e = { 0 };
	size_t n = 0, i;
	int64_t r;

	ashlar_co_pool_info(p, info);
	r = ashlar_co_pool_check(p, &o, &e);
	CHECK((r < 0) == (e.text[0] != 0));
	if (ashlar_co_volume_list(p, &v, &n, &e) == 0) {
		for (i = 0; i < n; i++) {
			snprintf(name, sizeof(name), "p/%s", v[i].name);
			(void)co_volume_io(s, name, (struct writing){ .len_bytes = 64 * MIB, .step_bytes = 2 * MIB + 16 * KIB, .read = true });
		}
	} else {
		CHECK(e.text[0]);
	}
	xfree(v);
	xfree(info);
}

static int use_read_only(void *arg)
{
	struct session *s = arg;
	struct ashlar_pool *p;
	struct err e;
	int r = co_open(s, &p, &e);

	CHECK((r < 0) == (e.text[0] != 0));
	if (r == 0) {
		co_look(s, p);
		ashlar_co_pool_close(p, NULL);
	}
	ashlar_co_destroy(s->a);
	return r;
}

static int use_writing(void *arg)
{
	struct ashlar_volume_spec v = { .name = "new", .size_bytes = 8 * MIB };
	struct session *s = arg;
	struct ashlar_pool *p;
	struct err e;
	int r = co_open(s, &p, &e);

	CHECK((r < 0) == (e.text[0] != 0));
	if (r == 0) {
		r = ashlar_co_volume_create(p, &v, &e);
		CHECK((r < 0) == (e.text[0] != 0));
		(void)co_volume_io(s, "p/new", (struct writing){ .len_bytes = 2 * MIB, .step_bytes = 128 * KIB, .fill = 9 });
		(void)co_volume_io(s, "p/v", (struct writing){ .len_bytes = 8 * MIB, .step_bytes = 512 * KIB, .fill = 8 });
		co_look(s, p);
		memset(&e, 0, sizeof(e));
		r = ashlar_co_volume_delete(p, "v", true, false, false, NULL, &e);
		CHECK((r < 0) == (e.text[0] != 0));
		co_sleep_ns(20 * NS_PER_SEC); /* space comes back, a checkpoint is written */
		ashlar_co_pool_close(p, NULL);
	}
	ashlar_co_destroy(s->a);
	return r;
}

void pool_fuzz_use(struct sim_disks *ds, uint64_t seed)
{
	struct session s = { .flags = ASHLAR_OPEN_RDONLY };
	uint64_t hash = sim_disks_hash(ds);

	(void)in_world(ds, seed, 1, use_read_only, &s);
	CHECK(sim_disks_hash(ds) == hash);
	s.flags = 0;
	(void)in_world(ds, seed, 1 + seed % 2, use_writing, &s);
}
