/*
 * The assembler: writes to one stripe put together.
 *
 * Pieces that arrive while an update of their stripe is under way wait for it, and are the next update, all of them: one
 * reading of old contents, one entry in the log. A piece is *held* if others are likely to follow and make the stripe whole:
 * one that looks sequential (it begins the stripe, and what lies before has just been written; or it continues a piece that
 * is held), and a fresh one: fresh space is handed out in order, so its neighbours are on their way, perhaps before
 * it; unless it is a small one in the middle of nothing, as random first writes are. But not when nobody else is at work (then the client may be waiting for this very piece: Nagle), not for longer than 2 ms,
 * and never a FUA write. Other writes under way here are those of this group: what a client does elsewhere says nothing of
 * this sequence.
 *
 * The assembler of a group exists as soon as it is needed, in one allocation that goes with the group; it is empty when
 * nothing of the group is in flight, as every piece belongs to a request in flight.
 */
#include "raid/stripe.h"

#define HOLD_NS (2 * 1000000ULL)
#define BUCKETS 64 /* of stripes under way */
#define ENDS 32	   /* of writes, remembered */

struct stripe_asm {
	struct raid_group *g;
	struct list bucket[BUCKETS];
	struct list held;   /* stripes */
	unsigned n_running; /* updates, and writes of whole stripes */
	uint64_t ends[ENDS];
	unsigned next_end;
};

struct asm_stripe {
	struct list link; /* bucket */
	struct list held;
	struct stripe_asm *a;
	uint64_t stripe;
	struct list pieces; /* of the next update */
	uint64_t seq_bytes; /* from the stripe's begin to here they follow each other; 0: they do not */
	bool running;
	struct timer timer;
};

/* The piece of a request that is nothing but this piece. */
struct asm_req {
	struct stripe_piece piece;
	struct raid_req *q;
};

static struct stripe_asm *asm_get(struct raid_group *g)
{
	struct stripe_asm *a = g->assembly;

	if (likely(a))
		return a;
	a = xcalloc(1, sizeof(*a));
	a->g = g;
	for (unsigned i = 0; i < BUCKETS; i++)
		list_init(&a->bucket[i]);
	list_init(&a->held);
	g->assembly = a;
	return a;
}

static void timer_fired(struct timer *t);

static struct asm_stripe *asm_stripe_get(struct stripe_asm *a, uint64_t stripe)
{
	struct list *bucket = &a->bucket[stripe % BUCKETS];
	struct asm_stripe *s;

	list_for_each(s, bucket, link)
		if (s->stripe == stripe)
			return s;
	s = xcalloc(1, sizeof(*s));
	s->a = a;
	s->stripe = stripe;
	list_init(&s->held);
	list_init(&s->pieces);
	s->timer.fire = timer_fired;
	list_push_back(bucket, &s->link);
	return s;
}

/* ---- updates ---- */

/* Coroutine. One update of all pieces; if it fails, each by itself, so that one's bad block is not another's error. Leaves
 * the results in the pieces. */
static void update_co(struct asm_stripe *s, struct list *pieces, unsigned n)
{
	struct raid_group *g = s->a->g;
	struct stripe_piece *p;
	struct raid_locks lk;
	struct list one;
	int r;

	stripe_co_lock(g, s->stripe, 1, false, &lk);
	r = stripe_co_write(g, s->stripe, pieces);
	list_for_each(p, pieces, link)
		p->result = r;
	for (unsigned i = 0; r && n > 1 && i < n; i++) {
		p = list_first(pieces, struct stripe_piece, link);
		list_del(&p->link);
		list_init(&one);
		list_push_back(&one, &p->link);
		p->result = stripe_co_write(g, s->stripe, &one);
		list_splice_back(pieces, &one);
	}
	raid_unlock(&lk);
}

static void asm_kick(struct stripe_asm *a);

static void update_co_main(void *arg)
{
	struct asm_stripe *s = arg;
	struct stripe_asm *a = s->a;
	struct list pieces, *node;
	unsigned n;

	do {
		n = 0;
		list_init(&pieces);
		list_splice_back(&pieces, &s->pieces);
		for (node = pieces.next; node != &pieces; node = node->next)
			n++;
		if (n > 1)
			a->g->raid->stats.assembled += n;
		update_co(s, &pieces, n);
		while ((node = list_pop_front(&pieces))) {
			struct stripe_piece *p = list_entry(node, struct stripe_piece, link);

			p->done(p, p->result); /* may bring new pieces */
		}
	} while (!list_is_empty(&s->pieces));
	list_del(&s->link);
	xfree(s);
	a->n_running--;
	asm_kick(a);
}

static void asm_start(struct asm_stripe *s)
{
	struct raid *r = s->a->g->raid;

	list_del(&s->held);
	timer_cancel(&s->timer);
	s->running = true;
	s->a->n_running++;
	r->submitting++; /* we may be inside bdev_submit() */
	co_start(CO_SERVICE, update_co_main, s, "raid stripe update");
	r->submitting--;
}

static void timer_fired(struct timer *t)
{
	asm_start(container_of(t, struct asm_stripe, timer));
}

/* Nobody is at work any more: whom do we wait for? */
static void asm_kick(struct stripe_asm *a)
{
	struct list go, *node;

	if (a->n_running)
		return;
	list_init(&go);
	list_splice_back(&go, &a->held);
	while ((node = list_pop_front(&go)))
		asm_start(list_entry(node, struct asm_stripe, held));
}

void stripe_asm_enter(struct raid_group *g)
{
	asm_get(g)->n_running++;
}

void stripe_asm_leave(struct raid_group *g)
{
	g->assembly->n_running--;
	asm_kick(g->assembly);
}

/* ---- arrival ---- */

void stripe_asm_note(struct raid_group *g, uint64_t end_bytes)
{
	struct stripe_asm *a = asm_get(g);

	a->ends[a->next_end++ % ENDS] = end_bytes;
}

static bool asm_is_continued(const struct stripe_asm *a, const struct stripe_piece *p)
{
	if (p->skip_bytes)
		return true; /* its own request lies before it */
	for (unsigned i = 0; i < ENDS; i++)
		if (a->ends[i] && a->ends[i] == p->off_bytes)
			return true;
	return false;
}

/* Does the piece, with those there, run on from the stripe's begin without being at its end? */
static bool asm_is_sequential(struct asm_stripe *s, const struct stripe_piece *p, bool first)
{
	uint64_t bytes = raid_stripe_bytes(s->a->g), begin = s->stripe * bytes;
	uint64_t end = MIN(begin + bytes, s->a->g->desc.size_bytes);

	if (first ? p->off_bytes != begin || !asm_is_continued(s->a, p) : p->off_bytes != s->seq_bytes)
		return false;
	s->seq_bytes = p->off_bytes + p->len_bytes;
	return s->seq_bytes < end;
}

/* A small piece of fresh space that neither begins a strip nor follows another: nobody is on his way to fill the rest. */
static bool asm_is_alone(const struct stripe_asm *a, const struct stripe_piece *p)
{
	uint64_t strip = a->g->desc.strip_bytes;

	return p->len_bytes < strip / 4 && p->off_bytes % strip && !asm_is_continued(a, p);
}

/* Will there be more, by all likelihood? */
static bool asm_is_worth_waiting(struct asm_stripe *s, const struct stripe_piece *p, bool first)
{
	uint64_t sum = 0;
	struct stripe_piece *q;

	if (asm_is_sequential(s, p, first))
		return true;
	if (asm_is_alone(s->a, p))
		return false;
	list_for_each(q, &s->pieces, link) {
		if (!(q->parent->flags & IO_FRESH))
			return false;
		sum += q->len_bytes;
	}
	return sum < raid_stripe_bytes(s->a->g);
}

void stripe_asm_add(struct raid_group *g, struct stripe_piece *p)
{
	struct stripe_asm *a = asm_get(g);
	struct asm_stripe *s = asm_stripe_get(a, p->off_bytes / raid_stripe_bytes(g));
	bool first = list_is_empty(&s->pieces);

	list_push_back(&s->pieces, &p->link);
	if (s->running)
		return;
	if (!asm_is_worth_waiting(s, p, first) || (p->parent->flags & IO_FUA) || !a->n_running) {
		asm_start(s);
		return;
	}
	if (list_is_empty(&s->held)) {
		list_push_back(&a->held, &s->held);
		timer_arm(&s->timer, reactor_now_ns() + HOLD_NS);
	}
}

static void asm_req_done(struct stripe_piece *p, int result)
{
	struct asm_req *ar = container_of(p, struct asm_req, piece);
	struct raid_req *q = ar->q;

	xfree(ar);
	raid_req_end(q, result);
}

bool stripe_asm_try(struct raid_group *g, struct raid_req *q)
{
	struct io *io = q->parent;
	uint64_t bytes = raid_stripe_bytes(g), mask;
	struct asm_req *ar;

	if (g->away || !g->raid->log || (io->flags & IO_FAST_ZERO))
		return false;
	if (q->off_bytes / bytes != (q->off_bytes + io->len_bytes - 1) / bytes)
		return false;
	mask = raid_group_mask(g, q->off_bytes, io->len_bytes);
	if ((mask & ~g->lease) || (mask & g->unsync))
		return false;
	ar = xmalloc(sizeof(*ar));
	ar->q = q;
	ar->piece = (struct stripe_piece){ .parent = io, .off_bytes = q->off_bytes, .len_bytes = io->len_bytes,
					   .done = asm_req_done };
	raid_enter(g, q, mask);
	stripe_asm_note(g, q->off_bytes + io->len_bytes);
	stripe_asm_add(g, &ar->piece);
	return true;
}
