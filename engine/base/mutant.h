/*
 * mutant.h: tests of the tests: places where the engine can be broken on purpose, one at a time, to see that simulation and
 * crash explorer find it. MUTANT(name) is constant false unless built with -DASHLAR_MUTANTS (make mutants).
 */
#ifndef ENGINE_BASE_MUTANT_H
#define ENGINE_BASE_MUTANT_H

#include <stdbool.h>

/* X(name, what is broken) */
#define MUTANT_TABLE(X)                                                                   \
	X(JOURNAL_BEFORE_DATA, "a map record is handed in before its data is written")    \
	X(FLUSH_SKIPPED, "a commit does not flush the disks before the journal block")    \
	X(REUSE_AT_ONCE, "a freed cluster is handed out before its record is durable")    \
	X(DIRTY_NOT_RECORDED, "a region is written without being recorded dirty")         \
	X(ROOT_BEFORE_PAGES, "a checkpoint is published before its pages are flushed")    \
	X(FUA_WITHOUT_COMMIT, "a FUA write is acknowledged without a commit")             \
	X(STALE_IS_CURRENT, "a disk that missed writes is read as if it were current")    \
	X(RESYNC_SKIPPED, "regions are called in sync without being synced")              \
	X(TORN_BLOCK_ACCEPTED, "the checksum of journal blocks is not looked at")         \
	X(OLD_LAP_REPLAYED, "number, epoch and predecessor of journal blocks are not looked at") \
	X(DISCARD_IGNORES_INFLIGHT, "a freed cluster does not wait for requests in flight") \
	X(JOURNAL_FREED_EARLY, "journal space is reused before the checkpoint is published")       \
	X(WRITE_ERROR_FORGOTTEN, "a copy that could not be written stays current")        \
	X(LEAF_STALE, "a map leaf is loaded without the records that are under way")      \
	X(OUT_NOT_AWAITED, "what a disk missed is acknowledged before the labels say that it is out") \
	X(LOST_PARITY_NOT_LOGGED, "parity that is not there is left out of a log entry that follows one which has it") \
	X(SHAPE_KEEPS_LOG, "a group takes another shape, and older entries of the stripe log are replayed into it") \
	X(OUT_NOT_PUBLISHED, "a failed disk is out in memory, and no label says so")     \
	X(STRIPE_LOG_SKIPPED, "a partial stripe is written without the log")             \
	X(FRESH_IS_OVERWRITE, "parity is modified where it was never computed")          \
	X(LOG_CANCEL_SKIPPED, "a whole fresh stripe does not cancel older log entries")  \
	X(LOG_NOT_REPLAYED, "opening does not replay the stripe logs")                   \
	X(TARGET_SKIPS_WRITES, "writes do not go to the column that is being rebuilt")   \
	X(SWITCH_BEFORE_FLUSH, "a rebuilt group's record is switched before its target is flushed") \
	X(REBUILD_FORGETS_DIRTY, "a rebuild clears the dirty regions of other absent disks") \
	X(SNAPSHOT_NOT_MARKED, "a volume goes on overwriting what a snapshot has")       \
	X(SNAPSHOT_NOT_COMMITTED, "a snapshot is acknowledged before it is durable")     \
	X(SNAPSHOT_ONE_BY_ONE, "snapshots of one call are not of one instant")           \
	X(LEAF_COPY_NOT_COUNTED, "a map leaf is copied without counting what it refers to") \
	X(SHARES_NOT_SURE, "a cluster counts as unshared before that is durable")        \
	X(ROLLBACK_KEEPS_LEAVES, "a volume keeps its cached leaves over a rollback")     \
	X(MERGE_NOT_COPIED, "own and base are brought together without copying") \
	X(RECEIVED_NOT_COMMITTED, "what was received is acknowledged before it is durable") \
	X(TOKEN_AHEAD, "what has come of a stream counts as kept before it is written") \
	X(CUT_IS_END, "a stream that was cut counts as having come to its end") \
	X(CHANGES_NOT_SEEN, "a volume that has changed is received into without force") \
	X(DIFF_WITHOUT_HOLES, "what was discarded since the base is not sent") \
	X(ADOPTED_DISCARD_FORGETS, "a discard in an adopted volume uncovers its source")  \
	X(ADOPTED_EDGES_FORGOTTEN, "a small write does not bring the rest of its subcluster from the source") \
	X(MOVE_SKIPS_WRITES, "what clients write while a volume moves is not written to the copy") \
	X(MOVE_FORGETS_HOLES, "what was discarded since a snapshot is not discarded in the copy") \
	X(MOVE_KEPT_AHEAD, "more of a copy counts as there after a crash than has been copied") \
	X(ARRIVES_BEFORE_HANDED, "a family is served in the other pool before this one has given it up") \
	X(HANDED_STILL_OPENS, "a family that lives in another pool is served here too") \
	X(KEPT_NOT_APPLIED, "what a killed process has kept of the journal is not applied") \
	X(HAND_NOT_KEPT, "what a reactor hands in can be lost on its way home") \
	X(SHARED_IN_ONE_PLACE, "where clusters are shared from they are still overwritten") \
	X(NOTES_STAY_BEHIND, "a volume goes to another pool without its notes") \
	X(NOTE_NOT_COMMITTED, "a note is acknowledged before it is durable")

enum mutant {
	MUTANT_NONE,
#define X(name, what) MUTANT_##name,
	MUTANT_TABLE(X)
#undef X
	MUTANT_COUNT,
};

#ifdef ASHLAR_MUTANTS
extern enum mutant mutant_now;
#define MUTANT(name) (mutant_now == MUTANT_##name)
#else
#define MUTANT(name) false
#endif

/* By name; false: there is none of that name, or none in this build. */
bool mutant_set(const char *name);
/* i-th name, NULL beyond the last. */
const char *mutant_name(unsigned i);

#endif
