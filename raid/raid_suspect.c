/*
 * Reads that bring zeros. Somebody may be overwriting the disk beside us (dd if=/dev/zero), and nothing else would tell: there
 * is redundancy, but no checksum of the data. So a read of a redundant group with a block of zeros is not believed before
 * the pool has looked whether the disk's label is still in place.
 *
 * A question covers all reads that had completed when it was asked, for whoever overwrites a disk begins with its label or
 * has passed it long since. Questions about one disk follow each other at a distance: a volume full of zeros costs one label
 * read in that time, not one per read.
 */
#include <string.h>

#include "engine/base/units.h"
#include "raid/raid_leg.h"

#define VERIFY_EVERY_NS (100 * NS_PER_US)

/* Of a range of the payload that begins in iov[*i] at byte *at; moves on behind it. */
static bool range_is_zeros(const struct iovec *iov, unsigned *i, size_t *at, size_t len)
{
	bool zeros = true;

	while (len) {
		const char *p = (const char *)iov[*i].iov_base + *at;
		size_t part = MIN(len, iov[*i].iov_len - *at);
		uint64_t first;

		if (zeros && part >= sizeof(first)) {
			memcpy(&first, p, sizeof(first));
			zeros = !first && !memcmp(p, p + sizeof(first), part - sizeof(first));
		}
		len -= part;
		*at += part;
		if (*at == iov[*i].iov_len) {
			(*i)++;
			*at = 0;
		}
	}
	return zeros;
}

/* The payload is cut where the disk's pages begin: what is less than a page at its ends counts as one. */
bool raid_call_has_zeros(const struct raid_call *c)
{
	const struct io *io = &c->io;
	uint64_t off = io->off_bytes, end = off + io->len_bytes;
	unsigned i = 0;
	size_t at = 0;

	while (off < end) {
		size_t part = MIN(end - off, PAGE_BYTES - off % PAGE_BYTES);

		if (range_is_zeros(io->iov, &i, &at, part))
			return true;
		off += part;
	}
	return false;
}

/* Ends those that the question was about. */
static void suspects_end(struct raid_disk_slot *s, int result)
{
	struct raid_call *c, *next;
	struct list over, *n;

	list_init(&over);
	list_for_each_safe(c, next, &s->suspects, link)
		if (c->asked) {
			list_del(&c->link);
			list_push_back(&over, &c->link);
		}
	while ((n = list_pop_front(&over)))
		raid_call_finish(list_entry(n, struct raid_call, link), result);
}

static void verify_co_main(void *arg)
{
	struct raid_disk_slot *s = arg;
	struct raid *r = s->raid;
	const struct raid_conf *conf = &r->conf;
	struct raid_call *c;

	while (!list_is_empty(&s->suspects)) {
		uint64_t now = reactor_now_ns();
		uint32_t epoch = s->epoch;
		int res;

		if (s->verified_ns && now < s->verified_ns + VERIFY_EVERY_NS) {
			co_sleep_ns(s->verified_ns + VERIFY_EVERY_NS - now);
			continue;
		}
		s->verified_ns = now;
		list_for_each(c, &s->suspects, link)
			c->asked = true;
		res = conf->hooks->co_disk_verify(conf->ctx, (unsigned)(s - r->disks));
		suspects_end(s, res || epoch != s->epoch ? -ENODEV : 0);
	}
	s->verifying = false;
	if (--r->n_asking == 0)
		co_queue_wake_all(&r->asked);
}

void raid_call_suspect(struct raid_call *c)
{
	struct raid_disk_slot *s = c->slot;

	c->asked = false;
	list_push_back(&s->suspects, &c->link);
	if (s->verifying)
		return;
	s->verifying = true;
	s->raid->n_asking++;
	co_spawn(CO_SERVICE, verify_co_main, s, "raid disk verify");
}
