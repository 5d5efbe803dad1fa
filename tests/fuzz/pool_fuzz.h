/*
 * pool_fuzz.h: a small pool in the simulated world, made once, copied for each input, damaged, and opened. Whatever is
 * done to its metadata, opening, checking, reading and writing must end, and every error must be a sentence.
 */
#ifndef TESTS_FUZZ_POOL_FUZZ_H
#define TESTS_FUZZ_POOL_FUZZ_H

#include "engine/io/sim.h"
#include "engine/pool/label.h"
#include "engine/pool/pool_format.h"

#define POOL_FUZZ_DISKS 2

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The pool as it was closed (clean), or as a power cut left it with records to replay. */
struct pool_fuzz_base {
	struct sim_disks *ds;
	struct label label;
	struct meta_root_disk root;
};
const struct pool_fuzz_base *pool_fuzz_base(bool clean);

/* Reads and writes a piece of the pool's logical space inside the metadata groups; writing changes every copy. False if the
 * place is not in one. */
bool pool_fuzz_peek(const struct pool_fuzz_base *b, struct sim_disks *ds, uint64_t off_bytes, void *buf, size_t len);
bool pool_fuzz_poke(const struct pool_fuzz_base *b, struct sim_disks *ds, uint64_t off_bytes, const void *buf, size_t len);
/* Writes the label with another checksum of the root. */
void pool_fuzz_set_root_crc(const struct pool_fuzz_base *b, struct sim_disks *ds, uint32_t crc);

/* Opens read-only, looks at everything, closes; then the same for writing, with a volume made and data written. */
void pool_fuzz_use(struct sim_disks *ds, uint64_t seed);

#endif
