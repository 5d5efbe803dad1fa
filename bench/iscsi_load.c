/*
 * A load for iSCSI targets, by libiscsi: fio has no engine for them. The same initiator whatever the target.
 *
 * iscsi_load fill URL				writes all of the LUN, a MiB at a time
 * iscsi_load check URL				reads all of it, and compares
 * iscsi_load randread|randwrite|read|write URL BYTES DEPTH SECONDS
 *						BYTES at random, or one after the other, DEPTH at a time, one session
 * iscsi_load copy URL LUN			all of the LUN to another one of the session, by EXTENDED COPY
 *
 * Prints {"ios": requests, "seconds": ..., "p99": microseconds}; for a copy, "ios" are its commands. What is written is one byte over and
 * over, as by bench/run.py.
 */
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define IO_BYTES_MAX (1U << 20)
#define FILL_BYTES IO_BYTES_MAX
#define FILL_DEPTH 8
#define FILL_BYTE 0x5a
#define DEPTH_MAX 256
#define BUCKETS 100000 /* of 10 us */
#define SEGMENT_BYTES (1ULL << 30)
#define SEGMENTS_MAX 10

struct slot {
	uint8_t *buf;
	struct scsi_task *task;
	uint64_t start_ns;
};

static struct {
	struct iscsi_context *iscsi;
	int lun;
	uint64_t blocks;
	uint32_t block_bytes;
	bool write, in_order, once, compare;
	uint64_t n_places, next, random;
	uint32_t bytes;
	unsigned n_flight;
	uint64_t end_ns, ios;
	struct slot slots[DEPTH_MAX];
	unsigned hist[BUCKETS];
} me = {.random = 88172645463325252ULL};

static void __attribute__((noreturn)) fail(const char *what)
{
	fprintf(stderr, "iscsi_load: %s: %s\n", what, iscsi_get_error(me.iscsi));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void login(const char *url)
{
	struct iscsi_url *u;
	struct scsi_task *t;
	struct scsi_readcapacity16 *rc;

	me.iscsi = iscsi_create_context("iqn.2026-01.org.ashlar.bench:load");
	u = me.iscsi ? iscsi_parse_full_url(me.iscsi, url) : NULL;
	if (!u)
		fail("the URL");
	iscsi_set_targetname(me.iscsi, u->target);
	iscsi_set_session_type(me.iscsi, ISCSI_SESSION_NORMAL);
	iscsi_set_header_digest(me.iscsi, ISCSI_HEADER_DIGEST_NONE);
	iscsi_set_noautoreconnect(me.iscsi, 1);
	if (iscsi_full_connect_sync(me.iscsi, u->portal, u->lun))
		fail("the login");
	me.lun = u->lun;
	t = iscsi_readcapacity16_sync(me.iscsi, me.lun);
	rc = t && t->status == SCSI_STATUS_GOOD ? scsi_datain_unmarshall(t) : NULL;
	if (!rc)
		fail("READ CAPACITY");
	me.blocks = rc->returned_lba + 1;
	me.block_bytes = rc->block_length;
	scsi_free_scsi_task(t);
	iscsi_destroy_url(u);
}

/* ---- reads and writes ---- */

static uint64_t place(void)
{
	if (me.in_order)
		return me.next++ % me.n_places;
	me.random ^= me.random << 13;
	me.random ^= me.random >> 7;
	me.random ^= me.random << 17;
	return me.random % me.n_places;
}

static void ended(struct iscsi_context *iscsi, int status, void *data, void *arg);

static void start(struct slot *s)
{
	uint64_t lba = place() * (me.bytes / me.block_bytes);

	s->start_ns = now_ns();
	if (me.write) {
		s->task = iscsi_write16_task(me.iscsi, me.lun, lba, s->buf, me.bytes, (int)me.block_bytes, 0, 0, 0, 0, 0, ended, s);
	} else {
		s->task = iscsi_read16_task(me.iscsi, me.lun, lba, me.bytes, (int)me.block_bytes, 0, 0, 0, 0, 0, ended, s);
		if (s->task && scsi_task_add_data_in_buffer(s->task, (int)me.bytes, s->buf))
			fail("a buffer");
	}
	if (!s->task)
		fail("a request");
	me.n_flight++;
}

static bool goes_on(uint64_t now)
{
	return me.once ? me.next < me.n_places : now < me.end_ns;
}

static void ended(struct iscsi_context *iscsi, int status, void *data, void *arg)
{
	struct slot *s = arg;
	uint64_t now = now_ns(), us10 = (now - s->start_ns) / 10000;

	if (status != SCSI_STATUS_GOOD)
		fail("a request has failed");
	if (me.compare && (s->buf[0] != FILL_BYTE || memcmp(s->buf, s->buf + 1, me.bytes - 1)))
		fail("what is read is not what was written");
	scsi_free_scsi_task(s->task);
	me.hist[us10 < BUCKETS ? us10 : BUCKETS - 1]++;
	me.ios++;
	me.n_flight--;
	if (goes_on(now))
		start(s);
}

static void turn(void)
{
	struct pollfd p = {.fd = iscsi_get_fd(me.iscsi), .events = (short)iscsi_which_events(me.iscsi)};

	if (poll(&p, 1, 10000) <= 0)
		fail("no answer for ten seconds");
	if (iscsi_service(me.iscsi, p.revents))
		fail("the connection");
}

static void load(unsigned depth)
{
	unsigned i;

	for (i = 0; i < depth && goes_on(0); i++) {
		me.slots[i].buf = malloc(me.bytes);
		if (!me.slots[i].buf)
			fail("memory");
		memset(me.slots[i].buf, me.write ? FILL_BYTE : 0, me.bytes);
		start(&me.slots[i]);
	}
	while (me.n_flight)
		turn();
}

static double p99_us(void)
{
	uint64_t n = 0;
	unsigned i;

	for (i = 0; i < BUCKETS - 1 && (n += me.hist[i]) * 100 < me.ios * 99; i++)
		;
	return 10.0 * (i + 1);
}

static void sync_cache(void)
{
	struct scsi_task *t = iscsi_synchronizecache10_sync(me.iscsi, me.lun, 0, 0, 0, 0);

	if (!t || t->status != SCSI_STATUS_GOOD)
		fail("SYNCHRONIZE CACHE");
	scsi_free_scsi_task(t);
}

/* seconds 0: once through all of it. */
static void run_load(const char *what, unsigned bytes, unsigned depth, double seconds)
{
	uint64_t begin;

	me.bytes = bytes;
	me.write = !strcmp(what, "fill") || strstr(what, "write");
	me.in_order = strncmp(what, "rand", 4);
	me.once = !seconds;
	me.n_places = me.blocks * me.block_bytes / bytes;
	if (!me.n_places)
		fail("the LUN is too small");
	begin = now_ns();
	me.end_ns = begin + (uint64_t)(seconds * 1e9);
	load(depth);
	printf("{\"ios\": %llu, \"seconds\": %.6f, \"p99\": %.0f}\n", (unsigned long long)me.ios, (double)(now_ns() - begin) / 1e9, p99_us());
	if (me.write)
		sync_cache();
}

/* ---- EXTENDED COPY ---- */

static void put(uint8_t *p, uint64_t v, unsigned bytes)
{
	while (bytes--) {
		p[bytes] = (uint8_t)v;
		v >>= 8;
	}
}

/* The LU's NAA designator, as an identification descriptor of a copy target. */
static void target_put(uint8_t *p, int lun)
{
	struct scsi_task *t = iscsi_inquiry_sync(me.iscsi, lun, 1, SCSI_INQUIRY_PAGECODE_DEVICE_IDENTIFICATION, 255);
	struct scsi_inquiry_device_identification *id = t && t->status == SCSI_STATUS_GOOD ? scsi_datain_unmarshall(t) : NULL;
	struct scsi_inquiry_device_designator *d;

	for (d = id ? id->designators : NULL; d; d = d->next)
		if (d->designator_type == SCSI_DESIGNATOR_TYPE_NAA && d->designator_length <= 16)
			break;
	if (!d)
		fail("the identity of a LUN");
	p[0] = 0xe4;
	p[4] = (uint8_t)d->code_set;
	p[5] = (uint8_t)d->designator_type;
	p[7] = (uint8_t)d->designator_length;
	memcpy(p + 8, d->designator, (size_t)d->designator_length);
	put(p + 29, me.block_bytes, 3);
	scsi_free_scsi_task(t);
}

/* One command: segments of a GiB, by bytes (type 0Ah). Returns how much it has copied. */
static uint64_t copy_some(const uint8_t targets[64], uint64_t at, uint64_t len)
{
	uint8_t list[16 + 64 + SEGMENTS_MAX * 32] = {0}, *p = list + 16 + 64;
	struct iscsi_data param = {.data = list};
	uint64_t done = 0, n;
	struct scsi_task *t;

	memcpy(list + 16, targets, 64);
	for (; done < len && p < list + sizeof(list); p += 32, done += n) {
		n = len - done < SEGMENT_BYTES ? len - done : SEGMENT_BYTES;
		p[0] = 0x0a;
		put(p + 2, 28, 2);
		put(p + 6, 1, 2);
		put(p + 8, n, 4);
		put(p + 12, (at + done) / me.block_bytes, 8);
		put(p + 20, (at + done) / me.block_bytes, 8);
	}
	put(list + 2, 64, 2);
	put(list + 8, (uint64_t)(p - list - 16 - 64), 4);
	param.size = (size_t)(p - list);
	t = iscsi_extended_copy_sync(me.iscsi, me.lun, &param);
	if (!t || t->status != SCSI_STATUS_GOOD)
		fail("EXTENDED COPY");
	scsi_free_scsi_task(t);
	return done;
}

/* Unit attentions, of which a new session has one for each LUN. */
static void lun_ready(int lun)
{
	struct scsi_task *t;
	unsigned i;

	for (i = 0; i < 5; i++) {
		t = iscsi_testunitready_sync(me.iscsi, lun);
		if (!t)
			break;
		if (t->status == SCSI_STATUS_GOOD) {
			scsi_free_scsi_task(t);
			return;
		}
		scsi_free_scsi_task(t);
	}
	fail("a LUN is not ready");
}

static void run_copy(int to)
{
	uint64_t bytes = me.blocks * me.block_bytes, at = 0, begin;
	uint8_t targets[64] = {0};

	lun_ready(to);
	target_put(targets, me.lun);
	target_put(targets + 32, to);
	begin = now_ns();
	for (; at < bytes; me.ios++)
		at += copy_some(targets, at, bytes - at);
	printf("{\"ios\": %llu, \"seconds\": %.6f, \"p99\": 0}\n", (unsigned long long)me.ios, (double)(now_ns() - begin) / 1e9);
}

static bool is_one_of(const char *what, const char *const *names)
{
	while (*names && strcmp(what, *names))
		names++;
	return *names;
}

int main(int argc, char **argv)
{
	static const char *const timed[] = {"randread", "randwrite", "read", "write", NULL}, *const once[] = {"fill", "check", NULL};
	const char *what = argc > 2 ? argv[1] : "";
	int bytes = FILL_BYTES, depth = FILL_DEPTH;
	double seconds = 0;

	if (argc == 6 && is_one_of(what, timed)) {
		bytes = atoi(argv[3]);
		depth = atoi(argv[4]);
		seconds = atof(argv[5]);
	} else if (!(argc == 3 && is_one_of(what, once)) && !(argc == 4 && !strcmp(what, "copy"))) {
		depth = 0;
	}
	if (bytes < 512 || bytes > (int)IO_BYTES_MAX || bytes % 512 || depth < 1 || depth > DEPTH_MAX || seconds < 0) {
		fprintf(stderr, "usage: iscsi_load fill|check URL | randread|randwrite|read|write URL BYTES DEPTH SECONDS | copy URL LUN\n");
		return 2;
	}
	login(argv[2]);
	me.compare = !strcmp(what, "check");
	if (!strcmp(what, "copy"))
		run_copy(atoi(argv[3]));
	else
		run_load(what, (unsigned)bytes, (unsigned)depth, seconds);
	iscsi_logout_sync(me.iscsi);
	iscsi_destroy_context(me.iscsi);
	return 0;
}
