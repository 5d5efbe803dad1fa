/*
 * rng.h: xoshiro256**, the deterministic generator of the simulated world, tests and benches. Not for secrets.
 */
#ifndef ENGINE_BASE_RNG_H
#define ENGINE_BASE_RNG_H

#include "engine/base/base.h"

struct rng {
	uint64_t s[4];
};

void rng_init(struct rng *r, uint64_t seed);
uint64_t rng_next(struct rng *r);
/* Uniform in [0, n); n > 0. */
uint64_t rng_below(struct rng *r, uint64_t n);
/* True with probability num/den. */
static inline bool rng_chance(struct rng *r, uint32_t num, uint32_t den) { return rng_below(r, den) < num; }
void rng_fill(struct rng *r, void *buf, size_t len);

#endif
