/*
 * Requests with extended headers and filters after a good handshake; the second byte chooses the export.
 */
#include "tests/fuzz/nbd_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const char *const names[] = {"mem", "ro", "block4k", "delay", "faulty", "nofast", "marked"};
	static const char *const contexts[] = {"base:allocation", "test:1", "test:2", "test:7"};
	struct nbd_script s = {0};

	if (len < 2)
		return 0;
	script_handshake_extended(&s, names[data[1] % ARRAY_LEN(names)], contexts, 1 + data[1] / 8 % ARRAY_LEN(contexts));
	script_add(&s, data + 2, len - 2);
	nbd_fuzz_run(data[0], s.p, s.len);
	script_free(&s);
	return 0;
}
