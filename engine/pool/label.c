/*
 * label.c: labels between memory and bytes. Pure functions; the rings on disk are in label_ring.c.
 *
 * What stays where it is in every future version: magic, version, crc and what it covers, the three feature masks, the
 * two uuids, generation, used_bytes, name. So an older program can say which pool it is that it does not understand.
 */
#include "engine/pool/label.h"

#include <inttypes.h>
#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/base/units.h"
#include "engine/io/disk_uri.h"
#include "engine/pool/assembly.h"

#define CRC_OFF offsetof(struct label_header_disk, crc)

uint64_t label_tail_off(uint64_t disk_bytes)
{
	return disk_bytes < 2 * LABEL_AREA_BYTES ? 0 : ALIGN_DOWN(disk_bytes, PAGE_BYTES) - LABEL_AREA_BYTES;
}

uint64_t label_disk_extents(const struct label *l, uint64_t disk_bytes)
{
	uint64_t end = label_tail_off(disk_bytes);

	return end <= l->data_off ? 0 : (end - l->data_off) / l->extent_bytes;
}

void label_disk_set_path(struct label_disk *d, const char *path)
{
	size_t len = strlen(path);

	if (len > sizeof(d->path) - 1 && !disk_path_is_uri(path)) {
		path += len - (sizeof(d->path) - 1);
		while (((uint8_t)*path & 0xc0) == 0x80) /* not in the middle of a UTF-8 character */
			path++;
	}
	memset(d->path, 0, sizeof(d->path));
	memcpy(d->path, path, strnlen(path, sizeof(d->path) - 1));
}

/* crc32c of a label with the crc field taken as zero. */
static uint32_t label_crc(const uint8_t *buf, size_t len)
{
	static const uint8_t zero[4];
	uint32_t crc = crc32c(0, buf, CRC_OFF);

	crc = crc32c(crc, zero, sizeof(zero));
	return crc32c(crc, buf + CRC_OFF + 4, len - CRC_OFF - 4);
}

/* ---- encode ---- */

static size_t label_bytes(unsigned n_disks, unsigned n_meta)
{
	return sizeof(struct label_header_disk) + n_disks * sizeof(struct label_disk_disk) +
	       n_meta * sizeof(struct label_meta_disk);
}

static void encode_header(const struct label *l, struct label_header_disk *h)
{
	memcpy(h->magic, LABEL_MAGIC, sizeof(h->magic));
	h->version = le32_make(LABEL_VERSION);
	h->compat = le64_make(l->compat);
	h->ro_compat = le64_make(l->ro_compat);
	h->incompat = le64_make(l->incompat);
	h->pool = l->pool;
	h->generation = le64_make(l->generation);
	h->acked_generation = le64_make(l->acked_generation);
	h->n_disks = le16_make(l->n_disks);
	h->n_meta = le16_make(l->n_meta);
	h->layout = l->profile.layout;
	h->copies = l->profile.copies;
	h->block_bytes = le32_make(l->block_bytes);
	h->cluster_bytes = le32_make(l->cluster_bytes);
	h->strip_bytes = le32_make(l->strip_bytes);
	h->group_bytes = le64_make(l->group_bytes);
	h->extent_bytes = le64_make(l->extent_bytes);
	h->data_off = le64_make(l->data_off);
	h->checkpoint = le64_make(l->checkpoint);
	h->root_addr = le64_make(l->root_addr);
	h->root_crc = le32_make(l->root_crc);
	h->clean = le32_make(l->clean);
	h->journal_off = le64_make(l->journal_off);
	h->journal_bytes = le64_make(l->journal_bytes);
	h->epoch = le64_make(l->epoch);
	h->created_wall_ns = le64_make(l->created_wall_ns);
	h->log_group_plus_1 = le64_make(l->log_group_plus_1);
	h->log_slices = le32_make(l->log_slices);
	h->log_slice_bytes = le32_make(l->log_slice_bytes);
	h->wanted = le32_make(l->wanted);
	memcpy(h->name, l->name, strnlen(l->name, sizeof(h->name) - 1));
}

static void encode_tables(const struct label *l, struct label_disk_disk *dd, struct label_meta_disk *md)
{
	unsigned i, c;

	for (i = 0; i < l->n_disks; i++) {
		dd[i].uuid = l->disks[i].uuid;
		dd[i].size_bytes = le64_make(l->disks[i].size_bytes);
		dd[i].since_generation = le64_make(l->disks[i].since_generation);
		dd[i].acked_generation = le64_make(l->disks[i].acked_generation);
		dd[i].state = l->disks[i].state;
		dd[i].leaving = l->disks[i].leaving;
		dd[i].successor_plus_1 = le16_make(l->disks[i].successor_plus_1);
		memcpy(dd[i].path, l->disks[i].path, strnlen(l->disks[i].path, sizeof(dd[i].path)));
	}
	for (i = 0; i < l->n_meta; i++) {
		md[i].group = le64_make(l->meta[i].group);
		md[i].n_cols = l->meta[i].n_cols;
		for (c = 0; c < l->meta[i].n_cols; c++) {
			md[i].cols[c].disk = le16_make(l->meta[i].cols[c].disk);
			md[i].cols[c].off_bytes = le64_make(l->meta[i].cols[c].off_bytes);
		}
	}
}

size_t label_encode(const struct label *l, unsigned disk_index, uint64_t disk_bytes, void *buf)
{
	struct label_header_disk *h = buf;
	struct label_disk_disk *dd = (struct label_disk_disk *)(h + 1);
	size_t used = ALIGN_UP(label_bytes(l->n_disks, l->n_meta), PAGE_BYTES);

	CHECK(l->n_disks <= LABEL_DISKS_MAX && l->n_meta <= LABEL_META_GROUPS_MAX && disk_index < l->n_disks);
	CHECK(used <= LABEL_SLOT_BYTES);
	memset(buf, 0, used);
	encode_header(l, h);
	encode_tables(l, dd, (struct label_meta_disk *)(dd + l->n_disks));
	h->disk = l->disks[disk_index].uuid;
	h->disk_index = le16_make((uint16_t)disk_index);
	h->disk_bytes = le64_make(disk_bytes);
	h->used_bytes = le32_make((uint32_t)used);
	h->crc = le32_make(label_crc(buf, used));
	return used;
}

/* ---- decode ---- */

static int verify_sum(const void *buf, size_t len, struct err *e)
{
	const struct label_header_disk *h = buf;
	uint32_t used = le32_get(h->used_bytes);

	if (used < PAGE_BYTES || used > LABEL_SLOT_BYTES || used % PAGE_BYTES || used > len)
		return err_set(e, -ERR_CSUM, "its length field is damaged (%u bytes)", used);
	if (le32_get(h->crc) != label_crc(buf, used))
		return err_set(e, -ERR_CSUM, "its checksum does not match");
	return 0;
}

/* What every version has at the same place. The name is taken only if it is one that may be printed. */
static void decode_identity(const struct label_header_disk *h, struct label *out)
{
	char name[sizeof(h->name) + 1] = { 0 };

	out->compat = le64_get(h->compat);
	out->ro_compat = le64_get(h->ro_compat);
	out->incompat = le64_get(h->incompat);
	out->pool = h->pool;
	out->disk = h->disk;
	out->generation = le64_get(h->generation);
	memcpy(name, h->name, sizeof(h->name));
	if (name_check("pool", name, ASHLAR_POOL_NAME_MAX, NULL) == 0)
		memcpy(out->name, name, strlen(name)); /* not what may follow the NUL */
}

static int check_features(const struct label_header_disk *h, const struct label *l, struct err *e)
{
	uint64_t unknown = l->incompat & ~LABEL_INCOMPAT_KNOWN;
	uint32_t version = le32_get(h->version);

	if (version != LABEL_VERSION)
		return err_set(e, -ERR_FEATURE,
			       "format version %u is not the one that this program knows (%u): use the version of Ashlar "
			       "that wrote it, or a newer one",
			       version, LABEL_VERSION);
	if (unknown)
		return err_set(e, -ERR_FEATURE,
			       "it uses incompatible features that this version does not know (bits 0x%" PRIx64
			       "): use a newer version of Ashlar",
			       unknown);
	return 0;
}

static void decode_header(const struct label_header_disk *h, struct label *l)
{
	l->acked_generation = le64_get(h->acked_generation);
	l->disk_index = le16_get(h->disk_index);
	l->n_disks = le16_get(h->n_disks);
	l->n_meta = le16_get(h->n_meta);
	l->profile.layout = h->layout;
	l->profile.copies = h->copies;
	l->block_bytes = le32_get(h->block_bytes);
	l->cluster_bytes = le32_get(h->cluster_bytes);
	l->strip_bytes = le32_get(h->strip_bytes);
	l->group_bytes = le64_get(h->group_bytes);
	l->extent_bytes = le64_get(h->extent_bytes);
	l->data_off = le64_get(h->data_off);
	l->checkpoint = le64_get(h->checkpoint);
	l->root_addr = le64_get(h->root_addr);
	l->root_crc = le32_get(h->root_crc);
	l->clean = le32_get(h->clean) == 1;
	l->journal_off = le64_get(h->journal_off);
	l->journal_bytes = le64_get(h->journal_bytes);
	l->epoch = le64_get(h->epoch);
	l->disk_bytes = le64_get(h->disk_bytes);
	l->created_wall_ns = le64_get(h->created_wall_ns);
	l->log_group_plus_1 = le64_get(h->log_group_plus_1);
	l->log_slices = le32_get(h->log_slices);
	l->log_slice_bytes = le32_get(h->log_slice_bytes);
	l->wanted = le32_get(h->wanted) & LABEL_WANTED_KNOWN;
}

static bool profile_is_valid(struct raid_profile p)
{
	switch (p.layout) {
	case RAID_RAID1:
	case RAID_RAID10:
		return p.copies == 2 || p.copies == 3;
	case RAID_SINGLE:
	case RAID_RAID0:
	case RAID_RAID5:
	case RAID_RAID6:
		return p.copies == 1;
	default:
		return false;
	}
}

static int check_counts(const struct label_header_disk *h, const struct label *l, struct err *e)
{
	if (!l->name[0])
		return err_set(e, -ERR_FORMAT, "the pool's name is not valid");
	if (uuid_is_zero(&l->pool) || uuid_is_zero(&l->disk))
		return err_set(e, -ERR_FORMAT, "the uuid of pool or disk is zero");
	if (!l->n_disks || l->n_disks > LABEL_DISKS_MAX || l->n_meta > LABEL_META_GROUPS_MAX)
		return err_set(e, -ERR_FORMAT, "%u disks and %u metadata groups are outside 1..%u and 0..%u", l->n_disks,
			       l->n_meta, LABEL_DISKS_MAX, LABEL_META_GROUPS_MAX);
	if (l->disk_index >= l->n_disks)
		return err_set(e, -ERR_FORMAT, "disk number %u is beyond the %u disks", l->disk_index, l->n_disks);
	if (label_bytes(l->n_disks, l->n_meta) > le32_get(h->used_bytes))
		return err_set(e, -ERR_FORMAT, "its tables do not fit in its %u bytes", le32_get(h->used_bytes));
	if (!l->generation || l->generation == UINT64_MAX || l->acked_generation > l->generation)
		return err_set(e, -ERR_FORMAT, "generation %" PRIu64 " with %" PRIu64 " acknowledged is impossible",
			       l->generation, l->acked_generation);
	if (le32_get(h->clean) > 1)
		return err_set(e, -ERR_FORMAT, "the clean mark is %u, neither 0 nor 1", le32_get(h->clean));
	if (!profile_is_valid(l->profile))
		return err_set(e, -ERR_FORMAT, "layout %u with %u copies is not known", l->profile.layout, l->profile.copies);
	return 0;
}

/* Same limits as assembly_co_prepare() keeps when it chooses. */
static int check_geometry(const struct label *l, struct err *e)
{
	if (l->block_bytes != 512 && l->block_bytes != 4096)
		return err_set(e, -ERR_FORMAT, "block size %u is neither 512 nor 4096", l->block_bytes);
	if (!IS_POW2(l->cluster_bytes) || l->cluster_bytes < 16 * l->block_bytes || l->cluster_bytes > MIB)
		return err_set(e, -ERR_FORMAT, "cluster size %u is not valid", l->cluster_bytes);
	if (!IS_POW2(l->strip_bytes) || l->strip_bytes < l->cluster_bytes || l->strip_bytes > MIB)
		return err_set(e, -ERR_FORMAT, "strip size %u is not valid", l->strip_bytes);
	if (!IS_POW2(l->group_bytes) || l->group_bytes < 16ULL * l->cluster_bytes || l->group_bytes > 64 * GIB)
		return err_set(e, -ERR_FORMAT, "group size %" PRIu64 " is not valid", l->group_bytes);
	if (!IS_POW2(l->extent_bytes) || l->extent_bytes < l->strip_bytes || l->extent_bytes > l->group_bytes)
		return err_set(e, -ERR_FORMAT, "extent size %" PRIu64 " is not valid", l->extent_bytes);
	if (l->data_off < LABEL_AREA_BYTES || !IS_ALIGNED(l->data_off, PAGE_BYTES) || l->data_off > GIB)
		return err_set(e, -ERR_FORMAT, "data offset %" PRIu64 " is not valid", l->data_off);
	return 0;
}

static void decode_disk(const struct label_disk_disk *dd, struct label_disk *d)
{
	unsigned i;

	d->uuid = dd->uuid;
	d->size_bytes = le64_get(dd->size_bytes);
	d->since_generation = le64_get(dd->since_generation);
	d->acked_generation = le64_get(dd->acked_generation);
	d->state = dd->state;
	d->leaving = dd->leaving & LABEL_LEAVE ? dd->leaving & LABEL_LEAVE_KNOWN : 0;
	d->successor_plus_1 = d->leaving ? le16_get(dd->successor_plus_1) : 0;
	memcpy(d->path, dd->path, sizeof(dd->path));
	for (i = 0; d->path[i]; i++) /* it is only a hint, but it will be printed */
		if ((uint8_t)d->path[i] < 0x20 || d->path[i] == 0x7f)
			d->path[i] = '?';
	memset(d->path + i, 0, sizeof(d->path) - i);
}

static int check_disk(const struct label *l, unsigned i, struct err *e)
{
	const struct label_disk *d = &l->disks[i];
	unsigned j;

	if (d->state > LABEL_DISK_OUT)
		return err_set(e, -ERR_FORMAT, "disk %u has the unknown state %u", i, d->state);
	if (d->state == LABEL_DISK_FREE)
		return 0;
	if (uuid_is_zero(&d->uuid))
		return err_set(e, -ERR_FORMAT, "disk %u has no uuid", i);
	if (d->size_bytes > INT64_MAX || !label_disk_extents(l, d->size_bytes))
		return err_set(e, -ERR_FORMAT, "disk %u has an impossible size (%" PRIu64 " bytes)", i, d->size_bytes);
	if (d->successor_plus_1 > l->n_disks)
		return err_set(e, -ERR_FORMAT, "disk %u is replaced by disk %u, which there is not", i, d->successor_plus_1 - 1u);
	if (d->since_generation > l->generation)
		return err_set(e, -ERR_FORMAT, "disk %u went out in a generation that is yet to come", i);
	for (j = 0; j < i; j++)
		if (l->disks[j].state != LABEL_DISK_FREE && uuid_is_equal(&l->disks[j].uuid, &d->uuid))
			return err_set(e, -ERR_FORMAT, "disks %u and %u have the same uuid", j, i);
	return 0;
}

static int decode_disks(const struct label_disk_disk *dd, struct label *l, struct err *e)
{
	const struct label_disk *own = &l->disks[l->disk_index];
	unsigned i;
	int r;

	for (i = 0; i < l->n_disks; i++) {
		decode_disk(&dd[i], &l->disks[i]);
		r = check_disk(l, i, e);
		if (r < 0)
			return r;
	}
	if (own->state == LABEL_DISK_FREE || !uuid_is_equal(&own->uuid, &l->disk))
		return err_set(e, -ERR_FORMAT, "its own disk is not number %u of its disks", l->disk_index);
	if (l->disk_bytes > INT64_MAX || l->disk_bytes < own->size_bytes)
		return err_set(e, -ERR_FORMAT, "the size of its own disk is given as %" PRIu64 " and %" PRIu64, l->disk_bytes,
			       own->size_bytes);
	return 0;
}

static int check_col(const struct label *l, unsigned i, unsigned c, struct err *e)
{
	const struct raid_col *col = &l->meta[i].cols[c];
	uint64_t room;

	if (col->disk >= l->n_disks || l->disks[col->disk].state == LABEL_DISK_FREE)
		return err_set(e, -ERR_FORMAT, "metadata group %u lies on disk %u, which there is not", i, col->disk);
	room = label_disk_extents(l, l->disks[col->disk].size_bytes) * l->extent_bytes;
	if (col->off_bytes < l->data_off || !IS_ALIGNED(col->off_bytes - l->data_off, l->extent_bytes) ||
	    room < l->group_bytes || col->off_bytes - l->data_off > room - l->group_bytes)
		return err_set(e, -ERR_FORMAT, "metadata group %u lies at %" PRIu64 " of disk %u, which is no place for it", i,
			       col->off_bytes, col->disk);
	return 0;
}

/* Metadata group i against those before it and against itself: no number twice, no byte twice. */
static int check_overlap(const struct label *l, unsigned i, struct err *e)
{
	unsigned j, a, b;

	for (j = 0; j <= i; j++) {
		if (j < i && l->meta[j].group == l->meta[i].group)
			return err_set(e, -ERR_FORMAT, "metadata groups %u and %u have the same number", j, i);
		for (a = 0; a < l->meta[i].n_cols; a++) {
			for (b = 0; b < (j == i ? a : l->meta[j].n_cols); b++) {
				const struct raid_col *x = &l->meta[i].cols[a], *y = &l->meta[j].cols[b];

				if (x->disk == y->disk && x->off_bytes < y->off_bytes + l->group_bytes &&
				    y->off_bytes < x->off_bytes + l->group_bytes)
					return err_set(e, -ERR_FORMAT, "metadata groups %u and %u overlap on disk %u", j, i,
						       x->disk);
			}
		}
	}
	return 0;
}

static int decode_meta(const struct label_meta_disk *md, struct label *l, struct err *e)
{
	unsigned i, c;
	int r;

	for (i = 0; i < l->n_meta; i++) {
		l->meta[i].group = le64_get(md[i].group);
		l->meta[i].n_cols = md[i].n_cols;
		if (l->meta[i].group >= (1ULL << 62) / l->group_bytes)
			return err_set(e, -ERR_FORMAT, "metadata group %u has an impossible number", i);
		if (!md[i].n_cols || md[i].n_cols > RAID_COPIES_MAX)
			return err_set(e, -ERR_FORMAT, "metadata group %u has %u copies", i, md[i].n_cols);
		for (c = 0; c < md[i].n_cols; c++) {
			l->meta[i].cols[c].disk = le16_get(md[i].cols[c].disk);
			l->meta[i].cols[c].off_bytes = le64_get(md[i].cols[c].off_bytes);
			r = check_col(l, i, c, e);
			if (r < 0)
				return r;
		}
		r = check_overlap(l, i, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The journal lies in metadata groups, from end to end. */
static int check_journal(const struct label *l, struct err *e)
{
	uint64_t g, end = l->journal_off + l->journal_bytes;
	unsigned i;

	if (!l->journal_bytes && !l->journal_off)
		return 0;
	if (!l->journal_bytes || end < l->journal_off || end > (1ULL << 62) ||
	    !IS_ALIGNED(l->journal_off | l->journal_bytes, PAGE_BYTES) || l->journal_bytes > l->n_meta * l->group_bytes)
		return err_set(e, -ERR_FORMAT, "the journal's place (%" PRIu64 ", %" PRIu64 " bytes) is not valid", l->journal_off,
			       l->journal_bytes);
	for (g = l->journal_off / l->group_bytes; g <= (end - 1) / l->group_bytes; g++) {
		for (i = 0; i < l->n_meta && l->meta[i].group != g; i++)
			;
		if (i == l->n_meta)
			return err_set(e, -ERR_FORMAT, "the journal reaches into group %" PRIu64 ", which is not for metadata", g);
	}
	return 0;
}

/* The stripe logs lie end to end from the start of a group of their own; who does not know them must not open the pool. */
static int check_logs(const struct label *l, struct err *e)
{
	uint64_t group = l->log_group_plus_1 - 1;
	unsigned i;

	if (!l->log_group_plus_1 && !l->log_slices && !l->log_slice_bytes)
		return 0;
	if (!l->log_group_plus_1 || group >= (1ULL << 62) / l->group_bytes)
		return err_set(e, -ERR_FORMAT, "the stripe logs lie in group %" PRIu64 ", which is impossible", group);
	for (i = 0; i < l->n_meta; i++)
		if (l->meta[i].group == group)
			return err_set(e, -ERR_FORMAT, "the stripe logs lie in group %" PRIu64 ", which is for metadata", group);
	if (!l->log_slices || l->log_slices > LABEL_LOG_SLICES_MAX || l->log_slice_bytes < LABEL_LOG_SLICE_MIN_BYTES ||
	    l->log_slice_bytes % PAGE_BYTES || (uint64_t)l->log_slices * l->log_slice_bytes > l->group_bytes)
		return err_set(e, -ERR_FORMAT, "%u stripe logs of %u bytes each do not fit in their group", l->log_slices,
			       l->log_slice_bytes);
	if (!(l->incompat & LABEL_INCOMPAT_PARITY))
		return err_set(e, -ERR_FORMAT, "it has stripe logs without the feature bit that says so");
	return 0;
}

int label_decode(const void *buf, size_t len, struct label *out, struct err *e)
{
	const struct label_header_disk *h = buf;
	const struct label_disk_disk *dd = (const struct label_disk_disk *)(h + 1);
	int r;

	memset(out, 0, sizeof(*out));
	if (len < sizeof(*h) || memcmp(h->magic, LABEL_MAGIC, sizeof(h->magic)))
		return err_set(e, -ENOENT, "there is no Ashlar label");
	r = verify_sum(buf, len, e);
	if (r < 0)
		return r;
	decode_identity(h, out);
	r = check_features(h, out, e);
	if (r < 0)
		return r;
	decode_header(h, out);
	r = check_counts(h, out, e);
	if (r < 0)
		return r;
	r = check_geometry(out, e);
	if (r < 0)
		return r;
	r = decode_disks(dd, out, e);
	if (r < 0)
		return r;
	r = decode_meta((const struct label_meta_disk *)(dd + out->n_disks), out, e);
	if (r < 0)
		return r;
	r = check_journal(out, e);
	return r < 0 ? r : check_logs(out, e);
}
