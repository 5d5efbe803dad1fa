/*
 * balance.c: which columns move so that all disks are about equally full.
 *
 * The measure is the share of a disk's extents that groups have. Columns go from disks above the average to disks below it, and only
 * if the one that gives is, after the move, at least as full as the one that takes. So every move lessens the sum of squares of the
 * differences: nothing goes to and fro, and there is an end, at which disks differ by less than a column, or what is fuller has
 * no column that could lie where there is room (two columns of a group are never brought together).
 *
 * First of all, metadata and logs get as many copies, on as many disks, as a new pool of so many disks would have.
 *
 * The whole plan is made in thought, on a copy of the counters, from one walk over the group table.
 */
#include <string.h>

#include "engine/pool/leave.h"

#define PASSES_MAX 32

struct bgroup {
	uint64_t group;
	uint32_t extents; /* of a column */
	uint8_t kind, layout, copies, n_cols;
	uint16_t disks[RAID_COLS_MAX];
};

struct balance {
	struct ashlar_pool *p;
	uint64_t used[LABEL_DISKS_MAX], size[LABEL_DISKS_MAX]; /* size 0: not taken into account */
	uint64_t all_used, all_size;
	unsigned n_disks;
	struct bgroup *groups;
	size_t n, cap;
	struct balance_move *moves;
	size_t n_moves, moves_cap;
};

static bool takes_part(const struct ashlar_pool *p, unsigned disk)
{
	const struct pdisk *d = &p->disks[disk];

	return d->state == PDISK_ONLINE && !d->leaving && !d->joining;
}

static bool helps(uint64_t n, uint64_t used_from, uint64_t size_from, uint64_t used_to, uint64_t size_to)
{
	return used_from >= n && size_from && size_to && used_to + n <= size_to &&
	       (unsigned __int128)(used_from - n) * size_to >= (unsigned __int128)(used_to + n) * size_from;
}

bool pool_balance_helps(struct ashlar_pool *p, uint64_t n, unsigned from, unsigned to)
{
	const struct pdisk *f = &p->disks[from], *t = &p->disks[to];

	pool_space_expire(p); /* what has been applied is not counted twice */
	return takes_part(p, from) && takes_part(p, to) && helps(n, f->used, f->extents, t->used, t->extents);
}

/* ---- the group table ---- */

static int gather(void *arg, const struct pool_group_disk *rec)
{
	struct balance *b = arg;
	struct bgroup *g;
	unsigned c;

	if (rec->n_cols > RAID_COLS_MAX)
		return -ERR_FORMAT;
	if (rec->kind == THIN_GROUP_META && pool_label_meta_find(b->p->label, le64_get(rec->group)) < 0)
		return 0; /* a crash has left it without a name: it is nobody's, and goes when its disks do */
	if (b->n == b->cap) {
		b->cap = MAX(2 * b->cap, 256);
		b->groups = xrealloc(b->groups, b->cap * sizeof(*b->groups));
	}
	g = &b->groups[b->n++];
	*g = (struct bgroup){ .group = le64_get(rec->group), .kind = rec->kind, .layout = rec->layout, .copies = rec->copies,
			      .n_cols = rec->n_cols,
			      .extents = (uint32_t)(le64_get(rec->col_bytes) / b->p->label->extent_bytes) };
	for (c = 0; c < rec->n_cols; c++) {
		g->disks[c] = le16_get(rec->cols[c].disk);
		if (g->disks[c] >= b->p->n_disks)
			return -ERR_FORMAT;
	}
	return 0;
}

static void balance_init(struct balance *b, struct ashlar_pool *p)
{
	unsigned i;

	pool_space_expire(p);
	b->p = p;
	b->n_disks = p->n_disks;
	for (i = 0; i < p->n_disks; i++) {
		if (!takes_part(p, i))
			continue;
		b->size[i] = p->disks[i].extents;
		b->used[i] = p->disks[i].used;
		b->all_size += b->size[i];
		b->all_used += b->used[i];
	}
}

/* ---- moves ---- */

static int move_add(struct balance *b, const struct bgroup *g, unsigned from, unsigned to)
{
	struct raid_desc *d;
	uint64_t bytes;
	int r;

	if (b->n_moves == b->moves_cap) {
		b->moves_cap = MAX(2 * b->moves_cap, 64);
		b->moves = xrealloc(b->moves, b->moves_cap * sizeof(*b->moves));
	}
	d = xcalloc(1, sizeof(*d));
	d->group = g->group;
	d->layout = g->layout;
	d->copies = g->copies;
	d->n_cols = g->n_cols;
	d->size_bytes = b->p->label->group_bytes;
	r = pool_co_column_bytes(b->p, g->kind, d, &bytes);
	xfree(d);
	if (r == 0)
		b->moves[b->n_moves++] = (struct balance_move){ g->group, bytes, (uint16_t)from, (uint16_t)to };
	return r;
}

/* Compares with the average: above > 0, below < 0. */
static int against_average(const struct balance *b, unsigned disk)
{
	unsigned __int128 x = (unsigned __int128)b->used[disk] * b->all_size, y = (unsigned __int128)b->all_used * b->size[disk];

	return x > y ? 1 : x < y ? -1 : 0;
}

static bool is_fuller(const struct balance *b, unsigned x, unsigned y)
{
	return (unsigned __int128)b->used[x] * b->size[y] > (unsigned __int128)b->used[y] * b->size[x];
}

static bool has_disk(const struct bgroup *g, unsigned disk)
{
	unsigned c;

	for (c = 0; c < g->n_cols; c++)
		if (g->disks[c] == disk)
			return true;
	return false;
}

/* The fullest disk that the group has a column on, if it is above the average; -1: none. */
static int source_col(const struct balance *b, const struct bgroup *g)
{
	int best = -1;
	unsigned c;

	for (c = 0; c < g->n_cols; c++)
		if (b->size[g->disks[c]] && against_average(b, g->disks[c]) > 0 && (best < 0 || is_fuller(b, g->disks[c], g->disks[best])))
			best = (int)c;
	return best;
}

static unsigned target_disk(const struct balance *b, const struct bgroup *g)
{
	unsigned i, best = LABEL_DISKS_MAX;

	for (i = 0; i < b->n_disks; i++)
		if (b->size[i] && against_average(b, i) < 0 && !has_disk(g, i) && (best == LABEL_DISKS_MAX || is_fuller(b, best, i)))
			best = i;
	return best;
}

/* 1: a column of it moves. */
static int group_balance(struct balance *b, struct bgroup *g)
{
	int c = source_col(b, g), r;
	unsigned from, to = target_disk(b, g);

	if (c < 0 || to == LABEL_DISKS_MAX)
		return 0;
	from = g->disks[c];
	if (!helps(g->extents, b->used[from], b->size[from], b->used[to], b->size[to]))
		return 0;
	r = move_add(b, g, from, to);
	if (r < 0)
		return r;
	b->used[from] -= g->extents;
	b->used[to] += g->extents;
	g->disks[c] = (uint16_t)to;
	return 1;
}

/* Copies that it lacks, or that share a disk. */
static int group_spread(struct balance *b, const struct bgroup *g, unsigned copies)
{
	unsigned c, k, distinct = 0;
	int r = 0;

	for (c = 0; c < g->n_cols; c++) {
		for (k = 0; k < c && g->disks[k] != g->disks[c]; k++)
			;
		distinct += k == c;
	}
	for (; distinct < copies && r == 0; distinct++)
		r = move_add(b, g, LABEL_DISKS_MAX, LABEL_DISKS_MAX);
	return r;
}

static int plan_co_make(struct balance *b)
{
	unsigned i, online = 0, copies, pass;
	int r = 0, moved = 1;
	size_t k;

	for (i = 0; i < b->n_disks; i++)
		online += b->size[i] != 0;
	copies = MIN(pool_metadata_copies(b->p), online);
	for (k = 0; k < b->n && r == 0; k++)
		if (b->groups[k].kind != THIN_GROUP_DATA)
			r = group_spread(b, &b->groups[k], copies);
	for (pass = 0; pass < PASSES_MAX && moved && r >= 0; pass++)
		for (k = 0, moved = 0; k < b->n && r >= 0; k++) {
			r = group_balance(b, &b->groups[k]);
			moved |= r == 1;
		}
	return MIN(r, 0);
}

int pool_co_balance_plan(struct ashlar_pool *p, struct balance_move **out, size_t *n)
{
	struct balance *b = xcalloc(1, sizeof(*b));
	int r = pool_co_table_settle(p);

	balance_init(b, p);
	if (r == 0)
		r = pool_co_each_group(p, gather, b);
	if (r == 0)
		r = plan_co_make(b);
	xfree(b->groups);
	*out = b->moves;
	*n = b->n_moves;
	if (r < 0) {
		xfree(b->moves);
		*out = NULL;
		*n = 0;
	}
	xfree(b);
	return r;
}
