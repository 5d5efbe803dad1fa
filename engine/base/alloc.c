/*
 * Allocation with an optional memory of what is live, so that a simulated crash can drop a whole engine instance.
 * Every block has a header that links it into the tracking thread's list, or to nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/base/alloc_hold.h"
#include "engine/base/base.h"
#include "engine/base/list.h"

struct header {
	struct list link;
	void *raw; /* what malloc gave */
	size_t len;
};

static __thread struct list *tracked; /* NULL: not tracking */
static __thread struct list tracked_head;

static void *header_init(void *raw, size_t skip, size_t len)
{
	struct header *h = (struct header *)((char *)raw + skip) - 1;

	h->raw = raw;
	h->len = len;
	if (tracked)
		list_push_back(tracked, &h->link);
	else
		list_init(&h->link);
	return h + 1;
}

void *xmalloc(size_t len)
{
	void *raw;

	CHECK(len < SIZE_MAX / 2);
	raw = malloc(len + sizeof(struct header));
	CHECK(raw);
	return header_init(raw, sizeof(struct header), len);
}

void *xcalloc(size_t n, size_t len)
{
	void *p;

	CHECK(len == 0 || n <= SIZE_MAX / 2 / len);
	p = xmalloc(n * len);
	memset(p, 0, n * len);
	return p;
}

void *xaligned(size_t align, size_t len)
{
	void *raw;

	CHECK(IS_POW2(align) && align >= 16 && align <= 4096 && len < SIZE_MAX / 2);
	align = MAX(align, sizeof(struct header));
	if (posix_memalign(&raw, align, align + len))
		CHECK(!"out of memory");
	return header_init(raw, align, len);
}

void alloc_free_now(void *p)
{
	struct header *h = (struct header *)p - 1;

	list_del(&h->link);
	free(h->raw);
}

void xfree(void *p)
{
	if (!p || (unlikely(alloc_has_holds()) && alloc_put_off(p, ((struct header *)p - 1)->len)))
		return;
	alloc_free_now(p);
}

void *xrealloc(void *p, size_t len)
{
	struct header *h = p;
	void *q;

	if (!p)
		return xmalloc(len);
	h--;
	q = xmalloc(len);
	memcpy(q, p, MIN(len, h->len));
	xfree(p);
	return q;
}

char *xstrdup(const char *s)
{
	size_t len = strlen(s) + 1;

	return memcpy(xmalloc(len), s, len);
}

void alloc_track_begin(void)
{
	CHECK(!tracked);
	list_init(&tracked_head);
	tracked = &tracked_head;
}

size_t alloc_track_drop(void)
{
	struct list *n;
	size_t count = 0;

	CHECK(tracked);
	alloc_hold_reset();
	while ((n = list_pop_front(tracked))) {
		free(container_of(n, struct header, link)->raw);
		count++;
	}
	tracked = NULL;
	return count;
}

void alloc_track_end(void)
{
	CHECK(tracked);
	while (list_pop_front(tracked))
		;
	tracked = NULL;
}
