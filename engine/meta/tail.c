/*
 * tail.c: see tail.h.
 *
 * A ring for records and one for the hands of each reactor. Positions only grow; what is in a ring is between two of them, and each
 * is moved by one thread, behind what it speaks of. A kill may come between any two instructions.
 */
#include "engine/meta/tail.h"

#include <string.h>

#include "engine/base/mutant.h"
#include "engine/io/keep.h"
#include "engine/meta/meta_internal.h"
#include "engine/meta/replay.h"

#define TAIL_MAGIC "ASHTAIL1"
#define TAIL_BYTES_MAX (4 * MIB)
#define HAND_BYTES_MAX (128 * KIB)

struct tail_hand {
	_Atomic uint64_t put;	/* by its reactor */
	_Atomic uint64_t taken; /* by home: has become a record */
	_Atomic uint64_t lost;	/* sent without being put, and not yet arrived: nothing is put meanwhile */
	uint64_t pad[5];	/* a cache line each */
};

struct tail_head {
	char magic[8];
	struct uuid pool;
	_Atomic uint64_t epoch;	    /* of the opening; 0: not to be believed */
	_Atomic uint64_t published; /* checkpoint */
	_Atomic uint64_t begin, end;
	_Atomic uint64_t gap;	    /* a record is missing behind `end` */
	uint64_t ring_bytes, hand_bytes;
	uint64_t n_hands;
	uint64_t pad[4];
	struct tail_hand hands[REACTORS_MAX];
};

struct tail_rec {
	uint32_t len; /* of the payload, which follows, padded to 8 */
	uint16_t type;
	uint16_t hand; /* number of the reactor that handed it in, + 1; 0: home's own */
	uint64_t seq;
	uint64_t by; /* position in that reactor's ring behind it */
};

struct hand_rec {
	uint32_t len;
	uint16_t type, pad;
};

struct meta_tail {
	struct keep old, now;
	struct tail_head *head; /* of now; NULL: nothing is kept */
	uint64_t gap_seq;	/* last one that is missing */
};

struct ring {
	uint8_t *mem;
	uint64_t bytes;
};

/* ---- rings ---- */

static struct ring ring_of(struct tail_head *h)
{
	return (struct ring){ (uint8_t *)(h + 1), h->ring_bytes };
}

static struct ring hand_ring(struct tail_head *h, unsigned reactor)
{
	return (struct ring){ (uint8_t *)(h + 1) + h->ring_bytes + reactor * h->hand_bytes, h->hand_bytes };
}

static void ring_put(struct ring r, uint64_t pos, const void *src, size_t len)
{
	size_t at = pos % r.bytes, first = MIN(len, r.bytes - at);

	memcpy(r.mem + at, src, first);
	memcpy(r.mem, (const uint8_t *)src + first, len - first);
}

static void ring_get(struct ring r, uint64_t pos, void *dst, size_t len)
{
	size_t at = pos % r.bytes, first = MIN(len, r.bytes - at);

	memcpy(dst, r.mem + at, first);
	memcpy((uint8_t *)dst + first, r.mem, len - first);
}

static uint64_t rec_bytes(size_t len)
{
	return sizeof(struct tail_rec) + ALIGN_UP(len, (size_t)8);
}

static uint64_t hand_bytes(size_t len)
{
	return sizeof(struct hand_rec) + ALIGN_UP(len, (size_t)8);
}

static uint64_t ring_used(const struct tail_head *h)
{
	return atomic_load_explicit(&h->end, memory_order_relaxed) - atomic_load_explicit(&h->begin, memory_order_relaxed);
}

static bool rec_put(struct tail_head *h, const struct tail_rec *rec, const void *payload)
{
	uint64_t end = atomic_load_explicit(&h->end, memory_order_relaxed);

	if (ring_used(h) + rec_bytes(rec->len) > h->ring_bytes)
		return false;
	ring_put(ring_of(h), end, rec, sizeof(*rec));
	ring_put(ring_of(h), end + sizeof(*rec), payload, rec->len);
	atomic_store_explicit(&h->end, end + rec_bytes(rec->len), memory_order_release);
	return true;
}

/* The record at *pos, whose payload goes to buf if there is one; moves on. false: nothing there, or nothing that makes sense. */
static bool rec_next(struct tail_head *h, uint64_t *pos, struct tail_rec *rec, uint8_t *buf)
{
	uint64_t left = atomic_load_explicit(&h->end, memory_order_relaxed) - *pos;

	if (left < sizeof(*rec))
		return false;
	ring_get(ring_of(h), *pos, rec, sizeof(*rec));
	if (rec->len > JOURNAL_RECORD_MAX || rec_bytes(rec->len) > left)
		return false;
	if (buf)
		ring_get(ring_of(h), *pos + sizeof(*rec), buf, rec->len);
	*pos += rec_bytes(rec->len);
	return true;
}

/* ---- while the store is open ---- */

struct meta_tail *meta_tail_open(const struct meta_conf *c)
{
	struct meta_tail *t = xcalloc(1, sizeof(*t));

	if (c->keep[0])
		keep_open(c->world, c->keep, c->read_only, &t->old);
	return t;
}

void meta_tail_close(struct meta_tail *t)
{
	keep_close(&t->now, t->head && !atomic_load(&t->head->epoch));
	keep_close(&t->old, false);
	xfree(t);
}

void meta_tail_start(struct meta *m)
{
	struct meta_tail *t = m->tail;
	uint64_t ring = ALIGN_UP(MIN(2 * m->conf.journal_bytes, TAIL_BYTES_MAX), (uint64_t)64), hand = MIN(ring / 8, HAND_BYTES_MAX);
	struct tail_head *h;

	if (!m->conf.keep[0])
		return;
	keep_close(&t->old, false);
	if (keep_create(m->conf.world, m->conf.keep, sizeof(*h) + ring + m->conf.world->n_reactors * hand, &t->now) < 0)
		return;
	h = t->now.mem;
	memcpy(h->magic, TAIL_MAGIC, sizeof(h->magic));
	h->pool = m->conf.pool;
	h->ring_bytes = ring;
	h->hand_bytes = hand;
	h->n_hands = m->conf.world->n_reactors;
	atomic_store(&h->published, m->published);
	atomic_store(&h->epoch, m->open_epoch);
	t->head = h;
}

void meta_tail_end(struct meta *m)
{
	if (m->tail->head)
		atomic_store(&m->tail->head->epoch, 0);
}

bool meta_is_kept(const struct meta *m)
{
	return m->tail->head != NULL;
}

bool meta_tail_has_room(const struct meta *m)
{
	const struct tail_head *h = m->tail->head;

	return !h || ring_used(h) <= h->ring_bytes / 2;
}

/* What a hand that did not find room stood for, has arrived. */
static void hand_arrived(struct tail_head *h, unsigned hand, uint64_t by)
{
	if (by)
		atomic_store_explicit(&h->hands[hand].taken, by, memory_order_release);
	else
		atomic_fetch_sub_explicit(&h->hands[hand].lost, 1, memory_order_release);
}

void meta_tail_put(struct meta *m, const struct pending *p, const struct meta_hand *by)
{
	struct meta_tail *t = m->tail;
	struct tail_rec rec = { .len = p->len, .type = p->type, .seq = p->seq };

	if (!t->head)
		return;
	if (by) {
		rec.hand = (uint16_t)(by->reactor + 1);
		rec.by = by->pos;
	}
	if (t->gap_seq || !rec_put(t->head, &rec, p->payload)) {
		atomic_store(&t->head->gap, 1);
		t->gap_seq = p->seq;
	}
	if (by)
		hand_arrived(t->head, by->reactor, by->pos);
}

void meta_tail_durable(struct meta *m, uint64_t seq)
{
	struct meta_tail *t = m->tail;
	struct tail_head *h = t->head;
	struct tail_rec rec;
	uint64_t pos, next;

	if (!h)
		return;
	pos = next = atomic_load_explicit(&h->begin, memory_order_relaxed);
	while (rec_next(h, &next, &rec, NULL) && rec.seq <= seq)
		pos = next;
	atomic_store_explicit(&h->begin, pos, memory_order_release);
	if (t->gap_seq && t->gap_seq <= seq) {
		t->gap_seq = 0;
		atomic_store(&h->gap, 0);
	}
}

void meta_tail_published(struct meta *m)
{
	if (m->tail->head)
		atomic_store(&m->tail->head->published, m->published);
}

struct meta_hand meta_hand_put(struct meta *m, unsigned type, const void *payload, size_t len)
{
	struct tail_head *h = m->tail->head;
	struct meta_hand by = { .reactor = reactor_self()->index };
	struct hand_rec rec = { .len = (uint32_t)len, .type = (uint16_t)type };
	struct tail_hand *th;
	uint64_t pos;

	if (!h)
		return by;
	if (MUTANT(HAND_NOT_KEPT)) {
		atomic_fetch_add(&h->hands[by.reactor].lost, 1);
		return by;
	}
	th = &h->hands[by.reactor];
	pos = atomic_load_explicit(&th->put, memory_order_relaxed);
	if (atomic_load_explicit(&th->lost, memory_order_acquire) ||
	    pos + hand_bytes(len) - atomic_load_explicit(&th->taken, memory_order_acquire) > h->hand_bytes) {
		atomic_fetch_add_explicit(&th->lost, 1, memory_order_relaxed);
		return by;
	}
	ring_put(hand_ring(h, by.reactor), pos, &rec, sizeof(rec));
	ring_put(hand_ring(h, by.reactor), pos + sizeof(rec), payload, len);
	by.pos = pos + hand_bytes(len);
	atomic_store_explicit(&th->put, by.pos, memory_order_release);
	return by;
}

/* ---- opening ---- */

static struct tail_head *old_head(const struct meta *m)
{
	const struct keep *k = &m->tail->old;
	struct tail_head *h = k->mem;
	unsigned i;

	if (!h || k->bytes < sizeof(*h) || memcmp(h->magic, TAIL_MAGIC, sizeof(h->magic)) || !uuid_is_equal(&h->pool, &m->conf.pool))
		return NULL;
	if (h->epoch != m->open_epoch || m->published < h->published || h->n_hands > REACTORS_MAX)
		return NULL;
	if (h->ring_bytes < sizeof(struct tail_rec) || h->hand_bytes < sizeof(struct hand_rec) || h->ring_bytes > k->bytes ||
	    h->hand_bytes > k->bytes || sizeof(*h) + h->ring_bytes + h->n_hands * h->hand_bytes > k->bytes)
		return NULL;
	if (h->end < h->begin || ring_used(h) > h->ring_bytes)
		return NULL;
	for (i = 0; i < h->n_hands; i++)
		if (h->hands[i].put < h->hands[i].taken || h->hands[i].put - h->hands[i].taken > h->hand_bytes)
			return NULL;
	return h;
}

/* One reactor's, from where records have not come to; each becomes a record here before it is applied, so that a crash in the middle
 * of all this finds it once. */
static void hands_take(struct tail_head *h, unsigned reactor, uint64_t *seq, uint8_t *buf)
{
	struct tail_hand *th = &h->hands[reactor];
	struct hand_rec in;

	while (th->put - th->taken >= sizeof(in)) {
		struct tail_rec rec = { .hand = (uint16_t)(reactor + 1), .seq = *seq + 1 };

		ring_get(hand_ring(h, reactor), th->taken, &in, sizeof(in));
		if (in.len > JOURNAL_RECORD_MAX || hand_bytes(in.len) > th->put - th->taken)
			return;
		ring_get(hand_ring(h, reactor), th->taken + sizeof(in), buf, in.len);
		rec.len = in.len;
		rec.type = in.type;
		rec.by = th->taken + hand_bytes(in.len);
		if (!rec_put(h, &rec, buf))
			return;
		++*seq;
		atomic_store(&th->taken, rec.by);
	}
}

static void hands_take_all(struct meta *m, struct tail_head *h, uint8_t *buf)
{
	uint64_t pos = h->begin, seq = m->applied_seq;
	struct tail_rec rec;
	unsigned i;

	while (rec_next(h, &pos, &rec, NULL)) {
		seq = MAX(seq, rec.seq);
		if (rec.hand && rec.hand <= h->n_hands && rec.by > h->hands[rec.hand - 1].taken && rec.by <= h->hands[rec.hand - 1].put)
			atomic_store(&h->hands[rec.hand - 1].taken, rec.by);
	}
	if (pos != h->end || h->gap)
		return;
	for (i = 0; i < h->n_hands; i++)
		hands_take(h, i, &seq, buf);
}

int meta_tail_co_replay(struct meta *m, uint64_t *n, struct err *e)
{
	struct tail_head *h = old_head(m);
	struct tail_rec rec;
	uint8_t *buf;
	uint64_t pos;
	int r = 0;

	if (!h || MUTANT(KEPT_NOT_APPLIED))
		return 0;
	buf = xmalloc(JOURNAL_RECORD_MAX);
	hands_take_all(m, h, buf);
	pos = h->begin;
	while (r == 0 && rec_next(h, &pos, &rec, buf)) {
		if (rec.seq <= m->applied_seq)
			continue;
		if (rec.seq != m->applied_seq + 1)
			break;
		r = meta_replay_co_one(m, rec.type, buf, rec.len, rec.seq);
		++*n;
	}
	xfree(buf);
	if (r < 0)
		err_set(e, r, "what the process that was killed has left in memory (%s) cannot be applied: %s", m->tail->old.name, err_text(r));
	return r;
}
