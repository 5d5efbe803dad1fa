/*
 * nbd_fuzz.h: one run of the NBD server over fuzzed bytes. Aborts if the server hangs or leaks.
 */
#ifndef TESTS_FUZZ_NBD_FUZZ_H
#define TESTS_FUZZ_NBD_FUZZ_H

#include "tests/lib/nbd_run.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Of the server; NULL: it knows no TLS. */
extern struct tls_config *nbd_fuzz_tls;
extern bool nbd_fuzz_tls_required;

/* The first byte chooses how the bytes are cut into receives. */
void nbd_fuzz_run(uint8_t how, const void *in, size_t len);

#endif
