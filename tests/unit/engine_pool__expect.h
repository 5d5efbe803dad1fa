/* What unit tests of engine/pool that run in a world of their own expect: `env` has a seed. */
#ifndef TESTS_UNIT_ENGINE_POOL__EXPECT_H
#define TESTS_UNIT_ENGINE_POOL__EXPECT_H

#include <stdio.h>
#include <string.h>
#include <CUnit/Basic.h>

#include "engine/base/err.h"

static unsigned n_problems;

#define EXPECT(env, cond)                                                                                                           \
	do {                                                                                                                        \
		bool ok_ = (cond);                                                                                                  \
		if (!ok_ && n_problems++ < 20)                                                                                      \
			fprintf(stderr, "seed %llu, line %d: %s\n", (unsigned long long)(env)->seed, __LINE__, #cond);              \
		CU_ASSERT(ok_);                                                                                                     \
	} while (0)

/* Must succeed, and must fail with this code and a sentence that has this in it. */
#define OK(env, call)                                                                                         \
	do {                                                                                                  \
		struct err e = { 0 };                                                                         \
		int r_ = (call);                                                                              \
		if (r_ < 0)                                                                                   \
			fprintf(stderr, "line %d: %d: %s\n", __LINE__, r_, e.text);                           \
		EXPECT(env, r_ == 0);                                                                         \
	} while (0)
#define REFUSED(env, code, text_, call)                                                                       \
	do {                                                                                                  \
		struct err e = { 0 };                                                                         \
		int r_ = (call);                                                                              \
		if (r_ != (code) || !strstr(e.text, text_))                                                   \
			fprintf(stderr, "line %d: %d: %s\n", __LINE__, r_, e.text);                           \
		EXPECT(env, r_ == (code) && strstr(e.text, text_));                                           \
	} while (0)

#endif
