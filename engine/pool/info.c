/*
 * info.c: what the engine says of pools, disks and volumes. Reads memory; copies out.
 */
#include <stdio.h>
#include <string.h>

#include "engine/pool/life.h"
#include "engine/pool/move_family.h"

const char *ashlar_health_name(enum ashlar_health h)
{
	static const char *const names[] = { "online", "resyncing", "degraded", "failed" };

	return names[h];
}

static enum ashlar_health pool_health(const struct ashlar_pool *p)
{
	bool stale = false;
	unsigned i;

	if (p->failed)
		return ASHLAR_FAILED;
	for (i = 0; i < p->n_disks; i++) {
		if (p->disks[i].state == PDISK_ABSENT || p->disks[i].state == PDISK_FAILED)
			return ASHLAR_DEGRADED;
		stale |= p->disks[i].state == PDISK_STALE;
	}
	return stale || p->resync_done_bytes < p->resync_total_bytes ? ASHLAR_RESYNCING : ASHLAR_ONLINE;
}

static void info_disks(const struct ashlar_pool *p, struct ashlar_pool_info *out)
{
	unsigned i;

	out->n_disks = pool_n_disks(p);
	for (i = 0; i < p->n_disks; i++) {
		out->n_disks_online += p->disks[i].state == PDISK_ONLINE;
		out->raw_bytes += p->disks[i].extents * p->label->extent_bytes;
		out->raw_used_bytes += p->disks[i].used * p->label->extent_bytes;
	}
}

/* Counters of other reactors, each read as it is. */
static void info_raid(const struct ashlar_pool *p, struct ashlar_pool_info *out)
{
	struct raid_stats s;
	unsigned i;

	for (i = 0; i < p->n_reactors; i++) {
		raid_stats_get(p->reactors[i].raid, &s);
		out->stripes_full += s.stripes_full;
		out->stripes_rmw += s.stripes_rmw;
		out->stripes_rcw += s.stripes_rcw;
		out->assembled += s.assembled;
		out->log_writes += s.log_writes;
		out->log_bytes += s.log_bytes;
		out->hedged += s.hedged;
	}
}

void ashlar_co_pool_info(struct ashlar_pool *p, struct ashlar_pool_info *out)
{
	struct pool_health health;
	struct thin_space space;
	struct meta_stats ms;

	memset(out, 0, sizeof(*out));
	snprintf(out->name, sizeof(out->name), "%.63s", p->label->name);
	out->uuid = p->label->pool;
	out->health = pool_health(p);
	out->layout = raid_profile_name(p->label->profile);
	out->read_only = p->read_only;
	info_disks(p, out);
	thin_space_get(p->thin, &space);
	meta_stats_get(p->meta, &ms);
	out->n_volumes = thin_n_vols(p->thin);
	out->used_bytes = space.clusters_used * p->label->cluster_bytes;
	out->free_bytes = pool_free_bytes(p);
	out->metadata_bytes = ms.pages_used * META_PAGE_BYTES;
	out->metadata_cache_bytes = ms.cache_bytes;
	out->metadata_cache_limit_bytes = ms.cache_limit_bytes;
	out->cluster_bytes = p->label->cluster_bytes;
	out->block_bytes = p->label->block_bytes;
	out->group_bytes = p->label->group_bytes;
	out->checkpoint = p->label->checkpoint;
	out->resync_total_bytes = p->resync_total_bytes;
	out->resync_done_bytes = p->resync_done_bytes;
	out->open_ns = p->open_ns;
	out->errors_read = p->errors_read;
	out->errors_write = p->errors_write;
	out->errors_repaired = p->errors_repaired;
	out->errors_metadata_repaired = p->errors_metadata_repaired;
	info_raid(p, out);
	pool_co_health(p, &health);
	out->redundancy = health.redundancy;
	out->redundancy_promised = health.promised;
	out->n_groups = health.n_groups;
	out->n_groups_degraded = health.n_degraded;
	out->n_groups_lost = health.n_lost;
	out->rebuild_left_bytes = health.rebuild_left_bytes;
}

static void leaving_info(const struct ashlar_pool *p, unsigned i, struct ashlar_disk_info *x)
{
	unsigned flags = p->label->disks[i].leaving, next = p->label->disks[i].successor_plus_1;

	if (p->disks[i].state != PDISK_ONLINE)
		return;
	x->state = p->disks[i].used ? "leaving" : "empty";
	if (next)
		snprintf(x->reason, sizeof(x->reason), "is being replaced by %.80s", pool_disk_path(p, next - 1));
	else
		snprintf(x->reason, sizeof(x->reason), "%s", flags & LABEL_LEAVE_REMOVE ? "is being removed" : "takes no new data");
}

static void disk_info_fill(const struct ashlar_pool *p, unsigned i, struct ashlar_disk_info *x)
{
	static const char *const states[] = { "free", "absent", "failed", "resyncing", "online" };
	const struct pdisk *d = &p->disks[i];

	x->index = i;
	snprintf(x->path, sizeof(x->path), "%s", d->disk ? d->disk->path : p->label->disks[i].path);
	x->uuid = p->label->disks[i].uuid;
	x->state = states[d->state];
	snprintf(x->reason, sizeof(x->reason), "%s", d->reason);
	x->slow = d->slow_reactors != 0;
	x->read_repairs = d->n_repaired;
	x->size_bytes = p->label->disks[i].size_bytes;
	x->used_bytes = d->used * p->label->extent_bytes;
	if (d->leaving)
		leaving_info(p, i, x);
	if (!d->disk)
		return;
	x->reads = d->disk->n_reads;
	x->writes = d->disk->n_writes;
	x->bytes_read = d->disk->bytes_read;
	x->bytes_written = d->disk->bytes_written;
	x->errors = d->disk->n_errors;
}

int ashlar_co_disk_list(struct ashlar_pool *p, struct ashlar_disk_info **out, size_t *n, struct err *e)
{
	unsigned i;

	pool_space_expire(p);
	*n = 0;
	*out = xcalloc(p->n_disks + 1, sizeof(**out));
	for (i = 0; i < p->n_disks; i++)
		if (p->disks[i].state != PDISK_FREE && !p->disks[i].joining)
			disk_info_fill(p, i, &(*out)[(*n)++]);
	return 0;
}

int ashlar_co_disk_info(struct ashlar_pool *p, const char *disk, struct ashlar_disk_info *out, struct err *e)
{
	unsigned i;
	int r = pool_disk_find(p, disk, &i, e);

	memset(out, 0, sizeof(*out));
	if (r < 0)
		return r;
	pool_space_expire(p);
	disk_info_fill(p, i, out);
	return 0;
}

static void volume_info_fill(struct ashlar_pool *p, const struct thin_vol *v, struct ashlar_volume_info *x)
{
	struct thin_volume_stats s = { 0 };
	const struct thin_vol *origin;

	memset(x, 0, sizeof(*x));
	snprintf(x->name, sizeof(x->name), "%.127s", v->name);
	x->id = v->id;
	x->size_bytes = v->size_bytes;
	x->used_bytes = v->used_clusters * p->label->cluster_bytes;
	x->n_snapshots = thin_n_snaps(p->thin, v);
	origin = v->origin ? thin_vol_by_id(p->thin, v->origin) : NULL;
	if (origin && origin->state == THIN_VOLUME_LIVE)
		pool_point_name(p, origin, x->origin);
	x->policy_every_ns = v->policy_every_ns;
	x->policy_keep = v->policy_keep;
	x->refer_bytes = v->valid_subs * (p->label->cluster_bytes / THIN_SUBS);
	x->layout = raid_profile_name((struct raid_profile){ v->cls.layout, v->cls.copies });
	x->full_wait_ns = v->full_wait_ns;
	x->n_attached = pool_vol_n_clients(v);
	x->is_elsewhere = v->state == THIN_VOLUME_HANDED;
	pool_move_text(p, v, x->moving, sizeof(x->moving));
	x->created_wall_ns = v->created_wall_ns;
	snprintf(x->source, sizeof(x->source), "%s", pool_adopt_source(v));
	x->source_bytes = v->source_bytes;
	pool_limits_get(v, &x->limits);
	if (!v->open)
		return;
	thin_volume_stats_get(v->open, &s);
	x->full_waiting = s.full_waiting;
	x->limited = s.limited;
	x->limited_ns = s.limited_ns;
	x->limit_waiting = s.limit_waiting;
	x->reads = s.reads;
	x->writes = s.writes;
	x->bytes_read = s.bytes_read;
	x->bytes_written = s.bytes_written;
}

int ashlar_co_volume_list(struct ashlar_pool *p, struct ashlar_volume_info **out, size_t *n, struct err *e)
{
	struct thin_vol *v;
	size_t i, n_handed = 0;
	int r = 0;

	pool_co_vols_now(p);
	*n = 0;
	list_for_each (v, thin_vols(p->thin), link)
		n_handed += v->state == THIN_VOLUME_HANDED && v->kind == THIN_KIND_VOLUME;
	*out = xcalloc(thin_n_vols(p->thin) + n_handed + 1u, sizeof(**out));
	list_for_each (v, thin_vols(p->thin), link)
		if ((v->state == THIN_VOLUME_LIVE || (v->state == THIN_VOLUME_HANDED && !pool_handed_has_arrived(p, v))) &&
		    v->kind == THIN_KIND_VOLUME)
			volume_info_fill(p, v, &(*out)[(*n)++]);
	for (i = 0; i < *n && r == 0; i++)
		r = pool_co_exclusive_bytes(p, (*out)[i].id, &(*out)[i].exclusive_bytes);
	if (r < 0)
		xfree(*out);
	return err_default(e, r, "reading the maps of volumes");
}

int ashlar_co_volume_info(struct ashlar_pool *p, const char *name, struct ashlar_volume_info *out, struct err *e)
{
	struct thin_vol *v;

	pool_co_vols_now(p);
	v = pool_handed_find(p, name);
	if (!v)
		v = pool_vol_find(p, name, e);
	if (!v)
		return -ENOENT;
	volume_info_fill(p, v, out);
	return err_default(e, pool_co_exclusive_bytes(p, out->id, &out->exclusive_bytes), "reading the volume's map");
}
