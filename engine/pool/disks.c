/*
 * disks.c: commands on disks: taking one out, bringing one back.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/pool/leave.h"

#define ONLINE_WAIT_NS (3 * NS_PER_SEC)

/* ---- which one is meant ---- */

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static bool is_number(const char *text)
{
	return text[0] && strspn(text, "0123456789") == strlen(text) && strlen(text) < 6;
}

/* In this order: path, uuid, index, last part of the path if only one disk has it. */
int pool_disk_find(struct ashlar_pool *p, const char *name, unsigned *out, struct err *e)
{
	char uuid[UUID_TEXT_LEN];
	unsigned i, n = 0;

	for (i = 0; i < p->n_disks; i++) {
		if (p->label->disks[i].state == LABEL_DISK_FREE)
			continue;
		if (!strcmp(pool_disk_path(p, i), name) || !strcmp(uuid_format(&p->label->disks[i].uuid, uuid), name)) {
			*out = i;
			return 0;
		}
	}
	if (is_number(name) && (unsigned)atoi(name) < p->n_disks && p->label->disks[atoi(name)].state != LABEL_DISK_FREE) {
		*out = (unsigned)atoi(name);
		return 0;
	}
	for (i = 0; i < p->n_disks; i++) {
		if (p->label->disks[i].state == LABEL_DISK_FREE || strcmp(last_part(pool_disk_path(p, i)), name))
			continue;
		*out = i;
		n++;
	}
	if (n == 1)
		return 0;
	if (n > 1)
		return err_set(e, -EINVAL, "pool %s has %u disks called %.100s: give the whole path, or the index", p->label->name, n, name);
	return err_set(e, -ENOENT, "pool %s has no disk %.100s: `disk list` shows those it has", p->label->name, name);
}

/* ---- what would be left ---- */

struct left {
	struct ashlar_pool *p;
	unsigned disk;
	int least; /* over all groups that promise any: further disks that may be lost */
	uint64_t n_lost, n_single; /* groups that cannot be read then; of these, without redundancy by choice */
};

static bool col_is_left(const struct left *l, const struct pool_group_disk *rec, unsigned col)
{
	unsigned disk = le16_get(rec->cols[col].disk);

	return disk != l->disk && l->p->disks[disk].state == PDISK_ONLINE;
}

static int left_group(void *arg, const struct pool_group_disk *rec)
{
	struct left *l = arg;
	int tolerates = (int)raid_profile_tolerates((struct raid_profile){ rec->layout, rec->copies }), left, set_left;
	unsigned i, k;

	if (pool_layout_is_parity(rec->layout)) {
		for (left = tolerates, i = 0; i < rec->n_cols; i++)
			left -= !col_is_left(l, rec, i);
	} else {
		for (left = tolerates, i = 0; i < rec->n_cols; i += rec->copies) {
			for (set_left = -1, k = i; k < i + rec->copies && k < rec->n_cols; k++)
				set_left += col_is_left(l, rec, k);
			left = MIN(left, set_left);
		}
	}
	l->n_lost += left < 0;
	l->n_single += left < 0 && !tolerates;
	if (tolerates)
		l->least = MIN(l->least, left);
	return 0;
}

/* Coroutine. A sentence about it. False: nothing redundant would be lost. */
static bool left_co_say(struct ashlar_pool *p, unsigned disk, char *text, size_t len)
{
	struct left l = { .p = p, .disk = disk, .least = RAID_COPIES_MAX };
	const char *path = pool_disk_path(p, disk);
	int r = pool_co_each_group(p, left_group, &l);

	if (r < 0)
		snprintf(text, len, "what would be left without disk %s cannot be told: the group table cannot be read", path);
	else if (l.n_lost > l.n_single)
		snprintf(text, len, "without disk %s data would be lost: %llu groups have no other copy that is up to date", path,
			 (unsigned long long)(l.n_lost - l.n_single));
	else if (l.n_single)
		snprintf(text, len, "without disk %s volumes without redundancy may lose what they have there (%llu groups)", path,
			 (unsigned long long)l.n_single);
	else if (l.least == 0)
		snprintf(text, len, "without disk %s no data is lost, but no further disk may be lost until it has been rebuilt", path);
	else
		snprintf(text, len, "without disk %s no data is lost, and %d more may be lost", path, l.least);
	return r < 0 || l.n_lost > l.n_single;
}

/* ---- commands ---- */

int ashlar_co_disk_fail(struct ashlar_pool *p, const char *disk, bool force, bool dry_run, struct err *e)
{
	char text[300];
	bool needed;
	unsigned i;
	int r = pool_disk_find(p, disk, &i, e);

	if (r < 0)
		return r;
	if (p->read_only)
		return err_set(e, -EROFS, "pool %s is open read-only", p->label->name);
	needed = left_co_say(p, i, text, sizeof(text));
	if (needed && !force)
		return err_set(e, -EBUSY, "%s: use --force if that is what you want", text);
	if (dry_run) {
		if (e)
			snprintf(e->text, sizeof(e->text), "%s", text);
		return 0;
	}
	r = pool_co_disk_fail(p, i, force, &needed);
	if (r == -EBUSY && needed)
		return err_set(e, r, "disk %s holds what is on no other disk, or has not been flushed yet: flush the volumes, and try "
			       "again, or use --force", pool_disk_path(p, i));
	if (r < 0)
		return err_set(e, r, "disk %s is out, but the labels could not be written: %s", pool_disk_path(p, i), err_text(r));
	return 0;
}

int ashlar_co_disk_online(struct ashlar_pool *p, const char *disk, const char *path, struct err *e)
{
	uint64_t end = reactor_now_ns() + ONLINE_WAIT_NS;
	unsigned i;
	int r = pool_disk_find(p, disk, &i, e);

	if (r < 0)
		return r;
	if (p->read_only)
		return err_set(e, -EROFS, "pool %s is open read-only", p->label->name);
	r = pool_co_disk_stay(p, i, e);
	if (r < 0)
		return r;
	for (;;) {
		r = pool_co_disk_return(p, i, path, e);
		if (r != -EBUSY || reactor_now_ns() >= end)
			return r;
		co_sleep_ns(20 * NS_PER_MS); /* what it was asked before is still on its way, as a rule for a moment */
	}
}
