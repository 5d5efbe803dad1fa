/*
 * Commands of initiators: CDBs and their data-out, one after the other or many at once, from three nexuses to two LUs on devices in
 * memory. Of each command: a byte (which nexus; abort; wait), the CDB's 16 bytes, two bytes of how long its data-out is, that.
 *
 * Whatever it is: it is answered once, sense is well formed, and nothing is left behind. The third nexus is another session's, which
 * has the second LU alone: the first LU's data, which begins with a mark, is never in what it gets.
 */
#include "engine/io/sim.h"
#include "frontends/iscsi/scsi_internal.h"
#include "tests/lib/mem_bdev.h"

#define VOLUME_BYTES (8 * MIB)
#define COMMANDS_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t mark[16] = "not for others!";

struct command {
	struct scsi_cmd c;
	struct iovec iov;
	uint8_t *out;
	size_t out_bytes;
	bool done, is_other;
	struct command *next;
};

struct run {
	struct scsi_target t;
	struct scsi_lu lu[2];
	struct scsi_nexus n[3];
	struct mem_bdev *m[2];
	const uint8_t *p;
	size_t left;
	unsigned n_open;
	struct command *all;
};

static struct run *run;

static void command_done(struct scsi_cmd *c)
{
	struct command *x = c->owner;

	CHECK(!x->done && (c->in.iov_len == 0 || c->in.iov_base) && c->in.iov_len <= SCSI_TRANSFER_MAX);
	CHECK(c->status != SCSI_CHECK_CONDITION || c->aborted || (c->sense_len >= 8 && c->sense_len <= SCSI_SENSE_MAX));
	if (x->is_other && c->in.iov_len)
		CHECK(!memmem(c->in.iov_base, c->in.iov_len, mark, sizeof(mark)));
	x->done = true;
	run->n_open--;
	scsi_cmd_fini(c);
}

static void lu_init(struct run *r, unsigned i)
{
	struct mem_bdev_options o = { .size_bytes = VOLUME_BYTES, .max_bytes = 256 * KIB };
	struct scsi_lu *lu = &r->lu[i];

	r->m[i] = mem_bdev_create(&o);
	lu->target = &r->t;
	lu->refs = 1;
	lu->home = reactor_self();
	lu->bdev = mem_bdev_of(r->m[i]);
	lu->lba_bytes = 512;
	lu->lba_shift = 9;
	lu->cluster_bytes = 4096;
	lu->uuid.b[0] = (uint8_t)(i + 1);
	be_put64(lu->naa, 3ULL << 60 | i);
	lu->pr = scsi_pr_create();
	list_init(&lu->nexuses);
	list_init(&lu->tasks);
	list_init(&lu->co_waiting);
	list_init(&lu->copies);
	co_queue_init(&lu->task_ended);
	list_push_back(&r->t.lus, &lu->link);
}

static void run_init(struct run *r)
{
	unsigned i;

	r->t.world = reactor_self()->world;
	co_mutex_init(&r->t.admin);
	list_init(&r->t.lus);
	list_init(&r->t.nexuses);
	list_init(&r->t.idle_prs);
	scsi_tokens_init(&r->t);
	lu_init(r, 0);
	lu_init(r, 1);
	for (i = 0; i < 64; i++)
		mem_bdev_poke(r->m[0], i * 4096, mark, sizeof(mark));
	for (i = 0; i < 3; i++) {
		struct scsi_nexus *n = &r->n[i];

		n->target = &r->t;
		n->lu = &r->lu[i > 0];
		n->conf = (struct scsi_nexus_conf){ .port = 1, .tpg = 1, .session = 1 + i / 2 };
		memcpy(n->conf.initiator, i == 2 ? "iqn.b,i,0x1" : "iqn.a,i,0x1", 12);
		memcpy(n->conf.target, "iqn.t,t,0x1", 12);
		list_push_back(&n->lu->nexuses, &n->link);
		list_push_back(&r->t.nexuses, &n->target_link);
	}
}

static void run_fini(struct run *r)
{
	unsigned i;

	for (i = 0; i < 2; i++) {
		while (r->lu[i].n_tasks)
			co_queue_wait(&r->lu[i].task_ended);
		scsi_copies_free(&r->lu[i]);
		scsi_pr_destroy(r->lu[i].pr);
		CHECK(r->lu[i].refs == 1 && !mem_bdev_in_flight(r->m[i]));
		mem_bdev_destroy(r->m[i]);
	}
	scsi_tokens_fini(&r->t);
}

static bool take(struct run *r, void *to, size_t n)
{
	if (r->left < n)
		return false;
	memcpy(to, r->p, n);
	r->p += n;
	r->left -= n;
	return true;
}

/* An expected length of its own, as the transport would give it. */
static bool command_send(struct run *r, uint8_t how)
{
	struct command *x = xcalloc(1, sizeof(*x));
	uint8_t len[2];

	if (!take(r, x->c.cdb, 16) || !take(r, len, 2)) {
		xfree(x);
		return false;
	}
	x->next = r->all;
	r->all = x;
	x->is_other = how % 3 == 2;
	x->out_bytes = MIN(be_get16(len), r->left);
	x->out = buf_alloc(x->out_bytes + 1);
	CHECK(take(r, x->out, x->out_bytes));
	x->iov = (struct iovec){ x->out, x->out_bytes };
	x->c.nexus = &r->n[how % 3];
	x->c.cdb_len = 16;
	x->c.attr = how >> 5 & 3;
	x->c.out_iov = &x->iov;
	x->c.out_iov_n = x->out_bytes ? 1 : 0;
	x->c.out_bytes = x->c.out_expected = (uint32_t)x->out_bytes;
	x->c.done = command_done;
	x->c.owner = x;
	(void)scsi_cdb_data_out(x->c.cdb, 16, 512);
	r->n_open++;
	scsi_submit(&x->c);
	return true;
}

static void commands_free(struct run *r)
{
	struct command *x;

	while ((x = r->all)) {
		r->all = x->next;
		CHECK(x->done);
		buf_free(x->out, x->out_bytes + 1);
		xfree(x);
	}
}

static int run_co(void *arg)
{
	struct run *r = arg;
	unsigned n = 0;
	uint8_t how;

	run_init(r);
	while (n++ < COMMANDS_MAX && take(r, &how, 1) && command_send(r, how)) {
		if (how & 0x80)
			(void)scsi_co_tmf(&r->n[how % 3], how & 4 ? SCSI_TMF_LUN_RESET : SCSI_TMF_ABORT_TASK_SET, NULL);
		while (how & 0x10 && r->n_open)
			co_sleep_ns(1000);
	}
	while (r->n_open)
		co_sleep_ns(1000);
	commands_free(r);
	run_fini(r);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sim_options o = { .seed = 1, .n_reactors = 1 };
	struct sim_disks *ds = sim_disks_create(1);
	struct world *w = sim_world_create(&o, ds);
	int result = -1, r;

	run = xcalloc(1, sizeof(*run));
	run->p = data;
	run->left = size;
	r = sim_run(w, run_co, run, &result, 3600 * NS_PER_SEC);
	CHECK(r == 0 && result == 0);
	sim_world_destroy(w);
	sim_disks_destroy(ds);
	xfree(run);
	return 0;
}
