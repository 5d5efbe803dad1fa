#include "engine/io/co_switch.h"

#if defined(__x86_64__) && !defined(CO_UCONTEXT)

/* co_ctx_switch(from: rdi, to: rsi); co_ctx_start: entry in r12, its argument in rbx. */
__asm__(".text\n"
	".p2align 4\n"
	".globl co_ctx_switch\n"
	".hidden co_ctx_switch\n"
	".type co_ctx_switch, @function\n"
	"co_ctx_switch:\n"
	"	pushq %rbp\n"
	"	pushq %rbx\n"
	"	pushq %r12\n"
	"	pushq %r13\n"
	"	pushq %r14\n"
	"	pushq %r15\n"
	"	movq %rsp, (%rdi)\n"
	"	movq (%rsi), %rsp\n"
	"	popq %r15\n"
	"	popq %r14\n"
	"	popq %r13\n"
	"	popq %r12\n"
	"	popq %rbx\n"
	"	popq %rbp\n"
	"	ret\n"
	".size co_ctx_switch, .-co_ctx_switch\n"
	".globl co_ctx_start\n"
	".hidden co_ctx_start\n"
	".type co_ctx_start, @function\n"
	"co_ctx_start:\n"
	"	.cfi_startproc\n"
	"	.cfi_undefined rip\n"
	"	movq %rbx, %rdi\n"
	"	xorl %ebp, %ebp\n"
	"	callq *%r12\n"
	"	ud2\n"
	"	.cfi_endproc\n"
	".size co_ctx_start, .-co_ctx_start\n");

void co_ctx_start(void) __attribute__((visibility("hidden")));

void co_ctx_init(struct co_ctx *ctx, void *stack, size_t len, void (*entry)(void *arg), void *arg)
{
	void **sp = (void **)(((uintptr_t)stack + len) & ~(uintptr_t)15);

	*--sp = NULL; /* keeps the stack 16-byte aligned at co_ctx_start, after its return address is popped */
	*--sp = NULL;
	*--sp = (void *)(uintptr_t)co_ctx_start;
	*--sp = NULL;			    /* rbp */
	*--sp = arg;			    /* rbx */
	*--sp = (void *)(uintptr_t)entry; /* r12 */
	*--sp = NULL;			    /* r13 */
	*--sp = NULL;			    /* r14 */
	*--sp = NULL;			    /* r15 */
	ctx->sp = sp;
}

#elif defined(__aarch64__) && !defined(CO_UCONTEXT)

/* co_ctx_switch(from: x0, to: x1); co_ctx_start: entry in x19, its argument in x20. */
__asm__(".text\n"
	".p2align 4\n"
	".globl co_ctx_switch\n"
	".hidden co_ctx_switch\n"
	".type co_ctx_switch, %function\n"
	"co_ctx_switch:\n"
	"	sub sp, sp, #160\n"
	"	stp x19, x20, [sp, #0]\n"
	"	stp x21, x22, [sp, #16]\n"
	"	stp x23, x24, [sp, #32]\n"
	"	stp x25, x26, [sp, #48]\n"
	"	stp x27, x28, [sp, #64]\n"
	"	stp x29, x30, [sp, #80]\n"
	"	stp d8, d9, [sp, #96]\n"
	"	stp d10, d11, [sp, #112]\n"
	"	stp d12, d13, [sp, #128]\n"
	"	stp d14, d15, [sp, #144]\n"
	"	mov x9, sp\n"
	"	str x9, [x0]\n"
	"	ldr x9, [x1]\n"
	"	mov sp, x9\n"
	"	ldp x19, x20, [sp, #0]\n"
	"	ldp x21, x22, [sp, #16]\n"
	"	ldp x23, x24, [sp, #32]\n"
	"	ldp x25, x26, [sp, #48]\n"
	"	ldp x27, x28, [sp, #64]\n"
	"	ldp x29, x30, [sp, #80]\n"
	"	ldp d8, d9, [sp, #96]\n"
	"	ldp d10, d11, [sp, #112]\n"
	"	ldp d12, d13, [sp, #128]\n"
	"	ldp d14, d15, [sp, #144]\n"
	"	add sp, sp, #160\n"
	"	ret\n"
	".size co_ctx_switch, .-co_ctx_switch\n"
	".hidden co_ctx_start\n"
	".globl co_ctx_start\n"
	".type co_ctx_start, %function\n"
	"co_ctx_start:\n"
	"	mov x0, x20\n"
	"	mov x29, xzr\n"
	"	mov x30, xzr\n"
	"	blr x19\n"
	"	brk #0\n"
	".size co_ctx_start, .-co_ctx_start\n");

void co_ctx_start(void) __attribute__((visibility("hidden")));

void co_ctx_init(struct co_ctx *ctx, void *stack, size_t len, void (*entry)(void *arg), void *arg)
{
	void **sp = (void **)(((uintptr_t)stack + len) & ~(uintptr_t)15);
	unsigned i;

	sp -= 20;
	for (i = 0; i < 20; i++)
		sp[i] = NULL;
	sp[0] = (void *)(uintptr_t)entry;	  /* x19 */
	sp[1] = arg;				  /* x20 */
	sp[11] = (void *)(uintptr_t)co_ctx_start; /* x30 */
	ctx->sp = sp;
}

#else

/* makecontext() passes ints: a pointer travels in two halves. */
struct start {
	void (*entry)(void *arg);
	void *arg;
};

static void co_ctx_start(unsigned hi, unsigned lo)
{
	struct start *s = (struct start *)(uintptr_t)((uint64_t)hi << 32 | lo);

	s->entry(s->arg);
}

void co_ctx_init(struct co_ctx *ctx, void *stack, size_t len, void (*entry)(void *arg), void *arg)
{
	struct start *s = (struct start *)stack; /* at the far end, which the stack reaches last */
	uint64_t p = (uint64_t)(uintptr_t)s;

	s->entry = entry;
	s->arg = arg;
	CHECK(getcontext(&ctx->uc) == 0);
	ctx->uc.uc_stack.ss_sp = (char *)stack + sizeof(*s);
	ctx->uc.uc_stack.ss_size = len - sizeof(*s);
	ctx->uc.uc_link = NULL;
	makecontext(&ctx->uc, (void (*)(void))co_ctx_start, 2, (unsigned)(p >> 32), (unsigned)p);
}

void co_ctx_switch(struct co_ctx *from, struct co_ctx *to)
{
	CHECK(swapcontext(&from->uc, &to->uc) == 0);
}

#endif
