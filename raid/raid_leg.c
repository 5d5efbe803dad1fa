/*
 * The one way to a disk.
 */
#include "raid/raid_impl.h"

void raid_disk_submit(struct raid *r, unsigned disk, struct io *io, bool may_hedge)
{
	bdev_submit(&r->disks[disk].disk->bdev, io);
}

int raid_disk_co_submit(struct raid *r, unsigned disk, struct io *io, bool may_hedge)
{
	return bdev_co_submit(&r->disks[disk].disk->bdev, io);
}

void raid_disk_submit_join(struct raid *r, unsigned disk, struct io *io, struct co_join *j, bool may_hedge)
{
	bdev_submit_join(&r->disks[disk].disk->bdev, io, j);
}

bool raid_disk_is_slow(const struct raid *r, unsigned disk)
{
	return false;
}

bool raid_disk_is_idle(const struct raid *r, unsigned index)
{
	return true;
}
