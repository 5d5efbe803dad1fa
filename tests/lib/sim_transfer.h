/*
 * sim_transfer.h: send and receive in the rig, with the model: snapshots become parcels, and parcels volumes and snapshots of the
 * same pool.
 *
 * A parcel is a stream with an image of what the snapshot held when it was sent. It is the sender's, outlives worlds, and does
 * not change. The model knows of what is received from the moment its last byte goes to the engine: whatever shows earlier, or of
 * a stream that was cut or damaged, should not be there. All functions with _co_: coroutine on reactor 0.
 */
#ifndef TESTS_LIB_SIM_TRANSFER_H
#define TESTS_LIB_SIM_TRANSFER_H

#include "engine/base/uuid.h"
#include "tests/lib/parcel_stream.h"
#include "tests/lib/sim_rig.h"

struct parcel {
	struct uuid guid, base_guid;
	uint8_t *bytes;
	size_t len;
	char snap[MODEL_NAME_MAX]; /* what it will be called */
	uint64_t start_bytes;	   /* of a resumed stream */
	struct model_image *image, *base; /* base NULL: whole */
	bool is_rest;		   /* goes on with another parcel, whose images it shows */
};
void parcel_free(struct parcel *p);
/* Keeps it in g->parcels; the one at `slot` goes if that is full. */
void parcel_keep(struct rig *g, struct parcel *p, unsigned slot);
void parcels_free(struct rig *g);

/* Reads the snapshots, and sends. base NULL: whole. is_held: nobody else does anything with them meanwhile. NULL: it could not be,
 * with reason, or a failure. */
struct parcel *rig_co_send(struct rig *g, struct model_vol *snap, struct model_vol *base, bool is_held, const struct parcel_way *way);

#define RIG_NEVER SIZE_MAX
struct rig_receive {
	const struct parcel *parcel;
	struct model_vol *to; /* incremental; free */
	const char *name;     /* whole: of no volume */
	bool force, no_resume;
	uint64_t keep_bytes, slow_ns, seed;
	size_t cut, flip;  /* the stream ends there; a bit of that byte is another; RIG_NEVER: not */
	const bool *stop;
};
/* Returns its result. */
int rig_co_receive(struct rig *g, const struct rig_receive *x);

/* What is kept of streams that were cut: some go on, some are dropped, some stay; all: none stays. */
void rig_co_kept(struct rig *g, struct rng *rng, bool all, const bool *stop);

#endif
