/*
 * home.c: the home half of the thin layer: opening, the volume directory, deletion in the background.
 */
#include <string.h>

#include "thin/home_internal.h"

#define BUSY_NS (100 * NS_PER_MS) /* before the reaper looks again at volumes that somebody closes */
#define REST_SHARE 8 /* times as long as a leaf took it rests the reaper */
#define REST_MAX_NS (20 * NS_PER_MS)
#define DELETE_BYTES (sizeof(struct thin_volume_disk) + 64) /* of journal, for each */

struct thin *thin_open(const struct thin_conf *c)
{
	struct thin *t = xcalloc(1, sizeof(*t));
	struct world *w = c->home->world;
	unsigned i;

	t->conf = *c;
	t->m = c->meta;
	t->clusters_per_group = c->group_bytes / c->cluster_bytes;
	t->refs = meta_system_array(t->m, THIN_ARRAY_CLUSTER_REFS, 2);
	t->volumes = meta_system_array(t->m, THIN_ARRAY_VOLUMES, THIN_VOLUME_LOG2);
	t->stat = meta_system_array(t->m, THIN_ARRAY_GROUP_STAT, 3);
	hash_init(&t->vols_by_id);
	list_init(&t->vols);
	t->next_id = 1;
	t->replaying = true;
	co_queue_init(&t->reaper);
	co_queue_init(&t->reaper_end);
	thin_alloc_init(t);
	thin_refs_init(t);
	for (i = 0; i < w->n_reactors; i++)
		t->reactors[i] = thin_reactor_create(t, i);
	return t;
}

int thin_co_load(struct thin *t, struct err *e)
{
	struct thin_volume_disk *d = xaligned(16, META_PAGE_BYTES);
	uint64_t leaf = 0;
	unsigned i, per_leaf = META_PAGE_BYTES / sizeof(*d);
	struct thin_vol *v;
	int r;

	for (;; leaf++) {
		r = meta_array_co_next_leaf(t->volumes, &leaf);
		if (r == 0)
			r = meta_array_co_leaf(t->volumes, leaf, d);
		for (i = 0; i < per_leaf && r == 0; i++) {
			if (d[i].state == THIN_VOLUME_NONE)
				continue;
			if (le64_get(d[i].id) != leaf * per_leaf + i)
				r = -ERR_FORMAT;
			else
				r = thin_vol_decode(t, &d[i], &v);
		}
		if (r < 0)
			break;
	}
	xfree(d);
	if (r == -ENOENT)
		return 0;
	return err_set(e, r, "the volume directory cannot be read: %s", err_text(r));
}

/* ---- deletion ---- */

/* family 0: any. */
static struct thin_vol *deleted_next(struct thin *t, bool is_cut, uint64_t family)
{
	struct thin_vol *v;

	list_for_each (v, &t->vols, link)
		if (v->state == THIN_VOLUME_DELETING && v->is_cut == is_cut && (!family || v->family == family))
			return v;
	return NULL;
}

bool thin_reaper_has_more(struct thin *t)
{
	return deleted_next(t, false, 0) != NULL;
}

void thin_reaper_co_rest(struct thin *t, uint64_t began_ns)
{
	uint64_t now = reactor_now_ns();

	if (!t->stopping && !t->full && !t->tight && !t->n_starving && now > began_ns)
		(void)!co_queue_wait_until(&t->reaper, now + MIN(REST_SHARE * (now - began_ns), REST_MAX_NS));
	else
		co_yield();
}

/* Coroutine. Drops the leaves of one deleted volume, and subtrees that others have too, one record each; false if the pool stops
 * meanwhile. */
static bool reap_co_cut(struct thin *t, struct thin_vol *v)
{
	struct thin_rec_leaf rec = { .volume = le64_make(v->id) };
	uint64_t leaf = 0, began_ns;
	int r;

	while (!t->stopping) {
		began_ns = reactor_now_ns();
		r = meta_co_admit(t->m, 256, false);
		if (r == 0)
			r = meta_co_wait_applied(t->m, v->last_seq);
		if (r == 0)
			r = meta_array_co_next_leaf(&v->map, &leaf);
		if (r == -ENOENT) {
			v->is_cut = true;
			thin_unshared(t);
			return true;
		}
		if (r < 0)
			return false;
		rec.leaf = le64_make(leaf);
		v->last_seq = meta_record(t->m, THIN_REC_LEAF_DROP, &rec, sizeof(rec));
		r = meta_co_wait_applied(t->m, v->last_seq);
		if (r == 0)
			thin_reaper_co_rest(t, began_ns);
	}
	return false;
}

/* Coroutine. All that has been deleted of the family is cut: it is gone, once its volumes have been gone over for what that has left
 * them alone with. True also if there is something to be cut first. */
static bool reap_co_family(struct thin *t, uint64_t family)
{
	uint64_t end = 0, leaf_bytes = (uint64_t)THIN_MAP_PER_LEAF * t->conf.cluster_bytes;
	struct thin_vol *v;
	uint64_t seq;
	le64 gone;
	int r;

	list_for_each (v, &t->vols, link)
		if (v->state == THIN_VOLUME_DELETING && v->family == family)
			end = MAX(end, DIV_UP(v->size_bytes, leaf_bytes));
	r = thin_merge_co_family(t, family, end);
	if (r == -EBUSY && !t->stopping)
		(void)!co_queue_wait_until(&t->reaper, reactor_now_ns() + BUSY_NS);
	if (r == -EBUSY || r == -EAGAIN)
		return true;
	while (r == 0 && (v = deleted_next(t, true, family))) {
		r = meta_co_admit(t->m, 256, false);
		if (r < 0)
			break;
		gone = le64_make(v->id);
		seq = v->last_seq = meta_record(t->m, THIN_REC_VOLUME_GONE, &gone, sizeof(gone));
		r = meta_co_wait_applied(t->m, seq);
	}
	return r == 0;
}

/* Service coroutine. */
static void reaper_co_run(void *arg)
{
	struct thin *t = arg;
	struct thin_vol *v;
	bool ok = true;

	while (ok && !t->stopping && !meta_is_failed(t->m)) {
		if ((v = deleted_next(t, false, 0)))
			ok = reap_co_cut(t, v);
		else if ((v = deleted_next(t, true, 0)))
			ok = reap_co_family(t, v->family);
		else
			co_queue_wait(&t->reaper);
	} /* else the pool has failed, or is closing */
	t->reaper_runs = false;
	co_queue_wake_all(&t->reaper_end);
}

void thin_reaper_wake(struct thin *t)
{
	co_queue_wake_all(&t->reaper);
}

int thin_co_start(struct thin *t)
{
	t->replaying = false;
	t->started = true;
	if (!t->conf.read_only) {
		t->reaper_runs = true;
		co_spawn(CO_SERVICE, reaper_co_run, t, "volume reaper");
	}
	return 0;
}

struct volume_close {
	struct thin_volume *v;
};

static int volume_co_close_there(void *arg)
{
	thin_volume_co_close(((struct volume_close *)arg)->v);
	return 0;
}

void thin_co_stop(struct thin *t)
{
	struct thin_vol *v;
	int r;

	t->stopping = true;
	thin_reaper_wake(t);
	while (t->reaper_runs) /* it may have opened some */
		co_queue_wait(&t->reaper_end);
	list_for_each (v, &t->vols, link) {
		struct volume_close c = { v->open };

		if (!v->open)
			continue;
		v->open = NULL;
		r = reactor_co_call(thin_volume_home(t, v->id), volume_co_close_there, &c);
		CHECK(r == 0);
	}
}

static int reactor_state_drop(void *arg)
{
	thin_reactor_destroy(arg);
	return 0;
}

/* Coroutine in spite of its name when there is more than one reactor: each frees its own. */
void thin_close(struct thin *t)
{
	struct world *w = t->conf.home->world;
	unsigned i;
	int r;

	for (i = 0; i < w->n_reactors; i++) {
		r = reactor_co_call(w->reactors[i], reactor_state_drop, t->reactors[i]);
		CHECK(r == 0);
	}
	while (!list_is_empty(&t->vols))
		thin_vol_free(t, list_first(&t->vols, struct thin_vol, link));
	hash_fini(&t->vols_by_id);
	thin_alloc_fini(t);
	thin_refs_fini(t);
	xfree(t);
}

/* ---- directory ---- */

struct thin_vol *thin_vol_find(struct thin *t, const char *name)
{
	struct thin_vol *v;

	list_for_each (v, &t->vols, link)
		if (thin_vol_counts(v) && !strcmp(v->name, name))
			return v;
	return NULL;
}

struct thin_vol *thin_vol_by_id(struct thin *t, uint64_t id)
{
	struct hash_node *n = hash_find(&t->vols_by_id, id);

	return n ? container_of(n, struct thin_vol, node) : NULL;
}

struct list *thin_vols(struct thin *t)
{
	return &t->vols;
}

unsigned thin_n_vols(const struct thin *t)
{
	return t->n_live;
}

/* Coroutine. Hands in a volume record and waits until it is durable and applied. */
static int volume_co_put(struct thin *t, const struct thin_vol *v)
{
	struct thin_volume_disk *d;
	uint64_t seq;
	int r = meta_co_admit(t->m, sizeof(*d) + 64, true);

	if (r < 0)
		return r;
	d = xmalloc(sizeof(*d));
	thin_vol_encode(v, d);
	seq = meta_record(t->m, THIN_REC_VOLUME_PUT, d, sizeof(*d));
	xfree(d);
	r = meta_co_commit(t->m, seq);
	return r < 0 ? r : meta_co_wait_applied(t->m, seq);
}

uint64_t thin_id_new(struct thin *t, uint64_t like)
{
	unsigned n = t->conf.home->world->n_reactors;

	while (like && t->next_id % n != like % n)
		t->next_id++;
	return t->next_id++;
}

/* Coroutine. A new volume, with those attributes of *as that a new one may have. */
static int volume_co_create(struct thin *t, unsigned state, const struct thin_vol *as, struct thin_vol **out)
{
	struct thin_vol *v = xcalloc(1, sizeof(*v));
	int r;

	v->id = t->next_id++;
	v->state = (uint8_t)state;
	v->cls = as->cls;
	v->size_bytes = as->size_bytes;
	v->full_wait_ns = as->full_wait_ns;
	v->limits = as->limits;
	v->created_wall_ns = t->conf.home->world->ops->wall_ns(t->conf.home->world);
	v->guid = as->guid;
	v->source_bytes = as->source_bytes;
	memcpy(v->name, as->name, sizeof(v->name));
	memcpy(v->export_name, as->export_name, sizeof(v->export_name));
	memcpy(v->source, as->source, sizeof(v->source));
	r = volume_co_put(t, v);
	if (r == 0)
		*out = thin_vol_by_id(t, v->id);
	xfree(v);
	return r;
}

int thin_co_volume_create_as(struct thin *t, const struct thin_vol *as, struct thin_vol **out)
{
	return volume_co_create(t, THIN_VOLUME_LIVE, as, out);
}

int thin_co_volume_create(struct thin *t, const char *name, uint64_t size_bytes, struct thin_class cls, uint64_t full_wait_ns,
			  struct thin_vol **out)
{
	struct thin_vol *as = xcalloc(1, sizeof(*as));
	int r;

	as->cls = cls;
	as->size_bytes = size_bytes;
	as->full_wait_ns = full_wait_ns;
	memcpy(as->name, name, MIN(strlen(name), sizeof(as->name) - 1));
	r = volume_co_create(t, THIN_VOLUME_LIVE, as, out);
	xfree(as);
	return r;
}

int thin_co_receiver_create(struct thin *t, const struct thin_vol *as, struct thin_vol **out)
{
	return volume_co_create(t, THIN_VOLUME_RECEIVING, as, out);
}

int thin_co_incoming_create(struct thin *t, const struct thin_vol *as, uint64_t like, struct thin_vol **out)
{
	struct thin_vol *v = xmalloc(sizeof(*v));
	int r;

	*v = *as;
	v->id = v->family = thin_id_new(t, like);
	v->state = THIN_VOLUME_INCOMING;
	v->map.m = NULL;
	r = volume_co_put(t, v);
	if (r == 0)
		*out = thin_vol_by_id(t, v->id);
	xfree(v);
	return r;
}

/* So many at a time that their records fit in the journal. */
static int volumes_co_delete(struct thin *t, struct thin_vol *const *v, unsigned n)
{
	struct thin_volume_disk *d;
	uint64_t seq = 0;
	unsigned i;
	int r = meta_co_admit(t->m, n * DELETE_BYTES, false);

	if (r < 0)
		return r;
	d = xmalloc(sizeof(*d));
	for (i = 0; i < n; i++) {
		CHECK(!v[i]->open && !v[i]->n_attached);
		thin_vol_encode(v[i], d);
		d->state = THIN_VOLUME_DELETING;
		seq = meta_record(t->m, THIN_REC_VOLUME_PUT, d, sizeof(*d));
	}
	xfree(d);
	r = meta_co_commit(t->m, seq);
	return r < 0 ? r : meta_co_wait_applied(t->m, seq);
}

int thin_co_volumes_delete(struct thin *t, struct thin_vol *const *v, unsigned n)
{
	unsigned max = (unsigned)MAX(t->conf.journal_bytes / 4 / DELETE_BYTES, 1), i;
	int r = 0;

	for (i = 0; i < n && r == 0; i += max)
		r = volumes_co_delete(t, v + i, MIN(n - i, max));
	thin_reaper_wake(t);
	return r;
}

int thin_co_volume_update(struct thin *t, struct thin_vol *v, const struct thin_vol *to)
{
	CHECK(v->id == to->id && to->state == v->state && v->state != THIN_VOLUME_DELETING);
	return volume_co_put(t, to);
}

void thin_space_get(struct thin *t, struct thin_space *out)
{
	out->clusters_total = t->clusters_total;
	out->clusters_used = t->clusters_used;
	out->clusters_free = t->clusters_total - t->clusters_used;
}

void thin_space_set(struct thin *t, const struct thin_space *s)
{
	t->clusters_total = s->clusters_total;
	t->clusters_used = s->clusters_used;
}

struct thin_reactor *thin_reactor_of(struct thin *t, unsigned reactor)
{
	return t->reactors[reactor];
}

const struct thin_conf *thin_conf_of(const struct thin *t)
{
	return &t->conf;
}
