/*
 * pool_internal.h: what the files of engine/pool share. Home reactor (0) unless a comment says otherwise.
 */
#ifndef ENGINE_POOL_POOL_INTERNAL_H
#define ENGINE_POOL_POOL_INTERNAL_H

#include "engine/pool/ashlar.h"
#include "engine/pool/assembly.h"
#include "engine/pool/pool_format.h"
#include "raid/raid.h"
#include "thin/thin.h"

struct event_log;
struct pool_life;

struct ashlar {
	struct world *world;
	struct ashlar_options opt;
	struct list pools;
	struct event_log *events; /* events.c */
	struct co_mutex admin; /* opening, closing, creating: one at a time */
	struct list moves;     /* struct pool_move: move_family.h; of all pools */
	struct co_queue moves_changed; /* one has let go, or ended */
	uint64_t n_arrivals;	       /* ashlar_co_arrivals() */
	unsigned n_arriving;	       /* now */
};

enum pdisk_state {
	PDISK_FREE, /* an entry of the label without a disk */
	PDISK_ABSENT,
	PDISK_FAILED, /* there, but it answered a write with an error: only groups without redundancy still use it */
	PDISK_STALE,  /* there, being brought up to date */
	PDISK_ONLINE,
};

struct pdisk {
	struct disk *disk; /* NULL: absent */
	struct disk *overlay; /* of a pool that is open read-only: what its stripe logs hold, over the true disk; it is `disk` then */
	enum pdisk_state state;
	bool joining; /* no label that all have acknowledged knows it yet: nothing may lie on it */
	bool leaving; /* nothing new is placed there: label_disk.leaving says what is wanted */
	bool rolled_back; /* found with an older state than it had acknowledged: nothing of it is trusted */
	uint64_t extents, used, cursor;
	uint64_t no_run; /* so many free extents in a row are not to be found, since none was freed; 0: not known */
	/* of one that is not ONLINE: */
	char reason[ASSEMBLY_WHY_BYTES];
	bool entering; /* ONLINE, but labels do not say so yet: after a crash it is still out */
	bool arriving; /* STALE, but not all instances know it: nothing that is copied now is copied to it */
	uint64_t n_arrivals; /* times it has become STALE; 1 if it was found so */
	uint64_t since_ns; /* when it left, or the pool was opened without it */
	bool at_once;	   /* rebuilt without delay: it answered with errors, or somebody said so */
	struct disk *dead;    /* handle of a disk that has vanished: closed when nothing is with the kernel any more */
	unsigned n_own;	       /* requests of engine/pool itself under way; some may be late */
	_Atomic uint64_t n_repaired, n_unrepaired; /* reads answered from elsewhere: place rewritten, or not */
	uint64_t n_reported, n_reported_bad, reported_ns;
	uint64_t slow_reactors; /* a bit each: reads go around it there */
	bool is_probed;		/* watch.c reads from it, to see whether it is still slow */
	char *last_path;	/* in full, of the last handle; NULL: as the label says */
	char refused[sizeof(((struct err *)0)->text)]; /* what has been said of what lies there now */
	/* ours.c */
	uint32_t labels_seen; /* slots of the front area and of the tail: our label has been seen there */
	char lost[100];	      /* somebody has overwritten it, or cut it short: why nothing is written to it any more; "" */
	uint64_t needed_ns, needed_gen; /* when the pool refused to do without it (0: not), as of that change_gen */
};

/* A group in the home's memory. */
struct pgroup {
	struct hash_node node; /* by number */
	struct raid_desc desc;
	uint8_t kind;
	uint64_t dirty;	      /* recorded, or being recorded by dirty_seq */
	uint64_t dirty_seq;
	uint64_t unsync;      /* to be synced before use */
	uint64_t touched; /* leased since the cleaner's last look */
	struct co_mutex sync; /* one at a time: syncing, or the way to another descriptor */
	/* As the instances have it, or are about to: transition.c. */
	bool homed, has_target, shaping;
	uint8_t target_col;
	struct raid_col target;
	uint64_t caught_up, caught_up_gen; /* regions that every disk that was STALE at that stale_gen has */
	const struct raid_desc *before; /* while the record of desc is not durable: what a crash may bring back */
	bool moving;  /* in transition: not cleaned */
	bool leaving; /* about to be destroyed */
	uint64_t lease[]; /* by reactor */
};

/* As a kind, in memory alone: what another group is copied into (reshape.c). */
#define POOL_GROUP_SHAPE 100

struct pending_run { /* extents of a group whose record has not been applied yet */
	struct list link;
	unsigned disk;
	uint64_t first, n, seq;
	bool target; /* of a column to come: its record has not been handed in */
};

struct pool_reactor { /* hooks' context, one per reactor */
	struct ashlar_pool *pool;
	struct raid *raid;
	struct reactor *reactor;
	struct timer idle; /* returns idle leases */
};

struct ashlar_pool {
	struct list link;
	struct ashlar *a;
	struct world *w;
	struct assembly *as; /* label and open disks */
	struct label *label; /* = &as->label */
	struct pdisk disks[LABEL_DISKS_MAX];
	unsigned n_disks;
	bool unsettled; /* a disk is out, and not all labels say so yet: see raid_set_unsettled() */
	bool labels_agree; /* at opening: every disk that is there has the label that rules */
	bool read_only, started, stopping, failed;
	uint64_t sent_generation; /* of the newest label that we have written, 0: none */
	bool has_stranger; /* a second daemon has been seen: no label is written any more (ours.c) */
	bool no_moves; /* it is about to be closed */
	uint64_t handed_said_ns; /* when it was last said that a volume cannot arrive; 0: never */
	char failed_why[200];
	unsigned n_reactors;
	struct pool_reactor reactors[REACTORS_MAX];

	struct meta *meta;
	struct thin *thin;
	struct meta_array *groups, *extents, *regions, *notes;
	struct hash pgroups;
	struct list pending_runs;
	struct list held_runs; /* struct pending_run: free by their record, but not yet for others; not counted */
	uint64_t next_group, replayed_from; /* as the checkpoint had it, before the journal's replay */
	struct co_mutex alloc; /* group creation */
	struct co_mutex labels; /* label writing */
	struct co_mutex group_load;
	struct co_mutex notes_lock; /* a note is read or written */
	bool has_notes;		    /* the labels say so */
	struct co_mutex directory; /* while it is held no volume or snapshot begins to be deleted */
	bool meta_group_added; /* label lists groups that no published label has */
	bool virtual_space;    /* read-only replay went beyond the metadata groups */

	unsigned n_homes;	  /* of homed groups: the first so many reactors; as many stripe logs there are in this epoch */
	uint32_t log_slice_bytes; /* of each */
	bool logs_lost;		  /* they could not be read, and the pool was opened by force */

	/* background */
	struct timer tick;
	bool tick_runs;
	struct co_queue idle;
	uint64_t resync_total_bytes, resync_done_bytes;
	struct pool_life *life; /* life.h: jobs, pacing, watching; NULL before the pool has started */
	struct ashlar_pool_settings settings;
	uint64_t change_gen; /* counts changes of disk states and of where groups lie */
	uint64_t disk_gen;   /* counts changes of disk states alone */
	uint64_t stale_gen;  /* counts disks that have come back */

	struct list attached; /* struct ashlar_attach */
	struct list transfers; /* struct pool_transfer: transfer.h */
	unsigned n_opening;
	uint64_t open_ns;
	_Atomic uint64_t errors_read, errors_write, errors_repaired, errors_metadata_repaired;
};

#define POOL_EXTENT_INDEX(disk, extent) ((uint64_t)(disk) << 32 | (extent))

static inline bool pool_layout_is_parity(unsigned layout)
{
	return layout == RAID_RAID5 || layout == RAID_RAID6;
}

/* engine.c */
void pool_log(struct ashlar_pool *p, const char *fmt, ...) __printf_like(2, 3);
/* Coroutine. Runs fn on every reactor in turn, this one included. */
void pool_co_each_reactor(struct ashlar_pool *p, int (*fn)(void *arg), void *arg);
struct pool_reactor *pool_here(struct ashlar_pool *p); /* of the current reactor */

/* open.c */
#define POOL_OPEN_TRUST (1U << 16) /* beside ASHLAR_OPEN_*: disks whose contents are doubtful are taken as they are */
int pool_co_assemble(struct ashlar *a, struct assembly *as, unsigned flags, bool format, struct ashlar_pool **out, struct err *e) __must_check;
void pool_co_teardown(struct ashlar_pool *p);
int pool_co_close(struct ashlar_pool *p, bool clean, struct err *e);

/* state.c: metadata hooks, labels, disk errors */
extern const struct meta_hooks pool_meta_hooks;
int pool_co_publish_labels(struct ashlar_pool *p) __must_check;
int pool_co_publish_locked(struct ashlar_pool *p) __must_check; /* under p->labels */
/* Coroutine. Programs that do not know these LABEL_INCOMPAT_* must not open the pool from now on, durably. Most ask pool_co_feature(). */
int pool_co_incompat_set(struct ashlar_pool *p, uint64_t bits) __must_check;
int pool_co_settle(struct ashlar_pool *p) __must_check; /* raid_hooks.co_settle */
int pool_co_disk_error(struct ashlar_pool *p, unsigned disk, enum io_op op, int error) __must_check;
/* Coroutine. The same with a reason in words; -ENODEV, -ENXIO: it has vanished, its handle is given up. */
int pool_co_disk_out(struct ashlar_pool *p, unsigned disk, int error, const char *reason) __must_check;
/* Coroutine. It is not there any more. */
int pool_co_disk_vanished(struct ashlar_pool *p, unsigned disk, const char *reason) __must_check;
/* Coroutine. Somebody says so. *needed: data is lost by it, or unflushed data may be; -EBUSY then, unless force. */
int pool_co_disk_fail(struct ashlar_pool *p, unsigned disk, bool force, bool *needed) __must_check;
/* Coroutine. It has caught up, if this is still the stay (n_arrivals) that it was when that began. */
int pool_co_disk_online(struct ashlar_pool *p, unsigned disk, uint64_t arrival) __must_check;
enum raid_disk_state pool_raid_state(const struct pdisk *d);
void pool_co_set_disk(struct ashlar_pool *p, unsigned disk);

/* groups.c */
extern const struct thin_hooks pool_thin_hooks;
int pool_co_group_create(struct ashlar_pool *p, unsigned kind, struct raid_profile prof, uint64_t *group) __must_check;
/* Coroutine, with thin's allocation locked. The same; data groups that hold nothing are destroyed where that makes room. */
int pool_co_group_make(struct ashlar_pool *p, unsigned kind, struct raid_profile prof, uint64_t *group) __must_check;
/* Coroutine. Nobody uses it, and nobody else is at it (claimed, or as above); g is freed. */
int pool_co_group_destroy(struct ashlar_pool *p, struct pgroup *g) __must_check;
/* Coroutine. Destroys one data group that holds nothing; -ENOENT: there is none. */
int pool_co_group_reclaim(struct ashlar_pool *p) __must_check;
/* Coroutine, inside co_apply. The extents of a column belong to the group, or to nobody. */
int pool_co_column_mark(struct ashlar_pool *p, const struct raid_desc *d, unsigned col, bool used) __must_check;
/* Coroutine. No instance has it loaded any more. */
void pool_co_group_forget(struct ashlar_pool *p, uint64_t group);
int pool_co_grow_metadata(struct ashlar_pool *p) __must_check;
int pool_co_apply_record(struct ashlar_pool *p, unsigned type, const void *payload, size_t len) __must_check;
int pool_co_pgroup_get(struct ashlar_pool *p, uint64_t group, struct pgroup **out) __must_check;
struct pgroup *pool_pgroup_add(struct ashlar_pool *p, const struct raid_desc *d, unsigned kind, uint64_t dirty);
void pool_label_meta_desc(const struct label *l, unsigned i, struct raid_desc *d);
int pool_group_decode(const struct ashlar_pool *p, const struct pool_group_disk *d, struct raid_desc *out, struct err *e) __must_check;
unsigned pool_metadata_width(const struct ashlar_pool *p);
void pool_group_encode(const struct raid_desc *d, unsigned kind, const struct label *l, struct pool_group_disk *out);
/* Coroutine. Calls each() for every group record; stops at an error. */
int pool_co_each_group(struct ashlar_pool *p, int (*each)(void *arg, const struct pool_group_disk *g), void *arg) __must_check;

/* space.c: extents; under p->alloc */
/* Chooses shape and disks of one more group (d->group is left alone) and takes its runs. -ERR_POOL_FULL. */
int pool_co_space_take_group(struct ashlar_pool *p, unsigned kind, struct raid_profile prof, struct raid_desc *d) __must_check;
/* n extents in a row of one disk, the reserve not looked at; -ENOSPC. Pending until pool_space_handed_in(). */
int pool_co_space_take_run(struct ashlar_pool *p, unsigned disk, uint64_t n, uint64_t *first) __must_check;
/* The last n runs taken, not handed in. */
void pool_space_give_back(struct ashlar_pool *p, unsigned n);
/* What has been taken belongs to the record seq: when that is applied, the arrays have it. */
void pool_space_handed_in(struct ashlar_pool *p, uint64_t seq);
void pool_space_expire(struct ashlar_pool *p);
/* Where a column may go. */
struct pool_target {
	unsigned col;		/* of the group; n_cols: one more copy */
	unsigned prefer_plus_1; /* this disk, if it has room; 0: none */
	uint64_t avoid[LABEL_DISKS_MAX / 64]; /* a bit per disk */
};
/* A new place for one column, on an ONLINE disk that has no column of the group; failing that, on one that has, if redundancy does
 * not suffer by it. The run stays pending until it is handed in or dropped, whatever others take meanwhile. -ERR_POOL_FULL. */
int pool_co_space_take_target(struct ashlar_pool *p, unsigned kind, const struct raid_desc *d, const struct pool_target *t,
			      struct raid_col *target) __must_check;
bool pool_desc_has_disk(const struct raid_desc *d, unsigned disk);
/* May the column lie on a disk that has another one of the group, without harm to redundancy? */
bool pool_desc_may_share(const struct ashlar_pool *p, unsigned kind, const struct raid_desc *d, unsigned col, unsigned disk);
/* Without those that are free entries of the label, or join just now; of those, without the leaving ones. */
unsigned pool_n_disks(const struct ashlar_pool *p);
unsigned pool_n_staying(const struct ashlar_pool *p);
/* What may still be placed there. all: although it is not ONLINE. */
uint64_t pool_space_free_extents(const struct ashlar_pool *p, unsigned disk, bool all);
/* Would there still be room for the reserve if the disks had `free_left` extents? */
bool pool_space_reserve_holds(const struct ashlar_pool *p, const uint64_t *free_left);
/* The same with so many disks, of which so many stay. */
bool pool_space_reserve_would_hold(const struct ashlar_pool *p, const uint64_t *free_left, unsigned n_entries, unsigned n_staying);
/* Of metadata and log groups to be made, with the disks that stay. */
unsigned pool_metadata_copies(const struct ashlar_pool *p);
/* Nothing lies there, as far as records have been applied, or will. */
bool pool_space_is_empty(struct ashlar_pool *p, unsigned disk);
/* Coroutine, under p->alloc. The same for all columns of a parity group, which has no record yet. */
int pool_co_space_take_shape(struct ashlar_pool *p, struct raid_profile prof, struct raid_desc *d) __must_check;
void pool_space_target_handed_in(struct ashlar_pool *p, const struct raid_col *target, uint64_t seq);
void pool_space_target_drop(struct ashlar_pool *p, const struct raid_col *target);
/* A column whose extents a record has freed, or will: nobody gets them before pool_space_release(). Any time. */
void pool_space_hold(struct ashlar_pool *p, const struct raid_col *col, uint64_t col_bytes);
void pool_space_release(struct ashlar_pool *p, const struct raid_col *col);
uint64_t pool_free_bytes(struct ashlar_pool *p); /* any time */
/* Adds the extents of a group's columns to those of their disks (LABEL_DISKS_MAX), where they could be used again. */
void pool_space_add_columns(const struct ashlar_pool *p, const struct raid_desc *d, uint64_t *extents);
/* Coroutine. The same for one layout: free clusters in its groups, and groups still to be made, if need be in place of empty ones. */
int pool_co_free_bytes_of(struct ashlar_pool *p, struct raid_profile prof, uint64_t *bytes) __must_check;

/* regions.c */
extern const struct raid_hooks pool_raid_hooks;
void pool_regions_start(struct ashlar_pool *p);
void pool_co_regions_stop(struct ashlar_pool *p);
/* Coroutine. All regions of the group that a crash or a failed write has left different are made equal. */
int pool_co_group_sync(struct ashlar_pool *p, struct pgroup *g) __must_check;
bool pool_members_are_online(const struct ashlar_pool *p, const struct raid_desc *d);
void pool_co_publish_missed(struct ashlar_pool *p, unsigned disk);
/* Coroutine. The same, and everything counts as missed. */
void pool_co_publish_missed_all(struct ashlar_pool *p, unsigned disk);
/* Coroutine. All of this disk's columns are suspect, not only recorded regions. in_use: it is not there yet; else nobody uses
 * the pool yet, and the disk is. */
int pool_co_distrust_disk(struct ashlar_pool *p, unsigned disk, bool in_use) __must_check;
/* Coroutine. Makes the columns of what is allocated in the range equal, STALE ones and a target included. Not flushed. */
int pool_co_range_resync(struct ashlar_pool *p, struct pgroup *g, uint64_t off, uint64_t end, bool paced) __must_check;
/* All STALE disks of the time when p->stale_gen was this have those regions. */
void pool_group_caught_up(struct pgroup *g, uint64_t mask, uint64_t stale_gen);

/* stripe_logs.c: the group that holds the stripe logs of all reactors, one slice each */
#define POOL_LOG_SLICES_MAX LABEL_LOG_SLICES_MAX
/* From the group's start, what slices of any epoch may use. */
uint64_t pool_stripe_logs_bytes(const struct ashlar_pool *p);
/* Chooses n_homes and the size of a slice: before anybody uses the RAID layer. */
void pool_stripe_logs_init(struct ashlar_pool *p);
/* Coroutine under a->admin. There is a log group and every instance that homes groups has its log attached; made when the
 * first parity volume is. */
int pool_co_stripe_logs_ensure(struct ashlar_pool *p, struct err *e) __must_check;
/* Coroutine, while opening, after the journal's replay and before the new epoch: replays what the last opening's logs hold;
 * read-only: in memory. flags: ASHLAR_OPEN_*. */
int pool_co_stripe_logs_recover(struct ashlar_pool *p, unsigned flags, struct err *e) __must_check;
/* Under p->labels, with the label of a new epoch: says what its logs are. */
void pool_stripe_logs_note(struct ashlar_pool *p);
/* Coroutine, after the new epoch has begun. */
void pool_co_stripe_logs_attach(struct ashlar_pool *p);
/* Coroutine, at the end: nobody writes any more. A flush that a log has begun by itself is over when it returns. */
void pool_co_stripe_logs_settle(struct ashlar_pool *p);
/* Nobody uses the disks any more. */
void pool_stripe_logs_fini(struct ashlar_pool *p);
/* Coroutine. Copies of the log group that are behind get what the current ones have. */
int pool_co_stripe_logs_resync(struct ashlar_pool *p) __must_check;

/* events.c: any reactor, does not suspend. Also a line for the log. disk -1: none; volume NULL: none. */
void pool_event(struct ashlar_pool *p, enum ashlar_severity s, const char *type, int disk, const char *volume, const char *fmt, ...)
	__printf_like(6, 7);

/* ours.c. Coroutine. The pool has failed, and must not be written any more at all: see raid_shut(). */
void pool_co_shut(struct ashlar_pool *p);

/* transition.c: a group's way from one descriptor to another, and its time as a homed one */
/* Coroutine. All instances take g's desc, target and homed flag as they are in the pgroup now; leases start anew. */
void pool_co_group_publish(struct ashlar_pool *p, struct pgroup *g);
/* Coroutine. The same for one that was `shaping`: the home first, which holds all requests until co_thaw(arg). */
void pool_co_group_publish_shape(struct ashlar_pool *p, struct pgroup *g, void (*co_thaw)(void *arg), void *arg);
/* What an instance is told of a group, but for leases of data groups. */
void pool_group_info(const struct ashlar_pool *p, const struct pgroup *g, struct raid_group_info *out);

/* move.c, settings.c: records */
int pool_co_apply_group_columns(struct ashlar_pool *p, unsigned type, const void *payload, size_t len) __must_check;
int pool_apply_settings(struct ashlar_pool *p, const void *payload, size_t len) __must_check;
/* notes.c. Coroutines, inside co_apply. */
int pool_co_apply_note(struct ashlar_pool *p, unsigned type, const void *payload, size_t len) __must_check;
int pool_co_apply_notes_gone(struct ashlar_pool *p, uint64_t volume) __must_check;
/* Coroutines. As ashlar_co_note_get() and _set(), by the volume's id. */
int pool_co_note_get(struct ashlar_pool *p, uint64_t volume, unsigned key, void **data, size_t *len) __must_check;
int pool_co_note_set(struct ashlar_pool *p, uint64_t volume, unsigned key, const void *data, size_t len, struct err *e) __must_check;

/* Coroutine, while opening. v->identity of those that have come from other pools. */
int pool_co_identities_load(struct ashlar_pool *p) __must_check;
/* Coroutine under a->admin and p->notes_lock. All that belongs to `of` belongs to its copy in the other pool too, and what it was here. */
int pool_co_notes_copy(struct ashlar_pool *p, struct thin_vol *of, struct ashlar_pool *to, struct thin_vol *copy, struct err *e) __must_check;

/* volumes.c */
void pool_co_detach_all(struct ashlar_pool *p);

#endif
