/* scsi_pr.c: the state of persistent reservations, and its bytes. */
#include "frontends/iscsi/scsi_internal.h"

struct scsi_pr *scsi_pr_create(void)
{
	struct scsi_pr *p = xcalloc(1, sizeof(*p));

	list_init(&p->regs);
	co_mutex_init(&p->change);
	p->version = 1;
	return p;
}

void scsi_pr_clear(struct scsi_pr *p)
{
	struct list *n;

	while ((n = list_pop_front(&p->regs)))
		xfree(list_entry(n, struct scsi_pr_reg, link));
	p->n_regs = 0;
	p->type = PR_NONE;
	p->holder = NULL;
	p->version++;
}

void scsi_pr_destroy(struct scsi_pr *p)
{
	if (!p)
		return;
	scsi_pr_clear(p);
	xfree(p);
}

bool scsi_pr_type_is_valid(unsigned type)
{
	return type == PR_WRITE_EXCLUSIVE || type == PR_EXCLUSIVE_ACCESS ||
	       (type >= PR_WRITE_EXCLUSIVE_REGISTRANTS && type <= PR_EXCLUSIVE_ACCESS_ALL);
}

struct scsi_pr_reg *scsi_pr_find(const struct scsi_pr *p, const char *initiator, uint16_t port)
{
	struct scsi_pr_reg *r;

	list_for_each (r, &p->regs, link)
		if (r->port == port && !strcmp(r->initiator, initiator))
			return r;
	return NULL;
}

struct scsi_pr_reg *scsi_pr_add(struct scsi_pr *p, const char *initiator, uint16_t port, uint64_t key)
{
	struct scsi_pr_reg *r;
	size_t n = strlen(initiator);

	if (p->n_regs == SCSI_PR_REGISTRATIONS_MAX)
		return NULL;
	CHECK(n <= SCSI_NAME_MAX);
	r = xcalloc(1, sizeof(*r));
	r->key = key;
	r->port = port;
	memcpy(r->initiator, initiator, n);
	list_push_back(&p->regs, &r->link);
	p->n_regs++;
	p->version++;
	return r;
}

void scsi_pr_remove(struct scsi_pr *p, struct scsi_pr_reg *r, uint8_t *released)
{
	list_del(&r->link);
	p->n_regs--;
	p->version++;
	if (p->type && (p->holder == r || (scsi_pr_type_is_all(p->type) && !p->n_regs))) {
		if (released)
			*released = p->type;
		p->type = PR_NONE;
		p->holder = NULL;
	}
	xfree(r);
}

/* ---- bytes: version 1, type, registrations (2), generation (4); of each: key (8), port (2), holder (1), length of name (1), name ---- */

#define HEADER 8
#define EACH 12

size_t scsi_pr_encode(const struct scsi_pr *p, uint8_t *out)
{
	const struct scsi_pr_reg *r;
	size_t at = HEADER, n;

	out[0] = 1;
	out[1] = p->type;
	be_put16(out + 2, (uint16_t)p->n_regs);
	be_put32(out + 4, p->generation);
	list_for_each (r, &p->regs, link) {
		n = strlen(r->initiator);
		be_put64(out + at, r->key);
		be_put16(out + at + 8, r->port);
		out[at + 10] = r == p->holder;
		out[at + 11] = (uint8_t)n;
		memcpy(out + at + EACH, r->initiator, n);
		at += EACH + n;
	}
	CHECK(at <= SCSI_PR_STATE_MAX);
	return at;
}

static int decode_regs(struct scsi_pr *p, const uint8_t *in, size_t len, unsigned n_regs)
{
	char name[SCSI_NAME_MAX + 1];
	struct scsi_pr_reg *r;
	size_t at = HEADER, n;

	for (; n_regs; n_regs--, at += EACH + n) {
		if (len - at < EACH)
			return -EINVAL;
		n = in[at + 11];
		if (len - at - EACH < n || !n || memchr(in + at + EACH, 0, n))
			return -EINVAL;
		memcpy(name, in + at + EACH, n);
		name[n] = 0;
		if (scsi_pr_find(p, name, be_get16(in + at + 8)))
			return -EINVAL;
		r = scsi_pr_add(p, name, be_get16(in + at + 8), be_get64(in + at));
		if (!r || in[at + 10] > 1 || (in[at + 10] && p->holder))
			return -EINVAL;
		if (in[at + 10])
			p->holder = r;
	}
	return at == len ? 0 : -EINVAL;
}

int scsi_pr_decode(struct scsi_pr *p, const uint8_t *in, size_t len)
{
	unsigned type;
	int r = -EINVAL;

	scsi_pr_clear(p);
	if (len >= HEADER && in[0] == 1)
		r = decode_regs(p, in, len, be_get16(in + 2));
	if (r == 0) {
		type = in[1];
		p->generation = be_get32(in + 4);
		if (type && (!scsi_pr_type_is_valid(type) || !p->n_regs || scsi_pr_type_is_all(type) == (p->holder != NULL)))
			r = -EINVAL;
		else if (!type && p->holder)
			r = -EINVAL;
		p->type = (uint8_t)type;
	}
	if (r < 0)
		scsi_pr_clear(p);
	return r;
}

/* ---- others ---- */

uint8_t scsi_pr_type_fence(unsigned type)
{
	if (scsi_pr_type_is_exclusive(type))
		return BDEV_FENCE_ALL;
	return type ? BDEV_FENCE_WRITES : BDEV_FENCE_NONE;
}

/* Of what cannot be read nobody may say that it keeps nobody out. */
uint8_t scsi_pr_fence(const void *state, size_t len)
{
	struct scsi_pr *p = scsi_pr_create();
	uint8_t fence = scsi_pr_decode(p, state, len) < 0 ? BDEV_FENCE_ALL : scsi_pr_type_fence(p->type);

	scsi_pr_destroy(p);
	return fence;
}
