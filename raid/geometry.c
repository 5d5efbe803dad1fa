/*
 * Where a byte lies.
 *
 * Logical space is cut in strips, numbered from 0. Strip s is data strip s % D of stripe s / D, D the number of data
 * columns. Stripe t takes bytes [t * strip, (t + 1) * strip) of every column.
 *
 *   mirrors   data strip i lies on columns i * copies .. i * copies + copies - 1
 *   raid5     parity walks leftwards from the last column, data begins right of it and wraps (md's left-symmetric):
 *                 D0 D1 D2 P
 *                 D4 D5 P  D3
 *                 D8 P  D6 D7
 *             so that any n_cols consecutive strips lie on n_cols different disks
 *   raid6     the same, Q right of P, data right of Q
 */
#include <string.h>

#include "raid/geometry.h"

#define STRIP_MIN_BYTES 512U
#define STRIP_MAX_BYTES (1U << 30)
#define GROUP_MAX_BYTES (1ULL << 56) /* so that no sum or product below overflows */
#define WIDE_COLS_MAX 16
#define PARITY_COLS_MAX 10

static const struct {
	const char *name;
	struct raid_profile p;
} profiles[] = {
	{ "single", { RAID_SINGLE, 1 } },  { "raid0", { RAID_RAID0, 1 } },	{ "raid1", { RAID_RAID1, 2 } },
	{ "raid1-3", { RAID_RAID1, 3 } }, { "raid10", { RAID_RAID10, 2 } }, { "raid10-3", { RAID_RAID10, 3 } },
	{ "raid5", { RAID_RAID5, 1 } },	  { "raid6", { RAID_RAID6, 1 } },
};

int raid_profile_parse(const char *text, struct raid_profile *out)
{
	for (size_t i = 0; i < ARRAY_LEN(profiles); i++)
		if (!strcmp(text, profiles[i].name)) {
			*out = profiles[i].p;
			return 0;
		}
	return -EINVAL;
}

const char *raid_profile_name(struct raid_profile p)
{
	for (size_t i = 0; i < ARRAY_LEN(profiles); i++)
		if (p.layout == profiles[i].p.layout && p.copies == profiles[i].p.copies)
			return profiles[i].name;
	return "unknown";
}

unsigned raid_profile_min_disks(struct raid_profile p)
{
	switch (p.layout) {
	case RAID_SINGLE: return 1;
	case RAID_RAID0: return 2;
	case RAID_RAID1: return p.copies;
	case RAID_RAID10: return 2 * p.copies;
	case RAID_RAID5: return 3;
	case RAID_RAID6: return 4;
	}
	return UINT16_MAX; /* unknown layout: never enough */
}

unsigned raid_profile_tolerates(struct raid_profile p)
{
	switch (p.layout) {
	case RAID_RAID1:
	case RAID_RAID10: return p.copies - 1;
	case RAID_RAID5: return 1;
	case RAID_RAID6: return 2;
	}
	return 0;
}

unsigned raid_profile_columns(struct raid_profile p, unsigned disks)
{
	if (disks < raid_profile_min_disks(p))
		return 0;
	switch (p.layout) {
	case RAID_SINGLE: return 1;
	case RAID_RAID0: return MIN(disks, WIDE_COLS_MAX);
	case RAID_RAID1: return p.copies;
	case RAID_RAID10: return MIN(disks, WIDE_COLS_MAX) / p.copies * p.copies;
	case RAID_RAID5:
	case RAID_RAID6: return MIN(disks, PARITY_COLS_MAX);
	}
	return 0;
}

static unsigned data_cols(uint8_t layout, uint8_t copies, unsigned n_cols)
{
	switch (layout) {
	case RAID_RAID5: return n_cols - 1;
	case RAID_RAID6: return n_cols - 2;
	case RAID_RAID1:
	case RAID_RAID10: return n_cols / copies;
	}
	return n_cols;
}

unsigned raid_data_cols(const struct raid_desc *d)
{
	return data_cols(d->layout, d->copies, d->n_cols);
}

uint64_t raid_col_bytes(uint8_t layout, uint8_t copies, unsigned n_cols, uint64_t size_bytes, uint32_t strip_bytes,
			uint64_t align)
{
	uint64_t strips = DIV_UP(size_bytes, strip_bytes);
	uint64_t bytes = DIV_UP(strips, data_cols(layout, copies, n_cols)) * strip_bytes;

	return DIV_UP(bytes, align) * align;
}

/* NULL, or what is wrong with layout, copies and number of columns. */
static const char *shape_fault(const struct raid_desc *d)
{
	bool mirror = d->layout == RAID_RAID1 || d->layout == RAID_RAID10;

	if (d->layout < RAID_SINGLE || d->layout > RAID_RAID6)
		return "unknown layout";
	if (mirror ? d->copies < 2 || d->copies > RAID_COPIES_MAX : d->copies != 1)
		return "number of copies";
	if (d->n_cols == 0 || d->n_cols > RAID_COLS_MAX)
		return "number of columns";
	switch (d->layout) {
	case RAID_SINGLE: return d->n_cols == 1 ? NULL : "number of columns";
	case RAID_RAID1: return d->n_cols == d->copies ? NULL : "number of columns";
	case RAID_RAID10: return d->n_cols % d->copies == 0 ? NULL : "number of columns";
	case RAID_RAID5: return d->n_cols >= 3 ? NULL : "number of columns";
	case RAID_RAID6: return d->n_cols >= 4 ? NULL : "number of columns";
	}
	return NULL;
}

static const char *size_fault(const struct raid_desc *d)
{
	if (!IS_POW2(d->strip_bytes) || d->strip_bytes < STRIP_MIN_BYTES || d->strip_bytes > STRIP_MAX_BYTES)
		return "strip size";
	if (d->size_bytes == 0 || d->size_bytes > GROUP_MAX_BYTES || !IS_ALIGNED(d->size_bytes, 512))
		return "size";
	if (d->col_bytes > GROUP_MAX_BYTES ||
	    d->col_bytes < raid_col_bytes(d->layout, d->copies, d->n_cols, d->size_bytes, d->strip_bytes, 1))
		return "column size";
	return NULL;
}

/* Two columns may share a disk (metadata keeps two copies even on one), but no byte of it. */
static const char *cols_fault(const struct raid_desc *d, unsigned n_disks)
{
	for (unsigned i = 0; i < d->n_cols; i++) {
		const struct raid_col *a = &d->cols[i];

		if (a->disk >= n_disks || a->disk >= RAID_DISKS_MAX)
			return "disk of a column";
		if (!IS_ALIGNED(a->off_bytes, 512) || a->off_bytes > INT64_MAX - d->col_bytes)
			return "offset of a column";
		for (unsigned j = 0; j < i; j++) {
			const struct raid_col *b = &d->cols[j];

			if (a->disk == b->disk && a->off_bytes < b->off_bytes + d->col_bytes &&
			    b->off_bytes < a->off_bytes + d->col_bytes)
				return "overlapping columns";
		}
	}
	return NULL;
}

int raid_desc_check(const struct raid_desc *d, unsigned n_disks, struct err *e)
{
	const char *fault = shape_fault(d);

	if (!fault)
		fault = size_fault(d);
	if (!fault)
		fault = cols_fault(d, n_disks);
	if (!fault)
		return 0;
	return err_set(e, -ERR_FORMAT, "group %llu has an invalid descriptor (%s): run 'ashlar pool check'",
		       (unsigned long long)d->group, fault);
}

/* Column of data strip `index` of a parity stripe; sets p and q. */
static unsigned parity_place(const struct raid_desc *d, uint64_t stripe, unsigned index, struct raid_place *out)
{
	unsigned n = d->n_cols, p = n - 1 - (unsigned)(stripe % n);

	out->p = (int8_t)p;
	if (d->layout == RAID_RAID5)
		return (p + 1 + index) % n;
	out->q = (int8_t)((p + 1) % n);
	return (p + 2 + index) % n;
}

void raid_place(const struct raid_desc *d, uint64_t off_bytes, uint64_t len_bytes, struct raid_place *out)
{
	unsigned shift = (unsigned)__builtin_ctz(d->strip_bytes), dc = raid_data_cols(d);
	uint64_t strip = off_bytes >> shift, in_strip = off_bytes & (d->strip_bytes - 1);
	uint64_t stripe = dc == 1 ? strip : strip / dc;
	unsigned index = (unsigned)(strip - stripe * dc);

	out->len_bytes = MIN(len_bytes, d->strip_bytes - in_strip);
	out->col_off_bytes = (stripe << shift) + in_strip;
	out->n = d->copies;
	out->p = out->q = -1;
	if (d->layout == RAID_RAID5 || d->layout == RAID_RAID6) {
		out->cols[0] = (uint8_t)parity_place(d, stripe, index, out);
		return;
	}
	for (unsigned i = 0; i < d->copies; i++)
		out->cols[i] = (uint8_t)(index * d->copies + i);
}
