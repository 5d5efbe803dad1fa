/*
 * The levels: what each does behind the admission.
 */
#include "raid/raid_impl.h"

static bool mirror_try_start(struct raid_group *g, struct raid_req *q)
{
	switch (q->parent->op) {
	case IO_READ: return raid_mirror_try_read(g, q);
	case IO_WRITE:
	case IO_ZERO: return raid_mirror_try_write(g, q);
	}
	return false;
}

static int mirror_co_run(struct raid_group *g, struct raid_req *q)
{
	switch (q->parent->op) {
	case IO_READ: return raid_mirror_co_read(g, q);
	case IO_WRITE:
	case IO_ZERO: return raid_mirror_co_write(g, q);
	case IO_DISCARD: return raid_mirror_co_discard(g, q);
	}
	return -EINVAL;
}

const struct raid_level raid_level_mirror = {
	.try_start = mirror_try_start,
	.co_run = mirror_co_run,
	.co_resync = raid_mirror_co_resync,
	.co_compare = raid_mirror_co_compare,
	.co_rebuild = raid_mirror_co_rebuild,
	.co_scrub = raid_mirror_co_scrub,
	.co_scrub_fix = raid_mirror_co_scrub_fix,
};

const struct raid_level raid_level_parity = {
	.try_start = raid_parity_try_start,
	.co_run = raid_parity_co_run,
	.co_resync = raid_parity_co_resync,
	.co_compare = raid_parity_co_compare,
	.co_rebuild = raid_parity_co_rebuild,
	.co_scrub = raid_parity_co_scrub,
	.co_scrub_fix = raid_parity_co_scrub_fix,
};
