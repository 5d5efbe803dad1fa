/*
 * share.c: volumes of one reactor share its disks. Requests go to a disk in the order in which they come, so a client with a thousand
 * of them would make one with a single request wait for all. While more than one volume has some under way, and for SHARED_NS after it, only so many requests of each are
 * under way (tr->share_max, large ones count more); the rest stands in line in memory. So whoever asks for little waits for no more than
 * that. A volume that has the reactor to itself has no such bound.
 *
 * Requests of one volume keep their order. Those that wait for something else than a disk (space, a frozen volume, a limit) are not
 * under way: the others do not wait for them. Flushes, and what goes by the inner bdev or a forward, do not count.
 */
#include "thin/volume_internal.h"

#define SHARED_NS (100 * NS_PER_MS)

bool thin_share_wait(struct thin_volume *v, struct io *io)
{
	if (list_is_empty(&v->line) && v->tr->n_busy < 2 && reactor_now_ns() - v->tr->shared_ns > SHARED_NS)
		return false;
	list_push_back(&v->line, &io->link);
	return true;
}

void thin_share_next(struct thin_volume *v)
{
	struct list *n;

	if (v->is_lining)
		return; /* it has ended in here */
	v->is_lining = true;
	while (v->begun < v->tr->share_max && (n = list_pop_front(&v->line)))
		thin_req_go_on(list_entry(n, struct io, link));
	v->is_lining = false;
}
