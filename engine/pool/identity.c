/*
 * identity.c: by what a volume is known to who remembers it: for as long as it is there, and wherever it goes.
 *
 * It is made of the pool's and the volume's. One that has come from another pool, and has a note that says so (notes.c), is what it was
 * there.
 */
#include <string.h>

#include "engine/base/hash.h"
#include "engine/pool/attach.h"

static void identity_make(const struct ashlar_pool *p, uint64_t volume, struct uuid *out)
{
	uint64_t half[2];

	memcpy(half, p->label->pool.b, sizeof(half));
	half[0] = hash_mix(half[0] ^ volume);
	half[1] = hash_mix(half[1] ^ hash_mix(volume));
	uuid_from_random(out, (const uint8_t *)half);
}

static bool is_identity_of_another(struct ashlar_pool *p, const struct thin_vol *v)
{
	struct ashlar_pool *q;
	struct thin_vol *x;
	struct uuid id;

	list_for_each (q, &p->a->pools, link) {
		list_for_each (x, thin_vols(q->thin), link) {
			if (x == v || x->state != THIN_VOLUME_LIVE)
				continue;
			id = x->identity;
			if (uuid_is_zero(&id))
				identity_make(q, x->id, &id);
			if (uuid_is_equal(&id, &v->identity))
				return true;
		}
	}
	return false;
}

bool pool_vol_may_be(const struct ashlar_pool *p, const struct thin_vol *v, const struct uuid *identity)
{
	struct uuid id;

	if (!uuid_is_zero(&v->identity) && uuid_is_equal(&v->identity, identity))
		return true;
	identity_make(p, v->id, &id);
	return uuid_is_equal(&id, identity);
}

void pool_vol_identity(struct ashlar_pool *p, const struct thin_vol *v, struct uuid *out)
{
	if (uuid_is_zero(&v->identity) || is_identity_of_another(p, v))
		identity_make(p, v->id, out);
	else
		*out = v->identity;
}

/* ---- notes by identity ---- */

struct identity_note {
	struct ashlar *a;
	const struct uuid *identity;
	unsigned key;
	void *data;
	size_t len;
	struct err *e;
};

#define SWITCHING_NS NS_PER_MS

/* NULL: there is none, or (*wait) it is just going from one pool to another. */
static struct thin_vol *identity_find(struct ashlar *a, const struct uuid *identity, struct ashlar_pool **out, bool *wait)
{
	struct thin_vol *v, *found = NULL;
	struct ashlar_pool *p;
	struct uuid id;

	*wait = false;
	list_for_each (p, &a->pools, link) {
		list_for_each (v, thin_vols(p->thin), link) {
			if (!pool_vol_may_be(p, v, identity))
				continue;
			*wait |= v->switching;
			pool_vol_identity(p, v, &id);
			if (v->state != THIN_VOLUME_LIVE || !uuid_is_equal(&id, identity))
				continue;
			*out = p;
			found = v;
		}
	}
	return *wait ? NULL : found;
}

static struct thin_vol *identity_co_find(struct ashlar *a, const struct uuid *identity, struct ashlar_pool **out)
{
	struct thin_vol *v;
	bool wait;

	for (;; co_sleep_ns(SWITCHING_NS)) {
		v = identity_find(a, identity, out, &wait);
		if (!wait)
			return v;
	}
}

static int identity_set_there(void *arg)
{
	struct identity_note *c = arg;
	struct ashlar_pool *p;
	struct thin_vol *v;
	int r;

	for (;;) {
		v = identity_co_find(c->a, c->identity, &p);
		if (!v)
			return err_set(c->e, -ENOENT, "the volume is gone");
		r = pool_co_note_set(p, v->id, c->key, c->data, c->len, c->e);
		if (r != -ENOENT) /* else it went to another pool while we waited */
			return r;
	}
}

static int identity_get_there(void *arg)
{
	struct identity_note *c = arg;
	struct ashlar_pool *p;
	struct thin_vol *v = identity_co_find(c->a, c->identity, &p);

	return v ? pool_co_note_get(p, v->id, c->key, &c->data, &c->len) : -ENOENT;
}

int ashlar_co_identity_note_set(struct ashlar *a, const struct uuid *identity, unsigned key, const void *data, size_t len, struct err *e)
{
	struct identity_note c = { .a = a, .identity = identity, .key = key, .data = (void *)(uintptr_t)data, .len = len, .e = e };

	return reactor_co_call(a->world->reactors[0], identity_set_there, &c);
}

int ashlar_co_identity_note_get(struct ashlar *a, const struct uuid *identity, unsigned key, void **data, size_t *len, struct err *e)
{
	struct identity_note c = { .a = a, .identity = identity, .key = key, .e = e };
	int r;

	CHECK(key < ASHLAR_NOTES);
	r = reactor_co_call(a->world->reactors[0], identity_get_there, &c);
	*data = c.data;
	*len = c.len;
	return err_default(e, r, "reading what belongs to a volume");
}
