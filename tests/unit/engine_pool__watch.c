/*
 * Disks that something happens to beside us: overwritten, deleted, cut short, silent. Clients never see it, the disk goes out, and the
 * pool says why.
 */
#include "tests/unit/engine_pool__historic_rig.h"

#include "engine/pool/life.h"
#include "tests/unit/unit.h"

#define EXPECT(h, cond)                                                  \
	do {                                                             \
		if (!(cond))                                             \
			rig_fail(&(h)->rig, "line %d: %s", __LINE__, #cond); \
	} while (0)

#define DISK_BYTES (12 * MIB)
#define SECONDS(n) ((n) * NS_PER_SEC)

/* ---- helpers ---- */

static struct hist *begin(const char *layout, unsigned n_disks)
{
	struct hist *h = hist_begin(layout, n_disks, DISK_BYTES);

	h->rig.degraded = h->rig.may_be_full = true;
	return h;
}

static unsigned co_n_events(struct hist *h, const char *type, const char *text)
{
	struct ashlar_event *ev;
	unsigned found = 0;
	size_t n, i;
	int r = ashlar_co_events(h->rig.a, 0, 2000, 0, &ev, &n, NULL);

	EXPECT(h, r == 0);
	for (i = 0; r == 0 && i < n; i++)
		found += !strcmp(ev[i].type, type) && (!text || strstr(ev[i].text, text));
	xfree(ev);
	return found;
}

static bool co_reason_is(struct hist *h, unsigned disk, const char *state, const char *reason)
{
	struct ashlar_disk_info *d;
	size_t n;
	bool is;

	if (ashlar_co_disk_list(h->rig.p, &d, &n, NULL) < 0)
		return false;
	is = !strcmp(d[disk].state, state) && strstr(d[disk].reason, reason);
	if (!is)
		fprintf(stderr, "disk %u is %s: %s\n", disk, d[disk].state, d[disk].reason);
	xfree(d);
	return is;
}

static void poke(struct hist *h, unsigned disk, uint64_t off, uint64_t len, int byte)
{
	void *junk = malloc(len);

	memset(junk, byte, len);
	sim_disk_poke(h->rig.disks, disk, off, junk, len);
	free(junk);
}

static void overwrite(struct hist *h, unsigned disk)
{
	poke(h, disk, 0, DISK_BYTES, 0);
}

static bool disk_is_zeros(struct hist *h, unsigned disk, uint64_t off, uint64_t len)
{
	uint8_t *b = malloc(len);
	bool zeros;

	sim_disk_peek(h->rig.disks, disk, off, b, len);
	zeros = !b[0] && !memcmp(b, b + 1, len - 1);
	free(b);
	return zeros;
}

static bool co_is_away_within(struct hist *h, unsigned disk, uint64_t ns)
{
	uint64_t end = reactor_now_ns() + ns;

	while (!(rig_away(&h->rig) >> disk & 1) && reactor_now_ns() < end)
		co_sleep_ns(100 * NS_PER_MS);
	return rig_away(&h->rig) >> disk & 1;
}

/* One generation more, or several, as fast as they can be written. */
static void co_relabel(struct hist *h, unsigned n)
{
	while (n--)
		EXPECT(h, pool_co_publish_labels(h->rig.p) == 0);
}

/* ---- clients ---- */

struct client {
	struct hist *h;
	struct rng rng;
	unsigned vol;
};

static void client_co_main(void *arg)
{
	struct client *c = arg;
	struct hist *h = c->h;
	struct model_vol *v = hist_vol(h, c->vol);

	while (h->n_busy > 100 && !h->rig.failed) {
		uint64_t len = 512 * (1 + rng_below(&c->rng, 48)), off = ALIGN_DOWN(rng_below(&c->rng, v->size_bytes - len), 512ULL);

		rig_co_io_once(&h->rig, v, rng_chance(&c->rng, 5, 6) ? RIG_READ : RIG_WRITE, off, len, 0);
		if (rng_chance(&c->rng, 1, 20))
			rig_co_io_once(&h->rig, v, RIG_FLUSH, 0, 0, 0);
		co_sleep_ns(rng_below(&c->rng, 40 * NS_PER_MS));
	}
	h->n_busy--;
	xfree(c);
}

/* n_busy: 100 more as long as they shall go on. */
static void clients_start(struct hist *h)
{
	unsigned i;

	h->n_busy = 100;
	for (i = 0; i < 4; i++) {
		struct client *c = xcalloc(1, sizeof(*c));

		c->h = h;
		c->vol = i % 2;
		rng_init(&c->rng, rng_next(&h->rng));
		h->n_busy++;
		co_spawn(CO_SERVICE, client_co_main, c, "client");
	}
}

static void co_clients_stop(struct hist *h)
{
	h->n_busy -= 100;
	while (h->n_busy)
		co_sleep_ns(NS_PER_MS);
}

/* ---- overwritten ---- */

static int co_overwritten(struct hist *h)
{
	unsigned victim = h->a;

	clients_start(h);
	co_sleep_ns(rng_below(&h->rng, SECONDS(12)));
	overwrite(h, victim);
	EXPECT(h, co_is_away_within(h, victim, SECONDS(15)));
	co_sleep_ns(SECONDS(1));
	co_clients_stop(h);
	EXPECT(h, co_reason_is(h, victim, "absent", "its label has been overwritten with zeros"));
	EXPECT(h, co_n_events(h, "disk.out", "its label has been overwritten with zeros") == 1);
	EXPECT(h, disk_is_zeros(h, victim, 0, LABEL_AREA_BYTES));
	EXPECT(h, h->rig.p->disks[victim].at_once);
	if (h->rig.layout[4] == '1')
		hist_co_whole(h, false); /* although disks that vanish are never rebuilt here */
	hist_co_look(h);
	EXPECT(h, ashlar_co_disk_online(h->rig.p, rig_paths[victim], NULL, NULL) < 0);
	EXPECT(h, co_n_events(h, "disk.back", NULL) == 0);
	return 0;
}

static void try_overwriting(const char *layout, unsigned n_disks)
{
	struct hist *h = begin(layout, n_disks);
	struct image start = hist_save(h);

	for (h->b = 0; h->b < 10 && !h->rig.failed; h->b++) {
		hist_load(h, &start);
		h->a = h->b % n_disks;
		hist_live(h, co_overwritten);
		hist_live(h, hist_co_look);
	}
	image_free(&start);
	hist_end(h);
}

static void zeros_of_an_overwritten_disk_reach_no_client(void)
{
	try_overwriting("raid1", 5);
	try_overwriting("raid10", 5);
	try_overwriting("raid5", 5);
	try_overwriting("raid6", 6);
}

/* Labels are written before anybody reads: the disk must not look good because of that. */
static int co_relabelled(struct hist *h)
{
	co_sleep_ns(SECONDS(3) + h->b * 2 * SECONDS(1));
	overwrite(h, 1);
	co_relabel(h, 1 + h->b % 10);
	hist_co_look(h);
	EXPECT(h, co_is_away_within(h, 1, SECONDS(15)));
	EXPECT(h, disk_is_zeros(h, 1, 0, LABEL_AREA_BYTES));
	EXPECT(h, disk_is_zeros(h, 1, label_tail_off(DISK_BYTES), LABEL_AREA_BYTES));
	return 0;
}

static void overwritten_disk_gets_no_label_any_more(void)
{
	struct hist *h = begin("raid5", 5);
	struct image start = hist_save(h);

	for (h->b = 0; h->b < 20 && !h->rig.failed; h->b++) {
		hist_load(h, &start);
		hist_live(h, co_relabelled);
	}
	image_free(&start);
	hist_end(h);
}

/* The front alone, one page of which is somebody else's. */
static int co_head(struct hist *h)
{
	co_relabel(h, LABEL_SLOTS);
	co_sleep_ns(SECONDS(15));
	poke(h, 2, 0, 4096, 0x5c);
	EXPECT(h, co_is_away_within(h, 2, SECONDS(15)));
	co_sleep_ns(SECONDS(30)); /* the rest of it looks good, and yet it does not come back by itself */
	EXPECT(h, co_reason_is(h, 2, "absent", "its label has been overwritten"));
	hist_co_look(h);
	hist_co_online(h, 2);
	hist_co_whole(h, true);
	hist_co_look(h);
	return 0;
}

/* A flipped bit, and a page that was written to the wrong place. */
static int co_scratches(struct hist *h)
{
	uint8_t b;

	co_relabel(h, LABEL_SLOTS);
	co_sleep_ns(SECONDS(15));
	sim_disk_peek(h->rig.disks, 0, 3, &b, 1);
	EXPECT(h, b == LABEL_MAGIC[3]);
	b ^= 0x10;
	sim_disk_poke(h->rig.disks, 0, 3, &b, 1);
	poke(h, 1, 3 * LABEL_SLOT_BYTES, 4096, 0x77);
	poke(h, 2, label_tail_off(DISK_BYTES) + 5 * LABEL_SLOT_BYTES, 4096, 0x77);
	co_sleep_ns(SECONDS(40));
	EXPECT(h, rig_away(&h->rig) == 0 && co_n_events(h, "disk.out", NULL) == 0);
	hist_co_look(h);
	return 0;
}

/* The end alone: somebody makes a file system of it. */
static int co_end(struct hist *h)
{
	co_relabel(h, LABEL_SLOTS);
	co_sleep_ns(SECONDS(15));
	poke(h, 1, DISK_BYTES - 3 * LABEL_SLOT_BYTES, 3 * LABEL_SLOT_BYTES, 0);
	EXPECT(h, co_is_away_within(h, 1, SECONDS(15)));
	hist_co_look(h);
	return 0;
}

/* All of the front, and the labels at the end are whole. */
static int co_front(struct hist *h)
{
	struct err e = { 0 };

	co_relabel(h, LABEL_SLOTS);
	co_sleep_ns(SECONDS(15));
	poke(h, 3, 0, MIB, 0);
	EXPECT(h, co_is_away_within(h, 3, SECONDS(15)));
	EXPECT(h, ashlar_co_disk_online(h->rig.p, "d3", NULL, &e) == -ERR_FOREIGN && strstr(e.text, "overwritten with zeros"));
	EXPECT(h, disk_is_zeros(h, 3, 0, LABEL_AREA_BYTES));
	hist_co_look(h);
	return 0;
}

static void label_is_told_from_scratches(void)
{
	struct hist *h = begin("raid6", 6);

	hist_live(h, co_scratches);
	hist_live(h, co_head);
	hist_live(h, co_end);
	hist_live(h, co_front);
	hist_end(h);
}

/* Of another pool now, and of another disk of this one. */
static int co_others_label(struct hist *h)
{
	uint8_t *area = malloc(LABEL_AREA_BYTES);
	unsigned i;

	co_sleep_ns(SECONDS(15));
	sim_disk_peek(h->rig.disks, 2, 0, area, LABEL_AREA_BYTES);
	sim_disk_poke(h->rig.disks, 1, 0, area, LABEL_AREA_BYTES);
	for (i = 0; i < LABEL_SLOTS; i++)
		memset(((struct label_header_disk *)(void *)(area + i * LABEL_SLOT_BYTES))->pool.b, 0xee, 16);
	sim_disk_poke(h->rig.disks, 3, 0, area, LABEL_AREA_BYTES);
	free(area);
	EXPECT(h, co_is_away_within(h, 1, SECONDS(15)) && co_is_away_within(h, 3, SECONDS(15)));
	EXPECT(h, co_reason_is(h, 1, "absent", "another disk of the pool"));
	EXPECT(h, co_reason_is(h, 3, "absent", "another pool"));
	hist_co_look(h);
	return 0;
}

static void disk_with_another_label_is_out(void)
{
	struct hist *h = begin("raid6", 6);

	hist_live(h, co_others_label);
	hist_end(h);
}

/* Whoever did it puts an image of the disk back. Nothing on it is believed, after a crash neither. */
static int co_lost(struct hist *h)
{
	co_sleep_ns(SECONDS(5));
	overwrite(h, 1);
	EXPECT(h, co_is_away_within(h, 1, SECONDS(15)));
	return -ECANCELED;
}

static int co_image_is_back(struct hist *h)
{
	hist_co_online(h, 1);
	hist_co_whole(h, true);
	hist_co_look(h);
	return 0;
}

static void image_of_an_overwritten_disk_is_not_believed(void)
{
	struct hist *h = begin("raid1", 2);
	uint8_t *area = malloc(LABEL_AREA_BYTES);
	int r;

	sim_disk_peek(h->rig.disks, 1, 0, area, LABEL_AREA_BYTES);
	h->body = co_lost;
	rig_world_start(&h->rig, 5);
	CU_ASSERT(sim_run(h->rig.w, hist_co_frame, h, &r, LIMIT_NS) == 0 && r == -ECANCELED);
	rig_world_drop(&h->rig);
	model_crash(h->rig.model);
	hist_cut(h, SIM_CUT_RANDOM);
	sim_disk_poke(h->rig.disks, 1, 0, area, LABEL_AREA_BYTES); /* the label as it was, on a disk of zeros */
	free(area);
	hist_live(h, co_image_is_back);
	sim_disk_remove(h->rig.disks, 0);
	hist_live(h, hist_co_look);
	hist_end(h);
}

/* ---- cut short while nobody looks ---- */

static int co_opened_without(struct hist *h)
{
	EXPECT(h, rig_away(&h->rig) == 2);
	EXPECT(h, co_reason_is(h, 1, "absent", "its label says 12582912 (12M): it was cut short"));
	EXPECT(h, co_n_events(h, "disk.refused", "disk d1 of pool p has 1048576 bytes") == 1);
	EXPECT(h, hist_wr(h, 0, 0, 64 * KIB, IO_FUA) == 0);
	hist_co_look(h);
	co_sleep_ns(SECONDS(25)); /* it has been looked for, and not been taken */
	EXPECT(h, rig_away(&h->rig) == 2 && co_n_events(h, "disk.refused", NULL) == 1);
	EXPECT(h, co_reason_is(h, 1, "absent", "is there, but has 1048576 bytes"));
	sim_disk_remove(h->rig.disks, 1);
	co_sleep_ns(SECONDS(15));
	EXPECT(h, co_reason_is(h, 1, "absent", "is not there"));
	sim_disk_put_back(h->rig.disks, 1);
	sim_disk_resize(h->rig.disks, 1, DISK_BYTES);
	hist_co_whole(h, true);
	EXPECT(h, co_n_events(h, "disk.back", "nothing on it is believed") == 1);
	return 0;
}

static int co_doubted(struct hist *h)
{
	EXPECT(h, co_n_events(h, "disk.doubtful", "nothing on it is believed") == 1);
	hist_co_whole(h, true);
	hist_co_look(h);
	return 0;
}

static void disk_cut_short_while_the_pool_is_closed_is_missing(void)
{
	struct hist *h = begin("raid1", 2);
	struct image start = hist_save(h);
	unsigned way;

	for (way = 0; way < 2; way++) {
		hist_load(h, &start);
		sim_disk_resize(h->rig.disks, 1, MIB);
		if (way)
			sim_disk_resize(h->rig.disks, 1, DISK_BYTES); /* before anybody has seen it */
		hist_live(h, way ? co_doubted : co_opened_without);
		sim_disk_remove(h->rig.disks, 0);
		hist_live(h, hist_co_look);
	}
	image_free(&start);
	hist_end(h);
}

static int co_label_generation(struct hist *h)
{
	h->a = (unsigned)h->rig.p->label->generation;
	return 0;
}

/* The front of a disk's first ring that is left may be one label, and that one the newest: the disk looks like one in service. */
static void disk_cut_short_to_one_label_is_not_believed(void)
{
	struct hist *h = begin("raid1", 2);
	unsigned lives, n_newest = 0;

	hist_live(h, hist_co_look);
	for (lives = 0; lives < 3 * LABEL_SLOTS && !h->rig.failed; lives++) {
		struct image at;

		hist_live(h, co_label_generation);
		at = hist_save(h);
		sim_disk_resize(h->rig.disks, 1, 20 * KIB);
		sim_disk_resize(h->rig.disks, 1, DISK_BYTES);
		hist_live(h, co_doubted);
		sim_disk_remove(h->rig.disks, 0);
		hist_live(h, hist_co_look);
		n_newest += h->a % LABEL_SLOTS == 0;
		hist_load(h, &at);
		image_free(&at);
	}
	CU_ASSERT(h->rig.failed || n_newest >= 1);
	hist_end(h);
}

static int co_open_refused(void *arg)
{
	struct hist *h = arg;
	struct ashlar_options o = { .metadata_cache_bytes = MIB };
	struct err e = { 0 };

	h->rig.a = ashlar_create(h->rig.w, &o);
	EXPECT(h, ashlar_co_pool_open(h->rig.a, NULL, rig_paths, 2, 0, &h->rig.p, &e) == -ERR_MISSING);
	EXPECT(h, strstr(e.text, "d1 has 1048576 bytes") && strstr(e.text, "give it its size back"));
	h->rig.p = NULL;
	ashlar_co_destroy(h->rig.a);
	return 0;
}

static int co_of_use(struct hist *h)
{
	EXPECT(h, co_n_events(h, "disk.doubtful", "nothing on it is believed") == 1);
	hist_co_whole(h, true); /* metadata has copies; of the rest there is nothing better */
	return 0;
}

static void disk_cut_short_that_is_needed_is_named_and_taken_when_it_is_long_again(void)
{
	struct hist *h = begin("raid0", 2);
	int r;

	sim_disk_resize(h->rig.disks, 1, MIB);
	rig_world_start(&h->rig, 5);
	CU_ASSERT(sim_run(h->rig.w, co_open_refused, h, &r, LIMIT_NS) == 0 && r == 0);
	rig_world_drop(&h->rig);
	sim_disk_resize(h->rig.disks, 1, DISK_BYTES);
	hist_live(h, co_of_use);
	hist_end(h);
}

static int co_trusted(struct hist *h)
{
	EXPECT(h, co_n_events(h, "disk.doubtful", "the pool cannot do without it") == 1);
	EXPECT(h, rig_away(&h->rig) == 0);
	hist_co_look(h);
	return 0;
}

/* Its end was overwritten, and nothing else: by a tool that puts something there, or takes it away. */
static void only_disk_with_a_blank_end_is_taken_as_it_is(void)
{
	struct hist *h = begin("single", 1);

	sim_disk_resize(h->rig.disks, 0, DISK_BYTES - LABEL_AREA_BYTES);
	sim_disk_resize(h->rig.disks, 0, DISK_BYTES);
	hist_live(h, co_trusted);
	hist_end(h);
}

/* ---- deleted, cut short ---- */

static int co_deleted(struct hist *h)
{
	hist_faults(h, 0)->deleted = true;
	EXPECT(h, co_is_away_within(h, 0, SECONDS(5)));
	EXPECT(h, co_reason_is(h, 0, "failed", "its file was deleted"));
	EXPECT(h, co_n_events(h, "disk.out", "its file was deleted") == 1);
	hist_co_whole(h, false); /* although disks that vanish are never rebuilt here */
	hist_co_look(h);
	EXPECT(h, h->rig.p->disks[0].disk != NULL); /* what is there can be got at as long as it is open */
	return 0;
}

static void deleted_file_is_out_and_rebuilt_at_once(void)
{
	struct hist *h = begin("raid1", 5);

	hist_live(h, co_deleted);
	hist_end(h);
}

static int co_cut_short(struct hist *h)
{
	clients_start(h);
	co_sleep_ns(rng_below(&h->rng, SECONDS(12)));
	sim_disk_resize(h->rig.disks, 1, MIB);
	if (h->b % 2)
		co_relabel(h, 1); /* this must not make it long again */
	EXPECT(h, co_is_away_within(h, 1, SECONDS(5)));
	co_clients_stop(h);
	co_sleep_ns(SECONDS(5)); /* the reason may be a write beyond the end */
	EXPECT(h, co_reason_is(h, 1, "absent", "") && !strcmp(h->rig.p->disks[1].lost, "it has shrunk to 1048576 bytes"));
	hist_co_look(h);
	return 0;
}

static int co_long_again(struct hist *h)
{
	hist_co_online(h, 1);
	hist_co_whole(h, true);
	hist_co_look(h);
	return 0;
}

/* Two disks, so that nothing can be rebuilt elsewhere. */
static void disk_that_was_cut_short_has_lost_its_credit(void)
{
	struct hist *h = begin("raid1", 2);
	struct image start = hist_save(h);

	for (h->b = 0; h->b < 6 && !h->rig.failed; h->b++) {
		hist_load(h, &start);
		hist_live(h, co_cut_short);
		sim_disk_resize(h->rig.disks, 1, DISK_BYTES);
		hist_live(h, co_long_again);
		sim_disk_remove(h->rig.disks, 0);
		hist_live(h, hist_co_look);
	}
	image_free(&start);
	hist_end(h);
}

/* ---- needed ---- */

static int co_needed(struct hist *h)
{
	hist_co_fail(h, 0);
	hist_faults(h, 1)->deleted = true;
	co_sleep_ns(SECONDS(60));
	EXPECT(h, co_n_events(h, "disk.needed", NULL) == 1 && co_n_events(h, "disk.needed", "deleted") == 1);
	EXPECT(h, rig_away(&h->rig) == 1);
	EXPECT(h, co_reason_is(h, 1, "online", "its file was deleted"));
	rig_co_verify(&h->rig);
	EXPECT(h, hist_wr(h, 0, 0, 64 * KIB, IO_FUA) == 0);
	hist_faults(h, 1)->deleted = false;
	co_sleep_ns(SECONDS(5));
	EXPECT(h, co_reason_is(h, 1, "online", ""));
	hist_co_online(h, 0);
	hist_co_whole(h, true);
	hist_co_look(h);
	return 0;
}

static void needed_disk_stays_and_it_is_said_once(void)
{
	struct hist *h = begin("raid1", 2);

	hist_live(h, co_needed);
	hist_end(h);
}

/* The last copy is overwritten: errors, nothing false. */
static int co_last_copy(struct hist *h)
{
	co_sleep_ns(SECONDS(3));
	hist_co_fail(h, 0);
	h->rig.may_fail = true;
	overwrite(h, 1);
	rig_co_verify(&h->rig);
	co_sleep_ns(SECONDS(20));
	rig_co_verify(&h->rig);
	EXPECT(h, disk_is_zeros(h, 1, 0, LABEL_AREA_BYTES));
	EXPECT(h, co_n_events(h, "disk.needed", "overwritten") == 1);
	return 0;
}

static void last_copy_overwritten_gives_errors_not_zeros(void)
{
	struct hist *h = begin("raid1", 2);

	hist_live(h, co_last_copy);
	hist_end(h);
}

/* ---- silent ---- */

static int co_silent_and_idle(struct hist *h)
{
	uint64_t start;

	co_sleep_ns(SECONDS(12));
	hist_faults(h, 1)->hang = true; /* nobody reads or writes */
	EXPECT(h, co_is_away_within(h, 1, SECONDS(20)));
	start = reactor_now_ns();
	co_relabel(h, 5);
	EXPECT(h, reactor_now_ns() - start < NS_PER_SEC);
	EXPECT(h, hist_wr(h, 0, 0, 64 * KIB, IO_FUA) == 0);
	hist_co_look(h);
	h->done = false;
	rig_co_close(&h->rig); /* with a disk that hangs */
	EXPECT(h, reactor_now_ns() - start < SECONDS(15));
	return -ECANCELED; /* hist_co_frame() must not close it again */
}

static int co_frame(void *arg)
{
	struct hist *h = arg;
	int r = rig_co_open(&h->rig, 0);

	return r == 0 ? h->body(h) : r;
}

static void live_and_close(struct hist *h, int (*body)(struct hist *h))
{
	int r = 0;

	h->body = body;
	rig_world_start(&h->rig, rng_next(&h->rng));
	CU_ASSERT_EQUAL(sim_run(h->rig.w, co_frame, h, &r, LIMIT_NS), 0);
	CU_ASSERT_EQUAL(r, -ECANCELED);
	rig_world_drop(&h->rig);
	model_crash(h->rig.model);
}

/* During a round of labels, and while the pool closes. */
static int co_silent_at_labels(struct hist *h)
{
	uint64_t start = reactor_now_ns();

	hist_faults(h, 1)->hang = true;
	co_relabel(h, 1);
	EXPECT(h, reactor_now_ns() - start < SECONDS(5));
	EXPECT(h, rig_away(&h->rig) == 2);
	hist_faults(h, 2)->hang = true;
	rig_co_close(&h->rig);
	EXPECT(h, reactor_now_ns() - start < SECONDS(20));
	return -ECANCELED;
}

/* A disk that is plugged in again, and does not answer: it is looked for, and that must not stop anything. */
static int co_silent_on_return(struct hist *h)
{
	uint64_t start;

	hist_co_gone(h, 1);
	co_sleep_ns(SECONDS(3));
	hist_faults(h, 1)->hang = true;
	hist_faults(h, 1)->gone = false;
	co_sleep_ns(SECONDS(12));
	start = reactor_now_ns();
	EXPECT(h, ashlar_co_disk_online(h->rig.p, "d1", NULL, NULL) < 0);
	EXPECT(h, reactor_now_ns() - start < SECONDS(10));
	hist_co_look(h);
	hist_faults(h, 1)->hang = false;
	co_sleep_ns(SECONDS(30));
	hist_co_whole(h, true); /* it has come back by itself */
	hist_faults(h, 1)->gone = true;
	EXPECT(h, co_is_away_within(h, 1, SECONDS(5)));
	hist_faults(h, 1)->hang = true;
	hist_faults(h, 1)->gone = false;
	co_sleep_ns(SECONDS(10));
	start = reactor_now_ns();
	rig_co_close(&h->rig);
	EXPECT(h, reactor_now_ns() - start < SECONDS(15));
	return -ECANCELED;
}

static void silent_disk_stops_nobody(void)
{
	int (*const bodies[])(struct hist *h) = { co_silent_and_idle, co_silent_at_labels, co_silent_on_return };
	unsigned i;

	for (i = 0; i < ARRAY_LEN(bodies); i++) {
		struct hist *h = begin("raid6", 5);

		live_and_close(h, bodies[i]);
		memset(hist_faults(h, 1), 0, sizeof(struct sim_faults));
		memset(hist_faults(h, 2), 0, sizeof(struct sim_faults));
		hist_live(h, hist_co_look);
		hist_end(h);
	}
}

/* ---- slow ---- */

static bool co_is_slow(struct hist *h, unsigned disk)
{
	struct ashlar_disk_info *d;
	size_t n;
	bool slow;

	if (ashlar_co_disk_list(h->rig.p, &d, &n, NULL) < 0)
		return false;
	slow = d[disk].slow;
	xfree(d);
	return slow;
}

static int co_slow(struct hist *h)
{
	unsigned i;

	hist_faults(h, 1)->stall = 65536;
	hist_faults(h, 1)->stall_ns = 1600 * NS_PER_MS;
	for (i = 0; i < 20 && !co_n_events(h, "disk.slow", "d1"); i++) {
		rig_co_verify(&h->rig);
		co_sleep_ns(500 * NS_PER_MS);
	}
	EXPECT(h, co_n_events(h, "disk.slow", "d1") == 1);
	EXPECT(h, co_is_slow(h, 1));
	hist_faults(h, 1)->stall = 0;
	for (i = 0; i < 200 && !co_n_events(h, "disk.quick", "d1"); i++) {
		co_sleep_ns(200 * NS_PER_MS);
		rig_co_verify(&h->rig);
	}
	EXPECT(h, co_n_events(h, "disk.quick", "d1") == 1);
	EXPECT(h, !co_is_slow(h, 1));
	EXPECT(h, rig_away(&h->rig) == 0);
	return 0;
}

static void slow_disk_is_named(void)
{
	struct hist *h = begin("raid1", 2);

	hist_live(h, co_slow);
	hist_end(h);
}

static uint64_t n_writes(struct hist *h)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < h->rig.n_disks; i++)
		n += sim_disk_n_ops(h->rig.disks, i, IO_WRITE);
	return n;
}

/* A second daemon has opened the pool on disks that cannot be locked: its label is newer than any of ours. */
static int co_second_daemon(struct hist *h)
{
	struct ashlar_pool *p = h->rig.p;
	uint64_t g, n, off, until = reactor_now_ns() + SECONDS(15);
	struct label *l = xmalloc(sizeof(*l));
	char *slot = xmalloc(LABEL_SLOT_BYTES);
	int r;

	co_sleep_ns(SECONDS(3));
	*l = *p->label;
	g = ++l->generation;
	l->disk = l->disks[1].uuid;
	r = label_co_write(p->disks[1].disk, l, 1, NULL);
	EXPECT(h, r == 0);
	while (!p->failed && reactor_now_ns() < until)
		co_sleep_ns(SECONDS(1));
	EXPECT(h, p->failed && strstr(p->failed_why, "another daemon has it open"));
	EXPECT(h, co_n_events(h, "pool.stopped", "another daemon") == 1);
	EXPECT(h, pool_co_publish_labels(p) < 0);
	co_sleep_ns(SECONDS(1));
	n = n_writes(h);
	h->rig.may_fail = true;
	EXPECT(h, hist_wr(h, 0, 0, 64 * KIB, 0) < 0 && hist_wr(h, 0, 0, 512, IO_FUA) < 0 && hist_flush(h, 0) < 0);
	co_sleep_ns(SECONDS(15));
	EXPECT(h, n_writes(h) == n);
	off = g % LABEL_SLOTS * LABEL_SLOT_BYTES;
	sim_disk_peek(h->rig.disks, 0, off, slot, LABEL_SLOT_BYTES);
	EXPECT(h, le64_get(((struct label_header_disk *)(void *)slot)->generation) < g); /* nothing of ours has followed */
	xfree(slot);
	xfree(l);
	return -ECANCELED;
}

static void second_daemon_is_noticed_and_this_one_stops(void)
{
	struct hist *h = begin("raid1", 3);

	live_and_close(h, co_second_daemon);
	hist_cut(h, SIM_CUT_ALL);
	hist_end(h);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(second_daemon_is_noticed_and_this_one_stops),
		TEST(zeros_of_an_overwritten_disk_reach_no_client),
		TEST(overwritten_disk_gets_no_label_any_more),
		TEST(label_is_told_from_scratches),
		TEST(disk_with_another_label_is_out),
		TEST(image_of_an_overwritten_disk_is_not_believed),
		TEST(deleted_file_is_out_and_rebuilt_at_once),
		TEST(disk_that_was_cut_short_has_lost_its_credit),
		TEST(disk_cut_short_while_the_pool_is_closed_is_missing),
		TEST(disk_cut_short_that_is_needed_is_named_and_taken_when_it_is_long_again),
		TEST(disk_cut_short_to_one_label_is_not_believed),
		TEST(only_disk_with_a_blank_end_is_taken_as_it_is),
		TEST(needed_disk_stays_and_it_is_said_once),
		TEST(last_copy_overwritten_gives_errors_not_zeros),
		TEST(silent_disk_stops_nobody),
		TEST(slow_disk_is_named),
		CU_TEST_INFO_NULL,
	};

	return tests_run("watch", tests);
}
