/*
 * sim_keep.c: kept memory of the simulated world: beside the disks, which outlive worlds too, and gone with the power.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/io/keep.h"
#include "engine/io/sim_world.h"

static struct sim_keep *keep_find(struct sim_disks *ds, const char *name)
{
	struct sim_keep *k;

	for (k = ds->keeps; k; k = k->next)
		if (!strcmp(k->name, name))
			return k;
	return NULL;
}

static struct sim_keep *keep_add(struct sim_disks *ds, const char *name)
{
	struct sim_keep *k = sim_alloc(sizeof(*k));

	k->name = sim_strdup(name);
	k->next = ds->keeps;
	ds->keeps = k;
	return k;
}

static void keep_empty(struct sim_keep *k)
{
	free(k->mem);
	k->mem = NULL;
	k->bytes = 0;
}

int sim_keep_open(struct world *w, const char *name, bool read_only, void **mem, size_t *bytes)
{
	struct sim_keep *k = keep_find(sim_world_of(w)->disks, name);

	(void)read_only;
	if (!k || !k->mem)
		return -ENOENT;
	*mem = k->mem;
	*bytes = k->bytes;
	return 0;
}

int sim_keep_create(struct world *w, const char *name, size_t bytes, void **mem)
{
	struct sim_disks *ds = sim_world_of(w)->disks;
	struct sim_keep *k = keep_find(ds, name);

	if (!k)
		k = keep_add(ds, name);
	keep_empty(k);
	*mem = k->mem = sim_alloc(bytes);
	k->bytes = bytes;
	return 0;
}

void sim_keep_close(struct world *w, const char *name, void *mem, size_t bytes, bool forget)
{
	struct sim_keep *k = keep_find(sim_world_of(w)->disks, name);

	(void)bytes;
	if (forget && k && k->mem == mem)
		keep_empty(k);
}

void sim_keeps_clone(struct sim_disks *to, const struct sim_disks *from)
{
	const struct sim_keep *k;

	for (k = from->keeps; k; k = k->next) {
		struct sim_keep *c;

		if (!k->mem)
			continue;
		c = keep_add(to, k->name);
		c->mem = sim_alloc(k->bytes);
		c->bytes = k->bytes;
		memcpy(c->mem, k->mem, k->bytes);
	}
}

void sim_keeps_drop(struct sim_disks *ds)
{
	struct sim_keep *k;

	while ((k = ds->keeps)) {
		ds->keeps = k->next;
		keep_empty(k);
		free(k->name);
		free(k);
	}
}
