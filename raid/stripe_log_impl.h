/*
 * stripe_log_impl.h: what writing the log (stripe_log.c) and reading it back (stripe_log_read.c) share.
 */
#ifndef RAID_STRIPE_LOG_IMPL_H
#define RAID_STRIPE_LOG_IMPL_H

#include "engine/base/hash.h"
#include "raid/stripe_log.h"
#include "raid/stripe_log_format.h"

#define STRIPE_LOG_COPIES_MAX 8 /* that recovery looks at */

/* Header blocks that n entries need. */
static inline uint64_t stripe_log_head_bytes(uint64_t n)
{
	return ALIGN_UP(sizeof(struct stripe_log_head_disk) + n * sizeof(struct stripe_log_entry_disk), (uint64_t)STRIPE_LOG_BLOCK);
}

static inline uint64_t stripe_log_batch_bytes(uint64_t n, uint64_t payload_bytes)
{
	return stripe_log_head_bytes(n) + ALIGN_UP(payload_bytes, (uint64_t)STRIPE_LOG_BLOCK);
}

static inline uint64_t stripe_log_entry_bytes(const struct stripe_log_entry *e)
{
	return (uint64_t)__builtin_popcount(e->cols) * e->row_len_bytes;
}

/* (group, stripe) as a key of a hash; who finds it compares both. */
static inline uint64_t stripe_log_key(uint64_t group, uint64_t stripe)
{
	return hash_mix(group) + stripe;
}

/* Can this be an entry that has payload? */
bool stripe_log_entry_is_valid(const struct stripe_log_entry *e);
/* The crc of a header block, as if its crc field were zero. */
uint32_t stripe_log_head_crc(const void *block);
/* Coroutine. Reads or writes a piece of the ring, going round at its end: as many requests as that takes, at once. len is at
 * most the ring's, pos inside it, both multiples of 4096. */
int stripe_log_ring_co_io(const struct stripe_log_conf *c, enum io_op op, uint64_t pos, void *buf, uint64_t len, unsigned flags,
			  unsigned copy) __must_check;

#endif
