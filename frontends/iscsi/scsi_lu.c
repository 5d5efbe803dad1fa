/*
 * scsi_lu.c: logical units and nexuses: from an export to an LU on its home reactor, and back.
 *
 * Lists of LUs and nexuses are reactor 0's. An LU is there as long as somebody has a nexus to it, a copy uses it, or a persistent
 * reservation is held: then clients of other frontends are to be kept out, and the volume counts as attached. What is registered
 * without that outlives the LU in target->idle_prs.
 */
#include "engine/base/hash.h"
#include "frontends/iscsi/scsi_internal.h"

/* Registrations of an LU that nobody has a nexus to. */
struct idle_pr {
	struct list link;
	struct uuid uuid;
	struct scsi_pr *pr;
};

#define IDLE_PRS_MAX 1024

/* ---- what the engine says ---- */

static void lu_gone_co_run(void *arg);

static void on_gone(void *arg)
{
	struct scsi_lu *lu = arg;
	struct scsi_nexus *n, *tmp;

	lu->gone = true;
	list_for_each_safe (n, tmp, &lu->nexuses, link)
		if (n->conf.ops && n->conf.ops->gone)
			n->conf.ops->gone(n->conf.arg);
	atomic_fetch_add(&lu->target->n_gone, 1);
	reactor_spawn(lu->target->world->reactors[0], lu_gone_co_run, lu->target, "scsi lu gone");
}

static void on_resized(void *arg)
{
	scsi_lu_attention(arg, NULL, ASC_CAPACITY_CHANGED);
}

static void on_space(void *arg, uint64_t free_bytes, uint64_t total_bytes)
{
	scsi_lu_space(arg, free_bytes, total_bytes);
}

/* Its volume is in another pool now. What is under way with the old bdev ends there. */
static bool on_moved(void *arg, struct bdev *now)
{
	struct scsi_lu *lu = arg;

	if (!lu->bdev) /* not begun */
		return false;
	lu->bdev = now;
	lu->cluster_bytes = MAX(now->opt_bytes, lu->lba_bytes);
	scsi_lu_fence(lu);
	return true;
}

static const struct ashlar_attach_ops attach_ops = {
	.gone = on_gone, .resized = on_resized, .moved = on_moved, .space = on_space,
};

/* ---- LUs: reactor 0, target->admin ---- */

static struct scsi_pr *idle_pr_take(struct scsi_target *t, const struct uuid *uuid)
{
	struct idle_pr *i;
	struct scsi_pr *pr;

	list_for_each (i, &t->idle_prs, link) {
		if (!uuid_is_equal(&i->uuid, uuid))
			continue;
		pr = i->pr;
		list_del(&i->link);
		xfree(i);
		return pr;
	}
	return NULL;
}

static void idle_pr_put(struct scsi_target *t, const struct uuid *uuid, struct scsi_pr *pr)
{
	struct idle_pr *i;
	unsigned n = 0;

	if (!pr->n_regs) {
		scsi_pr_destroy(pr);
		return;
	}
	list_for_each (i, &t->idle_prs, link)
		n++;
	if (n >= IDLE_PRS_MAX) { /* of volumes that are gone, most likely */
		i = list_entry(list_pop_front(&t->idle_prs), struct idle_pr, link);
		scsi_pr_destroy(i->pr);
		xfree(i);
	}
	i = xcalloc(1, sizeof(*i));
	i->uuid = *uuid;
	i->pr = pr;
	list_push_back(&t->idle_prs, &i->link);
}

/* Coroutine. What is registered: as this target knows it, or as it is kept. */
static int pr_co_load(struct scsi_target *t, const struct uuid *uuid, struct scsi_pr **out)
{
	struct scsi_pr *pr = idle_pr_take(t, uuid);
	size_t n = SCSI_PR_STATE_MAX;
	uint8_t *bytes;
	int r;

	*out = pr ? pr : scsi_pr_create();
	if (pr || !t->store)
		return 0;
	bytes = xmalloc(n);
	r = t->store->co_load(t->store->arg, uuid, SCSI_KEPT_RESERVATIONS, bytes, &n);
	if (r == 0 && n) {
		r = scsi_pr_decode(*out, bytes, n);
		(*out)->aptpl = (*out)->is_stored = r == 0;
	}
	xfree(bytes);
	if (r < 0 && r != -ENOENT) {
		scsi_pr_destroy(*out);
		return r;
	}
	return 0;
}

static int lu_init_there(void *arg)
{
	struct scsi_lu *lu = arg;

	lu->bdev = ashlar_attach_bdev(lu->at);
	lu->lba_bytes = lu->bdev->block_bytes;
	lu->lba_shift = (unsigned)__builtin_ctz(lu->lba_bytes);
	lu->cluster_bytes = MAX(lu->bdev->opt_bytes, lu->lba_bytes);
	scsi_lu_fence(lu);
	return 0;
}

/* NAA 3, locally assigned: 60 bits of the identity. */
static void naa_make(const struct uuid *u, uint8_t naa[8])
{
	uint64_t lo, hi;

	memcpy(&lo, u->b, 8);
	memcpy(&hi, u->b + 8, 8);
	be_put64(naa, (lo ^ hi * 0x9e3779b97f4a7c15ULL) >> 4 | 3ULL << 60);
}

/* By its identity: that is the same in another pool. */
static struct scsi_lu *lu_find(struct scsi_target *t, const struct uuid *uuid)
{
	struct scsi_lu *lu;

	list_for_each (lu, &t->lus, link)
		if (uuid_is_equal(&lu->uuid, uuid) && !lu->gone)
			return lu;
	return NULL;
}

/* Coroutine. */
static int lu_co_get(struct scsi_target *t, const char *export_name, struct scsi_lu **out, struct err *e)
{
	struct scsi_lu *lu = xcalloc(1, sizeof(*lu)), *old;
	int r;

	list_init(&lu->link);
	list_init(&lu->nexuses);
	list_init(&lu->tasks);
	list_init(&lu->co_waiting);
	list_init(&lu->copies);
	co_queue_init(&lu->task_ended);
	lu->target = t;
	r = ashlar_co_attach(t->a, export_name, &attach_ops, lu, &lu->at, e);
	if (r < 0) {
		xfree(lu);
		return r;
	}
	ashlar_attach_identity(lu->at, &lu->uuid);
	old = lu_find(t, &lu->uuid);
	if (!old)
		r = scsi_mode_co_load(lu);
	if (!old && r == 0)
		r = pr_co_load(t, &lu->uuid, &lu->pr);
	if (old || r < 0) {
		ashlar_co_detach(lu->at);
		xfree(lu);
		if (r < 0)
			return err_set(e, r, "the reservations or saved mode pages of the volume cannot be read");
		old->refs++;
		*out = old;
		return 0;
	}
	lu->refs = 1;
	lu->home = ashlar_attach_home(lu->at);
	lu->read_only = ashlar_attach_read_only(lu->at);
	naa_make(&lu->uuid, lu->naa);
	(void)reactor_co_call(lu->home, lu_init_there, lu);
	list_push_back(&t->lus, &lu->link);
	*out = lu;
	return 0;
}

static int lu_end_there(void *arg)
{
	struct scsi_lu *lu = arg;

	while (lu->n_tasks)
		co_queue_wait(&lu->task_ended);
	lu->bdev->fence = BDEV_FENCE_NONE;
	scsi_copies_free(lu);
	return 0;
}

/* Coroutine. Nobody uses it. */
static void lu_co_close(struct scsi_lu *lu)
{
	list_del(&lu->link);
	(void)reactor_co_call(lu->home, lu_end_there, lu);
	ashlar_co_detach(lu->at);
	idle_pr_put(lu->target, &lu->uuid, lu->pr);
	xfree(lu);
}

static void lu_linger_co_run(void *arg);

static int is_busy_there(void *arg)
{
	return ((struct scsi_lu *)arg)->n_tasks > 0;
}

/* Coroutine. What has been left to itself holds it; nobody is to wait for that. */
static bool lu_co_linger(struct scsi_lu *lu)
{
	if (!lu->lingers && !reactor_co_call(lu->home, is_busy_there, lu))
		return false;
	if (!lu->lingers) {
		lu->lingers = true;
		lu->target->n_lingering++;
		co_spawn(CO_SERVICE, lu_linger_co_run, lu, "scsi lu lingers");
	}
	return true;
}

/* Coroutine. Nobody uses it: does it stay, for the sake of its reservation? */
static void lu_co_look(struct scsi_lu *lu)
{
	const struct scsi_store *s = lu->target->store;

	if (lu_co_linger(lu))
		return;

	if (!lu->gone && lu->pr->type && s && s->co_is_disk && !s->co_is_disk(s->arg, &lu->uuid))
		scsi_pr_clear(lu->pr);
	if (lu->gone || !lu->pr->type)
		lu_co_close(lu);
}

/* Coroutine. */
static void lu_co_put(struct scsi_lu *lu)
{
	CHECK(lu->refs);
	if (--lu->refs == 0)
		lu_co_look(lu);
}

static void lu_linger_co_run(void *arg)
{
	struct scsi_lu *lu = arg;
	struct scsi_target *t = lu->target;

	while (lu->lingers) {
		co_sleep_ns(SCSI_LINGER_NS);
		co_mutex_lock(&t->admin);
		if (lu->refs || !reactor_co_call(lu->home, is_busy_there, lu)) {
			lu->lingers = false;
			if (!lu->refs)
				lu_co_look(lu);
			co_mutex_unlock(&t->admin);
			break;
		}
		co_mutex_unlock(&t->admin);
	}
	t->n_lingering--;
}

static int tidy_home(void *arg)
{
	struct scsi_target *t = arg;
	struct scsi_lu *lu, *tmp;

	co_mutex_lock(&t->admin);
	list_for_each_safe (lu, tmp, &t->lus, link)
		if (!lu->refs)
			lu_co_look(lu);
	co_mutex_unlock(&t->admin);
	return 0;
}

void scsi_target_co_tidy(struct scsi_target *t)
{
	(void)reactor_co_call(t->world->reactors[0], tidy_home, t);
}

/* Its volume goes away, and it may be there for its reservation only. */
static void lu_gone_co_run(void *arg)
{
	struct scsi_target *t = arg;
	struct scsi_lu *lu, *tmp;

	co_mutex_lock(&t->admin);
	list_for_each_safe (lu, tmp, &t->lus, link) {
		if (lu->gone && !lu->refs && !lu->lingers) {
			lu_co_close(lu);
			break;
		}
	}
	co_mutex_unlock(&t->admin);
	atomic_fetch_sub(&t->n_gone, 1);
}

/* ---- nexuses ---- */

struct nexus_call {
	struct scsi_target *t;
	const char *export_name;
	struct scsi_nexus *n;
	struct err *e;
	/* finding */
	const uint8_t *naa;
	struct scsi_lu *lu;
};

static int nexus_init_there(void *arg)
{
	struct scsi_nexus *n = arg;

	if (n->lu->gone)
		return -ESHUTDOWN;
	list_push_back(&n->lu->nexuses, &n->link);
	n->attentions[n->n_attentions++] = ASC_POWER_ON;
	return 0;
}

static int nexus_end_there(void *arg)
{
	struct scsi_nexus *n = arg;

	CHECK(!n->n_tasks);
	list_del(&n->link);
	scsi_lu_release_nexus(n->lu, n);
	return 0;
}

static int open_home(void *arg)
{
	struct nexus_call *c = arg;
	struct scsi_nexus *n = c->n;
	int r;

	co_mutex_lock(&c->t->admin);
	r = lu_co_get(c->t, c->export_name, &n->lu, c->e);
	if (r == 0) {
		r = reactor_co_call(n->lu->home, nexus_init_there, n);
		if (r == 0)
			list_push_back(&c->t->nexuses, &n->target_link);
		else
			lu_co_put(n->lu);
	}
	co_mutex_unlock(&c->t->admin);
	return err_default(c->e, r, "opening the logical unit");
}

int scsi_nexus_co_open(struct scsi_target *t, const char *export_name, const struct scsi_nexus_conf *c, struct scsi_nexus **out,
		       struct err *e)
{
	struct scsi_nexus *n = xcalloc(1, sizeof(*n));
	struct nexus_call call = {.t = t, .export_name = export_name, .n = n, .e = e};
	int r;

	n->target = t;
	n->conf = *c;
	list_init(&n->link);
	list_init(&n->target_link);
	r = reactor_co_call(t->world->reactors[0], open_home, &call);
	if (r < 0)
		xfree(n);
	else
		*out = n;
	return r;
}

static int close_home(void *arg)
{
	struct scsi_nexus *n = arg;
	struct scsi_target *t = n->target;

	co_mutex_lock(&t->admin);
	list_del(&n->target_link);
	lu_co_put(n->lu);
	co_mutex_unlock(&t->admin);
	return 0;
}

void scsi_nexus_co_close(struct scsi_nexus *n)
{
	(void)reactor_co_call(n->lu->home, nexus_end_there, n);
	(void)reactor_co_call(n->target->world->reactors[0], close_home, n);
	xfree(n);
}

struct reactor *scsi_nexus_home(const struct scsi_nexus *n)
{
	return n->lu->home;
}

uint32_t scsi_nexus_block_bytes(const struct scsi_nexus *n)
{
	return n->lu->lba_bytes;
}

/* ---- LUs of a session, by designator ---- */

static int find_home(void *arg)
{
	struct nexus_call *c = arg;
	struct scsi_nexus *x;

	list_for_each (x, &c->t->nexuses, target_link) {
		if (x->conf.session != c->n->conf.session || memcmp(x->lu->naa, c->naa, sizeof(x->lu->naa)))
			continue;
		x->lu->refs++;
		c->lu = x->lu;
		return 0;
	}
	return -ENOENT;
}

int scsi_lu_co_find(struct scsi_nexus *n, const uint8_t naa[8], struct scsi_lu **out)
{
	struct nexus_call c = {.t = n->target, .n = n, .naa = naa};
	int r = reactor_co_call(n->target->world->reactors[0], find_home, &c);

	*out = c.lu;
	return r;
}

static int put_home(void *arg)
{
	struct scsi_lu *lu = arg;
	struct scsi_target *t = lu->target;

	co_mutex_lock(&t->admin);
	lu_co_put(lu);
	co_mutex_unlock(&t->admin);
	return 0;
}

void scsi_lu_co_put(struct scsi_lu *lu)
{
	(void)reactor_co_call(lu->target->world->reactors[0], put_home, lu);
}

/* ---- targets ---- */

struct scsi_target *scsi_target_create(struct ashlar *a, const struct scsi_store *store)
{
	struct scsi_target *t = xcalloc(1, sizeof(*t));

	t->a = a;
	t->world = ashlar_world(a);
	t->store = store;
	co_mutex_init(&t->admin);
	list_init(&t->lus);
	list_init(&t->nexuses);
	list_init(&t->idle_prs);
	scsi_tokens_init(t);
	return t;
}

void scsi_target_co_destroy(struct scsi_target *t)
{
	struct list *l;

	CHECK(list_is_empty(&t->nexuses));
	while (atomic_load(&t->n_gone) || t->n_lingering)
		co_sleep_ns(NS_PER_MS);
	co_mutex_lock(&t->admin);
	while (!list_is_empty(&t->lus))
		lu_co_close(list_first(&t->lus, struct scsi_lu, link));
	co_mutex_unlock(&t->admin);
	while ((l = list_pop_front(&t->idle_prs))) {
		struct idle_pr *i = list_entry(l, struct idle_pr, link);

		scsi_pr_destroy(i->pr);
		xfree(i);
	}
	scsi_tokens_fini(t);
	xfree(t);
}
