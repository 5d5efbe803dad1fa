/*
 * One stripe as a model with explicit states, explored whole: 2 data columns and one or two parities of two sectors each, one
 * update of one or both data columns, on the real parity functions. In every state everything may happen that can: the log
 * entry gets whole or torn, any column's write in place is done, half done or not, the power fails (in a replay too), disks are
 * lost and come back with what they had or blank, the log is replayed, a disk that came back is resynced.
 *
 * The property, wherever clients may read, for every further loss of disks that the layout tolerates: a sector of a column
 * that is updated reads as old or as new, as new once the entry was whole; every other column reads as old; and with all disks
 * there parity matches. The rules that make it so can be broken one at a time: each time the model must find a violation.
 */
#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/base/hash.h"
#include "engine/base/rng.h"
#include "raid/parity.h"
#include "tests/unit/unit.h"

#define K 2
#define BOTH ((1U << K) - 1)
#define COLS_MAX (K + 2)
#define COL PARITY_ALIGN
#define SECTOR (COL / 2)
#define V(c) ((void *[]){ (c)[0], (c)[1], (c)[2], (c)[3] }) /* columns for parity_*() */
#define POPCOUNT(x) ((unsigned)__builtin_popcount(x))

enum broken {
	NO_LOG = 1,	     /* columns are written without a log entry */
	IN_PLACE_EARLY = 2,  /* before the entry is durable */
	TORN_REPLAYED = 4,   /* the entry's checksum is not looked at */
	FREED_EARLY = 8,     /* the entry is given up before the columns are durable */
	STALE_READ = 16,     /* a disk that came back is read before its resync */
	NO_RESYNC = 32,	     /* a disk that came back is called current as it is */
	PARITY_AT_OPEN = 64, /* not a rule: parity is computed from the data at opening if all data is there */
	LOSS_LATE = 128,     /* not a rule: disks are lost only when the update is over */
};

enum phase { IDLE, WRITING, OFF, REPLAY, READY }; /* READY: written, or recovered */
enum log { LOG_NONE, LOG_TORN, LOG_WHOLE };

struct state {
	_Alignas(PARITY_ALIGN) uint8_t col[COLS_MAX][COL]; /* what is on the disks */
	uint8_t phase, log, durable; /* the client may have been told that the update is durable */
	uint8_t lost, stale;	     /* disks: not there, there but behind */
	uint8_t pad[PARITY_ALIGN - 5];
};

struct node {
	struct hash_node hash;
	struct node *next;
	struct state s;
};

static struct model {
	unsigned p, update, broken; /* update: bits of data columns */
	_Alignas(PARITY_ALIGN) uint8_t old[COLS_MAX][COL], new[COLS_MAX][COL], torn[COLS_MAX][COL], scratch[COL];
	struct hash seen;
	struct node *first, **end; /* states, in the order found */
	unsigned n_neither, n_victim, n_forgotten, n_unmatched; /* violations */
	bool old_seen, replayed;				/* both ways out of a power cut */
} m;

static void check_sector(const struct state *s, unsigned i, size_t off, const uint8_t *got)
{
	bool is_old = !memcmp(got, m.old[i] + off, SECTOR), is_new = !memcmp(got, m.new[i] + off, SECTOR);

	if (m.update >> i & 1) {
		m.n_neither += !is_old && !is_new;
		m.n_forgotten += s->durable && is_old;
		m.old_seen |= s->phase == READY && is_old;
	} else {
		m.n_victim += !is_old;
	}
}

static void check_readable(const struct state *s)
{
	for (unsigned more = 0; more < 1U << (K + m.p); more++) {
		unsigned gone = more | s->lost | (m.broken & STALE_READ ? 0 : s->stale);
		struct state x = *s;

		if ((more & (s->lost | s->stale)) || POPCOUNT(more | s->lost | s->stale) > m.p)
			continue;
		for (unsigned i = 0; i < K + m.p; i++)
			if (gone >> i & 1)
				memset(x.col[i], 0xdd, COL);
		parity_recover(K, m.p, COL, V(x.col), gone);
		for (unsigned i = 0; i < K; i++)
			for (size_t off = 0; off < COL; off += SECTOR)
				check_sector(s, i, off, x.col[i] + off);
		m.n_unmatched += !gone && parity_compare(K, m.p, COL, V(x.col)) != COL;
	}
}

static void reach(const struct state *s)
{
	uint64_t key = crc32c(0, s, sizeof(*s));
	struct node *n;

	for (struct hash_node *h = hash_find(&m.seen, key); h; h = h->next)
		if (h->key == key && !memcmp(&container_of(h, struct node, hash)->s, s, sizeof(*s)))
			return;
	n = xaligned(PARITY_ALIGN, sizeof(*n));
	*n = (struct node){ .s = *s };
	*m.end = n;
	m.end = &n->next;
	hash_add(&m.seen, &n->hash, key);
	if (s->phase == IDLE || s->phase == READY)
		check_readable(s);
}

static void become(const struct state *s, enum phase phase, enum log log, bool durable)
{
	struct state x = *s;

	x.phase = (uint8_t)phase;
	x.log = (uint8_t)log;
	x.durable |= durable;
	reach(&x);
}

/* Each column of the update that is there and not yet written gets one sector or both. None left: READY. */
static void write_columns(const struct state *s, uint8_t (*content)[COL])
{
	unsigned cols = (m.update | ((1U << m.p) - 1) << K) & ~(unsigned)s->lost;
	bool done = true;

	for (unsigned i = 0; i < K + m.p; i++) {
		struct state x = *s;

		if (!(cols >> i & 1) || !memcmp(s->col[i], content[i], COL))
			continue;
		done = false;
		memcpy(x.col[i], content[i], SECTOR);
		reach(&x);
		memcpy(x.col[i] + SECTOR, content[i] + SECTOR, SECTOR);
		reach(&x);
		memcpy(x.col[i], s->col[i], SECTOR);
		reach(&x);
	}
	if (done) {
		m.replayed |= s->phase == REPLAY;
		become(s, READY, LOG_NONE, true);
	}
}

static void go_on(const struct state *s)
{
	struct state x = *s;

	switch (s->phase) {
	case IDLE:
		become(s, OFF, LOG_TORN, false);
		if (m.broken & (NO_LOG | IN_PLACE_EARLY))
			become(s, WRITING, LOG_NONE, false);
		else
			become(s, WRITING, LOG_WHOLE, true);
		break;
	case WRITING:
		write_columns(s, m.new);
		if (m.broken & (IN_PLACE_EARLY | FREED_EARLY))
			become(s, WRITING, m.broken & FREED_EARLY ? LOG_NONE : LOG_WHOLE, true);
		break;
	case OFF:
		if (m.broken & PARITY_AT_OPEN && !((s->lost | s->stale) & BOTH))
			parity_gen(K, m.p, COL, V(x.col));
		if (s->log == LOG_WHOLE || (s->log == LOG_TORN && m.broken & TORN_REPLAYED))
			become(s, REPLAY, s->log, false);
		else
			become(&x, READY, LOG_NONE, false);
		break;
	case REPLAY:
		write_columns(s, s->log == LOG_TORN ? m.torn : m.new);
		break;
	}
	become(s, OFF, s->log, false);
}

static void disk_events(const struct state *s, unsigned i)
{
	uint8_t bit = (uint8_t)(1U << i);
	struct state x = *s, y = *s;

	if (!((s->lost | s->stale) & bit) && POPCOUNT(s->lost | s->stale | bit) <= m.p &&
	    !(m.broken & LOSS_LATE && s->phase != READY)) {
		x.lost |= bit;
		reach(&x);
	} else if (s->lost & bit && s->phase != OFF) {
		x.lost ^= bit;
		x.stale |= bit;
		reach(&x);
		memset(x.col[i], 0, COL); /* another disk in its place */
		reach(&x);
	} else if (s->stale & bit && (s->phase == IDLE || s->phase == READY)) { /* resync: nobody holds the stripe */
		parity_recover(K, m.p, COL, V(y.col), s->lost | s->stale);
		if (!(m.broken & NO_RESYNC))
			memcpy(x.col[i], y.col[i], COL);
		x.stale ^= bit;
		reach(&x);
	}
}

static void contents_make(void)
{
	struct rng rng;

	rng_init(&rng, 20261124);
	rng_fill(&rng, m.old, sizeof(m.old));
	rng_fill(&rng, m.torn, sizeof(m.torn)); /* what the log's blocks held before */
	parity_gen(K, m.p, COL, V(m.old));
	memcpy(m.new, m.old, sizeof(m.new));
	for (unsigned i = 0; i < K; i++)
		if (m.update >> i & 1) {
			rng_fill(&rng, m.new[i], COL);
			parity_update(i, COL, m.old[i], m.new[i], m.new[K], m.p == 2 ? m.new[K + 1] : NULL, m.scratch);
			memcpy(m.torn[i], m.new[i], COL);
		}
}

/* Returns the number of violations. */
static unsigned explore(unsigned p, unsigned update, unsigned broken)
{
	struct state s = { .phase = IDLE };

	m = (struct model){ .p = p, .update = update, .broken = broken };
	contents_make();
	hash_init(&m.seen);
	m.end = &m.first;
	memcpy(s.col, m.old, (K + p) * COL);
	reach(&s);
	for (struct node *n = m.first; n; n = n->next) { /* grows as it goes */
		go_on(&n->s);
		for (unsigned i = 0; i < K + p; i++)
			disk_events(&n->s, i);
	}
	for (struct node *n = m.first, *next; n; n = next) {
		next = n->next;
		xfree(n);
	}
	hash_fini(&m.seen);
	return m.n_neither + m.n_victim + m.n_forgotten + m.n_unmatched;
}

#define FOR_EACH_UPDATE(p, update) \
	for (unsigned p = 1; p <= 2; p++) for (unsigned update = 1; update <= BOTH; update++)

static void update_is_old_or_new_and_the_others_stay_whatever_happens(void)
{
	FOR_EACH_UPDATE(p, update) {
		CU_ASSERT(explore(p, update, 0) == 0);
		CU_ASSERT(m.old_seen && m.replayed); /* and both ways were taken */
	}
}

static void without_the_log_the_write_hole_is_found(void)
{
	FOR_EACH_UPDATE(p, update) {
		CU_ASSERT(explore(p, update, NO_LOG) > 0 && m.n_unmatched > 0);
		CU_ASSERT(update == BOTH ? m.n_neither > 0 : m.n_victim > 0); /* victim: a column that nobody wrote to */
	}
}

/* It would do if no disk were ever lost between a power cut and the end of recovery. */
static void parity_computed_at_opening_does_not_replace_the_log(void)
{
	FOR_EACH_UPDATE(p, update) {
		CU_ASSERT(explore(p, update, NO_LOG | PARITY_AT_OPEN | LOSS_LATE) == 0);
		CU_ASSERT(explore(p, update, NO_LOG | PARITY_AT_OPEN) > 0);
	}
}

static void every_broken_rule_is_found(void)
{
	for (unsigned broken = IN_PLACE_EARLY; broken <= NO_RESYNC; broken <<= 1)
		FOR_EACH_UPDATE(p, update)
			CU_ASSERT(explore(p, update, broken) > 0);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(update_is_old_or_new_and_the_others_stay_whatever_happens),
		TEST(without_the_log_the_write_hole_is_found),
		TEST(parity_computed_at_opening_does_not_replace_the_log),
		TEST(every_broken_rule_is_found),
		CU_TEST_INFO_NULL,
	};

	return tests_run("raid stripe model", tests);
}
