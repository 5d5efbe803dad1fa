/*
 * A disk with writes laid over it in memory. See overlay.h.
 */
#include "engine/pool/overlay.h"

#include <string.h>

#include "engine/base/hash.h"
#include "engine/base/units.h"

struct overlay_page {
	struct hash_node node; /* by page number */
	uint8_t mask;	       /* sectors that are here */
	uint8_t data[PAGE_BYTES];
};

struct overlay {
	struct disk disk;
	struct disk *under;
	struct hash pages;
};

struct overlay_io {
	struct overlay *o;
	struct io *parent;
	struct io io;	  /* of a read, below */
	struct task task; /* of all others: they end at the next turn */
	int result;
};

static void laid_over(struct overlay *o, const struct io *io)
{
	uint64_t off, at = 0;

	for (off = io->off_bytes; at < io->len_bytes; off += SECT_BYTES, at += SECT_BYTES) {
		struct hash_node *n = hash_find(&o->pages, off / PAGE_BYTES);
		struct overlay_page *pg;

		if (n) {
			pg = container_of(n, struct overlay_page, node);
		} else {
			pg = xcalloc(1, sizeof(*pg));
			hash_add(&o->pages, &pg->node, off / PAGE_BYTES);
		}
		iov_to_buf(io->iov, io->iov_n, at, pg->data + off % PAGE_BYTES, SECT_BYTES);
		pg->mask |= (uint8_t)(1 << off % PAGE_BYTES / SECT_BYTES);
	}
}

static void patched(const struct overlay *o, const struct io *io)
{
	uint64_t off, at = 0;

	for (off = io->off_bytes; at < io->len_bytes; off += SECT_BYTES, at += SECT_BYTES) {
		struct hash_node *n = hash_find(&o->pages, off / PAGE_BYTES);
		struct overlay_page *pg = n ? container_of(n, struct overlay_page, node) : NULL;

		if (pg && pg->mask >> off % PAGE_BYTES / SECT_BYTES & 1)
			iov_from_buf(io->iov, io->iov_n, at, pg->data + off % PAGE_BYTES, SECT_BYTES);
	}
}

static void read_done(struct io *io)
{
	struct overlay_io *x = io->owner;
	struct io *parent = x->parent;
	int r = io->result;

	if (r == 0)
		patched(x->o, parent);
	xfree(x);
	io_done(parent, r);
}

static void end_now(struct task *t)
{
	struct overlay_io *x = container_of(t, struct overlay_io, task);
	struct io *parent = x->parent;
	int r = x->result;

	xfree(x);
	io_done(parent, r);
}

static void overlay_submit(struct bdev *b, struct io *io)
{
	struct overlay *o = container_of(b, struct overlay, disk.bdev);
	struct overlay_io *x = xcalloc(1, sizeof(*x));

	x->o = o;
	x->parent = io;
	if (io->op == IO_READ) {
		o->disk.n_reads++;
		o->disk.bytes_read += io->len_bytes;
		x->io = (struct io){ .op = IO_READ, .iov_n = io->iov_n, .off_bytes = io->off_bytes, .len_bytes = io->len_bytes,
				     .iov = io->iov, .done = read_done, .owner = x };
		bdev_submit(&o->under->bdev, &x->io);
		return;
	}
	if (io->op == IO_WRITE)
		laid_over(o, io);
	else if (io->op != IO_FLUSH)
		x->result = -EROFS;
	x->task.run = end_now;
	list_init(&x->task.link);
	reactor_ready(&x->task);
}

static const struct bdev_ops overlay_ops = { .submit = overlay_submit };

struct disk *overlay_open(struct disk *under)
{
	struct overlay *o = xcalloc(1, sizeof(*o));

	o->under = under;
	hash_init(&o->pages);
	o->disk.bdev = under->bdev;
	o->disk.bdev.ops = &overlay_ops;
	o->disk.bdev.can_discard = false;
	o->disk.bdev.read_only = false;
	o->disk.world = under->world;
	o->disk.path = under->path;
	o->disk.is_block = under->is_block;
	memcpy(o->disk.ident, under->ident, sizeof(o->disk.ident));
	return &o->disk;
}

static bool page_fini(struct hash_node *n, void *arg)
{
	xfree(container_of(n, struct overlay_page, node));
	return true;
}

void overlay_close(struct disk *d)
{
	struct overlay *o = container_of(d, struct overlay, disk);

	hash_each(&o->pages, page_fini, NULL);
	hash_fini(&o->pages);
	xfree(o);
}
