/*
 * sim_adopt.c: volumes of the rig that begin as the contents of a simulated disk: see sim_rig.h.
 */
#include <inttypes.h>
#include <string.h>

#include "engine/base/units.h"
#include "engine/pool/adopt.h"
#include "tests/lib/sim_rig.h"

const char *const rig_source_paths[RIG_SOURCES] = { "s0", "s1", "s2" };

void rig_sources_add(struct rig *g, struct rng *rng)
{
	struct sim_disk_conf c = { .size_bytes = RIG_SOURCE_BYTES };
	unsigned i;

	for (i = 0; i < RIG_SOURCES; i++) {
		c.block_bytes = rng_chance(rng, 1, 2) ? 512 : 4096;
		g->sources[i].disk = sim_disks_add(g->disks, rig_source_paths[i], &c);
		g->sources[i].vol = UINT_MAX;
	}
}

bool rig_is_adopted(const struct rig *g, const struct model_vol *v)
{
	const struct thin_vol *tv = g->p && !v->is_snap ? thin_vol_find(rig_pool(g, v)->thin, v->name) : NULL;

	return tv && *pool_adopt_source(tv);
}

static bool is_in_use(struct rig *g, const struct rig_source *x)
{
	struct model_vol *v = x->vol == UINT_MAX ? NULL : model_vol(g->model, x->vol);

	return v && v->state != MODEL_GONE && (v->state != MODEL_LIVE || v->new_name[0] || rig_is_adopted(g, v));
}

/* So that the volume is used meanwhile. */
static void source_slow(struct rig *g, const struct rig_source *x, struct rng *rng)
{
	struct sim_faults *f = sim_disk_faults(g->disks, x->disk);

	f->stall = rng_chance(rng, 7, 8) ? 65536 - (uint32_t)rng_below(rng, 20000) : 0;
	f->stall_ns = rng_below(rng, g->source_stall_ns);
}

/* The source gets what the volume then begins with: parts that one operation each has written, and zeros. */
static void source_fill(struct rig *g, struct rig_source *x, struct model_vol *v, uint64_t size, struct rng *rng)
{
	uint8_t *buf = xcalloc(1, RIG_IO_MAX);
	uint64_t off, len;
	uint32_t op;

	sim_disk_resize(g->disks, x->disk, size);
	for (off = 0; off < size; off += len) {
		len = 512 * (1 + rng_below(rng, rng_chance(rng, 1, 2) ? 40 : RIG_IO_MAX / 512));
		len = MIN(size - off, len);
		memset(buf, 0, len);
		if (rng_chance(rng, 1, 2)) {
			op = model_begin(g->model, v, MODEL_WRITE, off, len);
			model_stamp(v, op, off, len, buf);
			model_end(g->model, v, op, off, len, true, true, false);
		}
		sim_disk_poke(g->disks, x->disk, off, buf, len);
	}
	xfree(buf);
}

int rig_co_vol_adopt(struct rig *g, const char *name, uint64_t size, const char *layout, uint64_t full_wait_ns, struct rng *rng)
{
	unsigned k = (unsigned)rng_below(rng, RIG_SOURCES);
	struct ashlar_volume_spec s = { .name = name, .size_bytes = size, .layout = layout, .full_wait_ns = full_wait_ns,
					.from = rig_source_paths[k] };
	uint64_t bytes = ALIGN_DOWN(MIN(size, RIG_SOURCE_BYTES) / (1 + rng_below(rng, 3)), 4096ULL);
	struct rig_source *x = &g->sources[k];
	struct model_vol *v;
	struct err e = { 0 };
	int r;

	if (!bytes || is_in_use(g, x))
		return 0;
	v = model_vol_create(g->model, name, size);
	x->vol = v->index;
	source_fill(g, x, v, bytes, rng);
	source_slow(g, x, rng);
	rig_note(g, "adopt %s, %" PRIu64 " bytes of %" PRIu64 ", %s", name, bytes, size, layout ? layout : "default");
	r = ashlar_co_volume_create(rig_pool_new(g), &s, &e);
	rig_note(g, "adopt %s: %d", name, r);
	if (!rig_is_unknown(g, r, &e, "adopt", name))
		model_vol_created(g->model, v, r == 0);
	return r;
}
