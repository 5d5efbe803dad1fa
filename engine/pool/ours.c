/*
 * ours.c: is a disk that answers still ours?
 *
 * Somebody may be writing over it (dd, mkfs, another machine) or have cut its file short, and nothing it answers says so. The
 * label tells: the first page of each slot, in the front area and the tail. A slot that has been seen with our label (magic,
 * uuids of pool and disk; a few flipped bits are no stranger) and has it no longer is a sign. One alone may be a write that
 * went astray; two, or the very first, where everybody begins, are somebody else. Then the disk is *lost*: it is given up
 * as if it had vanished.
 *
 * A label that we write ourselves destroys such signs, and makes a disk that has been written over look good to the next
 * opening; one in the tail makes a file that has been cut short as long as it was, with zeros in the middle. So before each
 * round of labels the size, the slot to be overwritten and the first slot are looked at (pool_co_labels_guard()), and a lost
 * disk gets no label any more. What was overwritten before a round is found by it; so between rounds the slot whose turn is
 * next tells, and that is what a read with zeros in it asks for (pool_co_disk_verify()).
 *
 * A label with our uuids that is newer than any we have written, in both areas, is a second daemon's that has opened the pool, as only
 * disks without locks allow (remote ones). One of the two must stop before both have destroyed everything: it is we, who notice.
 *
 * A lost disk may come back (somebody has seen his mistake, a file has been made long again). Nobody knows what is missing, so the
 * pool's label says that nothing on it is believed (acked_generation).
 */
#include <stdio.h>
#include <string.h>

#include "engine/base/units.h"
#include "engine/pool/life.h"

#define PEEK_NS NS_PER_SEC
#define AGAIN_NS (10 * NS_PER_SEC)
#define FLIPPED_MAX 8 /* bits of magic and uuids */
#define FRONT 1U      /* places: slots of the front area, then of the tail */
#define PLACES (2 * LABEL_SLOTS)
#define ALL_PLACES ((1U << PLACES) - 1)

static bool is_in_use(const struct pdisk *d)
{
	return d->disk && (d->state == PDISK_ONLINE || d->state == PDISK_STALE);
}

/* ---- one look ---- */

struct look {
	uint32_t ours, others, unread; /* a bit per place */
	int error;		       /* of the last that could not be read */
	uint64_t newer[2];	       /* front, tail: generation of a label that we have not written */
	char what[80];		       /* is there instead */
};

static unsigned bits_differ(const void *a, const void *b, size_t len)
{
	const uint8_t *x = a, *y = b;
	unsigned n = 0;

	while (len--)
		n += (unsigned)__builtin_popcount(*x++ ^ *y++);
	return n;
}

static bool page_is_zero(const uint8_t *page)
{
	return !page[0] && !memcmp(page, page + 1, LABEL_READ_BYTES - 1);
}

static void place_judge(const struct ashlar_pool *p, unsigned disk, unsigned place, const void *page, struct look *k)
{
	const struct label_header_disk *h = page;
	const struct uuid *uuid = &p->label->disks[disk].uuid;
	uint64_t generation = le64_get(h->generation);
	unsigned magic = bits_differ(h->magic, LABEL_MAGIC, sizeof(h->magic)), pool = bits_differ(&h->pool, &p->label->pool, sizeof(h->pool));

	if (magic + pool + bits_differ(&h->disk, uuid, sizeof(*uuid)) <= FLIPPED_MAX) {
		k->ours |= 1U << place;
		if (p->sent_generation && generation > p->sent_generation && generation % LABEL_SLOTS == place % LABEL_SLOTS)
			k->newer[place / LABEL_SLOTS] = MAX(k->newer[place / LABEL_SLOTS], generation);
		return;
	}
	k->others |= 1U << place;
	if (!k->what[0])
		snprintf(k->what, sizeof(k->what), "%s", page_is_zero(page) ? "its label has been overwritten with zeros" :
			 magic ? "its label has been overwritten" : pool ? "it carries the label of another pool now" :
			 "it carries the label of another disk of the pool now");
}

/* Coroutine. -ENODEV, -ETIMEDOUT: it is no use to go on. */
static int places_co_look(struct ashlar_pool *p, unsigned disk, uint32_t places, uint64_t max_ns, struct look *k)
{
	const struct pdisk *d = &p->disks[disk];
	const struct disk *handle = d->disk;
	uint64_t tail = label_tail_off(p->label->disks[disk].size_bytes);
	void *page = xmalloc(LABEL_READ_BYTES);
	int r = handle ? 0 : -ENODEV;
	unsigned i;

	memset(k, 0, sizeof(*k));
	for (i = 0; i < PLACES && r == 0; i++) {
		if (!(places >> i & 1))
			continue;
		r = d->disk == handle ? pool_co_label_peek(p, disk, (i / LABEL_SLOTS ? tail : 0) + i % LABEL_SLOTS * LABEL_SLOT_BYTES, page,
							  max_ns) : -ENODEV;
		if (r == 0) {
			place_judge(p, disk, i, page, k);
		} else if (r != -ENODEV && r != -ENXIO && r != -ETIMEDOUT) {
			k->unread |= 1U << i;
			k->error = r;
			r = 0;
		}
	}
	xfree(page);
	return r == -ENXIO ? -ENODEV : r;
}

/* ---- what follows ---- */

struct lost {
	struct ashlar_pool *p;
	unsigned disk;
};

/* Has the pool refused to do without it, and nothing has changed since? */
static bool is_needed(const struct ashlar_pool *p, const struct pdisk *d)
{
	return d->needed_ns && d->needed_gen == p->change_gen && reactor_now_ns() < d->needed_ns + AGAIN_NS;
}

static void note_needed(const struct ashlar_pool *p, struct pdisk *d, bool needed)
{
	d->needed_gen = p->change_gen;
	d->needed_ns = needed ? reactor_now_ns() : 0;
}

/* Coroutine. */
static void lost_co_out(struct ashlar_pool *p, unsigned disk)
{
	struct pdisk *d = &p->disks[disk];

	if ((is_in_use(d) || (d->state == PDISK_FAILED && d->disk)) && !is_needed(p, d))
		note_needed(p, d, pool_co_disk_vanished(p, disk, d->lost) < 0);
	if (is_in_use(d) || !d->lost[0] || d->at_once)
		return;
	d->at_once = true;
	pool_life_kick(p);
}

static void lost_co_main(void *arg)
{
	struct lost *l = arg;

	lost_co_out(l->p, l->disk);
	pool_life_leave(l->p);
	xfree(l);
}

/* Somebody else puts it out: whoever has found this may hold what that needs. */
static void disk_lose(struct ashlar_pool *p, unsigned disk, const char *why)
{
	struct lost *l;

	if (p->disks[disk].lost[0])
		return;
	snprintf(p->disks[disk].lost, sizeof(p->disks[disk].lost), "%s", why);
	p->disks[disk].needed_ns = 0;
	if (p->stopping)
		return;
	l = xcalloc(1, sizeof(*l));
	l->p = p;
	l->disk = disk;
	pool_life_spawn(p, lost_co_main, l, "lost disk");
}

/* ---- the questions ---- */

/* Coroutine. As disk_co_alive(), but -EUCLEAN: it is lost. */
static int size_co_check(struct ashlar_pool *p, unsigned disk, struct err *e)
{
	struct pdisk *d = &p->disks[disk];
	struct disk *handle = d->disk;
	int r;

	if (!handle)
		return err_set(e, -ENODEV, "it is gone");
	r = disk_co_alive(handle, p->label->disks[disk].size_bytes, e);
	if (d->disk != handle || r != -EIO)
		return d->disk == handle ? r : 0;
	disk_lose(p, disk, e->text);
	return -EUCLEAN;
}

static int shut_here(void *arg)
{
	raid_shut(pool_here(arg)->raid);
	return 0;
}

void pool_co_shut(struct ashlar_pool *p)
{
	pool_co_each_reactor(p, shut_here, p);
}

/* Coroutine. What clients write now would be found by the other one's clients, or not, and destroy what is theirs. */
static void shut_co_main(void *arg)
{
	struct ashlar_pool *p = arg;

	pool_co_shut(p);
	pool_life_leave(p);
}

static void stranger_stop(struct ashlar_pool *p, unsigned disk, uint64_t generation)
{
	char why[200];

	if (p->has_stranger || !p->meta)
		return;
	p->has_stranger = true;
	snprintf(why, sizeof(why), "another daemon has it open: disk %.60s has label %llu, and ours is %llu; stop the other one first",
		 pool_disk_path(p, disk), (unsigned long long)generation, (unsigned long long)p->sent_generation);
	meta_fail(p->meta, -ERR_LOCKED, why);
	if (!p->stopping)
		pool_life_spawn(p, shut_co_main, p, "stop");
}

/* Coroutine. -EUCLEAN: it is lost; -ENODEV, -ETIMEDOUT; -EIO: nothing of it can be read where its label would be. Else 0. */
static int label_co_check(struct ashlar_pool *p, unsigned disk, uint32_t places, uint64_t max_ns)
{
	struct pdisk *d = &p->disks[disk];
	const struct disk *handle = d->disk;
	uint32_t gone, front = (1U << LABEL_SLOTS) - 1, seen = d->labels_seen; /* before: a slow read may be older than a label that is there now */
	struct look k = { 0 };
	int r = places_co_look(p, disk, places, max_ns, &k);

	if (r == 0 && places != ALL_PLACES && (k.others | k.unread))
		r = places_co_look(p, disk, ALL_PLACES, max_ns, &k);
	if (d->lost[0])
		return -EUCLEAN;
	if (r < 0 || d->disk != handle)
		return r;
	if (k.newer[0] && k.newer[0] == k.newer[1])
		stranger_stop(p, disk, k.newer[0]);
	if (k.error && !(k.ours | k.others))
		return -EIO;
	gone = k.others & d->labels_seen & seen;
	if (gone & FRONT || gone & (gone - 1) || (k.others & front) == front) {
		disk_lose(p, disk, k.what);
		return -EUCLEAN;
	}
	d->labels_seen = (d->labels_seen & ~gone) | k.ours;
	return 0;
}

static uint32_t place_of(uint64_t generation)
{
	return 1U << generation % LABEL_SLOTS;
}

/* The first slot, unless it is the one written last; else the one written longest ago. */
static uint32_t telling_place(const struct ashlar_pool *p, const struct pdisk *d)
{
	uint64_t g = p->label->generation;
	unsigned i;

	if (g % LABEL_SLOTS && d->labels_seen & FRONT)
		return FRONT;
	for (i = 1; i <= LABEL_SLOTS; i++)
		if (d->labels_seen & place_of(g + i))
			return place_of(g + i);
	return ALL_PLACES;
}

/* Coroutine. What a look has brought that is no loss. */
static void failed_co_out(struct ashlar_pool *p, unsigned disk, int error, const char *why)
{
	int r;

	if (is_needed(p, &p->disks[disk]))
		return;
	if (error == -ENODEV)
		r = pool_co_disk_vanished(p, disk, why);
	else if (error == -ETIMEDOUT)
		r = pool_co_disk_error(p, disk, IO_READ, error);
	else
		r = pool_co_disk_out(p, disk, error, why);
	note_needed(p, &p->disks[disk], r < 0);
}

int pool_co_disk_verify(struct ashlar_pool *p, unsigned disk)
{
	struct pdisk *d = &p->disks[disk];
	struct err e = { 0 };
	int r;

	if (!p->started)
		return 0;
	if (!is_in_use(d)) /* it has just gone out, and not all instances know */
		return -ENODEV;
	r = d->lost[0] ? -EUCLEAN : size_co_check(p, disk, &e);
	if (r == -ENOENT || (r == 0 && is_in_use(d))) /* a deleted file is as good as before as long as it is open */
		r = label_co_check(p, disk, telling_place(p, d), p->settings.timeout_ns);
	if (r == -ENODEV || r == -ETIMEDOUT || r == -EIO)
		failed_co_out(p, disk, r, r == -EIO ? "its label cannot be read" : "it is gone");
	return r || !is_in_use(d) ? -ENODEV : 0;
}

void pool_co_disk_look(struct ashlar_pool *p, unsigned disk, bool label)
{
	struct pdisk *d = &p->disks[disk];
	uint64_t late_ns = pool_own_late_ns(p, disk);
	struct err e = { 0 };
	int r;

	if (d->lost[0])
		lost_co_out(p, disk);
	if (!d->disk || d->lost[0])
		return;
	r = size_co_check(p, disk, &e);
	if (r == 0 && is_in_use(d) && late_ns >= p->settings.timeout_ns)
		r = -ETIMEDOUT;
	if (r == 0 && is_in_use(d) && label && late_ns < PEEK_NS) {
		r = label_co_check(p, disk, ALL_PLACES, PEEK_NS);
		if (r == -ETIMEDOUT)
			return; /* give it time */
		if (r < 0)
			err_set(&e, r, r == -EIO ? "its label cannot be read" : "it is gone");
	}
	if (r == -ENODEV || (r < 0 && r != -EUCLEAN && is_in_use(d)))
		failed_co_out(p, disk, r, e.text);
	if (r == 0 && d->needed_ns) { /* it has come to itself */
		d->needed_ns = 0;
		if (d->state == PDISK_ONLINE)
			d->reason[0] = 0;
	}
}

/* ---- one that was lost is back ---- */

int pool_lost_check(const struct ashlar_pool *p, unsigned disk, const void *page, struct err *e)
{
	struct look k = { 0 };

	place_judge(p, disk, 0, page, &k);
	if (k.ours)
		return 0;
	return err_set(e, -ERR_FOREIGN, "disk %s: %s; wipe it, and add it as a new disk", pool_disk_path(p, disk), k.what);
}

/* ---- before labels are written ---- */

struct guard {
	struct ashlar_pool *p;
	unsigned disk;
	struct co_join *join;
};

static void guard_co_main(void *arg)
{
	const struct guard *g = arg;
	struct ashlar_pool *p = g->p;
	struct pdisk *d = &p->disks[g->disk];
	uint32_t next = place_of(p->label->generation);
	struct err e = { 0 };

	if (size_co_check(p, g->disk, &e) != -EUCLEAN && d->disk)
		(void)!label_co_check(p, g->disk, d->labels_seen & (FRONT | next | next << LABEL_SLOTS), PEEK_NS);
	co_join_done(g->join, 0);
}

void pool_co_labels_guard(struct ashlar_pool *p)
{
	struct guard *v = xcalloc(LABEL_DISKS_MAX, sizeof(*v));
	struct co_join join;
	unsigned i;
	int r;

	co_join_init(&join);
	for (i = 0; i < p->n_disks; i++) {
		const struct pdisk *d = &p->disks[i];

		if (!d->disk || !d->labels_seen || d->lost[0] || pool_own_late_ns(p, i) >= PEEK_NS)
			continue;
		v[i] = (struct guard){ p, i, &join };
		co_join_add(&join);
		co_spawn(CO_SERVICE, guard_co_main, &v[i], "label guard");
	}
	r = co_join_wait(&join);
	CHECK(r == 0);
	xfree(v);
}
