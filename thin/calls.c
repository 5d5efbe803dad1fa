/*
 * calls.c: what volumes ask of the home half, from whichever reactor they live on: calls suspend and hop, hand-ins are
 * messages. Both go through the same queue from one reactor to another, so they keep their order.
 */
#include <string.h>

#include "engine/base/mutant.h"
#include "thin/home_internal.h"

#define LEASE_MAX 64
#define QUARANTINE_WAIT_NS (100 * NS_PER_MS)

/* ---- calls ---- */

struct call {
	struct thin *t;
	struct thin_class cls;
	uint64_t *clusters;
	unsigned *n;
	uint64_t volume, leaf;
	void *page;
	bool grow, runs, exact;
};

static void leases_call_in(struct thin *t);

/* Coroutine. Nothing is left, but there are clusters in quarantine, not least those that redirected writes have left behind:
 * that is no reason to fail. Has them made durable, and waits a little for their release. Meanwhile nobody takes them who
 * could do without. */
static int lease_co_starve(struct call *c, unsigned want)
{
	uint64_t until = reactor_now_ns() + QUARANTINE_WAIT_NS;
	struct thin *t = c->t;
	int r;

	t->n_starving++;
	do {
		r = meta_co_commit(t->m, meta_last_seq(t->m));
		if (r < 0)
			break;
		*c->n = want;
		r = thin_alloc_co_lease(t, c->cls, false, c->clusters, c->n);
	} while (r == -ERR_POOL_FULL && t->n_quarantine && co_queue_wait_until(&t->starving, until) == 0);
	t->n_starving--;
	return r;
}

static int lease_there(void *arg)
{
	struct call *c = arg;
	struct thin *t = c->t;
	unsigned want = MIN(*c->n, LEASE_MAX);
	uint64_t free_clusters = t->clusters_total - t->clusters_used;
	int r;

	if (t->tight) /* near the end of the space, small leases, so that all reactors get some */
		want = (unsigned)MIN((uint64_t)want, MAX(free_clusters / (4 * t->conf.home->world->n_reactors), 1));
	*c->n = want;
	r = thin_alloc_co_lease(t, c->cls, c->runs, c->clusters, c->n);
	if (r != -ERR_POOL_FULL || c->runs)
		return r;
	leases_call_in(t);
	return t->n_quarantine ? lease_co_starve(c, want) : r;
}

int thin_co_lease(struct thin *t, struct thin_class cls, bool runs, uint64_t *clusters, unsigned *n)
{
	struct call c = { .t = t, .cls = cls, .runs = runs, .clusters = clusters, .n = n };

	return reactor_co_call(t->conf.home, lease_there, &c);
}

static int admit_there(void *arg)
{
	struct call *c = arg;
	const struct thin_conf *f = &c->t->conf;
	size_t one = sizeof(struct journal_record_disk) + sizeof(struct thin_rec_map) +
		     THIN_REC_MAP_ENTRIES_MAX * sizeof(struct thin_entry_disk);
	uint64_t grant = f->journal_bytes / 16 / f->home->world->n_reactors / one;
	int r;

	grant = MAX(1, MIN(grant, 64));
	r = meta_co_admit(c->t->m, grant * one, c->grow);
	if (r == -ERR_POOL_FULL)
		c->t->full = true;
	*c->n = (unsigned)grant;
	return r;
}

int thin_co_admit(struct thin *t, bool grow, unsigned *n)
{
	struct call c = { .t = t, .grow = grow, .n = n };

	return reactor_co_call(t->conf.home, admit_there, &c);
}

/* A page whose checksum is right and whose contents are not must not get into the volume's cache. */
static int leaf_check(struct thin *t, const struct thin_entry_disk *d)
{
	unsigned i;

	for (i = 0; i < THIN_MAP_PER_LEAF; i++) {
		struct thin_entry e = thin_entry_load(&d[i]);

		if (!thin_entry_is_valid(t, &e))
			return -ERR_FORMAT;
	}
	return 0;
}

/*
 * Which entries have an own cluster that is another map's too. A leaf made by this map since it was last shared says so itself,
 * as of the time when it was made; what has become this map's alone since, counts tell. They tell what has been applied; what
 * took away the other references must be durable too, or a crash would bring them back.
 */
static int leaf_co_shares(struct call *c, enum meta_owner owner)
{
	struct thin_entry_disk *d = c->page;
	struct thin *t = c->t;
	bool sure = meta_durable_seq(t->m) >= t->lost_seq || t->conf.read_only || MUTANT(SHARES_NOT_SURE);
	uint32_t count;
	unsigned i;
	int r;

	for (i = 0; i < THIN_MAP_PER_LEAF; i++) {
		struct thin_entry e = thin_entry_load(&d[i]);

		if (!e.own || (owner == META_OWN && !e.shared))
			continue;
		e.shared = true;
		if (owner != META_SHARED && (sure || c->exact)) {
			r = thin_ref_co_get(t, e.own, &count);
			if (r == 0 && count == 1 && !sure) {
				r = meta_co_commit(t->m, t->lost_seq);
				sure = r == 0;
			}
			if (r < 0)
				return r;
			e.shared = count > 1;
		}
		thin_entry_store(&e, &d[i]);
	}
	return 0;
}

static int leaf_there(void *arg)
{
	struct call *c = arg;
	struct thin_vol *v = thin_vol_by_id(c->t, c->volume);
	enum meta_owner owner;
	int r, e;

	if (!v)
		return -ENOENT;
	r = MUTANT(LEAF_STALE) ? 0 : c->t->started && !c->t->conf.read_only ? meta_co_wait_applied(c->t->m, v->last_seq) : 0;
	if (r < 0)
		return r;
	if (!c->page)
		return meta_array_co_next_leaf(&v->map, &c->leaf);
	r = meta_array_co_leaf_owner(&v->map, c->leaf, c->page, &owner);
	if (r)
		return r;
	e = leaf_check(c->t, c->page);
	return e < 0 ? e : leaf_co_shares(c, owner);
}

int thin_co_leaf(struct thin *t, uint64_t volume, uint64_t leaf, bool exact, struct thin_entry_disk entries[THIN_MAP_PER_LEAF])
{
	struct call c = { .t = t, .volume = volume, .leaf = leaf, .exact = exact, .page = entries };

	return reactor_co_call(t->conf.home, leaf_there, &c);
}

static int bases_there(void *arg)
{
	struct call *c = arg;
	struct thin *t = c->t;
	struct thin_vol *v = thin_vol_by_id(t, c->volume);
	struct thin_entry_disk *d = xaligned(16, META_PAGE_BYTES);
	uint64_t *bits = c->clusters;
	enum meta_owner owner = META_SHARED;
	uint32_t count;
	unsigned i;
	int r = v ? meta_co_wait_applied(t->m, v->last_seq) : -ENOENT;

	if (r == 0 && meta_durable_seq(t->m) < t->lost_seq)
		r = meta_co_commit(t->m, t->lost_seq);
	if (r == 0)
		r = meta_array_co_leaf_owner(&v->map, c->leaf, d, &owner);
	for (i = 0; i < THIN_MAP_PER_LEAF && r == 0 && owner != META_SHARED; i++) {
		struct thin_entry e = thin_entry_load(&d[i]);

		if (!e.base)
			continue;
		r = thin_ref_co_get(t, e.base, &count);
		if (r == 0 && count == 1)
			bits[i / 64] |= 1ULL << (i % 64);
	}
	xfree(d);
	return r < 0 ? r : 0;
}

int thin_co_bases_alone(struct thin *t, uint64_t volume, uint64_t leaf, uint64_t bits[THIN_MAP_PER_LEAF / 64])
{
	struct call c = { .t = t, .volume = volume, .leaf = leaf, .clusters = bits };

	memset(bits, 0, THIN_MAP_PER_LEAF / 8);
	return reactor_co_call(t->conf.home, bases_there, &c);
}

int thin_co_next_leaf(struct thin *t, uint64_t volume, uint64_t *leaf)
{
	struct call c = { .t = t, .volume = volume, .leaf = *leaf };
	int r = reactor_co_call(t->conf.home, leaf_there, &c);

	*leaf = c.leaf;
	return r;
}

static int commit_there(void *arg)
{
	struct call *c = arg;

	if (c->t->conf.read_only)
		return 0;
	return meta_co_commit(c->t->m, meta_last_seq(c->t->m));
}

int thin_co_commit(struct thin *t)
{
	struct call c = { .t = t };

	return reactor_co_call(t->conf.home, commit_there, &c);
}

/* ---- hand-ins ---- */

enum hand_kind { HAND_MAP, HAND_RELEASE, HAND_RETURN };

struct hand {
	struct msg msg;
	struct thin *t;
	enum hand_kind kind;
	unsigned n;
	uint64_t volume, first;
	struct meta_hand by;
	union {
		struct {
			struct thin_rec_map rec;
			struct thin_entry_disk entries[THIN_REC_MAP_ENTRIES_MAX];
		} map;
		uint64_t clusters[THIN_REC_MAP_ENTRIES_MAX];
	};
};

static size_t map_bytes(unsigned n)
{
	return sizeof(struct thin_rec_map) + n * sizeof(struct thin_entry_disk);
}

static void map_hand_in(struct thin *t, uint64_t volume, const struct thin_rec_map *rec, unsigned n, const struct meta_hand *by)
{
	struct thin_vol *v = thin_vol_by_id(t, volume);

	CHECK(v);
	v->last_seq = meta_record_by(t->m, THIN_REC_MAP_SET, rec, map_bytes(n), by);
}

static void clusters_hand_in(struct thin *t, enum hand_kind kind, const uint64_t *clusters, unsigned n)
{
	unsigned i;

	for (i = 0; i < n; i++) {
		if (kind == HAND_RELEASE)
			thin_alloc_release(t, clusters[i]);
		else
			thin_alloc_return(t, clusters[i]);
	}
}

static void hand_arrived(struct msg *m)
{
	struct hand *h = container_of(m, struct hand, msg);

	if (h->kind == HAND_MAP)
		map_hand_in(h->t, h->volume, &h->map.rec, h->n, &h->by);
	else
		clusters_hand_in(h->t, h->kind, h->clusters, h->n);
	xfree(h);
}

void thin_map_set(struct thin *t, uint64_t volume, uint64_t first, const struct thin_entry *entries, unsigned n)
{
	struct hand local, *h = &local;
	unsigned i;

	CHECK(n >= 1 && n <= THIN_REC_MAP_ENTRIES_MAX);
	if (t->conf.home != reactor_self())
		h = xmalloc(offsetof(struct hand, map.entries) + n * sizeof(h->map.entries[0]));
	h->map.rec = (struct thin_rec_map){ le64_make(volume), le64_make(first) };
	for (i = 0; i < n; i++)
		thin_entry_store(&entries[i], &h->map.entries[i]);
	if (h == &local) {
		map_hand_in(t, volume, &h->map.rec, n, NULL);
		return;
	}
	h->msg.run = hand_arrived;
	h->t = t;
	h->kind = HAND_MAP;
	h->volume = volume;
	h->n = n;
	h->by = meta_hand_put(t->m, THIN_REC_MAP_SET, &h->map.rec, map_bytes(n)); /* before anybody is answered */
	reactor_post_lazy(t->conf.home, &h->msg);
}

static void clusters_send(struct thin *t, enum hand_kind kind, const uint64_t *clusters, unsigned n)
{
	unsigned i, k;

	if (t->conf.home == reactor_self()) {
		clusters_hand_in(t, kind, clusters, n);
		return;
	}
	for (i = 0; i < n; i += k) {
		struct hand *h;

		k = MIN(n - i, THIN_REC_MAP_ENTRIES_MAX);
		h = xmalloc(offsetof(struct hand, clusters) + k * sizeof(*clusters));
		h->msg.run = hand_arrived;
		h->t = t;
		h->kind = kind;
		h->n = k;
		memcpy(h->clusters, clusters + i, k * sizeof(*clusters));
		reactor_post_lazy(t->conf.home, &h->msg);
	}
}

void thin_release(struct thin *t, const uint64_t *clusters, unsigned n)
{
	clusters_send(t, HAND_RELEASE, clusters, n);
}

void thin_lease_return(struct thin *t, const uint64_t *clusters, unsigned n)
{
	clusters_send(t, HAND_RETURN, clusters, n);
}

/* ---- from home to the reactors ---- */

enum call_what { CALL_LEASES, CALL_SPACE, CALL_UNSHARED };

struct call_out {
	struct msg msg;
	struct thin_reactor *tr;
	enum call_what what;
};

static void call_out_arrived(struct msg *m)
{
	struct call_out *c = container_of(m, struct call_out, msg);

	switch (c->what) {
	case CALL_LEASES: thin_reactor_return_leases(c->tr); break;
	case CALL_SPACE: thin_reactor_space_changed(c->tr); break;
	case CALL_UNSHARED: thin_reactor_unshared(c->tr); break;
	}
	xfree(c);
}

static void call_out(struct thin *t, enum call_what what)
{
	struct world *w = t->conf.home->world;
	unsigned i;

	for (i = 0; i < w->n_reactors; i++) {
		struct call_out *c = xcalloc(1, sizeof(*c));

		c->msg.run = call_out_arrived;
		c->tr = t->reactors[i];
		c->what = what;
		reactor_post(w->reactors[i], &c->msg);
	}
}

static int return_leases_there(void *arg)
{
	thin_reactor_return_leases(arg);
	return 0;
}

void thin_co_leases_call_in(struct thin *t)
{
	struct world *w = t->conf.home->world;
	unsigned i;

	for (i = 0; i < w->n_reactors; i++) /* what is returned has arrived when the answer has */
		(void)reactor_co_call(w->reactors[i], return_leases_there, t->reactors[i]);
}

static void leases_call_in(struct thin *t)
{
	call_out(t, CALL_LEASES);
}

void thin_space_changed(struct thin *t)
{
	unsigned i;

	t->full = false;
	for (i = 0; i < t->n_classes; i++)
		t->classes[i].exhausted = false;
	if (t->started && !t->stopping)
		call_out(t, CALL_SPACE);
}

void thin_unshared(struct thin *t)
{
	if (t->started && !t->stopping)
		call_out(t, CALL_UNSHARED);
}
