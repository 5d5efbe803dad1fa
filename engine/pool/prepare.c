/*
 * prepare.c: disks for a new pool: are they free, are they large enough, and how to divide them.
 *
 * Looks first without locks (the same object named twice would lock itself out), then opens and locks in order, and only
 * then looks for what would be overwritten: nobody can put something there in between.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/units.h"
#include "engine/io/disk_uri.h"
#include "engine/pool/assembly.h"

#define CLUSTER_DEFAULT (64 * KIB)
#define CLUSTER_MAX MIB
#define STRIP_MIN (64 * KIB)
#define EXTENT_MIN (64 * KIB)
#define GROUP_AUTO_MIN (16 * MIB)
#define GROUP_AUTO_MAX GIB
#define GROUP_MAX (64 * GIB)
#define GROUP_MIN_CLUSTERS 16
#define GROUP_MIN (512 * KIB) /* the first one must hold a journal and the metadata's reserve */
#define GROUPS_PER_POOL 512
#define GROUPS_PER_DISK_MIN 3
#define SMALL_DISK (256 * MIB)

/* ---- what was asked for ---- */

static int choose_profile(const struct ashlar_pool_spec *s, struct raid_profile *out, struct err *e)
{
	const char *layout = s->layout ? s->layout : s->n_paths == 1 ? "single" : "raid1";

	if (raid_profile_parse(layout, out) < 0)
		return err_set(e, -EINVAL,
			       "pool %s: there is no such layout as asked for: use single, raid0, raid1, raid1-3, raid10, raid10-3, raid5 "
			       "or raid6",
			       s->name);
	if (s->n_paths < raid_profile_min_disks(*out))
		return err_set(e, -EINVAL, "pool %s: layout %s needs %u disks, and %zu are named: name more, or choose another layout",
			       s->name, layout, raid_profile_min_disks(*out), s->n_paths);
	return 0;
}

static int check_spec(const struct ashlar_pool_spec *s, struct err *e)
{
	int r = name_check("pool", s->name, ASHLAR_POOL_NAME_MAX, e);

	if (r < 0)
		return r;
	if (!s->n_paths)
		return err_set(e, -EINVAL, "pool %s: no disks are named: name at least one", s->name);
	if (s->n_paths > LABEL_DISKS_MAX)
		return err_set(e, -EINVAL, "pool %s: %zu disks are named, at most %u can be in a pool", s->name, s->n_paths,
			       LABEL_DISKS_MAX);
	return 0;
}

/* ---- opening ---- */

struct first_look {
	uint64_t ident[2];
};

/* What a label cannot hold nobody finds again. */
static int paths_check(const struct ashlar_pool_spec *s, struct err *e)
{
	size_t i, len;

	for (i = 0; i < s->n_paths; i++) {
		len = strlen(s->paths[i]);
		if (disk_path_is_uri(s->paths[i]) && len > LABEL_URI_MAX)
			return err_set(e, -EINVAL, "disk %.40s...: its URI has %zu bytes, and a label holds %u, by which it is looked for when it is "
				       "away: use a shorter one", s->paths[i], len, LABEL_URI_MAX);
	}
	return 0;
}

static int distinct_co_check(struct world *w, const struct ashlar_pool_spec *s, struct err *e)
{
	struct first_look *seen = xcalloc(s->n_paths, sizeof(*seen));
	struct disk *d;
	size_t i, k;
	int r = 0;

	for (i = 0; i < s->n_paths && r == 0; i++) {
		r = disk_co_open(w, s->paths[i], DISK_RDONLY | DISK_NO_LOCK, &d, e);
		if (r < 0)
			break;
		memcpy(seen[i].ident, d->ident, sizeof(seen[i].ident));
		disk_close(d);
		for (k = 0; k < i && memcmp(&seen[k], &seen[i], sizeof(*seen)); k++)
			;
		if (k < i)
			r = err_set(e, -EINVAL, "pool %s: %s and %s are the same disk: name each disk once", s->name, s->paths[k],
				    s->paths[i]);
	}
	xfree(seen);
	return r;
}

static int all_co_open(struct world *w, const struct ashlar_pool_spec *s, struct assembly *a, struct err *e)
{
	size_t i;
	int r;

	for (i = 0; i < s->n_paths; i++) {
		r = disk_co_open(w, s->paths[i], 0, &a->disks[i].disk, e);
		if (r < 0) {
			a->disks[i].disk = NULL;
			return r;
		}
		a->disks[i].state = ASM_ONLINE;
		a->n_present++;
		if (a->disks[i].disk->is_own)
			return err_set(e, -EINVAL, "disk %s is an export of this same daemon, which serves only when its pools are open: take one "
				       "of another daemon", s->paths[i]);
		if (a->disks[i].disk->bdev.read_only)
			return err_set(e, -EROFS, "disk %s is write-protected: take the protection off, or name another", s->paths[i]);
	}
	return 0;
}

/* ---- what would be overwritten ---- */

static int refuse_label(const struct disk *d, const struct label *l, int result, struct err *e)
{
	char uuid[UUID_TEXT_LEN];

	if (result == -ERR_CSUM || result == -ERR_FORMAT)
		return err_set(e, -ERR_FOREIGN, "disk %s has a damaged Ashlar label: if nothing on it is needed, use --force", d->path);
	return err_set(e, -ERR_FOREIGN,
		       "disk %s belongs to pool %s (%s)%s: destroy that pool first, or use --force if nothing on it is needed", d->path,
		       l->name[0] ? l->name : "without a name", uuid_format(&l->pool, uuid),
		       result == -ERR_FEATURE ? ", made by a newer version of Ashlar" : "");
}

/* A label of the pool itself (own; NULL: there is none yet). 1: of a disk that is no member any more, or did not come to be one. */
static int check_own(const struct disk *d, const struct label *l, const struct label *own, struct err *e)
{
	unsigned i;

	if (!own || !uuid_is_equal(&l->pool, &own->pool))
		return 0;
	for (i = 0; i < own->n_disks; i++)
		if (own->disks[i].state != LABEL_DISK_FREE && uuid_is_equal(&own->disks[i].uuid, &l->disk))
			return err_set(e, -ERR_FOREIGN, "disk %s is a disk of pool %s, one that is out: `disk online` takes it back", d->path,
				       own->name);
	return 1;
}

static int free_co_check(struct world *w, struct disk *d, const struct label *own, struct label *tmp, struct err *e)
{
	char what[128] = "";
	int r = label_co_read(d, tmp, NULL, e), mine;

	if (r == -EIO)
		return r;
	mine = r == 0 ? check_own(d, tmp, own, e) : 0;
	if (mine)
		return MIN(mine, 0);
	if (r != -ENOENT)
		return refuse_label(d, tmp, r, e);
	r = disk_co_probe(d, what, sizeof(what), e);
	if (r > 0)
		return err_set(e, -ERR_FOREIGN, "disk %s holds foreign data (%s): if nothing on it is needed, use --force", d->path, what);
	return r;
}

static int all_free_co_check(struct world *w, const struct assembly *a, const struct label *own, struct err *e)
{
	struct label *tmp = xmalloc(sizeof(*tmp));
	unsigned i;
	int r = 0;

	for (i = 0; i < a->n_present && r == 0; i++)
		r = free_co_check(w, a->disks[i].disk, own, tmp, e);
	xfree(tmp);
	return r;
}

/* ---- geometry ---- */

static int choose_cluster(const struct ashlar_pool_spec *s, struct label *l, struct err *e)
{
	uint64_t min = 16ULL * l->block_bytes;

	l->cluster_bytes = s->cluster_bytes ? s->cluster_bytes : CLUSTER_DEFAULT;
	if (!IS_POW2(l->cluster_bytes) || l->cluster_bytes < min || l->cluster_bytes > CLUSTER_MAX)
		return err_set(e, -EINVAL,
			       "pool %s: cluster size %u is not allowed: use a power of two from %" PRIu64 " (16 blocks of the disks) to %llu",
			       s->name, l->cluster_bytes, min, CLUSTER_MAX);
	l->strip_bytes = (uint32_t)MAX(STRIP_MIN, (uint64_t)l->cluster_bytes);
	return 0;
}

/* The power of two nearest to x. */
static uint64_t pow2_near(uint64_t x)
{
	uint64_t p = 1;

	while (p <= x / 2)
		p *= 2;
	return x - p > 2 * p - x ? 2 * p : p;
}

static int choose_group(const struct ashlar_pool_spec *s, uint64_t total_bytes, struct label *l, struct err *e)
{
	uint64_t min = MAX((uint64_t)GROUP_MIN_CLUSTERS * l->cluster_bytes, GROUP_MIN), group = s->group_bytes;

	if (!group)
		group = MIN(MAX(pow2_near(total_bytes / GROUPS_PER_POOL), GROUP_AUTO_MIN), GROUP_AUTO_MAX);
	if (!IS_POW2(group) || group < min || group > GROUP_MAX)
		return err_set(e, -EINVAL,
			       "pool %s: group size %" PRIu64 " is not allowed: use a power of two from %" PRIu64 " to %llu", s->name, group,
			       min, GROUP_MAX);
	l->group_bytes = group;
	l->extent_bytes = MAX(MAX(group / 256, EXTENT_MIN), (uint64_t)l->strip_bytes);
	return 0;
}

static int check_sizes(const struct ashlar_pool_spec *s, const struct assembly *a, struct err *e)
{
	const struct label *l = &a->label;
	uint64_t min = l->data_off + GROUPS_PER_DISK_MIN * l->group_bytes + LABEL_AREA_BYTES, size;
	char has[16], needs[16], group[16];
	unsigned i;

	for (i = 0; i < a->n_present; i++) {
		size = a->disks[i].disk->bdev.size_bytes;
		if (label_disk_extents(l, size) * l->extent_bytes >= GROUPS_PER_DISK_MIN * l->group_bytes)
			continue;
		return err_set(e, -EINVAL,
			       "pool %s: disk %s is too small: it has %s (%" PRIu64 " bytes), and with groups of %s each disk needs at least "
			       "%s (%" PRIu64 " bytes): use larger disks%s",
			       s->name, a->disks[i].disk->path, size_format(size, has, sizeof(has)), size,
			       size_format(l->group_bytes, group, sizeof(group)), size_format(min, needs, sizeof(needs)), min,
			       l->group_bytes > (uint64_t)GROUP_MIN_CLUSTERS * l->cluster_bytes ? " or smaller groups" : "");
	}
	return 0;
}

static int choose_geometry(const struct ashlar_pool_spec *s, struct assembly *a, struct err *e)
{
	struct label *l = &a->label;
	uint64_t total = 0, smallest = UINT64_MAX;
	unsigned i;
	int r;

	l->block_bytes = 512;
	for (i = 0; i < a->n_present; i++) {
		const struct bdev *b = &a->disks[i].disk->bdev;

		l->block_bytes = MAX(l->block_bytes, b->block_bytes);
		total += b->size_bytes;
		smallest = MIN(smallest, b->size_bytes);
	}
	if (l->block_bytes > 4096)
		return err_set(e, -EINVAL, "pool %s: a disk has blocks of %u bytes, at most 4096 are possible", s->name, l->block_bytes);
	r = choose_cluster(s, l, e);
	if (r < 0)
		return r;
	r = choose_group(s, total, l, e);
	if (r < 0)
		return r;
	l->data_off = LABEL_AREA_BYTES;
	if (smallest >= SMALL_DISK)
		l->data_off = ALIGN_UP(l->data_off, MIN(l->extent_bytes, MIB));
	return check_sizes(s, a, e);
}

/* ---- the label ---- */

void assembly_new_uuid(struct world *w, struct uuid *u)
{
	uint8_t random[16];

	world_random(w, random, sizeof(random));
	uuid_from_random(u, random);
}

static void fill_label(struct world *w, const struct ashlar_pool_spec *s, struct assembly *a)
{
	struct label *l = &a->label;
	unsigned i;

	snprintf(l->name, sizeof(l->name), "%s", s->name);
	assembly_new_uuid(w, &l->pool);
	l->generation = 1;
	l->created_wall_ns = w->ops->wall_ns(w);
	l->n_disks = (uint16_t)s->n_paths;
	for (i = 0; i < l->n_disks; i++) {
		assembly_new_uuid(w, &l->disks[i].uuid);
		l->disks[i].size_bytes = a->disks[i].disk->bdev.size_bytes;
		l->disks[i].state = LABEL_DISK_ONLINE;
		label_disk_set_path(&l->disks[i], s->paths[i]);
	}
	l->disk = l->disks[0].uuid;
	l->disk_bytes = l->disks[0].size_bytes;
}

int assembly_co_prepare(struct world *w, const struct ashlar_pool_spec *s, struct assembly *out, struct err *e)
{
	int r;

	memset(out, 0, sizeof(*out));
	r = check_spec(s, e);
	if (r < 0)
		return r;
	r = choose_profile(s, &out->label.profile, e);
	if (r < 0)
		return r;
	r = paths_check(s, e);
	if (r == 0)
		r = distinct_co_check(w, s, e);
	if (r < 0)
		return r;
	r = all_co_open(w, s, out, e);
	if (r < 0)
		goto out_close;
	r = choose_geometry(s, out, e);
	if (r < 0)
		goto out_close;
	if (!s->force) {
		r = all_free_co_check(w, out, NULL, e);
		if (r < 0)
			goto out_close;
	}
	fill_label(w, s, out);
	return 0;
out_close:
	assembly_close(out);
	return r;
}

/* ---- more disks for a pool ---- */

static int check_blocks(const struct assembly *a, struct err *e)
{
	unsigned i;

	for (i = 0; i < a->n_present; i++)
		if (a->disks[i].disk->bdev.block_bytes > a->label.block_bytes)
			return err_set(e, -EINVAL, "pool %s was made for blocks of %u bytes, and disk %s has blocks of %u: use another disk",
				       a->label.name, a->label.block_bytes, a->disks[i].disk->path, a->disks[i].disk->bdev.block_bytes);
	return 0;
}

int assembly_co_prepare_more(struct world *w, const struct ashlar_pool_spec *s, const struct label *pool, struct assembly *out,
			     struct err *e)
{
	int r;

	memset(out, 0, sizeof(*out));
	out->label = *pool;
	r = paths_check(s, e);
	if (r == 0)
		r = distinct_co_check(w, s, e);
	if (r < 0)
		return r;
	r = all_co_open(w, s, out, e);
	if (r == 0)
		r = check_blocks(out, e);
	if (r == 0)
		r = check_sizes(s, out, e);
	if (r == 0 && !s->force)
		r = all_free_co_check(w, out, pool, e);
	if (r < 0)
		assembly_close(out);
	return r;
}
