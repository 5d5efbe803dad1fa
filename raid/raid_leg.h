/*
 * raid_leg.h: what raid_leg.c (deadlines, hedging, health) and raid_suspect.c (zeros) share. Nobody else includes it.
 */
#ifndef RAID_RAID_LEG_H
#define RAID_RAID_LEG_H

#include "raid/raid_impl.h"

/* A request that is with a disk. It outlives its submitter's interest. */
struct raid_call {
	struct io io;	  /* what the disk has */
	struct list link; /* in one of its slot's lists, or in raid.free_legs */
	struct raid *raid; /* NULL: the instance is closed */
	struct raid_disk_slot *slot;
	struct io *outer; /* the submitter's; NULL: given up */
	void *bounce;	  /* where a read goes that may not write to the submitter's memory */
	struct iovec *iov; /* given up: our own list */
	uint64_t start_ns; /* by raid_leg_clock() */
	uint32_t epoch;
	uint8_t flags;
	bool asked; /* suspect: the question under way is about it too */
};

/* Time in which the reactor has run. After a pause of the whole process, answers that are there already are not late. */
static inline uint64_t raid_leg_clock(const struct raid *r)
{
	return reactor_now_ns() - r->leg_skew_ns;
}

/* A pause may be noticed after the start of a request that has seen none of it. */
static inline uint64_t raid_call_age(const struct raid_call *c, uint64_t now)
{
	return now > c->start_ns ? now - c->start_ns : 0;
}

#define RAID_CALL_PROBE (1 << 7) /* in flags: a read that went to a slow disk */

/* Ends it for the submitter; the kernel does not have it. */
void raid_call_finish(struct raid_call *c, int result);

/* Does the read's payload have a block of zeros? */
bool raid_call_has_zeros(const struct raid_call *c);
/* Does not suspend. It ends when the pool has been asked about its disk. */
void raid_call_suspect(struct raid_call *c);

#endif
