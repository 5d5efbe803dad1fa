/*
 * A disk that does not answer, and what initiators do about it: task management answers in bounded time, and what it has ended is
 * over for whoever looks.
 */
#include "tests/unit/frontends_iscsi__rig.h"
#include "tests/unit/unit.h"

#define N_SENDS 8
#define BOUND_NS (SCSI_ABORT_NS + NS_PER_SEC)
#define SOON_NS (NS_PER_SEC / 2)
#define TIMEOUT_NS (30 * NS_PER_SEC) /* after that the pool does without the disk */

static struct initiator a, b;

struct tmf {
	struct initiator *by;
	enum scsi_tmf what;
	struct send *ref;
};

static int start_there(void *arg)
{
	send_start(arg);
	return 0;
}

static int tmf_there(void *arg)
{
	struct tmf *t = arg;

	return scsi_co_tmf(t->by->n, t->what, t->ref ? &t->ref->c : NULL);
}

static void *take(struct scsi_cmd *c, size_t *bytes)
{
	struct send *s = c->owner;
	void *buf = s->iov.iov_base;

	*bytes = c->out_bytes;
	s->iov.iov_base = NULL;
	return buf;
}

static void set(struct send *s, struct initiator *i, const uint8_t *cdb, size_t len, uint32_t out)
{
	*s = (struct send){ .n = i->n, .c.out_take = take };
	memcpy(s->c.cdb, cdb, len);
	s->c.cdb_len = (uint16_t)len;
	s->c.attr = SCSI_SIMPLE;
	s->c.out_bytes = out;
	if (out) {
		s->iov.iov_base = buf_alloc(out);
		memcpy(s->iov.iov_base, rig.out, out);
	}
}

static void co_begin(struct send *s, struct initiator *i, const uint8_t *cdb, size_t len, uint32_t out)
{
	set(s, i, cdb, len, out);
	(void)reactor_co_call(scsi_nexus_home(i->n), start_there, s);
}

static void sent(struct send *s)
{
	buf_free(s->iov.iov_base, s->c.out_bytes);
	s->iov.iov_base = NULL;
}

static int co_tmf(struct initiator *by, enum scsi_tmf what, struct send *ref)
{
	struct tmf t = { by, what, ref };
	uint64_t start = reactor_now_ns();
	int r = reactor_co_call(scsi_nexus_home(by->n), tmf_there, &t);

	EXPECT(reactor_now_ns() - start <= BOUND_NS);
	return r;
}

static void hang(bool on)
{
	sim_disk_faults(rig.ds, 0)->hang = on;
}

/* The pool is whole again. */
static void co_heal(void)
{
	struct err e = { 0 };

	hang(false);
	co_sleep_ns(2 * TIMEOUT_NS);
	(void)!ashlar_co_disk_online(rig.p, "/d0", NULL, &e);
	co_sleep_ns(2 * TIMEOUT_NS);
}

/* ---- every command that may touch the disk ---- */

static const struct {
	uint8_t cdb[16], len;
	uint32_t out;
} cmds[] = {
	{ { OP_WRITE_10, 0, B4(0), 0, B2(8), 0 }, 10, 4096 },
	{ { OP_WRITE_16, 8, B8(0), B4(8), 0, 0 }, 16, 4096 },
	{ { OP_WRITE_16, 0, B8(0), B4(8192), 0, 0 }, 16, 8192 * 512 },
	{ { OP_WRITE_AND_VERIFY_16, 0, B8(0), B4(8), 0, 0 }, 16, 4096 },
	{ { OP_COMPARE_AND_WRITE, 0, B8(0), 0, 0, 0, 1, 0, 0 }, 16, 1024 },
	{ { OP_WRITE_SAME_16, 0, B8(0), B4(4096), 0, 0 }, 16, 512 },
	{ { OP_WRITE_SAME_16, 9, B8(0), B4(5), 0, 0 }, 16, 0 },
	{ { OP_SYNCHRONIZE_CACHE_10, 0, B4(0), 0, B2(0), 0 }, 10, 0 },
	{ { OP_START_STOP_UNIT, 0, 0, 0, 0, 0 }, 6, 0 },
	{ { OP_READ_16, 0, B8(0), B4(8192), 0, 0 }, 16, 0 },
	{ { OP_VERIFY_16, 0, B8(0), B4(8192), 0, 0 }, 16, 0 },
	{ { OP_VERIFY_16, 2, B8(0), B4(8), 0, 0 }, 16, 4096 },
};

static void co_each_is_aborted(const char *volume)
{
	static struct send s;
	unsigned k, n_pending = 0;
	uint64_t start;

	for (k = 0; k < ARRAY_LEN(cmds); k++) {
		co_login(&a, 1, volume);
		GOOD(co_write(&a, 0, 8192, 1));
		GOOD(CMD(&a, OP_SYNCHRONIZE_CACHE_10, 0, B4(0), 0, B2(0), 0));
		hang(true);
		co_begin(&s, &a, cmds[k].cdb, cmds[k].len, cmds[k].out);
		co_sleep_ns(NS_PER_MS);
		n_pending += !s.done;
		EXPECT(s.done || co_tmf(&a, SCSI_TMF_ABORT_TASK, &s) == 0);
		EXPECT(s.done);
		EXPECT(co_tmf(&a, SCSI_TMF_ABORT_TASK, &s) == -ENOENT);
		sent(&s);
		start = reactor_now_ns(); /* a session that ends does not wait for the disk, nor one that takes its place */
		co_logout(&a);
		co_login(&a, 1, volume);
		co_logout(&a);
		EXPECT(reactor_now_ns() - start < SOON_NS);
		co_heal();
		EXPECT(list_is_empty(&rig.t->lus));
	}
	EXPECT(n_pending >= ARRAY_LEN(cmds) - 2);
}

static int aborts(void)
{
	struct ashlar_volume_spec spec = { .name = "s", .size_bytes = RIG_VOLUME_BYTES, .layout = "single" };
	struct err e = { 0 };

	co_each_is_aborted("a");
	EXPECT(ashlar_co_volume_create(rig.p, &spec, &e) == 0);
	co_each_is_aborted("s");
	return 0;
}

/* ---- what others see ---- */

static struct send writes[N_SENDS];

static void co_stuck_writes(unsigned n, uint8_t fill)
{
	unsigned i;

	hang(true);
	memset(rig.out, fill, 8 * 512);
	for (i = 0; i < n; i++)
		co_begin(&writes[i], &a, CDB(OP_WRITE_16, 0, B8(8 * i), B4(8), 0, 0), 8 * 512);
	co_sleep_ns(NS_PER_MS);
	for (i = 0; i < n; i++)
		EXPECT(!writes[i].done);
}

static void writes_are_over(unsigned n)
{
	unsigned i;

	for (i = 0; i < n; i++) {
		EXPECT(writes[i].done && writes[i].r.aborted);
		sent(&writes[i]);
	}
}

static int resets(void)
{
	struct send read, over, beside;
	uint64_t start;

	co_login(&a, 1, "a");
	co_login(&b, 2, "a");
	GOOD(co_write(&a, 0, 1024, 1));
	co_stuck_writes(N_SENDS, 2);
	EXPECT(co_tmf(&b, SCSI_TMF_LUN_RESET, NULL) == 0);
	writes_are_over(N_SENDS);
	ATTENTION(ASC_LUN_RESET, &a);
	ATTENTION(ASC_LUN_RESET, &b);
	EXPECT(a.n->lu->n_left == N_SENDS && a.n->n_tasks == 0);
	/* who looks elsewhere, or at nothing, goes on */
	start = reactor_now_ns();
	GOOD(CMD(&b, 0, 0, 0, 0, 0, 0));
	GOOD(CMD(&a, OP_INQUIRY, 0, 0, 0, 36, 0));
	EXPECT(co_is(&b, 512, 8, 1));
	EXPECT(reactor_now_ns() - start < SOON_NS);
	/* who looks there waits, by any command */
	co_begin(&read, &b, CDB(OP_READ_16, 0, B8(4), B4(8), 0, 0), 0);
	read.in = rig.in;
	memset(rig.out, 3, 8 * 512);
	co_begin(&over, &b, CDB(OP_WRITE_10, 0, B4(8), 0, B2(8), 0), 8 * 512);
	co_begin(&beside, &a, CDB(OP_WRITE_SAME_16, 9, B8(16), B4(1), 0, 0), 0);
	beside.c.attr = SCSI_HEAD_OF_QUEUE;
	co_sleep_ns(NS_PER_SEC);
	EXPECT(!read.done && !over.done && !beside.done);
	EXPECT(co_tmf(&a, SCSI_TMF_ABORT_TASK, &beside) == 0 && beside.done && beside.r.aborted);
	co_sleep_ns(TIMEOUT_NS + NS_PER_SEC);
	EXPECT(read.done && read.r.status == SCSI_GOOD && over.done && over.r.status == SCSI_GOOD);
	EXPECT(rig.in[0] == 1 || rig.in[0] == 2);
	sent(&over);
	EXPECT(a.n->lu->n_left == 0 && a.n->lu->left_bytes == 0);
	co_heal();
	EXPECT(co_is(&a, 8, 8, 3)); /* what came later lies on top */
	co_logout(&a);
	co_logout(&b);
	return 0;
}

/* All the ways to end what is under way, a session's own end among them. */
static int other_ways(void)
{
	unsigned i;

	for (i = 0; i < 2; i++) {
		co_login(&a, 1, "a");
		co_login(&b, 2, "a");
		GOOD(co_write(&a, 0, 1024, 1));
		co_stuck_writes(N_SENDS, 2);
		EXPECT(co_tmf(i ? &b : &a, i ? SCSI_TMF_CLEAR_TASK_SET : SCSI_TMF_ABORT_TASK_SET, NULL) == 0);
		writes_are_over(N_SENDS);
		co_logout(&a);
		co_logout(&b);
		co_heal();
	}
	return 0;
}

/* Whose memory cannot be taken is waited for, and so is what would be too much. */
static int kept(void)
{
	static struct send big[9];
	struct tmf all = { &a, SCSI_TMF_ABORT_TASK_SET, NULL };
	uint64_t start;
	unsigned i;

	co_login(&a, 1, "a");
	GOOD(co_write(&a, 0, 16384, 1));
	co_stuck_writes(2, 2);
	writes[1].c.out_take = NULL;
	start = reactor_now_ns();
	EXPECT(co_tmf(&a, SCSI_TMF_ABORT_TASK, &writes[0]) == 0);
	(void)reactor_co_call(scsi_nexus_home(a.n), tmf_there, &all);
	EXPECT(reactor_now_ns() - start > TIMEOUT_NS - SOON_NS && reactor_now_ns() - start < TIMEOUT_NS + NS_PER_SEC);
	writes_are_over(2);
	co_heal();
	hang(true);
	memset(rig.out, 5, 8 * MIB);
	for (i = 0; i < 9; i++)
		co_begin(&big[i], &a, CDB(OP_WRITE_16, 0, B8(0), B4(16384), 0, 0), 8 * MIB);
	co_sleep_ns(NS_PER_MS);
	start = reactor_now_ns();
	(void)reactor_co_call(scsi_nexus_home(a.n), tmf_there, &all);
	EXPECT(reactor_now_ns() - start > TIMEOUT_NS - SOON_NS);
	for (i = 0; i < 9; i++) {
		EXPECT(big[i].done && big[i].r.aborted);
		sent(&big[i]);
	}
	co_heal();
	co_logout(&a);
	return 0;
}

static void every_command_is_aborted_in_time(void) { rig_run(51, 512 * MIB, aborts); }
static void what_a_reset_has_ended_is_over_for_whoever_looks(void) { rig_run(52, 512 * MIB, resets); }
static void task_sets_end_in_time(void) { rig_run(53, 512 * MIB, other_ways); }
static void memory_that_stays_is_waited_for(void) { rig_run(54, 512 * MIB, kept); }

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(every_command_is_aborted_in_time),
		TEST(what_a_reset_has_ended_is_over_for_whoever_looks),
		TEST(task_sets_end_in_time),
		TEST(memory_that_stays_is_waited_for),
		CU_TEST_INFO_NULL,
	};

	return tests_run("scsi_stuck", tests);
}
