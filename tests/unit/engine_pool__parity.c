/* raid5 and raid6 in the pool: where groups go, the stripe logs from the label to the replay, crashes with disks lost. */
#include "tests/unit/engine_pool__parity_rig.h"
#include "tests/unit/unit.h"

static const uint64_t equal[DISKS_MAX] = { 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16 };
static const uint64_t mixed[DISKS_MAX] = { 12, 20, 16, 34, 12, 16, 24, 16, 13, 16, 40, 16 };

static unsigned tolerates(const char *layout)
{
	struct raid_profile p;

	return raid_profile_parse(layout, &p) < 0 ? 0 : raid_profile_tolerates(p);
}

/* The newest label of a disk, as it is there now. */
static int label_of(struct rig *g, unsigned disk, struct label *out)
{
	uint8_t *buf = malloc(LABEL_SLOT_BYTES);
	struct label *l = malloc(sizeof(*l));
	int r = -ENOENT;

	for (unsigned i = 0; i < LABEL_SLOTS; i++) {
		sim_disk_peek(g->disks, disk, i * LABEL_SLOT_BYTES, buf, LABEL_SLOT_BYTES);
		if (label_decode(buf, LABEL_SLOT_BYTES, l, NULL) == 0 && (r < 0 || l->generation > out->generation)) {
			*out = *l;
			r = 0;
		}
	}
	free(l);
	free(buf);
	return r;
}

/* ---- plain use ---- */

static int body_volumes(struct rig *g)
{
	static const char *const layouts[] = { NULL, "raid1", "raid5", "raid6" };
	char name[8];
	int r = 0;

	for (unsigned i = 0; i < VOLS_MAX && r == 0; i++) {
		if (i == 3 && g->n_disks < 4)
			break;
		snprintf(name, sizeof(name), "v%u", i);
		r = rig_co_volume(g, name, layouts[i], (i + 1) * 512 * KIB, 0);
	}
	return r;
}

static void try_pool(const char *layout, unsigned n_disks, const uint64_t *mib)
{
	struct rig g;
	unsigned round;

	rig_begin(&g, layout, n_disks, mib);
	g.n_ops = 60;
	CU_ASSERT_EQUAL_FATAL(rig_run(&g, rig_co_create, 1), 0);
	CU_ASSERT_EQUAL_FATAL(rig_session(&g, body_volumes, 2), 0);
	g.check_data = true;
	for (round = 0; round < 4; round++) {
		g.n_reactors = (round + n_disks) % 3 + 1;
		CU_ASSERT_EQUAL(rig_session(&g, rig_co_verify_and_work, 3 + round), 0);
	}
	CU_ASSERT_EQUAL(rig_session(&g, rig_co_verify, 9), 0);
	rig_end(&g);
}

static void layouts_live_side_by_side_on_3_to_12_disks(void)
{
	for (unsigned n = 3; n <= 12; n++) {
		try_pool("raid5", n, equal);
		try_pool("raid5", n, mixed);
		if (n >= 4)
			try_pool("raid6", n, mixed);
	}
	try_pool("raid1", 5, mixed);
}

static int body_work(struct rig *g) { return rig_co_work(g); }

/* Removes the disks of a mask. */
static void take_away(struct rig *g, uint32_t mask)
{
	for (; mask; mask &= mask - 1)
		sim_disk_remove(g->disks, (unsigned)__builtin_ctz(mask));
}

static void put_back(struct rig *g, uint32_t mask)
{
	for (; mask; mask &= mask - 1)
		sim_disk_put_back(g->disks, (unsigned)__builtin_ctz(mask));
}

/* ---- crashes ---- */

static int body_one_volume(struct rig *g)
{
	int r = rig_co_volume(g, "a", NULL, 2 * MIB, 0);

	return r < 0 ? r : rig_co_volume(g, "b", NULL, MIB, 0);
}

static void start(struct rig *g, const char *layout, unsigned n_disks)
{
	rig_begin(g, layout, n_disks, equal);
	CU_ASSERT_EQUAL_FATAL(rig_run(g, rig_co_create, 1), 0);
	CU_ASSERT_EQUAL_FATAL(rig_session(g, body_one_volume, 2), 0);
}

/* Events of one run of the body, without a crash. */
static uint64_t events_of(const struct rig *from, int (*body)(struct rig *g), uint64_t seed)
{
	uint64_t before = sim_disks_n_events(from->disks), n;
	struct rig g;

	rig_fork(from, &g);
	CU_ASSERT_EQUAL(rig_session(&g, body, seed), 0);
	n = sim_disks_n_events(g.disks) - before;
	rig_end(&g);
	return n;
}

static int crash_at(struct rig *g, int (*body)(struct rig *g), uint64_t seed, uint64_t event)
{
	sim_disks_stop_at(g->disks, sim_disks_n_events(g->disks) + event);
	return rig_session(g, body, seed);
}

/* After a crash: opens with these disks missing, everything must be there; then once more, and with all disks. */
static void survives(const struct rig *from, uint32_t missing, uint64_t seed)
{
	struct rig g;
	int r[3];

	rig_fork(from, &g);
	take_away(&g, missing);
	g.n_reactors = (unsigned)(seed % 3) + 1;
	g.n_ops = 8;
	g.check_data = true;
	r[0] = rig_session(&g, rig_co_verify, seed);
	r[1] = rig_session(&g, rig_co_verify_and_work, seed + 1);
	put_back(&g, missing);
	r[2] = rig_session(&g, rig_co_verify, seed + 2);
	if (r[0] || r[1] || r[2])
		fprintf(stderr, "  seed %llu, without %x: %d %d %d: %s\n", (unsigned long long)seed, missing, r[0], r[1], r[2], g.e.text);
	CU_ASSERT(r[0] == 0 && r[1] == 0 && r[2] == 0);
	rig_end(&g);
}

static void all_losses(const struct rig *g, unsigned may_lose, uint64_t seed)
{
	for (uint32_t mask = 0; mask < 1U << g->n_disks; mask++)
		if ((unsigned)__builtin_popcount(mask) <= may_lose)
			survives(g, mask, seed + mask);
}

static void crashes(const char *layout, unsigned n_disks, unsigned n)
{
	struct rig base, g;
	uint64_t events;
	struct rng rng;

	rng_init(&rng, n_disks);
	start(&base, layout, n_disks);
	base.n_ops = 40;
	events = events_of(&base, body_work, 50);
	for (unsigned i = 0; i < n; i++) {
		rig_fork(&base, &g);
		g.n_reactors = i % 3 + 1;
		CU_ASSERT_EQUAL(crash_at(&g, body_work, 50 + i, 1 + rng_below(&rng, events * 6 / 10)), -ECANCELED);
		all_losses(&g, tolerates(layout), 1000 + i * 100);
		rig_end(&g);
	}
	rig_end(&base);
}

static void a_crash_and_every_allowed_loss_keep_what_was_flushed(void)
{
	crashes("raid5", 3, 5);
	crashes("raid5", 5, 4);
	crashes("raid6", 5, 4);
}

static void a_crash_while_the_logs_are_replayed_does_no_harm(void)
{
	struct rig base, g, again;
	uint64_t events, replay, i;

	start(&base, "raid6", 5);
	base.n_ops = 40;
	events = events_of(&base, body_work, 77);
	for (i = 0; i < 4; i++) {
		rig_fork(&base, &g);
		CU_ASSERT_EQUAL(crash_at(&g, body_work, 77, events * (2 + i) / 8), -ECANCELED);
		replay = events_of(&g, NULL, 3);
		for (uint64_t at = 1; at < replay; at += 1 + replay / 15) {
			rig_fork(&g, &again);
			CU_ASSERT_EQUAL(crash_at(&again, NULL, 3, at), -ECANCELED);
			survives(&again, 1U << at % 5 | 1U << (at + 1 + i % 3) % 5, 3000 + at);
			rig_end(&again);
		}
		rig_end(&g);
	}
	rig_end(&base);
}

static void a_disk_that_fails_while_the_logs_are_replayed_goes_out(void)
{
	struct rig base, g;
	uint64_t events;

	start(&base, "raid6", 5);
	base.n_ops = 40;
	events = events_of(&base, body_work, 33);
	for (unsigned i = 0; i < 10; i++) {
		struct sim_faults *f;

		rig_fork(&base, &g);
		g.check_data = true;
		CU_ASSERT_EQUAL(crash_at(&g, body_work, 33, events * (i + 2) / 16), -ECANCELED);
		f = sim_disk_faults(g.disks, i % 5);
		f->write_error = i % 2 ? 65536 : 20000;
		CU_ASSERT_EQUAL(rig_session(&g, rig_co_verify, i), 0);
		f->write_error = 0;
		take_away(&g, 1 << (i + 1) % 5); /* one more may go */
		CU_ASSERT_EQUAL(rig_session(&g, rig_co_verify, i + 1), 0);
		rig_end(&g);
	}
	rig_end(&base);
}

/* ---- damage ---- */

/* Turns a bit in every batch of every log but the newest one of each disk and log: what was acknowledged is lost. */
static unsigned damage_logs(struct rig *g)
{
	uint8_t block[512];
	unsigned n = 0;

	for (unsigned disk = 0; disk < g->n_disks; disk++) {
		uint64_t newest[8] = { 0 }, at[8] = { 0 }, epoch = 0;

		for (unsigned pass = 0; pass < 2; pass++) {
			for (uint64_t off = LABEL_AREA_BYTES; off < 16 * MIB; off += 4096) {
				le64 v;
				unsigned slice;

				sim_disk_peek(g->disks, disk, off, block, sizeof(block));
				if (memcmp(block, "ASHSLOG1", 8))
					continue;
				slice = block[76] % 8;
				memcpy(&v, block + 32, 8);
				if (pass == 0 && le64_get(v) >= epoch) {
					if (le64_get(v) > epoch)
						memset(newest, 0, sizeof(newest));
					epoch = le64_get(v);
					memcpy(&v, block + 40, 8);
					if (le64_get(v) > newest[slice]) {
						newest[slice] = le64_get(v);
						at[slice] = off;
					}
				} else if (pass == 1 && off != at[slice]) {
					block[100] ^= 1;
					sim_disk_poke(g->disks, disk, off, block, sizeof(block));
					n++;
				}
			}
		}
	}
	return n;
}

static int body_wait(struct rig *g)
{
	co_sleep_ns(30 * NS_PER_SEC);
	return 0;
}

static void a_damaged_log_is_refused_unless_forced(void)
{
	unsigned n_refused = 0;
	struct rig base, g;
	uint64_t events;

	start(&base, "raid5", 4);
	base.n_ops = 40;
	events = events_of(&base, body_work, 60);
	for (unsigned i = 2; i < 8; i++) {
		int r;

		rig_fork(&base, &g);
		CU_ASSERT_EQUAL(crash_at(&g, body_work, 60, events * i / 10), -ECANCELED);
		CU_ASSERT(damage_logs(&g) > 0);
		r = rig_session(&g, NULL, 1);
		n_refused += r == -ERR_CSUM;
		CU_ASSERT(r == 0 || (r == -ERR_CSUM && g.e.text[0]));
		g.flags = ASHLAR_OPEN_FORCE_MISSING;
		g.check_data = true;
		CU_ASSERT_EQUAL(rig_session(&g, body_wait, 2), 0); /* parity is made to match the data, whatever that is */
		g.flags = 0;
		CU_ASSERT_EQUAL(rig_session(&g, NULL, 3), 0);
		rig_end(&g);
	}
	CU_ASSERT(n_refused > 1);
	rig_end(&base);
}

/* ---- the log group ---- */

static int body_parity_volume(struct rig *g) { return rig_co_volume(g, "new", "raid5", MIB, 0); }

static int body_parity_volume_again(struct rig *g)
{
	struct ashlar_volume_spec s = { .name = "new", .size_bytes = MIB, .layout = "raid5" };
	int r = ashlar_co_volume_create(g->p, &s, &g->e);

	if (r < 0 && r != -EEXIST)
		return r;
	if (model_n_vols(g->model))
		model_vol_created(g->model, model_vol(g->model, 0), true);
	else /* the crash came before it was asked for */
		model_vol_created(g->model, model_vol_create(g->model, "new", MIB), true);
	return rig_co_work(g);
}

static void a_crash_at_any_write_leaves_one_log_group_or_none(void)
{
	struct rig base, g;
	uint64_t events, at;
	struct label *l = malloc(sizeof(*l));
	unsigned without = 0;

	rig_begin(&base, "raid1", 4, mixed);
	base.n_ops = 20;
	CU_ASSERT_EQUAL_FATAL(rig_run(&base, rig_co_create, 1), 0);
	events = events_of(&base, body_parity_volume, 5);
	for (at = 1; at < events; at++) {
		rig_fork(&base, &g);
		CU_ASSERT_EQUAL(crash_at(&g, body_parity_volume, 5, at), -ECANCELED);
		CU_ASSERT_EQUAL(label_of(&g, 1, l), 0);
		without += !l->log_group_plus_1;
		g.n_reactors = (unsigned)(at % 3) + 1;
		g.check_data = true;
		if (rig_session(&g, body_parity_volume_again, at) < 0)
			CU_FAIL("after a crash while the log group was made");
		CU_ASSERT_EQUAL(rig_session(&g, rig_co_verify, at), 0);
		rig_end(&g);
	}
	CU_ASSERT(without > events / 4 && without < events);
	free(l);
	rig_end(&base);
}

static void the_label_says_that_there_is_parity_from_the_first_group_on(void)
{
	struct label *l = malloc(sizeof(*l));
	struct rig g;

	rig_begin(&g, "raid5", 4, equal);
	CU_ASSERT_EQUAL_FATAL(rig_run(&g, rig_co_create, 1), 0);
	CU_ASSERT_EQUAL(label_of(&g, 3, l), 0);
	CU_ASSERT(l->incompat == 0 && l->log_group_plus_1 == 0 && l->log_slices == 0);
	CU_ASSERT_EQUAL(l->meta[0].n_cols, 3);
	CU_ASSERT_EQUAL(rig_session(&g, body_one_volume, 2), 0);
	for (unsigned i = 0; i < 4; i++) {
		CU_ASSERT_EQUAL(label_of(&g, i, l), 0);
		CU_ASSERT_EQUAL(l->incompat, LABEL_INCOMPAT_PARITY);
		CU_ASSERT(l->log_group_plus_1 > 1);
		CU_ASSERT_EQUAL(l->log_slices, 2);
		CU_ASSERT_EQUAL(l->log_slice_bytes, 512 * KIB);
	}
	for (g.n_reactors = 1; g.n_reactors <= 12; g.n_reactors += 11) {
		CU_ASSERT_EQUAL(rig_session(&g, NULL, 3), 0);
		CU_ASSERT_EQUAL(label_of(&g, 0, l), 0);
		CU_ASSERT_EQUAL(l->log_slices, MIN(g.n_reactors, 8));
		CU_ASSERT_EQUAL(l->log_slice_bytes, MIB / MIN(g.n_reactors, 8));
	}
	free(l);
	rig_end(&g);
}

/* ---- refusals ---- */

static int body_refused(struct rig *g)
{
	struct ashlar_volume_spec s = { .name = g->name, .size_bytes = MIB, .layout = g->vol_layout };

	return ashlar_co_volume_create(g->p, &s, &g->e) == 0 ? -EEXIST : 0;
}

static void refused(struct rig *g, const char *layout, const char *what)
{
	g->name = "x";
	g->vol_layout = layout;
	CU_ASSERT_EQUAL(rig_session(g, body_refused, 5), 0);
	if (!strstr(g->e.text, what))
		fprintf(stderr, "  not in it: \"%s\": %s\n", what, g->e.text);
	CU_ASSERT_PTR_NOT_NULL(strstr(g->e.text, what));
}

static void too_few_disks_are_refused_with_a_sentence(void)
{
	struct rig g;

	rig_begin(&g, "raid1", 2, equal);
	CU_ASSERT_EQUAL_FATAL(rig_run(&g, rig_co_create, 1), 0);
	refused(&g, "raid5", "layout raid5 needs 3 disks, the pool has 2 online");
	refused(&g, "raid6", "layout raid6 needs 4 disks");
	refused(&g, "raid7", "raid10-3, raid5 or raid6");
	rig_end(&g);
	rig_begin(&g, "raid1", 5, equal);
	CU_ASSERT_EQUAL_FATAL(rig_run(&g, rig_co_create, 1), 0);
	take_away(&g, 1 << 2 | 1 << 4);
	refused(&g, "raid10-3", "layout raid10-3 needs 6 disks");
	take_away(&g, 1 << 1 | 1 << 3);
	refused(&g, "raid5", "layout raid5 needs 3 disks, the pool has 1 online: bring the others back");
	rig_end(&g);
}

/* ---- degraded from the start ---- */

static void groups_are_made_while_disks_are_away(void)
{
	struct rig g;
	uint32_t other;

	rig_begin(&g, "raid6", 4, mixed);
	g.n_ops = 60;
	g.check_data = true;
	CU_ASSERT_EQUAL_FATAL(rig_run(&g, rig_co_create, 1), 0);
	take_away(&g, 1 << 1 | 1 << 3);
	CU_ASSERT_EQUAL_FATAL(rig_session(&g, body_one_volume, 2), 0);
	CU_ASSERT_EQUAL(rig_session(&g, rig_co_verify_and_work, 3), 0);
	take_away(&g, 1); /* no more */
	CU_ASSERT_EQUAL(rig_session(&g, rig_co_verify, 4), -ERR_MISSING);
	put_back(&g, 1);
	for (other = 0; other < 2; other++) {
		CU_ASSERT_EQUAL(rig_session(&g, rig_co_verify_and_work, 5 + other), 0);
		put_back(&g, other ? 1 << 3 : 1 << 1);
	}
	CU_ASSERT_EQUAL(rig_session(&g, rig_co_verify_and_work, 8), 0);
	rig_end(&g);
}

/* ---- read-only ---- */

/* What is read of a pool that must not be written is what is read when its logs have been replayed: with the same disks, since
 * what the newest batch of a log says may be known to one of them alone. */
static void read_only_shows_what_the_logs_hold_and_writes_nothing(void)
{
	struct rig base, g;
	uint64_t events, hash;

	start(&base, "raid5", 4);
	base.n_ops = 40;
	events = events_of(&base, body_work, 90);
	for (unsigned i = 1; i < 16; i++) {
		rig_fork(&base, &g);
		g.check_data = true;
		CU_ASSERT_EQUAL(crash_at(&g, body_work, 90, events * i / 18), -ECANCELED);
		take_away(&g, i % 5 < 4 ? 1 << i % 5 : 0);
		hash = sim_disks_hash(g.disks);
		g.flags = ASHLAR_OPEN_RDONLY;
		CU_ASSERT_EQUAL(rig_session(&g, rig_co_verify, 1), 0);
		g.n_reactors = 1;
		CU_ASSERT_EQUAL(rig_session(&g, rig_co_verify, 2), 0);
		CU_ASSERT_EQUAL(sim_disks_hash(g.disks), hash);
		g.flags = 0;
		CU_ASSERT_EQUAL(rig_session(&g, rig_co_verify, 3), 0);
		CU_ASSERT_NOT_EQUAL(sim_disks_hash(g.disks), hash);
		g.flags = ASHLAR_OPEN_RDONLY;
		CU_ASSERT_EQUAL(rig_session(&g, rig_co_verify, 4), 0);
		rig_end(&g);
	}
	rig_end(&base);
}

/* ---- to the brim ---- */

static int body_brim(struct rig *g)
{
	struct client c = { .fill = true };
	struct ashlar_pool_info i;
	struct ashlar_disk_info *d;
	unsigned with_room = 0, k;
	uint64_t promised;
	size_t n;
	int r = rig_co_volume(g, "big", NULL, 400 * MIB, 0);

	if (r == 0)
		r = client_co_attach(&c, g, model_vol(g->model, 0));
	if (r < 0)
		return r;
	ashlar_co_pool_info(g->p, &i);
	promised = i.free_bytes;
	r = reactor_co_call(ashlar_attach_home(c.at), client_there, &c);
	CU_ASSERT_EQUAL(r, -ERR_POOL_FULL);
	ashlar_co_detach(c.at);
	if (c.done_bytes + 3 * MIB < promised)
		fprintf(stderr, "  %llu promised, %llu written\n", (unsigned long long)promised, (unsigned long long)c.done_bytes);
	CU_ASSERT(c.done_bytes + 3 * MIB >= promised);
	if (ashlar_co_disk_list(g->p, &d, &n, &g->e) < 0)
		return -EIO;
	for (k = 0; k < n; k++) /* beyond what is kept for metadata: a group on each of three disks */
		with_room += d[k].used_bytes + 2 * MIB < d[k].size_bytes - 512 * KIB;
	CU_ASSERT(with_room < 3);
	xfree(d);
	r = rig_co_verify(g);
	if (r == 0)
		r = ashlar_co_volume_delete(g->p, "big", false, false, false, NULL, &g->e);
	if (r == 0) {
		model_vol_delete(g->model, model_vol(g->model, 0));
		model_vol_deleted(g->model, model_vol(g->model, 0), true);
	}
	return r;
}

/* What parity has left free serves others, and the other way round. */
static int body_after_brim(struct rig *g)
{
	char name[8];
	int r = 0;

	co_sleep_ns(20 * NS_PER_SEC);
	for (unsigned i = 0; i < 4 && r == 0; i++) {
		struct client c = { .fill = true };

		snprintf(name, sizeof(name), "w%u", i);
		r = rig_co_volume(g, name, i % 2 ? NULL : "raid1", 6 * MIB, 5 * NS_PER_SEC);
		if (r == 0)
			r = client_co_attach(&c, g, model_vol(g->model, i + 1));
		if (r < 0)
			return r;
		r = reactor_co_call(ashlar_attach_home(c.at), client_there, &c);
		ashlar_co_detach(c.at);
	}
	return r < 0 ? r : rig_co_verify(g);
}

/* Mirrors have filled the pool and gone; the first parity volume needs room for its log first. */
static int body_full_of_mirrors(struct rig *g)
{
	struct client c = { .fill = true };
	int r = rig_co_volume(g, "big", "raid1", 100 * MIB, 0);

	if (r == 0)
		r = client_co_attach(&c, g, model_vol(g->model, 0));
	if (r < 0)
		return r;
	CU_ASSERT_EQUAL(reactor_co_call(ashlar_attach_home(c.at), client_there, &c), -ERR_POOL_FULL);
	ashlar_co_detach(c.at);
	g->name = "x";
	g->vol_layout = "raid5";
	CU_ASSERT_EQUAL(body_refused(g), 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(g->e.text, "delete or discard something"));
	r = ashlar_co_volume_delete(g->p, "big", false, false, false, NULL, &g->e);
	if (r < 0)
		return r;
	model_vol_delete(g->model, model_vol(g->model, 0));
	model_vol_deleted(g->model, model_vol(g->model, 0), true);
	co_sleep_ns(20 * NS_PER_SEC);
	r = rig_co_volume(g, "five", "raid5", 4 * MIB, 0);
	return r < 0 ? r : rig_co_work(g);
}

static void the_log_takes_room_from_groups_that_hold_nothing(void)
{
	struct rig g;

	rig_begin(&g, "raid1", 4, equal);
	g.check_data = true;
	g.n_ops = 40;
	CU_ASSERT_EQUAL_FATAL(rig_run(&g, rig_co_create, 1), 0);
	CU_ASSERT_EQUAL(rig_session(&g, body_full_of_mirrors, 2), 0);
	CU_ASSERT_EQUAL(rig_session(&g, rig_co_verify, 3), 0);
	rig_end(&g);
}

static void brim(const char *layout, unsigned n_disks, const uint64_t *mib)
{
	struct rig g;

	rig_begin(&g, layout, n_disks, mib);
	g.check_data = true;
	CU_ASSERT_EQUAL_FATAL(rig_run(&g, rig_co_create, 1), 0);
	CU_ASSERT_EQUAL(rig_session(&g, body_brim, 2), 0);
	CU_ASSERT_EQUAL(rig_session(&g, body_after_brim, 3), 0);
	CU_ASSERT_EQUAL(rig_session(&g, rig_co_verify, 4), 0);
	rig_end(&g);
}

static void disks_of_mixed_sizes_are_filled_to_the_brim(void)
{
	static const uint64_t doubling[] = { 16, 16, 32, 64 }, small_one[] = { 32, 32, 10, 32 }, two_large[] = { 8, 9, 10, 60, 60 };

	brim("raid5", 4, doubling);
	brim("raid5", 4, small_one);
	brim("raid5", 5, two_large);
	brim("raid6", 5, two_large);
	brim("raid6", 8, mixed);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(layouts_live_side_by_side_on_3_to_12_disks),
		TEST(the_label_says_that_there_is_parity_from_the_first_group_on),
		TEST(a_crash_at_any_write_leaves_one_log_group_or_none),
		TEST(too_few_disks_are_refused_with_a_sentence),
		TEST(disks_of_mixed_sizes_are_filled_to_the_brim),
		TEST(groups_are_made_while_disks_are_away),
		TEST(a_crash_and_every_allowed_loss_keep_what_was_flushed),
		TEST(a_crash_while_the_logs_are_replayed_does_no_harm),
		TEST(a_disk_that_fails_while_the_logs_are_replayed_goes_out),
		TEST(a_damaged_log_is_refused_unless_forced),
		TEST(the_log_takes_room_from_groups_that_hold_nothing),
		TEST(read_only_shows_what_the_logs_hold_and_writes_nothing),
		CU_TEST_INFO_NULL,
	};

	return tests_run("parity", tests);
}
