/*
 * base.h: the few words every file uses.
 *
 * Context: any. No state, no I/O.
 */
#ifndef ENGINE_BASE_BASE_H
#define ENGINE_BASE_BASE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define DIV_UP(a, b) (((a) + (b) - 1) / (b))
#define ALIGN_DOWN(x, a) ((x) & ~((__typeof__(x))(a) - 1)) /* a: power of two */
#define ALIGN_UP(x, a) ALIGN_DOWN((x) + (a) - 1, (a))
#define IS_ALIGNED(x, a) (((x) & ((__typeof__(x))(a) - 1)) == 0)
#define IS_POW2(x) ((x) != 0 && ((x) & ((x) - 1)) == 0)

#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define __must_check __attribute__((warn_unused_result))
#define __printf_like(f, a) __attribute__((format(printf, f, a)))

/* Stays on in production. For programmer errors and the engine's own state, never for what came from disk or wire. */
#define CHECK(cond)                                                        \
	do {                                                               \
		if (unlikely(!(cond)))                                     \
			check_failed(#cond, __FILE__, __LINE__, __func__); \
	} while (0)

void check_failed(const char *cond, const char *file, int line, const char *func) __attribute__((noreturn));

/* malloc/calloc that never return NULL: an engine that cannot get a few bytes stops at once, whole. Sizes that come from
 * outside are bounded before they get here. */
void *xmalloc(size_t len);
void *xcalloc(size_t n, size_t len);
void *xrealloc(void *p, size_t len);
char *xstrdup(const char *s);
void *xaligned(size_t align, size_t len); /* align: power of two, at most 4096; freed by xfree() too */
void xfree(void *p); /* NULL is ignored. The only way to free what the functions above gave. See also alloc_hold.h. */

/* A simulated crash drops an engine instance without running its destructors: between these two, everything this thread
 * allocates by the functions above (and has not freed) is remembered, and drop frees it. Not nested. */
void alloc_track_begin(void);
size_t alloc_track_drop(void); /* returns the number of live allocations it freed */
void alloc_track_end(void);    /* stop remembering, free nothing */

#endif
