/*
 * What is to survive a restart, as notes of volumes: persistent reservations (APTPL), saved mode pages.
 */
#include <string.h>

#include "frontends/iscsi/iscsi.h"
#include "frontends/iscsi/scsi.h"

static const unsigned notes[SCSI_KEPT_N] = { ASHLAR_NOTE_RESERVATIONS, ASHLAR_NOTE_MODE };

static int co_load(void *arg, const struct uuid *lu, enum scsi_kept what, uint8_t *buf, size_t *len)
{
	void *data;
	size_t n;
	int r = ashlar_co_identity_note_get(arg, lu, notes[what], &data, &n, NULL);

	if (r == 0 && !n)
		r = -ENOENT;
	if (r == 0 && n > *len)
		r = -EINVAL;
	if (r == 0) {
		memcpy(buf, data, n);
		*len = n;
	}
	xfree(data);
	return r;
}

static int co_save(void *arg, const struct uuid *lu, enum scsi_kept what, const uint8_t *buf, size_t len)
{
	return ashlar_co_identity_note_set(arg, lu, notes[what], buf, len, NULL);
}

static bool co_is_disk(void *arg, const struct uuid *lu)
{
	void *data;
	size_t n;
	int r = ashlar_co_identity_note_get(arg, lu, ASHLAR_NOTE_ISCSI, &data, &n, NULL);

	xfree(data);
	return r == 0 ? n > 0 : r != -ENOENT;
}

void iscsi_store_init(struct scsi_store *s, struct ashlar *a)
{
	*s = (struct scsi_store){ .co_load = co_load, .co_save = co_save, .co_is_disk = co_is_disk, .arg = a };
}

uint8_t iscsi_fence(const void *note, size_t len)
{
	return scsi_pr_fence(note, len);
}
