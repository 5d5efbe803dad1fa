/*
 * sim_run.h: one random run of the whole engine: what its files share.
 *
 *   sim_main.c    the command line; each seed in a child process
 *   sim_shape.c   a run's shape: disks, layouts, load, settings
 *   sim_run.c     its lives, from opening to a clean end, a kill or a power cut; the end, when everything must heal
 *   sim_client.c  clients: random requests on random volumes
 *   sim_admin.c   management commands meanwhile
 *   sim_family.c  those that concern snapshots and clones; clients that write to two volumes in turn
 *   sim_transfer.c send and receive
 *   sim_disks.c   disks that join and leave
 *   sim_move.c    families that move to other layouts, and to another pool
 *   sim_pools.c   that other pool
 *   sim_nemesis.c what happens to disks in service
 *   sim_rot.c     damage that no disk reports, and what must be found of it
 *   sim_between.c what happens to disks between lives
 *   sim_probe.c   is the redundancy there that the pool claims?
 */
#ifndef TESTS_SIM_SIM_RUN_H
#define TESTS_SIM_SIM_RUN_H

#include "engine/base/units.h"
#include "tests/lib/sim_rig.h"

#define CLIENTS_MAX 16
#define ROT_MAX 64

struct rot { /* a granule that was damaged */
	unsigned disk;
	uint64_t off_bytes;
	uint64_t first_bytes, step_bytes; /* rot_at() */
	uint8_t before[512], after[512];
};

/* What is wrong with a disk by the nemesis' doing. */
struct harm {
	bool now;		 /* faults are set, or it is not there */
	bool missed;		 /* it may have missed writes */
	bool removed;		 /* not there at all */
	uint64_t cut_bytes;	 /* it has been cut short: its size before; 0: not */
	uint64_t healed_ns;	 /* when that ended; what was under way then may still fail */
	struct sim_disks *saved; /* it has been wiped: what it held */
};

/* Of the other pool: its disk that has faults, or may not have caught up since. */
struct other_harm {
	int disk; /* -1: none */
	bool now, removed;
	uint64_t healed_ns;
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
	bool has_remote; /* some disks are opened as over a network */
	bool sparse; /* large volumes, of which little is written, here and there: many map pages */
	bool family; /* snapshots, clones, rollbacks */
	bool transfers; /* and they are sent and received */
	bool adopt;  /* some volumes begin as the contents of another disk */
	bool relayout; /* volumes move to other layouts */
	bool pools;    /* and to another pool */
	unsigned n_snaps_max;
	bool moves; /* disks join and leave */
	bool beyond; /* faults that redundancy does not cover: honest failures, and after them nothing lost that was durable */
	/* disks */
	struct harm harm[RIG_DISKS_MAX];
	uint32_t hurt; /* those with harm, or that may not have caught up since: redundancy covers them, and no others */
	struct rig_claim claim;
	struct other_harm other;
	struct rot rots[ROT_MAX];
	unsigned n_rots;
	struct sim_disks *old; /* as they were after an earlier life */
	uint64_t old_generation, generation, acked_generation; /* of labels: then, and after this life */
	struct uuid old_uuids[RIG_DISKS_MAX], uuids[RIG_DISKS_MAX]; /* of the pool's disks: likewise; zero: it is none */
	/* a life */
	unsigned life;
	bool stop, last, done;
	int result;
	int (*main)(void *arg);
	uint64_t crash_at;
	bool probe_wanted;
	bool heard_out; /* a disk has been put out in this life */
	unsigned n_running; /* coroutines of clients, admin, nemesis */
	unsigned next_name, n_probes, n_scrubs;
	uint64_t life_ns;
};

/* Everything follows from the seed. Returns 0 if the run found nothing wrong. */
int sim_run_seed(struct sim_run *s, uint64_t seed);

void shape_choose(struct sim_run *s);

/* Coroutines on reactor 0, started with s (struct sim_run *); each counts in n_running while it runs. */
void client_co_main(void *arg);
void admin_co_main(void *arg);
void nemesis_co_main(void *arg);

/* ---- sim_family.c ---- */
/* Coroutine: one command. */
void family_co_command(struct sim_run *s, struct rng *rng);
struct model_vol *family_any_snap(struct sim_run *s, struct rng *rng);
/* Coroutine: writes to two volumes in turn, each acknowledged before the next, for a while. */
void family_co_in_turn(struct sim_run *s, struct rng *rng);
/* ---- sim_transfer.c ---- */
void courier_co_main(void *arg);
/* Coroutine, nobody else about: nothing is kept of any stream. */
void courier_co_end(struct sim_run *s);
/* ---- sim_disks.c ---- */
/* Coroutine: one command. */
void disks_co_command(struct sim_run *s, struct rng *rng);
/* ---- sim_move.c ---- */
/* Coroutine: one command. */
void move_co_command(struct sim_run *s, struct rng *rng);
/* Coroutine, the end: nothing is moved any more, or hidden, within so much time. */
void move_co_all_over(struct sim_run *s, uint64_t max_ns);

/* ---- sim_pools.c ---- */
bool pools_wanted(uint64_t seed);
void pools_shape(struct sim_run *s);
/* Coroutine, as those above. */
void pools_co_nemesis(void *arg);
/* As those without pools_. */
void pools_off(struct sim_run *s);
void pools_between(struct sim_run *s);
/* Coroutine, pool open, no faults: somebody says that all its disks are good again. */
void pools_co_all_online(struct sim_run *s);

/* sim_admin.c */
/* As good as the pool's default, which is what the nemesis goes by; NULL: that. */
const char *admin_any_layout(struct sim_run *s, struct rng *rng);
struct model_vol *admin_any_volume(struct sim_run *s, struct rng *rng);

/* A life ends or begins: no faults, no latent errors. Disks that are not there stay away. */
void nemesis_off(struct sim_run *s);
/* Coroutine, pool open: whoever has caught up is not hurt any more. */
void nemesis_co_look(struct sim_run *s);

/* ---- sim_rot.c ---- */
/* Damages a granule of one metadata copy on the disk, or a part of one label. */
void rot_one(struct sim_run *s, unsigned disk);
/* Damaged granules become as they were, where nobody has written meanwhile. */
void rot_undo(struct sim_run *s);
/* Coroutine, nobody else about: damages data that a scrub can find, and sees that it does. */
void rot_co_scrub(struct sim_run *s);

/* ---- sim_between.c ---- */
/* After a life, its world still there but standing still: who is behind. */
void between_note(struct sim_run *s);
/* Before a life: which disks are there, and as of when. */
void between_lives(struct sim_run *s);

/* ---- sim_probe.c ---- */
/* Coroutine: if the pool says that it can spare disks, the world stops here for probe_run(). */
void probe_co_ask(struct sim_run *s);
/* With the world standing still: a copy of this process loses power and so many disks, opens the pool and reads everything. */
void probe_run(struct sim_run *s);

static inline bool run_is_over(const struct sim_run *s) { return s->stop || s->rig.failed; }
/* Sleeps, but wakes when the life is to end. */
void run_co_sleep(struct sim_run *s, uint64_t ns);

#endif
