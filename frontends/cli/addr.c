#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "frontends/cli/serve.h"

bool cli_addr_is_local(const char *addr)
{
	return !strncmp(addr, "unix:", 5) || !strncmp(addr, "127.", 4) || !strncmp(addr, "localhost:", 10) ||
	       !strncmp(addr, "[::1]:", 6);
}

const char *cli_addr_host(const char *host, char *buf, size_t len)
{
	if ((strcmp(host, "0.0.0.0") && strcmp(host, "::") && strcmp(host, "[::]")) || gethostname(buf, len) < 0)
		return host;
	buf[len - 1] = '\0';
	return buf;
}

void cli_addr_beside_control(const char *control, char *buf, size_t len)
{
	const char *slash = strrchr(control, '/'), *base = slash ? slash + 1 : control;
	int dir = (int)(base - control);
	size_t n = strlen(base);

	if (!strcmp(base, "control.sock")) {
		snprintf(buf, len, "unix:%.*snbd.sock", dir, control);
		return;
	}
	if (n > 5 && !strcmp(base + n - 5, ".sock"))
		n -= 5;
	snprintf(buf, len, "unix:%.*s%.*s-nbd.sock", dir, control, (int)n, base);
}
