/*
 * label.h: labels in memory: encode, decode, read and write the rings of one disk.
 *
 * encode/decode are pure functions; decode trusts nothing. A label is durable when label_co_write() has returned 0.
 */
#ifndef ENGINE_POOL_LABEL_H
#define ENGINE_POOL_LABEL_H

#include "engine/io/disk.h"
#include "engine/pool/ashlar.h"
#include "engine/pool/label_format.h"
#include "raid/geometry.h"

#define LABEL_URI_MAX 95u

struct label_disk {
	struct uuid uuid;
	uint64_t size_bytes, since_generation, acked_generation;
	uint8_t state, leaving;
	uint16_t successor_plus_1;
	char path[97]; /* of a URI at most LABEL_URI_MAX */
};

struct label {
	struct uuid pool, disk;
	char name[64 + 1];
	uint64_t compat, ro_compat, incompat;
	uint64_t generation, acked_generation;
	uint16_t disk_index, n_disks, n_meta;
	struct raid_profile profile;
	uint32_t block_bytes, cluster_bytes, strip_bytes;
	uint64_t group_bytes, extent_bytes, data_off;
	uint64_t checkpoint, root_addr;
	uint32_t root_crc;
	bool clean;
	uint64_t journal_off, journal_bytes, epoch, disk_bytes, created_wall_ns;
	uint64_t log_group_plus_1; /* 0: no stripe logs */
	uint32_t log_slices, log_slice_bytes;
	uint32_t wanted;
	struct label_disk disks[LABEL_DISKS_MAX];
	struct {
		uint64_t group;
		uint8_t n_cols;
		struct raid_col cols[RAID_COPIES_MAX];
	} meta[LABEL_META_GROUPS_MAX];
};

/* buf: LABEL_SLOT_BYTES. Returns the length to write (a multiple of 4096). Fills in disk, disk_index and disk_bytes for
 * the given entry. */
size_t label_encode(const struct label *l, unsigned disk_index, uint64_t disk_bytes, void *buf);
/* len: what was read, up to LABEL_SLOT_BYTES. 0; -ENOENT: no Ashlar label here (magic); -ERR_CSUM; -ERR_FORMAT (whole, but
 * with impossible values) and -ERR_FEATURE (unknown version or incompat bits): *out has pool, disk, name and generation.
 * All with a sentence. */
int label_decode(const void *buf, size_t len, struct label *out, struct err *e) __must_check;

/* Where the tail area of a disk of that size begins; 0: too small to have one. */
uint64_t label_tail_off(uint64_t disk_bytes);
/* Takes the path's end, of a URI the start, if it is too long for a label. */
void label_disk_set_path(struct label_disk *d, const char *path);

/* Coroutine. Newest valid label of both rings. -ENOENT: none, and none damaged; -ERR_CSUM: there are labels but no whole
 * one; -ERR_FORMAT, -ERR_FEATURE: the newest whole one has impossible values or is of another version, *out as from
 * label_decode(); -EIO: cannot be read. *damaged (may be NULL): slots that had the magic and did not verify, beside the
 * newest. */
int label_co_read(struct disk *d, struct label *out, unsigned *damaged, struct err *e) __must_check;
/* Coroutine. Zeros slots whose checksum fails: torn in a crash, or rotten. Not before a whole newer label has been written. */
void label_co_mend(struct disk *d);
/* Coroutine. Writes slot generation % LABEL_SLOTS of both areas with FUA; the tail is where disks[disk_index].size_bytes
 * puts it. FUA covers the label alone: what it points to must be durable before. 0 if at least one area has it... both errors
 * are counted: returns the error only if neither could be written, *partial (may be NULL) if just one could not. */
int label_co_write(struct disk *d, const struct label *l, unsigned disk_index, bool *partial) __must_check;
/* Coroutine. *l is not the pool's first label, and where the tail area was there are zeros: somebody has overwritten the disk's
 * end, or it has been cut short and made long again, and nobody knows where it begins to be empty; perhaps a few KiB after its
 * beginning. (A crash while a pool was made leaves such a disk, with nothing on it; one while a disk was added as well, and that
 * one may be distrusted.) One read for a disk whose end is as it should be. */
bool label_co_end_is_blank(struct disk *d, const struct label *l) __must_check;
/* Coroutine. Overwrites both areas with zeros, flushed. Also before the first label of a new pool is written: labels of an
 * older pool may have higher generations. */
int label_co_wipe(struct disk *d) __must_check;

/* Usable extents of a disk of that size under this geometry. */
uint64_t label_disk_extents(const struct label *l, uint64_t disk_bytes);

#endif
