/*
 * scrub.c: everything that is allocated is read, on every disk, and compared.
 *
 * Group by group, each homed meanwhile (transition.c), so that the home's locks keep readers of all columns and writers apart;
 * run by run of allocated clusters, at the pace of all background work. What cannot be read is rewritten by the RAID layer at
 * once. Where columns disagree it is not yet clear that anything is wrong: never-written parts of a cluster hold what lay there
 * before, and no two columns the same. So such places are gathered and then held against the maps (scrub_resolve.c).
 *
 * Of metadata and logs only the readability matters here: their copies carry checksums, which every read verifies and
 * `pool check` all of them.
 */
#include <string.h>

#include "engine/pool/scrub.h"

#define RUN_BYTES (1 * MIB)

static void scrub_bad(void *arg, uint64_t off_bytes, uint64_t len_bytes, int col)
{
	scrub_found_add(arg, off_bytes, len_bytes);
}

static void scrub_nothing(void *arg, uint64_t off_bytes, uint64_t len_bytes, int col)
{
}

/* Coroutine. One run of a group. */
static int run_co_scrub(struct scrub_run *s, struct pgroup *g, uint64_t off, uint64_t len)
{
	struct raid_scrub rs = { .bad = g->kind == THIN_GROUP_DATA ? scrub_bad : scrub_nothing, .arg = s };
	struct ashlar_pool *p = s->p;
	int r = pool_co_pace(p, len * g->desc.n_cols / raid_data_cols(&g->desc));

	if (r == 0 && s->job->stop)
		r = -EINTR;
	if (r < 0)
		return r;
	s->group = g->desc.group;
	r = raid_co_scrub_range(p->reactors[0].raid, g->desc.group, off, len, &rs);
	s->unreadable_bytes += rs.unreadable_bytes;
	s->repaired_bytes += rs.repaired_bytes;
	s->job->info.repaired += rs.repaired_bytes / p->label->block_bytes;
	if (g->kind == THIN_GROUP_DATA)
		pool_job_progress(s->job, len);
	return r == -ERR_MISSING ? 0 : r; /* lost already, and known */
}

/* Coroutine. What is allocated of a data group. */
static int data_group_co_scrub(struct scrub_run *s, struct pgroup *g)
{
	uint64_t cluster = s->p->label->cluster_bytes, n_clusters = s->p->label->group_bytes / cluster, first, k;
	uint8_t bits[64];
	unsigned n, i;
	int r = 0;

	for (first = 0; first < n_clusters && r == 0; first += n) {
		n = (unsigned)MIN(n_clusters - first, sizeof(bits) * 8);
		r = thin_co_allocated(s->p->thin, g->desc.group * n_clusters + first, n, bits);
		for (i = 0; i < n && r == 0; i += k) {
			k = 1;
			if (!(bits[i / 8] >> (i % 8) & 1))
				continue;
			while (i + k < n && (k + 1) * cluster <= RUN_BYTES && bits[(i + k) / 8] >> ((i + k) % 8) & 1)
				k++;
			r = run_co_scrub(s, g, (first + i) * cluster, k * cluster);
		}
	}
	return r;
}

static int other_group_co_scrub(struct scrub_run *s, struct pgroup *g)
{
	uint64_t off, len;
	int r = 0;

	for (off = 0; off < g->desc.size_bytes && r == 0; off += len) {
		len = MIN(g->desc.size_bytes - off, RUN_BYTES);
		r = run_co_scrub(s, g, off, len);
	}
	return r;
}

static int group_co_scrub(struct scrub_run *s, uint64_t group)
{
	struct ashlar_pool *p = s->p;
	struct pgroup *g;
	int r = pool_co_group_claim(p, group, &g);

	if (r == -ENOENT)
		return 0; /* destroyed meanwhile */
	if (r < 0)
		return r;
	if (g->kind == THIN_GROUP_DATA) {
		pool_co_transition_begin(p, g, NULL, 0);
		r = data_group_co_scrub(s, g);
		pool_co_transition_end(p, g);
	} else {
		r = other_group_co_scrub(s, g);
	}
	pool_group_unclaim(p, g);
	if (r == 0 && s->found.count >= SCRUB_FOUND_MAX / 2)
		r = scrub_co_resolve(s);
	return r;
}

/* The group numbers of one leaf of the table at a time: groups come and go while we read. */
static int groups_co_scrub(struct scrub_run *s)
{
	unsigned per_leaf = META_PAGE_BYTES / sizeof(struct pool_group_disk), i, n;
	struct pool_group_disk *rec = xaligned(16, META_PAGE_BYTES);
	uint64_t leaf = 0, v[META_PAGE_BYTES / sizeof(struct pool_group_disk)];
	int r;

	for (;; leaf++) {
		r = meta_array_co_next_leaf(s->p->groups, &leaf);
		if (r == 0)
			r = meta_array_co_leaf(s->p->groups, leaf, rec);
		if (r < 0)
			break;
		for (i = n = 0; i < per_leaf; i++)
			if (rec[i].kind != THIN_GROUP_NONE)
				v[n++] = leaf * per_leaf + i;
		for (i = 0, r = 0; i < n && r == 0; i++)
			r = group_co_scrub(s, v[i]);
		if (r < 0)
			break;
	}
	xfree(rec);
	return r == -ENOENT ? 0 : r;
}

static void scrub_end(struct scrub_run *s, int r)
{
	unsigned long long bad = s->job->info.problems, fixed = s->repaired_bytes, lost = s->unreadable_bytes - s->repaired_bytes;

	if (r == -EINTR || r == -ECANCELED)
		pool_job_end(s->job, ASHLAR_JOB_STOPPED, "stopped; %llu mismatches found so far", bad);
	else if (r < 0)
		pool_job_end(s->job, ASHLAR_JOB_FAILED, "it could not be finished: %s", err_text(r));
	else if (!bad && !s->unreadable_bytes)
		pool_job_end(s->job, ASHLAR_JOB_DONE, "no errors found");
	else
		pool_job_end(s->job, ASHLAR_JOB_DONE, "%llu mismatches%s; %llu bytes could not be read and were rewritten, %llu could not be repaired",
			     bad, bad && s->repair ? " (repaired where the events say so)" : "", fixed, lost);
}

static void scrub_co_main(void *arg)
{
	struct scrub_run *s = arg;
	struct ashlar_pool *p = s->p;
	int r = groups_co_scrub(s);

	if (r == 0)
		r = scrub_co_resolve(s);
	if (r == 0)
		r = bdev_co_flush(raid_bdev(p->reactors[0].raid));
	if (r == 0 && s->unreadable_bytes > s->repaired_bytes)
		s->job->info.problems++;
	scrub_end(s, r);
	scrub_forget(s);
	hash_fini(&s->found);
	hash_fini(&s->rows);
	xfree(s);
	pool_life_leave(p);
}

static bool scrub_runs(const struct ashlar_pool *p, uint64_t *id)
{
	struct pool_job *j;

	list_for_each (j, &p->life->jobs, link) {
		if (j->info.kind != ASHLAR_JOB_SCRUB || (j->info.state != ASHLAR_JOB_RUNNING && j->info.state != ASHLAR_JOB_WAITING))
			continue;
		*id = j->info.id;
		return true;
	}
	return false;
}

int ashlar_co_scrub_start(struct ashlar_pool *p, bool repair, uint64_t *job, struct err *e)
{
	struct thin_space space;
	struct scrub_run *s;
	uint64_t id;

	if (p->read_only || !p->life)
		return err_set(e, -EROFS, "pool %s is open read-only: a scrub repairs what it finds, and cannot", p->label->name);
	if (p->failed)
		return err_set(e, -ERR_POOL_FAILED, "pool %s has stopped: %s", p->label->name, p->failed_why);
	if (scrub_runs(p, &id))
		return err_set(e, -EBUSY, "pool %s is being scrubbed already, by job %llu", p->label->name, (unsigned long long)id);
	s = xcalloc(1, sizeof(*s));
	s->p = p;
	s->repair = repair;
	hash_init(&s->found);
	hash_init(&s->rows);
	thin_space_get(p->thin, &space);
	s->job = pool_job_start(p, ASHLAR_JOB_SCRUB, "pool %s", p->label->name);
	s->job->info.total_bytes = space.clusters_used * p->label->cluster_bytes;
	*job = s->job->info.id;
	pool_life_spawn(p, scrub_co_main, s, "scrub");
	return 0;
}
