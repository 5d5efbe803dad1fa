/*
 * Requests after a good handshake; the second byte chooses the export and whether replies are structured.
 */
#include "tests/fuzz/nbd_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const char *const names[] = {"mem", "ro", "block4k", "delay", "faulty", "nofast"};
	struct nbd_script s = {0};

	if (len < 2)
		return 0;
	script_handshake(&s, names[data[1] / 2 % ARRAY_LEN(names)], data[1] % 2);
	script_add(&s, data + 2, len - 2);
	nbd_fuzz_run(data[0], s.p, s.len);
	script_free(&s);
	return 0;
}
