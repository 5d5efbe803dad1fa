/*
 * scsi_space.c: thin provisioning thresholds (SBC-4 4.7.3.7). The resource is what the pool has left, which all its LUs share. There are
 * as many soft thresholds as the pool has levels of its own; they are at those, armed decreasing, until an initiator chooses others
 * or turns some off (mode page 1Ch, subpage 02h; not saved). When one is reached all nexuses get a unit attention, once until
 * more is free again.
 */
#include "frontends/iscsi/scsi_internal.h"

#define HEADER 16
#define EACH 8
#define ENABLED 0x80
#define AVAILABLE 0x01 /* the resource: available LBA mapping resource */

static uint64_t threshold_of(const struct scsi_lu *lu, const struct scsi_mode *m, unsigned i)
{
	if (m->chosen >> i & 1)
		return m->threshold[i];
	return MIN(lu->total_bytes / 100 * ashlar_low_levels[i] / SCSI_THRESHOLD_BYTES, UINT32_MAX);
}

size_t scsi_threshold_page_put(const struct scsi_lu *lu, const struct scsi_mode *m, bool changeable, uint8_t *p)
{
	unsigned i;

	be_put16(p + 2, HEADER - 4 + EACH * ASHLAR_LOW_LEVELS);
	for (i = 0; i < ASHLAR_LOW_LEVELS; i++) {
		uint8_t *d = p + HEADER + EACH * i; /* soft threshold, armed decreasing: zeros */

		d[0] = changeable || !(m->off >> i & 1) ? ENABLED : 0;
		d[1] = changeable ? 0 : AVAILABLE;
		be_put32(d + 4, changeable ? UINT32_MAX : (uint32_t)threshold_of(lu, m, i));
	}
	return HEADER + EACH * ASHLAR_LOW_LEVELS;
}

void scsi_threshold_page_take(const struct scsi_lu *lu, struct scsi_mode *m, const uint8_t *p)
{
	unsigned i;

	for (i = 0; i < ASHLAR_LOW_LEVELS; i++) {
		const uint8_t *d = p + HEADER + EACH * i;
		uint8_t bit = (uint8_t)(1 << i);

		m->off = (uint8_t)(d[0] & ENABLED ? m->off & ~bit : m->off | bit);
		if (be_get32(d + 4) == threshold_of(lu, m, i))
			continue;
		m->chosen |= bit;
		m->threshold[i] = be_get32(d + 4);
	}
}

void scsi_lu_space(struct scsi_lu *lu, uint64_t free_bytes, uint64_t total_bytes)
{
	uint64_t again = total_bytes / 100 * SCSI_THRESHOLD_AGAIN_PERCENT, at;
	bool tell = false;
	unsigned i;

	lu->free_bytes = free_bytes;
	lu->total_bytes = total_bytes;
	for (i = 0; i < ASHLAR_LOW_LEVELS; i++) {
		uint8_t bit = (uint8_t)(1 << i);

		at = threshold_of(lu, &lu->mode, i) * SCSI_THRESHOLD_BYTES;
		if (lu->mode.off & bit || free_bytes > at + again) {
			lu->reached &= (uint8_t)~bit;
		} else if (free_bytes <= at && !(lu->reached & bit)) {
			lu->reached |= bit;
			tell = true;
		}
	}
	if (tell)
		scsi_lu_attention(lu, NULL, ASC_THRESHOLD_REACHED);
}
