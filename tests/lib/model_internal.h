/*
 * model_internal.h: what the files of the model share.
 */
#ifndef TESTS_LIB_MODEL_INTERNAL_H
#define TESTS_LIB_MODEL_INTERNAL_H

#include "tests/lib/model.h"

#define NEVER UINT32_MAX
#define READS_MAX 512
#define VOLS_MAX 512
#define SNAPS_MAX 2048

struct model_op {
	uint32_t began, ended; /* ended: NEVER while under way */
	uint32_t epoch;	       /* crashes before it began */
	uint16_t vol, snap;    /* snap: of a copy: which snapshot's values it has */
	uint8_t kind;
	bool strong, durable; /* strong: hides what was there */
};

/* Snapshots of one call: the instant that they show. */
struct model_set {
	uint32_t after, until;	 /* it is later than the one, and not later than the other */
	uint32_t op_in, op_out;	 /* who says so */
	uint32_t epoch;		 /* that it was begun in */
	bool is_there, is_absent; /* after a crash */
	bool is_new;
	unsigned vol; /* of what was received: the volume's index + 1, that is_new with it, or changed; else 0 */
};

/* One that is under way. */
struct model_share {
	uint32_t op, since;
	unsigned from, to; /* volumes */
	uint64_t from_first, to_first, n; /* sectors */
};
#define SHARES_MAX 16

struct model {
	struct model_op *ops; /* [0]: the beginning of the world */
	uint32_t n_ops, cap_ops, now, epoch;
	uint32_t killed; /* now, after the process was lost the last time */
	struct model_vol *vols[VOLS_MAX], *snaps[SNAPS_MAX];
	unsigned n_vols, n_snaps;
	unsigned n_taking; /* snapshots that are being taken now */
	struct model_set *sets;
	unsigned n_sets, cap_sets;
	struct model_share shares[SHARES_MAX];
	unsigned n_shares;
	uint32_t reads[READS_MAX]; /* when those under way began */
	unsigned n_reads;
};

/* model.c */
void *model_grow(void *p, size_t n);
struct model_cand *model_cands(struct model_sector *s);
void model_cand_add(struct model_sector *s, uint32_t op, model_val val);
uint32_t model_op_new(struct model *m, enum model_kind kind);
void model_vol_room(struct model_vol *v, uint64_t size_bytes);
void model_size_is(const struct model *m, struct model_vol *v, uint64_t size_bytes, uint32_t zero_op);
void model_sector_prune(const struct model *m, struct model_sector *s);
void model_hide_before(const struct model *m, struct model_sector *s, uint32_t began, uint32_t now);
/* Could this candidate have returned it? kind: as stamp_read(). */
static inline bool model_cand_fits(const struct model *m, const struct model_cand *c, int kind, model_val val)
{
	bool zero = m->ops[model_val_op(c->val)].kind == MODEL_ZERO;

	return kind == 1 ? !zero && c->val == val : zero;
}

/* model_share.c */
/* An operation has begun on this sector, with this value: who is being given the sector may get that. */
void model_shares_begin(struct model *m, const struct model_vol *v, uint64_t sector, model_val val);

/* model_transfer.c */
/* After a crash: what was received, or was not. */
bool model_receive_settle(struct model *m, const struct model_set *set);

/* model_family.c */
/* One in the making, without its candidates. */
struct model_vol *model_snap_new(struct model *m, unsigned set, unsigned parent, const char *name, uint64_t size_bytes);
/* An operation has begun on these sectors, and may be in snapshots that are being taken. */
void model_snaps_begin(struct model *m, const struct model_vol *v, uint32_t op, uint64_t first, uint64_t end);
/* A sector of a snapshot is found to be so, which is final. False: it cannot be (said why, if why is given). */
bool model_snap_pin(struct model *m, struct model_vol *snap, uint64_t sector, int kind, model_val val, char *why, size_t len);
/* The same for the snapshot that candidate `op` of a volume comes from, if it is a copy. */
bool model_origin_pin(struct model *m, uint32_t op, uint64_t sector, int kind, model_val val, char *why, size_t len);
void model_snaps_crash(struct model *m);

#endif
