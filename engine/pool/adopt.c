/*
 * adopt.c: the sources of adopted volumes, and the jobs that bring over what they hold.
 *
 * The order of things, and what a crash leaves:
 *   1. The label gets a feature bit, durably; then the volume's record is written, with the source's name and size. A crash leaves no
 *      volume, or one that is adopted from the beginning.
 *   2. Whenever the data path opens, so does the source, and a layer comes over the volume (adopt_layer.c). The job copies in
 *      ascending order. From time to time what it has copied is flushed and then counted in the record: after a crash it goes on
 *      there; what it copied beyond is found in the map.
 *   3. When it has come to the end: flush; a record without the source, durable; the layer goes; the source is closed. A crash before
 *      that record leaves an adopted volume whose map has everything, one after it a volume like any other.
 *
 * The job holds the volume like a client does, but is none: it counts in n_own. It ends when the volume or the pool goes away.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/units.h"
#include "engine/io/buf.h"
#include "engine/pool/adopt.h"
#include "engine/pool/life.h"
#include "engine/pool/moved.h"
#include "engine/pool/volumes.h"

#define KEEP_BYTES (64 * MIB)
#define KEEP_NS (10 * NS_PER_SEC)
#define RETRY_NS (5 * NS_PER_SEC)
#define ADMIN_NS (10 * NS_PER_MS)

/* While the data path is open. Home reactor. */
struct pool_adopt {
	struct ashlar_pool *p;
	struct thin_vol *v;
	struct reactor *home; /* of the volume */
	struct disk *source;  /* NULL: away */
	struct adopt_layer *layer;
	char what[160], name[THIN_SOURCE_MAX + 1]; /* name: the source's */
	char why[200]; /* it is away */
};

static bool adopt_is_over(const struct ashlar_pool *p, const struct thin_vol *v)
{
	return p->stopping || p->failed || v->leaving;
}

/* ---- the source ---- */

/* Coroutine. Read-only, and so that nobody else writes there. */
static int source_co_open(struct ashlar_pool *p, const char *source, struct disk **out, struct err *e)
{
	return disk_co_open(p->w, source, DISK_RDONLY, out, e);
}

/* Coroutine. Images of virtual machines that are not raw: their bytes are not the disk's. */
static int source_co_check_raw(struct disk *d, const char *source, struct err *e)
{
	static const struct {
		const char *name, *magic;
		size_t len;
	} images[] = { { "qcow2", "QFI\xfb", 4 }, { "VMDK", "KDMV", 4 }, { "VHDX", "vhdxfile", 8 }, { "QED", "QED", 4 } };
	char *head;
	unsigned i;
	int r;

	if (d->bdev.size_bytes < 4096 || d->bdev.block_bytes > 4096)
		return 0;
	head = xaligned(4096, 4096);
	r = bdev_co_read(&d->bdev, 0, head, 4096);
	if (r < 0)
		err_set(e, r, "the source %s cannot be read: %s", source, err_text(r));
	for (i = 0; r == 0 && i < ARRAY_LEN(images); i++)
		if (!memcmp(head, images[i].magic, images[i].len))
			r = err_set(e, -EINVAL, "the source %s is a %s image, and only raw ones can be adopted: serve it with qemu-nbd and "
				    "adopt that, or convert it", source, images[i].name);
	xfree(head);
	return r;
}

int pool_co_source_check(struct ashlar_pool *p, const char *source, uint64_t *size_bytes, struct err *e)
{
	struct disk *d;
	int r;

	if (strlen(source) > THIN_SOURCE_MAX)
		return err_set(e, -ENAMETOOLONG, "the source's name is longer than %d bytes", THIN_SOURCE_MAX);
	r = source_co_open(p, source, &d, e);
	if (r < 0)
		return err_prefix(e, "the source cannot be opened: ");
	*size_bytes = d->bdev.size_bytes;
	r = source_co_check_raw(d, source, e);
	if (r == 0 && d->is_own)
		r = err_set(e, -EINVAL, "the source %s is an export of this same daemon: volumes whose data lie in each other's exports would wait for "
			    "each other for ever; take a clone of the volume instead", source);
	if (r == 0 && d->bdev.block_bytes > 4096)
		r = err_set(e, -EINVAL, "the source %s has blocks of %u bytes; 4096 is the most", source, d->bdev.block_bytes);
	else if (r == 0 && d->tail_bytes)
		r = err_set(e, -EINVAL, "the source %s ends with %u bytes that make no whole block of %u: lengthen it by %u bytes", source,
			    d->tail_bytes, d->bdev.block_bytes, d->bdev.block_bytes - d->tail_bytes);
	else if (r == 0 && !*size_bytes)
		r = err_set(e, -EINVAL, "the source %s is empty", source);
	disk_close(d);
	return r;
}

static int layer_set_there(void *arg)
{
	struct pool_adopt *ad = arg;

	adopt_layer_set_source(ad->layer, &ad->source->bdev);
	return 0;
}

static int layer_take_there(void *arg)
{
	struct pool_adopt *ad = arg;

	adopt_layer_co_take_source(ad->layer);
	return 0;
}

/* Coroutine. *why is set if it is away. The layer does not have it yet. */
static void source_co_find(struct pool_adopt *ad)
{
	struct err e = { 0 };
	struct disk *d;
	int r = source_co_open(ad->p, ad->v->source, &d, &e);

	ad->why[0] = 0;
	if (r < 0) {
		snprintf(ad->why, sizeof(ad->why), "%.199s", e.text);
	} else if (d->bdev.size_bytes < ad->v->source_bytes || ad->v->source_bytes % d->bdev.block_bytes) {
		snprintf(ad->why, sizeof(ad->why), "it has %" PRIu64 " bytes now, and had %" PRIu64, d->bdev.size_bytes, ad->v->source_bytes);
		disk_close(d);
	} else {
		ad->source = d;
	}
}

/* Coroutine. Given up, and opened anew. */
static void source_co_reopen(struct pool_adopt *ad)
{
	int r = reactor_co_call(ad->home, layer_take_there, ad);

	if (ad->source)
		disk_close(ad->source);
	ad->source = NULL;
	source_co_find(ad);
	if (r == 0 && ad->source)
		r = reactor_co_call(ad->home, layer_set_there, ad);
	CHECK(r == 0);
}

/* ---- the data path comes and goes ---- */

static int layer_start_there(void *arg)
{
	struct pool_adopt *ad = arg;
	struct adopt_layer_conf c = { .p = ad->p, .volume = ad->v->open, .source_bytes = ad->v->source_bytes, .what = ad->what,
				      .sub_bytes = ad->p->label->cluster_bytes / THIN_SUBS };

	ad->layer = adopt_layer_co_start(&c);
	if (ad->source)
		adopt_layer_set_source(ad->layer, &ad->source->bdev);
	return 0;
}

static int layer_free_there(void *arg)
{
	adopt_layer_co_free(arg);
	return 0;
}

static int layer_complete_there(void *arg)
{
	adopt_layer_co_complete(arg);
	return 0;
}

static int layer_drop_there(void *arg)
{
	adopt_layer_co_drop(arg);
	return 0;
}

void pool_adopt_co_open(struct ashlar_pool *p, struct thin_vol *v)
{
	struct pool_adopt *ad;
	int r;

	if (!pool_vol_is_adopted(v))
		return;
	ad = xcalloc(1, sizeof(*ad));
	ad->p = p;
	ad->v = v;
	ad->home = thin_volume_home(p->thin, v->id);
	snprintf(ad->what, sizeof(ad->what), "volume %.63s/%.80s", p->label->name, v->name);
	memcpy(ad->name, v->source, sizeof(ad->name));
	source_co_find(ad);
	r = reactor_co_call(ad->home, layer_start_there, ad);
	CHECK(r == 0);
	v->adopt = ad;
}

void pool_adopt_co_close(struct ashlar_pool *p, struct thin_vol *v)
{
	struct pool_adopt *ad = v->adopt;
	int r;

	if (!ad)
		return;
	r = reactor_co_call(ad->home, layer_free_there, ad->layer);
	CHECK(r == 0);
	v->adopt = NULL;
	if (ad->source)
		disk_close(ad->source);
	xfree(ad);
}

const char *pool_adopt_source(const struct thin_vol *v)
{
	return v->adopt ? v->adopt->name : v->source;
}

void pool_adopt_stop(struct thin_vol *v)
{
	if (v->adopt)
		pool_life_kick(v->adopt->p);
}

/* ---- the job ---- */

struct pulling {
	struct ashlar_pool *p;
	struct thin_vol *v;
	struct pool_adopt *ad;
	struct pool_job *job;
	struct adopt_pull x;
	uint64_t fresh_bytes, kept_ns; /* written since; when */
	uint64_t reopened_ns;
};

static int pull_there(void *arg)
{
	return adopt_layer_co_pull(arg);
}

static int flush_there(void *arg)
{
	return bdev_co_flush(arg);
}

/* Coroutine. Takes a->admin, never waiting for who waits for this job. */
static int pull_co_admin(struct pulling *g)
{
	while (!adopt_is_over(g->p, g->v) && g->p->a->admin.owner)
		co_sleep_ns(ADMIN_NS);
	if (adopt_is_over(g->p, g->v))
		return -ESHUTDOWN;
	co_mutex_lock(&g->p->a->admin);
	return 0;
}

/* Coroutine under a->admin. What has been copied is durable first, then the record says so: up to where, or that that is all. */
static int pull_co_record(struct pulling *g, bool all, struct err *e)
{
	struct thin_vol *to;
	int r = reactor_co_call(g->ad->home, flush_there, thin_volume_inner(g->v->open));

	if (r < 0)
		return err_default(e, r, "making durable what has been copied");
	to = xmalloc(sizeof(*to));
	*to = *g->v;
	to->received_bytes = all ? 0 : g->x.pos_bytes;
	if (all) {
		to->source_bytes = 0;
		memset(to->source, 0, sizeof(to->source));
	}
	r = pool_co_vol_update(g->p, g->v, to, e);
	xfree(to);
	return r;
}

/* Coroutine. */
static void pull_co_keep(struct pulling *g)
{
	struct err e = { 0 };

	if (g->fresh_bytes < KEEP_BYTES && reactor_now_ns() - g->kept_ns < KEEP_NS)
		return;
	g->fresh_bytes = 0;
	g->kept_ns = reactor_now_ns();
	if (pull_co_admin(g) < 0)
		return;
	if (pull_co_record(g, false, &e) < 0)
		pool_log(g->p, "%s: %s", g->ad->what, e.text); /* a crash costs looking again */
	co_mutex_unlock(&g->p->a->admin);
}

/* Coroutine. All is there: the volume is one like any other. */
static int pull_co_finish(struct pulling *g, struct err *e)
{
	struct pool_adopt *ad = g->ad;
	int r = pull_co_admin(g);

	if (r < 0)
		return r;
	r = pull_co_record(g, true, e);
	co_mutex_unlock(&g->p->a->admin);
	if (r == 0)
		r = reactor_co_call(ad->home, layer_complete_there, ad->layer);
	if (r == 0)
		r = pull_co_admin(g);
	if (r < 0)
		return r;
	r = reactor_co_call(ad->home, layer_drop_there, ad->layer);
	CHECK(r == 0);
	co_mutex_unlock(&g->p->a->admin);
	pool_adopt_co_close(g->p, g->v);
	return 0;
}

static void pull_co_wait(struct pulling *g)
{
	uint64_t until = reactor_now_ns() + RETRY_NS;

	while (!adopt_is_over(g->p, g->v) && reactor_now_ns() < until)
		(void)!co_queue_wait_until(&g->p->life->kick, until);
}

static void pull_co_reopen(struct pulling *g)
{
	source_co_reopen(g->ad);
	g->reopened_ns = reactor_now_ns();
}

/* Coroutine. Something has failed: later again. */
static void pull_co_later(struct pulling *g, int r)
{
	if (g->x.source_failed)
		pool_job_waits(g->job, "waits: the source %.60s cannot be read at %" PRIu64 "%s%.100s; it is tried again every %llu seconds",
			       g->v->source, g->x.pos_bytes, g->ad->why[0] ? ": " : "", g->ad->why, RETRY_NS / NS_PER_SEC);
	else
		pool_job_waits(g->job, "waits: copying failed: %s; it is tried again", r == -ERR_POOL_FULL ? "the pool is full" : err_text(r));
	pull_co_wait(g);
	if (g->x.source_failed && !adopt_is_over(g->p, g->v))
		pull_co_reopen(g);
}

/* Coroutine. Until all is there, or the volume goes. */
static void pull_co_body(struct pulling *g)
{
	struct adopt_pull *x = &g->x;
	uint64_t from;
	int r = 0;

	x->layer = g->ad->layer;
	x->pos_bytes = MIN(g->v->received_bytes, g->v->source_bytes);
	while (r == 0 && !adopt_is_over(g->p, g->v) && x->pos_bytes < g->v->source_bytes) {
		if (adopt_layer_is_broken(x->layer) && reactor_now_ns() >= g->reopened_ns + RETRY_NS)
			pull_co_reopen(g);
		from = x->pos_bytes;
		r = reactor_co_call(g->ad->home, pull_there, x);
		if (adopt_is_over(g->p, g->v))
			break;
		if (r < 0) {
			pull_co_later(g, r);
			r = 0;
			continue;
		}
		pool_job_progress(g->job, x->pos_bytes - from);
		g->fresh_bytes += x->data_bytes;
		r = x->data_bytes ? pool_co_pace(g->p, x->data_bytes) : 0;
		pull_co_keep(g);
	}
}

static void pull_co_job(struct pulling *g)
{
	struct ashlar_pool *p = g->p;
	struct err e = { 0 };
	int r;

	g->ad = g->v->adopt;
	g->kept_ns = reactor_now_ns();
	g->job = pool_job_start(p, ASHLAR_JOB_ADOPT, "%.100s, all of %.50s", g->ad->what, g->v->source);
	g->job->info.total_bytes = g->v->source_bytes;
	g->job->info.done_bytes = g->job->samples[0].done_bytes = g->v->received_bytes;
	pull_co_body(g);
	while (!adopt_is_over(p, g->v)) {
		r = pull_co_finish(g, &e);
		if (r == 0) {
			pool_job_end(g->job, ASHLAR_JOB_DONE, "all of the source is in the volume, which does not need it any more");
			return;
		}
		if (!adopt_is_over(p, g->v))
			pull_co_later(g, r);
	}
	pool_job_end(g->job, p->failed ? ASHLAR_JOB_FAILED : ASHLAR_JOB_STOPPED, "%s",
		     p->failed ? "the pool has stopped" : p->stopping ? "the pool was closed; it goes on when the pool is open again" :
		     "the volume has been deleted; its source is as it was");
}

/* Service coroutine, one per adopted volume. */
static void pull_co_run(void *arg)
{
	struct pulling *g = arg;
	struct ashlar_pool *p = g->p;
	uint64_t id = g->v->id;

	g->v->n_own++;
	if (pool_co_vol_hold(p, g->v) == 0) {
		pull_co_job(g);
		g->v->n_own--;
		pool_vol_release(p, g->v);
	} else {
		g->v->n_own--;
	}
	g->v = thin_vol_by_id(p->thin, id);
	if (g->v)
		g->v->is_pulled = false;
	xfree(g);
	pool_life_leave(p);
}

void pool_adopts_co_run(void *arg)
{
	struct ashlar_pool *p = arg;
	struct thin_vol *v;

	while (!p->stopping && !p->failed) {
		list_for_each (v, thin_vols(p->thin), link) {
			struct pulling *g;

			if (v->state != THIN_VOLUME_LIVE || !pool_vol_is_adopted(v) || v->is_pulled || v->leaving)
				continue;
			v->is_pulled = true;
			g = xcalloc(1, sizeof(*g));
			g->p = p;
			g->v = v;
			pool_life_spawn(p, pull_co_run, g, "adopting");
		}
		(void)!co_queue_wait_until(&p->life->kick, reactor_now_ns() + RETRY_NS);
	}
	pool_life_leave(p);
}

/* ---- commands ---- */

int pool_co_source_feature(struct ashlar_pool *p, struct err *e)
{
	return pool_co_feature(p, LABEL_INCOMPAT_SOURCES, e);
}

int pool_check_not_adopted(struct ashlar_pool *p, const struct thin_vol *v, const char *doing, struct err *e)
{
	if (pool_vol_is_moved(v))
		return err_set(e, -EBUSY, "volume %s/%s has been moved to %s: what is here is kept until it is deleted, and %s is of no use",
			       p->label->name, v->name, v->source, doing);
	if (!pool_vol_is_adopted(v) && !v->adopt) /* the record says that it is over before the data path is the volume's alone */
		return 0;
	return err_set(e, -EBUSY, "volume %s/%s does not have all of its source %s yet: %s has to wait until it has (job list)",
		       p->label->name, v->name, pool_adopt_source(v), doing);
}
