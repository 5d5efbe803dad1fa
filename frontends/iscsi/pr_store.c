/*
 * Persistent reservations that are to survive a restart (APTPL), as notes of their volumes.
 */
#include "frontends/iscsi/conn.h"

static int co_load(void *arg, const struct uuid *lu, uint8_t *buf, size_t *len)
{
	void *data;
	size_t n;
	int r = ashlar_co_identity_note_get(arg, lu, ASHLAR_NOTE_RESERVATIONS, &data, &n, NULL);

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

static int co_save(void *arg, const struct uuid *lu, const uint8_t *buf, size_t len)
{
	return ashlar_co_identity_note_set(arg, lu, ASHLAR_NOTE_RESERVATIONS, buf, len, NULL);
}

void iscsi_pr_store_init(struct scsi_pr_store *s, struct ashlar *a)
{
	*s = (struct scsi_pr_store){ .co_load = co_load, .co_save = co_save, .arg = a };
}
