/*
 * assembly.c: the disks of one pool, opened, locked and judged.
 *
 * Three steps. Scan all paths without locks and choose the pool. Open its disks with locks and read the labels again:
 * only what is read under the lock counts. Judge: who has the newest label, who is current, who missed writes, who is not
 * who he says.
 *
 * Ran apart or only behind? W, the newest label, calls disk D out as of generation g, and D's own label, of generation >= g,
 * calls D online. Then D was written by somebody who did not know that it was out: the two sides ran apart. One history
 * looks the same and is harmless: a crash while label g was written to all disks reached D alone, and the pool then was
 * opened without D. It is told by what D's label says: it has called out nobody since then whom W calls online (whoever runs alone
 * calls the others out first), or it counts on another disk that W counts on as well, which never took it; and no label as new
 * as g that calls D online was ever acknowledged by all (else W's side lost it, by going back to an older copy). Such a D is
 * stale. The same when D had been out since g, was brought up to date, and
 * the label that calls it online again reached D alone.
 *
 * A disk that is being added has nothing on it before every label knows it (disk_add.c). If a crash left its first label on it alone,
 * it is no member: another disk does not know it, and knows all that this label says everybody knew.
 */
#include "engine/base/mutant.h"
#include "engine/pool/assembly.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/units.h"
#include "engine/pool/scan.h"

#define LIST_TEXT 200

/* ---- choosing the pool ---- */

static int none_found(const struct scan *s, const char *name, struct err *e)
{
	char also[300] = "";

	if (s->n_failed)
		text_append(also, sizeof(also), "; %zu could not be used: %s", s->n_failed, s->first.text);
	if (!s->n_paths)
		return err_set(e, -ENOENT, "there are no disks to look at: name the pool's disks or a directory that has them");
	if (name)
		return err_set(e, -ENOENT, "no disk of pool %s is among the %zu path%s looked at: name its disks%s", name, s->n_paths,
			       s->n_paths == 1 ? "" : "s", also);
	return err_set(e, -ENOENT, "no Ashlar pool is on the %zu paths looked at: name the disks of one%s", s->n_paths, also);
}

static int several_found(const struct scan *s, const struct scan_pool *pools, size_t n, const char *name, struct err *e)
{
	char list[LIST_TEXT] = "", uuid[UUID_TEXT_LEN];
	size_t i;

	for (i = 0; i < n; i++) {
		const struct scan_disk *d = &s->v[pools[i].word];

		if (!name || !strcmp(d->label->name, name))
			text_append(list, sizeof(list), "%s%s %s (on %s)", list[0] ? ", " : "", d->label->name,
				    uuid_format(&pools[i].uuid, uuid), d->path);
	}
	if (name)
		return err_set(e, -EEXIST, "several pools are called %s: %s; name the disks of one of them only", name, list);
	return err_set(e, -EINVAL, "the disks belong to several pools: %s; say which pool, or name the disks of one only", list);
}

static int choose_pool(const struct scan *s, const char *name, struct scan_pool *out, struct err *e)
{
	struct scan_pool *pools;
	size_t i, n = scan_pools(s, &pools), hits = 0;
	int r = 0;

	for (i = 0; i < n; i++) {
		if (name && strcmp(s->v[pools[i].word].label->name, name))
			continue;
		*out = pools[i];
		hits++;
	}
	if (hits == 0)
		r = none_found(s, name, e);
	else if (hits > 1)
		r = several_found(s, pools, n, name, e);
	xfree(pools);
	return r;
}

/* ---- opening under the lock ---- */

/* Disks of the chosen pool, open. */
struct members {
	struct scan_disk *v;
	size_t n;
	size_t word; /* index of the newest label */
};

static void members_fini(struct members *m)
{
	size_t i;

	for (i = 0; i < m->n; i++)
		scan_disk_fini(&m->v[i]);
	xfree(m->v);
	m->v = NULL;
	m->n = 0;
}

static int members_co_open(struct world *w, const struct scan *s, const struct scan_pool *p, unsigned flags, struct members *m,
			   struct err *e)
{
	const char *name = s->v[p->word].label->name;
	size_t i;
	int r;

	m->v = xcalloc(s->n + 1, sizeof(*m->v));
	for (i = 0; i < s->n; i++) {
		struct scan_disk *d = &m->v[m->n];

		if (!uuid_is_equal(&s->v[i].label->pool, &p->uuid))
			continue;
		r = scan_disk_co_open(w, s->v[i].path, flags, d, e);
		if (r == -ERR_LOCKED || r == -EACCES || r == -EPERM || r == -EROFS) {
			err_prefix(e, "pool %s cannot be opened: ", name);
			return r;
		}
		if (r < 0)
			continue; /* gone since the scan */
		if (!uuid_is_equal(&d->label->pool, &p->uuid)) {
			scan_disk_fini(d);
			continue;
		}
		d->end_is_blank = d->result == 0 && label_co_end_is_blank(d->disk, d->label);
		m->n++;
	}
	return m->n ? 0 : err_set(e, -ENOENT, "the disks of pool %s vanished while they were opened: try again", name);
}

/* ---- judging ---- */

static int check_features(const struct members *m, struct err *e)
{
	size_t i;

	for (i = 0; i < m->n; i++) {
		if (m->v[i].result == 0)
			continue;
		if (e)
			*e = m->v[i].why;
		return m->v[i].result;
	}
	return 0;
}

static int check_duplicates(const struct members *m, struct err *e)
{
	size_t i, k;

	for (i = 0; i < m->n; i++)
		for (k = 0; k < i; k++)
			if (uuid_is_equal(&m->v[i].label->disk, &m->v[k].label->disk))
				return err_set(e, -ERR_DUPLICATE,
					       "%s and %s carry the identity of the same disk of pool %s (label generations %" PRIu64
					       " and %" PRIu64 "): one is a copy of the other; name only the true one",
					       m->v[k].path, m->v[i].path, m->v[i].label->name, m->v[k].label->generation,
					       m->v[i].label->generation);
	return 0;
}

/* Index in the label's disk table, -1: not of this pool (any more). */
static int find_entry(const struct label *l, const struct uuid *disk)
{
	unsigned i;

	for (i = 0; i < l->n_disks; i++)
		if (l->disks[i].state != LABEL_DISK_FREE && uuid_is_equal(&l->disks[i].uuid, disk))
			return (int)i;
	return -1;
}

/* See the top of this file. own is the label of a disk that word calls OUT. */
static bool ran_apart(const struct label *word, unsigned i, const struct label *own)
{
	/* What is older than both is common history. */
	uint64_t out = word->disks[i].since_generation, base = MAX(out, own->disks[own->disk_index].since_generation);
	bool alone = false, together = false;
	unsigned k;
	int at;

	if (own->generation < out || own->disks[own->disk_index].state != LABEL_DISK_ONLINE)
		return false;
	for (k = 0; k < word->n_disks; k++) {
		if (word->disks[k].state != LABEL_DISK_ONLINE)
			continue;
		at = find_entry(own, &word->disks[k].uuid);
		if (at < 0)
			continue; /* it has joined since: that tells nothing */
		alone |= own->disks[at].state != LABEL_DISK_ONLINE && own->disks[at].since_generation >= base;
		together |= own->disks[at].state == LABEL_DISK_ONLINE;
	}
	return (alone && !together) || own->acked_generation >= base;
}

/* Is the label of disk k a leftover of a crash that nobody else got, overtaken since? Another one calls its disk out, and
 * nothing ever relied on it. */
static bool is_leftover(const struct members *m, size_t k)
{
	const struct label *own = m->v[k].label;
	size_t i;
	int at;

	for (i = 0; i < m->n; i++) {
		const struct label *other = m->v[i].label;

		if (i == k)
			continue;
		at = find_entry(other, &own->disk);
		if (at < 0 && other->generation >= own->acked_generation)
			return true;
		if (at < 0 || other->disks[at].state != LABEL_DISK_OUT || other->generation < own->acked_generation)
			continue; /* (the latter: it knows less than all once did) */
		if (own->disks[own->disk_index].state == LABEL_DISK_ONLINE && !ran_apart(other, (unsigned)at, own))
			return true;
	}
	return false;
}

/* The newest label that is not a leftover: one such may be as new as the true one, or newer. */
static void find_word(struct members *m)
{
	bool have = false;
	size_t i;

	for (m->word = 0, i = 0; i < m->n; i++) {
		if (is_leftover(m, i) || (have && m->v[i].label->generation <= m->v[m->word].label->generation))
			continue;
		m->word = i;
		have = true;
	}
}

/* Its label is good, and nothing can be stored on it as it is now: what is wrong, and what to do. */
static int check_device(const struct scan_disk *d, const struct label *word, unsigned i, char why[ASSEMBLY_WHY_BYTES])
{
	uint64_t want = MAX(word->disks[i].size_bytes, d->label->disks[d->label->disk_index].size_bytes);
	char has[16], wants[16];

	why[0] = 0;
	if (d->size_bytes < want) {
		snprintf(why, ASSEMBLY_WHY_BYTES, "has %" PRIu64 " bytes (%s), but its label says %" PRIu64 " (%s): it was cut short, or "
			 "copied to a smaller disk; give it its size back, or replace it", d->size_bytes,
			 size_format(d->size_bytes, has, sizeof(has)), want, size_format(want, wants, sizeof(wants)));
		return -ERR_FORMAT;
	}
	if (d->block_bytes > word->block_bytes) {
		snprintf(why, ASSEMBLY_WHY_BYTES, "has blocks of %u bytes now, and the pool was made for %u: attach it as it was before",
			 d->block_bytes, word->block_bytes);
		return -EINVAL;
	}
	return 0;
}

int assembly_check_return(const struct label *word, unsigned i, const struct label *own, const struct disk *d, struct err *e)
{
	struct scan_disk sd = { .path = d->path, .size_bytes = d->bdev.size_bytes, .block_bytes = d->bdev.block_bytes,
				.label = (struct label *)(uintptr_t)own };
	char why[ASSEMBLY_WHY_BYTES];
	int r;

	if (own->generation > word->generation || ran_apart(word, i, own))
		return err_set(e, -ERR_DIVERGED,
			       "disk %s was in use without the rest of pool %s (generation %" PRIu64 ", the pool has %" PRIu64
			       " and went on without it as of %" PRIu64 "): what it has differs from what the pool has; wipe it, and add "
			       "it as a new disk", d->path, word->name, own->generation, word->generation,
			       word->disks[i].since_generation);
	r = check_device(&sd, word, i, why);
	return r < 0 ? err_set(e, r, "disk %s of pool %s %s", d->path, word->name, why) : 0;
}

/* Names both sides. */
static int refuse_diverged(const struct members *m, struct err *e)
{
	const struct label *word = m->v[m->word].label;
	char ours[LIST_TEXT / 2] = "", theirs[LIST_TEXT / 2] = "";
	size_t i;
	int at;

	for (i = 0; i < m->n; i++) {
		const struct scan_disk *d = &m->v[i];
		bool apart;

		at = find_entry(word, &d->label->disk);
		if (at < 0)
			continue;
		apart = word->disks[at].state == LABEL_DISK_OUT && ran_apart(word, (unsigned)at, d->label);
		if (!apart && word->disks[at].state != LABEL_DISK_ONLINE)
			continue;
		text_append(apart ? theirs : ours, LIST_TEXT / 2, "%s%s (generation %" PRIu64 ")", (apart ? theirs : ours)[0] ? ", " : "",
			    d->path, d->label->generation);
	}
	return err_set(e, -ERR_DIVERGED,
		       "the disks of pool %s ran apart: %s on one side, %s on the other, each have changes that the other lacks; decide "
		       "which side to keep and open the pool with its disks only; the others can be wiped and added again then",
		       word->name, ours, theirs);
}

static int place_disk(struct members *m, struct scan_disk *d, struct assembly *a, struct err *e)
{
	const struct label *word = m->v[m->word].label;
	int at = find_entry(word, &d->label->disk), r;
	struct assembly_disk *ad;

	if (at < 0)
		return 0; /* was taken out of the pool: members_fini() closes it */
	if (word->disks[at].state == LABEL_DISK_OUT && ran_apart(word, (unsigned)at, d->label))
		return refuse_diverged(m, e);
	ad = &a->disks[at];
	label_disk_set_path(&a->label.disks[at], d->path);
	r = check_device(d, word, (unsigned)at, ad->why);
	ad->is_doubtful = r == -ERR_FORMAT || d->end_is_blank;
	if (r < 0)
		return 0; /* as if it were not there; members_fini() closes it */
	ad->own_generation = d->label->generation;
	if (MUTANT(STALE_IS_CURRENT))
		ad->state = ASM_ONLINE;
	else if (word->disks[at].state == LABEL_DISK_ONLINE && ad->own_generation >= word->acked_generation)
		ad->state = ASM_ONLINE;
	else
		ad->state = ASM_STALE;
	ad->disk = d->disk;
	ad->damaged = d->damaged;
	a->n_present++;
	return 0;
}

static int judge(struct members *m, struct assembly *a, struct err *e)
{
	size_t i;
	int r = check_features(m, e);

	if (r < 0)
		return r;
	r = check_duplicates(m, e);
	if (r < 0)
		return r;
	find_word(m);
	a->label = *m->v[m->word].label;
	for (i = 0; i < m->n; i++) {
		r = place_disk(m, &m->v[i], a, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The disks that were placed are the assembly's now. */
static void hand_over(struct members *m, const struct assembly *a)
{
	size_t i;
	unsigned k;

	for (i = 0; i < m->n; i++)
		for (k = 0; k < a->label.n_disks; k++)
			if (m->v[i].disk && a->disks[k].disk == m->v[i].disk)
				m->v[i].disk = NULL;
}

static bool needs_read_only(const struct label *l) { return (l->ro_compat & ~LABEL_RO_COMPAT_KNOWN) != 0; }

static int open_and_judge(struct world *w, const struct scan *s, const struct scan_pool *p, struct assembly *a, struct err *e)
{
	struct members m = { 0 };
	int r = members_co_open(w, s, p, a->read_only ? DISK_RDONLY : 0, &m, e);

	if (r == 0)
		r = judge(&m, a, e);
	if (r == 0 && !a->read_only && needs_read_only(&a->label))
		r = err_set(e, -EAGAIN, "pool %s was changed while it was opened: try again", a->label.name);
	if (r == 0)
		hand_over(&m, a);
	members_fini(&m);
	return r;
}

int assembly_co_open(struct world *w, const char *name, const char *const *paths, size_t n_paths, bool read_only,
		     struct assembly *a, struct err *e)
{
	struct scan_pool p = { 0 };
	struct scan *s = xcalloc(1, sizeof(*s));
	int r;

	memset(a, 0, sizeof(*a));
	r = scan_co_run(w, paths, n_paths, s, e);
	if (r < 0)
		goto out_free;
	r = choose_pool(s, name, &p, e);
	if (r < 0)
		goto out_scan;
	a->read_only = read_only || needs_read_only(s->v[p.word].label);
	r = open_and_judge(w, s, &p, a, e);
	if (r < 0)
		memset(a, 0, sizeof(*a));
out_scan:
	scan_fini(s);
out_free:
	xfree(s);
	return r;
}

void assembly_close(struct assembly *a)
{
	unsigned i;

	for (i = 0; i < LABEL_DISKS_MAX; i++) {
		if (a->disks[i].disk)
			disk_close(a->disks[i].disk);
		a->disks[i] = (struct assembly_disk){ 0 };
	}
	a->n_present = 0;
}
