/*
 * disk_add.c: disks join a pool that is open.
 *
 * Steps, and what a crash leaves at each:
 *   1. The disk is opened and locked, found free (prepare.c), its label areas are zeroed.
 *   2. A label that knows it is written to it alone, so that no label ever names a disk that has none.
 *      Crash: no other disk knows it: it is not in (assembly.c), and is taken without force the next time.
 *   3. A label is written to all disks.
 *      Crash: some have it. Where the newest label that counts has it, the disk is in, else it is not. Nothing is on it, so both are
 *      whole.
 *   4. Another label says that all have the first. Only now may anything be placed on the disk: whatever a crash, a lost disk or
 *      a damaged slot leave of labels from now on, who does not know the disk is known to be behind.
 *
 * Entries of disks that have been removed are used again, once nothing of their former time is with the kernel.
 */
#include <string.h>

#include "engine/pool/leave.h"
#include "engine/pool/moved.h"
#include "engine/pool/volumes.h"

struct addition {
	struct ashlar_pool *p;
	struct assembly *as; /* its disks are ours until they are installed */
	unsigned n, index[LABEL_DISKS_MAX];
	const struct leave_intent *intent; /* said in the same label; NULL: none */
};

/* ---- what is asked for ---- */

/* Coroutine. */
static int not_ours_co_check(struct ashlar_pool *p, const char *path, struct err *e)
{
	struct disk *d;
	int r = disk_co_open(p->w, path, DISK_RDONLY | DISK_NO_LOCK, &d, e);

	if (r < 0)
		return r;
	r = pool_check_not_used(p->a, d, e);
	disk_close(d);
	return r;
}

/* Coroutine. Entries of the label: such as are free again, then new ones. */
static int indexes_co_choose(struct addition *a, struct err *e)
{
	struct ashlar_pool *p = a->p;
	unsigned i, n = 0;

	for (i = 0; i < LABEL_DISKS_MAX && n < a->n; i++) {
		const struct pdisk *d = &p->disks[i];

		if (i < p->n_disks && (d->state != PDISK_FREE || d->dead || d->is_probed || !pool_co_disk_is_idle(p, i)))
			continue;
		a->index[n++] = i;
	}
	if (n == a->n)
		return 0;
	return err_set(e, -EINVAL, "pool %s can have %u disks at most: remove one first, or replace it", p->label->name, LABEL_DISKS_MAX);
}

/* ---- joining ---- */

static void entry_fill(struct addition *a, unsigned k)
{
	struct ashlar_pool *p = a->p;
	struct disk *h = a->as->disks[k].disk;
	unsigned i = a->index[k];
	struct label_disk *ld = &p->label->disks[i];
	struct pdisk *d = &p->disks[i];

	memset(ld, 0, sizeof(*ld));
	assembly_new_uuid(p->w, &ld->uuid);
	ld->size_bytes = h->bdev.size_bytes;
	ld->state = LABEL_DISK_ONLINE;
	ld->since_generation = p->label->generation + 1;
	label_disk_set_path(ld, h->path);
	memset(d, 0, sizeof(*d));
	h->n_volatile++; /* its label areas have been zeroed */
	d->disk = h;
	d->state = PDISK_ONLINE;
	d->joining = true;
	d->since_ns = reactor_now_ns();
	d->extents = label_disk_extents(p->label, ld->size_bytes);
	p->as->disks[i] = (struct assembly_disk){ .disk = h, .state = ASM_ONLINE };
	a->as->disks[k].disk = NULL;
	p->n_disks = MAX(p->n_disks, i + 1);
	p->label->n_disks = (uint16_t)p->n_disks;
}

/* Coroutine, under p->labels. It has not come to be a member; watch.c closes it. */
static void entry_co_undo(struct addition *a, unsigned k)
{
	struct ashlar_pool *p = a->p;
	struct pdisk *d = &p->disks[a->index[k]];

	if (d->disk)
		d->dead = d->disk;
	d->disk = p->as->disks[a->index[k]].disk = NULL;
	d->state = PDISK_FREE;
	d->joining = false;
	d->extents = 0;
	memset(&p->label->disks[a->index[k]], 0, sizeof(p->label->disks[0]));
	pool_co_set_disk(p, a->index[k]);
}

/* Coroutine, under p->labels. */
static int labels_co_begin(const struct addition *a)
{
	unsigned k;
	int r = 0;

	a->p->label->generation++;
	for (k = 0; k < a->n && r == 0; k++)
		r = pool_co_label_send_one(a->p, a->index[k]);
	return r;
}

static int all_have_joined(const struct addition *a)
{
	unsigned k;

	for (k = 0; k < a->n; k++)
		if (a->p->disks[a->index[k]].state != PDISK_ONLINE)
			return -EIO; /* it could not take its label */
	return 0;
}

/* Coroutine. */
static int addition_co_install(struct addition *a)
{
	struct ashlar_pool *p = a->p;
	struct leave_intent before = { 0 };
	unsigned k;
	int r;

	co_mutex_lock(&p->labels);
	for (k = 0; k < a->n; k++) {
		entry_fill(a, k);
		pool_co_set_disk(p, a->index[k]);
	}
	if (a->intent) {
		pool_leave_get(p, a->intent->disk, &before);
		pool_leave_set(p, a->intent);
	}
	r = labels_co_begin(a);
	if (r == 0)
		r = pool_co_publish_locked(p);
	if (r == 0)
		r = all_have_joined(a);
	if (r == 0) /* it tells that all know them */
		r = pool_co_publish_locked(p);
	if (r == 0)
		r = all_have_joined(a);
	for (k = 0; k < a->n; k++) {
		if (r < 0)
			entry_co_undo(a, k);
		else
			p->disks[a->index[k]].joining = false;
	}
	if (r < 0) {
		if (a->intent)
			pool_leave_set(p, &before);
		(void)!pool_co_publish_locked(p); /* if that fails, the pool has stopped anyway */
	}
	co_mutex_unlock(&p->labels);
	return r;
}

static int addition_co_wipe(struct addition *a, struct err *e)
{
	unsigned k;
	int r;

	for (k = 0; k < a->n; k++) {
		r = label_co_wipe(a->as->disks[k].disk);
		if (r < 0)
			return err_set(e, r, "disk %s: its label areas cannot be written: %s", a->as->disks[k].disk->path, err_text(r));
	}
	return 0;
}

static void addition_report(struct addition *a)
{
	struct ashlar_pool *p = a->p;
	unsigned k;

	for (k = 0; k < a->n; k++)
		pool_event(p, ASHLAR_INFO, "disk.added", (int)a->index[k], NULL, "disk %s has been added",
			   pool_disk_path(p, a->index[k]));
	p->disk_gen++;
	p->change_gen++;
	pool_life_kick(p);
	thin_space_changed(p->thin); /* writes that are held have room */
}

/* ---- the commands' part ---- */

int pool_co_disks_prepare(struct ashlar_pool *p, const char *const *paths, size_t n, bool force, struct addition **out, struct err *e)
{
	struct ashlar_pool_spec s = { .name = p->label->name, .paths = paths, .n_paths = n, .force = force };
	struct addition *a;
	size_t i;
	int r = 0;

	if (!n || n > LABEL_DISKS_MAX)
		return err_set(e, -EINVAL, "pool %s: name the disks that are to be added, at most %u", p->label->name, LABEL_DISKS_MAX);
	for (i = 0; i < n && r == 0; i++)
		r = not_ours_co_check(p, paths[i], e);
	if (r < 0)
		return r;
	a = xcalloc(1, sizeof(*a));
	a->p = p;
	a->n = (unsigned)n;
	a->as = xcalloc(1, sizeof(*a->as));
	r = assembly_co_prepare_more(p->w, &s, p->label, a->as, e);
	if (r == 0)
		r = indexes_co_choose(a, e);
	if (r < 0) {
		pool_disks_forget(a);
		return r;
	}
	*out = a;
	return 0;
}

unsigned pool_disks_prepared(const struct addition *a, unsigned k, uint64_t *extents)
{
	*extents = label_disk_extents(a->p->label, a->as->disks[k].disk->bdev.size_bytes);
	return a->index[k];
}

int pool_co_disks_install(struct addition *a, const struct leave_intent *intent, struct err *e)
{
	int r = addition_co_wipe(a, e);

	if (r < 0)
		return r;
	a->intent = intent;
	r = addition_co_install(a);
	if (r < 0)
		return err_set(e, r, "pool %s: the disks could not be added, since their labels could not be written: %s", a->p->label->name,
			       err_text(r));
	addition_report(a);
	return 0;
}

void pool_disks_forget(struct addition *a)
{
	assembly_close(a->as);
	xfree(a->as);
	xfree(a);
}

int ashlar_co_disk_add(struct ashlar_pool *p, const char *const *paths, size_t n, bool force, bool dry_run, struct err *e)
{
	struct addition *a = NULL;
	int r = dry_run ? 0 : pool_check_writable(p, e);

	if (r < 0)
		return r;
	co_mutex_lock(&p->life->returning);
	r = pool_co_disks_prepare(p, paths, n, force, &a, e);
	if (r == 0 && !dry_run)
		r = pool_co_disks_install(a, NULL, e);
	if (a)
		pool_disks_forget(a);
	co_mutex_unlock(&p->life->returning);
	return err_default(e, r, "adding disks");
}
