/*
 * The whole conversation where the server knows TLS: what comes behind STARTTLS is taken for TLS's handshake. The second byte
 * chooses whether TLS is required.
 */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/fuzz/nbd_fuzz.h"

static struct tls_config *config(void)
{
	static const char keys[] = "alice:00112233445566778899aabbccddeeff\n";
	static struct tls_config *c;
	struct tls_options o = {0};
	char path[32];
	int fd, r;

	if (c)
		return c;
	fd = memfd_create("keys", 0);
	CHECK(fd >= 0 && write(fd, keys, sizeof(keys) - 1) == sizeof(keys) - 1);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	o.psk_file = path;
	r = tls_config_create(&o, &c, NULL);
	CHECK(r == 0);
	close(fd);
	return c;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (len < 2)
		return 0;
	nbd_fuzz_tls = config();
	nbd_fuzz_tls_required = data[1] & 1;
	nbd_fuzz_run(data[0], data + 2, len - 2);
	return 0;
}
