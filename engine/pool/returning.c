/*
 * returning.c: a disk that was away or out is taken into service again.
 *
 * It must be the disk it was: found by its label, of this pool and this uuid, not newer than we are, not one that went on
 * without us, not smaller (assembly.c has the rules, which are those of opening). One that is older than it had acknowledged
 * when it left was replaced by an old copy of itself: then nothing on it is believed, not only what is recorded as missed.
 *
 * It comes back STALE: labels go on saying OUT until it has caught up (resync.c), but it gets every write from now on. Before
 * that, nothing of its former time may still be with the kernel: a late write would destroy a newer one.
 *
 * Order: what it has missed is published as "everything", then labels are written, then the instances are told, then what it has
 * missed exactly. Whatever is written after all instances know, it has; all before is recorded dirty.
 */
#include <stdio.h>
#include <string.h>

#include "engine/pool/life.h"

/* ---- the handle ---- */

/* Coroutine. The old handle, if it still will do. */
static bool handle_co_reuse(struct ashlar_pool *p, unsigned i, const char *path)
{
	struct disk *h = p->disks[i].disk;
	void *buf;
	int r;

	if (!h || (path && strcmp(path, h->path)) || disk_co_alive(h, p->label->disks[i].size_bytes, NULL) < 0)
		return false;
	buf = xmalloc(LABEL_READ_BYTES);
	r = pool_co_label_peek(p, i, 0, buf, p->settings.timeout_ns);
	xfree(buf);
	return r == 0;
}

/* Coroutine. Closes what is left of its former time. */
static int handle_co_clear(struct ashlar_pool *p, unsigned i, struct err *e)
{
	struct pdisk *d = &p->disks[i];

	if (d->disk)
		(void)!pool_co_disk_vanished(p, i, d->reason);
	if (d->dead && pool_co_disk_is_idle(p, i) && d->dead) {
		disk_close(d->dead);
		d->dead = NULL;
	}
	if (d->disk || d->dead)
		return err_set(e, -EBUSY, "disk %s: requests of before are still on their way to it; try again when it has answered, or "
			       "has been unplugged", pool_disk_path(p, i));
	return 0;
}

/* Coroutine. Opens it anew, or takes the handle that is there. */
static int handle_co_get(struct ashlar_pool *p, unsigned i, const char *path, struct disk **out, struct err *e)
{
	char *where;
	int r;

	if (!pool_co_disk_is_idle(p, i))
		return err_set(e, -EBUSY, "disk %s: requests of before are still on their way to it; try again when it has answered",
			       pool_disk_path(p, i));
	if (handle_co_reuse(p, i, path)) {
		*out = p->disks[i].disk;
		return 0;
	}
	where = xstrdup(path ? path : p->disks[i].last_path ? p->disks[i].last_path : pool_disk_path(p, i));
	r = handle_co_clear(p, i, e);
	if (r == 0)
		r = disk_co_open(p->w, where, 0, out, e);
	xfree(where);
	return r;
}

/* ---- judging ---- */

struct arrival {
	struct ashlar_pool *p;
	unsigned disk;
	struct disk *handle;
	unsigned damaged;
	bool rolled_back, is_taken; /* taken: the handle is no longer ours to close */
};

static int arrival_judge(struct arrival *a, int r, const struct label *own, const void *front, struct err *e)
{
	struct ashlar_pool *p = a->p;
	const char *path = a->handle->path;

	if (r == -ENOENT || r == -ERR_CSUM)
		return err_set(e, r, "disk %s has no label of pool %s (any more): it has been overwritten, or is another disk", path,
			       p->label->name);
	if (r < 0)
		return r;
	if (!uuid_is_equal(&own->pool, &p->label->pool) || !uuid_is_equal(&own->disk, &p->label->disks[a->disk].uuid))
		return err_set(e, -ERR_FOREIGN, "disk %s is another disk%s%.63s: its label says so", path,
			       uuid_is_equal(&own->pool, &p->label->pool) ? " of pool " : ", of pool ", own->name);
	r = assembly_check_return(p->label, a->disk, own, a->handle, e);
	if (r == 0 && p->disks[a->disk].lost[0])
		r = pool_lost_check(p, a->disk, front, e);
	if (r == 0)
		a->rolled_back |= own->generation < p->label->disks[a->disk].acked_generation;
	return r;
}

/* Coroutine. */
static int arrival_co_check(struct arrival *a, struct err *e)
{
	struct label_load *l = xcalloc(1, sizeof(*l));
	int r;

	l->handle = a->handle;
	r = pool_co_label_load(a->p, a->disk, l, e);
	a->is_taken = l->is_taken;
	if (r != -ETIMEDOUT) {
		a->damaged = l->damaged;
		a->rolled_back = l->end_is_blank; /* it was cut short while it was away */
		r = arrival_judge(a, r, &l->label, l->front, e);
	}
	xfree(l);
	return r;
}

/* ---- taking it in ---- */

static bool is_away(const struct pdisk *d)
{
	return d->state == PDISK_ABSENT || d->state == PDISK_FAILED;
}

/* Coroutine. */
static int arrival_co_install(struct arrival *a)
{
	struct ashlar_pool *p = a->p;
	struct pdisk *d = &p->disks[a->disk];
	int r = 0;

	if (a->rolled_back)
		r = pool_co_distrust_disk(p, a->disk, true);
	if (r < 0)
		return r;
	if (a->damaged)
		label_co_mend(a->handle);
	co_mutex_lock(&p->labels);
	CHECK(is_away(d) && !d->dead && (!d->disk || d->disk == a->handle));
	pool_co_publish_missed_all(p, a->disk);
	a->handle->n_volatile++; /* of what is in its cache nobody knows */
	d->disk = p->as->disks[a->disk].disk = a->handle;
	label_disk_set_path(&p->label->disks[a->disk], a->handle->path);
	d->state = PDISK_STALE;
	d->arriving = true;
	d->n_arrivals++;
	d->at_once = false;
	d->lost[0] = d->refused[0] = 0;
	d->labels_seen = 0;
	d->slow_reactors = 0;
	snprintf(d->reason, sizeof(d->reason), "has missed writes");
	r = pool_co_publish_locked(p);
	if (r == 0 && d->state != PDISK_STALE)
		r = -EIO; /* it could not take its label, and is out again */
	if (r == 0) {
		pool_co_set_disk(p, a->disk);
		p->stale_gen++;
		p->disk_gen++;
		p->change_gen++;
		pool_co_publish_missed(p, a->disk);
	}
	d->arriving = false;
	co_mutex_unlock(&p->labels);
	return r;
}

/* ---- refusing ---- */

/* Something is there that is not taken, as opposed to: nothing is. */
static bool is_refusal(int r)
{
	static const int codes[] = { ERR_FOREIGN, ERR_DIVERGED, ERR_FORMAT, ERR_FEATURE, ERR_CSUM, EINVAL, EROFS, EACCES, EPERM };
	size_t i;

	for (i = 0; i < ARRAY_LEN(codes); i++)
		if (r == -codes[i])
			return true;
	return false;
}

/* A list of disks says which one it is about: what the sentence says after that. */
static const char *after_path(const struct ashlar_pool *p, unsigned disk, const char *text)
{
	const char *path = pool_disk_path(p, disk), *at = strstr(text, path);
	size_t name = strlen(p->label->name);

	if (!at)
		return text;
	at += strlen(path);
	if (!strncmp(at, " of pool ", 9) && !strncmp(at + 9, p->label->name, name))
		at += 9 + name;
	return at + strspn(at, ": ");
}

/* Why it is away is, from now on, that it is refused. */
static void refusal_note(struct ashlar_pool *p, unsigned disk, int r, const char *text)
{
	struct pdisk *d = &p->disks[disk];

	if (d->state != PDISK_ABSENT || d->lost[0] || r == 0 || r == -EBUSY)
		return;
	if (is_refusal(r))
		snprintf(d->reason, sizeof(d->reason), "is there, but %.180s", after_path(p, disk, text));
	else if (d->refused[0])
		snprintf(d->reason, sizeof(d->reason), "is not there");
	if (!is_refusal(r))
		d->refused[0] = 0;
}

int pool_co_disk_return(struct ashlar_pool *p, unsigned disk, const char *path, struct err *e)
{
	struct arrival a = { .p = p, .disk = disk };
	struct pdisk *d = &p->disks[disk];
	int r = 0;

	co_mutex_lock(&p->life->returning);
	if (!is_away(d) || p->stopping)
		goto out;
	r = handle_co_get(p, disk, path, &a.handle, e);
	if (r < 0)
		goto out;
	r = arrival_co_check(&a, e);
	if (r == 0)
		r = arrival_co_install(&a);
	if (r == 0) {
		pool_event(p, ASHLAR_INFO, "disk.back", (int)disk, NULL, "disk %s is back and is being brought up to date%s",
			   pool_disk_path(p, disk), a.rolled_back ? "; it is an old copy of itself, or has been cut short: nothing on it is believed" : "");
		pool_co_disk_look(p, disk, true);
		pool_life_kick(p);
	} else if (!a.is_taken && d->disk != a.handle && d->dead != a.handle) {
		disk_close(a.handle);
	}
out:
	err_default(e, r, "taking the disk into service");
	if (!path && e)
		refusal_note(p, disk, r, e->text);
	co_mutex_unlock(&p->life->returning);
	return r;
}

void pool_co_disk_probe(struct ashlar_pool *p, unsigned disk)
{
	struct pdisk *d = &p->disks[disk];
	struct err *e = xcalloc(1, sizeof(*e));
	int r = pool_co_disk_return(p, disk, NULL, e);

	if (is_refusal(r) && strcmp(d->refused, e->text)) { /* once */
		pool_event(p, ASHLAR_WARNING, "disk.refused", (int)disk, NULL, "%s", e->text);
		memcpy(d->refused, e->text, sizeof(d->refused));
	}
	xfree(e);
}
