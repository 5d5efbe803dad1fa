/*
 * The stripe log and power cuts, against a model. Workers append, finish, cancel; disks fail writes; everything stops at a
 * random event, the power goes or only the process does, and what recovery gives is compared with what it may give:
 *
 *   - every append that was acknowledged and is not covered by a good flush that began after its done(), unless cancelled;
 *   - no append whose stripe the log has called not live, or has cancelled, since;
 *   - nothing that was not appended in this epoch, and of an append all entries or none, exact, in the order of appending.
 *
 * What a recovery has given out, any later one must give again, whichever disk is lost in between.
 */
#include "tests/unit/raid__stripe_log_rig.h"
#include "tests/unit/unit.h"

#define WORKERS 12
#define STRIPES 4 /* of each worker */
#define OPS_MAX 4000
#define ENTRIES 4

enum op_state { OP_UNDER_WAY, OP_ACKED, OP_FAILED };

struct op {
	struct stripe_log_entry e[ENTRIES];
	unsigned n;
	enum op_state state;
	bool done, covered, forbidden, unsure; /* unsure: a cancel is or was under way */
	uint64_t done_at; /* in flushes begun */
};

static struct {
	struct op *ops; /* of this epoch; number i has id first_id + i */
	size_t n_ops;
	uint64_t first_id, n_begun;
	struct co_queue forever;
	struct seen *before; /* what the recovery before has found */
	size_t n_before;
	uint64_t n_found, n_cancels, n_failed, n_covered; /* all runs: is anything being tested? */
} m;

static struct op *op_of(uint64_t id)
{
	return id >= m.first_id && id - m.first_id < m.n_ops ? &m.ops[id - m.first_id] : NULL;
}

/* All appends of the stripe so far may not be found; for certain not. */
static void forbid(uint64_t stripe, bool certain)
{
	for (size_t i = 0; i < m.n_ops; i++)
		if (m.ops[i].e[0].stripe == stripe) {
			m.ops[i].unsure = true;
			m.ops[i].forbidden |= certain;
		}
}

static bool must_be_found(const struct op *op)
{
	return op->state == OP_ACKED && !op->covered && !op->unsure;
}

/* ---- workers ---- */

static uint64_t flush_begin(void)
{
	m.n_begun++;
	return m.n_begun;
}

static void flush_covers(uint64_t begun)
{
	for (size_t i = 0; i < m.n_ops; i++)
		if (m.ops[i].done && m.ops[i].done_at < begun)
			m.ops[i].covered = true;
}

/* The log's own, and the one of a client below. */
static int model_flush(void *ctx)
{
	uint64_t begun = flush_begin(), mark = stripe_log_flush_begin(rig.l);
	int r = hook_flush(ctx);

	if (r == 0)
		flush_covers(begun);
	stripe_log_flush_end(rig.l, mark, r == 0);
	return r;
}

static void op_make(struct op *op, uint64_t stripe)
{
	uint64_t room = stripe_log_max_bytes(rig.l);
	uint32_t row = 0, len, most = rng_chance(&rig.rng, 1, 6) ? 60 : 6;

	*op = (struct op){ .n = 0 };
	do {
		struct stripe_log_entry *e = &op->e[op->n];

		len = 512 * (1 + (uint32_t)rng_below(&rig.rng, most));
		*e = (struct stripe_log_entry){ .group = 5, .stripe = stripe, .row_off_bytes = row, .row_len_bytes = len };
		e->cols = 1u << 31 | 1u << rng_below(&rig.rng, 8) | 1u << rng_below(&rig.rng, 8);
		if (entry_bytes(e) > room && op->n)
			break;
		while (entry_bytes(e) > room)
			e->row_len_bytes = len -= 512;
		room -= entry_bytes(e);
		row += len + 512;
		op->n++;
	} while (op->n < ENTRIES && rng_chance(&rig.rng, 1, 3));
}

static void co_one_append(uint64_t stripe)
{
	struct stripe_log_ticket t;
	size_t i = m.n_ops;
	int r;

	if (i == OPS_MAX)
		co_queue_wait(&m.forever);
	op_make(&m.ops[i], stripe);
	m.n_ops++;
	r = co_append(m.first_id + i, m.ops[i].e, m.ops[i].n, &t);
	m.ops[i].state = r < 0 ? OP_FAILED : OP_ACKED;
	m.n_failed += r < 0;
	if (r < 0)
		return;
	co_sleep_ns(rng_below(&rig.rng, 600 * NS_PER_US));
	m.ops[i].done = true;
	m.ops[i].done_at = m.n_begun;
	stripe_log_done(rig.l, &t);
}

/* As a whole stripe of fresh data does. */
static void co_one_fresh(uint64_t stripe)
{
	if (stripe_log_is_live(rig.l, 5, stripe, 1)) {
		forbid(stripe, false);
		if (stripe_log_co_cancel(rig.l, 5, stripe, 1) < 0)
			return;
		m.n_cancels++;
	}
	forbid(stripe, true);
}

static void worker_co_main(void *arg)
{
	uint64_t stripe, base = (uintptr_t)arg * STRIPES;

	for (;;) {
		stripe = base + rng_below(&rig.rng, STRIPES);
		switch (rng_below(&rig.rng, 10)) {
		case 0:
			co_one_fresh(stripe);
			break;
		case 1:
			co_sleep_ns(rng_below(&rig.rng, 2 * NS_PER_MS));
			break;
		case 2:
			(void)model_flush(NULL);
			if (rng_chance(&rig.rng, 1, 2))
				co_one_fresh(stripe);
			break;
		default:
			co_one_append(stripe);
		}
	}
}

static void co_work(void)
{
	unsigned n = rng_chance(&rig.rng, 1, 3) ? 1 : 1 + (unsigned)rng_below(&rig.rng, WORKERS);

	co_queue_init(&m.forever);
	rig.conf.co_flush = model_flush;
	log_up();
	for (uintptr_t i = 0; i < n; i++)
		co_spawn(CO_SERVICE, worker_co_main, (void *)i, "worker");
	co_queue_wait(&m.forever);
}

/* Works until a random event. */
static void run_until_the_end(void)
{
	struct body b = { co_work };
	bool faults = rng_chance(&rig.rng, 1, 3);

	m.first_id += m.n_ops;
	m.n_ops = 0;
	m.n_begun = 0;
	for (unsigned i = 0; i < COPIES; i++)
		sim_disk_faults(rig.ds, i)->write_error = faults ? 3000 : 0;
	rig.flush_ns = rng_below(&rig.rng, 2) * 300 * NS_PER_US;
	alloc_track_begin();
	world_up();
	sim_disks_stop_at(rig.ds, sim_disks_n_events(rig.ds) + 1 + rng_below(&rig.rng, rng_chance(&rig.rng, 1, 4) ? 3000 : 300));
	EXPECT(sim_run(rig.w, co_main, &b, NULL, 0) == -ECANCELED);
	sim_world_destroy(rig.w);
	sim_disks_stop_at(rig.ds, UINT64_MAX);
	alloc_track_drop();
	for (unsigned i = 0; i < COPIES; i++)
		sim_disk_faults(rig.ds, i)->write_error = 0;
}

/* ---- what is found ---- */

static void co_check(void)
{
	size_t at = 0;
	uint64_t last = 0;

	EXPECT(co_recover() == 0);
	m.n_found += rig.n_found;
	while (at < rig.n_found) {
		uint64_t id = rig.found[at].id;
		struct op *op = op_of(id);

		EXPECT(op && id > last && !op->forbidden && at + op->n <= rig.n_found);
		if (!op)
			return;
		for (unsigned i = 0; i < op->n && at < rig.n_found; i++, at++)
			EXPECT(rig.found[at].id == id && entry_is(&rig.found[at].e, &op->e[i]));
		for (; last + 1 < id; last++)
			if (last + 1 >= m.first_id && (op = op_of(last + 1)))
				EXPECT(!must_be_found(op));
		last = id;
	}
	for (last = MAX(last + 1, m.first_id); last < m.first_id + m.n_ops; last++)
		EXPECT(!must_be_found(op_of(last)));
	for (size_t i = 0; i < m.n_ops; i++)
		m.n_covered += m.ops[i].covered;
}

static void co_check_again(void)
{
	EXPECT(co_recover() == 0);
	EXPECT(rig.n_found == m.n_before);
	for (size_t i = 0; i < MIN(rig.n_found, m.n_before); i++)
		EXPECT(rig.found[i].id == m.before[i].id && entry_is(&rig.found[i].e, &m.before[i].e));
}

static void recover_twice(void)
{
	enum sim_cut cut = (enum sim_cut)rng_below(&rig.rng, SIM_CUT_ONLY_ONE + 1);
	unsigned lost = (unsigned)rng_below(&rig.rng, COPIES + 1);

	if (rng_chance(&rig.rng, 3, 4)) /* else the process ends and the power stays */
		sim_disks_power_cut(rig.ds, cut, &rig.rng);
	world_run(co_check);
	memcpy(m.before, rig.found, rig.n_found * sizeof(*rig.found));
	m.n_before = rig.n_found;
	sim_disks_power_cut(rig.ds, SIM_CUT_NONE, &rig.rng);
	if (lost < COPIES)
		rig.away[lost] = true;
	world_run(co_check_again);
	if (lost < COPIES)
		rig.away[lost] = false;
}

static void one_seed(uint64_t s)
{
	static const uint64_t sizes[] = { 128 * KIB, 160 * KIB, 256 * KIB, 1 * MIB };

	rig_init(s, sizes[0]);
	rig.conf.len_bytes = sizes[rng_below(&rig.rng, ARRAY_LEN(sizes))];
	rig.dev.max_bytes = rng_chance(&rig.rng, 1, 4) ? 32 * KIB : MIB;
	m.first_id = 1;
	m.n_ops = 0;
	for (unsigned epochs = 1 + (unsigned)rng_below(&rig.rng, 3); epochs; epochs--) {
		run_until_the_end();
		recover_twice();
		rig.conf.epoch++;
	}
	rig_fini();
}

static void power_cuts_lose_nothing_that_was_acknowledged(void)
{
	m.ops = calloc(OPS_MAX, sizeof(*m.ops));
	m.before = calloc(FOUND_MAX, sizeof(*m.before));
	for (uint64_t s = 1; s <= 600 && !CU_get_number_of_failures(); s++)
		one_seed(s);
	EXPECT(m.n_found > 1000 && m.n_cancels > 300 && m.n_failed > 300 && m.n_covered > 1000);
	free(m.before);
	free(m.ops);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(power_cuts_lose_nothing_that_was_acknowledged),
		CU_TEST_INFO_NULL,
	};

	return tests_run("stripe log, power cuts", tests);
}
