#include "engine/base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void check_failed(const char *cond, const char *file, int line, const char *func)
{
	fprintf(stderr, "ashlar: internal error: %s:%d: %s(): '%s' does not hold\n", file, line, func, cond);
	abort();
}
