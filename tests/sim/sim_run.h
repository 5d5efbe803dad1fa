/*
 * sim_run.h: one random run of the whole engine: what its files share.
 *
 *   sim_main.c    the command line; each seed in a child process
 *   sim_run.c     a run: its shape, its lives (from opening to a clean end, a kill or a power cut), the end
 *   sim_client.c  clients: random requests on random volumes
 *   sim_admin.c   management commands meanwhile
 *   sim_nemesis.c disk faults, within what the pool must survive
 */
#ifndef TESTS_SIM_SIM_RUN_H
#define TESTS_SIM_SIM_RUN_H

#include "engine/base/units.h"
#include "tests/lib/sim_rig.h"

#define CLIENTS_MAX 16
#define ROT_MAX 64

struct rot { /* a granule of a metadata copy that was damaged */
	uint64_t off_bytes;
	uint8_t before[512], after[512];
};

struct sim_run {
	struct rig rig;
	struct rng rng;
	uint64_t seed, hash;
	/* shape */
	unsigned tolerates, n_vols_max, n_clients, n_lives;
	uint64_t vol_bytes_max;
	unsigned w_read, w_write, w_flush, w_zero, w_discard; /* weights of requests */
	unsigned fua_of, slow_of;			      /* one write in so many; one pause in so many is long */
	bool overcommit, other_layouts, faults;
	bool sparse; /* large volumes, of which little is written, here and there: many map pages */
	bool beyond; /* faults that redundancy does not cover: honest failures, and after them nothing lost that was durable */
	/* the disk that everything bad happens to: redundancy covers it, and no second one */
	unsigned victim;
	bool victim_out; /* it may have missed writes */
	struct rot rots[ROT_MAX];
	unsigned n_rots;
	uint64_t rot_off, rot_len; /* where metadata lies on the victim */
	/* a life */
	unsigned life;
	bool stop, last;
	unsigned n_running; /* coroutines of clients, admin, nemesis */
	unsigned next_name;
	uint64_t life_ns;
};

/* Everything follows from the seed. Returns 0 if the run found nothing wrong. */
int sim_run_seed(struct sim_run *s, uint64_t seed);

/* Coroutines on reactor 0, started with s (struct sim_run *); each counts in n_running while it runs. */
void client_co_main(void *arg);
void admin_co_main(void *arg);
void nemesis_co_main(void *arg);

/* A life ends or begins: no faults, no latent errors, damaged granules as they were. */
void nemesis_off(struct sim_run *s);
/* Before a life: which disks are there. */
void nemesis_presence(struct sim_run *s);
/* Coroutine. Takes note of the pool's state after opening. */
void nemesis_co_opened(struct sim_run *s);

static inline bool run_is_over(const struct sim_run *s) { return s->stop || s->rig.failed; }
/* Sleeps, but wakes when the life is to end. */
void run_co_sleep(struct sim_run *s, uint64_t ns);

#endif
