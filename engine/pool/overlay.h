/*
 * overlay.h: a disk that is read and never written: what is written lies in memory, over what is on the disk. So that a pool
 * can be looked at as it would be after its logs have been replayed, and stays as it is.
 *
 * Any reactor, but writes only while nobody else uses it. Reads and writes in multiples of 512 bytes; a flush does nothing; the
 * rest is -EROFS.
 */
#ifndef ENGINE_POOL_OVERLAY_H
#define ENGINE_POOL_OVERLAY_H

#include "engine/io/disk.h"

/* `under` stays the caller's and is closed after it. */
struct disk *overlay_open(struct disk *under);
void overlay_close(struct disk *d); /* nothing in flight */

#endif
