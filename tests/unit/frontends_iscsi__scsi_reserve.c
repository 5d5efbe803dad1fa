/*
 * Reservations: who may, whom it is told, what outlives sessions and restarts.
 */
#include "tests/unit/frontends_iscsi__rig.h"
#include "tests/unit/unit.h"

static struct initiator a, b, c;

enum { REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, IGNORE, MOVE };

static struct result co_pr_out(struct initiator *i, uint8_t sa, uint8_t type, uint64_t key, uint64_t sa_key, uint8_t bits)
{
	uint8_t list[24] = { 0 };

	be_put64(list, key);
	be_put64(list + 8, sa_key);
	list[20] = bits;
	return CMD_OUT(i, list, 24, OP_PERSISTENT_RESERVE_OUT, sa, type, 0, 0, B4(24), 0);
}

#define REG(i, key, new) co_pr_out(i, REGISTER, 0, key, new, 0)

/* What there is, by the words of PERSISTENT RESERVE IN. */
static unsigned co_keys(struct initiator *i, uint64_t *first)
{
	GOOD(CMD(i, OP_PERSISTENT_RESERVE_IN, 0, 0, 0, 0, 0, 0, B2(4096), 0));
	*first = be_get32(rig.in + 4) ? be_get64(rig.in + 8) : 0;
	return be_get32(rig.in + 4) / 8;
}

static unsigned co_type(struct initiator *i, uint64_t *key)
{
	GOOD(CMD(i, OP_PERSISTENT_RESERVE_IN, 1, 0, 0, 0, 0, 0, B2(4096), 0));
	*key = 0;
	if (!be_get32(rig.in + 4))
		return 0;
	EXPECT(be_get32(rig.in + 4) == 16);
	*key = be_get64(rig.in + 8);
	return rig.in[21];
}

static void co_all_in(void)
{
	co_login(&a, 1, "a");
	co_login(&b, 2, "a");
	co_login(&c, 3, "a");
}

static void co_all_out(void)
{
	co_logout(&a);
	co_logout(&b);
	co_logout(&c);
}

/* ---- the old ones ---- */

static int reserve_6(void)
{
	co_all_in();
	GOOD(CMD(&a, OP_RESERVE_6, 0, 0, 0, 0, 0));
	GOOD(CMD(&a, OP_RESERVE_6, 0, 0, 0, 0, 0));
	CONFLICT(CMD(&b, OP_RESERVE_6, 0, 0, 0, 0, 0));
	CONFLICT(CMD(&b, 0, 0, 0, 0, 0, 0));
	CONFLICT(co_read(&b, 0, 1));
	CONFLICT(co_write(&b, 0, 1, 1));
	GOOD(co_write(&a, 0, 1, 1));
	GOOD(CMD(&b, OP_INQUIRY, 0, 0, 0, 36, 0));
	GOOD(CMD(&b, OP_REQUEST_SENSE, 0, 0, 0, 18, 0));
	GOOD(CMD(&b, OP_RELEASE_6, 0, 0, 0, 0, 0)); /* does nothing */
	CONFLICT(CMD(&b, 0, 0, 0, 0, 0, 0));
	EXPECT(a.n->lu->bdev->fence == BDEV_FENCE_ALL);
	GOOD(CMD(&a, OP_RELEASE_6, 0, 0, 0, 0, 0));
	EXPECT(a.n->lu->bdev->fence == BDEV_FENCE_NONE);
	GOOD(CMD(&b, OP_RESERVE_10, 0, 0, 0, 0, 0, 0, B2(0), 0));
	CONFLICT(co_read(&a, 0, 1));
	co_logout(&b); /* with its session it is over */
	GOOD(co_read(&a, 0, 1));
	GOOD(CMD(&a, OP_RESERVE_6, 0, 0, 0, 0, 0));
	CONFLICT(co_read(&c, 0, 1));
	co_login_raw(&b, 2, "a");
	ATTENTION(ASC_POWER_ON, &b);
	CONFLICT(co_read(&b, 0, 1));
	BAD_CDB(CMD(&a, OP_RESERVE_6, 1, 0, 0, 0, 0));
	co_all_out();
	return 0;
}

static int reset_there(void *arg)
{
	return scsi_co_tmf(arg, SCSI_TMF_LUN_RESET, NULL);
}

static int reset(void)
{
	co_all_in();
	GOOD(CMD(&a, OP_RESERVE_6, 0, 0, 0, 0, 0));
	EXPECT(reactor_co_call(scsi_nexus_home(b.n), reset_there, b.n) == 0);
	ATTENTION(ASC_LUN_RESET, &a);
	ATTENTION(ASC_LUN_RESET, &c);
	ATTENTION(ASC_LUN_RESET, &b);
	GOOD(co_read(&b, 0, 1));
	EXPECT(a.n->lu->bdev->fence == BDEV_FENCE_NONE);
	/* persistent ones stay */
	GOOD(REG(&a, 0, 1));
	GOOD(co_pr_out(&a, RESERVE, PR_EXCLUSIVE_ACCESS, 1, 0, 0));
	EXPECT(reactor_co_call(scsi_nexus_home(b.n), reset_there, b.n) == 0);
	ATTENTION(ASC_LUN_RESET, &b);
	CONFLICT(co_read(&b, 0, 1));
	ATTENTION(ASC_LUN_RESET, &a);
	GOOD(co_pr_out(&a, CLEAR, 0, 1, 0, 0));
	co_all_out();
	return 0;
}

/* ---- the six types ---- */

static const struct {
	uint8_t type;
	bool others_read, registered_all;
} types[] = {
	{ PR_WRITE_EXCLUSIVE, true, false },	       { PR_EXCLUSIVE_ACCESS, false, false },
	{ PR_WRITE_EXCLUSIVE_REGISTRANTS, true, true }, { PR_EXCLUSIVE_ACCESS_REGISTRANTS, false, true },
	{ PR_WRITE_EXCLUSIVE_ALL, true, true },	       { PR_EXCLUSIVE_ACCESS_ALL, false, true },
};

#define MAY(yes, call) EXPECT((call).status == ((yes) ? SCSI_GOOD : SCSI_RESERVATION_CONFLICT))

/* a holds it, b is registered, c is not. */
static void co_table(unsigned k)
{
	bool r = types[k].others_read, all = types[k].registered_all;

	GOOD(co_read(&a, 0, 1));
	GOOD(co_write(&a, 0, 1, 1));
	MAY(r || all, co_read(&b, 0, 1));
	MAY(all, co_write(&b, 0, 1, 1));
	MAY(r, co_read(&c, 0, 1));
	MAY(false, co_write(&c, 0, 1, 1));
	MAY(r, CMD(&c, OP_VERIFY_10, 0, B4(0), 0, B2(1), 0));
	MAY(r, CMD(&c, OP_SERVICE_ACTION_IN_16, SA_GET_LBA_STATUS, B8(0), B4(24), 0, 0));
	MAY(false, CMD(&c, OP_SYNCHRONIZE_CACHE_10, 0, B4(0), 0, B2(0), 0));
	MAY(false, CMD(&c, OP_UNMAP, 0, 0, 0, 0, 0, 0, B2(0), 0));
	MAY(false, CMD(&c, OP_MODE_SENSE_6, 0, 0x3f, 0, 255, 0));
	GOOD(CMD(&b, OP_MODE_SENSE_6, 0, 0x3f, 0, 255, 0));
	MAY(false, CMD(&c, OP_RESERVE_6, 0, 0, 0, 0, 0));
	MAY(all, CMD(&b, OP_RESERVE_6, 0, 0, 0, 0, 0));
	EXPECT(!a.n->lu->reserved_by);
	MAY(true, CMD(&c, OP_START_STOP_UNIT, 0, 0, 0, 1, 0));
	MAY(false, CMD(&c, OP_START_STOP_UNIT, 0, 0, 0, 0, 0));
	MAY(false, CMD(&c, OP_PREVENT_ALLOW, 0, 0, 0, 1, 0));
	GOOD(CMD(&c, OP_PREVENT_ALLOW, 0, 0, 0, 0, 0));
	GOOD(CMD(&c, 0, 0, 0, 0, 0, 0));
	GOOD(CMD(&c, OP_READ_CAPACITY_10, 0, 0, 0, 0, 0, 0, 0, 0, 0));
	GOOD(CMD(&c, OP_MAINTENANCE_IN, SA_REPORT_TARGET_PORT_GROUPS, 0, 0, 0, 0, B4(255), 0, 0));
	CONFLICT(co_pr_out(&c, RESERVE, types[k].type, 3, 0, 0));
	EXPECT(a.n->lu->bdev->fence == (r ? BDEV_FENCE_WRITES : BDEV_FENCE_ALL));
}

static int six(void)
{
	uint64_t key;
	unsigned k;

	co_all_in();
	GOOD(REG(&a, 0, 0xa));
	GOOD(REG(&b, 0, 0xb));
	for (k = 0; k < ARRAY_LEN(types); k++) {
		bool all = scsi_pr_type_is_all(types[k].type);

		GOOD(co_pr_out(&a, RESERVE, types[k].type, 0xa, 0, 0));
		GOOD(co_pr_out(&a, RESERVE, types[k].type, 0xa, 0, 0));
		EXPECT(co_type(&c, &key) == types[k].type && key == (all ? 0 : 0xa));
		MAY(all, co_pr_out(&b, RESERVE, types[k].type, 0xb, 0, 0));
		CONFLICT(co_pr_out(&a, RESERVE, types[k].type == 1 ? 3 : 1, 0xa, 0, 0));
		co_table(k);
		FAILS(KEY_ILLEGAL_REQUEST, ASC_RELEASE_OF_NONE, co_pr_out(&a, RELEASE, types[k].type == 1 ? 3 : 1, 0xa, 0, 0));
		CONFLICT(co_pr_out(&a, RELEASE, types[k].type, 0xb, 0, 0));
		if (!all)
			GOOD(co_pr_out(&b, RELEASE, types[k].type, 0xb, 0, 0)); /* not its: nothing happens */
		EXPECT(co_type(&c, &key) == types[k].type);
		GOOD(co_pr_out(&a, RELEASE, types[k].type, 0xa, 0, 0));
		EXPECT(co_type(&c, &key) == 0);
		if (types[k].registered_all)
			ATTENTION(ASC_RESERVATIONS_RELEASED, &b);
		GOOD(co_write(&c, 0, 1, 1));
		EXPECT(a.n->lu->bdev->fence == BDEV_FENCE_NONE);
	}
	BAD_CDB(co_pr_out(&a, RESERVE, 2, 0xa, 0, 0));
	BAD_CDB(co_pr_out(&a, RESERVE, 0x11, 0xa, 0, 0));
	co_all_out();
	return 0;
}

/* ---- registering ---- */

static int registering(void)
{
	uint64_t key;

	co_all_in();
	EXPECT(co_keys(&a, &key) == 0);
	CONFLICT(REG(&a, 5, 6)); /* it has none to begin with */
	GOOD(REG(&a, 0, 0));
	EXPECT(co_keys(&a, &key) == 0);
	GOOD(REG(&a, 0, 6));
	CONFLICT(REG(&a, 0, 7));
	CONFLICT(REG(&a, 5, 7));
	GOOD(REG(&a, 6, 7));
	EXPECT(co_keys(&b, &key) == 1 && key == 7);
	GOOD(co_pr_out(&a, IGNORE, 0, 99, 8, 0));
	EXPECT(co_keys(&b, &key) == 1 && key == 8);
	EXPECT(be_get32(rig.in) == 4); /* generation */
	GOOD(co_pr_out(&b, IGNORE, 0, 99, 8, 0));
	EXPECT(co_keys(&b, &key) == 2);
	CONFLICT(co_pr_out(&c, CLEAR, 0, 8, 0, 0));
	/* what goes with its holder */
	GOOD(co_pr_out(&a, RESERVE, PR_WRITE_EXCLUSIVE_REGISTRANTS, 8, 0, 0));
	GOOD(REG(&a, 8, 0));
	EXPECT(co_type(&a, &key) == 0);
	ATTENTION(ASC_RESERVATIONS_RELEASED, &b);
	GOOD(REG(&a, 0, 1));
	/* of the types that all hold: only with the last */
	GOOD(co_pr_out(&a, RESERVE, PR_EXCLUSIVE_ACCESS_ALL, 1, 0, 0));
	GOOD(REG(&a, 1, 0));
	EXPECT(co_type(&b, &key) == PR_EXCLUSIVE_ACCESS_ALL);
	GOOD(REG(&b, 8, 0));
	EXPECT(co_type(&b, &key) == 0);
	/* lists */
	BAD_LENGTH(CMD_OUT(&a, rig.out, 20, OP_PERSISTENT_RESERVE_OUT, REGISTER, 0, 0, 0, B4(20), 0));
	BAD_LENGTH(CMD_OUT(&a, rig.out, 0, OP_PERSISTENT_RESERVE_OUT, REGISTER, 0, 0, 0, B4(0), 0));
	BAD_LENGTH(CMD_OUT(&a, rig.out, 10, OP_PERSISTENT_RESERVE_OUT, REGISTER, 0, 0, 0, B4(24), 0));
	BAD_LENGTH(CMD_OUT(&a, rig.out, 28, OP_PERSISTENT_RESERVE_OUT, REGISTER, 0, 0, 0, B4(28), 0));
	BAD_LIST(co_pr_out(&a, REGISTER, 0, 0, 1, 4)); /* all target ports */
	BAD_CDB(CMD(&a, OP_PERSISTENT_RESERVE_IN, 4, 0, 0, 0, 0, 0, B2(255), 0));
	BAD_CDB(co_pr_out(&a, 8, 0, 0, 0, 0));
	co_all_out();
	return 0;
}

static size_t put_transport_id(uint8_t *p, unsigned who)
{
	memset(p, 0, 64);
	p[0] = 0x45;
	be_put16(p + 2, 60);
	snprintf((char *)p + 4, 60, "iqn.2020-01.test:i%u,i,0x00023d00%04x", who, who);
	return 64;
}

static int for_others(void)
{
	uint8_t list[24 + 4 + 128] = { 0 };
	uint64_t key;

	co_all_in();
	be_put64(list + 8, 0x77);
	list[20] = 8;
	be_put32(list + 24, 128);
	put_transport_id(list + 28, 2);
	put_transport_id(list + 92, 9); /* who has never been here */
	GOOD(CMD_OUT(&a, list, sizeof(list), OP_PERSISTENT_RESERVE_OUT, REGISTER, 0, 0, 0, B4(sizeof(list)), 0));
	EXPECT(co_keys(&a, &key) == 3);
	GOOD(co_pr_out(&b, RESERVE, PR_EXCLUSIVE_ACCESS_REGISTRANTS, 0x77, 0, 0));
	GOOD(co_read(&a, 0, 1));
	CONFLICT(co_read(&c, 0, 1));
	/* full status names them */
	GOOD(CMD(&c, OP_PERSISTENT_RESERVE_IN, 3, 0, 0, 0, 0, 0, B2(4096), 0));
	EXPECT(be_get64(rig.in + 8) == 0x77 && be_get16(rig.in + 26) == 1 && rig.in[32] == 0x45);
	EXPECT(strstr((char *)rig.in + 36, "iqn.2020-01.test:i2,i,") == (char *)rig.in + 36);
	EXPECT(rig.in[20] == 1 && rig.in[21] == PR_EXCLUSIVE_ACCESS_REGISTRANTS);
	/* damaged: nothing changes */
	list[92] = 0x05;
	be_put64(list, 0);
	BAD_LIST(CMD_OUT(&c, list, sizeof(list), OP_PERSISTENT_RESERVE_OUT, REGISTER, 0, 0, 0, B4(sizeof(list)), 0));
	be_put32(list + 24, 120);
	BAD_LENGTH(CMD_OUT(&c, list, sizeof(list), OP_PERSISTENT_RESERVE_OUT, REGISTER, 0, 0, 0, B4(sizeof(list)), 0));
	EXPECT(co_keys(&a, &key) == 3);
	GOOD(co_pr_out(&b, CLEAR, 0, 0x77, 0, 0));
	ATTENTION(ASC_RESERVATIONS_PREEMPTED, &a);
	EXPECT(co_keys(&a, &key) == 0);
	co_all_out();
	return 0;
}

static struct result co_move(struct initiator *i, uint64_t key, uint64_t sa_key, unsigned to, uint8_t bits)
{
	uint8_t list[24 + 64] = { 0 };

	be_put64(list, key);
	be_put64(list + 8, sa_key);
	list[17] = bits;
	be_put16(list + 18, 1);
	be_put32(list + 20, 64);
	put_transport_id(list + 24, to);
	return CMD_OUT(i, list, sizeof(list), OP_PERSISTENT_RESERVE_OUT, MOVE, 0, 0, 0, B4(sizeof(list)), 0);
}

static int moving(void)
{
	uint64_t key;

	co_all_in();
	GOOD(REG(&a, 0, 1));
	CONFLICT(co_move(&a, 1, 2, 2, 0)); /* holds nothing */
	GOOD(co_pr_out(&a, RESERVE, PR_WRITE_EXCLUSIVE, 1, 0, 0));
	CONFLICT(co_move(&a, 9, 2, 2, 0));
	BAD_LIST(co_move(&a, 1, 0, 2, 0));
	BAD_LIST(co_move(&a, 1, 2, 1, 0)); /* to itself */
	GOOD(co_move(&a, 1, 2, 2, 0));
	EXPECT(co_type(&a, &key) == PR_WRITE_EXCLUSIVE && key == 2 && co_keys(&a, &key) == 2);
	CONFLICT(co_write(&a, 0, 1, 1));
	GOOD(co_write(&b, 0, 1, 1));
	GOOD(co_move(&b, 2, 3, 3, 2)); /* and goes itself */
	EXPECT(co_keys(&a, &key) == 2);
	CONFLICT(co_write(&b, 0, 1, 1));
	GOOD(co_write(&c, 0, 1, 1));
	GOOD(co_pr_out(&c, CLEAR, 0, 3, 0, 0));
	co_all_out();
	return 0;
}

/* ---- taking away ---- */

static int preempting(void)
{
	uint64_t key;

	co_all_in();
	GOOD(REG(&a, 0, 1));
	GOOD(REG(&b, 0, 2));
	GOOD(REG(&c, 0, 3));
	CONFLICT(co_pr_out(&a, PREEMPT, PR_WRITE_EXCLUSIVE, 1, 9, 0)); /* nobody has it */
	BAD_LIST(co_pr_out(&a, PREEMPT, PR_WRITE_EXCLUSIVE, 1, 0, 0));
	/* a registration alone */
	GOOD(co_pr_out(&a, PREEMPT, PR_WRITE_EXCLUSIVE, 1, 3, 0));
	EXPECT(co_keys(&a, &key) == 2 && co_type(&a, &key) == 0);
	ATTENTION(ASC_REGISTRATIONS_PREEMPTED, &c);
	GOOD(REG(&c, 0, 3));
	/* the reservation with it */
	GOOD(co_pr_out(&b, RESERVE, PR_EXCLUSIVE_ACCESS_REGISTRANTS, 2, 0, 0));
	GOOD(co_pr_out(&a, PREEMPT, PR_WRITE_EXCLUSIVE, 1, 2, 0));
	EXPECT(co_type(&a, &key) == PR_WRITE_EXCLUSIVE && key == 1 && co_keys(&a, &key) == 2);
	ATTENTION(ASC_REGISTRATIONS_PREEMPTED, &b);
	ATTENTION(ASC_RESERVATIONS_RELEASED, &c);
	CONFLICT(co_write(&b, 0, 1, 1));
	CONFLICT(co_pr_out(&b, RELEASE, PR_EXCLUSIVE_ACCESS_REGISTRANTS, 2, 0, 0));
	/* its own: another type */
	GOOD(co_pr_out(&a, PREEMPT, PR_EXCLUSIVE_ACCESS_ALL, 1, 1, 0));
	EXPECT(co_type(&a, &key) == PR_EXCLUSIVE_ACCESS_ALL && co_keys(&a, &key) == 2);
	/* of all: key 0 takes all */
	GOOD(co_pr_out(&c, PREEMPT, PR_WRITE_EXCLUSIVE, 3, 0, 0));
	EXPECT(co_type(&b, &key) == PR_WRITE_EXCLUSIVE && key == 3);
	EXPECT(co_keys(&b, &key) == 1 && key == 3);
	ATTENTION(ASC_REGISTRATIONS_PREEMPTED, &a);
	GOOD(co_pr_out(&c, CLEAR, 0, 3, 0, 0));
	co_all_out();
	return 0;
}

static int send_only(void *arg)
{
	send_start(arg);
	return 0;
}

/* What b has under way when a takes its registration away ends, and a is told GOOD after it. */
static int aborting(void)
{
	struct send s;
	uint8_t *buf = xaligned(4096, 4096);
	unsigned i;

	co_all_in();
	memset(buf, 0x55, 4096);
	GOOD(REG(&a, 0, 1));
	for (i = 0; i < RIG_DISKS; i++) {
		sim_disk_faults(rig.ds, i)->stall = 65536;
		sim_disk_faults(rig.ds, i)->stall_ns = 2 * NS_PER_SEC;
	}
	GOOD(REG(&b, 0, 2));
	s = (struct send){ .n = b.n, .c = { .cdb = { OP_WRITE_10, 0, B4(0), 0, B2(8), 0 }, .cdb_len = 10, .out_bytes = 4096 } };
	s.iov.iov_base = buf;
	(void)reactor_co_call(scsi_nexus_home(b.n), send_only, &s);
	EXPECT(!s.done);
	GOOD(co_pr_out(&a, PREEMPT_AND_ABORT, PR_WRITE_EXCLUSIVE, 1, 2, 0));
	EXPECT(s.done && s.r.aborted);
	ATTENTION(ASC_REGISTRATIONS_PREEMPTED, &b);
	for (i = 0; i < RIG_DISKS; i++)
		sim_disk_faults(rig.ds, i)->stall = 0;
	co_all_out();
	xfree(buf);
	return 0;
}

/* ---- what outlives what ---- */

static int outliving(void)
{
	uint64_t key;

	co_all_in();
	GOOD(REG(&a, 0, 1));
	GOOD(co_pr_out(&a, RESERVE, PR_EXCLUSIVE_ACCESS, 1, 0, 0));
	co_all_out();
	EXPECT(!list_is_empty(&rig.t->lus)); /* others are still kept out */
	co_all_in();
	CONFLICT(co_read(&b, 0, 1));
	GOOD(co_read(&a, 0, 1));
	GOOD(co_pr_out(&a, RELEASE, PR_EXCLUSIVE_ACCESS, 1, 0, 0));
	co_all_out();
	EXPECT(list_is_empty(&rig.t->lus));
	co_all_in();
	EXPECT(co_keys(&b, &key) == 1 && key == 1);
	co_all_out();
	/* a restart: not without APTPL */
	rig_co_close();
	EXPECT(rig_co_open() == 0);
	co_all_in();
	EXPECT(co_keys(&b, &key) == 0);
	GOOD(co_pr_out(&a, REGISTER, 0, 0, 1, 1));
	GOOD(REG(&b, 0, 2)); /* APTPL is off now */
	GOOD(co_pr_out(&b, REGISTER, 0, 2, 2, 1));
	GOOD(co_pr_out(&a, RESERVE, PR_WRITE_EXCLUSIVE_REGISTRANTS, 1, 0, 0));
	co_all_out();
	rig_co_close();
	EXPECT(rig_co_open() == 0);
	co_all_in();
	EXPECT(co_keys(&c, &key) == 2 && co_type(&c, &key) == PR_WRITE_EXCLUSIVE_REGISTRANTS && key == 1);
	CONFLICT(co_write(&c, 0, 1, 1));
	GOOD(co_write(&b, 0, 1, 1));
	GOOD(CMD(&c, OP_PERSISTENT_RESERVE_IN, 2, 0, 0, 0, 0, 0, B2(255), 0));
	EXPECT(be_get16(rig.in) == 8 && rig.in[3] == 0x81 && rig.in[4] == 0xea && rig.in[5] == 1);
	/* it cannot be kept: nothing has changed */
	rig.store_fails = true;
	EXPECT(co_pr_out(&b, PREEMPT, PR_WRITE_EXCLUSIVE, 2, 1, 0).key == KEY_HARDWARE_ERROR);
	EXPECT(co_keys(&c, &key) == 2 && co_type(&c, &key) == PR_WRITE_EXCLUSIVE_REGISTRANTS && key == 1);
	GOOD(co_write(&a, 0, 1, 1));
	rig.store_fails = false;
	GOOD(co_pr_out(&b, CLEAR, 0, 2, 0, 0));
	co_all_out();
	rig_co_close();
	EXPECT(rig_co_open() == 0);
	co_all_in();
	EXPECT(co_keys(&b, &key) == 0);
	co_all_out();
	return 0;
}

static int going(void)
{
	struct err e = { 0 };

	co_login(&a, 1, "b");
	GOOD(REG(&a, 0, 1));
	GOOD(co_pr_out(&a, RESERVE, PR_EXCLUSIVE_ACCESS, 1, 0, 0));
	co_logout(&a);
	EXPECT(ashlar_co_volume_delete(rig.p, "b", false, false, false, NULL, &e) < 0); /* in use: it is reserved */
	EXPECT(ashlar_co_volume_delete(rig.p, "b", true, false, false, NULL, &e) == 0);
	EXPECT(list_is_empty(&rig.t->lus));
	return 0;
}

/* More than there is room for. */
static int too_many(void)
{
	unsigned i;

	co_login(&a, 1, "a");
	for (i = 0; i < SCSI_PR_REGISTRATIONS_MAX; i++) {
		co_login(&b, 10 + i, "a");
		GOOD(REG(&b, 0, i + 1));
		co_logout(&b);
	}
	FAILS(KEY_ILLEGAL_REQUEST, ASC_INSUFFICIENT_REGISTRATIONS, REG(&a, 0, 5));
	GOOD(CMD(&a, OP_PERSISTENT_RESERVE_IN, 3, 0, 0, 0, 0, 0, B2(65535), 0));
	co_logout(&a);
	return 0;
}

static void old_reservations_end_with_their_session(void) { rig_run(1, 512 * MIB, reserve_6); }
static void a_reset_ends_old_reservations_only(void) { rig_run(2, 512 * MIB, reset); }
static void who_may_under_each_type(void) { rig_run(3, 512 * MIB, six); }
static void registrations_change_by_their_key(void) { rig_run(4, 512 * MIB, registering); }
static void others_are_registered_by_name(void) { rig_run(5, 512 * MIB, for_others); }
static void a_reservation_moves(void) { rig_run(6, 512 * MIB, moving); }
static void preempting_takes_registrations_away(void) { rig_run(7, 512 * MIB, preempting); }
static void preempt_and_abort_waits_for_writes(void) { rig_run(8, 512 * MIB, aborting); }
static void aptpl_outlives_a_restart(void) { rig_run(9, 512 * MIB, outliving); }
static void a_reserved_volume_goes_by_force_only(void) { rig_run(10, 512 * MIB, going); }
static void registrations_are_limited(void) { rig_run(11, 512 * MIB, too_many); }

static void bytes_that_are_not_ours_are_refused(void)
{
	static uint8_t good[SCSI_PR_STATE_MAX], bad[SCSI_PR_STATE_MAX];
	struct scsi_pr *p = scsi_pr_create(), *q = scsi_pr_create();
	struct rng rng;
	unsigned i, refused = 0;
	size_t n, len;

	rng_init(&rng, 4);
	EXPECT(scsi_pr_add(p, "iqn.one,i,0x1", 1, 5) && scsi_pr_add(p, "iqn.two,i,0x1", 1, 6));
	p->type = PR_WRITE_EXCLUSIVE;
	p->holder = scsi_pr_find(p, "iqn.two,i,0x1", 1);
	n = scsi_pr_encode(p, good);
	EXPECT(scsi_pr_decode(q, good, n) == 0 && q->n_regs == 2 && q->holder && q->holder->key == 6);
	for (i = 0; i < 20000; i++) {
		memcpy(bad, good, n);
		bad[rng_below(&rng, n)] ^= (uint8_t)(1 << rng_below(&rng, 8));
		len = rng_below(&rng, 3) ? n : rng_below(&rng, n);
		if (scsi_pr_decode(q, bad, len) < 0) {
			refused++;
			EXPECT(!q->n_regs && !q->type && !q->holder);
		}
	}
	EXPECT(refused > 5000);
	scsi_pr_destroy(p);
	scsi_pr_destroy(q);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(old_reservations_end_with_their_session),
		TEST(a_reset_ends_old_reservations_only),
		TEST(who_may_under_each_type),
		TEST(registrations_change_by_their_key),
		TEST(others_are_registered_by_name),
		TEST(a_reservation_moves),
		TEST(preempting_takes_registrations_away),
		TEST(preempt_and_abort_waits_for_writes),
		TEST(aptpl_outlives_a_restart),
		TEST(a_reserved_volume_goes_by_force_only),
		TEST(registrations_are_limited),
		TEST(bytes_that_are_not_ours_are_refused),
		CU_TEST_INFO_NULL,
	};

	return tests_run("scsi_reserve", tests);
}
