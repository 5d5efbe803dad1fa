/*
 * The whole conversation, from the client's flags on.
 */
#include "tests/fuzz/nbd_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (len)
		nbd_fuzz_run(data[0], data + 1, len - 1);
	return 0;
}
