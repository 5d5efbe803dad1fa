/*
 * label_ring.c: the two rings of labels on one disk.
 *
 * Crash story: generation g goes to slot g % LABEL_SLOTS of both areas, so a write that is torn or lost hits the label of
 * generation g - LABEL_SLOTS, never the newest whole one; once both FUA writes are done, g is durable twice.
 *
 * A label in the tail area counts only if its own disk_bytes puts a tail area there: the end of a whole disk is often the
 * end of its last partition too, and that partition's label must not make the whole disk look like its twin. Likewise a
 * label counts only in the slot of its generation. A disk that has grown since it was labelled still has its tail where
 * disk_bytes says, so that place is looked at as well.
 *
 * A slot that fails its checksum may be a torn write of something that never was acknowledged: the one before it rules. A
 * slot that passes it but cannot be understood (features, values) was written whole, and the pool has moved on to it:
 * going back to an older label would be wrong, so the disk is refused.
 */
#include <inttypes.h>
#include <string.h>

#include "engine/base/units.h"
#include "engine/io/buf.h"
#include "engine/pool/label.h"

struct label_reader {
	struct disk *d;
	uint8_t *buf;	     /* one area */
	struct label *best;  /* the caller's; valid if have_best */
	struct label *tmp;
	struct label *alien; /* newest one that is whole and refused; what of it could be read */
	bool have_best;
	bool mend;	     /* zero what is damaged */
	int alien_code; /* 0: none */
	unsigned damaged, unreadable;
	uint64_t hint_bytes; /* disk_bytes of the first thing that looks like a label */
	struct err alien_why, damage_why, one_why;
	struct io ios[LABEL_SLOTS];
};

/* The whole slot could not be read: perhaps what matters of it can. Returns the length that is there. */
static size_t slot_co_reread(struct label_reader *rd, uint64_t off_bytes, uint8_t *buf)
{
	const struct label_header_disk *h = (const struct label_header_disk *)buf;
	uint32_t used;

	if (bdev_co_read(&rd->d->bdev, off_bytes, buf, PAGE_BYTES) < 0)
		return 0;
	used = le32_get(h->used_bytes);
	if (memcmp(h->magic, LABEL_MAGIC, sizeof(h->magic)) || used <= PAGE_BYTES || used > LABEL_SLOT_BYTES ||
	    used % PAGE_BYTES)
		return PAGE_BYTES;
	if (bdev_co_read(&rd->d->bdev, off_bytes + PAGE_BYTES, buf + PAGE_BYTES, used - PAGE_BYTES) < 0)
		return PAGE_BYTES;
	return used;
}

static void slot_damaged(struct label_reader *rd)
{
	if (!rd->damaged++)
		rd->damage_why = rd->one_why;
}

/* area_off 0: the front. True: its checksum fails. */
static bool slot_consider(struct label_reader *rd, uint64_t area_off, unsigned slot, size_t len)
{
	const struct label_header_disk *h = (const struct label_header_disk *)(rd->buf + slot * LABEL_SLOT_BYTES);
	uint64_t disk_bytes = le64_get(h->disk_bytes);
	int r = label_decode(h, len, rd->tmp, &rd->one_why);

	if (r == -ENOENT)
		return false;
	if (area_off && label_tail_off(disk_bytes) != area_off && r != -ERR_CSUM)
		return false; /* of a partition that ends where this disk ends */
	if (!rd->hint_bytes)
		rd->hint_bytes = disk_bytes;
	if (r == 0 && rd->tmp->generation % LABEL_SLOTS != slot)
		r = err_set(&rd->one_why, -ERR_CSUM, "generation %" PRIu64 " is in the slot of another", rd->tmp->generation);
	if (r == -ERR_CSUM) {
		slot_damaged(rd);
	} else if (r < 0) {
		slot_damaged(rd);
		if (!rd->alien_code || rd->tmp->generation > rd->alien->generation) {
			rd->alien_code = r;
			rd->alien_why = rd->one_why;
			*rd->alien = *rd->tmp;
		}
	} else if (!rd->have_best || rd->tmp->generation > rd->best->generation) {
		*rd->best = *rd->tmp;
		rd->have_best = true;
	}
	return r == -ERR_CSUM;
}

/* Coroutine. Whatever it was, nobody can use it any more. */
static void slot_co_zero(struct label_reader *rd, uint64_t off_bytes)
{
	void *zeros = buf_alloc_zero(PAGE_BYTES);
	int r = bdev_co_write(&rd->d->bdev, off_bytes, zeros, PAGE_BYTES, IO_FUA);

	(void)r; /* it stays damaged, then */
	buf_free(zeros, PAGE_BYTES);
}

/* All slots of an area in parallel; those beyond the end of a disk that was cut short are left out. */
static void area_co_look(struct label_reader *rd, uint64_t area_off)
{
	struct bdev *b = &rd->d->bdev;
	struct co_join j;
	unsigned i, n;

	for (n = 0; n < LABEL_SLOTS && area_off + (n + 1) * LABEL_SLOT_BYTES <= b->size_bytes; n++)
		;
	co_join_init(&j);
	for (i = 0; i < n; i++) {
		io_prep(&rd->ios[i], IO_READ, area_off + i * LABEL_SLOT_BYTES, LABEL_SLOT_BYTES, rd->buf + i * LABEL_SLOT_BYTES, 0);
		bdev_submit_join(b, &rd->ios[i], &j);
	}
	co_join_wait(&j);
	for (i = 0; i < n; i++) {
		size_t len = LABEL_SLOT_BYTES;

		if (rd->ios[i].result < 0)
			len = slot_co_reread(rd, area_off + i * LABEL_SLOT_BYTES, rd->buf + i * LABEL_SLOT_BYTES);
		if (!len)
			rd->unreadable++;
		else if (slot_consider(rd, area_off, i, len) && rd->mend)
			slot_co_zero(rd, area_off + i * LABEL_SLOT_BYTES);
	}
}

/* The places where a tail area may be: at the end, and where the label says that the end was. */
static void areas_co_look(struct label_reader *rd)
{
	uint64_t size = rd->d->bdev.size_bytes, tail = label_tail_off(size), old;

	area_co_look(rd, 0);
	if (tail)
		area_co_look(rd, tail);
	old = rd->have_best ? rd->best->disk_bytes : rd->hint_bytes;
	if (old < size && label_tail_off(old) && label_tail_off(old) != tail)
		area_co_look(rd, label_tail_off(old));
}

static int reader_verdict(struct label_reader *rd, struct err *e)
{
	const char *path = rd->d->path;

	if (rd->alien_code && (!rd->have_best || rd->alien->generation > rd->best->generation)) {
		*rd->best = *rd->alien;
		return err_set(e, rd->alien_code, "the label of disk %s cannot be used: %s", path, rd->alien_why.text);
	}
	if (rd->have_best)
		return 0;
	if (rd->damaged)
		return err_set(e, -ERR_CSUM,
			       "all labels of disk %s are damaged (%u of them; the first: %s): the disk cannot be used as part of "
			       "its pool; replace it, or restore it from a copy",
			       path, rd->damaged, rd->damage_why.text);
	if (rd->unreadable)
		return err_set(e, -EIO, "disk %s cannot be read where its label would be: see the kernel's log for the disk's errors",
			       path);
	return err_set(e, -ENOENT, "disk %s has no Ashlar label", path);
}

static struct label_reader *reader_alloc(struct disk *d, struct label *out)
{
	struct label_reader *rd = xcalloc(1, sizeof(*rd));

	rd->d = d;
	rd->best = out;
	rd->tmp = xmalloc(sizeof(*rd->tmp));
	rd->alien = xmalloc(sizeof(*rd->alien));
	rd->buf = buf_alloc(LABEL_AREA_BYTES);
	memset(out, 0, sizeof(*out));
	return rd;
}

static void reader_free(struct label_reader *rd)
{
	buf_free(rd->buf, LABEL_AREA_BYTES);
	xfree(rd->alien);
	xfree(rd->tmp);
	xfree(rd);
}

int label_co_read(struct disk *d, struct label *out, unsigned *damaged, struct err *e)
{
	struct label_reader *rd = reader_alloc(d, out);
	int r;

	areas_co_look(rd);
	r = reader_verdict(rd, e);
	if (damaged)
		*damaged = rd->damaged;
	reader_free(rd);
	return r;
}

void label_co_mend(struct disk *d)
{
	struct label *l = xmalloc(sizeof(*l));
	struct label_reader *rd = reader_alloc(d, l);

	rd->mend = true;
	areas_co_look(rd);
	reader_free(rd);
	xfree(l);
}

/* Coroutine. The first page of every slot of an area is zero; from that of the newest label on, which is most often not. */
static bool area_co_is_blank(struct disk *d, uint64_t area_off, uint64_t newest)
{
	uint8_t *page = buf_alloc(PAGE_BYTES);
	bool is_blank = true;
	unsigned i;

	for (i = 0; i < LABEL_SLOTS && is_blank; i++) {
		uint64_t off = area_off + (newest + i) % LABEL_SLOTS * LABEL_SLOT_BYTES;

		if (bdev_co_read(&d->bdev, off, page, PAGE_BYTES) < 0)
			is_blank = false; /* who knows */
		else
			is_blank = !page[0] && !memcmp(page, page + 1, PAGE_BYTES - 1);
	}
	buf_free(page, PAGE_BYTES);
	return is_blank;
}

bool label_co_end_is_blank(struct disk *d, const struct label *l)
{
	uint64_t tail = label_tail_off(l->disks[l->disk_index].size_bytes);

	if (l->generation == 1 || !tail || tail + LABEL_AREA_BYTES > d->bdev.size_bytes)
		return false;
	return area_co_is_blank(d, tail, l->generation);
}

int label_co_write(struct disk *d, const struct label *l, unsigned disk_index, bool *partial)
{
	uint64_t disk_bytes = l->disks[disk_index].size_bytes, slot = l->generation % LABEL_SLOTS * LABEL_SLOT_BYTES;
	bool has_tail = disk_bytes <= d->bdev.size_bytes; /* else the disk was cut short while in use */
	void *buf = buf_alloc(LABEL_SLOT_BYTES);
	struct io front, tail;
	struct co_join j;
	size_t len;

	CHECK(l->generation && label_tail_off(disk_bytes));
	len = label_encode(l, disk_index, disk_bytes, buf);
	tail.result = -ENXIO;
	co_join_init(&j);
	io_prep(&front, IO_WRITE, slot, len, buf, IO_FUA);
	bdev_submit_join(&d->bdev, &front, &j);
	if (has_tail) {
		io_prep(&tail, IO_WRITE, label_tail_off(disk_bytes) + slot, len, buf, IO_FUA);
		bdev_submit_join(&d->bdev, &tail, &j);
	}
	co_join_wait(&j);
	buf_free(buf, LABEL_SLOT_BYTES);
	if (partial)
		*partial = (front.result < 0) != (tail.result < 0);
	return front.result < 0 && tail.result < 0 ? front.result : 0;
}

static int area_co_wipe(struct disk *d, uint64_t area_off, const void *zeros)
{
	unsigned i;
	int r, result = 0;

	for (i = 0; i < LABEL_SLOTS && area_off + (i + 1) * LABEL_SLOT_BYTES <= d->bdev.size_bytes; i++) {
		r = bdev_co_write(&d->bdev, area_off + i * LABEL_SLOT_BYTES, zeros, LABEL_SLOT_BYTES, 0);
		if (r < 0 && result == 0)
			result = r;
	}
	return result;
}

int label_co_wipe(struct disk *d)
{
	uint64_t tail = label_tail_off(d->bdev.size_bytes), old;
	struct label *l = xmalloc(sizeof(*l));
	void *zeros = buf_alloc_zero(LABEL_SLOT_BYTES);
	int r, result;

	/* A tail of before the disk grew holds older labels: they must not outlive those that say where they are. */
	r = label_co_read(d, l, NULL, NULL);
	old = r == 0 && l->disk_bytes < d->bdev.size_bytes ? label_tail_off(l->disk_bytes) : 0;
	result = 0;
	if (old && old != tail)
		result = area_co_wipe(d, old, zeros);
	r = tail ? area_co_wipe(d, tail, zeros) : 0;
	result = result < 0 ? result : r;
	r = area_co_wipe(d, 0, zeros);
	result = result < 0 ? result : r;
	r = bdev_co_flush(&d->bdev);
	buf_free(zeros, LABEL_SLOT_BYTES);
	xfree(l);
	return result < 0 ? result : r;
}
