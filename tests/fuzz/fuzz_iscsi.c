/*
 * The iSCSI target over bytes of any kind, with a real volume behind it. First byte: how the bytes are cut into receives;
 * second: from the login on, or behind a login that has succeeded, with or without digests. Aborts if it hangs or leaks.
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/units.h"
#include "engine/io/sim.h"
#include "frontends/iscsi/conn.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const paths[] = { "d0", "d1" };
static struct sim_disks *base;

struct fuzz {
	struct world *w;
	const uint8_t *in;
	size_t len, chunk;
	uint8_t *out;
	size_t out_len;
};

static int make_co(void *arg)
{
	struct fuzz *f = arg;
	struct ashlar *a = ashlar_create(f->w, NULL);
	struct ashlar_pool_spec s = { .name = "p", .paths = paths, .n_paths = 2, .group_bytes = MIB };
	struct ashlar_volume_spec v = { .name = "v", .size_bytes = 16 * MIB };
	struct ashlar_pool *p;
	int r = ashlar_co_pool_create(a, &s, NULL);

	if (r == 0)
		r = ashlar_co_pool_open(a, NULL, paths, 2, 0, &p, NULL);
	if (r == 0)
		r = ashlar_co_volume_create(p, &v, NULL);
	CHECK(r == 0 && ashlar_co_pool_close(p, NULL) == 0);
	ashlar_co_destroy(a);
	return 0;
}

static void base_make(void)
{
	struct sim_disk_conf c = { .size_bytes = 64 * MIB, .block_bytes = 512 };
	struct sim_options o = { .seed = 1, .n_reactors = 1 };
	struct fuzz f = { 0 };
	int result;

	base = sim_disks_create(1);
	sim_disks_add(base, paths[0], &c);
	sim_disks_add(base, paths[1], &c);
	f.w = sim_world_create(&o, base);
	CHECK(sim_run(f.w, make_co, &f, &result, 0) == 0);
	sim_world_destroy(f.w);
}

static int rules(void *arg, const char *initiator, const char *target, struct iscsi_rule **out, size_t *n)
{
	struct iscsi_rule *v = xcalloc(2, sizeof(*v));

	snprintf(v[0].target, sizeof(v[0].target), "iqn.2026-01.t:o");
	snprintf(v[0].export_name, sizeof(v[0].export_name), "p/v");
	v[1] = v[0];
	snprintf(v[1].target, sizeof(v[1].target), "iqn.2026-01.t:s");
	snprintf(v[1].chap.user, sizeof(v[1].chap.user), "u");
	v[1].chap.len = 12;
	v[1].mutual = v[1].chap;
	v[1].mutual.bytes[0] = 1;
	*n = !target ? 2 : !strcmp(target, v[0].target) || !strcmp(target, v[1].target);
	if (*n == 1 && !strcmp(target, v[1].target))
		v[0] = v[1];
	*out = v;
	return 0;
}

static int run_co(void *arg)
{
	struct iscsi_provider p = { .co_rules = rules };
	struct fuzz *f = arg;
	struct ashlar *a = ashlar_create(f->w, NULL);
	struct iscsi_server *s;
	struct ashlar_pool *pool;

	CHECK(ashlar_co_pool_open(a, NULL, paths, 2, 0, &pool, NULL) == 0);
	s = iscsi_server_create(f->w, a, &p, NULL);
	iscsi_server_co_serve(s, stream_from_memory(f->in, f->len, f->chunk, &f->out, &f->out_len));
	iscsi_server_co_destroy(s);
	CHECK(ashlar_co_pool_close(pool, NULL) == 0);
	ashlar_co_destroy(a);
	xfree(f->out);
	return 0;
}

static void run(struct fuzz *f, uint64_t seed)
{
	struct sim_options o = { .seed = seed, .n_reactors = 1 };
	struct sim_disks *ds;
	int result = 0;

	if (!base)
		base_make();
	ds = sim_disks_clone(base);
	f->w = sim_world_create(&o, ds);
	alloc_track_begin();
	CHECK(sim_run(f->w, run_co, f, &result, 0) == 0);
	sim_run_for(f->w, NS_PER_SEC);
	sim_world_destroy(f->w);
	CHECK(alloc_track_drop() == 0);
	sim_disks_destroy(ds);
}

static size_t login(uint8_t *out, bool digests)
{
	static const char plain[] = "InitiatorName=iqn.2026-01.t:i\0TargetName=iqn.2026-01.t:o\0InitialR2T=No\0MaxRecvDataSegmentLength=1024";
	static const char with[] = "InitiatorName=iqn.2026-01.t:i\0TargetName=iqn.2026-01.t:o\0HeaderDigest=None,CRC32C\0MaxBurstLength=2048\0ImmediateData=Yes";
	uint32_t len = digests ? sizeof(with) : sizeof(plain);
	struct iscsi_bhs b = { .opcode = 0x43, .flags = 0x87, .sn = be32_make(1) };

	be_put24(b.data_len, len);
	memcpy(out, &b, sizeof(b));
	memcpy(out + sizeof(b), digests ? with : plain, len);
	memset(out + sizeof(b) + len, 0, 4);
	return sizeof(b) + len + iscsi_pad(len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz f = { 0 };
	uint8_t *in;

	if (size < 2)
		return 0;
	in = malloc(size + 1024);
	CHECK(in);
	if (data[1] % 4)
		f.len = login(in, data[1] % 4 == 2);
	memcpy(in + f.len, data + 2, size - 2);
	f.len += size - 2;
	f.in = in;
	f.chunk = data[0] % 4 == 0 ? 0 : 1U << data[0] % 12;
	run(&f, data[0]);
	free(in);
	return 0;
}
