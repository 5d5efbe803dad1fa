/*
 * Disks that initiators know stay what they are: over restarts, and when their volumes go to another pool.
 */
#include "frontends/iscsi/exports.h"
#include "tests/unit/frontends_iscsi__rig.h"
#include "tests/unit/unit.h"

#define N_WRITERS 8
#define WRITER_BLOCKS 4096U /* each has its own */

static struct initiator a, b;
static struct ashlar_pool *q;

static void co_both_open(void)
{
	struct err e = { 0 };

	EXPECT(rig_co_open() == 0);
	EXPECT(ashlar_co_pool_open(rig.a, "q", &rig_disk_paths[RIG_DISKS], 1, 0, &q, &e) == 0);
}

static void co_both_close(void)
{
	struct err e = { 0 };

	scsi_target_co_destroy(rig.t);
	EXPECT(ashlar_co_pool_close(q, &e) == 0);
	EXPECT(ashlar_co_pool_close(rig.p, &e) == 0);
	ashlar_co_destroy(rig.a);
}

/* Two pools, what is reserved is kept in them, and p/a is a disk. */
static void co_begin(void)
{
	struct ashlar_pool_spec s = { .name = "q", .paths = &rig_disk_paths[RIG_DISKS], .n_paths = 1, .group_bytes = 16 * MIB };
	struct iscsi_export x = { .lun = 3 };
	struct err e = { 0 };

	rig_co_close();
	rig.keeps_notes = true;
	EXPECT(rig_co_open() == 0);
	EXPECT(ashlar_co_pool_create(rig.a, &s, &e) == 0);
	EXPECT(ashlar_co_pool_open(rig.a, "q", s.paths, 1, 0, &q, &e) == 0);
	EXPECT(iscsi_export_co_add(rig.p, "a", &x, 3, &e) == 0);
}

/* The rig closes p. */
static int co_end(void)
{
	struct err e = { 0 };

	EXPECT(ashlar_co_pool_close(q, &e) == 0);
	return 0;
}

enum { REGISTER, RESERVE, RELEASE, IGNORE = 6 };

static void co_pr_out(struct initiator *i, uint8_t sa, uint8_t type, uint64_t key, uint64_t sa_key)
{
	uint8_t list[24] = { 0 };

	be_put64(list, key);
	be_put64(list + 8, sa_key);
	list[20] = sa == REGISTER || sa == IGNORE; /* APTPL */
	GOOD(CMD_OUT(i, list, 24, OP_PERSISTENT_RESERVE_OUT, sa, type, 0, 0, B4(24), 0));
}

static uint64_t co_holder(struct initiator *i)
{
	GOOD(CMD(i, OP_PERSISTENT_RESERVE_IN, 1, 0, 0, 0, 0, 0, B2(64), 0));
	return be_get32(rig.in + 4) == 16 ? be_get64(rig.in + 8) : 0;
}

/* What a client of another frontend meets who comes now. */
static int co_fence(const char *export_name)
{
	struct ashlar_attach *at;
	struct err e = { 0 };
	int fence = -1;

	EXPECT(ashlar_co_attach(rig.a, export_name, NULL, NULL, &at, &e) == 0);
	fence = ashlar_attach_bdev(at)->fence;
	ashlar_co_detach(at);
	return fence;
}

static void co_id(struct initiator *i, uint8_t id[64])
{
	struct result r = CMD(i, OP_INQUIRY, 1, 0x83, B2(64), 0);

	GOOD(r);
	EXPECT(r.in_len == 64);
	memcpy(id, rig.in, 64);
}

/* Which pool has it as LUN 3 for initiators? */
static struct ashlar_pool *co_exported_by(void)
{
	struct ashlar_pool *p = NULL;
	struct iscsi_export *v;
	struct err e = { 0 };
	size_t n;

	EXPECT(iscsi_exports_co_list(rig.a, NULL, NULL, &v, &n, &e) == 0);
	EXPECT(n == 1 && v[0].lun == 3 && !strcmp(v[0].volume, "a") && !strcmp(v[0].target, ISCSI_IQN_PREFIX "p.a"));
	if (n == 1)
		p = ashlar_pool_find(rig.a, v[0].pool);
	iscsi_exports_free(v, n);
	return p;
}

/* ---- restarts ---- */

static int restarts(void)
{
	struct err e = { 0 };

	co_begin();
	co_login(&a, 1, "a");
	co_pr_out(&a, REGISTER, 0, 0, 7);
	EXPECT(co_fence("p/a") == BDEV_FENCE_NONE);
	co_pr_out(&a, RESERVE, PR_EXCLUSIVE_ACCESS, 7, 0);
	EXPECT(co_fence("p/a") == BDEV_FENCE_ALL);
	co_logout(&a);
	co_both_close();

	co_both_open(); /* nobody is logged in */
	EXPECT(co_fence("p/a") == BDEV_FENCE_ALL);
	EXPECT(co_fence("p/b") == BDEV_FENCE_NONE);
	co_login(&a, 1, "a");
	EXPECT(co_holder(&a) == 7);
	co_pr_out(&a, RELEASE, PR_EXCLUSIVE_ACCESS, 7, 0);
	EXPECT(co_fence("p/a") == BDEV_FENCE_NONE);
	co_pr_out(&a, RESERVE, PR_WRITE_EXCLUSIVE, 7, 0);
	co_logout(&a);
	EXPECT(co_fence("p/a") == BDEV_FENCE_WRITES);
	co_both_close();

	co_both_open();
	EXPECT(co_fence("p/a") == BDEV_FENCE_WRITES);
	/* It is no disk any more: nobody could ever take the reservation away. */
	EXPECT(iscsi_export_co_remove(rig.p, "a", "", -1, &e) == 0);
	EXPECT(co_fence("p/a") == BDEV_FENCE_NONE);
	co_both_close();
	co_both_open();
	EXPECT(co_fence("p/a") == BDEV_FENCE_NONE);
	return co_end();
}

/* A reservation that is only held in memory ends likewise. */
static int removed(void)
{
	struct err e = { 0 };

	co_begin();
	co_login(&a, 1, "a");
	co_pr_out(&a, REGISTER, 0, 0, 7);
	co_pr_out(&a, RESERVE, PR_EXCLUSIVE_ACCESS, 7, 0);
	co_logout(&a);
	EXPECT(co_fence("p/a") == BDEV_FENCE_ALL);
	scsi_target_co_tidy(rig.t);
	EXPECT(co_fence("p/a") == BDEV_FENCE_ALL);
	EXPECT(iscsi_export_co_remove(rig.p, "a", "", -1, &e) == 0);
	scsi_target_co_tidy(rig.t);
	EXPECT(co_fence("p/a") == BDEV_FENCE_NONE && list_is_empty(&rig.t->lus));
	return co_end();
}

/* ---- moves ---- */

struct writer {
	uint64_t first;
	uint8_t fill[WRITER_BLOCKS];
	uint32_t rng;
	uint64_t n;
};

static struct writer writers[N_WRITERS];
static unsigned n_writing;
static bool stop;

static uint32_t writer_rng(struct writer *w)
{
	return w->rng = w->rng * 1664525 + 1013904223;
}

/* The rig's buffers are for one command at a time. */
static void writer_co_step(struct writer *w, uint8_t *buf)
{
	uint32_t at = (writer_rng(w) >> 8) % WRITER_BLOCKS, n = 1 + (writer_rng(w) >> 8) % 64, k;
	struct send s = { .n = a.n };
	uint8_t fill = (uint8_t)(writer_rng(w) >> 8);

	n = MIN(n, WRITER_BLOCKS - at);
	memset(buf, fill, n * 512);
	s.c.cdb[0] = OP_WRITE_16;
	be_put64(s.c.cdb + 2, w->first + at);
	be_put32(s.c.cdb + 10, n);
	s.c.cdb_len = 16;
	s.c.attr = SCSI_SIMPLE;
	s.iov.iov_base = buf;
	s.c.out_bytes = n * 512;
	(void)reactor_co_call(scsi_nexus_home(a.n), send_there, &s);
	EXPECT(s.r.status == SCSI_GOOD);
	for (k = 0; k < n; k++)
		w->fill[at + k] = fill;
	w->n++;
}

static void writer_run(void *arg)
{
	uint8_t *buf = buf_alloc(64 * 512);

	while (!stop) {
		writer_co_step(arg, buf);
		co_sleep_ns(NS_PER_MS);
	}
	buf_free(buf, 64 * 512);
	n_writing--;
}

static uint64_t last_key;

/* And somebody registers again and again, to be kept. */
static void registrar_run(void *arg)
{
	while (!stop) {
		co_pr_out(&b, IGNORE, 0, 0, last_key + 1);
		last_key++;
		co_sleep_ns(NS_PER_MS / 2);
	}
	n_writing--;
}

static bool co_has_key(struct initiator *i, uint64_t key)
{
	uint32_t at;

	GOOD(CMD(i, OP_PERSISTENT_RESERVE_IN, 0, 0, 0, 0, 0, 0, B2(4096), 0));
	for (at = 0; at < be_get32(rig.in + 4); at += 8)
		if (be_get64(rig.in + 8 + at) == key)
			return true;
	return false;
}

static void writers_start(void)
{
	stop = false;
	for (n_writing = 0; n_writing < N_WRITERS; n_writing++) {
		writers[n_writing].first = n_writing * WRITER_BLOCKS;
		writers[n_writing].rng ^= n_writing + 1;
		co_spawn(CO_SERVICE, writer_run, &writers[n_writing], "writer");
	}
	n_writing++;
	co_spawn(CO_SERVICE, registrar_run, NULL, "registrar");
}

static void co_writers_stop(void)
{
	stop = true;
	while (n_writing)
		co_sleep_ns(NS_PER_MS);
}

static void co_written(struct initiator *i)
{
	unsigned w, k;

	for (w = 0; w < N_WRITERS; w++) {
		GOOD(co_read(i, writers[w].first, WRITER_BLOCKS));
		for (k = 0; k < WRITER_BLOCKS; k++)
			EXPECT(rig.in[k * 512UL] == writers[w].fill[k] && rig.in[k * 512UL + 511] == writers[w].fill[k]);
	}
}

/* While it is written to. */
static void co_move(struct ashlar_pool *from, struct ashlar_pool *to)
{
	struct ashlar_move_spec s = { .volume = "a", .to = to, .layout = to == q ? "single" : "raid1" };
	struct ashlar_move_info info;
	struct ashlar_job_info job;
	struct err e = { 0 };
	int r;

	writers_start();
	co_sleep_ns(50 * NS_PER_MS);
	r = ashlar_co_volume_move(from, &s, &info, &e);
	if (r < 0)
		fprintf(stderr, "move: %s\n", e.text);
	EXPECT(r == 0 && ashlar_co_job_wait(from, info.job, 600 * NS_PER_SEC, &job, &e) == 0);
	EXPECT(job.state == ASHLAR_JOB_DONE);
	co_sleep_ns(NS_PER_SEC);
	co_writers_stop();
	EXPECT(co_exported_by() == to && co_has_key(&a, last_key));
}

static int moves(void)
{
	struct ashlar_attach *nbd;
	uint8_t id[64], now[64];
	struct err e = { 0 };

	memset(writers, 0, sizeof(writers));
	last_key = 1000;
	co_begin();
	co_login(&a, 1, "a");
	co_login(&b, 2, "a");
	co_id(&a, id);
	co_pr_out(&a, REGISTER, 0, 0, 7);
	co_pr_out(&a, RESERVE, PR_WRITE_EXCLUSIVE, 7, 0);
	co_move(rig.p, q);
	EXPECT(a.n_gone == 0 && b.n_gone == 0 && a.n->lu == b.n->lu);
	EXPECT(ashlar_attach_bdev(a.n->lu->at) == a.n->lu->bdev);
	co_id(&a, now);
	EXPECT(!memcmp(id, now, 64));
	co_written(&a);
	CONFLICT(co_write(&b, 0, 1, 1));
	EXPECT(co_fence("p/a") == BDEV_FENCE_WRITES);
	/* who comes anew finds the same LU; what is reserved now is kept in the new place */
	co_logout(&b);
	co_login(&b, 2, "a");
	EXPECT(a.n->lu == b.n->lu);
	co_pr_out(&b, IGNORE, 0, 0, 8);
	EXPECT(ashlar_co_attach(rig.a, "p/a", NULL, NULL, &nbd, &e) == 0);
	co_pr_out(&a, RELEASE, PR_WRITE_EXCLUSIVE, 7, 0);
	EXPECT(ashlar_attach_bdev(nbd)->fence == BDEV_FENCE_NONE);
	co_pr_out(&b, RESERVE, PR_EXCLUSIVE_ACCESS, 8, 0);
	EXPECT(ashlar_attach_bdev(nbd)->fence == BDEV_FENCE_ALL);
	ashlar_co_detach(nbd);
	co_logout(&a);
	co_logout(&b);
	co_both_close();

	co_both_open();
	EXPECT(co_exported_by() == q && co_fence("p/a") == BDEV_FENCE_ALL);
	co_login(&b, 2, "a");
	co_id(&b, now);
	EXPECT(!memcmp(id, now, 64) && co_holder(&b) == 8);
	co_pr_out(&b, RELEASE, PR_EXCLUSIVE_ACCESS, 8, 0);
	co_login(&a, 1, "a");
	co_written(&a);

	co_move(q, rig.p); /* and back */
	EXPECT(a.n_gone == 0 && b.n_gone == 0);
	co_id(&a, now);
	EXPECT(!memcmp(id, now, 64));
	co_written(&b);
	co_logout(&a);
	co_logout(&b);
	co_both_close();
	co_both_open();
	co_login(&a, 1, "a");
	co_id(&a, now);
	EXPECT(!memcmp(id, now, 64) && co_holder(&a) == 0 && co_has_key(&a, last_key));
	co_written(&a);
	co_logout(&a);
	return co_end();
}

static void a_reservation_holds_before_anybody_has_come(void) { rig_run(41, 256 * MIB, restarts); }
static void a_reservation_ends_with_the_last_export(void) { rig_run(42, 256 * MIB, removed); }
static void a_disk_stays_what_it_is_in_another_pool(void)
{
	unsigned i;

	for (i = 0; i < 4; i++)
		rig_run(43 + i, 256 * MIB, moves);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(a_reservation_holds_before_anybody_has_come),
		TEST(a_reservation_ends_with_the_last_export),
		TEST(a_disk_stays_what_it_is_in_another_pool),
		CU_TEST_INFO_NULL,
	};

	return tests_run("scsi_move", tests);
}
