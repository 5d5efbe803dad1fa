/*
 * frontends_iscsi__rig.h: real volumes of a pool on simulated disks as SCSI disks, and initiators that send commands one by one.
 * Everything with _co_ runs on reactor 0.
 */
#ifndef TESTS_UNIT_FRONTENDS_ISCSI__RIG_H
#define TESTS_UNIT_FRONTENDS_ISCSI__RIG_H

#include <stdio.h>
#include <stdlib.h>
#include <CUnit/Basic.h>

#include "engine/io/sim.h"
#include "frontends/iscsi/scsi_internal.h"

#define RIG_VOLUME_BYTES (64 * MIB)
#define RIG_BLOCKS (RIG_VOLUME_BYTES / 512)
#define RIG_IN_MAX (9 * MIB)

static unsigned n_problems;

#define EXPECT(cond)                                                                              \
	do {                                                                                      \
		bool ok_ = (cond);                                                                \
		if (!ok_ && n_problems++ < 20)                                                    \
			fprintf(stderr, "%s, line %d: %s\n", __func__, __LINE__, #cond);          \
		CU_ASSERT(ok_);                                                                   \
	} while (0)

struct kept {
	struct uuid lu;
	enum scsi_kept what;
	uint8_t bytes[4096];
	size_t len;
};

static struct {
	struct sim_disks *ds;
	struct world *w;
	struct ashlar *a;
	struct ashlar_pool *p;
	struct scsi_target *t;
	struct scsi_store store;
	struct kept kept[8];
	bool store_fails;
	bool keeps_notes; /* as the daemon does, not in kept[]; from the next rig_co_open() on */
	uint8_t *out, *in; /* RIG_IN_MAX each */
} rig;

/* ---- what is kept of LUs: memory that outlives worlds ---- */

static inline struct kept *kept_of(const struct uuid *lu, enum scsi_kept what)
{
	struct kept *k = rig.kept;

	while (!uuid_is_zero(&k->lu) && (!uuid_is_equal(&k->lu, lu) || k->what != what))
		k++;
	k->lu = *lu;
	k->what = what;
	return k;
}

static inline int kept_load(void *arg, const struct uuid *lu, enum scsi_kept what, uint8_t *buf, size_t *len)
{
	struct kept *k = kept_of(lu, what);

	if (!k->len)
		return -ENOENT;
	memcpy(buf, k->bytes, k->len);
	*len = k->len;
	return 0;
}

static inline int kept_save(void *arg, const struct uuid *lu, enum scsi_kept what, const uint8_t *buf, size_t len)
{
	struct kept *k = kept_of(lu, what);

	co_yield();
	if (rig.store_fails)
		return -EIO;
	EXPECT(len <= sizeof(k->bytes));
	memcpy(k->bytes, buf, len);
	k->len = len;
	return 0;
}

/* ---- worlds ---- */

#define RIG_DISKS 2 /* of pool p; one more is there */
static const char *const rig_disk_paths[RIG_DISKS + 1] = { "/d0", "/d1", "/d2" };

static inline int rig_co_open(void)
{
	struct ashlar_options o = { .fence = scsi_pr_fence };
	struct err e = { 0 };
	int r;

	rig.a = ashlar_create(rig.w, &o);
	r = ashlar_co_pool_open(rig.a, "p", rig_disk_paths, RIG_DISKS, 0, &rig.p, &e);
	if (r < 0)
		fprintf(stderr, "open: %s\n", e.text);
	rig.store = (struct scsi_store){ .co_load = kept_load, .co_save = kept_save };
	if (rig.keeps_notes)
		iscsi_store_init(&rig.store, rig.a);
	rig.t = scsi_target_create(rig.a, &rig.store);
	return r;
}

static inline void rig_co_close(void)
{
	struct err e = { 0 };

	scsi_target_co_destroy(rig.t);
	EXPECT(ashlar_co_pool_close(rig.p, &e) == 0);
	ashlar_co_destroy(rig.a);
}

static inline void rig_co_volume(const char *name, uint64_t bytes)
{
	struct ashlar_volume_spec s = { .name = name, .size_bytes = bytes, .full_wait_ns = 0 };
	struct err e = { 0 };
	int r = ashlar_co_volume_create(rig.p, &s, &e);

	if (r < 0)
		fprintf(stderr, "create: %s\n", e.text);
	EXPECT(r == 0);
}

static int (*rig_test)(void);

static inline int rig_co_main(void *arg)
{
	struct ashlar_pool_spec s = { .name = "p", .paths = rig_disk_paths, .n_paths = RIG_DISKS, .group_bytes = 16 * MIB };
	struct ashlar_options o = { 0 };
	struct err e = { 0 };
	int r;

	rig.a = ashlar_create(rig.w, &o);
	r = ashlar_co_pool_create(rig.a, &s, &e);
	ashlar_co_destroy(rig.a);
	if (r < 0) {
		fprintf(stderr, "pool: %s\n", e.text);
		return r;
	}
	r = rig_co_open();
	if (r < 0)
		return r;
	rig_co_volume("a", RIG_VOLUME_BYTES);
	rig_co_volume("b", RIG_VOLUME_BYTES);
	r = rig_test();
	rig_co_close();
	return r;
}

/* A test: a new pool with the volumes p/a and p/b. */
static inline void rig_run(uint64_t seed, uint64_t disk_bytes, int (*fn)(void))
{
	struct sim_disk_conf conf = { .size_bytes = disk_bytes, .block_bytes = 512 };
	struct sim_options o = { .seed = seed, .n_reactors = 2 };
	int result = -1, r;
	unsigned i;

	memset(&rig, 0, sizeof(rig));
	rig.ds = sim_disks_create(seed);
	for (i = 0; i <= RIG_DISKS; i++)
		sim_disks_add(rig.ds, rig_disk_paths[i], &conf);
	rig.out = xaligned(4096, RIG_IN_MAX);
	rig.in = xaligned(4096, RIG_IN_MAX);
	rig.w = sim_world_create(&o, rig.ds);
	rig_test = fn;
	r = sim_run(rig.w, rig_co_main, NULL, &result, 3600 * NS_PER_SEC);
	EXPECT(r == 0);
	EXPECT(result == 0);
	sim_world_destroy(rig.w);
	sim_disks_destroy(rig.ds);
	xfree(rig.out);
	xfree(rig.in);
}

/* ---- initiators ---- */

struct initiator {
	struct scsi_nexus *n;
	unsigned n_gone, n_told;
};

static inline void init_gone(void *arg)
{
	((struct initiator *)arg)->n_gone++;
}

static inline void init_told(void *arg, uint8_t asc, uint8_t ascq)
{
	((struct initiator *)arg)->n_told++;
}

static const struct scsi_nexus_ops init_ops = { .gone = init_gone, .attention = init_told };

/* who: number of the initiator, and of its session. */
static inline void co_login_raw(struct initiator *i, unsigned who, const char *volume)
{
	struct scsi_nexus_conf c = { .port = 1, .tpg = 1, .session = who, .ops = &init_ops, .arg = i };
	struct err e = { 0 };
	char name[64];
	int r;

	*i = (struct initiator){ 0 };
	snprintf(c.initiator, sizeof(c.initiator), "iqn.2020-01.test:i%u,i,0x00023d00%04x", who, who);
	snprintf(c.target, sizeof(c.target), "iqn.2026-01.org.ashlar:%s,t,0x0001", volume);
	snprintf(name, sizeof(name), "p/%s", volume);
	r = scsi_nexus_co_open(rig.t, name, &c, &i->n, &e);
	if (r < 0)
		fprintf(stderr, "login: %s\n", e.text);
	EXPECT(r == 0);
}

static inline void co_logout(struct initiator *i)
{
	scsi_nexus_co_close(i->n);
	i->n = NULL;
}

struct result {
	uint8_t status, key;
	uint16_t asc;
	bool aborted;
	size_t in_len;
	uint64_t want;
	uint8_t sense[SCSI_SENSE_MAX], sense_len;
};

/* A command that may be under way while others are. */
struct send {
	struct scsi_nexus *n;
	struct scsi_cmd c;
	struct iovec iov;
	uint8_t *in; /* where data-in goes; NULL: nowhere */
	struct co *waiter;
	bool done;
	struct result r;
};

static inline void send_done(struct scsi_cmd *c)
{
	struct send *s = c->owner;

	EXPECT(!s->done);
	s->done = true;
	s->r = (struct result){ .status = c->status, .aborted = c->aborted, .in_len = c->in.iov_len, .want = c->want_bytes,
				.sense_len = c->sense_len };
	memcpy(s->r.sense, c->sense, sizeof(c->sense));
	if (c->sense_len) {
		bool d = c->sense[0] == 0x72;

		EXPECT(c->status == SCSI_CHECK_CONDITION);
		EXPECT(d || c->sense[0] == 0x70 || c->sense[0] == 0xf0);
		s->r.key = c->sense[d ? 1 : 2] & 15;
		s->r.asc = be_get16(c->sense + (d ? 2 : 12));
	}
	if (s->in && c->in.iov_len)
		memcpy(s->in, c->in.iov_base, MIN(c->in.iov_len, RIG_IN_MAX));
	scsi_cmd_fini(c);
	if (s->waiter)
		co_wake(s->waiter);
}

/* On the home reactor. */
static inline void send_start(struct send *s)
{
	s->c.done = send_done;
	s->c.owner = s;
	s->c.nexus = s->n;
	s->c.out_iov = &s->iov;
	s->c.out_iov_n = s->c.out_bytes ? 1 : 0;
	s->iov.iov_len = s->c.out_bytes;
	scsi_submit(&s->c);
	EXPECT(!s->done);
}

static inline int send_there(void *arg)
{
	struct send *s = arg;

	send_start(s);
	s->waiter = co_self();
	co_suspend();
	return 0;
}

static inline struct result co_cdb(struct initiator *i, const uint8_t *cdb, size_t cdb_len, const void *out, size_t out_len)
{
	struct send s = { .n = i->n, .in = rig.in };

	memcpy(s.c.cdb, cdb, MIN(cdb_len, 16));
	s.c.cdb_len = (uint16_t)cdb_len;
	s.c.attr = SCSI_SIMPLE;
	if (out_len && out != rig.out)
		memcpy(rig.out, out, out_len);
	s.iov.iov_base = rig.out;
	s.c.out_bytes = (uint32_t)out_len;
	(void)reactor_co_call(scsi_nexus_home(i->n), send_there, &s);
	return s.r;
}

#define CDB(...) (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ })
#define CMD(i, ...) co_cdb(i, CDB(__VA_ARGS__), NULL, 0)
#define CMD_OUT(i, out, len, ...) co_cdb(i, CDB(__VA_ARGS__), out, len)
#define B2(x) (uint8_t)((x) >> 8), (uint8_t)(x)
#define B4(x) B2((uint32_t)(x) >> 16), B2((uint32_t)(x))
#define B8(x) B4((uint64_t)(x) >> 32), B4((uint64_t)(x))

#define GOOD(call) EXPECT((call).status == SCSI_GOOD)
#define FAILS(key_, asc_, call)                                                                             \
	do {                                                                                                \
		struct result fr_ = (call);                                                                 \
		if (fr_.status != SCSI_CHECK_CONDITION || fr_.key != (key_) || fr_.asc != (asc_))           \
			fprintf(stderr, "status %x key %x asc %04x\n", fr_.status, fr_.key, fr_.asc);       \
		EXPECT(fr_.status == SCSI_CHECK_CONDITION && fr_.key == (key_) && fr_.asc == (asc_));       \
	} while (0)
#define BAD_CDB(call) FAILS(KEY_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_CDB, call)
#define BAD_LIST(call) FAILS(KEY_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_LIST, call)
#define BAD_LENGTH(call) FAILS(KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH, call)
#define BEYOND(call) FAILS(KEY_ILLEGAL_REQUEST, ASC_LBA_OUT_OF_RANGE, call)
#define CONFLICT(call) EXPECT((call).status == SCSI_RESERVATION_CONFLICT)
#define ATTENTION(asc_, i) FAILS(KEY_UNIT_ATTENTION, asc_, CMD(i, 0, 0, 0, 0, 0, 0))

static inline void co_login(struct initiator *i, unsigned who, const char *volume)
{
	co_login_raw(i, who, volume);
	ATTENTION(ASC_POWER_ON, i);
}

static inline struct result co_write(struct initiator *i, uint64_t lba, uint32_t blocks, uint8_t fill)
{
	memset(rig.out, fill, blocks * 512ULL);
	return CMD_OUT(i, rig.out, blocks * 512ULL, OP_WRITE_16, 0, B8(lba), B4(blocks), 0, 0);
}

static inline struct result co_read(struct initiator *i, uint64_t lba, uint32_t blocks)
{
	return CMD(i, OP_READ_16, 0, B8(lba), B4(blocks), 0, 0);
}

/* Do all blocks read as this byte? */
static inline bool co_is(struct initiator *i, uint64_t lba, uint32_t blocks, uint8_t fill)
{
	size_t k;

	if (co_read(i, lba, blocks).status != SCSI_GOOD)
		return false;
	for (k = 0; k < blocks * 512ULL; k++)
		if (rig.in[k] != fill)
			return false;
	return true;
}

#endif
