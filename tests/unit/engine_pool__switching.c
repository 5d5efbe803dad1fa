/*
 * A column has moved, and the record that says so is under way: then the disk that it has moved to is put out, by command or because it
 * fails. What was acknowledged meanwhile must be there when it is back.
 */
#include "tests/unit/engine_pool__historic_rig.h"
#include "tests/unit/unit.h"

#define DISK_BYTES (12 * MIB)

struct writer {
	struct hist *h;
	unsigned at;
};

enum how { COMMAND, FORCED, FAULT, N_HOW };

static enum how how;
static unsigned delay; /* of 5 us, from the beginning of the switch */
static bool stop;
static unsigned n_hit;

static void writer_co_main(void *arg)
{
	struct writer *w = arg;
	struct hist *h = w->h;
	unsigned i;

	for (i = 0; !stop && !h->rig.failed; i++)
		if (hist_wr(h, 0, w->at * 64 * KIB, 4096, IO_FUA) < 0)
			break;
	h->n_busy--;
	xfree(w);
}

static struct pgroup *switching(struct hist *h)
{
	struct ashlar_pool *p = h->rig.p;
	struct hash_node *n;
	size_t b;

	for (b = 0; b < p->pgroups.n_buckets; b++)
		for (n = p->pgroups.buckets[b]; n; n = n->next) {
			struct pgroup *g = container_of(n, struct pgroup, node);

			if (g->kind == THIN_GROUP_DATA && g->before)
				return g;
		}
	return NULL;
}

static void co_put_out(struct hist *h, unsigned disk)
{
	bool needed;

	if (how == FAULT)
		hist_faults(h, disk)->write_error = 65536;
	else
		(void)!pool_co_disk_fail(h->rig.p, disk, how == FORCED, &needed);
}

static int co_body(struct hist *h)
{
	struct ashlar_relocation rel = { 0 };
	struct err e = { 0 };
	struct rig_place at;
	struct pgroup *g;
	unsigned i, t;

	h->rig.degraded = h->rig.may_be_full = h->rig.may_fail = true;
	stop = false;
	if (rig_co_place(&h->rig, "v0", 0, &at) < 0)
		rig_fail(&h->rig, "no place");
	for (i = 0; i < 8; i++) {
		struct writer *w = xmalloc(sizeof(*w));

		*w = (struct writer){ h, i };
		h->n_busy++;
		co_spawn(CO_SERVICE, writer_co_main, w, "writer");
	}
	co_sleep_ns(NS_PER_MS);
	if (ashlar_co_disk_evacuate(h->rig.p, rig_paths[rig_place_disk(&at, at.at.cols[0])], false, &rel, &e) < 0)
		rig_fail(&h->rig, "evacuate: %s", e.text);
	for (i = 0; i < 10000000 && !(g = switching(h)) && !h->rig.failed; i++)
		co_sleep_ns(2 * NS_PER_US);
	if (g) {
		for (i = 0; i < delay; i++)
			co_sleep_ns(5 * NS_PER_US);
		t = g->has_target ? g->target.disk : g->desc.cols[0].disk;
		if (g->before) {
			n_hit++;
			co_put_out(h, t);
		}
		co_sleep_ns(3 * NS_PER_MS);
		hist_faults(h, t)->write_error = 0;
		hist_co_online(h, t);
	}
	co_sleep_ns(50 * NS_PER_MS);
	stop = true;
	while (h->n_busy)
		co_sleep_ns(NS_PER_MS);
	co_sleep_ns(5 * NS_PER_SEC);
	rig_co_verify(&h->rig);
	return 0;
}

static void each_moment(const char *layout, unsigned n_disks)
{
	struct hist *h = hist_begin(layout, n_disks, DISK_BYTES);
	struct image start = hist_save(h);

	n_hit = 0;
	for (how = 0; how < N_HOW; how++)
		for (delay = 0; delay < 60 && !h->rig.failed; delay++) {
			hist_load(h, &start);
			rng_init(&h->rng, delay);
			hist_live(h, co_body);
			if (h->rig.failed)
				fprintf(stderr, "... %s, way %u, delay %u: %s\n", layout, how, delay, h->rig.why);
		}
	CU_ASSERT(h->rig.failed || n_hit > 20);
	image_free(&start);
	hist_end(h);
}

static void target_of_a_mirror_is_lost_in_the_switch(void)
{
	each_moment("raid1", 4);
}

static void target_without_redundancy_is_lost_in_the_switch(void)
{
	each_moment("single", 4);
	each_moment("raid0", 4);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(target_of_a_mirror_is_lost_in_the_switch),
		TEST(target_without_redundancy_is_lost_in_the_switch),
		CU_TEST_INFO_NULL,
	};

	return tests_run("switching", tests);
}
