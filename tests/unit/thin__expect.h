/*
 * thin__expect.h: what all unit tests of thin/ have: one rig, and a check that prints the seed, the first twenty times.
 */
#ifndef TESTS_UNIT_THIN__EXPECT_H
#define TESTS_UNIT_THIN__EXPECT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <CUnit/Basic.h>

#include "engine/io/buf.h"
#include "tests/lib/thin_rig.h"

static struct thin_rig rig;
static unsigned n_problems;

#define EXPECT(cond)                                                                                                \
	do {                                                                                                        \
		bool ok_ = (cond);                                                                                  \
		if (!ok_ && n_problems++ < 20)                                                                      \
			fprintf(stderr, "seed %llu, line %d: %s\n", (unsigned long long)rig.conf.seed, __LINE__, #cond); \
		CU_ASSERT(ok_);                                                                                     \
	} while (0)

#endif
