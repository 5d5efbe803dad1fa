/*
 * Moving families: what a volume came from, copies and their end, all members exchanged at once, steps to another pool, power cuts.
 * SEED and SEEDS in the environment.
 */
#include "tests/unit/thin__script.h"

#define SIZE (2 * MIB)
#define CL (8 * KIB)
#define FROM 1 /* layouts */
#define TO THIN_RIG_LAYOUT_PARITY

static const struct uuid own = { { 1, 2, 3 } };

static struct thin_rig_conf move_conf(uint64_t seed)
{
	struct thin_rig_conf c = conf_of(seed);

	c.unjudged = true;
	return c;
}

static struct thin_vol *by_name(const char *name)
{
	struct thin_vol *v;

	list_for_each (v, thin_vols(rig.thin), link)
		if (v->state == THIN_VOLUME_LIVE && !strcmp(v->name, name))
			return v;
	return NULL;
}

static int co_copy(struct thin_vol *source, const char *name, uint8_t kind)
{
	struct thin_copy c = { .source = source, .name = name, .kind = kind, .guid = { { (uint8_t)name[0], (uint8_t)name[1] } } };

	return thin_co_copy(rig.thin, &c, 1);
}

static bool prev_is(const char *name, const char *prev)
{
	struct thin_vol *v = by_name(name), *s = v ? thin_vol_prev(rig.thin, v) : NULL;

	return v && (prev ? s && !strcmp(s->name, prev) : !s);
}

static int co_delete(const char *name)
{
	struct thin_vol *v = by_name(name);

	return thin_co_volumes_delete(rig.thin, &v, 1);
}

/* ---- what it came from ---- */

static int co_prevs(void *arg)
{
	co_begin(SIZE, 0);
	EXPECT(prev_is("v", NULL));
	EXPECT(co_copy(vol, "s1", THIN_KIND_SNAPSHOT) == 0);
	EXPECT(co_copy(vol, "s2", THIN_KIND_SNAPSHOT) == 0);
	EXPECT(co_copy(vol, "s3", THIN_KIND_SNAPSHOT) == 0);
	EXPECT(co_copy(by_name("s2"), "c", THIN_KIND_VOLUME) == 0);
	EXPECT(prev_is("s1", NULL) && prev_is("s2", "s1") && prev_is("s3", "s2") && prev_is("v", "s3") && prev_is("c", "s2"));
	EXPECT(co_copy(by_name("c"), "t1", THIN_KIND_SNAPSHOT) == 0);
	EXPECT(prev_is("t1", "s2") && prev_is("c", "t1"));
	EXPECT(thin_co_rollback(rig.thin, vol, by_name("s1")) == 0);
	EXPECT(prev_is("v", "s1"));
	EXPECT(co_copy(vol, "s4", THIN_KIND_SNAPSHOT) == 0);
	EXPECT(prev_is("s4", "s1") && prev_is("v", "s4"));
	EXPECT(co_delete("s2") == 0);
	EXPECT(prev_is("s3", "s1") && prev_is("t1", "s1"));
	EXPECT(co_delete("s1") == 0);
	EXPECT(prev_is("s3", NULL) && prev_is("t1", NULL) && prev_is("s4", "s3")); /* the last is a guess, and as good */
	return co_end();
}

static int co_prevs_again(void *arg)
{
	CHECK(thin_rig_co_open(&rig) == 0);
	EXPECT(prev_is("v", "s4") && prev_is("c", "t1") && prev_is("t1", NULL));
	EXPECT(thin_rig_co_check(&rig) == 0);
	return thin_rig_co_close(&rig);
}

static void a_volume_knows_which_snapshot_it_began_with(void)
{
	struct thin_rig_conf c = move_conf(11);

	thin_rig_init(&rig, &c);
	EXPECT(thin_rig_run(&rig, co_prevs, NULL) == 0);
	thin_rig_restart(&rig);
	EXPECT(thin_rig_run(&rig, co_prevs_again, NULL) == 0);
	thin_rig_restart(&rig);
	thin_rig_fini(&rig);
}

/* ---- copies ---- */

/* Plain reads and writes: that of the copy is opened for it. */
static int co_transfer(struct thin_vol *from, struct thin_vol *to)
{
	uint8_t *buf = buf_alloc(SIZE);
	int r = thin_rig_co_attach(&rig, to);
	bool opened = !from->open;

	CHECK(r == 0);
	if (opened)
		CHECK(thin_rig_co_attach(&rig, from) == 0);
	r = bdev_co_read(thin_volume_bdev(from->open), 0, buf, SIZE);
	if (r == 0)
		r = bdev_co_write(thin_volume_bdev(to->open), 0, buf, SIZE, 0);
	if (r == 0)
		r = bdev_co_flush(thin_volume_bdev(to->open));
	if (opened)
		thin_rig_co_detach(&rig, from);
	thin_rig_co_detach(&rig, to);
	buf_free(buf, SIZE);
	return r;
}

/* An INCOMING volume that says what it is a copy of. */
static int co_incoming(struct thin_vol *of, const char *name, struct thin_vol **out)
{
	struct thin_vol *as = xcalloc(1, sizeof(*as));
	int r;

	as->cls = (struct thin_class){ TO, 1 };
	as->kind = of->kind;
	as->size_bytes = of->size_bytes;
	as->guid = of->guid;
	as->move_pool = own;
	as->move_id = of->id;
	as->move_family = of->family;
	snprintf(as->name, sizeof(as->name), "%s", name);
	r = thin_co_incoming_create(rig.thin, as, of->id, out);
	xfree(as);
	return r;
}

static struct thin_rec_move rec_of(uint8_t what)
{
	return (struct thin_rec_move){ .family = le64_make(vol->family), .pool = own, .what = what, .layout = TO, .copies = 1 };
}

static unsigned n_of_state(unsigned state)
{
	struct thin_vol *v;
	unsigned n = 0;

	list_for_each (v, thin_vols(rig.thin), link)
		n += v->state == state;
	return n;
}

/* A volume of 2 MiB with a snapshot, and copies of both. */
static int co_family(struct thin_vol **snap, struct thin_vol *copies[2])
{
	struct thin_copy still = { .kind = THIN_KIND_SNAPSHOT, .name = "", .hidden = THIN_COPY_STILL };
	int r;

	co_begin(SIZE, 0);
	r = co_fill(bd, 0, SIZE, 1, 0);
	if (r == 0)
		r = co_copy(vol, "s1", THIN_KIND_SNAPSHOT);
	*snap = by_name("s1");
	if (r == 0)
		r = co_fill(bd, SIZE / 2, CL, 2, 0);
	still.source = vol;
	if (r == 0)
		r = thin_co_copy(rig.thin, &still, 1);
	if (r == 0)
		r = co_incoming(*snap, "s1", &copies[0]);
	if (r == 0)
		r = co_transfer(*snap, copies[0]);
	if (r == 0)
		r = co_incoming(vol, "v", &copies[1]);
	if (r == 0)
		r = co_transfer(vol, copies[1]);
	return r;
}

static uint64_t co_free_of(uint8_t layout)
{
	uint64_t n = 0;

	EXPECT(thin_co_class_free(rig.thin, (struct thin_class){ layout, 1 }, &n) == 0);
	return n;
}

static int co_exchange(struct thin_vol *snap)
{
	struct thin_rec_move rec = rec_of(THIN_MOVE_EXCHANGE);
	struct thin_vol *members[2] = { vol, snap };

	return thin_co_move_exchange(rig.thin, &rec, members, 2);
}

static int co_same_pool(void *arg)
{
	struct thin_rec_move want;
	struct thin_vol *snap, *copies[2];
	struct later l[4];
	uint64_t used;
	unsigned i;

	EXPECT(co_family(&snap, copies) == 0);
	want = rec_of(THIN_MOVE_WANT);
	want.flags = THIN_MOVE_WANTED;
	EXPECT(thin_co_move(rig.thin, &want) == 0 && vol->move_flags == THIN_MOVE_WANTED && snap->move_cls.layout == TO);
	EXPECT(co_copy(vol, "s2", THIN_KIND_SNAPSHOT) == 0 && by_name("s2")->move_flags == THIN_MOVE_WANTED);
	EXPECT(thin_n_vols(rig.thin) == 1 && n_of_state(THIN_VOLUME_INCOMING) == 2 && n_of_state(THIN_VOLUME_STILL) == 1);
	EXPECT(co_delete("s2") == 0 && thin_vol_prev(rig.thin, vol) && thin_vol_prev(rig.thin, vol)->state == THIN_VOLUME_STILL);
	used = vol->used_clusters;
	for (i = 0; i < 4; i++) /* held, and done in the new place */
		l[i] = (struct later){ .op = i % 2 ? IO_READ : IO_WRITE, .b = bd, .off = i / 2 * MIB, .len = i % 2 ? KIB : CL,
				       .c = i < 2 ? 1 : 2 };
	EXPECT(co_fill(bd, 0, CL, 1, 0) == 0 && co_fill(bd, MIB, CL, 2, 0) == 0);
	for (i = 0; i < 4; i++)
		co_spawn(CO_SERVICE, later_co_run, &l[i], "later");
	EXPECT(co_exchange(snap) == 0);
	for (i = 0; i < 4; i++)
		EXPECT(later_co_wait(&l[i]) == 0);
	EXPECT(vol->cls.layout == TO && snap->cls.layout == TO && !vol->move_flags && vol->used_clusters == used);
	EXPECT(n_of_state(THIN_VOLUME_INCOMING) == 0 && n_of_state(THIN_VOLUME_STILL) == 0 && prev_is("v", "s1"));
	EXPECT(co_is(bd, 0, MIB, 1) && co_is(bd, MIB, CL, 2) && co_is(bd, MIB + CL, MIB - CL, 1));
	while (n_of_state(THIN_VOLUME_DELETING))
		co_sleep_ns(NS_PER_MS);
	/* what is written from now on lies in the new layout */
	used = co_free_of(FROM);
	EXPECT(co_fill(bd, 0, SIZE, 5, 0) == 0 && bdev_co_flush(bd) == 0);
	EXPECT(co_free_of(FROM) == used && used > SIZE / CL);
	EXPECT(co_is(bd, 0, SIZE, 5));
	EXPECT(thin_rig_co_attach(&rig, snap) == 0);
	EXPECT(co_is(thin_volume_bdev(snap->open), 0, SIZE, 1));
	thin_rig_co_detach(&rig, snap);
	return co_end();
}

static void members_change_places_with_their_copies_while_they_are_in_use(void)
{
	struct thin_rig_conf c = move_conf(12);

	script_conf(&c, co_same_pool);
}

static int co_not_complete(void *arg)
{
	struct thin_rec_move rec;
	struct thin_vol *snap, *copies[2];

	EXPECT(co_family(&snap, copies) == 0);
	rec = rec_of(THIN_MOVE_EXCHANGE);
	EXPECT(co_copy(vol, "s2", THIN_KIND_SNAPSHOT) == 0);
	EXPECT(thin_co_apply(rig.thin, THIN_REC_MOVE, &rec, sizeof(rec), 1) == -ERR_FORMAT);
	EXPECT(thin_co_apply(rig.thin, THIN_REC_MOVE, &rec, sizeof(rec) - 1, 1) == -ERR_FORMAT);
	rec.what = THIN_MOVE_RETURN + 1;
	EXPECT(thin_co_apply(rig.thin, THIN_REC_MOVE, &rec, sizeof(rec), 1) == -ERR_FORMAT);
	EXPECT(n_of_state(THIN_VOLUME_INCOMING) == 2 && vol->cls.layout == FROM);
	return co_end();
}

static void a_record_that_misses_a_member_is_damage(void)
{
	struct thin_rig_conf c = move_conf(13);

	script_conf(&c, co_not_complete);
}

/* ---- to another pool: here both ends are in one ---- */

static int co_handed(void *arg)
{
	struct thin_rec_move rec;
	struct thin_vol *snap, *copies[2];

	EXPECT(co_family(&snap, copies) == 0);
	EXPECT(co_fill(bd, SIZE - CL, CL, 1, 0) == 0);
	thin_rig_co_detach(&rig, vol);
	rec = rec_of(THIN_MOVE_HAND);
	EXPECT(thin_co_move(rig.thin, &rec) == 0);
	EXPECT(thin_n_vols(rig.thin) == 0 && !by_name("s1") && n_of_state(THIN_VOLUME_HANDED) == 2 && n_of_state(THIN_VOLUME_STILL) == 0);
	EXPECT(uuid_is_equal(&vol->move_pool, &own));
	rec.what = THIN_MOVE_ARRIVE;
	EXPECT(thin_co_move(rig.thin, &rec) == 0);
	EXPECT(thin_n_vols(rig.thin) == 1 && by_name("v") == copies[1] && by_name("s1") == copies[0] && !copies[1]->move_id);
	EXPECT(copies[0]->family == copies[0]->id && copies[1]->family == copies[0]->id);
	rec.what = THIN_MOVE_GONE;
	EXPECT(thin_co_move(rig.thin, &rec) == 0 && n_of_state(THIN_VOLUME_HANDED) == 0);
	vol = copies[1];
	CHECK(thin_rig_co_attach(&rig, vol) == 0);
	bd = thin_volume_bdev(vol->open);
	EXPECT(co_is(bd, 0, MIB, 1) && co_is(bd, MIB, CL, 2));
	EXPECT(co_fill(bd, 0, MIB, 7, 0) == 0);
	while (n_of_state(THIN_VOLUME_DELETING))
		co_sleep_ns(NS_PER_MS);
	return co_end();
}

static void a_family_is_handed_over_and_arrives(void)
{
	struct thin_rig_conf c = move_conf(14);

	script_conf(&c, co_handed);
}

static int co_dropped(void *arg)
{
	struct thin_copy c = { .kind = THIN_KIND_VOLUME, .name = "", .hidden = THIN_COPY_INCOMING };
	struct thin_rec_move rec;
	struct thin_vol *snap, *copies[2];

	EXPECT(co_family(&snap, copies) == 0);
	c.source = copies[0];
	c.like = vol->id;
	EXPECT(thin_co_copy(rig.thin, &c, 1) == 0 && n_of_state(THIN_VOLUME_INCOMING) == 3);
	EXPECT(thin_vol_by_id(rig.thin, c.id)->cls.layout == TO && thin_vol_by_id(rig.thin, c.id)->prev == copies[0]->id);
	rec = rec_of(THIN_MOVE_DROP);
	EXPECT(thin_co_move(rig.thin, &rec) == 0 && n_of_state(THIN_VOLUME_INCOMING) == 1);
	rec = rec_of(THIN_MOVE_WANT);
	EXPECT(thin_co_move(rig.thin, &rec) == 0 && n_of_state(THIN_VOLUME_STILL) == 0 && prev_is("v", "s1"));
	return co_end();
}

static int co_dropped_again(void *arg)
{
	CHECK(thin_rig_co_open(&rig) == 0);
	EXPECT(n_of_state(THIN_VOLUME_INCOMING) == 0); /* one that had only just begun */
	while (n_of_state(THIN_VOLUME_DELETING))
		co_sleep_ns(NS_PER_MS);
	EXPECT(thin_rig_co_check(&rig) == 0);
	return thin_rig_co_close(&rig);
}

static void copies_are_dropped_and_leave_nothing(void)
{
	struct thin_rig_conf c = move_conf(15);

	thin_rig_init(&rig, &c);
	EXPECT(thin_rig_run(&rig, co_dropped, NULL) == 0);
	thin_rig_restart(&rig);
	EXPECT(thin_rig_run(&rig, co_dropped_again, NULL) == 0);
	thin_rig_restart(&rig);
	EXPECT(rig.leaked == 0);
	thin_rig_fini(&rig);
}

/* ---- power cuts ---- */

static unsigned n_old, n_new;

static void exchange_co_later(void *arg)
{
	(void)!co_exchange(arg);
}

static int co_cut(void *arg)
{
	struct thin_vol *snap, *copies[2];

	EXPECT(co_family(&snap, copies) == 0);
	EXPECT(bdev_co_flush(bd) == 0);
	co_spawn(CO_SERVICE, exchange_co_later, snap, "exchange");
	co_sleep_ns(rng_below(&rig.rng, NS_PER_MS));
	return 0;
}

static int co_after(void *arg)
{
	CHECK(thin_rig_co_open(&rig) == 0);
	vol = by_name("v");
	vol2 = by_name("s1");
	CHECK(vol && vol2);
	EXPECT(vol->cls.layout == vol2->cls.layout);
	EXPECT(n_of_state(THIN_VOLUME_INCOMING) == (vol->cls.layout == TO ? 0 : 2));
	n_old += vol->cls.layout == FROM;
	n_new += vol->cls.layout == TO;
	CHECK(thin_rig_co_attach(&rig, vol) == 0 && thin_rig_co_attach(&rig, vol2) == 0);
	bd = thin_volume_bdev(vol->open);
	EXPECT(co_is(bd, 0, MIB, 1) && co_is(bd, MIB, CL, 2) && co_is(bd, MIB + CL, MIB - CL, 1));
	EXPECT(co_is(thin_volume_bdev(vol2->open), 0, SIZE, 1));
	EXPECT(co_fill(bd, 0, SIZE, 9, 0) == 0 && co_is(bd, 0, SIZE, 9));
	EXPECT(co_is(thin_volume_bdev(vol2->open), 0, SIZE, 1));
	thin_rig_co_detach(&rig, vol2);
	while (n_of_state(THIN_VOLUME_DELETING))
		co_sleep_ns(NS_PER_MS);
	return co_end();
}

static void a_power_cut_leaves_all_members_here_or_all_there(void)
{
	const char *first = getenv("SEED"), *many = getenv("SEEDS");
	uint64_t seed = first ? strtoull(first, NULL, 0) : 1, n = many ? strtoull(many, NULL, 0) : 30, i;

	for (i = 0; i < n && n_problems == 0; i++) {
		struct thin_rig_conf c = move_conf(seed + i);

		c.latency_min_ns = 10 * NS_PER_US;
		c.latency_max_ns = 300 * NS_PER_US;
		thin_rig_init(&rig, &c);
		EXPECT(thin_rig_run(&rig, co_cut, NULL) == 0);
		thin_rig_crash(&rig, SIM_CUT_RANDOM);
		EXPECT(thin_rig_run(&rig, co_after, NULL) == 0);
		thin_rig_restart(&rig);
		thin_rig_fini(&rig);
	}
	EXPECT(many || (n_old && n_new));
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(a_volume_knows_which_snapshot_it_began_with),
		TEST(members_change_places_with_their_copies_while_they_are_in_use),
		TEST(a_record_that_misses_a_member_is_damage),
		TEST(a_family_is_handed_over_and_arrives),
		TEST(copies_are_dropped_and_leave_nothing),
		TEST(a_power_cut_leaves_all_members_here_or_all_there),
		CU_TEST_INFO_NULL,
	};

	return tests_run("thin: moving families", tests);
}
