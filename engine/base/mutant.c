#include "engine/base/mutant.h"

#include <stddef.h>
#include <string.h>

static const char *const names[] = {
	"NONE",
#define X(name, what) #name,
	MUTANT_TABLE(X)
#undef X
};

#ifdef ASHLAR_MUTANTS
enum mutant mutant_now;
#endif

const char *mutant_name(unsigned i)
{
	return i + 1 < MUTANT_COUNT ? names[i + 1] : NULL;
}

bool mutant_set(const char *name)
{
#ifdef ASHLAR_MUTANTS
	unsigned i;

	for (i = 0; i < MUTANT_COUNT; i++) {
		if (!strcmp(names[i], name)) {
			mutant_now = (enum mutant)i;
			return true;
		}
	}
#else
	(void)name;
#endif
	return false;
}
