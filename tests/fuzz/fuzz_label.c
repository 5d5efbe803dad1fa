/*
 * Labels from outside: as they are, and with the checksum made right, so that the checks of the fields are reached. What
 * decodes must encode to a label that decodes to the same.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/base/crc32c.h"
#include "engine/pool/label.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct label label, again;
static uint8_t buf[LABEL_SLOT_BYTES], back[LABEL_SLOT_BYTES];

static void look(size_t len)
{
	struct err e = { 0 };
	size_t used;
	int r = label_decode(buf, len, &label, &e);

	CHECK(r <= 0);
	CHECK((r < 0) == (e.text[0] != 0));
	if (r < 0)
		return;
	used = label_encode(&label, label.disk_index, label.disk_bytes, back);
	CHECK(label_decode(back, used, &again, &e) == 0);
	CHECK(!memcmp(&label, &again, sizeof(label)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct label_header_disk *h = (struct label_header_disk *)buf;
	size_t len = size < sizeof(buf) ? size : sizeof(buf), used;

	memset(buf, 0, sizeof(buf));
	memcpy(buf, data, len);
	look(len);
	/* the same with what every label has, zeros after the input */
	memcpy(h->magic, LABEL_MAGIC, sizeof(h->magic));
	used = le32_get(h->used_bytes);
	if (!used || used > sizeof(buf) || used % 4096)
		used = len ? (len + 4095) / 4096 * 4096 : 4096;
	h->used_bytes = le32_make((uint32_t)used);
	h->crc = le32_make(0);
	h->crc = le32_make(crc32c(0, buf, used));
	look(used);
	return 0;
}
