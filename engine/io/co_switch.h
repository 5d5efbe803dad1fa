/*
 * co_switch.h: the machine's part of a coroutine: make a stack, switch stacks. Private to co.c.
 *
 * x86-64 and aarch64 save the callee-saved registers on the stack they leave (the System V and AAPCS64 rules; floating
 * point control words are never changed by anybody here and are not saved). Elsewhere: ucontext.
 */
#ifndef ENGINE_IO_CO_SWITCH_H
#define ENGINE_IO_CO_SWITCH_H

#include "engine/base/base.h"

/* CO_UCONTEXT: for trying the portable way out */
#if (defined(__x86_64__) || defined(__aarch64__)) && !defined(CO_UCONTEXT)

struct co_ctx {
	void *sp;
};

#else

#include <ucontext.h>
struct co_ctx {
	ucontext_t uc;
};

#endif

/* Prepares `ctx` so that the first switch to it calls entry(arg) on the stack [stack, stack+len); entry never returns. */
void co_ctx_init(struct co_ctx *ctx, void *stack, size_t len, void (*entry)(void *arg), void *arg);
/* Saves the running context in `from` and goes on with `to`. */
void co_ctx_switch(struct co_ctx *from, struct co_ctx *to);

#endif
