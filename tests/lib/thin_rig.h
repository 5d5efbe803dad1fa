/*
 * thin_rig.h: a pool of one simulated disk: the real metadata store and the real thin layer, and of everything around them
 * (RAID, labels, group table) the least that works. Space is the disk itself; groups are handed out in order, group 0 is
 * metadata with the journal; the label is this struct's memory, so it outlives a crash. What the thin layer says of its
 * writes is judged (thin_flags.h).
 *
 * _co_ functions: in the coroutine of thin_rig_run(), on reactor 0, the pool's home.
 */
#ifndef TESTS_LIB_THIN_RIG_H
#define TESTS_LIB_THIN_RIG_H

#include "tests/lib/thin_flags.h"

#define THIN_RIG_LAYOUT_PARITY 5 /* of volumes that redirect; others have layout 1 */

struct thin_rig_conf {
	uint64_t seed;
	unsigned n_reactors;
	uint32_t block_bytes, cluster_bytes;
	uint64_t group_bytes;
	unsigned n_groups, reserve_groups; /* of the disk; kept for metadata */
	uint64_t cache_bytes, journal_bytes;
	unsigned co_requests_max; /* 0: default */
	bool redirect;		  /* as for parity layouts */
	bool unjudged;		  /* nobody looks at what it says of its writes: that costs more with each snapshot */
	uint64_t latency_min_ns, latency_max_ns;
};

struct thin_rig;

/* What stands between the thin layer and the disk, one per reactor. */
struct thin_rig_space {
	struct bdev bdev;
	struct thin_rig *rig;
	struct list held;
};

struct thin_rig {
	struct thin_rig_conf conf;
	struct rng rng;
	struct sim_disks *ds;
	struct world *w;
	struct disk *disk;
	struct meta *meta;
	struct thin *thin;
	struct thin_flags *flags;
	struct thin_rig_space space[REACTORS_MAX];
	/* the label */
	struct meta_root_info root;
	uint64_t next_group, meta_groups[META_GROUPS_MAX], n_meta_groups, log_group;
	/* knobs */
	bool hold_writes;	  /* data writes are kept back until thin_rig_release_writes() */
	bool hold_reads;	  /* data reads likewise */
	bool fail_writes;	  /* data writes end with -EIO */
	unsigned n_writes, n_reads, n_flushes; /* from the thin layer */
	unsigned n_commits;
	uint64_t bytes_written;
	size_t leaked; /* allocations that the last clean close left behind */
};

void thin_rig_init(struct thin_rig *r, const struct thin_rig_conf *c);
void thin_rig_fini(struct thin_rig *r);
/* Runs fn(arg) on reactor 0; returns its result, or sim_run()'s error. */
int thin_rig_run(struct thin_rig *r, int (*fn)(void *arg), void *arg);
int thin_rig_co_format(struct thin_rig *r) __must_check;
int thin_rig_co_open(struct thin_rig *r) __must_check;
/* No volume open. */
int thin_rig_co_close(struct thin_rig *r) __must_check;
/* After co_close: a new world on the same disk. */
void thin_rig_restart(struct thin_rig *r);
/* Power cut, and a new world; everything open is gone. */
void thin_rig_crash(struct thin_rig *r, enum sim_cut cut);

/* Creates a volume. */
int thin_rig_co_create(struct thin_rig *r, const char *name, uint64_t size_bytes, uint64_t full_wait_ns, struct thin_vol **out)
	__must_check;
/* Opens and closes the data path, on its reactor. vol->open is set. */
int thin_rig_co_attach(struct thin_rig *r, struct thin_vol *vol) __must_check;
void thin_rig_co_detach(struct thin_rig *r, struct thin_vol *vol);
/* Makes a group of kind THIN_GROUP_LOG. */
int thin_rig_co_log_group(struct thin_rig *r, struct thin_class cls) __must_check;
/* All records in; number of problems, printed. */
int64_t thin_rig_co_check(struct thin_rig *r);
/* On the reactor where they are held. */
void thin_rig_release_writes(struct thin_rig *r);
unsigned thin_rig_n_held(struct thin_rig *r);

#endif
