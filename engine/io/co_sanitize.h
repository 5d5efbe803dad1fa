/*
 * co_sanitize.h: tells ASan, TSan and valgrind of coroutine stacks. Nothing at all in an ordinary build, but for
 * valgrind's few no-op instructions when a stack is made. Private to co.c.
 */
#ifndef ENGINE_IO_CO_SANITIZE_H
#define ENGINE_IO_CO_SANITIZE_H

#include "engine/base/base.h"

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define CO_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define CO_TSAN 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define CO_ASAN 1
#endif
#ifdef __SANITIZE_THREAD__
#define CO_TSAN 1
#endif

#ifdef CO_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef CO_TSAN
#include <sanitizer/tsan_interface.h>
#endif
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#else
#define VALGRIND_STACK_REGISTER(lo, hi) 0
#define VALGRIND_STACK_DEREGISTER(id) ((void)(id))
#endif

/* One per stack; the main stack of a pool has one, too. */
struct co_san {
	unsigned valgrind_id;
#ifdef CO_ASAN
	void *fake;
	const void *bottom;
	size_t len;
#endif
#ifdef CO_TSAN
	void *fiber;
#endif
};

static inline void co_san_init(struct co_san *s, void *stack, size_t len)
{
	s->valgrind_id = VALGRIND_STACK_REGISTER(stack, (char *)stack + len);
#ifdef CO_ASAN
	s->fake = NULL;
	s->bottom = stack;
	s->len = len;
#endif
#ifdef CO_TSAN
	s->fiber = __tsan_create_fiber(0);
#endif
}

static inline void co_san_fini(struct co_san *s, void *stack, size_t len)
{
	VALGRIND_STACK_DEREGISTER(s->valgrind_id);
#ifdef CO_ASAN
	ASAN_UNPOISON_MEMORY_REGION(stack, len);
#endif
#ifdef CO_TSAN
	__tsan_destroy_fiber(s->fiber);
#endif
}

/* On the stack that is left, just before the switch. */
static inline __attribute__((always_inline)) void co_san_leave(struct co_san *from, struct co_san *to)
{
#ifdef CO_ASAN
	__sanitizer_start_switch_fiber(&from->fake, to->bottom, to->len);
#endif
#ifdef CO_TSAN
	if (!from->fiber) /* a main stack: its thread's own fiber */
		from->fiber = __tsan_get_current_fiber();
	__tsan_switch_to_fiber(to->fiber, 0);
#endif
}

/* On the stack that is entered, just after the switch; `from` is who switched here. */
static inline __attribute__((always_inline)) void co_san_arrive(struct co_san *self, struct co_san *from)
{
#ifdef CO_ASAN
	__sanitizer_finish_switch_fiber(self->fake, &from->bottom, &from->len);
#endif
}

#endif
