#include "tests/fuzz/nbd_fuzz.h"

#include <stdlib.h>

#include "engine/base/units.h"

struct tls_config *nbd_fuzz_tls;
bool nbd_fuzz_tls_required;

void nbd_fuzz_run(uint8_t how, const void *in, size_t len)
{
	static const size_t chunks[] = {0, 1, 3, 28, 29, 512, 4096, 5000};
	struct nbd_run run = {
		.seed = how,
		.n_reactors = 1 + (how >> 3) % 2,
		.chunk = chunks[how % ARRAY_LEN(chunks)],
		.in = in,
		.in_len = len,
		.o = {.max_in_flight = 8, .max_in_flight_bytes = 2 * MIB, .max_total_bytes = 2 * MIB,
		      .tls = nbd_fuzz_tls, .tls_required = nbd_fuzz_tls_required},
	};

	nbd_run(&run);
	if (run.result || run.leaked)
		abort();
	nbd_run_free(&run);
}
