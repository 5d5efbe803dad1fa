/*
 * keep.h: memory that outlives the process, but not the machine's boot.
 *
 * A process that is killed loses what it had in memory, yet all it has written to disks is there still, flushed or not. What it needs
 * to find its way in that, it can put into kept memory: whoever opens the same name afterwards finds it as the process left it at its
 * last instruction. A power cut, a crash of the kernel, or a new boot leave nothing.
 *
 * The real world keeps it in files of /dev/shm (ASHLAR_KEEP_DIR: elsewhere) that belong to the user alone, with the boot's id in
 * front; the simulated one beside its disks, until a power cut.
 *
 * Context: any reactor; blocks for as long as files in memory take. What is in it is shared as any memory is.
 */
#ifndef ENGINE_IO_KEEP_H
#define ENGINE_IO_KEEP_H

#include "engine/io/reactor.h"

#define KEEP_NAME_MAX 48

struct keep {
	struct world *world;
	char name[KEEP_NAME_MAX + 1];
	void *mem; /* NULL: nothing is kept */
	size_t bytes;
};

/* Opens what an earlier process has left under this name; k->mem is NULL if there is nothing, or it cannot be trusted.
 * read_only: it is not to be changed. */
void keep_open(struct world *w, const char *name, bool read_only, struct keep *k);
/* Zeros, in place of what was kept under the name before, in one step: a kill leaves the old or the new. -errno, and the old stays. */
int keep_create(struct world *w, const char *name, size_t bytes, struct keep *k) __must_check;
/* forget: nobody will find it. Else it stays for who opens it next. Harmless if k->mem is NULL. */
void keep_close(struct keep *k, bool forget);

#endif
