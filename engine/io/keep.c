/*
 * keep.c: see keep.h. What worlds do differently is behind their operations.
 */
#include "engine/io/keep.h"

#include <errno.h>
#include <string.h>

static void keep_init(struct keep *k, struct world *w, const char *name)
{
	memset(k, 0, sizeof(*k));
	CHECK(strlen(name) <= KEEP_NAME_MAX && !strchr(name, '/'));
	k->world = w;
	strcpy(k->name, name);
}

void keep_open(struct world *w, const char *name, bool read_only, struct keep *k)
{
	keep_init(k, w, name);
	if (w->ops->keep_open && w->ops->keep_open(w, name, read_only, &k->mem, &k->bytes) < 0)
		k->mem = NULL;
}

int keep_create(struct world *w, const char *name, size_t bytes, struct keep *k)
{
	int r;

	keep_init(k, w, name);
	k->bytes = bytes;
	r = w->ops->keep_create ? w->ops->keep_create(w, name, bytes, &k->mem) : -EOPNOTSUPP;
	if (r < 0)
		k->mem = NULL;
	return r;
}

void keep_close(struct keep *k, bool forget)
{
	if (k->mem)
		k->world->ops->keep_close(k->world, k->name, k->mem, k->bytes, forget);
	k->mem = NULL;
}
